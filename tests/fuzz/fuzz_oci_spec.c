/* fuzz_oci_spec.c - any bytes as config.json, and as its parts. What is accepted must survive the
 * wire unchanged. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/wire/json.c"
#include "amalgam/wire/oci_spec.c"

static void fuzz_roundtrip(ProtobufCMessage *m)
{
	size_t n;
	uint8_t *first, *second;
	ProtobufCMessage *again;

	if (!m)
		return;
	n = protobuf_c_message_get_packed_size(m);
	first = malloc(n + 1);
	second = malloc(n + 1);
	ASSERT(protobuf_c_message_pack(m, first) == n);
	again = protobuf_c_message_unpack(m->descriptor, NULL, n, first);
	ASSERT(again && protobuf_c_message_pack(again, second) == n);
	ASSERT(memcmp(first, second, n) == 0);
	protobuf_c_message_free_unpacked(again, NULL);
	protobuf_c_message_free_unpacked(m, NULL);
	free(first);
	free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err e = { 0 };

	fuzz_roundtrip((ProtobufCMessage *)oci_spec_parse(data, size, &e));
	fuzz_roundtrip((ProtobufCMessage *)oci_process_parse(data, size, &e));
	fuzz_roundtrip((ProtobufCMessage *)oci_resources_parse(data, size, &e));
	return 0;
}
