/* raw_more.c - streams, resources, and ends of every kind. Part of raw.c; sentences: raw_list.def. */

static enum ttrpc_code raw_close_io(const char *id, const char *exec_id)
{
	Ctd__CloseIORequest req = CTD__CLOSE_IOREQUEST__INIT;

	req.id = (char *)id, req.exec_id = (char *)exec_id;
	req.in = true;
	return raw_do("CloseIO", &req);
}

static enum ttrpc_code raw_resize(const char *id, const char *exec_id, unsigned columns, unsigned rows)
{
	Ctd__ResizePtyRequest req = CTD__RESIZE_PTY_REQUEST__INIT;

	req.id = (char *)id, req.exec_id = (char *)exec_id;
	req.width = columns, req.height = rows;
	return raw_do("ResizePty", &req);
}

static enum ttrpc_code raw_pause_task(const char *id)
{
	Ctd__PauseRequest req = CTD__PAUSE_REQUEST__INIT;

	req.id = (char *)id;
	return raw_do("Pause", &req);
}
static enum ttrpc_code raw_resume_task(const char *id)
{
	Ctd__ResumeRequest req = CTD__RESUME_REQUEST__INIT;

	req.id = (char *)id;
	return raw_do("Resume", &req);
}

/* A container with three fifos, our ends open; started. */
struct raw_piped {
	char in_path[500], out_path[500];
	int in, out;
};
static void raw_up_piped(struct raw_piped *p, const char *id, const char *script)
{
	struct raw_streams io = { .in = p->in_path, .out = p->out_path, .err = p->out_path };

	raw_bundle(id, script, false, NULL);
	p->out = raw_fifo(id, "out", p->out_path, sizeof p->out_path, O_RDONLY);
	p->in = raw_fifo(id, "in", p->in_path, sizeof p->in_path, O_RDWR);
	raw_start(id);
	expect(raw_create(id, &io, NULL) == TTRPC_OK, "Create");
	raw_connect_call(id);
	expect(raw_start_process(id, "") == TTRPC_OK, "Start");
}

/* Write n bytes to a descriptor that does not block, serving meanwhile and reading what comes back. */
static void raw_feed(int fd, size_t n)
{
	char block[4096];

	memset(block, 'x', sizeof block);
	for (size_t sent = 0, tries = 0; sent < n;) {
		size_t part = n - sent < sizeof block ? n - sent : sizeof block;
		ssize_t w = write(fd, block, part);

		if (w > 0)
			sent += (size_t)w, tries = 0;
		else
			raw_pause(10), tries++;
		expect(tries < 2000, "nobody reads the input after %zu bytes", sent);
	}
}

static void case_close_io(void)
{
	struct raw_piped p;
	struct buf b;

	raw_up_piped(&p, "c1", "sleep 1; wc -c");
	raw_feed(p.in, 40000); /* more than is read before the program looks, less than the pipe holds */
	see("CloseIO %d", raw_close_io("c1", ""));
	see("again %d", raw_close_io("c1", ""));
	expect(raw_close_io("c1", "nobody") != TTRPC_OK, "CloseIO of no exec"); /* runc says 2, we 5 */
	close(p.in);
	b = raw_read_all(p.out);
	see("%s", (char *)b.data);
	see("exit %u", raw_wait("c1", "")->exit_status);
	see("after the end %d", raw_close_io("c1", ""));
	raw_finish("c1");
}

static void case_eof(void)
{
	struct raw_piped p;
	struct buf b;

	raw_up_piped(&p, "c1", "seq 30000; exit 2");
	b = raw_read_all(p.out);
	see("%zu bytes, the last line is %s", b.len, (char *)b.data + b.len - 6);
	see("exit %u %s", raw_wait("c1", "")->exit_status, raw_status("c1", ""));
	raw_finish("c1");
}

