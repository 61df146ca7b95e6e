/* SPDX-License-Identifier: MIT */
/* What passes between threads and processes: queues, pipes, shared data: I1 to I6. */
#include "tests/demo/demo.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concurrency/arena.h"
#include "concurrency/participant.h"
#include "concurrency/queue.h"
#include "concurrency/thread.h"

/* --- I1: exactly once ------------------------------------------------------------------------------- */

enum { PRODUCERS = 4, CONSUMERS = 3, EACH = 5000, ITEMS = PRODUCERS * EACH };

/* In memory that all processes share. */
struct once {
    struct modus_arena *arena;
    struct modus_queue queue;
    atomic_uint producers;
    atomic_uchar seen[ITEMS];
    atomic_uint wrong_order;
};

static void produce(struct once *o)
{
    int who = (int)atomic_fetch_add(&o->producers, 1);
    modus_participant_join(o->arena);
    for (int i = 0; i < EACH; i++) {
        int item = who * EACH + i;
        modus_queue_put(&o->queue, &item, MODUS_FOREVER);
    }
    modus_participant_leave(o->arena);
}

static void consume(struct once *o)
{
    int item, last[PRODUCERS];
    memset(last, -1, sizeof last);
    modus_participant_join(o->arena);
    while (modus_queue_get(&o->queue, &item, MODUS_FOREVER) == 0) {
        atomic_fetch_add(&o->seen[item], 1);
        if (item <= last[item / EACH])
            atomic_fetch_add(&o->wrong_order, 1);
        last[item / EACH] = item;
    }
    modus_participant_leave(o->arena);
}

static pid_t start_process(void (*run)(struct once *o), struct once *o)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    run(o);
    _exit(0);
}

static void i1(struct demo *d)
{
    struct modus_arena *arena;
    pid_t producers[PRODUCERS], consumers[CONSUMERS];
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 4 << 20, 16) == 0))
        return;
    struct once *o = modus_arena_alloc(arena, sizeof *o, 64);
    o->arena = arena;
    DEMO_CHECK(
        d, modus_queue_init(&o->queue, &(struct modus_queue_attr){.scope = MODUS_PROCESS,
                                                                  .arena = arena,
                                                                  .capacity = 64,
                                                                  .item_size = sizeof(int)}) == 0);
    for (int i = 0; i < CONSUMERS; i++)
        consumers[i] = start_process(consume, o);
    for (int i = 0; i < PRODUCERS; i++)
        producers[i] = start_process(produce, o);
    for (int i = 0; i < PRODUCERS; i++)
        waitpid(producers[i], NULL, 0);
    modus_queue_close(&o->queue, MODUS_CLOSE_DRAIN);
    for (int i = 0; i < CONSUMERS; i++)
        waitpid(consumers[i], NULL, 0);
    int once = 0;
    for (int i = 0; i < ITEMS; i++)
        once += o->seen[i] == 1;
    DEMO_CHECK(d, once == ITEMS);
    DEMO_CHECK(d, o->wrong_order == 0);
    modus_queue_fini(&o->queue);
    demo_saw(d, "%d items from %d processes to %d: each once, each producer's in order", once,
             PRODUCERS, CONSUMERS);
    modus_arena_close(arena);
}

/* --- I5: a queue that can be joined ------------------------------------------------------------------ */

struct joinable {
    struct demo *row;
    struct modus_queue queue;
    atomic_int done;
};

static void *customer(void *argument)
{
    struct joinable *j = argument;
    int item;
    while (modus_queue_get(&j->queue, &item, MODUS_FOREVER) == 0) {
        demo_pause(0.01);
        atomic_fetch_add(&j->done, 1);
        DEMO_CHECK(j->row, modus_queue_task_done(&j->queue) == 0);
    }
    return NULL;
}

static void i5(struct demo *d)
{
    struct joinable j = {.row = d};
    struct modus_thread *thread;
    modus_queue_init(&j.queue, &(struct modus_queue_attr){.scope = MODUS_THREAD,
                                                          .capacity = 16,
                                                          .item_size = sizeof(int),
                                                          .joinable = true});
    modus_thread_new(&thread, &(struct modus_thread_attr){.daemon = MODUS_DAEMON_YES}, customer,
                     &j);
    modus_thread_start(thread);
    for (int i = 0; i < 10; i++)
        modus_queue_put(&j.queue, &i, MODUS_FOREVER);
    DEMO_CHECK(d, modus_queue_join(&j.queue, 0) == -EAGAIN);
    DEMO_CHECK(d, modus_queue_join(&j.queue, MODUS_FOREVER) == 0);
    DEMO_CHECK(d, atomic_load(&j.done) == 10);
    DEMO_CHECK(d, modus_queue_task_done(&j.queue) == -EOVERFLOW);
    modus_queue_close(&j.queue,
                      MODUS_CLOSE_DRAIN); /* what the notes' example lacks: it never ends */
    DEMO_CHECK(d, modus_thread_join(thread, modus_seconds(10), NULL) == 0);
    modus_thread_put(thread);
    modus_queue_fini(&j.queue);
    demo_saw(d,
             "join returned after %d task_done, an 11th is refused; closing ends the customer (the "
             "notes' waits for ever)",
             j.done);
}

const struct demo_row demo_queues[] = {
    {"I1", "a queue is safe and in order", i1},
    {"I5", "JoinableQueue(10)", i5},
    {0},
};
