/* SPDX-License-Identifier: MIT */
/* Coroutines that wait for what processes share: woken by other processes and by their deaths, while
 * the other coroutines of the thread go on; and nobody wakes for nothing. */
#include "test_concurrency_co.h"

#include "concurrency/cond.h"
#include "concurrency/event.h"
#include "concurrency/fault.h"
#include "concurrency/lock.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifdef __SANITIZE_THREAD__ /* children have proxies of their own, which it does not like */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

/* To it a coroutine is a thread. To the system it is not: another of the thread may leave. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "mutex:modus_participant_leave\n";
}
#endif

struct shared {
    struct modus_arena *arena;
    struct modus_event event, back, more[150];
    struct modus_lock lock;
    struct modus_cond cond;
    struct modus_sem sem;
    struct modus_queue queue;
    _Atomic int count, inside, tid;
};

static struct shared *open_shared(void)
{
    struct modus_arena *arena;
    struct shared *s;

    CHECK_INT(modus_arena_open(&arena, 1 << 22, 8), 0);
    CHECK((s = modus_arena_alloc(arena, sizeof *s, 0)) != NULL);
    s->arena = arena;
    CHECK_INT(modus_event_init(&s->event, MODUS_PROCESS), 0);
    CHECK_INT(modus_event_init(&s->back, MODUS_PROCESS), 0);
    for (size_t i = 0; i < sizeof s->more / sizeof *s->more; i++)
        CHECK_INT(modus_event_init(&s->more[i], MODUS_PROCESS), 0);
    CHECK_INT(modus_lock_init(&s->lock, MODUS_PROCESS), 0);
    CHECK_INT(modus_cond_init(&s->cond, &s->lock), 0);
    CHECK_INT(modus_sem_init(&s->sem, &(struct modus_sem_attr){.scope = MODUS_PROCESS}), 0);
    CHECK_INT(modus_queue_init(&s->queue, &(struct modus_queue_attr){.scope = MODUS_PROCESS,
                                                                     .arena = arena,
                                                                     .capacity = 16,
                                                                     .item_size = 8}),
              0);
    return s;
}

static void close_shared(struct shared *s)
{
    struct modus_arena *arena = s->arena;

    modus_queue_fini(&s->queue);
    modus_lock_fini(&s->lock);
    CHECK_INT(modus_arena_close(arena), 0);
}

/* Run main as a coroutine of this process, with other_side in a child. */
static void run_both(int (*main)(void *), int (*other_side)(void *))
{
    struct shared *s = open_shared();
    pid_t child = other_side ? start_child(other_side, s) : 0;

    assert_int_equal(modus_co_run(main, s), 0);
    if (child)
        assert_int_equal(reap(child), 0);
    close_shared(s);
}

/* --- events ----------------------------------------------------------------------------------- */

static bool tick_on;
static int ticks;

static int tick(void *argument)
{
    (void)argument;
    for (ticks = 0; tick_on; ticks++)
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    return 0;
}

static int wait_for_event(void *argument)
{
    struct shared *s = argument;

    return modus_event_wait(&s->event, MODUS_FOREVER);
}

/* The other coroutines go on while one waits; that is what the child waits for. */
static int main_event(void *argument)
{
    struct shared *s = argument;

    tick_on = true;
    struct modus_co *ticker = go(tick, NULL), *waiter[3];
    CHECK_INT(modus_event_wait(&s->event, modus_ms(5)), -ETIMEDOUT);
    for (int i = 0; i < 3; i++)
        waiter[i] = go(wait_for_event, s);
    while (ticks < 10)
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    modus_event_set(&s->back);
    for (int i = 0; i < 3; i++)
        CHECK_INT(joined(waiter[i]), 0);
    tick_on = false;
    CHECK_INT(joined(ticker), 0);
    return 0;
}

static int child_event(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_event_wait(&s->back, MODUS_FOREVER), 0);
    modus_event_set(&s->event);
    return 0;
}

