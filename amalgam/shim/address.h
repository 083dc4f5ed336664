/* address.h - where a shim is reached: one Unix socket for each pod.
 *
 * Its name is the SHA-256 of containerd's address, the namespace and the pod's id, so it fits whatever
 * their lengths. containerd learns it from the output of `start` and, after a restart, from the file
 * `address` in the bundle. */
#pragma once

#include <sys/un.h>

#include "amalgam/base/err.h"

#define ADDRESS_DIR "/run/containerd/s" /* unless containerd says otherwise */

/* Longest possible path of one. */
#define ADDRESS_MAX (sizeof(((struct sockaddr_un *)0)->sun_path))

/* dir NULL: the usual one. -ENAMETOOLONG when dir is too long for a socket. */
INTERNAL MUST_USE int address_make(char out[ADDRESS_MAX], const char *dir, const char *containerd,
				   const char *ns, const char *id, struct err *e);

/* Bind and listen, mode 0600, directory made if need be. Somebody may be there already: then *taken is
 * set and the result is 0. A socket nobody listens on is replaced. Else a close-on-exec descriptor. */
INTERNAL MUST_USE int address_listen(const char *path, bool *taken, struct err *e);

/* Connect; a blocking, close-on-exec socket or -errno. */
INTERNAL MUST_USE int address_connect(const char *path);

/* The file `address` in a bundle, whole or not at all. */
INTERNAL MUST_USE int address_write(const char *bundle, const char *path, struct err *e);
