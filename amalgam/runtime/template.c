#include "amalgam/runtime/template.h"

#include <bearssl.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "amalgam/config/config.h"
#include "amalgam/runtime/sandbox.h"
#include "amalgam/wire/json.h"
#include "build_id.h"

#define TEMPLATE_LOCK     "/run/spore/template.lock"
#define TEMPLATE_TMPFS    0x01021994 /* TMPFS_MAGIC */
#define TEMPLATE_SLACK_MIB 64        /* state, and room for the guest's growth while it is saved */
#define TEMPLATE_JSON_MAX 65536

/* What every guest of ours boots with. Reasons, one each:
 *   console=ttyS0 loglevel=4      only warnings reach the slow serial port
 *   panic=-1 reboot=k,panic_warm  a panic ends the machine at once, and tells itself apart (vcpu.c)
 *   maxcpus=1                     the others are parked; the agent brings them online
 *   tsc=reliable no_timer_check   there is no PIT to calibrate or test against
 *   random.trust_cpu=on           the pool is ready at once; a clone is reseeded in any case
 *   agent.log=warn                each byte on the serial port is an exit: 13 us of a clone's start */
#define TEMPLATE_CMDLINE                                                                    \
	"console=ttyS0 loglevel=4 panic=-1 reboot=k,panic_warm maxcpus=1 tsc=reliable "      \
	"no_timer_check random.trust_cpu=on agent.log=warn"

/* --- description ----------------------------------------------------------------------------------- */

static int template_cmdline(const struct machine_shape *shape, char out[LAYOUT_CMDLINE_MAX],
			    struct err *e)
{
	AUTO_BUF struct buf b = { 0 };

	buf_add_str(&b, TEMPLATE_CMDLINE);
	for (unsigned i = 0; i < LAYOUT_SLOTS; i++)
		buf_printf(&b, " virtio_mmio.device=4K@0x%llx:%u",
			   (unsigned long long)(LAYOUT_SLOT_BASE + i * LAYOUT_SLOT_BYTES),
			   LAYOUT_SLOT_GSI + i);
	if (shape->kernel_params && *shape->kernel_params)
		buf_printf(&b, " %s", shape->kernel_params);
	if (b.len >= LAYOUT_CMDLINE_MAX)
		return err_set(e, -E2BIG, "kernel_params: too long by %zu bytes; shorten them",
			       b.len - LAYOUT_CMDLINE_MAX + 1);
	memcpy(out, buf_cstr(&b), b.len + 1);
	return 0;
}

static int template_fingerprint(struct ctl_create *c, const struct machine_shape *shape, int kvm_fd,
				struct err *e)
{
	AUTO_BUF struct buf in = { 0 };
	br_sha256_context sha;
	int r = vmm_host_identity(kvm_fd, &in, e);

	if (r < 0)
		return r;
	/* The build names kernel, agent, VMM and our part of the command line. */
	buf_add_str(&in, SPORE_BUILD_ID);
	buf_le64(&in, c->mem_bytes);
	buf_le32(&in, c->max_vcpus);
	buf_add_str(&in, shape->kernel_params ? shape->kernel_params : "");
	br_sha256_init(&sha);
	br_sha256_update(&sha, in.data, in.len);
	br_sha256_out(&sha, c->fingerprint);
	return 0;
}

int template_describe(const struct machine_shape *shape, int kvm_fd, struct ctl_create *out,
		      struct err *e)
{
	int r;

	*out = (struct ctl_create){ .mem_bytes = MIB(shape->mem_mib), .vcpus = shape->vcpus,
				    .max_vcpus = shape->max_vcpus, .seed = clock_wall_ns() };
	if ((r = template_cmdline(shape, out->cmdline, e)) < 0)
		return r;
	return template_fingerprint(out, shape, kvm_fd, e);
}

static char *template_path(const uint8_t fingerprint[CTL_FINGERPRINT])
{
	char hex[2 * CTL_FINGERPRINT + 1];

	for (unsigned i = 0; i < CTL_FINGERPRINT; i++)
		sprintf(hex + 2 * i, "%02x", fingerprint[i]);
	return mem_printf("%s/%s", TEMPLATE_DIR, hex);
}

