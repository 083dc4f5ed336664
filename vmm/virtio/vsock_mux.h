/* vsock_mux.h - what stands behind a vsock connection on the host: descriptors.
 *
 * The VMM opens nothing: every descriptor comes from the supervisor, at start or over its control
 * socket, or from a client of the hybrid Unix socket. It belongs to the mux from the call on, also
 * when the call fails, and is closed when the stream ends.
 *
 * What may stand behind a stream, and how it is driven (chosen once, O_NONBLOCK is never changed):
 *
 *   stream socket             recvmsg/sendmsg with MSG_DONTWAIT
 *   anything with O_NONBLOCK  readv/writev
 *   pipe, fifo (Linux 6.4+)   preadv2/pwritev2 with RWF_NOWAIT
 *   pipe, fifo, tty, other    poll, then read what is there, write <= 4096 (pipe) or 256 bytes
 *   file, disk, /dev/null     plain read/write, at most 64 KiB per turn
 *
 * The first three go straight between descriptor and guest memory and cannot sleep. The others are
 * staged through a buffer without the slot lock. What can still sleep, so that one turn is late for
 * everybody: a file whose page is not cached or whose filesystem throttles writers; a blocking pipe
 * or tty shared with somebody who empties or fills it between our poll and our call. A supervisor
 * that minds passes a description of its own with O_NONBLOCK set, as the shim does for fifos.
 *
 * Back-pressure. Towards the guest: bytes are read from the host only when the guest has credit and
 * receive buffers. Towards the host: what the descriptor does not take waits in a buffer of at most
 * VSK_BUF_BYTES that exists only meanwhile; the guest gets credit when it has drained. So a stuck
 * reader stalls its own stream and no other.
 *
 * A fifo open for both directions would echo: open it for one. All functions and callbacks: loop
 * thread, slot lock not held. SIGPIPE must be ignored by the process.
 *
 * System calls: accept4, close, epoll_ctl, fcntl(F_GETFL, F_SETFL on the listening socket), fstat,
 * poll, readv, preadv2, recvfrom, recvmsg, sendmsg, sendto, shutdown, writev, pwritev2;
 * clock_gettime where it is not in the vdso; what malloc needs (brk, mmap, munmap, mremap,
 * madvise). No memory is mapped or touched while no stream is open. */
#pragma once

#include "vmm/virtio/vsock.h"

#define VMUX_CLIENTS   16   /* hybrid clients that have not finished their command */
#define VMUX_LINE_MAX  32   /* bytes of a hybrid command, newline included */
#define VMUX_CLIENT_MS 2000 /* and how long it may take */

enum vmux_event {
	VMUX_OPENED, /* the guest has accepted; err is 0 */
	VMUX_FIRST,  /* the first bytes from the guest reached out_fd; only if asked for */
	/* The last word about this stream: all bytes delivered or given up. err: 0 ended in order,
	 * -ECONNREFUSED not accepted, -ETIMEDOUT not answered, -ECONNRESET cut off, -EPROTO the guest
	 * broke the protocol. */
	VMUX_CLOSED,
};
typedef void vmux_fn(void *arg, uint32_t host_port, enum vmux_event ev, int err);

struct vmux_spec {
	uint32_t guest_port;
	int in_fd;  /* bytes for the guest come from here, -1 = none */
	int out_fd; /* bytes from the guest go here, -1 = none (they are dropped). May be in_fd */
	uint32_t timeout_ms; /* for the guest to answer, 0 = VSK_REQUEST_MS */
	bool keep;   /* the stream outlives the descriptor: EOF and EPIPE are not told to the guest */
	bool first;          /* tell VMUX_FIRST */
	vmux_fn *fn; /* may be NULL */
	void *arg;
};

/* Open a stream to a guest port. Returns its host port (>= 2^30, so it fits an int) or -errno:
 * -EMFILE too many streams. The answer comes through s->fn, never before this returns. */
INTERNAL int vmux_connect(struct vdev *d, const struct vmux_spec *s);

/* The same for a client of the hybrid socket: greet_fd gets "OK <host port>\n" when the guest
 * accepts, before any other byte. It may be s->in_fd; else it is taken too and then closed. */
INTERNAL int vmux_connect_greeting(struct vdev *d, const struct vmux_spec *s, int greet_fd);

/* Cut a stream off: RST to the guest, bytes in flight are lost. -ENOENT: no such stream. */
INTERNAL int vmux_close(struct vdev *d, uint32_t host_port);

/* The guest connects to `host_port`: return a descriptor to pump (taken), or -1 to refuse. Without
 * a hook everything is refused. */
typedef int vmux_guest_fn(void *arg, uint32_t host_port, uint32_t guest_port);
INTERNAL void vmux_on_guest_connect(struct vdev *d, vmux_guest_fn *fn, void *arg);

/* Serve the hybrid protocol (CONNECT, passfd) on a listening Unix stream socket; fd is taken. Once
 * per device. 0 or -errno. */
INTERNAL MUST_USE int vmux_serve(struct vdev *d, int listen_fd, struct err *e);

/* --- called by vsock.c ------------------------------------------------------------------------ */

INTERNAL MUST_USE struct vmux *vmux_new(struct vsk *v);
/* Does a stream other than c, perhaps one that still drains, have c's host port? */
INTERNAL bool vmux_port_used(const struct vmux *m, const struct vsk_conn *c);
/* Close everything, call nobody. */
INTERNAL void vmux_free(struct vmux *m);

/* With the slot lock held: note, and do only what cannot sleep. */

/* The guest asks for host_port. NULL = refuse; else vsk_accept() or vsk_kill() follows. */
INTERNAL struct vsk_conn *vmux_offer(struct vmux *m, uint32_t host_port, uint32_t guest_port);
INTERNAL void vmux_opened(struct vmux *m, struct vsk_conn *c);
/* Take all out_len bytes of the readable part of `chain`; the caller has checked the credit. */
INTERNAL void vmux_data(struct vmux *m, struct vsk_conn *c, const struct vq_chain *chain);
/* c->guest_shut has changed. */
INTERNAL void vmux_guest_shut(struct vmux *m, struct vsk_conn *c);
/* The guest's half is over (state GONE). Bytes it sent before are still delivered. */
INTERNAL void vmux_gone(struct vmux *m, struct vsk_conn *c, int why);
/* Put at most the room of iov of host bytes there. 0 = nothing now, and c->readable says whether it
 * is worth asking again; at the end of the stream vsk_shutdown() has been called. */
INTERNAL size_t vmux_fill(struct vmux *m, struct vsk_conn *c, const struct iovec *iov,
			  unsigned niov);

/* Without the lock, in every turn. vmux_io(): calls that may sleep, before the packets.
 * vmux_report(): callbacks and closing, after them. True = have another turn, there is more. */
INTERNAL void vmux_io(struct vmux *m);
INTERNAL bool vmux_report(struct vmux *m);
/* resume(): look at every descriptor again. */
INTERNAL void vmux_resume(struct vmux *m);
