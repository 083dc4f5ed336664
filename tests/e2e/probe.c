/* probe.c - what the end-to-end tests ask of a guest and busybox cannot say. Static, in the image. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int probe_getrandom(void)
{
	unsigned char raw[16];

	if (getrandom(raw, sizeof raw, 0) != sizeof raw)
		return 1;
	for (unsigned i = 0; i < sizeof raw; i++)
		printf("%02x", raw[i]);
	puts("");
	return 0;
}

/* An illegal instruction: a signal that even the init process of a namespace gets. */
static int probe_crash(void)
{
	__builtin_trap();
}

/* Use MIB of memory, every page of it; a little at a time, or the kernel refuses what it has not. */
static int probe_eat(const char *mib)
{
	for (int i = atoi(mib); i > 0; i--) {
		char *p = malloc(1 << 20);
		if (!p)
			return 1;
		memset(p, 'x', 1 << 20);
	}
	printf("ate %s MiB\n", mib);
	return 0;
}

/* --- what a file system does; each prints "NAME ok", or what was wrong ---------------------------- */

static int probe_wrong(const char *what)
{
	printf("%s: %s\n", what, errno ? strerror(errno) : "wrong");
	return 1;
}

static int probe_xattr(const char *path)
{
	char got[64];

	if (setxattr(path, "user.one", "value", 5, 0) < 0)
		return probe_wrong("setxattr");
	if (getxattr(path, "user.one", got, sizeof got) != 5 || memcmp(got, "value", 5))
		return probe_wrong("getxattr");
	if (setxattr(path, "user.one", "x", 1, XATTR_CREATE) == 0 || errno != EEXIST)
		return probe_wrong("XATTR_CREATE");
	if (listxattr(path, got, sizeof got) < 9 || !memmem(got, sizeof got, "user.one", 9))
		return probe_wrong("listxattr");
	if (removexattr(path, "user.one") < 0 || getxattr(path, "user.one", got, sizeof got) >= 0)
		return probe_wrong("removexattr");
	puts("xattr ok");
	return 0;
}

static int probe_mmap(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	char *p, got[6];

	if (fd < 0 || ftruncate(fd, 8192) < 0)
		return probe_wrong("open");
	p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return probe_wrong("mmap");
	memcpy(p + 4093, "across", 6);
	if (msync(p, 8192, MS_SYNC) < 0 || pread(fd, got, 6, 4093) != 6 || memcmp(got, "across", 6))
		return probe_wrong("msync");
	if (pwrite(fd, "A", 1, 4093) != 1 || p[4093] != 'A')
		return probe_wrong("a write beside the mapping");
	puts("mmap ok");
	return 0;
}

static int probe_lock(const char *path)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };
	int fd = open(path, O_RDWR | O_CREAT, 0644), status;

	if (fd < 0 || fcntl(fd, F_SETLK, &l) < 0)
		return probe_wrong("F_SETLK");
	if (fork() == 0) {
		l.l_start = 12;
		l.l_len = 1;
		_exit(fcntl(fd, F_SETLK, &l) < 0 && (errno == EAGAIN || errno == EACCES) ? 0 : 1);
	}
	if (wait(&status) < 0 || status)
		return probe_wrong("a lock that conflicts");
	puts("lock ok");
	return 0;
}

static int probe_flock(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0644), status;

	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return probe_wrong("flock");
	if (fork() == 0) {
		int other = open(path, O_RDONLY);
		_exit(flock(other, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK ? 0 : 1);
	}
	if (wait(&status) < 0 || status)
		return probe_wrong("a lock that conflicts");
	puts("flock ok");
	return 0;
}

static int probe_tmpfile(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR, 0600);

	if (fd < 0)
		return probe_wrong("tmpfile") - 1;
	puts("tmpfile ok");
	return 0;
}

/* Two processes, 200 lines each, none lost and none torn. */
static int probe_append(const char *path)
{
	struct stat st;
	int status = 0;
	pid_t pid = fork();
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);

	for (int i = 0; i < 200; i++)
		if (fd < 0 || write(fd, pid ? "parent\n" : "child..\n", pid ? 7 : 8) < 0)
			return probe_wrong("append");
	if (!pid)
		_exit(0);
	if (wait(&status) < 0 || status || fstat(fd, &st) < 0 || st.st_size != 200 * 15)
		return probe_wrong("size");
	puts("append ok");
	return 0;
}

static int probe_unlinked(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	struct stat st;
	char c;

	if (fd < 0 || unlink(path) < 0 || write(fd, "x", 1) != 1 || pread(fd, &c, 1, 0) != 1 || c != 'x')
		return probe_wrong("unlinked");
	if (fchmod(fd, 0600) < 0 || ftruncate(fd, 100) < 0 || fstat(fd, &st) < 0 || st.st_size != 100 ||
	    st.st_nlink != 0 || access(path, F_OK) == 0)
		return probe_wrong("unlinked");
	puts("unlinked ok");
	return 0;
}

