/* SPDX-License-Identifier: MIT */
/*
 * The two threads of a program with a pool of processes.
 *
 * The collector reads the queue of results and ends futures. It also settles what a dead worker
 * had, once the nursery has buried it. The watcher waits for the nursery's end, and is the last to
 * go.
 */
#include "concurrency/arena_priv.h"
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/pause.h"
#include "concurrency/pool_program_priv.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 32, PAUSES = 4 };

_Thread_local struct modus_process_pool *modus_collecting;

static struct modus_record *record_at(struct modus_process_pool *p, uint32_t number)
{
    return modus_record_at(p->shared, number);
}

/* --- futures --------------------------------------------------------------------------------- */

static int enter(struct modus_future *future)
{
    return modus_collecting && future->owner == modus_collecting ? -EDEADLK : 0;
}

static void nothing(struct modus_future *future)
{
    (void)future;
}

static bool pending(const struct modus_future *future)
{
    struct modus_process_pool *p = future->owner;

    return atomic_load(&record_at(p, future->place)->state) ==
           modus_record_state(future->turn, 0, QUEUED);
}

/* The caller holds a reference of its own. */
static enum modus_withdrawal withdraw(struct modus_future *future)
{
    struct modus_process_pool *p = future->owner;
    struct modus_future *taken;

    if (!modus_record_cancel(p, future->place, future->turn, &taken))
        return MODUS_WITHDRAWN_NOT;
    if (!taken)
        return MODUS_WITHDRAWN_LEFT; /* the collector was faster */
    modus_future_put(future);
    modus_process_pool_leave(p);
    return MODUS_WITHDRAWN;
}

static void end(struct modus_process_pool *p, struct modus_future *future, int code,
                const void *value, size_t size, const char *text)
{
    modus_future_end(future, code, value, size, text);
    modus_future_put(future);
    modus_process_pool_leave(p);
}

/* --- the collector ---------------------------------------------------------------------------- */

void modus_future_end_cancelled(struct modus_process_pool *p, struct modus_future *future)
{
    modus_future_settle(future, MODUS_FUTURE_CANCELLED);
    modus_future_put(future);
    modus_process_pool_leave(p);
}

/* The record has been answered, or passed over: unless somebody else has taken it, it is free, and
 * its future ends. */
static void collect_record(struct modus_process_pool *p, uint32_t number, uint64_t state)
{
    struct modus_record *record = record_at(p, number);
    bool passed = modus_record_kind(state) == PASSED;
    char text[MODUS_POOL_TEXT];

    if (!modus_record_move(record, state, modus_record_state(modus_record_turn(state), 0, TAKEN)))
        return;
    struct modus_future *future = atomic_exchange(&p->futures[number], NULL);
    int code = record->code;

    /* The value goes into its place before the record is used again. */
    text[0] = 0;
    if (future && code < 0)
        snprintf(text, sizeof text, "%.*s", MODUS_POOL_TEXT - 1, record->text);
    else if (future) {
        future->size = record->answered < future->room ? record->answered : future->room;
        memcpy(future->value, record->bytes + p->shared->input_room, future->size);
    }
    modus_record_free(p, number);
    if (future && passed)
        modus_future_end_cancelled(p, future);
    else if (future)
        end(p, future, code, future->value, future->size, text);
}

static void collect_answer(struct modus_process_pool *p, const struct modus_news *news)
{
    if (news->number >= p->shared->record_count)
        return;
    uint64_t state = atomic_load(&record_at(p, news->number)->state);
    enum modus_record_kind kind = modus_record_kind(state);
    if (modus_record_turn(state) == news->turn && (kind == ANSWERED || kind == PASSED))
        collect_record(p, news->number, state);
}

/* --- a thread that waits, in place of the collector ------------------------------------------- */

static void begin_watch(struct modus_record *record, uint32_t turn)
{
    uint64_t watched = atomic_load(&record->watched), mine = (uint64_t)turn << 32;

    while (!atomic_compare_exchange_weak(&record->watched, &watched,
                                         (watched >> 32 == turn ? watched : mine) + 1))
        ;
}

/* Those of another turn have nothing to do with ours. */
static void end_watch(struct modus_record *record, uint32_t turn)
{
    uint64_t watched = atomic_load(&record->watched);

    while (watched >> 32 == turn && (uint32_t)watched > 0 &&
           !atomic_compare_exchange_weak(&record->watched, &watched, watched - 1))
        ;
}

/* Returns whether the future has ended. */
static bool take_answer(struct modus_process_pool *p, struct modus_record *record,
                        struct modus_future *future)
{
    uint64_t state = atomic_load(&record->state);

    if (modus_record_turn(state) == future->turn && modus_record_kind(state) == ANSWERED) {
        struct modus_process_pool *before = modus_collecting;

        modus_collecting = p; /* for callbacks that have come meanwhile */
        collect_record(p, future->place, state);
        modus_collecting = before;
    }
    return modus_future_ended(future);
}

static bool look_at_record(struct modus_process_pool *p, struct modus_future *future, int64_t until)
{
    struct modus_record *record = record_at(p, future->place);
    bool ended;

    begin_watch(record, future->turn);
    while (!(ended = take_answer(p, record, future)) && modus_now_ns() < until)
        modus_pause(PAUSES);
    end_watch(record, future->turn);
    return ended || take_answer(p, record, future);
}

