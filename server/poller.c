/* SPDX-License-Identifier: MIT */
/* The event driver: see server/poller.h. A turn is: wait, serve the events, then what is left over,
 * what is due, accept, bury. */
#include "server/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/arrivals.h"
#include "server/intake.h"

enum { EVENTS = 256, CHUNK = 64, LOOK_AT = 4096 };

struct poller_chunk {
    struct poller_chunk *next;
    struct poller_conn conns[CHUNK];
};

/* --- connections ----------------------------------------------------------------------------- */

static void on_conn(struct poller *p, struct poller_source *source, uint32_t events)
{
    struct poller_conn *pc = (struct poller_conn *)source;
    if (pc->used)
        p->ops->ready(p, pc, events);
}

static struct poller_conn *take_spare(struct poller *p)
{
    if (!p->spare) {
        struct poller_chunk *chunk = calloc(1, sizeof *chunk);
        if (!chunk)
            return NULL;
        chunk->next = p->chunks;
        p->chunks = chunk;
        for (size_t i = CHUNK; i-- > 0;) {
            chunk->conns[i] =
                (struct poller_conn){.source.event = on_conn, .poller = p, .next = p->spare};
            p->spare = &chunk->conns[i];
        }
    }
    struct poller_conn *pc = p->spare;
    p->spare = pc->next;
    return pc;
}

static void count_connections(struct poller *p, int change)
{
    atomic_fetch_add_explicit(&p->connections, (uint32_t)change, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->worker->slot->connections, (uint32_t)change,
                              memory_order_relaxed);
}

void poller_expect(struct poller *p)
{
    count_connections(p, 1);
}

void poller_expect_no_more(struct poller *p)
{
    count_connections(p, -1);
}

/* Memory for one that is to be opened, which was expected. NULL when memory is out. */
static struct poller_conn *take_place(struct poller *p)
{
    struct poller_conn *pc = take_spare(p);
    if (!pc) {
        poller_expect_no_more(p);
        return NULL;
    }
    pc->next = NULL;
    pc->registered = pc->listed = pc->to_serve = false;
    pc->co = NULL;
    pc->timer.at_ms = INT64_MAX;
    atomic_store(&pc->timed_ms, INT64_MAX);
    atomic_store(&pc->state, 0);
    atomic_store(&pc->peer_ended, false);
    return pc;
}

static void begin(struct poller *p, struct poller_conn *pc, int opened)
{
    if (opened != 0) {
        poller_expect_no_more(p);
        pc->next = p->spare;
        p->spare = pc;
        return;
    }
    pc->used = true;
    p->ops->ready(p, pc, 0);
}

void poller_adopt(struct poller *p, int fd, const struct conn_peer *peer)
{
    struct poller_conn *pc = take_place(p);
    if (!pc) {
        close(fd);
        return;
    }
    struct transport t;
    transport_plain(&t, fd);
    begin(p, pc,
          conn_open(&pc->conn, &p->worker->listener->service, t, peer, p->ops->host, pc, p->net));
}

void poller_adopt_carried(struct poller *p, const struct conn_carried *carried, void *memory)
{
    struct poller_conn *pc = take_place(p);
    if (!pc) {
        close(carried->fd);
        free(memory);
        return;
    }
    int opened =
        conn_resume(&pc->conn, &p->worker->listener->service, carried, p->ops->host, pc, p->net);
    free(memory);
    begin(p, pc, opened);
}

void poller_forget(struct poller *p, struct poller_conn *pc)
{
    wheel_remove(&p->wheel, &pc->timer);
    pc->used = false;
    pc->registered = false;
    count_connections(p, -1);
    p->room_at_ms = 0;
    if (pc->listed)
        return; /* the list of those to be stepped again gives it back */
    pc->next = p->ended;
    p->ended = pc;
}

/* Memory of ended connections is free once the events fetched with them are served. */
static void bury(struct poller *p)
{
    while (p->ended) {
        struct poller_conn *pc = p->ended;
        p->ended = pc->next;
        pc->next = p->spare;
        p->spare = pc;
    }
}

