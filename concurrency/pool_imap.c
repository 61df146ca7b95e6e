/* SPDX-License-Identifier: MIT */
/*
 * imap: the answers of a map one by one, in the order of the items or of their ends.
 *
 * A few chunks (pool_chunk_priv.h) are on their way at a time, each in a piece. Every one is
 * watched; at its end it goes to the list of those that can be given, and the count of arrivals,
 * which next sleeps on, goes up.
 */
#include "concurrency/park.h"
#include "concurrency/pool_chunk_priv.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNKS_AHEAD = 4 }; /* a worker */

/* A chunk on its way. */
struct piece {
    struct modus_future_watcher watcher; /* first member */
    struct modus_imap *imap;
    struct modus_future *future; /* NULL: this one is free */
    struct modus_chunk *chunk; /* with what the workers must see behind it, in memory of the pool */
    size_t number, bytes;
    struct piece *next; /* among those that have ended; under the lock of hooks */
};

struct modus_imap {
    struct modus_pool *pool;
    struct modus_map map;
    bool ordered;
    size_t count, window; /* chunks: in all, at a time */
    size_t submitted, given;
    struct piece *current; /* whose answers are given out; NULL: none */
    size_t item;           /* the next one in it */
    _Atomic uint32_t arrivals;
    struct piece *first, *last; /* have ended; under the lock of hooks */
    struct piece pieces[];
};

int modus_imap_new(struct modus_imap **imap, struct modus_pool *pool, const struct modus_map *map,
                   bool ordered)
{
    if (!modus_map_valid(map))
        return -EINVAL;
    size_t window = (size_t)CHUNKS_AHEAD * pool->attr.n;
    struct modus_imap *made = calloc(1, sizeof *made + window * sizeof(struct piece));
    if (!made)
        return -ENOMEM;
    made->pool = pool;
    made->map = *map;
    made->map.chunk = map->chunk ? map->chunk : 1;
    made->ordered = ordered;
    made->count = map->n ? modus_ceiling(map->n, made->map.chunk) : 0;
    made->window = window;
    *imap = made;
    return 0;
}

static size_t rounded(size_t n)
{
    return modus_ceiling(n, 16) * 16;
}

/* Describe chunk number n for the piece. Returns false when there is no memory. */
static bool prepare(struct modus_imap *imap, struct piece *piece, size_t n)
{
    const struct modus_map *map = &imap->map;
    size_t first = n * map->chunk, items = map->n - first;

    items = items < map->chunk ? items : map->chunk;
    const unsigned char *in = map->in;
    size_t head = rounded(sizeof(struct modus_chunk));
    size_t copied = modus_shares_memory(imap->pool) ? 0 : rounded(items * map->in_size);
    piece->number = n;
    piece->bytes = head + copied + items * map->out_size;
    unsigned char *memory = imap->pool->ops->alloc(imap->pool, piece->bytes);
    if (!memory)
        return false;
    piece->chunk = (struct modus_chunk *)(void *)memory;
    if (in && copied > 0)
        memcpy(memory + head, in + first * map->in_size, items * map->in_size);
    *piece->chunk = (struct modus_chunk){
        .run = map->run,
        .in = copied > 0 ? memory + head
              : in       ? in + first * map->in_size
                         : NULL,
        .out = map->out_size > 0 ? memory + head + copied : NULL,
        .n = items,
        .in_size = map->in_size,
        .out_size = map->out_size,
    };
    return true;
}

static void release(struct modus_imap *imap, struct piece *piece)
{
    modus_future_put(piece->future);
    imap->pool->ops->release(imap->pool, piece->chunk, piece->bytes);
    *piece = (struct piece){0};
}

/* Under the lock of hooks. */
static void arrive(struct piece *piece)
{
    struct modus_imap *imap = piece->imap;

    *(imap->first ? &imap->last->next : &imap->first) = piece;
    imap->last = piece;
    atomic_fetch_add(&imap->arrivals, 1);
    modus_unpark(MODUS_THREAD, &imap->arrivals, 1);
}

static void tell(struct modus_future_watcher *watcher)
{
    arrive((struct piece *)(void *)watcher);
}

static struct piece *free_piece(struct modus_imap *imap)
{
    for (size_t i = 0; i < imap->window; i++)
        if (!imap->pieces[i].future)
            return &imap->pieces[i];
    return NULL;
}

