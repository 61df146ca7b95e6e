/* SPDX-License-Identifier: MIT */
/*
 * Pools of processes: the pool's verbs, and how one is made.
 *
 * Whoever submits fills in a record and puts its number into the queue of tasks under the
 * collector's name (participant.h): all threads of the program die together, and it spares each of
 * them a place in the arena.
 */
#include "concurrency/fault.h"
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/participant_priv.h"
#include "concurrency/pool_program_priv.h"
#include "concurrency/process_priv.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEATS_PER_WORKER = 3 };

/* Address space for maps. It costs nothing until it is used. */
#define MAP_BYTES ((size_t)4 << 30)

static struct modus_process_pool *pool_of(struct modus_pool *pool)
{
    return modus_process_pool_of(pool);
}

static struct modus_record *record_at(struct modus_process_pool *p, uint32_t number)
{
    return modus_record_at(p->shared, number);
}

/* --- records --------------------------------------------------------------------------------- */

void modus_record_give(struct modus_process_pool *p, uint32_t number)
{
    modus_lock_acquire(&p->lock, MODUS_FOREVER);
    p->free_numbers[p->free_top++] = number;
    modus_lock_release(&p->lock);
    modus_sem_release(&p->free_count, 1);
}

/* Returns 0 and a record's number, or what submit returns. */
static int pop_free(struct modus_process_pool *p, int64_t ns, uint32_t *number)
{
    /* The collector can't wait for what only it gives back. */
    int rc = modus_sem_acquire(&p->free_count, modus_collecting == p ? 0 : ns);

    if (rc < 0)
        return rc == -EAGAIN ? MODUS_FULL : rc;
    modus_lock_acquire(&p->lock, MODUS_FOREVER);
    bool any = p->free_top > 0;
    if (any)
        *number = p->free_numbers[--p->free_top];
    modus_lock_release(&p->lock);
    return any ? 0 : MODUS_CLOSED; /* the count is flooded */
}

void modus_record_free(struct modus_process_pool *p, uint32_t number)
{
    struct modus_record *record = record_at(p, number);
    uint32_t turn = modus_record_turn(atomic_load(&record->state)) + 1;

    atomic_store(&record->state, modus_record_state(turn, 0, FREE));
    modus_record_give(p, number);
}

/* A record that is cancelled may be passed over, collected and freed at once. Under the lock it is not
 * yet given to another task, so that the future is that of the turn or nobody's. */
bool modus_record_cancel(struct modus_process_pool *p, uint32_t number, uint32_t turn,
                         struct modus_future **future)
{
    modus_lock_acquire(&p->lock, MODUS_FOREVER);
    bool moved = modus_record_move(record_at(p, number), modus_record_state(turn, 0, QUEUED),
                                   modus_record_state(turn, 0, CANCELLED));
    MODUS_FAULT(MODUS_FAULT_TASK_WITHDRAWN);
    if (moved)
        *future = atomic_exchange(&p->futures[number], NULL);
    modus_lock_release(&p->lock);
    return moved;
}

/* --- the end of a pool ------------------------------------------------------------------------ */

void modus_nursery_command(struct modus_process_pool *p, uint32_t what)
{
    uint32_t now = atomic_load(&p->shared->command);

    while (now < what && !atomic_compare_exchange_weak(&p->shared->command, &now, what))
        ;
    modus_doorbell_ring(&p->shared->bell);
}

/* Closed, and every future has ended: let the workers go. */
static void finish(struct modus_process_pool *p)
{
    modus_queue_close(&p->shared->tasks, MODUS_CLOSE_DRAIN);
    modus_nursery_command(p, MODUS_NURSERY_ENDS);
}

/* A future has ended, or a submit given up. */
void modus_process_pool_leave(struct modus_process_pool *p)
{
    if (atomic_fetch_sub(&p->outstanding, 1) != 1 ||
        atomic_load(&p->pool.state) == MODUS_POOL_RUNNING)
        return;
    modus_unpark(MODUS_THREAD, &p->outstanding, 1);
    finish(p);
}

/* --- submitting ------------------------------------------------------------------------------- */

int modus_task_put(struct modus_process_pool *p, uint32_t number, uint32_t turn, unsigned priority,
                   int64_t ns)
{
    struct modus_news task = {.number = number, .turn = turn};
    int id = (int)atomic_load(&p->id);

    if (modus_participant_self(p->shared->arena) != id)
        modus_participant_act_as(p->shared->arena, id);
    if (p->pool.attr.priorities)
        return modus_queue_put_key(&p->shared->tasks, &task, modus_pool_key(priority), ns);
    return modus_queue_put(&p->shared->tasks, &task, ns);
}

