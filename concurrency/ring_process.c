/* SPDX-License-Identifier: MIT */
/*
 * The ring between processes, any of which may be killed at any instruction.
 *
 * In a textbook ring the exchange on tail is the claim; whoever dies after it leaves a hole that
 * nobody can tell from a slow writer, and the ring is stuck. Here the exchange on the *slot* is the
 * claim, and it carries the claimer's id: there is no moment in which a slot is taken and not
 * signed. tail and head only follow: after a claim its maker moves them, and so does everybody who
 * finds them lagging. Publishing and freeing are exchanges too, which fail if the claim has been
 * declared dead meanwhile; a reader whose last exchange fails discards its copy.
 *
 *     dies after ...            leaves                 is mended by
 *     put: claim, move, copy    WRITING@p,dead         scrub: TOMB@p, skipped by whoever meets it
 *     put: publish              FULL@p, nobody woken   the death epoch, which wakes all
 *     get: claim, move, copy    READING@p,dead         scrub: EMPTY@p+capacity, or REDO@p
 *     get: free                 nobody woken           the death epoch
 *
 * Scrubbing happens when the death is buried (participant.c), before the id can be used again, so
 * a claim signed with an id of the living is a claim of the living. A call that is stopped by
 * another's claim asks whether its owner lives, and buries it if not.
 *
 * Accounts of a joinable queue: there is no counter of unfinished items, because between any
 * counter and the slot there is room for a death. All is done when no slot holds an item and
 * nobody's own count of items got is above 0; a get raises its count before it frees the slot, so
 * whoever reads the slots first and the counts second misses nothing. With redelivery the items that
 * somebody has got are in their slots, and his own word is for him alone: how many they are, and in
 * the low half where to begin the search for the oldest. Half a position will do, since what one keeps
 * is never further apart than twice round the ring.
 */
#include "concurrency/fault.h"
#include "concurrency/participant.h"
#include "concurrency/ring.h"
#include "concurrency/stock.h"

#define KEPT_ONE ((uint64_t)1 << 32) /* in held, with redelivery; see above */

static uint64_t round_of(const struct modus_queue *queue)
{
    return (uint64_t)queue->mask + 1;
}

/* Positions wrap in the slots sooner than in tail and head. */
static bool same_position(uint64_t a, uint64_t b)
{
    return a << SEQUENCE_SHIFT == b << SEQUENCE_SHIFT;
}

/* Let tail or head go past at, if it stands there. */
static void move_past(_Atomic uint64_t *end, uint64_t at)
{
    uint64_t now = atomic_load(end);

    while (same_position(now, at))
        if (atomic_compare_exchange_weak(end, &now, now + 1))
            break;
}

static bool change(struct modus_ring_slot *slot, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong(&slot->state, &from, to);
}

static void skip_tomb(struct modus_queue *queue, uint64_t at)
{
    change(ring_slot(queue, at), ring_state(at, TOMB, 0),
           ring_state(at + round_of(queue), EMPTY, 0));
    move_past(&queue->ring->head, at);
}

/* --- put ------------------------------------------------------------------------------------- */

/* Sign the slot at the tail. Returns 0 and its position, MODUS_CLOSED, or MODUS_FULL and the owner
 * of the claim that is in the way (0: none). */
static int claim_put(struct modus_queue *queue, int me, uint64_t *at, int *blocker)
{
    struct modus_ring *ring = queue->ring;

    for (;;) {
        uint64_t tail = atomic_load(&ring->tail);
        MODUS_FAULT(MODUS_FAULT_PUT_AIMED);
        struct modus_ring_slot *slot = ring_slot(queue, tail);
        uint64_t state = atomic_load(&slot->state);

        if (tail & RING_CLOSED)
            return MODUS_CLOSED;
        if (atomic_load(&ring->tail) != tail)
            continue; /* what the slot said may be old, or the queue closed: see seal */
        MODUS_FAULT(MODUS_FAULT_PUT_LOOKED);
        int64_t ahead = ring_ahead(state, tail);
        if (ahead == 0 && ring_kind(state) == EMPTY) {
            if (!change(slot, state, ring_state(tail, WRITING, me)))
                continue;
            MODUS_FAULT(MODUS_FAULT_PUT_CLAIMED);
            move_past(&ring->tail, tail);
            MODUS_FAULT(MODUS_FAULT_PUT_HELPED);
            *at = tail;
            return 0;
        }
        if (ahead == 0 && ring_kind(state) == SEALED)
            return MODUS_CLOSED;
        if (ahead >= 0) {
            move_past(&ring->tail, tail);
        } else if (ring_kind(state) == TOMB) {
            skip_tomb(queue, tail - round_of(queue));
        } else {
            *blocker = ring_owner(state);
            return MODUS_FULL;
        }
    }
}

