/* SPDX-License-Identifier: MIT */
/*
 * Pools of threads.
 *
 * The queue holds futures; behind each lie the function, its input and room for the answer, so that
 * a task is one allocation. An entry of the queue owns a reference. One whose future is no longer
 * pending when a worker comes to it (cancelled, or run by one that waited for it) is passed over.
 *
 * Waiting inside of a pool. A worker that waits for a pending task of its pool begins it itself, and
 * only that one: any other might, further down the same stack, wait for the very task that is
 * suspended there. So whoever sleeps, sleeps for a task that runs on another thread, and if all
 * threads of a pool slept they would form a circle: which is looked for, from future to runner to
 * the future that the runner waits for, before the sleep that would close it.
 *
 * Threads are made under the lock, at the submit that finds more unfinished tasks than threads.
 * Counters belong to one worker each and are added up when somebody asks.
 */
#include "concurrency/park.h"
#include "concurrency/pool_priv.h"
#include "concurrency/queue.h"
#include "concurrency/self.h"
#include "concurrency/thread.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct worker {
    _Alignas(128) _Atomic uint64_t handled; /* entries of the queue; written by the worker alone */
    _Atomic uint64_t begun, done;           /* tasks; so are these */
    _Alignas(128) struct worker *next;      /* under the pool's lock */
    struct thread_pool *pool;
    struct modus_thread *thread;
    struct modus_future *waiting; /* under the lock of hooks */
    struct modus_future *task;    /* that it runs; its own, as are the next two */
    unsigned count;               /* tasks of tasks_max */
    bool ready;                   /* initialized */
};

struct thread_pool {
    struct modus_pool pool; /* first member */
    struct modus_queue queue;
    _Atomic uint32_t alive;     /* workers; changed under lock */
    _Atomic uint64_t submitted; /* while threads are still made */
    struct modus_lock lock;     /* guards what follows */
    struct worker *workers;
    struct worker *retired;        /* have ended or are about to */
    unsigned numbers;              /* for names */
    unsigned failures;             /* of initializers in a row */
    _Atomic uint32_t began;        /* initializers that have ended; what new waits for */
    uint64_t handled, begun, done; /* of those that are gone */
    uint64_t replaced, deaths;
};

/* Behind the future. */
struct job {
    modus_task_function *run;
    size_t size;
    _Alignas(16) unsigned char input[];
};

static _Thread_local struct worker *self;

static struct thread_pool *pool_of(struct modus_pool *pool)
{
    return (struct thread_pool *)(void *)pool;
}

static struct job *job_of(struct modus_future *future)
{
    return (struct job *)(void *)(future + 1);
}

static void lock(struct thread_pool *p)
{
    modus_lock_acquire(&p->lock, MODUS_FOREVER);
}

static void unlock(struct thread_pool *p)
{
    modus_lock_release(&p->lock);
}

/* Of a counter that one thread writes. */
static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static bool is_worker_of(struct thread_pool *p)
{
    return self && self->pool == p;
}

/* --- running tasks --------------------------------------------------------------------------- */

/* It is RUNNING by us. queued: it is an entry of the queue, which is counted as handled before the
 * end, since a submit may count us as free after it. */
