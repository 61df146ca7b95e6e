/* SPDX-License-Identifier: MIT */
/* The pipe with many users: several senders and receivers at an end, with and without a lock, killed
 * in the middle and at random, and coroutines. */
#include "test_concurrency_pipe.h"

#include "concurrency/fault.h"

#ifdef __SANITIZE_THREAD__ /* children have proxies of their own, which it does not like */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

/* --- many at an end -------------------------------------------------------------------------- */

enum { SENDERS = 3 };

struct crowd {
    struct modus_pipe ends[2];
    int messages; /* each sender's */
    _Atomic unsigned next;
    _Atomic int sent[16], got[16];
    _Atomic int broken;
};

/* A message says whose it is and which, and its length follows from that. */
static size_t length_of(unsigned sender, int number)
{
    return 8 + (size_t)((unsigned)number * 37 + sender * 11) % 5 * 50000;
}

static int send_crowd(void *argument)
{
    struct crowd *crowd = argument;
    unsigned me = atomic_fetch_add(&crowd->next, 1) % 16;
    int messages = crowd->messages;

    for (int i = 0; i < messages; i++) {
        size_t size = length_of(me, i);
        unsigned char *data = make_long(me * 1000 + (unsigned)i, size);
        uint32_t head[2] = {me, (uint32_t)i};

        memcpy(data, head, sizeof head);
        CHECK_INT(modus_pipe_send(&crowd->ends[0], data, size, MODUS_FOREVER), 0);
        free(data);
        atomic_fetch_add(&crowd->sent[me], 1);
    }
    return 0;
}

static int receive_crowd(void *argument)
{
    struct crowd *crowd = argument;
    int rc;

    for (;;) {
        struct modus_pipe_message message = {0};
        uint32_t head[2];

        rc = modus_pipe_recv_message(&crowd->ends[1], &message, MODUS_FOREVER);
        if (rc == MODUS_BROKEN) {
            atomic_fetch_add(&crowd->broken, 1);
            continue;
        }
        if (rc == MODUS_CLOSED)
            return 0;
        CHECK_INT(rc, 0);
        memcpy(head, message.data, sizeof head);
        if (head[0] == UINT32_MAX) {
            free(message.data);
            return 0;
        }
        CHECK(head[0] < 16);
        CHECK(message.size == length_of(head[0], (int)head[1]));
        for (size_t i = sizeof head; i < message.size; i++)
            CHECK(((unsigned char *)message.data)[i] == byte_at(head[0] * 1000 + head[1], i));
        free(message.data);
        atomic_fetch_add(&crowd->got[head[0]], 1);
    }
}

static void *send_crowd_thread(void *argument)
{
    send_crowd(argument);
    return NULL;
}

static void *receive_crowd_thread(void *argument)
{
    receive_crowd(argument);
    return NULL;
}

static struct crowd *new_crowd(enum modus_scope scope, int messages)
{
    struct crowd *crowd = modus_arena_alloc(arena, sizeof *crowd, 0);

    CHECK(crowd);
    crowd->messages = messages;
    open_pair(crowd->ends, scope, true);
    /* one way, and the sender's end first */
    struct modus_pipe receiver = crowd->ends[0];
    crowd->ends[0] = crowd->ends[1];
    crowd->ends[1] = receiver;
    return crowd;
}

static void dismiss_receivers(struct crowd *crowd, int n)
{
    uint32_t last[2] = {UINT32_MAX, 0};

    for (int i = 0; i < n; i++)
        CHECK_INT(modus_pipe_send(&crowd->ends[0], last, sizeof last, MODUS_FOREVER), 0);
}

static void end_crowd(struct crowd *crowd)
{
    close_pair(crowd->ends);
    modus_arena_free(arena, crowd, sizeof *crowd);
}

