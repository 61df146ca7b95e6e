/* SPDX-License-Identifier: MIT */
/* Who comes to a poller: connections from its listening descriptors, and from an earlier generation's
 * intake; and how that comes to its end. Apart from the poller, which has those that are there.
 *
 * What is short makes it pause, and look again in a moment: descriptors, or places when nobody is idle.
 *
 * For implementers: poller.c. Safe from: the poller's thread.
 */
#ifndef SERVER_ARRIVALS_H
#define SERVER_ARRIVALS_H

#include "server/poller.h"

/* Watch the worker's descriptors. Returns 0 or -1; arrivals_close in any case. */
int arrivals_open(struct poller *p);
void arrivals_close(struct poller *p);
/* In each turn: take as many as a turn may. */
void arrivals_take(struct poller *p);
/* How long the poller may wait for events; -1: for ever. */
int64_t arrivals_wait_ms(const struct poller *p);
/* Others accept from now on: take what the kernel has told of, and no more, but where nobody does: that
 * address ends as at a drain. */
void arrivals_retire(struct poller *p);
/* Accept what the kernel has, then no more. */
void arrivals_drain(struct poller *p);
/* In each turn of a drain: has all come, and is every listening descriptor closed? */
bool arrivals_over(struct poller *p);

#endif
