/* SPDX-License-Identifier: MIT */
/*
 * The calls of coroutines: making, ending, joining, cancelling, sleeping. Who runs when, and what a
 * wait is, is in coroutine_loop.c.
 */
#include "concurrency/coroutine_priv.h"
#include "concurrency/lot.h"
#include "concurrency/local_priv.h"
#include "concurrency/self.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ENDED = 1, BY_COROUTINES = 2, BY_THREADS = 4 }; /* ended; awaited by */
enum { COLOURS = 16 };

static _Atomic unsigned numbers;

/* --- life ------------------------------------------------------------------------------------ */

static void begin(void *argument)
{
    struct modus_co *co = argument;
    struct modus_co_loop *loop = co->loop;

    co->result = co->run(co->argument);
    modus_locals_end(&co->locals);
    if (modus_co_here != loop)
        _exit(co->result); /* a forked child: there is nothing to go back to */
    uint32_t awaited = atomic_exchange(&co->ended, ENDED);
    while (atomic_load(&co->cancellers)) /* who saw it alive still uses the loop, for a moment */
        sched_yield();
    if (awaited & BY_THREADS)
        modus_unpark(MODUS_THREAD, &co->ended, INT_MAX);
    else if (awaited & BY_COROUTINES) /* no need to call the kernel */
        modus_lot_wake(&co->ended, INT_MAX);
    modus_co_switch_over(co);
}

/* By hand: printf would take longer than all the rest of making one. */
static void name_by_number(char *name, unsigned number)
{
    static const char prefix[] = "coroutine-";
    char digits[10];
    unsigned n = 0;

    do
        digits[n++] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    memcpy(name, prefix, sizeof prefix - 1);
    for (name += sizeof prefix - 1; n > 0; n--)
        *name++ = digits[n - 1];
}

static int make(struct modus_co **co, struct modus_co_loop *loop, const struct modus_co_attr *attr,
                int (*run)(void *argument), void *argument)
{
    struct modus_co *made = calloc(1, sizeof *made);

    /* A wait must not fail: there is a timer's room for each. */
    if (!made || modus_timers_reserve(&loop->timers, (uint32_t)loop->live + 1) < 0) {
        free(made);
        return -ENOMEM;
    }
    int rc = modus_stack_get(&made->stack, attr->stack);
    if (rc == 0 && (rc = modus_co_id_get(&loop->ids, &made->id)) < 0)
        modus_stack_put(&made->stack);
    if (rc < 0) {
        free(made);
        return rc;
    }
    made->ids = loop->ids;
    made->loop = loop;
    made->run = run;
    made->argument = argument;
    made->deadline = attr->deadline  ? attr->deadline
                     : loop->running ? loop->running->deadline
                                     : MODUS_FOREVER;
    atomic_store(&made->references, 2); /* the caller's, and its own while it runs */
    if (attr->name)
        strncpy(made->name, attr->name, MODUS_CO_NAME - 1);
    else
        name_by_number(made->name, atomic_fetch_add(&numbers, 1) + 1);
    /* Stacks begin at different distances from a page's end: if all did at the same one, their frames
     * would fall into the same few lines of the cache. */
    size_t used = made->stack.size - made->id % COLOURS * 64;
    modus_context_make(&made->context, made->stack.low, used, begin, made);
    modus_co_loop_add(loop, made);
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
    if (!modus_co_here || (!modus_co_here->running && !modus_co_here->guest))
        return -EPERM;
    int rc = make(&made, modus_co_here, attr ? attr : &usual, run, argument);
    if (rc < 0)
        return rc;
    if (co)
        *co = made;
    else
        modus_co_put(made);
    return 0;
}

/* The calling thread's loop. */
static int open_here(bool guest)
{
    if (modus_co_here)
        return -EDEADLK;
    struct modus_co_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->tid = modus_self_tid();
    loop->guest = guest;
    int rc = modus_co_watch_stacks();
    if (rc == 0)
        rc = modus_co_loop_open(loop);
    if (rc < 0)
        free(loop);
    else
        modus_co_here = loop;
    return rc;
}

static void close_here(void)
{
    struct modus_co_loop *loop = modus_co_here;

    modus_co_loop_close(loop);
    modus_co_here = NULL;
    modus_co_unwatch_stacks();
    free(loop);
}

int modus_co_run(int (*main)(void *argument), void *argument)
{
    static const struct modus_co_attr attr = {.name = "main"};
    struct modus_co *co;

    if (!main)
        return -EINVAL;
    int rc = open_here(false);
    if (rc < 0)
        return rc;
    rc = make(&co, modus_co_here, &attr, main, argument);
    if (rc == 0) {
        modus_co_loop_run(modus_co_here);
        rc = co->result;
        modus_co_put(co);
    }
    close_here();
    return rc;
}

