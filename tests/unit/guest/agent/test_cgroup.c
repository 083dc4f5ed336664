#include "tests/unit/guest/agent/agent.h"
#include "tests/unit/test.h"

TEST(ga_cgroup_cpu_weight_maps_both_ends_and_the_default)
{
	static const struct {
		uint64_t shares, weight;
	} rows[] = { { 0, 1 },     { 2, 1 },          { 1024, 39 },
		     { 2048, 79 }, { 262144, 10000 }, { UINT64_MAX, 10000 } };
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		test_note("%llu", (unsigned long long)rows[i].shares);
		CHECK_EQ(ga_cgroup_cpu_weight(rows[i].shares), rows[i].weight);
	}
}

TEST(ga_cgroup_io_weight_maps_both_ends)
{
	CHECK_EQ(ga_cgroup_io_weight(0), 1);
	CHECK_EQ(ga_cgroup_io_weight(10), 1);
	CHECK_EQ(ga_cgroup_io_weight(100), 910);
	CHECK_EQ(ga_cgroup_io_weight(1000), 10000);
	CHECK_EQ(ga_cgroup_io_weight(5000), 10000);
}

TEST(ga_cgroup_swap_is_what_the_sum_leaves)
{
	static const struct {
		int64_t limit, swap;
		int r;
		int64_t out;
	} rows[] = {
		{ 100, 150, 0, 50 },     { 100, 100, 0, 0 },      { 100, -1, 0, -1 },
		{ -1, -1, 0, -1 },       { 100, 99, -EINVAL, 0 }, { 0, 100, -EINVAL, 0 },
		{ -1, 100, -EINVAL, 0 },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t out = 0;
		test_note("row %zu", i);
		CHECK_EQ(ga_cgroup_swap_max(rows[i].limit, rows[i].swap, &out), rows[i].r);
		CHECK_EQ(out, rows[i].out);
	}
}

TEST(ga_cgroup_place_makes_a_safe_path)
{
	static const struct {
		const char *path, *out; /* NULL = refused */
	} rows[] = {
		{ "", "/id" },
		{ "/a/b", "/a/b" },
		{ "a//b/", "/a/b" },
		{ "kubepods.slice:cri:abc", "/kubepods.slice/cri-abc" },
		{ ":cri:abc", "/cri-abc" },
		{ "a::b", "/a/b" },
		{ "/a/../b", NULL },
		{ "..", NULL },
		{ "/./a", NULL },
		{ "/a/cgroup.procs", NULL },
		{ "/", NULL },
		{ "a:..:b", "/a/..-b" },
		{ "..:x:b", NULL },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF struct buf b = { 0 };
		struct err e;
		test_note("%s", rows[i].path);
		CHECK_EQ(ga_cgroup_place(rows[i].path, "id", &b, &e), rows[i].out ? 0 : -EINVAL);
		if (rows[i].out)
			CHECK_STR(buf_cstr(&b), rows[i].out);
	}
}

/* ---- Files: a directory that looks like a cgroup */

static struct ga_cgroup cgroup_fake(const char *const *files)
{
	struct ga_cgroup cg = GA_CGROUP_NONE;

