#include "vmm/vmm.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/log.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/proc.h"
#include "vmm/fuse/pool.h"
#include "vmm/jail/jail.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/fs.h"
#include "vmm/virtio/mmio.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/vsock_mux.h"

/* A supervisor that cannot be told is gone or will not read: either way nothing is left to serve. */
static void vmm_send(struct vmm *m, const void *p, size_t n)
{
	if (fd_send(m->ctl_fd, p, n, NULL, 0, 0) < 0)
		loop_stop(&m->loop);
}

static void vmm_event(struct vmm *m, enum ctl_event_kind kind, int code, uint64_t value,
		      const char *msg)
{
	struct ctl_event ev = { .op = CTL_EVENT, .kind = kind, .code = code, .value = value };

	snprintf(ev.msg, sizeof ev.msg, "%s", msg);
	vmm_send(m, &ev, sizeof ev);
}

static void vmm_on_exit(struct watch *w, uint32_t events)
{
	struct vmm *m = container_of(w, struct vmm, exited);

	(void)events;
	watch_stop(w);
	uart_flush(&m->uart);
	vmm_event(m, CTL_EV_EXIT, 0, m->gate.exit, m->gate.why);
}

/* --- requests ----------------------------------------------------------------------------------- */

static int vmm_do_attach_blk(struct vmm *m, const struct ctl_request *rq, int *fds, struct err *e)
{
	struct vblk_config cfg = { .fd = take_fd(&fds[0]),
				   .read_only = rq->flags & CTL_F_READONLY };
	struct vdev *d = rq->slot < LAYOUT_SLOTS ? m->slots.slot[rq->slot].dev : NULL;
	int r;

	snprintf(cfg.serial, sizeof cfg.serial, "spore-%u", rq->slot);
	if (d && vblk_is_empty(d))
		return vblk_insert(d, &cfg, e);
	if ((r = vblk_new(&cfg, &m->loop, &m->mem, &d, e)) < 0)
		return r;
	return slots_attach(&m->slots, rq->slot, d, e);
}

/* A driver that was not unbound would wait for ever for a device that is not there any more. */
static int vmm_do_detach(struct vmm *m, const struct ctl_request *rq, uint64_t *value, struct err *e)
{
	struct slot *sl = rq->slot < LAYOUT_SLOTS ? &m->slots.slot[rq->slot] : NULL;
	bool is_bound;

	/* The other devices are the machine's own. */
	if (!sl || !sl->dev || sl->dev->ops->id != VDEV_BLK || vblk_is_empty(sl->dev))
		return err_set(e, -ENOENT, "slot %u has no disk", rq->slot);
	pthread_mutex_lock(&sl->lock);
	is_bound = sl->status & VMMIO_S_DRIVER; /* Linux acknowledges a device that it lets go of */
	pthread_mutex_unlock(&sl->lock);
	*value = is_bound;
	return is_bound ? vblk_eject(sl->dev, e) : slots_detach(&m->slots, rq->slot, e);
}

static int vmm_do_attach_net(struct vmm *m, const struct ctl_request *rq, int *fds, size_t n, struct err *e)
{
	struct vnet_config cfg = { .fd = take_fd(&fds[0]), .vhost_fd = n > 1 ? take_fd(&fds[1]) : -1,
				   .mtu = rq->net.mtu,
				   .rx_rate = rq->net.rx_rate, .tx_rate = rq->net.tx_rate };
	struct vdev *d;
	int r;

	memcpy(cfg.mac, rq->net.mac, sizeof cfg.mac);
	if ((r = vnet_new(&cfg, &m->loop, &m->mem, &d, e)) < 0)
		return r;
	return slots_attach(&m->slots, rq->slot, d, e);
}

/* A stream's fate, on its way to the supervisor. */
struct vmm_stream {
	struct vmm *vmm;
	uint64_t cookie;
};

static void vmm_on_stream(void *arg, uint32_t host_port, enum vmux_event ev, int err)
{
	struct vmm_stream *s = arg;

	(void)host_port;
	if (ev != VMUX_CLOSED) {
		vmm_event(s->vmm, ev == VMUX_OPENED ? CTL_EV_CONNECTED : CTL_EV_FIRST, 0, s->cookie, "");
		return;
	}
	vmm_event(s->vmm, CTL_EV_CLOSED, err, s->cookie, err ? strerror(-err) : "");
	free(s);
}

static int vmm_do_connect(struct vmm *m, const struct ctl_request *rq, int *fds, size_t n,
			  uint64_t *value, struct err *e)
{
	struct vmux_spec spec = { .guest_port = rq->port, .in_fd = -1, .out_fd = -1,
				  .first = rq->flags & CTL_F_FIRST, .fn = vmm_on_stream };
	struct vmm_stream *s;
	int r;

	if (!(rq->flags & CTL_F_BOTH) || n < 1)
		return err_set(e, -EINVAL, "a stream needs a descriptor");
	if (rq->flags & CTL_F_IN)
		spec.in_fd = fds[0];
	if (rq->flags & CTL_F_OUT)
		spec.out_fd = rq->flags & CTL_F_IN && n > 1 ? fds[1] : fds[0];
	fds[0] = -1;
	if (n > 1 && spec.out_fd == fds[1])
		fds[1] = -1;
	s = mem_zalloc(sizeof *s);
	*s = (struct vmm_stream){ m, rq->value };
	spec.arg = s;
	r = vmux_connect(m->vsock, &spec);
	if (r < 0) {
		free(s);
		return err_set(e, r, "vsock port %u: %s", rq->port, strerror(-r));
	}
	*value = (uint64_t)r;
	return 0;
}

