/* container.h - one container (or exec) in a sandbox: its streams, its life, its end.
 *
 * Streams are direct: each standard descriptor is handed to the machine process, which moves bytes
 * between it and the guest; nothing passes through us (PROTOCOL.agent section 4). A terminal
 * has no stderr of its own. A container is over when its process ended and every byte of its output was
 * delivered, or when the machine is gone. */
#pragma once

#include "amalgam/runtime/sandbox.h"

struct container_stdio {
	int in, out, err; /* -1 = none; borrowed; err is unused with a terminal */
	bool terminal;
};

struct container {
	struct sandbox *sandbox;
	const char *id;
	const char *user;      /* "user[:group]", names or numbers; NULL = what the spec says */
	uint32_t ports[3];
	unsigned open_outputs; /* output streams not yet delivered to the end */
	bool exited;
	int code;              /* exit code, valid when exited */
	bool lost;             /* exited, but nobody could tell how: the machine is going, or gone */
	void (*done)(void *arg); /* called once everything above is settled; may be NULL */
	void *arg;
};

/* What the root filesystem is: a share, or a disk. */
struct container_rootfs {
	const char *share;  /* name of a share that is a directory; NULL: the disk in */
	unsigned slot;
	const char *fstype; /* "ext4", "erofs" */
	bool read_only;
};

/* The request for a container, for who asks the agent without waiting. Borrows everything; spec, which
 * must have a root, gets the guest's path there. */
struct container_request {
	Grpc__CreateContainerRequest rq;
	Grpc__Storage root, *storages[1];
	char *options[1];
	char source[32];
};
INTERNAL void container_request(struct container_request *q, const char *id, Grpc__Spec *spec,
				const struct container_rootfs *rootfs, const uint32_t ports[3]);
INTERNAL void container_request_fini(struct container_request *q);

/* Create and start. c has user, done and arg set. spec is changed: its root is set. */
INTERNAL MUST_USE int container_run(struct container *c, struct sandbox *s, const char *id,
				    Grpc__Spec *spec, const struct container_rootfs *rootfs,
				    const struct container_stdio *io, struct err *e);
/* To be called from the sandbox's events. */
INTERNAL void container_on_stream(struct container *c, uint64_t cookie, enum hv_stream_event ev);
INTERNAL void container_on_gone(struct container *c);
INTERNAL bool container_is_over(const struct container *c);

/* First superblock of a disk image: "ext4" or "erofs"; NULL and e when it is neither. */
INTERNAL const char *container_detect_fs(int fd, const char *name, struct err *e);
