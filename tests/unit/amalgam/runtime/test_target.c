#include "amalgam/base/mem.h"
#include "amalgam/base/proc.h"
#include "amalgam/runtime/target.h"
#include "tests/unit/test.h"

/* Sandboxes that are there: containers divided by spaces, a namespace if they are containerd's. */
static const struct ttgt_row {
	const char *id, *containers, *ns;
	bool dead;
} ttgt_rows[] = {
	{ "web", "web", NULL, false },
	{ "ended", "ended", NULL, true },
	{ "default.c1", "c1", "default", false },
	{ "k8s.pod", "pod c2 twice", "k8s", false },
	{ "other.twice", "twice", "other", false },
	{ "other.web", "web", "other", false },
	{ "default.lost", "lost", "default", true },
	{ "default.empty", "", "default", false },
	{ "many", "0 1 2 3 4 5 6 7 8 9", "m", false },
	{ "odd", "../up", "m", false },
};

static void ttgt_show(struct target_search *s, const struct ttgt_row *row)
{
	AUTO_FREE char *list = mem_strdup(row->containers);
	struct rundir_state st = { .supervisor = getpid(), .ns = mem_strdup(row->ns) };
	char *rest = list;

	snprintf(st.id, sizeof st.id, "%s", row->id);
	st.supervisor_start = row->dead ? 1 : proc_start_time(getpid());
	for (char *id; (id = strsep(&rest, " "));)
		if (*id)
			rundir_add_container(&st, id, RUNDIR_RUNNING);
	target_look(s, &st);
	rundir_state_fini(&st);
}

/* In any order of the sandboxes. */
static int ttgt_find(const char *name, bool backwards, struct target *t, struct err *e)
{
	struct target_search s;
	size_t n = ARRAY_LEN(ttgt_rows);
	int r;

	*t = (struct target){ 0 };
	*e = (struct err){ 0 };
	target_begin(&s, name);
	for (size_t i = 0; i < n; i++)
		ttgt_show(&s, &ttgt_rows[backwards ? n - 1 - i : i]);
	r = target_decide(&s, t, e);
	target_end(&s);
	return r;
}

TEST(target_is_a_sandbox_with_one_container_or_a_container_that_one_sandbox_has_or_both)
{
	static const struct {
		const char *name, *sandbox, *container;
	} row[] = {
		{ "web", "web", "web" }, /* not other.web/web: a sandbox goes first */
		{ "web/web", "web", "web" },
		{ "other.web", "other.web", "web" },
		{ "ended", "ended", "ended" }, /* its log can be asked for */
		{ "default.c1", "default.c1", "c1" },
		{ "c1", "default.c1", "c1" },
		{ "default.c1/c1", "default.c1", "c1" },
		{ "c2", "k8s.pod", "c2" },
		{ "pod", "k8s.pod", "pod" },
		{ "k8s.pod/twice", "k8s.pod", "twice" },
		{ "other.twice/twice", "other.twice", "twice" },
		{ "default.lost", "default.lost", "lost" },
	};

	for (unsigned i = 0; i < 2 * ARRAY_LEN(row); i++) {
		struct target t;
		struct err e;

		test_note("%s", row[i / 2].name);
		CHECK_EQ(ttgt_find(row[i / 2].name, i % 2, &t, &e), 0);
		CHECK_STR(t.sandbox, row[i / 2].sandbox);
		CHECK_STR(t.container, row[i / 2].container);
		CHECK_EQ(!t.ns, !strchr(t.sandbox, '.') && !strcmp(t.sandbox, t.container));
		target_fini(&t);
	}
}

TEST(target_says_what_a_name_is_not_and_what_to_say_instead)
{
	static const struct {
		const char *name;
		int code;
		const char *words;
	} row[] = {
		{ "ghost", -ENOENT, "no sandbox or container named \"ghost\"; see: spore ps" },
		{ "", -ENOENT, "no sandbox or container named \"\"; see: spore ps" },
		{ "lost", -ENOENT, "no sandbox or container named \"lost\"; see: spore ps" },
		{ "ghost/c1", -ENOENT, "no sandbox named \"ghost\"; see: spore ps" },
		{ "/c1", -ENOENT, "no sandbox named \"\"; see: spore ps" },
		{ "default.c1/c2", -ENOENT,
		  "sandbox \"default.c1\" has no container \"c2\"; it has default.c1/c1" },
		{ "default.c1/", -ENOENT,
		  "sandbox \"default.c1\" has no container \"\"; it has default.c1/c1" },
		{ "default.empty", -ENOENT, "sandbox \"default.empty\" has no container now; see: spore ps" },
		{ "default.empty/x", -ENOENT, "sandbox \"default.empty\" has no container now; see: spore ps" },
		{ "k8s.pod", -ENOTUNIQ,
		  "sandbox \"k8s.pod\" has 3 containers; name one: k8s.pod/pod, k8s.pod/c2, k8s.pod/twice" },
		{ "many", -ENOTUNIQ, "sandbox \"many\" has 10 containers; name one: many/0, many/1, many/2, "
		  "many/3, many/4, many/5, many/6, many/7, ..." },
	};
	struct target t;
	struct err e;

	for (unsigned i = 0; i < 2 * ARRAY_LEN(row); i++) {
		test_note("%s", row[i / 2].name);
		CHECK_EQ(ttgt_find(row[i / 2].name, i % 2, &t, &e), row[i / 2].code);
		CHECK_STR(e.msg, row[i / 2].words);
		CHECK(!t.sandbox && !t.container);
	}
	CHECK_EQ(ttgt_find("twice", false, &t, &e), -ENOTUNIQ);
	CHECK_STR(e.msg, "several sandboxes have a container \"twice\"; name one: k8s.pod/twice, "
			 "other.twice/twice");
}
