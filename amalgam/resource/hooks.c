#include "amalgam/resource/hooks.h"

#include <sys/wait.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/proc.h"
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

static int hooks_run_one(const char *stage, Grpc__Hook *h, const char *bundle,
			 const struct buf *state, struct err *e)
{
	AUTO_FREE char **argv =
		hooks_words(h->n_args ? h->args : &h->path, h->n_args ? h->n_args : 1);
	AUTO_FREE char **env = hooks_words(h->env, h->n_env);
	AUTO_BUF struct buf words = { 0 };
	struct proc_run run = {
		.path = h->path,
		.argv = argv,
		.env = env,
		.cwd = access(bundle, X_OK) == 0 ? bundle : "/",
		.in = state->data,
		.nin = state->len,
		.timeout_s = h->timeout > 0 ? (uint64_t)h->timeout : 0,
	};

	if (*h->path != '/')
		return err_set(e, -EINVAL, "%s hook \"%s\": the path must be absolute", stage,
			       h->path);
	return hooks_ended(stage, h, proc_run(&run, &words, HOOKS_MAX_WORDS), &words, e);
}

int hooks_run(enum hooks_stage stage, const struct hooks_state *s, struct err *e)
{
	const struct hooks_row *row = &hooks_rows[stage];
	AUTO_BUF struct buf state = { 0 };
	Grpc__Hook **list;
	size_t n;

	if (!s->spec->hooks)
		return 0;
	list = hooks_list(stage, s->spec->hooks, &n);
	hooks_json(&state, s, row->status);
	for (size_t i = 0; i < n; i++) {
		struct err why = { 0 };
		if (hooks_run_one(row->name, list[i], s->bundle, &state, &why) == 0)
			continue;
		if (row->fatal)
			return err_set(e, why.code, "%s", why.msg);
		log_warn("hook failed", KV("container", s->id), KV("reason", why.msg));
	}
	return 0;
}
