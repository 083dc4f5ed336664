#include "amalgam/runtime/binds.h"

#include <fcntl.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"
#include "amalgam/resource/share.h"

int binds_add(struct binds *b, const char *name, int fd, unsigned flags, struct err *e)
{
	if (b->n == BINDS_MAX) {
		close(fd);
		return err_set(e, -E2BIG, "more than %d directories and files of the host", BINDS_MAX);
	}
	snprintf(b->name[b->n], sizeof b->name[b->n], "%s", name);
	b->share[b->n] = (struct sandbox_share){ .name = b->name[b->n], .fd = fd, .flags = flags };
	b->n++;
	return 0;
}

static bool binds_has_option(const Grpc__Mount *m, const char *name)
{
	for (size_t i = 0; i < m->n_options; i++)
		if (!strcmp(m->options[i], name))
			return true;
	return false;
}

static bool binds_is_guests(const char *path)
{
	static const char *const roots[] = { "/proc", "/sys", "/dev" };

	for (unsigned i = 0; i < ARRAY_LEN(roots); i++) {
		size_t n = strlen(roots[i]);
		if (str_starts(path, roots[i]) && (path[n] == '/' || path[n] == '\0'))
			return true;
	}
	return false;
}

static int binds_mount(struct binds *b, Grpc__Mount *m, const char *dir, const char *prefix,
		       struct err *e)
{
	bool ro = binds_has_option(m, "ro") || binds_has_option(m, "rro");
	bool recursive = binds_has_option(m, "rbind");
	AUTO_FREE char *path = *m->source == '/' ? mem_strdup(m->source) :
						   mem_printf("%s/%s", dir, m->source);
	char name[CTL_SHARE_NAME];
	int fd;

	fd = share_open(AT_FDCWD, path,
			(ro ? SHARE_READONLY : 0) | (recursive ? SHARE_RECURSIVE : 0), e);
	if (fd < 0)
		return err_wrap(e, "mount on %s: source %s", m->destination, path);
	snprintf(name, sizeof name, "%.32s-%u", prefix, b->n);
	if (binds_add(b, name, fd, ro ? CTL_F_SHARE_READONLY : 0, e) < 0)
		return err_wrap(e, "mount on %s", m->destination);
	free(m->source);
	m->source = mem_printf(GUEST_SHARE_DIR "/%s", name);
	return 0;
}

int binds_of_spec(struct binds *b, Grpc__Spec *spec, const char *dir, const char *prefix,
		  struct err *e)
{
	for (size_t i = 0; i < spec->n_mounts; i++) {
		Grpc__Mount *m = spec->mounts[i];
		bool bind = !strcmp(m->type, "bind") || !strcmp(m->type, "rbind") ||
			    binds_has_option(m, "bind") || binds_has_option(m, "rbind");
		int r;
		if (!bind || !*m->source || binds_is_guests(m->source))
			continue;
		if ((r = binds_mount(b, m, dir, prefix, e)) < 0)
			return r;
	}
	return 0;
}

ONLY_TESTED void binds_close(struct binds *b)
{
	for (unsigned i = 0; i < b->n; i++)
		close(b->share[i].fd);
	b->n = 0;
}
