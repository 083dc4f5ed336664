#include "amalgam/runtime/pump.h"

#include <sys/socket.h>

static void pump_end(struct pump *p)
{
	if (p->over)
		return;
	p->over = true;
	watch_stop(&p->in);
	watch_stop(&p->out);
	shutdown(p->out_fd, SHUT_WR); /* ENOTSOCK is fine: then closing does it */
	if (p->done)
		p->done(p->arg);
}

/* Write what is pending. False: the output must become ready first, or is gone. */
static bool pump_write(struct pump *p)
{
	while (p->at < p->len) {
		ssize_t n = write(p->out_fd, p->buf + p->at, p->len - p->at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0) {
			p->eof = true;
			p->at = p->len;
			return true;
		}
		p->at += (size_t)n;
	}
	return true;
}

/* One read; false when there is nothing yet. An end of input is something: no event comes for that of
 * a file. */
static bool pump_read(struct pump *p)
{
	ssize_t n = read(p->in_fd, p->buf, sizeof p->buf);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	p->at = 0;
	p->len = n > 0 ? (size_t)n : 0;
	p->eof |= n <= 0;
	return true;
}

static void pump_turn(struct pump *p)
{
	bool more = true;

	while (more) {
		if (!pump_write(p)) {
			watch_want(&p->in, 0);
			watch_want(&p->out, EPOLLOUT);
			return;
		}
		if (p->eof) {
			pump_end(p);
			return;
		}
		more = pump_read(p);
	}
	watch_want(&p->in, EPOLLIN);
	watch_want(&p->out, 0);
}

static void pump_on_in(struct watch *w, uint32_t events)
{
	(void)events;
	pump_turn(container_of(w, struct pump, in));
}

static void pump_on_out(struct watch *w, uint32_t events)
{
	struct pump *p = container_of(w, struct pump, out);

	if (events & EPOLLERR) { /* nobody reads any more */
		p->eof = true;
		p->at = p->len;
	}
	pump_turn(p);
}

int pump_start(struct pump *p, struct loop *l, int in_fd, int out_fd, void (*done)(void *arg),
	       void *arg)
{
	int r;

	*p = (struct pump){ .in_fd = in_fd, .out_fd = out_fd, .loop = l, .done = done, .arg = arg };
	r = watch_start(l, &p->out, out_fd, 0, pump_on_out);
	if (r < 0 && r != -EPERM && r != -EEXIST)
		return r;
	r = watch_start(l, &p->in, in_fd, EPOLLIN, pump_on_in);
	if (r == -EPERM) { /* a file: all of it now */
		pump_turn(p);
		r = 0;
	}
	return r;
}
