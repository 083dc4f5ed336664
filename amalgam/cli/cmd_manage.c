/* cmd_manage.c - the small commands: ps, kill, logs, pause, resume, rm, check. */
#include <fcntl.h>
#include <signal.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "amalgam/base/str.h"
#include "amalgam/cli/cli.h"
#include "amalgam/cli/opt.h"
#include "amalgam/runtime/attach.h"
#include "amalgam/runtime/rundir.h"
#include "amalgam/runtime/target.h"
#include "task.pb-c.h"
#include "vmm/ctl.h"

#define MANAGE_LOG_MAX	    MIB(64)
#define MANAGE_END_LIMIT_NS (5 * NS_PER_S)

struct manage {
	bool json, help, force;
	const char *id;
	const char *extra; /* a second word, where the command takes one */
};

/* What each command takes. */
static const struct manage_command {
	const char *name, *usage;
	int min, max; /* words besides options */
	bool json, force;
	const char *more; /* what --help says besides */
} manage_commands[] = {
	{ "ps", "ps [--json]", 0, 0, true, false, "" },
	{ "kill", "kill NAME [SIGNAL]", 1, 2, false, false, CLI_NAME_HELP },
	{ "pause", "pause NAME", 1, 1, false, false, CLI_NAME_HELP },
	{ "resume", "resume NAME", 1, 1, false, false, CLI_NAME_HELP },
	{ "logs", "logs NAME", 1, 1, false, false, CLI_NAME_HELP },
	{ "rm", "rm [--force] NAME", 1, 1, false, true, "NAME is a sandbox that is not containerd's.\n\n" },
	{ "check", "check [--json]", 0, 0, true, false, "" },
};

static const struct manage_command *manage_find(const char *name)
{
	const struct manage_command *c = manage_commands;

	while (strcmp(c->name, name))
		c++;
	return c; /* main.c knows no others */
}

/* Parse what argv[0] takes. 0 = go on, else the exit status is *status. */
static int manage_parse(struct manage *m, int argc, char **argv, int *status)
{
	const struct opt json = { 0, "json", OPT_FLAG, &m->json, NULL, "machine-readable output", 0, 0 };
	const struct opt force = { 'f', "force", OPT_FLAG, &m->force, NULL, "also when it is running",
				   0, 0 };
	const struct opt help = { 'h', "help", OPT_FLAG, &m->help, NULL, "this text", 0, 0 };
	const struct manage_command *c = manage_find(argv[0]);
	struct opt table[4] = { { 0 } };
	struct err e = { 0 };
	unsigned n = 0;
	int at;

	if (c->json)
		table[n++] = json;
	if (c->force)
		table[n++] = force;
	table[n++] = help;
	at = opt_parse(table, argc, argv, &e);
	*status = 0;
	if (at >= 0 && m->help) {
		printf("usage: spore %s\n\n%s", c->usage, c->more);
		opt_print(table, stdout);
		return 1;
	}
	if (at >= 0 && (argc - at < c->min || argc - at > c->max))
		at = err_set(&e, -EINVAL, "usage: spore %s", c->usage);
	if (at < 0) {
		*status = cli_fail(&e);
		return 1;
	}
	if (geteuid() != 0 && strcmp(argv[0], "check") != 0) { /* that one has its own way to say it */
		*status = cli_fail(&(struct err){ .code = -EPERM, .msg = CLI_NEED_ROOT });
		return 1;
	}
	m->id = at < argc ? argv[at] : NULL;
	m->extra = at + 1 < argc ? argv[at + 1] : NULL;
	return 0;
}

/* --- ps -------------------------------------------------------------------------------------------- */

struct manage_list {
	bool json, first;
};

static const char *manage_status(const struct rundir_state *st)
{
	if (st->status != RUNDIR_STOPPED && !rundir_is_live(st))
		return "dead"; /* its supervisor was killed */
	return rundir_status_name(st->status);
}

/* A sandbox of containerd's may have several containers, and their ids are not its name. */
static void manage_print_line(const struct rundir_state *st)
{
	uint64_t age_s = (clock_wall_ns() - st->created_ns) / NS_PER_S;
	char pid[16] = "-";

	if (st->vmm)
		snprintf(pid, sizeof pid, "%d", st->vmm);
	printf("%-16s %-9s %-8s %-6s %8llus  %s", st->id, manage_status(st), pid, st->clone ? "clone" : "boot",
	       (unsigned long long)age_s, st->command);
	for (unsigned i = 0; st->ns && i < st->ncontainers; i++)
		printf("%s%s %s", i ? ", " : " (", st->containers[i].id,
		       rundir_status_name(st->containers[i].status));
	puts(st->ns && st->ncontainers ? ")" : "");
}

static void manage_add_containers(struct buf *b, const struct rundir_state *st)
{
	buf_add_str(b, ",\"containers\":[");
	for (unsigned i = 0; i < st->ncontainers; i++) {
		buf_add_str(b, i ? ",{\"id\":" : "{\"id\":");
		str_json(b, st->containers[i].id);
		buf_printf(b, ",\"status\":\"%s\"}",
			   st->ns ? rundir_status_name(st->containers[i].status) : manage_status(st));
	}
	buf_add_str(b, "],\"namespace\":");
	if (st->ns)
		str_json(b, st->ns);
	else
		buf_add_str(b, "null");
}

