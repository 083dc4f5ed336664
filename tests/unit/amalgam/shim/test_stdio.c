#include "amalgam/shim/stdio.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

/* The paths of one process: <dir>/in, out, err. */
struct tio {
	struct loop loop;
	struct shim_stdio io;
	struct shim_stdio_spec spec;
	char in[160], out[160], err[160];
	int ready, over;
	struct err why;
	struct err e;
};

static char tio_text[70000];

static void tio_start(struct tio *t)
{
	*t = (struct tio){ 0 };
	signal(SIGPIPE, SIG_IGN);
	CHECK_EQ(loop_init(&t->loop), 0);
	snprintf(t->in, sizeof t->in, "%s/in", test_dir());
	snprintf(t->out, sizeof t->out, "%s/out", test_dir());
	snprintf(t->err, sizeof t->err, "%s/err", test_dir());
	t->spec = (struct shim_stdio_spec){ .in = t->in, .out = t->out, .err = t->err,
					    .bundle = test_dir(), .id = "a1", .ns = "default" };
}

static void tio_start_fifos(struct tio *t)
{
	tio_start(t);
	CHECK_EQ(mkfifo(t->in, 0700), 0);
	CHECK_EQ(mkfifo(t->out, 0700), 0);
	CHECK_EQ(mkfifo(t->err, 0700), 0);
}

static void tio_on_ready(void *arg, const struct err *e)
{
	struct tio *t = arg;

	t->ready++;
	if (e)
		t->why = *e;
}

static void tio_on_over(void *arg)
{
	((struct tio *)arg)->over++;
}

static int tio_open(struct tio *t)
{
	return shim_stdio_open(&t->io, &t->loop, &t->spec, tio_on_ready, t, &t->e);
}

static void tio_end(struct tio *t)
{
	shim_stdio_fini(&t->io);
	loop_fini(&t->loop);
}

/* What is there; "" = the end, "(nothing)" = nothing yet. */
static const char *tio_read(int fd)
{
	ssize_t n = read(fd, tio_text, sizeof tio_text - 1);

	CHECK(n >= 0 || errno == EAGAIN);
	tio_text[n > 0 ? n : 0] = '\0';
	return n < 0 ? "(nothing)" : tio_text;
}