static void case_client_gone(void)
{
	struct raw_piped p;
	char got[100] = "";

	raw_up_piped(&p, "c1", "while read line; do echo got $line; done; echo end");
	(void)!write(p.in, "one\n", 4);
	raw_pause(1000);
	see("%zd", read(p.out, got, sizeof got));
	close(p.in);
	close(p.out);
	raw_pause(500);
	see("%s", raw_status("c1", ""));
	p.out = open(p.out_path, O_RDONLY | O_NONBLOCK);
	p.in = open(p.in_path, O_WRONLY | O_NONBLOCK);
	expect(p.in >= 0, "nobody reads the input any more");
	(void)!write(p.in, "two\n", 4);
	raw_pause(1000);
	memset(got, 0, sizeof got);
	(void)!read(p.out, got, sizeof got - 1);
	see("%s", got);
	raw_finish("c1");
}

static void case_stuck(void)
{
	struct raw_piped p;

	raw_up_piped(&p, "c1", "yes");
	raw_pause(2000);
	see("%s", raw_status("c1", ""));
	see("kill %d", raw_kill("c1", "", SIGKILL, false));
	see("exit %u", raw_wait("c1", "")->exit_status);
	close(p.out);
	raw_finish("c1");
}

static void case_terminal(void)
{
	char path[500];
	struct raw_streams io = { .out = path, .terminal = true };
	struct buf b;
	int fd;

	raw_bundle("c1", "sleep 1; stty size; test -t 0 && echo tty >&2; sleep 1", true, NULL);
	fd = raw_fifo("c1", "out", path, sizeof path, O_RDONLY);
	raw_start("c1");
	expect(raw_create("c1", &io, NULL) == TTRPC_OK, "Create");
	raw_connect_call("c1");
	see("created %d", raw_resize("c1", "", 0, 0));
	expect(raw_start_process("c1", "") == TTRPC_OK, "Start");
	see("running %d", raw_resize("c1", "", 91, 37));
	b = raw_read_all(fd);
	see("%s", (char *)b.data);
	raw_wait("c1", "");
	see("ended %d", raw_resize("c1", "", 1, 1));
	raw_finish("c1");
}

static void case_pause(void)
{
	raw_up("c1", "exec sleep 1000", NULL);
	expect(raw_resume_task("c1") != TTRPC_OK, "resumed what runs");
	see("pause %d %s", raw_pause_task("c1"), raw_status("c1", ""));
	expect(raw_pause_task("c1") != TTRPC_OK, "paused twice");
	expect(raw_exec_call("c1", "e1", "true", NULL, 0) != TTRPC_OK, "exec in the paused");
	raw_pids("c1", 0);
	see("resume %d %s", raw_resume_task("c1"), raw_status("c1", ""));
	see("pause %d", raw_pause_task("c1"));
	see("kill %d", raw_kill("c1", "", SIGKILL, false));
	see("exit %u", raw_wait("c1", "")->exit_status);
	raw_event("/tasks/exit", 0);
	see_events();
	raw_finish("c1");
}

static void see_stats(const char *when, uint64_t *cpu)
{
	Ctd__StatsRequest req = CTD__STATS_REQUEST__INIT;
	Ctd__StatsResponse *res;
	Cgm__V2Metrics *m;

	req.id = "c1";
	raw_ok("Stats", &req, &ctd__stats_response__descriptor, &res);
	expect(res->stats, "nothing");
	m = cgm__v2_metrics__unpack(NULL, res->stats->value.len, res->stats->value.data);
	expect(m && m->cpu && m->memory && m->pids, "parts are missing");
	expect(m->cpu->usage_usec >= *cpu, "CPU time went back");
	*cpu = m->cpu->usage_usec;
	see("%s: %s cpu %d memory %d pids %d limit %d", when, res->stats->type_url, m->cpu->usage_usec > 0,
	    m->memory->usage > 0, m->pids->current > 0, m->memory->usage_limit > 0);
}

