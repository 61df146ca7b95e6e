/* SPDX-License-Identifier: MIT */
/* The order in which a pool begins tasks, of threads and of processes: that of their priorities, of
 * equal ones that in which they came; also when workers are killed. */
#include "test_concurrency_pool.h"

#include "concurrency/event.h"
#include "concurrency/fault.h"

enum { N = 256 };

/* Shared with the workers; made before the pools. */
static struct board {
    struct modus_event gate;
    atomic_int inside_gate, next, kills_left;
    atomic_long begun[4 * N];
} * board;

static int open_test(void **state)
{
    struct modus_arena *arena;

    if (!board) {
        CHECK_INT(modus_arena_open(&arena, 1 << 20, 8), 0);
        board = modus_arena_alloc(arena, sizeof *board, 0);
    }
    memset(board, 0, sizeof *board);
    modus_event_init(&board->gate, MODUS_PROCESS);
    return watchdog(state);
}

static const enum modus_pool_kind kinds[] = {MODUS_POOL_THREAD, MODUS_POOL_PROCESS};

static struct modus_pool *pool_of(enum modus_pool_kind kind, bool priorities)
{
    return pool_with(&(struct modus_pool_attr){.kind = kind, .n = 1, .priorities = priorities});
}

static int pass_gate(struct modus_call *call)
{
    (void)call;
    atomic_fetch_add(&board->inside_gate, 1);
    modus_event_wait(&board->gate, MODUS_FOREVER);
    return 0;
}

static int note_begin(struct modus_call *call)
{
    atomic_store(&board->begun[atomic_fetch_add(&board->next, 1)], number_in(call));
    return reply(call, number_in(call));
}

static struct modus_future *ask_at(struct modus_pool *pool, modus_task_function *run,
                                   unsigned priority, long number)
{
    struct modus_future *future = NULL;
    struct modus_task task = {
        .run = run, .input = &number, .size = sizeof number, .priority = priority};

    CHECK_INT(modus_pool_submit(pool, &future, &task, MODUS_FOREVER), 0);
    return future;
}

/* The only worker is busy until the gate opens. */
static void hold(struct modus_pool *pool)
{
    modus_future_put(ask_at(pool, pass_gate, 0, 0));
    AWAIT(atomic_load(&board->inside_gate) == 1);
}

static void test_errors(void **state)
{
    struct modus_task task = {.run = note_begin, .priority = 1};
    const struct modus_map map = {.run = note_begin, .n = 1, .priority = 256};
    (void)state;

    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], false);
        struct modus_future *future;

        task.priority = 1;
        assert_int_equal(modus_pool_submit(pool, NULL, &task, 0),
                         -EINVAL); /* it would be ignored */
        end_pool(pool);
        pool = pool_of(kinds[i], true);
        task.priority = 256;
        assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), -EINVAL);
        assert_int_equal(modus_pool_map_start(pool, &future, &map), -EINVAL);
        end_pool(pool);
    }
}

/* Every priority once, in a mixed order, and each of them again: the second after the first. */
static void test_order(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], true);
        struct modus_future *futures[2 * N];

        hold(pool);
        for (long j = 0; j < 2 * N; j++)
            futures[j] = ask_at(pool, note_begin, (unsigned)(j * 77 % N), j);
        modus_event_set(&board->gate);
        for (long j = 0; j < 2 * N; j++)
            assert_int_equal(answer_of(futures[j]), j);
        for (int j = 0; j < 2 * N; j++) {
            long begun = atomic_load(&board->begun[j]);

            assert_int_equal(begun * 77 % N, N - 1 - j / 2);
            assert_int_equal(begun / N, j % 2);
        }
        end_pool(pool);
        open_test(state);
    }
}

/* Who comes late may come first, and what a task submits goes before what waits. */
static struct modus_pool *the_pool;

static int submit_two(struct modus_call *call)
{
    note_begin(call);
    modus_future_put(ask_at(the_pool, note_begin, 1, 11));
    modus_future_put(ask_at(the_pool, note_begin, 200, 12));
    return 0;
}

static void test_late_comers(void **state)
{
    static const long expected[] = {10, 12, 3, 11, 0, 1, 2};
    (void)state;

    the_pool = pool_of(MODUS_POOL_THREAD, true);
    hold(the_pool);
    for (long i = 0; i < 3; i++)
        modus_future_put(ask_at(the_pool, note_begin, 0, i));
    modus_future_put(ask_at(the_pool, note_begin, 9, 3));
    modus_future_put(ask_at(the_pool, submit_two, 255, 10));
    modus_event_set(&board->gate);
    AWAIT(atomic_load(&board->next) == 7);
    end_pool(the_pool);
    for (int i = 0; i < 7; i++)
        assert_int_equal(atomic_load(&board->begun[i]), expected[i]);
}

/* The chunks of a map, in between others. */
static void test_map(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], true);
        struct modus_future *low, *map_future, *high;
        long in[] = {20, 21, 22, 23};
        struct modus_map map = {.run = note_begin,
                                .in = in,
                                .n = 4,
                                .in_size = sizeof *in,
                                .chunk = 1,
                                .priority = 100};

        hold(pool);
        low = ask_at(pool, note_begin, 99, 1);
        assert_int_equal(modus_pool_map_start(pool, &map_future, &map), 0);
        high = ask_at(pool, note_begin, 101, 2);
        modus_event_set(&board->gate);
        assert_int_equal(answer_of(low), 1);
        assert_int_equal(failure_of(map_future), 0);
        assert_int_equal(answer_of(high), 2);
        assert_int_equal(atomic_load(&board->begun[0]), 2);
        for (int j = 0; j < 4; j++)
            assert_int_equal(atomic_load(&board->begun[1 + j]), 20 + j);
        assert_int_equal(atomic_load(&board->begun[5]), 1);
        end_pool(pool);
        open_test(state);
    }
}

