/* SPDX-License-Identifier: MIT */
/*
 * Futex back-ends of the parking layer.
 *
 * Only absolute CLOCK_MONOTONIC deadlines go to the kernel (FUTEX_WAIT_BITSET, futex_waitv), so a
 * sleep that is cut short by a signal goes on with the same deadline. EINTR counts as a wake-up
 * without reason: the caller looks again anyway.
 *
 * A coroutine does not sleep here: its scheduler takes its park over, and puts it into the lot, where
 * an unpark between threads looks first (lot.h), and for whom a thread sleeps on words that processes
 * share (proxy.h). That is why callers pass only (word, expected, deadline) and never see a futex.
 */
#include "concurrency/park.h"
#include "concurrency/lot.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

enum { RECHECK_NS = 1000000000 };

/* The kernel's struct futex_waitv, absent from older headers. */
struct waited {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

static int result_of(long rc)
{
    return rc < 0 && errno == ETIMEDOUT ? -ETIMEDOUT : 0;
}

static int futex_wait(_Atomic uint32_t *word, int flags, uint32_t expected, int64_t deadline)
{
    struct timespec until = timespec_of(deadline);

    return result_of(syscall(SYS_futex, word, FUTEX_WAIT_BITSET | flags, expected,
                             deadline == MODUS_FOREVER ? NULL : &until, NULL,
                             FUTEX_BITSET_MATCH_ANY));
}

static int futex_wake(_Atomic uint32_t *word, int flags, int n)
{
    long woken = syscall(SYS_futex, word, FUTEX_WAKE | flags, n, NULL, NULL, 0);

    return woken < 0 ? 0 : (int)woken;
}

static int private_park(_Atomic uint32_t *word, uint32_t expected, int64_t deadline,
                        const struct modus_watch *watch)
{
    (void)watch; /* the threads of a process die together */
    return futex_wait(word, FUTEX_PRIVATE_FLAG, expected, deadline);
}

static int private_unpark(_Atomic uint32_t *word, int n)
{
    return futex_wake(word, FUTEX_PRIVATE_FLAG, n);
}

/* Sleep a second at most; what happens at its end is the caller's second look, not a timeout. */
static int recheck_park(_Atomic uint32_t *word, uint32_t expected, int64_t deadline)
{
    int64_t look = modus_now_ns() + RECHECK_NS;

    if (deadline != MODUS_FOREVER && deadline <= look)
        return futex_wait(word, 0, expected, deadline);
    futex_wait(word, 0, expected, look);
    return 0;
}

_Atomic(bool (*)(void)) modus_park_listen;

static int shared_park(_Atomic uint32_t *word, uint32_t expected, int64_t deadline,
                       const struct modus_watch *watch)
{
    static _Atomic int missing; /* futex_waitv; being late in seeing it costs one more try */
    struct timespec until = timespec_of(deadline);
    long rc;

    if (!modus_park_hears() || !watch || !watch->epoch ||
        atomic_load_explicit(&missing, memory_order_relaxed))
        return recheck_park(word, expected, deadline);
    struct waited both[2] = {
        {.value = expected, .address = (uintptr_t)word, .flags = 2 /* FUTEX_32 */},
        {.value = watch->seen, .address = (uintptr_t)watch->epoch, .flags = 2},
    };
    rc = syscall(SYS_futex_waitv, both, 2, 0, deadline == MODUS_FOREVER ? NULL : &until,
                 CLOCK_MONOTONIC);
    if (rc < 0 && (errno == ENOSYS || errno == EPERM)) {
        atomic_store_explicit(&missing, 1, memory_order_relaxed);
        return recheck_park(word, expected, deadline);
    }
    return result_of(rc);
}

static int shared_unpark(_Atomic uint32_t *word, int n)
{
    return futex_wake(word, 0, n);
}

static const struct modus_park_ops backends[] = {
    [MODUS_THREAD] = {"private futex", private_park, private_unpark},
    [MODUS_PROCESS] = {"shared futex", shared_park, shared_unpark},
};

/* Of the thread, not of the process: a shared counter would cost more than it tells. */
static _Thread_local struct modus_park_stats stats;

struct modus_park_stats modus_park_stats(void)
{
    return stats;
}

_Thread_local int (*modus_park_instead)(enum modus_scope scope, _Atomic uint32_t *word,
                                        uint32_t expected, int64_t deadline,
                                        const struct modus_watch *watch, unsigned how);

_Thread_local struct modus_park_around modus_park_around;

static int park(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected, int64_t deadline,
                const struct modus_watch *watch, unsigned how)
{
    int saved = errno, rc;
    struct modus_park_around around = modus_park_give_up();

    if (modus_park_instead)
        rc = modus_park_instead(scope, word, expected, deadline, watch, how);
    else
        rc = backends[scope].park(word, expected, deadline, watch);
    stats.parks++;
    modus_park_take_back(around);
    errno = saved;
    return rc;
}

int modus_park(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected, int64_t deadline,
               const struct modus_watch *watch)
{
    return park(scope, word, expected, deadline, watch, 0);
}

int modus_park_deaf(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected,
                    int64_t deadline, const struct modus_watch *watch)
{
    return park(scope, word, expected, deadline, watch, MODUS_PARK_DEAF);
}

int modus_unpark(enum modus_scope scope, _Atomic uint32_t *word, int n)
{
    int saved = errno, woken = 0;

    if (scope == MODUS_THREAD && atomic_load(&modus_lot_count) > 0)
        woken = modus_lot_wake(word, n);
    if (woken < n)
        woken += backends[scope].unpark(word, n - woken);
    stats.unparks++;
    errno = saved;
    return woken;
}

/* --- descriptors ----------------------------------------------------------------------------- */

_Thread_local int (*modus_park_fd_instead)(int fd, int events, int64_t deadline, int *ready);

/* Returns what is left until deadline, at least 0; a call of ppoll takes no absolute time. */
static struct timespec left_until(int64_t deadline)
{
    int64_t now = modus_now_ns();

