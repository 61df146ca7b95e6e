/* SPDX-License-Identifier: MIT */
/* Pools of threads: every verb and error, waits inside of the pool, conservation, nothing left. */
#include "test_concurrency_pool.h"

#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/local.h"
#include "concurrency/park.h"
#include "concurrency/thread.h"

static struct modus_event gate;
static atomic_int inside_gate, tally;
static struct modus_pool *the_pool;

static int open_test(void **state)
{
    modus_event_init(&gate, MODUS_THREAD);
    atomic_store(&inside_gate, 0);
    atomic_store(&tally, 0);
    return watchdog(state);
}

static struct modus_pool *pool_of(unsigned n)
{
    return pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = n});
}

static int pass_gate(struct modus_call *call)
{
    atomic_fetch_add(&inside_gate, 1);
    modus_event_wait(&gate, MODUS_FOREVER);
    return reply(call, number_in(call));
}

static int add_one(struct modus_call *call)
{
    (void)call;
    atomic_fetch_add(&tally, 1);
    return 0;
}

/* --- verbs and errors ------------------------------------------------------------------------- */

static void test_new_errors(void **state)
{
    struct modus_pool *pool = NULL;
    (void)state;

    assert_int_equal(modus_pool_new(&pool, &(struct modus_pool_attr){0}), -EINVAL);
    struct modus_pool_attr attr = {.kind = MODUS_POOL_THREAD, .n = 5000};
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    attr = (struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .capacity = 1 << 30};
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    attr = (struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .input_max = 1 << 20};
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    attr = (struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .output_max = 1 << 20};
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    attr = (struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .grace_ns = -1};
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    assert_null(pool);
    modus_pool_free(NULL);
}

static void test_submit(void **state)
{
    struct modus_pool *pool = pool_of(0); /* as many as CPUs */
    struct modus_future *futures[10];
    long two = 2;
    (void)state;

    assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){0}, 0), -EINVAL);
    struct modus_task task = {.run = square, .input = &two, .size = sizeof two};
    assert_int_equal(modus_pool_submit(pool, NULL, &task, -2), -EINVAL);
    task.size = 65;
    assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), -EINVAL);
    assert_int_equal(modus_pool_join(pool, 0), -EINVAL); /* it runs */
    for (long i = 0; i < 10; i++)
        futures[i] = ask(pool, square, i);
    for (long i = 0; i < 10; i++)
        assert_int_equal(answer_of(futures[i]), i * i);
    struct modus_future *odd = ask(pool, fail_on_odd, 7);
    assert_int_equal(modus_future_wait(odd, MODUS_FOREVER), 0);
    assert_int_equal(modus_future_state(odd), MODUS_FUTURE_FAILED);
    assert_string_equal(modus_future_text(odd), "7 is odd");
    assert_int_equal(failure_of(odd), -EPERM);
    assert_int_equal(modus_pool_close(pool), 0);
    assert_int_equal(modus_pool_close(pool), 0);
    assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                     MODUS_CLOSED);
    assert_int_equal(modus_pool_join(pool, -2), -EINVAL);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    assert_int_equal(modus_pool_join(pool, 0), 0);
    assert_int_equal(modus_pool_close(pool), 0);
    assert_int_equal(modus_pool_terminate(pool), 0); /* too late, but no error */
    modus_pool_free(pool);
}

static int too_long(struct modus_call *call)
{
    static const char long_answer[100];

    CHECK(call->room == 64);
    CHECK_INT(modus_call_answer(call, long_answer, sizeof long_answer), -EOVERFLOW);
    return modus_call_answer(call, "", 0);
}

static void test_apply(void **state)
{
    struct modus_pool *pool = pool_of(1);
    long seven = 7, answer = 0;
    struct modus_task task = {.run = square, .input = &seven, .size = sizeof seven};
    (void)state;

    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, MODUS_FOREVER), 0);
    assert_int_equal(answer, 49);
    task.run = fail_on_odd;
    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, MODUS_FOREVER), -EPERM);
    task.run = too_long;
    assert_int_equal(modus_pool_apply(pool, &task, NULL, 0, MODUS_FOREVER), 0);
    task.run = pass_gate;
    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, modus_ms(5)),
                     -ETIMEDOUT);
    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, -2), -EINVAL);
    modus_event_set(&gate);
    end_pool(pool);
}

/* get with a short time, then again: P5 */
static void test_result_is_repeatable(void **state)
{
    struct modus_pool *pool = pool_of(1);
    struct modus_future *future = ask(pool, pass_gate, 3);
    long value = 0;
    (void)state;

    AWAIT(modus_future_state(future) == MODUS_FUTURE_RUNNING);
    assert_int_equal(modus_future_result(future, modus_ms(2), &value, sizeof value), -ETIMEDOUT);
    assert_int_equal(modus_future_cancel(future), -EBUSY);
    modus_event_set(&gate);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_future_result(future, MODUS_FOREVER, &value, sizeof value), 0);
    assert_int_equal(value, 3);
    end_pool(pool);
    assert_int_equal(modus_future_result(future, 0, &value, sizeof value), 0); /* outlives it */
    modus_future_put(future);
}

