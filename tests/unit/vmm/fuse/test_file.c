#include "tests/unit/test.h"
#include "tests/unit/vmm/fuse/fuse_rig.h"

#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/vfs.h>

/* A share with a file "f" of this content. */
static uint64_t tff_file(struct frig *r, const char *text, uint64_t *dir)
{
	frig_init(r);
	frig_write_host(r, "f", text);
	*dir = frig_share(r, 0);
	return frig_node(r, *dir, "f");
}

TEST(fuse_file_reads_what_is_there_and_no_more)
{
	uint64_t dir, fh, f;
	struct frig r;

	f = tff_file(&r, "hello world", &dir);
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &fh), 0);
	CHECK_EQ(frig_read(&r, f, fh, 0, 5), 0);
	CHECK_EQ(r.len, 5);
	CHECK_MEM(r.body, "hello", 5);
	CHECK_EQ(frig_read(&r, f, fh, 6, FRIG_BODY), 0);
	CHECK_EQ(r.len, 5);
	CHECK_MEM(r.body, "world", 5);
	CHECK_EQ(frig_read(&r, f, fh, 11, 100), 0);
	CHECK_EQ(r.len, 0);
	CHECK_EQ(frig_read(&r, f, fh, 0, 0), 0);
	CHECK_EQ(r.len, 0);
	CHECK_EQ(frig_read(&r, f, fh, UINT64_MAX, 1), -EINVAL);
	r.room = 10;
	CHECK_EQ(frig_read(&r, f, fh, 0, 11), -EINVAL);
	CHECK_EQ(frig_read(&r, f, fh, 0, 10), 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "x", 0, 0), -EBADF);
	frig_fini(&r);
}

TEST(fuse_file_reads_into_many_pieces)
{
	struct {
		struct fuse_in_header h;
		struct fuse_read_in in;
	} req = { .h = { .len = sizeof req, .opcode = FUSE_READ } };
	static uint8_t got[130][4096];
	struct vq_chain *c;
	uint64_t dir, fh, f;
	struct frig r;
	int fd;

	f = tff_file(&r, "", &dir);
	fd = open(frig_path(&r, "f"), O_WRONLY | O_CLOEXEC);
	for (unsigned i = 0; i < 120; i++) {
		memset(got[0], (int)i + 1, 4096);
		CHECK_EQ(write(fd, got[0], 4096), 4096);
	}
	close(fd);
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &fh), 0);
	req.h.nodeid = f;
	req.in = (struct fuse_read_in){ .fh = fh, .size = 120 * 4096 };
	c = fsv_call_chain(r.q);
	c->nout = 2;
	c->out_len = sizeof req;
	c->iov[0] = (struct iovec){ &req, 41 };
	c->iov[1] = (struct iovec){ (uint8_t *)&req + 41, sizeof req - 41 };
	c->nin = 122;
	c->in_len = 16 + 120 * 4096;
	c->iov[2] = (struct iovec){ got[121], 7 }; /* the header in two pieces, the second with data */
	c->iov[3] = (struct iovec){ got[122], 9 + 96 };
	for (unsigned i = 0; i < 120; i++)
		c->iov[4 + i] = (struct iovec){ got[i], i == 119 ? 4000 : 4096 };
	memset(got, 0, sizeof got);
	CHECK_EQ(fsv_serve(r.s, r.q), c->in_len);
	CHECK_EQ(got[122][9], 1);
	CHECK_EQ(got[122][104], 1);
	CHECK_EQ(got[122][105], 0);
	CHECK_EQ(got[0][0], 1);
	CHECK_EQ(got[0][3999], 1);
	CHECK_EQ(got[0][4000], 2);
	CHECK_EQ(got[119][3999], 120);
	CHECK_EQ(got[119][4000], 0);
	frig_fini(&r);
}

