#include "guest/agent/container.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "guest/agent/agent.h"
#include "guest/agent/cgdev.h"
#include "guest/agent/dev.h"
#include "guest/agent/rpc.h"

#define GA_CONTAINER_ABORT_MS 10000

/* ---- Finding */

struct ga_container *ga_container_find(struct ga_agent *a, const char *id, struct err *e)
{
	for (struct ga_container *c = a->containers; c; c = c->next)
		if (!strcmp(c->id, id))
			return c;
	err_set(e, -EINVAL, "container \"%.128s\" not found", id);
	return NULL;
}

struct ga_process *ga_container_process(struct ga_container *c, const char *exec_id, struct err *e)
{
	if (!strcmp(exec_id, c->id))
		exec_id = "";
	for (struct ga_process *p = c->processes; p; p = p->next)
		if (!strcmp(p->exec_id, exec_id))
			return p;
	err_set(e, -ESRCH, "container \"%s\" has no process \"%.128s\"", c->id, exec_id);
	return NULL;
}

bool ga_container_id_is_valid(const char *id)
{
	size_t n = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n > 0 && n <= 128 && id[n] == '\0' && id[strspn(id, ".")] != '\0';
}

/* ---- Step: devices */

static int ga_container_bind_slot(struct ga_container *c, unsigned slot, struct err *e)
{
	bool was_bound;

	if (ga_slot_bind(slot, &was_bound, e) < 0)
		return e->code;
	if (!was_bound)
		c->slots[slot / 8] |= (uint8_t)(1 << slot % 8);
	return 0;
}

/* The host numbered the device before the guest had seen it: put in what it is here. */
static int ga_container_fix_device(Grpc__Spec *spec, const char *path, const struct stat *st,
				   struct err *e)
{
	Grpc__LinuxResources *r = spec->linux->resources;

	for (size_t i = 0; i < spec->linux->n_devices; i++) {
		Grpc__LinuxDevice *d = spec->linux->devices[i];
		int64_t major = d->major, minor = d->minor;
		if (strcmp(d->path, path) != 0)
			continue;
		d->major = major(st->st_rdev);
		d->minor = minor(st->st_rdev);
		for (size_t k = 0; r && k < r->n_devices; k++) {
			Grpc__LinuxDeviceCgroup *rule = r->devices[k];
			if (rule->major != major || rule->minor != minor || *rule->type == 'a')
				continue;
			rule->major = d->major;
			rule->minor = d->minor;
		}
		return 0;
	}
	return err_set(e, -EINVAL, "device %s is not in the specification", path);
}

static int ga_container_device(struct ga_container *c, const Grpc__Device *d, struct err *e)
{
	int slot = ga_slot_parse(d->vm_path);
	AUTO_FREE char *node = NULL;
	char name[64];
	struct stat st;

	if (strcmp(d->type, "mmioblk") != 0 && strcmp(d->type, "blk") != 0 &&
	    strcmp(d->type, "nvdimm") != 0)
		return err_set(e, -EOPNOTSUPP, "device type \"%s\" is not supported", d->type);
	if (slot < 0 && strncmp(d->vm_path, "/dev/", 5) != 0)
		return err_set(e, -EINVAL, "device \"%s\" is neither /dev/... nor slot:K",
			       d->vm_path);
	if (slot >= 0 && ga_container_bind_slot(c, (unsigned)slot, e) < 0)
		return e->code;
	if (slot >= 0 && ga_slot_device((unsigned)slot, "block", name, sizeof name) < 0)
		return err_set(e, -EAGAIN, "slot %d has no disk", slot);
	node = slot >= 0 ? mem_printf("/dev/%s", name) : mem_strdup(d->vm_path);
	if (stat(node, &st) < 0)
		return err_set(e, errno == ENOENT ? -EAGAIN : -errno, "device %s: %m", node);
	if (!*d->container_path)
		return 0;
	return ga_container_fix_device(c->req->oci, d->container_path, &st, e);
}

static int ga_container_do_devices(struct ga_container *c, struct err *e)
{
	for (size_t i = 0; i < c->req->n_devices; i++) {
		int r = ga_container_device(c, c->req->devices[i], e);
		if (r < 0)
			return r;
	}
	return 0;
}

