/* SPDX-License-Identifier: MIT */
/* event-loop: one process, L loops, each a thread that waits for its connections and serves `step`
 * handlers at once; `run` handlers go through the bounded queue to helper threads. A handler that
 * computes delays no other connection.
 *
 * Loop 0 accepts and deals connections to the loop that has the fewest, through that loop's queue.
 * A helper calls back through the loop's queue too: the loop's doorbell is armed on it.
 *
 * An exchange on its way to a helper is in the state word of its connection:
 *
 *   NONE -> OFFERED (in the queue, or in the loop's list while the queue is full)
 *   OFFERED -> SERVED (a helper took it) -> NONE (the loop heard that it is done)
 *   OFFERED -> NONE (waited too long: the loop answers 503; its place in the queue is passed over)
 */
#include "server/models/model.h"

#include <pthread.h>
#include <stdlib.h>

#include "net/socket.h"
#include "server/log.h"
#include "server/poller.h"
#include "server/work.h"

enum { NONE, OFFERED, SERVED };
enum { MAIL_BATCH = 128, ACCEPT_BATCH = 32 };

enum mail_kind { MAIL_CONNECTION, MAIL_KICK, MAIL_DONE, MAIL_ROOM, MAIL_ROOM_TRIED };

/* What comes to a loop from other threads. */
struct mail {
    enum mail_kind kind;
    bool made; /* the room that was asked for */
    int fd;
    struct conn_peer peer;
    struct poller_conn *pc;
};

struct loops;

struct loop {
    struct poller poller;
    struct loops *all;
    struct modus_queue mail;
    struct modus_doorbell own_bell;
    struct work work; /* the queue to the helpers, and what it has no room for */
    struct worker_lane *lane;
    pthread_t thread;
};

struct loops {
    struct worker *worker;
    struct modus_queue ready; /* struct poller_conn *, to the helpers */
    struct loop *loops;
    unsigned loop_count, helper_count;
    atomic_uint next_helper; /* for their lanes */
    pthread_t *helpers;
    atomic_bool draining; /* loop 0 deals no more */
    unsigned victim;      /* (loop 0) the one to make room next */
    unsigned tried;       /* (loop 0) those that had nothing to give, in a row */
};

static unsigned loop_count(const struct config_listener *conf)
{
    return conf->loops > 0 ? (unsigned)conf->loops : model_cpus();
}

static struct model_plan loops_plan(const struct config_listener *conf)
{
    return (struct model_plan){
        .workers = 1,
        .threads = loop_count(conf),
        .helpers = (unsigned)conf->threads,
        .pool = (unsigned)conf->threads,
        .max_connections = model_max_connections(conf, 10000),
        .keepalive_timeout_ms = 60000,
        .defer_accept = true,
    };
}

/* --- run handlers ---------------------------------------------------------------------------- */

static void host_wait(void *host, struct exchange *x, int64_t deadline_ms)
{
    (void)host;
    struct modus_event *event = exchange_event(x);
    modus_event_clear(event);
    if (exchange_has_news(x))
        return;
    if (deadline_ms == INT64_MAX)
        modus_event_wait(event, MODUS_FOREVER);
    else
        modus_event_wait_until(event, deadline_ms * 1000000);
}

static void host_wake(void *host, struct exchange *x)
{
    (void)host;
    modus_event_set(exchange_event(x));
}

static void post(struct poller_conn *pc, enum mail_kind kind)
{
    struct loop *loop = pc->poller->model;
    struct mail mail = {.kind = kind, .pc = pc};
    modus_queue_put(&loop->mail, &mail, MODUS_FOREVER); /* the loop always empties it */
}

static void host_kick(void *host, struct exchange *x)
{
    (void)x;
    post(host, MAIL_KICK);
}

static const struct conn_host host = {host_wait, host_kick, host_wake};

static void *helper(void *arg)
{
    struct loops *all = arg;
    unsigned index = all->loop_count + atomic_fetch_add(&all->next_helper, 1);
    struct worker_lane *lane = worker_lane(all->worker, index);
    struct poller_conn *pc;
    while (modus_queue_get(&all->ready, &pc, MODUS_FOREVER) == 0) {
        unsigned state = OFFERED;
        if (!atomic_compare_exchange_strong(&pc->state, &state, SERVED))
            continue; /* refused while it waited */
        atomic_store_explicit(&lane->busy, true, memory_order_relaxed);
        board_lane_add(&lane->taken, 1);
        exchange_serve(conn_exchange(&pc->conn));
        atomic_store_explicit(&lane->busy, false, memory_order_relaxed);
        post(pc, MAIL_DONE);
    }
    return NULL;
}

