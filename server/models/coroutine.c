/* SPDX-License-Identifier: MIT */
/* coroutine: one process, L loops, each a thread. `step` handlers run on the loop at once; a `run`
 * handler is a coroutine of its connection's loop, and while it waits, through the exchange's calls
 * or the toolbox's, the others go on. Thousands may wait at the price of a stack each. One that is
 * marked `blocking` would hold up its loop: its coroutine lets a helper thread run it, and waits.
 *
 * The connection itself is stepped by the loop and not inside of a coroutine: so an idle connection,
 * a slow head or a slow reader holds no stack, and those that there are need not be large enough for
 * TLS. Coroutines are guests of the poller: they run at the end of a turn, and what wakes them from
 * other threads is one more descriptor of its set.
 *
 * The state word of a connection says how its exchange ended, once it did:
 *
 *   NONE -> SERVED, or REFUSED (no helper in time: 503) -> NONE
 */
#include "server/models/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "concurrency/coroutine.h"
#include "concurrency/offload.h"
#include "server/log.h"
#include "server/loops.h"

enum { NONE, SERVED, REFUSED };
enum { STACK_BYTES = 256 * 1024 }; /* of address space: what a thread has that runs handlers */

/* A route as gdb's "info coroutines" shows it, and as we know it again: its number comes first. */
typedef char co_name[MODUS_CO_NAME];

struct co_loop {
    struct poller_source guest; /* coroutines are to run */
    struct loop *loop;
    bool readable;            /* the descriptor by which they say so, or more than that */
    bool started;             /* one in this turn */
    unsigned live;            /* coroutines */
    struct poller_conn *done; /* served since the turn began */
    const co_name *names;     /* of coroutines, one a route */
};

static struct model_plan coroutine_plan(const struct config_listener *conf)
{
    return (struct model_plan){
        .workers = 1,
        .threads = loops_wanted(conf),
        .helpers = (unsigned)conf->threads,
        .pool = (unsigned)conf->threads,
        .max_connections = model_max_connections(conf, 10000),
        .keepalive_timeout_ms = 60000,
        .defer_accept = true,
    };
}

static struct co_loop *co_loop_of(const struct poller *p)
{
    const struct loop *loop = p->model;
    struct co_loop *all = loop->all->own;
    return &all[loop->index];
}

/* --- helpers --------------------------------------------------------------------------------- */

/* Of the helper that calls: the lines after the loops' are theirs, in the order of their first work.
 */
static struct worker_lane *helper_lane(const struct loops *all)
{
    static atomic_uint helpers;
    static _Thread_local struct worker_lane *lane;
    if (!lane)
        lane = worker_lane(all->worker, all->count + atomic_fetch_add(&helpers, 1));
    return lane;
}

static int serve_on_helper(void *arg)
{
    struct poller_conn *pc = arg;
    struct loop *loop = pc->poller->model;
    struct worker_lane *lane = helper_lane(loop->all);
    atomic_store_explicit(&lane->busy, true, memory_order_relaxed);
    board_lane_add(&lane->taken, 1);
    exchange_serve(conn_exchange(&pc->conn));
    atomic_store_explicit(&lane->busy, false, memory_order_relaxed);
    return 0;
}

/* Nobody is on the way to it any more. */
static void refuse(struct loop *loop, struct poller_conn *pc)
{
    board_lane_add(&loop->lane->taken, 1);
    net_count(&loop->poller.net->stats->rejected, 1);
    atomic_store(&pc->state, REFUSED);
}

/* A peer that is gone is no reason to leave the line: the handler has to hear of it. */
static void serve_blocking(struct loop *loop, struct poller_conn *pc)
{
    MODUS_CO_SHIELD(whatever_comes);
    int64_t limit_ms = loop->all->worker->listener->conf->queue_timeout_ms;
    board_lane_add(&loop->lane->put, 1);
    if (modus_offload(serve_on_helper, pc, limit_ms * 1000000, NULL) == 0)
        net_histogram_add(&loop->poller.net->stats->queued,
                          exchange_waited_us(conn_exchange(&pc->conn)), 1);
    else
        refuse(loop, pc);
}

/* --- coroutines ------------------------------------------------------------------------------ */

static int serve(void *arg)
{
    struct poller_conn *pc = arg;
    struct loop *loop = pc->poller->model;
    struct co_loop *l = co_loop_of(pc->poller);
    atomic_store(&pc->state, SERVED);
    if (exchange_is_blocking(conn_exchange(&pc->conn)))
        serve_blocking(loop, pc);
    else
        exchange_serve(conn_exchange(&pc->conn));
    pc->next_work = l->done;
    l->done = pc;
    l->live--;
    return 0;
}

static void loop_serve(struct poller *p, struct poller_conn *pc)
{
    struct co_loop *l = co_loop_of(p);
    const struct route *route = exchange_route(conn_exchange(&pc->conn));
    struct modus_co_attr attr = {.stack = STACK_BYTES,
                                 .deadline = MODUS_FOREVER,
                                 .name = l->names[route - p->worker->listener->routes]};
    l->live++;
    l->started = true;
    if (modus_co_start(&pc->co, &attr, serve, pc) == 0)
        return;
    l->live--;
    net_count(&p->net->stats->rejected, 1);
    conn_reject(&pc->conn);
    poller_again(p, pc);
}

