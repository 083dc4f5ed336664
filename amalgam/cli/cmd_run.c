/* cmd_run.c - spore run: one sandbox with one container in it, from the command line.
 *
 * Attached, this process is the sandbox's supervisor: it forwards signals and window sizes, waits, and
 * exits with the command's status. Detached, a child of it is (see run_detached()). */
#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "amalgam/cli/cli.h"
#include "amalgam/cli/opt.h"
#include "amalgam/cli/run_rootfs.h"
#include "amalgam/cli/tty.h"
#include "amalgam/config/config.h"
#include "amalgam/runtime/default_spec.h"
#include "amalgam/runtime/network.h"
#include "amalgam/runtime/rundir.h"
#include "amalgam/wire/oci_spec.h"

#define RUN_COMMAND_MAX   60
#define RUN_INHERITED_MAX 1024
#define RUN_RESOLV_BYTES  65536
#define RUN_DNS_MAX       64

struct run_options {
	const char *rootfs, *block, *bundle, *name, *config, *cwd, *user, *net;
	bool terminal, detach, no_template, read_only, json_times, help;
	uint64_t memory, cpus;
	struct opt_list env;
	char **args;
};

struct run {
	struct run_options opt;
	struct config cfg;
	struct loop loop;
	struct sandbox sandbox;
	struct container container;
	struct rundir_state state;
	char *dir;              /* of the sandbox, heap; NULL until claimed */
	char socket[108];       /* agent.sock in it */
	int kvm_fd, console_fd, listen_fd;
	int signal_fd;
	struct watch signals;
	unsigned unanswered; /* signals on their way to the command */
	uint64_t asked_ns;   /* when the oldest of them was sent */
	int ended_by;        /* the signal that was meant for us; 0 = none */
	bool over;
	struct tty tty;
	struct container_stdio io;
	struct run_rootfs rootfs;
	struct network network;
	char *resolv, *dns[RUN_DNS_MAX]; /* a resolv.conf, and its lines; heap */
	size_t ndns;
	Grpc__Spec *spec;
	uint64_t start_ns;
};

static void run_tty_size(struct run *r)
{
	unsigned rows, cols;

	if (r->io.terminal && tty_size(&rows, &cols))
		agent_resize(&r->sandbox.agent, r->state.id, "", rows, cols);
}

/* The size the terminal has from its first moment. */
static void run_set_tty_size(struct run *r)
{
	Grpc__Process *p = r->spec->process;
	unsigned rows, cols;

	if (!r->io.terminal || !tty_size(&rows, &cols))
		return;
	if (!p->consolesize) {
		p->consolesize = mem_zalloc(sizeof *p->consolesize);
		grpc__box__init(p->consolesize);
	}
	p->consolesize->height = rows;
	p->consolesize->width = cols;
}

/* --- events --------------------------------------------------------------------------------------- */

static void run_done(void *arg)
{
	struct run *r = arg;

	r->over = true;
	loop_stop(&r->loop);
}

static void run_on_gone(void *arg, enum ctl_exit how, const char *why)
{
	struct run *r = arg;

	(void)how;
	(void)why;
	if (r->container.sandbox)
		container_on_gone(&r->container);
}

static void run_on_stream(void *arg, uint64_t cookie, enum hv_stream_event ev, int code)
{
	struct run *r = arg;

	(void)code;
	container_on_stream(&r->container, cookie, ev);
}

static void run_pass_on(struct run *r, int sig)
{
	r->asked_ns = r->unanswered ? r->asked_ns : clock_mono_ns();
	agent_send_signal(&r->sandbox.agent, r->state.id, "", sig, &r->unanswered);
}

/* Whoever waits for the machine hears that it ended. */
static void run_end_by(struct run *r, int sig)
{
	r->ended_by = sig;
	if (r->sandbox.vm.pid > 0)
		kill(r->sandbox.vm.pid, SIGKILL);
}

/* A signal goes to the command. Before there is one, or when the guest does not even take signals any
 * more, it is meant for us. */
