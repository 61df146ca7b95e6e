/* SPDX-License-Identifier: MIT */
/*
 * Pools of processes, the program's side: records, futures, and two threads.
 *
 * The collector reads the queue of results and ends futures. It also settles what a dead worker
 * had, once the nursery has buried it. The watcher waits for the nursery's end, and is the last to
 * go. Whoever submits puts into the queue of tasks under the collector's name (participant.h): all
 * threads of the program die together, and it spares each of them a place in the arena.
 *
 * The future of a record is in a table of this process; whoever exchanges it for NULL ends it: the
 * collector, who cancels, or the sweep of a pool that is terminated or broken. outstanding counts
 * those that have not ended. At 0 in a closed pool the queue of tasks is closed, and not before: so
 * a task whose worker dies late can still be given to another.
 */
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/participant_priv.h"
#include "concurrency/pool_process_priv.h"
#include "concurrency/process.h"
#include "concurrency/self.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, FLOOD = 1 << 20, SEATS_PER_WORKER = 3 };

/* Address space for maps. It costs nothing until it is used. */
#define MAP_BYTES ((size_t)4 << 30)

struct process_pool {
    struct modus_pool pool; /* first member */
    struct modus_pool_shared *shared;
    struct modus_process *nursery;
    struct modus_thread *collector, *watcher;
    _Atomic uint32_t id;          /* the collector's in the arena; below 0: it has none */
    _Atomic uint32_t outstanding; /* futures that have not ended */
    _Atomic uint32_t orphaned;    /* the nursery is gone */
    _Atomic uint64_t done;        /* by workers that are gone */
    struct modus_sem free_count;  /* records that are free; in excess once it is closed */
    struct modus_lock lock;       /* guards the next two */
    uint32_t free_top;
    uint32_t *free_numbers;
    _Atomic(struct modus_future *) futures[]; /* by record */
};

static _Thread_local struct process_pool *collecting; /* the pool whose collector this thread is */

static struct process_pool *pool_of(struct modus_pool *pool)
{
    return (struct process_pool *)(void *)pool;
}

static struct modus_record *record_at(struct process_pool *p, uint32_t number)
{
    return modus_record_at(p->shared, number);
}

/* --- records --------------------------------------------------------------------------------- */

static void push_free(struct process_pool *p, uint32_t number)
{
    modus_lock_acquire(&p->lock, MODUS_FOREVER);
    p->free_numbers[p->free_top++] = number;
    modus_lock_release(&p->lock);
    modus_sem_release(&p->free_count, 1);
}

/* Returns 0 and a record's number, or what submit returns. */
static int pop_free(struct process_pool *p, int64_t ns, uint32_t *number)
{
    /* The collector can't wait for what only it gives back. */
    int rc = modus_sem_acquire(&p->free_count, collecting == p ? 0 : ns);

    if (rc < 0)
        return rc == -EAGAIN ? MODUS_FULL : rc;
    modus_lock_acquire(&p->lock, MODUS_FOREVER);
    bool any = p->free_top > 0;
    if (any)
        *number = p->free_numbers[--p->free_top];
    modus_lock_release(&p->lock);
    return any ? 0 : MODUS_CLOSED; /* the count is flooded */
}

static void free_record(struct process_pool *p, uint32_t number)
{
    struct modus_record *record = record_at(p, number);
    uint32_t turn = modus_record_turn(atomic_load(&record->state)) + 1;

    atomic_store(&record->state, modus_record_state(turn, 0, FREE));
    push_free(p, number);
}

/* --- the end of a pool ------------------------------------------------------------------------ */

static void command(struct process_pool *p, uint32_t what)
{
    uint32_t now = atomic_load(&p->shared->command);

    while (now < what && !atomic_compare_exchange_weak(&p->shared->command, &now, what))
        ;
    modus_doorbell_ring(&p->shared->bell);
}

/* Closed, and every future has ended: let the workers go. */
static void finish(struct process_pool *p)
{
    modus_queue_close(&p->shared->tasks, MODUS_CLOSE_DRAIN);
    command(p, MODUS_NURSERY_ENDS);
}

