/* SPDX-License-Identifier: MIT */
/* Concurrency Kit: nothing in it sleeps. Its spin lock spins; whoever finds its ring full or empty
 * lets others have the CPU (sched_yield). The ring takes pointers. */
#include <ck_ring.h>
#include <ck_spinlock.h>
#include <sched.h>

#include "tests/bench/toolbox/loops.h"

static void *make_spinlock(struct run *run)
{
    ck_spinlock_fas_t *lock = harness_shared(sizeof *lock);

    (void)run;
    ck_spinlock_fas_init(lock);
    return lock;
}

static void acquire(void *lock)
{
    ck_spinlock_fas_lock(lock);
}

static void release(void *lock)
{
    ck_spinlock_fas_unlock(lock);
}

static const struct lock_ops spinlock_ops = {make_spinlock, nothing, nothing, acquire, release};
LOCK_JOB(spinlock, spinlock_ops)

/* One entry of it always stays free. */
struct ring {
    ck_ring_t ring;
    ck_ring_buffer_t entries[];
};

static void *make_ring(struct run *run)
{
    struct ring *ring = harness_shared(sizeof *ring + run->capacity * sizeof(ck_ring_buffer_t));

    ck_ring_init(&ring->ring, run->capacity);
    return ring;
}

static void put(void *object, const void *item)
{
    struct ring *ring = object;
    uint64_t number;

    memcpy(&number, item, sizeof number);
    while (!ck_ring_enqueue_mpmc(&ring->ring, ring->entries, (void *)(uintptr_t)number))
        sched_yield();
}

static void get(void *object, void *item)
{
    struct ring *ring = object;
    void *got;

    while (!ck_ring_dequeue_mpmc(&ring->ring, ring->entries, &got))
        sched_yield();
    uint64_t number = (uintptr_t)got;
    memcpy(item, &number, sizeof number);
}

static void ring_send(void *ring)
{
    uint64_t number = 1;

    put(ring, &number);
}

static void ring_receive(void *ring)
{
    uint64_t number;

    get(ring, &number);
}

static const struct lock_ops ring_alone_ops = {make_ring, nothing, nothing, ring_send,
                                               ring_receive};
static const struct queue_ops ring_ops = {make_ring, nothing, nothing, put, get};
JOB(ring, queue_loop, ring_ops)
JOB(ring_alone, lock_loop, ring_alone_ops)

const struct job peer_jobs[] = {
    {"lock", "spinlock", spinlock},
    {"lock", "queue", ring_alone},
    {"queue", "ring", ring},
    {NULL, NULL, NULL},
};
