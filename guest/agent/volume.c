#include "guest/agent/volume.h"

#include <sys/statvfs.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <linux/mount.h>

#include "amalgam/base/mem.h"
#include "guest/agent/mount.h"

static void ga_volume_usage(Grpc__VolumeUsage *u, Grpc__VolumeUsage__Unit unit, uint64_t total,
			    uint64_t free_all, uint64_t available)
{
	grpc__volume_usage__init(u);
	u->unit = unit;
	u->total = total;
	u->used = total - free_all;
	u->available = available;
}

void ga_volume_stats(struct ttrpc_call *call, const char *path)
{
	Grpc__VolumeStatsResponse r = GRPC__VOLUME_STATS_RESPONSE__INIT;
	Grpc__VolumeUsage bytes, inodes, *usage[] = { &bytes, &inodes };
	Grpc__VolumeCondition condition = GRPC__VOLUME_CONDITION__INIT;
	struct statvfs v;

	if (statvfs(path, &v) < 0) {
		ttrpc_fail(call, TTRPC_INTERNAL, "volume %.256s: %s", path, strerror(errno));
		return;
	}
	ga_volume_usage(&bytes, GRPC__VOLUME_USAGE__UNIT__BYTES, v.f_blocks * v.f_frsize,
			v.f_bfree * v.f_frsize, v.f_bavail * v.f_frsize);
	ga_volume_usage(&inodes, GRPC__VOLUME_USAGE__UNIT__INODES, v.f_files, v.f_ffree,
			v.f_favail);
	r.usage = usage;
	r.n_usage = ARRAY_LEN(usage);
	r.volume_condition = &condition;
	ttrpc_reply(call, &r.base);
}

int ga_volume_update(const Grpc__UpdateEphemeralMountsRequest *req, struct err *e)
{
	for (size_t i = 0; i < req->n_storages; i++) {
		const Grpc__Storage *s = req->storages[i];
		if (strcmp(s->driver, "ephemeral") != 0)
			return err_set(e, -EOPNOTSUPP, "storage driver \"%s\" cannot be updated",
				       s->driver);
		if (ga_mount_reconfigure(s->mount_point, s->options, s->n_options, e) < 0)
			return err_wrap(e, "update %s", s->mount_point);
	}
	return 0;
}
