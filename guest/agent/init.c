#include "guest/agent/init.h"

#include <ctype.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/caps.h"
#include "guest/agent/hooks.h"
#include "guest/agent/limits.h"
#include "guest/agent/rootfs.h"
#include "guest/agent/sync.h"
#include "guest/agent/tty.h"
#include "guest/agent/user.h"

/* What the steps hand on to each other. */
struct ga_init {
	struct ga_launch *l;
	struct ga_rootfs rootfs;
	int master, slave; /* of the terminal; -1 = none */
	struct ga_user user;
	struct ga_caps caps;
	char **args, **env;  /* NULL-terminated, as execve(2) wants them */
	char file[PATH_MAX]; /* what args[0] turned out to be */
	int status;          /* what to exit with if the step fails */
};

/* ---- First: nothing of the agent's may be left (CVE-2024-21626, CVE-2019-5736) */

static int ga_init_descriptors(struct ga_init *in, struct err *e)
{
	struct ga_launch *l = in->l;
	int *keep[] = { &l->sync, &l->target, &l->stdio[0], &l->stdio[1], &l->stdio[2] };
	int high[ARRAY_LEN(keep)], next = 3;

	/* Out of the way first, so that none is overwritten before it is moved. */
	for (size_t i = 0; i < ARRAY_LEN(keep); i++) {
		high[i] = *keep[i] < 0 ? -1 : fcntl(*keep[i], F_DUPFD_CLOEXEC, 16);
		if (*keep[i] >= 0 && high[i] < 0)
			return err_set(e, -errno, "descriptors: %m");
	}
	for (size_t i = 0; i < ARRAY_LEN(keep); i++)
		if (high[i] >= 0 && dup3(high[i], *keep[i] = next++, O_CLOEXEC) < 0)
			return err_set(e, -errno, "descriptors: %m");
	fd_close_from((unsigned)next);
	log_setup(-1, LOG_ERROR);
	return 0;
}

static int ga_init_signals(struct ga_init *in, struct err *e)
{
	sigset_t none;

	(void)in;
	(void)e;
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL); /* fails for the two that cannot be changed */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	return 0;
}

/* Wait for the agent's word. It closing its end means we are not wanted any more. */
static int ga_init_wait_go(const struct ga_init *in, struct err *e)
{
	struct ga_sync_msg m;
	ssize_t r = fd_recv(in->l->sync, &m, sizeof m, NULL, NULL, 0);

	if (r != (ssize_t)sizeof m || m.kind != GA_SYNC_GO)
		return err_set(e, -ECANCELED, "cancelled");
	return 0;
}

/* ---- Namespaces */

static int ga_init_root_of_userns(struct err *e)
{
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_set(e, -errno, "become root of the user namespace: %m");
	return 0;
}

/* A container's first process: those that were made with it need a few settings. */
static int ga_init_new_namespaces(struct ga_init *in, struct err *e)
{
	const struct ga_launch *l = in->l;
	const Grpc__Spec *spec = l->spec;

	if (l->new_ns & CLONE_NEWUSER &&
	    (ga_init_wait_go(in, e) < 0 || ga_init_root_of_userns(e) < 0))
		return e->code;
	/* Not by clone: its root is the cgroup of who makes it, and that has to be us, in ours. */
	if (l->new_ns & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP) < 0)
		return err_set(e, -errno, "cgroup namespace: %m");
	if (l->sets_hostname && *spec->hostname &&
	    sethostname(spec->hostname, strlen(spec->hostname)) < 0)
		return err_set(e, -errno, "hostname \"%s\": %m", spec->hostname);
	if (l->sets_hostname && *spec->domainname &&
	    setdomainname(spec->domainname, strlen(spec->domainname)) < 0)
		return err_set(e, -errno, "domainname \"%s\": %m", spec->domainname);
	return 0;
}

/* A further process: all namespaces of the first at once. The root and the working directory become
 * those of the mount namespace. */
