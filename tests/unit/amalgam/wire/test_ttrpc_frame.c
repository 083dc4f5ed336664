#include "amalgam/wire/ttrpc_frame.h"

#include "agent.pb-c.h"
#include "health.pb-c.h"
#include "tests/unit/test.h"

/* Bytes written as hex, blanks ignored. */
static size_t tframe_hex(const char *hex, uint8_t *out, size_t room)
{
	size_t n = 0;

	while (*hex) {
		unsigned byte;
		if (*hex == ' ') {
			hex++;
			continue;
		}
		CHECK(n < room && sscanf(hex, "%2x", &byte) == 1);
		out[n++] = (uint8_t)byte;
		hex += 2;
	}
	return n;
}

static struct ttrpc_span tframe_span(const char *hex)
{
	uint8_t raw[512];
	size_t n = tframe_hex(hex, raw, sizeof raw);

	return (struct ttrpc_span){ test_guard(raw, n), n };
}

static void tframe_check_span(struct ttrpc_span s, const char *want)
{
	CHECK_EQ(s.n, strlen(want));
	CHECK_MEM(s.p, want, s.n);
}

TEST(ttrpc_header_is_big_endian)
{
	const uint8_t raw[TTRPC_HEADER_SIZE] = { 0, 0, 1, 2, 0x80, 0, 0, 3, 2, 5 };
	struct ttrpc_header h;

	ttrpc_header_get(test_guard(raw, sizeof raw), &h);
	CHECK_EQ(h.length, 258);
	CHECK_EQ(h.stream, 0x80000003);
	CHECK_EQ(h.type, TTRPC_RESPONSE);
	CHECK_EQ(h.flags, 5);
}

/* Recorded from containerd 1.6.20 and its runc shim; only the message behind the header. */
TEST(ttrpc_request_get_reads_what_containerd_sends)
{
	struct ttrpc_request_envelope r;
	struct ttrpc_span connect = tframe_span("0a17636f6e7461696e6572642e7461736b2e76322e5461736b"
						"1207436f6e6e656374 1a040a026878");
	struct ttrpc_span state = tframe_span("0a17636f6e7461696e6572642e7461736b2e76322e5461736b"
					      "12055374617465 1a040a026878 20d6fdd5b907");

	CHECK_EQ(ttrpc_request_get(connect.p, connect.n, &r), 0);
	tframe_check_span(r.service, "containerd.task.v2.Task");
	tframe_check_span(r.method, "Connect");
	tframe_check_span(r.payload, "\x0a\x02hx");
	CHECK_EQ(r.timeout_ns, 0);
	CHECK_EQ(ttrpc_request_get(state.p, state.n, &r), 0);
	tframe_check_span(r.method, "State");
	CHECK_EQ(r.timeout_ns, 1999994582);
}

TEST(ttrpc_response_get_reads_what_shims_answer)
{
	struct ttrpc_response_envelope r;
	struct ttrpc_span connect = tframe_span("1208 08d5cc01 10efcc01");
	struct ttrpc_span missing = tframe_span("0a10 0805 120c 7461736b3a206e6f74206865");

	CHECK_EQ(ttrpc_response_get(connect.p, connect.n, &r), 0);
	CHECK_EQ(r.code, 0);
	CHECK_EQ(r.payload.n, 8);
	CHECK_EQ(ttrpc_response_get(missing.p, missing.n, &r), 0);
	CHECK_EQ(r.code, 5);
	tframe_check_span(r.message, "task: not he");
	CHECK_EQ(ttrpc_response_get(NULL, 0, &r), 0);
	CHECK_EQ(r.payload.n, 0);
}

TEST(ttrpc_envelopes_cut_at_any_byte_are_refused_or_shorter)
{
	struct ttrpc_span whole = tframe_span("0a17636f6e7461696e6572642e7461736b2e76322e5461736b"
					      "12055374617465 1a040a026878 20d6fdd5b907"
					      "2a050a03666f6f 31 0102030405060708 3d 01020304");

	for (size_t n = 0; n <= whole.n; n++) {
		/* boundaries between fields; anything else is a cut field */
		static const size_t ends[] = { 0, 25, 32, 38, 44, 51, 60, 65 };
		struct ttrpc_request_envelope r;
		struct ttrpc_response_envelope ignored;
		bool whole_fields = false;
		test_note("%zu bytes", n);
		for (size_t i = 0; i < ARRAY_LEN(ends); i++)
			whole_fields |= ends[i] == n;
		CHECK_EQ(ttrpc_request_get(test_guard(whole.p, n), n, &r),
			 whole_fields ? 0 : -EPROTO);
		(void)!ttrpc_response_get(test_guard(whole.p, n), n, &ignored);
	}
}

