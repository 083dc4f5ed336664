#include "amalgam/wire/oci_spec.h"

#include "amalgam/base/mem.h"
#include "amalgam/wire/json.h"

/* One table per object of the specification: which member goes to which field, and what must hold.
 * The field's type, offset and message come from its protobuf-c descriptor, so that is all there is
 * to say; one interpreter below reads every object. */

enum oci_rule {
	OCI_REQUIRED = 1 << 0,
	OCI_NOT_EMPTY = 1 << 1, /* a list of at least one */
	OCI_ABSOLUTE = 1 << 2,  /* a path that starts with '/', or "" */
	OCI_UNIQUE = 1 << 3,    /* no two items with the same "type" */
	OCI_KEYED = 1 << 4,     /* an object {name: item}; the name is the item's first field */
	OCI_ANY = 1 << 5,       /* absent = -1 */
};

struct oci_row {
	const char *member; /* "a.b" reaches into an object */
	const char *field;
	unsigned rules;
	const char *const *words; /* what a string may be, NULL-terminated; NULL = anything */
};

struct oci_table {
	const ProtobufCMessageDescriptor *type;
	const struct oci_row *rows;
	size_t nrows;
};

/* clang-format off */

/* ---- Words. */

static const char *const oci_namespaces[] = {
	"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time", NULL
};
static const char *const oci_clocks[] = { "monotonic", "boottime", NULL };
static const char *const oci_devices[] = { "c", "b", "u", "p", NULL };
static const char *const oci_device_rules[] = { "a", "c", "b", "u", "p", "", NULL };
static const char *const oci_rlimits[] = {
	"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS",
	"RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC",
	"RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK", NULL
};
static const char *const oci_propagations[] = {
	"", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable",
	"runbindable", NULL
};
static const char *const oci_ioprio_classes[] = {
	"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", NULL
};
static const char *const oci_policies[] = {
	"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE",
	"SCHED_DEADLINE", NULL
};
static const char *const oci_actions[] = {
	"SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP",
	"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", NULL
};
static const char *const oci_archs[] = {
	"SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64",
	"SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL",
	"SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64",
	"SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_PARISC",
	"SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K",
	"SCMP_ARCH_SH", "SCMP_ARCH_SHEB", NULL
};
static const char *const oci_operators[] = {
	"SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
	"SCMP_CMP_MASKED_EQ", NULL
};

/* ---- config.md. */

