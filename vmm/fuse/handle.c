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

/* What a handle leaves behind, to be dropped without the lock. */
struct fhand_rest {
	int fd; /* -1: nothing */
	struct fhand_dir *dir;
};
static const struct fhand_rest fhand_no_rest = { .fd = -1 };

static void fhand_drop(struct fhand_rest rest)
{
	if (rest.fd >= 0)
		close(rest.fd);
	if (rest.dir)
		pthread_mutex_destroy(&rest.dir->lock);
	free(rest.dir);
}

/* --- under the lock --------------------------------------------------------------------------- */

static struct fhand *fhand_of_id(struct fhand_table *t, uint64_t fh, uint64_t nodeid)
{
	uint64_t i = fh & (FHAND_MAX - 1);
	struct fhand *h = i < t->touched ? &t->hand[i] : NULL;

	return h && fh && h->id == fh && h->nodeid == nodeid ? h : NULL;
}

/* Nobody uses it any more. */
static struct fhand_rest fhand_free(struct fhand_table *t, struct fhand *h)
{
	h->next = t->free;
	t->free = (uint32_t)(h - t->hand) + 1;
	return (struct fhand_rest){ h->fd, h->dir };
}

/* Its number means nothing any more. */
static struct fhand_rest fhand_release(struct fhand_table *t, struct fhand *h)
{
	h->id = 0;
	t->open--;
	return h->refs ? fhand_no_rest : fhand_free(t, h);
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

static struct fhand_dir *fhand_new_dir(void)
{
	struct fhand_dir *dir = mem_zalloc(sizeof *dir);

	pthread_mutex_init(&dir->lock, NULL);
	return dir;
}

int fhand_open(struct fhand_table *t, const struct fhand *as, uint64_t *fh)
{
	struct fhand_dir *dir = as->kind == FHAND_DIR ? fhand_new_dir() : NULL;
	struct fhand *h;

	pthread_mutex_lock(&t->lock);
	h = fhand_take(t);
	if (h) {
		uint64_t generation = h->generation + 1;
		*h = *as;
		h->dir = dir;
		h->generation = generation;
		h->refs = 0;
		h->id = *fh = generation << FHAND_INDEX_BITS | (uint64_t)(h - t->hand);
	}
	pthread_mutex_unlock(&t->lock);
	if (!h)
		fhand_drop((struct fhand_rest){ as->fd, dir });
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
	struct fhand_rest rest = fhand_no_rest;

	if (!h)
		return;
	pthread_mutex_lock(&t->lock);
	if (--h->refs == 0 && !h->id)
		rest = fhand_free(t, h);
	pthread_mutex_unlock(&t->lock);
	fhand_drop(rest);
}

int fhand_close(struct fhand_table *t, uint64_t fh, uint64_t nodeid)
{
	struct fhand_rest rest = fhand_no_rest;
	struct fhand *h;

	pthread_mutex_lock(&t->lock);
	h = fhand_of_id(t, fh, nodeid);
	if (h)
		rest = fhand_release(t, h);
	pthread_mutex_unlock(&t->lock);
	fhand_drop(rest);
	return h ? 0 : -EBADF;
}

static bool fhand_close_some(struct fhand_table *t, uint32_t share, uint32_t *at)
{
	struct fhand_rest rest[FHAND_BATCH];
	uint32_t end, n = 0;
	bool more;

	pthread_mutex_lock(&t->lock);
	end = MIN(t->touched, *at + FHAND_BATCH);
	for (; *at < end; ++*at) {
		struct fhand *h = &t->hand[*at];
		if (h->id && (!share || h->share == share))
			rest[n++] = fhand_release(t, h);
	}
	more = *at < t->touched;
	pthread_mutex_unlock(&t->lock);
	while (n > 0)
		fhand_drop(rest[--n]);
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
