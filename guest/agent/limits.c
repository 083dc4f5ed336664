#include "guest/agent/limits.h"

#include <linux/ioprio.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"

/* getrlimit(2), in its order. */
static const struct {
	const char *name;
	int number;
} ga_limits_table[] = {
	{ "RLIMIT_AS", RLIMIT_AS },
	{ "RLIMIT_CORE", RLIMIT_CORE },
	{ "RLIMIT_CPU", RLIMIT_CPU },
	{ "RLIMIT_DATA", RLIMIT_DATA },
	{ "RLIMIT_FSIZE", RLIMIT_FSIZE },
	{ "RLIMIT_LOCKS", RLIMIT_LOCKS },
	{ "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK },
	{ "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE },
	{ "RLIMIT_NICE", RLIMIT_NICE },
	{ "RLIMIT_NOFILE", RLIMIT_NOFILE },
	{ "RLIMIT_NPROC", RLIMIT_NPROC },
	{ "RLIMIT_RSS", RLIMIT_RSS },
	{ "RLIMIT_RTPRIO", RLIMIT_RTPRIO },
	{ "RLIMIT_RTTIME", RLIMIT_RTTIME },
	{ "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING },
	{ "RLIMIT_STACK", RLIMIT_STACK },
};

int ga_limits_number(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(ga_limits_table); i++)
		if (!strcmp(ga_limits_table[i].name, name))
			return ga_limits_table[i].number;
	return -EINVAL;
}

static int ga_limits_rlimits(const Grpc__Process *p, struct err *e)
{
	struct rlimit files;

	/* The usual pair for services: select(2) keeps working, and whoever needs more raises it.
	 */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > 1024) {
		files.rlim_cur = 1024;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	for (size_t i = 0; i < p->n_rlimits; i++) {
		const Grpc__POSIXRlimit *r = p->rlimits[i];
		/* The kernel's own layout: 64 bits whatever the libc thinks. */
		uint64_t v[2] = { r->soft, r->hard };
		int n = ga_limits_number(r->type);
		if (n < 0)
			return err_set(e, n, "rlimit \"%s\" is not known", r->type);
		if (syscall(SYS_prlimit64, 0, n, v, NULL) < 0)
			return err_set(e, -errno, "set %s to %llu:%llu: %m", r->type,
				       (unsigned long long)r->soft, (unsigned long long)r->hard);
	}
	return 0;
}

static int ga_limits_index(const char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (names[i] && !strcmp(names[i], name))
			return (int)i;
	return -EINVAL;
}

static int ga_limits_ioprio(const Grpc__LinuxIOPriority *p, struct err *e)
{
	static const char *const classes[] = { NULL, "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE",
					       "IOPRIO_CLASS_IDLE" };
	int class = ga_limits_index(classes, ARRAY_LEN(classes), p->class_);

	if (class < 0 || p->priority < 0 || p->priority > 7)
		return err_set(e, -EINVAL, "io priority \"%s\" %d is not valid", p->class_,
			       p->priority);
	if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
		    class << IOPRIO_CLASS_SHIFT | p->priority))
		return err_set(e, -errno, "io priority: %m");
	return 0;
}

static int ga_limits_scheduler(const Grpc__Scheduler *s, struct err *e)
{
	static const char *const policies[] = {
		[SCHED_OTHER] = "SCHED_OTHER", [SCHED_FIFO] = "SCHED_FIFO", [SCHED_RR] = "SCHED_RR",
		[SCHED_BATCH] = "SCHED_BATCH", [SCHED_IDLE] = "SCHED_IDLE",
	};
	int policy = ga_limits_index(policies, ARRAY_LEN(policies), s->policy);
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} a = { .size = sizeof a, .nice = s->nice, .priority = (uint32_t)s->priority };

	if (policy < 0)
		return err_set(e, -EINVAL, "scheduler policy \"%s\" is not supported", s->policy);
	a.policy = (uint32_t)policy;
	if (syscall(SYS_sched_setattr, 0, &a, 0) < 0)
		return err_set(e, -errno, "scheduler %s: %m", s->policy);
	return 0;
}

int ga_limits_apply(const Grpc__Process *p, struct err *e)
{
	if (ga_limits_rlimits(p, e) < 0 ||
	    (p->iopriority && ga_limits_ioprio(p->iopriority, e) < 0) ||
	    (p->scheduler && ga_limits_scheduler(p->scheduler, e) < 0))
		return e->code;
	return 0;
}

/* ---- sysctls */

/* namespaces(7) and Documentation/admin-guide/sysctl: a name, or a prefix when it ends in a dot. */
static const struct {
	const char *name;
	uint64_t ns;
} ga_limits_sysctl_table[] = {
	{ "kernel.msgmax", CLONE_NEWIPC },   { "kernel.msgmnb", CLONE_NEWIPC },
	{ "kernel.msgmni", CLONE_NEWIPC },   { "kernel.sem", CLONE_NEWIPC },
	{ "kernel.shmall", CLONE_NEWIPC },   { "kernel.shmmax", CLONE_NEWIPC },
	{ "kernel.shmmni", CLONE_NEWIPC },   { "kernel.shm_rmid_forced", CLONE_NEWIPC },
	{ "fs.mqueue.", CLONE_NEWIPC },      { "kernel.domainname", CLONE_NEWUTS },
	{ "kernel.hostname", CLONE_NEWUTS }, { "net.", CLONE_NEWNET },
};

uint64_t ga_limits_sysctl_ns(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(ga_limits_sysctl_table); i++) {
		const char *known = ga_limits_sysctl_table[i].name;
		if (known[strlen(known) - 1] == '.' ? str_starts(name, known)
						    : !strcmp(name, known))
			return ga_limits_sysctl_table[i].ns;
	}
	return 0;
}

/* "net.ipv4.ip_forward" -> /proc/sys/net/ipv4/ip_forward; with a slash first in the name the
 * slashes separate and dots are dots (sysctl(8)): net/ipv4/conf/eth0.1/forwarding. */
static char *ga_limits_sysctl_path(const char *name)
{
	char *path = mem_printf("/proc/sys/%s", name);
	bool slashes = strchr(name, '/') && strcspn(name, "/") < strcspn(name, ".");

	for (char *s = path + strlen("/proc/sys/"); !slashes && *s; s++)
		*s = *s == '.' ? '/' : *s == '/' ? '.' : *s;
	return path;
}

int ga_limits_sysctls(const Grpc__Linux *l, struct err *e)
{
	for (size_t i = 0; i < l->n_sysctl; i++) {
		const char *name = l->sysctl[i]->key, *value = l->sysctl[i]->value;
		AUTO_FREE char *dotted = mem_strdup(name), *path = ga_limits_sysctl_path(name);
		int r;

		if (strchr(name, '/') && strcspn(name, "/") < strcspn(name, "."))
			for (char *s = dotted; *s; s++)
				*s = *s == '/' ? '.' : *s;
		if (!ga_limits_sysctl_ns(dotted) || strstr(path, "/../"))
			return err_set(e, -EINVAL,
				       "sysctl \"%s\" is not in a separate kernel namespace", name);
		r = path_put(path, value);
		if (r < 0)
			return err_set(e, r, "sysctl %s = \"%s\": %s", name, value, strerror(-r));
	}
	return 0;
}
