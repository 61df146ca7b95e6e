/* SPDX-License-Identifier: MIT */
/* The lock: ownership errors, times, mutual exclusion, hand-over, and owners that die. */
#include "test_concurrency.h"

#include "concurrency/barrier.h"
#include "concurrency/fault.h"
#include "concurrency/lock.h"
#include "concurrency/queue.h"
#include "concurrency/rlock.h"

#include <limits.h>
#include <sched.h>

static enum modus_scope both_scopes[] = {MODUS_THREAD, MODUS_PROCESS};
static struct modus_arena *arena;

static struct modus_lock *new_lock(enum modus_scope scope)
{
    struct modus_lock *lock = modus_arena_alloc(arena, sizeof *lock, 0);

    CHECK(lock);
    CHECK_INT(modus_lock_init(lock, scope), 0);
    return lock;
}

static void end_lock(struct modus_lock *lock)
{
    modus_lock_fini(lock);
    CHECK_INT(modus_arena_free(arena, lock, sizeof *lock), 0);
}

static void test_not_started(void **state)
{
    struct modus_lock lock = {0};
    (void)state;

    assert_int_equal(modus_lock_acquire(&lock, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_lock_try(&lock), -EINVAL);
    assert_int_equal(modus_lock_release(&lock), -EINVAL);
    assert_false(modus_lock_mine(&lock));
    modus_lock_fini(&lock);
    assert_int_equal(modus_lock_init(&lock, (enum modus_scope)7), -EINVAL);
    assert_int_equal(modus_lock_init(&lock, MODUS_THREAD), 0);
    assert_int_equal(modus_lock_set_repair(&lock, NULL, NULL), -EINVAL);
    assert_int_equal(modus_lock_consistent(&lock), -EINVAL);
    assert_false(modus_lock_poisoned(&lock));
    modus_lock_fini(&lock);
}

static void test_owned(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_lock *lock = new_lock(both_scopes[i]);

        assert_int_equal(modus_lock_release(lock), -EPERM);
        assert_int_equal(modus_lock_acquire(lock, -2), -EINVAL);
        assert_int_equal(modus_lock_acquire_until(lock, -2), -EINVAL);
        assert_int_equal(modus_lock_acquire(lock, MODUS_FOREVER), 0);
        assert_true(modus_lock_mine(lock));
        assert_int_equal(modus_lock_acquire(lock, MODUS_FOREVER), -EDEADLK);
        assert_int_equal(modus_lock_acquire(lock, modus_ms(1)), -EDEADLK);
        assert_int_equal(modus_lock_try(lock), -EDEADLK);
        assert_int_equal(modus_lock_release(lock), 0);
        assert_false(modus_lock_mine(lock));
        assert_int_equal(modus_lock_release(lock), -EPERM);
        assert_int_equal(modus_lock_acquire_until(lock, 0), 0);
        assert_int_equal(modus_lock_release(lock), 0);
        end_lock(lock);
    }
}

static struct modus_lock static_lock = MODUS_LOCK_INIT;

static int hold_and_leave(bool early)
{
    MODUS_HOLD(held, &static_lock, MODUS_FOREVER);
    if (held.result < 0)
        return held.result;
    if (early)
        return 1;
    return modus_lock_mine(&static_lock) ? 2 : 3;
}

static void test_hold_releases_on_every_path(void **state)
{
    (void)state;
    assert_int_equal(hold_and_leave(true), 1);
    assert_false(modus_lock_mine(&static_lock));
    assert_int_equal(hold_and_leave(false), 2);
    assert_false(modus_lock_mine(&static_lock));
    assert_int_equal(modus_lock_acquire(&static_lock, 0), 0);
    assert_int_equal(hold_and_leave(false), -EDEADLK);
    assert_true(modus_lock_mine(&static_lock)); /* a failed hold releases nothing */
    assert_int_equal(modus_lock_release(&static_lock), 0);
}

