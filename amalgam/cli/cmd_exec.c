/* cmd_exec.c - spore exec: another process in a running container. */
#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/signalfd.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/cli/cli.h"
#include "amalgam/cli/opt.h"
#include "amalgam/cli/tty.h"
#include "amalgam/runtime/attach.h"
#include "amalgam/runtime/pump.h"

struct exec {
	struct target target;
	const char *id, *cwd, *user; /* id: the container's */
	char exec_id[24];
	bool terminal, help;
	struct opt_list env;
	char **args;

	struct loop loop;
	struct agent agent;
	struct tty tty;
	int signal_fd;
	struct watch signals;
	struct pump in, out, err;
	uint32_t ports[3];
	int stream[3];
	unsigned open_outputs;
	unsigned unanswered; /* signals on their way to the command */
	uint64_t asked_ns;   /* when the oldest of them was sent */
	bool exited;
	int code;
};

static void exec_settle(struct exec *x)
{
	if (x->exited && x->open_outputs == 0)
		loop_stop(&x->loop);
}

static void exec_on_exit(void *arg, int code)
{
	struct exec *x = arg;

	x->exited = true;
	x->code = code < 0 ? 137 : code;
	if (code < 0)
		x->open_outputs = 0;
	exec_settle(x);
}

static void exec_on_output_end(void *arg)
{
	struct exec *x = arg;

	x->open_outputs--;
	exec_settle(x);
}

static void exec_resize(struct exec *x)
{
	unsigned rows, cols;

	if (x->terminal && tty_size(&rows, &cols))
		agent_resize(&x->agent, x->id, x->exec_id, rows, cols);
}

