/* SPDX-License-Identifier: MIT */
/* Work for threads: see server/work.h. */
#include "server/work.h"

/* How often a worker looks for another connection before it sleeps: for some 2 us. The poller, which
 * would bring it, may need the CPU. */
enum { LOOKS = 128 };

/* A queue's capacity is a power of two. */
static unsigned capacity_for(unsigned items)
{
    unsigned capacity = 2;
    while (capacity < items)
        capacity *= 2;
    return capacity;
}

int work_queue_init(struct modus_queue *queue, const struct worker *w)
{
    unsigned limit = (unsigned)w->listener->conf->queue;
    struct modus_queue_attr attr = {.scope = MODUS_THREAD,
                                    .capacity = capacity_for(limit),
                                    .spin = LOOKS,
                                    .item_size = sizeof(struct poller_conn *)};
    atomic_store(&w->board->queue_capacity, limit);
    return modus_queue_init(queue, &attr);
}

void work_init(struct work *work, struct poller *p, struct modus_queue *queue,
               unsigned waiting_state)
{
    *work = (struct work){
        .poller = p,
        .queue = queue,
        .limit = (size_t)p->worker->listener->conf->queue,
        .waiting_state = waiting_state,
        .end = &work->first,
    };
}

static size_t room(const struct work *work)
{
    size_t len = modus_queue_len(work->queue);
    return len < work->limit ? work->limit - len : 0;
}

static void list(struct work *work, struct poller_conn *pc)
{
    if (pc->in_work)
        return; /* since before it was refused: that place is an earlier one */
    pc->in_work = true;
    pc->next_work = NULL;
    *work->end = pc;
    work->end = &pc->next_work;
    if (work->count++ == 0)
        modus_queue_arm_put(work->queue, work->poller->bell);
}

void work_put(struct work *work, struct poller_conn **pcs, size_t n)
{
    size_t fits = work->count ? 0 : room(work); /* those that wait are first */
    if (fits > n)
        fits = n;
    long put = fits ? modus_queue_put_n(work->queue, pcs, fits, 0) : 0;
    for (size_t i = put > 0 ? (size_t)put : 0; i < n; i++)
        list(work, pcs[i]);
}

void work_go_on(struct work *work)
{
    while (work->count) {
        struct poller_conn *pc = work->first;
        bool waits = atomic_load(&pc->state) == work->waiting_state;
        if (waits && (room(work) == 0 || modus_queue_put(work->queue, &pc, 0) != 0))
            return;
        work->first = pc->next_work; /* the link is the poller's, wherever the connection may be */
        pc->in_work = false;
        if (--work->count == 0) {
            work->end = &work->first;
            modus_queue_disarm_put(work->queue, work->poller->bell);
        }
    }
}
