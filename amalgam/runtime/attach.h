/* attach.h - reach a sandbox that another process supervises: its guest, or the shim.
 *
 * Through its agent.sock, the hybrid vsock socket of the machine process: "CONNECT <port>\n", answered
 * with "OK <host port>\n" (vmm/virtio/PROTOCOL.vsock). The supervisor is not involved. */
#pragma once

#include "amalgam/runtime/agent.h"
#include "amalgam/runtime/target.h"

/* Open a stream to a guest port; a blocking socket, the caller's. *host_port (may be NULL) is how the
 * guest knows this end. -ENOENT: no such sandbox; -ECONNREFUSED: its machine or agent is gone. */
INTERNAL MUST_USE int attach_dial(const char *id, uint32_t guest_port, uint32_t *host_port,
				  struct err *e);

/* Dial the agent and speak to it. */
INTERNAL MUST_USE int attach_agent(const char *id, struct agent *a, struct loop *l, struct err *e);

/* Ask the shim of a container that is containerd's, whose answer is empty: so containerd hears of it.
 * method is one of containerd.task.v2.Task. */
INTERNAL MUST_USE int attach_ask_shim(const struct target *t, const char *method,
				      const ProtobufCMessage *rq, struct err *e);
