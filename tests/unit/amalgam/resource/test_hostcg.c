#include "amalgam/resource/hostcg.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "tests/unit/test.h"

/* ---- Paths. */

TEST(hostcg_place_reads_both_ways_to_write_a_path)
{
	static const struct {
		const char *text, *path;
	} rows[] = {
		{ "", "/spore/web" },
		{ "/a/b", "/a/b" },
		{ "a//b/", "/a/b" },
		{ "/kubepods/pod-1:2:3/x", "/kubepods/pod-1:2:3/x" },
		{ "one:two", "/one:two" },
		{ "system.slice:docker:web", "/system.slice/docker-web.scope" },
		{ ":docker:web", "/system.slice/docker-web.scope" },
		{ "a-b-c.slice:cri-containerd:web",
		  "/a.slice/a-b.slice/a-b-c.slice/cri-containerd-web.scope" },
		{ "-.slice:p:n", "/p-n.scope" },
		{ "a.slice::n", "/a.slice/n.scope" },
		{ "a.slice:p:n.slice", "/a.slice/n.slice" },
		{ "a.slice:p:n:o", "/a.slice/p-n:o.scope" },
	};
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_BUF struct buf b = { 0 };
		test_note("%s", rows[i].text);
		CHECK_EQ(hostcg_place(rows[i].text, "web", &b, &e), 0);
		CHECK_STR(buf_cstr(&b), rows[i].path);
	}
}

TEST(hostcg_place_refuses_what_leaves_the_hierarchy_or_is_no_path)
{
	static const char *const rows[] = { "/",
					    "..",
					    "/a/../b",
					    "/a/.",
					    "/cgroup.procs",
					    "a.slice:p:../x",
					    "a.slice:../p:x",
					    "../a.slice:p:x",
					    "a:p:x",
					    "a-.slice:p:x",
					    "-a.slice:p:x",
					    "a--b.slice:p:x",
					    ".slice:p:x",
					    "a.slice:p:" };
	AUTO_FREE char *name = mem_zalloc(300);
	AUTO_BUF struct buf b = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_FREE char *want = mem_printf("cgroup path \"%s\" is not allowed", rows[i]);
		struct err e = { 0 };
		test_note("%s", rows[i]);
		CHECK_EQ(hostcg_place(rows[i], "web", &b, &e), -EINVAL);
		CHECK_STR(e.msg, want);
		CHECK_EQ(b.len, 0);
	}
	CHECK_EQ(hostcg_place("", "..", &b, NULL), -EINVAL);
	memset(name, 'x', 256);
	CHECK_EQ(hostcg_place(name, "web", &b, NULL), -EINVAL);
}

TEST(hostcg_cpu_weight_maps_the_whole_range)
{
	CHECK_EQ(hostcg_cpu_weight(0), 1);
	CHECK_EQ(hostcg_cpu_weight(2), 1);
	CHECK_EQ(hostcg_cpu_weight(1024), 39);
	CHECK_EQ(hostcg_cpu_weight(262144), 10000);
	CHECK_EQ(hostcg_cpu_weight(UINT64_MAX), 10000);
}

TEST(hostcg_mountinfo_counts_a_hierarchy_once)
{
	struct hostcg cg = { .path = mem_strdup("/a") };

	hostcg_mountinfo_line(&cg, "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755");
	hostcg_mountinfo_line(&cg, "32 31 0:29 / /c/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup "
				   "rw,cpu,cpuacct");
	hostcg_mountinfo_line(&cg, "33 31 0:29 / /c/again rw - cgroup cgroup rw,cpu,cpuacct");
	hostcg_mountinfo_line(&cg,
			      "34 31 0:30 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd");
	hostcg_mountinfo_line(&cg, "35 31 0:31 / /c/unified rw - cgroup2 cgroup2 rw");
	hostcg_mountinfo_line(&cg, "36 31 0:31 / /c/unified2 rw - cgroup2 cgroup2 rw");
	hostcg_mountinfo_line(&cg, "37 31 0:32 / /c/blkio rw - cgroup none rw,blkio");
	hostcg_mountinfo_line(&cg, "junk");
	CHECK_EQ(cg.n, 4);
	CHECK_STR(cg.trees[0].dir, "/c/cpu,cpuacct/a");
	CHECK_EQ(cg.trees[0].has, HOSTCG_CPU | HOSTCG_CPUACCT);
	CHECK_STR(cg.trees[1].mount, "/c/systemd");
	CHECK_EQ(cg.trees[1].has, 0);
	CHECK(cg.trees[2].v2);
	CHECK_EQ(cg.trees[3].has, HOSTCG_IO);
	CHECK(hostcg_with(&cg, HOSTCG_CPU) == &cg.trees[0]);
	CHECK(hostcg_with(&cg, HOSTCG_FREEZER) == &cg.trees[2]);
	CHECK(!hostcg_with(&cg, HOSTCG_MEMORY));
	hostcg_fini(&cg);
}

