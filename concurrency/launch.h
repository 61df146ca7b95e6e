/* SPDX-License-Identifier: MIT */
/*
 * Launch: execute a program in a new process.
 *
 * By posix_spawn, which shares the memory until the exec (no copy of page tables, whatever the
 * caller's size) and brings back the error of the exec. No signal is blocked in the new program and
 * all have the standard action, the ignored ones (SIGPIPE) too. Its descriptors are those that are
 * listed and no others, whether they are marked close-on-exec or not.
 *
 * For implementers: spawned processes and subprocesses. The caller waits for the child.
 */
#ifndef CONCURRENCY_LAUNCH_H
#define CONCURRENCY_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "concurrency/result.h"

struct modus_launch {
    const char *path;               /* without a slash, and with search: looked for in PATH */
    const char *const *argv;        /* ends with NULL */
    const char *const *environment; /* ends with NULL; NULL: the caller's */
    const char *folder;             /* to run in; NULL: the caller's */
    bool search;
    bool group;     /* lead a new process group */
    bool session;   /* lead a new session, and a group in it */
    const int *fds; /* they become 0, 1, and so on; -1: none. One may stand there twice */
    unsigned count;
};

/* Returns 0, or the negated errno of what failed: -ENOENT, -EACCES, -ENOEXEC, -E2BIG, -ENOTDIR,
 * -EAGAIN, -ENOMEM, -EMFILE, -EBADF. Blocks until the exec.
 * Safe from: any thread; a forked child. */
int modus_launch(const struct modus_launch *launch, pid_t *pid);

/* The caller's descriptor i (0, 1 or 2) for a program that inherits it: i; or -1 if it is closed, or
 * close-on-exec. In a process without it, another descriptor, one of ours perhaps, gets the number.
 * Safe from: any thread; a forked child. */
int modus_launch_inherited(int i);

#endif
