#include "amalgam/base/proc.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"

uint64_t proc_start_time(pid_t pid)
{
	char path[64], text[1024];
	ssize_t n;
	char *p;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (n = read(fd, text, sizeof text - 1)) <= 0)
		return 0;
	text[n] = '\0';
	/* The command name may hold spaces and parentheses: count fields from the last ')'. */
	p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	return p ? strtoull(p, NULL, 10) : 0;
}

bool proc_alive(pid_t pid, uint64_t start_time)
{
	return pid > 0 && start_time != 0 && proc_start_time(pid) == start_time;
}

int proc_pidfd(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);
	return fd < 0 ? -errno : (int)fd;
}

int proc_pidfd_kill(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int proc_exit_code(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

int proc_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status;
}

int proc_oom_score_from(pid_t parent)
{
	AUTO_BUF struct buf b = { 0 };
	char text[64];
	long score;
	int r;

	snprintf(text, sizeof text, "/proc/%d/oom_score_adj", parent);
	r = path_read(text, 64, &b, NULL);
	if (r < 0)
		return r;
	score = MIN(strtol(buf_cstr(&b), NULL, 10) + 1, 1000);
	snprintf(text, sizeof text, "%ld", score);
	r = path_put("/proc/self/oom_score_adj", text);
	return r == -EACCES || r == -EPERM ? 0 : r;
}

/* ---- Programs run to their end. */

/* In the child: never returns. `failed` takes the errno when there is no program to become. */
static NORETURN void proc_run_exec(const struct proc_run *r, int in, int null, int err, int failed)
{
	int from[] = { in, null, err, failed }, code;
	sigset_t none;

	setpgid(0, 0);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* First out of the way: who started us may have closed 0, 1 or 2. */
	for (int i = 0; i < 4; i++)
		from[i] = fcntl(from[i], F_DUPFD, 10);
	for (int i = 0; i < 4; i++)
		dup2(from[i], i);
	fcntl(3, F_SETFD, FD_CLOEXEC);
	fd_close_from(4);
	if (chdir(r->cwd ? r->cwd : "/") == 0) {
		if (strchr(r->path, '/'))
			execve(r->path, r->argv, r->env);
		else
			execvpe(r->path, r->argv, r->env);
	}
	code = errno;
	_exit(write(3, &code, sizeof code) == sizeof code ? 127 : 126);
}

/* What has been written so far; false when nobody will write any more. */
static bool proc_run_words(int fd, struct buf *words, size_t *left)
{
	uint8_t piece[4096];
	ssize_t n = read(fd, piece, sizeof piece);

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	buf_add(words, piece, MIN((size_t)n, *left));
	*left -= MIN((size_t)n, *left);
	return true;
}

/* 0 when the process has ended (it is not waited for), -ETIMEDOUT. */
static int proc_run_watch(int pidfd, int err, uint64_t timeout_s, struct buf *words, size_t max)
{
	uint64_t deadline = clock_mono_ns() + MIN(timeout_s, (uint64_t)INT_MAX) * NS_PER_S;
	struct pollfd p[] = { { .fd = pidfd, .events = POLLIN }, { .fd = err, .events = POLLIN } };
	size_t left = max;

	while (!p[0].revents) {
		uint64_t now = clock_mono_ns();
		uint64_t ms = now < deadline ? (deadline - now) / NS_PER_MS + 1 : 0;
		if (timeout_s && !ms)
			return -ETIMEDOUT;
		p[0].revents = p[1].revents = 0; /* poll() leaves them when it is interrupted */
		if (poll(p, 2, timeout_s ? (int)MIN(ms, (uint64_t)INT_MAX) : -1) < 0)
			continue;
		if (p[1].revents && !proc_run_words(err, words, &left))
			p[1].fd = -1;
	}
	/* What it wrote last; no more than a pipe holds, others may go on writing. */
	for (int i = 0; i < 16 && p[1].fd >= 0 && poll(&p[1], 1, 0) > 0; i++)
		if (!proc_run_words(err, words, &left))
			break;
	return 0;
}

/* The child is there; `failed` is the end of the pipe that tells whether it became the program. */
static int proc_run_parent(pid_t pid, int failed, int err, const struct proc_run *r,
			   struct buf *words, size_t max)
{
	AUTO_CLOSE int pidfd = proc_pidfd(pid);
	int code = 0, status;

	setpgid(pid, pid); /* whoever comes first: it must be true before we kill the group */
	if (pidfd < 0) {
		kill(pid, SIGKILL);
		(void)proc_wait(pid);
		return pidfd;
	}
	if (fd_read_full(failed, &code, sizeof code) < 0)
		code = 0; /* closed by execve(2) */
	if (!code && proc_run_watch(pidfd, err, r->timeout_s, words, max) < 0) {
		kill(-pid, SIGKILL);
		kill(pid, SIGKILL); /* it may have gone to another group */
		code = ETIMEDOUT;
	}
	status = proc_wait(pid);
	return code ? -code : status;
}

int proc_run(const struct proc_run *r, struct buf *words, size_t max)
{
	AUTO_CLOSE int in = fd_memfd("stdin"), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	AUTO_CLOSE int err = -1, err_w = -1, failed = -1, failed_w = -1;
	int pipes[4];
	pid_t pid;

	if (in < 0 || null < 0)
		return in < 0 ? in : -errno;
	if (r->nin && fd_pwrite_full(in, r->in, r->nin, 0) < 0)
		return -ENOSPC;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -errno;
	err = pipes[0], err_w = pipes[1];
	if (pipe2(pipes + 2, O_CLOEXEC) < 0)
		return -errno;
	failed = pipes[2], failed_w = pipes[3];
	fd_set_nonblock(err, true);
	pid = fork();
	if (pid == 0)
		proc_run_exec(r, in, null, err_w, failed_w);
	if (pid < 0)
		return -errno;
	close(take_fd(&err_w));
	close(take_fd(&failed_w));
	return proc_run_parent(pid, failed, err, r, words, max);
}

/* The kernel reads the command line from where it put it (proc(5), /proc/pid/cmdline). */
static struct {
	char *at;
	size_t n;
} proc_title;

void proc_title_init(int argc, char **argv)
{
	if (argc < 1)
		return;
	proc_title.at = argv[0];
	proc_title.n = (size_t)(argv[argc - 1] - argv[0]) + strlen(argv[argc - 1]) + 1;
}

void proc_title_set(const char *title)
{
	if (!proc_title.n)
		return;
	memset(proc_title.at, 0, proc_title.n);
	memcpy(proc_title.at, title, MIN(strlen(title), proc_title.n - 1));
}
