#include "vmm/virtio/vsock_mux.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"

#include "vmm/virtio/vsock_hybrid.h"
#include "vmm/virtio/vsock_io.h"

#define VMUX_POLL_PIPE 4096 /* a pipe that polls writable takes PIPE_BUF bytes */
#define VMUX_POLL_TTY  256
#define VMUX_ROUNDS    16 /* of them in one turn */

/* A stream's two directions end each for itself, by either side:
 *
 *                                   ended by the host             by the guest
 *   in_fd  -- staged  -->  guest    end of file, error: in_over   takes no more: end_in; at the next
 *                                                                 turn in_over
 *   out_fd <-- to_host --  guest    not writable: out_over, what  sends no more: end_out; when to_host
 *                                   waits is lost                 has drained out_over
 *
 * The guest is told what the host ended, but with `keep`. When the guest's half of the
 * connection is gone and to_host has drained or broken, the stream is `over`.
 *
 * One stream. Made by vmux_connect() or vmux_offer(); `over` once the guest's half is gone and the
 * last byte delivered or given up; freed by vmux_report(), nowhere else. */
struct vmux_conn {
	struct vsk_conn c; /* first */
	struct vmux *m;
	bool used;
	int in_fd, out_fd, greet_fd;
	enum vmux_how in_how, out_how;
	bool shared; /* in_fd == out_fd, and `in` watches for both */
	bool keep;
	bool in_over, out_over; /* nothing more can be read, written */
	bool end_in, end_out;   /* the guest wants this; the second when to_host has drained */
	bool opened, told;      /* the guest accepted; and the owner knows */
	bool wants_first, first; /* the owner wants to hear of the first byte; it has been delivered */
	bool over;
	bool on_io, on_report; /* in the list of that name */
	int why;               /* vmux_fn's err */
	struct watch in, out;
	struct vmux_buf to_host; /* what out_fd did not take */
	struct vmux_buf staged;  /* read from in_fd, not yet sent */
	vmux_fn *fn;
	void *arg;
	struct vmux_conn *io_next, *report_next, *free_next;
};

struct vmux {
	struct vsk *v;
	struct vmux_conn *conn; /* VSK_MAX_CONNS, made for the first; the memory of those never used is
				 * never touched */
	unsigned top;           /* conn[top..] were never used */
	struct vmux_conn *spare; /* used and free again */
	struct vmux_conn *io_head, **io_tail;
	struct vmux_conn *report_head, **report_tail;
	vmux_guest_fn *guest_fn;
	void *guest_arg;
	struct vhyb *hybrid;
};

static void vmux_fired(struct watch *w, uint32_t events);

static struct vmux_conn *vmux_conn_of(struct vsk_conn *c)
{
	return container_of(c, struct vmux_conn, c);
}

static void vmux_want_io(struct vmux_conn *k)
{
	struct vmux *m = k->m;

	if (k->on_io)
		return;
	k->on_io = true;
	k->io_next = NULL;
	*m->io_tail = k;
	m->io_tail = &k->io_next;
	vsk_soon(m->v);
}

static void vmux_want_report(struct vmux_conn *k)
{
	struct vmux *m = k->m;

	if (k->on_report)
		return;
	k->on_report = true;
	k->report_next = NULL;
	*m->report_tail = k;
	m->report_tail = &k->report_next;
	vsk_soon(m->v);
}

/* --- watches ---------------------------------------------------------------------------------- */

static bool vmux_reads(const struct vmux_conn *k)
{
	return k->c.state == VSK_OPEN && k->in_fd >= 0 && !k->in_over && !k->end_in &&
	       !k->c.readable && !k->staged.len;
}

static uint32_t vmux_mask(const struct vmux_conn *k, const struct watch *w)
{
	uint32_t mask = 0;

	if (w == &k->in && vmux_reads(k))
		mask |= EPOLLIN;
	if ((k->shared || w == &k->out) && k->to_host.len && !k->over)
		mask |= EPOLLOUT;
	return mask;
}

/* Ask epoll for exactly what can be used. Nothing means no watch at all: EPOLLHUP cannot be masked
 * and would come again and again. */