static int put_one(struct modus_queue *queue, int me, const void *item)
{
    int blocker = 0, rc;
    uint64_t at;

    while ((rc = claim_put(queue, me, &at, &blocker)) == MODUS_FULL)
        if (blocker == 0 || !modus_participant_mourn(queue->arena, blocker))
            return rc;
    if (rc < 0)
        return rc;
    struct modus_ring_slot *slot = ring_slot(queue, at);
    memcpy(slot->item, item, queue->item_size);
    MODUS_FAULT(MODUS_FAULT_PUT_COPIED);
    if (!change(slot, ring_state(at, WRITING, me), ring_state(at, FULL, 0)))
        return -ECHILD;
    MODUS_FAULT(MODUS_FAULT_PUT_PUBLISHED);
    return 0;
}

long modus_ring_process_put(struct modus_queue *queue, const void *items, size_t n)
{
    int me = modus_participant_self(queue->arena), rc = me < 0 ? me : 0;
    const unsigned char *item = items;
    size_t put = 0;

    for (; rc == 0 && put < n; put += rc == 0, item += queue->item_size)
        rc = put_one(queue, me, item);
    return put > 0 ? (long)put : rc;
}

/* --- get ------------------------------------------------------------------------------------- */

/* Take over an item that a dead consumer had. The flag is cleared before the search and set after
 * the slots are marked, so a mark that the search misses leaves it set. */
static bool claim_redo(struct modus_queue *queue, int me, uint64_t *at)
{
    atomic_store(&queue->ring->redo, 0);
    uint64_t first = atomic_load(&queue->ring->tail) - round_of(queue);
    for (uint64_t i = 0; i < round_of(queue); i++) {
        struct modus_ring_slot *slot = ring_slot(queue, first + i);
        uint64_t state = atomic_load(&slot->state);

        if (ring_kind(state) != REDO)
            continue;
        atomic_store(&queue->ring->redo, 1);
        *at = state >> SEQUENCE_SHIFT;
        if (change(slot, state, ring_state(*at, READING, me)))
            return true;
    }
    return false;
}

/* The queue is closed and looks empty; make sure that it stays so before anybody is told. A put
 * that claims the slot at the closed tail must have read it as EMPTY, and then tail as open, before
 * the close. So if it is EMPTY now, take it away; if it is claimed, that put was first, and the
 * next slot is the question; if it still serves the round before, nobody can have read that. */
static void seal(struct modus_queue *queue)
{
    for (;;) {
        uint64_t tail = atomic_load(&queue->ring->tail);
        struct modus_ring_slot *slot = ring_slot(queue, tail);
        uint64_t state = atomic_load(&slot->state);
        int64_t ahead = ring_ahead(state, tail);

        if (ahead < 0 || (ahead == 0 && ring_kind(state) == SEALED))
            return;
        if (ahead > 0 || ring_kind(state) != EMPTY)
            move_past(&queue->ring->tail, tail);
        else if (change(slot, state, ring_state(tail, SEALED, 0)))
            return;
    }
}

/* The queue looks empty at head. */
static int nothing_there(struct modus_queue *queue, uint64_t head)
{
    uint64_t tail = atomic_load(&queue->ring->tail);

    if (!(tail & RING_CLOSED) || !same_position(tail, head))
        return MODUS_EMPTY;
    seal(queue);
    return same_position(atomic_load(&queue->ring->tail), head) ? MODUS_CLOSED : MODUS_EMPTY;
}

/* Look at head once. Returns 0 and the position signed for, MODUS_CLOSED, MODUS_EMPTY and the owner
 * of the claim that is in the way, or -EAGAIN: look again. */
