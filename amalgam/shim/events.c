#include "amalgam/shim/events.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"
#include "task.pb-c.h"

#define SHIM_EVENTS_SERVICE "containerd.services.events.ttrpc.v1.Events"

struct shim_event {
	struct shim_event *next;
	char *topic, *type;
	struct buf bytes;
	uint64_t wall_ns;
};

/* --- the queue ----------------------------------------------------------------------------------- */

static void shim_events_pop(struct shim_events *ev)
{
	struct shim_event *first = ev->first;

	ev->first = first->next;
	if (!ev->first)
		ev->last = &ev->first;
	ev->waiting--;
	ev->tries = 0;
	free(first->topic);
	free(first->type);
	buf_fini(&first->bytes);
	free(first);
}

/* Say once that events are being dropped, until one gets through again. */
static void shim_events_complain(struct shim_events *ev, const char *topic, const char *why)
{
	if (!ev->dropping)
		log_warn("event dropped", KV("topic", topic), KV("reason", why));
	ev->dropping = true;
}

static void shim_events_send(struct timer *t);

/* Send the first, not before `delay_ns` from now. Never from here: the caller may be a callback of the
 * connection that is to be replaced. */
static void shim_events_kick(struct shim_events *ev, uint64_t delay_ns)
{
	timer_start(ev->loop, &ev->timer, delay_ns ? clock_mono_ns() + delay_ns : 0,
		    shim_events_send);
}

void shim_events_publish(struct shim_events *ev, const char *topic, const char *type,
				     const ProtobufCMessage *event)
{
	struct shim_event *n;
	size_t size;

	if (!*ev->address)
		return;
	if (ev->waiting == SHIM_EVENTS_MAX) {
		shim_events_complain(ev, topic, "too many are waiting");
		return;
	}
	n = mem_zalloc(sizeof *n);
	*n = (struct shim_event){ .topic = mem_strdup(topic), .type = mem_strdup(type),
				  .wall_ns = clock_wall_ns() };
	size = protobuf_c_message_get_packed_size(event);
	protobuf_c_message_pack(event, buf_reserve(&n->bytes, size));
	n->bytes.len = size;
	*ev->last = n;
	ev->last = &n->next;
	if (ev->waiting++ == 0)
		shim_events_kick(ev, 0);
}

/* --- the connection ------------------------------------------------------------------------------ */

static void shim_events_on_closed(void *arg, const char *reason)
{
	struct shim_events *ev = arg;

	(void)reason; /* a request under way has heard it; else it does not matter */
	ev->conn = NULL;
}

static void shim_events_hang_up(struct shim_events *ev)
{
	struct ttrpc_conn *c = take_ptr(&ev->conn);

	if (c)
		ttrpc_close(c);
}

