/* SPDX-License-Identifier: MIT */
/*
 * The handle's state is a word that joiners sleep on. The thread itself moves it to ENDED when run
 * has returned; the first joiner to come then calls pthread_join, so that whoever is let through
 * finds the stack and the destructors of thread-local variables gone. A thread that nobody joins is
 * detached with the last reference.
 *
 * All threads that the end of the program must wait for are in one list. It belongs to a process
 * and not to its fork, which finds it whole, because whoever forks holds its lock, and empties it.
 */
#include "concurrency/thread.h"
#include "concurrency/forks.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/self.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NEW, STARTING, RUNNING, ENDED, JOINING, JOINED };
enum { NAME_SIZE = 64, KERNEL_NAME_SIZE = 16 };

struct modus_thread {
    _Atomic uint32_t state;
    _Atomic uint32_t references;
    _Atomic int tid;
    uint64_t stamp; /* of its process */
    pthread_t thread;
    bool daemon;
    bool no_signals;
    bool foreign; /* not ours: the main thread, or made elsewhere */
    size_t stack;
    bool has_affinity;
    cpu_set_t affinity;
    void *(*run)(void *argument);
    void *argument, *result;
    struct modus_thread *next, *previous; /* in the list; under its lock */
    char name[NAME_SIZE];
};

/* Those that the end of the program waits for. */
static struct modus_lock list_lock = MODUS_LOCK_INIT;
static struct modus_thread *list;
static _Atomic unsigned numbers;

static _Thread_local struct modus_thread *self;
static _Thread_local struct modus_thread foreign;

/* --- the list -------------------------------------------------------------------------------- */

static void list_add(struct modus_thread *thread)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    thread->previous = NULL;
    thread->next = list;
    if (list)
        list->previous = thread;
    list = thread;
}

static void list_remove(struct modus_thread *thread)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    if (list != thread && !thread->previous)
        return;
    *(thread->previous ? &thread->previous->next : &list) = thread->next;
    if (thread->next)
        thread->next->previous = thread->previous;
    thread->next = thread->previous = NULL;
}

static void before_fork(void)
{
    modus_lock_acquire(&list_lock, MODUS_FOREVER);
}

static void after_fork(void)
{
    modus_lock_release(&list_lock);
}

/* The child has none of them. */
static void begin_child(void)
{
    list = NULL;
    modus_lock_free_in_child(&list_lock);
}

MODUS_FORK_INNER static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, begin_child);
}

/* --- making ---------------------------------------------------------------------------------- */

int modus_thread_new(struct modus_thread **thread, const struct modus_thread_attr *attr,
                     void *(*run)(void *argument), void *argument)
{
    static const struct modus_thread_attr usual;

    if (!run)
        return -EINVAL;
    struct modus_thread *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    if (!attr)
        attr = &usual;
    made->run = run;
    made->argument = argument;
    made->stack = attr->stack;
    made->no_signals = attr->no_signals;
    made->stamp = modus_self_stamp();
    made->daemon = attr->daemon == MODUS_DAEMON_INHERIT ? modus_thread_self()->daemon
                                                        : attr->daemon == MODUS_DAEMON_YES;
    made->has_affinity = attr->affinity != NULL;
    if (attr->affinity)
        made->affinity = *attr->affinity;
    if (attr->name)
        snprintf(made->name, sizeof made->name, "%s", attr->name);
    else
        snprintf(made->name, sizeof made->name, "Thread-%u", atomic_fetch_add(&numbers, 1) + 1);
    atomic_store(&made->references, 1);
    *thread = made;
    return 0;
}

/* run has returned, or called pthread_exit. */
static void end(void *argument)
{
    struct modus_thread *thread = argument;

    list_remove(thread);
    atomic_store(&thread->state, ENDED);
    modus_unpark(MODUS_THREAD, &thread->state, INT_MAX);
    self = NULL;
    modus_thread_put(thread);
}

static void *begin(void *argument)
{
    struct modus_thread *thread = argument;
    char name[KERNEL_NAME_SIZE];

    self = thread;
    atomic_store(&thread->tid, (int)modus_self_tid());
    snprintf(name, sizeof name, "%.15s", thread->name);
    pthread_setname_np(pthread_self(), name);
    pthread_cleanup_push(end, thread);
    thread->result = thread->run(thread->argument);
    pthread_cleanup_pop(1);
    return NULL;
}

/* A handler of crashes is called in the thread that crashes, if that lets it. */
static int block_signals(pthread_attr_t *attr)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    sigset_t set;

    sigfillset(&set);
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        sigdelset(&set, crashes[i]);
    return pthread_attr_setsigmask_np(attr, &set);
}

static int create(struct modus_thread *thread)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);

    if (rc == 0 && thread->stack)
        rc = pthread_attr_setstacksize(&attr, thread->stack);
    if (rc == 0 && thread->has_affinity)
        rc = pthread_attr_setaffinity_np(&attr, sizeof thread->affinity, &thread->affinity);
    if (rc == 0 && thread->no_signals)
        rc = block_signals(&attr);
    if (rc == 0)
        rc = pthread_create(&thread->thread, &attr, begin, thread);
    pthread_attr_destroy(&attr);
    return -rc;
}

