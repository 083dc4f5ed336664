#include "vmm/virtio/mmio.h"

#include "amalgam/base/log.h"
#include "vmm/layout.h"

#define VMMIO_MAGIC   UINT32_C(0x74726976) /* "virt" */
#define VMMIO_VERSION UINT32_C(2)
#define VMMIO_VENDOR  UINT32_C(0x726f7073) /* "spor" */
#define VMMIO_CONFIG  UINT32_C(0x100)
#define VMMIO_ISR     UINT32_C(0x060)
#define VMMIO_CONFIG_SHOWN 64 /* bytes; no device of ours has more */

uint64_t vmmio_features(struct slot *s)
{
	uint64_t own = s->dev->ops->features ? s->dev->ops->features(s->dev) : 0;
	return own | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_EVENT_IDX;
}

static struct vq *vmmio_staged(struct slot *s)
{
	return s->queue_sel < s->dev->ops->nqueues ? &s->staged[s->queue_sel] : NULL;
}

/* --- the window ------------------------------------------------------------------------------ */

/* The guest may read at any time. */
static void vmmio_show_word(struct slot *s, uint32_t offset, uint32_t v)
{
	__atomic_store_n(&s->window[offset / sizeof v], v, __ATOMIC_RELEASE);
}

static void vmmio_show_isr(struct slot *s)
{
	if (s->window)
		vmmio_show_word(s, VMMIO_ISR, s->isr);
}

/* --- register handlers, in the order of the table ------------------------------------------- */

static uint32_t vmmio_get_magic(struct slot *s)
{
	(void)s;
	return VMMIO_MAGIC;
}
static uint32_t vmmio_get_version(struct slot *s)
{
	(void)s;
	return VMMIO_VERSION;
}
static uint32_t vmmio_get_device_id(struct slot *s)
{
	return s->dev ? s->dev->ops->id : VDEV_NONE;
}
static uint32_t vmmio_get_vendor(struct slot *s)
{
	(void)s;
	return VMMIO_VENDOR;
}
static uint32_t vmmio_get_dev_features(struct slot *s)
{
	uint64_t f = vmmio_features(s);

	if (s->dev_features_sel > 1)
		return 0;
	return (uint32_t)(f >> (32 * s->dev_features_sel));
}
static void vmmio_set_dev_features_sel(struct slot *s, uint32_t v)
{
	s->dev_features_sel = v;
}
static void vmmio_set_drv_features(struct slot *s, uint32_t v)
{
	unsigned shift = 32 * s->drv_features_sel;

	if (s->drv_features_sel > 1)
		return;
	s->drv_features &= ~((uint64_t)UINT32_MAX << shift);
	s->drv_features |= (uint64_t)v << shift;
}
static void vmmio_set_drv_features_sel(struct slot *s, uint32_t v)
{
	s->drv_features_sel = v;
}
static void vmmio_set_queue_sel(struct slot *s, uint32_t v)
{
	s->queue_sel = v;
}
static uint32_t vmmio_get_queue_max(struct slot *s)
{
	return vmmio_staged(s) ? VQ_MAX : 0;
}
static void vmmio_set_queue_num(struct slot *s, uint32_t v)
{
	struct vq *q = vmmio_staged(s);

	if (q && !q->ready)
		q->num = v <= VQ_MAX ? (uint16_t)v : 0;
}
static uint32_t vmmio_get_queue_ready(struct slot *s)
{
	struct vq *q = vmmio_staged(s);
	return q && q->ready;
}
static void vmmio_set_queue_ready(struct slot *s, uint32_t v)
{
	struct vq *q = vmmio_staged(s);

	if (!q)
		return;
	q->mem = s->all->mem;
	if (v == 1 && vq_check(q) == 0)
		q->ready = true;
	else if (v == 1)
		log_debug("virtio queue refused", KV("device", s->dev->ops->name));
	else
		q->ready = false;
}
static void vmmio_set_notify(struct slot *s, uint32_t v)
{
	uint64_t one = 1;

	if (v >= s->dev->ops->nqueues)
		return;
	if (s->kick_fd < 0) /* asleep: slots.h */
		vmmio_kick(s, v);
	/* Normally an ioeventfd takes this write and the guest does not stop here. */
	else if (write(s->kick_fd, &one, sizeof one) < 0) {
		/* EAGAIN: the counter is full, so a kick is pending anyway. */
	}
}
static uint32_t vmmio_get_isr(struct slot *s)
{
	return s->isr;
}
static void vmmio_set_isr_ack(struct slot *s, uint32_t v)
{
	s->isr &= ~v;
	vmmio_show_isr(s);
}
static uint32_t vmmio_get_status(struct slot *s)
{
	return s->status;
}