static void case_stats(void)
{
	Ctd__StatsRequest req = CTD__STATS_REQUEST__INIT;
	uint64_t cpu = 0;

	req.id = "c1";
	raw_up("c1", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000", NULL);
	raw_pause(500);
	see_stats("running", &cpu);
	raw_pause_task("c1");
	see_stats("paused", &cpu);
	raw_resume_task("c1");
	see_stats("resumed", &cpu);
	raw_kill("c1", "", SIGKILL, false);
	raw_wait("c1", "");
	raw_delete("c1", "", NULL);
	see("deleted %d", raw_do("Stats", &req));
	raw_shutdown("c1");
	raw_await_death(shim_pid, "the shim");
}

static void case_update(void)
{
	static char text[] = "{\"memory\":{\"limit\":134217728,\"swap\":134217728},"
		"\"cpu\":{\"shares\":512}}", none[] = "{}";
	Ctd__UpdateTaskRequest req = CTD__UPDATE_TASK_REQUEST__INIT;
	Ctd__Any any = CTD__ANY__INIT;

	raw_up("c1", "exec sleep 1000", NULL);
	req.id = "c1", req.resources = &any;
	any.type_url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
	any.value.data = (uint8_t *)text, any.value.len = strlen(text);
	see("%d", raw_do("Update", &req));
	any.value.data = (uint8_t *)none, any.value.len = 2;
	see("%d", raw_do("Update", &req));
	raw_finish("c1");
}

static void case_pipelined(void)
{
	struct raw_call calls[40] = { 0 }, waiting = { 0 };
	Ctd__StateRequest req = CTD__STATE_REQUEST__INIT;
	unsigned good = 0;

	raw_up("c1", "exec sleep 1000", NULL);
	req.id = "c1";
	raw_begin(&waiting, "Wait", &req, &ctd__wait_response__descriptor);
	for (unsigned i = 0; i < ARRAY_LEN(calls); i++)
		raw_begin(&calls[i], "State", &req, &ctd__state_response__descriptor);
	for (unsigned i = 0; i < ARRAY_LEN(calls); i++) {
		raw_end_of(&calls[i], "State");
		good += calls[i].code == TTRPC_OK;
	}
	see("%u, Wait is over: %d", good, waiting.over);
	raw_kill("c1", "", SIGKILL, false);
	raw_end_of(&waiting, "Wait");
	raw_finish("c1");
}

static void case_shutdown_alive(void)
{
	raw_up("c1", "exec sleep 1000", NULL);
	see("%d", raw_shutdown("c1"));
	raw_pause(500);
	see("%s", raw_status("c1", ""));
	raw_finish("c1");
}

static void case_shutdown_last(void)
{
	raw_up("c1", "true", NULL);
	raw_wait("c1", "");
	raw_delete("c1", "", NULL);
	see("%d", raw_shutdown("c1"));
	raw_await_death(shim_pid, "the shim");
	see("socket %s", access(address + 7, F_OK) ? "gone" : "there");
	see("events %u", raw_event("/tasks/delete", 0) > 0);
}

static void case_cancelled(void)
{
	struct raw_call create = { 0 };
	enum ttrpc_code code;
	char cgroup[400];

	for (int after = 0; after <= 60; after += 20) {
		char id[] = { 'c', (char)('0' + after / 20), 0 };

		raw_bundle(id, "exec sleep 1000", false, NULL);
		raw_start(id);
		raw_connect_call(id);
		raw_begin_create(&create, id, NULL);
		raw_pause((unsigned)after);
		raw_connect();
		for (int tries = 0; tries < 50; tries++) { /* it may answer only when Create is over */
			code = raw_delete(id, "", NULL);
			if (code == TTRPC_OK || code == TTRPC_NOT_FOUND) {
				raw_shutdown(id);
				raw_pause(100);
				if (raw_dead(shim_pid))
					break;
				expect(conn || raw_dead(shim_pid), "the connection ended, the shim did not");
			} else {
				raw_kill(id, "", SIGKILL, true);
				raw_pause(100);
			}
		}
		raw_await_death(shim_pid, "the shim");
		shim_pid = 0;
		raw_delete_binary(id, &(struct buf){ 0 });
		expect(!raw_mounted(id), "still mounted");
		if (!is_spore) { /* runc's may leave it when Delete meets Create */
			snprintf(cgroup, sizeof cgroup, "/sys/fs/cgroup/%s/%s", ns, id);
			rmdir(cgroup);
		}
		see("after %d ms: gone", after);
	}
}

static void case_delete_binary(void)
{
	pid_t pid = raw_up("c1", "exec sleep 1000", NULL);
	Ctd__DeleteResponse *d;
	struct buf out;

	kill(shim_pid, SIGKILL);
	raw_await_death(shim_pid, "the shim");
	for (int i = 0; i < 2; i++) {
		if (i) /* half of the bundle is gone */
			unlink(raw_path("c1", "config.json"));
		raw_delete_binary("c1", &out);
		d = ctd__delete_response__unpack(NULL, out.len, out.data);
		expect(d, "%zu bytes are no DeleteResponse", out.len);
		see("status %u, exited %d", d->exit_status, !raw_never(d->exited_at));
		expect(i > 0 || (pid_t)d->pid == pid, "pid %u", d->pid);
		raw_await_death(pid, "the task");
		expect(!raw_mounted("c1"), "still mounted");
		expect(access(address + 7, F_OK) != 0 || !is_spore, "the socket is there");
	}
	raw_bundle("c2", "true", false, NULL);
	raw_delete_binary("c2", &out);
	d = ctd__delete_response__unpack(NULL, out.len, out.data);
	/* runc's has nothing to say about it. */
	expect(!is_spore || (d && d->exit_status == 137), "delete of what never started");
}

#define RAW_GROUP                                                   \
	"\"annotations\":{\"io.kubernetes.cri.sandbox-id\":\"pod\"," \
	"\"io.kubernetes.cri.container-type\":\"%s\"}"

static void case_group(void)
{
	char sandbox[200], inner[200], text[300] = "";
	struct raw_ran r;
	struct buf out;
	pid_t pod;

	snprintf(sandbox, sizeof sandbox, RAW_GROUP, "sandbox");
	snprintf(inner, sizeof inner, RAW_GROUP, "container");
	raw_bundle("pod", "exec sleep 1000", false, sandbox);
	raw_start("pod");
	expect(raw_create("pod", NULL, NULL) == TTRPC_OK, "Create");
	raw_connect_call("pod");
	expect(raw_start_process("pod", "") == TTRPC_OK, "Start");
	pod = shim_pid;
	raw_bundle("c1", "exec sleep 1000", false, inner);
	r = raw_program("c1", "start", NULL, 0);
	see("start %d, the same address: %d", r.status, !strcmp((char *)r.out.data, address));
	expect(read(open(raw_path("c1", "address"), O_RDONLY), text, sizeof text - 1) > 0, "no address file");
	see("and in its file: %d", !strcmp(text, address));
	raw_connect();
	expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "Create");
	expect(raw_start_process("c1", "") == TTRPC_OK, "Start");
	raw_connect_call("c1");
	see("one shim: %d", shim_pid == pod);
	raw_kill("c1", "", SIGKILL, true);
	see("exit %u", raw_wait("c1", "")->exit_status);
	see("delete %d shutdown %d", raw_delete("c1", "", NULL), raw_shutdown("c1"));
	raw_delete_binary("c1", &out);
	see("the sandbox is %s", raw_status("pod", ""));
	raw_finish("pod");
}

