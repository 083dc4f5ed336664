#include "guest/agent/process.h"

#include <linux/sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/proc.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"
#include "guest/agent/user.h"

struct ga_process *ga_process_new(struct ga_container *ctr, const char *exec_id)
{
	struct ga_process *p = mem_zalloc(sizeof *p);

	p->ctr = ctr;
	p->agent = ctr->agent;
	p->exec_id = mem_strdup(exec_id);
	p->sync = -1;
	ga_stdio_init(&p->io, &p->agent->loop);
	return p;
}

static void ga_process_close_sync(struct ga_process *p)
{
	watch_stop(&p->sync_watch);
	timer_stop(&p->timeout);
	if (p->sync >= 0)
		close(p->sync);
	p->sync = -1;
}

void ga_process_free(struct ga_process *p)
{
	ga_process_close_sync(p);
	ga_wait_stop(&p->wait);
	ga_stdio_fini(&p->io);
	if (p->call)
		ttrpc_fail(p->call, TTRPC_CANCELLED, "process was removed");
	for (size_t i = 0; i < p->n_waiters; i++)
		ttrpc_fail(p->waiters[i], TTRPC_NOT_FOUND, "process was removed");
	free(p->waiters);
	free(p->exec_id);
	free(p);
}

/* ---- On the way to execve */

/* The transition somebody waits for has happened, or never will. */
static void ga_process_step_done(struct ga_process *p, const struct err *e)
{
	ga_process_step_fn *step = p->step;

	timer_stop(&p->timeout);
	p->step = NULL;
	if (step)
		step(p, e);
}

static void ga_process_timed_out(struct timer *t)
{
	struct ga_process *p = container_of(t, struct ga_process, timeout);
	struct err e;

	err_set(&e, -ETIMEDOUT, "process was not ready after %u ms",
		p->agent->config.launch_timeout_ms);
	ga_process_close_sync(p);
	kill(p->pid, SIGKILL);
	ga_process_step_done(p, &e);
}

static void ga_process_on_end(struct ga_process *p)
{
	struct err e;

	if (p->state == GA_PROCESS_STARTING) {
		/* The descriptor was closed by execve. (Or the child was killed just before; then
		 * SIGCHLD comes next and tells the truth.) */
		p->state = GA_PROCESS_RUNNING;
		ga_process_close_sync(p);
		ga_process_step_done(p, NULL);
		return;
	}
	ga_process_close_sync(p);
	if (p->step) {
		err_set(&e, -ECHILD, "process ended during its set-up");
		ga_process_step_done(p, &e);
	}
}

static void ga_process_on_fail(struct ga_process *p, struct ga_sync_msg *m)
{
	struct err e;

	m->text[sizeof m->text - 1] = '\0';
	err_set(&e, m->code < 0 ? m->code : -EIO, "%s", m->text);
	ga_process_close_sync(p);
	ga_process_step_done(p, &e);
}

static void ga_process_on_sync(struct watch *w, uint32_t events)
{
	struct ga_process *p = container_of(w, struct ga_process, sync_watch);
	struct ga_sync_msg m;
	int fd = -1;
	size_t nfds = 1;
	ssize_t r = fd_recv(p->sync, &m, sizeof m, &fd, &nfds, MSG_DONTWAIT);

	(void)events;
	if (r == -EAGAIN)
		return;
	if (r <= 0) {
		ga_process_on_end(p);
		return;
	}
	if (r == (ssize_t)sizeof m && m.kind == GA_SYNC_READY && p->state == GA_PROCESS_SETUP) {
		p->state = GA_PROCESS_CREATED;
		if (nfds)
			ga_stdio_set_terminal(&p->io, fd);
		ga_process_step_done(p, NULL);
		return;
	}
	if (nfds)
		close(fd);
	if (r == (ssize_t)sizeof m && m.kind == GA_SYNC_FAIL)
		ga_process_on_fail(p, &m);
}

static int ga_process_send_go(struct ga_process *p)
{
	struct ga_sync_msg m = { .kind = GA_SYNC_GO };
	ssize_t r = fd_send(p->sync, &m, sizeof m, NULL, 0, 0);

	return r < 0 ? (int)r : 0;
}

