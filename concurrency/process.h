/* SPDX-License-Identifier: MIT */
/*
 * Process: a handle on a child, with the verbs of a thread (thread.h).
 *
 * fork and waitpid leave much to their users: children that nobody waits for stay as zombies, a pid
 * may be another's by the time it is signalled, children live on when their parent is killed, and
 * what stood in a stdio buffer is printed twice. This handle mends that.
 *
 * States: new -> running -> ended (and reaped: nothing of it is left but the handle).
 *
 *     static int count(void *file)
 *     {
 *         return lines_of(file) > 1000;                       // the exit code
 *     }
 *     struct modus_process *process;
 *     modus_process_new(&process, &(struct modus_process_attr){.name = "counter"}, count, file);
 *     modus_process_start(process);
 *     rc = modus_process_join(process, modus_ms(500), &code); // 0, or -ETIMEDOUT: still running
 *     modus_process_put(process);                             // it may run on
 *
 * A handle is counted, and a running process holds one reference itself. It belongs to the process
 * that made it: in a child every handle of the parent is -ECHILD, but for the child's own.
 *
 * Two ways to start:
 * - FORK: the child is a copy of the caller and runs the function on a pointer of its own memory.
 *   stdout and stderr are flushed before (in a program without threads, all streams are) and again
 *   by the child at its end, which is _exit: exit would run what the parent has given to atexit. The
 *   child has one thread, "MainThread". If the parent has others, their locks may be held for ever
 *   in the child, malloc's and stdio's excepted: it should use what was made for it, and what is of
 *   process scope, only. Objects in process scope go on as they are; participants (participant.h)
 *   join again.
 * - SPAWN: the program is executed again, nothing of the caller's memory is there. The function is
 *   found by its name (MODUS_PROCESS_FUNCTION), the argument is a copy of so many bytes, and the
 *   descriptors are 0, 1, 2 (unless close-on-exec) and those that the attributes list. The program's
 *   main begins with modus_main or modus_process_child; one that does not, and starts a process,
 *   ends with a line and code 127. Right for programs with threads, or with much memory: fork copies
 *   the tables of all of it. An arena does not outlive the exec.
 *
 * Either way no signal is blocked in the child and handlers are the standard ones, so that SIGTERM
 * ends it. What was ignored stays ignored with FORK, and is standard again with SPAWN. With
 * keep_signals FORK keeps mask and handlers, a sanitizer's too. No handler of the parent runs in the
 * child before that.
 *
 * Nothing waits for children but by pidfd, so those of others (libuv's, the application's) are left
 * alone, and SIGCHLD is not touched. If it is ignored, or another takes the status by a waitpid(-1),
 * the code is MODUS_EXIT_UNKNOWN.
 *
 * No zombies, joined or not. What has ended is reaped by whoever looks first: a join or alive; a
 * start, from time to time (so of handles that are held and never asked, at most 8, or half as many
 * as are running, wait for that); the end of the program; and a thread, "modus-reaper". That takes
 * over what runs when its last reference is put; from the beginning with reap_at_once; and, once any
 * thread of this process has slept for an object of process scope, or has armed a doorbell there, all
 * children: who waits for what a child has can't be the one that reaps it. It is there only as long
 * as it has something to wait for, and then is one of the threads that FORK speaks of above. Whoever
 * reaps also buries: what a participant in any open arena had goes back, and who waits for it is
 * woken (participant.h). Where there is no descriptor or thread for the reaper, sleeps of process
 * scope end after 1 s at most, and it is tried again.
 *
 * Daemons are processes that the end of the program does not wait for: modus_main, or exit, ends
 * them with SIGTERM (and SIGKILL 5 s later) and joins them; then modus_main waits for all others. A
 * daemon may not have children.
 *
 * When the parent dies without that, orphan says what becomes of the child: the kernel signals it,
 * by a pipe whose other end the parent alone has, from whatever thread it was started. A parent that
 * executes another program has died in this sense. A child that closes all its descriptors, or
 * executes another program, is told only if the main thread started it (by PR_SET_PDEATHSIG, which
 * the end of that thread alone would set off, too).
 */
#ifndef CONCURRENCY_PROCESS_H
#define CONCURRENCY_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "concurrency/result.h"
#include "concurrency/thread.h"

struct modus_process;

enum modus_start {
    MODUS_START_FORK,
    MODUS_START_SPAWN,
};

/* What becomes of the child when its parent has died. */
enum modus_orphan {
    MODUS_ORPHAN_USUAL,      /* a daemon is terminated, any other lives on */
    MODUS_ORPHAN_LIVES,      /* with init, or the next subreaper, as its parent */
    MODUS_ORPHAN_TERMINATED, /* SIGTERM */
    MODUS_ORPHAN_KILLED,     /* SIGKILL */
};

enum { MODUS_PROCESS_FDS_MAX = 64 };

#define MODUS_EXIT_UNKNOWN INT_MIN /* an exit code that somebody else has taken */

struct modus_process_attr {
    const char *name; /* copied, up to 63 bytes; NULL: "Process-1" and so on */
    enum modus_daemon daemon;
    enum modus_start start;
    enum modus_orphan orphan;
    bool keep_signals; /* FORK: mask and handlers as in the thread that starts it */
    bool reap_at_once; /* by a thread, though nobody asks after it */
    size_t size;       /* SPAWN: bytes at the argument */
    const int *fds;    /* SPAWN: descriptors that it gets too; copied */
    unsigned fds_count;
};

