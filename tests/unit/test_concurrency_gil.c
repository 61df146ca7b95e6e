/* SPDX-License-Identifier: MIT */
/* The interpreter lock: errors, forced hand-overs and their interval, blocking calls, counters; and
 * the scoped holds of all locks. */
#include "test_concurrency.h"

#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/gil.h"
#include "concurrency/scoped.h"
#include "concurrency/thread.h"

static struct modus_gil gil;
static _Atomic int tids[4], done;
static _Atomic bool over;
static long shared_count;

static int begin_test(void **state)
{
    modus_gil_init(&gil);
    for (int i = 0; i < 4; i++)
        atomic_store(&tids[i], 0);
    atomic_store(&done, 0);
    atomic_store(&over, false);
    shared_count = 0;
    return watchdog(state);
}

static int end_test(void **state)
{
    (void)state;
    modus_gil_fini(&gil);
    return 0;
}

static void *try_as_other(void *argument)
{
    (void)argument;
    CHECK(!modus_gil_mine(&gil));
    CHECK_INT(modus_gil_release(&gil), -EPERM);
    CHECK_INT(modus_gil_acquire(&gil, 0), -EAGAIN);
    int64_t begun = modus_now_ns();
    CHECK_INT(modus_gil_acquire(&gil, modus_ms(12)), -ETIMEDOUT);
    CHECK(modus_now_ns() - begun >= modus_ms(12));
    CHECK_INT(atomic_load(&gil.drop), 0);
    CHECK_INT(modus_gil_acquire_until(&gil, 1), -ETIMEDOUT);
    return NULL;
}

