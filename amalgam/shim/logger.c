#include "amalgam/shim/logger.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/proc.h"

#define SHIM_LOGGER_FD 3 /* the first of the three it gets */

/* The pipes while it is being started; all close-on-exec. */
struct shim_logger_pipes {
	int out[2], err[2], ready[2], exec[2];
};

void shim_logger_init(struct shim_logger *lg, struct loop *l)
{
	*lg = (struct shim_logger){ .loop = l, .pidfd = -1, .ready_fd = -1, .exec_fd = -1,
				    .ready_ns = SHIM_LOGGER_READY_S * NS_PER_S,
				    .eof_ns = SHIM_LOGGER_EOF_S * NS_PER_S,
				    .term_ns = SHIM_LOGGER_TERM_S * NS_PER_S };
}

static void shim_logger_close(int *fd)
{
	if (*fd >= 0)
		close(take_fd(fd));
}

/* --- its end ---------------------------------------------------------------------------------- */

/* Nothing of it is watched any more; whatever called `over` or `ready` may start over. */
static void shim_logger_forget(struct shim_logger *lg)
{
	timer_stop(&lg->timer);
	watch_stop(&lg->ready_watch);
	watch_stop(&lg->pid_watch);
	shim_logger_close(&lg->ready_fd);
	shim_logger_close(&lg->exec_fd);
	shim_logger_close(&lg->pidfd);
	free(take_ptr(&lg->path));
	lg->pid = 0;
	lg->ready = NULL;
	lg->over = NULL;
}

/* Its wait status if it has ended, else -1. ECHILD: somebody else has it; then it is taken for 0. */
static int shim_logger_reap(struct shim_logger *lg)
{
	int status = 0;
	pid_t r;

	do
		r = waitpid(lg->pid, &status, WNOHANG);
	while (r < 0 && errno == EINTR);
	return r == 0 ? -1 : r < 0 ? 0 : status;
}

void shim_logger_fini(struct shim_logger *lg)
{
	if (lg->pid && shim_logger_reap(lg) == -1) {
		kill(lg->pid, SIGKILL);
		(void)shim_logger_reap(lg); /* if it takes a moment, the zombie goes with us */
	}
	shim_logger_forget(lg);
}

static void shim_logger_on_late(struct timer *t)
{
	struct shim_logger *lg = container_of(t, struct shim_logger, timer);

	kill(lg->pid, SIGKILL);
}

static void shim_logger_on_no_eof(struct timer *t)
{
	struct shim_logger *lg = container_of(t, struct shim_logger, timer);

	kill(lg->pid, SIGTERM);
	timer_start(lg->loop, &lg->timer, clock_mono_ns() + lg->term_ns, shim_logger_on_late);
}

bool shim_logger_end(struct shim_logger *lg, shim_logger_over_fn *over, void *arg)
{
	if (!lg->pid) {
		shim_logger_forget(lg);
		return false;
	}
	watch_stop(&lg->ready_watch);
	lg->ready = NULL;
	lg->over = over;
	lg->arg = arg;
	timer_start(lg->loop, &lg->timer, clock_mono_ns() + lg->eof_ns, shim_logger_on_no_eof);
	return true;
}

/* --- ready ------------------------------------------------------------------------------------ */

static void shim_logger_is_ready(struct shim_logger *lg)
{
	shim_logger_ready_fn *ready = take_ptr(&lg->ready);

	timer_stop(&lg->timer);
	watch_stop(&lg->ready_watch);
	shim_logger_close(&lg->ready_fd);
	shim_logger_close(&lg->exec_fd);
	ready(lg->arg, NULL);
}

static PRINTF_LIKE(2, 3) void shim_logger_is_not_ready(struct shim_logger *lg, const char *fmt, ...)
{
	shim_logger_ready_fn *ready = take_ptr(&lg->ready);
	struct err e = { 0 };
	char why[128];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof why, fmt, ap);
	va_end(ap);
	err_set(&e, -EIO, "logger %.200s: %s", lg->path, why);
	timer_stop(&lg->timer);
	watch_stop(&lg->ready_watch);
	if (lg->pid)
		kill(lg->pid, SIGKILL); /* reaped when it is dead */
	ready(lg->arg, &e);
}

