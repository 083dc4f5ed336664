/* raw_cases.c - how a shim starts and what its methods say. Part of raw.c; sentences: raw_list.def. */

static void case_address(void)
{
	/* What containerd 1.6.20 was seen to compute for this address, namespace and id. */
	static const char want[] =
		"unix:///run/containerd/s/b06fb43eabae9be14ad6cef61010a9864cc528f35c3a86047fec37b2a165f5a2";
	struct raw_ran r;
	struct stat st;
	char text[300] = "";
	int fd;

	strcpy(ns, "default");
	raw_bundle("a1", "true", false, NULL);
	r = raw_program("a1", "start", NULL, 0);
	see("status %d, '%s'", r.status, (char *)r.out.data);
	expect(!strcmp((char *)r.out.data, want), "%s", (char *)r.out.data);
	expect(r.err.len == 0, "stderr has '%s'", (char *)r.err.data);
	strcpy(address, want);
	expect(stat(want + 7, &st) == 0, "no socket");
	see("socket %o", st.st_mode);
	fd = open(raw_path("a1", "address"), O_RDONLY);
	expect(fd >= 0 && read(fd, text, sizeof text) == (ssize_t)strlen(want),
		"the address file holds '%s'", text);
	see("file '%s'", text);
	raw_connect();
	see("task %d", raw_connect_call("a1"));
	expect(raw_shutdown("a1") == TTRPC_OK, "Shutdown");
	raw_await_death(shim_pid, "the shim");
	see("socket %s", access(want + 7, F_OK) ? "gone" : "there");
}

static void case_long_names(void)
{
	char id[77];

	memset(ns, 'n', 76);
	memset(id, 'i', 76);
	id[76] = ns[76] = 0;
	raw_up(id, "exec sleep 1000", NULL);
	see("%zu", strlen(address));
	raw_finish(id);
}

static void case_no_reader(void)
{
	raw_bundle("c1", "exit 3", false, NULL);
	raw_start("c1");
	raw_connect_call("c1");
	close(fifo_fd);
	fifo_fd = -1;
	expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "Create");
	raw_start_process("c1", "");
	see("%u", raw_wait("c1", "")->exit_status);
	raw_finish("c1");
}

static void raw_start_with(const void *bytes, size_t n)
{
	struct raw_ran r;

	raw_bundle("c1", "exec sleep 1000", false, NULL);
	r = raw_program("c1", "start", bytes, n);
	expect(r.status == 0 && r.err.len == 0, "status %d '%s' '%s'", r.status, (char *)r.out.data,
		(char *)r.err.data);
	snprintf(address, sizeof address, "%s", (char *)r.out.data);
	see("%.25s", address);
	raw_connect();
	expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "Create");
	raw_connect_call("c1");
	raw_finish("c1");
}

static void case_any_input(void)
{
	/* Any { "containerd.runc.v1.Options", "" } as 1.6 sends it */
	static const char bytes[] = "\x0a\x1a" "containerd.runc.v1.Options";

	raw_start_with(bytes, sizeof bytes - 1);
}
static void case_any_unknown(void)
{
	static const char bytes[] = "\x0a\x0d" "example.v9.No" "\x12\x05\xff\xff\xff\xff\xff";

	raw_start_with(bytes, sizeof bytes - 1);
}

static void case_bootstrap(void)
{
	Ctd__BootstrapParams p = CTD__BOOTSTRAP_PARAMS__INIT;
	Ctd__Extension x = CTD__EXTENSION__INIT, *xs[] = { &x };
	Ctd__Any any = CTD__ANY__INIT;
	uint8_t bytes[1000];

	p.instance_id = "c1", p.namespace_ = ns;
	p.log_level = -4;
	p.containerd_version = "2.3.4";
	p.containerd_ttrpc_address = event_path, p.containerd_grpc_address = RAW_GRPC;
	p.containerd_binary = "/usr/bin/containerd";
	p.socket_dir = "/run/containerd/s";
	any.type_url = "runtimeoptions.v1.Options";
	x.value = &any;
	p.n_extensions = 1, p.extensions = xs;
	raw_start_with(bytes, ctd__bootstrap_params__pack(&p, bytes));
}

