#include "guest/agent/logport.h"

#include <sys/socket.h>

#include "amalgam/base/log.h"
#include "guest/agent/agent.h"

static void ga_logport_end(struct ga_agent *a)
{
	struct ga_logport *l = &a->logport;

	if (l->reader.active) {
		watch_stop(&l->reader);
		close(l->fd);
	}
	log_setup(2, a->config.log_level);
}

/* The host sends nothing; what comes is its end, or to be ignored. */
static void ga_logport_on_reader(struct watch *w, uint32_t events)
{
	struct ga_agent *a = container_of(w, struct ga_agent, logport.reader);
	char drop[256];
	ssize_t n = recv(w->fd, drop, sizeof drop, MSG_DONTWAIT);

	(void)events;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		ga_logport_end(a);
}

static void ga_logport_accept(struct watch *w, uint32_t events)
{
	struct ga_agent *a = container_of(w, struct ga_agent, logport.listen);
	/* Non-blocking: a line that does not fit is lost. */
	int fd = ga_agent_accept(w->fd, NULL);

	(void)events;
	if (fd < 0)
		return;
	ga_logport_end(a);
	a->logport.fd = fd;
	if (watch_start(&a->loop, &a->logport.reader, fd, EPOLLIN, ga_logport_on_reader) < 0) {
		close(fd);
		return;
	}
	log_setup(fd, MAX(a->config.log_level, LOG_INFO));
	log_info("log attached", KV("version", SPORE_VERSION));
}

int ga_logport_listen(struct ga_agent *a, struct err *e)
{
	int fd;

	if (!a->config.log_port)
		return 0;
	fd = ga_agent_listen(&a->config, a->config.log_port, false, e);
	if (fd < 0)
		return fd;
	if (watch_start(&a->loop, &a->logport.listen, fd, EPOLLIN, ga_logport_accept) < 0)
		return err_set(e, -EIO, "watch the log socket");
	return 0;
}
