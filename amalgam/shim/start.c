/* start.c - what containerd runs, besides talking to the daemon: `start`, `delete`, `-info`, `-v`.
 *
 * `start` and `delete` are on the way of every container and do as little as can be. Nothing but their
 * answer goes to stdout, and nothing at all to stderr unless they fail: for `start` containerd reads both
 * as one. */
#include "amalgam/shim/shim.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "amalgam/base/str.h"
#include "amalgam/resource/mounts.h"
#include "amalgam/wire/json.h"
#include "amalgam/wire/oci_spec.h"
#include "version.h"

#define SHIM_PREFIX   "containerd-shim-"
#define SHIM_KILLED   137
#define SHIM_GRACE_MS 2000 /* for a killed process to be gone, and for a pod's shim to answer */

bool shim_is_called(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');

	return str_starts(slash ? slash + 1 : argv0, SHIM_PREFIX);
}

static int shim_complain(const struct err *e)
{
	fprintf(stderr, "spore: %s\n", e->msg);
	return 1;
}

/* The id of the pod that the container in this bundle belongs to; its own if there is none. Heap. */
static char *shim_group(const char *bundle, const char *id)
{
	static const char *const keys[] = { "io.kubernetes.cri.sandbox-id",
					    "io.containerd.runc.v2.group" };
	AUTO_FREE char *path = mem_printf("%s/config.json", bundle);
	AUTO_BUF struct buf b = { 0 };
	AUTO_JSON struct json_doc doc = { 0 };
	const struct json *notes;

	/* A sandbox that the daemon manages by itself has no config.json. */
	if (path_read(path, OCI_SPEC_MAX_BYTES, &b, NULL) < 0 || json_parse(&doc, b.data, b.len, NULL) < 0)
		return mem_strdup(id);
	notes = json_get(doc.root, "annotations");
	for (unsigned i = 0; notes && i < ARRAY_LEN(keys); i++) {
		const char *group = "";
		const struct json *v = json_get(notes, keys[i]);
		if (v && json_str(v, &group, NULL) == 0 && *group)
			return mem_strdup(group);
	}
	return mem_strdup(id);
}

/* --- start ------------------------------------------------------------------------------------ */

static int shim_answer_start(const char *bundle, const char *socket)
{
	struct err e = { 0 };

	if (address_write(bundle, socket, &e) < 0)
		return shim_complain(&e);
	printf("unix://%s", socket);
	return fflush(stdout) == 0 ? 0 : 1;
}

/* One more than containerd's, so that under pressure the shim goes before it. Who may not, does not. */
static void shim_set_oom_score(void)
{
	AUTO_FREE char *path = mem_printf("/proc/%d/oom_score_adj", getppid());
	AUTO_BUF struct buf b = { 0 };
	char text[16];

	if (path_read(path, 16, &b, NULL) < 0)
		return;
	snprintf(text, sizeof text, "%d", MIN(atoi(buf_cstr(&b)) + 1, 1000));
	(void)!path_put("/proc/self/oom_score_adj", text);
}

/* The child: nothing of containerd's is to stay open, above all not the pipe that it reads to its end. */
static NORETURN void shim_daemonize(const struct shim_flags *f, const struct shim_bootstrap *b,
				    const char *group, const char *socket, int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	for (int i = 0; null >= 0 && i < 3; i++)
		dup2(null, i);
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 64); /* out of the way of where it goes */
	if (null < 0 || fd < 0 || dup2(fd, 3) < 0)
		_exit(1);
	fcntl(3, F_SETFD, FD_CLOEXEC);
	fd_close_from(4);
	prctl(PR_SET_NAME, "spore-shim");
	if (b->options.shim_cgroup)
		(void)!hostcg_join(b->options.shim_cgroup, NULL);
	shim_serve(f, b, group, socket, 3);
}

static int shim_start(const struct shim_flags *f)
{
	AUTO_FREE char *group = shim_group(".", f->id);
	AUTO_BUF struct buf in = { 0 };
	struct shim_bootstrap b = { 0 };
	char socket[ADDRESS_MAX];
	struct err e = { 0 };
	bool taken;
	pid_t pid;
	int fd;

	shim_bootstrap_read(0, &in);
	shim_bootstrap_decode(&b, in.data, in.len, f->id);
	if (address_make(socket, b.socket_dir, b.grpc_address ? b.grpc_address : f->address, f->ns, group,
			 &e) < 0 ||
	    (fd = address_listen(socket, &taken, &e)) < 0)
		return shim_complain(&e);
	if (taken)
		return shim_answer_start(".", socket);
	if (strcmp(group, f->id)) {
		err_set(&e, -ESRCH, "sandbox %s of container %s is gone", group, f->id);
		unlink(socket);
		return shim_complain(&e);
	}
	shim_set_oom_score();
	pid = fork();
	if (pid == 0)
		shim_daemonize(f, &b, group, socket, fd);
	if (pid > 0 && shim_answer_start(".", socket) == 0)
		return 0;
	if (pid > 0)
		kill(pid, SIGKILL);
	unlink(socket);
	return 1;
}

