/* SPDX-License-Identifier: MIT */
/*
 * The queue: life, waiting, waking, closing and joining, for both scopes and all orders. The rings
 * are in ring_thread.c and ring_process.c, what is no ring in stock.c; how sleepers are woken, in
 * gate.c.
 *
 * Every operation first tries the ring, or the stock; only if that is in vain does it become a
 * visitor of the gate: enter, try again, sleep, try again. Whoever has been a visitor, and whoever
 * changed something, leaves the gates so that nobody sleeps while there is something to do: see
 * settle.
 */
#include "concurrency/queue.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/participant.h"
#include "concurrency/pause.h"
#include "concurrency/ring.h"
#include "concurrency/stock.h"

#include <limits.h>

enum { CAPACITY_MAX = 1 << 24, ITEM_MAX = 65536 };
enum { SPIN_USUAL = 768, SPIN_FIRST = 16, VAIN_MAX = 64 }; /* measured with make bench-toolbox */

/* --- life ------------------------------------------------------------------------------------ */

static enum modus_queue_kind kind_of(const struct modus_queue_attr *attr)
{
    if (attr->order != MODUS_QUEUE_FIFO || (attr->capacity & (attr->capacity - 1)) != 0)
        return MODUS_QUEUE_STOCK; /* also the unbounded */
    return attr->scope == MODUS_THREAD ? MODUS_QUEUE_RING_THREAD : MODUS_QUEUE_RING_PROCESS;
}

static bool valid(const struct modus_queue_attr *attr)
{
    if (attr->scope == MODUS_PROCESS ? !attr->arena
                                     : attr->scope != MODUS_THREAD || attr->on_death != 0)
        return false;
    if ((unsigned)attr->order > MODUS_QUEUE_PRIORITY || attr->item_size < 1 ||
        attr->item_size > ITEM_MAX)
        return false;
    if (attr->capacity == MODUS_QUEUE_UNBOUNDED)
        return attr->scope == MODUS_THREAD;
    return attr->capacity >= 1 && attr->capacity <= CAPACITY_MAX;
}

int modus_queue_init(struct modus_queue *queue, const struct modus_queue_attr *attr)
{
    struct modus_ring *ring;

    memset(queue, 0, sizeof *queue);
    if (!valid(attr))
        return -EINVAL;
    int rc = modus_ring_new(&ring, attr, kind_of(attr));
    if (rc < 0)
        return rc;
    *queue = (struct modus_queue){
        .scope = (uint32_t)attr->scope,
        .kind = kind_of(attr),
        .order = attr->order,
        .mask = ring->mask,
        .item_size = attr->item_size,
        .stride = ring->stride,
        .spin = attr->spin ? attr->spin & ~MODUS_QUEUE_NO_SPIN : SPIN_USUAL,
        .joinable = attr->joinable,
        .redeliver = ring->redeliver,
        .arena = attr->scope == MODUS_PROCESS ? attr->arena : NULL,
        .ring = ring,
        .slots = (unsigned char *)ring + ring->slots_at,
    };
    for (uint64_t at = 0; !ring->stock && at <= queue->mask; at++)
        atomic_init(&ring_slot(queue, at)->state, ring_state(at, EMPTY, 0));
    if (queue->scope == MODUS_PROCESS)
        modus_registry_add(queue->arena, &ring->registered, MODUS_REGISTERED_QUEUE);
    return 0;
}

void modus_queue_fini(struct modus_queue *queue)
{
    struct modus_ring *ring = queue->ring;

    if (queue->scope == 0)
        return;
    modus_armed_fini(&ring->consumers.armed, queue->scope);
    modus_armed_fini(&ring->producers.armed, queue->scope);
    if (queue->scope == MODUS_PROCESS)
        modus_registry_remove(queue->arena, &ring->registered);
    modus_ring_free(ring, queue->scope, queue->arena);
    memset(queue, 0, sizeof *queue);
}

/* --- both directions ------------------------------------------------------------------------- */

/* What distinguishes putting from getting, so that waiting is written once. */
struct direction {
    bool put;
    long nothing; /* what the ring says when it cannot go on */
};

static const struct direction putting = {.put = true, .nothing = MODUS_FULL};
static const struct direction getting = {.put = false, .nothing = MODUS_EMPTY};

/* A range of items to be put or to be filled. */
struct range {
    union {
        const unsigned char *from; /* put */
        unsigned char *to;         /* get */
    };
    size_t n;
    int64_t key; /* put */
};

