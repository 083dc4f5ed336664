#include "guest/agent/resume.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <time.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "guest/agent/boot.h"
#include "guest/agent/mount.h"
#include "guest/agent/slot.h"

#define GA_RESUME_MIN_ENTROPY 32
#define GA_RESUME_MAX_ENTROPY 4096
#define GA_RESUME_MACHINE_ID  GA_STATE_DIR "/machine-id"

/* random(4). RNDADDENTROPY mixes and credits in one call, so no other writer's bytes can be
 * credited for ours. RNDRESEEDCRNG then makes every CPU's generator start from the pool: without it
 * getrandom(2) would go on with the key all clones share for up to a minute. */
int ga_resume_entropy(const uint8_t *data, size_t n, struct err *e)
{
	AUTO_CLOSE int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	AUTO_FREE struct rand_pool_info *pool = NULL;

	if (n == 0 || n > GA_RESUME_MAX_ENTROPY)
		return err_set(e, -EINVAL, "entropy: %zu bytes, not 1 to %d", n,
			       GA_RESUME_MAX_ENTROPY);
	if (fd < 0)
		return err_set(e, -errno, "/dev/urandom: %m");
	pool = mem_zalloc(sizeof *pool + n);
	pool->entropy_count = (int)n * 8;
	pool->buf_size = (int)n;
	memcpy(pool->buf, data, n);
	if (ioctl(fd, RNDADDENTROPY, pool) < 0)
		return err_set(e, -errno, "add entropy: %m");
	if (ioctl(fd, RNDRESEEDCRNG) < 0)
		return err_set(e, -errno, "reseed the random number generator: %m");
	explicit_bzero(pool, sizeof *pool + n);
	return 0;
}

int ga_resume_clock(int64_t sec, int64_t nsec, struct err *e)
{
	struct timespec ts = { .tv_sec = (time_t)sec, .tv_nsec = (long)nsec };

	if (clock_settime(CLOCK_REALTIME, &ts) < 0)
		return err_set(e, -errno, "set the clock: %m");
	return 0;
}

static bool ga_resume_is_machine_id(const char *s)
{
	return strspn(s, "0123456789abcdef") == 32 && s[32] == '\0';
}

/* The root is read-only: the file lies on tmpfs and is bound over the empty one. The kernel's
 * boot_id needs nothing. It is made when first read, and the agent never reads it: in a clone that
 * is after the reseed. */
int ga_resume_prepare(struct err *e)
{
	static char bind[] = "bind";
	char *options[] = { bind };

	if (path_replace(GA_RESUME_MACHINE_ID, "", 0, 0444, e) < 0)
		return e->code;
	if (access("/etc/machine-id", F_OK) < 0)
		return 0;
	return ga_mount_at(NULL, GA_RESUME_MACHINE_ID, "/etc/machine-id", options, 1, e);
}

void ga_resume_unbind(void)
{
	umount2("/etc/machine-id", MNT_DETACH);
}

static int ga_resume_machine_id(const char *id, struct err *e)
{
	char line[40];
	int r;

	if (!ga_resume_is_machine_id(id))
		return err_set(e, -EINVAL, "machine id \"%.40s\" is not 32 hex digits", id);
	snprintf(line, sizeof line, "%s\n", id);
	r = path_put(GA_RESUME_MACHINE_ID, line);
	return r < 0 ? err_set(e, r, GA_RESUME_MACHINE_ID ": %s", strerror(-r)) : 0;
}

int ga_resume_apply(const Grpc__SporeClone *s, struct err *e)
{
	if (s->is_clone && s->entropy.len < GA_RESUME_MIN_ENTROPY)
		return err_set(e, -EIO, "a clone needs %d bytes of entropy, got %zu",
			       GA_RESUME_MIN_ENTROPY, s->entropy.len);
	if (s->entropy.len && ga_resume_entropy(s->entropy.data, s->entropy.len, e) < 0) {
		e->code = -EIO;
		return e->code;
	}
	if (s->wall_time_ns && ga_resume_clock(s->wall_time_ns / (int64_t)NS_PER_S,
					       s->wall_time_ns % (int64_t)NS_PER_S, e) < 0)
		return e->code;
	if (*s->machine_id && ga_resume_machine_id(s->machine_id, e) < 0)
		return e->code;
	for (size_t i = 0; i < s->n_bind_slots; i++) {
		bool was_bound;
		if (ga_slot_bind(s->bind_slots[i], &was_bound, e) < 0)
			return e->code;
	}
	return 0;
}
