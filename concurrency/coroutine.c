/* SPDX-License-Identifier: MIT */
/*
 * The scheduler: a loop a thread, on libuv for time, descriptors and calls from other threads.
 *
 * A turn runs the ready coroutines one after the other, each until it waits, then asks libuv, without
 * waiting if there are more. A coroutine that waits for a word stands in the lot (lot.h). Whoever
 * takes it out, and only that one, makes it ready: an unpark; or its own loop, when its time is
 * over or it is cancelled. So there is no other state to agree on. What other threads make ready
 * goes through the loop's inbox, and so does what a signal handler makes ready at a bad moment.
 *
 * Who the running coroutine is to a lock: its own id, which stands in the place of the thread's id
 * while it runs (self.h). Ids begin above all that the kernel gives to threads.
 */
#include "concurrency/coroutine.h"
#include "concurrency/context.h"
#include "concurrency/local_priv.h"
#include "concurrency/lot.h"
#include "concurrency/park.h"
#include "concurrency/self.h"
#include "concurrency/stack.h"
#include "concurrency/timers.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <uv.h>

enum { NAME_SIZE = 32, TURN = 256, FIRST_ID = 0x400000, LAST_ID = 0x3fffffff };

struct loop;

struct modus_co {
    struct modus_context context;
    struct loop *loop;
    struct modus_co *next; /* in the ready list or the inbox */
    struct modus_lot_entry entry;
    struct modus_timers_entry timer;
    int64_t deadline;
    int waited; /* what the wait returns */
    uint32_t id;
    _Atomic uint32_t references;
    _Atomic uint32_t ended; /* what joiners wait for */
    _Atomic uint32_t never; /* what a sleeper waits for */
    atomic_bool cancelled;
    _Atomic uint32_t cancellers;     /* in the call: it does not end meanwhile */
    bool deaf;                       /* to that, in this wait */
    struct modus_co *next_cancelled; /* in the loop's list */
    struct modus_stack stack;
    struct modus_locals *locals;
    int (*run)(void *argument);
    void *argument;
    int result;
    char name[NAME_SIZE];
};

struct loop {
    struct modus_context context;
    uint32_t tid;                  /* of its thread */
    struct modus_co *first, *last; /* ready */
    volatile sig_atomic_t busy;    /* their list is being changed */
    struct modus_co *running;
    uint64_t live;
    unsigned fds; /* descriptors that are waited for */
    struct modus_timers timers;
    _Atomic uint32_t callers;             /* threads in a call that uses the loop */
    _Atomic(struct modus_co *) inbox;     /* made ready by other threads, the last first */
    _Atomic(struct modus_co *) cancelled; /* to be looked at */
    struct modus_co *over;                /* has ended: its stack is free once we are off it */
    bool lag_wanted;
    int64_t lag;
    char lag_name[NAME_SIZE], ran_name[NAME_SIZE];
    uv_loop_t uv;
    uv_timer_t timer;
    uv_async_t bell;
};

static _Thread_local struct loop *here __attribute__((tls_model("initial-exec")));
static _Atomic uint32_t ids;
static _Atomic unsigned numbers;

/* --- ready ----------------------------------------------------------------------------------- */

static void append(struct loop *loop, struct modus_co *co)
{
    co->next = NULL;
    loop->busy = 1;
    *(loop->first ? &loop->last->next : &loop->first) = co;
    loop->last = co;
    loop->busy = 0;
}

static struct modus_co *take_first(struct loop *loop)
{
    struct modus_co *co = loop->first;

    loop->busy = 1;
    loop->first = co->next;
    loop->busy = 0;
    return co;
}

/* From any thread, or from a signal handler in the middle of the above; the caller has taken it out
 * of the lot. */
static void make_ready(struct modus_co *co)
{
    struct loop *loop = co->loop;

    if (loop == here && !loop->busy) {
        append(loop, co);
        return;
    }
    atomic_fetch_add(&loop->callers, 1); /* once it is in the inbox it may be the last to end */
    struct modus_co *head = atomic_load(&loop->inbox);
    do
        co->next = head;
    while (!atomic_compare_exchange_weak(&loop->inbox, &head, co));
    if (!head)
        uv_async_send(&loop->bell);
    atomic_fetch_sub(&loop->callers, 1);
}

static struct modus_co *co_of_entry(struct modus_lot_entry *entry)
{
    return (struct modus_co *)(void *)((char *)entry - offsetof(struct modus_co, entry));
}

static struct modus_co *co_of_timer(struct modus_timers_entry *timer)
{
    return (struct modus_co *)(void *)((char *)timer - offsetof(struct modus_co, timer));
}

