/* vsock_hybrid.h - the Unix socket at which host programs ask for a guest port (PROTOCOL.vsock,
 * section 4): "CONNECT <port>" and "passfd". A client here has not finished its command; afterwards
 * it is a stream of vsock_mux.h like any other. Loop thread only. */
#pragma once

#include "vmm/virtio/vsock.h"

struct vhyb;

INTERNAL MUST_USE struct vhyb *vhyb_new(struct vsk *v);
INTERNAL void vhyb_free(struct vhyb *h);
/* Serve a listening Unix stream socket; fd is taken. 0, -EBUSY (there is one), -errno. */
INTERNAL MUST_USE int vhyb_start(struct vhyb *h, int listen_fd, struct err *e);
/* The machine runs again: look at descriptors whose watches were stopped meanwhile. */
INTERNAL void vhyb_resume(struct vhyb *h);
