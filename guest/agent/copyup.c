#include "guest/agent/copyup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"

#define GA_COPYUP_MAX_DEPTH 64

static int ga_copyup_dir(int from, int to, dev_t dev, unsigned depth, struct err *e);

static int ga_copyup_file(int from, int to, const char *name, const struct stat *st, struct err *e)
{
	AUTO_CLOSE int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	AUTO_CLOSE int out =
		openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st->st_mode & 07777);
	ssize_t n;

	if (in < 0 || out < 0)
		return err_set(e, -errno, "copy %s: %m", name);
	do
		n = sendfile(out, in, NULL, 1 << 20);
	while (n > 0 || (n < 0 && errno == EINTR));
	if (n < 0 || fchown(out, st->st_uid, st->st_gid) < 0 ||
	    fchmod(out, st->st_mode & 07777) < 0)
		return err_set(e, -errno, "copy %s: %m", name);
	return 0;
}

static int ga_copyup_link(int from, int to, const char *name, const struct stat *st, struct err *e)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof target - 1);

	if (n < 0)
		return err_set(e, -errno, "copy %s: %m", name);
	target[n] = '\0';
	if (symlinkat(target, to, name) < 0 ||
	    fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(e, -errno, "copy %s: %m", name);
	return 0;
}

static int ga_copyup_entry(int from, int to, const char *name, dev_t dev, unsigned depth,
			   struct err *e)
{
	AUTO_CLOSE int sub_from = -1, sub_to = -1;
	struct stat st;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(e, -errno, "copy %s: %m", name);
	if (S_ISREG(st.st_mode))
		return ga_copyup_file(from, to, name, &st, e);
	if (S_ISLNK(st.st_mode))
		return ga_copyup_link(from, to, name, &st, e);
	if (!S_ISDIR(st.st_mode) || st.st_dev != dev)
		return 0;
	sub_from = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (sub_from < 0 || mkdirat(to, name, 0700) < 0)
		return err_set(e, -errno, "copy %s: %m", name);
	sub_to = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (sub_to < 0 || ga_copyup_dir(sub_from, sub_to, dev, depth + 1, e) < 0)
		return sub_to < 0 ? err_set(e, -errno, "copy %s: %m", name) : e->code;
	if (fchown(sub_to, st.st_uid, st.st_gid) < 0 || fchmod(sub_to, st.st_mode & 07777) < 0)
		return err_set(e, -errno, "copy %s: %m", name);
	return 0;
}

static int ga_copyup_dir(int from, int to, dev_t dev, unsigned depth, struct err *e)
{
	int fd = fcntl(from, F_DUPFD_CLOEXEC, 3), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *ent;

	if (!d)
		return err_set(e, -errno, "copy: %m");
	if (depth > GA_COPYUP_MAX_DEPTH)
		r = err_set(e, -ELOOP, "copy: directories nested too deep");
	while (r == 0 && (ent = readdir(d)))
		if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0)
			r = ga_copyup_entry(from, to, ent->d_name, dev, depth, e);
	closedir(d);
	return r;
}

int ga_copyup(int root_fd, const char *path, int to, struct err *e)
{
	AUTO_CLOSE int from = path_open_in_root(root_fd, path, O_RDONLY | O_DIRECTORY, 0);
	AUTO_CLOSE int top = openat(to, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (from < 0 || top < 0 || fstat(from, &st) < 0)
		return err_set(e, from < 0 ? from : -errno, "tmpcopyup: %s",
			       strerror(from < 0 ? -from : errno));
	if (ga_copyup_dir(from, top, st.st_dev, 0, e) < 0)
		return err_wrap(e, "tmpcopyup");
	if (fchown(top, st.st_uid, st.st_gid) < 0 || fchmod(top, st.st_mode & 07777) < 0)
		return err_set(e, -errno, "tmpcopyup: %m");
	return 0;
}
