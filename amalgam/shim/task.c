/* task.c - containerd.task.v2.Task, and v3, which is the same.
 *
 * What clients rely on beyond the messages: the error codes (NOT_FOUND makes kill and delete
 * idempotent), a pid that is never 0 once there is a machine, exits that are remembered until Delete. */
#include "amalgam/shim/shim.h"

#include <signal.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "amalgam/shim/stats.h"
#include "amalgam/wire/oci_spec.h"
#include "version.h"

#define TASK_MAX_PIDS 256  /* told of */
#define TASK_DRAIN_MS 2000 /* Delete waits this long for output that nobody reads */

/* Every handler begins like this: the shim, and the request as what it is. */
#define TASK_RPC(handler, type)                                                                \
	static void handler##_typed(struct shim *s, struct ttrpc_call *call, const type *rq);  \
	static void handler(struct ttrpc_call *call, const ProtobufCMessage *m)                \
	{                                                                                      \
		handler##_typed(shim_of(call), call, (const type *)(const void *)m);           \
	}                                                                                      \
	static void handler##_typed(struct shim *s, struct ttrpc_call *call, const type *rq)

static void task_reply_empty(struct ttrpc_call *call)
{
	Ctd__Empty r = CTD__EMPTY__INIT;

	ttrpc_reply(call, &r.base);
}

/* There is no answer, since there is no guest any more. */
static bool task_lost_guest(const struct ttrpc_result *res)
{
	return res->code == TTRPC_UNAVAILABLE || res->code == TTRPC_CANCELLED;
}

/* What the agent refused, in its own words and with its own code. What ended with its machine is not there:
 * clients pass over that in silence, and take UNAVAILABLE for the shim's. */
static void task_fail_with(struct ttrpc_call *call, const struct ttrpc_result *res)
{
	if (task_lost_guest(res))
		ttrpc_fail(call, TTRPC_NOT_FOUND, "the machine has ended: not found");
	else
		ttrpc_fail(call, res->code, "%s", res->message);
}

/* The agent's answer is the answer. */
static void task_relay(void *arg, const struct ttrpc_result *res)
{
	if (res->code == TTRPC_OK)
		task_reply_empty(arg);
	else
		task_fail_with(arg, res);
}

static struct agent *task_agent(struct shim *s)
{
	return &s->pod.sandbox.agent;
}

static Ctd__Timestamp *task_exit_time(const struct shim_proc *p, Ctd__Timestamp *t)
{
	*t = shim_timestamp(p->exited_ns);
	return p->status == CTD__STATUS__STOPPED ? t : NULL;
}

/* --- asking ----------------------------------------------------------------------------------- */

TASK_RPC(task_connect, Ctd__ConnectRequest)
{
	static char version[] = SPORE_VERSION;
	Ctd__ConnectResponse r = CTD__CONNECT_RESPONSE__INIT;

	r.shim_pid = (uint32_t)getpid();
	r.task_pid = shim_container_find(s, rq->id, NULL) ? shim_pid(s) : 0;
	r.version = version;
	ttrpc_reply(call, &r.base);
}

TASK_RPC(task_state, Ctd__StateRequest)
{
	struct shim_proc *p = shim_proc_find(s, rq->id, rq->exec_id, call);
	Ctd__StateResponse r = CTD__STATE_RESPONSE__INIT;
	Ctd__Timestamp t;

	if (!p)
		return;
	r.id = *p->exec_id ? p->exec_id : p->ctr->id;
	r.bundle = p->ctr->bundle;
	r.pid = shim_pid(s);
	r.status = shim_proc_status(p);
	r.stdin_path = p->in;
	r.stdout_path = p->out;
	r.stderr_path = p->err;
	r.terminal = p->terminal;
	r.exit_status = p->code;
	r.exited_at = task_exit_time(p, &t);
	ttrpc_reply(call, &r.base);
}

