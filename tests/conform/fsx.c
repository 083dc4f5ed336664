/* fsx.c - random file operations that leave the same behind on every correct file system.
 *
 *	fsx file SEED N FILE    N reads, writes, maps, truncations, holes and copies in one file, each
 *	                        compared with a copy in memory; the first difference ends it: status 1
 *	fsx tree SEED N DIR     N makes, links, renames, removals, changes of mode and owner below DIR;
 *	                        prints a checksum of every result
 *	fsx list DIR            prints a line per file below DIR, sorted: mode, owner, links, size,
 *	                        checksum, path
 *	fsx many N DIR          N small files in directories of a hundred
 *
 * A seed gives the same operations everywhere, so the output in a container and on the host is the same. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FILE_MAX (1u << 20)
#define NAMES    24 /* names in play in one directory */

static uint64_t state;

static uint32_t draw(uint32_t below) /* xorshift64*, high half */
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 32) % below;
}

static uint64_t sum_add(uint64_t sum, const void *p, size_t n) /* FNV-1a */
{
	for (const unsigned char *b = p; n--; b++)
		sum = (sum ^ *b) * UINT64_C(1099511628211);
	return sum;
}
#define SUM_START UINT64_C(14695981039346656037)

/* ---- One file against its copy in memory */

static unsigned char good[FILE_MAX], seen[FILE_MAX];
static uint32_t size; /* of the file, by our account */

static void broken(unsigned op, const char *what)
{
	struct stat st = { 0 };

	stat("/proc/self/fd/3", &st);
	printf("operation %u: %s differs; size by account %u: %s\n", op, what, size, strerror(errno));
	exit(1);
}

static void write_some(int fd, unsigned op, int mapped)
{
	uint32_t at = draw(FILE_MAX - 1), n = 1 + draw(FILE_MAX - at > 65536 ? 65536 : FILE_MAX - at);
	unsigned char fill = (unsigned char)draw(256);

	for (uint32_t i = 0; i < n; i++)
		seen[i] = (unsigned char)(fill + i);
	if (!mapped) {
		if (pwrite(fd, seen, n, at) != (ssize_t)n)
			broken(op, "write");
	} else {
		unsigned char *p;

		if (at + n > size && ftruncate(fd, at + n) < 0)
			broken(op, "growing");
		p = mmap(NULL, at + n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED) /* a file system may know no shared maps; then it is a write */
			(void)!pwrite(fd, seen, n, at);
		else
			memcpy(p + at, seen, n), munmap(p, at + n);
	}
	memcpy(good + at, seen, n);
	if (at + n > size)
		size = at + n;
}

static void read_some(int fd, unsigned op, int mapped)
{
	uint32_t at = draw(FILE_MAX), n = 1 + draw(65536), have;
	unsigned char *p;

	have = at >= size ? 0 : size - at < n ? size - at : n;
	if (!mapped) {
		if (pread(fd, seen, n, at) != (ssize_t)have || memcmp(seen, good + at, have) != 0)
			broken(op, "read");
		return;
	}
	if (have == 0)
		return;
	p = mmap(NULL, at + have, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return;
	if (memcmp(p + at, good + at, have) != 0)
		broken(op, "map");
	munmap(p, at + have);
}

static void resize(int fd, unsigned op)
{
	uint32_t to = draw(FILE_MAX);

	if (ftruncate(fd, to) < 0)
		broken(op, "truncate");
	if (to < size)
		memset(good + to, 0, size - to);
	size = to;
}

static void hole(int fd, unsigned op)
{
	uint32_t at = draw(FILE_MAX - 1), n = 1 + draw(FILE_MAX - at);

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n) < 0) {
		if (errno == EOPNOTSUPP)
			return;
		broken(op, "hole");
	}
	memset(good + at, 0, n);
}

static void copy(int fd, unsigned op)
{
	uint32_t n = 1 + draw(65536), from = draw(FILE_MAX / 2 - 65536),
		to = FILE_MAX / 2 + draw(FILE_MAX / 2 - 65536);
	off_t in = from, out = to;
	ssize_t got, left = from >= size ? 0 : (ssize_t)(size - from < n ? size - from : n);

	while (left > 0) {
		got = copy_file_range(fd, &in, fd, &out, (size_t)left, 0);
		if (got <= 0)
			broken(op, "copy");
		left -= got;
	}
	n = (uint32_t)(in - from);
	memcpy(good + to, good + from, n);
	if (n && to + n > size)
		size = to + n;
}

static void append(const char *path, unsigned op)
{
	int fd = open(path, O_WRONLY | O_APPEND);
	uint32_t n = 1 + draw(4096);

	if (fd < 0)
		broken(op, "open for appending");
	if (size + n <= FILE_MAX) {
		memset(seen, (int)n, n);
		if (write(fd, seen, n) != (ssize_t)n)
			broken(op, "append");
		memcpy(good + size, seen, n);
		size += n;
	}
	close(fd);
}

static int file_ops(const char *path, unsigned n)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
	struct stat st;

	for (unsigned i = 0; i < n && fd >= 0; i++) {
		switch (draw(10)) {
		case 0: case 1: write_some(fd, i, 0); break;
		case 2: write_some(fd, i, 1); break;
		case 3: case 4: read_some(fd, i, 0); break;
		case 5: read_some(fd, i, 1); break;
		case 6: resize(fd, i); break;
		case 7: hole(fd, i); break;
		case 8: copy(fd, i); break;
		case 9: append(path, i); break;
		}
		if (fstat(fd, &st) < 0 || st.st_size != (off_t)size)
			broken(i, "size");
		if (draw(40) == 0) {
			close(fd);
			fd = open(path, O_RDWR);
		}
	}
	if (fd < 0 || pread(fd, seen, FILE_MAX, 0) != (ssize_t)size || memcmp(seen, good, size) != 0)
		broken(n, "the end");
	printf("%u operations, size %u, sum %016llx\n", n, size,
		(unsigned long long)sum_add(SUM_START, good, size));
	return 0;
}

