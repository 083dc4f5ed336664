/* agent_client.c - speaks to a guest agent over its Unix socket, for tests/e2e/agent.sh.
 *
 *	agent_client SOCKET VERB ARGS...
 *
 * One verb per method, and a few that do what a shim does: "run" creates, starts, moves the
 * streams, waits, removes. A refusal is printed as "CODE: message" on stderr, exit status 99. */
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
#include "amalgam/wire/json.c"
#include "amalgam/wire/oci_spec.c"
#include "amalgam/wire/ttrpc_frame.c"
#include "amalgam/wire/ttrpc.c"

#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent.pb-c.h"
#include "health.pb-c.h"

#define CLIENT_AGENT   "grpc.AgentService"
#define CLIENT_TIMEOUT (30 * UINT64_C(1000000000))
#define CLIENT_REFUSED 99

struct client {
	struct loop loop;
	struct ttrpc_conn *conn;
	const char *socket;
	int argc;
	char **argv; /* behind the verb */
};

static NORETURN void client_die(const char *why)
{
	fprintf(stderr, "agent_client: %s\n", why);
	exit(98);
}

static const char *client_code_name(enum ttrpc_code code)
{
	static const char *const names[] = {
		"OK",
		"CANCELLED",
		"UNKNOWN",
		"INVALID_ARGUMENT",
		"DEADLINE_EXCEEDED",
		"NOT_FOUND",
		"ALREADY_EXISTS",
		"PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION",
		"ABORTED",
		"OUT_OF_RANGE",
		"UNIMPLEMENTED",
		"INTERNAL",
		"UNAVAILABLE",
	};
	return (unsigned)code < ARRAY_LEN(names) ? names[code] : "?";
}

/* "vsock:CID:PORT" */
static int client_vsock(const char *name)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK };
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sscanf(name, "vsock:%u:%u", &sa.svm_cid, &sa.svm_port) != 2 ||
	    connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		client_die(name);
	return fd;
}

static int client_socket(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!strncmp(path, "vsock:", 6)) {
		close(fd);
		return client_vsock(path);
	}
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", path);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		client_die(path);
	return fd;
}

static void client_closed(void *arg, const char *reason)
{
	(void)arg;
	(void)reason;
}

/* Call, or exit with the refusal. */
static ProtobufCMessage *client_try(struct client *c, const char *service, const char *method,
				    const ProtobufCMessage *req,
				    const ProtobufCMessageDescriptor *response, uint64_t timeout)
{
	ProtobufCMessage *out = NULL;
	struct err e = { 0 };
	enum ttrpc_code code =
		ttrpc_request_wait(c->conn, service, method, req, response, timeout, &out, &e);

	if (code == TTRPC_OK)
		return out;
	fprintf(stderr, "%s: %s\n", client_code_name(code), e.msg);
	exit(CLIENT_REFUSED);
}

static void client_do(struct client *c, const char *method, const ProtobufCMessage *req)
{
	ProtobufCMessage *m =
		client_try(c, CLIENT_AGENT, method, req, &grpc__empty__descriptor, CLIENT_TIMEOUT);

	protobuf_c_message_free_unpacked(m, NULL);
}

static char *client_arg(const struct client *c, int i)
{
	if (i >= c->argc)
		client_die("argument missing");
	return c->argv[i];
}

static struct buf client_file(const char *path)
{
	struct buf b = { 0 };
	struct err e;

	if (path_read(path, OCI_SPEC_MAX_BYTES, &b, &e) < 0)
		client_die(e.msg);
	return b;
}

/* ---- Options of create and exec: key=value words behind the fixed arguments */

struct client_options {
	Grpc__Storage storage[8], *storages[8];
	size_t n_storages;
	Grpc__Device device[4], *devices[4];
	size_t n_devices;
	Grpc__StringUser user;
	bool has_user, pidns;
	uint32_t ports[3];
	char *options[8][16]; /* of the storages */
	char *groups[16];
};

/* driver|source|fstype|mount point|option,option */
static void client_storage(struct client_options *o, char *v)
{
	Grpc__Storage *s = &o->storage[o->n_storages];
	char *field[5], *save = NULL;
	size_t n = 0;

	for (; n < 5; n++)
		field[n] = strsep(&v, "|");
	grpc__storage__init(s);
	s->driver = field[0];
	s->source = field[1];
	s->fstype = field[2];
	s->mount_point = field[3];
	s->options = o->options[o->n_storages];
	for (char *w = field[4] ? strtok_r(field[4], ",", &save) : NULL; w;
	     w = strtok_r(NULL, ",", &save))
		s->options[s->n_options++] = w;
	o->storages[o->n_storages++] = s;
}

