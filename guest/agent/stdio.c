#include "guest/agent/stdio.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

#include "agent.pb-c.h"
#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "guest/agent/agent.h"

#define GA_STDIO_CHUNK    (16u << 10)
#define GA_STDIO_LAST     (1u << 20) /* more than a pipe holds */
#define GA_STDIO_DRAIN_NS (2 * NS_PER_S)

/* ---- Watches: interest in nothing means no watch at all, since epoll reports a hang-up always. */

static void ga_stream_on_fd(struct watch *w, uint32_t events);
static void ga_stream_on_sock(struct watch *w, uint32_t events);

static void ga_stream_want(struct ga_stream *s, struct watch *w, int fd, uint32_t events,
			   watch_fn *fn)
{
	if (fd < 0 || !events)
		watch_stop(w);
	else if (w->active)
		watch_want(w, events);
	else if (watch_start(s->io->loop, w, fd, events, fn) < 0)
		log_warn("stream cannot be watched");
}

static void ga_stream_want_fd(struct ga_stream *s, uint32_t events)
{
	ga_stream_want(s, &s->fd_watch, s->fd, events, ga_stream_on_fd);
}

static void ga_stream_want_sock(struct ga_stream *s, uint32_t events)
{
	ga_stream_want(s, &s->sock_watch, s->sock, events, ga_stream_on_sock);
}

static void ga_stream_close_fd(struct ga_stream *s)
{
	watch_stop(&s->fd_watch);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->has_ended = true;
}

/* shutdown() says end of stream even where the other direction of a terminal shares the socket. */
static void ga_stream_close_sock(struct ga_stream *s)
{
	watch_stop(&s->sock_watch);
	if (s->sock >= 0) {
		shutdown(s->sock, s->index == GA_STDIN ? SHUT_RD : SHUT_WR);
		close(s->sock);
	}
	s->sock = -1;
	buf_fini(&s->pending);
}

/* ---- Direct input: socket -> pipe or terminal */

static void ga_stream_end_input(struct ga_stream *s)
{
	/* End of input closes a pipe; a terminal has other ends, the master is needed for output.
	 */
	ga_stream_close_sock(s);
	if (!s->io->terminal)
		ga_stream_close_fd(s);
	else
		ga_stream_want_fd(s, 0);
}

static bool ga_stream_flush_input(struct ga_stream *s)
{
	while (s->pending.len) {
		ssize_t r = write(s->fd, s->pending.data, s->pending.len);
		if (r < 0 && errno == EAGAIN)
			return false;
		if (r < 0) {
			ga_stream_close_sock(s);
			ga_stream_close_fd(s);
			return false;
		}
		buf_consume(&s->pending, (size_t)r);
	}
	buf_fini(&s->pending);
	return true;
}

static void ga_stream_pump_input(struct ga_stream *s)
{
	uint8_t chunk[GA_STDIO_CHUNK];
	ssize_t n, w;

	if (s->fd < 0 || s->sock < 0)
		return;
	if (ga_stream_flush_input(s)) {
		n = recv(s->sock, chunk, sizeof chunk, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			ga_stream_end_input(s);
			return;
		}
		w = n > 0 ? write(s->fd, chunk, (size_t)n) : 0;
		if (w < 0 && errno != EAGAIN) {
			ga_stream_close_sock(s);
			ga_stream_close_fd(s);
			return;
		}
		if (n > 0 && w < n)
			buf_add(&s->pending, chunk + MAX(w, 0), (size_t)(n - MAX(w, 0)));
	}
	ga_stream_want_fd(s, s->pending.len ? EPOLLOUT : s->io->terminal ? 0 : EPOLLERR);
	ga_stream_want_sock(s, s->pending.len ? 0 : EPOLLIN);
}

/* ---- Direct output: pipe or terminal -> socket */

static void ga_stream_end_output(struct ga_stream *s)
{
	ga_stream_close_fd(s);
	if (!s->pending.len)
		ga_stream_close_sock(s);
}

