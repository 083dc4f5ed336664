#include "amalgam/base/job.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/proc.h"

/* Tells the keeper to end its group. One of the signals that queue, so that nothing the program sends
 * its group can take its place. */
#define JOB_END_SIGNAL SIGRTMAX

/* ---- The keeper and the program. */

/* Standard streams, then the pipe for the result; everything else is closed. First out of the way: who
 * started us may have closed 0, 1 or 2. */
static void job_place_fds(int in, int null, int err, int result)
{
	int from[] = { in, null, err, result };

	for (int i = 0; i < 4; i++)
		from[i] = fcntl(from[i], F_DUPFD, 10);
	for (int i = 0; i < 4; i++)
		dup2(from[i], i);
	fcntl(3, F_SETFD, FD_CLOEXEC);
	fd_close_from(4);
}

/* Never returns. The pipe takes -errno when there is no program to become. */
static NORETURN void job_exec(const struct job_spec *s)
{
	sigset_t none;
	int code;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (chdir(s->cwd ? s->cwd : "/") == 0) {
		if (strchr(s->path, '/'))
			execve(s->path, s->argv, s->env);
		else
			execvpe(s->path, s->argv, s->env);
	}
	code = -errno;
	_exit(write(3, &code, sizeof code) == sizeof code ? 127 : 126);
}

static NORETURN void job_tell(int result)
{
	_exit(write(3, &result, sizeof result) == sizeof result ? 0 : 126);
}

/* Until the program has ended, or we are told to end it. A group leader of which none is left is killed
 * last, so its number cannot be somebody else's. */
static NORETURN void job_keep(pid_t owner, pid_t program, const sigset_t *all)
{
	siginfo_t info;
	int status;

	for (int fd = 0; fd < 3; fd++)
		close(fd);
	while (waitpid(program, &status, WNOHANG) != program) {
		int sig = sigwaitinfo(all, &info);
		if (getppid() == owner && !(sig == JOB_END_SIGNAL && info.si_pid == owner))
			continue;
		kill(program, SIGKILL); /* it may have gone to another group */
		kill(0, SIGKILL);
	}
	job_tell(status);
}

static NORETURN void job_child(pid_t owner, const struct job_spec *s, int in, int null, int err, int result)
{
	sigset_t all;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGCHLD, SIG_DFL);
	setpgid(0, 0);
	job_place_fds(in, null, err, result);
	/* Whoever ended before this was said to be waited for has another parent in his place. */
	if (prctl(PR_SET_PDEATHSIG, JOB_END_SIGNAL) < 0 || getppid() != owner)
		_exit(126);
	pid = fork();
	if (pid == 0)
		job_exec(s);
	if (pid < 0)
		job_tell(-errno);
	job_keep(owner, pid, &all);
}

/* ---- Its end. */

static void job_close(int *fd)
{
	if (*fd >= 0)
		close(take_fd(fd));
}

/* Nothing is watched any more; the words stay. */
static void job_forget(struct job *j)
{
	timer_stop(&j->late);
	watch_stop(&j->ended);
	watch_stop(&j->wrote);
	job_close(&j->pidfd);
	job_close(&j->err_fd);
	job_close(&j->result_fd);
	j->pid = 0;
}

/* One that was stopped with its group has to go on in order to hear of it. */
static void job_end(const struct job *j)
{
	kill(j->pid, JOB_END_SIGNAL);
	kill(j->pid, SIGCONT);
}

void job_kill(struct job *j, int why)
{
	if (!j->pid || j->why)
		return;
	timer_stop(&j->late);
	j->why = why;
	job_end(j);
}

void job_fini(struct job *j)
{
	if (j->pid) {
		job_end(j);
		(void)waitpid(j->pid, NULL, WNOHANG);
		job_forget(j);
	}
	buf_fini(&j->words);
}

/* What has been written so far; false when nobody will write any more. */
static bool job_read_words(struct job *j)
{
	uint8_t piece[4096];
	ssize_t n = read(j->err_fd, piece, sizeof piece);

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	buf_add(&j->words, piece, MIN((size_t)n, j->left));
	j->left -= MIN((size_t)n, j->left);
	return true;
}

