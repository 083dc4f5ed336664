/* pump.h - move bytes from one descriptor to another on an event loop, without waiting for either.
 *
 * For commands whose streams do not go through the machine process directly. A descriptor that epoll
 * does not know (a regular file) is always ready. At the end of input the output is shut down if it
 * is a socket, and done() is called once everything read was written or the output is gone. */
#pragma once

#include "amalgam/base/loop.h"

#define PUMP_BYTES 16384

struct pump {
	struct watch in, out;
	int in_fd, out_fd;  /* borrowed */
	size_t at, len;     /* what of buf is still to be written */
	bool eof, over;
	struct loop *loop;
	void (*done)(void *arg);
	void *arg;
	uint8_t buf[PUMP_BYTES];
};

/* Both descriptors should be non-blocking where they can be. 0 or -errno. */
INTERNAL MUST_USE int pump_start(struct pump *p, struct loop *l, int in_fd, int out_fd,
				 void (*done)(void *arg), void *arg);
