#include "tests/unit/guest/agent/agent.h"
#include "tests/unit/test.h"

static struct ga_mount_opts mount_parsed(const char *words)
{
	struct ga_mount_opts o = { 0 };
	char *copy = mem_strdup(words), *list[16], *save = NULL;
	struct err e;
	size_t n = 0;

	for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save))
		list[n++] = w;
	CHECK_EQ(ga_mount_parse(list, n, &o, &e), 0);
	free(copy);
	return o;
}

TEST(ga_mount_table_has_each_name_once_and_in_order)
{
	for (size_t i = 1; i < ARRAY_LEN(ga_mount_options); i++) {
		test_note("%s", ga_mount_options[i].name);
		CHECK(strcmp(ga_mount_options[i - 1].name, ga_mount_options[i].name) < 0);
	}
}

TEST(ga_mount_later_option_wins_over_earlier)
{
	struct ga_mount_opts o = mount_parsed("ro,rw,nosuid,suid,nodev");

	CHECK_EQ(o.set, MOUNT_ATTR_NODEV);
	CHECK_EQ(o.clear, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
	CHECK_EQ(o.rec_set | o.rec_clear, 0);
}

TEST(ga_mount_attribute_with_r_in_front_is_recursive)
{
	struct ga_mount_opts o = mount_parsed("rro,rnosuid,rdev");

	CHECK_EQ(o.set | o.clear, 0);
	CHECK_EQ(o.rec_set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
	CHECK_EQ(o.rec_clear, MOUNT_ATTR_NODEV);
}

TEST(ga_mount_atime_is_a_field_not_a_bit)
{
	struct ga_mount_opts o = mount_parsed("noatime,strictatime");

	/* mount_setattr(2): values of the field exclude one another, and all of it must be cleared.
	 */
	CHECK_EQ(o.set, MOUNT_ATTR_STRICTATIME);
	CHECK_EQ(o.clear, MOUNT_ATTR__ATIME);
	o = mount_parsed("noatime,relatime");
	CHECK_EQ(o.set, 0);
	CHECK_EQ(o.clear, MOUNT_ATTR__ATIME);
}

TEST(ga_mount_propagation_keeps_its_order)
{
	struct ga_mount_opts o = mount_parsed("rslave,shared");

	CHECK_EQ(o.n_propagation, 2);
	CHECK_EQ(o.propagation[0], MS_SLAVE | MS_REC);
	CHECK_EQ(o.propagation[1], MS_SHARED);
}

TEST(ga_mount_words_it_does_not_know_are_the_filesystems)
{
	struct ga_mount_opts o = mount_parsed("size=64k,ro,mode=755,sync,defaults");

	CHECK_EQ(o.data.len, sizeof "size=64k" + sizeof "mode=755" + sizeof "sync");
	CHECK_MEM(o.data.data, "size=64k\0mode=755\0sync", o.data.len);
	ga_mount_opts_fini(&o);
}

TEST(ga_mount_bind_and_friends_are_flags)
{
	struct ga_mount_opts o = mount_parsed("rbind,tmpcopyup,remount,ridmap");

	CHECK(o.bind && o.bind_rec && o.copy_up && o.remount && o.idmap && o.idmap_rec);
	CHECK(!o.no_fail);
	o = mount_parsed("bind,idmap,nofail");
	CHECK(o.bind && !o.bind_rec && o.idmap && !o.idmap_rec && o.no_fail && !o.data.len);
}

TEST(ga_mount_bounds_the_number_of_propagation_options)
{
	char *five[] = { "slave", "slave", "slave", "slave", "slave" };
	struct ga_mount_opts o = { 0 };
	struct err e;

	CHECK_EQ(ga_mount_parse(five, 5, &o, &e), -EINVAL);
	CHECK_STR(e.msg, "too many propagation options");
}

/* ---- Targets below a root */

static int mount_root(void)
{
	return open(test_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC);
}

TEST(ga_mount_target_makes_directories_and_a_file)
{
	AUTO_CLOSE int root = mount_root(), fd = -1, fd2 = -1;
	struct stat st;
	struct err e;

	fd = ga_mount_target(root, "/a/b/c", true, &e);
	CHECK(fd >= 0);
	CHECK(fstat(fd, &st) == 0 && S_ISDIR(st.st_mode));
	fd2 = ga_mount_target(root, "/a/x/file", false, &e);
	CHECK(fd2 >= 0);
	CHECK(fstat(fd2, &st) == 0 && S_ISREG(st.st_mode));
}

TEST(ga_mount_target_follows_links_inside_the_root_only)
{
	AUTO_CLOSE int root = mount_root(), fd = -1;
	struct err e;

	CHECK_EQ(symlinkat("/../../../../../../etc", root, "out"), 0);
	fd = ga_mount_target(root, "/out/here", true, &e);
	CHECK(fd >= 0);
	CHECK_EQ(faccessat(root, "etc/here", F_OK, 0), 0);
	CHECK(access("/etc/here", F_OK) < 0);
}

TEST(ga_mount_target_makes_what_a_dangling_link_names)
{
	AUTO_CLOSE int root = mount_root(), fd = -1;
	struct err e;

	CHECK_EQ(mkdirat(root, "var", 0755), 0);
	CHECK_EQ(symlinkat("../run/deep", root, "var/run"), 0);
	fd = ga_mount_target(root, "/var/run/lock", true, &e);
	CHECK(fd >= 0);
	CHECK_EQ(faccessat(root, "run/deep/lock", F_OK, 0), 0);
}

TEST(ga_mount_target_gives_up_on_a_loop_of_links)
{
	AUTO_CLOSE int root = mount_root();
	struct err e;

	CHECK_EQ(symlinkat("b", root, "a"), 0);
	CHECK_EQ(symlinkat("a", root, "b"), 0);
	CHECK(ga_mount_target(root, "/a/x", true, &e) < 0);
	CHECK_EQ(e.code, -ELOOP);
}

TEST(ga_mount_target_does_not_go_through_a_file)
{
	AUTO_CLOSE int root = mount_root(), file = -1;
	struct err e;

	file = openat(root, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	CHECK(ga_mount_target(root, "/f/x", true, &e) < 0);
	CHECK_EQ(e.code, -ENOTDIR);
}
