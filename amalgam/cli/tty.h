/* tty.h - the person's terminal and the standard descriptors. */
#pragma once

#include <termios.h>

#include "amalgam/base/base.h"

struct tty {
	bool raw;
	struct termios before;
};

/* Raw mode on descriptor 0, and back. Restoring twice, or what was never changed, is fine. */
INTERNAL void tty_raw(struct tty *t);
INTERNAL void tty_restore(struct tty *t);
/* Its size; false when it has none. */
INTERNAL bool tty_size(unsigned *rows, unsigned *cols);

/* A description of our own, non-blocking, for a pipe or terminal that we share with others: changing
 * O_NONBLOCK on theirs would surprise them. Anything else is returned as it is. */
INTERNAL int tty_reopen(int fd, int flags);