static int tio_client(const char *path, int flags)
{
	int fd = open(path, flags | O_NONBLOCK | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static void tio_put(int fd, const char *s)
{
	CHECK_EQ(write(fd, s, strlen(s)), strlen(s));
}

static const char *tio_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	tio_read(fd);
	close(fd);
	return tio_text;
}

/* --- fifos --------------------------------------------------------------------------------------- */

TEST(shim_stdio_input_ends_only_after_close_io_and_when_all_is_read)
{
	struct tio t;
	int client, machine;

	tio_start_fifos(&t);
	CHECK_EQ(tio_open(&t), 0);
	machine = dup(t.io.in_fd);
	shim_stdio_drop_ours(&t.io);
	CHECK_STR(tio_read(machine), "(nothing)");
	client = tio_client(t.in, O_WRONLY);
	tio_put(client, "hello");
	close(client);
	CHECK_STR(tio_read(machine), "hello");
	CHECK_STR(tio_read(machine), "(nothing)"); /* the client has gone; that is not the end */
	client = tio_client(t.in, O_WRONLY);
	tio_put(client, "again");
	close(client);
	shim_stdio_close_in(&t.io);
	shim_stdio_close_in(&t.io);
	CHECK_STR(tio_read(machine), "again");
	CHECK_STR(tio_read(machine), "");
	close(machine);
	tio_end(&t);
}

TEST(shim_stdio_input_goes_on_after_close_io_while_a_client_writes)
{
	struct tio t;
	int client, machine;

	tio_start_fifos(&t);
	CHECK_EQ(tio_open(&t), 0);
	machine = dup(t.io.in_fd);
	client = tio_client(t.in, O_WRONLY);
	shim_stdio_close_in(&t.io);
	CHECK_STR(tio_read(machine), "(nothing)");
	tio_put(client, "late");
	close(client);
	CHECK_STR(tio_read(machine), "late");
	CHECK_STR(tio_read(machine), "");
	close(machine);
	tio_end(&t);
}

TEST(shim_stdio_a_client_that_leaves_does_not_end_the_writer)
{
	struct tio t;
	int client, machine;

	tio_start_fifos(&t);
	CHECK_EQ(tio_open(&t), 0);
	machine = dup(t.io.out_fd);
	shim_stdio_drop_ours(&t.io);
	client = tio_client(t.out, O_RDONLY);
	tio_put(machine, "one");
	CHECK_STR(tio_read(client), "one");
	close(client);
	tio_put(machine, "two"); /* nobody reads; no EPIPE, and it is kept */
	client = tio_client(t.out, O_RDONLY);
	CHECK_STR(tio_read(client), "two");
	CHECK_STR(tio_read(client), "(nothing)");
	close(machine); /* the machine is done, and nobody else has it */
	CHECK_STR(tio_read(client), "");
	close(client);
	tio_end(&t);
}

TEST(shim_stdio_nobody_reading_fills_the_pipe_and_then_it_is_full)
{
	static char lump[4096];
	struct tio t;
	int n = 0;

	tio_start_fifos(&t);
	CHECK_EQ(tio_open(&t), 0);
	while (write(t.io.out_fd, lump, sizeof lump) > 0)
		n++;
	CHECK_EQ(errno, EAGAIN);
	CHECK(n > 0);
	tio_end(&t);
}

TEST(shim_stdio_outputs_are_apart_and_a_terminal_has_one)
{
	struct tio t;
	int client;

	tio_start_fifos(&t);
	CHECK_EQ(tio_open(&t), 0);
	tio_put(t.io.out_fd, "o");
	tio_put(t.io.err_fd, "e");
	CHECK_STR(tio_read(client = tio_client(t.err, O_RDONLY)), "e");
	close(client);
	CHECK(!shim_stdio_close(&t.io, tio_on_over, &t));
	t.spec.terminal = true;
	t.spec.err = NULL;
	CHECK_EQ(tio_open(&t), 0);
	CHECK(t.io.out_fd >= 0 && t.io.err_fd == -1 && t.io.in_fd >= 0);
	tio_end(&t);
}

TEST(shim_stdio_may_be_nothing_at_all)
{
	struct tio t;

	tio_start(&t);
	t.spec.in = t.spec.err = "";
	t.spec.out = NULL;
	CHECK_EQ(tio_open(&t), 0);
	CHECK(t.io.in_fd == -1 && t.io.in_keep_fd == -1 && t.io.out_fd == -1 && t.io.err_fd == -1);
	shim_stdio_close_in(&t.io);
	CHECK(!shim_stdio_close(&t.io, tio_on_over, &t));
	tio_end(&t);
}

TEST(shim_stdio_only_stderr_is_possible)
{
	struct tio t;

	tio_start_fifos(&t);
	t.spec.in = t.spec.out = "";
	CHECK_EQ(tio_open(&t), 0);
	CHECK(t.io.in_fd == -1 && t.io.out_fd == -1 && t.io.err_fd >= 0);
	tio_end(&t);
}

TEST(shim_stdio_fifo_uris_are_fifos)
{
	struct tio t;
	char uri[200];

	tio_start(&t);
	snprintf(t.out, sizeof t.out, "%s/out put", test_dir());
	snprintf(uri, sizeof uri, "fifo://%s/out%%20put", test_dir());
	CHECK_EQ(mkfifo(t.out, 0700), 0);
	t.spec.in = "";
	t.spec.err = t.spec.out = uri;
	CHECK_EQ(tio_open(&t), 0);
	CHECK(t.io.out_fd >= 0 && t.io.err_fd >= 0);
	tio_end(&t);
}

TEST(shim_stdio_a_file_or_device_at_a_plain_path_is_written_to)
{
	struct tio t;

	tio_start(&t);
	close(open(t.out, O_WRONLY | O_CREAT, 0600));
	t.spec.in = t.spec.err = "/dev/null";
	CHECK_EQ(tio_open(&t), 0);
	CHECK(t.io.in_fd >= 0 && t.io.in_keep_fd == -1);
	CHECK_STR(tio_read(t.io.in_fd), "");
	tio_put(t.io.err_fd, "x");
	tio_put(t.io.out_fd, "one ");
	CHECK(!shim_stdio_close(&t.io, tio_on_over, &t));
	CHECK_EQ(tio_open(&t), 0);
	tio_put(t.io.out_fd, "two");
	CHECK_STR(tio_file(t.out), "one two");
	tio_end(&t);
}

TEST(shim_stdio_names_what_it_cannot_open)
{
	char want[256];
	struct tio t;

	tio_start_fifos(&t);
	unlink(t.err);
	CHECK_EQ(tio_open(&t), -ENOENT);
	snprintf(want, sizeof want, "%s: No such file or directory", t.err);
	CHECK_STR(t.e.msg, want);
	CHECK(t.io.in_fd == -1 && t.io.in_keep_fd == -1 && t.io.out_fd == -1);
	t.spec.in = t.spec.out = t.spec.err;
	CHECK_EQ(tio_open(&t), -ENOENT);
	CHECK_STR(t.e.msg, want);
	t.spec.in = "";
	t.spec.out = test_dir();
	CHECK_EQ(tio_open(&t), -EINVAL);
	CHECK_HAS(t.e.msg, ": neither a fifo nor a file nor a device");
	close(open(t.err, O_CREAT | O_WRONLY, 0600));
	t.spec.in = t.err;
	CHECK_EQ(tio_open(&t), -EINVAL);
	CHECK_HAS(t.e.msg, "/err: neither a fifo nor a device");
	t.spec.in = "";
	t.spec.out = "ttrpc+unix:///s";
	CHECK_EQ(tio_open(&t), -EINVAL);
	CHECK_HAS(t.e.msg, "unknown STDIO scheme");
	t.spec.out = t.out;
	t.spec.err = "binary:///bin/true";
	CHECK_EQ(tio_open(&t), -EINVAL);
	CHECK_HAS(t.e.msg, "stderr alone cannot go there");
	t.spec.in = "file:///x";
	CHECK_EQ(tio_open(&t), -EINVAL);
	CHECK_HAS(t.e.msg, "stdin cannot come from there");
	tio_end(&t);
}

TEST(shim_stdio_file_uris_make_the_file_and_take_both_outputs)
{
	char uri[256], path[256];
	struct stat st;
	struct tio t;

	tio_start(&t);
	umask(022);
	snprintf(uri, sizeof uri, "file://%s/a/b%%20c/log", test_dir());
	snprintf(path, sizeof path, "%s/a/b c/log", test_dir());
	t.spec.in = "";
	t.spec.out = t.spec.err = uri;
	CHECK_EQ(tio_open(&t), 0);
	tio_put(t.io.out_fd, "o");
	tio_put(t.io.err_fd, "e");
	tio_put(t.io.out_fd, "o");
	CHECK(!shim_stdio_close(&t.io, tio_on_over, &t));
	t.spec.err = "";
	t.spec.terminal = true;
	CHECK_EQ(tio_open(&t), 0);
	CHECK_EQ(t.io.err_fd, -1);
	tio_put(t.io.out_fd, "+");
	CHECK_STR(tio_file(path), "oeo+");
	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0644);
	*strrchr(path, '/') = '\0';
	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0755);
	tio_end(&t);
}

