/* SPDX-License-Identifier: MIT */
/*
 * The coroutine and its loop from inside: for coroutine.c (calls), coroutine_loop.c (the scheduler),
 * coroutine_fd.c (descriptors), coroutine_id.c (ids) and coroutine_look.c (what somebody who debugs
 * wants to see).
 */
#ifndef CONCURRENCY_COROUTINE_PRIV_H
#define CONCURRENCY_COROUTINE_PRIV_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

#include "concurrency/context.h"
#include "concurrency/coroutine.h"
#include "concurrency/lot.h"
#include "concurrency/park.h"
#include "concurrency/stack.h"
#include "concurrency/timers.h"

struct modus_co_loop;
struct modus_co_ids;

struct modus_co {
    struct modus_context context;
    struct modus_co_loop *loop;
    struct modus_co *next; /* in the ready list or the inbox */
    struct modus_lot_entry entry;
    struct modus_timers_entry timer;
    int64_t deadline;
    int waited; /* what the wait returns */
    uint32_t id;
    struct modus_co_ids *ids; /* of which it is */
    _Atomic uint32_t references;
    _Atomic uint32_t ended; /* what joiners wait for; see coroutine.c */
    _Atomic uint32_t never; /* what a sleeper waits for */
    atomic_bool cancelled;
    _Atomic uint32_t cancellers;     /* in the call: it does not end meanwhile */
    bool deaf;                       /* to that, in this wait */
    uint8_t state, kind;             /* enum modus_co_state and, while it waits, modus_co_wait */
    uint32_t shields;                /* while there are any, all waits are deaf */
    struct modus_co *next_cancelled; /* in the loop's list */
    struct modus_co *after, *before; /* in the list of all */
    const void *object;              /* that it waits for; of its kind */
    int64_t since;                   /* when it began to wait: the loop's clock */
    struct modus_stack stack;
    struct modus_locals *locals;
    int (*run)(void *argument);
    void *argument;
    int result;
    char name[MODUS_CO_NAME];
};

struct modus_co_fd_wait;

/* The descriptors that a loop's coroutines wait for. */
struct modus_co_fds {
    int set;
    unsigned waiting, room;
    uint32_t number;                 /* of the last wait */
    struct modus_co_fd_wait **waits; /* by descriptor */
    uv_poll_t poll;
};

struct modus_co_loop {
    struct modus_context context;
    uint32_t tid;                  /* of its thread */
    struct modus_co *first, *last; /* ready */
    volatile sig_atomic_t busy;    /* their list is being changed */
    volatile sig_atomic_t idle;    /* the thread may sleep without a look at it */
    struct modus_co *running;
    struct modus_co *all;
    uint64_t live;
    struct modus_co_ids *ids; /* that are taken from now; NULL: none yet */
    struct modus_co_fds fds;
    int64_t now; /* when the turn began */
    struct modus_timers timers;
    _Atomic uint32_t callers;             /* threads in a call that uses the loop */
    _Atomic(struct modus_co *) inbox;     /* made ready by other threads, the last first */
    _Atomic(struct modus_co *) cancelled; /* to be looked at */
    struct modus_co *over;                /* has ended: its stack is free once we are off it */
    bool guest;                           /* somebody else's loop waits */
    bool lag_wanted;
    int64_t lag;
    char lag_name[MODUS_CO_NAME], ran_name[MODUS_CO_NAME];
    uv_loop_t uv;
    uv_timer_t timer;
    uv_async_t bell;
};

/* The calling thread's loop; NULL outside of modus_co_run. */
extern _Thread_local struct modus_co_loop *modus_co_here __attribute__((tls_model("initial-exec")));

/* --- the loop -------------------------------------------------------------------------------- */

int modus_co_loop_open(struct modus_co_loop *loop);
void modus_co_loop_run(struct modus_co_loop *loop);                    /* until none is left */
int64_t modus_co_loop_turn(struct modus_co_loop *loop, bool readable); /* a guest's */
void modus_co_loop_close(struct modus_co_loop *loop);

/* A new coroutine: into the list of all, and ready. */
void modus_co_loop_add(struct modus_co_loop *loop, struct modus_co *co);

/* In its own loop: end its wait, unless somebody is about to. */
void modus_co_loop_end_wait(struct modus_co *co, int result);

/* Off to the loop, ready to go on at once; or over. */
void modus_co_switch_ready(struct modus_co *co);
_Noreturn void modus_co_switch_over(struct modus_co *co);

/* The loop shall look at the coroutine, which has been cancelled; it holds a reference for that. */
void modus_co_loop_cancel(struct modus_co *co);

/* --- ids ------------------------------------------------------------------------------------- */

/* The next id of a loop's, *ids, which becomes that of which the id is. Returns 0 or -ENOMEM. */
int modus_co_id_get(struct modus_co_ids **ids, uint32_t *id);

/* One of them is over; now: the loop's. */
void modus_co_id_put(struct modus_co_ids *of, const struct modus_co_ids *now);

/* The loop is over; NULL is legal. */
void modus_co_id_end(struct modus_co_ids *now);

extern _Atomic uint32_t modus_co_next_block; /* of ids; tests go back in it */

/* --- waiting --------------------------------------------------------------------------------- */

/* modus_park for the running coroutine; kind and object are for whoever looks at it. */
int modus_co_park_as(enum modus_co_wait kind, const void *object, _Atomic uint32_t *word,
                     uint32_t expected, int64_t deadline);

/* Begin and end what follows. stop comes first: what uv has of it is gone when it has run. */
int modus_co_fds_open(struct modus_co_fds *fds, uv_loop_t *uv);
void modus_co_fds_stop(struct modus_co_fds *fds);
void modus_co_fds_close(struct modus_co_fds *fds);

/* modus_park_fd for the running coroutine. */
int modus_co_park_fd(int fd, int events, int64_t deadline, int *ready);

/* --- looking --------------------------------------------------------------------------------- */

/* Give the calling thread a stack for the handler of overflows, if they are to be named; take it
 * back. */
int modus_co_watch_stacks(void);
void modus_co_unwatch_stacks(void);

#endif
