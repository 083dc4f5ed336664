#include "guest/agent/direct.h"

#include <sys/socket.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"

struct ga_direct_conn {
	struct ga_direct_conn *next;
	struct ga_agent *agent;
	int fd;
	uint32_t port; /* 0 = its line has not been read yet */
	struct watch watch;
	struct timer timeout;
	char line[16];
	size_t len;
};

/* Out of the list; returns the descriptor. */
static int ga_direct_take(struct ga_direct_conn *c)
{
	struct ga_direct *d = &c->agent->direct;
	int fd = c->fd;

	for (struct ga_direct_conn **at = &d->conns; *at; at = &(*at)->next) {
		if (*at == c) {
			*at = c->next;
			break;
		}
	}
	d->count--;
	watch_stop(&c->watch);
	timer_stop(&c->timeout);
	free(c);
	return fd;
}

static void ga_direct_drop(struct ga_direct_conn *c)
{
	close(ga_direct_take(c));
}

static void ga_direct_timed_out(struct timer *t)
{
	log_warn("direct stream dropped: no request has named it");
	ga_direct_drop(container_of(t, struct ga_direct_conn, timeout));
}

/* Its port is known: is somebody waiting for it? */
static void ga_direct_offer(struct ga_direct_conn *c)
{
	struct ga_agent *a = c->agent;

	for (struct ga_container *ctr = a->containers; ctr; ctr = ctr->next) {
		for (struct ga_process *p = ctr->processes; p; p = p->next) {
			uint32_t port = c->port;
			int fd;
			if (!ga_stdio_wants(&p->io, port))
				continue;
			fd = ga_direct_take(c);
			ga_stdio_connect(&p->io, port, fd);
			return;
		}
	}
}

void ga_direct_match(struct ga_agent *a, struct ga_stdio *io)
{
	struct ga_direct_conn *c = a->direct.conns, *next;

	for (; c; c = next) {
		uint32_t port = c->port;
		next = c->next;
		if (port && ga_stdio_wants(io, port))
			ga_stdio_connect(io, port, ga_direct_take(c));
	}
}

/* Tests: the port as the first line. One byte at a time, the rest is the stream's. Once its port is
 * known a connection is not watched: an input that has ended already (stdin is /dev/null) hangs up
 * before the request that names it, and is still that input. */
static void ga_direct_on_event(struct watch *w, uint32_t events)
{
	struct ga_direct_conn *c = container_of(w, struct ga_direct_conn, watch);
	uint64_t port;

	(void)events;
	while (recv(c->fd, &c->line[c->len], 1, MSG_DONTWAIT) == 1) {
		if (c->line[c->len] != '\n') {
			if (++c->len == sizeof c->line)
				break;
			continue;
		}
		c->line[c->len] = '\0';
		if (str_u64(c->line, 1, UINT32_MAX, &port) < 0)
			break;
		c->port = (uint32_t)port;
		watch_stop(w);
		ga_direct_offer(c);
		return;
	}
	if (errno != EAGAIN || c->len == sizeof c->line)
		ga_direct_drop(c);
}

static void ga_direct_accept(struct watch *w, uint32_t events)
{
	struct ga_agent *a = container_of(w, struct ga_agent, direct.listen);
	uint32_t port = 0;
	int fd = ga_agent_accept(w->fd, &port);
	struct ga_direct_conn *c;

	(void)events;
	if (fd < 0)
		return;
	if (a->direct.count == GA_DIRECT_MAX) {
		log_warn("direct stream refused: too many are waiting");
		close(fd);
		return;
	}
	c = mem_zalloc(sizeof *c);
	c->agent = a;
	c->fd = fd;
	c->port = port;
	c->next = a->direct.conns;
	a->direct.conns = c;
	a->direct.count++;
	timer_start(&a->loop, &c->timeout, clock_mono_ns() + GA_DIRECT_KEEP_MS * NS_PER_MS,
		    ga_direct_timed_out);
	if (c->port)
		ga_direct_offer(c);
	else if (watch_start(&a->loop, &c->watch, fd, EPOLLIN, ga_direct_on_event) < 0)
		ga_direct_drop(c);
}

int ga_direct_listen(struct ga_agent *a, struct err *e)
{
	int fd = ga_agent_listen(&a->config, a->config.stream_port, false, e);

	if (fd < 0)
		return fd;
	if (watch_start(&a->loop, &a->direct.listen, fd, EPOLLIN, ga_direct_accept) < 0)
		return err_set(e, -EIO, "watch the stream socket");
	return 0;
}
