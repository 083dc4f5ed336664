/* main.c - runs the unit tests: unit [PART ...]
 *
 * Tests whose name or file contains one of the words, or all; TAP on stdout, reasons on lines that
 * start with '#'. Exit status 0 when all passed.
 *
 * The program under test is part of this unit, statics and all. unit_list.h, made by the build, is
 * one #include per tests/unit/.../test_*.c. -DUNIT_ROOT='"x.c"' tests something smaller. */
#define SPORE_NO_MAIN
#ifdef UNIT_ROOT
#include UNIT_ROOT
#else
#include "amalgam/spore.c"
#endif

#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/test.h"

#define TEST_DEADLINE_S 60

/* One struct for what the harness keeps; a child has its own copy. */
static struct {
	struct test *first, **last;
	char note[256];
	char base[64]; /* holds the directories of the tests */
	char dir[96];  /* of this test; "" until asked for */
} test_all;

void test_register(struct test *t)
{
	if (!test_all.last)
		test_all.last = &test_all.first;
	*test_all.last = t;
	test_all.last = &t->next;
}

/* ---- Checks. */

void test_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(test_all.note, sizeof test_all.note, fmt, ap);
	va_end(ap);
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	printf("# %s:%d: ", file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("%s%s\n", *test_all.note ? "\n#   with " : "", test_all.note);
	fflush(stdout);
	_exit(1);
}

void test_skip(const char *fmt, ...)
{
	va_list ap;

	printf("# skipped: ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	_exit(TEST_SKIPPED);
}

void test_check_int(const char *file, int line, const char *expr, long long got, long long want)
{
	if (got != want)
		test_fail(file, line, "%s is %lld (%#llx), not %lld (%#llx)", expr, got, got, want,
			  want);
}

void test_check_str(const char *file, int line, const char *expr, const char *got, const char *want)
{
	if (got && want && strcmp(got, want) == 0)
		return;
	if (got != want)
		test_fail(file, line, "%s is %s%s%s, not %s%s%s", expr, got ? "\"" : "",
			  got ? got : "NULL", got ? "\"" : "", want ? "\"" : "",
			  want ? want : "NULL", want ? "\"" : "");
}

void test_check_mem(const char *file, int line, const char *expr, const void *got, const void *want,
		    size_t n)
{
	const unsigned char *g = got, *w = want;

	for (size_t i = 0; i < n; i++)
		if (g[i] != w[i])
			test_fail(file, line, "%s: byte %zu of %zu is %02x, not %02x", expr, i, n,
				  g[i], w[i]);
}

void test_check_has(const char *file, int line, const char *expr, const char *got, const char *part)
{
	if (!got || !strstr(got, part))
		test_fail(file, line, "%s is \"%s\", without \"%s\"", expr, got ? got : "NULL",
			  part);
}

/* ---- Helpers. */

void *test_guard(const void *p, size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (n + page - 1) / page * page;
	char *at =
		mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(at != MAP_FAILED && mprotect(at + room, page, PROT_NONE) == 0);
	if (n)
		memcpy(at + room - n, p, n);
	return at + room - n;
}

void *test_guard_str(const char *s)
{
	return test_guard(s, strlen(s));
}

const char *test_dir(void)
{
	if (!*test_all.dir) {
		snprintf(test_all.dir, sizeof test_all.dir, "%s/%d", test_all.base, getpid());
		CHECK(mkdir(test_all.dir, 0700) == 0);
	}
	return test_all.dir;
}

static int test_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

/* ---- The runner. */

static NORETURN void test_child(const struct test *t)
{
	setpgid(0, 0);
	alarm(TEST_DEADLINE_S);
	t->run();
	fflush(stdout);
	exit(0); /* and so through the leak check */
}

/* The wait status of its process; -1 = there was none. */
static int test_one(const struct test *t)
{
	char dir[96];
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		test_child(t);
	if (pid < 0) {
		printf("# cannot fork: %s\n", strerror(errno));
		return -1;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	kill(-pid, SIGKILL); /* what it left running */
	snprintf(dir, sizeof dir, "%s/%d", test_all.base, pid);
	nftw(dir, test_remove, 16, FTW_DEPTH | FTW_PHYS);
	if (WIFSIGNALED(status))
		printf("# %s: killed by signal %d%s\n", t->name, WTERMSIG(status),
		       WTERMSIG(status) == SIGALRM ? " (too slow)" : "");
	return status;
}

static bool test_is_wanted(const struct test *t, int n, char **words)
{
	for (int i = 0; i < n; i++)
		if (strstr(t->name, words[i]) || strstr(t->file, words[i]))
			return true;
	return n == 0;
}

int main(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");
	unsigned wanted = 0, number = 0, failed = 0;

	snprintf(test_all.base, sizeof test_all.base, "%.40s/spore-unit-XXXXXX",
		 tmp ? tmp : "/tmp");
	if (!mkdtemp(test_all.base)) {
		perror(test_all.base);
		return 1;
	}
	for (struct test *t = test_all.first; t; t = t->next)
		wanted += test_is_wanted(t, argc - 1, argv + 1);
	printf("1..%u\n", wanted);
	for (struct test *t = test_all.first; t; t = t->next) {
		if (!test_is_wanted(t, argc - 1, argv + 1))
			continue;
		int status = test_one(t);
		bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIPPED;
		failed += status && !skipped;
		printf("%sok %u - %s%s\n", status && !skipped ? "not " : "", ++number, t->name,
		       skipped ? " # SKIP" : "");
	}
	printf("# %u of %u failed\n", failed, wanted);
	rmdir(test_all.base);
	return failed || !wanted;
}

#include "unit_list.h"
