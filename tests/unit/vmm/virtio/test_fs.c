#include "tests/unit/test.h"
#include "tests/unit/vmm/fuse/fuse_rig.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/virtio/fs.h"

#include <sys/wait.h>

#define TVFS_REQUEST 1u /* queue */
#define TVFS_OUT     VQR_DATA
#define TVFS_IN      (VQR_DATA + 8192)

struct tvfs {
	struct vqr r;
	struct fpool *pool;
	uint16_t done; /* answers so far */
};

static void tvfs_start(struct tvfs *t, bool pool)
{
	*t = (struct tvfs){ .pool = NULL };
	if (pool && geteuid() != 0)
		test_skip("needs root");
	if (pool)
		t->pool = fpool_start(frig_enter, NULL);
	CHECK(!pool || t->pool);
	vqr_init(&t->r, VQR_RAM);
	vqr_attach(&t->r, vfs_new(&t->r.loop, &t->r.mem, t->pool));
	CHECK_EQ(vqr_drive(&t->r, ~UINT64_C(0)), 15);
}

static void tvfs_end(struct tvfs *t)
{
	vqr_fini(&t->r);
}

/* Put a request into slot `at` of memory and the queue; the answer's header will be at TVFS_IN + at * 8192. */
static void tvfs_ask(struct tvfs *t, unsigned at, uint32_t opcode, uint64_t node, const void *arg, size_t n,
		     const char *name)
{
	size_t len = name ? strlen(name) + 1 : 0;
	struct fuse_in_header h = { .len = (uint32_t)(sizeof h + n + len), .opcode = opcode,
				    .unique = 100 + at, .nodeid = node };
	gpa_t out = TVFS_OUT + at * 16384, in = TVFS_IN + at * 16384;
	struct vqr_seg seg[3] = { { out, (uint32_t)sizeof h, false },
				  { out + sizeof h, (uint32_t)(n + len), false }, { in, 8192, true } };

	vqr_put(&t->r, out, &h, sizeof h);
	vqr_put(&t->r, out + sizeof h, arg, n);
	vqr_put(&t->r, out + sizeof h + n, name ? name : "", len);
	vqr_fill(&t->r, in, 0xee, 8192);
	vqr_add(&t->r, TVFS_REQUEST, seg, 3);
}

static int tvfs_answer(struct tvfs *t, unsigned at, void *body, size_t n)
{
	struct fuse_out_header h;

	vqr_get(&t->r, TVFS_IN + at * 16384, &h, sizeof h);
	CHECK_EQ(h.unique, 100 + at);
	if (h.error == 0 && body)
		vqr_get(&t->r, TVFS_IN + at * 16384 + sizeof h, body, n);
	return h.error;
}

static int tvfs_do(struct tvfs *t, uint32_t opcode, uint64_t node, const void *arg, size_t n, const char *name,
		   void *body, size_t nbody)
{
	tvfs_ask(t, 0, opcode, node, arg, n, name);
	vqr_kick(&t->r, TVFS_REQUEST);
	CHECK(vqr_wait(&t->r, TVFS_REQUEST, ++t->done));
	return tvfs_answer(t, 0, body, nbody);
}

static int tvfs_init(struct tvfs *t)
{
	struct fuse_init_in in = { .major = 7, .minor = 38, .flags = UINT32_MAX };
	return tvfs_do(t, FUSE_INIT, 0, FRIG_IN(in), NULL, NULL, 0);
}

static uint64_t tvfs_node(struct tvfs *t, uint64_t dir, const char *name)
{
	struct fuse_entry_out e = { 0 };

	test_note("%s", name);
	CHECK_EQ(tvfs_do(t, FUSE_LOOKUP, dir, "", 0, name, &e, sizeof e), 0);
	test_note("%s", "");
	return e.nodeid;
}

