#include "amalgam/shim/bootstrap.h"

#include <poll.h>
#include <sys/stat.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"

/* --- options ------------------------------------------------------------------------------------- */

/* Replace *field unless there is nothing to say. */
static void shim_options_str(char **field, const char *s)
{
	if (!*s)
		return;
	free(*field);
	*field = mem_strdup(s);
}

static void shim_options_runc(struct shim_options *o, const ProtobufCMessage *m)
{
	const Ctd__RuncOptions *r = (const Ctd__RuncOptions *)m;

	shim_options_str(&o->shim_cgroup, r->shim_cgroup);
	o->systemd_cgroup |= r->systemd_cgroup;
	o->io_uid = r->io_uid ? r->io_uid : o->io_uid;
	o->io_gid = r->io_gid ? r->io_gid : o->io_gid;
}

static void shim_options_runtime(struct shim_options *o, const ProtobufCMessage *m)
{
	const Ctd__RuntimeOptions *r = (const Ctd__RuntimeOptions *)m;

	shim_options_str(&o->config_path, r->config_path);
	if (r->config_body.len) {
		buf_fini(&o->config_body);
		buf_add(&o->config_body, r->config_body.data, r->config_body.len);
	}
}

static const struct {
	const char *type;
	const ProtobufCMessageDescriptor *message;
	void (*take)(struct shim_options *o, const ProtobufCMessage *m);
} shim_options_types[] = {
	{ "containerd.runc.v1.Options", &ctd__runc_options__descriptor, shim_options_runc },
	{ "runtimeoptions.v1.Options", &ctd__runtime_options__descriptor, shim_options_runtime },
	{ "cri.runtimeoptions.v1.Options", &ctd__runtime_options__descriptor,
	  shim_options_runtime },
};

void shim_options_add(struct shim_options *o, const Ctd__Any *any)
{
	const char *slash = any ? strrchr(any->type_url, '/') : NULL;
	const char *type = slash ? slash + 1 : any ? any->type_url : "";

	for (size_t i = 0; i < ARRAY_LEN(shim_options_types); i++) {
		ProtobufCMessage *m;
		if (strcmp(type, shim_options_types[i].type) != 0)
			continue;
		m = protobuf_c_message_unpack(shim_options_types[i].message, NULL, any->value.len,
					      any->value.data);
		if (m) {
			shim_options_types[i].take(o, m);
			protobuf_c_message_free_unpacked(m, NULL);
		}
	}
}

void shim_options_fini(struct shim_options *o)
{
	free(o->config_path);
	free(o->shim_cgroup);
	buf_fini(&o->config_body);
	*o = (struct shim_options){ 0 };
}

/* --- stdin of start --------------------------------------------------------------------------- */

/* A terminal has no end, and neither has every device; /dev/null is one of them. */
static bool shim_bootstrap_has_end(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) ||
				       S_ISSOCK(st.st_mode));
}

void shim_bootstrap_read(int fd, struct buf *b)
{
	uint64_t now, end = clock_mono_ns() + SHIM_BOOTSTRAP_WAIT_MS * NS_PER_MS;
	size_t left = SHIM_BOOTSTRAP_MAX;
	ssize_t n = 1;

	if (!shim_bootstrap_has_end(fd))
		return;
	while (n > 0 && left && (now = clock_mono_ns()) < end) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int r = poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1);
		if (r < 0 && errno != EINTR)
			return;
		if (r <= 0)
			continue;
		n = read(fd, buf_reserve(b, MIN(left, 4096u)), MIN(left, 4096u));
		if (n < 0 && errno == EINTR) {
			n = 1;
		} else if (n > 0) {
			b->len += (size_t)n;
			left -= (size_t)n;
		}
	}
}

static void shim_bootstrap_take(struct shim_bootstrap *b, const Ctd__BootstrapParams *m)
{
	b->is_bootstrap = true;
	shim_options_str(&b->ttrpc_address, m->containerd_ttrpc_address);
	shim_options_str(&b->grpc_address, m->containerd_grpc_address);
	shim_options_str(&b->socket_dir, m->socket_dir);
	shim_options_str(&b->containerd_version, m->containerd_version);
	b->log_level = m->log_level;
	for (size_t i = 0; i < m->n_extensions; i++)
		shim_options_add(&b->options, m->extensions[i]->value);
}

void shim_bootstrap_decode(struct shim_bootstrap *b, const void *p, size_t n,
				       const char *id)
{
	Ctd__BootstrapParams *m = ctd__bootstrap_params__unpack(NULL, n, p);
	Ctd__Any *any;

	if (m && (*m->containerd_version || *m->containerd_ttrpc_address ||
		  *m->containerd_grpc_address || (*id && strcmp(m->instance_id, id) == 0))) {
		shim_bootstrap_take(b, m);
	} else if ((any = ctd__any__unpack(NULL, n, p))) {
		shim_options_add(&b->options, any);
		ctd__any__free_unpacked(any, NULL);
	}
	if (m)
		ctd__bootstrap_params__free_unpacked(m, NULL);
}

ONLY_TESTED void shim_bootstrap_fini(struct shim_bootstrap *b)
{
	free(b->ttrpc_address);
	free(b->grpc_address);
	free(b->socket_dir);
	free(b->containerd_version);
	shim_options_fini(&b->options);
	*b = (struct shim_bootstrap){ 0 };
}
