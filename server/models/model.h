/* SPDX-License-Identifier: MIT */
/* A concurrency model: one answer to "who waits, and where?". One file a model (two for process,
 * which is two programs), one table each, nothing optional; only what is different is in it.
 *
 * What a model promises to the connections and handlers that it runs:
 *   - a connection is stepped by one thread at a time, and nobody else touches it meanwhile
 *   - an exchange's run entry is called once, on one thread, and not inside a step
 *   - no signal handler runs code of the server; workers ignore what a terminal sends to the group
 *   - "drain" (board->drain): what the kernel has accepted is accepted and answered, idle
 *     connections end, answers say "Connection: close", and run() returns when nothing is left
 *   - "retire" (slot->retire): others accept from now on (where board_leaves() says so); whom the
 *     kernel has told this worker of is accepted, and run() returns when nothing is left. A connection that wants to move is given to
 *     those who accept now (server/intake.h), and adopted there; others go with their next answer
 *   - after fork, a child makes its own loops and threads; the parent closes its copy of an
 *     accepted descriptor and never shuts it down
 *
 * What the server promises to a model: run() is called in a fresh process, single-threaded, with
 * the user dropped, its slot's pid set, and everything of the listener built.
 *
 * Nobody outside server/models/ asks which model runs.
 */
#ifndef SERVER_MODEL_H
#define SERVER_MODEL_H

#include "server/config.h"
#include "server/models.h"

struct worker; /* server/worker.h */

/* What a model makes of a listener's sizes. */
struct model_plan {
    unsigned workers;  /* supervised processes */
    unsigned threads;  /* that step connections in each: one stats block each */
    unsigned helpers;  /* further threads in each */
    unsigned pool;     /* of all these in each: that take work from a queue, and may be short */
    unsigned children; /* further processes at most, one a connection */
    unsigned max_connections; /* of the whole listener */
    int64_t keepalive_timeout_ms;
    bool defer_accept; /* let the kernel hold connections until they have sent something */
};

struct model {
    const char *name;
    const char *summary;
    const char *role;        /* what its supervised processes are, for ps: "worker" */
    const char *options;     /* its sizes and their defaults, for `modus models` */
    const char *const *uses; /* keys that differ between models: those it reads; ends in NULL */
    /* Called in the master, also for `modus -t`. */
    struct model_plan (*plan)(const struct config_listener *conf);
    /* What this set-up means for who compares, in a sentence for the status. Returns false if there
     * is nothing to say. Called in any process. */
    bool (*note)(const struct config_listener *conf, char *text, size_t size);
    /* Serve the listener in a worker process. Blocks until drained; returns the exit status. Takes
     * over the process: signals, threads. */
    int (*run)(struct worker *w);
};

extern const struct model model_process, model_prefork, model_thread_pool, model_hybrid,
    model_event_loop, model_coroutine;

bool model_no_note(const struct config_listener *conf, char *text, size_t size);
/* conf->max_connections, or what the model takes when it is not set. */
unsigned model_max_connections(const struct config_listener *conf, unsigned otherwise);
/* CPUs that this process may use; at least 1. */
unsigned model_cpus(void);

#endif
