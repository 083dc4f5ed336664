#include "amalgam/config/config.h"

#include <dirent.h>
#include <regex.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "amalgam/wire/toml.h"
#include "vmm/layout.h"

#define CONFIG_FILE "/etc/spore/configuration.toml"
#define CONFIG_DIR  "/etc/spore/config.d"
#define CONFIG_DAN  "/run/kata-containers/dans" /* where CNI plugins write them */
#define CONFIG_MAX_DROPINS 256

enum config_type { CONFIG_INT, CONFIG_BOOL, CONFIG_STRING, CONFIG_LIST, CONFIG_MODEL };

/* Every key there is. configs/configuration.toml shows them with their defaults. */
static const struct config_key {
	const char *key;
	enum config_type type;
	size_t offset;
	int64_t min, max;
} config_keys[] = {
#define CONFIG_AT(field) offsetof(struct config, field)
	{ "hypervisor.spore.default_memory", CONFIG_INT, CONFIG_AT(default_memory), 64, 65536 },
	{ "hypervisor.spore.default_vcpus", CONFIG_INT, CONFIG_AT(default_vcpus), 1, LAYOUT_MAX_VCPUS },
	{ "hypervisor.spore.default_maxvcpus", CONFIG_INT, CONFIG_AT(default_maxvcpus), 0,
	  LAYOUT_MAX_VCPUS },
	{ "hypervisor.spore.kernel_params", CONFIG_STRING, CONFIG_AT(kernel_params), 0, 0 },
	{ "hypervisor.spore.enable_annotations", CONFIG_LIST, CONFIG_AT(enable_annotations), 0, 0 },
	{ "hypervisor.spore.disable_vhost_net", CONFIG_BOOL, CONFIG_AT(disable_vhost_net), 0, 0 },
	{ "hypervisor.spore.rx_rate_limiter_max_rate", CONFIG_INT, CONFIG_AT(rx_rate_limiter_max_rate), 0,
	  INT64_MAX },
	{ "hypervisor.spore.tx_rate_limiter_max_rate", CONFIG_INT, CONFIG_AT(tx_rate_limiter_max_rate), 0,
	  INT64_MAX },
	{ "runtime.dan_conf", CONFIG_STRING, CONFIG_AT(dan_conf), 0, 0 },
	{ "runtime.disable_new_netns", CONFIG_BOOL, CONFIG_AT(disable_new_netns), 0, 0 },
	{ "runtime.internetworking_model", CONFIG_MODEL, CONFIG_AT(internetworking_model), 0, 0 },
	{ "factory.enable_template", CONFIG_BOOL, CONFIG_AT(enable_template), 0, 0 },
#undef CONFIG_AT
};

/* Is `key` a table that some known key lies in? */
static bool config_is_table(const char *key)
{
	size_t n = strlen(key);

	for (unsigned i = 0; i < ARRAY_LEN(config_keys); i++)
		if (!strncmp(config_keys[i].key, key, n) && config_keys[i].key[n] == '.')
			return true;
	return false;
}

/* Strings, as lines of one text. */
static int config_set_list(char **field, const struct toml_value *v, struct err *e)
{
	AUTO_BUF struct buf b = { 0 };

	if (toml_list(v, TOML_STRING, e) < 0)
		return e->code;
	for (size_t i = 0; i < v->n; i++) {
		if (strchr(v->items[i].string, '\n'))
			return err_set(e, -EINVAL, "must be strings of one line");
		buf_printf(&b, "%s\n", v->items[i].string);
	}
	free(*field);
	*field = buf_take_cstr(&b);
	return 0;
}

static int config_set(struct config *c, const struct config_key *k, const struct toml_value *v,
		      struct err *e)
{
	void *field = (char *)c + k->offset;
	const char *s;
	int r;

	switch (k->type) {
	case CONFIG_MODEL:
		if ((r = toml_str(v, &s, e)) < 0)
			return r;
		if (strcmp(s, "tcfilter") && strcmp(s, "none"))
			return err_set(e, -EINVAL, "must be \"tcfilter\" or \"none\"");
		free(*(char **)field);
		*(char **)field = mem_strdup(s);
		return 0;
	case CONFIG_INT:
		return toml_int(v, k->min, k->max, field, e);
	case CONFIG_BOOL:
		return toml_bool(v, field, e);
	case CONFIG_STRING:
		if ((r = toml_str(v, &s, e)) < 0)
			return r;
		free(*(char **)field);
		*(char **)field = mem_strdup(s);
		return 0;
	case CONFIG_LIST:
		return config_set_list(field, v, e);
	}
	return 0;
}

static int config_on_value(void *arg, const char *key, const struct toml_value *v, struct err *e)
{
	if (v->type == TOML_TABLE && config_is_table(key))
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(config_keys); i++) {
		int r;
		if (strcmp(config_keys[i].key, key))
			continue;
		r = config_set(arg, &config_keys[i], v, e);
		return r < 0 ? err_wrap(e, "%s", key) : 0;
	}
	return err_set(e, -EINVAL, "unknown key \"%s\"; remove it or mend its spelling", key);
}

