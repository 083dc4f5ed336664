/* raw.c - speaks to a shim as containerd does, without containerd: what ctr cannot say, or not at that moment.
 *
 *	raw SHIM DIR ROOT list          name, for whom and sentence of every case, one per line
 *	raw SHIM DIR ROOT NAME          run one; what it saw on stdout is compared between shims
 *
 * SHIM is the program, DIR a folder for bundles and sockets, ROOT a root filesystem. A case that is broken says
 * why on stderr, status 1; whatever happens, the shim is ended and `delete` run. Cases are in raw_cases.c,
 * raw_more.c, raw_hooks.c and raw_kill.c; this file is their words:
 *
 *	see(...)              a line of output
 *	expect(what, ...)     else the case is broken
 *	raw_bundle()          a bundle with a config.json, and the log fifo containerd would read
 *	raw_start()           run `SHIM ... start`, connect to the address it prints
 *	raw_try(), raw_ok()   call a method; the code, or the case is broken
 *	raw_begin(), raw_end_of()   the same without waiting
 *	doing                 what a case is at, for whoever reads that it is broken
 *	events                what the shim published so far; a server runs whenever a call is waited for */
#define INTERNAL static __attribute__((unused))

#include "amalgam/base/base.c"
#include "amalgam/base/err.c"
#include "amalgam/base/mem.c"
#include "amalgam/base/buf.c"
#include "amalgam/base/str.c"
#include "amalgam/base/log.c"
#include "amalgam/base/fd.c"
#include "amalgam/base/path.c"
#include "amalgam/base/proc.c"
#include "amalgam/base/loop.c"
#include "amalgam/wire/ttrpc_frame.c"
#include "amalgam/wire/ttrpc.c"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* musl makes macros of what protobuf's structures have as members */
#undef stdin
#undef stdout
#undef stderr

#include "metrics.pb-c.h"
#include "task.pb-c.h"

#define RAW_TASK  "containerd.task.v2.Task"
#define RAW_V3    "containerd.task.v3.Task"
#define RAW_PUB   "containerd.services.events.ttrpc.v1.Events"
#define RAW_GRPC  "/run/containerd/containerd.sock"
#define RAW_S     UINT64_C(1000000000)
#define RAW_LIMIT (30 * RAW_S)
#define RAW_JSON  "types.containerd.io/opencontainers/runtime-spec/1/Process"

struct raw_event {
	char topic[40], type[60], ns[80];
	Ctd__Any *any; /* a copy that stays */
};

/* A call that is under way or over. */
struct raw_call {
	bool begun, over;
	enum ttrpc_code code;
	char message[300];
	struct buf packed; /* of the response */
};

static struct loop loop;
static const char *shim, *dir, *root, *service = RAW_TASK;
static char ns[80] = "raw", last_message[600], address[300] = "unix://", doing[120];
static uint64_t answer_limit = RAW_LIMIT; /* a method that takes longer has no answer */
static bool is_spore;
static struct raw_event events[256];
static unsigned event_count;
static struct ttrpc_conn *conn; /* the first connection to the shim */
static pid_t shim_pid;          /* once Connect has told */
static char ids[8][80];         /* containers that have a bundle */
static unsigned id_count;
static int fifo_fd = -1;
static struct watch event_watch;
static char event_path[200];

#define see(...)    ((void)printf(__VA_ARGS__), (void)putchar('\n'))
#define expect(c, ...)                                     \
	do {                                               \
		if (!(c))                                  \
			broken(__LINE__, #c, __VA_ARGS__); \
	} while (0)

static void raw_delete_binary(const char *id, struct buf *out);

/* Nothing may be left for the next case, whatever happened. */
static void raw_clean_up(void)
{
	if (shim_pid > 0)
		kill(shim_pid, SIGKILL);
	unlink(address + strlen("unix://"));
	for (unsigned i = 0; i < id_count; i++) {
		char path[400];
		struct buf out = { 0 };

		raw_delete_binary(ids[i], &out);
		snprintf(path, sizeof path, "%s/%s/rootfs", dir, ids[i]);
		umount2(path, MNT_DETACH);
	}
}

static NORETURN PRINTF_LIKE(3, 4) void broken(int line, const char *what, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "raw: %s%sline %d: %s: ", doing, *doing ? ": " : "", line, what);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; last answer: %s\n", last_message);
	fflush(NULL);
	raw_clean_up();
	_exit(1);
}

