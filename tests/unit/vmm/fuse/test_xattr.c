#include "tests/unit/test.h"
#include "tests/unit/vmm/fuse/fuse_rig.h"

#include <sys/xattr.h>

static int tfx_set(struct frig *r, uint64_t node, const char *name, const void *value, uint32_t n,
		   uint32_t flags)
{
	struct {
		uint32_t size, flags;
	} in = { n, flags };
	return frig_call3(r, FUSE_SETXATTR, node, FRIG_IN(in), name, strlen(name) + 1, value, n);
}

static int tfx_get(struct frig *r, uint64_t node, const char *name, uint32_t size)
{
	struct fuse_getxattr_in in = { .size = size };
	return frig_call(r, FUSE_GETXATTR, node, FRIG_IN(in), name, NULL);
}

static int tfx_list(struct frig *r, uint64_t node, uint32_t size)
{
	struct fuse_getxattr_in in = { .size = size };
	return frig_call(r, FUSE_LISTXATTR, node, FRIG_IN(in), NULL, NULL);
}

static uint64_t tfx_start(struct frig *r, uint64_t *dir)
{
	uint64_t f;

	frig_init(r);
	frig_write_host(r, "f", "x");
	*dir = frig_share(r, 0);
	f = frig_node(r, *dir, "f");
	if (tfx_set(r, f, "user.a", "value", 5, 0) == -EOPNOTSUPP)
		test_skip("%s has no extended attributes", r->dir);
	return f;
}

TEST(fuse_xattr_is_set_read_listed_and_removed)
{
	uint64_t f, dir;
	struct frig r;

	f = tfx_start(&r, &dir);
	CHECK_EQ(tfx_get(&r, f, "user.a", 0), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_getxattr_out).size, 5);
	CHECK_EQ(tfx_get(&r, f, "user.a", 5), 0);
	CHECK_EQ(r.len, 5);
	CHECK_MEM(r.body, "value", 5);
	CHECK_EQ(tfx_get(&r, f, "user.a", 4), -ERANGE);
	CHECK_EQ(tfx_get(&r, f, "user.none", 4), -ENODATA);
	CHECK_EQ(tfx_set(&r, f, "user.a", "x", 1, XATTR_CREATE), -EEXIST);
	CHECK_EQ(tfx_set(&r, f, "user.b", "x", 1, XATTR_REPLACE), -ENODATA);
	CHECK_EQ(tfx_set(&r, f, "user.b", "", 0, 0), 0);
	CHECK_EQ(tfx_list(&r, f, 0), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_getxattr_out).size, 14);
	CHECK_EQ(tfx_list(&r, f, 13), -ERANGE);
	CHECK_EQ(tfx_list(&r, f, 100), 0);
	CHECK_EQ(r.len, 14);
	CHECK_EQ(frig_call(&r, FUSE_REMOVEXATTR, f, "", 0, "user.a", NULL), 0);
	CHECK_EQ(frig_call(&r, FUSE_REMOVEXATTR, f, "", 0, "user.a", NULL), -ENODATA);
	CHECK_EQ(tfx_set(&r, dir, "user.d", "dir", 3, 0), 0);
	CHECK_EQ(tfx_get(&r, dir, "user.d", 100), 0);
	frig_fini(&r);
}

TEST(fuse_xattr_of_the_host_is_neither_shown_nor_changed)
{
	static const char *const name[] = { "trusted.a", "trusted.overlay.opaque", "user.overlay.opaque",
					    "security.selinux", "security.ima", "security.capabilityx",
					    "system.posix_acl_access", "system.posix_acl_default",
					    "", "user", "x" };
	uint64_t f, dir;
	struct frig r;

	f = tfx_start(&r, &dir);
	CHECK_EQ(setxattr(frig_path(&r, "f"), "trusted.a", "t", 1, 0), 0);
	CHECK_EQ(setxattr(frig_path(&r, "f"), "user.overlay.opaque", "y", 1, 0), 0);
	for (unsigned i = 0; i < ARRAY_LEN(name); i++) {
		test_note("%s", name[i]);
		CHECK_EQ(tfx_get(&r, f, name[i], 100), -EOPNOTSUPP);
		CHECK_EQ(tfx_set(&r, f, name[i], "v", 1, 0), -EOPNOTSUPP);
		CHECK_EQ(frig_call(&r, FUSE_REMOVEXATTR, f, "", 0, name[i], NULL), -EOPNOTSUPP);
	}
	test_note("%s", "");
	CHECK_EQ(tfx_list(&r, f, 1000), 0);
	CHECK_EQ(r.len, 7);
	CHECK_MEM(r.body, "user.a", 7);
	frig_fini(&r);
}

