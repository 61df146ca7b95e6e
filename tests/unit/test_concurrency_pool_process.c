/* SPDX-License-Identifier: MIT */
/*
 * Pools of processes: every verb and error, workers that are killed in the middle of tasks, between
 * them and at each window of the algorithm, the nursery killed, the program killed; nothing lost,
 * nothing twice, nobody hangs, nothing left.
 */
#include "test_concurrency_pool.h"

#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/fault.h"
#include "concurrency/process.h"
#include "concurrency/sem.h"

#include <poll.h>
#include <sys/mman.h>

/* Shared with the workers; made before the pools. */
static struct board {
    struct modus_event gate, other_gate;
    atomic_int inside_gate, tally, runs[10000];
    atomic_int failures_left, kills_left;
    atomic_int pids[64];
    atomic_uint pid_count;
} * board;

static struct modus_arena *arena;

static int open_test(void **state)
{
    if (!arena) {
        CHECK_INT(modus_arena_open(&arena, 1 << 22, 8), 0);
        board = modus_arena_alloc(arena, sizeof *board, 0);
    }
    memset(board, 0, sizeof *board);
    modus_event_init(&board->gate, MODUS_PROCESS);
    modus_event_init(&board->other_gate, MODUS_PROCESS);
    return watchdog(state);
}

static struct modus_pool *pool_of(unsigned n)
{
    return pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = n});
}

static int pass_gate(struct modus_call *call)
{
    atomic_fetch_add(&board->inside_gate, 1);
    modus_event_wait(&board->gate, MODUS_FOREVER);
    return reply(call, number_in(call));
}

static int add_one(struct modus_call *call)
{
    (void)call;
    atomic_fetch_add(&board->tally, 1);
    return 0;
}

static int tell_pid(struct modus_call *call)
{
    return reply(call, getpid());
}

static int die(struct modus_call *call)
{
    raise((int)number_in(call));
    return 0;
}

static int leave_with(struct modus_call *call)
{
    _exit((int)number_in(call));
}

/* --- verbs and errors ------------------------------------------------------------------------- */

static void test_submit(void **state)
{
    struct modus_pool *pool = pool_of(2);
    struct modus_future *futures[10];
    long two = 2;
    (void)state;

    struct modus_task task = {.run = square, .input = &two, .size = 65};
    assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), -EINVAL);
    task.size = sizeof two;
    assert_int_equal(modus_pool_submit(pool, NULL, &task, -2), -EINVAL);
    assert_int_equal(modus_pool_join(pool, 0), -EINVAL);
    for (long i = 0; i < 10; i++)
        futures[i] = ask(pool, square, i);
    for (long i = 0; i < 10; i++)
        assert_int_equal(answer_of(futures[i]), i * i);
    struct modus_future *odd = ask(pool, fail_on_odd, 7);
    assert_int_equal(modus_future_wait(odd, MODUS_FOREVER), 0);
    assert_string_equal(modus_future_text(odd), "7 is odd");
    assert_int_equal(failure_of(odd), -EPERM);
    assert_int_not_equal(answer_of(ask(pool, tell_pid, 0)), getpid());
    long answer = 0;
    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, MODUS_FOREVER), 0);
    assert_int_equal(answer, 4);
    assert_int_equal(stats_of(pool).workers, 2);
    AWAIT(stats_of(pool).done == 13);
    assert_int_equal(stats_of(pool).running, 0);
    assert_int_equal(modus_pool_close(pool), 0);
    assert_int_equal(modus_pool_close(pool), 0);
    assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), MODUS_CLOSED);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    assert_int_equal(modus_pool_join(pool, 0), 0);
    assert_int_equal(stats_of(pool).workers, 0);
    assert_int_equal(stats_of(pool).deaths, 0);
    modus_pool_free(pool);
}

/* P3: five tasks on four workers; the fifth starts when the first has ended, on one of the four. */
static void test_five_on_four(void **state)
{
    struct modus_pool *pool = pool_of(4);
    struct modus_future *futures[5];
    (void)state;

    for (int i = 0; i < 5; i++)
        futures[i] = ask(pool, pass_gate, i);
    AWAIT(atomic_load(&board->inside_gate) == 4);
    assert_int_equal(modus_future_state(futures[0]), MODUS_FUTURE_RUNNING);
    assert_int_equal(modus_future_state(futures[4]), MODUS_FUTURE_PENDING);
    assert_int_equal(modus_future_result(futures[4], modus_ms(2), NULL, 0), -ETIMEDOUT);
    AWAIT(stats_of(pool).running == 4);
    assert_int_equal(stats_of(pool).queued, 1);
    modus_event_set(&board->gate);
    for (int i = 0; i < 5; i++)
        assert_int_equal(answer_of(futures[i]), i);
    assert_true(stats_of(pool).high_water >= 1);
    end_pool(pool);
}

static void *submit_one_more(void *argument)
{
    int rc = modus_pool_submit(argument, NULL, &(struct modus_task){.run = add_one}, MODUS_FOREVER);

    return (void *)(intptr_t)rc;
}

