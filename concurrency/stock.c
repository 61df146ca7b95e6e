/* SPDX-License-Identifier: MIT */
/*
 * The stock: storage, put and get, keeping, and what is done after a death.
 *
 *     dies after ...            leaves                       is mended by
 *     put: copy                 FREE                         repair: its own item alone is gone
 *     put: publish              FULL, not in line            repair: makes the line anew
 *     get: copy                 FULL, not in line            repair: it is in line again
 *     get: note (joinable)      FULL, and counted as held    repair, and scrub: counted no more
 *     get: free                 FREE, not on the free list   repair
 *     task_done: free           FREE, still on a list        repair
 *     scrub: give back          FULL, not in line            repair; whoever buries again goes on
 *     anything: nobody woken    sleepers                     the death epoch, which wakes all
 *
 * Repair runs in whoever acquires the lock next, before it sees anything.
 *
 * Between threads the same slots grow if nothing bounds them: doubled when they are full, and given
 * back when they are empty.
 */
#include "concurrency/stock.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/participant.h"

#include <stdlib.h>

enum { ROOM_AT_FIRST = 256, ROOM_MAX = 1 << 30 };

/* --- storage --------------------------------------------------------------------------------- */

static size_t up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Process scope: all of it is one block. */
struct layout {
    size_t keepers, line, slots, bytes;
};

static struct layout layout_of(uint32_t room, uint32_t stride, uint32_t keepers)
{
    struct layout layout;

    layout.keepers = up(sizeof(struct modus_stock), 64);
    layout.line = layout.keepers + up(keepers * sizeof(struct modus_stock_keeper), 64);
    layout.slots = layout.line + up((size_t)room * sizeof(uint32_t), 64);
    layout.bytes = layout.slots + (size_t)room * stride;
    return layout;
}

static struct modus_stock *new_shared(const struct modus_queue_attr *attr, uint32_t stride,
                                      uint32_t keepers)
{
    struct layout layout = layout_of(attr->capacity, stride, keepers);
    struct modus_stock *stock = modus_arena_alloc(attr->arena, layout.bytes, 128);

    if (!stock)
        return NULL;
    stock->keepers = (struct modus_stock_keeper *)(void *)((char *)stock + layout.keepers);
    stock->line = (uint32_t *)(void *)((char *)stock + layout.line);
    stock->slots = (unsigned char *)stock + layout.slots;
    stock->room = attr->capacity;
    stock->keepers_count = keepers;
    return stock;
}

/* Have memory for that many slots. Returns false if there is none; then all is as it was. */
static bool resize(struct modus_stock *stock, uint32_t room)
{
    unsigned char *slots = realloc(stock->slots, (size_t)room * stock->stride);

    if (slots)
        stock->slots = slots;
    uint32_t *line = slots ? realloc(stock->line, (size_t)room * sizeof *line) : NULL;
    if (line)
        stock->line = line;
    if (line || room < stock->room)
        stock->room = room;
    return line != NULL;
}

static struct modus_stock *new_private(const struct modus_queue_attr *attr, uint32_t stride)
{
    bool unbounded = attr->capacity == MODUS_QUEUE_UNBOUNDED;
    struct modus_stock *stock = calloc(1, sizeof *stock);

    if (!stock)
        return NULL;
    stock->stride = stride;
    if (resize(stock, unbounded ? ROOM_AT_FIRST : attr->capacity))
        return stock;
    free(stock->slots);
    free(stock);
    return NULL;
}

static void forget_keepers(struct modus_stock *stock)
{
    for (uint32_t i = 0; i < stock->keepers_count; i++)
        stock->keepers[i] = (struct modus_stock_keeper){STOCK_NONE, STOCK_NONE};
}

static int repair(void *context);

