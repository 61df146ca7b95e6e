/* SPDX-License-Identifier: MIT */
/*
 * Readers-writer lock: many may read at the same time, or one may write.
 *
 * States: not started (zeroed) -> free <-> read by some, or written by one; in process scope also
 * "writer died" and poisoned, as a plain lock (lock.h).
 *
 *     static struct modus_rwlock lock = MODUS_RWLOCK_INIT;
 *
 *     modus_rwlock_read(&lock, MODUS_FOREVER);
 *     price = lookup(table, name);
 *     modus_rwlock_release(&lock);
 *
 *     modus_rwlock_write(&lock, MODUS_FOREVER);
 *     insert(table, name, price);
 *     modus_rwlock_release(&lock);
 *
 * A writer that waits for readers keeps new readers out, so writers don't starve; whom it keeps out
 * queues among the writers for its turn, so readers don't starve either. That is why a reader must
 * not acquire the lock once more, neither to read (a writer may have come in between, and the two
 * would wait for each other) nor to write. Where readers are known, in process scope, that is
 * -EDEADLK; in thread scope the lock knows only their number, and such a wait has no end unless
 * deadlock detection (deadlock.h) is on. A writer that acquires it once more gets -EDEADLK.
 *
 * Process scope: the lock lies in an arena, and readers have joined it (participant.h); each has a
 * slot of its own. A reader that is killed blocks no writer: its slot is cleared when the death is
 * buried, and a writer that waits for it looks after it and buries it itself. A writer that is
 * killed while it holds the lock leaves it to the next one that comes, reader or writer, who gets
 * MODUS_OWNERDEAD and holds it *as a writer*, to mend what is half changed; repair functions,
 * modus_rwlock_consistent and poisoning are the plain lock's. All coroutines of a thread count as
 * one reader there.
 *
 * Reading costs two atomic operations in thread scope, and in process scope no two readers write to
 * the same cache line; a writer looks at the slots of all participants.
 *
 * Algorithm: a lock for the writers, and a flag of theirs that readers see; readers' slots as in
 * LMDB's reader table.
 */
#ifndef CONCURRENCY_RWLOCK_H
#define CONCURRENCY_RWLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/lock.h"
#include "concurrency/result.h"

struct modus_rwlock_readers;

/* All fields are private. */
struct modus_rwlock {
    struct modus_lock lock; /* held by who writes, or enters at a bad moment; its scope is ours */
    _Atomic uint32_t word;  /* the writer's marks; thread: and the number of readers */
    _Atomic uint32_t gone;  /* thread: the last reader tells the writer that waits */
    struct modus_rwlock_readers *readers; /* process: their slots */
    bool unmended;                        /* process: a writer died; under lock */
    int (*repair)(void *context);         /* process */
    void *context;
};

#define MODUS_RWLOCK_INIT                                                                          \
    {                                                                                              \
        .lock = MODUS_LOCK_INIT                                                                    \
    }

/* Make it a free lock of that scope. Returns 0, -EINVAL (scope; process scope outside of an arena)
 * or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object, before others know it. */
int modus_rwlock_init(struct modus_rwlock *lock, enum modus_scope scope);

/* End a lock that nobody holds or waits for, or is still giving up. Does nothing to one that is not
 * started. Safe from: the one thread that still knows the object, in one process. */
void modus_rwlock_fini(struct modus_rwlock *lock);

/* As modus_lock_set_repair: what mends after a writer's death. */
int modus_rwlock_set_repair(struct modus_rwlock *lock, int (*repair)(void *context), void *context);

/* Hold it for reading, waiting up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not wait).
 * Returns 0; MODUS_OWNERDEAD (1): held, but for writing, because the last writer died; -EAGAIN (ns
 * 0, and a writer holds it or waits for it), -ETIMEDOUT, -EDEADLK (the caller writes, or in process
 * scope reads, already), MODUS_NOTRECOVERABLE (poisoned), -EOVERFLOW (2^30 readers) or -EINVAL; in
 * process scope also -EPERM (not joined) and -ECHILD (only the parent has). Blocks.
 * Safe from: any thread, in process scope any process that has joined; not signal handlers. */
int modus_rwlock_read(struct modus_rwlock *lock, int64_t ns);

/* modus_rwlock_read with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_rwlock_read_until(struct modus_rwlock *lock, int64_t deadline);

/* modus_rwlock_read(lock, 0). Does not block. */
int modus_rwlock_try_read(struct modus_rwlock *lock);

/* Hold it for writing, alone. Returns 0; MODUS_OWNERDEAD (1): held, but the last writer died;
 * -EAGAIN, -ETIMEDOUT, -EDEADLK (the caller writes, or in process scope reads, already),
 * MODUS_NOTRECOVERABLE or -EINVAL. Blocks.
 * Safe from: any thread, in process scope any process, joined or not; not signal handlers. */
int modus_rwlock_write(struct modus_rwlock *lock, int64_t ns);

/* modus_rwlock_write with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_rwlock_write_until(struct modus_rwlock *lock, int64_t deadline);

/* modus_rwlock_write(lock, 0). Does not block. */
int modus_rwlock_try_write(struct modus_rwlock *lock);

/* Give it up, whichever way the caller holds it. Returns 0, -EPERM (the caller holds it in no way;
 * in thread scope: nobody reads, and the caller does not write), -EINVAL, or in process scope
 * -ECHILD. Does not block. Safe from: who holds it. */
int modus_rwlock_release(struct modus_rwlock *lock);

/* From writing to reading, with no other writer in between. Returns 0; -EPERM (the caller does not
 * write), -EINVAL; in process scope -EPERM and -ECHILD (not joined: it writes on), and
 * MODUS_NOTRECOVERABLE when a dead writer's work is unmended: it is poisoned, and held no more. Does
 * not block. Safe from: the writer. */
int modus_rwlock_downgrade(struct modus_rwlock *lock);

/* Does the calling thread hold it for writing? How many hold it for reading, already old when it
 * returns? Do not block. Safe from: any thread and process, signal handlers. */
bool modus_rwlock_mine(const struct modus_rwlock *lock);
unsigned modus_rwlock_readers(const struct modus_rwlock *lock);

/* As modus_lock_consistent and modus_lock_poisoned. */
int modus_rwlock_consistent(struct modus_rwlock *lock);
bool modus_rwlock_poisoned(const struct modus_rwlock *lock);

#endif
