/* mount.h - mount options by their names, and mounts that follow nothing the container controls.
 *
 * A mount is made in three moves: parse the options, make it detached (open_tree(2) for a bind,
 * fsopen(2) for a filesystem), attach it to a target that is already open. What a name means is
 * decided once, when the target is opened; a symlink swapped in later changes nothing.
 *
 * Options: runtime-spec config.md "Linux mount options", mount(8), and Documentation of each
 * filesystem for the rest, which is handed on as it is. */
#pragma once

#include "amalgam/base/buf.h"
#include "amalgam/base/err.h"

struct ga_mount_opts {
	uint64_t set, clear;         /* MOUNT_ATTR_* of the mount */
	uint64_t rec_set, rec_clear; /* the same for everything below it: rro, rnosuid ... */
	uint64_t propagation[4];     /* MS_* in the order given, | MS_REC */
	unsigned n_propagation;
	bool bind, bind_rec;
	bool remount;
	bool idmap, idmap_rec;
	bool copy_up;    /* tmpcopyup: start a tmpfs with what it hides */
	bool no_fail;    /* nofail: none where there is no place and none can be made */
	struct buf data; /* options of the filesystem: NUL-terminated strings one after the other */
};

/* Take all options apart. Zero `o` first; ga_mount_opts_fini() frees it, also after a failure. */
INTERNAL MUST_USE int ga_mount_parse(char *const *options, size_t n, struct ga_mount_opts *o,
				     struct err *e);
INTERNAL void ga_mount_opts_fini(struct ga_mount_opts *o);
INTERNAL void ga_mount_opts_auto_fini(struct ga_mount_opts *o);
#define AUTO_MOUNT_OPTS __attribute__((cleanup(ga_mount_opts_auto_fini)))

/* A detached mount with all attributes set; returns its descriptor, the mount lives as long as
 * that unless attached. `source` of a bind is resolved here, following symlinks. */
INTERNAL MUST_USE int ga_mount_make(const char *type, const char *source,
				    const struct ga_mount_opts *o, struct err *e);

/* Put the mount on top of what target_fd (O_PATH is enough) refers to, then set propagation. */
INTERNAL MUST_USE int ga_mount_attach(int mount_fd, int target_fd, const struct ga_mount_opts *o,
				      struct err *e);

/* mount_setattr() with AT_EMPTY_PATH; 0/-errno. */
INTERNAL MUST_USE int ga_mount_setattr(int fd, bool recursive, uint64_t set, uint64_t clear,
				       uint64_t propagation);

/* All three moves onto a path of the agent's own tree, which must exist. */
INTERNAL MUST_USE int ga_mount_at(const char *type, const char *source, const char *target,
				  char *const *options, size_t n, struct err *e);

/* Open (O_PATH) a place below root_fd, making what is missing: directories on the way, and at the
 * end a directory or an empty file. Symlinks are followed as if root_fd were "/". */
INTERNAL MUST_USE int ga_mount_target(int root_fd, const char *path, bool directory, struct err *e);

/* New filesystem options (size=) for what is mounted at path. */
INTERNAL MUST_USE int ga_mount_reconfigure(const char *path, char *const *options, size_t n,
					   struct err *e);

/* Unmount whatever is stacked on path; a path that is no mount point is success. */
INTERNAL void ga_mount_undo(const char *path);
