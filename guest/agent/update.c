#include "guest/agent/update.h"

#include "amalgam/base/mem.h"
#include "guest/agent/agent.h"
#include "guest/agent/cgdev.h"
#include "guest/agent/container.h"
#include "guest/agent/dev.h"
#include "guest/agent/rpc.h"

#define GA_UPDATE_FREEZE_MS 5000

struct ga_update_freezing {
	struct ga_wait wait;
	struct ttrpc_call *call;
	struct ga_agent *agent;
	char *id; /* the container may be removed meanwhile */
	bool on;
};

static bool ga_update_is_frozen(struct ga_wait *w)
{
	struct ga_update_freezing *f = container_of(w, struct ga_update_freezing, wait);
	const struct ga_container *c = ga_container_find(f->agent, f->id, NULL);

	return !c || ga_cgroup_is_frozen(&c->cgroup, f->on);
}

static void ga_update_frozen(struct ga_wait *w, bool in_time)
{
	struct ga_update_freezing *f = container_of(w, struct ga_update_freezing, wait);

	if (in_time)
		ga_rpc_reply_empty(f->call);
	else
		ttrpc_fail(f->call, TTRPC_INTERNAL, "container \"%s\" was not %s within %d ms",
			   f->id, f->on ? "frozen" : "thawed", GA_UPDATE_FREEZE_MS);
	free(f->id);
	free(f);
}

void ga_update_freeze(struct ga_agent *a, struct ttrpc_call *call, const char *id, bool on)
{
	struct err e = { 0 };
	const struct ga_container *c = ga_container_find(a, id, &e);
	struct ga_update_freezing *f;

	if (c && c->state != GA_CONTAINER_RUNNING && c->state != GA_CONTAINER_CREATED)
		err_set(&e, -EBUSY, "container \"%s\" is not running", c->id);
	if (e.code < 0 || ga_cgroup_freeze(&c->cgroup, on, &e) < 0) {
		ttrpc_fail_err(call, &e);
		return;
	}
	f = mem_zalloc(sizeof *f);
	f->call = call;
	f->agent = a;
	f->id = mem_strdup(id);
	f->on = on;
	ga_wait_start(&a->loop, &f->wait, GA_UPDATE_FREEZE_MS, ga_update_is_frozen,
		      ga_update_frozen);
}

int ga_update_resources(struct ga_agent *a, const Grpc__UpdateContainerRequest *req, struct err *e)
{
	struct ga_container *c = ga_container_find(a, req->container_id, e);
	const Grpc__LinuxResources *r = req->resources;
	AUTO_FREE Grpc__LinuxDeviceCgroup **rules = NULL;
	size_t n;

	if (!c)
		return e->code;
	if (!c->cgroup.path)
		return err_set(e, -EBUSY, "container \"%s\" is not set up", c->id);
	if (!r)
		return 0;
	if (ga_cgroup_apply(&c->cgroup, r, e) < 0)
		return e->code;
	if (!r->n_devices)
		return 0;
	n = ga_dev_rules(r, NULL, 0, &rules);
	return ga_cgdev_attach(c->cgroup.fd, rules, n, &c->cgroup.dev_fd, e);
}
