#include "guest/agent/reap.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "guest/agent/agent.h"
#include "guest/agent/container.h"

static struct ga_process *ga_reap_find(struct ga_agent *a, pid_t pid)
{
	for (struct ga_container *c = a->containers; c; c = c->next)
		for (struct ga_process *p = c->processes; p; p = p->next)
			if (p->pid == pid && p->state != GA_PROCESS_EXITED)
				return p;
	return NULL;
}

/* Signals of one kind merge while pending: one SIGCHLD may stand for any number of children. Look
 * at a pid before collecting it, so that it stays taken until its record knows that it has ended.
 */
static void ga_reap_children(struct ga_agent *a)
{
	siginfo_t info;

	for (;;) {
		struct ga_process *p;
		int status;

		info.si_pid = 0;
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
			return;
		p = ga_reap_find(a, info.si_pid);
		if (waitpid(info.si_pid, &status, 0) == info.si_pid && p)
			ga_process_exited(p, status);
	}
}

static void ga_reap_on_signal(struct watch *w, uint32_t events)
{
	struct ga_agent *a = container_of(w, struct ga_agent, reap.watch);
	struct signalfd_siginfo si;
	bool end = false;

	(void)events;
	while (read(w->fd, &si, sizeof si) == (ssize_t)sizeof si)
		end |= si.ssi_signo != SIGCHLD;
	ga_reap_children(a);
	if (end)
		loop_stop(&a->loop);
}

int ga_reap_start(struct ga_agent *a, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* A peer or a process that closes its end is an error of a write, not our end. */
	signal(SIGPIPE, SIG_IGN);
	/* As PID 1 this is so anyway; in tests it makes us see the same orphans. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	a->reap.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (a->reap.fd < 0 ||
	    watch_start(&a->loop, &a->reap.watch, a->reap.fd, EPOLLIN, ga_reap_on_signal) < 0)
		return err_set(e, -errno, "signalfd: %m");
	return 0;
}
