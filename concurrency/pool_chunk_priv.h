/* SPDX-License-Identifier: MIT */
/*
 * Chunks: what maps (pool_map.c) and iterators (pool_imap.c) make tasks of.
 *
 * A chunk's task gets the address of a description, which lies where the workers see it. For
 * threads the items are the caller's own array; processes get a copy of them in the pool's arena,
 * and leave the answers there. So a chunk may be of any size.
 */
#ifndef CONCURRENCY_POOL_CHUNK_PRIV_H
#define CONCURRENCY_POOL_CHUNK_PRIV_H

#include "concurrency/pool_priv.h"

/* In memory of the pool. */
struct modus_chunk {
    modus_task_function *run;
    const unsigned char *in;
    unsigned char *out; /* NULL: no answers are wanted */
    size_t n, in_size, out_size;
    _Atomic size_t answered; /* items that have succeeded */
};

int modus_chunk_submit(struct modus_pool *pool, struct modus_future **future,
                       struct modus_chunk *chunk, const struct modus_map *map, int64_t ns);

/* Wait to the end, come what may: others write to memory of the caller's. */
void modus_chunk_await(struct modus_future *future);

bool modus_map_valid(const struct modus_map *map);

/* Tell of item number index, if that is wanted. */
void modus_map_note_failure(const struct modus_map *map, size_t index, const char *text);

static inline bool modus_shares_memory(const struct modus_pool *pool)
{
    return pool->attr.kind == MODUS_POOL_THREAD;
}

static inline size_t modus_ceiling(size_t n, size_t by)
{
    return n / by + (n % by != 0);
}

#endif