/* type|node in the guest|path in the container */
static void client_device(struct client_options *o, char *v)
{
	Grpc__Device *d = &o->device[o->n_devices];

	grpc__device__init(d);
	d->type = strsep(&v, "|");
	d->vm_path = strsep(&v, "|");
	d->container_path = strsep(&v, "|");
	o->devices[o->n_devices++] = d;
}

/* user[:group[,group ...]] */
static void client_user(struct client_options *o, char *v)
{
	char *groups;

	o->has_user = true;
	o->user.uid = strsep(&v, ":");
	groups = v;
	o->user.additionalgids = o->groups;
	if (groups)
		o->user.gid = strsep(&groups, ",");
	while (groups)
		o->groups[o->user.n_additionalgids++] = strsep(&groups, ",");
}

static void client_options(struct client *c, int from, struct client_options *o)
{
	memset(o, 0, sizeof *o);
	grpc__string_user__init(&o->user);
	for (int i = from; i < c->argc; i++) {
		char *value = c->argv[i], *key = strsep(&value, "=");
		if (!strcmp(key, "storage"))
			client_storage(o, value);
		else if (!strcmp(key, "device"))
			client_device(o, value);
		else if (!strcmp(key, "user"))
			client_user(o, value);
		else if (!strcmp(key, "pidns"))
			o->pidns = true;
		else if (!strcmp(key, "ports"))
			sscanf(value, "%u,%u,%u", &o->ports[0], &o->ports[1], &o->ports[2]);
		else
			client_die(key);
	}
}

/* ---- Streams: what a shim does without direct stdio */

struct client_stream {
	struct client *c;
	const char *id, *exec, *method;
	int to;
	bool *done;
};

struct client_io {
	struct client_stream out, err;
	bool out_done, err_done, wait_done;
	int status;
};

static void client_read_more(struct client_stream *s);

static void client_read_done(void *arg, const struct ttrpc_result *r)
{
	struct client_stream *s = arg;
	const Grpc__ReadStreamResponse *m = (const void *)r->response;

	if (r->code != TTRPC_OK) {
		fprintf(stderr, "%s: %s: %s\n", s->method, client_code_name(r->code), r->message);
		*s->done = true;
	} else if (m->data.len == 0) {
		*s->done = true;
	} else {
		(void)!fd_write_full(s->to, m->data.data, m->data.len);
		client_read_more(s);
	}
}

static void client_read_more(struct client_stream *s)
{
	Grpc__ReadStreamRequest req = GRPC__READ_STREAM_REQUEST__INIT;

	req.container_id = (char *)(uintptr_t)s->id;
	req.exec_id = (char *)(uintptr_t)s->exec;
	req.len = 8192;
	ttrpc_request(s->c->conn, CLIENT_AGENT, s->method, &req.base,
		      &grpc__read_stream_response__descriptor, 0, client_read_done, s);
}

static void client_wait_done(void *arg, const struct ttrpc_result *r)
{
	struct client_io *io = arg;
	const Grpc__WaitProcessResponse *m = (const void *)r->response;

	io->wait_done = true;
	io->status = r->code == TTRPC_OK ? m->status : CLIENT_REFUSED;
	if (r->code == TTRPC_OK && m->oom_killed)
		fprintf(stderr, "oom_killed\n");
	if (r->code != TTRPC_OK)
		fprintf(stderr, "%s: %s\n", client_code_name(r->code), r->message);
}

static void client_write(struct client *c, char *id, char *exec, const uint8_t *p, size_t n)
{
	Grpc__WriteStreamRequest req = GRPC__WRITE_STREAM_REQUEST__INIT;
	ProtobufCMessage *m;

	req.container_id = id;
	req.exec_id = exec;
	req.data.data = (uint8_t *)(uintptr_t)p;
	req.data.len = n;
	m = client_try(c, CLIENT_AGENT, "WriteStdin", &req.base,
		       &grpc__write_stream_response__descriptor, 0);
	protobuf_c_message_free_unpacked(m, NULL);
}

