/* SPDX-License-Identifier: MIT */
/*
 * What the kinds of pools have in common, and the table that each fills in.
 *
 * For implementers: pool.c, pool_map.c, pool_thread.c, pool_process.c.
 */
#ifndef CONCURRENCY_POOL_PRIV_H
#define CONCURRENCY_POOL_PRIV_H

#include <stdatomic.h>

#include "concurrency/future_priv.h"
#include "concurrency/lock.h"
#include "concurrency/pool.h"

/* How often a worker looks at the empty queue before it sleeps: for some 2 us, less than a sleep and
 * the wake-up that it costs a submit. */
enum { MODUS_POOL_LOOKS = 300 };

enum { MODUS_POOL_RUNNING, MODUS_POOL_CLOSED, MODUS_POOL_TERMINATED, MODUS_POOL_BROKEN };

enum {
    MODUS_POOL_NAME = 32,
    MODUS_POOL_TEXT = MODUS_CALL_TEXT, /* room for what went wrong */
    MODUS_POOL_FAILURES = 3,           /* of initializers in a row */
    MODUS_POOL_PRIORITIES = 256,
};

struct modus_pool_ops {
    /* The task is valid. */
    int (*submit)(struct modus_pool *pool, struct modus_future **future,
                  const struct modus_task *task, int64_t ns);
    /* The state is CLOSED, once; TERMINATED or BROKEN, once. */
    void (*close)(struct modus_pool *pool);
    void (*terminate)(struct modus_pool *pool);
    /* Cancel what has not begun of an owner; NULL: of all, it is closed. Returns how many. */
    long (*cancel)(struct modus_pool *pool, const void *owner);
    /* Is the caller one that the pool can't end without? */
    bool (*inside)(struct modus_pool *pool);
    /* gone is set: wait for what is left of workers that have ended. By several at a time. */
    void (*reap)(struct modus_pool *pool);
    void (*stats)(struct modus_pool *pool, struct modus_pool_stats *stats);
    unsigned (*workers)(struct modus_pool *pool, int *ids, unsigned room);
    /* Zeroed memory that the workers see. */
    void *(*alloc)(struct modus_pool *pool, size_t size);
    void (*release)(struct modus_pool *pool, void *memory, size_t size);
    /* Free everything; it has been reaped. */
    void (*destroy)(struct modus_pool *pool);
};

/* First member of each kind. */
struct modus_pool {
    const struct modus_pool_ops *ops;
    uint64_t stamp;              /* of its process */
    struct modus_pool_attr attr; /* every default filled in */
    char name[MODUS_POOL_NAME];
    _Atomic uint32_t state;
    _Atomic uint32_t stop;       /* what tasks look at: terminated */
    _Atomic uint32_t gone;       /* no worker is left, and none will come */
    _Atomic uint32_t high_water; /* queued */
    _Atomic uint32_t broken;     /* minus the code by which it broke */
};

int modus_pool_thread_new(struct modus_pool **pool, const struct modus_pool_attr *attr);
int modus_pool_process_new(struct modus_pool **pool, const struct modus_pool_attr *attr);

void modus_pool_init(struct modus_pool *pool, const struct modus_pool_ops *ops,
                     const struct modus_pool_attr *attr);

/* A priority's key in a queue, where the smallest comes first. */
static inline int64_t modus_pool_key(unsigned priority)
{
    return MODUS_POOL_PRIORITIES - 1 - (int64_t)priority;
}

/* No worker is left. */
void modus_pool_gone(struct modus_pool *pool);

/* What a submit returns in the state that the pool is in; 0: it runs. */
int modus_pool_refusal(struct modus_pool *pool);

/* Count n queued for the high-water mark. */
void modus_pool_queued(struct modus_pool *pool, size_t n);

/* From one of the first two states to a later one. Returns false if it is too late. */
bool modus_pool_move(struct modus_pool *pool, uint32_t to);

#endif
