#include "amalgam/base/proc.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "tests/unit/test.h"

static pid_t tproc_sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_NAME, "a) b (c) 1");
		for (;;)
			pause();
	}
	return pid;
}

TEST(proc_start_time_names_one_process)
{
	pid_t pid = tproc_sleeper();
	uint64_t start;

	usleep(10000); /* it has given itself a name that is hard to parse */
	start = proc_start_time(pid);
	CHECK(start > 0);
	CHECK(start >= proc_start_time(getpid()));
	CHECK(proc_alive(pid, start));
	CHECK(!proc_alive(pid, start + 1));
	CHECK(!proc_alive(pid, 0));
	CHECK(!proc_alive(0, start));
	kill(pid, SIGKILL);
	CHECK(proc_wait(pid) >= 0);
	CHECK(!proc_alive(pid, start));
	CHECK_EQ(proc_start_time(pid), 0);
}

TEST(proc_pidfd_becomes_readable_at_the_end)
{
	pid_t pid = tproc_sleeper();
	struct pollfd p = { .fd = proc_pidfd(pid), .events = POLLIN };
	int status;

	CHECK(p.fd >= 0);
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_EQ(proc_pidfd_kill(p.fd, SIGTERM), 0);
	CHECK_EQ(poll(&p, 1, 5000), 1);
	status = proc_wait(pid);
	CHECK_EQ(proc_exit_code(status), 128 + SIGTERM);
	CHECK_EQ(proc_pidfd_kill(p.fd, SIGTERM), -ESRCH);
	CHECK_EQ(proc_pidfd(pid), -ESRCH);
}

TEST(proc_exit_code_is_as_in_shells)
{
	static const int codes[] = { 0, 1, 127, 255 };

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		pid_t pid = fork();
		if (pid == 0)
			_exit(codes[i]);
		CHECK_EQ(proc_exit_code(proc_wait(pid)), codes[i]);
	}
}

static void tproc_on_signal(int sig)
{
	(void)sig;
}

TEST(proc_wait_goes_on_after_a_signal)
{
	struct sigaction sa = { .sa_handler = tproc_on_signal };
	pid_t pid;

	sigaction(SIGUSR1, &sa, NULL);
	pid = fork();
	if (pid == 0) {
		usleep(10000);
		kill(getppid(), SIGUSR1);
		usleep(10000);
		_exit(3);
	}
	CHECK_EQ(proc_exit_code(proc_wait(pid)), 3);
	CHECK_EQ(proc_wait(pid), -ECHILD);
}

TEST(proc_oom_score_from_is_the_parents_plus_one_up_to_1000)
{
	static const struct {
		const char *parent, *own;
	} rows[] = { { "5", "6\n" }, { "999", "1000\n" }, { "1000", "1000\n" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF struct buf b = { 0 };
		pid_t pid = tproc_sleeper();
		AUTO_FREE char *path = mem_printf("/proc/%d/oom_score_adj", pid);
		CHECK_EQ(path_put(path, rows[i].parent), 0);
		CHECK_EQ(proc_oom_score_from(pid), 0);
		CHECK_EQ(path_read("/proc/self/oom_score_adj", 64, &b, NULL), 0);
		CHECK_STR(buf_cstr(&b), rows[i].own);
		kill(pid, SIGKILL);
		CHECK(proc_wait(pid) >= 0);
		CHECK_EQ(proc_oom_score_from(pid), -ENOENT);
	}
}
