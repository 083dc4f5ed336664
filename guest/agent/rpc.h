/* rpc.h - the methods the host may call, as one table; requests are handed to the modules. */
#pragma once

#include "amalgam/base/err.h"
#include "amalgam/wire/ttrpc.h"

struct ga_agent;

/* Accept connections on the RPC port. */
INTERNAL MUST_USE int ga_rpc_listen(struct ga_agent *a, struct err *e);

INTERNAL void ga_rpc_reply_empty(struct ttrpc_call *call);
/* Empty, or e when r is negative. */
INTERNAL void ga_rpc_answer(struct ttrpc_call *call, int r, const struct err *e);
