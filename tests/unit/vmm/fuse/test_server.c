#include "tests/unit/test.h"
#include "tests/unit/vmm/fuse/fuse_rig.h"
#include "vmm/virtio/fs.h"

TEST(fuse_init_takes_what_it_knows_of_what_is_offered)
{
	struct frig r;
	struct fuse_init_out out;
	uint32_t minor, flags;

	frig_init(&r);
	out = FRIG_ANSWER(&r, fuse_init_out);
	CHECK_EQ(r.len, sizeof out);
	CHECK_EQ(out.major, 7);
	CHECK(out.minor >= 31);
	CHECK_EQ(out.flags & (FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_EXPORT_SUPPORT | FUSE_POSIX_ACL |
			      FUSE_WRITEBACK_CACHE | FUSE_SUBMOUNTS | FUSE_DONT_MASK | FUSE_NO_OPEN_SUPPORT |
			      FUSE_NO_OPENDIR_SUPPORT | FUSE_SETXATTR_EXT), 0);
	CHECK(out.flags & FUSE_HANDLE_KILLPRIV_V2);
	CHECK(out.flags & FUSE_MAX_PAGES);
	CHECK(out.max_pages + 4 <= VQ_MAX_IOV);
	CHECK_EQ(out.max_write, out.max_pages * 4096u);
	CHECK_EQ(out.max_readahead, 131072);
	fsv_get_session(r.s, &minor, &flags);
	CHECK_EQ(flags, out.flags);
	frig_fini(&r);
}

TEST(fuse_init_refuses_an_old_protocol_and_is_asked_again_by_a_new_one)
{
	static const struct {
		uint32_t major, minor;
		int want;
	} row[] = { { 7, 30, -EPROTO }, { 6, 99, -EPROTO }, { 0, 0, -EPROTO }, { 8, 0, 0 }, { 7, 31, 0 } };
	uint32_t minor, flags;
	struct frig r;

	frig_init(&r);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct fuse_init_in in = { .major = row[i].major, .minor = row[i].minor };
		test_note("%u.%u", in.major, in.minor);
		CHECK_EQ(fsv_set_session(r.s, 0, 0), 0);
		CHECK_EQ(frig_call3(&r, FUSE_INIT, 0, &in, 16, "", 0, "", 0), row[i].want);
		fsv_get_session(r.s, &minor, &flags);
		CHECK_EQ(minor != 0, row[i].major == 7 && row[i].want == 0);
	}
	frig_fini(&r);
}

TEST(fuse_serves_nothing_before_init_and_after_destroy)
{
	struct fuse_attr attr;
	struct frig r;

	frig_init(&r);
	CHECK_EQ(frig_getattr(&r, FUSE_ROOT_ID, &attr), 0);
	CHECK_EQ(frig_call(&r, FUSE_DESTROY, 0, "", 0, NULL, NULL), 0);
	CHECK_EQ(frig_getattr(&r, FUSE_ROOT_ID, &attr), -EIO);
	CHECK_EQ(frig_init_session(&r), 0);
	CHECK_EQ(frig_getattr(&r, FUSE_ROOT_ID, &attr), 0);
	frig_fini(&r);
}

TEST(fuse_destroy_forgets_nodes_and_open_files)
{
	struct fuse_attr attr;
	uint64_t dir, f, fh;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	dir = frig_share(&r, 0);
	f = frig_node(&r, dir, "f");
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &fh), 0);
	CHECK(!fsv_is_idle(r.s));
	CHECK_EQ(frig_call(&r, FUSE_DESTROY, 0, "", 0, NULL, NULL), 0);
	CHECK(fsv_is_idle(r.s));
	CHECK_EQ(frig_init_session(&r), 0);
	CHECK_EQ(frig_getattr(&r, f, &attr), -ESTALE);
	CHECK_EQ(frig_release(&r, f, fh), -EBADF);
	CHECK(frig_node(&r, frig_node(&r, FUSE_ROOT_ID, "s"), "f") != f);
	frig_fini(&r);
}

