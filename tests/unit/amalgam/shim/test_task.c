#include "amalgam/shim/shim.h"

#include <sys/socket.h>

#include "amalgam/base/mem.h"
#include "amalgam/runtime/agent.h"
#include "tests/unit/test.h"

/* A shim with a pod of two created containers, c1 and pod; a client of its Task service and the agent of
 * its guest on the same loop. */
struct ttask {
	struct shim shim;
	struct shim_conn *conn;
	struct ttrpc_conn *client, *agent;
	struct ttrpc_call *removing; /* RemoveContainer, which the agent has not answered */
	unsigned asked;              /* the agent for anything else */
};

struct ttask_answer {
	unsigned times;
	enum ttrpc_code code;
};

static void ttask_remove(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	(void)m;
	((struct ttask *)ttrpc_call_arg(call))->removing = call;
}

static void ttask_other(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	Grpc__Empty r = GRPC__EMPTY__INIT;

	(void)m;
	((struct ttask *)ttrpc_call_arg(call))->asked++;
	ttrpc_reply(call, &r.base);
}

static const struct ttrpc_method ttask_methods[] = {
	{ "grpc.AgentService", "RemoveContainer", &grpc__remove_container_request__descriptor, ttask_remove },
	{ "grpc.AgentService", "StartContainer", &grpc__start_container_request__descriptor, ttask_other },
	{ "grpc.AgentService", "ExecProcess", &grpc__exec_process_request__descriptor, ttask_other },
};

static void ttask_run(struct ttask *t)
{
	for (int i = 0; i < 20; i++)
		CHECK_EQ(loop_step(&t->shim.loop, 5), 0);
}

static struct shim_container *ttask_container(struct ttask *t, const char *id)
{
	struct shim_container *c = shim_container_new(&t->shim, id, "/", NULL);

	c->spec = mem_zalloc(sizeof *c->spec);
	grpc__spec__init(c->spec);
	c->in_guest = true;
	return c;
}

static void ttask_start(struct ttask *t)
{
	struct shim *s = &t->shim;
	const struct ttrpc_method *methods;
	int a[2], b[2];
	size_t n;

	*t = (struct ttask){ 0 };
	CHECK_EQ(loop_init(&s->loop), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
	shim_events_init(&s->events, &s->loop, "", "ns");
	s->id = mem_strdup("pod");
	s->pod.status = POD_UP;
	ttask_container(t, "pod");
	ttask_container(t, "c1");
	t->conn = mem_zalloc(sizeof *t->conn);
	t->conn->shim = s;
	s->conns = t->conn;
	methods = task_methods(&n);
	t->conn->conn = ttrpc_open(&s->loop, a[0], methods, n, shim_on_closed, t->conn, NULL);
	t->client = ttrpc_open(&s->loop, a[1], NULL, 0, NULL, NULL, NULL);
	t->agent = ttrpc_open(&s->loop, b[0], ttask_methods, ARRAY_LEN(ttask_methods), NULL, t, NULL);
	CHECK_EQ(agent_open(&s->pod.sandbox.agent, &s->loop, b[1], NULL), 0);
}

static void ttask_end(struct ttask *t)
{
	struct shim *s = &t->shim;

	agent_close(&s->pod.sandbox.agent);
	while (s->containers)
		shim_container_free(s->containers);
	ttrpc_close(t->client);
	ttrpc_close(t->agent);
	ttrpc_close(t->conn->conn);
	free(t->conn);
	free(s->id);
	shim_events_fini(&s->events);
	loop_fini(&s->loop);
}

static void ttask_answered(void *arg, const struct ttrpc_result *res)
{
	struct ttask_answer *a = arg;

	a->times++;
	a->code = res->code;
}

static void ttask_ask(struct ttask *t, const char *method, const void *rq,
		    const ProtobufCMessageDescriptor *type, struct ttask_answer *a)
{
	*a = (struct ttask_answer){ 0 };
	ttrpc_request(t->client, "containerd.task.v2.Task", method, rq, type, 0, ttask_answered, a);
	ttask_run(t);
}

TEST(task_what_is_being_deleted_is_neither_started_nor_given_an_exec)
{
	Ctd__DeleteRequest del = CTD__DELETE_REQUEST__INIT;
	Ctd__StartRequest start = CTD__START_REQUEST__INIT;
	Ctd__ExecProcessRequest exec = CTD__EXEC_PROCESS_REQUEST__INIT;
	Grpc__Empty empty = GRPC__EMPTY__INIT;
	struct ttask_answer deleted, a;
	char id[] = "c1", exec_id[] = "e";
	struct ttask t;

	ttask_start(&t);
	del.id = start.id = exec.id = id;
	exec.exec_id = exec_id;
	ttask_ask(&t, "Delete", &del, &ctd__delete_response__descriptor, &deleted);
	CHECK(t.removing && !deleted.times);
	ttask_ask(&t, "Start", &start, &ctd__start_response__descriptor, &a);
	CHECK_EQ(a.times, 1);
	CHECK_EQ(a.code, TTRPC_NOT_FOUND);
	ttask_ask(&t, "Exec", &exec, &ctd__empty__descriptor, &a);
	CHECK_EQ(a.code, TTRPC_NOT_FOUND);
	ttask_ask(&t, "Delete", &del, &ctd__delete_response__descriptor, &a);
	CHECK_EQ(a.code, TTRPC_NOT_FOUND);
	CHECK_EQ(t.asked, 0);
	ttrpc_reply(t.removing, &empty.base);
	ttask_run(&t);
	CHECK_EQ(deleted.times, 1);
	CHECK_EQ(deleted.code, TTRPC_OK);
	CHECK(!shim_container_find(&t.shim, "c1", NULL));
	ttask_end(&t);
}
