/* err.h - the one way to report a failure.
 *
 * A function that can fail returns 0 or a count on success and a negative errno on failure. Where a
 * person will read the reason, it also takes a `struct err *e` last: fixed size, owned by the
 * caller, no allocation, so it works in PID 1, under seccomp and when memory is gone. Each level
 * adds what it alone knows with err_wrap(); the top prints or logs the line once. Nobody logs and
 * returns.
 *
 * Three kinds of wrong stay apart: the guest (or a client, or a file) did something odd: refuse it,
 * count it, go on; the environment failed: negative errno; we are wrong: ASSERT(). */
#pragma once

#include "amalgam/base/base.h"

struct err {
	int code;      /* negative errno, 0 while nothing went wrong */
	char msg[512]; /* "outer: inner: reason", never ends in a newline; cut when too long */
};

/* Set message and code; %m prints the current errno. Returns `code`, which must be negative.
 * `e` may be NULL when the caller does not want words. errno is left as it was. */
INTERNAL int err_set(struct err *e, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Put "<fmt>: " before the message. Returns the code that is already set (-EIO if none was). */
INTERNAL int err_wrap(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
