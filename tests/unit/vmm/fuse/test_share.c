#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <ucontext.h>

#include "tests/unit/test.h"
#include "tests/unit/vmm/fuse/fuse_rig.h"
#include "vmm/virtio/fs.h"

TEST(fuse_root_is_empty_and_cannot_be_changed)
{
	struct fuse_mkdir_in mkdir_in = { .mode = 0755 };
	struct fuse_mknod_in mknod_in = { .mode = S_IFREG };
	struct fuse_setattr_in set = { .valid = FATTR_MODE };
	struct fuse_link_in link = { .oldnodeid = 1 };
	uint64_t node, fh;
	struct fuse_attr attr;
	struct frig r;

	frig_init(&r);
	CHECK_EQ(frig_getattr(&r, FUSE_ROOT_ID, &attr), 0);
	CHECK_EQ(attr.mode, S_IFDIR | 0755);
	CHECK_EQ(FRIG_ANSWER(&r, fuse_attr_out).attr_valid, 0);
	CHECK_EQ(frig_lookup(&r, FUSE_ROOT_ID, "x", &node), -ENOENT);
	CHECK_EQ(frig_call(&r, FUSE_MKDIR, 1, FRIG_IN(mkdir_in), "d", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_MKNOD, 1, FRIG_IN(mknod_in), "d", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_SYMLINK, 1, "", 0, "l", "/"), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_UNLINK, 1, "", 0, "l", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_RMDIR, 1, "", 0, "l", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_LINK, 1, FRIG_IN(link), "l", NULL), -EROFS);
	CHECK_EQ(frig_create(&r, 1, "f", O_RDWR, 0644, &node, &fh), -EROFS);
	CHECK_EQ(frig_rename2(&r, 1, "a", 1, "b", 0), -EROFS);
	CHECK_EQ(frig_setattr(&r, 1, set), -EROFS);
	CHECK_EQ(frig_open(&r, 1, O_RDONLY, &fh), -EINVAL);
	CHECK_EQ(frig_call(&r, FUSE_READLINK, 1, "", 0, NULL, NULL), -EINVAL);
	CHECK_EQ(frig_call(&r, FUSE_STATFS, 1, "", 0, NULL, NULL), 0);
	frig_fini(&r);
}

TEST(fuse_share_names_and_files_are_checked)
{
	static const char *const bad[] = { "", ".", "..", "a/b", "/", "../x" };
	char longest[NAME_MAX + 2];
	struct frig r;

	frig_init(&r);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		CHECK_EQ(frig_share_path(&r, bad[i], NULL, 0), -EINVAL);
	memset(longest, 'x', sizeof longest);
	longest[NAME_MAX + 1] = '\0';
	CHECK_EQ(frig_share_path(&r, longest, NULL, 0), -EINVAL);
	longest[NAME_MAX] = '\0';
	CHECK_EQ(frig_share_path(&r, longest, NULL, 0), 0);
	CHECK_EQ(frig_share_path(&r, longest, NULL, 0), -EEXIST);
	CHECK(frig_node(&r, FUSE_ROOT_ID, longest));
	CHECK_EQ(frig_share_path(&r, "null", "/dev/null", 0), -EINVAL);
	CHECK_EQ(fsv_share_add(r.s, "bad", -1, 0, NULL), -EBADF);
	CHECK_EQ(fsv_share_remove(r.s, "bad", NULL), -ENOENT);
	frig_fini(&r);
}

TEST(fuse_shares_are_bounded_and_their_slots_used_again)
{
	char name[16];
	struct frig r;

	frig_init(&r);
	for (unsigned i = 0; i < FNODE_SHARES; i++) {
		snprintf(name, sizeof name, "s%u", i);
		CHECK_EQ(frig_share_path(&r, name, NULL, 0), 0);
	}
	CHECK_EQ(frig_share_path(&r, "more", NULL, 0), -ENOSPC);
	CHECK_EQ(fsv_share_remove(r.s, "s17", NULL), 0);
	CHECK_EQ(frig_share_path(&r, "more", NULL, 0), 0);
	CHECK(frig_node(&r, FUSE_ROOT_ID, "more"));
	frig_fini(&r);
}

