#include "amalgam/hv/hv.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "amalgam/assets.h"
#include "amalgam/base/fd.h"
#include "amalgam/base/log.h"
#include "amalgam/base/proc.h"

#define HV_ANSWER_LIMIT_S 60  /* the longest request is to save the memory of a large guest */
#define HV_END_LIMIT_MS   200 /* from the end of its socket to its own end */

static const struct ctl_image *hv_image(void)
{
	static struct ctl_image img;

	img.kernel = asset_kernel;
	img.kernel_bytes = (size_t)(asset_kernel_end - asset_kernel);
	img.initrd = asset_initramfs;
	img.initrd_bytes = (size_t)(asset_initramfs_end - asset_initramfs);
	return &img;
}

/* An empty directory that has no name any more: nothing can ever be made in it. */
static int hv_empty_root(struct err *e)
{
	char path[] = "/run/spore-root-XXXXXX";
	int fd;

	if (!mkdtemp(path))
		return err_set(e, -errno, "%s: %m", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rmdir(path) < 0 || fd < 0) {
		int r = -errno;
		if (fd >= 0)
			close(fd);
		return err_set(e, r, "%s: %s", path, strerror(-r));
	}
	return fd;
}

int hv_open_kvm(struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION)
		return fd;
	if (fd >= 0) {
		close(fd);
		return err_set(e, -ENODEV, "/dev/kvm: not KVM's device; load the kvm_intel or kvm_amd "
			       "module");
	}
	if (errno == ENOENT)
		return err_set(e, -ENOENT, "/dev/kvm: not there; load the kvm_intel or kvm_amd module, or "
			       "enable virtualization (in a VM: nested virtualization)");
	return err_set(e, -errno, "/dev/kvm: %m");
}

int hv_spawn(struct hv_vm *vm, const struct vmm_options *opt, struct err *e)
{
	const struct timeval limit = { .tv_sec = HV_ANSWER_LIMIT_S };
	pid_t pid, self = getpid();
	int pair[2], root_fd;

	*vm = (struct hv_vm){ .ctl_fd = -1 };
	root_fd = hv_empty_root(e);
	if (root_fd < 0)
		return root_fd;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		close(root_fd);
		return err_set(e, -errno, "socketpair: %m");
	}
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		vmm_start(self, root_fd, pair[1], hv_image(), opt);
	}
	close(root_fd);
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return err_set(e, -errno, "fork: %m");
	}
	vm->pid = pid;
	vm->start_time = proc_start_time(pid);
	vm->ctl_fd = pair[0];
	setsockopt(vm->ctl_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return 0;
}

/* --- events -------------------------------------------------------------------------------------- */

static void hv_over(struct hv_vm *vm, enum ctl_exit how, const char *why)
{
	if (vm->over)
		return;
	vm->over = true;
	snprintf(vm->why, sizeof vm->why, "%s", why);
	if (vm->watching)
		watch_stop(&vm->ctl);
	if (vm->cb.exited)
		vm->cb.exited(vm->cb.arg, how, why);
}

/* The wait status of a process that should be ending. One that is not is made to, whatever it does or
 * does not: it may have been taken over by its guest. */
static int hv_reap(pid_t pid, bool *killed)
{
	int status;

	for (unsigned ms = 0; ms < HV_END_LIMIT_MS; ms += 2) {
		pid_t r = waitpid(pid, &status, WNOHANG);
		if (r == pid)
			return status;
		if (r < 0 && errno != EINTR)
			return -errno;
		usleep(2000);
	}
	*killed = kill(pid, SIGKILL) == 0;
	return proc_wait(pid);
}

/* The process is gone, or is of no use any more, without a word: say what is known about its end. */
static void hv_died(struct hv_vm *vm)
{
	char why[96] = "machine process died";
	bool killed = false;
	int status;

	if (vm->over)
		return;
	status = hv_reap(vm->pid, &killed);
	if (killed)
		snprintf(why, sizeof why, "machine process did not answer as it should and was killed");
	else if (status >= 0 && WIFSIGNALED(status))
		snprintf(why, sizeof why, "machine process killed by signal %d", WTERMSIG(status));
	else if (status >= 0 && WEXITSTATUS(status) == 128 + SIGSYS)
		snprintf(why, sizeof why, "machine process made a system call it may not make");
	if (status >= 0)
		vm->pid = 0;
	hv_over(vm, CTL_EXIT_INTERNAL, why);
}