/* As containerd 2.x does with a shim of version 3: a connection of its own, and Delete is the last word. */
static void case_group_member(void)
{
	char sandbox[200], inner[200], rootfs[500];
	pid_t task;

	snprintf(sandbox, sizeof sandbox, RAW_GROUP, "sandbox");
	snprintf(inner, sizeof inner, RAW_GROUP, "container");
	if (is_spore)
		service = RAW_V3;
	raw_bundle("pod", "exec sleep 1000", false, sandbox);
	raw_start("pod");
	expect(raw_create("pod", NULL, NULL) == TTRPC_OK, "Create");
	task = raw_connect_call("pod");
	expect(raw_start_process("pod", "") == TTRPC_OK, "Start");
	raw_bundle("c1", "exec sleep 1000", false, inner);
	snprintf(rootfs, sizeof rootfs, "%s", raw_path("c1", "rootfs"));
	for (unsigned i = 0; i < 3; i++) {
		snprintf(doing, sizeof doing, "time %u", i);
		raw_connect();
		expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "Create");
		expect(raw_start_process("c1", "") == TTRPC_OK, "Start");
		see("kill %d", raw_kill("c1", "", SIGKILL, true));
		see("exit %u", raw_wait("c1", "")->exit_status);
		see("delete %d", raw_delete("c1", "", NULL));
		expect(!raw_mounted("c1"), "still mounted");
		/* A share that is still open would keep it from being removed. */
		expect(rmdir(rootfs) == 0 && mkdir(rootfs, 0711) == 0, "%s: %s", rootfs, strerror(errno));
		expect(access("/sys/fs/cgroup/raw/c1", F_OK) != 0, "the cgroup is there");
		see("again %d", raw_delete("c1", "", NULL));
		see("the sandbox is %s", raw_status("pod", ""));
	}
	*doing = 0;
	raw_connect();
	expect(raw_connect_call("pod") == task, "another task");
	id_count = 1; /* nobody calls `delete` for the other */
	raw_finish("pod");
}

