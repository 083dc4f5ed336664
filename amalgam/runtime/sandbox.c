#include "amalgam/runtime/sandbox.h"

#include <sys/random.h>
#include <sys/socket.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"

#define SANDBOX_COOKIE_AGENT 1
#define SANDBOX_BOOT_LIMIT_S 60
#define SANDBOX_RETRY_MS     10 /* between attempts to reach an agent that is still booting */
#define SANDBOX_ENTROPY      64

/* --- what the guest said last ------------------------------------------------------------------- */

#define SANDBOX_TAIL  4096
#define SANDBOX_PANIC "Kernel panic - not syncing: "

/* The end of the console log as text; the guest wrote it, so it may be anything but NUL. */
static void sandbox_console_tail(const struct sandbox *s, char tail[SANDBOX_TAIL + 1])
{
	off_t end = s->console_fd < 0 ? 0 : lseek(s->console_fd, 0, SEEK_END);
	off_t at = end > SANDBOX_TAIL ? end - SANDBOX_TAIL : 0;
	ssize_t n = end > 0 ? pread(s->console_fd, tail, SANDBOX_TAIL, at) : 0;

	tail[n > 0 ? n : 0] = '\0';
	for (char *c = tail; *c; c++)
		if (*c != '\n' && (*c < 0x20 || *c > 0x7e))
			*c = ' ';
}

/* A panic's reason, from the line that Linux prints; "" when it is not there. */
static void sandbox_panic_reason(const struct sandbox *s, char *reason, size_t size)
{
	char tail[SANDBOX_TAIL + 1], *at;

	sandbox_console_tail(s, tail);
	at = strstr(tail, SANDBOX_PANIC);
	*reason = '\0';
	if (at) {
		at += strlen(SANDBOX_PANIC);
		snprintf(reason, size, ": %.*s", (int)strcspn(at, "\n"), at);
	}
}

/* The last line that is not empty. */
static void sandbox_last_line(const struct sandbox *s, char *line, size_t size)
{
	char tail[SANDBOX_TAIL + 1], *from;
	size_t n;

	sandbox_console_tail(s, tail);
	n = strlen(tail);
	while (n && (tail[n - 1] == '\n' || tail[n - 1] == ' '))
		tail[--n] = '\0';
	from = strrchr(tail, '\n');
	snprintf(line, size, "%s", n ? (from ? from + 1 : tail) : "nothing");
}

static void sandbox_fail(struct sandbox *s, struct err *e);
static void sandbox_speak(struct sandbox *s);
static void sandbox_try_later(struct sandbox *s);

static void sandbox_on_exited(void *arg, enum ctl_exit how, const char *why)
{
	struct sandbox *s = arg;
	char reason[128] = "";

	s->gone = true;
	s->how = how;
	if (how == CTL_EXIT_PANIC)
		sandbox_panic_reason(s, reason, sizeof reason);
	snprintf(s->why, sizeof s->why, "%s%s", why, reason);
	agent_close(&s->agent); /* whoever waits for an answer hears now */
	if (s->starting.ready)
		sandbox_fail(s, &(struct err){ 0 });
	if (s->events.gone)
		s->events.gone(s->events.arg, how, why);
}

static void sandbox_on_stream(void *arg, uint64_t cookie, enum hv_stream_event ev, int code)
{
	struct sandbox *s = arg;
	bool closed = ev == HV_STREAM_CLOSED;

	if (cookie == SANDBOX_COOKIE_AGENT) {
		s->is_connected = !closed;
		if (s->starting.is_dialing)
			(closed ? sandbox_try_later : sandbox_speak)(s);
		else if (closed && s->agent.conn)
			agent_close(&s->agent);
	} else if (s->events.stream) {
		s->events.stream(s->events.arg, cookie, ev, code);
	}
}

