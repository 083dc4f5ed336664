/* Peers that send bytes of their own, and connections that fail. */
#include "tests/unit/amalgam/wire/ttrpc_rig.h"

static int trpc_raw_answer(int fd, struct ttrpc_header *h, struct ttrpc_response_envelope *a,
			   uint8_t *raw, size_t room)
{
	uint8_t head[TTRPC_HEADER_SIZE];
	ssize_t n = recv(fd, head, sizeof head, MSG_DONTWAIT);

	if (n != (ssize_t)sizeof head)
		return -EAGAIN;
	ttrpc_header_get(head, h);
	CHECK(h->length <= room);
	if (h->length)
		CHECK_EQ(recv(fd, raw, h->length, MSG_DONTWAIT), h->length);
	return ttrpc_response_get(raw, h->length, a);
}

static void trpc_raw_request(int fd, uint32_t stream, const char *method)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;
	AUTO_BUF struct buf b = { 0 };

	CHECK_EQ(ttrpc_request_put(&b, stream, "test.S", method, &r.base, 0), 0);
	CHECK_EQ(fd_write_full(fd, b.data, b.len), 0);
}

TEST(ttrpc_stream_ids_must_be_odd_and_grow)
{
	static const struct {
		uint32_t stream;
		int code;
	} rows[] = { { 1, 0 }, { 5, 0 }, { 5, 3 }, { 3, 3 }, { 8, 3 }, { 0, 3 }, { 7, 0 },
		     { 0xffffffff, 0 }, { 1, 3 } };
	struct ttrpc_response_envelope a;
	struct ttrpc_header h;
	uint8_t raw[256];
	struct trpc t;
	int fd = trpc_start(&t, true);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		test_note("row %zu", i);
		trpc_raw_request(fd, rows[i].stream, "Echo");
		trpc_run(&t);
		CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
		CHECK_EQ(h.stream, rows[i].stream);
		CHECK_EQ(a.code, rows[i].code);
	}
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_frames_may_come_byte_by_byte)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;
	AUTO_BUF struct buf b = { 0 };
	struct ttrpc_response_envelope a;
	struct ttrpc_header h;
	uint8_t raw[256];
	struct trpc t;
	int fd = trpc_start(&t, true);

	r.service = "slow";
	CHECK_EQ(ttrpc_request_put(&b, 1, "test.S", "Echo", &r.base, 0), 0);
	CHECK_EQ(ttrpc_request_put(&b, 3, "test.S", "Refuse", &r.base, 0), 0);
	for (size_t i = 0; i < b.len; i++) {
		CHECK_EQ(fd_write_full(fd, b.data + i, 1), 0);
		loop_step(&t.loop, 0);
	}
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
	CHECK_EQ(h.stream, 1);
	CHECK_EQ(a.code, 0);
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
	CHECK_EQ(a.code, TTRPC_NOT_FOUND);
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_a_connection_cut_inside_a_frame_ends_with_words)
{
	static const uint8_t cut[] = { 0, 0, 0, 9, 0, 0, 0, 1, 1, 0, 'x' };

	for (size_t n = 0; n <= sizeof cut; n++) {
		struct trpc t;
		int fd = trpc_start(&t, true);
		test_note("%zu bytes", n);
		CHECK_EQ(fd_write_full(fd, cut, n), 0);
		close(fd);
		trpc_run(&t);
		CHECK_EQ(t.server_closed, 1);
		CHECK_STR(t.reason, n ? "peer closed inside a message" : "peer closed");
		trpc_end(&t);
	}
}

