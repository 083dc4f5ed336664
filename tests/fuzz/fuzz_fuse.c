/* fuzz_fuse.c - a hostile guest against the FUSE server: vmm/fuse over a real directory.
 *
 * Input: u8 flags (1 = read-only share, 2 = private), then requests: u8 opcode, u8 knob, u8 node, u8 handle,
 * then what the opcode's row in fsv_ops wants: a structure of zeros with u8 count x { u8 where, u8 value }
 * put into it, a name for each string, u8 count and bytes behind. Nodes and handles are those the server
 * gave before. A request is a good one unless its knob turns one thing around.
 *
 * Whatever happens: an answer has the right header, fits, and nothing behind it is written; nothing outside
 * of the share changes; a read-only share stays empty of news. Runs as root, in a mount namespace of its own
 * with a small tmpfs; without the right to that it does nothing. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "amalgam/base/log.c"
#include "vmm/gmem.c"
#include "vmm/virtio/queue.c"
#include "vmm/fuse/node.c"
#include "vmm/fuse/handle.c"
#include "vmm/fuse/host.c"
#include "vmm/fuse/server.c"
#include "vmm/fuse/share.c"
#include "vmm/fuse/lookup.c"
#include "vmm/fuse/attr.c"
#include "vmm/fuse/name.c"
#include "vmm/fuse/file.c"
#include "vmm/fuse/dir.c"
#include "vmm/fuse/xattr.c"

#define FFUSE_DIR   "/tmp"
#define FFUSE_ROOM  9000u
#define FFUSE_GUARD 64u
#define FFUSE_KNOWN 16u

enum ffuse_knob {
	FFUSE_NODE = 0xf0, FFUSE_LENGTH, FFUSE_CUT, FFUSE_SMALL, FFUSE_HANDLE, FFUSE_NAME, FFUSE_SHARE,
	FFUSE_CALLER, FFUSE_SPLIT, FFUSE_UNIQUE,
};

static struct {
	bool works;
	int cwd;
	struct fsv_call *q;
	struct fsv *s;
	uint64_t node[FFUSE_KNOWN], hand[FFUSE_KNOWN];
	unsigned nodes, hands;
	uint8_t req[40 + 256 + 3 * 300];
	uint8_t ans[FFUSE_ROOM + FFUSE_GUARD];
} ffuse;

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	log_setup(-1, LOG_ERROR);
	ffuse.cwd = open(".", O_PATH | O_CLOEXEC);
	ffuse.q = fsv_call_new();
	ffuse.s = fsv_new(); /* one for all inputs: its tables are large */
	umask(0);
	ffuse.works = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		      prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) == 0;
	return 0;
}

static uint8_t ffuse_u8(struct cur *in)
{
	uint8_t v;
	cur_copy(in, &v, 1);
	return v;
}

/* --- the host --------------------------------------------------------------------------------- */

static void ffuse_share(unsigned flags)
{
	int fd = open(FFUSE_DIR "/s", O_PATH | O_CLOEXEC);
	ASSERT(fd >= 0 && fsv_share_add(ffuse.s, "s", fd, flags & 3, NULL) == 0);
}

static void ffuse_begin(unsigned flags)
{
	ASSERT(mount("tmpfs", FFUSE_DIR, "tmpfs", 0, "size=2m,nr_inodes=200") == 0);
	ASSERT(mkdir(FFUSE_DIR "/s", 0755) == 0 && mkdir(FFUSE_DIR "/s/d", 0755) == 0);
	ASSERT(symlink("../secret", FFUSE_DIR "/s/l") == 0);
	ASSERT(mkfifo(FFUSE_DIR "/s/p", 0644) == 0);
	ASSERT(mknod(FFUSE_DIR "/s/f", S_IFREG | 0644, 0) == 0);
	ASSERT(mkdir(FFUSE_DIR "/secret", 0700) == 0 && mknod(FFUSE_DIR "/secret/x", S_IFREG, 0) == 0);
	ASSERT(chdir("/proc/self/fd") == 0);
	ffuse.nodes = ffuse.hands = 0;
	ffuse_share(flags);
}