TEST(ttrpc_envelopes_that_are_not_protobuf_are_refused)
{
	static const char *const rows[] = {
		"00",			   /* field number 0 */
		"0b",			   /* group */
		"0e",			   /* wire type 6 */
		"0a ffffffffffffffffff01", /* length beyond everything */
		"0a ffffffffffffffffffff01", /* varint of 11 bytes */
		"20 80",		   /* varint without end */
		"ffffffffffffffffff01 00", /* field number beyond 2^29 */
		"0a02 61",		   /* one byte short */
		"0d 010203",
		"09 01020304050607",
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct ttrpc_span s = tframe_span(rows[i]);
		struct ttrpc_request_envelope r;
		struct ttrpc_response_envelope a;
		test_note("%s", rows[i]);
		CHECK_EQ(ttrpc_request_get(s.p, s.n, &r), -EPROTO);
		CHECK_EQ(ttrpc_response_get(s.p, s.n, &a), -EPROTO);
	}
}

TEST(ttrpc_envelopes_skip_fields_they_do_not_know)
{
	struct ttrpc_span s = tframe_span("a206 03616263 0a0161 a806 07 1201 62");
	struct ttrpc_span status = tframe_span("0a 08 1a 02 0a00 08 03 22 00 12 01 78");
	struct ttrpc_request_envelope r;
	struct ttrpc_response_envelope a;

	CHECK_EQ(ttrpc_request_get(s.p, s.n, &r), 0);
	tframe_check_span(r.service, "a");
	tframe_check_span(r.method, "b");
	CHECK_EQ(ttrpc_response_get(status.p, status.n, &a), 0);
	CHECK_EQ(a.code, 3);
	CHECK_EQ(a.message.n, 0);
	tframe_check_span(a.payload, "x");
}

TEST(ttrpc_a_status_that_is_not_protobuf_spoils_the_answer)
{
	struct ttrpc_span s = tframe_span("0a02 0880");
	struct ttrpc_response_envelope a;

	CHECK_EQ(ttrpc_response_get(s.p, s.n, &a), -EPROTO);
}

TEST(ttrpc_request_put_is_read_back)
{
	Grpc__StartContainerRequest start = GRPC__START_CONTAINER_REQUEST__INIT;
	AUTO_BUF struct buf b = { 0 };
	struct ttrpc_request_envelope r;
	struct ttrpc_header h;

	start.container_id = "c1";
	CHECK_EQ(ttrpc_request_put(&b, 7, "grpc.AgentService", "StartContainer", &start.base,
				   5000000000),
		 0);
	ttrpc_header_get(b.data, &h);
	CHECK_EQ(h.length, b.len - TTRPC_HEADER_SIZE);
	CHECK_EQ(h.stream, 7);
	CHECK_EQ(h.type, TTRPC_REQUEST);
	CHECK_EQ(h.flags, 0);
	CHECK_EQ(ttrpc_request_get(b.data + TTRPC_HEADER_SIZE, h.length, &r), 0);
	tframe_check_span(r.service, "grpc.AgentService");
	tframe_check_span(r.method, "StartContainer");
	tframe_check_span(r.payload, "\x0a\x02" "c1");
	CHECK_EQ(r.timeout_ns, 5000000000);
}

TEST(ttrpc_an_empty_answer_is_a_header_alone)
{
	static const uint8_t want[] = { 0, 0, 0, 0, 0, 0, 0, 17, 2, 0 };
	Grpc__Empty empty = GRPC__EMPTY__INIT;
	AUTO_BUF struct buf b = { 0 };

	CHECK_EQ(ttrpc_response_put(&b, 17, &empty.base), 0);
	CHECK_EQ(b.len, sizeof want);
	CHECK_MEM(b.data, want, sizeof want);
}

