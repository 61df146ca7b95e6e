/* SPDX-License-Identifier: MIT */
/* Modus' processes, and its pools of threads and of processes. Every task has its future, as it has
 * in Python's pools and as libuv's requests come back. */
#include <stdlib.h>

#include "concurrency/pool.h"
#include "concurrency/process.h"
#include "tests/bench/toolbox/loops.h"
#include "tests/bench/toolbox/peer_modus.h"

/* --- processes -------------------------------------------------------------------------------- */

static void *make_none(struct run *run)
{
    return run;
}

static int return_at_once(void *argument)
{
    (void)argument;
    return 0;
}

static void start_and_join(void *object)
{
    struct modus_process *process;
    int code = -1;

    (void)object;
    NEED(modus_process_new(&process, NULL, return_at_once, NULL) == 0);
    NEED(modus_process_start(process) == 0);
    NEED(modus_process_join(process, MODUS_FOREVER, &code) == 0 && code == 0);
    modus_process_put(process);
}

static const struct once_ops process_ops = {make_none, nothing, nothing, start_and_join};
JOB(start_process, once_loop, process_ops)

void peer_modus_process(struct run *run)
{
    start_process(run);
}

/* --- pools ------------------------------------------------------------------------------------ */

struct ahead {
    struct modus_pool *pool;
    unsigned n;
    struct modus_future *futures[TASKS_AHEAD];
};

static void *make_pool(enum modus_pool_kind kind)
{
    struct modus_pool_attr attr = {.kind = kind, .n = POOL_WORKERS};
    struct ahead *ahead = calloc(1, sizeof *ahead);

    NEED(ahead && modus_pool_new(&ahead->pool, &attr) == 0);
    return ahead;
}

static void *make_threads(struct run *run)
{
    (void)run;
    return make_pool(MODUS_POOL_THREAD);
}

static void *make_processes(struct run *run)
{
    (void)run;
    return make_pool(MODUS_POOL_PROCESS);
}

static int compute_nothing(struct modus_call *call)
{
    (void)call;
    return 0;
}

static void submit(void *object)
{
    struct ahead *ahead = object;
    struct modus_task task = {.run = compute_nothing};

    NEED(modus_pool_submit(ahead->pool, &ahead->futures[ahead->n++], &task, MODUS_FOREVER) == 0);
}

static void wait_for_all(void *object)
{
    struct ahead *ahead = object;

    for (unsigned i = 0; i < ahead->n; i++) {
        NEED(modus_future_result(ahead->futures[i], MODUS_FOREVER, NULL, 0) == 0);
        modus_future_put(ahead->futures[i]);
    }
    ahead->n = 0;
}

static void end_pool(void *object)
{
    struct ahead *ahead = object;

    modus_pool_close(ahead->pool);
    NEED(modus_pool_join(ahead->pool, MODUS_FOREVER) == 0);
}

static const struct tasks_ops threads_ops = {make_threads, nothing,      nothing,
                                             submit,       wait_for_all, end_pool};
static const struct tasks_ops processes_ops = {make_processes, nothing,      nothing,
                                               submit,         wait_for_all, end_pool};
JOB(thread_tasks, tasks_loop, threads_ops)
JOB(thread_task, task_loop, threads_ops)
JOB(process_tasks, tasks_loop, processes_ops)
JOB(process_task, task_loop, processes_ops)

void peer_modus_tasks(struct run *run)
{
    thread_tasks(run);
}

void peer_modus_task(struct run *run)
{
    thread_task(run);
}

void peer_modus_tasks_process(struct run *run)
{
    process_tasks(run);
}

void peer_modus_task_process(struct run *run)
{
    process_task(run);
}