static void test_threads_on_demand(void **state)
{
    struct modus_pool *pool = pool_of(4);
    struct modus_future *futures[5];
    int ids[4];
    (void)state;

    assert_int_equal(stats_of(pool).workers, 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(answer_of(ask(pool, square, i)), i * i);
    assert_int_equal(stats_of(pool).workers, 1); /* one at a time needs one */
    for (int i = 0; i < 5; i++)
        futures[i] = ask(pool, pass_gate, i);
    AWAIT(atomic_load(&inside_gate) == 4); /* 0 to 3 start at once, 4 waits: P3 */
    assert_int_equal(stats_of(pool).workers, 4);
    assert_int_equal(modus_pool_workers(pool, ids, 4), 4);
    assert_int_not_equal(ids[0], ids[1]);
    assert_int_equal(stats_of(pool).queued, 1);
    assert_int_equal(stats_of(pool).running, 4);
    assert_int_equal(stats_of(pool).done, 20);
    assert_true(stats_of(pool).high_water >= 1);
    modus_event_set(&gate);
    for (int i = 0; i < 5; i++)
        assert_int_equal(answer_of(futures[i]), i);
    assert_int_equal(stats_of(pool).workers, 4); /* kept */
    assert_int_equal(stats_of(pool).done, 25);
    end_pool(pool);
}

static void test_close_runs_what_is_queued(void **state)
{
    struct modus_pool *pool = pool_of(1);
    struct modus_future *first = ask(pool, pass_gate, 0);
    (void)state;

    for (int i = 0; i < 50; i++)
        assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0), 0);
    assert_int_equal(modus_pool_close(pool), 0);
    assert_int_equal(modus_pool_join(pool, 0), -EAGAIN);
    assert_int_equal(modus_pool_join(pool, modus_ms(2)), -ETIMEDOUT);
    modus_event_set(&gate);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    assert_int_equal(atomic_load(&tally), 50);
    modus_pool_free(pool);
    modus_future_put(first);
    pool = pool_of(3); /* closed before it had a thread */
    end_pool(pool);
}

/* --- a full queue ----------------------------------------------------------------------------- */

static void *submit_one_more(void *argument)
{
    int rc = modus_pool_submit(argument, NULL, &(struct modus_task){.run = add_one}, MODUS_FOREVER);

    return (void *)(intptr_t)rc;
}

static struct modus_pool *full_pool(struct modus_future **running)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 1, .capacity = 4});

    *running = ask(pool, pass_gate, 0);
    AWAIT(atomic_load(&inside_gate) == 1);
    for (int i = 0; i < 4; i++)
        CHECK_INT(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0), 0);
    return pool;
}

static void test_full(void **state)
{
    struct modus_future *running;
    struct modus_pool *pool = full_pool(&running);
    struct modus_task task = {.run = add_one};
    void *rc;
    (void)state;

    assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), MODUS_FULL);
    assert_int_equal(modus_pool_submit(pool, NULL, &task, modus_ms(2)), -ETIMEDOUT);
    assert_int_equal(modus_pool_apply(pool, &task, NULL, 0, modus_ms(2)), -ETIMEDOUT);
    assert_int_equal(stats_of(pool).high_water, 4);
    pthread_t thread = start_thread(submit_one_more, pool);
    modus_event_set(&gate);
    pthread_join(thread, &rc);
    assert_int_equal((intptr_t)rc, 0);
    end_pool(pool);
    modus_future_put(running);
    assert_int_equal(atomic_load(&tally), 5);
}

static void test_close_wakes_who_waits_for_room(void **state)
{
    struct modus_future *running;
    struct modus_pool *pool = full_pool(&running);
    pthread_t thread = start_thread(submit_one_more, pool);
    void *rc;
    (void)state;

    usleep(2000); /* it is asleep, or late: either way it must be told */
    assert_int_equal(modus_pool_close(pool), 0);
    pthread_join(thread, &rc);
    assert_int_equal((intptr_t)rc, MODUS_CLOSED);
    modus_event_set(&gate);
    end_pool(pool);
    modus_future_put(running);
}

/* --- cancelling and terminating ---------------------------------------------------------------- */

static void test_cancel_queued(void **state)
{
    struct modus_pool *pool = pool_of(1);
    struct modus_future *first = ask(pool, pass_gate, 1), *second = ask(pool, pass_gate, 2);
    (void)state;

    AWAIT(atomic_load(&inside_gate) == 1);
    assert_int_equal(modus_future_state(second), MODUS_FUTURE_PENDING);
    assert_int_equal(modus_future_cancel(second), 0);
    assert_int_equal(modus_future_cancel(first), -EBUSY);
    assert_int_equal(failure_of(second), MODUS_CANCELED);
    modus_event_set(&gate);
    assert_int_equal(answer_of(first), 1);
    end_pool(pool);
    assert_int_equal(atomic_load(&inside_gate), 1);
}

static int until_cancelled(struct modus_call *call)
{
    atomic_fetch_add(&inside_gate, 1);
    while (!modus_call_cancelled(call))
        usleep(100);
    return reply(call, 5);
}