/* Another thread's view of a held lock. */
static void *try_foreign(void *argument)
{
    struct modus_lock *lock = argument;
    int64_t start = modus_now_ns();

    CHECK_INT(modus_lock_try(lock), -EAGAIN);
    CHECK_INT(modus_lock_release(lock), -EPERM);
    CHECK(!modus_lock_mine(lock));
    CHECK_INT(modus_lock_acquire(lock, modus_ms(20)), -ETIMEDOUT);
    CHECK(modus_now_ns() - start >= modus_ms(20));
    CHECK_INT(modus_lock_acquire_until(lock, modus_now_ns() - 1), -ETIMEDOUT);
    return NULL;
}

static void test_foreign(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_lock *lock = new_lock(both_scopes[i]);

        assert_int_equal(modus_lock_acquire(lock, MODUS_FOREVER), 0);
        join_thread(start_thread(try_foreign, lock));
        assert_true(modus_lock_mine(lock));
        assert_int_equal(modus_lock_release(lock), 0);
        end_lock(lock);
    }
}

struct counting {
    struct modus_lock *lock;
    long balance, rounds;
};

static void *count(void *argument)
{
    struct counting *counting = argument;

    for (long i = 0; i < counting->rounds; i++) {
        /* Times mixed in: the paths of sleepers and heirs that give up. */
        int64_t ns = i % 3 == 0 ? modus_us(50) : MODUS_FOREVER;
        int rc;

        while ((rc = modus_lock_acquire(counting->lock, ns)) == -ETIMEDOUT)
            ;
        CHECK_INT(rc, 0);
        counting->balance += 5;
        if (i % 1000 == 0)
            sched_yield();
        counting->balance -= 4;
        CHECK_INT(modus_lock_release(counting->lock), 0);
    }
    return NULL;
}

/* Provokes: all interleavings of acquire, timed acquire and release by 4 threads on 2 CPUs. Must
 * hold: no update is lost. */
static void test_excludes(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct counting counting = {new_lock(both_scopes[i]), 0, SLOW ? 5000 : 100000};
        pthread_t threads[4];

        for (int t = 0; t < 4; t++)
            threads[t] = start_thread(count, &counting);
        for (int t = 0; t < 4; t++)
            join_thread(threads[t]);
        assert_int_equal(counting.balance, 4 * counting.rounds);
        assert_int_equal(modus_lock_try(counting.lock), 0);
        assert_int_equal(modus_lock_release(counting.lock), 0);
        end_lock(counting.lock);
    }
}

struct sleeper {
    struct modus_lock *lock;
    _Atomic int tid;
};

