/* SPDX-License-Identifier: MIT */
/* The timer: each error, order and time, periods without drift, both ways of cancelling at every
 * moment, its thread's life, and forks. */
#include "test_concurrency.h"

#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/thread.h"
#include "concurrency/timer.h"

#include <dirent.h>

static struct modus_event gate;
static _Atomic int calls, inside;
static _Atomic int64_t times[256];
static _Atomic int tid_of_calls;

static int begin_test(void **state)
{
    modus_event_init(&gate, MODUS_THREAD);
    atomic_store(&calls, 0);
    atomic_store(&inside, 0);
    return watchdog(state);
}

/* Is there a thread of that name? A sanitizer has threads of its own, so they are not counted. */
static bool has_thread(void)
{
    bool found = false;
    DIR *dir = opendir("/proc/self/task");

    CHECK(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[320], name[32] = "";

        snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        found |= fgets(name, sizeof name, file) && strcmp(name, "timer\n") == 0;
        fclose(file);
    }
    closedir(dir);
    return found;
}

static void note(void *argument)
{
    int number = atomic_load(&calls);

    (void)argument;
    atomic_store(&tid_of_calls, gettid());
    if (number < 256)
        atomic_store(&times[number], modus_now_ns());
    atomic_fetch_add(&calls, 1);
}

/* Until the gate opens. */
static void take_long(void *argument)
{
    atomic_fetch_add(&inside, 1);
    CHECK_INT(modus_event_wait(&gate, MODUS_FOREVER), 0);
    note(argument);
}

static void test_errors(void **state)
{
    struct modus_timer timer = {0};
    (void)state;

    assert_int_equal(modus_timer_once(&timer, -1, note, NULL), -EINVAL);
    assert_int_equal(modus_timer_once(&timer, 0, NULL, NULL), -EINVAL);
    assert_int_equal(modus_timer_once_at(&timer, -1, note, NULL), -EINVAL);
    assert_int_equal(modus_timer_every(&timer, 0, note, NULL), -EINVAL);
    assert_int_equal(modus_timer_every(&timer, -1, note, NULL), -EINVAL);
    assert_int_equal(modus_timer_every(&timer, 1, NULL, NULL), -EINVAL);
    assert_int_equal(modus_timer_every_from(&timer, -1, 1, note, NULL), -EINVAL);
    assert_int_equal(modus_timer_cancel(&timer), MODUS_TOO_LATE); /* never started */
    assert_int_equal(modus_timer_cancel_sync(&timer), MODUS_TOO_LATE);
    assert_false(modus_timer_pending(&timer));
    assert_false(has_thread());

    assert_int_equal(modus_timer_once(&timer, modus_seconds(60), note, NULL), 0);
    assert_true(modus_timer_pending(&timer));
    assert_int_equal(modus_timer_once(&timer, 0, note, NULL), -EALREADY);
    assert_int_equal(modus_timer_every(&timer, 1, note, NULL), -EALREADY);
    AWAIT(has_thread());
    assert_int_equal(modus_timer_cancel(&timer), 0);
    assert_false(modus_timer_pending(&timer));
    assert_int_equal(modus_timer_cancel(&timer), MODUS_TOO_LATE);
    assert_int_equal(modus_timer_once(&timer, INT64_MAX, note, NULL), 0);
    assert_int_equal(modus_timer_cancel_sync(&timer), 0);
    assert_int_equal(atomic_load(&calls), 0);
}

static void test_once(void **state)
{
    struct modus_timer timer = {0};
    int64_t begun = modus_now_ns();
    (void)state;

    assert_int_equal(modus_timer_once(&timer, modus_ms(20), note, NULL), 0);
    AWAIT(atomic_load(&calls) == 1);
    assert_true(times[0] - begun >= modus_ms(20));
    assert_int_not_equal(atomic_load(&tid_of_calls), gettid());
    assert_int_equal(modus_timer_cancel_sync(&timer), MODUS_TOO_LATE);
    assert_false(modus_timer_pending(&timer));
    assert_int_equal(modus_timer_once_at(&timer, 0, note, NULL), 0); /* once more, and at once */
    AWAIT(atomic_load(&calls) == 2);
    assert_int_equal(modus_timer_once(&timer, 0, note, NULL), 0);
    AWAIT(atomic_load(&calls) == 3);
    modus_timer_cancel_sync(&timer); /* it is ours again */
}

static _Atomic int order[64], ordered;

static void note_order(void *argument)
{
    atomic_store(&order[atomic_fetch_add(&ordered, 1)], (int)(intptr_t)argument);
}

/* Started in any order, called in the order of their times; some are cancelled. The thread is held up
 * until all have been started, however long that takes. */