static void test_terminate(void **state)
{
    struct modus_pool *pool = pool_of(2);
    struct modus_future *running = ask(pool, until_cancelled, 0), *queued[30];
    (void)state;

    modus_future_put(ask(pool, until_cancelled, 0));
    AWAIT(atomic_load(&inside_gate) == 2);
    for (int i = 0; i < 30; i++)
        queued[i] = ask(pool, square, i);
    assert_int_equal(modus_pool_terminate(pool), 0);
    assert_int_equal(modus_pool_terminate(pool), 0);
    for (int i = 0; i < 30; i++)
        assert_int_equal(failure_of(queued[i]), MODUS_CANCELED);
    assert_int_equal(answer_of(running), 5); /* a thread ends what it runs */
    assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                     MODUS_CLOSED);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
    pool = pool_of(1); /* free terminates */
    running = ask(pool, until_cancelled, 0);
    queued[0] = ask(pool, square, 1);
    modus_pool_free(pool);
    assert_int_equal(failure_of(queued[0]), MODUS_CANCELED);
    modus_future_put(running);
}

static void test_shutdown(void **state)
{
    struct modus_pool *pool = pool_of(1);
    struct modus_future *running = ask(pool, pass_gate, 9), *queued = ask(pool, square, 2);
    (void)state;

    AWAIT(atomic_load(&inside_gate) == 1);
    assert_int_equal(modus_pool_shutdown(pool, false, true), 0);
    assert_int_equal(failure_of(queued), MODUS_CANCELED);
    assert_int_equal(modus_future_wait(running, 0), -EAGAIN);
    modus_event_set(&gate);
    assert_int_equal(modus_pool_shutdown(pool, true, false), 0);
    assert_int_equal(answer_of(running), 9);
    modus_pool_free(pool);

    pool = pool_of(1);
    queued = ask(pool, square, 3);
    assert_int_equal(modus_pool_shutdown(pool, true, false), 0);
    assert_int_equal(answer_of(queued), 9);
    modus_pool_free(pool);
}

/* --- waits inside of the pool ------------------------------------------------------------------- */

/* Waits for a task that it submits, to a depth: in a pool of one this would hang if nobody helped. */
static int sum_below(struct modus_call *call)
{
    long n = number_in(call);

    if (n == 0)
        return reply(call, 0);
    return reply(call, n + answer_of(ask(the_pool, sum_below, n - 1)));
}

static void test_tasks_wait_for_tasks(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        struct modus_future *futures[20];

        the_pool = pool_of(n);
        for (int i = 0; i < 20; i++)
            futures[i] = ask(the_pool, sum_below, i);
        for (int i = 0; i < 20; i++)
            assert_int_equal(answer_of(futures[i]), i * (i + 1) / 2);
        end_pool(the_pool);
    }
}

static int wait_for_many(struct modus_call *call)
{
    struct modus_future *futures[5], *ended;
    struct modus_completed *completed;
    long sum = 0, in[] = {1, 2, 3}, out[3];
    size_t index;

    for (int i = 0; i < 5; i++)
        futures[i] = ask(the_pool, square, i);
    CHECK_INT(modus_future_wait_first(futures, 5, MODUS_FOREVER, &index), 0);
    CHECK_INT(modus_completed_new(&completed, futures, 5), 0);
    for (int i = 0; i < 5; i++)
        CHECK_INT(modus_completed_next(completed, MODUS_FOREVER, &ended), 0);
    modus_completed_free(completed);
    for (int i = 0; i < 5; i++)
        sum += answer_of(futures[i]);
    struct modus_map map = {.run = square,
                            .in = in,
                            .n = 3,
                            .in_size = sizeof *in,
                            .out = out,
                            .out_size = sizeof *out};
    CHECK_INT(modus_pool_map(the_pool, &map), 0);
    struct modus_imap *imap;
    CHECK_INT(modus_imap_new(&imap, the_pool, &map, false), 0);
    long value;
    while (modus_imap_next(imap, MODUS_FOREVER, &value, NULL) == 0)
        sum += value;
    modus_imap_free(imap);
    return reply(call, sum + out[0] + out[1] + out[2]);
}

static void test_tasks_wait_for_many(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 2; n++) {
        the_pool = pool_of(n);
        struct modus_future *one = ask(the_pool, wait_for_many, 0),
                            *two = ask(the_pool, wait_for_many, 0);
        assert_int_equal(answer_of(one), 30 + 14 + 14);
        assert_int_equal(answer_of(two), 30 + 14 + 14);
        end_pool(the_pool);
    }
}

static struct modus_future *circle[2];

static int wait_for_other(struct modus_call *call)
{
    long me = number_in(call);

    modus_event_wait(&gate, MODUS_FOREVER);
    int rc = modus_future_wait(circle[1 - me], MODUS_FOREVER);
    return rc < 0 ? rc : reply(call, me);
}

static int wait_for_self(struct modus_call *call)
{
    (void)call;
    modus_event_wait(&gate, MODUS_FOREVER);
    CHECK_INT(modus_pool_join(the_pool, MODUS_FOREVER), -EINVAL);
    return modus_future_wait(circle[0], MODUS_FOREVER);
}

/* The same, as the first of several, and as the only one. */
static int wait_for_other_first(struct modus_call *call)
{
    long me = number_in(call);

    modus_event_wait(&gate, MODUS_FOREVER);
    int rc = modus_future_wait_first(&circle[1 - me], 1, MODUS_FOREVER, NULL);
    return rc < 0 ? rc : reply(call, me);
}

