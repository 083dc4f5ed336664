#ifndef NL_RECV_SIZE /* until the host's half brings it */
#include "amalgam/base/nl.c"
#endif

#include "tests/unit/test.h"

/* A kernel of our own at the other end of a socket pair. */
struct nl_rig {
	struct nl nl;
	int kernel;
	struct buf b; /* the request */
	struct err e;
	unsigned seen;
	uint32_t last;
};

static void nl_rig_open(struct nl_rig *r)
{
	int pair[2];

	memset(r, 0, sizeof *r);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	r->nl.fd = pair[0];
	r->kernel = pair[1];
}

static void nl_rig_close(struct nl_rig *r)
{
	nl_close(&r->nl);
	close(r->kernel);
	buf_fini(&r->b);
}

static void nl_rig_put(struct buf *b, uint16_t type, uint16_t flags, uint32_t seq, const void *p,
		       size_t n)
{
	struct nlmsghdr h = { .nlmsg_len = (uint32_t)(sizeof h + n),
			      .nlmsg_type = type,
			      .nlmsg_flags = flags,
			      .nlmsg_seq = seq };
	static const uint8_t pad[4];

	buf_add(b, &h, sizeof h);
	buf_add(b, p, n);
	buf_add(b, pad, NLMSG_ALIGN(n) - n);
}

static void nl_rig_send(struct nl_rig *r, struct buf *b)
{
	CHECK_EQ(write(r->kernel, b->data, b->len), b->len);
	buf_fini(b);
}

static int nl_rig_each(void *arg, const struct nl_message *m)
{
	struct nl_rig *r = arg;

	r->seen++;
	memcpy(&r->last, m->head, sizeof r->last);
	return r->last == 666 ? -ECANCELED : 0;
}

static int nl_rig_ask(struct nl_rig *r, bool dump)
{
	uint32_t head = 0;

	nl_begin(&r->b, RTM_GETLINK, 0, &head, sizeof head);
	return dump ? nl_dump(&r->nl, &r->b, sizeof head, nl_rig_each, r, &r->e)
		    : nl_do(&r->nl, &r->b, sizeof head, nl_rig_each, r, &r->e);
}

static void nl_rig_ack(struct nl_rig *r, int error)
{
	struct nlmsgerr m = { .error = error };
	struct buf b = { 0 };

	nl_rig_put(&b, NLMSG_ERROR, NLM_F_CAPPED, r->nl.seq + 1, &m, sizeof m);
	nl_rig_send(r, &b);
}

TEST(nl_builds_what_it_reads)
{
	struct buf b = { 0 };
	struct nl_attr a, in;
	struct cur c;
	char text[8];
	size_t at;

	nl_begin(&b, 7, NLM_F_CREATE, "head", 4);
	nl_put_str(&b, 1, "eth0");
	at = nl_nest(&b, 2);
	nl_put_u32(&b, 3, 0xdeadbeef);
	nl_put_u16(&b, 4, 5);
	nl_put_u8(&b, 5, 6);
	nl_nest_end(&b, at);
	CHECK_EQ(b.len % 4, 0);
	c = cur_of(b.data + NLMSG_HDRLEN + 4, b.len - NLMSG_HDRLEN - 4);
	CHECK(nl_attr_find(c, 1, &a));
	nl_attr_str(&a, text, sizeof text);
	CHECK_STR(text, "eth0");
	CHECK(nl_attr_find(c, 2, &a));
	CHECK(nl_attr_find(nl_attr_nested(&a), 3, &in));
	CHECK_EQ(nl_attr_u32(&in), 0xdeadbeef);
	CHECK(nl_attr_find(nl_attr_nested(&a), 5, &in) && in.len == 1 && in.data[0] == 6);
	CHECK_EQ(nl_attr_u32(&in), 0);
	CHECK(!nl_attr_find(c, 3, &in));
	buf_fini(&b);
}

TEST(nl_attributes_cut_at_any_byte_stay_within_bounds)
{
	struct buf b = { 0 };

	nl_put_str(&b, 1, "a string");
	nl_put_u32(&b, 2, 3);
	nl_put(&b, 3, NULL, 0);
	for (size_t n = 0; n <= b.len; n++) {
		uint8_t *p = test_guard(b.data, n);
		struct cur c = cur_of(p, n);
		struct nl_attr a;
		char text[4];
		unsigned count = 0;
		test_note("%zu bytes", n);
		while (nl_attr_next(&c, &a)) {
			nl_attr_str(&a, text, sizeof text);
			CHECK(++count <= 3);
		}
	}
	buf_fini(&b);
}

TEST(nl_attribute_with_a_length_too_small_ends_the_walk)
{
	struct nlattr bad = { .nla_len = 3, .nla_type = 1 };
	struct cur c = cur_of(&bad, sizeof bad);
	struct nl_attr a;

	CHECK(!nl_attr_next(&c, &a));
}

TEST(nl_do_waits_for_the_acknowledgement)
{
	struct buf b = { 0 };
	struct nl_rig r;
	uint32_t v = 42;

	nl_rig_open(&r);
	nl_rig_put(&b, RTM_NEWLINK, 0, 1, &v, sizeof v);
	nl_rig_send(&r, &b);
	nl_rig_ack(&r, 0);
	CHECK_EQ(nl_rig_ask(&r, false), 0);
	CHECK_EQ(r.seen, 1);
	CHECK_EQ(r.last, 42);
	nl_rig_close(&r);
}