static int ga_init_join(struct ga_init *in, struct err *e)
{
	const struct ga_launch *l = in->l;

	/* Processes of the container must not look into us or trace us while we are still half
	 * outside (CVE-2016-9962). execve turns it on again. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_set(e, -errno, "dumpable: %m");
	if (setns(l->target, l->target_ns) < 0)
		return err_set(e, -errno, "join the container's namespaces: %m");
	close(l->target);
	if (l->target_ns & CLONE_NEWUSER)
		return ga_init_root_of_userns(e);
	return 0;
}

static int ga_init_session(struct ga_init *in, struct err *e)
{
	(void)in;
	return setsid() < 0 ? err_set(e, -errno, "setsid: %m") : 0;
}

/* ---- Through the agent's /proc, while it is still there */

static int ga_init_oom_score(struct ga_init *in, struct err *e)
{
	char text[32];
	int r;

	if (!in->l->process->oomscoreadj)
		return 0;
	snprintf(text, sizeof text, "%lld", (long long)in->l->process->oomscoreadj);
	r = path_put("/proc/self/oom_score_adj", text);
	return r < 0 ? err_set(e, r, "oom_score_adj %s: %s", text, strerror(-r)) : 0;
}

static int ga_init_sysctls(struct ga_init *in, struct err *e)
{
	return ga_limits_sysctls(in->l->spec->linux, e);
}

/* ---- Filesystem and terminal */

static int ga_init_rootfs_build(struct ga_init *in, struct err *e)
{
	in->rootfs = (struct ga_rootfs){
		.spec = in->l->spec,
		.cgroup_path = in->l->cgroup_path,
		.has_cgroup_ns = in->l->new_ns & CLONE_NEWCGROUP,
		.fd = -1,
	};
	return ga_rootfs_build(&in->rootfs, e);
}

static int ga_init_terminal(struct ga_init *in, struct err *e)
{
	const Grpc__Process *p = in->l->process;

	if (!p->terminal)
		return 0;
	if (ga_tty_open(in->rootfs.fd, &in->master, &in->slave, e) < 0)
		return e->code;
	if (p->consolesize && p->consolesize->height && p->consolesize->width)
		ga_tty_resize(in->master, p->consolesize->height, p->consolesize->width);
	return 0;
}

static int ga_init_console(struct ga_init *in, struct err *e)
{
	return in->slave < 0 ? 0 : ga_rootfs_console(&in->rootfs, in->slave, e);
}

static int ga_init_rootfs_enter(struct ga_init *in, struct err *e)
{
	return ga_rootfs_enter(&in->rootfs, e);
}

static int ga_init_exec_root(struct ga_init *in, struct err *e)
{
	in->rootfs.fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return in->rootfs.fd < 0 ? err_set(e, -errno, "/: %m") : 0;
}

/* Standard streams, owned by the user so that /dev/stdout can be opened again by name. */
static int ga_init_stdio(struct ga_init *in, struct err *e)
{
	const struct ga_launch *l = in->l;

	if (in->slave >= 0 && ioctl(in->slave, TIOCSCTTY, 0) < 0)
		return err_set(e, -errno, "controlling terminal: %m");
	for (int i = 0; i < 3; i++) {
		int from = in->slave >= 0 ? in->slave : l->stdio[i];
		if (dup2(from, i) < 0)
			return err_set(e, -errno, "standard streams: %m");
		if (fchown(i, in->user.uid, (gid_t)-1) < 0 && errno != EINVAL && errno != EPERM &&
		    errno != EROFS)
			return err_set(e, -errno, "owner of standard streams: %m");
	}
	if (in->rootfs.fd >= 0)
		close(in->rootfs.fd);
	return 0;
}

/* ---- Who and where */

/* errno in words as users of other runtimes know them: "permission denied". */
static const char *ga_init_reason(int code)
{
	static char text[64];

	snprintf(text, sizeof text, "%s", strerror(code < 0 ? -code : code));
	text[0] = (char)tolower((unsigned char)text[0]);
	return text;
}

static int ga_init_user(struct ga_init *in, struct err *e)
{
	return ga_user_resolve(in->l->process->user, in->l->string_user, &in->user, e);
}

/* Arguments and environment; HOME is what programs expect and only the image knows. */
static int ga_init_words(struct ga_init *in, struct err *e)
{
	const Grpc__Process *p = in->l->process;
	bool has_home = false;

	if (!p->n_args)
		return err_set(e, -EINVAL, "process.args is empty");
	in->args = mem_calloc(p->n_args + 1, sizeof *in->args);
	memcpy(in->args, p->args, p->n_args * sizeof *in->args);
	in->env = mem_calloc(p->n_env + 2, sizeof *in->env);
	for (size_t i = 0; i < p->n_env; i++) {
		in->env[i] = p->env[i];
		has_home |= str_starts(p->env[i], "HOME=");
	}
	if (!has_home)
		in->env[p->n_env] = mem_printf("HOME=%s", *in->user.home ? in->user.home : "/");
	return 0;
}

static int ga_init_limits(struct ga_init *in, struct err *e)
{
	umask(in->l->process->umask_case ? in->l->process->umask & 0777 : 0022);
	return ga_limits_apply(in->l->process, e);
}

/* As root: a directory the image lacks is made. */
static int ga_init_make_cwd(struct ga_init *in, struct err *e)
{
	const char *cwd = in->l->process->cwd;

	if (*cwd && *cwd != '/')
		return err_set(e, -EINVAL, "Cwd must be an absolute path: \"%s\"", cwd);
	if (*cwd && access(cwd, F_OK) < 0 && errno == ENOENT)
		(void)!path_mkdirs(cwd, 0755, NULL); /* chdir tells what it is about */
	return 0;
}

static int ga_init_credentials(struct ga_init *in, struct err *e)
{
	bool keep_admin = in->l->seccomp.len && !in->l->process->nonewprivileges;

	ga_caps_parse(in->l->process->capabilities, &in->caps);
	if (ga_caps_prepare(&in->caps, e) < 0 || ga_user_become(&in->user, e) < 0 ||
	    ga_caps_apply(&in->caps, keep_admin, e) < 0)
		return e->code;
	if (in->l->process->nonewprivileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "no_new_privs: %m");
	return 0;
}

/* As the user: whether it may be there is part of the question. A magic link (/proc/self/fd/7)
 * could have led out of the root: then the kernel has no path for where we are (CVE-2024-21626). */
static int ga_init_enter_cwd(struct ga_init *in, struct err *e)
{
	const char *cwd = *in->l->process->cwd ? in->l->process->cwd : "/";
	char now[PATH_MAX];

	if (chdir(cwd) < 0)
		return err_set(e, -errno, "chdir to cwd (\"%s\") set in config.json failed: %s",
			       cwd, ga_init_reason(errno));
	if (!getcwd(now, sizeof now) || now[0] != '/')
		return err_set(e, -EPERM,
			       "current working directory is outside of container mount "
			       "namespace root -- possible container breakout detected");
	return 0;
}

/* ---- Ready, steady */

static int ga_init_ready(struct ga_init *in, struct err *e)
{
	struct ga_sync_msg m = { .kind = GA_SYNC_READY };
	ssize_t r = fd_send(in->l->sync, &m, sizeof m, &in->master, in->master >= 0, 0);

	if (r < 0)
		return err_set(e, (int)r, "report: %s", strerror((int)-r));
	/* The master is the agent's alone now, or its closing would not hang up the terminal. */
	if (in->master >= 0)
		close(in->master);
	return ga_init_wait_go(in, e);
}

static int ga_init_hooks(struct ga_init *in, struct err *e)
{
	return ga_hooks_run(in->l->spec->hooks, in->l->spec, in->l->id, e);
}

/* With no_new_privs anybody may load a filter. Without, it takes CAP_SYS_ADMIN, which is then given
 * up by a single capset() under the filter. */
static int ga_init_seccomp(struct ga_init *in, struct err *e)
{
	const struct ga_launch *l = in->l;

	if (!l->seccomp.len)
		return 0;
	if (!l->process->nonewprivileges && ga_caps_raise_admin(&in->caps, e) < 0)
		return e->code;
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, l->seccomp_flags, &l->seccomp) < 0)
		return err_set(e, -errno, "load seccomp filter: %m");
	return l->process->nonewprivileges ? 0 : ga_caps_final(&in->caps, e);
}

