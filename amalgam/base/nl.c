#include "amalgam/base/nl.h"

#include <sys/socket.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"

#define NL_RECV_SIZE (32u << 10) /* the kernel fills at most this much per datagram of a dump */

int nl_open(struct nl *n, int family, struct err *e)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int on = 1;

	*n = (struct nl){ .fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family) };
	if (n->fd < 0)
		return err_set(e, -errno, "netlink socket: %m");
	/* Both only make answers better: words with errors, and no objects that were not asked for.
	 */
	setsockopt(n->fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
	setsockopt(n->fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
	if (connect(n->fd, (struct sockaddr *)&kernel, sizeof kernel) < 0) {
		int code = -errno;
		nl_close(n);
		return err_set(e, code, "netlink connect: %s", strerror(-code));
	}
	return 0;
}

void nl_close(struct nl *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}

/* ---- Building */

static void nl_pad(struct buf *b)
{
	static const uint8_t zeros[NLMSG_ALIGNTO];

	buf_add(b, zeros, NLMSG_ALIGN(b->len) - b->len);
}

void nl_begin(struct buf *b, uint16_t type, uint16_t flags, const void *head, size_t n)
{
	struct nlmsghdr h = { .nlmsg_type = type, .nlmsg_flags = flags | NLM_F_REQUEST };

	b->len = 0;
	buf_add(b, &h, sizeof h);
	buf_add(b, head, n);
	nl_pad(b);
}

void nl_put(struct buf *b, uint16_t type, const void *p, size_t n)
{
	struct nlattr a = { .nla_len = (uint16_t)(NLA_HDRLEN + n), .nla_type = type };

	ASSERT(n <= UINT16_MAX - NLA_HDRLEN);
	buf_add(b, &a, sizeof a);
	buf_add(b, p, n);
	nl_pad(b);
}

void nl_put_u8(struct buf *b, uint16_t type, uint8_t v)
{
	nl_put(b, type, &v, sizeof v);
}

void nl_put_u16(struct buf *b, uint16_t type, uint16_t v)
{
	nl_put(b, type, &v, sizeof v);
}

void nl_put_u32(struct buf *b, uint16_t type, uint32_t v)
{
	nl_put(b, type, &v, sizeof v);
}

void nl_put_str(struct buf *b, uint16_t type, const char *s)
{
	nl_put(b, type, s, strlen(s) + 1);
}

size_t nl_nest(struct buf *b, uint16_t type)
{
	size_t at = b->len;

	nl_put(b, type | NLA_F_NESTED, NULL, 0);
	return at;
}

void nl_nest_end(struct buf *b, size_t at)
{
	struct nlattr a;
	size_t n = b->len - at;

	ASSERT(n <= UINT16_MAX);
	memcpy(&a, b->data + at, sizeof a);
	a.nla_len = (uint16_t)n;
	memcpy(b->data + at, &a, sizeof a);
}

/* ---- Walking */

bool nl_attr_next(struct cur *attrs, struct nl_attr *a)
{
	struct nlattr h;

	if (cur_left(attrs) < sizeof h)
		return false;
	cur_copy(attrs, &h, sizeof h);
	if (h.nla_len < NLA_HDRLEN)
		return false;
	a->type = h.nla_type & NLA_TYPE_MASK;
	a->len = h.nla_len - NLA_HDRLEN;
	a->data = cur_bytes(attrs, a->len);
	/* The last one may lack its padding. */
	(void)cur_bytes(attrs, MIN(NLA_ALIGN(a->len) - a->len, cur_left(attrs)));
	return a->data != NULL;
}

bool nl_attr_find(struct cur attrs, uint16_t type, struct nl_attr *a)
{
	while (nl_attr_next(&attrs, a))
		if (a->type == type)
			return true;
	return false;
}

struct cur nl_attr_nested(const struct nl_attr *a)
{
	return cur_of(a->data, a->len);
}

uint32_t nl_attr_u32(const struct nl_attr *a)
{
	uint32_t v = 0;

	if (a->len == sizeof v)
		memcpy(&v, a->data, sizeof v);
	return v;
}

void nl_attr_str(const struct nl_attr *a, char *out, size_t size)
{
	size_t n = strnlen((const char *)a->data, a->len);

	if (n >= size)
		n = 0;
	memcpy(out, a->data, n);
	out[n] = '\0';
}

/* ---- Asking */

struct nl_ask {
	struct nl *nl;
	size_t head_len;
	nl_each_fn *each;
	void *arg;
	bool done;
	int result; /* of each or of the kernel, the first that is negative */
	struct err *e;
};

static void nl_on_error(struct nl_ask *ask, const struct nlmsghdr *h)
{
	const struct nlmsgerr *m = NLMSG_DATA(h);
	size_t skip = NLMSG_HDRLEN + sizeof *m;
	struct nl_attr text;
	char words[160] = "";

	ask->done = true;
	if (h->nlmsg_len < skip) {
		ask->result = err_set(ask->e, -EPROTO, "netlink: short error message");
		return;
	}
	if (m->error == 0 || ask->result < 0)
		return;
	/* Behind the error stand the request's bytes, unless capped, and then the attributes. */
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		skip += NLMSG_ALIGN(m->msg.nlmsg_len) -
			MIN(sizeof m->msg, (size_t)m->msg.nlmsg_len);
	if (h->nlmsg_flags & NLM_F_ACK_TLVS && h->nlmsg_len > skip &&
	    nl_attr_find(cur_of((const char *)h + skip, h->nlmsg_len - skip), NLMSGERR_ATTR_MSG,
			 &text))
		nl_attr_str(&text, words, sizeof words);
	ask->result = err_set(ask->e, m->error < 0 ? m->error : -EPROTO, "%s%s%s",
			      strerror(-m->error), *words ? ": " : "", words);
}

/* The end of a dump; one that failed half way says so here. */
static void nl_on_done(struct nl_ask *ask, const struct nlmsghdr *h)
{
	int code = 0;

	ask->done = true;
	if (h->nlmsg_len >= NLMSG_HDRLEN + sizeof code)
		memcpy(&code, NLMSG_DATA(h), sizeof code);
	if (code < 0 && ask->result >= 0)
		ask->result = err_set(ask->e, code, "%s", strerror(-code));
}

static void nl_on_message(struct nl_ask *ask, const struct nlmsghdr *h)
{
	size_t skip = NLMSG_HDRLEN + NLMSG_ALIGN(ask->head_len);
	struct nl_message m = { .type = h->nlmsg_type };

	if (h->nlmsg_seq != ask->nl->seq)
		return; /* left over from a request we gave up on */
	if (h->nlmsg_type == NLMSG_ERROR) {
		nl_on_error(ask, h);
		return;
	}
	if (h->nlmsg_type == NLMSG_DONE) {
		nl_on_done(ask, h);
		return;
	}
	if (h->nlmsg_type < NLMSG_MIN_TYPE || h->nlmsg_len < skip || !ask->each || ask->result < 0)
		return;
	m.head = (const char *)h + NLMSG_HDRLEN;
	m.attrs = cur_of((const char *)h + skip, h->nlmsg_len - skip);
	ask->result = ask->each(ask->arg, &m);
	if (ask->result < 0 && ask->e && ask->e->code == 0)
		err_set(ask->e, ask->result, "%s", strerror(-ask->result));
}

static int nl_receive(struct nl_ask *ask)
{
	_Alignas(struct nlmsghdr) char raw[NL_RECV_SIZE];
	ssize_t n = recv(ask->nl->fd, raw, sizeof raw, MSG_TRUNC);
	size_t left = n > 0 ? (size_t)n : 0;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n < 0)
		return err_set(ask->e, -errno, "netlink receive: %m");
	if (left > sizeof raw)
		return err_set(ask->e, -EMSGSIZE, "netlink answer of %zu bytes", left);
	for (char *p = raw; left >= sizeof(struct nlmsghdr);) {
		const struct nlmsghdr *h = (const void *)p;
		size_t step = NLMSG_ALIGN(h->nlmsg_len);
		if (h->nlmsg_len < sizeof *h || h->nlmsg_len > left)
			return err_set(ask->e, -EPROTO, "netlink: bad message length");
		nl_on_message(ask, h);
		step = MIN(step, left);
		p += step;
		left -= step;
	}
	return 0;
}

