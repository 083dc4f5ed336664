#include "guest/agent/storage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"
#include "guest/agent/mount.h"
#include "guest/agent/slot.h"

typedef int ga_storage_fn(struct ga_storage *st, const Grpc__Storage *s, struct err *e);

/* ---- Parts the drivers share */

static int ga_storage_mkdir(const Grpc__Storage *s, struct err *e)
{
	return path_mkdirs(s->mount_point, 0755, e);
}

/* Mount the directory, or for a bind of a file the file, that mount_point names. */
static int ga_storage_mount(struct ga_storage *st, const Grpc__Storage *s, const char *type,
			    const char *source, struct err *e)
{
	if (ga_storage_mkdir(s, e) < 0 ||
	    ga_mount_at(type, source, s->mount_point, s->options, s->n_options, e) < 0)
		return e->code;
	st->is_mounted = true;
	return 0;
}

/* The value of "key=value" among driver options or options, NULL if there is none. */
static const char *ga_storage_option(char *const *options, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (str_starts(options[i], key) && options[i][strlen(key)] == '=')
			return options[i] + strlen(key) + 1;
	return NULL;
}

/* Bind slot K for this storage. */
static int ga_storage_bind_slot(struct ga_storage *st, int slot, struct err *e)
{
	bool was_bound;

	if (ga_slot_bind((unsigned)slot, &was_bound, e) < 0)
		return e->code;
	if (!was_bound)
		st->slot = slot;
	return 0;
}

/* Give everything below a directory to a group, never leaving its filesystem. */
static void ga_storage_own_tree(int dir_fd, dev_t dev, gid_t gid)
{
	DIR *d = fdopendir(dir_fd);
	struct dirent *ent;
	struct stat st;

	while (d && (ent = readdir(d))) {
		int fd = dirfd(d), sub;
		if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, "..") ||
		    fstatat(fd, ent->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != dev)
			continue;
		if (fchownat(fd, ent->d_name, (uid_t)-1, gid, AT_SYMLINK_NOFOLLOW) < 0 ||
		    S_ISLNK(st.st_mode))
			continue;
		fchmodat(fd, ent->d_name,
			 (st.st_mode & 07777) | (S_ISDIR(st.st_mode) ? S_ISGID | 0770 : 0660), 0);
		sub = S_ISDIR(st.st_mode) ? openat(fd, ent->d_name,
						   O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
					  : -1;
		if (sub >= 0)
			ga_storage_own_tree(sub, dev, gid);
	}
	if (d)
		closedir(d);
	else
		close(dir_fd);
}

/* Kubernetes' fsGroup: the volume belongs to a group, new files too. */
static int ga_storage_own(const Grpc__Storage *s, struct err *e)
{
	struct stat st;
	mode_t bits;
	int fd;

	if (!s->fs_group || stat(s->mount_point, &st) < 0)
		return 0;
	bits = S_ISDIR(st.st_mode) ? S_ISGID | 0770 : 0660;
	if (s->fs_group->group_change_policy == GRPC__FSGROUP_CHANGE_POLICY__OnRootMismatch &&
	    st.st_gid == s->fs_group->group_id && (st.st_mode & bits) == bits)
		return 0;
	if (chown(s->mount_point, (uid_t)-1, s->fs_group->group_id) < 0 ||
	    chmod(s->mount_point, (st.st_mode & 07777) | bits) < 0)
		return err_set(e, -errno, "fsGroup %u: %m", s->fs_group->group_id);
	fd = S_ISDIR(st.st_mode) ? open(s->mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0)
		ga_storage_own_tree(fd, st.st_dev, s->fs_group->group_id);
	return 0;
}

/* ---- Drivers */

/* A disk on the virtio-mmio bus: by node, or by slot that is bound here. */
static int ga_storage_block(struct ga_storage *st, const Grpc__Storage *s, struct err *e)
{
	int slot = ga_slot_parse(s->source);
	AUTO_FREE char *node = NULL;
	char name[64];
	struct stat sb;

	if (slot >= 0) {
		if (ga_storage_bind_slot(st, slot, e) < 0)
			return e->code;
		if (ga_slot_device((unsigned)slot, "block", name, sizeof name) < 0)
			return err_set(e, -EAGAIN, "slot %d has no disk", slot);
		node = mem_printf("/dev/%s", name);
	} else if (str_starts(s->source, "/dev/")) {
		node = mem_strdup(s->source);
	} else {
		return err_set(e, -EINVAL, "source \"%s\" is neither /dev/... nor slot:K",
			       s->source);
	}
	if (stat(node, &sb) < 0)
		return err_set(e, errno == ENOENT ? -EAGAIN : -errno, "%s: %m", node);
	if (!S_ISBLK(sb.st_mode))
		return err_set(e, -ENOTBLK, "%s is no block device", node);
	st->is_disk = true;
	return ga_storage_mount(st, s, s->fstype, node, e);
}