TEST(ttrpc_status_put_carries_code_and_text)
{
	AUTO_BUF struct buf b = { 0 };
	struct ttrpc_response_envelope a;

	ttrpc_status_put(&b, 3, 12, "service x");
	CHECK_EQ(ttrpc_response_get(b.data + TTRPC_HEADER_SIZE, b.len - TTRPC_HEADER_SIZE, &a), 0);
	CHECK_EQ(a.code, 12);
	tframe_check_span(a.message, "service x");
	CHECK_EQ(a.payload.n, 0);
}

TEST(ttrpc_status_put_sends_only_utf8_of_bounded_length)
{
	AUTO_BUF struct buf b = { 0 };
	struct ttrpc_response_envelope a;
	char text[2 * TTRPC_MAX_STATUS];

	ttrpc_status_put(&b, 3, 13, "caf\xc3\xa9 \xff\xc3 end");
	CHECK_EQ(ttrpc_response_get(b.data + TTRPC_HEADER_SIZE, b.len - TTRPC_HEADER_SIZE, &a), 0);
	tframe_check_span(a.message, "caf\xc3\xa9 ?? end");

	memset(text, 'x', sizeof text);
	text[sizeof text - 1] = '\0';
	b.len = 0;
	ttrpc_status_put(&b, 3, 13, text);
	CHECK_EQ(ttrpc_response_get(b.data + TTRPC_HEADER_SIZE, b.len - TTRPC_HEADER_SIZE, &a), 0);
	CHECK_EQ(a.message.n, TTRPC_MAX_STATUS);
}

TEST(ttrpc_a_message_too_long_for_a_frame_is_not_written)
{
	Grpc__ReadStreamResponse big = GRPC__READ_STREAM_RESPONSE__INIT;
	AUTO_BUF struct buf b = { 0 };

	big.data.len = TTRPC_MAX_MESSAGE;
	big.data.data = calloc(1, big.data.len);
	CHECK_EQ(ttrpc_response_put(&b, 1, &big.base), -EMSGSIZE);
	CHECK_EQ(ttrpc_request_put(&b, 1, "s", "m", &big.base, 0), -EMSGSIZE);
	CHECK_EQ(b.len, 0);
	big.data.len = TTRPC_MAX_MESSAGE - 10; /* two tags of one byte, two lengths of four */
	CHECK_EQ(ttrpc_response_put(&b, 1, &big.base), 0);
	CHECK_EQ(b.len, TTRPC_HEADER_SIZE + TTRPC_MAX_MESSAGE);
	free(big.data.data);
}

TEST(ttrpc_unpack_gives_the_message_or_nothing)
{
	struct ttrpc_span good = tframe_span("0a026331"), bad = tframe_span("0a056331");
	ProtobufCMessage *m = ttrpc_unpack(&grpc__start_container_request__descriptor, good);

	CHECK(m);
	CHECK_STR(((Grpc__StartContainerRequest *)m)->container_id, "c1");
	protobuf_c_message_free_unpacked(m, NULL);
	CHECK(!ttrpc_unpack(&grpc__start_container_request__descriptor, bad));
	m = ttrpc_unpack(&grpc__empty__descriptor, (struct ttrpc_span){ NULL, 0 });
	CHECK(m);
	protobuf_c_message_free_unpacked(m, NULL);
}

/* 2 bytes on the wire, ~150 in memory, each: 4 MiB of them must not become 300 MB. */
TEST(ttrpc_unpack_refuses_what_grows_too_much)
{
	struct ttrpc_span s = { .n = TTRPC_MAX_MESSAGE };
	uint8_t *raw = malloc(s.n);

	for (size_t i = 0; i < s.n; i += 2) {
		raw[i] = 0x12; /* StatsContainerResponse.network_stats, empty */
		raw[i + 1] = 0;
	}
	s.p = raw;
	CHECK(!ttrpc_unpack(&grpc__stats_container_response__descriptor, s));
	s.n = 64 << 10;
	ProtobufCMessage *m = ttrpc_unpack(&grpc__stats_container_response__descriptor, s);
	CHECK(m);
	CHECK_EQ(((Grpc__StatsContainerResponse *)m)->n_network_stats, s.n / 2);
	protobuf_c_message_free_unpacked(m, NULL);
	free(raw);
}
