/* SPDX-License-Identifier: MIT */
/*
 * What the files of a pool of threads share: its verbs (pool_thread.c), its workers
 * (pool_thread_worker.c), what its workers do when they wait for futures (pool_thread_wait.c),
 * whose tasks there are (pool_thread_owner.c), and which are slow (pool_thread_slow.c).
 */
#ifndef CONCURRENCY_POOL_THREAD_PRIV_H
#define CONCURRENCY_POOL_THREAD_PRIV_H

#include "concurrency/pool_priv.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"

struct modus_thread_worker {
    _Alignas(128) _Atomic uint64_t handled; /* entries of the queue; written by the worker alone */
    _Atomic uint64_t begun, done;           /* tasks; so are these */
    _Alignas(128) struct modus_thread_worker *next; /* under the pool's lock */
    struct modus_thread_pool *pool;
    struct modus_thread *thread;
    struct modus_future *waiting; /* under the lock of hooks */
    struct modus_future *task;    /* that it runs; its own, as are the next two */
    unsigned count;               /* tasks of tasks_max */
    bool ready;                   /* initialized */
    bool slow;                    /* it has a slot for a slow task */
};

struct modus_thread_pool {
    struct modus_pool pool; /* first member */
    struct modus_queue queue;
    _Atomic uint32_t aside_count; /* tasks aside; changed under slow_lock */
    _Atomic uint32_t alive;       /* workers; changed under lock */
    _Atomic uint64_t submitted;   /* while threads are still made; with idle_ns all */
    _Atomic uint32_t staying;     /* idle workers that wait without end, up to n_min */
    struct modus_lock lock;       /* guards what follows */
    struct modus_thread_worker *workers;
    struct modus_thread_worker *retired; /* have ended or are about to */
    unsigned numbers;                    /* for names */
    unsigned failures;                   /* of initializers in a row */
    _Atomic uint32_t began;              /* initializers that have ended; what new waits for */
    uint64_t handled, begun, done;       /* of those that are gone */
    uint64_t replaced, deaths, idled;
    struct modus_lock owned_lock;            /* guards the next two, and the links of their jobs */
    struct modus_future *owned, *last_owned; /* tasks that have not begun, as they came */
    struct modus_lock slow_lock;             /* guards the next four */
    struct modus_future *aside, *last_aside; /* slow tasks that wait for others */
    uint32_t slow_running;                   /* slots that are taken */
    bool slow_shut;                          /* none is to be put aside any more */
    struct modus_sem slow_room;              /* permits; in excess once it is closed */
};

/* Behind the future. */
struct modus_thread_job {
    modus_task_function *run;
    size_t size;
    const void *owner;
    uint8_t priority;
    bool slow, listed;
    struct modus_future *next, *previous; /* of those that have owners */
    struct modus_future *behind;          /* aside */
    _Alignas(16) unsigned char input[];
};

/* The calling thread; NULL: no worker. */
extern _Thread_local struct modus_thread_worker *modus_working
    __attribute__((tls_model("initial-exec")));

extern const struct modus_future_ops modus_thread_future_ops;

static inline struct modus_thread_pool *modus_thread_pool_of(struct modus_pool *pool)
{
    return (struct modus_thread_pool *)(void *)pool; /* first member */
}

static inline struct modus_thread_job *modus_thread_job_of(struct modus_future *future)
{
    return (struct modus_thread_job *)(void *)(future + 1);
}

static inline void modus_thread_pool_lock(struct modus_thread_pool *p)
{
    modus_lock_acquire(&p->lock, MODUS_FOREVER);
}

static inline void modus_thread_pool_unlock(struct modus_thread_pool *p)
{
    modus_lock_release(&p->lock);
}

static inline bool modus_is_worker_of(const struct modus_thread_pool *p)
{
    return modus_working && modus_working->pool == p;
}

/* --- pool_thread_worker.c */

/* It is RUNNING by us. queued: it is an entry of the queue, which is counted as handled before the
 * end, since a submit may count us as free after it. */
void modus_thread_worker_run(struct modus_thread_worker *worker, struct modus_future *future,
                             bool queued);

/* Under the lock: one worker more. */
int modus_thread_worker_start(struct modus_thread_pool *p);

/* Wait for what is left of those that were retired before the one given (NULL: of all), and free them;
 * so no two wait for each other. Not under the lock: the destructors of a thread's own variables may
 * look at the pool. */
void modus_thread_pool_bury(struct modus_thread_pool *p, const struct modus_thread_worker *before);

/* A task more is coming: is there a thread for it? Returns below 0 only when there is none at all. */
int modus_thread_pool_ensure(struct modus_thread_pool *p);

/* After that: it does not come, or not through the queue. */
void modus_thread_pool_spare(struct modus_thread_pool *p);

/* --- pool_thread.c */

/* Put it into the queue. */
int modus_thread_pool_put(struct modus_thread_pool *p, struct modus_future *future, int64_t ns);

/* --- pool_thread_slow.c */

/* A slow task from the queue: take a slot for it. Returns false if it has been put aside instead. */
bool modus_slow_begin(struct modus_thread_pool *p, struct modus_future *future);

/* Give the slot back; then look aside. */
void modus_slow_end(struct modus_thread_pool *p);

/* A task from aside, with a slot; NULL: none, or no slot. */
struct modus_future *modus_slow_next(struct modus_thread_pool *p);

/* A slot has been given back by one that can't look aside any more. */
void modus_slow_pass_on(struct modus_thread_pool *p);

/* Nothing is put aside any more. Returns a task from aside, or NULL. */
struct modus_future *modus_slow_shut(struct modus_thread_pool *p);

/* Get a permit for a slow task, waiting up to ns; give it back; let all have one. */
int modus_slow_enter(struct modus_thread_pool *p, int64_t ns);
void modus_slow_leave(struct modus_thread_pool *p);
void modus_slow_flood(struct modus_thread_pool *p);

/* --- pool_thread_owner.c */

/* A task that has an owner is about to be queued; has begun, or will never begin. */
void modus_thread_pool_own(struct modus_thread_pool *p, struct modus_future *future);
void modus_thread_pool_disown(struct modus_thread_pool *p, struct modus_future *future);

/* Cancel what it has that has not begun; returns how many. */
long modus_thread_pool_cancel_owner(struct modus_thread_pool *p, const void *owner);

static inline bool modus_is_owned(struct modus_future *future)
{
    return modus_thread_job_of(future)->owner != NULL;
}

/* An entry of the queue has begun, or never will. */
static inline void modus_thread_entry_done(struct modus_thread_pool *p, struct modus_future *future)
{
    if (modus_is_owned(future))
        modus_thread_pool_disown(p, future);
    if (modus_thread_job_of(future)->slow)
        modus_slow_leave(p);
}

#endif
