/* SPDX-License-Identifier: MIT */
/*
 * Deadlock detection: who holds what, who waits for what, and whether that can ever end.
 *
 * It is switched on at run time, and then sees every plain, recursive and readers-writer lock of the
 * process, and does three things.
 *
 * - Wait-for graph. Who is about to wait without an end for a lock whose holder waits, perhaps through
 *   others, for something that the caller holds, closes a cycle. It is reported: the name of each
 *   thread or coroutine, and that of its process unless it is the program's own, ids, all that it
 *   holds, what it waits for, and the code that acquired each. In the mode MODUS_DEADLOCK_REFUSE the
 *   acquire that would close the cycle returns -EDEADLK besides, and the program goes on. Waits with
 *   a time end by themselves and close no cycle.
 * - Order graph, in debug builds or if asked for. Lock B acquired while A is held, here, and A
 *   while B is held, there, by whatever thread and whenever, will deadlock some day: that is reported
 *   the first time, although nothing hangs. So is a longer way round. It says nothing of locks that
 *   were only tried.
 * - modus_deadlock_dump writes down who holds and who waits, since when, from code where.
 *
 *     modus_deadlock_watch(&(struct modus_deadlock_attr){.mode = MODUS_DEADLOCK_REPORT});
 *     modus_deadlock_name(&accounts, "accounts");
 *
 * With an arena, the threads of all processes that are forked later are in one graph, and so are
 * their locks of process scope. Who is killed is out of it: cycles through the dead are not reported.
 * Coroutines count as threads do.
 *
 * What was acquired before it was switched on is not known. Locks with the same name are a class: the
 * order graph then knows the class and not the lock, but for two locks of one class, whose own order
 * counts. At most 256 threads hold locks at the same time, 16 each, and 1024 orders are remembered;
 * what is beyond is left out, and counted.
 *
 * Off, it costs a lock that is not contended nothing; on, an acquire costs a few hundred ns.
 *
 * Addresses of code are printed as function+offset if the dynamic linker knows the function (link
 * with -rdynamic), else (and in a dump always) as file+offset, for addr2line -e file. They point
 * behind the call.
 *
 * Algorithm: wait-for graph as in databases; order graph as in Linux lockdep and Abseil.
 */
#ifndef CONCURRENCY_DEADLOCK_H
#define CONCURRENCY_DEADLOCK_H

#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/result.h"

enum modus_deadlock_mode {
    MODUS_DEADLOCK_OFF,
    MODUS_DEADLOCK_REPORT, /* say so, and wait all the same */
    MODUS_DEADLOCK_REFUSE, /* say so, and return -EDEADLK to the one that would close the cycle */
};

enum modus_deadlock_order {
    MODUS_ORDER_IN_DEBUG, /* watch it in debug builds (MODUS_DEBUG) */
    MODUS_ORDER_NO,
    MODUS_ORDER_YES,
};

struct modus_deadlock_attr {
    enum modus_deadlock_mode mode;
    enum modus_deadlock_order order;
    struct modus_arena *arena; /* for several processes; NULL: this one alone */
    /* Gets each report, some lines of text, borrowed, in the thread that it is about, which holds
     * what the report says. Locks that it acquires are not watched. NULL: written to stderr. */
    void (*report)(const char *text, void *context);
    void *context;
};

/* Switch it on, forgetting what was known; or off (attr NULL, or that mode). Returns 0, -EINVAL, or
 * -ENOMEM. Children inherit it; before they are forked is the time to call it, and before threads
 * are started. Switch it off before the arena is closed. Does not block.
 * Safe from: one thread. */
int modus_deadlock_watch(const struct modus_deadlock_attr *attr);

/* Name a lock of any kind in this process's reports; the text is borrowed as long as the name stands.
 * NULL, or the end of the lock while the detector is on, takes the name away. Returns 0, -EINVAL (no
 * object) or -EOVERFLOW (64 names already). Does not block. Safe from: any thread. */
int modus_deadlock_name(const void *lock, const char *name);

/* Write down all that is known now. It takes no lock: what changes meanwhile may be seen half.
 * Does not block but for the descriptor. Safe from: any thread, signal handlers, a forked child. */
void modus_deadlock_dump(int fd);

struct modus_deadlock_stats {
    uint64_t cycles;    /* reported */
    uint64_t orders;    /* wrong ones, reported */
    uint64_t untracked; /* acquisitions and orders for which there was no room */
};

/* Of all processes that share the graph, since it was switched on; with an arena, until it is switched
 * off. Safe from: any thread. */
struct modus_deadlock_stats modus_deadlock_stats(void);

#endif