static void run_on_signal(struct watch *w, uint32_t events)
{
	struct run *r = container_of(w, struct run, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(r->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
		return;
	if (info.ssi_signo == SIGWINCH)
		run_tty_size(r);
	else if (r->container.exited)
		return;
	else if (!r->sandbox.t.container_started ||
		 (r->unanswered && clock_mono_ns() - r->asked_ns > CLI_DEAF_NS))
		run_end_by(r, (int)info.ssi_signo);
	else
		run_pass_on(r, (int)info.ssi_signo);
}

static int run_watch_signals(struct run *r, struct err *e)
{
	static const int wanted[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH };
	sigset_t set;
	int err;

	sigemptyset(&set);
	for (unsigned i = 0; i < ARRAY_LEN(wanted); i++)
		sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r->signal_fd < 0)
		return err_set(e, -errno, "signalfd: %m");
	err = watch_start(&r->loop, &r->signals, r->signal_fd, EPOLLIN, run_on_signal);
	return err < 0 ? err_set(e, err, "signalfd: %s", strerror(-err)) : 0;
}

/* --- preparation: everything a person can get wrong is found before a machine exists --------------- */

static int run_open_root(struct run *r, struct err *e)
{
	if (r->opt.rootfs)
		return run_rootfs_dir(&r->rootfs, "--rootfs", r->opt.rootfs, r->opt.read_only, e);
	return run_rootfs_block(&r->rootfs, "--block", r->opt.block, r->opt.read_only, e);
}

static int run_open_bundle_root(struct run *r, struct err *e)
{
	const char *path = r->spec->root->path;
	AUTO_FREE char *root = *path == '/' ? mem_strdup(path) : mem_printf("%s/%s", r->opt.bundle, path);
	struct stat st;

	if (stat(root, &st) < 0)
		return err_set(e, -errno, "root.path %s: %m; give a directory or an image", root);
	if (S_ISDIR(st.st_mode))
		return run_rootfs_dir(&r->rootfs, "root.path", root, r->opt.read_only, e);
	return run_rootfs_block(&r->rootfs, "root.path", root, r->opt.read_only, e);
}

static int run_load_bundle(struct run *r, struct err *e)
{
	AUTO_FREE char *config = mem_printf("%s/config.json", r->opt.bundle);
	AUTO_BUF struct buf b = { 0 };
	int err = path_read(config, OCI_SPEC_MAX_BYTES, &b, e);

	if (err < 0)
		return err_wrap(e, "--bundle");
	r->spec = oci_spec_parse(b.data, b.len, e);
	if (!r->spec)
		return err_wrap(e, "%s", config);
	if (!r->spec->process)
		return err_set(e, -EINVAL, "%s: process: missing", config);
	if (!r->spec->root)
		return err_set(e, -EINVAL, "%s: root: missing", config);
	if (!r->spec->linux)
		return err_set(e, -EINVAL, "%s: linux: missing", config);
	if (r->spec->process->terminal && r->opt.detach)
		return err_set(e, -EINVAL, "%s: process.terminal: true excludes -d", config);
	r->io.terminal = r->spec->process->terminal;
	r->opt.read_only |= r->spec->root->readonly;
	if (binds_of_spec(&r->rootfs.shares, r->spec, r->opt.bundle, "volume", e) < 0)
		return err_wrap(e, "%s", config);
	if (r->opt.block || r->opt.rootfs)
		return run_open_root(r, e);
	err = run_open_bundle_root(r, e);
	return err < 0 ? err_wrap(e, "%s", config) : 0;
}

static void run_default_spec(struct run *r)
{
	char *env[CLI_ENV_MAX];
	struct default_spec d = { .args = r->opt.args, .env = env, .cwd = r->opt.cwd,
					.hostname = r->state.id, .terminal = r->opt.terminal,
					.resolv_conf = r->ndns,
					.read_only = r->rootfs.root.read_only };

	cli_env(&r->opt.env, r->opt.terminal, env);
	r->io.terminal = r->opt.terminal;
	r->spec = default_spec_make(&d);
}

static int run_check_options(struct run *r, struct err *e)
{
	const struct run_options *o = &r->opt;

	if (geteuid() != 0)
		return err_set(e, -EPERM, CLI_NEED_ROOT);
	if (!o->rootfs && !o->block && !o->bundle)
		return err_set(e, -EINVAL, "run: no root filesystem; give --rootfs DIR, --block FILE or "
			       "--bundle DIR");
	if (o->rootfs && o->block)
		return err_set(e, -EINVAL, "run: --rootfs and --block exclude each other");
	if (!o->bundle && !o->args[0])
		return err_set(e, -EINVAL, "run: no command; put it after --");
	if (o->bundle && (o->args[0] || o->env.n || o->cwd || o->terminal))
		return err_set(e, -EINVAL, "run: with --bundle the command, its environment, directory and "
			       "terminal are config.json's; change them there");
	if (o->terminal && o->detach)
		return err_set(e, -EINVAL, "run: -t and -d exclude each other");
	if (o->terminal && !isatty(0))
		return err_set(e, -EINVAL, "run: -t, but standard input is no terminal");
	if (cli_check_env(&o->env, o->cwd, e) < 0)
		return e->code;
	return o->name ? rundir_check_id(o->name, e) : 0;
}

/* The namespace's own resolv.conf (ip-netns(8)), or the host's. Without any the guest has none. */
static void run_read_dns(struct run *r)
{
	AUTO_FREE char *own = mem_printf("/etc/netns/%s/resolv.conf", r->opt.net);
	AUTO_BUF struct buf b = { 0 };
	char *save;

	if ((strchr(r->opt.net, '/') || path_read(own, RUN_RESOLV_BYTES, &b, NULL) < 0) &&
	    path_read("/etc/resolv.conf", RUN_RESOLV_BYTES, &b, NULL) < 0)
		return;
	r->resolv = buf_take_cstr(&b);
	for (char *line = strtok_r(r->resolv, "\n", &save); line && r->ndns < RUN_DNS_MAX;
	     line = strtok_r(NULL, "\n", &save))
		r->dns[r->ndns++] = line;
}

static int run_open_network(struct run *r, struct err *e)
{
	int fd;

	if (!r->opt.net || !strcmp(r->opt.net, "none"))
		return 0;
	r->network.rx_rate = (uint64_t)r->cfg.rx_rate_limiter_max_rate;
	r->network.tx_rate = (uint64_t)r->cfg.tx_rate_limiter_max_rate;
	r->network.no_vhost = r->cfg.disable_vhost_net;
	fd = net_find(r->opt.net, e);
	if (fd < 0 || network_open(&r->network, fd, e) < 0)
		return err_wrap(e, "--net");
	run_read_dns(r);
	return 0;
}

static int run_prepare(struct run *r, struct err *e)
{
	int err;

	if ((err = config_load(&r->cfg, r->opt.config, e)) < 0 || (err = run_check_options(r, e)) < 0)
		return err;
	if (r->opt.name)
		snprintf(r->state.id, sizeof r->state.id, "%s", r->opt.name);
	else
		rundir_make_id(r->state.id);
	if (r->opt.bundle)
		err = run_load_bundle(r, e);
	else
		err = run_open_root(r, e);
	if (err < 0)
		return err;
	if ((err = run_open_network(r, e)) < 0)
		return err;
	if (!r->spec)
		run_default_spec(r);
	run_set_tty_size(r);
	r->kvm_fd = cli_open_kvm(e);
	return r->kvm_fd < 0 ? r->kvm_fd : 0;
}

/* --- the sandbox's own files ------------------------------------------------------------------------ */

static int run_open_in_dir(struct run *r, const char *name, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/%s", r->dir, name);
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? err_set(e, -errno, "%s: %m", path) : fd;
}

/* The socket other commands reach this sandbox's guest through. */
static int run_listen(struct run *r, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof a.sun_path, "%s/agent.sock", r->dir);
	memcpy(r->socket, a.sun_path, sizeof r->socket);
	r->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (r->listen_fd < 0 || bind(r->listen_fd, (struct sockaddr *)&a, sizeof a) < 0 ||
	    listen(r->listen_fd, 16) < 0)
		return err_set(e, -errno, "%s: %m", a.sun_path);
	return 0;
}

