#include "vmm/virtio/vhost.h"

#include <sys/eventfd.h>
#include <sys/ioctl.h>

/* linux/vhost.h, spelled here: it brings feature bits that have the names of ours. */
struct vhost_region {
	uint64_t gpa, bytes, hva, flags;
};
struct vhost_table {
	uint32_t n, pad;
	struct vhost_region region[];
};
struct vhost_number {
	uint32_t queue, number;
};
struct vhost_file {
	uint32_t queue;
	int32_t fd;
};
struct vhost_rings {
	uint32_t queue, flags;
	uint64_t desc, used, avail, log;
};
#define VHOST_GET_FEATURES _IOR(0xaf, 0x00, uint64_t)
#define VHOST_SET_FEATURES _IOW(0xaf, 0x00, uint64_t)
#define VHOST_SET_OWNER    _IO(0xaf, 0x01)
#define VHOST_SET_MEMORY   _IOW(0xaf, 0x03, struct vhost_table)
#define VHOST_SET_NUM      _IOW(0xaf, 0x10, struct vhost_number)
#define VHOST_SET_RINGS    _IOW(0xaf, 0x11, struct vhost_rings)
#define VHOST_SET_BASE     _IOW(0xaf, 0x12, struct vhost_number)
#define VHOST_GET_BASE     _IOWR(0xaf, 0x12, struct vhost_number)
#define VHOST_SET_KICK     _IOW(0xaf, 0x20, struct vhost_file)
#define VHOST_SET_CALL     _IOW(0xaf, 0x21, struct vhost_file)
#define VHOST_SET_BACKEND  _IOW(0xaf, 0x30, struct vhost_file)

/* What a driver may have negotiated that concerns rings, which is all the kernel needs to know: MRG_RXBUF,
 * EVENT_IDX, VERSION_1. */
#define VHOST_FEATURES (UINT64_C(1) << 15 | UINT64_C(1) << 29 | UINT64_C(1) << 32)

static int vhost_ioctl(const struct vhost *h, unsigned long request, const void *arg)
{
	return ioctl(h->fd, request, arg) < 0 ? -errno : 0;
}

static int vhost_set_memory(const struct vhost *h, const struct gmem *mem)
{
	union {
		struct vhost_table table;
		char room[sizeof(struct vhost_table) + GMEM_MAX_REGIONS * sizeof(struct vhost_region)];
	} m;

	memset(&m, 0, sizeof m);
	m.table.n = mem->n;
	for (unsigned i = 0; i < mem->n; i++)
		m.table.region[i] = (struct vhost_region){ mem->region[i].gpa, mem->region[i].bytes,
							   (uintptr_t)mem->region[i].hva, 0 };
	return vhost_ioctl(h, VHOST_SET_MEMORY, &m);
}

int vhost_init(struct vhost *h, int fd, const struct gmem *mem, struct err *e)
{
	uint64_t features = 0;
	int r;

	*h = (struct vhost){ .fd = fd, .call_fd = -1 };
	if (fd < 0)
		return 0;
	h->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = h->call_fd < 0 ? -errno : 0;
	if (r == 0)
		r = vhost_ioctl(h, VHOST_SET_OWNER, NULL);
	if (r == 0)
		r = vhost_ioctl(h, VHOST_GET_FEATURES, &features);
	if (r == 0 && (features & VHOST_FEATURES) != VHOST_FEATURES)
		r = -ENOTSUP;
	if (r == 0)
		r = vhost_set_memory(h, mem);
	if (r == 0)
		return 0;
	vhost_fini(h);
	return err_set(e, r, "vhost-net: %s", strerror(-r));
}

void vhost_fini(struct vhost *h)
{
	if (h->fd >= 0)
		close(h->fd);
	if (h->call_fd >= 0)
		close(h->call_fd);
	*h = (struct vhost){ .fd = -1, .call_fd = -1 };
}

static int vhost_start_queue(const struct vhost *h, const struct vq *q, unsigned i, int kick_fd, int tap_fd)
{
	struct vhost_number num = { i, q->num }, base = { i, q->next_avail };
	struct vhost_file kick = { i, kick_fd }, call = { i, h->call_fd }, tap = { i, tap_fd };
	struct vhost_rings rings = {
		.queue = i,
		.desc = (uintptr_t)gmem_span(q->mem, q->desc, 1),
		.used = (uintptr_t)gmem_span(q->mem, q->used, 1),
		.avail = (uintptr_t)gmem_span(q->mem, q->avail, 1),
	};
	int r;

	if ((r = vhost_ioctl(h, VHOST_SET_NUM, &num)) < 0 || (r = vhost_ioctl(h, VHOST_SET_BASE, &base)) < 0 ||
	    (r = vhost_ioctl(h, VHOST_SET_RINGS, &rings)) < 0 ||
	    (r = vhost_ioctl(h, VHOST_SET_KICK, &kick)) < 0 || (r = vhost_ioctl(h, VHOST_SET_CALL, &call)) < 0)
		return r;
	return vhost_ioctl(h, VHOST_SET_BACKEND, &tap);
}

int vhost_start(struct vhost *h, const struct vq *q, unsigned n, uint64_t features, int kick_fd, int tap_fd)
{
	int r;

	features &= VHOST_FEATURES;
	r = vhost_ioctl(h, VHOST_SET_FEATURES, &features);
	for (unsigned i = 0; i < n && r == 0; i++)
		if (q[i].ready)
			r = vhost_start_queue(h, &q[i], i, kick_fd, tap_fd);
	h->is_running = true;
	if (r < 0) {
		struct vq scratch[4];
		ASSERT(n <= ARRAY_LEN(scratch));
		memcpy(scratch, q, n * sizeof *q);
		vhost_stop(h, scratch, n);
	}
	return r;
}

/* What the rings say of their ends is the guest's to write; it can only mislead its own driver. */
static void vhost_stop_queue(const struct vhost *h, struct vq *q, unsigned i)
{
	struct vhost_file none = { i, -1 };
	struct vhost_number base = { i, 0 };

	(void)vhost_ioctl(h, VHOST_SET_BACKEND, &none);
	if (!q->ready || vhost_ioctl(h, VHOST_GET_BASE, &base) < 0)
		return;
	q->next_avail = (uint16_t)base.number;
	if (gmem_load16(q->mem, q->used + 2, &q->next_used) < 0)
		q->next_used = q->next_avail;
	q->signalled = q->next_used;
}

void vhost_stop(struct vhost *h, struct vq *q, unsigned n)
{
	if (!h->is_running)
		return;
	for (unsigned i = 0; i < n; i++)
		vhost_stop_queue(h, &q[i], i);
	h->is_running = false;
}
