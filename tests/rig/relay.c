/* relay.c - both ends of the wire between `run` and the command inside the test machine.
 *
 *   relay host SECONDS LOGFILE QEMU-ARGV... -- CMD...   starts QEMU, is the terminal of CMD
 *   relay guest PORT                                    PID 1 of the machine, starts CMD
 *
 * One virtio-serial port carries frames: struct head, then len bytes. One ordered stream means that
 * the exit status, sent last, proves that all output arrived; the host then kills QEMU, which has
 * nothing to save. Kernel messages travel apart, on the machine's serial console.
 *
 *   to guest   ARG, ENV, CWD   one string each, any bytes but NUL
 *              GO              start
 *              IN              bytes for stdin; an empty frame is end of file
 *              SHUT            nobody reads stream `aux` (1 or 2) any more
 *   to host    READY           CMD is about to be executed
 *              OUT             bytes of stream `aux`
 *              TOOK            CMD took `aux` bytes of stdin
 *              EXIT            status `aux`
 *
 * At most WINDOW bytes of stdin are under way and the guest has room for them, so it never stops
 * reading the port and SHUT gets through even if CMD ignores its stdin. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof(a)[0])

enum {
	WINDOW = 256 << 10,
	CHUNK = 32 << 10,       /* the port driver sends at most this much at once */
	STRING_MAX = 128 << 10, /* MAX_ARG_STRLEN, execve(2) */
	STRINGS_MAX = 64 << 10,
	TAIL = 16 << 10,
};

enum frame { ARG, ENV, CWD, GO, IN, SHUT, READY, OUT, TOOK, EXIT };

struct head {
	uint32_t frame;
	uint32_t aux;
	uint32_t len;
};

/* Bytes of a stream of frames that did not make a whole frame yet. */
struct inbox {
	size_t n;
	char b[sizeof(struct head) + STRING_MAX];
};

static void die(int status, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fputs("rig: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(status);
}

static void write_all(int fd, const void *buf, size_t len)
{
	for (const char *p = buf; len;) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return; /* the other end is gone; its reader notices */
		if (n > 0) {
			p += n;
			len -= n;
		}
	}
}

/* The next whole frame in the box, or NULL. The body follows the head; valid until inbox_drop(). */
static struct head *inbox_peek(struct inbox *in)
{
	struct head *h = (struct head *)in->b;
	if (in->n < sizeof *h)
		return NULL;
	if (h->len > STRING_MAX)
		die(125, "garbage on the wire: frame of %u bytes", h->len);
	return in->n < sizeof *h + h->len ? NULL : h;
}

static void inbox_drop(struct inbox *in)
{
	size_t len = sizeof(struct head) + ((struct head *)in->b)->len;
	memmove(in->b, in->b + len, in->n -= len);
}

/* False at end of file. */
static int inbox_fill(struct inbox *in, int fd)
{
	ssize_t n = read(fd, in->b + in->n, sizeof in->b - in->n);
	if (n > 0)
		in->n += n;
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* ---- host ---------------------------------------------------------------------------------- */

/* The last bytes of a stream, for the report about a machine that went wrong. */
struct tail {
	const char *name;
	size_t lines; /* to print */
	size_t n;     /* ever added */
	char b[TAIL];
};

static struct host {
	pid_t qemu;
	int wire, console, qerr, log;
	int in_fd;        /* -1 after end of file */
	size_t in_flight; /* bytes of stdin CMD has not taken yet */
	char *queue;      /* towards the guest, sent when the socket takes it */
	size_t queue_len, queue_at;
	int out_fd; /* stream that out_* belongs to */
	char *out;
	size_t out_len;
	uint8_t shut[3];
	struct timespec start;
	struct tail cmd_tail, console_tail, qemu_tail;
} H = {
	.cmd_tail = { .name = "output of the command", .lines = 20 },
	.console_tail = { .name = "kernel console", .lines = 80 }, /* a panic is long */
	.qemu_tail = { .name = "messages of QEMU", .lines = 20 },
};

static volatile sig_atomic_t caught;

static void on_signal(int sig)
{
	caught = sig;
}

static double seconds_since(const struct timespec *t)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - t->tv_sec) + (now.tv_nsec - t->tv_nsec) / 1e9;
}