/* Several of both, threads or processes: with the lock, every message comes once and whole. */
static void test_crowd(void **state)
{
    (void)state;
    for (int processes = 0; processes < 2; processes++) {
        struct crowd *crowd = new_crowd(processes ? MODUS_PROCESS : MODUS_THREAD, SLOW ? 30 : 150);
        pthread_t threads[SENDERS + 2];
        pid_t pids[SENDERS + 2];

        for (int i = 0; i < SENDERS + 2; i++)
            if (processes)
                pids[i] = start_child(i < SENDERS ? send_crowd : receive_crowd, crowd);
            else
                threads[i] =
                    start_thread(i < SENDERS ? send_crowd_thread : receive_crowd_thread, crowd);
        for (int i = 0; i < SENDERS + 2; i++) {
            if (i == SENDERS)
                dismiss_receivers(crowd, 2);
            if (processes)
                assert_int_equal(reap(pids[i]), 0);
            else
                join_thread(threads[i]);
        }
        for (int i = 0; i < SENDERS; i++)
            assert_int_equal(crowd->got[i], crowd->messages);
        assert_int_equal(crowd->broken, 0);
        end_crowd(crowd);
    }
}

/* Two processes without a lock tear each other's messages, of three packets each: what comes is
 * whole all the same, and what does not is told, once. They stop after their first packets, so it is
 * sure to happen. */
enum { TORN = 150000 };

static int send_and_stop(void *argument)
{
    modus_fault_plan(MODUS_FAULT_PIPE_SENT, MODUS_FAULT_STOP, 1);
    CHECK_INT(send_long(argument, 1, TORN, MODUS_FOREVER), 0);
    return 0;
}

static int stop_second(void *argument)
{
    modus_fault_plan(MODUS_FAULT_PIPE_SENT, MODUS_FAULT_STOP, 1);
    CHECK_INT(send_long(argument, 2, TORN, MODUS_FOREVER), 0);
    return 0;
}

static void go_on(pid_t pid)
{
    kill(pid, SIGCONT);
    assert_int_equal(reap(pid), 0);
}

static void test_torn(void **state)
{
    (void)state;
    for (int first_ends_first = 0; first_ends_first < 2; first_ends_first++) {
        struct modus_pipe ends[2];
        unsigned char *data = malloc(LONG);
        size_t size = LONG;

        open_pair(ends, 0, false);
        pid_t first = start_child(send_and_stop, &ends[0]);
        AWAIT(state_of(first) == 'T');
        pid_t second = start_child(stop_second, &ends[0]);
        AWAIT(state_of(second) == 'T');
        go_on(first_ends_first ? first : second);
        go_on(first_ends_first ? second : first);
        assert_int_equal(send_text(&ends[0], "after"), 0);
        if (first_ends_first) /* its parts come between those of the other */
            assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), MODUS_BROKEN);
        assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), 0);
        assert_int_equal(size, TORN);
        check_long(data, 2, size);
        size = LONG;
        if (!first_ends_first)
            assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), MODUS_BROKEN);
        expect_text(&ends[1], "after");
        close_pair(ends);
        free(data);
    }
}

/* --- killed users ---------------------------------------------------------------------------- */

static int send_and_die(void *argument)
{
    modus_fault_plan(MODUS_FAULT_PIPE_SENT, MODUS_FAULT_DIE, 2);
    return send_long(argument, 1, 200000, MODUS_FOREVER);
}

static int receive_and_die(void *argument)
{
    unsigned char *data = malloc(LONG);
    size_t size = LONG;

    modus_fault_plan(MODUS_FAULT_PIPE_TAKEN, MODUS_FAULT_DIE, 2);
    return modus_pipe_recv(argument, data, &size, MODUS_FOREVER);
}

/* Killed in the middle, with the lock: the others' messages are whole, and nobody is told. */
static void test_killed_in_the_middle(void **state)
{
    struct modus_pipe ends[2];
    unsigned char *data = malloc(LONG);
    size_t size = LONG;
    (void)state;

    open_pair(ends, MODUS_PROCESS, false);
    assert_int_equal(reap(start_child(send_and_die, &ends[0])), -SIGKILL);
    assert_int_equal(modus_pipe_recv(&ends[1], data, &size, modus_ms(5)), -ETIMEDOUT);
    assert_int_equal(send_text(&ends[0], "after"), 0);
    expect_text(&ends[1], "after");
    assert_int_equal(send_long(&ends[0], 2, 150000, 0), 0);
    assert_int_equal(send_text(&ends[0], "after"), 0);
    assert_int_equal(reap(start_child(receive_and_die, &ends[1])), -SIGKILL);
    expect_text(&ends[1], "after"); /* the one in its hands is lost */
    close_pair(ends);
    free(data);
}

