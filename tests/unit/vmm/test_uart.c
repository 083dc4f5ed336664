#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "amalgam/base/fd.h"
#include "tests/unit/test.h"
#include "vmm/uart.h"

/* PC16550D register numbers. */
enum { TUART_DATA, TUART_IER, TUART_IIR, TUART_LCR, TUART_MCR, TUART_LSR, TUART_MSR, TUART_SCR };

struct tuart {
	struct uart u;
	int fd;
	unsigned irqs;
};

static void tuart_irq(void *arg)
{
	struct tuart *t = arg;
	t->irqs++;
}

static void tuart_init(struct tuart *t)
{
	*t = (struct tuart){ .fd = fd_memfd("console") };
	CHECK(t->fd >= 0);
	uart_init(&t->u, t->fd, tuart_irq, t);
}

static void tuart_put(struct tuart *t, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		uart_write(&t->u, TUART_DATA, (uint8_t)s[i]);
}

static off_t tuart_bytes(const struct tuart *t)
{
	struct stat st;
	CHECK_EQ(fstat(t->fd, &st), 0);
	return st.st_size;
}

static void tuart_check_log(const struct tuart *t, const char *want)
{
	char got[512] = "";

	CHECK(pread(t->fd, got, sizeof got - 1, 0) >= 0);
	CHECK_STR(got, want);
}

TEST(uart_writes_a_line_when_it_is_whole)
{
	struct tuart t;

	tuart_init(&t);
	tuart_put(&t, "hello", 5);
	CHECK_EQ(tuart_bytes(&t), 0);
	tuart_put(&t, "\nrest", 5);
	tuart_check_log(&t, "hello\n");
	uart_flush(&t.u);
	tuart_check_log(&t, "hello\nrest");
	uart_flush(&t.u);
	tuart_check_log(&t, "hello\nrest");
	close(t.fd);
}

TEST(uart_writes_a_line_that_is_too_long_in_pieces)
{
	struct tuart t;
	char line[sizeof t.u.line * 2 + 7];

	tuart_init(&t);
	memset(line, 'x', sizeof line);
	tuart_put(&t, line, sizeof t.u.line - 1);
	CHECK_EQ(tuart_bytes(&t), 0);
	tuart_put(&t, line, 1);
	CHECK_EQ(tuart_bytes(&t), sizeof t.u.line);
	tuart_put(&t, line, sizeof t.u.line + 7);
	CHECK_EQ(tuart_bytes(&t), 2 * sizeof t.u.line);
	uart_flush(&t.u);
	CHECK_EQ(tuart_bytes(&t), sizeof line);
	close(t.fd);
}

TEST(uart_is_always_ready_to_send_and_never_receives)
{
	struct tuart t;

	tuart_init(&t);
	CHECK_EQ(uart_read(&t.u, TUART_LSR), 0x60);
	tuart_put(&t, "x", 1);
	CHECK_EQ(uart_read(&t.u, TUART_LSR), 0x60);
	CHECK_EQ(uart_read(&t.u, TUART_DATA), 0);
	CHECK_EQ(uart_read(&t.u, TUART_MSR), 0xb0); /* DCD, DSR, CTS */
	uart_write(&t.u, TUART_LSR, 0xff); /* read-only registers */
	uart_write(&t.u, TUART_MSR, 0xff);
	CHECK_EQ(uart_read(&t.u, TUART_LSR), 0x60);
	CHECK_EQ(uart_read(&t.u, TUART_MSR), 0xb0);
	close(t.fd);
}

TEST(uart_registers_keep_the_bits_they_have)
{
	static const struct {
		unsigned port;
		uint8_t kept;
	} row[] = { { TUART_IER, 0x0f }, { TUART_LCR, 0x7f }, { TUART_MCR, 0x1f },
		    { TUART_SCR, 0xff } };
	struct tuart t;

	tuart_init(&t);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++)
		for (unsigned v = 0; v < 256; v++) {
			test_note("port %u value %#x", row[i].port, v);
			uart_write(&t.u, row[i].port, (uint8_t)v & (row[i].port == TUART_LCR ? 0x7f : 0xff));
			CHECK_EQ(uart_read(&t.u, row[i].port), v & row[i].kept);
		}
	CHECK_EQ(tuart_bytes(&t), 0);
	close(t.fd);
}

TEST(uart_divisor_hides_data_and_interrupt_registers)
{
	struct tuart t;

	tuart_init(&t);
	uart_write(&t.u, TUART_IER, 0x01);
	uart_write(&t.u, TUART_LCR, 0x83);
	uart_write(&t.u, TUART_DATA, 0x0c);
	uart_write(&t.u, TUART_IER, 0x02); /* would enable the transmitter interrupt */
	CHECK_EQ(uart_read(&t.u, TUART_DATA), 0x0c);
	CHECK_EQ(uart_read(&t.u, TUART_IER), 0x02);
	uart_write(&t.u, TUART_LCR, 0x03);
	CHECK_EQ(uart_read(&t.u, TUART_DATA), 0);
	CHECK_EQ(uart_read(&t.u, TUART_IER), 0x01);
	CHECK_EQ(t.irqs, 0);
	uart_flush(&t.u);
	CHECK_EQ(tuart_bytes(&t), 0);
	close(t.fd);
}