static void fill_in(struct modus_record *record, const struct modus_task *task)
{
    record->run = task->run;
    record->size = (uint32_t)task->size;
    record->again = task->idempotent;
    record->priority = task->priority;
    atomic_store_explicit(&record->owner, task->owner, memory_order_relaxed);
    record->code = 0;
    record->answered = 0;
    if (task->size > 0)
        memcpy(record->bytes, task->input, task->size);
}

static int queue_task(struct modus_process_pool *p, struct modus_future *future,
                      const struct modus_task *task, int64_t ns)
{
    uint32_t number;
    int rc = pop_free(p, ns, &number);

    if (rc < 0)
        return rc;
    if (modus_pool_refusal(&p->pool) < 0) {
        modus_record_give(p, number);
        return MODUS_CLOSED;
    }
    struct modus_record *record = record_at(p, number);
    uint32_t turn = modus_record_turn(atomic_load(&record->state));
    fill_in(record, task);
    future->place = number;
    future->turn = turn;
    atomic_store(&p->futures[number], future);
    atomic_store(&record->state, modus_record_state(turn, 0, QUEUED));
    rc = modus_task_put(p, number, turn, task->priority, ns);
    if (rc == 0) {
        modus_pool_queued(&p->pool, modus_queue_len(&p->shared->tasks));
        return 0;
    }
    /* Unless it has been cancelled by its owner, or the sweep has it. */
    bool ours = modus_record_cancel(p, number, turn, &future);
    if (ours && !future)
        return 0;
    modus_record_free(p, number);
    return ours ? rc : 0;
}

static int submit(struct modus_pool *pool, struct modus_future **future,
                  const struct modus_task *task, int64_t ns)
{
    struct modus_process_pool *p = pool_of(pool);
    struct modus_future *made = modus_future_make(pool->attr.output_max, future ? 2 : 1);

    if (!made)
        return -ENOMEM;
    made->ops = &modus_process_future_ops;
    made->owner = p;
    atomic_store_explicit(&made->runner, p->shared->arena, memory_order_relaxed);
    made->room = pool->attr.output_max;
    atomic_fetch_add(&p->outstanding, 1);
    int rc = modus_pool_refusal(pool);
    if (rc == 0)
        rc = queue_task(p, made, task, ns);
    if (rc < 0) {
        int refusal = modus_pool_refusal(pool);

        modus_process_pool_leave(p);
        atomic_store(&made->references, 1);
        modus_future_put(made);
        return refusal < 0 ? refusal : rc;
    }
    if (future)
        *future = made;
    return 0;
}

/* --- the pool's other verbs -------------------------------------------------------------------- */

static void close_pool(struct modus_pool *pool)
{
    struct modus_process_pool *p = pool_of(pool);

    modus_sem_release(&p->free_count, MODUS_FLOOD); /* who waits for room need not wait any more */
    if (atomic_load(&p->outstanding) == 0)
        finish(p);
}

static void terminate(struct modus_pool *pool)
{
    struct modus_process_pool *p = pool_of(pool);

    atomic_store(&p->shared->stop, 1);
    modus_sem_release(&p->free_count, MODUS_FLOOD);
    modus_nursery_command(p, MODUS_NURSERY_TERMINATES);
    modus_queue_close(&p->shared->tasks, MODUS_CLOSE_NOW);
    modus_queue_interrupt(&p->shared->results); /* the collector sweeps */
}

/* A record's owner is that of its turn if it can be cancelled in that turn. */
static long cancel(struct modus_pool *pool, const void *owner)
{
    struct modus_process_pool *p = pool_of(pool);
    long cancelled = 0;

    for (uint32_t i = 0; i < p->shared->record_count; i++) {
        uint64_t state = atomic_load(&record_at(p, i)->state);
        struct modus_future *future;

        if (modus_record_kind(state) != QUEUED ||
            (owner && atomic_load(&record_at(p, i)->owner) != owner) ||
            !modus_record_cancel(p, i, modus_record_turn(state), &future))
            continue;
        cancelled++;
        if (future)
            modus_future_end_cancelled(p, future);
    }
    return cancelled;
}

static bool inside(struct modus_pool *pool)
{
    return modus_collecting == pool_of(pool);
}

static void reap(struct modus_pool *pool)
{
    modus_thread_join(pool_of(pool)->watcher, MODUS_FOREVER, NULL);
}

