#include "amalgam/resource/hooks.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/wire/oci_spec.h"
#include "tests/unit/test.h"

/* A script below test_dir(); its path, on the heap. */
static char *thooks_script(const char *name, const char *body)
{
	char *path = mem_printf("%s/%s", test_dir(), name);
	AUTO_FREE char *text = mem_printf("#!/bin/sh\n%s\n", body);
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return path;
}

static char *thooks_read(const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/%s", test_dir(), name);
	struct buf b = { 0 };

	CHECK_EQ(path_read(path, 1 << 20, &b, NULL), 0);
	return buf_take_cstr(&b);
}

struct thooks_wait {
	struct loop loop;
	struct err *e;
	int code;
};

static void thooks_over(void *arg, const struct err *e)
{
	struct thooks_wait *w = arg;

	w->code = e->code;
	if (w->e)
		*w->e = *e;
	loop_stop(&w->loop);
}

static int thooks_await(enum hooks_stage stage, const struct hooks_state *s, struct err *e)
{
	struct thooks_wait w = { .e = e };
	struct hooks h = { 0 };

	CHECK_EQ(loop_init(&w.loop), 0);
	hooks_begin(&h, &w.loop, stage, s, thooks_over, &w);
	CHECK_EQ(loop_run(&w.loop), 0);
	CHECK(!h.active);
	loop_fini(&w.loop);
	return w.code;
}

/* One stage with hooks given as JSON. */
static int thooks_run(enum hooks_stage stage, const char *hooks, struct err *e)
{
	AUTO_FREE char *text =
		mem_printf("{\"ociVersion\":\"1.1.0\",\"annotations\":{\"a\":\"b\\\"c\"},"
			   "\"hooks\":%s}",
			   hooks);
	struct err bad = { 0 };
	Grpc__Spec *spec = oci_spec_parse(text, strlen(text), &bad);
	struct hooks_state s = { spec, "web", test_dir(), 71 };
	int r;

	CHECK_STR(bad.msg, "");
	r = thooks_await(stage, &s, e);
	grpc__spec__free_unpacked(spec, NULL);
	return r;
}

/* The stage's one hook: path, and more members behind it. */
static int thooks_one(enum hooks_stage stage, const char *path, const char *more, struct err *e)
{
	static const char *const names[] = { "prestart", "createRuntime", "poststart", "poststop" };
	AUTO_FREE char *text =
		mem_printf("{\"%s\":[{\"path\":\"%s\"%s}]}", names[stage], path, more);

	return thooks_run(stage, text, e);
}

TEST(hooks_get_the_state_on_their_standard_input)
{
	static const struct {
		enum hooks_stage stage;
		const char *status;
	} rows[] = { { HOOKS_PRESTART, "creating" },
		     { HOOKS_CREATE_RUNTIME, "creating" },
		     { HOOKS_POSTSTART, "running" },
		     { HOOKS_POSTSTOP, "stopped" } };
	AUTO_FREE char *hook = thooks_script("hook", "/bin/cat >state");
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_FREE char *want = mem_printf("{\"ociVersion\":\"1.1.0\",\"id\":\"web\","
						  "\"status\":\"%s\",\"pid\":71,\"bundle\":\"%s\","
						  "\"annotations\":{\"a\":\"b\\\"c\"}}",
						  rows[i].status, test_dir());
		CHECK_EQ(thooks_one(rows[i].stage, hook, "", &e), 0);
		AUTO_FREE char *got = thooks_read("state");
		CHECK_STR(got, want);
	}
}

TEST(hooks_of_other_stages_are_not_run_and_none_is_success)
{
	AUTO_FREE char *hook = thooks_script("hook", "exit 1");
	AUTO_FREE char *all =
		mem_printf("{\"createContainer\":[{\"path\":\"%s\"}],\"startContainer\":"
			   "[{\"path\":\"%s\"}],\"poststart\":[{\"path\":\"%s\"}]}",
			   hook, hook, hook);
	struct err e = { 0 };

	CHECK_EQ(thooks_run(HOOKS_PRESTART, all, &e), 0);
	CHECK_EQ(thooks_run(HOOKS_CREATE_RUNTIME, all, &e), 0);
	CHECK_EQ(thooks_run(HOOKS_POSTSTOP, "null", &e), 0);
}

