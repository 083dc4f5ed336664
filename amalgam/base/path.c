#include "amalgam/base/path.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"

int path_read(const char *path, size_t max, struct buf *b, struct err *e)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t before = b->len;

	if (fd < 0)
		return err_set(e, -errno, "%s: %m", path);
	for (;;) {
		uint8_t *to = buf_reserve(b, 4096);
		ssize_t r = read(fd, to, 4096);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_set(e, -errno, "%s: %m", path);
		if (r == 0)
			return 0;
		b->len += (size_t)r;
		if (b->len - before > max)
			return err_set(e, -EFBIG, "%s: larger than %zu bytes", path, max);
	}
}

int path_replace(const char *path, const void *p, size_t n, mode_t mode, struct err *e)
{
	AUTO_FREE char *tmp = mem_printf("%s.%d.tmp", path, getpid());
	AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	int r;

	if (fd < 0)
		return err_set(e, -errno, "%s: %m", tmp);
	r = fd_write_full(fd, p, n);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return err_set(e, r, "%s: %s", path, strerror(-r));
	}
	return 0;
}

int path_put(const char *path, const char *text)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int path_mkdirs(const char *path, mode_t mode, struct err *e)
{
	AUTO_FREE char *p = mem_strdup(path);
	struct stat st;

	for (char *s = p + 1; *p; s++) {
		char c = *s;
		if (c != '/' && c != '\0')
			continue;
		*s = '\0';
		if (mkdir(p, mode) < 0 && errno != EEXIST)
			return err_set(e, -errno, "mkdir %s: %m", p);
		if (c == '\0')
			break;
		*s = '/';
	}
	if (*p && (stat(p, &st) < 0 || !S_ISDIR(st.st_mode)))
		return err_set(e, -ENOTDIR, "mkdir %s: not a directory", p);
	return 0;
}

static int path_remove_below(int dir_fd, dev_t dev)
{
	AUTO_CLOSE int fd = dir_fd;
	DIR *d = fdopendir(fd);
	struct dirent *ent;
	int r = 0;

	if (!d)
		return -errno;
	fd = -1; /* the stream owns it now */
	while ((ent = readdir(d))) {
		struct stat st;
		if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, ".."))
			continue;
		if (fstatat(dirfd(d), ent->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISDIR(st.st_mode) && st.st_dev == dev) {
			int sub = openat(dirfd(d), ent->d_name,
					 O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub >= 0)
				path_remove_below(sub, dev);
		}
		if (unlinkat(dirfd(d), ent->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
			r = -errno;
	}
	closedir(d);
	return r;
}

int path_remove_tree(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode)) {
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		path_remove_below(fd, st.st_dev);
		return rmdir(path) < 0 ? -errno : 0;
	}
	return unlink(path) < 0 ? -errno : 0;
}

int path_open_in_root(int root_fd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = flags & (O_CREAT | O_TMPFILE) ? mode : 0,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	/* EAGAIN: a rename raced with the walk; the kernel asks us to try again (openat2(2)). */
	for (int tries = 0; tries < 64; tries++) {
		fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}