TEST(ttrpc_a_request_too_long_to_read_is_read_past)
{
	uint8_t head[] = { 0, 0x50, 0, 0, 0, 0, 0, 1, TTRPC_REQUEST, 0 }; /* 5 MiB */
	uint8_t *zeros = calloc(1, 64 << 10);
	struct ttrpc_response_envelope a;
	struct ttrpc_header h;
	uint8_t raw[256];
	struct trpc t;
	int fd = trpc_start(&t, true);

	CHECK_EQ(fd_write_full(fd, head, sizeof head), 0);
	for (int i = 0; i < 80; i++) {
		CHECK_EQ(fd_write_full(fd, zeros, 64 << 10), 0);
		trpc_run(&t);
	}
	CHECK(t.server->in.cap <= 256 << 10);
	free(zeros);
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
	CHECK_EQ(a.code, TTRPC_RESOURCE_EXHAUSTED);
	trpc_raw_request(fd, 3, "Echo");
	trpc_run(&t);
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
	CHECK_EQ(h.stream, 3);
	CHECK_EQ(a.code, 0);
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_other_frames_are_skipped)
{
	static const uint8_t frames[] = {
		0, 0, 0, 2, 0, 0, 0, 9, TTRPC_DATA, TTRPC_REMOTE_CLOSED, 'x', 'y',
		0, 0, 0, 0, 0, 0, 0, 9, TTRPC_DATA, TTRPC_NO_DATA,
		0, 0, 0, 1, 0, 0, 0, 9, 77, 0xff, 'z',
		0, 0, 0, 0, 0, 0, 0, 9, TTRPC_RESPONSE, 0, /* nobody asked */
	};
	struct ttrpc_response_envelope a;
	struct ttrpc_header h;
	uint8_t raw[256];
	struct trpc t;
	int fd = trpc_start(&t, true);

	CHECK_EQ(fd_write_full(fd, frames, sizeof frames), 0);
	trpc_raw_request(fd, 1, "Echo");
	trpc_run(&t);
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
	CHECK_EQ(h.stream, 1);
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), -EAGAIN);
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_a_request_that_is_not_an_envelope_is_an_invalid_argument)
{
	static const uint8_t frame[] = { 0, 0, 0, 2, 0, 0, 0, 1, TTRPC_REQUEST, 0, 0x0a, 0x7f };
	struct ttrpc_response_envelope a;
	struct ttrpc_header h;
	uint8_t raw[256];
	struct trpc t;
	int fd = trpc_start(&t, true);

	CHECK_EQ(fd_write_full(fd, frame, sizeof frame), 0);
	trpc_run(&t);
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
	CHECK_EQ(a.code, TTRPC_INVALID_ARGUMENT);
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_an_answer_to_a_peer_that_left_is_reported_from_the_loop)
{
	Grpc__Empty empty = GRPC__EMPTY__INIT;
	struct trpc t;
	int fd = trpc_start(&t, true);

	trpc_raw_request(fd, 1, "Park");
	trpc_run(&t);
	CHECK_EQ(t.nparked, 1);
	close(fd);
	ttrpc_reply(t.parked[0], &empty.base);
	t.nparked = 0;
	CHECK_EQ(t.server_closed, 0);
	trpc_run(&t);
	CHECK_EQ(t.server_closed, 1);
	trpc_end(&t);
}

TEST(ttrpc_a_failed_write_is_reported_from_the_loop)
{
	struct trpc_answer a = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	/* From here sending fails, and there is nothing to read that would say so. */
	CHECK_EQ(shutdown(t.server->fd, SHUT_RD), 0);
	trpc_ask_for(&t, "Echo", "", 0, &a);
	trpc_ask_for(&t, "Echo", "", 0, &a);
	CHECK_EQ(a.times, 0);
	trpc_run(&t);
	CHECK_EQ(a.times, 2);
	CHECK_EQ(a.code, TTRPC_UNAVAILABLE);
	CHECK_EQ(t.client_closed, 1);
	trpc_end(&t);
}

TEST(ttrpc_a_connection_may_be_closed_between_a_failed_write_and_its_report)
{
	struct trpc_answer a = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	CHECK_EQ(shutdown(t.server->fd, SHUT_RD), 0);
	trpc_ask_for(&t, "Echo", "", 0, &a);
	ttrpc_close(t.client);
	t.client = NULL;
	CHECK_EQ(a.code, TTRPC_CANCELLED);
	trpc_run(&t);
	CHECK_EQ(a.times, 1);
	CHECK_EQ(t.client_closed, 0);
	trpc_end(&t);
}

TEST(ttrpc_serves_so_many_calls_at_once_and_refuses_more)
{
	Grpc__Empty empty = GRPC__EMPTY__INIT;
	struct ttrpc_response_envelope a;
	struct ttrpc_header h;
	uint8_t raw[256];
	struct trpc t;
	int fd = trpc_start(&t, true);

	trpc_raw_request(fd, 1, "Park");
	trpc_raw_request(fd, 3, "Park");
	trpc_raw_request(fd, 5, "Park");
	trpc_run(&t);
	CHECK_EQ(t.server->ncalls, 3);
	t.server->ncalls += TTRPC_MAX_CALLS - 3;
	trpc_raw_request(fd, 7, "Park");
	trpc_run(&t);
	CHECK_EQ(trpc_raw_answer(fd, &h, &a, raw, sizeof raw), 0);
	CHECK_EQ(a.code, TTRPC_RESOURCE_EXHAUSTED);
	t.server->ncalls -= TTRPC_MAX_CALLS - 3;
	for (int i = 0; i < 3; i++) {
		ttrpc_reply(t.parked[i], &empty.base);
		CHECK_EQ(t.server->ncalls, 2 - i);
	}
	t.nparked = 0;
	close(fd);
	trpc_end(&t);
}

