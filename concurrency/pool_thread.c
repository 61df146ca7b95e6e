/* SPDX-License-Identifier: MIT */
/*
 * Pools of threads: the pool's verbs. The workers are in pool_thread_worker.c, their waits in
 * pool_thread_wait.c.
 *
 * The queue holds futures; behind each lie the function, its input and room for the answer, so that
 * a task is one allocation. An entry of the queue owns a reference. One whose future is no longer
 * pending when a worker comes to it (cancelled, or run by one that waited for it) is passed over.
 */
#include "concurrency/park.h"
#include "concurrency/pool_thread_priv.h"

#include <stdlib.h>
#include <string.h>

static struct modus_thread_pool *pool_of(struct modus_pool *pool)
{
    return modus_thread_pool_of(pool);
}

/* --- the pool's verbs ------------------------------------------------------------------------- */

static struct modus_future *make(struct modus_thread_pool *p, const struct modus_task *task,
                                 uint32_t references)
{
    size_t input = (task->size + 15) / 16 * 16;
    struct modus_future *future = modus_future_make(
        sizeof(struct modus_thread_job) + input + p->pool.attr.output_max, references);

    if (!future)
        return NULL;
    struct modus_thread_job *job = modus_thread_job_of(future);
    job->run = task->run;
    job->size = task->size;
    job->owner = task->owner;
    job->priority = (uint8_t)task->priority;
    job->slow = task->slow;
    job->listed = false;
    if (task->size > 0)
        memcpy(job->input, task->input, task->size);
    future->ops = &modus_thread_future_ops;
    future->owner = p;
    future->value = job->input + input;
    future->room = p->pool.attr.output_max;
    return future;
}

int modus_thread_pool_put(struct modus_thread_pool *p, struct modus_future *future, int64_t ns)
{
    if (p->pool.attr.priorities)
        return modus_queue_put_key(&p->queue, &future,
                                   modus_pool_key(modus_thread_job_of(future)->priority), ns);
    return modus_queue_put(&p->queue, &future, ns);
}

static int put_slow(struct modus_thread_pool *p, struct modus_future *future, int64_t ns)
{
    int64_t deadline = modus_deadline(ns);
    int rc = modus_slow_enter(p, ns);

    if (rc < 0)
        return rc;
    if (ns > 0) {
        ns = deadline - modus_now_ns();
        ns = ns > 0 ? ns : 1;
    }
    rc = modus_thread_pool_put(p, future, ns);
    if (rc < 0)
        modus_slow_leave(p);
    return rc;
}

static size_t queued(struct modus_thread_pool *p)
{
    return modus_queue_len(&p->queue) + atomic_load_explicit(&p->aside_count, memory_order_relaxed);
}

static int put(struct modus_thread_pool *p, struct modus_future *future,
               const struct modus_task *task, int64_t ns)
{
    bool worker = modus_is_worker_of(p) && !modus_park_instead;
    int rc = task->slow ? put_slow(p, future, worker ? 0 : ns)
                        : modus_thread_pool_put(p, future, worker ? 0 : ns);

    if (rc == MODUS_FULL && worker && ns != 0) {
        bool begun = modus_future_begin(future) == 0; /* or its owner's have been cancelled */
        if (task->owner)
            modus_thread_pool_disown(p, future);
        modus_thread_pool_spare(p);
        if (begun)
            modus_thread_worker_run(modus_working, future, false);
        modus_future_put(future);
        return 0;
    }
    if (rc == 0)
        modus_pool_queued(&p->pool, queued(p));
    return rc;
}

/* It could not be queued: then it is no task, unless it has been cancelled by its owner, as one. */
static int give_up(struct modus_thread_pool *p, struct modus_future *future, bool wanted, int rc)
{
    bool cancelled = false;

    if (modus_is_owned(future)) {
        modus_thread_pool_disown(p, future);
        cancelled = modus_future_begin(future) < 0;
    }
    modus_future_put(future); /* the queue's */
    if (wanted && !cancelled)
        modus_future_put(future);
    return cancelled ? 0 : rc;
}

static int submit(struct modus_pool *pool, struct modus_future **future,
                  const struct modus_task *task, int64_t ns)
{
    struct modus_thread_pool *p = pool_of(pool);
    struct modus_future *made = make(p, task, future ? 2 : 1);

    if (!made)
        return -ENOMEM;
    int rc = modus_thread_pool_ensure(p);
    if (rc == 0 && task->owner)
        modus_thread_pool_own(p, made);
    if (rc == 0 && (rc = put(p, made, task, ns)) < 0)
        modus_thread_pool_spare(p);
    if (rc == MODUS_CLOSED)
        rc = modus_pool_refusal(pool); /* by whom */
    if (rc < 0)
        rc = give_up(p, made, future, rc);
    if (rc == 0 && future)
        *future = made;
    return rc;
}

