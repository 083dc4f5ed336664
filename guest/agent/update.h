/* update.h - changes to a container that runs: pause, resume, new limits. */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/wire/ttrpc.h"

struct ga_agent;

/* PauseContainer and ResumeContainer; answered when every process is frozen or thawed. */
INTERNAL void ga_update_freeze(struct ga_agent *a, struct ttrpc_call *call, const char *id,
			       bool on);

/* UpdateContainer: what is set replaces what was, the rest stays. */
INTERNAL MUST_USE int ga_update_resources(struct ga_agent *a,
					  const Grpc__UpdateContainerRequest *req, struct err *e);