static void ga_container_undo_devices(struct ga_container *c)
{
	for (unsigned k = 0; k <= GA_SLOT_MAX; k++)
		if (c->slots[k / 8] >> k % 8 & 1)
			ga_slot_unbind(k);
}

/* ---- Step: storages */

static int ga_container_do_storages(struct ga_container *c, struct err *e)
{
	for (; c->n_storages < c->req->n_storages; c->n_storages++) {
		int r = ga_storage_add(c->agent, &c->storages, c->req->storages[c->n_storages], e);
		if (r < 0)
			return r;
	}
	return 0;
}

static void ga_container_undo_storages(struct ga_container *c)
{
	ga_storage_remove_all(c->agent, &c->storages);
}

/* ---- Step: namespaces */

/* One namespace of the specification: join by path, or have a new one made. */
static int ga_container_namespace(struct ga_container *c, const Grpc__LinuxNamespace *n,
				  struct err *e)
{
	int kind = ga_ns_kind(n->type);

	if (kind < 0)
		return err_set(e, kind, "namespace type \"%s\" is not known", n->type);
	if (!*n->path) {
		c->new_ns |= ga_ns_flag((unsigned)kind);
		return 0;
	}
	if (kind >= GA_NS_MOUNT)
		return err_set(e, -EOPNOTSUPP, "joining a %s namespace by path is not supported",
			       n->type);
	if (c->join.fd[kind] >= 0)
		return err_set(e, -EINVAL, "two %s namespaces", n->type);
	c->join.fd[kind] = ga_ns_open((unsigned)kind, n->path, e);
	return MIN(c->join.fd[kind], 0);
}

static int ga_container_share(struct ga_container *c, enum ga_ns_kind kind)
{
	int fd = c->agent->sandbox.ns.fd[kind];

	if (fd < 0)
		return 0;
	if (c->join.fd[kind] >= 0)
		close(c->join.fd[kind]);
	c->join.fd[kind] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	c->new_ns &= ~ga_ns_flag(kind);
	return c->join.fd[kind] < 0 ? -errno : 0;
}

/* Queues of an ipc namespace can be mounted only from the user namespace that owns it, so a
 * container with users of its own has to have its own. */
static int ga_container_share_ipc(struct ga_container *c)
{
	return c->new_ns & CLONE_NEWUSER && c->new_ns & CLONE_NEWIPC
		       ? 0
		       : ga_container_share(c, GA_NS_IPC);
}

/* ipc and uts are the pod's; pid is if the host says so, and then the first container's becomes it.
 * Mounts, and pids unless shared, are always the container's own. */
static int ga_container_do_namespaces(struct ga_container *c, struct err *e)
{
	const Grpc__Linux *l = c->req->oci->linux;

	c->new_ns = CLONE_NEWNS | CLONE_NEWPID;
	for (size_t i = 0; i < l->n_namespaces; i++)
		if (ga_container_namespace(c, l->namespaces[i], e) < 0)
			return e->code;
	if (ga_container_share_ipc(c) < 0 || ga_container_share(c, GA_NS_UTS) < 0)
		return err_set(e, -errno, "share the sandbox's namespaces: %m");
	if (c->req->sandbox_pidns) {
		c->owns_pidns = c->agent->sandbox.ns.fd[GA_NS_PID] < 0;
		if (ga_container_share(c, GA_NS_PID) < 0)
			return err_set(e, -errno, "share the sandbox's namespaces: %m");
	}
	c->shares_pidns = c->join.fd[GA_NS_PID] >= 0;
	if (c->shares_pidns)
		c->new_ns &= ~(uint64_t)CLONE_NEWPID;
	if (c->new_ns & CLONE_NEWTIME) {
		c->new_ns &= ~(uint64_t)CLONE_NEWTIME;
		c->join.fd[GA_NS_TIME] = ga_ns_new_time(&c->agent->own, l, e);
		if (c->join.fd[GA_NS_TIME] < 0)
			return e->code;
	}
	c->exec_ns = c->new_ns;
	for (int k = 0; k < GA_NS_KINDS; k++)
		if (c->join.fd[k] >= 0)
			c->exec_ns |= ga_ns_flag((unsigned)k);
	return 0;
}

