/* fuzz_vsock.c - a guest and its host clients against vmm/virtio/vsock*.c, behind real registers.
 *
 * Input: a string of steps, each an operation byte and its arguments. The guest answers as a driver
 * would and keeps to its credit, and clients read and write what they like, until a step of kind
 * FVSK_KNOB turns one field of one packet around. The clock is ours. Whatever happens:
 *   - what the device sends is well formed and fits its buffer;
 *   - bytes arrive in order, none twice, none lost in the middle (while no knob was turned);
 *   - no stream holds more than its buffer, and counts and buffers agree;
 *   - the loop comes to rest: nothing spins;
 *   - no descriptor is left behind. */
#define INTERNAL static
#include <time.h>

static int fvsk_clock_gettime(clockid_t id, struct timespec *ts);
#define clock_gettime fvsk_clock_gettime

#include "amalgam/base/base.c"
#include "amalgam/base/err.c"
#include "amalgam/base/mem.c"
#include "amalgam/base/buf.c"
#include "amalgam/base/str.c"
#include "amalgam/base/log.c"
#include "amalgam/base/fd.c"
#include "amalgam/base/loop.c"
#include "vmm/gmem.c"
#include "vmm/virtio/queue.c"
#include "vmm/virtio/mmio.c"
#include "vmm/virtio/slots.c"
#include "vmm/virtio/vsock.c"
#include "vmm/virtio/vsock_in.c"
#include "vmm/virtio/vsock_out.c"
#include "vmm/virtio/vsock_mux.c"
#include "vmm/virtio/vsock_io.c"
#include "vmm/virtio/vsock_hybrid.c"

#include <signal.h>
#include <sys/mman.h>
#include <sys/un.h>

#include "tests/unit/vmm/virtio/vsock_rig.h"

#define FVSK_STREAMS 12
#define FVSK_WILD_AT  (MIB(1) + KIB(768))
#define FVSK_WILD_MAX 24 /* between two resets: the rig has 256 descriptors per queue */

/* One stream as its two ends see it. */
struct fvsk_stream {
	uint32_t host_port, guest_port;
	bool live, open, was_open;  /* used; accepted, by the guest or by us; at some time */
	int write_end, read_end;    /* the client's, -1 = none; may be equal */
	uint32_t wrote, read;	    /* by the client */
	uint32_t got, sent;	    /* by the guest */
	uint32_t alloc, fwd;	    /* our credit, as last told to the guest */
};

static struct {
	uint64_t now_ns;
	struct vskr g;
	struct fvsk_stream stream[FVSK_STREAMS];
	struct sockaddr_un at;
	int listener;
	bool honest; /* no knob was turned */
	bool blind;
	unsigned wild;
	uint32_t guest_port; /* of the guest's next connection */
} fvsk;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int fvsk_clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	fvsk.now_ns += 50; /* so that waiting loops end */
	*ts = (struct timespec){ (time_t)(fvsk.now_ns / NS_PER_S), (long)(fvsk.now_ns % NS_PER_S) };
	return 0;
}

static uint8_t fvsk_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}

static void fvsk_pattern(uint8_t *p, uint32_t from, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		p[i] = (uint8_t)((from + i) * 7 + ((from + i) >> 8));
}

static void fvsk_same(const uint8_t *p, uint32_t from, uint32_t n)
{
	static uint8_t want[66000];

	fvsk_pattern(want, from, n);
	ASSERT(!fvsk.honest || memcmp(p, want, n) == 0);
}

static void fvsk_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void fvsk_hang_up(struct fvsk_stream *s)
{
	if (s->read_end != s->write_end)
		fvsk_end(&s->read_end);
	fvsk_end(&s->write_end);
	s->read_end = -1;
}

/* --- streams ---------------------------------------------------------------------------------- */

