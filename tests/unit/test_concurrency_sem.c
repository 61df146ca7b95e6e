/* SPDX-License-Identifier: MIT */
/* The semaphore: bounds, times, wake-ups, and permits of the dead. */
#include "test_concurrency.h"

#include "concurrency/fault.h"
#include "concurrency/lock.h"
#include "concurrency/sem.h"

#include <sched.h>

static enum modus_scope both_scopes[] = {MODUS_THREAD, MODUS_PROCESS};
static struct modus_arena *arena;

static struct modus_sem *new_sem(struct modus_sem_attr attr)
{
    struct modus_sem *sem = modus_arena_alloc(arena, sizeof *sem, 0);

    CHECK(sem);
    CHECK_INT(modus_sem_init(sem, &attr), 0);
    return sem;
}

static void test_init(void **state)
{
    struct modus_sem sem = {0};
    (void)state;

    assert_int_equal(modus_sem_acquire(&sem, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_sem_release(&sem, 1), -EINVAL);
    assert_int_equal(modus_sem_value(&sem), 0);
    modus_sem_fini(&sem);
    assert_int_equal(modus_sem_init(&sem, &(struct modus_sem_attr){.value = 1}), -EINVAL);
    assert_int_equal(
        modus_sem_init(&sem, &(struct modus_sem_attr){.scope = MODUS_THREAD, .value = 4, .max = 3}),
        -EINVAL);
    assert_int_equal(
        modus_sem_init(&sem, &(struct modus_sem_attr){.scope = MODUS_THREAD, .max = 0x80000000u}),
        -EINVAL);
    assert_int_equal(
        modus_sem_init(&sem, &(struct modus_sem_attr){.scope = MODUS_THREAD, .accounted = true}),
        -EINVAL);
    /* On the stack: no arena to find. */
    assert_int_equal(
        modus_sem_init(&sem, &(struct modus_sem_attr){.scope = MODUS_PROCESS, .accounted = true}),
        -EINVAL);
}

static void test_bounds_and_times(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct modus_sem *sem = new_sem((struct modus_sem_attr){
            .scope = both_scopes[i > 0], .value = 2, .max = 2, .accounted = i == 2});

        assert_int_equal(modus_sem_release(sem, 0), -EINVAL);
        assert_int_equal(modus_sem_release(sem, 1), i == 2 ? -EPERM : -EOVERFLOW);
        assert_int_equal(modus_sem_value(sem), 2);
        assert_int_equal(modus_sem_acquire(sem, -3), -EINVAL);
        assert_int_equal(modus_sem_acquire_until(sem, -3), -EINVAL);
        assert_int_equal(modus_sem_acquire(sem, MODUS_FOREVER), 0);
        assert_int_equal(modus_sem_acquire_until(sem, 1), 0);
        assert_int_equal(modus_sem_value(sem), 0);
        assert_int_equal(modus_sem_try(sem), -EAGAIN);
        assert_int_equal(modus_sem_acquire_until(sem, 1), -ETIMEDOUT);
        int64_t start = modus_now_ns();
        assert_int_equal(modus_sem_acquire(sem, modus_ms(15)), -ETIMEDOUT);
        assert_true(modus_now_ns() - start >= modus_ms(15));
        assert_int_equal(modus_sem_release(sem, 3), i == 2 ? -EPERM : -EOVERFLOW);
        assert_int_equal(modus_sem_value(sem), 0);
        assert_int_equal(modus_sem_release(sem, 2), 0);
        assert_int_equal(modus_sem_value(sem), 2);
        modus_sem_fini(sem);
        assert_int_equal(modus_sem_try(sem), -EINVAL);
    }
}

struct crowd {
    struct modus_sem *sem;
    long rounds;
    _Atomic int inside, most;
    _Atomic int ready[8];
};

static void pass_through(struct crowd *crowd, long round)
{
    int64_t ns = round % 4 == 0 ? modus_us(100) : MODUS_FOREVER;

    while (modus_sem_acquire(crowd->sem, ns) == -ETIMEDOUT)
        ;
    int inside = atomic_fetch_add(&crowd->inside, 1) + 1, most = atomic_load(&crowd->most);
    while (inside > most && !atomic_compare_exchange_weak(&crowd->most, &most, inside))
        ;
    if (round % 64 == 0)
        sched_yield();
    atomic_fetch_sub(&crowd->inside, 1);
    CHECK_INT(modus_sem_release(crowd->sem, 1), 0);
}

