/* SPDX-License-Identifier: MIT */
/*
 * Fault hooks: die, stop or dawdle at a chosen point of a process-scope algorithm.
 *
 * Each window in which a death would hurt has a number, and MODUS_FAULT(point) stands in it. A test
 * plans one fault and forks; the child that passes the point for the nth time is killed (or
 * stopped, or delayed) there.
 *
 *     modus_fault_plan(MODUS_FAULT_PUT_CLAIMED, MODUS_FAULT_DIE, 3);   // at the third passing
 *     modus_queue_put(&queue, &item, MODUS_FOREVER);
 *
 * The hooks are always compiled in: what is tested is what is shipped. Without a plan a hook is a
 * load and a branch that is never taken; the fast paths between threads have none. Only
 * modus_fault_plan arms them, never the environment.
 *
 * For implementers, and their tests.
 */
#ifndef CONCURRENCY_FAULT_H
#define CONCURRENCY_FAULT_H

#include <stdatomic.h>
#include <stdint.h>

#define MODUS_FAULTS(X)                                                                            \
    X(ALLOC_READ, "top of the free list and its link read")                                        \
    X(ALLOC_POPPED, "block off the free list, not yet marked")                                     \
    X(ALLOC_CARVED, "page taken, blocks not yet on the free list")                                 \
    X(FREE_MARKED, "block marked free, not yet on the list")                                       \
    X(JOIN_HELD, "liveness held, slot still free")                                                 \
    X(JOIN_LIVE, "slot live, the registry still held")                                             \
    X(LEAVE_MARKED, "slot marked leaving, claims not yet scrubbed")                                \
    X(BURY_FOUND, "found dead, claims not yet scrubbed")                                           \
    X(BURY_SCRUBBED, "claims scrubbed, epoch not yet moved")                                       \
    X(BURY_MOVED, "epoch moved, slot not yet free")                                                \
    X(LOCK_PASSED, "about to give the lock up: no heir seen")                                      \
    X(LOCK_GRANTING, "heir's name taken, lock not yet its own")                                    \
    X(BELL_CLAIMED, "doorbell marked ringing, not yet written")                                    \
    X(BELL_READ, "descriptor read, doorbell not yet quiet")                                        \
    X(ACTOR_CLAIMED, "detector's record claimed, not yet filled in")                               \
    X(SEM_TAKEN, "permit taken")                                                                   \
    X(SEM_LOCKED, "holding the lock of an accounted semaphore")                                    \
    X(SEM_NOTED, "held count changed, value not yet")                                              \
    X(SEM_RELEASED, "value raised, nobody woken yet")                                              \
    X(EVENT_SET, "flag set, nobody woken yet")                                                     \
    X(RWLOCK_NOTED, "noted as a reader, writer's mark not yet looked at")                          \
    X(RWLOCK_MARKED, "readers kept out, not yet waited for")                                       \
    X(RWLOCK_CLEARED, "writer done, lock not yet released")                                        \
    X(RWLOCK_LATE, "writer's time over, readers not yet let in")                                   \
    X(PUT_AIMED, "tail read, slot not yet")                                                        \
    X(PUT_LOOKED, "slot seen empty, not yet claimed")                                              \
    X(PUT_CLAIMED, "slot claimed, tail not yet moved")                                             \
    X(PUT_HELPED, "tail moved, nothing copied")                                                    \
    X(PUT_COPIED, "copied, not yet published")                                                     \
    X(PUT_PUBLISHED, "published, nobody woken yet")                                                \
    X(GET_CLAIMED, "slot claimed, head not yet moved")                                             \
    X(GET_HELPED, "head moved, nothing copied")                                                    \
    X(GET_COPIED, "copied, not yet noted")                                                         \
    X(GET_NOTED, "noted as held, slot not yet free")                                               \
    X(GET_FREED, "slot freed, nobody woken yet")                                                   \
    X(STOCK_LOCKED, "holding the lock of a queue that is no ring")                                 \
    X(STOCK_CHANGED, "slot changed, what follows from it not yet")                                 \
    X(PIPE_SENT, "packet of a message sent, the rest not yet")                                     \
    X(PIPE_TAKEN, "packet of a message taken, the rest not yet")                                   \
    X(DONE_NOTED, "task done, joiners not yet woken")                                              \
    X(JOIN_SCANNED, "slots seen without items, held counts not yet")                               \
    X(CLOSE_MARKED, "closed, nobody woken yet")                                                    \
    X(WAKE_CLAIMED, "about to wake a sleeper, mark set")                                           \
    X(WAKE_PASSED, "woken, before the wake is passed on")                                          \
    X(PARK_MARKED, "mark set, about to sleep")                                                     \
    X(TASK_GOT, "number of a task got, its record not yet claimed")                                \
    X(TASK_CLAIMED, "task claimed, its number not yet given back")                                 \
    X(TASK_BEGUN, "number given back, about to run the task")                                      \
    X(TASK_ANSWERED, "task answered, nobody told yet")                                             \
    X(TASK_SLOW, "slow task got, no slot looked for yet")                                          \
    X(TASK_WITHDRAWN, "task cancelled, its future not yet taken")                                  \
    X(STORE_OWNED, "owning a store, nothing looked at yet")                                        \
    X(STORE_NOTED, "old word noted, not yet changed")                                              \
    X(STORE_CHANGED, "word changed, not committed")                                                \
    X(STORE_SHIFTED, "word shifted, the hole's place not yet")                                     \
    X(STORE_COMMITTED, "committed, still owning the store")                                        \
    X(STORE_UNDOING, "word put back, its note still there")                                        \
    X(ARRAY_NOTED, "old element noted, not yet changed")                                           \
    X(ARRAY_CHANGED, "element changed, the note still there")                                      \
    X(CLIENT_CALLS, "about to send a request to a manager")                                        \
    X(CLIENT_SENT, "header of a request sent")                                                     \
    X(CLIENT_ASKED, "request sent, no answer read")                                                \
    X(CLIENT_ANSWERED, "answer read, not acknowledged")                                            \
    X(SHM_WHOLE, "block whole, no name yet")                                                       \
    X(SHM_NAMED, "named, the maker not yet told")                                                  \
    X(SHM_FOUND, "name found and opened, nothing looked at yet")                                   \
    X(SHM_UNUSED, "nobody has the block, the name still there")

