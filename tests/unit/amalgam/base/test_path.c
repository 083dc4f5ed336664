#include "amalgam/base/path.h"

#include <fcntl.h>

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

/* A path below the test's directory; four may be alive at once. */
static const char *tpath(const char *name)
{
	static char paths[4][256];
	static unsigned next;

	next = (next + 1) % ARRAY_LEN(paths);
	snprintf(paths[next], sizeof paths[next], "%s/%s", test_dir(), name);
	return paths[next];
}

static void tpath_write(const char *name, const char *text)
{
	struct err e = { 0 };

	CHECK_EQ(path_replace(tpath(name), text, strlen(text), 0644, &e), 0);
}

static const char *tpath_read(const char *name)
{
	static char text[256];
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	CHECK_EQ(path_read(tpath(name), sizeof text - 1, &b, &e), 0);
	snprintf(text, sizeof text, "%s", buf_cstr(&b));
	return text;
}

TEST(path_read_appends_the_whole_file)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	tpath_write("f", "one");
	CHECK_EQ(path_read(tpath("f"), 3, &b, &e), 0);
	CHECK_EQ(path_read(tpath("f"), 3, &b, &e), 0);
	CHECK_STR(buf_cstr(&b), "oneone");
}

TEST(path_read_refuses_what_is_too_large_or_missing)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	tpath_write("f", "1234");
	CHECK_EQ(path_read(tpath("f"), 3, &b, &e), -EFBIG);
	CHECK_HAS(e.msg, "larger than 3 bytes");
	CHECK_EQ(path_read("/dev/zero", 100000, &b, &e), -EFBIG);
	CHECK_EQ(path_read(tpath("none"), 3, &b, &e), -ENOENT);
	CHECK_HAS(e.msg, "/none: No such file");
	CHECK_EQ(path_read(test_dir(), 3, &b, &e), -EISDIR);
}

TEST(path_replace_is_all_or_nothing)
{
	struct err e = { 0 };
	struct stat st;

	tpath_write("f", "old");
	tpath_write("f", "new and longer");
	CHECK_STR(tpath_read("f"), "new and longer");
	CHECK_EQ(path_replace(tpath("f"), "s", 1, 0600, &e), 0);
	CHECK_EQ(stat(tpath("f"), &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK_EQ(path_replace(tpath("no/f"), "x", 1, 0600, &e), -ENOENT);
	CHECK_EQ(mkdir(tpath("d"), 0755), 0);
	CHECK_EQ(mkdir(tpath("d/sub"), 0755), 0);
	CHECK_EQ(path_replace(tpath("d"), "x", 1, 0600, &e), -EISDIR);
	CHECK_EQ(rmdir(tpath("d/sub")), 0);
	CHECK_EQ(path_remove_tree(tpath("d")), 0);
	CHECK_EQ(path_remove_tree(tpath("f")), 0);
	CHECK_EQ(rmdir(test_dir()), 0); /* no temporary file is left */
	CHECK_EQ(mkdir(test_dir(), 0700), 0);
}

TEST(path_put_writes_into_a_file_that_is_there)
{
	CHECK_EQ(path_put(tpath("f"), "x"), -ENOENT);
	tpath_write("f", "abc");
	CHECK_EQ(path_put(tpath("f"), "X"), 0);
	CHECK_STR(tpath_read("f"), "Xbc"); /* not truncated: cgroup files are not either */
}

TEST(path_mkdirs_makes_what_is_missing)
{
	struct err e = { 0 };
	struct stat st;

	CHECK_EQ(path_mkdirs(tpath("a/b//c/"), 0711, &e), 0);
	CHECK_EQ(path_mkdirs(tpath("a/b/c"), 0700, &e), 0);
	CHECK_EQ(stat(tpath("a/b/c"), &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0711);
	CHECK_EQ(path_mkdirs("/", 0700, &e), 0);
}

TEST(path_mkdirs_says_when_a_file_is_in_the_way)
{
	struct err e = { 0 };

	tpath_write("f", "");
	CHECK_EQ(path_mkdirs(tpath("f/x"), 0700, &e), -ENOTDIR);
	CHECK_HAS(e.msg, "/f/x: Not a directory");
	CHECK_EQ(path_mkdirs(tpath("f"), 0700, &e), -ENOTDIR);
}

TEST(path_remove_tree_removes_everything_and_follows_nothing)
{
	struct err e = { 0 };

	CHECK_EQ(path_mkdirs(tpath("keep"), 0700, &e), 0);
	tpath_write("keep/f", "kept");
	CHECK_EQ(path_mkdirs(tpath("t/a/b"), 0700, &e), 0);
	tpath_write("t/f", "");
	tpath_write("t/a/b/f", "");
	CHECK_EQ(symlink(tpath("keep"), tpath("t/link")), 0);
	CHECK_EQ(symlink("nowhere", tpath("t/a/broken")), 0);
	CHECK_EQ(mkfifo(tpath("t/fifo"), 0600), 0);
	CHECK_EQ(path_remove_tree(tpath("t")), 0);
	CHECK_EQ(access(tpath("t"), F_OK), -1);
	CHECK_STR(tpath_read("keep/f"), "kept");
	CHECK_EQ(path_remove_tree(tpath("t")), 0);
}

TEST(path_remove_tree_of_a_link_removes_the_link)
{
	struct err e = { 0 };

	CHECK_EQ(path_mkdirs(tpath("keep"), 0700, &e), 0);
	CHECK_EQ(symlink("keep", tpath("link")), 0);
	CHECK_EQ(path_remove_tree(tpath("link")), 0);
	CHECK_EQ(access(tpath("keep"), F_OK), 0);
	CHECK_EQ(faccessat(AT_FDCWD, tpath("link"), F_OK, AT_SYMLINK_NOFOLLOW), -1);
}

TEST(path_open_in_root_does_not_leave_the_root)
{
	static const struct {
		const char *path, *content;
	} rows[] = {
		{ "f", "inside" },	  { "/f", "inside" },	   { "../f", "inside" },
		{ "d/../../../f", "inside" }, { "abs", "inside" }, { "up", "inside" },
		{ "d/up", "inside" },
	};
	struct err e = { 0 };
	AUTO_CLOSE int root = -1;

	CHECK_EQ(path_mkdirs(tpath("root/d"), 0700, &e), 0);
	tpath_write("f", "outside");
	tpath_write("root/f", "inside");
	CHECK_EQ(symlink("/f", tpath("root/abs")), 0);
	CHECK_EQ(symlink("../../f", tpath("root/up")), 0);
	CHECK_EQ(symlink("../../../f", tpath("root/d/up")), 0);
	CHECK_EQ(symlink("/proc/self/root", tpath("root/magic")), 0);
	root = open(tpath("root"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[16] = "";
		AUTO_CLOSE int fd = path_open_in_root(root, rows[i].path, O_RDONLY, 0);
		test_note("%s", rows[i].path);
		CHECK(fd >= 0);
		CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
		CHECK(read(fd, text, sizeof text - 1) > 0);
		CHECK_STR(text, rows[i].content);
	}
	CHECK_EQ(path_open_in_root(root, "none", O_RDONLY, 0), -ENOENT);
	CHECK_EQ(path_open_in_root(root, "magic/f", O_RDONLY, 0), -ENOENT);
}

TEST(path_open_in_root_makes_files_with_the_mode_asked_for)
{
	AUTO_CLOSE int root = open(test_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
	struct stat st;

	fd = path_open_in_root(root, "/new", O_WRONLY | O_CREAT | O_EXCL, 0640);
	CHECK(fd >= 0);
	CHECK_EQ(fstat(fd, &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0640);
}
