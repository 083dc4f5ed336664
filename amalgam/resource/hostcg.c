#include "amalgam/resource/hostcg.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"

#define HOSTCG_ROOT          "/sys/fs/cgroup"
#define HOSTCG_DEFAULT       "/spore" /* sandboxes nobody gave a place */
#define HOSTCG_MAX_FILE      (1u << 20)
#define HOSTCG_MAX_MOUNTINFO (64u << 20)
#define HOSTCG_WAIT_NS       (2 * NS_PER_S) /* for freezing and killing */
#define HOSTCG_BUSY_NS       (1 * NS_PER_S) /* for removing */
#define HOSTCG_STEP_US       2000
#define HOSTCG_PERIOD        100000 /* us; the kernel's default */

static const struct {
	const char *v1, *v2; /* names; NULL = not a controller there */
	unsigned bit;
} hostcg_controllers[] = {
	{ "cpu", "cpu", HOSTCG_CPU },          { "cpuacct", NULL, HOSTCG_CPUACCT },
	{ "cpuset", "cpuset", HOSTCG_CPUSET }, { "memory", "memory", HOSTCG_MEMORY },
	{ "pids", "pids", HOSTCG_PIDS },       { "blkio", "io", HOSTCG_IO },
	{ "freezer", NULL, HOSTCG_FREEZER },
};

/* ---- Files of a group. */

static int hostcg_read(const struct hostcg_tree *t, const char *file, struct buf *out)
{
	AUTO_FREE char *path = mem_printf("%s/%s", t->dir, file);

	return path_read(path, HOSTCG_MAX_FILE, out, NULL);
}

static int hostcg_put(const struct hostcg_tree *t, const char *file, const char *text)
{
	AUTO_FREE char *path = mem_printf("%s/%s", t->dir, file);

	return path_put(path, text);
}

/* One number; "max" and version 1's way to say it are UINT64_MAX. `otherwise` if there is none. */
static uint64_t hostcg_number(const struct hostcg_tree *t, const char *file, uint64_t otherwise)
{
	AUTO_BUF struct buf b = { 0 };
	uint64_t v;

	if (!t || hostcg_read(t, file, &b) < 0 || !b.len)
		return otherwise;
	if (str_starts(buf_cstr(&b), "max"))
		return UINT64_MAX;
	v = strtoull(buf_cstr(&b), NULL, 10);
	return v >= UINT64_C(1) << 62 ? UINT64_MAX : v;
}

/* The value behind `key ` in a flat keyed file; 0 when there is none. */
static uint64_t hostcg_keyed(const struct hostcg_tree *t, const char *file, const char *key)
{
	AUTO_BUF struct buf b = { 0 };
	size_t n = strlen(key);

	if (!t || hostcg_read(t, file, &b) < 0)
		return 0;
	for (const char *p = buf_cstr(&b); *p; p += strcspn(p, "\n"), p += *p == '\n')
		if (!strncmp(p, key, n) && p[n] == ' ')
			return strtoull(p + n + 1, NULL, 10);
	return 0;
}

/* ---- Hierarchies. */

bool hostcg_is_unified(void)
{
	struct statfs st;

	return statfs(HOSTCG_ROOT, &st) == 0 && st.f_type == CGROUP2_SUPER_MAGIC;
}

/* Words separated by any of `gaps` to bits. The text is changed. */
static unsigned hostcg_bits(char *text, const char *gaps, bool v2)
{
	unsigned bits = 0;
	char *save = NULL;

	for (char *w = strtok_r(text, gaps, &save); w; w = strtok_r(NULL, gaps, &save))
		for (size_t i = 0; i < ARRAY_LEN(hostcg_controllers); i++) {
			const char *name = v2 ? hostcg_controllers[i].v2 : hostcg_controllers[i].v1;
			if (name && !strcmp(w, name))
				bits |= hostcg_controllers[i].bit;
		}
	return bits;
}

