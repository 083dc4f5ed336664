/* memory.h - guest memory to and from a sparse file: a page of zeros is a hole. */
#pragma once

#include "vmm/gmem.h"

/* The machine runs on `m` mapped shared over m->fd: punch a hole for every page of zeros, so that a
 * template holds only what its guest uses. vCPUs are parked. */
INTERNAL MUST_USE int snapmem_punch(const struct gmem *m, struct err *e);

/* Write all of `m` to fd (a new, empty file), which gets the length of the memory. */
INTERNAL MUST_USE int snapmem_write(const struct gmem *m, int fd, struct err *e);
