#include "amalgam/shim/stdio.h"

#include <fcntl.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"

static void shim_stdio_shut(int *fd)
{
	if (*fd >= 0)
		close(take_fd(fd));
}

void shim_stdio_drop_ours(struct shim_stdio *io)
{
	shim_stdio_shut(&io->in_fd);
	shim_stdio_shut(&io->out_fd);
	shim_stdio_shut(&io->err_fd);
}

void shim_stdio_close_in(struct shim_stdio *io)
{
	shim_stdio_shut(&io->in_keep_fd);
}

bool shim_stdio_close(struct shim_stdio *io, shim_logger_over_fn *over, void *arg)
{
	shim_stdio_drop_ours(io);
	shim_stdio_close_in(io);
	return shim_logger_end(&io->logger, over, arg);
}

void shim_stdio_fini(struct shim_stdio *io)
{
	shim_stdio_drop_ours(io);
	shim_stdio_close_in(io);
	shim_logger_fini(&io->logger);
}

/* --- paths ------------------------------------------------------------------------------------ */

/* A descriptor for what lies at the path, good for looking (stat in *st) and for opening it. */
static int shim_stdio_find(const char *path, struct stat *st, struct err *e)
{
	AUTO_CLOSE int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0 || fstat(fd, st) < 0)
		return err_set(e, -errno, "%s: %m", path);
	return take_fd(&fd);
}

/* Open what shim_stdio_find() found. */
static int shim_stdio_reopen(int found, const char *path, int flags, struct err *e)
{
	char link[64];
	int fd;

	snprintf(link, sizeof link, "/proc/self/fd/%d", found);
	fd = open(link, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? err_set(e, -errno, "%s: %m", path) : fd;
}

static int shim_stdio_open_in(struct shim_stdio *io, const char *path, struct err *e)
{
	struct stat st;
	AUTO_CLOSE int found = shim_stdio_find(path, &st, e);

	if (found < 0)
		return e->code;
	if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode))
		return err_set(e, -EINVAL, "%s: neither a fifo nor a device", path);
	io->in_fd = shim_stdio_reopen(found, path, O_RDONLY, e);
	if (io->in_fd < 0)
		return io->in_fd;
	if (S_ISCHR(st.st_mode))
		return 0;
	io->in_keep_fd = shim_stdio_reopen(found, path, O_WRONLY, e); /* no ENXIO: there is a reader */
	return MIN(io->in_keep_fd, 0);
}

static int shim_stdio_open_out(int *fd, const char *path, struct err *e)
{
	struct stat st;
	AUTO_CLOSE int found = shim_stdio_find(path, &st, e);

	if (found < 0)
		return e->code;
	if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s: neither a fifo nor a file nor a device", path);
	*fd = shim_stdio_reopen(found, path,
				S_ISFIFO(st.st_mode) ? O_RDWR : O_WRONLY | O_APPEND, e);
	return MIN(*fd, 0);
}

/* --- where output goes ------------------------------------------------------------------------ */

static int shim_stdio_open_file(struct shim_stdio *io, const char *path, bool terminal, struct err *e)
{
	const char *slash = strrchr(path, '/'); /* there is one: the path is absolute */
	AUTO_FREE char *dir = mem_strndup(path, (size_t)(slash - path) + 1);

	if (path_mkdirs(dir, 0755, e) < 0)
		return e->code;
	io->out_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0644);
	if (io->out_fd >= 0 && !terminal)
		io->err_fd = fcntl(io->out_fd, F_DUPFD_CLOEXEC, 0);
	if (io->out_fd < 0 || (io->err_fd < 0 && !terminal))
		return err_set(e, -errno, "%s: %m", path);
	return 0;
}

static int shim_stdio_open_fifos(struct shim_stdio *io, const char *out, const struct shim_stdio_spec *s,
				 struct err *e)
{
	struct shim_uri u;
	int r = 0;

	if (out && shim_stdio_open_out(&io->out_fd, out, e) < 0)
		return e->code;
	if (s->terminal || !s->err || !*s->err)
		return 0;
	r = shim_uri_parse(&u, s->err, e);
	if (r == 0 && u.kind != SHIM_URI_FIFO)
		r = err_set(e, -EINVAL, "%.200s: stderr alone cannot go there", s->err);
	if (r == 0)
		r = shim_stdio_open_out(&io->err_fd, u.path, e);
	shim_uri_fini(&u);
	return r;
}

/* What stdout says decides for both, as in the runc shim. */
static int shim_stdio_open_outputs(struct shim_stdio *io, const struct shim_stdio_spec *s,
				   shim_logger_ready_fn *ready, void *arg, struct err *e)
{
	struct shim_uri u;
	const struct shim_logger_spec logger = { .uri = &u, .bundle = s->bundle, .id = s->id,
						 .ns = s->ns, .terminal = s->terminal };
	int r = shim_uri_parse(&u, s->out ? s->out : "", e), out[2] = { -1, -1 };

	if (r == 0 && u.kind == SHIM_URI_FILE) {
		r = shim_stdio_open_file(io, u.path, s->terminal, e);
	} else if (r == 0 && (u.kind == SHIM_URI_BINARY || u.kind == SHIM_URI_BINARY_V2)) {
		r = shim_logger_start(&io->logger, &logger, out, ready, arg, e);
		if (r == 0) {
			io->out_fd = out[0];
			io->err_fd = out[1];
			r = 1;
		}
	} else if (r == 0) {
		r = shim_stdio_open_fifos(io, u.path, s, e);
	}
	shim_uri_fini(&u);
	return r;
}

void shim_stdio_init(struct shim_stdio *io, struct loop *l)
{
	*io = (struct shim_stdio){ .in_fd = -1, .in_keep_fd = -1, .out_fd = -1, .err_fd = -1 };
	shim_logger_init(&io->logger, l);
}

int shim_stdio_open(struct shim_stdio *io, struct loop *l,
				const struct shim_stdio_spec *s, shim_logger_ready_fn *ready,
				void *arg, struct err *e)
{
	struct shim_uri u;
	int r;

	shim_stdio_init(io, l);
	r = shim_uri_parse(&u, s->in ? s->in : "", e);
	if (r == 0 && u.kind != SHIM_URI_FIFO && u.kind != SHIM_URI_NONE)
		r = err_set(e, -EINVAL, "%.200s: stdin cannot come from there", s->in);
	if (r == 0 && u.path)
		r = shim_stdio_open_in(io, u.path, e);
	shim_uri_fini(&u);
	if (r == 0) /* last, since it may start a logger */
		r = shim_stdio_open_outputs(io, s, ready, arg, e);
	if (r < 0)
		shim_stdio_fini(io);
	return r;
}