TEST(uart_tells_a_driver_that_asked_that_the_transmitter_is_empty)
{
	struct tuart t;

	tuart_init(&t);
	tuart_put(&t, "a", 1);
	CHECK_EQ(t.irqs, 0); /* nobody asked */
	CHECK_EQ(uart_read(&t.u, TUART_IIR), 0xc1);
	uart_write(&t.u, TUART_IER, 0x02);
	CHECK_EQ(t.irqs, 1); /* empty right now */
	uart_write(&t.u, TUART_IER, 0x02);
	CHECK_EQ(t.irqs, 1); /* not asked anew */
	CHECK_EQ(uart_read(&t.u, TUART_IIR), 0xc2);
	CHECK_EQ(uart_read(&t.u, TUART_IIR), 0xc1); /* reading it took it away */
	tuart_put(&t, "b", 1);
	CHECK_EQ(t.irqs, 2);
	CHECK_EQ(uart_read(&t.u, TUART_IIR), 0xc2);
	uart_write(&t.u, TUART_IER, 0);
	tuart_put(&t, "c", 1);
	CHECK_EQ(t.irqs, 2);
	CHECK_EQ(uart_read(&t.u, TUART_IIR), 0xc1);
	close(t.fd);
}

TEST(uart_loop_back_wires_modem_outputs_to_inputs_and_sends_nothing)
{
	/* MCR DTR, RTS, OUT1, OUT2 appear as MSR DSR, CTS, RI, DCD: data sheet 8.6. */
	static const uint8_t row[][2] = { { 0x01, 0x20 }, { 0x02, 0x10 }, { 0x04, 0x40 },
					  { 0x08, 0x80 }, { 0x0f, 0xf0 }, { 0x0a, 0x90 },
					  { 0x00, 0x00 } };
	struct tuart t;

	tuart_init(&t);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		test_note("MCR %#x", row[i][0]);
		uart_write(&t.u, TUART_MCR, 0x10 | row[i][0]);
		CHECK_EQ(uart_read(&t.u, TUART_MSR), row[i][1]);
		tuart_put(&t, "secret\n", 7);
	}
	CHECK_EQ(tuart_bytes(&t), 0);
	uart_write(&t.u, TUART_MCR, 0x0b);
	tuart_put(&t, "out\n", 4);
	tuart_check_log(&t, "out\n");
	close(t.fd);
}

TEST(uart_ports_that_do_not_exist_read_zero_and_ignore_writes)
{
	struct tuart t;

	tuart_init(&t);
	for (unsigned port = UART_PORTS; port < 64; port++) {
		uart_write(&t.u, port, 0xff);
		CHECK_EQ(uart_read(&t.u, port), 0);
	}
	uart_flush(&t.u);
	CHECK_EQ(tuart_bytes(&t), 0);
	CHECK_EQ(t.irqs, 0);
	close(t.fd);
}

/* CVE-2020-27174 is a serial buffer that grows. */
TEST(uart_cannot_fill_the_disk)
{
	struct tuart t;
	char line[64];

	tuart_init(&t);
	memset(line, 'x', sizeof line - 1);
	line[sizeof line - 1] = '\n';
	for (unsigned i = 0; i < 2 * UART_MAX_BYTES / sizeof line; i++)
		tuart_put(&t, line, sizeof line);
	CHECK_EQ(tuart_bytes(&t), UART_MAX_BYTES);
	CHECK_EQ(uart_read(&t.u, TUART_LSR), 0x60); /* and the guest does not notice */
	uart_write(&t.u, TUART_IER, 0x02);
	tuart_put(&t, "y\n", 2);
	CHECK_EQ(t.irqs, 3);
	CHECK_EQ(tuart_bytes(&t), UART_MAX_BYTES);
	close(t.fd);
}

TEST(uart_keeps_to_its_limit_whatever_the_length_of_lines)
{
	struct tuart t;

	tuart_init(&t);
	for (unsigned i = 0; i < UART_MAX_BYTES + 4096; i++)
		tuart_put(&t, "x", 1);
	uart_flush(&t.u);
	CHECK_EQ(tuart_bytes(&t), UART_MAX_BYTES);
	close(t.fd);
}

TEST(uart_gives_up_on_a_log_that_is_gone)
{
	struct tuart t = { 0 };
	int fd[2];

	signal(SIGPIPE, SIG_IGN);
	CHECK_EQ(pipe(fd), 0);
	uart_init(&t.u, fd[1], tuart_irq, &t);
	close(fd[0]);
	tuart_put(&t, "one\n", 4);
	CHECK_EQ(t.u.fd, -1);
	tuart_put(&t, "two\n", 4);
	CHECK_EQ(uart_read(&t.u, TUART_LSR), 0x60);
	CHECK(fcntl(fd[1], F_GETFD) >= 0); /* borrowed: not ours to close */
	close(fd[1]);
}

TEST(uart_without_a_log_discards)
{
	struct tuart t = { 0 };

	uart_init(&t.u, -1, tuart_irq, &t);
	for (unsigned i = 0; i < 1000; i++)
		tuart_put(&t, "x", 1);
	uart_flush(&t.u);
	CHECK_EQ(t.u.n, 0);
}