static int submit_next(struct modus_imap *imap, struct piece *piece, int64_t ns)
{
    if (!prepare(imap, piece, imap->submitted))
        return -ENOMEM;
    piece->imap = imap;
    piece->watcher.tell = tell;
    int rc = modus_chunk_submit(imap->pool, &piece->future, piece->chunk, &imap->map, ns);
    if (rc < 0) {
        piece->future = NULL;
        release(imap, piece);
        return rc;
    }
    imap->submitted++;
    if (!modus_future_watch(piece->future, &piece->watcher)) {
        modus_future_lock();
        arrive(piece);
        modus_future_unlock();
    }
    return 0;
}

/* Keep the window full. It waits only for the first. */
static int top_up(struct modus_imap *imap, int64_t ns)
{
    struct piece *piece;

    while (imap->submitted < imap->count && (piece = free_piece(imap)) != NULL) {
        bool alone = imap->submitted == imap->given;
        int rc = submit_next(imap, piece, alone ? ns : 0);

        if (rc == 0)
            continue;
        if (!alone)
            break;
        if (rc == MODUS_FULL)
            return -EAGAIN;
        if (rc != -ETIMEDOUT && rc != MODUS_CANCELED)
            imap->count = imap->submitted; /* there will be no more */
        return rc;
    }
    return 0;
}

/* One that has ended and is the next to be given; NULL: then arrivals is what to sleep on. */
static struct piece *take(struct modus_imap *imap, uint32_t *arrivals)
{
    struct piece **at = &imap->first, *before = NULL, *piece;

    modus_future_lock();
    *arrivals = atomic_load(&imap->arrivals);
    for (; (piece = *at) != NULL; before = piece, at = &piece->next)
        if (!imap->ordered || piece->number == imap->given)
            break;
    if (piece) {
        *at = piece->next;
        if (imap->last == piece)
            imap->last = before;
    }
    modus_future_unlock();
    return piece;
}

/* A thread of the pool runs what it waits for and nobody has begun. Returns 0; or -EDEADLK: nothing
 * that could be given next can end before the caller goes on. */
static int help(struct modus_imap *imap)
{
    size_t left = 0, refused = 0;

    for (size_t i = 0; i < imap->window; i++) {
        struct piece *piece = &imap->pieces[i];

        if (!piece->future || modus_future_ended(piece->future))
            continue;
        int rc = modus_future_help(piece->future);
        if (rc > 0)
            return 0;
        if (!imap->ordered || piece->number == imap->given) {
            left++;
            refused += rc < 0;
        }
    }
    return left > 0 && refused == left ? -EDEADLK : 0;
}

static int await_piece(struct modus_imap *imap, int64_t ns, int64_t deadline)
{
    uint32_t arrivals;
    int rc = ns == 0 ? -EAGAIN : 0;

    while (!(imap->current = take(imap, &arrivals))) {
        if (rc < 0)
            return rc;
        rc = help(imap);
        if (rc == 0)
            rc = modus_park(MODUS_THREAD, &imap->arrivals, arrivals, deadline, NULL);
    }
    imap->item = 0;
    return 0;
}

/* The current piece's next answer. */
static int give(struct modus_imap *imap, void *answer, size_t *index)
{
    struct piece *piece = imap->current;
    struct modus_chunk *chunk = piece->chunk;
    size_t item = imap->item++, number = piece->number * imap->map.chunk + item;
    int rc = 0;

    if (index)
        *index = number;
    if (item >= atomic_load_explicit(&chunk->answered, memory_order_acquire)) {
        rc = modus_future_code(piece->future);
        modus_map_note_failure(&imap->map, number, modus_future_text(piece->future));
    } else if (answer && chunk->out)
        memcpy(answer, chunk->out + item * chunk->out_size, chunk->out_size);
    if (imap->item == chunk->n) {
        release(imap, piece);
        imap->current = NULL;
        imap->given++;
    }
    return rc;
}

int modus_imap_next(struct modus_imap *imap, int64_t ns, void *answer, size_t *index)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    int64_t deadline = modus_deadline(ns);
    int rc = top_up(imap, ns);
    if (rc == 0 && !imap->current && imap->given == imap->count)
        return MODUS_EMPTY;
    if (rc == 0 && !imap->current)
        rc = await_piece(imap, ns, deadline);
    return rc < 0 ? rc : give(imap, answer, index);
}

void modus_imap_free(struct modus_imap *imap)
{
    for (size_t i = 0; imap && i < imap->window; i++) {
        struct piece *piece = &imap->pieces[i];

        if (!piece->future)
            continue;
        modus_future_unwatch(piece->future, &piece->watcher);
        modus_future_cancel(piece->future);
    }
    for (size_t i = 0; imap && i < imap->window; i++) { /* when nothing is left to begin */
        struct piece *piece = &imap->pieces[i];

        if (!piece->future)
            continue;
        modus_chunk_await(piece->future);
        release(imap, piece);
    }
    free(imap);
}
