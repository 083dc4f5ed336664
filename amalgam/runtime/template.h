/* template.h - templates: a machine booted once, paused, saved; clones share its memory.
 *
 *   /run/spore/template/                a tmpfs of its own
 *   /run/spore/template/<fingerprint>/  memory (sparse), state (vmm/snapshot/snap.h), template.json,
 *                                       warm: pages every clone writes at once
 *   /run/spore/template/.build-<pid>/   while one is being made; renamed when it is whole
 *   /run/spore/template.lock            held while building or destroying
 *
 * The fingerprint is the hash of everything a saved machine depends on: this build (kernel, agent,
 * VMM), what KVM offers of this CPU, memory size, the CPUs it may have, the kernel command line. A
 * clone is made from the template with exactly its fingerprint, or not at all. */
#pragma once

#include "amalgam/base/err.h"
#include "vmm/ctl.h"

#define TEMPLATE_DIR "/run/spore/template"

/* The shape of a machine: what `spore run` asks for and a template is made for. */
struct machine_shape {
	uint64_t mem_mib;
	unsigned vcpus, max_vcpus;
	const char *kernel_params; /* appended to ours; "" = none */
};

/* Fill in a machine's creation record: size, command line, fingerprint. */
INTERNAL MUST_USE int template_describe(const struct machine_shape *shape, int kvm_fd,
					struct ctl_create *out, struct err *e);

/* The open template for that fingerprint; descriptors are the caller's. -ENOENT: there is none. */
struct template_files {
	int memory_fd, state_fd;
	int warm_fd; /* -1: there is none, which only costs time */
};
INTERNAL void template_close(struct template_files *t);
INTERNAL MUST_USE int template_open(const uint8_t fingerprint[CTL_FINGERPRINT],
				    struct template_files *out, struct err *e);

/* Make it unless it exists (*made tells). Waits for another builder. */
INTERNAL MUST_USE int template_init(const struct machine_shape *shape, int kvm_fd, bool *made,
				    struct err *e);

struct template_info {
	char fingerprint[2 * CTL_FINGERPRINT + 1];
	uint64_t mem_mib;
	uint64_t held_bytes; /* pages of the tmpfs in use */
	uint64_t created_ns;
};
/* How many templates there are; the first `max` are described. */
INTERNAL int template_list(struct template_info *out, int max);

/* Remove all templates and unmount the tmpfs. Clones keep what they have mapped. */
INTERNAL MUST_USE int template_destroy(struct err *e);

struct config;
/* The shape the configuration asks for; borrows its strings. */
INTERNAL struct machine_shape template_default_shape(const struct config *c);