static int claim_at_head(struct modus_queue *queue, int me, uint64_t *at, int *blocker)
{
    struct modus_ring *ring = queue->ring;
    uint64_t head = atomic_load(&ring->head);
    struct modus_ring_slot *slot = ring_slot(queue, head);
    uint64_t state = atomic_load(&slot->state);
    int64_t ahead = ring_ahead(state, head);

    *blocker = 0;
    if (head & RING_DROP)
        return MODUS_CLOSED;
    if (ahead > 0) {
        move_past(&ring->head, head);
        return -EAGAIN;
    }
    if (ahead < 0)
        return atomic_load(&ring->head) == head ? nothing_there(queue, head) : -EAGAIN;
    switch (ring_kind(state)) {
    case FULL:
        if (!change(slot, state, ring_state(head, READING, me)))
            return -EAGAIN;
        MODUS_FAULT(MODUS_FAULT_GET_CLAIMED);
        move_past(&ring->head, head);
        MODUS_FAULT(MODUS_FAULT_GET_HELPED);
        *at = head;
        return 0;
    case WRITING:
        *blocker = ring_owner(state);
        return MODUS_EMPTY;
    case EMPTY:
        return atomic_load(&ring->head) == head ? nothing_there(queue, head) : -EAGAIN;
    case TOMB:
        skip_tomb(queue, head);
        return -EAGAIN;
    case READING:
    case REDO:
        move_past(&ring->head, head);
        return -EAGAIN;
    case SEALED:
        return MODUS_CLOSED;
    }
    return MODUS_BROKEN; /* no such kind: somebody wrote over the arena */
}

static int claim_get(struct modus_queue *queue, int me, uint64_t *at)
{
    for (;;) {
        int blocker, rc;

        if (atomic_load(&queue->ring->redo) && !(atomic_load(&queue->ring->head) & RING_DROP) &&
            claim_redo(queue, me, at))
            return 0;
        rc = claim_at_head(queue, me, at, &blocker);
        if (rc == MODUS_EMPTY && blocker && modus_participant_mourn(queue->arena, blocker))
            continue;
        if (rc != -EAGAIN)
            return rc;
    }
}

/* The item is copied; give the slot back, or keep it until task_done. Returns false if the claim
 * was declared dead. */
static bool finish_get(struct modus_queue *queue, int me, uint64_t at)
{
    _Atomic uint64_t *held = &queue->ring->held[me - 1];

    if (queue->joinable && queue->redeliver) {
        uint64_t kept = atomic_load(held);

        if (kept < KEPT_ONE || (int32_t)((uint32_t)kept - (uint32_t)at) > 0)
            kept = (kept & ~(KEPT_ONE - 1)) | (uint32_t)at;
        atomic_store(held, kept + KEPT_ONE);
        MODUS_FAULT(MODUS_FAULT_GET_NOTED);
        return true;
    }
    if (queue->joinable)
        atomic_fetch_add(held, 1);
    MODUS_FAULT(MODUS_FAULT_GET_NOTED);
    if (change(ring_slot(queue, at), ring_state(at, READING, me),
               ring_state(at + round_of(queue), EMPTY, 0)))
        return true;
    if (queue->joinable)
        atomic_fetch_sub(held, 1);
    return false;
}

static int get_one(struct modus_queue *queue, int me, void *item)
{
    uint64_t at = 0;
    int rc;

    do {
        rc = claim_get(queue, me, &at);
        if (rc < 0)
            return rc;
        memcpy(item, ring_slot(queue, at)->item, queue->item_size);
        MODUS_FAULT(MODUS_FAULT_GET_COPIED);
    } while (!finish_get(queue, me, at));
    MODUS_FAULT(MODUS_FAULT_GET_FREED);
    return 0;
}

long modus_ring_process_get(struct modus_queue *queue, void *items, size_t n)
{
    int me = modus_participant_self(queue->arena), rc = me < 0 ? me : 0;
    unsigned char *item = items;
    size_t got = 0;

    for (; rc == 0 && got < n; got += rc == 0, item += queue->item_size)
        rc = get_one(queue, me, item);
    return got > 0 ? (long)got : rc;
}

/* --- joining --------------------------------------------------------------------------------- */

static int done_counted(struct modus_queue *queue, int me)
{
    _Atomic uint64_t *held = &queue->ring->held[me - 1];

    if (atomic_load(held) == 0)
        return -EOVERFLOW;
    atomic_fetch_sub(held, 1);
    return 0;
}

