/* SPDX-License-Identifier: MIT */
/*
 * The loops around a peer's operations, the same for all.
 *
 * Each is a template: always inlined, with a constant table of the peer's functions, so that the
 * compiler puts the peer's calls into the loop as if they had been written there. JOB makes a worker
 * and a job of a loop and a table.
 */
#ifndef TESTS_BENCH_TOOLBOX_LOOPS_H
#define TESTS_BENCH_TOOLBOX_LOOPS_H

#include <string.h>
#include <unistd.h>

#include "tests/bench/toolbox/harness.h"

#define TEMPLATE static inline __attribute__((always_inline, unused))

/* Every so many acquires the wait is timed: the clock costs as much as a free lock. */
enum { TIMED_EVERY = 64, BATCH = 256 };

/* static void NAME(struct run *), the job: make the object, let the workers work. */
#define JOB(name, loop, ops)                                                                       \
    static void name##_worker(struct worker *worker)                                               \
    {                                                                                              \
        (ops).enter(worker->run);                                                                  \
        loop(worker, &(ops));                                                                      \
        (ops).leave(worker->run);                                                                  \
    }                                                                                              \
    static void name(struct run *run)                                                              \
    {                                                                                              \
        run->objects[0] = (ops).make(run);                                                         \
        harness_workers(run, name##_worker);                                                       \
    }

TEMPLATE void nothing(struct run *run)
{
    (void)run;
}

/* Every table begins with these: make an object for run's scope, before the workers start; enter
 * and leave, called by each worker (nothing, mostly). */
#define OPS_COMMON                                                                                 \
    void *(*make)(struct run * run);                                                               \
    void (*enter)(struct run * run);                                                               \
    void (*leave)(struct run * run)

/* --- lock: acquire, work, release ------------------------------------------------------------- */

struct lock_ops {
    OPS_COMMON;
    void (*acquire)(void *lock);
    void (*release)(void *lock);
};

TEMPLATE void lock_alone(struct worker *worker, const struct lock_ops *ops)
{
    void *lock = worker->run->objects[0];
    uint64_t n = 0;

    harness_begin(worker);
    for (; !stopped(worker->run); n += BATCH)
        for (unsigned i = 0; i < BATCH; i++) {
            ops->acquire(lock);
            ops->release(lock);
        }
    harness_end(worker);
    worker->ops = n;
}

TEMPLATE void lock_among_others(struct worker *worker, const struct lock_ops *ops)
{
    struct run *run = worker->run;
    void *lock = run->objects[0];
    uint64_t n = 0;

    harness_begin(worker);
    for (; !stopped(run); n++) {
        int64_t since = n % TIMED_EVERY == 0 ? harness_now() : 0;

        ops->acquire(lock);
        if (since)
            harness_waited(&worker->waits, harness_now() - since);
        run->guarded++;
        spend(run->work);
        ops->release(lock);
    }
    harness_end(worker);
    worker->ops = worker->got_sum = n;
}

TEMPLATE void lock_loop(struct worker *worker, const struct lock_ops *ops)
{
    if (worker->run->workers == 1)
        lock_alone(worker, ops);
    else
        lock_among_others(worker, ops);
}

/* The lock's job also checks that it was one: what it guards has counted every acquire. */
#define LOCK_JOB(name, ops)                                                                        \
    JOB(name##_unchecked, lock_loop, ops)                                                          \
    static void name(struct run *run)                                                              \
    {                                                                                              \
        name##_unchecked(run);                                                                     \
        run->all[0].put_sum = run->guarded;                                                        \
    }

/* --- relay: two workers wake each other in turn ----------------------------------------------- */

struct relay_ops {
    OPS_COMMON;
    void (*send)(void *object);    /* wake whoever receives */
    void (*receive)(void *object); /* sleep until there was a send */
};

/* One object there, one back. */
#define RELAY_JOB(name, ops)                                                                       \
    JOB(name##_one_way, relay_loop, ops)                                                           \
    static void name(struct run *run)                                                              \
    {                                                                                              \
        run->objects[1] = (ops).make(run);                                                         \
        name##_one_way(run);                                                                       \
    }

/* An operation is a round trip. */
TEMPLATE void relay_loop(struct worker *worker, const struct relay_ops *ops)
{
    struct run *run = worker->run;
    void *there = run->objects[0], *back = run->objects[1];
    uint64_t n = 0;

    harness_begin(worker);
    if (worker->index == 0) {
        for (; !stopped(run); n++) {
            int64_t since = harness_now();

            ops->send(there);
            ops->receive(back);
            harness_waited(&worker->waits, harness_now() - since);
        }
        atomic_store(&run->over, 1);
        ops->send(there);
    } else {
        for (ops->receive(there); !atomic_load(&run->over); ops->receive(there))
            ops->send(back);
    }
    harness_end(worker);
    worker->ops = n;
}

/* --- queue: producers put, consumers get ------------------------------------------------------ */

enum { ITEM_MAX = 1024 };
#define END_OF_ITEMS UINT64_MAX

struct queue_ops {
    OPS_COMMON;
    void (*put)(void *queue, const void *item); /* the first eight bytes are its number, above 0 */
    void (*get)(void *queue, void *item);
};

TEMPLATE void queue_produce(struct worker *worker, const struct queue_ops *ops)
{
    struct run *run = worker->run;
    void *queue = run->objects[0];
    _Alignas(64) unsigned char item[ITEM_MAX] = {0};
    uint64_t n = 0, sum = 0;

    while (!stopped(run)) {
        n++;
        sum += n;
        memcpy(item, &n, sizeof n);
        ops->put(queue, item);
    }
    worker->put_sum = sum;
    if (atomic_fetch_sub(&run->producing, 1) > 1)
        return;
    n = END_OF_ITEMS;
    memcpy(item, &n, sizeof n);
    for (unsigned i = 0; i < run->consumers; i++)
        ops->put(queue, item);
}

TEMPLATE void queue_consume(struct worker *worker, const struct queue_ops *ops)
{
    void *queue = worker->run->objects[0];
    _Alignas(64) unsigned char item[ITEM_MAX];
    uint64_t n = 0, sum = 0, number;

    for (;; n++, sum += number) {
        ops->get(queue, item);
        memcpy(&number, item, sizeof number);
        if (number == END_OF_ITEMS)
            break;
    }
    worker->got_sum = sum;
    worker->ops = n;
}

TEMPLATE void queue_loop(struct worker *worker, const struct queue_ops *ops)
{
    harness_begin(worker);
    if (worker->index < worker->run->producers)
        queue_produce(worker, ops);
    else
        queue_consume(worker, ops);
    harness_end(worker);
}

/* --- idle: consumers of an empty queue -------------------------------------------------------- */

/* An operation is a consumer, who should sleep once: until the end, which worker 0 puts. */
TEMPLATE void idle_loop(struct worker *worker, const struct queue_ops *ops)
{
    struct run *run = worker->run;
    uint64_t item[ITEM_MAX / 8] = {1};

    harness_begin(worker);
    if (worker->index > 0) {
        ops->get(run->objects[0], item);
        harness_end(worker);
        worker->ops = 1;
        return;
    }
    while (!stopped(run))
        usleep(1000);
    for (unsigned i = 1; i < run->workers; i++)
        ops->put(run->objects[0], item);
    worker->ended = harness_now(); /* and what it has cost is not of interest */
    worker->cpu_s = 0;
    worker->switches = worker->preemptions = 0;
}

/* --- barrier: all workers meet, again and again ----------------------------------------------- */

struct barrier_ops {
    OPS_COMMON;
    void (*wait)(void *barrier);
};

/* An operation is a meeting; worker 0 says before the last one that it is. */
TEMPLATE void barrier_loop(struct worker *worker, const struct barrier_ops *ops)
{
    struct run *run = worker->run;
    uint32_t meeting = 1;

    harness_begin(worker);
    for (;; meeting++) {
        if (worker->index == 0 && stopped(run))
            atomic_store(&run->over, meeting);
        ops->wait(run->objects[0]);
        if (atomic_load(&run->over) == meeting)
            break;
    }
    harness_end(worker);
    worker->ops = worker->index == 0 ? meeting : 0;
}

/* --- once: one thing, done again and again by one worker -------------------------------------- */

struct once_ops {
    OPS_COMMON;
    void (*once)(void *object);
};

TEMPLATE void once_loop(struct worker *worker, const struct once_ops *ops)
{
    void *object = worker->run->objects[0];
    uint64_t n = 0;

    harness_begin(worker);
    for (; !stopped(worker->run); n++) {
        int64_t since = harness_now();

        ops->once(object);
        harness_waited(&worker->waits, harness_now() - since);
    }
    harness_end(worker);
    worker->ops = n;
}

/* --- tasks: a pool computes nothing, many times ----------------------------------------------- */

enum { TASKS_AHEAD = 1000, POOL_WORKERS = 2 };

struct tasks_ops {
    OPS_COMMON;
    void (*submit)(void *pool); /* a task that does nothing */
    void (*wait)(void *pool);   /* until all that were submitted are done */
    void (*end)(void *pool); /* until its workers have ended and are reaped; NULL: they are threads,
                                 * whose cost counts while they live */
};

/* ahead: how many are submitted before their end is waited for. */
TEMPLATE void tasks_ahead(struct worker *worker, const struct tasks_ops *ops, unsigned ahead)
{
    void *pool = worker->run->objects[0];
    uint64_t n = 0;

    harness_begin(worker);
    for (; !stopped(worker->run); n += ahead) {
        int64_t since = harness_now();

        for (unsigned i = 0; i < ahead; i++)
            ops->submit(pool);
        ops->wait(pool);
        harness_waited(&worker->waits, harness_now() - since);
    }
    int64_t ended = harness_now();
    if (ops->end)
        ops->end(pool);
    harness_end(worker);
    worker->ended = ended;
    worker->ops = n;
}

TEMPLATE void tasks_loop(struct worker *worker, const struct tasks_ops *ops)
{
    tasks_ahead(worker, ops, TASKS_AHEAD);
}

TEMPLATE void task_loop(struct worker *worker, const struct tasks_ops *ops)
{
    tasks_ahead(worker, ops, 1);
}

/* --- recovery: the holder is killed, how long until the next one owns the lock? --------------- */

/* count times: a child acquires, a waiter (ours) begins to wait, the child is killed. The wait is
 * timed from the kill. */
TEMPLATE void recovery_run(struct run *run, const struct lock_ops *ops)
{
    struct worker *worker = &run->all[0];
    _Atomic uint32_t *held = harness_shared(sizeof *held);

    run->objects[0] = ops->make(run);
    atomic_store(&run->go, 1);
    harness_begin(worker);
    for (unsigned i = 0; i < run->count; i++) {
        int holder = harness_fork();

        if (holder == 0) {
            ops->enter(run);
            ops->acquire(run->objects[0]);
            atomic_store(held, 1);
            for (;;)
                harness_now();
        }
        while (!atomic_load(held))
            ;
        atomic_store(held, 0);
        int64_t killed = harness_now();
        harness_kill(holder);
        ops->acquire(run->objects[0]);
        harness_waited(&worker->waits, harness_now() - killed);
        ops->release(run->objects[0]);
        harness_bury(holder);
    }
    harness_end(worker);
    worker->ops = run->count;
}

#endif
