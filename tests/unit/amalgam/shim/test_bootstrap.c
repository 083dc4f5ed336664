#include "amalgam/shim/bootstrap.h"

#include <fcntl.h>
#include <pty.h>

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

/* What containerd 1.6 writes for io.containerd.runc.v2 without options. */
static const uint8_t tbs_empty_runc[] = "\x0a\x1a"
					"containerd.runc.v1.Options";

static size_t tbs_pack(const ProtobufCMessage *m, uint8_t **out)
{
	size_t n = protobuf_c_message_get_packed_size(m);

	*out = mem_zalloc(n + 1);
	CHECK_EQ(protobuf_c_message_pack(m, *out), n);
	return n;
}

/* An Any of the type, with the message in it. Packed; the caller's. */
static size_t tbs_any(const char *type, const ProtobufCMessage *m, uint8_t **out)
{
	Ctd__Any any = CTD__ANY__INIT;
	AUTO_FREE uint8_t *value = NULL;

	any.type_url = (char *)(uintptr_t)type;
	any.value.len = tbs_pack(m, &value);
	any.value.data = value;
	return tbs_pack(&any.base, out);
}

static size_t tbs_params(Ctd__BootstrapParams *p, uint8_t **out)
{
	p->instance_id = "a1";
	p->namespace_ = "default";
	p->log_level = -4;
	p->containerd_version = "2.3.4";
	p->containerd_ttrpc_address = "/run/containerd/containerd.sock.ttrpc";
	p->containerd_grpc_address = "/run/containerd/containerd.sock";
	p->containerd_binary = "/usr/bin/containerd";
	p->socket_dir = "/run/containerd/s";
	return tbs_pack(&p->base, out);
}

TEST(shim_bootstrap_of_containerd_1_6_is_an_any)
{
	struct shim_bootstrap b = { 0 };

	shim_bootstrap_decode(&b, tbs_empty_runc, sizeof tbs_empty_runc - 1, "a1");
	CHECK(!b.is_bootstrap && !b.options.shim_cgroup && !b.options.config_path);
	shim_bootstrap_fini(&b);
	shim_bootstrap_decode(&b, "", 0, "a1");
	CHECK(!b.is_bootstrap);
	shim_bootstrap_fini(&b);
}

TEST(shim_bootstrap_takes_over_runc_options)
{
	Ctd__RuncOptions r = CTD__RUNC_OPTIONS__INIT;
	struct shim_bootstrap b = { 0 };
	AUTO_FREE uint8_t *p = NULL;
	size_t n;

	r.shim_cgroup = "/sys/fs/cgroup/shims";
	r.systemd_cgroup = true;
	r.io_uid = 1000;
	r.io_gid = 1001;
	r.binary_name = "crun";
	n = tbs_any("containerd.runc.v1.Options", &r.base, &p);
	shim_bootstrap_decode(&b, p, n, "a1");
	CHECK_STR(b.options.shim_cgroup, "/sys/fs/cgroup/shims");
	CHECK(b.options.systemd_cgroup);
	CHECK_EQ(b.options.io_uid, 1000);
	CHECK_EQ(b.options.io_gid, 1001);
	shim_bootstrap_fini(&b);
}

TEST(shim_bootstrap_takes_over_runtime_options_under_all_their_names)
{
	static const char *const types[] = { "runtimeoptions.v1.Options",
					     "cri.runtimeoptions.v1.Options",
					     "type.googleapis.com/runtimeoptions.v1.Options" };
	Ctd__RuntimeOptions r = CTD__RUNTIME_OPTIONS__INIT;

	r.type_url = "x";
	r.config_path = "/etc/spore.toml";
	r.config_body.data = (uint8_t *)(uintptr_t)"a = 1\n";
	r.config_body.len = 6;
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct shim_bootstrap b = { 0 };
		AUTO_FREE uint8_t *p = NULL;
		size_t n = tbs_any(types[i], &r.base, &p);
		test_note("%s", types[i]);
		shim_bootstrap_decode(&b, p, n, "a1");
		CHECK_STR(b.options.config_path, "/etc/spore.toml");
		CHECK_EQ(b.options.config_body.len, 6);
		CHECK_MEM(b.options.config_body.data, "a = 1\n", 6);
		shim_bootstrap_fini(&b);
	}
}

