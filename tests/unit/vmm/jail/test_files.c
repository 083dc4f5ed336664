#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "amalgam/base/fd.h"
#include "amalgam/resource/share.h"
#include "tests/unit/test.h"
#include "vmm/jail/jail.h"



/* What a file thread found out, and the main thread beside it. */
struct tjf_report {
	int code;
	char msg[128];
	int tid; /* of the file thread */
	int passwd, dev, above, above_dir, root; /* errno of opening, 0 = it worked */
	int made, owner_uid, owner_gid, mode;
	int node, node_opened, reopened, proc_above, proc_far_above;
	rlim_t nofile;
};

struct tjf {
	int share, out; /* the directory shared; the test's end of the socket */
	struct tjf_report r;
	pthread_t thread;
	int ready[2];
};

static struct tjf tjf; /* the child's */

static int tjf_open(int at, const char *path, int flags)
{
	int fd = (int)syscall(SYS_openat, at, path, flags | O_CLOEXEC, 0644);

	return fd < 0 ? errno : (close(fd), 0);
}

/* Calls of the file thread's list alone. */
static void tjf_try(struct tjf *t)
{
	struct tjf_report *r = &t->r;
	char name[16];
	struct statx st;
	int fd, dir, path;

	r->passwd = tjf_open(AT_FDCWD, "/etc/passwd", O_RDONLY);
	r->dev = tjf_open(AT_FDCWD, "/dev/null", O_RDONLY);
	r->root = tjf_open(AT_FDCWD, "/new", O_RDWR | O_CREAT);
	r->above = tjf_open(t->share, "../../../../../etc/passwd", O_RDONLY);
	dir = (int)syscall(SYS_openat, t->share, "..", O_RDONLY | O_DIRECTORY);
	r->above_dir = dir < 0 ? errno : tjf_open(dir, "outside", O_RDONLY);
	syscall(SYS_setfsgid, 77);
	syscall(SYS_setfsuid, 66);
	fd = (int)syscall(SYS_openat, t->share, "new", O_RDWR | O_CREAT | O_EXCL, 0642);
	syscall(SYS_setfsuid, 0);
	syscall(SYS_setfsgid, 0);
	r->made = fd < 0 ? errno : 0;
	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) == 0) {
		r->owner_uid = (int)st.stx_uid;
		r->owner_gid = (int)st.stx_gid;
		r->mode = st.stx_mode & 07777;
	}
	/* 1:5 is /dev/zero */
	r->node = syscall(SYS_mknodat, t->share, "node", S_IFCHR | 0666, 0x105) < 0 ? errno : 0;
	r->node_opened = tjf_open(t->share, "node", O_RDONLY);
	/* A file that only an O_PATH descriptor names, opened through the working directory. */
	path = (int)syscall(SYS_openat, t->share, "new", O_PATH);
	snprintf(name, sizeof name, "%d", path);
	r->reopened = tjf_open(AT_FDCWD, name, O_RDWR);
	r->proc_above = tjf_open(AT_FDCWD, "../status", O_RDONLY);
	r->proc_far_above = tjf_open(AT_FDCWD, "../../../etc/passwd", O_RDONLY);
}

static void *tjf_thread(void *arg)
{
	struct tjf *t = arg;
	struct err e = { 0 };
	int never = 0;

	t->r.tid = (int)syscall(SYS_gettid);
	t->r.code = jail_enter_files(&e);
	snprintf(t->r.msg, sizeof t->r.msg, "%.100s", e.msg);
	if (t->r.code == 0)
		tjf_try(t);
	(void)!write(t->ready[1], "r", 1);
	for (;;)
		syscall(SYS_futex, &never, 0 /* FUTEX_WAIT */, 0, NULL);
	return NULL;
}

static int tjf_start(void *arg, struct err *e)
{
	struct tjf *t = arg;
	struct rlimit l;
	char c;

	getrlimit(RLIMIT_NOFILE, &l);
	t->r.nofile = l.rlim_cur;
	/* In the child all descriptors but the control socket are gone: it brings the share. */
	if (fd_recv(JAIL_CTL_FD, &c, 1, &t->share, &(size_t){ 1 }, 0) != 1 || pipe(t->ready) < 0 ||
	    pthread_create(&t->thread, NULL, tjf_thread, t))
		return err_set(e, -EIO, "test");
	(void)!read(t->ready[0], &c, 1);
	return t->r.code;
}

