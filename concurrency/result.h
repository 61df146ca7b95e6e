/* SPDX-License-Identifier: MIT */
/*
 * Results and time: what every call of the toolbox returns and how long it waits.
 *
 * A fallible function returns 0, or a negative code; MODUS_OWNERDEAD alone is positive, because it
 * is a success with news. A code is either a negated errno value (where POSIX has the right word)
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
 * tries, any other negative value is -EINVAL. Every waiting call has a twin ending in _until that
 * takes an absolute CLOCK_MONOTONIC time (or MODUS_FOREVER).
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
    X(-EAGAIN, "EAGAIN", "not possible without waiting")                                           \
    X(-EINVAL, "EINVAL", "an argument is not valid, or the object is not started")                 \
    X(-EPERM, "EPERM", "the caller does not own this")                                             \
    X(-EDEADLK, "EDEADLK", "the caller would wait for itself")                                     \
    X(-EOVERFLOW, "EOVERFLOW", "more given back than was taken, or a table is full")               \
    X(-ENOMEM, "ENOMEM", "out of memory")                                                          \
    X(-ECHILD, "ECHILD", "the identity belongs to the parent: join again after fork")              \
    X(-ESRCH, "ESRCH", "not started")                                                              \
    X(-EALREADY, "EALREADY", "started already")                                                    \
    X(-EBUSY, "EBUSY", "still in use")                                                             \
    X(MODUS_EMPTY, "EMPTY", "nothing in the queue")                                                \
    X(MODUS_FULL, "FULL", "no room in the queue")                                                  \
    X(MODUS_CLOSED, "CLOSED", "closed")                                                            \
    X(MODUS_BROKEN, "BROKEN", "broken: a party is missing")                                        \
    X(MODUS_CANCELED, "CANCELED", "interrupted by another thread or process")                      \
    X(MODUS_WORKERDIED, "WORKERDIED", "the worker died before it answered")                        \
    X(MODUS_NOTRECOVERABLE, "NOTRECOVERABLE", "an owner died and nobody repaired what it left")    \
    X(MODUS_TOO_LATE, "TOO_LATE", "it has happened already, or is happening")                      \
    X(MODUS_OWNERDEAD, "OWNERDEAD", "acquired, but the previous owner died while holding")

/* The sentence for a result, in static memory; never NULL, also for codes that are not in the
 * list. Does not block.
 * Safe from: any thread, signal handlers, a forked child. */
const char *modus_strresult(int result);

/* The name of a result ("ETIMEDOUT", "CLOSED"), in static memory; never NULL.
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
