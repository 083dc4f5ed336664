#include "guest/agent/user.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"

#define GA_USER_MAX_FILE (1u << 20)

/* ---- passwd(5) and group(5): lines of fields between colons */

struct ga_user_line {
	char field[7][256];
	unsigned n;
};

/* Take one line apart and step to the next; fields that are too long make the line useless (n 0).
 */
static const char *ga_user_line(const char *p, struct ga_user_line *l)
{
	size_t len = strcspn(p, "\n");
	const char *end = p + len;

	l->n = 0;
	for (const char *s = p; s <= end && l->n < ARRAY_LEN(l->field); l->n++) {
		size_t n = strcspn(s, ":\n");
		if (n >= sizeof l->field[0]) {
			l->n = 0;
			break;
		}
		memcpy(l->field[l->n], s, n);
		l->field[l->n][n] = '\0';
		s += n + 1;
	}
	return *end ? end + 1 : end;
}

static bool ga_user_number(const char *s, uint32_t *out)
{
	uint64_t v;

	/* (uid_t)-1 means "leave as it is" to the kernel. */
	if (str_u64(s, 0, UINT32_MAX - 1, &v) < 0)
		return false;
	*out = (uint32_t)v;
	return true;
}

int ga_user_find(const char *passwd, const char *name, uid_t *uid, gid_t *gid, struct err *e)
{
	uint32_t number = 0;
	bool is_number = ga_user_number(name, &number);
	struct ga_user_line l;

	for (const char *p = passwd; *p;) {
		uint32_t u, g;
		p = ga_user_line(p, &l);
		if (l.n < 4 || !ga_user_number(l.field[2], &u) || !ga_user_number(l.field[3], &g))
			continue;
		if (is_number ? u != number : strcmp(l.field[0], name) != 0)
			continue;
		*uid = u;
		*gid = g;
		return 0;
	}
	if (!is_number)
		return err_set(e, -EINVAL,
			       "unable to find user %s: no matching entries in passwd file", name);
	*uid = number;
	*gid = 0;
	return 0;
}

int ga_user_find_group(const char *group, const char *name, gid_t *gid, struct err *e)
{
	struct ga_user_line l;
	uint32_t g;

	if (ga_user_number(name, &g)) {
		*gid = g;
		return 0;
	}
	for (const char *p = group; *p;) {
		p = ga_user_line(p, &l);
		if (l.n < 3 || strcmp(l.field[0], name) != 0 || !ga_user_number(l.field[2], &g))
			continue;
		*gid = g;
		return 0;
	}
	return err_set(e, -EINVAL, "unable to find group %s: no matching entries in group file",
		       name);
}

void ga_user_home(const char *passwd, uid_t uid, char *home, size_t size)
{
	struct ga_user_line l;
	uint32_t u;

	*home = '\0';
	for (const char *p = passwd; *p;) {
		p = ga_user_line(p, &l);
		if (l.n < 6 || !ga_user_number(l.field[2], &u) || u != uid)
			continue;
		snprintf(home, size, "%s", l.field[5]);
		return;
	}
}

static void ga_user_add_group(struct ga_user *u, gid_t gid)
{
	for (size_t i = 0; i < u->n_groups; i++)
		if (u->groups[i] == gid)
			return;
	if (u->n_groups < GA_USER_MAX_GROUPS)
		u->groups[u->n_groups++] = gid;
}

/* Is name one of the comma-separated words at p? The list is as long as the line, so it is looked
 * at where it is. */
static bool ga_user_in_list(const char *p, const char *name)
{
	size_t n = strlen(name);

	for (; *p && *p != '\n'; p += *p == ',') {
		size_t len = strcspn(p, ",\n");
		if (len == n && !memcmp(p, name, n))
			return true;
		p += len;
	}
	return false;
}