static void vmux_arm(struct vmux_conn *k, struct watch *w, int fd)
{
	uint32_t mask = vmux_mask(k, w);
	int r;

	if (mask == 0) {
		watch_stop(w);
	} else if (w->active) {
		watch_want(w, mask);
	} else {
		r = watch_start(k->m->v->vdev.loop, w, fd, mask, vmux_fired);
		w->owner = k;
		if (r == -EPERM) { /* not pollable: always ready */
			*(w == &k->in ? &k->in_how : &k->out_how) = VMUX_FILE;
			if (k->shared)
				k->in_how = k->out_how = VMUX_FILE;
			vmux_want_io(k);
		} else if (r < 0) {
			vsk_kill(k->m->v, &k->c, r);
		}
	}
}

/* Epoll is told lazily: a request and its reply leave the watch as it is. */
static void vmux_arm_in(struct vmux_conn *k)
{
	if (!k->in.active || !(k->in.events & EPOLLIN))
		vmux_arm(k, &k->in, k->in_fd);
}

static void vmux_arm_out(struct vmux_conn *k)
{
	struct watch *w = k->shared ? &k->in : &k->out;

	if (!w->active || !(w->events & EPOLLOUT))
		vmux_arm(k, w, k->out_fd);
}

/* --- the end of things ------------------------------------------------------------------------ */

/* The guest's half is gone and nothing is left to deliver. */
static void vmux_over(struct vmux_conn *k)
{
	k->over = true;
	vmux_want_report(k);
}

static void vmux_out_broken(struct vmux_conn *k)
{
	uint32_t lost = k->to_host.len;

	vmux_buf_drop(&k->to_host, lost);
	vsk_forwarded(k->m->v, &k->c, lost);
	if (!k->keep) {
		k->out_over = true;
		vsk_shutdown(k->m->v, &k->c, VSK_SHUT_RCV);
	}
	if (k->c.state == VSK_GONE)
		vmux_over(k);
}

/* Nothing more comes from in_fd. When its other end is gone altogether, say so at once. */
static void vmux_in_ended(struct vmux_conn *k, bool broken)
{
	k->c.readable = false;
	k->in_over = true;
	if (k->keep)
		return;
	vsk_shutdown(k->m->v, &k->c, VSK_SHUT_SEND);
	if (k->shared && !k->out_over &&
	    (broken || (vmux_poll(k->in_fd, 0) & (POLLHUP | POLLERR))))
		vmux_out_broken(k);
}

/* --- guest to host ---------------------------------------------------------------------------- */

/* Bytes have reached out_fd. */
static void vmux_delivered(struct vmux_conn *k)
{
	if (!k->wants_first)
		return;
	k->wants_first = false;
	k->first = true;
	vmux_want_report(k);
}

static void vmux_flushed(struct vmux_conn *k, uint32_t n)
{
	vmux_delivered(k);
	vmux_buf_drop(&k->to_host, n);
	vsk_forwarded(k->m->v, &k->c, n);
	if (k->to_host.len)
		return;
	if (k->c.state == VSK_GONE)
		vmux_over(k);
	else if (k->end_out)
		vmux_want_io(k);
}

/* Write from the buffer at most max bytes. False: would block. */
static bool vmux_flush(struct vmux_conn *k, uint32_t max)
{
	struct iovec iov = { k->to_host.p + k->to_host.at, MIN(k->to_host.len, max) };
	ssize_t r = vmux_writev(&k->out_how, k->out_fd, &iov, 1);

	if (r == -EAGAIN)
		return false;
	if (r < 0)
		vmux_out_broken(k);
	else
		vmux_flushed(k, (uint32_t)r);
	return true;
}