static void test_order(void **state)
{
    struct modus_timer first = {0}, timers[64] = {0};
    int64_t start = modus_now_ns();
    int last = -1;
    (void)state;

    assert_int_equal(modus_timer_once(&first, 0, take_long, NULL), 0);
    AWAIT(atomic_load(&inside) == 1);
    for (int i = 0; i < 64; i++) {
        int place = i * 29 % 64;

        assert_int_equal(
            modus_timer_once_at(&timers[place], start + place, note_order, (void *)(intptr_t)place),
            0);
    }
    for (int i = 0; i < 64; i += 5)
        assert_int_equal(modus_timer_cancel(&timers[i]), 0);
    modus_event_set(&gate);
    AWAIT(atomic_load(&ordered) == 64 - 13);
    for (int i = 0; i < 64 - 13; i++) {
        assert_true(order[i] > last);
        assert_int_not_equal(order[i] % 5, 0);
        last = order[i];
    }
    for (int i = 0; i < 64; i++)
        modus_timer_cancel_sync(&timers[i]);
    modus_timer_cancel_sync(&first);
    assert_int_equal(atomic_load(&ordered), 64 - 13);
}

/* An earlier one, while the thread sleeps for a later one. */
static void test_earlier_one_comes(void **state)
{
    struct modus_timer late = {0}, early = {0};
    (void)state;

    assert_int_equal(modus_timer_once(&late, modus_seconds(60), note, NULL), 0);
    AWAIT(has_thread());
    usleep(2000);
    assert_int_equal(modus_timer_once(&early, modus_ms(5), note, NULL), 0);
    AWAIT(atomic_load(&calls) == 1);
    assert_int_equal(modus_timer_cancel_sync(&early), MODUS_TOO_LATE);
    assert_int_equal(modus_timer_cancel(&late), 0);
}

/* However late each call is, the next one is a multiple of the period away from the first. */
static void test_no_drift(void **state)
{
    struct modus_timer timer = {0};
    int64_t start = modus_now_ns() + modus_ms(2), period = modus_ms(1) + 1;
    (void)state;

    assert_int_equal(modus_timer_every_from(&timer, start, period, note, NULL), 0);
    AWAIT(atomic_load(&calls) >= 30);
    assert_true(modus_timer_pending(&timer));
    assert_int_not_equal(modus_timer_cancel_sync(&timer), -EDEADLK);
    int n = atomic_load(&calls);
    for (int i = 0; i < n && i < 256; i++)
        assert_true(times[i] >= start + i * period); /* never early, never one too many */
    assert_int_equal((timer.entry.at - start) % period, 0);
    usleep(10000);
    assert_int_equal(atomic_load(&calls), n);
}

/* Calls that are missed are not made up for: there is one at once, then one at each multiple. */
static void test_missed(void **state)
{
    struct modus_timer timer = {0};
    int64_t start = modus_now_ns(), period = modus_ms(10);
    (void)state;

    assert_int_equal(modus_timer_every_from(&timer, start, period, take_long, NULL), 0);
    AWAIT(atomic_load(&inside) == 1);
    AWAIT(modus_now_ns() > start + 20 * period);
    int64_t opened = modus_now_ns();
    modus_event_set(&gate);
    AWAIT(atomic_load(&calls) >= 4);
    modus_timer_cancel_sync(&timer);
    assert_true(atomic_load(&calls) <= (modus_now_ns() - opened) / period + 3);
    assert_int_equal((timer.entry.at - start) % period, 0);
}

static _Atomic int cancel_results[4];

static void *cancel_and_wait(void *argument)
{
    atomic_store(&cancel_results[0], modus_timer_cancel_sync(argument));
    atomic_store(&cancel_results[1], atomic_load(&calls));
    return NULL;
}

static void test_cancel_while_running(void **state)
{
    (void)state;
    for (int periodic = 0; periodic < 2; periodic++) {
        struct modus_timer timer = {0}, other = {0};

        begin_test(state);
        assert_int_equal(periodic ? modus_timer_every(&timer, modus_ms(1), take_long, NULL)
                                  : modus_timer_once(&timer, 0, take_long, NULL),
                         0);
        AWAIT(atomic_load(&inside) == 1);
        assert_int_equal(modus_timer_pending(&timer), periodic);
        assert_int_equal(modus_timer_cancel(&timer), MODUS_TOO_LATE); /* does not wait */
        assert_false(modus_timer_pending(&timer));
        assert_int_equal(atomic_load(&calls), 0);
        assert_int_equal(modus_timer_once(&other, 0, note, NULL), 0);
        assert_int_equal(modus_timer_cancel_sync(&other), 0); /* another's: nothing to wait for */
        pthread_t thread = start_thread(cancel_and_wait, &timer);
        usleep(5000);
        modus_event_set(&gate);
        join_thread(thread);
        assert_int_equal(atomic_load(&cancel_results[0]), MODUS_TOO_LATE);
        assert_int_equal(atomic_load(&cancel_results[1]), 1);
    }
}

static void cancel_self(void *argument)
{
    atomic_store(&cancel_results[2], modus_timer_cancel(argument));
    atomic_store(&cancel_results[3], modus_timer_cancel_sync(argument));
    note(argument);
}