void ga_user_memberships(const char *passwd, const char *group, uid_t uid, struct ga_user *out)
{
	struct ga_user_line l;
	char name[sizeof l.field[0]] = "";
	uint32_t n;

	for (const char *p = passwd; *p && !*name;) {
		p = ga_user_line(p, &l);
		if (l.n >= 3 && ga_user_number(l.field[2], &n) && n == uid)
			memcpy(name, l.field[0], sizeof name);
	}
	for (const char *p = group; *name && *p; p += strcspn(p, "\n"), p += *p == '\n') {
		const char *members = p;
		char gid[16];
		for (unsigned colons = 0; colons < 3 && *members && *members != '\n'; members++)
			colons += *members == ':';
		if (!*members || *members == '\n' || !ga_user_in_list(members, name))
			continue;
		if (sscanf(p, "%*[^:\n]:%*[^:\n]:%15[0-9]:", gid) == 1 && ga_user_number(gid, &n))
			ga_user_add_group(out, n);
	}
}

/* ---- One process */

/* A missing file is an empty one; so is a FIFO or a device somebody put there. */
static void ga_user_read(const char *path, struct buf *b)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	while (b->len < GA_USER_MAX_FILE && (n = read(fd, buf_reserve(b, 4096), 4096)) > 0)
		b->len += (size_t)n;
}

int ga_user_resolve(const Grpc__User *u, const Grpc__StringUser *s, struct ga_user *out,
		    struct err *e)
{
	AUTO_BUF struct buf passwd = { 0 }, group = { 0 };
	const char *users, *groups;

	*out = (struct ga_user){ .uid = u ? u->uid : 0, .gid = u ? u->gid : 0 };
	ga_user_read("/etc/passwd", &passwd);
	ga_user_read("/etc/group", &group);
	users = buf_cstr(&passwd);
	groups = buf_cstr(&group);
	if (s && *s->uid) {
		if (ga_user_find(users, s->uid, &out->uid, &out->gid, e) < 0)
			return e->code;
		ga_user_memberships(users, groups, out->uid, out);
	} else if (u && *u->username && !u->uid) {
		if (ga_user_find(users, u->username, &out->uid, &out->gid, e) < 0)
			return e->code;
	}
	if (s && *s->gid && ga_user_find_group(groups, s->gid, &out->gid, e) < 0)
		return e->code;
	for (size_t i = 0; u && i < u->n_additionalgids; i++)
		ga_user_add_group(out, u->additionalgids[i]);
	for (size_t i = 0; s && i < s->n_additionalgids; i++) {
		gid_t g;
		if (ga_user_find_group(groups, s->additionalgids[i], &g, e) < 0)
			return e->code;
		ga_user_add_group(out, g);
	}
	ga_user_home(users, out->uid, out->home, sizeof out->home);
	return 0;
}

int ga_user_become(const struct ga_user *u, struct err *e)
{
	/* EPERM: a user namespace in which setgroups is denied; then there is nothing to drop. */
	if (setgroups(u->n_groups, u->groups) < 0 && (errno != EPERM || u->n_groups))
		return err_set(e, -errno, "setgroups: %m");
	if (setresgid(u->gid, u->gid, u->gid) < 0)
		return err_set(e, -errno, "setgid %u: %m", u->gid);
	if (setresuid(u->uid, u->uid, u->uid) < 0)
		return err_set(e, -errno, "setuid %u: %m", u->uid);
	return 0;
}

int ga_user_write_map(const char *pid, const char *file, Grpc__LinuxIDMapping *const *m, size_t n,
		      struct err *e)
{
	AUTO_FREE char *path = mem_printf("/proc/%s/%s", pid, file);
	AUTO_BUF struct buf b = { 0 };
	int r;

	if (!n)
		return err_set(e, -EINVAL, "user namespace without id mappings");
	for (size_t i = 0; i < n; i++)
		buf_printf(&b, "%u %u %u\n", m[i]->containerid, m[i]->hostid, m[i]->size);
	r = path_put(path, buf_cstr(&b));
	return r < 0 ? err_set(e, r, "%s: %s", file, strerror(-r)) : 0;
}

int ga_user_write_maps(pid_t pid, const Grpc__Linux *l, struct err *e)
{
	char name[16];

	snprintf(name, sizeof name, "%d", pid);
	if (ga_user_write_map(name, "uid_map", l->uidmappings, l->n_uidmappings, e) < 0 ||
	    ga_user_write_map(name, "gid_map", l->gidmappings, l->n_gidmappings, e) < 0)
		return e->code;
	return 0;
}
