/* SPDX-License-Identifier: MIT */
/*
 * The scheduler: a loop a thread, on libuv for time, descriptors and calls from other threads.
 *
 * A turn runs the ready coroutines one after the other, each until it waits, then asks libuv, without
 * waiting if there are more. A coroutine that waits for a word stands in the lot (lot.h). Whoever
 * takes it out, and only that one, makes it ready: an unpark; the proxy, for words that processes
 * share (proxy.h); or its own loop, when its time is over or it is cancelled. So there is no other
 * state to agree on. What other threads make ready goes through the loop's inbox, and so does what a
 * signal handler makes ready at a bad moment.
 *
 * Who the running coroutine is to a lock: its own id, which stands in the place of the thread's id
 * while it runs (self.h), and only then is its way of parking in force: what the loop itself does
 * between two coroutines is the thread's.
 */
#include "concurrency/coroutine_priv.h"
#include "concurrency/forks.h"
#include "concurrency/local_priv.h"
#include "concurrency/proxy.h"
#include "concurrency/self.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { TURN = 256, LOOP_FDS = 5, FIRST_LOOP_FDS = 7 };
enum { RECHECK_NS = 1000000000, WITHOUT_PROXY_NS = 10000000 };

_Thread_local struct modus_co_loop *modus_co_here;

/* --- ready ----------------------------------------------------------------------------------- */

/* A signal handler that makes one ready may come between any two instructions. Between these two it
 * leaves the list alone; the compiler must not move a look at the list out of them. */
