#include "guest/agent/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/boot.h"
#include "guest/agent/cgdev.h"

#define GA_CGROUP_MAX_FILE  (1u << 20)
#define GA_CGROUP_MAX_DEPTH 64

/* ---- Files */

static int ga_cgroup_write(const struct ga_cgroup *cg, const char *file, const char *text,
			   struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/%s", cg->path, file);
	int r = path_put(path, text);

	if (r < 0)
		return err_set(e, r, "set %s to %s: %s", file, text, strerror(-r));
	return 0;
}

/* A limit: -1 is the kernel's "max". */
static int ga_cgroup_limit(const struct ga_cgroup *cg, const char *file, int64_t v, struct err *e)
{
	char text[32];

	if (v < 0)
		return ga_cgroup_write(cg, file, "max", e);
	snprintf(text, sizeof text, "%lld", (long long)v);
	return ga_cgroup_write(cg, file, text, e);
}

int ga_cgroup_read(const struct ga_cgroup *cg, const char *file, struct buf *out)
{
	AUTO_FREE char *path = mem_printf("%s/%s", cg->path, file);

	return path_read(path, GA_CGROUP_MAX_FILE, out, NULL);
}

bool ga_cgroup_number(const struct ga_cgroup *cg, const char *file, uint64_t *out)
{
	AUTO_BUF struct buf b = { 0 };
	char *text;

	if (ga_cgroup_read(cg, file, &b) < 0)
		return false;
	text = (char *)buf_reserve(&b, 1) - b.len;
	text[b.len] = '\0';
	text[strcspn(text, "\n")] = '\0';
	if (!strcmp(text, "max")) {
		*out = UINT64_MAX;
		return true;
	}
	return str_u64(text, 0, UINT64_MAX, out) == 0;
}

uint64_t ga_cgroup_keyed(const struct ga_cgroup *cg, const char *file, const char *key)
{
	AUTO_BUF struct buf b = { 0 };
	size_t n = strlen(key);

	if (ga_cgroup_read(cg, file, &b) < 0)
		return 0;
	for (const char *p = buf_cstr(&b); *p; p += strcspn(p, "\n"), p += *p == '\n')
		if (!strncmp(p, key, n) && p[n] == ' ')
			return strtoull(p + n + 1, NULL, 10);
	return 0;
}

/* ---- Making and removing */

/* Hand every controller that `dir` has down to its children. One that cannot be (cpu, while
 * realtime tasks are about) must not take the others with it, so each is written alone. */
static void ga_cgroup_delegate(const char *dir)
{
	AUTO_FREE char *from = mem_printf("%s/cgroup.controllers", dir);
	AUTO_FREE char *to = mem_printf("%s/cgroup.subtree_control", dir);
	AUTO_BUF struct buf b = { 0 };
	char *save = NULL, *text;

	if (path_read(from, GA_CGROUP_MAX_FILE, &b, NULL) < 0)
		return;
	text = buf_take_cstr(&b);
	for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
		AUTO_FREE char *word = mem_printf("+%s", w);
		if (path_put(to, word) < 0)
			continue;
	}
	free(text);
}

int ga_cgroup_init_root(struct err *e)
{
	if (access(GA_CGROUP_ROOT "/cgroup.controllers", F_OK) < 0)
		return err_set(e, -errno, GA_CGROUP_ROOT " is no cgroup version 2: %m");
	ga_cgroup_delegate(GA_CGROUP_ROOT);
	return 0;
}

static bool ga_cgroup_bad_component(const char *name, size_t n)
{
	return n > NAME_MAX || (n == 2 && !strncmp(name, "..", 2)) || (n == 1 && *name == '.') ||
	       !strncmp(name, "cgroup.", 7);
}

int ga_cgroup_place(const char *cgroups_path, const char *id, struct buf *out, struct err *e)
{
	AUTO_FREE char *path = NULL;
	const char *one = strchr(cgroups_path, ':'), *two = one ? strchr(one + 1, ':') : NULL;

	if (two)
		path = mem_printf("%.*s/%.*s%s%s", (int)(one - cgroups_path), cgroups_path,
				  (int)(two - one - 1), one + 1, two > one + 1 ? "-" : "", two + 1);
	else
		path = mem_strdup(*cgroups_path ? cgroups_path : id);
	for (const char *p = path; *p;) {
		size_t n;
		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (ga_cgroup_bad_component(p, n))
			return err_set(e, -EINVAL, "cgroup path \"%s\" is not allowed",
				       cgroups_path);
		if (n)
			buf_printf(out, "/%.*s", (int)n, p);
		p += n;
	}
	if (out->len == 0 || out->len > PATH_MAX / 2)
		return err_set(e, -EINVAL, "cgroup path \"%.64s\" is not allowed", cgroups_path);
	return 0;
}

