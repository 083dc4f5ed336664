#include "tests/unit/test.h"
#include "tests/unit/vmm/fuse/fuse_rig.h"

#include <linux/fs.h>

static uint64_t tfn_start(struct frig *r)
{
	frig_init(r);
	frig_write_host(r, "f", "abc");
	return frig_share(r, 0);
}

TEST(fuse_makes_every_kind_of_file_as_its_caller)
{
	static const struct {
		const char *name;
		uint32_t mode, rdev;
	} row[] = {
		{ "reg", S_IFREG | 0644, 0 },
		{ "untyped", 0644, 0 },
		{ "fifo", S_IFIFO | 0600, 0 },
		{ "sock", S_IFSOCK | 0777, 0 },
		{ "null", S_IFCHR | 0666, 1 << 8 | 3 },
		{ "blk", S_IFBLK | 0660, 259 << 8 | 0x12300004 },
		{ "suid", S_IFREG | 07711, 0 },
	};
	uint64_t dir;
	struct frig r;

	dir = tfn_start(&r);
	r.uid = 7;
	r.gid = 8;
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct fuse_mknod_in in = { .mode = row[i].mode, .rdev = row[i].rdev };
		struct fuse_attr a;
		struct stat st;
		test_note("%s", row[i].name);
		CHECK_EQ(frig_call(&r, FUSE_MKNOD, dir, FRIG_IN(in), row[i].name, NULL), 0);
		a = FRIG_ANSWER(&r, fuse_entry_out).attr;
		st = frig_stat_host(&r, row[i].name);
		CHECK_EQ(st.st_mode, row[i].mode | (row[i].mode & S_IFMT ? 0 : S_IFREG));
		CHECK_EQ(a.mode, st.st_mode);
		CHECK_EQ(a.rdev, row[i].rdev);
		CHECK_EQ(st.st_uid, 7);
		CHECK_EQ(st.st_gid, 8);
		CHECK_EQ(frig_call(&r, FUSE_MKNOD, dir, FRIG_IN(in), row[i].name, NULL), -EEXIST);
	}
	CHECK_EQ(major(frig_stat_host(&r, "blk").st_rdev), 259);
	CHECK_EQ(minor(frig_stat_host(&r, "blk").st_rdev), 0x12304);
	frig_fini(&r);
}

TEST(fuse_mknod_makes_no_directory_and_no_link)
{
	static const uint32_t mode[] = { S_IFDIR | 0755, S_IFLNK | 0777 };
	uint64_t dir;
	struct frig r;

	dir = tfn_start(&r);
	for (unsigned i = 0; i < ARRAY_LEN(mode); i++) {
		struct fuse_mknod_in in = { .mode = mode[i] };
		CHECK_EQ(frig_call(&r, FUSE_MKNOD, dir, FRIG_IN(in), "x", NULL), -EINVAL);
	}
	frig_fini(&r);
}

