#include "guest/agent/copyfile.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/boot.h"

const char *ga_copyfile_below(const char *path)
{
	const char *rest = path + strlen(GA_STATE_DIR "/");

	if (!str_starts(path, GA_STATE_DIR "/") || strlen(path) >= PATH_MAX)
		return NULL;
	for (const char *p = rest; *p; p += strcspn(p, "/"), p += *p == '/')
		if (!strncmp(p, "..", 2) && (p[2] == '/' || p[2] == '\0'))
			return NULL;
	return rest[strspn(rest, "/.")] ? rest : NULL;
}

/* Open the directory the last component goes into, made with dir_mode where missing. */
static int ga_copyfile_parent(int base, const char *path, mode_t dir_mode, struct err *e)
{
	AUTO_FREE char *dir = mem_strdup(path);
	AUTO_CLOSE int fd = fcntl(base, F_DUPFD_CLOEXEC, 3);
	char *save = NULL, *slash = strrchr(dir, '/');

	if (!slash)
		return take_fd(&fd);
	*slash = '\0';
	for (char *w = strtok_r(dir, "/", &save); w; w = strtok_r(NULL, "/", &save)) {
		int next;
		if (mkdirat(fd, w, dir_mode) < 0 && errno != EEXIST)
			return err_set(e, -errno, "mkdir %s: %m", w);
		/* No symlinks at all: every directory here was made by the host through us. */
		next = openat(fd, w, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return err_set(e, -errno, "%s: %m", w);
		close(fd);
		fd = next;
	}
	return take_fd(&fd);
}

static int ga_copyfile_dir(int parent, const char *name, const Grpc__CopyFileRequest *r,
			   struct err *e)
{
	AUTO_CLOSE int fd = -1;

	if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)
		return err_set(e, -errno, "mkdir: %m");
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchown(fd, (uid_t)r->uid, (gid_t)r->gid) < 0 ||
	    fchmod(fd, r->file_mode & 07777) < 0)
		return err_set(e, -errno, "directory: %m");
	return 0;
}

static int ga_copyfile_link(int parent, const char *name, const Grpc__CopyFileRequest *r,
			    struct err *e)
{
	AUTO_FREE char *target = mem_strndup((const char *)r->data.data, r->data.len);

	unlinkat(parent, name, 0);
	if (symlinkat(target, parent, name) < 0 ||
	    fchownat(parent, name, (uid_t)r->uid, (gid_t)r->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set(e, -errno, "symlink: %m");
	return 0;
}

static int ga_copyfile_file(int parent, const char *name, const Grpc__CopyFileRequest *r,
			    struct err *e)
{
	AUTO_FREE char *temp = mem_printf(".%.200s.copying", name);
	AUTO_CLOSE int fd = -1;
	int64_t end;
	int rc;

	if (r->offset < 0 || r->file_size < 0 ||
	    __builtin_add_overflow(r->offset, (int64_t)r->data.len, &end) || end > r->file_size)
		return err_set(e, -EINVAL, "%zu bytes at %lld do not fit into %lld", r->data.len,
			       (long long)r->offset, (long long)r->file_size);
	fd = openat(parent, temp,
		    O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | (r->offset ? 0 : O_TRUNC), 0600);
	if (fd < 0)
		return err_set(e, -errno, "create: %m");
	rc = fd_pwrite_full(fd, r->data.data, r->data.len, r->offset);
	if (rc < 0)
		return err_set(e, rc, "write: %s", strerror(-rc));
	if (end < r->file_size)
		return 0;
	if (fchown(fd, (uid_t)r->uid, (gid_t)r->gid) < 0 || fchmod(fd, r->file_mode & 07777) < 0 ||
	    renameat(parent, temp, parent, name) < 0)
		return err_set(e, -errno, "finish: %m");
	return 0;
}

int ga_copyfile(const Grpc__CopyFileRequest *req, struct err *e)
{
	const char *path = ga_copyfile_below(req->path), *name;
	AUTO_CLOSE int base = -1, parent = -1;
	int r;

	if (!path)
		return err_set(e, -EINVAL, "CopyFile: %.128s is not below " GA_STATE_DIR,
			       req->path);
	base = open(GA_STATE_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (base < 0)
		return err_set(e, -EBUSY, "CopyFile: " GA_STATE_DIR ": %m");
	parent = ga_copyfile_parent(base, path,
				    req->dir_mode & 07777 ? req->dir_mode & 07777 : 0750, e);
	if (parent < 0)
		return err_wrap(e, "CopyFile %.128s", req->path);
	name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	if (!*name || !strcmp(name, "."))
		return err_set(e, -EINVAL, "CopyFile: %.128s has no file name", req->path);
	if (S_ISDIR(req->file_mode))
		r = ga_copyfile_dir(parent, name, req, e);
	else if (S_ISLNK(req->file_mode))
		r = ga_copyfile_link(parent, name, req, e);
	else if (S_ISREG(req->file_mode) || !(req->file_mode & S_IFMT))
		r = ga_copyfile_file(parent, name, req, e);
	else
		r = err_set(e, -EINVAL, "file type of mode %#o", req->file_mode);
	return r < 0 ? err_wrap(e, "CopyFile %.128s", req->path) : 0;
}