static void test_event(void **state)
{
    (void)state;
    run_both(main_event, child_event);
}

/* Ping-pong between a coroutine and another process's coroutine. */
enum { ROUNDS = SLOW ? 300 : 2000 };

static int main_ping(void *argument)
{
    struct shared *s = argument;

    for (int i = 0; i < ROUNDS; i++) {
        modus_event_set(&s->event);
        CHECK_INT(modus_event_wait(&s->back, MODUS_FOREVER), 0);
        modus_event_clear(&s->back);
    }
    return 0;
}

static int pong(void *argument)
{
    struct shared *s = argument;

    for (int i = 0; i < ROUNDS; i++) {
        CHECK_INT(modus_event_wait(&s->event, MODUS_FOREVER), 0);
        modus_event_clear(&s->event);
        modus_event_set(&s->back);
    }
    return 0;
}

static int child_pong(void *argument)
{
    return modus_co_run(pong, argument);
}

static void test_ping_pong(void **state)
{
    (void)state;
    run_both(main_ping, child_pong);
}

/* More words than one proxy serves. */
struct numbered {
    struct shared *s;
    int i;
};

static int wait_for_one(void *argument)
{
    struct numbered *n = argument;

    CHECK_INT(modus_event_wait(&n->s->more[n->i], MODUS_FOREVER), 0);
    atomic_fetch_add(&n->s->count, 1);
    return 0;
}

static int main_many(void *argument)
{
    static struct numbered n[150];
    struct modus_co *co[150];

    for (int i = 0; i < 150; i++) {
        n[i] = (struct numbered){argument, i};
        co[i] = go(wait_for_one, &n[i]);
    }
    CHECK_INT(modus_co_yield(), 0);
    modus_event_set(&n[0].s->back);
    for (int i = 0; i < 150; i++)
        CHECK_INT(joined(co[i]), 0);
    CHECK_INT(atomic_load(&n[0].s->count), 150);
    return 0;
}

static int child_many(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_event_wait(&s->back, MODUS_FOREVER), 0);
    for (int i = 0; i < 150; i++) {
        modus_event_set(&s->more[(i * 7) % 150]);
        AWAIT(atomic_load(&s->count) > i); /* each wakes its own, and at once */
    }
    return 0;
}

static void test_many_words(void **state)
{
    (void)state;
    run_both(main_many, child_many);
}

/* --- queues and semaphores --------------------------------------------------------------------- */

enum { ITEMS = SLOW ? 500 : 5000, WORKERS = 4 };

static int consume(void *argument)
{
    struct shared *s = argument;
    uint64_t item;
    int rc;

    while ((rc = modus_queue_get(&s->queue, &item, MODUS_FOREVER)) == 0)
        atomic_fetch_add(&s->count, (int)item);
    return rc;
}

static int main_queue(void *argument)
{
    struct shared *s = argument;
    struct modus_co *co[WORKERS];

    CHECK(modus_participant_join(s->arena) > 0);
    for (int i = 0; i < WORKERS; i++)
        co[i] = go(consume, s);
    for (int i = 0; i < WORKERS; i++)
        CHECK_INT(joined(co[i]), MODUS_CLOSED);
    CHECK_INT(atomic_load(&s->count), ITEMS);
    return modus_participant_leave(s->arena);
}

static int child_queue(void *argument)
{
    struct shared *s = argument;

    CHECK(modus_participant_join(s->arena) > 0);
    for (uint64_t i = 0; i < ITEMS; i++)
        CHECK_INT(modus_queue_put(&s->queue, &(uint64_t){1}, MODUS_FOREVER), 0);
    CHECK_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
    return modus_participant_leave(s->arena);
}

static void test_queue(void **state)
{
    (void)state;
    run_both(main_queue, child_queue);
}

