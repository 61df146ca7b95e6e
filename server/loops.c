/* SPDX-License-Identifier: MIT */
/* Several loops in a process: see server/loops.h. */
#include "server/loops.h"

#include <stdlib.h>
#include <unistd.h>

#include "concurrency/coroutine.h"
#include "net/socket.h"
#include "server/log.h"
#include "server/models/model.h"

enum { MAIL_BATCH = 128, MAIL_ROOM = 4096 };

enum mail_kind {
    MAIL_CONNECTION,
    MAIL_CARRIED,
    MAIL_KICK,
    MAIL_DONE,
    MAIL_MAKE_ROOM,
    MAIL_ROOM_TRIED
};

/* What comes to a loop from other threads. */
struct mail {
    enum mail_kind kind;
    bool made; /* the room that was asked for */
    int fd;
    struct conn_peer peer;
    union {
        struct poller_conn *pc;
        struct arrival *arrival;
    };
};

/* A connection from an earlier generation. */
struct arrival {
    struct conn_carried carried;
    void *memory;
};

/* --- run handlers ---------------------------------------------------------------------------- */

/* In a coroutine a wait that is over before it begins still lets the loop look at the peer. */
static void host_wait(void *host, struct exchange *x, int64_t deadline_ms)
{
    (void)host;
    struct modus_event *event = exchange_event(x);
    modus_event_clear(event);
    if (exchange_has_news(x))
        return;
    if (deadline_ms == INT64_MAX)
        modus_event_wait(event, MODUS_FOREVER);
    else if (modus_now_ns() < deadline_ms * 1000000)
        modus_event_wait_until(event, deadline_ms * 1000000);
    else
        modus_co_yield();
}

static void host_wake(void *host, struct exchange *x)
{
    struct poller_conn *pc = host;
    modus_event_set(exchange_event(x));
    if (pc->co && exchange_is_cancelled(x))
        modus_co_cancel(pc->co);
}

static void post(struct poller_conn *pc, enum mail_kind kind)
{
    struct loop *loop = pc->poller->model;
    struct mail mail = {.kind = kind, .pc = pc};
    modus_queue_put(&loop->mail, &mail, MODUS_FOREVER); /* the loop always empties it */
}

static void host_kick(void *host, struct exchange *x)
{
    struct poller_conn *pc = host;
    (void)x;
    if (modus_co_self())
        poller_again(pc->poller, pc);
    else
        post(pc, MAIL_KICK);
}

const struct conn_host loops_host = {host_wait, host_kick, host_wake};

void loops_done(struct poller_conn *pc)
{
    post(pc, MAIL_DONE);
}

void loops_finish(struct loop *loop, struct poller_conn *pc)
{
    exchange_finish(conn_exchange(&pc->conn));
    poller_step(&loop->poller, pc, 0);
}

/* --- dealing --------------------------------------------------------------------------------- */

static uint32_t held(const struct loop *loop)
{
    return atomic_load_explicit(&loop->poller.connections, memory_order_relaxed);
}

static struct loop *least_loaded(struct loop *loop)
{
    struct loops *all = loop->all;
    struct loop *least = loop;
    bool leaves = loop->poller.draining || loop->poller.to_retire; /* the others may be gone */
    for (unsigned i = 0; !leaves && i < all->count; i++)
        if (held(&all->loops[i]) < held(least))
            least = &all->loops[i];
    return least;
}

/* Give a connection to the loop that has the fewest. Returns false when it is to be adopted here. */
static bool deal(struct loop *loop, const struct mail *mail)
{
    struct loop *least = least_loaded(loop);
    poller_expect(&least->poller);
    if (least == loop)
        return false;
    if (modus_queue_put(&least->mail, mail, 0) == 0)
        return true;
    poller_expect_no_more(&least->poller);
    poller_expect(&loop->poller);
    return false;
}

int loops_accept(struct poller *p, int fd)
{
    struct mail mail = {.kind = MAIL_CONNECTION};
    mail.fd = socket_accept(fd, &mail.peer);
    if (mail.fd < 0)
        return mail.fd;
    if (!deal(p->model, &mail))
        poller_adopt(p, mail.fd, &mail.peer);
    return 0;
}

static void adopt(struct poller *p, struct arrival *arrival)
{
    poller_adopt_carried(p, &arrival->carried, arrival->memory);
    free(arrival);
}

void loops_arrive(struct poller *p, const struct conn_carried *carried, void *memory)
{
    struct mail mail = {.kind = MAIL_CARRIED, .arrival = malloc(sizeof *mail.arrival)};
    if (!mail.arrival) {
        poller_arrive(p, carried, memory);
        return;
    }
    *mail.arrival = (struct arrival){*carried, memory};
    if (!deal(p->model, &mail))
        adopt(p, mail.arrival);
}

/* If there is no room for it, it is not said. */
static void mention(struct loop *loop, struct mail mail)
{
    modus_queue_put(&loop->mail, &mail, 0);
}

/* Loop 0, at the limit. The loops make room in turn; another one is asked, and its answer makes
 * this one look again. */
bool loops_room(struct poller *p)
{
    struct loops *all = ((struct loop *)p->model)->all;
    for (unsigned i = 0; i < all->count; i++) {
        struct loop *victim = &all->loops[all->victim];
        all->victim = (all->victim + 1) % all->count;
        if (&victim->poller == p && poller_make_room(p))
            return true;
        if (&victim->poller != p && held(victim)) {
            mention(victim, (struct mail){.kind = MAIL_MAKE_ROOM});
            return false;
        }
    }
    return false;
}