static unsigned hostcg_v2_bits(const char *mount)
{
	AUTO_FREE char *path = mem_printf("%s/cgroup.controllers", mount), *text = NULL;
	AUTO_BUF struct buf b = { 0 };

	if (path_read(path, HOSTCG_MAX_FILE, &b, NULL) < 0)
		return 0;
	text = buf_take_cstr(&b);
	return hostcg_bits(text, " \n", true);
}

static void hostcg_add_tree(struct hostcg *cg, const char *mount, bool v2, unsigned has)
{
	if (cg->n == HOSTCG_MAX_TREES)
		return;
	cg->trees[cg->n++] = (struct hostcg_tree){
		.mount = mem_strdup(mount),
		.dir = mem_printf("%s%s", mount, cg->path),
		.has = has,
		.v2 = v2,
		.procs_fd = -1,
	};
}

/* A line of mountinfo, "36 35 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu". A
 * hierarchy that is mounted twice counts once: here the first. Its paths have nothing to escape. */
static void hostcg_mountinfo_line(struct hostcg *cg, const char *line)
{
	char mount[256], type[16], super[256];
	const char *dash = strstr(line, " - ");

	if (!dash || sscanf(line, "%*s %*s %*s %*s %255s", mount) != 1 ||
	    sscanf(dash, " - %15s %*s %255s", type, super) != 2)
		return;
	if (!strcmp(type, "cgroup2")) {
		for (size_t i = 0; i < cg->n; i++)
			if (cg->trees[i].v2)
				return;
		hostcg_add_tree(cg, mount, true, hostcg_v2_bits(mount));
	} else if (!strcmp(type, "cgroup")) {
		unsigned has = hostcg_bits(super, ",", false);
		for (size_t i = 0; i < cg->n && has; i++)
			if (cg->trees[i].has & has && !cg->trees[i].v2)
				return;
		hostcg_add_tree(cg, mount, false, has);
	}
}

/* Fill in all hierarchies there are; cg->path is set. */
static int hostcg_find_trees(struct hostcg *cg, struct err *e)
{
	AUTO_BUF struct buf b = { 0 };
	AUTO_FREE char *text = NULL;
	char *save = NULL;
	int r;

	if (hostcg_is_unified()) {
		hostcg_add_tree(cg, HOSTCG_ROOT, true, hostcg_v2_bits(HOSTCG_ROOT));
		return 0;
	}
	r = path_read("/proc/self/mountinfo", HOSTCG_MAX_MOUNTINFO, &b, e);
	if (r < 0)
		return r;
	text = buf_take_cstr(&b);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		hostcg_mountinfo_line(cg, line);
	if (!cg->n)
		return err_set(e, -ENODEV, "no cgroup hierarchy is mounted");
	return 0;
}

/* The one with the controller. On a hybrid host version 1's goes before version 2's. */
static const struct hostcg_tree *hostcg_with(const struct hostcg *cg, unsigned bit)
{
	const struct hostcg_tree *v2 = NULL;

	for (size_t i = 0; i < cg->n; i++) {
		const struct hostcg_tree *t = &cg->trees[i];
		if (!t->v2 && t->has & bit)
			return t;
		if (t->v2 && (t->has & bit || bit == HOSTCG_FREEZER || bit == HOSTCG_CPUACCT))
			v2 = t;
	}
	return v2;
}

void hostcg_fini(struct hostcg *cg)
{
	for (size_t i = 0; i < cg->n; i++) {
		if (cg->trees[i].procs_fd >= 0)
			close(cg->trees[i].procs_fd);
		free(cg->trees[i].mount);
		free(cg->trees[i].dir);
	}
	free(cg->path);
	*cg = HOSTCG_NONE;
}

/* ---- Paths. */

static bool hostcg_bad_component(const char *name, size_t n)
{
	return n > NAME_MAX || (n == 2 && !strncmp(name, "..", 2)) || (n == 1 && *name == '.') ||
	       !strncmp(name, "cgroup.", 7);
}