static int run_save(struct run *r, enum rundir_status status, struct err *e)
{
	r->state.status = status;
	r->state.clone = r->sandbox.is_clone;
	r->state.vmm = r->sandbox.vm.pid;
	r->state.vmm_start = r->sandbox.vm.start_time;
	return rundir_save(r->dir, &r->state, e);
}

/* For people: the words of the command, as much as fits a line of `spore ps`. */
static char *run_command_line(const Grpc__Process *p)
{
	AUTO_BUF struct buf b = { 0 };

	for (size_t i = 0; i < p->n_args && b.len < RUN_COMMAND_MAX; i++)
		buf_printf(&b, "%s%.*s", i ? " " : "", RUN_COMMAND_MAX, p->args[i]);
	if (b.len > RUN_COMMAND_MAX) {
		b.len = RUN_COMMAND_MAX - 3;
		buf_add_str(&b, "...");
	}
	for (size_t i = 0; i < b.len; i++)
		if (b.data[i] < 0x20 || b.data[i] == 0x7f) /* nor may it talk to their terminal */
			b.data[i] = ' ';
	return mem_strdup(buf_cstr(&b));
}

static int run_claim(struct run *r, struct err *e)
{
	int err;

	if ((err = rundir_claim(r->state.id, &r->dir, e)) < 0)
		return err;
	r->state.supervisor = getpid();
	r->state.supervisor_start = proc_start_time(getpid());
	r->state.created_ns = clock_wall_ns();
	r->state.is_detached = r->opt.detach;
	r->state.command = run_command_line(r->spec->process);
	if ((err = run_save(r, RUNDIR_CREATING, e)) < 0 || (err = run_listen(r, e)) < 0)
		return err;
	r->console_fd = run_open_in_dir(r, "console.log", e);
	if (r->opt.detach && r->console_fd >= 0)
		r->io.out = r->io.err = run_open_in_dir(r, "output.log", e);
	return r->console_fd < 0 || (r->opt.detach && r->io.out < 0) ? e->code : 0;
}

