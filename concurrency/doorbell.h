/* SPDX-License-Identifier: MIT */
/*
 * Doorbell: lets an event loop wait for the toolbox's objects.
 *
 * A loop cannot sleep on a futex; it sleeps in epoll. A doorbell is a descriptor (an eventfd) for
 * that, one for each loop, and every object that a loop cares about is *armed* with it: event,
 * semaphore, queue (either direction). Whoever then sets, releases, puts or gets rings the armed
 * doorbells, and pays one load when none is armed, and no system call when the bell has rung
 * already and the loop has not yet heard it. A bell says "look again", never "this happened".
 *
 *     modus_queue_arm_get(&queue, &bell);         // once; then look at the queue
 *     ... epoll says modus_doorbell_fd(&bell) is readable:
 *     modus_doorbell_hear(&bell);                 // first hear,
 *     while (modus_queue_try_get(&queue, &item) == 0)  // then look: this order loses nothing
 *         serve(item);
 *
 * States: not started -> quiet -> ringing -> rung -> (heard) quiet. "ringing" is the moment between
 * the claim to ring and the write; whoever meets it rings too, because a process may be killed
 * there.
 *
 * Between processes the doorbell lies in shared memory, and it must be initialised before the fork
 * of every process that rings it, so that the descriptor has the same number everywhere. A worker
 * that replaces a dead one takes over its doorbell and begins with modus_doorbell_hear. When a
 * death is buried (participant.h), every doorbell armed in the arena is rung.
 *
 * After the eventfd idea of ck's event count with pluggable wake-ups; the arm-then-look order is
 * Dekker's.
 */
#ifndef CONCURRENCY_DOORBELL_H
#define CONCURRENCY_DOORBELL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/park.h"
#include "concurrency/result.h"

/* All fields are private. */
struct modus_doorbell {
    _Atomic uint32_t state;
    uint32_t started;
    int fd;                 /* valid only when started */
    uint64_t device, inode; /* what it is the number of */
};

/* Make a quiet doorbell with its own descriptor (close-on-exec, non-blocking). Returns 0, or
 * -ENOMEM when there are no more descriptors (or memory). Does not block.
 * Safe from: the one thread that makes the object. */
int modus_doorbell_init(struct modus_doorbell *bell);

/* Close the descriptor of this process. Disarm it everywhere first. Does nothing to a doorbell that
 * is not started.
 * Safe from: the one thread that owns it. In process scope one process calls this; the others may
 * close their descriptor, modus_doorbell_fd, and can't ring from then on. What they open under its
 * number is left alone, unless it is another eventfd, which the system can't tell from the bell's. */
void modus_doorbell_fini(struct modus_doorbell *bell);

/* Make the loop look again. No system call when it has been called already. Does not block; errno
 * is kept.
 * Safe from: any thread, signal handlers; any process forked after the init. */
void modus_doorbell_ring(struct modus_doorbell *bell);

/* Be called: the doorbell is quiet again. Look at every armed object after this, not before. Does
 * not block.
 * Safe from: the owning loop only. */
void modus_doorbell_hear(struct modus_doorbell *bell);

/* The descriptor to poll for reading (never read it oneself); -1 when not started. */
int modus_doorbell_fd(const struct modus_doorbell *bell);

/* --- for the objects that can be armed ------------------------------------------------------- */

enum { MODUS_ARMED_MAX = 64 };

struct modus_armed_table;

/* The doorbells armed on one side of one object; zeroed is "none". All fields are private. */
struct modus_armed {
    _Atomic uint64_t bits;    /* entries of the table in use; 0: nobody to ring */
    _Atomic uint32_t ringing; /* ringers inside; a disarm waits for them (thread scope) */
    _Atomic(struct modus_armed_table *) table;
};

/* Arm: at most 64 doorbells a side. Arming twice is once. Returns 0, -EINVAL (bell not started, or
 * a process-scope object outside of any arena), -EOVERFLOW (64 already) or -ENOMEM. */
int modus_armed_add(struct modus_armed *armed, struct modus_doorbell *bell, enum modus_scope scope);

/* Disarm; in thread scope no ring is under way when it returns. Does nothing if not armed. */
void modus_armed_remove(struct modus_armed *armed, struct modus_doorbell *bell,
                        enum modus_scope scope);

void modus_armed_ring_all(struct modus_armed *armed);
void modus_armed_fini(struct modus_armed *armed, enum modus_scope scope);

/* Ring every armed doorbell. Call it after the change is visible (a seq_cst operation). */
static inline void modus_armed_ring(struct modus_armed *armed)
{
    if (__builtin_expect(atomic_load(&armed->bits) != 0, 0))
        modus_armed_ring_all(armed);
}

#endif