TEST(hooks_have_their_own_arguments_and_environment_and_nothing_of_ours)
{
	AUTO_FREE char *hook = thooks_script(
		"hook", "echo \"$1|$2|$A|$HOME|$OURS\" >got; /bin/ls -l /proc/$$/fd >fds; "
			"pwd >dir; exec /bin/grep -E 'SigBlk|SigIgn' /proc/self/status >signals");
	int leak = open("/dev/null", O_RDONLY); /* not close-on-exec */
	sigset_t block;
	struct err e = { 0 };

	setenv("OURS", "leaked", 1);
	signal(SIGPIPE, SIG_IGN);
	sigfillset(&block);
	sigprocmask(SIG_SETMASK, &block, NULL);
	CHECK_EQ(thooks_one(HOOKS_PRESTART, hook,
			    ",\"args\":[\"name\",\"one\",\"two\"],\"env\":[\"A=1\"]", &e),
		 0);
	sigemptyset(&block);
	sigprocmask(SIG_SETMASK, &block, NULL);
	AUTO_FREE char *got = thooks_read("got"), *fds = thooks_read("fds");
	AUTO_FREE char *signals = thooks_read("signals"), *dir = thooks_read("dir");
	CHECK_STR(got, "one|two|1||\n");
	CHECK(leak > 2);
	CHECK_HAS(fds, " 2 -> pipe:");
	for (int fd = 3; fd < 10; fd++) { /* 10: the script itself, opened by the shell */
		AUTO_FREE char *name = mem_printf(" %d -> ", fd);
		CHECK(!strstr(fds, name));
	}
	CHECK_HAS(signals, "SigBlk:\t0000000000000000");
	CHECK_HAS(signals, "SigIgn:\t0000000000000000");
	AUTO_FREE char *want = mem_printf("%s\n", test_dir());
	CHECK_STR(dir, want);
	close(leak);
}

TEST(hooks_get_args_0_as_given_and_the_path_when_there_are_none)
{
	AUTO_FREE char *dump =
		mem_printf(",\"args\":[\"other\",\"/proc/self/cmdline\",\"%s/cmd\"]", test_dir());
	struct err e = { 0 };

	/* busybox goes by args[0]; a script would lose it */
	if (access("/bin/busybox", X_OK) < 0)
		test_skip("no /bin/busybox");
	CHECK_EQ(thooks_one(HOOKS_PRESTART, "/bin/busybox", dump, &e), -ECHILD);
	CHECK_STR(e.msg, "prestart hook /bin/busybox: exit status 127: other: applet not found");
	CHECK_EQ(thooks_one(HOOKS_PRESTART, "/bin/true", "", &e), 0);
}

TEST(hooks_run_in_order_until_the_first_that_fails)
{
	AUTO_FREE char *a = thooks_script("a", "echo a >>order");
	AUTO_FREE char *b = thooks_script("b", "echo b >>order; echo out; echo broken >&2; exit 3");
	AUTO_FREE char *list = mem_printf(
		"{\"createRuntime\":[{\"path\":\"%s\"},{\"path\":\"%s\"},{\"path\":\"%s\"}]}", a, b,
		a);
	AUTO_FREE char *want = mem_printf("createRuntime hook %s: exit status 3: broken", b);
	struct err e = { 0 };

	CHECK_EQ(thooks_run(HOOKS_CREATE_RUNTIME, list, &e), -ECHILD);
	CHECK_STR(e.msg, want);
	AUTO_FREE char *order = thooks_read("order");
	CHECK_STR(order, "a\nb\n");
}

