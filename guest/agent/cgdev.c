#include "guest/agent/cgdev.h"

#include <sys/syscall.h>

#include "amalgam/base/mem.h"

/* ---- Rules */

#define GA_CGDEV_MKNOD BPF_DEVCG_ACC_MKNOD
#define GA_CGDEV_READ  BPF_DEVCG_ACC_READ
#define GA_CGDEV_WRITE BPF_DEVCG_ACC_WRITE
#define GA_CGDEV_ALL   (GA_CGDEV_MKNOD | GA_CGDEV_READ | GA_CGDEV_WRITE)

/* "rwm" -> bits, 0 if there is another letter. */
static unsigned ga_cgdev_access(const char *s)
{
	unsigned bits = 0;

	for (; *s; s++) {
		if (*s == 'r')
			bits |= GA_CGDEV_READ;
		else if (*s == 'w')
			bits |= GA_CGDEV_WRITE;
		else if (*s == 'm')
			bits |= GA_CGDEV_MKNOD;
		else
			return 0;
	}
	return bits;
}

/* An "a" rule is about every device, whatever numbers stand in it. */
static bool ga_cgdev_is_all(const Grpc__LinuxDeviceCgroup *r)
{
	return r->type[0] == 'a' || r->type[0] == '\0';
}

/* ---- Program
 *
 *	r2 = access wanted, r3 = type, r4 = major, r5 = minor
 *	for each rule, last first:
 *		if r3 != type  goto next        (unless all)
 *		if r4 != major goto next        (unless any)
 *		if r5 != minor goto next        (unless any)
 *		r1 = r2 & ~access; if r1 != 0 goto next     (allow)
 *		r1 = r2 & access;  if r1 == 0 goto next     (deny)
 *		r0 = allow; exit
 *	next: ...
 *	r0 = 0; exit
 */

struct ga_cgdev_prog {
	struct bpf_insn *insn;
	size_t n, cap;
};

static size_t ga_cgdev_emit(struct ga_cgdev_prog *p, uint8_t code, uint8_t dst, uint8_t src,
			    int16_t off, int32_t imm)
{
	if (p->n == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 64;
		p->insn = mem_realloc(p->insn, p->cap * sizeof *p->insn);
	}
	p->insn[p->n] = (struct bpf_insn){
		.code = code, .dst_reg = dst & 15, .src_reg = src & 15, .off = off, .imm = imm
	};
	return p->n++;
}

#define GA_CGDEV_MOV_REG (BPF_ALU64 | BPF_MOV | BPF_X)
#define GA_CGDEV_MOV_IMM (BPF_ALU64 | BPF_MOV | BPF_K)
#define GA_CGDEV_AND_IMM (BPF_ALU | BPF_AND | BPF_K)
#define GA_CGDEV_RSH_IMM (BPF_ALU | BPF_RSH | BPF_K)
#define GA_CGDEV_LOAD32  (BPF_LDX | BPF_MEM | BPF_W)
#define GA_CGDEV_JNE_IMM (BPF_JMP | BPF_JNE | BPF_K)
#define GA_CGDEV_JEQ_IMM (BPF_JMP | BPF_JEQ | BPF_K)
#define GA_CGDEV_EXIT    (BPF_JMP | BPF_EXIT)

static void ga_cgdev_prologue(struct ga_cgdev_prog *p)
{
	/* struct bpf_cgroup_dev_ctx: access_type = access << 16 | type */
	ga_cgdev_emit(p, GA_CGDEV_LOAD32, 2, 1, offsetof(struct bpf_cgroup_dev_ctx, access_type),
		      0);
	ga_cgdev_emit(p, GA_CGDEV_MOV_REG, 3, 2, 0, 0);
	ga_cgdev_emit(p, GA_CGDEV_AND_IMM, 3, 0, 0, 0xffff);
	ga_cgdev_emit(p, GA_CGDEV_RSH_IMM, 2, 0, 0, 16);
	ga_cgdev_emit(p, GA_CGDEV_LOAD32, 4, 1, offsetof(struct bpf_cgroup_dev_ctx, major), 0);
	ga_cgdev_emit(p, GA_CGDEV_LOAD32, 5, 1, offsetof(struct bpf_cgroup_dev_ctx, minor), 0);
}

static void ga_cgdev_answer(struct ga_cgdev_prog *p, bool allow)
{
	ga_cgdev_emit(p, GA_CGDEV_MOV_IMM, 0, 0, 0, allow);
	ga_cgdev_emit(p, GA_CGDEV_EXIT, 0, 0, 0, 0);
}