static void ffuse_end(unsigned flags)
{
	struct stat top, s, secret, x;

	ASSERT(fsv_share_remove(ffuse.s, "s", NULL) == 0);
	fsv_end_session(ffuse.s);
	fsv_put_session(ffuse.s, 0, 0);
	ASSERT(fsv_is_idle(ffuse.s));
	ASSERT(stat(FFUSE_DIR, &top) == 0 && stat(FFUSE_DIR "/secret", &secret) == 0);
	ASSERT(stat(FFUSE_DIR "/secret/x", &x) == 0 && stat(FFUSE_DIR "/s", &s) == 0);
	ASSERT(top.st_nlink == 4 && secret.st_nlink == 2 && secret.st_mode == (S_IFDIR | 0700));
	ASSERT(x.st_size == 0 && x.st_nlink == 1 && x.st_mode == S_IFREG && x.st_uid == 0);
	ASSERT(!(flags & 1) || (s.st_nlink == 3 && s.st_mode == (S_IFDIR | 0755)));
	ASSERT(fchdir(ffuse.cwd) == 0 && umount2(FFUSE_DIR, MNT_DETACH) == 0);
}

/* --- a request -------------------------------------------------------------------------------- */

static uint64_t ffuse_known(const uint64_t *known, unsigned n, uint8_t i)
{
	return n ? known[i % MIN(n, FFUSE_KNOWN)] : 1;
}

static void ffuse_learn(uint64_t *known, unsigned *n, uint64_t id)
{
	if (id)
		known[(*n)++ % FFUSE_KNOWN] = id;
}

/* Where a structure names another handle or node. */
static void ffuse_patch(struct cur *in, uint32_t opcode, uint8_t *arg, uint8_t hand)
{
	uint64_t fh = ffuse_known(ffuse.hand, ffuse.hands, hand), id;

	switch (opcode) {
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
		id = ffuse_known(ffuse.node, ffuse.nodes, hand);
		memcpy(arg, &id, 8);
		break;
	case FUSE_SETATTR:
		memcpy(arg + 8, &fh, 8);
		break;
	case FUSE_COPY_FILE_RANGE:
		id = ffuse_known(ffuse.node, ffuse.nodes, ffuse_u8(in));
		memcpy(arg + offsetof(struct fuse_copy_file_range_in, nodeid_out), &id, 8);
		memcpy(arg + offsetof(struct fuse_copy_file_range_in, fh_out), &fh, 8);
		memcpy(arg, &fh, 8);
		break;
	case FUSE_READ: case FUSE_WRITE: case FUSE_READDIR: case FUSE_READDIRPLUS: case FUSE_RELEASE:
	case FUSE_RELEASEDIR: case FUSE_FLUSH: case FUSE_FSYNC: case FUSE_FSYNCDIR: case FUSE_LSEEK:
	case FUSE_FALLOCATE:
		memcpy(arg, &fh, 8);
		break;
	}
}

static size_t ffuse_name(struct cur *in, uint8_t *to, unsigned knob)
{
	static const char *const names[] = { "f", "d", "l", "p", "s", "a", "b", "c", "user.a", "user.b", "..",
					     ".", "a/b", "../secret", "security.capability", "" };
	uint8_t i = ffuse_u8(in);
	size_t n;

	if (knob == FFUSE_NAME) {
		n = MIN(i, cur_left(in));
		cur_copy(in, to, n);
		return n;
	}
	n = strlen(names[i % ARRAY_LEN(names)]) + 1;
	memcpy(to, names[i % ARRAY_LEN(names)], n);
	return n;
}

/* Bytes of the body. */
static size_t ffuse_body(struct cur *in, uint32_t opcode, uint8_t hand, unsigned knob, uint8_t *to)
{
	const struct fsv_op *op = fsv_find_op(opcode);
	size_t n = op ? op->arg : 16, data;

	memset(to, 0, n);
	if (opcode == FUSE_INIT) {
		uint32_t v[4] = { 7, 38, 65536, UINT32_MAX };
		memcpy(to, v, sizeof v);
	} else if (knob != FFUSE_HANDLE) {
		ffuse_patch(in, opcode, to, hand);
	}
	for (unsigned k = ffuse_u8(in) % 16; k && n; k--) {
		uint8_t where = ffuse_u8(in);
		to[where % n] = ffuse_u8(in);
	}
	for (unsigned i = 0; op && i < op->names; i++)
		n += ffuse_name(in, to + n, knob);
	data = MIN(ffuse_u8(in), cur_left(in));
	cur_copy(in, to + n, data);
	return n + data;
}