static void test_full(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1, .capacity = 4});
    struct modus_task task = {.run = add_one};
    struct modus_future *running = ask(pool, pass_gate, 0);
    void *rc;
    (void)state;

    AWAIT(atomic_load(&board->inside_gate) == 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), 0);
    assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), MODUS_FULL);
    assert_int_equal(modus_pool_submit(pool, NULL, &task, modus_ms(2)), -ETIMEDOUT);
    pthread_t thread = start_thread(submit_one_more, pool);
    modus_event_set(&board->gate);
    pthread_join(thread, &rc);
    assert_int_equal((intptr_t)rc, 0);
    modus_event_clear(&board->gate);
    modus_future_put(running);
    running = ask(pool, pass_gate, 0);
    AWAIT(atomic_load(&board->inside_gate) == 2);
    for (int i = 0; i < 4; i++) /* the records may not be back yet */
        assert_int_equal(modus_pool_submit(pool, NULL, &task, MODUS_FOREVER), 0);
    thread = start_thread(submit_one_more, pool);
    usleep(2000);
    modus_pool_close(pool); /* who waits for room is told */
    pthread_join(thread, &rc);
    assert_int_equal((intptr_t)rc, MODUS_CLOSED);
    modus_event_set(&board->gate);
    end_pool(pool);
    modus_future_put(running);
    assert_int_equal(atomic_load(&board->tally), 9);
}

static void test_cancel(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1, .capacity = 8});
    struct modus_future *first = ask(pool, pass_gate, 1), *second = ask(pool, pass_gate, 2);
    (void)state;

    AWAIT(atomic_load(&board->inside_gate) == 1);
    assert_int_equal(modus_future_cancel(second), 0);
    assert_int_equal(modus_future_cancel(second), -EALREADY);
    assert_int_equal(modus_future_cancel(first), -EBUSY);
    assert_int_equal(failure_of(second), MODUS_CANCELED);
    struct modus_future *third = ask(pool, square, 3);
    assert_int_equal(modus_pool_shutdown(pool, false, true), 0);
    assert_int_equal(failure_of(third), MODUS_CANCELED);
    modus_event_set(&board->gate);
    assert_int_equal(answer_of(first), 1);
    assert_int_equal(modus_pool_shutdown(pool, true, false), 0);
    assert_int_equal(atomic_load(&board->inside_gate), 1);
    modus_pool_free(pool);
}

/* Cancel against claim: whoever wins, the record comes back. */
static void test_cancel_race(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 2, .capacity = 4});
    int cancelled = 0;
    (void)state;

    for (int i = 0; i < 2000; i++) {
        struct modus_future *future = ask(pool, add_one, i);
        int rc = modus_future_cancel(future);

        cancelled += rc == 0;
        assert_int_equal(failure_of(future), rc == 0 ? MODUS_CANCELED : 0);
    }
    for (int i = 0; i < 100; i++)
        assert_int_equal(answer_of(ask(pool, square, i)), i * i); /* the capacity is all there */
    end_pool(pool);
    assert_int_equal(atomic_load(&board->tally), 2000 - cancelled);
}

static void *submit_in_the_window(void *argument)
{
    while (!atomic_load(&board->tally))
        CHECK_INT(answer_of(ask(argument, square, 3)), 9);
    return NULL;
}

/* Who cancels is held up between the record and the table of futures, and meanwhile the record is
 * passed over, free, and another task's: which keeps its future. */
static void test_cancel_late(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1, .capacity = 1});
    pthread_t thread = start_thread(submit_in_the_window, pool);
    (void)state;

    modus_fault_plan(MODUS_FAULT_TASK_WITHDRAWN, MODUS_FAULT_DELAY, 0);
    while (modus_fault_passed() < 20) {
        struct modus_future *future = ask(pool, square, 4);

        modus_future_cancel(future);
        modus_future_wait(future, MODUS_FOREVER);
        modus_future_put(future);
    }
    modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DELAY, 0);
    atomic_store(&board->tally, 1);
    join_thread(thread);
    end_pool(pool);
}

static int ignore_sigterm(struct modus_call *call)
{
    signal(SIGTERM, SIG_IGN);
    return pass_gate(call);
}

static void test_terminate(void **state)
{
    (void)state;
    for (int stubborn = 0; stubborn < 2; stubborn++) {
        struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
            .kind = MODUS_POOL_PROCESS, .n = 2, .grace_ns = modus_ms(stubborn ? 20 : 20000)});
        struct modus_future *running[2], *queued[30];

        atomic_store(&board->inside_gate, 0);
        for (int i = 0; i < 2; i++)
            running[i] = ask(pool, stubborn ? ignore_sigterm : pass_gate, i);
        AWAIT(atomic_load(&board->inside_gate) == 2);
        for (int i = 0; i < 30; i++)
            queued[i] = ask(pool, square, i);
        assert_int_equal(modus_pool_terminate(pool), 0);
        assert_int_equal(modus_pool_terminate(pool), 0);
        for (int i = 0; i < 30; i++)
            assert_int_equal(failure_of(queued[i]), MODUS_CANCELED);
        for (int i = 0; i < 2; i++)
            assert_int_equal(failure_of(running[i]), MODUS_CANCELED);
        assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                         MODUS_CLOSED);
        assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
        modus_pool_free(pool);
    }
}

