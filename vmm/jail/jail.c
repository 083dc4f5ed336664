#include "vmm/jail/jail.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "amalgam/base/fd.h"

#define JAIL_MAX_THREADS 512

/* stdio on /dev/null, the control socket at JAIL_CTL_FD, nothing else. */
static int jail_close_all(const struct jail_spec *spec, int *root_fd, struct err *e)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int ctl = fcntl(spec->ctl_fd, F_DUPFD_CLOEXEC, 10);

	*root_fd = fcntl(spec->root_fd, F_DUPFD_CLOEXEC, 10);
	if (null < 0 || ctl < 0 || *root_fd < 0)
		return err_set(e, -errno, "jail: descriptors: %m");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null, fd) < 0)
			return err_set(e, -errno, "jail: stdio: %m");
	if (dup2(ctl, JAIL_CTL_FD) < 0)
		return err_set(e, -errno, "jail: control socket: %m");
	*root_fd = dup2(*root_fd, JAIL_CTL_FD + 1);
	if (*root_fd < 0)
		return err_set(e, -errno, "jail: root: %m");
	fd_close_from(JAIL_CTL_FD + 2);
	return 0;
}

static int jail_set_limits(struct err *e)
{
	static const struct {
		int what;
		struct rlimit limit;
	} rows[] = {
		{ RLIMIT_CORE, { 0, 0 } },         /* a core dump would hold guest memory */
		{ RLIMIT_NOFILE, { 4096, 4096 } }, /* vsock streams, slots */
		{ RLIMIT_MEMLOCK, { 0, 0 } },
		/* Of this uid, which is ours alone: vCPUs and disk workers. */
		{ RLIMIT_NPROC, { JAIL_MAX_THREADS, JAIL_MAX_THREADS } },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		if (setrlimit(rows[i].what, &rows[i].limit) < 0)
			return err_set(e, -errno, "jail: setrlimit: %m");
	return 0;
}

static int jail_drop_root(int root_fd, struct err *e)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };
	uid_t id = JAIL_UID_BASE + (uid_t)getpid();

	if (fchdir(root_fd) < 0 || chroot(".") < 0)
		return err_set(e, -errno, "jail: chroot: %m");
	close(root_fd);
	if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
		return err_set(e, -errno, "jail: change user: %m");
	/* setresuid() from 0 emptied the effective and permitted sets; empty what could refill them. */
	if (syscall(SYS_capset, &head, none) < 0)
		return err_set(e, -errno, "jail: capset: %m");
	return 0;
}

int jail_enter(const struct jail_spec *spec, struct err *e)
{
	int root_fd, r;

	/* Own session: a Ctrl-C meant for the person's shell must not stop the machine. */
	setsid();
	if ((r = jail_close_all(spec, &root_fd, e)) < 0 || (r = jail_set_limits(e)) < 0)
		return r;
	if ((r = jail_drop_root(root_fd, e)) < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "jail: no_new_privs: %m");
	/* A change of user clears it, so it stands after that; the parent may be gone already. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != spec->parent)
		return err_set(e, -ESRCH, "jail: the supervisor is gone");
	prctl(PR_SET_NAME, "spore-vmm");
	return jail_install_filter(spec->on_trap, e);
}
