/* stdio.h - the streams of a process as containerd names them, opened for the machine process.
 *
 * A stream is a fifo (a path, or fifo://) that a client made; or both outputs are one file (file://) or
 * go to a logger (binary://, logger.h). The machine process moves the bytes; what is opened here is
 * handed to it. Who holds what, and until when:
 *
 *     in_fd       read end of the stdin fifo         the machine, until it has read the end or the
 *                                                    process is over. Ours only until handed over
 *     in_keep_fd  a write end of the same fifo       we, until CloseIO: without it a client that
 *                                                    leaves would be taken for the end of input.
 *                                                    What lies in the fifo then is still read
 *     out_fd,     a fifo, both ends at once          the machine, until it has written the last byte.
 *     err_fd                                         Since it holds a read end, too, a client may
 *                                                    leave and another come: the writer waits, it does
 *                                                    not fail. Ours only until handed over: as long as
 *                                                    we hold it, clients see no end of output
 *     out_fd,     a file, or the write end of a      the same; a logger that died is EPIPE
 *     err_fd      logger's pipe
 *
 * So: shim_stdio_open(), wait for `ready` if it says so, hand over, shim_stdio_drop_ours() at once.
 * CloseIO is shim_stdio_close_in(). When the process is over and its output delivered, or nothing came
 * of it: shim_stdio_close(), which lets go of everything and ends the logger. Nothing of this blocks.
 *
 * A plain path may also name something else that exists: a regular file is appended to, a device (as
 * /dev/null) is written; stdin is a fifo or a device. Nothing is created but for file://. Symbolic links
 * are followed, as by the runc shim: who may name these paths may have containerd run anything as root.
 * What is opened is what was looked at, not what a rename put there in between. */
#pragma once

#include "amalgam/shim/logger.h"

struct shim_stdio_spec {
	const char *in, *out, *err; /* "" or NULL = no such stream */
	bool terminal;              /* one stream for all output: err is not opened */
	const char *bundle;         /* for a logger, as are: */
	const char *id;             /* the exec's id for an exec, else the container's */
	const char *ns;
};

struct shim_stdio {
	int in_fd, in_keep_fd, out_fd, err_fd; /* -1 = none; err_fd may be the same file as out_fd */
	struct shim_logger logger;
};

/* 0: ready. 1: a logger is to become ready, `ready` follows from the loop, then with the reason if it
 * does not (shim_stdio_close() is due then as always). Negative: e names the path, all is closed. */
INTERNAL MUST_USE int shim_stdio_open(struct shim_stdio *io, struct loop *l,
				      const struct shim_stdio_spec *s, shim_logger_ready_fn *ready,
				      void *arg, struct err *e);

/* The machine has its own copies of in_fd, out_fd and err_fd now: close ours. Again: does nothing. */
INTERNAL void shim_stdio_drop_ours(struct shim_stdio *io);

/* CloseIO. The process sees the end of its input once clients are gone, too, and all is read. Again:
 * does nothing. */
INTERNAL void shim_stdio_close_in(struct shim_stdio *io);

/* Close everything and end the logger. True: `over` follows from the loop when it has ended (within
 * SHIM_LOGGER_EOF_S + SHIM_LOGGER_TERM_S), and io must stay till then. False: all is done. */
INTERNAL MUST_USE bool shim_stdio_close(struct shim_stdio *io, shim_logger_over_fn *over, void *arg);

/* The same at once, a logger is killed. For the end of the shim; calls nothing. */
INTERNAL void shim_stdio_fini(struct shim_stdio *io);