/* --- use ----------------------------------------------------------------------------------------- */

void template_close(struct template_files *t)
{
	int *fds[] = { &t->memory_fd, &t->state_fd, &t->warm_fd };

	for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
}

static int template_open_file(const char *dir, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/%s", dir, name);

	return open(path, O_RDONLY | O_CLOEXEC);
}

static void template_open_dir(const char *dir, struct template_files *out)
{
	out->state_fd = template_open_file(dir, "state");
	out->memory_fd = template_open_file(dir, "memory");
	out->warm_fd = template_open_file(dir, "warm");
}

int template_open(const uint8_t fingerprint[CTL_FINGERPRINT], struct template_files *out,
		  struct err *e)
{
	AUTO_FREE char *dir = template_path(fingerprint);
	bool no_state, no_memory;

	template_open_dir(dir, out);
	no_state = out->state_fd < 0;
	no_memory = out->memory_fd < 0;
	if (!no_state && !no_memory)
		return 0;
	template_close(out);
	if (no_state && no_memory)
		return err_set(e, -ENOENT, "no template for this build, CPU and machine shape; make "
			       "one with: spore factory init");
	return err_set(e, -ESTALE, "template is incomplete: %s is missing; make it anew with: spore "
		       "factory init", no_state ? "state" : "memory");
}

static void template_read_info(const char *dir, struct template_info *info)
{
	AUTO_FREE char *path = mem_printf("%s/%s/template.json", TEMPLATE_DIR, dir);
	AUTO_FREE char *memory = mem_printf("%s/%s/memory", TEMPLATE_DIR, dir);
	AUTO_BUF struct buf b = { 0 };
	AUTO_JSON struct json_doc doc = { 0 };
	struct stat st;

	*info = (struct template_info){ 0 };
	snprintf(info->fingerprint, sizeof info->fingerprint, "%s", dir);
	if (stat(memory, &st) == 0)
		info->held_bytes = (uint64_t)st.st_blocks * 512;
	if (path_read(path, TEMPLATE_JSON_MAX, &b, NULL) == 0 &&
	    json_parse(&doc, b.data, b.len, NULL) == 0 &&
	    (json_u64(json_get(doc.root, "memory_mib"), 0, UINT32_MAX, &info->mem_mib, NULL) < 0 ||
	     json_u64(json_get(doc.root, "created_ns"), 0, UINT64_MAX, &info->created_ns, NULL) < 0))
		info->mem_mib = 0;
}

int template_list(struct template_info *out, int max)
{
	DIR *d = opendir(TEMPLATE_DIR);
	struct dirent *ent;
	int n = 0;

	while (d && (ent = readdir(d))) {
		if (ent->d_name[0] == '.' || strlen(ent->d_name) != 2 * CTL_FINGERPRINT)
			continue;
		if (n < max)
			template_read_info(ent->d_name, &out[n]);
		n++;
	}
	if (d)
		closedir(d);
	return n;
}

/* --- make ----------------------------------------------------------------------------------------- */

static int template_lock(struct err *e)
{
	int fd, r;

	if ((r = path_mkdirs("/run/spore", 0711, e)) < 0)
		return r;
	fd = open(TEMPLATE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(e, -errno, "%s: %m", TEMPLATE_LOCK);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR) {
			r = err_set(e, -errno, "%s: %m", TEMPLATE_LOCK);
			close(fd);
			return r;
		}
	return fd;
}

static bool template_is_mounted(void)
{
	struct statfs fs;
	struct stat here, up;

	return statfs(TEMPLATE_DIR, &fs) == 0 && fs.f_type == TEMPLATE_TMPFS &&
	       stat(TEMPLATE_DIR, &here) == 0 && stat(TEMPLATE_DIR "/..", &up) == 0 &&
	       here.st_dev != up.st_dev;
}

