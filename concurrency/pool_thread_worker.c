/* SPDX-License-Identifier: MIT */
/*
 * The workers of a pool of threads: what they do with an entry of the queue, and how they come and
 * go.
 *
 * Threads are made under the lock, at the submit that finds more unfinished tasks than threads.
 * Counters belong to one worker each and are added up when somebody asks.
 *
 * With idle_ns threads end, too, and then a submit must not count on one that is about to. It first
 * counts its task, then looks how many threads there are; a thread first counts itself out, then looks
 * how many tasks there are. So at least one of them sees the other: the submit, which makes another
 * thread, or the thread, which stays. Which threads are to stay is settled before they sleep, so that
 * none wakes up to find that it is one of them.
 */
#include "concurrency/park.h"
#include "concurrency/pool_thread_priv.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Thread_local struct modus_thread_worker *modus_working;

/* Of a counter that one thread writes. */
static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* --- running tasks --------------------------------------------------------------------------- */

void modus_thread_worker_run(struct modus_thread_worker *worker, struct modus_future *future,
                             bool queued)
{
    char text[MODUS_POOL_TEXT] = "";
    struct modus_thread_job *job = modus_thread_job_of(future);
    struct modus_call call = {
        .input = job->input,
        .size = job->size,
        .output = future->value,
        .room = future->room,
        .text = text,
        .text_room = sizeof text,
        .stop = &worker->pool->pool.stop,
    };

    atomic_store_explicit(&future->runner, worker, memory_order_relaxed);
    future->outer = worker->task;
    worker->task = future;
    count(&worker->begun);
    int code = job->run(&call);
    count(&worker->done);
    worker->task = future->outer;
    if (queued)
        count(&worker->handled);
    modus_future_end(future, code, future->value, call.answered, text);
}

/* An entry of the queue. */
static void handle(struct modus_thread_worker *worker, struct modus_future *future)
{
    if (atomic_load_explicit(&worker->pool->pool.stop, memory_order_relaxed))
        modus_future_cancel(future);
    bool begun = modus_future_begin(future) == 0;
    modus_thread_entry_done(worker->pool, future);
    if (begun) {
        modus_thread_worker_run(worker, future, true);
        worker->count++;
    } else {
        count(&worker->handled);
    }
    modus_future_put(future);
}

static void handle_slow(struct modus_thread_worker *worker, struct modus_future *future)
{
    worker->slow = true;
    handle(worker, future);
    worker->slow = false;
    modus_slow_end(worker->pool);
}

/* --- workers --------------------------------------------------------------------------------- */

static void *work(void *argument);

int modus_thread_worker_start(struct modus_thread_pool *p)
{
    char name[MODUS_POOL_NAME + 12];
    struct modus_thread_worker *worker = aligned_alloc(128, sizeof *worker);

    if (!worker)
        return -ENOMEM;
    memset(worker, 0, sizeof *worker);
    worker->pool = p;
    snprintf(name, sizeof name, "%s-%u", p->pool.name, ++p->numbers);
    int rc = modus_thread_new(
        &worker->thread,
        &(struct modus_thread_attr){.name = name, .daemon = MODUS_DAEMON_YES, .no_signals = true},
        work, worker);
    if (rc == 0 && (rc = modus_thread_start(worker->thread)) < 0)
        modus_thread_put(worker->thread);
    if (rc < 0) {
        free(worker);
        return rc;
    }
    worker->next = p->workers;
    p->workers = worker;
    atomic_fetch_add(&p->alive, 1);
    return 0;
}

/* Under the lock: take a worker off the list of those that work. */
static void retire(struct modus_thread_pool *p, struct modus_thread_worker *worker)
{
    struct modus_thread_worker **at = &p->workers;

    while (*at != worker)
        at = &(*at)->next;
    *at = worker->next;
    worker->next = p->retired;
    p->retired = worker;
    p->handled += atomic_load(&worker->handled);
    p->begun += atomic_load(&worker->begun);
    p->done += atomic_load(&worker->done);
}

/* Under the lock: the thread of one that was retired, before the one given (NULL: at any time); NULL:
 * there is none. */
static struct modus_thread *get_retired(struct modus_thread_pool *p,
                                        const struct modus_thread_worker *before)
{
    struct modus_thread_worker *worker = before ? before->next : p->retired;

    return worker ? modus_thread_get(worker->thread) : NULL;
}

/* Under the lock: the thread has been joined. Free its worker, unless another that joined it has. */
static void free_retired(struct modus_thread_pool *p, struct modus_thread *thread)
{
    struct modus_thread_worker **at = &p->retired;

    while (*at && (*at)->thread != thread)
        at = &(*at)->next;
    struct modus_thread_worker *worker = *at;
    if (!worker)
        return;
    *at = worker->next;
    modus_thread_put(worker->thread);
    modus_future_lock(); /* nobody looks at it on the way to its future */
    modus_future_unlock();
    free(worker);
}