static void case_descriptors(void)
{
	int p[2];
	char c;

	expect(pipe(p) == 0, "pipe"); /* not close-on-exec: whoever is started has both ends */
	raw_bundle("c1", "true", false, NULL);
	raw_start("c1");
	close(p[1]);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	expect(read(p[0], &c, 1) == 0, "the shim still holds a pipe of ours");
	raw_connect_call("c1");
	raw_shutdown("c1");
	raw_await_death(shim_pid, "the shim");
	see("closed");
}

static void case_oom_score(void)
{
	char path[64], text[16] = "", own[] = "77";
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);

	expect(write(fd, own, 2) == 2, "oom_score_adj");
	close(fd);
	raw_bundle("c1", "true", false, NULL);
	raw_start("c1");
	raw_connect_call("c1");
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", shim_pid);
	fd = open(path, O_RDONLY);
	expect(read(fd, text, sizeof text - 1) > 0, "%s", path);
	see("%d", atoi(text));
	raw_shutdown("c1");
	raw_await_death(shim_pid, "the shim");
}

static void case_version(void)
{
	struct raw_ran r = raw_program("x", "-v", NULL, 0);

	expect(r.out.len > 0, "nothing");
	see("%d", r.status);
}

static void case_info(void)
{
	struct raw_ran r = raw_program("x", "-info", NULL, 0);
	Ctd__RuntimeInfo *info = ctd__runtime_info__unpack(NULL, r.out.len, r.out.data);

	expect(r.status == 0 && info, "status %d, %zu bytes", r.status, r.out.len);
	see("%s %zu annotations", info->name, info->n_annotations);
	expect(r.err.len == 0, "%s", (char *)r.err.data);
}

static void case_probes(void)
{
	static const uint8_t header[] = { 0, 0, 0, 200, 0, 0, 0, 1, 1, 0, 'x' };
	static const uint8_t wrong[] = { 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 'x' };

	raw_up("c1", "exec sleep 1000", NULL);
	for (int i = 0; i < 5; i++)
		close(raw_socket());
	for (int i = 0; i < 3; i++) {
		int fd = raw_socket();

		(void)!write(fd, header, sizeof header);
		close(fd);
		fd = raw_socket();
		(void)!write(fd, wrong, sizeof wrong);
		close(fd);
	}
	see("%s", raw_status("c1", ""));
	ttrpc_close(conn); /* now there is none at all */
	conn = NULL;
	raw_pause(300);
	raw_connect();
	see("%s", raw_status("c1", ""));
	raw_finish("c1");
}

static void case_v3(void)
{
	raw_up("c1", "exec sleep 1000", NULL);
	service = RAW_V3;
	see("%s", raw_status("c1", ""));
	raw_finish("c1");
}

static void case_unknown(void)
{
	Ctd__StateRequest req = CTD__STATE_REQUEST__INIT;

	req.id = "c1";
	raw_up("c1", "exec sleep 1000", NULL);
	see("%d", raw_do("NoSuchMethod", &req));
	service = "containerd.task.v9.Task";
	see("%d", raw_do("State", &req));
	service = "containerd.runtime.sandbox.v1.Sandbox";
	see("%d", raw_do("PingSandbox", &req));
	service = RAW_TASK;
	raw_finish("c1");
}

static void case_connect_unknown(void)
{
	raw_bundle("c1", "true", false, NULL);
	raw_start("c1");
	see("before Create: %d", raw_connect_call("c1"));
	see("another: %d", raw_connect_call("nobody"));
	expect(raw_shutdown("c1") == TTRPC_OK, "Shutdown");
	raw_await_death(shim_pid, "the shim");
}

