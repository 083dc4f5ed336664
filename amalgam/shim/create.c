/* create.c - Create: from a bundle and a list of mounts to a process in a guest that waits for Start.
 *
 *     specification, options       read and checked
 *     root filesystem              a disk for the machine, or mounted here and shared with it
 *     volumes                      shared
 *     streams                      opened; a logger may take its time
 *     sandbox                      the first container's Create makes it
 *     hooks prestart, createRuntime
 *     container                    made by the agent
 *
 * Whatever fails takes back all that came before, and a sandbox made for it goes, too. A Create that
 * nobody waits for any more is made to fail (create_abort()). */
#include "amalgam/shim/shim.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/resource/mounts.h"
#include "amalgam/resource/share.h"
#include "amalgam/wire/oci_spec.h"

struct shim_create {
	struct ttrpc_call *call;
	const Ctd__CreateTaskRequest *rq; /* lives until the call is answered */
	struct shim_container *c;
	struct shim_options opt;
	struct sandbox_disk disk; /* fd -1: the root filesystem is a share */
	bool made_pod;
	char prefix[24]; /* of its shares' names */
};

/* --- undoing ---------------------------------------------------------------------------------- */

void create_undo(struct shim_container *c)
{
	struct shim_pod *pod = &c->shim->pod;
	struct err e = { 0 };

	if (pod->status != POD_UP)
		return;
	for (unsigned i = 0; i < c->binds.n; i++)
		sandbox_share_remove(&pod->sandbox, c->binds.name[i], NULL);
	c->binds.n = 0;
	if (c->has_disk && sandbox_disk_remove(&pod->sandbox, c->rootfs.slot, &e) < 0)
		log_warn("disk not taken out", KV("id", c->id), KV("reason", e.msg));
	c->has_disk = false;
}

static void create_close(struct shim_create *op)
{
	for (unsigned i = 0; i < op->c->binds.n; i++)
		if (op->c->binds.share[i].fd >= 0)
			close(take_fd(&op->c->binds.share[i].fd));
	if (op->disk.fd >= 0)
		close(take_fd(&op->disk.fd));
	shim_options_fini(&op->opt);
	op->c->creating = NULL;
}

static void create_fail(struct shim_create *op, enum ttrpc_code code, const char *why)
{
	struct shim_container *c = op->c;
	struct shim *s = c->shim;
	struct ttrpc_call *call = op->call;

	process_forget(&c->init.run); /* it was never there, so it does not end */
	create_close(op);
	create_undo(c);
	if (op->made_pod)
		pod_stop(s);
	shim_container_free(c);
	ttrpc_fail(call, code, "%s", why);
	free(op);
	shim_maybe_end(s);
}

static void create_fail_err(struct shim_create *op, const struct err *e)
{
	create_fail(op, e->code == -EEXIST ? TTRPC_ALREADY_EXISTS : TTRPC_UNKNOWN, e->msg);
}

static void create_given_up(struct shim_create *op)
{
	create_fail(op, TTRPC_CANCELLED, "create was given up");
}

void create_abort(struct shim_container *c)
{
	struct shim *s = c->shim;

	c->aborted = true;
	hooks_stop(&c->hooks);
	/* Whatever else it waits for comes from the machine, or looks for this when it comes. */
	if (c->creating && c->creating->made_pod && s->pod.sandbox.vm.pid > 0)
		kill(s->pod.sandbox.vm.pid, SIGKILL);
}

/* --- the steps, last one first ---------------------------------------------------------------- */

static void create_publish(const struct shim_create *op)
{
	const Ctd__CreateTaskRequest *rq = op->rq;
	struct shim *s = op->c->shim;
	Ctd__TaskCreate ev = CTD__TASK_CREATE__INIT;
	Ctd__TaskIO io = CTD__TASK_IO__INIT;

	io.stdin_path = rq->stdin_path;
	io.stdout_path = rq->stdout_path;
	io.stderr_path = rq->stderr_path;
	io.terminal = rq->terminal;
	ev.container_id = rq->id;
	ev.bundle = rq->bundle;
	ev.rootfs = rq->rootfs;
	ev.n_rootfs = rq->n_rootfs;
	ev.io = &io;
	ev.pid = shim_pid(s);
	shim_events_publish(&s->events, "/tasks/create", "containerd.events.TaskCreate", &ev.base);
}

