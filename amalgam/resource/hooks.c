#include "amalgam/resource/hooks.h"

#include <sys/wait.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"

#define HOOKS_MAX_WORDS 512 /* bytes of a hook's stderr that are looked at */

/* What tells the stages apart. */
static const struct hooks_row {
	const char *name, *status;
	bool fatal;
} hooks_rows[] = {
	[HOOKS_PRESTART] = { "prestart", "creating", true },
	[HOOKS_CREATE_RUNTIME] = { "createRuntime", "creating", true },
	[HOOKS_POSTSTART] = { "poststart", "running", false },
	[HOOKS_POSTSTOP] = { "poststop", "stopped", false },
};

static Grpc__Hook **hooks_list(enum hooks_stage stage, const Grpc__Hooks *h, size_t *n)
{
	switch (stage) {
	case HOOKS_PRESTART:
		*n = h->n_prestart;
		return h->prestart;
	case HOOKS_CREATE_RUNTIME:
		*n = h->n_createruntime;
		return h->createruntime;
	case HOOKS_POSTSTART:
		*n = h->n_poststart;
		return h->poststart;
	case HOOKS_POSTSTOP:
		*n = h->n_poststop;
		return h->poststop;
	}
	ASSERT(!"a stage that is not the host's");
}

static void hooks_json(struct buf *b, const struct hooks_state *s, const char *status)
{
	buf_add_str(b, "{\"ociVersion\":");
	str_json(b, s->spec->version);
	buf_add_str(b, ",\"id\":");
	str_json(b, s->id);
	buf_add_str(b, ",\"status\":");
	str_json(b, status);
	if (s->pid)
		buf_printf(b, ",\"pid\":%d", s->pid);
	buf_add_str(b, ",\"bundle\":");
	str_json(b, s->bundle);
	buf_add_str(b, ",\"annotations\":{");
	for (size_t i = 0; i < s->spec->n_annotations; i++) {
		buf_add_str(b, i ? "," : "");
		str_json(b, s->spec->annotations[i]->key);
		buf_add_str(b, ":");
		str_json(b, s->spec->annotations[i]->value);
	}
	buf_add_str(b, "}}");
}

/* NULL-terminated copy of a list, as execve(2) wants it; the strings are borrowed. */
static char **hooks_words(char **words, size_t n)
{
	char **copy = mem_calloc(n + 1, sizeof *copy);

	if (n)
		memcpy(copy, words, n * sizeof *copy);
	return copy;
}

/* How it ended, in words, behind "<stage> hook <path>: ". */
static int hooks_ended(const char *stage, const Grpc__Hook *h, int r, struct buf *words,
		       struct err *e)
{
	char line[200], how[64];

	if (r == 0)
		return 0;
	str_first_line(line, sizeof line, words->data, words->len);
	if (r == -ETIMEDOUT)
		snprintf(how, sizeof how, "killed after its timeout of %lld s",
			 (long long)h->timeout);
	else if (r < 0)
		snprintf(how, sizeof how, "%s", strerror(-r));
	else if (WIFSIGNALED(r))
		snprintf(how, sizeof how, "ended by signal %d", WTERMSIG(r));
	else
		snprintf(how, sizeof how, "exit status %d", WEXITSTATUS(r));
	return err_set(e, r < 0 ? r : -ECHILD, "%s hook %s: %s%s%s", stage, h->path, how,
		       *line ? ": " : "", line);
}

static void hooks_on_job(struct job *j, int r);

static int hooks_start(struct hooks *h, Grpc__Hook *hook, struct err *e)
{
	const char *stage = hooks_rows[h->stage].name;
	AUTO_FREE char **argv = hooks_words(hook->n_args ? hook->args : &hook->path,
					    hook->n_args ? hook->n_args : 1);
	AUTO_FREE char **env = hooks_words(hook->env, hook->n_env);
	const struct job_spec run = {
		.path = hook->path,
		.argv = argv,
		.env = env,
		.cwd = access(h->of.bundle, X_OK) == 0 ? h->of.bundle : "/",
		.in = h->state.data,
		.nin = h->state.len,
		.timeout_s = hook->timeout > 0 ? (uint64_t)hook->timeout : 0,
		.max_words = HOOKS_MAX_WORDS,
	};
	int r;

	if (*hook->path != '/')
		return err_set(e, -EINVAL, "%s hook \"%s\": the path must be absolute", stage,
			       hook->path);
	r = job_begin(&h->job, h->loop, &run, hooks_on_job);
	return hooks_ended(stage, hook, r, &h->job.words, e);
}

static void hooks_end(struct hooks *h, const struct err *why)
{
	struct err e = *why;

	hooks_fini(h);
	h->over(h->arg, &e);
}

static void hooks_given_up(struct hooks *h)
{
	struct err e = { 0 };

	err_set(&e, -ECANCELED, "%s hooks: given up", hooks_rows[h->stage].name);
	hooks_end(h, &e);
}

/* Does this failure leave the others to be run? */
static bool hooks_may_fail(const struct hooks *h, const struct err *why)
{
	if (h->stopped || hooks_rows[h->stage].fatal)
		return false;
	log_warn("hook failed", KV("container", h->of.id), KV("reason", why->msg));
	return true;
}

/* Until one runs, or none is left. */
static void hooks_go_on(struct hooks *h)
{
	struct err e = { 0 };
	Grpc__Hook **list;
	size_t n;

	list = hooks_list(h->stage, h->of.spec->hooks, &n);
	while (h->next < n) {
		if (hooks_start(h, list[h->next++], &e) == 0)
			return;
		if (!hooks_may_fail(h, &e))
			break;
		e = (struct err){ 0 };
	}
	hooks_end(h, &e);
}

static void hooks_on_job(struct job *j, int r)
{
	struct hooks *h = container_of(j, struct hooks, job);
	struct err e = { 0 };
	Grpc__Hook **list;
	size_t n;

	list = hooks_list(h->stage, h->of.spec->hooks, &n);
	hooks_ended(hooks_rows[h->stage].name, list[h->next - 1], r, &j->words, &e);
	job_fini(j);
	if (e.code == 0 ? !h->stopped : hooks_may_fail(h, &e))
		hooks_go_on(h);
	else if (h->stopped)
		hooks_given_up(h);
	else
		hooks_end(h, &e);
}

static void hooks_on_begin(struct timer *t)
{
	struct hooks *h = container_of(t, struct hooks, begin);

	if (h->stopped)
		hooks_given_up(h);
	else if (h->of.spec->hooks)
		hooks_go_on(h);
	else
		hooks_end(h, &(struct err){ 0 });
}

void hooks_begin(struct hooks *h, struct loop *l, enum hooks_stage stage, const struct hooks_state *of,
		 hooks_over_fn *over, void *arg)
{
	ASSERT(!h->active);
	*h = (struct hooks){ .active = true, .loop = l, .stage = stage, .of = *of, .over = over,
			     .arg = arg };
	hooks_json(&h->state, of, hooks_rows[stage].status);
	timer_start(l, &h->begin, 0, hooks_on_begin); /* over() comes from the loop */
}

void hooks_stop(struct hooks *h)
{
	if (!h->active)
		return;
	h->stopped = true;
	job_kill(&h->job, -ECANCELED);
}

void hooks_fini(struct hooks *h)
{
	if (!h->active)
		return;
	timer_stop(&h->begin);
	job_fini(&h->job);
	buf_fini(&h->state);
	h->active = false;
}