TEST(shim_bootstrap_of_containerd_2_3_is_bootstrap_params_with_options_in_an_extension)
{
	Ctd__BootstrapParams params = CTD__BOOTSTRAP_PARAMS__INIT;
	Ctd__Extension ext = CTD__EXTENSION__INIT, *exts[] = { &ext };
	Ctd__RuntimeOptions r = CTD__RUNTIME_OPTIONS__INIT;
	Ctd__Any any = CTD__ANY__INIT;
	AUTO_FREE uint8_t *value = NULL, *p = NULL;
	struct shim_bootstrap b = { 0 };
	size_t n;

	r.config_path = "/etc/spore.toml";
	any.type_url = "runtimeoptions.v1.Options";
	any.value.len = tbs_pack(&r.base, &value);
	any.value.data = value;
	ext.value = &any;
	params.extensions = exts;
	params.n_extensions = 1;
	n = tbs_params(&params, &p);
	shim_bootstrap_decode(&b, p, n, "another id");
	CHECK(b.is_bootstrap);
	CHECK_STR(b.ttrpc_address, "/run/containerd/containerd.sock.ttrpc");
	CHECK_STR(b.grpc_address, "/run/containerd/containerd.sock");
	CHECK_STR(b.socket_dir, "/run/containerd/s");
	CHECK_STR(b.containerd_version, "2.3.4");
	CHECK_EQ(b.log_level, -4);
	CHECK_STR(b.options.config_path, "/etc/spore.toml");
	shim_bootstrap_fini(&b);
}

TEST(shim_bootstrap_of_few_fields_is_told_by_our_id)
{
	static const uint8_t bytes[] = "\x0a\x02"
				       "a1\x12\x07"
				       "default\x4a\x02/s";
	struct shim_bootstrap b = { 0 };

	shim_bootstrap_decode(&b, bytes, sizeof bytes - 1, "a1");
	CHECK(b.is_bootstrap);
	CHECK_STR(b.socket_dir, "/s");
	shim_bootstrap_fini(&b);
	shim_bootstrap_decode(&b, bytes, sizeof bytes - 1, "a2");
	CHECK(!b.is_bootstrap);
	CHECK_STR(b.socket_dir, NULL);
	shim_bootstrap_fini(&b);
	shim_bootstrap_decode(&b, "", 0, ""); /* no id is nobody's id */
	CHECK(!b.is_bootstrap);
	shim_bootstrap_fini(&b);
}

TEST(shim_bootstrap_ignores_types_nobody_knows)
{
	static const char *const types[] = { "", "/", "containerd.linux.runc.CreateOptions",
					     "containerd.runc.v2.Options" };
	Ctd__RuncOptions r = CTD__RUNC_OPTIONS__INIT;

	r.shim_cgroup = "x";
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct shim_bootstrap b = { 0 };
		AUTO_FREE uint8_t *p = NULL;
		size_t n = tbs_any(types[i], &r.base, &p);
		shim_bootstrap_decode(&b, p, n, "a1");
		CHECK_STR(b.options.shim_cgroup, NULL);
		shim_bootstrap_fini(&b);
	}
	shim_options_add(&(struct shim_options){ 0 }, NULL);
}

