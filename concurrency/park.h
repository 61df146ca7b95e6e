/* SPDX-License-Identifier: MIT */
/*
 * Parking: the one place where the toolbox sleeps.
 *
 * Every primitive is a 32-bit word that is changed by atomic operations, and this pair for the time
 * when the word has a value that one cannot go on with:
 *
 *     while ((value = atomic_load(&word)) == UNWANTED)
 *         if (modus_park(scope, &word, UNWANTED, deadline, NULL) == -ETIMEDOUT)
 *             return -ETIMEDOUT;
 *     ...
 *     atomic_store(&word, WANTED);
 *     modus_unpark(scope, &word, 1);
 *
 * modus_park may return 0 without reason (a signal, a wake-up meant for an earlier user of the
 * address), so callers always look again. The scope is fixed by the object, never by the call: a
 * private wake-up on a shared word is lost without a sound.
 *
 * Between processes a sleeper also watches the death epoch of the arena in which the word lies: the
 * one that should have woken it may have been killed. Take the watch *before* looking at the
 * condition, then park with it; a death after the look ends the park.
 */
#ifndef CONCURRENCY_PARK_H
#define CONCURRENCY_PARK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/result.h"

/* Who shares an object. 0 is no scope, so a zeroed object is "not started". */
enum modus_scope {
    MODUS_THREAD = 1,  /* the threads of one process; any memory */
    MODUS_PROCESS = 2, /* processes too; in an arena (arena.h), which is opened before the fork */
};

/* May an object of that scope lie there? One between processes lies in an open arena: in memory of its
 * own each process would have its own, and a death there is told to nobody. Does not block.
 * Safe from: any thread, a forked child. */
bool modus_scope_fits(enum modus_scope scope, const void *object);

/* A look at a death epoch; epoch is NULL in thread scope and outside of any arena. */
struct modus_watch {
    _Atomic uint32_t *epoch;
    uint32_t seen;
};

/* Look at the death epoch of the arena that holds object. Does not block.
 * Safe from: any thread and process, a forked child. */
void modus_watch_look(struct modus_watch *watch, const void *object);

/* Sleep while *word == expected, until unparked, until the watched epoch moves, or until deadline
 * (absolute CLOCK_MONOTONIC ns, or MODUS_FOREVER). watch may be NULL; in process scope without an
 * epoch (object outside of any arena), on a kernel without futex_waitv (before 5.16), or when deaths
 * of the caller's children can't be heard of (modus_park_listen), the sleep ends after 1 s at most,
 * so that the caller looks again. Returns 0, also for no reason, or
 * -ETIMEDOUT; in a coroutine that is cancelled MODUS_CANCELED. Blocks; a coroutine lets others go
 * on. Signals do not surface.
 * Safe from: any thread and process, a forked child; not from signal handlers. */
int modus_park(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected, int64_t deadline,
               const struct modus_watch *watch);

/* modus_park for waits that a cancelled coroutine (coroutine.h) does not break off: a lock's. */
int modus_park_deaf(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected,
                    int64_t deadline, const struct modus_watch *watch);

/* Wake up to n sleepers on word, the longest sleeping first; returns how many. n INT_MAX: all. The
 * word is not read, so it may already have been freed or be used for something else; whoever then
 * sleeps there wakes for no reason. Does not block.
 * Safe from: any thread and process, signal handlers, a forked child. */
int modus_unpark(enum modus_scope scope, _Atomic uint32_t *word, int n);

/* Wait until the descriptor is ready for events (of poll(2): POLLIN, POLLOUT), or has failed or been
 * hung up, until deadline. *ready, unless NULL, becomes what poll told. Returns 0, -ETIMEDOUT,
 * -EINVAL (no open descriptor) or -ENOMEM; in a coroutine also MODUS_CANCELED, or -EPERM for
 * descriptors that can't be waited for there. Blocks; a coroutine lets others go on, and there the
 * descriptor is made one that does not block (O_NONBLOCK). Signals do not surface.
 * Safe from: any thread and process, a forked child; not from signal handlers. */
int modus_park_fd(int fd, int events, int64_t deadline, int *ready);

/* What the calling thread has cost so far: sleeps begun, and wake-ups that were a system call. */
struct modus_park_stats {
    uint64_t parks;
    uint64_t unparks;
};

/* Safe from: any thread, signal handlers, a forked child (where the counts go on). */
struct modus_park_stats modus_park_stats(void);

/* One way of sleeping. */
struct modus_park_ops {
    const char *name;
    int (*park)(_Atomic uint32_t *word, uint32_t expected, int64_t deadline,
                const struct modus_watch *watch);
    int (*unpark)(_Atomic uint32_t *word, int n);
};

/* What the calling thread, or the coroutine that it runs, gives up while it waits here, and has again
 * before the wait returns: an interpreter's lock (gil.h). give_up NULL: nothing. Neither call is made
 * within the other. */
struct modus_park_around {
    void (*give_up)(void *object);
    void (*take_back)(void *object);
    void *object;
};

extern _Thread_local struct modus_park_around modus_park_around
    __attribute__((tls_model("initial-exec")));

/* Around each wait, also a coroutine's own. It is the waiter's: whoever runs on this thread meanwhile
 * has its own, or none. */
static inline struct modus_park_around modus_park_give_up(void)
{
    struct modus_park_around around = modus_park_around;

    if (__builtin_expect(around.give_up != NULL, 0)) {
        modus_park_around.give_up = NULL;
        around.give_up(around.object);
    }
    return around;
}

static inline void modus_park_take_back(struct modus_park_around around)
{
    if (__builtin_expect(around.give_up == NULL, 1))
        return;
    around.take_back(around.object);
    modus_park_around = around;
}

/* How a coroutine's park differs from others. */
enum {
    MODUS_PARK_DEAF = 1, /* being cancelled does not end it */
    MODUS_PARK_ROBUST =
        2, /* the word is that of a robust mutex (lock.c): the kernel is told, so that
                              a wake-up does not die with who was woken */
};

/* How the calling thread sleeps while it runs a coroutine; else NULL. Set by the scheduler alone. */
extern _Thread_local int (*modus_park_instead)(enum modus_scope scope, _Atomic uint32_t *word,
                                               uint32_t expected, int64_t deadline,
                                               const struct modus_watch *watch, unsigned how)
    __attribute__((tls_model("initial-exec")));

/* The same for descriptors; NULL also says that the caller is no coroutine. */
extern _Thread_local int (*modus_park_fd_instead)(int fd, int events, int64_t deadline, int *ready)
    __attribute__((tls_model("initial-exec")));

/* Who sleeps between processes relies on somebody who buries the dead, and may itself be the only one
 * who would reap its children. So whoever is about to sleep so, or to have a doorbell rung, first has
 * this called, unless it is NULL: process_list.c sets it as long as there may be a child of whose
 * death nobody would hear, and sees to it. It returns false when that is not possible now.
 * Safe from: any thread and coroutine that may sleep. */
extern _Atomic(bool (*)(void)) modus_park_listen;

static inline bool modus_park_hears(void)
{
    bool (*see_to_it)(void) = atomic_load(&modus_park_listen);

    return !see_to_it || see_to_it();
}

#endif
