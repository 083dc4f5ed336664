#include "amalgam/shim/shim.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"

#define SHIM_GUARD_S 60  /* for containerd to come to the address it was told */
#define SHIM_FLUSH_S 3   /* what Shutdown waits for at most */
#define SHIM_MAX_CONNS 256

struct shim_conn {
	struct shim *shim;
	struct ttrpc_conn *conn;
	struct shim_conn *next;
};

struct shim *shim_of(struct ttrpc_call *call)
{
	return ((struct shim_conn *)ttrpc_call_arg(call))->shim;
}

static void shim_nobody_came(struct timer *t);

/* Nobody knows of us, or nobody remembers: a client that was killed between `start` and Create, or after
 * a Create that failed. */
static void shim_expect_somebody(struct shim *s)
{
	timer_start(&s->loop, &s->guard, clock_mono_ns() + SHIM_GUARD_S * NS_PER_S, shim_nobody_came);
}

/* --- connections ------------------------------------------------------------------------------ */

/* One that ends says nothing about the shim: containerd probes, restarts, and has one for each container. */
static void shim_on_closed(void *arg, const char *reason)
{
	struct shim_conn *c = arg, **at = &c->shim->conns;
	struct shim *s = c->shim;

	(void)reason;
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	if (!s->conns && !s->containers)
		shim_expect_somebody(s);
	free(c);
}

static unsigned shim_count_conns(const struct shim *s)
{
	unsigned n = 0;

	for (const struct shim_conn *c = s->conns; c; c = c->next)
		n++;
	return n;
}

static bool shim_is_ours(int fd)
{
	struct ucred who;
	socklen_t n = sizeof who;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && who.uid == geteuid();
}

static void shim_accept(struct watch *w, uint32_t events)
{
	struct shim *s = container_of(w, struct shim, listening);
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	const struct ttrpc_method *methods;
	struct shim_conn *c;
	struct err e;
	size_t n;

	(void)events;
	if (fd < 0)
		return;
	if (!shim_is_ours(fd) || shim_count_conns(s) >= SHIM_MAX_CONNS) {
		close(fd);
		return;
	}
	timer_stop(&s->guard);
	c = mem_zalloc(sizeof *c);
	c->shim = s;
	c->next = s->conns;
	s->conns = c;
	methods = task_methods(&n);
	c->conn = ttrpc_open(&s->loop, fd, methods, n, shim_on_closed, c, &e);
	if (!c->conn) {
		log_warn("connection refused", KV("reason", e.msg));
		shim_on_closed(c, e.msg);
	}
}

/* --- life ------------------------------------------------------------------------------------- */

/* Unless `delete` has removed it and it is another's by now. */
static void shim_unlink_socket(const struct shim *s)
{
	struct stat st;

	if (stat(s->socket, &st) == 0 && st.st_dev == s->socket_dev && st.st_ino == s->socket_ino)
		unlink(s->socket);
}

/* Whatever is left goes: machine, mounts, cgroup, directory, socket. */
static NORETURN void shim_end(struct shim *s)
{
	shim_unlink_socket(s);
	pod_stop(s); /* first: it answers what is under way */
	while (s->containers)
		shim_container_free(s->containers);
	shim_events_flush(&s->events, clock_mono_ns() + SHIM_FLUSH_S * NS_PER_S);
	_exit(0);
}

static void shim_end_now(struct timer *t)
{
	shim_end(container_of(t, struct shim, end));
}

/* From the loop, so that the answer to Shutdown leaves first. */
void shim_maybe_end(struct shim *s)
{
	if (s->shutdown && !s->containers)
		timer_start(&s->loop, &s->end, clock_mono_ns() + NS_PER_MS, shim_end_now);
	else if (!s->containers && !s->conns)
		shim_expect_somebody(s);
}

static void shim_nobody_came(struct timer *t)
{
	struct shim *s = container_of(t, struct shim, guard);

	if (s->containers)
		return;
	log_warn("nobody talks to the shim, which ends", KV("id", s->id));
	shim_end(s);
}

static void shim_on_signal(struct watch *w, uint32_t events)
{
	struct shim *s = container_of(w, struct shim, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(s->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
		return;
	log_info("shim ends by a signal", KV("id", s->id));
	shim_end(s);
}

static int shim_watch_signals(struct shim *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? -errno
				: watch_start(&s->loop, &s->signals, s->signal_fd, EPOLLIN, shim_on_signal);
}

/* containerd's environment is for the shim, not for its hooks and loggers: it is cleared. */
static const char *shim_events_address(const struct shim_bootstrap *b)
{
	const char *env = getenv("TTRPC_ADDRESS");

	return b->ttrpc_address ? b->ttrpc_address : env ? env : "";
}

static int shim_init(struct shim *s, const struct shim_flags *f, const struct shim_bootstrap *b)
{
	int r = loop_init(&s->loop);

	if (r < 0)
		return r;
	shim_events_init(&s->events, &s->loop, shim_events_address(b), s->ns);
	shim_log_start(&s->log, mem_printf("%s/log", s->bundle), f->debug ? LOG_DEBUG : LOG_INFO);
	clearenv();
	if ((r = shim_watch_signals(s)) < 0)
		return r;
	shim_expect_somebody(s);
	return watch_start(&s->loop, &s->listening, s->listen_fd, EPOLLIN, shim_accept);
}

void shim_serve(const struct shim_flags *f, const struct shim_bootstrap *b, const char *group,
		const char *socket, int listen_fd)
{
	static struct shim s; /* one for each process */
	char cwd[PATH_MAX];
	struct stat st;

	s.ns = mem_strdup(f->ns);
	s.id = mem_strdup(group);
	s.bundle = mem_strdup(getcwd(cwd, sizeof cwd) ? cwd : "/");
	snprintf(s.socket, sizeof s.socket, "%s", socket);
	if (stat(socket, &st) == 0) {
		s.socket_dev = st.st_dev;
		s.socket_ino = st.st_ino;
	}
	s.listen_fd = listen_fd;
	s.pod.kvm_fd = s.pod.console_fd = s.pod.listen_fd = -1;
	fd_set_nonblock(listen_fd, true);
	if (shim_init(&s, f, b) == 0)
		loop_run(&s.loop);
	shim_end(&s);
}