static int ga_storage_virtiofs(struct ga_storage *st, const Grpc__Storage *s, struct err *e)
{
	const char *slot = ga_storage_option(s->driver_options, s->n_driver_options, "slot");
	uint64_t k;

	if (slot &&
	    (str_u64(slot, 0, GA_SLOT_MAX, &k) < 0 || ga_storage_bind_slot(st, (int)k, e) < 0))
		return e->code < 0 ? e->code : err_set(e, -EINVAL, "slot=%s", slot);
	return ga_storage_mount(st, s, "virtiofs", s->source, e);
}

static int ga_storage_ephemeral(struct ga_storage *st, const Grpc__Storage *s, struct err *e)
{
	const char *type = *s->fstype ? s->fstype : s->source;

	if (strcmp(type, "tmpfs") && strcmp(type, "hugetlbfs"))
		return err_set(e, -EINVAL, "filesystem \"%s\" is neither tmpfs nor hugetlbfs",
			       type);
	return ga_storage_mount(st, s, type, type, e);
}

static int ga_storage_local(struct ga_storage *st, const Grpc__Storage *s, struct err *e)
{
	const char *mode = ga_storage_option(s->options, s->n_options, "mode");
	const char *gid = ga_storage_option(s->options, s->n_options, "fsgid");
	uint64_t g = 0;

	if (access(s->mount_point, F_OK) == 0)
		return 0;
	if (ga_storage_mkdir(s, e) < 0)
		return e->code;
	st->is_made = true;
	if (gid &&
	    (str_u64(gid, 0, UINT32_MAX, &g) < 0 || chown(s->mount_point, (uid_t)-1, (gid_t)g) < 0))
		return err_set(e, -EINVAL, "fsgid=%s", gid);
	/* After chown, which would take setgid away; without regard to our umask. */
	if (chmod(s->mount_point,
		  (mode ? (mode_t)strtoul(mode, NULL, 8) & 07777 : 0755) | (gid ? S_ISGID : 0)) < 0)
		return err_set(e, -errno, "mode: %m");
	return 0;
}

static int ga_storage_overlay(struct ga_storage *st, const Grpc__Storage *s, struct err *e)
{
	static const char *const dirs[] = { "upperdir", "workdir" };

	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		const char *dir = ga_storage_option(s->options, s->n_options, dirs[i]);
		if (dir && path_mkdirs(dir, 0755, e) < 0)
			return e->code;
	}
	return ga_storage_mount(st, s, "overlay", *s->source ? s->source : "overlay", e);
}

static int ga_storage_bind_path(struct ga_storage *st, const Grpc__Storage *s, const char *source,
				struct err *e)
{
	static char rbind[] = "rbind";
	AUTO_FREE char **options = mem_calloc(s->n_options + 1, sizeof *options);
	AUTO_CLOSE int target = -1, root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat sb;

	for (size_t i = 0; i < s->n_options; i++)
		options[i] = s->options[i];
	options[s->n_options] = rbind;
	if (stat(source, &sb) < 0)
		return err_set(e, -errno, "%s: %m", source);
	target = ga_mount_target(root, s->mount_point, S_ISDIR(sb.st_mode), e);
	if (target < 0 || ga_mount_at(NULL, source, s->mount_point, options, s->n_options + 1, e))
		return e->code;
	st->is_mounted = true;
	return 0;
}

static int ga_storage_bind(struct ga_storage *st, const Grpc__Storage *s, struct err *e)
{
	return ga_storage_bind_path(st, s, s->source, e);
}

/* A name at the top of the file system that the machine was booted with. */
static int ga_storage_share(struct ga_storage *st, const Grpc__Storage *s, struct err *e)
{
	AUTO_FREE char *source = mem_printf(GA_SHARE_DIR "/%s", s->source);

	if (!ga_container_id_is_valid(s->source))
		return err_set(e, -EINVAL, "source \"%.64s\" is not the name of a share", s->source);
	return ga_storage_bind_path(st, s, source, e);
}

