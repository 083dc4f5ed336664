#include "vmm/jail/jail.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "amalgam/base/fd.h"

#define JAIL_PROC_FD     (JAIL_CTL_FD + 2) /* until file threads have it; the root is in between */
#define JAIL_MAX_THREADS 512
#define JAIL_MAX_FILES   (1 << 20)

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

/* A server holds a descriptor for each file its guest knows of: as many as this host lets anybody have
 * (fs.nr_open, 2^20 unless somebody changed it), or as we may have already. */
static int jail_raise_files(void)
{
	struct rlimit l = { JAIL_MAX_FILES, JAIL_MAX_FILES };

	if (setrlimit(RLIMIT_NOFILE, &l) == 0)
		return 0;
	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return -errno;
	l.rlim_cur = l.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &l) < 0 ? -errno : 0;
}

static int jail_set_limits(bool serves_files, struct err *e)
{
	static const struct {
		int what;
		struct rlimit limit;
	} rows[] = {
		{ RLIMIT_CORE, { 0, 0 } }, /* a core dump would hold guest memory */
		{ RLIMIT_MEMLOCK, { 0, 0 } },
		/* Of this uid, which is ours alone: vCPUs, disk workers, file threads. */
		{ RLIMIT_NPROC, { JAIL_MAX_THREADS, JAIL_MAX_THREADS } },
		{ RLIMIT_NOFILE, { 4096, 4096 } }, /* vsock streams, slots */
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows) - serves_files; i++)
		if (setrlimit(rows[i].what, &rows[i].limit) < 0)
			return err_set(e, -errno, "jail: setrlimit: %m");
	if (serves_files && jail_raise_files() < 0)
		return err_set(e, -errno, "jail: RLIMIT_NOFILE: %m");
	return 0;
}

static int jail_change_root(int root_fd, struct err *e)
{
	if (fchdir(root_fd) < 0 || chroot(".") < 0)
		return err_set(e, -errno, "jail: chroot: %m");
	close(root_fd);
	return 0;
}

/* Of this thread. musl's own functions would change every thread's user, with signals to them. */
static int jail_change_user(struct err *e)
{
	uid_t id = JAIL_UID_BASE + (uid_t)getpid();

	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, id, id, id) < 0 ||
	    syscall(SYS_setresuid, id, id, id) < 0)
		return err_set(e, -errno, "jail: change user: %m");
	return 0;
}

static int jail_set_caps(uint64_t keep, struct err *e)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2] = {
		{ .effective = (uint32_t)keep, .permitted = (uint32_t)keep },
		{ .effective = (uint32_t)(keep >> 32), .permitted = (uint32_t)(keep >> 32) },
	};

	if (syscall(SYS_capset, &head, caps) < 0)
		return err_set(e, -errno, "jail: capset: %m");
	return 0;
}

/* --- file threads ---------------------------------------------------------------------------------- */

#define JAIL_CAP(c) (UINT64_C(1) << CAP_##c)
#define JAIL_FILE_CAPS                                                                             \
	(JAIL_CAP(CHOWN) | JAIL_CAP(DAC_OVERRIDE) | JAIL_CAP(DAC_READ_SEARCH) | JAIL_CAP(FOWNER) |   \
	 JAIL_CAP(FSETID) | JAIL_CAP(MKNOD) | JAIL_CAP(SETFCAP) | JAIL_CAP(SETUID) | JAIL_CAP(SETGID))

/* Capabilities stay as they are whatever the user is, and an execve, which is not allowed anyway, brings
 * none: capabilities(7), "The securebits flags". */
#define JAIL_SECUREBITS                                                                      \
	(SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NOROOT |              \
	 SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |         \
	 SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

/* Nothing can be gained any more: no bounding set, no ambient set, no inheritable set. */
static int jail_close_caps(struct err *e)
{
	if (prctl(PR_SET_SECUREBITS, JAIL_SECUREBITS, 0, 0, 0) < 0)
		return err_set(e, -errno, "jail: securebits: %m");
	for (unsigned cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return err_set(e, -errno, "jail: bounding set: %m");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_set(e, -errno, "jail: ambient set: %m");
	return 0;
}

int jail_enter_files(struct err *e)
{
	int r;

	if (unshare(CLONE_FS) < 0 || fchdir(JAIL_PROC_FD) < 0)
		return err_set(e, -errno, "jail: own working directory: %m");
	if ((r = jail_close_caps(e)) < 0 || (r = jail_change_user(e)) < 0)
		return r;
	/* They followed the user. They cannot fail: there is no error to look at. */
	syscall(SYS_setfsgid, 0);
	syscall(SYS_setfsuid, 0);
	if ((r = jail_set_caps(JAIL_FILE_CAPS, e)) < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "jail: no_new_privs: %m");
	prctl(PR_SET_NAME, "spore-files");
	return jail_install_filter(JAIL_FILES, e);
}

/* To JAIL_PROC_FD, the first that is free. */
static int jail_open_proc(struct err *e)
{
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc/self/fd",
			      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	ASSERT(fd < 0 || fd == JAIL_PROC_FD);
	return fd < 0 ? err_set(e, -errno, "jail: /proc/self/fd: %m") : 0;
}

/* What file threads share with us: root, umask, descriptors. */
static int jail_start_files(const struct jail_spec *spec, struct err *e)
{
	int r;

	umask(0);                 /* modes are the guest's */
	signal(SIGXFSZ, SIG_IGN); /* a limit of the person who started us is an error, not the end */
	r = spec->start_files(spec->arg, e);
	close(JAIL_PROC_FD);
	return r;
}

/* --- the whole --------------------------------------------------------------------------------------- */

int jail_enter(const struct jail_spec *spec, struct err *e)
{
	int root_fd, r;

	/* Own session: a Ctrl-C meant for the person's shell must not stop the machine. */
	setsid();
	if ((r = jail_close_all(spec, &root_fd, e)) < 0 ||
	    (r = jail_set_limits(spec->start_files, e)) < 0 ||
	    (spec->start_files && (r = jail_open_proc(e)) < 0) ||
	    (r = jail_change_root(root_fd, e)) < 0)
		return r;
	jail_setup_trap(spec->on_trap);
	if (spec->start_files && (r = jail_start_files(spec, e)) < 0)
		return r;
	/* setresuid() from 0 empties the effective and permitted sets; empty what could refill them. */
	if ((r = jail_change_user(e)) < 0 || (r = jail_set_caps(0, e)) < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "jail: no_new_privs: %m");
	/* A change of user clears it, so it stands after that; the parent may be gone already. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != spec->parent)
		return err_set(e, -ESRCH, "jail: the supervisor is gone");
	prctl(PR_SET_NAME, "spore-vmm");
	return jail_install_filter(JAIL_MACHINE, e);
}