void vmux_data(struct vmux *m, struct vsk_conn *c, const struct vq_chain *chain)
{
	struct vmux_conn *k = vmux_conn_of(c);
	uint32_t n = chain->out_len, done = 0;
	ssize_t r = -EAGAIN;

	if (k->out_fd < 0 || k->out_over) {
		vsk_forwarded(m->v, c, n);
		return;
	}
	if (n && !k->to_host.len && k->out_how < VMUX_STAGED)
		r = vmux_writev(&k->out_how, k->out_fd, chain->iov, chain->nout);
	if (r > 0) {
		vsk_forwarded(m->v, c, done = (uint32_t)r);
		vmux_delivered(k);
	} else if (r < 0 && r != -EAGAIN) {
		vsk_forwarded(m->v, c, n);
		vmux_out_broken(k);
		return;
	}
	if (done == n)
		return;
	vq_copy_out(chain, done, vmux_buf_room(&k->to_host, n - done), n - done);
	k->to_host.len += n - done;
	if (k->out_how < VMUX_STAGED)
		vmux_arm_out(k);
	else
		vmux_want_io(k);
}

/* In vmux_io(): push staged bytes out, as many as come out without sleeping. */
static void vmux_stage_out(struct vmux_conn *k)
{
	uint32_t max = VSK_BUF_BYTES;
	struct stat st;

	if (k->out_how < VMUX_STAGED)
		return; /* EPOLLOUT brings it */
	if (k->out_how == VMUX_POLL)
		max = fstat(k->out_fd, &st) == 0 && S_ISFIFO(st.st_mode) ? VMUX_POLL_PIPE :
									   VMUX_POLL_TTY;
	for (unsigned i = 0; i < VMUX_ROUNDS && k->to_host.len; i++) {
		if ((k->out_how == VMUX_POLL && !vmux_poll(k->out_fd, POLLOUT)) ||
		    !vmux_flush(k, max)) {
			vmux_arm_out(k);
			return;
		}
	}
	if (k->to_host.len)
		vmux_want_io(k);
}

/* --- host to guest ---------------------------------------------------------------------------- */

static size_t vmux_fill_staged(struct vmux_conn *k, const struct iovec *iov, unsigned niov)
{
	size_t n = 0;

	if (k->staged.len) {
		n = vsk_scatter(iov, niov, k->staged.p + k->staged.at, k->staged.len);
		vmux_buf_drop(&k->staged, (uint32_t)n);
	}
	if (!k->staged.len) {
		k->c.readable = false;
		if (!k->in_over)
			vmux_want_io(k);
	}
	return n;
}

size_t vmux_fill(struct vmux *m, struct vsk_conn *c, const struct iovec *iov, unsigned niov)
{
	struct vmux_conn *k = vmux_conn_of(c);
	size_t room = 0;
	ssize_t r;

	(void)m;
	if (k->in_how >= VMUX_STAGED)
		return vmux_fill_staged(k, iov, niov);
	for (unsigned i = 0; i < niov; i++)
		room += iov[i].iov_len;
	r = vmux_readv(&k->in_how, k->in_fd, iov, niov);
	if (r == 0 || (r < 0 && r != -EAGAIN)) {
		vmux_in_ended(k, r < 0);
		return 0;
	}
	if (r < (ssize_t)room) { /* drained, as far as one can tell: wait for more */
		c->readable = false;
		if (k->in_how < VMUX_STAGED)
			vmux_arm_in(k);
		else
			vmux_want_io(k);
	}
	return r > 0 ? (size_t)r : 0;
}

/* In vmux_io(): read ahead what fits the guest's credit. */
static void vmux_stage_in(struct vmux_conn *k)
{
	uint32_t want = MIN(vsk_credit(&k->c), VSK_BUF_BYTES);
	struct iovec iov;
	ssize_t r;

	if (want == 0) { /* comes back here through vmux_fill() when there is credit */
		k->c.readable = true;
		vsk_ready(k->m->v, &k->c);
		return;
	}
	if (k->in_how == VMUX_POLL && !vmux_poll(k->in_fd, POLLIN)) {
		vmux_arm_in(k);
		return;
	}
	iov = (struct iovec){ vmux_buf_room(&k->staged, want), want };
	r = vmux_readv(&k->in_how, k->in_fd, &iov, 1);
	if (r <= 0)
		vmux_buf_drop(&k->staged, 0);
	if (r == -EAGAIN) {
		vmux_arm_in(k);
	} else if (r <= 0) {
		vmux_in_ended(k, r < 0);
	} else {
		k->staged.len = (uint32_t)r;
		k->c.readable = true;
		vsk_ready(k->m->v, &k->c);
	}
}