static void tjf_no_trap(int nr)
{
	(void)nr;
}

struct tjfroom {
	pid_t pid;
	int sock;
	struct tjf_report r;
};

static NORETURN void tjf_child(int root, int ctl)
{
	struct jail_spec spec = { root, ctl, getppid(), tjf_no_trap, tjf_start, &tjf };
	struct err e = { 0 };
	int r = jail_enter(&spec, &e);
	char c;

	if (r < 0) {
		tjf.r.code = r;
		snprintf(tjf.r.msg, sizeof tjf.r.msg, "%.100s", e.msg);
	}
	if (fd_send(JAIL_CTL_FD, &tjf.r, sizeof tjf.r, NULL, 0, 0) < 0)
		syscall(SYS_exit_group, 1);
	(void)!read(JAIL_CTL_FD, &c, 1);
	syscall(SYS_exit_group, 0);
	__builtin_unreachable();
}

static void tjf_room(struct tjfroom *t)
{
	char path[256], outside[256];
	struct err e = { 0 };
	int sv[2], root, share;

	if (getuid() != 0)
		test_skip("a jail is made by root");
	snprintf(path, sizeof path, "%s/share", test_dir());
	snprintf(outside, sizeof outside, "%s/outside", test_dir());
	CHECK_EQ(mkdir(path, 0755), 0);
	close(open(outside, O_CREAT | O_WRONLY, 0644));
	share = share_open(AT_FDCWD, path, 0, &e);
	if (share == -EPERM || share == -ENOSYS)
		test_skip("no detached mounts here: %s", e.msg);
	CHECK(share >= 0);
	snprintf(path, sizeof path, "%s/root", test_dir());
	CHECK_EQ(mkdir(path, 0700), 0);
	root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK_EQ(rmdir(path), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	CHECK_EQ(fd_send(sv[0], "s", 1, &share, 1, 0), 1);
	fflush(stdout);
	t->pid = fork();
	if (t->pid == 0)
		tjf_child(root, sv[1]);
	close(sv[1]);
	close(root);
	close(share);
	t->sock = sv[0];
	CHECK_EQ(read(t->sock, &t->r, sizeof t->r), sizeof t->r);
	if (t->r.code < 0)
		test_fail(__FILE__, __LINE__, "%s", t->r.msg);
}

static void tjf_end(struct tjfroom *t)
{
	int status;

	close(t->sock);
	CHECK_EQ(waitpid(t->pid, &status, 0), t->pid);
	CHECK_EQ(status, 0);
}

static void tjf_status(pid_t pid, int tid, const char *key, char *out, size_t n)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof path, "/proc/%d/task/%d/status", pid, tid);
	f = fopen(path, "r");
	CHECK(f);
	*out = '\0';
	while (fgets(line, sizeof line, f))
		if (strncmp(line, key, strlen(key)) == 0)
			snprintf(out, n, "%.*s", (int)strcspn(line + strlen(key), "\n"), line + strlen(key));
	fclose(f);
}

TEST(jail_file_threads_open_nothing_by_path_and_do_not_leave_a_share)
{
	struct tjfroom t;

	tjf_room(&t);
	CHECK_EQ(t.r.passwd, ENOENT);
	CHECK_EQ(t.r.dev, ENOENT);
	CHECK(t.r.root == ENOENT || t.r.root == EACCES);
	CHECK_EQ(t.r.above, ENOENT);
	CHECK_EQ(t.r.above_dir, ENOENT);
	CHECK_EQ(t.r.proc_above, ENOENT);
	CHECK_EQ(t.r.proc_far_above, ENOENT);
	tjf_end(&t);
}

TEST(jail_file_threads_make_files_for_others_and_open_no_device)
{
	struct tjfroom t;

	tjf_room(&t);
	CHECK_EQ(t.r.made, 0);
	CHECK_EQ(t.r.owner_uid, 66);
	CHECK_EQ(t.r.owner_gid, 77);
	CHECK_EQ(t.r.mode, 0642); /* no umask */
	CHECK_EQ(t.r.node, 0);
	CHECK_EQ(t.r.node_opened, EACCES);
	CHECK_EQ(t.r.reopened, 0);
	CHECK(t.r.nofile > 4096);
	tjf_end(&t);
}