TEST(hooks_after_the_start_are_all_run_and_their_failures_only_logged)
{
	AUTO_FREE char *a = thooks_script("a", "echo a >>order; exit 1");
	AUTO_FREE char *list = mem_printf("{\"poststop\":[{\"path\":\"%s\"},{\"path\":\"/none\"},"
					  "{\"path\":\"%s\"}]}",
					  a, a);
	AUTO_FREE char *path = mem_printf("%s/log", test_dir());
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct err e = { 0 };

	log_setup(fd, LOG_DEBUG);
	CHECK_EQ(thooks_run(HOOKS_POSTSTOP, list, &e), 0);
	log_setup(-1, LOG_ERROR);
	CHECK_STR(e.msg, "");
	AUTO_FREE char *order = thooks_read("order"), *log = thooks_read("log");
	CHECK_STR(order, "a\na\n");
	CHECK_HAS(log,
		  "level=warning msg=\"hook failed\" container=\"web\" reason=\"poststop hook ");
	CHECK_HAS(log, "poststop hook /none: No such file or directory\"");
}

TEST(hooks_that_cannot_be_executed_are_named)
{
	AUTO_FREE char *plain = thooks_script("plain", "");
	AUTO_FREE char *want = mem_printf("prestart hook %s: Permission denied", plain);
	struct err e = { 0 };

	chmod(plain, 0644);
	CHECK_EQ(thooks_one(HOOKS_PRESTART, plain, "", &e), -EACCES);
	CHECK_STR(e.msg, want);
	CHECK_EQ(thooks_one(HOOKS_PRESTART, "/no/such", "", &e), -ENOENT);
	CHECK_STR(e.msg, "prestart hook /no/such: No such file or directory");
	CHECK_EQ(thooks_one(HOOKS_PRESTART, "/bin/sh", ",\"args\":[\"sh\",\"-c\",\"kill -9 $$\"]",
			    &e),
		 -ECHILD);
	CHECK_STR(e.msg, "prestart hook /bin/sh: ended by signal 9");
}

TEST(hooks_past_their_timeout_are_killed_with_all_their_group)
{
	AUTO_FREE char *hook =
		thooks_script("hook", "/bin/sleep 1000 & echo $! >child; echo hm >&2; wait");
	AUTO_FREE char *want =
		mem_printf("prestart hook %s: killed after its timeout of 1 s: hm", hook);
	struct err e = { 0 };

	CHECK_EQ(thooks_one(HOOKS_PRESTART, hook, ",\"timeout\":1", &e), -ETIMEDOUT);
	CHECK_STR(e.msg, want);
	AUTO_FREE char *child = thooks_read("child"),
		       *proc = mem_printf("/proc/%ld/exe", atol(child));
	CHECK(atol(child) > 1);
	for (int i = 0; i < 500 && access(proc, F_OK) == 0; i++)
		usleep(10000);
	CHECK(access(proc, F_OK) < 0); /* a zombie of somebody else's has no exe any more */
}

TEST(hooks_may_ignore_their_input_and_write_a_lot)
{
	AUTO_FREE char *hook =
		thooks_script("hook", "exec <&-; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); "
				      "echo 0123456789012345678901234567890123456789; "
				      "echo 0123456789012345678901234567890123456789 >&2; "
				      "done; exit 2");
	AUTO_FREE char *want = mem_printf("prestart hook %s: exit status 2: "
					  "0123456789012345678901234567890123456789",
					  hook);
	struct err e = { 0 };

	CHECK_EQ(thooks_one(HOOKS_PRESTART, hook, "", &e), -ECHILD);
	CHECK_STR(e.msg, want);
}

TEST(hooks_words_are_cut_to_one_printable_line)
{
	AUTO_FREE char *hook = thooks_script(
		"hook", "printf '\\n \\033[31mred\\377 \\303\\251\\001\\nmore' >&2; exit 1");
	AUTO_FREE char *want =
		mem_printf("prestart hook %s: exit status 1: ?[31mred? \303\251?", hook);
	AUTO_FREE char *more = thooks_script("more", "printf '%0400d' 7 >&2; exit 1");
	struct err e = { 0 };

	CHECK_EQ(thooks_one(HOOKS_PRESTART, hook, "", &e), -ECHILD);
	CHECK_STR(e.msg, want);
	CHECK_EQ(thooks_one(HOOKS_PRESTART, more, "", &e), -ECHILD);
	CHECK_EQ(strlen(strstr(e.msg, "000")), 199);
}

