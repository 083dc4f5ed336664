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

/* What a file thread that was taken over would do (vmm/fuse/pool.h). */
static int tshare_reopen(int fd, int flags)
{
	char name[32];
	int dir = open("/proc/self/fd", O_PATH | O_DIRECTORY), r;

	snprintf(name, sizeof name, "%d", fd);
	r = tshare_try(dir, name, flags);
	close(dir);
	return r;
}

static int tshare_open_image(const char *path)
{
	int tree = tshare_open("in", 0), fd; /* skips where there are no detached mounts */

	close(tree);
	fd = share_open_image(path);
	CHECK(fd >= 0);
	return fd;
}

TEST(share_image_cannot_be_opened_again_for_writing)
{
	static const int ways[] = { O_RDWR, O_WRONLY, O_WRONLY | O_APPEND, O_RDONLY | O_TRUNC };
	int fd, plain;
	char byte;

	tshare_tree();
	CHECK_EQ(truncate("in/file", 10), 0);
	fd = tshare_open_image("in/near"); /* a link to the file */
	CHECK_EQ(read(fd, &byte, 1), 1);
	for (unsigned i = 0; i < ARRAY_LEN(ways); i++)
		CHECK_EQ(tshare_reopen(fd, ways[i]), EROFS);
	CHECK_EQ(tshare_reopen(fd, O_RDONLY), 0);
	CHECK_EQ(fchmod(fd, 0777), -1);
	CHECK_EQ(errno, EROFS);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	plain = open("in/file", O_RDONLY); /* and that it is the mount that refuses */
	CHECK_EQ(tshare_reopen(plain, O_RDWR), 0);
	close(plain);
	CHECK_EQ(share_open_image("in/missing"), -ENOENT);
}

TEST(share_image_that_is_a_device_cannot_be_opened_again_at_all)
{
	char byte = 1;
	int fd;

	tshare_tree();
	if (tshare_try(AT_FDCWD, "in/zero", O_RDONLY) != 0)
		test_skip("devices cannot be opened here");
	fd = tshare_open_image("in/zero");
	CHECK_EQ(read(fd, &byte, 1), 1);
	CHECK_EQ(byte, 0);
	CHECK_EQ(tshare_reopen(fd, O_RDWR), EACCES);
	CHECK_EQ(tshare_reopen(fd, O_RDONLY), EACCES);
	close(fd);
}