static int nl_ask(struct nl *n, struct buf *b, uint16_t flags, size_t head_len, nl_each_fn *each,
		  void *arg, struct err *e)
{
	struct nl_ask ask = { .nl = n, .head_len = head_len, .each = each, .arg = arg, .e = e };
	struct nlmsghdr h;
	int r;

	if (e)
		e->code = 0;
	memcpy(&h, b->data, sizeof h);
	h.nlmsg_len = (uint32_t)b->len;
	h.nlmsg_flags |= flags;
	h.nlmsg_seq = ++n->seq;
	memcpy(b->data, &h, sizeof h);
	r = fd_write_full(n->fd, b->data, b->len);
	b->len = 0;
	if (r < 0)
		return err_set(e, r, "netlink send: %s", strerror(-r));
	while (!ask.done) {
		r = nl_receive(&ask);
		if (r < 0)
			return r;
	}
	return MIN(ask.result, 0);
}

int nl_do(struct nl *n, struct buf *b, size_t head_len, nl_each_fn *each, void *arg, struct err *e)
{
	return nl_ask(n, b, NLM_F_ACK, head_len, each, arg, e);
}

int nl_dump(struct nl *n, struct buf *b, size_t head_len, nl_each_fn *each, void *arg,
	    struct err *e)
{
	return nl_ask(n, b, NLM_F_DUMP, head_len, each, arg, e);
}