static void tvfs_share(struct tvfs *t, const char *path, unsigned flags)
{
	int fd = open(path, O_PATH | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(vfs_share_add(t->r.dev, "s", fd, flags, NULL), 0);
}

TEST(vfs_shows_its_tag_and_one_request_queue)
{
	char tag[37] = "";
	struct tvfs t;

	tvfs_start(&t, false);
	for (uint32_t i = 0; i < 36; i++)
		tag[i] = (char)vqr_config(&t.r, i, 1);
	CHECK_STR(tag, VFS_TAG);
	CHECK_EQ(vqr_config(&t.r, 36, 4), 1);
	CHECK_EQ(vqr_config(&t.r, 40, 4), 0);
	CHECK_EQ(vqr_read32(&t.r, 0x008), VDEV_FS);
	tvfs_end(&t);
}

TEST(vfs_without_file_threads_answers_for_the_empty_root)
{
	struct fuse_getattr_in in = { 0 };
	struct fuse_attr_out attr;
	struct tvfs t;
	struct err e;

	tvfs_start(&t, false);
	CHECK_EQ(tvfs_init(&t), 0);
	CHECK_EQ(tvfs_do(&t, FUSE_GETATTR, 1, FRIG_IN(in), NULL, &attr, sizeof attr), 0);
	CHECK_EQ(attr.attr.mode, S_IFDIR | 0755);
	CHECK_EQ(tvfs_do(&t, FUSE_LOOKUP, 1, "", 0, "x", NULL, 0), -ENOENT);
	CHECK_EQ(tvfs_do(&t, FUSE_GETATTR, 77, FRIG_IN(in), NULL, NULL, 0), -ESTALE);
	CHECK_EQ(vfs_share_add(t.r.dev, "s", open("/", O_PATH | O_CLOEXEC), 0, &e), -EOPNOTSUPP);
	CHECK_EQ(vfs_share_remove(t.r.dev, "s", &e), -ENOENT);
	tvfs_end(&t);
}

TEST(vfs_serves_a_shared_directory)
{
	struct fuse_open_in in = { .flags = O_RDWR };
	struct fuse_read_in read_in = { .size = 4096 };
	struct fuse_open_out open_out;
	uint64_t dir, f;
	char got[6] = "", path[160];
	struct tvfs t;
	int fd;

	snprintf(path, sizeof path, "%s/f", test_dir());
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	CHECK_EQ(write(fd, "hello", 5), 5);
	close(fd);
	tvfs_start(&t, true);
	CHECK_EQ(tvfs_init(&t), 0);
	tvfs_share(&t, test_dir(), 0);
	dir = tvfs_node(&t, 1, "s");
	f = tvfs_node(&t, dir, "f");
	CHECK_EQ(tvfs_do(&t, FUSE_OPEN, f, FRIG_IN(in), NULL, &open_out, sizeof open_out), 0);
	read_in.fh = open_out.fh;
	CHECK_EQ(tvfs_do(&t, FUSE_READ, f, FRIG_IN(read_in), NULL, got, 5), 0);
	CHECK_STR(got, "hello");
	CHECK_EQ(vqr_used(&t.r, TVFS_REQUEST, (uint16_t)(t.done - 1)).len, 16 + 5);
	CHECK_EQ(vfs_share_remove(t.r.dev, "s", NULL), 0);
	CHECK_EQ(tvfs_do(&t, FUSE_READ, f, FRIG_IN(read_in), NULL, got, 5), -ESTALE);
	tvfs_end(&t);
}

TEST(vfs_serves_a_full_queue_and_notices_every_later_request)
{
	struct fuse_getattr_in in = { 0 };
	struct tvfs t;

	tvfs_start(&t, true);
	CHECK_EQ(tvfs_init(&t), 0);
	for (unsigned round = 0; round < 200; round++) {
		unsigned n = round % 7 ? 1 + round % 5 : 60;
		for (unsigned i = 0; i < n; i++)
			tvfs_ask(&t, i, i % 2 ? FUSE_GETATTR : FUSE_STATFS, 1, FRIG_IN(in), NULL);
		vqr_kick(&t.r, TVFS_REQUEST);
		t.done = (uint16_t)(t.done + n);
		CHECK(vqr_wait(&t.r, TVFS_REQUEST, t.done));
		for (unsigned i = 0; i < n; i++)
			CHECK_EQ(tvfs_answer(&t, i, NULL, 0), 0);
	}
	tvfs_end(&t);
}

TEST(vfs_takes_forgets_from_the_other_queue)
{
	struct {
		struct fuse_in_header h;
		struct fuse_forget_in in;
	} req = { .h = { .len = sizeof req, .opcode = FUSE_FORGET }, .in = { .nlookup = 1 } };
	const struct vqr_seg seg = { TVFS_OUT, sizeof req, false };
	struct fuse_getattr_in in = { 0 };
	struct tvfs t;

	tvfs_start(&t, true);
	CHECK_EQ(tvfs_init(&t), 0);
	tvfs_share(&t, test_dir(), 0);
	req.h.nodeid = tvfs_node(&t, 1, "s");
	vqr_put(&t.r, TVFS_OUT, &req, sizeof req);
	vqr_add(&t.r, 0, &seg, 1);
	vqr_kick(&t.r, 0);
	CHECK(vqr_wait(&t.r, 0, 1));
	CHECK_EQ(vqr_used(&t.r, 0, 0).len, 0);
	CHECK_EQ(tvfs_do(&t, FUSE_GETATTR, req.h.nodeid, FRIG_IN(in), NULL, NULL, 0), -ESTALE);
	tvfs_end(&t);
}

TEST(vfs_gives_back_empty_what_it_cannot_answer)
{
	static const struct vqr_seg row[][2] = {
		{ { TVFS_OUT, 40, false }, { TVFS_IN, 15, true } },
		{ { TVFS_OUT, 3, false }, { TVFS_OUT, 0, false } },
		{ { TVFS_IN, 8, true }, { TVFS_IN, 0, true } },
	};
	struct tvfs t;

	tvfs_start(&t, true);
	CHECK_EQ(tvfs_init(&t), 0);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		vqr_fill(&t.r, TVFS_OUT, 0, 4096);
		vqr_add(&t.r, TVFS_REQUEST, row[i], 2);
		vqr_kick(&t.r, TVFS_REQUEST);
		CHECK(vqr_wait(&t.r, TVFS_REQUEST, ++t.done));
		CHECK_EQ(vqr_used(&t.r, TVFS_REQUEST, (uint16_t)(t.done - 1)).len, 0);
	}
	CHECK(!vqr_is_broken(&t.r));
	CHECK_EQ(tvfs_init(&t), 0);
	tvfs_end(&t);
}

