/* SPDX-License-Identifier: MIT */
/* Pools of workers, of processes and of threads: P3 to P5, L10, I6. */
#include "tests/demo/demo.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "concurrency/future.h"
#include "concurrency/pool.h"

enum { MOST = 10 };

static struct modus_pool *new_pool(struct demo *d, enum modus_pool_kind kind, unsigned n)
{
    struct modus_pool *pool = NULL;
    DEMO_CHECK(d, modus_pool_new(&pool, &(struct modus_pool_attr){.kind = kind, .n = n}) == 0);
    return pool;
}

static void close_and_join(struct demo *d, struct modus_pool *pool)
{
    DEMO_CHECK(d, modus_pool_close(pool) == 0);
    DEMO_CHECK(d, modus_pool_join(pool, modus_seconds(50)) == 0);
    modus_pool_free(pool);
}

/* --- P3, L10: five tasks for four workers ------------------------------------------------------------ */

struct long_task {
    int number;
    double pause;
};

struct run {
    int worker; /* its kernel's id */
    double begun, ended;
};

static int long_time_task(struct modus_call *call)
{
    const struct long_task *task = call->input;
    struct run run = {.worker = gettid(), .begun = demo_now()};
    demo_pause(task->pause);
    run.ended = demo_now();
    return modus_call_answer(call, &run, sizeof run);
}

static void five_for_four(struct demo *d, enum modus_pool_kind kind)
{
    static const double pauses[5] = {0.2, 0.4, 0.5, 0.6, 0.3}; /* 0 to 3 s at random in the notes */
    struct modus_pool *pool = new_pool(d, kind, 4);
    struct modus_future *futures[5];
    struct run runs[5];
    double begun = demo_now(), first_end, sum = 0;
    for (int i = 0; i < 5; i++) {
        struct long_task task = {i, pauses[i]};
        sum += pauses[i];
        DEMO_CHECK(
            d, modus_pool_submit(
                   pool, &futures[i],
                   &(struct modus_task){.run = long_time_task, .input = &task, .size = sizeof task},
                   MODUS_FOREVER) == 0);
    }
    demo_print(d, "Waiting for all subprocesses done...");
    DEMO_CHECK(d, modus_pool_join(pool, MODUS_FOREVER) == -EINVAL);
    DEMO_CHECK(d, modus_pool_close(pool) == 0);
    DEMO_CHECK(d, modus_pool_join(pool, modus_seconds(50)) == 0);
    double took = demo_now() - begun;
    for (int i = 0; i < 5; i++) {
        DEMO_CHECK(d, modus_future_result(futures[i], 0, &runs[i], sizeof runs[i]) == 0);
        demo_print(d, "Run task %d (%d), from %.2f to %.2f s", i, runs[i].worker,
                   runs[i].begun - begun, runs[i].ended - begun);
        modus_future_put(futures[i]);
    }
    modus_pool_free(pool);
    first_end = runs[0].ended;
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < i; j++)
            DEMO_CHECK(d, runs[i].worker != runs[j].worker);
        first_end = runs[i].ended < first_end ? runs[i].ended : first_end;
        demo_expect_time(d, runs[i].begun - begun < 0.15, "the first four begin at once");
    }
    DEMO_CHECK(d, runs[4].begun >= first_end);
    bool by_one_of_four = false;
    for (int i = 0; i < 4; i++)
        by_one_of_four = by_one_of_four || runs[i].worker == runs[4].worker;
    DEMO_CHECK(d, by_one_of_four);
    demo_expect_time(d, took < sum, "at the same time");
    demo_saw(d,
             "tasks 0 to 3 begin at once, task 4 at %.2f s by the worker of one that has ended; "
             "%.2f s in all, %.1f one after the other",
             runs[4].begun - begun, took, sum);
}

static void p3(struct demo *d)
{
    five_for_four(d, MODUS_POOL_PROCESS);
}

static void l10(struct demo *d)
{
    five_for_four(d, MODUS_POOL_THREAD);
}

/* --- P4: close, then join ------------------------------------------------------------------------------- */

static int tell_begin(struct modus_call *call)
{
    double begun = demo_now();
    demo_pause(0.2);
    return modus_call_answer(call, &begun, sizeof begun);
}

static void p4(struct demo *d)
{
    struct modus_pool *pool = new_pool(d, MODUS_POOL_PROCESS, 5);
    struct modus_task task = {.run = tell_begin};
    struct modus_future *futures[5];
    double begun, start = demo_now(), last = 0;
    for (int i = 0; i < 5; i++)
        DEMO_CHECK(d, modus_pool_submit(pool, &futures[i], &task, MODUS_FOREVER) == 0);
    DEMO_CHECK(d, modus_pool_join(pool, 0) == -EINVAL);
    DEMO_CHECK(d, modus_pool_close(pool) == 0 && modus_pool_close(pool) == 0);
    DEMO_CHECK(d, modus_pool_submit(pool, NULL, &task, MODUS_FOREVER) == MODUS_CLOSED);
    DEMO_CHECK(d, modus_pool_join(pool, modus_seconds(50)) == 0);
    for (int i = 0; i < 5; i++) {
        DEMO_CHECK(d, modus_future_result(futures[i], 0, &begun, sizeof begun) == 0);
        last = begun - start > last ? begun - start : last;
        modus_future_put(futures[i]);
    }
    modus_pool_free(pool);
    demo_expect_time(d, last < 0.15, "a Pool(5) lets none of five wait");
    demo_saw(d,
             "join before close is refused, submit after close too (the notes close inside the "
             "loop: their 2nd task is refused); all five began within %.0f ms",
             last * 1e3);
}