TASK_RPC(task_wait, Ctd__WaitRequest)
{
	struct shim_proc *p = shim_proc_find(s, rq->id, rq->exec_id, call);

	if (p)
		shim_proc_wait(p, call);
}

/* An exec among the processes: which it is. */
static void task_add_details(Ctd__ProcessInfo *info, Ctd__Any *any, const char *exec_id)
{
	static char type[] = "containerd.runc.v1.ProcessDetails";
	Ctd__ProcessDetails d = CTD__PROCESS_DETAILS__INIT;

	d.exec_id = (char *)(uintptr_t)exec_id;
	ctd__any__init(any);
	any->type_url = type;
	any->value.len = ctd__process_details__get_packed_size(&d);
	any->value.data = mem_zalloc(any->value.len);
	ctd__process_details__pack(&d, any->value.data);
	info->info = any;
}

/* The init and its execs. To the host all of them are one, the machine; what they start in turn is the
 * guest's to know. */
TASK_RPC(task_pids, Ctd__PidsRequest)
{
	struct shim_container *c = shim_container_find(s, rq->id, call);
	Ctd__PidsResponse r = CTD__PIDS_RESPONSE__INIT;
	Ctd__ProcessInfo info[TASK_MAX_PIDS], *all[TASK_MAX_PIDS];
	Ctd__Any details[TASK_MAX_PIDS];

	if (!c)
		return;
	for (struct shim_proc *p = &c->init; p && r.n_processes < TASK_MAX_PIDS;
	     p = p == &c->init ? c->execs : p->next) {
		size_t i = r.n_processes;
		if (p->status == CTD__STATUS__STOPPED || (p != &c->init && p->status != CTD__STATUS__RUNNING))
			continue;
		ctd__process_info__init(&info[i]);
		info[i].pid = shim_pid(s);
		all[r.n_processes++] = &info[i];
		if (p != &c->init)
			task_add_details(&info[i], &details[i], p->exec_id);
	}
	r.processes = all;
	ttrpc_reply(call, &r.base);
	for (size_t i = 0; i < r.n_processes; i++)
		if (info[i].info)
			free(info[i].info->value.data);
}

static void task_on_stats(void *arg, const struct ttrpc_result *res)
{
	struct ttrpc_call *call = arg;
	Ctd__StatsResponse r = CTD__STATS_RESPONSE__INIT;
	Ctd__Any any = CTD__ANY__INIT;

	if (res->code != TTRPC_OK) {
		task_fail_with(call, res);
		return;
	}
	shim_stats_pack((const Grpc__StatsContainerResponse *)res->response, hostcg_is_unified(), &any);
	r.stats = &any;
	ttrpc_reply(call, &r.base);
	free(any.value.data);
}

TASK_RPC(task_stats, Ctd__StatsRequest)
{
	struct shim_container *c = shim_container_find(s, rq->id, call);
	Grpc__StatsContainerRequest ask = GRPC__STATS_CONTAINER_REQUEST__INIT;

	if (!c)
		return;
	ask.container_id = c->id;
	agent_ask(task_agent(s), "StatsContainer", &ask, &grpc__stats_container_response__descriptor,
		  AGENT_LIMIT_NS, task_on_stats, call);
}

/* --- starting --------------------------------------------------------------------------------- */

/* A Start under way; what it starts may go before the guest has answered. */
struct task_start {
	struct ttrpc_call *call;
	struct shim_proc *p;
	bool asked; /* the guest, who has not answered yet */
};

void task_start_forget(struct shim_proc *p)
{
	struct task_start *op = take_ptr(&p->starting);

	if (op && op->asked) {
		op->p = NULL;
	} else if (op) { /* it waited for a logger or a hook, of which nobody will hear */
		shim_proc_not_found(p, op->call);
		free(op);
	}
}

static void task_on_forgotten(void *arg, int code)
{
	(void)arg;
	(void)code;
}

