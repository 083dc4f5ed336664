#include "amalgam/resource/mounts.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/clock.h"
#include "amalgam/base/job.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "amalgam/base/str.h"

#define RES_MAX_DATA      4095         /* mount(2): a page with its NUL; 4 KiB everywhere we run */
#define RES_TIGHT_DATA    (4096 - 512) /* from here an overlay's layers are named in short */
#define RES_MAX_MOUNTINFO (64u << 20)
#define RES_BUSY_NS       (1 * NS_PER_S) /* how long busy mounts are asked again */
#define RES_BUSY_STEP_US  20000
#define RES_HELPER_S      60

/* ---- Options. */

enum res_opt_kind { RES_SET, RES_CLEAR, RES_PROP, RES_LOOP, RES_REFUSED };

/* mounts.h has them in words. "refused" ones are prefixes. */
static const struct res_opt {
	const char *name;
	enum res_opt_kind kind;
	unsigned long bits;
} res_opts_table[] = {
	{ "async", RES_CLEAR, MS_SYNCHRONOUS },
	{ "atime", RES_CLEAR, MS_NOATIME },
	{ "bind", RES_SET, MS_BIND },
	{ "defaults", RES_SET, 0 },
	{ "dev", RES_CLEAR, MS_NODEV },
	{ "diratime", RES_CLEAR, MS_NODIRATIME },
	{ "dirsync", RES_SET, MS_DIRSYNC },
	{ "exec", RES_CLEAR, MS_NOEXEC },
	{ "loop", RES_LOOP, 0 },
	{ "mand", RES_SET, MS_MANDLOCK },
	{ "noatime", RES_SET, MS_NOATIME },
	{ "nodev", RES_SET, MS_NODEV },
	{ "nodiratime", RES_SET, MS_NODIRATIME },
	{ "noexec", RES_SET, MS_NOEXEC },
	{ "nomand", RES_CLEAR, MS_MANDLOCK },
	{ "norelatime", RES_CLEAR, MS_RELATIME },
	{ "nostrictatime", RES_CLEAR, MS_STRICTATIME },
	{ "nosuid", RES_SET, MS_NOSUID },
	{ "private", RES_PROP, MS_PRIVATE },
	{ "rbind", RES_SET, MS_BIND | MS_REC },
	{ "relatime", RES_SET, MS_RELATIME },
	{ "remount", RES_SET, MS_REMOUNT },
	{ "ro", RES_SET, MS_RDONLY },
	{ "rprivate", RES_PROP, MS_PRIVATE | MS_REC },
	{ "rshared", RES_PROP, MS_SHARED | MS_REC },
	{ "rslave", RES_PROP, MS_SLAVE | MS_REC },
	{ "runbindable", RES_PROP, MS_UNBINDABLE | MS_REC },
	{ "rw", RES_CLEAR, MS_RDONLY },
	{ "shared", RES_PROP, MS_SHARED },
	{ "slave", RES_PROP, MS_SLAVE },
	{ "strictatime", RES_SET, MS_STRICTATIME },
	{ "suid", RES_CLEAR, MS_NOSUID },
	{ "sync", RES_SET, MS_SYNCHRONOUS },
	{ "unbindable", RES_PROP, MS_UNBINDABLE },
	{ "X-containerd.", RES_REFUSED, 0 },
	{ "uidmap=", RES_REFUSED, 0 },
	{ "gidmap=", RES_REFUSED, 0 },
};

struct res_opts {
	unsigned long flags, cleared; /* MS_*; no bit is in both */
	unsigned long propagation[4];
	unsigned n_propagation;
	bool loop;
	const char **data; /* the filesystem's own, strings borrowed; the list is on the heap */
	size_t ndata;
};

static void res_opts_auto_fini(struct res_opts *o)
{
	free(o->data);
	o->data = NULL;
}
#define AUTO_RES_OPTS __attribute__((cleanup(res_opts_auto_fini)))

