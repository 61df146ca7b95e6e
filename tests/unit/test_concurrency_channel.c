/* SPDX-License-Identifier: MIT */
/* Channels: meeting and buffering, order, closing, choosing; between coroutines of one loop and of
 * several, and threads. */
#include "test_concurrency_co.h"

#include "concurrency/channel.h"
#include "concurrency/thread.h"

static struct modus_channel channel, other, third;

static void run(int (*main)(void *))
{
    assert_int_equal(modus_co_run(main, NULL), 0);
}

/* Every call that a test of both kinds makes waits; a number of seconds keeps a bug from hanging. */
static int64_t seconds(void)
{
    return modus_seconds(20);
}

/* --- errors ----------------------------------------------------------------------------------- */

static void test_errors(void **state)
{
    struct modus_channel c = {0};
    struct modus_choice choice = {.channel = &c, .what = MODUS_RECV};
    int item = 0;
    (void)state;

    assert_int_equal(modus_channel_init(&c, (1 << 24) + 1, 4), -EINVAL);
    assert_int_equal(modus_channel_init(&c, 1, 65537), -EINVAL);
    assert_int_equal(modus_channel_send(&c, &item, 0), -EINVAL);
    assert_int_equal(modus_channel_recv(&c, &item, 0), -EINVAL);
    assert_int_equal(modus_channel_close(&c), -EINVAL);
    assert_int_equal(modus_channel_len(&c), 0);
    assert_int_equal(modus_channel_select(&choice, 1, 0), -EINVAL);
    modus_channel_fini(&c);
    assert_int_equal(modus_channel_init(&c, 0, 4), 0);
    assert_int_equal(modus_channel_send(&c, NULL, 0), -EINVAL);
    assert_int_equal(modus_channel_send(&c, &item, -2), -EINVAL);
    assert_int_equal(modus_channel_recv(&c, &item, -2), -EINVAL);
    assert_int_equal(modus_channel_recv_until(&c, &item, -2), -EINVAL);
    assert_int_equal(modus_channel_select(&choice, 1, 0), -EINVAL); /* no item */
    choice.item = &item;
    choice.what = 0;
    assert_int_equal(modus_channel_select(&choice, 1, 0), -EINVAL);
    choice.what = MODUS_RECV;
    assert_int_equal(modus_channel_select(&choice, 1, -2), -EINVAL);
    assert_int_equal(modus_channel_select(&choice, 1, 0), -EAGAIN);
    assert_int_equal(modus_channel_select(&choice, 1, modus_ms(1)), -ETIMEDOUT);
    assert_int_equal(modus_channel_select(NULL, 0, 0), -EAGAIN);
    assert_int_equal(modus_channel_select(NULL, 0, modus_ms(1)), -ETIMEDOUT);
    assert_int_equal(modus_channel_send(&c, &item, 0), -EAGAIN);
    assert_int_equal(modus_channel_recv(&c, &item, 0), -EAGAIN);
    assert_int_equal(modus_channel_send(&c, &item, modus_ms(1)), -ETIMEDOUT);
    assert_int_equal(modus_channel_recv(&c, &item, modus_ms(1)), -ETIMEDOUT);
    assert_int_equal(modus_channel_send_until(&c, &item, 0), -ETIMEDOUT);
    assert_int_equal(modus_channel_recv_until(&c, &item, modus_now_ns()), -ETIMEDOUT);
    assert_int_equal(modus_channel_close(&c), 0);
    assert_int_equal(modus_channel_close(&c), MODUS_CLOSED);
    modus_channel_fini(&c);
    modus_channel_fini(&c);
}

/* --- capacity n ------------------------------------------------------------------------------- */

