/* SPDX-License-Identifier: MIT */
/*
 * The ring between threads: D. Vyukov's bounded MPMC queue, with claims of several slots at once.
 *
 * The exchange on tail (or head) is the claim; threads of one process die together, so a claim is
 * always fulfilled. Closing is a bit of tail, so that the very exchange that claims fails once the
 * queue is closed, and every put is either before the close or fails.
 *
 * Publishing and freeing are exchanges, not stores, because a look at the other side's sleepers
 * follows and must not pass them; for a batch only the last one is.
 */
#include "concurrency/ring.h"

/* How many slots from at on are in that state of their round, up to n. */
static size_t run_of(struct modus_queue *queue, uint64_t at, enum modus_slot_kind kind, size_t n)
{
    size_t run = 0;

    /* seq_cst, since a sleeper looks here after it has marked itself. */
    while (run < n &&
           atomic_load(&ring_slot(queue, at + run)->state) == ring_state(at + run, kind, 0))
        run++;
    return run;
}

static void set_state(struct modus_ring_slot *slot, uint64_t state, bool last)
{
    if (last)
        atomic_exchange(&slot->state, state);
    else
        atomic_store_explicit(&slot->state, state, memory_order_release);
}

long modus_ring_thread_put(struct modus_queue *queue, const void *items, size_t n)
{
    struct modus_ring *ring = queue->ring;
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    const unsigned char *item = items;
    size_t run;

    for (;;) {
        if (tail & RING_CLOSED)
            return MODUS_CLOSED;
        run = run_of(queue, tail, EMPTY, n);
        if (run == 0) {
            uint64_t now = atomic_load(&ring->tail);

            if (now == tail)
                return MODUS_FULL;
            tail = now;
        } else if (atomic_compare_exchange_weak_explicit(&ring->tail, &tail, tail + run,
                                                         memory_order_relaxed,
                                                         memory_order_relaxed)) {
            break;
        }
    }
    if (queue->joinable)
        atomic_fetch_add_explicit(&ring->unfinished, (uint32_t)run, memory_order_relaxed);
    for (size_t i = 0; i < run; i++, item += queue->item_size) {
        struct modus_ring_slot *slot = ring_slot(queue, tail + i);

        ring_copy(slot->item, item, queue->item_size);
        set_state(slot, ring_state(tail + i, FULL, 0), i + 1 == run);
    }
    return (long)run;
}

/* Claim what there is, up to n. Returns how many from *at on, or MODUS_EMPTY or MODUS_CLOSED.
 * dropping: also after a close. */
static long claim(struct modus_queue *queue, size_t n, bool dropping, uint64_t *at)
{
    struct modus_ring *ring = queue->ring;
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    for (;;) {
        if ((head & RING_DROP) && !dropping)
            return MODUS_CLOSED;
        size_t run = run_of(queue, head, FULL, n);
        if (run == 0) {
            uint64_t now = atomic_load(&ring->head), tail = atomic_load(&ring->tail);

            if (now == head)
                return (tail & RING_CLOSED) && (tail & RING_AT) == (head & RING_AT) ? MODUS_CLOSED
                                                                                    : MODUS_EMPTY;
            head = now;
        } else if (atomic_compare_exchange_weak_explicit(&ring->head, &head, head + run,
                                                         memory_order_relaxed,
                                                         memory_order_relaxed)) {
            *at = head;
            return (long)run;
        }
    }
}

long modus_ring_thread_get(struct modus_queue *queue, void *items, size_t n)
{
    uint64_t at, round = (uint64_t)queue->mask + 1;
    unsigned char *item = items;
    long run = claim(queue, n, false, &at);

    for (long i = 0; i < run; i++, at++, item += queue->item_size) {
        struct modus_ring_slot *slot = ring_slot(queue, at);

        ring_copy(item, slot->item, queue->item_size);
        set_state(slot, ring_state(at + round, EMPTY, 0), i + 1 == run);
    }
    return run;
}

unsigned modus_ring_thread_drop(struct modus_queue *queue)
{
    uint64_t at, round = (uint64_t)queue->mask + 1;
    unsigned dropped = 0;

    for (long run; (run = claim(queue, (size_t)round, true, &at)) > 0; dropped += (unsigned)run)
        for (long i = 0; i < run; i++, at++)
            set_state(ring_slot(queue, at), ring_state(at + round, EMPTY, 0), true);
    return dropped;
}