/* A future has ended, or a submit given up. */
static void leave(struct process_pool *p)
{
    if (atomic_fetch_sub(&p->outstanding, 1) != 1 ||
        atomic_load(&p->pool.state) == MODUS_POOL_RUNNING)
        return;
    modus_unpark(MODUS_THREAD, &p->outstanding, 1);
    finish(p);
}

/* --- futures --------------------------------------------------------------------------------- */

static int enter(struct modus_future *future)
{
    return collecting && future->owner == collecting ? -EDEADLK : 0;
}

static void nothing(struct modus_future *future)
{
    (void)future;
}

static bool pending(const struct modus_future *future)
{
    struct process_pool *p = future->owner;

    return atomic_load(&record_at(p, future->place)->state) ==
           modus_record_state(future->turn, 0, QUEUED);
}

/* The caller holds a reference of its own. */
static enum modus_withdrawal withdraw(struct modus_future *future)
{
    struct process_pool *p = future->owner;
    struct modus_record *record = record_at(p, future->place);

    if (!modus_record_move(record, modus_record_state(future->turn, 0, QUEUED),
                           modus_record_state(future->turn, 0, CANCELLED)))
        return MODUS_WITHDRAWN_NOT;
    if (!atomic_exchange(&p->futures[future->place], NULL))
        return MODUS_WITHDRAWN_LEFT; /* the collector was faster */
    modus_future_put(future);
    leave(p);
    return MODUS_WITHDRAWN;
}

static const struct modus_future_ops future_ops = {enter, nothing, pending, withdraw, nothing};

static void end(struct process_pool *p, struct modus_future *future, int code, const void *value,
                size_t size, const char *text)
{
    modus_future_end(future, code, value, size, text);
    modus_future_put(future);
    leave(p);
}

/* --- the collector ---------------------------------------------------------------------------- */

static void end_cancelled(struct process_pool *p, struct modus_future *future)
{
    modus_future_settle(future, MODUS_FUTURE_CANCELLED);
    modus_future_put(future);
    leave(p);
}

/* The record has been answered, or passed over: it is free, and its future ends. */
static void collect_record(struct process_pool *p, uint32_t number)
{
    struct modus_record *record = record_at(p, number);
    struct modus_future *future = atomic_exchange(&p->futures[number], NULL);
    char text[MODUS_POOL_TEXT];
    bool passed = modus_record_kind(atomic_load(&record->state)) == PASSED;
    int code = record->code;

    /* The value goes into its place before the record is used again. */
    text[0] = 0;
    if (future && code < 0)
        snprintf(text, sizeof text, "%.*s", MODUS_POOL_TEXT - 1, record->text);
    else if (future) {
        future->size = record->answered < future->room ? record->answered : future->room;
        memcpy(future->value, record->bytes + p->shared->input_room, future->size);
    }
    free_record(p, number);
    if (future && passed)
        end_cancelled(p, future);
    else if (future)
        end(p, future, code, future->value, future->size, text);
}

static void collect_answer(struct process_pool *p, const struct modus_news *news)
{
    if (news->number >= p->shared->record_count)
        return;
    uint64_t state = atomic_load(&record_at(p, news->number)->state);
    enum modus_record_kind kind = modus_record_kind(state);
    if (modus_record_turn(state) == news->turn && (kind == ANSWERED || kind == PASSED))
        collect_record(p, news->number);
}

static int put_task(struct process_pool *p, uint32_t number, uint32_t turn, int64_t ns)
{
    struct modus_news task = {.number = number, .turn = turn};
    int id = (int)atomic_load(&p->id);

    if (modus_participant_self(p->shared->arena) != id)
        modus_participant_act_as(p->shared->arena, id);
    return modus_queue_put(&p->shared->tasks, &task, ns);
}

/* May be run again, once. Returns false if not. */
static bool run_again(struct process_pool *p, uint32_t number, uint64_t state)
{
    struct modus_record *record = record_at(p, number);
    uint32_t turn = modus_record_turn(state);

    if (!record->again || atomic_load(&p->pool.state) >= MODUS_POOL_TERMINATED)
        return false;
    record->again = 0;
    if (!modus_record_move(record, state, modus_record_state(turn, 0, QUEUED)))
        return false;
    /* There is room, as its number was there before; but for a slot that a stopped process holds. */
    if (put_task(p, number, turn, 0) == 0)
        return true;
    if (modus_record_move(record, modus_record_state(turn, 0, QUEUED), state))
        return false;
    free_record(p, number); /* cancelled meanwhile */
    return true;
}