/* From within its own function: no more calls, and no wait for oneself. */
static void test_cancel_from_within(void **state)
{
    struct modus_timer timer = {0};
    (void)state;

    assert_int_equal(modus_timer_every(&timer, modus_ms(1), cancel_self, &timer), 0);
    AWAIT(atomic_load(&calls) == 1);
    assert_int_equal(atomic_load(&cancel_results[2]), MODUS_TOO_LATE);
    assert_int_equal(atomic_load(&cancel_results[3]), -EDEADLK);
    assert_int_equal(modus_timer_cancel_sync(&timer), MODUS_TOO_LATE);
    usleep(5000);
    assert_int_equal(atomic_load(&calls), 1);
}

static void again(void *argument)
{
    note(argument);
    if (atomic_load(&calls) < 3)
        CHECK_INT(modus_timer_once(argument, modus_us(100), again, argument), 0);
    else
        free(argument);
}

/* A function may start its own timer anew, and free it. */
static void test_starts_and_frees_itself(void **state)
{
    struct modus_timer *timer = calloc(1, sizeof *timer), next = {0};
    (void)state;

    assert_int_equal(modus_timer_once(timer, 0, again, timer), 0);
    AWAIT(atomic_load(&calls) == 3);
    assert_int_equal(modus_timer_once(&next, 0, note, NULL), 0);
    AWAIT(atomic_load(&calls) == 4);
    modus_timer_cancel_sync(&next);
}

/* Cancelled or called, one of the two, at any moment. */
static void test_cancel_race(void **state)
{
    int rounds = SLOW ? 200 : 2000, cancelled = 0;
    (void)state;

    for (int i = 0; i < rounds; i++) {
        struct modus_timer timer = {0};

        assert_int_equal(modus_timer_once(&timer, modus_us(i % 60), note, NULL), 0);
        if (i % 2)
            sched_yield();
        int before = atomic_load(&calls);
        int rc = modus_timer_cancel_sync(&timer);
        assert_true(rc == 0 || rc == MODUS_TOO_LATE);
        cancelled += rc == 0;
        if (rc == 0)
            assert_int_equal(atomic_load(&calls), before);
        assert_int_equal(atomic_load(&calls), i + 1 - cancelled);
    }
}

/* It ends when it has had nothing to do for a while, and begins again. */
static void test_thread_ends(void **state)
{
    struct modus_timer timer = {0};
    (void)state;

    for (int i = 0; i < 2; i++) {
        assert_int_equal(modus_timer_once(&timer, 0, note, NULL), 0);
        AWAIT(atomic_load(&calls) == i + 1);
        assert_int_equal(modus_timer_cancel_sync(&timer), MODUS_TOO_LATE);
        AWAIT(!has_thread());
    }
}

static int use_in_child(void *argument)
{
    struct modus_timer *timer = argument, own = {0};

    CHECK(!modus_timer_pending(timer));
    CHECK_INT(modus_timer_cancel(timer), MODUS_TOO_LATE);
    CHECK(!has_thread());
#ifdef __SANITIZE_THREAD__
    return own.period != 0; /* it allows no threads in a child of several */
#endif
    CHECK_INT(modus_timer_once(&own, 0, note, NULL), 0);
    AWAIT(atomic_load(&calls) == 1);
    CHECK_INT(modus_timer_once(timer, 0, note, NULL), 0);
    AWAIT(atomic_load(&calls) == 2);
    return 0;
}

static void test_fork(void **state)
{
    struct modus_timer timer = {0};
    (void)state;

    assert_int_equal(modus_timer_once(&timer, modus_seconds(60), note, NULL), 0);
    assert_int_equal(reap(start_child(use_in_child, &timer)), 0);
    assert_true(modus_timer_pending(&timer));
    assert_int_equal(modus_timer_cancel(&timer), 0);
    assert_int_equal(atomic_load(&calls), 0);
}

static void block_signals(void *argument)
{
    sigset_t set;

    pthread_sigmask(SIG_BLOCK, NULL, &set);
    CHECK(sigismember(&set, SIGTERM) && sigismember(&set, SIGCHLD));
    CHECK(modus_thread_is_daemon(modus_thread_self()));
    CHECK_INT(strcmp(modus_thread_name(modus_thread_self()), "timer"), 0);
    note(argument);
}

static int in_coroutine(void *argument)
{
    CHECK_INT(modus_timer_once(argument, modus_ms(2), block_signals, NULL), 0);
    CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    AWAIT(atomic_load(&calls) == 1);
    CHECK_INT(modus_timer_cancel_sync(argument), MODUS_TOO_LATE);
    return 0;
}

/* The thread's own state; started from a coroutine. */
static void test_thread_and_coroutine(void **state)
{
    struct modus_timer timer = {0};
    (void)state;

    assert_int_equal(modus_co_run(in_coroutine, &timer), 0);
}

#define TEST(name) cmocka_unit_test_setup(name, begin_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),
        TEST(test_once),
        TEST(test_order),
        TEST(test_earlier_one_comes),
        TEST(test_no_drift),
        TEST(test_missed),
        TEST(test_cancel_while_running),
        TEST(test_cancel_from_within),
        TEST(test_starts_and_frees_itself),
        TEST(test_cancel_race),
        TEST(test_thread_ends),
        TEST(test_fork),
        TEST(test_thread_and_coroutine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