/* --- delete ----------------------------------------------------------------------------------- */

/* Kill, and see it gone. */
static void shim_kill(pid_t pid, uint64_t start_time)
{
	struct pollfd p = { .events = POLLIN };

	if (!proc_alive(pid, start_time) || (p.fd = proc_pidfd(pid)) < 0)
		return;
	/* Once more: the descriptor is of whoever has the pid now. */
	if (proc_alive(pid, start_time)) {
		proc_pidfd_kill(p.fd, SIGKILL);
		poll(&p, 1, SHIM_GRACE_MS);
	}
	close(p.fd);
}

static void shim_remove_cgroup(const char *dir)
{
	AUTO_FREE char *path = pod_cgroup_file(dir);
	AUTO_BUF struct buf b = { 0 };
	AUTO_JSON struct json_doc doc = { 0 };
	struct hostcg cg = HOSTCG_NONE;

	if (path_read(path, 65536, &b, NULL) < 0 || json_parse(&doc, b.data, b.len, NULL) < 0 ||
	    hostcg_load(&cg, doc.root, NULL) < 0)
		return;
	(void)!hostcg_kill(&cg, NULL);
	(void)!hostcg_remove(&cg, NULL);
	hostcg_fini(&cg);
}

/* NULL: nobody listens there. */
static struct ttrpc_conn *shim_call_on(const char *socket)
{
	static struct loop loop;
	int fd = address_connect(socket);

	return fd < 0 || loop_init(&loop) < 0 ? NULL : ttrpc_open(&loop, fd, NULL, 0, NULL, NULL, NULL);
}

static ProtobufCMessage *shim_ask(struct ttrpc_conn *c, const char *method, const ProtobufCMessage *rq,
				  const ProtobufCMessageDescriptor *answer)
{
	ProtobufCMessage *m = NULL;

	(void)!ttrpc_request_wait(c, "containerd.task.v2.Task", method, rq, answer,
				  SHIM_GRACE_MS * NS_PER_MS, &m, NULL);
	return m;
}

/* A daemon that has made nothing yet, of which containerd may not know. */
static void shim_kill_daemon(const struct shim_flags *f, const char *socket)
{
	Ctd__ConnectRequest rq = CTD__CONNECT_REQUEST__INIT;
	struct ttrpc_conn *c = shim_call_on(socket);
	ProtobufCMessage *m;

	rq.id = (char *)(uintptr_t)f->id;
	m = c ? shim_ask(c, "Connect", &rq.base, &ctd__connect_response__descriptor) : NULL;
	if (m) {
		pid_t pid = (pid_t)((Ctd__ConnectResponse *)m)->shim_pid;
		shim_kill(pid, proc_start_time(pid));
		protobuf_c_message_free_unpacked(m, NULL);
	}
}

/* The pod and all it holds, dead or alive. Afterwards its name is free. The pid that its task had, or 0. */
static pid_t shim_delete_pod(const struct shim_flags *f, const char *socket, const char *bundle)
{
	AUTO_FREE char *name = pod_dir_name(f->ns, f->id);
	AUTO_FREE char *dir = rundir_path(name);
	AUTO_FREE char *owner = pod_owner(f->ns, f->id);
	struct rundir_state st;
	int r = rundir_load(name, &st, NULL);

	if (r == -ENOENT) {
		shim_kill_daemon(f, socket);
		r = rundir_load(name, &st, NULL); /* which it may have made meanwhile, */
	}
	if (r == -ENOENT)
		rundir_release(dir); /* or begun to */
	unlink(socket);
	if (r < 0)
		return 0;
	if (strcmp(st.command, owner)) { /* another sandbox that has the name */
		rundir_state_fini(&st);
		return 0;
	}
	shim_kill(st.supervisor, st.supervisor_start);
	shim_kill(st.vmm, st.vmm_start);
	shim_remove_cgroup(dir);
	pod_repair_network(bundle);
	rundir_release(dir);
	rundir_state_fini(&st);
	return st.vmm;
}

