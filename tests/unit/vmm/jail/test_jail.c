#include <dirent.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "amalgam/base/fd.h"
#include "tests/unit/test.h"
#include "vmm/jail/jail.h"

/* What a jailed process finds out about itself, sent to the test. */
struct tjroom_report {
	int code; /* of jail_enter() or what stands in for it */
	char msg[128];
	uid_t ruid, euid, suid;
	gid_t rgid, egid, sgid;
	int groups;
	uint32_t effective, permitted, inheritable;
	int open_flags[16]; /* F_GETFD of descriptors 0..15, -1 = closed */
	bool null[3];       /* stdio is /dev/null */
	rlim_t core, nofile, memlock;
	pid_t sid, pid;
	int no_new_privs, seccomp;
	int create, mkdir, link, above; /* errno of trying it in "/" */
	int entries;                    /* names in "/" besides . and .. */
};

static void tjroom_look_inside(struct tjroom_report *r)
{
	struct stat st, null = { .st_rdev = 0x103 };

	for (int fd = 0; fd < 16; fd++)
		r->open_flags[fd] = fcntl(fd, F_GETFD);
	for (int fd = 0; fd < 3; fd++)
		r->null[fd] = fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == null.st_rdev;
	r->pid = (pid_t)syscall(SYS_getpid);
}

/* Everything that needs calls the filter has not. */
static void tjroom_look_around(struct tjroom_report *r)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	struct rlimit l;
	DIR *d;

	getresuid(&r->ruid, &r->euid, &r->suid);
	getresgid(&r->rgid, &r->egid, &r->sgid);
	r->groups = getgroups(0, NULL);
	if (syscall(SYS_capget, &head, caps) == 0) {
		r->effective = caps[0].effective | caps[1].effective;
		r->permitted = caps[0].permitted | caps[1].permitted;
		r->inheritable = caps[0].inheritable | caps[1].inheritable;
	}
	getrlimit(RLIMIT_CORE, &l);
	r->core = l.rlim_max;
	getrlimit(RLIMIT_NOFILE, &l);
	r->nofile = l.rlim_max;
	getrlimit(RLIMIT_MEMLOCK, &l);
	r->memlock = l.rlim_max;
	r->create = open("/new", O_RDWR | O_CREAT, 0600) < 0 ? errno : 0;
	r->mkdir = mkdir("/new", 0700) < 0 ? errno : 0;
	r->link = symlink("/", "/new") < 0 ? errno : 0;
	r->above = open("/../../../../../../etc", O_RDONLY | O_DIRECTORY) < 0 ? errno : 0;
	d = opendir("/");
	for (struct dirent *e; d && (e = readdir(d));)
		r->entries += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	if (d)
		closedir(d);
}

/* The empty, already deleted directory a machine is given. */
static int tjroom_root(void)
{
	char path[128];
	int fd;

	snprintf(path, sizeof path, "%s/root", test_dir());
	CHECK_EQ(mkdir(path, 0700), 0);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(rmdir(path), 0);
	return fd;
}

static void tjroom_no_trap(int nr)
{
	(void)nr;
}

/* What a jail has to take away besides the user: groups, and capabilities an exec would bring back. */
static void tjroom_have_much(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];

	if (setgroups(2, (gid_t[]){ 4, 27 }) < 0 || syscall(SYS_capget, &head, caps) < 0)
		_exit(1);
	for (unsigned i = 0; i < 2; i++)
		caps[i].inheritable = caps[i].permitted;
	if (syscall(SYS_capset, &head, caps) < 0)
		_exit(1);
}

/* In a child: the jail without its filter, or with it; then the report comes over the socket that
 * became JAIL_CTL_FD. */
static NORETURN void tjroom_child(int root, int ctl, bool with_filter)
{
	const struct jail_spec spec = { root, ctl, getppid(), tjroom_no_trap, NULL, NULL };
	struct tjroom_report r = { .seccomp = -1 };
	struct err e = { 0 };
	int root_fd;

	tjroom_have_much();
	if (with_filter) {
		r.code = jail_enter(&spec, &e);
	} else {
		setsid();
		if ((r.code = jail_close_all(&spec, &root_fd, &e)) == 0 &&
		    (r.code = jail_set_limits(false, &e)) == 0 &&
		    (r.code = jail_change_root(root_fd, &e)) == 0 &&
		    (r.code = jail_change_user(&e)) == 0)
			r.code = jail_set_caps(0, &e);
		r.sid = getsid(0);
	}
	snprintf(r.msg, sizeof r.msg, "%.100s", e.msg);
	tjroom_look_inside(&r);
	if (!with_filter)
		tjroom_look_around(&r);
	if (fd_send(r.code < 0 ? ctl : JAIL_CTL_FD, &r, sizeof r, NULL, 0, 0) < 0)
		syscall(SYS_exit_group, 1);
	/* with the filter: stay until the test has looked at /proc */
	(void)!read(JAIL_CTL_FD, &r, sizeof r);
	syscall(SYS_exit_group, 0);
	__builtin_unreachable();
}

struct tjroom {
	struct tjroom_report r;
	int sock;
	pid_t pid;
};

static void tjroom_start(struct tjroom *t, bool with_filter)
{
	int sv[2], root, high;

	if (getuid() != 0) {
		printf("# SKIP a jail is made by root\n");
		exit(0);
	}
	root = tjroom_root();
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	/* things that must not stay open */
	for (int i = 0; i < 5; i++)
		CHECK(open("/etc/passwd", O_RDONLY) >= 0);
	high = fcntl(sv[1], F_DUPFD, 500);
	CHECK(high >= 500);
	fflush(stdout);
	t->pid = fork();
	if (t->pid == 0)
		tjroom_child(root, sv[1], with_filter);
	close(sv[1]);
	close(high);
	close(root);
	t->sock = sv[0];
	CHECK_EQ(read(t->sock, &t->r, sizeof t->r), sizeof t->r);
	if (t->r.code < 0)
		test_fail(__FILE__, __LINE__, "%s", t->r.msg);
}