static int wait_for_self_first(struct modus_call *call)
{
    struct modus_future *twice[2];

    (void)call;
    modus_event_wait(&gate, MODUS_FOREVER);
    twice[0] = twice[1] = circle[0];
    return modus_future_wait_first(twice, 2, MODUS_FOREVER, NULL);
}

static int wait_for_own_map(struct modus_call *call)
{
    (void)call;
    modus_event_wait(&gate, MODUS_FOREVER);
    return modus_future_wait(circle[0], MODUS_FOREVER);
}

static void test_circles_of_many(void **state)
{
    const struct modus_map map = {.run = wait_for_own_map, .n = 1};
    (void)state;

    the_pool = pool_of(2);
    assert_int_equal(modus_pool_map_start(the_pool, &circle[0], &map), 0);
    modus_event_set(&gate);
    assert_int_equal(failure_of(circle[0]), -EDEADLK);
    modus_event_clear(&gate);
    circle[0] = ask(the_pool, wait_for_self_first, 0);
    modus_event_set(&gate);
    assert_int_equal(failure_of(circle[0]), -EDEADLK);
    for (int i = 0; i < 50; i++) {
        modus_event_clear(&gate);
        circle[0] = ask(the_pool, i % 2 ? wait_for_other : wait_for_other_first, 0);
        circle[1] = ask(the_pool, wait_for_other_first, 1);
        modus_event_set(&gate);
        modus_future_wait_all(circle, 2, MODUS_FOREVER);
        int first = modus_future_code(circle[0]), second = modus_future_code(circle[1]);
        assert_true((first == -EDEADLK) != (second == -EDEADLK));
        modus_future_put(circle[0]);
        modus_future_put(circle[1]);
    }
    end_pool(the_pool);
}

static int callback_code;

static void wait_in_callback(struct modus_future *future, void *context)
{
    (void)future;
    (void)context;
    callback_code = modus_future_wait(circle[1], MODUS_FOREVER);
}

static int end_after_other_has_begun(struct modus_call *call)
{
    (void)call;
    AWAIT(atomic_load(&inside_gate) == 1);
    return 0;
}

static int begin_and_wait(struct modus_call *call)
{
    (void)call;
    modus_event_wait(&gate, MODUS_FOREVER);
    atomic_store(&inside_gate, 1);
    return modus_future_wait(circle[0], MODUS_FOREVER);
}

/* One waits in the callback of its task, which the other waits for: it ends after that only. */
static void test_circle_through_callback(void **state)
{
    (void)state;
    the_pool = pool_of(2);
    circle[0] = ask(the_pool, end_after_other_has_begun, 0);
    circle[1] = ask(the_pool, begin_and_wait, 0);
    assert_int_equal(modus_future_then(circle[0], wait_in_callback, NULL), 0);
    modus_event_set(&gate);
    modus_future_wait_all(circle, 2, MODUS_FOREVER); /* each is in use by the other */
    assert_int_equal(failure_of(circle[0]), 0);
    int code = failure_of(circle[1]);
    assert_true((callback_code == -EDEADLK && code == 0) ||
                (callback_code == 0 && code == -EDEADLK));
    end_pool(the_pool);
}

static void test_circles(void **state)
{
    (void)state;
    the_pool = pool_of(2);
    circle[0] = ask(the_pool, wait_for_self, 0);
    modus_event_set(&gate);
    assert_int_equal(failure_of(circle[0]), -EDEADLK);
    for (int i = 0; i < 50; i++) {
        modus_event_clear(&gate);
        circle[0] = ask(the_pool, wait_for_other, 0);
        circle[1] = ask(the_pool, wait_for_other, 1);
        modus_event_set(&gate);
        modus_future_wait_all(circle, 2, MODUS_FOREVER);
        int first = modus_future_code(circle[0]), second = modus_future_code(circle[1]);
        assert_true((first == -EDEADLK) != (second == -EDEADLK)); /* the one that closed it */
        modus_future_put(circle[0]);
        modus_future_put(circle[1]);
    }
    end_pool(the_pool);
}

static int submit_many(struct modus_call *call)
{
    (void)call;
    for (int i = 0; i < 50; i++)
        CHECK_INT(
            modus_pool_submit(the_pool, NULL, &(struct modus_task){.run = add_one}, MODUS_FOREVER),
            0);
    return 0;
}

static int fill_up(struct modus_call *call)
{
    int rc, filled = 0;

    while ((rc = modus_pool_submit(the_pool, NULL, &(struct modus_task){.run = add_one}, 0)) == 0)
        filled++;
    CHECK_INT(rc, MODUS_FULL);
    return reply(call, filled);
}

static void test_worker_submits_to_full_queue(void **state)
{
    (void)state;
    the_pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 1, .capacity = 2});
    assert_int_equal(failure_of(ask(the_pool, submit_many, 0)), 0);
    AWAIT(stats_of(the_pool).done == 51);
    assert_int_equal(answer_of(ask(the_pool, fill_up, 0)), 2);
    end_pool(the_pool);
    assert_int_equal(atomic_load(&tally), 52);
}

static int join_pool(struct modus_call *call)
{
    (void)call;
    modus_event_wait(&gate, MODUS_FOREVER);
    return modus_pool_join(the_pool, MODUS_FOREVER);
}