static const struct res_opt *res_opts_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(res_opts_table); i++) {
		const struct res_opt *row = &res_opts_table[i];
		if (row->kind == RES_REFUSED ? str_starts(name, row->name)
					     : !strcmp(name, row->name))
			return row;
	}
	return NULL;
}

static int res_opts_take(struct res_opts *o, const char *word, struct err *e)
{
	const struct res_opt *row = res_opts_find(word);

	if (!row) {
		if (*word)
			o->data[o->ndata++] = word;
		return 0;
	}
	switch (row->kind) {
	case RES_SET:
		o->flags |= row->bits;
		o->cleared &= ~row->bits;
		break;
	case RES_CLEAR:
		o->flags &= ~row->bits;
		o->cleared |= row->bits;
		break;
	case RES_PROP:
		if (o->n_propagation == ARRAY_LEN(o->propagation))
			return err_set(e, -EINVAL, "too many propagation options");
		o->propagation[o->n_propagation++] = row->bits;
		break;
	case RES_LOOP:
		o->loop = true;
		break;
	case RES_REFUSED:
		return err_set(e, -EINVAL, "option \"%.128s\" is not supported", word);
	}
	return 0;
}

/* Zero *o first. */
static int res_opts_parse(const struct res_mount *m, struct res_opts *o, struct err *e)
{
	o->data = mem_calloc(m->noptions + 1, sizeof *o->data);
	for (size_t i = 0; i < m->noptions; i++) {
		int r = res_opts_take(o, m->options[i], e);
		if (r < 0)
			return r;
	}
	if (!strcmp(m->type, "bind"))
		o->flags |= MS_BIND;
	return 0;
}

/* Join the data with ","; `lower`, if any, takes the place of the option "lowerdir=". */
static void res_opts_join(const struct res_opts *o, const char *lower, struct buf *out)
{
	for (size_t i = 0; i < o->ndata; i++) {
		bool instead = lower && str_starts(o->data[i], "lowerdir=");
		buf_add_str(out, i ? "," : "");
		buf_add_str(out, instead ? lower : o->data[i]);
	}
}

/* ---- Overlays with more layers than a page has room for. */

/* Layers are separated by ":"; one that is part of a name has a "\" in front
 * (Documentation/filesystems/overlayfs.rst), which may itself be written "\\". */
static size_t res_layer_len(const char *p)
{
	size_t n = 0;

	while (p[n] && p[n] != ':')
		n += p[n] == '\\' && p[n + 1] ? 2 : 1;
	return n;
}

/* Bytes of the directory, with its last "/", that all layers lie below; 0 = there is none. */
static size_t res_layers_common(const char *lower)
{
	size_t common = res_layer_len(lower);

	for (const char *p = lower;; p += *p == ':') {
		size_t n = res_layer_len(p), same = 0;
		if (*p != '/')
			return 0;
		while (same < MIN(n, common) && p[same] == lower[same])
			same++;
		common = same;
		p += n;
		if (!*p)
			break;
	}
	while (common && lower[common - 1] != '/')
		common--;
	return memchr(lower, '\\', common) ? 0 : common;
}

/* mount(2) with layers that are named from the directory they have in common. */
static int res_mount_short(const char *source, const char *at, const struct res_opts *o,
			   const char *lower, struct err *e)
{
	AUTO_BUF struct buf data = { 0 }, layers = { 0 };
	size_t common = res_layers_common(lower);
	AUTO_FREE char *dir = mem_strndup(lower, common);
	AUTO_CLOSE int back = -1;
	int r = 0;

	buf_add_str(&layers, "lowerdir=");
	for (const char *p = lower; *p; p += *p == ':') {
		size_t n = res_layer_len(p);
		buf_add_str(&layers, p == lower ? "" : ":");
		buf_add(&layers, p + common, n - common);
		p += n;
	}
	res_opts_join(o, buf_cstr(&layers), &data);
	if (data.len > RES_MAX_DATA)
		return err_set(e, -E2BIG, "%zu bytes of options, %d fit", data.len, RES_MAX_DATA);
	back = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (back < 0 || unshare(CLONE_FS) < 0 || chdir(*dir ? dir : ".") < 0)
		return err_set(e, -errno, "%s: %m", dir);
	if (mount(source, at, "overlay", o->flags, buf_cstr(&data)) < 0)
		r = -errno;
	if (fchdir(back) < 0 && r == 0)
		r = -errno;
	return r < 0 ? err_set(e, r, "%s", strerror(-r)) : 0;
}

