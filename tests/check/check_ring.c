/* SPDX-License-Identifier: MIT */
/* The bare rings: every item comes out once, in the order of its producer, and closed is closed. */
#include "tests/check/check.h"

#include "concurrency/participant.h"
#include "concurrency/ring.h"

enum { CAPACITY = 2, ITEMS = 8 };

struct scene {
    struct modus_queue queue;
    int got[ITEMS + 1]; /* how often each item came */
    int last[3];        /* by producer: its last item that came */
    int count, put_closed;
};

static struct scene *s;

static void setup_in(enum modus_scope scope, unsigned capacity)
{
    struct modus_queue_attr attr = {
        .scope = scope, .arena = check_arena, .capacity = capacity, .item_size = sizeof(int)};

    if (scope == MODUS_PROCESS)
        check_join_all(3);
    s = check_memory(sizeof *s);
    MUST_INT(modus_queue_init(&s->queue, &attr), 0);
}

static void setup_thread(void)
{
    setup_in(MODUS_THREAD, CAPACITY);
}

static void setup_process(void)
{
    setup_in(MODUS_PROCESS, CAPACITY);
}

static void setup_process_one(void)
{
    setup_in(MODUS_PROCESS, 1);
}

static long ring_put(const int *items, size_t n)
{
    return s->queue.scope == MODUS_THREAD ? modus_ring_thread_put(&s->queue, items, n)
                                          : modus_ring_process_put(&s->queue, items, n);
}

static long ring_get(int *items, size_t n)
{
    return s->queue.scope == MODUS_THREAD ? modus_ring_thread_get(&s->queue, items, n)
                                          : modus_ring_process_get(&s->queue, items, n);
}

/* Items 1 to 3 are the first producer's, 4 to 6 the second's. */
static void put_two(int first)
{
    int items[2] = {first, first + 1};

    for (size_t done = 0; done < 2;) {
        long rc = ring_put(items + done, 2 - done);

        MUST(rc > 0 || rc == MODUS_FULL);
        if (rc > 0)
            done += (size_t)rc;
        else
            check_let_others();
    }
}

static void put_1_2(void)
{
    put_two(1);
}

static void put_4_5(void)
{
    put_two(4);
}

static void note(int item)
{
    int producer = item > 3;

    MUST(item >= 1 && item <= 6);
    MUST_INT(++s->got[item], 1);
    MUST(item > s->last[producer]);
    s->last[producer] = item;
    s->count++;
}

static void get_four(void)
{
    while (s->count < 4) {
        int items[2] = {0};
        long rc = ring_get(items, 2);

        MUST(rc > 0 || rc == MODUS_EMPTY);
        if (rc < 0)
            check_let_others();
        for (long i = 0; i < rc; i++)
            note(items[i]);
    }
}

/* Two consumers: the order in which they note is not the order in which they got. */
static void get_some(void)
{
    for (;;) {
        int item = 0;
        long rc = ring_get(&item, 1);

        if (rc == MODUS_CLOSED)
            return;
        MUST(rc == 1 || rc == MODUS_EMPTY);
        if (rc < 0) {
            check_let_others();
            continue;
        }
        MUST(item >= 1 && item <= 6);
        MUST_INT(++s->got[item], 1);
        s->count++;
    }
}

static void put_1_2_close(void)
{
    put_two(1);
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
}

static void all_four(void)
{
    MUST_INT(s->count, 4);
    MUST_INT(modus_queue_len(&s->queue), 0);
}

static void both(void)
{
    MUST_INT(s->count, 2);
}

CHECK_SCENARIO(thread, .name = "ring-thread/two-producers", .setup = setup_thread,
               .actors = {put_1_2, put_4_5, get_four}, .verify = all_four);
CHECK_SCENARIO(thread_consumers, .name = "ring-thread/two-consumers", .setup = setup_thread,
               .actors = {put_1_2_close, get_some, get_some}, .verify = both);
CHECK_SCENARIO(process, .name = "ring-process/two-producers", .setup = setup_process,
               .actors = {put_1_2, put_4_5, get_four}, .verify = all_four);
CHECK_SCENARIO(process_consumers, .name = "ring-process/two-consumers", .setup = setup_process,
               .actors = {put_1_2_close, get_some, get_some}, .verify = both);

/* --- closing --------------------------------------------------------------------------------- */

/* Once somebody has been told that the queue is closed and empty, no put succeeds. */
static void put_unless_closed(void)
{
    int item = 1;
    long rc = ring_put(&item, 1);

    MUST(rc == 1 || rc == MODUS_CLOSED || rc == MODUS_FULL);
    s->got[0] += rc == 1;
}