TEST(fuse_xattr_of_a_link_or_a_device_is_asked_of_itself)
{
	static const char *const name[] = { "l", "fifo", "null" };
	uint64_t dir;
	struct frig r;

	tfx_start(&r, &dir);
	CHECK_EQ(symlink("f", frig_path(&r, "l")), 0);
	CHECK_EQ(mkfifo(frig_path(&r, "fifo"), 0644), 0);
	CHECK_EQ(mknod(frig_path(&r, "null"), S_IFCHR | 0666, makedev(1, 3)), 0);
	for (unsigned i = 0; i < ARRAY_LEN(name); i++) {
		uint64_t n = frig_node(&r, dir, name[i]);
		CHECK_EQ(lsetxattr(frig_path(&r, name[i]), "trusted.t", "1", 1, 0), 0);
		CHECK_EQ(tfx_list(&r, n, 100), 0);
		CHECK_EQ(r.len, 0); /* not the file's "user.a", and not its own "trusted.t" */
		CHECK_EQ(tfx_set(&r, n, "user.x", "1", 1, 0), -EPERM); /* the kernel's rule */
	}
	CHECK_EQ(lgetxattr(frig_path(&r, "f"), "user.x", NULL, 0), -1);
	frig_fini(&r);
}

TEST(fuse_xattr_of_file_capabilities_goes_with_a_write)
{
	/* linux/capability.h, VFS_CAP_REVISION_2: CAP_NET_RAW, effective */
	static const uint8_t cap[20] = { 1, 0, 0, 2, 0, 0x20 };
	uint64_t f, dir, fh;
	struct frig r;

	f = tfx_start(&r, &dir);
	CHECK_EQ(tfx_set(&r, f, "security.capability", cap, sizeof cap, 0), 0);
	CHECK_EQ(tfx_get(&r, f, "security.capability", 100), 0);
	CHECK_EQ(r.len, 20);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "x", 0, 0), 0);
	CHECK_EQ(tfx_get(&r, f, "security.capability", 100), -ENODATA);
	frig_fini(&r);
}

TEST(fuse_xattr_requests_that_lie_about_their_size_are_refused)
{
	struct {
		uint32_t size, flags;
	} in = { 6, 0 };
	static char big[70000];
	uint64_t f, dir;
	struct frig r;

	f = tfx_start(&r, &dir);
	CHECK_EQ(frig_call3(&r, FUSE_SETXATTR, f, FRIG_IN(in), "user.c", 7, "value", 5), -EINVAL);
	in.size = UINT32_MAX;
	CHECK_EQ(frig_call3(&r, FUSE_SETXATTR, f, FRIG_IN(in), "user.c", 7, "value", 5), -EINVAL);
	CHECK_EQ(frig_call3(&r, FUSE_SETXATTR, f, FRIG_IN(in), "user.c", 6, "", 0), -EINVAL); /* no NUL */
	CHECK_EQ(tfx_set(&r, f, "user.c", big, sizeof big, 0), -EINVAL);
	r.room = 3;
	CHECK_EQ(tfx_get(&r, f, "user.a", UINT32_MAX), -ERANGE);
	r.room = FRIG_BODY;
	CHECK_EQ(tfx_get(&r, FUSE_ROOT_ID, "user.a", 10), -ENODATA);
	CHECK_EQ(tfx_list(&r, FUSE_ROOT_ID, 10), 0);
	CHECK_EQ(r.len, 0);
	frig_fini(&r);
}
