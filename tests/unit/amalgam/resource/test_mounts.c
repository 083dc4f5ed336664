#include "amalgam/resource/mounts.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/job.h"
#include "tests/unit/test.h"

/* ---- The stage: directories below test_dir(), mounts that nobody else sees. */

/* A path below test_dir(); heap. */
static char *tm_path(const char *name)
{
	return mem_printf("%s/%s", test_dir(), name);
}

static char *tm_dir(const char *name)
{
	char *path = tm_path(name);

	CHECK_EQ(path_mkdirs(path, 0755, NULL), 0);
	return path;
}

static void tm_write(const char *dir, const char *name, const char *text)
{
	AUTO_FREE char *path = mem_printf("%s/%s", dir, name);

	CHECK_EQ(path_replace(path, text, strlen(text), 0644, NULL), 0);
}

static bool tm_has(const char *dir, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/%s", dir, name);

	return access(path, F_OK) == 0;
}

static void tm_begin(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		test_skip("no mount namespace: %s", strerror(errno));
	CHECK_EQ(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
}

/* How many mounts are at and below dir. */
static size_t tm_count(const char *dir)
{
	AUTO_RES_BELOW struct res_below b = { 0 };

	CHECK_EQ(res_below_read(dir, &b, NULL), 0);
	return b.n;
}

#define TM_MOUNT(type_, source_, ...)                                                       \
	(struct res_mount)                                                                  \
	{                                                                                   \
		.type = (type_), .source = (source_), .options = (char *[]){ __VA_ARGS__ }, \
		.noptions = sizeof((char *[]){ __VA_ARGS__ }) / sizeof(char *)              \
	}

static int tm_run(char *const *argv)
{
	AUTO_BUF struct buf words = { 0 };
	AUTO_FREE char *path = mem_printf("PATH=%s", getenv("PATH"));
	char *env[] = { path, NULL };
	const struct job_spec s = { .path = argv[0], .argv = argv, .env = env, .max_words = 256 };

	return job_run(&s, &words);
}

/* ---- Options. */

static struct res_opts tm_opts(const struct res_mount *m)
{
	struct res_opts o = { 0 };
	struct err e = { 0 };

	CHECK_EQ(res_opts_parse(m, &o, &e), 0);
	CHECK_STR(e.msg, "");
	return o;
}

TEST(res_opts_table_has_each_name_once)
{
	for (size_t i = 0; i < ARRAY_LEN(res_opts_table); i++) {
		test_note("%s", res_opts_table[i].name);
		CHECK(res_opts_find(res_opts_table[i].name) == &res_opts_table[i]);
	}
}

TEST(res_opts_the_later_flag_wins)
{
	struct res_mount m = TM_MOUNT("ext4", "/x", "ro", "nosuid", "noatime", "rw", "suid",
				      "defaults", "nodev", "atime", "async", "", "strictatime");
	AUTO_RES_OPTS struct res_opts o = tm_opts(&m);

	CHECK_EQ(o.flags, MS_NODEV | MS_STRICTATIME);
	CHECK_EQ(o.cleared, MS_RDONLY | MS_NOSUID | MS_NOATIME | MS_SYNCHRONOUS);
	CHECK(!o.loop);
	CHECK_EQ(o.ndata, 0);
}

TEST(res_opts_keep_loop_and_propagation_apart_and_the_rest_in_order)
{
	struct res_mount m = TM_MOUNT("ext4", "/x", "loop", "index=off", "rslave", "ro", "shared",
				      "workdir=/w", "LOOP");
	AUTO_RES_OPTS struct res_opts o = tm_opts(&m);
	AUTO_BUF struct buf b = { 0 };

	CHECK(o.loop);
	CHECK_EQ(o.flags, MS_RDONLY);
	CHECK_EQ(o.n_propagation, 2);
	CHECK_EQ(o.propagation[0], MS_SLAVE | MS_REC);
	CHECK_EQ(o.propagation[1], MS_SHARED);
	res_opts_join(&o, NULL, &b);
	CHECK_STR(buf_cstr(&b), "index=off,workdir=/w,LOOP");
}

TEST(res_opts_meant_for_others_are_refused)
{
	static const struct {
		char *option;
		const char *msg;
	} rows[] = {
		{ "X-containerd.mkfs.fs=ext4",
		  "option \"X-containerd.mkfs.fs=ext4\" is not supported" },
		{ "uidmap=0:100000:65536", "option \"uidmap=0:100000:65536\" is not supported" },
		{ "gidmap=0:100000:65536", "option \"gidmap=0:100000:65536\" is not supported" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct res_mount m = TM_MOUNT("ext4", "/x", "rw", rows[i].option);
		AUTO_RES_OPTS struct res_opts o = { 0 };
		struct err e = { 0 };
		CHECK_EQ(res_opts_parse(&m, &o, &e), -EINVAL);
		CHECK_STR(e.msg, rows[i].msg);
	}
	struct res_mount m =
		TM_MOUNT("bind", "/x", "private", "private", "private", "private", "private");
	AUTO_RES_OPTS struct res_opts o = { 0 };
	struct err e = { 0 };
	CHECK_EQ(res_opts_parse(&m, &o, &e), -EINVAL);
	CHECK_STR(e.msg, "too many propagation options");
}

TEST(res_layers_common_is_a_directory_above_all)
{
	static const struct {
		const char *lower, *common;
	} rows[] = {
		{ "/a/b/1:/a/b/2", "/a/b/" },
		{ "/a/b/1", "/a/b/" },
		{ "/a/b:/a/b/c", "/a/" },
		{ "/a/b/12/fs:/a/b/1/fs", "/a/b/" },
		{ "/a:/b", "/" },
		{ "/a/x\\:1:/a/x\\:2", "/a/" },
		{ "/a\\:b/1:/a\\:b/2", "" }, /* would have to be unescaped: left alone */
		{ "/a/b:c", "" },
		{ "a/b", "" },
		{ "", "" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		test_note("%s", rows[i].lower);
		size_t n = res_layers_common(rows[i].lower);
		CHECK_EQ(n, strlen(rows[i].common));
		CHECK_MEM(rows[i].lower, rows[i].common, n);
	}
}

TEST(res_unescape_reads_three_octal_digits)
{
	static const struct {
		const char *in, *out;
	} rows[] = { { "/a\\040b", "/a b" },
		     { "/a\\134040", "/a\\040" },
		     { "/a\\", "/a\\" },
		     { "/a\\04", "/a\\04" },
		     { "/\\012\\011", "/\n\t" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		AUTO_FREE char *s = mem_strdup(rows[i].in);
		res_unescape(s);
		CHECK_STR(s, rows[i].out);
	}
}

/* ---- Mounting. */

TEST(res_mount_all_binds_with_flags_of_its_own)
{
	AUTO_FREE char *src = tm_dir("src"), *at = tm_dir("at"), *below = tm_dir("src/below");
	struct statvfs st;
	struct err e = { 0 };

	tm_begin();
	CHECK_EQ(mount("t", below, "tmpfs", MS_NOEXEC, NULL), 0);
	tm_write(below, "deep", "");
	struct res_mount rw = TM_MOUNT("bind", src, "rw", "bind");
	CHECK_EQ(res_mount_all(&rw, 1, at, &e), 0);
	tm_write(at, "new", "");
	CHECK(tm_has(src, "new") && !tm_has(at, "below/deep"));
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK(!tm_has(at, "new"));

	struct res_mount ro = TM_MOUNT("bind", src, "ro", "nosuid", "rbind");
	CHECK_EQ(res_mount_all(&ro, 1, at, &e), 0);
	CHECK_EQ(statvfs(at, &st), 0);
	CHECK_EQ(st.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV), ST_RDONLY | ST_NOSUID);
	CHECK(tm_has(at, "below/deep"));
	CHECK_EQ(statvfs(src, &st), 0);
	CHECK_EQ(st.f_flag & ST_RDONLY, 0); /* only the mount, not the filesystem */
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK_EQ(tm_count(at), 0);

	/* A flag that the source has and nobody mentioned stays; one that was mentioned goes. */
	struct res_mount keep = TM_MOUNT("bind", below, "nodev"),
			 drop = TM_MOUNT("bind", below, "nodev", "exec");
	CHECK_EQ(res_mount_all(&keep, 1, at, &e), 0);
	CHECK(statvfs(at, &st) == 0 && (st.f_flag & ST_NOEXEC) && (st.f_flag & ST_NODEV));
	CHECK_EQ(res_mount_all(&drop, 1, at, &e), 0);
	CHECK(statvfs(at, &st) == 0 && !(st.f_flag & ST_NOEXEC) && (st.f_flag & ST_NODEV));
}

static char *tm_overlay(const char *key, const char *dir)
{
	return mem_printf("%s=%s", key, dir);
}

TEST(res_mount_all_makes_an_overlay_writable)
{
	AUTO_FREE char *l1 = tm_dir("l1"), *l2 = tm_dir("l2"), *up = tm_dir("up"),
		       *work = tm_dir("work");
	AUTO_FREE char *at = tm_dir("at"), *lower = mem_printf("lowerdir=%s:%s", l1, l2);
	AUTO_FREE char *upper = tm_overlay("upperdir", up), *workdir = tm_overlay("workdir", work);
	struct err e = { 0 };

	tm_begin();
	tm_write(l1, "one", "");
	tm_write(l2, "two", "");
	struct res_mount m = TM_MOUNT("overlay", "overlay", "index=off", workdir, upper, lower);
	if (res_mount_all(&m, 1, at, &e) < 0)
		test_skip("%s", e.msg);
	CHECK(tm_has(at, "one") && tm_has(at, "two"));
	tm_write(at, "three", "");
	CHECK(tm_has(up, "three"));
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK(!tm_has(at, "one"));
}

TEST(res_mount_all_takes_more_layers_than_fit_a_page_and_returns_to_where_it_was)
{
	AUTO_FREE char *at = tm_dir("at"), *cwd = NULL, *now = NULL;
	AUTO_BUF struct buf lower = { 0 };
	struct err e = { 0 };

	tm_begin();
	buf_add_str(&lower, "lowerdir=");
	for (int i = 0; i < 120; i++) {
		AUTO_FREE char *name = mem_printf("a-directory-with-a-rather-long-name/%d", i);
		AUTO_FREE char *layer = tm_dir(name), *file = mem_printf("f%d", i);
		tm_write(layer, file, "");
		buf_printf(&lower, "%s%s", i ? ":" : "", layer);
	}
	CHECK(lower.len > 4096);
	CHECK_EQ(chdir(at), 0);
	cwd = getcwd(NULL, 0);
	struct res_mount m = TM_MOUNT("overlay", "overlay", (char *)buf_cstr(&lower));
	if (res_mount_all(&m, 1, at, &e) < 0)
		test_skip("%s", e.msg);
	CHECK(tm_has(at, "f0") && tm_has(at, "f60") && tm_has(at, "f119"));
	now = getcwd(NULL, 0);
	CHECK_STR(now, cwd);
	CHECK_EQ(chdir("/"), 0);
	CHECK_EQ(res_unmount_all(at, &e), 0);
}

TEST(res_mount_all_refuses_more_data_than_a_page)
{
	AUTO_FREE char *at = tm_dir("at"), *long_word = mem_zalloc(5001);
	AUTO_FREE char *layers = mem_zalloc(5100);
	AUTO_FREE char *want =
		mem_printf("mount t (tmpfs) on %s: 5000 bytes of options, 4095 fit", at);
	AUTO_FREE char *want2 =
		mem_printf("mount overlay (overlay) on %s: 5009 bytes of options, 4095 fit", at);
	struct err e = { 0 };

	tm_begin();
	memset(long_word, 'x', 5000);
	struct res_mount m = TM_MOUNT("tmpfs", "t", long_word);
	CHECK_EQ(res_mount_all(&m, 1, at, &e), -E2BIG);
	CHECK_STR(e.msg, want);
	sprintf(layers, "lowerdir=/%s", long_word); /* in short it is a byte less */
	struct res_mount o = TM_MOUNT("overlay", "overlay", layers);
	CHECK_EQ(res_mount_all(&o, 1, at, &e), -E2BIG);
	CHECK_STR(e.msg, want2);
}

TEST(res_mount_all_undoes_what_it_did_and_only_that)
{
	AUTO_FREE char *at = tm_dir("at"), *src = tm_dir("src"), *below = tm_dir("src/below");
	AUTO_FREE char *want =
		mem_printf("mount /no/such (bind) on %s: No such file or directory", at);
	struct err e = { 0 };

	tm_begin();
	CHECK_EQ(mount("t", below, "tmpfs", 0, NULL), 0);
	CHECK_EQ(mount("t", at, "tmpfs", 0, NULL), 0);
	tm_write(at, "mine", "");
	struct res_mount list[] = { TM_MOUNT("tmpfs", "t", "size=64k", "mode=700"),
				    TM_MOUNT("bind", src, "rbind"),
				    TM_MOUNT("bind", "/no/such", "rbind") };
	CHECK_EQ(res_mount_all(list, 3, at, &e), -ENOENT);
	CHECK_STR(e.msg, want);
	CHECK_EQ(tm_count(at), 1);
	CHECK(tm_has(at, "mine"));
	CHECK_EQ(res_mount_all(list, 2, at, &e), 0);
	CHECK(!tm_has(at, "mine"));
	CHECK_EQ(tm_count(at), 4);
	CHECK_EQ(res_unmount_all(at, &e), 0); /* everything, also what had been there */
	CHECK_EQ(tm_count(at), 0);
	CHECK_EQ(tm_count(src), 1);
}

TEST(res_mount_all_says_what_was_wrong)
{
	AUTO_FREE char *at = tm_dir("at"), *link = tm_path("link"), *none = tm_path("none");
	struct {
		struct res_mount m;
		const char *target;
		int code;
		char *msg;
	} rows[] = {
		{ TM_MOUNT("nosuchfs", "x", "rw"), at, -ENODEV,
		  mem_printf("mount x (nosuchfs) on %s: this kernel has no such filesystem", at) },
		{ TM_MOUNT("tmpfs", "x", "nonsense=1"), at, -EINVAL,
		  mem_printf("mount x (tmpfs) on %s: Invalid argument", at) },
		{ TM_MOUNT("ext4", "/no/image", "loop", "rw"), at, -ENOENT,
		  mem_printf("mount /no/image (ext4) on %s: /no/image: No such file or directory",
			     at) },
		{ TM_MOUNT("tmpfs", "x", "rw"), link, -ENOTDIR,
		  mem_printf("mount x (tmpfs) on %s: %s: Not a directory", link, link) },
		{ TM_MOUNT("tmpfs", "x", "rw"), none, -ENOENT,
		  mem_printf("mount x (tmpfs) on %s: %s: No such file or directory", none, none) },
		{ TM_MOUNT("tmpfs", "x", "rw"), "relative", -EINVAL,
		  mem_strdup("mount point relative: Invalid argument") },
		{ TM_MOUNT("tmpfs", "x", "rw"), "/", -EINVAL,
		  mem_strdup("mount point /: Invalid argument") },
		{ TM_MOUNT("format/overlay", "x", "X-containerd.y"), at, -EINVAL,
		  mem_printf(
			  "mount x (format/overlay) on %s: option \"X-containerd.y\" is not supported",
			  at) },
	};

	tm_begin();
	CHECK_EQ(symlink(at, link), 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = { 0 };
		test_note("row %zu", i);
		CHECK_EQ(res_mount_all(&rows[i].m, 1, rows[i].target, &e) < 0, 1);
		CHECK_STR(e.msg, rows[i].msg);
		CHECK_EQ(e.code, rows[i].code);
		free(rows[i].msg);
	}
	CHECK_EQ(tm_count(at), 0);
}

TEST(res_mount_all_puts_a_sub_target_below_and_never_outside)
{
	AUTO_FREE char *at = tm_dir("at"), *src = tm_dir("src"), *run = tm_dir("src/run");
	AUTO_FREE char *outside = tm_dir("outside"), *link = tm_path("src/var"),
		       *up = tm_path("src/up");
	AUTO_FREE char *want = mem_printf("mount t (tmpfs) on %s: no/such below %s: "
					  "No such file or directory",
					  at, at);
	struct err e = { 0 };

	tm_begin();
	CHECK(run && symlink("/run", link) == 0 && symlink("../../outside", up) == 0);
	struct res_mount list[] = { TM_MOUNT("bind", src, "rbind"), TM_MOUNT("tmpfs", "t", "rw") };
	list[1].target = "var";
	CHECK_EQ(res_mount_all(list, 2, at, &e), 0);
	CHECK_EQ(tm_count(at), 2);
	AUTO_FREE char *there = mem_printf("%s/run", at);
	CHECK_EQ(tm_count(there), 1); /* not on the host's /run */
	CHECK_EQ(res_unmount_all(at, &e), 0);

	list[1].target = "../at/run"; /* ".." of the root is the root */
	CHECK(res_mount_all(list, 2, at, &e) < 0);
	CHECK_EQ(tm_count(at), 0);
	list[1].target = "up";
	CHECK(res_mount_all(list, 2, at, &e) < 0);
	CHECK_EQ(tm_count(outside), 0);
	list[1].target = "no/such";
	CHECK_EQ(res_mount_all(list, 2, at, &e), -ENOENT);
	CHECK_STR(e.msg, want);
	CHECK_EQ(tm_count(at), 0);
}

TEST(res_mount_all_sets_propagation)
{
	AUTO_FREE char *at = tm_dir("at"), *sub = tm_path("at/sub"), *peer = tm_dir("peer");
	struct err e = { 0 };

	tm_begin();
	struct res_mount m = TM_MOUNT("tmpfs", "t", "rw", "shared");
	CHECK_EQ(res_mount_all(&m, 1, at, &e), 0);
	CHECK_EQ(mount(at, peer, NULL, MS_BIND, NULL), 0);
	CHECK_EQ(mkdir(sub, 0755), 0);
	CHECK_EQ(mount("t", sub, "tmpfs", 0, NULL), 0);
	CHECK_EQ(tm_count(peer), 2); /* it has followed */
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK_EQ(tm_count(at), 0);
	CHECK_EQ(tm_count(peer), 1);
}

/* ---- Unmounting. */

TEST(res_unmount_all_takes_down_stacks_and_what_is_below)
{
	AUTO_FREE char *at = tm_dir("a b\tc"), *sub = tm_path("a b\tc/sub"),
		       *like = tm_dir("a b\tcd");
	struct err e = { 0 };

	tm_begin();
	for (int i = 0; i < 3; i++) { /* the second stack hides the first one's submount */
		CHECK_EQ(mount("t", at, "tmpfs", 0, NULL), 0);
		CHECK_EQ(mkdir(sub, 0755), 0);
		CHECK_EQ(mount("t", sub, "tmpfs", 0, NULL), 0);
	}
	CHECK_EQ(mount("t", like, "tmpfs", 0, NULL), 0);
	CHECK_EQ(tm_count(at), 6);
	AUTO_FREE char *slashes = mem_printf("%s//", at);
	CHECK_EQ(res_unmount_all(slashes, &e), 0);
	CHECK_EQ(tm_count(at), 0);
	CHECK_EQ(tm_count(like), 1);
}

TEST(res_unmount_all_of_nothing_is_success)
{
	AUTO_FREE char *at = tm_dir("at"), *none = tm_path("none"), *deep = tm_path("none/at");
	AUTO_FREE char *file = tm_path("file"), *below = tm_path("file/at");
	struct err e = { 0 };

	tm_write(test_dir(), "file", "");
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK_EQ(res_unmount_all(none, &e), 0);
	CHECK_EQ(res_unmount_all(deep, &e), 0);
	CHECK_EQ(res_unmount_all(file, &e), 0);
	CHECK_EQ(res_unmount_all(below, &e), 0);
	CHECK_EQ(res_unmount_all("at", &e), -EINVAL);
	CHECK_STR(e.msg, "unmount at: Invalid argument");
	CHECK_EQ(res_unmount_all("/tmp/..", &e), -EINVAL);
}

TEST(res_unmount_all_does_not_follow_a_link_but_follows_those_above)
{
	AUTO_FREE char *at = tm_dir("dir/at"), *link = tm_path("link"),
		       *above = tm_path("above/at");
	AUTO_FREE char *dir = tm_path("dir"), *up = tm_path("above");
	struct err e = { 0 };

	tm_begin();
	CHECK(symlink(at, link) == 0 && symlink(dir, up) == 0);
	CHECK_EQ(mount("t", at, "tmpfs", 0, NULL), 0);
	CHECK_EQ(res_unmount_all(link, &e), 0);
	CHECK_EQ(tm_count(at), 1);
	CHECK_EQ(res_unmount_all(above, &e), 0);
	CHECK_EQ(tm_count(at), 0);
}

TEST(res_unmount_all_detaches_what_stays_busy_and_logs_it)
{
	AUTO_FREE char *at = tm_dir("at"), *log = tm_path("log"), *want = NULL;
	AUTO_CLOSE int fd = open(log, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	tm_begin();
	CHECK_EQ(mount("t", at, "tmpfs", 0, NULL), 0);
	tm_write(at, "f", "");
	AUTO_FREE char *file = mem_printf("%s/f", at);
	AUTO_CLOSE int busy = open(file, O_RDONLY | O_CLOEXEC);
	CHECK(busy >= 0);
	log_setup(fd, LOG_WARN);
	CHECK_EQ(res_unmount_all(at, &e), 0);
	log_setup(-1, LOG_ERROR);
	CHECK_EQ(tm_count(at), 0);
	CHECK_EQ(path_read(log, 4096, &b, NULL), 0);
	want = mem_printf("msg=\"busy mount detached\" path=\"%s\"", at);
	CHECK_HAS(buf_cstr(&b), want);
}

TEST(res_unmount_all_waits_for_who_is_about_to_leave)
{
	AUTO_FREE char *at = tm_dir("at"), *log = tm_path("log");
	AUTO_CLOSE int fd = open(log, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct err e = { 0 };
	struct stat st;
	pid_t pid;

	tm_begin();
	CHECK_EQ(mount("t", at, "tmpfs", 0, NULL), 0);
	log_setup(fd, LOG_WARN);
	pid = fork();
	if (pid == 0) {
		CHECK_EQ(chdir(at), 0);
		usleep(200000);
		_exit(0);
	}
	usleep(20000);
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK_EQ(tm_count(at), 0);
	CHECK(fstat(fd, &st) == 0 && st.st_size == 0); /* not detached */
	CHECK_EQ(proc_wait(pid), 0);
}

/* ---- Loop devices. */

static char *tm_image(void)
{
	AUTO_FREE char *tree = tm_dir("tree");
	char *file = tm_path("image");
	char *modprobe[] = { "modprobe", "loop", NULL };
	char *mke2fs[] = { "mke2fs", "-q", "-t", "ext4", "-d", tree, file, "4M", NULL };

	tm_begin();
	if (access("/dev/loop-control", F_OK) < 0 && tm_run(modprobe) != 0)
		test_skip("no loop devices");
	tm_write(tree, "hello", "");
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (tm_run(mke2fs) != 0)
		test_skip("no mke2fs");
	return file;
}

/* Is the file behind any loop device? */
static bool tm_is_looped(const char *file)
{
	for (int i = 0; i < 256; i++) {
		AUTO_FREE char *path = mem_printf("/sys/block/loop%d/loop/backing_file", i);
		AUTO_BUF struct buf b = { 0 };
		if (path_read(path, 4096, &b, NULL) == 0 &&
		    !strncmp(buf_cstr(&b), file, strlen(file)))
			return true;
	}
	return false;
}

TEST(res_mount_all_mounts_a_file_through_a_loop_device_that_ends_with_it)
{
	AUTO_FREE char *at = tm_dir("at"), *file = tm_image();
	struct res_mount rw = TM_MOUNT("ext4", file, "loop", "rw"),
			 ro = TM_MOUNT("ext4", file, "ro", "loop");
	struct statvfs st;
	struct err e = { 0 };

	if (res_mount_all(&rw, 1, at, &e) < 0)
		test_skip("%s", e.msg);
	CHECK(tm_has(at, "hello"));
	tm_write(at, "new", "");
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK(!tm_is_looped(file));
	CHECK_EQ(chmod(file, 0444), 0);
	CHECK_EQ(res_mount_all(&ro, 1, at, &e), 0);
	CHECK(tm_has(at, "new") && tm_is_looped(file));
	CHECK(statvfs(at, &st) == 0 && (st.f_flag & ST_RDONLY));
	CHECK_EQ(res_unmount_all(at, &e), 0);
	CHECK(!tm_is_looped(file));
}

TEST(res_mount_all_that_fails_leaves_no_loop_device)
{
	AUTO_FREE char *at = tm_dir("at"), *file = tm_image();
	struct res_mount m = TM_MOUNT("erofs", file, "loop", "ro", "nonsense");
	struct err e = { 0 };

	CHECK(res_mount_all(&m, 1, at, &e) < 0);
	CHECK(!tm_is_looped(file));
	CHECK_EQ(tm_count(at), 0);
}

TEST(res_loop_attach_many_at_once_get_one_each)
{
	AUTO_FREE char *file = tm_image();
	pid_t pids[4];
	struct err e = { 0 };
	char dev[32];

	for (size_t i = 0; i < ARRAY_LEN(pids); i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			for (int k = 0; k < 20; k++) {
				int fd = res_loop_attach(file, true, dev, &e);
				if (fd < 0)
					test_fail(__FILE__, __LINE__, "%s", e.msg);
				close(fd);
			}
			_exit(0);
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(pids); i++)
		CHECK_EQ(proc_wait(pids[i]), 0);
	CHECK(!tm_is_looped(file));
}

/* ---- Helpers. */

static void tm_helper(const char *name, const char *body)
{
	AUTO_FREE char *path = tm_path(name), *text = mem_printf("#!/bin/sh\n%s\n", body);

	tm_write(test_dir(), name, text);
	CHECK_EQ(chmod(path, 0755), 0);
	AUTO_FREE char *env = mem_printf("%s:/usr/sbin:/usr/bin:/sbin:/bin", test_dir());
	setenv("PATH", env, 1);
}

TEST(res_mount_all_calls_the_helper_of_fuse_types)
{
	AUTO_FREE char *at = tm_dir("at"), *args = tm_path("args"), *want = NULL;
	AUTO_FREE char *body =
		mem_printf("echo \"$@\" $OURS >%s; exec mount -t tmpfs t \"$2\"", args);
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	tm_begin();
	setenv("OURS", "leaked", 1);
	tm_helper("mount.fuse3", body);
	struct res_mount m = TM_MOUNT("fuse3.fuse-overlayfs", "overlay", "lowerdir=/a", "rw");
	CHECK_EQ(res_mount_all(&m, 1, at, &e), 0);
	CHECK_EQ(tm_count(at), 1);
	CHECK_EQ(path_read(args, 4096, &b, NULL), 0);
	want = mem_printf("overlay %s -o lowerdir=/a -o rw -t fuse-overlayfs\n", at);
	CHECK_STR(buf_cstr(&b), want);
	CHECK_EQ(res_unmount_all(at, &e), 0);
}

TEST(res_mount_all_says_what_the_helper_complained)
{
	AUTO_FREE char *at = tm_dir("at");
	AUTO_FREE char *want =
		mem_printf("mount s (fuse.x) on %s: mount.fuse: exit status 9: bad layer", at);
	AUTO_FREE char *gone = mem_printf("mount s (fuse3.x) on %s: mount.fuse3: "
					  "No such file or directory",
					  at);
	struct err e = { 0 };

	tm_begin();
	tm_helper("mount.fuse", "echo bad layer >&2; exit 9");
	struct res_mount m = TM_MOUNT("fuse.x", "s", "rw"), m3 = TM_MOUNT("fuse3.x", "s", "rw");
	CHECK_EQ(res_mount_all(&m, 1, at, &e), -EIO);
	CHECK_STR(e.msg, want);
	setenv("PATH", test_dir(), 1);
	CHECK_EQ(res_mount_all(&m3, 1, at, &e), -ENOENT);
	CHECK_STR(e.msg, gone);
}

/* ---- Disks. */

TEST(res_mounts_disk_is_one_disk_the_guest_can_mount)
{
	AUTO_FREE char *file = tm_path("image"), *dir = tm_dir("dir");
	struct {
		struct res_mount m;
		const char *fstype; /* NULL = no */
		bool read_only;
		const char *options;
	} rows[] = {
		{ TM_MOUNT("ext4", file, "loop", "rw"), "ext4", false, "" },
		{ TM_MOUNT("ext4", file, "loop", "ro", "noload", "x=1"), "ext4", true,
		  "noload,x=1" },
		{ TM_MOUNT("ext2", file, "loop"), "ext4", false, "" },
		{ TM_MOUNT("erofs", file, "loop", "rw"), "erofs", true, "" },
		{ TM_MOUNT("erofs", file, "loop", "device=/x"), NULL, false, NULL },
		{ TM_MOUNT("xfs", file, "loop"), NULL, false, NULL },
		{ TM_MOUNT("ext4", file, "rw"), NULL, false, NULL },
		{ TM_MOUNT("ext4", dir, "loop"), NULL, false, NULL },
		{ TM_MOUNT("ext4", "/no/such", "loop"), NULL, false, NULL },
		{ TM_MOUNT("ext4", file, "loop", "X-containerd.x"), NULL, false, NULL },
		{ TM_MOUNT("ext4", file, "loop", "bind"), NULL, false, NULL },
		{ TM_MOUNT("bind", dir, "rbind"), NULL, false, NULL },
		{ TM_MOUNT("overlay", "overlay", "lowerdir=/x"), NULL, false, NULL },
	};

	tm_write(test_dir(), "image", "");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct res_disk d = { 0 };
		test_note("row %zu", i);
		CHECK_EQ(res_mounts_disk(&rows[i].m, 1, &d), rows[i].fstype != NULL);
		CHECK_STR(d.fstype, rows[i].fstype);
		CHECK_STR(d.options, rows[i].options);
		CHECK_STR(d.path, rows[i].fstype ? file : NULL);
		CHECK_EQ(d.read_only, rows[i].read_only);
		res_disk_fini(&d);
	}
}

TEST(res_mounts_disk_is_one_entry_of_its_own)
{
	AUTO_FREE char *file = tm_path("image");
	struct res_mount two[] = { TM_MOUNT("ext4", file, "loop"), TM_MOUNT("ext4", file, "loop") };
	struct res_disk d;

	tm_write(test_dir(), "image", "");
	CHECK(!res_mounts_disk(two, 2, &d));
	CHECK(!res_mounts_disk(two, 0, &d));
	two[0].target = "sub";
	CHECK(!res_mounts_disk(two, 1, &d));
	two[0].target = "";
	CHECK(res_mounts_disk(two, 1, &d));
	res_disk_fini(&d);
}

TEST(res_mounts_disk_takes_a_block_device_as_it_is)
{
	AUTO_FREE char *node = tm_path("node"), *link = tm_path("link");
	struct res_mount m = TM_MOUNT("ext4", link, "ro"); /* /dev/mapper holds links */
	struct res_disk d;

	if (mknod(node, S_IFBLK | 0600, 7 << 8) < 0)
		test_skip("no mknod: %s", strerror(errno));
	CHECK_EQ(symlink(node, link), 0);
	CHECK(res_mounts_disk(&m, 1, &d));
	CHECK_STR(d.path, link);
	CHECK(d.read_only);
	res_disk_fini(&d);
}
