#include "amalgam/shim/address.h"

#include <bearssl.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"

#define ADDRESS_SCHEME  "unix://"
#define ADDRESS_BACKLOG 128

int address_make(char out[ADDRESS_MAX], const char *dir, const char *containerd, const char *ns,
		 const char *id, struct err *e)
{
	AUTO_FREE char *name = NULL;
	br_sha256_context sha;
	uint8_t hash[br_sha256_SIZE];
	int n;

	if (str_starts(containerd, ADDRESS_SCHEME))
		containerd += strlen(ADDRESS_SCHEME);
	name = mem_printf("%s/%s/%s", containerd, ns, id);
	br_sha256_init(&sha);
	br_sha256_update(&sha, name, strlen(name));
	br_sha256_out(&sha, hash);
	n = snprintf(out, ADDRESS_MAX, "%s/", dir ? dir : ADDRESS_DIR);
	if (n < 0 || (size_t)n + 2 * sizeof hash >= ADDRESS_MAX)
		return err_set(e, -ENAMETOOLONG, "%s: too long for a socket's directory", dir);
	for (unsigned i = 0; i < sizeof hash; i++)
		sprintf(out + n + 2 * i, "%02x", hash[i]);
	return 0;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	return a;
}

int address_connect(const char *path)
{
	struct sockaddr_un a = address_of(path);
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
		return -errno;
	return take_fd(&fd);
}

/* Nobody connects between bind(2) and chmod(2): there is no listen(2) yet. */
static int address_bind(const char *path)
{
	struct sockaddr_un a = address_of(path);
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(path, 0600) < 0 ||
	    listen(fd, ADDRESS_BACKLOG) < 0)
		return -errno;
	return take_fd(&fd);
}

static bool address_answers(const char *path)
{
	AUTO_CLOSE int fd = address_connect(path);

	return fd >= 0;
}

int address_listen(const char *path, bool *taken, struct err *e)
{
	AUTO_FREE char *dir = mem_strdup(path);
	AUTO_CLOSE int lock = -1;
	int fd;

	*taken = false;
	*strrchr(dir, '/') = '\0';
	if (path_mkdirs(dir, 0700, e) < 0)
		return e->code;
	/* Two `start` for one pod at once: the second must not take the socket that the first has bound
	 * and not yet listens on for a dead one. */
	lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return err_set(e, -errno, "%s: %m", dir);
	fd = address_bind(path);
	if (fd == -EADDRINUSE && address_answers(path)) {
		*taken = true;
		return 0;
	}
	if (fd == -EADDRINUSE && unlink(path) == 0)
		fd = address_bind(path);
	return fd < 0 ? err_set(e, fd, "%s: %s", path, strerror(-fd)) : fd;
}

int address_write(const char *bundle, const char *path, struct err *e)
{
	AUTO_FREE char *file = mem_printf("%s/address", bundle);
	AUTO_FREE char *text = mem_printf(ADDRESS_SCHEME "%s", path);

	return path_replace(file, text, strlen(text), 0600, e);
}
