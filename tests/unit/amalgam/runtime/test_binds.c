#include <fcntl.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "amalgam/runtime/binds.h"
#include "amalgam/wire/oci_spec.h"
#include "tests/unit/test.h"

static Grpc__Spec *tbinds_spec(const char *mounts)
{
	AUTO_FREE char *text = mem_printf("{\"ociVersion\": \"1.0.2\", \"mounts\": [%s]}", mounts);
	struct err e = { 0 };
	Grpc__Spec *s = oci_spec_parse(text, strlen(text), &e);

	if (!s)
		test_fail(__FILE__, __LINE__, "%s", e.msg);
	return s;
}

TEST(binds_of_a_spec_become_shares_and_the_guests_own_stay)
{
	struct binds b = { 0 };
	struct err e = { 0 };
	Grpc__Spec *s = tbinds_spec(
		"{\"destination\": \"/a\", \"type\": \"bind\", \"source\": \"vol\"},"
		"{\"destination\": \"/p\", \"type\": \"proc\", \"source\": \"proc\"},"
		"{\"destination\": \"/b\", \"type\": \"none\", \"source\": \"vol/f\","
		" \"options\": [\"rbind\", \"ro\"]},"
		"{\"destination\": \"/c\", \"type\": \"bind\", \"source\": \"/dev\", \"options\": [\"rbind\"]},"
		"{\"destination\": \"/d\", \"type\": \"bind\", \"source\": \"/proc/version\"}");

	if (getuid() != 0)
		test_skip("mounts are made by root");
	CHECK_EQ(chdir(test_dir()), 0);
	CHECK_EQ(mkdir("vol", 0755), 0);
	close(open("vol/f", O_CREAT | O_WRONLY, 0644));
	if (binds_of_spec(&b, s, test_dir(), "volume", &e) < 0)
		test_skip("%s", e.msg);
	CHECK_EQ(b.n, 2);
	CHECK_STR(b.share[0].name, "volume-0");
	CHECK_EQ(b.share[0].flags, 0);
	CHECK_STR(b.share[1].name, "volume-1");
	CHECK_EQ(b.share[1].flags, CTL_F_SHARE_READONLY);
	CHECK_STR(s->mounts[0]->source, "/run/spore/share/volume-0");
	CHECK_STR(s->mounts[1]->source, "proc");
	CHECK_STR(s->mounts[2]->source, "/run/spore/share/volume-1");
	CHECK_STR(s->mounts[3]->source, "/dev");
	CHECK_STR(s->mounts[4]->source, "/proc/version");
	binds_close(&b);
	grpc__spec__free_unpacked(s, NULL);
}

TEST(binds_say_which_source_is_missing)
{
	struct binds b = { 0 };
	struct err e = { 0 };
	Grpc__Spec *s = tbinds_spec("{\"destination\": \"/a\", \"type\": \"bind\", \"source\": \"/no/such\"}");

	CHECK_EQ(binds_of_spec(&b, s, "/", "volume", &e), -ENOENT);
	CHECK_STR(e.msg, "mount on /a: source /no/such: No such file or directory");
	CHECK_EQ(b.n, 0);
	grpc__spec__free_unpacked(s, NULL);
}

TEST(binds_are_limited)
{
	struct binds b = { 0 };
	struct err e = { 0 };

	for (unsigned i = 0; i < BINDS_MAX; i++)
		CHECK_EQ(binds_add(&b, "x", open("/dev/null", O_RDONLY), 0, &e), 0);
	CHECK_EQ(binds_add(&b, "x", open("/dev/null", O_RDONLY), 0, &e), -E2BIG);
	CHECK_HAS(e.msg, "more than 64");
	binds_close(&b);
}
