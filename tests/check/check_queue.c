/* SPDX-License-Identifier: MIT */
/* Queue and gate: who waits is woken as long as there is something for it, through full, empty,
 * close, time and death. */
#include "tests/check/check.h"

#include "concurrency/participant.h"
#include "concurrency/ring.h"

enum { ITEMS = 8 };

struct scene {
    struct modus_queue queue;
    int got[ITEMS], put[ITEMS]; /* how often each came, and whether its put has returned */
    int count, timeouts;
};

static struct scene *s;

static void setup_with(struct modus_queue_attr attr)
{
    if (attr.scope == MODUS_PROCESS)
        check_join_all(3);
    attr.arena = check_arena;
    attr.item_size = sizeof(int);
    s = check_memory(sizeof *s);
    MUST_INT(modus_queue_init(&s->queue, &attr), 0);
}

static void setup_thread(void)
{
    setup_with((struct modus_queue_attr){.scope = MODUS_THREAD, .capacity = 1});
}

static void setup_wide(void)
{
    setup_with((struct modus_queue_attr){.scope = MODUS_THREAD, .capacity = 2});
}

static void setup_joinable(void)
{
    setup_with((struct modus_queue_attr){.scope = MODUS_THREAD, .capacity = 2, .joinable = true});
}

static void setup_process(void)
{
    setup_with((struct modus_queue_attr){.scope = MODUS_PROCESS, .capacity = 1});
}

static void setup_process_wide(void)
{
    setup_with((struct modus_queue_attr){.scope = MODUS_PROCESS, .capacity = 2});
}

static void setup_redeliver(void)
{
    setup_with((struct modus_queue_attr){.scope = MODUS_PROCESS,
                                         .capacity = 2,
                                         .joinable = true,
                                         .on_death = MODUS_QUEUE_REDELIVER});
}

static void put(int item)
{
    MUST_INT(modus_queue_put(&s->queue, &item, MODUS_FOREVER), 0);
    s->put[item] = 1;
}

static void get(void)
{
    int item = -1;

    MUST_INT(modus_queue_get(&s->queue, &item, MODUS_FOREVER), 0);
    MUST(item >= 1 && item < ITEMS);
    s->got[item]++;
    s->count++;
}

static void put_1(void)
{
    put(1);
}

static void put_2(void)
{
    put(2);
}

static void put_1_2(void)
{
    put(1);
    put(2);
}

static void put_batch(void)
{
    const int items[2] = {1, 2};

    MUST_INT(modus_queue_put_n(&s->queue, items, 2, MODUS_FOREVER), 2);
    s->put[1] = s->put[2] = 1;
}

static void get_two(void)
{
    get();
    get();
}

static void came_once(void)
{
    for (int i = 0; i < ITEMS; i++)
        MUST_INT(s->got[i], s->put[i]);
    MUST_INT(modus_queue_len(&s->queue), 0);
}

CHECK_SCENARIO(producers, .name = "queue/two-producers", .setup = setup_thread,
               .actors = {put_1, put_2, get_two}, .verify = came_once);
CHECK_SCENARIO(consumers, .name = "queue/two-consumers", .setup = setup_thread,
               .actors = {get, get, put_1_2}, .verify = came_once);
CHECK_SCENARIO(batch, .name = "queue/batch", .setup = setup_wide, .actors = {get, get, put_batch},
               .verify = came_once);
CHECK_SCENARIO(process_producers, .name = "queue-process/two-producers", .setup = setup_process,
               .actors = {put_1, put_2, get_two}, .verify = came_once);
CHECK_SCENARIO(process_consumers, .name = "queue-process/two-consumers", .setup = setup_process,
               .actors = {get, get, put_1_2}, .verify = came_once);
CHECK_SCENARIO(process_batch, .name = "queue-process/batch", .setup = setup_process_wide,
               .actors = {get, get, put_batch}, .verify = came_once);

/* --- time ------------------------------------------------------------------------------------ */

/* One whose time is over may have been the one that was called: the call must go to the next. */
static void get_in_time(void)
{
    int item = -1, rc = modus_queue_get_until(&s->queue, &item, 1);

    if (rc == 0) {
        s->got[item]++;
        s->count++;
        put(3); /* for the other one */
    } else {
        MUST_INT(rc, -ETIMEDOUT);
    }
}

CHECK_SCENARIO(race, .name = "queue/timeout", .setup = setup_wide,
               .actors = {get_in_time, get, put_1}, .verify = came_once);
