/* caps.h - the five capability sets of a process, by name. capabilities(7). */
#pragma once

#include "amalgam/base/err.h"
#include "oci.pb-c.h"

struct ga_caps {
	uint64_t bounding, effective, inheritable, permitted, ambient;
};

/* Number of "CAP_NET_RAW" (any case, prefix optional), or -EINVAL. */
INTERNAL MUST_USE int ga_caps_number(const char *name);

/* NULL gives empty sets. Names this kernel or we do not know are left out: older runtimes do the
 * same, and a container without a capability is never less safe. */
INTERNAL void ga_caps_parse(const Grpc__LinuxCapabilities *c, struct ga_caps *out);

/* Before the user changes: shrink the bounding set and keep the permitted set across setuid(2). */
INTERNAL MUST_USE int ga_caps_prepare(const struct ga_caps *c, struct err *e);
/* After it. keep_admin leaves CAP_SYS_ADMIN permitted, not effective, until ga_caps_final(). */
INTERNAL MUST_USE int ga_caps_apply(const struct ga_caps *c, bool keep_admin, struct err *e);
/* Make CAP_SYS_ADMIN effective for a moment (loading a seccomp filter needs it). */
INTERNAL MUST_USE int ga_caps_raise_admin(const struct ga_caps *c, struct err *e);
/* Exactly the sets asked for. One system call, capset(2): a filter may be in force already. */
INTERNAL MUST_USE int ga_caps_final(const struct ga_caps *c, struct err *e);