/* Free the oldest slot that we read. held is how many we keep, and where to begin the search. */
static int done_kept(struct modus_queue *queue, int me)
{
    _Atomic uint64_t *held = &queue->ring->held[me - 1];
    uint64_t kept = atomic_load(held);
    uint32_t low = (uint32_t)kept;

    if (kept < KEPT_ONE)
        return -EOVERFLOW;
    for (uint64_t i = 0; i < round_of(queue); i++, low++) {
        struct modus_ring_slot *slot = ring_slot(queue, low);
        uint64_t state = atomic_load(&slot->state), at = state >> SEQUENCE_SHIFT;

        if (state != ring_state(at, READING, me) || (uint32_t)at != low)
            continue;
        atomic_store(held, (kept & ~(KEPT_ONE - 1)) - KEPT_ONE + (uint32_t)(low + 1));
        return change(slot, state, ring_state(at + round_of(queue), EMPTY, 0)) ? 0 : -ECHILD;
    }
    atomic_store(held, 0);
    return -ECHILD; /* the items went to others: we were taken for dead */
}

int modus_ring_process_done(struct modus_queue *queue)
{
    int me = modus_participant_self(queue->arena);

    if (me < 0)
        return me;
    return queue->redeliver ? done_kept(queue, me) : done_counted(queue, me);
}

/* Does any slot hold an item, or (if the others are dropped) an item in somebody's hands? */
static bool any_item(struct modus_queue *queue)
{
    bool dropped = atomic_load(&queue->ring->head) & RING_DROP;

    for (uint64_t i = 0; i < round_of(queue); i++)
        switch (ring_kind(atomic_load(&ring_slot(queue, i)->state))) {
        case WRITING:
        case FULL:
        case REDO:
            if (!dropped)
                return true;
            break;
        case READING:
            return true;
        case EMPTY:
        case TOMB:
        case SEALED:
            break;
        }
    return false;
}

bool modus_ring_anybody_holds(struct modus_ring *ring)
{
    for (uint32_t i = 0; !ring->redeliver && i < ring->holders; i++)
        if (atomic_load(&ring->held[i]) != 0)
            return true;
    return false;
}

bool modus_ring_process_all_done(struct modus_queue *queue)
{
    uint64_t tail;

    /* An item that a consumer puts while it still holds another one may go into a slot that has
     * been looked at already; then tail has moved before the other one is done. */
    do {
        tail = atomic_load(&queue->ring->tail);
        if (any_item(queue))
            return false;
        MODUS_FAULT(MODUS_FAULT_JOIN_SCANNED);
        if (modus_ring_anybody_holds(queue->ring))
            return false;
    } while (atomic_load(&queue->ring->tail) != tail);
    return true;
}

bool modus_ring_process_idle(struct modus_queue *queue)
{
    for (;;) {
        uint64_t head = atomic_load(&queue->ring->head);
        uint64_t state = atomic_load(&ring_slot(queue, head)->state);
        int64_t ahead = ring_ahead(state, head);

        if (ahead == 0 && ring_kind(state) == TOMB)
            skip_tomb(queue, head);
        else if (ahead > 0 ||
                 (ahead == 0 && (ring_kind(state) == READING || ring_kind(state) == REDO)))
            move_past(&queue->ring->head, head);
        else
            return (head & RING_DROP) || same_position(head, atomic_load(&queue->ring->tail));
    }
}

/* --- burying --------------------------------------------------------------------------------- */

static void scrub_slot(struct modus_ring *ring, struct modus_ring_slot *slot, int id)
{
    uint64_t state = atomic_load(&slot->state), at = state >> SEQUENCE_SHIFT;

    if (ring_owner(state) != id)
        return;
    if (ring_kind(state) == WRITING) {
        move_past(&ring->tail, at);
        change(slot, state, ring_state(at, TOMB, 0));
    } else if (ring_kind(state) == READING && ring->redeliver) {
        move_past(&ring->head, at);
        change(slot, state, ring_state(at, REDO, 0));
    } else if (ring_kind(state) == READING) {
        move_past(&ring->head, at);
        change(slot, state, ring_state(at + ring->mask + 1, EMPTY, 0));
    }
}

void modus_queue_scrub(struct modus_registered *registered, int id)
{
    /* registered is the first member. */
    struct modus_ring *ring = (struct modus_ring *)(void *)registered;

    if (ring->stock) {
        modus_stock_scrub(ring, id);
        return;
    }
    for (uint64_t i = 0; i <= ring->mask; i++)
        scrub_slot(ring, ring_slot_of(ring, i), id);
    if (ring->holders)
        atomic_store(&ring->held[id - 1], 0);
    if (ring->redeliver)
        atomic_store(&ring->redo, 1); /* the dead one may have cleared it and found nothing yet */
}