/* The agent keeps the name of a process until its end was asked for. */
static void task_forget_exec(struct shim_proc *p)
{
	agent_wait_process(task_agent(p->ctr->shim), p->ctr->id, p->exec_id, task_on_forgotten, NULL);
	shim_proc_failed(p);
}

static void task_started(struct task_start *op)
{
	struct shim_proc *p = op->p;
	Ctd__StartResponse r = CTD__START_RESPONSE__INIT;

	shim_proc_started(p);
	shim_proc_resize(p);
	r.pid = shim_pid(p->ctr->shim);
	ttrpc_reply(op->call, &r.base);
	free(op);
}

static void task_on_poststart(void *arg, const struct err *e)
{
	(void)e; /* told already */
	task_started(arg);
}

static void task_poststart(struct task_start *op)
{
	struct shim_container *c = op->p->ctr;
	const struct hooks_state st = { c->spec, c->id, c->bundle, (pid_t)shim_pid(c->shim) };

	hooks_begin(&c->hooks, &c->shim->loop, HOOKS_POSTSTART, &st, task_on_poststart, op);
}

static void task_not_started(struct task_start *op, const char *why)
{
	struct shim_proc *p = op->p;
	bool over = p->exited_ns; /* of a machine that ended meanwhile */

	p->starting = NULL;
	p->exited_ns = 0;
	ttrpc_fail(op->call, TTRPC_UNKNOWN, "%s", why);
	free(op);
	/* An exec that could not be started is over, and was never heard of. */
	if (*p->exec_id)
		task_forget_exec(p);
	else if (over)
		shim_proc_exited(p, p->code);
}

static void task_on_started(void *arg, const struct ttrpc_result *res)
{
	struct task_start *op = arg;
	struct shim_proc *p = op->p;

	op->asked = false;
	if (!p) {
		ttrpc_fail(op->call, TTRPC_NOT_FOUND, "the process is gone: not found");
		free(op);
	} else if (!*p->exec_id && (res->code == TTRPC_OK || !task_lost_guest(res))) {
		/* A program that the guest's kernel would not execute has started and ended all the same, as
		 * far as clients can tell: they do not clean up after a Start that fails. */
		if (res->code != TTRPC_OK)
			log_warn("not executed", KV("id", p->ctr->id), KV("reason", res->message));
		task_poststart(op);
	} else if (res->code != TTRPC_OK) {
		task_not_started(op, res->message);
	} else {
		process_watch(&p->run);
		task_started(op);
	}
}

static struct task_start *task_start_new(struct shim_proc *p, struct ttrpc_call *call)
{
	struct task_start *op = mem_zalloc(sizeof *op);

	*op = (struct task_start){ .call = call, .p = p };
	p->starting = op;
	return op;
}

static void task_on_networked(void *arg, const struct err *why)
{
	Grpc__StartContainerRequest ask = GRPC__START_CONTAINER_REQUEST__INIT;
	struct task_start *op = arg;

	if (!op->p || why->code < 0) {
		if (op->p)
			op->p->starting = NULL;
		ttrpc_fail(op->call, TTRPC_UNKNOWN, "%s", op->p ? why->msg : "process: not found");
		free(op);
		return;
	}
	ask.container_id = op->p->ctr->id;
	agent_ask(task_agent(op->p->ctr->shim), "StartContainer", &ask, &grpc__empty__descriptor,
		  AGENT_LIMIT_NS, task_on_started, op);
}

/* What came into the pod's network since Create (ctr --cni, hooks, Docker) is there from the first moment. */
static void task_start_init(struct shim_proc *p, struct ttrpc_call *call)
{
	struct task_start *op = task_start_new(p, call);
	struct shim *s = p->ctr->shim;
	struct err none = { 0 };

	op->asked = true;
	if (!strcmp(p->ctr->id, s->id))
		pod_sync_network(s, task_on_networked, op);
	else
		task_on_networked(op, &none);
}