TEST(fuse_session_that_comes_back_is_checked)
{
	uint32_t minor, flags;
	struct frig r;

	frig_init(&r);
	fsv_get_session(r.s, &minor, &flags);
	CHECK_EQ(fsv_set_session(r.s, minor, flags), 0);
	CHECK_EQ(fsv_set_session(r.s, 0, 0), 0);
	CHECK_EQ(fsv_set_session(r.s, 0, flags), -EINVAL);
	CHECK_EQ(fsv_set_session(r.s, minor + 1, flags), -EINVAL);
	CHECK_EQ(fsv_set_session(r.s, minor, flags | FUSE_WRITEBACK_CACHE), -EINVAL);
	CHECK_EQ(fsv_set_session(r.s, minor, UINT32_MAX), -EINVAL);
	frig_fini(&r);
}

TEST(fuse_what_it_does_not_know_is_enosys)
{
	static const uint32_t op[] = { 0, 7, 19, FUSE_GETLK, FUSE_SETLK, FUSE_SETLKW, FUSE_ACCESS, FUSE_BMAP,
				       FUSE_POLL, FUSE_SETUPMAPPING, 52, 4096, UINT32_MAX };
	uint8_t zeros[64] = { 0 };
	struct frig r;

	frig_init(&r);
	for (unsigned i = 0; i < ARRAY_LEN(op); i++) {
		test_note("opcode %u", op[i]);
		CHECK_EQ(frig_call(&r, op[i], FUSE_ROOT_ID, zeros, sizeof zeros, NULL, NULL), -ENOSYS);
	}
	CHECK_EQ(frig_call(&r, FUSE_IOCTL, FUSE_ROOT_ID, zeros, sizeof zeros, NULL, NULL), -ENOTTY);
	frig_fini(&r);
}

/* Every opcode, cut at every length, and with a header that lies about it. */
TEST(fuse_short_requests_are_refused)
{
	struct {
		struct fuse_in_header h;
		uint8_t body[128];
	} req = { .h.unique = 0 };
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	req.h.nodeid = frig_share(&r, 0);
	for (uint32_t op = 1; op < 52; op++)
		for (uint32_t len = 0; len < sizeof req; len += len < 48 ? 1 : 7) {
			test_note("opcode %u, %u bytes", op, len);
			req.h.opcode = op;
			req.h.len = len;
			req.h.unique = r.unique = len < sizeof req.h ? 0 : len;
			if (op == FUSE_DESTROY || op == FUSE_INIT)
				continue;
			if (len < sizeof req.h) {
				int err = frig_send(&r, &req, len);
				CHECK(err == -EINVAL);
			} else {
				(void)frig_send(&r, &req, len);
			}
		}
	req.h.opcode = FUSE_GETATTR;
	req.h.len = sizeof req + 1;
	req.h.unique = ++r.unique;
	CHECK_EQ(frig_send(&r, &req, sizeof req), -EINVAL);
	req.h.len = 39;
	CHECK_EQ(frig_send(&r, &req, sizeof req), -EINVAL);
	frig_fini(&r);
}

TEST(fuse_a_request_without_room_for_its_answer_does_nothing)
{
	struct fuse_mkdir_in in = { .mode = 0755 };
	uint64_t dir;
	struct frig r;

	frig_init(&r);
	dir = frig_share(&r, 0);
	r.room = sizeof(struct fuse_entry_out) - 1;
	CHECK_EQ(frig_call(&r, FUSE_MKDIR, dir, FRIG_IN(in), "d", NULL), -EINVAL);
	CHECK_EQ(access(frig_path(&r, "d"), F_OK), -1);
	fsv_call_chain(r.q)->nin = 0;
	fsv_call_chain(r.q)->in_len = 15;
	CHECK_EQ(fsv_serve(r.s, r.q), 0);
	CHECK_EQ(access(frig_path(&r, "d"), F_OK), -1);
	frig_fini(&r);
}

