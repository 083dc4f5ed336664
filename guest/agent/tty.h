/* tty.h - pseudo terminals from a container's own devpts. */
#pragma once

#include "amalgam/base/err.h"

/* A new pair; the slave is opened through the master, so no path in the container is trusted. */
INTERNAL MUST_USE int ga_tty_open(int root_fd, int *master, int *slave, struct err *e);
INTERNAL void ga_tty_resize(int master, unsigned rows, unsigned columns);
