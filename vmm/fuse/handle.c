#include "vmm/fuse/handle.h"

#include "amalgam/base/mem.h"

#define FHAND_INDEX_BITS 16
static_assert(FHAND_MAX <= 1u << FHAND_INDEX_BITS, "a number has room for an index");

#define FHAND_BATCH 1024u

void fhand_init(struct fhand_table *t)
{
	*t = (struct fhand_table){ .hand = mem_calloc(FHAND_MAX, sizeof *t->hand) };
	pthread_mutex_init(&t->lock, NULL);
}

void fhand_fini(struct fhand_table *t)
{
	fhand_close_share(t, 0);
	pthread_mutex_destroy(&t->lock);
	free(t->hand);
}

/* --- under the lock --------------------------------------------------------------------------- */

static struct fhand *fhand_of_id(struct fhand_table *t, uint64_t fh, uint64_t nodeid)
{
	uint64_t i = fh & (FHAND_MAX - 1);
	struct fhand *h = i < t->touched ? &t->hand[i] : NULL;

	return h && fh && h->id == fh && h->nodeid == nodeid ? h : NULL;
}

/* Nobody uses it any more. Returns the descriptor to close, -1 when it has none. */
static int fhand_free(struct fhand_table *t, struct fhand *h)
{
	h->next = t->free;
	t->free = (uint32_t)(h - t->hand) + 1;
	return h->fd;
}

/* Its number means nothing any more. Returns a descriptor to close, or -1. */
static int fhand_release(struct fhand_table *t, struct fhand *h)
{
	h->id = 0;
	t->open--;
	return h->refs ? -1 : fhand_free(t, h);
}

static struct fhand *fhand_take(struct fhand_table *t)
{
	struct fhand *h;

	if (t->free) {
		h = &t->hand[t->free - 1];
		t->free = h->next;
	} else if (t->touched < FHAND_MAX) {
		h = &t->hand[t->touched++];
	} else {
		return NULL;
	}
	t->open++;
	return h;
}

/* --- what the header says --------------------------------------------------------------------- */

int fhand_open(struct fhand_table *t, const struct fhand *as, uint64_t *fh)
{
	struct fhand *h;

	pthread_mutex_lock(&t->lock);
	h = fhand_take(t);
	if (h) {
		uint64_t generation = h->generation + 1;
		*h = *as;
		h->generation = generation;
		h->refs = 0;
		h->id = *fh = generation << FHAND_INDEX_BITS | (uint64_t)(h - t->hand);
	}
	pthread_mutex_unlock(&t->lock);
	if (!h && as->fd >= 0)
		close(as->fd);
	return h ? 0 : -ENFILE;
}

struct fhand *fhand_get(struct fhand_table *t, uint64_t fh, uint64_t nodeid, enum fhand_kind kind)
{
	struct fhand *h;

	pthread_mutex_lock(&t->lock);
	h = fhand_of_id(t, fh, nodeid);
	if (h && h->kind != kind)
		h = NULL;
	if (h)
		h->refs++;
	pthread_mutex_unlock(&t->lock);
	return h;
}

void fhand_put(struct fhand_table *t, struct fhand *h)
{
	int fd = -1;

	if (!h)
		return;
	pthread_mutex_lock(&t->lock);
	if (--h->refs == 0 && !h->id)
		fd = fhand_free(t, h);
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
}

int fhand_close(struct fhand_table *t, uint64_t fh, uint64_t nodeid)
{
	struct fhand *h;
	int fd = -1;

	pthread_mutex_lock(&t->lock);
	h = fhand_of_id(t, fh, nodeid);
	if (h)
		fd = fhand_release(t, h);
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
	return h ? 0 : -EBADF;
}

static bool fhand_close_some(struct fhand_table *t, uint32_t share, uint32_t *at)
{
	int close_fd[FHAND_BATCH];
	uint32_t end, n = 0;
	bool more;

	pthread_mutex_lock(&t->lock);
	end = MIN(t->touched, *at + FHAND_BATCH);
	for (; *at < end; ++*at) {
		struct fhand *h = &t->hand[*at];
		int fd = h->id && (!share || h->share == share) ? fhand_release(t, h) : -1;
		if (fd >= 0)
			close_fd[n++] = fd;
	}
	more = *at < t->touched;
	pthread_mutex_unlock(&t->lock);
	while (n > 0)
		close(close_fd[--n]);
	return more;
}

void fhand_close_share(struct fhand_table *t, uint32_t share)
{
	uint32_t at = 0;

	while (fhand_close_some(t, share, &at))
		;
}

uint32_t fhand_count(struct fhand_table *t)
{
	uint32_t open;

	pthread_mutex_lock(&t->lock);
	open = t->open;
	pthread_mutex_unlock(&t->lock);
	return open;
}
