/* SPDX-License-Identifier: MIT */
/*
 * Maps over a pool: items in chunks, a chunk a task (pool_chunk_priv.h).
 *
 * A mapping is the memory behind the future that stands for it: the last chunk to end, or to be
 * given up, ends that future. Whoever waits for it inside of the pool helps with the chunks. The
 * answers of processes are copied to the caller's array at the end.
 */
#include "concurrency/coroutine.h"
#include "concurrency/park.h"
#include "concurrency/pool_chunk_priv.h"
#include "concurrency/self.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- chunks ---------------------------------------------------------------------------------- */

static int run_chunk(struct modus_call *call)
{
    struct modus_chunk *chunk;

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

int modus_chunk_submit(struct modus_pool *pool, struct modus_future **future,
                       struct modus_chunk *chunk, const struct modus_map *map, int64_t ns)
{
    return modus_pool_submit(pool, future,
                             &(struct modus_task){
                                 .run = run_chunk,
                                 .input = &chunk,
                                 .size = sizeof chunk,
                                 .idempotent = map->idempotent,
                                 .priority = map->priority,
                                 .owner = map->owner,
                                 .slow = map->slow,
                             },
                             ns);
}

bool modus_map_valid(const struct modus_map *map)
{
    const size_t most =
        SIZE_MAX / 4; /* both together and what belongs to a chunk are no overflow */

    return map->run &&
           (map->n == 0 || ((map->in || map->in_size == 0) && map->in_size <= most / map->n &&
                            map->out_size <= most / map->n));
}

void modus_map_note_failure(const struct modus_map *map, size_t index, const char *text)
{
    if (!map->failure)
        return;
    map->failure->index = index;
    snprintf(map->failure->text, sizeof map->failure->text, "%s", text);
}

/* Wait to the end, come what may: others write to memory of the caller's. One whose wait is refused
 * looks again and again. */
void modus_chunk_await(struct modus_future *future)
{
    MODUS_CO_SHIELD(awaiting);
    while (modus_future_wait(future, MODUS_FOREVER) < 0)
        modus_park_deaf(MODUS_THREAD, &future->word, atomic_load(&future->word),
                        modus_deadline(modus_ms(1)), NULL);
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
    struct modus_chunk *chunks; /* memory of the pool, until the end; as the next two */
    unsigned char *in, *out;    /* NULL: the caller's */
    struct modus_future *futures[];
};

static struct mapping *mapping_of(const struct modus_future *future)
{
    return future->owner;
}

/* A thread of the pool that waits runs the chunks that nobody has begun, and then is one that waits
 * for one of the others. If one of them can't end before it goes on, neither can the map. */
static int enter(struct modus_future *future)
{
    struct mapping *mapping = mapping_of(future);
    struct modus_future *last = NULL;
    size_t n = atomic_load(&mapping->submitted);

    for (size_t i = 0; i < n; i++) {
        struct modus_future *chunk = mapping->futures[i];
        int rc = modus_future_ended(chunk) ? 1 : modus_future_help(chunk);

        if (rc < 0)
            return rc;
        if (rc == 0)
            last = chunk;
    }
    return last ? last->ops->enter(last) : 0;
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

static const struct modus_future_ops map_ops = {false, enter, leave, never, withdraw, drop, NULL};

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

/* What failed first, an item; kept in the future. */
static void fail(struct modus_future *future, size_t index, int code, int signal, const char *text)
{
    struct mapping *mapping = mapping_of(future);

    if (atomic_exchange(&mapping->failed, true))
        return;
    modus_map_note_failure(&mapping->map, index, text);
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

/* The item at which the chunk failed: its worker may have died behind the last one. */
static size_t where(const struct mapping *mapping, const struct modus_future *future)
{
    size_t i = 0;

    while (mapping->futures[i] != future)
        i++;
    const struct modus_chunk *chunk = &mapping->chunks[i];
    size_t answered = atomic_load(&chunk->answered);
    return i * mapping->map.chunk + (answered < chunk->n ? answered : chunk->n - 1);
}

static void chunk_ended(struct modus_future *chunk, void *context)
{
    struct mapping *mapping = mapping_of(context);
    int code = modus_future_code(chunk);

    if (code < 0 && !atomic_load(&mapping->failed))
        fail(context, where(mapping, chunk), code, modus_future_signal(chunk),
             modus_future_text(chunk));
    count_ended(context, 1);
}

static bool get_memory(struct mapping *mapping)
{
    struct modus_pool *pool = mapping->pool;
    const struct modus_map *map = &mapping->map;

    mapping->chunks = pool->ops->alloc(pool, mapping->count * sizeof *mapping->chunks);
    if (!mapping->chunks || modus_shares_memory(pool))
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

    mapping->chunks[i] = (struct modus_chunk){
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
        rc = modus_chunk_submit(mapping->pool, &mapping->futures[i], &mapping->chunks[i],
                                &mapping->map, MODUS_FOREVER);
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
            modus_chunk_await(mapping->futures[i]);
            chunk_ended(mapping->futures[i], future);
        }
    if (n == count)
        return;
    fail(future, n * mapping->map.chunk, rc, 0, "not every chunk could be queued");
    count_ended(future, count - n);
}

static struct modus_future *mapping_new(struct modus_pool *pool, const struct modus_map *map)
{
    size_t chunk = map->chunk ? map->chunk : modus_ceiling(map->n, (size_t)4 * pool->attr.n);
    size_t count = map->n ? modus_ceiling(map->n, chunk) : 0;
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
    if (!modus_map_valid(map))
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

    if (!modus_shares_memory(pool) && pool->ops->inside(pool))
        return -EDEADLK;
    int rc = modus_pool_map_start(pool, &future, map);
    if (rc < 0)
        return rc;
    modus_chunk_await(future);
    rc = modus_future_code(future);
    modus_future_put(future);
    return rc;
}