/* What client_io() moves by request: nothing of a direct process, and of a terminal's one output only
 * what ReadStdout gives, or its two readers would share it as it comes. */
enum client_stdio { CLIENT_PIPES, CLIENT_TERMINAL, CLIENT_DIRECT };

static enum client_stdio client_stdio_of(const Grpc__Process *p, bool is_direct)
{
	return is_direct ? CLIENT_DIRECT : p && p->terminal ? CLIENT_TERMINAL : CLIENT_PIPES;
}

/* Standard input first, whole; then the outputs to their end, and the exit status. */
static int client_io(struct client *c, char *id, char *exec, enum client_stdio kind)
{
	struct client_io io = { .out = { c, id, exec, "ReadStdout", 1, NULL },
				.err = { c, id, exec, "ReadStderr", 2, NULL } };
	Grpc__WaitProcessRequest req = GRPC__WAIT_PROCESS_REQUEST__INIT;
	uint8_t chunk[4096];
	ssize_t n;

	io.out.done = &io.out_done;
	io.err.done = &io.err_done;
	req.container_id = id;
	req.exec_id = exec;
	ttrpc_request(c->conn, CLIENT_AGENT, "WaitProcess", &req.base,
		      &grpc__wait_process_response__descriptor, 0, client_wait_done, &io);
	io.out_done = kind == CLIENT_DIRECT;
	io.err_done = kind != CLIENT_PIPES;
	if (!io.out_done) {
		client_read_more(&io.out);
		if (!io.err_done)
			client_read_more(&io.err);
		while (!isatty(0) && (n = read(0, chunk, sizeof chunk)) > 0)
			client_write(c, id, exec, chunk, (size_t)n);
		client_write(c, id, exec, NULL, 0);
	}
	while (!io.out_done || !io.err_done || !io.wait_done)
		loop_step(&c->loop, -1);
	return io.status;
}

/* ---- Verbs */

static int client_check(struct client *c)
{
	Grpc__CheckRequest req = GRPC__CHECK_REQUEST__INIT;
	Grpc__HealthCheckResponse *m =
		(void *)client_try(c, "grpc.Health", "Check", &req.base,
				   &grpc__health_check_response__descriptor, CLIENT_TIMEOUT);

	puts(m->status == GRPC__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING ? "SERVING"
									       : "NOT_SERVING");
	return 0;
}

static int client_version(struct client *c)
{
	Grpc__CheckRequest req = GRPC__CHECK_REQUEST__INIT;
	Grpc__VersionCheckResponse *m =
		(void *)client_try(c, "grpc.Health", "Version", &req.base,
				   &grpc__version_check_response__descriptor, CLIENT_TIMEOUT);

	printf("%s %s\n", m->grpc_version, m->agent_version);
	return 0;
}

static int client_details(struct client *c)
{
	Grpc__GuestDetailsRequest req = GRPC__GUEST_DETAILS_REQUEST__INIT;
	Grpc__GuestDetailsResponse *m;

	req.mem_block_size = req.mem_hotplug_probe = true;
	m = (void *)client_try(c, CLIENT_AGENT, "GetGuestDetails", &req.base,
			       &grpc__guest_details_response__descriptor, CLIENT_TIMEOUT);
	printf("version=%s init=%d seccomp=%d\n", m->agent_details->version,
	       m->agent_details->init_daemon, m->agent_details->supports_seccomp);
	for (size_t i = 0; i < m->agent_details->n_storage_handlers; i++)
		printf("storage=%s\n", m->agent_details->storage_handlers[i]);
	for (size_t i = 0; i < m->agent_details->n_extra_features; i++)
		printf("feature=%s\n", m->agent_details->extra_features[i]);
	return 0;
}

/* sandbox ID HOSTNAME [DNS LINE ...] */
static int client_sandbox(struct client *c)
{
	Grpc__CreateSandboxRequest req = GRPC__CREATE_SANDBOX_REQUEST__INIT;

	req.sandbox_id = client_arg(c, 0);
	req.hostname = client_arg(c, 1);
	req.dns = c->argv + 2;
	req.n_dns = (size_t)c->argc - 2;
	client_do(c, "CreateSandbox", &req.base);
	return 0;
}

