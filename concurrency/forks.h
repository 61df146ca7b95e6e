/* SPDX-License-Identifier: MIT */
/*
 * Which lock of this library a fork takes first.
 *
 * A fork must find lists whole, so it takes their locks (pthread_atfork): in the reverse of the order
 * in which the handlers were registered. Constructors register them, and their priorities are here,
 * in one place, because two forks at a time must take the locks in one order, and in the order of
 * who takes one while it holds another: the one that is held has the higher number.
 *
 * A coroutine that forks waits for a lock of ours by letting others of its thread go on. They would
 * wait for ever for a plain mutex that the fork has taken before: so these come last.
 *
 * For implementers.
 */
#ifndef CONCURRENCY_FORKS_H
#define CONCURRENCY_FORKS_H

#define MODUS_FORK_FIRST   __attribute__((constructor(999)))  /* takes none; first in the child */
#define MODUS_FORK_PLAIN   __attribute__((constructor(1000))) /* a mutex of POSIX */
#define MODUS_FORK_INNER   __attribute__((constructor(1001))) /* takes none but plain ones */
#define MODUS_FORK_TIMER   __attribute__((constructor(1002))) /* starts its thread */
#define MODUS_FORK_PROCESS __attribute__((constructor(1003))) /* starts the reaper; and forks */
#define MODUS_FORK_CHILD   __attribute__((constructor(1004))) /* takes none; for the child alone */
#define MODUS_FORK_LAST    __attribute__((constructor(1005))) /* takes none; last in the child */

#endif
