/* SPDX-License-Identifier: MIT */
/*
 * Maps over a pool: items in chunks, a chunk a task.
 *
 * A chunk's task gets the address of a description, which lies where the workers see it. For
 * threads the items and answers are the caller's own arrays; processes get a copy of the items in
 * the pool's arena, and the answers are copied back. So a chunk may be of any size.
 *
 * A mapping is the memory behind the future that stands for it: the last chunk to end, or to be
 * given up, ends that future. Whoever waits for it inside of the pool helps with the chunks.
 */
#include "concurrency/park.h"
#include "concurrency/pool_priv.h"
#include "concurrency/self.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNKS_AHEAD = 4 }; /* a worker */

/* In memory of the pool. */
struct chunk {
    modus_task_function *run;
    const unsigned char *in;
    unsigned char *out; /* NULL: no answers are wanted */
    size_t n, in_size, out_size;
    _Atomic size_t answered; /* items that have succeeded */
};

static int run_chunk(struct modus_call *call)
{
    struct chunk *chunk;

    memcpy(&chunk, call->input, sizeof chunk);
    atomic_store(&chunk->answered, 0); /* it may be the second time */
    for (size_t i = 0; i < chunk->n; i++) {
        struct modus_call item = {
            .input = chunk->in + i * chunk->in_size,
            .size = chunk->in_size,
            .output = chunk->out ? chunk->out + i * chunk->out_size : NULL,
            .room = chunk->out ? chunk->out_size : 0,
            .text = call->text,
            .text_room = call->text_room,
            .stop = call->stop,
        };
        int rc = chunk->run(&item);
        if (rc < 0)
            return rc;
        atomic_store_explicit(&chunk->answered, i + 1, memory_order_release);
    }
    return 0;
}

static int submit_chunk(struct modus_pool *pool, struct modus_future **future, struct chunk *chunk,
                        bool idempotent, int64_t ns)
{
    return modus_pool_submit(
        pool, future,
        &(struct modus_task){
            .run = run_chunk, .input = &chunk, .size = sizeof chunk, .idempotent = idempotent},
        ns);
}

static bool valid(const struct modus_map *map)
{
    return map->run &&
           (map->n == 0 || ((map->in || map->in_size == 0) && map->in_size <= SIZE_MAX / map->n &&
                            map->out_size <= SIZE_MAX / map->n));
}

static bool shares_memory(const struct modus_pool *pool)
{
    return pool->attr.kind == MODUS_POOL_THREAD;
}

/* Wait to the end, come what may: others write to memory of the caller's. A coroutine that is
 * cancelled, whose waits fail, looks again and again. */
static void await_end(struct modus_future *future)
{
    while (modus_future_wait(future, MODUS_FOREVER) < 0)
        modus_park_deaf(MODUS_THREAD, &future->word, atomic_load(&future->word),
                        modus_deadline(modus_ms(1)), NULL);
}

static size_t ceiling(size_t n, size_t by)
{
    return n / by + (n % by != 0);
}

/* --- map ------------------------------------------------------------------------------------- */

/* Behind the future. */
struct mapping {
    struct modus_pool *pool;
    struct modus_map map;
    size_t count;             /* chunks */
    _Atomic size_t submitted; /* futures that are there */
    _Atomic size_t left;      /* chunks that have not ended */
    _Atomic bool failed;
    struct chunk *chunks;    /* memory of the pool, until the end; as the next two */
    unsigned char *in, *out; /* NULL: the caller's */
    struct modus_future *futures[];
};

static struct mapping *mapping_of(const struct modus_future *future)
{
    return future->owner;
}

/* A thread of the pool that waits runs the chunks that nobody has begun, and then is one that waits
 * for one of the others. */
static int enter(struct modus_future *future)
{
    struct mapping *mapping = mapping_of(future);
    struct modus_future *last = NULL;
    size_t n = atomic_load(&mapping->submitted);

    for (size_t i = 0; i < n; i++) {
        struct modus_future *chunk = mapping->futures[i];

        if (!modus_future_ended(chunk) && chunk->ops->enter(chunk) == 0) {
            chunk->ops->leave(chunk);
            last = chunk;
        }
    }
    if (last)
        last->ops->enter(last);
    return 0;
}

static void leave(struct modus_future *future)
{
    struct mapping *mapping = mapping_of(future);

    if (atomic_load(&mapping->submitted) > 0)
        mapping->futures[0]->ops->leave(mapping->futures[0]);
}

static bool never(const struct modus_future *future)
{
    (void)future;
    return false;
}

static enum modus_withdrawal withdraw(struct modus_future *future)
{
    (void)future;
    return MODUS_WITHDRAWN_NOT;
}

static void drop(struct modus_future *future)
{
    struct mapping *mapping = mapping_of(future);

    for (size_t i = 0; i < atomic_load(&mapping->submitted); i++)
        modus_future_put(mapping->futures[i]);
}