TEST(hooks_do_not_wait_for_what_a_hook_leaves_running)
{
	AUTO_FREE char *hook = thooks_script("hook", "/bin/sleep 1000 & echo $! >child");
	struct err e = { 0 };

	CHECK_EQ(thooks_one(HOOKS_PRESTART, hook, "", &e), 0);
	AUTO_FREE char *child = thooks_read("child");
	CHECK_EQ(kill((pid_t)atol(child), SIGKILL), 0);
}

TEST(hooks_run_in_the_root_when_the_bundle_is_gone_and_without_a_pid)
{
	AUTO_FREE char *out = mem_printf("pwd >%s/dir; /bin/cat >%s/state", test_dir(), test_dir());
	AUTO_FREE char *hook = thooks_script("hook", out);
	AUTO_FREE char *text = mem_printf("{\"ociVersion\":\"1.0.2\",\"hooks\":{\"poststop\":"
					  "[{\"path\":\"%s\"}]}}",
					  hook);
	Grpc__Spec *spec = oci_spec_parse(text, strlen(text), NULL);
	struct hooks_state s = { spec, "web", "/no/bundle", 0 };

	CHECK_EQ(thooks_await(HOOKS_POSTSTOP, &s, NULL), 0);
	grpc__spec__free_unpacked(spec, NULL);
	AUTO_FREE char *dir = thooks_read("dir"), *state = thooks_read("state");
	CHECK_STR(dir, "/\n");
	CHECK_STR(state, "{\"ociVersion\":\"1.0.2\",\"id\":\"web\",\"status\":\"stopped\","
			 "\"bundle\":\"/no/bundle\",\"annotations\":{}}");
}

static void thooks_no_second(void *arg, const struct err *e)
{
	struct thooks_wait *w = arg;

	CHECK_EQ(w->code, 0); /* once */
	thooks_over(arg, e);
}

TEST(hooks_that_are_given_up_are_killed_and_none_follows_them)
{
	AUTO_FREE char *a = thooks_script("a", "echo a >>order; /bin/sleep 1000 & echo $! >child; wait");
	AUTO_FREE char *b = thooks_script("b", "echo b >>order");
	AUTO_FREE char *text = mem_printf("{\"ociVersion\":\"1.1.0\",\"hooks\":{\"poststop\":["
					  "{\"path\":\"%s\"},{\"path\":\"%s\"}]}}", a, b);
	Grpc__Spec *spec = oci_spec_parse(text, strlen(text), NULL);
	const struct hooks_state s = { spec, "web", test_dir(), 0 };
	AUTO_FREE char *path = mem_printf("%s/child", test_dir());
	struct err e = { 0 };
	struct thooks_wait w = { .e = &e };
	struct hooks h = { 0 };

	CHECK_EQ(loop_init(&w.loop), 0);
	hooks_stop(&h); /* none */
	hooks_begin(&h, &w.loop, HOOKS_POSTSTOP, &s, thooks_no_second, &w);
	while (access(path, F_OK) < 0) /* the loop goes on while a hook runs */
		CHECK_EQ(loop_step(&w.loop, 10), 0);
	hooks_stop(&h);
	CHECK_EQ(loop_run(&w.loop), 0);
	CHECK_EQ(w.code, -ECANCELED);
	CHECK_STR(e.msg, "poststop hooks: given up");
	CHECK(!h.active);
	AUTO_FREE char *order = thooks_read("order");
	CHECK_STR(order, "a\n");

	w.code = 0; /* before the first, and without being told */
	hooks_begin(&h, &w.loop, HOOKS_POSTSTOP, &s, thooks_no_second, &w);
	hooks_stop(&h);
	CHECK_EQ(loop_run(&w.loop), 0);
	CHECK_EQ(w.code, -ECANCELED);
	hooks_begin(&h, &w.loop, HOOKS_POSTSTOP, &s, thooks_no_second, &w);
	CHECK_EQ(loop_step(&w.loop, 0), 0);
	hooks_fini(&h);
	CHECK_EQ(loop_step(&w.loop, 50), 0);
	grpc__spec__free_unpacked(spec, NULL);
	loop_fini(&w.loop);
}