TEST(shim_bootstrap_survives_bytes_that_are_cut_or_damaged)
{
	Ctd__BootstrapParams params = CTD__BOOTSTRAP_PARAMS__INIT;
	AUTO_FREE uint8_t *p = NULL;
	size_t n = tbs_params(&params, &p);

	for (size_t cut = 0; cut <= n; cut++) {
		struct shim_bootstrap b = { 0 };
		shim_bootstrap_decode(&b, test_guard(p, cut), cut, "a1");
		shim_bootstrap_fini(&b);
	}
	for (size_t i = 0; i < n * 8; i++) {
		struct shim_bootstrap b = { 0 };
		p[i / 8] ^= (uint8_t)(1u << i % 8);
		shim_bootstrap_decode(&b, p, n, "a1");
		shim_bootstrap_fini(&b);
		p[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	/* A value that is no message of its type: what was known before stays. */
	struct shim_options o = { .io_uid = 7 };
	Ctd__Any any = CTD__ANY__INIT;
	any.type_url = "containerd.runc.v1.Options";
	any.value.data = (uint8_t *)(uintptr_t)"\x1a\xff";
	any.value.len = 2;
	shim_options_add(&o, &any);
	CHECK_EQ(o.io_uid, 7);
	shim_options_fini(&o);
}

TEST(shim_bootstrap_later_options_replace_earlier_ones_where_they_speak)
{
	Ctd__RuncOptions r = CTD__RUNC_OPTIONS__INIT;
	Ctd__RuntimeOptions t = CTD__RUNTIME_OPTIONS__INIT;
	struct shim_options o = { 0 };
	AUTO_FREE uint8_t *runc = NULL, *runtime = NULL;
	Ctd__Any any = CTD__ANY__INIT;

	r.shim_cgroup = "/one";
	t.config_path = "/two";
	any.type_url = "containerd.runc.v1.Options";
	any.value.len = tbs_pack(&r.base, &runc);
	any.value.data = runc;
	shim_options_add(&o, &any);
	shim_options_add(&o, &any);
	any.type_url = "runtimeoptions.v1.Options";
	any.value.len = tbs_pack(&t.base, &runtime);
	any.value.data = runtime;
	shim_options_add(&o, &any);
	CHECK_STR(o.shim_cgroup, "/one");
	CHECK_STR(o.config_path, "/two");
	shim_options_fini(&o);
}

TEST(shim_bootstrap_reads_a_pipe_to_its_end_and_nothing_from_what_has_none)
{
	AUTO_BUF struct buf b = { 0 };
	int p[2], master, slave, null = open("/dev/null", O_RDONLY);

	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(write(p[1], "hello", 5), 5);
	close(p[1]);
	shim_bootstrap_read(p[0], &b);
	CHECK_EQ(b.len, 5);
	CHECK_MEM(b.data, "hello", 5);
	b.len = 0;
	CHECK_EQ(openpty(&master, &slave, NULL, NULL, NULL), 0);
	shim_bootstrap_read(slave, &b);
	shim_bootstrap_read(null, &b);
	shim_bootstrap_read(-1, &b);
	close(null);
	shim_bootstrap_read(null, &b);
	CHECK_EQ(b.len, 0);
	close(p[0]);
}

TEST(shim_bootstrap_does_not_wait_for_ever_and_does_not_read_for_ever)
{
	AUTO_BUF struct buf b = { 0 };
	static uint8_t lump[SHIM_BOOTSTRAP_MAX];
	AUTO_FREE char *path = mem_printf("%s/big", test_dir());
	int fd, p[2];

	CHECK_EQ(pipe(p), 0);
	CHECK_EQ(write(p[1], "part", 4), 4);
	shim_bootstrap_read(p[0], &b); /* its other end stays open */
	CHECK_EQ(b.len, 4);
	b.len = 0;
	fd = open(path, O_RDWR | O_CREAT, 0600);
	for (int i = 0; i < 2; i++)
		CHECK_EQ(write(fd, lump, sizeof lump), sizeof lump);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	shim_bootstrap_read(fd, &b);
	CHECK_EQ(b.len, SHIM_BOOTSTRAP_MAX);
}
