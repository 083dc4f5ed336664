/* mptable.h - Intel MultiProcessor Specification 1.4, chapter 4: which CPUs and interrupt pins exist.
 *
 * All CPUs a sandbox may ever have are listed; the kernel is told to start the first only
 * (maxcpus=1) and the agent brings the others online when asked. */
#pragma once

#include "vmm/gmem.h"

INTERNAL MUST_USE int mptable_write(const struct gmem *m, unsigned max_vcpus);
