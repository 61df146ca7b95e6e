/* SPDX-License-Identifier: MIT */
/*
 * The stock under a queue that is no ring: the last item first, the smallest key first, as many as
 * there is memory for, or a number that is no power of two. Slots under a lock, and a line that says
 * whose turn it is.
 *
 * It stands beside the rings because their order is their positions, which is what makes them fast;
 * an order that a new item may break into needs the lock, and a place that is found by a division
 * would cost every ring. Everything else of a queue (sleepers,
 * doorbells, closing, joining) is the same, and in queue.c.
 *
 * The slots are the truth. A slot changes by one store of its state, after all else has been
 * written into it:
 *
 *     FREE --put--> FULL --get--> FREE
 *                   FULL --get--> KEPT|owner --task_done--> FREE       redeliver
 *                                 KEPT|dead  --scrub------> FULL
 *
 * Everything else (line, free slots, lists of those that keep, counts) follows from the slots, and
 * is made anew when the lock's owner has died. So a death at any instruction leaves the slot as it
 * was or as it was to become.
 *
 * For implementers: queue.c, stock.c, stock_line.c.
 */
#ifndef CONCURRENCY_STOCK_H
#define CONCURRENCY_STOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/lock.h"
#include "concurrency/queue.h"
#include "concurrency/ring.h"

enum { STOCK_FREE = 0, STOCK_FULL = 1, STOCK_KEPT = 0x10000 /* + the keeper's id */ };

#define STOCK_NONE UINT32_MAX

struct modus_stock_slot {
    _Atomic uint32_t state;
    uint32_t next;    /* of the free, or of those that the same one keeps */
    int64_t key;      /* priority */
    uint64_t arrival; /* counts the puts */
    uint64_t turn;    /* kept: counts the gets */
    unsigned char item[];
};

/* Those that a participant keeps, the oldest get first. */
struct modus_stock_keeper {
    uint32_t first, last; /* STOCK_NONE: none */
};

struct modus_stock {
    struct modus_lock lock; /* guards all that follows; the two counts are read without it, too */
    uint32_t scope, order;
    uint32_t limit; /* items; UINT32_MAX: as many as there is memory for */
    uint32_t room;  /* slots that there is memory for */
    uint32_t stride;
    uint32_t used; /* slots from here on have never been used */
    uint32_t free; /* first of the free slots below; STOCK_NONE: none */
    _Atomic uint32_t inside, kept;
    uint32_t first; /* FIFO: where the line begins; it goes round */
    uint64_t arrivals, turns;
    uint32_t *line; /* the inside slots' numbers */
    unsigned char *slots;
    uint32_t keepers_count;
    struct modus_stock_keeper *keepers; /* redeliver: by participant id - 1 */
};

static inline struct modus_stock_slot *stock_slot(const struct modus_stock *stock, uint32_t number)
{
    return (struct modus_stock_slot *)(void *)(stock->slots + (size_t)number * stock->stride);
}

/* Make one. Returns 0 or -ENOMEM. */
int modus_stock_new(struct modus_stock **stock, const struct modus_queue_attr *attr);
void modus_stock_free(struct modus_stock *stock, struct modus_arena *arena);

/* As the rings' (ring.h); put may also return -ENOMEM. They may wait for the lock, for a moment. */
long modus_stock_put(struct modus_queue *queue, const void *items, size_t n, int64_t key);
long modus_stock_get(struct modus_queue *queue, void *items, size_t n);
bool modus_stock_has_item(const struct modus_queue *queue);
bool modus_stock_has_room(const struct modus_queue *queue);
unsigned modus_stock_drop(struct modus_queue *queue);
int modus_stock_done(struct modus_queue *queue);
bool modus_stock_all_done(struct modus_queue *queue);
bool modus_stock_idle(const struct modus_queue *queue);
size_t modus_stock_len(const struct modus_queue *queue);
void modus_stock_scrub(struct modus_ring *ring, int id);

/* The line, under the lock (stock_line.c): add a FULL slot, or a list of n that have come back, take
 * the next one out, and put the line in order again when it holds the right slots in any. */
void modus_stock_line_add(struct modus_stock *stock, uint32_t number);
void modus_stock_line_add_list(struct modus_stock *stock, uint32_t first, uint32_t n);
uint32_t modus_stock_line_take(struct modus_stock *stock);
void modus_stock_line_sort(struct modus_stock *stock);

/* Put a list of slots in order. Returns its first. */
enum modus_stock_by { STOCK_BY_TURN, STOCK_LATEST_FIRST };
uint32_t modus_stock_list_sort(struct modus_stock *stock, uint32_t first, enum modus_stock_by by);

#endif
