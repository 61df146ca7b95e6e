/* SPDX-License-Identifier: MIT */
/*
 * Participants: who uses the process-scope objects of an arena, and who of them is dead.
 *
 * A killed process leaves claims behind: a slot of a queue half written, a permit taken. Claims are
 * signed with the claimer's id, the number of a slot in the arena's table. Every thread that puts
 * into or gets from a process-scope queue, or takes permits of an accounted semaphore, joins first;
 * one slot a thread. Locks, events and plain semaphores need no joining.
 *
 *     if (fork() == 0) {
 *         modus_participant_join(arena);       // the parent's identity is not ours
 *         work();
 *         modus_participant_leave(arena);
 *         _exit(0);
 *     }
 *     waitpid(pid, &status, 0);
 *     modus_participant_bury(arena, pid);      // mend what it left, wake who waits for it
 *
 * Processes of process.h, and so the workers of a pool, are buried by whoever reaps them; and one who
 * waits for what they had need not do that: as long as somebody may, a thread reaps them (process.h).
 * Children of a plain fork are reaped by the program alone, and so it has to bury: after each waitpid,
 * by modus_participant_bury, or modus_participant_bury_everywhere where the arenas are not known. A
 * program in which the only thread that would do that waits for the dead one waits for ever.
 *
 * States of a slot: free -> live -> (leaving or dead) -> free, with the generation counted up.
 * Liveness is a robust mutex that the thread holds from join to leave: the kernel marks it when the
 * thread ends in any way, and no reuse of a pid can make the dead look alive.
 *
 * Burying a dead slot scrubs its claims out of every object of the arena (unfinished puts are
 * dropped, taken items lost or given again, permits refunded), then moves the death epoch, which
 * wakes everybody who sleeps on an object of the arena, and only then frees the slot: an id is
 * never used again while a claim signed with it exists. The supervisor buries after reaping;
 * whoever is stopped by a dead one's claim finds out and buries too. Without a supervisor that
 * buries, a wake-up that died with its carrier is made up for only by the next one.
 */
#ifndef CONCURRENCY_PARTICIPANT_H
#define CONCURRENCY_PARTICIPANT_H

#include <stdbool.h>
#include <sys/types.h>

#include "concurrency/arena.h"
#include "concurrency/doorbell.h"

/* Enter the calling thread into the table. Returns its id (1 and up), also when it has joined
 * already; -EUSERS when the table is full of living ones (its size is the arena's), or -EOVERFLOW
 * when the thread holds as many process-scope locks as it may (lock.h). May wait briefly for others
 * that join, leave or bury.
 * Safe from: any thread, any process, a forked child (which gets an id of its own). */
int modus_participant_join(struct modus_arena *arena);

/* End the calling thread's part: whatever it still holds is treated as a dead one's. Returns 0,
 * -EPERM when it has not joined, or -ECHILD when a parent has.
 * Safe from: any thread, any process, a forked child. A thread that ends without leaving counts as
 * dead. */
int modus_participant_leave(struct modus_arena *arena);

/* The calling thread's id, or -EPERM when it has not joined, or -ECHILD when only its parent,
 * before the fork, has. Does not block.
 * Safe from: any thread, any process, a forked child, signal handlers. */
int modus_participant_self(struct modus_arena *arena);

/* Bury the dead participants of a process (pid 0: of all), and wake everybody who sleeps in the
 * arena, and every armed loop, to look again. Call it after every wait for a child that was killed,
 * whether it had joined or not, or that ended without leaving; one that left, or never joined, and
 * then exited has nothing to bury. It looks at every slot of every process-scope queue of the arena
 * for each that is buried. Returns how many were buried. May wait briefly.
 * Safe from: any thread and process; joined or not. */
int modus_participant_bury(struct modus_arena *arena, pid_t pid);

/* The same in every open arena of this process; killed: not ended by itself, so whoever sleeps is
 * woken though nobody was buried. A process of process.h has this done by whoever reaps it.
 * Safe from: any thread and process; joined or not. */
void modus_participant_bury_everywhere(pid_t pid, bool killed);

/* Is the participant with that id alive? It may have died since. Does not block.
 * Safe from: any thread and process. */
bool modus_participant_alive(struct modus_arena *arena, int id);

/* What the table says about a slot. */
struct modus_participant {
    int id;
    pid_t pid;
    pid_t tid;
    unsigned generation;
    struct modus_doorbell *bell; /* NULL: none */
};

/* Read slot id (1 to the arena's number of participants). Returns 0, -EINVAL, or -EAGAIN when the
 * slot is free. Does not block. Safe from: any thread and process. */
int modus_participant_look(struct modus_arena *arena, int id, struct modus_participant *out);

/* Tell others the calling thread's doorbell; it lies in shared memory and was initialised before
 * the fork. Returns 0, -EPERM or -ECHILD. */
int modus_participant_set_bell(struct modus_arena *arena, struct modus_doorbell *bell);

#endif
