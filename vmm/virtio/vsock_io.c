#include "vmm/virtio/vsock_io.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "amalgam/base/mem.h"

#include "vmm/virtio/vsock.h"

#ifndef RWF_NOWAIT /* linux/fs.h */
#define RWF_NOWAIT 0x00000008
#endif

#define VMUX_BUF_MIN 4096

/* Nothing comes of it: epoll refuses what is always ready, as /dev/null is. */
static void vmux_ignore(struct watch *w, uint32_t events)
{
	(void)w;
	(void)events;
}

enum vmux_how vmux_classify(struct loop *l, int fd)
{
	struct watch probe = { 0 };
	struct stat st;
	int flags, r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return VMUX_FILE;
	if (S_ISSOCK(st.st_mode))
		return VMUX_SOCKET;
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return VMUX_FILE;
	flags = fcntl(fd, F_GETFL);
	if (flags >= 0 && (flags & O_NONBLOCK))
		return VMUX_NONBLOCK;
	if (S_ISFIFO(st.st_mode))
		return VMUX_NOWAIT;
	r = watch_start(l, &probe, fd, 0, vmux_ignore);
	watch_stop(&probe);
	return r == -EPERM ? VMUX_FILE : VMUX_POLL;
}

ssize_t vmux_readv(enum vmux_how *how, int fd, const struct iovec *iov, unsigned n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (int)n };
	ssize_t r;

	switch (*how) {
	case VMUX_SOCKET:
		r = recvmsg(fd, &msg, MSG_DONTWAIT);
		break;
	case VMUX_NOWAIT:
		r = syscall(SYS_preadv2, fd, iov, (long)n, -1L, -1L, RWF_NOWAIT);
		break;
	default:
		r = readv(fd, iov, (int)n);
	}
	if (r >= 0)
		return r;
	if (errno == EOPNOTSUPP && *how == VMUX_NOWAIT)
		*how = VMUX_POLL;
	else if (errno != EINTR)
		return -errno;
	return -EAGAIN;
}

ssize_t vmux_writev(enum vmux_how *how, int fd, const struct iovec *iov, unsigned n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (int)n };
	ssize_t r;

	switch (*how) {
	case VMUX_SOCKET:
		r = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case VMUX_NOWAIT:
		r = syscall(SYS_pwritev2, fd, iov, (long)n, -1L, -1L, RWF_NOWAIT);
		break;
	default:
		r = writev(fd, iov, (int)n);
	}
	if (r >= 0)
		return r;
	if (errno == EOPNOTSUPP && *how == VMUX_NOWAIT)
		*how = VMUX_POLL;
	else if (errno != EINTR)
		return -errno;
	return -EAGAIN;
}

short vmux_poll(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

uint8_t *vmux_buf_room(struct vmux_buf *b, uint32_t n)
{
	uint32_t cap = MAX(b->cap, (uint32_t)VMUX_BUF_MIN);

	ASSERT(n <= VSK_BUF_BYTES - b->len);
	if (b->len && b->cap - b->at - b->len < n) {
		memmove(b->p, b->p + b->at, b->len);
		b->at = 0;
	}
	while (cap < b->len + n)
		cap *= 2;
	if (cap > b->cap) {
		b->p = mem_realloc(b->p, cap);
		b->cap = cap;
	}
	return b->p + b->at + b->len;
}

void vmux_buf_drop(struct vmux_buf *b, uint32_t n)
{
	b->at += n;
	b->len -= n;
	if (b->len == 0) {
		free(b->p);
		*b = (struct vmux_buf){ 0 };
	}
}