static void manage_print(void *arg, const struct rundir_state *st)
{
	struct manage_list *l = arg;
	AUTO_BUF struct buf b = { 0 };

	if (!l->json) {
		manage_print_line(st);
		return;
	}
	buf_add_str(&b, l->first ? "" : ",");
	buf_add_str(&b, "{\"id\":");
	str_json(&b, st->id);
	buf_printf(&b, ",\"status\":\"%s\",\"pid\":%d,\"clone\":%s,\"created_ns\":%llu,\"exit_code\":%d,"
		   "\"command\":", manage_status(st), st->vmm, st->clone ? "true" : "false",
		   (unsigned long long)st->created_ns, st->exit_code);
	str_json(&b, st->command);
	manage_add_containers(&b, st);
	printf("%s}", buf_cstr(&b));
	l->first = false;
}

int cli_ps(int argc, char **argv)
{
	struct manage m = { 0 };
	struct manage_list l = { .first = true };
	int status;

	if (manage_parse(&m, argc, argv, &status))
		return status;
	l.json = m.json;
	rundir_sweep();
	if (l.json)
		printf("[");
	else
		printf("%-16s %-9s %-8s %-6s %9s  %s\n", "NAME", "STATUS", "PID", "MADE BY", "AGE",
		       "COMMAND");
	rundir_each(manage_print, &l);
	if (l.json)
		puts("]");
	return 0;
}

/* --- kill, pause, resume ----------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int sig;
} manage_signals[] = {
	{ "HUP", SIGHUP },   { "INT", SIGINT },   { "QUIT", SIGQUIT }, { "ABRT", SIGABRT },
	{ "KILL", SIGKILL }, { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "ALRM", SIGALRM },
	{ "TERM", SIGTERM }, { "CONT", SIGCONT }, { "STOP", SIGSTOP }, { "WINCH", SIGWINCH },
};

/* "9", "KILL" or "SIGKILL". 0 = no such signal. */
static int manage_signal(const char *name)
{
	uint64_t n;

	if (str_u64(name, 1, 64, &n) == 0)
		return (int)n;
	if (str_starts(name, "SIG"))
		name += 3;
	for (unsigned i = 0; i < ARRAY_LEN(manage_signals); i++)
		if (!strcmp(name, manage_signals[i].name))
			return manage_signals[i].sig;
	return 0;
}

enum manage_verb { MANAGE_KILL, MANAGE_PAUSE, MANAGE_RESUME };