static void *be_in_crowd(void *argument)
{
    struct crowd *crowd = argument;

    for (long i = 0; i < crowd->rounds; i++)
        pass_through(crowd, i);
    return NULL;
}

static int be_in_crowd_child(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    be_in_crowd(argument);
    CHECK_INT(modus_participant_leave(arena), 0);
    return 0;
}

/* Provokes: sleepers, overtakers and timeouts around few permits. Must hold: never more inside than
 * permits, all permits back, nobody asleep for ever. */
static void test_cap_threads(void **state)
{
    struct crowd crowd = {
        .sem = new_sem((struct modus_sem_attr){.scope = MODUS_THREAD, .value = 2, .max = 2}),
        .rounds = SLOW ? 3000 : 30000};
    pthread_t threads[6];
    (void)state;

    for (int i = 0; i < 6; i++)
        threads[i] = start_thread(be_in_crowd, &crowd);
    for (int i = 0; i < 6; i++)
        join_thread(threads[i]);
    assert_in_range(crowd.most, 1, 2);
    assert_int_equal(modus_sem_value(crowd.sem), 2);
}

static void test_cap_processes(void **state)
{
    (void)state;
    for (int accounted = 0; accounted < 2; accounted++) {
        struct crowd *crowd = modus_arena_alloc(arena, sizeof *crowd, 0);
        pid_t pids[4];

        crowd->sem = new_sem((struct modus_sem_attr){
            .scope = MODUS_PROCESS, .value = 2, .max = 2, .accounted = accounted});
        crowd->rounds = SLOW ? 1000 : 5000;
        for (int i = 0; i < 4; i++)
            pids[i] = start_child(be_in_crowd_child, crowd);
        for (int i = 0; i < 4; i++)
            assert_int_equal(reap(pids[i]), 0);
        assert_in_range(crowd->most, 1, 2);
        assert_int_equal(modus_sem_value(crowd->sem), 2);
        modus_sem_fini(crowd->sem);
    }
}

struct sleeper {
    struct modus_sem *sem;
    _Atomic int tid;
};

static void *take_one(void *argument)
{
    struct sleeper *sleeper = argument;

    atomic_store(&sleeper->tid, gettid());
    CHECK_INT(modus_sem_acquire(sleeper->sem, modus_seconds(20)), 0);
    return NULL;
}

/* A release of n wakes n sleepers, in one system call, and nobody is left behind. */
static void test_release_many(void **state)
{
    struct modus_sem *sem = new_sem((struct modus_sem_attr){.scope = MODUS_THREAD});
    struct sleeper sleepers[4];
    pthread_t threads[4];
    (void)state;

    for (int i = 0; i < 4; i++) {
        sleepers[i] = (struct sleeper){.sem = sem};
        threads[i] = start_thread(take_one, &sleepers[i]);
        AWAIT(atomic_load(&sleepers[i].tid));
        AWAIT_ASLEEP(atomic_load(&sleepers[i].tid));
    }
    uint64_t before = modus_park_stats().unparks;
    assert_int_equal(modus_sem_release(sem, 3), 0);
    assert_int_equal(modus_park_stats().unparks, before + 1);
    assert_int_equal(modus_sem_release(sem, 1), 0);
    for (int i = 0; i < 4; i++)
        join_thread(threads[i]);
    assert_int_equal(modus_sem_value(sem), 0);
}

static void *take_one_idly(void *argument)
{
    CHECK_INT(sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}), 0);
    return take_one(argument);
}

/* Two releases before the first woken sleeper runs: the second one finds the mark clear and wakes
 * nobody; the sleeper must pass the wake on. */
