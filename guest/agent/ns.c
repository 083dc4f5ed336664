#include "guest/agent/ns.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"

/* runtime-spec config-linux.md "Namespaces"; the file is that below /proc/<pid>/ns. */
static const struct {
	const char *type, *file;
	uint64_t flag;
} ga_ns_kinds[GA_NS_KINDS] = {
	[GA_NS_IPC] = { "ipc", "ipc", CLONE_NEWIPC },
	[GA_NS_UTS] = { "uts", "uts", CLONE_NEWUTS },
	[GA_NS_PID] = { "pid", "pid", CLONE_NEWPID },
	[GA_NS_NET] = { "network", "net", CLONE_NEWNET },
	[GA_NS_TIME] = { "time", "time", CLONE_NEWTIME },
	[GA_NS_CGROUP] = { "cgroup", "cgroup", CLONE_NEWCGROUP },
	[GA_NS_MOUNT] = { "mount", "mnt", CLONE_NEWNS },
	[GA_NS_USER] = { "user", "user", CLONE_NEWUSER },
};

int ga_ns_kind(const char *type)
{
	for (int k = 0; k < GA_NS_KINDS; k++)
		if (!strcmp(ga_ns_kinds[k].type, type))
			return k;
	return -EINVAL;
}

uint64_t ga_ns_flag(enum ga_ns_kind kind)
{
	return ga_ns_kinds[kind].flag;
}

void ga_ns_close(struct ga_ns_set *s)
{
	for (int k = 0; k < GA_NS_KINDS; k++)
		if (s->fd[k] >= 0)
			close(s->fd[k]);
	*s = GA_NS_SET_NONE;
}

int ga_ns_open_own(struct ga_ns_set *own, struct err *e)
{
	*own = GA_NS_SET_NONE;
	for (int k = 0; k < GA_NS_MOUNT; k++) {
		AUTO_FREE char *path = mem_printf("/proc/self/ns/%s", ga_ns_kinds[k].file);
		own->fd[k] = open(path, O_RDONLY | O_CLOEXEC);
		/* A kernel without time namespaces is fine until somebody asks for one. */
		if (own->fd[k] < 0 && errno != ENOENT)
			return err_set(e, -errno, "%s: %m", path);
	}
	return 0;
}

int ga_ns_open(enum ga_ns_kind kind, const char *path, struct err *e)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_set(e, -errno, "%s namespace %s: %m", ga_ns_kinds[kind].type, path);
	if (ioctl(fd, NS_GET_NSTYPE) != (int)ga_ns_kinds[kind].flag)
		return err_set(e, -EINVAL, "%s is no %s namespace", path, ga_ns_kinds[kind].type);
	return take_fd(&fd);
}

int ga_ns_enter(const struct ga_ns_set *own, const struct ga_ns_set *to, struct err *e)
{
	struct ga_ns_set done = GA_NS_SET_NONE;

	for (int k = 0; k < GA_NS_MOUNT; k++) {
		if (to->fd[k] < 0)
			continue;
		if (setns(to->fd[k], (int)ga_ns_kinds[k].flag) < 0) {
			int code = -errno;
			ga_ns_return(own, &done);
			return err_set(e, code, "join %s namespace: %s", ga_ns_kinds[k].type,
				       strerror(-code));
		}
		done.fd[k] = to->fd[k];
	}
	return 0;
}

void ga_ns_return(const struct ga_ns_set *own, const struct ga_ns_set *from)
{
	for (int k = 0; k < GA_NS_MOUNT; k++)
		if (from->fd[k] >= 0)
			ASSERT(setns(own->fd[k], (int)ga_ns_kinds[k].flag) == 0);
}

/* unshare(CLONE_NEWTIME) moves only the children to come; offsets can be written until the first.
 */
int ga_ns_new_time(const struct ga_ns_set *own, const Grpc__Linux *l, struct err *e)
{
	AUTO_BUF struct buf b = { 0 };
	int fd, r = 0;

	if (own->fd[GA_NS_TIME] < 0 || unshare(CLONE_NEWTIME) < 0)
		return err_set(e, own->fd[GA_NS_TIME] < 0 ? -ENOSYS : -errno,
			       "new time namespace: %m");
	for (size_t i = 0; i < l->n_timeoffsets; i++)
		buf_printf(&b, "%s %lld %u\n", l->timeoffsets[i]->clock,
			   (long long)l->timeoffsets[i]->secs, l->timeoffsets[i]->nanosecs);
	if (b.len)
		r = path_put("/proc/self/timens_offsets", buf_cstr(&b));
	fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
	if (r == 0 && fd < 0)
		r = -errno;
	ASSERT(setns(own->fd[GA_NS_TIME], CLONE_NEWTIME) == 0);
	if (r < 0 && fd >= 0)
		close(fd);
	return r < 0 ? err_set(e, r, "offsets of the time namespace: %s", strerror(-r)) : fd;
}

int ga_ns_set_hostname(const struct ga_ns_set *own, const struct ga_ns_set *in,
		       const char *hostname, struct err *e)
{
	int r = 0;

	if (setns(in->fd[GA_NS_UTS], CLONE_NEWUTS) < 0)
		return err_set(e, -errno, "enter the uts namespace: %m");
	if (sethostname(hostname, strlen(hostname)) < 0)
		r = err_set(e, -errno, "hostname \"%s\": %m", hostname);
	ASSERT(setns(own->fd[GA_NS_UTS], CLONE_NEWUTS) == 0);
	return r;
}

int ga_ns_new_shared(const struct ga_ns_set *own, struct ga_ns_set *out, struct err *e)
{
	struct ga_ns_set made = GA_NS_SET_NONE;
	int r = 0;

	if (unshare(CLONE_NEWIPC | CLONE_NEWUTS) < 0)
		return err_set(e, -errno, "new ipc and uts namespaces: %m");
	made.fd[GA_NS_IPC] = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
	made.fd[GA_NS_UTS] = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
	if (made.fd[GA_NS_IPC] < 0 || made.fd[GA_NS_UTS] < 0)
		r = err_set(e, -errno, "open namespace: %m");
	/* Both were left by unshare(), also where opening one failed. */
	ASSERT(setns(own->fd[GA_NS_IPC], CLONE_NEWIPC) == 0);
	ASSERT(setns(own->fd[GA_NS_UTS], CLONE_NEWUTS) == 0);
	if (r < 0)
		ga_ns_close(&made);
	*out = made;
	return r;
}
