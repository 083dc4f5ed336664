/* vsock_io.h - bytes in and out of a descriptor without sleeping, and where they wait meanwhile. For
 * vsock_mux.c alone; the table of what is done with what is in vsock_mux.h. */
#pragma once

#include <sys/uio.h>

#include "amalgam/base/loop.h"

/* How a descriptor is driven. */
enum vmux_how {
	VMUX_SOCKET,
	VMUX_NOWAIT,
	VMUX_NONBLOCK,
	VMUX_STAGED, /* from here on: through a buffer, without the lock */
	VMUX_POLL = VMUX_STAGED,
	VMUX_FILE,
};

/* Choose. The loop is only asked whether it could wait for fd. */
INTERNAL enum vmux_how vmux_classify(struct loop *l, int fd);

/* Bytes, or -errno; -EAGAIN also when the call cannot be made without sleeping on this kernel, then
 * *how has changed. From VMUX_STAGED on they may sleep. */
INTERNAL ssize_t vmux_readv(enum vmux_how *how, int fd, const struct iovec *iov, unsigned n);
INTERNAL ssize_t vmux_writev(enum vmux_how *how, int fd, const struct iovec *iov, unsigned n);

/* Which of `events`, POLLHUP or POLLERR are true now. */
INTERNAL short vmux_poll(int fd, short events);

/* Bytes on their way; no memory while empty. */
struct vmux_buf {
	uint8_t *p;
	uint32_t at, len, cap;
};

/* Where the next n bytes go; the caller adds to len what it wrote there. With them, at most
 * VSK_BUF_BYTES are in the buffer. */
INTERNAL uint8_t *vmux_buf_room(struct vmux_buf *b, uint32_t n);
/* The first n bytes are done with; memory goes with the last (n may be 0). */
INTERNAL void vmux_buf_drop(struct vmux_buf *b, uint32_t n);
