#include "tests/unit/guest/agent/agent.h"
#include "tests/unit/test.h"

static const char user_passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
				  "\n"
				  "broken\n"
				  "daemon:x:one:1::/:/bin/false\n"
				  "user:x:1000:1001:A User,,,:/home/user:/bin/sh\n"
				  "minus:x:-5:1::/:\n"
				  "max:x:4294967295:1::/:\n"
				  "last:x:7:8:::";
static const char user_group[] = "root:x:0:\n"
				 "wheel:x:10:root,user\n"
				 "users:x:100:userx,xuser\n"
				 "extra:x:2000:a,user\n"
				 "bad:x:nan:user\n"
				 "tail:x:3000:user";

TEST(ga_user_find_takes_names_and_numbers)
{
	static const struct {
		const char *name;
		int r;
		uid_t uid;
		gid_t gid;
	} rows[] = {
		{ "root", 0, 0, 0 },         { "user", 0, 1000, 1001 },
		{ "1000", 0, 1000, 1001 },   { "last", 0, 7, 8 },
		{ "5555", 0, 5555, 0 },      { "nobody", -EINVAL, 9, 9 },
		{ "daemon", -EINVAL, 9, 9 }, { "broken", -EINVAL, 9, 9 },
		{ "max", -EINVAL, 9, 9 },    { "4294967295", -EINVAL, 9, 9 },
		{ "us", -EINVAL, 9, 9 },     { "", -EINVAL, 9, 9 },
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uid_t uid = 9;
		gid_t gid = 9;
		struct err e;
		test_note("\"%s\"", rows[i].name);
		CHECK_EQ(ga_user_find(user_passwd, rows[i].name, &uid, &gid, &e), rows[i].r);
		CHECK_EQ(uid, rows[i].uid);
		CHECK_EQ(gid, rows[i].gid);
	}
}

TEST(ga_user_find_says_it_in_the_known_words)
{
	struct err e;
	uid_t uid;
	gid_t gid;

	CHECK(ga_user_find(user_passwd, "nobody", &uid, &gid, &e) < 0);
	CHECK_STR(e.msg, "unable to find user nobody: no matching entries in passwd file");
	CHECK(ga_user_find_group(user_group, "none", &gid, &e) < 0);
	CHECK_STR(e.msg, "unable to find group none: no matching entries in group file");
}

TEST(ga_user_home_is_the_sixth_field)
{
	char home[16];

	ga_user_home(user_passwd, 1000, home, sizeof home);
	CHECK_STR(home, "/home/user");
	ga_user_home(user_passwd, 7, home, sizeof home);
	CHECK_STR(home, "");
	ga_user_home(user_passwd, 12345, home, sizeof home);
	CHECK_STR(home, "");
}

TEST(ga_user_memberships_are_whole_words)
{
	static struct ga_user u;

	ga_user_memberships(user_passwd, user_group, 1000, &u);
	CHECK_EQ(u.n_groups, 3);
	CHECK_EQ(u.groups[0], 10);
	CHECK_EQ(u.groups[1], 2000);
	CHECK_EQ(u.groups[2], 3000);
	u.n_groups = 0;
	ga_user_memberships(user_passwd, user_group, 4242, &u);
	CHECK_EQ(u.n_groups, 0);
}

TEST(ga_user_memberships_are_bounded)
{
	static struct ga_user u;
	AUTO_BUF struct buf b = { 0 };

	for (unsigned i = 0; i < GA_USER_MAX_GROUPS + 100; i++)
		buf_printf(&b, "g%u:x:%u:user\n", i, 5000 + i);
	ga_user_memberships(user_passwd, buf_cstr(&b), 1000, &u);
	CHECK_EQ(u.n_groups, GA_USER_MAX_GROUPS);
}

TEST(ga_user_a_field_that_is_too_long_makes_the_line_useless)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e;
	uid_t uid;
	gid_t gid;

	buf_add_str(&b, "user:");
	for (unsigned i = 0; i < 300; i++)
		buf_add_str(&b, "x");
	buf_add_str(&b, ":5:5:::\nuser:x:6:6:::\n");
	CHECK_EQ(ga_user_find(buf_cstr(&b), "user", &uid, &gid, &e), 0);
	CHECK_EQ(uid, 6);
}

TEST(ga_user_files_cut_at_any_byte_are_read_within_bounds)
{
	static struct ga_user u;

	for (size_t n = 0; n < sizeof user_passwd; n++) {
		char *p = mem_strndup(user_passwd, n),
		     *g = mem_strndup(user_group, MIN(n, sizeof user_group - 1));
		char *pp = test_guard(p, n + 1), *gg = test_guard(g, strlen(g) + 1), home[8];
		struct err e;
		uid_t uid;
		gid_t gid;
		(void)!ga_user_find(pp, "last", &uid, &gid, &e);
		(void)!ga_user_find_group(gg, "tail", &gid, &e);
		ga_user_home(pp, 7, home, sizeof home);
		ga_user_memberships(pp, gg, 1000, &u);
		free(p);
		free(g);
	}
}
