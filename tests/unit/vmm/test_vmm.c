#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "amalgam/base/fd.h"
#include "tests/unit/test.h"
#include "vmm/vmm.h"

static void tvmm_netns(char *out, size_t n)
{
	ssize_t r = readlink("/proc/self/ns/net", out, n - 1);

	CHECK(r > 0);
	out[r] = '\0';
}

static int tvmm_procs(const char *name)
{
	char path[256];

	snprintf(path, sizeof path, "%s/%s", test_dir(), name);
	return open(path, O_RDWR | O_CREAT, 0644);
}

/* Files stand in for cgroup.procs: what is written to them is what counts. */
TEST(vmm_joins_each_cgroup_it_is_told)
{
	int fds[3] = { tvmm_procs("a"), tvmm_procs("b"), tvmm_procs("c") };
	struct vmm_options opt = { .cgroup_procs = fds, .ncgroup_procs = 2 };
	struct err e = { 0 };
	char got[4];

	CHECK_EQ(vmm_join(&opt, &e), 0);
	for (unsigned i = 0; i < 3; i++) {
		test_note("file %u", i);
		CHECK_EQ(pread(fds[i], got, sizeof got, 0), i < 2);
		CHECK(i == 2 || got[0] == '0');
		close(fds[i]);
	}
	CHECK_EQ(vmm_join(&opt, &e), -EBADF);
	CHECK_HAS(e.msg, "join cgroup: ");
}

TEST(vmm_stays_in_its_network_namespace_unless_told_otherwise)
{
	struct vmm_options opt = { 0 };
	struct err e = { 0 };
	char before[64], now[64];

	if (getuid() != 0)
		test_skip("namespaces are made by root");
	tvmm_netns(before, sizeof before);
	CHECK_EQ(vmm_join(&opt, &e), 0);
	tvmm_netns(now, sizeof now);
	CHECK_STR(now, before);
	opt.netns_fd = open("/proc/self/ns/net", O_RDONLY);
	opt.new_netns = true;
	if (vmm_join(&opt, &e) == -EPERM)
		test_skip("%s", e.msg);
	tvmm_netns(now, sizeof now);
	CHECK(strcmp(now, before) != 0);
	opt.new_netns = false;
	CHECK_EQ(vmm_join(&opt, &e), 0);
	tvmm_netns(now, sizeof now);
	CHECK_STR(now, before);
	close(opt.netns_fd);
}