void poller_register(struct poller *p, struct poller_conn *pc)
{
    if (pc->registered)
        return;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                            .data.ptr = &pc->source};
    pc->registered = true;
    if (epoll_ctl(p->set, EPOLL_CTL_ADD, conn_fd(&pc->conn), &e) != 0)
        conn_hang_up(&pc->conn, false);
}

static struct poller_conn *conn_of(struct wheel_item *item)
{
    return (struct poller_conn *)((char *)item - offsetof(struct poller_conn, timer));
}

static void set_time(struct poller *p, struct poller_conn *pc, int64_t at_ms)
{
    wheel_add(&p->wheel, &pc->timer, at_ms);
    atomic_store_explicit(&pc->timed_ms, at_ms, memory_order_relaxed);
}

void poller_time(struct poller *p, struct poller_conn *pc, int64_t deadline_ms)
{
    if (deadline_ms < pc->timer.at_ms)
        set_time(p, pc, deadline_ms);
}

void poller_tell(struct poller_conn *pc, uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP))
        conn_hang_up(&pc->conn, false);
    else if (events & EPOLLRDHUP)
        conn_hang_up(&pc->conn, true);
}

int64_t poller_deadline(const struct poller_conn *pc)
{
    return atomic_load_explicit(&pc->due_ms, memory_order_relaxed);
}

bool poller_idle(const struct poller_conn *pc)
{
    return conn_spare_ms(&pc->conn) <= pc->poller->net->now_ms;
}

void poller_again(struct poller *p, struct poller_conn *pc)
{
    if (pc->listed)
        return;
    pc->listed = true;
    pc->next = p->again;
    p->again = pc;
}

static void move(struct poller *p, struct poller_conn *pc);

void poller_settle(struct poller *p, struct poller_conn *pc, unsigned wants)
{
    if (wants & CONN_CLOSED) {
        poller_forget(p, pc);
        return;
    }
    if (wants & CONN_WANT_MOVE) {
        move(p, pc);
        return;
    }
    poller_register(p, pc);
    pc->to_serve |= (wants & CONN_WANT_SERVE) != 0;
    atomic_store_explicit(&pc->due_ms, conn_deadline(&pc->conn), memory_order_relaxed);
    if (wants & (CONN_WANT_AGAIN | CONN_WANT_SERVE))
        poller_again(p, pc);
    poller_time(p, pc, p->ops->deadline(pc));
}

bool poller_give(struct poller *p, struct poller_conn *pc, struct net_thread *t)
{
    struct conn_carried carried;
    conn_carry(&pc->conn, t, &carried);
    if (pc->registered)
        epoll_ctl(p->set, EPOLL_CTL_DEL, carried.fd, NULL);
    pc->registered = false;
    int r = intake_give(p->worker->listener->intake[1], &carried);
    if (r == 0) {
        conn_gone_elsewhere(&pc->conn, t);
        return true;
    }
    if (r != -EAGAIN)
        conn_stay(&pc->conn);
    return false;
}

/* Give it away, or try again in a moment: nothing else can happen to it meanwhile. */
static void move(struct poller *p, struct poller_conn *pc)
{
    if (poller_give(p, pc, p->net)) {
        poller_forget(p, pc);
        return;
    }
    int64_t again_ms = p->net->now_ms + 1;
    atomic_store_explicit(&pc->due_ms, again_ms, memory_order_relaxed);
    poller_time(p, pc, again_ms);
}

void poller_step(struct poller *p, struct poller_conn *pc, uint32_t events)
{
    poller_tell(pc, events);
    unsigned wants = conn_step(&pc->conn, p->net);
    if (wants & CONN_WANT_MOVE) {
        move(p, pc);
        return;
    }
    poller_settle(p, pc, wants & ~(unsigned)CONN_WANT_SERVE);
    if (wants & CONN_WANT_SERVE)
        p->ops->serve(p, pc);
}

