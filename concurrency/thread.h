/* SPDX-License-Identifier: MIT */
/*
 * Thread: a handle that anybody may wait for, as often as they like, and for as long as they like.
 *
 * pthread_join may be called once, by one, and waits for ever; a thread has no name of more than 15
 * characters, and the end of main ends them all. This handle mends that.
 *
 * States: new -> running -> ended (its function has returned, or called pthread_exit: then its result
 * is NULL) -> joined (nothing of it is left).
 *
 *     struct modus_thread *thread;
 *     modus_thread_new(&thread, &(struct modus_thread_attr){.name = "reader"}, read_all, &file);
 *     modus_thread_start(thread);
 *     rc = modus_thread_join(thread, modus_ms(500), &result);     // 0, or -ETIMEDOUT: still running
 *     modus_thread_put(thread);                                   // it may run on
 *
 * A handle is counted: modus_thread_new gives one reference, each modus_thread_get another, and a
 * running thread holds one itself.
 *
 * Daemon threads are those that the end of the program does not wait for: modus_main calls the
 * program's main function, then waits for all other threads, then exits. A thread is a daemon if
 * the one that made it is, unless the attributes say otherwise.
 *
 * After a fork the child has one thread; a handle of the parent's threads is -ECHILD there.
 */
#ifndef CONCURRENCY_THREAD_H
#define CONCURRENCY_THREAD_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/result.h"

struct modus_thread;

enum modus_daemon {
    MODUS_DAEMON_INHERIT, /* as the thread that makes it */
    MODUS_DAEMON_NO,
    MODUS_DAEMON_YES,
};

struct modus_thread_attr {
    const char *name; /* copied, up to 63 bytes; NULL: "Thread-1" and so on */
    enum modus_daemon daemon;
    size_t stack;              /* bytes; 0: the system's (ulimit -s) */
    const cpu_set_t *affinity; /* CPUs that it may use, read by start; NULL: those of its maker */
    bool no_signals; /* blocked, but for those of its own crashes: they are for other threads */
};

/* Make a thread that is not started yet. attr may be NULL; run and its argument are borrowed until
 * the thread has ended. Returns 0, -EINVAL (no run) or -ENOMEM. Does not block.
 * Safe from: any thread. */
int modus_thread_new(struct modus_thread **thread, const struct modus_thread_attr *attr,
                     void *(*run)(void *argument), void *argument);

/* Start it. Returns 0, -EALREADY (it has been), -EAGAIN (the system has no room for one more: see
 * RLIMIT_NPROC and threads-max; it may be tried again), -EINVAL (stack or affinity) or -ECHILD.
 * Does not block. Safe from: any thread. */
int modus_thread_start(struct modus_thread *thread);

/* Wait up to ns nanoseconds (MODUS_FOREVER: without end, 0: only look) until it has ended and
 * nothing of it is left; *result, unless NULL, becomes what run returned. By any number of threads,
 * any number of times. Returns 0, -EAGAIN (ns 0 and still running), -ETIMEDOUT, -ESRCH (not
 * started, or the start fails meanwhile), -EDEADLK (the caller is that thread), -ECHILD, -EINVAL, or
 * MODUS_CANCELED (the calling coroutine is). Blocks; once run has returned, until the destructors of
 * the thread's own variables have, even if ns is 0.
 * Safe from: any thread. */
int modus_thread_join(struct modus_thread *thread, int64_t ns, void **result);
int modus_thread_join_until(struct modus_thread *thread, int64_t deadline, void **result);

/* One reference more, or one less; with the last the handle is gone. NULL is legal.
 * Safe from: any thread. */
struct modus_thread *modus_thread_get(struct modus_thread *thread);
void modus_thread_put(struct modus_thread *thread);

/* Change what new was told. Returns 0, or -EBUSY when it has been started.
 * Safe from: the thread that starts it. */
int modus_thread_set_daemon(struct modus_thread *thread, bool daemon);

/* The calling thread's handle, borrowed; never NULL. The main thread's is called "MainThread", and
 * one that was not made here is called "Foreign"; neither can be joined (-EINVAL).
 * Safe from: any thread. */
struct modus_thread *modus_thread_self(void);

/* Is it started, and has not ended? Safe from: any thread. */
bool modus_thread_alive(const struct modus_thread *thread);
bool modus_thread_is_daemon(const struct modus_thread *thread);
/* In the handle's memory. Safe from: any thread. */
const char *modus_thread_name(const struct modus_thread *thread);
/* The kernel's id, as in /proc and gettid; 0: not started. Used again after the end. */
int modus_thread_tid(const struct modus_thread *thread);

/* Wait until every thread that is no daemon has ended, those that come meanwhile too, but for the
 * caller. Blocks. Safe from: any one thread. */
void modus_thread_join_all(void);

/* Run a program: modus_process_child (process.h), main, modus_thread_join_all,
 * modus_process_join_all, then exit(3) with what main returned. Daemon processes are terminated when
 * the threads have been joined, daemon threads vanish at the exit. Does not return.
 *
 *     int main(int argc, char **argv) { modus_main(program, argc, argv); } */
_Noreturn void modus_main(int (*main)(int argc, char **argv), int argc, char **argv);

#endif