/* By when a helper must have taken it. */
static int64_t queue_limit_ms(const struct poller_conn *pc)
{
    return pc->since_us / 1000 + pc->poller->worker->listener->conf->queue_timeout_ms;
}

static void loop_serve(struct poller *p, struct poller_conn *pc)
{
    struct loop *loop = p->model;
    pc->since_us = p->net->now_us;
    atomic_store(&pc->state, OFFERED);
    poller_time(p, pc, queue_limit_ms(pc));
    board_lane_add(&loop->lane->put, 1);
    work_put(&loop->work, &pc, 1);
}

/* --- loops ----------------------------------------------------------------------------------- */

static int64_t loop_deadline(const struct poller_conn *pc)
{
    int64_t due = poller_deadline(pc);
    if (atomic_load(&pc->state) != OFFERED)
        return due;
    int64_t limit = queue_limit_ms(pc);
    return limit < due ? limit : due;
}

static void loop_ready(struct poller *p, struct poller_conn *pc, uint32_t events)
{
    unsigned state = OFFERED;
    if (atomic_load(&pc->state) == OFFERED && p->net->now_ms >= queue_limit_ms(pc) &&
        atomic_compare_exchange_strong(&pc->state, &state, NONE)) {
        struct loop *loop = p->model;
        board_lane_add(&loop->lane->taken, 1);
        net_count(&p->net->stats->rejected, 1);
        conn_reject(&pc->conn);
    }
    poller_step(p, pc, events);
}

static uint32_t held(const struct loop *loop)
{
    return atomic_load_explicit(&loop->poller.connections, memory_order_relaxed);
}

static int loop_accept(struct poller *p, int fd)
{
    struct loop *loop = p->model;
    struct loops *all = loop->all;
    struct mail mail = {.kind = MAIL_CONNECTION};
    mail.fd = socket_accept(fd, &mail.peer);
    if (mail.fd < 0)
        return mail.fd;
    struct loop *least = loop;
    for (unsigned i = 0; !p->draining && i < all->loop_count; i++)
        if (held(&all->loops[i]) < held(least))
            least = &all->loops[i];
    poller_expect(&least->poller);
    if (least != loop && modus_queue_put(&least->mail, &mail, 0) == 0)
        return 0;
    if (least != loop) {
        poller_expect_no_more(&least->poller);
        poller_expect(p);
    }
    poller_adopt(p, mail.fd, &mail.peer);
    return 0;
}

/* Between loops nobody waits for the other: if there is no room for it, it is not said. */
static void mention(struct loop *loop, struct mail mail)
{
    modus_queue_put(&loop->mail, &mail, 0);
}

/* Loop 0, at the limit. The loops make room in turn; another one is asked, and its answer makes
 * this one look again. */
static bool loop_room(struct poller *p)
{
    struct loops *all = ((struct loop *)p->model)->all;
    for (unsigned i = 0; i < all->loop_count; i++) {
        struct loop *victim = &all->loops[all->victim];
        all->victim = (all->victim + 1) % all->loop_count;
        if (&victim->poller == p && poller_make_room(p))
            return true;
        if (&victim->poller != p && held(victim)) {
            mention(victim, (struct mail){.kind = MAIL_ROOM});
            return false;
        }
    }
    return false;
}

static void room_tried(struct loops *all, bool made)
{
    all->tried = made ? 0 : all->tried + 1;
    if (all->tried + 1 < all->loop_count)
        all->loops[0].poller.room_at_ms = 0;
    else
        all->tried = 0; /* all of them: wait a little */
}

static void read_mail(struct loop *loop)
{
    struct poller *p = &loop->poller;
    struct mail mail[MAIL_BATCH];
    long n;
    while ((n = modus_queue_get_n(&loop->mail, mail, MAIL_BATCH, 0)) > 0) {
        for (long i = 0; i < n; i++) {
            struct poller_conn *pc = mail[i].pc;
            switch (mail[i].kind) {
            case MAIL_CONNECTION:
                poller_adopt(p, mail[i].fd, &mail[i].peer);
                break;
            case MAIL_DONE:
                atomic_store(&pc->state, NONE);
                exchange_finish(conn_exchange(&pc->conn));
                net_histogram_add(&p->net->stats->queued,
                                  exchange_waited_us(conn_exchange(&pc->conn)), 1);
                poller_step(p, pc, 0);
                break;
            case MAIL_KICK:
                poller_step(p, pc, 0);
                break;
            case MAIL_ROOM:
                mention(loop->all->loops,
                        (struct mail){.kind = MAIL_ROOM_TRIED, .made = poller_make_room(p)});
                break;
            case MAIL_ROOM_TRIED:
                room_tried(loop->all, mail[i].made);
                break;
            }
        }
    }
}

