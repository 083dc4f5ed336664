/* ttrpc_frame.h - the bytes of ttRPC: frame headers and the two envelopes. No I/O, no state.
 *
 * Source: ttrpc PROTOCOL.md 1.2 and its request.proto:
 *     Request  { 1 service string, 2 method string, 3 payload bytes, 4 timeout_nano int64,
 *                5 metadata repeated KeyValue }
 *     Response { 1 status { 1 code int32, 2 message string, 3 details repeated Any },
 *                2 payload bytes }
 * Decoders borrow: a span points into the input. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "amalgam/base/buf.h"

#define TTRPC_HEADER_SIZE 10
#define TTRPC_MAX_MESSAGE (4u << 20)

enum ttrpc_type { TTRPC_REQUEST = 1, TTRPC_RESPONSE = 2, TTRPC_DATA = 3 };
enum ttrpc_flag { TTRPC_REMOTE_CLOSED = 1, TTRPC_REMOTE_OPEN = 2, TTRPC_NO_DATA = 4 };

struct ttrpc_header {
	uint32_t length; /* of the message behind the header */
	uint32_t stream;
	uint8_t type;
	uint8_t flags;
};

struct ttrpc_span {
	const uint8_t *p;
	size_t n;
};

struct ttrpc_request_envelope {
	struct ttrpc_span service, method, payload;
	int64_t timeout_ns; /* what is left of the client's patience; 0 = no limit */
};

struct ttrpc_response_envelope {
	int32_t code; /* google.rpc.Code */
	struct ttrpc_span message, payload;
};

INTERNAL void ttrpc_header_get(const uint8_t raw[TTRPC_HEADER_SIZE], struct ttrpc_header *h);

/* Read the message of a frame. 0, or -EPROTO when it is not such an envelope. */
INTERNAL MUST_USE int ttrpc_request_get(const void *p, size_t n, struct ttrpc_request_envelope *r);
INTERNAL MUST_USE int ttrpc_response_get(const void *p, size_t n,
					 struct ttrpc_response_envelope *r);

/* Append a whole frame. -EMSGSIZE, and nothing appended, when it would be too long for a peer. */
INTERNAL MUST_USE int ttrpc_request_put(struct buf *b, uint32_t stream, const char *service,
					const char *method, const ProtobufCMessage *payload,
					uint64_t timeout_ns);
INTERNAL MUST_USE int ttrpc_response_put(struct buf *b, uint32_t stream,
					 const ProtobufCMessage *payload);
/* A refusal. The text is cut to TTRPC_MAX_STATUS bytes, and what is not UTF-8 in it becomes '?',
 * since a peer may drop the whole answer over one such byte. */
#define TTRPC_MAX_STATUS 2048
INTERNAL void ttrpc_status_put(struct buf *b, uint32_t stream, int32_t code, const char *message);

/* Unpack the payload of an envelope. NULL when the bytes are not such a message, or when its parts
 * would take more than TTRPC_MAX_UNPACKED bytes of memory: two bytes on the wire can stand for an
 * object of a hundred. Free with protobuf_c_message_free_unpacked(m, NULL). */
#define TTRPC_MAX_UNPACKED (64u << 20)
INTERNAL MUST_USE ProtobufCMessage *ttrpc_unpack(const ProtobufCMessageDescriptor *type,
						 struct ttrpc_span payload);
