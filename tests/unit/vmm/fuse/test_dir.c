#include "tests/unit/test.h"
#include "tests/unit/vmm/fuse/fuse_rig.h"

#include <dirent.h>
#include <sys/mount.h>

static int tfd_read(struct frig *r, uint64_t dir, uint64_t fh, uint64_t at, uint32_t size, bool plus)
{
	struct fuse_read_in in = { .fh = fh, .offset = at, .size = size };
	return frig_call(r, plus ? FUSE_READDIRPLUS : FUSE_READDIR, dir, FRIG_IN(in), NULL, NULL);
}

/* The entry at *at of an answer; its name in `name`. False at the end. */
static bool tfd_next(const struct frig *r, size_t *at, bool plus, struct fuse_direntplus *d,
		     char name[NAME_MAX + 1])
{
	size_t head = plus ? sizeof d->entry_out : 0;

	if (*at == r->len)
		return false;
	memset(d, 0, sizeof *d);
	CHECK(*at + head + FUSE_NAME_OFFSET <= r->len);
	memcpy(&d->entry_out, r->body + *at, head);
	memcpy(&d->dirent, r->body + *at + head, FUSE_NAME_OFFSET);
	CHECK(d->dirent.namelen > 0 && d->dirent.namelen <= NAME_MAX);
	CHECK(*at + head + FUSE_NAME_OFFSET + d->dirent.namelen <= r->len);
	memcpy(name, r->body + *at + head + FUSE_NAME_OFFSET, d->dirent.namelen);
	name[d->dirent.namelen] = '\0';
	*at += FUSE_REC_ALIGN(head + FUSE_NAME_OFFSET + d->dirent.namelen);
	return true;
}

/* Read it all in answers of `size` bytes; how many names begin with "file". */
static unsigned tfd_count(struct frig *r, uint64_t dir, uint64_t fh, uint32_t size, bool plus)
{
	struct fuse_direntplus d = { 0 };
	unsigned files = 0, all = 0;
	char name[NAME_MAX + 1];
	uint64_t offset = 0;

	for (;;) {
		size_t at = 0;
		CHECK_EQ(tfd_read(r, dir, fh, offset, size, plus), 0);
		if (r->len == 0)
			break;
		CHECK(r->len <= size);
		while (tfd_next(r, &at, plus, &d, name)) {
			files += !strncmp(name, "file", 4);
			offset = d.dirent.off;
			CHECK(all++ < 1000);
			if (plus && name[0] != '.')
				CHECK(d.entry_out.nodeid != 0);
			if (plus && name[0] == '.')
				CHECK_EQ(d.entry_out.nodeid, 0);
		}
	}
	CHECK_EQ(all, files + 2); /* "." and ".." */
	return files;
}

static uint64_t tfd_start(struct frig *r, unsigned files, uint64_t *fh)
{
	char name[16];
	uint64_t dir;

	frig_init(r);
	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof name, "file%u", i);
		frig_write_host(r, name, "x");
	}
	dir = frig_share(r, 0);
	CHECK_EQ(frig_opendir(r, dir, fh), 0);
	return dir;
}

TEST(fuse_directory_is_read_whole_in_answers_of_any_size)
{
	static const uint32_t size[] = { 200, 333, 1000, 4096, 65536, 600000 };
	struct frig r;
	uint64_t dir, fh;

	dir = tfd_start(&r, 300, &fh);
	for (unsigned i = 0; i < ARRAY_LEN(size); i++)
		for (unsigned plus = 0; plus < 2; plus++) {
			test_note("%u bytes, plus %u", size[i], plus);
			CHECK_EQ(tfd_count(&r, dir, fh, size[i], plus), 300);
		}
	frig_fini(&r);
}

TEST(fuse_directory_answer_too_small_for_an_entry_is_no_end)
{
	static const uint32_t size[] = { 0, 1, 16, 24, 31 };
	struct frig r;
	uint64_t dir, fh, root;

	dir = tfd_start(&r, 1, &fh);
	CHECK_EQ(frig_opendir(&r, FUSE_ROOT_ID, &root), 0);
	for (unsigned i = 0; i < ARRAY_LEN(size); i++)
		for (unsigned plus = 0; plus < 2; plus++) {
			test_note("%u bytes, plus %u", size[i], plus);
			CHECK_EQ(tfd_read(&r, dir, fh, 0, size[i], plus), -EINVAL);
			CHECK_EQ(tfd_read(&r, FUSE_ROOT_ID, root, 0, size[i], plus), -EINVAL);
		}
	frig_fini(&r);
}

