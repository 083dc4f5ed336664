/* raw_kill.c - the shim, and the process of the task, killed at every request of a container's life: just
 * before it, while it is served, after it. Part of raw.c; sentences: raw_list.def.
 *
 * Each try is a life of its own that goes so far along life[]; then somebody is killed, and then it is looked
 * for what a client sees and for what is left. The task's process is runc's init, and spore's machine. A
 * request that takes its time is tried 0, 1, 2, 4 ... ms into it until it is over; each millisecond with
 * SPORE_CONFORM_SLOW=1. */

#define KILL_ANSWER (8 * RAW_S) /* a request that takes longer hangs */
#define KILL_OUTPUT_MS 3000     /* for what was killed to be gone */
#define KILL_TRAPPED 6          /* the status of who ends by SIGTERM */

enum kill_moment { KILL_BEFORE, KILL_DURING, KILL_AFTER };

struct kill_rpc {
	const char *name, *method, *exec_id;
	const ProtobufCMessageDescriptor *answer; /* NULL: an empty one */
	void (*begin)(struct raw_call *call, const struct kill_rpc *rpc); /* NULL: id and exec_id say it all */
	enum { KILL_SLOW = 1, /* there are moments in it, not one */
	       KILL_PENDING } how; /* it is not answered until somebody ends */
};

static struct raw_streams kill_io, kill_exec_io; /* of the container, of the exec */
static int kill_fds[4];                          /* our ends of them */
static pid_t kill_task;                          /* once it was created */
static struct buf kill_seen;                     /* what `look` saw before */

/* ---- Requests */

static void kill_create(struct raw_call *call, const struct kill_rpc *rpc)
{
	(void)rpc;
	raw_begin_create(call, "c1", &kill_io);
}

static void kill_exec(struct raw_call *call, const struct kill_rpc *rpc)
{
	raw_begin_exec(call, "c1", rpc->exec_id, "exec sleep 1000", &kill_exec_io, 0);
}

static void kill_signal(struct raw_call *call, const struct kill_rpc *rpc)
{
	Ctd__KillRequest req = CTD__KILL_REQUEST__INIT;

	req.id = "c1", req.exec_id = (char *)rpc->exec_id;
	req.signal = *rpc->exec_id ? SIGKILL : SIGTERM;
	raw_begin(call, rpc->method, &req, &ctd__empty__descriptor);
}

static void kill_close_io(struct raw_call *call, const struct kill_rpc *rpc)
{
	Ctd__CloseIORequest req = CTD__CLOSE_IOREQUEST__INIT;

	req.id = "c1", req.exec_id = (char *)rpc->exec_id;
	req.in = true;
	raw_begin(call, rpc->method, &req, &ctd__empty__descriptor);
}

static void kill_resize(struct raw_call *call, const struct kill_rpc *rpc)
{
	Ctd__ResizePtyRequest req = CTD__RESIZE_PTY_REQUEST__INIT;

	req.id = "c1", req.width = 91, req.height = 37;
	raw_begin(call, rpc->method, &req, &ctd__empty__descriptor);
}

static void kill_update(struct raw_call *call, const struct kill_rpc *rpc)
{
	static char text[] = "{\"memory\":{\"limit\":134217728,\"swap\":134217728}}";
	Ctd__UpdateTaskRequest req = CTD__UPDATE_TASK_REQUEST__INIT;
	Ctd__Any any = CTD__ANY__INIT;

	any.type_url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
	any.value.data = (uint8_t *)text, any.value.len = strlen(text);
	req.id = "c1", req.resources = &any;
	raw_begin(call, rpc->method, &req, &ctd__empty__descriptor);
}

#define KILL_CREATED &ctd__create_task_response__descriptor
#define KILL_STARTED &ctd__start_response__descriptor
#define KILL_STATE   &ctd__state_response__descriptor
#define KILL_WAITED  &ctd__wait_response__descriptor
#define KILL_DELETED &ctd__delete_response__descriptor

