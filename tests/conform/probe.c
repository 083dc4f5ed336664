/* probe.c - says what a program in a container sees, where a shell cannot.
 *
 *	probe VERB ARGS...
 *
 * Prints facts, one per line, the same on every run. Exits 1 with the error's name when a verb fails. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *error_name(int e)
{
	switch (e) {
	case 0: return "ok";
	case EPERM: return "EPERM";
	case ENOENT: return "ENOENT";
	case EACCES: return "EACCES";
	case EEXIST: return "EEXIST";
	case EINVAL: return "EINVAL";
	case EROFS: return "EROFS";
	case ENOSYS: return "ENOSYS";
	case ENODATA: return "ENODATA";
	case ENOTSUP: return "ENOTSUP";
	case EXDEV: return "EXDEV";
	case ENOTEMPTY: return "ENOTEMPTY";
	case EBUSY: return "EBUSY";
	case ENXIO: return "ENXIO";
	case ELOOP: return "ELOOP";
	case ENAMETOOLONG: return "ENAMETOOLONG";
	case EWOULDBLOCK: return "EWOULDBLOCK";
	default: return strerror(e);
	}
}

static void say(const char *what, long rc)
{
	printf("%s %s\n", what, error_name(rc < 0 ? errno : 0));
}

/* Any byte value, in an order that repeats: binary output must arrive untouched. */
static int bytes(char **a)
{
	long n = a[0] ? atol(a[0]) : 256;

	for (long i = 0; i < n; i++)
		putchar((int)((i * 7 + i / 256) & 255));
	return 0;
}

static int xattr(char **a)
{
	static const char *const names[] = { "user.colour", "trusted.colour" };
	char value[64], list[512];

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		printf("set %s: ", names[i]);
		say("", setxattr(a[0], names[i], "green\0blue", 10, 0));
		memset(value, 0, sizeof value);
		printf("get %zd ", getxattr(a[0], names[i], value, sizeof value));
		say("", 0);
		printf("create again: ");
		say("", setxattr(a[0], names[i], "x", 1, XATTR_CREATE));
	}
	printf("list %zd\n", listxattr(a[0], list, sizeof list) > 0 ? (ssize_t)1 : (ssize_t)0);
	say("remove", removexattr(a[0], "user.colour"));
	say("remove again", removexattr(a[0], "user.colour"));
	return 0;
}

static int rename_at(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

/* In directory a[0], which is empty. */
static int names(char **a)
{
	char longest[300];
	struct stat st;
	int fd;

	if (chdir(a[0]) < 0)
		return 1;
	close(open("one", O_CREAT | O_WRONLY, 0640));
	say("link", link("one", "two"));
	stat("two", &st);
	printf("links %lu mode %o\n", (unsigned long)st.st_nlink, st.st_mode);
	say("exclusive", open("one", O_CREAT | O_EXCL | O_WRONLY, 0600));
	say("rename over", rename("one", "three"));
	say("noreplace", rename_at("two", "three", 1));
	say("mkdir", mkdir("dir", 0750));
	say("exchange", rename_at("two", "dir", 2));
	lstat("two", &st);
	printf("two is a directory: %d\n", S_ISDIR(st.st_mode));
	say("rmdir full", (close(open("two/in", O_CREAT | O_WRONLY, 0600)), rmdir("two")));
	say("unlink directory", unlink("two"));
	say("symlink", symlink("nowhere", "dangling"));
	say("open dangling", open("dangling", O_RDONLY));
	say("nofollow", open("dangling", O_RDONLY | O_NOFOLLOW));
	memset(longest, 'n', 255);
	longest[255] = 0;
	say("255 bytes", mkdir(longest, 0700));
	longest[255] = 'n', longest[256] = 0;
	say("256 bytes", mkdir(longest, 0700));
	say("fifo", mkfifo("fifo", 0600));
	say("device", mknod("null", S_IFCHR | 0666, 0x103));
	say("unlinked file", fd = open("gone", O_CREAT | O_RDWR, 0600));
	unlink("gone");
	say("write to it", write(fd, "x", 1));
	fstat(fd, &st);
	printf("links %lu size %ld\n", (unsigned long)st.st_nlink, (long)st.st_size);
	say("tmpfile", open(".", O_TMPFILE | O_RDWR, 0600));
	return 0;
}

static int sockets(char **a)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s/socket", a[0]);
	say("bind", bind(s, (struct sockaddr *)&sa, sizeof sa));
	say("listen", listen(s, 1));
	say("connect", connect(c, (struct sockaddr *)&sa, sizeof sa));
	return 0;
}