static const struct oci_row oci_spec_rows[] = {
	{ "ociVersion",  "Version",     OCI_REQUIRED, NULL },
	{ "process",     "Process",     0,            NULL },
	{ "root",        "Root",        0,            NULL },
	{ "hostname",    "Hostname",    0,            NULL },
	{ "domainname",  "Domainname",  0,            NULL },
	{ "mounts",      "Mounts",      0,            NULL },
	{ "hooks",       "Hooks",       0,            NULL },
	{ "annotations", "Annotations", 0,            NULL },
	{ "linux",       "Linux",       0,            NULL },
};
static const struct oci_row oci_root_rows[] = {
	{ "path",     "Path",     OCI_REQUIRED, NULL },
	{ "readonly", "Readonly", 0,            NULL },
};
static const struct oci_row oci_mount_rows[] = {
	{ "destination", "destination",  OCI_REQUIRED | OCI_ABSOLUTE, NULL },
	{ "source",      "source",       0,                           NULL },
	{ "type",        "type",         0,                           NULL },
	{ "options",     "options",      0,                           NULL },
	{ "uidMappings", "uid_mappings", 0,                           NULL },
	{ "gidMappings", "gid_mappings", 0,                           NULL },
};
static const struct oci_row oci_process_rows[] = {
	{ "terminal",        "Terminal",        0,                            NULL },
	{ "consoleSize",     "ConsoleSize",     0,                            NULL },
	{ "cwd",             "Cwd",             OCI_REQUIRED | OCI_ABSOLUTE,  NULL },
	{ "env",             "Env",             0,                            NULL },
	{ "args",            "Args",            OCI_REQUIRED | OCI_NOT_EMPTY, NULL },
	{ "rlimits",         "Rlimits",         OCI_UNIQUE,                   NULL },
	{ "apparmorProfile", "ApparmorProfile", 0,                            NULL },
	{ "capabilities",    "Capabilities",    0,                            NULL },
	{ "noNewPrivileges", "NoNewPrivileges", 0,                            NULL },
	{ "oomScoreAdj",     "OOMScoreAdj",     0,                            NULL },
	{ "scheduler",       "Scheduler",       0,                            NULL },
	{ "selinuxLabel",    "SelinuxLabel",    0,                            NULL },
	{ "ioPriority",      "IOPriority",      0,                            NULL },
	{ "user",            "User",            0,                            NULL },
	{ "user.umask",      "Umask",           0,                            NULL },
};
static const struct oci_row oci_box_rows[] = {
	{ "height", "Height", OCI_REQUIRED, NULL },
	{ "width",  "Width",  OCI_REQUIRED, NULL },
};
static const struct oci_row oci_user_rows[] = {
	{ "uid",            "UID",            0, NULL },
	{ "gid",            "GID",            0, NULL },
	{ "additionalGids", "AdditionalGids", 0, NULL },
	{ "username",       "Username",       0, NULL },
};
static const struct oci_row oci_rlimit_rows[] = {
	{ "type", "Type", OCI_REQUIRED, oci_rlimits },
	{ "soft", "Soft", OCI_REQUIRED, NULL },
	{ "hard", "Hard", OCI_REQUIRED, NULL },
};
static const struct oci_row oci_caps_rows[] = {
	{ "effective",   "Effective",   0, NULL },
	{ "bounding",    "Bounding",    0, NULL },
	{ "inheritable", "Inheritable", 0, NULL },
	{ "permitted",   "Permitted",   0, NULL },
	{ "ambient",     "Ambient",     0, NULL },
};
static const struct oci_row oci_scheduler_rows[] = {
	{ "policy",   "policy",   OCI_REQUIRED, oci_policies },
	{ "nice",     "nice",     0,            NULL },
	{ "priority", "priority", 0,            NULL },
};
static const struct oci_row oci_ioprio_rows[] = {
	{ "class",    "class",    OCI_REQUIRED, oci_ioprio_classes },
	{ "priority", "priority", 0,            NULL },
};
static const struct oci_row oci_hooks_rows[] = {
	{ "prestart",        "Prestart",        0, NULL },
	{ "createRuntime",   "CreateRuntime",   0, NULL },
	{ "createContainer", "CreateContainer", 0, NULL },
	{ "startContainer",  "StartContainer",  0, NULL },
	{ "poststart",       "Poststart",       0, NULL },
	{ "poststop",        "Poststop",        0, NULL },
};
static const struct oci_row oci_hook_rows[] = {
	{ "path",    "Path",    OCI_REQUIRED | OCI_ABSOLUTE, NULL },
	{ "args",    "Args",    0,                           NULL },
	{ "env",     "Env",     0,                           NULL },
	{ "timeout", "Timeout", 0,                           NULL },
};

/* ---- config-linux.md. */