static void case_group_race(void)
{
	char sandbox[200];
	struct raw_ran r[2];
	int p[2];

	snprintf(sandbox, sizeof sandbox, RAW_GROUP, "sandbox");
	raw_bundle("pod", "exec sleep 1000", false, sandbox);
	raw_bundle("c1", "exec sleep 1000", false, sandbox);
	expect(pipe2(p, O_CLOEXEC) == 0, "pipe");
	fflush(stdout);
	if (fork() == 0) {
		r[1] = raw_program("c1", "start", NULL, 0);
		(void)!write(p[1], r[1].out.data, r[1].out.len + 1);
		_exit(0);
	}
	r[0] = raw_program("pod", "start", NULL, 0);
	(void)!read(p[0], address, sizeof address);
	see("%d %d", r[0].status, !strcmp((char *)r[0].out.data, address));
	raw_connect();
	raw_connect_call("pod");
	expect(raw_create("pod", NULL, NULL) == TTRPC_OK, "Create");
	raw_finish("pod");
}

static void case_events_later(void)
{
	raw_up("c1", "sleep 1; exit 6", NULL);
	raw_event("/tasks/start", 0);
	raw_events_close();
	raw_wait("c1", "");
	raw_pause(500);
	raw_events_open();
	see("%u", EVENT(raw_event("/tasks/exit", 0), TaskExit, task_exit)->exit_status);
	raw_finish("c1");
}

static void case_term(void)
{
	pid_t task = raw_up("c1", "exec sleep 1000", NULL);

	kill(shim_pid, SIGTERM);
	raw_await_death(shim_pid, "the shim");
	raw_delete_binary("c1", &(struct buf){ 0 });
	raw_await_death(task, "the task");
	expect(!raw_mounted("c1"), "still mounted");
}

/* ---- Root filesystems and cgroups */

static void raw_mount(Ctd__Mount *m, const char *type, const char *source, char **options, size_t n)
{
	ctd__mount__init(m);
	m->type = (char *)type, m->source = (char *)source;
	m->options = options, m->n_options = n;
}