/* Coroutines of one process put, those of another get. */
static int put_all(void *argument)
{
    struct shared *s = argument;

    for (uint64_t i = 0; i < ITEMS / WORKERS; i++)
        CHECK_INT(modus_queue_put(&s->queue, &(uint64_t){1}, MODUS_FOREVER), 0);
    return 0;
}

static int produce(void *argument)
{
    struct shared *s = argument;
    struct modus_co *co[WORKERS];

    CHECK(modus_participant_join(s->arena) > 0);
    for (int i = 0; i < WORKERS; i++)
        co[i] = go(put_all, s);
    for (int i = 0; i < WORKERS; i++)
        CHECK_INT(joined(co[i]), 0);
    CHECK_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
    return modus_participant_leave(s->arena);
}

static int child_produce(void *argument)
{
    return modus_co_run(produce, argument);
}

static void test_queue_of_coroutines(void **state)
{
    (void)state;
    run_both(main_queue, child_produce);
}

static int take_permits(void *argument)
{
    struct shared *s = argument;

    for (int i = 0; i < ROUNDS / WORKERS; i++) {
        CHECK_INT(modus_sem_acquire(&s->sem, MODUS_FOREVER), 0);
        CHECK(atomic_fetch_add(&s->inside, 1) < 2);
        if (i % 3 == 0)
            modus_co_yield();
        atomic_fetch_sub(&s->inside, 1);
        CHECK_INT(modus_sem_release(&s->sem, 1), 0);
    }
    return 0;
}

static int main_sem(void *argument)
{
    struct shared *s = argument;
    struct modus_co *co[WORKERS];

    for (int i = 0; i < WORKERS; i++)
        co[i] = go(take_permits, s);
    if (!atomic_exchange(&s->count, 1))
        CHECK_INT(modus_sem_release(&s->sem, 2), 0);
    for (int i = 0; i < WORKERS; i++)
        CHECK_INT(joined(co[i]), 0);
    return 0;
}

static int child_sem(void *argument)
{
    return modus_co_run(main_sem, argument);
}

static void test_sem(void **state)
{
    (void)state;
    run_both(main_sem, child_sem);
}

/* --- locks and conditions ---------------------------------------------------------------------- */

static int add_under_lock(void *argument)
{
    struct shared *s = argument;

    for (int i = 0; i < ROUNDS / WORKERS; i++) {
        CHECK_INT(modus_lock_acquire(&s->lock, MODUS_FOREVER), 0);
        CHECK(modus_lock_mine(&s->lock));
        CHECK_INT(modus_lock_acquire(&s->lock, modus_ms(1)), -EDEADLK);
        CHECK_INT(atomic_fetch_add(&s->inside, 1), 0);
        if (i % 3 == 0 && modus_co_self())
            modus_co_yield(); /* another coroutine of this thread may want it */
        int before = atomic_load_explicit(&s->count, memory_order_relaxed);
        atomic_store_explicit(&s->count, before + 1, memory_order_relaxed);
        CHECK_INT(atomic_fetch_sub(&s->inside, 1), 1);
        CHECK_INT(modus_lock_release(&s->lock), 0);
        CHECK_INT(modus_lock_release(&s->lock), -EPERM);
    }
    return 0;
}

static int main_lock(void *argument)
{
    struct modus_co *co[WORKERS];

    for (int i = 0; i < WORKERS; i++)
        co[i] = go(add_under_lock, argument);
    for (int i = 0; i < WORKERS; i++)
        CHECK_INT(joined(co[i]), 0);
    return 0;
}

static int child_lock(void *argument)
{
    return modus_co_run(main_lock, argument);
}

static void *thread_lock(void *argument)
{
    CHECK_INT(add_under_lock(argument), 0);
    return NULL;
}

static int child_threads(void *argument)
{
    pthread_t one = start_thread(thread_lock, argument);

    add_under_lock(argument);
    join_thread(one);
    return 0;
}