static void ga_container_undo_namespaces(struct ga_container *c)
{
	int *pidns = &c->agent->sandbox.ns.fd[GA_NS_PID];

	ga_ns_close(&c->join);
	/* Its init is gone, and with it the namespace: nobody can be born there any more. */
	if (c->owns_pidns && *pidns >= 0) {
		close(*pidns);
		*pidns = -1;
	}
}

/* ---- Steps: cgroup, seccomp */

static int ga_container_do_cgroup(struct ga_container *c, struct err *e)
{
	const Grpc__Spec *spec = c->req->oci;
	AUTO_FREE Grpc__LinuxDeviceCgroup **rules = NULL;
	AUTO_BUF struct buf place = { 0 };
	size_t n;

	if (ga_cgroup_place(spec->linux->cgroupspath, c->id, &place, e) < 0 ||
	    ga_cgroup_create(&c->cgroup, buf_cstr(&place), e) < 0)
		return e->code;
	if (!ga_cgroup_is_empty(&c->cgroup))
		return err_set(e, -EBUSY, "cgroup %s is in use", buf_cstr(&place));
	if (spec->linux->resources && ga_cgroup_apply(&c->cgroup, spec->linux->resources, e) < 0)
		return e->code;
	n = ga_dev_rules(spec->linux->resources, spec->linux->devices, spec->linux->n_devices, &rules);
	return ga_cgdev_attach(c->cgroup.fd, rules, n, &c->cgroup.dev_fd, e);
}

static void ga_container_undo_cgroup(struct ga_container *c)
{
	ga_cgroup_remove(&c->cgroup);
}

static int ga_container_do_seccomp(struct ga_container *c, struct err *e)
{
	return ga_seccomp_compile(c->req->oci->linux->seccomp, &c->seccomp, e);
}

static void ga_container_undo_seccomp(struct ga_container *c)
{
	ga_seccomp_fini(&c->seccomp);
}

/* ---- Processes */

static size_t ga_container_running(const struct ga_container *c)
{
	size_t n = 0;

	for (const struct ga_process *p = c->processes; p; p = p->next)
		n += p->pid > 0 && p->state != GA_PROCESS_EXITED;
	return n;
}

static struct ga_process *ga_container_add_process(struct ga_container *c, const char *exec_id)
{
	struct ga_process *p = ga_process_new(c, exec_id), **at = &c->processes;

	while (*at)
		at = &(*at)->next;
	return *at = p;
}

static void ga_container_drop_process(struct ga_container *c, struct ga_process *p)
{
	for (struct ga_process **at = &c->processes; *at; at = &(*at)->next) {
		if (*at == p) {
			*at = p->next;
			ga_process_free(p);
			return;
		}
	}
}

/* Open the streams, clone, close the child's ends. */
static int ga_container_spawn(struct ga_process *p, struct ga_launch *l,
			      const struct ga_ns_set *enter, const uint32_t ports[3],
			      ga_process_step_fn *step, struct err *e)
{
	struct ga_agent *a = p->agent;
	int r = ga_stdio_open(&p->io, l->process->terminal, ports, a->config.pipe_size, l->stdio,
			      e);

	if (r == 0) {
		ga_direct_match(a, &p->io);
		l->seccomp = p->ctr->seccomp.prog;
		l->seccomp_flags = p->ctr->seccomp.flags;
		r = ga_ns_enter(&a->own, enter, e);
		if (r == 0) {
			r = ga_process_spawn(p, l, step, e);
			ga_ns_return(&a->own, enter);
		}
	}
	for (unsigned i = 0; i < 3; i++)
		if (l->stdio[i] >= 0)
			close(l->stdio[i]);
	return r;
}

static void ga_container_init_ready(struct ga_process *p, const struct err *e);