/* spec NULL: nothing but a machine is asked for. */
static int sandbox_spawn(struct sandbox *s, struct loop *l, const struct sandbox_spec *spec,
			 const struct sandbox_events *ev, struct err *e)
{
	const struct hv_callbacks cb = { sandbox_on_exited, sandbox_on_stream, s };
	struct vmm_options opt = { 0 };
	int r;

	s->loop = l;
	if (ev)
		s->events = *ev;
	if (spec && spec->process)
		opt = *spec->process;
	if (spec && spec->nshares)
		opt.serves_files = true;
	if ((r = hv_spawn(&s->vm, &opt, e)) < 0)
		return err_wrap(e, "machine process");
	return hv_watch(&s->vm, l, &cb, e);
}

/* Ask for a stream to the agent; *fd is our end. The guest has not answered when this returns. */
static int sandbox_dial(struct sandbox *s, int *fd, struct err *e)
{
	uint32_t port;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_set(e, -errno, "socketpair: %m");
	r = hv_connect(&s->vm, AGENT_PORT, pair[1], pair[1], false, SANDBOX_COOKIE_AGENT, &port,
		       e);
	close(pair[1]);
	if (r < 0)
		close(pair[0]);
	else
		*fd = pair[0];
	return r;
}

static int sandbox_ended(const struct sandbox *s, struct err *e)
{
	char line[160];

	sandbox_last_line(s, line, sizeof line);
	return err_set(e, -ECONNRESET, "%s before it was ready; last on its console: %s", s->why, line);
}

/* The first disk of each kind goes into the drive for it, which a clone's driver knows already; others,
 * and those a drive cannot take, get a slot of their own. */
int sandbox_disk_add(struct sandbox *s, const struct sandbox_disk *d, uint32_t *slot, struct err *e)
{
	int r = -ENOTSUP;

	*slot = d->read_only ? CTL_SLOT_DRIVE_RO : CTL_SLOT_DRIVE;
	if (!(s->slots_used & 1u << *slot))
		r = hv_attach_blk(&s->vm, *slot, d->fd, d->read_only, e);
	if (r == -ENOTSUP) {
		*slot = CTL_SLOT_FREE;
		while (*slot < LAYOUT_SLOTS && s->slots_used & 1u << *slot)
			(*slot)++;
		if (*slot == LAYOUT_SLOTS)
			return err_set(e, -ENOSPC, "the machine has no room for another disk");
		r = hv_attach_blk(&s->vm, *slot, d->fd, d->read_only, e);
	}
	if (r == 0)
		s->slots_used |= 1u << *slot;
	return r;
}

/* A driver that stays hears of another disk some time later: until then a container would be mounted from one
 * of the wrong size. */
int sandbox_disk_remove(struct sandbox *s, uint32_t slot, struct err *e)
{
	bool is_empty;
	int r = hv_detach(&s->vm, slot, &is_empty, e);

	if (is_empty)
		s->slots_used &= ~(1u << slot);
	return r < 0 ? err_wrap(e, "disk in slot %u", slot) : 0;
}

static int sandbox_attach_disks(struct sandbox *s, const struct sandbox_spec *spec, struct err *e)
{
	ASSERT(spec->ndisks <= SANDBOX_MAX_DISKS);
	for (unsigned i = 0; i < spec->ndisks; i++) {
		int r = sandbox_disk_add(s, &spec->disks[i], &s->slot[i], e);
		if (r < 0)
			return err_wrap(e, "disk %u", i);
	}
	return 0;
}

/* From the other end than disks, which come and go. */
int sandbox_net_add(struct sandbox *s, int tap_fd, int vhost_fd, const struct ctl_net *net, uint32_t *slot,
		    struct err *e)
{
	uint32_t i = LAYOUT_SLOTS - 1;
	int r;

	while (i >= CTL_SLOT_FREE && s->slots_used & 1u << i)
		i--;
	if (i < CTL_SLOT_FREE)
		return err_set(e, -ENOSPC, "the machine has no room for another network card");
	if ((r = hv_attach_net(&s->vm, i, tap_fd, vhost_fd, net, e)) < 0)
		return r;
	s->slots_used |= 1u << i;
	*slot = i;
	return 0;
}

int sandbox_share_add(struct sandbox *s, const struct sandbox_share *share, struct err *e)
{
	int r = hv_share_add(&s->vm, share->name, share->fd, share->flags, e);

	return r < 0 ? err_wrap(e, "share \"%s\"", share->name) : 0;
}