static void fvsk_told(void *arg, uint32_t port, enum vmux_event ev, int err)
{
	struct fvsk_stream *s = arg;

	ASSERT(s->live && s->host_port == port);
	ASSERT(ev == VMUX_CLOSED ? err <= 0 : err == 0);
	if (ev == VMUX_CLOSED) {
		fvsk_hang_up(s);
		s->live = false;
	}
}

static struct fvsk_stream *fvsk_fresh(void)
{
	for (unsigned i = 0; i < FVSK_STREAMS; i++) {
		struct fvsk_stream *s = &fvsk.stream[i];
		if (s->live)
			continue;
		fvsk_hang_up(s);
		*s = (struct fvsk_stream){ .live = true, .write_end = -1, .read_end = -1 };
		return s;
	}
	return NULL;
}

static int fvsk_file(struct cur *in)
{
	static uint8_t bytes[60000];
	uint32_t n = fvsk_u8(in) * 200u;
	int fd = memfd_create("in", MFD_CLOEXEC);

	fvsk_pattern(bytes, 0, n);
	ASSERT(fd >= 0 && write(fd, bytes, n) == n && lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

static void fvsk_pipe(int *reads, int *writes, bool nonblock, int ours)
{
	int p[2], r = pipe2(p, O_CLOEXEC | (nonblock ? O_NONBLOCK : 0));

	ASSERT(r == 0);
	fcntl(p[1], F_SETPIPE_SZ, 4096);
	*reads = p[0];
	*writes = p[1];
	fd_set_nonblock(ours ? p[1] : p[0], true); /* the client, who is not to block us */
}

/* As on a kernel that has no RWF_NOWAIT for pipes. */
static void fvsk_old_kernel(uint32_t host_port, uint32_t guest_port)
{
	struct vmux_conn *k = vmux_conn_of(vsk_find(fvsk.g.v, host_port, guest_port));

	if (k->in_how == VMUX_NOWAIT)
		k->in_how = VMUX_POLL;
	if (k->out_how == VMUX_NOWAIT)
		k->out_how = VMUX_POLL;
}

/* Descriptors of one of several kinds for a new stream. */
static void fvsk_ends(struct cur *in, struct fvsk_stream *s, uint8_t kind, int *in_fd, int *out_fd)
{
	int pair[2], little = 1;

	*in_fd = *out_fd = -1;
	switch (kind % 8) {
	case 0:
	case 1:
		vskr_pair(pair);
		*in_fd = *out_fd = pair[1];
		s->write_end = s->read_end = pair[0];
		fd_set_nonblock(pair[0], true);
		if (kind & 8)
			setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
		break;
	case 2:
		fvsk_pipe(in_fd, &s->write_end, kind & 8, 1);
		break;
	case 3:
		fvsk_pipe(&s->read_end, out_fd, kind & 8, 0);
		break;
	case 4:
		fvsk_pipe(in_fd, &s->write_end, kind & 8, 1);
		fvsk_pipe(&s->read_end, out_fd, kind & 16, 0);
		break;
	case 5:
		*in_fd = fvsk_file(in);
		break;
	case 6:
		*in_fd = *out_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		break;
	}
}

static void fvsk_connect(struct cur *in)
{
	struct fvsk_stream *s = fvsk_fresh();
	struct vmux_spec spec = { .fn = fvsk_told, .arg = s };
	uint8_t kind = fvsk_u8(in);
	int r;

	if (!s)
		return;
	fvsk_ends(in, s, kind, &spec.in_fd, &spec.out_fd);
	spec.keep = fvsk_u8(in) > 200;
	spec.guest_port = s->guest_port = fvsk_u8(in);
	r = vmux_connect(fvsk.g.r.dev, &spec);
	ASSERT(r > 0);
	s->host_port = (uint32_t)r;
	if (kind & 32)
		fvsk_old_kernel(s->host_port, s->guest_port);
}

/* The guest connects; what it is given is always a socket. */
static int fvsk_guest_connects(void *arg, uint32_t host_port, uint32_t guest_port)
{
	struct fvsk_stream *s = host_port % 4 ? fvsk_fresh() : NULL;
	int pair[2];

	(void)arg;
	if (!s)
		return -1;
	vskr_pair(pair);
	fd_set_nonblock(pair[0], true);
	s->write_end = s->read_end = pair[0];
	s->host_port = host_port;
	s->guest_port = guest_port;
	return pair[1];
}

static struct fvsk_stream *fvsk_pick(struct cur *in)
{
	return &fvsk.stream[fvsk_u8(in) % FVSK_STREAMS];
}

static struct fvsk_stream *fvsk_find(uint32_t host_port, uint32_t guest_port)
{
	for (unsigned i = 0; i < FVSK_STREAMS; i++) {
		struct fvsk_stream *s = &fvsk.stream[i];
		if (s->live && s->host_port == host_port && s->guest_port == guest_port)
			return s;
	}
	return NULL;
}

/* --- the client's half ------------------------------------------------------------------------ */

static void fvsk_write(struct cur *in)
{
	struct fvsk_stream *s = fvsk_pick(in);
	static uint8_t bytes[60000];
	uint32_t n = fvsk_u8(in);
	ssize_t r;

	n *= n & 1 ? 200 : 1;
	fvsk_pattern(bytes, s->wrote, n);
	r = s->write_end >= 0 ? write(s->write_end, bytes, n) : -1;
	s->wrote += r > 0 ? (uint32_t)r : 0;
}

static void fvsk_read(struct cur *in)
{
	struct fvsk_stream *s = fvsk_pick(in);
	static uint8_t bytes[66000];
	ssize_t r = s->read_end >= 0 ? read(s->read_end, bytes, fvsk_u8(in) * 256u) : -1;

	if (r <= 0)
		return;
	fvsk_same(bytes, s->read, (uint32_t)r);
	s->read += (uint32_t)r;
}

static void fvsk_close(struct cur *in)
{
	struct fvsk_stream *s = fvsk_pick(in);
	uint8_t how = fvsk_u8(in);

	if (how % 4 == 0)
		fvsk_hang_up(s);
	else if (how % 4 == 1 && s->write_end >= 0 && s->write_end == s->read_end)
		shutdown(s->write_end, how & 4 ? SHUT_WR : SHUT_RD);
	else if (how % 4 == 2 && s->write_end != s->read_end)
		fvsk_end(how & 4 ? &s->write_end : &s->read_end);
	else if (s->live && vmux_close(fvsk.g.r.dev, s->host_port) == 0)
		s->open = false;
}

/* A client of the Unix socket says something and leaves. */
static void fvsk_hybrid(struct cur *in)
{
	static const char *const said[] = { "CONNECT 3\n", "connect 70000\n", "passfd\n", "CONN", "" };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), null;
	const char *text = said[fvsk_u8(in) % ARRAY_LEN(said)];
	uint8_t more = fvsk_u8(in) % 48;
	const uint8_t *p = cur_bytes(in, more);

	if (connect(fd, (struct sockaddr *)&fvsk.at, sizeof fvsk.at) == 0) {
		(void)!write(fd, text, strlen(text));
		loop_step(&fvsk.g.r.loop, 0);
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (p && more)
			(void)!fd_send(fd, p, more, &null, more % 3 == 0, MSG_DONTWAIT);
		close(null);
		loop_step(&fvsk.g.r.loop, 0);
	}
	close(fd);
}

/* --- the guest's half ------------------------------------------------------------------------- */

/* A paused device takes nothing, and the rig does not look whether a descriptor is still in use. */
static bool fvsk_tx_full(void)
{
	return (uint16_t)(fvsk.g.tx_sent - vqr_used_idx(&fvsk.g.r, VSKR_TX)) > 40;
}

static void fvsk_send(struct cur *in, struct vsk_hdr *h, const void *p, uint32_t n, bool knob)
{
	uint8_t at, with;

	h->buf_alloc = VSKR_CREDIT;
	if (knob) {
		at = fvsk_u8(in) % sizeof *h;
		with = fvsk_u8(in);
		((uint8_t *)h)[at] ^= with;
		fvsk.honest &= with == 0;
	}
	vskr_queue(&fvsk.g, h, p, n);
	if (fvsk_u8(in) & 1)
		vskr_kick_tx(&fvsk.g);
}

static void fvsk_packet(struct cur *in, bool knob)
{
	static const enum vsk_op ops[] = { VSK_OP_RW, VSK_OP_RW, VSK_OP_RW, VSK_OP_SHUTDOWN,
					   VSK_OP_RST, VSK_OP_CREDIT_UPDATE, VSK_OP_CREDIT_REQUEST,
					   VSK_OP_RESPONSE };
	struct fvsk_stream *s = fvsk_pick(in);
	struct vsk_hdr h = vskr_hdr(s->host_port, s->guest_port, ops[fvsk_u8(in) % ARRAY_LEN(ops)]);
	static uint8_t bytes[66000];
	uint32_t n = 0;

	if ((!s->open && !knob) || fvsk_tx_full())
		return;
	if (h.op == VSK_OP_RW) {
		n = fvsk_u8(in) * 257u;
		if (!knob)
			n = MIN(n, s->alloc - (s->sent - s->fwd));
		fvsk_pattern(bytes, s->sent, n);
		s->sent += n;
		h.len = n;
	} else if (h.op == VSK_OP_SHUTDOWN) {
		h.flags = fvsk_u8(in) & 3;
		if (h.flags & VSK_SHUT_SEND)
			s->alloc = s->sent - s->fwd; /* an honest guest sends no more */
	}
	h.fwd_cnt = s->got;
	fvsk_send(in, &h, bytes, n, knob);
	if (h.op == VSK_OP_RST)
		s->open = false;
}

static void fvsk_request(struct cur *in)
{
	/* A port that may still have packets under way is not used again; Linux takes care, too. */
	struct vsk_hdr h = vskr_hdr(fvsk_u8(in), fvsk.guest_port++, VSK_OP_REQUEST);

	fvsk_send(in, &h, NULL, 0, fvsk_u8(in) > 250);
}

/* What the device sent last, taken as a driver would. */
static void fvsk_take(struct cur *in)
{
	const struct vsk_hdr *h = &fvsk.g.h;
	struct fvsk_stream *s = fvsk_find(h->src_port, h->dst_port);
	struct vsk_hdr a = vskr_reply_hdr(h, VSK_OP_RESPONSE);

	if (h->op == 0) /* a buffer too small for anything */
		return;
	ASSERT(h->dst_cid == VSK_GUEST_CID && h->op <= VSK_OP_CREDIT_REQUEST);
	if (h->op != VSK_OP_RST)
		ASSERT(h->src_cid == VSK_HOST_CID && h->type == 1 && h->buf_alloc == VSK_BUF_BYTES);
	ASSERT(h->op == VSK_OP_RW ? h->len > 0 : h->len == 0);
	if (!s)
		return;
	s->alloc = h->buf_alloc;
	s->fwd = h->fwd_cnt;
	if (h->op == VSK_OP_RESPONSE)
		s->open = s->was_open = true;
	if (h->op == VSK_OP_RST)
		s->open = false;
	if (h->op == VSK_OP_RW) {
		fvsk_same(fvsk.g.data, s->got, h->len);
		s->got += h->len;
		ASSERT(!fvsk.honest || s->was_open);
	}
	if (h->op == VSK_OP_REQUEST && fvsk_u8(in) < 230) {
		s->open = s->was_open = true;
		fvsk_send(in, &a, NULL, 0, false);
	}
}

static void fvsk_receive(struct cur *in)
{
	for (unsigned n = fvsk_u8(in) % 40; n && !fvsk.blind && vskr_poll(&fvsk.g); n--)
		fvsk_take(in);
}

/* Any chain at all on any queue. A receive buffer that begins with something else than our header
 * leaves the driver blind until it starts afresh. */
static void fvsk_wild(struct cur *in)
{
	struct vqr_seg seg[6];
	unsigned q = fvsk_u8(in) % 3, n = 1 + fvsk_u8(in) % 6;
	gpa_t at = FVSK_WILD_AT + fvsk.wild % 64 * 4096;

	if (fvsk.wild++ >= FVSK_WILD_MAX || fvsk_tx_full())
		return;
	for (unsigned i = 0; i < n; i++) {
		uint8_t b = fvsk_u8(in), len = fvsk_u8(in);
		/* Nobody looks where an empty segment points, but our driver takes the first for
		 * where its packet is. */
		seg[i] = (struct vqr_seg){ at + (b & 8 && len ? VSKR_RAM : 0), len,
					   b & 4 ? b & 1 : q != VSKR_TX };
		at += seg[i].len;
		fvsk.blind |= q == VSKR_RX && !seg[i].in;
	}
	if (q == VSKR_RX)
		fvsk.g.hold = true;
	fvsk.g.tx_sent += q == VSKR_TX;
	vqr_add(&fvsk.g.r, q, seg, n);
	vqr_kick(&fvsk.g.r, q);
	vskr_settle(&fvsk.g);
}

static void fvsk_forget(void)
{
	for (unsigned i = 0; i < FVSK_STREAMS; i++)
		fvsk.stream[i].open = false;
}

static void fvsk_new_driver(void)
{
	fvsk.g.hold = fvsk.blind = false;
	fvsk.wild = 0;
	fvsk_forget();
	vskr_drive(&fvsk.g);
}

static void fvsk_restore(struct cur *in)
{
	const struct vdev_ops *ops = fvsk.g.r.dev->ops;
	struct buf b = { 0 };
	struct cur c;
	uint8_t at;

	ops->save(fvsk.g.r.dev, &b);
	ASSERT(b.len == 16);
	at = fvsk_u8(in) % 16;
	b.data[at] ^= fvsk_u8(in);
	c = cur_of(b.data, fvsk_u8(in) > 250 ? at : b.len);
	if (ops->restore(fvsk.g.r.dev, &c) == 0)
		fvsk_new_driver();
	buf_fini(&b);
}

/* --- steps ------------------------------------------------------------------------------------ */

static void fvsk_step(struct cur *in)
{
	struct vskr *g = &fvsk.g;

	switch (fvsk_u8(in) % 24) {
	case 0: case 1: fvsk_connect(in); break;
	case 2: fvsk_request(in); break;
	case 3: case 4: case 5: fvsk_packet(in, false); break;
	case 6: case 7: fvsk_write(in); break;
	case 8: case 9: fvsk_read(in); break;
	case 10: case 11: case 12: fvsk_receive(in); break;
	case 13: fvsk_close(in); break;
	case 14: fvsk_packet(in, true); break; /* FVSK_KNOB */
	case 15: fvsk_hybrid(in); break;
	case 16: vqr_kick(&g->r, fvsk_u8(in) % 3); break;
	case 17: fvsk.now_ns += fvsk_u8(in) * 20 * NS_PER_MS; break;
	case 18:
		vsk_reset_event(g->r.dev);
		fvsk_forget();
		break;
	case 19: vskr_post_events(g, fvsk_u8(in) % 4); break;
	case 20: fvsk_wild(in); break;
	case 21: fvsk_new_driver(); break;
	case 22:
		if (g->v->quiet)
			slots_resume(&g->r.slots);
		else
			ASSERT(slots_quiesce(&g->r.slots, NULL) == 0);
		break;
	case 23: fvsk_restore(in); break;
	}
	if (vqr_is_broken(&g->r))
		fvsk_new_driver();
}

static void fvsk_check(void)
{
	struct vsk *v = fvsk.g.v;
	const struct vsk_conn *last = NULL;
	unsigned queued = 0;

	for (const struct vsk_conn *c = v->run_head; c; c = c->run_next, queued++)
		last = c;
	ASSERT(!last || (last == v->run_tail && queued <= VSK_MAX_CONNS));
	for (unsigned i = 0; i < v->mux->top; i++) {
		const struct vmux_conn *k = &v->mux->conn[i];
		if (!k->used)
			continue;
		ASSERT(k->c.rx_cnt - k->c.fwd_cnt == k->to_host.len);
		ASSERT(k->to_host.len <= VSK_BUF_BYTES && k->staged.len <= VSK_BUF_BYTES);
		queued -= k->c.queued;
	}
	ASSERT(queued == 0);
}

/* However things stand, with nobody doing anything the loop sleeps before long. */
static void fvsk_rest(void)
{
	struct vskr *g = &fvsk.g;
	unsigned n = 0;

	do {
		loop_step(&g->r.loop, 0);
		ASSERT(n++ < 2000);
	} while (g->v->turn.active || g->r.loop.nready ||
		 epoll_wait(g->r.loop.epoll_fd, g->r.loop.ready, 1, 0) > 0);
}

static unsigned fvsk_open_fds(void)
{
	unsigned n = 0;

	for (int fd = 3; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	log_setup(-1, LOG_ERROR);
	signal(SIGPIPE, SIG_IGN);
	for (unsigned i = 0; i < FVSK_STREAMS; i++)
		fvsk.stream[i].read_end = fvsk.stream[i].write_end = -1;
	fvsk.now_ns = NS_PER_S;
	vqr_init(&fvsk.g.r, VSKR_RAM);
	/* An abstract name, so that nothing is left in the filesystem. */
	fvsk.at.sun_family = AF_UNIX;
	snprintf(fvsk.at.sun_path + 1, sizeof fvsk.at.sun_path - 1, "fuzz-vsock-%d", getpid());
	fvsk.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ASSERT(bind(fvsk.listener, (struct sockaddr *)&fvsk.at, sizeof fvsk.at) == 0);
	ASSERT(listen(fvsk.listener, 8) == 0);
	return 0;
}

static void fvsk_start(struct cur *in)
{
	struct vsk_config cfg = { .port_seed = fvsk_u8(in) * UINT32_C(0x0101) };
	uint8_t flags = fvsk_u8(in);
	struct vskr *g = &fvsk.g;
	struct vdev *d = NULL;

	fvsk.honest = true;
	fvsk.guest_port = 1000;
	fvsk.wild = 0;
	g->hold = fvsk.blind = false;
	g->nrx = flags & 1 ? 3 : 60;
	g->rx_bytes = flags & 2 ? 100 : 4096;
	ASSERT(vsk_new(&g->r.loop, &cfg, &d, NULL) == 0);
	vqr_attach(&g->r, d);
	g->v = container_of(d, struct vsk, vdev);
	ASSERT(vmux_serve(d, dup(fvsk.listener), NULL) == 0);
	vmux_on_guest_connect(d, fvsk_guest_connects, NULL);
	vskr_drive(g);
}

static void fvsk_finish(void)
{
	ASSERT(slots_detach(&fvsk.g.r.slots, 0, NULL) == 0);
	for (unsigned i = 0; i < FVSK_STREAMS; i++) {
		fvsk_hang_up(&fvsk.stream[i]);
		fvsk.stream[i].live = false;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cur in = cur_of(data, len);
	unsigned before = fvsk_open_fds();

	fvsk_start(&in);
	for (unsigned n = 0; cur_left(&in) && n < 200; n++) {
		fvsk_step(&in);
		if (n % 3 == 0)
			loop_step(&fvsk.g.r.loop, 0);
		fvsk_check();
	}
	fvsk_rest();
	fvsk_check();
	fvsk_finish();
	ASSERT(fvsk_open_fds() == before);
	return 0;
}
