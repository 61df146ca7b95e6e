/* SPDX-License-Identifier: MIT */
/*
 * Arena: the memory that processes share.
 *
 * One sparse reservation (a memfd mapped MAP_SHARED | MAP_NORESERVE), made before the fork, so that
 * it lies at the same address in every descendant and plain pointers are legal in it. It may be
 * several GiB: pages exist from their first use on, and a fork copies neither them nor their page
 * tables. Everything in process scope lives in one: objects, queue storage, and the table of
 * participants (participant.h).
 *
 *     struct modus_arena *arena;
 *     rc = modus_arena_open(&arena, (size_t)4 << 30, 256);
 *     struct stats *stats = modus_arena_alloc(arena, sizeof *stats, 0);    // zeroed
 *     ... fork workers, which use stats and alloc more ...
 *     modus_arena_free(arena, stats, sizeof *stats);
 *
 * Blocks come in size classes (powers of two up to 16 KiB, above that four steps a doubling), and
 * memory of one class never serves another: a late wake-up on a freed block, or glibc's unlock of a
 * freed robust mutex (BZ 14485), still meets an object of the same size. The pages of blocks from
 * 64 KiB on go back to the system when they are freed; the addresses are used again.
 *
 * Allocation takes no lock: a process killed inside loses at most the block in its hands (and the
 * rest of its page, for small blocks) and hinders nobody. A child can write anywhere in the arena;
 * processes that share one trust each other.
 *
 * A machine that is out of memory answers the first touch of a new page with SIGBUS.
 */
#ifndef CONCURRENCY_ARENA_H
#define CONCURRENCY_ARENA_H

#include <stddef.h>

#include "concurrency/result.h"

struct modus_arena;

/* Open an arena of at least bytes (up to 64 GiB) with a table of that many participants (1 to
 * 32767) and store it in *arena. Returns 0, -EINVAL, -ENOMEM or -EUSERS (16 arenas are open in this
 * process; a pool of processes has one). Does not block.
 * Safe from: any thread; before the fork of those who shall share it. */
int modus_arena_open(struct modus_arena **arena, size_t bytes, unsigned participants);

/* Unmap the arena in this process; what other processes see stays. The calling thread leaves the
 * table of participants. Returns 0, or -EBUSY when another thread of this process has joined and
 * not left, or the calling thread holds a lock in it (what other threads hold is not seen: they must
 * not use it any more). NULL is legal.
 * Safe from: one thread a process. */
int modus_arena_close(struct modus_arena *arena);

/* Zeroed memory of size bytes, aligned to align (a power of two up to 4096; 0: 64, or size rounded
 * up to a power of two if less than a page). NULL when the arena is full or an argument is not
 * valid. The memory belongs to no process: it stays until somebody frees it. Does not block.
 * Safe from: any thread and process, a forked child; not signal handlers. */
void *modus_arena_alloc(struct modus_arena *arena, size_t size, size_t align);

/* Give back what modus_arena_alloc returned for the same size (and align). NULL is legal. Returns
 * 0, or -EINVAL when it is not an allocated block of that size (freed twice, for example). Does not
 * block.
 * Safe from: as modus_arena_alloc; any process may free what another allocated. */
int modus_arena_free(struct modus_arena *arena, void *memory, size_t size);

/* The open arena of this process that holds address, or NULL.
 * Safe from: any thread, signal handlers, a forked child. */
struct modus_arena *modus_arena_of(const void *address);

/* How many bytes have never been allocated yet. Freed blocks do not count. */
size_t modus_arena_untouched(const struct modus_arena *arena);

#endif