static void test_two_releases_in_a_row(void **state)
{
    struct modus_sem *sem = new_sem((struct modus_sem_attr){.scope = MODUS_THREAD});
    struct sleeper sleepers[2];
    pthread_t threads[2];
    cpu_set_t all, one;
    (void)state;

    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0); /* the threads inherit it */
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 2; i++) {
            sleepers[i] = (struct sleeper){.sem = sem};
            threads[i] = start_thread(take_one_idly, &sleepers[i]);
            AWAIT(atomic_load(&sleepers[i].tid));
            AWAIT_ASLEEP(atomic_load(&sleepers[i].tid));
        }
        assert_int_equal(modus_sem_release(sem, 1), 0);
        assert_int_equal(modus_sem_release(sem, 1), 0);
        join_thread(threads[0]);
        join_thread(threads[1]);
    }
    CHECK_INT(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(modus_sem_value(sem), 0);
}

struct parking {
    struct modus_sem sem;
};

static int park_slowly(void *argument)
{
    struct parking *parking = argument;

    modus_fault_plan(MODUS_FAULT_PARK_MARKED, MODUS_FAULT_STOP, 1);
    return -modus_sem_acquire(&parking->sem, modus_seconds(20));
}

/* A permit comes and goes between a sleeper's mark and its sleep: the mark is gone, so it must not
 * sleep on the strength of it. */
static void test_permit_comes_and_goes(void **state)
{
    struct parking *parking = modus_arena_alloc(arena, sizeof *parking, 0);
    (void)state;

    assert_int_equal(
        modus_sem_init(&parking->sem, &(struct modus_sem_attr){.scope = MODUS_PROCESS}), 0);
    pid_t pid = start_child(park_slowly, parking);
    AWAIT(state_of(pid) == 'T');
    assert_int_equal(modus_sem_release(&parking->sem, 1), 0);
    assert_int_equal(modus_sem_try(&parking->sem), 0);
    kill(pid, SIGCONT);
    AWAIT_ASLEEP(pid);
    int64_t start = modus_now_ns();
    assert_int_equal(modus_sem_release(&parking->sem, 1), 0);
    assert_int_equal(reap(pid), 0);
    assert_true(modus_now_ns() - start < modus_seconds(10));
}

/* --- death ----------------------------------------------------------------------------------- */

struct held {
    struct modus_sem *sem;
    int permits;
    enum modus_fault_point point;
    _Atomic int ready;
};

static int hold_permits(void *argument)
{
    struct held *held = argument;

    CHECK(modus_participant_join(arena) > 0);
    for (int i = 0; i < held->permits; i++)
        CHECK_INT(modus_sem_acquire(held->sem, MODUS_FOREVER), 0);
    atomic_store(&held->ready, 1);
    for (;;)
        pause();
}

static int wait_for_permit(void *argument)
{
    struct held *held = argument;

    CHECK(modus_participant_join(arena) > 0);
    int rc = modus_sem_acquire(held->sem, modus_seconds(20));
    if (rc == 0)
        CHECK_INT(modus_sem_release(held->sem, 1), 0);
    return rc == 0 ? 0 : 1;
}

static void test_refund(void **state)
{
    struct held *held = modus_arena_alloc(arena, sizeof *held, 0);
    (void)state;

    held->permits = 3;
    held->sem = new_sem(
        (struct modus_sem_attr){.scope = MODUS_PROCESS, .value = 3, .max = 3, .accounted = true});
    pid_t holder = start_child(hold_permits, held);
    AWAIT(atomic_load(&held->ready));
    assert_int_equal(modus_sem_value(held->sem), 0);
    pid_t waiter = start_child(wait_for_permit, held), victim = start_child(wait_for_permit, held);
    AWAIT_ASLEEP(waiter);
    AWAIT_ASLEEP(victim);
    kill_child(victim);
    kill_child(holder);
    assert_int_equal(modus_participant_bury(arena, victim), 1);
    assert_int_equal(modus_participant_bury(arena, holder), 1);
    assert_int_equal(reap(waiter), 0);
    modus_participant_bury(arena, waiter);
    assert_int_equal(modus_sem_value(held->sem), 3);
    modus_sem_fini(held->sem);
}

