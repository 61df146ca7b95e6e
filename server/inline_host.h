/* SPDX-License-Identifier: MIT */
/* The blocking-style driver's half for handlers: a run handler on the connection's own thread.
 * While it waits, the thread drives that one connection, with poll(2). Process, prefork and thread
 * pool serve so; only who else waits meanwhile differs between them.
 */
#ifndef SERVER_INLINE_HOST_H
#define SERVER_INLINE_HOST_H

#include <signal.h>

#include "net/conn.h"

/* For conn_open; its host pointer is not used. */
extern const struct conn_host inline_host;

/* Serve the exchange of c here and now. t is this thread's; c is not stepped by anybody else
 * meanwhile. Blocks for as long as the handler does. */
void inline_serve(struct conn *c, struct net_thread *t);
/* While this process waits, let signals through that it blocks otherwise; NULL: no change. */
void inline_wait_mask(const sigset_t *mask);
/* To be called again and again where a busy peer may keep the process from ever waiting: now and
 * then it lets those signals through too. (ppoll does not, when a descriptor is ready.) */
void inline_hear(void);
/* Wait until c's descriptor can do what wants says, a peer's hang-up, a signal, or deadline_ms;
 * now_us is the time of the last tick. Tells c of hang-ups. Blocks. */
void inline_wait(struct conn *c, unsigned wants, int64_t deadline_ms, int64_t now_us);

#endif
