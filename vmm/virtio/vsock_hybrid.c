#include "vmm/virtio/vsock_hybrid.h"

#include <sys/socket.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"

#include "vmm/virtio/vsock_mux.h"

struct vhyb_client {
	int fd;      /* -1 = nobody */
	bool passfd; /* has said so; its next message brings the descriptor */
	unsigned len;
	char line[VMUX_LINE_MAX + 1];
	uint64_t deadline_ns;
	struct watch watch;
};

struct vhyb {
	struct vsk *v;
	int listen_fd;
	struct watch listener; /* stopped while all places are taken */
	struct timer expire;
	struct vhyb_client client[VMUX_CLIENTS];
};

static void vhyb_knock(struct watch *w, uint32_t events);

static void vhyb_listen(struct vhyb *h)
{
	if (h->listen_fd >= 0 && !h->listener.active &&
	    watch_start(h->v->vdev.loop, &h->listener, h->listen_fd, EPOLLIN, vhyb_knock) == 0)
		h->listener.owner = h;
}

/* The place is free; the descriptor is the caller's. */
static int vhyb_leave(struct vhyb *h, struct vhyb_client *c)
{
	int fd = take_fd(&c->fd);

	watch_stop(&c->watch);
	vhyb_listen(h);
	return fd;
}

static void vhyb_refuse(struct vhyb *h, struct vhyb_client *c)
{
	close(vhyb_leave(h, c));
}

/* Split off the next word of lower or upper case letters or digits; NULL at the end. */
static char *vhyb_word(char **at)
{
	char *w = *at + strspn(*at, " \t\r");
	size_t n = strcspn(w, " \t\r");

	if (n == 0)
		return NULL;
	*at = w + n;
	if (**at)
		*(*at)++ = '\0';
	return w;
}

static bool vhyb_port(const char *word, uint32_t *port)
{
	uint64_t n;

	if (!word || str_u64(word, 0, UINT32_MAX, &n) < 0)
		return false;
	*port = (uint32_t)n;
	return true;
}

/* A whole line, newline cut off. */
static void vhyb_command(struct vhyb *h, struct vhyb_client *c)
{
	struct vmux_spec s = { .in_fd = c->fd, .out_fd = c->fd };
	char *at = c->line, *verb = vhyb_word(&at), *arg = vhyb_word(&at);

	if (verb && strcasecmp(verb, "passfd") == 0 && !arg) {
		c->passfd = true;
	} else if (verb && strcasecmp(verb, "connect") == 0 && vhyb_port(arg, &s.guest_port) &&
		   !vhyb_word(&at)) {
		(void)vhyb_leave(h, c);
		(void)vmux_connect_greeting(&h->v->vdev, &s, s.in_fd); /* closes it on failure */
	} else {
		vhyb_refuse(h, c);
	}
}

/* Take what belongs to the line and not a byte more: behind it come the client's own. */
static void vhyb_read_line(struct vhyb *h, struct vhyb_client *c)
{
	char *at = c->line + c->len, *end;
	ssize_t r = recv(c->fd, at, VMUX_LINE_MAX - c->len, MSG_DONTWAIT | MSG_PEEK);

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	end = r > 0 ? memchr(at, '\n', (size_t)r) : NULL;
	if (end)
		r = end + 1 - at;
	if (r <= 0 || recv(c->fd, at, (size_t)r, MSG_DONTWAIT) != r ||
	    (c->len += (unsigned)r, !end && c->len == VMUX_LINE_MAX)) {
		vhyb_refuse(h, c);
		return;
	}
	if (!end)
		return;
	*end = '\0';
	if (memchr(c->line, '\0', c->len) != end)
		vhyb_refuse(h, c);
	else
		vhyb_command(h, c);
}

/* "<port>" or "<port> keep", with one descriptor, in one message. */
static void vhyb_read_fd(struct vhyb *h, struct vhyb_client *c)
{
	struct vmux_spec s = { .in_fd = -1, .out_fd = -1 };
	char text[VMUX_LINE_MAX + 2], *at = text, *keep;
	int fd = -1;
	size_t nfds = 1;
	ssize_t r = fd_recv(c->fd, text, VMUX_LINE_MAX + 1, &fd, &nfds, MSG_DONTWAIT);

	if (r == -EAGAIN)
		return;
	text[MAX(r, 0)] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (r <= 0 || r > VMUX_LINE_MAX || nfds != 1 || !vhyb_port(vhyb_word(&at), &s.guest_port) ||
	    ((keep = vhyb_word(&at)) && (strcmp(keep, "keep") != 0 || vhyb_word(&at)))) {
		if (r > 0 && nfds == 1)
			close(fd);
		vhyb_refuse(h, c);
		return;
	}
	s.keep = keep != NULL;
	s.in_fd = s.out_fd = fd;
	(void)vmux_connect_greeting(&h->v->vdev, &s, vhyb_leave(h, c));
}