static void run(struct worker *worker, struct modus_future *future, bool queued)
{
    char text[MODUS_POOL_TEXT] = "";
    struct job *job = job_of(future);
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
static void handle(struct worker *worker, struct modus_future *future)
{
    if (atomic_load_explicit(&worker->pool->pool.stop, memory_order_relaxed))
        modus_future_cancel(future);
    if (modus_future_begin(future) == 0) {
        run(worker, future, true);
        worker->count++;
    } else {
        count(&worker->handled);
    }
    modus_future_put(future);
}

/* --- waiting in a pool ------------------------------------------------------------------------ */

/* Does a worker still have it in hand, its task or its callbacks? */
static bool is_run(struct modus_future *future)
{
    uint32_t state = modus_future_state_of(atomic_load(&future->word));

    return state == MODUS_FUTURE_RUNNING || state == MODUS_FUTURE_SETTLING;
}

/* Under the lock of hooks: does the worker that runs it wait, by way of others, for ours? */
static bool circle(struct worker *ours, struct modus_future *future)
{
    while (future && is_run(future)) {
        struct worker *runner = atomic_load(&future->runner);

        if (runner == ours)
            return true;
        future = runner ? runner->waiting : NULL;
    }
    return false;
}

static int enter(struct modus_future *future)
{
    if (!self || modus_park_instead) /* a thread that runs coroutines waits for many at a time */
        return 0;
    if (future->owner == self->pool && modus_future_begin(future) == 0) {
        run(self, future, false);
        return 0;
    }
    modus_future_lock();
    bool closed = circle(self, future);
    if (!closed)
        self->waiting = future;
    modus_future_unlock();
    return closed ? -EDEADLK : 0;
}

static void leave(struct modus_future *future)
{
    (void)future;
    if (!self || modus_park_instead)
        return;
    modus_future_lock();
    self->waiting = NULL;
    modus_future_unlock();
}

static bool pending(const struct modus_future *future)
{
    (void)future;
    return true;
}

static enum modus_withdrawal withdraw(struct modus_future *future)
{
    (void)future;
    return MODUS_WITHDRAWN;
}

static void drop(struct modus_future *future)
{
    (void)future;
}

static const struct modus_future_ops future_ops = {true,     enter, leave, pending,
                                                   withdraw, drop,  NULL};

/* --- workers --------------------------------------------------------------------------------- */

static void *work(void *argument);

/* Under the lock. */
static int start_worker(struct thread_pool *p)
{
    char name[MODUS_POOL_NAME + 12];
    struct worker *worker = aligned_alloc(128, sizeof *worker);

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
static void retire(struct thread_pool *p, struct worker *worker)
{
    struct worker **at = &p->workers;

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
static struct modus_thread *get_retired(struct thread_pool *p, const struct worker *before)
{
    struct worker *worker = before ? before->next : p->retired;

    return worker ? modus_thread_get(worker->thread) : NULL;
}

/* Under the lock: the thread has been joined. Free its worker, unless another that joined it has. */
static void free_retired(struct thread_pool *p, struct modus_thread *thread)
{
    struct worker **at = &p->retired;

    while (*at && (*at)->thread != thread)
        at = &(*at)->next;
    struct worker *worker = *at;
    if (!worker)
        return;
    *at = worker->next;
    modus_thread_put(worker->thread);
    modus_future_lock(); /* nobody looks at it on the way to its future */
    modus_future_unlock();
    free(worker);
}

/* Wait for what is left of those that were retired before the one given (NULL: of all), and free them;
 * so no two wait for each other. Not under the lock: the destructors of a thread's own variables may
 * look at the pool. */
static void bury(struct thread_pool *p, const struct worker *before)
{
    struct modus_thread *thread;

    lock(p);
    while ((thread = get_retired(p, before)) != NULL) {
        unlock(p);
        modus_thread_join(thread, MODUS_FOREVER, NULL);
        lock(p);
        free_retired(p, thread);
        modus_thread_put(thread);
    }
    unlock(p);
}

/* Another takes the worker's place, which is counted. Returns false if none can be had. */
static bool replace(struct worker *worker, uint64_t *counter)
{
    struct thread_pool *p = worker->pool;

    lock(p);
    bool replaced = start_worker(p) == 0;
    if (replaced) {
        retire(p, worker);
        atomic_fetch_sub(&p->alive, 1);
        ++*counter;
    }
    worker->count = 0;
    unlock(p);
    if (replaced)
        bury(p, worker);
    return replaced;
}

/* The last worker of a pool that runs is gone: it was of no use, and so were those before. End what
 * is queued with the initializer's code. */
static void break_pool(struct thread_pool *p, int code)
{
    struct modus_future *future;

    modus_queue_close(&p->queue, MODUS_CLOSE_DRAIN);
    while (modus_queue_get(&p->queue, &future, MODUS_FOREVER) == 0) {
        if (modus_future_begin(future) == 0)
            modus_future_end(future, code, NULL, 0, "the initializer of the pool's worker failed");
        modus_future_put(future);
    }
}

static void tell_began(struct thread_pool *p)
{
    atomic_fetch_add(&p->began, 1);
    modus_unpark(MODUS_THREAD, &p->began, 1);
}

/* code: of its initializer. */
static void end(struct worker *worker, int code)
{
    struct thread_pool *p = worker->pool;

    lock(p);
    retire(p, worker);
    bool last = atomic_fetch_sub(&p->alive, 1) == 1;
    if (last && code < 0)
        atomic_store(&p->pool.broken, (uint32_t)-code);
    bool broken = last && code < 0 && modus_pool_move(&p->pool, MODUS_POOL_BROKEN);
    unlock(p);
    if (broken) {
        break_pool(p, code);
        tell_began(p);
    }
    if (last && atomic_load(&p->pool.state) != MODUS_POOL_RUNNING)
        modus_pool_gone(&p->pool);
}

/* After a failure another worker tries. */
static void note_initialized(struct thread_pool *p, int rc)
{
    lock(p);
    p->failures = rc < 0 ? p->failures + 1 : 0;
    if (rc < 0 && p->failures < MODUS_POOL_FAILURES)
        start_worker(p);
    unlock(p);
    if (rc >= 0)
        tell_began(p);
}

/* Returns what the initializer does. */
static int initialize(struct worker *worker)
{
    struct thread_pool *p = worker->pool;
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
    struct worker *worker = argument;
    struct thread_pool *p = worker->pool;
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
    if (!worker->ready)
        note_initialized(p, MODUS_WORKERDIED);
    else if (replace(worker, &p->deaths))
        return;
    end(worker, MODUS_WORKERDIED);
}

/* Returns false when another has taken its place. */
static bool serve(struct worker *worker)
{
    struct thread_pool *p = worker->pool;
    struct modus_future *future;

    while (modus_queue_get(&p->queue, &future, MODUS_FOREVER) == 0) {
        handle(worker, future);
        if (p->pool.attr.tasks_max && worker->count >= p->pool.attr.tasks_max &&
            replace(worker, &p->replaced))
            return false;
    }
    return true;
}

static void live(struct worker *worker)
{
    int rc = initialize(worker);

    if (rc < 0 || serve(worker))
        end(worker, rc);
}

static void *work(void *argument)
{
    self = argument;
    pthread_cleanup_push(die, argument);
    live(argument);
    pthread_cleanup_pop(0);
    return NULL;
}

/* Under the lock: tasks in the queue or in work. */
static uint64_t unfinished(struct thread_pool *p)
{
    uint64_t handled = p->handled;

    for (struct worker *worker = p->workers; worker; worker = worker->next)
        handled += atomic_load_explicit(&worker->handled, memory_order_relaxed);
    return atomic_load(&p->submitted) - handled;
}

/* A task more is coming: is there a thread for it? Returns below 0 only when there is none at all. */
static int ensure_worker(struct thread_pool *p)
{
    if (atomic_load_explicit(&p->alive, memory_order_relaxed) >= p->pool.attr.n)
        return 0;
    atomic_fetch_add(&p->submitted, 1);
    lock(p);
    uint32_t alive = atomic_load(&p->alive);
    int rc = modus_pool_refusal(&p->pool);
    if (rc == 0 && alive < p->pool.attr.n && unfinished(p) > alive)
        rc = start_worker(p);
    unlock(p);
    if (rc < 0 && (alive == 0 || rc == MODUS_CLOSED || rc == MODUS_BROKEN)) {
        atomic_fetch_sub(&p->submitted, 1);
        return rc;
    }
    return 0;
}

/* --- the pool's verbs ------------------------------------------------------------------------- */

static struct modus_future *make(struct thread_pool *p, const struct modus_task *task,
                                 uint32_t references)
{
    size_t input = (task->size + 15) / 16 * 16;
    struct modus_future *future =
        modus_future_make(sizeof(struct job) + input + p->pool.attr.output_max, references);

    if (!future)
        return NULL;
    struct job *job = job_of(future);
    job->run = task->run;
    job->size = task->size;
    if (task->size > 0)
        memcpy(job->input, task->input, task->size);
    future->ops = &future_ops;
    future->owner = p;
    future->value = job->input + input;
    future->room = p->pool.attr.output_max;
    return future;
}

static int put(struct thread_pool *p, struct modus_future *future, int64_t ns)
{
    bool worker = is_worker_of(p) && !modus_park_instead;
    int rc = modus_queue_put(&p->queue, &future, worker ? 0 : ns);

    if (rc == MODUS_FULL && worker && ns != 0) {
        modus_future_begin(future);
        run(self, future, false);
        modus_future_put(future);
        return 0;
    }
    if (rc == 0)
        modus_pool_queued(&p->pool, modus_queue_len(&p->queue));
    return rc;
}

static int submit(struct modus_pool *pool, struct modus_future **future,
                  const struct modus_task *task, int64_t ns)
{
    struct thread_pool *p = pool_of(pool);
    struct modus_future *made = make(p, task, future ? 2 : 1);

    if (!made)
        return -ENOMEM;
    int rc = ensure_worker(p);
    if (rc == 0)
        rc = put(p, made, ns);
    if (rc == MODUS_CLOSED)
        rc = modus_pool_refusal(pool); /* by whom */
    if (rc < 0) {
        atomic_store(&made->references, 1);
        modus_future_put(made);
        return rc;
    }
    if (future)
        *future = made;
    return 0;
}

static void cancel(struct modus_pool *pool)
{
    struct modus_future *future;

    while (modus_queue_try_get(&pool_of(pool)->queue, &future) == 0) {
        modus_future_cancel(future);
        modus_future_put(future);
    }
}

static void close_pool(struct modus_pool *pool)
{
    struct thread_pool *p = pool_of(pool);

    modus_queue_close(&p->queue, MODUS_CLOSE_DRAIN);
    lock(p);
    if (atomic_load(&p->alive) == 0)
        modus_pool_gone(pool);
    unlock(p);
}

static void terminate(struct modus_pool *pool)
{
    close_pool(pool);
    cancel(pool);
}

static bool inside(struct modus_pool *pool)
{
    return is_worker_of(pool_of(pool));
}

static void reap(struct modus_pool *pool)
{
    bury(pool_of(pool), NULL);
}

static void stats(struct modus_pool *pool, struct modus_pool_stats *out)
{
    struct thread_pool *p = pool_of(pool);

    lock(p);
    uint64_t begun = p->begun, done = p->done;
    for (struct worker *worker = p->workers; worker; worker = worker->next) {
        done += atomic_load(&worker->done);
        begun += atomic_load(&worker->begun);
    }
    out->workers = atomic_load(&p->alive);
    out->replaced = p->replaced;
    out->deaths = p->deaths;
    unlock(p);
    out->queued = (unsigned)modus_queue_len(&p->queue);
    out->done = done;
    out->running = begun > done ? (unsigned)(begun - done) : 0;
}

static unsigned workers(struct modus_pool *pool, int *ids, unsigned room)
{
    struct thread_pool *p = pool_of(pool);
    unsigned n = 0;

    lock(p);
    for (struct worker *worker = p->workers; worker; worker = worker->next, n++)
        if (n < room)
            ids[n] = modus_thread_tid(worker->thread);
    unlock(p);
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
    struct thread_pool *p = pool_of(pool);

    modus_queue_fini(&p->queue);
    modus_lock_fini(&p->lock);
    free(p);
}

static const struct modus_pool_ops ops = {submit, close_pool, terminate, cancel,  inside, reap,
                                          stats,  workers,    alloc,     release, destroy};

/* With an initializer: the first worker shows whether it is any good. */
static int begin(struct thread_pool *p)
{
    lock(p);
    int rc = start_worker(p);
    unlock(p);
    while (rc == 0 && atomic_load(&p->began) == 0)
        modus_park_deaf(MODUS_THREAD, &p->began, 0, MODUS_FOREVER, NULL);
    return rc < 0 ? rc : -(int)atomic_load(&p->pool.broken);
}

int modus_pool_thread_new(struct modus_pool **pool, const struct modus_pool_attr *attr)
{
    struct thread_pool *p = calloc(1, sizeof *p);

    if (!p)
        return -ENOMEM;
    modus_pool_init(&p->pool, &ops, attr);
    modus_lock_init(&p->lock, MODUS_THREAD);
    int rc = modus_queue_init(&p->queue, &(struct modus_queue_attr){
                                             .scope = MODUS_THREAD,
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
