/* raw_hooks.c - cases of raw.c: while hooks run, and when who runs them goes. */

#define RAW_HOOK "{\"path\":\"/bin/sh\",\"args\":[\"sh\",\"-c\",\"%s\"]}"

/* A pod of which c1 is the second container; its first runs. `hooks` are members of c1's "hooks". */
static void raw_hooked(const char *hooks)
{
	char more[3000];

	snprintf(more, sizeof more, RAW_GROUP, "sandbox");
	raw_bundle("pod", "exec sleep 1000", false, more);
	raw_start("pod");
	expect(raw_create("pod", NULL, NULL) == TTRPC_OK, "Create");
	raw_connect_call("pod");
	expect(raw_start_process("pod", "") == TTRPC_OK, "Start");
	snprintf(more, sizeof more, RAW_GROUP ",\"hooks\":{%s}", "container", hooks);
	raw_bundle("c1", "exec sleep 1000", false, more);
	raw_start("c1");
}

/* The pid that a hook wrote, once it has. */
static pid_t raw_hook_pid(const char *file)
{
	for (unsigned i = 0; i < 600; i++) {
		char text[32] = "";
		int fd = open(raw_path("c1", file), O_RDONLY | O_CLOEXEC);

		if (fd >= 0) {
			(void)!read(fd, text, sizeof text - 1);
			close(fd);
		}
		if (strchr(text, '\n'))
			return (pid_t)strtol(text, NULL, 10);
		raw_pause(50);
	}
	expect(false, "hook %s does not run", file);
	return 0;
}

/* The hook of `file` waits. The pod's other container is asked everything, and then the hook goes on. */
static void raw_meanwhile(const char *file, struct raw_call *call, const char *exec_id, const char *status)
{
	struct raw_call wait = { 0 };
	Ctd__WaitRequest rq = CTD__WAIT_REQUEST__INIT;

	raw_hook_pid(file);
	expect(!strcmp(raw_status("pod", ""), "RUNNING") && raw_pids("pod", 0) == 1, "%s: the pod", file);
	expect(raw_exec_call("pod", exec_id, "exit 4", NULL, 0) == TTRPC_OK, "Exec");
	rq.id = "pod", rq.exec_id = (char *)exec_id;
	raw_begin(&wait, "Wait", &rq, &ctd__wait_response__descriptor);
	expect(raw_start_process("pod", exec_id) == TTRPC_OK, "Start");
	raw_end_of(&wait, "Wait");
	expect(wait.code == TTRPC_OK && raw_delete("pod", exec_id, NULL) == TTRPC_OK, "%s: the exec", file);
	expect(!strcmp(raw_status("c1", ""), status), "%s: c1 is not %s", file, status);
	expect(!call->over, "%s: answered before the hook has ended", file);
	raw_write(raw_path("c1", "go"), "");
	raw_end_of(call, file);
	unlink(raw_path("c1", "go"));
	expect(call->code == TTRPC_OK, "%s: %s", file, call->message);
}

/* Every stage in turn; the name of the file is the stage. */
static void case_hooks(void)
{
	static const char *const stages[] = { "prestart", "createRuntime", "poststart", "poststop" };
	char hooks[2000] = "", script[400];
	Ctd__StartRequest start = CTD__START_REQUEST__INIT;
	Ctd__DeleteRequest del = CTD__DELETE_REQUEST__INIT;
	struct raw_call call = { 0 };

	for (unsigned i = 0; i < ARRAY_LEN(stages); i++) {
		size_t n = strlen(hooks);

		snprintf(script, sizeof script,
			 "echo $$ >%s/c1/%s; until [ -e %s/c1/go ]; do sleep 0.1; done; rm %s/c1/go", dir,
			 stages[i], dir, dir);
		snprintf(hooks + n, sizeof hooks - n, "%s\"%s\":[" RAW_HOOK "]", n ? "," : "", stages[i],
			 script);
	}
	raw_hooked(hooks);
	raw_begin_create(&call, "c1", NULL);
	raw_hook_pid("prestart");
	raw_write(raw_path("c1", "go"), "");
	raw_meanwhile("createRuntime", &call, "e1", "CREATED");
	start.id = "c1";
	raw_begin(&call, "Start", &start, &ctd__start_response__descriptor);
	raw_meanwhile("poststart", &call, "e2", "CREATED");
	raw_kill("c1", "", SIGKILL, true);
	raw_wait("c1", "");
	del.id = "c1";
	raw_begin(&call, "Delete", &del, &ctd__delete_response__descriptor);
	raw_meanwhile("poststop", &call, "e3", "STOPPED");
	expect(raw_event("/tasks/start", 1) < raw_event("/tasks/delete", 0), "events");
	expect(!strcmp(raw_status("pod", ""), "RUNNING"), "the pod");
	expect(raw_state("c1", "") == NULL, "c1 is still there");
	raw_finish("pod");
}

