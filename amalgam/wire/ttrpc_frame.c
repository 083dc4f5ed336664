#include "amalgam/wire/ttrpc_frame.h"

#include "amalgam/base/str.h"

/* Wire types of protobuf "Encoding", section "Message Structure". Groups (3, 4) are refused. */
enum { TTRPC_PB_VARINT = 0, TTRPC_PB_I64 = 1, TTRPC_PB_LEN = 2, TTRPC_PB_I32 = 5 };

struct ttrpc_field {
	uint32_t number;
	uint8_t wire;
	uint64_t value;         /* VARINT */
	struct ttrpc_span span; /* LEN */
};

void ttrpc_header_get(const uint8_t raw[TTRPC_HEADER_SIZE], struct ttrpc_header *h)
{
	h->length =
		(uint32_t)raw[0] << 24 | (uint32_t)raw[1] << 16 | (uint32_t)raw[2] << 8 | raw[3];
	h->stream =
		(uint32_t)raw[4] << 24 | (uint32_t)raw[5] << 16 | (uint32_t)raw[6] << 8 | raw[7];
	h->type = raw[8];
	h->flags = raw[9];
}

static void ttrpc_header_put(uint8_t raw[TTRPC_HEADER_SIZE], size_t length, uint32_t stream,
			     enum ttrpc_type type)
{
	for (unsigned i = 0; i < 4; i++) {
		raw[i] = (uint8_t)(length >> (24 - 8 * i));
		raw[4 + i] = (uint8_t)(stream >> (24 - 8 * i));
	}
	raw[8] = (uint8_t)type;
	raw[9] = 0;
}

/* ---- Reading. */