static void create_on_taken_back(void *arg, const struct ttrpc_result *res)
{
	(void)res;
	create_given_up(arg);
}

/* A machine that goes on must not keep what nobody wants any more; its shares are taken away after that. */
static void create_take_back(struct shim_create *op)
{
	Grpc__RemoveContainerRequest ask = GRPC__REMOVE_CONTAINER_REQUEST__INIT;

	ask.container_id = op->c->id;
	ask.timeout = 10;
	agent_ask(&op->c->shim->pod.sandbox.agent, "RemoveContainer", &ask, &grpc__empty__descriptor,
		  AGENT_LIMIT_NS, create_on_taken_back, op);
}

static void create_on_created(void *arg, const struct ttrpc_result *res)
{
	struct shim_create *op = arg;
	struct shim_container *c = op->c;
	Ctd__CreateTaskResponse r = CTD__CREATE_TASK_RESPONSE__INIT;

	if (c->aborted && res->code == TTRPC_OK && !op->made_pod) {
		create_take_back(op);
		return;
	}
	if (c->aborted) {
		create_given_up(op);
		return;
	}
	if (res->code != TTRPC_OK) {
		create_fail(op, TTRPC_UNKNOWN,
			    c->shim->pod.sandbox.gone ? c->shim->pod.sandbox.why : res->message);
		return;
	}
	c->in_guest = true;
	create_close(op);
	pod_note(c->shim);
	create_publish(op);
	process_watch(&c->init.run);
	r.pid = shim_pid(c->shim);
	ttrpc_reply(op->call, &r.base);
	free(op);
}

/* Absent strings are protobuf-c's constant. */
static void create_blank(char *s)
{
	if (*s)
		*s = '\0';
}

/* What concerns the host only, or means nothing in a guest that is the pod. */
static void create_strip(Grpc__Spec *spec)
{
	Grpc__Linux *l = spec->linux;
	size_t n = 0;

	for (size_t i = 0; i < l->n_namespaces; i++) {
		Grpc__LinuxNamespace *ns = l->namespaces[i];
		if (!strcmp(ns->type, "network")) { /* the guest's only one is the pod's */
			grpc__linux_namespace__free_unpacked(ns, NULL);
			continue;
		}
		create_blank(ns->path);
		l->namespaces[n++] = ns;
	}
	l->n_namespaces = n;
	create_blank(spec->process->apparmorprofile);
	create_blank(spec->process->selinuxlabel);
	create_blank(l->mountlabel);
}

static void create_in_guest(struct shim_create *op)
{
	struct shim_container *c = op->c;
	struct container_request q;
	struct err e = { 0 };

	if (shim_proc_connect(&c->init, &e) < 0) {
		create_fail_err(op, &e);
		return;
	}
	create_strip(c->spec);
	container_request(&q, c->id, c->spec, &c->rootfs, c->init.run.ports);
	q.rq.exec_errors_to_stderr = true;
	agent_ask(&c->shim->pod.sandbox.agent, "CreateContainer", &q.rq, &grpc__empty__descriptor,
		  AGENT_LIMIT_NS, create_on_created, op);
	container_request_fini(&q);
}

/* The stages one after the other. */
static void create_hooks(struct shim_create *op, enum hooks_stage stage, hooks_over_fn *over)
{
	struct shim_container *c = op->c;
	const struct hooks_state st = { c->spec, c->id, c->bundle, (pid_t)shim_pid(c->shim) };

	hooks_begin(&c->hooks, &c->shim->loop, stage, &st, over, op);
}

