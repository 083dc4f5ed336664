#include "amalgam/shim/shim.h"

#include <fcntl.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/resource/mounts.h"

/* How long the exit of a container waits for those of its execs, which the guest's kernel has killed. */
#define SHIM_LAST_EXIT_MS 1000

/* --- records ---------------------------------------------------------------------------------- */

static void shim_proc_init(struct shim_proc *p, struct shim_container *c, const char *exec_id)
{
	*p = (struct shim_proc){ .ctr = c, .exec_id = mem_strdup(exec_id),
				 .status = CTD__STATUS__CREATED };
	shim_stdio_init(&p->io, &c->shim->loop);
	p->run.container = c->id;
	p->run.exec_id = p->exec_id;
}

static void shim_proc_fini(struct shim_proc *p)
{
	struct shim_wait *w;

	/* One that never ran has no exit to wait for. */
	while ((w = p->waits)) {
		p->waits = w->next;
		shim_proc_not_found(p, w->call);
		free(w);
	}
	if (p->deleting)
		shim_proc_not_found(p, take_ptr(&p->deleting));
	timer_stop(&p->drain);
	task_start_forget(p);
	process_forget(&p->run);
	shim_stdio_fini(&p->io);
	if (p->spec)
		grpc__process__free_unpacked(p->spec, NULL);
	free(p->exec_id);
	free(p->in);
	free(p->out);
	free(p->err);
}

struct shim_container *shim_container_new(struct shim *s, const char *id, const char *bundle,
					  struct shim_create *op)
{
	struct shim_container *c = mem_zalloc(sizeof *c);

	c->shim = s;
	c->id = mem_strdup(id);
	c->bundle = mem_strdup(bundle);
	c->creating = op;
	shim_proc_init(&c->init, c, "");
	c->next = s->containers;
	s->containers = c;
	return c;
}

void shim_container_unmount(struct shim_container *c)
{
	AUTO_FREE char *rootfs = mem_printf("%s/rootfs", c->bundle);
	struct err e = { 0 };

	if (c->mounted && res_unmount_all(rootfs, &e) < 0)
		log_warn("root filesystem not unmounted", KV("id", c->id), KV("reason", e.msg));
	c->mounted = false;
}

void shim_container_free(struct shim_container *c)
{
	struct shim_container **at = &c->shim->containers;

	hooks_fini(&c->hooks);
	while (c->execs)
		shim_exec_free(c->execs);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	timer_stop(&c->last_exit);
	shim_proc_fini(&c->init);
	shim_container_unmount(c);
	if (c->spec)
		grpc__spec__free_unpacked(c->spec, NULL);
	free(c->id);
	free(c->bundle);
	free(c);
}

struct shim_container *shim_container_find(struct shim *s, const char *id, struct ttrpc_call *call)
{
	for (struct shim_container *c = s->containers; c; c = c->next)
		if (!strcmp(c->id, id))
			return c;
	if (call)
		ttrpc_fail(call, TTRPC_NOT_FOUND, "container %s: not found", id);
	return NULL;
}

struct shim_proc *shim_proc_find(struct shim *s, const char *id, const char *exec_id,
				 struct ttrpc_call *call)
{
	struct shim_container *c = shim_container_find(s, id, call);

	if (!c)
		return NULL;
	if (!*exec_id)
		return &c->init;
	for (struct shim_proc *p = c->execs; p; p = p->next)
		if (!strcmp(p->exec_id, exec_id))
			return p;
	if (call)
		ttrpc_fail(call, TTRPC_NOT_FOUND, "process does not exist %s: not found", exec_id);
	return NULL;
}

void shim_proc_not_found(const struct shim_proc *p, struct ttrpc_call *call)
{
	if (*p->exec_id)
		ttrpc_fail(call, TTRPC_NOT_FOUND, "process does not exist %s: not found", p->exec_id);
	else
		ttrpc_fail(call, TTRPC_NOT_FOUND, "container %s: not found", p->ctr->id);
}