CHECK_SCENARIO(process_race, .name = "queue-process/timeout", .setup = setup_process_wide,
               .actors = {get_in_time, get, put_1}, .verify = came_once);

/* --- closing and joining --------------------------------------------------------------------- */

static void put_and_close(void)
{
    put(1);
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
}

static void get_all(void)
{
    for (;;) {
        int item = -1, rc = modus_queue_get(&s->queue, &item, MODUS_FOREVER);

        if (rc == MODUS_CLOSED)
            return;
        MUST_INT(rc, 0);
        s->got[item]++;
        s->count++;
        if (s->queue.joinable)
            MUST_INT(modus_queue_task_done(&s->queue), 0);
    }
}

CHECK_SCENARIO(closing, .name = "queue/close", .setup = setup_thread,
               .actors = {get_all, get_all, put_and_close}, .verify = came_once);
CHECK_SCENARIO(process_closing, .name = "queue-process/close", .setup = setup_process,
               .actors = {get_all, get_all, put_and_close}, .verify = came_once);

/* Who waits for room is told of the close; who was in before it stays in. */
static void fill_and_wait(void)
{
    put(1);
    int item = 2, rc = modus_queue_put(&s->queue, &item, MODUS_FOREVER);
    MUST(rc == 0 || rc == MODUS_CLOSED);
    s->put[2] = rc == 0;
}

static void close_when_asleep(void)
{
    check_await_asleep_or_gone(1);
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
}

CHECK_SCENARIO(full, .name = "queue/close-full", .setup = setup_thread,
               .actors = {fill_and_wait, close_when_asleep});
CHECK_SCENARIO(process_full, .name = "queue-process/close-full", .setup = setup_process,
               .actors = {fill_and_wait, close_when_asleep});

static void get_interrupted(void)
{
    int item;

    MUST_INT(modus_queue_get(&s->queue, &item, MODUS_FOREVER), MODUS_CANCELED);
    s->count++;
}

static void interrupt_both(void)
{
    check_await_asleep_or_gone(1);
    check_await_asleep_or_gone(2);
    MUST_INT(modus_queue_interrupt(&s->queue), 0);
}

static void both_interrupted(void)
{
    MUST_INT(s->count, 2);
}

CHECK_SCENARIO(interrupt, .name = "queue/interrupt", .setup = setup_thread,
               .actors = {get_interrupted, get_interrupted, interrupt_both},
               .verify = both_interrupted, .switches = 1);
CHECK_SCENARIO(process_interrupt, .name = "queue-process/interrupt", .setup = setup_process,
               .actors = {get_interrupted, get_interrupted, interrupt_both},
               .verify = both_interrupted, .switches = 1);

static void put_then_close_now(void)
{
    int item = 1;

    MUST_INT(modus_queue_put(&s->queue, &item, MODUS_FOREVER), 0);
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_NOW), 0);
}

static void put_unless_closed(void)
{
    int item = 2, rc = modus_queue_put(&s->queue, &item, MODUS_FOREVER);

    MUST(rc == 0 || rc == MODUS_CLOSED);
}

static void join(void)
{
    MUST_INT(modus_queue_join(&s->queue, MODUS_FOREVER), 0);
}

static void nothing_open(void)
{
    MUST_INT(modus_queue_join(&s->queue, 0), 0);
    MUST_INT(modus_queue_len(&s->queue), 0);
}

CHECK_SCENARIO(close_now, .name = "queue/close-now", .setup = setup_joinable,
               .actors = {put_then_close_now, put_unless_closed, join}, .verify = nothing_open);

static void get_and_done(void)
{
    get();
    MUST_INT(modus_queue_task_done(&s->queue), 0);
}

static void put_and_join(void)
{
    put(1);
    put(2);
    MUST_INT(modus_queue_join(&s->queue, MODUS_FOREVER), 0);
    MUST_INT(s->count, 2);
}

CHECK_SCENARIO(joining, .name = "queue/join", .setup = setup_joinable,
               .actors = {get_and_done, get_and_done, put_and_join}, .verify = came_once);
CHECK_SCENARIO(process_joining, .name = "queue-process/join", .setup = setup_redeliver,
               .actors = {get_and_done, get_and_done, put_and_join}, .verify = came_once);

/* --- deaths ---------------------------------------------------------------------------------- */

/* Buries, closes, and takes its part of what is left. */
static void bury_and_close(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
    if (!modus_queue_is_closed(&s->queue))
        MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
}

static void bury_and_get_all(void)
{
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
    get_all();
}

