/* SPDX-License-Identifier: MIT */
/*
 * Queue: fixed-size items handed on between threads or between processes, the first that was put
 * first, or (attribute order) the last, or the one with the smallest key.
 *
 * States: not started (zeroed) -> open -> closed (drain: what is inside can still be got; now: it
 * is dropped). put copies an item in and waits for room, get copies one out and waits for an item;
 * both have a limit on the waiting, and when put has returned, the item is there for whoever gets
 * next.
 *
 *     struct modus_queue queue;
 *     modus_queue_init(&queue, &(struct modus_queue_attr){.scope = MODUS_THREAD, .capacity = 1024,
 *                                                         .item_size = sizeof(struct job)});
 *     modus_queue_put(&queue, &job, MODUS_FOREVER);
 *     while (modus_queue_get(&queue, &job, MODUS_FOREVER) == 0)    // until MODUS_CLOSED
 *         run(&job);
 *
 * struct modus_queue is a handle; what is shared lies in storage of its own (malloc or arena). In
 * process scope the handle is made before the fork and its copies in the children are as good.
 *
 * A FIFO queue whose bound is a power of two is a ring without locks: the fastest. All others (LIFO,
 * PRIORITY, any other bound, or none) have a lock inside. A put or get of theirs, also one that does
 * not wait, may have to wait for another's for a moment; if that one is stopped (SIGSTOP) in that
 * moment, for as long. One without a bound doubles its memory when that is full, and gives it back
 * when it is empty. Full is full to the item, whatever the bound.
 *
 *     attr.order = MODUS_QUEUE_PRIORITY;
 *     modus_queue_put_key(&queue, &job, urgent ? 0 : 10, MODUS_FOREVER);
 *
 * Waking is chained: a put, or a batch of puts, wakes one sleeping consumer; that one, having got
 * its item, wakes the next if there is more. A loop arms a doorbell instead of sleeping. The price,
 * between processes: a consumer that is stopped (SIGSTOP) on its way from the wake to its get keeps
 * puts from waking others, until it goes on, or a producer finds no room: that one wakes another all
 * the same. A watch over the one on its way would cost every put.
 *
 * Joinable: every item got is to be answered by modus_queue_task_done, and modus_queue_join waits
 * until all that was put has been. Closing now counts what it drops as done.
 *
 * Killed users, process scope: callers join the arena first (participant.h). A producer killed
 * inside put loses its own item and no other. A consumer killed inside get, or (joinable) before
 * task_done, loses the items in its hands, or they are given to another consumer: on_death. Nobody
 * hangs, and no room is lost, once the death is buried (by itself for processes of process.h, by you
 * for those of a plain fork); who has a dead one's claim in its way buries it itself. At most once
 * delivery with LOST, at least once with REDELIVER.
 *
 * With REDELIVER a joinable queue keeps an item in its place until task_done, so items in work
 * count against the capacity, and one consumer that works on an item while others go once around
 * the ring holds up the producers (what is no ring has no such round). An item that is given
 * again comes with its old key and arrival, in a FIFO before all others. When the queue is closed,
 * whoever gets is told MODUS_CLOSED once nothing is left but what others have in work; should one
 * of those die then, join goes on waiting until somebody gets once more.
 *
 * The calls are linearizable, but for one thing that has to do with bounded rings: a try may come
 * back with MODUS_EMPTY while the put of the oldest item is under way, even if a later put has
 * returned, and with MODUS_FULL while the get that frees the next slot is. Whoever waits does not
 * notice.
 *
 * In process scope task_done must be called by the participant that got the item; between threads
 * by anybody.
 *
 * Algorithm: thread scope, D. Vyukov's bounded MPMC queue; process scope, a ring whose claims are
 * signed. LIFO, PRIORITY and unbounded ones are heaps and stacks under a lock.
 */
#ifndef CONCURRENCY_QUEUE_H
#define CONCURRENCY_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/doorbell.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

enum modus_close {
    MODUS_CLOSE_DRAIN, /* puts fail; gets take what is left, then fail */
    MODUS_CLOSE_NOW,   /* puts and gets fail; what is left is dropped and counts as done */
};

/* What becomes of the items in the hands of a consumer that dies. Process scope. */
enum modus_queue_death {
    MODUS_QUEUE_LOST,
    MODUS_QUEUE_REDELIVER,
};

enum modus_queue_order {
    MODUS_QUEUE_FIFO,     /* the first that was put comes first */
    MODUS_QUEUE_LIFO,     /* the last */
    MODUS_QUEUE_PRIORITY, /* the smallest key; of equal keys the first that was put */
};

/* As many items as there is memory for. Thread scope. */
#define MODUS_QUEUE_UNBOUNDED UINT32_MAX

struct modus_queue_attr {
    enum modus_scope scope;
    enum modus_queue_order order;
    struct modus_arena *arena; /* process scope: where the storage goes */
    unsigned capacity;  /* items, up to 2^24, or unbounded; a power of two makes a FIFO fast */
    unsigned item_size; /* bytes, up to 65536; up to 56 fit in one cache line */
    bool joinable;
    enum modus_queue_death on_death; /* process scope */
    unsigned spin;                   /* pauses of the CPU before a sleep, in all; 0: the usual,
                                      * some microseconds; MODUS_QUEUE_NO_SPIN: none */
};

#define MODUS_QUEUE_NO_SPIN 0x80000000u

struct modus_ring;

enum modus_queue_kind {
    MODUS_QUEUE_RING_THREAD,
    MODUS_QUEUE_RING_PROCESS,
    MODUS_QUEUE_STOCK,
};

