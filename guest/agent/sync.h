/* sync.h - the few words the agent and a process on its way into a container exchange.
 *
 * A SOCK_SEQPACKET pair, close-on-exec, so that a successful execve shows as end of file:
 *
 *	child				agent
 *	          <- GO			id maps are written (only with a user namespace)
 *	READY [+ pty master] ->		set up, next is execve
 *	          <- GO			StartContainer
 *	FAIL -> or end of file		execve failed, or succeeded
 *
 * FAIL may come at any time in the place of what is expected. */
#pragma once

#include "amalgam/base/err.h"

enum ga_sync_kind { GA_SYNC_READY = 1, GA_SYNC_GO, GA_SYNC_FAIL };

_Static_assert(sizeof((struct err *)0)->msg == 512, "text below is as long");

struct ga_sync_msg {
	uint32_t kind;
	int32_t code;   /* FAIL: negative errno */
	int32_t status; /* FAIL: the exit status a shell would give, 126 127 or 1 */
	char text[512]; /* FAIL: why */
};
