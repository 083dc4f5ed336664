#include "amalgam/shim/address.h"

#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

#define TADDR_GRPC "/run/containerd/containerd.sock"

TEST(address_is_the_hash_containerd_s_own_shims_use)
{
	char path[ADDRESS_MAX], other[ADDRESS_MAX];

	CHECK_EQ(address_make(path, NULL, TADDR_GRPC, "default", "a1", NULL), 0);
	CHECK_STR(path, ADDRESS_DIR "/b06fb43eabae9be14ad6cef61010a9864cc528f35c3a86047fec37b2a165f5a2");
	CHECK_EQ(address_make(other, NULL, "unix://" TADDR_GRPC, "default", "a1", NULL), 0);
	CHECK_STR(other, path);
}

TEST(address_fits_whatever_the_names)
{
	char ns[77], id[1001], path[ADDRESS_MAX];
	struct err e = { 0 };

	memset(ns, 'n', sizeof ns);
	memset(id, 'i', sizeof id);
	ns[sizeof ns - 1] = id[sizeof id - 1] = '\0';
	CHECK_EQ(address_make(path, "/run/a/directory/of/forty-two/characters/x", TADDR_GRPC, ns, id, &e), 0);
	CHECK_EQ(strlen(path), 42 + 1 + 64);
	CHECK_EQ(address_make(path, "/run/a/directory/of/forty-four/characters/xx", TADDR_GRPC, ns, id, &e),
		 -ENAMETOOLONG);
}

TEST(address_is_listened_on_once_and_a_dead_one_is_replaced)
{
	AUTO_FREE char *path = mem_printf("%s/s/sock", test_dir());
	struct err e = { 0 };
	struct stat st;
	bool taken;
	int fd = address_listen(path, &taken, &e), client;

	CHECK(fd >= 0 && !taken);
	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mode & 0777, 0600);
	client = address_connect(path);
	CHECK(client >= 0);
	close(client);
	CHECK_EQ(address_listen(path, &taken, &e), 0);
	CHECK(taken);
	close(fd);
	CHECK_EQ(address_connect(path), -ECONNREFUSED);
	fd = address_listen(path, &taken, &e);
	CHECK(fd >= 0 && !taken);
	close(fd);
}

TEST(address_file_has_the_scheme_and_no_newline)
{
	AUTO_FREE char *file = mem_printf("%s/address", test_dir());
	struct err e = { 0 };
	char text[64] = "";
	FILE *f;

	CHECK_EQ(address_write(test_dir(), "/run/containerd/s/abc", &e), 0);
	f = fopen(file, "r");
	CHECK(f && fread(text, 1, sizeof text - 1, f) > 0);
	fclose(f);
	CHECK_STR(text, "unix:///run/containerd/s/abc");
}
