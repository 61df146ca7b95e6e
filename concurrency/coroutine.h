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
 * Every waiting call of the toolbox works here too: in a coroutine it parks the coroutine and not
 * the thread, and the two may wait for the same lock, event or queue, in process scope also those of
 * other processes. A lock is owned by the coroutine. A participant of an arena is
 * a thread, so the coroutines of a thread are one participant; at a barrier they count one by one.
 * What waits outside of the toolbox (read, getaddrinfo, a long computation) holds up all coroutines of
 * its thread; modus_co_lag tells for how long, and offload.h has the cure.
 *
 * A coroutine begins and ends on one thread. It can be cancelled: the wait that it is in, or the
 * next one, returns MODUS_CANCELED, and so do all that follow; acquiring a lock is no such wait.
 * It may have a deadline: no wait of it lasts longer, and those after it return -ETIMEDOUT. Cleaning
 * up that has to wait does it under a shield, where neither reaches it. To start several and be sure
 * that they end, see group.h.
 *
 * A child forked by a coroutine has no loop: it is a thread, on the coroutine's stack, whose waits
 * block. If it returns from the coroutine's function the process ends (_exit) with that result.
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

enum { MODUS_CO_NAME = 32 }; /* bytes of a name, with its end */

struct modus_co_attr {
    const char *name; /* copied, up to 31 bytes; NULL: "coroutine-1" and so on */
    size_t stack;     /* bytes; 0: 60 KiB */
    int64_t deadline; /* absolute CLOCK_MONOTONIC ns; 0: that of the one that starts it */
};

/* Run main as a coroutine on the calling thread, and all that it starts, until all of them have
 * ended. Returns what main returned, or -ENOMEM (no descriptors either: a loop needs some), or
 * -EDEADLK (the caller is a coroutine). Blocks.
 * Safe from: any thread; several may run coroutines of their own at the same time. */
int modus_co_run(int (*main)(void *argument), void *argument);

/* Start a coroutine on the caller's thread. It begins when the caller waits or yields. *co, unless
 * co is NULL, becomes a handle with one reference. attr may be NULL. Returns 0, -EINVAL, -ENOMEM,
 * or -EPERM when the caller is no coroutine. Does not wait.
 * Safe from: a coroutine; a thread that has them as guests. */
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

/* Wait ns nanoseconds, or until an absolute time; MODUS_FOREVER: until the coroutine is cancelled, or
 * its deadline has come. Returns 0, MODUS_CANCELED, -ETIMEDOUT (the deadline came first) or -EINVAL.
 * In a thread the thread sleeps.
 * Safe from: any coroutine, any thread. */
int modus_co_sleep(int64_t ns);
int modus_co_sleep_until(int64_t time);

/* Has the caller been cancelled? Safe from: anywhere; false where there is no coroutine. */
bool modus_co_cancelled(void);

/* Give the caller another deadline (absolute, or MODUS_FOREVER): from now on each of its waits ends
 * there at the latest. Returns the one before, to be put back; MODUS_FOREVER where there is no
 * coroutine. Does not wait. Safe from: anywhere. */
int64_t modus_co_deadline(int64_t deadline);

/* Until the end of the shield, no wait of the caller is ended by its being cancelled or by its
 * deadline; a wait's own time still is. Shields may lie in one another. Without effect where there
 * is no coroutine. Do not wait. Safe from: anywhere.
 *
 *     MODUS_CO_SHIELD(cleaning);              // until the end of the block
 *     modus_queue_put(&results, &last_words, modus_seconds(1)); */
struct modus_co_shield {
    struct modus_co *co; /* private */
};

struct modus_co_shield modus_co_shield_begin(void);
void modus_co_shield_end(struct modus_co_shield *shield);

#define MODUS_CO_SHIELD(name)                                                                      \
    struct modus_co_shield name __attribute__((cleanup(modus_co_shield_end), unused)) =            \
        modus_co_shield_begin()

/* Wait until the descriptor is ready: events of poll(2), POLLIN and POLLOUT. *ready, unless NULL,
 * becomes those that it is ready for. Several may wait for the same one. It does not block from then
 * on (O_NONBLOCK, also for others who share it). Returns 0, -ETIMEDOUT, MODUS_CANCELED, -EINVAL (no
 * such event, or no open descriptor), -ENOMEM, or -EPERM when the caller is no coroutine or the
 * descriptor can't be waited for. Waits. Safe from: a coroutine. */
int modus_co_wait_fd(int fd, int events, int64_t ns, int *ready);