TEST(fuse_file_writes_where_it_is_told)
{
	struct fuse_write_in in = { .size = 4 };
	uint64_t dir, fh, f;
	struct stat st;
	struct frig r;

	f = tff_file(&r, "hello world", &dir);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), 0);
	CHECK_EQ(frig_write(&r, f, fh, 6, "earth!", 0, 0), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_write_out).size, 6);
	CHECK_EQ(frig_read(&r, f, fh, 0, 100), 0);
	CHECK_EQ(r.len, 12);
	CHECK_MEM(r.body, "hello earth!", 12);
	CHECK_EQ(frig_write(&r, f, fh, UINT64_MAX, "x", 0, 0), -EINVAL);
	in.fh = fh;
	CHECK_EQ(frig_call3(&r, FUSE_WRITE, f, FRIG_IN(in), "abc", 3, "", 0), -EINVAL); /* fewer than said */
	in.size = UINT32_MAX;
	CHECK_EQ(frig_call3(&r, FUSE_WRITE, f, FRIG_IN(in), "abc", 3, "", 0), -EINVAL);
	CHECK_EQ(frig_write(&r, f, fh, 0, "s", O_SYNC, 0), 0);
	CHECK_EQ(frig_write(&r, f, fh, 1, "d", O_DSYNC, 0), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_size, 12);
	frig_fini(&r);
}

/* The guest's idea of the end may be old; a page written back has its place, whatever the flags were. */
TEST(fuse_file_appends_to_the_end_that_the_host_has)
{
	uint64_t dir, fh, f;
	struct frig r;

	f = tff_file(&r, "abc", &dir);
	CHECK_EQ(frig_open(&r, f, O_WRONLY | O_APPEND, &fh), 0);
	frig_write_host(&r, "f", "abcdef");
	CHECK_EQ(frig_write(&r, f, fh, 3, "XY", O_APPEND, 0), 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "1", 0, FUSE_WRITE_CACHE), 0);
	CHECK_EQ(frig_write(&r, f, fh, 1, "2", O_APPEND, FUSE_WRITE_CACHE), 0);
	CHECK_EQ(frig_release(&r, f, fh), 0);
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &fh), 0);
	CHECK_EQ(frig_read(&r, f, fh, 0, 100), 0);
	CHECK_EQ(r.len, 8);
	CHECK_MEM(r.body, "12cdefXY", 8);
	frig_fini(&r);
}

TEST(fuse_open_truncates_and_checks_its_flags)
{
	uint64_t dir, fh, f;
	struct stat st;
	struct frig r;

	f = tff_file(&r, "abc", &dir);
	CHECK_EQ(frig_open(&r, f, O_RDWR | O_TRUNC, &fh), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(frig_open(&r, f, 3, &fh), -EINVAL);
	/* What is the guest's own business does not reach the host. */
	CHECK_EQ(frig_open(&r, f, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_DIRECT | O_SYNC | O_NOATIME, &fh),
		 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "unaligned", 0, 0), 0);
	frig_fini(&r);
}

TEST(fuse_handle_of_another_node_or_a_closed_one_is_bad)
{
	uint64_t dir, fh, f, g, dh;
	struct frig r;

	f = tff_file(&r, "abc", &dir);
	frig_write_host(&r, "g", "xyz");
	g = frig_node(&r, dir, "g");
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), 0);
	CHECK_EQ(frig_opendir(&r, dir, &dh), 0);
	CHECK_EQ(frig_read(&r, g, fh, 0, 1), -EBADF);
	CHECK_EQ(frig_write(&r, g, fh, 0, "1", 0, 0), -EBADF);
	CHECK_EQ(frig_read(&r, dir, dh, 0, 1), -EBADF); /* a directory's */
	CHECK_EQ(frig_read(&r, f, fh + 1, 0, 1), -EBADF);
	CHECK_EQ(frig_read(&r, f, 0, 0, 1), -EBADF);
	CHECK_EQ(frig_read(&r, f, UINT64_MAX, 0, 1), -EBADF);
	CHECK_EQ(frig_release(&r, g, fh), -EBADF);
	CHECK_EQ(frig_release(&r, f, fh), 0);
	CHECK_EQ(frig_release(&r, f, fh), -EBADF);
	CHECK_EQ(frig_read(&r, f, fh, 0, 1), -EBADF);
	frig_fini(&r);
}

