/* SPDX-License-Identifier: MIT */
/*
 * Private descriptors: those that a forked child must not have.
 *
 * Close-on-exec is too late for a child that never calls exec: while it lives, the other end of a
 * socket does not see that the parent is gone. A descriptor that is entered here is closed in every
 * child, before fork returns there.
 *
 *     modus_private_fd_begin();                    // no fork between these two
 *     fd = accept4(...);
 *     modus_private_fd_end(fd);
 *     ...
 *     modus_private_fd_close(fd);
 *
 * Children made without fork's handlers (vfork, posix_spawn, a bare clone) keep them until exec.
 */
#ifndef CONCURRENCY_PRIVATE_FD_H
#define CONCURRENCY_PRIVATE_FD_H

#include "concurrency/result.h"

/* Keep other threads from forking until the call of end. Blocks while one forks, or is between
 * these two. Safe from: any thread. */
void modus_private_fd_begin(void);

/* fd, unless negative, is private from now on. Returns 0, or -ENOMEM: then it is closed. Does not
 * block. Safe from: the thread that called begin. */
int modus_private_fd_end(int fd);

/* Close it. Negative is legal. Blocks as begin. Safe from: any thread. */
void modus_private_fd_close(int fd);

#endif