static void test_free_terminates(void **state)
{
    struct modus_pool *pool = pool_of(1);
    struct modus_future *running = ask(pool, pass_gate, 0);
    (void)state;

    AWAIT(atomic_load(&board->inside_gate) == 1);
    modus_pool_free(pool);
    assert_int_equal(failure_of(running), MODUS_CANCELED);
}

/* --- map and imap ------------------------------------------------------------------------------ */

static void test_map(void **state)
{
    struct modus_pool *pool = pool_of(3);
    enum { N = 5000 };
    static long in[N], out[N];
    struct modus_map map = {.run = square,
                            .in = in,
                            .n = N,
                            .in_size = sizeof *in,
                            .out = out,
                            .out_size = sizeof *out};
    (void)state;

    for (int i = 0; i < N; i++)
        in[i] = i;
    for (size_t chunk = 0; chunk <= 1; chunk++) {
        memset(out, 0, sizeof out);
        map.chunk = chunk;
        assert_int_equal(modus_pool_map(pool, &map), 0);
        for (int i = 0; i < N; i++)
            assert_int_equal(out[i], i * i);
    }
    struct modus_map_failure failure = {0};
    map.run = fail_on_odd;
    map.failure = &failure;
    map.chunk = N;
    assert_int_equal(modus_pool_map(pool, &map), -EPERM);
    assert_int_equal(failure.index, 1);
    assert_string_equal(failure.text, "1 is odd");
    map.run = die; /* of signal 0 nobody dies */
    in[1] = in[2] = 0;
    in[3] = SIGKILL;
    assert_int_equal(modus_pool_map(pool, &map), MODUS_WORKERDIED);
    assert_int_equal(failure.index, 3);
    assert_non_null(strstr(failure.text, "signal 9"));
    map = (struct modus_map){.run = add_one, .n = 100};
    assert_int_equal(modus_pool_map(pool, &map), 0);
    assert_int_equal(atomic_load(&board->tally), 100);
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
    for (int form = 0; form < 4; form++) {
        map.chunk = form < 2 ? 1 : 10;
        assert_int_equal(modus_imap_new(&imap, pool, &map, form % 2), 0);
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, &index), 0);
            assert_int_equal(value, index * index);
            if (form % 2)
                assert_int_equal(index, i);
        }
        assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, &index), MODUS_EMPTY);
        modus_imap_free(imap);
    }
    map.run = die; /* each of these kills its worker, but for signal 0 */
    map.n = 1;
    in[0] = SIGKILL;
    assert_int_equal(modus_imap_new(&imap, pool, &map, true), 0);
    assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL), MODUS_WORKERDIED);
    assert_int_equal(modus_imap_next(imap, MODUS_FOREVER, &value, NULL), MODUS_EMPTY);
    modus_imap_free(imap);
    end_pool(pool);
}

static void *open_gate_for(void *sleeper)
{
    AWAIT_ASLEEP(*(int *)sleeper);
    modus_event_set(&board->gate);
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
    AWAIT(atomic_load(&board->inside_gate) == 2);
    pthread_t thread = start_thread(open_gate_for, &tid);
    modus_imap_free(imap);
    join_thread(thread);
    end_pool(pool);
    assert_int_equal(atomic_load(&board->inside_gate), 2);
}

/* --- workers come and go ------------------------------------------------------------------------ */

static void test_tasks_max(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1, .tasks_max = 2});
    long pids[6];
    (void)state;

    for (int i = 0; i < 6; i++)
        pids[i] = answer_of(ask(pool, tell_pid, 0));
    assert_int_equal(pids[0], pids[1]);
    assert_int_equal(pids[2], pids[3]);
    assert_int_equal(pids[4], pids[5]);
    assert_int_not_equal(pids[1], pids[2]);
    assert_int_not_equal(pids[3], pids[4]);
    AWAIT(stats_of(pool).replaced == 3);
    assert_int_equal(stats_of(pool).deaths, 0);
    AWAIT(stats_of(pool).workers == 1);
    assert_int_equal(stats_of(pool).done, 6);
    for (int i = 0; i < 60; i++) /* seats are used again */
        assert_int_equal(answer_of(ask(pool, square, i)), i * i);
    end_pool(pool);
}

static int prepared;

