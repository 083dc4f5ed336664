/* quirk.c - keeps KVM in the test machine clear of a fault of QEMU's emulated SVM. Runs once, in init.
 *
 * When VMRUN injects an interrupt (EVENTINJ), QEMU leaves its number in the CPU's exception_index. If
 * QEMU then wants the CPU back, for a timer or an instruction budget that is used up, before the guest
 * has left by itself, it takes the leftover for an exception: the guest gets its interrupt twice, the
 * second time with interrupts disabled. One clone in about a hundred hung on a lock it held itself.
 *
 * Any exit clears the number. So two BPF programs on KVM's tracepoints send this CPU an interrupt
 * (irq_work, for a signal 0 that is not sent) just before an entry that injects; interrupts are off
 * there, and the guest comes back at once, before its first instruction.
 *
 * What it costs: an exit for each interrupt of a guest, and some hundred instructions for each entry. */
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS 32768 /* pid_max of a machine with up to 32 CPUs: each thread has a mark of its own */
#define PIN_DIR "/sys/fs/bpf"

static int bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof *attr);
}

static int fail(const char *what)
{
	fprintf(stderr, "rig: quirk: %s: %s\n", what, strerror(errno));
	return 1;
}

static int make_map(void)
{
	union bpf_attr a = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4,
			     .max_entries = THREADS };

	return bpf(BPF_MAP_CREATE, &a);
}

#define INSN(c, d, s, o, i) { .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) }
#define CALL(f)             INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_##f)
#define MOV(d, s)           INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define SET(d, i)           INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define JZERO(d, o)         INSN(BPF_JMP | BPF_JEQ | BPF_K, d, 0, o, 0)
#define MARK(i)             INSN(BPF_ST | BPF_MEM | BPF_W, 0, 0, 0, i) /* *r0 = i */

/* r0 = this thread's mark, or out: `rest` instructions on. */
#define FIND(map, rest)                                            \
	CALL(get_current_pid_tgid),                                \
	INSN(BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, THREADS - 1),   \
	INSN(BPF_STX | BPF_MEM | BPF_W, 10, 0, -4, 0), MOV(2, 10), \
	INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),            \
	INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map), INSN(0, 0, 0, 0, 0), \
	CALL(map_lookup_elem), JZERO(0, rest)
#define OUT SET(0, 0), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* Load a program and hang it on a tracepoint for as long as the machine lives. */
static int attach(const char *tracepoint, const struct bpf_insn *insns, size_t n)
{
	static char log[4096];
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT, .insn_cnt = (uint32_t)n,
				.insns = (uintptr_t)insns, .license = (uintptr_t) "Apache-2.0" };
	union bpf_attr open = { .raw_tracepoint.name = (uintptr_t)tracepoint };
	union bpf_attr pin = { 0 };
	char path[64];
	int fd;

	if ((fd = bpf(BPF_PROG_LOAD, &load)) < 0) {
		load.log_level = 1; /* again, for the reason */
		load.log_size = sizeof log;
		load.log_buf = (uintptr_t)log;
		(void)bpf(BPF_PROG_LOAD, &load);
		return fail(*log ? log : "load");
	}
	open.raw_tracepoint.prog_fd = (uint32_t)fd;
	if ((fd = bpf(BPF_RAW_TRACEPOINT_OPEN, &open)) < 0)
		return fail(tracepoint);
	snprintf(path, sizeof path, PIN_DIR "/rig-%s", tracepoint);
	pin.pathname = (uintptr_t)path;
	pin.bpf_fd = (uint32_t)fd;
	return bpf(BPF_OBJ_PIN, &pin) < 0 ? fail(path) : 0;
}

int main(void)
{
	int map = make_map();
	const struct bpf_insn injects[] = { FIND(map, 1), MARK(1), OUT };
	const struct bpf_insn enters[] = { FIND(map, 5),
					   INSN(BPF_LDX | BPF_MEM | BPF_W, 1, 0, 0, 0),
					   JZERO(1, 3),
					   MARK(0),
					   SET(1, 0),
					   CALL(send_signal),
					   OUT };

	if (map < 0)
		return fail("map");
	if (mount("bpf", PIN_DIR, "bpf", 0, NULL) < 0)
		return fail(PIN_DIR);
	if (attach("kvm_inj_virq", injects, sizeof injects / sizeof *injects))
		return 1;
	return attach("kvm_entry", enters, sizeof enters / sizeof *enters);
}