/* In the order of a life. */
static const struct kill_rpc life[] = {
	{ "Create", "Create", "", KILL_CREATED, kill_create, KILL_SLOW },
	{ "Connect", "Connect", "", &ctd__connect_response__descriptor, NULL, 0 },
	{ "Wait", "Wait", "", KILL_WAITED, NULL, KILL_PENDING },
	{ "Start", "Start", "", KILL_STARTED, NULL, KILL_SLOW },
	{ "State", "State", "", KILL_STATE, NULL, 0 },
	{ "Pids", "Pids", "", &ctd__pids_response__descriptor, NULL, 0 },
	{ "Stats", "Stats", "", &ctd__stats_response__descriptor, NULL, 0 },
	{ "ResizePty", "ResizePty", "", NULL, kill_resize, 0 },
	{ "CloseIO", "CloseIO", "", NULL, kill_close_io, 0 },
	{ "Update", "Update", "", NULL, kill_update, 0 },
	{ "Exec", "Exec", "e1", NULL, kill_exec, 0 },
	{ "Start of the exec", "Start", "e1", KILL_STARTED, NULL, KILL_SLOW },
	{ "State of the exec", "State", "e1", KILL_STATE, NULL, 0 },
	{ "Wait of the exec", "Wait", "e1", KILL_WAITED, NULL, KILL_PENDING },
	{ "Pause", "Pause", "", NULL, NULL, KILL_SLOW },
	{ "Resume", "Resume", "", NULL, NULL, KILL_SLOW },
	{ "Kill of the exec", "Kill", "e1", NULL, kill_signal, 0 },
	{ "Wait of the exec that has ended", "Wait", "e1", KILL_WAITED, NULL, 0 },
	{ "Delete of the exec", "Delete", "e1", KILL_DELETED, NULL, 0 },
	{ "Kill", "Kill", "", NULL, kill_signal, 0 },
	{ "Wait of what has ended", "Wait", "", KILL_WAITED, NULL, 0 },
	{ "Delete", "Delete", "", KILL_DELETED, NULL, KILL_SLOW },
	{ "Shutdown", "Shutdown", "", NULL, NULL, 0 },
};
enum { KILL_RPCS = ARRAY_LEN(life) };

static struct raw_call kill_calls[KILL_RPCS]; /* of this try */

static unsigned kill_row(const char *name)
{
	for (unsigned i = 0; i < KILL_RPCS; i++) {
		if (!strcmp(life[i].name, name))
			return i;
	}
	expect(false, "no row %s", name);
	return 0;
}

static bool kill_was_ok(const char *name)
{
	const struct raw_call *call = &kill_calls[kill_row(name)];

	return call->over && call->code == TTRPC_OK && call->packed.data;
}

static void kill_ask(struct raw_call *call, const struct kill_rpc *rpc)
{
	Ctd__StateRequest req = CTD__STATE_REQUEST__INIT; /* fields 1 and 2 are the ids in all of them */

	if (rpc->begin) {
		rpc->begin(call, rpc);
		return;
	}
	req.id = "c1", req.exec_id = (char *)rpc->exec_id;
	raw_begin(call, rpc->method, &req, rpc->answer ? rpc->answer : &ctd__empty__descriptor);
}

static void kill_begin(unsigned row) { kill_ask(&kill_calls[row], &life[row]); }

static void kill_end(unsigned row)
{
	if (life[row].how == KILL_PENDING)
		raw_pause(1); /* it is served, which is all */
	else
		raw_end_of(&kill_calls[row], life[row].name);
	if (row == 0 && kill_was_ok("Create"))
		kill_task = raw_created_pid(&kill_calls[0]);
}

static enum ttrpc_code kill_do(const char *name) /* once more, or at another time */
{
	struct raw_call call = { 0 };

	kill_ask(&call, &life[kill_row(name)]);
	raw_end_of(&call, name);
	buf_fini(&call.packed);
	return call.code;
}

/* ---- What is left */

static struct buf kill_look(void)
{
	FILE *f = popen("look /run/spore/sandboxes 1 1 /run/containerd/s 1 1 /run/containerd/runc 2 2", "r");
	struct buf b = { 0 };
	char part[4096];
	size_t n;

