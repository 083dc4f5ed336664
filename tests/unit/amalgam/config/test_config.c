#include "amalgam/config/config.h"

#include "tests/unit/test.h"

static int tconf_parse(struct config *c, const char *text, struct err *e)
{
	return config_parse(c, text, strlen(text), e);
}

TEST(config_text_is_read_as_a_file_would_be)
{
	struct config c;
	struct err e = { 0 };

	CHECK_EQ(tconf_parse(&c,
			     "[hypervisor.spore]\ndefault_memory = 256\n"
			     "enable_annotations = [\"a\", \"b.*\"]\n"
			     "[factory]\nenable_template = false\n", &e), 0);
	CHECK_EQ(c.default_memory, 256);
	CHECK_EQ(c.default_vcpus, 1);
	CHECK(!c.enable_template);
	CHECK_STR(c.enable_annotations, "a\nb.*\n");
	config_fini(&c);
	CHECK_EQ(tconf_parse(&c, "[hypervisor.spore]\nmemory = 1\n", &e), -EINVAL);
	CHECK_STR(e.msg,
		  "line 2: unknown key \"hypervisor.spore.memory\"; remove it or mend its spelling");
	CHECK_EQ(tconf_parse(&c, "[hypervisor.spore]\nenable_annotations = \"all\"\n", &e), -EINVAL);
}

TEST(config_of_the_network_has_katas_names)
{
	struct config c;
	struct err e = { 0 };

	CHECK_EQ(tconf_parse(&c, "", &e), 0);
	CHECK_STR(c.internetworking_model, "tcfilter");
	CHECK_STR(c.dan_conf, "/run/kata-containers/dans");
	CHECK(!c.disable_new_netns && !c.disable_vhost_net && !c.rx_rate_limiter_max_rate);
	config_fini(&c);
	CHECK_EQ(tconf_parse(&c,
			     "[hypervisor.spore]\ndisable_vhost_net = true\ntx_rate_limiter_max_rate = 1000\n"
			     "[runtime]\ninternetworking_model = \"none\"\ndisable_new_netns = true\n", &e), 0);
	CHECK(c.disable_vhost_net && c.disable_new_netns);
	CHECK_EQ(c.tx_rate_limiter_max_rate, 1000);
	CHECK_STR(c.internetworking_model, "none");
	config_fini(&c);
	CHECK_EQ(tconf_parse(&c, "[runtime]\ninternetworking_model = \"macvtap\"\n", &e), -EINVAL);
	CHECK_HAS(e.msg, "internetworking_model: must be \"tcfilter\" or \"none\"");
}

TEST(config_annotations_are_refused_unless_an_expression_matches_all_of_the_name)
{
	struct config c;
	struct err e = { 0 };

	CHECK_EQ(tconf_parse(&c,
			     "[hypervisor.spore]\n"
			     "enable_annotations = [\"default_(memory|vcpus)\", \"kernel\"]\n", &e), 0);
	CHECK_EQ(config_annotate(&c, "default_memory", "512", &e), 0);
	CHECK_EQ(c.default_memory, 512);
	CHECK_EQ(config_annotate(&c, "default_vcpus", "4", &e), 0);
	CHECK_EQ(c.default_vcpus, 4);
	CHECK_EQ(config_annotate(&c, "kernel_params", "x", &e), -EPERM);
	CHECK_STR(e.msg, "annotation kernel_params: not allowed; name it in enable_annotations of the "
		  "configuration");
	CHECK_STR(c.kernel_params, "");
	config_fini(&c);
}

TEST(config_annotations_are_checked_like_settings)
{
	static const struct {
		const char *name, *value;
		int code;
	} rows[] = {
		{ "default_memory", "63", -EINVAL },
		{ "default_memory", "64", 0 },
		{ "default_memory", "64 ", -EINVAL },
		{ "default_memory", "", -EINVAL },
		{ "default_memory", "99999999999999999999", -EINVAL },
		{ "nonesuch", "1", -ENOENT },
		{ "enable_annotations", ".*", -ENOENT },
		{ "kernel_params", "quiet", 0 },
	};
	struct config c;
	struct err e = { 0 };

	CHECK_EQ(tconf_parse(&c, "[hypervisor.spore]\nenable_annotations = [\".*\"]\n", &e), 0);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		test_note("%s=%s", rows[i].name, rows[i].value);
		CHECK_EQ(config_annotate(&c, rows[i].name, rows[i].value, &e), rows[i].code);
	}
	CHECK_STR(c.kernel_params, "quiet");
	config_fini(&c);
}

TEST(config_expressions_that_are_none_allow_nothing)
{
	struct config c;
	struct err e = { 0 };

	CHECK_EQ(tconf_parse(&c, "[hypervisor.spore]\nenable_annotations = [\"(\", \"\"]\n", &e), 0);
	CHECK_EQ(config_annotate(&c, "default_memory", "512", &e), -EPERM);
	config_fini(&c);
}
