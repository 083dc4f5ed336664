/* vsock.h - the virtio-vsock device, packet level. virtio 1.2 section 5.10, stream sockets only.
 *
 * Two halves. This one (vsk_) knows queues, packets, credit and the life of a connection as the
 * guest sees it. The other one (vsock_mux.h, vmux_) knows what stands behind a connection on the
 * host: descriptors, and the Unix socket clients knock at. PROTOCOL.vsock is the normative text.
 *
 * Threads. A struct vsk_conn belongs to the loop thread, always. The slot lock guards the queues
 * and the few fields marked (lock), which a register access on a vCPU thread may touch: a driver
 * reset only bumps `epoch`; the loop thread drops the connections when it notices.
 *
 * Turns. Everything that becomes possible (a kick, a readable descriptor, a timeout) is noted down
 * and done in one turn at the end of the same loop step: one lock, one interrupt per batch.
 *
 * System calls: eventfd2 in vsk_new(); afterwards read and write on it, besides those listed in
 * vsock_mux.h. */
#pragma once

#include "vmm/virtio/virtio.h"

#define VSK_HOST_CID  2
#define VSK_GUEST_CID 3 /* default; every guest may have the same, it is alone with its VMM */

#define VSK_MAX_CONNS   1023
#define VSK_BUF_BYTES   UINT32_C(65536)     /* what we buffer per connection towards the host */
#define VSK_PORT_FIRST  (UINT32_C(1) << 30) /* ports of connections the host opens */
#define VSK_PORT_COUNT  (UINT32_C(1) << 30)
#define VSK_REQUEST_MS  2000
#define VSK_SHUTDOWN_MS 2000

/* SHUTDOWN flags, 5.10.6.5: what the sender will not do any more. */
#define VSK_SHUT_RCV  1
#define VSK_SHUT_SEND 2
#define VSK_SHUT_BOTH 3

enum vsk_state {
	VSK_OFFERED,    /* the guest's REQUEST waits for vsk_accept() */
	VSK_CONNECTING, /* our REQUEST is owed or unanswered */
	VSK_OPEN,
	VSK_CLOSING, /* both directions shut by us: waiting for the guest's RST */
	VSK_GONE,    /* the guest knows it no longer; the host side may still be draining */
};

/* The guest's half of a connection; embedded in what the host side keeps (struct vmux_conn). Byte
 * counters wrap, as in the packets. */
struct vsk_conn {
	uint32_t host_port, guest_port;
	enum vsk_state state;
	uint8_t owed;       /* control packets to send, VSK_OWE_* */
	uint8_t guest_shut; /* VSK_SHUT_* the guest has told us */
	uint8_t host_shut;  /* VSK_SHUT_* we have told, or owe */
	bool no_in, no_out; /* the host side has nothing to read from, to write to */
	bool readable;      /* the host side may have bytes for the guest */
	bool queued;        /* on the run list */
	bool asked;         /* out of credit and CREDIT_REQUEST sent */
	uint32_t peer_alloc, peer_fwd; /* the guest's buffer, what it has taken out */
	uint32_t tx_cnt;               /* bytes sent to the guest */
	uint32_t rx_cnt, fwd_cnt;      /* bytes got from the guest, bytes the host side took */
	uint32_t fwd_told;             /* fwd_cnt as the guest knows it */
	uint32_t chunk;                /* bytes to ask the host side for next time */
	uint64_t deadline_ns;          /* 0 = none */
	uint32_t wait_ms;              /* what it was set to */
	struct vsk_conn *run_next, *hash_next;
};

/* A reset for a packet that belongs to no connection. */
struct vsk_rst {
	uint64_t host_cid; /* whom the guest thought it was talking to */
	uint32_t host_port, guest_port;
	uint16_t type;
};

#define VSK_RSTS    32
#define VSK_BUCKETS 256

enum vsk_event_state {
	VSK_EVENT_NONE,
	VSK_EVENT_DUE,    /* the driver must hear TRANSPORT_RESET; no buffer for it so far */
	VSK_EVENT_PUSHED, /* waiting for the driver to give the buffer back */
};

struct vmux;

struct vsk {
	struct vdev vdev;
	uint64_t cid;
	uint32_t port_next; /* next host port to try */
	uint32_t port_seed;
	uint32_t epoch;             /* (lock) driver resets so far */
	uint32_t epoch_seen;        /* ... of which the connections know */
	enum vsk_event_state event; /* (lock) anything but NONE: no packets to the guest */
	uint16_t event_tail;        /* avail index of the event queue when the event was pushed */
	bool quiet;          /* between quiesce() and resume() */
	bool tx_more;        /* the tx queue was left before it was empty */
	bool rx_more;        /* the run list was left for lack of time, not of buffers */
	bool in_turn, again; /* again: another turn is wanted after this one */
	struct vsk_rst rst[VSK_RSTS];
	unsigned rst_at, rst_n;
	struct vsk_conn *run_head, *run_tail;
	struct vsk_conn *bucket[VSK_BUCKETS];
	struct vmux *mux;
	struct watch wake; /* eventfd: other threads, and turns that did not finish */
	struct timer turn, expire;
	uint32_t bad_packets, lost_resets; /* what the guest did wrong, for the curious */
};

struct vsk_config {
	uint64_t guest_cid; /* 0 = VSK_GUEST_CID */
	uint32_t port_seed; /* moves the host port counter: random per clone, 0 = stay */
};

/* A device for slots_attach(). 0 or -errno. */
INTERNAL MUST_USE int vsk_new(struct loop *loop, const struct vsk_config *cfg, struct vdev **out,
			      struct err *e);

/* Tell the driver that the transport was reset: it drops all connections and reads the CID again;
 * so do we. Nothing else is sent to the guest until the driver has taken the event. Restoring a
 * snapshot does this by itself when it has to (PROTOCOL.vsock). Loop thread, no lock. */
INTERNAL void vsk_reset_event(struct vdev *d);

/* --- for the host side (vsock_mux.c); loop thread --------------------------------------------- */

/* Guest bytes the connection may still send: its credit. */
INTERNAL uint32_t vsk_credit(const struct vsk_conn *c);
/* Open c towards c->guest_port: chooses c->host_port, sends REQUEST, limits the wait. */
INTERNAL void vsk_connect(struct vsk *v, struct vsk_conn *c, uint32_t timeout_ms);
/* Say yes to an offered connection. */
INTERNAL void vsk_accept(struct vsk *v, struct vsk_conn *c);
/* End c now: RST to the guest if it knows the connection, then vmux_gone(). */
INTERNAL void vsk_kill(struct vsk *v, struct vsk_conn *c, int why);
/* The host side will not take (RCV) or has not (SEND) any more bytes. */
INTERNAL void vsk_shutdown(struct vsk *v, struct vsk_conn *c, unsigned flags);
/* n bytes of the guest's left our hands. */
INTERNAL void vsk_forwarded(struct vsk *v, struct vsk_conn *c, uint32_t n);
/* There may be something to send on c: give it its place in the run list. */
INTERNAL void vsk_ready(struct vsk *v, struct vsk_conn *c);
/* Have a turn at the end of this loop step. */
INTERNAL void vsk_soon(struct vsk *v);
/* Copy n bytes into segments of guest memory; returns bytes copied, less when there is no room. */
INTERNAL size_t vsk_scatter(const struct iovec *iov, unsigned niov, const void *src, size_t n);
