#include "tests/unit/test.h"
#include "tests/unit/vmm/virtio/vq_rig.h"
#include "vmm/fuse/pool.h"

#include <semaphore.h>

struct tpool {
	sem_t began, go;
	unsigned runs, seen; /* bit per thread */
};

static void tpool_work(void *arg, unsigned i)
{
	struct tpool *t = arg;

	__atomic_add_fetch(&t->runs, 1, __ATOMIC_SEQ_CST);
	__atomic_or_fetch(&t->seen, 1u << i, __ATOMIC_SEQ_CST);
	sem_post(&t->began);
	sem_wait(&t->go);
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

TEST(fpool_enters_once_and_works_in_as_many_threads_as_it_may_have)
{
	struct tpool t = { .runs = 0 };
	struct fpool *p;

	sem_init(&t.began, 0, 0);
	sem_init(&t.go, 0, 0);
	p = fpool_start(tpool_enter, NULL);
	CHECK(p);
	fpool_set_work(p, tpool_work, &t);
	for (unsigned i = 0; i < FPOOL_MAX; i++) {
		fpool_ring(p);
		CHECK_EQ(sem_wait(&t.began), 0);
	}
	CHECK_EQ(t.seen, (1u << FPOOL_MAX) - 1);
	fpool_ring(p); /* nobody is idle: kept for the first who is */
	usleep(20000);
	CHECK_EQ(__atomic_load_n(&t.runs, __ATOMIC_SEQ_CST), FPOOL_MAX);
	sem_post(&t.go);
	CHECK_EQ(sem_wait(&t.began), 0);
	CHECK_EQ(__atomic_load_n(&t.runs, __ATOMIC_SEQ_CST), FPOOL_MAX + 1);
	for (unsigned i = 0; i < FPOOL_MAX; i++)
		sem_post(&t.go);
	fpool_stop(p);
	CHECK_EQ(tpool_entered, 1);
}

TEST(fpool_bell_can_be_rung_by_whoever_has_its_descriptor)
{
	const uint64_t rings = 3;
	struct tpool t = { .runs = 0 };
	struct fpool *p = fpool_start(NULL, NULL);

	CHECK(p);
	sem_init(&t.began, 0, 0);
	sem_init(&t.go, 0, 1000);
	fpool_set_work(p, tpool_work, &t);
	for (unsigned i = 1; i <= 100; i++) {
		CHECK_EQ(write(fpool_bell(p), &rings, sizeof rings), 8);
		CHECK_EQ(sem_wait(&t.began), 0);
		CHECK_EQ(__atomic_load_n(&t.runs, __ATOMIC_SEQ_CST), i);
	}
	fpool_stop(p);
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