static const struct oci_row oci_linux_rows[] = {
	{ "namespaces",        "Namespaces",        OCI_UNIQUE,   NULL },
	{ "uidMappings",       "UIDMappings",       0,            NULL },
	{ "gidMappings",       "GIDMappings",       0,            NULL },
	{ "timeOffsets",       "TimeOffsets",       OCI_KEYED,    oci_clocks },
	{ "devices",           "Devices",           0,            NULL },
	{ "cgroupsPath",       "CgroupsPath",       0,            NULL },
	{ "resources",         "Resources",         0,            NULL },
	{ "intelRdt",          "IntelRdt",          0,            NULL },
	{ "sysctl",            "Sysctl",            0,            NULL },
	{ "seccomp",           "Seccomp",           0,            NULL },
	{ "rootfsPropagation", "RootfsPropagation", 0,            oci_propagations },
	{ "maskedPaths",       "MaskedPaths",       OCI_ABSOLUTE, NULL },
	{ "readonlyPaths",     "ReadonlyPaths",     OCI_ABSOLUTE, NULL },
	{ "mountLabel",        "MountLabel",        0,            NULL },
};
static const struct oci_row oci_namespace_rows[] = {
	{ "type", "Type", OCI_REQUIRED, oci_namespaces },
	{ "path", "Path", OCI_ABSOLUTE, NULL },
};
static const struct oci_row oci_idmap_rows[] = {
	{ "containerID", "ContainerID", OCI_REQUIRED, NULL },
	{ "hostID",      "HostID",      OCI_REQUIRED, NULL },
	{ "size",        "Size",        OCI_REQUIRED, NULL },
};
static const struct oci_row oci_offset_rows[] = {
	{ "secs",     "secs",     0, NULL },
	{ "nanosecs", "nanosecs", 0, NULL },
};
static const struct oci_row oci_device_rows[] = {
	{ "type",     "Type",     OCI_REQUIRED,                oci_devices },
	{ "path",     "Path",     OCI_REQUIRED | OCI_ABSOLUTE, NULL },
	{ "major",    "Major",    0,                           NULL },
	{ "minor",    "Minor",    0,                           NULL },
	{ "fileMode", "FileMode", 0,                           NULL },
	{ "uid",      "UID",      0,                           NULL },
	{ "gid",      "GID",      0,                           NULL },
};
static const struct oci_row oci_rdt_rows[] = {
	{ "l3CacheSchema", "L3CacheSchema", 0, NULL },
};
static const struct oci_row oci_resources_rows[] = {
	{ "devices",        "Devices",        0, NULL },
	{ "memory",         "Memory",         0, NULL },
	{ "cpu",            "CPU",            0, NULL },
	{ "pids",           "Pids",           0, NULL },
	{ "blockIO",        "BlockIO",        0, NULL },
	{ "hugepageLimits", "HugepageLimits", 0, NULL },
	{ "network",        "Network",        0, NULL },
	{ "unified",        "unified",        0, NULL },
};
static const struct oci_row oci_device_rule_rows[] = {
	{ "allow",  "Allow",  OCI_REQUIRED, NULL },
	{ "type",   "Type",   0,            oci_device_rules },
	{ "major",  "Major",  OCI_ANY,      NULL },
	{ "minor",  "Minor",  OCI_ANY,      NULL },
	{ "access", "Access", 0,            NULL },
};
static const struct oci_row oci_memory_rows[] = {
	{ "limit",            "Limit",            0, NULL },
	{ "reservation",      "Reservation",      0, NULL },
	{ "swap",             "Swap",             0, NULL },
	{ "kernel",           "Kernel",           0, NULL },
	{ "kernelTCP",        "KernelTCP",        0, NULL },
	{ "swappiness",       "Swappiness",       0, NULL },
	{ "disableOOMKiller", "DisableOOMKiller", 0, NULL },
};
static const struct oci_row oci_cpu_rows[] = {
	{ "shares",          "Shares",          0, NULL },
	{ "quota",           "Quota",           0, NULL },
	{ "period",          "Period",          0, NULL },
	{ "realtimeRuntime", "RealtimeRuntime", 0, NULL },
	{ "realtimePeriod",  "RealtimePeriod",  0, NULL },
	{ "cpus",            "Cpus",            0, NULL },
	{ "mems",            "Mems",            0, NULL },
};
static const struct oci_row oci_pids_rows[] = {
	{ "limit", "Limit", 0, NULL },
};
static const struct oci_row oci_block_rows[] = {
	{ "weight",                  "Weight",                  0, NULL },
	{ "leafWeight",              "LeafWeight",              0, NULL },
	{ "weightDevice",            "WeightDevice",            0, NULL },
	{ "throttleReadBpsDevice",   "ThrottleReadBpsDevice",   0, NULL },
	{ "throttleWriteBpsDevice",  "ThrottleWriteBpsDevice",  0, NULL },
	{ "throttleReadIOPSDevice",  "ThrottleReadIOPSDevice",  0, NULL },
	{ "throttleWriteIOPSDevice", "ThrottleWriteIOPSDevice", 0, NULL },
};
static const struct oci_row oci_weight_rows[] = {
	{ "major",      "Major",      OCI_REQUIRED, NULL },
	{ "minor",      "Minor",      OCI_REQUIRED, NULL },
	{ "weight",     "Weight",     0,            NULL },
	{ "leafWeight", "LeafWeight", 0,            NULL },
};
static const struct oci_row oci_throttle_rows[] = {
	{ "major", "Major", OCI_REQUIRED, NULL },
	{ "minor", "Minor", OCI_REQUIRED, NULL },
	{ "rate",  "Rate",  OCI_REQUIRED, NULL },
};
static const struct oci_row oci_hugepage_rows[] = {
	{ "pageSize", "Pagesize", OCI_REQUIRED, NULL },
	{ "limit",    "Limit",    OCI_REQUIRED, NULL },
};
static const struct oci_row oci_network_rows[] = {
	{ "classID",    "ClassID",    0, NULL },
	{ "priorities", "Priorities", 0, NULL },
};
static const struct oci_row oci_priority_rows[] = {
	{ "name",     "Name",     OCI_REQUIRED, NULL },
	{ "priority", "Priority", OCI_REQUIRED, NULL },
};
static const struct oci_row oci_seccomp_rows[] = {
	{ "defaultAction",   "DefaultAction",   OCI_REQUIRED, oci_actions },
	{ "defaultErrnoRet", "DefaultErrnoRet", 0,            NULL },
	{ "architectures",   "Architectures",   0,            oci_archs },
	{ "flags",           "Flags",           0,            NULL },
	{ "syscalls",        "Syscalls",        0,            NULL },
};
static const struct oci_row oci_syscall_rows[] = {
	{ "names",    "Names",    OCI_REQUIRED | OCI_NOT_EMPTY, NULL },
	{ "action",   "Action",   OCI_REQUIRED,                 oci_actions },
	{ "errnoRet", "ErrnoRet", 0,                            NULL },
	{ "args",     "Args",     0,                            NULL },
};
static const struct oci_row oci_seccomp_arg_rows[] = {
	{ "index",    "Index",    OCI_REQUIRED, NULL },
	{ "value",    "Value",    OCI_REQUIRED, NULL },
	{ "valueTwo", "ValueTwo", 0,            NULL },
	{ "op",       "Op",       OCI_REQUIRED, oci_operators },
};