static void test_errors(void **state)
{
    static struct modus_gil initialised = MODUS_GIL_INIT, none;
    (void)state;

    assert_int_equal(modus_gil_acquire(&none, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_gil_acquire_until(&none, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_gil_set_interval(&none, 1), -EINVAL);
    assert_int_equal(modus_gil_acquire(&initialised, 0), 0);
    assert_int_equal(modus_gil_release(&initialised), 0);
    assert_int_equal(modus_gil_acquire(&gil, -2), -EINVAL);
    assert_int_equal(modus_gil_acquire_until(&gil, -2), -EINVAL);
    assert_int_equal(modus_gil_set_interval(&gil, 0), -EINVAL);
    assert_int_equal(modus_gil_release(&gil), -EPERM);
    assert_int_equal(modus_gil_acquire(&gil, MODUS_FOREVER), 0);
    assert_true(modus_gil_mine(&gil));
    assert_int_equal(modus_gil_acquire(&gil, MODUS_FOREVER), -EDEADLK);
    assert_int_equal(modus_gil_acquire(&gil, 0), -EDEADLK);
    assert_int_equal(modus_gil_checkpoint(&gil), 0);
    join_thread(start_thread(try_as_other, NULL));
    /* It asked for the lock, but has gone: nobody is waited for. */
    assert_int_equal(atomic_load(&gil.drop), 0);
    assert_int_equal(modus_gil_checkpoint(&gil), 0);
    assert_true(modus_gil_mine(&gil));
    assert_int_equal(modus_gil_release(&gil), 0);
    assert_int_equal(modus_gil_acquire_until(&gil, 1), 0);
    assert_int_equal(modus_gil_release(&gil), 0);
}

static void *hold_once(void *argument)
{
    atomic_store(&tids[(intptr_t)argument], gettid());
    CHECK_INT(modus_gil_acquire(&gil, MODUS_FOREVER), 0);
    CHECK(modus_gil_mine(&gil));
    shared_count++;
    atomic_fetch_add(&done, 1);
    CHECK_INT(modus_gil_release(&gil), 0);
    return NULL;
}

/* The holder is asked after an interval and not before; after its checkpoint the other has had the
 * lock, whichever of the two is faster. */
static void test_hand_over(void **state)
{
    int64_t interval = modus_ms(5);
    (void)state;

    assert_int_equal(modus_gil_set_interval(&gil, interval), 0);
    assert_int_equal(modus_gil_acquire(&gil, MODUS_FOREVER), 0);
    int64_t begun = modus_now_ns();
    pthread_t other = start_thread(hold_once, (void *)0);
    int rc = 0;
    while (rc == 0) {
        assert_int_equal(atomic_load(&done), 0);
        rc = modus_gil_checkpoint(&gil);
    }
    assert_int_equal(rc, 1);
    assert_int_equal(atomic_load(&done), 1);
    assert_true(modus_now_ns() - begun >= interval);
    assert_true(modus_gil_mine(&gil));
    struct modus_gil_stats stats = modus_gil_stats(&gil);
    assert_int_equal(stats.forced, 1);
    assert_int_equal(stats.switches, 3); /* we, the other, we */
    assert_int_equal(stats.acquired, 3);
    assert_in_range(stats.waits, 1, 2);
    assert_true(stats.waited_ns >= interval);
    assert_true(stats.held_ns >= interval);
    assert_int_equal(modus_gil_release(&gil), 0);
    join_thread(other);
}

static void *compute(void *argument)
{
    long rounds = *(long *)argument;

    CHECK_INT(modus_gil_acquire(&gil, MODUS_FOREVER), 0);
    for (long i = 0; i < rounds || modus_gil_stats(&gil).forced < 3; i++) {
        shared_count += 2;
        int rc = modus_gil_checkpoint(&gil);
        CHECK(rc == 0 || rc == 1);
        if (rc == 0)
            shared_count -= 1;
        else
            atomic_fetch_add(&done, 1); /* this step counts twice */
    }
    atomic_fetch_add(&tids[0], 1);
    CHECK_INT(modus_gil_release(&gil), 0);
    return NULL;
}

/* Three compute, none of them ever lets go by itself: all come to their end, none at the same time
 * as another. */
static void test_excludes(void **state)
{
    pthread_t threads[3];
    long rounds = SLOW ? 2000 : 20000;
    (void)state;

    assert_int_equal(modus_gil_set_interval(&gil, modus_us(200)), 0);
    for (int i = 0; i < 3; i++)
        threads[i] = start_thread(compute, &rounds);
    for (int i = 0; i < 3; i++)
        join_thread(threads[i]);
    struct modus_gil_stats stats = modus_gil_stats(&gil);
    assert_true(stats.forced >= 3);
    assert_int_equal(stats.forced, atomic_load(&done));
    assert_true(shared_count >= 2 * rounds + atomic_load(&done));
    assert_true(stats.switches >= stats.forced);
}

static struct modus_event blocked, unblocked;

static int block(bool early)
{
    MODUS_GIL_RELEASED(&gil)
    {
        CHECK(!modus_gil_mine(&gil));
        modus_event_set(&blocked);
        CHECK_INT(modus_event_wait(&unblocked, MODUS_FOREVER), 0);
        if (early)
            return 1;
    }
    return 2;
}

static void *block_as_other(void *argument)
{
    bool early = argument != NULL;

    CHECK_INT(modus_gil_acquire(&gil, MODUS_FOREVER), 0);
    CHECK_INT(block(early), early ? 1 : 2);
    CHECK(modus_gil_mine(&gil));
    CHECK_INT(modus_gil_release(&gil), 0);
    return NULL;
}

/* While one is in a blocking call another computes; it holds the lock again on every path. */
static void test_blocking_call(void **state)
{
    (void)state;
    for (int early = 0; early < 2; early++) {
        modus_event_init(&blocked, MODUS_THREAD);
        modus_event_init(&unblocked, MODUS_THREAD);
        pthread_t other = start_thread(block_as_other, early ? &early : NULL);
        assert_int_equal(modus_event_wait(&blocked, MODUS_FOREVER), 0);
        assert_int_equal(modus_gil_acquire(&gil, 0), 0);
        modus_event_set(&unblocked);
        assert_int_equal(modus_gil_release(&gil), 0);
        join_thread(other);
    }
    MODUS_GIL_RELEASED(&gil) /* not held: nothing to release, nothing to acquire */
    shared_count++;
    assert_int_equal(shared_count, 1);
    assert_false(modus_gil_mine(&gil));
    assert_int_equal(modus_gil_stats(&gil).forced, 0);
}

static int co_compute(void *argument)
{
    CHECK_INT(modus_gil_acquire(&gil, MODUS_FOREVER), 0);
    CHECK_INT(modus_gil_acquire(&gil, 0), -EDEADLK);
    for (int i = 0; i < 3; i++) {
        long before = shared_count++;

        CHECK_INT(modus_co_yield(), argument ? MODUS_CANCELED : 0);
        CHECK(shared_count == before + 1);
    }
    CHECK_INT(modus_gil_release(&gil), 0);
    return 0;
}

/* Held in a coroutine's name; waiting for it is not broken off by a cancel. */
static int co_main(void *argument)
{
    struct modus_co *co;

    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_co_start(NULL, NULL, co_compute, NULL), 0);
    CHECK_INT(modus_co_start(&co, NULL, co_compute, argument), 0);
    modus_co_cancel(co);
    CHECK_INT(modus_co_join(co, MODUS_FOREVER, NULL), 0);
    modus_co_put(co);
    return 0;
}

static void test_coroutines(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(co_main, &gil), 0);
    assert_int_equal(shared_count, 12);
    assert_int_equal(modus_gil_stats(&gil).acquired, 4);
}

/* Until it leaves, who has entered gives the lock up in each wait of the toolbox, and only there. */
static struct modus_event entered, may_go;

static void *enter_as_other(void *argument)
{
    CHECK_INT(modus_gil_enter(&gil), 0);
    CHECK(modus_gil_mine(&gil));
    modus_event_set(&may_go);
    CHECK_INT(modus_gil_leave(&gil), 0);
    return argument;
}

