/* test.h - unit tests: what a test may use.
 *
 *     TEST(vq_walk_rejects_descriptor_loop)
 *     {
 *             ...
 *             CHECK_EQ(vq_walk(&q, 0, &chain), -ELOOP);      got, then what it should be
 *     }
 *
 * A name is a sentence; it starts with the module's prefix. Every test runs in a process of its
 * own, with a deadline, and ends at its first failed check. State left behind there is nobody's
 * problem, except that memory not freed is a failure (LeakSanitizer). Files go below test_dir(). */
#pragma once

#include "amalgam/base/base.h"
#include "amalgam/base/err.h"

struct test {
	const char *name, *file;
	void (*run)(void);
	struct test *next;
};

void test_register(struct test *t);

#define TEST(sentence)                                                                     \
	static void test_run_##sentence(void);                                             \
	__attribute__((constructor)) static void test_add_##sentence(void)                 \
	{                                                                                  \
		static struct test t = { #sentence, __FILE__, test_run_##sentence, NULL }; \
		test_register(&t);                                                         \
	}                                                                                  \
	static void test_run_##sentence(void)

/* In loops over a table: what row this is, printed if a check fails. Kept until the next call. */
void test_note(const char *fmt, ...) PRINTF_LIKE(1, 2);

NORETURN void test_fail(const char *file, int line, const char *fmt, ...) PRINTF_LIKE(3, 4);
void test_check_int(const char *file, int line, const char *expr, long long got, long long want);
void test_check_str(const char *file, int line, const char *expr, const char *got,
		    const char *want);
void test_check_mem(const char *file, int line, const char *expr, const void *got, const void *want,
		    size_t n);
void test_check_has(const char *file, int line, const char *expr, const char *got,
		    const char *part);

#define CHECK(cond) ((cond) ? (void)0 : test_fail(__FILE__, __LINE__, "%s", #cond))
/* Whole numbers, pointers cast by the caller. */
#define CHECK_EQ(got, want) \
	test_check_int(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
/* C strings; NULL equals NULL. */
#define CHECK_STR(got, want)    test_check_str(__FILE__, __LINE__, #got, (got), (want))
#define CHECK_MEM(got, want, n) test_check_mem(__FILE__, __LINE__, #got, (got), (want), (n))
/* The string contains the part: for error messages. */
#define CHECK_HAS(got, part) test_check_has(__FILE__, __LINE__, #got, (got), (part))

/* This machine cannot run the test, for the reason given: it ends, and is counted apart. */
#define TEST_SKIPPED 77
NORETURN void test_skip(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A copy of n bytes that ends at an unmapped page, so that reading one byte too many faults.
 * Writable; gone with the test. */
void *test_guard(const void *p, size_t n);
/* The same for a C string without its NUL. */
void *test_guard_str(const char *s);

/* An empty directory for this test, removed after it. */
const char *test_dir(void);