/* systemd.slice(5): each "-" in a slice's name is a level. false: not the name of a slice. */
static bool hostcg_slice(const char *slice, size_t n, struct buf *out)
{
	static const char suffix[] = ".slice";
	size_t stem = n - MIN(n, sizeof suffix - 1);

	if (n == 0)
		return hostcg_slice("system.slice", 12, out);
	if (stem == 0 || memchr(slice, '/', n) || strncmp(slice + stem, suffix, n - stem))
		return false;
	if (stem == 1 && *slice == '-')
		return true;
	for (size_t i = 0; i <= stem; i++) {
		if (i < stem && slice[i] != '-')
			continue;
		if (i == 0 || slice[i - 1] == '-')
			return false;
		buf_printf(out, "/%.*s%s", (int)i, slice, suffix);
	}
	return true;
}

/* "slice:prefix:name" as a path; false when it is not one. */
static bool hostcg_systemd(const char *text, struct buf *out)
{
	const char *one = strchr(text, ':'), *two = strchr(one + 1, ':') + 1;
	size_t n = strlen(two);
	bool is_slice = n > 6 && !strcmp(two + n - 6, ".slice");

	if (!hostcg_slice(text, (size_t)(one - text), out) || !n || strchr(one, '/'))
		return false;
	if (is_slice)
		buf_printf(out, "/%s", two);
	else if (two - 1 == one + 1)
		buf_printf(out, "/%s.scope", two);
	else
		buf_printf(out, "/%.*s-%s.scope", (int)(two - one - 2), one + 1, two);
	return true;
}

int hostcg_place(const char *cgroups_path, const char *id, struct buf *out, struct err *e)
{
	const char *colon = strchr(cgroups_path, ':');
	AUTO_BUF struct buf path = { 0 };
	size_t before = out->len;
	bool ok = true;

	if (*cgroups_path != '/' && colon && strchr(colon + 1, ':'))
		ok = hostcg_systemd(cgroups_path, &path);
	else if (*cgroups_path)
		buf_add_str(&path, cgroups_path);
	else
		buf_printf(&path, HOSTCG_DEFAULT "/%s", id);
	for (const char *p = buf_cstr(&path); ok && *p;) {
		size_t n;
		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (n)
			buf_printf(out, "/%.*s", (int)n, p);
		ok = !hostcg_bad_component(p, n);
		p += n;
	}
	if (!ok || out->len == before || out->len - before > PATH_MAX / 2) {
		out->len = before;
		return err_set(e, -EINVAL, "cgroup path \"%.128s\" is not allowed", cgroups_path);
	}
	return 0;
}

/* ---- Making. */

/* Hand the controllers we use down from dir, each alone: one that cannot be must not take the
 * others with it. */
static void hostcg_hand_down(const struct hostcg_tree *t, const char *dir)
{
	AUTO_FREE char *path = mem_printf("%s/cgroup.subtree_control", dir);

	for (size_t i = 0; i < ARRAY_LEN(hostcg_controllers); i++) {
		AUTO_FREE char *word = NULL;
		if (!hostcg_controllers[i].v2 || !(t->has & hostcg_controllers[i].bit))
			continue;
		word = mem_printf("+%s", hostcg_controllers[i].v2);
		if (path_put(path, word) < 0)
			continue; /* processes in it, or it has not got it itself */
	}
}

/* A new group of version 1's cpuset has no CPUs and no memory: take the parent's. */
static void hostcg_inherit_cpuset(const char *dir)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		AUTO_FREE char *own = mem_printf("%s/%s", dir, files[i]);
		AUTO_FREE char *from = mem_printf("%s/../%s", dir, files[i]);
		AUTO_BUF struct buf has = { 0 }, b = { 0 };
		if (path_read(own, HOSTCG_MAX_FILE, &has, NULL) < 0 || has.len > 1 ||
		    path_read(from, HOSTCG_MAX_FILE, &b, NULL) < 0 ||
		    path_put(own, buf_cstr(&b)) < 0)
			continue; /* entering will tell */
	}
}