static int sent_by_all(const struct crowd *crowd)
{
    int sent = 0;

    for (int i = 0; i < 16; i++)
        sent += atomic_load(&crowd->sent[i]);
    return sent;
}

/* Senders and receivers are killed at random: what comes is whole, and of the senders that survive
 * all comes but what killed receivers had in their hands. */
static void test_killed_at_random(void **state)
{
    struct crowd *crowd = new_crowd(MODUS_PROCESS, 1 << 20);
    pid_t senders[2], receivers[2];
    int receivers_killed = 0;
    int64_t until = modus_now_ns() + modus_ms(1500);
    (void)state;

    srandom((unsigned)getpid());
    for (int i = 0; i < 2; i++) {
        receivers[i] = start_child(receive_crowd, crowd);
        senders[i] = start_child(send_crowd, crowd);
    }
    while (modus_now_ns() < until || sent_by_all(crowd) == 0) {
        int i = (int)(random() & 1);
        bool receiver = random() & 1;

        usleep(1000 + (useconds_t)random() % 3000);
        kill_user(receiver ? receivers[i] : senders[i]);
        receivers_killed += receiver;
        if (receiver)
            receivers[i] = start_child(receive_crowd, crowd);
        else
            senders[i] = start_child(send_crowd, crowd);
    }
    kill_user(senders[0]);
    kill_user(senders[1]);
    int sent = sent_by_all(crowd), got = 0, before = 0;
    dismiss_receivers(crowd, 2);
    assert_int_equal(reap(receivers[0]), 0);
    assert_int_equal(reap(receivers[1]), 0);
    for (int i = 0; i < 16; i++)
        got += atomic_load(&crowd->got[i]);
    printf("killed at random: %d sent, %d got, %d receivers killed\n", sent, got, receivers_killed);
    assert_true(got + receivers_killed >= sent);
    /* the same senders and receivers, now in peace */
    for (int i = 0; i < 16; i++)
        before += atomic_load(&crowd->got[i]);
    crowd->messages = 20;
    pid_t receiver = start_child(receive_crowd, crowd);
    assert_int_equal(reap(start_child(send_crowd, crowd)), 0);
    dismiss_receivers(crowd, 1);
    assert_int_equal(reap(receiver), 0);
    for (int i = 0; i < 16; i++)
        before -= atomic_load(&crowd->got[i]);
    assert_int_equal(-before, 20);
    assert_int_equal(crowd->broken, 0);
    end_crowd(crowd);
}

/* --- coroutines and loops -------------------------------------------------------------------- */

static struct modus_pipe co_ends[2];
static int turns;

static int co_echo(void *argument)
{
    (void)argument;
    for (;;) {
        struct modus_pipe_message message = {0};
        int rc = modus_pipe_recv_message(&co_ends[1], &message, MODUS_FOREVER);

        if (rc == MODUS_CLOSED)
            return 0;
        CHECK_INT(rc, 0);
        CHECK_INT(modus_pipe_send(&co_ends[1], message.data, message.size, MODUS_FOREVER), 0);
        free(message.data);
    }
}

static int co_send(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 5; i++)
        CHECK_INT(send_long(&co_ends[0], i, 1 << 20, MODUS_FOREVER), 0);
    return 0;
}

static int co_wait(void *argument)
{
    char byte;
    size_t size = 1;

    (void)argument;
    CHECK_INT(modus_pipe_recv(&co_ends[0], &byte, &size, MODUS_FOREVER), MODUS_CANCELED);
    return 0;
}