/* It ran in a worker that has died. */
static void collect_lost(struct process_pool *p, uint32_t number, int status)
{
    struct modus_future *future = atomic_exchange(&p->futures[number], NULL);
    char text[MODUS_POOL_TEXT];

    if (status < 0)
        snprintf(text, sizeof text, "its worker was ended by signal %d (%s)", -status,
                 strsignal(-status));
    else
        snprintf(text, sizeof text, "its worker exited with status %d",
                 status == INT_MAX ? 0 : status);
    free_record(p, number);
    if (!future)
        return;
    future->signal = status < 0 ? -status : 0;
    end(p, future, MODUS_WORKERDIED, NULL, 0, text);
}

static void settle_tasks_of(struct process_pool *p, uint32_t seat, int status)
{
    for (uint32_t i = 0; i < p->shared->record_count; i++) {
        uint64_t state = atomic_load(&record_at(p, i)->state);

        if (modus_record_seat(state) != seat)
            continue;
        if (modus_record_kind(state) == ANSWERED || modus_record_kind(state) == PASSED)
            collect_record(p, i);
        else if (modus_record_kind(state) == RUNNING && !run_again(p, i, state))
            collect_lost(p, i, status);
    }
}

static void collect_end(struct process_pool *p, const struct modus_news *news)
{
    if (news->number >= p->shared->seat_count)
        return;
    struct modus_seat *seat = &p->shared->seats[news->number];
    if (news->status != 0)
        settle_tasks_of(p, news->number, news->status);
    atomic_fetch_add(&p->done, atomic_exchange(&seat->done, 0));
    atomic_store(&seat->state, SEAT_FREE);
    if (atomic_exchange(&p->shared->starving, 0))
        modus_doorbell_ring(&p->shared->bell);
}

static void break_pool(struct process_pool *p, int code)
{
    atomic_store(&p->pool.broken, (uint32_t)-code);
    if (modus_pool_move(&p->pool, MODUS_POOL_BROKEN)) { /* else it is not asked for */
        modus_sem_release(&p->free_count, FLOOD);
        command(p, MODUS_NURSERY_TERMINATES);
    }
}

static void collect(struct process_pool *p, const struct modus_news *news)
{
    switch (news->kind) {
    case MODUS_NEWS_ANSWER:
        collect_answer(p, news);
        break;
    case MODUS_NEWS_END:
        collect_end(p, news);
        break;
    case MODUS_NEWS_BROKEN:
        break_pool(p, news->status);
        break;
    }
}

/* End whatever has not ended, in a pool that is terminated or broken. */
static void sweep_once(struct process_pool *p)
{
    bool is_broken = atomic_load(&p->pool.state) == MODUS_POOL_BROKEN;
    int broken = is_broken ? -(int)atomic_load(&p->pool.broken) : 0;

    for (uint32_t i = 0; i < p->shared->record_count; i++) {
        struct modus_future *future = atomic_exchange(&p->futures[i], NULL);

        if (!future)
            continue;
        if (broken < 0) {
            future->signal = atomic_load(&p->orphaned) ? SIGKILL : 0;
            end(p, future, broken, NULL, 0, "the pool has no workers any more");
        } else {
            end_cancelled(p, future);
        }
    }
}

static void sweep(struct process_pool *p)
{
    uint32_t n;

    while ((n = atomic_load(&p->outstanding)) > 0) {
        sweep_once(p); /* a submit that is under way will give up, or be swept next time */
        if (atomic_load(&p->outstanding) == n)
            modus_park(MODUS_THREAD, &p->outstanding, n, modus_deadline(modus_ms(10)), NULL);
    }
}