static void hv_deliver(struct hv_vm *vm, struct ctl_event *ev)
{
	ev->msg[sizeof ev->msg - 1] = '\0';
	switch (ev->kind) {
	case CTL_EV_EXIT:
		if (ev->value < CTL_EXIT_SHUTDOWN || ev->value > CTL_EXIT_INTERNAL)
			ev->value = CTL_EXIT_INTERNAL;
		hv_over(vm, (enum ctl_exit)ev->value, ev->msg);
		break;
	case CTL_EV_CONNECTED:
	case CTL_EV_FIRST:
	case CTL_EV_CLOSED:
		if (vm->cb.stream)
			vm->cb.stream(vm->cb.arg, ev->value,
				      ev->kind == CTL_EV_CONNECTED ? HV_STREAM_OPEN :
				      ev->kind == CTL_EV_FIRST	   ? HV_STREAM_FIRST :
								     HV_STREAM_CLOSED,
				      ev->code);
		break;
	}
}

/* One message from the machine: an event is delivered (returns 0), a reply copied out (returns 1).
 * Negative: the process is gone. */
static int hv_read(struct hv_vm *vm, struct ctl_reply *reply, int flags)
{
	union ctl_answer a;
	ssize_t r = fd_recv(vm->ctl_fd, &a, sizeof a, NULL, NULL, flags);

	if (r == -EAGAIN)
		return -EAGAIN;
	if (r <= 0)
		return -EPIPE;
	if (r == sizeof a.event && a.op == CTL_EVENT) {
		hv_deliver(vm, &a.event);
		return 0;
	}
	if (r == sizeof a.reply && reply) {
		*reply = a.reply;
		reply->msg[sizeof reply->msg - 1] = '\0';
		return 1;
	}
	return -EPROTO;
}

static void hv_on_ctl(struct watch *w, uint32_t events)
{
	struct hv_vm *vm = container_of(w, struct hv_vm, ctl);
	int r;

	(void)events;
	do
		r = hv_read(vm, NULL, MSG_DONTWAIT);
	while (r == 0 && !vm->over);
	if (r < 0 && r != -EAGAIN)
		hv_died(vm);
}

int hv_watch(struct hv_vm *vm, struct loop *l, const struct hv_callbacks *cb, struct err *e)
{
	int r;

	vm->cb = *cb;
	r = watch_start(l, &vm->ctl, vm->ctl_fd, EPOLLIN, hv_on_ctl);
	if (r < 0)
		return err_set(e, r, "watch the machine: %s", strerror(-r));
	vm->watching = true;
	return 0;
}

/* --- requests ------------------------------------------------------------------------------------- */

static int hv_request(struct hv_vm *vm, struct ctl_request *rq, const int *fds, size_t n,
		      struct ctl_reply *reply, struct err *e)
{
	struct ctl_reply local;
	ssize_t sent;
	int r;

	if (vm->over || vm->ctl_fd < 0)
		return err_set(e, -ESRCH, "%s", vm->over ? vm->why : "there is no machine");
	reply = reply ? reply : &local;
	sent = fd_send(vm->ctl_fd, rq, sizeof *rq, fds, n, 0);
	if (sent < 0 && sent != -EPIPE)
		return err_set(e, (int)sent, "control socket: %s", strerror((int)-sent));
	do
		r = hv_read(vm, reply, 0);
	while (r == 0 && !vm->over);
	if (r < 0)
		hv_died(vm);
	if (r <= 0)
		return err_set(e, -ESRCH, "%s", vm->why);
	if (reply->code < 0)
		return err_set(e, reply->code, "%s", reply->msg);
	return 0;
}

int hv_create(struct hv_vm *vm, const struct hv_spec *s, struct err *e)
{
	struct ctl_request rq = { .op = CTL_CREATE, .create = *s->create };
	int fds[5] = { s->kvm_fd, s->console_fd };
	size_t n = 2;

	if (s->memory_fd >= 0) {
		rq.flags |= CTL_F_MEMORY | (s->shared ? CTL_F_SHARED : 0);
		fds[n++] = s->memory_fd;
	}
	if (s->state_fd >= 0) {
		rq.flags |= CTL_F_RESTORE;
		fds[n++] = s->state_fd;
	}
	if (s->warm_fd >= 0) {
		rq.flags |= CTL_F_WARM;
		fds[n++] = s->warm_fd;
	}
	if (s->run)
		rq.flags |= CTL_F_RUN;
	if (s->track)
		rq.flags |= CTL_F_TRACK;
	return hv_request(vm, &rq, fds, n, NULL, e);
}

int hv_pause(struct hv_vm *vm, struct err *e)
{
	return hv_request(vm, &(struct ctl_request){ .op = CTL_PAUSE }, NULL, 0, NULL, e);
}