static void case_not_found(void)
{
	static const char *const methods[] = { "State", "Wait", "Kill", "Delete", "Pause", "Resume",
		"CloseIO", "ResizePty",
					       "Pids", "Stats", "Start", "Exec" };
	Ctd__StateRequest req = CTD__STATE_REQUEST__INIT; /* field 1 is the id in all of them */

	raw_up("c1", "exec sleep 1000", NULL);
	for (unsigned i = 0; i < ARRAY_LEN(methods); i++) {
		req.id = "nobody";
		see("%s %d", methods[i], raw_do(methods[i], &req));
		if (i < 3 || i == 7) { /* these know execs; so does CloseIO, where runc says 2 */
			req.id = "c1", req.exec_id = "nobody";
			see("%s of an exec %d", methods[i], raw_do(methods[i], &req));
			req.exec_id = "";
		}
	}
	raw_finish("c1");
}

static void see_state(const char *id, const char *exec_id)
{
	Ctd__StateResponse *s = raw_state(id, exec_id);

	if (!s) {
		see("no state: %.8s", last_message);
		return;
	}
	see("id %s status %d bundle %d stdin '%s' terminal %d exit %u exec '%s' %s", s->id, s->status,
	    strstr(s->bundle, dir) == s->bundle, s->stdin_path, s->terminal, s->exit_status, s->exec_id,
	    raw_never(s->exited_at) ? "not exited" : "exited");
}

static void case_life(void)
{
	Ctd__DeleteResponse *d;
	Ctd__WaitResponse *w;
	Ctd__StateResponse *s;
	Ctd__TaskExit *x;
	pid_t pid;

	raw_bundle("c1", "sleep 1; exit 7", false, NULL);
	raw_start("c1");
	expect(raw_create("c1", NULL, &pid) == TTRPC_OK, "Create");
	expect(raw_connect_call("c1") == pid, "Connect");
	see_state("c1", "");
	raw_pids("c1", pid);
	expect(raw_start_process("c1", "") == TTRPC_OK, "Start");
	see_state("c1", "");
	raw_pids("c1", pid);
	see("delete of the running %d", raw_delete("c1", "", NULL));
	w = raw_wait("c1", "");
	see("exit %u", w->exit_status);
	see_state("c1", "");
	s = raw_state("c1", "");
	expect(!strcmp(raw_time(s->exited_at), raw_time(w->exited_at)), "%s %s",
		raw_time(s->exited_at), raw_time(w->exited_at));
	see("pids after exit %u", raw_pids("c1", 0));
	expect(raw_delete("c1", "", &d) == TTRPC_OK, "Delete");
	expect((pid_t)d->pid == pid && d->exit_status == 7, "pid %u status %u", d->pid, d->exit_status);
	expect(!strcmp(raw_time(d->exited_at), raw_time(w->exited_at)), "%s %s",
		raw_time(d->exited_at), raw_time(w->exited_at));
	expect(!raw_mounted("c1"), "still mounted");
	see("again %d", raw_delete("c1", "", NULL));
	see_state("c1", "");
	x = EVENT(raw_event("/tasks/exit", 0), TaskExit, task_exit);
	expect(!strcmp(raw_time(x->exited_at), raw_time(w->exited_at)), "the event says %s",
		raw_time(x->exited_at));
	see("event: %s %s %u", x->container_id, x->id, x->exit_status);
	expect((pid_t)x->pid == pid, "pid %u", x->pid);
	raw_event("/tasks/delete", 0);
	see_events();
	expect(raw_shutdown("c1") == TTRPC_OK, "Shutdown");
	raw_await_death(shim_pid, "the shim");
}

static void case_waits(void)
{
	struct raw_call calls[8] = { 0 };
	Ctd__WaitRequest req = CTD__WAIT_REQUEST__INIT;
	const char *first = NULL;

	req.id = "c1";
	raw_bundle("c1", "sleep 1; exit 9", false, NULL);
	raw_start("c1");
	expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "Create");
	raw_connect_call("c1");
	for (unsigned i = 0; i < 8; i++) {
		if (i == 4)
			expect(raw_start_process("c1", "") == TTRPC_OK, "Start");
		raw_begin(&calls[i], "Wait", &req, &ctd__wait_response__descriptor);
	}
	see("%s", raw_status("c1", ""));
	for (unsigned i = 0; i < 8; i++) {
		Ctd__WaitResponse *w;

		raw_end_of(&calls[i], "Wait");
		w = ctd__wait_response__unpack(NULL, calls[i].packed.len, calls[i].packed.data);
		expect(w && calls[i].code == 0, "%s", calls[i].message);
		see("%u", w->exit_status);
		first = i ? first : strdup(raw_time(w->exited_at));
		expect(!strcmp(first, raw_time(w->exited_at)), "%s %s", first, raw_time(w->exited_at));
	}
	expect(!strcmp(first, raw_time(raw_wait("c1", "")->exited_at)), "a late Wait says another time");
	raw_finish("c1");
}

