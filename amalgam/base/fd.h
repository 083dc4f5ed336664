/* fd.h - whole reads and writes, descriptors across sockets, memory files.
 *
 * All functions return 0 or a count, or a negative errno; EINTR is retried inside. */
#pragma once

#include <sys/types.h>

#include "amalgam/base/base.h"

/* Exactly n bytes, or -EPIPE when the other end closed first (short file: same). */
INTERNAL MUST_USE int fd_read_full(int fd, void *p, size_t n);
INTERNAL MUST_USE int fd_pread_full(int fd, void *p, size_t n, off_t at);
INTERNAL MUST_USE int fd_write_full(int fd, const void *p, size_t n);
INTERNAL MUST_USE int fd_pwrite_full(int fd, const void *p, size_t n, off_t at);

INTERNAL int fd_set_nonblock(int fd, bool on);

/* One message with up to FD_PASS_MAX descriptors over a Unix socket. The descriptors stay the
 * sender's. flags as for sendmsg(); MSG_NOSIGNAL is added. Returns bytes sent. */
#define FD_PASS_MAX 8
INTERNAL MUST_USE ssize_t fd_send(int sock, const void *p, size_t n, const int *fds, size_t nfds,
				  int flags);

/* Counterpart. *nfds: room in, received out; received descriptors are close-on-exec and the
 * caller's. 0 means the peer closed. A message cut short (data or descriptors) is -EMSGSIZE and
 * nothing is kept. */
INTERNAL MUST_USE ssize_t fd_recv(int sock, void *p, size_t n, int *fds, size_t *nfds, int flags);

/* Anonymous memory file, close-on-exec, with sealing allowed. */
INTERNAL MUST_USE int fd_memfd(const char *name);

/* Close every descriptor from `first` up. */
INTERNAL void fd_close_from(unsigned first);