static int co_main(void *argument)
{
    struct modus_co *echo, *sender, *waiter;
    char byte;
    size_t size = 1;
    int rc;

    (void)argument;
    CHECK_INT(modus_pipe_recv(&co_ends[0], &byte, &size, modus_ms(3)), -ETIMEDOUT);
    CHECK_INT(modus_pipe_recv(&co_ends[0], &byte, &size, 0), -EAGAIN);
    CHECK_INT(modus_pipe_poll(&co_ends[0], modus_ms(3)), -ETIMEDOUT);
    CHECK_INT(modus_co_start(&waiter, NULL, co_wait, NULL), 0);
    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(waiter);
    CHECK_INT(modus_co_join(waiter, MODUS_FOREVER, NULL), 0);
    modus_co_put(waiter);
    CHECK_INT(modus_co_start(&echo, NULL, co_echo, NULL), 0);
    CHECK_INT(modus_co_start(&sender, NULL, co_send, NULL), 0);
    for (unsigned i = 0; i < 5; i++) { /* while the other one sends at the same end */
        struct modus_pipe_message message = {0};

        CHECK_INT(modus_pipe_recv_message(&co_ends[0], &message, MODUS_FOREVER), 0);
        check_long(message.data, i, 1 << 20);
        free(message.data);
        turns++;
    }
    CHECK_INT(modus_co_join(sender, MODUS_FOREVER, NULL), 0);
    modus_co_put(sender);
    modus_pipe_close(&co_ends[0]);
    CHECK_INT(modus_co_join(echo, MODUS_FOREVER, &rc), 0);
    modus_co_put(echo);
    return rc;
}

/* All of it on one thread: a wait that held it up would hang. */
static void test_coroutines(void **state)
{
    (void)state;
    for (int scope = 0; scope <= MODUS_PROCESS; scope++) {
        turns = 0;
        open_pair(co_ends, (enum modus_scope)scope, false);
        assert_int_equal(modus_co_run(co_main, NULL), 0);
        assert_int_equal(turns, 5);
        close_pair(co_ends);
    }
}

static int send_twice(void *crowd)
{
    for (int i = 0; i < 2; i++)
        CHECK_INT(modus_co_start(NULL, NULL, send_crowd, crowd), 0);
    return 0;
}

static int receive_twice(void *crowd)
{
    for (int i = 0; i < 2; i++)
        CHECK_INT(modus_co_start(NULL, NULL, receive_crowd, crowd), 0);
    return 0;
}

static int send_in_coroutines(void *crowd)
{
    return modus_co_run(send_twice, crowd);
}

static int receive_in_coroutines(void *crowd)
{
    return modus_co_run(receive_twice, crowd);
}

/* Several coroutines in each of several processes, one of which is killed while its coroutines send,
 * and perhaps hold the lock: all that the others send comes once and whole. */
static void test_coroutines_of_processes(void **state)
{
    struct crowd *crowd = new_crowd(MODUS_PROCESS, 1 << 20);
    pid_t receivers[2], senders[2];
    (void)state;

    for (int i = 0; i < 2; i++)
        receivers[i] = start_child(receive_in_coroutines, crowd);
    pid_t victim = start_child(send_in_coroutines, crowd);
    AWAIT(atomic_load(&crowd->next) == 2 && crowd->got[0] + crowd->got[1] > 4);
    crowd->messages = SLOW ? 10 : 50;
    for (int i = 0; i < 2; i++)
        senders[i] = start_child(send_in_coroutines, crowd);
    AWAIT(crowd->sent[2] + crowd->sent[3] + crowd->sent[4] + crowd->sent[5] > 2);
    kill_user(victim);
    for (int i = 0; i < 2; i++)
        assert_int_equal(reap(senders[i]), 0);
    dismiss_receivers(crowd, 4);
    for (int i = 0; i < 2; i++)
        assert_int_equal(reap(receivers[i]), 0);
    for (int i = 2; i < 6; i++)
        assert_int_equal(atomic_load(&crowd->got[i]), crowd->messages);
    assert_int_equal(crowd->broken, 0);
    end_crowd(crowd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_crowd),
        TEST(test_torn),
        TEST(test_killed_in_the_middle),
        TEST(test_killed_at_random),
        TEST(test_coroutines),
        TEST(test_coroutines_of_processes),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
