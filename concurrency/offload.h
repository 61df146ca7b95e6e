/* SPDX-License-Identifier: MIT */
/*
 * Offload: let a helper thread do what would hold up all coroutines of a thread: a name look-up, a
 * read from a slow disk, a long computation.
 *
 *     static int look_up(void *argument)
 *     {
 *         struct question *q = argument;
 *         return getaddrinfo(q->host, NULL, NULL, &q->answer);
 *     }
 *
 *     rc = modus_offload(look_up, &question, MODUS_FOREVER, &result);  // others go on meanwhile
 *
 * A function that runs on a thread cannot be stopped, and its argument is usually the caller's. So a
 * caller that is cancelled, or whose time is over, goes on without the function only if that has not
 * begun: then it never will. Once it has begun modus_offload waits for its end, whatever comes.
 *
 * A function that may be left to itself takes its argument over: modus_offload_or_leave returns at
 * once when the caller has to go, and the helper, when the function has returned, calls leave with
 * the argument, to free it.
 *
 * The function runs outside of any coroutine: there, the toolbox's waits block the helper. There are
 * up to 16 helpers a process, made when they are needed; beyond, functions wait for their turn, in
 * order. One that waits for another that is offloaded may wait for ever.
 *
 * Called from a thread, which may block, it runs the function there and then.
 *
 * A child forked by the function has no helpers: if it returns from a function that ran on
 * one, it ends (_exit) with that result.
 */
#ifndef CONCURRENCY_OFFLOAD_H
#define CONCURRENCY_OFFLOAD_H

#include <stdint.h>

#include "concurrency/result.h"

/* Run run(argument) on a helper and wait for its end; *result, unless NULL, becomes what it returned.
 * Returns 0; MODUS_CANCELED or -ETIMEDOUT (ns nanoseconds, or the coroutine's deadline): it has not
 * run and will not; -EINVAL, -ENOMEM or -EAGAIN (there is no helper and none can be made). Waits.
 * Safe from: any coroutine, any thread. */
int modus_offload(int (*run)(void *argument), void *argument, int64_t ns, int *result);

/* The same, but on MODUS_CANCELED and -ETIMEDOUT the function may run or have run, and leave(argument)
 * is called when it is over, on a helper, or before the return if it never began. After other errors
 * it is not called. */
int modus_offload_or_leave(int (*run)(void *argument), void *argument,
                           void (*leave)(void *argument), int64_t ns, int *result);

/* At most that many helpers from now on (1 and up); those that are there stay. Safe from: any
 * thread. */
int modus_offload_helpers(unsigned most);

#endif
