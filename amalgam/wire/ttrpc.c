#include "amalgam/wire/ttrpc.h"

#include <stdarg.h>
#include <sys/socket.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"

/* A connection has two lists: requests of ours without an answer (pending), and requests of the
 * peer that we have not answered (calls). Who may free it:
 *
 * inv 1. `busy` counts the functions of this file on the stack that still need the connection and
 *        may call out. Whoever makes it 0, when the connection is dead, frees the connection.
 * inv 2. `dead` is set once, by ttrpc_tear_down(): the socket is closed, both lists are empty, no
 *        watch or timer of the connection is active.
 * inv 3. A failed write sets `broken` and arms `deferred`. Only the loop tears down for it, so a
 *        caller of ttrpc_reply() never sees its connection vanish.
 * inv 4. Bytes in `in` are not looked at after calling out: a callback may run the loop, which
 *        reads and so moves them. */

struct ttrpc_pending {
	struct ttrpc_pending *next;
	struct ttrpc_conn *conn; /* NULL: not on its list, the timer will deliver `code` */
	uint32_t stream;
	enum ttrpc_code code;
	const char *message;
	struct timer timer;
	const ProtobufCMessageDescriptor *response;
	bool done_owns_response;
	ttrpc_done_fn *done;
	void *arg;
};

struct ttrpc_call {
	struct ttrpc_call *next, *prev;
	struct ttrpc_conn *conn; /* NULL when it ended before the answer */
	uint32_t stream;
	ProtobufCMessage *request;
	void (*gone)(void *arg);
	void *gone_arg;
};

struct ttrpc_conn {
	struct loop *loop;
	struct watch watch;
	int fd;
	unsigned busy;
	bool dead;

	const struct ttrpc_method *methods;
	size_t nmethods;
	ttrpc_closed_fn *closed;
	void *arg;

	struct buf in;
	size_t in_at;              /* bytes of `in` already handled */
	uint32_t skip;             /* bytes still to come of a message that is too long */
	uint32_t last_peer_stream; /* largest id the peer has used */
	struct ttrpc_call *calls;
	size_t ncalls;

	struct buf out;
	size_t out_at; /* bytes of `out` already sent */
	uint32_t next_stream;
	struct ttrpc_pending *pending; /* in the order sent */

	int broken; /* negative errno of a failed write */
	struct timer deferred;
};

#define TTRPC_READ_CHUNK  (64u << 10)
#define TTRPC_KEEP_BUFFER (64u << 10) /* an idle connection keeps no larger buffer */

/* Both directions: the first row with a code is its errno, the first with an errno its code. */
static const struct {
	enum ttrpc_code code;
	int error;
} ttrpc_codes[] = {
	{ TTRPC_CANCELLED, ECANCELED },
	{ TTRPC_INVALID_ARGUMENT, EINVAL },
	{ TTRPC_INVALID_ARGUMENT, ENAMETOOLONG },
	{ TTRPC_DEADLINE_EXCEEDED, ETIMEDOUT },
	{ TTRPC_DEADLINE_EXCEEDED, ETIME },
	{ TTRPC_NOT_FOUND, ENOENT },
	{ TTRPC_NOT_FOUND, ESRCH },
	{ TTRPC_ALREADY_EXISTS, EEXIST },
	{ TTRPC_PERMISSION_DENIED, EACCES },
	{ TTRPC_PERMISSION_DENIED, EPERM },
	{ TTRPC_RESOURCE_EXHAUSTED, ENOSPC },
	{ TTRPC_RESOURCE_EXHAUSTED, ENOMEM },
	{ TTRPC_RESOURCE_EXHAUSTED, EMSGSIZE },
	{ TTRPC_FAILED_PRECONDITION, EBUSY },
	{ TTRPC_FAILED_PRECONDITION, ENOTEMPTY },
	{ TTRPC_ABORTED, EINTR },
	{ TTRPC_OUT_OF_RANGE, ERANGE },
	{ TTRPC_UNIMPLEMENTED, ENOSYS },
	{ TTRPC_UNIMPLEMENTED, EOPNOTSUPP },
	{ TTRPC_INTERNAL, EIO },
	{ TTRPC_UNAVAILABLE, ECONNRESET },
};

static enum ttrpc_code ttrpc_code_of_errno(int error)
{
	for (size_t i = 0; i < ARRAY_LEN(ttrpc_codes); i++)
		if (ttrpc_codes[i].error == -error)
			return ttrpc_codes[i].code;
	return TTRPC_INTERNAL;
}

