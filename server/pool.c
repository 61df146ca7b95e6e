/* SPDX-License-Identifier: MIT */
/* Threads that serve what a poller finds ready: see server/pool.h.
 *
 * A connection is in one hand at a time; its state word says in whose:
 *
 *   PARKED   the poller's: nothing to do        event or deadline -> QUEUED
 *   QUEUED   the queue's                        taken -> RUNNING; too late -> PARKED, refused
 *   RUNNING  a pool thread's                    done -> PARKED or ENDED; event -> DIRTY
 *   DIRTY    a pool thread's, to be looked at once more before it is parked
 *   ENDED    the poller's: to be forgotten
 *
 * The poller fetches a batch of events and puts the connections into the queue in one call, which
 * wakes one thread; that one wakes the next if it finds more than it takes. What the queue has no
 * room for waits in the poller's list, with its bytes in the kernel.
 */
#include "server/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "server/inline_host.h"
#include "server/log.h"
#include "server/poller.h"
#include "server/sharing.h"
#include "server/work.h"

enum { PARKED, QUEUED, RUNNING, DIRTY, ENDED };
enum { BATCH = 256, RETURNS = 4096, RUNNING_LOOK_MS = 1000 };

struct pool {
    struct poller poller;
    struct worker *worker;
    bool shared;
    struct sharing sharing;
    struct modus_queue ready;   /* struct poller_conn *, to the threads */
    struct modus_queue returns; /* struct poller_conn *, back: ended, or to be looked at earlier */
    struct poller_conn *batch[BATCH];
    size_t batch_len;
    struct work work; /* ready, and what it has no room for */
    pthread_t *threads;
    unsigned thread_count;
    atomic_uint next_index;
};

/* --- poller ---------------------------------------------------------------------------------- */

/* Give the threads what has gathered. */
static void send_batch(struct pool *pool)
{
    if (pool->batch_len == 0)
        return;
    board_lane_add(&worker_lane(pool->worker, 0)->put, pool->batch_len);
    work_put(&pool->work, pool->batch, pool->batch_len);
    pool->batch_len = 0;
}

/* By when a thread must have taken it. */
static int64_t queue_limit_ms(const struct poller_conn *pc)
{
    return pc->since_us / 1000 + pc->poller->worker->listener->conf->queue_timeout_ms;
}

static void enqueue(struct pool *pool, struct poller_conn *pc)
{
    pool->batch[pool->batch_len++] = pc;
    poller_time(&pool->poller, pc, queue_limit_ms(pc));
    if (pool->batch_len == BATCH)
        send_batch(pool);
}

/* No thread came free in time: the poller answers 503 itself. Its place in the queue stays behind
 * and is passed over. */
static void refuse(struct poller *p, struct poller_conn *pc)
{
    unsigned state = QUEUED;
    if (!atomic_compare_exchange_strong(&pc->state, &state, PARKED))
        return;
    board_lane_add(&worker_lane(p->worker, 0)->taken, 1);
    conn_reject(&pc->conn);
    int64_t now_us = p->net->now_us;
    p->net->now_us = pc->since_us;
    poller_step(p, pc, 0);
    p->net->now_us = now_us;
}

static int64_t pool_deadline(const struct poller_conn *pc)
{
    const struct pool *pool = pc->poller->model;
    switch (atomic_load(&pc->state)) {
    case PARKED:
        return poller_deadline(pc);
    case QUEUED:
        return queue_limit_ms(pc);
    default: /* it minds its own deadlines while it runs */
        return pool->poller.net->now_ms + RUNNING_LOOK_MS;
    }
}

static bool pool_idle(const struct poller_conn *pc)
{
    return atomic_load(&pc->state) == PARKED && poller_idle(pc);
}