static long cancel(struct modus_pool *pool, const void *owner)
{
    struct modus_thread_pool *p = pool_of(pool);
    struct modus_future *future;
    long cancelled = 0;

    if (owner)
        return modus_thread_pool_cancel_owner(p, owner);
    while (modus_queue_try_get(&p->queue, &future) == 0 || (future = modus_slow_shut(p)) != NULL) {
        cancelled += modus_future_cancel(future) == 0;
        modus_thread_entry_done(p, future);
        modus_future_put(future);
    }
    return cancelled;
}

static void close_pool(struct modus_pool *pool)
{
    struct modus_thread_pool *p = pool_of(pool);

    modus_queue_close(&p->queue, MODUS_CLOSE_DRAIN);
    modus_slow_flood(p);
    modus_thread_pool_lock(p);
    if (atomic_load(&p->alive) == 0)
        modus_pool_gone(pool);
    modus_thread_pool_unlock(p);
}

static void terminate(struct modus_pool *pool)
{
    close_pool(pool);
    cancel(pool, NULL);
}

static bool inside(struct modus_pool *pool)
{
    return modus_is_worker_of(pool_of(pool));
}

static void reap(struct modus_pool *pool)
{
    modus_thread_pool_bury(pool_of(pool), NULL);
}

static void stats(struct modus_pool *pool, struct modus_pool_stats *out)
{
    struct modus_thread_pool *p = pool_of(pool);

    modus_thread_pool_lock(p);
    uint64_t begun = p->begun, done = p->done;
    for (struct modus_thread_worker *worker = p->workers; worker; worker = worker->next) {
        done += atomic_load(&worker->done);
        begun += atomic_load(&worker->begun);
    }
    out->workers = atomic_load(&p->alive);
    out->replaced = p->replaced;
    out->deaths = p->deaths;
    out->idled = p->idled;
    modus_thread_pool_unlock(p);
    out->queued = (unsigned)queued(p);
    out->done = done;
    out->running = begun > done ? (unsigned)(begun - done) : 0;
}

static unsigned workers(struct modus_pool *pool, int *ids, unsigned room)
{
    struct modus_thread_pool *p = pool_of(pool);
    unsigned n = 0;

    modus_thread_pool_lock(p);
    for (struct modus_thread_worker *worker = p->workers; worker; worker = worker->next, n++)
        if (n < room)
            ids[n] = modus_thread_tid(worker->thread);
    modus_thread_pool_unlock(p);
    return n;
}

static void *alloc(struct modus_pool *pool, size_t size)
{
    (void)pool;
    return calloc(1, size);
}

static void release(struct modus_pool *pool, void *memory, size_t size)
{
    (void)pool;
    (void)size;
    free(memory);
}

static void destroy(struct modus_pool *pool)
{
    struct modus_thread_pool *p = pool_of(pool);

    modus_queue_fini(&p->queue);
    modus_sem_fini(&p->slow_room);
    modus_lock_fini(&p->slow_lock);
    modus_lock_fini(&p->owned_lock);
    modus_lock_fini(&p->lock);
    free(p);
}

static const struct modus_pool_ops ops = {submit, close_pool, terminate, cancel,  inside, reap,
                                          stats,  workers,    alloc,     release, destroy};

/* With an initializer: the first worker shows whether it is any good. */
static int begin(struct modus_thread_pool *p)
{
    modus_thread_pool_lock(p);
    int rc = modus_thread_worker_start(p);
    modus_thread_pool_unlock(p);
    while (rc == 0 && atomic_load(&p->began) == 0)
        modus_park_deaf(MODUS_THREAD, &p->began, 0, MODUS_FOREVER, NULL);
    return rc < 0 ? rc : -(int)atomic_load(&p->pool.broken);
}

int modus_pool_thread_new(struct modus_pool **pool, const struct modus_pool_attr *attr)
{
    struct modus_thread_pool *p = calloc(1, sizeof *p);

    if (!p)
        return -ENOMEM;
    modus_pool_init(&p->pool, &ops, attr);
    modus_lock_init(&p->lock, MODUS_THREAD);
    modus_lock_init(&p->owned_lock, MODUS_THREAD);
    modus_lock_init(&p->slow_lock, MODUS_THREAD);
    modus_sem_init(&p->slow_room,
                   &(struct modus_sem_attr){.scope = MODUS_THREAD, .value = attr->capacity});
    int rc = modus_queue_init(
        &p->queue, &(struct modus_queue_attr){
                       .scope = MODUS_THREAD,
                       .order = attr->priorities ? MODUS_QUEUE_PRIORITY : MODUS_QUEUE_FIFO,
                       .capacity = attr->capacity,
                       .item_size = sizeof(struct modus_future *),
                       .spin = MODUS_POOL_LOOKS,
                   });
    if (rc < 0) {
        modus_lock_fini(&p->lock);
        free(p);
        return rc;
    }
    if (attr->initializer)
        rc = begin(p);
    if (rc < 0) {
        modus_pool_free(&p->pool);
        return rc;
    }
    *pool = &p->pool;
    return 0;
}
