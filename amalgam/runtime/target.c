#include "amalgam/runtime/target.h"

#include "amalgam/base/buf.h"
#include "amalgam/base/mem.h"

#define TARGET_LISTED 8 /* candidates that a message names */

/* Containers that a name may stand for, in one way of reading it. */
struct target_matches {
	unsigned n;
	struct target last;
	struct buf list; /* "SANDBOX/CONTAINER, ..." */
};

struct target_search {
	const char *name;
	char *sandbox;         /* what is before the slash; NULL: there is none */
	const char *container; /* and after it */
	bool has_sandbox;      /* one is called so */
	struct target_matches in_sandbox; /* its containers */
	struct target_matches exact;      /* SANDBOX/CONTAINER */
	struct target_matches by_id;      /* in any that runs */
};

void target_fini(struct target *t)
{
	free(take_ptr(&t->sandbox));
	free(take_ptr(&t->container));
	free(take_ptr(&t->ns));
	free(take_ptr(&t->shim));
}

static void target_match(struct target_matches *m, const struct rundir_state *st, const char *id)
{
	if (m->n < TARGET_LISTED)
		buf_printf(&m->list, "%s%s/%s", m->n ? ", " : "", st->id, id);
	else if (m->n == TARGET_LISTED)
		buf_add_str(&m->list, ", ...");
	m->n++;
	target_fini(&m->last);
	m->last = (struct target){ mem_strdup(st->id), mem_strdup(id), mem_strdup(st->ns),
				   mem_strdup(st->shim) };
}

static void target_look(void *arg, const struct rundir_state *st)
{
	struct target_search *s = arg;
	bool named = !strcmp(st->id, s->sandbox ? s->sandbox : s->name);

	s->has_sandbox |= named;
	for (unsigned i = 0; i < st->ncontainers; i++) {
		const char *id = st->containers[i].id;
		if (named)
			target_match(&s->in_sandbox, st, id);
		if (named && s->sandbox && !strcmp(id, s->container))
			target_match(&s->exact, st, id);
		if (!s->sandbox && !strcmp(id, s->name) && rundir_is_live(st))
			target_match(&s->by_id, st, id);
	}
}

static int target_none(struct target_search *s, struct err *e)
{
	if (s->sandbox && s->has_sandbox && s->in_sandbox.n)
		return err_set(e, -ENOENT, "sandbox \"%s\" has no container \"%s\"; it has %s", s->sandbox,
			       s->container, buf_cstr(&s->in_sandbox.list));
	if (s->has_sandbox)
		return err_set(e, -ENOENT, "sandbox \"%s\" has no container now; see: spore ps",
			       s->sandbox ? s->sandbox : s->name);
	if (s->sandbox)
		return err_set(e, -ENOENT, "no sandbox named \"%s\"; see: spore ps", s->sandbox);
	return err_set(e, -ENOENT, "no sandbox or container named \"%s\"; see: spore ps", s->name);
}

/* Take what was meant. */
static int target_decide(struct target_search *s, struct target *t, struct err *e)
{
	struct target_matches *m = s->sandbox ? &s->exact : s->has_sandbox ? &s->in_sandbox : &s->by_id;

	if (m->n == 0)
		return target_none(s, e);
	if (m->n > 1 && m == &s->by_id)
		return err_set(e, -ENOTUNIQ, "several sandboxes have a container \"%s\"; name one: %s", s->name,
			       buf_cstr(&m->list));
	if (m->n > 1)
		return err_set(e, -ENOTUNIQ, "sandbox \"%s\" has %u containers; name one: %s", s->name, m->n,
			       buf_cstr(&m->list));
	*t = m->last;
	m->last = (struct target){ 0 };
	return 0;
}

static void target_begin(struct target_search *s, const char *name)
{
	const char *slash = strchr(name, '/');

	*s = (struct target_search){ .name = name };
	if (!slash)
		return;
	s->sandbox = mem_printf("%.*s", (int)(slash - name), name);
	s->container = slash + 1;
}

static void target_end(struct target_search *s)
{
	struct target_matches *all[] = { &s->in_sandbox, &s->exact, &s->by_id };

	for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
		target_fini(&all[i]->last);
		buf_fini(&all[i]->list);
	}
	free(take_ptr(&s->sandbox));
}

int target_find(const char *name, struct target *t, struct err *e)
{
	struct target_search s;
	int r;

	*t = (struct target){ 0 };
	target_begin(&s, name);
	rundir_each(target_look, &s);
	r = target_decide(&s, t, e);
	target_end(&s);
	return r;
}