static int ttrpc_errno_of_code(enum ttrpc_code code)
{
	for (size_t i = 0; i < ARRAY_LEN(ttrpc_codes); i++)
		if (ttrpc_codes[i].code == code)
			return -ttrpc_codes[i].error;
	return -EIO;
}

/* ---- Sending. */

static size_t ttrpc_unsent(const struct ttrpc_conn *c)
{
	return c->out.len - c->out_at;
}

static void ttrpc_watch(struct ttrpc_conn *c)
{
	uint32_t events = ttrpc_unsent(c) ? EPOLLOUT : 0;

	if (ttrpc_unsent(c) <= TTRPC_MAX_QUEUED)
		events |= EPOLLIN;
	watch_want(&c->watch, events);
}

static void ttrpc_buf_trim(struct buf *b, size_t *at)
{
	if (*at == b->len) {
		b->len = *at = 0;
		if (b->cap > TTRPC_KEEP_BUFFER)
			buf_fini(b);
	} else if (*at > b->len / 2) { /* each byte moves at most once on average */
		buf_consume(b, *at);
		*at = 0;
	}
}

static void ttrpc_tear_down_deferred(struct timer *t);

static void ttrpc_flush(struct ttrpc_conn *c)
{
	while (!c->broken && !c->dead && ttrpc_unsent(c)) {
		ssize_t n = send(c->fd, c->out.data + c->out_at, ttrpc_unsent(c),
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			c->out_at += (size_t)n;
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			c->broken = -errno;
			timer_start(c->loop, &c->deferred, 0, ttrpc_tear_down_deferred);
		}
	}
	ttrpc_buf_trim(&c->out, &c->out_at);
	ttrpc_watch(c);
}

static void ttrpc_refuse(struct ttrpc_conn *c, uint32_t stream, enum ttrpc_code code,
			 const char *message)
{
	ttrpc_status_put(&c->out, stream, code, message);
	ttrpc_flush(c);
}

/* ---- The end of a connection. */

static void ttrpc_leave(struct ttrpc_conn *c)
{
	if (--c->busy || !c->dead)
		return;
	buf_fini(&c->in);
	buf_fini(&c->out);
	free(c);
}

static void ttrpc_pending_unlink(struct ttrpc_pending *p)
{
	struct ttrpc_pending **at = &p->conn->pending;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->conn = NULL;
}

static void ttrpc_pending_end(struct ttrpc_pending *p, enum ttrpc_code code, const char *message,
			      ProtobufCMessage *response)
{
	struct ttrpc_result result = { code, message, response };

	if (p->conn)
		ttrpc_pending_unlink(p);
	timer_stop(&p->timer);
	p->done(p->arg, &result);
	if (response && !p->done_owns_response)
		protobuf_c_message_free_unpacked(response, NULL);
	free(p);
}

static void ttrpc_call_unlink(struct ttrpc_call *call)
{
	if (call->prev)
		call->prev->next = call->next;
	else
		call->conn->calls = call->next;
	if (call->next)
		call->next->prev = call->prev;
	call->conn->ncalls--;
	call->conn = NULL;
}

/* Caller holds c->busy (inv 1). */
static void ttrpc_tear_down(struct ttrpc_conn *c, enum ttrpc_code code, const char *reason)
{
	if (c->dead)
		return;
	c->dead = true;
	timer_stop(&c->deferred);
	watch_stop(&c->watch);
	close(c->fd);
	while (c->pending)
		ttrpc_pending_end(c->pending, code, reason, NULL);
	while (c->calls) {
		struct ttrpc_call *call = c->calls;
		ttrpc_call_unlink(call);
		if (call->gone)
			call->gone(call->gone_arg);
	}
	if (code == TTRPC_UNAVAILABLE && c->closed)
		c->closed(c->arg, reason);
}

static void ttrpc_tear_down_deferred(struct timer *t)
{
	struct ttrpc_conn *c = container_of(t, struct ttrpc_conn, deferred);

	c->busy++;
	ttrpc_tear_down(c, TTRPC_UNAVAILABLE, strerror(-c->broken));
	ttrpc_leave(c);
}

void ttrpc_close(struct ttrpc_conn *c)
{
	c->busy++;
	ttrpc_tear_down(c, TTRPC_CANCELLED, "connection closed");
	ttrpc_leave(c);
}

/* ---- Serving. */