TEST(nl_errors_come_with_the_kernels_words)
{
	struct {
		struct nlmsgerr m;
		char attrs[64];
	} msg = { .m.error = -EBUSY };
	struct buf b = { 0 }, a = { 0 };
	struct nl_rig r;

	nl_rig_open(&r);
	nl_rig_ack(&r, -EEXIST);
	CHECK_EQ(nl_rig_ask(&r, false), -EEXIST);
	CHECK_STR(r.e.msg, strerror(EEXIST));
	nl_put_str(&a, NLMSGERR_ATTR_MSG, "not today");
	memcpy(msg.attrs, a.data, a.len);
	nl_rig_put(&b, NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 2, &msg, sizeof msg.m + a.len);
	nl_rig_send(&r, &b);
	CHECK_EQ(nl_rig_ask(&r, false), -EBUSY);
	CHECK_HAS(r.e.msg, ": not today");
	buf_fini(&a);
	nl_rig_close(&r);
}

TEST(nl_dump_reads_to_its_end_over_several_datagrams)
{
	struct buf b = { 0 };
	struct nl_rig r;
	int done = 0;

	nl_rig_open(&r);
	for (uint32_t v = 1; v <= 5; v++) {
		nl_rig_put(&b, RTM_NEWLINK, NLM_F_MULTI, 1, &v, sizeof v);
		if (v == 3)
			nl_rig_send(&r, &b);
	}
	nl_rig_put(&b, NLMSG_DONE, NLM_F_MULTI, 1, &done, sizeof done);
	nl_rig_send(&r, &b);
	CHECK_EQ(nl_rig_ask(&r, true), 0);
	CHECK_EQ(r.seen, 5);
	nl_rig_close(&r);
}

TEST(nl_dump_that_failed_half_way_says_so)
{
	struct buf b = { 0 };
	struct nl_rig r;
	int done = -EINTR;

	nl_rig_open(&r);
	nl_rig_put(&b, NLMSG_DONE, NLM_F_MULTI, 1, &done, sizeof done);
	nl_rig_send(&r, &b);
	CHECK_EQ(nl_rig_ask(&r, true), -EINTR);
	nl_rig_close(&r);
}

TEST(nl_a_callback_can_stop_but_the_socket_is_read_empty)
{
	struct buf b = { 0 };
	struct nl_rig r;
	uint32_t bad = 666, good = 1;
	int done = 0;

	nl_rig_open(&r);
	nl_rig_put(&b, RTM_NEWLINK, NLM_F_MULTI, 1, &bad, sizeof bad);
	nl_rig_put(&b, RTM_NEWLINK, NLM_F_MULTI, 1, &good, sizeof good);
	nl_rig_send(&r, &b);
	nl_rig_put(&b, NLMSG_DONE, NLM_F_MULTI, 1, &done, sizeof done);
	nl_rig_send(&r, &b);
	CHECK_EQ(nl_rig_ask(&r, true), -ECANCELED);
	CHECK_EQ(r.seen, 1);
	nl_rig_ack(&r, 0);
	CHECK_EQ(nl_rig_ask(&r, false), 0);
	nl_rig_close(&r);
}

TEST(nl_answers_to_an_older_question_are_passed_over)
{
	struct nlmsgerr m = { .error = -EPERM };
	struct buf b = { 0 };
	struct nl_rig r;

	nl_rig_open(&r);
	r.nl.seq = 7;
	nl_rig_put(&b, NLMSG_ERROR, 0, 7, &m, sizeof m);
	nl_rig_send(&r, &b);
	nl_rig_ack(&r, 0);
	CHECK_EQ(nl_rig_ask(&r, false), 0);
	nl_rig_close(&r);
}

TEST(nl_messages_with_bad_lengths_are_refused)
{
	static const uint32_t lengths[] = { 0, 15, 17 + 16, 0xffffffff };

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		struct nlmsghdr h = { .nlmsg_len = lengths[i],
				      .nlmsg_type = RTM_NEWLINK,
				      .nlmsg_seq = 1 };
		struct nl_rig r;
		test_note("length %u", lengths[i]);
		nl_rig_open(&r);
		CHECK_EQ(write(r.kernel, &h, sizeof h), sizeof h);
		CHECK_EQ(nl_rig_ask(&r, false), -EPROTO);
		nl_rig_close(&r);
	}
}

TEST(nl_a_message_shorter_than_its_header_is_not_shown)
{
	struct buf b = { 0 };
	struct nl_rig r;

	nl_rig_open(&r);
	nl_rig_put(&b, RTM_NEWLINK, 0, 1, "ab", 2);
	nl_rig_send(&r, &b);
	nl_rig_ack(&r, 0);
	CHECK_EQ(nl_rig_ask(&r, false), 0);
	CHECK_EQ(r.seen, 0);
	nl_rig_close(&r);
}

TEST(nl_talks_to_the_real_kernel)
{
	struct ifinfomsg head = { .ifi_index = 1 };
	struct nl_rig r = { .nl.fd = -1 };

	CHECK_EQ(nl_open(&r.nl, NETLINK_ROUTE, &r.e), 0);
	nl_begin(&r.b, RTM_GETLINK, 0, &head, sizeof head);
	CHECK_EQ(nl_do(&r.nl, &r.b, sizeof head, nl_rig_each, &r, &r.e), 0);
	CHECK_EQ(r.seen, 1);
	head.ifi_index = 0x7ffffff0;
	nl_begin(&r.b, RTM_GETLINK, 0, &head, sizeof head);
	CHECK_EQ(nl_do(&r.nl, &r.b, sizeof head, nl_rig_each, &r, &r.e), -ENODEV);
	nl_close(&r.nl);
	buf_fini(&r.b);
}
