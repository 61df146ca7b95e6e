/* SPDX-License-Identifier: MIT */
/* What the tests of queues of all kinds share: an arena that they are in, queues of numbers, whoever
 * sleeps in one, and a tree of items that put others. attr_of is each test program's own: the
 * attributes of the kind that *state is. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_QUEUE_H
#define TESTS_UNIT_TEST_CONCURRENCY_QUEUE_H

#include "test_concurrency.h"

#include "concurrency/queue.h"

static struct modus_arena *arena;

static struct modus_queue_attr attr_of(void **state, unsigned capacity);

static struct modus_queue *new_queue(struct modus_queue_attr attr)
{
    struct modus_queue *queue = modus_arena_alloc(arena, sizeof *queue, 0);

    CHECK(queue);
    CHECK_INT(modus_queue_init(queue, &attr), 0);
    return queue;
}

static struct modus_queue *new_joinable(void **state, unsigned capacity, bool redeliver)
{
    struct modus_queue_attr attr = attr_of(state, capacity);

    attr.joinable = true;
    attr.on_death = redeliver ? MODUS_QUEUE_REDELIVER : MODUS_QUEUE_LOST;
    return new_queue(attr);
}

static void end_queue(struct modus_queue *queue)
{
    modus_queue_fini(queue);
    CHECK_INT(modus_arena_free(arena, queue, sizeof *queue), 0);
}

static int put(struct modus_queue *queue, long item)
{
    return modus_queue_put(queue, &item, 0);
}

static long get(struct modus_queue *queue)
{
    long item = -9999;
    int rc = modus_queue_get(queue, &item, 0);

    return rc < 0 ? rc : item;
}

/* --- sleepers -------------------------------------------------------------------------------- */

struct sleeper {
    struct modus_queue *queue;
    bool putting, joining;
    _Atomic int tid;
    int result;
    pthread_t thread;
};

static void *sleep_in_queue(void *argument)
{
    struct sleeper *sleeper = argument;
    long item = 1;

    CHECK(modus_participant_join(arena) > 0);
    atomic_store(&sleeper->tid, gettid());
    if (sleeper->joining)
        sleeper->result = modus_queue_join(sleeper->queue, modus_seconds(20));
    else if (sleeper->putting)
        sleeper->result = modus_queue_put(sleeper->queue, &item, modus_seconds(20));
    else
        sleeper->result = modus_queue_get(sleeper->queue, &item, modus_seconds(20));
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

static void start_sleeper(struct sleeper *sleeper)
{
    sleeper->thread = start_thread(sleep_in_queue, sleeper);
    AWAIT(atomic_load(&sleeper->tid));
    AWAIT_ASLEEP(atomic_load(&sleeper->tid));
}

static int end_sleeper(struct sleeper *sleeper)
{
    join_thread(sleeper->thread);
    return sleeper->result;
}

/* --- followers ------------------------------------------------------------------------------- */

struct tree {
    struct modus_queue *queue;
    _Atomic long visited;
};

static void *visit_tree(void *argument)
{
    struct tree *tree = argument;
    long depth;

    CHECK(modus_participant_join(arena) > 0);
    while (modus_queue_get(tree->queue, &depth, MODUS_FOREVER) == 0) {
        for (int i = 0; i < 2 && depth > 0; i++) {
            long child = depth - 1;

            CHECK_INT(modus_queue_put(tree->queue, &child, MODUS_FOREVER), 0);
        }
        atomic_fetch_add(&tree->visited, 1);
        CHECK_INT(modus_queue_task_done(tree->queue), 0);
    }
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

/* Must hold: join does not return between an item's end and the beginning of those that it put. In
 * every other round it is asked all the time: more chances to be wrong. */
static void see_followers(void **state, int rounds)
{
    for (int round = 0; round < rounds; round++) {
        struct tree tree = {.queue = new_joinable(state, 4096, false)};
        pthread_t threads[3];

        assert_int_equal(put(tree.queue, 8), 0);
        for (int i = 0; i < 3; i++)
            threads[i] = start_thread(visit_tree, &tree);
        while (round % 2 && modus_queue_join(tree.queue, 0) == -EAGAIN)
            sched_yield();
        assert_int_equal(modus_queue_join(tree.queue, modus_seconds(20)), 0);
        assert_int_equal(tree.visited, (1 << 9) - 1);
        modus_queue_close(tree.queue, MODUS_CLOSE_DRAIN);
        for (int i = 0; i < 3; i++)
            join_thread(threads[i]);
        end_queue(tree.queue);
    }
}

/* --- the group ------------------------------------------------------------------------------- */

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)256 << 20, 32) < 0)
        return -1;
    return modus_participant_join(arena) > 0 ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

#endif
