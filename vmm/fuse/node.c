#include "vmm/fuse/node.h"

#include "amalgam/base/mem.h"

#define FNODE_BUCKETS    (1u << 17)
#define FNODE_INDEX_BITS 20
static_assert(FNODE_MAX < 1u << FNODE_INDEX_BITS, "an id has room for an index");

/* A thousand at a time, so that nobody waits long for the lock. */
#define FNODE_BATCH 1024u

void fnode_init(struct fnode_table *t)
{
	*t = (struct fnode_table){ .node = mem_calloc(FNODE_MAX, sizeof *t->node),
				   .bucket = mem_calloc(FNODE_BUCKETS, sizeof *t->bucket) };
	pthread_mutex_init(&t->lock, NULL);
}

void fnode_fini(struct fnode_table *t)
{
	fnode_detach_all(t);
	pthread_mutex_destroy(&t->lock);
	free(t->node);
	free(t->bucket);
}

/* --- under the lock --------------------------------------------------------------------------- */

static uint32_t *fnode_bucket(struct fnode_table *t, const struct fnode_key *k)
{
	uint64_t h = k->ino * UINT64_C(0x9e3779b97f4a7c15);

	h ^= (k->dev + (k->mount << 20) + ((uint64_t)k->share << 44)) * UINT64_C(0xc2b2ae3d27d4eb4f);
	return &t->bucket[(h ^ h >> 32) % FNODE_BUCKETS];
}

static bool fnode_is(const struct fnode *n, const struct fnode_key *k)
{
	return n->key.ino == k->ino && n->key.dev == k->dev && n->key.mount == k->mount &&
	       n->key.share == k->share;
}

static struct fnode *fnode_find(struct fnode_table *t, const struct fnode_key *k)
{
	uint32_t i = *fnode_bucket(t, k);

	while (i && !fnode_is(&t->node[i - 1], k))
		i = t->node[i - 1].next;
	return i ? &t->node[i - 1] : NULL;
}

static struct fnode *fnode_of_id(struct fnode_table *t, uint64_t id)
{
	uint64_t i = id & ((1u << FNODE_INDEX_BITS) - 1);

	return i < t->touched && t->node[i].known && t->node[i].id == id ? &t->node[i] : NULL;
}

/* An unused node, with an id that nobody ever had; NULL when there is none. */
static struct fnode *fnode_take(struct fnode_table *t)
{
	struct fnode *n;

	if (t->free) {
		n = &t->node[t->free - 1];
		t->free = n->next;
	} else if (t->touched < FNODE_MAX) {
		n = &t->node[t->touched++];
	} else {
		return NULL;
	}
	n->generation++;
	n->id = n->generation << FNODE_INDEX_BITS | (uint64_t)(n - t->node);
	n->known = true;
	t->known++;
	return n;
}

static void fnode_release(struct fnode_table *t, struct fnode *n)
{
	n->next = t->free;
	t->free = (uint32_t)(n - t->node) + 1;
}

/* Its id means nothing any more. Returns a descriptor to close, -1 while somebody uses it. */
static int fnode_detach(struct fnode_table *t, struct fnode *n)
{
	uint32_t *link = fnode_bucket(t, &n->key);

	while (*link != (uint32_t)(n - t->node) + 1)
		link = &t->node[*link - 1].next;
	*link = n->next;
	n->known = false;
	n->lookups = 0;
	t->known--;
	if (n->refs)
		return -1;
	fnode_release(t, n);
	return n->fd;
}

/* A small number for a host file system; the same one for those that are too many. */
static unsigned fnode_dev_index(struct fnode_table *t, uint64_t dev)
{
	for (unsigned i = 0; i < t->ndevs; i++)
		if (t->dev[i] == dev)
			return i;
	if (t->ndevs < FNODE_DEVS)
		t->dev[t->ndevs++] = dev;
	return t->ndevs - 1;
}

static struct fnode *fnode_insert(struct fnode_table *t, const struct fnode_key *key)
{
	struct fnode *n = fnode_take(t);
	uint32_t *head = fnode_bucket(t, key);

	if (!n)
		return NULL;
	n->key = *key;
	n->refs = 0;
	n->lookups = 0;
	n->ino_mix = (uint64_t)fnode_dev_index(t, key->dev) << 48;
	n->next = *head;
	*head = (uint32_t)(n - t->node) + 1;
	return n;
}

