/* SPDX-License-Identifier: MIT */
/*
 * Coroutine: a thread's manners at the price of a function call. Many run on one thread, one at a
 * time; one that has to wait lets the next go on.
 *
 * States: ready -> running -> (waiting -> ready)* -> ended.
 *
 *     static int greet(void *name)
 *     {
 *         modus_co_sleep(modus_ms(100));
 *         return printf("hello, %s\n", (char *)name);
 *     }
 *     static int program(void *argument)
 *     {
 *         struct modus_co *co;
 *         modus_co_start(&co, NULL, greet, "world");
 *         modus_co_join(co, MODUS_FOREVER, NULL);
 *         modus_co_put(co);
 *         return 0;
 *     }
 *     int main(void) { return modus_co_run(program, NULL); }
 *
 * Every waiting call of the toolbox on an object of thread scope works here too: in a coroutine it
 * parks the coroutine and not the thread, and the two may wait for the same lock, event or queue.
 * A lock is owned by the coroutine. What waits outside of the toolbox (read, getaddrinfo, a long
 * computation) holds up all coroutines of its thread; modus_co_lag tells for how long.
 *
 * A coroutine begins and ends on one thread. It can be cancelled: the wait that it is in, or the
 * next one, returns MODUS_CANCELED, and so do all that follow; acquiring a lock is no such wait.
 * It may have a deadline: no wait of it lasts longer, and those after it return -ETIMEDOUT.
 *
 * Times are kept to the millisecond that the loop underneath (libuv) knows; nothing wakes early.
 */
#ifndef CONCURRENCY_COROUTINE_H
#define CONCURRENCY_COROUTINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/result.h"

struct modus_co;

struct modus_co_attr {
    const char *name; /* copied, up to 31 bytes; NULL: "coroutine-1" and so on */
    size_t stack;     /* bytes; 0: 60 KiB */
    int64_t deadline; /* absolute CLOCK_MONOTONIC ns; 0: that of the one that starts it */
};

/* Run main as a coroutine on the calling thread, and all that it starts, until all of them have
 * ended. Returns what main returned, or -ENOMEM, or -EDEADLK (the caller is a coroutine). Blocks.
 * Safe from: any thread; several may run coroutines of their own at the same time. */
int modus_co_run(int (*main)(void *argument), void *argument);

/* Start a coroutine on the caller's thread. It begins when the caller waits or yields. *co, unless
 * co is NULL, becomes a handle with one reference. attr may be NULL. Returns 0, -EINVAL, -ENOMEM,
 * or -EPERM when the caller is no coroutine. Does not wait.
 * Safe from: a coroutine. */
int modus_co_start(struct modus_co **co, const struct modus_co_attr *attr,
                   int (*run)(void *argument), void *argument);

/* Wait until it has ended, up to ns nanoseconds (MODUS_FOREVER, or 0: only look); *result, unless
 * NULL, becomes what its function returned. Returns 0, -EAGAIN, -ETIMEDOUT, -EDEADLK (oneself),
 * MODUS_CANCELED (the caller is) or -EINVAL. Waits.
 * Safe from: any coroutine and any thread, of any number, any number of times. */
int modus_co_join(struct modus_co *co, int64_t ns, int *result);

/* Ask it to end: see above. Once is enough. Does not wait.
 * Safe from: any coroutine, any thread. */
void modus_co_cancel(struct modus_co *co);

/* One reference more, or less. NULL is legal. Safe from: any coroutine, any thread. */
struct modus_co *modus_co_get(struct modus_co *co);
void modus_co_put(struct modus_co *co);

/* The calling coroutine, borrowed; NULL when the caller is none. Safe from: anywhere. */
struct modus_co *modus_co_self(void);
const char *modus_co_name(const struct modus_co *co);

/* Let others go on first. Returns 0, MODUS_CANCELED, -ETIMEDOUT (its deadline is over), or -EPERM
 * when the caller is no coroutine. */
int modus_co_yield(void);

/* Wait ns nanoseconds, or until an absolute time. Returns 0, MODUS_CANCELED, -ETIMEDOUT (the
 * deadline came first) or -EINVAL. In a thread the thread sleeps.
 * Safe from: any coroutine, any thread. */
int modus_co_sleep(int64_t ns);
int modus_co_sleep_until(int64_t time);

/* Has the caller been cancelled? Safe from: anywhere; false where there is no coroutine. */
bool modus_co_cancelled(void);

/* Wait until the descriptor is ready: events of poll(2), POLLIN and POLLOUT. *ready, unless NULL,
 * becomes those that it is ready for. One coroutine a descriptor at a time. Returns 0, -ETIMEDOUT,
 * MODUS_CANCELED, -EINVAL, -ENOMEM, or -EPERM when the caller is no coroutine or the descriptor
 * can't be waited for. Waits. Safe from: a coroutine. */
int modus_co_wait_fd(int fd, int events, int64_t ns, int *ready);

/* In a forked child that will not go on with its parent's coroutines: forget that there are any, so
 * that the calling one is a plain thread, on the coroutine's stack. Safe from: a forked child. */
void modus_co_forget(void);

/* The longest that one coroutine of this thread has run without waiting, in ns, and its name in
 * name (32 bytes, or NULL). 0 outside of modus_co_run. Safe from: a coroutine. */
int64_t modus_co_lag(char *name);

#endif