TEST(fuse_directory_can_be_read_again_from_any_place)
{
	struct fuse_direntplus d = { 0 };
	char name[NAME_MAX + 1], again[NAME_MAX + 1];
	uint64_t dir, fh, offset;
	struct frig r;
	size_t at = 0;

	dir = tfd_start(&r, 50, &fh);
	CHECK_EQ(tfd_read(&r, dir, fh, 0, 4096, false), 0);
	for (unsigned i = 0; i < 10; i++)
		CHECK(tfd_next(&r, &at, false, &d, name));
	offset = d.dirent.off;
	CHECK(tfd_next(&r, &at, false, &d, name));
	CHECK_EQ(tfd_count(&r, dir, fh, 4096, false), 50);
	at = 0;
	CHECK_EQ(tfd_read(&r, dir, fh, offset, 4096, false), 0);
	CHECK(tfd_next(&r, &at, false, &d, again));
	CHECK_STR(again, name);
	CHECK_EQ(tfd_count(&r, dir, fh, 500, true), 50);
	frig_fini(&r);
}

/* The test's directory on tmpfs, whose offsets are positions in older kernels. */
static void tfd_on_tmpfs(const struct frig *r)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", r->dir, "tmpfs", 0, NULL) < 0)
		test_skip("cannot mount");
	CHECK_EQ(chdir("/proc/self/fd"), 0);
}

/* As rm -r does, with a kernel between that asks for a page at a time. */
static unsigned tfd_remove_all(struct frig *r, uint64_t dir, uint32_t size, unsigned plus)
{
	struct fuse_direntplus d = { 0 };
	char name[NAME_MAX + 1];
	uint64_t fh, offset = 0;
	unsigned removed = 0;

	CHECK_EQ(frig_opendir(r, dir, &fh), 0);
	for (unsigned turn = 0;; turn++) {
		bool with = plus == 2 ? turn % 2 : plus; /* 2: as the guest likes */
		char names[64][16];
		unsigned n = 0;
		size_t at = 0;
		CHECK_EQ(tfd_read(r, dir, fh, offset, size, with), 0);
		if (r->len == 0)
			break;
		while (tfd_next(r, &at, with, &d, name)) {
			offset = d.dirent.off;
			CHECK(n < ARRAY_LEN(names) && strlen(name) < sizeof names[0]);
			if (name[0] != '.')
				strcpy(names[n++], name);
		}
		for (unsigned i = 0; i < n; i++)
			CHECK_EQ(frig_call(r, FUSE_UNLINK, dir, "", 0, names[i], NULL), 0);
		removed += n;
	}
	CHECK_EQ(frig_release(r, dir, fh), 0);
	return removed;
}

TEST(fuse_directory_read_on_while_it_is_emptied_shows_every_entry)
{
	char name[16];
	uint64_t dir;
	struct frig r;

	frig_init(&r);
	tfd_on_tmpfs(&r);
	dir = frig_share(&r, 0);
	for (unsigned plus = 0; plus < 3; plus++) {
		test_note("plus %u", plus);
		for (unsigned i = 0; i < 500; i++) {
			snprintf(name, sizeof name, "file%u", i);
			frig_write_host(&r, name, "x");
		}
		CHECK_EQ(tfd_remove_all(&r, dir, 1000, plus), 500);
	}
	frig_fini(&r);
}

TEST(fuse_directory_begun_anew_is_looked_at_anew)
{
	uint64_t dir, fh;
	struct frig r;

	dir = tfd_start(&r, 3, &fh);
	CHECK_EQ(tfd_read(&r, dir, fh, 0, 40, false), 0); /* one entry; the rest is kept */
	frig_write_host(&r, "file3", "x");
	CHECK_EQ(tfd_count(&r, dir, fh, 4096, false), 4);
	frig_fini(&r);
}

/* What is told by READDIRPLUS counts as looked up, and what did not fit does not. */
TEST(fuse_readdirplus_looks_up_exactly_what_it_tells)
{
	struct fuse_direntplus d;
	char name[NAME_MAX + 1];
	uint64_t dir, fh;
	unsigned told = 0;
	struct frig r;
	size_t at = 0;

	dir = tfd_start(&r, 30, &fh);
	CHECK_EQ(tfd_read(&r, dir, fh, 0, 900, true), 0);
	while (tfd_next(&r, &at, true, &d, name)) {
		if (name[0] == '.')
			continue;
		told++;
		CHECK_EQ(d.entry_out.attr.ino, d.dirent.ino);
		CHECK_EQ(d.dirent.type, DT_REG);
		CHECK_EQ(frig_stat_host(&r, name).st_ino, d.dirent.ino);
	}
	CHECK(told > 0 && told < 10);
	CHECK_EQ(fnode_known(&r.s->nodes), told + 1);
	frig_fini(&r);
}