static void *run_collector(void *argument)
{
    struct process_pool *p = argument;
    struct modus_news news[BATCH];
    int id = modus_participant_join(p->shared->arena);
    long n = 0;

    collecting = p;
    atomic_store(&p->id, (uint32_t)id);
    modus_unpark(MODUS_THREAD, &p->id, 1);
    while (id > 0 && n != MODUS_CLOSED) {
        n = modus_queue_get_n(&p->shared->results, news, BATCH, MODUS_FOREVER);
        for (long i = 0; i < n; i++)
            collect(p, &news[i]);
        if (atomic_load(&p->pool.state) >= MODUS_POOL_TERMINATED)
            sweep(p);
    }
    modus_participant_leave(p->shared->arena);
    return NULL;
}

/* --- the watcher ------------------------------------------------------------------------------ */

static void *run_watcher(void *argument)
{
    struct process_pool *p = argument;
    int code = 0;

    modus_process_join(p->nursery, MODUS_FOREVER, &code);
    atomic_store(&p->orphaned, code != 0);
    if (code != 0 || atomic_load(&p->pool.state) == MODUS_POOL_RUNNING ||
        atomic_load(&p->outstanding) > 0)
        break_pool(p, MODUS_WORKERDIED);
    atomic_store(&p->shared->failed, MODUS_WORKERDIED); /* for new, if it still waits */
    atomic_fetch_add(&p->shared->change, 1);
    modus_unpark(MODUS_PROCESS, &p->shared->change, INT_MAX);
    modus_participant_bury(p->shared->arena, 0);
    modus_queue_close(&p->shared->results, MODUS_CLOSE_NOW);
    modus_thread_join(p->collector, MODUS_FOREVER, NULL);
    modus_pool_gone(&p->pool);
    return NULL;
}

/* --- submitting ------------------------------------------------------------------------------- */

static void fill_in(struct modus_record *record, const struct modus_task *task)
{
    record->run = task->run;
    record->size = (uint32_t)task->size;
    record->again = task->idempotent;
    record->code = 0;
    record->answered = 0;
    if (task->size > 0)
        memcpy(record->bytes, task->input, task->size);
}

static int queue_task(struct process_pool *p, struct modus_future *future,
                      const struct modus_task *task, int64_t ns)
{
    uint32_t number;
    int rc = pop_free(p, ns, &number);

    if (rc < 0)
        return rc;
    if (modus_pool_refusal(&p->pool) < 0) {
        push_free(p, number);
        return MODUS_CLOSED;
    }
    struct modus_record *record = record_at(p, number);
    uint32_t turn = modus_record_turn(atomic_load(&record->state));
    fill_in(record, task);
    future->place = number;
    future->turn = turn;
    atomic_store(&p->futures[number], future);
    atomic_store(&record->state, modus_record_state(turn, 0, QUEUED));
    rc = put_task(p, number, turn, ns);
    if (rc == 0) {
        modus_pool_queued(&p->pool, modus_queue_len(&p->shared->tasks));
        return 0;
    }
    /* Unless the sweep has it. */
    if (!atomic_exchange(&p->futures[number], NULL))
        return 0;
    free_record(p, number);
    return rc;
}

