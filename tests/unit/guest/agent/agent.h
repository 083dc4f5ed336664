/* agent.h - the guest agent as part of the unit test program: everything but its main(). */
#pragma once

#ifndef NL_RECV_SIZE /* unless the host's half has brought it */
#include "amalgam/base/nl.c"
#endif

#include "guest/agent/wait.c"
#include "guest/agent/mount.c"
#include "guest/agent/ns.c"
#include "guest/agent/cgdev.c"
#include "guest/agent/cgroup.c"
#include "guest/agent/slot.c"

#include "guest/agent/caps.c"
#include "guest/agent/user.c"
#include "guest/agent/limits.c"
#include "guest/agent/seccomp.c"
#include "guest/agent/copyup.c"
#include "guest/agent/idmap.c"
#include "guest/agent/dev.c"
#include "guest/agent/rootfs.c"
#include "guest/agent/tty.c"
#include "guest/agent/hooks.c"
#include "guest/agent/init.c"

#include "guest/agent/stdio.c"
#include "guest/agent/direct.c"
#include "guest/agent/storage.c"
#include "guest/agent/oom.c"
#include "guest/agent/process.c"
#include "guest/agent/container.c"
#include "guest/agent/signal.c"
#include "guest/agent/update.c"
#include "guest/agent/stats.c"
#include "guest/agent/volume.c"
#include "guest/agent/copyfile.c"
#include "guest/agent/net.c"
#include "guest/agent/route.c"
#include "guest/agent/metrics.c"
#include "guest/agent/hotplug.c"
#include "guest/agent/resume.c"
#include "guest/agent/sandbox.c"
#include "guest/agent/rpc.c"
#include "guest/agent/logport.c"
#include "guest/agent/reap.c"
#include "guest/agent/boot.c"
int ga_agent_main(int argc, char **argv);
#define main ga_agent_main
#include "guest/agent/agent.c"
#undef main