static void job_on_words(struct watch *w, uint32_t events)
{
	struct job *j = container_of(w, struct job, wrote);

	(void)events;
	if (!job_read_words(j))
		watch_stop(w);
}

/* What it wrote last; no more than a pipe holds, others may go on writing. */
static void job_last_words(struct job *j)
{
	for (int i = 0; i < 16 && job_read_words(j); i++)
		;
}

static void job_on_end(struct watch *w, uint32_t events)
{
	struct job *j = container_of(w, struct job, ended);
	int status, result;
	bool told = read(j->result_fd, &result, sizeof result) == (ssize_t)sizeof result;

	(void)events;
	/* Not waited for yet, so the number of its group is nobody else's. */
	if (j->why || !told)
		kill(-j->pid, SIGKILL);
	status = proc_wait(j->pid);
	if (!told)
		result = status; /* the keeper was killed, with the program or without it */
	if (j->wrote.active)
		job_last_words(j);
	job_forget(j);
	j->over(j, j->why ? j->why : result);
}

static void job_on_late(struct timer *t)
{
	job_kill(container_of(t, struct job, late), -ETIMEDOUT);
}

/* ---- Its start. */

static int job_watch(struct job *j, uint64_t timeout_s)
{
	int r = watch_start(j->loop, &j->ended, j->pidfd, EPOLLIN, job_on_end);

	if (r == 0)
		r = watch_start(j->loop, &j->wrote, j->err_fd, EPOLLIN, job_on_words);
	if (r == 0 && timeout_s)
		timer_start(j->loop, &j->late,
			    clock_mono_ns() + MIN(timeout_s, (uint64_t)INT_MAX) * NS_PER_S, job_on_late);
	return r;
}

static int job_fork(struct job *j, const struct job_spec *s)
{
	AUTO_CLOSE int in = fd_memfd("stdin"), null = open("/dev/null", O_RDWR | O_CLOEXEC);
	AUTO_CLOSE int err_w = -1, result_w = -1;
	pid_t owner = getpid();
	int ends[2];

	if (in < 0 || null < 0)
		return in < 0 ? in : -errno;
	if (s->nin && fd_pwrite_full(in, s->in, s->nin, 0) < 0)
		return -ENOSPC;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	j->err_fd = ends[0], err_w = ends[1];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	j->result_fd = ends[0], result_w = ends[1];
	fd_set_nonblock(j->err_fd, true);
	fd_set_nonblock(j->result_fd, true);
	j->pid = fork();
	if (j->pid == 0)
		job_child(owner, s, in, null, err_w, result_w);
	if (j->pid < 0) {
		j->pid = 0;
		return -errno;
	}
	setpgid(j->pid, j->pid); /* whoever comes first: it must be true before we kill the group */
	j->pidfd = proc_pidfd(j->pid);
	return j->pidfd < 0 ? j->pidfd : 0;
}

int job_begin(struct job *j, struct loop *l, const struct job_spec *s, job_over_fn *over)
{
	int r;

	*j = (struct job){ .loop = l, .pidfd = -1, .err_fd = -1, .result_fd = -1, .left = s->max_words,
			   .over = over };
	r = job_fork(j, s);
	if (r == 0)
		r = job_watch(j, s->timeout_s);
	if (r < 0) {
		if (j->pid) {
			kill(-j->pid, SIGKILL);
			(void)proc_wait(j->pid);
		}
		job_forget(j);
	}
	return r;
}

/* ---- Asleep until it is over. */

struct job_await {
	struct job job;
	int result;
	bool over;
};

static void job_awaited(struct job *j, int r)
{
	struct job_await *a = container_of(j, struct job_await, job);

	a->result = r;
	a->over = true;
}

int job_run(const struct job_spec *s, struct buf *words)
{
	struct job_await a = { 0 };
	struct loop l;
	int r = loop_init(&l);

	if (r < 0)
		return r;
	r = job_begin(&a.job, &l, s, job_awaited);
	while (r == 0 && !a.over)
		r = loop_step(&l, -1);
	buf_add(words, a.job.words.data, a.job.words.len);
	job_fini(&a.job);
	loop_fini(&l);
	return r < 0 ? r : a.result;
}