static void test_worker_joins_pool(void **state)
{
    (void)state;
    the_pool = pool_of(1);
    struct modus_future *future = ask(the_pool, join_pool, 0);
    modus_pool_close(the_pool);
    modus_event_set(&gate);
    assert_int_equal(failure_of(future), -EDEADLK);
    end_pool(the_pool);
}

/* --- map and imap ------------------------------------------------------------------------------ */

static void test_map(void **state)
{
    struct modus_pool *pool = pool_of(3);
    long in[100], out[100];
    struct modus_map map = {.run = square,
                            .in = in,
                            .n = 100,
                            .in_size = sizeof *in,
                            .out = out,
                            .out_size = sizeof *out};
    (void)state;

    for (int i = 0; i < 100; i++)
        in[i] = i;
    for (size_t chunk = 0; chunk <= 128; chunk = chunk * 2 + 1) {
        memset(out, 0, sizeof out);
        map.chunk = chunk;
        assert_int_equal(modus_pool_map(pool, &map), 0);
        for (int i = 0; i < 100; i++)
            assert_int_equal(out[i], i * i);
    }
    uint64_t before = stats_of(pool).done;
    map.chunk = 0; /* 100 / (4 * 3), rounded up: 9; so 12 tasks */
    assert_int_equal(modus_pool_map(pool, &map), 0);
    assert_int_equal(stats_of(pool).done - before, 12);
    map.n = 0;
    assert_int_equal(modus_pool_map(pool, &map), 0);
    map = (struct modus_map){.run = NULL, .n = 1};
    assert_int_equal(modus_pool_map(pool, &map), -EINVAL);
    map = (struct modus_map){.run = add_one, .in = in, .n = 100, .in_size = sizeof *in};
    assert_int_equal(modus_pool_map(pool, &map), 0); /* for its effect */
    assert_int_equal(atomic_load(&tally), 100);
    map.run = square; /* its answers are not wanted */
    assert_int_equal(modus_pool_map(pool, &map), 0);
    map.n = SIZE_MAX;
    assert_int_equal(modus_pool_map(pool, &map), -EINVAL);
    modus_pool_close(pool);
    map.n = 1;
    assert_int_equal(modus_pool_map(pool, &map), MODUS_CLOSED);
    end_pool(pool);
}

static int gate_then_fail(struct modus_call *call)
{
    if (number_in(call) == 3)
        return modus_call_fail(call, -EPERM, "three");
    return pass_gate(call);
}

/* Ready when all chunks are, though the first failed at once; the first failure is kept. */
static void test_map_failure(void **state)
{
    struct modus_pool *pool = pool_of(4);
    struct modus_future *future;
    long in[] = {0, 1, 2, 3}, out[4] = {9, 9, 9, 9};
    struct modus_map map = {.run = gate_then_fail,
                            .in = in,
                            .n = 4,
                            .in_size = sizeof *in,
                            .out = out,
                            .out_size = sizeof *out,
                            .chunk = 1};
    struct modus_map_failure failure = {.index = 9};
    (void)state;

    map.failure = &failure;
    assert_int_equal(modus_pool_map_start(pool, &future, &map), 0);
    AWAIT(atomic_load(&inside_gate) == 3);
    assert_int_equal(modus_future_wait(future, modus_ms(2)), -ETIMEDOUT);
    assert_int_equal(modus_future_cancel(future), -EBUSY);
    assert_int_equal(modus_future_state(future), MODUS_FUTURE_RUNNING);
    modus_event_set(&gate);
    assert_int_equal(modus_future_result(future, MODUS_FOREVER, NULL, 0), -EPERM);
    assert_string_equal(modus_future_text(future), "three");
    modus_future_put(future);
    assert_int_equal(out[2], 2);
    assert_int_equal(out[3], 9);
    assert_int_equal(failure.index, 3);
    assert_string_equal(failure.text, "three");
    in[3] = 5;
    failure.index = 9;
    assert_int_equal(modus_pool_map(pool, &map), 0); /* untouched */
    assert_int_equal(failure.index, 9);
    map.run = fail_on_odd;
    map.chunk = 4;
    assert_int_equal(modus_pool_map(pool, &map), -EPERM);
    assert_int_equal(failure.index, 1); /* the first of its chunk */
    assert_string_equal(failure.text, "1 is odd");
    end_pool(pool);
}

static void test_imap(void **state)
{
    struct modus_pool *pool = pool_of(2);
    enum { N = 57 };
    long in[N], value;
    struct modus_imap *imap;
    struct modus_map map = {
        .run = square, .in = in, .n = N, .in_size = sizeof *in, .out_size = sizeof(long)};
    size_t index;
    (void)state;

    for (int i = 0; i < N; i++)
        in[i] = i;
    for (int form = 0; form < 6; form++) {
        bool seen[N] = {false};

        map.chunk = (size_t)form / 2 * 5;
        assert_int_equal(modus_imap_new(&imap, pool, &map, form % 2), 0);
        assert_int_equal(modus_imap_next(imap, -2, &value, &index), -EINVAL);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, &index), 0);
            assert_int_equal(value, index * index);
            assert_false(seen[index]);
            seen[index] = true;
            if (form % 2)
                assert_int_equal(index, i);
        }
        assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, &index), MODUS_EMPTY);
        assert_int_equal(modus_imap_next(imap, 0, &value, &index), MODUS_EMPTY);
        modus_imap_free(imap);
    }
    modus_imap_free(NULL);
    end_pool(pool);
}