#define OCI_TABLE(message, table) { &grpc__##message##__descriptor, table, ARRAY_LEN(table) }
static const struct oci_table oci_tables[] = {
	OCI_TABLE(spec, oci_spec_rows),
	OCI_TABLE(root, oci_root_rows),
	OCI_TABLE(mount, oci_mount_rows),
	OCI_TABLE(process, oci_process_rows),
	OCI_TABLE(box, oci_box_rows),
	OCI_TABLE(user, oci_user_rows),
	OCI_TABLE(posixrlimit, oci_rlimit_rows),
	OCI_TABLE(linux_capabilities, oci_caps_rows),
	OCI_TABLE(scheduler, oci_scheduler_rows),
	OCI_TABLE(linux_iopriority, oci_ioprio_rows),
	OCI_TABLE(hooks, oci_hooks_rows),
	OCI_TABLE(hook, oci_hook_rows),
	OCI_TABLE(linux, oci_linux_rows),
	OCI_TABLE(linux_namespace, oci_namespace_rows),
	OCI_TABLE(linux_idmapping, oci_idmap_rows),
	OCI_TABLE(linux_time_offset, oci_offset_rows),
	OCI_TABLE(linux_device, oci_device_rows),
	OCI_TABLE(linux_intel_rdt, oci_rdt_rows),
	OCI_TABLE(linux_resources, oci_resources_rows),
	OCI_TABLE(linux_device_cgroup, oci_device_rule_rows),
	OCI_TABLE(linux_memory, oci_memory_rows),
	OCI_TABLE(linux_cpu, oci_cpu_rows),
	OCI_TABLE(linux_pids, oci_pids_rows),
	OCI_TABLE(linux_block_io, oci_block_rows),
	OCI_TABLE(linux_weight_device, oci_weight_rows),
	OCI_TABLE(linux_throttle_device, oci_throttle_rows),
	OCI_TABLE(linux_hugepage_limit, oci_hugepage_rows),
	OCI_TABLE(linux_network, oci_network_rows),
	OCI_TABLE(linux_interface_priority, oci_priority_rows),
	OCI_TABLE(linux_seccomp, oci_seccomp_rows),
	OCI_TABLE(linux_syscall, oci_syscall_rows),
	OCI_TABLE(linux_seccomp_arg, oci_seccomp_arg_rows),
};
#undef OCI_TABLE

/* clang-format on */

/* ---- The interpreter. */

static int oci_read_object(const struct json *v, ProtobufCMessage *m, struct err *e);

static ProtobufCMessage *oci_message_new(const ProtobufCMessageDescriptor *type)
{
	ProtobufCMessage *m = mem_zalloc(type->sizeof_message);

	protobuf_c_message_init(type, m);
	return m;
}

