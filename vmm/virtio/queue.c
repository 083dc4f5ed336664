#include "vmm/virtio/queue.h"

/* virtio 1.2 section 2.7.5, struct virtq_desc; little-endian, as is this host. */
struct vq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
#define VQ_DESC_F_NEXT  1
#define VQ_DESC_F_WRITE 2
/* VIRTQ_DESC_F_INDIRECT (4) is not offered, so a driver that sets it breaks 2.7.5.3.1. */
#define VQ_DESC_F_INDIRECT 4

struct vq_used_elem {
	uint32_t id;
	uint32_t len;
};

#define VQ_AVAIL_F_NO_INTERRUPT 1

/* Ring layouts, 2.7.6 and 2.7.8: flags, idx, ring[num], event. */
static gpa_t vq_avail_idx(const struct vq *q)
{
	return q->avail + 2;
}
static gpa_t vq_avail_ring(const struct vq *q, uint16_t i)
{
	return q->avail + 4 + 2 * (gpa_t)(i % q->num);
}
static gpa_t vq_used_event(const struct vq *q)
{
	return q->avail + 4 + 2 * (gpa_t)q->num;
}
static gpa_t vq_used_idx(const struct vq *q)
{
	return q->used + 2;
}
static gpa_t vq_used_ring(const struct vq *q, uint16_t i)
{
	return q->used + 4 + sizeof(struct vq_used_elem) * (gpa_t)(i % q->num);
}
static gpa_t vq_avail_event(const struct vq *q)
{
	return q->used + 4 + sizeof(struct vq_used_elem) * (gpa_t)q->num;
}

int vq_check(const struct vq *q)
{
	if (q->num == 0 || q->num > VQ_MAX || (q->num & (q->num - 1)))
		return -EINVAL;
	if (q->desc % 16 || q->avail % 2 || q->used % 4)
		return -EINVAL;
	if (!gmem_span(q->mem, q->desc, sizeof(struct vq_desc) * q->num) ||
	    !gmem_span(q->mem, q->avail, 6 + 2 * (size_t)q->num) ||
	    !gmem_span(q->mem, q->used, 6 + sizeof(struct vq_used_elem) * q->num))
		return -EINVAL;
	return 0;
}

/* Append one checked descriptor to the chain. */
static int vq_add_segment(struct vq *q, struct vq_chain *c, const struct vq_desc *d)
{
	bool writable = d->flags & VQ_DESC_F_WRITE;
	uint32_t *sum = writable ? &c->in_len : &c->out_len;
	void *p;

	if (d->flags & VQ_DESC_F_INDIRECT)
		return -EINVAL;
	if (!writable && c->nin) /* 2.7.4.2: readable segments come first */
		return -EINVAL;
	if (d->len == 0) /* legal, carries nothing */
		return 0;
	if (c->nout + c->nin == VQ_MAX_IOV || __builtin_add_overflow(*sum, d->len, sum))
		return -E2BIG;
	p = gmem_span(q->mem, d->addr, d->len);
	if (!p)
		return -EFAULT;
	c->iov[c->nout + c->nin] = (struct iovec){ p, d->len };
	if (writable)
		c->nin++;
	else
		c->nout++;
	return 0;
}