static void task_exec_ready(void *arg, const struct err *why)
{ /* why NULL: ready */
	struct task_start *op = arg;
	struct shim_proc *p = op->p;
	Grpc__ExecProcessRequest ask = GRPC__EXEC_PROCESS_REQUEST__INIT;
	struct err e = why ? *why : (struct err){ 0 };

	if (e.code < 0 || shim_proc_connect(p, &e) < 0) {
		struct ttrpc_result no = { TTRPC_UNKNOWN, e.msg, NULL };
		task_on_started(op, &no);
		return;
	}
	ask.container_id = p->ctr->id;
	ask.exec_id = p->exec_id;
	ask.process = p->spec;
	ask.stdin_port = p->run.ports[0];
	ask.stdout_port = p->run.ports[1];
	ask.stderr_port = p->run.ports[2];
	op->asked = true;
	agent_ask(task_agent(p->ctr->shim), "ExecProcess", &ask, &grpc__empty__descriptor,
		  AGENT_LIMIT_NS, task_on_started, op);
}

static void task_start_exec(struct shim_proc *p, struct ttrpc_call *call)
{
	struct task_start *op = task_start_new(p, call);
	struct err e = { 0 };

	int r = shim_proc_open(p, task_exec_ready, op, &e);

	if (r <= 0)
		task_exec_ready(op, r < 0 ? &e : NULL);
}

TASK_RPC(task_start, Ctd__StartRequest)
{
	struct shim_proc *p = shim_proc_find(s, rq->id, rq->exec_id, call);
	struct shim_proc *init = p ? &p->ctr->init : NULL;

	if (!p)
		return;
	if (p->deleting || init->deleting) /* it would run while it is taken apart */
		shim_proc_not_found(p->deleting ? p : init, call);
	else if (p->ctr->creating || p->starting || p->status != CTD__STATUS__CREATED)
		ttrpc_fail(call, TTRPC_FAILED_PRECONDITION,
			   "process is not in state created: failed precondition");
	else if (p != init && init->status != CTD__STATUS__RUNNING)
		ttrpc_fail(call, TTRPC_FAILED_PRECONDITION, "container %s is not running: failed precondition",
			   p->ctr->id);
	else if (p == init)
		task_start_init(p, call);
	else
		task_start_exec(p, call);
}

static int task_add_exec(struct shim_container *c, const Ctd__ExecProcessRequest *rq, struct err *e)
{
	Grpc__Process *spec;
	struct shim_proc *p;

	if (!rq->spec)
		return err_set(e, -EINVAL, "exec %s has no process", rq->exec_id);
	spec = oci_process_parse(rq->spec->value.data, rq->spec->value.len, e);
	if (!spec)
		return err_wrap(e, "exec %s", rq->exec_id);
	p = shim_exec_new(c, rq->exec_id);
	p->spec = spec;
	p->terminal = rq->terminal;
	spec->terminal = rq->terminal;
	shim_proc_set_stdio(p, rq->stdin_path, rq->stdout_path, rq->stderr_path);
	return 0;
}

TASK_RPC(task_exec, Ctd__ExecProcessRequest)
{
	struct shim_container *c = shim_container_find(s, rq->id, call);
	Ctd__TaskExecAdded ev = CTD__TASK_EXEC_ADDED__INIT;
	struct err e = { 0 };

	if (!c)
		return;
	if (!*rq->exec_id || shim_proc_find(s, rq->id, rq->exec_id, NULL))
		ttrpc_fail(call, TTRPC_ALREADY_EXISTS, "id %s: already exists", rq->exec_id);
	else if (c->init.deleting)
		shim_proc_not_found(&c->init, call);
	else if (c->paused)
		ttrpc_fail(call, TTRPC_UNKNOWN, "cannot exec in a paused state");
	else if (c->init.status == CTD__STATUS__STOPPED)
		ttrpc_fail(call, TTRPC_UNKNOWN, "cannot exec in a stopped state");
	else if (task_add_exec(c, rq, &e) < 0)
		ttrpc_fail_err(call, &e);
	else {
		task_reply_empty(call);
		ev.container_id = c->id;
		ev.exec_id = rq->exec_id;
		shim_events_publish(&s->events, "/tasks/exec-added", "containerd.events.TaskExecAdded",
				    &ev.base);
	}
}

