/* SPDX-License-Identifier: MIT */
/* Who accepts, where several workers have the listening sockets.
 *
 * The kernel wakes one waiting worker for a new connection (EPOLLEXCLUSIVE, edge), which accepts one
 * at the end of a turn, when nothing it holds is ready, with the accept lock held around accept4
 * alone. A worker that holds more than its fair share passes the turn on, by doorbell, to one that
 * waits and holds less. board->backlog says that connections may be waiting: it is cleared before
 * accept4 and set again when that gave one, so no arrival is missed whoever ends or dies; a worker
 * looks at it before it waits, and hands it on before it is held by a handler.
 *
 * A worker that was to take a connection may be held up (stopped, or by a slow disk) although it
 * says that it waits: who passed the turn on looks again a little later, and takes the connection
 * itself.
 *
 * Safe from: the poller's thread.
 */
#ifndef SERVER_SHARING_H
#define SERVER_SHARING_H

#include <sys/epoll.h>

#include "server/poller.h"

enum { SHARING_BATCH = 1, SHARING_EVENTS = EPOLLEXCLUSIVE }; /* for the poller's table */

/* Zeroed to begin with. */
struct sharing {
    bool passed;     /* in this turn */
    unsigned left;   /* arrivals left to others, in a row */
    int64_t take_ms; /* not 0: passed on; what is still there then is ours to take */
    int64_t room_ms; /* not 0: our places are full; nobody is closed for others before then */
    uint32_t others; /* held by the others when our places were full */
};

/* The places of one worker: its part of the listener's. */
unsigned sharing_places(const struct worker *w);
/* Accept one connection, unless it is another's turn; as the poller's accept. */
int sharing_accept(struct poller *p, struct sharing *s, int fd);
/* The same for those that come from an earlier generation: is it our turn? */
bool sharing_takes(struct poller *p, struct sharing *s);
/* Our places are full: as poller_make_room, but others that have places have a moment to come for who
 * waits, before somebody is closed. As the poller's room. */
bool sharing_room(struct poller *p, struct sharing *s);
/* The worker will be held: who waits shall take what comes. */
void sharing_hand_on(struct poller *p);
/* The end of each turn: what nobody has taken is ours too, unless we just passed it on. */
void sharing_turn(struct poller *p, struct sharing *s);

#endif