static uint64_t ttrpc_varint_get(struct cur *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		const uint8_t *p = cur_bytes(c, 1);
		if (!p)
			return 0;
		v |= (uint64_t)(*p & 0x7f) << shift;
		if (!(*p & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

/* The next field into f. False at the end, and with c->bad when what is there is not a field. */
static bool ttrpc_field_get(struct cur *c, struct ttrpc_field *f)
{
	uint64_t key, len;

	if (cur_left(c) == 0 || c->bad)
		return false;
	key = ttrpc_varint_get(c);
	*f = (struct ttrpc_field){ .number = (uint32_t)(key >> 3), .wire = key & 7 };
	if (key >> 3 == 0 || key >> 3 > 0x1fffffff)
		c->bad = true;
	switch (f->wire) {
	case TTRPC_PB_VARINT:
		f->value = ttrpc_varint_get(c);
		break;
	case TTRPC_PB_I64:
		cur_bytes(c, 8);
		break;
	case TTRPC_PB_I32:
		cur_bytes(c, 4);
		break;
	case TTRPC_PB_LEN:
		len = ttrpc_varint_get(c);
		f->span = (struct ttrpc_span){ cur_bytes(c, len), len };
		break;
	default:
		c->bad = true;
	}
	return !c->bad;
}

int ttrpc_request_get(const void *p, size_t n, struct ttrpc_request_envelope *r)
{
	struct cur c = cur_of(p, n);
	struct ttrpc_field f;

	*r = (struct ttrpc_request_envelope){ 0 };
	while (ttrpc_field_get(&c, &f)) {
		if (f.number == 1 && f.wire == TTRPC_PB_LEN)
			r->service = f.span;
		else if (f.number == 2 && f.wire == TTRPC_PB_LEN)
			r->method = f.span;
		else if (f.number == 3 && f.wire == TTRPC_PB_LEN)
			r->payload = f.span;
		else if (f.number == 4 && f.wire == TTRPC_PB_VARINT)
			r->timeout_ns = (int64_t)f.value;
	}
	return c.bad ? -EPROTO : 0;
}

static int ttrpc_status_get(struct ttrpc_span status, struct ttrpc_response_envelope *r)
{
	struct cur c = cur_of(status.p, status.n);
	struct ttrpc_field f;

	while (ttrpc_field_get(&c, &f)) {
		if (f.number == 1 && f.wire == TTRPC_PB_VARINT)
			r->code = (int32_t)(uint32_t)f.value;
		else if (f.number == 2 && f.wire == TTRPC_PB_LEN)
			r->message = f.span;
	}
	return c.bad ? -EPROTO : 0;
}

int ttrpc_response_get(const void *p, size_t n, struct ttrpc_response_envelope *r)
{
	struct cur c = cur_of(p, n);
	struct ttrpc_field f;

	*r = (struct ttrpc_response_envelope){ 0 };
	while (ttrpc_field_get(&c, &f)) {
		if (f.number == 1 && f.wire == TTRPC_PB_LEN) {
			if (ttrpc_status_get(f.span, r) < 0)
				return -EPROTO;
		} else if (f.number == 2 && f.wire == TTRPC_PB_LEN) {
			r->payload = f.span;
		}
	}
	return c.bad ? -EPROTO : 0;
}

/* ---- Writing. Fields with the value proto3 takes for granted are left out. */

static unsigned ttrpc_varint_size(uint64_t v)
{
	unsigned n = 1;

	while (v >>= 7)
		n++;
	return n;
}

static void ttrpc_varint_put(struct buf *b, uint64_t v)
{
	uint8_t raw[10];
	unsigned n = 0;

	do {
		raw[n] = (uint8_t)(v & 0x7f);
		v >>= 7;
		if (v)
			raw[n] |= 0x80;
		n++;
	} while (v);
	buf_add(b, raw, n);
}

static size_t ttrpc_len_size(size_t n)
{
	return n ? 1 + ttrpc_varint_size(n) + n : 0;
}

static void ttrpc_tag_put(struct buf *b, unsigned number, unsigned wire, uint64_t v)
{
	ttrpc_varint_put(b, number << 3 | wire);
	ttrpc_varint_put(b, v);
}

static void ttrpc_str_put(struct buf *b, unsigned number, const char *s)
{
	if (!*s)
		return;
	ttrpc_tag_put(b, number, TTRPC_PB_LEN, strlen(s));
	buf_add_str(b, s);
}

static void ttrpc_payload_put(struct buf *b, unsigned number, const ProtobufCMessage *m, size_t n)
{
	if (!n)
		return;
	ttrpc_tag_put(b, number, TTRPC_PB_LEN, n);
	protobuf_c_message_pack(m, buf_reserve(b, n));
	b->len += n;
}

static void ttrpc_frame_start(struct buf *b, size_t length, uint32_t stream, enum ttrpc_type type)
{
	ttrpc_header_put(buf_reserve(b, TTRPC_HEADER_SIZE + length), length, stream, type);
	b->len += TTRPC_HEADER_SIZE;
}

int ttrpc_request_put(struct buf *b, uint32_t stream, const char *service, const char *method,
		      const ProtobufCMessage *payload, uint64_t timeout_ns)
{
	size_t n = protobuf_c_message_get_packed_size(payload);
	size_t length = ttrpc_len_size(strlen(service)) + ttrpc_len_size(strlen(method)) +
			ttrpc_len_size(n) + (timeout_ns ? 1 + ttrpc_varint_size(timeout_ns) : 0);

	if (length > TTRPC_MAX_MESSAGE)
		return -EMSGSIZE;
	ttrpc_frame_start(b, length, stream, TTRPC_REQUEST);
	ttrpc_str_put(b, 1, service);
	ttrpc_str_put(b, 2, method);
	ttrpc_payload_put(b, 3, payload, n);
	if (timeout_ns)
		ttrpc_tag_put(b, 4, TTRPC_PB_VARINT, timeout_ns);
	return 0;
}

int ttrpc_response_put(struct buf *b, uint32_t stream, const ProtobufCMessage *payload)
{
	size_t n = protobuf_c_message_get_packed_size(payload);
	size_t length = ttrpc_len_size(n);

	if (length > TTRPC_MAX_MESSAGE)
		return -EMSGSIZE;
	ttrpc_frame_start(b, length, stream, TTRPC_RESPONSE);
	ttrpc_payload_put(b, 2, payload, n);
	return 0;
}

void ttrpc_status_put(struct buf *b, uint32_t stream, int32_t code, const char *message)
{
	size_t n = strnlen(message, TTRPC_MAX_STATUS);
	AUTO_BUF struct buf status = { 0 };
	AUTO_BUF struct buf text = { 0 };

	for (size_t i = 0; i < n;) {
		size_t step = str_utf8_len(message + i, n - i);
		buf_add(&text, step ? message + i : "?", MAX(step, (size_t)1));
		i += MAX(step, (size_t)1);
	}
	ttrpc_tag_put(&status, 1, TTRPC_PB_VARINT, (uint64_t)(int64_t)code);
	ttrpc_str_put(&status, 2, buf_cstr(&text));

	ttrpc_frame_start(b, ttrpc_len_size(status.len), stream, TTRPC_RESPONSE);
	ttrpc_tag_put(b, 1, TTRPC_PB_LEN, status.len);
	buf_add(b, status.data, status.len);
}

/* ---- Unpacking under a budget. */

static void *ttrpc_budget_alloc(void *left, size_t n)
{
	size_t *bytes_left = left;

	if (n > *bytes_left)
		return NULL;
	*bytes_left -= n;
	return malloc(n);
}

static void ttrpc_budget_free(void *left, void *p)
{
	(void)left;
	free(p);
}

ProtobufCMessage *ttrpc_unpack(const ProtobufCMessageDescriptor *type, struct ttrpc_span payload)
{
	size_t left = TTRPC_MAX_UNPACKED;
	ProtobufCAllocator budget = { ttrpc_budget_alloc, ttrpc_budget_free, &left };

	return protobuf_c_message_unpack(type, &budget, payload.n,
					 payload.n ? payload.p : (const uint8_t *)"");
}