static void put_another(void)
{
    int item = 4;
    long rc = ring_put(&item, 1);

    MUST(rc == 1 || rc == MODUS_CLOSED || rc == MODUS_FULL);
    s->got[0] += rc == 1;
}

static void close_and_drain(void)
{
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
    get_some();
}

static void none_left(void)
{
    MUST_INT(s->count, s->got[0]);
}

/* The slot at the tail still serves the round before, so that it cannot be sealed. */
static void setup_full(void)
{
    int item = 2;

    setup_process_one();
    check_become(1);
    MUST_INT(ring_put(&item, 1), 1);
    check_become(0);
    s->got[0] = 1;
}

static void get_the_one(void)
{
    int item = 0;

    if (ring_get(&item, 1) == 1)
        s->count++;
}

CHECK_SCENARIO(process_close_read, .name = "ring-process/close-while-read", .setup = setup_full,
               .actors = {get_the_one, put_unless_closed, close_and_drain}, .verify = none_left);
CHECK_SCENARIO(thread_close, .name = "ring-thread/close", .setup = setup_thread,
               .actors = {put_unless_closed, put_another, close_and_drain}, .verify = none_left,
               .switches = 3);
CHECK_SCENARIO(process_close, .name = "ring-process/close", .setup = setup_process,
               .actors = {put_unless_closed, put_another, close_and_drain}, .verify = none_left);
CHECK_SCENARIO(process_close_one, .name = "ring-process/close-narrow", .setup = setup_process_one,
               .actors = {put_unless_closed, put_another, close_and_drain}, .verify = none_left);

/* --- deaths ---------------------------------------------------------------------------------- */

static void put_one(void)
{
    int item = 1;
    long rc = ring_put(&item, 1);

    MUST(rc == 1 || rc == MODUS_FULL);
    s->got[0] = rc == 1;
}

static void get_one(void)
{
    int item = 0;
    long rc = ring_get(&item, 1);

    MUST(rc == 1 || rc == MODUS_EMPTY);
    if (rc == 1)
        MUST_INT(++s->got[item], 1);
    s->got[0] = rc == 1;
}

/* The survivor goes on without anybody who buries: whoever is in the way of a dead one's claim
 * does. */
static void go_round(void)
{
    for (int i = 4; i <= 6; i++) {
        int item = i;
        long rc;

        while ((rc = ring_put(&item, 1)) == MODUS_FULL) {
            rc = ring_get(&item, 1);
            MUST(rc == 1 || rc == MODUS_EMPTY);
            if (rc == 1)
                MUST_INT(++s->got[item], 1);
            item = i;
            if (rc == MODUS_EMPTY)
                check_let_others();
        }
        MUST_INT(rc, 1);
    }
}

/* Full capacity, and everything that was put came out. */
static void is_whole(void)
{
    int item = 0;

    MUST(modus_participant_join(check_arena) > 0);
    modus_participant_bury(check_arena, 0);
    while (ring_get(&item, 1) == 1)
        MUST_INT(++s->got[item], 1);
    for (int i = 4; i <= 6; i++)
        MUST_INT(s->got[i], 1);
    for (int i = 0; i < CAPACITY; i++)
        MUST_INT(ring_put(&item, 1), 1);
    MUST_INT(ring_put(&item, 1), MODUS_FULL);
    for (int i = 0; i < CAPACITY; i++)
        MUST_INT(ring_get(&item, 1), 1);
    MUST_INT(ring_get(&item, 1), MODUS_EMPTY);
}

static void producer_was_whole(void)
{
    is_whole();
    if (s->got[0])
        MUST_INT(s->got[1], 1);
}

/* A consumer takes at most what was in its hands. */
static void consumer_was_whole(void)
{
    int item = 0, missing = 0;

    MUST(modus_participant_join(check_arena) > 0);
    modus_participant_bury(check_arena, 0);
    while (ring_get(&item, 1) == 1)
        MUST_INT(++s->got[item], 1);
    for (int i = 4; i <= 6; i++)
        missing += s->got[i] == 0;
    MUST(missing <= check_killed(1));
    for (int i = 4; i <= 6; i++)
        s->got[i] = 1;
    is_whole();
}

CHECK_SCENARIO(producer_dies, .name = "ring-process/producer-dies", .setup = setup_process,
               .actors = {put_one, go_round}, .verify = producer_was_whole, .victim = 1);
CHECK_SCENARIO(consumer_dies, .name = "ring-process/consumer-dies", .setup = setup_process,
               .actors = {get_one, go_round}, .verify = consumer_was_whole, .victim = 1);
