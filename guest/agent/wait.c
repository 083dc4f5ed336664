#include "guest/agent/wait.h"

#include "amalgam/base/clock.h"

#define GA_WAIT_STEP_MIN_NS (1 * NS_PER_MS)
#define GA_WAIT_STEP_MAX_NS (20 * NS_PER_MS)

static void ga_wait_look(struct loop *l, struct ga_wait *w);

static void ga_wait_tick(struct timer *t)
{
	ga_wait_look(t->loop, container_of(t, struct ga_wait, timer));
}

static void ga_wait_look(struct loop *l, struct ga_wait *w)
{
	uint64_t now;

	if (w->poll(w)) {
		w->done(w, true);
		return;
	}
	now = clock_mono_ns();
	if (w->deadline_ns && now >= w->deadline_ns) {
		w->done(w, false);
		return;
	}
	timer_start(l, &w->timer, now + w->step_ns, ga_wait_tick);
	w->step_ns = MIN(w->step_ns * 2, GA_WAIT_STEP_MAX_NS);
}

void ga_wait_start(struct loop *l, struct ga_wait *w, uint64_t timeout_ms, ga_wait_poll_fn *poll,
		   ga_wait_done_fn *done)
{
	ga_wait_stop(w);
	w->deadline_ns = timeout_ms ? clock_mono_ns() + timeout_ms * NS_PER_MS : 0;
	w->step_ns = GA_WAIT_STEP_MIN_NS;
	w->poll = poll;
	w->done = done;
	ga_wait_look(l, w);
}

void ga_wait_stop(struct ga_wait *w)
{
	timer_stop(&w->timer);
}