/* --- running ---------------------------------------------------------------------------------- */

/* An exec that was cut short has no state to be paused in: SIGKILL thaws (PROTOCOL.agent section 3). */
struct task_killing {
	struct ttrpc_call *call;
	struct shim *shim;
	char *thaws; /* the container that is not paused any more if the agent agrees, or NULL */
};

static void task_on_killed(void *arg, const struct ttrpc_result *res)
{
	struct task_killing *op = arg;
	struct shim_container *c = op->thaws ? shim_container_find(op->shim, op->thaws, NULL) : NULL;

	if (res->code == TTRPC_OK && c && c->paused) {
		c->paused = false;
		pod_note(op->shim);
	}
	if (res->code == TTRPC_OK)
		task_reply_empty(op->call);
	else if (res->code == TTRPC_NOT_FOUND || task_lost_guest(res))
		ttrpc_fail(op->call, TTRPC_NOT_FOUND, "process already finished: not found");
	else
		task_fail_with(op->call, res);
	free(op->thaws);
	free(op);
}

TASK_RPC(task_kill, Ctd__KillRequest)
{
	struct shim_proc *p = shim_proc_find(s, rq->id, rq->exec_id, call);
	Grpc__SignalProcessRequest ask = GRPC__SIGNAL_PROCESS_REQUEST__INIT;
	struct task_killing *op;

	if (!p)
		return;
	if (p->ctr->creating) {
		create_abort(p->ctr);
		task_reply_empty(call);
		return;
	}
	if (p->status == CTD__STATUS__STOPPED || p->exited_ns) {
		ttrpc_fail(call, TTRPC_NOT_FOUND, "process already finished: not found");
		return;
	}
	if (*p->exec_id && p->status == CTD__STATUS__CREATED) {
		ttrpc_fail(call, TTRPC_FAILED_PRECONDITION, "process not created: failed precondition");
		return;
	}
	op = mem_zalloc(sizeof *op);
	*op = (struct task_killing){ .call = call, .shim = s };
	/* The agent thaws a container that it kills, not one of whose execs it kills one. */
	if (!*p->exec_id && p->ctr->paused && rq->signal == SIGKILL)
		op->thaws = mem_strdup(p->ctr->id);
	ask.container_id = p->ctr->id;
	ask.exec_id = p->exec_id;
	ask.signal = rq->signal;
	ask.all = rq->all;
	agent_ask(task_agent(s), "SignalProcess", &ask, &grpc__empty__descriptor, AGENT_LIMIT_NS,
		  task_on_killed, op);
}

/* Pause freezes processes and leaves the machine running, also when nothing in it is left to run: what they
 * had written before may still be on its way out through the agent, and others than us talk to the guest,
 * through agent.sock. An idle machine costs next to nothing; one that stood still would keep both waiting. */
struct task_freeze {
	struct ttrpc_call *call;
	struct shim *shim; /* the call's connection may end before it does */
	char *id;
	bool pause;
};

static void task_publish_pause(struct shim *s, struct shim_container *c, bool pause)
{
	Ctd__TaskPaused paused = CTD__TASK_PAUSED__INIT;
	Ctd__TaskResumed resumed = CTD__TASK_RESUMED__INIT;

	paused.container_id = resumed.container_id = c->id;
	if (pause)
		shim_events_publish(&s->events, "/tasks/paused", "containerd.events.TaskPaused",
				    &paused.base);
	else
		shim_events_publish(&s->events, "/tasks/resumed", "containerd.events.TaskResumed",
				    &resumed.base);
}

