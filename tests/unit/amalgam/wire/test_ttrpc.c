#include "tests/unit/amalgam/wire/ttrpc_rig.h"

TEST(ttrpc_a_request_gets_its_answer)
{
	struct trpc t;
	struct trpc_answer a = { 0 };

	trpc_start(&t, false);
	trpc_ask_for(&t, "Echo", "hello", 0, &a);
	CHECK_EQ(a.times, 0);
	trpc_run(&t);
	CHECK_EQ(a.times, 1);
	CHECK_EQ(a.code, TTRPC_OK);
	CHECK_STR(a.version, "hello");
	trpc_end(&t);
	CHECK_EQ(t.server_closed + t.client_closed, 0);
}

TEST(ttrpc_many_requests_are_answered_in_any_order)
{
	Grpc__VersionCheckResponse v = GRPC__VERSION_CHECK_RESPONSE__INIT;
	struct trpc_answer a[5] = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	for (int i = 0; i < 4; i++)
		trpc_ask_for(&t, "Park", "", 0, &a[i]);
	trpc_ask_for(&t, "Echo", "now", 0, &a[4]);
	trpc_run(&t);
	CHECK_EQ(t.nparked, 4);
	CHECK_STR(a[4].version, "now");
	for (int i = 3; i >= 0; i--) {
		char text[] = { (char)('a' + i), '\0' };
		v.agent_version = text;
		ttrpc_reply(t.parked[i], &v.base);
		trpc_run(&t);
		CHECK_STR(a[i].version, text);
	}
	t.nparked = 0;
	trpc_end(&t);
}

TEST(ttrpc_a_refusal_carries_code_and_words)
{
	struct trpc t;
	struct trpc_answer a = { 0 };

	trpc_start(&t, false);
	trpc_ask_for(&t, "Refuse", "cat", 0, &a);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_NOT_FOUND);
	CHECK_STR(a.message, "no cat here");
	trpc_end(&t);
}

TEST(ttrpc_unknown_methods_and_services_are_unimplemented_in_containerds_words)
{
	Grpc__Empty empty = GRPC__EMPTY__INIT;
	struct trpc_answer a = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	trpc_ask_for(&t, "Dance", "", 0, &a);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_UNIMPLEMENTED);
	CHECK_STR(a.message, "method Dance");
	ttrpc_request(t.client, "test.T", "Echo", &empty.base, &grpc__empty__descriptor, 0,
		      trpc_done, &a);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_UNIMPLEMENTED);
	CHECK_STR(a.message, "service test.T");
	trpc_end(&t);
}

TEST(ttrpc_a_payload_of_another_type_is_an_invalid_argument)
{
	Grpc__Hook hook = GRPC__HOOK__INIT; /* field 4 is a number, unknown to CheckRequest ... */
	Grpc__HealthCheckResponse wrong = GRPC__HEALTH_CHECK_RESPONSE__INIT;
	struct trpc_answer a = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	hook.timeout = 5;
	ttrpc_request(t.client, "test.S", "Echo", &hook.base,
		      &grpc__version_check_response__descriptor, 0, trpc_done, &a);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_OK);
	wrong.status = 1; /* ... but field 1 is a string there and a number here */
	ttrpc_request(t.client, "test.S", "Echo", &wrong.base, &grpc__empty__descriptor, 0,
		      trpc_done, &a);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_INVALID_ARGUMENT);
	CHECK_STR(a.message, "cannot decode grpc.CheckRequest");
	trpc_end(&t);
}

TEST(ttrpc_an_answer_of_another_type_is_an_internal_error)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;
	struct trpc_answer a = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	r.service = "x"; /* comes back in field 2, which is a message there */
	ttrpc_request(t.client, "test.S", "Echo", &r.base, &grpc__spec__descriptor, 0, trpc_done,
		      &a);
	trpc_run(&t);
	CHECK_EQ(a.times, 1);
	CHECK_EQ(a.code, TTRPC_INTERNAL);
	trpc_end(&t);
}

