/* sandbox.h - what all containers of the pod share: namespaces, name, storages. */
#pragma once

#include "amalgam/base/err.h"
#include "amalgam/wire/ttrpc.h"
#include "guest/agent/ns.h"
#include "guest/agent/storage.h"
#include "guest/agent/wait.h"

struct ga_agent;

struct ga_sandbox {
	bool is_prepared;  /* ga_sandbox_prepare() was here: what every sandbox needs exists */
	bool is_ready;     /* CreateSandbox has succeeded */
	bool is_dead;      /* it has failed, or DestroySandbox has come: nothing more is accepted */
	bool has_dns;      /* /etc/resolv.conf is covered by ours */
	bool has_hostname; /* else the first container that has one names the pod */
	char *id;
	struct ga_ns_set ns; /* ipc and uts; pid once a container owns it */
	struct ga_storage *storages, *shared;
	struct ga_wait wait;     /* DestroySandbox: for the processes to end */
	struct ttrpc_call *call; /* the same */
};

INTERNAL void ga_sandbox_init(struct ga_sandbox *s);
/* Once, at boot: namespaces and files that every sandbox will need. A clone finds them made. */
INTERNAL MUST_USE int ga_sandbox_prepare(struct ga_agent *a, struct err *e);
INTERNAL void ga_sandbox_create(struct ga_agent *a, struct ttrpc_call *call,
				const Grpc__CreateSandboxRequest *req);
INTERNAL void ga_sandbox_destroy(struct ga_agent *a, struct ttrpc_call *call);
