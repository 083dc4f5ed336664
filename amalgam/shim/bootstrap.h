/* bootstrap.h - what containerd tells a shim beside its command line: stdin of `start`, and the options
 * that come with it and with Create.
 *
 * Up to containerd 2.2 stdin holds a google.protobuf.Any with the runtime's options, or nothing. From 2.3
 * on it holds BootstrapParams (wire/proto/task.proto), the options among its extensions. Nothing says
 * which of the two it is, and either may decode as the other: it is BootstrapParams if it names
 * containerd's version or one of its addresses, or if its first field is our -id.
 *
 * Nothing here fails. Bytes that cannot be decoded and types that are not known leave the defaults,
 * since a shim that refuses to start for them breaks with the next version of containerd. */
#pragma once

#include "amalgam/base/buf.h"
#include "task.pb-c.h"

/* What of the options concerns us. NULL, empty or 0 unless given. */
struct shim_options {
	char *config_path;      /* runtimeoptions: a file for config.h */
	struct buf config_body; /* runtimeoptions: its text instead, TOML */
	char *shim_cgroup;      /* runc options: where the daemon itself goes */
	bool systemd_cgroup;    /* runc options */
	uint32_t io_uid, io_gid; /* runc options: owner of the container's ends of pipes */
};

/* Take over what `any` (may be NULL) holds if it is containerd.runc.v1.Options,
 * runtimeoptions.v1.Options or cri.runtimeoptions.v1.Options. What was set before stays where it says
 * nothing. */
INTERNAL void shim_options_add(struct shim_options *o, const Ctd__Any *any);
INTERNAL void shim_options_fini(struct shim_options *o);

struct shim_bootstrap {
	bool is_bootstrap; /* there were BootstrapParams; else all below but options is unset */
	char *ttrpc_address, *grpc_address, *socket_dir; /* NULL = not said */
	char *containerd_version;
	int log_level; /* -8 trace, -4 debug, 0 info, 4 warning, 8 error and more; others may come */
	struct shim_options options;
};

#define SHIM_BOOTSTRAP_MAX (1u << 20) /* bytes of stdin; more are not read */
#define SHIM_BOOTSTRAP_WAIT_MS 2000   /* containerd has written before it runs us */

/* Append what fd holds up to its end to b. Terminals, devices and closed descriptors hold nothing; a
 * pipe that stays open holds what came within SHIM_BOOTSTRAP_WAIT_MS. */
INTERNAL void shim_bootstrap_read(int fd, struct buf *b);

/* b must be zeroed; release with shim_bootstrap_fini() in any case. id is -id. */
INTERNAL void shim_bootstrap_decode(struct shim_bootstrap *b, const void *p, size_t n,
				    const char *id);
INTERNAL void shim_bootstrap_fini(struct shim_bootstrap *b);