static const struct {
	const char *name;
	ga_storage_fn *add;
} ga_storage_table[] = {
	{ "mmioblk", ga_storage_block },
	{ "nvdimm", ga_storage_block },
	{ "virtio-fs", ga_storage_virtiofs },
	{ "share", ga_storage_share },
	{ "ephemeral", ga_storage_ephemeral },
	{ "local", ga_storage_local },
	{ "overlayfs", ga_storage_overlay },
	{ "bind", ga_storage_bind },
	/* Kept fresh by copying elsewhere, for inotify(7)'s sake. A bind shows changes of the share
	 * as they are made, which is what config maps need. */
	{ "watchable-bind", ga_storage_bind },
};

const char *const *ga_storage_drivers(size_t *n)
{
	static const char *names[ARRAY_LEN(ga_storage_table)];

	for (size_t i = 0; i < ARRAY_LEN(ga_storage_table); i++)
		names[i] = ga_storage_table[i].name;
	*n = ARRAY_LEN(ga_storage_table);
	return names;
}

/* ---- Lists */

/* A container that is being made has a copy of our mounts for a moment: as long as that keeps the file
 * system mounted, unmounting ours writes nothing back. */
static void ga_storage_sync(const char *mount_point)
{
	AUTO_CLOSE int fd = open(mount_point, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		(void)!syncfs(fd);
}

static void ga_storage_undo(struct ga_storage *st)
{
	if (st->is_mounted && st->is_disk)
		ga_storage_sync(st->mount_point);
	if (st->is_mounted)
		ga_mount_undo(st->mount_point);
	if (st->is_made)
		path_remove_tree(st->mount_point);
	if (st->slot >= 0)
		ga_slot_unbind((unsigned)st->slot);
	free(st->mount_point);
	free(st);
}

static void ga_storage_put_shared(struct ga_agent *a, struct ga_storage *st)
{
	if (--st->users > 0)
		return;
	for (struct ga_storage **at = &a->sandbox.shared; *at; at = &(*at)->next) {
		if (*at == st) {
			*at = st->next;
			ga_storage_undo(st);
			return;
		}
	}
}

void ga_storage_remove_all(struct ga_agent *a, struct ga_storage **list)
{
	struct ga_storage *st;

	while ((st = *list)) {
		*list = st->next;
		if (st->shared)
			ga_storage_put_shared(a, st->shared);
		ga_storage_undo(st);
	}
}

static int ga_storage_make(struct ga_storage **out, const Grpc__Storage *s, struct err *e)
{
	struct ga_storage *st = mem_zalloc(sizeof *st);
	int r = -EOPNOTSUPP;

	st->slot = -1;
	st->mount_point = mem_strdup(s->mount_point);
	err_set(e, r, "no such storage driver");
	for (size_t i = 0; i < ARRAY_LEN(ga_storage_table); i++)
		if (!strcmp(ga_storage_table[i].name, s->driver))
			r = ga_storage_table[i].add(st, s, e);
	if (r == 0)
		r = ga_storage_own(s, e);
	if (r < 0) {
		ga_storage_undo(st);
		return r;
	}
	*out = st;
	return 0;
}

static struct ga_storage *ga_storage_find(struct ga_storage *list, const char *mount_point)
{
	for (; list; list = list->next)
		if (!strcmp(list->mount_point, mount_point))
			return list;
	return NULL;
}

static int ga_storage_add_shared(struct ga_agent *a, struct ga_storage **list,
				 const Grpc__Storage *s, struct err *e)
{
	struct ga_storage *shared = ga_storage_find(a->sandbox.shared, s->mount_point), *st;
	int r;

	if (!shared) {
		r = ga_storage_make(&shared, s, e);
		if (r < 0)
			return r;
		shared->next = a->sandbox.shared;
		a->sandbox.shared = shared;
	}
	shared->users++;
	st = mem_zalloc(sizeof *st);
	st->slot = -1;
	st->shared = shared;
	st->next = *list;
	*list = st;
	return 0;
}

int ga_storage_add(struct ga_agent *a, struct ga_storage **list, const Grpc__Storage *s,
		   struct err *e)
{
	struct ga_storage *st;
	int r;

	*e = (struct err){ 0 };
	if (s->mount_point[0] != '/' || strstr(s->mount_point, "/../"))
		return err_set(e, -EINVAL, "storage mount point \"%s\" is not absolute",
			       s->mount_point);
	if (s->shared) {
		r = ga_storage_add_shared(a, list, s, e);
	} else {
		r = ga_storage_make(&st, s, e);
		if (r == 0) {
			st->next = *list;
			*list = st;
		}
	}
	if (r < 0)
		err_wrap(e, "storage %s for %s", s->driver, s->mount_point);
	return r;
}
