/* SPDX-License-Identifier: MIT */
/* Cancelling what an owner has in a pool, of threads and of processes: all of it that has not begun,
 * nothing else, and the number is right. */
#include "test_concurrency_pool.h"

#include "concurrency/event.h"

/* Shared with the workers; made before the pools. */
static struct board {
    struct modus_event gate;
    atomic_int inside_gate, runs;
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
static const char alice, bob, nobody; /* owners */

static struct modus_pool *pool_of(enum modus_pool_kind kind, unsigned n, unsigned capacity)
{
    return pool_with(&(struct modus_pool_attr){
        .kind = kind, .n = n, .capacity = capacity, .priorities = n == 2});
}

static int pass_gate(struct modus_call *call)
{
    (void)call;
    atomic_fetch_add(&board->inside_gate, 1);
    modus_event_wait(&board->gate, MODUS_FOREVER);
    return 0;
}

static int count_run(struct modus_call *call)
{
    atomic_fetch_add(&board->runs, 1);
    return reply(call, number_in(call));
}

static struct modus_future *ask_for(struct modus_pool *pool, modus_task_function *run,
                                    const void *owner, long number)
{
    struct modus_future *future = NULL;
    struct modus_task task = {.run = run, .input = &number, .size = sizeof number, .owner = owner};

    CHECK_INT(modus_pool_submit(pool, &future, &task, MODUS_FOREVER), 0);
    return future;
}

/* The only worker is busy, for Alice, until the gate opens. */
static struct modus_future *hold(struct modus_pool *pool)
{
    struct modus_future *future = ask_for(pool, pass_gate, &alice, 0);

    AWAIT(atomic_load(&board->inside_gate) == 1);
    return future;
}

static int cancel_parents(void *pool)
{
    CHECK_INT(modus_pool_cancel_owner(pool, &alice), -ECHILD);
    return 0;
}

static void test_errors(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], 1, 0);

        assert_int_equal(modus_pool_cancel_owner(pool, NULL), -EINVAL);
        assert_int_equal(modus_pool_cancel_owner(pool, &alice), 0);
        assert_int_equal(reap(start_child(cancel_parents, pool)), 0);
        assert_int_equal(modus_pool_close(pool), 0);
        assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
        assert_int_equal(modus_pool_cancel_owner(pool, &alice), 0);
        modus_pool_free(pool);
    }
}

static atomic_int called_here;
static pthread_t here;

static void note_thread(struct modus_future *future, void *context)
{
    (void)context;
    CHECK_INT(modus_future_code(future), MODUS_CANCELED);
    called_here += pthread_equal(pthread_self(), here) != 0;
}

/* Those of one owner, among others'. */
static void test_cancel(void **state)
{
    const void *const owners[] = {&alice, &bob, NULL};
    enum { N = 30 };
    (void)state;

    here = pthread_self();
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], 1, 0);
        struct modus_future *running = hold(pool), *futures[N];

        for (long j = 0; j < N; j++)
            futures[j] = ask_for(pool, count_run, owners[j % 3], j);
        called_here = 0;
        assert_int_equal(modus_future_then(futures[3], note_thread, NULL), 0);
        assert_int_equal(modus_future_cancel(futures[0]), 0); /* which is not counted again */
        assert_int_equal(modus_pool_cancel_owner(pool, &nobody), 0);
        assert_int_equal(modus_pool_cancel_owner(pool, &alice), N / 3 - 1);
        assert_int_equal(modus_pool_cancel_owner(pool, &alice), 0);
        assert_int_equal(called_here, 1);
        for (int j = 0; j < N; j++)
            assert_int_equal(modus_future_state(futures[j]),
                             j % 3 ? MODUS_FUTURE_PENDING : MODUS_FUTURE_CANCELLED);
        assert_int_equal(modus_future_state(running), MODUS_FUTURE_RUNNING); /* it has begun */
        struct modus_future *later = ask_for(pool, count_run, &alice, 99);
        modus_event_set(&board->gate);
        for (int j = 0; j < N; j++) {
            if (j % 3)
                assert_int_equal(answer_of(futures[j]), j);
            else
                assert_int_equal(failure_of(futures[j]), MODUS_CANCELED);
        }
        assert_int_equal(answer_of(later), 99);
        assert_int_equal(failure_of(running), 0);
        assert_int_equal(atomic_load(&board->runs), N / 3 * 2 + 1);
        end_pool(pool);
        open_test(state);
    }
}

/* The chunks of a map. */
static void test_map(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], 1, 0);
        struct modus_future *running = hold(pool), *future, *other;
        long in[] = {1, 2, 3, 4};
        struct modus_map map = {
            .run = count_run, .in = in, .n = 4, .in_size = sizeof *in, .chunk = 1, .owner = &bob};

        assert_int_equal(modus_pool_map_start(pool, &future, &map), 0);
        map.owner = &alice;
        assert_int_equal(modus_pool_map_start(pool, &other, &map), 0);
        assert_int_equal(modus_pool_cancel_owner(pool, &bob), 4);
        assert_int_equal(failure_of(future), MODUS_CANCELED);
        modus_event_set(&board->gate);
        assert_int_equal(failure_of(other), 0);
        assert_int_equal(failure_of(running), 0);
        assert_int_equal(atomic_load(&board->runs), 4);
        end_pool(pool);
        open_test(state);
    }
}