int ga_cgroup_create(struct ga_cgroup *cg, const char *place, struct err *e)
{
	*cg = GA_CGROUP_NONE;
	cg->path = mem_printf("%s%s", GA_CGROUP_ROOT, place);
	for (char *s = cg->path + strlen(GA_CGROUP_ROOT) + 1;; s++) {
		char c = *s;
		if (c != '/' && c != '\0')
			continue;
		*s = '\0';
		if (mkdir(cg->path, 0755) < 0 && errno != EEXIST)
			return err_set(e, -errno, "mkdir %s: %m", cg->path);
		if (c == '\0')
			break;
		ga_cgroup_delegate(cg->path);
		*s = '/';
	}
	cg->fd = open(cg->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cg->fd < 0)
		return err_set(e, -errno, "%s: %m", cg->path);
	return 0;
}

/* Children first. A container may have made its own below its cgroup namespace's root. */
static void ga_cgroup_remove_below(const char *path, unsigned depth)
{
	DIR *d = depth < GA_CGROUP_MAX_DEPTH ? opendir(path) : NULL;
	struct dirent *ent;

	while (d && (ent = readdir(d))) {
		AUTO_FREE char *sub = NULL;
		if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
			continue;
		sub = mem_printf("%s/%s", path, ent->d_name);
		ga_cgroup_remove_below(sub, depth + 1);
	}
	if (d)
		closedir(d);
	rmdir(path);
}

void ga_cgroup_remove(struct ga_cgroup *cg)
{
	if (cg->fd >= 0)
		close(cg->fd);
	if (cg->dev_fd >= 0)
		close(cg->dev_fd);
	if (cg->path)
		ga_cgroup_remove_below(cg->path, 0);
	/* Parents that are empty now go too; rmdir(2) refuses the others. */
	while (cg->path && strrchr(cg->path, '/') > cg->path + strlen(GA_CGROUP_ROOT)) {
		*strrchr(cg->path, '/') = '\0';
		if (rmdir(cg->path) < 0)
			break;
	}
	free(cg->path);
	*cg = GA_CGROUP_NONE;
}

/* ---- Limits */

uint64_t ga_cgroup_cpu_weight(uint64_t shares)
{
	/* [2..262144] -> [1..10000], linear. */
	shares = MIN(MAX(shares, (uint64_t)2), (uint64_t)262144);
	return 1 + (shares - 2) * 9999 / 262142;
}

uint64_t ga_cgroup_io_weight(uint64_t weight)
{
	/* [10..1000] -> [1..10000], linear. */
	weight = MIN(MAX(weight, (uint64_t)10), (uint64_t)1000);
	return 1 + (weight - 10) * 9999 / 990;
}

int ga_cgroup_swap_max(int64_t limit, int64_t swap, int64_t *out)
{
	if (swap < 0)
		*out = -1;
	else if (limit <= 0)
		return -EINVAL; /* a sum without its first part */
	else if (swap < limit)
		return -EINVAL;
	else
		*out = swap - limit;
	return 0;
}

static int ga_cgroup_memory(const struct ga_cgroup *cg, const Grpc__LinuxMemory *m, struct err *e)
{
	int64_t swap;
	int r;

	if (m->swap) {
		if (ga_cgroup_swap_max(m->limit, m->swap, &swap) < 0)
			return err_set(e, -EINVAL,
				       "memory+swap limit %lld does not cover memory limit %lld",
				       (long long)m->swap, (long long)m->limit);
		r = ga_cgroup_limit(cg, "memory.swap.max", swap, e);
		/* A kernel without swap has no file and needs no limit. */
		if (r < 0 && r != -ENOENT)
			return r;
	}
	if (m->limit && ga_cgroup_limit(cg, "memory.max", m->limit, e) < 0)
		return e->code;
	if (m->reservation && ga_cgroup_limit(cg, "memory.low", m->reservation, e) < 0)
		return e->code;
	return 0;
}