/* mkdir -p from the mount on; 0/-errno. -ENOENT: somebody has removed a parent meanwhile. */
static int hostcg_make_dirs(struct hostcg_tree *t)
{
	for (size_t i = strlen(t->mount); t->dir[i];) {
		AUTO_FREE char *parent = mem_strndup(t->dir, i);
		AUTO_FREE char *dir = mem_strndup(t->dir, i + 1 + strcspn(t->dir + i + 1, "/"));
		if (t->v2)
			hostcg_hand_down(t, parent);
		i = strlen(dir);
		if (mkdir(dir, 0755) == 0)
			t->made = t->made ? t->made : i;
		else if (errno != EEXIST)
			return -errno;
		if (t->has & HOSTCG_CPUSET && !t->v2)
			hostcg_inherit_cpuset(dir);
	}
	return 0;
}

static int hostcg_make_tree(struct hostcg_tree *t, struct err *e)
{
	AUTO_FREE char *procs = mem_printf("%s/cgroup.procs", t->dir);
	int r = -ENOENT;

	for (int tries = 0; tries < 20 && r == -ENOENT; tries++)
		r = hostcg_make_dirs(t);
	if (r < 0)
		return err_set(e, r, "cgroup %s: %s", t->dir, strerror(-r));
	t->procs_fd = open(procs, O_WRONLY | O_CLOEXEC);
	if (t->procs_fd < 0)
		return err_set(e, -errno, "%s: %m", procs);
	return 0;
}

/* Remove what we made of it; 0/-errno. */
static int hostcg_remove_tree(struct hostcg_tree *t, uint64_t deadline)
{
	AUTO_FREE char *dir = mem_strdup(t->dir);

	if (!t->made)
		return 0;
	while (rmdir(dir) < 0 && errno != ENOENT) {
		if (errno != EBUSY || clock_mono_ns() >= deadline)
			return -errno;
		usleep(HOSTCG_STEP_US);
	}
	/* Parents: others may be in them, then they stay. */
	while (strlen(dir) > t->made) {
		*strrchr(dir, '/') = '\0';
		if (rmdir(dir) < 0 && errno != ENOENT) /* planned, but never made */
			break;
	}
	t->made = 0;
	return 0;
}

/* Forget a tree, with what was made of it. */
static void hostcg_drop_tree(struct hostcg *cg, size_t i)
{
	struct hostcg_tree *t = &cg->trees[i];

	hostcg_remove_tree(t, 0);
	if (t->procs_fd >= 0)
		close(t->procs_fd);
	free(t->mount);
	free(t->dir);
	memmove(t, t + 1, (--cg->n - i) * sizeof *t);
}

/* Whoever leaves last removes the parent that all without a place of their own share. */
static void hostcg_plan_tree(struct hostcg_tree *t, bool shared_parent)
{
	size_t i = strlen(t->mount);

	t->made = shared_parent ? i + strlen(HOSTCG_DEFAULT) : 0;
	while (!t->made && t->dir[i]) {
		i += 1 + strcspn(t->dir + i + 1, "/");
		AUTO_FREE char *dir = mem_strndup(t->dir, i);
		if (access(dir, F_OK) < 0)
			t->made = i;
	}
}

int hostcg_plan(struct hostcg *cg, const char *cgroups_path, const char *id, struct err *e)
{
	AUTO_BUF struct buf path = { 0 };
	int r = hostcg_place(cgroups_path, id, &path, e);

	*cg = HOSTCG_NONE;
	if (r < 0)
		return r;
	cg->path = buf_take_cstr(&path);
	cg->shared = !*cgroups_path;
	r = hostcg_find_trees(cg, e);
	if (r < 0)
		hostcg_fini(cg);
	for (size_t i = 0; i < cg->n; i++)
		hostcg_plan_tree(&cg->trees[i], cg->shared);
	return r;
}

int hostcg_create(struct hostcg *cg, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < cg->n && !cg->shared; i++)
		cg->trees[i].made = 0; /* so far */
	for (size_t i = 0; i < cg->n && r == 0;) {
		r = hostcg_make_tree(&cg->trees[i], e);
		if (r < 0 && !cg->trees[i].has && cg->n > 1) {
			hostcg_drop_tree(cg, i);
			r = 0;
		} else {
			i++;
		}
	}
	if (r < 0) {
		while (cg->n)
			hostcg_drop_tree(cg, cg->n - 1);
		hostcg_fini(cg);
	}
	return r;
}

