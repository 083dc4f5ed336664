/* blk_req.h - what a request to a disk means; between blk_req.c and blk.c alone.
 *
 * blk.c takes a chain from the queue, has it parsed and served here, and gives it back. Nothing here
 * knows a queue, a lock or a thread: a disk is looked at and never changed, hence const, and any
 * number of threads may serve requests of one disk, each its own. What is said in blk.h about errors
 * is decided here.
 * Source: virtio 1.2, section 5.2. */
#pragma once

#include "vmm/virtio/blk.h"

#define VBLK_SECTOR 512u

/* Limits we announce. A zeroing request may have to be written out byte by byte, hence 64 MiB. */
#define VBLK_MAX_RANGES          16u
#define VBLK_MAX_DISCARD_SECTORS (GIB(1) / VBLK_SECTOR)
#define VBLK_MAX_ZERO_SECTORS    (MIB(64) / VBLK_SECTOR)

#define VBLK_INLINE_BYTES KIB(128) /* longest read that vblk_read_cached() tries */

/* Section 5.2.6. */
enum vblk_status { VBLK_S_OK, VBLK_S_IOERR, VBLK_S_UNSUPP };

/* Section 5.2.4, struct virtio_blk_config; little-endian, as is this host. */
struct PACKED vblk_space {
	uint64_t capacity; /* sectors of 512 bytes */
	uint32_t size_max;
	uint32_t seg_max;
	uint16_t cylinders;
	uint8_t heads, sectors;
	uint32_t blk_size;
	uint8_t physical_block_exp, alignment_offset;
	uint16_t min_io_size;
	uint32_t opt_io_size;
	uint8_t writeback, unused0;
	uint16_t num_queues;
	uint32_t max_discard_sectors;
	uint32_t max_discard_seg;
	uint32_t discard_sector_alignment;
	uint32_t max_write_zeroes_sectors;
	uint32_t max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap, unused1[3];
};
static_assert(offsetof(struct vblk_space, blk_size) == 20, "5.2.4");
static_assert(sizeof(struct vblk_space) == 60, "5.2.4");

struct vblk {
	/* The disk: all that requests look at. */
	int fd;
	bool read_only, is_bdev;
	char serial[VBLK_SERIAL_MAX];
	struct vblk_space space;

	/* The rest is blk.c's. */
	struct vdev dev;
	bool no_nowait; /* loop thread; the host cannot say whether a read would wait */
	uint32_t epoch; /* slot lock; counts resets: a request of an older epoch is dropped */

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t work;  /* a turn may be had: wanted, parked or stop changed */
	pthread_cond_t calm;  /* idle, in_io or workers changed as somebody may wait for */
	unsigned workers;     /* threads that exist */
	unsigned idle;        /* of these, waiting for a turn (inv 1) */
	unsigned wanted;      /* turns to hand out: somebody should look at the queue */
	unsigned in_io;       /* requests whose host calls may touch guest memory */
	bool parked;          /* between quiesce() and resume(): no turns; set by the loop thread */
	bool stop;
};

/* Section 5.2.6, what a request begins with. */
struct vblk_header {
	uint32_t type, reserved;
	uint64_t sector;
};

/* A request being served. One lives on each worker's stack; nothing is allocated for requests. */
struct vblk_req {
	struct vq_chain c; /* its iov is consumed by the transfer */
	struct vblk_header h;
	struct iovec tail; /* the status byte */
	uint32_t epoch;    /* blk.c's */
	bool writethrough; /* make it durable before it completes */
	uint32_t done;     /* bytes written to the driver, status excluded */
};

/* Copy the header out of r->c and find the status byte. 0, or -EINVAL: one of them is missing, the
 * request cannot be answered. */
INTERNAL MUST_USE int vblk_parse(struct vblk_req *r);

/* Do what a parsed request asks for, and wait for it. The caller writes the status. */
INTERNAL MUST_USE enum vblk_status vblk_serve(const struct vblk *v, struct vblk_req *r);

/* The same without waiting, for a short read that the page cache holds as a whole. 0: served, status
 * VBLK_S_OK. -EOPNOTSUPP, -ENOSYS: this host cannot say what it holds. Else it is for vblk_serve(),
 * after another pop and parse: the iov is used up. */
INTERNAL MUST_USE int vblk_read_cached(const struct vblk *v, struct vblk_req *r);

/* The length of a served request for the used ring. */
INTERNAL uint32_t vblk_written(const struct vblk_req *r);