static void vhyb_spoke(struct watch *w, uint32_t events)
{
	struct vhyb_client *c = container_of(w, struct vhyb_client, watch);
	struct vhyb *h = w->owner;

	(void)events;
	if (h->v->quiet)
		watch_stop(w);
	else if (c->passfd)
		vhyb_read_fd(h, c);
	else
		vhyb_read_line(h, c);
}

static void vhyb_expire_in(struct vhyb *h, uint64_t deadline_ns)
{
	if (!h->expire.active || h->expire.deadline_ns > deadline_ns)
		timer_start(h->v->vdev.loop, &h->expire, deadline_ns, h->expire.fn);
}

static void vhyb_expired(struct timer *t)
{
	struct vhyb *h = container_of(t, struct vhyb, expire);
	uint64_t now = clock_mono_ns();

	if (h->v->quiet) /* vhyb_resume() gives them more time */
		return;
	for (unsigned i = 0; i < VMUX_CLIENTS; i++) {
		struct vhyb_client *c = &h->client[i];
		if (c->fd < 0)
			continue;
		if (c->deadline_ns <= now)
			vhyb_refuse(h, c);
		else
			vhyb_expire_in(h, c->deadline_ns);
	}
}

static struct vhyb_client *vhyb_place(struct vhyb *h)
{
	for (unsigned i = 0; i < VMUX_CLIENTS; i++)
		if (h->client[i].fd < 0)
			return &h->client[i];
	return NULL;
}

static void vhyb_knock(struct watch *w, uint32_t events)
{
	struct vhyb *h = w->owner;
	struct vhyb_client *c = vhyb_place(h);
	int fd;

	(void)events;
	if (!c || h->v->quiet) { /* the kernel's backlog holds them meanwhile */
		watch_stop(w);
		return;
	}
	fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	*c = (struct vhyb_client){ .fd = fd,
				   .deadline_ns = clock_mono_ns() + VMUX_CLIENT_MS * NS_PER_MS };
	if (watch_start(h->v->vdev.loop, &c->watch, fd, EPOLLIN, vhyb_spoke) < 0) {
		close(take_fd(&c->fd));
		return;
	}
	c->watch.owner = h;
	vhyb_expire_in(h, c->deadline_ns);
	vhyb_spoke(&c->watch, EPOLLIN); /* most have written already */
}

void vhyb_resume(struct vhyb *h)
{
	for (unsigned i = 0; i < VMUX_CLIENTS; i++) {
		struct vhyb_client *c = &h->client[i];
		if (c->fd < 0)
			continue;
		c->deadline_ns = clock_mono_ns() + VMUX_CLIENT_MS * NS_PER_MS;
		vhyb_expire_in(h, c->deadline_ns);
		if (c->watch.active)
			continue;
		if (watch_start(h->v->vdev.loop, &c->watch, c->fd, EPOLLIN, vhyb_spoke) < 0)
			close(take_fd(&c->fd));
		c->watch.owner = h;
	}
	vhyb_listen(h);
}

int vhyb_start(struct vhyb *h, int listen_fd, struct err *e)
{
	int r;

	if (h->listen_fd >= 0) {
		close(listen_fd);
		return err_set(e, -EBUSY, "vsock: a hybrid socket is being served already");
	}
	r = fd_set_nonblock(listen_fd, true); /* ours alone: nobody else accepts on it */
	if (r == 0)
		r = watch_start(h->v->vdev.loop, &h->listener, listen_fd, EPOLLIN, vhyb_knock);
	if (r < 0) {
		close(listen_fd);
		return err_set(e, r, "vsock hybrid socket: %s", strerror(-r));
	}
	h->listener.owner = h;
	h->listen_fd = listen_fd;
	return 0;
}

struct vhyb *vhyb_new(struct vsk *v)
{
	struct vhyb *h = mem_zalloc(sizeof *h);

	h->v = v;
	h->listen_fd = -1;
	h->expire.fn = vhyb_expired;
	for (unsigned i = 0; i < VMUX_CLIENTS; i++)
		h->client[i].fd = -1;
	return h;
}

void vhyb_free(struct vhyb *h)
{
	timer_stop(&h->expire);
	watch_stop(&h->listener);
	if (h->listen_fd >= 0)
		close(h->listen_fd);
	for (unsigned i = 0; i < VMUX_CLIENTS; i++)
		if (h->client[i].fd >= 0) {
			watch_stop(&h->client[i].watch);
			close(h->client[i].fd);
		}
	free(h);
}
