/* SPDX-License-Identifier: MIT */
/* Ready work on its way from a poller to threads: the bounded queue, and behind it the poller's own
 * list for what the queue has no room for. So nothing is refused because the queue is full: it
 * waits with its bytes in the kernel, and queue_timeout decides how long.
 *
 * The list is one poller's; several may share the queue. A connection in the queue is a pointer
 * that may be passed over: whoever takes it claims it by its state word. So one that was refused
 * while it waited stays where it is until its turn comes, even when it has ended and its memory
 * serves another connection; if that one is put in too, it stands there once.
 *
 * Safe from: the poller's thread; the queue's other end any thread.
 */
#ifndef SERVER_WORK_H
#define SERVER_WORK_H

#include "concurrency/queue.h"
#include "server/poller.h"

struct work {
    struct poller *poller;
    struct modus_queue *queue; /* struct poller_conn * */
    size_t limit;              /* of the queue; its capacity is the next power of two */
    unsigned waiting_state;    /* a listed connection in another state is dropped from the list */
    struct poller_conn *first, **end;
    size_t count;
};

/* Make the queue of a worker's listener. Returns 0 or a negative code. */
int work_queue_init(struct modus_queue *queue, const struct worker *w);
void work_init(struct work *work, struct poller *p, struct modus_queue *queue,
               unsigned waiting_state);
/* Put n connections into the queue, or the rest of them into the list. */
void work_put(struct work *work, struct poller_conn **pcs, size_t n);
/* Put from the list what the queue has room for now. Call when the doorbell rang, and each turn. */
void work_go_on(struct work *work);

#endif
