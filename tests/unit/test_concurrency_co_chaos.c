/* SPDX-License-Identifier: MIT */
/* Coroutines of two processes and threads of a third use one lock, condition, queue and event, with
 * long and with short times, while the first two are killed again and again. Once a death is buried
 * all go on: what is waited for long is got, the lock has one owner at a time, and the queue loses no
 * more than what the dead had in their hands. MODUS_CHAOS_MS says for how long (1500). */
#include "test_concurrency.h"

#include "concurrency/cond.h"
#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "concurrency/queue.h"

#ifdef __SANITIZE_THREAD__ /* children have proxies of their own, which it does not like */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

enum { COROUTINES = 6, KILLED = 2 };

static struct shared {
    struct modus_arena *arena;
    struct modus_lock lock;
    struct modus_cond cond;
    struct modus_event event;
    struct modus_queue queue;
    _Atomic int inside, stop;
    _Atomic long steps, puts, gets;
} * s;

static const int64_t long_time = 20000000000; /* never over: the watchdog comes before */

/* We own the lock, perhaps after one who died with it. */
static void come_in(int rc)
{
    if (rc > 0) {
        atomic_store(&s->inside, 0);
        CHECK_INT(modus_lock_consistent(&s->lock), 0);
    }
    CHECK_INT(atomic_fetch_add(&s->inside, 1), 0);
}

static void use_lock(unsigned *seed, int64_t ns)
{
    int rc = modus_lock_acquire(&s->lock, ns);

    if (rc < 0) {
        CHECK(ns != long_time && (rc == -ETIMEDOUT || rc == -EAGAIN));
        return;
    }
    come_in(rc);
    if (rand_r(seed) % 4 == 0 && modus_co_self())
        modus_co_sleep(modus_us(rand_r(seed) % 300));
    if (rand_r(seed) % 3 == 0) {
        atomic_fetch_sub(&s->inside, 1);
        rc = modus_cond_wait(&s->cond, modus_us(200));
        CHECK(rc >= 0 || rc == -ETIMEDOUT);
        come_in(rc);
    } else {
        CHECK(modus_cond_notify(&s->cond, 1) >= 0);
    }
    atomic_fetch_sub(&s->inside, 1);
    CHECK_INT(modus_lock_release(&s->lock), 0);
}

static void use_queue(unsigned *seed, int64_t ns)
{
    bool put = rand_r(seed) % 2;
    uint64_t item = 1;

    if (ns == long_time)
        ns = modus_ms(50); /* all might want to put */
    int rc = put ? modus_queue_put(&s->queue, &item, ns) : modus_queue_get(&s->queue, &item, ns);
    if (rc == 0)
        atomic_fetch_add(put ? &s->puts : &s->gets, 1);
    else
        CHECK(rc == -ETIMEDOUT || rc == MODUS_FULL || rc == MODUS_EMPTY || rc == MODUS_CLOSED);
}

static void use_event(unsigned *seed)
{
    if (rand_r(seed) % 2) {
        modus_event_set(&s->event);
        modus_event_clear(&s->event);
    } else {
        int rc = modus_event_wait(&s->event, modus_us(300));
        CHECK(rc == 0 || rc == -ETIMEDOUT);
    }
}

static int work(void *number)
{
    unsigned seed = (unsigned)(uintptr_t)number + (unsigned)getpid();

    while (!atomic_load(&s->stop)) {
        int64_t ns = rand_r(&seed) % 3 ? long_time : modus_us(rand_r(&seed) % 500);

        switch (rand_r(&seed) % 4) {
        case 0:
            use_event(&seed);
            break;
        case 1:
            use_lock(&seed, ns);
            break;
        default:
            use_queue(&seed, ns);
        }
        atomic_fetch_add(&s->steps, 1);
    }
    return 0;
}

static int start_all(void *argument)
{
    (void)argument;
    for (uintptr_t i = 0; i < COROUTINES; i++)
        CHECK_INT(modus_co_start(NULL, NULL, work, (void *)(i * 77)), 0);
    return 0;
}

static int child_of_coroutines(void *argument)
{
    CHECK(modus_participant_join(s->arena) > 0);
    CHECK_INT(modus_co_run(start_all, argument), 0);
    return modus_participant_leave(s->arena);
}

static void *thread_of_child(void *number)
{
    CHECK(modus_participant_join(s->arena) > 0);
    work(number);
    CHECK_INT(modus_participant_leave(s->arena), 0);
    return NULL;
}

static int child_of_threads(void *argument)
{
    pthread_t other = start_thread(thread_of_child, &other);

    thread_of_child(argument);
    join_thread(other);
    return 0;
}

static void open_all(void)
{
    struct modus_arena *arena;

    CHECK_INT(modus_arena_open(&arena, 1 << 22, 16), 0);
    CHECK((s = modus_arena_alloc(arena, sizeof *s, 0)) != NULL);
    s->arena = arena;
    CHECK_INT(modus_lock_init(&s->lock, MODUS_PROCESS), 0);
    CHECK_INT(modus_cond_init(&s->cond, &s->lock), 0);
    CHECK_INT(modus_event_init(&s->event, MODUS_PROCESS), 0);
    CHECK_INT(modus_queue_init(&s->queue, &(struct modus_queue_attr){.scope = MODUS_PROCESS,
                                                                     .arena = arena,
                                                                     .capacity = 4,
                                                                     .item_size = 8}),
              0);
}

static void test_chaos(void **state)
{
    const char *wanted = getenv("MODUS_CHAOS_MS");
    int64_t end = modus_now_ns() + modus_ms(wanted ? atoi(wanted) : 1500);
    pid_t killed[KILLED], stays;
    long kills = 0;
    (void)state;

    open_all();
    stays = start_child(child_of_threads, NULL);
    for (int i = 0; i < KILLED; i++)
        killed[i] = start_child(child_of_coroutines, NULL);
    for (; modus_now_ns() < end; kills++) {
        pid_t *victim = &killed[kills % KILLED];
        long before = atomic_load(&s->steps);

        AWAIT(atomic_load(&s->steps) > before + 20); /* they go on */
        usleep((unsigned)(kills * 137 % 5000));
        kill_child(*victim);
        modus_participant_bury(s->arena, *victim);
        *victim = start_child(child_of_coroutines, NULL);
    }
    atomic_store(&s->stop, 1);
    for (int i = 0; i < KILLED; i++)
        assert_int_equal(reap(killed[i]), 0);
    assert_int_equal(reap(stays), 0);
    /* A dead one may have put or got without having counted it, one item a coroutine. */
    long inside = (long)modus_queue_len(&s->queue);
    long missing = atomic_load(&s->puts) - atomic_load(&s->gets) - inside;
    assert_true(missing <= kills * COROUTINES && missing >= -kills * COROUTINES);
    modus_queue_fini(&s->queue);
    modus_lock_fini(&s->lock);
    assert_int_equal(modus_arena_close(s->arena), 0);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_chaos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