/* --- loggers ------------------------------------------------------------------------------------- */

/* A shell script as the logger; its output, if any, goes to <dir>/seen. */
static int tio_logger(struct tio *t, const char *scheme, const char *query, const char *script)
{
	static char uri[256], text[2048];
	char path[160];
	int fd;

	snprintf(path, sizeof path, "%s/log ger", test_dir());
	snprintf(text, sizeof text, "#!/bin/bash\n%s\n", script);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	CHECK(fd >= 0);
	tio_put(fd, text);
	close(fd);
	snprintf(uri, sizeof uri, "%s://%s/log%%20ger%s", scheme, test_dir(), query);
	t->spec.in = "";
	t->spec.out = t->spec.err = uri;
	return tio_open(t);
}

static void tio_until(struct tio *t, const int *what)
{
	uint64_t end = clock_mono_ns() + 30 * NS_PER_S;

	while (!*what && clock_mono_ns() < end)
		CHECK_EQ(loop_step(&t->loop, 100), 0);
	CHECK_EQ(*what, 1);
}

static const char *tio_seen(void)
{
	char path[160];

	snprintf(path, sizeof path, "%s/seen", test_dir());
	return tio_file(path);
}

/* Until the logger has written it. */
static void tio_until_file(struct tio *t, const char *want)
{
	char path[160];

	snprintf(path, sizeof path, "%s/seen", test_dir());
	while (access(path, F_OK) < 0 || strcmp(tio_file(path), want) != 0)
		CHECK_EQ(loop_step(&t->loop, 10), 0);
}