TEST(vfs_breaks_on_a_chain_outside_memory_and_recovers_by_reset)
{
	const struct vqr_seg seg = { VQR_RAM, 40, false };
	struct tvfs t;

	log_setup(-1, LOG_ERROR);
	tvfs_start(&t, true);
	vqr_add(&t.r, TVFS_REQUEST, &seg, 1);
	vqr_kick(&t.r, TVFS_REQUEST);
	for (unsigned i = 0; i < 1000 && !vqr_is_broken(&t.r); i++)
		usleep(1000);
	CHECK(vqr_is_broken(&t.r));
	CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
	t.done = 0;
	CHECK_EQ(tvfs_init(&t), 0);
	tvfs_end(&t);
}

TEST(vfs_quiesce_parks_and_resume_finds_what_came_meanwhile)
{
	struct fuse_getattr_in in = { 0 };
	struct vdev *d;
	struct tvfs t;

	tvfs_start(&t, true);
	d = t.r.dev;
	CHECK_EQ(tvfs_init(&t), 0);
	CHECK_EQ(d->ops->quiesce(d), 0);
	tvfs_ask(&t, 0, FUSE_GETATTR, 1, FRIG_IN(in), NULL);
	vqr_kick(&t.r, TVFS_REQUEST);
	usleep(5000);
	loop_step(&t.r.loop, 0);
	CHECK_EQ(vqr_used_idx(&t.r, TVFS_REQUEST), t.done);
	d->ops->resume(d);
	CHECK(vqr_wait(&t.r, TVFS_REQUEST, ++t.done));
	tvfs_end(&t);
}

