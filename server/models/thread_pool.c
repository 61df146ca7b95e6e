/* SPDX-License-Identifier: MIT */
/* thread-pool: one process, one poller thread, T pool threads, which take what is ready from a queue:
 * server/pool.h. */
#include "server/models/model.h"

#include "server/pool.h"

static struct model_plan thread_pool_plan(const struct config_listener *conf)
{
    return (struct model_plan){
        .workers = 1,
        .threads = 1 + (unsigned)conf->threads,
        .pool = (unsigned)conf->threads,
        .max_connections = model_max_connections(conf, 10000),
        .keepalive_timeout_ms = 60000,
        .defer_accept = true,
    };
}

static int thread_pool_run(struct worker *w)
{
    return pool_run(w, false);
}

static const char *const uses[] = {"threads", "queue",           "queue_timeout",
                                   "gil",     "worker_requests", NULL};

const struct model model_thread_pool = {
    .name = "thread-pool",
    .summary = "one process; threads serve connections that are ready, a poller holds the others",
    .role = "worker",
    .options = "threads = 64, queue = 1024, queue_timeout = 10s, max_connections = 10000",
    .uses = uses,
    .plan = thread_pool_plan,
    .note = model_no_note,
    .run = thread_pool_run,
};
