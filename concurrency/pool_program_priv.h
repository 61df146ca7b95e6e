/* SPDX-License-Identifier: MIT */
/*
 * The program's side of a pool of processes: what the pool's verbs (pool_process.c) and the threads
 * that end its futures (pool_collector.c) share.
 *
 * The future of a record is in a table of this process; whoever exchanges it for NULL ends it: the
 * collector, who cancels, or the sweep of a pool that is terminated or broken. outstanding counts
 * those that have not ended. At 0 in a closed pool the queue of tasks is closed, and not before: so
 * a task whose worker dies late can still be given to another.
 */
#ifndef CONCURRENCY_POOL_PROGRAM_PRIV_H
#define CONCURRENCY_POOL_PROGRAM_PRIV_H

#include "concurrency/pool_process_priv.h"
#include "concurrency/process.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"

enum { MODUS_FLOOD = 1 << 20 }; /* permits for all who wait for a record in vain */

struct modus_process_pool {
    struct modus_pool pool; /* first member */
    struct modus_pool_shared *shared;
    struct modus_process *nursery;
    struct modus_thread *collector, *watcher;
    _Atomic uint32_t id;          /* the collector's in the arena; below 0: it has none */
    _Atomic uint32_t outstanding; /* futures that have not ended */
    _Atomic uint32_t orphaned;    /* the nursery is gone */
    _Atomic uint64_t done;        /* by workers that are gone */
    struct modus_sem free_count;  /* records that are free; in excess once it is closed */
    struct modus_lock lock;       /* guards the next two; see modus_record_cancel */
    uint32_t free_top;
    uint32_t *free_numbers;
    _Atomic(struct modus_future *) futures[]; /* by record */
};

extern _Thread_local struct modus_process_pool *modus_collecting; /* this thread is its collector */
extern const struct modus_future_ops modus_process_future_ops;

static inline struct modus_process_pool *modus_process_pool_of(struct modus_pool *pool)
{
    return (struct modus_process_pool *)(void *)pool; /* first member */
}

/* --- pool_process.c */

/* A record is free again; the second counts up its turn first. */
void modus_record_give(struct modus_process_pool *p, uint32_t number);
void modus_record_free(struct modus_process_pool *p, uint32_t number);

/* Cancel what is QUEUED in that turn. Returns false if it is not any more; *future: to be ended by the
 * caller; NULL: another is about to. */
bool modus_record_cancel(struct modus_process_pool *p, uint32_t number, uint32_t turn,
                         struct modus_future **future);

/* Put the number of a record that is QUEUED. Any thread of the program. */
int modus_task_put(struct modus_process_pool *p, uint32_t number, uint32_t turn, unsigned priority,
                   int64_t ns);

/* Tell the nursery; a later command wins. */
void modus_nursery_command(struct modus_process_pool *p, uint32_t what);

/* A future has ended, or a submit given up. */
void modus_process_pool_leave(struct modus_process_pool *p);

/* --- pool_collector.c */

/* End it as cancelled, and leave; the caller has taken it out of the table. */
void modus_future_end_cancelled(struct modus_process_pool *p, struct modus_future *future);

/* The two threads' functions; the argument is the pool. */
void *modus_pool_collect(void *argument);
void *modus_pool_watch(void *argument);

#endif