static void create_on_hooks(void *arg, const struct err *why)
{
	struct shim_create *op = arg;
	const struct sandbox *sandbox = &op->c->shim->pod.sandbox;

	if (why->code < 0)
		create_fail_err(op, why);
	else if (sandbox->gone) /* meanwhile */
		create_fail(op, TTRPC_UNKNOWN, sandbox->why);
	else
		create_in_guest(op);
}

static void create_on_prestart(void *arg, const struct err *why)
{
	if (why->code < 0)
		create_fail_err(arg, why);
	else
		create_hooks(arg, HOOKS_CREATE_RUNTIME, create_on_hooks);
}

static void create_on_pod(void *arg, const struct err *why)
{
	struct shim_create *op = arg;

	if (op->made_pod && op->disk.fd >= 0) {
		op->c->rootfs.slot = op->c->shim->pod.sandbox.slot[0];
		op->c->has_disk = true;
	}
	if (op->c->aborted)
		create_given_up(op);
	else if (why->code < 0)
		create_fail_err(op, why);
	else
		create_hooks(op, HOOKS_PRESTART, create_on_prestart);
}

/* Into a machine that runs. */
static int create_attach(struct shim_create *op, struct err *e)
{
	struct shim_pod *pod = &op->c->shim->pod;
	struct binds *b = &op->c->binds;
	int r;

	if (op->disk.fd >= 0 &&
	    (r = sandbox_disk_add(&pod->sandbox, &op->disk, &op->c->rootfs.slot, e)) < 0)
		return err_wrap(e, "rootfs");
	op->c->has_disk = op->disk.fd >= 0;
	for (unsigned i = 0; i < b->n; i++)
		if ((r = sandbox_share_add(&pod->sandbox, &b->share[i], e)) < 0)
			return r;
	return 0;
}

static void create_machine(struct shim_create *op)
{
	struct shim *s = op->c->shim;
	const struct sandbox_disk *disk = op->disk.fd >= 0 ? &op->disk : NULL;
	struct err e = { 0 };

	if (op->c->aborted) {
		create_given_up(op);
		return;
	}
	op->made_pod = s->pod.status == POD_NONE;
	if (s->pod.status == POD_UP) {
		if (create_attach(op, &e) < 0)
			create_fail_err(op, &e);
		else
			create_on_pod(op, &e);
	} else if (pod_start(s, op->c, &op->opt, disk, &op->c->binds, create_on_pod, op, &e) < 0) {
		create_fail_err(op, &e);
	}
}

static void create_stdio_ready(void *arg, const struct err *e)
{
	if (e)
		create_fail_err(arg, e);
	else
		create_machine(arg);
}

/* --- what is looked at before anything is made ------------------------------------------------ */

static int create_load_spec(struct shim_container *c, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/config.json", c->bundle);
	AUTO_BUF struct buf b = { 0 };
	int r = path_read(path, OCI_SPEC_MAX_BYTES, &b, e);

	if (r < 0)
		return r;
	c->spec = oci_spec_parse(b.data, b.len, e);
	if (!c->spec)
		return err_wrap(e, "config.json");
	if (!c->spec->process || !c->spec->root || !c->spec->linux)
		return err_set(e, -EINVAL, "config.json: process, root or linux: missing");
	return 0;
}

/* The tree at path is the root filesystem. */
static int create_share_root(struct shim_create *op, const char *path, struct err *e)
{
	struct shim_container *c = op->c;
	bool ro = c->spec->root->readonly;
	char name[CTL_SHARE_NAME];
	int fd = share_open(AT_FDCWD, path, SHARE_RECURSIVE | (ro ? SHARE_READONLY : 0), e);

	if (fd < 0)
		return err_wrap(e, "rootfs %s", path);
	snprintf(name, sizeof name, "%s-rootfs", op->prefix);
	if (binds_add(&c->binds, name, fd, CTL_F_SHARE_PRIVATE | (ro ? CTL_F_SHARE_READONLY : 0), e) < 0)
		return e->code;
	c->rootfs.share = c->binds.name[c->binds.n - 1];
	c->rootfs.read_only = ro;
	return 0;
}

