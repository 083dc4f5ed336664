#include "guest/agent/stats.h"

#include <dirent.h>
#include <inttypes.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"
#include "guest/agent/net.h"

#define GA_STATS_MAX_ITEMS 512

/* Append to a list as protobuf-c has them: pointers and a count. */
#define GA_STATS_ADD(list, n, item)                                       \
	do {                                                              \
		(list) = mem_realloc((list), ((n) + 1) * sizeof *(list)); \
		(list)[(n)++] = (item);                                   \
	} while (0)

/* cpu.stat counts microseconds, the message nanoseconds. */
static Grpc__CpuStats *ga_stats_cpu(const struct ga_cgroup *cg)
{
	Grpc__CpuStats *s = mem_zalloc(sizeof *s);

	grpc__cpu_stats__init(s);
	s->cpu_usage = mem_zalloc(sizeof *s->cpu_usage);
	grpc__cpu_usage__init(s->cpu_usage);
	s->cpu_usage->total_usage = ga_cgroup_keyed(cg, "cpu.stat", "usage_usec") * 1000;
	s->cpu_usage->usage_in_usermode = ga_cgroup_keyed(cg, "cpu.stat", "user_usec") * 1000;
	s->cpu_usage->usage_in_kernelmode = ga_cgroup_keyed(cg, "cpu.stat", "system_usec") * 1000;
	s->throttling_data = mem_zalloc(sizeof *s->throttling_data);
	grpc__throttling_data__init(s->throttling_data);
	s->throttling_data->periods = ga_cgroup_keyed(cg, "cpu.stat", "nr_periods");
	s->throttling_data->throttled_periods = ga_cgroup_keyed(cg, "cpu.stat", "nr_throttled");
	s->throttling_data->throttled_time =
		ga_cgroup_keyed(cg, "cpu.stat", "throttled_usec") * 1000;
	return s;
}

/* memory.<what>current, .peak, .max and the times the limit was hit. */
static Grpc__MemoryData *ga_stats_memory_data(const struct ga_cgroup *cg, const char *what)
{
	AUTO_FREE char *current = mem_printf("memory.%scurrent", what);
	AUTO_FREE char *peak = mem_printf("memory.%speak", what);
	AUTO_FREE char *max = mem_printf("memory.%smax", what);
	AUTO_FREE char *events = mem_printf("memory.%sevents", what);
	Grpc__MemoryData *d = mem_zalloc(sizeof *d);

	grpc__memory_data__init(d);
	(void)ga_cgroup_number(cg, current, &d->usage);
	(void)ga_cgroup_number(cg, peak, &d->max_usage);
	(void)ga_cgroup_number(cg, max, &d->limit);
	d->failcnt = ga_cgroup_keyed(cg, events, "max");
	return d;
}

static void ga_stats_memory_map(const struct ga_cgroup *cg, Grpc__MemoryStats *s)
{
	AUTO_BUF struct buf b = { 0 };
	char *save = NULL;

	if (ga_cgroup_read(cg, "memory.stat", &b) < 0)
		return;
	(void)buf_cstr(&b);
	for (char *line = strtok_r((char *)b.data, "\n", &save);
	     line && s->n_stats < GA_STATS_MAX_ITEMS; line = strtok_r(NULL, "\n", &save)) {
		Grpc__MemoryStats__StatsEntry *entry;
		char *space = strchr(line, ' ');
		if (!space)
			continue;
		*space = '\0';
		entry = mem_zalloc(sizeof *entry);
		grpc__memory_stats__stats_entry__init(entry);
		entry->key = mem_strdup(line);
		entry->value = strtoull(space + 1, NULL, 10);
		GA_STATS_ADD(s->stats, s->n_stats, entry);
	}
}

static Grpc__MemoryStats *ga_stats_memory(const struct ga_cgroup *cg)
{
	Grpc__MemoryStats *s = mem_zalloc(sizeof *s);

	grpc__memory_stats__init(s);
	s->cache = ga_cgroup_keyed(cg, "memory.stat", "file");
	s->usage = ga_stats_memory_data(cg, "");
	s->swap_usage = ga_stats_memory_data(cg, "swap.");
	s->kernel_usage = mem_zalloc(sizeof *s->kernel_usage);
	grpc__memory_data__init(s->kernel_usage);
	s->kernel_usage->usage = ga_cgroup_keyed(cg, "memory.stat", "kernel");
	s->use_hierarchy = true;
	ga_stats_memory_map(cg, s);
	return s;
}

static Grpc__PidsStats *ga_stats_pids(const struct ga_cgroup *cg)
{
	Grpc__PidsStats *s = mem_zalloc(sizeof *s);

	grpc__pids_stats__init(s);
	(void)ga_cgroup_number(cg, "pids.current", &s->current);
	if (!ga_cgroup_number(cg, "pids.max", &s->limit) || s->limit == UINT64_MAX)
		s->limit = 0;
	return s;
}