static void case_create_missing(void)
{
	raw_bundle("c1", "true", false, NULL);
	raw_write(raw_path("c1", "config.json"),
		  "{\"ociVersion\":\"1.0.2\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},"
			"\"args\":[\"nonesuch\"],\"env\":[\"PATH=/bin\"],"
		  "\"cwd\":\"/\"},\"root\":{\"path\":\"rootfs\"},"
			"\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"}],"
		  "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"mount\"},"
			"{\"type\":\"network\"}]}}");
	raw_start("c1");
	raw_connect_call("c1");
	see("%d", raw_create("c1", NULL, NULL));
	expect(strstr(last_message, "executable file not found in $PATH"), "words");
	expect(!raw_mounted("c1"), "still mounted");
	see("%d", raw_delete("c1", "", NULL));
	expect(raw_shutdown("c1") == TTRPC_OK, "Shutdown");
	raw_await_death(shim_pid, "the shim");
	see_events();
}

static void case_create_twice(void)
{
	raw_up("c1", "exec sleep 1000", NULL);
	expect(raw_create("c1", NULL, NULL) != TTRPC_OK, "created twice");
	expect(raw_start_process("c1", "") != TTRPC_OK, "started twice");
	see("%s", raw_status("c1", ""));
	/* runc mounts a second time before it looks; that is not what is tested */
	umount2(raw_path("c1", "rootfs"), MNT_DETACH);
	raw_kill("c1", "", SIGKILL, true);
	raw_wait("c1", "");
}

static void case_kill_created(void)
{
	Ctd__WaitResponse *w;

	raw_bundle("c1", "exec sleep 1000", false, NULL);
	raw_start("c1");
	expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "Create");
	raw_connect_call("c1");
	see("kill %d", raw_kill("c1", "", SIGKILL, false));
	w = raw_wait("c1", "");
	see("exit %u", w->exit_status);
	see("delete %d", raw_delete("c1", "", NULL));
	raw_shutdown("c1");
	raw_await_death(shim_pid, "the shim");
}

static void case_kill_codes(void)
{
	raw_up("c1", "trap : USR1; while :; do sleep 0.1; done", NULL);
	see("exec %d", raw_exec_call("c1", "e1", "exec sleep 1000", NULL, 0));
	see("unstarted %d", raw_kill("c1", "e1", SIGTERM, false));
	raw_start_process("c1", "e1");
	see("started %d", raw_kill("c1", "e1", SIGTERM, false));
	see("exit %u", raw_wait("c1", "e1")->exit_status);
	see("dead exec %d", raw_kill("c1", "e1", SIGTERM, false));
	see("handler %d", raw_kill("c1", "", SIGUSR1, false));
	raw_pause(300);
	see("%s", raw_status("c1", ""));
	see("all %d", raw_kill("c1", "", SIGKILL, true));
	see("exit %u", raw_wait("c1", "")->exit_status);
	see("dead %d", raw_kill("c1", "", SIGKILL, false));
	see("delete exec %d", raw_delete("c1", "e1", NULL));
	raw_finish("c1");
}

static void case_exec_life(void)
{
	char path[500];
	struct raw_streams io = { .out = path, .err = path };
	Ctd__DeleteResponse *d;
	Ctd__TaskExit *x;
	struct buf b;
	int fd;

	raw_up("c1", "exec sleep 1000", NULL);
	fd = raw_fifo("c1", "out", path, sizeof path, O_RDONLY);
	expect(raw_exec_call("c1", "e1", "echo hello; exit 5", &io, 0) == TTRPC_OK, "Exec");
	see_state("c1", "e1");
	expect(raw_start_process("c1", "e1") == TTRPC_OK, "Start");
	see("exit %u", raw_wait("c1", "e1")->exit_status);
	b = raw_read_all(fd);
	see("%s", (char *)b.data);
	see_state("c1", "e1");
	expect(raw_delete("c1", "e1", &d) == TTRPC_OK, "Delete");
	see("delete %u", d->exit_status);
	see_state("c1", "e1");
	x = EVENT(raw_event("/tasks/exit", 0), TaskExit, task_exit);
	see("event %s %s %u", x->container_id, x->id, x->exit_status);
	see_events();
	see("container %s", raw_status("c1", ""));
	raw_finish("c1");
}