static inline long move(struct modus_queue *queue, const struct direction *direction,
                        struct range range)
{
    if (queue->kind == MODUS_QUEUE_RING_THREAD)
        return direction->put ? modus_ring_thread_put(queue, range.from, range.n)
                              : modus_ring_thread_get(queue, range.to, range.n);
    if (queue->kind == MODUS_QUEUE_RING_PROCESS)
        return direction->put ? modus_ring_process_put(queue, range.from, range.n)
                              : modus_ring_process_get(queue, range.to, range.n);
    return direction->put ? modus_stock_put(queue, range.from, range.n, range.key)
                          : modus_stock_get(queue, range.to, range.n);
}

/* Could the direction's next operation succeed? */
static bool possible(const struct modus_queue *queue, const struct direction *direction)
{
    if (queue->kind == MODUS_QUEUE_STOCK)
        return direction->put ? modus_stock_has_room(queue) : modus_stock_has_item(queue);
    return direction->put ? modus_ring_has_room(queue) : modus_ring_has_item(queue);
}

static struct modus_ring_side *side_of(struct modus_queue *queue, const struct direction *direction)
{
    return direction->put ? &queue->ring->producers : &queue->ring->consumers;
}

/* There is something for the side's sleepers and loops. */
static void nudge(struct modus_queue *queue, struct modus_ring_side *side)
{
    modus_gate_nudge(&side->gate, queue->scope);
    modus_armed_ring(&side->armed);
}

static void drop_all(struct modus_queue *queue);

/* An item was got while others sleep. If the queue is closed it may have been the last, put too late
 * for the close to wake them when it was in: then this get is what they wait for. */
static __attribute__((noinline)) void tell_closed(struct modus_queue *queue)
{
    if (!(atomic_load(&queue->ring->tail) & RING_CLOSED))
        return;
    modus_gate_open(&queue->ring->consumers.gate, queue->scope);
    modus_armed_ring(&queue->ring->consumers.armed);
}

/* After items were moved. */
static inline void moved(struct modus_queue *queue, const struct direction *direction)
{
    struct modus_ring *ring = queue->ring;

    if (direction->put) {
        nudge(queue, &ring->consumers);
        if (__builtin_expect(atomic_load(&ring->consumers.dropping), 0))
            drop_all(queue);
    } else {
        nudge(queue, &ring->producers);
        if (__builtin_expect(atomic_load(&ring->consumers.gate.state) & MODUS_GATE_SLEEPERS, 0))
            tell_closed(queue);
    }
}

/* A visitor leaves its gate. If it was the one on its way, it may have kept others from being
 * woken: wake the next if there is work for it. */
static void settle(struct modus_queue *queue, const struct direction *direction,
                   struct modus_gate_visit *visit)
{
    struct modus_gate *gate = &side_of(queue, direction)->gate;

    modus_gate_exit(gate, queue->scope, visit);
    if (possible(queue, direction))
        modus_gate_nudge(gate, queue->scope);
}

/* Look again, after ever longer pauses, for about as long as a sleep and a wake-up would cost. While
 * the other side works on another CPU, what we wait for comes sooner than that; and the first pause
 * is not short, so that there is more than one of it then, and the two don't fight for every slot.
 * Where that has been in vain for long (the other side has no CPU, or nothing to do) it is only
 * tried now and then. Not in a coroutine, whose thread has others to run. */
static long linger(struct modus_queue *queue, const struct direction *direction, struct range range)
{
    _Atomic uint32_t *hint = &side_of(queue, direction)->vain;
    uint32_t vain = atomic_load_explicit(hint, memory_order_relaxed), left = queue->spin;
    long rc = direction->nothing;

    if (modus_park_instead || (vain >= VAIN_MAX && !modus_now_and_then(vain)))
        left = 0;
    for (uint32_t n = SPIN_FIRST; left > 0 && rc == direction->nothing; n *= 2) {
        n = n < left ? n : left;
        left -= n;
        modus_pause(n);
        rc = move(queue, direction, range);
    }
    atomic_store_explicit(hint, rc == direction->nothing ? vain + 1 : 0, memory_order_relaxed);
    return rc;
}

/* Enter the gate and, if it is still in vain, sleep once. Returns what move returns, MODUS_CANCELED
 * or -ETIMEDOUT. */