/* FEATURES_OK stays set only for a subset of what was offered that includes VERSION_1 (2.2.2, 6.1). */
bool vmmio_features_ok(struct slot *s)
{
	return !(s->drv_features & ~vmmio_features(s)) && (s->drv_features & VIRTIO_F_VERSION_1);
}

static void vmmio_activate(struct slot *s)
{
	struct vdev *d = s->dev;

	d->features = s->drv_features;
	for (unsigned i = 0; i < d->ops->nqueues; i++) {
		d->q[i] = s->staged[i];
		d->q[i].mem = s->all->mem;
		d->q[i].event_idx = d->features & VIRTIO_F_RING_EVENT_IDX;
		d->q[i].next_avail = d->q[i].next_used = d->q[i].signalled = 0;
	}
	s->status |= VMMIO_S_DRIVER_OK;
	d->active = true;
	if (d->ops->activate && d->ops->activate(d) < 0)
		vdev_broken(d, "cannot activate");
}

/* Section 3.1.1: bits are added one step at a time and never taken away but by a reset. */
static void vmmio_set_status(struct slot *s, uint32_t v)
{
	uint32_t fresh = v & ~s->status;

	if (v == 0) {
		vmmio_reset(s);
		return;
	}
	if ((s->status & ~v & ~VMMIO_S_NEEDS_RESET) != 0)
		return;
	if (fresh & VMMIO_S_FAILED) {
		s->status |= VMMIO_S_FAILED;
		return;
	}
	if (fresh & VMMIO_S_ACKNOWLEDGE)
		s->status |= VMMIO_S_ACKNOWLEDGE;
	if ((fresh & VMMIO_S_DRIVER) && (s->status & VMMIO_S_ACKNOWLEDGE))
		s->status |= VMMIO_S_DRIVER;
	if ((fresh & VMMIO_S_FEATURES_OK) && (s->status & VMMIO_S_DRIVER) && vmmio_features_ok(s))
		s->status |= VMMIO_S_FEATURES_OK;
	if ((fresh & VMMIO_S_DRIVER_OK) && (s->status & VMMIO_S_FEATURES_OK) &&
	    !(s->status & (VMMIO_S_FAILED | VMMIO_S_NEEDS_RESET)))
		vmmio_activate(s);
}

#define VMMIO_QUEUE_ADDR(ring)                                                          \
	static void vmmio_set_##ring##_low(struct slot *s, uint32_t v)                  \
	{                                                                               \
		struct vq *q = vmmio_staged(s);                                         \
		if (q && !q->ready)                                                     \
			q->ring = (q->ring & ~(gpa_t)UINT32_MAX) | v;                   \
	}                                                                               \
	static void vmmio_set_##ring##_high(struct slot *s, uint32_t v)                 \
	{                                                                               \
		struct vq *q = vmmio_staged(s);                                         \
		if (q && !q->ready)                                                     \
			q->ring = (q->ring & UINT32_MAX) | (gpa_t)v << 32;              \
	}
VMMIO_QUEUE_ADDR(desc)
VMMIO_QUEUE_ADDR(avail)
VMMIO_QUEUE_ADDR(used)
#undef VMMIO_QUEUE_ADDR

static uint32_t vmmio_get_shm_none(struct slot *s)
{
	(void)s; /* SHMLen / SHMBase of a region that does not exist: all ones (4.2.2.1) */
	return UINT32_MAX;
}
static uint32_t vmmio_get_generation(struct slot *s)
{
	return s->generation;
}

/* When a register may be touched. */
enum vmmio_when {
	VMMIO_ALWAYS,     /* also in an empty slot */
	VMMIO_PRESENT,    /* a device is in the slot */
	VMMIO_NEGOTIATE,  /* DRIVER set, FEATURES_OK not yet */
	VMMIO_QUEUE_SETUP, /* FEATURES_OK set, DRIVER_OK not yet */
};

struct vmmio_reg {
	uint32_t offset;
	enum vmmio_when read_when;
	uint32_t (*get)(struct slot *s);
	enum vmmio_when write_when;
	void (*set)(struct slot *s, uint32_t v);
};

