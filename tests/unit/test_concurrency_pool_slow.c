/* SPDX-License-Identifier: MIT */
/* Slow tasks of a pool of threads: never more of them at a time than there may be, always as many,
 * and the others run meanwhile. */
#include "test_concurrency_pool.h"

#include "concurrency/event.h"
#include "concurrency/fault.h"

static struct modus_event gate;
static atomic_int inside_gate, most_inside, tally;
static atomic_long begun[64];
static struct modus_pool *the_pool;
static const char owner;

static int open_test(void **state)
{
    modus_event_init(&gate, MODUS_THREAD);
    atomic_store(&inside_gate, 0);
    atomic_store(&most_inside, 0);
    atomic_store(&tally, 0);
    return watchdog(state);
}

static struct modus_pool *pool_of(unsigned n)
{
    return pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = n});
}

static void go_in(void)
{
    int inside = atomic_fetch_add(&inside_gate, 1) + 1, most = atomic_load(&most_inside);

    while (inside > most && !atomic_compare_exchange_weak(&most_inside, &most, inside))
        ;
}

static int pass_gate(struct modus_call *call)
{
    go_in();
    modus_event_wait(&gate, MODUS_FOREVER);
    atomic_fetch_sub(&inside_gate, 1);
    return reply(call, number_in(call));
}

static int note_begin(struct modus_call *call)
{
    go_in();
    atomic_store(&begun[atomic_fetch_add(&tally, 1) % 64], number_in(call));
    atomic_fetch_sub(&inside_gate, 1);
    return reply(call, number_in(call));
}

static struct modus_future *ask_slow(struct modus_pool *pool, modus_task_function *run,
                                     unsigned priority, long number)
{
    struct modus_future *future = NULL;
    struct modus_task task = {.run = run,
                              .input = &number,
                              .size = sizeof number,
                              .priority = priority,
                              .owner = number % 2 ? &owner : NULL,
                              .slow = true};

    CHECK_INT(modus_pool_submit(pool, &future, &task, MODUS_FOREVER), 0);
    return future;
}

static void test_errors(void **state)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1});
    struct modus_task task = {.run = note_begin, .slow = true};
    struct modus_map map = {.run = note_begin, .n = 1, .slow = true};
    (void)state;

    assert_int_equal(modus_pool_submit(pool, NULL, &task, 0), -EINVAL);
    assert_int_equal(modus_pool_map(pool, &map), -EINVAL);
    end_pool(pool);
}

/* As many as may, and no more; quick ones pass by; all are run. */
static void test_limit(void **state)
{
    enum { N = 20 };
    (void)state;

    for (unsigned n = 1; n <= 5; n++) {
        struct modus_pool *pool = pool_of(n);
        struct modus_future *futures[N];
        int most = (int)(n + 1) / 2;

        for (long i = 0; i < N; i++)
            futures[i] = ask_slow(pool, pass_gate, 0, i);
        AWAIT(atomic_load(&inside_gate) == most);
        for (long i = 0; n > 1 && i < 50; i++)
            assert_int_equal(answer_of(ask(pool, square, i)), i * i);
        assert_int_equal(atomic_load(&inside_gate), most);
        modus_event_set(&gate);
        for (long i = 0; i < N; i++)
            assert_int_equal(answer_of(futures[i]), i);
        assert_int_equal(atomic_load(&most_inside), most);
        assert_int_equal(stats_of(pool).done, N + (n > 1 ? 50 : 0));
        end_pool(pool);
        open_test(state);
    }
}

/* In a pool with one slot they run one after the other, in the order in which they came, or in that of
 * their priorities. */
static void test_order(void **state)
{
    enum { N = 20 };
    (void)state;

    for (unsigned n = 1; n <= 2; n++) {
        for (unsigned priorities = 0; priorities < 2; priorities++) {
            struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
                .kind = MODUS_POOL_THREAD, .n = n, .priorities = priorities});
            struct modus_future *first = ask_slow(pool, pass_gate, 0, 0), *futures[N];

            AWAIT(atomic_load(&inside_gate) == 1);
            for (long i = 0; i < N; i++)
                futures[i] = ask_slow(pool, note_begin, priorities * (unsigned)(i * 7 % 5), i);
            if (n == 2)
                assert_int_equal(answer_of(ask(pool, square, 2)), 4); /* they are all aside */
            modus_event_set(&gate);
            assert_int_equal(answer_of(first), 0);
            for (long i = 0; i < N; i++)
                assert_int_equal(answer_of(futures[i]), i);
            for (int i = 1; i < N; i++) {
                long before = begun[i - 1], after = begun[i];

                if (priorities && before * 7 % 5 != after * 7 % 5)
                    assert_true(before * 7 % 5 > after * 7 % 5);
                else
                    assert_true(before < after);
            }
            end_pool(pool);
            open_test(state);
        }
    }
}