TEST(fuse_single_file_is_a_share_too)
{
	uint64_t f, fh;
	struct fuse_attr attr;
	uint64_t no;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "hosts", "127.0.0.1");
	CHECK_EQ(frig_share_path(&r, "f", frig_path(&r, "hosts"), 0), 0);
	f = frig_node(&r, FUSE_ROOT_ID, "f");
	CHECK_EQ(frig_getattr(&r, f, &attr), 0);
	CHECK_EQ(attr.mode, S_IFREG | 0644);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "999", 0, 0), 0);
	CHECK_EQ(frig_read(&r, f, fh, 0, 100), 0);
	CHECK_MEM(r.body, "999.0.0.1", 9);
	CHECK_EQ(frig_lookup(&r, f, "x", &no), -ENOTDIR);
	CHECK_EQ(frig_opendir(&r, f, &no), -ENOTDIR);
	CHECK_EQ(frig_call(&r, FUSE_UNLINK, FUSE_ROOT_ID, "", 0, "f", NULL), -EROFS);
	frig_fini(&r);
}

TEST(fuse_share_that_goes_leaves_stale_nodes_and_no_descriptor)
{
	uint64_t dir, sub, f, fh, dh, node;
	struct fuse_read_in in = { .size = 4096 };
	struct fuse_attr attr;
	int before, after;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	CHECK_EQ(mkdir(frig_path(&r, "d"), 0755), 0);
	before = dup(0);
	close(before);
	dir = frig_share(&r, 0);
	sub = frig_node(&r, dir, "d");
	f = frig_node(&r, dir, "f");
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), 0);
	CHECK_EQ(frig_opendir(&r, dir, &dh), 0);
	CHECK_EQ(fsv_share_remove(r.s, "s", NULL), 0);
	after = dup(0);
	close(after);
	CHECK_EQ(after, before);
	CHECK_EQ(frig_getattr(&r, dir, &attr), -ESTALE);
	CHECK_EQ(frig_getattr(&r, sub, &attr), -ESTALE);
	CHECK_EQ(frig_lookup(&r, dir, "f", &node), -ESTALE);
	CHECK_EQ(frig_read(&r, f, fh, 0, 1), -ESTALE);
	CHECK_EQ(frig_write(&r, f, fh, 0, "y", 0, 0), -ESTALE);
	in.fh = dh;
	CHECK_EQ(frig_call(&r, FUSE_READDIR, dir, FRIG_IN(in), NULL, NULL), -ESTALE);
	CHECK_EQ(frig_release(&r, f, fh), -EBADF);
	CHECK_EQ(frig_lookup(&r, FUSE_ROOT_ID, "s", &node), -ENOENT);
	frig_forget(&r, f, 1);
	CHECK(fsv_is_idle(r.s));
	CHECK(frig_share(&r, 0) != dir); /* the same name again is another share */
	CHECK_EQ(frig_getattr(&r, dir, &attr), -ESTALE);
	frig_fini(&r);
}

TEST(fuse_share_that_goes_takes_no_other_with_it)
{
	uint64_t a, b, f;
	struct fuse_attr attr;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	CHECK_EQ(frig_share_path(&r, "b", NULL, 0), 0);
	a = frig_share(&r, 0);
	b = frig_node(&r, FUSE_ROOT_ID, "b");
	CHECK(a != b); /* the same directory, twice */
	f = frig_node(&r, b, "f");
	CHECK(frig_node(&r, a, "f") != f);
	CHECK_EQ(fsv_share_remove(r.s, "s", NULL), 0);
	CHECK_EQ(frig_getattr(&r, f, &attr), 0);
	CHECK_EQ(frig_getattr(&r, a, &attr), -ESTALE);
	frig_fini(&r);
}

