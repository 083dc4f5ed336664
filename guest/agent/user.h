/* user.h - who a process runs as: numbers from the request, names from the container's own files.
 *
 * /etc/passwd and /etc/group belong to the image and are input like any other: read with a limit,
 * lines that make no sense are passed over. Sources: passwd(5), group(5), runtime-spec config.md
 * "User". */
#pragma once

#include <sys/types.h>

#include "agent.pb-c.h"
#include "amalgam/base/err.h"

#define GA_USER_MAX_GROUPS 1024

struct ga_user {
	uid_t uid;
	gid_t gid;
	gid_t groups[GA_USER_MAX_GROUPS];
	size_t n_groups;
	char home[256]; /* of uid in passwd; "" = not there */
};

/* The lookups alone, on the text of the two files. name is a user name or a number. A number needs
 * no entry; its gid is then 0 unless the entry exists. */
INTERNAL MUST_USE int ga_user_find(const char *passwd, const char *name, uid_t *uid, gid_t *gid,
				   struct err *e);
INTERNAL MUST_USE int ga_user_find_group(const char *group, const char *name, gid_t *gid,
					 struct err *e);
INTERNAL void ga_user_home(const char *passwd, uid_t uid, char *home, size_t size);
/* Groups that list the user as a member. */
INTERNAL void ga_user_memberships(const char *passwd, const char *group, uid_t uid,
				  struct ga_user *out);

/* Everything for one process; the calling process's root is the container's. */
INTERNAL MUST_USE int ga_user_resolve(const Grpc__User *u, const Grpc__StringUser *s,
				      struct ga_user *out, struct err *e);

/* setgroups, setgid, setuid. */
INTERNAL MUST_USE int ga_user_become(const struct ga_user *u, struct err *e);

/* One of /proc/<pid>/uid_map and gid_map of a process in a new user namespace; then both. */
INTERNAL MUST_USE int ga_user_write_map(const char *pid, const char *file,
					Grpc__LinuxIDMapping *const *m, size_t n, struct err *e);
INTERNAL MUST_USE int ga_user_write_maps(pid_t pid, const Grpc__Linux *l, struct err *e);