/* ---- Loop devices. */

/* A device on the file, as read-only or not as asked; it ends by itself when nobody has it open or
 * mounted. Returns a descriptor of it, its name in dev. loop(4); LOOP_CONFIGURE is Linux 5.8. */
static int res_loop_attach(const char *file, bool read_only, char dev[32], struct err *e)
{
	int mode = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	AUTO_CLOSE int back = open(file, mode), ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config c = {
		.fd = (uint32_t)back,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0),
	};

	if (back < 0)
		return err_set(e, -errno, "%s: %m", file);
	if (ctl < 0)
		return err_set(e, -errno, "/dev/loop-control: %m");
	snprintf((char *)c.info.lo_file_name, sizeof c.info.lo_file_name, "%s", file);
	/* Between asking for a free one and taking it somebody else may have taken it. */
	for (unsigned tries = 0; tries < 200; tries++) {
		AUTO_CLOSE int fd = -1;
		int nr = ioctl(ctl, LOOP_CTL_GET_FREE);
		if (nr < 0)
			return err_set(e, -errno, "no free loop device: %m");
		snprintf(dev, 32, "/dev/loop%d", nr);
		fd = open(dev, mode);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &c) == 0)
			return take_fd(&fd);
		if (errno != EBUSY && errno != ENXIO && errno != ENODEV)
			return err_set(e, -errno, "%s on %s: %m", dev, file);
		usleep(tries * 100);
	}
	return err_set(e, -EBUSY, "no loop device for %s: others were always faster", file);
}

/* ---- One mount. */

/* A mount of its own is not the place where a filesystem says "read-only": flags of a bind are set
 * afterwards, and those it was made with and nobody mentioned must be said again. */
static int res_bind(const struct res_mount *m, const char *at, const struct res_opts *o,
		    struct err *e)
{
	unsigned long kept, own = o->flags & ~(unsigned long)(MS_BIND | MS_REC);
	struct statvfs st;

	if (mount(m->source, at, "bind", MS_BIND | (o->flags & MS_REC), NULL) < 0)
		return err_set(e, -errno, "%m");
	if (!own)
		return 0;
	if (statvfs(at, &st) < 0)
		return err_set(e, -errno, "flags: %m");
	kept = st.f_flag &
	       (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME);
	if (mount(NULL, at, NULL, MS_REMOUNT | MS_BIND | own | (kept & ~o->cleared), NULL) < 0)
		return err_set(e, -errno, "set flags: %m");
	return 0;
}

static int res_filesystem(const struct res_mount *m, const char *at, const struct res_opts *o,
			  struct err *e)
{
	AUTO_BUF struct buf data = { 0 };
	AUTO_CLOSE int loop = -1;
	const char *source = m->source;
	char dev[32];

	res_opts_join(o, NULL, &data);
	if (!strcmp(m->type, "overlay") && data.len >= RES_TIGHT_DATA)
		for (size_t i = 0; i < o->ndata; i++)
			if (str_starts(o->data[i], "lowerdir="))
				return res_mount_short(source, at, o, strchr(o->data[i], '=') + 1,
						       e);
	if (data.len > RES_MAX_DATA)
		return err_set(e, -E2BIG, "%zu bytes of options, %d fit", data.len, RES_MAX_DATA);
	if (o->loop) {
		loop = res_loop_attach(m->source, o->flags & MS_RDONLY, dev, e);
		if (loop < 0)
			return loop;
		source = dev;
	}
	if (mount(source, at, m->type, o->flags, buf_cstr(&data)) == 0)
		return 0;
	if (errno == ENODEV)
		return err_set(e, -errno, "this kernel has no such filesystem");
	return err_set(e, -errno, "%m");
}

