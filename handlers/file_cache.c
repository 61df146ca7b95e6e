/* SPDX-License-Identifier: MIT */
/* The cache of small files. One lock guards the table; it is held for a look-up or an insertion,
 * never while the disk is read. One short hold a request is cheaper than anything that avoids it as
 * long as the rest of a request costs system calls. */
#include "handlers/file_cache.h"

#include <stdlib.h>

#include "concurrency/lock.h"

struct file_cache {
    struct modus_lock lock; /* guards all below but max_bytes */
    size_t max_bytes, bytes, files;
    struct cached_file *hand; /* the next to be looked at; NULL: empty */
    size_t buckets_count;     /* a power of two; 0: nothing was ever added */
    struct cached_file **buckets;
};

enum { BUCKETS_FIRST = 64 };

/* --- keys ------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Eight bytes at a time: a path is hashed in a few nanoseconds. Only names of files that exist get
 * into the table, so nobody can fill a bucket on purpose who can't make files. */
static uint64_t hash_of(struct str key)
{
    const uint64_t k0 = 0x9e3779b97f4a7c15, k1 = 0xe7037ed1a0b428db;
    uint64_t h = k0 ^ key.len, word;
    while (key.len >= sizeof word) {
        memcpy(&word, key.at, sizeof word);
        h = mix(h ^ word, k1);
        key.at += sizeof word;
        key.len -= sizeof word;
    }
    word = 0;
    if (key.len)
        memcpy(&word, key.at, key.len);
    return mix(h ^ word, k1);
}

/* --- the table, under the lock ---------------------------------------------------------------- */

static struct cached_file **bucket_of(struct file_cache *c, uint64_t hash)
{
    return &c->buckets[hash & (c->buckets_count - 1)];
}

/* A bucket for each file: who serves few, like a child for one connection, has few pages of them, and who
 * serves none (a master, an acceptor) has none that would be copied for every child. Returns false when
 * there are none at all for want of memory. */
static bool has_buckets(struct file_cache *c)
{
    size_t count = c->buckets_count ? c->buckets_count * 2 : BUCKETS_FIRST;
    if (c->buckets_count > c->files)
        return true;
    struct cached_file **wider = calloc(count, sizeof *wider), *f = c->hand;
    if (!wider)
        return c->buckets_count > 0;
    free(c->buckets);
    c->buckets = wider;
    c->buckets_count = count;
    for (size_t i = 0; i < c->files; i++, f = f->newer) {
        struct cached_file **bucket = bucket_of(c, f->hash);
        f->next_in_bucket = *bucket;
        *bucket = f;
    }
    return true;
}

static struct cached_file *find_locked(struct file_cache *c, struct str key, uint64_t hash)
{
    struct cached_file *f = c->buckets ? *bucket_of(c, hash) : NULL;
    while (f && (f->hash != hash || !str_is(f->key, key)))
        f = f->next_in_bucket;
    return f;
}

static void link_locked(struct file_cache *c, struct cached_file *f)
{
    struct cached_file **bucket = bucket_of(c, f->hash);
    f->next_in_bucket = *bucket;
    *bucket = f;
    /* Just behind the hand, so that the whole clock is looked at before it. */
    if (c->hand) {
        f->newer = c->hand;
        f->older = c->hand->older;
        f->older->newer = f->newer->older = f;
    } else {
        c->hand = f->newer = f->older = f;
    }
    f->in_table = true;
    f->was_used = false;
    c->bytes += f->cost;
    c->files++;
    atomic_fetch_add_explicit(&f->references, 1, memory_order_relaxed);
}

/* The caller puts the table's reference back once the lock is free, or does not mind freeing under
 * it. */
static void unlink_locked(struct file_cache *c, struct cached_file *f)
{
    struct cached_file **at = bucket_of(c, f->hash);
    while (*at != f)
        at = &(*at)->next_in_bucket;
    *at = f->next_in_bucket;
    if (c->hand == f)
        c->hand = f->newer == f ? NULL : f->newer;
    f->newer->older = f->older;
    f->older->newer = f->newer;
    f->in_table = false;
    c->bytes -= f->cost;
    c->files--;
}

static void evict_locked(struct file_cache *c, size_t need)
{
    while (c->hand && c->bytes + need > c->max_bytes) {
        struct cached_file *f = c->hand;
        if (f->was_used) {
            f->was_used = false;
            c->hand = f->newer;
            continue;
        }
        unlink_locked(c, f);
        cached_file_put(f);
    }
}

/* --- for callers ------------------------------------------------------------------------------ */

struct file_cache *file_cache_new(size_t max_bytes)
{
    struct file_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    if (modus_lock_init(&c->lock, MODUS_THREAD) < 0) {
        free(c);
        return NULL;
    }
    c->max_bytes = max_bytes;
    return c;
}

void file_cache_free(struct file_cache *c)
{
    if (!c)
        return;
    while (c->hand) {
        struct cached_file *f = c->hand;
        unlink_locked(c, f);
        cached_file_put(f);
    }
    modus_lock_fini(&c->lock);
    free(c->buckets);
    free(c);
}

struct cached_file *file_cache_get(struct file_cache *c, struct str key, int64_t now_ms, bool *due)
{
    uint64_t hash = hash_of(key);
    modus_lock_acquire(&c->lock, MODUS_FOREVER);
    struct cached_file *f = find_locked(c, key, hash);
    if (f) {
        atomic_fetch_add_explicit(&f->references, 1, memory_order_relaxed);
        f->was_used = true;
        *due = now_ms - f->checked_ms >= FILE_CACHE_CHECK_MS;
        if (*due)
            f->checked_ms = now_ms;
    }
    modus_lock_release(&c->lock);
    return f;
}

void file_cache_add(struct file_cache *c, struct cached_file *f, int64_t now_ms)
{
    if (f->cost > c->max_bytes)
        return;
    f->checked_ms = now_ms;
    modus_lock_acquire(&c->lock, MODUS_FOREVER);
    struct cached_file *old = find_locked(c, f->key, f->hash);
    if (old)
        unlink_locked(c, old);
    evict_locked(c, f->cost);
    if (has_buckets(c))
        link_locked(c, f);
    modus_lock_release(&c->lock);
    if (old)
        cached_file_put(old);
}

void file_cache_drop(struct file_cache *c, struct cached_file *f)
{
    modus_lock_acquire(&c->lock, MODUS_FOREVER);
    bool was_in = f->in_table;
    if (was_in)
        unlink_locked(c, f);
    modus_lock_release(&c->lock);
    if (was_in)
        cached_file_put(f);
}

size_t file_cache_bytes(const struct file_cache *c, size_t *files)
{
    *files = c->files;
    return c->bytes;
}

struct cached_file *cached_file_new(struct str key, const char *path, size_t len)
{
    size_t path_size = strlen(path) + 1;
    size_t cost = sizeof(struct cached_file) + len + path_size + key.len;
    struct cached_file *f = malloc(cost);
    if (!f)
        return NULL;
    char *bytes = (char *)(f + 1), *path_at = bytes + len, *key_at = path_at + path_size;
    memcpy(path_at, path, path_size);
    memcpy(key_at, key.at, key.len);
    *f = (struct cached_file){
        .bytes = bytes,
        .len = len,
        .path = path_at,
        .key = {key_at, key.len},
        .hash = hash_of(key),
        .cost = cost,
        .references = 1,
    };
    return f;
}

void cached_file_put(void *file)
{
    struct cached_file *f = file;
    if (atomic_fetch_sub_explicit(&f->references, 1, memory_order_acq_rel) == 1)
        free(f);
}
