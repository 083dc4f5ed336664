#include "guest/agent/seccomp.h"

#include <ctype.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/str.h"

#define GA_SECCOMP_MAX_ARGS 6

/* runtime-spec "Seccomp", SeccompAction; ret: bits that take errnoRet. */
static const struct {
	const char *name;
	uint32_t action;
	bool has_ret;
} ga_seccomp_actions[] = {
	{ "SCMP_ACT_KILL", SCMP_ACT_KILL_THREAD, false },
	{ "SCMP_ACT_KILL_PROCESS", SCMP_ACT_KILL_PROCESS, false },
	{ "SCMP_ACT_KILL_THREAD", SCMP_ACT_KILL_THREAD, false },
	{ "SCMP_ACT_TRAP", SCMP_ACT_TRAP, false },
	{ "SCMP_ACT_ERRNO", SCMP_ACT_ERRNO(0), true },
	{ "SCMP_ACT_TRACE", SCMP_ACT_TRACE(0), true },
	{ "SCMP_ACT_ALLOW", SCMP_ACT_ALLOW, false },
	{ "SCMP_ACT_LOG", SCMP_ACT_LOG, false },
};

/* SeccompFlag; those that only concern threads we do not have are 0. */
static const struct {
	const char *name;
	unsigned flag;
} ga_seccomp_flags[] = {
	{ "SECCOMP_FILTER_FLAG_TSYNC", 0 },
	{ "SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG },
	{ "SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW },
};

static const struct {
	const char *name;
	enum scmp_compare op;
} ga_seccomp_ops[] = {
	{ "SCMP_CMP_NE", SCMP_CMP_NE },
	{ "SCMP_CMP_LT", SCMP_CMP_LT },
	{ "SCMP_CMP_LE", SCMP_CMP_LE },
	{ "SCMP_CMP_EQ", SCMP_CMP_EQ },
	{ "SCMP_CMP_GE", SCMP_CMP_GE },
	{ "SCMP_CMP_GT", SCMP_CMP_GT },
	{ "SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ },
};

static int ga_seccomp_action(const char *name, bool has_ret, uint32_t ret, uint32_t *out,
			     struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(ga_seccomp_actions); i++) {
		if (strcmp(ga_seccomp_actions[i].name, name) != 0)
			continue;
		*out = ga_seccomp_actions[i].action;
		if (ga_seccomp_actions[i].has_ret)
			*out |= (has_ret ? ret : EPERM) & 0xffff;
		return 0;
	}
	if (!strcmp(name, "SCMP_ACT_NOTIFY"))
		return err_set(e, -EOPNOTSUPP,
			       "action SCMP_ACT_NOTIFY is not supported: the listener "
			       "socket is on the host");
	return err_set(e, -EINVAL, "action \"%s\" is not known", name);
}

static int ga_seccomp_arg(const Grpc__LinuxSeccompArg *a, struct scmp_arg_cmp *out, struct err *e)
{
	if (a->index >= GA_SECCOMP_MAX_ARGS)
		return err_set(e, -EINVAL, "argument index %llu", (unsigned long long)a->index);
	for (size_t i = 0; i < ARRAY_LEN(ga_seccomp_ops); i++) {
		if (strcmp(ga_seccomp_ops[i].name, a->op) != 0)
			continue;
		*out = (struct scmp_arg_cmp){ .arg = (unsigned)a->index,
					      .op = ga_seccomp_ops[i].op,
					      .datum_a = a->value,
					      .datum_b = a->valuetwo };
		return 0;
	}
	return err_set(e, -EINVAL, "operator \"%s\" is not known", a->op);
}

/* libseccomp takes each argument once per rule. Conditions on the same one are alternatives, as in
 * other runtimes: a rule each. */
static int ga_seccomp_add(scmp_filter_ctx ctx, uint32_t action, int nr,
			  const struct scmp_arg_cmp *cmp, unsigned n)
{
	bool twice = false;
	int r = 0;

	for (unsigned i = 0; i < n; i++)
		for (unsigned k = 0; k < i; k++)
			twice |= cmp[i].arg == cmp[k].arg;
	if (!twice)
		return seccomp_rule_add_array(ctx, action, nr, n, cmp);
	for (unsigned i = 0; i < n && r == 0; i++)
		r = seccomp_rule_add_array(ctx, action, nr, 1, &cmp[i]);
	return r;
}

static int ga_seccomp_rule(scmp_filter_ctx ctx, const Grpc__LinuxSyscall *s, uint32_t fallback,
			   struct err *e)
{
	struct scmp_arg_cmp cmp[GA_SECCOMP_MAX_ARGS * 2];
	uint32_t action;

	if (ga_seccomp_action(s->action, s->errno_ret_case != 0, s->errnoret, &action, e) < 0)
		return e->code;
	if (action == fallback)
		return 0; /* says nothing, and libseccomp refuses it */
	if (s->n_args > ARRAY_LEN(cmp))
		return err_set(e, -EINVAL, "more than %zu conditions", ARRAY_LEN(cmp));
	for (size_t i = 0; i < s->n_args; i++)
		if (ga_seccomp_arg(s->args[i], &cmp[i], e) < 0)
			return e->code;
	for (size_t i = 0; i < s->n_names; i++) {
		int nr = seccomp_syscall_resolve_name(s->names[i]), r;
		if (nr == __NR_SCMP_ERROR)
			continue; /* newer, or of another architecture: profiles list them all */
		r = ga_seccomp_add(ctx, action, nr, cmp, (unsigned)s->n_args);
		if (r < 0)
			return err_set(e, r, "rule for %s: %s", s->names[i], strerror(-r));
	}
	return 0;
}

/* "SCMP_ARCH_X86_64" is libseccomp's "x86_64". The machine's own is always in. */
static int ga_seccomp_arch(scmp_filter_ctx ctx, const char *name, struct err *e)
{
	char lower[32] = "";
	uint32_t token;
	int r;

	if (str_starts(name, "SCMP_ARCH_"))
		for (size_t i = 0; i < sizeof lower - 1 && name[10 + i]; i++)
			lower[i] = (char)tolower((unsigned char)name[10 + i]);
	token = seccomp_arch_resolve_name(lower);
	if (!token)
		return err_set(e, -EINVAL, "architecture \"%s\" is not known", name);
	r = seccomp_arch_add(ctx, token);
	/* -EDOM: other byte order, which this kernel cannot run. */
	if (r < 0 && r != -EEXIST && r != -EDOM)
		return err_set(e, r, "architecture %s: %s", name, strerror(-r));
	return 0;
}

static int ga_seccomp_fill(scmp_filter_ctx ctx, const Grpc__LinuxSeccomp *p, uint32_t fallback,
			   struct err *e)
{
	for (size_t i = 0; i < p->n_architectures; i++)
		if (ga_seccomp_arch(ctx, p->architectures[i], e) < 0)
			return e->code;
	/* A binary tree over system call numbers instead of a list: large profiles stay cheap. */
	(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (size_t i = 0; i < p->n_syscalls; i++)
		if (ga_seccomp_rule(ctx, p->syscalls[i], fallback, e) < 0)
			return e->code;
	return 0;
}

/* libseccomp writes its program to a descriptor. */
static int ga_seccomp_export(scmp_filter_ctx ctx, struct ga_seccomp *out, struct err *e)
{
	AUTO_CLOSE int fd = fd_memfd("seccomp");
	off_t size;
	int r;

	if (fd < 0)
		return err_set(e, fd, "memory file: %s", strerror(-fd));
	r = seccomp_export_bpf(ctx, fd);
	size = r < 0 ? 0 : lseek(fd, 0, SEEK_END);
	if (r < 0 || size <= 0 || (size_t)size / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return err_set(e, r < 0 ? r : -E2BIG, "compile: %s", strerror(r < 0 ? -r : E2BIG));
	out->prog.filter = mem_zalloc((size_t)size);
	out->prog.len = (unsigned short)((size_t)size / sizeof(struct sock_filter));
	r = fd_pread_full(fd, out->prog.filter, (size_t)size, 0);
	return r < 0 ? err_set(e, r, "read the program: %s", strerror(-r)) : 0;
}

static int ga_seccomp_parse_flags(const Grpc__LinuxSeccomp *p, unsigned *flags, struct err *e)
{
	for (size_t i = 0; i < p->n_flags; i++) {
		size_t k = 0;
		while (k < ARRAY_LEN(ga_seccomp_flags) &&
		       strcmp(ga_seccomp_flags[k].name, p->flags[i]) != 0)
			k++;
		if (k == ARRAY_LEN(ga_seccomp_flags))
			return err_set(e, -EINVAL, "flag \"%s\" is not supported", p->flags[i]);
		*flags |= ga_seccomp_flags[k].flag;
	}
	return 0;
}

int ga_seccomp_compile(const Grpc__LinuxSeccomp *p, struct ga_seccomp *out, struct err *e)
{
	scmp_filter_ctx ctx;
	uint32_t fallback;
	int r;

	*out = (struct ga_seccomp){ .flags = 0 };
	if (!p || !*p->defaultaction)
		return 0;
	if (ga_seccomp_parse_flags(p, &out->flags, e) < 0 ||
	    ga_seccomp_action(p->defaultaction, p->default_errno_ret_case != 0, p->defaulterrnoret,
			      &fallback, e) < 0)
		return err_wrap(e, "seccomp");
	ctx = seccomp_init(fallback);
	if (!ctx)
		return err_set(e, -ENOMEM, "seccomp: default action %s", p->defaultaction);
	r = ga_seccomp_fill(ctx, p, fallback, e);
	if (r == 0)
		r = ga_seccomp_export(ctx, out, e);
	seccomp_release(ctx);
	if (r < 0) {
		ga_seccomp_fini(out);
		return err_wrap(e, "seccomp");
	}
	return 0;
}

void ga_seccomp_fini(struct ga_seccomp *s)
{
	free(s->prog.filter);
	*s = (struct ga_seccomp){ .flags = 0 };
}