static void test_buffer(void **state)
{
    int item;
    (void)state;

    assert_int_equal(modus_channel_init(&channel, 3, sizeof(int)), 0);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++)
            assert_int_equal(modus_channel_send(&channel, &(int){round * 10 + i}, 0), 0);
        assert_int_equal(modus_channel_send(&channel, &(int){9}, 0), -EAGAIN);
        assert_int_equal(modus_channel_len(&channel), 3);
        for (int i = 0; i < (round == 4 ? 2 : 3); i++) {
            assert_int_equal(modus_channel_recv(&channel, &item, MODUS_FOREVER), 0);
            assert_int_equal(item, round * 10 + i);
        }
    }
    assert_int_equal(modus_channel_close(&channel), 0);
    assert_int_equal(modus_channel_send(&channel, &item, seconds()), MODUS_CLOSED);
    assert_int_equal(modus_channel_recv(&channel, &item, seconds()), 0); /* what was inside */
    assert_int_equal(item, 42);
    item = 7;
    assert_int_equal(modus_channel_recv(&channel, &item, seconds()), MODUS_CLOSED);
    assert_int_equal(item, 7);
    modus_channel_fini(&channel);
}

/* Items without bytes are signals. */
static void test_no_bytes(void **state)
{
    (void)state;
    assert_int_equal(modus_channel_init(&channel, 2, 0), 0);
    assert_int_equal(modus_channel_send(&channel, NULL, 0), 0);
    assert_int_equal(modus_channel_send(&channel, NULL, 0), 0);
    assert_int_equal(modus_channel_send(&channel, NULL, 0), -EAGAIN);
    assert_int_equal(modus_channel_recv(&channel, NULL, 0), 0);
    assert_int_equal(modus_channel_recv(&channel, NULL, 0), 0);
    assert_int_equal(modus_channel_recv(&channel, NULL, 0), -EAGAIN);
    modus_channel_fini(&channel);
}

/* --- meeting ---------------------------------------------------------------------------------- */

static char trace[64];

static int meet(void *argument)
{
    int item = 0;

    for (int i = 0; i < 3; i++) {
        if (argument)
            CHECK_INT(modus_channel_send(&channel, &i, seconds()), 0);
        else
            CHECK_INT(modus_channel_recv(&channel, &item, seconds()), 0);
        strcat(trace, argument ? "s" : "r");
        CHECK(argument || item == i);
    }
    return 0;
}

/* Neither is ever more than one ahead, whoever comes first. */
static int meeting(void *argument)
{
    (void)argument;
    for (int first = 0; first < 2; first++) {
        trace[0] = 0;
        struct modus_co *one = go(meet, first ? &trace : NULL),
                        *two = go(meet, first ? NULL : &trace);
        CHECK_INT(joined(one), 0);
        CHECK_INT(joined(two), 0);
        int ahead = 0;
        for (const char *c = trace; *c; c++) {
            ahead += *c == 's' ? 1 : -1;
            CHECK(ahead >= -2 && ahead <= 2);
        }
        CHECK(strlen(trace) == 6);
    }
    return 0;
}

static void test_meeting(void **state)
{
    (void)state;
    assert_int_equal(modus_channel_init(&channel, 0, sizeof(int)), 0);
    run(meeting);
    modus_channel_fini(&channel);
}

/* Who waits longest is served first, senders and receivers. */
static int send_one(void *argument)
{
    return modus_channel_send(&channel, argument, seconds());
}

static int in_order(void *argument)
{
    static int numbers[] = {0, 1, 2, 3, 4};
    struct modus_co *co[5];
    int item;
    (void)argument;

    for (int i = 0; i < 5; i++)
        co[i] = go(send_one, &numbers[i]);
    CHECK_INT(modus_co_yield(), 0);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(modus_channel_recv(&channel, &item, 0), 0);
        CHECK_INT(item, i);
    }
    for (int i = 0; i < 5; i++)
        CHECK_INT(joined(co[i]), 0);
    return 0;
}

static void test_order(void **state)
{
    (void)state;
    for (unsigned capacity = 0; capacity < 8; capacity += 3) {
        assert_int_equal(modus_channel_init(&channel, capacity, sizeof(int)), 0);
        run(in_order);
        modus_channel_fini(&channel);
    }
}

/* --- closing and cancelling -------------------------------------------------------------------- */

static int recv_one(void *argument)
{
    int item = -1;
    int rc = modus_channel_recv(&channel, &item, seconds());

    CHECK(rc == 0 || item == -1);
    return argument && rc == 0 ? item : rc;
}

