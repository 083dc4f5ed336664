#include "guest/agent/tty.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <termios.h>

#include "amalgam/base/path.h"

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

int ga_tty_open(int root_fd, int *master, int *slave, struct err *e)
{
	int unlock = 0;
	struct statfs fs;

	*master = path_open_in_root(root_fd, "/dev/pts/ptmx", O_RDWR | O_NOCTTY, 0);
	if (*master < 0)
		return err_set(e, *master, "/dev/pts/ptmx: %s", strerror(-*master));
	if (fstatfs(*master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
		return err_set(e, -ENODEV, "/dev/pts is no devpts");
	if (ioctl(*master, TIOCSPTLCK, &unlock) < 0)
		return err_set(e, -errno, "unlock: %m");
	*slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0)
		return err_set(e, -errno, "open the slave: %m");
	return 0;
}

void ga_tty_resize(int master, unsigned rows, unsigned columns)
{
	struct winsize ws = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };

	ioctl(master, TIOCSWINSZ, &ws);
}