/* connect(2) to a Unix socket succeeds or fails at once, with EAGAIN when the backlog is full. */
static int shim_events_connect(struct shim_events *ev, struct err *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t n = strlen(ev->address);

	if (n >= sizeof sa.sun_path)
		return err_set(e, -ENAMETOOLONG, "%s: too long for a socket", ev->address);
	memcpy(sa.sun_path, ev->address, n + 1);
	if (*ev->address == '@')
		sa.sun_path[0] = '\0';
	else
		n++;
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "socket: %m");
	if (connect(fd, (struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		return err_set(e, -errno, "%s: %m", ev->address);
	ev->proven = false;
	ev->conn = ttrpc_open(ev->loop, take_fd(&fd), NULL, 0, shim_events_on_closed, ev, e);
	return ev->conn ? 0 : e->code;
}

/* --- the first event -------------------------------------------------------------------------- */

static void shim_events_delivered(struct shim_events *ev)
{
	ev->proven = true;
	ev->dropping = false;
	shim_events_pop(ev);
	if (ev->first)
		shim_events_kick(ev, 0);
}

static void shim_events_failed(struct shim_events *ev, const char *why, bool is_final)
{
	if (is_final || ev->tries == SHIM_EVENTS_TRIES) {
		shim_events_complain(ev, ev->first->topic, why);
		shim_events_pop(ev);
		if (ev->first)
			shim_events_kick(ev, 0);
		return;
	}
	ev->tries++;
	shim_events_kick(ev, ev->tries * ev->retry_ns);
}

/* A connection that worked and is gone says that containerd was restarted in between: the event itself
 * has not been tried yet. Whatever else went wrong on a connection, the next try gets a new one. */
static void shim_events_on_answer(void *arg, const struct ttrpc_result *r)
{
	struct shim_events *ev = arg;
	bool was_stale = r->code == TTRPC_UNAVAILABLE && ev->proven;

	ev->in_flight = false;
	if (r->code == TTRPC_CANCELLED && !ev->conn) /* we hung up ourselves */
		return;
	if (r->code == TTRPC_OK) {
		shim_events_delivered(ev);
		return;
	}
	ev->proven = false;
	if (was_stale)
		shim_events_kick(ev, 0);
	else
		shim_events_failed(ev, r->message, r->code == TTRPC_INVALID_ARGUMENT);
}

static void shim_events_forward(struct shim_events *ev)
{
	const struct shim_event *n = ev->first;
	Ctd__Any any = CTD__ANY__INIT;
	Ctd__Timestamp at = CTD__TIMESTAMP__INIT;
	Ctd__Envelope envelope = CTD__ENVELOPE__INIT;
	Ctd__ForwardRequest request = CTD__FORWARD_REQUEST__INIT;

	any.type_url = n->type;
	any.value.data = n->bytes.data;
	any.value.len = n->bytes.len;
	at.seconds = (int64_t)(n->wall_ns / NS_PER_S);
	at.nanos = (int32_t)(n->wall_ns % NS_PER_S);
	envelope.timestamp = &at;
	envelope.namespace_ = ev->ns;
	envelope.topic = n->topic;
	envelope.event = &any;
	request.envelope = &envelope;
	ev->in_flight = true;
	ttrpc_request(ev->conn, SHIM_EVENTS_SERVICE, "Forward", &request.base,
		      &ctd__empty__descriptor, SHIM_EVENTS_CALL_S * NS_PER_S,
		      shim_events_on_answer, ev);
}

static void shim_events_send(struct timer *t)
{
	struct shim_events *ev = container_of(t, struct shim_events, timer);
	struct err e = { 0 };

	if (!ev->first || ev->in_flight)
		return;
	if (!ev->proven)
		shim_events_hang_up(ev);
	if (!ev->conn && shim_events_connect(ev, &e) < 0)
		shim_events_failed(ev, e.msg, e.code == -ENAMETOOLONG);
	else
		shim_events_forward(ev);
}

/* --- life ------------------------------------------------------------------------------------- */

void shim_events_init(struct shim_events *ev, struct loop *l, const char *address,
				  const char *ns)
{
	address = address ? address : "";
	if (str_starts(address, "unix://"))
		address += strlen("unix://");
	*ev = (struct shim_events){ .loop = l, .address = mem_strdup(address),
				    .ns = mem_strdup(ns), .retry_ns = NS_PER_S };
	ev->last = &ev->first;
}

unsigned shim_events_flush(struct shim_events *ev, uint64_t deadline_ns)
{
	uint64_t now;

	while (ev->waiting && (now = clock_mono_ns()) < deadline_ns) {
		uint64_t ms = (deadline_ns - now) / NS_PER_MS + 1;
		if (loop_step(ev->loop, (int)MIN(ms, (uint64_t)INT_MAX)) < 0)
			break;
	}
	return ev->waiting;
}

ONLY_TESTED void shim_events_fini(struct shim_events *ev)
{
	timer_stop(&ev->timer);
	shim_events_hang_up(ev);
	while (ev->first)
		shim_events_pop(ev);
	free(take_ptr(&ev->address));
	free(take_ptr(&ev->ns));
}
