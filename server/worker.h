/* SPDX-License-Identifier: MIT */
/* A worker process: what it is given, how it begins, and how it learns what the master wants.
 *
 * The master speaks to a worker through shared memory and the slot's doorbell: the drain event, and
 * a round of opening logs again. A worker learns of the master's death from the life line, a pipe
 * whose write end only the master holds, and from the kernel (PR_SET_PDEATHSIG).
 */
#ifndef SERVER_WORKER_H
#define SERVER_WORKER_H

#include <pthread.h>
#include <sys/types.h>

#include "server/listener.h"

struct worker {
    struct listener *listener;
    struct board *board;
    struct worker_slot *slot;
    unsigned index;
    int life_line; /* readable: the master is gone */
    unsigned log_round;
    atomic_uint *logs_seen; /* where it says which round it has */
};

/* In a child just forked by parent: have the kernel send signal when parent ends. Returns false if
 * it is gone already. */
bool worker_bind_life(pid_t parent, int signal);
/* Signals of a worker: those of a terminal and of children are ignored, the others as by default.
 * Call first after fork, while all are blocked. */
void worker_set_signals(void);
/* The worker can accept now; ps shows what it is. Before it has threads, or in the first of them.
 * Blocks until it may: the whole configuration that it is of must have begun, or it might be taken
 * down again with whom it had accepted. Safe from: the worker's main thread. */
void worker_ready(struct worker *w);
void worker_set_state(struct worker *w, enum worker_state state);
/* With gil = true: give the process its interpreter lock. Call once, before connections come. */
void worker_make_gil(struct worker *w);
/* What becomes of the worker. */
enum worker_wish {
    WORKER_STAY,
    WORKER_RETIRE, /* accept no more, others do; let connections go as they come to an end */
    WORKER_DRAIN,  /* accept what the kernel has, and let go of all that is idle */
};
/* Look at what the master may have asked for, after the doorbell was heard: opens logs again if
 * that was it. */
enum worker_wish worker_look(struct worker *w);
/* For who waits without hearing the doorbell, around that: before it writes a line again it looks,
 * so the master need not wait for it. */
void worker_rest(struct worker *w);
void worker_wake(struct worker *w);
/* A thread's counters: blocks of the slot, 0 .. plan.threads - 1. */
struct net_stats *worker_stats(const struct worker *w, unsigned thread);
/* A thread's line: 0 .. plan.threads - 1, then the helpers. */
struct worker_lane *worker_lane(const struct worker *w, unsigned thread);
/* Room for a thread's reads: its largest head and then some. */
size_t worker_read_size(const struct worker *w);
/* Threads of a worker: small stacks, signals blocked, a name that tools show. Returns 0 or an error
 * number. */
int worker_thread(pthread_t *thread, const char *name, unsigned index, void *(*main)(void *),
                  void *arg);

#endif
