#include "guest/agent/oom.h"

#include <fcntl.h>

#include "agent.pb-c.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "guest/agent/container.h"

struct ga_oom_watch {
	struct ga_oom_watch *next;
	struct ga_oom *oom;
	struct ga_container *ctr;
	struct watch watch;
	int fd;
	uint64_t kills;
};

struct ga_oom_asker {
	struct ga_oom_asker *next;
	struct ga_oom *oom;
	struct ttrpc_call *call;
};

static struct ttrpc_call *ga_oom_drop_asker(struct ga_oom_asker *k)
{
	struct ga_oom_asker **at = &k->oom->askers;
	struct ttrpc_call *call = k->call;

	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	free(k);
	return call;
}

/* The connection has ended: an event must not be told to nobody. */
static void ga_oom_asker_gone(void *arg)
{
	ttrpc_fail(ga_oom_drop_asker(arg), TTRPC_CANCELLED, "connection ended");
}

static void ga_oom_tell(struct ttrpc_call *call, char *id)
{
	Grpc__OOMEvent r = GRPC__OOMEVENT__INIT;

	r.container_id = id;
	ttrpc_reply(call, &r.base);
}

static char *ga_oom_take_kept(struct ga_oom *o)
{
	char *id = o->kept[0];

	memmove(o->kept, o->kept + 1, --o->n_kept * sizeof o->kept[0]);
	return id;
}

/* The one who has waited longest gets it, or it is kept for the next; the oldest goes when full. */
static void ga_oom_event(struct ga_oom *o, char *id)
{
	if (o->askers) {
		ga_oom_tell(ga_oom_drop_asker(o->askers), id);
		return;
	}
	if (o->n_kept == GA_OOM_MAX)
		free(ga_oom_take_kept(o));
	o->kept[o->n_kept++] = mem_strdup(id);
}

static void ga_oom_look(struct ga_oom_watch *w)
{
	uint64_t kills;
	char drop[256];

	/* Reading through the watched descriptor is what arms it again; first, so that a kill
	 * between the two reads is counted now or announced again. */
	(void)!pread(w->fd, drop, sizeof drop, 0);
	kills = ga_cgroup_keyed(&w->ctr->cgroup, "memory.events", "oom_kill");
	for (; w->kills < kills; w->kills++) {
		w->ctr->oom_killed = true;
		log_warn("out of memory kill", KV("container", w->ctr->id));
		ga_oom_event(w->oom, w->ctr->id);
	}
}

static void ga_oom_on_event(struct watch *w, uint32_t events)
{
	(void)events;
	ga_oom_look(container_of(w, struct ga_oom_watch, watch));
}

static struct ga_oom_watch *ga_oom_find(struct ga_oom *o, const struct ga_container *c)
{
	struct ga_oom_watch *w = o->watches;

	while (w && w->ctr != c)
		w = w->next;
	return w;
}

void ga_oom_watch(struct ga_oom *o, struct ga_container *c)
{
	int fd = openat(c->cgroup.fd, "memory.events", O_RDONLY | O_CLOEXEC);
	struct ga_oom_watch *w;

	if (fd < 0 || ga_oom_find(o, c)) {
		if (fd >= 0)
			close(fd);
		return; /* a kernel without the memory controller */
	}
	w = mem_zalloc(sizeof *w);
	w->oom = o;
	w->ctr = c;
	w->fd = fd;
	w->next = o->watches;
	o->watches = w;
	if (watch_start(o->loop, &w->watch, fd, EPOLLPRI, ga_oom_on_event) < 0)
		log_warn("memory events are not watched", KV("container", c->id));
	ga_oom_look(w);
}

void ga_oom_check(struct ga_oom *o, struct ga_container *c)
{
	struct ga_oom_watch *w = ga_oom_find(o, c);

	if (w)
		ga_oom_look(w);
}

void ga_oom_unwatch(struct ga_oom *o, struct ga_container *c)
{
	for (struct ga_oom_watch **at = &o->watches; *at; at = &(*at)->next) {
		struct ga_oom_watch *w = *at;
		if (w->ctr != c)
			continue;
		*at = w->next;
		watch_stop(&w->watch);
		close(w->fd);
		free(w);
		return;
	}
}

void ga_oom_ask(struct ga_oom *o, struct ttrpc_call *call)
{
	struct ga_oom_asker *k, **at = &o->askers;

	if (o->n_kept) {
		AUTO_FREE char *id = ga_oom_take_kept(o);
		ga_oom_tell(call, id);
		return;
	}
	k = mem_zalloc(sizeof *k);
	k->oom = o;
	k->call = call;
	while (*at)
		at = &(*at)->next;
	*at = k;
	ttrpc_call_on_gone(call, ga_oom_asker_gone, k);
}