/* ---- Real groups. */

static char *tcg_name(const char *below)
{
	return mem_printf("/spore-unit-%d%s", getpid(), below);
}

static int tcg_create(struct hostcg *cg, const char *path, const char *id, struct err *e)
{
	int r = hostcg_plan(cg, path, id, e);

	return r < 0 ? r : hostcg_create(cg, e);
}

/* The group "/spore-unit-PID" + below. */
static struct hostcg tcg_make(const char *below)
{
	AUTO_FREE char *name = tcg_name(below);
	struct hostcg cg;
	struct err e = { 0 };
	int r = tcg_create(&cg, name, "id", &e);

	if (r == -EACCES || r == -EPERM || r == -EROFS || r == -ENODEV)
		test_skip("%s", e.msg);
	CHECK_STR(e.msg, "");
	CHECK_EQ(r, 0);
	CHECK_STR(cg.path, name);
	return cg;
}

static void tcg_done(struct hostcg *cg)
{
	struct err e = { 0 };

	CHECK_EQ(hostcg_kill(cg, &e), 0);
	CHECK_EQ(hostcg_remove(cg, &e), 0);
	for (size_t i = 0; i < cg->n; i++) {
		test_note("%s", cg->trees[i].dir);
		CHECK(access(cg->trees[i].dir, F_OK) < 0);
	}
	hostcg_fini(cg);
}

static pid_t tcg_child(const struct hostcg *cg, void (*body)(void *), void *arg)
{
	int fds[HOSTCG_MAX_TREES], r;
	size_t n = hostcg_procs(cg, fds);
	pid_t pid = fork();

	if (pid)
		return pid;
	r = hostcg_enter(fds, n);
	if (r < 0)
		test_fail(__FILE__, __LINE__, "enter: %s", strerror(-r));
	body(arg);
	_exit(0);
}

static void tcg_sleep(void *arg)
{
	(void)arg;
	for (;;)
		pause();
}

/* Wait until `pid` is in the group everywhere. */
static void tcg_wait_inside(const struct hostcg *cg, pid_t pid)
{
	AUTO_FREE char *path = mem_printf("/proc/%d/cgroup", pid);
	AUTO_FREE char *tail = mem_printf(":%s\n", cg->path);
	size_t inside = 0;

	for (int tries = 0; inside < cg->n && tries < 1000; tries++) {
		AUTO_BUF struct buf b = { 0 };
		CHECK_EQ(path_read(path, 4096, &b, NULL), 0);
		inside = 0;
		for (const char *p = buf_cstr(&b); (p = strstr(p, tail)); p++)
			inside++;
		usleep(5000);
	}
	CHECK_EQ(inside, cg->n);
}

/* The file of the hierarchy with the controller, v1 or v2 by name; without its newline. */
static void tcg_file(const struct hostcg *cg, unsigned bit, const char *v1, const char *v2,
		     const char *want)
{
	const struct hostcg_tree *t = hostcg_with(cg, bit);
	AUTO_BUF struct buf b = { 0 };
	AUTO_FREE char *got = NULL;

	CHECK(t);
	test_note("%s in %s", t->v2 ? v2 : v1, t->dir);
	CHECK_EQ(hostcg_read(t, t->v2 ? v2 : v1, &b), 0);
	got = buf_take_cstr(&b);
	got[strcspn(got, "\n")] = '\0';
	CHECK_STR(got, want);
}