int modus_stock_new(struct modus_stock **out, const struct modus_queue_attr *attr)
{
    uint32_t stride = (uint32_t)up(sizeof(struct modus_stock_slot) + attr->item_size, 8),
             keepers = 0;

    if (attr->scope == MODUS_PROCESS && attr->joinable && attr->on_death == MODUS_QUEUE_REDELIVER)
        keepers = attr->arena->participants;
    struct modus_stock *stock = attr->scope == MODUS_PROCESS ? new_shared(attr, stride, keepers)
                                                             : new_private(attr, stride);
    if (!stock)
        return -ENOMEM;
    stock->scope = (uint32_t)attr->scope;
    stock->order = (uint32_t)attr->order;
    stock->limit = attr->capacity;
    stock->stride = stride;
    stock->free = STOCK_NONE;
    forget_keepers(stock);
    int rc = modus_lock_init(&stock->lock, attr->scope);
    if (rc < 0) {
        modus_stock_free(stock, attr->arena);
        return rc;
    }
    modus_lock_set_repair(&stock->lock, repair, stock);
    *out = stock;
    return 0;
}

void modus_stock_free(struct modus_stock *stock, struct modus_arena *arena)
{
    uint32_t scope = stock->scope;

    modus_lock_fini(&stock->lock);
    if (scope == MODUS_PROCESS) {
        modus_arena_free(arena, stock,
                         layout_of(stock->room, stock->stride, stock->keepers_count).bytes);
        return;
    }
    free(stock->slots);
    free(stock->line);
    free(stock);
}

/* --- slots, under the lock ------------------------------------------------------------------- */

static void set_state(struct modus_stock_slot *slot, uint32_t state)
{
    atomic_store_explicit(&slot->state, state, memory_order_release);
}

/* Between threads, full, but not bounded: have twice the room. */
static int grow(struct modus_stock *stock)
{
    uint32_t room = stock->room;

    if (room == stock->limit)
        return MODUS_FULL;
    if (room >= ROOM_MAX || !resize(stock, room * 2))
        return -ENOMEM;
    memcpy(stock->line + room, stock->line, stock->first * sizeof *stock->line);
    return 0;
}

/* Returns 0, MODUS_FULL or -ENOMEM. */
static int take_free(struct modus_stock *stock, uint32_t *number)
{
    if (stock->free != STOCK_NONE) {
        *number = stock->free;
        stock->free = stock_slot(stock, *number)->next;
        return 0;
    }
    int rc = stock->used == stock->room ? grow(stock) : 0;
    if (rc < 0)
        return rc;
    *number = stock->used++;
    set_state(stock_slot(stock, *number), STOCK_FREE);
    return 0;
}

static void add_free(struct modus_stock *stock, uint32_t number)
{
    stock_slot(stock, number)->next = stock->free;
    stock->free = number;
}

static void start_afresh(struct modus_stock *stock)
{
    stock->free = STOCK_NONE;
    stock->used = 0;
    stock->first = 0;
    if (stock->limit == MODUS_QUEUE_UNBOUNDED && stock->room > ROOM_AT_FIRST)
        resize(stock, ROOM_AT_FIRST);
}

/* At the end: its turn is the latest. */
static void keep(struct modus_stock *stock, int id, uint32_t number)
{
    struct modus_stock_keeper *keeper = &stock->keepers[id - 1];

    stock_slot(stock, number)->next = STOCK_NONE;
    *(keeper->last == STOCK_NONE ? &keeper->first : &stock_slot(stock, keeper->last)->next) =
        number;
    keeper->last = number;
    atomic_fetch_add(&stock->kept, 1);
}

/* What keep has put together in any order, by turns. */
static void sort_kept(struct modus_stock *stock)
{
    for (uint32_t i = 0; i < stock->keepers_count; i++) {
        struct modus_stock_keeper *keeper = &stock->keepers[i];

        keeper->first = modus_stock_list_sort(stock, keeper->first, STOCK_BY_TURN);
        keeper->last = keeper->first;
        for (uint32_t at = keeper->first; at != STOCK_NONE; at = stock_slot(stock, at)->next)
            keeper->last = at;
    }
}

/* The oldest that the keeper has; STOCK_NONE: none. */
static uint32_t keep_no_more(struct modus_stock *stock, int id)
{
    struct modus_stock_keeper *keeper = &stock->keepers[id - 1];
    uint32_t number = keeper->first;

    if (number == STOCK_NONE)
        return number;
    keeper->first = stock_slot(stock, number)->next;
    if (keeper->first == STOCK_NONE)
        keeper->last = STOCK_NONE;
    atomic_fetch_sub(&stock->kept, 1);
    return number;
}

