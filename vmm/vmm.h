/* vmm.h - one machine: memory, vCPUs, slots, and the loop that serves them. The composition.
 *
 * Threads: the main thread runs the event loop (control socket, queue kicks, vsock streams); one
 * thread per vCPU; block workers. The gate (mutex + condition) decides whether vCPUs run.
 *
 * The process starts in vmm_start() (ctl.h) with nothing but a control socket. */
#pragma once

#include "vmm/ctl.h"
#include "vmm/ioapic.h"
#include "vmm/uart.h"
#include "vmm/vcpu.h"
#include "vmm/virtio/slots.h"
#include "vmm/x86_64/boot.h"
#include "vmm/x86_64/cpuid.h"


/* Who may run, and how the guest ended. */
struct vmm_gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool run;         /* vCPUs may enter the guest */
	unsigned parked;  /* how many wait here */
	enum ctl_exit exit; /* 0 = still going; set once by the first vCPU that sees the end */
	char why[256];
};

struct vmm {
	struct loop loop;
	int ctl_fd;
	struct watch ctl, exited;
	int exit_fd; /* eventfd: a vCPU saw the end of the guest */

	struct kvm kvm;
	struct gmem mem;
	struct ioapic ioapic;
	struct uart uart;
	struct slots slots;
	struct vdev *vsock, *balloon, *share;
	struct fpool *files; /* threads that serve shared files; NULL = none */
	struct vmm_gate gate;
	struct vcpu vcpu[LAYOUT_MAX_VCPUS];
	unsigned nvcpus;
	int console_fd;
	struct ctl_create spec;
	struct cpuid_table cpu; /* as loaded into the vCPUs, but for the APIC id */
	const struct ctl_image *image;
	bool created; /* tried; once is all */
	bool ready;   /* and it worked: there is a machine */
	bool paused;
	struct kvm_clock_data clock; /* guest time when it was paused */
};

/* A vCPU saw the guest end. First one wins; the loop reports it. */
INTERNAL void vmm_guest_over(struct vmm *m, enum ctl_exit how, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

/* --- machine.c: what the control requests do ------------------------------------------------- */

/* fds are taken. */
INTERNAL MUST_USE int vmm_create(struct vmm *m, const struct ctl_request *rq, int *fds, size_t nfds,
				 struct err *e);
INTERNAL void vmm_run(struct vmm *m);
/* Returns when every vCPU is parked and devices are quiet. */
INTERNAL MUST_USE int vmm_pause(struct vmm *m, struct err *e);
INTERNAL MUST_USE int vmm_save(struct vmm *m, int state_fd, int memory_fd, struct err *e);
INTERNAL MUST_USE int vmm_changed(struct vmm *m, int fd, struct err *e);