TEST(hostcg_create_makes_the_group_everywhere_and_remove_takes_it_away)
{
	struct hostcg cg = tcg_make("/a/b");
	AUTO_FREE char *top = tcg_name("");
	struct err e = { 0 };

	CHECK(cg.n >= 1);
	for (size_t i = 0; i < cg.n; i++) {
		struct hostcg_tree *t = &cg.trees[i];
		test_note("%s", t->dir);
		CHECK(access(t->dir, F_OK) == 0 && t->procs_fd >= 0);
		CHECK_EQ(t->made, strlen(t->mount) + strlen(top));
	}
	CHECK_EQ(hostcg_remove(&cg, &e), 0);
	for (size_t i = 0; i < cg.n; i++) {
		AUTO_FREE char *dir = mem_printf("%s%s", cg.trees[i].mount, top);
		CHECK(access(dir, F_OK) < 0);
	}
	CHECK_EQ(hostcg_remove(&cg, &e), 0); /* again */
	hostcg_fini(&cg);
}

TEST(hostcg_remove_leaves_what_others_made_or_use)
{
	struct hostcg first = tcg_make("/a"), same = tcg_make("/a"), below = tcg_make("/b");
	struct err e = { 0 };

	CHECK_EQ(same.trees[0].made, 0);
	CHECK_EQ(hostcg_remove(&same, &e), 0);
	CHECK_EQ(access(first.trees[0].dir, F_OK), 0);
	CHECK_EQ(hostcg_remove(&first, &e), 0); /* its parent is in use */
	CHECK(access(first.trees[0].dir, F_OK) < 0);
	CHECK_EQ(access(below.trees[0].dir, F_OK), 0);
	CHECK_EQ(hostcg_remove(&below, &e), 0);
	for (size_t i = 0; i < first.n; i++) { /* nobody's any more: the test's to clean */
		AUTO_FREE char *top = tcg_name("");
		AUTO_FREE char *dir = mem_printf("%s%s", first.trees[i].mount, top);
		CHECK_EQ(rmdir(dir), 0);
	}
	hostcg_fini(&first);
	hostcg_fini(&same);
	hostcg_fini(&below);
}

TEST(hostcg_default_place_goes_with_the_last_sandbox)
{
	AUTO_FREE char *id1 = mem_printf("unit-%d-1", getpid()),
		       *id2 = mem_printf("unit-%d-2", getpid());
	struct hostcg one, two;
	struct err e = { 0 };

	one = tcg_make("/probe"); /* or skip */
	tcg_done(&one);
	CHECK_EQ(tcg_create(&one, "", id1, &e), 0);
	CHECK_EQ(tcg_create(&two, "", id2, &e), 0);
	CHECK_HAS(one.trees[0].dir, "/spore/unit-");
	AUTO_FREE char *parent = mem_printf("%s/spore", one.trees[0].mount);
	tcg_done(&one);
	CHECK_EQ(access(parent, F_OK), 0);
	tcg_done(&two);
	CHECK(access(parent, F_OK) < 0);
}

TEST(hostcg_create_that_fails_leaves_nothing)
{
	struct hostcg ok = tcg_make("/probe"), cg;
	AUTO_FREE char *name = tcg_name("/x/a\nb"), *top = tcg_name("/x");
	AUTO_FREE char *want = mem_printf("cgroup %s%s: Invalid argument", ok.trees[0].mount, name);
	struct err e = { 0 };

	for (size_t i = 0; i < ok.n; i++) /* the message is the first's whose failure counts */
		if (ok.trees[i].has) {
			free(want);
			want = mem_printf("cgroup %s%s: Invalid argument", ok.trees[i].mount, name);
			break;
		}
	CHECK_EQ(tcg_create(&cg, name, "id", &e), -EINVAL);
	CHECK_STR(e.msg, want);
	CHECK(cg.path == NULL && cg.n == 0);
	for (size_t i = 0; i < ok.n; i++) {
		AUTO_FREE char *dir = mem_printf("%s%s", ok.trees[i].mount, top);
		CHECK(access(dir, F_OK) < 0);
	}
	CHECK_EQ(tcg_create(&cg, "../x", "id", &e), -EINVAL);
	CHECK_STR(e.msg, "cgroup path \"../x\" is not allowed");
	tcg_done(&ok);
}