static int prepare(void *argument)
{
    if (atomic_fetch_sub(&board->failures_left, 1) > 0)
        return -ENOSPC;
    if (atomic_fetch_sub(&board->kills_left, 1) > 0)
        raise(SIGKILL);
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
        .kind = MODUS_POOL_PROCESS, .n = 2, .initializer = prepare, .argument = &value};
    struct modus_pool *pool = NULL;
    (void)state;

    for (int failing = 0; failing < 3; failing++) {
        atomic_store(&board->failures_left, failing);
        atomic_store(&board->kills_left, 0);
        pool = pool_with(&attr);
        for (int i = 0; i < 10; i++)
            assert_int_equal(answer_of(ask(pool, tell_prepared, 0)), 42);
        assert_int_equal(stats_of(pool).workers, 2);
        end_pool(pool);
    }
    assert_int_equal(prepared, 0); /* here */
    pool = NULL;
    atomic_store(&board->failures_left, 1000);
    assert_int_equal(modus_pool_new(&pool, &attr), -ENOSPC);
    assert_true(atomic_load(&board->failures_left) >= 1000 - 4); /* not for ever */
    atomic_store(&board->failures_left, 0);
    atomic_store(&board->kills_left, 1000);
    assert_int_equal(modus_pool_new(&pool, &attr), MODUS_WORKERDIED);
    assert_null(pool);
}

/* No worker can be had any more: what waits is told. */
static int make_when_cancelled(void *argument)
{
    struct modus_pool *pool = NULL;

    modus_co_cancel(modus_co_self());
    return modus_pool_new(&pool, argument);
}

/* A coroutine that is cancelled makes a pool, or fails to, as anybody else. */
static void test_cancelled_coroutine(void **state)
{
    int value = 42;
    struct modus_pool_attr attr = {
        .kind = MODUS_POOL_PROCESS, .n = 2, .initializer = prepare, .argument = &value};
    (void)state;

    atomic_store(&board->failures_left, 1000);
    assert_int_equal(modus_co_run(make_when_cancelled, &attr), -ENOSPC);
}

static void test_broken(void **state)
{
    int value = 42;
    struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
        .kind = MODUS_POOL_PROCESS, .n = 1, .initializer = prepare, .argument = &value});
    (void)state;

    atomic_store(&board->failures_left, 1000);
    struct modus_future *first = ask(pool, pass_gate, 1), *killer = ask(pool, die, SIGKILL),
                        *next = ask(pool, square, 2);
    modus_event_set(&board->gate); /* now that they are queued */
    assert_int_equal(answer_of(first), 1);
    assert_int_equal(failure_of(killer), MODUS_WORKERDIED);
    assert_int_equal(failure_of(next), -ENOSPC);
    assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                     MODUS_BROKEN);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
}

/* --- deaths ---------------------------------------------------------------------------------- */

static void test_death_in_a_task(void **state)
{
    struct modus_pool *pool = pool_of(2);
    static const int signals[] = {SIGKILL, SIGTERM, SIGUSR1};
    (void)state;

    for (size_t i = 0; i < 3; i++) {
        struct modus_future *others[10], *lost = ask(pool, die, signals[i]);

        for (int j = 0; j < 10; j++)
            others[j] = ask(pool, square, j);
        assert_int_equal(modus_future_wait(lost, MODUS_FOREVER), 0);
        assert_int_equal(modus_future_state(lost), MODUS_FUTURE_FAILED);
        assert_int_equal(modus_future_signal(lost), signals[i]);
        assert_non_null(strstr(modus_future_text(lost), "signal"));
        assert_int_equal(failure_of(lost), MODUS_WORKERDIED);
        for (int j = 0; j < 10; j++)
            assert_int_equal(answer_of(others[j]), j * j);
    }
    struct modus_future *left = ask(pool, leave_with, 3);
    assert_int_equal(modus_future_wait(left, MODUS_FOREVER), 0);
    assert_int_equal(modus_future_signal(left), 0);
    assert_string_equal(modus_future_text(left), "its worker exited with status 3");
    assert_int_equal(failure_of(left), MODUS_WORKERDIED);
    assert_int_equal(failure_of(ask(pool, leave_with, 0)), MODUS_WORKERDIED);
    AWAIT(stats_of(pool).deaths == 5);
    AWAIT(stats_of(pool).workers == 2);
    end_pool(pool);
}

/* Killed from outside, in a task and idle. */
static void test_killed(void **state)
{
    struct modus_pool *pool = pool_of(2);
    int pids[8];
    (void)state;

    for (int i = 0; i < 5; i++) {
        AWAIT(modus_pool_workers(pool, pids, 8) == 2);
        kill(pids[i % 2], SIGKILL); /* most likely asleep in the queue */
        for (int j = 0; j < 20; j++)
            modus_future_put(ask(pool, square, j));
        AWAIT(stats_of(pool).deaths == (uint64_t)i + 1);
    }
    struct modus_future *running = ask(pool, pass_gate, 0);
    AWAIT(atomic_load(&board->inside_gate) == 1);
    AWAIT(modus_pool_workers(pool, pids, 8) == 2);
    kill(pids[0], SIGKILL);
    kill(pids[1], SIGKILL);
    assert_int_equal(failure_of(running), MODUS_WORKERDIED);
    assert_int_equal(answer_of(ask(pool, square, 7)), 49);
    end_pool(pool);
}

