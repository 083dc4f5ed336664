#include "amalgam/base/err.h"

#include <sys/wait.h>

#include "tests/unit/test.h"

TEST(err_set_keeps_code_words_and_errno)
{
	struct err e = { 0 };

	errno = ENOENT;
	CHECK_EQ(err_set(&e, -EIO, "open %s: %m", "x"), -EIO);
	CHECK_EQ(errno, ENOENT);
	CHECK_EQ(e.code, -EIO);
	CHECK_STR(e.msg, "open x: No such file or directory");
	CHECK_EQ(err_set(NULL, -EIO, "nobody listens"), -EIO);
}

TEST(err_wrap_puts_the_outer_words_first)
{
	struct err e = { 0 };

	err_set(&e, -ENOENT, "open: gone");
	CHECK_EQ(err_wrap(&e, "header %d", 2), -ENOENT);
	CHECK_EQ(err_wrap(&e, "restoring"), -ENOENT);
	CHECK_STR(e.msg, "restoring: header 2: open: gone");
	CHECK_EQ(err_wrap(NULL, "x"), -EIO);
}

TEST(err_wrap_without_an_error_is_an_io_error)
{
	struct err e = { 0 };

	CHECK_EQ(err_wrap(&e, "x"), -EIO);
	CHECK_EQ(e.code, -EIO);
}

TEST(err_words_are_cut_and_never_overflow)
{
	struct err e = { 0 };
	char text[600];
	size_t want;

	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = '\0';
	err_set(&e, -EIO, "%s", text);
	CHECK_EQ(strlen(e.msg), sizeof e.msg - 1);
	for (size_t n = 1; n < sizeof text; n += 7) {
		struct err f = { 0 };
		err_set(&f, -EIO, "%.*s", 300, text);
		test_note("%zu", n);
		err_wrap(&f, "%.*s", (int)n, text);
		want = n + 2 < sizeof f.msg ? MIN(n + 302, sizeof f.msg - 1) : 300;
		CHECK_EQ(strlen(f.msg), want);
		CHECK_EQ(f.msg[0], 'a');
	}
}

TEST(assert_names_itself_and_dies)
{
	int status, fds[2];
	char text[256] = "";
	pid_t pid;

	CHECK(pipe(fds) == 0);
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], 2);
		ASSERT(1 + 1 == 3);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status));
	CHECK(read(fds[0], text, sizeof text - 1) > 0);
	CHECK_HAS(text, "1 + 1 == 3");
	CHECK_HAS(text, "test_err.c");
}
