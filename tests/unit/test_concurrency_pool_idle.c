/* SPDX-License-Identifier: MIT */
/* Pools whose idle threads end: down to how many, what wakes up meanwhile, and that no task is lost
 * between a thread that goes and a submit that counts on it. */
#include "test_concurrency_pool.h"

#include "concurrency/event.h"

static struct modus_event gate;
static atomic_int inside_gate, tally, prepared, failures_left;
static struct modus_pool *the_pool;

static int open_test(void **state)
{
    modus_event_init(&gate, MODUS_THREAD);
    atomic_store(&inside_gate, 0);
    atomic_store(&tally, 0);
    return watchdog(state);
}

static struct modus_pool *pool_of(unsigned n, unsigned n_min, int64_t idle_ns)
{
    return pool_with(&(struct modus_pool_attr){
        .kind = MODUS_POOL_THREAD, .n = n, .n_min = n_min, .idle_ns = idle_ns});
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

static void test_errors(void **state)
{
    struct modus_pool *pool;
    struct modus_pool_attr attr = {.kind = MODUS_POOL_THREAD, .n = 2, .idle_ns = -1};
    (void)state;

    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    attr.idle_ns = modus_seconds(1);
    attr.n_min = 3;
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    attr = (struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 2, .idle_ns = 1};
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
    attr = (struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 2, .n_min = 1};
    assert_int_equal(modus_pool_new(&pool, &attr), -EINVAL);
}

/* Four tasks at a time: then there are four threads. */
static void need_four(struct modus_pool *pool)
{
    struct modus_future *futures[4];

    for (long i = 0; i < 4; i++)
        futures[i] = ask(pool, pass_gate, i);
    AWAIT(atomic_load(&inside_gate) == 4);
    CHECK_INT(stats_of(pool).workers, 4);
    modus_event_set(&gate);
    for (long i = 0; i < 4; i++)
        CHECK_INT(answer_of(futures[i]), i);
    modus_event_clear(&gate);
    atomic_store(&inside_gate, 0);
}

static void test_shrink_and_grow(void **state)
{
    unsigned before = threads_at_rest();
    (void)state;

    for (unsigned n_min = 0; n_min <= 4; n_min += 2) {
        struct modus_pool *pool = pool_of(4, n_min, modus_ms(2));

        assert_int_equal(stats_of(pool).workers, 0); /* they come with the tasks */
        for (unsigned round = 1; round <= 3; round++) {
            need_four(pool);
            AWAIT(stats_of(pool).workers == n_min);
            assert_int_equal(stats_of(pool).idled, round * (4 - n_min));
            AWAIT(threads_here() <= before + n_min);
        }
        assert_int_equal(stats_of(pool).done, 12);
        end_pool(pool);
    }
}

/* Those that stay sleep as if there were no idle_ns. */
static void test_who_stays_is_asleep(void **state)
{
    struct modus_pool *pool = pool_of(4, 2, modus_ms(2));
    int tids[4];
    (void)state;

    need_four(pool);
    AWAIT(stats_of(pool).workers == 2);
    assert_int_equal(modus_pool_workers(pool, tids, 4), 2);
    for (int i = 0; i < 2; i++)
        await_idle(tids[i], 50);
    assert_int_equal(answer_of(ask(pool, square, 3)), 9);
    for (int i = 0; i < 2; i++)
        await_idle(tids[i], 50);
    assert_int_equal(stats_of(pool).workers, 2);
    end_pool(pool);
}

/* One task now and then keeps one thread: the one that went to sleep last. */
static void test_little_work(void **state)
{
    struct modus_pool *pool = pool_of(4, 0, modus_ms(50));
    (void)state;

    need_four(pool);
    while (stats_of(pool).workers > 1) {
        assert_int_equal(answer_of(ask(pool, square, 3)), 9);
        usleep(1000); /* until all are asleep */
    }
    end_pool(pool);
}

/* --- between a thread that goes and a submit ---------------------------------------------------- */

/* Pauses are about as long as it takes a thread to look for tasks, sleep and be woken by its time. */
static void *ask_now_and_then(void *argument)
{
    unsigned seed = (unsigned)(intptr_t)argument;

    for (long i = 0; i < (SLOW ? 300 : 1500); i++) {
        int64_t until = modus_now_ns() + (seed = seed * 1103515245 + 12345) % 200000;

        while (modus_now_ns() < until)
            ;
        CHECK_INT(answer_of(ask(the_pool, square, i)), i * i);
    }
    return NULL;
}

/* Idle for a moment is too long already: each task may meet threads that are about to go, the last
 * one, too. One that was lost would be waited for in vain. */
static void test_no_task_is_lost(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        for (int priorities = 0; priorities < 2; priorities++) {
            pthread_t threads[2];

            the_pool = pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD,
                                                           .n = n,
                                                           .n_min = n == 3,
                                                           .idle_ns = 1000,
                                                           .priorities = priorities});
            for (int i = 0; i < 2; i++)
                threads[i] = start_thread(ask_now_and_then, (void *)(intptr_t)(i + 1));
            for (int i = 0; i < 2; i++)
                join_thread(threads[i]);
            AWAIT(stats_of(the_pool).workers == (n == 3));
            end_pool(the_pool);
        }
    }
}

