/* loop.h - the event loop: one thread, one epoll, watches embedded in their owners.
 *
 * Nothing blocks in a callback. A watch is started with watch_start() and, after watch_stop()
 * returns, its callback cannot run again, not even for an event already fetched. Timers fire once.
 * Signals arrive as a signalfd like any other descriptor. Descriptors stay the caller's. */
#pragma once

#include <sys/epoll.h>

#include "amalgam/base/base.h"

struct loop;
struct watch;
typedef void watch_fn(struct watch *w, uint32_t events); /* EPOLLIN | EPOLLOUT | EPOLLHUP ... */

struct watch {
	int fd;
	uint32_t events;    /* what is asked for; 0 = only EPOLLERR | EPOLLHUP */
	bool active;
	struct loop *loop;
	watch_fn *fn;
	void *owner; /* the caller's, for watches that live in an array; else container_of() */
};

struct timer;
typedef void timer_fn(struct timer *t);

struct timer {
	uint64_t deadline_ns; /* absolute monotonic */
	bool active;
	struct loop *loop;
	timer_fn *fn;
	struct timer *next;
};

#define LOOP_BATCH 16

struct loop {
	int epoll_fd;
	bool stop;
	struct timer *timers; /* sorted by deadline */
	struct epoll_event ready[LOOP_BATCH];
	int nready; /* events of the batch being delivered; watch_stop() blanks its own */
};

INTERNAL MUST_USE int loop_init(struct loop *l);
INTERNAL void loop_fini(struct loop *l);
/* Deliver events until loop_stop(); 0, or -errno when epoll itself failed. */
INTERNAL int loop_run(struct loop *l);
/* Wait once, at most timeout_ms (-1 = for ever), and deliver. */
INTERNAL int loop_step(struct loop *l, int timeout_ms);
INTERNAL void loop_stop(struct loop *l);

INTERNAL MUST_USE int watch_start(struct loop *l, struct watch *w, int fd, uint32_t events,
				  watch_fn *fn);
INTERNAL void watch_want(struct watch *w, uint32_t events);
INTERNAL void watch_stop(struct watch *w);

INTERNAL void timer_start(struct loop *l, struct timer *t, uint64_t deadline_ns, timer_fn *fn);
INTERNAL void timer_stop(struct timer *t);
