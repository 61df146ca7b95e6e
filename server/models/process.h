/* SPDX-License-Identifier: MIT */
/* What the two sides of the process model have in common: the acceptor (process.c), which is copied by
 * fork, and its copy in a child that serves one connection (process_child.c).
 *
 * For implementers: these two. Safe from: the acceptor's thread, and the only one of a child.
 */
#ifndef SERVER_MODELS_PROCESS_H
#define SERVER_MODELS_PROCESS_H

#include <stdnoreturn.h>
#include <sys/types.h>

#include "net/conn.h"
#include "server/give_way.h"
#include "server/parked.h"
#include "server/worker.h"

struct acceptor {
    struct worker *worker;
    struct net_thread *net; /* the children's, copied by fork */
    int64_t now_us, now_ms; /* monotonic, of this turn; net has those of a moment ago */
    pid_t pid;
    int set, ended;      /* epoll, and a signalfd that is told of children's ends */
    unsigned next_entry; /* where to look for a free one first */
    unsigned live;       /* children */
    int held_fd;         /* a connection that has a permit and no child yet; -1 none */
    struct conn_peer held_peer;
    struct parked *held_parked; /* of an earlier generation; NULL: it was accepted */
    struct parking parking;     /* those that need no child yet */
    int64_t expire_ms;          /* when one of them is to be looked at */
    bool takes_in, gives;       /* those of earlier generations; to the next */
    int64_t intake_at_ms;       /* not 0: no descriptors for them; look again then */
    struct give_way give_way;
    int64_t said_ms;   /* in a child: see say_idle() */
    bool stepped;      /* in a child: not for the first time */
    bool settled;      /* in a child: it has let go of the listeners, and ends with the acceptor */
    uint64_t requests; /* in a child: begun when it last looked for another without waiting */
    bool draining, drained, listening;
    bool retired; /* draining, so far only to accept no more */
    bool maybe;   /* connections may be waiting */
    int64_t pause_until_ms;
    bool full;        /* no permit, and connections wait: look for an idle child now and then */
    int64_t quiet_ms; /* draining: no connection has come since */
};

static inline int acceptor_phase(const struct acceptor *a)
{
    return atomic_load_explicit(a->worker->slot->phase, memory_order_relaxed);
}

/* In the acceptor, once: how its children are told to end. They inherit that. */
void process_child_prepare(struct acceptor *a);
/* In a child: serve the held connection, and exit. */
noreturn void process_child_run(struct acceptor *a, struct child_entry *entry);

#endif
