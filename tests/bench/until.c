/* until.c - how long it takes from starting a command until a text appears:
 *
 *   until TEXT -- CMD ARGS             on its standard output
 *   until -f FILE TEXT -- CMD ARGS     in a file that it makes; so is perhaps the file's directory
 *
 * Prints microseconds, counted from just before the fork. With -f the command is then awaited, for it
 * has an end of its own; else it is killed. What the command prints is lost. Exit status 1 when it ended
 * without the text. The same program measures every machine, so that its own share is the same. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void until_die(const char *what)
{
	fprintf(stderr, "until: %s: %s\n", what, strerror(errno));
	exit(2);
}

static double until_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* What was seen so far; only its end can hold the beginning of the text. */
struct seen {
	const char *text;
	char bytes[65536];
	size_t n;
};

/* More bytes of fd. 1: the text is there, 0: not yet, -1: no more will come. */
static int until_read(struct seen *s, int fd)
{
	size_t keep = strlen(s->text), from;
	ssize_t r;

	if (s->n == sizeof s->bytes - 1) {
		memmove(s->bytes, s->bytes + s->n - keep, keep);
		s->n = keep;
	}
	r = read(fd, s->bytes + s->n, sizeof s->bytes - 1 - s->n);
	if (r <= 0)
		return -1;
	from = s->n > keep ? s->n - keep : 0;
	s->n += (size_t)r;
	return memmem(s->bytes + from, s->n - from, s->text, keep) != NULL;
}

static pid_t until_start(char **argv, int out)
{
	pid_t pid = fork();

	if (pid == 0) {
		dup2(out, 1);
		dup2(out, 2);
		execvp(argv[0], argv);
		_exit(127);
	}
	if (pid < 0)
		until_die("fork");
	return pid;
}

static int until_output(struct seen *s, char **argv, double *at)
{
	double start;
	int p[2], r;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		until_die("pipe");
	start = until_us();
	pid = until_start(argv, p[1]);
	close(p[1]);
	do
		r = until_read(s, p[0]);
	while (r == 0);
	*at = until_us() - start;
	if (r < 0)
		fprintf(stderr, "until: %s ended; it said: %.*s\n", argv[0], (int)s->n, s->bytes);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return r;
}

/* The next thing that happens in the directories on watch; false when the command is over. */
static int until_event(int notify, pid_t pid)
{
	char ev[4096];

	if (read(notify, ev, sizeof ev) > 0)
		return 1;
	if (errno != EINTR)
		until_die("inotify");
	return waitpid(pid, NULL, WNOHANG) == 0;
}

static void until_on_child(int sig)
{
	(void)sig; /* interrupts read() */
}

static int until_file(struct seen *s, const char *file, char **argv, double *at)
{
	struct sigaction sa = { .sa_handler = until_on_child };
	char a[PATH_MAX], b[PATH_MAX];
	const char *dir, *up;
	int notify = inotify_init1(IN_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fd = -1, watching = -1, r = 0;
	double start;
	pid_t pid;

	snprintf(a, sizeof a, "%s", file);
	dir = dirname(a);
	snprintf(b, sizeof b, "%s", dir);
	up = dirname(b);
	sigaction(SIGCHLD, &sa, NULL);
	if (inotify_add_watch(notify, up, IN_CREATE) < 0)
		until_die(up);
	start = until_us();
	pid = until_start(argv, null);
	for (;;) {
		if (watching < 0)
			watching = inotify_add_watch(notify, dir, IN_CREATE | IN_MODIFY);
		if (fd < 0)
			fd = open(file, O_RDONLY | O_CLOEXEC);
		while (fd >= 0 && r == 0)
			r = until_read(s, fd);
		*at = until_us() - start;
		if (r == 1 || !until_event(notify, pid))
			break;
		r = 0; /* the end of the file for now */
	}
	waitpid(pid, NULL, 0);
	return r;
}

int main(int argc, char **argv)
{
	static struct seen s;
	const char *file = NULL;
	double us;
	int r;

	if (argc > 3 && !strcmp(argv[1], "-f")) {
		file = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 4 || strcmp(argv[2], "--")) {
		fputs("usage: until [-f FILE] TEXT -- CMD ARGS\n", stderr);
		return 2;
	}
	s.text = argv[1];
	r = file ? until_file(&s, file, argv + 3, &us) : until_output(&s, argv + 3, &us);
	if (r != 1)
		return 1;
	printf("%.1f\n", us);
	return 0;
}