TEST(fuse_ids_that_were_never_given_are_stale_and_zero_is_invalid)
{
	static const uint64_t id[] = { 2, 3, 1u << 20, UINT64_MAX, UINT64_C(1) << 63 };
	struct fuse_attr attr;
	struct frig r;

	frig_init(&r);
	for (unsigned i = 0; i < ARRAY_LEN(id); i++)
		CHECK_EQ(frig_getattr(&r, id[i], &attr), -ESTALE);
	CHECK_EQ(frig_getattr(&r, 0, &attr), -EINVAL);
	frig_fini(&r);
}

TEST(fuse_forget_and_interrupt_are_not_answered)
{
	struct fuse_batch_forget_in batch = { .count = UINT32_MAX };
	struct fuse_forget_one one[3];
	uint64_t dir, f;
	struct fuse_attr attr;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	dir = frig_share(&r, 0);
	f = frig_node(&r, dir, "f");
	CHECK_EQ(frig_call(&r, FUSE_INTERRUPT, 0, "12345678", 8, NULL, NULL), -ENOMSG);
	one[0] = (struct fuse_forget_one){ 77, 1 };
	one[1] = (struct fuse_forget_one){ f, 1 };
	one[2] = (struct fuse_forget_one){ FUSE_ROOT_ID, UINT64_MAX };
	CHECK_EQ(frig_call3(&r, FUSE_BATCH_FORGET, 0, FRIG_IN(batch), FRIG_IN(one), "", 0), -ENOMSG);
	CHECK_EQ(frig_getattr(&r, f, &attr), -ESTALE);
	CHECK_EQ(frig_getattr(&r, dir, &attr), 0);
	frig_fini(&r);
}

TEST(fuse_node_lives_as_long_as_its_lookups_and_its_id_never_comes_back)
{
	uint64_t dir, f, again;
	struct fuse_attr attr;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	dir = frig_share(&r, 0);
	f = frig_node(&r, dir, "f");
	CHECK_EQ(frig_node(&r, dir, "f"), f);
	CHECK_EQ(frig_forget(&r, f, 1), -ENOMSG);
	CHECK_EQ(frig_getattr(&r, f, &attr), 0);
	frig_forget(&r, f, UINT64_MAX);
	CHECK_EQ(frig_getattr(&r, f, &attr), -ESTALE);
	frig_forget(&r, f, 1);
	again = frig_node(&r, dir, "f");
	CHECK(again != f);
	CHECK_EQ(frig_getattr(&r, f, &attr), -ESTALE);
	CHECK_EQ(frig_getattr(&r, again, &attr), 0);
	frig_fini(&r);
}

/* The number of a removed file is often given to the next one. */
TEST(fuse_node_of_a_removed_file_stays_that_file)
{
	uint64_t dir, f, fh, g;
	struct fuse_attr was, is;
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "old");
	dir = frig_share(&r, 0);
	f = frig_node(&r, dir, "f");
	CHECK_EQ(frig_getattr(&r, f, &was), 0);
	CHECK_EQ(unlink(frig_path(&r, "f")), 0);
	for (unsigned i = 0; i < 64; i++) {
		char name[8];
		snprintf(name, sizeof name, "g%u", i);
		frig_write_host(&r, name, "new one");
		g = frig_node(&r, dir, name);
		CHECK(g != f);
		CHECK_EQ(frig_getattr(&r, g, &is), 0);
		CHECK(is.ino != was.ino);
	}
	CHECK_EQ(frig_getattr(&r, f, &is), 0);
	CHECK_EQ(is.nlink, 0);
	CHECK_EQ(frig_open(&r, f, O_RDONLY, &fh), 0);
	CHECK_EQ(frig_read(&r, f, fh, 0, 100), 0);
	CHECK_EQ(r.len, 3);
	frig_fini(&r);
}

TEST(fuse_full_descriptor_table_is_enomem)
{
	struct rlimit few;
	uint64_t dir, f;
	int fd = dup(0);
	struct frig r;

	frig_init(&r);
	frig_write_host(&r, "f", "x");
	dir = frig_share(&r, 0);
	few = (struct rlimit){ (rlim_t)fd + 6, (rlim_t)fd + 6 };
	while (dup(0) >= 0 && setrlimit(RLIMIT_NOFILE, &few) == 0)
		;
	CHECK_EQ(frig_lookup(&r, dir, "f", &f), -ENOMEM);
	frig_fini(&r);
}

