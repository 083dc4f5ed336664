#include "amalgam/shim/events.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "task.pb-c.h"
#include "tests/unit/test.h"

/* containerd's end, on the same loop. */
struct tev {
	struct loop loop;
	struct shim_events ev;
	char path[160];
	struct watch listen;
	struct ttrpc_conn *conn;
	int accepted, requests;
	enum ttrpc_code refuse; /* what to answer the next `times` requests */
	int times;
	bool mute; /* answer nothing */
	struct ttrpc_call *muted[4];
	int nmuted;
	Ctd__ForwardRequest *last;
	char topics[4096]; /* accepted, each followed by a space */
};

static void tev_forward(struct ttrpc_call *call, const ProtobufCMessage *m)
{
	const Ctd__ForwardRequest *r = (const Ctd__ForwardRequest *)m;
	Ctd__Empty empty = CTD__EMPTY__INIT;
	struct tev *t = ttrpc_call_arg(call);
	uint8_t packed[512];

	t->requests++;
	if (t->mute) {
		t->muted[t->nmuted++] = call;
		return;
	}
	if (t->times) {
		t->times--;
		ttrpc_fail(call, t->refuse, "not now");
		return;
	}
	if (t->last)
		ctd__forward_request__free_unpacked(t->last, NULL);
	t->last = ctd__forward_request__unpack(
		NULL, protobuf_c_message_pack(m, packed), packed);
	snprintf(t->topics + strlen(t->topics), sizeof t->topics - strlen(t->topics), "%s ",
		 r->envelope->topic);
	ttrpc_reply(call, &empty.base);
}

static const struct ttrpc_method tev_methods[] = {
	{ "containerd.services.events.ttrpc.v1.Events", "Forward",
	  &ctd__forward_request__descriptor, tev_forward },
};

static void tev_closed(void *arg, const char *reason)
{
	(void)reason;
	((struct tev *)arg)->conn = NULL;
}

static void tev_accept(struct watch *w, uint32_t events)
{
	struct tev *t = container_of(w, struct tev, listen);
	struct err e = { 0 };

	(void)events;
	if (t->conn)
		ttrpc_close(t->conn);
	t->conn = ttrpc_open(&t->loop, accept(w->fd, NULL, NULL), tev_methods,
			     ARRAY_LEN(tev_methods), tev_closed, t, &e);
	CHECK(t->conn);
	t->accepted++;
}

static void tev_listen(struct tev *t)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	unlink(t->path);
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s", t->path);
	CHECK_EQ(bind(fd, (struct sockaddr *)&sa, sizeof sa), 0);
	CHECK_EQ(listen(fd, 8), 0);
	CHECK_EQ(watch_start(&t->loop, &t->listen, fd, EPOLLIN, tev_accept), 0);
}

static void tev_go_away(struct tev *t)
{
	if (t->listen.active) {
		watch_stop(&t->listen);
		close(t->listen.fd);
	}
	if (t->conn)
		ttrpc_close(take_ptr(&t->conn));
}

static void tev_start(struct tev *t)
{
	AUTO_FREE char *address = NULL;

	*t = (struct tev){ 0 };
	signal(SIGPIPE, SIG_DFL); /* the publisher must do without anybody ignoring it */
	CHECK_EQ(loop_init(&t->loop), 0);
	snprintf(t->path, sizeof t->path, "%s/s", test_dir());
	address = mem_printf("unix://%s", t->path);
	shim_events_init(&t->ev, &t->loop, address, "default");
	t->ev.retry_ns = NS_PER_MS;
	log_setup(-1, LOG_ERROR);
}

static void tev_end(struct tev *t)
{
	t->mute = false;
	shim_events_fini(&t->ev);
	tev_go_away(t);
	for (int i = 0; i < t->nmuted; i++)
		ttrpc_fail(t->muted[i], TTRPC_CANCELLED, "end");
	if (t->last)
		ctd__forward_request__free_unpacked(t->last, NULL);
	loop_fini(&t->loop);
}

