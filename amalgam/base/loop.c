#include "amalgam/base/loop.h"

#include "amalgam/base/clock.h"

int loop_init(struct loop *l)
{
	*l = (struct loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	return l->epoll_fd < 0 ? -errno : 0;
}

void loop_fini(struct loop *l)
{
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	l->epoll_fd = -1;
}

void loop_stop(struct loop *l)
{
	l->stop = true;
}

int watch_start(struct loop *l, struct watch *w, int fd, uint32_t events, watch_fn *fn)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	*w = (struct watch){ .fd = fd, .events = events, .active = true, .loop = l, .fn = fn };
	return 0;
}

void watch_want(struct watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (!w->active || w->events == events)
		return;
	w->events = events;
	epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
}

void watch_stop(struct watch *w)
{
	struct loop *l = w->loop;

	if (!w->active)
		return;
	w->active = false;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	for (int i = 0; i < l->nready; i++)
		if (l->ready[i].data.ptr == w)
			l->ready[i].data.ptr = NULL;
}

void timer_start(struct loop *l, struct timer *t, uint64_t deadline_ns, timer_fn *fn)
{
	struct timer **at = &l->timers;

	timer_stop(t);
	while (*at && (*at)->deadline_ns <= deadline_ns)
		at = &(*at)->next;
	*t = (struct timer){ .deadline_ns = deadline_ns, .active = true, .loop = l, .fn = fn,
			     .next = *at };
	*at = t;
}

void timer_stop(struct timer *t)
{
	if (!t->active)
		return;
	for (struct timer **at = &t->loop->timers; *at; at = &(*at)->next) {
		if (*at == t) {
			*at = t->next;
			break;
		}
	}
	t->active = false;
}

/* Milliseconds until the first timer, rounded up so that it is due when we wake; capped by limit. */
static int loop_wait_ms(const struct loop *l, int limit_ms)
{
	uint64_t now, ms;

	if (!l->timers)
		return limit_ms;
	now = clock_mono_ns();
	if (l->timers->deadline_ns <= now)
		return 0;
	ms = (l->timers->deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
	if (limit_ms >= 0 && ms > (uint64_t)limit_ms)
		return limit_ms;
	return ms > INT_MAX ? INT_MAX : (int)ms;
}

static void loop_fire_timers(struct loop *l)
{
	while (l->timers && l->timers->deadline_ns <= clock_mono_ns()) {
		struct timer *t = l->timers;
		timer_stop(t);
		t->fn(t);
	}
}

int loop_step(struct loop *l, int timeout_ms)
{
	int n = epoll_wait(l->epoll_fd, l->ready, LOOP_BATCH, loop_wait_ms(l, timeout_ms));

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	l->nready = n;
	/* A callback may run the loop itself; that uses up the batch, and what it dropped of ours is
	 * reported again. */
	for (int i = 0; i < l->nready; i++) {
		struct watch *w = l->ready[i].data.ptr;
		if (w)
			w->fn(w, l->ready[i].events);
	}
	l->nready = 0;
	loop_fire_timers(l);
	return 0;
}

int loop_run(struct loop *l)
{
	l->stop = false;
	while (!l->stop) {
		int r = loop_step(l, -1);
		if (r < 0)
			return r;
	}
	return 0;
}
