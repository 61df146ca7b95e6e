/* SPDX-License-Identifier: MIT */
/* Who comes to a poller: see server/arrivals.h. */
#include "server/arrivals.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/intake.h"
#include "server/log.h"

enum { PAUSE_MS = 100, QUIET_MS = 150, ROOM_MS = 20, LAST_MOST = 4096 };

/* --- accepting ------------------------------------------------------------------------------- */

static void pause_accepting(struct poller *p, int error)
{
    net_count(&p->net->stats->accept_paused, 1);
    if (p->accept_at_ms == 0)
        log_warn("%s: cannot accept: %s; waiting for descriptors to come free",
                 p->worker->listener->conf->addresses[0].text, strerror(error));
    p->accept_at_ms = p->net->now_ms + PAUSE_MS;
}

/* Together with those of other loops that share its places. */
static bool is_full(const struct poller *p)
{
    return atomic_load_explicit(&p->worker->slot->connections, memory_order_relaxed) >=
           p->max_connections;
}

/* Accept up to budget from one descriptor. Returns what is left of the budget. */
static unsigned accept_from(struct poller *p, struct poller_listener *l, unsigned budget)
{
    while (budget && l->maybe) {
        if (is_full(p)) {
            l->maybe = socket_has_waiting(l->fd);
            p->room_at_ms = l->maybe && !p->ops->room(p) ? p->net->now_ms + ROOM_MS : 0;
            if (!l->maybe || p->room_at_ms)
                break;
        }
        int r = p->ops->accept(p, l->fd);
        if (r == 0) {
            p->accept_at_ms = 0;
            p->quiet_ms = p->net->now_ms;
            budget--;
        } else if (r == -EAGAIN) { /* so there was a descriptor for one */
            p->accept_at_ms = 0;
            l->maybe = false;
        } else if (!p->ops->room(p)) {
            pause_accepting(p, -r);
            break;
        }
    }
    return budget;
}

static void accept_some(struct poller *p)
{
    unsigned budget = p->ops->accept_batch;
    if (p->accept_at_ms > p->net->now_ms)
        return;
    size_t n = p->listener_count, first = p->first_listener++;
    for (size_t i = 0; i < n; i++)
        budget = accept_from(p, &p->listeners[(first + i) % n], budget);
}

void poller_look_for_more(struct poller *p)
{
    for (size_t i = 0; i < p->listener_count; i++)
        p->listeners[i].maybe = p->listeners[i].fd >= 0;
}

static bool may_accept(const struct poller *p)
{
    if (p->room_at_ms > p->net->now_ms)
        return false;
    for (size_t i = 0; i < p->listener_count; i++)
        if (p->listeners[i].maybe)
            return true;
    return false;
}

static void on_listener(struct poller *p, struct poller_source *source, uint32_t events)
{
    (void)source, (void)events;
    poller_look_for_more(p);
}

static int watch_listeners(struct poller *p)
{
    const struct listener *l = p->worker->listener;
    p->listeners = calloc(l->fd_count, sizeof *p->listeners);
    if (!p->listeners)
        return -1;
    for (size_t i = 0; i < l->fd_count; i++) {
        struct poller_listener *pl = &p->listeners[i];
        *pl = (struct poller_listener){{on_listener}, l->fds[i], true};
        if (poller_watch(p, &pl->source, pl->fd, EPOLLIN | EPOLLET | p->ops->listen_events) != 0)
            return -1;
        p->listener_count++;
    }
    return 0;
}

/* --- arrivals from an earlier generation ------------------------------------------------------ */

static int watch_intake(struct poller *p)
{
    return poller_watch(p, &p->intake_source, p->worker->listener->intake[0], EPOLLIN);
}

/* There is no descriptor for the next one, and nobody idle whose it could have. It waits there, and
 * is not told of again and again. */
static void pause_intake(struct poller *p)
{
    net_count(&p->net->stats->accept_paused, 1);
    if (!p->intake_said)
        log_warn("%s: no descriptors for connections of the earlier generation; they wait",
                 p->worker->listener->conf->addresses[0].text);
    p->intake_said = true;
    if (!p->intake_at_ms)
        epoll_ctl(p->set, EPOLL_CTL_DEL, p->worker->listener->intake[0], NULL);
    p->intake_at_ms = p->net->now_ms + ROOM_MS;
}

static void close_intake(struct poller *p)
{
    epoll_ctl(p->set, EPOLL_CTL_DEL, p->worker->listener->intake[0], NULL);
    p->takes_in = false;
}

