#include "amalgam/base/err.h"

#include <stdarg.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
	int saved = errno;

	ASSERT(code < 0);
	if (e) {
		va_list ap;
		va_start(ap, fmt);
		vsnprintf(e->msg, sizeof e->msg, fmt, ap);
		va_end(ap);
		e->code = code;
	}
	errno = saved;
	return code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char head[sizeof e->msg];
	va_list ap;
	size_t n, tail;

	if (!e)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(head, sizeof head, fmt, ap);
	va_end(ap);
	n = strlen(head);
	if (n + 2 < sizeof e->msg) {
		tail = MIN(strlen(e->msg), sizeof e->msg - n - 3);
		memmove(e->msg + n + 2, e->msg, tail);
		e->msg[n + 2 + tail] = '\0';
		memcpy(e->msg, head, n);
		memcpy(e->msg + n, ": ", 2);
	}
	if (e->code == 0)
		e->code = -EIO;
	return e->code;
}
