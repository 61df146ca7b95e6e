/* SPDX-License-Identifier: MIT */
/*
 * Proxy: a thread that sleeps in the kernel for those who must not.
 *
 * A coroutine that waits for a word stands in the lot (lot.h), where an unpark finds it. An unpark
 * by another process does not: it reaches who sleeps in the kernel. So one thread of the process
 * sleeps there, in futex_waitv, on all the words that its coroutines wait for and on the death epochs
 * of their arenas, and wakes from the lot who waits for a word that has been woken. Nothing is looked
 * at from time to time, and as long as nothing happens nobody wakes up. The thread is made when it
 * is needed first, and then stays.
 *
 * A wake-up that reaches the proxy for a word for which nobody waits any more is passed on to
 * the next sleeper; all who wait for one word here are woken together and look again.
 *
 * A thread serves 100 words; more words, more threads. The word of a robust mutex has one of its
 * own, because of what the kernel knows of a thread in the middle of acquiring one (its pending
 * operation, see Documentation/locking/robust-futex-ABI.rst): if the process is killed with a
 * wake-up in its hands, the kernel wakes the next.
 *
 * Without futex_waitv (Linux before 5.16, or a filter of system calls) each word has a thread of
 * its own, which notices a death within a second.
 *
 * For implementers: coroutine_loop.c.
 */
#ifndef CONCURRENCY_PROXY_H
#define CONCURRENCY_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#include "concurrency/park.h"

struct modus_proxy;
struct modus_proxy_word;

/* One that waits. All fields are private. */
struct modus_proxy_wait {
    struct modus_proxy *proxy;
    struct modus_proxy_word *word;
    uint32_t turn;
};

/* The caller has entered the lot for word, which must stay mapped until modus_proxy_end: from now on
 * it is woken there when others wake the word, when the word is not as expected any more, or when
 * the epoch has moved; perhaps before this returns, and perhaps for no reason. watch may be NULL.
 * robust: the word is that of a robust mutex. Returns false when there is no thread for it. May make
 * a thread; waits for no other.
 * Safe from: any thread; not signal handlers. */
bool modus_proxy_begin(struct modus_proxy_wait *wait, _Atomic uint32_t *word, uint32_t expected,
                       const struct modus_watch *watch, bool robust);

/* It has been woken, or has left the lot. Safe from: as modus_proxy_begin. */
void modus_proxy_end(struct modus_proxy_wait *wait);

/* Let the kernel know that the calling thread is about to try the robust mutex with that word; from
 * the end of a wait until the try there may be nobody else that the kernel would look at. */
void modus_proxy_cover(_Atomic uint32_t *word);

/* In a forked child: there are no proxies, and nobody waits through one. Safe from: a forked child. */
void modus_proxy_forget(void);

#endif
