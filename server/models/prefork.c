/* SPDX-License-Identifier: MIT */
/* prefork: N workers, each one thread that waits for its connections and runs handlers itself, one
 * at a time. A slow client waits in the worker's poller; a run handler holds its worker. Who accepts
 * is agreed among them: server/sharing.h.
 */
#include "server/models/model.h"

#include <stdio.h>

#include "server/inline_host.h"
#include "server/log.h"
#include "server/poller.h"
#include "server/sharing.h"

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

static int prefork_accept(struct poller *p, int fd)
{
    return sharing_accept(p, p->model, fd);
}

static bool prefork_takes(struct poller *p)
{
    return sharing_takes(p, p->model);
}

static bool prefork_room(struct poller *p)
{
    return sharing_room(p, p->model);
}

/* The handler runs here: nobody else of this worker is served meanwhile. */
static void prefork_serve(struct poller *p, struct poller_conn *pc)
{
    worker_set_state(p->worker, WORKER_BUSY);
    sharing_hand_on(p);
    inline_serve(&pc->conn, p->net);
    poller_settle(p, pc, conn_step(&pc->conn, p->net));
    worker_set_state(p->worker, p->draining ? WORKER_DRAINING : WORKER_WAITING);
}

static void prefork_bell(struct poller *p)
{
    poller_obey(p, worker_look(p->worker));
}

static void prefork_turn(struct poller *p)
{
    sharing_turn(p, p->model);
}

static int prefork_run(struct worker *w)
{
    static const struct poller_ops ops = {
        .ready = poller_step,
        .serve = prefork_serve,
        .accept = prefork_accept,
        .takes = prefork_takes,
        .arrive = poller_arrive,
        .room = prefork_room,
        .idle = poller_idle,
        .bell = prefork_bell,
        .turn = prefork_turn,
        .deadline = poller_deadline,
        .host = &inline_host,
        .accept_batch = SHARING_BATCH,
        .listen_events = SHARING_EVENTS,
        .gives_way = true,
    };
    struct poller p;
    struct sharing sharing = {0};
    if (poller_open(&p, w, &ops, &sharing, &w->slot->bell, 0, true, sharing_places(w)) != 0) {
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

static const char *const uses[] = {"processes", "worker_requests", NULL};

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