static int die_the_first_time(struct modus_call *call)
{
    if (atomic_fetch_sub(&board->kills_left, 1) > 0)
        raise(SIGKILL);
    return square(call);
}

static void test_idempotent(void **state)
{
    struct modus_pool *pool = pool_of(1);
    long seven = 7, answer = 0;
    struct modus_task task = {
        .run = die_the_first_time, .input = &seven, .size = sizeof seven, .idempotent = true};
    (void)state;

    atomic_store(&board->kills_left, 1);
    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, MODUS_FOREVER), 0);
    assert_int_equal(answer, 49);
    atomic_store(&board->kills_left, 2); /* once is enough */
    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, MODUS_FOREVER),
                     MODUS_WORKERDIED);
    assert_int_equal(modus_pool_apply(pool, &task, &answer, sizeof answer, MODUS_FOREVER), 0);
    atomic_store(&board->kills_left, 1);
    struct modus_future *future;
    assert_int_equal(modus_pool_submit(pool, &future, &task, 0), 0);
    assert_int_equal(modus_pool_close(pool), 0); /* also when it is closed meanwhile */
    assert_int_equal(answer_of(future), 49);
    end_pool(pool);
}

static int fork_and_return(struct modus_call *call)
{
    fork();
    return square(call);
}

/* The child of a task is no worker. */
static void test_task_forks(void **state)
{
    struct modus_pool *pool = pool_of(1);
    (void)state;

    for (int i = 0; i < 5; i++)
        assert_int_equal(answer_of(ask(pool, fork_and_return, i)), i * i);
    assert_int_equal(answer_of(ask(pool, square, 9)), 81);
    end_pool(pool);
}

static int note_run(struct modus_call *call)
{
    atomic_fetch_add(&board->runs[number_in(call)], 1);
    return reply(call, number_in(call));
}

/* Every task is run once and answered, or its worker was killed and it says so. */
static void await_all(struct modus_future **futures, int first, int n, int *died)
{
    for (int i = 0; i < n; i++) {
        long value = -1;
        int rc = modus_future_result(futures[i], MODUS_FOREVER, &value, sizeof value);
        int runs = atomic_load(&board->runs[first + i]);

        if (rc == 0) {
            assert_int_equal(value, first + i);
            assert_int_equal(runs, 1);
        } else {
            assert_int_equal(rc, MODUS_WORKERDIED);
            assert_int_equal(modus_future_signal(futures[i]), SIGKILL);
            assert_true(runs <= 1);
            (*died)++;
        }
        modus_future_put(futures[i]);
    }
}

/* Workers killed while 10,000 small tasks go through. */
static void test_conservation(void **state)
{
    struct modus_pool *pool = pool_of(3);
    enum { N = 10000, ROUND = 500 };
    struct modus_future *futures[ROUND];
    int died = 0, kills = 0, pids[16];
    (void)state;

    for (int first = 0; first < N; first += ROUND) {
        for (int i = 0; i < ROUND; i++) {
            futures[i] = ask(pool, note_run, first + i);
            if (i % 250 == 125 && modus_pool_workers(pool, pids, 16) > 0)
                kills += kill(pids[i % 2], SIGKILL) == 0;
        }
        await_all(futures, first, ROUND, &died);
    }
    assert_true(died <= kills); /* no kill costs more than one */
    AWAIT(stats_of(pool).workers == 3);
    end_pool(pool);
}

/* At each window. The plan is made in an initializer, so it is the workers who strike. */
static int plan(void *argument)
{
    const enum modus_fault_point *point = argument;

    if (atomic_fetch_sub(&board->kills_left, 1) > 0)
        modus_fault_plan(*point, MODUS_FAULT_DIE, 5);
    return 0;
}

static void test_windows(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_GET_CLAIMED,   MODUS_FAULT_GET_HELPED,  MODUS_FAULT_GET_COPIED,
        MODUS_FAULT_GET_NOTED,     MODUS_FAULT_GET_FREED,   MODUS_FAULT_TASK_GOT,
        MODUS_FAULT_TASK_CLAIMED,  MODUS_FAULT_DONE_NOTED,  MODUS_FAULT_TASK_BEGUN,
        MODUS_FAULT_TASK_ANSWERED, MODUS_FAULT_PUT_AIMED,   MODUS_FAULT_PUT_LOOKED,
        MODUS_FAULT_PUT_CLAIMED,   MODUS_FAULT_PUT_HELPED,  MODUS_FAULT_PUT_COPIED,
        MODUS_FAULT_PUT_PUBLISHED, MODUS_FAULT_PARK_MARKED,
    };
    enum { N = 60 };
    struct modus_future *futures[N];
    (void)state;

    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        enum modus_fault_point point = points[i];
        int died = 0;

        memset(board->runs, 0, sizeof board->runs);
        atomic_store(&board->kills_left, 2);
        struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
            .kind = MODUS_POOL_PROCESS, .n = 2, .initializer = plan, .argument = &point});
        for (int j = 0; j < N; j++)
            futures[j] = ask(pool, note_run, j);
        await_all(futures, 0, N, &died);
        assert_true(died <= 2);
        if (point != MODUS_FAULT_TASK_CLAIMED && point != MODUS_FAULT_TASK_BEGUN &&
            point != MODUS_FAULT_DONE_NOTED)
            assert_int_equal(died, 0); /* before it is claimed, or after it is answered */
        end_pool(pool);
    }
}

