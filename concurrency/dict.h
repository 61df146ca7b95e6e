/* SPDX-License-Identifier: MIT */
/*
 * Dict: keys to values, both bytes, shared by threads or by processes.
 *
 * States: not started (zeroed) -> started. Each call is one step that others see done or not done.
 * What takes several steps and must be one (d[key] += 1) is modus_dict_update: the function runs
 * with the dict held.
 *
 *     struct modus_dict hits;
 *     modus_dict_init(&hits, &(struct modus_dict_attr){.scope = MODUS_PROCESS, .arena = arena,
 *                                                      .bytes = 1 << 20});
 *     modus_dict_put(&hits, modus_str("/index"), modus_bytes(&one, sizeof one));
 *     n = modus_dict_get(&hits, modus_str("/index"), &count, sizeof count, NULL);
 *     modus_dict_update(&hits, modus_str("/index"), sizeof count, add_one, NULL);
 *
 * struct modus_dict is a handle. In process scope it is made before the fork (or passed on in the
 * arena's memory) and its copies are as good. Callers need not join the arena.
 *
 * It has a fixed maximum of memory, and pages of it exist from their first use on. What does not
 * fit is -ENOMEM, and nothing has changed. A new value is written beside the old one, so also a
 * change needs room for it.
 *
 * Killed users, process scope: a process killed inside a call leaves the dict as it was before or
 * after that call, and everything else goes on; nothing is lost or leaked (store.h). A process that
 * is stopped inside a call holds the others up until it goes on or is killed.
 *
 * Going through it: take a snapshot; keys come in the order in which they were put first. Every
 * value has a version, a number that no other value of this dict has ever had: see put_if.
 *
 * Algorithm: hash table with linear probing, keys' hashes seeded; entries linked in order.
 */
#ifndef CONCURRENCY_DICT_H
#define CONCURRENCY_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/bytes.h"
#include "concurrency/result.h"
#include "concurrency/snapshot.h"
#include "concurrency/store.h"

#define MODUS_DICT_KEY_MAX   ((size_t)65535)
#define MODUS_DICT_VALUE_MAX ((size_t)1 << 30)

struct modus_dict_attr {
    enum modus_scope scope;
    struct modus_arena *arena; /* process scope: where it lies */
    size_t bytes; /* 16 KiB to 64 GiB: the most that it takes, keys, values and table (each value's
                   * share is rounded up to a power of two) */
};

/* All fields are private. */
struct modus_dict {
    struct modus_store store;
    uint64_t seed;
};

/* Make an empty dict. Returns 0, -EINVAL or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_dict_init(struct modus_dict *dict, const struct modus_dict_attr *attr);

/* End a dict that nobody uses any more. Does nothing to one that is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_dict_fini(struct modus_dict *dict);

/*
 * All that follow return -EINVAL (not started, key or value too long), MODUS_NOTRECOVERABLE (the
 * shared memory has been damaged) or -EDEADLK (called by an update's function on the same dict)
 * besides what they say; on an error nothing has changed. They block only while another's call is
 * under way.
 * Safe from: any thread, in process scope any process and a forked child; not signal handlers.
 */

/* Let key have that value, copied. Returns 0 or -ENOMEM. */
int modus_dict_put(struct modus_dict *dict, struct modus_bytes key, struct modus_bytes value);

/* The same, if the key has a value with that version; version 0: if it has none. Returns 0; -ESTALE
 * (another version, or none), -EEXIST (version 0 and it has one) or -ENOMEM. */
int modus_dict_put_if(struct modus_dict *dict, struct modus_bytes key, struct modus_bytes value,
                      uint64_t version);

/* Copy the key's value into memory, if it is not longer than room. Returns how long it is: when that
 * is more than room, nothing was copied, and there is to be more room the next time; or -ENOENT. *version, unless NULL, becomes its version.
 */
long modus_dict_get(struct modus_dict *dict, struct modus_bytes key, void *memory, size_t room,
                    uint64_t *version);

/* Get it and remove it, if it is not longer than room; else as modus_dict_get. */
long modus_dict_take(struct modus_dict *dict, struct modus_bytes key, void *memory, size_t room);

/* Remove key. Returns 0 or -ENOENT. */
int modus_dict_remove(struct modus_dict *dict, struct modus_bytes key);

/* Changes a value: it is in value, size bytes of it (-1: the key has none), and there is room for
 * room bytes. Returns how many the new one has, or a negative code: nothing has changed. */
typedef long modus_update(void *context, void *value, long size, size_t room);

/* Read, change and write in one step. The function runs with the dict held and must not use it. The
 * new value may have up to room bytes, or as many as the old one. Returns 0, the function's
 * negative code, -ERANGE (it returned too much) or -ENOMEM; in a child that the function has forked,
 * and that returns from it too, -ECHILD: the dict is its parent's to change. */
int modus_dict_update(struct modus_dict *dict, struct modus_bytes key, size_t room,
                      modus_update *update, void *context);

/* How many keys there are, or a negative code. */
long modus_dict_len(struct modus_dict *dict);

/* Remove all keys, in one step. Returns 0. */
int modus_dict_clear(struct modus_dict *dict);

/* Copy all keys and values as they are at this moment; to be freed with modus_snapshot_fini.
 * Returns 0 or -ENOMEM. */
int modus_dict_snapshot(struct modus_dict *dict, struct modus_snapshot *snapshot);

/* The same into the caller's memory, packed (snapshot.h), if there is room. Returns how many bytes
 * it needs. */
long modus_dict_pack(struct modus_dict *dict, void *memory, size_t room);

/* Is everything whole, and all memory accounted for? Looks at every key. Returns 0 or
 * MODUS_NOTRECOVERABLE, then for all calls from now on. */
int modus_dict_check(struct modus_dict *dict);

/* Bytes in use now, of those that attr gave. */
size_t modus_dict_used(const struct modus_dict *dict);

#endif
