/* rundir.h - /run/spore: which sandboxes exist, what they are, where their sockets lie.
 *
 *   /run/spore/sandboxes/<id>/state.json   what `spore ps` and a later command read
 *                            /console.log  serial console of the guest
 *                            /agent.sock   hybrid vsock: "CONNECT <port>" reaches the guest
 *                            /output.log   a detached container's output
 *                            /paused       is there while it is paused
 *   /run/spore/template/                   template.h
 *
 * A directory is claimed with mkdir(2), so two sandboxes never share a name. One whose supervisor is
 * gone (pid and start time in state.json) belongs to nobody: who wants the name clears it, and
 * rundir_sweep() does unless the sandbox was detached and may still be asked for its output, or is
 * containerd's, which has its shim's `delete` take back what is noted there. */
#pragma once

#include <sys/types.h>

#include "amalgam/base/err.h"

#define RUNDIR_ID_MAX 64

enum rundir_status { RUNDIR_CREATING, RUNDIR_CREATED, RUNDIR_RUNNING, RUNDIR_PAUSED, RUNDIR_STOPPED };

struct rundir_container {
	char *id; /* as the agent knows it; heap */
	enum rundir_status status;
};

struct rundir_state {
	char id[RUNDIR_ID_MAX + 1];
	enum rundir_status status;
	pid_t supervisor, vmm;
	uint64_t supervisor_start, vmm_start; /* proc.h: names the process for ever */
	uint64_t created_ns;                  /* wall clock */
	int exit_code;                        /* STOPPED */
	bool clone;                           /* from a template, or booted */
	bool is_detached;                     /* stays after its end, until `spore rm` */
	char *command;                        /* for people; heap */
	/* Oldest first, heap. Who owns a sandbox of one container leaves it empty: that one has the sandbox's
	 * name and status, and is here when the state was loaded. */
	struct rundir_container *containers;
	unsigned ncontainers;
	char *ns, *shim; /* containerd's: its namespace, and the socket of its shim; heap. NULL: not */
};

/* [A-Za-z0-9][A-Za-z0-9_.-]*, at most RUNDIR_ID_MAX. -EINVAL with words. */
INTERNAL MUST_USE int rundir_check_id(const char *id, struct err *e);
/* Twelve random hex digits. */
INTERNAL void rundir_make_id(char out[RUNDIR_ID_MAX + 1]);

/* Make the sandbox's directory; -EEXIST "name already used". *dir is its path, heap. */
INTERNAL MUST_USE int rundir_claim(const char *id, char **dir, struct err *e);
/* Remove it and everything in it. */
INTERNAL void rundir_release(const char *dir);
/* Remove a sandbox whose supervisor is gone, a detached one only if detached_too; was it that? */
INTERNAL bool rundir_clear_dead(const char *id, bool detached_too);
/* Remove what sandboxes left whose supervisor was killed. */
INTERNAL void rundir_sweep(void);
/* Path of a sandbox's directory, heap; no check whether it exists. */
INTERNAL MUST_USE char *rundir_path(const char *id);

/* A log in a sandbox's directory: appended to, made if need be. Close-on-exec, the caller's. */
INTERNAL MUST_USE int rundir_open_log(const char *dir, const char *name, struct err *e);
/* agent.sock, listening and non-blocking; the caller's. */
INTERNAL MUST_USE int rundir_listen(const char *dir, struct err *e);

INTERNAL MUST_USE int rundir_save(const char *dir, const struct rundir_state *st, struct err *e);
/* -ENOENT: no such sandbox. Free with rundir_state_fini(). The file is ours but is checked anyway. */
INTERNAL MUST_USE int rundir_load(const char *id, struct rundir_state *st, struct err *e);
INTERNAL void rundir_state_fini(struct rundir_state *st);
/* One more at the end of the list; forget them all. */
INTERNAL void rundir_add_container(struct rundir_state *st, const char *id, enum rundir_status status);
INTERNAL void rundir_drop_containers(struct rundir_state *st);
/* Note that a running sandbox is paused, or is no more. Its state file is its supervisor's to write. */
INTERNAL MUST_USE int rundir_set_paused(const char *id, bool paused, struct err *e);
INTERNAL const char *rundir_status_name(enum rundir_status s);
/* Is its supervisor (or, while creating, its maker) still there? */
INTERNAL bool rundir_is_live(const struct rundir_state *st);

/* Call fn for every sandbox, in no order. */
INTERNAL void rundir_each(void (*fn)(void *arg, const struct rundir_state *st), void *arg);
