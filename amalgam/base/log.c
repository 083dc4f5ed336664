#include "amalgam/base/log.h"

#include <stdarg.h>
#include <time.h>

static int log_fd = 2;
static enum log_level log_max = LOG_WARN;
static struct {
	log_sink_fn *fn; /* NULL: log_fd is the destination */
	void *arg;
} log_sink;

void log_setup(int fd, enum log_level level)
{
	log_fd = fd;
	log_max = level;
	log_sink.fn = NULL;
}

void log_setup_sink(log_sink_fn *sink, void *arg, enum log_level level)
{
	log_sink.fn = sink;
	log_sink.arg = arg;
	log_max = level;
}

/* Append printf output at *len, never past the end: a long line is cut, not lost. */
static PRINTF_LIKE(4, 5) void log_put(char *line, size_t size, size_t *len, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line + *len, size - *len, fmt, ap);
	va_end(ap);
	if (n > 0)
		*len = MIN(*len + (size_t)n, size - 1);
}

static void log_put_quoted(char *line, size_t size, size_t *len, const char *s)
{
	log_put(line, size, len, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			log_put(line, size, len, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			log_put(line, size, len, "\\x%02x", (unsigned char)*s);
		else
			log_put(line, size, len, "%c", *s);
	}
	log_put(line, size, len, "\"");
}

void log_line(enum log_level level, const char *msg, const struct log_kv *kv, size_t n)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	int saved = errno;
	char line[1024];
	size_t len = 0;
	struct timespec ts;
	struct tm tm;

	if ((log_fd < 0 && !log_sink.fn) || level > log_max)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	len = strftime(line, sizeof line, "time=\"%Y-%m-%dT%H:%M:%S", &tm);
	log_put(line, sizeof line, &len, ".%09ldZ\" level=%s msg=", ts.tv_nsec, names[level]);
	log_put_quoted(line, sizeof line, &len, msg);
	for (size_t i = 0; i < n; i++) {
		log_put(line, sizeof line, &len, " %s=", kv[i].key);
		log_put_quoted(line, sizeof line, &len, kv[i].value ? kv[i].value : "");
	}
	line[len++] = '\n';
	if (log_sink.fn) {
		log_sink.fn(log_sink.arg, line, len);
	} else if (write(log_fd, line, len) < 0) {
		/* Nothing to tell it to: the log itself is gone. */
	}
	errno = saved;
}