static long visit_once(struct modus_queue *queue, const struct direction *direction,
                       struct range range, struct modus_gate_visit *visit, uint32_t interrupts,
                       int64_t deadline)
{
    struct modus_ring *ring = queue->ring;
    struct modus_gate *gate = &side_of(queue, direction)->gate;

    modus_gate_enter(gate, queue->scope, visit);
    long rc = move(queue, direction, range);
    if (rc != direction->nothing)
        return rc;
    if (atomic_load(&ring->interrupts) != interrupts)
        return MODUS_CANCELED;
    /* The other side's one that is on its way may be stopped (SIGSTOP): do not rely on it. But call
     * only if there is work for the other side: if both wait for a slot that a third one keeps, they
     * would wake each other in turns. */
    if (queue->scope == MODUS_PROCESS &&
        (direction->put ? modus_ring_has_item(queue) : modus_ring_has_room(queue)))
        modus_gate_call(direction->put ? &ring->consumers.gate : &ring->producers.gate,
                        queue->scope, true);
    int slept = modus_gate_sleep(gate, queue->scope, visit, deadline);
    rc = move(queue, direction, range);
    return rc == direction->nothing && slept < 0 ? slept : rc;
}

/* Move at least one item, asleep until deadline if need be. */
static long wait_and_move(struct modus_queue *queue, const struct direction *direction,
                          struct range range, int64_t deadline)
{
    uint32_t interrupts = atomic_load(&queue->ring->interrupts);
    struct modus_gate_visit visit = {0};
    long rc = linger(queue, direction, range);

    if (rc != direction->nothing)
        return rc;
    while (rc == direction->nothing)
        rc = visit_once(queue, direction, range, &visit, interrupts, deadline);
    settle(queue, direction, &visit);
    return rc;
}

static long operate_until(struct modus_queue *queue, const struct direction *direction,
                          struct range range, int64_t deadline)
{
    if (queue->scope == 0 || deadline < MODUS_FOREVER)
        return -EINVAL;
    long rc = move(queue, direction, range);
    if (rc == direction->nothing)
        rc = wait_and_move(queue, direction, range, deadline);
    if (rc > 0)
        moved(queue, direction);
    return rc;
}

/* The first try was in vain. */
static __attribute__((noinline)) long operate_on(struct modus_queue *queue,
                                                 const struct direction *direction,
                                                 struct range range, int64_t ns)
{
    return operate_until(queue, direction, range, modus_deadline(ns));
}

static inline long operate(struct modus_queue *queue, const struct direction *direction,
                           struct range range, int64_t ns)
{
    if (__builtin_expect(queue->scope == 0 || ns < MODUS_FOREVER, 0))
        return -EINVAL;
    long rc = move(queue, direction, range);
    if (__builtin_expect(rc > 0, 1))
        moved(queue, direction);
    else if (rc == direction->nothing && ns != 0)
        return operate_on(queue, direction, range, ns);
    return rc;
}

/* A count of items to 0, a code to itself. */
static int one(long rc)
{
    return rc > 0 ? 0 : (int)rc;
}

int modus_queue_put(struct modus_queue *queue, const void *item, int64_t ns)
{
    return one(operate(queue, &putting, (struct range){.from = item, .n = 1}, ns));
}

int modus_queue_get(struct modus_queue *queue, void *item, int64_t ns)
{
    return one(operate(queue, &getting, (struct range){.to = item, .n = 1}, ns));
}

int modus_queue_put_until(struct modus_queue *queue, const void *item, int64_t deadline)
{
    return one(operate_until(queue, &putting, (struct range){.from = item, .n = 1}, deadline));
}

int modus_queue_get_until(struct modus_queue *queue, void *item, int64_t deadline)
{
    return one(operate_until(queue, &getting, (struct range){.to = item, .n = 1}, deadline));
}

int modus_queue_put_key(struct modus_queue *queue, const void *item, int64_t key, int64_t ns)
{
    struct range range = {.from = item, .n = 1, .key = key};

    return queue->order == MODUS_QUEUE_PRIORITY ? one(operate(queue, &putting, range, ns))
                                                : -EINVAL;
}

int modus_queue_put_key_until(struct modus_queue *queue, const void *item, int64_t key,
                              int64_t deadline)
{
    struct range range = {.from = item, .n = 1, .key = key};

    return queue->order == MODUS_QUEUE_PRIORITY
               ? one(operate_until(queue, &putting, range, deadline))
               : -EINVAL;
}