/* Begin to read: at once where that cannot sleep, for the client may have written already. */
static void vmux_start(struct vmux_conn *k)
{
	if (k->in_fd < 0)
		return;
	if (k->in_how >= VMUX_STAGED) {
		vmux_want_io(k);
	} else if (k->greet_fd == k->in_fd) { /* it waits for our greeting */
		vmux_arm_in(k);
	} else {
		k->c.readable = true;
		vsk_ready(k->m->v, &k->c);
	}
}

/* --- events ----------------------------------------------------------------------------------- */

static void vmux_fired(struct watch *w, uint32_t events)
{
	struct vmux_conn *k = w->owner;
	uint32_t mask = vmux_mask(k, w), trouble = events & (EPOLLHUP | EPOLLERR);

	if (k->m->v->quiet) { /* vmux_resume() looks again */
		watch_stop(w);
		return;
	}
	if ((events & (EPOLLIN | EPOLLOUT) & ~mask) || (trouble && !mask))
		vmux_arm(k, w, w->fd);
	if ((mask & EPOLLIN) && (events & EPOLLIN || trouble)) {
		if (k->in_how < VMUX_STAGED) {
			k->c.readable = true;
			vsk_ready(k->m->v, &k->c);
		} else {
			vmux_want_io(k);
		}
	}
	if ((mask & EPOLLOUT) && (events & EPOLLOUT || trouble)) {
		if (k->out_how >= VMUX_STAGED)
			vmux_want_io(k);
		else if (vmux_flush(k, VSK_BUF_BYTES) && !k->to_host.len)
			vmux_arm(k, w, w->fd);
	}
	vsk_soon(k->m->v);
}

