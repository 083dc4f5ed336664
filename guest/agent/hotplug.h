/* hotplug.h - CPUs and memory the machine has added, brought into use. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/wire/ttrpc.h"

struct ga_agent;

/* Bring CPUs online, in order, until `total` are (those that are parked stay offline otherwise). */
INTERNAL MUST_USE int ga_hotplug_cpus(unsigned total, struct err *e);

/* OnlineCPUMem: nb_cpus more CPUs, and unless cpu_only every memory block. With wait it answers
 * when that many are there; without, what is there now is done and the rest is no error. */
INTERNAL void ga_hotplug_online(struct ga_agent *a, struct ttrpc_call *call,
				const Grpc__OnlineCPUMemRequest *req);

/* /sys/devices/system/memory; 0 / false without it. */
INTERNAL uint64_t ga_hotplug_block_size(void);
INTERNAL bool ga_hotplug_has_probe(void);
INTERNAL MUST_USE int ga_hotplug_probe(const uint64_t *addresses, size_t n, struct err *e);