static void put_1_2_and_close(void)
{
    put(1);
    put(2);
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
}

static void has_full_capacity(void)
{
    struct modus_queue again = s->queue;
    unsigned capacity = again.mask + 1;
    uint64_t tail = again.ring->tail & RING_AT, head = again.ring->head & RING_AT;

    MUST_INT(tail, head);
    for (uint64_t at = tail; at < tail + capacity; at++) {
        uint64_t state = ring_slot(&again, at)->state;

        MUST_INT(ring_ahead(state, at), 0);
        MUST(ring_kind(state) == EMPTY || (at == tail && ring_kind(state) == SEALED));
    }
}

/* Its own last item is lost, or came though the put has not returned. */
static void producer_lost_no_more(void)
{
    int unsaid = 0;

    for (int i = 0; i < ITEMS; i++) {
        MUST(s->got[i] <= 1 && s->got[i] >= s->put[i]);
        unsaid += s->got[i] - s->put[i];
    }
    MUST(unsaid <= check_killed(1));
    has_full_capacity();
}

static void consumer_lost_one(void)
{
    int lost = 0, twice = 0;

    for (int i = 0; i < ITEMS; i++) {
        lost += s->put[i] && s->got[i] == 0;
        twice += s->got[i] > 1;
        MUST(s->put[i] || !s->got[i]);
    }
    MUST(lost <= (check_killed(1) && !s->queue.redeliver));
    MUST(twice <= (check_killed(1) && s->queue.redeliver));
    has_full_capacity();
    if (s->queue.joinable)
        MUST_INT(modus_queue_join(&s->queue, 0), 0);
}

CHECK_SCENARIO(producer_dies, .name = "queue-process/producer-dies", .setup = setup_process,
               .actors = {put_1_2, get_all, bury_and_close}, .verify = producer_lost_no_more,
               .victim = 1, .switches = 1);
CHECK_SCENARIO(consumer_dies, .name = "queue-process/consumer-dies", .setup = setup_process,
               .actors = {get_all, put_1_2_and_close, bury_and_get_all},
               .verify = consumer_lost_one, .victim = 1, .switches = 1);
CHECK_SCENARIO(redelivered, .name = "queue-process/redelivered", .setup = setup_redeliver,
               .actors = {get_all, put_1_2_and_close, bury_and_get_all},
               .verify = consumer_lost_one, .victim = 1, .switches = 1);

static bool all_taken(void *unused)
{
    (void)unused;
    return (s->queue.ring->tail & RING_AT) == (s->queue.ring->head & RING_AT);
}

static bool all_taken_or_victim_gone(void *unused)
{
    return check_gone(1) || all_taken(unused);
}

/* One that dies on its way, or before it has passed the wake on, must not keep the other one asleep
 * beside an item. */
static void put_bury_close(void)
{
    put(1);
    put(2);
    check_wait(all_taken_or_victim_gone, NULL);
    if (check_gone(1))
        modus_participant_bury(check_arena, check_pid_of(1));
    check_wait(all_taken, NULL);
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
    check_await_gone(1);
    modus_participant_bury(check_arena, check_pid_of(1));
}

/* Everything that was put is done in the end, whoever had it. */
static void put_join_close(void)
{
    put(1);
    put(2);
    MUST_INT(modus_queue_join(&s->queue, MODUS_FOREVER), 0);
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
}

static void setup_lost_joinable(void)
{
    setup_with((struct modus_queue_attr){
        .scope = MODUS_PROCESS, .capacity = 2, .joinable = true, .on_death = MODUS_QUEUE_LOST});
}

CHECK_SCENARIO(one_of_two_dies, .name = "queue-process/one-of-two-dies",
               .setup = setup_process_wide, .actors = {get_all, get_all, put_bury_close},
               .verify = consumer_lost_one, .victim = 1, .switches = 1);
CHECK_SCENARIO(join_death, .name = "queue-process/join-consumer-dies", .setup = setup_lost_joinable,
               .actors = {get_all, put_join_close, bury_and_get_all}, .verify = consumer_lost_one,
               .victim = 1, .switches = 1);

/* A closer that dies between the mark and the wake-up. */
static void close_it(void)
{
    MUST_INT(modus_queue_close(&s->queue, MODUS_CLOSE_DRAIN), 0);
}

CHECK_SCENARIO(closer_dies, .name = "queue-process/closer-dies", .setup = setup_process,
               .actors = {close_it, get_all, bury_and_close}, .victim = 1);
