/* SPDX-License-Identifier: MIT */
/*
 * What rings of both scopes have in common: their storage, and looking at one without taking part.
 * What is seen is old when it is told.
 */
#include "concurrency/ring.h"
#include "concurrency/arena_priv.h"
#include "concurrency/stock.h"

#include <stdlib.h>

enum { LINE = 64 };

/* --- storage --------------------------------------------------------------------------------- */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static uint32_t stride_for(uint32_t item_size)
{
    return (uint32_t)round_up(sizeof(struct modus_ring_slot) + item_size, LINE);
}

static uint32_t holders_for(const struct modus_queue_attr *attr)
{
    return attr->scope == MODUS_PROCESS && attr->joinable ? attr->arena->participants : 0;
}

static uint32_t slots_at(uint32_t holders)
{
    return (uint32_t)round_up(sizeof(struct modus_ring) + holders * sizeof(_Atomic uint64_t), 128);
}

/* stride 0: no slots. */
static size_t ring_bytes(uint32_t holders, uint32_t mask, uint32_t stride)
{
    return slots_at(holders) + ((size_t)mask + 1) * stride;
}

static void *ring_alloc(const struct modus_queue_attr *attr, size_t bytes)
{
    if (attr->scope == MODUS_PROCESS)
        return modus_arena_alloc(attr->arena, bytes, 128);
    void *memory = aligned_alloc(128, round_up(bytes, 128));
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

void modus_ring_free(struct modus_ring *ring, enum modus_scope scope, struct modus_arena *arena)
{
    if (ring->stock)
        modus_stock_free(ring->stock, arena);
    if (scope == MODUS_PROCESS) {
        modus_arena_free(arena, ring, ring_bytes(ring->holders, ring->mask, ring->stride));
        return;
    }
    modus_lock_fini(&ring->consumers.gate.lock);
    modus_lock_fini(&ring->producers.gate.lock);
    free(ring);
}

int modus_ring_new(struct modus_ring **out, const struct modus_queue_attr *attr,
                   enum modus_queue_kind kind)
{
    bool stock = kind == MODUS_QUEUE_STOCK;
    uint32_t holders = holders_for(attr), mask = stock ? 0 : attr->capacity - 1;
    uint32_t stride = stock ? 0 : stride_for(attr->item_size);
    int rc = 0;

    struct modus_ring *ring = ring_alloc(attr, ring_bytes(holders, mask, stride));
    if (!ring)
        return -ENOMEM;
    ring->mask = mask;
    ring->stride = stride;
    ring->redeliver = attr->on_death == MODUS_QUEUE_REDELIVER;
    ring->slots_at = slots_at(holders);
    ring->holders = holders;
    modus_gate_init(&ring->consumers.gate, false);
    modus_gate_init(&ring->producers.gate, true);
    if (stock)
        rc = modus_stock_new(&ring->stock, attr);
    if (rc < 0)
        modus_ring_free(ring, attr->scope, attr->arena);
    else
        *out = ring;
    return rc;
}

/* --- looking --------------------------------------------------------------------------------- */

bool modus_ring_has_item(const struct modus_queue *queue)
{
    uint64_t head = atomic_load(&queue->ring->head);

    for (uint64_t i = 0; i <= queue->mask && !(head & RING_DROP); i++, head++) {
        uint64_t state = atomic_load(&ring_slot(queue, head)->state);
        int64_t ahead = ring_ahead(state, head);

        if (ahead == 0 && ring_kind(state) == FULL)
            return true;
        if (ahead < 0 || (ahead == 0 && (ring_kind(state) == EMPTY || ring_kind(state) == WRITING)))
            break;
    }
    return atomic_load(&queue->ring->redo) != 0;
}

bool modus_ring_has_room(const struct modus_queue *queue)
{
    uint64_t tail = atomic_load(&queue->ring->tail);

    for (uint64_t i = 0; i <= queue->mask && !(tail & RING_CLOSED); i++, tail++) {
        uint64_t state = atomic_load(&ring_slot(queue, tail)->state);
        int64_t ahead = ring_ahead(state, tail);

        if (ahead == 0 && ring_kind(state) == EMPTY)
            return true;
        if (ahead < 0)
            return ring_kind(state) == TOMB;
    }
    return false;
}

size_t modus_ring_len(const struct modus_queue *queue)
{
    uint64_t head = atomic_load(&queue->ring->head), tail = atomic_load(&queue->ring->tail);
    uint64_t len = (tail & RING_AT) - (head & RING_AT);

    if (head & RING_DROP || len >> 62)
        return 0;
    return len > queue->mask ? (size_t)queue->mask + 1 : (size_t)len;
}
