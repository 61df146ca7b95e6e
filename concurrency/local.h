/* SPDX-License-Identifier: MIT */
/*
 * Local: a variable of which every thread, and every coroutine, has a value of its own.
 *
 *     static struct modus_local connection;
 *
 *     modus_local_init(&connection, close_connection);      // once, before the threads start
 *
 *     if (!modus_local_get(&connection))                    // in any of them
 *         modus_local_set(&connection, open_connection());
 *     query(modus_local_get(&connection));
 *
 * In a coroutine the value is the coroutine's, elsewhere the thread's; neither sees the other's. A
 * value belongs to the variable once it is set: the destructor gets it when its thread or coroutine
 * ends, or when the variable does, whichever comes first. It does not when the process ends; and a
 * value that is replaced goes back to who replaces it.
 *
 * A destructor runs in the thread or coroutine that ends, and may set values again: they are
 * destroyed too, up to four times, in no particular order. Those of live threads are destroyed by
 * modus_local_fini.
 *
 * After a fork the child's one thread has its values, and those of its coroutines; values of other
 * threads are gone without their destructors, as the threads are.
 *
 * A get costs some loads and no lock.
 */
#ifndef CONCURRENCY_LOCAL_H
#define CONCURRENCY_LOCAL_H

#include <stdint.h>

#include "concurrency/result.h"

/* All fields are private. Zeroed: not started. */
struct modus_local {
    uint64_t serial; /* of no other variable; 0: not started */
    uint32_t index;  /* of no other variable that exists */
    void (*destroy)(void *value);
};

/* Make a variable whose value is NULL everywhere. destroy gets the values that are not NULL; NULL:
 * nothing is done with them. Returns 0, or -EOVERFLOW (4096 variables already). May wait briefly.
 * Safe from: any thread, before others use it. */
int modus_local_init(struct modus_local *local, void (*destroy)(void *value));

/* End a variable: destroy all its values, in the calling thread. Nobody uses it meanwhile or later;
 * a thread that ends at this moment may still be in the destructor. Does nothing to one that is not
 * started. May wait briefly. Safe from: any one thread. */
void modus_local_fini(struct modus_local *local);

/* The caller's value, borrowed; NULL when it has set none. Does not block.
 * Safe from: any thread, any coroutine, a forked child. */
void *modus_local_get(const struct modus_local *local);

/* Set the caller's value; takes it. The old one is the caller's again. Returns 0, -ENOMEM (nothing
 * has changed) or -EINVAL (not started). May wait briefly.
 * Safe from: any thread, any coroutine, a forked child; not signal handlers. */
int modus_local_set(struct modus_local *local, void *value);

#endif