    return timespec_of(deadline > now ? deadline - now : 0);
}

/* A process that may have no descriptor at all (RLIMIT_NOFILE 0) is refused a poll of those that it has
 * (EINVAL), but not a select. As ppoll of one, without its sets' limit of 1024 descriptors. */
static int select_one(struct pollfd *look, struct timespec *left)
{
    enum { WORD = 8 * sizeof(unsigned long), SETS = 3 };
    size_t words = (size_t)look->fd / WORD + 1, at = words - 1;
    if (fcntl(look->fd, F_GETFD) < 0) { /* a select may overlook that */
        look->revents = POLLNVAL;
        return 1;
    }
    unsigned long bit = 1ul << (look->fd % WORD), *sets = calloc(SETS * words, sizeof *sets);
    unsigned long *in = sets, *out = sets + words, *special = out + words;

    if (!sets)
        return -1;
    in[at] = look->events & (POLLIN | POLLRDHUP) ? bit : 0;
    out[at] = look->events & POLLOUT ? bit : 0;
    special[at] = look->events & POLLPRI ? bit : 0;
    int n = (int)syscall(SYS_pselect6, look->fd + 1, in, out, special, left, NULL);
    if (n > 0)
        look->revents =
            (short)(((in[at] & bit ? POLLIN | POLLRDHUP : 0) | (out[at] & bit ? POLLOUT : 0) |
                     (special[at] & bit ? POLLPRI : 0)) &
                    look->events);
    int saved = errno;
    free(sets);
    errno = saved;
    return n;
}

static int poll_one(struct pollfd *look, struct timespec *left)
{
    int n = ppoll(look, 1, left, NULL);

    return n < 0 && errno == EINVAL ? select_one(look, left) : n;
}

static int poll_fd(int fd, int events, int64_t deadline, int *ready)
{
    struct pollfd look = {.fd = fd, .events = (short)events};
    int n;

    if (fd < 0)
        return -EINVAL; /* to ppoll that is one to be passed over */
    do {
        struct timespec left = left_until(deadline);

        n = poll_one(&look, deadline == MODUS_FOREVER ? NULL : &left);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n == 0 ? -ETIMEDOUT : -ENOMEM;
    if (look.revents & POLLNVAL)
        return -EINVAL;
    if (ready)
        *ready = look.revents;
    return 0;
}

int modus_park_fd(int fd, int events, int64_t deadline, int *ready)
{
    int saved = errno;
    struct modus_park_around around = modus_park_give_up();
    int rc = modus_park_fd_instead ? modus_park_fd_instead(fd, events, deadline, ready)
                                   : poll_fd(fd, events, deadline, ready);

    stats.parks++;
    modus_park_take_back(around);
    errno = saved;
    return rc;
}
