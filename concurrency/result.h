/* SPDX-License-Identifier: MIT */
/*
 * Results and time: what every call of the toolbox returns and how long it waits.
 *
 * A fallible function returns 0, or a negative code. Some return a count or an id from 0 on instead
 * of the 0, as their headers say; and acquiring a lock may return MODUS_OWNERDEAD, which is positive
 * because it is a success with news. So rc < 0 is the question to ask. A code is either a negated errno value (where POSIX has the right word)
 * or one of the project's own below -5000, so the two families never meet and a count of items or
 * bytes is never mistaken for either. errno itself never carries a result.
 *
 *     int rc = modus_queue_put(&queue, &job, modus_ms(200));
 *     if (rc == MODUS_CLOSED)
 *         return;
 *     if (rc < 0)
 *         log_error("put: %s", modus_strresult(rc));
 *
 * Time is int64_t nanoseconds. A duration is relative: MODUS_FOREVER waits without end, 0 only
 * tries, any other negative value is -EINVAL. A twin ending in _until, where there is one, takes an
 * absolute CLOCK_MONOTONIC time (or MODUS_FOREVER). No wait ends because of a signal: a handler sets
 * an event or rings a doorbell.
 */
#ifndef CONCURRENCY_RESULT_H
#define CONCURRENCY_RESULT_H

#include <errno.h>
#include <stdint.h>

#define MODUS_FOREVER ((int64_t)-1)

/* The project's own codes. */
enum modus_result {
    MODUS_EMPTY = -5001,
    MODUS_FULL = -5002,
    MODUS_CLOSED = -5003,
    MODUS_BROKEN = -5004,
    MODUS_CANCELED = -5005,
    MODUS_WORKERDIED = -5006,
    MODUS_NOTRECOVERABLE = -5007,
    MODUS_TOO_LATE = -5008,
    MODUS_OWNERDEAD = 1,
};

/* Every result: code, name, sentence. */
#define MODUS_RESULTS(X)                                                                           \
    X(0, "OK", "done")                                                                             \
    X(-ETIMEDOUT, "ETIMEDOUT", "the time is over")                                                 \
    X(-EAGAIN, "EAGAIN", "not possible now")                                                       \
    X(-EINVAL, "EINVAL", "an argument is not valid here, or the object is not ready for the call") \
    X(-EPERM, "EPERM", "not for this caller: not its owner, or not joined")                        \
    X(-EDEADLK, "EDEADLK", "the caller would wait for itself")                                     \
    X(-EOVERFLOW, "EOVERFLOW", "more than there is room for, or than was taken")                   \
    X(-ENOMEM, "ENOMEM", "out of memory")                                                          \
    X(-ECHILD, "ECHILD", "it is of the process that forked this one: join, or make one, here")     \
    X(-ESRCH, "ESRCH", "not started")                                                              \
    X(-EALREADY, "EALREADY", "started already")                                                    \
    X(-EBUSY, "EBUSY", "still in use")                                                             \
    X(-EUSERS, "EUSERS", "all places are taken, and there are as many as there will be")           \
    X(-EMFILE, "EMFILE", "this process has no descriptor left")                                    \
    X(-ENFILE, "ENFILE", "the system has no descriptor left")                                      \
    X(-EBADF, "EBADF", "the descriptor is not open")                                               \
    X(-ENOTDIR, "ENOTDIR", "part of the path is not a folder")                                     \
    X(-ENOEXEC, "ENOEXEC", "not a program that this machine can execute")                          \
    X(-E2BIG, "E2BIG", "arguments and environment are too long")                                   \
    X(-EEXIST, "EEXIST", "there is one already")                                                   \
    X(-ERANGE, "ERANGE", "larger than there is room for")                                          \
    X(-EPROTO, "EPROTO", "the other side speaks another protocol")                                 \
    X(-ESTALE, "ESTALE", "changed by another meanwhile")                                           \
    X(-ENOENT, "ENOENT", "there is none of that name or number")                                   \
    X(-EACCES, "EACCES", "not allowed for this user")                                              \
    X(-ENOSPC, "ENOSPC", "no space left for it")                                                   \
    X(-EMSGSIZE, "EMSGSIZE", "the message is longer than the room for it")                         \
    X(MODUS_EMPTY, "EMPTY", "nothing in the queue")                                                \
    X(MODUS_FULL, "FULL", "no room in the queue")                                                  \
    X(MODUS_CLOSED, "CLOSED", "closed")                                                            \
    X(MODUS_BROKEN, "BROKEN", "broken: a party is missing")                                        \
    X(MODUS_CANCELED, "CANCELED", "canceled, or interrupted")                                      \
    X(MODUS_WORKERDIED, "WORKERDIED", "the worker died before it answered")                        \
    X(MODUS_NOTRECOVERABLE, "NOTRECOVERABLE", "an owner died and nobody repaired what it left")    \
    X(MODUS_TOO_LATE, "TOO_LATE", "it has happened already, or is happening")                      \
    X(MODUS_OWNERDEAD, "OWNERDEAD", "acquired, but the previous owner died holding it")

/* The sentence for a result, in static memory; never NULL: a negated errno value that is not in the
 * list has the C library's sentence. What stands for a count or an id has none. Does not block.
 * Safe from: any thread, signal handlers, a forked child. */
const char *modus_strresult(int result);

/* The name of a result ("ETIMEDOUT", "CLOSED", "ECONNREFUSED"), in static memory; never NULL.
 * Safe from: any thread, signal handlers, a forked child. */
const char *modus_result_name(int result);

/* Now on CLOCK_MONOTONIC, in nanoseconds. Does not block.
 * Safe from: any thread, signal handlers, a forked child. */
int64_t modus_now_ns(void);

/* The absolute time that lies ns from now: MODUS_FOREVER stays so, the sum saturates. */
int64_t modus_deadline(int64_t ns);

static inline int64_t modus_us(int64_t microseconds)
{
    return microseconds * 1000;
}

static inline int64_t modus_ms(int64_t milliseconds)
{
    return milliseconds * 1000000;
}

static inline int64_t modus_seconds(int64_t seconds)
{
    return seconds * 1000000000;
}

#endif