TEST(fuse_directories_and_symbolic_links_come_and_go)
{
	struct fuse_mkdir_in in = { .mode = 01777 };
	uint64_t dir, d, l;
	struct frig r;

	dir = tfn_start(&r);
	r.uid = 5;
	CHECK_EQ(frig_call(&r, FUSE_MKDIR, dir, FRIG_IN(in), "d", NULL), 0);
	d = FRIG_ANSWER(&r, fuse_entry_out).nodeid;
	CHECK_EQ(frig_stat_host(&r, "d").st_mode, S_IFDIR | 01777);
	CHECK_EQ(frig_stat_host(&r, "d").st_uid, 5);
	CHECK_EQ(frig_call(&r, FUSE_SYMLINK, d, "", 0, "l", "../where/ever"), 0);
	l = FRIG_ANSWER(&r, fuse_entry_out).nodeid;
	CHECK_EQ(frig_stat_host(&r, "d/l").st_uid, 5);
	CHECK_EQ(frig_call(&r, FUSE_READLINK, l, "", 0, NULL, NULL), 0);
	CHECK_EQ(r.len, 13);
	CHECK_MEM(r.body, "../where/ever", 13);
	r.room = 5;
	CHECK_EQ(frig_call(&r, FUSE_READLINK, l, "", 0, NULL, NULL), 0);
	CHECK_EQ(r.len, 5);
	r.room = FRIG_BODY;
	CHECK_EQ(frig_call(&r, FUSE_READLINK, d, "", 0, NULL, NULL), -EINVAL);
	CHECK_EQ(frig_call(&r, FUSE_RMDIR, dir, "", 0, "d", NULL), -ENOTEMPTY);
	CHECK_EQ(frig_call(&r, FUSE_UNLINK, dir, "", 0, "d", NULL), -EISDIR);
	CHECK_EQ(frig_call(&r, FUSE_RMDIR, d, "", 0, "l", NULL), -ENOTDIR);
	CHECK_EQ(frig_call(&r, FUSE_UNLINK, d, "", 0, "l", NULL), 0);
	CHECK_EQ(frig_call(&r, FUSE_RMDIR, dir, "", 0, "d", NULL), 0);
	CHECK_EQ(frig_call(&r, FUSE_UNLINK, dir, "", 0, "d", NULL), -ENOENT);
	CHECK_EQ(frig_call(&r, FUSE_MKDIR, d, FRIG_IN(in), "x", NULL), -ENOENT); /* it is gone */
	frig_fini(&r);
}

TEST(fuse_group_of_a_set_group_id_directory_is_inherited)
{
	struct fuse_mkdir_in in = { .mode = 0755 };
	uint64_t dir, d, node, fh;
	struct frig r;

	dir = tfn_start(&r);
	CHECK_EQ(mkdir(frig_path(&r, "d"), 0777), 0);
	CHECK_EQ(chown(frig_path(&r, "d"), 0, 55), 0);
	CHECK_EQ(chmod(frig_path(&r, "d"), 02777), 0);
	d = frig_node(&r, dir, "d");
	r.uid = r.gid = 1000;
	CHECK_EQ(frig_create(&r, d, "n", O_RDWR, 0644, &node, &fh), 0);
	CHECK_EQ(frig_stat_host(&r, "d/n").st_gid, 55);
	CHECK_EQ(frig_call(&r, FUSE_MKDIR, d, FRIG_IN(in), "e", NULL), 0);
	CHECK_EQ(frig_stat_host(&r, "d/e").st_mode, S_IFDIR | 02755);
	frig_fini(&r);
}

TEST(fuse_hard_links_are_one_node)
{
	struct fuse_link_in in;
	uint64_t dir, l;
	struct frig r;

	dir = tfn_start(&r);
	in.oldnodeid = frig_node(&r, dir, "f");
	CHECK_EQ(frig_call(&r, FUSE_LINK, dir, FRIG_IN(in), "g", NULL), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_entry_out).nodeid, in.oldnodeid);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_entry_out).attr.nlink, 2);
	CHECK_EQ(frig_node(&r, dir, "g"), in.oldnodeid);
	CHECK_EQ(frig_call(&r, FUSE_LINK, dir, FRIG_IN(in), "g", NULL), -EEXIST);
	CHECK_EQ(symlink("x", frig_path(&r, "l")), 0);
	l = in.oldnodeid = frig_node(&r, dir, "l");
	CHECK_EQ(frig_call(&r, FUSE_LINK, dir, FRIG_IN(in), "m", NULL), 0); /* the link, not "x" */
	CHECK_EQ(frig_node(&r, dir, "m"), l);
	in.oldnodeid = FUSE_ROOT_ID;
	CHECK_EQ(frig_call(&r, FUSE_LINK, dir, FRIG_IN(in), "n", NULL), -EXDEV);
	frig_fini(&r);
}

