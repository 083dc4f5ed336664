#include "amalgam/runtime/agent.h"

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "health.pb-c.h"

#define AGENT_SERVICE "grpc.AgentService"
#define AGENT_HEALTH  "grpc.Health"

static void agent_on_closed(void *arg, const char *reason)
{
	struct agent *a = arg;

	(void)reason; /* calls under way have failed with it */
	a->conn = NULL;
}

int agent_open(struct agent *a, struct loop *l, int fd, struct err *e)
{
	a->loop = l;
	a->conn = ttrpc_open(l, fd, NULL, 0, agent_on_closed, a, e);
	return a->conn ? 0 : e->code;
}

void agent_close(struct agent *a)
{
	struct ttrpc_conn *c = take_ptr(&a->conn);

	if (c)
		ttrpc_close(c);
}

static int agent_call(struct agent *a, const char *service, const char *method,
		      const ProtobufCMessage *rq, const ProtobufCMessageDescriptor *answer,
		      uint64_t timeout_ns, ProtobufCMessage **out, struct err *e)
{
	struct err local = { 0 };

	e = e ? e : &local;
	if (!a->conn)
		return err_set(e, -ENOTCONN, "the guest's agent is gone");
	if (ttrpc_request_wait(a->conn, service, method, rq, answer, timeout_ns, out, e) == TTRPC_OK)
		return 0;
	return e->code < 0 ? e->code : err_set(e, -EIO, "%s failed", method);
}

/* The common case: AgentService, an Empty answer, the usual limit. */
static int agent_do(struct agent *a, const char *method, const void *rq, struct err *e)
{
	return agent_call(a, AGENT_SERVICE, method, rq, &grpc__empty__descriptor,
			  AGENT_LIMIT_NS, NULL, e);
}

/* protobuf-c wants char * for strings it only reads. */
static char *agent_str(const char *s)
{
	return (char *)(uintptr_t)s;
}

int agent_check(struct agent *a, uint64_t timeout_ns, struct err *e)
{
	Grpc__CheckRequest rq = GRPC__CHECK_REQUEST__INIT;

	return agent_call(a, AGENT_HEALTH, "Check", &rq.base, &grpc__health_check_response__descriptor,
			  timeout_ns, NULL, e);
}

int agent_create_container(struct agent *a, const Grpc__CreateContainerRequest *rq, struct err *e)
{
	return agent_do(a, "CreateContainer", rq, e);
}

int agent_start_container(struct agent *a, const char *id, struct err *e)
{
	Grpc__StartContainerRequest rq = GRPC__START_CONTAINER_REQUEST__INIT;

	rq.container_id = agent_str(id);
	return agent_do(a, "StartContainer", &rq, e);
}

int agent_remove_container(struct agent *a, const char *id, struct err *e)
{
	Grpc__RemoveContainerRequest rq = GRPC__REMOVE_CONTAINER_REQUEST__INIT;

	rq.container_id = agent_str(id);
	rq.timeout = 10;
	return agent_do(a, "RemoveContainer", &rq, e);
}

int agent_exec(struct agent *a, const Grpc__ExecProcessRequest *rq, struct err *e)
{
	return agent_do(a, "ExecProcess", rq, e);
}

int agent_signal(struct agent *a, const char *id, const char *exec_id, int sig, struct err *e)
{
	Grpc__SignalProcessRequest rq = GRPC__SIGNAL_PROCESS_REQUEST__INIT;

	rq.container_id = agent_str(id);
	rq.exec_id = agent_str(exec_id);
	rq.signal = (uint32_t)sig;
	return agent_do(a, "SignalProcess", &rq, e);
}

void agent_ask(struct agent *a, const char *method, const void *rq,
	       const ProtobufCMessageDescriptor *answer, uint64_t timeout_ns, ttrpc_done_fn *done, void *arg)
{
	const struct ttrpc_result gone = { TTRPC_UNAVAILABLE, "the guest's agent is gone", NULL };

	if (a->conn)
		ttrpc_request(a->conn, AGENT_SERVICE, method, rq, answer, timeout_ns, done, arg);
	else
		done(arg, &gone);
}

/* For callbacks of the event loop, which must not wait. */
static void agent_tell(struct agent *a, const char *method, const void *rq, ttrpc_done_fn *done, void *arg)
{
	if (a->conn)
		agent_ask(a, method, rq, &grpc__empty__descriptor, AGENT_LIMIT_NS, done, arg);
}

static void agent_on_told(void *arg, const struct ttrpc_result *r)
{
	unsigned *unanswered = arg;

	(void)r; /* the process may have ended meanwhile */
	if (unanswered)
		(*unanswered)--;
}

void agent_send_signal(struct agent *a, const char *id, const char *exec_id, int sig, unsigned *unanswered)
{
	Grpc__SignalProcessRequest rq = GRPC__SIGNAL_PROCESS_REQUEST__INIT;

	rq.container_id = agent_str(id);
	rq.exec_id = agent_str(exec_id);
	rq.signal = (uint32_t)sig;
	if (a->conn)
		(*unanswered)++;
	agent_tell(a, "SignalProcess", &rq, agent_on_told, unanswered);
}

void agent_resize(struct agent *a, const char *id, const char *exec_id, unsigned rows, unsigned cols)
{
	Grpc__TtyWinResizeRequest rq = GRPC__TTY_WIN_RESIZE_REQUEST__INIT;

	rq.container_id = agent_str(id);
	rq.exec_id = agent_str(exec_id);
	rq.row = rows;
	rq.column = cols;
	agent_tell(a, "TtyWinResize", &rq, agent_on_told, NULL);
}

int agent_pause(struct agent *a, const char *id, bool pause, struct err *e)
{
	Grpc__PauseContainerRequest p = GRPC__PAUSE_CONTAINER_REQUEST__INIT;
	Grpc__ResumeContainerRequest r = GRPC__RESUME_CONTAINER_REQUEST__INIT;

	p.container_id = r.container_id = agent_str(id);
	return pause ? agent_do(a, "PauseContainer", &p, e) : agent_do(a, "ResumeContainer", &r, e);
}

struct agent_wait {
	agent_exit_fn *done;
	void *arg;
};

static void agent_on_wait(void *arg, const struct ttrpc_result *res)
{
	struct agent_wait w = *(struct agent_wait *)arg;
	int code = -ECONNRESET;

	free(arg);
	if (res->code == TTRPC_OK)
		code = ((const Grpc__WaitProcessResponse *)res->response)->status & 0xff;
	w.done(w.arg, code);
}

void agent_wait_process(struct agent *a, const char *id, const char *exec_id, agent_exit_fn *done,
			void *arg)
{
	Grpc__WaitProcessRequest rq = GRPC__WAIT_PROCESS_REQUEST__INIT;
	struct agent_wait *w;

	if (!a->conn) {
		done(arg, -ENOTCONN);
		return;
	}
	w = mem_zalloc(sizeof *w);
	*w = (struct agent_wait){ done, arg };
	rq.container_id = agent_str(id);
	rq.exec_id = agent_str(exec_id);
	ttrpc_request(a->conn, AGENT_SERVICE, "WaitProcess", &rq.base,
		      &grpc__wait_process_response__descriptor, 0, agent_on_wait, w);
}
