/* The messages as the wire sees them: field numbers, names and kinds. A change of any of these
 * breaks every peer, so it has to be made here, too. */
#include "agent.pb-c.h"
#include "amalgam/base/buf.h"
#include "health.pb-c.h"
#include "mem_agent.pb-c.h"
#include "oci.pb-c.h"
#include "tests/unit/test.h"
#include "types.pb-c.h"

static const char *tproto_kind(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		return "s";
	case PROTOBUF_C_TYPE_BYTES:
		return "bytes";
	case PROTOBUF_C_TYPE_BOOL:
		return "bool";
	case PROTOBUF_C_TYPE_INT32:
		return "i32";
	case PROTOBUF_C_TYPE_INT64:
		return "i64";
	case PROTOBUF_C_TYPE_UINT32:
		return "u32";
	case PROTOBUF_C_TYPE_UINT64:
		return "u64";
	case PROTOBUF_C_TYPE_ENUM:
		return ((const ProtobufCEnumDescriptor *)f->descriptor)->short_name;
	case PROTOBUF_C_TYPE_MESSAGE:
		return ((const ProtobufCMessageDescriptor *)f->descriptor)->short_name;
	default:
		return "?";
	}
}

static void tproto_print(const ProtobufCMessageDescriptor *m, struct buf *b)
{
	for (unsigned i = 0; i < m->n_fields; i++)
		buf_printf(b, "%s%u %s %s%s", i ? "; " : "", m->fields[i].id, m->fields[i].name,
			   tproto_kind(&m->fields[i]),
			   m->fields[i].label == PROTOBUF_C_LABEL_REPEATED ? "*" : "");
}