static void room_tried(struct loops *all, bool made)
{
    all->tried = made ? 0 : all->tried + 1;
    if (all->tried + 1 < all->count)
        all->loops[0].poller.room_at_ms = 0;
    else
        all->tried = 0; /* all of them: wait a little */
}

static void serve_mail(struct loop *loop, const struct mail *mail)
{
    struct poller *p = &loop->poller;
    switch (mail->kind) {
    case MAIL_CONNECTION:
        poller_adopt(p, mail->fd, &mail->peer);
        break;
    case MAIL_CARRIED:
        adopt(p, mail->arrival);
        break;
    case MAIL_DONE:
        loop->all->ops->done(loop, mail->pc);
        break;
    case MAIL_KICK:
        poller_step(p, mail->pc, 0);
        break;
    case MAIL_MAKE_ROOM:
        mention(loop->all->loops,
                (struct mail){.kind = MAIL_ROOM_TRIED, .made = poller_make_room(p)});
        break;
    case MAIL_ROOM_TRIED:
        room_tried(loop->all, mail->made);
        break;
    }
}

static void read_mail(struct loop *loop)
{
    struct mail mail[MAIL_BATCH];
    long n;
    while ((n = modus_queue_get_n(&loop->mail, mail, MAIL_BATCH, 0)) > 0)
        for (long i = 0; i < n; i++)
            serve_mail(loop, &mail[i]);
}

void loops_bell(struct poller *p)
{
    struct loop *loop = p->model;
    struct loops *all = loop->all;
    enum worker_wish wish =
        loop->index ? (enum worker_wish)atomic_load(&all->wish) : worker_look(p->worker);
    read_mail(loop);
    all->ops->bell(loop);
    if (!poller_obey(p, wish) || loop->index)
        return;
    atomic_store(&all->wish, wish);
    for (unsigned i = 1; i < all->count; i++)
        modus_doorbell_ring(&all->loops[i].own_bell);
}

/* --- making ---------------------------------------------------------------------------------- */

unsigned loops_wanted(const struct config_listener *conf)
{
    return conf->loops > 0 ? (unsigned)conf->loops : model_cpus();
}

static int open_loop(struct loops *all, unsigned index)
{
    struct loop *loop = &all->loops[index];
    struct worker *w = all->worker;
    struct modus_doorbell *bell = index ? &loop->own_bell : &w->slot->bell;
    struct modus_queue_attr attr = {
        .scope = MODUS_THREAD, .capacity = MAIL_ROOM, .item_size = sizeof(struct mail)};
    loop->all = all;
    loop->index = index;
    loop->lane = worker_lane(w, index);
    if (index && modus_doorbell_init(&loop->own_bell) != 0)
        return -1;
    unsigned most = w->listener->plan.max_connections;
    if (poller_open(&loop->poller, w, all->ops->poller, loop, bell, index, index == 0, most) != 0)
        return -1;
    if (modus_queue_init(&loop->mail, &attr) != 0)
        return -1;
    return modus_queue_arm_get(&loop->mail, bell);
}

int loops_open(struct loops *all, struct worker *w, const struct loops_ops *ops, void *own)
{
    *all = (struct loops){.worker = w, .ops = ops, .own = own};
    unsigned wanted = w->listener->plan.threads;
    struct modus_sem_attr attr = {.scope = MODUS_THREAD};
    if (modus_sem_init(&all->begun, &attr) != 0)
        return -1;
    all->loops = calloc(wanted, sizeof *all->loops);
    for (; all->loops && all->count < wanted; all->count++)
        if (open_loop(all, all->count) != 0)
            return -1;
    return all->loops ? 0 : -1;
}

/* One that has taken a connection needs all of them. */
static void wait_for_others(struct loops *all)
{
    for (unsigned i = 1; i < all->count; i++)
        modus_sem_acquire(&all->begun, MODUS_FOREVER);
    worker_ready(all->worker);
}

/* A process that lacks a loop is of no use: another takes its place. */
static void run_loop(struct loop *loop)
{
    const struct loops_ops *ops = loop->all->ops;
    if (ops->begin(loop) != 0)
        _exit(1);
    if (loop->index)
        modus_sem_release(&loop->all->begun, 1);
    else
        wait_for_others(loop->all);
    poller_run(&loop->poller);
    ops->end(loop);
}

static void *loop_thread(void *arg)
{
    run_loop(arg);
    return NULL;
}

int loops_run(struct loops *all)
{
    for (unsigned i = 1; i < all->count; i++)
        if (worker_thread(&all->loops[i].thread, "loop", i, loop_thread, &all->loops[i]) != 0)
            return -1;
    run_loop(&all->loops[0]);
    for (unsigned i = 1; i < all->count; i++)
        pthread_join(all->loops[i].thread, NULL);
    return 0;
}

void loops_close(struct loops *all)
{
    for (unsigned i = 0; i < all->count; i++) {
        poller_close(&all->loops[i].poller);
        modus_queue_fini(&all->loops[i].mail);
        modus_doorbell_fini(&all->loops[i].own_bell);
    }
    modus_sem_fini(&all->begun);
    free(all->loops);
}

int loops_no_begin(struct loop *loop)
{
    (void)loop;
    return 0;
}

void loops_no_end(struct loop *loop)
{
    (void)loop;
}
