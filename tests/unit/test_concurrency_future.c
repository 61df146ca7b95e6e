/* SPDX-License-Identifier: MIT */
/* Futures by themselves: states, ends, waits, callbacks, bells, and many of them at a time. */
#include "test_concurrency.h"

#include "concurrency/coroutine.h"
#include "concurrency/future.h"

#include <poll.h>

static struct modus_future *make(size_t size)
{
    struct modus_future *future = NULL;

    CHECK_INT(modus_future_new(&future, size), 0);
    return future;
}

static void end_with(struct modus_future *future, long value)
{
    modus_future_end(future, 0, &value, sizeof value, NULL);
}

static void test_states(void **state)
{
    struct modus_future *future = make(sizeof(long));
    long value = 0;
    size_t size = 1;
    (void)state;

    assert_int_equal(modus_future_state(future), MODUS_FUTURE_PENDING);
    assert_int_equal(modus_future_code(future), -EAGAIN);
    assert_null(modus_future_value(future, &size));
    assert_int_equal(size, 0);
    assert_string_equal(modus_future_text(future), "");
    assert_int_equal(modus_future_wait(future, 0), -EAGAIN);
    assert_int_equal(modus_future_wait(future, -2), -EINVAL);
    assert_int_equal(modus_future_wait_until(future, -2), -EINVAL);
    assert_int_equal(modus_future_result(future, 0, &value, sizeof value), -EAGAIN);
    int64_t start = modus_now_ns();
    assert_int_equal(modus_future_wait(future, modus_ms(5)), -ETIMEDOUT);
    assert_true(modus_now_ns() - start >= modus_ms(5));
    assert_int_equal(modus_future_wait_until(future, 1), -ETIMEDOUT);
    assert_int_equal(modus_future_begin(future), 0);
    assert_int_equal(modus_future_state(future), MODUS_FUTURE_RUNNING);
    assert_int_equal(modus_future_cancel(future), -EBUSY);
    assert_false(modus_future_ended(future));
    end_with(future, 49);
    assert_true(modus_future_ended(future));
    assert_int_equal(modus_future_state(future), MODUS_FUTURE_DONE);
    for (int i = 0; i < 3; i++) {
        value = 0;
        assert_int_equal(modus_future_result(future, MODUS_FOREVER, &value, sizeof value), 0);
        assert_int_equal(value, 49);
    }
    assert_int_equal(modus_future_result(future, 0, NULL, 0), 0);
    assert_int_equal(*(const long *)modus_future_value(future, &size), 49);
    assert_int_equal(size, sizeof(long));
    assert_int_equal(modus_future_cancel(future), -EALREADY);
    assert_ptr_equal(modus_future_get(future), future);
    modus_future_put(future);
    modus_future_put(future);
    modus_future_put(NULL);
}

static void test_failure(void **state)
{
    struct modus_future *future = make(8);
    char text[] = "no such square";
    (void)state;

    modus_future_begin(future);
    modus_future_end(future, -EPERM, NULL, 0, text);
    text[0] = 'X'; /* it was copied */
    assert_int_equal(modus_future_state(future), MODUS_FUTURE_FAILED);
    assert_int_equal(modus_future_result(future, MODUS_FOREVER, NULL, 0), -EPERM);
    assert_int_equal(modus_future_wait(future, MODUS_FOREVER), 0);
    assert_string_equal(modus_future_text(future), "no such square");
    assert_int_equal(modus_future_signal(future), 0);
    assert_null(modus_future_value(future, NULL));
    modus_future_put(future);

    future = make(0); /* a value that does not fit is cut off */
    end_with(future, 1);
    assert_int_equal(modus_future_code(future), 0);
    modus_future_put(future);
    future = make(8);
    modus_future_end(future, 0, NULL, 8, NULL);
    size_t size;
    assert_non_null(modus_future_value(future, &size));
    assert_int_equal(size, 0);
    modus_future_put(future);
}

static void test_cancel(void **state)
{
    struct modus_future *future = make(8);
    (void)state;

    assert_int_equal(modus_future_cancel(future), 0);
    assert_int_equal(modus_future_cancel(future), -EALREADY);
    assert_int_equal(modus_future_begin(future), MODUS_CANCELED);
    assert_int_equal(modus_future_state(future), MODUS_FUTURE_CANCELLED);
    assert_int_equal(modus_future_result(future, MODUS_FOREVER, NULL, 0), MODUS_CANCELED);
    modus_future_put(future);
}

/* Cancel against begin: one of them wins, and what waits is told. */
static void *cancel_it(void *argument)
{
    return modus_future_cancel(argument) == 0 ? argument : NULL;
}