/* A process on its way out has closed its descriptors a moment before it can be waited for: the flag is
 * set first. proc(5), /proc/PID/stat field 9; PF_EXITING of linux/sched.h. */
static bool shim_logger_is_dying(pid_t pid)
{
	char path[64], text[1024], *p;
	unsigned flags = 0;
	ssize_t n;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (n = read(fd, text, sizeof text - 1)) <= 0)
		return true;
	text[n] = '\0';
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
		return false;
	return flags & 4;
}

/* The child's errno if it did not get as far as execve(). */
static int shim_logger_exec_error(struct shim_logger *lg)
{
	int error = 0;

	if (read(lg->exec_fd, &error, sizeof error) != (ssize_t)sizeof error)
		return 0;
	return error;
}

/* It has ended before it said anything. A status of 0 is left to the pipe: it may have left a child. */
static void shim_logger_died_early(struct shim_logger *lg, int status)
{
	int error = shim_logger_exec_error(lg);

	if (error)
		shim_logger_is_not_ready(lg, "%s", strerror(error));
	else if (WIFSIGNALED(status))
		shim_logger_is_not_ready(lg, "killed by signal %d before it was ready",
					 WTERMSIG(status));
	else if (status)
		shim_logger_is_not_ready(lg, "ended with status %d before it was ready",
					 WEXITSTATUS(status));
	else if (!lg->ready_watch.active && lg->must_say)
		shim_logger_is_not_ready(lg, "ended before it was ready");
	else if (!lg->ready_watch.active)
		shim_logger_is_ready(lg);
}

static void shim_logger_on_pid(struct watch *w, uint32_t events)
{
	struct shim_logger *lg = container_of(w, struct shim_logger, pid_watch);
	shim_logger_over_fn *over = lg->over;
	int status = shim_logger_reap(lg);

	(void)events;
	if (status == -1)
		return;
	lg->pid = 0;
	watch_stop(w);
	if (lg->ready)
		shim_logger_died_early(lg, status);
	if (over) {
		shim_logger_forget(lg);
		over(lg->arg);
	}
}

static void shim_logger_on_ready(struct watch *w, uint32_t events)
{
	struct shim_logger *lg = container_of(w, struct shim_logger, ready_watch);
	char byte;
	ssize_t n = read(lg->ready_fd, &byte, 1);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == 1) {
		shim_logger_is_ready(lg);
	} else if (lg->pid && shim_logger_is_dying(lg->pid)) {
		watch_stop(w); /* how it ended decides, see shim_logger_on_pid() */
	} else if (lg->must_say) {
		shim_logger_is_not_ready(lg, lg->pid ? "closed its ready pipe without a word" :
						       "ended before it was ready");
	} else {
		shim_logger_is_ready(lg);
	}
}

static void shim_logger_on_silence(struct timer *t)
{
	struct shim_logger *lg = container_of(t, struct shim_logger, timer);

	shim_logger_is_not_ready(lg, "not ready after %u seconds",
				 (unsigned)(lg->ready_ns / NS_PER_S));
}

/* --- its start -------------------------------------------------------------------------------- */

static void shim_logger_pipes_fini(struct shim_logger_pipes *p)
{
	int *all[] = { p->out, p->err, p->ready, p->exec };

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		shim_logger_close(&all[i][0]);
		shim_logger_close(&all[i][1]);
	}
}

static int shim_logger_pipes_init(struct shim_logger_pipes *p)
{
	int *all[] = { p->out, p->err, p->ready, p->exec };

	*p = (struct shim_logger_pipes){ { -1, -1 }, { -1, -1 }, { -1, -1 }, { -1, -1 } };
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (pipe2(all[i], O_CLOEXEC) < 0)
			return -errno;
	(void)fd_set_nonblock(p->out[1], true);
	(void)fd_set_nonblock(p->err[1], true);
	(void)fd_set_nonblock(p->ready[0], true);
	(void)fd_set_nonblock(p->exec[0], true);
	return 0;
}

/* In the child. Descriptors are moved out of the way first, since any of them may already have the
 * number another one is to get. */
