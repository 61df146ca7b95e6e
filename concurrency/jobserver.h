/* SPDX-License-Identifier: MIT */
/*
 * Jobserver: a client of GNU make's. A program that make -jN has started, and that itself does
 * several things at a time, asks make before each one, so that all of them together are at most N.
 *
 *     struct modus_jobserver *make;
 *     if (modus_jobserver_open(&make, NULL) < 0)               // not below make -j
 *         return work_with(sysconf(_SC_NPROCESSORS_ONLN));
 *     ...
 *     modus_jobserver_acquire(make, MODUS_FOREVER);            // in as many threads as one likes
 *     compile(file);
 *     modus_jobserver_release(make);
 *     ...
 *     modus_jobserver_close(make);
 *
 * The protocol (GNU make's manual, "POSIX Jobserver Interaction"): make fills a pipe with N - 1
 * bytes. Who reads one may run one more job, and writes the same byte back after it. One job each
 * process has without asking, because make has started it: the first acquire takes that one. A
 * process that starts another which is a client of its own acquires for it.
 *
 * A program is told of the jobserver by MAKEFLAGS. Where that names a FIFO (make 4.4), all can open
 * it. The two descriptors of a pipe (make before, or --jobserver-style=pipe) only those have whose
 * line in the makefile is marked with a +, or has $(MAKE) in it; and their children that inherit
 * both, as those of subprocess.h do not.
 *
 * Waiting is by poll, in a coroutine by its loop, and what others have open stays as it is: here the
 * pipe is opened once more, does not block, and is closed on exec. An idle handle costs nothing;
 * when a byte comes back, all clients that wait are woken, as make's own are.
 *
 * A handle belongs to the process that opened it: in a forked child it is -ECHILD, and only to be
 * closed. What a process holds goes back when it closes the handle, or exits (exit, or main's end).
 *
 * What one holds that is killed, or ends by _exit, is lost to make and all its clients: a byte in a
 * pipe has no owner whom anybody could ask after. The others go on with fewer jobs then (each
 * process always has its own), and make complains at its end. Permits that come back from the dead,
 * between the processes of one program, are the accounted kind of sem.h.
 */
#ifndef CONCURRENCY_JOBSERVER_H
#define CONCURRENCY_JOBSERVER_H

#include "concurrency/result.h"

struct modus_jobserver;

/* Open the jobserver that flags tell of; NULL: the environment's MAKEFLAGS. Returns 0, -ENOENT (they
 * tell of none, or of a path where nothing is), -EBADF (of descriptors that are not the two ends of
 * a pipe, for lack of the + perhaps, or of a path that is no FIFO), -EACCES, -EINVAL (they make no
 * sense), -ENOMEM, -EMFILE or -ENFILE. Does not block.
 * Safe from: any thread, while none changes the environment. */
int modus_jobserver_open(struct modus_jobserver **server, const char *flags);

/* Give all back that is held, and close. NULL is legal.
 * Safe from: the one thread that still uses the handle; a forked child, which gives nothing back. */
void modus_jobserver_close(struct modus_jobserver *server);

/* Be allowed one job more, waiting up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not
 * wait), or until an absolute CLOCK_MONOTONIC time. Returns 0, -EAGAIN (ns 0), -ETIMEDOUT,
 * MODUS_CANCELED (a coroutine), -ECHILD, -ENOMEM or -EINVAL. The pipe keeps no order among those
 * who wait. Blocks.
 * Safe from: any thread and coroutine of the process that opened it. */
int modus_jobserver_acquire(struct modus_jobserver *server, int64_t ns);
int modus_jobserver_acquire_until(struct modus_jobserver *server, int64_t deadline);

/* A job has ended: one goes back, the process's own as the last. Returns 0, -EPERM (none is held),
 * -ECHILD, or -EAGAIN (others have filled the pipe with what was never in it). Does not block.
 * Safe from: any thread of the process that opened it, signal handlers. */
int modus_jobserver_release(struct modus_jobserver *server);

/* How many the process holds now, its own one too. Does not block.
 * Safe from: any thread, signal handlers; in a forked child 0. */
unsigned modus_jobserver_held(const struct modus_jobserver *server);

#endif