TEST(fuse_create_makes_a_file_of_its_caller)
{
	uint64_t dir, fh, node, again;
	struct stat st;
	struct frig r;

	tff_file(&r, "abc", &dir);
	r.uid = 1000;
	r.gid = 2000;
	CHECK_EQ(frig_create(&r, dir, "n", O_RDWR | O_EXCL, 04751, &node, &fh), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_entry_out).attr.uid, 1000);
	st = frig_stat_host(&r, "n");
	CHECK_EQ(st.st_mode, S_IFREG | 04751);
	CHECK_EQ(st.st_uid, 1000);
	CHECK_EQ(st.st_gid, 2000);
	CHECK_EQ(frig_write(&r, node, fh, 0, "x", 0, 0), 0);
	CHECK_EQ(frig_create(&r, dir, "n", O_RDWR | O_EXCL, 0600, &again, &fh), -EEXIST);
	CHECK_EQ(frig_create(&r, dir, "n", O_RDWR | O_TRUNC, 0600, &again, &fh), 0);
	CHECK_EQ(again, node);
	st = frig_stat_host(&r, "n");
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(st.st_mode, S_IFREG | 04751);
	CHECK_EQ(frig_create(&r, dir, "r", O_RDONLY, 0400, &again, &fh), 0);
	CHECK_EQ(frig_create(&r, dir, "w", 3, 0400, &again, &fh), -EINVAL);
	r.uid = UINT32_MAX;
	CHECK_EQ(frig_create(&r, dir, "m", O_RDWR, 0600, &again, &fh), -EINVAL);
	r.uid = 0;
	CHECK_EQ(frig_create(&r, dir, "root", O_RDWR, 0600, &again, &fh), 0);
	CHECK_EQ(frig_stat_host(&r, "root").st_uid, 0); /* back to what we were */
	CHECK_EQ(frig_stat_host(&r, "root").st_gid, 2000);
	frig_fini(&r);
}

TEST(fuse_create_counts_one_lookup_and_a_failed_one_none)
{
	uint64_t dir, fh, node;
	struct fuse_attr attr;
	struct frig r;

	tff_file(&r, "abc", &dir);
	CHECK_EQ(frig_create(&r, dir, "n", O_RDWR, 0644, &node, &fh), 0);
	CHECK_EQ(frig_release(&r, node, fh), 0);
	frig_forget(&r, node, 1);
	CHECK_EQ(frig_getattr(&r, node, &attr), -ESTALE);
	CHECK_EQ(mkfifo(frig_path(&r, "p"), 0644), 0);
	CHECK_EQ(frig_create(&r, dir, "p", O_RDWR, 0644, &node, &fh), -ENXIO);
	frig_forget(&r, dir, 1);
	frig_forget(&r, frig_node(&r, FUSE_ROOT_ID, "s"), 100);
	CHECK_EQ(fnode_known(&r.s->nodes), 1); /* "f" */
	frig_fini(&r);
}

TEST(fuse_tmpfile_has_no_name_until_it_is_linked)
{
	struct fuse_create_in in = { .flags = O_RDWR, .mode = 0640 };
	struct fuse_link_in link;
	struct fuse_entry_out e;
	struct frig r;
	uint64_t dir;
	int err;

	tff_file(&r, "abc", &dir);
	r.uid = 1000;
	err = frig_call(&r, FUSE_TMPFILE, dir, FRIG_IN(in), "#1", NULL);
	if (err == -EOPNOTSUPP || err == -EISDIR)
		test_skip("the file system of %s has no O_TMPFILE", r.dir);
	CHECK_EQ(err, 0);
	e = FRIG_ANSWER(&r, fuse_entry_out);
	CHECK_EQ(e.attr.nlink, 0);
	CHECK_EQ(e.attr.uid, 1000);
	link.oldnodeid = e.nodeid;
	CHECK_EQ(frig_call(&r, FUSE_LINK, dir, FRIG_IN(link), "l", NULL), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_entry_out).nodeid, e.nodeid);
	CHECK_EQ(frig_stat_host(&r, "l").st_mode, S_IFREG | 0640);
	frig_fini(&r);
}