static void pool_ready(struct poller *p, struct poller_conn *pc, uint32_t events)
{
    unsigned state = atomic_load(&pc->state);
    if (events & (EPOLLERR | EPOLLHUP))
        conn_hang_up(&pc->conn, false);
    if (events & EPOLLRDHUP)
        atomic_store(&pc->peer_ended, true);
    for (;;) {
        switch (state) {
        case PARKED:
            /* Before it can be taken, be it through an old place in the queue. */
            pc->since_us = p->net->now_us;
            if (!atomic_compare_exchange_weak(&pc->state, &state, QUEUED))
                continue;
            enqueue(p->model, pc);
            return;
        case RUNNING:
            if (!atomic_compare_exchange_weak(&pc->state, &state, DIRTY))
                continue;
            return;
        case QUEUED:
            if (events == 0 && pool_deadline(pc) <= p->net->now_ms)
                refuse(p, pc);
            return;
        default:
            return;
        }
    }
}

/* The poller stepped a parked connection itself (to refuse it, or to make room), and found a
 * request that wants a thread. */
static void pool_serve(struct poller *p, struct poller_conn *pc)
{
    pc->to_serve = true;
    pc->since_us = p->net->now_us;
    atomic_store(&pc->state, QUEUED);
    enqueue(p->model, pc);
}

static void take_returns(struct pool *pool)
{
    struct poller *p = &pool->poller;
    struct poller_conn *pcs[BATCH];
    long n;
    while ((n = modus_queue_get_n(&pool->returns, pcs, BATCH, 0)) > 0) {
        for (long i = 0; i < n; i++) {
            if (!pcs[i]->used)
                continue;
            if (atomic_load(&pcs[i]->state) == ENDED)
                poller_forget(p, pcs[i]);
            else
                poller_time(p, pcs[i], poller_deadline(pcs[i]));
        }
    }
}

static void pool_bell(struct poller *p)
{
    struct pool *pool = p->model;
    take_returns(pool);
    work_go_on(&pool->work);
    poller_obey(p, worker_look(p->worker));
}

static void pool_turn(struct poller *p)
{
    struct pool *pool = p->model;
    work_go_on(&pool->work);
    send_batch(pool);
    if (pool->shared)
        sharing_turn(p, &pool->sharing);
}

static bool pool_takes_in_turn(struct poller *p)
{
    struct pool *pool = p->model;
    return sharing_takes(p, &pool->sharing);
}

static bool pool_room_in_turn(struct poller *p)
{
    struct pool *pool = p->model;
    return sharing_room(p, &pool->sharing);
}

static int pool_accept_in_turn(struct poller *p, int fd)
{
    struct pool *pool = p->model;
    return sharing_accept(p, &pool->sharing, fd);
}

/* --- pool threads ---------------------------------------------------------------------------- */

/* Let it wait until due. Returns false when something came up meanwhile. */
static bool rest(struct pool *pool, struct poller_conn *pc, int64_t due)
{
    atomic_store(&pc->due_ms, due);
    /* Where the poller has noted a later time than this one, it must hear of it. */
    if (due < atomic_load_explicit(&pc->timed_ms, memory_order_relaxed))
        modus_queue_put(&pool->returns, &pc, MODUS_FOREVER);
    unsigned state = RUNNING;
    if (atomic_compare_exchange_strong(&pc->state, &state, PARKED))
        return true;
    atomic_store(&pc->state, RUNNING);
    return false;
}

/* Let it wait in the poller. */
static bool park(struct pool *pool, struct poller_conn *pc)
{
    poller_register(&pool->poller, pc);
    return rest(pool, pc, conn_deadline(&pc->conn));
}

static void end(struct pool *pool, struct poller_conn *pc)
{
    atomic_store(&pc->state, ENDED);
    modus_queue_put(&pool->returns, &pc, MODUS_FOREVER);
}

static void run(struct pool *pool, struct poller_conn *pc, struct net_thread *t)
{
    struct conn *c = &pc->conn;
    if (pc->to_serve)
        inline_serve(c, t);
    pc->to_serve = false;
    for (;;) {
        if (atomic_exchange(&pc->peer_ended, false))
            conn_hang_up(c, true);
        unsigned wants = conn_step(c, t);
        bool moves = wants & CONN_WANT_MOVE;
        if (wants & CONN_CLOSED || (moves && poller_give(&pool->poller, pc, t))) {
            end(pool, pc);
            return;
        }
        if (moves && rest(pool, pc, t->now_ms + 1))
            return;
        if (wants & CONN_WANT_SERVE) {
            poller_register(&pool->poller, pc); /* so that the peer's going is seen meanwhile */
            inline_serve(c, t);
        } else if (!moves && !(wants & CONN_WANT_AGAIN) && park(pool, pc)) {
            return;
        }
        net_thread_tick(t);
    }
}

