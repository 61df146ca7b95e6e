/* SPDX-License-Identifier: MIT */
/* prefork: N workers, each one thread that waits for its connections and runs handlers itself, one
 * at a time. A slow client waits in the worker's poller; a run handler holds its worker.
 *
 * Who accepts: the kernel wakes one waiting worker for a new connection (EPOLLEXCLUSIVE, edge),
 * which accepts one at the end of a turn, when nothing it holds is ready, with the accept lock held
 * around accept4 alone. A worker that holds more than its fair share passes the turn on, by
 * doorbell, to one that waits and holds less. board->backlog says that connections may be waiting:
 * it is cleared before accept4 and set again when that gave one, so no arrival is missed whoever
 * ends or dies; a worker looks at it before it waits, and hands it on before it is held by a
 * handler.
 *
 * A worker that was to take a connection may be held up (stopped, or by a slow disk) although it
 * says that it waits: who passed the turn on looks again a little later, and takes the connection
 * itself.
 */
#include "server/models/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "net/socket.h"
#include "server/inline_host.h"
#include "server/log.h"
#include "server/poller.h"

enum { PASS_MS = 10 };

struct prefork {
    bool passed;     /* in this turn */
    int64_t take_ms; /* not 0: passed on; what is still there then is ours to take */
};

static struct model_plan prefork_plan(const struct config_listener *conf)
{
    return (struct model_plan){
        .workers = conf->processes > 0 ? (unsigned)conf->processes : 8,
        .threads = 1,
        .max_connections = model_max_connections(conf, 10000),
        .keepalive_timeout_ms = 60000,
        .defer_accept = true,
    };
}

static uint32_t held(const struct worker_slot *slot)
{
    return atomic_load_explicit(&slot->connections, memory_order_relaxed);
}

/* Another worker that waits and holds fewer than limit connections, the one with the fewest. */
static struct worker_slot *idler(struct poller *p, uint32_t limit)
{
    struct board *b = p->worker->board;
    struct worker_slot *best = NULL;
    for (unsigned i = 0; i < b->slot_count; i++) {
        struct worker_slot *slot = &b->slots[i];
        if (slot == p->worker->slot || held(slot) >= limit ||
            atomic_load_explicit(&slot->state, memory_order_relaxed) != WORKER_WAITING)
            continue;
        if (!best || held(slot) < held(best))
            best = slot;
    }
    return best;
}

/* Ours is more than a fair share while a waiting worker is below it: let that one accept. */
static bool pass_on(struct poller *p)
{
    struct board *b = p->worker->board;
    uint32_t total = 1, mine = held(p->worker->slot);
    for (unsigned i = 0; i < b->slot_count; i++)
        total += held(&b->slots[i]);
    uint32_t share = (total + b->slot_count - 1) / b->slot_count;
    struct worker_slot *other = mine >= share ? idler(p, share) : NULL;
    if (!other)
        return false;
    atomic_store(&b->backlog, true);
    modus_doorbell_ring(&other->bell);
    return true;
}

static int prefork_accept(struct poller *p, int fd)
{
    struct board *b = p->worker->board;
    struct prefork *f = p->model;
    bool waited = f->take_ms && p->net->now_ms >= f->take_ms;
    if (!p->draining && !waited && pass_on(p)) {
        f->passed = true;
        if (!f->take_ms) {
            f->take_ms = p->net->now_ms + PASS_MS;
            p->look_at_us = f->take_ms * 1000;
        }
        return -EAGAIN;
    }
    f->take_ms = p->look_at_us = 0;
    int r = modus_lock_acquire(&b->accept_lock, MODUS_FOREVER);
    if (r < 0)
        log_error("accept lock: %s", modus_strresult(r));
    atomic_store(&b->backlog, false);
    struct conn_peer peer;
    int got = socket_accept(fd, &peer);
    if (got >= 0)
        atomic_store(&b->backlog, true);
    if (r >= 0)
        modus_lock_release(&b->accept_lock);
    if (got < 0)
        return got;
    poller_expect(p);
    poller_adopt(p, got, &peer);
    return 0;
}

/* The handler runs here: nobody else of this worker is served meanwhile. */
static void prefork_serve(struct poller *p, struct poller_conn *pc)
{
    struct board *b = p->worker->board;
    worker_set_state(p->worker, WORKER_BUSY);
    if (atomic_load(&b->backlog)) {
        struct worker_slot *other = idler(p, UINT32_MAX);
        if (other)
            modus_doorbell_ring(&other->bell);
    }
    inline_serve(&pc->conn, p->net);
    poller_settle(p, pc, conn_step(&pc->conn, p->net));
    worker_set_state(p->worker, p->draining ? WORKER_DRAINING : WORKER_WAITING);
}

static void prefork_bell(struct poller *p)
{
    if (worker_look(p->worker)) {
        worker_set_state(p->worker, WORKER_DRAINING);
        poller_drain(p);
    }
}

/* Before it waits: connections that nobody has taken are ours too, unless we just passed them on.
 */
static void prefork_turn(struct poller *p)
{
    struct prefork *f = p->model;
    bool backlog = atomic_load_explicit(&p->worker->board->backlog, memory_order_relaxed);
    if (!p->drained && !f->passed && backlog)
        poller_look_for_more(p);
    if (p->net->now_ms >= f->take_ms)
        p->look_at_us = 0;
    if (!backlog) /* it was taken */
        f->take_ms = p->look_at_us = 0;
    f->passed = false;
}

static int prefork_run(struct worker *w)
{
    static const struct poller_ops ops = {
        .ready = poller_step,
        .serve = prefork_serve,
        .accept = prefork_accept,
        .room = poller_make_room,
        .idle = poller_idle,
        .bell = prefork_bell,
        .turn = prefork_turn,
        .deadline = poller_deadline,
        .host = &inline_host,
        .accept_batch = 1,
        .listen_events = EPOLLEXCLUSIVE,
        .gives_way = true,
    };
    struct poller p;
    struct prefork f = {0};
    unsigned share =
        (w->listener->plan.max_connections + w->board->slot_count - 1) / w->board->slot_count;
    if (poller_open(&p, w, &ops, &f, &w->slot->bell, 0, true, share) != 0) {
        log_error("worker cannot start: no descriptors or memory");
        return 1;
    }
    worker_ready(w);
    poller_run(&p);
    poller_close(&p);
    return 0;
}

static bool prefork_note(const struct config_listener *conf, char *text, size_t size)
{
    unsigned workers = prefork_plan(conf).workers;
    snprintf(text, size,
             "%u workers serve one request at a time each: 100 requests that each wait 2 s need %u "
             "rounds, %u s",
             workers, (100 + workers - 1) / workers, 2 * ((100 + workers - 1) / workers));
    return true;
}

static const char *const uses[] = {"processes", NULL};

const struct model model_prefork = {
    .name = "prefork",
    .summary = "worker processes made ahead, each serves one request at a time",
    .role = "worker",
    .options = "processes = 8, max_connections = 10000, keepalive_timeout = 60s",
    .uses = uses,
    .plan = prefork_plan,
    .note = prefork_note,
    .run = prefork_run,
};
