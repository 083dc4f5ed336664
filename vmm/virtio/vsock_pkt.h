/* vsock_pkt.h - the packet format, and what the three files of the device share: vsock.c
 * (connections, turns, the device), vsock_in.c (packets from the guest), vsock_out.c (packets to
 * it). Nobody else includes this, but tests. */
#pragma once

#include "vmm/virtio/vsock.h"

/* virtio 1.2 section 5.10.6, struct virtio_vsock_hdr; little-endian, as is this host. */
struct vsk_hdr {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len; /* bytes of payload behind the header */
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt;
} PACKED;
_Static_assert(sizeof(struct vsk_hdr) == 44, "virtio 1.2 section 5.10.6");

#define VSK_TYPE_STREAM 1

enum vsk_op {
	VSK_OP_INVALID,
	VSK_OP_REQUEST,
	VSK_OP_RESPONSE,
	VSK_OP_RST,
	VSK_OP_SHUTDOWN,
	VSK_OP_RW,
	VSK_OP_CREDIT_UPDATE,
	VSK_OP_CREDIT_REQUEST,
};

enum { VSK_RX, VSK_TX, VSK_EVENT, VSK_NQUEUES };

#define VSK_OWE_REQUEST        0x01
#define VSK_OWE_RESPONSE       0x02
#define VSK_OWE_SHUTDOWN       0x04
#define VSK_OWE_CREDIT_UPDATE  0x08
#define VSK_OWE_CREDIT_REQUEST 0x10

#define VSK_CREDIT_STEP (VSK_BUF_BYTES / 4)  /* tell the guest when this much has drained */
#define VSK_CHUNK_MIN   UINT32_C(16384)      /* host bytes asked for in one go */
#define VSK_CHUNK_MAX   UINT32_C(65536)
#define VSK_TURN_BYTES  (256 * 1024) /* either direction, per turn */
#define VSK_TX_BATCH    64           /* packets from the guest per turn */

/* vsock.c */
INTERNAL struct vsk_conn *vsk_find(struct vsk *v, uint32_t host_port, uint32_t guest_port);
INTERNAL void vsk_insert(struct vsk *v, struct vsk_conn *c);
INTERNAL void vsk_unqueue(struct vsk *v, struct vsk_conn *c);
/* May data go to the guest now? */
INTERNAL bool vsk_can_send(const struct vsk_conn *c);
/* Owe a reset. */
INTERNAL void vsk_push_rst(struct vsk *v, const struct vsk_rst *r);
/* The guest's half is over, whoever ended it. */
INTERNAL void vsk_gone(struct vsk *v, struct vsk_conn *c, int why);
/* Something ended in one direction: perhaps all is over. */
INTERNAL void vsk_check_over(struct vsk *v, struct vsk_conn *c);

/* vsock_in.c, lock held: take packets until the queue is empty or the turn's share used up (then
 * tx_more is set). 0, or -errno when the guest broke a rule of the queue. */
INTERNAL int vsk_tx(struct vsk *v);

/* vsock_out.c, lock held: send what is owed and what there is, until receive buffers or the turn's
 * share (rx_more) run out. 0 or -errno. */
INTERNAL int vsk_rx(struct vsk *v);
