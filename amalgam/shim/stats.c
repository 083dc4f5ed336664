#include "amalgam/shim/stats.h"

#include <strings.h>

#include "amalgam/base/mem.h"
#include "metrics.pb-c.h"

#define SHIM_STATS_V1_UNLIMITED UINT64_C(0x7ffffffffffff000)
#define SHIM_STATS_NS_PER_US    1000

/* The answer with no part missing: what the agent left out is all zeros. */
struct shim_stats_in {
	Grpc__CpuUsage cpu;
	Grpc__ThrottlingData throttling;
	Grpc__MemoryStats memory;
	Grpc__MemoryData usage, swap, kernel;
	Grpc__PidsStats pids;
	Grpc__BlkioStats blkio;
};

#define SHIM_STATS_TAKE(field, pointer) \
	do {                            \
		if (pointer)            \
			(field) = *(pointer); \
	} while (0)

static void shim_stats_take(struct shim_stats_in *in, const Grpc__StatsContainerResponse *r)
{
	const Grpc__CgroupStats *c = r->cgroup_stats;

	*in = (struct shim_stats_in){ 0 };
	if (!c)
		return;
	SHIM_STATS_TAKE(in->memory, c->memory_stats);
	SHIM_STATS_TAKE(in->pids, c->pids_stats);
	SHIM_STATS_TAKE(in->blkio, c->blkio_stats);
	if (c->cpu_stats) {
		SHIM_STATS_TAKE(in->cpu, c->cpu_stats->cpu_usage);
		SHIM_STATS_TAKE(in->throttling, c->cpu_stats->throttling_data);
	}
	SHIM_STATS_TAKE(in->usage, in->memory.usage);
	SHIM_STATS_TAKE(in->swap, in->memory.swap_usage);
	SHIM_STATS_TAKE(in->kernel, in->memory.kernel_usage);
}

#undef SHIM_STATS_TAKE

/* A row of the guest's memory.stat. */
static uint64_t shim_stats_row(const struct shim_stats_in *in, const char *key)
{
	for (size_t i = 0; i < in->memory.n_stats; i++)
		if (strcmp(in->memory.stats[i]->key, key) == 0)
			return in->memory.stats[i]->value;
	return 0;
}

static bool shim_stats_is_unlimited(uint64_t limit)
{
	return limit == 0 || limit > UINT64_C(1) << 62;
}

static void shim_stats_put(const ProtobufCMessage *m, const char *type, Ctd__Any *out)
{
	size_t n = protobuf_c_message_get_packed_size(m);

	out->type_url = mem_strdup(type);
	out->value.data = mem_zalloc(n);
	out->value.len = protobuf_c_message_pack(m, out->value.data);
}

/* --- v2 ------------------------------------------------------------------------------------------ */

static void shim_stats_v2_cpu(const struct shim_stats_in *in, Cgm__V2Cpu *cpu)
{
	cpu->usage_usec = in->cpu.total_usage / SHIM_STATS_NS_PER_US;
	cpu->user_usec = in->cpu.usage_in_usermode / SHIM_STATS_NS_PER_US;
	cpu->system_usec = in->cpu.usage_in_kernelmode / SHIM_STATS_NS_PER_US;
	cpu->nr_periods = in->throttling.periods;
	cpu->nr_throttled = in->throttling.throttled_periods;
	cpu->throttled_usec = in->throttling.throttled_time / SHIM_STATS_NS_PER_US;
}