	expect(f, "look");
	buf_add(&b, "\n", 1);
	while ((n = fread(part, 1, sizeof part, f)) > 0)
		buf_add(&b, part, n);
	expect(pclose(f) == 0 && b.len > 1, "look");
	buf_add(&b, "", 1);
	return b;
}

/* The first line that was not there before, or "". */
static void kill_leak(char *line, size_t n)
{
	struct buf now = kill_look();
	char *at = (char *)now.data + 1, *end;

	*line = 0;
	for (; !*line && (end = strchr(at, '\n')); at = end + 1) {
		char whole[600];

		snprintf(whole, sizeof whole, "\n%.*s\n", (int)(end - at), at);
		if (!strstr((char *)kill_seen.data, whole))
			snprintf(line, n, "%.*s", (int)(end - at), at);
	}
	buf_fini(&now);
}

static void kill_see_nothing_left(void)
{
	uint64_t end = clock_mono_ns() + KILL_OUTPUT_MS * UINT64_C(1000000);
	char line[600];

	if (!is_spore)
		unlink(address + 7); /* runc's delete leaves it */
	for (kill_leak(line, sizeof line); *line; kill_leak(line, sizeof line)) {
		expect(clock_mono_ns() < end, "left behind: %s", line);
		raw_pause(20);
	}
}

/* Nobody holds the outputs open, so whoever reads them sees the end. */
static void kill_see_streams_end(void)
{
	for (unsigned i = 1; i < ARRAY_LEN(kill_fds); i += 2) {
		struct buf b = raw_read_all(kill_fds[i]);

		buf_fini(&b);
	}
}

/* As containerd does when the connection is gone: always, and always last. */
static void kill_see_delete_program(void)
{
	struct raw_ran r = raw_program("c1", "delete", NULL, 0);
	Ctd__DeleteResponse *d = ctd__delete_response__unpack(NULL, r.out.len, r.out.data);

	/* runc's fails where there is nothing to delete. */
	expect(!is_spore || (r.status == 0 && d && d->exit_status == 137), "delete: status %d, %zu bytes, '%s'",
	       r.status, r.out.len, (char *)r.err.data);
	if (d)
		ctd__delete_response__free_unpacked(d, NULL);
	buf_fini(&r.out);
	buf_fini(&r.err);
}

/* ---- What a client sees */

static void kill_see_shim_dead(void)
{
	raw_await_death(shim_pid, "the shim");
	for (unsigned i = 0; i < KILL_RPCS; i++) {
		if (kill_calls[i].begun)
			raw_end_of(&kill_calls[i], life[i].name);
	}
	if (conn) /* its end was not read yet */
		ttrpc_close(conn);
	conn = NULL;
	kill_see_delete_program();
	if (kill_task)
		raw_await_death(kill_task, "the task");
}

static unsigned kill_waited(const struct raw_call *call) /* the status */
{
	Ctd__WaitResponse *w = ctd__wait_response__unpack(NULL, call->packed.len, call->packed.data);
	unsigned status;

	expect(call->code == TTRPC_OK && w, "Wait: %d %s", call->code, call->message);
	expect(!raw_never(w->exited_at), "no time of the exit");
	status = w->exit_status;
	ctd__wait_response__free_unpacked(w, NULL);
	return status;
}

/* Everybody who waits, whenever he began, hears the same. */
static unsigned kill_see_waits(const char *exec_id)
{
	struct raw_call late = { 0 };
	unsigned status;

	kill_ask(&late, &(struct kill_rpc){ "a late Wait", "Wait", exec_id, KILL_WAITED, NULL, 0 });
	raw_end_of(&late, "a late Wait");
	status = kill_waited(&late);
	buf_fini(&late.packed);
	for (unsigned i = 0; i < KILL_RPCS; i++) {
		unsigned other;

		if (life[i].how != KILL_PENDING || strcmp(life[i].exec_id, exec_id) || !kill_calls[i].begun)
			continue;
		raw_end_of(&kill_calls[i], life[i].name);
		other = kill_waited(&kill_calls[i]);
		expect(other == status, "%s says %u, a late one %u", life[i].name, other, status);
	}
	return status;
}