TEST(fuse_handle_tables_give_no_number_twice_and_know_whose_they_are)
{
	struct fhand_table t;
	struct fhand as = { .nodeid = 5, .kind = FHAND_ROOT, .fd = -1, .share = 3 };
	uint64_t fh, again;

	fhand_init(&t);
	CHECK_EQ(fhand_open(&t, &as, &fh), 0);
	CHECK(fhand_get(&t, fh, 6, FHAND_ROOT) == NULL);
	CHECK(fhand_get(&t, fh, 5, FHAND_FILE) == NULL);
	CHECK(fhand_get(&t, fh + 65536, 5, FHAND_ROOT) == NULL);
	CHECK(fhand_get(&t, 0, 5, FHAND_ROOT) == NULL);
	CHECK_EQ(fhand_close(&t, fh, 6), -EBADF);
	CHECK_EQ(fhand_close(&t, fh, 5), 0);
	CHECK_EQ(fhand_close(&t, fh, 5), -EBADF);
	CHECK_EQ(fhand_open(&t, &as, &again), 0);
	CHECK(again != fh);
	for (unsigned i = 1; i < FHAND_MAX; i++)
		CHECK_EQ(fhand_open(&t, &as, &fh), 0);
	CHECK_EQ(fhand_open(&t, &as, &fh), -ENFILE);
	fhand_close_share(&t, 2);
	CHECK_EQ(fhand_count(&t), FHAND_MAX);
	fhand_close_share(&t, 3);
	CHECK_EQ(fhand_count(&t), 0);
	CHECK_EQ(fhand_open(&t, &as, &fh), 0);
	fhand_fini(&t);
}

TEST(fuse_node_table_is_bounded_and_finds_what_it_holds)
{
	struct fnode_key key = { .share = 256, .mount = 1, .dev = 2 };
	struct fnode_table t;
	struct fnode *n, *same;

	fnode_init(&t);
	CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &n), -ESTALE); /* no such share */
	fnode_open_share(&t, 256);
	for (uint32_t i = 0; i < FNODE_MAX; i++) {
		key.ino = i;
		CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &n), 0);
		if (i % 2)
			fnode_put(&t, n);
	}
	CHECK_EQ(fnode_known(&t), FNODE_MAX);
	key.ino = FNODE_MAX;
	CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &n), -ENOMEM);
	key.ino = 77;
	CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &n), 0);
	CHECK_EQ(n->lookups, 2);
	fnode_put(&t, n);
	fnode_forget(&t, n->id, 2);
	key.ino = FNODE_MAX;
	CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &same), 0);
	CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &n), 0);
	CHECK(n == same);
	fnode_close_share(&t, 256);
	CHECK_EQ(fnode_known(&t), 0);
	CHECK(fnode_get(&t, n->id) == NULL);
	CHECK(fnode_is_stale(&t, n));
	CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &same), -ESTALE);
	fnode_fini(&t);
}

TEST(fuse_file_systems_of_one_host_do_not_share_inode_numbers)
{
	struct fnode_key key = { .share = 256, .ino = 128 };
	struct fnode *n[3];
	struct fnode_table t;

	fnode_init(&t);
	fnode_open_share(&t, 256);
	for (unsigned i = 0; i < 3; i++) {
		key.dev = i == 2 ? 10 : 10 + i;
		key.mount = i;
		CHECK_EQ(fnode_look_up(&t, &key, 0, 0, -1, &n[i]), 0);
	}
	CHECK_EQ(fnode_show_ino(n[0], 128), 128);
	CHECK(fnode_show_ino(n[1], 128) != 128);
	CHECK_EQ(fnode_show_ino(n[2], 128), 128); /* another mount of the first */
	CHECK(n[2] != n[0]);
	fnode_fini(&t);
}