TEST(ttrpc_a_client_gives_up_after_its_timeout_and_ignores_the_late_answer)
{
	Grpc__Empty empty = GRPC__EMPTY__INIT;
	struct trpc_answer a = { 0 };
	uint64_t start = clock_mono_ns();
	struct trpc t;

	trpc_start(&t, false);
	trpc_ask_for(&t, "Park", "", 20 * NS_PER_MS, &a);
	while (!a.times)
		loop_step(&t.loop, 1000);
	CHECK(clock_mono_ns() - start >= 20 * NS_PER_MS);
	CHECK_EQ(a.code, TTRPC_DEADLINE_EXCEEDED);
	CHECK_EQ(t.nparked, 1);
	ttrpc_reply(t.parked[0], &empty.base);
	t.nparked = 0;
	trpc_run(&t);
	CHECK_EQ(a.times, 1);
	CHECK(t.client && t.server);
	trpc_end(&t);
}

TEST(ttrpc_request_wait_returns_the_answer)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;
	ProtobufCMessage *m = NULL;
	struct err e = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	r.service = "wait";
	CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "Echo", &r.base,
				    &grpc__version_check_response__descriptor, NS_PER_S, &m, &e),
		 TTRPC_OK);
	CHECK_STR(((Grpc__VersionCheckResponse *)m)->agent_version, "wait");
	protobuf_c_message_free_unpacked(m, NULL);
	CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "Echo", &r.base,
				    &grpc__version_check_response__descriptor, 0, NULL, &e),
		 TTRPC_OK);
	CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "Refuse", &r.base,
				    &grpc__version_check_response__descriptor, 0, &m, &e),
		 TTRPC_NOT_FOUND);
	CHECK(!m);
	CHECK_EQ(e.code, -ENOENT);
	CHECK_STR(e.msg, "no wait here");
	CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "Park", &r.base,
				    &grpc__version_check_response__descriptor, NS_PER_MS, &m, &e),
		 TTRPC_DEADLINE_EXCEEDED);
	CHECK_EQ(e.code, -ETIMEDOUT);
	trpc_end(&t);
}

TEST(ttrpc_request_wait_ends_when_the_connection_does)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;
	struct err e = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "HangUp", &r.base, &grpc__empty__descriptor,
				    0, NULL, &e),
		 TTRPC_UNAVAILABLE);
	CHECK_EQ(e.code, -ECONNRESET);
	CHECK_EQ(t.client_closed, 1);
	trpc_end(&t);
}

TEST(ttrpc_a_call_outlives_its_connection)
{
	struct trpc_answer a[2] = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	trpc_ask_for(&t, "Park", "", 0, &a[0]);
	trpc_ask_for(&t, "Park", "", NS_PER_S, &a[1]);
	trpc_run(&t);
	ttrpc_close(t.client);
	t.client = NULL;
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(a[i].times, 1);
		CHECK_EQ(a[i].code, TTRPC_CANCELLED);
	}
	trpc_run(&t);
	CHECK_EQ(t.server_closed, 1);
	CHECK_STR(t.reason, "peer closed");
	CHECK_EQ(t.gone, 2);
	CHECK(!ttrpc_call_arg(t.parked[0]));
	trpc_end(&t); /* answers both */
	CHECK_EQ(t.client_closed, 0);
}

TEST(ttrpc_requests_under_way_end_when_the_server_goes)
{
	struct trpc_answer a = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	trpc_ask_for(&t, "Park", "", NS_PER_S, &a);
	trpc_run(&t);
	ttrpc_close(t.server);
	t.server = NULL;
	CHECK_EQ(t.gone, 1);
	trpc_run(&t);
	CHECK_EQ(a.times, 1);
	CHECK_EQ(a.code, TTRPC_UNAVAILABLE);
	CHECK_EQ(t.client_closed, 1);
	trpc_end(&t);
}

static void trpc_close_client(struct trpc_answer *a)
{
	if (a->t->client)
		ttrpc_close(a->t->client);
	a->t->client = NULL;
}

TEST(ttrpc_a_callback_may_close_the_connection)
{
	struct trpc_answer a[3] = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	for (int i = 0; i < 3; i++) {
		a[i] = (struct trpc_answer){ .t = &t, .then = trpc_close_client };
		trpc_ask_for(&t, i ? "Echo" : "Refuse", "x", 0, &a[i]);
	}
	trpc_run(&t);
	CHECK_EQ(a[0].code, TTRPC_NOT_FOUND);
	CHECK_EQ(a[1].code, TTRPC_CANCELLED);
	CHECK_EQ(a[2].times, 1);
	trpc_end(&t);
}

static void trpc_ask_again(struct trpc_answer *a)
{
	if (a->times < 2)
		trpc_ask_for(a->t, "Echo", "again", 0, a);
}

