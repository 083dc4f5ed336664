#include "amalgam/runtime/container.h"

#include "amalgam/base/clock.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"

#define CONTAINER_COOKIE 16 /* + stream number */
#define CONTAINER_ROOTFS "/run/kata-containers/%s/rootfs"

const char *container_detect_fs(int fd, const char *name, struct err *e)
{
	static const struct {
		const char *fstype;
		off_t at;
		uint8_t magic[4];
		size_t n;
	} rows[] = {
		{ "ext4", 1024 + 56, { 0x53, 0xef }, 2 },
		{ "erofs", 1024, { 0xe2, 0xe1, 0xf5, 0xe0 }, 4 },
	};
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		uint8_t got[4];
		if (fd_pread_full(fd, got, rows[i].n, rows[i].at) == 0 &&
		    memcmp(got, rows[i].magic, rows[i].n) == 0)
			return rows[i].fstype;
	}
	err_set(e, -EINVAL, "%s: no ext4 or erofs filesystem in it; make one with: mke2fs -t ext4 -d "
		"DIRECTORY IMAGE SIZE", name);
	return NULL;
}

/* --- life ------------------------------------------------------------------------------------------ */

bool container_is_over(const struct container *c)
{
	return c->exited && c->open_outputs == 0;
}

static void container_settle(struct container *c)
{
	if (container_is_over(c) && c->done)
		c->done(c->arg);
}

static void container_on_exit(void *arg, int code)
{
	struct container *c = arg;

	if (c->exited)
		return;
	c->exited = true;
	c->code = code < 0 ? 137 : code;
	c->lost = code < 0;
	c->sandbox->t.exit = clock_mono_ns();
	container_settle(c);
}

void container_on_stream(struct container *c, uint64_t cookie, enum hv_stream_event ev)
{
	struct sandbox_times *t = &c->sandbox->t;

	if (ev == HV_STREAM_FIRST && !t->first_output)
		t->first_output = clock_mono_ns();
	/* Only output streams hold the end up: nobody reads input any more once the process is gone. */
	if (ev != HV_STREAM_CLOSED || cookie <= CONTAINER_COOKIE || cookie > CONTAINER_COOKIE + 2)
		return;
	if (c->open_outputs)
		c->open_outputs--;
	container_settle(c);
}

void container_on_gone(struct container *c)
{
	c->open_outputs = 0;
	if (c->exited)
		container_settle(c);
	else
		container_on_exit(c, -ECONNRESET);
}

static int container_connect(struct container *c, const struct container_stdio *io, struct err *e)
{
	const struct {
		int in, out;
	} ends[3] = {
		{ io->in, -1 },
		{ -1, io->out },
		{ -1, io->terminal ? -1 : io->err },
	};
	for (unsigned i = 0; i < ARRAY_LEN(ends); i++) {
		int r;
		if (ends[i].in < 0 && ends[i].out < 0)
			continue;
		r = hv_connect(&c->sandbox->vm, AGENT_PORT_STREAM, ends[i].in, ends[i].out,
			       i == 1, CONTAINER_COOKIE + i, &c->ports[i], e);
		if (r < 0)
			return err_wrap(e, "standard stream %u", i);
		c->open_outputs += ends[i].out >= 0;
	}
	return 0;
}

/* What the agent is to mount as the root; source is room for its name. */
static void container_storage(Grpc__Storage *st, const struct container_rootfs *rootfs, char **options,
			      char source[32])
{
	static char ro[] = "ro", rw[] = "rw";

	snprintf(source, 32, "slot:%u", rootfs->slot);
	options[0] = rootfs->read_only ? ro : rw;
	st->driver = (char *)(uintptr_t)(rootfs->share ? "share" : "mmioblk");
	st->source = rootfs->share ? (char *)(uintptr_t)rootfs->share : source;
	st->fstype = (char *)(uintptr_t)(rootfs->share ? "" : rootfs->fstype);
	st->options = options;
	st->n_options = 1;
}

void container_request(struct container_request *q, const char *id, Grpc__Spec *spec,
		       const struct container_rootfs *rootfs, const uint32_t ports[3])
{
	*q = (struct container_request){ .rq = GRPC__CREATE_CONTAINER_REQUEST__INIT,
					 .root = GRPC__STORAGE__INIT };
	container_storage(&q->root, rootfs, q->options, q->source);
	q->root.mount_point = mem_printf(CONTAINER_ROOTFS, id);
	free(spec->root->path);
	spec->root->path = mem_strdup(q->root.mount_point);
	q->storages[0] = &q->root;
	q->rq.container_id = q->rq.exec_id = (char *)(uintptr_t)id;
	q->rq.storages = q->storages;
	q->rq.n_storages = 1;
	q->rq.oci = spec;
	q->rq.stdin_port = ports[0];
	q->rq.stdout_port = ports[1];
	q->rq.stderr_port = ports[2];
}

void container_request_fini(struct container_request *q)
{
	free(take_ptr(&q->root.mount_point));
}

static int container_create(struct container *c, Grpc__Spec *spec,
			    const struct container_rootfs *rootfs, struct err *e)
{
	struct container_request q;
	Grpc__StringUser user = GRPC__STRING_USER__INIT;
	AUTO_FREE char *name = mem_strdup(c->user);
	int r;

	if (!spec->root)
		return err_set(e, -EINVAL, "config.json: root: missing");
	container_request(&q, c->id, spec, rootfs, c->ports);
	if (name) {
		char *colon = strchr(name, ':');
		if (colon) {
			*colon = '\0';
			user.gid = colon + 1;
		}
		user.uid = name;
		q.rq.string_user = &user;
	}
	r = agent_create_container(&c->sandbox->agent, &q.rq, e);
	container_request_fini(&q);
	return r;
}

int container_run(struct container *c, struct sandbox *s, const char *id, Grpc__Spec *spec,
		  const struct container_rootfs *rootfs, const struct container_stdio *io,
		  struct err *e)
{
	int r;

	*c = (struct container){ .sandbox = s, .id = id, .user = c->user, .done = c->done,
				.arg = c->arg };
	if ((r = container_connect(c, io, e)) < 0 || (r = container_create(c, spec, rootfs, e)) < 0 ||
	    (r = agent_start_container(&s->agent, id, e)) < 0)
		return r;
	s->t.container_started = clock_mono_ns();
	agent_wait_process(&s->agent, id, "", container_on_exit, c);
	return 0;
}
