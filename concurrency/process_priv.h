/* SPDX-License-Identifier: MIT */
/*
 * What the parent's side (process.c, process_list.c), the child's (process_child.c) and the way over
 * an exec (process_spawn.c) share.
 *
 * For implementers: these, and subprocess.c.
 */
#ifndef CONCURRENCY_PROCESS_PRIV_H
#define CONCURRENCY_PROCESS_PRIV_H

#include "concurrency/process.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

enum modus_process_state {
    MODUS_PROCESS_NEW,
    MODUS_PROCESS_STARTING, /* somebody is about to */
    MODUS_PROCESS_RUNNING,
    MODUS_PROCESS_REAPING, /* somebody looks whether it has ended */
    MODUS_PROCESS_ENDED,
};

struct modus_process {
    _Atomic uint32_t state; /* STARTING and REAPING are waited for on it */
    _Atomic uint32_t references;
    uint64_t stamp; /* of the process that it belongs to: who made it, or in it its own */
    pid_t pid;
    int pidfd; /* -1: none. unseen: readable, and of no process */
    int line;  /* the parent's end of the life line; -1: none */
    int code;
    bool daemon;
    bool is_static;                 /* of a process that was not made here */
    bool by_main;                   /* started by the main thread of its parent */
    bool flush_all;                 /* there were no other threads */
    bool unseen;                    /* it had ended, its status taken, before there was a pidfd */
    struct modus_process_attr attr; /* but for name and daemon */
    int fds[MODUS_PROCESS_FDS_MAX];
    int (*run)(void *argument);
    void *argument;
    bool attended;    /* whoever started it waits for it all the time */
    bool watched;     /* the reaper has a reference; under the list's lock */
    bool leads_group; /* signals go to all of it */
    int pipes[3];     /* the parent's ends of a program's; -1: none. Closed in its other children */
    int (*launch)(struct modus_process *process, void *argument, pid_t *pid);
    struct modus_process *next, *previous; /* in the list; under its lock */
    char name[64];
};

/* Does it belong to the calling process? */
bool modus_process_is_mine(const struct modus_process *process);

/* Wait until nobody is about to change the state; returns it. */
uint32_t modus_process_settled(struct modus_process *process);
void modus_process_set_state(struct modus_process *process, uint32_t state);

/* Reap it if it has ended; returns whether it has. The caller has a reference. */
bool modus_process_reap(struct modus_process *process);

/* While it is held no other thread forks: what is opened is known to the list before one does. */
void modus_processes_lock(void);
void modus_processes_unlock(void);

/* Under the lock: one more is running. */
void modus_processes_add(struct modus_process *process);

/* Under the lock: give the reaper one reference. Returns false if there can't be one; then it is left
 * to the sweeps. */
bool modus_processes_watch(struct modus_process *process);

/* Under the lock, of one that has been started: have it watched if that is asked for, or if somebody
 * relies on being told of its death. */
void modus_processes_watch_new(struct modus_process *process);

/* From time to time, reap all that have ended. */
void modus_processes_sweep(void);

/* One that has not been reaped, no other program, with a reference; NULL: none is left. */
struct modus_process *modus_processes_any(bool daemon);
void modus_processes_terminate_daemons(void);

/* A handle for another program, not started. launch executes it; it is called by
 * modus_process_start_program with the argument, while no other thread can fork, and sets pipes. */
int modus_process_new_program(struct modus_process **process, const char *name,
                              int (*launch)(struct modus_process *process, void *argument,
                                            pid_t *pid));
int modus_process_start_program(struct modus_process *process, void *argument);

/* Close it, if it is open, and forget it. */
static inline void modus_process_close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Close the parent's end of one of its pipes, if it is open. */
void modus_process_close_pipe(struct modus_process *process, int i);

/* In a forked child, with all signals blocked: become it, run, end. line is its end, or -1. */
_Noreturn void modus_process_begin(struct modus_process *process, int line, const sigset_t *mask);

/* The handle of the calling process is this from now on; line is its descriptor, or -1. */
void modus_process_become(struct modus_process *process, int line);

/* In it: take its name, and have the kernel tell of the parent's death. */
void modus_process_settle(const struct modus_process *process, int line);

/* The end of a process, but for its exit: wait for its threads and children. */
void modus_process_finish(void);

/* A spawned process whose main begins like any other's would do all that its parent did, and spawn the
 * next: end the program with a line if this is one. */
void modus_process_not_astray(void);

/* Execute this program again, to run process there; line is the child's end, or -1. */
int modus_process_spawn(const struct modus_process *process, int line, pid_t *pid);

/* The registered name of a function, or NULL: it has none, or not alone. */
const char *modus_process_function_name(int (*run)(void *argument));

/* The signal that tells of the parent's death; 0: none. */
int modus_process_orphan_signal(const struct modus_process *process);

/* Flush what stands in buffers of stdio: of all streams, or of stdout and stderr. */
void modus_process_flush(bool all);

#endif