/* ---- Kept for who comes after us. */

void hostcg_save(const struct hostcg *cg, struct buf *b)
{
	const char *gap = "";

	buf_add_str(b, "{\"path\":");
	str_json(b, cg->path);
	buf_add_str(b, ",\"made\":[");
	for (size_t i = 0; i < cg->n; i++) {
		AUTO_FREE char *made = mem_strndup(cg->trees[i].dir, cg->trees[i].made);
		if (!*made)
			continue;
		buf_add_str(b, gap);
		str_json(b, made);
		gap = ",";
	}
	buf_add_str(b, "]}");
}

/* Is `made` a hierarchy's group, or one above it? Then note it. */
static bool hostcg_load_made(struct hostcg *cg, const char *made)
{
	size_t n = strlen(made);

	for (size_t i = 0; i < cg->n; i++) {
		struct hostcg_tree *t = &cg->trees[i];
		if (n > strlen(t->mount) && !strncmp(made, t->dir, n) &&
		    (!t->dir[n] || t->dir[n] == '/')) {
			t->made = n;
			return true;
		}
	}
	return false;
}

int hostcg_load(struct hostcg *cg, const struct json *v, struct err *e)
{
	AUTO_BUF struct buf place = { 0 };
	const char *path = "", *made = "";
	int r = json_str(json_get(v, "path"), &path, e);

	*cg = HOSTCG_NONE;
	if (r == 0 && *path != '/')
		r = json_refuse(v, e, "\"path\" must be an absolute path");
	if (r == 0)
		r = hostcg_place(path, "", &place, e);
	if (r < 0)
		return r;
	cg->path = buf_take_cstr(&place);
	r = hostcg_find_trees(cg, e);
	json_each(item, json_get(v, "made"))
	{
		if (r == 0)
			r = json_str(item, &made, e);
		/* Its hierarchy may be unmounted by now; then there is nothing to remove. */
		if (r == 0 && !hostcg_load_made(cg, made) && access(made, F_OK) == 0)
			r = json_refuse(item, e, "is not on the way to the group");
	}
	if (r < 0)
		hostcg_fini(cg);
	return r;
}

/* ---- Entering. */

size_t hostcg_procs(const struct hostcg *cg, int fds[HOSTCG_MAX_TREES])
{
	size_t n = 0;

	for (size_t i = 0; i < cg->n; i++)
		if (cg->trees[i].procs_fd >= 0)
			fds[n++] = cg->trees[i].procs_fd;
	return n;
}

ONLY_TESTED int hostcg_enter(const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (write(fds[i], "0", 1) < 0)
			return -errno;
	return 0;
}

int hostcg_join(const char *cgroups_path, struct err *e)
{
	struct hostcg cg = HOSTCG_NONE;
	AUTO_BUF struct buf path = { 0 };
	unsigned joined = 0;
	int r = hostcg_place(cgroups_path, "", &path, e);

	if (r < 0)
		return r;
	cg.path = buf_take_cstr(&path);
	r = hostcg_find_trees(&cg, e);
	for (size_t i = 0; i < cg.n && r == 0; i++) {
		int put = hostcg_put(&cg.trees[i], "cgroup.procs", "0");
		joined += put == 0;
		if (put < 0 && put != -ENOENT)
			r = err_set(e, put, "join cgroup %s: %s", cg.trees[i].dir, strerror(-put));
	}
	if (r == 0 && !joined)
		r = err_set(e, -ENOENT, "cgroup %s does not exist", cg.path);
	hostcg_fini(&cg);
	return r;
}

/* ---- Limits. */

uint64_t hostcg_cpu_weight(uint64_t shares)
{
	shares = MIN(MAX(shares, (uint64_t)2), (uint64_t)262144);
	return 1 + (shares - 2) * 9999 / 262142;
}

