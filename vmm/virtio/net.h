/* net.h - a network card: virtio 1.2 section 5.1 over one tap that somebody else opened.
 *
 * One pair of queues, served by the host's kernel if we are given its vhost-net and no limits (vhost.h);
 * else by the event loop with readv(2) and writev(2) that never wait: a frame goes between the tap and the
 * guest's buffers without a copy of ours. The tap's own header (linux/virtio_net.h)
 * is the device's, so checksums and segmentation are left to whoever needs them last; the host's kernel
 * checks what the guest asks of it there. Frames wait in the tap while the guest has no room, and are lost
 * where they always are: when its queue is full. A frame the host does not want (tap down or gone, header
 * nonsense) is dropped; the guest hears of it as little as on a wire.
 *
 * The tap must be IFF_TAP | IFF_NO_PI | IFF_VNET_HDR with a header of VNET_HDR_BYTES, O_NONBLOCK, and have
 * TUN_F_CSUM, TSO4, TSO6 and TSO_ECN switched on (TUNSETOFFLOAD waits for a lock of the whole host, so it
 * is not for here). A driver that does not take such frames is refused: the device wants a reset.
 *
 * Limits are token buckets of 100 ms, one for each direction; a frame may overdraw one and the next waits.
 *
 * Reset while a frame is being moved waits for that one call, which does not sleep.
 *
 * System calls, for the jail. Loop thread: readv, writev, epoll_ctl, close; eventfd2, read, and ioctl from any
 * thread for vhost-net. */
#pragma once

#include "vmm/virtio/virtio.h"

#define VNET_HDR_BYTES 12 /* struct virtio_net_hdr_v1 */
#define VNET_MAC_BYTES 6

struct vnet_config {
	int fd;
	int vhost_fd;              /* /dev/vhost-net, or -1; taken like fd. Not used with limits */
	uint8_t mac[VNET_MAC_BYTES];
	uint16_t mtu;              /* bytes of a frame after the Ethernet header; 0 = not told */
	uint64_t rx_rate, tx_rate; /* bits per second to and from the guest; 0 = no limit */
};

/* Make a card of c->fd, which is taken: closed with the device, also when this fails. Loop thread. */
INTERNAL MUST_USE int vnet_new(const struct vnet_config *c, struct loop *loop, const struct gmem *mem,
			       struct vdev **out, struct err *e);