TEST(shim_stdio_a_logger_gets_arguments_environment_directory_and_descriptors)
{
	struct tio t;

	tio_start(&t);
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL); /* as a daemon with a signalfd has it */
	setenv("SECRET", "x", 1);
	CHECK_EQ(tio_logger(&t, "binary", "?id=a%26b&mode=x+y",
			    "exec >seen\n"
			    "echo args \"$#\" \"$@\"\n"
			    "pwd\n"
			    "tr '\\0' '\\n' </proc/$$/environ | grep -v '^_=' | sort\n"
			    "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -c1-27 | tr '\\t' ' '\n"
			    "ls /proc/$$/fd >list; echo fds $(grep -v 255 list)\n" /* 255: bash */
			    "printf r >&5; exec 5>&-\n"
			    "cat <&3; cat <&4; echo end"), 1);
	tio_until(&t, &t.ready);
	CHECK_EQ(t.why.code, 0);
	CHECK(t.io.out_fd >= 0 && t.io.err_fd >= 0);
	tio_put(t.io.out_fd, "to stdout\n");
	tio_put(t.io.err_fd, "to stderr\n");
	CHECK(shim_stdio_close(&t.io, tio_on_over, &t));
	tio_until(&t, &t.over);
	CHECK(strncmp(tio_seen(), "args 4 id a&b mode x y\n", 23) == 0);
	CHECK_HAS(tio_text, test_dir());
	CHECK_HAS(tio_text, "\nCONTAINER_ID=a1\nCONTAINER_NAMESPACE=default\n");
	CHECK(!strstr(tio_text, "SECRET"));
	CHECK_HAS(tio_text, "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\n");
	CHECK_HAS(tio_text, "\nfds 0 1 2 3 4 5\n");
	CHECK_HAS(tio_text, "\nto stdout\nto stderr\nend\n");
	tio_end(&t);
}

TEST(shim_stdio_a_logger_of_a_terminal_gets_one_stream)
{
	struct tio t;

	tio_start(&t);
	t.spec.terminal = true;
	CHECK_EQ(tio_logger(&t, "binary", "", "exec 5>&-; cat <&4 >seen; cat <&3 >>seen"), 1);
	tio_until(&t, &t.ready);
	CHECK_EQ(t.io.err_fd, -1);
	tio_put(t.io.out_fd, "tty");
	CHECK(shim_stdio_close(&t.io, tio_on_over, &t));
	tio_until(&t, &t.over);
	CHECK_STR(tio_seen(), "tty");
	tio_end(&t);
}

TEST(shim_stdio_a_logger_that_dies_before_it_is_ready_is_an_error)
{
	static const struct {
		const char *scheme, *script, *why;
	} rows[] = {
		{ "binary", "exit 3", "ended with status 3 before it was ready" },
		{ "binary", "kill -9 $$", "killed by signal 9 before it was ready" },
		{ "binary-v2", "exit 0", "ended before it was ready" },
		{ "binary-v2", "exec 5>&-; sleep 60", "closed its ready pipe without a word" },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct tio t;
		test_note("%s %s", rows[i].scheme, rows[i].script);
		tio_start(&t);
		CHECK_EQ(tio_logger(&t, rows[i].scheme, "", rows[i].script), 1);
		tio_until(&t, &t.ready);
		CHECK_HAS(t.why.msg, "/log ger: ");
		CHECK_HAS(t.why.msg, rows[i].why);
		if (shim_stdio_close(&t.io, tio_on_over, &t))
			tio_until(&t, &t.over);
		CHECK_EQ(t.ready, 1);
		tio_end(&t);
	}
}

