/* SPDX-License-Identifier: MIT */
/*
 * Store: memory in which a data structure lives that is never seen half changed.
 *
 * It stands under dict and list (dict.h, list.h), whose calls are transactions on it: begin takes
 * the store's lock, every word of the structure is changed by modus_store_set, which first notes
 * the old one, and commit is a single store that makes the notes void. Whoever inherits the lock
 * from the dead puts the noted words back, and so does undo when a call can't go on. So a process
 * killed at any moment leaves the old state or the new one, and the store's own heap, whose words
 * change in the same way, loses nothing.
 *
 *     rc = modus_store_begin(&store);
 *     unit = modus_store_alloc(&store, sizeof *node);       // its contents need no notes: nobody
 *     fill(modus_store_at(&store, unit, sizeof *node));     // sees them before the commit
 *     modus_store_set(&store, &root->first, unit);
 *     modus_store_free(&store, old);                        // frees come after all allocs
 *     rc = modus_store_commit(&store);
 *     modus_store_end(&store);
 *
 * struct modus_store is a handle, as a queue's is: copies in children are as good. The memory is
 * one block with a fixed maximum, of the arena in process scope, a mapping of its own in thread
 * scope; pages exist from their first use on. Within it memory is named by units of 32 bytes; 0 is
 * none.
 *
 * Nothing that is read from the block is trusted (in process scope others can write there):
 * modus_store_at gives memory only for an allocated block of at least that size, walks are bounded,
 * and a structure that turns out to be damaged is broken for good: MODUS_NOTRECOVERABLE.
 *
 * Memory is rounded up to a power of two; neighbours that are free unite, so what one size leaves
 * another can use.
 *
 * Algorithm: undo log; buddy system (K. Knowlton, 1965).
 *
 * For implementers of structures. Unless it says otherwise, a call is for whoever is between begin
 * and end, and does not block.
 */
#ifndef CONCURRENCY_STORE_H
#define CONCURRENCY_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

enum { MODUS_STORE_UNIT = 32, MODUS_STORE_ROOT_WORDS = 16 };

#define MODUS_STORE_BYTES_MIN ((size_t)16 << 10)
#define MODUS_STORE_BYTES_MAX ((size_t)64 << 30)

struct modus_store_head;

/* All fields are private. */
struct modus_store {
    uint32_t scope; /* enum modus_scope; 0: not started */
    uint64_t units; /* the block's size */
    struct modus_arena *arena;
    struct modus_store_head *head;
};

/* Make a store of that many bytes, what it needs for itself (some 9 KiB and 3 %) included; its root
 * words are 0. Returns 0, -EINVAL or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_store_init(struct modus_store *store, enum modus_scope scope, struct modus_arena *arena,
                     size_t bytes);

/* Give the block back. Does nothing to a store that is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_store_fini(struct modus_store *store);

/* Own the store; what a dead owner has left is undone. Returns 0, MODUS_NOTRECOVERABLE, -EDEADLK
 * (the caller owns it already) or -EINVAL (not started). Blocks until its owner is through.
 * Safe from: any thread, in process scope any process and a forked child. */
int modus_store_begin(struct modus_store *store);

/* Does the caller own it? Who has called a function of others in between may be a child that it has
 * forked, and must leave the store alone. */
bool modus_store_mine(const struct modus_store *store);

/* The changes since begin, or the last commit, are final. Returns 0, or MODUS_NOTRECOVERABLE when
 * the structure was found damaged: then nothing has changed. */
int modus_store_commit(struct modus_store *store);

/* There were no changes since begin, or the last commit. */
void modus_store_undo(struct modus_store *store);

/* Give the store up; what is not committed is undone. */
void modus_store_end(struct modus_store *store);

/* The structure is damaged. Returns MODUS_NOTRECOVERABLE, for all who come from now on too. */
int modus_store_break(struct modus_store *store);

/* Words for the structure's own use, MODUS_STORE_ROOT_WORDS of them. */
void *modus_store_root(struct modus_store *store);

/* Memory of at least that size, not zeroed. Returns its unit, or 0 when there is none. */
uint64_t modus_store_alloc(struct modus_store *store, size_t bytes);

/* Shorten an allocated block to that size, if that makes a difference. */
void modus_store_trim(struct modus_store *store, uint64_t unit, size_t bytes);

/* Free it, at the commit. No alloc may follow in the same transaction, since what is freed must
 * stay as it is until then. */
void modus_store_free(struct modus_store *store, uint64_t unit);

/* The memory of an allocated block of at least that size, or NULL when unit is none. */
void *modus_store_at(const struct modus_store *store, uint64_t unit, size_t bytes);

/* Change a word of the block. */
void modus_store_set(struct modus_store *store, uint64_t *word, uint64_t value);

/* ring is a block of mask + 1 words, indexed by positions & mask. Move the words between two
 * positions by one place, so that the hole at from (whose word does not matter, or has been set
 * before) comes to be at to. Needs no notes, however far. Once a transaction. */
void modus_store_shift(struct modus_store *store, uint64_t ring, uint64_t mask, uint64_t from,
                       uint64_t to);

/* How often it has been changed: the number of the next commit, never 0. */
uint64_t modus_store_version(const struct modus_store *store);

/* Bytes in allocated blocks, and bytes in all. */
size_t modus_store_used(const struct modus_store *store);
size_t modus_store_room(const struct modus_store *store);

/* Is the heap whole? Looks at every block. Returns 0 or MODUS_NOTRECOVERABLE. */
int modus_store_check(struct modus_store *store);

/* How many bytes the block of a unit takes of the store. */
size_t modus_store_size(const struct modus_store *store, uint64_t unit);

#endif
