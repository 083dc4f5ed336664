#include "amalgam/base/job.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "tests/unit/test.h"

static int tjob_run(const char *path, const char *script, struct buf *words, uint64_t timeout_s)
{
	char *argv[] = { "sh", "-c", (char *)script, NULL }, *env[] = { NULL };
	const struct job_spec s = { .path = path, .argv = argv, .env = env, .timeout_s = timeout_s,
				    .max_words = 16 };

	return job_run(&s, words);
}

TEST(job_run_tells_how_the_program_ended_and_what_it_complained)
{
	AUTO_BUF struct buf words = { 0 };

	CHECK_EQ(proc_exit_code(tjob_run("/bin/sh", "exit 4", &words, 0)), 4);
	CHECK_EQ(words.len, 0);
	CHECK_EQ(tjob_run("/bin/sh", "echo no; echo 0123456789abcdefgh >&2", &words, 0), 0);
	CHECK_STR(buf_cstr(&words), "0123456789abcdef"); /* and no more than asked for */
	CHECK_EQ(proc_exit_code(tjob_run("sh", "exit 5", &words, 0)), 5); /* found in PATH */
	CHECK_EQ(tjob_run("/no/such", "", &words, 0), -ENOENT);
	CHECK_EQ(tjob_run("no-such", "", &words, 0), -ENOENT);
	CHECK_EQ(tjob_run("/bin/sh", "while :; do :; done", &words, 1), -ETIMEDOUT);
	CHECK_EQ(proc_wait(-1), -ECHILD); /* nothing left */
}

TEST(job_run_works_for_who_has_closed_its_own_descriptors)
{
	AUTO_BUF struct buf words = { 0 };
	pid_t pid = fork();

	if (pid == 0) {
		char *argv[] = { "sh", "-c", "read a && echo $a >&2", NULL }, *env[] = { NULL };
		const struct job_spec s = { .path = "/bin/sh", .argv = argv, .env = env, .in = "x\n",
					    .nin = 2, .max_words = 16 };
		fd_close_from(0);
		_exit(job_run(&s, &words) == 0 && words.len == 2 && words.data[0] == 'x' ? 7 : 8);
	}
	CHECK_EQ(proc_exit_code(proc_wait(pid)), 7);
}

TEST(job_signals_that_a_program_sends_its_group_are_no_end_of_the_keeper)
{
	AUTO_BUF struct buf words = { 0 };

	CHECK_EQ(proc_exit_code(tjob_run("/bin/sh", "trap '' USR1 HUP; kill -USR1 0; kill -HUP 0; exit 6",
					 &words, 0)), 6);
	CHECK_EQ(tjob_run("/bin/sh", "kill -TERM 0; sleep 1000", &words, 0), SIGTERM);
	CHECK_EQ(tjob_run("/bin/sh", "kill -KILL 0", &words, 0), SIGKILL);
	CHECK_EQ(tjob_run("/bin/sh", "kill -STOP 0", &words, 1), -ETIMEDOUT);
}

/* What runs in the background: its pid, written by the program. */
static pid_t tjob_wait_pid(void)
{
	AUTO_FREE char *path = mem_printf("%s/pid", test_dir());

	for (unsigned i = 0; i < 1000; i++) {
		AUTO_BUF struct buf b = { 0 };
		if (path_read(path, 64, &b, NULL) == 0 && b.len > 1 && b.data[b.len - 1] == '\n')
			return (pid_t)strtol(buf_cstr(&b), NULL, 10);
		usleep(10000);
	}
	CHECK(!"the program has not started");
	return 0;
}

static bool tjob_goes(pid_t pid)
{
	for (unsigned i = 0; i < 1000; i++) {
		AUTO_FREE char *path = mem_printf("/proc/%d/stat", pid);
		AUTO_BUF struct buf b = { 0 };
		if (path_read(path, 1024, &b, NULL) < 0 || strstr(buf_cstr(&b), ") Z "))
			return true;
		usleep(10000);
	}
	return false;
}

static void tjob_over(struct job *j, int r)
{
	j->why = r; /* where the tests look */
	loop_stop(j->loop);
}

static void tjob_begin(struct job *j, struct loop *l)
{
	AUTO_FREE char *script = mem_printf("sleep 1000 & echo $! >%s/pid; wait", test_dir());
	char *argv[] = { "sh", "-c", script, NULL }, *env[] = { NULL };
	const struct job_spec s = { .path = "/bin/sh", .argv = argv, .env = env };

	CHECK_EQ(loop_init(l), 0);
	CHECK_EQ(job_begin(j, l, &s, tjob_over), 0);
}

TEST(job_kill_ends_the_whole_group_and_is_told_of)
{
	struct loop l;
	struct job j;
	pid_t child;

	tjob_begin(&j, &l);
	child = tjob_wait_pid();
	job_kill(&j, -ECANCELED);
	CHECK_EQ(loop_run(&l), 0);
	CHECK_EQ(j.why, -ECANCELED);
	CHECK(tjob_goes(child));
	job_fini(&j);
	CHECK_EQ(proc_wait(-1), -ECHILD);
	loop_fini(&l);
}

TEST(job_fini_ends_the_whole_group_at_any_moment_and_over_is_not_called)
{
	struct loop l;
	struct job j = { 0 };

	job_fini(&j); /* of nothing */
	for (unsigned i = 0; i < 20; i++) {
		AUTO_FREE char *path = mem_printf("%s/pid", test_dir());
		pid_t group, child = 0;

		tjob_begin(&j, &l);
		group = j.pid;
		if (i % 2)
			child = tjob_wait_pid();
		job_fini(&j);
		CHECK_EQ(loop_step(&l, 50), 0);
		(void)proc_wait(group);
		CHECK(!child || tjob_goes(child));
		loop_fini(&l);
		unlink(path);
	}
}

TEST(job_group_does_not_outlive_who_began_it)
{
	pid_t owner, child;

	test_dir(); /* before it is anybody else's */
	owner = fork();
	if (owner == 0) {
		struct loop l;
		struct job j;
		tjob_begin(&j, &l);
		loop_run(&l);
		_exit(0);
	}
	child = tjob_wait_pid();
	kill(owner, SIGKILL);
	CHECK_EQ(proc_wait(owner), SIGKILL);
	CHECK(tjob_goes(child));
}