/* --- conservation ------------------------------------------------------------------------------ */

static int dawdle(struct modus_call *call)
{
    go_in();
    for (long i = number_in(call) % 8; i > 0; i--)
        sched_yield();
    atomic_fetch_sub(&inside_gate, 1);
    return reply(call, number_in(call));
}

static void *ask_both(void *argument)
{
    struct modus_future *futures[16];

    (void)argument;
    for (int round = 0; round < (SLOW ? 30 : 80); round++) {
        for (long i = 0; i < 16; i++)
            futures[i] =
                (i + round) % 3 ? ask_slow(the_pool, dawdle, 0, i) : ask(the_pool, square, i);
        for (long i = 0; i < 16; i++)
            CHECK_INT(answer_of(futures[i]), (i + round) % 3 ? i : i * i);
    }
    return NULL;
}

/* Slow and quick ones from three threads, workers that come and go: every one is run, also those that
 * waited for others. */
static void test_conservation(void **state)
{
    (void)state;
    for (unsigned form = 0; form < 8; form++) {
        pthread_t threads[3];
        unsigned n = 1 + form % 4;

        the_pool = pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD,
                                                       .n = n,
                                                       .capacity = 8,
                                                       .tasks_max = form / 4 * 7,
                                                       .idle_ns = form / 4 * 1000});
        for (int i = 0; i < 3; i++)
            threads[i] = start_thread(ask_both, NULL);
        for (int i = 0; i < 3; i++)
            join_thread(threads[i]);
        assert_true(atomic_load(&most_inside) <= (int)(n + 1) / 2);
        if (form >= 4)
            AWAIT(stats_of(the_pool).workers == 0);
        end_pool(the_pool);
        open_test(state);
    }
}

static atomic_bool enough;

static void *flood(void *argument)
{
    struct modus_future *futures[8];

    (void)argument;
    while (!atomic_load(&enough)) {
        for (long i = 0; i < 8; i++)
            futures[i] = ask(the_pool, square, i);
        for (long i = 0; i < 8; i++)
            answer_of(futures[i]);
    }
    return NULL;
}

static void *flood_slowly(void *argument)
{
    while (!atomic_load(&enough))
        answer_of(ask_slow(the_pool, dawdle, 0, (intptr_t)argument));
    return NULL;
}

/* While there are always more of the other kind, each kind goes on. */
static void test_nobody_starves(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        pthread_t threads[4];

        the_pool = pool_of(n);
        atomic_store(&enough, false);
        for (int i = 0; i < 4; i++)
            threads[i] = start_thread(i < 2 ? flood : flood_slowly, (void *)1);
        for (long i = 0; i < 50; i++) {
            assert_int_equal(answer_of(ask_slow(the_pool, dawdle, 0, i)), i);
            assert_int_equal(answer_of(ask(the_pool, square, i)), i * i);
        }
        atomic_store(&enough, true);
        for (int i = 0; i < 4; i++)
            join_thread(threads[i]);
        end_pool(the_pool);
    }
}

/* --- ends -------------------------------------------------------------------------------------- */

/* A pool of two; one slow task runs, and others lie aside. */
static struct modus_pool *pool_with_aside(struct modus_future **running,
                                          struct modus_future **aside, long n)
{
    struct modus_pool *pool = pool_of(2);

    *running = ask_slow(pool, pass_gate, 0, 0);
    AWAIT(atomic_load(&inside_gate) == 1);
    for (long i = 0; i < n; i++)
        aside[i] = ask_slow(pool, note_begin, 0, i);
    CHECK_INT(answer_of(ask(pool, square, 2)), 4);
    return pool;
}