TEST(fuse_nothing_moves_between_shares)
{
	struct fuse_link_in link;
	uint64_t a, b;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	CHECK_EQ(frig_share_path(&r, "b", NULL, 0), 0);
	a = frig_share(&r, 0);
	b = frig_node(&r, FUSE_ROOT_ID, "b");
	CHECK_EQ(frig_rename2(&r, a, "f", b, "g", 0), -EXDEV);
	CHECK_EQ(frig_rename2(&r, a, "f", FUSE_ROOT_ID, "g", 0), -EXDEV);
	CHECK_EQ(frig_rename2(&r, a, "f", 999, "g", 0), -ESTALE);
	link.oldnodeid = frig_node(&r, a, "f");
	CHECK_EQ(frig_call(&r, FUSE_LINK, b, FRIG_IN(link), "l", NULL), -EXDEV);
	link.oldnodeid = 999;
	CHECK_EQ(frig_call(&r, FUSE_LINK, a, FRIG_IN(link), "l", NULL), -ESTALE);
	frig_fini(&r);
}

TEST(fuse_read_only_share_refuses_every_change)
{
	struct fuse_mkdir_in mkdir_in = { .mode = 0755 };
	struct fuse_mknod_in mknod_in = { .mode = S_IFREG };
	struct fuse_rename_in rename_in;
	struct fuse_link_in link;
	struct fuse_fallocate_in fall = { .length = 1 };
	struct {
		uint32_t size, flags;
	} setx = { 1, 0 };
	uint64_t dir, f, fh, node;
	struct stat was, is;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	was = frig_stat_host(&r, "f");
	dir = frig_share(&r, VFS_SHARE_READONLY);
	f = frig_node(&r, dir, "f");
	rename_in.newdir = dir;
	link.oldnodeid = f;
	CHECK_EQ(frig_call(&r, FUSE_MKDIR, dir, FRIG_IN(mkdir_in), "d", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_MKNOD, dir, FRIG_IN(mknod_in), "d", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_SYMLINK, dir, "", 0, "l", "/"), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_UNLINK, dir, "", 0, "f", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_RMDIR, dir, "", 0, "f", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_LINK, dir, FRIG_IN(link), "l", NULL), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_RENAME, dir, FRIG_IN(rename_in), "f", "g"), -EROFS);
	CHECK_EQ(frig_rename2(&r, dir, "f", dir, "g", 0), -EROFS);
	CHECK_EQ(frig_create(&r, dir, "n", O_RDWR, 0644, &node, &fh), -EROFS);
	CHECK_EQ(frig_create(&r, dir, "f", O_RDONLY, 0644, &node, &fh), -EROFS);
	CHECK_EQ(frig_setattr(&r, f, (struct fuse_setattr_in){ .valid = FATTR_MODE }), -EROFS);
	CHECK_EQ(frig_setattr(&r, f, (struct fuse_setattr_in){ .valid = FATTR_SIZE }), -EROFS);
	CHECK_EQ(frig_call3(&r, FUSE_SETXATTR, f, FRIG_IN(setx), "user.a", 7, "v", 1), -EROFS);
	CHECK_EQ(frig_call(&r, FUSE_REMOVEXATTR, f, "", 0, "user.a", NULL), -EROFS);
	CHECK_EQ(frig_open(&r, f, O_WRONLY, &fh), -EROFS);
	CHECK_EQ(frig_open(&r, f, O_RDWR, &fh), -EROFS);
	CHECK_EQ(frig_open(&r, f, O_RDONLY | O_TRUNC, &fh), -EROFS);
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &fh), 0);
	CHECK_EQ(frig_write(&r, f, fh, 0, "y", 0, 0), -EROFS);
	fall.fh = fh;
	CHECK_EQ(frig_call(&r, FUSE_FALLOCATE, f, FRIG_IN(fall), NULL, NULL), -EROFS);
	CHECK_EQ(frig_read(&r, f, fh, 0, 1), 0);
	is = frig_stat_host(&r, "f");
	CHECK_EQ(is.st_ctim.tv_nsec, was.st_ctim.tv_nsec);
	CHECK_EQ(is.st_size, 1);
	frig_fini(&r);
}