static const struct modus_future_ops map_ops = {enter, leave, never, withdraw, drop};

static void free_memory(struct mapping *mapping)
{
    struct modus_pool *pool = mapping->pool;
    struct modus_map *map = &mapping->map;

    if (mapping->in)
        pool->ops->release(pool, mapping->in, map->n * map->in_size);
    if (mapping->out)
        pool->ops->release(pool, mapping->out, map->n * map->out_size);
    if (mapping->chunks)
        pool->ops->release(pool, mapping->chunks, mapping->count * sizeof *mapping->chunks);
}

/* What failed first; kept in the future. */
static void fail(struct modus_future *future, int code, int signal, const char *text)
{
    if (atomic_exchange(&mapping_of(future)->failed, true))
        return;
    future->code = code;
    future->signal = signal;
    future->text = *text ? strdup(text) : NULL;
}

/* So many chunks have ended, or will never begin. */
static void count_ended(struct modus_future *future, size_t n)
{
    struct mapping *mapping = mapping_of(future);

    if (atomic_fetch_sub(&mapping->left, n) != n)
        return;
    if (mapping->out && mapping->map.n > 0)
        memcpy(mapping->map.out, mapping->out, mapping->map.n * mapping->map.out_size);
    free_memory(mapping);
    modus_future_settle(future,
                        atomic_load(&mapping->failed) ? MODUS_FUTURE_FAILED : MODUS_FUTURE_DONE);
    modus_future_put(future);
}

static void chunk_ended(struct modus_future *chunk, void *context)
{
    int code = modus_future_code(chunk);

    if (code < 0)
        fail(context, code, modus_future_signal(chunk), modus_future_text(chunk));
    count_ended(context, 1);
}

static bool get_memory(struct mapping *mapping)
{
    struct modus_pool *pool = mapping->pool;
    const struct modus_map *map = &mapping->map;

    mapping->chunks = pool->ops->alloc(pool, mapping->count * sizeof *mapping->chunks);
    if (!mapping->chunks || shares_memory(pool))
        return mapping->chunks != NULL;
    if (map->in_size > 0 && !(mapping->in = pool->ops->alloc(pool, map->n * map->in_size)))
        return false;
    if (map->out && map->out_size > 0 &&
        !(mapping->out = pool->ops->alloc(pool, map->n * map->out_size)))
        return false;
    if (mapping->in)
        memcpy(mapping->in, map->in, map->n * map->in_size);
    return true;
}

static void describe(struct mapping *mapping, size_t i)
{
    const struct modus_map *map = &mapping->map;
    size_t first = i * map->chunk, left = map->n - first;
    const unsigned char *in = mapping->in ? mapping->in : map->in;
    unsigned char *out = mapping->out ? mapping->out : map->out;

    mapping->chunks[i] = (struct chunk){
        .run = map->run,
        .in = in ? in + first * map->in_size : NULL,
        .out = out ? out + first * map->out_size : NULL,
        .n = left < map->chunk ? left : map->chunk,
        .in_size = map->in_size,
        .out_size = map->out_size,
    };
}

static int submit_all(struct modus_future *future)
{
    struct mapping *mapping = mapping_of(future);
    int rc = 0;

    for (size_t i = 0; i < mapping->count && rc == 0; i++) {
        describe(mapping, i);
        rc = submit_chunk(mapping->pool, &mapping->futures[i], &mapping->chunks[i],
                          mapping->map.idempotent, MODUS_FOREVER);
        if (rc == 0)
            atomic_store(&mapping->submitted, i + 1);
    }
    return rc;
}

/* Have the chunks tell of their ends; those that were not submitted have ended with rc. */
static void follow(struct modus_future *future, int rc)
{
    struct mapping *mapping = mapping_of(future);
    size_t n = mapping->submitted, count = mapping->count;

    for (size_t i = 0; i < n; i++)
        if (modus_future_then(mapping->futures[i], chunk_ended, future) < 0) {
            modus_future_wait(mapping->futures[i], MODUS_FOREVER);
            chunk_ended(mapping->futures[i], future);
        }
    if (n == count)
        return;
    fail(future, rc, 0, "not every chunk could be queued");
    count_ended(future, count - n);
}

static struct modus_future *mapping_new(struct modus_pool *pool, const struct modus_map *map)
{
    size_t chunk = map->chunk ? map->chunk : ceiling(map->n, (size_t)4 * pool->attr.n);
    size_t count = map->n ? ceiling(map->n, chunk) : 0;
    struct modus_future *future =
        modus_future_make(sizeof(struct mapping) + count * sizeof(struct modus_future *), 2);

    if (!future)
        return NULL;
    struct mapping *mapping = future->value;
    *mapping = (struct mapping){.pool = pool, .map = *map, .count = count, .left = count};
    mapping->map.chunk = chunk;
    future->owner = mapping;
    future->ops = &map_ops;
    if (count > 0 && !get_memory(mapping)) {
        free_memory(mapping);
        atomic_store(&future->references, 1);
        modus_future_put(future);
        return NULL;
    }
    return future;
}

