/* stdio.h - the three standard streams of a process, between its pipes or terminal and the host.
 *
 * A stream is direct (a connection from the host to our port 1027 carries it, PROTOCOL.agent
 * section 4) or buffered (WriteStdin, ReadStdout, ReadStderr; the pipe itself is the buffer, so a
 * slow reader stops the writer). Both directions of a terminal go through the pty master.
 *
 * The end of output: the last writer has closed; or the process has ended, two seconds have passed
 * for those it left behind, and what was in the pipe then has been read. */
#pragma once

#include "amalgam/base/buf.h"
#include "amalgam/base/err.h"
#include "amalgam/base/loop.h"
#include "amalgam/wire/ttrpc.h"

enum ga_stdio_index { GA_STDIN, GA_STDOUT, GA_STDERR };

struct ga_stream {
	struct ga_stdio *io;
	enum ga_stdio_index index;
	int fd;             /* our end of the pipe, or the pty master; -1 = ended */
	int sock;           /* direct: the host's connection; -1 = none (any more) */
	uint32_t port;      /* direct: the host port that names it; 0 = buffered */
	bool has_connected; /* direct: its connection came; it may be gone again */
	bool has_ended;
	bool is_last; /* output: nothing more will be written, read what is there */
	struct watch fd_watch, sock_watch;
	struct buf pending;      /* taken from one side, not yet by the other */
	struct ttrpc_call *call; /* buffered: the read or write in progress */
	const uint8_t *data;     /* buffered stdin: what the call still has to write */
	size_t len, done;        /* stdin: bytes in all and written; output: bytes wanted */
	size_t last;             /* direct output: bytes still read once is_last */
};

struct ga_stdio {
	struct loop *loop;
	bool terminal;
	struct ga_stream stream[3];
	struct timer drain;
};

INTERNAL void ga_stdio_init(struct ga_stdio *io, struct loop *l);
INTERNAL void ga_stdio_fini(struct ga_stdio *io);

/* Make the pipes (not with a terminal, whose master comes later); child[] gets the child's ends,
 * close-on-exec, the caller's. pipe_size 0 = the kernel's default. */
INTERNAL MUST_USE int ga_stdio_open(struct ga_stdio *io, bool terminal, const uint32_t ports[3],
				    uint32_t pipe_size, int child[3], struct err *e);
/* Take the pty master. */
INTERNAL void ga_stdio_set_terminal(struct ga_stdio *io, int master);

/* Does a direct stream still lack its connection? Its port, or 0. */
INTERNAL uint32_t ga_stdio_missing(const struct ga_stdio *io);
/* Does any stream wait for a connection from port? */
INTERNAL bool ga_stdio_wants(const struct ga_stdio *io, uint32_t port);
/* Take the connection, for all of them. */
INTERNAL void ga_stdio_connect(struct ga_stdio *io, uint32_t port, int fd);

/* The process has ended. */
INTERNAL void ga_stdio_drain(struct ga_stdio *io);

/* The three requests. A refusal is answered, too. */
INTERNAL void ga_stdio_write(struct ga_stdio *io, struct ttrpc_call *call, const uint8_t *data,
			     size_t n);
INTERNAL void ga_stdio_read(struct ga_stdio *io, enum ga_stdio_index i, struct ttrpc_call *call,
			    size_t max);
INTERNAL void ga_stdio_close_stdin(struct ga_stdio *io);

/* Set the size of the terminal; -ENOTTY without one. */
INTERNAL MUST_USE int ga_stdio_resize(struct ga_stdio *io, uint16_t rows, uint16_t columns);