static void *take_and_give(void *argument)
{
    struct sleeper *sleeper = argument;

    atomic_store(&sleeper->tid, gettid());
    CHECK_INT(modus_lock_acquire(sleeper->lock, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(sleeper->lock), 0);
    return NULL;
}

/* Each sleeper wakes the next; nobody else comes by. */
static void test_sleepers_in_a_row(void **state)
{
    struct sleeper sleepers[5];
    pthread_t threads[5];
    (void)state;

    for (int s = 0; s < 2; s++) {
        struct modus_lock *lock = new_lock(both_scopes[s]);

        assert_int_equal(modus_lock_acquire(lock, MODUS_FOREVER), 0);
        for (int i = 0; i < 5; i++) {
            sleepers[i].lock = lock;
            atomic_store(&sleepers[i].tid, 0);
            threads[i] = start_thread(take_and_give, &sleepers[i]);
            AWAIT(atomic_load(&sleepers[i].tid));
            AWAIT_ASLEEP(atomic_load(&sleepers[i].tid));
        }
        assert_int_equal(modus_lock_release(lock), 0);
        for (int i = 0; i < 5; i++)
            join_thread(threads[i]);
        end_lock(lock);
    }
}

struct starving {
    struct modus_lock *lock;
    int64_t hold_ns;
    _Atomic bool stop;
    _Atomic long holds, given_up;
};

/* Releases and takes again at once, so a woken sleeper is nearly always too late. */
static void *hog(void *argument)
{
    struct starving *starving = argument;

    while (!atomic_load(&starving->stop)) {
        CHECK_INT(modus_lock_acquire(starving->lock, MODUS_FOREVER), 0);
        for (int64_t until = modus_now_ns() + starving->hold_ns; modus_now_ns() < until;)
            ;
        atomic_fetch_add(&starving->holds, 1);
        CHECK_INT(modus_lock_release(starving->lock), 0);
    }
    return NULL;
}

/* Both on one CPU, the sleeper as a batch job so that waking it does not preempt the hog: when it
 * gets to run, the hog's time slice is over, nearly always while it holds the lock. Must hold: the
 * sleeper, having waited 1 ms, gets the lock handed over; without that this test does not end. */
static void test_hand_over(void **state)
{
    struct starving starving = {.lock = new_lock(MODUS_THREAD), .hold_ns = modus_us(20)};
    cpu_set_t all, one;
    (void)state;

    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    modus_fault_plan(MODUS_FAULT_LOCK_GRANTING, MODUS_FAULT_DELAY, UINT_MAX); /* only counts */
    pthread_t thread = start_thread(hog, &starving);                          /* on our CPU */
    CHECK_INT(sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}), 0);
    while (modus_fault_passed() < 5) {
        long before = atomic_load(&starving.holds);
        AWAIT(atomic_load(&starving.holds) > before + 1);
        assert_int_equal(modus_lock_acquire(starving.lock, MODUS_FOREVER), 0);
        assert_int_equal(modus_lock_release(starving.lock), 0);
    }
    atomic_store(&starving.stop, true);
    join_thread(thread);
    modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DELAY, 0);
    CHECK_INT(sched_setaffinity(0, sizeof all, &all), 0);
    CHECK_INT(sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0}), 0);
    end_lock(starving.lock);
}

/* Heirs that give up while a release hands over to them: a lock handed to one that has gone would
 * stay locked for ever. The delay stretches the moment. */
static void *give_up(void *argument)
{
    struct starving *starving = argument;

    while (!atomic_load(&starving->stop)) {
        int rc = modus_lock_acquire(starving->lock, modus_us(1000 + modus_now_ns() % 2000));

        CHECK(rc == 0 || rc == -ETIMEDOUT);
        if (rc == 0)
            CHECK_INT(modus_lock_release(starving->lock), 0);
        else
            atomic_fetch_add(&starving->given_up, 1);
    }
    return NULL;
}

static void test_heirs_give_up(void **state)
{
    struct starving starving = {.lock = new_lock(MODUS_THREAD), .hold_ns = modus_us(300)};
    (void)state;

    modus_fault_plan(MODUS_FAULT_LOCK_GRANTING, MODUS_FAULT_DELAY, 0);
    pthread_t threads[5] = {start_thread(hog, &starving), start_thread(hog, &starving),
                            start_thread(give_up, &starving), start_thread(give_up, &starving),
                            start_thread(give_up, &starving)};
    AWAIT(atomic_load(&starving.given_up) > 300);
    atomic_store(&starving.stop, true);
    for (int i = 0; i < 5; i++)
        join_thread(threads[i]);
    modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DELAY, 0);
    assert_int_equal(modus_lock_acquire(starving.lock, 0), 0);
    assert_int_equal(modus_lock_release(starving.lock), 0);
    end_lock(starving.lock);
}

static void *time_out(void *lock)
{
    CHECK_INT(modus_lock_acquire(lock, modus_ms(1)), -ETIMEDOUT);
    return NULL;
}

/* Wakes the sleeper without reason as soon as the release is past its look for an heir. */
static void *disturb(void *argument)
{
    struct modus_lock *lock = argument;

    while (modus_fault_passed() == 0)
        ;
    modus_unpark(MODUS_THREAD, &lock->word, 1);
    return NULL;
}

/* A sleeper becomes the heir while a release, which has seen none, is about to give the lock up: it
 * must be told to try again, since nobody else comes by. */