int modus_thread_start(struct modus_thread *thread)
{
    uint32_t state = NEW;

    if (thread->foreign)
        return -EALREADY;
    if (thread->stamp != modus_self_stamp())
        return -ECHILD;
    if (!atomic_compare_exchange_strong(&thread->state, &state, STARTING))
        return -EALREADY;
    modus_thread_get(thread);
    if (!thread->daemon)
        list_add(thread);
    int rc = create(thread);
    if (rc < 0) {
        list_remove(thread);
        atomic_store(&thread->state, NEW);
        modus_unpark(MODUS_THREAD, &thread->state, INT_MAX);
        modus_thread_put(thread);
        return rc;
    }
    /* It may have ended by now. */
    state = STARTING;
    atomic_compare_exchange_strong(&thread->state, &state, RUNNING);
    return 0;
}

/* --- joining --------------------------------------------------------------------------------- */

/* Sleep until it has ended. Returns 0, -ESRCH (not started, or the start has failed), or what a park
 * returns. */
static int await_end(struct modus_thread *thread, int64_t deadline)
{
    int rc = 0;

    for (;;) {
        uint32_t state = atomic_load(&thread->state);

        if (state == NEW)
            return -ESRCH;
        if (state > RUNNING || rc < 0)
            return state > RUNNING ? 0 : rc;
        rc = modus_park(MODUS_THREAD, &thread->state, state, deadline, NULL);
    }
}

static void reap(struct modus_thread *thread)
{
    uint32_t state = ENDED;

    if (atomic_compare_exchange_strong(&thread->state, &state, JOINING)) {
        pthread_join(thread->thread, NULL);
        atomic_store(&thread->state, JOINED);
        modus_unpark(MODUS_THREAD, &thread->state, INT_MAX);
    }
    while ((state = atomic_load(&thread->state)) != JOINED) /* soon, and whatever comes */
        modus_park_deaf(MODUS_THREAD, &thread->state, state, MODUS_FOREVER, NULL);
}

int modus_thread_join_until(struct modus_thread *thread, int64_t deadline, void **result)
{
    if (thread->foreign || deadline < MODUS_FOREVER)
        return -EINVAL;
    if (thread->stamp != modus_self_stamp())
        return -ECHILD;
    if (thread == self)
        return -EDEADLK;
    int rc = await_end(thread, deadline);
    if (rc < 0)
        return rc;
    reap(thread);
    if (result)
        *result = thread->result;
    return 0;
}

int modus_thread_join(struct modus_thread *thread, int64_t ns, void **result)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (ns == 0 && modus_thread_alive(thread) && thread != self &&
        thread->stamp == modus_self_stamp() && !thread->foreign)
        return -EAGAIN;
    return modus_thread_join_until(thread, modus_deadline(ns), result);
}

struct modus_thread *modus_thread_get(struct modus_thread *thread)
{
    if (thread && !thread->foreign)
        atomic_fetch_add(&thread->references, 1);
    return thread;
}

void modus_thread_put(struct modus_thread *thread)
{
    if (!thread || thread->foreign || atomic_fetch_sub(&thread->references, 1) != 1)
        return;
    /* The thread's own reference was the last, or it has ended: nobody will join it. */
    if (atomic_load(&thread->state) == ENDED && thread->stamp == modus_self_stamp())
        pthread_detach(thread->thread);
    free(thread);
}

/* --- questions ------------------------------------------------------------------------------- */

int modus_thread_set_daemon(struct modus_thread *thread, bool daemon)
{
    if (thread->foreign || atomic_load(&thread->state) != NEW)
        return -EBUSY;
    thread->daemon = daemon;
    return 0;
}

struct modus_thread *modus_thread_self(void)
{
    if (self && self->stamp == modus_self_stamp())
        return self;      /* else it was the parent's, before the fork */
    pid_t tid = gettid(); /* modus_self_tid may be a coroutine's */
    bool is_main = tid == getpid();
    foreign.foreign = true;
    foreign.stamp = modus_self_stamp();
    atomic_store(&foreign.tid, tid);
    atomic_store(&foreign.state, RUNNING);
    snprintf(foreign.name, sizeof foreign.name, "%s", is_main ? "MainThread" : "Foreign");
    return self = &foreign;
}

bool modus_thread_alive(const struct modus_thread *thread)
{
    uint32_t state = atomic_load(&thread->state);

    return state == STARTING || state == RUNNING;
}

bool modus_thread_is_daemon(const struct modus_thread *thread)
{
    return thread->daemon;
}

const char *modus_thread_name(const struct modus_thread *thread)
{
    return thread->name;
}

int modus_thread_tid(const struct modus_thread *thread)
{
    return atomic_load(&thread->tid);
}

/* --- the end of a program -------------------------------------------------------------------- */

/* One that is not the caller, with a reference; NULL: none is left. */
static struct modus_thread *any_other(void)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    struct modus_thread *thread = list;
    if (thread && thread == self)
        thread = thread->next;
    return modus_thread_get(thread);
}

void modus_thread_join_all(void)
{
    struct modus_thread *thread;

    while ((thread = any_other()) != NULL) {
        modus_thread_join(thread, MODUS_FOREVER, NULL);
        modus_thread_put(thread);
    }
}