/* Coroutines of two processes and two threads of a third. */
static void test_lock(void **state)
{
    struct shared *s = open_shared();
    (void)state;

    pid_t first = start_child(child_lock, s), second = start_child(child_threads, s);
    assert_int_equal(modus_co_run(main_lock, s), 0);
    assert_int_equal(reap(first), 0);
    assert_int_equal(reap(second), 0);
    assert_int_equal(atomic_load(&s->count), (2 * WORKERS + 2) * (ROUNDS / WORKERS));
    close_shared(s);
}

/* The coroutine holds it over a wait; another of the thread wants it, in vain for a time. */
static int want_lock(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_lock_try(&s->lock), -EAGAIN);
    CHECK_INT(modus_lock_acquire(&s->lock, modus_ms(5)), -ETIMEDOUT);
    CHECK_INT(modus_lock_release(&s->lock), -EPERM);
    CHECK_INT(modus_lock_acquire(&s->lock, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(&s->lock), 0);
    return 0;
}

static int main_hold(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_lock_acquire(&s->lock, MODUS_FOREVER), 0);
    struct modus_co *co = go(want_lock, s);
    CHECK_INT(modus_co_sleep(modus_ms(20)), 0);
    modus_co_cancel(co); /* a lock's wait does not mind */
    CHECK_INT(modus_co_sleep(modus_ms(2)), 0);
    CHECK_INT(modus_lock_release(&s->lock), 0);
    CHECK_INT(joined(co), 0);
    return 0;
}

static void test_lock_held_over_a_wait(void **state)
{
    (void)state;
    run_both(main_hold, NULL);
}

static bool is_there(void *argument)
{
    return atomic_load(&((struct shared *)argument)->count) > 0;
}

static int wait_for_cond(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_lock_acquire(&s->lock, MODUS_FOREVER), 0);
    int rc = modus_cond_wait_for(&s->cond, is_there, s, MODUS_FOREVER);
    if (rc == 0)
        atomic_fetch_sub(&s->count, 1);
    CHECK_INT(modus_lock_release(&s->lock), 0);
    return rc;
}

static int main_cond(void *argument)
{
    struct modus_co *co[WORKERS];

    for (int i = 0; i < WORKERS; i++)
        co[i] = go(wait_for_cond, argument);
    for (int i = 0; i < WORKERS; i++)
        CHECK_INT(joined(co[i]), 0);
    return 0;
}

static int child_cond(void *argument)
{
    struct shared *s = argument;

    for (int i = 0; i < WORKERS; i++) {
        CHECK_INT(modus_lock_acquire(&s->lock, MODUS_FOREVER), 0);
        atomic_fetch_add(&s->count, 1);
        CHECK(modus_cond_notify(&s->cond, 1) >= 0);
        CHECK_INT(modus_lock_release(&s->lock), 0);
        usleep(500);
    }
    return 0;
}

static void test_cond(void **state)
{
    (void)state;
    run_both(main_cond, child_cond);
}

/* --- cancelling -------------------------------------------------------------------------------- */

static int main_cancel(void *argument)
{
    struct shared *s = argument;
    struct modus_co *co = go(wait_for_event, s), *other = go(wait_for_event, s);

    CHECK_INT(modus_co_sleep(modus_ms(3)), 0);
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    co = go(wait_for_cond, s);
    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    modus_event_set(&s->event); /* from here it takes the same way */
    CHECK_INT(joined(other), 0);
    return 0;
}

static void test_cancel(void **state)
{
    (void)state;
    run_both(main_cancel, NULL);
}

/* A permit that comes while a coroutine gives up must not be lost: a thread elsewhere wants it. */
static int give_up(void *argument)
{
    struct shared *s = argument;
    int rc = modus_sem_acquire(&s->sem, modus_ms(1));

    return rc == 0 ? modus_sem_release(&s->sem, 1) : rc;
}

static int main_give_up(void *argument)
{
    for (int i = 0; i < (SLOW ? 40 : 200); i++) {
        struct modus_co *co = go(give_up, argument);
        int rc = joined(co);

        CHECK(rc == 0 || rc == -ETIMEDOUT);
    }
    return 0;
}

