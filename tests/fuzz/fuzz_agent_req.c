/* fuzz_agent_req.c - bytes as one of the agent's messages, as a hostile guest or host sends them.
 * The first byte chooses the message, the rest is its payload. What is accepted is packed and read
 * again, with the same result if any: protobuf-c takes, and keeps, unknown fields numbered 0 when
 * they are written in two bytes, and refuses them in one. */
#include "tests/fuzz/fuzz.h"

#include "agent.pb-c.h"
#include "amalgam/wire/ttrpc_frame.c"
#include "health.pb-c.h"
#include "mem_agent.pb-c.h"

static const ProtobufCMessageDescriptor *const fuzz_messages[] = {
	&grpc__create_sandbox_request__descriptor,
	&grpc__create_container_request__descriptor,
	&grpc__exec_process_request__descriptor,
	&grpc__update_container_request__descriptor,
	&grpc__stats_container_response__descriptor,
	&grpc__wait_process_response__descriptor,
	&grpc__guest_details_response__descriptor,
	&grpc__update_interface_request__descriptor,
	&grpc__update_routes_request__descriptor,
	&grpc__add_arpneighbors_request__descriptor,
	&grpc__interfaces__descriptor,
	&grpc__routes__descriptor,
	&grpc__read_stream_response__descriptor,
	&grpc__write_stream_request__descriptor,
	&grpc__read_stream_request__descriptor,
	&grpc__copy_file_request__descriptor,
	&grpc__reseed_random_dev_request__descriptor,
	&grpc__set_guest_date_time_request__descriptor,
	&grpc__mem_hotplug_by_probe_request__descriptor,
	&grpc__add_swap_request__descriptor,
	&grpc__update_ephemeral_mounts_request__descriptor,
	&grpc__signal_process_request__descriptor,
	&grpc__wait_process_request__descriptor,
	&grpc__remove_container_request__descriptor,
	&grpc__start_container_request__descriptor,
	&grpc__close_stdin_request__descriptor,
	&grpc__tty_win_resize_request__descriptor,
	&grpc__online_cpumem_request__descriptor,
	&grpc__guest_details_request__descriptor,
	&grpc__set_iptables_request__descriptor,
	&grpc__get_iptables_request__descriptor,
	&grpc__volume_stats_response__descriptor,
	&grpc__resize_volume_request__descriptor,
	&grpc__get_diagnostic_data_request__descriptor,
	&grpc__get_diagnostic_data_response__descriptor,
	&grpc__set_policy_request__descriptor,
	&grpc__oomevent__descriptor,
	&grpc__metrics__descriptor,
	&grpc__mem_agent_memcg_config__descriptor,
	&grpc__mem_agent_compact_config__descriptor,
	&grpc__check_request__descriptor,
	&grpc__health_check_response__descriptor,
	&grpc__version_check_response__descriptor,
	&grpc__empty__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const ProtobufCMessageDescriptor *type;
	ProtobufCMessage *m, *again;
	uint8_t *packed;
	size_t n;

	if (!size)
		return 0;
	type = fuzz_messages[*data % ARRAY_LEN(fuzz_messages)];
	m = ttrpc_unpack(type, (struct ttrpc_span){ data + 1, size - 1 });
	if (!m)
		return 0;
	n = protobuf_c_message_get_packed_size(m);
	packed = malloc(n + 1);
	ASSERT(protobuf_c_message_pack(m, packed) == n);
	again = ttrpc_unpack(type, (struct ttrpc_span){ packed, n });
	ASSERT(!again || protobuf_c_message_get_packed_size(again) == n);
	if (again)
		protobuf_c_message_free_unpacked(again, NULL);
	protobuf_c_message_free_unpacked(m, NULL);
	free(packed);
	return 0;
}
