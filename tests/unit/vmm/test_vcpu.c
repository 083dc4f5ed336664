#include "tests/unit/test.h"
#include "tests/unit/vmm/machine_rig.h"

#define TVCPU_CODE  0x1000000 /* where mrig_kernel is loaded and entered */
#define TVCPU_TURNS 200       /* of 50 ms */

/* Run a guest that consists of this code until the supervisor hears of its end; its console log. */
static void tvcpu_end(const uint8_t *code, size_t n, uint16_t warm_boot_word, struct ctl_event *ev,
		      struct buf *log)
{
	struct mrig r;
	off_t bytes;

	mrig_boot(&r, 1, 1);
	r.rq.create.mem_bytes = MIB(64);
	close(r.fds[1]);
	r.fds[1] = fd_memfd("console");
	int console = dup(r.fds[1]);
	mrig_must_create(&r);
	CHECK_EQ(gmem_write(&r.m->mem, TVCPU_CODE, code, n), 0);
	CHECK_EQ(gmem_write(&r.m->mem, LAYOUT_WARM_BOOT, &warm_boot_word, sizeof warm_boot_word), 0);
	vmm_run(r.m);
	for (unsigned i = 0; i < TVCPU_TURNS; i++) {
		CHECK(loop_step(&r.m->loop, 50) >= 0);
		if (recv(r.peer, ev, sizeof *ev, MSG_DONTWAIT) == (ssize_t)sizeof *ev)
			break;
	}
	CHECK_EQ(ev->op, CTL_EVENT);
	CHECK_EQ(ev->kind, CTL_EV_EXIT);
	bytes = lseek(console, 0, SEEK_END);
	if (bytes > 0) {
		CHECK_EQ(fd_pread_full(console, buf_reserve(log, (size_t)bytes), (size_t)bytes, 0), 0);
		log->len = (size_t)bytes;
	}
}

static const uint8_t tvcpu_reset[] = { 0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd }; /* out 0x64, 0xfe */

TEST(vcpu_tells_a_reset_by_the_keyboard_controller_as_the_end_the_guest_wanted)
{
	AUTO_BUF struct buf log = { 0 };
	struct ctl_event ev = { 0 };

	tvcpu_end(tvcpu_reset, sizeof tvcpu_reset, 0, &ev, &log);
	CHECK_EQ(ev.value, CTL_EXIT_SHUTDOWN);
	CHECK_STR(ev.msg, "guest shut down");
	CHECK_EQ(log.len, 0);
	mrig_end();
}

TEST(vcpu_tells_the_same_reset_as_a_panic_when_linux_left_its_word)
{
	AUTO_BUF struct buf log = { 0 };
	struct ctl_event ev = { 0 };

	tvcpu_end(tvcpu_reset, sizeof tvcpu_reset, 0x1234, &ev, &log);
	CHECK_EQ(ev.value, CTL_EXIT_PANIC);
	CHECK_STR(ev.msg, "guest kernel panic");
	mrig_end();
}

TEST(vcpu_tells_a_triple_fault_with_the_registers_in_the_log)
{
	static const uint8_t code[] = { 0xb8, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x0b }; /* eax, ud2: no IDT */
	AUTO_BUF struct buf log = { 0 };
	struct ctl_event ev = { 0 };

	tvcpu_end(code, sizeof code, 0, &ev, &log);
	CHECK_EQ(ev.value, CTL_EXIT_FAULT);
	CHECK_STR(ev.msg, "guest stopped by a triple fault");
	CHECK_HAS(buf_cstr(&log), "spore: vCPU 0 stopped\n  rip ");
	mrig_end();
}

TEST(vcpu_tells_what_kvm_cannot_do_as_kvms_error)
{
	/* mov eax, 256 MiB; jmp rax: mapped by the boot page tables, and nothing is there to execute */
	static const uint8_t code[] = { 0xb8, 0, 0, 0, 0x10, 0xff, 0xe0 };
	AUTO_BUF struct buf log = { 0 };
	struct ctl_event ev = { 0 };

	tvcpu_end(code, sizeof code, 0, &ev, &log);
	CHECK_EQ(ev.value, CTL_EXIT_INTERNAL);
	CHECK_HAS(ev.msg, "KVM internal error, suberror ");
	CHECK_HAS(buf_cstr(&log), "spore: vCPU 0 stopped\n  rip 0000000010000000 ");
	mrig_end();
}