static int child_pass(void *argument)
{
    struct shared *s = argument;

    for (int i = 0; i < (SLOW ? 20 : 120); i++) {
        CHECK_INT(modus_sem_acquire(&s->sem, MODUS_FOREVER), 0);
        usleep(900 + (unsigned)(i * 37 % 200));
        CHECK_INT(modus_sem_release(&s->sem, 1), 0);
    }
    return 0;
}

static void test_giving_up(void **state)
{
    struct shared *s = open_shared();
    (void)state;

    pid_t one = start_child(child_pass, s), two = start_child(child_pass, s);
    assert_int_equal(modus_sem_release(&s->sem, 1), 0);
    assert_int_equal(modus_co_run(main_give_up, s), 0);
    assert_int_equal(reap(one), 0);
    assert_int_equal(reap(two), 0);
    close_shared(s);
}

/* --- deaths ------------------------------------------------------------------------------------ */

static int hold_and_die(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_lock_acquire(&s->lock, MODUS_FOREVER), 0);
    modus_event_set(&s->back);
    pause();
    return 1;
}

static int inherit_lock(void *argument)
{
    struct shared *s = argument;
    int rc = modus_lock_acquire(&s->lock, MODUS_FOREVER);

    CHECK_INT(modus_lock_consistent(&s->lock), 0);
    CHECK_INT(modus_lock_release(&s->lock), 0);
    return rc;
}

static pid_t victim;

static int main_owner_dies(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_event_wait(&s->back, MODUS_FOREVER), 0);
    struct modus_co *co = go(inherit_lock, s);
    CHECK_INT(modus_co_sleep(modus_ms(5)), 0);
    CHECK_INT(modus_co_join(co, 0, NULL), -EAGAIN);
    kill_child(victim);
    CHECK_INT(joined(co), MODUS_OWNERDEAD);
    return 0;
}

static void test_owner_dies(void **state)
{
    struct shared *s = open_shared();
    (void)state;

    victim = start_child(hold_and_die, s);
    assert_int_equal(modus_co_run(main_owner_dies, s), 0);
    close_shared(s);
}

/* Who has been woken for a lock is killed at whatever moment, perhaps before it has taken it, perhaps
 * after somebody has overtaken it: the others go on, once the death is buried. */
static int want_and_let(void *argument)
{
    struct shared *s = argument;

    for (;;) {
        CHECK(modus_lock_acquire(&s->lock, MODUS_FOREVER) >= 0);
        modus_lock_consistent(&s->lock);
        CHECK_INT(modus_lock_release(&s->lock), 0);
    }
}

static int coroutine_wants(void *argument)
{
    return modus_co_run(want_and_let, argument);
}

static int thread_wants(void *argument)
{
    struct shared *s = argument;

    while (atomic_load(&s->inside) == 0) {
        CHECK(modus_lock_acquire(&s->lock, MODUS_FOREVER) >= 0);
        modus_lock_consistent(&s->lock);
        usleep(100);
        CHECK_INT(modus_lock_release(&s->lock), 0);
        atomic_fetch_add(&s->count, 1);
    }
    return 0;
}

static void test_woken_one_dies(void **state)
{
    struct shared *s = open_shared();
    (void)state;

    pid_t stays[2] = {start_child(thread_wants, s), start_child(thread_wants, s)};
    for (unsigned i = 0; i < (SLOW ? 20 : 80); i++) {
        pid_t killed = start_child(i % 2 ? coroutine_wants : want_and_let, s);

        usleep(2000 + i * 131 % 1000);
        kill_child(killed);
        modus_participant_bury(s->arena, killed);
        int before = atomic_load(&s->count);
        AWAIT(atomic_load(&s->count) > before); /* they go on */
    }
    atomic_store(&s->inside, 1);
    assert_int_equal(reap(stays[0]), 0);
    assert_int_equal(reap(stays[1]), 0);
    close_shared(s);
}