/* What is asked of a container whose task was killed has an answer, soon. */
static void kill_see_dead(unsigned status)
{
	static const struct {
		const char *name;
		int code; /* -1: an error */
	} asked[] = {
		{ "Connect", 0 }, { "Pids", 0 }, { "Stats", TTRPC_NOT_FOUND }, { "ResizePty", 0 },
		{ "CloseIO", 0 }, { "Kill", TTRPC_NOT_FOUND }, { "Pause", -1 }, { "Resume", -1 },
		{ "Update", TTRPC_NOT_FOUND }, { "Exec", -1 }, { "Start of the exec", -1 },
		{ "Kill of the exec", -1 }, { "Start", -1 },
	};
	Ctd__StateResponse *s = raw_state("c1", "");

	expect(s && s->status == CTD__STATUS__STOPPED && s->exit_status == status, "State says %d, %u",
	       s ? (int)s->status : -1, s ? s->exit_status : 0);
	ctd__state_response__free_unpacked(s, NULL);
	for (unsigned i = 0; i < ARRAY_LEN(asked); i++) {
		int code = (int)kill_do(asked[i].name);

		if (is_spore)
			expect(asked[i].code < 0 ? code > 0 : code == asked[i].code, "%s: %d", asked[i].name,
			       code);
	}
	expect(raw_pids("c1", 0) == 0, "there are processes");
}

static void kill_see_delete(unsigned status)
{
	Ctd__DeleteResponse *d;

	if (raw_state("c1", "e1")) {
		struct raw_call *wait = &kill_calls[kill_row("Wait of the exec")];

		if (wait->begun)
			raw_end_of(wait, "Wait of the exec");
		expect(raw_delete("c1", "e1", NULL) == TTRPC_OK, "Delete of the exec");
	}
	expect(raw_delete("c1", "", &d) == TTRPC_OK, "Delete");
	expect(d->exit_status == status, "Delete says %u, Wait %u", d->exit_status, status);
	ctd__delete_response__free_unpacked(d, NULL);
}

/* What the status may be when the task is killed at this request of its life. */
static void kill_check_status(unsigned row, enum kill_moment moment, unsigned status)
{
	const unsigned term = kill_row("Kill"), over = kill_row("Wait of what has ended");
	bool trapped = status == KILL_TRAPPED;

	if (row < term)
		expect(status == 137, "status %u", status);
	else if (row > over || (row == over && moment == KILL_AFTER))
		expect(trapped, "status %u", status);
	else
		expect(trapped || status == 137, "status %u", status);
}

static void kill_see_one_exit(unsigned status)
{
	unsigned n = 0;

	raw_event("/tasks/delete", 0); /* the last */
	for (unsigned i = 0; i < event_count; i++) {
		Ctd__TaskExit *x;

		if (strcmp(events[i].topic, "/tasks/exit"))
			continue;
		x = EVENT(i, TaskExit, task_exit);
		n += !strcmp(x->id, "c1");
		expect(strcmp(x->id, "c1") || x->exit_status == status, "the event says %u", x->exit_status);
		ctd__task_exit__free_unpacked(x, NULL);
	}
	expect(n == 1, "%u events of the exit", n);
}

static void kill_see_task_dead(unsigned row, enum kill_moment moment)
{
	unsigned status;

	if (!is_spore && kill_was_ok("Pause") && !kill_was_ok("Resume"))
		raw_resume_task("c1"); /* what is frozen does not die of it, but a machine does */
	if (kill_was_ok("Delete")) {
		status = kill_waited(&kill_calls[kill_row("Wait of what has ended")]);
		kill_check_status(row, moment, status);
		kill_see_one_exit(status);
	} else if (kill_was_ok("Create")) {
		status = kill_see_waits("");
		kill_check_status(row, moment, status);
		kill_see_dead(status);
		kill_see_delete(status);
		kill_see_one_exit(status);
	}
	expect(raw_delete("c1", "", NULL) == TTRPC_NOT_FOUND, "Delete of what is gone");
	if (!kill_was_ok("Shutdown"))
		expect(raw_shutdown("c1") == TTRPC_OK, "Shutdown");
	raw_await_death(shim_pid, "the shim");
	kill_see_delete_program();
}