/* virtio 1.2 table 4.1, MMIO Device Register Layout. Unlisted: reads 0, ignores writes. */
static const struct vmmio_reg vmmio_regs[] = {
	/* offset  read         handler                  write              handler                 */
	{ 0x000, VMMIO_ALWAYS,  vmmio_get_magic,         VMMIO_ALWAYS,      NULL                    },
	{ 0x004, VMMIO_ALWAYS,  vmmio_get_version,       VMMIO_ALWAYS,      NULL                    },
	{ 0x008, VMMIO_ALWAYS,  vmmio_get_device_id,     VMMIO_ALWAYS,      NULL                    },
	{ 0x00c, VMMIO_ALWAYS,  vmmio_get_vendor,        VMMIO_ALWAYS,      NULL                    },
	{ 0x010, VMMIO_PRESENT, vmmio_get_dev_features,  VMMIO_ALWAYS,      NULL                    },
	{ 0x014, VMMIO_ALWAYS,  NULL,                    VMMIO_PRESENT,     vmmio_set_dev_features_sel },
	{ 0x020, VMMIO_ALWAYS,  NULL,                    VMMIO_NEGOTIATE,   vmmio_set_drv_features  },
	{ 0x024, VMMIO_ALWAYS,  NULL,                    VMMIO_NEGOTIATE,   vmmio_set_drv_features_sel },
	{ 0x030, VMMIO_ALWAYS,  NULL,                    VMMIO_PRESENT,     vmmio_set_queue_sel     },
	{ 0x034, VMMIO_PRESENT, vmmio_get_queue_max,     VMMIO_ALWAYS,      NULL                    },
	{ 0x038, VMMIO_ALWAYS,  NULL,                    VMMIO_QUEUE_SETUP, vmmio_set_queue_num     },
	{ 0x044, VMMIO_PRESENT, vmmio_get_queue_ready,   VMMIO_QUEUE_SETUP, vmmio_set_queue_ready   },
	{ 0x050, VMMIO_ALWAYS,  NULL,                    VMMIO_PRESENT,     vmmio_set_notify        },
	{ 0x060, VMMIO_PRESENT, vmmio_get_isr,           VMMIO_ALWAYS,      NULL                    },
	{ 0x064, VMMIO_ALWAYS,  NULL,                    VMMIO_PRESENT,     vmmio_set_isr_ack       },
	{ 0x070, VMMIO_PRESENT, vmmio_get_status,        VMMIO_PRESENT,     vmmio_set_status        },
	{ 0x080, VMMIO_ALWAYS,  NULL,                    VMMIO_QUEUE_SETUP, vmmio_set_desc_low      },
	{ 0x084, VMMIO_ALWAYS,  NULL,                    VMMIO_QUEUE_SETUP, vmmio_set_desc_high     },
	{ 0x090, VMMIO_ALWAYS,  NULL,                    VMMIO_QUEUE_SETUP, vmmio_set_avail_low     },
	{ 0x094, VMMIO_ALWAYS,  NULL,                    VMMIO_QUEUE_SETUP, vmmio_set_avail_high    },
	{ 0x0a0, VMMIO_ALWAYS,  NULL,                    VMMIO_QUEUE_SETUP, vmmio_set_used_low      },
	{ 0x0a4, VMMIO_ALWAYS,  NULL,                    VMMIO_QUEUE_SETUP, vmmio_set_used_high     },
	{ 0x0b0, VMMIO_PRESENT, vmmio_get_shm_none,      VMMIO_ALWAYS,      NULL                    },
	{ 0x0b4, VMMIO_PRESENT, vmmio_get_shm_none,      VMMIO_ALWAYS,      NULL                    },
	{ 0x0b8, VMMIO_PRESENT, vmmio_get_shm_none,      VMMIO_ALWAYS,      NULL                    },
	{ 0x0bc, VMMIO_PRESENT, vmmio_get_shm_none,      VMMIO_ALWAYS,      NULL                    },
	{ 0x0fc, VMMIO_PRESENT, vmmio_get_generation,    VMMIO_ALWAYS,      NULL                    },
};

static bool vmmio_allowed(const struct slot *s, enum vmmio_when when)
{
	if (when == VMMIO_ALWAYS)
		return true;
	if (!s->dev)
		return false;
	switch (when) {
	case VMMIO_NEGOTIATE:
		return (s->status & VMMIO_S_DRIVER) && !(s->status & VMMIO_S_FEATURES_OK);
	case VMMIO_QUEUE_SETUP:
		return (s->status & VMMIO_S_FEATURES_OK) && !(s->status & VMMIO_S_DRIVER_OK);
	default:
		return true;
	}
}

static uint32_t vmmio_get(struct slot *s, const struct vmmio_reg *reg)
{
	return reg->get && vmmio_allowed(s, reg->read_when) ? reg->get(s) : 0;
}

static void vmmio_config(struct slot *s, uint32_t at, uint8_t *data, uint32_t len, bool write)
{
	const struct vdev_ops *ops;

	if (!s->dev)
		return;
	ops = s->dev->ops;
	if (write && ops->config_write)
		ops->config_write(s->dev, at, data, len);
	else if (!write && ops->config_read)
		ops->config_read(s->dev, at, data, len);
}

static const struct vmmio_reg *vmmio_find(uint32_t offset)
{
	for (unsigned i = 0; i < ARRAY_LEN(vmmio_regs); i++)
		if (vmmio_regs[i].offset == offset)
			return &vmmio_regs[i];
	return NULL;
}

