/* SPDX-License-Identifier: MIT */
/*
 * List: values, each some bytes, in an order, shared by threads or by processes.
 *
 * States: not started (zeroed) -> started. Each call is one step that others see done or not done.
 *
 *     struct modus_list list;
 *     modus_list_init(&list, &(struct modus_list_attr){.scope = MODUS_PROCESS, .arena = arena,
 *                                                      .bytes = 1 << 20});
 *     modus_list_append(&list, modus_bytes(&n, sizeof n));
 *     size = modus_list_get(&list, -1, &n, sizeof n, NULL);       // the last
 *     size = modus_list_pop(&list, 0, &n, sizeof n);              // the first
 *
 * Index 0 is the first, -1 the last; as in Python, but for insert, which also takes an index one
 * past the last: -1 there is the end. Both ends are equally cheap; elsewhere as many words move as
 * there are values to the nearer end.
 *
 * Handle, memory, killed users, versions and snapshots are a dict's (dict.h).
 *
 * Algorithm: ring of references; a shift that is interrupted is undone by its hole (store.h).
 */
#ifndef CONCURRENCY_LIST_H
#define CONCURRENCY_LIST_H

#include <stddef.h>
#include <stdint.h>

#include "concurrency/bytes.h"
#include "concurrency/dict.h"
#include "concurrency/result.h"
#include "concurrency/snapshot.h"
#include "concurrency/store.h"

#define MODUS_LIST_VALUE_MAX ((size_t)1 << 30)

struct modus_list_attr {
    enum modus_scope scope;
    struct modus_arena *arena; /* process scope: where it lies */
    size_t bytes;              /* 16 KiB to 64 GiB: the most that it takes */
};

/* All fields are private. */
struct modus_list {
    struct modus_store store;
};

/* Make an empty list. Returns 0, -EINVAL or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_list_init(struct modus_list *list, const struct modus_list_attr *attr);

/* End a list that nobody uses any more. Does nothing to one that is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_list_fini(struct modus_list *list);

/*
 * All that follow return -EINVAL (not started, value too long), -ENOENT (no such index),
 * MODUS_NOTRECOVERABLE (the shared memory has been damaged) or -EDEADLK (called by an update's
 * function on the same list) besides what they say; on an error nothing has changed. They block
 * only while another's call is under way.
 * Safe from: any thread, in process scope any process and a forked child; not signal handlers.
 */

/* Add a value at the end, copied. Returns 0 or -ENOMEM. */
int modus_list_append(struct modus_list *list, struct modus_bytes value);

/* Add a value so that it is the one at index, copied. Returns 0 or -ENOMEM. */
int modus_list_insert(struct modus_list *list, long index, struct modus_bytes value);

/* Change the value at index. Returns 0 or -ENOMEM. */
int modus_list_set(struct modus_list *list, long index, struct modus_bytes value);

/* The same, if it has that version. Returns 0, -ESTALE or -ENOMEM. */
int modus_list_set_if(struct modus_list *list, long index, struct modus_bytes value,
                      uint64_t version);

/* Copy the value at index into memory, if it is not longer than room. Returns how long it is (if
 * that is more than room, nothing was copied). *version, unless NULL, becomes its version. */
long modus_list_get(struct modus_list *list, long index, void *memory, size_t room,
                    uint64_t *version);

/* Get it and remove it, if it is not longer than room; else as modus_list_get: so without room it
 * only says how long it is. */
long modus_list_pop(struct modus_list *list, long index, void *memory, size_t room);

/* Remove the value at index. Returns 0. */
int modus_list_remove(struct modus_list *list, long index);

/* Read, change and write in one step, as modus_dict_update. */
int modus_list_update(struct modus_list *list, long index, size_t room, modus_update *update,
                      void *context);

/* How many values there are, or a negative code. */
long modus_list_len(struct modus_list *list);

/* Remove all values, in one step. Returns 0. */
int modus_list_clear(struct modus_list *list);

/* Copy all values as they are at this moment; to be freed with modus_snapshot_fini. Returns 0 or
 * -ENOMEM. */
int modus_list_snapshot(struct modus_list *list, struct modus_snapshot *snapshot);

/* The same into the caller's memory, packed (snapshot.h), if there is room. Returns how many bytes
 * it needs. */
long modus_list_pack(struct modus_list *list, void *memory, size_t room);

/* Is everything whole, and all memory accounted for? Looks at every value. Returns 0 or
 * MODUS_NOTRECOVERABLE, then for all calls from now on. */
int modus_list_check(struct modus_list *list);

/* Bytes in use now, of those that attr gave. */
size_t modus_list_used(const struct modus_list *list);

#endif