static void tail_add(struct tail *t, const char *p, size_t len)
{
	for (; len; len--)
		t->b[t->n++ % TAIL] = *p++;
}

/* Without the carriage returns and escapes of a console. */
static void tail_print(const struct tail *t)
{
	size_t from = t->n > TAIL ? t->n - TAIL : 0, lines = 0, i;
	for (i = t->n; i > from; i--)
		if (i < t->n && t->b[(i - 1) % TAIL] == '\n' && ++lines == t->lines)
			break;
	fprintf(stderr, "rig: --- %s%s\n", t->name, t->n ? ", last lines" : ": none");
	char last = '\n';
	for (; i < t->n; i++) {
		char c = t->b[i % TAIL];
		if (c == '\r' || c == '\033' || c == '\0')
			continue;
		fputc(last = c, stderr);
	}
	if (last != '\n')
		fputc('\n', stderr);
}

static void stop_qemu(void)
{
	if (H.qemu > 0) {
		kill(H.qemu, SIGKILL);
		waitpid(H.qemu, NULL, 0);
		H.qemu = 0;
	}
}

static void read_into(struct tail *t, int *fd)
{
	char b[4096];
	ssize_t n = read(*fd, b, sizeof b);
	if (n > 0) {
		tail_add(t, b, n);
		if (t == &H.console_tail && H.log >= 0)
			write_all(H.log, b, n);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		close(*fd);
		*fd = -1;
	}
}

static void report_tails(void)
{
	while (H.console >= 0) /* non-blocking; QEMU is dead, so this ends */
		read_into(&H.console_tail, &H.console);
	while (H.qerr >= 0)
		read_into(&H.qemu_tail, &H.qerr);
	tail_print(&H.cmd_tail);
	tail_print(&H.console_tail);
	if (H.qemu_tail.n)
		tail_print(&H.qemu_tail);
}

static void queue(enum frame f, uint32_t aux, const void *body, size_t len)
{
	struct head h = { f, aux, len };
	H.queue = realloc(H.queue, H.queue_len + sizeof h + len);
	if (!H.queue)
		die(125, "out of memory");
	memcpy(H.queue + H.queue_len, &h, sizeof h);
	if (len)
		memcpy(H.queue + H.queue_len + sizeof h, body, len);
	H.queue_len += sizeof h + len;
}

static void queue_string(enum frame f, const char *s)
{
	if (strlen(s) > STRING_MAX)
		die(125, "argument or variable of %zu bytes: the limit is %d", strlen(s),
		    STRING_MAX);
	queue(f, 0, s, strlen(s));
}

static void queue_command(char **cmd)
{
	static const char *const allowed[] = { "PATH=", "HOME=", "LANG=", "TERM=", "SPORE_" };
	extern char **environ;
	for (char **e = environ; *e; e++)
		for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
			if (!strncmp(*e, allowed[i], strlen(allowed[i])))
				queue_string(ENV, *e);
	char *cwd = getcwd(NULL, 0);
	if (!cwd)
		die(125, "current directory: %s", strerror(errno));
	queue_string(CWD, cwd);
	free(cwd);
	for (; *cmd; cmd++)
		queue_string(ARG, *cmd);
	queue(GO, 0, NULL, 0);
}

static void send_queue(void)
{
	ssize_t n = send(H.wire, H.queue + H.queue_at, H.queue_len - H.queue_at,
			 MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		H.queue_at += n;
	if (H.queue_at == H.queue_len)
		H.queue_at = H.queue_len = 0;
}

static void read_stdin(void)
{
	static char b[CHUNK];
	size_t room = WINDOW - H.in_flight;
	ssize_t n = read(H.in_fd, b, room < sizeof b ? room : sizeof b);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		n = 0;
		H.in_fd = -1;
	}
	queue(IN, 0, b, n);
	H.in_flight += n;
}

/* Not more than a pipe takes at once without blocking, poll(2) having said that it can. */
static void write_out(void)
{
	size_t len = H.out_len < 4096 ? H.out_len : 4096;
	ssize_t n = write(H.out_fd, H.out, len);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n < 0) { /* let CMD have its SIGPIPE */
		H.shut[H.out_fd] = 1;
		queue(SHUT, H.out_fd, NULL, 0);
		n = H.out_len;
	}
	H.out += n;
	H.out_len -= n;
}