static int vmm_do_share_add(struct vmm *m, const struct ctl_request *rq, int *fds, struct err *e)
{
	unsigned flags = (rq->flags & CTL_F_SHARE_READONLY ? VFS_SHARE_READONLY : 0) |
			 (rq->flags & CTL_F_SHARE_PRIVATE ? VFS_SHARE_PRIVATE : 0);
	int r;

	if (!m->files)
		return err_set(e, -ENOTSUP, "this machine was made without threads that serve files");
	if ((r = slots_wake(&m->slots, CTL_SLOT_SHARE, fpool_bell(m->files), e)) < 0)
		return r;
	return vfs_share_add(m->share, rq->name, take_fd(&fds[0]), flags, e);
}

/* What a request needs before it is looked at. */
static const struct vmm_op {
	enum ctl_op op;
	const char *name;
	bool needs_machine;
	size_t min_fds;
} vmm_ops[] = {
	{ CTL_CREATE, "create", false, 2 },
	{ CTL_RUN, "run", true, 0 },
	{ CTL_PAUSE, "pause", true, 0 },
	{ CTL_CHANGED, "list changed pages", true, 1 },
	{ CTL_SAVE, "save", true, 1 },
	{ CTL_ATTACH_BLK, "attach disk", true, 1 },
	{ CTL_DETACH, "detach", true, 0 },
	{ CTL_CONNECT, "connect", true, 1 },
	{ CTL_HANG_UP, "hang up", true, 0 },
	{ CTL_LISTEN, "listen", true, 1 },
	{ CTL_BALLOON, "balloon", true, 0 },
	{ CTL_STOP, "stop", false, 0 },
	{ CTL_SHARE_ADD, "add share", true, 1 },
	{ CTL_SHARE_REMOVE, "remove share", true, 0 },
	{ CTL_ATTACH_NET, "attach network card", true, 1 },
};

static int vmm_dispatch(struct vmm *m, const struct ctl_request *rq, int *fds, size_t n,
			uint64_t *value, struct err *e)
{
	switch (rq->op) {
	case CTL_CREATE:
		return vmm_create(m, rq, fds, n, e);
	case CTL_RUN:
		vmm_run(m);
		return 0;
	case CTL_PAUSE:
		return vmm_pause(m, e);
	case CTL_CHANGED:
		return vmm_changed(m, fds[0], e);
	case CTL_SAVE:
		return vmm_save(m, fds[0], rq->flags & CTL_F_MEMORY && n > 1 ? fds[1] : -1, e);
	case CTL_ATTACH_BLK:
		return vmm_do_attach_blk(m, rq, fds, e);
	case CTL_DETACH:
		return vmm_do_detach(m, rq, value, e);
	case CTL_CONNECT:
		return vmm_do_connect(m, rq, fds, n, value, e);
	case CTL_HANG_UP:
		return vmux_close(m->vsock, rq->port);
	case CTL_LISTEN:
		return vmux_serve(m->vsock, take_fd(&fds[0]), e);
	case CTL_BALLOON:
		vbal_set_target(m->balloon, (uint32_t)rq->value);
		return 0;
	case CTL_SHARE_ADD:
		return vmm_do_share_add(m, rq, fds, e);
	case CTL_SHARE_REMOVE:
		return vfs_share_remove(m->share, rq->name, e);
	case CTL_ATTACH_NET:
		return vmm_do_attach_net(m, rq, fds, n, e);
	default: /* CTL_STOP */
		loop_stop(&m->loop);
		return 0;
	}
}

static int vmm_serve(struct vmm *m, const struct ctl_request *rq, int *fds, size_t n,
		     uint64_t *value, struct err *e)
{
	const struct vmm_op *op = NULL;

	for (unsigned i = 0; i < ARRAY_LEN(vmm_ops); i++)
		if (vmm_ops[i].op == rq->op)
			op = &vmm_ops[i];
	if (!op)
		return err_set(e, -ENOSYS, "unknown request %u", rq->op);
	if ((op->needs_machine && !m->ready) || n < op->min_fds)
		return err_set(e, -EINVAL, "%s: no machine, or descriptors missing", op->name);
	return vmm_dispatch(m, rq, fds, n, value, e);
}