static int oci_read_string(const struct oci_row *row, const struct json *v, const char *s,
			   char **slot, struct err *e)
{
	if ((row->rules & OCI_ABSOLUTE) && *s && *s != '/')
		return json_refuse(v, e, "must be an absolute path");
	if ((row->rules & OCI_ABSOLUTE) && (row->rules & OCI_REQUIRED) && !*s)
		return json_refuse(v, e, "must be an absolute path");
	if (row->words) {
		const char *const *w = row->words;
		while (*w && strcmp(*w, s) != 0)
			w++;
		if (!*w)
			return json_refuse(v, e, "unknown value \"%.64s\"", s);
	}
	*slot = mem_strdup(s);
	return 0;
}

/* One value of the field's type to *slot: a scalar, or a pointer for strings and messages. */
static int oci_read_value(const struct oci_row *row, const ProtobufCFieldDescriptor *f,
			  const struct json *v, void *slot, struct err *e)
{
	const char *s = NULL;
	ProtobufCMessage *m;
	bool is_true = false;
	uint64_t u = 0;
	int64_t i = 0;

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		if (json_is(v, JSON_STRING, e) < 0 || json_str(v, &s, e) < 0)
			return -EINVAL;
		return oci_read_string(row, v, s, slot, e);
	case PROTOBUF_C_TYPE_BOOL:
		if (json_bool(v, &is_true, e) < 0)
			return -EINVAL;
		*(protobuf_c_boolean *)slot = is_true;
		return 0;
	case PROTOBUF_C_TYPE_UINT32:
		if (json_u64(v, 0, UINT32_MAX, &u, e) < 0)
			return -EINVAL;
		*(uint32_t *)slot = (uint32_t)u;
		return 0;
	case PROTOBUF_C_TYPE_UINT64:
		return json_u64(v, 0, UINT64_MAX, slot, e);
	case PROTOBUF_C_TYPE_INT32:
		if (json_i64(v, INT32_MIN, INT32_MAX, &i, e) < 0)
			return -EINVAL;
		*(int32_t *)slot = (int32_t)i;
		return 0;
	case PROTOBUF_C_TYPE_INT64:
		return json_i64(v, INT64_MIN, INT64_MAX, slot, e);
	case PROTOBUF_C_TYPE_MESSAGE:
		m = oci_message_new(f->descriptor);
		*(ProtobufCMessage **)slot = m; /* freed with its owner, also when half read */
		return oci_read_object(v, m, e);
	default:
		ASSERT(!"a type that oci.proto does not use");
	}
}

static size_t oci_value_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_INT32:
		return 4;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	default:
		return 8;
	}
}

static bool oci_is_map(const ProtobufCFieldDescriptor *f)
{
	const ProtobufCMessageDescriptor *type = f->descriptor;

	return f->type == PROTOBUF_C_TYPE_MESSAGE && type->n_fields == 2 &&
	       strcmp(type->fields[0].name, "key") == 0;
}

/* A member of an object into an item: its name to the first field, a map's value to the second. */
static int oci_read_named(const struct oci_row *row, const ProtobufCFieldDescriptor *f,
			  const struct json *v, void *slot, struct err *e)
{
	static const struct oci_row anything = { "", "", 0, NULL };
	const ProtobufCMessageDescriptor *type = f->descriptor;
	ProtobufCMessage *m = oci_message_new(type);
	char *at = (char *)m;

	*(ProtobufCMessage **)slot = m;
	if (oci_read_string(row, v, v->key, (char **)(at + type->fields[0].offset), e) < 0)
		return -EINVAL;
	if (!oci_is_map(f))
		return oci_read_object(v, m, e);
	if (json_is(v, JSON_STRING, e) < 0)
		return -EINVAL;
	return oci_read_value(&anything, &type->fields[1], v, at + type->fields[1].offset, e);
}

static int oci_check_unique(const struct json *list, struct err *e)
{
	json_each(a, list) {
		const char *type = json_get(a, "type")->text;
		for (const struct json *b = list->first; b != a; b = b->next)
			if (strcmp(json_get(b, "type")->text, type) == 0)
				return json_refuse(a, e, "the second \"%s\"", type);
	}
	return 0;
}