static bool res_is_helped(const char *type)
{
	return str_starts(type, "fuse3.") || str_starts(type, "fuse.");
}

/* mount.fuse(8): SOURCE TARGET -o OPTION... -t NAME. */
static int res_helped(const struct res_mount *m, const char *at, struct err *e)
{
	const char *dot = strchr(m->type, '.'), *path = getenv("PATH");
	AUTO_FREE char *helper = mem_printf("mount.%.*s", (int)(dot - m->type), m->type);
	AUTO_FREE char *env = mem_printf("PATH=%s", path ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
	AUTO_FREE const char **argv = mem_calloc(2 * m->noptions + 6, sizeof *argv);
	AUTO_BUF struct buf words = { 0 };
	char *envs[] = { env, NULL }, line[200];
	struct job_spec run = { .path = helper, .env = envs, .timeout_s = RES_HELPER_S, .max_words = 512 };
	size_t n = 0;
	int r;

	argv[n++] = helper;
	argv[n++] = m->source;
	argv[n++] = at;
	for (size_t i = 0; i < m->noptions; i++) {
		argv[n++] = "-o";
		argv[n++] = m->options[i];
	}
	argv[n++] = "-t";
	argv[n++] = dot + 1;
	run.argv = (char *const *)argv;
	r = job_run(&run, &words);
	if (r == 0)
		return 0;
	str_first_line(line, sizeof line, words.data, words.len);
	if (r < 0)
		return err_set(e, r, "%s: %s", helper, strerror(-r));
	return err_set(e, -EIO, "%s: exit status %d%s%s", helper, proc_exit_code(r),
		       *line ? ": " : "", line);
}

/* Where an entry goes, symlinks resolved. Heap. */
static char *res_place(const struct res_mount *m, const char *target, struct err *e)
{
	AUTO_CLOSE int root = open(target, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), fd = -1;
	AUTO_FREE char *link = NULL, *at = mem_zalloc(PATH_MAX);

	if (root < 0) {
		err_set(e, -errno, "%s: %m", target);
		return NULL;
	}
	if (m->target && *m->target) {
		fd = path_open_in_root(root, m->target, O_PATH, 0);
		if (fd < 0) {
			err_set(e, fd, "%s below %s: %s", m->target, target, strerror(-fd));
			return NULL;
		}
	}
	link = mem_printf("/proc/self/fd/%d", fd < 0 ? root : fd);
	if (readlink(link, at, PATH_MAX - 1) < 0) {
		err_set(e, -errno, "%s: %m", link);
		return NULL;
	}
	return take_ptr(&at);
}

static int res_mount_one(const struct res_mount *m, const char *target, struct err *e)
{
	AUTO_RES_OPTS struct res_opts o = { 0 };
	AUTO_FREE char *at = NULL;
	int r = res_opts_parse(m, &o, e);

	if (r == 0 && !(at = res_place(m, target, e)))
		r = -ENOENT;
	if (r == 0 && res_is_helped(m->type))
		r = res_helped(m, at, e);
	else if (r == 0 && (o.flags & MS_BIND) && !(o.flags & MS_REMOUNT))
		r = res_bind(m, at, &o, e);
	else if (r == 0)
		r = res_filesystem(m, at, &o, e);
	for (unsigned i = 0; i < o.n_propagation && r == 0; i++)
		if (mount(NULL, at, NULL, o.propagation[i], NULL) < 0)
			r = err_set(e, -errno, "propagation: %m");
	if (r < 0)
		err_wrap(e, "mount %s (%s) on %s", m->source, m->type, at ? at : target);
	return r;
}

/* ---- What is mounted. */

/* Mounts at and below one directory, the oldest first. */
struct res_below {
	struct res_below_mount {
		long id;
		char *path;
	} * list;
	size_t n;
};

static void res_below_fini(struct res_below *b)
{
	for (size_t i = 0; i < b->n; i++)
		free(b->list[i].path);
	free(b->list);
	*b = (struct res_below){ 0 };
}
#define AUTO_RES_BELOW __attribute__((cleanup(res_below_fini)))

/* Blank, tab, newline and "\" are written as three octal digits (proc_pid_mountinfo(5)). In place.
 */
static void res_unescape(char *s)
{
	char *to = s;

	for (; *s; to++) {
		unsigned c = 0;
		int n = 0;
		if (*s == '\\' && sscanf(s + 1, "%3o%n", &c, &n) == 1 && n == 3) {
			*to = (char)c;
			s += 4;
		} else {
			*to = *s++;
		}
	}
	*to = '\0';
}

/* "36 35 98:0 /root /mount/point rw ...": number and place. The line is changed. */
static bool res_mountinfo_line(char *line, long *id, char **place)
{
	char *save = NULL, *word = strtok_r(line, " ", &save);

	*id = word ? strtol(word, NULL, 10) : 0;
	for (int i = 0; i < 4 && word; i++)
		word = strtok_r(NULL, " ", &save);
	if (word)
		res_unescape(word);
	*place = word;
	return word;
}

static int res_below_read(const char *dir, struct res_below *b, struct err *e)
{
	AUTO_BUF struct buf text = { 0 };
	size_t n = strlen(dir), room = 0;
	AUTO_FREE char *all = NULL;
	char *save = NULL, *place;
	long id;
	int r = path_read("/proc/self/mountinfo", RES_MAX_MOUNTINFO, &text, e);

	if (r < 0)
		return r;
	all = buf_take_cstr(&text);
	for (char *line = strtok_r(all, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!res_mountinfo_line(line, &id, &place) || strncmp(place, dir, n) ||
		    (place[n] && place[n] != '/'))
			continue;
		if (b->n == room) {
			room = room ? room * 2 : 8;
			b->list = mem_realloc(b->list, room * sizeof *b->list);
		}
		b->list[b->n++] = (struct res_below_mount){ id, mem_strdup(place) };
	}
	return 0;
}

/* The directory's name without symlinks, but not following one at its end. NULL and -errno. */
static char *res_real_name(const char *target, int *r)
{
	AUTO_FREE char *name = mem_strdup(target), *dir = NULL;
	char *slash;

	while (strlen(name) > 1 && name[strlen(name) - 1] == '/')
		name[strlen(name) - 1] = '\0';
	slash = strrchr(name, '/');
	*r = -EINVAL;
	if (*name != '/' || !slash[1] || !strcmp(slash, "/.") || !strcmp(slash, "/.."))
		return NULL;
	*slash = '\0';
	dir = realpath(slash == name ? "/" : name, NULL);
	*r = dir ? 0 : -errno;
	return dir ? mem_printf("%s/%s", strcmp(dir, "/") ? dir : "", slash + 1) : NULL;
}

/* ---- Unmounting. */

static bool res_is_kept(const struct res_below *keep, long id)
{
	for (size_t i = 0; keep && i < keep->n; i++)
		if (keep->list[i].id == id)
			return true;
	return false;
}

struct res_round {
	unsigned left, done; /* mounts that are not to be kept: found, gone now */
	int code;            /* why one of them is still there */
	char *path;          /* which; heap */
};

/* One of them, 0/-errno. */
static int res_unmount_one(const char *path, bool detach)
{
	if (umount2(path, UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EBUSY || !detach || umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) < 0)
		return -errno;
	log_warn("busy mount detached", KV("path", path));
	return 0;
}

/* Try each once, the youngest first. */
static int res_unmount_round(const char *dir, const struct res_below *keep, bool detach,
			     struct res_round *out, struct err *e)
{
	AUTO_RES_BELOW struct res_below now = { 0 };
	int r = res_below_read(dir, &now, e);

	for (size_t i = r < 0 ? 0 : now.n; i-- > 0;) {
		const char *path = now.list[i].path;
		if (res_is_kept(keep, now.list[i].id))
			continue;
		out->left++;
		int code = res_unmount_one(path, detach);
		out->done += code == 0;
		/* EINVAL, ENOENT: out of reach below another mount; busy ones tell more. */
		if (code < 0 && (!out->path || (code == -EBUSY && out->code != -EBUSY))) {
			free(out->path);
			out->path = mem_strdup(path);
			out->code = code;
		}
	}
	return r;
}

/* Unmount what is at and below dir (a real name) and not among `keep`. */
static int res_unmount_below(const char *dir, const struct res_below *keep, struct err *e)
{
	uint64_t deadline = clock_mono_ns() + RES_BUSY_NS;
	bool detach = false;

	for (;;) {
		struct res_round round = { 0 };
		int r = res_unmount_round(dir, keep, detach, &round, e);
		AUTO_FREE char *path = round.path;

		if (r < 0 || round.left == 0)
			return r;
		if (round.done)
			continue;
		if (round.code != -EBUSY || detach)
			return err_set(e, round.code, "unmount %s: %s", path,
				       strerror(-round.code));
		if (clock_mono_ns() < deadline)
			usleep(RES_BUSY_STEP_US);
		else
			detach = true;
	}
}

int res_unmount_all(const char *target, struct err *e)
{
	int r;
	AUTO_FREE char *dir = res_real_name(target, &r);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0)
		return err_set(e, r, "unmount %s: %s", target, strerror(-r));
	return res_unmount_below(dir, NULL, e);
}