/* A wake-up that dies with its carrier: the death, once buried, wakes all who watch the epoch. */
static int wait_and_see(void *argument)
{
    struct shared *s = argument;
    struct modus_watch watch;

    modus_watch_look(&watch, s);
    CHECK_INT(modus_park(MODUS_PROCESS, (_Atomic uint32_t *)&s->tid, 7, MODUS_FOREVER, &watch), 0);
    return 0;
}

static int main_bury(void *argument)
{
    struct shared *s = argument;

    atomic_store(&s->tid, 7);
    struct modus_co *co = go(wait_and_see, s), *other = go(wait_for_event, s);
    CHECK_INT(modus_co_sleep(modus_ms(5)), 0);
    CHECK_INT(modus_co_join(co, 0, NULL), -EAGAIN);
    kill_child(victim);
    CHECK_INT(modus_participant_bury(s->arena, victim), 1);
    CHECK_INT(joined(co), 0);
    modus_event_set(&s->event);
    CHECK_INT(joined(other), 0);
    return 0;
}

static int join_and_pause(void *argument)
{
    struct shared *s = argument;

    CHECK(modus_participant_join(s->arena) > 0);
    modus_event_set(&s->back);
    pause();
    return 1;
}

static void test_epoch(void **state)
{
    struct shared *s = open_shared();
    (void)state;

    victim = start_child(join_and_pause, s);
    assert_int_equal(modus_event_wait(&s->back, MODUS_FOREVER), 0);
    assert_int_equal(modus_co_run(main_bury, s), 0);
    close_shared(s);
}

/* Outside of any arena nobody tells of deaths: who waits looks again within a second or so. */
static int look_again(void *argument)
{
    _Atomic uint32_t *word = argument;

    CHECK_INT(modus_park(MODUS_PROCESS, word, 1, modus_now_ns() + modus_ms(2), NULL), -ETIMEDOUT);
    while (atomic_load(word) == 1)
        CHECK_INT(modus_park(MODUS_PROCESS, word, 1, MODUS_FOREVER, NULL), 0);
    return 0;
}

static int change_silently(void *argument)
{
    struct modus_co *co = go(look_again, argument);

    CHECK_INT(modus_co_sleep(modus_ms(5)), 0);
    atomic_store((_Atomic uint32_t *)argument, 2); /* and die before waking anybody */
    CHECK_INT(joined(co), 0);
    return 0;
}

static void test_outside_of_arenas(void **state)
{
    _Atomic uint32_t word = 1;
    (void)state;

    assert_int_equal(modus_co_run(change_silently, &word), 0);
}

/* Consumers in coroutines of another process are killed; whatever was put is got, but for at most
 * what was in their hands. */
static int consume_for_ever(void *argument)
{
    struct shared *s = argument;

    CHECK(modus_participant_join(s->arena) > 0);
    for (int i = 0; i < WORKERS; i++)
        CHECK_INT(modus_co_start(NULL, NULL, consume, s), 0);
    return 0;
}

static int child_consumes(void *argument)
{
    return modus_co_run(consume_for_ever, argument);
}

static void test_consumers_die(void **state)
{
    struct shared *s = open_shared();
    int kills = SLOW ? 10 : 25;
    uint64_t put = 0;
    (void)state;

    assert_true(modus_participant_join(s->arena) > 0);
    for (int i = 0; i < kills; i++) {
        pid_t consumer = start_child(child_consumes, s);

        for (int j = 0; j < 50; j++, put++)
            CHECK_INT(modus_queue_put(&s->queue, &(uint64_t){1}, MODUS_FOREVER), 0);
        kill_child(consumer);
        CHECK(modus_participant_bury(s->arena, consumer) <= 1);
    }
    pid_t last = start_child(child_consumes, s);
    AWAIT(modus_queue_len(&s->queue) == 0);
    CHECK_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
    assert_int_equal(reap(last), 0);
    modus_participant_bury(s->arena, last);
    assert_in_range(atomic_load(&s->count), put - (uint64_t)kills * WORKERS, put);
    assert_int_equal(modus_participant_leave(s->arena), 0);
    close_shared(s);
}