static void raw_pause(unsigned ms) /* and serve meanwhile */
{
	uint64_t end = clock_mono_ns() + ms * UINT64_C(1000000), now;

	while ((now = clock_mono_ns()) < end)
		loop_step(&loop, (int)((end - now) / 1000000) + 1);
}

/* ---- Events: what containerd's own socket would take */

static void raw_forward(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	const Ctd__ForwardRequest *req = (const Ctd__ForwardRequest *)m;
	const Ctd__Empty ok = CTD__EMPTY__INIT;
	const Ctd__Envelope *v = req->envelope;
	struct raw_event *e = &events[event_count];

	if (v && v->event && event_count < ARRAY_LEN(events)) {
		struct buf b = { 0 };

		snprintf(e->topic, sizeof e->topic, "%s", v->topic);
		snprintf(e->type, sizeof e->type, "%s", v->event->type_url);
		snprintf(e->ns, sizeof e->ns, "%s", v->namespace_);
		buf_reserve(&b, ctd__any__get_packed_size(v->event));
		b.len = ctd__any__pack(v->event, b.data);
		e->any = ctd__any__unpack(NULL, b.len, b.data);
		expect(v->timestamp && v->timestamp->seconds > 0, "an event without a time");
		event_count++;
	}
	ttrpc_reply(call, &ok.base);
}

static const struct ttrpc_method event_methods[] = {
	{ RAW_PUB, "Forward", &ctd__forward_request__descriptor, raw_forward },
};

static void raw_closed(void *arg, const char *reason)
{
	(void)reason;
	if (arg)
		*(struct ttrpc_conn **)arg = NULL;
}

static void raw_accept(struct watch *w, uint32_t what)
{
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC);
	struct err e;

	(void)what;
	if (fd >= 0)
		(void)!ttrpc_open(&loop, fd, event_methods, 1, raw_closed, NULL, &e);
}

static void raw_events_open(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", event_path);
	unlink(event_path);
	expect(bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(fd, 16) == 0, "%s", event_path);
	expect(watch_start(&loop, &event_watch, fd, EPOLLIN, raw_accept) == 0, "watch");
}

static void raw_events_close(void)
{
	watch_stop(&event_watch);
	close(event_watch.fd);
	unlink(event_path);
}

