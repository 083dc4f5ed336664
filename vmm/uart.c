#include "vmm/uart.h"

#include "amalgam/base/fd.h"

/* Register numbers; 0 and 1 are the divisor while LCR.DLAB is set. */
enum { UART_THR, UART_IER, UART_IIR, UART_LCR, UART_MCR, UART_LSR, UART_MSR, UART_SCR };

#define UART_IER_THRI  0x02
#define UART_IIR_NONE  0x01
#define UART_IIR_THRI  0x02
#define UART_IIR_FIFO  0xc0
#define UART_LCR_DLAB  0x80
#define UART_MCR_LOOP  0x10
#define UART_LSR_EMPTY 0x60 /* holding register and shift register */
#define UART_MSR_READY 0xb0 /* carrier, data set ready, clear to send */

void uart_init(struct uart *u, int fd, void (*irq)(void *arg), void *arg)
{
	*u = (struct uart){ .fd = fd, .irq = irq, .arg = arg };
	pthread_mutex_init(&u->lock, NULL);
}

static void uart_flush_locked(struct uart *u)
{
	size_t n = MIN((uint64_t)u->n, UART_MAX_BYTES - u->written);

	if (n && u->fd >= 0) {
		if (fd_write_full(u->fd, u->line, n) < 0)
			u->fd = -1; /* the log is gone (disk full, reader closed): stop trying */
		u->written += n;
	}
	u->n = 0;
}

void uart_flush(struct uart *u)
{
	pthread_mutex_lock(&u->lock);
	uart_flush_locked(u);
	pthread_mutex_unlock(&u->lock);
}

static void uart_send(struct uart *u, uint8_t c)
{
	u->line[u->n++] = (char)c;
	if (c == '\n' || u->n == sizeof u->line)
		uart_flush_locked(u);
}

/* The transmitter is always empty again at once; tell a driver that asked to hear of it. */
static bool uart_thr_empty(struct uart *u)
{
	u->thr_event = true;
	return u->ier & UART_IER_THRI;
}

uint8_t uart_read(struct uart *u, unsigned port)
{
	uint8_t v = 0;
	bool dlab;

	pthread_mutex_lock(&u->lock);
	dlab = u->lcr & UART_LCR_DLAB;
	switch (port) {
	case UART_THR:
		v = dlab ? u->dll : 0;
		break;
	case UART_IER:
		v = dlab ? u->dlm : u->ier;
		break;
	case UART_IIR:
		v = UART_IIR_FIFO | (u->thr_event && (u->ier & UART_IER_THRI) ? UART_IIR_THRI :
										UART_IIR_NONE);
		u->thr_event = false;
		break;
	case UART_LCR:
		v = u->lcr;
		break;
	case UART_MCR:
		v = u->mcr;
		break;
	case UART_LSR:
		v = UART_LSR_EMPTY;
		break;
	case UART_MSR:
		/* Loop-back wires MCR's outputs to MSR's inputs; Linux tests for that when probing. */
		v = u->mcr & UART_MCR_LOOP ? (uint8_t)((u->mcr & 0x0c) << 4 | (u->mcr & 2) << 3 |
						       (u->mcr & 1) << 5) : UART_MSR_READY;
		break;
	case UART_SCR:
		v = u->scr;
		break;
	}
	pthread_mutex_unlock(&u->lock);
	return v;
}

void uart_write(struct uart *u, unsigned port, uint8_t v)
{
	bool dlab, raise = false;

	pthread_mutex_lock(&u->lock);
	dlab = u->lcr & UART_LCR_DLAB;
	switch (port) {
	case UART_THR:
		if (dlab) {
			u->dll = v;
		} else if (!(u->mcr & UART_MCR_LOOP)) {
			uart_send(u, v);
			raise = uart_thr_empty(u);
		}
		break;
	case UART_IER:
		if (dlab) {
			u->dlm = v;
		} else {
			bool asked = (v & UART_IER_THRI) && !(u->ier & UART_IER_THRI);
			u->ier = v & 0x0f;
			raise = asked && uart_thr_empty(u);
		}
		break;
	case UART_LCR:
		u->lcr = v;
		break;
	case UART_MCR:
		u->mcr = v & 0x1f;
		break;
	case UART_SCR:
		u->scr = v;
		break;
	}
	pthread_mutex_unlock(&u->lock);
	if (raise)
		u->irq(u->arg);
}