enum modus_fault_point {
    MODUS_FAULT_NONE,
#define X(name, window) MODUS_FAULT_##name,
    MODUS_FAULTS(X)
#undef X
        MODUS_FAULT_COUNT,
};

enum modus_fault_action {
    MODUS_FAULT_DIE,   /* SIGKILL */
    MODUS_FAULT_STOP,  /* SIGSTOP */
    MODUS_FAULT_DELAY, /* 2 ms */
};

extern _Atomic int modus_fault_planned; /* the point; MODUS_FAULT_NONE: nothing planned */

/* Plan one fault for this process (and what it forks): action at the nth passing of point, n from
 * 1; 0: at every passing. MODUS_FAULT_NONE cancels. Safe from: one thread. */
void modus_fault_plan(enum modus_fault_point point, enum modus_fault_action action, unsigned n);

/* How often the planned point has been passed by this process. */
unsigned modus_fault_passed(void);

/* The point's name and window, for messages. */
const char *modus_fault_name(enum modus_fault_point point);

void modus_fault_strike(void); /* only MODUS_FAULT calls it */

#define MODUS_FAULT(point)                                                                         \
    do {                                                                                           \
        if (__builtin_expect(atomic_load_explicit(&modus_fault_planned, memory_order_relaxed) ==   \
                                 (int)(point),                                                     \
                             0))                                                                   \
            modus_fault_strike();                                                                  \
    } while (0)

#endif