static void shim_logger_place_fds(const struct shim_logger_pipes *p, int *exec_fd)
{
	int from[] = { p->out[0], p->err[0], p->ready[1] };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int high = SHIM_LOGGER_FD + (int)ARRAY_LEN(from) + 1;

	null = fcntl(null, F_DUPFD_CLOEXEC, high);
	*exec_fd = fcntl(*exec_fd, F_DUPFD_CLOEXEC, high);
	for (size_t i = 0; i < ARRAY_LEN(from); i++)
		from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, high);
	for (int i = 0; i < SHIM_LOGGER_FD; i++)
		dup2(null, i);
	for (int i = 0; i < (int)ARRAY_LEN(from); i++)
		dup2(from[i], SHIM_LOGGER_FD + i);
	dup2(*exec_fd, high - 1);
	fcntl(high - 1, F_SETFD, FD_CLOEXEC);
	*exec_fd = high - 1;
	fd_close_from((unsigned)high);
}

static NORETURN void shim_logger_child(const struct shim_logger_spec *s,
				       const struct shim_logger_pipes *p, char *const *argv,
				       char *const *env)
{
	int exec_fd = p->exec[1], error;
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL); /* what we ignore would stay ignored */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	shim_logger_place_fds(p, &exec_fd);
	if (chdir(s->bundle) == 0)
		execve(argv[0], argv, env);
	error = errno;
	if (write(exec_fd, &error, sizeof error) < 0) {
		/* Then the status has to do. */
	}
	_exit(127);
}

static int shim_logger_spawn(struct shim_logger *lg, const struct shim_logger_spec *s,
			     const struct shim_logger_pipes *p)
{
	AUTO_FREE char *id = mem_printf("CONTAINER_ID=%s", s->id);
	AUTO_FREE char *ns = mem_printf("CONTAINER_NAMESPACE=%s", s->ns);
	char *env[] = { id, ns, NULL };
	char *argv[ARRAY_LEN(s->uri->args) + 1] = { s->uri->path };

	for (unsigned i = 0; i < s->uri->nargs; i++)
		argv[i + 1] = s->uri->args[i];
	lg->pid = fork();
	if (lg->pid == 0)
		shim_logger_child(s, p, argv, env);
	if (lg->pid < 0) {
		lg->pid = 0;
		return -errno;
	}
	lg->pidfd = proc_pidfd(lg->pid);
	return lg->pidfd < 0 ? lg->pidfd : 0;
}

static int shim_logger_watch(struct shim_logger *lg)
{
	int r = watch_start(lg->loop, &lg->pid_watch, lg->pidfd, EPOLLIN, shim_logger_on_pid);

	if (r == 0)
		r = watch_start(lg->loop, &lg->ready_watch, lg->ready_fd, EPOLLIN,
				shim_logger_on_ready);
	timer_start(lg->loop, &lg->timer, clock_mono_ns() + lg->ready_ns, shim_logger_on_silence);
	return r;
}

int shim_logger_start(struct shim_logger *lg, const struct shim_logger_spec *s, int out[2],
		      shim_logger_ready_fn *ready, void *arg, struct err *e)
{
	struct shim_logger_pipes p;
	int r = shim_logger_pipes_init(&p);

	if (r == 0)
		r = shim_logger_spawn(lg, s, &p);
	if (r == 0) {
		lg->ready_fd = take_fd(&p.ready[0]);
		lg->exec_fd = take_fd(&p.exec[0]);
		r = shim_logger_watch(lg);
	}
	if (r < 0) {
		shim_logger_fini(lg);
		shim_logger_pipes_fini(&p);
		return err_set(e, r, "logger %.200s: %s", s->uri->path, strerror(-r));
	}
	lg->path = mem_strdup(s->uri->path);
	lg->must_say = s->uri->kind == SHIM_URI_BINARY_V2;
	lg->ready = ready;
	lg->arg = arg;
	out[0] = take_fd(&p.out[1]);
	out[1] = s->terminal ? -1 : take_fd(&p.err[1]);
	shim_logger_pipes_fini(&p);
	return 0;
}