static void on_intake(struct poller *p, struct poller_source *source, uint32_t events)
{
    struct conn_carried carried;
    void *memory;
    (void)source, (void)events;
    for (unsigned i = 0; i < p->ops->accept_batch && p->ops->takes(p); i++) {
        int r = intake_take(p->worker->listener->intake[0], &carried, &memory);
        if (r == 0) {
            p->ops->arrive(p, &carried, memory);
        } else if (r != -EMFILE || !p->ops->room(p)) {
            if (r == -EMFILE)
                pause_intake(p);
            else if (r == -EPIPE)
                close_intake(p);
            return;
        }
    }
}

/* After a pause. */
static void resume_intake(struct poller *p)
{
    if (!p->intake_at_ms || p->net->now_ms < p->intake_at_ms)
        return;
    p->intake_at_ms = 0;
    if (p->takes_in)
        watch_intake(p);
}

int arrivals_open(struct poller *p)
{
    if (watch_listeners(p) != 0)
        return -1;
    if (p->worker->listener->intake[0] < 0)
        return 0;
    p->intake_source.event = on_intake;
    p->takes_in = true;
    return watch_intake(p);
}

void arrivals_close(struct poller *p)
{
    free(p->listeners);
}

/* --- turns ----------------------------------------------------------------------------------- */

void arrivals_take(struct poller *p)
{
    resume_intake(p);
    if (may_accept(p))
        accept_some(p);
}

int64_t arrivals_wait_ms(const struct poller *p)
{
    bool may = may_accept(p);
    if (may && p->accept_at_ms <= p->net->now_ms)
        return 0;
    if (p->room_at_ms || p->intake_at_ms)
        return ROOM_MS;
    return (p->accept_at_ms && may) || (p->draining && !p->drained) ? PAUSE_MS : -1;
}

/* --- the end --------------------------------------------------------------------------------- */

/* A descriptor that others have too stays in the set when it is closed. */
static void close_listener(struct poller *p, struct poller_listener *l)
{
    if (l->fd < 0)
        return;
    epoll_ctl(p->set, EPOLL_CTL_DEL, l->fd, NULL);
    close(l->fd);
    l->fd = -1;
    l->maybe = false;
}

static void close_listeners(struct poller *p)
{
    for (size_t i = 0; i < p->listener_count; i++)
        close_listener(p, &p->listeners[i]);
    p->drained = true;
}

/* Where others accept now, what comes is theirs. */
static void close_left(struct poller *p)
{
    for (size_t i = 0; i < p->listener_count; i++)
        if (board_leaves(p->worker->board, i))
            close_listener(p, &p->listeners[i]);
}

/* Where the kernel wakes one of those who wait, and that was us, or one who passed it on, nobody else
 * will hear of who came. */
static void accept_last(struct poller *p)
{
    if (atomic_load(&p->worker->board->backlog))
        poller_look_for_more(p);
    for (size_t i = 0; i < p->listener_count; i++)
        for (unsigned n = 0; n < LAST_MOST && p->listeners[i].maybe; n++)
            if (p->ops->accept(p, p->listeners[i].fd) != 0)
                break;
}

/* The next generation takes in what earlier ones give, unless it can't. */
static void leave_intake(struct poller *p)
{
    if (p->takes_in && atomic_load(p->worker->slot->phase) == SERVICE_MOVING)
        close_intake(p);
}

/* Is what the kernel had begun to accept accepted? The last of it may take a moment to arrive. */
static bool is_quiet(const struct poller *p)
{
    return !may_accept(p) && !p->room_at_ms && !p->accept_at_ms &&
           p->net->now_ms >= p->quiet_ms + QUIET_MS;
}

static bool has_listeners(const struct poller *p)
{
    for (size_t i = 0; i < p->listener_count; i++)
        if (p->listeners[i].fd >= 0)
            return true;
    return false;
}

static void begin_end(struct poller *p)
{
    if (p->listener_count)
        worker_set_state(p->worker, WORKER_DRAINING);
    p->quiet_ms = p->net->now_ms;
    close_left(p);
}

void arrivals_retire(struct poller *p)
{
    accept_last(p);
    leave_intake(p);
    p->accept_at_ms = p->room_at_ms = 0;
    begin_end(p);
    p->drained = !has_listeners(p);
}

void arrivals_drain(struct poller *p)
{
    begin_end(p);
    poller_look_for_more(p);
}

bool arrivals_over(struct poller *p)
{
    if (!p->drained && p->listener_count && !is_quiet(p))
        return false;
    close_listeners(p);
    if (p->takes_in)
        on_intake(p, &p->intake_source, 0);
    return true;
}
