/* resume.h - what makes a copy of a template a machine of its own. PROTOCOL.agent section 5. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/base/err.h"

struct ga_agent;

/* Mix into the kernel's random number generator, credit, and reseed from it. */
INTERNAL MUST_USE int ga_resume_entropy(const uint8_t *data, size_t n, struct err *e);
INTERNAL MUST_USE int ga_resume_clock(int64_t sec, int64_t nsec, struct err *e);

/* A file for the machine id, bound over /etc/machine-id; empty until the sandbox has one. */
INTERNAL MUST_USE int ga_resume_prepare(struct err *e);

/* Undo that: only in tests is there somebody left to care. */
INTERNAL void ga_resume_unbind(void);

/* All steps of SporeClone but the CPUs, in order. */
INTERNAL MUST_USE int ga_resume_apply(const Grpc__SporeClone *s, struct err *e);
