/* fuzz_ttrpc.c - a connection in both roles against a peer that sends anything.
 *
 * Input: chunks of a length byte and so many bytes, each written to the socket by itself. Length 0
 * makes the program act instead: answer the oldest parked call, ask something, or run the loop. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "agent.pb-c.h"
#include "amalgam/base/fd.c"
#include "amalgam/base/loop.c"
#include "amalgam/wire/ttrpc_frame.c"
#include "amalgam/wire/ttrpc.c"
#include "health.pb-c.h"

#define FUZZ_PARKED 8

struct fuzz {
	struct ttrpc_conn *conn;
	struct ttrpc_call *parked[FUZZ_PARKED];
	unsigned nparked, asked, answered;
};

static void fuzz_reply(struct ttrpc_call *call, const ProtobufCMessage *request)
{
	Grpc__WaitProcessResponse r = GRPC__WAIT_PROCESS_RESPONSE__INIT;

	ASSERT(request->descriptor == &grpc__check_request__descriptor);
	r.status = 3;
	ttrpc_reply(call, &r.base);
}

static void fuzz_park(struct ttrpc_call *call, const ProtobufCMessage *request)
{
	struct fuzz *f = ttrpc_call_arg(call);

	(void)request;
	if (f->nparked == FUZZ_PARKED)
		ttrpc_fail(call, TTRPC_RESOURCE_EXHAUSTED, "full");
	else
		f->parked[f->nparked++] = call;
}

static void fuzz_close(struct ttrpc_call *call, const ProtobufCMessage *request)
{
	struct fuzz *f = ttrpc_call_arg(call);

	ttrpc_close(f->conn);
	f->conn = NULL;
	ttrpc_fail(call, TTRPC_ABORTED, "%s", ((const Grpc__CheckRequest *)request)->service);
}

static const struct ttrpc_method fuzz_methods[] = {
	{ "s", "Reply", &grpc__check_request__descriptor, fuzz_reply },
	{ "s", "Park", &grpc__create_container_request__descriptor, fuzz_park },
	{ "s", "Close", &grpc__check_request__descriptor, fuzz_close },
};

static void fuzz_closed(void *arg, const char *reason)
{
	ASSERT(*reason);
	((struct fuzz *)arg)->conn = NULL;
}

static void fuzz_done(void *arg, const struct ttrpc_result *result)
{
	ASSERT((result->code == TTRPC_OK) == (result->response != NULL) && result->message);
	((struct fuzz *)arg)->answered++;
}

static void fuzz_act(struct fuzz *f, struct loop *l)
{
	Grpc__Empty empty = GRPC__EMPTY__INIT;

	if (f->nparked)
		ttrpc_reply(f->parked[--f->nparked], &empty.base);
	if (f->conn) {
		f->asked++;
		ttrpc_request(f->conn, "t", "Ask", &empty.base,
			      &grpc__stats_container_response__descriptor, 0, fuzz_done, f);
	}
	loop_step(l, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Grpc__Empty empty = GRPC__EMPTY__INIT;
	const uint8_t *end = data + size;
	struct fuzz f = { 0 };
	struct loop l;
	int fds[2];

	ASSERT(loop_init(&l) == 0);
	ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	f.conn = ttrpc_open(&l, fds[0], fuzz_methods, ARRAY_LEN(fuzz_methods), fuzz_closed, &f,
			    NULL);
	while (data < end) {
		size_t n = MIN(*data, (size_t)(end - data - 1));
		if (*data++ == 0)
			fuzz_act(&f, &l);
		else if (n)
			(void)!send(fds[1], data, n, MSG_NOSIGNAL);
		data += n;
		loop_step(&l, 0);
	}
	shutdown(fds[1], SHUT_WR);
	for (int i = 0; i < 100 && f.conn; i++)
		loop_step(&l, 0);
	if (f.conn)
		ttrpc_close(f.conn);
	loop_step(&l, 0);
	ASSERT(f.asked == f.answered);
	while (f.nparked)
		ttrpc_reply(f.parked[--f.nparked], &empty.base);
	close(fds[1]);
	loop_fini(&l);
	return 0;
}
