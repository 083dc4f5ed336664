#include "amalgam/base/loop.h"

#include <sys/socket.h>

#include "amalgam/base/clock.h"
#include "tests/unit/test.h"

/* A watch over one end of a socket pair that counts and then does what `then` says. */
struct tloop_end {
	struct watch watch;
	int fds[2];
	int calls;
	uint32_t events;
	void (*then)(struct tloop_end *e);
	struct tloop_end *other;
	struct loop *loop;
};

static void tloop_on_event(struct watch *w, uint32_t events)
{
	struct tloop_end *e = container_of(w, struct tloop_end, watch);

	e->calls++;
	e->events = events;
	if (e->then)
		e->then(e);
}

static void tloop_open(struct loop *l, struct tloop_end *e, uint32_t events)
{
	*e = (struct tloop_end){ .loop = l };
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, e->fds), 0);
	CHECK_EQ(watch_start(l, &e->watch, e->fds[0], events, tloop_on_event), 0);
}

static void tloop_poke(struct tloop_end *e)
{
	CHECK_EQ(write(e->fds[1], "x", 1), 1);
}

TEST(loop_delivers_what_a_watch_asks_for)
{
	struct tloop_end e;
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	tloop_open(&l, &e, EPOLLIN);
	CHECK_EQ(loop_step(&l, 0), 0);
	CHECK_EQ(e.calls, 0);
	tloop_poke(&e);
	CHECK_EQ(loop_step(&l, -1), 0);
	CHECK_EQ(e.calls, 1);
	CHECK_EQ(e.events, EPOLLIN);
	watch_want(&e.watch, EPOLLOUT);
	loop_step(&l, 0);
	CHECK_EQ(e.events, EPOLLOUT);
	watch_want(&e.watch, 0);
	loop_step(&l, 0);
	CHECK_EQ(e.calls, 2);
	close(e.fds[1]);
	loop_step(&l, 0);
	CHECK(e.events & EPOLLHUP);
	watch_stop(&e.watch);
	watch_stop(&e.watch);
	watch_want(&e.watch, EPOLLIN);
	loop_step(&l, 0);
	CHECK_EQ(e.calls, 3);
	loop_fini(&l);
}

static void tloop_stop_other(struct tloop_end *e)
{
	watch_stop(&e->other->watch);
}

TEST(loop_does_not_call_a_watch_stopped_by_an_earlier_callback)
{
	struct tloop_end a, b;
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	tloop_open(&l, &a, EPOLLIN);
	tloop_open(&l, &b, EPOLLIN);
	a.other = &b;
	b.other = &a;
	a.then = b.then = tloop_stop_other;
	tloop_poke(&a);
	tloop_poke(&b);
	CHECK_EQ(loop_step(&l, 0), 0);
	CHECK_EQ(a.calls + b.calls, 1);
	loop_fini(&l);
}

static void tloop_nest(struct tloop_end *e)
{
	char c;

	CHECK_EQ(read(e->fds[0], &c, 1), 1);
	e->then = NULL;
	CHECK_EQ(loop_step(e->loop, 0), 0);
	watch_stop(&e->other->watch);
	memset(&e->other->watch, 0xee, sizeof e->other->watch); /* as if freed */
}

TEST(loop_may_be_run_from_a_callback)
{
	struct tloop_end a, b;
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	tloop_open(&l, &a, EPOLLIN);
	tloop_open(&l, &b, EPOLLIN);
	a.other = &b;
	a.then = tloop_nest;
	tloop_poke(&a);
	tloop_poke(&b);
	CHECK_EQ(loop_step(&l, 0), 0);
	CHECK_EQ(a.calls, 1);
	CHECK(b.calls >= 1);
	loop_fini(&l);
}

TEST(loop_delivers_more_events_than_one_batch_holds)
{
	struct tloop_end e[3 * LOOP_BATCH];
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	for (size_t i = 0; i < ARRAY_LEN(e); i++) {
		tloop_open(&l, &e[i], EPOLLIN);
		tloop_poke(&e[i]);
	}
	for (int i = 0; i < 10; i++)
		loop_step(&l, 0);
	for (size_t i = 0; i < ARRAY_LEN(e); i++)
		CHECK(e[i].calls > 0);
	loop_fini(&l);
}

static void tloop_end_run(struct tloop_end *e)
{
	if (e->calls == 3)
		loop_stop(e->loop);
}

TEST(loop_run_ends_when_told)
{
	struct tloop_end e;
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	tloop_open(&l, &e, EPOLLIN);
	e.then = tloop_end_run;
	tloop_poke(&e);
	CHECK_EQ(loop_run(&l), 0);
	CHECK_EQ(e.calls, 3);
	loop_fini(&l);
	CHECK_EQ(loop_run(&l), -EBADF);
}

struct tloop_timer {
	struct timer timer;
	int order;
	uint64_t fired_ns;
};

static int tloop_fired;

static void tloop_on_timer(struct timer *t)
{
	struct tloop_timer *x = container_of(t, struct tloop_timer, timer);

	CHECK(!t->active);
	x->order = ++tloop_fired;
	x->fired_ns = clock_mono_ns();
}

TEST(loop_timers_fire_once_in_order_and_not_early)
{
	static const int delay_ms[] = { 15, 5, 10, 0 }, order[] = { 4, 2, 3, 1 };
	struct tloop_timer t[4] = { 0 };
	uint64_t start;
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	start = clock_mono_ns();
	for (int i = 0; i < 4; i++)
		timer_start(&l, &t[i].timer, start + (uint64_t)delay_ms[i] * NS_PER_MS,
			    tloop_on_timer);
	while (tloop_fired < 4)
		CHECK_EQ(loop_step(&l, -1), 0);
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(t[i].order, order[i]);
		CHECK(t[i].fired_ns >= start + (uint64_t)delay_ms[i] * NS_PER_MS);
	}
	loop_step(&l, 0);
	CHECK_EQ(tloop_fired, 4);
	loop_fini(&l);
}

TEST(loop_timers_can_be_moved_and_stopped)
{
	struct tloop_timer a = { 0 }, b = { 0 }, c = { 0 };
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	timer_start(&l, &a.timer, clock_mono_ns(), tloop_on_timer);
	timer_start(&l, &b.timer, 1, tloop_on_timer);
	timer_start(&l, &c.timer, 2, tloop_on_timer);
	timer_start(&l, &a.timer, clock_mono_ns() + 3600 * NS_PER_S, tloop_on_timer);
	timer_stop(&b.timer);
	timer_stop(&b.timer);
	CHECK_EQ(loop_step(&l, 1000), 0);
	CHECK(!a.order && !b.order && c.order == 1);
	CHECK(a.timer.active && !b.timer.active && !c.timer.active);
	loop_fini(&l);
}

TEST(loop_step_waits_no_longer_than_asked)
{
	struct tloop_timer t = { 0 };
	uint64_t start = clock_mono_ns();
	struct loop l;

	CHECK_EQ(loop_init(&l), 0);
	timer_start(&l, &t.timer, start + 3600 * NS_PER_S, tloop_on_timer);
	CHECK_EQ(loop_step(&l, 10), 0);
	CHECK(clock_mono_ns() - start >= 9 * NS_PER_MS);
	CHECK(clock_mono_ns() - start < 30 * NS_PER_S);
	CHECK_EQ(loop_step(&l, 0), 0);
	loop_fini(&l);
}

TEST(loop_clocks_count_nanoseconds)
{
	uint64_t mono = clock_mono_ns();

	CHECK(clock_wall_ns() > UINT64_C(1700000000) * NS_PER_S);
	CHECK(clock_mono_ns() >= mono);
}
