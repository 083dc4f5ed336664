/* flags.h - the command line containerd starts a shim with.
 *
 *     -namespace NS -address SOCK -publish-binary PATH -id ID [-bundle DIR] [-debug] start|delete
 *     -info
 *
 * Words are read as Go's flag package reads them: -x v, -x=v, --x v and --x=v are one thing, and a
 * switch takes its value only behind "=". The action is the first word that is no flag, and always the
 * last. Flags we do not know are ignored: containerd adds some now and then. Whether such a flag has a
 * value cannot be known; the word behind it is taken for one unless it starts with "-" or is the last,
 * which is the action. */
#pragma once

#include "amalgam/base/err.h"

/* All strings are borrowed from argv, "" when not given. */
struct shim_flags {
	const char *ns;             /* -namespace */
	const char *address;        /* containerd's gRPC socket */
	const char *publish_binary;
	const char *id;
	const char *bundle;
	const char *socket;
	const char *debug_socket;
	const char *action;         /* "start", "delete"; not checked */
	bool debug, info, version;  /* version: -v, too */
};

/* argv[0] is skipped. -EINVAL: a flag without its value, a switch that is neither true nor false, words
 * behind the action. */
INTERNAL MUST_USE int shim_flags_parse(struct shim_flags *f, int argc, char **argv, struct err *e);