int hv_save(struct hv_vm *vm, int state_fd, int memory_fd, struct err *e)
{
	struct ctl_request rq = { .op = CTL_SAVE, .flags = memory_fd >= 0 ? CTL_F_MEMORY : 0 };
	int fds[2] = { state_fd, memory_fd };

	return hv_request(vm, &rq, fds, memory_fd >= 0 ? 2 : 1, NULL, e);
}

int hv_changed(struct hv_vm *vm, int warm_fd, struct err *e)
{
	return hv_request(vm, &(struct ctl_request){ .op = CTL_CHANGED }, &warm_fd, 1, NULL, e);
}

int hv_attach_blk(struct hv_vm *vm, unsigned slot, int fd, bool read_only, struct err *e)
{
	struct ctl_request rq = { .op = CTL_ATTACH_BLK, .slot = slot,
				  .flags = read_only ? CTL_F_READONLY : 0 };

	return hv_request(vm, &rq, &fd, 1, NULL, e);
}

int hv_detach(struct hv_vm *vm, unsigned slot, bool *is_empty, struct err *e)
{
	struct ctl_request rq = { .op = CTL_DETACH, .slot = slot };
	struct ctl_reply reply;
	int r = hv_request(vm, &rq, NULL, 0, &reply, e);

	*is_empty = r == 0 && reply.value == 0;
	return r;
}

int hv_attach_net(struct hv_vm *vm, unsigned slot, int tap_fd, int vhost_fd, const struct ctl_net *net,
		  struct err *e)
{
	struct ctl_request rq = { .op = CTL_ATTACH_NET, .slot = slot, .net = *net };
	int fds[] = { tap_fd, vhost_fd };

	return hv_request(vm, &rq, fds, vhost_fd < 0 ? 1 : 2, NULL, e);
}

int hv_connect(struct hv_vm *vm, uint32_t guest_port, int in_fd, int out_fd, bool tell_first,
	       uint64_t cookie, uint32_t *host_port, struct err *e)
{
	struct ctl_request rq = { .op = CTL_CONNECT, .port = guest_port, .value = cookie,
				  .flags = tell_first ? CTL_F_FIRST : 0 };
	struct ctl_reply reply;
	int fds[2], r;
	size_t n = 0;

	if (in_fd >= 0) {
		rq.flags |= CTL_F_IN;
		fds[n++] = in_fd;
	}
	if (out_fd >= 0) {
		rq.flags |= CTL_F_OUT;
		if (out_fd != in_fd)
			fds[n++] = out_fd;
	}
	r = hv_request(vm, &rq, fds, n, &reply, e);
	if (r == 0)
		*host_port = (uint32_t)reply.value;
	return r;
}

void hv_hang_up(struct hv_vm *vm, uint32_t host_port)
{
	struct ctl_request rq = { .op = CTL_HANG_UP, .port = host_port };

	(void)!hv_request(vm, &rq, NULL, 0, NULL, NULL);
}

int hv_listen(struct hv_vm *vm, int listen_fd, struct err *e)
{
	return hv_request(vm, &(struct ctl_request){ .op = CTL_LISTEN }, &listen_fd, 1, NULL, e);
}

static int hv_share_name(struct ctl_request *rq, const char *name, struct err *e)
{
	if (strlen(name) >= sizeof rq->name)
		return err_set(e, -ENAMETOOLONG, "share \"%s\": name too long", name);
	memcpy(rq->name, name, strlen(name) + 1);
	return 0;
}

int hv_share_add(struct hv_vm *vm, const char *name, int root_fd, unsigned flags, struct err *e)
{
	struct ctl_request rq = { .op = CTL_SHARE_ADD, .flags = flags };
	int r = hv_share_name(&rq, name, e);

	return r < 0 ? r : hv_request(vm, &rq, &root_fd, 1, NULL, e);
}

int hv_share_remove(struct hv_vm *vm, const char *name, struct err *e)
{
	struct ctl_request rq = { .op = CTL_SHARE_REMOVE };
	int r = hv_share_name(&rq, name, e);

	return r < 0 ? r : hv_request(vm, &rq, NULL, 0, NULL, e);
}

void hv_stop(struct hv_vm *vm)
{
	if (vm->watching)
		watch_stop(&vm->ctl);
	vm->watching = false;
	vm->over = true;
	if (vm->pid > 0) {
		kill(vm->pid, SIGKILL);
		proc_wait(vm->pid);
		vm->pid = 0;
	}
	if (vm->ctl_fd > 0)
		close(vm->ctl_fd);
	vm->ctl_fd = -1;
}
