#include "amalgam/cli/tty.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

void tty_raw(struct tty *t)
{
	struct termios now;

	if (tcgetattr(0, &t->before) < 0)
		return;
	now = t->before;
	cfmakeraw(&now);
	t->raw = tcsetattr(0, TCSANOW, &now) == 0;
}

void tty_restore(struct tty *t)
{
	if (t->raw)
		tcsetattr(0, TCSADRAIN, &t->before);
	t->raw = false;
}

bool tty_size(unsigned *rows, unsigned *cols)
{
	struct winsize w;

	if (ioctl(0, TIOCGWINSZ, &w) < 0 || !w.ws_row || !w.ws_col)
		return false;
	*rows = w.ws_row;
	*cols = w.ws_col;
	return true;
}

int tty_reopen(int fd, int flags)
{
	char path[32];
	struct stat st;
	int own;

	if (fstat(fd, &st) < 0 || (!S_ISFIFO(st.st_mode) && !isatty(fd)))
		return fd;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	own = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return own < 0 ? fd : own;
}
