/* SPDX-License-Identifier: MIT */
/* libuv: its portable names for what the system has, and its pool, whose results come back to a
 * loop. */
#include <stdlib.h>
#include <uv.h>

#include "tests/bench/toolbox/loops.h"

static void *make_none(struct run *run)
{
    return run;
}

/* --- locks and semaphore ---------------------------------------------------------------------- */

static void *make_mutex(struct run *run)
{
    uv_mutex_t *mutex = harness_shared(sizeof *mutex);

    (void)run;
    NEED(uv_mutex_init(mutex) == 0);
    return mutex;
}

static void *make_recursive(struct run *run)
{
    uv_mutex_t *mutex = harness_shared(sizeof *mutex);

    (void)run;
    NEED(uv_mutex_init_recursive(mutex) == 0);
    return mutex;
}

static void acquire(void *mutex)
{
    uv_mutex_lock(mutex);
}

static void release(void *mutex)
{
    uv_mutex_unlock(mutex);
}

static void *make_sem_of(unsigned value)
{
    uv_sem_t *sem = harness_shared(sizeof *sem);

    NEED(uv_sem_init(sem, value) == 0);
    return sem;
}

static void *make_sem(struct run *run)
{
    (void)run;
    return make_sem_of(1);
}

static void *make_empty_sem(struct run *run)
{
    (void)run;
    return make_sem_of(0);
}

static void sem_take(void *sem)
{
    uv_sem_wait(sem);
}

static void sem_give(void *sem)
{
    uv_sem_post(sem);
}

static const struct lock_ops mutex_ops = {make_mutex, nothing, nothing, acquire, release};
static const struct lock_ops recursive_ops = {make_recursive, nothing, nothing, acquire, release};
static const struct lock_ops sem_ops = {make_sem, nothing, nothing, sem_take, sem_give};
static const struct relay_ops sem_relay_ops = {make_empty_sem, nothing, nothing, sem_give,
                                               sem_take};
LOCK_JOB(mutex, mutex_ops)
LOCK_JOB(recursive, recursive_ops)
LOCK_JOB(sem, sem_ops)
RELAY_JOB(sem_relay, sem_relay_ops)

/* --- condition and barrier -------------------------------------------------------------------- */

struct flag {
    uv_mutex_t mutex;
    uv_cond_t raised;
    bool up;
};

static void *make_flag(struct run *run)
{
    struct flag *flag = harness_shared(sizeof *flag);

    (void)run;
    NEED(uv_mutex_init(&flag->mutex) == 0 && uv_cond_init(&flag->raised) == 0);
    return flag;
}

static void raise_flag(void *object)
{
    struct flag *flag = object;

    uv_mutex_lock(&flag->mutex);
    flag->up = true;
    uv_cond_signal(&flag->raised);
    uv_mutex_unlock(&flag->mutex);
}

static void await_flag(void *object)
{
    struct flag *flag = object;

    uv_mutex_lock(&flag->mutex);
    while (!flag->up)
        uv_cond_wait(&flag->raised, &flag->mutex);
    flag->up = false;
    uv_mutex_unlock(&flag->mutex);
}

static const struct relay_ops flag_ops = {make_flag, nothing, nothing, raise_flag, await_flag};
RELAY_JOB(cond_relay, flag_ops)

static void *make_barrier(struct run *run)
{
    uv_barrier_t *barrier = harness_shared(sizeof *barrier);

    NEED(uv_barrier_init(barrier, run->workers) == 0);
    return barrier;
}

static void meet(void *barrier)
{
    uv_barrier_wait(barrier);
}

static const struct barrier_ops barrier_ops = {make_barrier, nothing, nothing, meet};
JOB(barrier, barrier_loop, barrier_ops)

/* --- threads and pool ------------------------------------------------------------------------- */

static void return_at_once(void *argument)
{
    (void)argument;
}

static void start_and_join(void *object)
{
    uv_thread_t thread;

    NEED(uv_thread_create(&thread, return_at_once, object) == 0);
    uv_thread_join(&thread);
}

static const struct once_ops thread_ops = {make_none, nothing, nothing, start_and_join};
JOB(start_thread, once_loop, thread_ops)

struct pool {
    uv_loop_t loop;
    unsigned next;
    uv_work_t requests[TASKS_AHEAD];
};

static void *make_pool(struct run *run)
{
    struct pool *pool = calloc(1, sizeof *pool);

    (void)run;
    NEED(pool && setenv("UV_THREADPOOL_SIZE", "2", 1) == 0 && uv_loop_init(&pool->loop) == 0);
    return pool;
}

static void compute_nothing(uv_work_t *request)
{
    (void)request;
}

static void finish(uv_work_t *request, int status)
{
    (void)request;
    (void)status;
}

static void submit(void *object)
{
    struct pool *pool = object;

    uv_queue_work(&pool->loop, &pool->requests[pool->next++ % TASKS_AHEAD], compute_nothing,
                  finish);
}

static void wait_for_all(void *object)
{
    struct pool *pool = object;

    uv_run(&pool->loop, UV_RUN_DEFAULT);
}

static const struct tasks_ops pool_ops = {make_pool, nothing, nothing, submit, wait_for_all, NULL};
JOB(tasks, tasks_loop, pool_ops)
JOB(task, task_loop, pool_ops)

/* ---------------------------------------------------------------------------------------------- */

/* clang-format off */
const struct job peer_jobs[] = {
    {"lock", "mutex", mutex},
    {"lock", "recursive", recursive},
    {"lock", "sem", sem},
    {"relay", "sem", sem_relay},
    {"relay", "cond", cond_relay},
    {"barrier", "barrier", barrier},
    {"start", "thread", start_thread},
    {"tasks", "pool", tasks},
    {"task", "pool", task},
    {NULL, NULL, NULL},
};
/* clang-format on */