TEST(hostcg_a_child_enters_and_is_killed_there)
{
	struct hostcg cg = tcg_make("/enter");
	pid_t pids[3];
	struct err e = { 0 };

	for (int i = 0; i < 3; i++)
		pids[i] = tcg_child(&cg, tcg_sleep, NULL);
	for (int i = 0; i < 3; i++)
		tcg_wait_inside(&cg, pids[i]);
	CHECK_EQ(hostcg_kill(&cg, &e), 0);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(proc_exit_code(proc_wait(pids[i])), 128 + SIGKILL);
	CHECK_EQ(hostcg_kill(&cg, &e), 0); /* of nobody */
	tcg_done(&cg);
}

static void tcg_kill_from_inside(void *arg)
{
	struct hostcg *cg = arg;
	pid_t pid = fork();
	struct err e = { 0 };

	if (pid == 0)
		tcg_sleep(NULL);
	CHECK_EQ(hostcg_kill(cg, &e), 0);
	CHECK_EQ(proc_exit_code(proc_wait(pid)), 128 + SIGKILL);
	CHECK_EQ(hostcg_freeze(cg, true, &e), -EDEADLK);
	AUTO_FREE char *want = mem_printf("cgroup %s: this process is in it", cg->path);
	CHECK_STR(e.msg, want);
	_exit(7);
}

TEST(hostcg_kill_spares_who_calls_it_and_freeze_refuses_it)
{
	struct hostcg cg = tcg_make("/self");

	CHECK_EQ(proc_exit_code(proc_wait(tcg_child(&cg, tcg_kill_from_inside, &cg))), 7);
	tcg_done(&cg);
}

static void tcg_count_up(void *arg)
{
	for (volatile unsigned *n = arg;;) {
		++*n;
		usleep(1000);
	}
}

TEST(hostcg_freeze_stops_and_goes_on_and_kill_reaches_the_frozen)
{
	volatile unsigned *n =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct hostcg cg = tcg_make("/freeze");
	pid_t pid = tcg_child(&cg, tcg_count_up, (void *)n);
	struct err e = { 0 };
	unsigned then;

	tcg_wait_inside(&cg, pid);
	CHECK_EQ(hostcg_freeze(&cg, true, &e), 0);
	then = *n;
	usleep(50000);
	CHECK_EQ(*n, then);
	CHECK_EQ(hostcg_freeze(&cg, true, &e), 0); /* is already */
	CHECK_EQ(hostcg_freeze(&cg, false, &e), 0);
	for (int i = 0; i < 2000 && *n == then; i++)
		usleep(1000);
	CHECK(*n != then);
	CHECK_EQ(hostcg_freeze(&cg, true, &e), 0);
	CHECK_EQ(hostcg_kill(&cg, &e), 0);
	CHECK_EQ(proc_exit_code(proc_wait(pid)), 128 + SIGKILL);
	tcg_done(&cg);
}

TEST(hostcg_remove_gives_up_on_a_busy_group_and_can_be_called_again)
{
	struct hostcg cg = tcg_make("/busy");
	pid_t pid = tcg_child(&cg, tcg_sleep, NULL);
	AUTO_FREE char *want =
		mem_printf("remove cgroup %s: Device or resource busy", cg.trees[0].dir);
	struct err e = { 0 };

	tcg_wait_inside(&cg, pid);
	CHECK_EQ(hostcg_remove(&cg, &e), -EBUSY);
	CHECK_STR(e.msg, want);
	CHECK_EQ(hostcg_kill(&cg, &e), 0);
	tcg_done(&cg);
	CHECK(proc_wait(pid) >= 0);
}

/* ---- Limits and counters. */

static struct hostcg tcg_make_with(const char *below, unsigned bits)
{
	struct hostcg cg = tcg_make(below);
	const struct hostcg_tree *t;

	for (unsigned bit = 1; bit <= bits; bit <<= 1)
		if (bits & bit && (!(t = hostcg_with(&cg, bit)) || (t->v2 && !(t->has & bit)))) {
			tcg_done(&cg);
			test_skip("no such controller here: %#x", bit);
		}
	return cg;
}