static void finish(struct loop *loop, struct poller_conn *pc)
{
    bool refused = atomic_exchange(&pc->state, NONE) == REFUSED;
    modus_co_put(pc->co);
    pc->co = NULL;
    if (!refused) {
        loops_finish(loop, pc);
        return;
    }
    conn_reject(&pc->conn);
    poller_step(&loop->poller, pc, 0);
}

/* When must they have a turn again? */
static int64_t look_at_us(const struct co_loop *l, int64_t next)
{
    if (l->started || next == 0)
        return l->loop->poller.net->now_us;
    return next == MODUS_FOREVER ? 0 : (next + 999) / 1000;
}

/* Has a handler held the loop that neither waits nor is marked as blocking? */
static void look_at_lag(struct poller *p)
{
    co_name name;
    int64_t lag_ms = modus_co_guest_lag(name) / 1000000;
    if (lag_ms >= BLOCKED_MS)
        blocked_by(&p->blocked, &p->worker->listener->routes[strtoul(name, NULL, 10)], lag_ms);
}

/* The coroutines' turn. What they have served is stepped on the loop's own stack, and may want to be
 * served at once again. */
static void loop_turn(struct poller *p)
{
    struct co_loop *l = co_loop_of(p);
    p->look_at_us = 0;
    if (!l->live && !l->readable)
        return;
    int64_t next = modus_co_guest_turn(l->readable);
    p->net->mark_us = 0;
    look_at_lag(p);
    l->readable = next == 0;
    l->started = false;
    while (l->done) {
        struct poller_conn *pc = l->done;
        l->done = pc->next_work;
        finish(l->loop, pc);
    }
    p->look_at_us = look_at_us(l, next);
}

static void on_guest(struct poller *p, struct poller_source *source, uint32_t events)
{
    (void)source, (void)events;
    co_loop_of(p)->readable = true;
}

/* --- loops ----------------------------------------------------------------------------------- */

static int loop_begin(struct loop *loop)
{
    struct co_loop *l = co_loop_of(&loop->poller);
    l->guest.event = on_guest;
    l->loop = loop;
    if (modus_co_guest_open() == 0 && modus_co_name_overflows() == 0 &&
        poller_watch(&loop->poller, &l->guest, modus_co_guest_fd(), EPOLLIN) == 0) {
        modus_co_guest_lag(NULL); /* from here on it is measured */
        return 0;
    }
    log_error("coroutine cannot start a loop: no descriptors or memory");
    return -1;
}

static void loop_end(struct loop *loop)
{
    (void)loop;
    modus_co_guest_close();
}

static void loop_bell(struct loop *loop)
{
    (void)loop;
}

static const struct poller_ops poller_ops = {
    .ready = poller_step,
    .serve = loop_serve,
    .accept = loops_accept,
    .takes = poller_takes,
    .arrive = loops_arrive,
    .room = loops_room,
    .idle = poller_idle,
    .bell = loops_bell,
    .turn = loop_turn,
    .deadline = poller_deadline,
    .host = &loops_host,
    .accept_batch = LOOPS_ACCEPT_BATCH,
};

static const struct loops_ops loops_ops = {
    .poller = &poller_ops,
    .begin = loop_begin,
    .end = loop_end,
    .bell = loop_bell,
    .done = loops_finish,
};

static co_name *make_names(const struct listener *l)
{
    size_t count = l->conf->route_count;
    co_name *names = calloc(count, sizeof *names);
    for (size_t i = 0; names && i < count; i++)
        snprintf(names[i], sizeof names[i], "%zu %.*s", i, (int)l->routes[i].prefix.len,
                 l->routes[i].prefix.at);
    return names;
}

static int coroutine_run(struct worker *w)
{
    struct loops loops;
    struct co_loop *own = calloc(w->listener->plan.threads, sizeof *own);
    co_name *names = make_names(w->listener);
    for (unsigned i = 0; own && i < w->listener->plan.threads; i++)
        own[i].names = names;
    atomic_store(&w->board->queue_capacity, w->listener->plan.max_connections);
    if (!own || !names || modus_offload_helpers((unsigned)w->listener->conf->threads) != 0 ||
        loops_open(&loops, w, &loops_ops, own) != 0 || loops_run(&loops) != 0) {
        log_error("coroutine cannot start its loops: no threads, descriptors or memory");
        return 1;
    }
    loops_close(&loops);
    free(own);
    free(names);
    return 0;
}

static const char *const uses[] = {"loops", "threads",         "queue_timeout",
                                   "gil",   "worker_requests", NULL};

const struct model model_coroutine = {
    .name = "coroutine",
    .summary =
        "loops that wait for all connections; a handler that waits is a coroutine of its loop",
    .role = "worker",
    .options = "loops = auto (one a CPU), threads = 64 (helpers at most, for handlers that block), "
               "queue_timeout = 10s, max_connections = 10000",
    .uses = uses,
    .plan = coroutine_plan,
    .note = model_no_note,
    .run = coroutine_run,
};