/* --- references ------------------------------------------------------------------------------- */

struct fnode *fnode_get(struct fnode_table *t, uint64_t id)
{
	struct fnode *n;

	pthread_mutex_lock(&t->lock);
	n = fnode_of_id(t, id);
	if (n)
		n->refs++;
	pthread_mutex_unlock(&t->lock);
	return n;
}

void fnode_put(struct fnode_table *t, struct fnode *n)
{
	int fd = -1;

	if (!n)
		return;
	pthread_mutex_lock(&t->lock);
	if (--n->refs == 0 && !n->known) { /* detached while we used it */
		fd = n->fd;
		fnode_release(t, n);
	} else if (n->refs == 0 && n->lookups == 0) {
		fd = fnode_detach(t, n);
	}
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
}

int fnode_look_up(struct fnode_table *t, const struct fnode_key *key, uint32_t type, uint32_t flags, int fd,
		  struct fnode **out)
{
	struct fnode *n = NULL;
	int r = 0;

	pthread_mutex_lock(&t->lock);
	if (t->share[key->share % FNODE_SHARES] != key->share) {
		r = -ESTALE;
	} else if (!(n = fnode_find(t, key))) {
		n = fnode_insert(t, key);
		r = n ? 0 : -ENOMEM;
		if (n) {
			n->type = type;
			n->flags = flags;
			n->fd = fd;
			fd = -1;
		}
	}
	if (n) {
		n->lookups++;
		n->refs++;
	}
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
	*out = n;
	return r;
}

void fnode_forget(struct fnode_table *t, uint64_t id, uint64_t count)
{
	struct fnode *n;
	int fd = -1;

	pthread_mutex_lock(&t->lock);
	n = fnode_of_id(t, id);
	if (n) {
		n->lookups -= MIN(count, n->lookups);
		if (n->lookups == 0 && n->refs == 0)
			fd = fnode_detach(t, n);
	}
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
}

/* --- all at once ------------------------------------------------------------------------------ */

void fnode_open_share(struct fnode_table *t, uint32_t share)
{
	pthread_mutex_lock(&t->lock);
	t->share[share % FNODE_SHARES] = share;
	pthread_mutex_unlock(&t->lock);
}

/* Detach up to FNODE_BATCH nodes from *at on, of one share or (0) of all; false at the end. */
static bool fnode_detach_some(struct fnode_table *t, uint32_t share, uint32_t *at)
{
	int close_fd[FNODE_BATCH];
	uint32_t end, n = 0;
	bool more;

	pthread_mutex_lock(&t->lock);
	end = MIN(t->touched, *at + FNODE_BATCH);
	for (; *at < end; ++*at) {
		struct fnode *node = &t->node[*at];
		int fd = node->known && (!share || node->key.share == share) ? fnode_detach(t, node) : -1;
		if (fd >= 0)
			close_fd[n++] = fd;
	}
	more = *at < t->touched;
	pthread_mutex_unlock(&t->lock);
	while (n > 0)
		close(close_fd[--n]);
	return more;
}

void fnode_close_share(struct fnode_table *t, uint32_t share)
{
	uint32_t at = 0;

	pthread_mutex_lock(&t->lock);
	t->share[share % FNODE_SHARES] = 0; /* nothing new from here on */
	pthread_mutex_unlock(&t->lock);
	while (fnode_detach_some(t, share, &at))
		;
}

void fnode_detach_all(struct fnode_table *t)
{
	uint32_t at = 0;

	while (fnode_detach_some(t, 0, &at))
		;
}

uint32_t fnode_known(struct fnode_table *t)
{
	uint32_t known;

	pthread_mutex_lock(&t->lock);
	known = t->known;
	pthread_mutex_unlock(&t->lock);
	return known;
}

bool fnode_is_stale(struct fnode_table *t, const struct fnode *n)
{
	bool stale;

	pthread_mutex_lock(&t->lock);
	stale = !n->known;
	pthread_mutex_unlock(&t->lock);
	return stale;
}

uint64_t fnode_show_ino(const struct fnode *n, uint64_t ino)
{
	return ino ^ n->ino_mix;
}
