#include "guest/agent/caps.h"

#include <linux/capability.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* linux/capability.h, in its order: the index is the number. */
static const char *const ga_caps_names[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"DAC_READ_SEARCH",
	"FOWNER",
	"FSETID",
	"KILL",
	"SETGID",
	"SETUID",
	"SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE",
	"NET_BROADCAST",
	"NET_ADMIN",
	"NET_RAW",
	"IPC_LOCK",
	"IPC_OWNER",
	"SYS_MODULE",
	"SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE",
	"SYS_PACCT",
	"SYS_ADMIN",
	"SYS_BOOT",
	"SYS_NICE",
	"SYS_RESOURCE",
	"SYS_TIME",
	"SYS_TTY_CONFIG",
	"MKNOD",
	"LEASE",
	"AUDIT_WRITE",
	"AUDIT_CONTROL",
	"SETFCAP",
	"MAC_OVERRIDE",
	"MAC_ADMIN",
	"SYSLOG",
	"WAKE_ALARM",
	"BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON",
	"BPF",
	"CHECKPOINT_RESTORE",
};

int ga_caps_number(const char *name)
{
	if (!strncasecmp(name, "CAP_", 4))
		name += 4;
	for (size_t i = 0; i < ARRAY_LEN(ga_caps_names); i++)
		if (!strcasecmp(ga_caps_names[i], name))
			return (int)i;
	return -EINVAL;
}

static uint64_t ga_caps_set(char *const *names, size_t n)
{
	uint64_t set = 0;

	for (size_t i = 0; i < n; i++) {
		int k = ga_caps_number(names[i]);
		if (k >= 0)
			set |= UINT64_C(1) << k;
	}
	return set;
}

void ga_caps_parse(const Grpc__LinuxCapabilities *c, struct ga_caps *out)
{
	*out = (struct ga_caps){ 0 };
	if (!c)
		return;
	out->bounding = ga_caps_set(c->bounding, c->n_bounding);
	out->effective = ga_caps_set(c->effective, c->n_effective);
	out->inheritable = ga_caps_set(c->inheritable, c->n_inheritable);
	out->permitted = ga_caps_set(c->permitted, c->n_permitted);
	out->ambient = ga_caps_set(c->ambient, c->n_ambient);
}

static int ga_caps_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable,
			  struct err *e)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32),
		  (uint32_t)(inheritable >> 32) },
	};

	if (syscall(SYS_capset, &h, d) < 0)
		return err_set(e, -errno, "capset: %m");
	return 0;
}

int ga_caps_prepare(const struct ga_caps *c, struct err *e)
{
	/* Up to the kernel's last one, which may be newer than our table. */
	for (int k = 0; k < 64 && prctl(PR_CAPBSET_READ, k, 0, 0, 0) >= 0; k++)
		if (!(c->bounding >> k & 1) && prctl(PR_CAPBSET_DROP, k, 0, 0, 0) < 0)
			return err_set(e, -errno, "drop capability %d from the bounding set: %m",
				       k);
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "keep capabilities: %m");
	return 0;
}

#define GA_CAPS_ADMIN (UINT64_C(1) << CAP_SYS_ADMIN)

int ga_caps_apply(const struct ga_caps *c, bool keep_admin, struct err *e)
{
	uint64_t keep = keep_admin ? GA_CAPS_ADMIN : 0;

	if (ga_caps_capset(c->effective, c->permitted | keep, c->inheritable, e) < 0)
		return e->code;
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
		return err_set(e, -errno, "keep capabilities: %m");
	/* Nothing ambient may be left over from before (there is nothing, unless we are tested). */
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (int k = 0; k < 64; k++)
		if (c->ambient >> k & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, k, 0, 0) < 0)
			return err_set(e, -errno, "raise ambient capability %s: %m",
				       ga_caps_names[k]);
	return 0;
}

int ga_caps_raise_admin(const struct ga_caps *c, struct err *e)
{
	return ga_caps_capset(c->effective | GA_CAPS_ADMIN, c->permitted | GA_CAPS_ADMIN,
			      c->inheritable, e);
}

int ga_caps_final(const struct ga_caps *c, struct err *e)
{
	return ga_caps_capset(c->effective, c->permitted, c->inheritable, e);
}

#undef GA_CAPS_ADMIN