static int stop_here(struct modus_call *call)
{
    atomic_store(&board->pids[0], getpid());
    raise(SIGSTOP);
    return reply(call, 1);
}

/* A worker that is stopped in a task holds up nobody else, and terminate gets it. */
static void test_stopped(void **state)
{
    struct modus_pool *pool = pool_with(
        &(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 2, .grace_ns = modus_ms(10)});
    struct modus_future *stopped = ask(pool, stop_here, 0);
    (void)state;

    AWAIT(atomic_load(&board->pids[0]) && state_of(atomic_load(&board->pids[0])) == 'T');
    for (int i = 0; i < 200; i++)
        assert_int_equal(answer_of(ask(pool, square, i)), i * i);
    modus_pool_free(pool);
    assert_int_equal(failure_of(stopped), MODUS_CANCELED);
}

/* --- the nursery, the program ------------------------------------------------------------------- */

static pid_t parent_of(int pid)
{
    char path[64], line[256];
    pid_t parent = 0;

    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "PPid: %d", &parent) == 1)
            break;
    fclose(file);
    return parent;
}

static bool is_gone(int pid)
{
    char state = state_of(pid);

    return state == 0 || state == 'Z'; /* init may be slow to reap what we can't */
}

static void test_nursery_killed(void **state)
{
    struct modus_pool *pool = pool_of(2);
    struct modus_future *running = ask(pool, pass_gate, 0), *queued[40];
    int pids[2];
    (void)state;

    for (int i = 0; i < 40; i++)
        queued[i] = ask(pool, pass_gate, i);
    AWAIT(atomic_load(&board->inside_gate) == 2);
    assert_int_equal(modus_pool_workers(pool, pids, 2), 2);
    pid_t nursery = parent_of(pids[0]);
    assert_int_equal(parent_of(nursery), getpid());
    kill(nursery, SIGKILL);
    assert_int_equal(modus_future_wait(running, MODUS_FOREVER), 0);
    assert_int_equal(modus_future_signal(running), SIGKILL);
    assert_int_equal(failure_of(running), MODUS_WORKERDIED);
    for (int i = 0; i < 40; i++)
        assert_int_equal(failure_of(queued[i]), MODUS_WORKERDIED);
    assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                     MODUS_BROKEN);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
    AWAIT(is_gone(pids[0]) && is_gone(pids[1]));
}

#ifndef __SANITIZE_THREAD__ /* which can't begin threads in a child of a program with threads */
/* A program that is killed, or exits without a word, with a pool. */
static int program(void *argument)
{
    struct modus_pool *pool = pool_of(2);
    int pids[2];

    CHECK_INT(modus_pool_workers(pool, pids, 2), 2);
    atomic_store(&board->pids[0], pids[0]);
    atomic_store(&board->pids[1], pids[1]);
    atomic_store(&board->pids[2], parent_of(pids[0]));
    modus_future_put(ask(pool, pass_gate, 0));
    AWAIT(atomic_load(&board->inside_gate) == 1);
    atomic_store(&board->tally, 1);
    if (argument)
        exit(0);
    pause();
    return 0;
}

static void test_program_ends(void **state)
{
    (void)state;
    for (int exits = 0; exits < 2; exits++) {
        atomic_store(&board->tally, 0);
        atomic_store(&board->inside_gate, 0);
        pid_t pid = start_child(program, exits ? board : NULL);
        AWAIT(atomic_load(&board->tally) == 1);
        if (exits)
            assert_int_equal(reap(pid), 0);
        else
            kill_child(pid);
        for (int i = 0; i < 3; i++)
            AWAIT(is_gone(atomic_load(&board->pids[i])));
    }
}

#endif

static int use_parents(void *argument)
{
    struct modus_pool *pool = argument;
    struct modus_map map = {.run = square, .n = 0};

    CHECK_INT(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0), -ECHILD);
    CHECK_INT(modus_pool_map(pool, &map), -ECHILD);
    CHECK_INT(modus_pool_close(pool), -ECHILD);
    CHECK_INT(modus_pool_terminate(pool), -ECHILD);
    CHECK_INT(modus_pool_join(pool, MODUS_FOREVER), -ECHILD);
    modus_pool_free(pool);
    return 0;
}

static struct modus_pool *pool_seen_by_worker;

static int submit_from_worker(struct modus_call *call)
{
    (void)call; /* forked before the pool was there, so this is a copy of nothing */
    return pool_seen_by_worker ? -EPERM : 0;
}

static void test_fork(void **state)
{
    struct modus_pool *pool = pool_seen_by_worker = pool_of(1);
    (void)state;

    assert_int_equal(reap(start_child(use_parents, pool)), 0);
    assert_int_equal(failure_of(ask(pool, submit_from_worker, 0)), 0);
    end_pool(pool);
    pool_seen_by_worker = NULL;
}