TEST(hostcg_limit_sets_memory_with_overhead)
{
	struct hostcg cg = tcg_make_with("/memory", HOSTCG_MEMORY);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxMemory m = GRPC__LINUX_MEMORY__INIT;
	struct hostcg_stats s;
	struct err e = { 0 };

	r.memory = &m;
	CHECK_EQ(hostcg_limit(&cg, &r, MIB(32), &e), 0); /* none given: none set */
	CHECK_EQ(hostcg_stats(&cg, &s, &e), 0);
	CHECK_EQ(s.memory_limit, UINT64_MAX);
	m.limit = (int64_t)MIB(64);
	CHECK_EQ(hostcg_limit(&cg, &r, MIB(32), &e), 0);
	tcg_file(&cg, HOSTCG_MEMORY, "memory.limit_in_bytes", "memory.max", "100663296");
	CHECK_EQ(hostcg_stats(&cg, &s, &e), 0);
	CHECK_EQ(s.memory_limit, MIB(96));
	m.limit = -1;
	CHECK_EQ(hostcg_limit(&cg, &r, MIB(32), &e), 0);
	CHECK_EQ(hostcg_stats(&cg, &s, &e), 0);
	CHECK_EQ(s.memory_limit, UINT64_MAX);
	m.limit = INT64_MAX;
	CHECK_EQ(hostcg_limit(&cg, &r, MIB(32), &e), 0);
	tcg_done(&cg);
}

TEST(hostcg_limit_sets_cpu_shares_quota_and_period)
{
	struct hostcg cg = tcg_make_with("/cpu", HOSTCG_CPU);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxCPU c = GRPC__LINUX_CPU__INIT;
	bool v2 = hostcg_with(&cg, HOSTCG_CPU)->v2;
	struct err e = { 0 };

	r.cpu = &c;
	c.shares = 2048, c.quota = 150000, c.period = 50000;
	CHECK_EQ(hostcg_limit(&cg, &r, 0, &e), 0);
	tcg_file(&cg, HOSTCG_CPU, "cpu.shares", "cpu.weight", v2 ? "79" : "2048");
	tcg_file(&cg, HOSTCG_CPU, "cpu.cfs_quota_us", "cpu.max", v2 ? "150000 50000" : "150000");
	tcg_file(&cg, HOSTCG_CPU, "cpu.cfs_period_us", "cpu.max", v2 ? "150000 50000" : "50000");
	c.shares = 0, c.period = 0, c.quota = 70000; /* the rest stays */
	CHECK_EQ(hostcg_limit(&cg, &r, 0, &e), 0);
	tcg_file(&cg, HOSTCG_CPU, "cpu.shares", "cpu.weight", v2 ? "79" : "2048");
	tcg_file(&cg, HOSTCG_CPU, "cpu.cfs_quota_us", "cpu.max", v2 ? "70000 50000" : "70000");
	c.quota = -1;
	CHECK_EQ(hostcg_limit(&cg, &r, 0, &e), 0);
	tcg_file(&cg, HOSTCG_CPU, "cpu.cfs_quota_us", "cpu.max", v2 ? "max 50000" : "-1");
	c.quota = 0, c.period = 80000;
	CHECK_EQ(hostcg_limit(&cg, &r, 0, &e), 0);
	tcg_file(&cg, HOSTCG_CPU, "cpu.cfs_period_us", "cpu.max", v2 ? "max 80000" : "80000");
	tcg_done(&cg);
}

TEST(hostcg_limit_sets_the_cpuset_and_says_what_was_refused)
{
	struct hostcg cg = tcg_make_with("/cpuset", HOSTCG_CPUSET);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxCPU c = GRPC__LINUX_CPU__INIT;
	AUTO_FREE char *want =
		mem_printf("cgroup %s: set cpuset.cpus to junk: Invalid argument", cg.path);
	struct err e = { 0 };

	r.cpu = &c;
	c.cpus = "0", c.mems = "0";
	CHECK_EQ(hostcg_limit(&cg, &r, 0, &e), 0);
	tcg_file(&cg, HOSTCG_CPUSET, "cpuset.cpus", "cpuset.cpus", "0");
	tcg_file(&cg, HOSTCG_CPUSET, "cpuset.mems", "cpuset.mems", "0");
	c.cpus = "junk";
	CHECK_EQ(hostcg_limit(&cg, &r, 0, &e), -EINVAL);
	CHECK_STR(e.msg, want);
	tcg_done(&cg);
}

