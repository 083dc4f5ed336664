#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "amalgam/base/mem.h"
#include "amalgam/resource/share.h"
#include "tests/unit/test.h"

/* A directory "in" with a file, a device node and a symlink to the file "out" beside it. */
static void tshare_tree(void)
{
	if (getuid() != 0)
		test_skip("mounts are made by root");
	CHECK_EQ(chdir(test_dir()), 0);
	CHECK_EQ(mkdir("in", 0755), 0);
	close(open("in/file", O_CREAT | O_WRONLY, 0644));
	close(open("out", O_CREAT | O_WRONLY, 0644));
	CHECK_EQ(symlink("../out", "in/link"), 0);
	CHECK_EQ(symlink("file", "in/near"), 0);
	CHECK_EQ(symlink("in", "way"), 0);
	CHECK_EQ(mknod("in/zero", S_IFCHR | 0666, makedev(1, 5)), 0);
}

static int tshare_open(const char *path, unsigned flags)
{
	struct err e = { 0 };
	int fd = share_open(AT_FDCWD, path, flags, &e);

	if (fd == -EPERM || fd == -ENOSYS)
		test_skip("no detached mounts here: %s", e.msg);
	if (fd < 0)
		test_fail(__FILE__, __LINE__, "%s", e.msg);
	return fd;
}

static int tshare_try(int at, const char *path, int flags)
{
	int fd = openat(at, path, flags, 0644);

	return fd < 0 ? errno : (close(fd), 0);
}

TEST(share_ends_at_its_root_and_follows_no_link_and_opens_no_device)
{
	int fd;

	tshare_tree();
	fd = tshare_open("way", 0);
	CHECK_EQ(tshare_try(fd, "file", O_RDWR), 0);
	CHECK_EQ(tshare_try(fd, "new", O_RDWR | O_CREAT), 0);
	CHECK_EQ(tshare_try(fd, "../out", O_RDONLY), ENOENT);
	CHECK_EQ(tshare_try(fd, "../../../../../../etc/passwd", O_RDONLY), ENOENT);
	CHECK_EQ(tshare_try(fd, "link", O_RDONLY), ELOOP);
	CHECK_EQ(tshare_try(fd, "near", O_RDONLY), ELOOP);
	CHECK_EQ(tshare_try(fd, "zero", O_RDONLY), EACCES);
	CHECK_EQ(tshare_try(fd, "zero", O_PATH), 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

TEST(share_that_is_read_only_refuses_every_change)
{
	int fd;

	tshare_tree();
	fd = tshare_open("in", SHARE_READONLY);
	CHECK_EQ(tshare_try(fd, "file", O_RDONLY), 0);
	CHECK_EQ(tshare_try(fd, "file", O_RDWR), EROFS);
	CHECK_EQ(tshare_try(fd, "new", O_RDWR | O_CREAT), EROFS);
	CHECK_EQ(unlinkat(fd, "file", 0), -1);
	CHECK_EQ(errno, EROFS);
	close(fd);
	CHECK_EQ(tshare_try(AT_FDCWD, "in/file", O_RDWR), 0);
}

TEST(share_may_be_a_file_and_nothing_but_files_and_directories)
{
	struct err e = { 0 };
	struct stat st;
	int fd, dir;

	tshare_tree();
	dir = open("in", O_RDONLY | O_DIRECTORY);
	fd = share_open(dir, "file", 0, &e);
	if (fd == -EPERM || fd == -ENOSYS)
		test_skip("no detached mounts here: %s", e.msg);
	CHECK(fd >= 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK(S_ISREG(st.st_mode));
	CHECK_EQ(share_open(dir, "zero", 0, &e), -EINVAL);
	CHECK_STR(e.msg, "neither a directory nor a file");
	CHECK_EQ(share_open(dir, "missing", 0, &e), -ENOENT);
	CHECK_STR(e.msg, "No such file or directory");
	close(fd);
	close(dir);
}

TEST(share_has_what_is_mounted_below_it_when_asked)
{
	int fd;

	tshare_tree();
	CHECK_EQ(mkdir("in/sub", 0755), 0);
	if (mount("tmpfs", "in/sub", "tmpfs", 0, NULL) < 0)
		test_skip("mount: %s", strerror(errno));
	close(open("in/sub/deep", O_CREAT | O_WRONLY, 0644));
	fd = tshare_open("in", 0);
	CHECK_EQ(tshare_try(fd, "sub/deep", O_RDONLY), ENOENT);
	close(fd);
	fd = tshare_open("in", SHARE_RECURSIVE | SHARE_READONLY);
	CHECK_EQ(tshare_try(fd, "sub/deep", O_RDONLY), 0);
	CHECK_EQ(tshare_try(fd, "sub/deep", O_RDWR), EROFS);
	CHECK_EQ(umount2("in/sub", MNT_DETACH), 0);
	CHECK_EQ(tshare_try(fd, "sub/deep", O_RDONLY), 0);
	close(fd);
}