static void *pool_thread(void *arg)
{
    struct pool *pool = arg;
    struct worker *w = pool->worker;
    unsigned index = 1 + atomic_fetch_add(&pool->next_index, 1);
    struct net_thread *t = net_thread_new(worker_read_size(w), worker_stats(w, index));
    struct worker_lane *lane = worker_lane(w, index);
    struct poller_conn *pc;
    if (!t) {
        log_error("a thread cannot start: no memory");
        return NULL;
    }
    while (modus_queue_get(&pool->ready, &pc, MODUS_FOREVER) == 0) {
        unsigned state = QUEUED;
        if (!atomic_compare_exchange_strong(&pc->state, &state, RUNNING))
            continue; /* refused while it waited */
        atomic_store_explicit(&lane->busy, true, memory_order_relaxed);
        board_lane_add(&lane->taken, 1);
        net_thread_tick(t);
        net_histogram_add(&t->stats->queued, t->now_us - pc->since_us, 1);
        t->now_us =
            pc->since_us; /* a request lasts from when it came, not from when it was taken */
        run(pool, pc, t);
        atomic_store_explicit(&lane->busy, false, memory_order_relaxed);
    }
    net_thread_free(t);
    return NULL;
}

/* --- making ---------------------------------------------------------------------------------- */

enum { ACCEPT_BATCH = 32 };

#define POOL_OPS                                                                                   \
    .ready = pool_ready, .serve = pool_serve, .idle = pool_idle, .bell = pool_bell,                \
    .turn = pool_turn, .arrive = poller_arrive, .deadline = pool_deadline, .host = &inline_host

static const struct poller_ops alone = {
    POOL_OPS,
    .accept = poller_accept,
    .takes = poller_takes,
    .room = poller_make_room,
    .accept_batch = ACCEPT_BATCH,
};

static const struct poller_ops among_others = {
    POOL_OPS,
    .accept = pool_accept_in_turn,
    .takes = pool_takes_in_turn,
    .room = pool_room_in_turn,
    .accept_batch = SHARING_BATCH,
    .listen_events = SHARING_EVENTS,
};

static int make_queues(struct pool *pool)
{
    struct modus_queue_attr returns = {
        .scope = MODUS_THREAD, .capacity = RETURNS, .item_size = sizeof(void *)};
    if (work_queue_init(&pool->ready, pool->worker) != 0 ||
        modus_queue_init(&pool->returns, &returns) != 0)
        return -1;
    work_init(&pool->work, &pool->poller, &pool->ready, QUEUED);
    return modus_queue_arm_get(&pool->returns, pool->poller.bell);
}

static int start_threads(struct pool *pool)
{
    unsigned wanted = pool->worker->listener->plan.threads - 1;
    pool->threads = calloc(wanted, sizeof *pool->threads);
    for (unsigned i = 0; pool->threads && i < wanted; i++) {
        int r = worker_thread(&pool->threads[i], "pool", i, pool_thread, pool);
        if (r != 0) {
            log_error("cannot start thread %u of %u: the system has no room for more", i + 1,
                      wanted);
            return -1;
        }
        pool->thread_count++;
    }
    return pool->threads ? 0 : -1;
}

int pool_run(struct worker *w, bool shared)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return 1;
    pool->worker = w;
    pool->shared = shared;
    atomic_store(&w->board->queue_of_unread, true);
    if (poller_open(&pool->poller, w, shared ? &among_others : &alone, pool, &w->slot->bell, 0,
                    true, sharing_places(w)) != 0 ||
        make_queues(pool) != 0 || start_threads(pool) != 0)
        return 1;
    worker_ready(w);
    poller_run(&pool->poller);
    modus_queue_close(&pool->ready, MODUS_CLOSE_DRAIN);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    poller_close(&pool->poller);
    modus_queue_fini(&pool->ready);
    modus_queue_fini(&pool->returns);
    free(pool);
    return 0;
}