static int ga_container_do_process(struct ga_container *c, struct err *e)
{
	const Grpc__CreateContainerRequest *req = c->req;
	const uint32_t ports[3] = { req->stdin_port, req->stdout_port, req->stderr_port };
	struct ga_launch l = {
		.process = req->oci->process,
		.string_user = req->string_user,
		.spec = req->oci,
		.says_why = req->exec_errors_to_stderr,
		.id = c->id,
		.cgroup_path = c->cgroup.path,
		.new_ns = c->new_ns,
		.sets_hostname = c->new_ns & CLONE_NEWUTS || !c->agent->sandbox.has_hostname,
		.target = -1,
	};

	return ga_container_spawn(ga_container_add_process(c, ""), &l, &c->join, ports,
				  ga_container_init_ready, e);
}

static void ga_container_undo_process(struct ga_container *c)
{
	ga_oom_unwatch(&c->agent->oom, c);
	while (c->processes)
		ga_container_drop_process(c, c->processes);
}

/* ---- Creation: the table */

static const struct ga_container_step {
	int (*run)(struct ga_container *c, struct err *e); /* -EAGAIN: not yet, ask again */
	void (*undo)(struct ga_container *c);              /* also when run has failed half way */
} ga_container_steps[] = {
	{ ga_container_do_devices, ga_container_undo_devices },
	{ ga_container_do_storages, ga_container_undo_storages },
	{ ga_container_do_namespaces, ga_container_undo_namespaces },
	{ ga_container_do_cgroup, ga_container_undo_cgroup },
	{ ga_container_do_seccomp, ga_container_undo_seccomp },
	{ ga_container_do_process, ga_container_undo_process },
};

void ga_container_forget(struct ga_container *c)
{
	struct ga_container **at = &c->agent->containers;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	ga_wait_stop(&c->wait);
	free(c->termination_log);
	free(c->id);
	free(c);
}

static void ga_container_undo(struct ga_container *c)
{
	size_t n = MIN(c->n_steps + 1, ARRAY_LEN(ga_container_steps));

	while (n-- > 0)
		ga_container_steps[n].undo(c);
}

static void ga_container_aborted(struct ga_container *c, bool in_time)
{
	struct ttrpc_call *call = take_ptr(&c->call);
	struct err e = c->failure;

	(void)in_time;
	log_warn("container not created", KV("container", c->id), KV("reason", e.msg));
	ga_container_forget(c);
	ttrpc_fail_err(call, &e);
}

/* Take everything back, then answer the request with the reason. */
static void ga_container_abort(struct ga_container *c, const struct err *e)
{
	c->failure = *e;
	ga_container_end(c, GA_CONTAINER_ABORT_MS, ga_container_aborted);
}

static bool ga_container_try_steps(struct ga_wait *w)
{
	struct ga_container *c = container_of(w, struct ga_container, wait);

	for (; c->n_steps < ARRAY_LEN(ga_container_steps); c->n_steps++) {
		int r;
		c->failure = (struct err){ 0 };
		r = ga_container_steps[c->n_steps].run(c, &c->failure);
		if (r < 0)
			return r != -EAGAIN;
	}
	c->failure = (struct err){ 0 };
	return true;
}

static void ga_container_tried_steps(struct ga_wait *w, bool in_time)
{
	struct ga_container *c = container_of(w, struct ga_container, wait);
	struct err e = c->failure;

	if (!in_time)
		e.code = -ETIMEDOUT;
	if (e.code < 0)
		ga_container_abort(c, &e);
	/* Otherwise init is on its way, and ga_container_init_ready() will be told. */
}

static bool ga_container_has_streams(struct ga_wait *w)
{
	return !ga_stdio_missing(&container_of(w, struct ga_process, wait)->io);
}

static int ga_container_streams_error(struct ga_process *p, struct err *e)
{
	return err_set(e, -ESRCH, "no connection from host port %u came within %d ms",
		       ga_stdio_missing(&p->io), GA_DIRECT_WAIT_MS);
}

static void ga_container_init_streams(struct ga_wait *w, bool in_time)
{
	struct ga_process *p = container_of(w, struct ga_process, wait);
	struct ga_container *c = p->ctr;
	struct err e;

	if (!in_time) {
		ga_container_streams_error(p, &e);
		ga_container_abort(c, &e);
		return;
	}
	c->state = GA_CONTAINER_CREATED;
	c->req = NULL;
	log_info("container created", KV("container", c->id));
	ga_rpc_reply_empty(take_ptr(&c->call));
}

