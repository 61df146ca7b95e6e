/* SPDX-License-Identifier: MIT */
/* Small files kept in memory with what an answer says about them: a bounded table from request
 * paths to files.
 *
 *     struct cached_file *f = file_cache_get(cache, key, now_ms, &due);
 *     if (f && due && file has changed) {
 *         file_cache_drop(cache, f);
 *         cached_file_put(f);
 *         f = NULL;
 *     }
 *     if (!f)
 *         f = cached_file_new(...), file_cache_add(cache, f, now_ms);
 *     ... send f->bytes ...
 *     cached_file_put(f);
 *
 * The cache never looks at the disk. It hands a file out with the word "due" to one caller in
 * FILE_CACHE_CHECK_MS, who compares it with the disk while others go on using it.
 *
 * A file is never changed after it was added. It is freed with its last reference, so one that was
 * dropped or evicted while it is being sent stays until that is done; max_bytes counts what is in
 * the table. When the table is full, the hand of a clock goes round: a file that was used since its
 * last pass is spared once.
 *
 * Safe from: any thread (file_cache_new and _free: one). A forked child has its own copy.
 */
#ifndef HANDLERS_FILE_CACHE_H
#define HANDLERS_FILE_CACHE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handlers/file_info.h"

enum { FILE_CACHE_CHECK_MS = 990 }; /* a second, less the grain of the caller's clock */

struct file_cache;

struct cached_file {
    struct file_info info;
    struct file_stamp stamp;
    bool is_young; /* was read so shortly after it changed that its stamp proves little */
    char *bytes;   /* len of them: the file's content, filled between new and add */
    size_t len;
    const char *path; /* where it lies */

    /* Private to the cache. */
    struct str key;
    uint64_t hash;
    size_t cost;
    atomic_int references;
    struct cached_file *next_in_bucket; /* this and the rest under the cache's lock */
    struct cached_file *newer, *older;  /* the clock, a ring */
    int64_t checked_ms;
    bool in_table, was_used;
};

/* A cache of max_bytes, everything counted. NULL when memory is out. */
struct file_cache *file_cache_new(size_t max_bytes);
void file_cache_free(struct file_cache *c); /* NULL is allowed */

/* The file for a key, referenced, or NULL. *due: the caller should compare it with the disk now. */
struct cached_file *file_cache_get(struct file_cache *c, struct str key, int64_t now_ms, bool *due);
/* Add a file, which was compared with the disk at now_ms, in the place of any other of its key. The
 * caller's reference stays his. A file that is too large for the table is not added, nor is one for
 * which there is no memory. */
void file_cache_add(struct file_cache *c, struct cached_file *f, int64_t now_ms);
/* Take a file out of the table, if it is still there. */
void file_cache_drop(struct file_cache *c, struct cached_file *f);
/* For tests: bytes and files in the table. */
size_t file_cache_bytes(const struct file_cache *c, size_t *files);

/* A file with room for len bytes, referenced once; key and path are copied. bytes, info and stamp
 * are the caller's to fill. NULL when memory is out. */
struct cached_file *cached_file_new(struct str key, const char *path, size_t len);
/* Give a reference back. The argument is a struct cached_file, so that exchange_defer can do it. */
void cached_file_put(void *file);

#endif
