/* agent_client.c - speaks to a guest agent over its Unix socket, for tests/e2e/agent.sh.
 *
 *	agent_client SOCKET VERB ARGS...
 *
 * One verb per method, and a few that do what a shim does: "run" creates, starts, moves the
 *streams, waits, removes. A refusal is printed as "CODE: message" on stderr, exit status 99. */
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

/* Standard input first, whole; then both outputs to their end, and the exit status. */
static int client_io(struct client *c, char *id, char *exec, bool is_direct)
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
	if (is_direct) {
		io.out_done = io.err_done = true;
	} else {
		client_read_more(&io.out);
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

static bool client_create_from(struct client *c)
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
	return o.ports[1] != 0;
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
	bool is_direct = client_create_from(c);
	static char none[] = "";
	int status;

	client_start(c);
	status = client_io(c, client_arg(c, 0), none, is_direct);
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
	return client_io(c, req.container_id, req.exec_id, o.ports[1] != 0);
}

/* io ID EXEC-ID: streams and exit status of what runs already */
static int client_attach(struct client *c)
{
	return client_io(c, client_arg(c, 0), client_arg(c, 1), false);
}

/* wait ID EXEC-ID */
static int client_wait(struct client *c)
{
	return client_io(c, client_arg(c, 0), client_arg(c, 1), true);
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

/* call METHOD: an empty request to any method; its answer must be an Empty */
static int client_call(struct client *c)
{
	Grpc__Empty req = GRPC__EMPTY__INIT;

	client_do(c, client_arg(c, 0), &req.base);
	return 0;
}

/* update ID RESOURCES */
static int client_update(struct client *c)
{
	Grpc__UpdateContainerRequest req = GRPC__UPDATE_CONTAINER_REQUEST__INIT;
	struct buf text = client_file(client_arg(c, 1));
	struct err e;

	req.container_id = client_arg(c, 0);
	req.resources = oci_resources_parse(text.data, text.len, &e);
	if (!req.resources)
		client_die(e.msg);
	client_do(c, "UpdateContainer", &req.base);
	return 0;
}

/* stats ID */
static int client_stats(struct client *c)
{
	Grpc__StatsContainerRequest req = GRPC__STATS_CONTAINER_REQUEST__INIT;
	const Grpc__CgroupStats *s;
	Grpc__StatsContainerResponse *m;

	req.container_id = client_arg(c, 0);
	m = (void *)client_try(c, CLIENT_AGENT, "StatsContainer", &req.base,
			       &grpc__stats_container_response__descriptor, CLIENT_TIMEOUT);
	s = m->cgroup_stats;
	printf("cpu %llu\nmemory %llu\nmemory_limit %llu\npids %llu\npids_limit %llu\nmaps %zu\n",
	       (unsigned long long)s->cpu_stats->cpu_usage->total_usage,
	       (unsigned long long)s->memory_stats->usage->usage,
	       (unsigned long long)s->memory_stats->usage->limit,
	       (unsigned long long)s->pids_stats->current, (unsigned long long)s->pids_stats->limit,
	       s->memory_stats->n_stats);
	for (size_t i = 0; i < m->n_network_stats; i++)
		printf("net %s\n", m->network_stats[i]->name);
	return 0;
}

static int client_pause(struct client *c)
{
	Grpc__PauseContainerRequest req = GRPC__PAUSE_CONTAINER_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	client_do(c, "PauseContainer", &req.base);
	return 0;
}

static int client_resume(struct client *c)
{
	Grpc__ResumeContainerRequest req = GRPC__RESUME_CONTAINER_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	client_do(c, "ResumeContainer", &req.base);
	return 0;
}

/* copy PATH MODE(octal) SIZE OFFSET DATA */
static int client_copy(struct client *c)
{
	Grpc__CopyFileRequest req = GRPC__COPY_FILE_REQUEST__INIT;

	req.path = client_arg(c, 0);
	req.file_mode = (uint32_t)strtoul(client_arg(c, 1), NULL, 8);
	req.file_size = atoll(client_arg(c, 2));
	req.offset = atoll(client_arg(c, 3));
	req.data.data = (uint8_t *)client_arg(c, 4);
	req.data.len = strlen(client_arg(c, 4));
	client_do(c, "CopyFile", &req.base);
	return 0;
}

/* reseed BYTES */
static int client_reseed(struct client *c)
{
	Grpc__ReseedRandomDevRequest req = GRPC__RESEED_RANDOM_DEV_REQUEST__INIT;
	static uint8_t bytes[65536];

	req.data.data = bytes;
	req.data.len = (size_t)atoi(client_arg(c, 0));
	client_do(c, "ReseedRandomDev", &req.base);
	return 0;
}

/* settime SEC USEC */
static int client_settime(struct client *c)
{
	Grpc__SetGuestDateTimeRequest req = GRPC__SET_GUEST_DATE_TIME_REQUEST__INIT;

	req.sec = atoll(client_arg(c, 0));
	req.usec = atoll(client_arg(c, 1));
	client_do(c, "SetGuestDateTime", &req.base);
	return 0;
}

/* online CPUS WAIT */
static int client_online(struct client *c)
{
	Grpc__OnlineCPUMemRequest req = GRPC__ONLINE_CPUMEM_REQUEST__INIT;

	req.nb_cpus = (uint32_t)atoi(client_arg(c, 0));
	req.wait = atoi(client_arg(c, 1));
	client_do(c, "OnlineCPUMem", &req.base);
	return 0;
}

static int client_metrics(struct client *c)
{
	Grpc__GetMetricsRequest req = GRPC__GET_METRICS_REQUEST__INIT;
	Grpc__Metrics *m = (void *)client_try(c, CLIENT_AGENT, "GetMetrics", &req.base,
					      &grpc__metrics__descriptor, CLIENT_TIMEOUT);

	fputs(m->metrics, stdout);
	return 0;
}

/* volume PATH */
static int client_volume(struct client *c)
{
	Grpc__VolumeStatsRequest req = GRPC__VOLUME_STATS_REQUEST__INIT;
	Grpc__VolumeStatsResponse *m;

	req.volume_guest_path = client_arg(c, 0);
	m = (void *)client_try(c, CLIENT_AGENT, "GetVolumeStats", &req.base,
			       &grpc__volume_stats_response__descriptor, CLIENT_TIMEOUT);
	for (size_t i = 0; i < m->n_usage; i++)
		printf("%d total %llu used %llu\n", m->usage[i]->unit,
		       (unsigned long long)m->usage[i]->total,
		       (unsigned long long)m->usage[i]->used);
	return 0;
}

/* resize-tmpfs PATH OPTION */
static int client_resize_tmpfs(struct client *c)
{
	Grpc__UpdateEphemeralMountsRequest req = GRPC__UPDATE_EPHEMERAL_MOUNTS_REQUEST__INIT;
	Grpc__Storage s = GRPC__STORAGE__INIT, *list[] = { &s };
	static char driver[] = "ephemeral";

	s.driver = driver;
	s.mount_point = client_arg(c, 0);
	s.options = c->argv + 1;
	s.n_options = (size_t)c->argc - 1;
	req.storages = list;
	req.n_storages = 1;
	client_do(c, "UpdateEphemeralMounts", &req.base);
	return 0;
}

/* log ID: the termination log */
static int client_log(struct client *c)
{
	Grpc__GetDiagnosticDataRequest req = GRPC__GET_DIAGNOSTIC_DATA_REQUEST__INIT;
	static char type[] = "termination_log";
	Grpc__GetDiagnosticDataResponse *m;

	req.log_type = type;
	req.container_id = client_arg(c, 0);
	m = (void *)client_try(c, CLIENT_AGENT, "GetDiagnosticData", &req.base,
			       &grpc__get_diagnostic_data_response__descriptor, CLIENT_TIMEOUT);
	fputs(m->data, stdout);
	return 0;
}

/* ---- Network */

static void client_print_interface(const Types__Interface *i)
{
	printf("%s %s mtu %llu", i->name, i->hwaddr, (unsigned long long)i->mtu);
	for (size_t k = 0; k < i->n_ipaddresses; k++)
		printf(" %s/%s", i->ipaddresses[k]->address, i->ipaddresses[k]->mask);
	printf("\n");
}

/* interface NAME MAC MTU [ADDRESS/PREFIX ...] */
static int client_interface(struct client *c)
{
	Grpc__UpdateInterfaceRequest req = GRPC__UPDATE_INTERFACE_REQUEST__INIT;
	Types__Interface i = TYPES__INTERFACE__INIT;
	Types__IPAddress ip[8], *ips[8];

	i.name = client_arg(c, 0);
	i.hwaddr = client_arg(c, 1);
	i.mtu = (uint64_t)atoll(client_arg(c, 2));
	i.ipaddresses = ips;
	for (int k = 3; k < c->argc && k < 11; k++) {
		char *mask = c->argv[k];
		ips[k - 3] = &ip[k - 3];
		types__ipaddress__init(&ip[k - 3]);
		ip[k - 3].address = strsep(&mask, "/");
		ip[k - 3].mask = mask;
		i.n_ipaddresses++;
	}
	req.interface = &i;
	client_print_interface((void *)client_try(c, CLIENT_AGENT, "UpdateInterface", &req.base,
						  &types__interface__descriptor, CLIENT_TIMEOUT));
	return 0;
}

static int client_interfaces(struct client *c)
{
	Grpc__ListInterfacesRequest req = GRPC__LIST_INTERFACES_REQUEST__INIT;
	Grpc__Interfaces *m = (void *)client_try(c, CLIENT_AGENT, "ListInterfaces", &req.base,
						 &grpc__interfaces__descriptor, CLIENT_TIMEOUT);

	for (size_t i = 0; i < m->n_interfaces; i++)
		client_print_interface(m->interfaces[i]);
	return 0;
}

static void client_print_routes(const Grpc__Routes *m)
{
	for (size_t i = 0; i < m->n_routes; i++)
		printf("%s via %s dev %s src %s mtu %u\n",
		       *m->routes[i]->dest ? m->routes[i]->dest : "default", m->routes[i]->gateway,
		       m->routes[i]->device, m->routes[i]->source, m->routes[i]->mtu);
}

/* routes [DEST|GATEWAY|DEVICE|SOURCE|MTU ...] */
static int client_routes(struct client *c)
{
	Grpc__UpdateRoutesRequest req = GRPC__UPDATE_ROUTES_REQUEST__INIT;
	Grpc__Routes routes = GRPC__ROUTES__INIT;
	Types__Route r[8], *list[8];

	routes.routes = list;
	for (int k = 0; k < c->argc && k < 8; k++) {
		char *v = c->argv[k];
		list[k] = &r[k];
		types__route__init(&r[k]);
		r[k].dest = strsep(&v, "|");
		r[k].gateway = strsep(&v, "|");
		r[k].device = strsep(&v, "|");
		r[k].source = strsep(&v, "|");
		r[k].mtu = (uint32_t)atoi(strsep(&v, "|"));
		routes.n_routes++;
	}
	req.routes = &routes;
	client_print_routes((void *)client_try(c, CLIENT_AGENT, "UpdateRoutes", &req.base,
					       &grpc__routes__descriptor, CLIENT_TIMEOUT));
	return 0;
}

static int client_list_routes(struct client *c)
{
	Grpc__ListRoutesRequest req = GRPC__LIST_ROUTES_REQUEST__INIT;

	client_print_routes((void *)client_try(c, CLIENT_AGENT, "ListRoutes", &req.base,
					       &grpc__routes__descriptor, CLIENT_TIMEOUT));
	return 0;
}

/* neighbor ADDRESS DEVICE MAC */
static int client_neighbor(struct client *c)
{
	Grpc__AddARPNeighborsRequest req = GRPC__ADD_ARPNEIGHBORS_REQUEST__INIT;
	Grpc__ARPNeighbors list = GRPC__ARPNEIGHBORS__INIT;
	Types__ARPNeighbor n = TYPES__ARPNEIGHBOR__INIT, *ns[] = { &n };
	Types__IPAddress ip = TYPES__IPADDRESS__INIT;

	ip.address = client_arg(c, 0);
	n.toipaddress = &ip;
	n.device = client_arg(c, 1);
	n.lladdr = client_arg(c, 2);
	list.arpneighbors = ns;
	list.n_arpneighbors = 1;
	req.neighbors = &list;
	client_do(c, "AddARPNeighbors", &req.base);
	return 0;
}

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
