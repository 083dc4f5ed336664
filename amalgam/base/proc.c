#include "amalgam/base/proc.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "amalgam/base/buf.h"
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