#define EVENT(i, type_name, lower) \
	((Ctd__##type_name *)ctd__##lower##__unpack(NULL, events[i].any->value.len, events[i].any->value.data))

/* Wait for the nth event of a topic (from 0); its index. */
static unsigned raw_event(const char *topic, unsigned n)
{
	for (unsigned tries = 0;; tries++) {
		unsigned left = n;

		for (unsigned i = 0; i < event_count; i++) {
			if (!strcmp(events[i].topic, topic) && left-- == 0)
				return i;
		}
		expect(tries < 300, "no event %s", topic);
		raw_pause(50);
	}
}

static void see_events(void)
{
	for (unsigned i = 0; i < event_count; i++) {
		expect(!strcmp(events[i].ns, ns), "namespace %s", events[i].ns);
		see("event %s %s", events[i].topic, events[i].type);
	}
}

/* ---- Bundles */

static char *raw_path(const char *id, const char *name)
{
	static char paths[4][500];
	static unsigned turn;
	char *p = paths[turn++ % 4];

	snprintf(p, sizeof paths[0], "%s/%s/%s", dir, id, name);
	return p;
}

static void raw_write(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	expect(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
}

/* A shell runs `script`, which holds no quotation marks; `more` are members of the whole specification. */
static void raw_bundle(const char *id, const char *script, bool terminal, const char *more)
{
	static const char mounts[] =
		"{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
		"{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\","
		"\"options\":[\"mode=755\"]},"
		"{\"destination\":\"/dev/pts\",\"type\":\"devpts\",\"source\":\"devpts\","
			"\"options\":[\"newinstance\",\"ptmxmode=0666\"]},"
		"{\"destination\":\"/tmp\",\"type\":\"tmpfs\",\"source\":\"tmpfs\"}";
	char text[4096];

	snprintf(ids[id_count++], sizeof ids[0], "%s", id);
	snprintf(text, sizeof text, "%s/%s", dir, id);
	mkdir(text, 0711);
	mkdir(raw_path(id, "rootfs"), 0711);
	snprintf(text, sizeof text,
		 "{\"ociVersion\":\"1.0.2\",\"process\":{\"terminal\":%s,\"user\":{\"uid\":0,\"gid\":0},"
		 "\"args\":[\"/bin/sh\",\"-c\",\"%s\"],\"env\":[\"PATH=/bin\"],\"cwd\":\"/\","
			"\"noNewPrivileges\":true},"
		 "\"root\":{\"path\":\"rootfs\"},\"hostname\":\"raw\",\"mounts\":[%s],"
		 "\"linux\":{\"cgroupsPath\":\"/%s/%s\","
			"\"resources\":{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}]},"
		 "\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},"
			"{\"type\":\"mount\"},"
		 "{\"type\":\"network\"}]}%s%s}\n",
		 terminal ? "true" : "false", script, mounts, ns, id, more ? "," : "", more ? more : "");
	raw_write(raw_path(id, "config.json"), text);
	mkfifo(raw_path(id, "log"), 0700);
	/* the one before stays open: its shim may be about to open it */
	fifo_fd = open(raw_path(id, "log"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

/* ---- The program */

struct raw_ran {
	struct buf out, err;
	int status;
};

static void raw_exec(const char *id, const char *action, int in, const int out[2], const int err[2])
{
	char pub[] = "/bin/true", path[1000];
	const char *argv[16] = { shim, "-namespace", ns, "-address", RAW_GRPC, "-publish-binary",
		pub, "-id", id };
	int n = 9;

	dup2(in, 0);
	dup2(out[1], 1);
	dup2(err[1], 2);
	if (chdir(raw_path(id, "")) < 0 && action[0] != '-')
		(void)!chdir(dir);
	setenv("TTRPC_ADDRESS", event_path, 1);
	setenv("GOMAXPROCS", "2", 1);
	if (!strcmp(action, "delete")) {
		snprintf(path, sizeof path, "%s/%s", dir, id);
		argv[n++] = "-bundle";
		argv[n++] = path;
	}
	if (action[0] == '-')
		n = 1;
	argv[n++] = action;
	argv[n] = NULL;
	setpgid(0, 0);
	execv(shim, (char **)argv);
	_exit(127);
}

static void raw_drain(int fd, struct buf *b)
{
	char part[4096];
	ssize_t n;

	while ((n = read(fd, part, sizeof part)) > 0)
		buf_add(b, part, (size_t)n);
	close(fd);
	buf_add(b, "", 1);
	b->len--;
}

/* Standard input is `bytes`, or /dev/null when n is 0. Waits until both outputs are closed by everybody. */
static struct raw_ran raw_program(const char *id, const char *action, const void *bytes, size_t n)
{
	struct raw_ran r = { 0 };
	int in[2], out[2], err[2];
	pid_t pid;

	expect(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0, "pipe");
	if (n == 0) {
		close(in[0]);
		in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	pid = fork();
	if (pid == 0)
		raw_exec(id, action, in[0], out, err);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	if (n)
		(void)!write(in[1], bytes, n);
	close(in[1]);
	raw_drain(out[0], &r.out);
	raw_drain(err[0], &r.err);
	r.status = proc_exit_code(proc_wait(pid));
	return r;
}

static void raw_delete_binary(const char *id, struct buf *out)
{
	struct raw_ran r = raw_program(id, "delete", NULL, 0);

	buf_fini(&r.err);
	*out = r.out;
}

/* ---- Connections and calls */

static int raw_socket(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", address + strlen("unix://"));
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The connection that calls go over; the one before it is closed. */
static void raw_connect(void)
{
	struct err e;
	int fd = raw_socket();

	expect(fd >= 0, "connect to %s: %s", address, strerror(errno));
	if (conn)
		ttrpc_close(conn);
	conn = ttrpc_open(&loop, fd, NULL, 0, raw_closed, &conn, &e);
	expect(conn, "%s", e.msg);
}

static enum ttrpc_code raw_try_on(struct ttrpc_conn *c, const char *method, const void *req,
				  const ProtobufCMessageDescriptor *type, void *out)
{
	struct err e = { 0 };
	ProtobufCMessage *m = NULL;
	enum ttrpc_code code =
		ttrpc_request_wait(c, service, method, req, type, answer_limit, &m, &e);

	snprintf(last_message, sizeof last_message, "%s: %d %s", method, code, code ? e.msg : "");
	if (out)
		*(ProtobufCMessage **)out = m;
	return code;
}
static enum ttrpc_code raw_try(const char *method, const void *req,
	const ProtobufCMessageDescriptor *type, void *out)
{
	expect(conn, "%s: no connection", method);
	return raw_try_on(conn, method, req, type, out);
}
static void raw_ok(const char *method, const void *req, const ProtobufCMessageDescriptor *type, void *out)
{
	enum ttrpc_code code = raw_try(method, req, type, out);

	expect(code == TTRPC_OK, "%s", method);
}
static enum ttrpc_code raw_do(const char *method, const void *req) /* an empty answer */
{
	return raw_try(method, req, &ctd__empty__descriptor, NULL);
}

static void raw_over(void *arg, const struct ttrpc_result *r)
{
	struct raw_call *c = arg;

	c->over = true;
	c->code = r->code;
	snprintf(c->message, sizeof c->message, "%s", r->message);
	if (r->response) {
		size_t n = protobuf_c_message_get_packed_size(r->response);

		buf_reserve(&c->packed, n + 1);
		c->packed.len = protobuf_c_message_pack(r->response, c->packed.data);
	}
}
static void raw_begin(struct raw_call *call, const char *method, const void *req,
		      const ProtobufCMessageDescriptor *type)
{
	buf_fini(&call->packed);
	*call = (struct raw_call){ .begun = true, .over = !conn, .code = conn ? TTRPC_OK : TTRPC_UNAVAILABLE };
	if (conn)
		ttrpc_request(conn, service, method, req, type, 0, raw_over, call);
}
static void raw_end_of(struct raw_call *call, const char *what)
{
	uint64_t end = clock_mono_ns() + answer_limit;

	while (!call->over) {
		expect(clock_mono_ns() < end, "%s is never answered", what);
		loop_step(&loop, 10);
	}
	snprintf(last_message, sizeof last_message, "%s: %d %s", what, call->code, call->message);
}

/* ---- Methods with the values that matter */

static void raw_start(const char *id)
{
	struct raw_ran r = raw_program(id, "start", NULL, 0);

	expect(r.status == 0 && r.out.len > 7 && r.out.len < sizeof address,
		"start: status %d, '%s', '%s'", r.status,
	       (char *)r.out.data, (char *)r.err.data);
	snprintf(address, sizeof address, "%s", (char *)r.out.data);
	raw_connect();
}

static pid_t raw_connect_call(const char *id) /* the task's pid */
{
	Ctd__ConnectRequest req = CTD__CONNECT_REQUEST__INIT;
	Ctd__ConnectResponse *res;
	pid_t pid;

	req.id = (char *)id;
	raw_ok("Connect", &req, &ctd__connect_response__descriptor, &res);
	shim_pid = (pid_t)res->shim_pid;
	pid = (pid_t)res->task_pid;
	expect(shim_pid > 0 && kill(shim_pid, 0) == 0, "shim %d", shim_pid);
	ctd__connect_response__free_unpacked(res, NULL);
	return pid;
}

/* What Create is given as the root filesystem, when it is not a bind mount of `root`. */
static Ctd__Mount **own_mounts;
static size_t own_mount_count;

struct raw_streams {
	char *in, *out, *err;
	bool terminal;
};

static void raw_begin_create(struct raw_call *call, const char *id, const struct raw_streams *io)
{
	static char *options[] = { "rbind", "rw" };
	Ctd__Mount mount = CTD__MOUNT__INIT, *mounts[] = { &mount };
	Ctd__CreateTaskRequest req = CTD__CREATE_TASK_REQUEST__INIT;
	char bundle[400];

	snprintf(bundle, sizeof bundle, "%s/%s", dir, id);
	req.id = (char *)id;
	req.bundle = bundle;
	mount.type = "bind", mount.source = (char *)root;
	mount.n_options = 2, mount.options = options;
	req.n_rootfs = own_mounts ? own_mount_count : 1;
	req.rootfs = own_mounts ? own_mounts : mounts;
	if (io) {
		req.stdin_path = io->in ? io->in : "";
		req.stdout_path = io->out ? io->out : "";
		req.stderr_path = io->err ? io->err : "";
		req.terminal = io->terminal;
	}
	raw_begin(call, "Create", &req, &ctd__create_task_response__descriptor);
}

static pid_t raw_created_pid(const struct raw_call *call)
{
	Ctd__CreateTaskResponse *res =
		ctd__create_task_response__unpack(NULL, call->packed.len, call->packed.data);
	pid_t pid;

	expect(res && res->pid > 0, "no pid");
	pid = (pid_t)res->pid;
	ctd__create_task_response__free_unpacked(res, NULL);
	return pid;
}

static enum ttrpc_code raw_create(const char *id, const struct raw_streams *io, pid_t *pid)
{
	struct raw_call call = { 0 };

	expect(conn, "Create: no connection");
	raw_begin_create(&call, id, io);
	raw_end_of(&call, "Create");
	if (call.code == TTRPC_OK && pid)
		*pid = raw_created_pid(&call);
	buf_fini(&call.packed);
	return call.code;
}

static enum ttrpc_code raw_start_process(const char *id, const char *exec_id)
{
	Ctd__StartRequest req = CTD__START_REQUEST__INIT;
	Ctd__StartResponse *res = NULL;
	enum ttrpc_code code;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	code = raw_try("Start", &req, &ctd__start_response__descriptor, &res);
	if (res) {
		expect(res->pid > 0, "pid 0");
		ctd__start_response__free_unpacked(res, NULL);
	}
	return code;
}

static Ctd__StateResponse *raw_state(const char *id, const char *exec_id) /* NULL: refused, see last_code */
{
	Ctd__StateRequest req = CTD__STATE_REQUEST__INIT;
	Ctd__StateResponse *res = NULL;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	raw_try("State", &req, &ctd__state_response__descriptor, &res);
	return res;
}

static const char *raw_status(const char *id, const char *exec_id)
{
	static const char *const names[] = { "UNKNOWN", "CREATED", "RUNNING", "STOPPED", "PAUSED", "PAUSING" };
	Ctd__StateResponse *s = raw_state(id, exec_id);

	return s && (unsigned)s->status < ARRAY_LEN(names) ? names[s->status] : last_message;
}

static enum ttrpc_code raw_kill(const char *id, const char *exec_id, int sig, bool all)
{
	Ctd__KillRequest req = CTD__KILL_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	req.signal = (uint32_t)sig;
	req.all = all;
	return raw_do("Kill", &req);
}

static enum ttrpc_code raw_delete(const char *id, const char *exec_id, Ctd__DeleteResponse **out)
{
	Ctd__DeleteRequest req = CTD__DELETE_REQUEST__INIT;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	return raw_try("Delete", &req, &ctd__delete_response__descriptor, out);
}

static Ctd__WaitResponse *raw_wait(const char *id, const char *exec_id)
{
	Ctd__WaitRequest req = CTD__WAIT_REQUEST__INIT;
	Ctd__WaitResponse *res;

	req.id = (char *)id;
	req.exec_id = (char *)exec_id;
	raw_ok("Wait", &req, &ctd__wait_response__descriptor, &res);
	return res;
}

static enum ttrpc_code raw_shutdown(const char *id)
{
	Ctd__ShutdownRequest req = CTD__SHUTDOWN_REQUEST__INIT;

	req.id = (char *)id;
	return raw_do("Shutdown", &req);
}

static unsigned raw_pids(const char *id, pid_t want) /* how many; `want` must be one of them unless 0 */
{
	Ctd__PidsRequest req = CTD__PIDS_REQUEST__INIT;
	Ctd__PidsResponse *res;
	bool found = want == 0;

	req.id = (char *)id;
	raw_ok("Pids", &req, &ctd__pids_response__descriptor, &res);
	for (size_t i = 0; i < res->n_processes; i++)
		found |= (pid_t)res->processes[i]->pid == want;
	expect(found, "pid %d is not among %zu", want, res->n_processes);
	return (unsigned)res->n_processes;
}

static void raw_begin_exec(struct raw_call *call, const char *id, const char *exec_id, const char *script,
			   const struct raw_streams *io, size_t pad)
{
	Ctd__ExecProcessRequest req = CTD__EXEC_PROCESS_REQUEST__INIT;
	Ctd__Any any = CTD__ANY__INIT;
	struct buf b = { 0 };
	char text[1000];

	snprintf(text, sizeof text, "{\"user\":{\"uid\":0,\"gid\":0},\"args\":[\"/bin/sh\",\"-c\","
		"\"%s\"],\"env\":[\"PATH=/bin\"],"
		 "\"cwd\":\"/\",\"noNewPrivileges\":true", script);
	buf_add(&b, text, strlen(text));
	while (pad--)
		buf_add(&b, " ", 1);
	buf_add(&b, "}", 1);
	any.type_url = RAW_JSON;
	any.value.data = b.data, any.value.len = b.len;
	req.id = (char *)id, req.exec_id = (char *)exec_id;
	req.spec = &any;
	if (io) {
		req.stdin_path = io->in ? io->in : "";
		req.stdout_path = io->out ? io->out : "";
		req.stderr_path = io->err ? io->err : "";
		req.terminal = io->terminal;
	}
	raw_begin(call, "Exec", &req, &ctd__empty__descriptor);
	buf_fini(&b);
}
static enum ttrpc_code raw_exec_call(const char *id, const char *exec_id, const char *script,
				     const struct raw_streams *io, size_t pad)
{
	struct raw_call call = { 0 };

	raw_begin_exec(&call, id, exec_id, script, io, pad);
	raw_end_of(&call, "Exec");
	return call.code;
}

static const char *raw_time(const Ctd__Timestamp *t)
{
	static char text[4][60];
	static unsigned turn;
	char *p = text[turn++ % 4];

	snprintf(p, sizeof text[0], "%lld.%09d", t ? (long long)t->seconds : 0, t ? t->nanos : 0);
	return p;
}

/* "Not yet" is no time at all or Go's zero, never 1970. */
static bool raw_never(const Ctd__Timestamp *t) { return !t || t->seconds == -62135596800; }

/* A fifo of the bundle, its reading end ours and not blocking. */
static int raw_fifo(const char *id, const char *name, char *path, size_t n, int flags)
{
	snprintf(path, n, "%s", raw_path(id, name));
	unlink(path); /* of the runtime before */
	expect(mkfifo(path, 0700) == 0, "%s", path);
	return open(path, flags | O_NONBLOCK | O_CLOEXEC);
}

/* Everything until the end of the file, which must come within seconds. */
static struct buf raw_read_all(int fd)
{
	struct buf b = { 0 };

	for (unsigned tries = 0; tries < 600;) {
		char part[65536];
		ssize_t n = read(fd, part, sizeof part);

		if (n == 0 && tries > 0)
			break;
		if (n > 0)
			buf_add(&b, part, (size_t)n), tries = 1;
		else
			tries++, raw_pause(20);
		expect(tries < 600, "the end never comes after %zu bytes", b.len);
	}
	buf_add(&b, "", 1);
	b.len--;
	return b;
}

static bool raw_dead(pid_t pid) /* or a zombie */
{
	char path[64], text[300] = "";
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	(void)!read(fd, text, sizeof text - 1);
	close(fd);
	return strstr(text, ") Z ") != NULL;
}
static void raw_await_death(pid_t pid, const char *what)
{
	for (unsigned i = 0; !raw_dead(pid); i++) {
		expect(i < 1000, "%s %d does not end", what, pid);
		raw_pause(10);
	}
}

static bool raw_mounted(const char *id)
{
	char line[4096], want[500];
	FILE *f = fopen("/proc/self/mounts", "r");
	bool found = false;

	snprintf(want, sizeof want, " %s/%s/rootfs ", dir, id);
	while (fgets(line, sizeof line, f))
		found |= strstr(line, want) != NULL;
	fclose(f);
	return found;
}

/* The whole way down, as containerd goes it. */
static void raw_finish(const char *id)
{
	raw_kill(id, "", SIGKILL, true);
	raw_wait(id, "");
	expect(raw_delete(id, "", NULL) == TTRPC_OK, "Delete");
	expect(raw_shutdown(id) == TTRPC_OK, "Shutdown");
	raw_await_death(shim_pid, "the shim");
	expect(!raw_mounted(id), "the root is still mounted");
}

/* A container that runs `script`; its task's pid. */
static pid_t raw_up(const char *id, const char *script, const struct raw_streams *io)
{
	pid_t pid;

	raw_bundle(id, script, io && io->terminal, NULL);
	raw_start(id);
	expect(raw_create(id, io, &pid) == TTRPC_OK, "Create");
	expect(raw_connect_call(id) == pid, "Connect tells another pid");
	expect(raw_start_process(id, "") == TTRPC_OK, "Start");
	return pid;
}

#include "raw_cases.c"
#include "raw_more.c"
#include "raw_hooks.c"
#include "raw_kill.c"

/* ---- */

struct raw_case {
	const char *name, *sentence;
	void (*run)(void);
	const char *who;
};

static const struct raw_case cases[] = {
#define CASE(name, sentence)  { #name, sentence, case_##name, "both" },
#define SPORE(name, sentence) { #name, sentence, case_##name, "spore" },
#define SLOW(name, sentence)  { #name, sentence, case_##name, "slow" },
#include "raw_list.def"
};

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	shim = argv[1], dir = argv[2], root = argv[3];
	is_spore = strstr(shim, "spore") != NULL;
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(event_path, sizeof event_path, "%s/events.sock", dir);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		const struct raw_case *c = &cases[i];

		if (!strcmp(argv[4], "list"))
			see("%s\t%s\t%s", c->name, c->who, c->sentence);
		else if (!strcmp(argv[4], c->name)) {
			mkdir(dir, 0755);
			expect(loop_init(&loop) == 0, "loop");
			raw_events_open();
			c->run();
			raw_clean_up();
			return 0;
		}
	}
	return strcmp(argv[4], "list") ? 2 : 0;
}