/* --- a full queue ----------------------------------------------------------------------------- */

static struct modus_pool *the_pool;

static void *submit_one_more(void *argument)
{
    struct modus_future *future;
    struct modus_task task = {.run = count_run, .owner = &bob};

    (void)argument;
    int rc = modus_pool_submit(the_pool, &future, &task, MODUS_FOREVER);
    return (void *)(intptr_t)(rc < 0 ? rc : failure_of(future));
}

/* What could not be queued is no task, and leaves nothing behind; what waits for room is one. */
static void test_full(void **state)
{
    struct modus_task task = {.run = count_run, .owner = &bob};
    (void)state;

    for (int i = 0; i < 2; i++) {
        the_pool = pool_of(kinds[i], 1, 2);
        struct modus_future *running = hold(the_pool), *refused;
        long queued = 0;
        void *rc;

        while (modus_pool_submit(the_pool, NULL, &task, 0) == 0)
            queued++;
        assert_int_equal(modus_pool_submit(the_pool, &refused, &task, 0), MODUS_FULL);
        assert_int_equal(modus_pool_submit(the_pool, NULL, &task, modus_ms(1)), -ETIMEDOUT);
        assert_int_equal(modus_pool_cancel_owner(the_pool, &bob), queued);
        pthread_t thread = start_thread(submit_one_more, NULL);
        usleep(2000);                                        /* it waits for room, or is late, */
        long more = modus_pool_cancel_owner(the_pool, &bob); /* and then not cancelled */
        assert_true(more == 0 || more == 1);
        modus_event_set(&board->gate);
        pthread_join(thread, &rc);
        assert_int_equal((intptr_t)rc, more ? MODUS_CANCELED : 0);
        assert_int_equal(failure_of(running), 0);
        assert_int_equal(atomic_load(&board->runs), 1 - more);
        end_pool(the_pool);
        open_test(state);
    }
}

/* In a pool that is closed while it waits. */
static void test_full_and_closed(void **state)
{
    struct modus_task task = {.run = count_run, .owner = &bob};
    void *rc;
    (void)state;

    the_pool = pool_of(MODUS_POOL_THREAD, 1, 2);
    struct modus_future *running = hold(the_pool);
    while (modus_pool_submit(the_pool, NULL, &task, 0) == 0)
        ;
    pthread_t thread = start_thread(submit_one_more, NULL);
    usleep(2000);
    long cancelled = modus_pool_cancel_owner(the_pool, &bob);
    modus_pool_close(the_pool);
    pthread_join(thread, &rc);
    assert_int_equal((intptr_t)rc, cancelled == 3 ? MODUS_CANCELED : MODUS_CLOSED);
    modus_event_set(&board->gate);
    assert_int_equal(failure_of(running), 0);
    end_pool(the_pool);
}

static int submit_many(struct modus_call *call)
{
    struct modus_task task = {.run = count_run, .owner = &bob};

    (void)call;
    for (int i = 0; i < 20; i++)
        CHECK_INT(modus_pool_submit(the_pool, NULL, &task, MODUS_FOREVER), 0);
    return reply(call, modus_pool_cancel_owner(the_pool, &bob));
}

/* A worker that submits to a full queue runs its task itself; then it is not the list's any more. */
static void test_worker_submits(void **state)
{
    (void)state;
    the_pool = pool_of(MODUS_POOL_THREAD, 1, 2);
    assert_int_equal(answer_of(ask_for(the_pool, submit_many, &alice, 0)), 2);
    end_pool(the_pool);
    assert_int_equal(atomic_load(&board->runs), 18);
}

static int wait_for_two(struct modus_call *call)
{
    struct modus_future *one = ask_for(the_pool, count_run, &bob, 1),
                        *two = ask_for(the_pool, count_run, &bob, 2);
    int rc;

    CHECK_INT(answer_of(one), 1); /* it runs here, and its entry is passed over */
    CHECK_INT(modus_pool_cancel_owner(the_pool, &bob), 1);
    rc = failure_of(two);
    return reply(call, rc);
}

static void test_worker_waits(void **state)
{
    (void)state;
    the_pool = pool_of(MODUS_POOL_THREAD, 1, 0);
    assert_int_equal(answer_of(ask_for(the_pool, wait_for_two, &alice, 0)), MODUS_CANCELED);
    end_pool(the_pool);
    assert_int_equal(atomic_load(&board->runs), 1);
}

/* --- races ------------------------------------------------------------------------------------ */

static atomic_int submitters;