static void vmm_on_ctl(struct watch *w, uint32_t events)
{
	struct vmm *m = container_of(w, struct vmm, ctl);
	struct ctl_request rq = { 0 };
	struct ctl_reply reply = { 0 };
	struct err e = { 0 };
	int fds[FD_PASS_MAX];
	size_t n = FD_PASS_MAX;
	ssize_t r = fd_recv(m->ctl_fd, &rq, sizeof rq, fds, &n, MSG_DONTWAIT);

	(void)events;
	if (r == -EAGAIN)
		return;
	if (r <= 0) { /* the supervisor is gone: so are we */
		loop_stop(&m->loop);
		return;
	}
	if (r == sizeof rq)
		reply.code = vmm_serve(m, &rq, fds, n, &reply.value, &e);
	else
		reply.code = err_set(&e, -EPROTO, "request of %zd bytes", r);
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	reply.op = rq.op;
	snprintf(reply.msg, sizeof reply.msg, "%.255s", reply.code < 0 ? e.msg : "");
	vmm_send(m, &reply, sizeof reply);
}

static int vmm_init(struct vmm *m, int ctl_fd, const struct ctl_image *image)
{
	int r;

	*m = (struct vmm){ .ctl_fd = ctl_fd, .console_fd = -1, .image = image,
			   .kvm.fd = -1, .kvm.vm_fd = -1, .mem.fd = -1 };
	pthread_mutex_init(&m->gate.lock, NULL);
	pthread_cond_init(&m->gate.changed, NULL);
	if ((r = loop_init(&m->loop)) < 0)
		return r;
	m->exit_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->exit_fd < 0)
		return -errno;
	if ((r = watch_start(&m->loop, &m->exited, m->exit_fd, EPOLLIN, vmm_on_exit)) < 0)
		return r;
	return watch_start(&m->loop, &m->ctl, ctl_fd, EPOLLIN, vmm_on_ctl);
}

/* The jail could not be closed: say why to the supervisor, who has the other end open. */
static NORETURN void vmm_refuse(int ctl_fd, const struct err *e)
{
	struct ctl_event ev = { .op = CTL_EVENT, .kind = CTL_EV_EXIT, .value = CTL_EXIT_INTERNAL };

	snprintf(ev.msg, sizeof ev.msg, "%.255s", e->msg);
	/* How far the jail got decides which of the two is the socket. */
	if (fd_send(ctl_fd, &ev, sizeof ev, NULL, 0, 0) < 0 &&
	    fd_send(JAIL_CTL_FD, &ev, sizeof ev, NULL, 0, 0) < 0)
		_exit(2);
	_exit(1);
}

static void vmm_on_trap(int nr)
{
	struct ctl_event ev = { .op = CTL_EVENT, .kind = CTL_EV_EXIT, .value = CTL_EXIT_INTERNAL };

	snprintf(ev.msg, sizeof ev.msg, "machine process made system call %d, which it may not", nr);
	if (fd_send(JAIL_CTL_FD, &ev, sizeof ev, NULL, 0, 0) < 0)
		_exit(2);
}

static int vmm_start_files(void *arg, struct err *e)
{
	struct fpool **pool = arg;

	*pool = fpool_start(jail_enter_files, e);
	return *pool ? 0 : e->code;
}

/* Where the process belongs, before it allocates anything that is accounted there. */
static int vmm_join(const struct vmm_options *opt, struct err *e)
{
	for (unsigned i = 0; i < opt->ncgroup_procs; i++) {
		int r = fd_write_full(opt->cgroup_procs[i], "0", 1);
		if (r < 0)
			return err_set(e, r, "join cgroup: %s", strerror(-r));
	}
	if (opt->netns_fd > 0 && setns(opt->netns_fd, CLONE_NEWNET) < 0)
		return err_set(e, -errno, "join network namespace: %m");
	if (opt->new_netns && unshare(CLONE_NEWNET) < 0)
		return err_set(e, -errno, "new network namespace: %m");
	return 0;
}

void vmm_start(pid_t parent, int root_fd, int ctl_fd, const struct ctl_image *image,
	       const struct vmm_options *opt)
{
	static struct vmm m; /* one machine per process; too large for a stack */
	struct fpool *files = NULL;
	struct jail_spec jail = { .root_fd = root_fd, .ctl_fd = ctl_fd, .parent = parent,
				  .on_trap = vmm_on_trap, .arg = &files };
	struct err e = { 0 };
	sigset_t none;

	proc_title_set("spore-vmm"); /* a person's command line is none of a guest's business */
	/* The supervisor may block signals to read them from a signalfd. Dispositions come before the
	 * jail, whose filter has no rt_sigaction. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_IGN);
	vcpu_setup_signals();
	log_setup(-1, LOG_WARN);
	if (opt && opt->serves_files)
		jail.start_files = vmm_start_files;
	if ((opt && vmm_join(opt, &e) < 0) || jail_enter(&jail, &e) < 0)
		vmm_refuse(ctl_fd, &e);
	if (vmm_init(&m, JAIL_CTL_FD, image) < 0)
		_exit(1);
	m.files = files;
	loop_run(&m.loop);
	/* The kernel takes everything back faster than we could. Threads included. */
	_exit(0);
}