/* Run it on these mounts, to its end. */
static void raw_run_on(const char *id, const char *script, Ctd__Mount **mounts, size_t n)
{
	char path[500];
	struct raw_streams io = { .out = path, .err = path };
	struct buf b;
	int fd;

	own_mounts = mounts, own_mount_count = n;
	raw_bundle(id, script, false, NULL);
	fd = raw_fifo(id, "out", path, sizeof path, O_RDONLY);
	raw_start(id);
	expect(raw_create(id, &io, NULL) == TTRPC_OK, "Create");
	raw_connect_call(id);
	expect(raw_start_process(id, "") == TTRPC_OK, "Start");
	b = raw_read_all(fd);
	see("%s", (char *)b.data);
	see("exit %u", raw_wait(id, "")->exit_status);
	raw_finish(id);
	own_mounts = NULL;
}

/* As the overlay snapshotter gives it, and one over the other. */
static void case_stacked(void)
{
	char lower[300], upper[300], work[300], second[400];
	char *overlay[] = { "index=off", work, upper, lower }, *bind[] = { "rbind", "ro" };
	Ctd__Mount a, b, *mounts[] = { &a, &b };

	snprintf(second, sizeof second, "%s/u", dir);
	mkdir(second, 0755);
	snprintf(second, sizeof second, "%s/w", dir);
	mkdir(second, 0755);
	snprintf(lower, sizeof lower, "lowerdir=%s", root);
	snprintf(upper, sizeof upper, "upperdir=%s/u", dir);
	snprintf(work, sizeof work, "workdir=%s/w", dir);
	raw_mount(&a, "overlay", "overlay", overlay, 4);
	raw_run_on("c1", "echo written >/new; cat /new", mounts, 1);
	snprintf(second, sizeof second, "%s/u/new", dir);
	see("on the host: %d", access(second, F_OK) == 0);
	raw_mount(&a, "bind", dir, bind, 1);
	raw_mount(&b, "bind", root, bind, 2);
	raw_run_on("c2", "ls -d /bin; touch /new", mounts, 2);
}

static void case_loop(void)
{
	char image[300], command[800];
	char *options[] = { "loop", "rw" };
	Ctd__Mount a, *mounts[] = { &a };

	snprintf(image, sizeof image, "%s/image", dir);
	snprintf(command, sizeof command, "PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -d %s %s 16M",
		 root, image);
	expect(system(command) == 0, "mke2fs");
	raw_mount(&a, "ext4", image, options, 2);
	raw_run_on("c1", "echo kept >/new; sync", mounts, 1);
	raw_run_on("c2", "cat /new; ls -d /bin", mounts, 1);
}

/* Has the process this file open, whichever mount it came through? */
static bool raw_has_open(pid_t pid, const char *name)
{
	struct stat file, st;
	bool found = false;
	char path[64];
	struct dirent *ent;
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/fd", pid);
	d = opendir(path);
	expect(d && stat(name, &file) == 0, "%s, %s", path, name);
	while ((ent = readdir(d)))
		found |= fstatat(dirfd(d), ent->d_name, &st, 0) == 0 && st.st_dev == file.st_dev &&
			 st.st_ino == file.st_ino;
	closedir(d);
	return found;
}