/* Handles frames until one has output to write. Returns the exit status or -1. */
static int take_frames(struct inbox *in)
{
	for (;;) {
		if (H.out_len)
			return -1;
		if (H.out) {
			H.out = NULL;
			inbox_drop(in);
		}
		struct head *h = inbox_peek(in);
		if (!h)
			return -1;
		switch (h->frame) {
		case READY:
			if (H.log >= 0)
				dprintf(H.log, "rig: command started after %.2f s\n",
					seconds_since(&H.start));
			break;
		case OUT:
			if (h->aux != 1 && h->aux != 2)
				die(125, "garbage on the wire: stream %u", h->aux);
			if (H.shut[h->aux])
				break;
			H.out_fd = h->aux;
			H.out = (char *)(h + 1);
			H.out_len = h->len;
			tail_add(&H.cmd_tail, H.out, H.out_len);
			continue;
		case TOOK:
			H.in_flight -= h->aux;
			break;
		case EXIT:
			return h->aux & 0xff;
		default:
			die(125, "garbage on the wire: frame type %u", h->frame);
		}
		inbox_drop(in);
	}
}

/* The exit status of CMD; -1 the machine is gone, -2 the time is up, -3 a signal came. */
static int host_loop(double deadline)
{
	static struct inbox in;
	int is_open = 1;
	for (;;) {
		int status = take_frames(&in);
		if (status >= 0)
			return status;
		if (!is_open && !H.out_len)
			return -1;
		double left = deadline - seconds_since(&H.start);
		if (caught)
			return caught == SIGALRM ? -2 : -3;
		if (left <= 0)
			return -2;
		short to_guest = H.queue_len ? POLLOUT : 0;
		struct pollfd p[] = {
			{ is_open && (!H.out_len || to_guest) ? H.wire : -1,
			  (H.out_len ? 0 : POLLIN) | to_guest, 0 },
			{ H.out_len ? H.out_fd : -1, POLLOUT, 0 },
			{ H.in_flight < WINDOW && !to_guest ? H.in_fd : -1, POLLIN, 0 },
			{ H.console, POLLIN, 0 },
			{ H.qerr, POLLIN, 0 },
		};
		if (poll(p, ARRAY_LEN(p), left * 1000 + 1) < 0)
			continue;
		if (p[0].revents & POLLOUT)
			send_queue();
		if ((p[0].revents & (POLLIN | POLLHUP | POLLERR)) && !H.out_len)
			is_open = inbox_fill(&in, H.wire);
		if (p[1].revents)
			write_out();
		if (p[2].revents)
			read_stdin();
		if (p[3].revents)
			read_into(&H.console_tail, &H.console);
		if (p[4].revents)
			read_into(&H.qemu_tail, &H.qerr);
	}
}

/* QEMU finds the wire at fd 3 and the console at fd 4, and dies with us whatever happens. */
static void start_qemu(char **argv)
{
	int wire[2], con[2], err[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, wire) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, con) < 0 ||
	    pipe2(err, O_CLOEXEC) < 0)
		die(125, "channels to QEMU: %s", strerror(errno));
	pid_t parent = getpid();
	H.qemu = fork();
	if (H.qemu < 0)
		die(125, "fork: %s", strerror(errno));
	if (H.qemu == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(125);
		setsid();
		int null = open("/dev/null", O_RDWR);
		dup2(null, 0);
		dup2(err[1], 1);
		dup2(err[1], 2);
		int a = fcntl(wire[1], F_DUPFD, 10), b = fcntl(con[1], F_DUPFD, 10);
		dup2(a, 3);
		dup2(b, 4);
		close(a);
		close(b);
		execvp(argv[0], argv);
		dprintf(2, "%s: %s\n", argv[0], strerror(errno));
		_exit(125);
	}
	H.wire = wire[0];
	H.console = con[0];
	H.qerr = err[0];
	close(wire[1]);
	close(con[1]);
	close(err[1]);
	fcntl(H.console, F_SETFL, O_NONBLOCK);
	fcntl(H.qerr, F_SETFL, O_NONBLOCK);
}