/* --- idling ------------------------------------------------------------------------------------ */

static long switches(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
}

static int main_idle(void *argument)
{
    struct shared *s = argument;
    struct modus_co *co[WORKERS];

    for (int i = 0; i < WORKERS; i++)
        co[i] = go(wait_for_event, s);
    CHECK_INT(modus_co_sleep(modus_ms(20)), 0);
    long before = switches();
    CHECK_INT(modus_co_sleep(modus_ms(800)), 0);
    CHECK(SLOW || switches() - before <= 5); /* the sleep's own; a sanitizer has threads, too */
    modus_event_set(&s->event);
    for (int i = 0; i < WORKERS; i++)
        CHECK_INT(joined(co[i]), 0);
    return 0;
}

static void test_idle(void **state)
{
    (void)state;
    run_both(main_idle, NULL);
}

/* --- forks ------------------------------------------------------------------------------------- */

/* A child forked by a coroutine is a thread: its waits block, and it is woken. */
static struct modus_event private_event = MODUS_EVENT_INIT;

static void *set_private(void *argument)
{
    usleep(2000);
    modus_event_set(&private_event);
    return argument;
}

static int child_of_coroutine(void *argument)
{
    struct shared *s = argument;

    CHECK(modus_co_self() == NULL);
    CHECK_INT(modus_event_wait(&s->more[0], modus_ms(3)), -ETIMEDOUT);
    CHECK_INT(modus_event_wait(&private_event, modus_ms(3)), -ETIMEDOUT);
    pthread_t setter = start_thread(set_private, NULL);
    CHECK_INT(modus_event_wait(&private_event, MODUS_FOREVER), 0);
    join_thread(setter);
    CHECK_INT(modus_lock_acquire(&s->lock, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(&s->lock), 0);
    CHECK_INT(modus_co_run(pong, s), 0); /* and it may have a loop of its own */
    return 0;
}

static int wait_for_private(void *argument)
{
    (void)argument;
    return modus_event_wait(&private_event, MODUS_FOREVER);
}

static int fork_and_return(void *argument)
{
    pid_t parent = getpid(), child;

    fflush(NULL);
    CHECK((child = fork()) >= 0);
    if (getpid() != parent)
        return 23; /* into a loop that is not there */
    CHECK_INT(reap(child), 23);
    return argument != NULL;
}

static int main_fork(void *argument)
{
    struct shared *s = argument;
    struct modus_co *waiter = go(wait_for_private, NULL), *shared_one = go(wait_for_event, s);

    CHECK_INT(modus_co_sleep(modus_ms(2)), 0); /* so that there is a lot and a proxy to forget */
    pid_t child = start_child(child_of_coroutine, s);
    CHECK_INT(main_ping(s), 0);
    CHECK_INT(reap(child), 0);
    CHECK_INT(joined(go(fork_and_return, NULL)), 0);
    modus_event_set(&private_event);
    modus_event_set(&s->event);
    CHECK_INT(joined(waiter), 0);
    CHECK_INT(joined(shared_one), 0);
    return 0;
}

static void test_fork(void **state)
{
    (void)state;
    run_both(main_fork, NULL);
}

/* --- without futex_waitv ----------------------------------------------------------------------- */

static int forbid_futex_waitv(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 449, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                   prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0
               ? 0
               : -1;
}

static int child_without(void *argument)
{
    struct shared *s = argument;

    if (forbid_futex_waitv() < 0)
        return 77;
    pid_t other = start_child(child_event, s);
    CHECK_INT(modus_co_run(main_event, s), 0);
    CHECK_INT(reap(other), 0);
    modus_event_clear(&s->event);
    modus_event_clear(&s->back);
    other = start_child(child_pong, s);
    CHECK_INT(modus_co_run(main_ping, s), 0);
    CHECK_INT(reap(other), 0);
    CHECK_INT(modus_co_run(main_lock, s), 0);
    atomic_store(&s->count, 0);
    CHECK_INT(modus_co_run(main_cancel, s), 0);
    return 0;
}

static void test_without_futex_waitv(void **state)
{
    struct shared *s = open_shared();
    (void)state;

    int rc = reap(start_child(child_without, s));
    close_shared(s);
    if (rc == 77)
        skip();
    assert_int_equal(rc, 0);
}

/* --- several coroutines, one participant ------------------------------------------------------ */

struct table {
    struct modus_arena *arena;
    pid_t other;
};

static int stop_in_join(void *argument)
{
    struct table *table = argument;

    modus_fault_plan(MODUS_FAULT_JOIN_HELD, MODUS_FAULT_STOP, 1);
    CHECK(modus_participant_join(table->arena) > 0);
    CHECK_INT(modus_participant_leave(table->arena), 0);
    return 0;
}

/* Another process has the registry in its hands, until go_on. */
static void stop_other(struct table *table)
{
    int status = 0;

    table->other = start_child(stop_in_join, table);
    CHECK_INT(waitpid(table->other, &status, WUNTRACED), table->other);
    CHECK(WIFSTOPPED(status));
}

static int co_join_arena(void *argument)
{
    return modus_participant_join(((struct table *)argument)->arena);
}

static int co_leave_arena(void *argument)
{
    return modus_participant_leave(((struct table *)argument)->arena);
}

/* Its turn comes when those that started before it sleep. */
static int co_go_on(void *argument)
{
    kill(((struct table *)argument)->other, SIGCONT);
    return 0;
}

/* Two coroutines of the thread come to the registry while it is not free. */
static int main_join_and_leave(void *argument)
{
    struct table *table = argument;
    struct modus_co *co[3];

    stop_other(table);
    co[0] = go(co_join_arena, table), co[1] = go(co_join_arena, table), co[2] = go(co_go_on, table);
    int id = joined(co[0]);
    CHECK(id > 0);
    CHECK_INT(joined(co[1]), id);
    CHECK_INT(joined(co[2]), 0);
    CHECK_INT(reap(table->other), 0);

    stop_other(table);
    co[0] = go(co_leave_arena, table), co[1] = go(co_leave_arena, table);
    co[2] = go(co_go_on, table);
    CHECK_INT(joined(co[0]) + joined(co[1]), -EPERM); /* and the other one's is 0 */
    CHECK_INT(joined(co[2]), 0);
    CHECK_INT(reap(table->other), 0);
    return 0;
}

static void test_one_participant(void **state)
{
    struct table table = {0};
    struct modus_participant found;
    (void)state;

    assert_int_equal(modus_arena_open(&table.arena, 1 << 20, 4), 0);
    assert_int_equal(modus_co_run(main_join_and_leave, &table), 0);
    for (int id = 1; id <= 4; id++)
        assert_int_equal(modus_participant_look(table.arena, id, &found), -EAGAIN);
    assert_int_equal(modus_arena_close(table.arena), 0);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_event),
        TEST(test_ping_pong),
        TEST(test_many_words),
        TEST(test_queue),
        TEST(test_queue_of_coroutines),
        TEST(test_sem),
        TEST(test_lock),
        TEST(test_lock_held_over_a_wait),
        TEST(test_cond),
        TEST(test_cancel),
        TEST(test_giving_up),
        TEST(test_owner_dies),
        TEST(test_woken_one_dies),
        TEST(test_epoch),
        TEST(test_outside_of_arenas),
        TEST(test_consumers_die),
        TEST(test_idle),
        TEST(test_fork),
        TEST(test_one_participant),
        TEST(test_without_futex_waitv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