/* --- set-user-ID ------------------------------------------------------------------------------ */

static mode_t tff_mode(const struct frig *r)
{
	return frig_stat_host(r, "f").st_mode & 07777;
}

TEST(fuse_set_user_id_goes_with_a_users_write_and_stays_with_roots)
{
	struct fuse_open_in open_in = { .flags = O_WRONLY | O_TRUNC, .open_flags = FUSE_OPEN_KILL_SUIDGID };
	struct fuse_setattr_in set = { .valid = FATTR_SIZE, .size = 2 };
	struct fuse_fallocate_in fall = { .length = 10 };
	uint64_t dir, fh, f;
	struct frig r;

	f = tff_file(&r, "abc", &dir);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), 0);
	CHECK_EQ(chmod(frig_path(&r, "f"), 06755), 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "x", 0, 0), 0);
	CHECK_EQ(tff_mode(&r), 06755);
	CHECK_EQ(frig_write(&r, f, fh, 0, "x", 0, FUSE_WRITE_KILL_SUIDGID), 0);
	CHECK_EQ(tff_mode(&r), 0755);
	CHECK_EQ(chmod(frig_path(&r, "f"), 06755), 0);
	CHECK_EQ(frig_setattr(&r, f, set), 0);
	CHECK_EQ(tff_mode(&r), 06755);
	set.valid |= FATTR_KILL_SUIDGID;
	CHECK_EQ(frig_setattr(&r, f, set), 0);
	CHECK_EQ(tff_mode(&r), 0755);
	CHECK_EQ(chmod(frig_path(&r, "f"), 06755), 0);
	CHECK_EQ(frig_call(&r, FUSE_OPEN, f, FRIG_IN(open_in), NULL, NULL), 0);
	CHECK_EQ(tff_mode(&r), 0755);
	CHECK_EQ(chmod(frig_path(&r, "f"), 06755), 0);
	fall.fh = fh;
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(fall), NULL, NULL), 0);
	CHECK_EQ(tff_mode(&r), 0755);
	CHECK_EQ(chmod(frig_path(&r, "f"), 06755), 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "x", 0, 0), 0);
	CHECK_EQ(tff_mode(&r), 06755); /* the capability came back */
	frig_fini(&r);
}

/* --- the rest --------------------------------------------------------------------------------- */

TEST(fuse_flush_and_fsync_reach_the_host)
{
	struct fuse_flush_in flush = { .lock_owner = 1 };
	struct fuse_fsync_in sync = { .fsync_flags = 0 };
	uint64_t dir, fh, dh, f;
	struct frig r;

	f = tff_file(&r, "abc", &dir);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), 0);
	flush.fh = sync.fh = fh;
	CHECK_EQ(frig_call(&r, FUSE_FLUSH, f, FRIG_IN(flush), NULL, NULL), 0);
	CHECK_EQ(frig_call(&r, FUSE_FSYNC, f, FRIG_IN(sync), NULL, NULL), 0);
	sync.fsync_flags = FUSE_FSYNC_FDATASYNC;
	CHECK_EQ(frig_call(&r, FUSE_FSYNC, f, FRIG_IN(sync), NULL, NULL), 0);
	CHECK_EQ(frig_call(&r, FUSE_FSYNCDIR, dir, FRIG_IN(sync), NULL, NULL), -EBADF);
	CHECK_EQ(frig_opendir(&r, dir, &dh), 0);
	sync.fh = dh;
	CHECK_EQ(frig_call(&r, FUSE_FSYNCDIR, dir, FRIG_IN(sync), NULL, NULL), 0);
	CHECK_EQ(frig_call(&r, FUSE_FSYNCDIR, FUSE_ROOT_ID, FRIG_IN(sync), NULL, NULL), 0);
	flush.fh = 0;
	CHECK_EQ(frig_call(&r, FUSE_FLUSH, f, FRIG_IN(flush), NULL, NULL), -EBADF);
	frig_fini(&r);
}