static void test_cancel(void **state)
{
    struct modus_future *running, *aside[10];
    struct modus_pool *pool = pool_with_aside(&running, aside, 10);
    (void)state;

    assert_int_equal(stats_of(pool).queued, 10);
    assert_int_equal(modus_future_cancel(aside[2]), 0);
    assert_int_equal(modus_pool_cancel_owner(pool, &owner), 5);
    modus_event_set(&gate);
    assert_int_equal(answer_of(running), 0);
    for (int i = 0; i < 10; i++) {
        if (i % 2 || i == 2)
            assert_int_equal(failure_of(aside[i]), MODUS_CANCELED);
        else
            assert_int_equal(answer_of(aside[i]), i);
    }
    end_pool(pool);
    assert_int_equal(atomic_load(&tally), 4);
}

static void test_close_runs_those_aside(void **state)
{
    struct modus_future *running, *aside[10];
    struct modus_pool *pool = pool_with_aside(&running, aside, 10);
    (void)state;

    assert_int_equal(modus_pool_close(pool), 0);
    modus_event_set(&gate);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    assert_int_equal(answer_of(running), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(answer_of(aside[i]), i);
    modus_pool_free(pool);
}

/* Those aside are cancelled at once, though one still runs. */
static void test_terminate_and_shutdown(void **state)
{
    (void)state;
    for (int form = 0; form < 2; form++) {
        struct modus_future *running, *aside[10];
        struct modus_pool *pool = pool_with_aside(&running, aside, 10);

        if (form)
            assert_int_equal(modus_pool_terminate(pool), 0);
        else
            assert_int_equal(modus_pool_shutdown(pool, false, true), 0);
        for (int i = 0; i < 10; i++)
            assert_int_equal(failure_of(aside[i]), MODUS_CANCELED);
        assert_int_equal(atomic_load(&inside_gate), 1);
        modus_event_set(&gate);
        assert_int_equal(answer_of(running), 0);
        modus_pool_free(pool);
        assert_int_equal(atomic_load(&tally), 0);
        open_test(state);
    }
}

/* One that a thread has got from the queue, but not put aside yet, is cancelled, too. */
static void test_shutdown_before_it_is_aside(void **state)
{
    struct modus_pool *pool = pool_of(2);
    struct modus_future *running = ask_slow(pool, pass_gate, 0, 0);
    (void)state;

    AWAIT(atomic_load(&inside_gate) == 1);
    modus_fault_plan(MODUS_FAULT_TASK_SLOW, MODUS_FAULT_DELAY, 0);
    struct modus_future *late = ask_slow(pool, note_begin, 0, 1);
    while (modus_fault_passed() == 0)
        sched_yield();
    assert_int_equal(modus_pool_shutdown(pool, false, true), 0);
    assert_int_equal(failure_of(late), MODUS_CANCELED); /* while the other one still runs */
    modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DELAY, 0);
    modus_event_set(&gate);
    assert_int_equal(answer_of(running), 0);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
}

static int leave_thread(struct modus_call *call)
{
    (void)call;
    modus_event_wait(&gate, MODUS_FOREVER);
    pthread_exit(NULL);
}

/* A task that ends its thread gives its slot back. */
static void test_thread_ends(void **state)
{
    struct modus_pool *pool = pool_of(2);
    struct modus_future *dying[3], *aside[10];
    (void)state;

    for (long i = 0; i < 3; i++)
        dying[i] = ask_slow(pool, leave_thread, 0, i);
    for (long i = 0; i < 10; i++)
        aside[i] = ask_slow(pool, note_begin, 0, i);
    assert_int_equal(answer_of(ask(pool, square, 2)), 4);
    modus_event_set(&gate);
    for (int i = 0; i < 3; i++)
        assert_int_equal(failure_of(dying[i]), MODUS_WORKERDIED);
    for (int i = 0; i < 10; i++)
        assert_int_equal(answer_of(aside[i]), i);
    assert_int_equal(atomic_load(&most_inside), 1);
    end_pool(pool);
}

static int prepare(void *argument)
{
    return atomic_fetch_add((atomic_int *)argument, 1) == 0 ? 0 : -ENOMEM;
}

/* No thread takes the place of the one that ended, and there is no other: those aside fail, none
 * hangs. */