static void *submit_for_bob(void *argument)
{
    enum { ROUNDS = 30, AHEAD = 20 };
    struct modus_future *futures[AHEAD];
    long cancelled = 0;

    (void)argument;
    for (int i = 0; i < ROUNDS; i++) {
        for (long j = 0; j < AHEAD; j++)
            futures[j] = ask_for(the_pool, count_run, &bob, j);
        for (long j = 0; j < AHEAD; j++) {
            int code = modus_future_result(futures[j], MODUS_FOREVER, NULL, 0);

            CHECK(code == 0 || code == MODUS_CANCELED);
            cancelled += code < 0;
            modus_future_put(futures[j]);
        }
    }
    atomic_fetch_sub(&submitters, 1);
    return (void *)(intptr_t)cancelled;
}

static void *cancel_for_bob(void *argument)
{
    long cancelled = 0;

    (void)argument;
    while (atomic_load(&submitters) > 0) {
        cancelled += modus_pool_cancel_owner(the_pool, &bob);
        usleep(100);
    }
    return (void *)(intptr_t)cancelled;
}

/* Returns how many were cancelled. */
static long race(void)
{
    pthread_t threads[4];
    void *count;
    long cancelled = 0, counted = 0;

    atomic_store(&board->runs, 0);
    atomic_store(&submitters, 2);
    for (int j = 0; j < 4; j++)
        threads[j] = start_thread(j < 2 ? submit_for_bob : cancel_for_bob, NULL);
    for (int j = 0; j < 4; j++) {
        pthread_join(threads[j], &count);
        *(j < 2 ? &cancelled : &counted) += (intptr_t)count;
    }
    assert_int_equal(cancelled, counted);
    assert_int_equal(atomic_load(&board->runs), 2 * 30 * 20 - cancelled);
    return cancelled;
}

/* Two cancel while two submit and two run: each task has run or has been cancelled, by one. Again
 * until some were: on a busy machine those who cancel may come when all is over. */
static void test_race(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        the_pool = pool_of(kinds[i], 2, 16);
        AWAIT(race() > 0);
        for (long j = 0; j < 100; j++)
            assert_int_equal(answer_of(ask_for(the_pool, square, &alice, j)), j * j);
        end_pool(the_pool);
        open_test(state);
    }
}

static atomic_long cancelled_for_bob;

/* Until some were cancelled that were not in the queue, or it has been tried often enough. */
static int submit_to_full_queue(struct modus_call *call)
{
    struct modus_task task = {.run = count_run, .owner = &bob};
    long n = 0;

    for (; n < (SLOW ? 20000 : 1000000) && atomic_load(&cancelled_for_bob) < 10; n++)
        CHECK_INT(modus_pool_submit(the_pool, NULL, &task, MODUS_FOREVER), 0);
    atomic_store(&submitters, 0);
    return reply(call, n);
}

static void *cancel_always(void *argument)
{
    while (atomic_load(&submitters) > 0)
        atomic_fetch_add(&cancelled_for_bob, modus_pool_cancel_owner(the_pool, &bob));
    return argument;
}

/* What a worker would run itself, because the queue is full, may be cancelled just before that: then
 * it is not run. */
static void test_race_with_full_queue(void **state)
{
    (void)state;
    the_pool = pool_of(MODUS_POOL_THREAD, 1, 2);
    atomic_store(&submitters, 1);
    pthread_t thread = start_thread(cancel_always, NULL);
    long n = answer_of(ask_for(the_pool, submit_to_full_queue, &alice, 0));
    join_thread(thread);
    end_pool(the_pool);
    assert_int_equal(atomic_load(&board->runs) + atomic_load(&cancelled_for_bob), n);
}

/* What is cancelled does not begin afterwards: its owner may go. */
static void test_none_begins_afterwards(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], 2, 64);
        struct modus_future *futures[40];

        for (int round = 0; round < 20; round++) {
            for (long j = 0; j < 40; j++)
                futures[j] = ask_for(pool, count_run, &bob, j);
            modus_pool_cancel_owner(pool, &bob);
            for (int j = 0; j < 40; j++)
                assert_int_not_equal(modus_future_state(futures[j]), MODUS_FUTURE_PENDING);
            for (int j = 0; j < 40; j++)
                failure_of(futures[j]);
        }
        end_pool(pool);
        open_test(state);
    }
}

static void test_terminate(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_pool *pool = pool_of(kinds[i], 1, 0);
        struct modus_future *running = hold(pool), *futures[20];

        for (long j = 0; j < 20; j++)
            futures[j] = ask_for(pool, count_run, &bob, j);
        assert_int_equal(modus_pool_terminate(pool), 0);
        long cancelled = modus_pool_cancel_owner(pool, &bob); /* by us, or by the end of the pool */
        assert_true(cancelled == 0 || kinds[i] == MODUS_POOL_PROCESS);
        modus_event_set(&board->gate);
        for (int j = 0; j < 20; j++)
            assert_int_equal(failure_of(futures[j]), MODUS_CANCELED);
        modus_future_put(running);
        modus_pool_free(pool);
        open_test(state);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, open_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),
        TEST(test_cancel),
        TEST(test_map),
        TEST(test_full),
        TEST(test_full_and_closed),
        TEST(test_worker_submits),
        TEST(test_worker_waits),
        TEST(test_race),
        TEST(test_race_with_full_queue),
        TEST(test_none_begins_afterwards),
        TEST(test_terminate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