static int submit(struct modus_pool *pool, struct modus_future **future,
                  const struct modus_task *task, int64_t ns)
{
    struct process_pool *p = pool_of(pool);
    struct modus_future *made = modus_future_make(pool->attr.output_max, future ? 2 : 1);

    if (!made)
        return -ENOMEM;
    made->ops = &future_ops;
    made->owner = p;
    made->room = pool->attr.output_max;
    atomic_fetch_add(&p->outstanding, 1);
    int rc = modus_pool_refusal(pool);
    if (rc == 0)
        rc = queue_task(p, made, task, ns);
    if (rc < 0) {
        int refusal = modus_pool_refusal(pool);

        leave(p);
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
    struct process_pool *p = pool_of(pool);

    modus_sem_release(&p->free_count, FLOOD); /* who waits for room need not wait any more */
    if (atomic_load(&p->outstanding) == 0)
        finish(p);
}

static void terminate(struct modus_pool *pool)
{
    struct process_pool *p = pool_of(pool);

    atomic_store(&p->shared->stop, 1);
    modus_sem_release(&p->free_count, FLOOD);
    command(p, MODUS_NURSERY_TERMINATES);
    modus_queue_close(&p->shared->tasks, MODUS_CLOSE_NOW);
    modus_queue_interrupt(&p->shared->results); /* the collector sweeps */
}

static void cancel(struct modus_pool *pool)
{
    struct process_pool *p = pool_of(pool);

    for (uint32_t i = 0; i < p->shared->record_count; i++) {
        struct modus_record *record = record_at(p, i);
        uint64_t state = atomic_load(&record->state);
        uint32_t turn = modus_record_turn(state);
        struct modus_future *future;

        if (modus_record_kind(state) != QUEUED ||
            !modus_record_move(record, state, modus_record_state(turn, 0, CANCELLED)) ||
            !(future = atomic_exchange(&p->futures[i], NULL)))
            continue;
        end_cancelled(p, future);
    }
}

static bool inside(struct modus_pool *pool)
{
    return collecting == pool_of(pool);
}

static void reap(struct modus_pool *pool)
{
    modus_thread_join(pool_of(pool)->watcher, MODUS_FOREVER, NULL);
}

static void stats(struct modus_pool *pool, struct modus_pool_stats *out)
{
    struct process_pool *p = pool_of(pool);

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
    struct process_pool *p = pool_of(pool);
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
    struct process_pool *p = pool_of(pool);
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

static int init_queue(struct modus_queue *queue, struct modus_arena *arena, uint32_t capacity,
                      bool tasks)
{
    return modus_queue_init(queue, &(struct modus_queue_attr){
                                       .scope = MODUS_PROCESS,
                                       .arena = arena,
                                       .capacity = capacity,
                                       .item_size = sizeof(struct modus_news),
                                       .joinable = tasks,
                                       .on_death = tasks ? MODUS_QUEUE_REDELIVER : MODUS_QUEUE_LOST,
                                   });
}

static int make_shared(struct process_pool *p)
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
    rc = init_queue(&shared->tasks, arena, capacity, true);
    if (rc == 0)
        rc = init_queue(&shared->results, arena, capacity, false);
    return rc == 0 ? modus_doorbell_init(&shared->bell) : rc;
}

static int make_own(struct process_pool *p)
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

static int start_nursery(struct process_pool *p)
{
    char name[MODUS_POOL_NAME + 12];

    snprintf(name, sizeof name, "%s-nursery", p->pool.name);
    int rc = modus_process_new(&p->nursery,
                               &(struct modus_process_attr){
                                   .name = name,
                                   .daemon = MODUS_DAEMON_YES,
                                   .orphan = MODUS_ORPHAN_KILLED,
                                   .arena = p->shared->arena,
                               },
                               modus_pool_nursery, p->shared);
    return rc < 0 ? rc : modus_process_start(p->nursery);
}

static int start_thread(struct process_pool *p, struct modus_thread **thread, const char *what,
                        void *(*run)(void *argument))
{
    char name[MODUS_POOL_NAME + 12];
    sigset_t all, before;

    snprintf(name, sizeof name, "%s-%s", p->pool.name, what);
    int rc = modus_thread_new(
        thread, &(struct modus_thread_attr){.name = name, .daemon = MODUS_DAEMON_YES}, run, p);
    if (rc < 0)
        return rc;
    sigfillset(&all); /* signals are for the threads of the program */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = modus_thread_start(*thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* Until all workers are ready, or it is clear that they won't be. */
static int await_workers(struct process_pool *p)
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

static int start(struct process_pool *p)
{
    int rc = start_nursery(p);

    if (rc < 0)
        return rc;
    rc = start_thread(p, &p->collector, "collector", run_collector);
    if (rc == 0) {
        while (atomic_load(&p->id) == 0)
            modus_park_deaf(MODUS_THREAD, &p->id, 0, MODUS_FOREVER, NULL);
        rc = (int)atomic_load(&p->id) < 0 ? (int)atomic_load(&p->id)
                                          : start_thread(p, &p->watcher, "watcher", run_watcher);
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
    struct process_pool *p = calloc(1, sizeof *p + records * sizeof p->futures[0]);

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