struct shim_proc *shim_exec_new(struct shim_container *c, const char *exec_id)
{
	struct shim_proc *p = mem_zalloc(sizeof *p), **at = &c->execs;

	shim_proc_init(p, c, exec_id);
	while (*at)
		at = &(*at)->next;
	*at = p;
	return p;
}

void shim_exec_free(struct shim_proc *p)
{
	struct shim_proc **at = &p->ctr->execs;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	shim_proc_fini(p);
	free(p);
}

uint32_t shim_pid(const struct shim *s)
{
	return s->pod.status == POD_NONE ? 0 : (uint32_t)s->pod.state.vmm;
}

Ctd__Status shim_proc_status(const struct shim_proc *p)
{
	if (p->status == CTD__STATUS__RUNNING && p->ctr->paused)
		return CTD__STATUS__PAUSED;
	return p->status;
}

/* --- exits ------------------------------------------------------------------------------------ */

static void shim_answer_wait(const struct shim_proc *p, struct ttrpc_call *call)
{
	Ctd__WaitResponse r = CTD__WAIT_RESPONSE__INIT;
	Ctd__Timestamp t = shim_timestamp(p->exited_ns);

	r.exit_status = p->code;
	r.exited_at = &t;
	ttrpc_reply(call, &r.base);
}

void shim_proc_wait(struct shim_proc *p, struct ttrpc_call *call)
{
	struct shim_wait *w;

	if (p->status == CTD__STATUS__STOPPED) {
		shim_answer_wait(p, call);
		return;
	}
	w = mem_zalloc(sizeof *w);
	*w = (struct shim_wait){ call, p->waits };
	p->waits = w;
}

static void shim_publish_exit(const struct shim_proc *p)
{
	struct shim *s = p->ctr->shim;
	Ctd__TaskExit ev = CTD__TASK_EXIT__INIT;
	Ctd__Timestamp t = shim_timestamp(p->exited_ns);

	ev.container_id = p->ctr->id;
	ev.id = *p->exec_id ? p->exec_id : p->ctr->id;
	ev.pid = shim_pid(s);
	ev.exit_status = p->code;
	ev.exited_at = &t;
	shim_events_publish(&s->events, "/tasks/exit", "containerd.events.TaskExit", &ev.base);
}

static void shim_answer_waits(struct shim_proc *p)
{
	struct shim_wait *w;

	while ((w = p->waits)) {
		p->waits = w->next;
		shim_answer_wait(p, w->call);
		free(w);
	}
}

static void shim_tell_exit(struct shim_proc *p)
{
	p->status = CTD__STATUS__STOPPED;
	if (!*p->exec_id)
		pod_note(p->ctr->shim);
	shim_stdio_close_in(&p->io);
	shim_publish_exit(p);
	shim_answer_waits(p);
}

void shim_proc_failed(struct shim_proc *p)
{
	process_forget(&p->run);
	shim_stdio_fini(&p->io);
	p->status = CTD__STATUS__STOPPED;
	p->code = 255;
	p->exited_ns = clock_wall_ns();
	shim_answer_waits(p);
}

static bool shim_has_running_execs(const struct shim_container *c)
{
	for (const struct shim_proc *p = c->execs; p; p = p->next)
		if (p->status == CTD__STATUS__RUNNING || p->starting)
			return true;
	return false;
}

/* The init is the last of its container, whatever order the guest's answers came in. */
static void shim_last_exit(struct timer *t)
{
	struct shim_container *c = container_of(t, struct shim_container, last_exit);

	for (struct shim_proc *p = c->execs; p; p = p->next)
		if (p->status == CTD__STATUS__RUNNING && !p->starting)
			shim_proc_exited(p, 137);
	timer_stop(&c->last_exit);
	if (c->init.status != CTD__STATUS__STOPPED)
		shim_tell_exit(&c->init);
}