static void watch_signals(double deadline)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM };
	struct sigaction sa = { .sa_handler = on_signal }; /* no SA_RESTART: a blocked write ends */
	struct sigaction old;
	for (size_t i = 0; i < ARRAY_LEN(sigs); i++) {
		sigaction(sigs[i], NULL, &old);
		if (old.sa_handler != SIG_IGN || sigs[i] == SIGALRM)
			sigaction(sigs[i], &sa, NULL);
	}
	signal(SIGPIPE, SIG_IGN);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	alarm((unsigned)deadline + 1);
}

static int host(int argc, char **argv)
{
	for (int fd = 0; fd < 3; fd++) /* a closed one must not become the wire */
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", O_RDWR);
	char **cmd = argv + 2;
	while (*cmd && strcmp(*cmd, "--"))
		cmd++;
	if (argc < 4 || !*cmd || !cmd[1])
		die(125, "usage: relay host SECONDS LOGFILE QEMU-ARGV... -- CMD...");
	*cmd++ = NULL;
	double deadline = atof(argv[0]);
	H.log = -1;
	if (*argv[1]) {
		H.log = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (H.log < 0)
			die(125, "--keep-log %s: %s", argv[1], strerror(errno));
	}
	clock_gettime(CLOCK_MONOTONIC, &H.start);
	queue_command(cmd);
	watch_signals(deadline);
	start_qemu(argv + 2);
	int status = host_loop(deadline);
	stop_qemu();
	if (status == -1) {
		fprintf(stderr, "rig: the machine stopped before the command ended\n");
		report_tails();
		return 125;
	}
	if (status == -2) {
		fprintf(stderr, "rig: killed after %g s, see --timeout\n", deadline);
		report_tails();
		return 124;
	}
	while (H.log >= 0 && H.console >= 0)
		read_into(&H.console_tail, &H.console);
	if (status == -3) {
		signal(caught, SIG_DFL);
		raise(caught);
	}
	return status;
}

/* ---- guest --------------------------------------------------------------------------------- */

static struct guest {
	int port;
	pid_t cmd;      /* 0 until started */
	int status;     /* -1 until ended */
	int in, out[3]; /* our ends of CMD's pipes, -1 when closed */
	int is_in_eof;
	size_t ring_at, ring_len; /* stdin CMD has not taken yet */
	char ring[WINDOW];
	char *args[STRINGS_MAX], *envs[STRINGS_MAX], *cwd;
	size_t n_args, n_envs;
} G;

static void tell(enum frame f, uint32_t aux)
{
	struct head h = { f, aux, 0 };
	write_all(G.port, &h, sizeof h);
}

static void on_child(int sig)
{
	(void)sig; /* interrupts ppoll() */
}

static void exec_cmd(int in, int out, int err)
{
	extern char **environ;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	write_all(oom, "0", 1);
	if (chdir(G.cwd) < 0) {
		dprintf(2,
			"rig: current directory %s: %s inside the machine, where /tmp, /run and "
			"/dev are fresh; start from elsewhere\n",
			G.cwd, strerror(errno));
		_exit(125);
	}
	environ = G.envs;
	if (!getenv("PATH"))
		setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	execvp(G.args[0], G.args);
	int e = errno;
	dprintf(2, "rig: %s: %s\n", G.args[0], strerror(e));
	_exit(e == ENOENT ? 127 : 126);
}

static void start_cmd(void)
{
	int in[2], out[2], err[2];
	if (!G.n_args || !G.cwd || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) ||
	    pipe2(err, O_CLOEXEC))
		die(125, "starting the command: %s", strerror(errno));
	tell(READY, 0);
	G.cmd = fork();
	if (G.cmd < 0)
		die(125, "fork: %s", strerror(errno));
	if (G.cmd == 0)
		exec_cmd(in[0], out[1], err[1]);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	G.in = in[1];
	fcntl(G.in, F_SETFL, O_NONBLOCK);
	G.out[1] = out[0];
	G.out[2] = err[0];
}