int modus_pool_map_start(struct modus_pool *pool, struct modus_future **future,
                         const struct modus_map *map)
{
    if (!valid(map))
        return -EINVAL;
    if (pool->stamp != modus_self_stamp())
        return -ECHILD;
    int rc = modus_pool_refusal(pool);
    if (rc < 0)
        return rc;
    struct modus_future *made = mapping_new(pool, map);
    if (!made)
        return -ENOMEM;
    struct mapping *mapping = mapping_of(made);
    if (mapping->count == 0) {
        modus_future_settle(made, MODUS_FUTURE_DONE);
        modus_future_put(made);
    } else if ((rc = submit_all(made)) < 0 && mapping->submitted == 0) {
        free_memory(mapping);
        modus_future_put(made);
        modus_future_put(made);
        return rc;
    } else {
        follow(made, rc);
    }
    *future = made;
    return 0;
}

int modus_pool_map(struct modus_pool *pool, const struct modus_map *map)
{
    struct modus_future *future;
    int rc = modus_pool_map_start(pool, &future, map);

    if (rc < 0)
        return rc;
    await_end(future);
    rc = modus_future_code(future);
    modus_future_put(future);
    return rc;
}

/* --- imap ------------------------------------------------------------------------------------ */

/* A chunk on its way. */
struct piece {
    struct modus_future_watcher watcher; /* first member */
    struct modus_imap *imap;
    struct modus_future *future; /* NULL: this one is free */
    struct chunk *chunk; /* with what the workers must see behind it, in memory of the pool */
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
    if (!valid(map))
        return -EINVAL;
    size_t window = (size_t)CHUNKS_AHEAD * pool->attr.n;
    struct modus_imap *made = calloc(1, sizeof *made + window * sizeof(struct piece));
    if (!made)
        return -ENOMEM;
    made->pool = pool;
    made->map = *map;
    made->map.chunk = map->chunk ? map->chunk : 1;
    made->ordered = ordered;
    made->count = map->n ? ceiling(map->n, made->map.chunk) : 0;
    made->window = window;
    *imap = made;
    return 0;
}

static size_t rounded(size_t n)
{
    return ceiling(n, 16) * 16;
}

/* Describe chunk number n for the piece. Returns false when there is no memory. */
static bool prepare(struct modus_imap *imap, struct piece *piece, size_t n)
{
    const struct modus_map *map = &imap->map;
    size_t first = n * map->chunk, items = map->n - first;

    items = items < map->chunk ? items : map->chunk;
    const unsigned char *in = map->in;
    size_t head = rounded(sizeof(struct chunk));
    size_t copied = shares_memory(imap->pool) ? 0 : rounded(items * map->in_size);
    piece->number = n;
    piece->bytes = head + copied + items * map->out_size;
    unsigned char *memory = imap->pool->ops->alloc(imap->pool, piece->bytes);
    if (!memory)
        return false;
    piece->chunk = (struct chunk *)(void *)memory;
    if (in && copied > 0)
        memcpy(memory + head, in + first * map->in_size, items * map->in_size);
    *piece->chunk = (struct chunk){
        .run = map->run,
        .in = copied > 0 ? memory + head
              : in       ? in + first * map->in_size
                         : NULL,
        .out = memory + head + copied,
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
    int rc = submit_chunk(imap->pool, &piece->future, piece->chunk, imap->map.idempotent, ns);
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

/* A thread of the pool runs what it waits for and nobody has begun. */
static void help(struct modus_imap *imap)
{
    for (size_t i = 0; i < imap->window; i++) {
        struct modus_future *future = imap->pieces[i].future;

        if (!future || modus_future_ended(future) || future->ops->enter(future) < 0)
            continue;
        future->ops->leave(future);
        if (modus_future_ended(future))
            return;
    }
}

static int await_piece(struct modus_imap *imap, int64_t ns, int64_t deadline)
{
    uint32_t arrivals;
    int rc = ns == 0 ? -EAGAIN : 0;

    while (!(imap->current = take(imap, &arrivals))) {
        if (rc < 0)
            return rc;
        help(imap);
        rc = modus_park(MODUS_THREAD, &imap->arrivals, arrivals, deadline, NULL);
    }
    imap->item = 0;
    return 0;
}

/* The current piece's next answer. */
static int give(struct modus_imap *imap, void *answer, size_t *index)
{
    struct piece *piece = imap->current;
    struct chunk *chunk = piece->chunk;
    size_t item = imap->item++;
    int rc = 0;

    if (index)
        *index = piece->number * imap->map.chunk + item;
    if (item >= atomic_load_explicit(&chunk->answered, memory_order_acquire))
        rc = modus_future_code(piece->future);
    else if (answer)
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
        await_end(piece->future);
        release(imap, piece);
    }
    free(imap);
}