void vmux_opened(struct vmux *m, struct vsk_conn *c)
{
	struct vmux_conn *k = vmux_conn_of(c);
	char ok[24];
	int n = snprintf(ok, sizeof ok, "OK %u\n", c->host_port);

	k->opened = true;
	vmux_want_report(k);
	if (k->greet_fd >= 0 && send(k->greet_fd, ok, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
		vsk_kill(m->v, c, -EPIPE); /* a fresh socket has room: the client left */
	else
		vmux_start(k);
}

void vmux_guest_shut(struct vmux *m, struct vsk_conn *c)
{
	struct vmux_conn *k = vmux_conn_of(c);

	(void)m;
	if (c->guest_shut & VSK_SHUT_SEND)
		k->end_out = true;
	if (c->guest_shut & VSK_SHUT_RCV) {
		k->end_in = true;
		c->readable = false;
	}
	vmux_want_io(k);
}

void vmux_gone(struct vmux *m, struct vsk_conn *c, int why)
{
	struct vmux_conn *k = vmux_conn_of(c);

	(void)m;
	k->why = why;
	c->readable = false;
	if (!k->to_host.len || !k->opened)
		vmux_over(k);
}

/* --- in every turn ---------------------------------------------------------------------------- */

/* One descriptor for both sides may be open for one of them only, a pipe's end for example. */
static void vmux_set_fds(struct vmux_conn *k, int in_fd, int out_fd)
{
	struct loop *l = k->m->v->vdev.loop;
	int flags = in_fd >= 0 && in_fd == out_fd ? fcntl(in_fd, F_GETFL) : -1;

	k->in_fd = flags >= 0 && (flags & O_ACCMODE) == O_WRONLY ? -1 : in_fd;
	k->out_fd = flags >= 0 && (flags & O_ACCMODE) == O_RDONLY ? -1 : out_fd;
	k->shared = k->in_fd == k->out_fd;
	k->c.no_in = k->in_fd < 0;
	k->c.no_out = k->out_fd < 0;
	k->in_how = vmux_classify(l, k->in_fd);
	k->out_how = k->shared ? k->in_how : vmux_classify(l, k->out_fd);
}

static void vmux_answer(struct vmux_conn *k)
{
	struct vmux *m = k->m;
	int fd = m->guest_fn ? m->guest_fn(m->guest_arg, k->c.host_port, k->c.guest_port) : -1;

	if (fd < 0) {
		vsk_kill(m->v, &k->c, -ECONNREFUSED);
		return;
	}
	vmux_set_fds(k, fd, fd);
	k->opened = k->told = true;
	vsk_accept(m->v, &k->c);
	vmux_start(k);
}

/* Close one side of the host's descriptor, so that its other end learns of it. */
static void vmux_end_side(struct vmux_conn *k, struct watch *w, int *fd, int how)
{
	if (k->shared) {
		shutdown(*fd, how); /* on what is not a socket: no half-close, nothing to do */
	} else {
		watch_stop(w);
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
	}
}

static void vmux_io_one(struct vmux_conn *k)
{
	if (k->over)
		return;
	if (k->c.state == VSK_OFFERED) {
		vmux_answer(k);
		return;
	}
	if (k->to_host.len)
		vmux_stage_out(k);
	if (k->end_out && !k->to_host.len && !k->out_over) {
		k->out_over = true;
		vmux_end_side(k, &k->out, &k->out_fd, SHUT_WR);
	}
	if (k->end_in && !k->in_over) {
		k->in_over = true;
		vmux_end_side(k, &k->in, &k->in_fd, SHUT_RD);
	}
	if (k->in_how >= VMUX_STAGED && vmux_reads(k))
		vmux_stage_in(k);
}

void vmux_io(struct vmux *m)
{
	struct vmux_conn *k = m->io_head, *next;

	m->io_head = NULL;
	m->io_tail = &m->io_head;
	for (; k; k = next) { /* what comes in meanwhile waits for the next turn */
		next = k->io_next;
		k->on_io = false;
		vmux_io_one(k);
	}
}

static void vmux_close_fds(struct vmux_conn *k)
{
	watch_stop(&k->in);
	watch_stop(&k->out);
	if (k->greet_fd >= 0 && k->greet_fd != k->in_fd)
		close(k->greet_fd);
	if (k->in_fd >= 0)
		close(k->in_fd);
	if (k->out_fd >= 0 && !k->shared)
		close(k->out_fd);
	vmux_buf_drop(&k->to_host, k->to_host.len);
	vmux_buf_drop(&k->staged, k->staged.len);
}

static void vmux_forget_io(struct vmux_conn *k)
{
	struct vmux_conn **at = &k->m->io_head;

	if (!k->on_io)
		return;
	while (*at != k)
		at = &(*at)->io_next;
	*at = k->io_next;
	if (k->m->io_tail == &k->io_next)
		k->m->io_tail = at;
	k->on_io = false;
}

static void vmux_report_one(struct vmux_conn *k)
{
	struct vmux_conn was = *k; /* k may be somebody else's before the callback returns */
	struct vmux *m = k->m;

	if (k->opened && !k->told) {
		k->told = true;
		if (k->greet_fd >= 0 && k->greet_fd != k->in_fd)
			close(take_fd(&k->greet_fd));
		if (k->fn)
			k->fn(k->arg, k->c.host_port, VMUX_OPENED, 0);
	}
	if (k->first && k->fn) {
		k->first = false;
		k->fn(k->arg, k->c.host_port, VMUX_FIRST, 0);
	}
	if (!k->over || k->on_report) /* the callback closed it: next time */
		return;
	vmux_close_fds(k);
	vmux_forget_io(k);
	k->used = false;
	k->free_next = m->spare;
	m->spare = k;
	if (was.fn)
		was.fn(was.arg, was.c.host_port, VMUX_CLOSED, was.why);
}

bool vmux_report(struct vmux *m)
{
	struct vmux_conn *k = m->report_head, *next;

	m->report_head = NULL;
	m->report_tail = &m->report_head;
	for (; k; k = next) {
		next = k->report_next;
		k->on_report = false;
		vmux_report_one(k);
	}
	return m->io_head || m->report_head;
}

void vmux_resume(struct vmux *m)
{
	for (unsigned i = 0; i < m->top; i++) {
		struct vmux_conn *k = &m->conn[i];
		if (!k->used || k->over)
			continue;
		if (k->in_fd >= 0)
			vmux_arm(k, &k->in, k->in_fd);
		if (k->out_fd >= 0 && !k->shared)
			vmux_arm(k, &k->out, k->out_fd);
	}
	vhyb_resume(m->hybrid);
}

/* --- making streams --------------------------------------------------------------------------- */

static struct vmux_conn *vmux_alloc(struct vmux *m)
{
	struct vmux_conn *k = m->spare;

	if (!m->conn)
		m->conn = mem_calloc(VSK_MAX_CONNS, sizeof *m->conn);
	if (k)
		m->spare = k->free_next;
	else if (m->top < VSK_MAX_CONNS)
		k = &m->conn[m->top++];
	else
		return NULL;
	*k = (struct vmux_conn){ .m = m, .used = true, .in_fd = -1, .out_fd = -1, .greet_fd = -1 };
	return k;
}

bool vmux_port_used(const struct vmux *m, const struct vsk_conn *c)
{
	for (unsigned i = 0; i < m->top; i++)
		if (m->conn[i].used && &m->conn[i].c != c &&
		    m->conn[i].c.host_port == c->host_port)
			return true;
	return false;
}

struct vsk_conn *vmux_offer(struct vmux *m, uint32_t host_port, uint32_t guest_port)
{
	struct vmux_conn *k = m->guest_fn ? vmux_alloc(m) : NULL;

	(void)host_port;
	(void)guest_port;
	if (!k)
		return NULL;
	vmux_want_io(k);
	return &k->c;
}

int vmux_connect(struct vdev *d, const struct vmux_spec *s)
{
	return vmux_connect_greeting(d, s, -1);
}

int vmux_connect_greeting(struct vdev *d, const struct vmux_spec *s, int greet_fd)
{
	struct vsk *v = container_of(d, struct vsk, vdev);
	struct vmux_conn refused = { .in_fd = s->in_fd,
				     .out_fd = s->out_fd,
				     .greet_fd = greet_fd,
				     .shared = s->in_fd == s->out_fd };
	struct vmux_conn *k = vmux_alloc(v->mux);

	if (!k) {
		vmux_close_fds(&refused);
		return -EMFILE;
	}
	vmux_set_fds(k, s->in_fd, s->out_fd);
	k->greet_fd = greet_fd;
	k->keep = s->keep;
	k->wants_first = s->first;
	k->fn = s->fn;
	k->arg = s->arg;
	k->c.guest_port = s->guest_port;
	vsk_connect(v, &k->c, s->timeout_ms ? s->timeout_ms : VSK_REQUEST_MS);
	return (int)k->c.host_port;
}

int vmux_close(struct vdev *d, uint32_t host_port)
{
	struct vsk *v = container_of(d, struct vsk, vdev);
	struct vmux *m = v->mux;

	for (unsigned i = 0; i < m->top; i++) {
		struct vmux_conn *k = &m->conn[i];
		if (!k->used || k->over || k->c.host_port != host_port)
			continue;
		vsk_forwarded(v, &k->c, k->to_host.len);
		vmux_buf_drop(&k->to_host, k->to_host.len);
		if (k->c.state == VSK_GONE) /* only draining */
			vmux_over(k);
		else
			vsk_kill(v, &k->c, -ECONNRESET);
		return 0;
	}
	return -ENOENT;
}

ONLY_TESTED void vmux_on_guest_connect(struct vdev *d, vmux_guest_fn *fn, void *arg)
{
	struct vsk *v = container_of(d, struct vsk, vdev);

	v->mux->guest_fn = fn;
	v->mux->guest_arg = arg;
}

int vmux_serve(struct vdev *d, int listen_fd, struct err *e)
{
	struct vsk *v = container_of(d, struct vsk, vdev);

	return vhyb_start(v->mux->hybrid, listen_fd, e);
}

struct vmux *vmux_new(struct vsk *v)
{
	struct vmux *m = mem_zalloc(sizeof *m);

	m->v = v;
	m->io_tail = &m->io_head;
	m->report_tail = &m->report_head;
	m->hybrid = vhyb_new(v);
	return m;
}

void vmux_free(struct vmux *m)
{
	for (unsigned i = 0; i < m->top; i++)
		if (m->conn[i].used)
			vmux_close_fds(&m->conn[i]);
	vhyb_free(m->hybrid);
	free(m->conn);
	free(m);
}

