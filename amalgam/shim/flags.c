#include "amalgam/shim/flags.h"

static const struct shim_flags_row {
	const char *name;
	bool is_switch;
	size_t at;
} shim_flags_rows[] = {
	{ "namespace", false, offsetof(struct shim_flags, ns) },
	{ "address", false, offsetof(struct shim_flags, address) },
	{ "publish-binary", false, offsetof(struct shim_flags, publish_binary) },
	{ "id", false, offsetof(struct shim_flags, id) },
	{ "bundle", false, offsetof(struct shim_flags, bundle) },
	{ "socket", false, offsetof(struct shim_flags, socket) },
	{ "debug-socket", false, offsetof(struct shim_flags, debug_socket) },
	{ "debug", true, offsetof(struct shim_flags, debug) },
	{ "info", true, offsetof(struct shim_flags, info) },
	{ "version", true, offsetof(struct shim_flags, version) },
	{ "v", true, offsetof(struct shim_flags, version) },
};

/* n bytes of name, which may go on with "=value". */
static const struct shim_flags_row *shim_flags_find(const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_LEN(shim_flags_rows); i++)
		if (strlen(shim_flags_rows[i].name) == n &&
		    memcmp(shim_flags_rows[i].name, name, n) == 0)
			return &shim_flags_rows[i];
	return NULL;
}

/* The words Go's strconv.ParseBool knows. */
static int shim_flags_switch(bool *on, const char *value)
{
	static const char *const words[] = { "1", "t", "T", "TRUE", "true", "True",
					     "0", "f", "F", "FALSE", "false", "False" };
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(value, words[i]) == 0) {
			*on = i < ARRAY_LEN(words) / 2;
			return 0;
		}
	}
	return -EINVAL;
}

/* One flag at argv[i]; the number of words it took. */
static int shim_flags_take(struct shim_flags *f, int argc, char **argv, int i, struct err *e)
{
	const char *name = argv[i] + 1 + (argv[i][1] == '-');
	const char *value = strchr(name, '=');
	size_t n = value ? (size_t)(value - name) : strlen(name);
	const struct shim_flags_row *row = shim_flags_find(name, n);
	char *field = (char *)f + (row ? row->at : 0);

	value = value ? value + 1 : NULL;
	if (!row)
		return !value && i + 2 < argc && argv[i + 1][0] != '-' ? 2 : 1;
	if (row->is_switch) {
		if (shim_flags_switch((bool *)field, value ? value : "true") < 0)
			return err_set(e, -EINVAL, "-%s: \"%s\" is neither true nor false", row->name,
				       value);
		return 1;
	}
	if (!value && i + 1 == argc)
		return err_set(e, -EINVAL, "-%s needs a value", row->name);
	*(const char **)field = value ? value : argv[i + 1];
	return value ? 1 : 2;
}

static bool shim_flags_is_flag(const char *word)
{
	return word[0] == '-' && word[1] && strcmp(word, "--") != 0;
}

int shim_flags_parse(struct shim_flags *f, int argc, char **argv, struct err *e)
{
	int i = 1;

	*f = (struct shim_flags){ 0 };
	for (size_t k = 0; k < ARRAY_LEN(shim_flags_rows); k++)
		if (!shim_flags_rows[k].is_switch)
			*(const char **)((char *)f + shim_flags_rows[k].at) = "";
	f->action = "";
	while (i < argc && shim_flags_is_flag(argv[i])) {
		int n = shim_flags_take(f, argc, argv, i, e);
		if (n < 0)
			return n;
		i += n;
	}
	if (i < argc && strcmp(argv[i], "--") == 0)
		i++;
	if (i + 1 < argc)
		return err_set(e, -EINVAL, "\"%s\" behind \"%s\": the action is the last word",
			       argv[i + 1], argv[i]);
	if (i < argc)
		f->action = argv[i];
	return 0;
}