TEST(ttrpc_a_request_on_a_dying_connection_is_unavailable)
{
	struct trpc t;
	struct trpc_answer a = { .t = &t, .then = trpc_ask_again };

	trpc_start(&t, false);
	trpc_ask_for(&t, "HangUp", "", 0, &a);
	trpc_run(&t); /* ends with the connection; asking again is refused, once from the loop */
	CHECK_EQ(a.code, TTRPC_UNAVAILABLE);
	CHECK_EQ(a.times, 2);
	CHECK_EQ(t.client_closed, 1);
	trpc_end(&t);
}

static void trpc_nested(struct trpc_answer *a)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;
	struct err e = { 0 };

	a->then = NULL;
	for (int i = 0; i < 3; i++)
		CHECK_EQ(ttrpc_request_wait(a->t->client, "test.S", "Echo", &r.base,
					    &grpc__version_check_response__descriptor, 0, NULL, &e),
			 TTRPC_OK);
}

TEST(ttrpc_a_callback_may_wait_for_another_answer)
{
	struct trpc t;
	struct trpc_answer a[4] = { { .t = &t, .then = trpc_nested } };

	trpc_start(&t, false);
	for (int i = 0; i < 4; i++)
		trpc_ask_for(&t, "Echo", "outer", 0, &a[i]);
	trpc_run(&t);
	for (int i = 0; i < 4; i++)
		CHECK_STR(a[i].version, "outer");
	trpc_end(&t);
}

TEST(ttrpc_long_messages_cross_in_pieces)
{
	Grpc__ReadStreamRequest r = GRPC__READ_STREAM_REQUEST__INIT;
	static const uint32_t lengths[] = { 1, 1000, 70000, 1 << 20, TTRPC_MAX_MESSAGE - 10 };
	struct err e = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		ProtobufCMessage *m = NULL;
		r.len = lengths[i];
		CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "Big", &r.base,
					    &grpc__read_stream_response__descriptor, 0, &m, &e),
			 TTRPC_OK);
		CHECK_EQ(((Grpc__ReadStreamResponse *)m)->data.len, lengths[i]);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	r.len = TTRPC_MAX_MESSAGE;
	CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "Big", &r.base,
				    &grpc__read_stream_response__descriptor, 0, NULL, &e),
		 TTRPC_RESOURCE_EXHAUSTED);
	trpc_end(&t);
}

TEST(ttrpc_a_request_too_long_to_send_fails_at_home)
{
	Grpc__WriteStreamRequest w = GRPC__WRITE_STREAM_REQUEST__INIT;
	struct trpc_answer a = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	w.data.len = TTRPC_MAX_MESSAGE;
	w.data.data = calloc(1, w.data.len);
	ttrpc_request(t.client, "test.S", "Echo", &w.base, &grpc__empty__descriptor, 0, trpc_done,
		      &a);
	free(w.data.data);
	CHECK_EQ(a.times, 0);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_RESOURCE_EXHAUSTED);
	trpc_ask_for(&t, "Echo", "fine", 0, &a);
	trpc_run(&t);
	CHECK_STR(a.version, "fine");
	trpc_end(&t);
}

TEST(ttrpc_a_peer_that_does_not_read_costs_bounded_memory)
{
	Grpc__ReadStreamRequest r = GRPC__READ_STREAM_REQUEST__INIT;
	AUTO_BUF struct buf b = { 0 };
	struct trpc t;
	int fd = trpc_start(&t, true);
	ssize_t n;

	r.len = 1 << 20;
	for (uint32_t i = 0; i < 100; i++)
		CHECK_EQ(ttrpc_request_put(&b, 2 * i + 1, "test.S", "Big", &r.base, 0), 0);
	CHECK_EQ(fd_write_full(fd, b.data, b.len), 0);
	trpc_run(&t);
	CHECK(t.server->out.len - t.server->out_at > TTRPC_MAX_QUEUED);
	CHECK(!(t.server->watch.events & EPOLLIN));
	size_t total = 0, room = 1 << 20;
	uint8_t *sink = malloc(room);
	while (total < 100 * (room + 10)) {
		loop_step(&t.loop, 0);
		n = recv(fd, sink, room, MSG_DONTWAIT);
		total += n > 0 ? (size_t)n : 0;
	}
	free(sink);
	trpc_run(&t);
	CHECK(t.server->watch.events & EPOLLIN);
	CHECK(!t.server->out.data);
	close(fd);
	trpc_end(&t);
}
