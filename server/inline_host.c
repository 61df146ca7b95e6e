/* SPDX-License-Identifier: MIT */
/* Run handlers on their connection's thread: see server/inline_host.h. */
#include "server/inline_host.h"

#include <poll.h>
#include <signal.h>

enum { HEAR = 16 };

/* The serving things of the thread whose handler is at work. */
static _Thread_local struct net_thread *this_thread;

static const sigset_t *wait_mask;

void inline_wait_mask(const sigset_t *mask)
{
    wait_mask = mask;
}

void inline_wait(struct conn *c, unsigned wants, int64_t deadline_ms, int64_t now_us)
{
    struct pollfd fd = {.fd = conn_fd(c)};
    if (wants & CONN_WANT_READ)
        fd.events |= POLLIN;
    if (wants & CONN_WANT_WRITE)
        fd.events |= POLLOUT;
    int64_t us = deadline_ms == INT64_MAX ? 0 : deadline_ms * 1000 - now_us;
    if (us < 0)
        us = 0;
    struct timespec wait = {us / 1000000, us % 1000000 * 1000};
    int n = ppoll(&fd, 1, deadline_ms == INT64_MAX ? NULL : &wait, wait_mask);
    if (n > 0 && (fd.revents & (POLLERR | POLLHUP | POLLNVAL)))
        conn_hang_up(c, false);
}

void inline_hear(void)
{
    static _Thread_local unsigned calls;
    sigset_t before;
    if (!wait_mask || ++calls % HEAR != 0)
        return;
    pthread_sigmask(SIG_SETMASK, wait_mask, &before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* The thread drives the connection until the handler has something to look at. */
static void host_wait(void *host, struct exchange *x, int64_t deadline_ms)
{
    struct conn *c = exchange_conn(x);
    struct net_thread *t = this_thread;
    (void)host;
    inline_hear();
    net_thread_tick(t);
    unsigned wants = conn_step(c, t);
    if (exchange_has_news(x) || (wants & CONN_WANT_AGAIN))
        return;
    int64_t until = conn_deadline(c) < deadline_ms ? conn_deadline(c) : deadline_ms;
    inline_wait(c, wants, until, t->now_us);
    net_thread_tick(t);
    conn_step(c, t);
}

static void host_kick(void *host, struct exchange *x)
{
    (void)host;
    net_thread_tick(this_thread);
    conn_step(exchange_conn(x), this_thread);
}

static void host_wake(void *host, struct exchange *x)
{
    (void)host, (void)x; /* the handler is this thread */
}

const struct conn_host inline_host = {host_wait, host_kick, host_wake};

void inline_serve(struct conn *c, struct net_thread *t)
{
    struct exchange *x = conn_exchange(c);
    this_thread = t;
    exchange_serve(x);
    exchange_finish(x);
    net_thread_tick(t);
}
