/* blk.h - a disk: virtio 1.2 section 5.2 over one file or block device that somebody else opened.
 *
 * Raw sectors, nothing to parse and no second file to follow. Small reads that the host's page
 * cache can answer are served by the event loop on the spot (RWF_NOWAIT). For the rest the file is
 * read and written by up to VBLK_MAX_WORKERS threads with positioned, blocking calls; the event
 * loop never waits for a disk. The first thread is made by the first request that needs one, more
 * when requests pile up; those leave again after VBLK_LINGER_MS without work, so an idle disk costs
 * one sleeping thread, and a disk that was only read from memory none.
 *
 * A completed write is in the host's page cache; FLUSH makes everything completed before it durable
 * (fdatasync). A driver that did not negotiate FLUSH gets that after each write (5.2.6.2). An error
 * of the medium, a request outside the disk or one of impossible length is VIRTIO_BLK_S_IOERR; what
 * we do not know is VIRTIO_BLK_S_UNSUPP; a request without a whole header or a status byte cannot
 * be answered and breaks the device until the driver resets it.
 *
 * Reset and requests in flight. The host call of a request cannot be taken back, and a read is
 * still filling guest memory that the driver owns again once Status reads 0. So reset() waits for
 * the calls under way, but it runs on a vCPU thread with the slot lock held, where an event loop
 * that wants the slot would wait too: it gives up after VBLK_RESET_MS. A disk slower than that can
 * then scribble on buffers which the guest itself had offered; the completion is dropped in any
 * case (inv 3 in blk.c).
 *
 * System calls, for the jail. Loop thread: preadv2; when a worker is made mmap, mprotect, clone,
 * munmap, rt_sigprocmask, futex. Worker: preadv, pwritev, fdatasync, fallocate, ioctl(BLKDISCARD),
 * futex, clock_gettime where there is no vDSO, write (interrupt eventfd, log), and to leave:
 * rt_sigprocmask, munmap, exit. vblk_new(): fstat, fcntl(F_GETFL), ioctl(BLKGETSIZE64, BLKSSZGET).
 * RLIMIT_FSIZE must not be lower than the disk, or a write raises SIGXFSZ. */
#pragma once

#include "vmm/virtio/virtio.h"

#define VBLK_SERIAL_MAX  20
#define VBLK_MAX_WORKERS 4
#define VBLK_RESET_MS    1000  /* longest wait of a driver reset for host calls under way */
#define VBLK_QUIESCE_MS  10000 /* longest wait of quiesce(), then -EBUSY */
#define VBLK_LINGER_MS   2000  /* a spare worker without work leaves after this */

struct vblk_config {
	int fd;         /* regular file or block device */
	bool read_only; /* else fd must be writable, and not O_APPEND */
	char serial[VBLK_SERIAL_MAX];    /* what /sys/block/.../serial shows; NUL-padded */
	uint32_t logical_block_bytes;    /* power of two, 512..4096; 0 = fd's own, 512 for a file */
};

/* Make a disk of c->fd, which is taken: closed with the device, also when this fails. A size that
 * is not a multiple of the logical block loses its tail, with a note in the log; nothing left is
 * -EINVAL. The device can be attached once; slots_attach() takes it. */
INTERNAL MUST_USE int vblk_new(const struct vblk_config *c, struct loop *loop,
			       const struct gmem *mem, struct vdev **out, struct err *e);

/* A drive without a disk in it: capacity 0, blocks of 512 bytes. A template is saved with its driver
 * bound to one, so that a clone only has to hear of a new capacity instead of probing a device. */
INTERNAL MUST_USE struct vdev *vblk_new_empty(bool read_only, struct loop *loop,
					      const struct gmem *mem);
/* Is d such a drive, still empty? */
INTERNAL bool vblk_is_empty(struct vdev *d);
/* Put a disk into it; c->fd is taken. -ENOTSUP: a disk with larger blocks, or of the other kind
 * (read_only), needs a slot of its own. Loop thread, no lock. */
INTERNAL MUST_USE int vblk_insert(struct vdev *d, const struct vblk_config *c, struct err *e);
/* Take the disk out again and close it: d is an empty drive then, also if it was not before. -EBUSY: host
 * calls under way did not end within VBLK_QUIESCE_MS. Loop thread, no lock. */
INTERNAL MUST_USE int vblk_eject(struct vdev *d, struct err *e);