static void *open_gate_for(void *sleeper)
{
    AWAIT_ASLEEP(*(int *)sleeper);
    modus_event_set(&gate);
    return NULL;
}

/* What has begun ends, and nothing else begins. */
static void test_imap_freed_early(void **state)
{
    struct modus_pool *pool = pool_of(2);
    long in[100] = {0};
    struct modus_map map = {
        .run = pass_gate, .in = in, .n = 100, .in_size = sizeof *in, .out_size = sizeof *in};
    struct modus_imap *imap;
    int tid = gettid();
    (void)state;

    assert_int_equal(modus_imap_new(&imap, pool, &map, true), 0);
    assert_int_equal(modus_imap_next(imap, 0, NULL, NULL), -EAGAIN);
    AWAIT(atomic_load(&inside_gate) == 2);
    pthread_t thread = start_thread(open_gate_for, &tid);
    modus_imap_free(imap);
    join_thread(thread);
    end_pool(pool);
    assert_int_equal(atomic_load(&inside_gate), 2);
}

static void test_imap_failures(void **state)
{
    struct modus_pool *pool = pool_of(2);
    long in[] = {0, 2, 3, 4, 5}, value;
    struct modus_imap *imap;
    struct modus_map map = {
        .run = fail_on_odd, .in = in, .n = 5, .in_size = sizeof *in, .out_size = sizeof(long)};
    struct modus_map_failure failure;
    static const int one_each[] = {0, 0, -EPERM, 0, -EPERM};
    static const int in_fours[] = {0, 0, -EPERM, -EPERM, -EPERM};
    (void)state;

    map.failure = &failure;
    for (int form = 0; form < 2; form++) {
        map.chunk = form ? 4 : 0;
        failure = (struct modus_map_failure){0};
        assert_int_equal(modus_imap_new(&imap, pool, &map, true), 0);
        for (int i = 0; i < 5; i++)
            assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL),
                             (form ? in_fours : one_each)[i]);
        assert_int_equal(failure.index, 4);
        assert_string_equal(failure.text, "5 is odd");
        assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL), MODUS_EMPTY);
        modus_imap_free(imap);
    }
    map.run = NULL;
    assert_int_equal(modus_imap_new(&imap, pool, &map, true), -EINVAL);
    map.run = pass_gate;
    assert_int_equal(modus_imap_new(&imap, pool, &map, true), 0);
    assert_int_equal(modus_imap_next(imap, 0, &value, NULL), -EAGAIN);
    assert_int_equal(modus_imap_next(imap, modus_ms(2), &value, NULL), -ETIMEDOUT);
    modus_event_set(&gate);
    assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL), 0);
    modus_imap_free(imap); /* in the middle */
    assert_int_equal(modus_imap_new(&imap, pool, &map, true), 0);
    modus_pool_close(pool);
    assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL), MODUS_CLOSED);
    assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL), MODUS_EMPTY);
    modus_imap_free(imap);
    end_pool(pool);
}

/* No more than a few chunks are ahead. */
static void test_imap_window(void **state)
{
    struct modus_pool *pool = pool_of(1);
    long value;
    struct modus_imap *imap;
    struct modus_map map = {.run = add_one, .n = 1000};
    (void)state;

    assert_int_equal(modus_imap_new(&imap, pool, &map, true), 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL), 0);
        assert_true(atomic_load(&tally) <= i + 5);
    }
    modus_imap_free(imap);
    end_pool(pool);
}

/* --- workers come and go ------------------------------------------------------------------------ */

static int tell_tid(struct modus_call *call)
{
    return reply(call, gettid());
}

static void test_tasks_max(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 1, .tasks_max = 2});
    long tids[6];
    (void)state;

    for (int i = 0; i < 6; i++)
        tids[i] = answer_of(ask(pool, tell_tid, 0));
    assert_int_equal(tids[0], tids[1]);
    assert_int_equal(tids[2], tids[3]);
    assert_int_equal(tids[4], tids[5]);
    assert_int_not_equal(tids[1], tids[2]);
    assert_int_not_equal(tids[3], tids[4]);
    AWAIT(stats_of(pool).replaced == 3);
    assert_int_equal(stats_of(pool).workers, 1);
    assert_int_equal(stats_of(pool).done, 6);
    end_pool(pool);
}

static _Thread_local int prepared;
static atomic_int failures_left;

static int prepare(void *argument)
{
    if (atomic_fetch_sub(&failures_left, 1) > 0)
        return -ENOMEM;
    prepared = *(int *)argument;
    return 0;
}

static int tell_prepared(struct modus_call *call)
{
    return reply(call, prepared);
}

