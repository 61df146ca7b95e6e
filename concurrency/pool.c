/* SPDX-License-Identifier: MIT */
/*
 * The pool as its user sees it: attributes, states, and the verbs that are the same for threads and
 * processes. The workers are in pool_thread.c and pool_process.c, maps in pool_map.c.
 */
#include "concurrency/pool.h"
#include "concurrency/coroutine.h"
#include "concurrency/park.h"
#include "concurrency/pool_priv.h"
#include "concurrency/self.h"

#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_MAX = 1024, CAPACITY_MAX = 1 << 20, BYTES_MAX = 65536 };

/* --- in a task ------------------------------------------------------------------------------- */

int modus_call_answer(struct modus_call *call, const void *answer, size_t size)
{
    if (!call->output)
        return 0; /* nobody wants it */
    if (size > call->room)
        return -EOVERFLOW;
    if (size > 0)
        memcpy(call->output, answer, size);
    call->answered = size;
    return 0;
}

int modus_call_fail(struct modus_call *call, int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(call->text, call->text_room, format, arguments);
    va_end(arguments);
    return code;
}

bool modus_call_cancelled(const struct modus_call *call)
{
    return atomic_load(call->stop) != 0;
}

/* --- life ------------------------------------------------------------------------------------ */

static unsigned usable_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static unsigned power_of_two(unsigned n)
{
    unsigned power = 1;

    while (power < n)
        power *= 2;
    return power;
}

static bool valid(const struct modus_pool_attr *attr)
{
    return attr->n <= N_MAX && attr->capacity <= CAPACITY_MAX && attr->input_max <= BYTES_MAX &&
           attr->output_max <= BYTES_MAX && attr->grace_ns >= 0 && attr->idle_ns >= 0 &&
           (attr->kind == MODUS_POOL_THREAD || (attr->idle_ns == 0 && attr->n_min == 0));
}

static struct modus_pool_attr filled_in(const struct modus_pool_attr *attr)
{
    struct modus_pool_attr full = *attr;

    full.name = attr->name ? attr->name : "pool";
    full.n = attr->n ? attr->n : usable_cpus();
    full.capacity = power_of_two(attr->capacity ? attr->capacity : 1024);
    full.input_max = attr->input_max ? attr->input_max : 64;
    if (full.input_max < sizeof(void *))
        full.input_max = sizeof(void *); /* of a chunk's description */
    full.output_max = attr->output_max ? attr->output_max : 64;
    full.grace_ns = attr->grace_ns ? attr->grace_ns : modus_seconds(1);
    return full;
}

int modus_pool_new(struct modus_pool **pool, const struct modus_pool_attr *attr)
{
    if (!valid(attr))
        return -EINVAL;
    struct modus_pool_attr full = filled_in(attr);
    if (full.n_min > full.n)
        return -EINVAL;
    MODUS_CO_SHIELD(making); /* one that is not to be is awaited, too */
    switch (attr->kind) {
    case MODUS_POOL_THREAD:
        return modus_pool_thread_new(pool, &full);
    case MODUS_POOL_PROCESS:
        return modus_pool_process_new(pool, &full);
    }
    return -EINVAL;
}

void modus_pool_init(struct modus_pool *pool, const struct modus_pool_ops *ops,
                     const struct modus_pool_attr *attr)
{
    memset(pool, 0, sizeof *pool);
    pool->ops = ops;
    pool->stamp = modus_self_stamp();
    pool->attr = *attr;
    snprintf(pool->name, sizeof pool->name, "%s", attr->name);
    pool->attr.name = pool->name;
}

void modus_pool_free(struct modus_pool *pool)
{
    if (!pool)
        return;
    if (pool->stamp != modus_self_stamp()) {
        free(pool);
        return;
    }
    MODUS_CO_SHIELD(freeing); /* threads use it as long as they are there */
    if (!atomic_load(&pool->gone))
        modus_pool_terminate(pool);
    modus_pool_join(pool, MODUS_FOREVER);
    pool->ops->destroy(pool);
}

void modus_pool_gone(struct modus_pool *pool)
{
    atomic_store(&pool->gone, 1);
    modus_unpark(MODUS_THREAD, &pool->gone, INT_MAX);
}

/* --- tasks ----------------------------------------------------------------------------------- */

int modus_pool_refusal(struct modus_pool *pool)
{
    switch (atomic_load(&pool->state)) {
    case MODUS_POOL_RUNNING:
        return 0;
    case MODUS_POOL_BROKEN:
        return MODUS_BROKEN;
    default:
        return MODUS_CLOSED;
    }
}