/* ---- execve */

static const char *ga_init_getenv(char *const *env, const char *name)
{
	for (; *env; env++)
		if (str_starts(*env, name) && (*env)[strlen(name)] == '=')
			return *env + strlen(name) + 1;
	return NULL;
}

/* The directories of PATH in order; what may not be executed is passed over. */
static int ga_init_search(const char *name, const char *path, char *out, size_t size)
{
	while (path) {
		size_t n = strcspn(path, ":");
		struct stat st;
		int len = snprintf(out, size, "%.*s%s%s", (int)n, path, n ? "/" : "", name);
		path = path[n] ? path + n + 1 : NULL;
		if (len < 0 || (size_t)len >= size || stat(out, &st) < 0 || S_ISDIR(st.st_mode))
			continue;
		if (access(out, X_OK) == 0)
			return 0;
	}
	return -ENOENT;
}

/* A path, relative to the working directory or not. */
static int ga_init_look(struct ga_init *in, const char *name, struct err *e)
{
	struct stat st;

	if (stat(name, &st) < 0) {
		in->status = errno == EACCES ? 126 : 127;
		return err_set(e, -errno, "exec: \"%s\": stat %s: %s", name, name, ga_init_reason(errno));
	}
	in->status = 126;
	if (S_ISDIR(st.st_mode) || access(name, X_OK) < 0)
		return err_set(e, -EACCES, "exec: \"%s\": permission denied", name);
	return snprintf(in->file, sizeof in->file, "%s", name) < 0 ? -EIO : 0;
}