static int ga_cgroup_cpu_max(const struct ga_cgroup *cg, const Grpc__LinuxCPU *c, struct err *e)
{
	AUTO_BUF struct buf now = { 0 };
	char quota[32] = "max", text[96];
	unsigned long long period = c->period;

	/* One of the two may stay as it is: "$MAX $PERIOD". */
	if (ga_cgroup_read(cg, "cpu.max", &now) == 0) {
		unsigned long long p = 100000;
		sscanf(buf_cstr(&now), "%31s %llu", quota, &p);
		period = period ? period : p;
	}
	if (c->quota > 0)
		snprintf(quota, sizeof quota, "%lld", (long long)c->quota);
	else if (c->quota < 0)
		snprintf(quota, sizeof quota, "max");
	snprintf(text, sizeof text, "%s %llu", quota, period ? period : 100000);
	return ga_cgroup_write(cg, "cpu.max", text, e);
}

static int ga_cgroup_cpu(const struct ga_cgroup *cg, const Grpc__LinuxCPU *c, struct err *e)
{
	if (c->shares &&
	    ga_cgroup_limit(cg, "cpu.weight", (int64_t)ga_cgroup_cpu_weight(c->shares), e) < 0)
		return e->code;
	if ((c->quota || c->period) && ga_cgroup_cpu_max(cg, c, e) < 0)
		return e->code;
	if (*c->cpus && ga_cgroup_write(cg, "cpuset.cpus", c->cpus, e) < 0)
		return e->code;
	if (*c->mems && ga_cgroup_write(cg, "cpuset.mems", c->mems, e) < 0)
		return e->code;
	return 0;
}

static int ga_cgroup_throttle(const struct ga_cgroup *cg, Grpc__LinuxThrottleDevice *const *d,
			      size_t n, const char *key, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		char text[128];
		snprintf(text, sizeof text, "%lld:%lld %s=%llu", (long long)d[i]->major,
			 (long long)d[i]->minor, key, (unsigned long long)d[i]->rate);
		if (ga_cgroup_write(cg, "io.max", text, e) < 0)
			return e->code;
	}
	return 0;
}

static int ga_cgroup_io_weights(const struct ga_cgroup *cg, const Grpc__LinuxBlockIO *b,
				struct err *e)
{
	char text[96];
	bool bfq;

	if (!b->weight && !b->n_weightdevice)
		return 0;
	/* BFQ takes OCI's range as it is; io.weight is the cost model's. */
	bfq = faccessat(cg->fd, "io.bfq.weight", F_OK, 0) == 0;
	for (size_t i = 0; i < b->n_weightdevice; i++) {
		const Grpc__LinuxWeightDevice *d = b->weightdevice[i];
		snprintf(text, sizeof text, "%lld:%lld %llu", (long long)d->major,
			 (long long)d->minor,
			 (unsigned long long)(bfq ? d->weight : ga_cgroup_io_weight(d->weight)));
		if (ga_cgroup_write(cg, bfq ? "io.bfq.weight" : "io.weight", text, e) < 0)
			return e->code;
	}
	if (!b->weight)
		return 0;
	snprintf(text, sizeof text, "default %llu",
		 (unsigned long long)(bfq ? b->weight : ga_cgroup_io_weight(b->weight)));
	return ga_cgroup_write(cg, bfq ? "io.bfq.weight" : "io.weight", text, e);
}

static int ga_cgroup_io(const struct ga_cgroup *cg, const Grpc__LinuxBlockIO *b, struct err *e)
{
	if (ga_cgroup_io_weights(cg, b, e) < 0 ||
	    ga_cgroup_throttle(cg, b->throttlereadbpsdevice, b->n_throttlereadbpsdevice, "rbps",
			       e) < 0 ||
	    ga_cgroup_throttle(cg, b->throttlewritebpsdevice, b->n_throttlewritebpsdevice, "wbps",
			       e) < 0 ||
	    ga_cgroup_throttle(cg, b->throttlereadiopsdevice, b->n_throttlereadiopsdevice, "riops",
			       e) < 0 ||
	    ga_cgroup_throttle(cg, b->throttlewriteiopsdevice, b->n_throttlewriteiopsdevice,
			       "wiops", e) < 0)
		return e->code;
	return 0;
}

