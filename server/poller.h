/* SPDX-License-Identifier: MIT */
/* The event driver: one thread that waits for many connections. All models but process
 * are built on it; they say only what happens to a connection that is ready.
 *
 * It waits in one epoll set of its own, edge-triggered: each descriptor is registered once and
 * never modified. Not in a libuv loop, though the master has one: a uv_poll_t is level-triggered,
 * so it takes 160 bytes a connection, and two epoll_ctl a request wherever another thread does the
 * reading; and a set of ours nested in a loop of libuv's cost a second epoll_wait a turn, 0.2 of
 * the 4.7 µs of a small request.
 *
 * A connection is registered only once it must wait: most that send one request and go never are.
 * Its memory belongs to the poller's thread and is type-stable: an event that was fetched before it
 * ended finds it there, ended.
 *
 * Deadlines lie in a coarse wheel, moved lazily. The wheel also finds the longest idle connection
 * when room must be made: idle ones stand in it in the order in which they became idle. A poller
 * with nothing to do and no deadline is not woken at all.
 *
 * Safe from: the poller's thread, unless a call says more.
 */
#ifndef SERVER_POLLER_H
#define SERVER_POLLER_H

#include <stdatomic.h>

#include "net/conn.h"
#include "net/wheel.h"
#include "server/blocked.h"
#include "server/give_way.h"
#include "server/worker.h"

struct modus_co;
struct poller;
struct poller_conn;

/* What sits behind an event of the set. */
struct poller_source {
    void (*event)(struct poller *p, struct poller_source *source, uint32_t events);
};

struct poller_conn {
    struct poller_source source;
    struct poller *poller;
    struct wheel_item timer;
    struct poller_conn *next;      /* again, ended or free list */
    struct poller_conn *next_work; /* in the list of server/work.h */
    struct conn conn;
    _Atomic int64_t due_ms;   /* its deadline as of its last step */
    _Atomic int64_t timed_ms; /* where it stands in the wheel */
    atomic_uint state;        /* the model's own */
    atomic_bool peer_ended;   /* the model's own */
    int64_t since_us;         /* the model's own */
    struct modus_co *co;      /* coroutine: serves its exchange; NULL: none does */
    bool used, registered, listed;
    bool in_work;  /* in the list of server/work.h, perhaps since an earlier connection */
    bool to_serve; /* its exchange waits for the next turn */
};

/* A listening descriptor in the set. */
struct poller_listener {
    struct poller_source source;
    int fd;
    bool maybe; /* connections may be waiting */
};

/* What a model adds. Each has a default below. */
struct poller_ops {
    /* The connection may have something to do: new, an event, or its time has come. */
    void (*ready)(struct poller *p, struct poller_conn *pc, uint32_t events);
    /* A run handler is to be served (after poller_step got CONN_WANT_SERVE). */
    void (*serve)(struct poller *p, struct poller_conn *pc);
    /* Accept one connection from a listening descriptor and adopt it, here or elsewhere. Returns 0,
     * or a negative errno as socket_accept. */
    int (*accept)(struct poller *p, int fd);
    /* Connections wait that come from an earlier generation: shall one be taken now? */
    bool (*takes)(struct poller *p);
    /* One has come from an earlier generation: adopt it, here or elsewhere. Takes its descriptor and
     * memory, which its unread bytes are in. */
    void (*arrive)(struct poller *p, const struct conn_carried *carried, void *memory);
    /* At the limit: end the connection that has been idle longest. Returns false if there is none,
     * or none yet. */
    bool (*room)(struct poller *p);
    /* Is it idle, and the poller's to end? */
    bool (*idle)(const struct poller_conn *pc);
    /* The doorbell rang. */
    void (*bell)(struct poller *p);
    /* The end of each turn, before it waits again. */
    void (*turn)(struct poller *p);
    /* By when must ready() be called although nothing happens? */
    int64_t (*deadline)(const struct poller_conn *pc);
    const struct conn_host *host; /* how its run handlers wait */
    unsigned accept_batch;        /* connections a turn */
    uint32_t listen_events;       /* further epoll flags for listening descriptors */
    bool gives_way;               /* others like it share its CPU: see server/give_way.h */
};

