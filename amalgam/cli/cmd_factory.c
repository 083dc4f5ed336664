/* cmd_factory.c - spore factory init | status | destroy. Exit codes and most words are
 * kata-runtime's. */
#include "amalgam/base/mem.h"
#include "amalgam/base/buf.h"
#include "amalgam/cli/cli.h"
#include "amalgam/cli/opt.h"
#include "amalgam/config/config.h"
#include "amalgam/runtime/template.h"

#define FACTORY_LIST_MAX 64

static int factory_init(const struct config *cfg, bool json, struct err *e)
{
	AUTO_CLOSE int kvm = cli_open_kvm(e);
	struct machine_shape shape = template_default_shape(cfg);
	bool made = false;
	int r;

	if (kvm < 0)
		return kvm;
	if ((r = template_init(&shape, kvm, &made, e)) < 0)
		return err_wrap(e, "factory init");
	if (json)
		printf("{\"initialized\":true,\"made\":%s}\n", made ? "true" : "false");
	else
		puts("vm factory initialized");
	return 0;
}

static void factory_print_json(const struct template_info *t, int n)
{
	printf("{\"on\":%s,\"templates\":[", n ? "true" : "false");
	for (int i = 0; i < n; i++)
		printf("%s{\"fingerprint\":\"%s\",\"memory_mib\":%llu,\"held_bytes\":%llu,"
		       "\"created_ns\":%llu}", i ? "," : "", t[i].fingerprint,
		       (unsigned long long)t[i].mem_mib, (unsigned long long)t[i].held_bytes,
		       (unsigned long long)t[i].created_ns);
	puts("]}");
}

static int factory_status(bool json)
{
	AUTO_FREE struct template_info *t = mem_calloc(FACTORY_LIST_MAX, sizeof *t);
	int n = template_list(t, FACTORY_LIST_MAX);

	n = MIN(n, FACTORY_LIST_MAX);
	if (json)
		factory_print_json(t, n);
	else
		puts(n ? "vm factory is on" : "vm factory is off");
	return 0;
}

static int factory_destroy(bool json, struct err *e)
{
	int r = template_destroy(e);

	if (r < 0)
		return err_wrap(e, "factory destroy");
	puts(json ? "{\"destroyed\":true}" : "vm factory destroyed");
	return 0;
}

/* factory.enable_template = false. Both are success, as in kata-runtime. */
static int factory_disabled(bool init, bool json)
{
	if (json)
		puts(init ? "{\"initialized\":false,\"enabled\":false}" : "{\"on\":false,\"enabled\":false}");
	else
		puts(init ? "vm factory is not enabled: factory.enable_template is false" :
			    "vm factory not enabled");
	return 0;
}

int cli_factory(int argc, char **argv)
{
	const char *config = NULL;
	bool json = false, help = false;
	const struct opt table[] = {
		{ 0, "config", OPT_STRING, &config, "FILE", "configuration file", 0, 0 },
		{ 0, "json", OPT_FLAG, &json, NULL, "machine-readable output", 0, 0 },
		{ 'h', "help", OPT_FLAG, &help, NULL, "this text", 0, 0 },
		{ 0 },
	};
	const char *verb = argc > 1 ? argv[1] : "";
	struct config cfg;
	struct err e = { 0 };
	int r;

	r = argc > 1 ? opt_parse(table, argc - 1, argv + 1, &e) : 0;
	if (r >= 0 && (help || argc < 2 || !strcmp(verb, "--help"))) {
		FILE *to = argc < 2 ? stderr : stdout;
		fputs("usage: spore factory init|status|destroy [options]\n\n"
		      "  init     boot a machine once and keep it as the template clones are made from\n"
		      "  status   say whether there is a template\n"
		      "  destroy  remove all templates; running clones are not affected\n\n", to);
		opt_print(table, to);
		return argc < 2 ? CLI_FAILED : 0;
	}
	if (r >= 0 && r < argc - 1)
		r = err_set(&e, -EINVAL, "factory %s: unexpected argument %s", verb, argv[r + 1]);
	if (r >= 0)
		r = config_load(&cfg, config, &e);
	if (r < 0)
		return cli_fail(&e);
	if (!strcmp(verb, "init"))
		r = cfg.enable_template ? factory_init(&cfg, json, &e) : factory_disabled(true, json);
	else if (!strcmp(verb, "status"))
		r = cfg.enable_template ? factory_status(json) : factory_disabled(false, json);
	else if (!strcmp(verb, "destroy"))
		r = factory_destroy(json, &e);
	else
		r = err_set(&e, -EINVAL, "factory: unknown command \"%s\"; use init, status or destroy",
			    verb);
	config_fini(&cfg);
	return r < 0 ? cli_fail(&e) : 0;
}