static void tev_publish(struct tev *t, const char *topic)
{
	Ctd__TaskStart m = CTD__TASK_START__INIT;

	m.container_id = "a1";
	m.pid = 42;
	shim_events_publish(&t->ev, topic, "containerd.events.TaskStart", &m.base);
}

/* How many were left after at most a minute. */
static unsigned tev_flush(struct tev *t)
{
	return shim_events_flush(&t->ev, clock_mono_ns() + 60 * NS_PER_S);
}

static void tev_step(struct tev *t, int times)
{
	while (times--)
		CHECK_EQ(loop_step(&t->loop, 5), 0);
}

TEST(shim_events_arrive_as_envelopes_with_the_time_of_their_publishing)
{
	uint64_t before = clock_wall_ns(), after;
	Ctd__Envelope *v;
	Ctd__TaskStart *m;
	struct tev t;
	uint64_t at;

	tev_start(&t);
	tev_listen(&t);
	tev_publish(&t, "/tasks/start");
	after = clock_wall_ns();
	CHECK_EQ(tev_flush(&t), 0);
	v = t.last->envelope;
	CHECK_STR(v->namespace_, "default");
	CHECK_STR(v->topic, "/tasks/start");
	CHECK_STR(v->event->type_url, "containerd.events.TaskStart");
	at = (uint64_t)v->timestamp->seconds * NS_PER_S + (uint64_t)v->timestamp->nanos;
	CHECK(at >= before && at <= after);
	m = ctd__task_start__unpack(NULL, v->event->value.len, v->event->value.data);
	CHECK_STR(m->container_id, "a1");
	CHECK_EQ(m->pid, 42);
	ctd__task_start__free_unpacked(m, NULL);
	tev_end(&t);
}

TEST(shim_events_keep_their_order_and_go_one_at_a_time)
{
	struct tev t;

	tev_start(&t);
	tev_listen(&t);
	t.mute = true;
	tev_publish(&t, "/1");
	tev_publish(&t, "/2");
	tev_publish(&t, "/3");
	tev_step(&t, 5);
	CHECK_EQ(t.requests, 1);
	CHECK_EQ(t.ev.waiting, 3);
	t.mute = false;
	ttrpc_fail(t.muted[0], TTRPC_UNKNOWN, "again"); /* the first is tried again before the second */
	t.nmuted = 0;
	CHECK_EQ(tev_flush(&t), 0);
	CHECK_STR(t.topics, "/1 /2 /3 ");
	tev_end(&t);
}

TEST(shim_events_are_published_to_nobody_without_an_address)
{
	struct tev t;

	tev_start(&t);
	shim_events_fini(&t.ev);
	shim_events_init(&t.ev, &t.loop, NULL, "default");
	tev_publish(&t, "/1");
	CHECK_EQ(t.ev.waiting, 0);
	CHECK_EQ(tev_flush(&t), 0);
	tev_end(&t);
}

TEST(shim_events_wait_for_containerd_to_come_up)
{
	struct tev t;

	tev_start(&t);
	t.ev.retry_ns = 50 * NS_PER_MS;
	tev_publish(&t, "/1");
	tev_publish(&t, "/2");
	tev_step(&t, 3);
	CHECK_EQ(t.ev.waiting, 2);
	tev_listen(&t);
	CHECK_EQ(tev_flush(&t), 0);
	CHECK_STR(t.topics, "/1 /2 ");
	CHECK_EQ(t.accepted, 1);
	tev_end(&t);
}

