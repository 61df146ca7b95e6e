/* SPDX-License-Identifier: MIT */
/* The gate by itself: at most one on its way, order of waking, and giving up. */
#include "test_concurrency.h"

#include "concurrency/gate.h"

#include <sched.h>

static struct modus_arena *arena;

static bool called(struct modus_gate_visit *visit)
{
    return atomic_load(&visit->word) != 0;
}

/* Visitors need not sleep to be called; so one thread can play all parts. */
static void test_one_on_its_way(void **state)
{
    struct modus_gate gate;
    struct modus_gate_visit a = {0}, b = {0}, c = {0};
    (void)state;

    modus_gate_init(&gate, false);
    modus_gate_nudge(&gate, MODUS_THREAD);
    modus_gate_enter(&gate, MODUS_THREAD, &a);
    modus_gate_enter(&gate, MODUS_THREAD, &b);
    modus_gate_enter(&gate, MODUS_THREAD, &c);
    modus_gate_nudge(&gate, MODUS_THREAD);
    assert_true(called(&c)); /* last come, first called */
    modus_gate_nudge(&gate, MODUS_THREAD);
    modus_gate_nudge(&gate, MODUS_THREAD);
    assert_false(called(&b)); /* c is still on its way */
    modus_gate_exit(&gate, MODUS_THREAD, &c);
    modus_gate_nudge(&gate, MODUS_THREAD);
    assert_true(called(&b));
    modus_gate_call(&gate, MODUS_THREAD, true); /* by force: another one */
    assert_true(called(&a));
    modus_gate_exit(&gate, MODUS_THREAD, &b);
    modus_gate_exit(&gate, MODUS_THREAD, &a);
    assert_int_equal(atomic_load(&gate.state), 0);
    modus_gate_nudge(&gate, MODUS_THREAD);
}

static void test_first_come(void **state)
{
    struct modus_gate gate;
    struct modus_gate_visit a = {0}, b = {0}, c = {0};
    (void)state;

    modus_gate_init(&gate, true);
    modus_gate_enter(&gate, MODUS_THREAD, &a);
    modus_gate_enter(&gate, MODUS_THREAD, &b);
    modus_gate_enter(&gate, MODUS_THREAD, &c);
    modus_gate_exit(&gate, MODUS_THREAD, &b); /* gives up in the middle */
    modus_gate_nudge(&gate, MODUS_THREAD);
    assert_true(called(&a));
    modus_gate_enter(&gate, MODUS_THREAD, &a); /* in vain: to the end of the line */
    assert_false(called(&a));
    modus_gate_nudge(&gate, MODUS_THREAD);
    assert_true(called(&c));
    modus_gate_exit(&gate, MODUS_THREAD, &c);
    modus_gate_open(&gate, MODUS_THREAD);
    assert_true(called(&a));
    modus_gate_exit(&gate, MODUS_THREAD, &a);
    assert_int_equal(atomic_load(&gate.state), 0);
}

struct sleepers {
    struct modus_gate gate;
    _Atomic int awake;
    _Atomic int tids[3], started;
};

/* An idle-class sleeper on the nudger's CPU: woken, it does not run before the nudger rests. */
static void *sleep_idly(void *argument)
{
    struct sleepers *sleepers = argument;
    struct modus_gate_visit visit = {0};

    CHECK_INT(sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}), 0);
    atomic_store(&sleepers->tids[atomic_fetch_add(&sleepers->started, 1)], gettid());
    modus_gate_enter(&sleepers->gate, MODUS_PROCESS, &visit);
    modus_gate_sleep(&sleepers->gate, MODUS_PROCESS, &visit, MODUS_FOREVER);
    atomic_fetch_add(&sleepers->awake, 1);
    modus_gate_exit(&sleepers->gate, MODUS_PROCESS, &visit);
    return NULL;
}

/* How many system calls ten nudges in a row cost, with three asleep. */
static uint64_t cost_of_ten(struct sleepers *sleepers)
{
    pthread_t threads[3];

    memset(sleepers, 0, sizeof *sleepers);
    modus_gate_init(&sleepers->gate, false);
    for (int i = 0; i < 3; i++) {
        threads[i] = start_thread(sleep_idly, sleepers);
        AWAIT(atomic_load(&sleepers->tids[i]));
        AWAIT_ASLEEP(atomic_load(&sleepers->tids[i]));
    }
    uint64_t before = modus_park_stats().unparks;
    for (int i = 0; i < 10; i++)
        modus_gate_nudge(&sleepers->gate, MODUS_PROCESS);
    uint64_t cost = modus_park_stats().unparks - before;
    modus_gate_open(&sleepers->gate, MODUS_PROCESS);
    for (int i = 0; i < 3; i++)
        join_thread(threads[i]);
    CHECK_INT(atomic_load(&sleepers->awake), 3);
    return cost;
}

/* Only the first nudge costs a system call. Several tries, since on a busy machine a sleeper may
 * get to run between two nudges after all. */
static void test_one_on_its_way_between_processes(void **state)
{
    struct sleepers *sleepers = modus_arena_alloc(arena, sizeof *sleepers, 0);
    uint64_t least = UINT64_MAX;
    cpu_set_t all, one;
    (void)state;

    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    for (int i = 0; i < 5; i++) {
        uint64_t cost = cost_of_ten(sleepers);

        least = cost < least ? cost : least;
    }
    assert_int_equal(least, 1);
    CHECK_INT(sched_setaffinity(0, sizeof all, &all), 0);
    /* Nobody sleeps any more: the mark goes away with one look. */
    modus_gate_nudge(&sleepers->gate, MODUS_PROCESS);
    uint64_t before = modus_park_stats().unparks;
    modus_gate_nudge(&sleepers->gate, MODUS_PROCESS);
    assert_int_equal(modus_park_stats().unparks, before);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, (size_t)1 << 20, 8);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_one_on_its_way, watchdog),
        cmocka_unit_test_setup(test_first_come, watchdog),
        cmocka_unit_test_setup(test_one_on_its_way_between_processes, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