	cg.path = mem_strdup(test_dir());
	cg.fd = open(cg.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (; *files; files += 2) {
		AUTO_FREE char *path = mem_printf("%s/%s", cg.path, files[0]);
		struct err e;
		CHECK_EQ(path_replace(path, files[1], strlen(files[1]), 0644, &e), 0);
	}
	return cg;
}

static void cgroup_check(const struct ga_cgroup *cg, const char *file, const char *want)
{
	AUTO_BUF struct buf b = { 0 };

	test_note("%s", file);
	CHECK_EQ(ga_cgroup_read(cg, file, &b), 0);
	CHECK_STR(buf_cstr(&b), want);
}

static void cgroup_done(struct ga_cgroup *cg)
{
	close(cg->fd);
	free(cg->path);
}

TEST(ga_cgroup_reads_numbers_max_and_keys)
{
	static const char *const files[] = { "a", "123\n", "b", "max\n",
					     "c", "x",     "k", "user_usec 5\nuser 7\n",
					     NULL };
	struct ga_cgroup cg = cgroup_fake(files);
	uint64_t v = 1;

	CHECK(ga_cgroup_number(&cg, "a", &v) && v == 123);
	CHECK(ga_cgroup_number(&cg, "b", &v) && v == UINT64_MAX);
	CHECK(!ga_cgroup_number(&cg, "c", &v));
	CHECK(!ga_cgroup_number(&cg, "absent", &v));
	CHECK_EQ(ga_cgroup_keyed(&cg, "k", "user"), 7);
	CHECK_EQ(ga_cgroup_keyed(&cg, "k", "user_usec"), 5);
	CHECK_EQ(ga_cgroup_keyed(&cg, "k", "usec"), 0);
	CHECK_EQ(ga_cgroup_keyed(&cg, "absent", "user"), 0);
	cgroup_done(&cg);
}

TEST(ga_cgroup_apply_writes_each_limit_that_is_set)
{
	static const char *const files[] = { "memory.max",
					     "",
					     "memory.low",
					     "",
					     "memory.swap.max",
					     "",
					     "cpu.weight",
					     "",
					     "cpu.max",
					     "",
					     "cpuset.cpus",
					     "",
					     "pids.max",
					     "",
					     "hugetlb.2MB.max",
					     "",
					     "io.weight",
					     "",
					     "io.max",
					     "",
					     NULL };
	struct ga_cgroup cg = cgroup_fake(files);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxMemory m = GRPC__LINUX_MEMORY__INIT;
	Grpc__LinuxCPU c = GRPC__LINUX_CPU__INIT;
	Grpc__LinuxPids p = GRPC__LINUX_PIDS__INIT;
	Grpc__LinuxHugepageLimit h = GRPC__LINUX_HUGEPAGE_LIMIT__INIT, *hs[] = { &h };
	Grpc__LinuxBlockIO b = GRPC__LINUX_BLOCK_IO__INIT;
	Grpc__LinuxThrottleDevice t = GRPC__LINUX_THROTTLE_DEVICE__INIT, *ts[] = { &t };
	struct err e = { 0 };

	m.limit = 1000, m.reservation = 500, m.swap = 1500;
	c.shares = 1024, c.quota = 20000, c.cpus = "0-1";
	p.limit = -1;
	h.pagesize = "2MB", h.limit = 4096;
	b.weight = 100, b.throttlereadbpsdevice = ts, b.n_throttlereadbpsdevice = 1;
	t.major = 8, t.minor = 16, t.rate = 777;
	r.memory = &m, r.cpu = &c, r.pids = &p, r.blockio = &b;
	r.hugepagelimits = hs, r.n_hugepagelimits = 1;
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), 0);
	cgroup_check(&cg, "memory.max", "1000");
	cgroup_check(&cg, "memory.low", "500");
	cgroup_check(&cg, "memory.swap.max", "500");
	cgroup_check(&cg, "cpu.weight", "39");
	cgroup_check(&cg, "cpu.max", "20000 100000");
	cgroup_check(&cg, "cpuset.cpus", "0-1");
	cgroup_check(&cg, "pids.max", "max");
	cgroup_check(&cg, "hugetlb.2MB.max", "4096");
	cgroup_check(&cg, "io.weight", "default 910");
	cgroup_check(&cg, "io.max", "8:16 rbps=777");
	cgroup_done(&cg);
}

TEST(ga_cgroup_apply_leaves_what_is_not_set)
{
	static const char *const files[] = { "memory.max", "7\n", "cpu.max", "5000 50000\n", NULL };
	struct ga_cgroup cg = cgroup_fake(files);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxCPU c = GRPC__LINUX_CPU__INIT;
	struct err e = { 0 };

	r.cpu = &c;
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), 0);
	cgroup_check(&cg, "memory.max", "7\n");
	cgroup_check(&cg, "cpu.max", "5000 50000\n");
	c.period = 200000; /* the quota stays */
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), 0);
	cgroup_check(&cg, "cpu.max", "5000 200000");
	cgroup_done(&cg);
}

TEST(ga_cgroup_apply_takes_bfq_weights_as_they_are)
{
	static const char *const files[] = { "io.bfq.weight", "", NULL };
	struct ga_cgroup cg = cgroup_fake(files);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxBlockIO b = GRPC__LINUX_BLOCK_IO__INIT;
	struct err e = { 0 };

	r.blockio = &b;
	b.weight = 300;
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), 0);
	cgroup_check(&cg, "io.bfq.weight", "default 300");
	cgroup_done(&cg);
}

TEST(ga_cgroup_apply_names_the_file_that_refuses)
{
	static const char *const files[] = { NULL };
	struct ga_cgroup cg = cgroup_fake(files);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxPids p = GRPC__LINUX_PIDS__INIT;
	struct err e = { 0 };

	r.pids = &p;
	p.limit = 9;
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), -ENOENT);
	CHECK_STR(e.msg, "cgroup: set pids.max to 9: No such file or directory");
	cgroup_done(&cg);
}

TEST(ga_cgroup_unified_is_a_file_name_and_lines)
{
	static const char *const files[] = { "memory.high", "", NULL };
	struct ga_cgroup cg = cgroup_fake(files);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxResources__UnifiedEntry u = GRPC__LINUX_RESOURCES__UNIFIED_ENTRY__INIT,
					   *us[] = { &u };
	struct err e = { 0 };

	r.unified = us;
	r.n_unified = 1;
	u.key = "memory.high";
	u.value = "55\n\n";
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), 0);
	cgroup_check(&cg, "memory.high", "55");
	u.key = "../memory.high";
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), -EINVAL);
	u.key = "";
	CHECK_EQ(ga_cgroup_apply(&cg, &r, &e), -EINVAL);
	cgroup_done(&cg);
}
