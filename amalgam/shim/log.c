#include "amalgam/shim/log.h"

#include <fcntl.h>
#include <signal.h>

#include "amalgam/base/mem.h"

/* False when nobody reads (ENXIO) or the bundle is gone. O_APPEND and O_NOCTTY: whatever else may lie
 * there is not harmed. */
static bool shim_log_open(struct shim_log *lg)
{
	if (lg->fd < 0)
		lg->fd = open(lg->path, O_WRONLY | O_NONBLOCK | O_APPEND | O_NOCTTY | O_CLOEXEC);
	return lg->fd >= 0;
}

static void shim_log_close(struct shim_log *lg)
{
	if (lg->fd >= 0)
		close(take_fd(&lg->fd));
}

/* A line is shorter than PIPE_BUF, so it arrives whole or not at all. EPIPE: the reader of long ago is
 * gone, perhaps there is another by now. */
static void shim_log_put(void *arg, const char *line, size_t n)
{
	struct shim_log *lg = arg;

	for (int tries = 0; tries < 2 && shim_log_open(lg); tries++) {
		if (write(lg->fd, line, n) >= 0 || errno == EAGAIN)
			return;
		shim_log_close(lg);
	}
}

void shim_log_start(struct shim_log *lg, const char *path, enum log_level level)
{
	*lg = (struct shim_log){ .path = mem_strdup(path), .fd = -1 };
	signal(SIGPIPE, SIG_IGN);
	log_setup_sink(shim_log_put, lg, level);
}

ONLY_TESTED void shim_log_stop(struct shim_log *lg)
{
	log_setup(-1, LOG_ERROR);
	shim_log_close(lg);
	free(take_ptr(&lg->path));
}