static int vq_walk(struct vq *q, uint16_t head, struct vq_chain *c)
{
	uint16_t i = head;

	c->head = head;
	c->nout = c->nin = 0;
	c->out_len = c->in_len = 0;
	/* 2.7.5.2 forbids loops, but the guest wrote this: no more hops than there are entries. */
	for (unsigned hops = 0; hops < q->num; hops++) {
		struct vq_desc d; /* our copy; the table may change meanwhile */
		int r;

		if (i >= q->num)
			return -EINVAL;
		if (gmem_read(q->mem, q->desc + i * sizeof d, &d, sizeof d) < 0)
			return -EFAULT;
		if ((r = vq_add_segment(q, c, &d)) < 0)
			return r;
		if (!(d.flags & VQ_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
	return -ELOOP;
}

int vq_pop(struct vq *q, struct vq_chain *c)
{
	uint16_t published, head;
	int r;

	if (!q->ready)
		return 0;
	/* Acquire: the entries below idx are visible once idx is. */
	if (gmem_load16(q->mem, vq_avail_idx(q), &published) < 0)
		return -EFAULT;
	if (published == q->next_avail)
		return 0;
	if ((uint16_t)(published - q->next_avail) > q->num)
		return -EINVAL;
	if (gmem_load16(q->mem, vq_avail_ring(q, q->next_avail), &head) < 0)
		return -EFAULT;
	if ((r = vq_walk(q, head, c)) < 0)
		return r;
	q->next_avail++;
	return 1;
}

void vq_unpop(struct vq *q)
{
	q->next_avail--;
}

int vq_fill(struct vq *q, uint16_t i, uint16_t head, uint32_t written)
{
	struct vq_used_elem el = { head, written };

	if (!q->ready) /* reset while the request was in flight: nobody waits for it */
		return 0;
	return gmem_write(q->mem, vq_used_ring(q, (uint16_t)(q->next_used + i)), &el, sizeof el);
}

int vq_publish(struct vq *q, uint16_t n)
{
	if (!q->ready)
		return 0;
	q->next_used = (uint16_t)(q->next_used + n);
	/* Release: the elements are visible before the index that announces them. */
	return gmem_store16(q->mem, vq_used_idx(q), q->next_used);
}

int vq_push(struct vq *q, uint16_t head, uint32_t written)
{
	int r = vq_fill(q, 0, head, written);

	return r < 0 ? r : vq_publish(q, 1);
}

bool vq_should_signal(struct vq *q)
{
	uint16_t before = q->signalled, now = q->next_used, v;

	if (!q->ready || before == now)
		return false;
	q->signalled = now;
	/* Full fence: our used->idx store must not pass the load of the driver's wish, or both sides
	 * could decide that the other one will act. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx)
		return gmem_load16(q->mem, q->avail, &v) < 0 || !(v & VQ_AVAIL_F_NO_INTERRUPT);
	if (gmem_load16(q->mem, vq_used_event(q), &v) < 0)
		return true;
	/* 2.7.7.2: has used_event been passed since the last signal? */
	return (uint16_t)(now - v - 1) < (uint16_t)(now - before);
}

bool vq_rearm(struct vq *q)
{
	uint16_t published;

	if (!q->ready)
		return false;
	if (q->event_idx && gmem_store16(q->mem, vq_avail_event(q), q->next_avail) < 0)
		return false;
	/* Full fence: avail_event is visible before we look at idx once more (2.7.10.1). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (gmem_load16(q->mem, vq_avail_idx(q), &published) < 0)
		return false;
	return published != q->next_avail;
}

uint16_t vq_backlog(const struct vq *q)
{
	uint16_t published;

	if (!q->ready || gmem_load16(q->mem, vq_avail_idx(q), &published) < 0)
		return 0;
	return (uint16_t)(published - q->next_avail);
}

/* Where `skip` bytes into iov[0..n) are; *at is what is left to skip inside the found segment. */
static unsigned vq_seek(const struct iovec *iov, unsigned n, size_t skip, size_t *at)
{
	unsigned i = 0;

	while (i < n && skip >= iov[i].iov_len)
		skip -= iov[i++].iov_len;
	*at = skip;
	return i;
}

size_t vq_copy_out(const struct vq_chain *c, size_t skip, void *dst, size_t n)
{
	size_t at, done = 0;

	for (unsigned i = vq_seek(c->iov, c->nout, skip, &at); i < c->nout && done < n; i++) {
		size_t k = MIN(n - done, c->iov[i].iov_len - at);
		memcpy((char *)dst + done, (char *)c->iov[i].iov_base + at, k);
		done += k;
		at = 0;
	}
	return done;
}

size_t vq_copy_in(const struct vq_chain *c, size_t skip, const void *src, size_t n)
{
	const struct iovec *iov = c->iov + c->nout;
	size_t at, done = 0;

	for (unsigned i = vq_seek(iov, c->nin, skip, &at); i < c->nin && done < n; i++) {
		size_t k = MIN(n - done, iov[i].iov_len - at);
		memcpy((char *)iov[i].iov_base + at, (const char *)src + done, k);
		done += k;
		at = 0;
	}
	return done;
}
