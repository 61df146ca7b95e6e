/* SPDX-License-Identifier: MIT */
/* The intake of a listener: by it connections come from the processes of an earlier generation to
 * those of the one that serves, with what was read of them and not yet understood. A pair of sockets
 * that all of them inherit; only the newest generation reads.
 *
 * A message is one connection: a header, its descriptor, its unread bytes. A giver takes the
 * descriptor out of its epoll set first, since the registration would go with the open file.
 *
 * Nothing here waits. Safe from: any process that has the descriptors.
 */
#ifndef SERVER_INTAKE_H
#define SERVER_INTAKE_H

#include "net/conn.h"

/* ends[0] to take from, ends[1] to give to. Returns 0 or a negative errno. */
int intake_open(int ends[2]);
/* Give one; it is the receiver's then, and the caller closes its descriptor. Returns 0, -EAGAIN when
 * the receivers are behind, or another negative errno: it can't be given at all. */
int intake_give(int give, const struct conn_carried *carried);
/* Take one. Its descriptor and *memory, which holds its unread bytes, are the caller's. Returns 0,
 * -EAGAIN when there is none, -EMFILE when there is no descriptor for it, so that it waits, -EPIPE when
 * none will come, or another negative errno: one was lost. */
int intake_take(int take, struct conn_carried *carried, void **memory);
/* Nobody will take any more: those on their way end, and to give one is an error from now on. */
void intake_shut(int take);

#endif