static void test_heir_comes_late(void **state)
{
    struct sleeper sleeper = {.lock = new_lock(MODUS_THREAD)};
    (void)state;

    assert_int_equal(modus_lock_acquire(sleeper.lock, MODUS_FOREVER), 0);
    join_thread(start_thread(time_out, sleeper.lock)); /* its mark stays */
    pthread_t thread = start_thread(take_and_give, &sleeper);
    AWAIT(atomic_load(&sleeper.tid));
    AWAIT_ASLEEP(atomic_load(&sleeper.tid));
    usleep(2000); /* it must have waited 1 ms */
    modus_fault_plan(MODUS_FAULT_LOCK_PASSED, MODUS_FAULT_DELAY, 1);
    pthread_t disturber = start_thread(disturb, sleeper.lock);
    assert_int_equal(modus_lock_release(sleeper.lock), 0);
    join_thread(disturber);
    join_thread(thread);
    modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DELAY, 0);
    end_lock(sleeper.lock);
}

/* --- between processes ----------------------------------------------------------------------- */

struct shared {
    struct modus_lock lock;
    long balance;
    _Atomic int ready;
};

static struct shared *new_shared(void)
{
    struct shared *shared = modus_arena_alloc(arena, sizeof *shared, 0);

    CHECK(shared);
    CHECK_INT(modus_lock_init(&shared->lock, MODUS_PROCESS), 0);
    return shared;
}

static int count_in_child(void *argument)
{
    struct shared *shared = argument;

    for (int i = 0; i < 20000; i++) {
        CHECK_INT(modus_lock_acquire(&shared->lock, MODUS_FOREVER), 0);
        shared->balance++;
        CHECK_INT(modus_lock_release(&shared->lock), 0);
    }
    return 0;
}

static void test_excludes_processes(void **state)
{
    struct shared *shared = new_shared();
    pid_t pids[3];
    (void)state;

    for (int i = 0; i < 3; i++)
        pids[i] = start_child(count_in_child, shared);
    for (int i = 0; i < 3; i++)
        assert_int_equal(reap(pids[i]), 0);
    assert_int_equal(shared->balance, 60000);
}

static int hold_for_ever(void *argument)
{
    struct shared *shared = argument;
    int rc = modus_lock_acquire(&shared->lock, MODUS_FOREVER);

    CHECK(rc >= 0);
    shared->balance = -1; /* half a change */
    atomic_store(&shared->ready, 1);
    for (;;)
        pause();
}

static void kill_holder(struct shared *shared)
{
    atomic_store(&shared->ready, 0);
    pid_t pid = start_child(hold_for_ever, shared);
    AWAIT(atomic_load(&shared->ready));
    assert_int_equal(modus_lock_try(&shared->lock), -EAGAIN);
    kill_child(pid);
}

