/* SPDX-License-Identifier: MIT */
/*
 * Many futures: all of them, the first of them, and each in the order in which they end.
 *
 * The iterator watches every future. At an end its entry moves to the list of those to be given,
 * under the lock of hooks, and the count of arrivals, which next sleeps on, goes up.
 */
#include "concurrency/future.h"
#include "concurrency/future_priv.h"
#include "concurrency/park.h"
#include "concurrency/self.h"

#include <stdlib.h>

enum { RUNNING_MOST = 1024 }; /* at a time, as many as a pool has threads */

struct entry {
    struct modus_future_watcher watcher; /* first member */
    struct modus_completed *completed;
    struct modus_future *future;
    struct entry *next; /* among the arrived */
};

struct modus_completed {
    _Atomic uint32_t arrivals;
    bool asleep; /* under the lock of hooks, as the list is */
    struct entry *first, *last;
    size_t n, given;
    size_t ended; /* so many of the entries, from the first */
    struct entry entries[];
};

/* Under the lock of hooks. */
static void arrive(struct entry *entry)
{
    struct modus_completed *completed = entry->completed;

    *(completed->first ? &completed->last->next : &completed->first) = entry;
    completed->last = entry;
    atomic_fetch_add(&completed->arrivals, 1);
    if (completed->asleep)
        modus_unpark(MODUS_THREAD, &completed->arrivals, 1);
}

static void tell(struct modus_future_watcher *watcher)
{
    arrive((struct entry *)(void *)watcher);
}

static void begin_watching(struct modus_completed *completed, struct entry *entry,
                           struct modus_future *future)
{
    *entry = (struct entry){
        .watcher = {.tell = tell},
        .completed = completed,
        .future = modus_future_get(future),
    };
    if (modus_future_watch(future, &entry->watcher))
        return;
    modus_future_lock();
    arrive(entry);
    modus_future_unlock();
}

int modus_completed_new(struct modus_completed **completed, struct modus_future *const *futures,
                        size_t n)
{
    if (n > (SIZE_MAX - sizeof **completed) / sizeof(struct entry))
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        if (!modus_future_ended(futures[i]) && futures[i]->stamp != modus_self_stamp())
            return -ECHILD;
    struct modus_completed *made = calloc(1, sizeof *made + n * sizeof(struct entry));
    if (!made)
        return -ENOMEM;
    made->n = n;
    for (size_t i = 0; i < n; i++)
        begin_watching(made, &made->entries[i], futures[i]);
    *completed = made;
    return 0;
}

void modus_completed_free(struct modus_completed *completed)
{
    for (size_t i = 0; completed && i < completed->n; i++) {
        modus_future_unwatch(completed->entries[i].future, &completed->entries[i].watcher);
        modus_future_put(completed->entries[i].future);
    }
    free(completed);
}

/* The next entry that has arrived, or NULL: then arrivals is what to sleep on. */
static struct entry *take(struct modus_completed *completed, uint32_t *arrivals)
{
    modus_future_lock();
    struct entry *entry = completed->first;
    if (entry) {
        completed->first = entry->next;
        completed->given++;
    }
    completed->asleep = !entry;
    *arrivals = atomic_load(&completed->arrivals);
    modus_future_unlock();
    return entry;
}

/* A thread of a pool runs what it waits for and nobody has begun; see pool_thread.c. It need not look
 * far for that: what has not ended and is not run is behind those that run. If but one is left, the
 * wait is one for that: *only, which has been entered. Returns 0; or -EDEADLK: none of them can end
 * before the caller goes on. */
static int help(struct modus_completed *completed, struct modus_future **only)
{
    struct modus_future *open = NULL;
    size_t left = 0, refused = 0;

    while (completed->ended < completed->n &&
           modus_future_ended(completed->entries[completed->ended].future))
        completed->ended++;
    for (size_t i = completed->ended; i < completed->n && left - refused < RUNNING_MOST; i++) {
        struct modus_future *future = completed->entries[i].future;

        if (modus_future_ended(future))
            continue;
        int rc = modus_future_help(future);
        if (rc > 0)
            return 0;
        left++;
        refused += rc < 0;
        open = future;
    }
    if (left > 0 && refused == left)
        return -EDEADLK;
    if (left != 1 || !open->ops)
        return 0;
    int rc = open->ops->enter(open);
    if (rc == 0)
        *only = open;
    return rc;
}

static int help_or_sleep(struct modus_completed *completed, uint32_t arrivals, int64_t deadline)
{
    struct modus_future *only = NULL;
    int rc = help(completed, &only);

    if (rc == 0)
        rc = modus_park(MODUS_THREAD, &completed->arrivals, arrivals, deadline, NULL);
    if (only)
        only->ops->leave(only);
    return rc;
}

static int next_until(struct modus_completed *completed, int64_t deadline,
                      struct modus_future **future)
{
    struct entry *entry;
    uint32_t arrivals;
    int rc = 0;

    while (!(entry = take(completed, &arrivals))) {
        if (completed->given == completed->n)
            return MODUS_EMPTY;
        if (rc < 0)
            return rc;
        rc = help_or_sleep(completed, arrivals, deadline);
    }
    *future = entry->future;
    return 0;
}

int modus_completed_next(struct modus_completed *completed, int64_t ns,
                         struct modus_future **future)
{
    uint32_t arrivals;

    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (ns != 0)
        return next_until(completed, modus_deadline(ns), future);
    struct entry *entry = take(completed, &arrivals);
    if (!entry)
        return completed->given == completed->n ? MODUS_EMPTY : -EAGAIN;
    *future = entry->future;
    return 0;
}

int modus_future_wait_all(struct modus_future *const *futures, size_t n, int64_t ns)
{
    int64_t deadline = ns == 0 ? 0 : modus_deadline(ns);
    int rc = ns < MODUS_FOREVER ? -EINVAL : 0;

    for (size_t i = 0; i < n && rc == 0; i++)
        rc = ns == 0 ? modus_future_wait(futures[i], 0)
                     : modus_future_wait_until(futures[i], deadline);
    return rc;
}

int modus_future_wait_first(struct modus_future *const *futures, size_t n, int64_t ns,
                            size_t *index)
{
    struct modus_completed *completed;
    struct modus_future *future;

    if (n == 0 || ns < MODUS_FOREVER)
        return -EINVAL;
    int rc = modus_completed_new(&completed, futures, n);
    if (rc < 0)
        return rc;
    rc = modus_completed_next(completed, ns, &future);
    for (size_t i = 0; rc == 0 && index && i < n; i++)
        if (futures[i] == future) {
            *index = i;
            break;
        }
    modus_completed_free(completed);
    return rc;
}
