#include "amalgam/shim/stats.h"

#include "amalgam/base/mem.h"
#include "metrics.pb-c.h"
#include "tests/unit/test.h"

/* An answer of the agent; the pieces may be changed before it is packed. */
struct tst {
	Grpc__StatsContainerResponse r;
	Grpc__CgroupStats cgroup;
	Grpc__CpuStats cpu;
	Grpc__CpuUsage cpu_usage;
	Grpc__ThrottlingData throttling;
	Grpc__MemoryStats memory;
	Grpc__MemoryData usage, swap, kernel;
	Grpc__MemoryStats__StatsEntry rows[4], *row_list[4];
	Grpc__PidsStats pids;
	Grpc__BlkioStats blkio;
	Grpc__BlkioStatsEntry bytes[3], ios[2], *byte_list[3], *io_list[2];
};

static void tst_rows(struct tst *t)
{
	static const struct {
		const char *key;
		uint64_t value;
	} rows[] = { { "anon", 100 }, { "inactive_file", 30 }, { "active_file", 40 }, { "pgfault", 7 } };
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		grpc__memory_stats__stats_entry__init(&t->rows[i]);
		t->rows[i].key = (char *)(uintptr_t)rows[i].key;
		t->rows[i].value = rows[i].value;
		t->row_list[i] = &t->rows[i];
	}
	t->memory.stats = t->row_list;
	t->memory.n_stats = ARRAY_LEN(rows);
}

static void tst_io(Grpc__BlkioStatsEntry *e, uint64_t minor, const char *op, uint64_t value)
{
	grpc__blkio_stats_entry__init(e);
	e->major = 254;
	e->minor = minor;
	e->op = (char *)(uintptr_t)op;
	e->value = value;
}

static void tst_blkio(struct tst *t)
{
	tst_io(&t->bytes[0], 0, "Read", 4096);
	tst_io(&t->bytes[1], 16, "Write", 512);
	tst_io(&t->bytes[2], 0, "Discard", 9);
	tst_io(&t->ios[0], 0, "Read", 2);
	tst_io(&t->ios[1], 16, "Write", 1);
	for (int i = 0; i < 3; i++)
		t->byte_list[i] = &t->bytes[i];
	for (int i = 0; i < 2; i++)
		t->io_list[i] = &t->ios[i];
	t->blkio.io_service_bytes_recursive = t->byte_list;
	t->blkio.n_io_service_bytes_recursive = 3;
	t->blkio.io_serviced_recursive = t->io_list;
	t->blkio.n_io_serviced_recursive = 2;
}

static void tst_start(struct tst *t)
{
	*t = (struct tst){ 0 };
	grpc__stats_container_response__init(&t->r);
	grpc__cgroup_stats__init(&t->cgroup);
	grpc__memory_stats__init(&t->memory);
	grpc__blkio_stats__init(&t->blkio);
	t->cpu_usage = (Grpc__CpuUsage)GRPC__CPU_USAGE__INIT;
	t->cpu_usage.total_usage = 5000001999;
	t->cpu_usage.usage_in_usermode = 3000000000;
	t->cpu_usage.usage_in_kernelmode = 2000001999;
	t->throttling = (Grpc__ThrottlingData)GRPC__THROTTLING_DATA__INIT;
	t->throttling.periods = 10;
	t->throttling.throttled_periods = 4;
	t->throttling.throttled_time = 7000000;
	t->usage.usage = 1 << 20;
	t->usage.max_usage = 2 << 20;
	t->usage.limit = 64 << 20;
	t->usage.failcnt = 3;
	t->swap.usage = 4096;
	t->swap.limit = 1 << 20;
	t->kernel.usage = 777;
	t->memory.cache = 70;
	t->pids.current = 5;
	t->pids.limit = 100;
	t->cpu.cpu_usage = &t->cpu_usage;
	t->cpu.throttling_data = &t->throttling;
	t->memory.usage = &t->usage;
	t->memory.swap_usage = &t->swap;
	t->memory.kernel_usage = &t->kernel;
	tst_rows(t);
	tst_blkio(t);
	t->cgroup.cpu_stats = &t->cpu;
	t->cgroup.memory_stats = &t->memory;
	t->cgroup.pids_stats = &t->pids;
	t->cgroup.blkio_stats = &t->blkio;
	t->r.cgroup_stats = &t->cgroup;
}

