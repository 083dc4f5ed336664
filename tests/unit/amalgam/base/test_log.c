#include "amalgam/base/log.h"

#include <fcntl.h>

#include "amalgam/base/str.h"
#include "tests/unit/test.h"

static int tlog_fds[2];
static char tlog_text[4096];

static void tlog_start(enum log_level level)
{
	CHECK_EQ(pipe(tlog_fds), 0);
	CHECK_EQ(fcntl(tlog_fds[0], F_SETFL, O_NONBLOCK), 0);
	log_setup(tlog_fds[1], level);
}

static const char *tlog_read(void)
{
	ssize_t n = read(tlog_fds[0], tlog_text, sizeof tlog_text - 1);

	tlog_text[n > 0 ? n : 0] = '\0';
	return tlog_text;
}

TEST(log_lines_have_time_level_message_and_pairs)
{
	const char *line;

	tlog_start(LOG_DEBUG);
	log_warn("template not used", KV("reason", "no \"such\" file"), KV("id", NULL));
	line = tlog_read();
	CHECK(str_starts(line, "time=\"20"));
	CHECK_HAS(line, "Z\" level=warning msg=\"template not used\" "
			"reason=\"no \\\"such\\\" file\" id=\"\"\n");
	log_info("plain");
	CHECK_HAS(tlog_read(), "level=info msg=\"plain\"\n");
}

TEST(log_drops_what_is_less_urgent)
{
	tlog_start(LOG_WARN);
	log_info("a");
	log_debug("b");
	CHECK_STR(tlog_read(), "");
	log_error("c");
	CHECK_HAS(tlog_read(), "level=error msg=\"c\"");
	log_setup(-1, LOG_DEBUG);
	log_error("d");
	CHECK_STR(tlog_read(), "");
}

TEST(log_is_one_line_whatever_is_in_it)
{
	char text[5000];
	const char *line;

	tlog_start(LOG_DEBUG);
	log_info("a\nb\x01", KV("k", "\t\\"));
	line = tlog_read();
	CHECK_HAS(line, "msg=\"a\\x0ab\\x01\" k=\"\\x09\\\\\"\n");
	memset(text, '\n', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	log_info("long", KV("k", text));
	line = tlog_read();
	CHECK(strlen(line) <= 1024);
	CHECK(strchr(line, '\n') == line + strlen(line) - 1);
}

TEST(log_leaves_errno_alone)
{
	log_setup(1000, LOG_DEBUG); /* a closed descriptor */
	errno = EBADMSG;
	log_info("x");
	CHECK_EQ(errno, EBADMSG);
}

static void tlog_sink(void *arg, const char *line, size_t n)
{
	snprintf(arg, sizeof tlog_text, "%.*s", (int)n, line);
}

TEST(log_lines_go_to_a_function_if_there_is_one)
{
	tlog_start(LOG_DEBUG);
	log_setup_sink(tlog_sink, tlog_text, LOG_INFO);
	log_info("here", KV("k", "v"));
	CHECK_HAS(tlog_text, " level=info msg=\"here\" k=\"v\"\n");
	tlog_text[0] = '\0';
	log_debug("not urgent");
	CHECK_STR(tlog_text, "");
	log_setup(tlog_fds[1], LOG_INFO);
	log_info("there");
	CHECK_HAS(tlog_read(), "msg=\"there\"");
}
