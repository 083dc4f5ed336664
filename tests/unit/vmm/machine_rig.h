/* machine_rig.h - whole machines, made by vmm_create() as the control socket would ask for them.
 *
 * The guest is an image whose kernel is one HLT loop; nothing needs it to run. A machine lives as long
 * as its process, so a test that makes one ends with mrig_end(). */
#pragma once

#include <sys/socket.h>

#include "amalgam/base/fd.h"
#include "tests/unit/vmm/kvm_rig.h"
#include "vmm/vmm.h"

/* Two regions: RAM on both sides of the MMIO hole. */
#define MRIG_RAM (LAYOUT_HOLE_START + MIB(64))

/* guest/kernel/pack.c's format: entry and one segment at 16 MiB, an LZ4 block of three literals. */
static const uint8_t mrig_kernel[] = {
	'S', 'P', 'O', 'R', 'E', 'K', 'R', 'N', 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
	0, 0, 0, 1, 0, 0, 0, 0, /* paddr */
	0, 0x10, 0, 0, 0, 0, 0, 0, /* memsz */
	3, 0, 0, 0, 0, 0, 0, 0, /* filesz */
	64, 0, 0, 0, 0, 0, 0, 0, /* packed_off */
	4, 0, 0, 0, 0, 0, 0, 0, /* packed_len */
	0x30, 0xf4, 0xeb, 0xfd, /* hlt; jmp . - 1 */
};
static const struct ctl_image mrig_image = { .kernel = mrig_kernel, .kernel_bytes = sizeof mrig_kernel };

struct mrig {
	struct vmm *m;
	struct ctl_request rq;
	int fds[FD_PASS_MAX];
	size_t nfds;
	int memory; /* another descriptor of the memory file */
	int peer;   /* the supervisor's end of the control socket */
};

/* An empty memory file. */
static inline int mrig_memory(uint64_t bytes)
{
	int fd = fd_memfd("memory");

	CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
	return fd;
}

/* A machine that boots with memory that is to become a template. */
static inline void mrig_boot(struct mrig *r, unsigned vcpus, unsigned max_vcpus)
{
	int sv[2];

	*r = (struct mrig){ .m = mem_zalloc(sizeof *r->m), .memory = mrig_memory(MRIG_RAM) };
	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	r->peer = sv[1];
	vcpu_setup_signals();
	CHECK_EQ(vmm_init(r->m, sv[0], &mrig_image), 0);
	r->rq = (struct ctl_request){ .op = CTL_CREATE, .flags = CTL_F_MEMORY | CTL_F_SHARED };
	r->rq.create.mem_bytes = MRIG_RAM;
	r->rq.create.vcpus = vcpus;
	r->rq.create.max_vcpus = max_vcpus;
	snprintf(r->rq.create.cmdline, sizeof r->rq.create.cmdline, "console=ttyS0");
	r->fds[0] = kvmr_open();
	r->fds[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
	r->fds[2] = dup(r->memory);
	r->nfds = 3;
}

/* A clone of `memory` and of the state in `state`. */
static inline void mrig_clone(struct mrig *r, const struct mrig *of, const struct buf *state)
{
	mrig_boot(r, of->rq.create.vcpus, of->rq.create.max_vcpus);
	r->rq.flags = CTL_F_MEMORY | CTL_F_RESTORE;
	close(r->fds[2]);
	r->fds[2] = dup(of->memory);
	r->fds[3] = fd_memfd("state");
	CHECK_EQ(fd_write_full(r->fds[3], state->data, state->len), 0);
	r->nfds = 4;
}

static inline int mrig_create(struct mrig *r, struct err *e)
{
	*e = (struct err){ 0 };
	return vmm_create(r->m, &r->rq, r->fds, r->nfds, e);
}

/* The same, skipping the test where KVM lacks what we need. */
static inline void mrig_must_create(struct mrig *r)
{
	struct err e;

	if (mrig_create(r, &e) == 0)
		return;
	if (strstr(e.msg, "/dev/kvm: this host lacks"))
		test_skip("%s", e.msg);
	test_fail(__FILE__, __LINE__, "%s", e.msg);
}

/* Pause and save it. */
static inline void mrig_save(struct mrig *r, struct buf *state)
{
	struct err e = { 0 };
	int fd = fd_memfd("state");
	off_t n;

	if (vmm_pause(r->m, &e) < 0 || vmm_save(r->m, fd, -1, &e) < 0)
		test_fail(__FILE__, __LINE__, "%s", e.msg);
	n = lseek(fd, 0, SEEK_END);
	CHECK(n > 0);
	CHECK_EQ(fd_pread_full(fd, buf_reserve(state, (size_t)n), (size_t)n, 0), 0);
	state->len = (size_t)n;
	close(fd);
}

/* The end of a test that made a machine: its threads and memory go with the process, unseen by the leak
 * check, which cannot stop them. */
NORETURN static inline void mrig_end(void)
{
	fflush(stdout);
	syscall(SYS_exit_group, 0);
	__builtin_unreachable();
}