static ProtobufCMessage *tst_pack(const struct tst *t, bool unified)
{
	Ctd__Any any = CTD__ANY__INIT;
	ProtobufCMessage *m;

	shim_stats_pack(&t->r, unified, &any);
	CHECK_STR(any.type_url, unified ? "io.containerd.cgroups.v2.Metrics" :
					  "io.containerd.cgroups.v1.Metrics");
	m = protobuf_c_message_unpack(unified ? &cgm__v2_metrics__descriptor :
						&cgm__v1_metrics__descriptor,
				      NULL, any.value.len, any.value.data);
	CHECK(m);
	free(any.type_url);
	free(any.value.data);
	return m;
}

static Cgm__V1Metrics *tst_v1(const struct tst *t)
{
	return (Cgm__V1Metrics *)tst_pack(t, false);
}

static Cgm__V2Metrics *tst_v2(const struct tst *t)
{
	return (Cgm__V2Metrics *)tst_pack(t, true);
}

TEST(shim_stats_of_a_unified_host_are_v2_metrics)
{
	struct tst t;
	Cgm__V2Metrics *m;

	tst_start(&t);
	m = tst_v2(&t);
	CHECK_EQ(m->cpu->usage_usec, 5000001);
	CHECK_EQ(m->cpu->user_usec, 3000000);
	CHECK_EQ(m->cpu->system_usec, 2000001);
	CHECK_EQ(m->cpu->nr_periods, 10);
	CHECK_EQ(m->cpu->nr_throttled, 4);
	CHECK_EQ(m->cpu->throttled_usec, 7000);
	CHECK_EQ(m->memory->usage, 1 << 20);
	CHECK_EQ(m->memory->max_usage, 2 << 20);
	CHECK_EQ(m->memory->usage_limit, 64 << 20);
	CHECK_EQ(m->memory->swap_usage, 4096);
	CHECK_EQ(m->memory->swap_limit, 1 << 20);
	CHECK_EQ(m->memory->anon, 100);
	CHECK_EQ(m->memory->file, 70);
	CHECK_EQ(m->memory->inactive_file, 30);
	CHECK_EQ(m->memory->active_file, 40);
	CHECK_EQ(m->memory->pgfault, 7);
	CHECK_EQ(m->memory->slab, 0);
	CHECK_EQ(m->memory_events->max, 3);
	CHECK_EQ(m->pids->current, 5);
	CHECK_EQ(m->pids->limit, 100);
	cgm__v2_metrics__free_unpacked(m, NULL);
}

TEST(shim_stats_v2_has_one_row_per_block_device)
{
	struct tst t;
	Cgm__V2Metrics *m;

	tst_start(&t);
	m = tst_v2(&t);
	CHECK_EQ(m->io->n_usage, 2);
	CHECK_EQ(m->io->usage[0]->major, 254);
	CHECK_EQ(m->io->usage[0]->minor, 0);
	CHECK_EQ(m->io->usage[0]->rbytes, 4096);
	CHECK_EQ(m->io->usage[0]->rios, 2);
	CHECK_EQ(m->io->usage[0]->wbytes, 0);
	CHECK_EQ(m->io->usage[1]->minor, 16);
	CHECK_EQ(m->io->usage[1]->wbytes, 512);
	CHECK_EQ(m->io->usage[1]->wios, 1);
	cgm__v2_metrics__free_unpacked(m, NULL);
}