static const struct {
	const ProtobufCMessageDescriptor *type;
	const char *fields;
} tproto_rows[] = {
	{ &grpc__empty__descriptor,
	  "" },
	{ &grpc__create_container_request__descriptor,
	  "1 container_id s; 2 exec_id s; 3 string_user StringUser; 4 devices Device*; "
	  "5 storages Storage*; 6 OCI Spec; 7 sandbox_pidns bool; "
	  "8 shared_mounts SharedMount*; 9 stdin_port u32; 10 stdout_port u32; "
	  "11 stderr_port u32; "
	  "100 exec_errors_to_stderr bool" },
	{ &grpc__start_container_request__descriptor,
	  "1 container_id s" },
	{ &grpc__remove_container_request__descriptor,
	  "1 container_id s; 2 timeout u32" },
	{ &grpc__exec_process_request__descriptor,
	  "1 container_id s; 2 exec_id s; 3 string_user StringUser; 4 process Process; "
	  "5 stdin_port u32; 6 stdout_port u32; 7 stderr_port u32" },
	{ &grpc__signal_process_request__descriptor,
	  "1 container_id s; 2 exec_id s; 3 signal u32; 100 all bool" },
	{ &grpc__wait_process_request__descriptor,
	  "1 container_id s; 2 exec_id s" },
	{ &grpc__wait_process_response__descriptor,
	  "1 status i32; 100 exited_at_ns i64; 101 oom_killed bool" },
	{ &grpc__update_container_request__descriptor,
	  "1 container_id s; 2 resources LinuxResources" },
	{ &grpc__stats_container_request__descriptor,
	  "1 container_id s" },
	{ &grpc__pause_container_request__descriptor,
	  "1 container_id s" },
	{ &grpc__resume_container_request__descriptor,
	  "1 container_id s" },
	{ &grpc__write_stream_request__descriptor,
	  "1 container_id s; 2 exec_id s; 3 data bytes" },
	{ &grpc__write_stream_response__descriptor,
	  "1 len u32" },
	{ &grpc__read_stream_request__descriptor,
	  "1 container_id s; 2 exec_id s; 3 len u32" },
	{ &grpc__read_stream_response__descriptor,
	  "1 data bytes" },
	{ &grpc__close_stdin_request__descriptor,
	  "1 container_id s; 2 exec_id s" },
	{ &grpc__tty_win_resize_request__descriptor,
	  "1 container_id s; 2 exec_id s; 3 row u32; 4 column u32" },
	{ &grpc__stats_container_response__descriptor,
	  "1 cgroup_stats CgroupStats; 2 network_stats NetworkStats*" },
	{ &grpc__cgroup_stats__descriptor,
	  "1 cpu_stats CpuStats; 2 memory_stats MemoryStats; 3 pids_stats PidsStats; "
	  "4 blkio_stats BlkioStats; 5 hugetlb_stats HugetlbStatsEntry*" },
	{ &grpc__cpu_stats__descriptor,
	  "1 cpu_usage CpuUsage; 2 throttling_data ThrottlingData" },
	{ &grpc__cpu_usage__descriptor,
	  "1 total_usage u64; 2 percpu_usage u64*; 3 usage_in_kernelmode u64; "
	  "4 usage_in_usermode u64" },
	{ &grpc__throttling_data__descriptor,
	  "1 periods u64; 2 throttled_periods u64; 3 throttled_time u64" },
	{ &grpc__pids_stats__descriptor,
	  "1 current u64; 2 limit u64" },
	{ &grpc__memory_stats__descriptor,
	  "1 cache u64; 2 usage MemoryData; 3 swap_usage MemoryData; "
	  "4 kernel_usage MemoryData; 5 use_hierarchy bool; 6 stats StatsEntry*" },
	{ &grpc__memory_data__descriptor,
	  "1 usage u64; 2 max_usage u64; 3 failcnt u64; 4 limit u64" },
	{ &grpc__blkio_stats_entry__descriptor, "1 major u64; 2 minor u64; 3 op s; 4 value u64" },
	{ &grpc__blkio_stats__descriptor,
	  "1 io_service_bytes_recursive BlkioStatsEntry*; "
	  "2 io_serviced_recursive BlkioStatsEntry*; "
	  "3 io_queued_recursive BlkioStatsEntry*; "
	  "4 io_service_time_recursive BlkioStatsEntry*; "
	  "5 io_wait_time_recursive BlkioStatsEntry*; "
	  "6 io_merged_recursive BlkioStatsEntry*; 7 io_time_recursive BlkioStatsEntry*; "
	  "8 sectors_recursive BlkioStatsEntry*" },
	{ &grpc__hugetlb_stats__descriptor,
	  "1 usage u64; 2 max_usage u64; 3 failcnt u64" },
	{ &grpc__network_stats__descriptor,
	  "1 name s; 2 rx_bytes u64; 3 rx_packets u64; 4 rx_errors u64; "
	  "5 rx_dropped u64; 6 tx_bytes u64; 7 tx_packets u64; 8 tx_errors u64; "
	  "9 tx_dropped u64" },
	{ &grpc__get_metrics_request__descriptor,
	  "" },
	{ &grpc__metrics__descriptor,
	  "1 metrics s" },
	{ &grpc__get_diagnostic_data_request__descriptor,
	  "1 log_type s; 2 container_id s" },
	{ &grpc__get_diagnostic_data_response__descriptor,
	  "1 data s" },
	{ &grpc__get_oomevent_request__descriptor,
	  "" },
	{ &grpc__oomevent__descriptor,
	  "1 container_id s" },
	{ &grpc__create_sandbox_request__descriptor,
	  "1 hostname s; 2 dns s*; 3 storages Storage*; 4 sandbox_pidns bool; "
	  "5 sandbox_id s; 6 guest_hook_path s; 7 kernel_modules KernelModule*; "
	  "100 spore SporeClone" },
	{ &grpc__spore_clone__descriptor,
	  "1 entropy bytes; 2 wall_time_ns i64; 3 machine_id s; 4 bind_slots u32*; "
	  "5 online_cpus u32; 6 is_clone bool" },
	{ &grpc__kernel_module__descriptor,
	  "1 name s; 2 parameters s*" },
	{ &grpc__destroy_sandbox_request__descriptor,
	  "" },
	{ &grpc__remove_stale_virtiofs_share_mounts_request__descriptor,
	  "" },
	{ &grpc__guest_details_request__descriptor,
	  "1 mem_block_size bool; 2 mem_hotplug_probe bool" },
	{ &grpc__guest_details_response__descriptor,
	  "1 mem_block_size_bytes u64; 2 agent_details AgentDetails; "
	  "3 support_mem_hotplug_probe bool" },
	{ &grpc__agent_details__descriptor,
	  "1 version s; 2 init_daemon bool; 3 device_handlers s*; 4 storage_handlers s*; "
	  "5 supports_seccomp bool; 6 extra_features s*" },
	{ &grpc__online_cpumem_request__descriptor,
	  "1 wait bool; 2 nb_cpus u32; 3 cpu_only bool" },
	{ &grpc__mem_hotplug_by_probe_request__descriptor,
	  "1 memHotplugProbeAddr u64*" },
	{ &grpc__reseed_random_dev_request__descriptor,
	  "2 data bytes" },
	{ &grpc__set_guest_date_time_request__descriptor,
	  "1 Sec i64; 2 Usec i64" },
	{ &grpc__set_policy_request__descriptor,
	  "1 policy s" },
	{ &grpc__copy_file_request__descriptor,
	  "1 path s; 2 file_size i64; 3 file_mode u32; 4 dir_mode u32; 5 uid i32; "
	  "6 gid i32; 7 offset i64; 8 data bytes" },
	{ &grpc__add_swap_request__descriptor,
	  "1 PCIPath u32*" },
	{ &grpc__add_swap_path_request__descriptor,
	  "1 path s" },
	{ &grpc__update_ephemeral_mounts_request__descriptor,
	  "1 storages Storage*" },
	{ &grpc__update_interface_request__descriptor,
	  "1 interface Interface" },
	{ &grpc__update_routes_request__descriptor,
	  "1 routes Routes" },
	{ &grpc__interfaces__descriptor,
	  "1 Interfaces Interface*" },
	{ &grpc__routes__descriptor,
	  "1 Routes Route*" },
	{ &grpc__list_interfaces_request__descriptor,
	  "" },
	{ &grpc__list_routes_request__descriptor,
	  "" },
	{ &grpc__arpneighbors__descriptor,
	  "1 ARPNeighbors ARPNeighbor*" },
	{ &grpc__add_arpneighbors_request__descriptor,
	  "1 neighbors ARPNeighbors" },
	{ &grpc__get_iptables_request__descriptor,
	  "1 is_ipv6 bool" },
	{ &grpc__get_iptables_response__descriptor,
	  "1 data bytes" },
	{ &grpc__set_iptables_request__descriptor,
	  "1 is_ipv6 bool; 2 data bytes" },
	{ &grpc__set_iptables_response__descriptor,
	  "1 data bytes" },
	{ &grpc__volume_stats_request__descriptor,
	  "1 volume_guest_path s" },
	{ &grpc__resize_volume_request__descriptor,
	  "1 volume_guest_path s; 2 size u64" },
	{ &grpc__volume_stats_response__descriptor,
	  "1 usage VolumeUsage*; 2 volume_condition VolumeCondition" },
	{ &grpc__volume_usage__descriptor,
	  "1 available u64; 2 total u64; 3 used u64; 4 unit Unit" },
	{ &grpc__volume_condition__descriptor,
	  "1 abnormal bool; 2 message s" },
	{ &grpc__storage__descriptor,
	  "1 driver s; 2 driver_options s*; 3 source s; 4 fstype s; 5 options s*; "
	  "6 mount_point s; 7 fs_group FSGroup; 8 shared bool" },
	{ &grpc__device__descriptor,
	  "1 id s; 2 type s; 3 vm_path s; 4 container_path s; 5 options s*" },
	{ &grpc__shared_mount__descriptor,
	  "1 name s; 2 src_ctr s; 3 src_path s; 4 dst_ctr s; 5 dst_path s" },
	{ &grpc__fsgroup__descriptor,
	  "2 group_id u32; 3 group_change_policy FSGroupChangePolicy" },
	{ &grpc__string_user__descriptor,
	  "1 uid s; 2 gid s; 3 additionalGids s*" },
	{ &grpc__spec__descriptor,
	  "1 Version s; 2 Process Process; 3 Root Root; 4 Hostname s; 5 Mounts Mount*; "
	  "6 Hooks Hooks; 7 Annotations AnnotationsEntry*; 8 Linux Linux; "
	  "100 Domainname s" },
	{ &grpc__process__descriptor,
	  "1 Terminal bool; 2 ConsoleSize Box; 3 User User; 4 Args s*; 5 Env s*; "
	  "6 Cwd s; 7 Capabilities LinuxCapabilities; 8 Rlimits POSIXRlimit*; "
	  "9 NoNewPrivileges bool; 10 ApparmorProfile s; 11 OOMScoreAdj i64; "
	  "12 SelinuxLabel s; 100 Umask u32; 102 IOPriority LinuxIOPriority; "
	  "103 Scheduler Scheduler" },
	{ &grpc__box__descriptor,
	  "1 Height u32; 2 Width u32" },
	{ &grpc__user__descriptor,
	  "1 UID u32; 2 GID u32; 3 AdditionalGids u32*; 4 Username s" },
	{ &grpc__linux_capabilities__descriptor,
	  "1 Bounding s*; 2 Effective s*; 3 Inheritable s*; 4 Permitted s*; 5 Ambient s*" },
	{ &grpc__posixrlimit__descriptor,
	  "1 Type s; 2 Hard u64; 3 Soft u64" },
	{ &grpc__linux_iopriority__descriptor,
	  "1 class s; 2 priority i32" },
	{ &grpc__scheduler__descriptor,
	  "1 policy s; 2 nice i32; 3 priority i32" },
	{ &grpc__root__descriptor,
	  "1 Path s; 2 Readonly bool" },
	{ &grpc__mount__descriptor,
	  "1 destination s; 2 source s; 3 type s; 4 options s*; "
	  "100 uid_mappings LinuxIDMapping*; 101 gid_mappings LinuxIDMapping*" },
	{ &grpc__hooks__descriptor,
	  "1 Prestart Hook*; 2 Poststart Hook*; 3 Poststop Hook*; 4 CreateRuntime Hook*; "
	  "5 CreateContainer Hook*; 6 StartContainer Hook*" },
	{ &grpc__hook__descriptor,
	  "1 Path s; 2 Args s*; 3 Env s*; 4 Timeout i64" },
	{ &grpc__linux__descriptor,
	  "1 UIDMappings LinuxIDMapping*; 2 GIDMappings LinuxIDMapping*; "
	  "3 Sysctl SysctlEntry*; 4 Resources LinuxResources; 5 CgroupsPath s; "
	  "6 Namespaces LinuxNamespace*; 7 Devices LinuxDevice*; 8 Seccomp LinuxSeccomp; "
	  "9 RootfsPropagation s; 10 MaskedPaths s*; 11 ReadonlyPaths s*; "
	  "12 MountLabel s; 13 IntelRdt LinuxIntelRdt; 100 TimeOffsets LinuxTimeOffset*" },
	{ &grpc__linux_idmapping__descriptor,
	  "1 HostID u32; 2 ContainerID u32; 3 Size u32" },
	{ &grpc__linux_namespace__descriptor,
	  "1 Type s; 2 Path s" },
	{ &grpc__linux_time_offset__descriptor,
	  "1 clock s; 2 secs i64; 3 nanosecs u32" },
	{ &grpc__linux_device__descriptor,
	  "1 Path s; 2 Type s; 3 Major i64; 4 Minor i64; 5 FileMode u32; 6 UID u32; "
	  "7 GID u32" },
	{ &grpc__linux_intel_rdt__descriptor,
	  "1 L3CacheSchema s" },
	{ &grpc__linux_resources__descriptor,
	  "1 Devices LinuxDeviceCgroup*; 2 Memory LinuxMemory; 3 CPU LinuxCPU; "
	  "4 Pids LinuxPids; 5 BlockIO LinuxBlockIO; "
	  "6 HugepageLimits LinuxHugepageLimit*; 7 Network LinuxNetwork; "
	  "100 unified UnifiedEntry*" },
	{ &grpc__linux_memory__descriptor,
	  "1 Limit i64; 2 Reservation i64; 3 Swap i64; 4 Kernel i64; 5 KernelTCP i64; "
	  "6 Swappiness u64; 7 DisableOOMKiller bool" },
	{ &grpc__linux_cpu__descriptor,
	  "1 Shares u64; 2 Quota i64; 3 Period u64; 4 RealtimeRuntime i64; "
	  "5 RealtimePeriod u64; 6 Cpus s; 7 Mems s" },
	{ &grpc__linux_pids__descriptor,
	  "1 Limit i64" },
	{ &grpc__linux_block_io__descriptor,
	  "1 Weight u32; 2 LeafWeight u32; 3 WeightDevice LinuxWeightDevice*; "
	  "4 ThrottleReadBpsDevice LinuxThrottleDevice*; "
	  "5 ThrottleWriteBpsDevice LinuxThrottleDevice*; "
	  "6 ThrottleReadIOPSDevice LinuxThrottleDevice*; "
	  "7 ThrottleWriteIOPSDevice LinuxThrottleDevice*" },
	{ &grpc__linux_weight_device__descriptor,
	  "1 Major i64; 2 Minor i64; 3 Weight u32; 4 LeafWeight u32" },
	{ &grpc__linux_throttle_device__descriptor,
	  "1 Major i64; 2 Minor i64; 3 Rate u64" },
	{ &grpc__linux_hugepage_limit__descriptor,
	  "1 Pagesize s; 2 Limit u64" },
	{ &grpc__linux_device_cgroup__descriptor,
	  "1 Allow bool; 2 Type s; 3 Major i64; 4 Minor i64; 5 Access s" },
	{ &grpc__linux_network__descriptor,
	  "1 ClassID u32; 2 Priorities LinuxInterfacePriority*" },
	{ &grpc__linux_interface_priority__descriptor,
	  "1 Name s; 2 Priority u32" },
	{ &grpc__linux_seccomp__descriptor,
	  "1 DefaultAction s; 2 Architectures s*; 3 Flags s*; 4 Syscalls LinuxSyscall*; "
	  "100 DefaultErrnoRet u32" },
	{ &grpc__linux_syscall__descriptor,
	  "1 Names s*; 2 Action s; 3 ErrnoRet u32; 4 Args LinuxSeccompArg*" },
	{ &grpc__linux_seccomp_arg__descriptor,
	  "1 Index u64; 2 Value u64; 3 ValueTwo u64; 4 Op s" },
	{ &types__ipaddress__descriptor,
	  "1 family IPFamily; 2 address s; 3 mask s" },
	{ &types__interface__descriptor,
	  "1 device s; 2 name s; 3 IPAddresses IPAddress*; 4 mtu u64; 5 hwAddr s; "
	  "6 devicePath s; 7 type s; 8 raw_flags u32" },
	{ &types__route__descriptor,
	  "1 dest s; 2 gateway s; 3 device s; 4 source s; 5 scope u32; "
	  "6 family IPFamily; 7 flags u32; 8 mtu u32; "
	  "100 metric u32" },
	{ &types__arpneighbor__descriptor,
	  "1 toIPAddress IPAddress; 2 device s; 3 lladdr s; 4 state i32; 5 flags i32" },
	{ &grpc__check_request__descriptor,
	  "1 service s" },
	{ &grpc__health_check_response__descriptor,
	  "1 status ServingStatus" },
	{ &grpc__version_check_response__descriptor,
	  "1 grpc_version s; 2 agent_version s" },
	{ &grpc__mem_agent_memcg_config__descriptor,
	  "1 disabled bool; 2 swap bool; 3 swappiness_max u32; 4 period_secs u64; "
	  "5 period_psi_percent_limit u32; 6 eviction_psi_percent_limit u32; "
	  "7 eviction_run_aging_count_min u64" },
	{ &grpc__mem_agent_compact_config__descriptor,
	  "1 disabled bool; 2 period_secs u64; 3 period_psi_percent_limit u32; "
	  "4 compact_psi_percent_limit u32; 5 compact_sec_max i64; 6 compact_order u32; "
	  "7 compact_threshold u64; 8 compact_force_times u64" },
};

