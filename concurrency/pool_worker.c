/* SPDX-License-Identifier: MIT */
/*
 * A worker of a pool of processes: get a number, claim the record, give the number back, run the
 * task, answer, tell. See pool_process_priv.h for what becomes of it when it dies in between.
 *
 * A worker that has run as many tasks as it may asks the nursery for a replacement and waits until
 * that has been forked, so that there is never one less.
 */
#include "concurrency/fault.h"
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/pool_process_priv.h"
#include "concurrency/self.h"

#include <limits.h>
#include <unistd.h>

struct worker {
    struct modus_pool_shared *shared;
    struct modus_seat *seat;
    uint32_t number; /* of the seat */
    uint64_t stamp;
    unsigned count; /* tasks of tasks_max */
};

static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* --- tasks ----------------------------------------------------------------------------------- */

static void run(struct worker *worker, struct modus_record *record)
{
    struct modus_pool_shared *shared = worker->shared;
    struct modus_call call = {
        .input = record->bytes,
        .size = record->size,
        .output = record->bytes + shared->input_room,
        .room = shared->attr.output_max,
        .text = record->text,
        .text_room = sizeof record->text,
        .stop = &shared->stop,
    };

    record->text[0] = 0;
    atomic_store_explicit(&worker->seat->busy, 1, memory_order_relaxed);
    int code = record->run(&call);
    if (modus_self_stamp() != worker->stamp)
        _exit(0); /* the task forked, and this is the child */
    record->code = code < 0 ? code : 0;
    record->answered = (uint32_t)(code < 0 || call.answered > call.room ? 0 : call.answered);
    atomic_store_explicit(&worker->seat->busy, 0, memory_order_relaxed);
    count(&worker->seat->done);
    worker->count++;
}

static void handle(struct worker *worker, struct modus_news *task)
{
    struct modus_pool_shared *shared = worker->shared;
    struct modus_record *record = modus_record_at(shared, task->number);
    uint32_t turn = task->turn;
    uint64_t mine = modus_record_state(turn, worker->number, RUNNING);
    bool claimed = modus_record_move(record, modus_record_state(turn, 0, QUEUED), mine);
    bool passed = !claimed && modus_record_move(record, modus_record_state(turn, 0, CANCELLED),
                                                modus_record_state(turn, worker->number, PASSED));

    MODUS_FAULT(MODUS_FAULT_TASK_CLAIMED);
    modus_queue_task_done(&shared->tasks);
    MODUS_FAULT(MODUS_FAULT_TASK_BEGUN);
    if (claimed) {
        run(worker, record);
        modus_record_move(record, mine, modus_record_state(turn, worker->number, ANSWERED));
        MODUS_FAULT(MODUS_FAULT_TASK_ANSWERED);
        if (modus_record_watched(record, turn))
            return;
    }
    if (!claimed && !passed)
        return; /* somebody has it already */
    task->kind = MODUS_NEWS_ANSWER;
    modus_queue_put(&shared->results, task, MODUS_FOREVER);
}

/* --- coming and going ------------------------------------------------------------------------- */

static void set_state(struct worker *worker, enum modus_seat_state state)
{
    atomic_store(&worker->seat->state, state);
}

static void tell_change(struct modus_pool_shared *shared)
{
    atomic_fetch_add(&shared->change, 1);
    modus_unpark(MODUS_PROCESS, &shared->change, INT_MAX);
}

static int begin(struct worker *worker)
{
    struct modus_pool_shared *shared = worker->shared;
    int (*initializer)(void *argument) = shared->attr.initializer;
    int rc = modus_participant_join(shared->arena);

    if (rc > 0 && initializer) {
        set_state(worker, SEAT_INITIALIZING);
        rc = initializer(shared->attr.argument);
    }
    if (rc < 0) {
        worker->seat->code = rc;
        return rc;
    }
    atomic_store(&shared->failures, 0);
    set_state(worker, SEAT_READY);
    atomic_fetch_add(&shared->ready, 1);
    tell_change(shared);
    return 0;
}

/* Returns false if that is not possible: a task has taken another user, or the nursery is gone. */
static bool tell_nursery(const struct worker *worker)
{
    int32_t nursery = worker->shared->nursery;

    return getppid() == nursery && kill(nursery, MODUS_NURSERY_SIGNAL) == 0;
}

/* Returns false if it must go on: there is no replacement. */
static bool retire(struct worker *worker)
{
    _Atomic uint32_t *state = &worker->seat->state;
    uint32_t retiring = SEAT_RETIRING;
    struct modus_watch watch;

    set_state(worker, SEAT_RETIRING);
    if (!tell_nursery(worker) && atomic_compare_exchange_strong(state, &retiring, SEAT_LEAVING))
        return true; /* that it sees */
    for (;;) {
        modus_watch_look(&watch, worker->seat);
        if (atomic_load(state) != SEAT_RETIRING)
            break;
        modus_park(MODUS_PROCESS, state, SEAT_RETIRING, MODUS_FOREVER, &watch);
    }
    if (atomic_load(state) == SEAT_REPLACED)
        return true;
    worker->count = 0;
    set_state(worker, SEAT_READY);
    return false;
}

int modus_pool_worker(void *argument)
{
    struct modus_worker_place *place = argument;
    struct modus_pool_shared *shared = place->shared;
    struct worker worker = {
        .shared = shared,
        .seat = &shared->seats[place->seat],
        .number = place->seat,
        .stamp = modus_self_stamp(),
    };
    struct modus_news task;
    bool retired = false;

    atomic_store(&worker.seat->pid, getpid());
    if (begin(&worker) < 0)
        return 1;
    while (!retired && modus_queue_get(&shared->tasks, &task, MODUS_FOREVER) == 0) {
        MODUS_FAULT(MODUS_FAULT_TASK_GOT);
        handle(&worker, &task);
        if (shared->attr.tasks_max && worker.count >= shared->attr.tasks_max)
            retired = retire(&worker);
    }
    if (!retired)
        set_state(&worker, SEAT_LEAVING);
    modus_participant_leave(shared->arena);
    return 0;
}