static void case_exec_codes(void)
{
	raw_up("c1", "exec sleep 1000", NULL);
	see("exec %d", raw_exec_call("c1", "e1", "true", NULL, 0));
	see("again %d", raw_exec_call("c1", "e1", "true", NULL, 0));
	see("delete unstarted %d", raw_delete("c1", "e1", NULL));
	see("again %d", raw_exec_call("c1", "e1", "exec sleep 1000", NULL, 0));
	see("start %d", raw_start_process("c1", "e1"));
	expect(raw_start_process("c1", "e1") != TTRPC_OK, "started twice");
	expect(raw_delete("c1", "e1", NULL) != TTRPC_OK, "deleted while it runs");
	raw_kill("c1", "e1", SIGKILL, false);
	see("exit %u", raw_wait("c1", "e1")->exit_status);
	see("delete %d", raw_delete("c1", "e1", NULL));
	see("delete again %d", raw_delete("c1", "e1", NULL));
	raw_finish("c1");
}

static void case_exec_big(void)
{
	raw_up("c1", "exec sleep 1000", NULL);
	expect(raw_exec_call("c1", "e1", "exit 4", NULL, (4u << 20) - 2000) == TTRPC_OK, "Exec");
	expect(raw_start_process("c1", "e1") == TTRPC_OK, "Start");
	see("%u", raw_wait("c1", "e1")->exit_status);
	raw_finish("c1");
}

static void case_too_big(void)
{
	static uint8_t frame[10 + (4u << 20) + 1];
	uint32_t n = (4u << 20) + 1;
	uint8_t answer[500];
	struct ttrpc_response_envelope r;
	size_t sent = 0, got = 0;
	int fd;

	raw_up("c1", "exec sleep 1000", NULL);
	fd = raw_socket();
	frame[0] = (uint8_t)(n >> 24), frame[1] = (uint8_t)(n >> 16), frame[2] = (uint8_t)(n >> 8),
		frame[3] = (uint8_t)n;
	frame[7] = 1, frame[8] = 1;
	while (sent < sizeof frame) {
		ssize_t w = write(fd, frame + sent, sizeof frame - sent);

		expect(w > 0, "the shim stopped reading after %zu bytes", sent);
		sent += (size_t)w;
	}
	while (got < 10 || got < 10u + (size_t)(answer[2] << 8 | answer[3])) {
		ssize_t w = read(fd, answer + got, sizeof answer - got);

		expect(w > 0, "no answer");
		got += (size_t)w;
	}
	expect(ttrpc_response_get(answer + 10, got - 10, &r) == 0, "answer");
	see("%d", r.code);
	close(fd);
	see("%s", raw_status("c1", ""));
	raw_finish("c1");
}

static void case_exec_dies_first(void)
{
	Ctd__TaskExit *x;

	raw_up("c1", "sleep 1; exit 3", NULL);
	for (int i = 0; i < 3; i++) {
		char id[] = { 'e', (char)('1' + i), 0 };

		raw_exec_call("c1", id, "exec sleep 1000", NULL, 0);
		expect(raw_start_process("c1", id) == TTRPC_OK, "Start");
	}
	see("exit %u", raw_wait("c1", "")->exit_status);
	see("exec's exit %u", raw_wait("c1", "e2")->exit_status);
	x = EVENT(raw_event("/tasks/exit", 3), TaskExit, task_exit);
	if (is_spore) /* runc's shim learned it later than 1.6.20 */
		expect(!strcmp(x->id, "c1"), "the last exit is of %s", x->id);
	raw_finish("c1");
}
