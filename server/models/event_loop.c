/* SPDX-License-Identifier: MIT */
/* event-loop: one process, L loops, each a thread that waits for its connections and serves `step`
 * handlers at once; `run` handlers go through the bounded queue to helper threads. A handler that
 * computes delays no other connection.
 *
 * An exchange on its way to a helper is in the state word of its connection:
 *
 *   NONE -> OFFERED (in the queue, or in the loop's list while the queue is full)
 *   OFFERED -> SERVED (a helper took it) -> NONE (the loop heard that it is done)
 *   OFFERED -> NONE (waited too long: the loop answers 503; its place in the queue is passed over)
 */
#include "server/models/model.h"

#include <stdlib.h>

#include "server/log.h"
#include "server/loops.h"
#include "server/work.h"

enum { NONE, OFFERED, SERVED };

struct event_loops {
    struct loops loops;
    struct modus_queue ready; /* struct poller_conn *, to the helpers */
    struct work *work;        /* each loop's way to them: the queue, and what it has no room for */
    unsigned helper_count;
    atomic_uint next_helper; /* for their lanes */
    pthread_t *helpers;
};

static struct model_plan loops_plan(const struct config_listener *conf)
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

/* --- helpers --------------------------------------------------------------------------------- */

static void *helper(void *arg)
{
    struct event_loops *all = arg;
    unsigned index = all->loops.count + atomic_fetch_add(&all->next_helper, 1);
    struct worker_lane *lane = worker_lane(all->loops.worker, index);
    struct poller_conn *pc;
    while (modus_queue_get(&all->ready, &pc, MODUS_FOREVER) == 0) {
        unsigned state = OFFERED;
        if (!atomic_compare_exchange_strong(&pc->state, &state, SERVED))
            continue; /* refused while it waited */
        atomic_store_explicit(&lane->busy, true, memory_order_relaxed);
        board_lane_add(&lane->taken, 1);
        exchange_serve(conn_exchange(&pc->conn));
        atomic_store_explicit(&lane->busy, false, memory_order_relaxed);
        loops_done(pc);
    }
    return NULL;
}

/* --- loops ----------------------------------------------------------------------------------- */

static struct work *work_of(struct loop *loop)
{
    struct event_loops *all = loop->all->own;
    return &all->work[loop->index];
}

/* By when a helper must have taken it. */
static int64_t queue_limit_ms(const struct poller_conn *pc)
{
    return pc->since_us / 1000 + pc->poller->worker->listener->conf->queue_timeout_ms;
}

static void loop_serve(struct poller *p, struct poller_conn *pc)
{
    struct loop *loop = p->model;
    pc->since_us = p->net->now_us;
    atomic_store(&pc->state, OFFERED);
    poller_time(p, pc, queue_limit_ms(pc));
    board_lane_add(&loop->lane->put, 1);
    work_put(work_of(loop), &pc, 1);
}

static int64_t loop_deadline(const struct poller_conn *pc)
{
    int64_t due = poller_deadline(pc);
    if (atomic_load(&pc->state) != OFFERED)
        return due;
    int64_t limit = queue_limit_ms(pc);
    return limit < due ? limit : due;
}

static void loop_ready(struct poller *p, struct poller_conn *pc, uint32_t events)
{
    unsigned state = OFFERED;
    if (atomic_load(&pc->state) == OFFERED && p->net->now_ms >= queue_limit_ms(pc) &&
        atomic_compare_exchange_strong(&pc->state, &state, NONE)) {
        struct loop *loop = p->model;
        board_lane_add(&loop->lane->taken, 1);
        net_count(&p->net->stats->rejected, 1);
        conn_reject(&pc->conn);
    }
    poller_step(p, pc, events);
}

static void loop_done(struct loop *loop, struct poller_conn *pc)
{
    atomic_store(&pc->state, NONE);
    net_histogram_add(&loop->poller.net->stats->queued,
                      exchange_waited_us(conn_exchange(&pc->conn)), 1);
    loops_finish(loop, pc);
}

static void loop_bell(struct loop *loop)
{
    work_go_on(work_of(loop));
}

static void loop_turn(struct poller *p)
{
    work_go_on(work_of(p->model));
}

static const struct poller_ops poller_ops = {
    .ready = loop_ready,
    .serve = loop_serve,
    .accept = loops_accept,
    .takes = poller_takes,
    .arrive = loops_arrive,
    .room = loops_room,
    .idle = poller_idle,
    .bell = loops_bell,
    .turn = loop_turn,
    .deadline = loop_deadline,
    .host = &loops_host,
    .accept_batch = LOOPS_ACCEPT_BATCH,
};

static const struct loops_ops loops_ops = {
    .poller = &poller_ops,
    .begin = loops_no_begin,
    .end = loops_no_end,
    .bell = loop_bell,
    .done = loop_done,
};

/* --- making ---------------------------------------------------------------------------------- */

static int start(struct event_loops *all, struct worker *w)
{
    unsigned wanted = w->listener->plan.helpers;
    if (loops_open(&all->loops, w, &loops_ops, all) != 0 || work_queue_init(&all->ready, w) != 0)
        return -1;
    all->work = calloc(all->loops.count, sizeof *all->work);
    all->helpers = calloc(wanted, sizeof *all->helpers);
    if (!all->work || !all->helpers)
        return -1;
    for (unsigned i = 0; i < all->loops.count; i++)
        work_init(&all->work[i], &all->loops.loops[i].poller, &all->ready, OFFERED);
    for (; all->helper_count < wanted; all->helper_count++)
        if (worker_thread(&all->helpers[all->helper_count], "helper", all->helper_count, helper,
                          all) != 0)
            return -1;
    return 0;
}

/* The loops have ended: no connection is left, so no helper is at work. */
static void stop(struct event_loops *all)
{
    modus_queue_close(&all->ready, MODUS_CLOSE_DRAIN);
    for (unsigned i = 0; i < all->helper_count; i++)
        pthread_join(all->helpers[i], NULL);
    loops_close(&all->loops);
    modus_queue_fini(&all->ready);
    free(all->work);
    free(all->helpers);
}

static int event_loop_run(struct worker *w)
{
    struct event_loops all = {0};
    if (start(&all, w) != 0 || loops_run(&all.loops) != 0) {
        log_error(
            "event-loop cannot start its loops and helpers: no threads, descriptors or memory");
        return 1;
    }
    stop(&all);
    return 0;
}

static const char *const uses[] = {"loops", "threads",         "queue", "queue_timeout",
                                   "gil",   "worker_requests", NULL};

const struct model model_event_loop = {
    .name = "event-loop",
    .summary =
        "loops that wait for all connections; helper threads run handlers that wait or compute",
    .role = "worker",
    .options = "loops = auto (one a CPU), threads = 64 (helpers), queue = 1024, queue_timeout = "
               "10s, max_connections = 10000",
    .uses = uses,
    .plan = loops_plan,
    .note = model_no_note,
    .run = event_loop_run,
};
