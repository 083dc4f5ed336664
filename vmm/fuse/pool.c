#include "vmm/fuse/pool.h"

#include <pthread.h>

#include "amalgam/base/mem.h"

#define FPOOL_STACK_BYTES KIB(128)

struct fpool {
	int (*enter)(struct err *e);
	pthread_mutex_t lock;        /* everything below */
	pthread_cond_t work;         /* a job was queued, or stop set */
	pthread_cond_t entered;      /* `state` of the first thread is known */
	struct fpool_job *first, **last;
	pthread_t thread[FPOOL_MAX];
	unsigned threads, idle;
	bool ready, stop;
	bool no_more;                /* the host refused a thread: live with those there are */
	struct err failure;          /* enter()'s */
};

static void *fpool_thread(void *arg);

/* Lock held. A thread is made like the one that makes it: privileges, filter, working directory. */
static int fpool_add_thread(struct fpool *p)
{
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, FPOOL_STACK_BYTES);
	r = pthread_create(&p->thread[p->threads], &attr, fpool_thread, p);
	if (r == 0)
		p->threads++;
	pthread_attr_destroy(&attr);
	return -r;
}

/* Lock held. The next job, or NULL: the pool is to end. Whoever leaves nobody to wait for the next job
 * makes somebody. */
static struct fpool_job *fpool_next(struct fpool *p)
{
	struct fpool_job *j;

	p->idle++;
	while (!p->first && !p->stop)
		pthread_cond_wait(&p->work, &p->lock);
	p->idle--;
	j = p->first;
	if (!j)
		return NULL;
	p->first = j->next;
	if (!p->first)
		p->last = &p->first;
	if (p->idle == 0 && p->threads < FPOOL_MAX && !p->no_more && !p->stop)
		p->no_more = fpool_add_thread(p) < 0;
	return j;
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
	p->stop = r < 0;
	pthread_cond_signal(&p->entered);
	pthread_mutex_unlock(&p->lock);
	return r >= 0;
}

static void *fpool_thread(void *arg)
{
	struct fpool *p = arg;
	struct fpool_job *j;
	bool first;

	pthread_mutex_lock(&p->lock);
	first = !p->ready;
	pthread_mutex_unlock(&p->lock);
	if (first && !fpool_enter(p))
		return NULL;
	pthread_mutex_lock(&p->lock);
	while ((j = fpool_next(p))) {
		pthread_mutex_unlock(&p->lock);
		j->run(j);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

void fpool_submit(struct fpool *p, struct fpool_job *j)
{
	bool wake;

	j->next = NULL;
	pthread_mutex_lock(&p->lock);
	*p->last = j;
	p->last = &j->next;
	wake = p->idle > 0;
	pthread_mutex_unlock(&p->lock);
	if (wake)
		pthread_cond_signal(&p->work);
}

void fpool_stop(struct fpool *p)
{
	unsigned n;

	pthread_mutex_lock(&p->lock);
	p->stop = true;
	n = p->threads;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < n; i++)
		pthread_join(p->thread[i], NULL);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->work);
	pthread_cond_destroy(&p->entered);
	free(p);
}

struct fpool *fpool_start(int (*enter)(struct err *e), struct err *e)
{
	struct fpool *p = mem_zalloc(sizeof *p);
	int r;

	p->enter = enter;
	p->last = &p->first;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_cond_init(&p->entered, NULL);
	pthread_mutex_lock(&p->lock);
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