static void exec_on_signal(struct watch *w, uint32_t events)
{
	struct exec *x = container_of(w, struct exec, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(x->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
		return;
	if (info.ssi_signo == SIGWINCH) {
		exec_resize(x);
	} else if (!x->exited && x->unanswered && clock_mono_ns() - x->asked_ns > CLI_DEAF_NS) {
		exec_on_exit(x, -ETIMEDOUT);
	} else if (!x->exited) {
		x->asked_ns = x->unanswered ? x->asked_ns : clock_mono_ns();
		agent_send_signal(&x->agent, x->id, x->exec_id, (int)info.ssi_signo, &x->unanswered);
	}
}

static int exec_dial_streams(struct exec *x, struct err *e)
{
	unsigned n = x->terminal ? 2 : 3;

	for (unsigned i = 0; i < n; i++) {
		x->stream[i] = attach_dial(x->target.sandbox, AGENT_PORT_STREAM, &x->ports[i], e);
		if (x->stream[i] < 0)
			return x->stream[i];
		fd_set_nonblock(x->stream[i], true);
	}
	return 0;
}

static int exec_request(struct exec *x, struct err *e)
{
	Grpc__ExecProcessRequest rq = GRPC__EXEC_PROCESS_REQUEST__INIT;
	Grpc__Process p = GRPC__PROCESS__INIT;
	Grpc__User root = GRPC__USER__INIT;
	Grpc__Box size = GRPC__BOX__INIT;
	Grpc__StringUser user = GRPC__STRING_USER__INIT;
	AUTO_FREE char *name = mem_strdup(x->user);
	char *env[CLI_ENV_MAX], *colon;

	cli_env(&x->env, x->terminal, env);
	p.args = x->args;
	while (p.args[p.n_args])
		p.n_args++;
	p.env = env;
	while (env[p.n_env])
		p.n_env++;
	p.cwd = (char *)(uintptr_t)(x->cwd ? x->cwd : "/");
	p.terminal = x->terminal;
	if (x->terminal && tty_size(&size.height, &size.width))
		p.consolesize = &size;
	p.user = &root;
	if (name) {
		colon = strchr(name, ':');
		if (colon) {
			*colon = '\0';
			user.gid = colon + 1;
		}
		user.uid = name;
		rq.string_user = &user;
	}
	rq.container_id = (char *)(uintptr_t)x->id;
	rq.exec_id = x->exec_id;
	rq.process = &p;
	rq.stdin_port = x->ports[0];
	rq.stdout_port = x->ports[1];
	rq.stderr_port = x->ports[2];
	return agent_exec(&x->agent, &rq, e);
}

static int exec_start_pumps(struct exec *x, struct err *e)
{
	int r;

	x->open_outputs = x->terminal ? 1 : 2;
	if ((r = pump_start(&x->out, &x->loop, x->stream[1], tty_reopen(1, O_WRONLY),
			    exec_on_output_end, x)) < 0 ||
	    (!x->terminal && (r = pump_start(&x->err, &x->loop, x->stream[2], tty_reopen(2, O_WRONLY),
					     exec_on_output_end, x)) < 0) ||
	    (r = pump_start(&x->in, &x->loop, tty_reopen(0, O_RDONLY), x->stream[0], NULL, NULL)) < 0)
		return err_set(e, r, "standard streams: %s", strerror(-r));
	return 0;
}

static int exec_watch_signals(struct exec *x, struct err *e)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	x->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (x->signal_fd < 0)
		return err_set(e, -errno, "signalfd: %m");
	r = watch_start(&x->loop, &x->signals, x->signal_fd, EPOLLIN, exec_on_signal);
	return r < 0 ? err_set(e, r, "signalfd: %s", strerror(-r)) : 0;
}

static int exec_start(struct exec *x, struct err *e)
{
	uint32_t tag = 0;
	int r;

	if (getrandom(&tag, sizeof tag, 0) < 0)
		return err_set(e, -errno, "getrandom: %m");
	snprintf(x->exec_id, sizeof x->exec_id, "exec-%08x", tag);
	if ((r = loop_init(&x->loop)) < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	if ((r = exec_watch_signals(x, e)) < 0 ||
	    (r = attach_agent(x->target.sandbox, &x->agent, &x->loop, e)) < 0 ||
	    (r = exec_dial_streams(x, e)) < 0)
		return r;
	if (x->terminal)
		tty_raw(&x->tty);
	if ((r = exec_request(x, e)) < 0 || (r = exec_start_pumps(x, e)) < 0)
		return r;
	exec_resize(x);
	agent_wait_process(&x->agent, x->id, x->exec_id, exec_on_exit, x);
	return 0;
}

int cli_exec(int argc, char **argv)
{
	static struct exec x; /* three pump buffers: large for a stack */
	const struct opt table[] = {
		{ 't', "terminal", OPT_FLAG, &x.terminal, NULL, "give the command a terminal", 0, 0 },
		{ 'e', "env", OPT_LIST, &x.env, "K=V", "environment variable; may be repeated", 0, 0 },
		{ 'w', "cwd", OPT_STRING, &x.cwd, "DIR", "working directory; default /", 0, 0 },
		{ 'u', "user", OPT_STRING, &x.user, "USER", "user[:group], by name or number", 0, 0 },
		{ 'h', "help", OPT_FLAG, &x.help, NULL, "this text", 0, 0 },
		{ 0 },
	};
	struct err e = { 0 };
	int at = opt_parse(table, argc, argv, &e), r;

	if (at >= 0 && x.help) {
		printf("usage: spore exec [options] NAME [--] COMMAND [ARGUMENT...]\n\n" CLI_NAME_HELP);
		opt_print(table, stdout);
		return 0;
	}
	if (at >= 0 && at < argc) {
		x.id = argv[at++];
		if (at < argc && !strcmp(argv[at], "--"))
			at++;
	}
	if (at >= 0 && at >= argc)
		at = err_set(&e, -EINVAL, "exec: give NAME and a command");
	if (at >= 0 && geteuid() != 0)
		at = err_set(&e, -EPERM, CLI_NEED_ROOT);
	if (at >= 0)
		at = cli_check_env(&x.env, x.cwd, &e) < 0 ? e.code : at;
	if (at < 0)
		return cli_fail(&e);
	if (x.terminal && !isatty(0)) {
		err_set(&e, -EINVAL, "exec: -t, but standard input is no terminal");
		return cli_fail(&e);
	}
	x.args = argv + at;
	if (target_find(x.id, &x.target, &e) < 0)
		return cli_fail(&e);
	x.id = x.target.container;
	r = exec_start(&x, &e);
	if (r == 0)
		loop_run(&x.loop);
	tty_restore(&x.tty);
	target_fini(&x.target);
	return r < 0 ? cli_start_failed(&e) : x.code;
}