static int kill_worker(struct modus_call *call)
{
    if (atomic_fetch_sub(&board->kills_left, 1) > 0)
        raise(SIGKILL);
    return note_begin(call);
}

/* A task that is run again, because its worker died, has its priority still. */
static void test_run_again(void **state)
{
    struct modus_pool *pool = pool_of(MODUS_POOL_PROCESS, true);
    struct modus_future *futures[3];
    long number = 7;
    struct modus_task task = {.run = kill_worker,
                              .input = &number,
                              .size = sizeof number,
                              .idempotent = true,
                              .priority = 50};
    (void)state;

    atomic_store(&board->kills_left, 1);
    hold(pool);
    futures[0] = ask_at(pool, note_begin, 40, 1);
    assert_int_equal(modus_pool_submit(pool, &futures[1], &task, MODUS_FOREVER), 0);
    futures[2] = ask_at(pool, note_begin, 30, 2);
    modus_event_set(&board->gate);
    for (int i = 0; i < 3; i++)
        assert_int_equal(failure_of(futures[i]), 0);
    /* The replacement may have begun the next one before the news of the death. */
    assert_int_equal(atomic_load(&board->next), 3);
    assert_int_equal(stats_of(pool).deaths, 1);
    end_pool(pool);
}

static int plan(void *argument)
{
    const enum modus_fault_point *point = argument;

    if (atomic_fetch_sub(&board->kills_left, 1) > 0)
        modus_fault_plan(*point, MODUS_FAULT_DIE, 5);
    return 0;
}

/* A worker is killed wherever it may be in the queue of tasks, the lock in its hand or not: nothing
 * is lost but what it had begun, and the order stays. */
static void test_windows(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_STOCK_LOCKED, MODUS_FAULT_STOCK_CHANGED, MODUS_FAULT_GET_COPIED,
        MODUS_FAULT_GET_FREED,    MODUS_FAULT_TASK_GOT,      MODUS_FAULT_TASK_CLAIMED,
        MODUS_FAULT_DONE_NOTED,   MODUS_FAULT_TASK_BEGUN,    MODUS_FAULT_TASK_ANSWERED,
    };
    enum { TASKS = 60 };
    struct modus_future *futures[TASKS];
    (void)state;

    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        enum modus_fault_point point = points[i];
        int died = 0;

        atomic_store(&board->kills_left, 2);
        struct modus_pool *pool = pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS,
                                                                      .n = 2,
                                                                      .priorities = true,
                                                                      .initializer = plan,
                                                                      .argument = &point});
        for (long j = 0; j < TASKS; j++)
            futures[j] = ask_at(pool, square, (unsigned)(j * 77 % N), j);
        for (long j = 0; j < TASKS; j++) {
            long answer = -1;
            int rc = modus_future_result(futures[j], MODUS_FOREVER, &answer, sizeof answer);

            if (rc == 0)
                assert_int_equal(answer, j * j);
            else
                assert_int_equal(rc, MODUS_WORKERDIED);
            died += rc < 0;
            modus_future_put(futures[j]);
        }
        assert_true(died <= 2);
        if (point == MODUS_FAULT_GET_COPIED || point == MODUS_FAULT_GET_FREED ||
            point == MODUS_FAULT_TASK_GOT || point == MODUS_FAULT_TASK_ANSWERED)
            assert_int_equal(died, 0); /* before it is claimed, or after it is answered */
        AWAIT(stats_of(pool).deaths > 0);
        end_pool(pool);
    }
}

/* Three threads ask, some first, some last; everybody gets each answer once. */
static void test_conservation(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
            .kind = kinds[i], .n = 3, .capacity = 64, .priorities = true});
        struct modus_future *futures[32];

        for (unsigned round = 0; round < 20; round++) {
            for (long j = 0; j < 32; j++)
                futures[j] = ask_at(pool, square, (unsigned)(j * 41 + round) % N, j);
            for (long j = 0; j < 32; j++)
                assert_int_equal(answer_of(futures[j]), j * j);
        }
        submit_from_three(pool, 640);
        assert_int_equal(modus_pool_close(pool), 0);
        assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
        assert_int_equal(stats_of(pool).done, 640 + 3 * 640);
        modus_pool_free(pool);
    }
}

/* What waits in a queue with priorities is cancelled like any other. */
static void test_terminate(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], true);
        struct modus_future *futures[20];

        hold(pool);
        for (long j = 0; j < 20; j++)
            futures[j] = ask_at(pool, note_begin, (unsigned)j, j);
        assert_int_equal(modus_future_cancel(futures[19]), 0);
        assert_int_equal(modus_pool_terminate(pool), 0);
        modus_event_set(&board->gate);
        for (int j = 0; j < 20; j++)
            assert_int_equal(failure_of(futures[j]), MODUS_CANCELED);
        modus_pool_free(pool);
        assert_int_equal(atomic_load(&board->next), 0);
        open_test(state);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, open_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),    TEST(test_order),   TEST(test_late_comers),  TEST(test_map),
        TEST(test_run_again), TEST(test_windows), TEST(test_conservation), TEST(test_terminate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