TEST(fuse_private_share_may_be_cached_and_another_only_for_a_moment)
{
	struct fuse_open_in in = { .flags = O_RDONLY };
	struct fuse_entry_out e;
	uint64_t dir, f, node;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	for (unsigned private = 0; private < 2; private++) {
		uint32_t want;
		dir = frig_share(&r, private ? VFS_SHARE_PRIVATE : 0);
		e = FRIG_ANSWER(&r, fuse_entry_out);
		CHECK_EQ(e.entry_valid + e.entry_valid_nsec, 0); /* a share may go */
		f = frig_node(&r, dir, "f");
		e = FRIG_ANSWER(&r, fuse_entry_out);
		CHECK(private ? e.entry_valid > 3600 : e.entry_valid == 0);
		CHECK(private ? e.attr_valid > 3600 : e.attr_valid <= 1);
		CHECK_EQ(frig_lookup(&r, dir, "none", &node), private ? 0 : -ENOENT);
		CHECK_EQ(node, 0);
		if (private)
			CHECK(FRIG_ANSWER(&r, fuse_entry_out).entry_valid > 3600);
		CHECK_EQ(frig_call(&r, FUSE_OPEN, f, FRIG_IN(in), NULL, NULL), 0);
		want = private ? FOPEN_KEEP_CACHE | FOPEN_NOFLUSH : FOPEN_NOFLUSH;
		CHECK_EQ(FRIG_ANSWER(&r, fuse_open_out).open_flags, want);
		CHECK_EQ(frig_call(&r, FUSE_OPENDIR, dir, FRIG_IN(in), NULL, NULL), 0);
		want = private ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : 0;
		CHECK_EQ(FRIG_ANSWER(&r, fuse_open_out).open_flags, want);
		CHECK_EQ(fsv_share_remove(r.s, "s", NULL), 0);
	}
	frig_fini(&r);
}

/* --- ways out ----------------------------------------------------------------------------------- */

TEST(fuse_names_are_one_component)
{
	static const char *const bad[] = { "", ".", "..", "/", "a/b", "/etc", "../x", "d/..", "./f", "f/" };
	struct fuse_mkdir_in mkdir_in = { .mode = 0755 };
	struct fuse_mknod_in mknod_in = { .mode = S_IFREG };
	struct fuse_link_in link;
	uint64_t dir, node, fh;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	CHECK_EQ(mkdir(frig_path(&r, "d"), 0755), 0);
	dir = frig_share(&r, VFS_SHARE_PRIVATE);
	link.oldnodeid = frig_node(&r, dir, "f");
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		const char *n = bad[i];
		CHECK_EQ(frig_lookup(&r, dir, n, &node), -EINVAL);
		test_note("\"%s\"", n);
		CHECK_EQ(frig_lookup(&r, FUSE_ROOT_ID, n, &node), -EINVAL);
		CHECK_EQ(frig_call(&r, FUSE_MKDIR, dir, FRIG_IN(mkdir_in), n, NULL), -EINVAL);
		CHECK_EQ(frig_call(&r, FUSE_MKNOD, dir, FRIG_IN(mknod_in), n, NULL), -EINVAL);
		CHECK_EQ(frig_call(&r, FUSE_SYMLINK, dir, "", 0, n, "x"), -EINVAL);
		CHECK_EQ(frig_call(&r, FUSE_UNLINK, dir, "", 0, n, NULL), -EINVAL);
		CHECK_EQ(frig_call(&r, FUSE_RMDIR, dir, "", 0, n, NULL), -EINVAL);
		CHECK_EQ(frig_call(&r, FUSE_LINK, dir, FRIG_IN(link), n, NULL), -EINVAL);
		CHECK_EQ(frig_create(&r, dir, n, O_RDWR, 0644, &node, &fh), -EINVAL);
		CHECK_EQ(frig_rename2(&r, dir, n, dir, "g", 0), -EINVAL);
		CHECK_EQ(frig_rename2(&r, dir, "f", dir, n, 0), -EINVAL);
	}
	frig_fini(&r);
}

