/* SPDX-License-Identifier: MIT */
/* Apache Portable Runtime, and its util library: queue and thread pool. */
#include <apr_general.h>
#include <apr_proc_mutex.h>
#include <apr_queue.h>
#include <apr_thread_cond.h>
#include <apr_thread_mutex.h>
#include <apr_thread_pool.h>
#include <apr_thread_proc.h>
#include <unistd.h>

#include "tests/bench/toolbox/loops.h"

static apr_pool_t *memory;

static apr_pool_t *pool_of_memory(void)
{
    if (!memory) {
        NEED(apr_initialize() == APR_SUCCESS);
        NEED(apr_pool_create(&memory, NULL) == APR_SUCCESS);
    }
    return memory;
}

static void *make_none(struct run *run)
{
    (void)run;
    return pool_of_memory();
}

/* --- locks ------------------------------------------------------------------------------------ */

static void *make_mutex(struct run *run)
{
    apr_thread_mutex_t *mutex;

    (void)run;
    NEED(apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_UNNESTED, pool_of_memory()) == 0);
    return mutex;
}

static void *make_nested(struct run *run)
{
    apr_thread_mutex_t *mutex;

    (void)run;
    NEED(apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_NESTED, pool_of_memory()) == 0);
    return mutex;
}

static void acquire(void *mutex)
{
    apr_thread_mutex_lock(mutex);
}

static void release(void *mutex)
{
    apr_thread_mutex_unlock(mutex);
}

/* The kind that Apache itself prefers: a robust POSIX mutex. */
static void *make_process_mutex(struct run *run)
{
    apr_proc_mutex_t *mutex;

    (void)run;
    NEED(apr_proc_mutex_create(&mutex, NULL, APR_LOCK_PROC_PTHREAD, pool_of_memory()) == 0);
    return mutex;
}

static void process_acquire(void *mutex)
{
    apr_proc_mutex_lock(mutex);
}

static void process_release(void *mutex)
{
    apr_proc_mutex_unlock(mutex);
}

static const struct lock_ops mutex_ops = {make_mutex, nothing, nothing, acquire, release};
static const struct lock_ops nested_ops = {make_nested, nothing, nothing, acquire, release};
static const struct lock_ops process_ops = {make_process_mutex, nothing, nothing, process_acquire,
                                            process_release};
LOCK_JOB(mutex, mutex_ops)
LOCK_JOB(nested, nested_ops)
LOCK_JOB(process_mutex, process_ops)

static void process_recovery(struct run *run)
{
    recovery_run(run, &process_ops);
}

/* --- condition -------------------------------------------------------------------------------- */

struct flag {
    apr_thread_mutex_t *mutex;
    apr_thread_cond_t *raised;
    bool up;
};

static void *make_flag(struct run *run)
{
    struct flag *flag = apr_pcalloc(pool_of_memory(), sizeof *flag);

    flag->mutex = make_mutex(run);
    NEED(apr_thread_cond_create(&flag->raised, memory) == APR_SUCCESS);
    return flag;
}

static void raise_flag(void *object)
{
    struct flag *flag = object;

    apr_thread_mutex_lock(flag->mutex);
    flag->up = true;
    apr_thread_cond_signal(flag->raised);
    apr_thread_mutex_unlock(flag->mutex);
}

static void await_flag(void *object)
{
    struct flag *flag = object;

    apr_thread_mutex_lock(flag->mutex);
    while (!flag->up)
        apr_thread_cond_wait(flag->raised, flag->mutex);
    flag->up = false;
    apr_thread_mutex_unlock(flag->mutex);
}

static const struct relay_ops flag_ops = {make_flag, nothing, nothing, raise_flag, await_flag};
RELAY_JOB(cond_relay, flag_ops)

/* --- queue ------------------------------------------------------------------------------------ */

static void *make_queue(struct run *run)
{
    apr_queue_t *queue;

    NEED(apr_queue_create(&queue, run->capacity, pool_of_memory()) == APR_SUCCESS);
    return queue;
}

static void put(void *queue, const void *item)
{
    uint64_t number;

    memcpy(&number, item, sizeof number);
    while (apr_queue_push(queue, (void *)(uintptr_t)number) == APR_EINTR)
        ;
}

