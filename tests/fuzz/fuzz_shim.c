/* fuzz_shim.c - what containerd hands to a shim besides its RPCs' framing (fuzz_ttrpc): stdin of `start`,
 * stream URIs, the Anys in requests. The first byte chooses. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/shim/bootstrap.c"
#include "amalgam/shim/uri.c"
#include "amalgam/wire/json.c"
#include "amalgam/wire/oci_spec.c"

static void fuzz_bootstrap(const uint8_t *data, size_t size)
{
	struct shim_bootstrap b = { 0 };

	shim_bootstrap_decode(&b, data, size, "a1");
	ASSERT(b.is_bootstrap || (!b.ttrpc_address && !b.grpc_address && !b.socket_dir));
	shim_bootstrap_fini(&b);
}

static void fuzz_uri(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = mem_strndup((const char *)data, size);
	struct shim_uri u;
	struct err e = { 0 };

	if (shim_uri_parse(&u, text, &e) == 0) {
		ASSERT((u.kind == SHIM_URI_NONE) == !u.path);
		ASSERT(u.nargs % 2 == 0 && !u.args[u.nargs]);
	} else {
		ASSERT(e.code == -EINVAL && *e.msg);
	}
	shim_uri_fini(&u);
}

/* CreateTaskRequest.options */
static void fuzz_create(const uint8_t *data, size_t size)
{
	Ctd__CreateTaskRequest *r = ctd__create_task_request__unpack(NULL, size, data);
	struct shim_options o = { 0 };

	if (!r)
		return;
	shim_options_add(&o, r->options);
	shim_options_fini(&o);
	ctd__create_task_request__free_unpacked(r, NULL);
}

/* ExecProcessRequest.spec: JSON in an Any */
static void fuzz_exec(const uint8_t *data, size_t size)
{
	Ctd__ExecProcessRequest *r = ctd__exec_process_request__unpack(NULL, size, data);
	struct err e = { 0 };

	if (!r)
		return;
	if (r->spec) {
		Grpc__Process *p = oci_process_parse(r->spec->value.data, r->spec->value.len, &e);
		if (p)
			grpc__process__free_unpacked(p, NULL);
	}
	ctd__exec_process_request__free_unpacked(r, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[])(const uint8_t *data, size_t size) = {
		fuzz_bootstrap, fuzz_uri, fuzz_create, fuzz_exec
	};
	if (size)
		targets[data[0] % ARRAY_LEN(targets)](data + 1, size - 1);
	return 0;
}
