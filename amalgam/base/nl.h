/* nl.h - netlink: build a request, send it, wait for the kernel's word, walk the answer.
 *
 * A request is a buf: nl_begin(), nl_put() and nl_nest() as often as needed, then nl_do() or
 * nl_dump(), which fill in lengths and numbers and leave the buf empty for the next. One request at
 * a time on a socket. The kernel is trusted to be honest, not to be as we expect: every length is
 * checked against what was received. Sources: netlink(7), rtnetlink(7), linux/netlink.h. */
#pragma once

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/err.h"

struct nl {
	int fd;
	uint32_t seq;
};

/* A socket of NETLINK_ROUTE or another family, in the caller's network namespace for good. */
INTERNAL MUST_USE int nl_open(struct nl *n, int family, struct err *e);
INTERNAL void nl_close(struct nl *n);

/* Start over: the netlink header, then the family's own (struct ifinfomsg ...). NLM_F_REQUEST is
 * added. */
INTERNAL void nl_begin(struct buf *b, uint16_t type, uint16_t flags, const void *head, size_t n);
/* Append an attribute. */
INTERNAL void nl_put(struct buf *b, uint16_t type, const void *p, size_t n);
INTERNAL void nl_put_u8(struct buf *b, uint16_t type, uint8_t v);
INTERNAL void nl_put_u16(struct buf *b, uint16_t type, uint16_t v);
INTERNAL void nl_put_u32(struct buf *b, uint16_t type, uint32_t v);
INTERNAL void nl_put_str(struct buf *b, uint16_t type, const char *s);
/* Attributes inside an attribute: begin, put, end with what begin returned. */
INTERNAL MUST_USE size_t nl_nest(struct buf *b, uint16_t type);
INTERNAL void nl_nest_end(struct buf *b, size_t at);

/* One message of an answer, borrowed for the length of a callback. */
struct nl_message {
	uint16_t type;
	const void *head; /* the family's header, aligned to 4 bytes, of the size asked for */
	struct cur attrs;
};

struct nl_attr {
	uint16_t type; /* without NLA_F_NESTED and NLA_F_NET_BYTEORDER */
	const uint8_t *data;
	size_t len;
};

/* Step to the next attribute; false at the end, or at one that does not fit. */
INTERNAL bool nl_attr_next(struct cur *attrs, struct nl_attr *a);
/* The first of a type; attrs is not moved. */
INTERNAL bool nl_attr_find(struct cur attrs, uint16_t type, struct nl_attr *a);
INTERNAL struct cur nl_attr_nested(const struct nl_attr *a);
/* Numbers in host order, 0 when the attribute has another size. */
INTERNAL uint32_t nl_attr_u32(const struct nl_attr *a);
/* A string that surely ends: "" when it does not fit. */
INTERNAL void nl_attr_str(const struct nl_attr *a, char *out, size_t size);

/* Called per message of the answer; a negative return ends the walk and becomes the result (what is
 * left is still read from the socket). */
typedef int nl_each_fn(void *arg, const struct nl_message *m);

/* Send, wait for the acknowledgement. each may be NULL; it gets what comes before (the object
 * itself for a get request). head_len: size of the family's header in answers. e holds the kernel's
 * own words where it gives any. */
INTERNAL MUST_USE int nl_do(struct nl *n, struct buf *b, size_t head_len, nl_each_fn *each,
			    void *arg, struct err *e);
/* The same for a request for all objects (NLM_F_DUMP is added). */
INTERNAL MUST_USE int nl_dump(struct nl *n, struct buf *b, size_t head_len, nl_each_fn *each,
			      void *arg, struct err *e);