struct poller {
    int set; /* the epoll set */
    struct poller_source bell_source, life_source, intake_source;
    const struct poller_ops *ops;
    void *model; /* the model's own */
    struct worker *worker;
    struct modus_doorbell *bell;
    struct net_thread *net;
    struct wheel wheel;
    struct poller_listener *listeners;
    size_t listener_count;
    size_t first_listener; /* by turns, lest an address that never runs out keep others waiting */
    _Atomic uint32_t connections; /* in this poller's care */
    unsigned max_connections;     /* in the worker's care */
    int64_t room_at_ms;           /* not 0: no room; look for an idle one then, if none has ended */
    int64_t look_at_us;           /* the model's own: not 0, it wants a turn then */
    int64_t accept_at_ms;         /* paused: no descriptors; go on then */
    bool draining, drained;       /* told to finish; the listening descriptors are closed */
    bool retired;                 /* so far only to accept no more */
    bool to_retire;               /* before the next turn */
    bool takes_in;                /* connections of earlier generations */
    int64_t intake_at_ms;         /* not 0: no descriptors for them; look again then */
    bool intake_said;             /* that, in the log */
    bool done;
    int64_t quiet_ms; /* draining: no connection has come since; close some time after it */
    struct give_way give_way;
    struct blocked_watch blocked; /* its own thread, while it runs */
    struct poller_conn *again;    /* had their share of the turn */
    struct poller_conn *ended, *spare;
    struct poller_chunk *chunks;
};

/* Make the poller. bell is the poller's own doorbell; listen: whether it accepts. max: how many
 * connections its worker may hold. Returns 0, or -1 (said in the log). */
int poller_open(struct poller *p, struct worker *w, const struct poller_ops *ops, void *model,
                struct modus_doorbell *bell, unsigned thread, bool listen, unsigned max);
/* Run until drained: told to (poller_obey) and nothing left. Blocks. */
void poller_run(struct poller *p);
void poller_close(struct poller *p);
/* Do what the master wishes: again and again, as it may wish for more. Returns whether that is new. */
bool poller_obey(struct poller *p, enum worker_wish wish);

/* A connection is on its way to this poller, and counts from now on; or it has gone elsewhere.
 * Safe from: the thread that accepts. */
void poller_expect(struct poller *p);
void poller_expect_no_more(struct poller *p);
/* A new connection, which was expected, in this poller's care; takes fd. Calls ready(). */
void poller_adopt(struct poller *p, int fd, const struct conn_peer *peer);
/* The same for one that has come from an earlier generation. */
void poller_adopt_carried(struct poller *p, const struct conn_carried *carried, void *memory);
/* After CONN_WANT_MOVE: give the connection to the next generation. Returns true when it has ended
 * here, else it is to be stepped again, or at its deadline. Safe from: the connection's owner, any
 * thread; t is that thread's. */
bool poller_give(struct poller *p, struct poller_conn *pc, struct net_thread *t);
/* Step it here and now, and settle: the default ready(). */
void poller_step(struct poller *p, struct poller_conn *pc, uint32_t events);
/* After a conn_step of the model's own: let it wait, list it, or forget it. An exchange to serve is
 * served in the next turn, so that others come between a connection's pipelined requests. */
void poller_settle(struct poller *p, struct poller_conn *pc, unsigned wants);
/* After a step elsewhere: let it wait in the set. Safe from: the connection's owner, any thread. */
void poller_register(struct poller *p, struct poller_conn *pc);
/* Have ready() called in the next turn. */
void poller_again(struct poller *p, struct poller_conn *pc);
/* See to it that ready() is called by deadline. */
void poller_time(struct poller *p, struct poller_conn *pc, int64_t deadline_ms);
/* It has ended (CONN_CLOSED): forget it; its memory is used again after this turn. */
void poller_forget(struct poller *p, struct poller_conn *pc);
/* What events say about the peer, to its connection. Safe from: the connection's owner. */
void poller_tell(struct poller_conn *pc, uint32_t events);
/* Try to accept again in this turn (the listening descriptors may have something). */
void poller_look_for_more(struct poller *p);
/* Wait for a descriptor of the model's too: source->event is called with the epoll events. Returns 0
 * or -1. */
int poller_watch(struct poller *p, struct poller_source *source, int fd, uint32_t events);
/* Defaults for the table. */
int poller_accept(struct poller *p, int fd);
bool poller_takes(struct poller *p);
void poller_arrive(struct poller *p, const struct conn_carried *carried, void *memory);
bool poller_make_room(struct poller *p);
bool poller_idle(const struct poller_conn *pc);
void poller_no_turn(struct poller *p);
int64_t poller_deadline(const struct poller_conn *pc);

#endif