static void test_cancel_race(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        struct modus_future *future = make(8);
        pthread_t thread = start_thread(cancel_it, future);
        void *cancelled;
        bool began = modus_future_begin(future) == 0;

        if (began)
            end_with(future, i);
        CHECK_INT(pthread_join(thread, &cancelled), 0);
        assert_true(began == (cancelled == NULL));
        assert_int_equal(modus_future_wait(future, 0), 0);
        modus_future_put(future);
    }
}

static void *wait_for_49(void *argument)
{
    long value = 0;

    CHECK_INT(modus_future_result(argument, MODUS_FOREVER, &value, sizeof value), 0);
    CHECK_INT(value, 49);
    modus_future_put(argument);
    return NULL;
}

static void test_many_waiters(void **state)
{
    struct modus_future *future = make(sizeof(long));
    pthread_t threads[6];
    (void)state;

    for (int i = 0; i < 6; i++)
        threads[i] = start_thread(wait_for_49, modus_future_get(future));
    usleep(2000); /* most of them sleep */
    modus_future_begin(future);
    end_with(future, 49);
    modus_future_put(future);
    for (int i = 0; i < 6; i++)
        join_thread(threads[i]);
}

/* --- callbacks ------------------------------------------------------------------------------- */

static char order[16];
static atomic_int calls;
static pid_t caller;

static void note(struct modus_future *future, void *context)
{
    long value = 0;

    CHECK(modus_future_ended(future)); /* for this thread */
    CHECK_INT(modus_future_result(future, MODUS_FOREVER, &value, sizeof value), 0);
    CHECK_INT(value, 49);
    CHECK_INT(modus_future_state(future), MODUS_FUTURE_DONE);
    strcat(order, context);
    caller = gettid();
    atomic_fetch_add(&calls, 1);
}

static void slow(struct modus_future *future, void *context)
{
    (void)future;
    (void)context;
    usleep(20000);
    atomic_fetch_add(&calls, 1);
}

static void *end_here(void *argument)
{
    end_with(argument, 49);
    return (void *)(intptr_t)gettid();
}

static void test_then(void **state)
{
    struct modus_future *future = make(sizeof(long));
    (void)state;

    order[0] = 0;
    atomic_store(&calls, 0);
    for (const char *name = "a\0b\0c\0"; *name; name += 2)
        assert_int_equal(modus_future_then(future, note, (void *)(uintptr_t)name), 0);
    assert_string_equal(order, "");
    pthread_t thread = start_thread(end_here, future);
    assert_int_equal(modus_future_wait(future, MODUS_FOREVER), 0);
    assert_int_equal(atomic_load(&calls), 3); /* who has waited finds them done */
    assert_string_equal(order, "abc");
    void *tid;
    pthread_join(thread, &tid);
    assert_int_equal(caller, (intptr_t)tid);
    assert_int_equal(modus_future_then(future, note, (void *)(uintptr_t) "d"), 0);
    assert_string_equal(order, "abcd"); /* at once, here */
    assert_int_equal(caller, gettid());
    modus_future_put(future);

    future = make(8); /* never ended: nothing is called, nothing leaks */
    modus_future_then(future, note, NULL);
    modus_future_put(future);
    assert_int_equal(atomic_load(&calls), 4);
}

/* While the callbacks run, the future has not ended for others. */
static void test_callbacks_come_first(void **state)
{
    struct modus_future *future = make(sizeof(long));
    (void)state;

    atomic_store(&calls, 0);
    modus_future_then(future, slow, NULL);
    modus_future_then(future, slow, NULL);
    pthread_t thread = start_thread(end_here, future);
    assert_int_equal(modus_future_wait(future, MODUS_FOREVER), 0);
    assert_int_equal(atomic_load(&calls), 2);
    join_thread(thread);
    modus_future_put(future);
}

static void add_another(struct modus_future *future, void *context)
{
    (void)context;
    CHECK_INT(modus_future_then(future, slow, NULL), 0);
}

static void test_then_in_callback(void **state)
{
    struct modus_future *future = make(8);
    (void)state;

    atomic_store(&calls, 0);
    modus_future_then(future, add_another, NULL);
    assert_int_equal(modus_future_cancel(future), 0);
    assert_int_equal(atomic_load(&calls), 1);
    modus_future_put(future);
}

