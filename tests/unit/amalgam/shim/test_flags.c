#include "amalgam/shim/flags.h"

#include "tests/unit/test.h"

/* Words are separated by one space; "" is written ''. */
static int tflags_parse(struct shim_flags *f, const char *line, struct err *e)
{
	static char text[512];
	char *argv[32], *save = NULL;
	int argc = 0;

	snprintf(text, sizeof text, "shim %s", line);
	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		if (strcmp(w, "''") == 0)
			*w = '\0';
		argv[argc++] = w;
	}
	argv[argc] = NULL;
	return shim_flags_parse(f, argc, argv, e);
}

TEST(shim_flags_read_what_containerd_1_6_sends_at_start)
{
	struct shim_flags f;
	struct err e = { 0 };

	CHECK_EQ(tflags_parse(&f,
			      "-namespace default -address /run/containerd/containerd.sock "
			      "-publish-binary /usr/bin/containerd -id a1 -debug start", &e), 0);
	CHECK_STR(f.ns, "default");
	CHECK_STR(f.address, "/run/containerd/containerd.sock");
	CHECK_STR(f.publish_binary, "/usr/bin/containerd");
	CHECK_STR(f.id, "a1");
	CHECK_STR(f.bundle, "");
	CHECK_STR(f.action, "start");
	CHECK(f.debug && !f.info && !f.version);
}

TEST(shim_flags_read_what_containerd_sends_at_delete)
{
	struct shim_flags f;
	struct err e = { 0 };

	CHECK_EQ(tflags_parse(&f, "-namespace k8s.io -address A -publish-binary '' -id x "
				  "-bundle /run/b delete", &e), 0);
	CHECK_STR(f.ns, "k8s.io");
	CHECK_STR(f.publish_binary, "");
	CHECK_STR(f.bundle, "/run/b");
	CHECK_STR(f.action, "delete");
	CHECK(!f.debug);
}

TEST(shim_flags_have_four_spellings)
{
	static const char *const lines[] = { "-id x start", "-id=x start", "--id x start",
					     "--id=x start" };
	struct shim_flags f;
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		test_note("%s", lines[i]);
		CHECK_EQ(tflags_parse(&f, lines[i], &e), 0);
		CHECK_STR(f.id, "x");
		CHECK_STR(f.action, "start");
	}
	CHECK_EQ(tflags_parse(&f, "-id=a=b -bundle= start", &e), 0);
	CHECK_STR(f.id, "a=b");
	CHECK_STR(f.bundle, "");
	CHECK_EQ(tflags_parse(&f, "-id -x start", &e), 0); /* a value may look like a flag */
	CHECK_STR(f.id, "-x");
}

TEST(shim_flags_switches_take_a_value_only_behind_an_equals_sign)
{
	struct shim_flags f;
	struct err e = { 0 };

	CHECK_EQ(tflags_parse(&f, "-debug=false -info=T -v start", &e), 0);
	CHECK(!f.debug && f.info && f.version);
	CHECK_STR(f.action, "start");
	CHECK_EQ(tflags_parse(&f, "-info", &e), 0);
	CHECK(f.info);
	CHECK_STR(f.action, "");
	CHECK_EQ(tflags_parse(&f, "-debug=maybe start", &e), -EINVAL);
	CHECK_STR(e.msg, "-debug: \"maybe\" is neither true nor false");
}

TEST(shim_flags_ignore_flags_nobody_knows)
{
	static const char *const lines[] = {
		"-new start",             /* the last word is the action, not its value */
		"-new v -id x start",     /* a value */
		"-new -id x start",       /* none */
		"--new=v -id x start",    "-id x -new start", "-id x -new=1 start",
		"-new -newer v -id x start",
	};
	struct shim_flags f;
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		test_note("%s", lines[i]);
		CHECK_EQ(tflags_parse(&f, lines[i], &e), 0);
		CHECK_STR(f.action, "start");
		CHECK_STR(f.id, i ? "x" : "");
	}
	CHECK_EQ(tflags_parse(&f, "-new", &e), 0);
	CHECK_STR(f.action, "");
}

TEST(shim_flags_refuse_what_has_no_meaning)
{
	struct shim_flags f;
	struct err e = { 0 };

	CHECK_EQ(tflags_parse(&f, "start -id", &e), -EINVAL);
	CHECK_STR(e.msg, "\"-id\" behind \"start\": the action is the last word");
	CHECK_EQ(tflags_parse(&f, "-debug -id", &e), -EINVAL);
	CHECK_STR(e.msg, "-id needs a value");
	CHECK_EQ(tflags_parse(&f, "", &e), 0);
	CHECK_STR(f.action, "");
	CHECK_EQ(tflags_parse(&f, "-id x -- -odd", &e), 0);
	CHECK_STR(f.action, "-odd");
}