static void on_unpark(struct modus_lot_entry *entry)
{
    make_ready(co_of_entry(entry));
}

/* In its own loop: end its wait, unless somebody is about to. */
static void end_wait(struct modus_co *co, int result)
{
    if (modus_lot_leave(&co->entry)) {
        co->waited = result;
        append(co->loop, co);
    }
}

static void take_inbox(struct loop *loop)
{
    struct modus_co *co = atomic_exchange(&loop->inbox, NULL), *first = NULL;

    while (co) { /* turn it round: who came first goes on first */
        struct modus_co *next = co->next;

        co->next = first;
        first = co;
        co = next;
    }
    while (first) {
        co = first;
        first = co->next;
        append(loop, co);
    }
    co = atomic_exchange(&loop->cancelled, NULL);
    while (co) {
        struct modus_co *next = co->next_cancelled;

        if (co->entry.word && !co->deaf)
            end_wait(co, MODUS_CANCELED);
        modus_co_put(co);
        co = next;
    }
}

/* --- waiting --------------------------------------------------------------------------------- */

/* Off to the loop; returns when the coroutine goes on. */
static void suspend(struct modus_co *co)
{
    modus_context_switch(&co->context, &co->loop->context);
}

/* The call's own deadline, or the coroutine's if that is earlier. */
static int64_t deadline_of(const struct modus_co *co, int64_t deadline)
{
    if (co->deadline == MODUS_FOREVER || (deadline != MODUS_FOREVER && deadline < co->deadline))
        return deadline;
    return co->deadline;
}

static int co_park(_Atomic uint32_t *word, uint32_t expected, int64_t deadline, bool deaf)
{
    struct modus_co *co = here->running;
    int64_t until = deaf ? deadline : deadline_of(co, deadline);

    if (!deaf && atomic_load(&co->cancelled))
        return MODUS_CANCELED;
    co->waited = 0;
    co->deaf = deaf;
    co->entry.wake = on_unpark;
    if (until != MODUS_FOREVER && modus_timers_add(&here->timers, &co->timer, until) < 0)
        return -ETIMEDOUT; /* out of memory: better than a wait without an end */
    if (modus_lot_enter(&co->entry, word, expected))
        suspend(co);
    co->entry.word = 0;
    modus_timers_remove(&co->loop->timers, &co->timer);
    return co->waited;
}

/* --- the loop -------------------------------------------------------------------------------- */

/* Returns now. */
static int64_t note_lag(struct loop *loop, int64_t since)
{
    int64_t now = modus_now_ns();

    if (now - since > loop->lag) {
        loop->lag = now - since;
        memcpy(loop->lag_name, loop->ran_name, NAME_SIZE);
    }
    return now;
}

static void end(struct loop *loop, struct modus_co *co)
{
    modus_context_drop(&co->context);
    modus_stack_put(&co->stack);
    loop->live--;
    modus_co_put(co);
}

static void run_one(struct loop *loop, struct modus_co *co)
{
    loop->running = co;
    if (loop->lag_wanted)
        memcpy(loop->ran_name, co->name, NAME_SIZE);
    modus_self_cache.tid = co->id;
    modus_locals_instead = &co->locals;
    modus_context_switch(&loop->context, &co->context);
    modus_locals_instead = NULL;
    modus_self_cache.tid = loop->tid;
    loop->running = NULL;
    if (loop->over) {
        loop->over = NULL;
        end(loop, co);
    }
}

/* Those that are ready now; who becomes ready meanwhile has the next turn. */
static void run_ready(struct loop *loop)
{
    int64_t since = modus_now_ns();

    modus_park_instead = co_park;
    for (unsigned i = 0; i < TURN && loop->first; i++) {
        run_one(loop, take_first(loop));
        if (loop->lag_wanted)
            since = note_lag(loop, since);
    }
    modus_park_instead = NULL;
}