/* Make a process that is not started yet. attr may be NULL; run and its argument are borrowed until
 * the start. What run returns is the exit code, modulo 256. Returns 0, -EINVAL (no run; SPAWN: not
 * registered, or by a name that is not its alone; too many descriptors) or -ENOMEM. Does not block.
 * Safe from: any thread. */
int modus_process_new(struct modus_process **process, const struct modus_process_attr *attr,
                      int (*run)(void *argument), void *argument);

/* Start it. Returns 0, -EALREADY (it has been), -EPERM (the caller's process is a daemon), -EAGAIN
 * (no room for one more: see RLIMIT_NPROC, pid_max), -ENOMEM, -EMFILE or -ENFILE (no descriptor),
 * -ECHILD, and for SPAWN -ENOENT (no /proc) or -EBADF; after these it may be tried again. May wait
 * for other threads that start processes.
 * Safe from: any thread; a forked child. In a coroutine a forked child runs on its stack. */
int modus_process_start(struct modus_process *process);

/* Wait up to ns nanoseconds (MODUS_FOREVER: without end, 0: only look) until it has ended and is
 * reaped; *code, unless NULL, becomes the exit code, or minus the signal that ended it, or
 * MODUS_EXIT_UNKNOWN. By any number of threads and coroutines, any number of times. Returns 0,
 * -EAGAIN (ns 0 and still running), -ETIMEDOUT, -ESRCH (not started), -EDEADLK (the caller is in
 * that process), -ECHILD (it is a child of the caller's parent), MODUS_CANCELED (the coroutine is),
 * -ENOMEM (a coroutine's wait) or -EINVAL. Blocks.
 * Safe from: any thread of the process that made it. */
int modus_process_join(struct modus_process *process, int64_t ns, int *code);
int modus_process_join_until(struct modus_process *process, int64_t deadline, int *code);

/* Send it SIGTERM, SIGKILL, or any signal. Nobody else is ever hit, as it is sent by pidfd. Returns
 * 0, also when it has ended already; -ESRCH (not started), -EINVAL (no signal), -EPERM or -ECHILD.
 * Does not block. Safe from: any thread of the process that made it. */
int modus_process_terminate(struct modus_process *process);
int modus_process_kill(struct modus_process *process);
int modus_process_signal(struct modus_process *process, int signal);

/* One reference more, or one less; with the last the handle is gone. A process that still runs is
 * not touched by that. NULL is legal. Safe from: any thread. */
struct modus_process *modus_process_get(struct modus_process *process);
void modus_process_put(struct modus_process *process);

/* Change what new was told. Returns 0, or -EBUSY when it has been started.
 * Safe from: the thread that starts it. */
int modus_process_set_daemon(struct modus_process *process, bool daemon);

/* The handle of the calling process, borrowed; never NULL. That of the program itself is called
 * "MainProcess", that of a child which was forked by other means "Foreign". Safe from: any thread. */
struct modus_process *modus_process_self(void);

/* Is it started, and has not ended? In the process itself, true. Does not block.
 * Safe from: any thread of the process that made it; elsewhere false. */
bool modus_process_alive(struct modus_process *process);
bool modus_process_is_daemon(const struct modus_process *process);
/* In the handle's memory. Safe from: any thread. */
const char *modus_process_name(const struct modus_process *process);
/* The kernel's id; 0: not started. Another's, perhaps, after the end: signal by the handle. */
pid_t modus_process_pid(const struct modus_process *process);

/* A descriptor that is readable (poll, epoll) once it has ended; it is the handle's, and stays until
 * the last put. Returns it, or -ESRCH (not started) or -ECHILD.
 * Safe from: any thread of the process that made it. */
int modus_process_fd(const struct modus_process *process);

/* End the daemons: SIGTERM to all of them, SIGKILL 5 s later to those that are still there. Blocks
 * until they are reaped. exit does it, too. Safe from: any one thread. */
void modus_process_end_daemons(void);

/* modus_process_end_daemons, then wait until every other child that was started by
 * modus_process_start has ended. Blocks. Safe from: any one thread. */
void modus_process_join_all(void);

/* --- SPAWN ------------------------------------------------------------------------------------ */

/* Make a function known to spawned children by its name, in every program that holds this line:
 *
 *     static int count(void *argument) { ... }
 *     MODUS_PROCESS_FUNCTION(count) */
#define MODUS_PROCESS_FUNCTION(function)                                                           \
    __attribute__((constructor)) static void modus_register_##function(void)                       \
    {                                                                                              \
        static struct modus_process_function entry = {.name = #function, .run = function};         \
        modus_process_register(&entry);                                                            \
    }

struct modus_process_function {
    const char *name; /* up to 63 bytes */
    int (*run)(void *argument);
    struct modus_process_function *next;
};

/* Enter it into the table, for as long as the program runs. Once an entry; before main, or before
 * modus_process_child. Safe from: one thread. */
void modus_process_register(struct modus_process_function *function);

/* In a spawned child, run its function and exit; does not return. In any other process, return. Call
 * it first in main (modus_main does). Safe from: the main thread. */
void modus_process_child(int argc, char **argv);

/* Of the calling process: how many bytes its argument has (FORK: as the attributes said), and the
 * descriptor that is the i-th of those in the attributes. -EINVAL: no such one.
 * Safe from: any thread. */
size_t modus_process_argument_size(void);
int modus_process_passed(unsigned i);

#endif