static int closing(void *argument)
{
    struct modus_co *receivers[3], *senders[3];
    int number = 5;
    (void)argument;

    for (int i = 0; i < 3; i++)
        receivers[i] = go(recv_one, NULL);
    CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(modus_channel_close(&channel), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(joined(receivers[i]), MODUS_CLOSED);
    modus_channel_fini(&channel);
    CHECK_INT(modus_channel_init(&channel, 0, sizeof(int)), 0);
    for (int i = 0; i < 3; i++)
        senders[i] = go(send_one, &number);
    CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(modus_channel_close(&channel), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(joined(senders[i]), MODUS_CLOSED);
    return 0;
}

static void test_closing(void **state)
{
    (void)state;
    assert_int_equal(modus_channel_init(&channel, 0, sizeof(int)), 0);
    run(closing);
    modus_channel_fini(&channel);
}

/* A cancelled one leaves the line: what comes is the next one's. */
static int cancelling(void *argument)
{
    struct modus_co *gone = go(recv_one, NULL), *stays = go(recv_one, &channel);
    (void)argument;

    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(gone);
    CHECK_INT(joined(gone), MODUS_CANCELED);
    CHECK_INT(modus_channel_send(&channel, &(int){8}, 0), 0);
    CHECK_INT(joined(stays), 8);
    gone = go(send_one, &(int){9});
    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(gone);
    CHECK_INT(joined(gone), MODUS_CANCELED);
    CHECK_INT(modus_channel_recv(&channel, &(int){0}, 0), -EAGAIN);
    return 0;
}

static void test_cancelling(void **state)
{
    (void)state;
    assert_int_equal(modus_channel_init(&channel, 0, sizeof(int)), 0);
    run(cancelling);
    modus_channel_fini(&channel);
}

/* --- choosing --------------------------------------------------------------------------------- */

static void init_three(unsigned capacity)
{
    CHECK_INT(modus_channel_init(&channel, capacity, sizeof(int)), 0);
    CHECK_INT(modus_channel_init(&other, capacity, sizeof(int)), 0);
    CHECK_INT(modus_channel_init(&third, capacity, sizeof(int)), 0);
}

static void fini_three(void)
{
    modus_channel_fini(&channel);
    modus_channel_fini(&other);
    modus_channel_fini(&third);
}

/* What is ready is taken, and nothing else; in turn, if more is. */
static void test_ready_choices(void **state)
{
    int a = 0, b = 0, c = 3, first = 0;
    struct modus_choice choices[] = {
        {.channel = &channel, .what = MODUS_RECV, .item = &a},
        {.channel = NULL},
        {.channel = &other, .what = MODUS_RECV, .item = &b},
        {.channel = &third, .what = MODUS_SEND, .item = &c},
    };
    (void)state;

    init_three(100);
    assert_int_equal(modus_channel_select(choices, 3, 0), -EAGAIN);
    assert_int_equal(modus_channel_select(choices, 4, 0), 3);
    assert_int_equal(choices[3].result, 0);
    assert_int_equal(modus_channel_recv(&third, &a, 0), 0);
    assert_int_equal(a, 3);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(modus_channel_send(&channel, &i, 0), 0);
        assert_int_equal(modus_channel_send(&other, &i, 0), 0);
    }
    for (int i = 0; i < 40; i++)
        first += modus_channel_select(choices, 3, 0) == 0;
    assert_in_range(first, 8, 32); /* none is starved */
    modus_channel_close(&other);
    while (modus_channel_recv(&channel, &a, 0) == 0)
        ;
    while (modus_channel_recv(&other, &b, 0) == 0)
        ;
    assert_int_equal(modus_channel_select(choices, 3, seconds()), 2);
    assert_int_equal(choices[2].result, MODUS_CLOSED);
    fini_three();
}

static int which;

static int choose(void *argument)
{
    int a = -1, b = -1, c = 77;
    struct modus_choice choices[] = {
        {.channel = &third, .what = MODUS_SEND, .item = &c},
        {.channel = &channel, .what = MODUS_RECV, .item = &a},
        {.channel = &other, .what = MODUS_RECV, .item = &b},
        {.channel = &channel, .what = MODUS_RECV, .item = &a}, /* the same again */
    };
    (void)argument;

    which = modus_channel_select(choices, 4, seconds());
    if (which < 0)
        return which;
    return choices[which].result < 0 ? choices[which].result : a + b + 2;
}

static int choosing(void *argument)
{
    int item = 0;
    struct modus_co *co;
    (void)argument;

    co = go(choose, NULL);
    CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(modus_channel_send(&channel, &(int){5}, 0), 0);     /* somebody is there */
    CHECK_INT(modus_channel_send(&other, &(int){6}, 0), -EAGAIN); /* but only for one thing */
    CHECK_INT(joined(co), 6);
    CHECK(which == 1 || which == 3);
    co = go(choose, NULL);
    CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(modus_channel_recv(&third, &item, 0), 0);
    CHECK_INT(item, 77);
    CHECK_INT(modus_channel_recv(&third, &item, 0), -EAGAIN);
    CHECK_INT(joined(co), 0);
    CHECK_INT(which, 0);
    co = go(choose, NULL);
    CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(modus_channel_close(&other), 0);
    CHECK_INT(joined(co), MODUS_CLOSED);
    CHECK_INT(which, 2);
    modus_channel_fini(&other);
    CHECK_INT(modus_channel_init(&other, 0, sizeof(int)), 0);
    co = go(choose, NULL);
    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    CHECK_INT(modus_channel_send(&channel, &item, 0), -EAGAIN); /* nobody is left in the lines */
    CHECK_INT(modus_channel_recv(&third, &item, 0), -EAGAIN);
    return 0;
}

static void test_waiting_choices(void **state)
{
    (void)state;
    init_three(0);
    run(choosing);
    fini_three();
}

/* Two choices meet: one sends here or there, the other receives there or here. Each item arrives
 * once, whichever way. Both in coroutines of one loop, or in two threads, or one in each. */
enum { MEETINGS = SLOW ? 2000 : 20000 };

static int choose_to_send(void *argument)
{
    for (int i = 0; i < MEETINGS; i++) {
        struct modus_choice choices[] = {
            {.channel = &channel, .what = MODUS_SEND, .item = &i},
            {.channel = &other, .what = MODUS_SEND, .item = &i},
        };
        int at = modus_channel_select(choices, 2, seconds());

        CHECK(at == 0 || at == 1);
        CHECK_INT(choices[at].result, 0);
    }
    return argument != NULL;
}

static int choose_to_receive(void *argument)
{
    int64_t sum = 0;
    int item;

    for (int i = 0; i < MEETINGS; i++) {
        struct modus_choice choices[] = {
            {.channel = &other, .what = MODUS_RECV, .item = &item},
            {.channel = &channel, .what = MODUS_RECV, .item = &item},
        };
        int at = modus_channel_select(choices, 2, seconds());

        CHECK(at == 0 || at == 1);
        sum += item;
    }
    *(_Atomic int64_t *)argument += sum;
    return 0;
}

static _Atomic int64_t sums;

static void *sender_thread(void *argument)
{
    CHECK_INT(choose_to_send(argument), 0);
    return NULL;
}

static void *sender_loop(void *argument)
{
    CHECK_INT(modus_co_run(choose_to_send, argument), 0);
    return NULL;
}

static int choices_meet(void *argument)
{
    struct modus_thread *threads[2];
    struct modus_co *co[3] = {go(choose_to_receive, &sums), go(choose_to_receive, &sums),
                              go(choose_to_receive, &sums)};
    struct modus_co *here = go(choose_to_send, NULL);
    (void)argument;

    CHECK_INT(modus_thread_new(&threads[0], NULL, sender_thread, NULL), 0);
    CHECK_INT(modus_thread_new(&threads[1], NULL, sender_loop, NULL), 0);
    for (int i = 0; i < 2; i++)
        CHECK_INT(modus_thread_start(threads[i]), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(joined(co[i]), 0);
    CHECK_INT(joined(here), 0);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(modus_thread_join(threads[i], MODUS_FOREVER, NULL), 0);
        modus_thread_put(threads[i]);
    }
    return 0;
}

static void test_choices_meet(void **state)
{
    (void)state;
    init_three(0);
    atomic_store(&sums, 0);
    run(choices_meet);
    assert_true(atomic_load(&sums) == 3ll * MEETINGS * (MEETINGS - 1) / 2);
    fini_three();
}

/* --- many of each ------------------------------------------------------------------------------ */

static int send_many(void *argument)
{
    (void)argument;
    for (int i = 0; i < MEETINGS; i++)
        CHECK_INT(modus_channel_send(&channel, &(int64_t){i}, seconds()), 0);
    return 0;
}

static int receive_many(void *argument)
{
    int64_t item, last = -1;
    int rc;

    while ((rc = modus_channel_recv(&channel, &item, seconds())) == 0) {
        CHECK(argument == NULL || item > last);
        last = item;
        atomic_fetch_add(&sums, item);
    }
    return rc;
}

static void *send_thread(void *argument)
{
    CHECK_INT(send_many(argument), 0);
    return NULL;
}

static void *receive_thread(void *argument)
{
    CHECK_INT(receive_many(argument), MODUS_CLOSED);
    return NULL;
}

static int many(void *argument)
{
    struct modus_thread *in, *out;
    struct modus_co *sender = go(send_many, NULL), *receiver = go(receive_many, NULL);
    (void)argument;

    CHECK_INT(modus_thread_new(&in, NULL, send_thread, NULL), 0);
    CHECK_INT(modus_thread_new(&out, NULL, receive_thread, NULL), 0);
    CHECK_INT(modus_thread_start(in), 0);
    CHECK_INT(modus_thread_start(out), 0);
    CHECK_INT(joined(sender), 0);
    CHECK_INT(modus_thread_join(in, MODUS_FOREVER, NULL), 0);
    CHECK_INT(modus_channel_close(&channel), 0);
    CHECK_INT(joined(receiver), MODUS_CLOSED);
    CHECK_INT(modus_thread_join(out, MODUS_FOREVER, NULL), 0);
    modus_thread_put(in);
    modus_thread_put(out);
    return 0;
}

static void test_many(void **state)
{
    (void)state;
    for (unsigned capacity = 0; capacity < 100; capacity += 50) {
        assert_int_equal(modus_channel_init(&channel, capacity, sizeof(int64_t)), 0);
        atomic_store(&sums, 0);
        run(many);
        assert_true(atomic_load(&sums) == 2ll * MEETINGS * (MEETINGS - 1) / 2);
        modus_channel_fini(&channel);
    }
}

/* Timeouts come as the other side does: an item is either there or was not sent. */
static int send_or_not(void *argument)
{
    intptr_t sent = 0;

    for (int i = 0; i < (SLOW ? 100 : 400); i++)
        sent += modus_channel_send(&channel, &i, modus_us(i % 3 * 500 + 1)) == 0;
    *(intptr_t *)argument = sent;
    return modus_channel_close(&channel);
}

static void *send_or_not_thread(void *argument)
{
    CHECK_INT(send_or_not(argument), 0);
    return NULL;
}

static int receive_or_not(void *argument)
{
    intptr_t got = 0, sent = 0;
    struct modus_thread *thread;
    int item, rc;
    (void)argument;

    CHECK_INT(modus_thread_new(&thread, NULL, send_or_not_thread, &sent), 0);
    CHECK_INT(modus_thread_start(thread), 0);
    do {
        rc = modus_channel_recv(&channel, &item, modus_us(700));
        got += rc == 0;
        CHECK(rc == 0 || rc == -ETIMEDOUT || rc == MODUS_CLOSED);
    } while (rc != MODUS_CLOSED);
    CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    modus_thread_put(thread);
    CHECK_INT(got, sent);
    return 0;
}

static void test_timeouts(void **state)
{
    (void)state;
    assert_int_equal(modus_channel_init(&channel, 0, sizeof(int)), 0);
    run(receive_or_not);
    modus_channel_fini(&channel);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),       TEST(test_buffer),        TEST(test_no_bytes),
        TEST(test_meeting),      TEST(test_order),         TEST(test_closing),
        TEST(test_cancelling),   TEST(test_ready_choices), TEST(test_waiting_choices),
        TEST(test_choices_meet), TEST(test_many),          TEST(test_timeouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
