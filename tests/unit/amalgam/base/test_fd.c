#include "amalgam/base/fd.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/unit/test.h"

static int tfd_open_count(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void tfd_pair(int type, int fds[2])
{
	CHECK_EQ(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
}

TEST(fd_read_full_waits_for_all_bytes)
{
	char got[10];
	int fds[2];

	CHECK_EQ(pipe(fds), 0);
	if (fork() == 0) {
		for (int i = 0; i < 10; i++) {
			CHECK_EQ(fd_write_full(fds[1], &"0123456789"[i], 1), 0);
			usleep(1000);
		}
		_exit(0);
	}
	CHECK_EQ(fd_read_full(fds[0], got, sizeof got), 0);
	CHECK_MEM(got, "0123456789", 10);
	CHECK_EQ(fd_read_full(fds[0], got, 0), 0);
	wait(NULL);
	close(fds[1]);
	CHECK_EQ(fd_read_full(fds[0], got, 1), -EPIPE);
}

static void tfd_on_alarm(int sig)
{
	(void)sig;
}

TEST(fd_read_full_goes_on_after_a_signal)
{
	struct sigaction sa = { .sa_handler = tfd_on_alarm }; /* without SA_RESTART */
	char got[1];
	int fds[2];

	CHECK_EQ(pipe(fds), 0);
	sigaction(SIGUSR1, &sa, NULL);
	if (fork() == 0) {
		usleep(20000);
		kill(getppid(), SIGUSR1);
		usleep(20000);
		CHECK_EQ(fd_write_full(fds[1], "x", 1), 0);
		_exit(0);
	}
	CHECK_EQ(fd_read_full(fds[0], got, 1), 0);
	wait(NULL);
}

TEST(fd_pread_and_pwrite_use_offsets)
{
	int fd = fd_memfd("test");
	char got[4];

	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fd_pwrite_full(fd, "abcd", 4, 100), 0);
	CHECK_EQ(fd_pread_full(fd, got, 4, 100), 0);
	CHECK_MEM(got, "abcd", 4);
	CHECK_EQ(fd_pread_full(fd, got, 4, 101), -EPIPE);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 0);
	CHECK_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	close(fd);
	CHECK_EQ(fd_pread_full(fd, got, 1, 0), -EBADF);
	CHECK_EQ(fd_write_full(fd, got, 1), -EBADF);
	CHECK_EQ(fd_pwrite_full(fd, got, 1, 0), -EBADF);
}

TEST(fd_set_nonblock_switches_both_ways)
{
	char c;
	int fds[2];

	CHECK_EQ(pipe(fds), 0);
	CHECK_EQ(fd_set_nonblock(fds[0], true), 0);
	CHECK_EQ(read(fds[0], &c, 1), -1);
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(fd_set_nonblock(fds[0], false), 0);
	CHECK_EQ(fcntl(fds[0], F_GETFL) & O_NONBLOCK, 0);
	CHECK_EQ(fd_set_nonblock(-1, true), -EBADF);
}

TEST(fd_send_passes_descriptors)
{
	int s[2], out[FD_PASS_MAX], in[FD_PASS_MAX];
	size_t n = FD_PASS_MAX;
	char got[8];

	tfd_pair(SOCK_SEQPACKET, s);
	for (int i = 0; i < FD_PASS_MAX; i++) {
		out[i] = fd_memfd("x");
		CHECK_EQ(fd_write_full(out[i], &"01234567"[i], 1), 0);
	}
	CHECK_EQ(fd_send(s[0], "hello", 5, out, FD_PASS_MAX, 0), 5);
	CHECK_EQ(fd_recv(s[1], got, sizeof got, in, &n, 0), 5);
	CHECK_MEM(got, "hello", 5);
	CHECK_EQ(n, FD_PASS_MAX);
	for (int i = 0; i < FD_PASS_MAX; i++) {
		CHECK_EQ(fcntl(in[i], F_GETFD), FD_CLOEXEC);
		CHECK_EQ(fd_pread_full(in[i], got, 1, 0), 0);
		CHECK_EQ(got[0], '0' + i);
	}
}

TEST(fd_recv_keeps_nothing_of_a_message_with_too_many_descriptors)
{
	int s[2], out[3] = { 0, 1, 2 }, in[2], before;
	size_t n = 2;
	char got[8];

	tfd_pair(SOCK_SEQPACKET, s);
	before = tfd_open_count();
	CHECK_EQ(fd_send(s[0], "x", 1, out, 3, 0), 1);
	CHECK_EQ(fd_recv(s[1], got, sizeof got, in, &n, 0), -EMSGSIZE);
	CHECK_EQ(n, 0);
	CHECK_EQ(fd_send(s[0], "x", 1, out, 3, 0), 1);
	CHECK_EQ(fd_recv(s[1], got, sizeof got, NULL, NULL, 0), -EMSGSIZE);
	CHECK_EQ(tfd_open_count(), before);
}

TEST(fd_recv_keeps_nothing_of_a_message_that_is_too_long)
{
	int s[2], fd = 0, in[2], before;
	size_t n = 2;
	char got[2];

	tfd_pair(SOCK_SEQPACKET, s);
	before = tfd_open_count();
	CHECK_EQ(fd_send(s[0], "long", 4, &fd, 1, 0), 4);
	CHECK_EQ(fd_recv(s[1], got, sizeof got, in, &n, 0), -EMSGSIZE);
	CHECK_EQ(n, 0);
	CHECK_EQ(tfd_open_count(), before);
}

TEST(fd_recv_reports_the_end_and_errors)
{
	int s[2], in[1];
	size_t n = 1;
	char got[2];

	tfd_pair(SOCK_STREAM, s);
	CHECK_EQ(fd_recv(s[1], got, 2, in, &n, MSG_DONTWAIT), -EAGAIN);
	CHECK_EQ(n, 0);
	close(s[0]);
	n = 1;
	CHECK_EQ(fd_recv(s[1], got, 2, in, &n, 0), 0);
	CHECK_EQ(n, 0);
	CHECK_EQ(fd_send(s[1], "x", 1, NULL, 0, 0), -EPIPE); /* no SIGPIPE */
}

TEST(fd_close_from_closes_all_above)
{
	int fd = fcntl(0, F_DUPFD, 100);

	CHECK(fd >= 100);
	fd_close_from(100);
	CHECK_EQ(fcntl(fd, F_GETFD), -1);
	CHECK(fcntl(1, F_GETFD) >= 0);
}
