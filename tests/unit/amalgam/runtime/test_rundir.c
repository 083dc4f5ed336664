#include "amalgam/base/mem.h"
#include "amalgam/runtime/rundir.h"
#include "tests/unit/test.h"

static int trun_parse(const char *text, struct rundir_state *st, struct err *e)
{
	AUTO_JSON struct json_doc doc = { 0 };
	int r = json_parse(&doc, text, strlen(text), e);

	return r < 0 ? r : rundir_parse(doc.root, st, e);
}

/* What is read back of what was written. */
static void trun_again(const struct rundir_state *st, struct rundir_state *out)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	rundir_format(&b, st);
	*out = (struct rundir_state){ 0 };
	memcpy(out->id, st->id, sizeof out->id);
	CHECK_EQ(trun_parse(buf_cstr(&b), out, &e), 0);
}

TEST(rundir_lists_the_containers_of_a_sandbox_and_whose_they_are)
{
	struct rundir_state st = { .id = "default.c1", .status = RUNDIR_PAUSED, .clone = true }, got;

	st.ns = mem_strdup("default");
	st.shim = mem_strdup("/run/containerd/s/0\"");
	rundir_add_container(&st, "c1", RUNDIR_CREATED);
	rundir_add_container(&st, "c\\2", RUNDIR_STOPPED);
	trun_again(&st, &got);
	CHECK_EQ(got.status, RUNDIR_PAUSED);
	CHECK(got.clone);
	CHECK_STR(got.ns, "default");
	CHECK_STR(got.shim, "/run/containerd/s/0\"");
	CHECK_EQ(got.ncontainers, 2);
	CHECK_STR(got.containers[0].id, "c1");
	CHECK_EQ(got.containers[0].status, RUNDIR_CREATED);
	CHECK_STR(got.containers[1].id, "c\\2");
	CHECK_EQ(got.containers[1].status, RUNDIR_STOPPED);
	rundir_state_fini(&got);
	rundir_drop_containers(&st);
	trun_again(&st, &got); /* of containerd's, there may be none */
	CHECK_EQ(got.ncontainers, 0);
	rundir_state_fini(&got);
	rundir_state_fini(&st);
	CHECK(!st.ns && !st.shim && !st.containers);
}

TEST(rundir_has_one_container_where_nobody_says_which)
{
	struct rundir_state st = { .id = "web", .status = RUNDIR_RUNNING }, got = { .id = "old" };
	struct err e = { 0 };

	trun_again(&st, &got);
	CHECK(!got.ns);
	CHECK_EQ(got.ncontainers, 1);
	CHECK_STR(got.containers[0].id, "web");
	CHECK_EQ(got.containers[0].status, RUNDIR_RUNNING);
	rundir_state_fini(&got);
	got = (struct rundir_state){ .id = "old" }; /* as written by 0.1.0 */
	CHECK_EQ(trun_parse("{ \"status\": \"running\" }", &got, &e), 0);
	CHECK_EQ(got.ncontainers, 1);
	CHECK_STR(got.containers[0].id, "old");
	rundir_state_fini(&got);
}

TEST(rundir_refuses_states_that_are_none)
{
	static const char *const bad[] = {
		"{ \"containers\": [ { \"id\": 1 } ] }",
		"{ \"containers\": [ { \"id\": \"a\", \"status\": [] } ] }",
		"{ \"containerd\": { \"namespace\": {} } }",
		"{ \"containerd\": { \"shim\": 0 } }",
		"{ \"command\": 7 }",
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct rundir_state st = { .id = "x" };
		struct err e = { 0 };

		test_note("%s", bad[i]);
		CHECK_EQ(trun_parse(bad[i], &st, &e), -EINVAL);
		rundir_state_fini(&st);
	}
}
