/* logger.h - a program that gets a container's output: binary:// and binary-v2:// URIs.
 *
 *     argv         the path, then key, value ... of the URI's query
 *     environment  CONTAINER_ID (the exec's for an exec), CONTAINER_NAMESPACE; nothing else
 *     directory    the bundle
 *     fd 0, 1, 2   /dev/null
 *     fd 3, 4      read ends of stdout and stderr (at its end from the start with a terminal)
 *     fd 5         write end of the ready pipe
 *
 * It says that it is ready with a byte on fd 5 or by closing it; only the byte counts for binary-v2. It
 * is not ready, and killed, when it ended with a status other than 0, or has said nothing for
 * SHIM_LOGGER_READY_S. (The runc shim takes a logger that died for one that is ready, and waits for ever
 * for one that is silent.)
 *
 * At the end its pipes are closed first: it sees the end of the output when the machine process has let
 * go of them, too. What has not ended SHIM_LOGGER_EOF_S after that gets SIGTERM, and SIGKILL
 * SHIM_LOGGER_TERM_S later.
 *
 * All waiting is done by the loop. The logger is a child of ours and reaped here, by its pid: nobody
 * else in the process may waitpid(-1) it away. A logger that dies in between is reaped and otherwise not
 * noticed: its readers are gone, and so the streams end with EPIPE. */
#pragma once

#include "amalgam/base/loop.h"
#include "amalgam/shim/uri.h"

#define SHIM_LOGGER_READY_S 10
#define SHIM_LOGGER_EOF_S   1
#define SHIM_LOGGER_TERM_S  12

/* e is NULL when the logger is ready; else why not, and it is dead or about to be: shim_logger_end() or
 * _fini() as ever. Called once, from the loop; may call both. */
typedef void shim_logger_ready_fn(void *arg, const struct err *e);
/* The logger has ended. Called once, from the loop. */
typedef void shim_logger_over_fn(void *arg);

struct shim_logger_spec {
	const struct shim_uri *uri; /* BINARY or BINARY_V2 */
	const char *bundle, *id, *ns;
	bool terminal;
};

struct shim_logger {
	struct loop *loop;
	pid_t pid; /* 0 = none, or reaped */
	int pidfd, ready_fd, exec_fd; /* -1 = none */
	struct watch pid_watch, ready_watch;
	struct timer timer;
	bool must_say; /* binary-v2 */
	bool ended_well;
	char *path;
	uint64_t ready_ns, eof_ns, term_ns; /* the waits above; shorter in tests */
	shim_logger_ready_fn *ready; /* NULL once called */
	shim_logger_over_fn *over;
	void *arg;
};

INTERNAL void shim_logger_init(struct shim_logger *lg, struct loop *l);

/* Start it. out[0] and out[1] become the write ends of its stdout and stderr (-1 with a terminal): the
 * caller's, non-blocking, close-on-exec. `ready` follows. */
INTERNAL MUST_USE int shim_logger_start(struct shim_logger *lg, const struct shim_logger_spec *s,
					int out[2], shim_logger_ready_fn *ready, void *arg,
					struct err *e);

/* End it as told above; the write ends were closed. True: `over` follows. False: there is none (any
 * more), `over` is not called. `ready` is not called any more. */
INTERNAL MUST_USE bool shim_logger_end(struct shim_logger *lg, shim_logger_over_fn *over, void *arg);

/* At once, with SIGKILL; calls nothing. */
INTERNAL void shim_logger_fini(struct shim_logger *lg);