/* A callback runs on the thread that collects answers: what would wait for that is refused. */
static struct modus_pool *callback_pool;
static struct modus_imap *callback_imap;

static void callback(struct modus_future *future, void *context)
{
    struct modus_future **others = context;
    const struct modus_map none = {.run = square};
    long value;
    (void)future;

    for (int i = 0; i < 2; i++) {
        CHECK_INT(modus_future_wait(others[i], MODUS_FOREVER), -EDEADLK);
        CHECK_INT(modus_future_wait_first(&others[i], 1, MODUS_FOREVER, NULL), -EDEADLK);
    }
    CHECK_INT(modus_future_wait_first(others, 2, MODUS_FOREVER, NULL), -EDEADLK);
    CHECK_INT(modus_imap_next(callback_imap, MODUS_FOREVER, &value, NULL), -EDEADLK);
    CHECK_INT(modus_pool_map(callback_pool, &none), -EDEADLK);
    CHECK_INT(
        modus_pool_submit(callback_pool, NULL, &(struct modus_task){.run = add_one}, MODUS_FOREVER),
        0);
    modus_pool_close(callback_pool);
    CHECK_INT(modus_pool_join(callback_pool, MODUS_FOREVER), -EDEADLK);
    modus_event_set(&board->gate);
}

static int pass_other_gate(struct modus_call *call)
{
    modus_event_wait(&board->other_gate, MODUS_FOREVER);
    return reply(call, 0);
}

static void test_callback(void **state)
{
    long number = 3, mapped = 0, value = 0;
    const struct modus_map map = {.run = pass_gate,
                                  .in = &number,
                                  .n = 1,
                                  .in_size = sizeof number,
                                  .out = &mapped,
                                  .out_size = sizeof mapped};
    struct modus_future *others[2];
    (void)state;

    callback_pool = pool_of(4);
    others[0] = ask(callback_pool, pass_gate, 0);
    assert_int_equal(modus_pool_map_start(callback_pool, &others[1], &map), 0);
    assert_int_equal(modus_imap_new(&callback_imap, callback_pool, &map, true), 0);
    assert_int_equal(modus_imap_next(callback_imap, 0, &value, NULL), -EAGAIN);
    /* It must not end before it has its callback, which would then run here. */
    struct modus_future *future = ask(callback_pool, pass_other_gate, 0);
    assert_int_equal(modus_future_then(future, callback, others), 0);
    modus_event_set(&board->other_gate);
    assert_int_equal(answer_of(others[0]), 0);
    assert_int_equal(failure_of(others[1]), 0);
    assert_int_equal(mapped, number);
    assert_int_equal(modus_imap_next(callback_imap, MODUS_FOREVER, &value, NULL), 0);
    assert_int_equal(value, number);
    modus_imap_free(callback_imap);
    modus_future_put(future);
    end_pool(callback_pool);
    assert_int_equal(atomic_load(&board->tally), 1);
}

/* --- remains --------------------------------------------------------------------------------- */

static void test_many_submitters(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 2, .capacity = 64});
    (void)state;

    submit_from_three(pool, 1600);
    end_pool(pool);
}

static void test_nothing_is_left(void **state)
{
    unsigned threads = threads_here(), fds = fds_here();
    int pids[3];
    (void)state;

    for (int i = 0; i < 20; i++) { /* more than there may be arenas at a time */
        struct modus_pool *pool = pool_of(2);
        struct modus_future *futures[30];

        assert_int_equal(modus_pool_workers(pool, pids, 2), 2);
        pids[2] = parent_of(pids[0]);
        for (int j = 0; j < 30; j++)
            futures[j] = ask(pool, square, j);
        if (i % 2)
            end_pool(pool);
        else
            modus_pool_free(pool);
        for (int j = 0; j < 30; j++)
            modus_future_put(futures[j]);
        for (int j = 0; j < 3; j++)
            assert_int_equal(state_of(pids[j]), 0); /* no zombie either */
    }
    AWAIT(threads_here() <= threads);
    assert_int_equal(fds_here(), fds);
    assert_int_equal(children_here(), 0);
}

static void test_idle_is_asleep(void **state)
{
    struct modus_pool *pool = pool_of(1);
    int pids[2];
    (void)state;

    assert_int_equal(answer_of(ask(pool, square, 2)), 4);
    assert_int_equal(modus_pool_workers(pool, pids, 1), 1);
    pids[1] = parent_of(pids[0]);
    await_idle(pids[0], 50);
    await_idle(pids[1], 50);
    end_pool(pool);
}

/* What a worker had in an arena of the program goes back, too. */
static int take_permit_and_die(struct modus_call *call)
{
    struct modus_sem *permits;

    memcpy(&permits, call->input, sizeof permits);
    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_sem_acquire(permits, MODUS_FOREVER), 0);
    raise(SIGKILL);
    return 0;
}