void modus_thread_pool_bury(struct modus_thread_pool *p, const struct modus_thread_worker *before)
{
    struct modus_thread *thread;

    modus_thread_pool_lock(p);
    while ((thread = get_retired(p, before)) != NULL) {
        modus_thread_pool_unlock(p);
        modus_thread_join(thread, MODUS_FOREVER, NULL);
        modus_thread_pool_lock(p);
        free_retired(p, thread);
        modus_thread_put(thread);
    }
    modus_thread_pool_unlock(p);
}

/* Another takes the worker's place, which is counted. Returns false if none can be had. */
static bool replace(struct modus_thread_worker *worker, uint64_t *counter)
{
    struct modus_thread_pool *p = worker->pool;

    modus_thread_pool_lock(p);
    bool replaced = modus_thread_worker_start(p) == 0;
    if (replaced) {
        retire(p, worker);
        atomic_fetch_sub(&p->alive, 1);
        ++*counter;
    }
    worker->count = 0;
    modus_thread_pool_unlock(p);
    if (replaced)
        modus_thread_pool_bury(p, worker);
    return replaced;
}

static void fail(struct modus_thread_pool *p, struct modus_future *future, int code,
                 const char *text)
{
    if (modus_future_begin(future) == 0)
        modus_future_end(future, code, NULL, 0, text);
    modus_thread_entry_done(p, future);
    modus_future_put(future);
}

/* The last worker of a pool that runs is gone: it was of no use, and so were those before. End what
 * is queued with the initializer's code. */
static void break_pool(struct modus_thread_pool *p, int code)
{
    struct modus_future *future;

    modus_queue_close(&p->queue, MODUS_CLOSE_DRAIN);
    modus_slow_flood(p);
    while (modus_queue_get(&p->queue, &future, MODUS_FOREVER) == 0)
        fail(p, future, code, "the initializer of the pool's worker failed");
}

/* No thread is left that would look aside. */
static void fail_aside(struct modus_thread_pool *p)
{
    struct modus_future *future;

    while ((future = modus_slow_shut(p)) != NULL)
        fail(p, future, MODUS_WORKERDIED, "no thread is left for it");
}

static void tell_began(struct modus_thread_pool *p)
{
    atomic_fetch_add(&p->began, 1);
    modus_unpark(MODUS_THREAD, &p->began, 1);
}

/* code: of its initializer. */
static void end(struct modus_thread_worker *worker, int code)
{
    struct modus_thread_pool *p = worker->pool;

    modus_thread_pool_lock(p);
    retire(p, worker);
    bool last = atomic_fetch_sub(&p->alive, 1) == 1;
    if (last && code < 0)
        atomic_store(&p->pool.broken, (uint32_t)-code);
    bool broken = last && code < 0 && modus_pool_move(&p->pool, MODUS_POOL_BROKEN);
    modus_thread_pool_unlock(p);
    if (broken) {
        break_pool(p, code);
        tell_began(p);
    }
    if (last && atomic_load(&p->pool.state) != MODUS_POOL_RUNNING) {
        fail_aside(p);
        modus_pool_gone(&p->pool);
    }
}

/* After a failure another worker tries. */
static void note_initialized(struct modus_thread_pool *p, int rc)
{
    modus_thread_pool_lock(p);
    p->failures = rc < 0 ? p->failures + 1 : 0;
    if (rc < 0 && p->failures < MODUS_POOL_FAILURES)
        modus_thread_worker_start(p);
    modus_thread_pool_unlock(p);
    if (rc >= 0)
        tell_began(p);
}

/* Returns what the initializer does. */
static int initialize(struct modus_thread_worker *worker)
{
    struct modus_thread_pool *p = worker->pool;
    int rc = 0;

    if (p->pool.attr.initializer) {
        rc = p->pool.attr.initializer(p->pool.attr.argument);
        note_initialized(p, rc);
    }
    worker->ready = rc >= 0;
    return rc;
}

/* What it runs called pthread_exit. */
static void die(void *argument)
{
    struct modus_thread_worker *worker = argument;
    struct modus_thread_pool *p = worker->pool;
    struct modus_future *future, *outer;

    for (future = worker->task; future; future = outer) {
        outer = future->outer;
        count(&worker->done);
        if (!outer)
            count(&worker->handled);
        modus_future_end(future, MODUS_WORKERDIED, NULL, 0, "the task ended its thread");
        if (!outer) /* it was the queue's */
            modus_future_put(future);
    }
    worker->task = NULL;
    bool slow = worker->slow;
    if (slow)
        modus_slow_end(p);
    if (!worker->ready)
        note_initialized(p, MODUS_WORKERDIED);
    else if (replace(worker, &p->deaths))
        return;
    if (slow)
        modus_slow_pass_on(p);
    end(worker, MODUS_WORKERDIED);
}