/* Set one file of the hierarchy with the controller; its name differs between versions. */
static int hostcg_set(const struct hostcg *cg, unsigned bit, const char *v1, const char *v2,
		      const char *text, struct err *e)
{
	const struct hostcg_tree *t = hostcg_with(cg, bit);
	const char *file = t && !t->v2 ? v1 : v2;
	int r = t ? hostcg_put(t, file, text) : -ENOENT;

	if (r == -ENOENT)
		return err_set(
			e, -EOPNOTSUPP,
			"cgroup %s: set %s to %s: this host hands no such controller down to it",
			cg->path, file, text);
	if (r < 0)
		return err_set(e, r, "cgroup %s: set %s to %s: %s", cg->path, file, text,
			       strerror(-r));
	return 0;
}

static int hostcg_limit_memory(const struct hostcg *cg, int64_t limit, uint64_t overhead,
			       struct err *e)
{
	uint64_t sum;
	char text[32];

	if (limit < 0)
		return hostcg_set(
			cg, HOSTCG_MEMORY, "memory.limit_in_bytes", "memory.max",
			hostcg_with(cg, HOSTCG_MEMORY) && hostcg_with(cg, HOSTCG_MEMORY)->v2 ? "max"
											     : "-1",
			e);
	if (__builtin_add_overflow((uint64_t)limit, overhead, &sum) || sum > INT64_MAX)
		sum = INT64_MAX;
	snprintf(text, sizeof text, "%llu", (unsigned long long)sum);
	return hostcg_set(cg, HOSTCG_MEMORY, "memory.limit_in_bytes", "memory.max", text, e);
}

/* Version 2: "$MAX $PERIOD" in one file; what is not given stays. */
static int hostcg_limit_cpu_max(const struct hostcg *cg, const Grpc__LinuxCPU *c, struct err *e)
{
	const struct hostcg_tree *t = hostcg_with(cg, HOSTCG_CPU);
	AUTO_BUF struct buf now = { 0 };
	unsigned long long period = HOSTCG_PERIOD;
	char quota[32] = "max", text[96];

	if (hostcg_read(t, "cpu.max", &now) == 0)
		(void)sscanf(buf_cstr(&now), "%31s %llu", quota, &period);
	if (c->quota > 0)
		snprintf(quota, sizeof quota, "%lld", (long long)c->quota);
	else if (c->quota < 0)
		snprintf(quota, sizeof quota, "max");
	if (c->period)
		period = c->period;
	snprintf(text, sizeof text, "%s %llu", quota, period);
	return hostcg_set(cg, HOSTCG_CPU, NULL, "cpu.max", text, e);
}

static int hostcg_limit_quota(const struct hostcg *cg, const Grpc__LinuxCPU *c, struct err *e)
{
	const struct hostcg_tree *t = hostcg_with(cg, HOSTCG_CPU);
	char text[32];
	int r = 0;

	if (!t || t->v2)
		return t ? hostcg_limit_cpu_max(cg, c, e)
			 : hostcg_set(cg, HOSTCG_CPU, NULL, "cpu.max", "a quota", e);
	if (c->period) {
		snprintf(text, sizeof text, "%llu", (unsigned long long)c->period);
		r = hostcg_set(cg, HOSTCG_CPU, "cpu.cfs_period_us", NULL, text, e);
	}
	if (c->quota && r == 0) {
		snprintf(text, sizeof text, "%lld", c->quota < 0 ? -1 : (long long)c->quota);
		r = hostcg_set(cg, HOSTCG_CPU, "cpu.cfs_quota_us", NULL, text, e);
	}
	return r;
}