/* A tmpfs of our own, with room for one more template of mem_mib. */
static int template_mount(uint64_t mem_mib, struct err *e)
{
	bool mounted = template_is_mounted();
	struct statvfs fs;
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | (mounted ? MS_REMOUNT : 0);
	char options[80];
	uint64_t used = 0;
	int r;

	if ((r = path_mkdirs(TEMPLATE_DIR, 0700, e)) < 0)
		return r;
	if (mounted && statvfs(TEMPLATE_DIR, &fs) == 0)
		used = (fs.f_blocks - fs.f_bfree) * fs.f_frsize >> 20;
	/* huge=advise: for the parts gmem_huge() names; not every kernel has it. */
	snprintf(options, sizeof options, "mode=0700,size=%lluM%s",
		 (unsigned long long)(used + mem_mib + TEMPLATE_SLACK_MIB), ",huge=advise");
	if (mount("spore", TEMPLATE_DIR, "tmpfs", flags, options) == 0)
		return 0;
	*strstr(options, ",huge") = '\0';
	if (mount("spore", TEMPLATE_DIR, "tmpfs", flags, options) < 0)
		return err_set(e, -errno, "%s: mount tmpfs: %m", TEMPLATE_DIR);
	return 0;
}

/* What builders that were killed left. The lock is held, so nobody is using them. */
static void template_clear_leftovers(void)
{
	DIR *d = opendir(TEMPLATE_DIR);
	struct dirent *ent;

	while (d && (ent = readdir(d))) {
		if (!str_starts(ent->d_name, ".build-"))
			continue;
		AUTO_FREE char *path = mem_printf("%s/%s", TEMPLATE_DIR, ent->d_name);
		path_remove_tree(path);
	}
	if (d)
		closedir(d);
}

static int template_create_file(const char *dir, const char *name, uint64_t bytes, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/%s", dir, name);
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0400);

	if (fd < 0)
		return err_set(e, -errno, "%s: %m", path);
	if (bytes && ftruncate(fd, (off_t)bytes) < 0)
		return err_set(e, -errno, "%s: %m", path);
	return take_fd(&fd);
}

static int template_write_json(const char *dir, const struct ctl_create *c, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/template.json", dir);
	AUTO_BUF struct buf b = { 0 };

	buf_printf(&b, "{\n  \"build\": \"%s\",\n  \"memory_mib\": %llu,\n  \"max_vcpus\": %u,\n"
		   "  \"created_ns\": %llu,\n  \"cmdline\": ", SPORE_BUILD_ID,
		   (unsigned long long)(c->mem_bytes >> 20), c->max_vcpus,
		   (unsigned long long)clock_wall_ns());
	str_json(&b, c->cmdline);
	buf_add_str(&b, "\n}\n");
	return path_replace(path, b.data, b.len, 0400, e);
}