static int manage_in_guest(const struct target *t, enum manage_verb verb, int sig, struct err *e)
{
	struct agent a = { 0 };
	struct loop l;
	int r = loop_init(&l);

	if (r < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	if ((r = attach_agent(t->sandbox, &a, &l, e)) == 0)
		r = verb == MANAGE_KILL ? agent_signal(&a, t->container, "", sig, e) :
					  agent_pause(&a, t->container, verb == MANAGE_PAUSE, e);
	agent_close(&a);
	loop_fini(&l);
	if (r == 0 && verb != MANAGE_KILL)
		r = rundir_set_paused(t->sandbox, verb == MANAGE_PAUSE, e);
	return r;
}

/* The shim keeps the state that containerd asks for, and tells it. */
static int manage_by_shim(const struct target *t, enum manage_verb verb, int sig, struct err *e)
{
	Ctd__KillRequest end = CTD__KILL_REQUEST__INIT;
	Ctd__PauseRequest pause = CTD__PAUSE_REQUEST__INIT;
	Ctd__ResumeRequest resume = CTD__RESUME_REQUEST__INIT;
	const struct {
		const char *method;
		const ProtobufCMessage *rq;
	} ask[] = {
		[MANAGE_KILL] = { "Kill", &end.base },
		[MANAGE_PAUSE] = { "Pause", &pause.base },
		[MANAGE_RESUME] = { "Resume", &resume.base },
	};

	end.id = pause.id = resume.id = t->container;
	end.signal = (uint32_t)sig;
	return attach_ask_shim(t, ask[verb].method, ask[verb].rq, e);
}

static int manage_do(const char *name, enum manage_verb verb, int sig, struct err *e)
{
	AUTO_TARGET struct target t = { 0 };

	if (target_find(name, &t, e) < 0)
		return e->code;
	return (t.ns ? manage_by_shim : manage_in_guest)(&t, verb, sig, e);
}

int cli_kill(int argc, char **argv)
{
	struct manage m = { 0 };
	struct err e = { 0 };
	int status, sig;

	if (manage_parse(&m, argc, argv, &status))
		return status;
	sig = manage_signal(m.extra ? m.extra : "KILL");
	if (!sig) {
		err_set(&e, -EINVAL, "kill: unknown signal %s; use a number or a name like TERM", m.extra);
		return cli_fail(&e);
	}
	return manage_do(m.id, MANAGE_KILL, sig, &e) < 0 ? cli_fail(&e) : 0;
}

static int manage_freeze(int argc, char **argv, enum manage_verb verb)
{
	struct manage m = { 0 };
	struct err e = { 0 };
	int status;

	if (manage_parse(&m, argc, argv, &status))
		return status;
	return manage_do(m.id, verb, 0, &e) < 0 ? cli_fail(&e) : 0;
}

int cli_pause(int argc, char **argv)
{
	return manage_freeze(argc, argv, MANAGE_PAUSE);
}

int cli_resume(int argc, char **argv)
{
	return manage_freeze(argc, argv, MANAGE_RESUME);
}

/* --- logs, rm ------------------------------------------------------------------------------------------ */

static int manage_no_log(const struct target *t, struct err *e)
{
	if (!t->ns)
		return err_set(e, -ENOENT, "sandbox \"%s\" is not detached; its output went to its terminal",
			       t->sandbox);
	return err_set(e, -ENOENT, "container \"%s\" is containerd's, and so is its output; for example: "
		       "ctr -n %s task attach %s", t->container, t->ns, t->container);
}

int cli_logs(int argc, char **argv)
{
	struct manage m = { 0 };
	AUTO_TARGET struct target t = { 0 };
	struct err e = { 0 };
	int status, r;

	if (manage_parse(&m, argc, argv, &status))
		return status;
	if (target_find(m.id, &t, &e) < 0)
		return cli_fail(&e);
	AUTO_FREE char *dir = rundir_path(t.sandbox);
	AUTO_FREE char *path = mem_printf("%s/output.log", dir);
	AUTO_BUF struct buf b = { 0 };
	r = path_read(path, MANAGE_LOG_MAX, &b, &e);
	if (r == -ENOENT)
		r = manage_no_log(&t, &e);
	if (r == 0 && (r = fd_write_full(1, b.data, b.len)) < 0)
		err_set(&e, r, "logs: %s", strerror(-r));
	return r < 0 ? cli_fail(&e) : 0;
}

/* Kill this very process; is it gone, or soon enough? */
static bool manage_end(pid_t pid, uint64_t start_time)
{
	uint64_t limit = clock_mono_ns() + MANAGE_END_LIMIT_NS;

	while (proc_alive(pid, start_time)) {
		if (clock_mono_ns() > limit)
			return false;
		kill(pid, SIGKILL);
		usleep(1000);
	}
	return true;
}

/* One of containerd's goes by containerd alone, which would not know; its id is enough to hear that. */
static int manage_load_own(const char *name, struct rundir_state *st, struct err *e)
{
	AUTO_TARGET struct target t = { 0 };
	int r = rundir_load(name, st, e);

	if ((r == -ENOENT || rundir_check_id(name, NULL) < 0) && (r = target_find(name, &t, e)) == 0)
		r = rundir_load(t.sandbox, st, e);
	if (r < 0 || !st->ns || !rundir_is_live(st))
		return r;
	r = err_set(e, -EPERM, "sandbox \"%s\" is containerd's; remove its containers there, for example: "
		    "ctr -n %s task rm --force %s", st->id, st->ns,
		    st->ncontainers ? st->containers[0].id : "ID");
	rundir_state_fini(st);
	return r;
}

int cli_rm(int argc, char **argv)
{
	struct manage m = { 0 };
	struct rundir_state st;
	struct err e = { 0 };
	int status;

	if (manage_parse(&m, argc, argv, &status))
		return status;
	if (manage_load_own(m.id, &st, &e) < 0)
		return cli_fail(&e);
	rundir_state_fini(&st);
	if (rundir_is_live(&st) && !m.force) {
		err_set(&e, -EBUSY, "sandbox \"%s\" is running; stop it with: spore kill %s, or use --force",
			m.id, m.id);
		return cli_fail(&e);
	}
	if (!manage_end(st.supervisor, st.supervisor_start) || !manage_end(st.vmm, st.vmm_start)) {
		err_set(&e, -EBUSY, "sandbox \"%s\": process %d or %d does not end; see what keeps it in "
			"the kernel", m.id, st.supervisor, st.vmm);
		return cli_fail(&e);
	}
	rundir_clear_dead(st.id, true);
	return 0;
}

/* --- check ----------------------------------------------------------------------------------------------- */

int cli_check(int argc, char **argv)
{
	struct manage m = { 0 };
	struct err e = { 0 };
	int status, kvm, r;

	if (manage_parse(&m, argc, argv, &status))
		return status;
	kvm = cli_open_kvm(&e);
	r = kvm < 0 ? kvm : vmm_selftest(kvm, &e);
	if (kvm >= 0)
		close(kvm);
	if (m.json) {
		AUTO_BUF struct buf b = { 0 };
		str_json(&b, e.msg);
		printf("{\"usable\":%s,\"reason\":%s}\n", r < 0 ? "false" : "true", buf_cstr(&b));
		return r < 0 ? 1 : 0;
	}
	if (r < 0)
		printf("this host cannot run spore's micro-VMs: %s\n", e.msg);
	else
		puts("this host can run spore's micro-VMs");
	return r < 0 ? 1 : 0;
}