TEST(shim_events_survive_a_restart_of_containerd)
{
	struct tev t;

	tev_start(&t);
	tev_listen(&t);
	tev_publish(&t, "/1");
	CHECK_EQ(tev_flush(&t), 0);
	tev_go_away(&t);
	tev_step(&t, 3); /* we see the end of the connection, and nothing follows from it */
	CHECK(!t.ev.conn);
	tev_listen(&t);
	tev_publish(&t, "/2");
	CHECK_EQ(tev_flush(&t), 0);
	/* It went and came back before we looked: the event is sent into a dead connection first, and
	 * that is not counted as a failure of the event. */
	tev_go_away(&t);
	tev_listen(&t);
	tev_publish(&t, "/3");
	t.ev.retry_ns = 3600 * NS_PER_S;
	CHECK_EQ(tev_flush(&t), 0);
	CHECK_STR(t.topics, "/1 /2 /3 ");
	CHECK_EQ(t.accepted, 3);
	tev_end(&t);
}

TEST(shim_events_that_containerd_refuses_are_tried_six_times)
{
	struct tev t;

	tev_start(&t);
	tev_listen(&t);
	t.refuse = TTRPC_UNAVAILABLE;
	t.times = 6;
	tev_publish(&t, "/1");
	tev_publish(&t, "/2");
	CHECK_EQ(tev_flush(&t), 0);
	CHECK_EQ(t.requests, 7);
	CHECK_STR(t.topics, "/2 ");
	t.times = 5;
	tev_publish(&t, "/3");
	CHECK_EQ(tev_flush(&t), 0);
	CHECK_STR(t.topics, "/2 /3 ");
	tev_end(&t);
}

TEST(shim_events_that_are_invalid_are_not_tried_again)
{
	struct tev t;

	tev_start(&t);
	tev_listen(&t);
	t.refuse = TTRPC_INVALID_ARGUMENT;
	t.times = 1;
	tev_publish(&t, "/1");
	tev_publish(&t, "/2");
	CHECK_EQ(tev_flush(&t), 0);
	CHECK_EQ(t.requests, 2);
	CHECK_STR(t.topics, "/2 ");
	tev_end(&t);
}

TEST(shim_events_beyond_the_bound_are_dropped_and_the_log_says_so_once)
{
	struct tev t;
	char text[4096];
	int log[2];
	ssize_t n;

	tev_start(&t);
	CHECK_EQ(pipe(log), 0);
	log_setup(log[1], LOG_WARN);
	for (int i = 0; i < SHIM_EVENTS_MAX + 10; i++)
		tev_publish(&t, i < SHIM_EVENTS_MAX ? "/kept" : "/new");
	CHECK_EQ(t.ev.waiting, SHIM_EVENTS_MAX);
	n = read(log[0], text, sizeof text - 1);
	text[MAX(n, 0)] = '\0';
	CHECK_HAS(text, "msg=\"event dropped\" topic=\"/new\" reason=\"too many are waiting\"\n");
	CHECK(strchr(text, '\n') == text + n - 1);
	tev_listen(&t);
	CHECK_EQ(tev_flush(&t), 0);
	CHECK_EQ(t.requests, SHIM_EVENTS_MAX);
	tev_end(&t);
}

TEST(shim_events_flush_ends_at_its_deadline)
{
	struct tev t;
	uint64_t start = clock_mono_ns();

	tev_start(&t);
	tev_listen(&t);
	t.mute = true;
	tev_publish(&t, "/1");
	CHECK_EQ(shim_events_flush(&t.ev, start + 20 * NS_PER_MS), 1);
	CHECK(clock_mono_ns() - start >= 20 * NS_PER_MS);
	CHECK_EQ(shim_events_flush(&t.ev, 0), 1);
	tev_end(&t); /* with a request under way */
}

TEST(shim_events_address_that_is_too_long_costs_nothing)
{
	char address[300];
	struct tev t;

	tev_start(&t);
	shim_events_fini(&t.ev);
	memset(address, 'a', sizeof address - 1);
	address[sizeof address - 1] = '\0';
	shim_events_init(&t.ev, &t.loop, address, "default");
	tev_publish(&t, "/1");
	CHECK_EQ(tev_flush(&t), 0);
	tev_end(&t);
}