static void test_bell(void **state)
{
    struct modus_future *future = make(8), *other = make(8);
    struct modus_doorbell bell, off = {0};
    struct pollfd poll_bell;
    (void)state;

    assert_int_equal(modus_doorbell_init(&bell), 0);
    poll_bell = (struct pollfd){.fd = modus_doorbell_fd(&bell), .events = POLLIN};
    assert_int_equal(modus_future_arm(future, &off), -EINVAL);
    assert_int_equal(modus_future_arm(future, &bell), 0);
    assert_int_equal(modus_future_arm(other, &bell), 0);
    modus_future_begin(future);
    assert_int_equal(poll(&poll_bell, 1, 0), 0);
    end_with(future, 1);
    assert_int_equal(poll(&poll_bell, 1, 0), 1);
    modus_doorbell_hear(&bell);
    assert_true(modus_future_ended(future));
    modus_future_disarm(other, &bell);
    end_with(other, 1);
    assert_int_equal(poll(&poll_bell, 1, 0), 0);
    modus_future_put(future);
    modus_future_put(other);
    modus_doorbell_fini(&bell);
}

/* --- many ------------------------------------------------------------------------------------ */

enum { MANY = 20 };

static void make_many(struct modus_future **futures)
{
    for (int i = 0; i < MANY; i++)
        futures[i] = make(sizeof(long));
}

static void put_many(struct modus_future **futures)
{
    for (int i = 0; i < MANY; i++)
        modus_future_put(futures[i]);
}

static void test_completed(void **state)
{
    struct modus_future *futures[MANY], *future;
    struct modus_completed *completed;
    (void)state;

    make_many(futures);
    end_with(futures[7], 7);
    assert_int_equal(modus_completed_new(&completed, futures, MANY), 0);
    assert_int_equal(modus_completed_next(completed, -2, &future), -EINVAL);
    assert_int_equal(modus_completed_next(completed, 0, &future), 0);
    assert_ptr_equal(future, futures[7]);
    assert_int_equal(modus_completed_next(completed, 0, &future), -EAGAIN);
    assert_int_equal(modus_completed_next(completed, modus_ms(2), &future), -ETIMEDOUT);
    for (int i = MANY - 1; i >= 0; i--) {
        if (i == 7)
            continue;
        if (i % 2)
            end_with(futures[i], i);
        else
            assert_int_equal(modus_future_cancel(futures[i]), 0);
    }
    for (int i = MANY - 1; i >= 0; i--) {
        if (i == 7)
            continue;
        assert_int_equal(modus_completed_next(completed, MODUS_FOREVER, &future), 0);
        assert_ptr_equal(future, futures[i]);
        assert_true(modus_future_ended(future));
    }
    assert_int_equal(modus_completed_next(completed, MODUS_FOREVER, &future), MODUS_EMPTY);
    assert_int_equal(modus_completed_next(completed, 0, &future), MODUS_EMPTY);
    modus_completed_free(completed);
    assert_int_equal(modus_completed_new(&completed, NULL, 0), 0);
    assert_int_equal(modus_completed_next(completed, MODUS_FOREVER, &future), MODUS_EMPTY);
    modus_completed_free(completed);
    modus_completed_free(NULL);
    put_many(futures);
}

/* The iterator ends before its futures; two look at the same futures. */
static void test_completed_left(void **state)
{
    struct modus_future *futures[MANY], *future;
    struct modus_completed *one, *two;
    (void)state;

    make_many(futures);
    assert_int_equal(modus_completed_new(&one, futures, MANY), 0);
    assert_int_equal(modus_completed_new(&two, futures, MANY), 0);
    modus_completed_free(one);
    for (int i = 0; i < MANY; i++)
        end_with(futures[i], i);
    put_many(futures); /* two has references of its own */
    for (int i = 0; i < MANY; i++) {
        long value;

        assert_int_equal(modus_completed_next(two, MODUS_FOREVER, &future), 0);
        assert_int_equal(modus_future_result(future, 0, &value, sizeof value), 0);
        assert_int_equal(value, i);
    }
    modus_completed_free(two);
}

static void *end_many(void *argument)
{
    struct modus_future **futures = argument;

    for (int i = 0; i < MANY; i++) {
        usleep(100);
        end_with(futures[i], i);
    }
    return NULL;
}

static void test_completed_asleep(void **state)
{
    struct modus_future *futures[MANY], *future;
    struct modus_completed *completed;
    (void)state;

    for (int round = 0; round < 20; round++) {
        make_many(futures);
        assert_int_equal(modus_completed_new(&completed, futures, MANY), 0);
        pthread_t thread = start_thread(end_many, futures);
        for (int i = 0; i < MANY; i++) {
            assert_int_equal(modus_completed_next(completed, MODUS_FOREVER, &future), 0);
            assert_ptr_equal(future, futures[i]);
        }
        join_thread(thread);
        modus_completed_free(completed);
        put_many(futures);
    }
}