static void stats(struct modus_pool *pool, struct modus_pool_stats *out)
{
    struct modus_process_pool *p = pool_of(pool);

    out->done = atomic_load(&p->done);
    for (uint32_t i = 0; i < p->shared->seat_count; i++) {
        struct modus_seat *seat = &p->shared->seats[i];

        out->workers += atomic_load(&seat->pid) != 0;
        out->running += atomic_load(&seat->busy);
        out->done += atomic_load(&seat->done);
    }
    out->queued = (unsigned)modus_queue_len(&p->shared->tasks);
    out->deaths = atomic_load(&p->shared->deaths);
    out->replaced = atomic_load(&p->shared->replaced);
}

static unsigned workers(struct modus_pool *pool, int *ids, unsigned room)
{
    struct modus_process_pool *p = pool_of(pool);
    unsigned n = 0;

    for (uint32_t i = 0; i < p->shared->seat_count; i++) {
        int pid = atomic_load(&p->shared->seats[i].pid);

        if (pid && n++ < room)
            ids[n - 1] = pid;
    }
    return n;
}

static void *alloc(struct modus_pool *pool, size_t size)
{
    return modus_arena_alloc(pool_of(pool)->shared->arena, size, 0);
}

static void release(struct modus_pool *pool, void *memory, size_t size)
{
    modus_arena_free(pool_of(pool)->shared->arena, memory, size);
}

/* Of any part of a pool; nothing runs any more. */
static void destroy(struct modus_pool *pool)
{
    struct modus_process_pool *p = pool_of(pool);
    struct modus_arena *arena = p->shared ? p->shared->arena : NULL;

    modus_thread_put(p->collector);
    modus_thread_put(p->watcher);
    modus_process_put(p->nursery);
    if (p->shared) {
        modus_participant_act_as(arena, 0); /* to close is to leave, which is not ours to do */
        modus_queue_fini(&p->shared->tasks);
        modus_queue_fini(&p->shared->results);
        modus_doorbell_fini(&p->shared->bell);
    }
    modus_arena_close(arena);
    modus_sem_fini(&p->free_count);
    modus_lock_fini(&p->lock);
    free(p->free_numbers);
    free(p);
}

static const struct modus_pool_ops ops = {submit, close_pool, terminate, cancel,  inside, reap,
                                          stats,  workers,    alloc,     release, destroy};

/* --- making ---------------------------------------------------------------------------------- */

static size_t rounded(size_t n)
{
    return (n + 63) / 64 * 64;
}

static uint32_t power_of_two(uint32_t n)
{
    uint32_t power = 1;

    while (power < n)
        power *= 2;
    return power;
}

/* What is known before there is memory for it. */
static struct modus_pool_shared planned(const struct modus_pool *pool)
{
    struct modus_pool_shared plan = {
        .record_count = pool->attr.capacity + pool->attr.n,
        .seat_count = SEATS_PER_WORKER * pool->attr.n + 1,
        .input_room = (uint32_t)rounded(pool->attr.input_max),
        .output_room = (uint32_t)rounded(pool->attr.output_max),
        .attr = pool->attr,
    };

    plan.stride = sizeof(struct modus_record) + plan.input_room + plan.output_room;
    snprintf(plan.name, sizeof plan.name, "%s", pool->name);
    return plan;
}

static int init_queue(struct modus_queue *queue, const struct modus_pool_shared *shared,
                      uint32_t capacity, bool tasks)
{
    return modus_queue_init(
        queue,
        &(struct modus_queue_attr){
            .scope = MODUS_PROCESS,
            .order = tasks && shared->attr.priorities ? MODUS_QUEUE_PRIORITY : MODUS_QUEUE_FIFO,
            .arena = shared->arena,
            .capacity = capacity,
            .item_size = sizeof(struct modus_news),
            .spin = tasks ? MODUS_POOL_LOOKS : 0,
            .joinable = tasks,
            .on_death = tasks ? MODUS_QUEUE_REDELIVER : MODUS_QUEUE_LOST,
        });
}

static int make_shared(struct modus_process_pool *p)
{
    struct modus_pool_shared plan = planned(&p->pool), *shared;
    struct modus_arena *arena;
    uint32_t capacity = power_of_two(2 * (plan.record_count + plan.seat_count));
    size_t bytes = plan.record_count * plan.stride + (size_t)capacity * 256 + MAP_BYTES;
    int rc = modus_arena_open(&arena, bytes, plan.seat_count + 3);

    if (rc < 0)
        return rc;
    shared = modus_arena_alloc(arena, sizeof *shared, 128);
    if (!shared) {
        modus_arena_close(arena);
        return -ENOMEM;
    }
    *shared = plan;
    shared->arena = arena;
    p->shared = shared;
    shared->records = modus_arena_alloc(arena, shared->record_count * shared->stride, 64);
    shared->seats = modus_arena_alloc(arena, shared->seat_count * sizeof *shared->seats, 128);
    if (!shared->records || !shared->seats)
        return -ENOMEM;
    rc = init_queue(&shared->tasks, shared, capacity, true);
    if (rc == 0)
        rc = init_queue(&shared->results, shared, capacity, false);
    return rc == 0 ? modus_doorbell_init(&shared->bell) : rc;
}