/* In a forked child: forget that there are coroutines, so that the calling one is a plain thread, on
 * the coroutine's stack. fork(3) sees to it by itself; only a child of _Fork or clone must say so.
 * Safe from: a forked child. */
void modus_co_forget(void);

/* The longest that one coroutine of this thread has run without waiting, in ns, and its name in
 * name (MODUS_CO_NAME bytes, or NULL). Measuring begins with the first call. 0 outside of
 * modus_co_run. Safe from: a coroutine. */
int64_t modus_co_lag(char *name);

/* --- as a guest: in a thread whose own event loop waits -------------------------------------------
 *
 *     modus_co_guest_open();
 *     poll modus_co_guest_fd() for input, together with your own descriptors, then
 *     next = modus_co_guest_turn(readable);   // by when to call it again, at the latest
 *
 * The thread starts coroutines with modus_co_start, and wakes them by the toolbox's calls. */

/* Let the calling thread have coroutines without modus_co_run. Returns 0, -ENOMEM or -EDEADLK (it
 * has them already). Safe from: any thread. */
int modus_co_guest_open(void);

/* A descriptor that becomes readable when there is something to do in a turn that was not there at
 * the end of the last one. Poll it, level-triggered, and do nothing else with it.
 * Safe from: the thread that opened. */
int modus_co_guest_fd(void);

/* Run those that are ready, each until it waits; readable: the descriptor was, or may have been.
 * Returns by when to call it again although nothing happens: an absolute time in ns, 0 (at once) or
 * MODUS_FOREVER. What the thread does between two turns (starting one, setting an event that one
 * waits for) may make some ready: then call it before you wait. Does not wait.
 * Safe from: the thread that opened, outside of coroutines. */
int64_t modus_co_guest_turn(bool readable);

/* The longest that one of them has run without waiting since the last call, in ns, and its name in
 * name (MODUS_CO_NAME bytes, or NULL). Measuring begins with the first call. Does not wait.
 * Safe from: the thread that opened, outside of coroutines; elsewhere it is 0. */
int64_t modus_co_guest_lag(char *name);

/* The end. Returns 0, -EBUSY while there are coroutines, or -EPERM where nothing is open.
 * Safe from: the thread that opened, outside of coroutines. */
int modus_co_guest_close(void);

/* --- looking: in gdb, source share/modus/gdb.py and say "info coroutines" ----------------------- */

enum modus_co_state { MODUS_CO_READY, MODUS_CO_RUNNING, MODUS_CO_WAITING };

enum modus_co_wait {
    MODUS_CO_WORD,   /* a word of the toolbox's objects, between threads; object: the word */
    MODUS_CO_LOCK,   /* the same, for a lock */
    MODUS_CO_SHARED, /* a word that processes share */
    MODUS_CO_SLEEP,  /* only time */
    MODUS_CO_FD,     /* a descriptor, cast to a pointer */
    MODUS_CO_JOIN,   /* a coroutine */
};

/* What modus_co_walk says of each. */
struct modus_co_info {
    const char *name;
    uint32_t id; /* its own in the process, and above all of the kernel's thread ids */
    enum modus_co_state state;
    enum modus_co_wait wait; /* while it waits: for what, */
    const void *object;      /* for which, */
    int64_t since;           /* and since when, to a turn of the loop; CLOCK_MONOTONIC ns */
    int64_t deadline;
    bool cancelled;
    size_t stack;   /* bytes it may use */
    size_t touched; /* bytes it, or who had that stack before, has used at most */
};

/* Call visit for each coroutine of the calling thread, the youngest first, until it returns
 * something else than 0, which is returned; it must not wait, and what info holds is valid until it
 * returns. -EPERM outside of modus_co_run. Does not wait. Safe from: a coroutine. */
int modus_co_walk(int (*visit)(const struct modus_co_info *info, void *context), void *context);

/* Write a line for each coroutine of the calling thread to the descriptor. Returns 0, -EPERM, or
 * -EINVAL when it cannot be written. Safe from: a coroutine. */
int modus_co_dump(int fd);

/* From now on, a coroutine (or generator) that runs over its stack is named before it ends the
 * process: on standard error, with the size of its stack; then SIGSEGV does what it did before. For
 * the whole process; handlers installed later win. Coroutines of a thread are watched from the
 * next modus_co_run in it, or, in the calling thread, at once. Returns 0 or -ENOMEM.
 * Safe from: any thread. */
int modus_co_name_overflows(void);

#endif