/* What the guest would remember of an answer. */
static void ffuse_remember(uint32_t opcode, const uint8_t *body, size_t n)
{
	struct fuse_entry_out e;
	struct fuse_open_out o;

	switch (opcode) {
	case FUSE_CREATE: case FUSE_TMPFILE:
		if (n < sizeof e + sizeof o)
			return;
		memcpy(&o, body + sizeof e, sizeof o);
		ffuse_learn(ffuse.hand, &ffuse.hands, o.fh);
		/* fall through */
	case FUSE_LOOKUP: case FUSE_MKDIR: case FUSE_MKNOD: case FUSE_SYMLINK: case FUSE_LINK:
		if (n < sizeof e)
			return;
		memcpy(&e, body, sizeof e);
		ffuse_learn(ffuse.node, &ffuse.nodes, e.nodeid);
		break;
	case FUSE_OPEN: case FUSE_OPENDIR:
		if (n < sizeof o)
			return;
		memcpy(&o, body, sizeof o);
		ffuse_learn(ffuse.hand, &ffuse.hands, o.fh);
		break;
	}
}

static void ffuse_serve(const struct fuse_in_header *h, size_t n, uint32_t room, uint32_t split)
{
	struct vq_chain *c = fsv_call_chain(ffuse.q);
	struct fuse_out_header out;
	uint32_t written;

	split = MIN(split, (uint32_t)n);
	memset(ffuse.ans, 0x5a, sizeof ffuse.ans);
	*c = (struct vq_chain){ .out_len = (uint32_t)n, .in_len = room };
	if (split)
		c->iov[c->nout++] = (struct iovec){ ffuse.req, split };
	if (n > split)
		c->iov[c->nout++] = (struct iovec){ ffuse.req + split, n - split };
	if (room)
		c->iov[c->nout + c->nin++] = (struct iovec){ ffuse.ans, room };
	written = fsv_serve(ffuse.s, ffuse.q);
	ASSERT(written == 0 || (written >= sizeof out && written <= room));
	for (unsigned i = 0; i < FFUSE_GUARD; i++)
		ASSERT(ffuse.ans[room + i] == 0x5a);
	if (!written)
		return;
	memcpy(&out, ffuse.ans, sizeof out);
	ASSERT(out.len == written && out.error <= 0 && out.error > -134);
	ASSERT(out.error == 0 || out.len == sizeof out);
	if (n >= sizeof *h)
		ASSERT(out.unique == h->unique);
	if (out.error == 0 && h->opcode != FUSE_READ)
		ffuse_remember(h->opcode, ffuse.ans + sizeof out, written - sizeof out);
}

static void ffuse_request(struct cur *in, unsigned flags)
{
	struct fuse_in_header h = { .opcode = ffuse_u8(in), .unique = 9 };
	unsigned knob = ffuse_u8(in);
	uint8_t node = ffuse_u8(in), hand = ffuse_u8(in);
	uint32_t room = FFUSE_ROOM;
	size_t n;

	h.nodeid = node == 0 || !ffuse.nodes ? FUSE_ROOT_ID : ffuse_known(ffuse.node, ffuse.nodes, node);
	n = sizeof h + ffuse_body(in, h.opcode, hand, knob, ffuse.req + sizeof h);
	h.len = (uint32_t)n;
	if (knob == FFUSE_NODE)
		h.nodeid = cur_le64(in);
	if (knob == FFUSE_LENGTH)
		h.len = cur_le32(in) >> ffuse_u8(in) % 32;
	if (knob == FFUSE_CUT)
		n = MIN(n, ffuse_u8(in));
	if (knob == FFUSE_SMALL)
		room = ffuse_u8(in);
	if (knob == FFUSE_CALLER) {
		h.uid = ffuse_u8(in) ? 1000 : UINT32_MAX;
		h.gid = ffuse_u8(in);
	}
	if (knob == FFUSE_SHARE) {
		ASSERT(fsv_share_remove(ffuse.s, "s", NULL) == 0);
		ffuse_share(flags);
	}
	memcpy(ffuse.req, &h, sizeof h);
	ffuse_serve(&h, n, room, knob == FFUSE_SPLIT ? ffuse_u8(in) : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cur in = cur_of(data, len);
	unsigned flags = ffuse_u8(&in);

	if (!ffuse.works)
		return 0;
	ffuse_begin(flags);
	for (unsigned n = 0; cur_left(&in) && n < 200; n++)
		ffuse_request(&in, flags);
	ffuse_end(flags);
	return 0;
}
