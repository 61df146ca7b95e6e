/* SPDX-License-Identifier: MIT */
/* Coroutines as guests of a thread whose own loop, here poll(2), does the waiting. */
#include "test_concurrency_co.h"

#include "concurrency/event.h"
#include "concurrency/queue.h"
#include "concurrency/thread.h"

#include <poll.h>
#include <sys/socket.h>

static unsigned turns, live;

/* A host's loop: turn, wait, turn, until no coroutine is left. */
static void host(void)
{
    struct pollfd fd = {.fd = modus_co_guest_fd(), .events = POLLIN};
    bool readable = false;

    assert_true(fd.fd >= 0);
    while (live > 0) {
        int64_t next = modus_co_guest_turn(readable), now = modus_now_ns();
        int wait = next == MODUS_FOREVER ? -1 : next <= now ? 0 : (int)((next - now) / 1000000) + 1;

        turns++;
        if (live > 0)
            readable = poll(&fd, 1, wait) == 1;
    }
    modus_co_guest_turn(readable);
}

static int start(int (*run)(void *), void *argument)
{
    live++;
    return modus_co_start(NULL, NULL, run, argument);
}

static int open_guest(void **state)
{
    (void)state;
    turns = live = 0;
    return modus_co_guest_open();
}

static int close_guest(void **state)
{
    (void)state;
    return modus_co_guest_close();
}

static int sleep_for(void *ms)
{
    int64_t begin = modus_now_ns(), ns = modus_ms(*(int *)ms);

    CHECK_INT(modus_co_sleep(ns), 0);
    CHECK(modus_now_ns() - begin >= ns);
    live--;
    return 0;
}

/* It waits as long as it has to, and the host is not kept busy by it. */
static void test_sleep(void **state)
{
    int ms[] = {30, 1, 60};
    (void)state;

    for (int i = 0; i < 3; i++)
        assert_int_equal(start(sleep_for, &ms[i]), 0);
    host();
    assert_true(turns < 30);
}

static int yield_often(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 100; i++) {
        unsigned before = turns;

        CHECK_INT(modus_co_yield(), 0);
        CHECK_INT(turns, before + 1);
    }
    live--;
    return 0;
}

/* Who lets others go on lets the host go on, too. */
static void test_yield(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_int_equal(start(yield_often, NULL), 0);
    host();
}

static struct modus_event event;
static struct modus_queue queue;

static int wait_for_event(void *argument)
{
    (void)argument;
    CHECK_INT(modus_event_wait(&event, MODUS_FOREVER), 0);
    live--;
    return 0;
}

/* What the host does between two turns reaches a coroutine in the next one. */
static void test_host_wakes(void **state)
{
    (void)state;
    modus_event_init(&event, MODUS_THREAD);
    assert_int_equal(start(wait_for_event, NULL), 0);
    assert_int_equal(modus_co_guest_turn(false), MODUS_FOREVER);
    assert_int_equal(live, 1);
    modus_event_set(&event);
    modus_co_guest_turn(false);
    assert_int_equal(live, 0);
}

static int get_hundred(void *argument)
{
    int item;
    (void)argument;

    for (int i = 0; i < 100; i++) {
        CHECK_INT(modus_queue_get(&queue, &item, MODUS_FOREVER), 0);
        CHECK_INT(item, i);
    }
    live--;
    return 0;
}

static void *put_hundred(void *argument)
{
    for (int i = 0; i < 100; i++) {
        assert_int_equal(modus_queue_put(&queue, &i, MODUS_FOREVER), 0);
        if (i % 10 == 0)
            modus_co_sleep(modus_ms(1));
    }
    return argument;
}

/* Another thread wakes coroutines through the descriptor. */
static void test_thread_wakes(void **state)
{
    struct modus_queue_attr attr = {.scope = MODUS_THREAD, .capacity = 4, .item_size = sizeof(int)};
    struct modus_thread *thread;
    (void)state;

    assert_int_equal(modus_queue_init(&queue, &attr), 0);
    assert_int_equal(start(get_hundred, NULL), 0);
    assert_int_equal(modus_thread_new(&thread, NULL, put_hundred, NULL), 0);
    assert_int_equal(modus_thread_start(thread), 0);
    host();
    assert_int_equal(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    modus_thread_put(thread);
    modus_queue_fini(&queue);
}

static int pair[2];

static int echo(void *argument)
{
    char byte;
    (void)argument;

    for (int i = 0; i < 20; i++) {
        CHECK_INT(modus_co_wait_fd(pair[1], POLLIN, MODUS_FOREVER, NULL), 0);
        CHECK_INT(read(pair[1], &byte, 1), 1);
        CHECK_INT(write(pair[1], &byte, 1), 1);
    }
    live--;
    return 0;
}

static int ask(void *argument)
{
    char byte = 'a';
    (void)argument;

    for (int i = 0; i < 20; i++) {
        CHECK_INT(write(pair[0], &byte, 1), 1);
        CHECK_INT(modus_co_wait_fd(pair[0], POLLIN, MODUS_FOREVER, NULL), 0);
        CHECK_INT(read(pair[0], &byte, 1), 1);
    }
    live--;
    return 0;
}

/* Descriptors that coroutines wait for are behind the one that the host polls. */
static void test_descriptors(void **state)
{
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(start(echo, NULL), 0);
    assert_int_equal(start(ask, NULL), 0);
    host();
    close(pair[0]);
    close(pair[1]);
}

static int sleep_long(void *argument)
{
    (void)argument;
    CHECK_INT(modus_co_sleep(modus_seconds(1000)), MODUS_CANCELED);
    live--;
    return 0;
}

static void *cancel_it(void *co)
{
    modus_co_cancel(co);
    return NULL;
}

static void test_cancel(void **state)
{
    struct modus_co *co;
    struct modus_thread *thread;
    (void)state;

    for (int by_thread = 0; by_thread < 2; by_thread++) {
        live++;
        assert_int_equal(modus_co_start(&co, NULL, sleep_long, NULL), 0);
        modus_co_guest_turn(false);
        if (by_thread) {
            assert_int_equal(modus_thread_new(&thread, NULL, cancel_it, co), 0);
            assert_int_equal(modus_thread_start(thread), 0);
            assert_int_equal(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
            modus_thread_put(thread);
        } else {
            cancel_it(co);
        }
        host();
        modus_co_put(co);
    }
}

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static int look_from_inside(void *argument)
{
    (void)argument;
    CHECK_INT(modus_co_guest_fd(), -EPERM);
    CHECK_INT(modus_co_guest_turn(true), MODUS_FOREVER);
    CHECK_INT(modus_co_guest_close(), -EPERM);
    live--;
    return 0;
}

static void test_errors(void **state)
{
    (void)state;
    assert_int_equal(modus_co_guest_open(), -EDEADLK);
    assert_int_equal(modus_co_run(nothing, NULL), -EDEADLK);
    assert_int_equal(start(look_from_inside, NULL), 0);
    assert_int_equal(modus_co_guest_close(), -EBUSY);
    host();
    assert_int_equal(modus_co_guest_close(), 0);
    assert_int_equal(modus_co_guest_close(), -EPERM);
    assert_int_equal(modus_co_guest_fd(), -EPERM);
    assert_int_equal(modus_co_guest_turn(true), MODUS_FOREVER);
    assert_int_equal(modus_co_start(NULL, NULL, nothing, NULL), -EPERM);
    assert_int_equal(modus_co_guest_open(), 0); /* once more */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sleep, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(test_yield, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(test_host_wakes, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(test_thread_wakes, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(test_descriptors, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(test_cancel, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(test_errors, open_guest, close_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
