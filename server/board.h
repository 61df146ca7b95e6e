/* SPDX-License-Identifier: MIT */
/* A listener's shared memory: made by the master before it forks, seen by all workers of the
 * listener and by whoever shows the status. Counters outlive workers: a slot's next worker goes on
 * counting where the last one stopped.
 *
 * Who writes what: the master everything marked (master), a worker its own slot, all of them the
 * objects of concurrency/ and the atomics through their own calls.
 */
#ifndef SERVER_BOARD_H
#define SERVER_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/doorbell.h"
#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "concurrency/sem.h"
#include "net/gil.h"
#include "net/stats.h"
#include "server/blocked.h"
#include "server/wear.h"

enum worker_state { WORKER_DEAD, WORKER_STARTING, WORKER_WAITING, WORKER_BUSY, WORKER_DRAINING };

/* A thread's own line: what it put into the work queue of its process, and what it took from it, to
 * serve or to refuse it. So what waits is the difference of sums, right at any time, and nobody
 * writes where another writes too. */
struct worker_lane {
    _Alignas(128) _Atomic uint64_t put; /* lines are fetched in pairs */
    _Atomic uint64_t taken;
    atomic_bool busy; /* at work on what it took */
};

/* A child of the `process` model: it serves one connection. What the acceptor alone needs of it is
 * here as well, because its own memory is copied at each fork. */
struct child_entry {
    _Alignas(64) _Atomic int pid; /* 0: free; -1: it is being forked */
    _Atomic int64_t idle_ms;      /* monotonic: nothing is lost if it ends after; 0: not idle */
    atomic_uint logs_seen;        /* as a slot's; 0: it will look before it writes */
    unsigned first, next;         /* (acceptor) chains by pid; see process.c */
};

struct worker_slot {
    _Alignas(64) _Atomic int pid;
    _Atomic int state;                /* enum worker_state */
    _Atomic int64_t started_ms;       /* Unix time (master) */
    _Atomic uint64_t requests_before; /* answered in this slot by earlier workers (master) */
    _Atomic uint32_t connections;
    atomic_uint logs_seen; /* the round of logs that it writes to; the master's before it forks */
    atomic_bool spare;     /* (master) no worker is wanted here */
    atomic_bool retire;    /* (master) others accept from now on; finish what you have */
    atomic_int *phase;     /* (master) enum service_phase, for its connections to look at */
    struct modus_doorbell bell;     /* rung to make the worker look at the board */
    struct modus_event ready;       /* set once the worker can accept */
    _Atomic uint64_t gil_before_us; /* held by earlier workers (master) */
    struct net_gil_counts gil;      /* of the interpreter lock of all its workers so far */
    struct net_stats *stats;        /* stats_count blocks, one a thread that steps connections */
    struct worker_lane *lanes;      /* lane_count, one a thread */
    struct modus_sem permits;       /* process: children that may still be made */
    struct child_entry *children;   /* process: child_count of them */
    _Atomic uint32_t parked; /* process: connections that came from others, without a child */
    unsigned orphans;        /* (master) of a dead acceptor; the master reaps them */
};

struct board {
    struct modus_event serve; /* (master) what was begun is taken: accept; from then on set */
    struct modus_event drain; /* (master) finish what you have, take no more; then ring the bells */
    atomic_uint log_round;    /* (master) bumped: open the logs again; from 1 on */
    atomic_uint log_failures; /* times that somebody could not, and goes on with the old */
    atomic_ullong deaths;     /* (master) workers that ended without being told to */
    atomic_ullong recycled[WEAR_REASONS]; /* (master) workers that were replaced, by reason */

    struct blocked blocked; /* loops that a handler has held */

    struct modus_lock accept_lock;   /* prefork: held around accept4 alone */
    atomic_bool backlog;             /* prefork: connections may be waiting */
    _Atomic uint64_t queue_capacity; /* of a worker; 0: it has none */
    atomic_bool queue_of_unread;     /* in it wait connections that nobody has read from yet */

    uint32_t
        *inodes; /* (master) of the listening sockets: server/backlog.h asks the kernel by them */
    atomic_bool
        *taken; /* (master) of each of these: others' now, another generation's or listener's */
    atomic_bool ends; /* (master) all workers go, and with them the addresses that are not taken */
    unsigned inode_count;
    unsigned stats_count, lane_count, child_count; /* of a slot */
    unsigned worker_count;                         /* that serve; there may be a spare slot more */
    unsigned slot_count;
    struct worker_slot slots[];
};

/* workers: slots that serve; spares: more of them. stats_count, lanes: blocks and lines a slot.
 * children: 0, or how many connections an acceptor of a `process` listener may have. NULL when the
 * arena is full or descriptors are out. Safe from: the master before it forks. */
struct board *board_new(struct modus_arena *arena, unsigned workers, unsigned spares,
                        unsigned stats_count, unsigned lanes, unsigned children);
/* Give it back, with its doorbells and what board_know_sockets took. Nobody uses it any more. */
void board_free(struct board *b, struct modus_arena *arena);
/* Add to a count of a lane. Safe from: the lane's thread. */
static inline void board_lane_add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
/* Remember the listening sockets. Returns 0, or -1 when the arena is full. Safe from: the same. */
int board_know_sockets(struct board *b, struct modus_arena *arena, const int *fds, size_t count);
/* Sum of all blocks of all slots. sum is zeroed first. Safe from: any process. */
void board_sum(const struct board *b, struct net_stats *sum);
/* The same for one slot. */
void board_slot_sum(const struct board *b, const struct worker_slot *slot, struct net_stats *sum);
/* All answers of the listener. Safe from: any process. */
uint64_t board_answers(const struct board *b);
/* Others accept what comes from now on: the worker of this slot lets its connections go, elsewhere if
 * that takes them in. Then ring its bell. Safe from: the master, as the next three. */
void board_retire(struct worker_slot *slot, bool moves);
/* The same for all slots. */
void board_retire_all(struct board *b, bool moves);
/* A worker goes: does anybody accept at this socket who stays? Safe from: workers. */
bool board_leaves(const struct board *b, size_t socket);
/* Nobody takes in any more what would move. Returns whether any would. */
bool board_stay(struct board *b);
/* Nobody accepts what comes: all finish what they have. */
void board_drain(struct board *b);
/* Answered by the slot's worker of now. Safe from: any process. */
uint64_t board_slot_requests(const struct board *b, const struct worker_slot *slot);
/* Nobody who counts in this block is left: what was begun there has ended. */
void board_settle(struct net_stats *s);
/* How many processes may still write to logs of an earlier round. Safe from: the master. */
unsigned board_logs_behind(const struct board *b);
/* A worker has ended: what it had open is closed now. Safe from: the master. */
void board_bury(struct board *b, struct worker_slot *slot);

#endif