/* Boot, settle, pause, save. The sandbox is stopped by the caller. */
static int template_boot_and_save(struct sandbox *s, const char *dir, const struct ctl_create *c,
				  int kvm_fd, int console_fd, struct err *e)
{
	AUTO_CLOSE int memory = template_create_file(dir, "memory", c->mem_bytes, e);
	AUTO_CLOSE int state = memory < 0 ? -1 : template_create_file(dir, "state", 0, e);
	struct loop loop;
	int r;

	if (memory < 0 || state < 0)
		return e->code;
	if ((r = loop_init(&loop)) < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	r = sandbox_boot_for_template(s, &loop, c, kvm_fd, console_fd, memory, e);
	if (r == 0 && (r = hv_pause(&s->vm, e)) == 0)
		r = hv_save(&s->vm, state, -1, e);
	sandbox_stop(s);
	loop_fini(&loop);
	return r;
}

/* A first clone, which nobody will see: a template that cannot be cloned is not published, and what
 * this clone wrote until it was a machine of its own, the others will write, too. */
static int template_try(const char *dir, const struct machine_shape *shape, int kvm_fd,
			int console_fd, struct err *e)
{
	AUTO_CLOSE int warm = template_create_file(dir, "warm", 0, e);
	struct template_files files;
	struct sandbox_spec spec = { .id = "template", .shape = *shape, .from = &files, .track = true,
				     .kvm_fd = kvm_fd, .console_fd = console_fd, .listen_fd = -1 };
	struct sandbox s = { 0 };
	struct loop loop;
	int r;

	if (warm < 0)
		return warm;
	if ((r = loop_init(&loop)) < 0)
		return err_set(e, r, "event loop: %s", strerror(-r));
	template_open_dir(dir, &files);
	r = sandbox_start(&s, &loop, &spec, NULL, e);
	if (r == 0 && (r = hv_pause(&s.vm, e)) == 0)
		r = hv_changed(&s.vm, warm, e);
	sandbox_stop(&s);
	template_close(&files);
	loop_fini(&loop);
	return r < 0 ? err_wrap(e, "trying the new template") : 0;
}

/* A guest that touches a page which a full tmpfs cannot give kills the machine process with SIGBUS:
 * say what really happened. */
static int template_explain(int r, struct err *e)
{
	struct statvfs fs;

	if (statvfs(TEMPLATE_DIR, &fs) == 0 && fs.f_bfree == 0)
		return err_set(e, -ENOSPC, "%s is full; free memory, or remove old templates with: spore "
			       "factory destroy", TEMPLATE_DIR);
	return r;
}

static int template_build(const struct ctl_create *c, const struct machine_shape *shape, int kvm_fd,
			  struct err *e)
{
	AUTO_FREE char *dir = mem_printf("%s/.build-%d", TEMPLATE_DIR, getpid());
	AUTO_FREE char *final = template_path(c->fingerprint);
	AUTO_CLOSE int console = open("/run/spore/template.log",
				      O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	struct sandbox s = { 0 };
	int r;

	if (console < 0)
		return err_set(e, -errno, "/run/spore/template.log: %m");
	if (mkdir(dir, 0700) < 0)
		return err_set(e, -errno, "%s: %m", dir);
	r = template_boot_and_save(&s, dir, c, kvm_fd, console, e);
	if (r == 0)
		r = template_try(dir, shape, kvm_fd, console, e);
	if (r == 0)
		r = template_write_json(dir, c, e);
	if (r == 0) {
		path_remove_tree(final); /* an incomplete one, or it would have been used */
		if (rename(dir, final) < 0)
			r = err_set(e, -errno, "%s: %m", final);
	}
	if (r < 0) {
		r = template_explain(r, e);
		path_remove_tree(dir);
	}
	return r;
}

int template_init(const struct machine_shape *shape, int kvm_fd, bool *made, struct err *e)
{
	struct machine_shape one = *shape;
	struct template_files tf;
	struct ctl_create c;
	int r;

	one.vcpus = 1; /* the others are created by the clones that want them */
	*made = false;
	if ((r = vmm_selftest(kvm_fd, e)) < 0 || (r = template_describe(&one, kvm_fd, &c, e)) < 0)
		return r;
	AUTO_CLOSE int lock = template_lock(e);
	if (lock < 0)
		return lock;
	if (template_open(c.fingerprint, &tf, NULL) == 0) {
		template_close(&tf);
		return 0;
	}
	if ((r = template_mount(shape->mem_mib, e)) < 0)
		return r;
	template_clear_leftovers();
	r = template_build(&c, &one, kvm_fd, e);
	*made = r == 0;
	return r;
}

int template_destroy(struct err *e)
{
	AUTO_CLOSE int lock = template_lock(e);

	if (lock < 0)
		return lock;
	while (template_is_mounted())
		if (umount2(TEMPLATE_DIR, MNT_DETACH) < 0)
			return err_set(e, -errno, "%s: unmount: %m", TEMPLATE_DIR);
	if (rmdir(TEMPLATE_DIR) < 0 && errno != ENOENT)
		return err_set(e, -errno, "%s: %m", TEMPLATE_DIR);
	return 0;
}

struct machine_shape template_default_shape(const struct config *c)
{
	unsigned host = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	unsigned max = c->default_maxvcpus ? (unsigned)c->default_maxvcpus : MAX(host, 8u);

	return (struct machine_shape){
		.mem_mib = (uint64_t)c->default_memory,
		.vcpus = (unsigned)c->default_vcpus,
		.max_vcpus = MIN(MAX(max, (unsigned)c->default_vcpus), (unsigned)LAYOUT_MAX_VCPUS),
		.kernel_params = c->kernel_params,
	};
}
