/* SPDX-License-Identifier: MIT */
/* What the tests of both kinds of pools share: tasks, and asking for them. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_POOL_H
#define TESTS_UNIT_TEST_CONCURRENCY_POOL_H

#include "test_concurrency_left.h"

#include "concurrency/pool.h"

static inline struct modus_pool *pool_with(const struct modus_pool_attr *attr)
{
    struct modus_pool *pool = NULL;

    CHECK_INT(modus_pool_new(&pool, attr), 0);
    return pool;
}

static inline struct modus_future *ask(struct modus_pool *pool, modus_task_function *run,
                                       long number)
{
    struct modus_future *future = NULL;
    struct modus_task task = {.run = run, .input = &number, .size = sizeof number};

    CHECK_INT(modus_pool_submit(pool, &future, &task, MODUS_FOREVER), 0);
    return future;
}

/* The answer, a number; the future is put. */
static inline long answer_of(struct modus_future *future)
{
    long number = -1;

    CHECK_INT(modus_future_result(future, MODUS_FOREVER, &number, sizeof number), 0);
    modus_future_put(future);
    return number;
}

/* How it failed; the future is put. */
static inline int failure_of(struct modus_future *future)
{
    int code = modus_future_result(future, MODUS_FOREVER, NULL, 0);

    modus_future_put(future);
    return code;
}

static inline long number_in(const struct modus_call *call)
{
    long number;

    memcpy(&number, call->input, sizeof number);
    return number;
}

static inline int reply(struct modus_call *call, long number)
{
    return modus_call_answer(call, &number, sizeof number);
}

static inline int square(struct modus_call *call)
{
    return reply(call, number_in(call) * number_in(call));
}

static inline int fail_on_odd(struct modus_call *call)
{
    long number = number_in(call);

    return number % 2 ? modus_call_fail(call, -EPERM, "%ld is odd", number) : reply(call, number);
}

static inline void end_pool(struct modus_pool *pool)
{
    CHECK_INT(modus_pool_close(pool), 0);
    CHECK_INT(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
}

static inline struct modus_pool_stats stats_of(struct modus_pool *pool)
{
    struct modus_pool_stats stats;

    modus_pool_stats(pool, &stats);
    return stats;
}

struct submitter {
    struct modus_pool *pool;
    long tasks, sum;
};

static inline void *submit_and_sum(void *argument)
{
    struct submitter *submitter = argument;
    struct modus_future *futures[32];

    for (long i = 0; i < submitter->tasks; i += 32) {
        for (long j = 0; j < 32; j++)
            futures[j] = ask(submitter->pool, square, i + j);
        for (long j = 0; j < 32; j++)
            submitter->sum += answer_of(futures[j]) == (i + j) * (i + j);
    }
    return NULL;
}

/* Three threads ask for so many tasks each, and get each answer once. */
static inline void submit_from_three(struct modus_pool *pool, long tasks)
{
    struct submitter submitters[3];
    pthread_t threads[3];

    for (int i = 0; i < 3; i++) {
        submitters[i] = (struct submitter){.pool = pool, .tasks = tasks};
        threads[i] = start_thread(submit_and_sum, &submitters[i]);
    }
    for (int i = 0; i < 3; i++) {
        join_thread(threads[i]);
        CHECK_INT(submitters[i].sum, tasks);
    }
}

#endif
