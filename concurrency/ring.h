/* SPDX-License-Identifier: MIT */
/*
 * The ring under a queue: slots, positions, and the two ways of taking part (thread, process). What
 * queues of every kind share is in it too; one that is no ring has no slots here but a stock
 * (stock.h).
 *
 * Positions count puts and gets from 0; a position's slot is position & mask. A slot's state is
 *
 *     sequence:44 | kind:4 | owner:16
 *
 * where the sequence is the position that the slot stands at:
 *
 *     EMPTY@p --put--> FULL@p --get--> EMPTY@p+capacity                      thread scope
 *     EMPTY@p --claim--> WRITING@p,me --publish--> FULL@p                    process scope
 *     FULL@p --claim--> READING@p,me --free--> EMPTY@p+capacity
 *     WRITING@p,dead --> TOMB@p --> EMPTY@p+capacity
 *     READING@p,dead --> EMPTY@p+capacity (lost), or REDO@p --claim--> READING@p,other
 *     EMPTY@tail --> SEALED@tail when a closed queue is found empty
 *
 * Sequences compare modulo 2^44: wrong only for a call that sleeps during 10^13 others.
 *
 * For implementers: queue.c, ring.c, ring_thread.c, ring_process.c, stock.c.
 */
#ifndef CONCURRENCY_RING_H
#define CONCURRENCY_RING_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "concurrency/gate.h"
#include "concurrency/participant_priv.h"
#include "concurrency/queue.h"

enum modus_slot_kind { EMPTY, WRITING, FULL, READING, TOMB, REDO, SEALED };

enum { SEQUENCE_SHIFT = 20, KIND_SHIFT = 16 };

#define RING_CLOSED ((uint64_t)1 << 63) /* in tail: no more puts */
#define RING_DROP   ((uint64_t)1 << 62) /* in tail and head: no more gets either */
#define RING_AT     (RING_DROP - 1)     /* the position in tail and head */

struct modus_ring_slot {
    _Atomic uint64_t state;
    unsigned char item[];
};

/* One side's sleepers and loops. What is read after every operation of the other side comes first,
 * to be in one cache line. */
struct modus_ring_side {
    alignas(128) struct modus_armed armed;
    _Atomic uint32_t dropping; /* consumers', thread scope: closed now; a late put drops its item */
    struct modus_gate gate;
    _Atomic uint32_t vain; /* how often in a row looking again before a sleep has been in vain; only
                            * a hint */
};

struct modus_ring {
    struct modus_registered registered; /* process scope */
    uint32_t mask, stride, redeliver;   /* as in the handle; for the scrub */
    uint32_t slots_at;                  /* bytes from here to the slots */
    struct modus_stock *stock;          /* NULL: a ring */
    alignas(128) _Atomic uint64_t tail;
    alignas(128) _Atomic uint64_t head;
    _Atomic uint32_t redo; /* process scope: a slot may be REDO */
    struct modus_ring_side consumers;
    struct modus_ring_side producers;
    alignas(128) _Atomic uint32_t unfinished; /* thread scope: put and not done */
    _Atomic uint32_t joiners;                 /* somebody may sleep on joins */
    _Atomic uint32_t joins;                   /* counts the moments when all may have been done */
    _Atomic uint32_t interrupts;
    uint32_t holders;        /* process scope: entries of held */
    _Atomic uint64_t held[]; /* process scope, joinable, by participant id - 1: items got
                              * and not done; with redeliver also where the oldest is */
};

static inline uint64_t ring_state(uint64_t at, enum modus_slot_kind kind, int owner)
{
    return at << SEQUENCE_SHIFT | (uint64_t)kind << KIND_SHIFT | (uint64_t)owner;
}

static inline enum modus_slot_kind ring_kind(uint64_t state)
{
    return (enum modus_slot_kind)(state >> KIND_SHIFT & 15);
}

static inline int ring_owner(uint64_t state)
{
    return (int)(state & 0xffff);
}

/* How many positions the slot is ahead of at: negative, it still serves an earlier round. */
static inline int64_t ring_ahead(uint64_t state, uint64_t at)
{
    return (int64_t)((state >> SEQUENCE_SHIFT << SEQUENCE_SHIFT) - (at << SEQUENCE_SHIFT)) >>
           SEQUENCE_SHIFT;
}

static inline struct modus_ring_slot *ring_slot(const struct modus_queue *queue, uint64_t at)
{
    return (struct modus_ring_slot *)(void *)(queue->slots +
                                              (size_t)(at & queue->mask) * queue->stride);
}

static inline struct modus_ring_slot *ring_slot_of(struct modus_ring *ring, uint64_t at)
{
    return (struct modus_ring_slot *)(void *)((unsigned char *)ring + ring->slots_at +
                                              (size_t)(at & ring->mask) * ring->stride);
}

static inline void ring_copy(void *to, const void *from, size_t size)
{
    if (size == 8)
        memcpy(to, from, 8);
    else if (size == 16)
        memcpy(to, from, 16);
    else
        memcpy(to, from, size);
}

/* The storage of a queue with that attribute. Returns 0 or -ENOMEM. */
int modus_ring_new(struct modus_ring **ring, const struct modus_queue_attr *attr,
                   enum modus_queue_kind kind);
void modus_ring_free(struct modus_ring *ring, enum modus_scope scope, struct modus_arena *arena);

/* All of these return how many items they moved (1 to n), or MODUS_FULL, MODUS_EMPTY, MODUS_CLOSED.
 * They wake nobody. */
long modus_ring_thread_put(struct modus_queue *queue, const void *items, size_t n);
long modus_ring_thread_get(struct modus_queue *queue, void *items, size_t n);
/* Also -EPERM and -ECHILD. They bury the dead that are in the way. */
long modus_ring_process_put(struct modus_queue *queue, const void *items, size_t n);
long modus_ring_process_get(struct modus_queue *queue, void *items, size_t n);

/* Is there anything to get, or room to put? How many are inside? */
bool modus_ring_has_item(const struct modus_queue *queue);
bool modus_ring_has_room(const struct modus_queue *queue);
size_t modus_ring_len(const struct modus_queue *queue);

/* Thread scope: drop everything; the queue is closed now. Returns how many were dropped. In process
 * scope what is inside just does not count any more. */
unsigned modus_ring_thread_drop(struct modus_queue *queue);

/* Process scope: the caller's oldest item is done. Returns 0 or -EOVERFLOW, -EPERM, -ECHILD. */
int modus_ring_process_done(struct modus_queue *queue);

/* Process scope: has anybody got items that are not done? For those that are not kept in place. */
bool modus_ring_anybody_holds(struct modus_ring *ring);

/* Process scope: is everything done that was put? */
bool modus_ring_process_all_done(struct modus_queue *queue);

/* Process scope: may everything be done? A cheap look, wrong only towards yes. */
bool modus_ring_process_idle(struct modus_queue *queue);

#endif
