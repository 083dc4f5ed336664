#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "amalgam/base/fd.h"
#include "amalgam/runtime/sandbox.h"
#include "tests/unit/test.h"

/* A sandbox whose machine process is a child that keeps account of disks: a full slot takes no other. Drivers
 * of the drives stay, and of one more slot. */
#define TSBX_STUCK 20u

struct tsbx {
	struct sandbox s;
	pid_t pid;
};

static NORETURN void tsbx_machine(int fd)
{
	bool full[LAYOUT_SLOTS] = { false };
	struct ctl_request rq;
	int fds[FD_PASS_MAX];
	size_t n = FD_PASS_MAX;

	while (fd_recv(fd, &rq, sizeof rq, fds, &n, 0) == sizeof rq) {
		struct ctl_reply reply = { .op = rq.op };

		if (rq.op == CTL_ATTACH_BLK)
			reply.code = rq.slot >= LAYOUT_SLOTS || full[rq.slot] ? -EBUSY : 0;
		else
			reply.code = rq.op == CTL_DETACH && full[rq.slot] ? 0 : -ENOENT;
		if (reply.code == 0)
			full[rq.slot] = rq.op == CTL_ATTACH_BLK;
		reply.value = reply.code == 0 && (rq.slot < CTL_SLOT_FREE || rq.slot == TSBX_STUCK);
		snprintf(reply.msg, sizeof reply.msg, "machine says so");
		CHECK_EQ(fd_send(fd, &reply, sizeof reply, NULL, 0, 0), sizeof reply);
		while (n > 0)
			close(fds[--n]);
		n = FD_PASS_MAX;
	}
	_exit(0);
}

static void tsbx_init(struct tsbx *t)
{
	int sv[2];

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	t->pid = fork();
	if (t->pid == 0) {
		close(sv[0]);
		tsbx_machine(sv[1]);
	}
	close(sv[1]);
	t->s = (struct sandbox){ .vm.ctl_fd = sv[0] };
}

static void tsbx_fini(struct tsbx *t)
{
	close(t->s.vm.ctl_fd);
	waitpid(t->pid, NULL, 0);
}

static int tsbx_add(struct tsbx *t, bool read_only, uint32_t *slot, struct err *e)
{
	const struct sandbox_disk d = { 0, read_only };

	return sandbox_disk_add(&t->s, &d, slot, e);
}

TEST(sandbox_disks_go_into_the_drives_first_and_then_into_slots_that_others_have_left)
{
	struct tsbx t;
	struct err e = { 0 };
	uint32_t slot, first;

	tsbx_init(&t);
	CHECK_EQ(tsbx_add(&t, true, &slot, &e), 0);
	CHECK_EQ(slot, CTL_SLOT_DRIVE_RO);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, CTL_SLOT_DRIVE);
	CHECK_EQ(sandbox_disk_remove(&t.s, slot, &e), 0);
	for (unsigned i = 0; i < 2 * LAYOUT_SLOTS; i++) { /* a drive is not filled twice */
		CHECK_EQ(tsbx_add(&t, i % 2, &first, &e), 0);
		CHECK_EQ(first, CTL_SLOT_FREE);
		CHECK_EQ(sandbox_disk_remove(&t.s, first, &e), 0);
	}
	CHECK_EQ(tsbx_add(&t, false, &first, &e), 0);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, CTL_SLOT_FREE + 1);
	CHECK_EQ(sandbox_disk_remove(&t.s, first, &e), 0);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, CTL_SLOT_FREE);
	tsbx_fini(&t);
}

TEST(sandbox_has_room_for_no_more_disks_than_slots)
{
	struct tsbx t;
	struct err e = { 0 };
	uint32_t slot;

	tsbx_init(&t);
	for (unsigned i = 0; i < SANDBOX_MAX_DISKS + 1; i++)
		CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, LAYOUT_SLOTS - 1);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), -ENOSPC);
	CHECK_STR(e.msg, "the machine has no room for another disk");
	CHECK_EQ(sandbox_disk_remove(&t.s, 21, &e), 0);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, 21);
	tsbx_fini(&t);
}

TEST(sandbox_does_not_use_a_slot_again_that_the_guest_has_a_driver_in)
{
	struct tsbx t;
	struct err e = { 0 };
	uint32_t slot;

	tsbx_init(&t);
	t.s.slots_used = (1u << TSBX_STUCK) - 1;
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, TSBX_STUCK);
	CHECK_EQ(sandbox_disk_remove(&t.s, slot, &e), 0);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, TSBX_STUCK + 1);
	tsbx_fini(&t);
}

TEST(sandbox_keeps_a_slot_that_was_not_filled_and_one_that_was_not_emptied)
{
	struct tsbx t;
	struct err e = { 0 };
	uint32_t slot;

	tsbx_init(&t);
	t.s.slots_used = 1u << CTL_SLOT_DRIVE | 1u << CTL_SLOT_FREE;
	CHECK_EQ(sandbox_disk_remove(&t.s, CTL_SLOT_FREE, &e), -ENOENT);
	CHECK_STR(e.msg, "disk in slot 6: machine says so");
	CHECK(t.s.slots_used & 1u << CTL_SLOT_FREE);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), 0);
	CHECK_EQ(slot, CTL_SLOT_FREE + 1);
	t.s.slots_used &= ~(1u << slot);
	CHECK_EQ(tsbx_add(&t, false, &slot, &e), -EBUSY);
	CHECK(!(t.s.slots_used & 1u << (CTL_SLOT_FREE + 1)));
	tsbx_fini(&t);
}
