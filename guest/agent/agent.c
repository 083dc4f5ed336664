#include "guest/agent/agent.h"

#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/cgroup.h"
#include "guest/agent/rpc.h"

#define GA_AGENT_LAST_WORDS_MS 50

/* ---- Sockets */

static int ga_agent_bind_unix(const struct ga_config *c, uint32_t port, bool is_rpc, int fd)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	memcpy(sa.sun_path, c->listen, sizeof c->listen);
	if (!is_rpc)
		snprintf(sa.sun_path + strlen(sa.sun_path), 12, ".%u", port);
	unlink(sa.sun_path);
	return bind(fd, (struct sockaddr *)&sa, sizeof sa);
}

static int ga_agent_bind_vsock(uint32_t port, int fd)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };

	sa.svm_port = port;
	return bind(fd, (struct sockaddr *)&sa, sizeof sa);
}

int ga_agent_listen(const struct ga_config *c, uint32_t port, bool is_rpc, struct err *e)
{
	bool is_unix = *c->listen;
	AUTO_CLOSE int fd =
		socket(is_unix ? AF_UNIX : AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_set(e, -errno, "socket: %m");
	if ((is_unix ? ga_agent_bind_unix(c, port, is_rpc, fd) : ga_agent_bind_vsock(port, fd)) < 0)
		return err_set(e, -errno, "bind port %u: %m", port);
	if (listen(fd, 64) < 0)
		return err_set(e, -errno, "listen on port %u: %m", port);
	return take_fd(&fd);
}

int ga_agent_accept(int listener, uint32_t *port)
{
	struct sockaddr_vm from = { 0 };
	socklen_t len = sizeof from;
	int fd = accept4(listener, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	bool is_vsock = fd >= 0 && len >= sizeof from && from.svm_family == AF_VSOCK;

	if (is_vsock && from.svm_cid != VMADDR_CID_HOST) {
		log_warn("connection refused: not from the host");
		close(fd);
		return -1;
	}
	if (port)
		*port = is_vsock ? from.svm_port : 0;
	return fd;
}

/* ---- Beginning and end */

/* The answer to DestroySandbox has to leave the machine before the machine goes. */
static void ga_agent_last_words(struct timer *t)
{
	loop_stop(t->loop);
}

void ga_agent_end(struct ga_agent *a)
{
	timer_start(&a->loop, &a->end, clock_mono_ns() + GA_AGENT_LAST_WORDS_MS * NS_PER_MS,
		    ga_agent_last_words);
}

static void ga_agent_read_cmdline(struct ga_config *c)
{
	AUTO_BUF struct buf b = { 0 };
	AUTO_FREE char *line = NULL;

	if (path_read("/proc/cmdline", 65536, &b, NULL) < 0)
		return;
	line = buf_take_cstr(&b);
	ga_boot_cmdline(c, line);
}

/* Descriptors 0 to 2 must exist, or the next sockets would get these numbers. */
static void ga_agent_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static int ga_agent_start(struct ga_agent *a, struct err *e)
{
	if (loop_init(&a->loop) < 0)
		return err_set(e, -errno, "epoll: %m");
	a->oom.loop = &a->loop;
	ga_sandbox_init(&a->sandbox);
	if (a->config.is_init) {
		if (ga_boot_system(e) < 0)
			return err_wrap(e, "boot");
		ga_agent_console();
		ga_agent_read_cmdline(&a->config);
	} else if (ga_cgroup_init_root(e) < 0) {
		return e->code;
	}
	log_setup(2, a->config.log_level);
	if (ga_ns_open_own(&a->own, e) < 0 || ga_reap_start(a, e) < 0 ||
	    (a->config.is_init && ga_sandbox_prepare(a, e) < 0) || ga_direct_listen(a, e) < 0 ||
	    ga_logport_listen(a, e) < 0 || ga_rpc_listen(a, e) < 0)
		return e->code;
	log_info("agent ready", KV("version", SPORE_VERSION));
	return 0;
}

static int ga_agent_usage(void)
{
	static const char text[] =
		"usage: spore-agent --listen unix:///PATH [agent.KEY=VALUE ...]\n"
		"       spore-agent --version\n"
		"As PID 1 it takes its settings from the kernel command line.\n";

	return write(2, text, sizeof text - 1) < 0 ? 2 : 2;
}

static int ga_agent_args(struct ga_config *c, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		AUTO_FREE char *word = NULL;
		if (!strcmp(argv[i], "--listen") && i + 1 < argc)
			word = mem_printf("agent.server_addr=%s", argv[++i]);
		else if (str_starts(argv[i], "agent."))
			word = mem_strdup(argv[i]);
		else
			return -EINVAL;
		ga_boot_cmdline(c, word);
	}
	return *c->listen ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	static struct ga_agent agent;
	struct err e = { 0 };
	int r;

	ga_boot_defaults(&agent.config);
	agent.config.is_init = getpid() == 1;
	if (!agent.config.is_init) {
		if (argc == 2 && !strcmp(argv[1], "--version"))
			return dprintf(1, "spore-agent %s\n", SPORE_VERSION) < 0;
		if (ga_agent_args(&agent.config, argc, argv) < 0)
			return ga_agent_usage();
	}
	r = ga_agent_start(&agent, &e);
	if (r == 0)
		r = loop_run(&agent.loop);
	if (r < 0)
		dprintf(2, "spore-agent: %s\n", e.msg);
	ga_boot_off(&agent.config);
}