/* The host has gone: read on and throw away, so that the process does not block on a full pipe. */
static void ga_stream_discard(struct ga_stream *s)
{
	watch_stop(&s->sock_watch);
	if (s->sock >= 0)
		close(s->sock);
	s->sock = -1;
	buf_fini(&s->pending);
}

static bool ga_stream_flush_output(struct ga_stream *s)
{
	while (s->pending.len) {
		ssize_t r =
			send(s->sock, s->pending.data, s->pending.len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r < 0 && errno == EAGAIN)
			return false;
		if (r < 0) {
			ga_stream_discard(s);
			return true;
		}
		buf_consume(&s->pending, (size_t)r);
	}
	buf_fini(&s->pending);
	return true;
}

/* One chunk on its way; false when there is nothing (more) to read now. */
static bool ga_stream_move_output(struct ga_stream *s)
{
	uint8_t chunk[GA_STDIO_CHUNK];
	ssize_t n = read(s->fd, chunk, sizeof chunk), w = 0;

	if (n < 0 && errno == EAGAIN && !s->is_last)
		return false;
	/* End of file; EIO: the last slave of a terminal is closed; or we have waited long enough.
	 */
	if (n <= 0 || (s->is_last && s->last < (size_t)n)) {
		ga_stream_end_output(s);
		return false;
	}
	s->last -= s->is_last ? (size_t)n : 0;
	if (s->sock < 0)
		return true;
	w = send(s->sock, chunk, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (w < 0 && errno != EAGAIN)
		ga_stream_discard(s);
	else if (w < n)
		buf_add(&s->pending, chunk + MAX(w, 0), (size_t)(n - MAX(w, 0)));
	return true;
}

static void ga_stream_pump_output(struct ga_stream *s)
{
	/* A few chunks, then the others get their turn; the last of them without a pause, since no
	 * event tells that a pipe with a writer is empty. */
	for (unsigned i = 0; i < 8 || s->is_last; i++) {
		if (!ga_stream_flush_output(s))
			break;
		if (s->fd < 0) {
			ga_stream_close_sock(s);
			return;
		}
		if (!ga_stream_move_output(s))
			break;
	}
	ga_stream_want_fd(s, s->pending.len ? 0 : EPOLLIN);
	ga_stream_want_sock(s, s->pending.len ? EPOLLOUT : 0);
}

/* ---- Buffered */

static void ga_stream_reply_write(struct ga_stream *s)
{
	Grpc__WriteStreamResponse r = GRPC__WRITE_STREAM_RESPONSE__INIT;
	struct ttrpc_call *call = take_ptr(&s->call);

	r.len = (uint32_t)s->done;
	ttrpc_reply(call, &r.base);
}

/* The answer waits until all is written: a host that stops calling until then is the backpressure.
 */
static void ga_stream_try_write(struct ga_stream *s)
{
	while (s->call && s->done < s->len) {
		ssize_t r = write(s->fd, s->data + s->done, s->len - s->done);
		if (r < 0 && errno == EAGAIN)
			break;
		if (r < 0) {
			ttrpc_fail(take_ptr(&s->call), TTRPC_INTERNAL, "write stdin: %s",
				   strerror(errno));
			if (!s->io->terminal)
				ga_stream_close_fd(s);
			return;
		}
		s->done += (size_t)r;
	}
	if (s->call && s->done == s->len)
		ga_stream_reply_write(s);
	ga_stream_want_fd(s, s->call ? EPOLLOUT : 0);
}

static void ga_stream_reply_read(struct ga_stream *s, uint8_t *data, size_t n)
{
	Grpc__ReadStreamResponse r = GRPC__READ_STREAM_RESPONSE__INIT;
	struct ttrpc_call *call = take_ptr(&s->call);

	r.data.data = data;
	r.data.len = n;
	ttrpc_reply(call, &r.base);
}

static void ga_stream_try_read(struct ga_stream *s)
{
	size_t max = MIN(s->len, (size_t)GA_STDIO_CHUNK);
	uint8_t chunk[GA_STDIO_CHUNK];
	ssize_t n;

	if (!s->call) {
		ga_stream_want_fd(s, 0);
		return;
	}
	n = s->fd < 0 ? 0 : read(s->fd, chunk, max);
	if (n < 0 && errno == EAGAIN && !s->is_last) {
		ga_stream_want_fd(s, EPOLLIN);
		return;
	}
	ga_stream_want_fd(s, 0);
	if (n <= 0)
		ga_stream_close_fd(s);
	ga_stream_reply_read(s, chunk, n > 0 ? (size_t)n : 0);
}

/* ---- Both */

static void ga_stream_pump(struct ga_stream *s)
{
	if (!s->port && s->index == GA_STDIN)
		ga_stream_try_write(s);
	else if (!s->port)
		ga_stream_try_read(s);
	else if (s->index == GA_STDIN)
		ga_stream_pump_input(s);
	else
		ga_stream_pump_output(s);
}

static void ga_stream_on_fd(struct watch *w, uint32_t events)
{
	struct ga_stream *s = container_of(w, struct ga_stream, fd_watch);

	if (s->index == GA_STDIN && s->port && events & EPOLLERR) {
		/* Nobody will ever read the pipe: let the host know by closing its side. */
		ga_stream_close_sock(s);
		ga_stream_close_fd(s);
		return;
	}
	ga_stream_pump(s);
}

static void ga_stream_on_sock(struct watch *w, uint32_t events)
{
	(void)events;
	ga_stream_pump(container_of(w, struct ga_stream, sock_watch));
}

void ga_stdio_init(struct ga_stdio *io, struct loop *l)
{
	io->loop = l;
	for (unsigned i = 0; i < 3; i++) {
		io->stream[i].io = io;
		io->stream[i].index = i;
		io->stream[i].fd = io->stream[i].sock = -1;
	}
}

void ga_stdio_fini(struct ga_stdio *io)
{
	timer_stop(&io->drain);
	for (unsigned i = 0; i < 3; i++) {
		struct ga_stream *s = &io->stream[i];
		ga_stream_close_fd(s);
		ga_stream_close_sock(s);
		if (s->call)
			ttrpc_fail(take_ptr(&s->call), TTRPC_NOT_FOUND, "process was removed");
	}
}

int ga_stdio_open(struct ga_stdio *io, bool terminal, const uint32_t ports[3], uint32_t pipe_size,
		  int child[3], struct err *e)
{
	io->terminal = terminal;
	for (unsigned i = 0; i < 3; i++) {
		io->stream[i].port = ports[i];
		child[i] = -1;
	}
	for (unsigned i = 0; i < 3 && !terminal; i++) {
		int ends[2]; /* read, write */
		if (pipe2(ends, O_CLOEXEC) < 0)
			return err_set(e, -errno, "pipe: %m");
		if (pipe_size)
			fcntl(ends[0], F_SETPIPE_SZ, (int)pipe_size);
		io->stream[i].fd = ends[i == GA_STDIN];
		child[i] = ends[i != GA_STDIN];
		fd_set_nonblock(io->stream[i].fd, true);
	}
	return 0;
}

void ga_stdio_set_terminal(struct ga_stdio *io, int master)
{
	fd_set_nonblock(master, true);
	/* Two descriptors: each direction is watched on its own. */
	io->stream[GA_STDOUT].fd = master;
	io->stream[GA_STDIN].fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
	for (unsigned i = 0; i < 2; i++)
		if (!io->stream[i].port || io->stream[i].sock >= 0)
			ga_stream_pump(&io->stream[i]);
}

uint32_t ga_stdio_missing(const struct ga_stdio *io)
{
	for (unsigned i = 0; i < 3; i++)
		if (io->stream[i].port && !io->stream[i].has_connected)
			return io->stream[i].port;
	return 0;
}

static bool ga_stream_wants(const struct ga_stream *s, uint32_t port)
{
	return s->port == port && !s->has_connected && !s->has_ended;
}

bool ga_stdio_wants(const struct ga_stdio *io, uint32_t port)
{
	for (unsigned i = 0; i < 3; i++)
		if (ga_stream_wants(&io->stream[i], port))
			return true;
	return false;
}

void ga_stdio_connect(struct ga_stdio *io, uint32_t port, int fd)
{
	for (unsigned i = 0; i < 3; i++)
		if (ga_stream_wants(&io->stream[i], port)) {
			io->stream[i].sock = fcntl(fd, F_DUPFD_CLOEXEC, 3);
			io->stream[i].has_connected = true;
		}
	close(fd);
	for (unsigned i = 0; i < 3; i++)
		if (io->stream[i].port == port && io->stream[i].fd >= 0)
			ga_stream_pump(&io->stream[i]);
}

static void ga_stdio_drained(struct timer *t)
{
	struct ga_stdio *io = container_of(t, struct ga_stdio, drain);

	for (unsigned i = GA_STDOUT; i <= GA_STDERR; i++) {
		io->stream[i].is_last = true;
		io->stream[i].last = GA_STDIO_LAST;
		if (io->stream[i].fd >= 0)
			ga_stream_pump(&io->stream[i]);
	}
}

void ga_stdio_drain(struct ga_stdio *io)
{
	struct ga_stream *in = &io->stream[GA_STDIN];

	if (in->call)
		ttrpc_fail(take_ptr(&in->call), TTRPC_INTERNAL, "write stdin: process has ended");
	ga_stream_close_sock(in);
	ga_stream_close_fd(in);
	timer_start(io->loop, &io->drain, clock_mono_ns() + GA_STDIO_DRAIN_NS, ga_stdio_drained);
}

/* ---- Requests */

/* The host that asked has gone: what it would have read is for the next. */
static void ga_stream_caller_gone(void *arg)
{
	struct ga_stream *s = arg;

	ttrpc_fail(take_ptr(&s->call), TTRPC_CANCELLED, "connection ended");
	ga_stream_want_fd(s, 0);
}

static bool ga_stdio_refuse(const struct ga_stream *s, struct ttrpc_call *call)
{
	if (s->port)
		ttrpc_fail(call, TTRPC_FAILED_PRECONDITION, "stream is direct (port %u)", s->port);
	else if (s->call)
		ttrpc_fail(call, TTRPC_FAILED_PRECONDITION, "stream is busy with another call");
	else
		return false;
	return true;
}

void ga_stdio_write(struct ga_stdio *io, struct ttrpc_call *call, const uint8_t *data, size_t n)
{
	struct ga_stream *s = &io->stream[GA_STDIN];

	if (ga_stdio_refuse(s, call))
		return;
	if (s->fd < 0 && n) {
		ttrpc_fail(call, TTRPC_INTERNAL, "write stdin: it is closed");
		return;
	}
	if (!n)
		ga_stdio_close_stdin(io);
	s->call = call;
	ttrpc_call_on_gone(call, ga_stream_caller_gone, s);
	s->data = data;
	s->len = n;
	s->done = 0;
	ga_stream_try_write(s);
}

void ga_stdio_read(struct ga_stdio *io, enum ga_stdio_index i, struct ttrpc_call *call, size_t max)
{
	/* Both outputs of a terminal are one. */
	struct ga_stream *s = &io->stream[io->terminal ? GA_STDOUT : i];

	if (ga_stdio_refuse(s, call))
		return;
	if (max == 0) {
		ttrpc_fail(call, TTRPC_INVALID_ARGUMENT, "read of 0 bytes");
		return;
	}
	s->call = call;
	ttrpc_call_on_gone(call, ga_stream_caller_gone, s);
	s->len = max;
	ga_stream_try_read(s);
}

void ga_stdio_close_stdin(struct ga_stdio *io)
{
	struct ga_stream *s = &io->stream[GA_STDIN];

	if (io->terminal)
		return;
	if (s->call)
		ttrpc_fail(take_ptr(&s->call), TTRPC_CANCELLED, "stdin was closed");
	ga_stream_close_sock(s);
	ga_stream_close_fd(s);
}

int ga_stdio_resize(struct ga_stdio *io, uint16_t rows, uint16_t columns)
{
	struct winsize ws = { .ws_row = rows, .ws_col = columns };

	if (!io->terminal || io->stream[GA_STDOUT].fd < 0)
		return -ENOTTY;
	return ioctl(io->stream[GA_STDOUT].fd, TIOCSWINSZ, &ws) < 0 ? -errno : 0;
}