TEST(shim_stdio_a_logger_that_leaves_a_child_behind_is_ready_when_the_child_says_so)
{
	struct tio t;

	tio_start(&t);
	CHECK_EQ(tio_logger(&t, "binary", "", "(sleep 0.1; cat <&3 >seen 5>&- & exec 5>&-) & exit 0"), 1);
	tio_until(&t, &t.ready);
	CHECK_STR(t.why.msg, "");
	tio_end(&t);
}

TEST(shim_stdio_a_logger_that_cannot_be_executed_says_why)
{
	struct tio t;

	tio_start(&t);
	t.spec.in = "";
	t.spec.out = "binary:///nonexistent/logger";
	CHECK_EQ(tio_open(&t), 1);
	tio_until(&t, &t.ready);
	CHECK_STR(t.why.msg, "logger /nonexistent/logger: No such file or directory");
	CHECK(!shim_stdio_close(&t.io, tio_on_over, &t));
	tio_end(&t);
}

TEST(shim_stdio_a_logger_that_never_becomes_ready_is_killed)
{
	struct tio t;

	tio_start(&t);
	CHECK_EQ(tio_logger(&t, "binary", "", "trap '' TERM; sleep 1000 & wait; wait"), 1);
	timer_start(&t.loop, &t.io.logger.timer, clock_mono_ns() + 50 * NS_PER_MS,
		    t.io.logger.timer.fn);
	tio_until(&t, &t.ready);
	CHECK_HAS(t.why.msg, "not ready after 10 seconds");
	CHECK(shim_stdio_close(&t.io, tio_on_over, &t));
	tio_until(&t, &t.over);
	CHECK_EQ(t.io.logger.pid, 0);
	CHECK_EQ(t.ready, 1);
	tio_end(&t);
}

TEST(shim_stdio_a_logger_that_does_not_end_is_asked_and_then_killed)
{
	static const char *const scripts[] = {
		"exec 5>&-; exec sleep 1000",                            /* TERM ends it */
		"trap 'echo term >seen' TERM; exec 5>&-; while :; do sleep 0.01; done", /* KILL does */
	};
	for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
		struct tio t;
		tio_start(&t);
		CHECK_EQ(tio_logger(&t, "binary", "", scripts[i]), 1);
		tio_until(&t, &t.ready);
		t.io.logger.eof_ns = 20 * NS_PER_MS;
		t.io.logger.term_ns = 60 * NS_PER_S;
		CHECK(shim_stdio_close(&t.io, tio_on_over, &t));
		if (i) {
			tio_until_file(&t, "term\n");
			timer_start(&t.loop, &t.io.logger.timer, 0, t.io.logger.timer.fn);
		}
		tio_until(&t, &t.over);
		tio_end(&t);
	}
}

TEST(shim_stdio_a_logger_that_died_is_noticed_by_its_writer_only)
{
	struct tio t;

	tio_start(&t);
	CHECK_EQ(tio_logger(&t, "binary", "", "exec 5>&-; exec sleep 1000"), 1);
	tio_until(&t, &t.ready);
	CHECK_EQ(kill(t.io.logger.pid, SIGKILL), 0);
	while (t.io.logger.pid)
		CHECK_EQ(loop_step(&t.loop, 100), 0);
	CHECK_EQ(write(t.io.out_fd, "x", 1), -1);
	CHECK_EQ(errno, EPIPE);
	CHECK(!shim_stdio_close(&t.io, tio_on_over, &t));
	CHECK_EQ(t.ready, 1);
	tio_end(&t);
}

TEST(shim_stdio_a_logger_is_given_up_in_the_middle)
{
	struct tio t;

	tio_start(&t);
	CHECK_EQ(tio_logger(&t, "binary", "", "exec sleep 1000"), 1);
	CHECK(shim_stdio_close(&t.io, tio_on_over, &t)); /* before it is ready */
	tio_end(&t);
	CHECK_EQ(t.io.logger.pid, 0);
	CHECK_EQ(t.ready + t.over, 0);
}