TEST(shim_stats_of_a_v1_host_are_v1_metrics)
{
	uint64_t per_cpu[] = { 1, 2 };
	struct tst t;
	Cgm__V1Metrics *m;

	tst_start(&t);
	t.cpu_usage.percpu_usage = per_cpu;
	t.cpu_usage.n_percpu_usage = 2;
	m = tst_v1(&t);
	CHECK_EQ(m->cpu->usage->total, 5000001999);
	CHECK_EQ(m->cpu->usage->user, 3000000000);
	CHECK_EQ(m->cpu->usage->kernel, 2000001999);
	CHECK_EQ(m->cpu->usage->n_per_cpu, 2);
	CHECK_EQ(m->cpu->throttling->throttled_time, 7000000);
	CHECK_EQ(m->memory->usage->usage, 1 << 20);
	CHECK_EQ(m->memory->usage->max, 2 << 20);
	CHECK_EQ(m->memory->usage->limit, 64 << 20);
	CHECK_EQ(m->memory->usage->failcnt, 3);
	CHECK_EQ(m->memory->hierarchical_memory_limit, 64 << 20);
	CHECK_EQ(m->memory->swap->usage, (1 << 20) + 4096);
	CHECK_EQ(m->memory->swap->limit, (64 << 20) + (1 << 20));
	CHECK_EQ(m->memory->kernel->usage, 777);
	CHECK_EQ(m->memory->rss, 100);
	CHECK_EQ(m->memory->total_rss, 100);
	CHECK_EQ(m->memory->total_cache, 70);
	CHECK_EQ(m->memory->total_inactive_file, 30);
	CHECK_EQ(m->pids->limit, 100);
	CHECK_EQ(m->blkio->n_io_service_bytes_recursive, 3);
	CHECK_STR(m->blkio->io_service_bytes_recursive[1]->op, "Write");
	CHECK_EQ(m->blkio->io_service_bytes_recursive[1]->value, 512);
	CHECK_EQ(m->blkio->n_io_serviced_recursive, 2);
	CHECK_EQ(m->blkio->io_serviced_recursive[0]->value, 2);
	cgm__v1_metrics__free_unpacked(m, NULL);
}

TEST(shim_stats_no_limit_is_the_word_of_each_version)
{
	static const uint64_t none[] = { 0, UINT64_MAX, (UINT64_C(1) << 62) + 1 };

	for (size_t i = 0; i < ARRAY_LEN(none); i++) {
		struct tst t;
		Cgm__V1Metrics *one;
		Cgm__V2Metrics *two;
		tst_start(&t);
		t.usage.limit = none[i];
		t.swap.limit = UINT64_MAX;
		t.pids.limit = 0;
		one = tst_v1(&t);
		two = tst_v2(&t);
		CHECK_EQ(one->memory->usage->limit, 0x7ffffffffffff000);
		CHECK_EQ(one->memory->hierarchical_memory_limit, 0x7ffffffffffff000);
		CHECK_EQ(one->memory->swap->limit, 0x7ffffffffffff000);
		CHECK_EQ(one->pids->limit, 0);
		CHECK_EQ(two->memory->usage_limit, UINT64_MAX);
		CHECK_EQ(two->memory->swap_limit, UINT64_MAX);
		CHECK_EQ(two->pids->limit, UINT64_MAX);
		cgm__v1_metrics__free_unpacked(one, NULL);
		cgm__v2_metrics__free_unpacked(two, NULL);
	}
}

TEST(shim_stats_of_an_agent_that_says_nothing_have_all_the_parts)
{
	Grpc__StatsContainerResponse r = GRPC__STATS_CONTAINER_RESPONSE__INIT;
	struct tst t = { .r = r };
	Cgm__V1Metrics *one = tst_v1(&t);
	Cgm__V2Metrics *two = tst_v2(&t);

	CHECK(one->cpu && one->cpu->usage && one->memory && one->memory->usage && one->pids);
	CHECK(two->cpu && two->memory && two->pids && two->io);
	CHECK_EQ(two->memory->usage, 0);
	CHECK_EQ(two->memory->usage_limit, UINT64_MAX);
	cgm__v1_metrics__free_unpacked(one, NULL);
	cgm__v2_metrics__free_unpacked(two, NULL);
}