static void ga_container_init_ready(struct ga_process *p, const struct err *e)
{
	struct ga_container *c = p->ctr;

	if (c->state != GA_CONTAINER_CREATING)
		return;
	if (e) {
		ga_container_abort(c, e);
		return;
	}
	if (c->owns_pidns) {
		AUTO_FREE char *path = mem_printf("/proc/%d/ns/pid", p->pid);
		c->agent->sandbox.ns.fd[GA_NS_PID] = ga_ns_open(GA_NS_PID, path, NULL);
	}
	ga_wait_start(&c->agent->loop, &p->wait, GA_DIRECT_WAIT_MS, ga_container_has_streams,
		      ga_container_init_streams);
}

static int ga_container_check(struct ga_agent *a, const Grpc__CreateContainerRequest *req,
			      struct err *e)
{
	const Grpc__Spec *s = req->oci;
	size_t n = 0;

	if (!ga_container_id_is_valid(req->container_id))
		return err_set(e, -EINVAL, "container id \"%.128s\" is not valid",
			       req->container_id);
	if (!a->sandbox.is_ready || a->sandbox.is_dead)
		return err_set(e, -EBUSY, "there is no sandbox: CreateSandbox comes first");
	if (ga_container_find(a, req->container_id, e))
		return err_set(e, -EEXIST, "container \"%s\" exists already", req->container_id);
	if (!s || !s->process || !s->root || !s->linux)
		return err_set(e, -EINVAL, "specification lacks process, root or linux");
	if (!s->process->n_args)
		return err_set(e, -EINVAL, "process.args is empty");
	if (s->root->path[0] != '/')
		return err_set(e, -EINVAL, "root.path \"%s\" is not absolute", s->root->path);
	if (req->n_shared_mounts)
		return err_set(e, -EOPNOTSUPP,
			       "shared mounts between containers are not supported");
	for (const struct ga_container *c = a->containers; c; c = c->next)
		n++;
	return n >= GA_MAX_CONTAINERS ? err_set(e, -ENOSPC, "too many containers") : 0;
}

/* The mount at the path Kubernetes has named; its source outlives the container's own processes. */
static void ga_container_note_log(struct ga_container *c)
{
	const Grpc__Spec *s = c->req->oci;
	const char *path = "/dev/termination-log";

	for (size_t i = 0; i < s->n_annotations; i++)
		if (!strcmp(s->annotations[i]->key,
			    "io.kubernetes.container.terminationMessagePath"))
			path = s->annotations[i]->value;
	for (size_t i = 0; i < s->n_mounts && !c->termination_log; i++)
		if (!strcmp(s->mounts[i]->destination, path))
			c->termination_log = mem_strdup(s->mounts[i]->source);
}

void ga_container_create(struct ga_agent *a, struct ttrpc_call *call,
			 const Grpc__CreateContainerRequest *req)
{
	struct ga_container *c;
	struct err e = { 0 };

	if (ga_container_check(a, req, &e) < 0) {
		ttrpc_fail_err(call, &e);
		return;
	}
	c = mem_zalloc(sizeof *c);
	c->agent = a;
	c->id = mem_strdup(req->container_id);
	c->cgroup = GA_CGROUP_NONE;
	c->join = GA_NS_SET_NONE;
	c->call = call;
	c->req = req;
	c->next = a->containers;
	a->containers = c;
	ga_container_note_log(c);
	ga_wait_start(&a->loop, &c->wait, a->config.hotplug_timeout_ms, ga_container_try_steps,
		      ga_container_tried_steps);
}

/* ---- Start */

static void ga_container_init_running(struct ga_process *p, const struct err *e)
{
	struct ga_container *c = p->ctr;
	struct ttrpc_call *call = take_ptr(&p->call);

	if (e) {
		log_warn("container not started", KV("container", c->id), KV("reason", e->msg));
		ttrpc_fail_err(call, e);
		return;
	}
	/* It may have run to its end already. */
	if (c->state == GA_CONTAINER_CREATED)
		c->state = GA_CONTAINER_RUNNING;
	log_info("container started", KV("container", c->id));
	ga_rpc_reply_empty(call);
}