TEST(fuse_fallocate_grows_punches_and_passes_errors_on)
{
	struct fuse_fallocate_in in = { .length = 65536 };
	uint64_t dir, fh, f;
	struct frig r;

	f = tff_file(&r, "abc", &dir);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &in.fh), 0);
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(frig_stat_host(&r, "f").st_size, 65536);
	in.mode = FALLOC_FL_KEEP_SIZE;
	in.offset = 65536;
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(frig_stat_host(&r, "f").st_size, 65536);
	in.mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
	in.offset = 0;
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(frig_read(&r, f, in.fh, 0, 3), 0);
	CHECK_MEM(r.body, "\0\0\0", 3);
	in.mode = 0x8000;
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(in), NULL, NULL), -EOPNOTSUPP);
	in.mode = 0;
	in.length = UINT64_MAX;
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(in), NULL, NULL), -EINVAL);
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &fh), 0);
	in.fh = fh;
	in.length = 1;
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(in), NULL, NULL), -EBADF);
	frig_fini(&r);
}

TEST(fuse_lseek_finds_data_and_holes)
{
	struct fuse_lseek_in in = { .whence = SEEK_HOLE };
	uint64_t dir, f;
	struct frig r;

	f = tff_file(&r, "abc", &dir);
	CHECK_EQ(truncate(frig_path(&r, "f"), MIB(4)), 0);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &in.fh), 0);
	CHECK_EQ(frig_write(&r, f, in.fh, MIB(2), "x", 0, 0), 0);
	CHECK_EQ(frig_call(&r, FUSE_LSEEK, f, FRIG_IN(in), NULL, NULL), 0);
	CHECK(FRIG_ANSWER(&r, fuse_lseek_out).offset >= 3);
	CHECK(FRIG_ANSWER(&r, fuse_lseek_out).offset <= MIB(4));
	in.whence = SEEK_DATA;
	in.offset = MIB(2);
	CHECK_EQ(frig_call(&r, FUSE_LSEEK, f, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_lseek_out).offset, MIB(2));
	in.offset = MIB(4);
	CHECK_EQ(frig_call(&r, FUSE_LSEEK, f, FRIG_IN(in), NULL, NULL), -ENXIO);
	in.whence = SEEK_END;
	CHECK_EQ(frig_call(&r, FUSE_LSEEK, f, FRIG_IN(in), NULL, NULL), -EINVAL);
	frig_fini(&r);
}

TEST(fuse_copies_between_two_open_files)
{
	struct fuse_copy_file_range_in in = { .len = 100, .off_in = 1, .off_out = 2 };
	uint64_t dir, f, g;
	struct frig r;

	f = tff_file(&r, "abcdef", &dir);
	frig_write_host(&r, "g", "0123456789");
	g = in.nodeid_out = frig_node(&r, dir, "g");
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &in.fh_in), 0);
	CHECK_EQ(frig_open(&r, g, O_RDWR, &in.fh_out), 0);
	CHECK_EQ(frig_call(&r, FUSE_COPY_FILE_RANGE, f, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_write_out).size, 5);
	CHECK_EQ(frig_read(&r, g, in.fh_out, 0, 100), 0);
	CHECK_MEM(r.body, "01bcdef789", 10);
	in.flags = 1;
	CHECK_EQ(frig_call(&r, FUSE_COPY_FILE_RANGE, f, FRIG_IN(in), NULL, NULL), -EINVAL);
	in.flags = 0;
	in.off_in = UINT64_MAX;
	CHECK_EQ(frig_call(&r, FUSE_COPY_FILE_RANGE, f, FRIG_IN(in), NULL, NULL), -EINVAL);
	in.off_in = 0;
	in.nodeid_out = f;
	CHECK_EQ(frig_call(&r, FUSE_COPY_FILE_RANGE, f, FRIG_IN(in), NULL, NULL), -EBADF);
	in.fh_out = in.fh_in;
	CHECK_EQ(frig_call(&r, FUSE_COPY_FILE_RANGE, f, FRIG_IN(in), NULL, NULL), -EBADF); /* not writable */
	frig_fini(&r);
}