/* Delete, Kill, SIGTERM, SIGKILL: whatever ends a hook's shim, or the Create it is part of, ends it and its
 * children. */
static void case_hooks_end(void)
{
	char hooks[800], script[400];

	snprintf(script, sizeof script, "sleep 1000 & echo $! >%s/c1/hook; wait", dir);
	snprintf(hooks, sizeof hooks, "\"createRuntime\":[" RAW_HOOK "]", script);
	for (unsigned way = 0; way < 4; way++) {
		struct raw_call call = { 0 };
		pid_t pod, hook;

		raw_hooked(hooks);
		unlink(raw_path("c1", "hook"));
		pod = shim_pid;
		raw_begin_create(&call, "c1", NULL);
		hook = raw_hook_pid("hook");
		if (way == 0)
			expect(raw_delete("c1", "", NULL) == TTRPC_NOT_FOUND, "Delete");
		else if (way == 1)
			expect(raw_kill("c1", "", SIGKILL, false) == TTRPC_OK, "Kill");
		else
			kill(pod, way == 2 ? SIGTERM : SIGKILL);
		raw_await_death(hook, "the hook's child");
		if (way < 2) {
			raw_end_of(&call, "Create");
			expect(strstr(call.message, "createRuntime hooks: given up"), "%s", call.message);
			expect(!strcmp(raw_status("pod", ""), "RUNNING"), "the pod");
			expect(raw_state("c1", "") == NULL, "c1 is still there");
			raw_finish("pod");
		}
		raw_await_death(pod, "the shim");
		raw_delete_binary("c1", &(struct buf){ 0 });
		raw_delete_binary("pod", &(struct buf){ 0 });
		expect(!raw_mounted("c1") && !raw_mounted("pod"), "still mounted");
		unlink(raw_path("c1", "log"));
		unlink(raw_path("pod", "log"));
		id_count = 0;
	}
	shim_pid = 0;
}

/* What is being deleted is not started any more: the hooks of both would run, and what they belong to go. */
static void case_start_deleted(void)
{
	Ctd__StartRequest start = CTD__START_REQUEST__INIT;
	Ctd__DeleteRequest del = CTD__DELETE_REQUEST__INIT;
	struct raw_call starting = { 0 }, deleting = { 0 };
	char hooks[400];

	snprintf(hooks, sizeof hooks, "\"poststart\":[" RAW_HOOK "],\"poststop\":[" RAW_HOOK "]", "sleep 1",
		 "sleep 1");
	raw_hooked(hooks);
	expect(raw_create("c1", NULL, NULL) == TTRPC_OK, "Create");
	del.id = start.id = "c1";
	raw_begin(&deleting, "Delete", &del, &ctd__delete_response__descriptor);
	raw_begin(&starting, "Start", &start, &ctd__start_response__descriptor);
	raw_end_of(&starting, "Start");
	expect(starting.code == TTRPC_NOT_FOUND, "Start: %d %s", starting.code, starting.message);
	raw_end_of(&deleting, "Delete");
	expect(deleting.code == TTRPC_OK, "Delete: %s", deleting.message);
	expect(raw_state("c1", "") == NULL, "c1 is still there");
	expect(!strcmp(raw_status("pod", ""), "RUNNING"), "the pod");
	raw_finish("pod");
}
