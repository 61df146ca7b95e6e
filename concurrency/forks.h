/* SPDX-License-Identifier: MIT */
/*
 * Which lock of this library a fork takes first.
 *
 * A fork must find lists whole, so it takes their locks (pthread_atfork): in the reverse of the order
 * in which the handlers were registered. Constructors register them, and their priorities are here,
 * in one place, because two forks at a time must take the locks in one order, and in the order of
 * who takes one while it holds another: the one that is held has the higher number.
 *
 * For implementers.
 */
#ifndef CONCURRENCY_FORKS_H
#define CONCURRENCY_FORKS_H

#define MODUS_FORK_INNER   __attribute__((constructor(1000))) /* takes none of the others */
#define MODUS_FORK_TIMER   __attribute__((constructor(1001))) /* starts its thread */
#define MODUS_FORK_PROCESS __attribute__((constructor(1002))) /* starts the reaper; and forks */

#endif