/* A thread that leaves gives back what it holds. */
static void test_leaving_refunds(void **state)
{
    struct modus_sem *sem = new_sem(
        (struct modus_sem_attr){.scope = MODUS_PROCESS, .value = 2, .max = 2, .accounted = true});
    (void)state;

    assert_int_equal(modus_sem_try(sem), 0);
    assert_int_equal(modus_sem_held(sem, modus_participant_self(arena)), 1);
    assert_int_equal(modus_participant_leave(arena), 0);
    assert_int_equal(modus_sem_value(sem), 2);
    assert_int_equal(modus_sem_try(sem), -EPERM);
    assert_true(modus_participant_join(arena) > 0);
    modus_sem_fini(sem);
}

static int use_parents_identity(void *argument)
{
    struct held *held = argument;

    CHECK_INT(modus_sem_try(held->sem), -ECHILD);
    CHECK_INT(modus_sem_release(held->sem, 1), -ECHILD);
    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_sem_release(held->sem, 1), -EPERM);
    CHECK_INT(modus_sem_try(held->sem), 0);
    return 0; /* without release: dead is dead, also by exit */
}

static void test_child_is_not_parent(void **state)
{
    struct held *held = modus_arena_alloc(arena, sizeof *held, 0);
    (void)state;

    held->sem = new_sem(
        (struct modus_sem_attr){.scope = MODUS_PROCESS, .value = 2, .max = 2, .accounted = true});
    assert_int_equal(modus_sem_try(held->sem), 0);
    pid_t pid = start_child(use_parents_identity, held);
    assert_int_equal(reap(pid), 0);
    assert_int_equal(modus_sem_value(held->sem), 0);
    assert_int_equal(modus_participant_bury(arena, pid), 1);
    assert_int_equal(modus_sem_value(held->sem), 1);
    assert_int_equal(modus_sem_release(held->sem, 1), 0);
    modus_sem_fini(held->sem);
}

static int die_at(void *argument)
{
    struct held *held = argument;

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(held->point, MODUS_FAULT_DIE, (unsigned)held->permits);
    for (;;) {
        CHECK_INT(modus_sem_acquire(held->sem, modus_seconds(20)), 0);
        CHECK_INT(modus_sem_release(held->sem, 1), 0);
    }
}

/* Killed at every point of acquire and release, first passing and a later one: after burying, all
 * permits are there, and sleepers got theirs. */
static void test_dies_anywhere(void **state)
{
    static const enum modus_fault_point points[] = {MODUS_FAULT_SEM_TAKEN, MODUS_FAULT_SEM_LOCKED,
                                                    MODUS_FAULT_SEM_NOTED,
                                                    MODUS_FAULT_SEM_RELEASED};
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        for (int passing = 1; passing <= 4; passing++) {
            struct held *held = modus_arena_alloc(arena, sizeof *held, 0);

            held->point = points[i];
            held->permits = passing;
            held->sem = new_sem((struct modus_sem_attr){
                .scope = MODUS_PROCESS, .value = 1, .max = 1, .accounted = true});
            assert_int_equal(modus_sem_try(held->sem), 0);
            pid_t waiter = start_child(wait_for_permit, held), dier = start_child(die_at, held);
            AWAIT_ASLEEP(waiter);
            assert_int_equal(modus_sem_release(held->sem, 1), 0);
            assert_int_equal(reap(dier), -SIGKILL);
            assert_int_equal(modus_participant_bury(arena, dier), 1);
            assert_int_equal(reap(waiter), 0);
            modus_participant_bury(arena, waiter);
            assert_int_equal(modus_sem_value(held->sem), 1);
            modus_sem_fini(held->sem);
        }
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)16 << 20, 8) < 0)
        return -1;
    return modus_participant_join(arena) > 0 ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_init, watchdog),
        cmocka_unit_test_setup(test_bounds_and_times, watchdog),
        cmocka_unit_test_setup(test_refund, watchdog),
        cmocka_unit_test_setup(test_leaving_refunds, watchdog),
        cmocka_unit_test_setup(test_child_is_not_parent, watchdog),
        cmocka_unit_test_setup(test_dies_anywhere, watchdog),
        cmocka_unit_test_setup(test_cap_processes, watchdog),
        cmocka_unit_test_setup(test_permit_comes_and_goes, watchdog),
        cmocka_unit_test_setup(test_release_many, watchdog),
        cmocka_unit_test_setup(test_two_releases_in_a_row, watchdog),
        cmocka_unit_test_setup(test_cap_threads, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
