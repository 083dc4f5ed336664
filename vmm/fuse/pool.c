#include "vmm/fuse/pool.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "amalgam/base/mem.h"

#define FPOOL_STACK_BYTES KIB(128)

struct fpool_worker {
	struct fpool *pool;
	unsigned index;
	pthread_t thread;
};

struct fpool {
	int (*enter)(struct err *e);
	void (*work)(void *arg, unsigned i);
	void *arg;
	int bell, ear; /* the eventfd; an epoll that hears each write to it once */
	struct fpool_worker worker[FPOOL_MAX];
	pthread_mutex_t lock;        /* everything below */
	pthread_cond_t entered;      /* `state` of the first thread is known */
	unsigned threads, idle;
	bool ready, stop;
	bool no_more;                /* the host refused a thread: live with those there are */
	struct err failure;          /* enter()'s */
};

static void *fpool_thread(void *arg);

/* Lock held. A thread is made like the one that makes it: privileges, filter, working directory. */
static int fpool_add_thread(struct fpool *p)
{
	struct fpool_worker *w = &p->worker[p->threads];
	pthread_attr_t attr;
	int r;

	w->pool = p;
	w->index = p->threads;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, FPOOL_STACK_BYTES);
	r = pthread_create(&w->thread, &attr, fpool_thread, w);
	if (r == 0)
		p->threads++;
	pthread_attr_destroy(&attr);
	return -r;
}

/* Sleep until the bell rings. False: the pool is to end. Whoever leaves nobody to hear the next ring makes
 * somebody. */
static bool fpool_wait(struct fpool *p)
{
	struct epoll_event rings;
	bool stop;

	pthread_mutex_lock(&p->lock);
	p->idle++;
	pthread_mutex_unlock(&p->lock);
	while (epoll_wait(p->ear, &rings, 1, -1) < 0)
		ASSERT(errno == EINTR);
	pthread_mutex_lock(&p->lock);
	p->idle--;
	stop = p->stop;
	if (p->idle == 0 && p->threads < FPOOL_MAX && !p->no_more && !stop)
		p->no_more = fpool_add_thread(p) < 0;
	pthread_mutex_unlock(&p->lock);
	return !stop;
}

/* The first thread: become what all the others will be. False: it did not work. */
static bool fpool_enter(struct fpool *p)
{
	struct err e = { 0 };
	int r = p->enter ? p->enter(&e) : 0;

	pthread_mutex_lock(&p->lock);
	p->ready = true;
	p->failure = e;
	p->failure.code = r;
	pthread_cond_signal(&p->entered);
	pthread_mutex_unlock(&p->lock);
	return r >= 0;
}

static void *fpool_thread(void *arg)
{
	struct fpool_worker *w = arg;
	struct fpool *p = w->pool;

	if (w->index == 0 && !fpool_enter(p))
		return NULL;
	while (fpool_wait(p))
		p->work(p->arg, w->index);
	fpool_ring(p); /* for the next one to end */
	return NULL;
}

void fpool_set_work(struct fpool *p, void (*work)(void *arg, unsigned i), void *arg)
{
	p->work = work;
	p->arg = arg;
}

int fpool_bell(const struct fpool *p)
{
	return p->bell;
}

void fpool_ring(struct fpool *p)
{
	const uint64_t one = 1;

	while (write(p->bell, &one, sizeof one) < 0)
		ASSERT(errno == EINTR);
}

void fpool_stop(struct fpool *p)
{
	unsigned n;

	pthread_mutex_lock(&p->lock);
	p->stop = true;
	n = p->threads;
	pthread_mutex_unlock(&p->lock);
	if (p->bell >= 0)
		fpool_ring(p);
	for (unsigned i = 0; i < n; i++)
		pthread_join(p->worker[i].thread, NULL);
	if (p->bell >= 0)
		close(p->bell);
	if (p->ear >= 0)
		close(p->ear);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->entered);
	free(p);
}

/* A reader of an eventfd would wake with all the others; sleepers in epoll wake one at a time. Nobody reads
 * what is written, which is why it is heard by its edge. */
static int fpool_open_bell(struct fpool *p)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	p->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	p->ear = epoll_create1(EPOLL_CLOEXEC);
	if (p->bell < 0 || p->ear < 0 || epoll_ctl(p->ear, EPOLL_CTL_ADD, p->bell, &ev) < 0)
		return -errno;
	return 0;
}

struct fpool *fpool_start(int (*enter)(struct err *e), struct err *e)
{
	struct fpool *p = mem_zalloc(sizeof *p);
	int r;

	p->enter = enter;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->entered, NULL);
	r = fpool_open_bell(p);
	pthread_mutex_lock(&p->lock);
	if (r == 0)
		r = fpool_add_thread(p);
	while (r == 0 && !p->ready)
		pthread_cond_wait(&p->entered, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (r < 0)
		err_set(e, r, "file thread: %s", strerror(-r));
	else if (p->failure.code < 0)
		err_set(e, p->failure.code, "file thread: %s", p->failure.msg);
	else
		return p;
	fpool_stop(p);
	return NULL;
}
