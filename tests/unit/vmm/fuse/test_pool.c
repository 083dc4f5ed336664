#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/fuse/pool.h"

#include <semaphore.h>

struct tpool_job {
	struct fpool_job job;
	sem_t *began, *go;
	unsigned *runs;
};

static void tpool_run(struct fpool_job *j)
{
	struct tpool_job *t = container_of(j, struct tpool_job, job);

	__atomic_add_fetch(t->runs, 1, __ATOMIC_SEQ_CST);
	sem_post(t->began);
	sem_wait(t->go);
}

static unsigned tpool_entered;
static int tpool_enter(struct err *e)
{
	(void)e;
	tpool_entered++;
	return 0;
}
static int tpool_enter_fails(struct err *e)
{
	return err_set(e, -EPERM, "no such privilege");
}

TEST(fpool_enters_once_and_runs_as_many_jobs_at_a_time_as_it_may_have_threads)
{
	struct tpool_job job[FPOOL_MAX + 3];
	unsigned runs = 0;
	struct fpool *p;
	sem_t began, go;

	sem_init(&began, 0, 0);
	sem_init(&go, 0, 0);
	p = fpool_start(tpool_enter, NULL);
	CHECK(p);
	for (unsigned i = 0; i < ARRAY_LEN(job); i++) {
		job[i] = (struct tpool_job){ { .run = tpool_run }, &began, &go, &runs };
		fpool_submit(p, &job[i].job);
	}
	for (unsigned i = 0; i < FPOOL_MAX; i++)
		CHECK_EQ(sem_wait(&began), 0);
	usleep(20000);
	CHECK_EQ(__atomic_load_n(&runs, __ATOMIC_SEQ_CST), FPOOL_MAX);
	for (unsigned i = 0; i < ARRAY_LEN(job); i++)
		sem_post(&go);
	fpool_stop(p); /* with three still queued */
	CHECK_EQ(runs, ARRAY_LEN(job));
	CHECK_EQ(tpool_entered, 1);
}

TEST(fpool_that_cannot_enter_says_why)
{
	struct err e = { 0 };

	CHECK(fpool_start(tpool_enter_fails, &e) == NULL);
	CHECK_EQ(e.code, -EPERM);
	CHECK_STR(e.msg, "file thread: no such privilege");
}

TEST(fpool_without_work_ends_at_once)
{
	struct fpool *p = fpool_start(NULL, NULL);

	CHECK(p);
	fpool_stop(p);
}
