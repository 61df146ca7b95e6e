/* SPDX-License-Identifier: MIT */
/* GLib: between threads only. Its queue is unbounded and takes pointers. */
#include <glib.h>

#include "tests/bench/toolbox/loops.h"

static void *make_none(struct run *run)
{
    return run;
}

/* --- locks ------------------------------------------------------------------------------------ */

static void *make_mutex(struct run *run)
{
    GMutex *mutex = g_new0(GMutex, 1);

    (void)run;
    g_mutex_init(mutex);
    return mutex;
}

static void acquire(void *mutex)
{
    g_mutex_lock(mutex);
}

static void release(void *mutex)
{
    g_mutex_unlock(mutex);
}

static void *make_rmutex(struct run *run)
{
    GRecMutex *mutex = g_new0(GRecMutex, 1);

    (void)run;
    g_rec_mutex_init(mutex);
    return mutex;
}

static void racquire(void *mutex)
{
    g_rec_mutex_lock(mutex);
}

static void rrelease(void *mutex)
{
    g_rec_mutex_unlock(mutex);
}

static const struct lock_ops mutex_ops = {make_mutex, nothing, nothing, acquire, release};
static const struct lock_ops rmutex_ops = {make_rmutex, nothing, nothing, racquire, rrelease};
LOCK_JOB(mutex, mutex_ops)
LOCK_JOB(rmutex, rmutex_ops)

/* --- condition -------------------------------------------------------------------------------- */

struct flag {
    GMutex mutex;
    GCond raised;
    bool up;
};

static void *make_flag(struct run *run)
{
    struct flag *flag = g_new0(struct flag, 1);

    (void)run;
    g_mutex_init(&flag->mutex);
    g_cond_init(&flag->raised);
    return flag;
}

static void raise_flag(void *object)
{
    struct flag *flag = object;

    g_mutex_lock(&flag->mutex);
    flag->up = true;
    g_cond_signal(&flag->raised);
    g_mutex_unlock(&flag->mutex);
}

static void await_flag(void *object)
{
    struct flag *flag = object;

    g_mutex_lock(&flag->mutex);
    while (!flag->up)
        g_cond_wait(&flag->raised, &flag->mutex);
    flag->up = false;
    g_mutex_unlock(&flag->mutex);
}

static const struct relay_ops flag_ops = {make_flag, nothing, nothing, raise_flag, await_flag};
RELAY_JOB(cond_relay, flag_ops)

/* --- queue ------------------------------------------------------------------------------------ */

static void *make_queue(struct run *run)
{
    (void)run;
    return g_async_queue_new();
}

static void put(void *queue, const void *item)
{
    uint64_t number;

    memcpy(&number, item, sizeof number);
    g_async_queue_push(queue, (void *)(uintptr_t)number);
}

static void get(void *queue, void *item)
{
    uint64_t number = (uintptr_t)g_async_queue_pop(queue);

    memcpy(item, &number, sizeof number);
}

static void queue_send(void *queue)
{
    g_async_queue_push(queue, queue);
}

static void queue_receive(void *queue)
{
    g_async_queue_pop(queue);
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

static void *return_at_once(void *argument)
{
    return argument;
}

static void start_and_join(void *object)
{
    g_thread_join(g_thread_new("bench", return_at_once, object));
}

static const struct once_ops thread_ops = {make_none, nothing, nothing, start_and_join};
JOB(start_thread, once_loop, thread_ops)

struct pool {
    GThreadPool *threads;
    _Atomic uint32_t open; /* tasks that are not done */
    GMutex mutex;
    GCond done;
};

static void finish(void *task, void *object)
{
    struct pool *pool = object;

    (void)task;
    if (atomic_fetch_sub(&pool->open, 1) > 1)
        return;
    g_mutex_lock(&pool->mutex);
    g_cond_signal(&pool->done);
    g_mutex_unlock(&pool->mutex);
}

static void *make_pool(struct run *run)
{
    struct pool *pool = g_new0(struct pool, 1);

    (void)run;
    pool->threads = g_thread_pool_new(finish, pool, POOL_WORKERS, TRUE, NULL);
    return pool;
}

static void submit(void *object)
{
    struct pool *pool = object;

    atomic_fetch_add(&pool->open, 1);
    g_thread_pool_push(pool->threads, pool, NULL);
}

static void wait_for_all(void *object)
{
    struct pool *pool = object;

    g_mutex_lock(&pool->mutex);
    while (atomic_load(&pool->open) > 0)
        g_cond_wait(&pool->done, &pool->mutex);
    g_mutex_unlock(&pool->mutex);
}

static const struct tasks_ops pool_ops = {make_pool, nothing, nothing, submit, wait_for_all, NULL};
JOB(tasks, tasks_loop, pool_ops)
JOB(task, task_loop, pool_ops)

/* ---------------------------------------------------------------------------------------------- */

/* clang-format off */
const struct job peer_jobs[] = {
    {"lock", "mutex", mutex},
    {"lock", "rmutex", rmutex},
    {"relay", "cond", cond_relay},
    {"relay", "queue", queue_relay},
    {"lock", "queue", queue_alone},
    {"idle", "queue", idle_queue},
    {"queue", "queue", queue},
    {"start", "thread", start_thread},
    {"tasks", "pool", tasks},
    {"task", "pool", task},
    {NULL, NULL, NULL},
};
/* clang-format on */
