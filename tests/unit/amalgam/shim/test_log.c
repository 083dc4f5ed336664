#include "amalgam/shim/log.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

static char tsl_text[8192];

static const char *tsl_read(int fd)
{
	ssize_t n = read(fd, tsl_text, sizeof tsl_text - 1);

	tsl_text[n > 0 ? n : 0] = '\0';
	return tsl_text;
}

/* As containerd holds it: O_RDWR, so that there is always a reader. */
static int tsl_reader(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

TEST(shim_log_lines_arrive_in_the_fifo_as_logfmt)
{
	AUTO_FREE char *path = mem_printf("%s/log", test_dir());
	struct shim_log lg;
	int fd;

	CHECK_EQ(mkfifo(path, 0700), 0);
	fd = tsl_reader(path);
	shim_log_start(&lg, path, LOG_INFO);
	log_info("sandbox started", KV("id", "a1"));
	log_debug("too much");
	CHECK(strncmp(tsl_read(fd), "time=\"2", 7) == 0);
	CHECK_HAS(tsl_text, "Z\" level=info msg=\"sandbox started\" id=\"a1\"\n");
	CHECK(!strstr(tsl_text, "too much"));
	shim_log_stop(&lg);
	log_error("after the end");
	CHECK_STR(tsl_read(fd), "");
}

TEST(shim_log_survives_a_reader_that_goes_and_finds_the_next)
{
	AUTO_FREE char *path = mem_printf("%s/log", test_dir());
	struct shim_log lg;
	int fd;

	CHECK_EQ(mkfifo(path, 0700), 0);
	shim_log_start(&lg, path, LOG_INFO);
	log_info("nobody is there");
	fd = tsl_reader(path);
	log_info("one");
	CHECK_HAS(tsl_read(fd), "msg=\"one\"");
	close(fd);
	log_info("lost"); /* and no SIGPIPE */
	fd = tsl_reader(path);
	log_info("two");
	CHECK_HAS(tsl_read(fd), "msg=\"two\"");
	CHECK(!strstr(tsl_text, "lost"));
	/* The reader changed while we were silent: the line that finds the old pipe dead is not lost. */
	close(fd);
	fd = tsl_reader(path);
	log_info("three");
	CHECK_HAS(tsl_read(fd), "msg=\"three\"");
	shim_log_stop(&lg);
}

TEST(shim_log_drops_lines_when_the_pipe_is_full)
{
	AUTO_FREE char *path = mem_printf("%s/log", test_dir());
	struct shim_log lg;
	int fd;

	CHECK_EQ(mkfifo(path, 0700), 0);
	fd = tsl_reader(path);
	shim_log_start(&lg, path, LOG_INFO);
	for (int i = 0; i < 5000; i++)
		log_info("a line of some length, and many of them");
	while (*tsl_read(fd))
		;
	log_info("room again");
	CHECK_HAS(tsl_read(fd), "msg=\"room again\"\n");
	shim_log_stop(&lg);
}

TEST(shim_log_needs_no_file_at_all)
{
	struct shim_log lg;

	shim_log_start(&lg, "/nonexistent/bundle/log", LOG_DEBUG);
	log_error("into the void");
	shim_log_stop(&lg);
}