/* clone ENTROPY-BYTES: a sandbox that says it is one */
static int client_clone(struct client *c)
{
	Grpc__CreateSandboxRequest req = GRPC__CREATE_SANDBOX_REQUEST__INIT;
	Grpc__SporeClone s = GRPC__SPORE_CLONE__INIT;
	static uint8_t bytes[4096];

	req.spore = &s;
	s.is_clone = true;
	s.entropy.data = bytes;
	s.entropy.len = (size_t)atoi(client_arg(c, 0));
	client_do(c, "CreateSandbox", &req.base);
	return 0;
}

static int client_destroy(struct client *c)
{
	Grpc__DestroySandboxRequest req = GRPC__DESTROY_SANDBOX_REQUEST__INIT;

	client_do(c, "DestroySandbox", &req.base);
	return 0;
}

static enum client_stdio client_create_from(struct client *c)
{
	Grpc__CreateContainerRequest req = GRPC__CREATE_CONTAINER_REQUEST__INIT;
	struct client_options o;
	struct buf text = client_file(client_arg(c, 1));
	struct err e;

	client_options(c, 2, &o);
	req.container_id = client_arg(c, 0);
	req.oci = oci_spec_parse(text.data, text.len, &e);
	if (!req.oci)
		client_die(e.msg);
	req.storages = o.storages;
	req.n_storages = o.n_storages;
	req.devices = o.devices;
	req.n_devices = o.n_devices;
	req.string_user = o.has_user ? &o.user : NULL;
	req.sandbox_pidns = o.pidns;
	req.stdin_port = o.ports[0];
	req.stdout_port = o.ports[1];
	req.stderr_port = o.ports[2];
	client_do(c, "CreateContainer", &req.base);
	return client_stdio_of(req.oci->process, o.ports[1] != 0);
}

/* create ID CONFIG [OPTION ...] */
static int client_create(struct client *c)
{
	(void)client_create_from(c);
	return 0;
}

static int client_start(struct client *c)
{
	Grpc__StartContainerRequest req = GRPC__START_CONTAINER_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	client_do(c, "StartContainer", &req.base);
	return 0;
}

/* remove ID [TIMEOUT] */
static int client_remove(struct client *c)
{
	Grpc__RemoveContainerRequest req = GRPC__REMOVE_CONTAINER_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	req.timeout = c->argc > 1 ? (uint32_t)atoi(c->argv[1]) : 0;
	client_do(c, "RemoveContainer", &req.base);
	return 0;
}

/* run ID CONFIG [OPTION ...] */
static int client_run(struct client *c)
{
	enum client_stdio kind = client_create_from(c);
	static char none[] = "";
	int status;

	client_start(c);
	status = client_io(c, client_arg(c, 0), none, kind);
	c->argc = 1;
	client_remove(c);
	return status;
}

/* exec ID EXEC-ID PROCESS [OPTION ...] */
static int client_exec(struct client *c)
{
	Grpc__ExecProcessRequest req = GRPC__EXEC_PROCESS_REQUEST__INIT;
	struct client_options o;
	struct buf text = client_file(client_arg(c, 2));
	struct err e;

	client_options(c, 3, &o);
	req.container_id = client_arg(c, 0);
	req.exec_id = client_arg(c, 1);
	req.process = oci_process_parse(text.data, text.len, &e);
	if (!req.process)
		client_die(e.msg);
	req.string_user = o.has_user ? &o.user : NULL;
	req.stdin_port = o.ports[0];
	req.stdout_port = o.ports[1];
	req.stderr_port = o.ports[2];
	client_do(c, "ExecProcess", &req.base);
	return client_io(c, req.container_id, req.exec_id, client_stdio_of(req.process, o.ports[1] != 0));
}

/* io ID EXEC-ID [tty]: streams and exit status of what runs already */
static int client_attach(struct client *c)
{
	enum client_stdio kind = c->argc > 2 ? CLIENT_TERMINAL : CLIENT_PIPES;

	return client_io(c, client_arg(c, 0), client_arg(c, 1), kind);
}

/* wait ID EXEC-ID */
static int client_wait(struct client *c)
{
	return client_io(c, client_arg(c, 0), client_arg(c, 1), CLIENT_DIRECT);
}

/* close-stdin ID EXEC-ID */
static int client_close_stdin(struct client *c)
{
	Grpc__CloseStdinRequest req = GRPC__CLOSE_STDIN_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	req.exec_id = client_arg(c, 1);
	client_do(c, "CloseStdin", &req.base);
	return 0;
}

