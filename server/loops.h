/* SPDX-License-Identifier: MIT */
/* The loops of a process: L pollers, each a thread, that share the connections of one worker. What
 * event-loop and coroutine have in common: they say only what becomes of a run handler.
 *
 * Loop 0 accepts and deals connections to the loop that has the fewest, through that loop's queue.
 * Whoever serves an exchange on another thread calls back through the loop's queue too: the loop's
 * doorbell is armed on it. Between loops nobody waits for the other.
 *
 * Safe from: the loop's thread, unless a call says more.
 */
#ifndef SERVER_LOOPS_H
#define SERVER_LOOPS_H

#include <pthread.h>

#include "concurrency/queue.h"
#include "concurrency/sem.h"
#include "server/poller.h"

enum { LOOPS_ACCEPT_BATCH = 32 };

struct loops;

struct loop {
    struct poller poller; /* its model is this loop */
    struct loops *all;
    unsigned index;
    struct modus_queue mail; /* what comes from other threads */
    struct modus_doorbell own_bell;
    struct worker_lane *lane;
    pthread_t thread;
    void *own; /* the model's */
};

/* What a model adds. */
struct loops_ops {
    /* Its own of each is serve, ready, turn and deadline; the others are those below. */
    const struct poller_ops *poller;
    /* On each loop's thread, before it runs, and after. begin returns 0, or -1 (said in the log):
     * then the process ends. */
    int (*begin)(struct loop *loop);
    void (*end)(struct loop *loop);
    /* The doorbell rang. */
    void (*bell)(struct loop *loop);
    /* An exchange was served elsewhere: see loops_done(). */
    void (*done)(struct loop *loop, struct poller_conn *pc);
};

struct loops {
    struct worker *worker;
    const struct loops_ops *ops;
    struct loop *loops;
    unsigned count;
    void *own;              /* the model's */
    struct modus_sem begun; /* a permit for each that can run */
    atomic_int wish;        /* enum worker_wish, as loop 0 has heard it */
    unsigned victim;        /* (loop 0) the one to make room next */
    unsigned tried;         /* (loop 0) those that had nothing to give, in a row */
};

/* How many loops the listener is to have. Safe from: any process. */
unsigned loops_wanted(const struct config_listener *conf);
/* Make them, but start none. Returns 0 or -1. */
int loops_open(struct loops *all, struct worker *w, const struct loops_ops *ops, void *own);
/* Run them, the first in this thread, until they are drained. Returns 0, or -1 when a thread cannot
 * be made. Blocks. */
int loops_run(struct loops *all);
void loops_close(struct loops *all);

/* The exchange of pc is served: tell its loop. May wait for room in its queue, which it always
 * makes. Safe from: the thread that served it. */
void loops_done(struct poller_conn *pc);
/* The loop forgets that the exchange is being served, and steps the connection. */
void loops_finish(struct loop *loop, struct poller_conn *pc);

/* For the tables. */
int loops_accept(struct poller *p, int fd);
void loops_arrive(struct poller *p, const struct conn_carried *carried, void *memory);
bool loops_room(struct poller *p);
void loops_bell(struct poller *p);
int loops_no_begin(struct loop *loop);
void loops_no_end(struct loop *loop);
/* A run handler waits on another thread than its connection's, or as a coroutine of that one. */
extern const struct conn_host loops_host;

#endif
