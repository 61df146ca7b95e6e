/* SPDX-License-Identifier: MIT */
/*
 * Jobs in a line, helpers that take them, and for each job a word that its coroutine waits for.
 *
 *     QUEUED --a helper--> RUNNING --> DONE      the coroutine frees the job
 *        |                    +--------> LEFT    the helper does
 *        +--the coroutine goes: out of the line
 *
 * All but the wait is under one lock.
 */
#include "concurrency/offload.h"
#include "concurrency/coroutine.h"
#include "concurrency/forks.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/self.h"
#include "concurrency/sem.h"
#include "concurrency/thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { QUEUED, RUNNING, DONE, LEFT };

struct job {
    struct job *next;
    _Atomic uint32_t state;
    int (*run)(void *argument);
    void (*leave)(void *argument);
    void *argument;
    int result;
};

static struct modus_lock lock = MODUS_LOCK_INIT;
static struct job *first, **end = &first; /* the line */
static struct modus_sem waiting;          /* a permit a job, or more */
static unsigned most = 16, helpers, open; /* open: jobs in the line or running */

/* --- helpers --------------------------------------------------------------------------------- */

static struct job *take_job(void)
{
    MODUS_HOLD(held, &lock, MODUS_FOREVER);
    (void)held;
    struct job *job = first;
    if (job) {
        first = job->next;
        end = first ? end : &first;
        atomic_store(&job->state, RUNNING);
    }
    return job;
}

/* Returns whether the coroutine is still there. */
static bool finish(struct job *job)
{
    MODUS_HOLD(held, &lock, MODUS_FOREVER);
    (void)held;
    open--;
    if (atomic_load(&job->state) == LEFT)
        return false;
    atomic_store(&job->state, DONE); /* it may free it at once */
    return true;
}

static void *help(void *argument)
{
    uint64_t stamp = modus_self_stamp();

    for (;;) {
        modus_sem_acquire(&waiting, MODUS_FOREVER);
        struct job *job = take_job();
        if (!job)
            continue; /* its coroutine has taken it back */
        job->result = job->run(job->argument);
        if (modus_self_stamp() != stamp)
            _exit(job->result); /* a forked child: the job is its parent's */
        if (finish(job)) {
            modus_unpark(MODUS_THREAD, &job->state, 1);
        } else {
            job->leave(job->argument);
            free(job);
        }
    }
    return argument;
}

static bool start_helper(void)
{
    static const struct modus_thread_attr attr = {
        .name = "offload", .daemon = MODUS_DAEMON_YES, .no_signals = true};
    struct modus_thread *thread;

    if (modus_thread_new(&thread, &attr, help, NULL) < 0)
        return false;
    int rc = modus_thread_start(thread);
    modus_thread_put(thread);
    return rc == 0;
}

/* A forked child has no helpers and no jobs. */
static void begin_child(void)
{
    modus_lock_fini(&lock);
    modus_lock_init(&lock, MODUS_THREAD);
    modus_sem_init(&waiting, &(struct modus_sem_attr){.scope = MODUS_THREAD});
    first = NULL;
    end = &first;
    helpers = open = 0;
}

MODUS_FORK_CHILD static void prepare(void)
{
    begin_child();
    pthread_atfork(NULL, NULL, begin_child);
}

/* --- jobs ------------------------------------------------------------------------------------ */

static int submit(struct job *job)
{
    MODUS_HOLD(held, &lock, MODUS_FOREVER);
    (void)held;
    if (open >= helpers && helpers < most && start_helper())
        helpers++;
    if (helpers == 0)
        return -EAGAIN;
    open++;
    *end = job;
    end = &job->next;
    modus_sem_release(&waiting, 1);
    return 0;
}

/* Under the lock. */
static void take_back(struct job *job)
{
    struct job **at = &first;

    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    if (end == &job->next)
        end = at;
    open--;
}

/* The coroutine has to go. Returns the state in which it leaves the job: QUEUED and RUNNING: it does;
 * else it stays. */
static uint32_t go_away(struct job *job)
{
    MODUS_HOLD(held, &lock, MODUS_FOREVER);
    (void)held;
    uint32_t state = atomic_load(&job->state);
    if (state == QUEUED)
        take_back(job);
    else if (state == RUNNING && job->leave)
        atomic_store(&job->state, LEFT);
    else
        state = DONE;
    return state;
}

static void await_end(struct job *job)
{
    uint32_t state;

    while ((state = atomic_load(&job->state)) != DONE)
        modus_park_deaf(MODUS_THREAD, &job->state, state, MODUS_FOREVER, NULL);
}

/* Returns 0 when the job is done; else it is not ours any more. */
static int wait_for(struct job *job, int64_t ns)
{
    int64_t deadline = modus_deadline(ns);
    uint32_t state;
    int rc = 0;

    while ((state = atomic_load(&job->state)) != DONE && rc == 0)
        rc = modus_park(MODUS_THREAD, &job->state, state, deadline, NULL);
    if (state == DONE)
        return 0;
    switch (go_away(job)) {
    case QUEUED:
        if (job->leave)
            job->leave(job->argument);
        free(job);
        return rc;
    case RUNNING:
        return rc; /* the helper's */
    }
    await_end(job);
    return 0;
}

static int offload(const struct job *wanted, int64_t ns, int *result)
{
    if (!wanted->run || ns < MODUS_FOREVER)
        return -EINVAL;
    if (!modus_co_self()) {
        int answer = wanted->run(wanted->argument);

        if (result)
            *result = answer;
        return 0;
    }
    struct job *job = malloc(sizeof *job);
    if (!job)
        return -ENOMEM;
    *job = *wanted;
    int rc = submit(job);
    if (rc < 0) {
        free(job);
        return rc;
    }
    rc = wait_for(job, ns);
    if (rc < 0)
        return rc;
    if (result)
        *result = job->result;
    free(job);
    return 0;
}

int modus_offload(int (*run)(void *argument), void *argument, int64_t ns, int *result)
{
    return offload(&(struct job){.run = run, .argument = argument}, ns, result);
}

int modus_offload_or_leave(int (*run)(void *argument), void *argument,
                           void (*leave)(void *argument), int64_t ns, int *result)
{
    if (!leave)
        return -EINVAL;
    return offload(&(struct job){.run = run, .leave = leave, .argument = argument}, ns, result);
}

int modus_offload_helpers(unsigned n)
{
    if (n == 0)
        return -EINVAL;
    MODUS_HOLD(held, &lock, MODUS_FOREVER);
    (void)held;
    most = n;
    return 0;
}