/* kill ID EXEC-ID SIGNAL */
static int client_kill(struct client *c)
{
	Grpc__SignalProcessRequest req = GRPC__SIGNAL_PROCESS_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	req.exec_id = client_arg(c, 1);
	req.signal = (uint32_t)atoi(client_arg(c, 2));
	client_do(c, "SignalProcess", &req.base);
	return 0;
}

/* resize ID EXEC-ID ROWS COLUMNS */
static int client_resize(struct client *c)
{
	Grpc__TtyWinResizeRequest req = GRPC__TTY_WIN_RESIZE_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	req.exec_id = client_arg(c, 1);
	req.row = (uint32_t)atoi(client_arg(c, 2));
	req.column = (uint32_t)atoi(client_arg(c, 3));
	client_do(c, "TtyWinResize", &req.base);
	return 0;
}

static int client_oom(struct client *c)
{
	Grpc__GetOOMEventRequest req = GRPC__GET_OOMEVENT_REQUEST__INIT;
	Grpc__OOMEvent *m = (void *)client_try(c, CLIENT_AGENT, "GetOOMEvent", &req.base,
					       &grpc__oomevent__descriptor, CLIENT_TIMEOUT);

	puts(m->container_id);
	return 0;
}

/* direct PORT: be the direct stream with this number, until both sides have ended */
static int client_direct(struct client *c)
{
	AUTO_FREE char *path = mem_printf("%s.1027", c->socket);
	AUTO_FREE char *line = mem_printf("%s\n", client_arg(c, 0));
	int fd = client_socket(path);
	struct pollfd p[2] = { { .fd = 0, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
	char chunk[4096];

	(void)!fd_write_full(fd, line, strlen(line));
	for (;;) {
		ssize_t n;
		poll(p, 2, -1);
		if (p[1].revents) {
			n = read(fd, chunk, sizeof chunk);
			if (n <= 0)
				return 0;
			(void)!fd_write_full(1, chunk, (size_t)n);
		} else if (p[0].revents) {
			n = read(0, chunk, sizeof chunk);
			if (n > 0 && fd_write_full(fd, chunk, (size_t)n) == 0)
				continue;
			shutdown(fd, SHUT_WR);
			p[0].fd = -1;
		}
	}
}

#include "tests/e2e/agent_verbs.c"

static const struct {
	const char *name;
	int (*run)(struct client *c);
} client_verbs[] = {
	{ "check", client_check },
	{ "version", client_version },
	{ "details", client_details },
	{ "sandbox", client_sandbox },
	{ "clone", client_clone },
	{ "destroy", client_destroy },
	{ "create", client_create },
	{ "start", client_start },
	{ "remove", client_remove },
	{ "run", client_run },
	{ "exec", client_exec },
	{ "kill", client_kill },
	{ "resize", client_resize },
	{ "oom", client_oom },
	{ "direct", client_direct },
	{ "watch-log", client_watch_log },
	{ "call", client_call },
	{ "update", client_update },
	{ "stats", client_stats },
	{ "pause", client_pause },
	{ "resume", client_resume },
	{ "copy", client_copy },
	{ "reseed", client_reseed },
	{ "settime", client_settime },
	{ "online", client_online },
	{ "metrics", client_metrics },
	{ "volume", client_volume },
	{ "log", client_log },
	{ "interface", client_interface },
	{ "interfaces", client_interfaces },
	{ "routes", client_routes },
	{ "neighbor", client_neighbor },
	{ "io", client_attach },
	{ "close-stdin", client_close_stdin },
	{ "wait", client_wait },
	{ "resize-tmpfs", client_resize_tmpfs },
	{ "list-routes", client_list_routes },
};

int main(int argc, char **argv)
{
	struct client c = { .argc = argc - 3, .argv = argv + 3 };
	struct err e;

	if (argc < 3)
		client_die("usage: agent_client SOCKET VERB ARGS...");
	c.socket = argv[1];
	if (loop_init(&c.loop) < 0)
		client_die("epoll");
	c.conn = ttrpc_open(&c.loop, client_socket(c.socket), NULL, 0, client_closed, NULL, &e);
	if (!c.conn)
		client_die(e.msg);
	for (size_t i = 0; i < ARRAY_LEN(client_verbs); i++)
		if (!strcmp(client_verbs[i].name, argv[2]))
			return client_verbs[i].run(&c);
	client_die("no such verb");
}