TEST(vfs_does_not_come_to_rest_while_the_guest_knows_a_file)
{
	struct fuse_open_in in = { .flags = O_RDONLY };
	struct fuse_release_in rel = { 0 };
	struct fuse_open_out out;
	struct vdev *d;
	struct tvfs t;

	tvfs_start(&t, true);
	d = t.r.dev;
	CHECK_EQ(tvfs_init(&t), 0);
	tvfs_share(&t, test_dir(), 0);
	CHECK_EQ(d->ops->quiesce(d), 0);
	d->ops->resume(d);
	CHECK_EQ(tvfs_do(&t, FUSE_OPENDIR, 1, FRIG_IN(in), NULL, &out, sizeof out), 0);
	CHECK_EQ(d->ops->quiesce(d), -EBUSY);
	rel.fh = out.fh;
	CHECK_EQ(tvfs_do(&t, FUSE_RELEASEDIR, 1, FRIG_IN(rel), NULL, NULL, 0), 0);
	CHECK_EQ(d->ops->quiesce(d), 0);
	d->ops->resume(d);
	CHECK(tvfs_node(&t, 1, "s"));
	CHECK_EQ(d->ops->quiesce(d), -EBUSY);
	CHECK_EQ(vfs_share_remove(d, "s", NULL), 0);
	CHECK_EQ(d->ops->quiesce(d), 0);
	d->ops->resume(d);
	tvfs_end(&t);
}

TEST(vfs_session_is_saved_and_restored)
{
	struct fuse_getattr_in in = { 0 };
	struct buf saved = { 0 };
	struct tvfs t, u;
	struct err e;
	struct cur c;

	tvfs_start(&t, false);
	CHECK_EQ(tvfs_init(&t), 0);
	CHECK_EQ(slots_quiesce(&t.r.slots, &e), 0);
	slots_save_one(&t.r.slots, 0, &saved);
	tvfs_start(&u, true);
	vqr_write32(&u.r, 0x070, 0);
	c = cur_of(saved.data, saved.len);
	CHECK_EQ(slots_restore_one(&u.r.slots, 0, &c, &e), 0);
	CHECK_EQ(cur_left(&c), 0);
	for (unsigned k = 0; k < 2; k++) {
		/* The rings are in the memory of the first machine: as a template's pages would. */
		uint8_t ring[KIB(48)];
		vqr_get(&t.r, t.r.ring[k].desc, ring, sizeof ring);
		vqr_put(&u.r, u.r.ring[k].desc, ring, sizeof ring);
		u.r.ring[k] = t.r.ring[k];
	}
	u.done = t.done;
	CHECK_EQ(tvfs_do(&u, FUSE_GETATTR, 1, FRIG_IN(in), NULL, NULL, 0), 0); /* without an INIT */
	tvfs_share(&u, test_dir(), 0);
	CHECK(tvfs_node(&u, 1, "s"));
	buf_fini(&saved);
	tvfs_end(&t);
	tvfs_end(&u);
}

TEST(vfs_restore_refuses_hostile_bytes)
{
	static const uint32_t row[][2] = { { 38, UINT32_MAX }, { 37, 0 }, { 0, 1 }, { UINT32_MAX, 0 },
					   { 38, FUSE_WRITEBACK_CACHE } };
	struct tvfs t;
	struct cur c;

	tvfs_start(&t, false);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		c = cur_of(row[i], sizeof row[i]);
		CHECK_EQ(t.r.dev->ops->restore(t.r.dev, &c), -EINVAL);
	}
	c = cur_of(row[0], 7);
	CHECK_EQ(t.r.dev->ops->restore(t.r.dev, &c), -EINVAL);
	tvfs_end(&t);
}

/* The driver goes while requests are under way; what they answer is dropped. */
TEST(vfs_reset_drops_what_is_in_flight)
{
	struct fuse_getattr_in in = { 0 };
	struct tvfs t;

	tvfs_start(&t, true);
	for (unsigned round = 0; round < 50; round++) {
		CHECK_EQ(tvfs_init(&t), 0);
		for (unsigned i = 0; i < 40; i++)
			tvfs_ask(&t, i, FUSE_GETATTR, 1, FRIG_IN(in), NULL);
		vqr_kick(&t.r, TVFS_REQUEST);
		vqr_write32(&t.r, 0x070, 0);
		CHECK_EQ(vqr_drive(&t.r, ~UINT64_C(0)), 15);
		t.done = 0;
	}
	CHECK_EQ(tvfs_init(&t), 0);
	CHECK_EQ(vqr_used_idx(&t.r, TVFS_REQUEST), 1);
	tvfs_end(&t);
}
