/* The root directory and what is in it. The guest sees a directory that it cannot change, with an entry
 * for each share; that entry is the share's own root. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int fsv_check_share_name(const char *name, struct err *e)
{
	size_t n = strlen(name);

	if (n == 0 || n > NAME_MAX || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return err_set(e, -EINVAL, "share: \"%s\" is not a name", name);
	return 0;
}

/* s->lock held. NULL: there is none. */
static struct fsv_share *fsv_find_share(struct fsv *s, const char *name)
{
	for (unsigned i = 0; i < FNODE_SHARES; i++)
		if (s->share[i].id && !strcmp(s->share[i].name, name))
			return &s->share[i];
	return NULL;
}

/* s->lock held. An id is used once: what still holds it finds the slot taken by another. */
static int fsv_place_share(struct fsv *s, const char *name, int root_fd, unsigned flags, struct err *e)
{
	struct fsv_share *sh = s->share;

	if (fsv_find_share(s, name))
		return err_set(e, -EEXIST, "share: there is a \"%s\" already", name);
	while (sh < s->share + FNODE_SHARES && sh->id)
		sh++;
	if (sh == s->share + FNODE_SHARES)
		return err_set(e, -ENOSPC, "share: more than %u", FNODE_SHARES);
	*sh = (struct fsv_share){ .flags = flags, .root_fd = root_fd };
	memcpy(sh->name, name, strlen(name));
	sh->id = ++s->shares_made * FNODE_SHARES + (uint32_t)(sh - s->share);
	fnode_open_share(&s->nodes, sh->id);
	return 0;
}

int fsv_share_add(struct fsv *s, const char *name, int root_fd, unsigned flags, struct err *e)
{
	struct stat st;
	int r = fsv_check_share_name(name, e);

	/* Not fsv_stat_fd(): this is the loop thread, which may not call statx(2). */
	if (r == 0 && fstat(root_fd, &st) < 0)
		r = err_set(e, -errno, "share \"%s\": %m", name);
	if (r == 0 && !S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		r = err_set(e, -EINVAL, "share \"%s\": neither a directory nor a regular file", name);
	if (r == 0) {
		pthread_mutex_lock(&s->lock);
		r = fsv_place_share(s, name, root_fd, flags & (FSV_READONLY | FSV_PRIVATE), e);
		pthread_mutex_unlock(&s->lock);
	}
	if (r < 0)
		close(root_fd);
	return r;
}

int fsv_share_remove(struct fsv *s, const char *name, struct err *e)
{
	struct fsv_share *sh;
	uint32_t id = 0;
	int fd = -1;

	pthread_mutex_lock(&s->lock);
	sh = fsv_find_share(s, name);
	if (sh) {
		id = sh->id;
		fd = sh->root_fd;
		sh->id = 0;
	}
	pthread_mutex_unlock(&s->lock);
	if (!sh)
		return err_set(e, -ENOENT, "share: there is no \"%s\"", name);
	fnode_close_share(&s->nodes, id); /* before its handles: see fsv_open_handle() */
	fhand_close_share(&s->hands, id);
	close(fd);
	return 0;
}

/* A node that stands for a share, to look below it. */
static int fsv_dup_share(struct fsv *s, const char *name, struct fnode *as)
{
	struct fsv_share *sh;
	int fd = -ENOENT;

	pthread_mutex_lock(&s->lock);
	sh = fsv_find_share(s, name);
	if (sh) {
		*as = (struct fnode){ .key.share = sh->id, .flags = sh->flags };
		fd = fcntl(sh->root_fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			fd = -errno;
	}
	pthread_mutex_unlock(&s->lock);
	return fd;
}

int fsv_enter_share(struct fsv_call *q, const char *name, struct fuse_entry_out *out)
{
	struct fnode as;
	int fd = fsv_dup_share(q->s, name, &as);
	int r = fd < 0 ? fd : fsv_enter(q, &as, fd, out, false);

	out->entry_valid = 0; /* the next look may find another */
	return r;
}

/* --- sync(2) ---------------------------------------------------------------------------------- */

/* The root of the share in this slot, if there is one that the guest may have written to. -ENOENT. */
static int fsv_dup_writable(struct fsv *s, unsigned slot)
{
	const struct fsv_share *sh = &s->share[slot];
	int fd = -ENOENT;

	pthread_mutex_lock(&s->lock);
	if (sh->id && !(sh->flags & FSV_READONLY)) {
		fd = fcntl(sh->root_fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			fd = -errno;
	}
	pthread_mutex_unlock(&s->lock);
	return fd;
}

/* The file system behind an O_PATH descriptor, unless it is one of the n in devs; then it becomes one. */
static int fsv_sync_once(int path_fd, uint64_t *devs, unsigned *n)
{
	struct fsv_stat st;
	int fd, r = fsv_stat_fd(path_fd, &st);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < *n; i++)
		if (devs[i] == st.dev)
			return 0;
	devs[(*n)++] = st.dev;
	fd = openat(AT_FDCWD, fsv_path_of(path_fd).s, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -errno;
	r = syncfs(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

/* All of them are one file system to the guest. Each is tried; the first error is the answer. */
int fsv_do_syncfs(struct fsv_call *q)
{
	uint64_t devs[FNODE_SHARES];
	unsigned n = 0;
	int answer = 0;

	if (q->node)
		return -EINVAL;
	for (unsigned slot = 0; slot < FNODE_SHARES; slot++) {
		int fd = fsv_dup_writable(q->s, slot), r;
		if (fd == -ENOENT)
			continue;
		r = fd < 0 ? fd : fsv_sync_once(fd, devs, &n);
		if (fd >= 0)
			close(fd);
		answer = answer ? answer : r;
	}
	return answer;
}