/* ---- A tree */

static void some_path(char *p, size_t n)
{
	static const char *const dirs[] = { ".", "a", "b", "a/c", "b/d" };

	snprintf(p, n, "%s/n%u", dirs[draw(5)], draw(NAMES));
}

static int tree_op(const char *p, const char *q)
{
	char text[64];
	int fd, rc;

	switch (draw(14)) {
	case 0: case 1: case 2:
		fd = open(p, O_CREAT | O_WRONLY | O_NONBLOCK | (draw(2) ? O_TRUNC : O_APPEND),
			0600 | draw(0100));
		if (fd < 0)
			return -1;
		rc = (int)write(fd, text, (size_t)snprintf(text, sizeof text, "%s %u\n", p, draw(1000)));
		close(fd);
		return rc;
	case 3: return mkdir(p, 0700 | draw(0100));
	case 4: return symlink(q, p);
	case 5: return link(p, q);
	case 6: case 7: return rename(p, q);
	case 8: return unlink(p);
	case 9: return rmdir(p);
	case 10: return chmod(p, 0600 | draw(01000));
	case 11: return lchown(p, draw(3) * 1000, draw(3) * 1000);
	case 12: return truncate(p, draw(5000));
	default: return mkfifo(p, 0600);
	}
}

static int tree_ops(const char *dir, unsigned n)
{
	uint64_t sum = SUM_START;
	char p[32], q[32];

	umask(0);
	if (chdir(dir) < 0 || mkdir("a", 0755) < 0 || mkdir("b", 0755) < 0 || mkdir("a/c", 0755) < 0 ||
	    mkdir("b/d", 0755) < 0)
		return 1;
	for (unsigned i = 0; i < n; i++) {
		int said[2];

		some_path(p, sizeof p);
		some_path(q, sizeof q);
		errno = 0;
		said[0] = tree_op(p, q);
		said[1] = said[0] < 0 ? errno : 0;
		sum = sum_add(sum, said, sizeof said);
		if (getenv("FSX_LOUD"))
			printf("%u %s %s: %d %s\n", i, p, q, said[0], strerror(said[1]));
	}
	printf("%u operations, results %016llx\n", n, (unsigned long long)sum);
	return 0;
}

static uint64_t content(const char *path, const struct stat *st)
{
	char b[65536];
	uint64_t sum = SUM_START;
	ssize_t n;
	int fd;

	if (S_ISLNK(st->st_mode)) {
		n = readlink(path, b, sizeof b);
		return n < 0 ? 0 : sum_add(sum, b, (size_t)n);
	}
	if (!S_ISREG(st->st_mode) || (fd = open(path, O_RDONLY)) < 0)
		return 0;
	while ((n = read(fd, b, sizeof b)) > 0)
		sum = sum_add(sum, b, (size_t)n);
	close(fd);
	return sum;
}

static int list(const char *dir)
{
	struct dirent **e;
	int n = scandir(dir, &e, NULL, alphasort), bad = n < 0;

	for (int i = 0; i < n; i++) {
		char path[4096];
		struct stat st;
		const char *name = e[i]->d_name;

		snprintf(path, sizeof path, "%s/%s", dir, name);
		if (!strcmp(name, ".") || !strcmp(name, "..") || lstat(path, &st) < 0) {
			free(e[i]);
			continue;
		}
		printf("%06o %u:%u %lu %ld %016llx %s\n", st.st_mode, st.st_uid, st.st_gid,
		       S_ISDIR(st.st_mode) ? 0ul : (unsigned long)st.st_nlink,
		       S_ISREG(st.st_mode) ? (long)st.st_size : 0l,
			(unsigned long long)content(path, &st), path);
		if (S_ISDIR(st.st_mode))
			bad |= list(path);
		free(e[i]);
	}
	if (n >= 0)
		free(e);
	return bad;
}

static int many(const char *dir, unsigned n)
{
	char p[64], text[64];

	if (chdir(dir) < 0)
		return 1;
	for (unsigned i = 0; i < n; i++) {
		int fd;

		snprintf(p, sizeof p, "d%u", i / 100);
		if (i % 100 == 0 && mkdir(p, 0755) < 0)
			return 1;
		snprintf(p, sizeof p, "d%u/f%u", i / 100, i);
		fd = open(p, O_CREAT | O_EXCL | O_WRONLY, 0644);
		if (fd < 0 || write(fd, text, (size_t)snprintf(text, sizeof text, "file %u\n", i)) < 0)
			return 1;
		close(fd);
	}
	printf("%u files\n", n);
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOFBF, 65536);
	if (argc == 5 && !strcmp(argv[1], "file")) {
		state = strtoull(argv[2], NULL, 0) * 2654435769u + 1;
		return file_ops(argv[4], (unsigned)atoi(argv[3]));
	}
	if (argc == 5 && !strcmp(argv[1], "tree")) {
		state = strtoull(argv[2], NULL, 0) * 2654435769u + 1;
		return tree_ops(argv[4], (unsigned)atoi(argv[3]));
	}
	if (argc == 3 && !strcmp(argv[1], "list"))
		return chdir(argv[2]) < 0 || list(".");
	if (argc == 4 && !strcmp(argv[1], "many"))
		return many(argv[3], (unsigned)atoi(argv[2]));
	fprintf(stderr, "fsx: see the source\n");
	return 2;
}
