#include "guest/agent/idmap.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/syscall.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "guest/agent/user.h"

/* The kernel takes a mapping in the shape of a user namespace, and one needs somebody living in it:
 * this child, until its pipe is closed. It tells the pid that /proc knows it by; the one fork()
 * returned counts in a namespace of the container. */
static NORETURN void ga_idmap_dweller(int up, int down)
{
	char pid[16] = "", end;

	if (unshare(CLONE_NEWUSER) < 0 || readlink("/proc/self", pid, sizeof pid - 1) < 0)
		_exit(1);
	(void)!write(up, pid, sizeof pid);
	(void)!read(down, &end, 1);
	_exit(0);
}

static int ga_idmap_open(const char *pid, Grpc__LinuxIDMapping *const *uids, size_t n_uids,
			 Grpc__LinuxIDMapping *const *gids, size_t n_gids, struct err *e)
{
	AUTO_FREE char *path = mem_printf("/proc/%s/ns/user", pid);
	int fd;

	if (ga_user_write_map(pid, "uid_map", uids, n_uids, e) < 0 ||
	    ga_user_write_map(pid, "gid_map", gids, n_gids, e) < 0)
		return e->code;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_set(e, -errno, "%s: %m", path) : fd;
}

/* A user namespace with these mappings; its descriptor outlives the child. */
static int ga_idmap_userns(Grpc__LinuxIDMapping *const *uids, size_t n_uids,
			   Grpc__LinuxIDMapping *const *gids, size_t n_gids, struct err *e)
{
	int up[2] = { -1, -1 }, down[2] = { -1, -1 }, fd;
	char name[16] = "";
	pid_t pid;

	if (pipe2(up, O_CLOEXEC) < 0 || pipe2(down, O_CLOEXEC) < 0)
		return err_set(e, -errno, "pipe: %m");
	pid = fork();
	if (pid == 0) {
		close(down[1]);
		ga_idmap_dweller(up[1], down[0]);
	}
	close(up[1]);
	close(down[0]);
	fd = pid < 0 ? -errno : fd_read_full(up[0], name, sizeof name);
	if (fd < 0)
		err_set(e, fd, "user namespace for the mapping: %s", strerror(-fd));
	else
		fd = ga_idmap_open(name, uids, n_uids, gids, n_gids, e);
	close(up[0]);
	close(down[1]);
	if (pid > 0)
		(void)proc_wait(pid);
	return fd;
}

int ga_idmap_apply(int mount_fd, bool recursive, const Grpc__Mount *m, const Grpc__Linux *l,
		   struct err *e)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_IDMAP };
	AUTO_CLOSE int ns = -1;

	if (m->n_uid_mappings || m->n_gid_mappings)
		ns = ga_idmap_userns(m->uid_mappings, m->n_uid_mappings, m->gid_mappings,
				     m->n_gid_mappings, e);
	else
		ns = ga_idmap_userns(l->uidmappings, l->n_uidmappings, l->gidmappings,
				     l->n_gidmappings, e);
	if (ns < 0)
		return err_wrap(e, "idmapped mount");
	a.userns_fd = (uint64_t)ns;
	if (syscall(SYS_mount_setattr, mount_fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0),
		    &a, sizeof a) < 0)
		return err_set(e, -errno, "idmapped mount: %m");
	return 0;
}