static void task_on_frozen(void *arg, const struct ttrpc_result *res)
{
	struct task_freeze *op = arg;
	struct shim *s = op->shim;
	struct shim_container *c = shim_container_find(s, op->id, NULL);

	if (res->code == TTRPC_OK && c) {
		c->paused = op->pause && c->init.status == CTD__STATUS__RUNNING;
		pod_note(s);
		task_publish_pause(s, c, op->pause);
	}
	task_relay(op->call, res);
	free(op->id);
	free(op);
}

static void task_freeze(struct shim *s, struct ttrpc_call *call, const char *id, bool pause)
{
	struct shim_container *c = shim_container_find(s, id, call);
	Grpc__PauseContainerRequest ask = GRPC__PAUSE_CONTAINER_REQUEST__INIT;
	Grpc__ResumeContainerRequest thaw = GRPC__RESUME_CONTAINER_REQUEST__INIT;
	struct task_freeze *op;

	if (!c)
		return;
	if (c->init.status != CTD__STATUS__RUNNING || c->paused == pause) {
		ttrpc_fail(call, TTRPC_UNKNOWN, "cannot %s", pause ? "pause a paused container" :
								     "resume a running process");
		return;
	}
	op = mem_zalloc(sizeof *op);
	*op = (struct task_freeze){ call, s, mem_strdup(id), pause };
	ask.container_id = thaw.container_id = c->id;
	agent_ask(task_agent(s), pause ? "PauseContainer" : "ResumeContainer",
		  pause ? (const void *)&ask : (const void *)&thaw, &grpc__empty__descriptor,
		  AGENT_LIMIT_NS, task_on_frozen, op);
}

TASK_RPC(task_pause, Ctd__PauseRequest)
{
	task_freeze(s, call, rq->id, true);
}

TASK_RPC(task_resume, Ctd__ResumeRequest)
{
	task_freeze(s, call, rq->id, false);
}

TASK_RPC(task_resize, Ctd__ResizePtyRequest)
{
	struct shim_proc *p = shim_proc_find(s, rq->id, rq->exec_id, call);

	if (!p)
		return;
	p->rows = rq->height;
	p->cols = rq->width;
	shim_proc_resize(p);
	task_reply_empty(call);
}

TASK_RPC(task_close_io, Ctd__CloseIORequest)
{
	struct shim_proc *p = shim_proc_find(s, rq->id, rq->exec_id, call);

	if (!p)
		return;
	if (rq->in)
		shim_stdio_close_in(&p->io);
	task_reply_empty(call);
}

TASK_RPC(task_update, Ctd__UpdateTaskRequest)
{
	struct shim_container *c = shim_container_find(s, rq->id, call);
	Grpc__UpdateContainerRequest ask = GRPC__UPDATE_CONTAINER_REQUEST__INIT;
	struct err e = { 0 };

	if (!c)
		return;
	if (!rq->resources) {
		task_reply_empty(call);
		return;
	}
	ask.resources = oci_resources_parse(rq->resources->value.data, rq->resources->value.len, &e);
	if (!ask.resources) {
		ttrpc_fail_err(call, &e);
		return;
	}
	/* What a member of a pod is held to is the guest's business: the machine is all of theirs. */
	if (!strcmp(c->id, s->id))
		pod_limit(s, ask.resources);
	ask.container_id = c->id;
	agent_ask(task_agent(s), "UpdateContainer", &ask, &grpc__empty__descriptor, AGENT_LIMIT_NS,
		  task_relay, call);
	grpc__linux_resources__free_unpacked(ask.resources, NULL);
}

TASK_RPC(task_checkpoint, Ctd__CheckpointTaskRequest)
{
	(void)s;
	ttrpc_fail(call, TTRPC_UNIMPLEMENTED, "checkpoint of %s: not implemented", rq->id);
}