static int hostcg_limit_cpu(const struct hostcg *cg, const Grpc__LinuxCPU *c, struct err *e)
{
	const struct hostcg_tree *t = hostcg_with(cg, HOSTCG_CPU);
	char text[32];
	int r = 0;

	if (c->shares) {
		uint64_t n = t && t->v2 ? hostcg_cpu_weight(c->shares) : c->shares;
		snprintf(text, sizeof text, "%llu", (unsigned long long)n);
		r = hostcg_set(cg, HOSTCG_CPU, "cpu.shares", "cpu.weight", text, e);
	}
	if (r == 0 && (c->quota || c->period))
		r = hostcg_limit_quota(cg, c, e);
	if (r == 0 && *c->cpus)
		r = hostcg_set(cg, HOSTCG_CPUSET, "cpuset.cpus", "cpuset.cpus", c->cpus, e);
	if (r == 0 && *c->mems)
		r = hostcg_set(cg, HOSTCG_CPUSET, "cpuset.mems", "cpuset.mems", c->mems, e);
	return r;
}

int hostcg_limit(const struct hostcg *cg, const Grpc__LinuxResources *r,
			     uint64_t overhead, struct err *e)
{
	int code = 0;

	if (r->memory && r->memory->limit)
		code = hostcg_limit_memory(cg, r->memory->limit, overhead, e);
	if (code == 0 && r->cpu)
		code = hostcg_limit_cpu(cg, r->cpu, e);
	return code;
}

/* ---- Counting. */

static void hostcg_stats_cpu(const struct hostcg *cg, struct hostcg_stats *s)
{
	const struct hostcg_tree *acct = hostcg_with(cg, HOSTCG_CPUACCT), *cpu;

	cpu = hostcg_with(cg, HOSTCG_CPU);
	if (acct && acct->v2) {
		s->cpu_ns = hostcg_keyed(acct, "cpu.stat", "usage_usec") * 1000;
		s->cpu_user_ns = hostcg_keyed(acct, "cpu.stat", "user_usec") * 1000;
		s->cpu_system_ns = hostcg_keyed(acct, "cpu.stat", "system_usec") * 1000;
	} else {
		s->cpu_ns = hostcg_number(acct, "cpuacct.usage", 0);
		s->cpu_user_ns = hostcg_number(acct, "cpuacct.usage_user", 0);
		s->cpu_system_ns = hostcg_number(acct, "cpuacct.usage_sys", 0);
	}
	s->periods = hostcg_keyed(cpu, "cpu.stat", "nr_periods");
	s->throttled_periods = hostcg_keyed(cpu, "cpu.stat", "nr_throttled");
	s->throttled_ns = cpu && cpu->v2 ? hostcg_keyed(cpu, "cpu.stat", "throttled_usec") * 1000
					 : hostcg_keyed(cpu, "cpu.stat", "throttled_time");
}

static void hostcg_stats_memory(const struct hostcg *cg, struct hostcg_stats *s)
{
	const struct hostcg_tree *t = hostcg_with(cg, HOSTCG_MEMORY);
	bool v2 = t && t->v2;

	s->memory = hostcg_number(t, v2 ? "memory.current" : "memory.usage_in_bytes", 0);
	s->memory_limit = hostcg_number(t, v2 ? "memory.max" : "memory.limit_in_bytes", UINT64_MAX);
	s->memory_peak = hostcg_number(t, v2 ? "memory.peak" : "memory.max_usage_in_bytes", 0);
	s->inactive_file =
		hostcg_keyed(t, "memory.stat", v2 ? "inactive_file" : "total_inactive_file");
	s->oom_kills = hostcg_keyed(t, v2 ? "memory.events" : "memory.oom_control", "oom_kill");
}

ONLY_TESTED int hostcg_stats(const struct hostcg *cg, struct hostcg_stats *out, struct err *e)
{
	*out = (struct hostcg_stats){ 0 };
	if (!cg->n || access(cg->trees[0].dir, F_OK) < 0)
		return err_set(e, -ENOENT, "cgroup %s is gone", cg->path ? cg->path : "");
	hostcg_stats_cpu(cg, out);
	hostcg_stats_memory(cg, out);
	out->pids = hostcg_number(hostcg_with(cg, HOSTCG_PIDS), "pids.current", 0);
	return 0;
}

/* ---- Stopping and ending. */