static void get(void *queue, void *item)
{
    void *got;

    while (apr_queue_pop(queue, &got) == APR_EINTR)
        ;
    uint64_t number = (uintptr_t)got;
    memcpy(item, &number, sizeof number);
}

static void queue_send(void *queue)
{
    uint64_t number = 1;

    put(queue, &number);
}

static void queue_receive(void *queue)
{
    uint64_t number;

    get(queue, &number);
}

static const struct queue_ops queue_ops = {make_queue, nothing, nothing, put, get};
static const struct relay_ops queue_relay_ops = {make_queue, nothing, nothing, queue_send,
                                                 queue_receive};
static const struct lock_ops queue_alone_ops = {make_queue, nothing, nothing, queue_send,
                                                queue_receive};
JOB(queue, queue_loop, queue_ops)
JOB(idle_queue, idle_loop, queue_ops)
JOB(queue_alone, lock_loop, queue_alone_ops)
RELAY_JOB(queue_relay, queue_relay_ops)

/* --- threads and pool ------------------------------------------------------------------------- */

static void *APR_THREAD_FUNC return_at_once(apr_thread_t *thread, void *argument)
{
    (void)thread;
    return argument;
}

/* A thread allocates from its pool, which must not grow for ever. */
static void start_and_join(void *object)
{
    apr_pool_t *pool;
    apr_thread_t *thread;
    apr_status_t status;

    NEED(apr_pool_create(&pool, object) == APR_SUCCESS);
    NEED(apr_thread_create(&thread, NULL, return_at_once, NULL, pool) == APR_SUCCESS);
    apr_thread_join(&status, thread);
    apr_pool_destroy(pool);
}

static const struct once_ops thread_ops = {make_none, nothing, nothing, start_and_join};
JOB(start_thread, once_loop, thread_ops)

struct pool {
    apr_thread_pool_t *threads;
    _Atomic uint32_t open; /* tasks that are not done */
    apr_thread_mutex_t *mutex;
    apr_thread_cond_t *done;
};

static void *APR_THREAD_FUNC finish(apr_thread_t *thread, void *object)
{
    struct pool *pool = object;

    (void)thread;
    if (atomic_fetch_sub(&pool->open, 1) > 1)
        return NULL;
    apr_thread_mutex_lock(pool->mutex);
    apr_thread_cond_signal(pool->done);
    apr_thread_mutex_unlock(pool->mutex);
    return NULL;
}

static void *make_pool(struct run *run)
{
    struct pool *pool = apr_pcalloc(pool_of_memory(), sizeof *pool);

    pool->mutex = make_mutex(run);
    NEED(apr_thread_cond_create(&pool->done, memory) == APR_SUCCESS);
    NEED(apr_thread_pool_create(&pool->threads, POOL_WORKERS, POOL_WORKERS, memory) == APR_SUCCESS);
    return pool;
}

static void submit(void *object)
{
    struct pool *pool = object;

    atomic_fetch_add(&pool->open, 1);
    apr_thread_pool_push(pool->threads, finish, pool, APR_THREAD_TASK_PRIORITY_NORMAL, NULL);
}

static void wait_for_all(void *object)
{
    struct pool *pool = object;

    apr_thread_mutex_lock(pool->mutex);
    while (atomic_load(&pool->open) > 0)
        apr_thread_cond_wait(pool->done, pool->mutex);
    apr_thread_mutex_unlock(pool->mutex);
}

static const struct tasks_ops pool_ops = {make_pool, nothing, nothing, submit, wait_for_all, NULL};
JOB(tasks, tasks_loop, pool_ops)
JOB(task, task_loop, pool_ops)

/* ---------------------------------------------------------------------------------------------- */

const struct job peer_jobs[] = {
    {"lock", "mutex", mutex},
    {"lock", "nested", nested},
    {"lock", "process", process_mutex},
    {"relay", "cond", cond_relay},
    {"relay", "queue", queue_relay},
    {"lock", "queue", queue_alone},
    {"idle", "queue", idle_queue},
    {"queue", "queue", queue},
    {"start", "thread", start_thread},
    {"tasks", "pool", tasks},
    {"task", "pool", task},
    {"recovery", "lock", process_recovery},
    {NULL, NULL, NULL},
};