void shim_proc_exited(struct shim_proc *p, uint32_t code)
{
	struct shim_container *c = p->ctr;

	/* What ends before it was created was never there. */
	if (c->creating || p->status == CTD__STATUS__STOPPED || p->exited_ns)
		return;
	p->code = code;
	p->exited_ns = clock_wall_ns();
	if (p->starting)
		return; /* shim_proc_started() tells */
	if (p == &c->init && shim_has_running_execs(c)) {
		timer_start(&c->shim->loop, &c->last_exit,
			    clock_mono_ns() + SHIM_LAST_EXIT_MS * NS_PER_MS, shim_last_exit);
		return;
	}
	shim_tell_exit(p);
	if (p != &c->init && c->init.exited_ns && c->last_exit.active && !shim_has_running_execs(c))
		shim_last_exit(&c->last_exit);
}

static void shim_publish_start(const struct shim_proc *p)
{
	struct shim *s = p->ctr->shim;
	Ctd__TaskStart init = CTD__TASK_START__INIT;
	Ctd__TaskExecStarted exec = CTD__TASK_EXEC_STARTED__INIT;

	init.container_id = exec.container_id = p->ctr->id;
	init.pid = exec.pid = shim_pid(s);
	exec.exec_id = p->exec_id;
	if (*p->exec_id)
		shim_events_publish(&s->events, "/tasks/exec-started",
				    "containerd.events.TaskExecStarted", &exec.base);
	else
		shim_events_publish(&s->events, "/tasks/start", "containerd.events.TaskStart", &init.base);
}

void shim_proc_started(struct shim_proc *p)
{
	bool over = p->exited_ns; /* it has come to its end already */

	p->starting = NULL;
	p->status = CTD__STATUS__RUNNING;
	if (!*p->exec_id)
		pod_note(p->ctr->shim);
	shim_publish_start(p);
	p->exited_ns = 0;
	if (over)
		shim_proc_exited(p, p->code);
}

/* --- what the guest says ---------------------------------------------------------------------- */

static void shim_on_exit(struct process *run)
{
	struct shim_proc *p = container_of(run, struct shim_proc, run);

	shim_proc_exited(p, (uint32_t)run->code);
}

/* The machine process has let go of its end, and so readers have seen theirs. */
static void shim_on_output_end(struct process *run)
{
	struct shim_proc *p = container_of(run, struct shim_proc, run);

	task_output_ended(p);
}

void shim_proc_set_stdio(struct shim_proc *p, const char *in, const char *out, const char *err)
{
	p->in = mem_strdup(in);
	p->out = mem_strdup(out);
	p->err = mem_strdup(err);
}

int shim_proc_open(struct shim_proc *p, shim_logger_ready_fn *ready, void *arg, struct err *e)
{
	struct shim *s = p->ctr->shim;
	const struct shim_stdio_spec spec = { p->in, p->out, p->err, p->terminal, p->ctr->bundle,
					      *p->exec_id ? p->exec_id : p->ctr->id, s->ns };

	return shim_stdio_open(&p->io, &s->loop, &spec, ready, arg, e);
}

void shim_proc_resize(struct shim_proc *p)
{
	if (p->terminal && p->rows && p->cols && p->status == CTD__STATUS__RUNNING)
		agent_resize(&p->ctr->shim->pod.sandbox.agent, p->ctr->id, p->exec_id, p->rows, p->cols);
}

/* A stream that containerd does not name is /dev/null: an end of input, and output that nobody has to
 * read. */
int shim_proc_connect(struct shim_proc *p, struct err *e)
{
	struct shim_pod *pod = &p->ctr->shim->pod;
	AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const struct container_stdio io = { p->io.in_fd >= 0 ? p->io.in_fd : null,
					    p->io.out_fd >= 0 ? p->io.out_fd : null,
					    p->io.err_fd >= 0 ? p->io.err_fd : null, p->terminal };
	int r;

	p->run.on_exit = shim_on_exit;
	p->run.on_output_end = shim_on_output_end;
	r = process_connect(&p->run, &pod->sandbox, pod->cookies += PROCESS_STREAMS, &io, e);
	shim_stdio_drop_ours(&p->io);
	return r;
}