int modus_queue_try_put(struct modus_queue *queue, const void *item)
{
    return modus_queue_put(queue, item, 0);
}

int modus_queue_try_get(struct modus_queue *queue, void *item)
{
    return modus_queue_get(queue, item, 0);
}

/* Put the range after a first try that returned rc. */
static long put_rest(struct modus_queue *queue, struct range range, long rc, int64_t deadline)
{
    size_t n = range.n;

    for (;;) {
        if (rc > 0) {
            range.n -= (size_t)rc;
            range.from += (size_t)rc * queue->item_size;
        }
        if (range.n == 0 || (rc < 0 && rc != MODUS_FULL))
            break;
        rc = operate_until(queue, &putting, range, deadline);
    }
    return range.n < n ? (long)(n - range.n) : rc;
}

long modus_queue_put_n(struct modus_queue *queue, const void *items, size_t n, int64_t ns)
{
    struct range range = {.from = items, .n = n};

    if (n == 0 || n > LONG_MAX || ns < MODUS_FOREVER)
        return -EINVAL;
    long rc = operate(queue, &putting, range, 0);
    return rc == (long)n || ns == 0 ? rc : put_rest(queue, range, rc, modus_deadline(ns));
}

long modus_queue_put_n_until(struct modus_queue *queue, const void *items, size_t n,
                             int64_t deadline)
{
    if (n == 0 || n > LONG_MAX)
        return -EINVAL;
    return put_rest(queue, (struct range){.from = items, .n = n}, MODUS_FULL, deadline);
}

long modus_queue_get_n(struct modus_queue *queue, void *items, size_t n, int64_t ns)
{
    if (n == 0 || n > LONG_MAX)
        return -EINVAL;
    return operate(queue, &getting, (struct range){.to = items, .n = n}, ns);
}

long modus_queue_get_n_until(struct modus_queue *queue, void *items, size_t n, int64_t deadline)
{
    if (n == 0 || n > LONG_MAX)
        return -EINVAL;
    return operate_until(queue, &getting, (struct range){.to = items, .n = n}, deadline);
}

/* --- closing --------------------------------------------------------------------------------- */

static void wake_joiners(struct modus_queue *queue)
{
    struct modus_ring *ring = queue->ring;

    if (atomic_load(&ring->joiners) == 0)
        return;
    atomic_store(&ring->joiners, 0);
    atomic_fetch_add(&ring->joins, 1);
    modus_unpark(queue->scope, &ring->joins, INT_MAX);
}

static void wake_all(struct modus_queue *queue)
{
    modus_gate_open(&queue->ring->consumers.gate, queue->scope);
    modus_gate_open(&queue->ring->producers.gate, queue->scope);
    modus_armed_ring(&queue->ring->consumers.armed);
    modus_armed_ring(&queue->ring->producers.armed);
}

/* Thread scope: n items more are done. Returns false if there are not so many. */
static bool count_done(struct modus_queue *queue, uint32_t n)
{
    uint32_t unfinished = atomic_load(&queue->ring->unfinished);

    do
        if (unfinished < n)
            return false;
    while (!atomic_compare_exchange_weak(&queue->ring->unfinished, &unfinished, unfinished - n));
    if (unfinished == n)
        wake_joiners(queue);
    return true;
}

/* Thread scope, closed now: drop what is inside. Called by who closes, and by a put that was under
 * way then. */
static void drop_all(struct modus_queue *queue)
{
    unsigned n =
        queue->kind == MODUS_QUEUE_STOCK ? modus_stock_drop(queue) : modus_ring_thread_drop(queue);

    if (queue->joinable && n > 0)
        count_done(queue, n);
}

static void close_now(struct modus_queue *queue)
{
    atomic_fetch_or(&queue->ring->head, RING_DROP);
    if (queue->scope == MODUS_PROCESS) {
        wake_joiners(queue);
        return;
    }
    atomic_store(&queue->ring->consumers.dropping, 1);
    drop_all(queue);
}

int modus_queue_close(struct modus_queue *queue, enum modus_close how)
{
    if (queue->scope == 0 || (how != MODUS_CLOSE_DRAIN && how != MODUS_CLOSE_NOW))
        return -EINVAL;
    atomic_fetch_or(&queue->ring->tail, RING_CLOSED);
    MODUS_FAULT(MODUS_FAULT_CLOSE_MARKED);
    if (how == MODUS_CLOSE_NOW)
        close_now(queue);
    wake_all(queue);
    return 0;
}