static void keep_string(char **list, size_t *n, const char *s, size_t len)
{
	if (*n + 1 == STRINGS_MAX)
		die(125, "more than %d arguments or variables", STRINGS_MAX - 1);
	char *copy = malloc(len + 1);
	if (!copy)
		die(125, "out of memory");
	memcpy(copy, s, len);
	copy[len] = '\0';
	list[(*n)++] = copy;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void on_frame(const struct head *h)
{
	const char *body = (const char *)(h + 1);
	size_t one = 0;
	switch (h->frame) {
	case ARG:
		keep_string(G.args, &G.n_args, body, h->len);
		break;
	case ENV:
		keep_string(G.envs, &G.n_envs, body, h->len);
		break;
	case CWD:
		keep_string(&G.cwd, &one, body, h->len);
		break;
	case GO:
		start_cmd();
		break;
	case IN:
		if (!h->len)
			G.is_in_eof = 1;
		for (uint32_t i = 0; i < h->len && G.ring_len < WINDOW; i++)
			G.ring[(G.ring_at + G.ring_len++) % WINDOW] = body[i];
		break;
	case SHUT:
		if (h->aux == 1 || h->aux == 2)
			close_fd(&G.out[h->aux]);
		break;
	default:
		die(125, "garbage on the wire: frame type %u", h->frame);
	}
}

static void feed_stdin(void)
{
	while (G.in >= 0 && G.ring_len) {
		size_t run = WINDOW - G.ring_at;
		ssize_t n = write(G.in, G.ring + G.ring_at, run < G.ring_len ? run : G.ring_len);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) { /* CMD closed its stdin */
			close_fd(&G.in);
			break;
		}
		G.ring_at = (G.ring_at + n) % WINDOW;
		G.ring_len -= n;
		tell(TOOK, n);
	}
	if (G.is_in_eof && !G.ring_len)
		close_fd(&G.in);
}

/* Bytes moved. */
static size_t pump(int stream)
{
	static struct {
		struct head h;
		char b[CHUNK - sizeof(struct head)];
	} f;
	ssize_t n = read(G.out[stream], f.b, sizeof f.b);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		close_fd(&G.out[stream]);
		return 0;
	}
	f.h = (struct head){ OUT, stream, n };
	write_all(G.port, &f, sizeof f.h + n);
	return n;
}

static void reap(void)
{
	int st;
	for (pid_t pid; (pid = waitpid(-1, &st, WNOHANG)) > 0;)
		if (pid == G.cmd)
			G.status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

/* CMD has ended: so do the processes it left behind, whose last words still count. */
static void finish(void)
{
	kill(-1, SIGKILL);
	while (G.out[1] >= 0 || G.out[2] >= 0) {
		struct pollfd p[] = { { G.out[1], POLLIN, 0 }, { G.out[2], POLLIN, 0 } };
		int n = poll(p, 2, 5000);
		if (n == 0)
			break; /* held by a process that cannot die */
		for (int s = 1; n > 0 && s <= 2; s++)
			if (p[s - 1].revents)
				pump(s);
		reap();
	}
	tell(EXIT, G.status);
	for (;;)
		pause(); /* the host pulls the plug */
}

_Noreturn static void guest(const char *port)
{
	static struct inbox in;
	G.status = G.in = G.out[1] = G.out[2] = -1;
	for (int i = 0; (G.port = open(port, O_RDWR | O_CLOEXEC)) < 0 && i < 500; i++)
		usleep(10000);
	if (G.port < 0)
		die(125, "%s: %s", port, strerror(errno));
	signal(SIGPIPE, SIG_IGN);
	struct sigaction sa = { .sa_handler = on_child };
	sigaction(SIGCHLD, &sa, NULL);
	sigset_t child, none;
	sigemptyset(&none);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	for (;;) {
		struct pollfd p[] = {
			{ G.port, POLLIN, 0 },
			{ G.out[1], POLLIN, 0 },
			{ G.out[2], POLLIN, 0 },
			{ G.ring_len ? G.in : -1, POLLOUT, 0 },
		};
		int n = ppoll(p, ARRAY_LEN(p), NULL, &none);
		reap();
		if (G.status >= 0)
			finish();
		if (n < 0)
			continue;
		if (p[0].revents && inbox_fill(&in, G.port))
			for (struct head *h; (h = inbox_peek(&in)); inbox_drop(&in))
				on_frame(h);
		if (p[1].revents)
			pump(1);
		if (p[2].revents)
			pump(2);
		feed_stdin();
	}
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "host"))
		return host(argc - 2, argv + 2);
	if (argc == 3 && !strcmp(argv[1], "guest"))
		guest(argv[2]);
	die(125, "usage: relay host|guest ...");
}