static void test_initializer(void **state)
{
    int value = 42;
    struct modus_pool_attr attr = {
        .kind = MODUS_POOL_THREAD, .n = 2, .initializer = prepare, .argument = &value};
    struct modus_pool *pool = NULL;
    (void)state;

    unsigned before = threads_here();
    atomic_store(&failures_left, 0);
    pool = pool_with(&attr);
    assert_int_equal(stats_of(pool).workers, 1);
    assert_int_equal(answer_of(ask(pool, tell_prepared, 0)), 42);
    atomic_store(&failures_left, 1000); /* the second thread never comes; the first goes on */
    for (int i = 0; i < 20; i++)
        modus_future_put(ask(pool, tell_prepared, 0));
    assert_int_equal(answer_of(ask(pool, tell_prepared, 0)), 42);
    end_pool(pool);

    atomic_store(&failures_left, 2); /* twice is not three times */
    pool = pool_with(&attr);
    assert_int_equal(answer_of(ask(pool, tell_prepared, 0)), 42);
    end_pool(pool);

    atomic_store(&failures_left, 1000);
    pool = NULL;
    assert_int_equal(modus_pool_new(&pool, &attr), -ENOMEM);
    assert_int_equal(atomic_load(&failures_left), 997);
    assert_null(pool);
    AWAIT(threads_here() <= before);
}

static void test_broken(void **state)
{
    struct modus_future *queued[4];
    int value = 42;
    void *rc;
    (void)state;

    atomic_store(&failures_left, 0);
    struct modus_pool *pool = pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD,
                                                                  .n = 1,
                                                                  .capacity = 4,
                                                                  .tasks_max = 1,
                                                                  .initializer = prepare,
                                                                  .argument = &value});
    atomic_store(&failures_left, 1000);
    struct modus_future *first = ask(pool, pass_gate, 0);
    AWAIT(atomic_load(&inside_gate) == 1);
    for (int i = 0; i < 4; i++)
        queued[i] = ask(pool, square, i);
    pthread_t thread = start_thread(submit_one_more, pool);
    usleep(2000); /* it waits for room, or is late: it is told the same */
    modus_event_set(&gate);
    assert_int_equal(answer_of(first), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(failure_of(queued[i]), -ENOMEM);
    pthread_join(thread, &rc);
    assert_int_equal((intptr_t)rc, MODUS_BROKEN);
    assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                     MODUS_BROKEN);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
}

/* --- costs and remains -------------------------------------------------------------------------- */

static void test_conservation(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 3, .capacity = 64});
    (void)state;

    submit_from_three(pool, 3200);
    for (int i = 0; i < 400; i++)
        CHECK_INT(
            modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, MODUS_FOREVER), 0);
    modus_pool_close(pool);
    modus_pool_join(pool, MODUS_FOREVER);
    assert_int_equal(stats_of(pool).done, 10000);
    assert_int_equal(stats_of(pool).queued, 0);
    assert_int_equal(stats_of(pool).running, 0);
    assert_int_equal(atomic_load(&tally), 400);
    modus_pool_free(pool);
}

/* Terminated in the middle of everything: every future ends, once. */
static void *submit_until_closed(void *argument)
{
    struct modus_future *future;
    long number = 3, ended = 0;
    struct modus_task task = {.run = square, .input = &number, .size = sizeof number};

    while (modus_pool_submit(argument, &future, &task, MODUS_FOREVER) == 0) {
        int code = failure_of(future);

        CHECK(code == 0 || code == MODUS_CANCELED);
        ended++;
    }
    return (void *)(intptr_t)ended;
}

static void test_terminate_race(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct modus_pool *pool =
            pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 2, .capacity = 2});
        pthread_t threads[3];

        for (int j = 0; j < 3; j++)
            threads[j] = start_thread(submit_until_closed, pool);
        AWAIT(stats_of(pool).done > 50);
        modus_pool_terminate(pool);
        for (int j = 0; j < 3; j++)
            join_thread(threads[j]);
        modus_pool_free(pool);
    }
}

static void test_nothing_is_left(void **state)
{
    unsigned threads = threads_here(), fds = fds_here();
    (void)state;

    for (int i = 0; i < 10; i++) {
        struct modus_pool *pool = pool_of(3);
        struct modus_future *futures[30];

        for (int j = 0; j < 30; j++)
            futures[j] = ask(pool, square, j);
        if (i % 2)
            end_pool(pool);
        else
            modus_pool_free(pool);
        for (int j = 0; j < 30; j++)
            modus_future_put(futures[j]);
    }
    AWAIT(threads_here() <= threads);
    assert_int_equal(fds_here(), fds);
}

static void test_idle_is_asleep(void **state)
{
    struct modus_pool *pool = pool_of(1);
    int tid;
    (void)state;

    assert_int_equal(answer_of(ask(pool, square, 2)), 4);
    assert_int_equal(modus_pool_workers(pool, &tid, 1), 1);
    await_idle(tid, 50);
    end_pool(pool);
}

static int use_parents(void *argument)
{
    struct modus_pool *pool = argument;
    struct modus_map map = {.run = square, .n = 0};

    CHECK_INT(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0), -ECHILD);
    CHECK_INT(modus_pool_map(pool, &map), -ECHILD);
    CHECK_INT(modus_pool_close(pool), -ECHILD);
    CHECK_INT(modus_pool_terminate(pool), -ECHILD);
    CHECK_INT(modus_pool_join(pool, MODUS_FOREVER), -ECHILD);
    CHECK_INT(modus_pool_workers(pool, NULL, 0), 0);
    modus_pool_free(pool);