TEST(fuse_rename_replaces_exchanges_and_refuses_to)
{
	struct fuse_rename_in in;
	uint64_t dir, d, f, g;
	struct frig r;

	dir = tfn_start(&r);
	frig_write_host(&r, "g", "g");
	CHECK_EQ(mkdir(frig_path(&r, "d"), 0755), 0);
	d = frig_node(&r, dir, "d");
	f = frig_node(&r, dir, "f");
	g = frig_node(&r, dir, "g");
	CHECK_EQ(frig_rename2(&r, dir, "f", dir, "g", RENAME_NOREPLACE), -EEXIST);
	CHECK_EQ(frig_rename2(&r, dir, "f", dir, "g", RENAME_EXCHANGE), 0);
	CHECK_EQ(frig_node(&r, dir, "f"), g);
	CHECK_EQ(frig_node(&r, dir, "g"), f);
	CHECK_EQ(frig_rename2(&r, dir, "f", d, "h", RENAME_NOREPLACE), 0);
	CHECK_EQ(frig_node(&r, d, "h"), g);
	in.newdir = d;
	CHECK_EQ(frig_call(&r, FUSE_RENAME, dir, FRIG_IN(in), "g", "h"), 0);
	CHECK_EQ(frig_node(&r, d, "h"), f);
	CHECK_EQ(frig_call(&r, FUSE_RENAME, dir, FRIG_IN(in), "none", "h"), -ENOENT);
	CHECK_EQ(frig_call(&r, FUSE_RENAME, dir, FRIG_IN(in), "d", "x"), -EINVAL); /* into itself */
	CHECK_EQ(frig_rename2(&r, d, "h", dir, "i", 0x80), -EINVAL);
	CHECK_EQ(frig_rename2(&r, d, "h", f, "i", 0), -ENOTDIR);
	frig_fini(&r);
}

TEST(fuse_rename_leaves_a_whiteout)
{
	uint64_t dir;
	struct frig r;
	int err;

	dir = tfn_start(&r);
	err = frig_rename2(&r, dir, "f", dir, "g", RENAME_WHITEOUT);
	if (err == -EINVAL)
		test_skip("the file system of %s has no whiteouts", r.dir);
	CHECK_EQ(err, 0);
	CHECK_EQ(frig_stat_host(&r, "f").st_mode & S_IFMT, S_IFCHR);
	CHECK_EQ(frig_stat_host(&r, "f").st_rdev, 0);
	frig_fini(&r);
}

/* --- attributes ------------------------------------------------------------------------------- */

TEST(fuse_attributes_are_the_hosts)
{
	struct fuse_attr a;
	struct stat st;
	struct frig r;
	uint64_t dir;

	dir = tfn_start(&r);
	CHECK_EQ(chown(frig_path(&r, "f"), 70000, 80000), 0);
	CHECK_EQ(frig_getattr(&r, frig_node(&r, dir, "f"), &a), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(a.ino, st.st_ino);
	CHECK_EQ(a.size, 3);
	CHECK_EQ(a.blocks, st.st_blocks);
	CHECK_EQ(a.mode, st.st_mode);
	CHECK_EQ(a.nlink, 1);
	CHECK_EQ(a.uid, 70000);
	CHECK_EQ(a.gid, 80000);
	CHECK_EQ(a.blksize, st.st_blksize);
	CHECK_EQ(a.mtime, st.st_mtim.tv_sec);
	CHECK_EQ(a.mtimensec, st.st_mtim.tv_nsec);
	CHECK_EQ(a.ctimensec, st.st_ctim.tv_nsec);
	CHECK_EQ(a.atime, st.st_atim.tv_sec);
	frig_fini(&r);
}

TEST(fuse_setattr_changes_what_is_valid_and_nothing_else)
{
	struct fuse_setattr_in in = { .mode = 0600, .uid = 3, .gid = 4, .size = 1, .atime = 1, .mtime = 2,
				      .atimensec = 5, .mtimensec = 6 };
	struct stat st, was;
	struct frig r;
	uint64_t f;

	f = frig_node(&r, tfn_start(&r), "f");
	was = frig_stat_host(&r, "f");
	in.valid = FATTR_CTIME | FATTR_LOCKOWNER;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_ctim.tv_nsec, was.st_ctim.tv_nsec);
	in.valid = FATTR_MODE;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_attr_out).attr.mode, S_IFREG | 0600);
	in.valid = FATTR_GID;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_uid, 0);
	CHECK_EQ(st.st_gid, 4);
	CHECK_EQ(st.st_size, 3);
	in.valid = FATTR_UID | FATTR_MODE; /* chown would take the bit away */
	in.mode = 04700;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_uid, 3);
	CHECK_EQ(st.st_mode, S_IFREG | 04700);
	in.valid = FATTR_MTIME;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_mtim.tv_sec, 2);
	CHECK_EQ(st.st_mtim.tv_nsec, 6);
	CHECK_EQ(st.st_atim.tv_sec, was.st_atim.tv_sec);
	in.valid = FATTR_ATIME | FATTR_MTIME | FATTR_MTIME_NOW;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_atim.tv_sec, 1);
	CHECK(st.st_mtim.tv_sec >= was.st_mtim.tv_sec);
	frig_fini(&r);
}