TEST(fuse_names_end_and_are_not_too_long)
{
	char longest[NAME_MAX + 2];
	uint64_t dir, node;
	struct frig r;

	frig_init(&r);
	dir = frig_share(&r, 0);
	memset(longest, 'x', sizeof longest);
	longest[NAME_MAX + 1] = '\0';
	CHECK_EQ(frig_lookup(&r, dir, longest, &node), -ENAMETOOLONG);
	longest[NAME_MAX] = '\0';
	CHECK_EQ(frig_lookup(&r, dir, longest, &node), -ENOENT);
	CHECK_EQ(frig_call(&r, FUSE_LOOKUP, dir, "abc", 3, NULL, NULL), -EINVAL); /* no NUL */
	CHECK_EQ(frig_call(&r, FUSE_SYMLINK, dir, "a", 2, NULL, NULL), -EINVAL);  /* no target */
	CHECK_EQ(frig_call(&r, FUSE_SYMLINK, dir, "a\0b", 3, NULL, NULL), -EINVAL);
	frig_fini(&r);
}

TEST(fuse_symbolic_link_is_shown_and_never_followed)
{
	uint64_t dir, l, node, fh;
	struct fuse_attr attr;
	struct frig r;

	frig_init(&r);
	CHECK_EQ(symlink("/", frig_path(&r, "l")), 0);
	CHECK_EQ(symlink("../../../../etc/passwd", frig_path(&r, "m")), 0);
	dir = frig_share(&r, 0);
	l = frig_node(&r, dir, "l");
	CHECK_EQ(frig_getattr(&r, l, &attr), 0);
	CHECK_EQ(attr.mode & S_IFMT, S_IFLNK);
	CHECK_EQ(frig_call(&r, FUSE_READLINK, l, "", 0, NULL, NULL), 0);
	CHECK_EQ(r.len, 1);
	CHECK_EQ(r.body[0], '/');
	CHECK_EQ(frig_lookup(&r, l, "etc", &node), -ENOTDIR);
	CHECK_EQ(frig_open(&r, l, O_RDONLY, &fh), -ELOOP);
	CHECK_EQ(frig_opendir(&r, l, &fh), -ELOOP);
	CHECK_EQ(frig_create(&r, dir, "m", O_RDONLY, 0644, &node, &fh), -ELOOP);
	CHECK_EQ(frig_create(&r, dir, "m", O_RDWR | O_TRUNC, 0644, &node, &fh), -ELOOP);
	CHECK_EQ(frig_setattr(&r, l, (struct fuse_setattr_in){ .valid = FATTR_SIZE }), -ELOOP);
	CHECK_EQ(frig_setattr(&r, l, (struct fuse_setattr_in){ .valid = FATTR_MODE }), -EOPNOTSUPP);
	frig_fini(&r);
}

TEST(fuse_what_is_no_regular_file_is_never_opened)
{
	uint64_t dir, n, fh, node;
	struct frig r;

	frig_init(&r);
	CHECK_EQ(mkfifo(frig_path(&r, "fifo"), 0644), 0);
	CHECK_EQ(mknod(frig_path(&r, "null"), S_IFCHR | 0666, makedev(1, 3)), 0);
	CHECK_EQ(mknod(frig_path(&r, "sock"), S_IFSOCK | 0666, 0), 0);
	CHECK_EQ(mkdir(frig_path(&r, "d"), 0755), 0);
	dir = frig_share(&r, 0);
	n = frig_node(&r, dir, "fifo");
	CHECK_EQ(frig_open(&r, n, O_RDONLY, &fh), -ENXIO);
	CHECK_EQ(frig_open(&r, n, O_WRONLY, &fh), -ENXIO);
	CHECK_EQ(frig_create(&r, dir, "fifo", O_RDONLY, 0644, &node, &fh), -ENXIO);
	CHECK_EQ(frig_setattr(&r, n, (struct fuse_setattr_in){ .valid = FATTR_SIZE }), -ENXIO);
	CHECK_EQ(frig_open(&r, frig_node(&r, dir, "null"), O_RDWR, &fh), -ENXIO);
	CHECK_EQ(frig_open(&r, frig_node(&r, dir, "sock"), O_RDONLY, &fh), -ENXIO);
	CHECK_EQ(frig_open(&r, frig_node(&r, dir, "d"), O_RDONLY, &fh), -EISDIR);
	CHECK_EQ(frig_create(&r, dir, "d", O_RDONLY, 0644, &node, &fh), -EISDIR);
	CHECK_EQ(frig_opendir(&r, n, &fh), -ENOTDIR);
	frig_fini(&r);
}