static void shim_stats_v2_memory(const struct shim_stats_in *in, Cgm__V2Memory *m)
{
	const struct {
		const char *key;
		uint64_t *to;
	} rows[] = {
		{ "anon", &m->anon },
		{ "kernel_stack", &m->kernel_stack },
		{ "slab", &m->slab },
		{ "file_mapped", &m->file_mapped },
		{ "inactive_file", &m->inactive_file },
		{ "active_file", &m->active_file },
		{ "pgfault", &m->pgfault },
		{ "pgmajfault", &m->pgmajfault },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		*rows[i].to = shim_stats_row(in, rows[i].key);
	m->file = in->memory.cache;
	m->usage = in->usage.usage;
	m->max_usage = in->usage.max_usage;
	m->usage_limit = shim_stats_is_unlimited(in->usage.limit) ? UINT64_MAX : in->usage.limit;
	m->swap_usage = in->swap.usage;
	m->swap_limit = in->swap.limit > UINT64_C(1) << 62 ? UINT64_MAX : in->swap.limit;
}

/* The row of a device; made when it is new. There is room for one per entry. */
static Cgm__V2IoEntry *shim_stats_v2_device(Cgm__V2Io *io, const Grpc__BlkioStatsEntry *e)
{
	Cgm__V2IoEntry *d;

	for (size_t i = 0; i < io->n_usage; i++)
		if (io->usage[i]->major == e->major && io->usage[i]->minor == e->minor)
			return io->usage[i];
	d = mem_zalloc(sizeof *d);
	cgm__v2_io_entry__init(d);
	d->major = e->major;
	d->minor = e->minor;
	io->usage[io->n_usage++] = d;
	return d;
}

static void shim_stats_v2_io(const struct shim_stats_in *in, Cgm__V2Io *io)
{
	size_t nbytes = in->blkio.n_io_service_bytes_recursive;
	size_t n = nbytes + in->blkio.n_io_serviced_recursive;

	io->usage = mem_calloc(n, sizeof(Cgm__V2IoEntry *));
	for (size_t i = 0; i < n; i++) {
		bool is_bytes = i < nbytes;
		const Grpc__BlkioStatsEntry *e =
			is_bytes ? in->blkio.io_service_bytes_recursive[i] :
				   in->blkio.io_serviced_recursive[i - nbytes];
		Cgm__V2IoEntry *d = shim_stats_v2_device(io, e);
		if (strcasecmp(e->op, "read") == 0)
			*(is_bytes ? &d->rbytes : &d->rios) += e->value;
		else if (strcasecmp(e->op, "write") == 0)
			*(is_bytes ? &d->wbytes : &d->wios) += e->value;
	}
}

static void shim_stats_v2(const struct shim_stats_in *in, Ctd__Any *out)
{
	Cgm__V2Metrics m = CGM__V2_METRICS__INIT;
	Cgm__V2Pids pids = CGM__V2_PIDS__INIT;
	Cgm__V2Cpu cpu = CGM__V2_CPU__INIT;
	Cgm__V2Memory memory = CGM__V2_MEMORY__INIT;
	Cgm__V2Io io = CGM__V2_IO__INIT;
	Cgm__V2MemoryEvents events = CGM__V2_MEMORY_EVENTS__INIT;

	pids.current = in->pids.current;
	pids.limit = in->pids.limit ? in->pids.limit : UINT64_MAX;
	shim_stats_v2_cpu(in, &cpu);
	shim_stats_v2_memory(in, &memory);
	shim_stats_v2_io(in, &io);
	events.max = in->usage.failcnt;
	m.pids = &pids;
	m.cpu = &cpu;
	m.memory = &memory;
	m.io = &io;
	m.memory_events = &events;
	shim_stats_put(&m.base, "io.containerd.cgroups.v2.Metrics", out);
	for (size_t i = 0; i < io.n_usage; i++)
		free(io.usage[i]);
	free(io.usage);
}

/* --- v1 ------------------------------------------------------------------------------------------ */

static uint64_t shim_stats_v1_limit(uint64_t limit)
{
	return shim_stats_is_unlimited(limit) ? SHIM_STATS_V1_UNLIMITED : limit;
}

static void shim_stats_v1_rows(const struct shim_stats_in *in, Cgm__V1Memory *m)
{
	m->cache = m->total_cache = in->memory.cache;
	m->rss = m->total_rss = shim_stats_row(in, "anon");
	m->mapped_file = shim_stats_row(in, "file_mapped");
	m->inactive_file = m->total_inactive_file = shim_stats_row(in, "inactive_file");
	m->active_file = m->total_active_file = shim_stats_row(in, "active_file");
	m->total_pg_fault = shim_stats_row(in, "pgfault");
	m->total_pg_maj_fault = shim_stats_row(in, "pgmajfault");
	m->hierarchical_memory_limit = shim_stats_v1_limit(in->usage.limit);
}

static void shim_stats_v1_entry(Cgm__V1MemoryEntry *to, const Grpc__MemoryData *from)
{
	to->limit = shim_stats_v1_limit(from->limit);
	to->usage = from->usage;
	to->max = from->max_usage;
	to->failcnt = from->failcnt;
}

static void shim_stats_v1_swap(Cgm__V1MemoryEntry *to, const struct shim_stats_in *in)
{
	to->usage = in->usage.usage + in->swap.usage;
	to->max = MAX(in->usage.max_usage, to->usage); /* of both together nobody has kept a peak */
	to->failcnt = in->swap.failcnt;
	to->limit = SHIM_STATS_V1_UNLIMITED;
	if (!shim_stats_is_unlimited(in->usage.limit) && in->swap.limit <= UINT64_C(1) << 62)
		to->limit = in->usage.limit + in->swap.limit;
}

/* Everything of one list of the agent's; n rows on the heap, behind their pointers. */
static Cgm__V1BlkioEntry **shim_stats_v1_blkio(Grpc__BlkioStatsEntry *const *from, size_t n)
{
	Cgm__V1BlkioEntry **list =
		mem_calloc(n, sizeof(Cgm__V1BlkioEntry *) + sizeof(Cgm__V1BlkioEntry));
	Cgm__V1BlkioEntry *rows = (Cgm__V1BlkioEntry *)(list + n);

	for (size_t i = 0; i < n; i++) {
		list[i] = &rows[i];
		cgm__v1_blkio_entry__init(&rows[i]);
		rows[i].op = from[i]->op;
		rows[i].major = from[i]->major;
		rows[i].minor = from[i]->minor;
		rows[i].value = from[i]->value;
	}
	return list;
}

static void shim_stats_v1_memory(const struct shim_stats_in *in, Cgm__V1Memory *m)
{
	shim_stats_v1_rows(in, m);
	shim_stats_v1_entry(m->usage, &in->usage);
	shim_stats_v1_entry(m->kernel, &in->kernel);
	shim_stats_v1_swap(m->swap, in);
	m->kernel_tcp->limit = SHIM_STATS_V1_UNLIMITED;
}

static void shim_stats_v1_cpu(const struct shim_stats_in *in, Cgm__V1Cpu *cpu)
{
	cpu->usage->total = in->cpu.total_usage;
	cpu->usage->kernel = in->cpu.usage_in_kernelmode;
	cpu->usage->user = in->cpu.usage_in_usermode;
	cpu->usage->per_cpu = in->cpu.percpu_usage;
	cpu->usage->n_per_cpu = in->cpu.n_percpu_usage;
	cpu->throttling->periods = in->throttling.periods;
	cpu->throttling->throttled_periods = in->throttling.throttled_periods;
	cpu->throttling->throttled_time = in->throttling.throttled_time;
}

static void shim_stats_v1(const struct shim_stats_in *in, Ctd__Any *out)
{
	Cgm__V1Metrics m = CGM__V1_METRICS__INIT;
	Cgm__V1Pids pids = CGM__V1_PIDS__INIT;
	Cgm__V1CpuUsage usage = CGM__V1_CPU_USAGE__INIT;
	Cgm__V1Throttle throttle = CGM__V1_THROTTLE__INIT;
	Cgm__V1Cpu cpu = CGM__V1_CPU__INIT;
	Cgm__V1MemoryEntry entries[4] = { CGM__V1_MEMORY_ENTRY__INIT, CGM__V1_MEMORY_ENTRY__INIT,
					  CGM__V1_MEMORY_ENTRY__INIT, CGM__V1_MEMORY_ENTRY__INIT };
	Cgm__V1Memory memory = CGM__V1_MEMORY__INIT;
	Cgm__V1Blkio blkio = CGM__V1_BLKIO__INIT;

	pids.current = in->pids.current;
	pids.limit = in->pids.limit;
	cpu.usage = &usage;
	cpu.throttling = &throttle;
	shim_stats_v1_cpu(in, &cpu);
	memory.usage = &entries[0];
	memory.swap = &entries[1];
	memory.kernel = &entries[2];
	memory.kernel_tcp = &entries[3];
	shim_stats_v1_memory(in, &memory);
	blkio.n_io_service_bytes_recursive = in->blkio.n_io_service_bytes_recursive;
	blkio.io_service_bytes_recursive = shim_stats_v1_blkio(
		in->blkio.io_service_bytes_recursive, blkio.n_io_service_bytes_recursive);
	blkio.n_io_serviced_recursive = in->blkio.n_io_serviced_recursive;
	blkio.io_serviced_recursive = shim_stats_v1_blkio(in->blkio.io_serviced_recursive,
							  blkio.n_io_serviced_recursive);
	m.pids = &pids;
	m.cpu = &cpu;
	m.memory = &memory;
	m.blkio = &blkio;
	shim_stats_put(&m.base, "io.containerd.cgroups.v1.Metrics", out);
	free(blkio.io_service_bytes_recursive);
	free(blkio.io_serviced_recursive);
}

ONLY_TESTED void shim_stats_pack(const Grpc__StatsContainerResponse *r, bool unified_host,
				 Ctd__Any *out)
{
	struct shim_stats_in in;

	shim_stats_take(&in, r);
	if (unified_host)
		shim_stats_v2(&in, out);
	else
		shim_stats_v1(&in, out);
}
