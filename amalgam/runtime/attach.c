#include "amalgam/runtime/attach.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"
#include "amalgam/runtime/rundir.h"
#include "task.pb-c.h"

#define ATTACH_LINE_MAX 32
#define ATTACH_LIMIT_S  10 /* for the machine to take a connection and its guest to accept it */

static int attach_connect(const char *id, struct err *e)
{
	AUTO_FREE char *dir = rundir_path(id);
	const struct timeval limit = { .tv_sec = ATTACH_LIMIT_S };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	snprintf(a.sun_path, sizeof a.sun_path, "%s/agent.sock", dir);
	if (fd < 0)
		return err_set(e, -errno, "socket: %m");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	r = connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
	if (r == -ENOENT && access(dir, F_OK) < 0)
		return err_set(e, -ENOENT, "no sandbox named \"%s\"; see: spore ps", id);
	/* One that has ended has no socket any more, one whose supervisor was killed a dead one. */
	if (r == -ENOENT || r == -ECONNREFUSED)
		return err_set(e, -ECONNREFUSED, "sandbox \"%s\" is not running; see: spore ps", id);
	return r < 0 ? err_set(e, r, "%s: %s", a.sun_path, strerror(-r)) : take_fd(&fd);
}

/* One line, byte by byte: what follows it belongs to the stream. */
static int attach_read_line(int fd, char line[ATTACH_LINE_MAX])
{
	for (unsigned n = 0; n < ATTACH_LINE_MAX; n++) {
		if (fd_read_full(fd, line + n, 1) < 0)
			return -EPIPE;
		if (line[n] == '\n') {
			line[n] = '\0';
			return 0;
		}
	}
	return -EPROTO;
}

int attach_dial(const char *id, uint32_t guest_port, uint32_t *host_port, struct err *e)
{
	char line[ATTACH_LINE_MAX];
	uint64_t port = 0;
	int r, n;

	if ((r = rundir_check_id(id, e)) < 0)
		return r;
	AUTO_CLOSE int fd = attach_connect(id, e);
	if (fd < 0)
		return fd;
	n = snprintf(line, sizeof line, "CONNECT %u\n", guest_port);
	if (fd_write_full(fd, line, (size_t)n) < 0 || attach_read_line(fd, line) < 0 ||
	    !str_starts(line, "OK ") || str_u64(line + 3, 0, UINT32_MAX, &port) < 0)
		return err_set(e, -ECONNREFUSED, "sandbox \"%s\" does not answer; end it with: "
			       "spore rm --force %s", id, id);
	if (host_port)
		*host_port = (uint32_t)port;
	return take_fd(&fd);
}

int attach_agent(const char *id, struct agent *a, struct loop *l, struct err *e)
{
	int fd = attach_dial(id, AGENT_PORT, NULL, e);

	return fd < 0 ? fd : agent_open(a, l, fd, e);
}

static int attach_connect_shim(const struct target *t, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s", t->shim);
	if (fd < 0)
		return err_set(e, -errno, "socket: %m");
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		return err_set(e, -errno, "sandbox \"%s\": its shim does not answer: %m; see: spore ps",
			       t->sandbox);
	return take_fd(&fd);
}

int attach_ask_shim(const struct target *t, const char *method, const ProtobufCMessage *rq, struct err *e)
{
	struct ttrpc_conn *c;
	struct loop l;
	int r = loop_init(&l), fd;

	if (r < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	fd = attach_connect_shim(t, e);
	c = fd < 0 ? NULL : ttrpc_open(&l, fd, NULL, 0, NULL, NULL, e);
	if (c) {
		if (ttrpc_request_wait(c, "containerd.task.v2.Task", method, rq, &ctd__empty__descriptor,
				       ATTACH_LIMIT_S * NS_PER_S, NULL, e) != TTRPC_OK)
			err_wrap(e, "container \"%s\"", t->container);
		ttrpc_close(c);
	}
	loop_fini(&l);
	return e->code;
}