void ga_container_start(struct ga_agent *a, struct ttrpc_call *call, const char *id)
{
	struct err e = { 0 };
	struct ga_container *c = ga_container_find(a, id, &e);

	if (c && (c->state != GA_CONTAINER_CREATED || c->processes->state != GA_PROCESS_CREATED))
		err_set(&e, -EBUSY, "container \"%s\" is not in state created", c->id);
	if (e.code < 0) {
		ttrpc_fail_err(call, &e);
		return;
	}
	/* The pause container of a pod never runs out of memory, and nobody cares for it. */
	if (strcmp(c->id, a->sandbox.id) != 0)
		ga_oom_watch(&a->oom, c);
	c->processes->call = call;
	ga_process_go(c->processes, ga_container_init_running);
}

/* ---- Exec */

static void ga_container_exec_running(struct ga_process *p, const struct err *e)
{
	struct ttrpc_call *call = take_ptr(&p->call);

	if (e)
		ttrpc_fail_err(call, e);
	else
		ga_rpc_reply_empty(call);
}

static void ga_container_exec_streams(struct ga_wait *w, bool in_time)
{
	struct ga_process *p = container_of(w, struct ga_process, wait);
	struct err e;

	if (p->state == GA_PROCESS_CREATED && in_time) {
		ga_process_go(p, ga_container_exec_running);
		return;
	}
	if (in_time)
		err_set(&e, -ECHILD, "process ended during its set-up");
	else
		ga_container_streams_error(p, &e);
	if (p->state != GA_PROCESS_EXITED)
		kill(p->pid, SIGKILL);
	ga_container_exec_running(p, &e);
}

static void ga_container_exec_ready(struct ga_process *p, const struct err *e)
{
	if (e)
		ga_container_exec_running(p, e);
	else
		ga_wait_start(&p->agent->loop, &p->wait, GA_DIRECT_WAIT_MS,
			      ga_container_has_streams, ga_container_exec_streams);
}

static int ga_container_exec_check(struct ga_container *c, const Grpc__ExecProcessRequest *req,
				   struct err *e)
{
	struct ga_process *old;

	if (c->state != GA_CONTAINER_RUNNING)
		return err_set(e, -EBUSY, "container \"%s\" is not running", c->id);
	/* It would freeze half way in. */
	if (ga_cgroup_is_paused(&c->cgroup))
		return err_set(e, -EBUSY, "container \"%s\" is paused", c->id);
	if (!req->process || !req->process->n_args)
		return err_set(e, -EINVAL, "process.args is empty");
	if (!ga_container_id_is_valid(req->exec_id))
		return err_set(e, -EINVAL, "exec id \"%.128s\" is not valid", req->exec_id);
	if (ga_container_running(c) >= GA_MAX_PROCESSES)
		return err_set(e, -ENOSPC, "too many processes");
	old = ga_container_process(c, req->exec_id, e);
	if (old && (old == c->processes || old->state != GA_PROCESS_EXITED || !old->was_awaited))
		return err_set(e, -EEXIST, "exec id \"%s\" is taken", req->exec_id);
	if (old)
		ga_container_drop_process(c, old);
	return 0;
}

void ga_container_exec(struct ga_agent *a, struct ttrpc_call *call,
		       const Grpc__ExecProcessRequest *req)
{
	const uint32_t ports[3] = { req->stdin_port, req->stdout_port, req->stderr_port };
	struct err e = { 0 };
	struct ga_container *c = ga_container_find(a, req->container_id, &e);
	struct ga_ns_set enter = GA_NS_SET_NONE;
	struct ga_launch l = { .process = req->process, .string_user = req->string_user };
	AUTO_CLOSE int target = -1;
	struct ga_process *p;

	if (!c || ga_container_exec_check(c, req, &e) < 0) {
		ttrpc_fail_err(call, &e);
		return;
	}
	e.code = 0;
	p = ga_container_add_process(c, req->exec_id);
	p->call = call;
	l.id = c->id;
	l.target = target = proc_pidfd(c->processes->pid);
	/* A child is born into these two; it joins the others by itself. */
	l.target_ns = (int)(c->exec_ns & ~(uint64_t)(CLONE_NEWPID | CLONE_NEWTIME));
	enter.fd[GA_NS_PID] = target;
	enter.fd[GA_NS_TIME] = c->exec_ns & CLONE_NEWTIME ? target : -1;
	if (target < 0)
		err_set(&e, target, "pidfd of init: %s", strerror(-target));
	else
		(void)!ga_container_spawn(p, &l, &enter, ports, ga_container_exec_ready, &e);
	if (e.code < 0) {
		p->call = NULL;
		if (p->pid > 0)
			kill(p->pid, SIGKILL);
		else
			ga_container_drop_process(c, p);
		ttrpc_fail_err(call, &e);
	}
}