/* More disks, one after the other, than a machine has room for at a time; every second Create fails. */
static void case_many_disks(void)
{
	char image[300], first[310], command[1200];
	char *rw[] = { "loop", "rw" }, *ro[] = { "loop", "ro" };
	Ctd__Mount a, *mounts[] = { &a };
	pid_t task;

	snprintf(image, sizeof image, "%s/image", dir);
	snprintf(first, sizeof first, "%s.first", image);
	snprintf(command, sizeof command, "PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -d %s %s 16M && "
		 "cp %s %s", root, image, image, first);
	expect(system(command) == 0, "mke2fs");
	raw_mount(&a, "ext4", first, rw, 2);
	own_mounts = mounts, own_mount_count = 1;
	task = raw_up("pod", "exec sleep 1000", NULL);
	/* Each adds a line; one that cannot write only looks. The status is how many there are. */
	raw_bundle("c1", "echo x >>/n; exit `cat /n | wc -l`", false, NULL);
	raw_bundle("c2", "true", false, NULL);
	raw_write(raw_path("c2", "config.json"),
		  "{\"ociVersion\":\"1.0.2\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},"
			"\"args\":[\"nonesuch\"],\"env\":[\"PATH=/bin\"],\"cwd\":\"/\"},"
		  "\"root\":{\"path\":\"rootfs\"},\"linux\":{\"namespaces\":[{\"type\":\"mount\"}]}}");
	for (unsigned i = 1; i <= 40; i++) {
		bool writes = i % 4 != 0;

		raw_mount(&a, "ext4", image, writes ? rw : ro, 2);
		if (i % 2 == 0)
			expect(raw_create("c2", NULL, NULL) != TTRPC_OK, "%u: made of nothing", i);
		expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "%u: Create", i);
		expect(raw_has_open(task, image), "%u: its disk is not open", i);
		expect(raw_start_process("c1", "") == TTRPC_OK, "%u: Start", i);
		expect(raw_wait("c1", "")->exit_status == i - i / 4, "%u: its disk", i);
		expect(raw_delete("c1", "", NULL) == TTRPC_OK, "%u: Delete", i);
		expect(!raw_has_open(task, image), "%u: its disk is still open", i);
	}
	raw_write(raw_path("c1", "config.json"), "");
	expect(raw_create("c1", NULL, NULL) != TTRPC_OK, "made of nothing");
	expect(!raw_has_open(task, image), "what was never made has a disk open");
	own_mounts = NULL;
	raw_bundle("c3", "exec sleep 1000", false, NULL);
	expect(raw_create("c3", NULL, NULL) == TTRPC_OK, "Create");
	expect(raw_has_open(task, first), "the first disk is not open");
	raw_kill("pod", "", SIGKILL, true);
	raw_wait("pod", "");
	expect(raw_delete("pod", "", NULL) == TTRPC_OK, "Delete");
	expect(!raw_has_open(task, first), "the first disk is still open");
	raw_finish("c3");
}

static void case_cgroup(void)
{
	pid_t pid = raw_up("c1", "exec sleep 1000", NULL);
	char path[64], text[400] = "";
	int fd;

	snprintf(path, sizeof path, "/proc/%d/cgroup", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	expect(fd >= 0 && read(fd, text, sizeof text - 1) > 0, "%s", path);
	see("%.12s", text);
	raw_finish("c1");
	expect(access("/sys/fs/cgroup/raw/c1", F_OK) != 0, "the cgroup is there");
}

static void case_no_config(void)
{
	struct raw_ran r;

	raw_bundle("c1", "true", false, NULL);
	unlink(raw_path("c1", "config.json"));
	r = raw_program("c1", "start", NULL, 0);
	expect(r.status == 0 && r.err.len == 0, "status %d '%s'", r.status, (char *)r.err.data);
	snprintf(address, sizeof address, "%s", (char *)r.out.data);
	raw_connect();
	raw_connect_call("c1");
	expect(raw_create("c1", NULL, NULL) != TTRPC_OK, "created from nothing");
	raw_shutdown("c1");
	raw_await_death(shim_pid, "the shim");
}

static void case_checkpoint(void)
{
	Ctd__CheckpointTaskRequest req = CTD__CHECKPOINT_TASK_REQUEST__INIT;

	raw_up("c1", "exec sleep 1000", NULL);
	req.id = "c1", req.path = (char *)dir;
	expect(raw_do("Checkpoint", &req) == TTRPC_UNIMPLEMENTED, "code");
	raw_finish("c1");
}

static void case_guard(void)
{
	raw_bundle("c1", "true", false, NULL);
	raw_start("c1");
	raw_connect_call("c1");
	ttrpc_close(conn);
	conn = NULL;
	unlink(raw_path("c1", "config.json"));
	unlink(raw_path("c1", "log"));
	unlink(raw_path("c1", "address"));
	rmdir(raw_path("c1", "rootfs"));
	rmdir(raw_path("c1", ""));
	for (unsigned i = 0; !raw_dead(shim_pid); i++) {
		expect(i < 180, "a shim without a bundle stays");
		raw_pause(500);
	}
}