/* A client whose server is the plain socket returned. */
static int trpc_start_client(struct trpc *t)
{
	struct err e;
	int fds[2];

	trpc_start(t, false);
	ttrpc_close(t->client);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	t->client = ttrpc_open(&t->loop, fds[0], NULL, 0, trpc_client_closed, t, &e);
	CHECK(t->client);
	return fds[1];
}

TEST(ttrpc_an_answer_too_long_to_read_ends_only_its_request)
{
	static const uint8_t head[] = { 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, TTRPC_RESPONSE, 0 };
	struct trpc_answer a = { 0 };
	struct trpc t;
	int fd = trpc_start_client(&t);

	trpc_ask_for(&t, "Echo", "", 0, &a);
	CHECK_EQ(fd_write_full(fd, head, sizeof head), 0);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_RESOURCE_EXHAUSTED);
	CHECK(t.client);
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_requests_to_a_peer_that_does_not_read_fail_in_the_end)
{
	Grpc__WriteStreamRequest w = GRPC__WRITE_STREAM_REQUEST__INIT;
	struct trpc_answer a = { 0 };
	struct trpc t;
	int fd = trpc_start_client(&t);

	w.data.len = 3 << 20;
	w.data.data = calloc(1, w.data.len);
	for (int i = 0; i < 7; i++)
		ttrpc_request(t.client, "s", "m", &w.base, &grpc__empty__descriptor, 0, trpc_done,
			      &a);
	trpc_run(&t);
	CHECK_EQ(a.times, 1);
	CHECK_EQ(a.code, TTRPC_RESOURCE_EXHAUSTED);
	free(w.data.data);
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_an_answer_that_is_not_an_envelope_is_an_internal_error)
{
	static const uint8_t frame[] = { 0, 0, 0, 2, 0, 0, 0, 1, TTRPC_RESPONSE, 0, 0x12, 9 };
	struct trpc_answer a = { 0 };
	struct trpc t;
	int fd = trpc_start_client(&t);

	trpc_ask_for(&t, "Echo", "", 0, &a);
	CHECK_EQ(fd_write_full(fd, frame, sizeof frame), 0);
	trpc_run(&t);
	CHECK_EQ(a.code, TTRPC_INTERNAL);
	CHECK(t.client);
	close(fd);
	trpc_end(&t);
}

TEST(ttrpc_request_wait_ends_when_the_loop_fails)
{
	Grpc__CheckRequest r = GRPC__CHECK_REQUEST__INIT;
	struct err e = { 0 };
	struct trpc t;

	trpc_start(&t, false);
	close(t.loop.epoll_fd);
	CHECK_EQ(ttrpc_request_wait(t.client, "test.S", "Echo", &r.base, &grpc__empty__descriptor,
				    0, NULL, &e),
		 TTRPC_INTERNAL);
	CHECK_HAS(e.msg, "Bad file descriptor");
	trpc_end(&t);
}

TEST(ttrpc_a_socket_that_cannot_be_watched_is_closed)
{
	struct loop l;
	struct err e = { 0 };
	int fd = open("/dev/null", O_RDONLY); /* epoll does not take it */

	CHECK_EQ(loop_init(&l), 0);
	CHECK(!ttrpc_open(&l, fd, NULL, 0, NULL, NULL, &e));
	CHECK_EQ(e.code, -EPERM);
	CHECK_EQ(fcntl(fd, F_GETFD), -1);
	loop_fini(&l);
}

TEST(ttrpc_errno_and_status_code_stand_for_each_other)
{
	static const struct {
		int error;
		enum ttrpc_code code;
	} rows[] = {
		{ -ENOENT, TTRPC_NOT_FOUND },	      { -EINVAL, TTRPC_INVALID_ARGUMENT },
		{ -EEXIST, TTRPC_ALREADY_EXISTS },    { -ETIMEDOUT, TTRPC_DEADLINE_EXCEEDED },
		{ -EBUSY, TTRPC_FAILED_PRECONDITION }, { -ENOSYS, TTRPC_UNIMPLEMENTED },
		{ -EIO, TTRPC_INTERNAL },	      { -ECONNRESET, TTRPC_UNAVAILABLE },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CHECK_EQ(ttrpc_code_of_errno(rows[i].error), rows[i].code);
		CHECK_EQ(ttrpc_errno_of_code(rows[i].code), rows[i].error);
	}
	CHECK_EQ(ttrpc_code_of_errno(-EXDEV), TTRPC_INTERNAL);
	CHECK_EQ(ttrpc_errno_of_code((enum ttrpc_code)99), -EIO);
}