/* What is due is looked for in each turn. libuv may call this before it waits: it must not, then. */
static void on_timer(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void on_bell(uv_async_t *bell)
{
    (void)bell; /* so is the inbox */
}

static void end_due(struct loop *loop)
{
    int64_t now = loop->timers.count ? modus_now_ns() : 0;
    struct modus_timers_entry *timer;

    while ((timer = modus_timers_due(&loop->timers, now)) != NULL)
        end_wait(co_of_timer(timer), -ETIMEDOUT);
}

/* Wait in libuv until there is something to do; not at all if there is. */
static void wait_for_more(struct loop *loop)
{
    int64_t next = modus_timers_next(&loop->timers);

    if (next != MODUS_FOREVER) {
        int64_t ns = next - modus_now_ns();

        uv_update_time(&loop->uv);
        uv_timer_start(&loop->timer, on_timer, ns > 0 ? (uint64_t)(ns + 999999) / 1000000 : 0, 0);
    } else {
        uv_timer_stop(&loop->timer);
    }
    uv_run(&loop->uv, loop->first ? UV_RUN_NOWAIT : UV_RUN_ONCE);
}

static void run_loop(struct loop *loop)
{
    for (;;) {
        run_ready(loop);
        if (loop->live == 0)
            return;
        take_inbox(loop);
        end_due(loop);
        if (!loop->first || loop->fds)
            wait_for_more(loop);
    }
}

static int open_loop(struct loop *loop)
{
    if (uv_loop_init(&loop->uv) != 0)
        return -ENOMEM;
    uv_timer_init(&loop->uv, &loop->timer);
    if (uv_async_init(&loop->uv, &loop->bell, on_bell) == 0)
        return 0;
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    return -ENOMEM;
}

static void close_loop(struct loop *loop)
{
    while (atomic_load(&loop->callers)) /* for a moment */
        sched_yield();
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->bell, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    modus_timers_fini(&loop->timers);
    take_inbox(loop); /* references of those that were cancelled at the end */
}

/* --- coroutines ------------------------------------------------------------------------------ */

static void begin(void *argument)
{
    struct modus_co *co = argument;
    struct loop *loop = co->loop;

    co->result = co->run(co->argument);
    modus_locals_end(&co->locals);
    atomic_store(&co->ended, 1);
    while (atomic_load(&co->cancellers)) /* who saw it alive still uses the loop, for a moment */
        sched_yield();
    modus_unpark(MODUS_THREAD, &co->ended, INT_MAX);
    loop->over = co;
    modus_context_leave(&co->context, &loop->context);
}

static int make(struct modus_co **co, struct loop *loop, const struct modus_co_attr *attr,
                int (*run)(void *argument), void *argument)
{
    struct modus_co *made = calloc(1, sizeof *made);

    if (!made)
        return -ENOMEM;
    int rc = modus_stack_get(&made->stack, attr->stack);
    if (rc < 0) {
        free(made);
        return rc;
    }
    made->loop = loop;
    made->run = run;
    made->argument = argument;
    made->id = FIRST_ID + atomic_fetch_add(&ids, 1) % (LAST_ID - FIRST_ID);
    made->deadline = attr->deadline  ? attr->deadline
                     : loop->running ? loop->running->deadline
                                     : MODUS_FOREVER;
    atomic_store(&made->references, 2); /* the caller's, and its own while it runs */
    if (attr->name)
        snprintf(made->name, NAME_SIZE, "%s", attr->name);
    else
        snprintf(made->name, NAME_SIZE, "coroutine-%u", atomic_fetch_add(&numbers, 1) + 1);
    modus_context_make(&made->context, made->stack.low, made->stack.size, begin, made);
    loop->live++;
    append(loop, made);
    *co = made;
    return 0;
}

int modus_co_start(struct modus_co **co, const struct modus_co_attr *attr,
                   int (*run)(void *argument), void *argument)
{
    static const struct modus_co_attr usual;
    struct modus_co *made;

    if (!run)
        return -EINVAL;
    if (!here || !here->running)
        return -EPERM;
    int rc = make(&made, here, attr ? attr : &usual, run, argument);
    if (rc < 0)
        return rc;
    if (co)
        *co = made;
    else
        modus_co_put(made);
    return 0;
}

int modus_co_run(int (*main)(void *argument), void *argument)
{
    static const struct modus_co_attr attr = {.name = "main"};
    struct modus_co *co;

    if (!main)
        return -EINVAL;
    if (here)
        return -EDEADLK;
    struct loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->tid = modus_self_tid();
    int rc = open_loop(loop);
    if (rc < 0) {
        free(loop);
        return rc;
    }
    here = loop;
    rc = make(&co, loop, &attr, main, argument);
    if (rc == 0) {
        run_loop(loop);
        rc = co->result;
        modus_co_put(co);
    }
    close_loop(loop);
    here = NULL;
    free(loop);
    return rc;
}

int modus_co_join(struct modus_co *co, int64_t ns, int *result)
{
    int rc = 0;

    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (co == modus_co_self())
        return -EDEADLK;
    int64_t deadline = modus_deadline(ns);
    while (!atomic_load(&co->ended)) {
        if (ns == 0)
            return -EAGAIN;
        if (rc < 0)
            return rc;
        rc = modus_park(MODUS_THREAD, &co->ended, 0, deadline, NULL);
    }
    if (result)
        *result = co->result;
    return 0;
}

void modus_co_cancel(struct modus_co *co)
{
    struct loop *loop = co->loop;

    if (atomic_exchange(&co->cancelled, true))
        return;
    atomic_fetch_add(&co->cancellers, 1);
    if (!atomic_load(&co->ended)) {
        modus_co_get(co);
        struct modus_co *head = atomic_load(&loop->cancelled);
        do
            co->next_cancelled = head;
        while (!atomic_compare_exchange_weak(&loop->cancelled, &head, co));
        uv_async_send(&loop->bell);
    }
    atomic_fetch_sub(&co->cancellers, 1);
}

struct modus_co *modus_co_get(struct modus_co *co)
{
    if (co)
        atomic_fetch_add(&co->references, 1);
    return co;
}

void modus_co_put(struct modus_co *co)
{
    if (co && atomic_fetch_sub(&co->references, 1) == 1)
        free(co);
}

struct modus_co *modus_co_self(void)
{
    return here ? here->running : NULL;
}

const char *modus_co_name(const struct modus_co *co)
{
    return co->name;
}

bool modus_co_cancelled(void)
{
    struct modus_co *co = modus_co_self();

    return co && atomic_load(&co->cancelled);
}

int modus_co_yield(void)
{
    struct modus_co *co = modus_co_self();

    if (!co)
        return -EPERM;
    append(co->loop, co);
    suspend(co);
    if (atomic_load_explicit(&co->cancelled, memory_order_relaxed))
        return MODUS_CANCELED;
    return co->deadline != MODUS_FOREVER && modus_now_ns() >= co->deadline ? -ETIMEDOUT : 0;
}

int modus_co_sleep_until(int64_t time)
{
    struct modus_co *co = modus_co_self();
    struct timespec until = {.tv_sec = time / 1000000000, .tv_nsec = time % 1000000000};

    if (time < 0)
        return -EINVAL;
    if (!co) {
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            continue;
        return 0;
    }
    int rc = co_park(&co->never, 0, time, false);
    return rc == -ETIMEDOUT && modus_now_ns() >= time ? 0 : rc;
}

int modus_co_sleep(int64_t ns)
{
    return ns < 0 ? -EINVAL : modus_co_sleep_until(modus_deadline(ns));
}

void modus_co_forget(void)
{
    here = NULL;
    modus_park_instead = NULL;
    modus_self_renew();
    modus_lot_forget();
}

/* --- descriptors ----------------------------------------------------------------------------- */

/* One wait for a descriptor. libuv closes a handle in its own time, so it is no part of the stack. */
struct fd_wait {
    uv_poll_t poll;
    _Atomic uint32_t done;
    int ready;
};

static void on_fd(uv_poll_t *poll, int status, int events)
{
    struct fd_wait *wait = (struct fd_wait *)poll;

    wait->ready = status < 0
                      ? POLLIN | POLLOUT
                      : (events & UV_READABLE ? POLLIN : 0) | (events & UV_WRITABLE ? POLLOUT : 0);
    atomic_store(&wait->done, 1);
    modus_unpark(MODUS_THREAD, &wait->done, 1);
}

static void free_wait(uv_handle_t *handle)
{
    free(handle); /* the poll is the first member of its wait */
}

int modus_co_wait_fd(int fd, int events, int64_t ns, int *ready)
{
    struct modus_co *co = modus_co_self();
    int rc;

    if (ns < MODUS_FOREVER || !(events & (POLLIN | POLLOUT)))
        return -EINVAL;
    if (!co)
        return -EPERM;
    struct loop *loop = co->loop;
    struct fd_wait *wait = calloc(1, sizeof *wait);
    if (!wait)
        return -ENOMEM;
    rc = uv_poll_init(&loop->uv, &wait->poll, fd);
    if (rc != 0) {
        free(wait);
        return rc == UV_ENOMEM ? -ENOMEM : -EPERM;
    }
    int wanted = (events & POLLIN ? UV_READABLE : 0) | (events & POLLOUT ? UV_WRITABLE : 0);
    loop->fds++;
    rc = uv_poll_start(&wait->poll, wanted, on_fd) == 0 ? 0 : -EPERM;
    int64_t deadline = modus_deadline(ns);
    while (rc == 0 && !atomic_load(&wait->done))
        rc = co_park(&wait->done, 0, deadline, false);
    loop->fds--;
    if (atomic_load(&wait->done)) {
        rc = 0;
        if (ready)
            *ready = wait->ready & events;
    }
    uv_close((uv_handle_t *)&wait->poll, free_wait);
    return rc;
}

int64_t modus_co_lag(char *name)
{
    struct modus_co *co = modus_co_self();

    if (!co)
        return 0;
    co->loop->lag_wanted = true;
    if (name)
        memcpy(name, co->loop->lag_name, NAME_SIZE);
    return co->loop->lag;
}