static void test_owner_dies(void **state)
{
    struct shared *shared = new_shared();
    (void)state;

    kill_holder(shared);
    assert_int_equal(modus_lock_acquire(&shared->lock, MODUS_FOREVER), MODUS_OWNERDEAD);
    shared->balance = 0;
    assert_int_equal(modus_lock_consistent(&shared->lock), 0);
    assert_int_equal(modus_lock_release(&shared->lock), 0);
    assert_int_equal(modus_lock_acquire(&shared->lock, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_consistent(&shared->lock), -EINVAL);
    assert_int_equal(modus_lock_release(&shared->lock), 0);
    assert_int_equal(modus_lock_consistent(&shared->lock), -EPERM);
    /* Not mended: poisoned for everybody. */
    kill_holder(shared);
    assert_int_equal(modus_lock_try(&shared->lock), MODUS_OWNERDEAD);
    assert_false(modus_lock_poisoned(&shared->lock));
    assert_int_equal(modus_lock_release(&shared->lock), 0);
    assert_int_equal(modus_lock_acquire(&shared->lock, MODUS_FOREVER), MODUS_NOTRECOVERABLE);
    assert_int_equal(modus_lock_try(&shared->lock), MODUS_NOTRECOVERABLE);
    assert_true(modus_lock_poisoned(&shared->lock));
}

static int find_poisoned(void *argument)
{
    struct shared *shared = argument;

    CHECK_INT(modus_lock_acquire(&shared->lock, MODUS_FOREVER), MODUS_NOTRECOVERABLE);
    return 0;
}

static void *try_inherited(void *argument)
{
    struct shared *shared = argument;

    CHECK_INT(modus_lock_try(&shared->lock), -EAGAIN);
    return NULL;
}

/* Whoever slept is told, one after the other, and whoever comes, however often, in whatever way. */
static void test_poisoned_for_everybody(void **state)
{
    struct shared *shared = new_shared();
    pid_t pids[3];
    (void)state;

    kill_holder(shared);
    assert_int_equal(modus_lock_acquire(&shared->lock, MODUS_FOREVER), MODUS_OWNERDEAD);
    assert_int_equal(modus_lock_try(&shared->lock), -EDEADLK);
    join_thread(start_thread(try_inherited, shared));
    for (int i = 0; i < 3; i++) {
        pids[i] = start_child(find_poisoned, shared);
        AWAIT_ASLEEP(pids[i]);
    }
    assert_int_equal(modus_lock_release(&shared->lock), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(modus_lock_try(&shared->lock), MODUS_NOTRECOVERABLE);
        assert_int_equal(modus_lock_acquire(&shared->lock, modus_ms(1)), MODUS_NOTRECOVERABLE);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(reap(pids[i]), 0);
    assert_int_equal(reap(start_child(find_poisoned, shared)), 0);
}

static int repaired;

static int repair_balance(void *context)
{
    struct shared *shared = context;

    CHECK(modus_lock_mine(&shared->lock));
    shared->balance = 0;
    return repaired++ < 2 ? 0 : -1;
}

static void test_repair(void **state)
{
    struct shared *shared = new_shared();
    (void)state;

    assert_int_equal(modus_lock_set_repair(&shared->lock, repair_balance, shared), 0);
    for (int i = 0; i < 2; i++) {
        kill_holder(shared);
        assert_int_equal(modus_lock_acquire(&shared->lock, modus_ms(500)), MODUS_OWNERDEAD);
        assert_int_equal(shared->balance, 0);
        assert_int_equal(modus_lock_release(&shared->lock), 0);
    }
    kill_holder(shared);
    assert_int_equal(modus_lock_acquire(&shared->lock, MODUS_FOREVER), MODUS_NOTRECOVERABLE);
    assert_true(modus_lock_poisoned(&shared->lock));
}

static int fork_repairing(void *context)
{
    (void)context;
    fork_in_callback();
    return 0;
}

/* Of those that return from the function, the one that called it owns the lock. */
static void test_repair_forks(void **state)
{
    struct shared *shared = new_shared();
    pid_t home = getpid();
    (void)state;

    assert_int_equal(modus_lock_set_repair(&shared->lock, fork_repairing, shared), 0);
    kill_holder(shared);
    int rc = modus_lock_acquire(&shared->lock, MODUS_FOREVER);
    end_forked(home, rc);
    assert_int_equal(rc, MODUS_OWNERDEAD);
    assert_int_equal(modus_lock_release(&shared->lock), 0);
}

static int wait_to_inherit(void *argument)
{
    struct shared *shared = argument;
    int rc = modus_lock_acquire(&shared->lock, MODUS_FOREVER);

    CHECK(rc == MODUS_OWNERDEAD || rc == 0);
    if (rc == MODUS_OWNERDEAD)
        CHECK_INT(modus_lock_consistent(&shared->lock), 0);
    CHECK_INT(modus_lock_release(&shared->lock), 0);
    return rc == MODUS_OWNERDEAD;
}

/* Sleepers, one of which is killed too: the others get the lock; exactly one is told of the death.
 */
static void test_sleepers_inherit(void **state)
{
    struct shared *shared = new_shared();
    pid_t pids[4];
    (void)state;

    pid_t holder = start_child(hold_for_ever, shared);
    AWAIT(atomic_load(&shared->ready));
    for (int i = 0; i < 4; i++) {
        pids[i] = start_child(wait_to_inherit, shared);
        AWAIT_ASLEEP(pids[i]);
    }
    kill_child(pids[0]);
    kill_child(holder);
    int told = 0;
    for (int i = 1; i < 4; i++)
        told += reap(pids[i]);
    assert_int_equal(told, 1);
    assert_int_equal(modus_lock_acquire(&shared->lock, 0), 0);
    assert_int_equal(modus_lock_release(&shared->lock), 0);
}

static int use_parents_lock(void *argument)
{
    struct shared *shared = argument;

    CHECK(!modus_lock_mine(&shared->lock));
    CHECK_INT(modus_lock_release(&shared->lock), -EPERM);
    CHECK_INT(modus_lock_try(&shared->lock), -EAGAIN);
    CHECK(!modus_lock_mine(&static_lock));
    CHECK_INT(modus_lock_release(&static_lock), -EPERM);
    return 0;
}

static void test_child_does_not_own(void **state)
{
    struct shared *shared = new_shared();
    (void)state;

    assert_int_equal(modus_lock_acquire(&shared->lock, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_acquire(&static_lock, MODUS_FOREVER), 0);
    assert_int_equal(reap(start_child(use_parents_lock, shared)), 0);
    assert_int_equal(modus_lock_release(&static_lock), 0);
    assert_int_equal(modus_lock_release(&shared->lock), 0);
}

/* --- as many as the kernel gives up ---------------------------------------------------------- */

enum { MANY = MODUS_LOCKS_MAX + 100 };

struct crowd {
    struct modus_lock locks[MANY];
    struct modus_rlock rlock;
    struct modus_barrier barrier;
    struct modus_queue queue;
    _Atomic int held;
};

static int take_all_but(struct crowd *crowd, int spared)
{
    int held = 0, rc;

    while (held < MANY - spared &&
           (rc = modus_lock_acquire(&crowd->locks[held], MODUS_FOREVER)) == 0)
        held++;
    return held;
}

static int hold_fresh(void *argument)
{
    struct crowd *crowd = argument;

    CHECK_INT(modus_lock_acquire(&crowd->locks[MANY - 2], 0), 0);
    CHECK_INT(modus_lock_release(&crowd->locks[MANY - 2]), 0);
    return 0;
}

/* It holds all that it may, as a participant too, and ends. */
static int die_with_many(void *argument)
{
    struct crowd *crowd = argument;
    struct modus_lock *one_more = &crowd->locks[MANY - 1];
    int item = 1;

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_rlock_acquire(&crowd->rlock, MODUS_FOREVER), 0);
    crowd->held = take_all_but(crowd, 10);
    CHECK_INT(crowd->held, MODUS_LOCKS_MAX - 2);
    CHECK_INT(modus_lock_acquire(one_more, MODUS_FOREVER), -EOVERFLOW);
    CHECK_INT(modus_lock_acquire(one_more, modus_ms(1)), -EOVERFLOW);
    CHECK_INT(modus_lock_acquire_until(one_more, 1), -EOVERFLOW);
    CHECK_INT(modus_lock_try(one_more), -EOVERFLOW);
    CHECK_INT(modus_lock_try(&crowd->locks[0]), -EDEADLK);
    CHECK_INT(modus_rlock_try(&crowd->rlock), 0); /* once more */
    CHECK_INT(modus_lock_try(&static_lock), 0);   /* between threads: as many as one likes */
    /* What the toolbox holds for a moment is not refused. */
    CHECK_INT(modus_barrier_wait(&crowd->barrier, MODUS_FOREVER), 0);
    CHECK_INT(modus_queue_put(&crowd->queue, &item, 0), 0);
    /* A child holds none of them. */
    CHECK_INT(reap(start_child(hold_fresh, crowd)), 0);
    /* One less, one more. */
    CHECK_INT(modus_lock_release(&crowd->locks[0]), 0);
    CHECK_INT(modus_lock_acquire(one_more, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(one_more), 0);
    CHECK_INT(modus_lock_acquire(&crowd->locks[0], MODUS_FOREVER), 0);
    return 0;
}

static int join_with_many(void *argument)
{
    struct crowd *crowd = argument;

    CHECK_INT(take_all_but(crowd, 10), MODUS_LOCKS_MAX);
    CHECK_INT(modus_participant_join(arena), -EOVERFLOW);
    CHECK_INT(modus_lock_release(&crowd->locks[0]), 0);
    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_lock_acquire(&crowd->locks[0], MODUS_FOREVER), -EOVERFLOW);
    CHECK_INT(modus_participant_leave(arena), 0);
    CHECK_INT(modus_lock_acquire(&crowd->locks[0], MODUS_FOREVER), 0);
    return 0;
}

static struct crowd *new_crowd(void)
{
    struct crowd *crowd = modus_arena_alloc(arena, sizeof *crowd, 0);

    assert_non_null(crowd);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(modus_lock_init(&crowd->locks[i], MODUS_PROCESS), 0);
    assert_int_equal(modus_rlock_init(&crowd->rlock, MODUS_PROCESS), 0);
    assert_int_equal(modus_barrier_init(&crowd->barrier,
                                        &(struct modus_barrier_attr){
                                            .scope = MODUS_PROCESS, .parties = 1, .arena = arena}),
                     0);
    assert_int_equal(
        modus_queue_init(&crowd->queue, &(struct modus_queue_attr){.scope = MODUS_PROCESS,
                                                                   .arena = arena,
                                                                   .capacity = 4,
                                                                   .item_size = sizeof(int),
                                                                   .order = MODUS_QUEUE_LIFO}),
        0);
    return crowd;
}

/* Whoever dies leaves every lock to the next one, and does not count as alive. */
static void test_dies_with_many(void **state)
{
#ifdef __SANITIZE_THREAD__
    skip(); /* its deadlock detector gives up at 64 locks of a thread */
#endif
    struct crowd *crowd = new_crowd();
    (void)state;

    pid_t pid = start_child(die_with_many, crowd);
    assert_int_equal(reap(pid), 0);
    assert_int_equal(modus_participant_bury(arena, pid), 1);
    for (int i = 0; i < crowd->held; i++) {
        assert_int_equal(modus_lock_try(&crowd->locks[i]), MODUS_OWNERDEAD);
        assert_int_equal(modus_lock_consistent(&crowd->locks[i]), 0);
        assert_int_equal(modus_lock_release(&crowd->locks[i]), 0);
    }
    assert_int_equal(modus_rlock_try(&crowd->rlock), MODUS_OWNERDEAD);
    assert_int_equal(modus_rlock_consistent(&crowd->rlock), 0);
    assert_int_equal(modus_rlock_release(&crowd->rlock), 0);
    assert_int_equal(reap(start_child(join_with_many, crowd)), 0);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, (size_t)16 << 20, 8);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_not_started, watchdog),
        cmocka_unit_test_setup(test_owned, watchdog),
        cmocka_unit_test_setup(test_hold_releases_on_every_path, watchdog),
        cmocka_unit_test_setup(test_excludes_processes, watchdog),
        cmocka_unit_test_setup(test_owner_dies, watchdog),
        cmocka_unit_test_setup(test_poisoned_for_everybody, watchdog),
        cmocka_unit_test_setup(test_repair, watchdog),
        cmocka_unit_test_setup(test_repair_forks, watchdog),
        cmocka_unit_test_setup(test_sleepers_inherit, watchdog),
        cmocka_unit_test_setup(test_child_does_not_own, watchdog),
        cmocka_unit_test_setup(test_dies_with_many, watchdog),
        cmocka_unit_test_setup(test_foreign, watchdog),
        cmocka_unit_test_setup(test_excludes, watchdog),
        cmocka_unit_test_setup(test_hand_over, watchdog),
        cmocka_unit_test_setup(test_heirs_give_up, watchdog),
        cmocka_unit_test_setup(test_heir_comes_late, watchdog),
        cmocka_unit_test_setup(test_sleepers_in_a_row, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
