/* uri.h - where containerd wants a stream: a path, or one of a few URIs (RFC 3986, read as Go's net/url
 * reads it).
 *
 *     /run/x/a1-stdout              a path, taken as it is
 *     fifo:///run/x/a1-stdout       the same, percent-encoded
 *     file:///var/log/a1            a file, percent-encoded
 *     binary:///usr/bin/log?k=v     a program with arguments "k" "v"; binary-v2:// likewise
 */
#pragma once

#include "amalgam/base/err.h"

enum shim_uri_kind { SHIM_URI_NONE, SHIM_URI_FIFO, SHIM_URI_FILE, SHIM_URI_BINARY, SHIM_URI_BINARY_V2 };

#define SHIM_URI_MAX_ARGS 64 /* keys of the query; values likewise */

struct shim_uri {
	enum shim_uri_kind kind; /* NONE: the text is empty, there is no stream */
	char *path;              /* decoded; NULL for NONE */
	char *args[2 * SHIM_URI_MAX_ARGS + 1]; /* BINARY: key, value ..., in the order written; the first
						  value of a key counts. Ends with NULL */
	unsigned nargs;
};

/* u need not be initialised; release with shim_uri_fini() in any case. -EINVAL: "unknown STDIO scheme",
 * a bad escape, no absolute path, too many arguments. */
INTERNAL MUST_USE int shim_uri_parse(struct shim_uri *u, const char *text, struct err *e);
INTERNAL void shim_uri_fini(struct shim_uri *u);