static Grpc__BlkioStatsEntry *ga_stats_io_entry(const char *device, const char *op, uint64_t value)
{
	Grpc__BlkioStatsEntry *entry = mem_zalloc(sizeof *entry);

	grpc__blkio_stats_entry__init(entry);
	sscanf(device, "%" SCNu64 ":%" SCNu64, &entry->major, &entry->minor);
	entry->op = mem_strdup(op);
	entry->value = value;
	return entry;
}

/* cgroup-v2.rst "IO Interface Files", io.stat. */
static const struct {
	const char *key, *op;
	bool is_bytes;
} ga_stats_io_keys[] = {
	{ " rbytes=", "Read", true },    { " wbytes=", "Write", true },
	{ " dbytes=", "Discard", true }, { " rios=", "Read", false },
	{ " wios=", "Write", false },    { " dios=", "Discard", false },
};

void ga_stats_io_line(const char *line, Grpc__BlkioStats *out)
{
	for (size_t i = 0; i < ARRAY_LEN(ga_stats_io_keys); i++) {
		const char *p = strstr(line, ga_stats_io_keys[i].key);
		Grpc__BlkioStatsEntry *entry;
		if (!p)
			continue;
		entry = ga_stats_io_entry(line, ga_stats_io_keys[i].op,
					  strtoull(p + strlen(ga_stats_io_keys[i].key), NULL, 10));
		if (ga_stats_io_keys[i].is_bytes)
			GA_STATS_ADD(out->io_service_bytes_recursive,
				     out->n_io_service_bytes_recursive, entry);
		else
			GA_STATS_ADD(out->io_serviced_recursive, out->n_io_serviced_recursive,
				     entry);
	}
}

static Grpc__BlkioStats *ga_stats_io(const struct ga_cgroup *cg)
{
	Grpc__BlkioStats *s = mem_zalloc(sizeof *s);
	AUTO_BUF struct buf b = { 0 };
	char *save = NULL;

	grpc__blkio_stats__init(s);
	if (ga_cgroup_read(cg, "io.stat", &b) < 0)
		return s;
	(void)buf_cstr(&b);
	for (char *line = strtok_r((char *)b.data, "\n", &save);
	     line && s->n_io_serviced_recursive < GA_STATS_MAX_ITEMS;
	     line = strtok_r(NULL, "\n", &save))
		ga_stats_io_line(line, s);
	return s;
}

/* Every page size that has a file: hugetlb.2MB.current ... */
static void ga_stats_hugetlb(const struct ga_cgroup *cg, Grpc__CgroupStats *s)
{
	DIR *d = opendir(cg->path);
	struct dirent *ent;

	while (d && (ent = readdir(d))) {
		Grpc__CgroupStats__HugetlbStatsEntry *entry;
		char size[32], end;
		if (sscanf(ent->d_name, "hugetlb.%31[0-9KMGB].curren%c", size, &end) != 2 ||
		    end != 't' || strstr(ent->d_name, "rsvd"))
			continue;
		entry = mem_zalloc(sizeof *entry);
		grpc__cgroup_stats__hugetlb_stats_entry__init(entry);
		entry->key = mem_strdup(size);
		entry->value = mem_zalloc(sizeof *entry->value);
		grpc__hugetlb_stats__init(entry->value);
		(void)ga_cgroup_number(cg, ent->d_name, &entry->value->usage);
		GA_STATS_ADD(s->hugetlb_stats, s->n_hugetlb_stats, entry);
	}
	if (d)
		closedir(d);
}

void ga_stats_container(struct ga_agent *a, struct ttrpc_call *call, const char *id)
{
	struct err e = { 0 };
	const struct ga_container *c = ga_container_find(a, id, &e);
	Grpc__StatsContainerResponse *r;

	if (!c || !c->cgroup.path) {
		if (c)
			err_set(&e, -EBUSY, "container \"%s\" is not set up", id);
		ttrpc_fail_err(call, &e);
		return;
	}
	r = mem_zalloc(sizeof *r);
	grpc__stats_container_response__init(r);
	r->cgroup_stats = mem_zalloc(sizeof *r->cgroup_stats);
	grpc__cgroup_stats__init(r->cgroup_stats);
	r->cgroup_stats->cpu_stats = ga_stats_cpu(&c->cgroup);
	r->cgroup_stats->memory_stats = ga_stats_memory(&c->cgroup);
	r->cgroup_stats->pids_stats = ga_stats_pids(&c->cgroup);
	r->cgroup_stats->blkio_stats = ga_stats_io(&c->cgroup);
	ga_stats_hugetlb(&c->cgroup, r->cgroup_stats);
	ga_net_stats(&r->network_stats, &r->n_network_stats);
	ttrpc_reply(call, &r->base);
	grpc__stats_container_response__free_unpacked(r, NULL);
}

#undef GA_STATS_ADD