static int ga_cgroup_hugepages(const struct ga_cgroup *cg, const Grpc__LinuxResources *r,
			       struct err *e)
{
	for (size_t i = 0; i < r->n_hugepagelimits; i++) {
		const Grpc__LinuxHugepageLimit *h = r->hugepagelimits[i];
		AUTO_FREE char *file = mem_printf("hugetlb.%s.max", h->pagesize);
		if (strchr(h->pagesize, '/'))
			return err_set(e, -EINVAL, "huge page size \"%s\"", h->pagesize);
		if (ga_cgroup_limit(cg, file, (int64_t)MIN(h->limit, (uint64_t)INT64_MAX), e) < 0)
			return e->code;
	}
	return 0;
}

/* What cgroup v2 knows and OCI has no name for. */
static int ga_cgroup_unified(const struct ga_cgroup *cg, const Grpc__LinuxResources *r,
			     struct err *e)
{
	for (size_t i = 0; i < r->n_unified; i++) {
		const char *file = r->unified[i]->key;
		if (!*file || strchr(file, '/'))
			return err_set(e, -EINVAL, "unified resource \"%s\" must be a file name",
				       file);
		/* A file may take several lines, one write each (io.max). */
		for (const char *p = r->unified[i]->value; *p; p += *p == '\n') {
			AUTO_FREE char *line = mem_strndup(p, strcspn(p, "\n"));
			p += strlen(line);
			if (*line && ga_cgroup_write(cg, file, line, e) < 0)
				return e->code;
		}
	}
	return 0;
}

int ga_cgroup_apply(const struct ga_cgroup *cg, const Grpc__LinuxResources *r, struct err *e)
{
	if ((r->memory && ga_cgroup_memory(cg, r->memory, e) < 0) ||
	    (r->cpu && ga_cgroup_cpu(cg, r->cpu, e) < 0) ||
	    (r->pids && r->pids->limit && ga_cgroup_limit(cg, "pids.max", r->pids->limit, e) < 0) ||
	    (r->blockio && ga_cgroup_io(cg, r->blockio, e) < 0) ||
	    ga_cgroup_hugepages(cg, r, e) < 0 || ga_cgroup_unified(cg, r, e) < 0)
		return err_wrap(e, "cgroup");
	return 0;
}

/* ---- All processes at once */

int ga_cgroup_freeze(const struct ga_cgroup *cg, bool on, struct err *e)
{
	return ga_cgroup_write(cg, "cgroup.freeze", on ? "1" : "0", e);
}

bool ga_cgroup_is_frozen(const struct ga_cgroup *cg, bool on)
{
	return ga_cgroup_keyed(cg, "cgroup.events", "frozen") == on;
}

bool ga_cgroup_is_paused(const struct ga_cgroup *cg)
{
	uint64_t on;

	return ga_cgroup_number(cg, "cgroup.freeze", &on) && on;
}

void ga_cgroup_kill(const struct ga_cgroup *cg)
{
	struct err e;

	if (cg->path)
		(void)ga_cgroup_write(cg, "cgroup.kill", "1", &e);
}

static void ga_cgroup_pids_below(const char *path, unsigned depth, struct buf *out)
{
	AUTO_FREE char *procs = mem_printf("%s/cgroup.procs", path);
	AUTO_BUF struct buf b = { 0 };
	DIR *d = depth < GA_CGROUP_MAX_DEPTH ? opendir(path) : NULL;
	struct dirent *ent;

	/* Not of a threaded one: the one above it has them. */
	if (path_read(procs, GA_CGROUP_MAX_FILE, &b, NULL) < 0)
		buf_fini(&b);
	for (const char *p = buf_cstr(&b); *p; p += strcspn(p, "\n"), p += *p == '\n') {
		pid_t pid = (pid_t)strtol(p, NULL, 10);
		if (pid > 0) /* 0: of a pid namespace that is not below ours */
			buf_add(out, &pid, sizeof pid);
	}
	while (d && (ent = readdir(d))) {
		AUTO_FREE char *sub = NULL;
		if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
			continue;
		sub = mem_printf("%s/%s", path, ent->d_name);
		ga_cgroup_pids_below(sub, depth + 1, out);
	}
	if (d)
		closedir(d);
}

void ga_cgroup_pids(const struct ga_cgroup *cg, struct buf *out)
{
	if (cg->path)
		ga_cgroup_pids_below(cg->path, 0, out);
}

bool ga_cgroup_is_empty(const struct ga_cgroup *cg)
{
	return !cg->path || ga_cgroup_keyed(cg, "cgroup.events", "populated") == 0;
}