#ifndef __SANITIZE_THREAD__ /* which can't begin threads in a child of a program with threads */
    pool = pool_of(2);
    CHECK_INT(answer_of(ask(pool, square, 3)), 9);
    end_pool(pool);
#endif
    return 0;
}

static void test_fork(void **state)
{
    struct modus_pool *pool = pool_of(2);
    (void)state;

    assert_int_equal(answer_of(ask(pool, square, 2)), 4);
    assert_int_equal(reap(start_child(use_parents, pool)), 0);
    end_pool(pool);
}

/* A coroutine hands its blocking work to threads. */
static int co_offload(void *argument)
{
    return (int)answer_of(ask(argument, square, 5));
}

static int co_program(void *argument)
{
    struct modus_co *cos[3];
    int result, sum = 0;

    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_co_start(&cos[i], NULL, co_offload, argument), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(modus_co_join(cos[i], MODUS_FOREVER, &result), 0);
        modus_co_put(cos[i]);
        sum += result;
    }
    return sum;
}

static void test_coroutines(void **state)
{
    struct modus_pool *pool = pool_of(2);
    (void)state;

    assert_int_equal(modus_co_run(co_program, pool), 75);
    end_pool(pool);
}

static struct modus_local session;

static void look_at_pool(void *value)
{
    atomic_store(&inside_gate, 1);
    CHECK_INT(modus_event_wait(&gate, MODUS_FOREVER), 0);
    CHECK(stats_of(value).done == 1);
    atomic_fetch_add(&tally, 1);
}

static int open_session(struct modus_call *call)
{
    (void)call;
    return modus_local_set(&session, the_pool);
}

static void *join_it(void *tid)
{
    atomic_store((atomic_int *)tid, gettid());
    CHECK_INT(modus_pool_join(the_pool, MODUS_FOREVER), 0);
    CHECK_INT(atomic_load(&tally), 1);
    return NULL;
}

/* What is destroyed at the end of a thread of the pool may look at the pool, while that is joined. */
static void test_destructor_uses_pool(void **state)
{
    atomic_int tids[2] = {0};
    pthread_t joining[2];
    (void)state;

    assert_int_equal(modus_local_init(&session, look_at_pool), 0);
    the_pool = pool_of(1);
    assert_int_equal(failure_of(ask(the_pool, open_session, 0)), 0);
    assert_int_equal(modus_pool_close(the_pool), 0);
    AWAIT(atomic_load(&inside_gate) == 1);
    for (int i = 0; i < 2; i++)
        joining[i] = start_thread(join_it, &tids[i]);
    for (int i = 0; i < 2; i++) {
        AWAIT(atomic_load(&tids[i]));
        AWAIT_ASLEEP(atomic_load(&tids[i]));
    }
    modus_event_set(&gate);
    for (int i = 0; i < 2; i++)
        join_thread(joining[i]);
    modus_pool_free(the_pool);
    modus_local_fini(&session);
}

static int end_slowly(struct modus_call *call)
{
    until_cancelled(call);
    usleep(10000);
    atomic_fetch_add(&tally, 1);
    return 0;
}

static int free_when_cancelled(void *argument)
{
    modus_co_cancel(modus_co_self());
    CHECK_INT(modus_pool_join(argument, MODUS_FOREVER), -EINVAL);
    modus_pool_free(argument);
    CHECK_INT(atomic_load(&tally), 2); /* it has not gone before its threads */
    return 6;
}

/* A coroutine that is cancelled frees its pool: that is no wait to break off. */
static void test_cancelled_coroutine(void **state)
{
    struct modus_pool *pool = pool_of(2);
    (void)state;

    for (int i = 0; i < 2; i++)
        modus_future_put(ask(pool, end_slowly, 0));
    AWAIT(atomic_load(&inside_gate) == 2);
    assert_int_equal(modus_co_run(free_when_cancelled, pool), 6);
}

#define TEST(name) cmocka_unit_test_setup(name, open_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_new_errors),
        TEST(test_submit),
        TEST(test_apply),
        TEST(test_result_is_repeatable),
        TEST(test_threads_on_demand),
        TEST(test_close_runs_what_is_queued),
        TEST(test_full),
        TEST(test_close_wakes_who_waits_for_room),
        TEST(test_cancel_queued),
        TEST(test_terminate),
        TEST(test_shutdown),
        TEST(test_tasks_wait_for_tasks),
        TEST(test_tasks_wait_for_many),
        TEST(test_circles),
        TEST(test_circles_of_many),
        TEST(test_circle_through_callback),
        TEST(test_worker_submits_to_full_queue),
        TEST(test_worker_joins_pool),
        TEST(test_map),
        TEST(test_map_failure),
        TEST(test_imap),
        TEST(test_imap_freed_early),
        TEST(test_imap_failures),
        TEST(test_imap_window),
        TEST(test_tasks_max),
        TEST(test_initializer),
        TEST(test_broken),
        TEST(test_conservation),
        TEST(test_terminate_race),
        TEST(test_nothing_is_left),
        TEST(test_idle_is_asleep),
        TEST(test_fork),
        TEST(test_coroutines),
        TEST(test_cancelled_coroutine),
        TEST(test_destructor_uses_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