static void tjroom_end(struct tjroom *t)
{
	int status;

	close(t->sock);
	CHECK_EQ(waitpid(t->pid, &status, 0), t->pid);
	CHECK_EQ(status, 0);
}

TEST(jail_gives_a_process_a_user_of_its_own)
{
	struct tjroom t;

	tjroom_start(&t, false);
	CHECK_EQ(t.r.ruid, JAIL_UID_BASE + (uid_t)t.pid);
	CHECK_EQ(t.r.euid, t.r.ruid);
	CHECK_EQ(t.r.suid, t.r.ruid);
	CHECK_EQ(t.r.rgid, t.r.ruid);
	CHECK_EQ(t.r.egid, t.r.ruid);
	CHECK_EQ(t.r.sgid, t.r.ruid);
	CHECK_EQ(t.r.groups, 0);
	CHECK_EQ(t.r.effective | t.r.permitted | t.r.inheritable, 0);
	tjroom_end(&t);
}

TEST(jail_root_is_empty_and_nothing_can_be_made_in_it)
{
	struct tjroom t;

	tjroom_start(&t, false);
	CHECK_EQ(t.r.entries, 0);
	CHECK(t.r.create == ENOENT || t.r.create == EACCES);
	CHECK(t.r.mkdir == ENOENT || t.r.mkdir == EACCES);
	CHECK(t.r.link == ENOENT || t.r.link == EACCES);
	CHECK(t.r.above == ENOENT || t.r.above == EACCES);
	tjroom_end(&t);
}

TEST(jail_leaves_only_stdio_and_the_control_socket_open)
{
	struct tjroom t;

	for (unsigned with_filter = 0; with_filter < 2; with_filter++) {
		DIR *d;
		char path[64];
		unsigned n = 0;

		tjroom_start(&t, with_filter);
		for (int fd = 0; fd < 16; fd++) {
			test_note("descriptor %d", fd);
			CHECK_EQ(t.r.open_flags[fd] >= 0, fd <= JAIL_CTL_FD);
			CHECK(fd >= 3 || t.r.null[fd]);
		}
		snprintf(path, sizeof path, "/proc/%d/fd", t.pid);
		d = opendir(path);
		CHECK(d);
		for (struct dirent *e; (e = readdir(d));)
			n += e->d_name[0] != '.';
		closedir(d);
		CHECK_EQ(n, 4);
		tjroom_end(&t);
	}
}

TEST(jail_limits_what_a_process_may_use)
{
	struct tjroom t;

	tjroom_start(&t, false);
	CHECK_EQ(t.r.core, 0);
	CHECK_EQ(t.r.nofile, 4096);
	CHECK_EQ(t.r.memlock, 0);
	CHECK_EQ(t.r.sid, t.pid); /* a session of its own: no terminal reaches it */
	tjroom_end(&t);
}

/* The line of /proc/PID/status that begins with key. */
static void tjroom_status(pid_t pid, const char *key, char *out, size_t n)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	f = fopen(path, "r");
	CHECK(f);
	*out = '\0';
	while (fgets(line, sizeof line, f))
		if (strncmp(line, key, strlen(key)) == 0)
			snprintf(out, n, "%.*s", (int)strcspn(line + strlen(key), "\n"), line + strlen(key));
	fclose(f);
}

TEST(jail_as_the_kernel_sees_it)
{
	static const struct {
		const char *key, *want;
	} row[] = {
		{ "Name:\t", "spore-vmm" },
		{ "NoNewPrivs:\t", "1" },
		{ "Seccomp:\t", "2" },
		{ "Groups:\t", " " },
		{ "CapInh:\t", "0000000000000000" },
		{ "CapPrm:\t", "0000000000000000" },
		{ "CapEff:\t", "0000000000000000" },
		{ "CapAmb:\t", "0000000000000000" },
	};
	struct tjroom t;
	char got[128], want[128], path[64];
	ssize_t n;

	tjroom_start(&t, true);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("%s", row[i].key);
		tjroom_status(t.pid, row[i].key, got, sizeof got);
		CHECK_STR(got, row[i].want);
	}
	snprintf(want, sizeof want, "%u\t%u\t%u\t%u", JAIL_UID_BASE + t.pid, JAIL_UID_BASE + t.pid,
		 JAIL_UID_BASE + t.pid, JAIL_UID_BASE + t.pid);
	tjroom_status(t.pid, "Uid:\t", got, sizeof got);
	CHECK_STR(got, want);
	tjroom_status(t.pid, "Gid:\t", got, sizeof got);
	CHECK_STR(got, want);
	snprintf(path, sizeof path, "/proc/%d/root", t.pid);
	n = readlink(path, got, sizeof got - 1);
	CHECK(n > 0);
	got[n] = '\0';
	CHECK_HAS(got, "(deleted)");
	CHECK_EQ(t.r.pid, t.pid);
	tjroom_end(&t);
}

TEST(jail_says_what_it_could_not_do)
{
	struct err e = { 0 };
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) { /* a root that is no directory */
		int null = open("/dev/null", O_RDWR), sv[2];
		struct jail_spec spec = { null, -1, getppid(), tjroom_no_trap, NULL, NULL };
		int r;
		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv) < 0)
			_exit(2);
		spec.ctl_fd = sv[0];
		if (getuid() && setuid(65534) < 0)
			_exit(3);
		r = jail_enter(&spec, &e);
		syscall(SYS_exit_group, r < 0 && strstr(e.msg, "jail: chroot: ") ? 0 : 1);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}