/* --- life ----------------------------------------------------------------------------------------------- */

static int run_start(struct run *r, struct err *e)
{
	struct sandbox_disk disk = { r->rootfs.block_fd, r->rootfs.root.read_only };
	struct sandbox_events ev = { run_on_gone, run_on_stream, r };
	struct sandbox_spec spec = {
		.id = r->state.id,
		.hostname = *r->spec->hostname ? r->spec->hostname : NULL,
		.shape = template_default_shape(&r->cfg),
		.use_template = r->cfg.enable_template && !r->opt.no_template,
		.kvm_fd = r->kvm_fd,
		.console_fd = r->console_fd,
		.listen_fd = r->listen_fd,
		.disks = &disk,
		.ndisks = r->rootfs.block_fd >= 0,
		.shares = r->rootfs.shares.share,
		.nshares = r->rootfs.shares.n,
		.dns = r->dns,
		.ndns = r->ndns,
	};
	int err;

	if (r->opt.memory)
		spec.shape.mem_mib = r->opt.memory;
	if (r->opt.cpus)
		spec.shape.vcpus = (unsigned)r->opt.cpus;
	spec.shape.max_vcpus = MAX(spec.shape.max_vcpus, spec.shape.vcpus);
	if ((err = sandbox_start(&r->sandbox, &r->loop, &spec, &ev, e)) < 0 ||
	    (r->network.is_open && (err = network_sync_wait(&r->network, &r->sandbox, e)) < 0))
		return err;
	r->container.done = run_done;
	r->container.arg = r;
	r->rootfs.root.slot = r->sandbox.slot[0];
	r->container.user = r->opt.user;
	err = container_run(&r->container, &r->sandbox, r->state.id, r->spec, &r->rootfs.root,
			    &r->io, e);
	if (err < 0)
		return r->sandbox.gone ? err_set(e, err, "%s", r->sandbox.why) : err;
	run_tty_size(r);
	return run_save(r, RUNDIR_RUNNING, e);
}