static int config_read(struct config *c, const char *file, struct err *e)
{
	AUTO_BUF struct buf b = { 0 };
	int r = path_read(file, TOML_MAX_BYTES, &b, e);

	if (r < 0)
		return r;
	r = toml_parse(b.data, b.len, config_on_value, c, e);
	return r < 0 ? err_wrap(e, "%s", file) : 0;
}

static int config_is_dropin(const struct dirent *d)
{
	size_t n = strlen(d->d_name);
	return n > 5 && d->d_name[0] != '.' && !strcmp(d->d_name + n - 5, ".toml");
}

static int config_read_dropins(struct config *c, struct err *e)
{
	struct dirent **list;
	int r = 0, n = scandir(CONFIG_DIR, &list, config_is_dropin, alphasort);

	if (n < 0)
		return errno == ENOENT ? 0 : err_set(e, -errno, "%s: %m", CONFIG_DIR);
	for (int i = 0; i < n; i++) {
		if (r == 0 && i < CONFIG_MAX_DROPINS) {
			AUTO_FREE char *path = mem_printf("%s/%s", CONFIG_DIR, list[i]->d_name);
			r = config_read(c, path, e);
		}
		free(list[i]);
	}
	free(list);
	return r;
}

static void config_defaults(struct config *c)
{
	*c = (struct config){ .default_memory = 128, .default_vcpus = 1, .enable_template = true,
			      .kernel_params = mem_strdup(""), .enable_annotations = mem_strdup(""),
			      .internetworking_model = mem_strdup("tcfilter"),
			      .dan_conf = mem_strdup(CONFIG_DAN) };
}

int config_parse(struct config *c, const void *text, size_t n, struct err *e)
{
	int r;

	config_defaults(c);
	r = toml_parse(text, n, config_on_value, c, e);
	if (r < 0)
		config_fini(c);
	return r;
}

int config_load(struct config *c, const char *file, struct err *e)
{
	int r;

	config_defaults(c);
	if (file) {
		r = config_read(c, file, e);
	} else {
		r = config_read(c, CONFIG_FILE, e);
		if (r == -ENOENT)
			r = 0;
		if (r == 0)
			r = config_read_dropins(c, e);
	}
	if (r < 0)
		config_fini(c);
	return r;
}

/* --- annotations ----------------------------------------------------------------------------------- */

#define CONFIG_HYPERVISOR "hypervisor.spore."

static bool config_matches(const char *pattern, size_t n, const char *name)
{
	AUTO_FREE char *whole = mem_printf("^(%.*s)$", (int)n, pattern);
	regex_t re;
	bool yes;

	if (regcomp(&re, whole, REG_EXTENDED | REG_NOSUB) != 0)
		return false;
	yes = regexec(&re, name, 0, NULL, 0) == 0;
	regfree(&re);
	return yes;
}

static bool config_allows(const struct config *c, const char *name)
{
	for (const char *line = c->enable_annotations; *line; line += strcspn(line, "\n") + 1)
		if (config_matches(line, strcspn(line, "\n"), name))
			return true;
	return false;
}

/* A setting may not allow further settings. */
static const struct config_key *config_find(const char *name)
{
	const size_t n = strlen(CONFIG_HYPERVISOR);

	for (unsigned i = 0; i < ARRAY_LEN(config_keys); i++)
		if (str_starts(config_keys[i].key, CONFIG_HYPERVISOR) && config_keys[i].type != CONFIG_LIST &&
		    !strcmp(config_keys[i].key + n, name))
			return &config_keys[i];
	return NULL;
}

int config_annotate(struct config *c, const char *name, const char *value, struct err *e)
{
	const struct config_key *k = config_find(name);
	struct toml_value v = { .type = TOML_STRING, .string = value };
	char *end;
	int r;

	if (!k)
		return err_set(e, -ENOENT, "annotation %s: there is no such setting", name);
	if (!config_allows(c, name))
		return err_set(e, -EPERM, "annotation %s: not allowed; name it in enable_annotations of the "
			       "configuration", name);
	if (k->type == CONFIG_INT) {
		errno = 0;
		v = (struct toml_value){ .type = TOML_INTEGER, .integer = strtoll(value, &end, 10) };
		if (errno || end == value || *end)
			return err_set(e, -EINVAL, "annotation %s: \"%s\" is no number", name, value);
	} else if (k->type == CONFIG_BOOL) {
		v = (struct toml_value){ .type = TOML_BOOL, .is_true = !strcmp(value, "true") };
		if (!v.is_true && strcmp(value, "false"))
			return err_set(e, -EINVAL, "annotation %s: \"%s\" is neither true nor false", name,
				       value);
	}
	r = config_set(c, k, &v, e);
	return r < 0 ? err_wrap(e, "annotation %s", name) : 0;
}

void config_fini(struct config *c)
{
	char **const heap[] = { &c->enable_annotations, &c->kernel_params, &c->internetworking_model,
				&c->dan_conf };

	for (unsigned i = 0; i < ARRAY_LEN(heap); i++)
		free(take_ptr(heap[i]));
}
