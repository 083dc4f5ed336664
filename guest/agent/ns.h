/* ns.h - namespaces the agent keeps for the sandbox, and short visits to them.
 *
 * A child takes its namespaces from its parent, so the agent enters those a container is to join,
 * clones, and comes back: no helper process, and a pid or time namespace works like any other.
 * Mount and user namespaces are never entered this way; the child joins them itself. A return that
 * fails would leave PID 1 in a container: that is an ASSERT. */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

enum ga_ns_kind {
	GA_NS_IPC,
	GA_NS_UTS,
	GA_NS_PID,
	GA_NS_NET,
	GA_NS_TIME,
	GA_NS_CGROUP,
	GA_NS_MOUNT,
	GA_NS_USER,
	GA_NS_KINDS,
};

/* One descriptor per kind, -1 = none. */
struct ga_ns_set {
	int fd[GA_NS_KINDS];
};

#define GA_NS_SET_NONE ((struct ga_ns_set){ { -1, -1, -1, -1, -1, -1, -1, -1 } })

/* Kind of an OCI namespace type ("network"), or -EINVAL. */
INTERNAL MUST_USE int ga_ns_kind(const char *type);
/* CLONE_NEW* of a kind. */
INTERNAL uint64_t ga_ns_flag(enum ga_ns_kind kind);

INTERNAL void ga_ns_close(struct ga_ns_set *s);

/* The agent's own, to come back to. Once, at start. */
INTERNAL MUST_USE int ga_ns_open_own(struct ga_ns_set *own, struct err *e);

/* Descriptor of a namespace named by path, which must be of this kind. */
INTERNAL MUST_USE int ga_ns_open(enum ga_ns_kind kind, const char *path, struct err *e);

/* Move this process into all of `to` but mount and user; on failure it is back where it was. */
INTERNAL MUST_USE int ga_ns_enter(const struct ga_ns_set *own, const struct ga_ns_set *to,
				  struct err *e);
INTERNAL void ga_ns_return(const struct ga_ns_set *own, const struct ga_ns_set *from);

/* A new time namespace with offsets written, for a child to be cloned into. */
INTERNAL MUST_USE int ga_ns_new_time(const struct ga_ns_set *own, const Grpc__Linux *l,
				     struct err *e);
/* New ipc and uts namespaces. */
INTERNAL MUST_USE int ga_ns_new_shared(const struct ga_ns_set *own, struct ga_ns_set *out,
				       struct err *e);
/* Name the host in the uts namespace of `in`. */
INTERNAL MUST_USE int ga_ns_set_hostname(const struct ga_ns_set *own, const struct ga_ns_set *in,
					 const char *hostname, struct err *e);