TEST(hostcg_limit_without_the_controller_says_so)
{
	struct hostcg cg = { .path = mem_strdup("/a") };
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxMemory m = GRPC__LINUX_MEMORY__INIT;
	struct err e = { 0 };

	r.memory = &m;
	m.limit = 1000;
	CHECK_EQ(hostcg_limit(&cg, &r, 24, &e), -EOPNOTSUPP);
	CHECK_STR(e.msg,
		  "cgroup /a: set memory.max to 1024: this host hands no such controller down "
		  "to it");
	hostcg_fini(&cg);
}

static void tcg_work(void *arg)
{
	uint64_t *go = arg;
	char *p = mmap(NULL, MIB(16), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(p, 1, MIB(16));
	for (volatile unsigned i = 0; i < 100000000; i++)
		;
	__atomic_store_n(go, 1, __ATOMIC_SEQ_CST);
	tcg_sleep(NULL);
}

TEST(hostcg_stats_count_what_is_used_in_it)
{
	uint64_t *done =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct hostcg cg = tcg_make_with("/stats", HOSTCG_MEMORY | HOSTCG_PIDS);
	struct hostcg_stats before, s;
	struct err e = { 0 };
	pid_t pid;

	CHECK_EQ(hostcg_stats(&cg, &before, &e), 0);
	CHECK_EQ(before.cpu_ns, 0);
	CHECK_EQ(before.pids, 0);
	pid = tcg_child(&cg, tcg_work, done);
	for (int i = 0; i < 5000 && !__atomic_load_n(done, __ATOMIC_SEQ_CST); i++)
		usleep(10000);
	CHECK_EQ(hostcg_stats(&cg, &s, &e), 0);
	CHECK(s.cpu_ns > 10000000 && s.cpu_user_ns > 0);
	CHECK(s.cpu_user_ns <= s.cpu_ns + 100000000);
	CHECK(s.memory >= MIB(15) && s.memory < GIB(1));
	CHECK_EQ(s.pids, 1);
	CHECK_EQ(s.oom_kills, 0);
	CHECK_EQ(hostcg_kill(&cg, &e), 0);
	CHECK(proc_wait(pid) >= 0);
	CHECK_EQ(hostcg_remove(&cg, &e), 0);
	AUTO_FREE char *want = mem_printf("cgroup %s is gone", cg.path);
	CHECK_EQ(hostcg_stats(&cg, &s, &e), -ENOENT);
	CHECK_STR(e.msg, want);
	hostcg_fini(&cg);
}

static void tcg_eat(void *arg)
{
	char *p = mmap(NULL, MIB(256), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)arg;
	memset(p, 1, MIB(256));
}

TEST(hostcg_stats_count_kills_for_want_of_memory)
{
	struct hostcg cg = tcg_make_with("/oom", HOSTCG_MEMORY);
	Grpc__LinuxResources r = GRPC__LINUX_RESOURCES__INIT;
	Grpc__LinuxMemory m = GRPC__LINUX_MEMORY__INIT;
	struct hostcg_stats s;
	struct err e = { 0 };

	r.memory = &m;
	m.limit = (int64_t)MIB(16);
	CHECK_EQ(hostcg_limit(&cg, &r, MIB(4), &e), 0);
	CHECK_EQ(proc_exit_code(proc_wait(tcg_child(&cg, tcg_eat, NULL))), 128 + SIGKILL);
	CHECK_EQ(hostcg_stats(&cg, &s, &e), 0);
	CHECK_EQ(s.oom_kills, 1);
	tcg_done(&cg);
}

/* ---- For who comes after us. */

static int tcg_load(struct hostcg *cg, const char *text, struct err *e)
{
	AUTO_JSON struct json_doc doc = { 0 };

	CHECK_EQ(json_parse(&doc, text, strlen(text), e), 0);
	return hostcg_load(cg, doc.root, e);
}

TEST(hostcg_load_goes_on_where_another_process_stopped)
{
	struct hostcg cg = tcg_make("/saved"), later;
	AUTO_BUF struct buf b = { 0 };
	pid_t pid = tcg_child(&cg, tcg_sleep, NULL);
	struct err e = { 0 };
	int fds[HOSTCG_MAX_TREES];

	tcg_wait_inside(&cg, pid);
	hostcg_save(&cg, &b);
	CHECK_EQ(tcg_load(&later, buf_cstr(&b), &e), 0);
	CHECK_STR(later.path, cg.path);
	CHECK_EQ(hostcg_procs(&later, fds), 0);
	for (size_t i = 0; i < cg.n; i++)
		for (size_t k = 0; k < later.n; k++)
			if (!strcmp(later.trees[k].dir, cg.trees[i].dir))
				CHECK_EQ(later.trees[k].made, cg.trees[i].made);
	hostcg_fini(&cg);
	CHECK_EQ(hostcg_kill(&later, &e), 0);
	CHECK_EQ(proc_exit_code(proc_wait(pid)), 128 + SIGKILL);
	tcg_done(&later);
}

TEST(hostcg_plan_is_enough_to_remove_what_was_made_before_its_maker_was_killed)
{
	struct hostcg cg = tcg_make("/probe"), plan, later; /* or skip */
	AUTO_FREE char *name = tcg_name("/planned/a/b"), *top = tcg_name("/planned");
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	CHECK_EQ(hostcg_plan(&plan, name, "id", &e), 0);
	hostcg_save(&plan, &b);
	for (size_t deep = 0; deep < 3; deep++) {
		for (size_t i = 0; i < plan.n; i++) {
			struct hostcg_tree *t = &plan.trees[i];
			AUTO_FREE char *dir = mem_printf("%s%s", t->mount, top);
			CHECK(access(dir, F_OK) < 0);
			CHECK_EQ(t->made, strlen(dir));
			if (t->has && deep > 0)
				CHECK_EQ(mkdir(dir, 0755), 0);
			if (t->has && deep > 1)
				CHECK(chdir(dir) == 0 && mkdir("a", 0755) == 0);
		}
		CHECK_EQ(chdir("/"), 0);
		CHECK_EQ(tcg_load(&later, buf_cstr(&b), &e), 0);
		tcg_done(&later);
		for (size_t i = 0; i < plan.n; i++) {
			AUTO_FREE char *dir = mem_printf("%s%s", plan.trees[i].mount, top);
			CHECK(access(dir, F_OK) < 0);
		}
	}
	hostcg_fini(&plan);
	tcg_done(&cg);
}

TEST(hostcg_load_refuses_to_remove_what_is_not_its_own)
{
	static const struct {
		const char *text, *msg;
	} rows[] = {
		{ "{\"path\":\"a\"}", "\"path\" must be an absolute path" },
		{ "{}", "\"path\" must be an absolute path" },
		{ "{\"path\":\"/a/../b\"}", "cgroup path \"/a/../b\" is not allowed" },
		{ "{\"path\":\"/a\",\"made\":[\"/sys/fs/cgroup\"]}",
		  "made[0]: is not on the way to the group" },
		{ "{\"path\":\"/a\",\"made\":[\"/tmp\"]}",
		  "made[0]: is not on the way to the group" },
		{ "{\"path\":\"/a\",\"made\":[7]}", "made[0]: must be a string" },
	};
	struct hostcg probe = tcg_make("/load"), cg;

	tcg_done(&probe);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = { 0 };
		test_note("%s", rows[i].text);
		CHECK_EQ(tcg_load(&cg, rows[i].text, &e), -EINVAL);
		CHECK_STR(e.msg, rows[i].msg);
		CHECK(!cg.path && !cg.n);
	}
}

static void tcg_join(void *arg)
{
	struct hostcg *cg = arg;
	struct err e = { 0 };

	CHECK_EQ(hostcg_join(cg->path, &e), 0);
	tcg_wait_inside(cg, getpid());
}

TEST(hostcg_join_enters_a_group_that_exists)
{
	struct hostcg cg = tcg_make("/join");
	AUTO_FREE char *none = tcg_name("/none"),
		       *want = mem_printf("cgroup %s does not exist", none);
	struct err e = { 0 };
	pid_t pid = fork();

	if (pid == 0) {
		tcg_join(&cg);
		_exit(0);
	}
	CHECK_EQ(proc_wait(pid), 0);
	CHECK_EQ(hostcg_join(none, &e), -ENOENT);
	CHECK_STR(e.msg, want);
	CHECK_EQ(hostcg_join("/../x", &e), -EINVAL);
	tcg_done(&cg);
}