/* The lock's owner has died: make all that follows from the slots anew. */
static int repair(void *context)
{
    struct modus_stock *stock = context;
    uint32_t inside = 0;

    forget_keepers(stock);
    stock->free = STOCK_NONE;
    atomic_store(&stock->kept, 0);
    for (uint32_t i = stock->used; i-- > 0;) {
        uint32_t state = atomic_load(&stock_slot(stock, i)->state);

        if (state == STOCK_FREE)
            add_free(stock, i);
        else if (state == STOCK_FULL)
            stock->line[inside++] = i;
        else if (state - STOCK_KEPT - 1 < stock->keepers_count)
            keep(stock, (int)(state - STOCK_KEPT), i);
    }
    atomic_store(&stock->inside, inside);
    stock->first = 0;
    modus_stock_line_sort(stock);
    sort_kept(stock);
    return 0;
}

/* --- put and get ----------------------------------------------------------------------------- */

static int lock(struct modus_stock *stock)
{
    int rc = modus_lock_regain(&stock->lock, __builtin_return_address(0));

    MODUS_FAULT(MODUS_FAULT_STOCK_LOCKED);
    return rc < 0 ? rc : 0;
}

static void unlock(struct modus_stock *stock)
{
    modus_lock_release(&stock->lock);
}

static int put_one(struct modus_queue *queue, const void *item, int64_t key)
{
    struct modus_stock *stock = queue->ring->stock;
    uint32_t number;
    int rc = take_free(stock, &number);

    if (rc < 0)
        return rc;
    struct modus_stock_slot *slot = stock_slot(stock, number);
    slot->key = key;
    slot->arrival = ++stock->arrivals;
    memcpy(slot->item, item, queue->item_size);
    if (queue->joinable && queue->scope == MODUS_THREAD)
        atomic_fetch_add_explicit(&queue->ring->unfinished, 1, memory_order_relaxed);
    MODUS_FAULT(MODUS_FAULT_PUT_COPIED);
    set_state(slot, STOCK_FULL);
    MODUS_FAULT(MODUS_FAULT_STOCK_CHANGED);
    modus_stock_line_add(stock, number);
    return 0;
}

/* The caller's id; between threads nobody has one. */
static int self(const struct modus_queue *queue)
{
    return queue->scope == MODUS_PROCESS ? modus_participant_self(queue->arena) : 0;
}

long modus_stock_put(struct modus_queue *queue, const void *items, size_t n, int64_t key)
{
    struct modus_stock *stock = queue->ring->stock;
    const unsigned char *item = items;
    size_t put = 0;
    int rc = self(queue);

    if (rc >= 0)
        rc = lock(stock);
    if (rc < 0)
        return rc;
    if (atomic_load(&queue->ring->tail) & RING_CLOSED)
        rc = MODUS_CLOSED;
    for (; rc == 0 && put < n; put += rc == 0, item += queue->item_size)
        rc = put_one(queue, item, key);
    unlock(stock);
    if (put > 0)
        MODUS_FAULT(MODUS_FAULT_PUT_PUBLISHED);
    return put > 0 ? (long)put : rc;
}

/* The item is copied: let the slot go, or keep it. */
static void finish_get(struct modus_queue *queue, int me, uint32_t number)
{
    struct modus_stock *stock = queue->ring->stock;
    struct modus_stock_slot *slot = stock_slot(stock, number);

    MODUS_FAULT(MODUS_FAULT_GET_COPIED);
    if (stock->keepers_count) {
        slot->turn = ++stock->turns;
        set_state(slot, STOCK_KEPT + (uint32_t)me);
        MODUS_FAULT(MODUS_FAULT_STOCK_CHANGED);
        keep(stock, me, number);
        return;
    }
    if (queue->joinable && me > 0)
        atomic_fetch_add(&queue->ring->held[me - 1], 1);
    MODUS_FAULT(MODUS_FAULT_GET_NOTED);
    set_state(slot, STOCK_FREE);
    MODUS_FAULT(MODUS_FAULT_STOCK_CHANGED);
    add_free(stock, number);
}

