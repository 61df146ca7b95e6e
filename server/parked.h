/* SPDX-License-Identifier: MIT */
/* Connections that have come from an earlier generation to a listener which has a process for each:
 * idle, they need none. They wait in the acceptor's epoll set until they have something to say; then
 * they are ready, in that order.
 *
 * Safe from: the acceptor.
 */
#ifndef SERVER_PARKED_H
#define SERVER_PARKED_H

#include <stdatomic.h>

#include "net/conn.h"

struct parked {
    struct conn_carried carried;
    void *memory;              /* of its unread bytes */
    int64_t came_ms, until_ms; /* monotonic */
    struct parked *next, *before;
};

struct parking {
    int set;                     /* the epoll set; an event's data is the struct parked */
    struct parked *first, *last; /* waiting, the longest first */
    struct parked *ready, *ready_last;
    _Atomic uint32_t *count; /* of all, for others to see */
    struct net_stats *stats; /* where those that end here are counted */
};

/* One that has come; takes its descriptor and memory. It is closed at until_ms. */
void parked_add(struct parking *p, const struct conn_carried *carried, void *memory, int64_t now_ms,
                int64_t until_ms);
/* An event of the set was about it: it is ready, or the peer has gone and it ends. */
void parked_rouse(struct parking *p, struct parked *one);
/* The next that is ready, which is the caller's now; NULL: none is. */
struct parked *parked_take(struct parking *p);
/* Close those whose time is over. Returns when the next one's is; INT64_MAX: never. */
int64_t parked_expire(struct parking *p, int64_t now_ms);
/* No descriptors are left: end the one that has waited longest and has said nothing. Returns false if
 * there is none. */
bool parked_make_room(struct parking *p);
/* Give all of them on to a later generation. Returns false when some are left, since the receivers
 * are behind: to be called again. One that can't be given at all is cut. */
bool parked_give_on(struct parking *p, int give, int64_t now_ms);
/* Close all that wait. */
void parked_close(struct parking *p);
/* In a child: close the descriptors of all, which are the acceptor's. */
void parked_forget(const struct parking *p);
/* Free one that was taken, but for its descriptor. */
void parked_free(struct parked *one);

#endif