static bool ttrpc_span_is(struct ttrpc_span s, const char *text)
{
	return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

/* The method asked for; else NULL, and the words containerd has for it. */
static const struct ttrpc_method *ttrpc_find(const struct ttrpc_conn *c,
					     const struct ttrpc_request_envelope *r, char *why,
					     size_t why_size)
{
	bool has_service = false;

	for (size_t i = 0; i < c->nmethods; i++) {
		const struct ttrpc_method *m = &c->methods[i];
		if (!ttrpc_span_is(r->service, m->service))
			continue;
		if (ttrpc_span_is(r->method, m->name))
			return m;
		has_service = true;
	}
	if (has_service)
		snprintf(why, why_size, "method %.*s", (int)MIN(r->method.n, (size_t)128),
			 (const char *)r->method.p);
	else
		snprintf(why, why_size, "service %.*s", (int)MIN(r->service.n, (size_t)128),
			 (const char *)r->service.p);
	return NULL;
}

static void ttrpc_serve(struct ttrpc_conn *c, uint32_t stream, const struct ttrpc_method *m,
			ProtobufCMessage *request)
{
	struct ttrpc_call *call = mem_zalloc(sizeof *call);

	*call = (struct ttrpc_call){
		.next = c->calls, .conn = c, .stream = stream, .request = request
	};
	if (c->calls)
		c->calls->prev = call;
	c->calls = call;
	c->ncalls++;
	m->serve(call, request);
}

static void ttrpc_on_request(struct ttrpc_conn *c, uint32_t stream, const uint8_t *p, size_t n)
{
	struct ttrpc_request_envelope r;
	const struct ttrpc_method *m;
	ProtobufCMessage *request;
	char why[192];

	if (stream % 2 == 0 || stream <= c->last_peer_stream) {
		ttrpc_refuse(c, stream, TTRPC_INVALID_ARGUMENT,
			     stream % 2 ? "stream id used before"
					: "stream id of a client must be odd");
		return;
	}
	c->last_peer_stream = stream;
	if (ttrpc_request_get(p, n, &r) < 0) {
		ttrpc_refuse(c, stream, TTRPC_INVALID_ARGUMENT, "cannot decode the request");
		return;
	}
	m = ttrpc_find(c, &r, why, sizeof why);
	if (!m) {
		ttrpc_refuse(c, stream, TTRPC_UNIMPLEMENTED, why);
		return;
	}
	if (c->ncalls >= TTRPC_MAX_CALLS) {
		ttrpc_refuse(c, stream, TTRPC_RESOURCE_EXHAUSTED, "too many requests at once");
		return;
	}
	request = ttrpc_unpack(m->request, r.payload);
	if (!request) {
		snprintf(why, sizeof why, "cannot decode %s", m->request->name);
		ttrpc_refuse(c, stream, TTRPC_INVALID_ARGUMENT, why);
		return;
	}
	ttrpc_serve(c, stream, m, request);
}

static void ttrpc_call_free(struct ttrpc_call *call)
{
	if (call->conn)
		ttrpc_call_unlink(call);
	protobuf_c_message_free_unpacked(call->request, NULL);
	free(call);
}

void *ttrpc_call_arg(const struct ttrpc_call *call)
{
	return call->conn ? call->conn->arg : NULL;
}

void ttrpc_call_on_gone(struct ttrpc_call *call, void (*gone)(void *arg), void *arg)
{
	call->gone = gone;
	call->gone_arg = arg;
}

void ttrpc_reply(struct ttrpc_call *call, const ProtobufCMessage *response)
{
	struct ttrpc_conn *c = call->conn;

	if (c && ttrpc_response_put(&c->out, call->stream, response) < 0)
		ttrpc_refuse(c, call->stream, TTRPC_RESOURCE_EXHAUSTED, "the answer is too long");
	if (c)
		ttrpc_flush(c);
	ttrpc_call_free(call);
}

void ttrpc_fail(struct ttrpc_call *call, enum ttrpc_code code, const char *fmt, ...)
{
	char message[TTRPC_MAX_STATUS];
	va_list ap;

	ASSERT(code != TTRPC_OK);
	if (call->conn) {
		va_start(ap, fmt);
		vsnprintf(message, sizeof message, fmt, ap);
		va_end(ap);
		ttrpc_refuse(call->conn, call->stream, code, message);
	}
	ttrpc_call_free(call);
}

void ttrpc_fail_err(struct ttrpc_call *call, const struct err *e)
{
	ttrpc_fail(call, ttrpc_code_of_errno(e->code), "%s", e->msg);
}

/* ---- Receiving. */

static struct ttrpc_pending *ttrpc_pending_find(struct ttrpc_conn *c, uint32_t stream)
{
	struct ttrpc_pending *p = c->pending;

	while (p && p->stream != stream)
		p = p->next;
	return p;
}

static void ttrpc_on_response(struct ttrpc_conn *c, uint32_t stream, const uint8_t *p, size_t n)
{
	struct ttrpc_pending *pending = ttrpc_pending_find(c, stream);
	struct ttrpc_response_envelope r;
	AUTO_FREE char *message = NULL;
	ProtobufCMessage *m;

	if (!pending) /* it was given up, or never made */
		return;
	if (ttrpc_response_get(p, n, &r) < 0) {
		ttrpc_pending_end(pending, TTRPC_INTERNAL, "cannot decode the answer", NULL);
		return;
	}
	if (r.code != TTRPC_OK) {
		message = mem_strndup((const char *)r.message.p,
				      MIN(r.message.n, (size_t)TTRPC_MAX_STATUS));
		ttrpc_pending_end(pending, (enum ttrpc_code)r.code, message, NULL);
		return;
	}
	m = ttrpc_unpack(pending->response, r.payload);
	if (!m)
		ttrpc_pending_end(pending, TTRPC_INTERNAL, "cannot decode the answer", NULL);
	else
		ttrpc_pending_end(pending, TTRPC_OK, "", m);
}

static void ttrpc_on_oversized(struct ttrpc_conn *c, const struct ttrpc_header *h)
{
	struct ttrpc_pending *p = ttrpc_pending_find(c, h->stream);

	c->skip = h->length;
	if (h->type == TTRPC_REQUEST)
		ttrpc_refuse(c, h->stream, TTRPC_RESOURCE_EXHAUSTED, "the request is too long");
	else if (h->type == TTRPC_RESPONSE && p)
		ttrpc_pending_end(p, TTRPC_RESOURCE_EXHAUSTED, "the answer is too long", NULL);
}

/* Handle the first frame in `in`. False when it is not all there. */
static bool ttrpc_take_frame(struct ttrpc_conn *c)
{
	size_t left = c->in.len - c->in_at;
	struct ttrpc_header h;
	const uint8_t *p;

	if (c->skip) {
		size_t n = MIN(left, (size_t)c->skip);
		c->in_at += n;
		c->skip -= (uint32_t)n;
		return n > 0;
	}
	if (left < TTRPC_HEADER_SIZE)
		return false;
	p = c->in.data + c->in_at;
	ttrpc_header_get(p, &h);
	if (h.length > TTRPC_MAX_MESSAGE) {
		c->in_at += TTRPC_HEADER_SIZE;
		ttrpc_on_oversized(c, &h);
		return true;
	}
	if (left - TTRPC_HEADER_SIZE < h.length)
		return false;
	c->in_at += TTRPC_HEADER_SIZE + h.length;
	if (h.type == TTRPC_REQUEST)
		ttrpc_on_request(c, h.stream, p + TTRPC_HEADER_SIZE, h.length);
	else if (h.type == TTRPC_RESPONSE)
		ttrpc_on_response(c, h.stream, p + TTRPC_HEADER_SIZE, h.length);
	return true;
}

static void ttrpc_read(struct ttrpc_conn *c)
{
	ssize_t n =
		recv(c->fd, buf_reserve(&c->in, TTRPC_READ_CHUNK), TTRPC_READ_CHUNK, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		ttrpc_tear_down(c, TTRPC_UNAVAILABLE, strerror(errno));
		return;
	}
	if (n == 0) {
		ttrpc_tear_down(c, TTRPC_UNAVAILABLE,
				c->in.len > c->in_at || c->skip ? "peer closed inside a message"
								: "peer closed");
		return;
	}
	c->in.len += (size_t)n;
	while (!c->dead && ttrpc_take_frame(c))
		;
	ttrpc_buf_trim(&c->in, &c->in_at);
}

static void ttrpc_on_event(struct watch *w, uint32_t events)
{
	struct ttrpc_conn *c = container_of(w, struct ttrpc_conn, watch);

	c->busy++;
	if (events & EPOLLOUT)
		ttrpc_flush(c);
	/* After a hang-up there may be answers left to read; the end of them tears down. */
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		ttrpc_read(c);
	ttrpc_leave(c);
}

struct ttrpc_conn *ttrpc_open(struct loop *l, int fd, const struct ttrpc_method *methods, size_t n,
			      ttrpc_closed_fn *closed, void *arg, struct err *e)
{
	struct ttrpc_conn *c = mem_zalloc(sizeof *c);
	int r;

	*c = (struct ttrpc_conn){ .loop = l,
				  .fd = fd,
				  .methods = methods,
				  .nmethods = n,
				  .closed = closed,
				  .arg = arg,
				  .next_stream = 1 };
	r = fd_set_nonblock(fd, true);
	if (r == 0)
		r = watch_start(l, &c->watch, fd, EPOLLIN, ttrpc_on_event);
	if (r < 0) {
		err_set(e, r, "ttrpc: cannot watch the socket: %s", strerror(-r));
		close(fd);
		free(c);
		return NULL;
	}
	return c;
}

/* ---- Asking. */

static void ttrpc_on_timer(struct timer *t)
{
	struct ttrpc_pending *p = container_of(t, struct ttrpc_pending, timer);
	struct ttrpc_conn *c = p->conn;

	if (c)
		c->busy++;
	ttrpc_pending_end(p, p->code, p->message, NULL);
	if (c)
		ttrpc_leave(c);
}

static struct ttrpc_pending *ttrpc_send_request(struct ttrpc_conn *c, const char *service,
						const char *method, const ProtobufCMessage *request,
						uint64_t timeout_ns)
{
	struct ttrpc_pending *p = mem_zalloc(sizeof *p), **at = &c->pending;

	if (c->dead || c->broken || c->next_stream > INT32_MAX) {
		p->code = TTRPC_UNAVAILABLE;
		p->message = "connection closed";
		return p;
	}
	if (ttrpc_unsent(c) > TTRPC_MAX_QUEUED) {
		p->code = TTRPC_RESOURCE_EXHAUSTED;
		p->message = "the peer does not read";
		return p;
	}
	if (ttrpc_request_put(&c->out, c->next_stream, service, method, request, timeout_ns) < 0) {
		p->code = TTRPC_RESOURCE_EXHAUSTED;
		p->message = "the request is too long";
		return p;
	}
	p->code = TTRPC_DEADLINE_EXCEEDED;
	p->message = "no answer in time";
	p->conn = c;
	p->stream = c->next_stream;
	c->next_stream += 2;
	while (*at)
		at = &(*at)->next;
	*at = p;
	ttrpc_flush(c);
	return p;
}

static struct ttrpc_pending *ttrpc_ask(struct ttrpc_conn *c, const char *service,
				       const char *method, const ProtobufCMessage *request,
				       const ProtobufCMessageDescriptor *response,
				       uint64_t timeout_ns, ttrpc_done_fn *done, void *arg)
{
	uint64_t timeout = MIN(timeout_ns, (uint64_t)INT64_MAX / 2);
	struct ttrpc_pending *p = ttrpc_send_request(c, service, method, request, timeout);

	p->response = response;
	p->done = done;
	p->arg = arg;
	if (!p->conn)
		timer_start(c->loop, &p->timer, 0, ttrpc_on_timer);
	else if (timeout)
		timer_start(c->loop, &p->timer, clock_mono_ns() + timeout, ttrpc_on_timer);
	return p;
}

void ttrpc_request(struct ttrpc_conn *c, const char *service, const char *method,
		   const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response,
		   uint64_t timeout_ns, ttrpc_done_fn *done, void *arg)
{
	ttrpc_ask(c, service, method, request, response, timeout_ns, done, arg);
}

struct ttrpc_wait {
	bool is_done;
	enum ttrpc_code code;
	ProtobufCMessage *response;
	struct err *e;
};

static void ttrpc_wait_done(void *arg, const struct ttrpc_result *result)
{
	struct ttrpc_wait *w = arg;

	w->is_done = true;
	w->code = result->code;
	w->response = result->response;
	if (result->code != TTRPC_OK)
		err_set(w->e, ttrpc_errno_of_code(result->code), "%s", result->message);
}

enum ttrpc_code ttrpc_request_wait(struct ttrpc_conn *c, const char *service, const char *method,
				   const ProtobufCMessage *request,
				   const ProtobufCMessageDescriptor *response, uint64_t timeout_ns,
				   ProtobufCMessage **out, struct err *e)
{
	struct ttrpc_wait w = { .e = e };
	struct ttrpc_pending *p;
	int r;

	c->busy++;
	p = ttrpc_ask(c, service, method, request, response, timeout_ns, ttrpc_wait_done, &w);
	p->done_owns_response = true;
	while (!w.is_done) {
		r = loop_step(c->loop, -1);
		if (r < 0 && !w.is_done)
			ttrpc_pending_end(p, TTRPC_INTERNAL, strerror(-r), NULL);
	}
	ttrpc_leave(c);
	if (out)
		*out = w.response;
	else if (w.response)
		protobuf_c_message_free_unpacked(w.response, NULL);
	return w.code;
}
