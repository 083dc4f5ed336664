#include "guest/agent/hooks.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/proc.h"
#include "amalgam/base/str.h"

static void ga_hooks_state(struct buf *b, const Grpc__Spec *spec, const char *id)
{
	buf_add_str(b, "{\"ociVersion\":");
	str_json(b, *spec->version ? spec->version : "1.0.2");
	buf_add_str(b, ",\"id\":");
	str_json(b, id);
	buf_printf(b, ",\"status\":\"created\",\"pid\":%d,\"bundle\":", getpid());
	str_json(b, "/");
	buf_add_str(b, ",\"annotations\":{");
	for (size_t i = 0; i < spec->n_annotations; i++) {
		buf_add_str(b, i ? "," : "");
		str_json(b, spec->annotations[i]->key);
		buf_add_str(b, ":");
		str_json(b, spec->annotations[i]->value);
	}
	buf_add_str(b, "}}");
}

/* NULL-terminated copy, as execve(2) wants it. */
static char **ga_hooks_words(char *const *words, size_t n)
{
	char **copy = mem_calloc(n + 1, sizeof *copy);

	if (n)
		memcpy(copy, words, n * sizeof *copy);
	return copy;
}

static NORETURN void ga_hooks_exec(const Grpc__Hook *h, int in, int out)
{
	char **args = h->n_args ? ga_hooks_words(h->args, h->n_args) : ga_hooks_words(&h->path, 1);
	char **env = ga_hooks_words(h->env, h->n_env);

	dup2(in, 0);
	dup2(out, 1);
	dup2(out, 2);
	fd_close_from(3);
	execve(h->path, args, env);
	_exit(127);
}

/* Wait for the end, at most timeout seconds (0 = for ever). Wait status, or -ETIMEDOUT. */
static int ga_hooks_wait(pid_t pid, int64_t timeout)
{
	AUTO_CLOSE int pidfd = proc_pidfd(pid);
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int ms = timeout <= 0 || timeout > INT_MAX / 1000 ? -1 : (int)timeout * 1000;

	if (pidfd >= 0 && poll(&p, 1, ms) == 0) {
		kill(pid, SIGKILL);
		(void)proc_wait(pid);
		return -ETIMEDOUT;
	}
	return proc_wait(pid);
}

static int ga_hooks_run_one(const Grpc__Hook *h, const struct buf *state, struct err *e)
{
	AUTO_CLOSE int in = fd_memfd("state"), out = open("/dev/null", O_RDWR | O_CLOEXEC);
	pid_t pid;
	int r;

	if (in < 0 || out < 0 || fd_pwrite_full(in, state->data, state->len, 0) < 0)
		return err_set(e, -EIO, "hook %s: %m", h->path);
	pid = fork();
	if (pid == 0)
		ga_hooks_exec(h, in, out);
	if (pid < 0)
		return err_set(e, -errno, "hook %s: fork: %m", h->path);
	r = ga_hooks_wait(pid, h->timeout);
	if (r == -ETIMEDOUT)
		return err_set(
			e, r, "error running startContainer hook: %s ran past its timeout of %llds",
			h->path, (long long)h->timeout);
	if (r != 0)
		return err_set(e, -ECHILD, "error running startContainer hook: %s: exit status %d",
			       h->path, r < 0 ? r : proc_exit_code(r));
	return 0;
}

int ga_hooks_run(const Grpc__Hooks *hooks, const Grpc__Spec *spec, const char *id, struct err *e)
{
	AUTO_BUF struct buf state = { 0 };

	if (!hooks || !hooks->n_startcontainer)
		return 0;
	if (hooks->n_startcontainer > GA_HOOKS_MAX)
		return err_set(e, -E2BIG, "more than %d startContainer hooks", GA_HOOKS_MAX);
	ga_hooks_state(&state, spec, id);
	for (size_t i = 0; i < hooks->n_startcontainer; i++)
		if (ga_hooks_run_one(hooks->startcontainer[i], &state, e) < 0)
			return e->code;
	return 0;
}