/* The pool stays as long as its arena does, and that as long as it is held; but first it must be seen
 * that it was there still, which a future that has not ended shows. */
static bool look(struct modus_future *future, int64_t until)
{
    const struct modus_arena *arena = atomic_load(&future->runner);

    if (!modus_arena_hold(arena))
        return modus_future_ended(future);
    bool ended = modus_future_ended(future) || look_at_record(future->owner, future, until);
    modus_arena_let_go(arena);
    return ended;
}

const struct modus_future_ops modus_process_future_ops = {true,     enter,   nothing, pending,
                                                          withdraw, nothing, look};

/* --- the dead ---------------------------------------------------------------------------------- */

/* May be run again, once. Returns false if not. */
static bool run_again(struct modus_process_pool *p, uint32_t number, uint64_t state)
{
    struct modus_record *record = record_at(p, number);
    uint32_t turn = modus_record_turn(state);

    if (!record->again || atomic_load(&p->pool.state) >= MODUS_POOL_TERMINATED)
        return false;
    record->again = 0;
    if (!modus_record_move(record, state, modus_record_state(turn, 0, QUEUED)))
        return false;
    /* There is room, as its number was there before; but for a slot that a stopped process holds. */
    if (modus_task_put(p, number, turn, record->priority, 0) == 0)
        return true;
    if (modus_record_move(record, modus_record_state(turn, 0, QUEUED), state))
        return false;
    modus_record_free(p, number); /* cancelled meanwhile */
    return true;
}

/* It ran in a worker that has died. */
static void collect_lost(struct modus_process_pool *p, uint32_t number, int status)
{
    struct modus_future *future = atomic_exchange(&p->futures[number], NULL);
    char text[MODUS_POOL_TEXT];

    if (status < 0)
        snprintf(text, sizeof text, "its worker was ended by signal %d (%s)", -status,
                 strsignal(-status));
    else
        snprintf(text, sizeof text, "its worker exited with status %d",
                 status == INT_MAX ? 0 : status);
    modus_record_free(p, number);
    if (!future)
        return;
    future->signal = status < 0 ? -status : 0;
    end(p, future, MODUS_WORKERDIED, NULL, 0, text);
}

static void settle_tasks_of(struct modus_process_pool *p, uint32_t seat, int status)
{
    for (uint32_t i = 0; i < p->shared->record_count; i++) {
        uint64_t state = atomic_load(&record_at(p, i)->state);

        if (modus_record_seat(state) != seat)
            continue;
        if (modus_record_kind(state) == ANSWERED || modus_record_kind(state) == PASSED)
            collect_record(p, i, state);
        else if (modus_record_kind(state) == RUNNING && !run_again(p, i, state))
            collect_lost(p, i, status);
    }
}

static void collect_end(struct modus_process_pool *p, const struct modus_news *news)
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

static void break_pool(struct modus_process_pool *p, int code)
{
    uint32_t none = 0;

    atomic_compare_exchange_strong(&p->pool.broken, &none,
                                   (uint32_t)-code);    /* the first says why */
    if (modus_pool_move(&p->pool, MODUS_POOL_BROKEN)) { /* else it is not asked for */
        modus_sem_release(&p->free_count, MODUS_FLOOD);
        modus_nursery_command(p, MODUS_NURSERY_TERMINATES);
    }
}

static void collect(struct modus_process_pool *p, const struct modus_news *news)
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
static void sweep_once(struct modus_process_pool *p)
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
            modus_future_end_cancelled(p, future);
        }
    }
}

static void sweep(struct modus_process_pool *p)
{
    uint32_t n;

    while ((n = atomic_load(&p->outstanding)) > 0) {
        sweep_once(p); /* a submit that is under way will give up, or be swept next time */
        if (atomic_load(&p->outstanding) == n)
            modus_park(MODUS_THREAD, &p->outstanding, n, modus_deadline(modus_ms(10)), NULL);
    }
}

void *modus_pool_collect(void *argument)
{
    struct modus_process_pool *p = argument;
    struct modus_news news[BATCH];
    int id = modus_participant_join(p->shared->arena);
    long n = 0;

    modus_collecting = p;
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

void *modus_pool_watch(void *argument)
{
    struct modus_process_pool *p = argument;
    int32_t none = 0; /* the nursery may have said why already */
    int code = 0;

    modus_process_join(p->nursery, MODUS_FOREVER, &code);
    bool orphaned = code != 0 && code != MODUS_EXIT_UNKNOWN; /* then it counts what is left */
    atomic_store(&p->orphaned, orphaned);
    if (orphaned || atomic_load(&p->pool.state) == MODUS_POOL_RUNNING ||
        atomic_load(&p->outstanding) > 0)
        break_pool(p, MODUS_WORKERDIED);
    atomic_compare_exchange_strong(&p->shared->failed, &none, MODUS_WORKERDIED); /* new may wait */
    atomic_fetch_add(&p->shared->change, 1);
    modus_unpark(MODUS_PROCESS, &p->shared->change, INT_MAX);
    modus_participant_bury(p->shared->arena, 0);
    modus_queue_close(&p->shared->results, MODUS_CLOSE_NOW);
    modus_thread_join(p->collector, MODUS_FOREVER, NULL);
    modus_pool_gone(&p->pool);
    return NULL;
}