int res_mount_all(const struct res_mount *list, size_t n, const char *target,
			      struct err *e)
{
	AUTO_RES_BELOW struct res_below before = { 0 };
	struct err undo = { 0 };
	int r;
	AUTO_FREE char *dir = res_real_name(target, &r);

	if (r < 0)
		return err_set(e, r, "mount point %s: %s", target, strerror(-r));
	r = res_below_read(dir, &before, e);
	for (size_t i = 0; i < n && r == 0; i++)
		r = res_mount_one(&list[i], dir, e);
	if (r < 0 && res_unmount_below(dir, &before, &undo) < 0)
		log_warn("left mounted", KV("reason", undo.msg));
	return r;
}

/* ---- Disks. */

static const struct {
	const char *type, *guest;
} res_disk_types[] = {
	{ "ext2", "ext4" },
	{ "ext3", "ext4" },
	{ "ext4", "ext4" },
	{ "erofs", "erofs" },
};

bool res_mounts_disk(const struct res_mount *list, size_t n, struct res_disk *d)
{
	AUTO_RES_OPTS struct res_opts o = { 0 };
	AUTO_BUF struct buf data = { 0 };
	const char *guest = NULL;
	struct stat st;

	if (n != 1 || (list->target && *list->target) || res_opts_parse(list, &o, NULL) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(res_disk_types); i++)
		if (!strcmp(list->type, res_disk_types[i].type))
			guest = res_disk_types[i].guest;
	if (!guest || o.flags & (MS_BIND | MS_REMOUNT) || stat(list->source, &st) < 0)
		return false;
	if (!S_ISBLK(st.st_mode) && !(S_ISREG(st.st_mode) && o.loop))
		return false;
	for (size_t i = 0; i < o.ndata; i++)
		if (str_starts(o.data[i], "device=")) /* erofs: more disks */
			return false;
	res_opts_join(&o, NULL, &data);
	*d = (struct res_disk){
		.path = list->source,
		.fstype = guest,
		.read_only = (o.flags & MS_RDONLY) || !strcmp(guest, "erofs"),
		.options = buf_take_cstr(&data),
	};
	return true;
}

void res_disk_fini(struct res_disk *d)
{
	free(d->options);
	*d = (struct res_disk){ 0 };
}
