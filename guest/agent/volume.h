/* volume.h - questions about mounted volumes, and tmpfs volumes that change size. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/wire/ttrpc.h"

/* GetVolumeStats: bytes and inodes of the filesystem at a path. */
INTERNAL void ga_volume_stats(struct ttrpc_call *call, const char *path);
/* UpdateEphemeralMounts: new options for tmpfs storages that are mounted. */
INTERNAL MUST_USE int ga_volume_update(const Grpc__UpdateEphemeralMountsRequest *req,
				       struct err *e);