/* --- the end ---------------------------------------------------------------------------------- */

struct task_delete {
	struct ttrpc_call *call;
	struct shim_proc *p;
};

static void task_delete_reply(struct ttrpc_call *call, const struct shim_proc *p, uint32_t pid)
{
	Ctd__DeleteResponse r = CTD__DELETE_RESPONSE__INIT;
	Ctd__Timestamp t;

	r.pid = pid;
	r.exit_status = p->code;
	r.exited_at = task_exit_time(p, &t);
	ttrpc_reply(call, &r.base);
}

static void task_publish_delete(const struct shim_proc *p, uint32_t pid)
{
	Ctd__TaskDelete ev = CTD__TASK_DELETE__INIT;
	Ctd__Timestamp t = shim_timestamp(p->exited_ns);

	ev.container_id = ev.id = p->ctr->id;
	ev.pid = pid;
	ev.exit_status = p->code;
	ev.exited_at = &t;
	shim_events_publish(&p->ctr->shim->events, "/tasks/delete", "containerd.events.TaskDelete", &ev.base);
}

static void task_on_poststop(void *arg, const struct err *e)
{
	struct shim_container *c = arg;
	struct shim_proc *p = &c->init;
	struct ttrpc_call *call = take_ptr(&p->deleting);
	struct shim *s = c->shim;
	const uint32_t pid = shim_pid(s);

	(void)e; /* told already */
	task_publish_delete(p, pid);
	/* Unmounted before it is answered, forgotten after. */
	shim_container_unmount(c);
	task_delete_reply(call, p, pid);
	shim_container_free(c);
	pod_note(s);
	shim_maybe_end(s);
}

static bool task_was_last(const struct shim *s)
{
	for (const struct shim_container *c = s->containers; c; c = c->next)
		if (!c->removed)
			return false;
	return true;
}

/* The last of a container: nothing of it may be left on the host when the answer leaves, since its
 * snapshot is removed next. The last container takes the machine with it. */
static void task_delete_container(struct shim_container *c)
{
	struct shim *s = c->shim;
	const struct hooks_state st = { c->spec, c->id, c->bundle, 0 };

	create_undo(c);
	c->removed = true;
	if (task_was_last(s))
		pod_stop(s);
	hooks_begin(&c->hooks, &s->loop, HOOKS_POSTSTOP, &st, task_on_poststop, c);
}

static void task_delete_finish(struct shim_proc *p)
{
	timer_stop(&p->drain);
	if (*p->exec_id) {
		task_delete_reply(take_ptr(&p->deleting), p, shim_pid(p->ctr->shim));
		shim_exec_free(p);
	} else {
		task_delete_container(p->ctr);
	}
}

static void task_logger_over(void *arg)
{
	task_delete_finish(arg);
}

static void task_drained(struct timer *t)
{
	struct shim_proc *p = container_of(t, struct shim_proc, drain);

	p->draining = false;
	process_hang_up(&p->run);
	if (!shim_stdio_close(&p->io, task_logger_over, p))
		task_delete_finish(p);
}

void task_output_ended(struct shim_proc *p)
{
	if (p->deleting && p->draining)
		timer_start(&p->ctr->shim->loop, &p->drain, 0, task_drained); /* from the loop */
}

/* Output on its way is delivered first, unless nobody reads it. */
static void task_delete_drain(struct shim_proc *p)
{
	bool wait = process_has_output(&p->run);

	p->draining = true;
	timer_start(&p->ctr->shim->loop, &p->drain,
		    wait ? clock_mono_ns() + TASK_DRAIN_MS * NS_PER_MS : 0, task_drained);
}