/* One container of a pod that goes on: its shim knows how to end it, if it still has it. */
static void shim_delete_member(const struct shim_flags *f, const char *socket)
{
	Ctd__KillRequest kill_rq = CTD__KILL_REQUEST__INIT;
	Ctd__WaitRequest wait = CTD__WAIT_REQUEST__INIT;
	Ctd__DeleteRequest del = CTD__DELETE_REQUEST__INIT;
	struct ttrpc_conn *c = shim_call_on(socket);

	if (!c)
		return;
	kill_rq.id = wait.id = del.id = (char *)(uintptr_t)f->id;
	kill_rq.signal = SIGKILL;
	kill_rq.all = true;
	(void)!shim_ask(c, "Kill", &kill_rq.base, &ctd__empty__descriptor);
	(void)!shim_ask(c, "Wait", &wait.base, &ctd__wait_response__descriptor);
	(void)!shim_ask(c, "Delete", &del.base, &ctd__delete_response__descriptor);
}

static int shim_print(const ProtobufCMessage *m)
{
	size_t n = protobuf_c_message_get_packed_size(m);
	AUTO_FREE uint8_t *p = mem_zalloc(n + 1);

	protobuf_c_message_pack(m, p);
	return fd_write_full(1, p, n) < 0;
}

/* The address that `start` left in the bundle, which it may have been told; else the usual one. */
static int shim_find_address(const struct shim_flags *f, const char *bundle, const char *group,
			     char socket[ADDRESS_MAX], struct err *e)
{
	AUTO_FREE char *file = mem_printf("%s/address", bundle);
	AUTO_BUF struct buf b = { 0 };
	const char *text;

	if (path_read(file, ADDRESS_MAX, &b, NULL) < 0)
		return address_make(socket, NULL, f->address, f->ns, group, e);
	text = buf_cstr(&b);
	if (!str_starts(text, "unix:///") || strlen(text + strlen("unix://")) >= ADDRESS_MAX)
		return address_make(socket, NULL, f->address, f->ns, group, e);
	snprintf(socket, ADDRESS_MAX, "%s", text + strlen("unix://"));
	return 0;
}

static int shim_delete(const struct shim_flags *f)
{
	const char *bundle = *f->bundle ? f->bundle : ".";
	AUTO_FREE char *group = shim_group(bundle, f->id);
	AUTO_FREE char *rootfs = mem_printf("%s/rootfs", bundle);
	Ctd__DeleteResponse r = CTD__DELETE_RESPONSE__INIT;
	Ctd__Timestamp now = shim_timestamp(clock_wall_ns());
	char socket[ADDRESS_MAX];
	struct err e = { 0 };

	if (shim_find_address(f, bundle, group, socket, &e) < 0)
		return shim_complain(&e);
	if (strcmp(group, f->id))
		shim_delete_member(f, socket);
	else
		r.pid = (uint32_t)shim_delete_pod(f, socket, bundle);
	if (res_unmount_all(rootfs, &e) < 0)
		fprintf(stderr, "spore: %s\n", e.msg);
	r.exit_status = SHIM_KILLED;
	r.exited_at = &now;
	return shim_print(&r.base);
}

/* --- the others ------------------------------------------------------------------------------- */

static int shim_info(void)
{
	static char name[] = "io.containerd.spore.v2", version[] = SPORE_VERSION;
	/* Lists of one disk may come unmounted; all else containerd mounts first. */
	static char key[] = "containerd.io/runtime-allow-mounts", mounts[] = "erofs,loop";
	Ctd__RuntimeInfo r = CTD__RUNTIME_INFO__INIT;
	Ctd__RuntimeVersion v = CTD__RUNTIME_VERSION__INIT;
	Ctd__RuntimeInfo__AnnotationsEntry note = CTD__RUNTIME_INFO__ANNOTATIONS_ENTRY__INIT;
	Ctd__RuntimeInfo__AnnotationsEntry *notes[] = { &note };

	note.key = key;
	note.value = mounts;
	v.version = version;
	r.name = name;
	r.version = &v;
	r.annotations = notes;
	r.n_annotations = 1;
	return shim_print(&r.base);
}

int shim_main(int argc, char **argv)
{
	struct shim_flags f;
	struct err e = { 0 };

	signal(SIGPIPE, SIG_IGN);
	log_setup(-1, LOG_WARN);
	fd_close_from(3); /* what leaked from whoever started containerd */
	if (shim_flags_parse(&f, argc, argv, &e) < 0)
		return shim_complain(&e);
	if (f.info)
		return shim_info();
	if (f.version)
		return printf("%s:\n  Version:  " SPORE_VERSION "\n", argv[0]) < 0;
	if (!*f.ns || !*f.id) {
		err_set(&e, -EINVAL, "shim: -namespace and -id: missing; this name is for containerd to "
			"call, people call: spore");
		return shim_complain(&e);
	}
	if (!strcmp(f.action, "start"))
		return shim_start(&f);
	if (!strcmp(f.action, "delete"))
		return shim_delete(&f);
	err_set(&e, -EINVAL, "shim: \"%s\": no such action; start or delete", f.action);
	return shim_complain(&e);
}
