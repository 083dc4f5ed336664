/* reap.h - SIGCHLD: every child that ends, ours or an orphan, is collected at once. */
#pragma once

#include "amalgam/base/err.h"
#include "amalgam/base/loop.h"

struct ga_agent;

struct ga_reap {
	struct watch watch;
	int fd; /* signalfd */
};

INTERNAL MUST_USE int ga_reap_start(struct ga_agent *a, struct err *e);