/* ---- Tries */

/* The machine that a Create under way has made so far, or 0. */
static pid_t kill_child(void)
{
	char path[64], text[64] = "";
	int fd;

	snprintf(path, sizeof path, "/proc/%d/task/%d/children", shim_pid, shim_pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	expect(fd >= 0, "%s", path);
	(void)!read(fd, text, sizeof text - 1);
	close(fd);
	return (pid_t)atoi(text);
}

static void kill_fifos(struct raw_streams *io, const char *in, const char *out, char paths[2][500],
		       int fds[2])
{
	fds[0] = raw_fifo("c1", in, paths[0], sizeof paths[0], O_RDWR);
	fds[1] = raw_fifo("c1", out, paths[1], sizeof paths[1], O_RDONLY);
	*io = (struct raw_streams){ .in = paths[0], .out = paths[1], .err = paths[1] };
}

/* A SIGTERM before the shell has its trap would end it otherwise, or not at all. */
static void kill_await_trap(void)
{
	char c;

	for (unsigned i = 0; read(kill_fds[1], &c, 1) != 1; i++) {
		expect(i < 500, "the container says nothing");
		raw_pause(10);
	}
}

/* A shim, and the requests before `row` answered. */
static void kill_reach(unsigned row)
{
	static char paths[4][500];

	event_count = id_count = 0;
	kill_task = 0;
	for (unsigned i = 0; i < KILL_RPCS; i++) {
		buf_fini(&kill_calls[i].packed);
		kill_calls[i] = (struct raw_call){ 0 };
	}
	raw_bundle("c1", "trap 'exit 6' TERM; echo ready; sleep 1000 & wait", true, NULL);
	kill_fifos(&kill_io, "in", "out", paths, kill_fds);
	kill_fifos(&kill_exec_io, "exec-in", "exec-out", paths + 2, kill_fds + 2);
	kill_io.terminal = true, kill_io.err = NULL;
	raw_start("c1");
	raw_connect_call("c1");
	for (unsigned i = 0; i <= row; i++) {
		if (i == kill_row("Kill"))
			kill_await_trap();
		if (i == row)
			break;
		kill_begin(i);
		kill_end(i);
		expect(life[i].how == KILL_PENDING || kill_calls[i].code == TTRPC_OK,
		       "%s on the way", life[i].name);
	}
}

static void kill_forget_try(void)
{
	for (unsigned i = 0; i < ARRAY_LEN(kill_fds); i++)
		close(kill_fds[i]);
	close(fifo_fd);
	fifo_fd = -1;
	unlink(raw_path("c1", "log"));
	shim_pid = 0;
}

static void kill_victim(bool the_shim)
{
	pid_t pid = the_shim ? shim_pid : kill_task;

	expect(pid <= 0 || kill(pid, SIGKILL) == 0 || errno == ESRCH, "kill");
}

/* Kill the victim `delay` ms after the request was sent. False: there is none any more. */
static bool kill_during(bool the_shim, unsigned row, unsigned delay)
{
	pid_t pid = the_shim ? shim_pid : kill_task;

	while (!pid && !kill_calls[row].over) { /* Create is making it */
		pid = kill_child();
		loop_step(&loop, 0);
	}
	if (delay)
		raw_pause(delay);
	if (!pid || (kill_calls[row].over && life[row].how != KILL_PENDING))
		return false;
	kill(pid, SIGKILL);
	return true;
}

/* False: the request was answered before the victim was to be killed. */
static bool kill_try(bool the_shim, enum kill_moment moment, unsigned row, unsigned delay)
{
	static const char *const when[] = { "before", "into", "after" };
	bool killed = true;

	snprintf(doing, sizeof doing, "%s killed %u ms %s %s", the_shim ? "shim" : "task", delay, when[moment],
		 life[row].name);
	kill_reach(row);
	if (moment == KILL_BEFORE)
		kill_victim(the_shim);
	kill_begin(row);
	if (moment == KILL_DURING)
		killed = kill_during(the_shim, row, delay);
	kill_end(row);
	/* A machine that dies at its birth is replaced by another. */
	if (moment == KILL_AFTER || !killed || (!the_shim && row == 0 && kill_task))
		kill_victim(the_shim);
	if (the_shim)
		kill_see_shim_dead();
	else
		kill_see_task_dead(row, moment);
	kill_see_streams_end();
	expect(!raw_mounted("c1"), "still mounted");
	kill_see_nothing_left();
	kill_forget_try();
	*doing = 0;
	return killed;
}

/* There is somebody to be killed. */
static bool kill_applies(bool the_shim, enum kill_moment moment, unsigned row)
{
	if (the_shim)
		return true;
	if (row == 0) /* runc's init is not known until it is there */
		return moment == KILL_AFTER || (moment == KILL_DURING && is_spore);
	return row < kill_row("Delete") || (row == kill_row("Delete") && moment != KILL_AFTER);
}

/* A root filesystem that takes a loop device, and one mounted over it. */
static void kill_roots(void)
{
	static char image[300], *options[] = { "loop", "rw" }, *bind[] = { "rbind", "rw" };
	static Ctd__Mount a, b, *mounts[] = { &a, &b };
	char command[400];

	snprintf(image, sizeof image, "%s/image", dir);
	snprintf(command, sizeof command, "PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F -t ext2 %s 256k >&2", image);
	expect(system(command) == 0, "mke2fs");
	raw_mount(&a, "ext4", image, options, 2);
	raw_mount(&b, "bind", root, bind, 2);
	own_mounts = mounts, own_mount_count = 2;
}

static void kill_everywhere(bool the_shim, enum kill_moment moment)
{
	answer_limit = KILL_ANSWER;
	kill_roots();
	kill_seen = kill_look();
	for (unsigned row = 0; row < KILL_RPCS; row++) {
		bool slow = life[row].how == KILL_SLOW && moment == KILL_DURING;
		unsigned delay = 0;

		while (kill_applies(the_shim, moment, row) && kill_try(the_shim, moment, row, delay) && slow)
			delay = getenv("SPORE_CONFORM_SLOW") ? delay + 1 : delay ? 2 * delay : 1;
		see("%s", life[row].name);
	}
}

/* `start` killed at any time: as when the client that containerd runs it for goes away. */
static void case_kill_start(void)
{
	kill_roots();
	kill_seen = kill_look();
	for (unsigned us = 0, over = 0; !over; us += 200) {
		const int null = open("/dev/null", O_RDWR | O_CLOEXEC), nulls[] = { null, null };
		pid_t pid;

		snprintf(doing, sizeof doing, "start killed after %u us", us);
		id_count = 0;
		raw_bundle("c1", "true", false, NULL);
		fflush(stdout);
		pid = fork();
		if (pid == 0)
			raw_exec("c1", "start", null, nulls, nulls);
		usleep(us);
		over = raw_dead(pid);
		kill(pid, SIGKILL);
		proc_wait(pid);
		close(null);
		kill_see_delete_program();
		kill_see_nothing_left();
		kill_forget_try();
	}
	*doing = 0;
}

static void case_kill_shim_before(void) { kill_everywhere(true, KILL_BEFORE); }
static void case_kill_shim_during(void) { kill_everywhere(true, KILL_DURING); }
static void case_kill_shim_after(void) { kill_everywhere(true, KILL_AFTER); }
static void case_kill_task_before(void) { kill_everywhere(false, KILL_BEFORE); }
static void case_kill_task_during(void) { kill_everywhere(false, KILL_DURING); }
static void case_kill_task_after(void) { kill_everywhere(false, KILL_AFTER); }