void vmmio_access(struct slot *s, uint32_t offset, uint8_t *data, uint32_t len, bool write)
{
	const struct vmmio_reg *reg;
	uint32_t v = 0;

	if (!write)
		memset(data, 0, len);
	if (offset >= VMMIO_CONFIG) {
		vmmio_config(s, offset - VMMIO_CONFIG, data, len, write);
		if (write)
			vmmio_show(s);
		return;
	}
	if (len != 4) /* 4.2.2.2: registers are 32 bits wide and accessed so */
		return;
	reg = vmmio_find(offset);
	if (!reg)
		return;
	if (write) {
		memcpy(&v, data, sizeof v);
		if (!reg->set || !vmmio_allowed(s, reg->write_when))
			return;
		reg->set(s, v);
		if (reg->set != vmmio_set_notify && reg->set != vmmio_set_isr_ack)
			vmmio_show(s); /* selectors and status are behind several registers */
	} else {
		v = vmmio_get(s, reg);
		memcpy(data, &v, sizeof v);
	}
}

void vmmio_show(struct slot *s)
{
	uint32_t config[VMMIO_CONFIG_SHOWN / sizeof(uint32_t)] = { 0 };

	if (!s->window)
		return;
	for (unsigned i = 0; i < ARRAY_LEN(vmmio_regs); i++)
		vmmio_show_word(s, vmmio_regs[i].offset, vmmio_get(s, &vmmio_regs[i]));
	vmmio_config(s, 0, (uint8_t *)config, sizeof config, false);
	for (uint32_t i = 0; i < ARRAY_LEN(config); i++)
		vmmio_show_word(s, VMMIO_CONFIG + i * 4, config[i]);
}

void vmmio_reset(struct slot *s)
{
	struct vdev *d = s->dev;

	for (unsigned i = 0; d && i < VDEV_MAX_QUEUES; i++)
		d->q[i].ready = false;
	if (d && d->active) {
		d->active = false;
		if (d->ops->reset)
			d->ops->reset(d);
	}
	s->status = s->isr = 0;
	s->dev_features_sel = s->drv_features_sel = s->queue_sel = 0;
	s->drv_features = 0;
	memset(s->staged, 0, sizeof s->staged);
	vmmio_show(s);
}

void vmmio_kick(struct slot *s, unsigned q)
{
	struct vdev *d = s->dev;
	int r;

	if (!d || !d->active || (s->status & VMMIO_S_NEEDS_RESET))
		return;
	r = d->ops->kick(d, q);
	if (r < 0)
		vdev_broken(d, strerror(-r));
}

/* --- the transport as devices see it (virtio.h) ---------------------------------------------- */

void vdev_lock(struct vdev *d)
{
	pthread_mutex_lock(&d->slot->lock);
}

void vdev_unlock(struct vdev *d)
{
	pthread_mutex_unlock(&d->slot->lock);
}

static void vmmio_interrupt(struct slot *s, uint32_t bit)
{
	s->isr |= bit;
	vmmio_show_isr(s);
	s->all->host.irq(s->all->host.arg, LAYOUT_SLOT_GSI + s->index);
}

void vdev_signal(struct vdev *d, unsigned q)
{
	if (vq_should_signal(&d->q[q]))
		vmmio_interrupt(d->slot, VMMIO_INT_VRING);
}

int vdev_kick_fd(const struct vdev *d)
{
	return d->slot->kick_fd;
}

void vdev_hear_kicks(struct vdev *d, bool yes)
{
	watch_want(&d->slot->kick, yes ? EPOLLIN : 0);
}

void vdev_interrupt(struct vdev *d)
{
	vmmio_interrupt(d->slot, VMMIO_INT_VRING);
}

void vdev_config_changed(struct vdev *d)
{
	d->slot->generation++;
	vmmio_show(d->slot);
	if (d->slot->status & VMMIO_S_DRIVER_OK)
		vmmio_interrupt(d->slot, VMMIO_INT_CONFIG);
}

void vdev_broken(struct vdev *d, const char *why)
{
	struct slot *s = d->slot;

	if (s->status & VMMIO_S_NEEDS_RESET)
		return;
	if (!d->complained)
		log_warn("guest broke a virtio rule; device waits for a reset",
			 KV("device", d->ops->name), KV("reason", why));
	d->complained = true;
	for (unsigned i = 0; i < d->ops->nqueues; i++)
		d->q[i].ready = false;
	s->status |= VMMIO_S_NEEDS_RESET;
	vmmio_show(s);
	if (s->status & VMMIO_S_DRIVER_OK)
		vmmio_interrupt(s, VMMIO_INT_CONFIG);
}
