/* vhost.h - queues served by the host's kernel instead of us: linux/vhost.h, vhost-net.
 *
 * A thread of the kernel reads and writes the rings and the guest's memory, and moves frames between them and
 * a tap, without this process being woken; what is left for us is to pass its signals on as interrupts. It
 * checks rings and descriptors itself, against the memory it was told, which is the guest's and nothing else.
 *
 * Life: init -> start when the driver is ready -> stop -> start ... -> fini. While it is started the queues are
 * not ours to touch. start and stop may come from any thread, with the slot lock held; stop waits for the frame
 * that is being moved. */
#pragma once

#include "vmm/virtio/queue.h"

struct vhost {
	int fd;      /* /dev/vhost-net; -1 = we do it ourselves */
	int call_fd; /* an eventfd: something was pushed that the driver wants to know of */
	bool is_running;
};

/* fd is taken, also when this fails; -1: none, and all the others do nothing. */
INTERNAL MUST_USE int vhost_init(struct vhost *h, int fd, const struct gmem *mem, struct err *e);
INTERNAL void vhost_fini(struct vhost *h);

/* Serve n queues from where they stand, on `features` as negotiated: kick_fd tells of new entries in any of
 * them, frames go to and come from tap_fd. 0/-errno. */
INTERNAL MUST_USE int vhost_start(struct vhost *h, const struct vq *q, unsigned n, uint64_t features,
				  int kick_fd, int tap_fd);
/* And give the queues back. */
INTERNAL void vhost_stop(struct vhost *h, struct vq *q, unsigned n);