/* Under the lock: tasks in the queue or in work. */
static uint64_t unfinished(struct modus_thread_pool *p)
{
    uint64_t handled = p->handled;

    for (struct modus_thread_worker *worker = p->workers; worker; worker = worker->next)
        handled += atomic_load_explicit(&worker->handled, memory_order_relaxed);
    return atomic_load(&p->submitted) - handled;
}

/* It has been idle for too long. Returns false if it is needed. */
static bool leave(struct modus_thread_worker *worker)
{
    struct modus_thread_pool *p = worker->pool;

    modus_thread_pool_lock(p);
    uint32_t left = atomic_fetch_sub(&p->alive, 1) - 1;
    bool leaves = atomic_load(&p->pool.state) == MODUS_POOL_RUNNING && left >= p->pool.attr.n_min &&
                  unfinished(p) <= left;
    if (leaves) {
        retire(p, worker);
        p->idled++;
    } else {
        atomic_fetch_add(&p->alive, 1);
    }
    modus_thread_pool_unlock(p);
    if (leaves)
        modus_thread_pool_bury(p, worker);
    return leaves;
}

/* One more idle worker: is it one of those that stay? */
static bool stays(struct modus_thread_pool *p)
{
    uint32_t staying = atomic_load(&p->staying);

    while (staying < p->pool.attr.n_min)
        if (atomic_compare_exchange_weak(&p->staying, &staying, staying + 1))
            return true;
    return false;
}

/* The queue is empty. Returns as modus_queue_get. */
static int idle(struct modus_thread_pool *p, struct modus_future **future)
{
    if (!stays(p))
        return modus_queue_get(&p->queue, future, p->pool.attr.idle_ns);
    int rc = modus_queue_get(&p->queue, future, MODUS_FOREVER);
    atomic_fetch_sub(&p->staying, 1);
    return rc;
}

/* The next entry of the queue. */
static int next(struct modus_thread_pool *p, struct modus_future **future)
{
    if (p->pool.attr.idle_ns == 0)
        return modus_queue_get(&p->queue, future, MODUS_FOREVER);
    int rc = modus_queue_get(&p->queue, future, 0);
    return rc == MODUS_EMPTY ? idle(p, future) : rc;
}

/* Do one task. Returns 0, -ETIMEDOUT (there was none for too long) or MODUS_CLOSED. */
static int serve_one(struct modus_thread_worker *worker)
{
    struct modus_thread_pool *p = worker->pool;
    struct modus_future *future = NULL;

    if (atomic_load_explicit(&p->aside_count, memory_order_relaxed) > 0)
        future = modus_slow_next(p);
    if (future) {
        handle_slow(worker, future);
        return 0;
    }
    int rc = next(p, &future);
    if (rc < 0)
        return rc;
    if (!modus_thread_job_of(future)->slow)
        handle(worker, future);
    else if (modus_slow_begin(p, future))
        handle_slow(worker, future);
    return 0;
}

/* Returns false when another has taken its place, or it is not needed. */
static bool serve(struct modus_thread_worker *worker)
{
    struct modus_thread_pool *p = worker->pool;
    int rc;

    while ((rc = serve_one(worker)) == 0 || rc == -ETIMEDOUT) {
        if (rc < 0 && leave(worker))
            return false;
        if (p->pool.attr.tasks_max && worker->count >= p->pool.attr.tasks_max &&
            replace(worker, &p->replaced))
            return false;
    }
    return true;
}

static void live(struct modus_thread_worker *worker)
{
    int rc = initialize(worker);

    if (rc < 0 || serve(worker))
        end(worker, rc);
}

static void *work(void *argument)
{
    modus_working = argument;
    pthread_cleanup_push(die, argument);
    live(argument);
    pthread_cleanup_pop(0);
    return NULL;
}

int modus_thread_pool_ensure(struct modus_thread_pool *p)
{
    if (atomic_load_explicit(&p->alive, memory_order_relaxed) >= p->pool.attr.n &&
        p->pool.attr.idle_ns == 0)
        return 0;
    atomic_fetch_add(&p->submitted, 1);
    if (atomic_load(&p->alive) >= p->pool.attr.n)
        return 0;
    modus_thread_pool_lock(p);
    uint32_t alive = atomic_load(&p->alive);
    int rc = modus_pool_refusal(&p->pool);
    if (rc == 0 && alive < p->pool.attr.n && unfinished(p) > alive)
        rc = modus_thread_worker_start(p);
    modus_thread_pool_unlock(p);
    if (rc < 0 && (alive == 0 || rc == MODUS_CLOSED || rc == MODUS_BROKEN)) {
        atomic_fetch_sub(&p->submitted, 1);
        return rc;
    }
    return 0;
}

void modus_thread_pool_spare(struct modus_thread_pool *p)
{
    if (p->pool.attr.idle_ns > 0) /* else it was not counted, or makes no difference */
        atomic_fetch_sub(&p->submitted, 1);
}