static void task_on_removed(void *arg, const struct ttrpc_result *res)
{
	struct shim_proc *p = arg;

	if (res->code != TTRPC_OK && res->code != TTRPC_NOT_FOUND && !task_lost_guest(res))
		log_warn("the guest could not remove the container", KV("id", p->ctr->id),
			 KV("reason", res->message));
	p->ctr->in_guest = false;
	/* A container that was never started has no exit but this. */
	if (p->status != CTD__STATUS__STOPPED)
		shim_proc_exited(p, 137);
	task_delete_drain(p);
}

static void task_remove_from_guest(struct shim_proc *p)
{
	Grpc__RemoveContainerRequest ask = GRPC__REMOVE_CONTAINER_REQUEST__INIT;

	ask.container_id = p->ctr->id;
	ask.timeout = 10;
	agent_ask(task_agent(p->ctr->shim), "RemoveContainer", &ask, &grpc__empty__descriptor,
		  AGENT_LIMIT_NS, task_on_removed, p);
}

TASK_RPC(task_delete, Ctd__DeleteRequest)
{
	struct shim_proc *p = shim_proc_find(s, rq->id, rq->exec_id, call);

	if (!p)
		return;
	if (p->ctr->creating) {
		/* Whoever asked for it has gone: it will fail, and then there is nothing. */
		create_abort(p->ctr);
		ttrpc_fail(call, TTRPC_NOT_FOUND, "container %s: not found", rq->id);
	} else if (p->status == CTD__STATUS__RUNNING || p->starting) {
		ttrpc_fail(call, TTRPC_UNKNOWN, "cannot delete a running process");
	} else if (p->deleting) {
		shim_proc_not_found(p, call);
	} else {
		p->deleting = call;
		if (*p->exec_id || !p->ctr->in_guest)
			task_delete_drain(p);
		else
			task_remove_from_guest(p);
	}
}

TASK_RPC(task_shutdown, Ctd__ShutdownRequest)
{
	const struct shim_container *c = s->containers;

	(void)rq;
	task_reply_empty(call);
	/* Not while a container is alive; one that comes to nothing or goes is waited for. */
	s->shutdown = !c || c->creating || (c->removed && !c->next);
	shim_maybe_end(s);
}

/* --- the table -------------------------------------------------------------------------------- */

#define TASK_ROWS(service)                                                                         \
	{ service, "State", &ctd__state_request__descriptor, task_state },                         \
	{ service, "Create", &ctd__create_task_request__descriptor, task_create },                 \
	{ service, "Start", &ctd__start_request__descriptor, task_start },                         \
	{ service, "Delete", &ctd__delete_request__descriptor, task_delete },                      \
	{ service, "Pids", &ctd__pids_request__descriptor, task_pids },                            \
	{ service, "Pause", &ctd__pause_request__descriptor, task_pause },                         \
	{ service, "Resume", &ctd__resume_request__descriptor, task_resume },                      \
	{ service, "Checkpoint", &ctd__checkpoint_task_request__descriptor, task_checkpoint },     \
	{ service, "Kill", &ctd__kill_request__descriptor, task_kill },                            \
	{ service, "Exec", &ctd__exec_process_request__descriptor, task_exec },                    \
	{ service, "ResizePty", &ctd__resize_pty_request__descriptor, task_resize },               \
	{ service, "CloseIO", &ctd__close_iorequest__descriptor, task_close_io },                  \
	{ service, "Update", &ctd__update_task_request__descriptor, task_update },                 \
	{ service, "Wait", &ctd__wait_request__descriptor, task_wait },                            \
	{ service, "Stats", &ctd__stats_request__descriptor, task_stats },                         \
	{ service, "Connect", &ctd__connect_request__descriptor, task_connect },                   \
	{ service, "Shutdown", &ctd__shutdown_request__descriptor, task_shutdown }

const struct ttrpc_method *task_methods(size_t *n)
{
	static const struct ttrpc_method rows[] = {
		TASK_ROWS("containerd.task.v2.Task"),
		TASK_ROWS("containerd.task.v3.Task"),
	};
	*n = ARRAY_LEN(rows);
	return rows;
}