TEST(fuse_longest_names_fit_into_an_answer)
{
	struct fuse_direntplus d;
	char name[NAME_MAX + 1], got[NAME_MAX + 1];
	uint64_t dir, fh, offset = 0;
	struct frig r;
	bool found = false;

	frig_init(&r);
	memset(name, 'n', NAME_MAX);
	name[NAME_MAX] = '\0';
	frig_write_host(&r, name, "x");
	dir = frig_share(&r, 0);
	CHECK_EQ(frig_opendir(&r, dir, &fh), 0);
	for (;;) {
		size_t at = 0;
		CHECK_EQ(tfd_read(&r, dir, fh, offset, 416, true), 0);
		if (r.len == 0)
			break;
		while (tfd_next(&r, &at, true, &d, got)) {
			found |= !strcmp(got, name);
			offset = d.dirent.off;
		}
	}
	CHECK(found);
	frig_fini(&r);
}

TEST(fuse_root_directory_lists_its_shares)
{
	struct fuse_direntplus d;
	char name[NAME_MAX + 1];
	uint64_t fh, offset = 0;
	unsigned seen = 0;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	CHECK_EQ(frig_share_path(&r, "a", NULL, 0), 0);
	CHECK_EQ(frig_share_path(&r, "gone", NULL, 0), 0);
	CHECK_EQ(frig_share_path(&r, "file", frig_path(&r, "f"), 0), 0);
	CHECK_EQ(fsv_share_remove(r.s, "gone", NULL), 0);
	CHECK_EQ(frig_opendir(&r, FUSE_ROOT_ID, &fh), 0);
	for (;;) {
		size_t at = 0;
		CHECK_EQ(tfd_read(&r, FUSE_ROOT_ID, fh, offset, 200, true), 0);
		if (r.len == 0)
			break;
		while (tfd_next(&r, &at, true, &d, name)) {
			offset = d.dirent.off;
			seen += !strcmp(name, ".") ? 1 : !strcmp(name, "..") ? 10 : !strcmp(name, "a") ? 100 :
				!strcmp(name, "file") ? 1000 : 10000;
			if (name[0] != '.')
				CHECK_EQ(d.entry_out.nodeid, frig_node(&r, FUSE_ROOT_ID, name));
			CHECK_EQ(tfd_read(&r, FUSE_ROOT_ID, fh, offset - 1, 200, true), 0);
			at = 0;
			CHECK(tfd_next(&r, &at, true, &d, name));
			at = r.len;
		}
	}
	CHECK_EQ(seen, 1111);
	CHECK_EQ(tfd_read(&r, FUSE_ROOT_ID, fh, UINT64_MAX, 200, false), 0);
	CHECK_EQ(r.len, 0);
	CHECK_EQ(tfd_read(&r, FUSE_ROOT_ID, fh + 1, 0, 200, false), -EBADF);
	frig_fini(&r);
}

TEST(fuse_directory_offsets_of_the_guest_are_only_numbers)
{
	static const uint64_t offset[] = { UINT64_MAX, INT64_MAX, UINT64_C(1) << 63, 12345 };
	uint64_t dir, fh;
	struct frig r;

	dir = tfd_start(&r, 5, &fh);
	for (unsigned i = 0; i < ARRAY_LEN(offset); i++)
		(void)tfd_read(&r, dir, fh, offset[i], 4096, i % 2);
	CHECK_EQ(tfd_count(&r, dir, fh, 4096, true), 5);
	frig_fini(&r);
}

TEST(fuse_mounts_below_a_share_are_entered)
{
	struct fuse_attr a, b;
	uint64_t dir, m, fh;
	struct frig r;

	frig_init(&r);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		test_skip("cannot mount");
	CHECK_EQ(chdir("/proc/self/fd"), 0);
	CHECK_EQ(mkdir(frig_path(&r, "m"), 0755), 0);
	if (mount("tmpfs", frig_path(&r, "m"), "tmpfs", 0, NULL) < 0)
		test_skip("cannot mount");
	frig_write_host(&r, "m/f", "inside");
	dir = frig_share(&r, 0);
	m = frig_node(&r, dir, "m");
	CHECK_EQ(frig_getattr(&r, dir, &a), 0);
	CHECK_EQ(frig_getattr(&r, m, &b), 0);
	CHECK(b.ino != frig_stat_host(&r, "m").st_ino); /* of another file system: another number */
	m = frig_node(&r, m, "f");
	CHECK_EQ(frig_open(&r, m, O_RDONLY, &fh), 0);
	CHECK_EQ(frig_read(&r, m, fh, 0, 100), 0);
	CHECK_EQ(r.len, 6);
	CHECK_EQ(frig_call(&r, FUSE_RMDIR, dir, "", 0, "m", NULL), -EBUSY);
	frig_fini(&r);
	umount2(frig_path(&r, "m"), MNT_DETACH);
}