static inline void begin_change(struct modus_co_loop *loop)
{
    loop->busy = 1;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void end_change(struct modus_co_loop *loop)
{
    atomic_signal_fence(memory_order_seq_cst);
    loop->busy = 0;
}

static void append(struct modus_co_loop *loop, struct modus_co *co)
{
    co->next = NULL;
    begin_change(loop);
    *(loop->first ? &loop->last->next : &loop->first) = co;
    loop->last = co;
    end_change(loop);
}

static struct modus_co *take_first(struct modus_co_loop *loop)
{
    begin_change(loop);
    struct modus_co *co = loop->first;
    loop->first = co->next;
    end_change(loop);
    return co;
}

/* From any thread, or from a signal handler in the middle of the above; the caller has taken it out
 * of the lot. */
static void make_ready(struct modus_co *co)
{
    struct modus_co_loop *loop = co->loop;

    if (loop == modus_co_here && !loop->busy) {
        append(loop, co);
        if (loop->idle)
            uv_async_send(&loop->bell);
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

void modus_co_loop_end_wait(struct modus_co *co, int result)
{
    if (modus_lot_leave(&co->entry)) {
        co->waited = result;
        append(co->loop, co);
    }
}

static void take_inbox(struct modus_co_loop *loop)
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
            modus_co_loop_end_wait(co, MODUS_CANCELED);
        modus_co_put(co);
        co = next;
    }
}

void modus_co_loop_cancel(struct modus_co *co)
{
    struct modus_co_loop *loop = co->loop;
    struct modus_co *head = atomic_load(&loop->cancelled);

    do
        co->next_cancelled = head;
    while (!atomic_compare_exchange_weak(&loop->cancelled, &head, co));
    uv_async_send(&loop->bell);
}

/* --- waiting --------------------------------------------------------------------------------- */

/* Off to the loop; returns when the coroutine goes on. */
static void suspend(struct modus_co *co)
{
    modus_context_switch(&co->context, &co->loop->context);
}

void modus_co_switch_ready(struct modus_co *co)
{
    struct modus_park_around around = modus_park_give_up();

    co->state = MODUS_CO_READY;
    append(co->loop, co);
    suspend(co);
    modus_park_take_back(around);
}

_Noreturn void modus_co_switch_over(struct modus_co *co)
{
    co->loop->over = co;
    modus_context_leave(&co->context, &co->loop->context);
}

/* The call's own deadline, or the coroutine's if that is earlier. */
static int64_t deadline_of(const struct modus_co *co, int64_t deadline)
{
    if (co->deadline == MODUS_FOREVER || (deadline != MODUS_FOREVER && deadline < co->deadline))
        return deadline;
    return co->deadline;
}

/* The processes that change the word know of no lot: a proxy sleeps on it for us. Without one, or if
 * nothing would tell it of a death, the coroutine looks again from time to time. */
static void suspend_shared(struct modus_co *co, _Atomic uint32_t *word, uint32_t expected,
                           int64_t until, const struct modus_watch *watch, bool robust)
{
    struct modus_proxy_wait wait;
    bool slept_for = modus_proxy_begin(&wait, word, expected, watch, robust);
    int64_t look = MODUS_FOREVER;

    if (!slept_for || !watch || !watch->epoch)
        look = modus_now_ns() + (slept_for ? RECHECK_NS : WITHOUT_PROXY_NS);
    bool early = look != MODUS_FOREVER && (until == MODUS_FOREVER || look < until);
    if (early)
        modus_timers_add(&co->loop->timers, &co->timer, look);
    suspend(co);
    if (robust)
        modus_proxy_cover(word);
    if (slept_for)
        modus_proxy_end(&wait);
    if (early && co->waited == -ETIMEDOUT)
        co->waited = 0;
}

/* What the wait is for has been noted in co. */
static int park(struct modus_co *co, enum modus_scope scope, _Atomic uint32_t *word,
                uint32_t expected, int64_t deadline, const struct modus_watch *watch, unsigned how)
{
    bool deaf = (how & MODUS_PARK_DEAF) || co->shields > 0;
    int64_t until = deaf ? deadline : deadline_of(co, deadline);

    if (!deaf && atomic_load(&co->cancelled))
        return MODUS_CANCELED;
    co->waited = 0;
    co->deaf = deaf;
    co->entry.wake = on_unpark;
    co->since = co->loop->now;
    if (until != MODUS_FOREVER)
        modus_timers_add(&co->loop->timers, &co->timer, until);
    co->state = MODUS_CO_WAITING;
    if (modus_lot_enter(&co->entry, word, expected)) {
        if (scope == MODUS_THREAD)
            suspend(co);
        else
            suspend_shared(co, word, expected, until, watch, how & MODUS_PARK_ROBUST);
    }
    co->entry.word = 0;
    co->state = MODUS_CO_RUNNING;
    modus_timers_remove(&co->loop->timers, &co->timer);
    return co->waited;
}

static int co_park(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected,
                   int64_t deadline, const struct modus_watch *watch, unsigned how)
{
    struct modus_co *co = modus_co_here->running;

    if (scope == MODUS_PROCESS && !modus_park_hears())
        watch = NULL;
    co->kind = how & MODUS_PARK_DEAF    ? MODUS_CO_LOCK
               : scope == MODUS_PROCESS ? MODUS_CO_SHARED
                                        : MODUS_CO_WORD;
    co->object = (const void *)(uintptr_t)word;
    return park(co, scope, word, expected, deadline, watch, how);
}

int modus_co_park_as(enum modus_co_wait kind, const void *object, _Atomic uint32_t *word,
                     uint32_t expected, int64_t deadline)
{
    struct modus_co *co = modus_co_here->running;

    struct modus_park_around around = modus_park_give_up();

    co->kind = (uint8_t)kind;
    co->object = object;
    int rc = park(co, MODUS_THREAD, word, expected, deadline, NULL, 0);
    modus_park_take_back(around);
    return rc;
}

/* --- the loop -------------------------------------------------------------------------------- */

void modus_co_loop_add(struct modus_co_loop *loop, struct modus_co *co)
{
    co->after = loop->all;
    if (loop->all)
        loop->all->before = co;
    loop->all = co;
    loop->live++;
    append(loop, co);
}

static void note_lag(struct modus_co_loop *loop)
{
    int64_t now = modus_now_ns();

    if (now - loop->now > loop->lag) {
        loop->lag = now - loop->now;
        memcpy(loop->lag_name, loop->ran_name, MODUS_CO_NAME);
    }
    loop->now = now;
}

static void end(struct modus_co_loop *loop, struct modus_co *co)
{
    *(co->before ? &co->before->after : &loop->all) = co->after;
    if (co->after)
        co->after->before = co->before;
    loop->live--;
    modus_co_id_put(co->ids, loop->ids);
    modus_context_drop(&co->context);
    modus_stack_put(&co->stack);
    modus_co_put(co);
}

static void run_one(struct modus_co_loop *loop, struct modus_co *co)
{
    loop->running = co;
    co->state = MODUS_CO_RUNNING;
    if (loop->lag_wanted)
        memcpy(loop->ran_name, co->name, MODUS_CO_NAME);
    modus_self_cache.tid = co->id;
    modus_park_instead = co_park;
    modus_park_fd_instead = modus_co_park_fd;
    modus_locals_instead = &co->locals;
    modus_context_switch(&loop->context, &co->context);
    modus_locals_instead = NULL;
    modus_park_fd_instead = NULL;
    modus_park_instead = NULL;
    modus_self_cache.tid = loop->tid;
    loop->running = NULL;
    if (loop->over) {
        loop->over = NULL;
        end(loop, co);
    }
}

/* Run them until so many have had their turn, or last, unless NULL. */
static void run_ready(struct modus_co_loop *loop, unsigned most, const struct modus_co *last)
{
    struct modus_co *co = NULL;

    loop->now = modus_now_ns();
    for (unsigned i = 0; i < most && loop->first && (i == 0 || co != last); i++) {
        co = take_first(loop);
        run_one(loop, co);
        if (loop->lag_wanted)
            note_lag(loop);
    }
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

static void end_due(struct modus_co_loop *loop)
{
    int64_t now = loop->timers.count ? modus_now_ns() : 0;
    struct modus_timers_entry *timer;

    while ((timer = modus_timers_due(&loop->timers, now)) != NULL)
        modus_co_loop_end_wait(co_of_timer(timer), -ETIMEDOUT);
}

/* From here on whoever becomes ready ends the wait that may follow, although the list has been looked
 * at: only a signal handler can make it so, or a guest's host. */
static inline void begin_idling(struct modus_co_loop *loop)
{
    loop->idle = 1;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void end_idling(struct modus_co_loop *loop)
{
    atomic_signal_fence(memory_order_seq_cst);
    loop->idle = 0;
}

/* Wait in libuv until there is something to do; not at all if there is. */
static void wait_for_more(struct modus_co_loop *loop)
{
    int64_t next = modus_timers_next(&loop->timers);

    if (next != MODUS_FOREVER) {
        int64_t ns = next - modus_now_ns();

        uv_update_time(&loop->uv);
        uv_timer_start(&loop->timer, on_timer, ns > 0 ? (uint64_t)(ns + 999999) / 1000000 : 0, 0);
    } else {
        uv_timer_stop(&loop->timer);
    }
    begin_idling(loop);
    uv_run(&loop->uv, loop->first ? UV_RUN_NOWAIT : UV_RUN_ONCE);
    end_idling(loop);
}

void modus_co_loop_run(struct modus_co_loop *loop)
{
    for (;;) {
        run_ready(loop, TURN, NULL);
        if (loop->live == 0)
            return;
        take_inbox(loop);
        end_due(loop);
        if (!loop->first || loop->fds.waiting)
            wait_for_more(loop);
    }
}

/* Where somebody else waits, libuv is asked when its descriptor is readable, and when it has to tell
 * the kernel what to watch, or to close what was watched; then it says that it would not wait. */
int64_t modus_co_loop_turn(struct modus_co_loop *loop, bool readable)
{
    end_idling(loop);
    if (readable || uv_backend_timeout(&loop->uv) == 0)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    take_inbox(loop);
    end_due(loop);
    if (loop->first)
        run_ready(loop, UINT_MAX, loop->last); /* who becomes ready meanwhile has the next turn */
    begin_idling(loop);
    return loop->first || uv_backend_timeout(&loop->uv) == 0 ? 0 : modus_timers_next(&loop->timers);
}

static atomic_bool had_one; /* in this process or its parent */

/* libuv ends the program where there are too few for its first loop, and loses one where there are
 * too few for another. Others may take them in between, but that is a narrow chance. */
static bool has_descriptors(void)
{
    int fds[FIRST_LOOP_FDS], n = 0, wanted = atomic_load(&had_one) ? LOOP_FDS : FIRST_LOOP_FDS;

    fds[0] = eventfd(0, EFD_CLOEXEC);
    if (fds[0] >= 0)
        for (n = 1; n < wanted; n++)
            if ((fds[n] = fcntl(fds[0], F_DUPFD_CLOEXEC, 0)) < 0)
                break;
    for (int i = 0; i < n; i++)
        close(fds[i]);
    return n == wanted;
}

int modus_co_loop_open(struct modus_co_loop *loop)
{
    if (!has_descriptors() || uv_loop_init(&loop->uv) != 0)
        return -ENOMEM;
    atomic_store(&had_one, true);
    uv_timer_init(&loop->uv, &loop->timer);
    if (modus_co_fds_open(&loop->fds, &loop->uv) == 0) {
        if (uv_async_init(&loop->uv, &loop->bell, on_bell) == 0)
            return 0;
        modus_co_fds_stop(&loop->fds);
        modus_co_fds_close(&loop->fds);
    }
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    return -ENOMEM;
}

void modus_co_loop_close(struct modus_co_loop *loop)
{
    while (atomic_load(&loop->callers)) /* for a moment */
        sched_yield();
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->bell, NULL);
    modus_co_fds_stop(&loop->fds);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    uv_loop_close(&loop->uv);
    modus_co_fds_close(&loop->fds);
    modus_timers_fini(&loop->timers);
    modus_co_id_end(loop->ids);
    take_inbox(loop); /* references of those that were cancelled at the end */
}

/* --- forks ----------------------------------------------------------------------------------- */

/* The loop is the parent's, and so are its descriptors and all who wait in it. */
void modus_co_forget(void)
{
    modus_co_here = NULL;
    modus_park_fd_instead = NULL;
    modus_park_instead = NULL;
    modus_locals_instead = NULL;
    modus_self_renew();
    modus_lot_forget();
    modus_proxy_forget();
}

MODUS_FORK_CHILD static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, modus_co_forget);
}
