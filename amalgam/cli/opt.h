/* opt.h - command line options as tables.
 *
 * Long options only with one dash more than short ones, "--name value" or "--name=value"; "--" ends
 * them; the first word that is no option ends them too. A command's table is also its help text. */
#pragma once

#include "amalgam/base/err.h"

enum opt_kind {
	OPT_FLAG,   /* bool */
	OPT_STRING, /* const char * */
	OPT_NUMBER, /* uint64_t in [min, max] */
	OPT_LIST,   /* struct opt_list: may be repeated */
};

#define OPT_LIST_MAX 256
struct opt_list {
	char *item[OPT_LIST_MAX + 1]; /* NULL-terminated */
	unsigned n;
};

struct opt {
	char letter;      /* 0 = none */
	const char *name; /* without dashes; NULL ends a table */
	enum opt_kind kind;
	void *value;
	const char *arg;  /* what the value is called in the help; NULL for flags */
	const char *help;
	uint64_t min, max; /* NUMBER */
};

/* Returns the index in argv of the first word that is no option, or -EINVAL with words. argv[0] is the
 * command and is skipped. */
INTERNAL MUST_USE int opt_parse(const struct opt *table, int argc, char **argv, struct err *e);
/* The table for people. */
INTERNAL void opt_print(const struct opt *table, FILE *to);
