/* SPDX-License-Identifier: MIT */
/* Loops that a handler has blocked: a thread that waits for many connections serves none of them while
 * a handler's step, or a coroutine that does not wait, holds it. That is counted from 50 ms on, shown
 * in the status with the route, and said in the log once a minute.
 *
 * What is measured is the time that passed, and not the CPU's: a handler that sleeps or waits for a disk
 * blocks its loop as well as one that computes. But what the thread has spent runnable, waiting for a
 * CPU that others had, is no fault of the handler. The kernel counts that (/proc/thread-self/schedstat);
 * it is read every 50 ms at most while the loop is busy, and what has been added since the last reading
 * is taken off. So the machine is never taken for the handler; on a machine that is short of CPUs, a
 * step that held the loop for less than 100 ms may be missed. What a hypervisor takes, and the time that
 * the process was stopped by a signal, nobody sees, and it counts.
 *
 * It costs no system call and no reading of the clock that is not there already, for requests that are
 * answered in their first step. Not counted: `run` handlers of prefork, which hold their worker by design; what pool threads and helpers do; the wait
 * for the interpreter lock; TLS. The table is a listener's, since it is rarely written to.
 */
#ifndef SERVER_BLOCKED_H
#define SERVER_BLOCKED_H

#include <stdatomic.h>
#include <stdint.h>

#include "concurrency/lock.h"

struct net_thread;
struct route;
struct worker;

enum { BLOCKED_MS = 50, BLOCKED_ROUTE = 80, BLOCKED_HANDLER = 24 };

/* What has been seen of a listener; all but count under lock. */
struct blocked {
    struct modus_lock lock;
    _Atomic uint64_t count;
    uint64_t longest_ms, last_ms;
    int64_t at_ms; /* Unix time of the last one */
    char route[BLOCKED_ROUTE], handler[BLOCKED_HANDLER];
    int64_t said_ms; /* monotonic, of the last line; 0: none was written */
    uint64_t unsaid; /* since then */
};

/* One loop's look at itself. */
struct blocked_watch {
    const struct worker *worker;
    int fd; /* what the kernel counts of this thread; -1: not known */
    int64_t read_ms, waited_us;
};

void blocked_init(struct blocked *b);
void blocked_fini(struct blocked *b);
/* Add what from has seen. Safe from: any process. */
void blocked_add(struct blocked *to, struct blocked *from);

/* Watch the calling thread, which steps with t, until blocked_stop(). Safe from: its thread, as the
 * calls below. */
void blocked_start(struct blocked_watch *w, const struct worker *worker, struct net_thread *t);
void blocked_stop(struct blocked_watch *w, struct net_thread *t);
/* Something held the thread for so long. */
void blocked_by(struct blocked_watch *w, const struct route *route, int64_t ms);
void blocked_read(struct blocked_watch *w, int64_t now_ms);
/* Once a turn, before it serves. */
static inline void blocked_turn(struct blocked_watch *w, int64_t now_ms)
{
    if (now_ms - w->read_ms >= BLOCKED_MS)
        blocked_read(w, now_ms);
}

#endif