static void ga_cgdev_rule(struct ga_cgdev_prog *p, const Grpc__LinuxDeviceCgroup *r, unsigned has)
{
	size_t jumps[4];
	unsigned n = 0;

	if (!ga_cgdev_is_all(r))
		jumps[n++] =
			ga_cgdev_emit(p, GA_CGDEV_JNE_IMM, 3, 0, 0,
				      r->type[0] == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
	if (!ga_cgdev_is_all(r) && r->major >= 0)
		jumps[n++] = ga_cgdev_emit(p, GA_CGDEV_JNE_IMM, 4, 0, 0, (int32_t)r->major);
	if (!ga_cgdev_is_all(r) && r->minor >= 0)
		jumps[n++] = ga_cgdev_emit(p, GA_CGDEV_JNE_IMM, 5, 0, 0, (int32_t)r->minor);
	if (has != GA_CGDEV_ALL) {
		ga_cgdev_emit(p, GA_CGDEV_MOV_REG, 1, 2, 0, 0);
		ga_cgdev_emit(p, GA_CGDEV_AND_IMM, 1, 0, 0,
			      (int32_t)(r->allow ? ~has & GA_CGDEV_ALL : has));
		jumps[n++] = ga_cgdev_emit(p, r->allow ? GA_CGDEV_JNE_IMM : GA_CGDEV_JEQ_IMM, 1, 0,
					   0, 0);
	}
	ga_cgdev_answer(p, r->allow);
	for (unsigned i = 0; i < n; i++)
		p->insn[jumps[i]].off = (int16_t)(p->n - jumps[i] - 1);
}

int ga_cgdev_compile(Grpc__LinuxDeviceCgroup *const *rules, size_t n, struct bpf_insn **insns,
		     size_t *count, struct err *e)
{
	struct ga_cgdev_prog p = { 0 };

	if (n > GA_CGDEV_MAX_RULES)
		return err_set(e, -E2BIG, "%zu device rules, at most %d", n, GA_CGDEV_MAX_RULES);
	ga_cgdev_prologue(&p);
	while (n-- > 0) {
		const Grpc__LinuxDeviceCgroup *r = rules[n];
		unsigned has = *r->access ? ga_cgdev_access(r->access) : GA_CGDEV_ALL;
		if (!has || !strchr("abcu", *r->type) || r->major > INT32_MAX ||
		    r->minor > INT32_MAX) {
			free(p.insn);
			return err_set(e, -EINVAL, "device rule \"%s %lld:%lld %s\" is not valid",
				       r->type, (long long)r->major, (long long)r->minor,
				       r->access);
		}
		ga_cgdev_rule(&p, r, has);
		/* Nothing gets past a rule for everything, and the verifier refuses dead code. */
		if (ga_cgdev_is_all(r) && has == GA_CGDEV_ALL)
			goto done;
	}
	ga_cgdev_answer(&p, false);
done:
	*insns = p.insn;
	*count = p.n;
	return 0;
}

static int ga_cgdev_load(const struct bpf_insn *insns, size_t n, struct err *e)
{
	union bpf_attr a;
	long fd;

	memset(&a, 0, sizeof a);
	a.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	a.insns = (uintptr_t)insns;
	a.insn_cnt = (uint32_t)n;
	a.license = (uintptr_t) "GPL";
	fd = syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a);
	if (fd < 0)
		return err_set(e, -errno, "load device program: %m");
	return (int)fd;
}

int ga_cgdev_attach(int cgroup_fd, Grpc__LinuxDeviceCgroup *const *rules, size_t n, int *prog_fd,
		    struct err *e)
{
	AUTO_FREE struct bpf_insn *insns = NULL;
	AUTO_CLOSE int fd = -1;
	union bpf_attr a;
	size_t count = 0;

	if (ga_cgdev_compile(rules, n, &insns, &count, e) < 0)
		return e->code;
	fd = ga_cgdev_load(insns, count, e);
	if (fd < 0)
		return fd;
	memset(&a, 0, sizeof a);
	a.attach_type = BPF_CGROUP_DEVICE;
	a.target_fd = (uint32_t)cgroup_fd;
	a.attach_bpf_fd = (uint32_t)fd;
	/* MULTI: a container runtime inside the container can add its own, not undo ours. */
	a.attach_flags = BPF_F_ALLOW_MULTI;
	if (*prog_fd >= 0) {
		a.attach_flags |= BPF_F_REPLACE;
		a.replace_bpf_fd = (uint32_t)*prog_fd;
	}
	if (syscall(SYS_bpf, BPF_PROG_ATTACH, &a, sizeof a) < 0)
		return err_set(e, -errno, "attach device program: %m");
	if (*prog_fd >= 0)
		close(*prog_fd);
	*prog_fd = take_fd(&fd);
	return 0;
}

#undef GA_CGDEV_MOV_REG
#undef GA_CGDEV_MOV_IMM
#undef GA_CGDEV_AND_IMM
#undef GA_CGDEV_RSH_IMM
#undef GA_CGDEV_LOAD32
#undef GA_CGDEV_JNE_IMM
#undef GA_CGDEV_JEQ_IMM
#undef GA_CGDEV_EXIT
