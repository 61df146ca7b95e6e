/* SPDX-License-Identifier: MIT */
/*
 * The future's layout, for those who end futures by the million (the pools) and for what watches
 * many of them (completed.c).
 *
 * word is what waiters sleep on: the state, and marks. WAITERS says that somebody may sleep;
 * EXTRAS that there are callbacks, watchers or bells, so that an end without any is one exchange.
 */
#ifndef CONCURRENCY_FUTURE_PRIV_H
#define CONCURRENCY_FUTURE_PRIV_H

#include <stdatomic.h>

#include "concurrency/future.h"

enum {
    MODUS_FUTURE_SETTLING = 5, /* its callbacks run */
    MODUS_FUTURE_STATES = 7,   /* mask */
    MODUS_FUTURE_WAITERS = 8,
    MODUS_FUTURE_EXTRAS = 16,
};

struct modus_future_hook;
struct modus_future_watcher;

enum modus_withdrawal {
    MODUS_WITHDRAWN_NOT,
    MODUS_WITHDRAWN,      /* the caller settles it */
    MODUS_WITHDRAWN_LEFT, /* another is about to settle it */
};

/* What a pool does about its futures. None but look may be NULL. */
struct modus_future_ops {
    bool
        spins; /* its ends are often so near that a waiter should look some times before it sleeps */
    /* The caller is about to wait for a future that has not ended. Returns 0: look again, then
     * wait; or -EDEADLK. */
    int (*enter)(struct modus_future *future);
    void (*leave)(struct modus_future *future);
    /* Is it pending still? May it be cancelled? Both only while the word says pending. */
    bool (*pending)(const struct modus_future *future);
    enum modus_withdrawal (*withdraw)(struct modus_future *future);
    /* The last reference is gone. */
    void (*drop)(struct modus_future *future);
    /* Look for its end until then by a shorter way than the word's; the caller will have it, and nobody
     * is attached to it yet. Returns whether it has ended. NULL: at the word. */
    bool (*look)(struct modus_future *future, int64_t until);
};

struct modus_future {
    _Alignas(16) _Atomic uint32_t word;
    _Atomic uint32_t references;
    uint64_t stamp; /* of its process */
    const struct modus_future_ops *ops;
    void *owner;                            /* the ops' */
    _Atomic(void *) runner;                 /* the ops': who runs it, */
    struct modus_future *outer;             /* and what that had begun before */
    uint32_t place, turn;                   /* the ops' */
    uint32_t size;                          /* of the value */
    uint32_t room;                          /* for it */
    int code, signal;                       /* written before the end */
    uint32_t outcome;                       /* the state that it settles to */
    _Atomic uint32_t settler;               /* tid; while SETTLING */
    char *text;                             /* NULL or allocated */
    struct modus_future_hook *first, *last; /* callbacks; under the lock of hooks */
    struct modus_future_watcher *watchers;  /* under the lock of hooks */
    struct modus_armed armed;
    void *value; /* behind the future */
};

/* One that is told of an end, after it. On its owner's memory; all under the lock of hooks. */
struct modus_future_watcher {
    struct modus_future_watcher *next;
    void (*tell)(struct modus_future_watcher *watcher);
    bool watching;
};

/* A future of a pool, with bytes of memory behind it for the pool and the value; references as
 * many as given. NULL: no memory. */
struct modus_future *modus_future_make(size_t bytes, uint32_t references);

/* End it, the value being in its place: outcome is one of the last three states. */
void modus_future_settle(struct modus_future *future, enum modus_future_state outcome);

/* The caller is about to wait for this future and others: run it, if that is for the caller to do.
 * Returns 1: it has ended; 0; or -EDEADLK: it can't end before the caller goes on. */
int modus_future_help(struct modus_future *future);

/* Watch: tell is called at the end, under the lock of hooks. Returns false, without watching, when
 * it has ended already. Unwatch: afterwards tell is not called any more. */
bool modus_future_watch(struct modus_future *future, struct modus_future_watcher *watcher);
void modus_future_unwatch(struct modus_future *future, struct modus_future_watcher *watcher);

/* The lock of hooks: short, and never held while somebody waits or a callback runs. */
void modus_future_lock(void);
void modus_future_unlock(void);

static inline uint32_t modus_future_state_of(uint32_t word)
{
    return word & MODUS_FUTURE_STATES;
}

static inline bool modus_future_is_end(uint32_t word)
{
    uint32_t state = modus_future_state_of(word);

    return state >= MODUS_FUTURE_DONE && state <= MODUS_FUTURE_CANCELLED;
}

#endif