int sandbox_share_remove(struct sandbox *s, const char *name, struct err *e)
{
	int r = hv_share_remove(&s->vm, name, e);

	return r < 0 ? err_wrap(e, "share \"%s\"", name) : 0;
}

static int sandbox_add_shares(struct sandbox *s, const struct sandbox_spec *spec, struct err *e)
{
	for (unsigned i = 0; i < spec->nshares; i++) {
		int r = sandbox_share_add(s, &spec->shares[i], e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The guest has the drives' drivers bound already. */
static unsigned sandbox_slots_to_bind(const struct sandbox *s, unsigned n, uint32_t *out)
{
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++)
		if (s->slot[i] >= CTL_SLOT_FREE)
			out[k++] = s->slot[i];
	return k;
}

/* --- the way to a guest that is ready --------------------------------------------------------------- */

static void sandbox_finish(struct sandbox *s, const struct err *e)
{
	struct sandbox_starting *g = &s->starting;
	sandbox_ready_fn *ready = g->ready;

	timer_stop(&g->retry);
	if (g->fd >= 0)
		close(take_fd(&g->fd));
	g->is_dialing = false;
	g->ready = NULL;
	s->t.agent_answering = clock_mono_ns();
	if (ready)
		ready(g->arg, e);
}

static void sandbox_fail(struct sandbox *s, struct err *e)
{
	if (s->gone)
		sandbox_ended(s, e);
	sandbox_finish(s, e);
}

static void sandbox_on_created(void *arg, const struct ttrpc_result *res)
{
	struct sandbox *s = arg;
	struct err e = { 0 };

	if (res->code == TTRPC_OK) {
		sandbox_finish(s, &e);
		return;
	}
	err_set(&e, -EIO, "guest: %s", res->message);
	sandbox_fail(s, &e);
}

/* Everything that makes this machine itself and not its template, applied by the agent in the order of
 * the message's fields, before any container exists. */
static int sandbox_ask_create(struct sandbox *s, struct err *e)
{
	const struct sandbox_spec *spec = s->starting.spec;
	Grpc__CreateSandboxRequest rq = GRPC__CREATE_SANDBOX_REQUEST__INIT;
	Grpc__SporeClone own = GRPC__SPORE_CLONE__INIT;
	uint8_t entropy[SANDBOX_ENTROPY];
	uint32_t slots[SANDBOX_MAX_DISKS];
	uint8_t raw[16];
	char machine_id[2 * sizeof raw + 1];

	if (getrandom(entropy, sizeof entropy, 0) != (ssize_t)sizeof entropy ||
	    getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw)
		return err_set(e, -EIO, "getrandom: %m");
	for (unsigned i = 0; i < sizeof raw; i++)
		sprintf(machine_id + 2 * i, "%02x", raw[i]);
	own.entropy = (ProtobufCBinaryData){ sizeof entropy, entropy };
	own.wall_time_ns = (int64_t)clock_wall_ns();
	own.machine_id = machine_id;
	own.bind_slots = slots;
	own.n_bind_slots = sandbox_slots_to_bind(s, spec->ndisks, slots);
	own.online_cpus = spec->shape.vcpus;
	own.is_clone = s->is_clone;
	rq.sandbox_id = (char *)(uintptr_t)spec->id;
	rq.hostname = (char *)(uintptr_t)(spec->hostname ? spec->hostname : spec->id);
	rq.spore = &own;
	rq.dns = (char **)(uintptr_t)spec->dns;
	rq.n_dns = spec->ndns;
	agent_ask(&s->agent, "CreateSandbox", &rq, &grpc__empty__descriptor, AGENT_LIMIT_NS,
		  sandbox_on_created, s);
	return 0;
}

/* The stream to the agent is there, or is sure to come: speak. */
static int sandbox_open_agent(struct sandbox *s, struct err *e)
{
	int r = agent_open(&s->agent, s->loop, take_fd(&s->starting.fd), e);

	return r < 0 || !s->starting.spec ? r : sandbox_ask_create(s, e);
}

static void sandbox_speak(struct sandbox *s)
{
	struct err e = { 0 };

	s->starting.is_dialing = false;
	if (sandbox_open_agent(s, &e) < 0)
		sandbox_fail(s, &e);
	else if (!s->starting.spec) /* a template's guest is to hear nothing */
		sandbox_finish(s, &e);
}

static void sandbox_retry(struct timer *t);

/* A booting guest refuses connections, or does not answer, until its agent listens: try again. */
static void sandbox_try_later(struct sandbox *s)
{
	struct sandbox_starting *g = &s->starting;
	char line[160];
	struct err e = { 0 };

	if (g->fd >= 0)
		close(take_fd(&g->fd));
	if (clock_mono_ns() < g->limit_ns) {
		timer_start(s->loop, &g->retry, clock_mono_ns() + SANDBOX_RETRY_MS * NS_PER_MS, sandbox_retry);
		return;
	}
	sandbox_last_line(s, line, sizeof line);
	err_set(&e, -ETIMEDOUT, "the guest did not come up within %d s; last on its console: %s",
		SANDBOX_BOOT_LIMIT_S, line);
	sandbox_finish(s, &e);
}

static void sandbox_retry(struct timer *t)
{
	struct sandbox *s = container_of(t, struct sandbox, starting.retry);
	struct err e = { 0 };

	if (sandbox_dial(s, &s->starting.fd, &e) < 0)
		sandbox_fail(s, &e);
}

static int sandbox_restore(struct sandbox *s, const struct sandbox_spec *spec,
			   const struct ctl_create *create, const struct template_files *from,
			   struct err *e)
{
	struct hv_spec hv = { .create = create, .kvm_fd = spec->kvm_fd,
			      .console_fd = spec->console_fd, .memory_fd = from->memory_fd,
			      .state_fd = from->state_fd, .warm_fd = from->warm_fd, .run = true,
			      .track = spec->track };
	int r = hv_create(&s->vm, &hv, e);

	s->is_clone = r == 0;
	return r;
}

/* Restore from the template that fits. -ENOENT: there is none. */
static int sandbox_clone(struct sandbox *s, const struct sandbox_spec *spec,
			 const struct ctl_create *create, struct err *e)
{
	struct template_files files;
	int r = template_open(create->fingerprint, &files, e);

	if (r == 0) {
		r = sandbox_restore(s, spec, create, &files, e);
		template_close(&files);
	}
	return r;
}

static int sandbox_boot(struct sandbox *s, const struct sandbox_spec *spec,
			const struct ctl_create *create, struct err *e)
{
	struct hv_spec hv = { .create = create, .kvm_fd = spec->kvm_fd, .memory_fd = -1,
			      .console_fd = spec->console_fd, .state_fd = -1, .warm_fd = -1,
			      .run = true };
	int r = vmm_selftest(spec->kvm_fd, e);

	return r < 0 ? r : hv_create(&s->vm, &hv, e);
}

static int sandbox_make_machine(struct sandbox *s, const struct sandbox_spec *spec,
				const struct sandbox_events *ev, struct err *e)
{
	struct ctl_create create;
	struct err no = { 0 };
	int r = template_describe(&spec->shape, spec->kvm_fd, &create, e);

	if (r < 0)
		return r;
	if (spec->from)
		return sandbox_restore(s, spec, &create, spec->from, e);
	if (spec->use_template) {
		r = sandbox_clone(s, spec, &create, &no);
		if (r == 0)
			return 0;
		snprintf(s->no_template, sizeof s->no_template, "%.159s", no.msg);
		/* Who has made no template at all does not expect one. */
		if (r != -ENOENT || template_list(NULL, 0) > 0)
			log_warn("template not used, booting instead", KV("reason", no.msg));
		if (r != -ENOENT) { /* the half-made machine is of no use */
			hv_stop(&s->vm);
			s->gone = false;
			if ((r = sandbox_spawn(s, s->loop, spec, ev, e)) < 0)
				return r;
		}
	}
	return sandbox_boot(s, spec, &create, e);
}

/* The machine runs: reach its agent. */
static int sandbox_reach(struct sandbox *s, const struct sandbox_spec *spec, sandbox_ready_fn *ready,
			 void *arg, struct err *e)
{
	struct sandbox_starting *g = &s->starting;
	int r;

	*g = (struct sandbox_starting){ .spec = spec, .fd = -1,
					.limit_ns = clock_mono_ns() + SANDBOX_BOOT_LIMIT_S * NS_PER_S };
	if ((r = sandbox_dial(s, &g->fd, e)) < 0)
		return s->gone ? sandbox_ended(s, e) : r;
	/* A clone's agent listens already: the request may follow the connection at once. */
	if (s->is_clone && (r = sandbox_open_agent(s, e)) < 0)
		return r;
	g->is_dialing = !s->is_clone;
	g->ready = ready;
	g->arg = arg;
	return 0;
}

int sandbox_begin(struct sandbox *s, struct loop *l, const struct sandbox_spec *spec,
		  const struct sandbox_events *ev, sandbox_ready_fn *ready, void *arg, struct err *e)
{
	int r;

	*s = (struct sandbox){ .vm.ctl_fd = -1, .console_fd = spec->console_fd, .starting.fd = -1,
			       .t.start = clock_mono_ns() };
	if ((r = sandbox_spawn(s, l, spec, ev, e)) < 0)
		return r;
	s->t.vmm_ready = clock_mono_ns();
	if ((r = sandbox_make_machine(s, spec, ev, e)) < 0)
		return r;
	s->t.state_loaded = clock_mono_ns();
	if ((r = sandbox_attach_disks(s, spec, e)) < 0 || (r = sandbox_add_shares(s, spec, e)) < 0)
		return r;
	if (spec->listen_fd >= 0 && (r = hv_listen(&s->vm, spec->listen_fd, e)) < 0)
		return err_wrap(e, "vsock socket");
	return sandbox_reach(s, spec, ready, arg, e);
}

/* --- the same, waiting -------------------------------------------------------------------------------- */

struct sandbox_wait {
	bool over;
	struct err *e;
};

static void sandbox_waited(void *arg, const struct err *e)
{
	struct sandbox_wait *w = arg;

	w->over = true;
	*w->e = *e;
}

static int sandbox_await(struct sandbox *s, struct sandbox_wait *w)
{
	int r = 0;

	while (!w->over && (r = loop_step(s->loop, -1)) == 0)
		;
	return r < 0 ? err_set(w->e, r, "event loop: %s", strerror(-r)) : w->e->code;
}

int sandbox_start(struct sandbox *s, struct loop *l, const struct sandbox_spec *spec,
		  const struct sandbox_events *ev, struct err *e)
{
	struct sandbox_wait w = { .e = e };
	int r = sandbox_begin(s, l, spec, ev, sandbox_waited, &w, e);

	return r < 0 ? r : sandbox_await(s, &w);
}

void sandbox_stop(struct sandbox *s)
{
	if (!s->loop)
		return;
	s->starting.ready = NULL;
	timer_stop(&s->starting.retry);
	agent_close(&s->agent);
	hv_stop(&s->vm);
}

int sandbox_boot_for_template(struct sandbox *s, struct loop *l, const struct ctl_create *create,
			      int kvm_fd, int console_fd, int memory_fd, struct err *e)
{
	struct hv_spec hv = { .create = create, .kvm_fd = kvm_fd, .memory_fd = memory_fd,
			      .console_fd = console_fd, .shared = true, .state_fd = -1, .warm_fd = -1,
			      .run = true };
	struct sandbox_wait w = { .e = e };
	int r;

	*s = (struct sandbox){ .vm.ctl_fd = -1, .console_fd = console_fd, .starting.fd = -1 };
	if ((r = sandbox_spawn(s, l, NULL, NULL, e)) < 0 || (r = hv_create(&s->vm, &hv, e)) < 0 ||
	    (r = sandbox_reach(s, NULL, sandbox_waited, &w, e)) < 0 || (r = sandbox_await(s, &w)) < 0)
		return r;
	r = agent_check(&s->agent, AGENT_LIMIT_NS, e);
	agent_close(&s->agent);
	/* The guest is to have forgotten us before it is saved. */
	while (r == 0 && s->is_connected && !s->gone)
		r = loop_step(l, -1);
	return s->gone ? sandbox_ended(s, e) : r;
}