static int probe_hole(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT, 0644);

	if (fd < 0 || pwrite(fd, "x", 1, 1 << 20) != 1)
		return probe_wrong("write");
	if (lseek(fd, 0, SEEK_DATA) < 4096 || lseek(fd, 0, SEEK_HOLE) != 0)
		return probe_wrong("SEEK_DATA");
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8192) < 0 ||
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0)
		return probe_wrong("fallocate");
	puts("hole ok");
	return 0;
}

enum { PROBE_NOREPLACE = 1, PROBE_EXCHANGE = 2 }; /* linux/fs.h */

static int probe_rename2(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

static int probe_rename(const char *dir)
{
	if (chdir(dir) < 0 || mkdir("r1", 0755) < 0 || mkdir("r2", 0755) < 0 || symlink("x", "r2/l") < 0)
		return probe_wrong("mkdir");
	if (probe_rename2("r1", "r2", PROBE_NOREPLACE) == 0 || errno != EEXIST)
		return probe_wrong("RENAME_NOREPLACE");
	if (rename("r1", "r2") == 0 || (errno != ENOTEMPTY && errno != EEXIST))
		return probe_wrong("rename over a directory that is not empty");
	if (probe_rename2("r1", "r2", PROBE_EXCHANGE) < 0 || access("r1", F_OK) < 0 ||
	    readlink("r1/l", (char[4]){ 0 }, 4) != 1)
		return probe_wrong("RENAME_EXCHANGE");
	if (rename("r2", "r1/l2") < 0 || rename("r1", "r1/l2/no") == 0 || errno != EINVAL)
		return probe_wrong("rename into itself");
	puts("rename ok");
	return 0;
}

static const struct {
	const char *name;
	int (*run)(const char *arg);
} probe_files[] = {
	{ "xattr", probe_xattr },   { "mmap", probe_mmap },         { "lock", probe_lock },
	{ "flock", probe_flock },   { "tmpfile", probe_tmpfile },   { "append", probe_append },
	{ "hole", probe_hole },     { "unlinked", probe_unlinked }, { "rename", probe_rename },
	{ "eat", probe_eat },
};

/* --- datagrams ------------------------------------------------------------------------------------ */

static unsigned char probe_datagram[65536];

/* Send the first datagram that comes to the port back to where it is from. */
static int probe_udp_echo(const char *port)
{
	struct sockaddr_in6 from, me = { .sin6_family = AF_INET6 };
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	socklen_t len = sizeof from;
	ssize_t n;

	me.sin6_port = htons((unsigned short)atoi(port));
	if (fd < 0 || bind(fd, (struct sockaddr *)&me, sizeof me) < 0)
		return 1;
	n = recvfrom(fd, probe_datagram, sizeof probe_datagram, 0, (struct sockaddr *)&from, &len);
	return n < 0 || sendto(fd, probe_datagram, (size_t)n, 0, (struct sockaddr *)&from, len) != n;
}

/* Ask it with so many bytes; IPv4 addresses as ::ffff:10.0.0.1. */
static int probe_udp_ask(const char *address, const char *port, const char *bytes)
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons((unsigned short)atoi(port)) };
	struct timeval limit = { .tv_sec = 5 };
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	static unsigned char sent[sizeof probe_datagram];
	size_t n = (size_t)atoi(bytes);

	for (size_t i = 0; i < n; i++)
		sent[i] = (unsigned char)(i * 7 + i / 256);
	if (fd < 0 || inet_pton(AF_INET6, address, &to.sin6_addr) != 1 || n > sizeof sent ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0)
		return 1;
	if (sendto(fd, sent, n, 0, (struct sockaddr *)&to, sizeof to) != (ssize_t)n ||
	    recv(fd, probe_datagram, sizeof probe_datagram, 0) != (ssize_t)n ||
	    memcmp(sent, probe_datagram, n) != 0) {
		printf("udp %s: %s\n", bytes, strerror(errno));
		return 1;
	}
	printf("udp %s ok\n", bytes);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "getrandom"))
		return probe_getrandom();
	if (!strcmp(what, "crash"))
		return probe_crash();
	if (!strcmp(what, "sleep"))
		return pause();
	if (!strcmp(what, "udp-echo") && argc > 2)
		return probe_udp_echo(argv[2]);
	if (!strcmp(what, "udp-ask") && argc > 4)
		return probe_udp_ask(argv[2], argv[3], argv[4]);
	for (unsigned i = 0; argc > 2 && i < sizeof probe_files / sizeof *probe_files; i++)
		if (!strcmp(what, probe_files[i].name))
			return probe_files[i].run(argv[2]);
	return 2;
}