/* The same for the end of the pool. */
static void test_no_end_is_lost(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        struct modus_pool *pool = pool_of(2, 0, 1000);

        for (int j = 0; j < i % 4; j++)
            assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                             0);
        if (i % 3 == 0)
            AWAIT(stats_of(pool).workers == 0);
        if (i % 2)
            end_pool(pool); /* what is queued is run */
        else
            modus_pool_free(pool);
    }
}

static int submit_many(struct modus_call *call)
{
    (void)call;
    for (int i = 0; i < 20; i++)
        CHECK_INT(
            modus_pool_submit(the_pool, NULL, &(struct modus_task){.run = add_one}, MODUS_FOREVER),
            0);
    return 0;
}

/* A task that could not be queued, or was run by who submitted it, keeps no thread. */
static void test_refused_tasks(void **state)
{
    struct modus_task task = {.run = add_one};
    (void)state;

    the_pool = pool_with(&(struct modus_pool_attr){
        .kind = MODUS_POOL_THREAD, .n = 1, .capacity = 2, .idle_ns = modus_ms(1)});
    struct modus_future *running = ask(the_pool, pass_gate, 1);
    AWAIT(atomic_load(&inside_gate) == 1);
    while (modus_pool_submit(the_pool, NULL, &task, 0) == 0)
        ;
    for (int i = 0; i < 20; i++)
        assert_int_equal(modus_pool_submit(the_pool, NULL, &task, 0), MODUS_FULL);
    modus_event_set(&gate);
    assert_int_equal(answer_of(running), 1);
    AWAIT(stats_of(the_pool).workers == 0);
    assert_int_equal(failure_of(ask(the_pool, submit_many, 0)), 0);
    AWAIT(stats_of(the_pool).workers == 0);
    assert_int_equal(atomic_load(&tally), 22);
    end_pool(the_pool);
}

static int wait_for_other(struct modus_call *call)
{
    return reply(call, answer_of(ask(the_pool, square, number_in(call))));
}

/* Cancelled ones and those that a waiting task runs keep none, either. */
static void test_passed_over(void **state)
{
    (void)state;
    the_pool = pool_of(1, 0, modus_ms(1));
    struct modus_future *running = ask(the_pool, pass_gate, 1),
                        *cancelled = ask(the_pool, square, 2);
    assert_int_equal(modus_future_cancel(cancelled), 0);
    modus_event_set(&gate);
    assert_int_equal(answer_of(running), 1);
    assert_int_equal(failure_of(cancelled), MODUS_CANCELED);
    AWAIT(stats_of(the_pool).workers == 0);
    assert_int_equal(answer_of(ask(the_pool, wait_for_other, 5)), 25);
    AWAIT(stats_of(the_pool).workers == 0);
    end_pool(the_pool);
}

/* --- workers that are replaced ------------------------------------------------------------------ */

static int leave_thread(struct modus_call *call)
{
    (void)call;
    pthread_exit(NULL);
}

static void test_replaced(void **state)
{
    struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
        .kind = MODUS_POOL_THREAD, .n = 2, .n_min = 1, .tasks_max = 2, .idle_ns = modus_ms(1)});
    (void)state;

    for (int i = 0; i < 20; i++) {
        assert_int_equal(answer_of(ask(pool, square, i)), i * i);
        if (i % 5 == 0)
            assert_int_equal(failure_of(ask(pool, leave_thread, 0)), MODUS_WORKERDIED);
        AWAIT(stats_of(pool).workers == 1);
    }
    assert_int_equal(stats_of(pool).deaths, 4);
    end_pool(pool);
}

static int prepare(void *argument)
{
    (void)argument;
    if (atomic_fetch_sub(&failures_left, 1) > 0)
        return -ENOMEM;
    atomic_fetch_add(&prepared, 1);
    return 0;
}

/* Each that comes back is initialized; when none can be any more, the pool is broken. */
static void test_initializer(void **state)
{
    struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
        .kind = MODUS_POOL_THREAD, .n = 2, .idle_ns = modus_ms(1), .initializer = prepare});
    (void)state;

    for (int i = 0; i < 3; i++) {
        AWAIT(stats_of(pool).workers == 0);
        assert_int_equal(atomic_load(&prepared), 1 + i);
        assert_int_equal(answer_of(ask(pool, square, 3)), 9);
    }
    AWAIT(stats_of(pool).workers == 0);
    atomic_store(&failures_left, 1000);
    assert_int_equal(failure_of(ask(pool, square, 3)), -ENOMEM);
    assert_int_equal(modus_pool_submit(pool, NULL, &(struct modus_task){.run = add_one}, 0),
                     MODUS_BROKEN);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
}

#define TEST(name) cmocka_unit_test_setup(name, open_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),        TEST(test_shrink_and_grow), TEST(test_who_stays_is_asleep),
        TEST(test_little_work),   TEST(test_no_task_is_lost), TEST(test_no_end_is_lost),
        TEST(test_refused_tasks), TEST(test_passed_over),     TEST(test_replaced),
        TEST(test_initializer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