/* Those that had their share of an earlier turn. New ones wait for the next. */
static void step_again(struct poller *p)
{
    struct poller_conn *list = p->again;
    p->again = NULL;
    while (list) {
        struct poller_conn *pc = list;
        list = pc->next;
        pc->listed = false;
        if (pc->used && pc->to_serve) {
            pc->to_serve = false;
            p->ops->serve(p, pc);
        } else if (pc->used) {
            p->ops->ready(p, pc, 0);
        } else {
            pc->next = p->ended;
            p->ended = pc;
        }
    }
}

static void serve_due(struct poller *p)
{
    struct wheel_item *item;
    while ((item = wheel_due(&p->wheel, p->net->now_ms)) != NULL) {
        struct poller_conn *pc = conn_of(item);
        int64_t deadline = p->ops->deadline(pc);
        set_time(p, pc, deadline > p->net->now_ms ? deadline : INT64_MAX);
        if (deadline <= p->net->now_ms)
            p->ops->ready(p, pc, 0);
    }
}

/* --- room ------------------------------------------------------------------------------------ */

static bool is_idle(struct wheel_item *item, void *arg)
{
    struct poller *p = arg;
    struct poller_conn *pc = conn_of(item);
    int64_t deadline = p->ops->deadline(pc);
    if (deadline > item->at_ms) { /* left behind by the lazy wheel: put it where it belongs */
        set_time(p, pc, deadline);
        return false;
    }
    return p->ops->idle(pc);
}

/* At the limit, the longest idle connection makes room. It may turn out to have a request after
 * all: then it is served, and the next one is tried. */
bool poller_make_room(struct poller *p)
{
    for (int tries = 0; tries < 8; tries++) {
        struct wheel_item *item = wheel_earliest(&p->wheel, is_idle, p, LOOK_AT);
        if (!item)
            return false;
        struct poller_conn *pc = conn_of(item);
        conn_retire(&pc->conn);
        poller_step(p, pc, 0);
        if (!pc->used) {
            net_count(&p->net->stats->evicted, 1);
            return true;
        }
    }
    return false;
}

/* --- draining -------------------------------------------------------------------------------- */

static void step_all(struct poller *p)
{
    for (struct poller_chunk *c = p->chunks; c; c = c->next)
        for (size_t i = 0; i < CHUNK; i++)
            if (c->conns[i].used)
                p->ops->ready(p, &c->conns[i], 0);
}

/* Accept no more, and let the connections go as they come to an end. Between two turns, when all
 * that the kernel has told is known. */
static void retire(struct poller *p)
{
    p->to_retire = false;
    if (p->draining)
        return;
    p->draining = p->retired = true;
    arrivals_retire(p);
    step_all(p);
}

/* Accept what the kernel has, then no more; end what is idle; let the rest finish. */
static void drain(struct poller *p)
{
    p->draining = true;
    p->retired = false;
    arrivals_drain(p);
    step_all(p);
}

bool poller_obey(struct poller *p, enum worker_wish wish)
{
    bool drains = p->draining && !p->retired, retires = p->to_retire || p->retired;
    if (wish == WORKER_STAY || drains || (retires && wish == WORKER_RETIRE))
        return false;
    if (wish == WORKER_DRAIN)
        drain(p);
    else
        p->to_retire = true;
    return true;
}

/* --- turns ----------------------------------------------------------------------------------- */

static void on_bell(struct poller *p, struct poller_source *source, uint32_t events)
{
    (void)source, (void)events;
    modus_doorbell_hear(p->bell);
    p->ops->bell(p);
}

static void on_life(struct poller *p, struct poller_source *source, uint32_t events)
{
    (void)p, (void)source, (void)events;
    _exit(0); /* the master is gone */
}

/* The shorter of two waits; -1 is for ever. */
static int64_t sooner(int64_t one, int64_t other)
{
    return one < 0 || (other >= 0 && other < one) ? other : one;
}