/* A directory moved out of the share while the guest is in it: it keeps what it had, and no way up. */
TEST(fuse_directory_moved_out_of_a_share_has_no_way_up)
{
	uint64_t dir, sub, node;
	struct frig r;

	frig_init(&r);
	CHECK_EQ(mkdir(frig_path(&r, "in"), 0755), 0);
	CHECK_EQ(mkdir(frig_path(&r, "in/d"), 0755), 0);
	CHECK_EQ(frig_share_path(&r, "s", frig_path(&r, "in"), 0), 0);
	dir = frig_node(&r, FUSE_ROOT_ID, "s");
	sub = frig_node(&r, dir, "d");
	CHECK_EQ(rename(frig_path(&r, "in/d"), frig_path(&r, "out")), 0);
	CHECK_EQ(frig_lookup(&r, sub, "..", &node), -EINVAL);
	CHECK_EQ(frig_lookup(&r, sub, "in", &node), -ENOENT);
	frig_fini(&r);
}

/* --- sync(2): what would have been synchronized, without doing it ------------------------------- */

static unsigned tshare_syncs;
static uint64_t tshare_dev[4];
static int tshare_error;

static void tshare_on_syncfs(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	struct stat st;

	(void)sig;
	(void)info;
	if (fstat((int)uc->uc_mcontext.gregs[REG_RDI], &st) == 0 && tshare_syncs < ARRAY_LEN(tshare_dev))
		tshare_dev[tshare_syncs] = st.st_dev;
	tshare_syncs++;
	uc->uc_mcontext.gregs[REG_RAX] = -tshare_error;
}

static void tshare_catch_syncfs(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_syncfs, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_LEN(code), code };
	struct sigaction act = { .sa_sigaction = tshare_on_syncfs, .sa_flags = SA_SIGINFO };

	CHECK_EQ(sigaction(SIGSYS, &act, NULL), 0);
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

TEST(fuse_sync_reaches_each_file_system_that_may_be_written_to_once)
{
	struct fuse_syncfs_in in = { 0 };
	struct stat here, shm;
	int before, after;
	uint64_t dir;
	struct frig r;

	frig_init(&r);
	if (stat(r.dir, &here) < 0 || stat("/dev/shm", &shm) < 0 || here.st_dev == shm.st_dev)
		test_skip("needs two file systems");
	tshare_catch_syncfs();
	CHECK_EQ(frig_call(&r, FUSE_SYNCFS, FUSE_ROOT_ID, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(frig_share_path(&r, "ro", "/dev/shm", FSV_READONLY), 0);
	CHECK_EQ(frig_call(&r, FUSE_SYNCFS, FUSE_ROOT_ID, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(tshare_syncs, 0); /* nothing there, or read-only */

	before = dup(0);
	close(before);
	dir = frig_share(&r, 0);
	CHECK_EQ(frig_share_path(&r, "again", NULL, 0), 0);
	CHECK_EQ(frig_call(&r, FUSE_SYNCFS, FUSE_ROOT_ID, FRIG_IN(in), NULL, NULL), 0);
	CHECK_EQ(tshare_syncs, 1);
	CHECK_EQ(tshare_dev[0], here.st_dev);
	CHECK_EQ(frig_call(&r, FUSE_SYNCFS, dir, FRIG_IN(in), NULL, NULL), -EINVAL);
	CHECK_EQ(tshare_syncs, 1);

	CHECK_EQ(frig_share_path(&r, "rw", "/dev/shm", 0), 0);
	tshare_error = EIO;
	CHECK_EQ(frig_call(&r, FUSE_SYNCFS, FUSE_ROOT_ID, FRIG_IN(in), NULL, NULL), -EIO);
	CHECK_EQ(tshare_syncs, 3); /* an error does not keep the others from it */
	CHECK(tshare_dev[1] == shm.st_dev || tshare_dev[2] == shm.st_dev);
	after = dup(0);
	close(after);
	CHECK(after <= before + 4); /* three roots and a node */
	frig_fini(&r);
}
