/* ttrpc.h - ttRPC over one stream socket, both ends. ttrpc PROTOCOL.md, version 1.2; the bytes are
 * in ttrpc_frame.h.
 *
 * Clients use odd stream ids, each larger than the one before. As containerd does, a request that
 * breaks the rule is answered INVALID_ARGUMENT, and a message longer than TTRPC_MAX_MESSAGE is read
 * past and answered RESOURCE_EXHAUSTED; the connection goes on. Unknown frame types and protobuf
 * fields are skipped, and so are streams (data frames): all our methods are unary.
 *
 * A connection belongs to one event loop (base/loop.h) and is used from that thread only. It owns
 * its socket. Many requests may be under way on it in both roles; answers may come in any order.
 * Writes never block: what the socket does not take waits in memory, and past TTRPC_MAX_QUEUED
 * bytes of it the connection stops reading until the peer has read some.
 *
 * Every callback may use the connection, also close it. None runs inside ttrpc_request(),
 * ttrpc_reply() or ttrpc_fail(): a socket that fails there is reported from the loop. */
#pragma once

#include "amalgam/base/err.h"
#include "amalgam/base/loop.h"
#include "amalgam/wire/ttrpc_frame.h"

#define TTRPC_MAX_QUEUED (16u << 20) /* bytes unsent; a request past it is RESOURCE_EXHAUSTED */
#define TTRPC_MAX_CALLS  16384       /* being served at once on one connection; likewise */

/* Status codes of google.rpc.Code that we use, by number. */
enum ttrpc_code {
	TTRPC_OK = 0,
	TTRPC_CANCELLED = 1,
	TTRPC_UNKNOWN = 2,
	TTRPC_INVALID_ARGUMENT = 3,
	TTRPC_DEADLINE_EXCEEDED = 4,
	TTRPC_NOT_FOUND = 5,
	TTRPC_ALREADY_EXISTS = 6,
	TTRPC_PERMISSION_DENIED = 7,
	TTRPC_RESOURCE_EXHAUSTED = 8,
	TTRPC_FAILED_PRECONDITION = 9,
	TTRPC_ABORTED = 10,
	TTRPC_OUT_OF_RANGE = 11,
	TTRPC_UNIMPLEMENTED = 12,
	TTRPC_INTERNAL = 13,
	TTRPC_UNAVAILABLE = 14,
};

struct ttrpc_conn;
struct ttrpc_call; /* one request being served */

/* Serve one request. `request` is unpacked, of the method's type, and freed after the answer. The
 * handler, or whoever it hands `call` to, must end it exactly once with ttrpc_reply() or
 * ttrpc_fail(), at once or later. When the connection ends first, the call stays valid (answering
 * it does nothing but free it) and call_gone, if set by ttrpc_call_on_gone(), is told. */
typedef void ttrpc_serve_fn(struct ttrpc_call *call, const ProtobufCMessage *request);

struct ttrpc_method {
	const char *service; /* "grpc.AgentService" */
	const char *name;    /* "CreateContainer" */
	const ProtobufCMessageDescriptor *request;
	ttrpc_serve_fn *serve;
};

/* The connection ended (peer closed, I/O error): reason in words. Requests under way have ended
 * with TTRPC_UNAVAILABLE before. The connection is freed after this returns. */
typedef void ttrpc_closed_fn(void *arg, const char *reason);

/* Take fd (made non-blocking) and serve it; methods must outlive the connection, n may be 0 for a
 * pure client. NULL and e set when the fd cannot be watched; the fd is closed then too. */
INTERNAL MUST_USE struct ttrpc_conn *ttrpc_open(struct loop *l, int fd,
						const struct ttrpc_method *methods, size_t n,
						ttrpc_closed_fn *closed, void *arg, struct err *e);
/* Close now. `closed` is not called; requests under way end with TTRPC_CANCELLED before this
 * returns, calls being served are told that they are gone. What was not sent yet is lost. */
INTERNAL void ttrpc_close(struct ttrpc_conn *c);

/* The arg given to ttrpc_open() of the connection a call came in on. */
INTERNAL void *ttrpc_call_arg(const struct ttrpc_call *call);
INTERNAL void ttrpc_call_on_gone(struct ttrpc_call *call, void (*gone)(void *arg), void *arg);
INTERNAL void ttrpc_reply(struct ttrpc_call *call, const ProtobufCMessage *response);
INTERNAL void ttrpc_fail(struct ttrpc_call *call, enum ttrpc_code code, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
/* The same with e's message, and the status code that stands for e's errno. */
INTERNAL void ttrpc_fail_err(struct ttrpc_call *call, const struct err *e);

/* What a client call came to. response is NULL unless code is TTRPC_OK; it is freed when the
 * callback returns. message is never NULL. */
struct ttrpc_result {
	enum ttrpc_code code;
	const char *message;
	ProtobufCMessage *response;
};
typedef void ttrpc_done_fn(void *arg, const struct ttrpc_result *result);

/* Send a request; done is called once, never from inside this function. timeout_ns 0 = wait for
 * ever, else it is also sent to the server (Request.timeout_nano). */
INTERNAL void ttrpc_request(struct ttrpc_conn *c, const char *service, const char *method,
			    const ProtobufCMessage *request,
			    const ProtobufCMessageDescriptor *response, uint64_t timeout_ns,
			    ttrpc_done_fn *done, void *arg);

/* The same, running the loop until the answer is there (so other watches of it run, too). On
 * TTRPC_OK *out (out may be NULL) is the caller's, to be freed with
 * protobuf_c_message_free_unpacked(); else e holds the errno that stands for the code, and the
 * server's words. */
INTERNAL MUST_USE enum ttrpc_code
ttrpc_request_wait(struct ttrpc_conn *c, const char *service, const char *method,
		   const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response,
		   uint64_t timeout_ns, ProtobufCMessage **out, struct err *e);