TEST(protocol_messages_are_as_the_peers_know_them)
{
	for (size_t i = 0; i < ARRAY_LEN(tproto_rows); i++) {
		AUTO_BUF struct buf b = { 0 };
		tproto_print(tproto_rows[i].type, &b);
		test_note("%s", tproto_rows[i].type->name);
		CHECK_STR(buf_cstr(&b), tproto_rows[i].fields);
	}
}

TEST(protocol_our_own_fields_start_at_100)
{
	static const struct {
		const ProtobufCMessageDescriptor *type;
		const char *field;
		uint32_t number;
	} rows[] = {
		{ &grpc__create_sandbox_request__descriptor, "spore", 100 },
		{ &grpc__signal_process_request__descriptor, "all", 100 },
		{ &grpc__wait_process_response__descriptor, "exited_at_ns", 100 },
		{ &grpc__wait_process_response__descriptor, "oom_killed", 101 },
		{ &grpc__process__descriptor, "Umask", 100 },
		{ &grpc__process__descriptor, "IOPriority", 102 },
		{ &grpc__process__descriptor, "Scheduler", 103 },
		{ &grpc__spec__descriptor, "Domainname", 100 },
		{ &grpc__linux_resources__descriptor, "unified", 100 },
		{ &grpc__mount__descriptor, "uid_mappings", 100 },
		{ &grpc__mount__descriptor, "gid_mappings", 101 },
		{ &grpc__linux__descriptor, "TimeOffsets", 100 },
		{ &grpc__linux_seccomp__descriptor, "DefaultErrnoRet", 100 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const ProtobufCFieldDescriptor *f =
			protobuf_c_message_descriptor_get_field_by_name(rows[i].type,
									rows[i].field);
		test_note("%s", rows[i].field);
		CHECK(f);
		CHECK_EQ(f->id, rows[i].number);
	}
}

TEST(protocol_a_peer_without_our_fields_skips_them)
{
	/* container_id "c", then field 100 as bytes, 101 as a number, 102 as fixed 64 bits */
	static const uint8_t raw[] = { 0x0a, 1, 'c', 0xa2, 6, 2, 'x', 'y', 0xa8, 6, 0x80, 1,
				       0xb1, 6, 1, 2, 3, 4, 5, 6, 7, 8 };
	Grpc__StartContainerRequest *r = grpc__start_container_request__unpack(
		NULL, sizeof raw, test_guard(raw, sizeof raw));

	CHECK(r);
	CHECK_STR(r->container_id, "c");
	grpc__start_container_request__free_unpacked(r, NULL);
}

TEST(protocol_repeated_numbers_are_read_packed_and_not)
{
	static const uint8_t packed[] = { 0x0a, 3, 1, 0xac, 2 }, loose[] = { 8, 1, 8, 0xac, 2 };
	static const struct {
		const uint8_t *raw;
		size_t n;
	} rows[] = { { packed, sizeof packed }, { loose, sizeof loose } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		Grpc__AddSwapRequest *r = grpc__add_swap_request__unpack(
			NULL, rows[i].n, test_guard(rows[i].raw, rows[i].n));
		CHECK(r);
		CHECK_EQ(r->n_pcipath, 2);
		CHECK_EQ(r->pcipath[1], 300);
		grpc__add_swap_request__free_unpacked(r, NULL);
	}
}
