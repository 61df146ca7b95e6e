/* SPDX-License-Identifier: MIT */
/* What the files of the master share: supervisor.c starting and stopping, workers.c the processes,
 * snapshot.c what the status handler sees of it all. */
#ifndef SERVER_SUPERVISOR_PRIV_H
#define SERVER_SUPERVISOR_PRIV_H

#include <uv.h>

#include "concurrency/arena.h"
#include "concurrency/doorbell.h"
#include "handlers/status.h"
#include "server/directory.h"
#include "server/listener.h"
#include "server/supervisor.h"

struct master;

struct generation;

/* A process of ours: a worker in its slot, or an orphan that a dead acceptor left behind. */
struct supervised {
    struct master *master;
    struct generation *generation;
    unsigned slot;
    pid_t pid; /* 0: not running */
    int pidfd;
    uv_poll_t *watch; /* of pidfd; each process has its own, which libuv gives back after its end */
    uv_timer_t respawn;
    int64_t started_ms; /* monotonic */
    int64_t backoff_ms;
    bool orphan;
    struct supervised *next; /* orphan */
};

/* A listener as one configuration has it, and the processes that serve it. */
struct generation {
    struct listener listener;
    struct listing *listing;    /* how others see it */
    struct supervised *workers; /* plan.workers of them */
    struct generation *next;
};

struct master {
    struct config *config;
    struct generation *generations; /* in the order of the file */
    struct directory *directory;
    struct modus_arena *arena;
    struct modus_doorbell *bell; /* in the arena; workers' ready events ring it */
    struct supervised *orphans;
    uv_loop_t loop;
    uv_poll_t signal_watch, bell_watch;
    uv_timer_t drain_timer, port_timer;
    int signal_fd;
    int life_line[2]; /* the write end is ours alone */
    int pid;
    int64_t started_unix_ms, started_ms;
    unsigned running; /* processes, orphans too */
    bool ready, stopping, killing;
    int64_t stop_ms; /* monotonic: when it was told to stop */
    int pid_fd;      /* holds the pid file; -1 none */
    int exit_status;
    unsigned uid, gid;
    bool drop_user;
    struct status_source status;
};

/* workers.c */
/* Start those of a generation. Returns 0 or -1. */
int workers_start(struct master *m, struct generation *g);
/* Make all end: gracefully, or at once. */
void workers_drain(struct master *m);
void workers_kill(struct master *m);
/* Have all workers look at their boards. */
void workers_ring(struct master *m);
bool workers_all_ready(const struct master *m);

/* snapshot.c: fills m->status. */
void snapshot_init(struct master *m);

#endif