static void test_buried_everywhere(void **state)
{
    struct modus_sem *permits = modus_arena_alloc(arena, sizeof *permits, 0);
    struct modus_sem_attr attr = {.scope = MODUS_PROCESS, .value = 1, .accounted = true};
    (void)state;

    assert_int_equal(modus_sem_init(permits, &attr), 0);
    struct modus_pool *pool = pool_of(1);
    struct modus_future *future = ask(pool, take_permit_and_die, (long)permits);
    assert_int_equal(failure_of(future), MODUS_WORKERDIED);
    assert_true(modus_participant_join(arena) > 0);
    assert_int_equal(modus_sem_acquire(permits, MODUS_FOREVER), 0);
    assert_int_equal(modus_sem_release(permits, 1), 0);
    assert_int_equal(modus_participant_leave(arena), 0);
    end_pool(pool);
    modus_sem_fini(permits);
    modus_arena_free(arena, permits, sizeof *permits);
}

/* --- threads that look for their answers themselves --------------------------------------------- */

static int die_or_square(struct modus_call *call)
{
    if (number_in(call) % 50 == 49)
        raise(SIGKILL);
    return square(call);
}

struct lookers {
    _Atomic(struct modus_future *) future;
    atomic_int round, seen;
    atomic_bool over;
};

/* Everybody waits for the same future at once. */
static void *look_too(void *argument)
{
    struct lookers *lookers = argument;

    for (int round = 1; !atomic_load(&lookers->over); round++) {
        long square = -1;

        while (atomic_load(&lookers->round) < round && !atomic_load(&lookers->over))
            sched_yield();
        if (atomic_load(&lookers->over))
            break;
        struct modus_future *future = atomic_load(&lookers->future);
        int rc = modus_future_result(future, MODUS_FOREVER, &square, sizeof square);
        CHECK(rc == MODUS_WORKERDIED || (rc == 0 && square == (long)round * round));
        atomic_fetch_add(&lookers->seen, 1);
    }
    return NULL;
}

static void test_lookers(void **state)
{
    enum { ROUNDS = SLOW ? 200 : 2000, THREADS = 2 };
    struct lookers lookers = {.round = 0};
    struct modus_pool *pool = pool_of(2);
    pthread_t threads[THREADS];
    int deaths = 0;
    (void)state;

    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(look_too, &lookers);
    for (int round = 1; round <= ROUNDS; round++) {
        long square = -1;
        struct modus_future *future = ask(pool, die_or_square, round);

        atomic_store(&lookers.future, future);
        atomic_store(&lookers.round, round);
        int rc = modus_future_result(future, MODUS_FOREVER, &square, sizeof square);
        assert_int_equal(rc, round % 50 == 49 ? MODUS_WORKERDIED : 0);
        deaths += rc != 0;
        assert_int_equal(square, rc == 0 ? (long)round * round : -1);
        AWAIT(atomic_load(&lookers.seen) == round * THREADS);
        modus_future_put(future);
    }
    atomic_store(&lookers.over, true);
    for (int i = 0; i < THREADS; i++)
        join_thread(threads[i]);
    assert_int_equal(deaths, ROUNDS / 50);
    end_pool(pool);
}

/* A pool may be freed while somebody looks: what it looks at must stay as long. */
static void *look_at_last(void *argument)
{
    int rc = modus_future_wait(argument, MODUS_FOREVER);

    CHECK_INT(rc, 0);
    return NULL;
}

static void test_freed_while_looked_at(void **state)
{
    (void)state;
    for (int round = 0; round < (SLOW ? 5 : 40); round++) {
        struct modus_pool *pool = pool_of(1);
        struct modus_future *future = ask(pool, pass_gate, round);
        pthread_t thread = start_thread(look_at_last, future);

        AWAIT(atomic_load(&board->inside_gate) > round);
        modus_pool_free(pool);
        join_thread(thread);
        assert_int_equal(failure_of(future), MODUS_CANCELED);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, open_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_submit),
        TEST(test_buried_everywhere),
        TEST(test_lookers),
        TEST(test_freed_while_looked_at),
        TEST(test_five_on_four),
        TEST(test_full),
        TEST(test_cancel),
        TEST(test_cancel_race),
        TEST(test_cancel_late),
        TEST(test_terminate),
        TEST(test_free_terminates),
        TEST(test_map),
        TEST(test_imap),
        TEST(test_imap_freed_early),
        TEST(test_tasks_max),
        TEST(test_initializer),
        TEST(test_cancelled_coroutine),
        TEST(test_broken),
        TEST(test_death_in_a_task),
        TEST(test_killed),
        TEST(test_idempotent),
        TEST(test_task_forks),
        TEST(test_conservation),
        TEST(test_windows),
        TEST(test_stopped),
        TEST(test_nursery_killed),
#ifndef __SANITIZE_THREAD__
        TEST(test_program_ends),
#endif
        TEST(test_fork),
        TEST(test_callback),
        TEST(test_many_submitters),
        TEST(test_nothing_is_left),
        TEST(test_idle_is_asleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