static void run_print_times(const struct run *r)
{
	const struct sandbox_times *t = &r->sandbox.t;
	const struct {
		const char *name;
		uint64_t at;
	} rows[] = {
		{ "vmm_ready_us", t->vmm_ready },
		{ "state_loaded_us", t->state_loaded },
		{ "agent_answering_us", t->agent_answering },
		{ "container_started_us", t->container_started },
		{ "first_output_us", t->first_output },
		{ "exit_us", t->exit },
	};
	fprintf(stderr, "{\"clone\":%s", r->sandbox.is_clone ? "true" : "false");
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		if (rows[i].at)
			fprintf(stderr, ",\"%s\":%llu", rows[i].name,
				(unsigned long long)((rows[i].at - r->start_ns) / 1000));
	fprintf(stderr, "}\n");
}

/* Detached: the person who started us is waiting on the pipe. Their terminal is not ours any more. */
static void run_tell_started(struct run *r, int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char ok = 1;

	if (fd_write_full(fd, &ok, 1) < 0)
		log_warn("the command that started this sandbox is gone", KV("id", r->state.id));
	close(fd);
	for (int i = 0; null >= 0 && i < 3; i++)
		dup2(null, i);
	if (null >= 0)
		close(null);
}

/* keep: what a detached container left (exit code, output) stays until `spore rm`. */
static void run_stop(struct run *r, bool keep)
{
	struct err ignored = { 0 };

	/* The guest writes back what its filesystem still holds before its machine goes. */
	if (r->container.exited && !r->sandbox.gone)
		agent_remove_container(&r->sandbox.agent, r->state.id, &ignored);
	sandbox_stop(&r->sandbox);
	network_close(&r->network);
	tty_restore(&r->tty);
	r->state.exit_code = r->container.code;
	if (keep && run_save(r, RUNDIR_STOPPED, &ignored) == 0)
		unlink(r->socket);
	else if (r->dir)
		rundir_release(r->dir);
	rundir_sweep();
}

/* The agent's connection broke before the machine said why it ended: it will in a moment. A guest that
 * halts (there is no power to switch off) never does. */
static void run_await_end(struct run *r)
{
	uint64_t limit = clock_mono_ns() + 2 * NS_PER_S;

	if (r->sandbox.gone)
		return;
	snprintf(r->sandbox.why, sizeof r->sandbox.why,
		 "guest halted or hangs: its agent is gone; the machine was stopped");

	while (!r->sandbox.gone && clock_mono_ns() < limit)
		if (loop_step(&r->loop, 50) < 0)
			break;
}

/* From an event loop to the end of the container; the exit status. started is told once it runs. */
static int run_supervise(struct run *r, int started_fd)
{
	struct err e = { 0 };
	int err, code;

	if ((err = loop_init(&r->loop)) < 0)
		err_set(&e, err, "event loop: %s", strerror(-err));
	else if ((err = run_watch_signals(r, &e)) == 0 && (err = run_claim(r, &e)) == 0)
		err = run_start(r, &e);
	if (err == 0 && started_fd >= 0)
		run_tell_started(r, started_fd);
	if (err == 0 && !r->over)
		loop_run(&r->loop);
	if (err == 0 && r->container.lost)
		run_await_end(r);
	code = r->container.code;
	run_stop(r, err == 0 && r->opt.detach);
	if (r->ended_by)
		return 128 + r->ended_by;
	if (err < 0)
		return r->container.sandbox ? cli_start_failed(&e) : cli_fail(&e);
	if (r->sandbox.gone || r->container.lost)
		cli_complain(r->sandbox.why);
	if (r->opt.json_times)
		run_print_times(r);
	return code;
}

static int run_attached(struct run *r)
{
	r->io.in = tty_reopen(0, O_RDONLY);
	r->io.out = tty_reopen(1, O_WRONLY);
	r->io.err = tty_reopen(2, O_WRONLY);
	if (r->io.terminal)
		tty_raw(&r->tty);
	return run_supervise(r, -1);
}

static bool run_network_holds(const struct run *r, int fd)
{
	return r->network.is_open && (fd == r->network.net.ns_fd || fd == r->network.net.nl.fd);
}