int modus_queue_interrupt(struct modus_queue *queue)
{
    if (queue->scope == 0)
        return -EINVAL;
    atomic_fetch_add(&queue->ring->interrupts, 1);
    atomic_fetch_add(&queue->ring->joins, 1);
    modus_unpark(queue->scope, &queue->ring->joins, INT_MAX);
    wake_all(queue);
    return 0;
}

/* --- joining --------------------------------------------------------------------------------- */

/* Process scope: see ring.h. */
static bool idle(struct modus_queue *queue)
{
    return queue->kind == MODUS_QUEUE_STOCK ? modus_stock_idle(queue)
                                            : modus_ring_process_idle(queue);
}

int modus_queue_task_done(struct modus_queue *queue)
{
    if (queue->scope == 0 || !queue->joinable)
        return -EINVAL;
    if (queue->scope == MODUS_THREAD)
        return count_done(queue, 1) ? 0 : -EOVERFLOW;
    int rc =
        queue->kind == MODUS_QUEUE_STOCK ? modus_stock_done(queue) : modus_ring_process_done(queue);
    MODUS_FAULT(MODUS_FAULT_DONE_NOTED);
    if (rc == 0 && queue->redeliver)
        nudge(queue, &queue->ring->producers);
    if (rc == 0 && atomic_load(&queue->ring->joiners) && idle(queue))
        wake_joiners(queue);
    return rc;
}

static bool all_done(struct modus_queue *queue)
{
    if (queue->scope == MODUS_THREAD)
        return atomic_load(&queue->ring->unfinished) == 0;
    return queue->kind == MODUS_QUEUE_STOCK ? modus_stock_all_done(queue)
                                            : modus_ring_process_all_done(queue);
}

int modus_queue_join_until(struct modus_queue *queue, int64_t deadline)
{
    struct modus_ring *ring = queue->ring;
    struct modus_watch watch = {0};
    int parked = 0;

    if (queue->scope == 0 || !queue->joinable || deadline < MODUS_FOREVER)
        return -EINVAL;
    uint32_t interrupts = atomic_load(&ring->interrupts);
    for (;;) {
        uint32_t joins = atomic_load(&ring->joins);

        if (queue->scope == MODUS_PROCESS)
            modus_watch_look(&watch, ring);
        atomic_store(&ring->joiners, 1);
        if (all_done(queue))
            return 0;
        if (atomic_load(&ring->interrupts) != interrupts)
            return MODUS_CANCELED;
        if (parked < 0)
            return parked;
        parked = modus_park(queue->scope, &ring->joins, joins, deadline, &watch);
    }
}

int modus_queue_join(struct modus_queue *queue, int64_t ns)
{
    if (queue->scope == 0 || !queue->joinable || ns < MODUS_FOREVER)
        return -EINVAL;
    if (all_done(queue))
        return 0;
    return ns == 0 ? -EAGAIN : modus_queue_join_until(queue, modus_deadline(ns));
}

/* --- looking --------------------------------------------------------------------------------- */

size_t modus_queue_len(const struct modus_queue *queue)
{
    if (queue->scope == 0)
        return 0;
    return queue->kind == MODUS_QUEUE_STOCK ? modus_stock_len(queue) : modus_ring_len(queue);
}

bool modus_queue_is_closed(const struct modus_queue *queue)
{
    return queue->scope != 0 && (atomic_load(&queue->ring->tail) & RING_CLOSED);
}

int modus_queue_arm_get(struct modus_queue *queue, struct modus_doorbell *bell)
{
    if (queue->scope == 0)
        return -EINVAL;
    return modus_armed_add(&queue->ring->consumers.armed, bell, queue->scope);
}

int modus_queue_arm_put(struct modus_queue *queue, struct modus_doorbell *bell)
{
    if (queue->scope == 0)
        return -EINVAL;
    return modus_armed_add(&queue->ring->producers.armed, bell, queue->scope);
}

void modus_queue_disarm_get(struct modus_queue *queue, struct modus_doorbell *bell)
{
    if (queue->scope != 0)
        modus_armed_remove(&queue->ring->consumers.armed, bell, queue->scope);
}

void modus_queue_disarm_put(struct modus_queue *queue, struct modus_doorbell *bell)
{
    if (queue->scope != 0)
        modus_armed_remove(&queue->ring->producers.armed, bell, queue->scope);
}