/* --- P5: squares --------------------------------------------------------------------------------------------- */

static int square(struct modus_call *call)
{
    int x = *(const int *)call->input;
    demo_pause(0.2);
    return modus_call_answer(call, &(int){x * x}, sizeof(int));
}

static void p5(struct demo *d)
{
    struct modus_pool *pool = new_pool(d, MODUS_POOL_PROCESS, 5);
    struct modus_future *futures[10];
    int answer = -1;
    double begun = demo_now();
    for (int i = 0; i < 10; i++)
        DEMO_CHECK(
            d, modus_pool_submit(pool, &futures[i],
                                 &(struct modus_task){.run = square, .input = &i, .size = sizeof i},
                                 MODUS_FOREVER) == 0);
    DEMO_CHECK(d,
               modus_future_result(futures[9], modus_ms(20), &answer, sizeof answer) == -ETIMEDOUT);
    for (int i = 0; i < 10; i++) {
        DEMO_CHECK(d,
                   modus_future_result(futures[i], modus_seconds(5), &answer, sizeof answer) == 0);
        DEMO_CHECK(d, answer == i * i);
        demo_print(d, "result %d", answer);
        modus_future_put(futures[i]);
    }
    double took = demo_now() - begun;
    begun = demo_now();
    int three = 3;
    DEMO_CHECK(d,
               modus_pool_apply(
                   pool, &(struct modus_task){.run = square, .input = &three, .size = sizeof three},
                   &answer, sizeof answer, MODUS_FOREVER) == 0 &&
                   answer == 9);
    double applied = demo_now() - begun;
    close_and_join(d, pool);
    demo_expect_seconds(d, took, 0.4);
    demo_expect_seconds(d, applied, 0.2);
    demo_saw(d,
             "0 1 4 ... 81 in two waves, %.2f s; get waits for an answer (20 ms are too short, 5 s "
             "enough); apply waits for each: %.2f s a task",
             took, applied);
}

/* --- I6: futures ----------------------------------------------------------------------------------------------- */

static int pause_and_answer(struct modus_call *call)
{
    double pause = *(const double *)call->input;
    demo_pause(pause);
    return pause > 0.25 ? modus_call_fail(call, -EOVERFLOW, "%.1f s are too long", pause) : 0;
}

static void i6(struct demo *d)
{
    static const double pauses[] = {0.2, 0.05, 0.3, 0.1};
    static const size_t order[] = {1, 3, 0, 2};
    struct modus_pool *pool = new_pool(d, MODUS_POOL_THREAD, 4);
    struct modus_future *futures[4], *next, *queued;
    struct modus_completed *completed;
    for (int i = 0; i < 4; i++)
        DEMO_CHECK(d, modus_pool_submit(pool, &futures[i],
                                        &(struct modus_task){.run = pause_and_answer,
                                                             .input = &pauses[i],
                                                             .size = sizeof pauses[i]},
                                        MODUS_FOREVER) == 0);
    DEMO_CHECK(d, modus_pool_submit(pool, &queued,
                                    &(struct modus_task){.run = pause_and_answer,
                                                         .input = &pauses[0],
                                                         .size = sizeof pauses[0]},
                                    MODUS_FOREVER) == 0);
    DEMO_CHECK(d, modus_future_cancel(queued) == 0);
    DEMO_CHECK(d, modus_future_result(queued, MODUS_FOREVER, NULL, 0) == MODUS_CANCELED);
    modus_future_put(queued);
    DEMO_CHECK(d, modus_completed_new(&completed, futures, 4) == 0);
    for (int i = 0; modus_completed_next(completed, modus_seconds(50), &next) == 0; i++)
        demo_expect_time(d, i < 4 && next == futures[order[i]], "the shortest first");
    modus_completed_free(completed);
    DEMO_CHECK(d, modus_future_result(futures[2], 0, NULL, 0) == -EOVERFLOW);
    demo_print(d, "future 2: %s", modus_future_text(futures[2]));
    DEMO_CHECK(d, demo_count(d, "future 2: 0.3 s are too long") == 1);
    for (int i = 0; i < 4; i++)
        modus_future_put(futures[i]);
    DEMO_CHECK(d, modus_pool_shutdown(pool, true, true) == 0);
    DEMO_CHECK(d, modus_pool_submit(pool, NULL, &(struct modus_task){.run = pause_and_answer}, 0) ==
                      MODUS_CLOSED);
    modus_pool_free(pool);
    demo_saw(d, "as they end, not as they began: 1 3 0 2; one is cancelled in the queue, one fails "
                "with its reason, shutdown lets no more in");
}

const struct demo_row demo_pools[] = {
    {"P3", "Pool(4) and five tasks, at about 1/5", p3},    {"P4", "close before join", p4},
    {"P5", "Pool(5), ten squares of 2 s, at 1/10", p5},    {"L10", "a pool of threads: as P3", l10},
    {"I6", "futures, as concurrent.futures has them", i6}, {0},
};
