/* boot.h - from a kernel that has just started /init to a system the agent can work in.
 *
 * As PID 1: the early mounts, a root that can be left by pivot_root(2), the kernel command line,
 * cgroup controllers, loopback. With --listen (tests on an ordinary Linux): none of it. */
#pragma once

#include <sys/un.h>

#include "amalgam/base/err.h"
#include "amalgam/base/log.h"

#define GA_CGROUP_ROOT "/sys/fs/cgroup"
#define GA_STATE_DIR   "/run/kata-containers"
#define GA_SHARE_TAG   "spore"
#define GA_SHARE_DIR   "/run/spore/share" /* what the host shares, each by its name: PROTOCOL.agent */

/* What the command line decides. Names and defaults are the stock agent's. */
struct ga_config {
	bool is_init; /* we are PID 1 of a guest, not a test */
	enum log_level log_level;
	char listen[sizeof((struct sockaddr_un *)0)->sun_path]; /* "" = vsock */
	uint32_t rpc_port, stream_port;
	uint32_t log_port;  /* 0 = none */
	uint32_t pipe_size; /* bytes; 0 = the kernel's default */
	uint32_t hotplug_timeout_ms;
	uint32_t launch_timeout_ms; /* from clone3() to "ready to execve" */
};

INTERNAL void ga_boot_defaults(struct ga_config *c);

/* Apply the "agent." words of a kernel command line. Unknown ones are ignored, values that make no
 * sense too (a guest that does not boot helps nobody); each is logged. */
INTERNAL void ga_boot_cmdline(struct ga_config *c, char *line);

/* Early mounts, re-rooting, sysctls. A failure here is final: the caller prints it and powers off.
 */
INTERNAL MUST_USE int ga_boot_system(struct err *e);

/* Power off, without return. is_init false: exit. */
INTERNAL NORETURN void ga_boot_off(const struct ga_config *c);