static int create_disk_root(struct shim_create *op, const struct res_disk *d, struct err *e)
{
	bool ro = d->read_only;
	int fd = ro ? share_open_image(d->path) : open(d->path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && !ro)
		fd = -errno;
	if (fd < 0)
		return err_set(e, fd, "rootfs %s: %s", d->path, strerror(-fd));
	op->disk = (struct sandbox_disk){ fd, ro };
	op->c->rootfs.fstype = d->fstype;
	op->c->rootfs.read_only = ro || op->c->spec->root->readonly;
	return 0;
}

/* containerd's list, mounted onto the bundle's rootfs. */
static int create_mount_root(struct shim_create *op, const struct res_mount *list, size_t n, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/rootfs", op->c->bundle);

	if (mkdir(path, 0711) < 0 && errno != EEXIST)
		return err_set(e, -errno, "%s: %m", path);
	if (res_mount_all(list, n, path, e) < 0)
		return err_wrap(e, "rootfs");
	op->c->mounted = true;
	return create_share_root(op, path, e);
}

static int create_root(struct shim_create *op, struct err *e)
{
	const Ctd__CreateTaskRequest *rq = op->rq;
	const char *own = op->c->spec->root->path;
	AUTO_FREE struct res_mount *list = mem_calloc(rq->n_rootfs ? rq->n_rootfs : 1, sizeof *list);
	AUTO_FREE char *path = NULL;
	struct res_disk disk;
	int r;

	for (size_t i = 0; i < rq->n_rootfs; i++) {
		const Ctd__Mount *m = rq->rootfs[i];
		list[i] = (struct res_mount){ m->type, m->source, m->target, m->options, m->n_options };
	}
	if (!rq->n_rootfs) { /* Docker, ctr --rootfs: it is there already */
		path = *own == '/' ? mem_strdup(own) : mem_printf("%s/%s", op->c->bundle, own);
		return create_share_root(op, path, e);
	}
	if (!res_mounts_disk(list, rq->n_rootfs, &disk))
		return create_mount_root(op, list, rq->n_rootfs, e);
	r = create_disk_root(op, &disk, e);
	res_disk_fini(&disk);
	return r;
}

static int create_prepare(struct shim_create *op, struct err *e)
{
	struct shim_container *c = op->c;

	snprintf(op->prefix, sizeof op->prefix, "c%u", c->shim->pod.serial++);
	shim_options_add(&op->opt, op->rq->options);
	if (create_load_spec(c, e) < 0 || create_root(op, e) < 0)
		return e->code;
	c->init.terminal = op->rq->terminal;
	c->spec->process->terminal = op->rq->terminal;
	shim_proc_set_stdio(&c->init, op->rq->stdin_path, op->rq->stdout_path, op->rq->stderr_path);
	return binds_of_spec(&c->binds, c->spec, c->bundle, op->prefix, e);
}

static void create_begin(struct shim *s, struct ttrpc_call *call, const Ctd__CreateTaskRequest *rq)
{
	struct shim_create *op = mem_zalloc(sizeof *op);
	struct err e = { 0 };
	int r;

	op->call = call;
	op->rq = rq;
	op->disk.fd = -1;
	op->c = shim_container_new(s, rq->id, rq->bundle, op);
	r = create_prepare(op, &e);
	if (r == 0)
		r = shim_proc_open(&op->c->init, create_stdio_ready, op, &e);
	if (r <= 0)
		create_stdio_ready(op, r < 0 ? &e : NULL);
}

void task_create(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	const Ctd__CreateTaskRequest *rq = (const Ctd__CreateTaskRequest *)(const void *)m;
	struct shim *s = shim_of(call);

	if (*rq->checkpoint)
		ttrpc_fail(call, TTRPC_UNIMPLEMENTED, "create from a checkpoint: not implemented");
	else if (shim_container_find(s, rq->id, NULL))
		ttrpc_fail(call, TTRPC_ALREADY_EXISTS, "container %s: already exists", rq->id);
	else
		create_begin(s, call, rq);
}
