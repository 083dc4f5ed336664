/* log.h - one line per event: constant words plus key=value, so it can be grepped and counted.
 *
 *     log_warn("template not used", KV("reason", why));
 *     -> level=warning msg="template not used" reason="..."
 *
 * error = a person must act, warn = degraded, info = a sandbox changed state, debug = for us.
 * None on a data path; what a guest can trigger is rate-limited by its caller. errno is preserved.
 * Thread-safe: one write(2) per line. The destination is process-wide, the only mutable global. */
#pragma once

#include "amalgam/base/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_kv {
	const char *key, *value;
};
#define KV(k, v) ((struct log_kv){ (k), (v) })

/* Where lines go (fd stays the caller's, -1 = nowhere) and the least urgent level kept. */
INTERNAL void log_setup(int fd, enum log_level level);
/* The same with a function that gets each line, newline included, for a destination that comes and
 * goes. It runs on the thread that logs, must not block and must not log. */
typedef void log_sink_fn(void *arg, const char *line, size_t n);
INTERNAL void log_setup_sink(log_sink_fn *sink, void *arg, enum log_level level);
INTERNAL void log_line(enum log_level level, const char *msg, const struct log_kv *kv, size_t n);

#define LOG_AT(level, msg, ...)                                               \
	do {                                                                  \
		const struct log_kv kv_[] = { __VA_ARGS__ };                  \
		log_line((level), (msg), kv_, sizeof kv_ / sizeof(struct log_kv)); \
	} while (0)
#define log_error(msg, ...) LOG_AT(LOG_ERROR, msg, __VA_ARGS__)
#define log_warn(msg, ...) LOG_AT(LOG_WARN, msg, __VA_ARGS__)
#define log_info(msg, ...) LOG_AT(LOG_INFO, msg, __VA_ARGS__)
#define log_debug(msg, ...) LOG_AT(LOG_DEBUG, msg, __VA_ARGS__)
