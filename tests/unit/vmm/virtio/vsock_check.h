/* vsock_check.h - what the vsock tests have in common. */
#pragma once

#include <fcntl.h>
#include <signal.h>

#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vsock_rig.h"

/* Expect the next packet to be `op` on this connection; it is in g->h. */
static inline void tvsk_expect(struct vskr *g, enum vsk_op op, uint32_t host_port,
			       uint32_t guest_port)
{
	CHECK(vskr_recv(g));
	CHECK_EQ(g->h.op, op);
	CHECK_EQ(g->h.src_cid, VSK_HOST_CID);
	CHECK_EQ(g->h.dst_cid, VSK_GUEST_CID);
	CHECK_EQ(g->h.src_port, host_port);
	CHECK_EQ(g->h.dst_port, guest_port);
	CHECK_EQ(g->h.type, 1);
}

static inline void tvsk_quiet(struct vskr *g)
{
	vskr_settle(g);
	if (vskr_poll(g))
		test_fail(__FILE__, __LINE__, "unexpected packet, op %u", g->h.op);
}

static inline ssize_t tvsk_read(int fd, void *p, size_t n)
{
	return recv(fd, p, n, MSG_DONTWAIT);
}

/* Guest -> host on an open stream. */
static inline void tvsk_say(struct vskr *g, uint32_t port, const char *text)
{
	struct vsk_hdr h = vskr_hdr(port, 1024, VSK_OP_RW);

	h.len = (uint32_t)strlen(text);
	vskr_send(g, &h, text, h.len);
}

static inline void tvsk_control(struct vskr *g, uint32_t port, enum vsk_op op, uint32_t flags)
{
	struct vsk_hdr h = vskr_hdr(port, 1024, op);

	h.flags = flags;
	vskr_send(g, &h, NULL, 0);
}

static __attribute__((unused)) int tvsk_fd_for_guest;

/* A hook: agrees for host port 2049, notes what it was asked for. */
static inline int tvsk_on_guest(void *arg, uint32_t host_port, uint32_t guest_port)
{
	CHECK_EQ(guest_port, 55);
	*(uint32_t *)arg = host_port;
	return host_port == 2049 ? tvsk_fd_for_guest : -1;
}
