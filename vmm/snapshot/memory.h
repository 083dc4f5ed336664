/* memory.h - guest memory to and from a sparse file.
 *
 * A run of zero pages is a hole, if it is long enough to be worth one: a clone pays one mmap for every
 * stretch of data, so shorter ones are data too. A hole that is left is never allocated later, so a
 * file on a full tmpfs is as good as any.
 *
 * Lists of pages (data, write set) are ranges: u32 first page, u32 number of pages, little-endian, by
 * page numbers of the memory file. */
#pragma once

#include "amalgam/base/buf.h"
#include "vmm/gmem.h"

#define SNAPMEM_MIN_HOLE KIB(128)

/* The machine runs on `m` mapped shared over m->fd: punch the holes and fill what is too short for one.
 * vCPUs are parked. */
INTERNAL MUST_USE int snapmem_punch(const struct gmem *m, struct err *e);

/* Write all of `m` to fd (a new, empty file), which gets the length of the memory. */
INTERNAL MUST_USE int snapmem_write(const struct gmem *m, int fd, struct err *e);

/* Append the ranges of fd that are data. Asking the file system takes a call or two for each, which the
 * writer does once and not every clone. */
INTERNAL MUST_USE int snapmem_list(int fd, uint64_t bytes, struct buf *out, struct err *e);

/* Map the ranges of snapmem_list() over m, which is private over m->fd. The bytes are hostile: -EPROTO
 * unless they ascend and lie inside. */
INTERNAL MUST_USE int snapmem_map(const struct gmem *m, struct cur in, struct err *e);

/* Append the ranges of pages that a clone, m, has written since it was restored from m->fd: what the
 * next one will write as well. `written` has a bit for each page of m, set for those that the guest has
 * written, be it with what was there; pages that differ from the file's data (devices write, too) are
 * added to it. */
INTERNAL MUST_USE int snapmem_changed(const struct gmem *m, uint64_t *written, struct buf *out,
				      struct err *e);

/* Have these pages ready before the guest runs. The bytes are hostile; what makes no sense is ignored,
 * as it is only a hint. */
INTERNAL void snapmem_warm(const struct gmem *m, struct cur in);