static int locks(char **a)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int one = open(a[0], O_CREAT | O_RDWR, 0600), two = open(a[0], O_RDWR), status;

	say("flock", flock(one, LOCK_EX | LOCK_NB));
	say("flock again", flock(two, LOCK_EX | LOCK_NB));
	say("fcntl", fcntl(one, F_SETLK, &l));
	fflush(stdout);
	if (fork() == 0) {
		say("fcntl of a child", fcntl(two, F_SETLK, &l) < 0 ? (errno = EWOULDBLOCK, -1) : 0);
		fflush(stdout);
		_exit(0);
	}
	wait(&status);
	return 0;
}

static int sparse(char **a)
{
	int fd = open(a[0], O_CREAT | O_RDWR | O_TRUNC, 0600);
	struct stat st;

	say("truncate", ftruncate(fd, 64 << 20));
	say("write", pwrite(fd, "x", 1, 32 << 20));
	fsync(fd);
	fstat(fd, &st);
	printf("size %ld, less than 1 MiB of it there: %d\n", (long)st.st_size, st.st_blocks < 2048);
	say("fallocate", fallocate(fd, 0, 0, 1 << 20));
	fstat(fd, &st);
	printf("now at least 1 MiB: %d\n", st.st_blocks >= 2048);
	say("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
	printf("data at %ld\n", (long)lseek(fd, 0, SEEK_DATA) / (32 << 20));
	return 0;
}

static int map(char **a)
{
	int fd = open(a[0], O_CREAT | O_RDWR | O_TRUNC, 0600);
	char *p, b[8] = { 0 };

	ftruncate(fd, 8192);
	p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	say("mmap", p == MAP_FAILED ? -1 : 0);
	memcpy(p + 4094, "map", 3);
	say("pread", pread(fd, b, 3, 4094));
	printf("'%s' through the file\n", b);
	pwrite(fd, "pam", 3, 4094);
	printf("'%.3s' through the map\n", p + 4094);
	say("msync", msync(p, 8192, MS_SYNC));
	return 0;
}

static int times(char **a)
{
	struct timespec t[2] = { { 981173106, 123456789 }, { 981173107, 987654321 } };
	struct stat st;
	int fd = open(a[0], O_CREAT | O_RDWR, 0600);

	say("utimens", futimens(fd, t));
	close(fd);
	stat(a[0], &st);
	printf("%ld.%09ld %ld.%09ld\n", (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec,
	       st.st_mtim.tv_nsec);
	return 0;
}

/* System calls a container may or may not make. */
static int calls(char **a)
{
	(void)a;
	say("unshare user", unshare(CLONE_NEWUSER));
	say("unshare mount", unshare(CLONE_NEWNS));
	say("mount", mount("none", "/mnt", "tmpfs", 0, NULL));
	say("sethostname", sethostname("x", 1));
	say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
	say("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
	say("bpf", syscall(SYS_bpf, 0, NULL, 0));
	say("userfaultfd", syscall(SYS_userfaultfd, 0) < 0 ? -1 : 0);
	say("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
	say("settime", syscall(SYS_clock_settime, 0, NULL) < 0 && errno == EFAULT ? 0 : -1);
	say("chroot", chroot("/mnt"));
	say("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	return 0;
}

static int limits(char **a)
{
	(void)a;
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit r;

		getrlimit(i, &r);
		printf("%d: %lld %lld\n", i, (long long)r.rlim_cur, (long long)r.rlim_max);
	}
	return 0;
}

/* Take a[0] MiB and touch them; say so, or be killed. */
static int eat(char **a)
{
	size_t n = (size_t)atol(a[0]) << 20;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (size_t i = 0; i < n; i += 4096)
		p[i] = 1;
	printf("ate %s MiB\n", a[0]);
	return 0;
}

/* Leave a child with our streams, and go. */
static int orphan(char **a)
{
	puts("parent");
	fflush(stdout);
	if (fork() == 0) {
		sleep((unsigned)atoi(a[0]));
		puts("child");
		fflush(stdout);
		_exit(0);
	}
	return 3;
}

static int connect_to(char **a)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", a[0]);
	say("connect", connect(s, (struct sockaddr *)&sa, sizeof sa));
	return 0;
}

static const struct {
	const char *name;
	int (*run)(char **args);
} verbs[] = {
	{ "bytes", bytes },     { "xattr", xattr },   { "names", names },   { "sockets", sockets },
	{ "locks", locks },     { "sparse", sparse }, { "map", map },       { "times", times },
	{ "calls", calls },     { "limits", limits }, { "eat", eat },       { "orphan", orphan },
	{ "connect", connect_to },
};

int main(int argc, char **argv)
{
	for (unsigned i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++) {
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(argv + 2);
	}
	fprintf(stderr, "probe: no such verb\n");
	return 2;
}