/* As the kernel sees the two kinds of threads. */
TEST(jail_file_threads_have_the_capabilities_of_a_file_server_and_the_others_none)
{
	static const struct {
		const char *key, *main, *files;
	} row[] = {
		{ "Name:\t", "spore-vmm", "spore-files" },
		{ "NoNewPrivs:\t", "1", "1" },
		{ "Seccomp:\t", "2", "2" },
		{ "Groups:\t", " ", " " },
		{ "CapInh:\t", "0000000000000000", "0000000000000000" },
		{ "CapPrm:\t", "0000000000000000", "00000000880000df" },
		{ "CapEff:\t", "0000000000000000", "00000000880000df" },
		{ "CapAmb:\t", "0000000000000000", "0000000000000000" },
		{ "CapBnd:\t", NULL, "0000000000000000" },
	};
	struct tjfroom t;
	char got[128], want[128];
	uid_t id;

	tjf_room(&t);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("%s", row[i].key);
		tjf_status(t.pid, t.pid, row[i].key, got, sizeof got);
		if (row[i].main)
			CHECK_STR(got, row[i].main);
		tjf_status(t.pid, t.r.tid, row[i].key, got, sizeof got);
		CHECK_STR(got, row[i].files);
	}
	id = JAIL_UID_BASE + (uid_t)t.pid;
	snprintf(want, sizeof want, "%u\t%u\t%u\t%u", id, id, id, id);
	tjf_status(t.pid, t.pid, "Uid:\t", got, sizeof got);
	CHECK_STR(got, want);
	snprintf(want, sizeof want, "%u\t%u\t%u\t%u", id, id, id, 0);
	tjf_status(t.pid, t.r.tid, "Uid:\t", got, sizeof got);
	CHECK_STR(got, want);
	tjf_status(t.pid, t.r.tid, "Gid:\t", got, sizeof got);
	CHECK_STR(got, want);
	tjf_end(&t);
}

TEST(jail_with_file_threads_dies_with_its_supervisor)
{
	struct tjfroom t = { 0 };
	char path[64];
	int tell[2], status;
	pid_t pid, vmm = 0;

	CHECK_EQ(pipe(tell), 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		tjf_room(&t);
		(void)!write(tell[1], &t.pid, sizeof t.pid);
		_exit(0);
	}
	close(tell[1]);
	if (read(tell[0], &vmm, sizeof vmm) != (ssize_t)sizeof vmm) {
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		exit(WEXITSTATUS(status));
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	snprintf(path, sizeof path, "/proc/%d/task", vmm);
	for (unsigned i = 0; i < 300 && access(path, F_OK) == 0; i++) {
		char state[64] = "";
		tjf_status(vmm, vmm, "State:\t", state, sizeof state);
		if (*state == 'Z')
			break;
		usleep(10000);
		CHECK(i < 299);
	}
}

/* --- the list ----------------------------------------------------------------------------------- */

TEST(jail_list_of_file_threads_is_in_order_and_lacks_what_makes_power)
{
	static const int nr[] = {
		SYS_open, SYS_creat, SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_sendto,
		SYS_execve, SYS_execveat, SYS_fork, SYS_vfork, SYS_clone3, SYS_kill, SYS_tgkill,
		SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_mount, SYS_umount2,
		SYS_pivot_root, SYS_chroot, SYS_chdir, SYS_unshare, SYS_setns, SYS_setuid, SYS_setgid,
		SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups,
		SYS_prctl, SYS_seccomp, SYS_bpf, SYS_name_to_handle_at, SYS_open_by_handle_at,
		SYS_umask, SYS_io_uring_setup, SYS_userfaultfd, SYS_rt_sigaction, SYS_memfd_create,
		SYS_perf_event_open, SYS_keyctl, SYS_fanotify_init, SYS_chown, SYS_truncate,
		428 /* open_tree */,
		429 /* move_mount */, 430 /* fsopen */, 442 /* mount_setattr */, 434 /* pidfd_open */,
		438 /* pidfd_getfd */,
	};
	struct jail_program p;

	jail_build(&p, &jail_files);
	CHECK(p.first > 8);
	for (unsigned i = 1; i < jail_files.n; i++) {
		test_note("system call %d", jail_files.call[i].nr);
		CHECK(jail_files.call[i - 1].nr < jail_files.call[i].nr);
	}
	for (unsigned i = 0; i < ARRAY_LEN(nr); i++)
		for (unsigned k = 0; k < jail_files.n; k++) {
			test_note("system call %d", nr[i]);
			CHECK(jail_files.call[k].nr != nr[i]);
		}
}