static void loop_bell(struct poller *p)
{
    struct loop *loop = p->model;
    struct loops *all = loop->all;
    bool first = loop == all->loops;
    bool drain = first ? worker_look(p->worker) : atomic_load(&all->draining);
    read_mail(loop);
    work_go_on(&loop->work);
    if (!drain || p->draining)
        return;
    poller_drain(p);
    if (!first)
        return;
    worker_set_state(p->worker, WORKER_DRAINING);
    atomic_store(&all->draining, true);
    for (unsigned i = 1; i < all->loop_count; i++)
        modus_doorbell_ring(&all->loops[i].own_bell);
}

static void loop_turn(struct poller *p)
{
    struct loop *loop = p->model;
    work_go_on(&loop->work);
}

static const struct poller_ops ops = {
    .ready = loop_ready,
    .serve = loop_serve,
    .accept = loop_accept,
    .room = loop_room,
    .idle = poller_idle,
    .bell = loop_bell,
    .turn = loop_turn,
    .deadline = loop_deadline,
    .host = &host,
    .accept_batch = ACCEPT_BATCH,
};

/* --- making ---------------------------------------------------------------------------------- */

static int open_loop(struct loops *all, unsigned index)
{
    struct loop *loop = &all->loops[index];
    struct worker *w = all->worker;
    struct modus_doorbell *bell = index ? &loop->own_bell : &w->slot->bell;
    struct modus_queue_attr attr = {
        .scope = MODUS_THREAD, .capacity = 4096, .item_size = sizeof(struct mail)};
    loop->all = all;
    loop->lane = worker_lane(w, index);
    if (index && modus_doorbell_init(&loop->own_bell) != 0)
        return -1;
    unsigned most = w->listener->plan.max_connections;
    if (poller_open(&loop->poller, w, &ops, loop, bell, index, index == 0, most) != 0)
        return -1;
    if (modus_queue_init(&loop->mail, &attr) != 0)
        return -1;
    work_init(&loop->work, &loop->poller, &all->ready, OFFERED);
    return modus_queue_arm_get(&loop->mail, bell);
}

static void *loop_thread(void *arg)
{
    struct loop *loop = arg;
    poller_run(&loop->poller);
    return NULL;
}

static int start(struct loops *all)
{
    struct worker *w = all->worker;
    unsigned wanted = w->listener->plan.helpers;
    all->loop_count = w->listener->plan.threads;
    all->loops = calloc(all->loop_count, sizeof *all->loops);
    all->helpers = calloc(wanted + 1, sizeof *all->helpers);
    if (!all->loops || !all->helpers || work_queue_init(&all->ready, w) != 0)
        return -1;
    for (unsigned i = 0; i < all->loop_count; i++)
        if (open_loop(all, i) != 0)
            return -1;
    for (; all->helper_count < wanted; all->helper_count++)
        if (worker_thread(&all->helpers[all->helper_count], "helper", all->helper_count, helper,
                          all) != 0)
            return -1;
    for (unsigned i = 1; i < all->loop_count; i++)
        if (worker_thread(&all->loops[i].thread, "loop", i, loop_thread, &all->loops[i]) != 0)
            return -1;
    return 0;
}

/* The loops have ended: no connection is left, so no helper is at work. */
static void stop(struct loops *all)
{
    for (unsigned i = 1; i < all->loop_count; i++)
        pthread_join(all->loops[i].thread, NULL);
    modus_queue_close(&all->ready, MODUS_CLOSE_DRAIN);
    for (unsigned i = 0; i < all->helper_count; i++)
        pthread_join(all->helpers[i], NULL);
    for (unsigned i = 0; i < all->loop_count; i++) {
        poller_close(&all->loops[i].poller);
        modus_queue_fini(&all->loops[i].mail);
        modus_doorbell_fini(&all->loops[i].own_bell);
    }
    modus_queue_fini(&all->ready);
    free(all->loops);
    free(all->helpers);
}

static int loops_run(struct worker *w)
{
    struct loops all = {.worker = w};
    if (start(&all) != 0) {
        log_error(
            "event-loop cannot start its loops and helpers: no threads, descriptors or memory");
        return 1;
    }
    worker_ready(w);
    poller_run(&all.loops[0].poller);
    stop(&all);
    return 0;
}

static const char *const uses[] = {"loops", "threads", "queue", "queue_timeout", NULL};

const struct model model_event_loop = {
    .name = "event-loop",
    .summary =
        "loops that wait for all connections; helper threads run handlers that wait or compute",
    .role = "worker",
    .options = "loops = auto (one a CPU), threads = 64 (helpers), queue = 1024, queue_timeout = "
               "10s, max_connections = 10000",
    .uses = uses,
    .plan = loops_plan,
    .note = model_no_note,
    .run = loops_run,
};