/* How long the next wait may take: until the wheel turns, or accepting may go on. -1: for ever. */
static int wait_ms(const struct poller *p)
{
    if (p->again)
        return 0;
    return (int)sooner(wheel_wait(&p->wheel, p->net->now_ms), arrivals_wait_ms(p));
}

/* A turn that the model wants is not for the wheel: the milliseconds of all who sleep in it add up. */
static int wait_for_events(struct poller *p, struct epoll_event *events)
{
    int wait = wait_ms(p);
    int64_t us = p->look_at_us && wait ? p->look_at_us - net_clock_us() : INT64_MAX;
    if (wait != 0 && p->ops->gives_way)
        give_way(&p->give_way, p->worker->board);
    if (us == INT64_MAX || (wait >= 0 && wait * 1000 <= us))
        return epoll_wait(p->set, events, EVENTS, wait);
    struct timespec time = {us > 0 ? us / 1000000 : 0, us > 0 ? us % 1000000 * 1000 : 0};
    return epoll_pwait2(p->set, events, EVENTS, &time, NULL);
}

static void serve_events(struct poller *p)
{
    struct epoll_event events[EVENTS];
    int n = wait_for_events(p, events);
    net_thread_tick(p->net);
    blocked_turn(&p->blocked, p->net->now_ms);
    for (int i = 0; i < n; i++) {
        struct poller_source *source = events[i].data.ptr;
        source->event(p, source, events[i].events);
    }
}

void poller_run(struct poller *p)
{
    blocked_start(&p->blocked, p->worker, p->net);
    p->ops->bell(p); /* look at everything once */
    while (!p->done) {
        if (p->to_retire)
            retire(p);
        step_again(p);
        serve_due(p);
        arrivals_take(p);
        p->ops->turn(p);
        bury(p);
        if (p->draining && arrivals_over(p))
            p->done = atomic_load(&p->connections) == 0;
        if (!p->done)
            serve_events(p);
    }
    blocked_stop(&p->blocked, p->net);
}

/* --- defaults -------------------------------------------------------------------------------- */

int poller_accept(struct poller *p, int fd)
{
    struct conn_peer peer;
    int got = socket_accept(fd, &peer);
    if (got < 0)
        return got;
    poller_expect(p);
    poller_adopt(p, got, &peer);
    return 0;
}

bool poller_takes(struct poller *p)
{
    (void)p;
    return true;
}

void poller_arrive(struct poller *p, const struct conn_carried *carried, void *memory)
{
    poller_expect(p);
    poller_adopt_carried(p, carried, memory);
}

void poller_no_turn(struct poller *p)
{
    (void)p;
}

/* --- making and ending ------------------------------------------------------------------------ */

int poller_watch(struct poller *p, struct poller_source *source, int fd, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = source};
    return epoll_ctl(p->set, EPOLL_CTL_ADD, fd, &e);
}

int poller_open(struct poller *p, struct worker *w, const struct poller_ops *ops, void *model,
                struct modus_doorbell *bell, unsigned thread, bool listen, unsigned max)
{
    *p = (struct poller){
        .set = epoll_create1(EPOLL_CLOEXEC),
        .bell_source = {on_bell},
        .life_source = {on_life},
        .ops = ops,
        .model = model,
        .worker = w,
        .bell = bell,
        .max_connections = max,
        .net = net_thread_new(worker_read_size(w), worker_stats(w, thread)),
    };
    if (!p->net || p->set < 0)
        return -1;
    wheel_init(&p->wheel, p->net->now_ms);
    if (poller_watch(p, &p->bell_source, modus_doorbell_fd(bell), EPOLLIN) != 0)
        return -1;
    if (!listen)
        return 0;
    if (poller_watch(p, &p->life_source, w->life_line, EPOLLIN) != 0)
        return -1;
    return arrivals_open(p);
}

void poller_close(struct poller *p)
{
    close(p->set);
    arrivals_close(p);
    while (p->chunks) {
        struct poller_chunk *c = p->chunks;
        p->chunks = c->next;
        free(c);
    }
    net_thread_free(p->net);
}
