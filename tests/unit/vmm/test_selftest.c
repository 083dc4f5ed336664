#include <sched.h>

#include "tests/unit/test.h"
#include "tests/unit/vmm/kvm_rig.h"
#include "vmm/ctl.h"

TEST(vmm_selftest_passes_or_says_that_this_kvm_is_emulated)
{
	struct err e = { 0 };
	int fd = kvmr_open(), r = vmm_selftest(fd, &e);

	if (r < 0) {
		CHECK_EQ(r, -ENODEV);
		CHECK(strstr(e.msg, "/dev/kvm: this host lacks ") ||
		      strcmp(e.msg, "/dev/kvm cannot run an operating system here: a guest's system call "
				    "does not reach its kernel (emulated KVM?)") == 0);
	}
	CHECK(fcntl(fd, F_GETFD) >= 0); /* the caller's */
	CHECK_EQ(vmm_selftest(fd, NULL), r); /* and what it says is no accident */
	close(fd);
}

TEST(vmm_selftest_leaves_nothing_open)
{
	int fd = kvmr_open(), before, after;

	before = dup(0);
	close(before);
	for (unsigned i = 0; i < 20; i++)
		(void)!vmm_selftest(fd, NULL);
	after = dup(0);
	CHECK_EQ(after, before);
	close(after);
	close(fd);
}

TEST(vmm_selftest_refuses_what_is_not_kvm)
{
	struct err e = { 0 };
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	CHECK_EQ(vmm_selftest(fd, &e), -ENODEV);
	CHECK_HAS(e.msg, "/dev/kvm: API version ");
	CHECK_EQ(vmm_selftest(-1, &e), -EBADF);
	CHECK_HAS(e.msg, "/dev/kvm: ");
	close(fd);
}

TEST(vmm_host_identity_is_the_same_each_time)
{
	AUTO_BUF struct buf a = { 0 };
	struct err e = { 0 };
	int fd = kvmr_open();

	if (vmm_host_identity(fd, &a, &e) < 0)
		test_skip("%s", e.msg);
	CHECK(a.len > 100);
	for (unsigned i = 0; i < 50; i++) { /* on whatever CPU we are */
		AUTO_BUF struct buf b = { 0 };
		CHECK_EQ(vmm_host_identity(fd, &b, &e), 0);
		CHECK_EQ(b.len, a.len);
		CHECK_MEM(b.data, a.data, a.len);
		sched_yield();
	}
	close(fd);
}