int modus_co_guest_open(void)
{
    return open_here(true);
}

/* The guest's loop of the calling thread, which is in no coroutine; NULL: there is none. */
static struct modus_co_loop *guest_here(void)
{
    struct modus_co_loop *loop = modus_co_here;

    return loop && loop->guest && !loop->running ? loop : NULL;
}

int modus_co_guest_fd(void)
{
    struct modus_co_loop *loop = guest_here();

    return loop ? uv_backend_fd(&loop->uv) : -EPERM;
}

int64_t modus_co_guest_turn(bool readable)
{
    struct modus_co_loop *loop = guest_here();

    return loop ? modus_co_loop_turn(loop, readable) : MODUS_FOREVER;
}

int modus_co_guest_close(void)
{
    struct modus_co_loop *loop = guest_here();

    if (!loop)
        return -EPERM;
    if (loop->live)
        return -EBUSY;
    close_here();
    return 0;
}

/* Returns what it is now: ENDED, or marked. */
static uint32_t mark(struct modus_co *co, uint32_t by)
{
    uint32_t word = atomic_load(&co->ended);

    while (word != ENDED && !(word & by))
        if (atomic_compare_exchange_weak(&co->ended, &word, word | by))
            return word | by;
    return word;
}

int modus_co_join(struct modus_co *co, int64_t ns, int *result)
{
    bool by_coroutine = modus_co_self();
    int rc = 0;

    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (co == modus_co_self())
        return -EDEADLK;
    int64_t deadline = modus_deadline(ns);
    while (atomic_load(&co->ended) != ENDED) {
        if (ns == 0)
            return -EAGAIN;
        if (rc < 0)
            return rc;
        uint32_t word = mark(co, by_coroutine ? BY_COROUTINES : BY_THREADS);
        if (word != ENDED)
            rc = by_coroutine ? modus_co_park_as(MODUS_CO_JOIN, co, &co->ended, word, deadline)
                              : modus_park(MODUS_THREAD, &co->ended, word, deadline, NULL);
    }
    if (result)
        *result = co->result;
    return 0;
}

void modus_co_cancel(struct modus_co *co)
{
    if (atomic_exchange(&co->cancelled, true))
        return;
    atomic_fetch_add(&co->cancellers, 1);
    if (atomic_load(&co->ended) != ENDED) {
        modus_co_get(co);
        modus_co_loop_cancel(co);
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
    return modus_co_here ? modus_co_here->running : NULL;
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
    modus_co_switch_ready(co);
    if (co->shields > 0)
        return 0;
    if (atomic_load_explicit(&co->cancelled, memory_order_relaxed))
        return MODUS_CANCELED;
    return co->deadline != MODUS_FOREVER && modus_now_ns() >= co->deadline ? -ETIMEDOUT : 0;
}

int modus_co_sleep_until(int64_t time)
{
    struct modus_co *co = modus_co_self();
    int64_t end = time == MODUS_FOREVER ? INT64_MAX : time;
    struct timespec until = {.tv_sec = end / 1000000000, .tv_nsec = end % 1000000000};

    if (end < 0)
        return -EINVAL;
    if (!co) {
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            continue;
        return 0;
    }
    int rc;
    do
        rc = modus_co_park_as(MODUS_CO_SLEEP, NULL, &co->never, 0, time);
    while (rc == 0); /* for no reason: see modus_lot_wake */
    bool slept = co->shields > 0 || co->deadline == MODUS_FOREVER || end <= co->deadline;
    return rc == -ETIMEDOUT && slept ? 0 : rc;
}

int modus_co_sleep(int64_t ns)
{
    return ns < MODUS_FOREVER ? -EINVAL : modus_co_sleep_until(modus_deadline(ns));
}

int64_t modus_co_deadline(int64_t deadline)
{
    struct modus_co *co = modus_co_self();
    int64_t before = co ? co->deadline : MODUS_FOREVER;

    if (co)
        co->deadline = deadline;
    return before;
}

struct modus_co_shield modus_co_shield_begin(void)
{
    struct modus_co_shield shield = {modus_co_self()};

    if (shield.co)
        shield.co->shields++;
    return shield;
}

void modus_co_shield_end(struct modus_co_shield *shield)
{
    if (shield->co)
        shield->co->shields--;
    shield->co = NULL;
}
