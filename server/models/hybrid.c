/* SPDX-License-Identifier: MIT */
/* hybrid: N processes, each with a poller thread and T pool threads (server/pool.h). The processes
 * take turns in accepting (server/sharing.h). A crash takes down one of them, and where an
 * interpreter's lock lets one thread of a process compute, N do. */
#include "server/models/model.h"

#include "server/pool.h"

static struct model_plan hybrid_plan(const struct config_listener *conf)
{
    return (struct model_plan){
        .workers = conf->processes > 0 ? (unsigned)conf->processes : model_cpus(),
        .threads = 1 + (unsigned)conf->threads,
        .pool = (unsigned)conf->threads,
        .max_connections = model_max_connections(conf, 10000),
        .keepalive_timeout_ms = 60000,
        .defer_accept = true,
    };
}

static int hybrid_run(struct worker *w)
{
    return pool_run(w, true);
}

static const char *const uses[] = {"processes", "threads",         "queue", "queue_timeout",
                                   "gil",       "worker_requests", NULL};

const struct model model_hybrid = {
    .name = "hybrid",
    .summary =
        "processes of threads: in each, threads serve what is ready, a poller holds the others",
    .role = "worker",
    .options = "processes = auto (one a CPU), threads = 64 (in each), queue = 1024 (in each), "
               "queue_timeout = 10s, max_connections = 10000",
    .uses = uses,
    .plan = hybrid_plan,
    .note = model_no_note,
    .run = hybrid_run,
};