static int make_own(struct modus_process_pool *p)
{
    uint32_t n = p->shared->record_count;

    modus_lock_init(&p->lock, MODUS_THREAD);
    p->free_numbers = malloc(n * sizeof *p->free_numbers);
    if (!p->free_numbers)
        return -ENOMEM;
    for (p->free_top = 0; p->free_top < n; p->free_top++)
        p->free_numbers[p->free_top] = n - 1 - p->free_top;
    return modus_sem_init(&p->free_count,
                          &(struct modus_sem_attr){.scope = MODUS_THREAD, .value = n});
}

static int start_nursery(struct modus_process_pool *p)
{
    char name[MODUS_POOL_NAME + 12];

    snprintf(name, sizeof name, "%s-nursery", p->pool.name);
    int rc = modus_process_new(&p->nursery,
                               &(struct modus_process_attr){
                                   .name = name,
                                   .daemon = MODUS_DAEMON_YES,
                                   .orphan = MODUS_ORPHAN_KILLED,
                               },
                               modus_pool_nursery, p->shared);
    if (rc < 0)
        return rc;
    p->nursery->attended = true; /* by the watcher */
    return modus_process_start(p->nursery);
}

static int start_thread(struct modus_process_pool *p, struct modus_thread **thread,
                        const char *what, void *(*run)(void *argument))
{
    char name[MODUS_POOL_NAME + 12];

    snprintf(name, sizeof name, "%s-%s", p->pool.name, what);
    int rc = modus_thread_new(
        thread,
        &(struct modus_thread_attr){.name = name, .daemon = MODUS_DAEMON_YES, .no_signals = true},
        run, p);
    return rc < 0 ? rc : modus_thread_start(*thread);
}

/* Until all workers are ready, or it is clear that they won't be. */
static int await_workers(struct modus_process_pool *p)
{
    struct modus_pool_shared *shared = p->shared;
    struct modus_watch watch;

    for (;;) {
        modus_watch_look(&watch, shared);
        uint32_t change = atomic_load(&shared->change);
        int failed = atomic_load(&shared->failed);
        if (failed < 0)
            return failed;
        if (atomic_load(&shared->ready) >= shared->attr.n)
            return 0;
        modus_park_deaf(MODUS_PROCESS, &shared->change, change, MODUS_FOREVER, &watch);
    }
}

static int start(struct modus_process_pool *p)
{
    int rc = start_nursery(p);

    if (rc < 0)
        return rc;
    rc = start_thread(p, &p->collector, "collector", modus_pool_collect);
    if (rc == 0) {
        while (atomic_load(&p->id) == 0)
            modus_park_deaf(MODUS_THREAD, &p->id, 0, MODUS_FOREVER, NULL);
        rc = (int)atomic_load(&p->id) < 0
                 ? (int)atomic_load(&p->id)
                 : start_thread(p, &p->watcher, "watcher", modus_pool_watch);
    }
    if (rc == 0)
        return await_workers(p);
    /* There is no watcher to do it. */
    modus_process_kill(p->nursery);
    modus_process_join(p->nursery, MODUS_FOREVER, NULL);
    modus_queue_close(&p->shared->results, MODUS_CLOSE_NOW);
    if (p->collector)
        modus_thread_join(p->collector, MODUS_FOREVER, NULL);
    atomic_store(&p->pool.gone, 1);
    return rc;
}

int modus_pool_process_new(struct modus_pool **pool, const struct modus_pool_attr *attr)
{
    size_t records = (size_t)attr->capacity + attr->n;
    struct modus_process_pool *p = calloc(1, sizeof *p + records * sizeof p->futures[0]);

    if (!p)
        return -ENOMEM;
    modus_pool_init(&p->pool, &ops, attr);
    int rc = make_shared(p);
    if (rc == 0)
        rc = make_own(p);
    if (rc == 0)
        rc = start(p);
    if (rc == 0) {
        *pool = &p->pool;
        return 0;
    }
    if (p->watcher && modus_thread_alive(p->watcher)) {
        modus_pool_terminate(&p->pool);
        modus_pool_join(&p->pool, MODUS_FOREVER);
    }
    destroy(&p->pool);
    return rc;
}