static void test_no_thread_is_left(void **state)
{
    atomic_int prepared = 0;
    struct modus_pool *pool = pool_with(&(struct modus_pool_attr){
        .kind = MODUS_POOL_THREAD, .n = 1, .initializer = prepare, .argument = &prepared});
    struct modus_future *dying = ask_slow(pool, leave_thread, 0, 0), *queued[5];
    (void)state;

    for (long i = 0; i < 5; i++)
        queued[i] = ask_slow(pool, note_begin, 0, i);
    modus_event_set(&gate);
    assert_int_equal(failure_of(dying), MODUS_WORKERDIED);
    for (int i = 0; i < 5; i++)
        assert_int_equal(failure_of(queued[i]), -ENOMEM);
    assert_int_equal(modus_pool_join(pool, MODUS_FOREVER), 0);
    modus_pool_free(pool);
}

/* --- waits and room ----------------------------------------------------------------------------- */

static int wait_for_slow(struct modus_call *call)
{
    long n = number_in(call);

    return reply(call, n ? n + answer_of(ask_slow(the_pool, wait_for_slow, 0, n - 1)) : 0);
}

/* A thread that waits for a slow task that has not begun runs it, slots or not. */
static void test_tasks_wait_for_tasks(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        struct modus_future *futures[10];

        the_pool = pool_of(n);
        for (int i = 0; i < 10; i++)
            futures[i] =
                i % 2 ? ask_slow(the_pool, wait_for_slow, 0, i) : ask(the_pool, wait_for_slow, i);
        for (int i = 0; i < 10; i++)
            assert_int_equal(answer_of(futures[i]), i * (i + 1) / 2);
        end_pool(the_pool);
    }
}

static void *submit_one_more(void *argument)
{
    struct modus_task task = {.run = note_begin, .slow = true};

    return (void *)(intptr_t)modus_pool_submit(argument, NULL, &task, MODUS_FOREVER);
}

static int submit_many(struct modus_call *call)
{
    struct modus_task task = {.run = note_begin, .slow = true};

    (void)call;
    for (int i = 0; i < 30; i++)
        CHECK_INT(modus_pool_submit(the_pool, NULL, &task, MODUS_FOREVER), 0);
    return 0;
}

/* As many slow ones as there is room for in the queue, those aside included; quick ones have it still. */
static void test_full(void **state)
{
    struct modus_task task = {.run = note_begin, .slow = true};
    void *rc;
    (void)state;

    for (int closed = 0; closed < 2; closed++) {
        the_pool =
            pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 2, .capacity = 4});
        struct modus_future *running = ask_slow(the_pool, pass_gate, 0, 0);
        AWAIT(atomic_load(&inside_gate) == 1);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(modus_pool_submit(the_pool, NULL, &task, 0), 0);
            assert_int_equal(answer_of(ask(the_pool, square, i)), i * i);
        }
        assert_int_equal(modus_pool_submit(the_pool, NULL, &task, 0), MODUS_FULL);
        assert_int_equal(modus_pool_submit(the_pool, NULL, &task, modus_ms(1)), -ETIMEDOUT);
        assert_int_equal(answer_of(ask(the_pool, square, 9)), 81);
        pthread_t thread = start_thread(submit_one_more, the_pool);
        if (closed) {
            usleep(2000); /* it waits, or is late: it is told the same */
            modus_pool_close(the_pool);
            pthread_join(thread, &rc);
            assert_int_equal((intptr_t)rc, MODUS_CLOSED);
            modus_event_set(&gate);
        } else {
            modus_event_set(&gate);
            pthread_join(thread, &rc);
            assert_int_equal((intptr_t)rc, 0);
            assert_int_equal(failure_of(ask(the_pool, submit_many, 0)), 0);
        }
        assert_int_equal(answer_of(running), 0);
        end_pool(the_pool);
        assert_int_equal(atomic_load(&tally), closed ? 4 : 35);
        open_test(state);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, open_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),
        TEST(test_limit),
        TEST(test_order),
        TEST(test_conservation),
        TEST(test_nobody_starves),
        TEST(test_cancel),
        TEST(test_close_runs_those_aside),
        TEST(test_terminate_and_shutdown),
        TEST(test_shutdown_before_it_is_aside),
        TEST(test_thread_ends),
        TEST(test_no_thread_is_left),
        TEST(test_tasks_wait_for_tasks),
        TEST(test_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
