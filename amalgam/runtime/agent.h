/* agent.h - typed calls into the guest: grpc.AgentService and grpc.Health (wire/PROTOCOL.agent).
 *
 * One ttRPC connection over one stream. Calls wait for their answer by running the loop, so signals,
 * machine events and other streams go on meanwhile; agent_wait_process() alone comes back by callback.
 * When the connection ends every call fails with -ECONNRESET or the like. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/base/err.h"
#include "amalgam/base/loop.h"
#include "amalgam/wire/ttrpc.h"

#define AGENT_PORT        1024
#define AGENT_PORT_STREAM 1027

/* How long a call may take; creating containers waits for disks and mounts. */
#define AGENT_LIMIT_NS (60 * UINT64_C(1000000000))

struct agent {
	struct ttrpc_conn *conn; /* NULL after it ended */
	struct loop *loop;
};

/* Speak over fd (taken). */
INTERNAL MUST_USE int agent_open(struct agent *a, struct loop *l, int fd, struct err *e);
INTERNAL void agent_close(struct agent *a);

/* Is it there and serving? */
INTERNAL MUST_USE int agent_check(struct agent *a, uint64_t timeout_ns, struct err *e);

INTERNAL MUST_USE int agent_create_container(struct agent *a,
					     const Grpc__CreateContainerRequest *rq, struct err *e);
INTERNAL MUST_USE int agent_start_container(struct agent *a, const char *id, struct err *e);
INTERNAL int agent_remove_container(struct agent *a, const char *id, struct err *e);
INTERNAL MUST_USE int agent_exec(struct agent *a, const Grpc__ExecProcessRequest *rq, struct err *e);
INTERNAL int agent_signal(struct agent *a, const char *id, const char *exec_id, int sig,
				   struct err *e);
INTERNAL MUST_USE int agent_pause(struct agent *a, const char *id, bool pause, struct err *e);

/* Any call of AgentService, without waiting: done is called once, from the loop, or at once when the agent
 * is gone already. timeout_ns 0 = as long as it takes. */
INTERNAL void agent_ask(struct agent *a, const char *method, const void *rq,
			const ProtobufCMessageDescriptor *answer, uint64_t timeout_ns, ttrpc_done_fn *done,
			void *arg);

/* The usual ones, for callbacks of the loop. *unanswered counts the signals whose delivery the
 * guest has not confirmed; it must outlive the connection. A size that cannot be set is no matter. */
INTERNAL void agent_send_signal(struct agent *a, const char *id, const char *exec_id, int sig,
				unsigned *unanswered);
INTERNAL void agent_resize(struct agent *a, const char *id, const char *exec_id, unsigned rows,
			   unsigned cols);

/* done(arg, code): the exit code 0..255, or -errno when nobody will ever know. */
typedef void agent_exit_fn(void *arg, int code);
INTERNAL void agent_wait_process(struct agent *a, const char *id, const char *exec_id,
				 agent_exit_fn *done, void *arg);
