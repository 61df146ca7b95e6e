/* SPDX-License-Identifier: MIT */
/*
 * Array: a number of elements of one size, shared by threads or by processes, with a lock.
 *
 * get, set and update are one step each, under the array's lock. What takes several (a sum over
 * all, a swap) holds the lock meanwhile; the elements may then be used in place:
 *
 *     struct modus_array array;
 *     modus_array_init(&array, &(struct modus_array_attr){.scope = MODUS_PROCESS, .arena = arena,
 *                                                         .count = 100, .size = sizeof(int)});
 *     modus_array_set(&array, 3, &number);
 *
 *     modus_array_acquire(&array, MODUS_FOREVER);
 *     int *elements = modus_array_at(&array, 0);
 *     for (int i = 0; i < 100; i++)
 *         sum += elements[i];
 *     modus_array_release(&array);
 *
 * struct modus_array is a handle, made before the fork (or passed on in the arena's memory).
 *
 * Killed users, process scope: one killed inside a set or update leaves the old element or the new
 * one. One killed between acquire and release may have done half of what it wanted; the next one to
 * call modus_array_acquire learns so from MODUS_OWNERDEAD, once, and mends it. The lock is as good
 * as ever.
 */
#ifndef CONCURRENCY_ARRAY_H
#define CONCURRENCY_ARRAY_H

#include <stddef.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

struct modus_array_attr {
    enum modus_scope scope;
    struct modus_arena *arena; /* process scope: where the elements go */
    size_t count;              /* elements, 1 and more */
    size_t size;               /* bytes of one */
};

struct modus_array_head;

/* All fields are private. */
struct modus_array {
    uint32_t scope; /* enum modus_scope; 0: not started */
    struct modus_arena *arena;
    size_t count, size;
    struct modus_array_head *head;
    unsigned char *elements;
};

/* Make an array of zeroed elements. Returns 0, -EINVAL or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_array_init(struct modus_array *array, const struct modus_array_attr *attr);

/* End an array that nobody uses any more. Does nothing to one that is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_array_fini(struct modus_array *array);

/* Copy element i out, or in. Returns 0, -ENOENT (no such element), -EINVAL, or, set inside of an
 * update, -EBUSY. Blocks while another holds the array.
 * Safe from: any thread, in process scope any process and a forked child; not signal handlers. */
int modus_array_get(struct modus_array *array, size_t i, void *element);
int modus_array_set(struct modus_array *array, size_t i, const void *element);

/* Let the function change element i, with the array held. If it returns a negative code, the
 * element is as before. Returns what the function returned, -ENOENT or -EINVAL; -EBUSY inside of
 * another update; -ECHILD in a child that the function has forked, if that returns from it too.
 * Blocks and safe as above. */
int modus_array_update(struct modus_array *array, size_t i,
                       int (*update)(void *context, void *element), void *context);

/* Own the array (once more: the lock is a recursive one, rlock.h), waiting up to ns nanoseconds
 * (MODUS_FOREVER: without end, 0: do not wait), or until an absolute time. Returns 0;
 * MODUS_OWNERDEAD (1): owned, but an owner died before it released; -EAGAIN, -ETIMEDOUT, -EOVERFLOW
 * or -EINVAL. Blocks.
 * Safe from: as modus_array_get. */
int modus_array_acquire(struct modus_array *array, int64_t ns);
int modus_array_acquire_until(struct modus_array *array, int64_t deadline);

/* Give it up once. Returns 0, -EPERM or -EINVAL. Does not block. Safe from: the owner. */
int modus_array_release(struct modus_array *array);

/* Where element i is, and those after it, or NULL. Does not block; what it points to is for whoever
 * owns the array. */
void *modus_array_at(const struct modus_array *array, size_t i);

#endif