TEST(fuse_setattr_refuses_numbers_that_mean_something_else)
{
	static const uint32_t nsec[] = { 1000000000, (1 << 30) - 1, (1 << 30) - 2, UINT32_MAX };
	struct frig r;
	uint64_t f, dir;

	dir = tfn_start(&r);
	f = frig_node(&r, dir, "f");
	for (unsigned i = 0; i < ARRAY_LEN(nsec); i++) {
		CHECK_EQ(frig_setattr(&r, f, (struct fuse_setattr_in){ .valid = FATTR_ATIME,
								       .atimensec = nsec[i] }), -EINVAL);
		CHECK_EQ(frig_setattr(&r, f, (struct fuse_setattr_in){ .valid = FATTR_MTIME,
								       .mtimensec = nsec[i] }), -EINVAL);
	}
	CHECK_EQ(frig_setattr(&r, f, (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = UINT64_MAX }),
		 -EINVAL);
	CHECK_EQ(frig_setattr(&r, dir, (struct fuse_setattr_in){ .valid = FATTR_SIZE }), -EISDIR);
	frig_fini(&r);
}

TEST(fuse_truncate_works_by_handle_and_without)
{
	struct fuse_setattr_in in = { .valid = FATTR_SIZE, .size = 100 };
	struct frig r;
	uint64_t f, ro, rw;

	f = frig_node(&r, tfn_start(&r), "f");
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	CHECK_EQ(frig_stat_host(&r, "f").st_size, 100);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &rw), 0);
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &ro), 0);
	in.valid |= FATTR_FH;
	in.fh = rw;
	in.size = 2;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	CHECK_EQ(frig_stat_host(&r, "f").st_size, 2);
	in.fh = ro;
	in.size = 1;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	CHECK_EQ(frig_stat_host(&r, "f").st_size, 1);
	in.fh = 12345;
	in.size = 0;
	CHECK_EQ(frig_setattr(&r, f, in), 0);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_attr_out).attr.size, 0);
	frig_fini(&r);
}

TEST(fuse_owner_and_times_of_a_symbolic_link_are_its_own)
{
	struct fuse_setattr_in in = { .valid = FATTR_UID | FATTR_MTIME, .uid = 9, .mtime = 77 };
	struct stat st;
	struct frig r;
	uint64_t dir;

	dir = tfn_start(&r);
	CHECK_EQ(symlink("f", frig_path(&r, "l")), 0);
	CHECK_EQ(frig_setattr(&r, frig_node(&r, dir, "l"), in), 0);
	st = frig_stat_host(&r, "l");
	CHECK_EQ(st.st_uid, 9);
	CHECK_EQ(st.st_mtim.tv_sec, 77);
	st = frig_stat_host(&r, "f");
	CHECK_EQ(st.st_uid, 0);
	CHECK(st.st_mtim.tv_sec != 77);
	frig_fini(&r);
}

TEST(fuse_statfs_tells_of_the_hosts_file_system)
{
	struct fuse_statfs_out out;
	uint64_t dir;
	struct frig r;

	dir = tfn_start(&r);
	CHECK_EQ(frig_call(&r, FUSE_STATFS, dir, "", 0, NULL, NULL), 0);
	out = FRIG_ANSWER(&r, fuse_statfs_out);
	CHECK(out.st.blocks > 0);
	CHECK(out.st.bsize >= 512);
	CHECK_EQ(out.st.namelen, 255);
	frig_fini(&r);
}