/* The caller's directory and descriptors are not to be held for as long as the container lives. */
static void run_let_go(const struct run *r, int started_fd)
{
	for (int fd = 3; fd < RUN_INHERITED_MAX; fd++)
		if (fd != r->kvm_fd && fd != started_fd && !run_rootfs_holds(&r->rootfs, fd) &&
		    !run_network_holds(r, fd))
			close(fd);
	if (chdir("/") < 0)
		log_warn("cannot leave the directory", KV("reason", strerror(errno)));
}

/* The supervisor is a child in a session of its own. We wait until it says that the container runs,
 * or ends with the reason on our stderr and the exit status we are to have. */
static int run_detached(struct run *r)
{
	struct err e = { 0 };
	int pipe_fd[2], status;
	char ok;
	pid_t pid;

	if (pipe2(pipe_fd, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		err_set(&e, -errno, "detach: %m");
		return cli_fail(&e);
	}
	if (pid == 0) {
		close(pipe_fd[0]);
		setsid();
		run_let_go(r, pipe_fd[1]);
		r->io.in = r->io.out = r->io.err = -1;
		_exit(run_supervise(r, pipe_fd[1]));
	}
	close(pipe_fd[1]);
	if (fd_read_full(pipe_fd[0], &ok, 1) == 0) {
		puts(r->state.id);
		return 0;
	}
	status = proc_wait(pid);
	return status < 0 ? CLI_FAILED : proc_exit_code(status);
}

int cli_run(int argc, char **argv)
{
	struct run r = { .kvm_fd = -1, .rootfs.block_fd = -1, .console_fd = -1, .listen_fd = -1,
			 .start_ns = clock_mono_ns(), .sandbox.vm.ctl_fd = -1 };
	struct run_options *o = &r.opt;
	const struct opt table[] = {
		{ 0, "rootfs", OPT_STRING, &o->rootfs, "DIR", "root: a directory of this host", 0, 0 },
		{ 0, "block", OPT_STRING, &o->block, "FILE", "root: ext4/erofs image or block device", 0, 0 },
		{ 0, "bundle", OPT_STRING, &o->bundle, "DIR", "OCI bundle: run its config.json", 0, 0 },
		{ 'n', "name", OPT_STRING, &o->name, "ID", "name of the sandbox; default: made up", 0, 0 },
		{ 't', "terminal", OPT_FLAG, &o->terminal, NULL, "give the command a terminal", 0, 0 },
		{ 'd', "detach", OPT_FLAG, &o->detach, NULL, "run in the background; print the name", 0, 0 },
		{ 'm', "memory", OPT_NUMBER, &o->memory, "MIB", "memory of the machine", 64, 65536 },
		{ 'c', "cpus", OPT_NUMBER, &o->cpus, "N", "CPUs of the machine", 1, LAYOUT_MAX_VCPUS },
		{ 'e', "env", OPT_LIST, &o->env, "K=V", "environment variable; may be repeated", 0, 0 },
		{ 'w', "cwd", OPT_STRING, &o->cwd, "DIR", "working directory; default /", 0, 0 },
		{ 'u', "user", OPT_STRING, &o->user, "USER", "user[:group], by name or number", 0, 0 },
		{ 0, "net", OPT_STRING, &o->net, "NETNS", "network namespace; default none", 0, 0 },
		{ 0, "read-only", OPT_FLAG, &o->read_only, NULL, "do not write to the root filesystem", 0, 0 },
		{ 0, "no-template", OPT_FLAG, &o->no_template, NULL, "boot; never clone a template", 0, 0 },
		{ 0, "config", OPT_STRING, &o->config, "FILE", "configuration file", 0, 0 },
		{ 0, "json-times", OPT_FLAG, &o->json_times, NULL, "stage times on stderr at the end", 0, 0 },
		{ 'h', "help", OPT_FLAG, &o->help, NULL, "this text", 0, 0 },
		{ 0 },
	};
	struct err e = { 0 };
	int at = opt_parse(table, argc, argv, &e);

	if (at < 0)
		return cli_fail(&e);
	if (o->help) {
		printf("usage: spore run [options] -- COMMAND [ARGUMENT...]\n\n");
		opt_print(table, stdout);
		return 0;
	}
	o->args = argv + at;
	if (run_prepare(&r, &e) < 0)
		return cli_fail(&e);
	return o->detach ? run_detached(&r) : run_attached(&r);
}
