#include "guest/agent/signal.h"

#include <signal.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"

#define GA_SIGNAL_MAX    64
#define GA_SIGNAL_PIDS   (4u << 20) /* include/linux/threads.h PID_MAX_LIMIT */
#define GA_SIGNAL_PASSES 16

/* Bit (signal - 1) of a mask that status prints in hexadecimal behind its name. */
static bool ga_signal_in(const char *status, const char *name, int signal)
{
	const char *p = strstr(status, name);

	return p && strtoull(p + strlen(name), NULL, 16) >> (signal - 1) & 1;
}

bool ga_signal_is_default(const char *status, int signal)
{
	return !ga_signal_in(status, "\nSigCgt:", signal) &&
	       !ga_signal_in(status, "\nSigIgn:", signal);
}

/* The init process of a pid namespace gets no signal it has not asked for, so a plain program as
 * init could not be stopped; "stop" means SIGTERM to most of the world. */
static int ga_signal_promote(pid_t pid, int signal)
{
	AUTO_FREE char *path = mem_printf("/proc/%d/status", pid);
	AUTO_BUF struct buf status = { 0 };

	if (signal != SIGTERM || path_read(path, 16384, &status, NULL) < 0 ||
	    !ga_signal_is_default(buf_cstr(&status), signal))
		return signal;
	return SIGKILL;
}

/* Nothing may fork away while all are killed: freeze, kill, thaw. cgroup.kill alone is atomic, too,
 * but a frozen cgroup stays as it was for whoever has paused it, dead processes need the thaw. */
static int ga_signal_kill_all(const struct ga_container *c, struct err *e)
{
	if (!c->cgroup.path)
		return 0;
	ga_cgroup_kill(&c->cgroup);
	return ga_cgroup_freeze(&c->cgroup, false, e);
}

/* Everyone in the cgroup whose bit is not set, and set it; how many there were. The first process is what
 * stop signals mean something else to. */
static size_t ga_signal_pass(const struct ga_container *c, pid_t first, int signal, uint8_t *sent)
{
	AUTO_BUF struct buf b = { 0 };
	size_t n = 0;

	ga_cgroup_pids(&c->cgroup, &b);
	for (const uint8_t *at = b.data; at < b.data + b.len; at += sizeof(pid_t)) {
		pid_t pid;
		memcpy(&pid, at, sizeof pid);
		if ((unsigned)pid >= GA_SIGNAL_PIDS || sent[pid / 8] >> (pid % 8) & 1)
			continue;
		sent[pid / 8] |= (uint8_t)(1u << (pid % 8));
		kill(pid, pid == first ? ga_signal_promote(pid, signal) : signal);
		n++;
	}
	return n;
}

/* Each process once. They are frozen meanwhile, so that those being born do not get ahead of us; since
 * freezing takes its time, we look again until there is nobody new. */
static int ga_signal_each(const struct ga_container *c, pid_t first, int signal, struct err *e)
{
	AUTO_FREE uint8_t *sent = mem_zalloc(GA_SIGNAL_PIDS / 8);
	bool paused = ga_cgroup_is_paused(&c->cgroup);

	if (!paused && ga_cgroup_freeze(&c->cgroup, true, e) < 0)
		return e->code;
	for (int i = 0; i < GA_SIGNAL_PASSES && ga_signal_pass(c, first, signal, sent) > 0; i++)
		;
	return paused ? 0 : ga_cgroup_freeze(&c->cgroup, false, e);
}

int ga_signal_process(struct ga_agent *a, const Grpc__SignalProcessRequest *req, struct err *e)
{
	struct ga_container *c = ga_container_find(a, req->container_id, e);
	struct ga_process *p = c ? ga_container_process(c, req->exec_id, e) : NULL;
	int signal = (int)req->signal;

	if (!p)
		return e->code;
	if (req->signal > GA_SIGNAL_MAX)
		return err_set(e, -EINVAL, "signal %u is not valid", req->signal);
	if (p->state == GA_PROCESS_EXITED || p->pid <= 0)
		return 0;
	if (p == c->processes && signal == SIGKILL)
		return ga_signal_kill_all(c, e);
	if (p == c->processes && req->all && signal && c->cgroup.path)
		return ga_signal_each(c, p->pid, signal, e);
	if (p == c->processes)
		signal = ga_signal_promote(p->pid, signal);
	/* Not reaped yet, so the pid is still its own. */
	if (kill(p->pid, signal) < 0 && errno != ESRCH)
		return err_set(e, -errno, "signal %d: %m", signal);
	return 0;
}