void modus_pool_queued(struct modus_pool *pool, size_t n)
{
    uint32_t high = atomic_load_explicit(&pool->high_water, memory_order_relaxed);

    while (n > high)
        if (atomic_compare_exchange_weak(&pool->high_water, &high, (uint32_t)n))
            return;
}

int modus_pool_submit(struct modus_pool *pool, struct modus_future **future,
                      const struct modus_task *task, int64_t ns)
{
    if (ns < MODUS_FOREVER || !task->run || task->size > pool->attr.input_max ||
        task->priority >= (pool->attr.priorities ? MODUS_POOL_PRIORITIES : 1) ||
        (task->slow && pool->attr.kind != MODUS_POOL_THREAD))
        return -EINVAL;
    if (pool->stamp != modus_self_stamp())
        return -ECHILD;
    int rc = modus_pool_refusal(pool);
    return rc < 0 ? rc : pool->ops->submit(pool, future, task, ns);
}

int modus_pool_apply(struct modus_pool *pool, const struct modus_task *task, void *answer,
                     size_t size, int64_t ns)
{
    struct modus_future *future;
    int64_t deadline = ns > 0 ? modus_deadline(ns) : ns;
    int rc = modus_pool_submit(pool, &future, task, ns);

    if (rc < 0)
        return rc;
    if (ns > 0)
        rc = modus_future_wait_until(future, deadline);
    else
        rc = modus_future_wait(future, ns);
    if (rc < 0)
        modus_future_cancel(future);
    else
        rc = modus_future_result(future, 0, answer, size);
    modus_future_put(future);
    return rc;
}

long modus_pool_cancel_owner(struct modus_pool *pool, const void *owner)
{
    if (!owner)
        return -EINVAL;
    return pool->stamp == modus_self_stamp() ? pool->ops->cancel(pool, owner) : -ECHILD;
}

/* --- the end --------------------------------------------------------------------------------- */

bool modus_pool_move(struct modus_pool *pool, uint32_t to)
{
    uint32_t state = atomic_load(&pool->state);

    while (state < to && state < MODUS_POOL_TERMINATED)
        if (atomic_compare_exchange_weak(&pool->state, &state, to))
            return true;
    return false;
}

int modus_pool_close(struct modus_pool *pool)
{
    if (pool->stamp != modus_self_stamp())
        return -ECHILD;
    if (modus_pool_move(pool, MODUS_POOL_CLOSED))
        pool->ops->close(pool);
    return 0;
}

int modus_pool_terminate(struct modus_pool *pool)
{
    if (pool->stamp != modus_self_stamp())
        return -ECHILD;
    if (modus_pool_move(pool, MODUS_POOL_TERMINATED)) {
        atomic_store(&pool->stop, 1);
        pool->ops->terminate(pool);
    }
    return 0;
}

static int wait_gone(struct modus_pool *pool, int64_t deadline)
{
    int rc = 0;

    while (!atomic_load(&pool->gone)) {
        if (rc < 0)
            return rc;
        rc = modus_park(MODUS_THREAD, &pool->gone, 0, deadline, NULL);
    }
    return 0;
}

int modus_pool_join(struct modus_pool *pool, int64_t ns)
{
    if (pool->stamp != modus_self_stamp())
        return -ECHILD;
    if (ns < MODUS_FOREVER || atomic_load(&pool->state) == MODUS_POOL_RUNNING)
        return -EINVAL;
    if (pool->ops->inside(pool))
        return -EDEADLK;
    if (ns == 0 && !atomic_load(&pool->gone))
        return -EAGAIN;
    int rc = wait_gone(pool, modus_deadline(ns));
    if (rc < 0)
        return rc;
    /* What has ended is gone in a moment, and must be before it is freed. */
    MODUS_CO_SHIELD(reaping);
    pool->ops->reap(pool);
    return 0;
}

int modus_pool_shutdown(struct modus_pool *pool, bool wait, bool cancel)
{
    int rc = modus_pool_close(pool);

    if (rc == 0 && cancel && atomic_load(&pool->state) == MODUS_POOL_CLOSED)
        pool->ops->cancel(pool, NULL);
    return rc == 0 && wait ? modus_pool_join(pool, MODUS_FOREVER) : rc;
}

void modus_pool_stats(struct modus_pool *pool, struct modus_pool_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    if (pool->stamp == modus_self_stamp())
        pool->ops->stats(pool, stats);
    stats->high_water = atomic_load(&pool->high_water);
}

unsigned modus_pool_workers(struct modus_pool *pool, int *ids, unsigned room)
{
    return pool->stamp == modus_self_stamp() ? pool->ops->workers(pool, ids, room) : 0;
}
