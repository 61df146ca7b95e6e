/* SPDX-License-Identifier: MIT */
/*
 * Parking lot: who waits for a word without sleeping on it.
 *
 * A thread sleeps in the kernel, by the word's address (park.c). A coroutine must not: its thread
 * has others to run. It is written down here, by the word's address, and whoever unparks the word
 * looks here too. So a lock, a queue or an event does not know who waits for it.
 *
 * The order is Dekker's: who waits counts itself, then looks at the word; who wakes changes the
 * word, then looks at the count. As long as nobody waits here, an unpark costs one load more.
 *
 * An unpark looks here for words of thread scope only: others are changed by processes that have
 * another lot, and the proxy (proxy.h) is who wakes from this one.
 *
 * A forked child begins with an empty lot (modus_co_forget): who waits there is the parent's.
 *
 * For implementers: park.c, proxy.c, coroutine.c and coroutine_loop.c.
 */
#ifndef CONCURRENCY_LOT_H
#define CONCURRENCY_LOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One that waits. All fields are the lot's but wake. */
struct modus_lot_entry {
    struct modus_lot_entry *next, *previous;
    uintptr_t word;
    bool listed;
    /* Called, with the entry out of the lot, by whoever unparks; must not block, park or unpark. */
    void (*wake)(struct modus_lot_entry *entry);
};

extern _Atomic uint32_t modus_lot_count; /* entries in all; what an unpark looks at first */

/* Enter the lot if *word == expected. Returns false if it is not. Does not block.
 * Safe from: any thread; not signal handlers. */
bool modus_lot_enter(struct modus_lot_entry *entry, _Atomic uint32_t *word, uint32_t expected);

/* Leave the lot unwoken. Returns false if the entry has been woken, or is about to be: then wake
 * has been or will be called. Safe from: any thread. */
bool modus_lot_leave(struct modus_lot_entry *entry);

/* Wake up to n that wait for word, the longest waiting first; returns how many. In a signal handler
 * that has come in the way of the lot's own work, all that wait for anything are woken a moment
 * later instead. Only when modus_lot_count says that there are any.
 * Safe from: any thread, signal handlers. */
int modus_lot_wake(_Atomic uint32_t *word, int n);

/* In a forked child: nobody waits here, and no bucket is held. Safe from: a forked child. */
void modus_lot_forget(void);

#endif