static bool hostcg_is(const struct hostcg_tree *t, bool frozen)
{
	AUTO_BUF struct buf b = { 0 };

	if (t->v2)
		return hostcg_keyed(t, "cgroup.events", "frozen") == frozen;
	return hostcg_read(t, "freezer.state", &b) == 0 &&
	       str_starts(buf_cstr(&b), frozen ? "FROZEN" : "THAWED");
}

static int hostcg_ask(const struct hostcg_tree *t, bool frozen)
{
	if (t->v2)
		return hostcg_put(t, "cgroup.freeze", frozen ? "1" : "0");
	return hostcg_put(t, "freezer.state", frozen ? "FROZEN" : "THAWED");
}

/* Signal `sig` (0 = none) to all in the group but us. How many there are; *self: are we there? */
static unsigned hostcg_signal(const struct hostcg_tree *t, int sig, bool *self)
{
	AUTO_BUF struct buf b = { 0 };
	unsigned n = 0;

	*self = false;
	if (hostcg_read(t, "cgroup.procs", &b) < 0)
		return 0;
	for (const char *p = buf_cstr(&b); *p; p += strcspn(p, "\n"), p += *p == '\n') {
		pid_t pid = (pid_t)strtol(p, NULL, 10);
		if (pid == getpid()) {
			*self = true;
		} else if (pid > 0) { /* 0: of a pid namespace we do not see */
			kill(pid, sig);
			n++;
		}
	}
	return n;
}

ONLY_TESTED int hostcg_freeze(const struct hostcg *cg, bool on, struct err *e)
{
	const struct hostcg_tree *t = hostcg_with(cg, HOSTCG_FREEZER);
	uint64_t deadline = clock_mono_ns() + HOSTCG_WAIT_NS;
	bool self;
	int r;

	if (!t)
		return err_set(e, -EOPNOTSUPP, "cgroup %s: this host has no freezer", cg->path);
	hostcg_signal(t, 0, &self);
	if (on && self)
		return err_set(e, -EDEADLK, "cgroup %s: this process is in it", cg->path);
	r = hostcg_ask(t, on);
	if (r < 0)
		return err_set(e, r, "%s %s: %s", on ? "freeze" : "thaw", t->dir, strerror(-r));
	while (!hostcg_is(t, on)) {
		if (clock_mono_ns() >= deadline) {
			if (on)
				(void)hostcg_ask(t, false);
			return err_set(e, -ETIMEDOUT, "%s %s: still not done",
				       on ? "freeze" : "thaw", t->dir);
		}
		usleep(HOSTCG_STEP_US);
	}
	return 0;
}

int hostcg_kill(const struct hostcg *cg, struct err *e)
{
	const struct hostcg_tree *t = hostcg_with(cg, HOSTCG_FREEZER);
	uint64_t deadline = clock_mono_ns() + HOSTCG_WAIT_NS;
	bool self;

	if (!t)
		t = cg->trees;
	if (!cg->n)
		return 0;
	for (;;) {
		unsigned left = hostcg_signal(t, 0, &self);
		if (!left)
			return 0;
		if (clock_mono_ns() >= deadline)
			return err_set(e, -ETIMEDOUT, "cgroup %s: %u processes do not end",
				       cg->path, left);
		/* cgroup.kill (Linux 5.14) also takes those being born, and frozen ones. */
		if (!t->v2 || self || hostcg_put(t, "cgroup.kill", "1") < 0) {
			hostcg_signal(t, SIGKILL, &self);
			if (hostcg_with(cg, HOSTCG_FREEZER))
				(void)hostcg_ask(t,
						 false); /* version 1: a frozen one does not die */
		}
		usleep(HOSTCG_STEP_US);
	}
}

int hostcg_remove(struct hostcg *cg, struct err *e)
{
	uint64_t deadline = clock_mono_ns() + HOSTCG_BUSY_NS;
	int r = 0;

	for (size_t i = 0; i < cg->n; i++) {
		int one = hostcg_remove_tree(&cg->trees[i], deadline);
		if (one < 0 && r == 0)
			r = err_set(e, one, "remove cgroup %s: %s", cg->trees[i].dir,
				    strerror(-one));
	}
	return r;
}