static void test_wait_all_and_first(void **state)
{
    struct modus_future *futures[MANY];
    size_t index = 99;
    (void)state;

    make_many(futures);
    assert_int_equal(modus_future_wait_first(futures, 0, 0, &index), -EINVAL);
    assert_int_equal(modus_future_wait_first(futures, MANY, -2, &index), -EINVAL);
    assert_int_equal(modus_future_wait_first(futures, MANY, 0, &index), -EAGAIN);
    assert_int_equal(modus_future_wait_first(futures, MANY, modus_ms(2), &index), -ETIMEDOUT);
    assert_int_equal(modus_future_wait_all(futures, MANY, -2), -EINVAL);
    assert_int_equal(modus_future_wait_all(futures, MANY, 0), -EAGAIN);
    assert_int_equal(modus_future_wait_all(futures, MANY, modus_ms(2)), -ETIMEDOUT);
    assert_int_equal(modus_future_wait_all(futures, 0, 0), 0);
    assert_int_equal(index, 99);
    end_with(futures[11], 11);
    assert_int_equal(modus_future_wait_first(futures, MANY, MODUS_FOREVER, &index), 0);
    assert_int_equal(index, 11);
    for (int i = 0; i < MANY; i++)
        if (i != 11)
            modus_future_cancel(futures[i]);
    assert_int_equal(modus_future_wait_all(futures, MANY, MODUS_FOREVER), 0);
    assert_int_equal(modus_future_wait_all(futures, MANY, 0), 0);
    put_many(futures);
}

/* --- where else it may be used ----------------------------------------------------------------- */

static int use_parents(void *argument)
{
    struct modus_future **futures = argument, *own = make(8);
    struct modus_completed *completed;
    long value = 0;

    CHECK_INT(modus_future_result(futures[0], MODUS_FOREVER, &value, sizeof value), 0);
    CHECK_INT(value, 49);
    CHECK_INT(modus_future_wait(futures[1], MODUS_FOREVER), -ECHILD);
    CHECK_INT(modus_future_wait(futures[1], 0), -EAGAIN);
    CHECK_INT(modus_future_cancel(futures[1]), -ECHILD);
    CHECK_INT(modus_future_then(futures[1], slow, NULL), -ECHILD);
    CHECK_INT(modus_completed_new(&completed, futures, 2), -ECHILD);
    CHECK_INT(modus_future_cancel(own), 0); /* its own work as ever */
    modus_future_put(own);
    return 0;
}

static void test_fork(void **state)
{
    struct modus_future *futures[2] = {make(8), make(8)};
    (void)state;

    end_with(futures[0], 49);
    assert_int_equal(reap(start_child(use_parents, futures)), 0);
    modus_future_put(futures[0]);
    modus_future_put(futures[1]);
}

/* A coroutine that waits lets the one go on that ends what it waits for. */
static int co_wait(void *argument)
{
    long value;

    CHECK_INT(modus_future_result(argument, MODUS_FOREVER, &value, sizeof value), 0);
    return (int)value;
}

static int co_program(void *argument)
{
    struct modus_future *future = make(sizeof(long)), *never = make(0);
    struct modus_co *waiter;
    int result;
    (void)argument;

    CHECK_INT(modus_co_start(&waiter, NULL, co_wait, future), 0);
    CHECK_INT(modus_co_yield(), 0);
    end_with(future, 49);
    CHECK_INT(modus_co_join(waiter, MODUS_FOREVER, &result), 0);
    CHECK_INT(result, 49);
    modus_co_put(waiter);
    CHECK_INT(modus_future_wait(never, modus_ms(5)), -ETIMEDOUT);
    modus_co_cancel(modus_co_self());
    CHECK_INT(modus_future_wait(never, MODUS_FOREVER), MODUS_CANCELED);
    modus_future_put(future);
    modus_future_put(never);
    return 0;
}

static void test_coroutine(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(co_program, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_states),
        TEST(test_failure),
        TEST(test_cancel),
        TEST(test_cancel_race),
        TEST(test_many_waiters),
        TEST(test_then),
        TEST(test_callbacks_come_first),
        TEST(test_then_in_callback),
        TEST(test_bell),
        TEST(test_completed),
        TEST(test_completed_left),
        TEST(test_completed_asleep),
        TEST(test_wait_all_and_first),
        TEST(test_fork),
        TEST(test_coroutine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
