/* ttrpc_rig.h - for the tests of ttrpc.c: a served connection, and a client or a bare socket at its
 * other end. */
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include "agent.pb-c.h"
#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/wire/ttrpc.h"
#include "health.pb-c.h"
#include "tests/unit/test.h"

/* Two ends of one socket in one loop: `server` serves trpc_methods, `client` asks. */
struct trpc {
	struct loop loop;
	struct ttrpc_conn *client, *server;
	int server_closed, client_closed;
	char reason[64];
	struct ttrpc_call *parked[8]; /* by Park */
	int nparked;
	int gone;
};

static void trpc_check(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	const Grpc__CheckRequest *r = (const Grpc__CheckRequest *)m;
	Grpc__VersionCheckResponse v = GRPC__VERSION_CHECK_RESPONSE__INIT;

	v.agent_version = r->service;
	ttrpc_reply(call, &v.base);
}

static void trpc_refuse(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	const Grpc__CheckRequest *r = (const Grpc__CheckRequest *)m;

	ttrpc_fail(call, TTRPC_NOT_FOUND, "no %s here", r->service);
}

static void trpc_gone(void *arg)
{
	((struct trpc *)arg)->gone++;
}

static void trpc_park(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	struct trpc *t = ttrpc_call_arg(call);

	(void)m;
	ttrpc_call_on_gone(call, trpc_gone, t);
	t->parked[t->nparked++] = call;
}

static void trpc_hang_up(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	struct trpc *t = ttrpc_call_arg(call);
	Grpc__Empty empty = GRPC__EMPTY__INIT;

	(void)m;
	ttrpc_close(t->server);
	t->server = NULL;
	ttrpc_reply(call, &empty.base);
}

static void trpc_big(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	Grpc__ReadStreamResponse r = GRPC__READ_STREAM_RESPONSE__INIT;

	r.data.len = ((const Grpc__ReadStreamRequest *)m)->len;
	r.data.data = calloc(1, r.data.len + 1);
	ttrpc_reply(call, &r.base);
	free(r.data.data);
}

static const struct ttrpc_method trpc_methods[] = {
	{ "test.S", "Echo", &grpc__check_request__descriptor, trpc_check },
	{ "test.S", "Refuse", &grpc__check_request__descriptor, trpc_refuse },
	{ "test.S", "Park", &grpc__check_request__descriptor, trpc_park },
	{ "test.S", "HangUp", &grpc__check_request__descriptor, trpc_hang_up },
	{ "test.S", "Big", &grpc__read_stream_request__descriptor, trpc_big },
};

static void trpc_server_closed(void *arg, const char *reason)
{
	struct trpc *t = arg;

	t->server_closed++;
	t->server = NULL;
	snprintf(t->reason, sizeof t->reason, "%s", reason);
}

static void trpc_client_closed(void *arg, const char *reason)
{
	struct trpc *t = arg;

	t->client_closed++;
	t->client = NULL;
	snprintf(t->reason, sizeof t->reason, "%s", reason);
}

/* With raw the client end is a plain socket, returned; else -1. */
static int trpc_start(struct trpc *t, bool raw)
{
	struct err e;
	int fds[2];

	*t = (struct trpc){ 0 };
	CHECK_EQ(loop_init(&t->loop), 0);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	t->server = ttrpc_open(&t->loop, fds[0], trpc_methods, ARRAY_LEN(trpc_methods),
			       trpc_server_closed, t, &e);
	CHECK(t->server);
	if (raw)
		return fds[1];
	t->client = ttrpc_open(&t->loop, fds[1], NULL, 0, trpc_client_closed, t, &e);
	CHECK(t->client);
	return -1;
}

static void trpc_end(struct trpc *t)
{
	Grpc__Empty empty = GRPC__EMPTY__INIT;

	if (t->client)
		ttrpc_close(t->client);
	if (t->server)
		ttrpc_close(t->server);
	for (int i = 0; i < t->nparked; i++)
		if (t->parked[i])
			ttrpc_reply(t->parked[i], &empty.base);
	loop_fini(&t->loop);
}

static void trpc_run(struct trpc *t)
{
	for (int i = 0; i < 20; i++)
		loop_step(&t->loop, 0);
}

struct trpc_answer {
	struct trpc *t;
	int times;
	enum ttrpc_code code;
	char message[256];
	char version[64];
	void (*then)(struct trpc_answer *a);
};

static void trpc_done(void *arg, const struct ttrpc_result *r)
{
	struct trpc_answer *a = arg;

	a->times++;
	a->code = r->code;
	snprintf(a->message, sizeof a->message, "%s", r->message);
	if (r->response && r->response->descriptor == &grpc__version_check_response__descriptor)
		snprintf(a->version, sizeof a->version, "%s",
			 ((Grpc__VersionCheckResponse *)r->response)->agent_version);
	if (a->then)
		a->then(a);
}

static void trpc_ask_for(struct trpc *t, const char *method, const char *text, uint64_t timeout_ns,
			 struct trpc_answer *a)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;

	r.service = (char *)text;
	ttrpc_request(t->client, "test.S", method, &r.base,
		      &grpc__version_check_response__descriptor, timeout_ns, trpc_done, a);
}
