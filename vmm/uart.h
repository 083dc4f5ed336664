/* uart.h - COM1: a 16550A that only ever sends. Output goes to the sandbox's console log.
 *
 * It exists for the moments when nothing else speaks yet: early boot, oops, panic. A guest can write
 * as much as it likes; past UART_MAX_BYTES the rest is dropped, so that it cannot fill the host's disk.
 *
 * Called from vCPU threads; one lock inside. Source: PC16550D data sheet, table of registers. */
#pragma once

#include <pthread.h>

#include "amalgam/base/base.h"

#define UART_BASE      0x3f8
#define UART_PORTS     8
#define UART_MAX_BYTES MIB(1)

struct uart {
	pthread_mutex_t lock;
	int fd;            /* console log, borrowed; -1 = discard */
	void (*irq)(void *arg);
	void *arg;
	uint64_t written;  /* bytes, against UART_MAX_BYTES */
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool thr_event;    /* transmitter-empty interrupt not yet read from IIR */
	unsigned n;        /* bytes in line[] */
	char line[120];    /* flushed at newline or when full */
};

INTERNAL void uart_init(struct uart *u, int fd, void (*irq)(void *arg), void *arg);
/* port is relative to UART_BASE. */
INTERNAL uint8_t uart_read(struct uart *u, unsigned port);
INTERNAL void uart_write(struct uart *u, unsigned port, uint8_t v);
INTERNAL void uart_flush(struct uart *u);