static int oci_read_repeated(const struct oci_row *row, const ProtobufCFieldDescriptor *f,
			     const struct json *v, ProtobufCMessage *m, struct err *e)
{
	bool named = oci_is_map(f) || (row->rules & OCI_KEYED);
	size_t *count = (size_t *)((char *)m + f->quantifier_offset);
	size_t each = oci_value_size(f);
	char *items;

	if (!named && v->type != JSON_LIST && f->type == PROTOBUF_C_TYPE_STRING)
		return json_refuse(v, e, "must be a list of strings");
	if (json_is(v, named ? JSON_OBJECT : JSON_LIST, e) < 0)
		return -EINVAL;
	if (v->n == 0)
		return row->rules & OCI_NOT_EMPTY ? json_refuse(v, e, "must not be empty") : 0;
	if (v->n > (named ? OCI_SPEC_MAX_NAMES : OCI_SPEC_MAX_ITEMS))
		return json_refuse(v, e, "too many items");
	items = mem_calloc(v->n, each);
	*(void **)((char *)m + f->offset) = items;
	json_each(item, v) {
		char *slot = items + *count * each;
		if (named && json_get(v, item->key) != item) /* null, or given again later */
			continue;
		++*count; /* counted first: a half-read item is freed with the rest */
		if ((named ? oci_read_named : oci_read_value)(row, f, item, slot, e) < 0)
			return -EINVAL;
	}
	return row->rules & OCI_UNIQUE ? oci_check_unique(v, e) : 0;
}

static int oci_read_row(const struct oci_row *row, const struct json *v, ProtobufCMessage *m,
			struct err *e)
{
	const ProtobufCFieldDescriptor *f =
		protobuf_c_message_descriptor_get_field_by_name(m->descriptor, row->field);
	const struct json *member = json_find(v, row->member);
	char *slot = (char *)m;

	ASSERT(f);
	slot += f->offset;
	if (!member && (row->rules & OCI_REQUIRED))
		return json_refuse(v, e, "\"%s\" is required", row->member);
	if (!member && (row->rules & OCI_ANY))
		*(int64_t *)slot = -1;
	if (!member)
		return 0;
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return oci_read_repeated(row, f, member, m, e);
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		*(uint32_t *)((char *)m + f->quantifier_offset) = f->id;
	return oci_read_value(row, f, member, slot, e);
}

/* config-linux.md "Devices": major, minor are REQUIRED unless type is p. */
static int oci_check_device(const struct json *v, struct err *e)
{
	if (strcmp(json_get(v, "type")->text, "p") == 0 ||
	    (json_get(v, "major") && json_get(v, "minor")))
		return 0;
	return json_refuse(v, e, "\"major\" and \"minor\" are required");
}

static int oci_read_object(const struct json *v, ProtobufCMessage *m, struct err *e)
{
	const struct oci_table *t = oci_tables;

	while (t->type != m->descriptor)
		ASSERT(++t < oci_tables + ARRAY_LEN(oci_tables));
	if (json_is(v, JSON_OBJECT, e) < 0)
		return -EINVAL;
	for (size_t i = 0; i < t->nrows; i++)
		if (oci_read_row(&t->rows[i], v, m, e) < 0)
			return -EINVAL;
	return t->rows == oci_device_rows ? oci_check_device(v, e) : 0;
}

static void *oci_parse(const ProtobufCMessageDescriptor *type, const void *text, size_t n,
		       struct err *e)
{
	AUTO_JSON struct json_doc doc = { 0 };
	ProtobufCMessage *m;

	if (n > OCI_SPEC_MAX_BYTES) {
		err_set(e, -EINVAL, "longer than %u bytes", OCI_SPEC_MAX_BYTES);
		return NULL;
	}
	if (json_parse(&doc, text, n, e) < 0)
		return NULL;
	m = oci_message_new(type);
	if (oci_read_object(doc.root, m, e) < 0) {
		protobuf_c_message_free_unpacked(m, NULL);
		return NULL;
	}
	return m;
}

Grpc__Spec *oci_spec_parse(const void *text, size_t n, struct err *e)
{
	return oci_parse(&grpc__spec__descriptor, text, n, e);
}

Grpc__Process *oci_process_parse(const void *text, size_t n, struct err *e)
{
	return oci_parse(&grpc__process__descriptor, text, n, e);
}

Grpc__LinuxResources *oci_resources_parse(const void *text, size_t n, struct err *e)
{
	return oci_parse(&grpc__linux_resources__descriptor, text, n, e);
}