/* ---- The end */

/* Keep a few that have ended, for a WaitProcess that comes late; forget the oldest. */
static void ga_container_prune(struct ga_container *c)
{
	struct ga_process *p = c->processes ? c->processes->next : NULL, *next;
	size_t finished = 0;

	for (struct ga_process *q = p; q; q = q->next)
		finished += q->state == GA_PROCESS_EXITED && q->was_awaited;
	for (; p && finished > GA_MAX_FINISHED; p = next) {
		next = p->next;
		if (p->state != GA_PROCESS_EXITED || !p->was_awaited)
			continue;
		ga_container_drop_process(c, p);
		finished--;
	}
}

void ga_container_process_exited(struct ga_process *p)
{
	struct ga_container *c = p->ctr;
	struct err e;

	if (p != c->processes) {
		ga_container_prune(c);
		return;
	}
	/* Without a pid namespace of its own nobody ends the others when init goes. */
	if (c->shares_pidns)
		ga_cgroup_kill(&c->cgroup);
	if (c->state == GA_CONTAINER_CREATING && !p->step) {
		ga_wait_stop(&p->wait);
		err_set(&e, -ECHILD, "init process ended during its set-up");
		ga_container_abort(c, &e);
	} else if (c->state == GA_CONTAINER_CREATED || c->state == GA_CONTAINER_RUNNING) {
		c->state = GA_CONTAINER_STOPPED;
		log_info("container stopped", KV("container", c->id));
	}
}

static bool ga_container_is_quiet(struct ga_wait *w)
{
	struct ga_container *c = container_of(w, struct ga_container, wait);

	/* Again each time: a process may have been on its way into the cgroup. */
	if (ga_container_running(c) || !ga_cgroup_is_empty(&c->cgroup)) {
		ga_cgroup_kill(&c->cgroup);
		return false;
	}
	return true;
}

static void ga_container_quiet(struct ga_wait *w, bool in_time)
{
	struct ga_container *c = container_of(w, struct ga_container, wait);

	if (in_time || c->req)
		ga_container_undo(c);
	c->ended(c, in_time);
}

void ga_container_end(struct ga_container *c, uint64_t timeout_ms, ga_container_ended_fn *ended)
{
	struct err e;

	c->state = GA_CONTAINER_ENDING;
	c->ended = ended;
	for (struct ga_process *p = c->processes; p; p = p->next)
		ga_wait_stop(&p->wait);
	if (c->cgroup.path)
		(void)!ga_cgroup_freeze(&c->cgroup, false, &e);
	ga_wait_start(&c->agent->loop, &c->wait, timeout_ms, ga_container_is_quiet,
		      ga_container_quiet);
}

static void ga_container_removed(struct ga_container *c, bool in_time)
{
	struct ttrpc_call *call = take_ptr(&c->call);
	struct err e;

	if (!in_time) {
		err_set(&e, -ETIME, "container \"%s\" still has processes: ETIME", c->id);
		ttrpc_fail_err(call, &e);
		return;
	}
	log_info("container removed", KV("container", c->id));
	ga_container_forget(c);
	ga_rpc_reply_empty(call);
}

void ga_container_remove(struct ga_agent *a, struct ttrpc_call *call, const char *id,
			 uint32_t timeout_s)
{
	struct err e = { 0 };
	struct ga_container *c = ga_container_find(a, id, &e);

	if (c && c->call)
		err_set(&e, -EBUSY, "container \"%s\" is being created or removed", c->id);
	if (e.code < 0) {
		ttrpc_fail_err(call, &e);
		return;
	}
	c->call = call;
	ga_container_end(c, (uint64_t)timeout_s * 1000, ga_container_removed);
}