long modus_stock_get(struct modus_queue *queue, void *items, size_t n)
{
    struct modus_stock *stock = queue->ring->stock;
    unsigned char *item = items;
    size_t got = 0;
    int me = self(queue), rc = me < 0 ? me : lock(stock);

    if (rc < 0)
        return rc;
    if (atomic_load(&queue->ring->head) & RING_DROP)
        rc = MODUS_CLOSED;
    else if (atomic_load(&stock->inside) == 0)
        rc = atomic_load(&queue->ring->tail) & RING_CLOSED ? MODUS_CLOSED : MODUS_EMPTY;
    for (; rc == 0 && got < n && atomic_load(&stock->inside) > 0; got++, item += queue->item_size) {
        uint32_t number = modus_stock_line_take(stock);

        memcpy(item, stock_slot(stock, number)->item, queue->item_size);
        finish_get(queue, me, number);
    }
    if (got > 0 && queue->scope == MODUS_THREAD && atomic_load(&stock->inside) == 0)
        start_afresh(stock);
    unlock(stock);
    if (got > 0)
        MODUS_FAULT(MODUS_FAULT_GET_FREED);
    return got > 0 ? (long)got : rc;
}

unsigned modus_stock_drop(struct modus_queue *queue)
{
    struct modus_stock *stock = queue->ring->stock;

    lock(stock);
    unsigned dropped = atomic_exchange(&stock->inside, 0);
    start_afresh(stock);
    unlock(stock);
    return dropped;
}

/* --- joining --------------------------------------------------------------------------------- */

int modus_stock_done(struct modus_queue *queue)
{
    struct modus_stock *stock = queue->ring->stock;

    if (!stock->keepers_count)
        return modus_ring_process_done(queue);
    int me = self(queue), rc = me < 0 ? me : lock(stock);
    if (rc < 0)
        return rc;
    uint32_t number = keep_no_more(stock, me);
    if (number != STOCK_NONE) {
        set_state(stock_slot(stock, number), STOCK_FREE);
        MODUS_FAULT(MODUS_FAULT_STOCK_CHANGED);
        add_free(stock, number);
    }
    unlock(stock);
    return number == STOCK_NONE ? -EOVERFLOW : 0;
}

/* An item that a consumer puts while it holds another one is in before the other one is done, and
 * the lock shows both at one time. */
bool modus_stock_all_done(struct modus_queue *queue)
{
    struct modus_stock *stock = queue->ring->stock;

    if (lock(stock) < 0)
        return false;
    bool done = modus_stock_idle(queue) && atomic_load(&stock->kept) == 0 &&
                (stock->keepers_count || !modus_ring_anybody_holds(queue->ring));
    unlock(stock);
    return done;
}

/* --- looking --------------------------------------------------------------------------------- */

bool modus_stock_idle(const struct modus_queue *queue)
{
    return modus_stock_len(queue) == 0;
}

size_t modus_stock_len(const struct modus_queue *queue)
{
    if (atomic_load(&queue->ring->head) & RING_DROP)
        return 0;
    return atomic_load(&queue->ring->stock->inside);
}

bool modus_stock_has_item(const struct modus_queue *queue)
{
    return modus_stock_len(queue) > 0;
}

bool modus_stock_has_room(const struct modus_queue *queue)
{
    const struct modus_stock *stock = queue->ring->stock;

    return !(atomic_load(&queue->ring->tail) & RING_CLOSED) &&
           atomic_load(&stock->inside) + atomic_load(&stock->kept) < stock->limit;
}

/* --- burying --------------------------------------------------------------------------------- */

/* What the keeper has goes back, all at once: one by one, each would move the others aside again. */
static void give_back(struct modus_stock *stock, int id)
{
    struct modus_stock_keeper *keeper = &stock->keepers[id - 1];
    uint32_t first = keeper->first, n = 0;

    for (uint32_t at = first; at != STOCK_NONE; at = stock_slot(stock, at)->next, n++) {
        set_state(stock_slot(stock, at), STOCK_FULL);
        MODUS_FAULT(MODUS_FAULT_STOCK_CHANGED);
    }
    *keeper = (struct modus_stock_keeper){STOCK_NONE, STOCK_NONE};
    atomic_fetch_sub(&stock->kept, n);
    modus_stock_line_add_list(stock, first, n);
}

void modus_stock_scrub(struct modus_ring *ring, int id)
{
    struct modus_stock *stock = ring->stock;

    lock(stock);
    if (stock->keepers_count)
        give_back(stock, id);
    if (ring->holders)
        atomic_store(&ring->held[id - 1], 0);
    unlock(stock);
}