void ga_process_go(struct ga_process *p, ga_process_step_fn *step)
{
	ASSERT(p->state == GA_PROCESS_CREATED && !p->step);
	p->state = GA_PROCESS_STARTING;
	p->step = step;
	/* A child that is dead already shows as end of file; nothing is lost by not looking here.
	 */
	(void)ga_process_send_go(p);
}

static pid_t ga_process_clone(const struct ga_process *p, uint64_t flags)
{
	struct clone_args a = {
		.flags = flags | CLONE_INTO_CGROUP,
		.exit_signal = SIGCHLD,
		.cgroup = (uint64_t)p->ctr->cgroup.fd,
	};

	return (pid_t)syscall(SYS_clone3, &a, sizeof a);
}

int ga_process_spawn(struct ga_process *p, struct ga_launch *l, ga_process_step_fn *step,
		     struct err *e)
{
	/* The child leaves this one: a cgroup namespace is rooted where its maker is, at clone time
	 * us. */
	uint64_t flags = l->new_ns & ~(uint64_t)CLONE_NEWCGROUP;
	int sync[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sync) < 0)
		return err_set(e, -errno, "socketpair: %m");
	p->sync = sync[0];
	l->sync = sync[1];
	p->pid = ga_process_clone(p, flags);
	if (p->pid == 0)
		ga_init_main(l);
	if (p->pid < 0)
		err_set(e, -errno, "clone: %m");
	close(sync[1]);
	if (p->pid < 0)
		return e->code;
	p->state = GA_PROCESS_SETUP;
	p->step = step;
	if (watch_start(&p->agent->loop, &p->sync_watch, p->sync, EPOLLIN, ga_process_on_sync) < 0)
		return err_set(e, -ENOMEM, "watch the new process");
	timer_start(&p->agent->loop, &p->timeout,
		    clock_mono_ns() + p->agent->config.launch_timeout_ms * NS_PER_MS,
		    ga_process_timed_out);
	if (l->new_ns & CLONE_NEWUSER) {
		if (ga_user_write_maps(p->pid, l->spec->linux, e) < 0)
			return e->code;
		return ga_process_send_go(p);
	}
	return 0;
}

/* ---- The end */

static void ga_process_answer(const struct ga_process *p, struct ttrpc_call *call)
{
	Grpc__WaitProcessResponse r = GRPC__WAIT_PROCESS_RESPONSE__INIT;

	r.status = p->exit_code;
	r.exited_at_ns = (int64_t)p->exited_at_ns;
	r.oom_killed = p->ctr->oom_killed;
	ttrpc_reply(call, &r.base);
}

void ga_process_exited(struct ga_process *p, int wait_status)
{
	/* The last words may still be in the socket: at most READY, FAIL and the end. The state
	 * changes after them; a callback that finds no process left would free this one. */
	for (unsigned i = 0; i < 3 && p->sync >= 0; i++)
		ga_process_on_sync(&p->sync_watch, EPOLLIN);
	if (p->sync >= 0)
		ga_process_on_end(p);
	p->state = GA_PROCESS_EXITED;
	p->exit_code = proc_exit_code(wait_status);
	p->exited_at_ns = clock_wall_ns();
	ga_stdio_drain(&p->io);
	ga_oom_check(&p->agent->oom, p->ctr);
	for (size_t i = 0; i < p->n_waiters; i++)
		ga_process_answer(p, p->waiters[i]);
	p->was_awaited |= p->n_waiters > 0;
	p->n_waiters = 0;
	ga_container_process_exited(p);
}

void ga_process_await(struct ga_process *p, struct ttrpc_call *call)
{
	if (p->state == GA_PROCESS_EXITED) {
		p->was_awaited = true;
		ga_process_answer(p, call);
		return;
	}
	p->waiters = mem_realloc(p->waiters, (p->n_waiters + 1) * sizeof(struct ttrpc_call *));
	p->waiters[p->n_waiters++] = call;
}