/* All fields are private. */
struct modus_queue {
    uint32_t scope; /* enum modus_scope; 0: not started */
    enum modus_queue_kind kind;
    enum modus_queue_order order;
    uint32_t mask;
    uint32_t item_size;
    uint32_t stride; /* bytes from slot to slot */
    uint32_t spin;
    bool joinable;
    bool redeliver;
    struct modus_arena *arena;
    struct modus_ring *ring;
    unsigned char *slots;
};

/* Make an open, empty queue. Returns 0, -EINVAL or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_queue_init(struct modus_queue *queue, const struct modus_queue_attr *attr);

/* End a queue that nobody uses any more, and free its storage; items inside are dropped. Does
 * nothing to one that is not started.
 * Safe from: the one thread that still knows the object; in process scope one process calls it for
 * all (which is not a child that ends while others go on): the other handles just go. */
void modus_queue_fini(struct modus_queue *queue);

/* Put a copy of the item, waiting for room up to ns nanoseconds (MODUS_FOREVER: without end, 0: do
 * not wait). Returns 0; MODUS_FULL (ns 0), -ETIMEDOUT, MODUS_CLOSED, MODUS_CANCELED (interrupted
 * while waiting) or -EINVAL; in process scope -EPERM (not joined) or -ECHILD (only the parent has:
 * join again, participant.h); unbounded -ENOMEM. In a PRIORITY queue the key is 0. Blocks.
 * Safe from: any thread, in process scope any process; not signal handlers. */
int modus_queue_put(struct modus_queue *queue, const void *item, int64_t ns);

/* Put a copy of the item with that key, smaller ones being got first. Returns what modus_queue_put
 * does; -EINVAL also when the queue's order is another one. Blocks. Safe from: as modus_queue_put. */
int modus_queue_put_key(struct modus_queue *queue, const void *item, int64_t key, int64_t ns);
int modus_queue_put_key_until(struct modus_queue *queue, const void *item, int64_t key,
                              int64_t deadline);

/* Get the next item into *item, waiting up to ns nanoseconds. Returns 0; MODUS_EMPTY (ns 0),
 * -ETIMEDOUT, MODUS_CLOSED (closed, and nothing left), MODUS_CANCELED, -EINVAL, -EPERM or -ECHILD;
 * then *item is undefined. Blocks.
 * Safe from: as modus_queue_put. */
int modus_queue_get(struct modus_queue *queue, void *item, int64_t ns);

/* The same with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_queue_put_until(struct modus_queue *queue, const void *item, int64_t deadline);
int modus_queue_get_until(struct modus_queue *queue, void *item, int64_t deadline);

/* modus_queue_put(queue, item, 0) and modus_queue_get(queue, item, 0). Do not block. */
int modus_queue_try_put(struct modus_queue *queue, const void *item);
int modus_queue_try_get(struct modus_queue *queue, void *item);

/* Put n items, in order but perhaps with those of others between, waiting until all are in or the
 * time is over. Returns how many were put, or, if none, a code of modus_queue_put. Waking costs no
 * more than for one item. Blocks. Safe from: as modus_queue_put. */
long modus_queue_put_n(struct modus_queue *queue, const void *items, size_t n, int64_t ns);
long modus_queue_put_n_until(struct modus_queue *queue, const void *items, size_t n,
                             int64_t deadline);

/* Get up to n items that are there, waiting for the first. Returns how many, or a code of
 * modus_queue_get. Blocks. Safe from: as modus_queue_put. */
long modus_queue_get_n(struct modus_queue *queue, void *items, size_t n, int64_t ns);
long modus_queue_get_n_until(struct modus_queue *queue, void *items, size_t n, int64_t deadline);

/* Close. Sleepers on both sides wake up. Closing again is legal; now after drain drops the rest.
 * Returns 0 or -EINVAL. Does not block.
 * Safe from: any thread, in process scope any process, joined or not. */
int modus_queue_close(struct modus_queue *queue, enum modus_close how);

/* Everybody who sleeps in put or get (or join) of this queue returns MODUS_CANCELED, once. Returns
 * 0 or -EINVAL. Does not block. Safe from: as modus_queue_close. */
int modus_queue_interrupt(struct modus_queue *queue);

/* One got item is done (with REDELIVER the one that the caller has had longest). Returns 0;
 * -EOVERFLOW when nothing is open (between threads: of all that was put; else of what the caller
 * has got); -EINVAL (not joinable), -EPERM or -ECHILD. Does not block.
 * Safe from: any thread; in process scope, the participant that got the item. */
int modus_queue_task_done(struct modus_queue *queue);

/* Wait until everything that was put is done, up to ns nanoseconds. Returns 0, -EAGAIN (ns 0 and
 * not), -ETIMEDOUT, MODUS_CANCELED or -EINVAL. Blocks.
 * Safe from: any thread, in process scope any process, joined or not. */
int modus_queue_join(struct modus_queue *queue, int64_t ns);
int modus_queue_join_until(struct modus_queue *queue, int64_t deadline);

/* How many items are inside; already old when it returns. Safe from: any thread and process. */
size_t modus_queue_len(const struct modus_queue *queue);

bool modus_queue_is_closed(const struct modus_queue *queue);

/* Ring bell whenever there may be something to get (arm_get) or room to put (arm_put), and at close
 * and interrupt, until disarmed; look after arming. Returns 0, -EINVAL, -EOVERFLOW (64 bells
 * already) or -ENOMEM. Does not block.
 * Safe from: any thread, in process scope any process forked after the bell's init. */
int modus_queue_arm_get(struct modus_queue *queue, struct modus_doorbell *bell);
int modus_queue_arm_put(struct modus_queue *queue, struct modus_doorbell *bell);
void modus_queue_disarm_get(struct modus_queue *queue, struct modus_doorbell *bell);
void modus_queue_disarm_put(struct modus_queue *queue, struct modus_doorbell *bell);

#endif
