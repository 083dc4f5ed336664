/* memory.h - guest memory to and from a sparse file.
 *
 * A run of zero pages is a hole, if it is long enough to be worth one: a clone pays one mmap for every
 * stretch of data (gmem.c), so shorter ones are data too. A hole that is left is never allocated
 * later, so a file on a full tmpfs is as good as any. */
#pragma once

#include "amalgam/base/buf.h"
#include "vmm/gmem.h"

#define SNAPMEM_MIN_HOLE KIB(128)

/* The machine runs on `m` mapped shared over m->fd: punch the holes and fill what is too short for one.
 * vCPUs are parked. */
INTERNAL MUST_USE int snapmem_punch(const struct gmem *m, struct err *e);

/* Write all of `m` to fd (a new, empty file), which gets the length of the memory. */
INTERNAL MUST_USE int snapmem_write(const struct gmem *m, int fd, struct err *e);

/* The pages a clone has written since it was restored from m->fd, as the ranges that
 * snapmem_warm() takes: what the next clone will write as well. m is private over m->fd. */
INTERNAL MUST_USE int snapmem_changed(const struct gmem *m, struct buf *out, struct err *e);

/* Have these pages ready before the guest runs. The bytes are hostile; what makes no sense is ignored,
 * as it is only a hint. */
INTERNAL void snapmem_warm(const struct gmem *m, struct cur in);