/* Before the seccomp filter, which need not allow what a search takes. */
static int ga_init_find(struct ga_init *in, struct err *e)
{
	const char *name = in->args[0];
	const char *path = ga_init_getenv(in->env, "PATH");
	int r;

	if (strchr(name, '/'))
		return ga_init_look(in, name, e);
	if (!path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	r = *name ? ga_init_search(name, path, in->file, sizeof in->file) : -ENOENT;
	if (r == 0)
		return 0;
	in->status = 127;
	return err_set(e, r, "exec: \"%s\": executable file not found in $PATH", name);
}

static int ga_init_exec(struct ga_init *in, struct err *e)
{
	int code;

	execve(in->file, in->args, in->env);
	code = -errno;
	in->status = code == -ENOENT || code == -ENOTDIR ? 127 : 126;
	if (code == -EACCES)
		err_set(e, code, "exec: \"%s\": permission denied", in->args[0]);
	else
		err_set(e, code, "exec %s: %s", in->file, ga_init_reason(code));
	if (in->l->says_why) {
		in->status = 1;
		dprintf(2, "%s\n", e->msg);
	}
	return code;
}

/* ---- The two ways in */

struct ga_init_step {
	int (*run)(struct ga_init *in, struct err *e);
	const char *what; /* put before the message; NULL = the message says it all */
};

static const struct ga_init_step ga_init_create[] = {
	{ ga_init_descriptors, "init" },
	{ ga_init_signals, "init" },
	{ ga_init_new_namespaces, "namespaces" },
	{ ga_init_session, "init" },
	{ ga_init_oom_score, "init" },
	{ ga_init_rootfs_build, NULL },
	{ ga_init_sysctls, NULL },
	{ ga_init_terminal, "terminal" },
	{ ga_init_console, "terminal" },
	{ ga_init_rootfs_enter, NULL },
	{ ga_init_user, NULL },
	{ ga_init_words, "init" },
	{ ga_init_stdio, "init" },
	{ ga_init_limits, NULL },
	{ ga_init_make_cwd, NULL },
	{ ga_init_credentials, "init" },
	{ ga_init_enter_cwd, NULL },
	{ ga_init_find, NULL }, /* what is not there is told when it is created, not when it is started */
	{ ga_init_ready, "init" },
	{ ga_init_hooks, NULL },
	{ ga_init_seccomp, NULL },
	{ ga_init_exec, NULL },
};

static const struct ga_init_step ga_init_join_steps[] = {
	{ ga_init_descriptors, "init" },
	{ ga_init_signals, "init" },
	{ ga_init_oom_score, "init" },
	{ ga_init_join, NULL }, /* from here on the container's tree */
	{ ga_init_session, "init" },
	{ ga_init_exec_root, "init" },
	{ ga_init_terminal, "terminal" },
	{ ga_init_user, NULL },
	{ ga_init_words, "init" },
	{ ga_init_stdio, "init" },
	{ ga_init_limits, NULL },
	{ ga_init_make_cwd, NULL },
	{ ga_init_credentials, "init" },
	{ ga_init_enter_cwd, NULL },
	{ ga_init_ready, "init" }, /* and wait to be let go */
	{ ga_init_find, NULL },
	{ ga_init_seccomp, NULL },
	{ ga_init_exec, NULL },
};

static NORETURN void ga_init_fail(const struct ga_init *in, const struct err *e)
{
	struct ga_sync_msg m = { .kind = GA_SYNC_FAIL, .code = e->code, .status = in->status };

	memcpy(m.text, e->msg, sizeof m.text);
	(void)!fd_send(in->l->sync, &m, sizeof m, NULL, 0, 0);
	_exit(in->status);
}

void ga_init_main(struct ga_launch *l)
{
	bool is_exec = l->spec == NULL;
	const struct ga_init_step *steps = is_exec ? ga_init_join_steps : ga_init_create;
	size_t n = is_exec ? ARRAY_LEN(ga_init_join_steps) : ARRAY_LEN(ga_init_create);
	struct ga_init in = { .l = l, .master = -1, .slave = -1, .status = 1 };
	struct err e = { 0 };

	in.rootfs.fd = -1;
	for (size_t i = 0; i < n; i++) {
		if (steps[i].run(&in, &e) == 0)
			continue;
		if (steps[i].what)
			err_wrap(&e, "%s", steps[i].what);
		break;
	}
	ga_init_fail(&in, &e);
}