static void enter_and_wait(bool as_coroutine)
{
    struct modus_thread *other;
    uint64_t before;

    modus_event_clear(&may_go);
    CHECK_INT(modus_gil_enter(&gil), 0);
    CHECK_INT(modus_gil_enter(&gil), -EDEADLK);
    CHECK_INT(modus_thread_new(&other, NULL, enter_as_other, NULL), 0);
    CHECK_INT(modus_thread_start(other), 0);
    before = modus_gil_stats(&gil).acquired;
    CHECK_INT(modus_event_wait(&may_go, MODUS_FOREVER), 0); /* which it sets under the lock */
    CHECK(modus_gil_mine(&gil));
    CHECK(modus_gil_stats(&gil).acquired >= before + 2);
    if (as_coroutine) {
        before = modus_gil_stats(&gil).acquired;
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
        CHECK_INT(modus_co_yield(), 0);
        CHECK(modus_gil_mine(&gil));
        CHECK(modus_gil_stats(&gil).acquired >= before + 2);
    }
    CHECK_INT(modus_gil_leave(&gil), 0);
    CHECK_INT(modus_gil_leave(&gil), -EPERM);
    CHECK(!modus_gil_mine(&gil));
    CHECK_INT(modus_thread_join(other, MODUS_FOREVER, NULL), 0);
    modus_thread_put(other);
    before = modus_gil_stats(&gil).acquired;
    CHECK_INT(modus_event_wait(&entered, modus_ms(1)), -ETIMEDOUT); /* outside: nothing to give */
    CHECK_INT((int)(modus_gil_stats(&gil).acquired - before), 0);
}

static int enter_in_coroutine(void *argument)
{
    (void)argument;
    enter_and_wait(true);
    return 0;
}

static int compute_entered(void *argument)
{
    for (int i = 0; i < 200; i++) {
        CHECK_INT(modus_gil_enter(&gil), 0);
        shared_count++;
        modus_co_yield();
        shared_count++;
        CHECK_INT(modus_gil_leave(&gil), 0);
    }
    return argument != NULL;
}

static int enter_in_many(void *argument)
{
    struct modus_co *co[3];

    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_co_start(&co[i], NULL, compute_entered, argument), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(modus_co_join(co[i], MODUS_FOREVER, NULL), 0);
        modus_co_put(co[i]);
    }
    return 0;
}

static void test_enter(void **state)
{
    (void)state;
    modus_event_init(&entered, MODUS_THREAD);
    modus_event_init(&may_go, MODUS_THREAD);
    enter_and_wait(false);
    assert_int_equal(modus_co_run(enter_in_coroutine, NULL), 0);
    shared_count = 0;
    assert_int_equal(modus_co_run(enter_in_many, NULL), 0);
    assert_int_equal(shared_count, 1200);
}

static int use_in_child(void *argument)
{
    (void)argument;
    modus_gil_renew(&gil);
    CHECK_INT(modus_gil_acquire(&gil, 0), 0);
    CHECK_INT(modus_gil_release(&gil), 0);
    return 0;
}

static void test_fork(void **state)
{
    (void)state;
    assert_int_equal(modus_gil_acquire(&gil, MODUS_FOREVER), 0);
    assert_int_equal(reap(start_child(use_in_child, NULL)), 0);
    assert_int_equal(modus_gil_release(&gil), 0);
}

/* --- scoped holds ---------------------------------------------------------------------------- */

static struct modus_rlock rlock = MODUS_RLOCK_INIT;
static struct modus_rwlock rwlock = MODUS_RWLOCK_INIT;

static int hold_to_read(bool leave)
{
    {
        MODUS_HOLD_READ(reading, &rwlock, 0);
        if (reading.result < 0 || modus_rwlock_readers(&rwlock) != 1)
            return -3;
        if (leave)
            goto out;
    }
    return modus_rwlock_readers(&rwlock) == 0 ? 0 : -4;
out:
    return 1;
}

static int hold_all(int leave)
{
    MODUS_HOLD_RLOCK(outer, &rlock, MODUS_FOREVER);
    for (;;) {
        MODUS_HOLD_RLOCK(inner, &rlock, MODUS_FOREVER);
        if (inner.result < 0 || modus_rlock_depth(&rlock) != 2)
            return -1;
        break;
    }
    if (outer.result < 0 || modus_rlock_depth(&rlock) != 1)
        return -2;
    int rc = hold_to_read(leave == 1);
    if (rc != 0)
        return rc;
    MODUS_HOLD_WRITE(writing, &rwlock, 0);
    if (writing.result < 0 || !modus_rwlock_mine(&rwlock))
        return -5;
    MODUS_HOLD_WRITE(again, &rwlock, 0);
    if (again.result != -EDEADLK)
        return -6;
    if (leave == 2)
        return 2;
    modus_rwlock_release(&rwlock);
    writing.result = -EPERM;
    return 3;
}

static void test_scoped(void **state)
{
    (void)state;
    for (int leave = 1; leave <= 3; leave++) {
        assert_int_equal(hold_all(leave), leave);
        assert_int_equal(modus_rlock_depth(&rlock), 0);
        assert_int_equal(modus_rwlock_try_write(&rwlock), 0);
        assert_int_equal(modus_rwlock_release(&rwlock), 0);
        assert_int_equal(modus_rwlock_release(&rwlock), -EPERM);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_test, end_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),     TEST(test_hand_over), TEST(test_excludes), TEST(test_blocking_call),
        TEST(test_coroutines), TEST(test_enter),     TEST(test_fork),     TEST(test_scoped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
