/* The root directory and what is in it. The guest sees a directory that it cannot change, with an entry
 * for each share; that entry is the share's own root. */
#include "vmm/fuse/call.h"

#include <fcntl.h>
#include <sys/stat.h>

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
