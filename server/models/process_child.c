/* SPDX-License-Identifier: MIT */
/* A child of the process model: serves one connection to its end. Most answer one request that is there
 * already, and are gone: whatever else a child may need it does when it first has to.
 */
#include "server/models/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "server/inline_host.h"
#include "server/intake.h"

enum { SAY_MS = 50 };

static volatile sig_atomic_t told_to_end;
static int life_line;

/* The clock without the vdso, whose page, and libc's way to it, one who reads it once would map for
 * that alone: 0.1 us against two faults. */
static int64_t clock_us(void)
{
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Asked to end, or the acceptor is dead. If it died with the master, a request in progress is not
 * finished either, whatever its handler waits for. */
static void on_term(int signal)
{
    struct pollfd line = {.fd = life_line, .events = POLLIN};
    (void)signal;
    if (poll(&line, 1, 0) == 1)
        _exit(0);
    told_to_end = 1;
}

/* SIGTERM is delivered only while they wait. */
void process_child_prepare(struct acceptor *a)
{
    static sigset_t open;
    sigset_t term;
    struct sigaction action = {.sa_handler = on_term};
    life_line = a->worker->life_line;
    sigemptyset(&open);
    inline_wait_mask(&open);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Idle children can be asked to make room; one that becomes idle while others wait says so. Not
 * more often than the order in which they became idle can matter: what is said lies in a page that
 * all children write to. Who is asked while it is at work after all finishes that first. */
static void say_idle(struct acceptor *a, struct child_entry *entry, int64_t since_ms)
{
    if (since_ms == a->said_ms || (since_ms && a->said_ms && since_ms - a->said_ms < SAY_MS))
        return;
    a->said_ms = since_ms;
    atomic_store(&entry->idle_ms, since_ms);
    if (since_ms && atomic_load(&a->worker->board->backlog))
        modus_doorbell_ring(&a->worker->slot->bell);
}

/* Before it waits for the first time, is held by a handler, or takes a second step. Most children
 * answer one request that is there already, and are gone before any of this could matter. Returns
 * false if the acceptor is gone already, so that nobody will tell it to end. */
static bool child_settle(struct acceptor *a, struct child_entry *entry)
{
    if (a->settled)
        return true;
    a->settled = true;
    a->net->clock_us = net_clock_us;
    a->worker->logs_seen = &entry->logs_seen;
    for (size_t i = 0; i < a->worker->listener->fd_count; i++)
        if (a->worker->listener->fds[i] >= 0)
            close(a->worker->listener->fds[i]);
    close(a->set);
    close(a->ended);
    parked_forget(&a->parking);
    if (worker_bind_life(a->pid, SIGTERM))
        return true;
    on_term(SIGTERM);
    return false;
}

/* Wait for the peer. After an answer others have their turn first: then the next request is mostly
 * there, and is looked for at once. */
static void child_wait(struct acceptor *a, struct conn *c, unsigned wants)
{
    if (conn_requests(c) != a->requests) {
        a->requests = conn_requests(c);
        if (give_way(&a->give_way, a->worker->board))
            return;
    }
    worker_rest(a->worker);
    inline_wait(c, wants, conn_deadline(c), a->net->now_us);
    worker_wake(a->worker);
}

/* Give the connection to the next generation. Returns false when it is to be tried again, or stays. */
static bool child_gives(struct acceptor *a, struct conn *c)
{
    struct conn_carried carried;
    conn_carry(c, a->net, &carried);
    int r = intake_give(a->worker->listener->intake[1], &carried);
    if (r == 0)
        conn_gone_elsewhere(c, a->net);
    else if (r == -EAGAIN)
        poll(NULL, 0, 1);
    else
        conn_stay(c);
    return r == 0;
}

static void child_serve(struct acceptor *a, struct child_entry *entry, struct conn *c)
{
    for (;;) {
        if (told_to_end && acceptor_phase(a) != SERVICE_MOVING)
            conn_retire(c);
        bool was_idle = conn_is_idle(c);
        unsigned wants = conn_step(c, a->net);
        if (wants & CONN_CLOSED) {
            if (was_idle && told_to_end && acceptor_phase(a) == SERVICE_OPEN)
                net_count(&a->net->stats->evicted, 1);
            return;
        }
        if (wants & CONN_WANT_MOVE && child_gives(a, c))
            return;
        bool at_once = wants & (CONN_WANT_AGAIN | CONN_WANT_MOVE);
        if (!at_once || a->stepped)
            at_once |= !child_settle(a, entry);
        a->stepped = true;
        inline_hear(); /* a peer that always has more lets it never wait */
        if (wants & CONN_WANT_SERVE) {
            say_idle(a, entry, 0);
            inline_serve(c, a->net);
        } else if (!at_once) {
            int64_t spare_ms = conn_spare_ms(c);
            say_idle(a, entry, spare_ms == INT64_MAX ? 0 : spare_ms);
            child_wait(a, c, wants);
        }
        net_thread_tick(a->net);
        if (a->settled)
            worker_look(a->worker); /* logs may have to be opened again */
    }
}

static int child_begin(struct acceptor *a, struct conn *c)
{
    const struct service *service = &a->worker->listener->service;
    struct transport t;
    if (a->held_parked)
        return conn_resume(c, service, &a->held_parked->carried, &inline_host, NULL, a->net);
    transport_plain(&t, a->held_fd);
    return conn_open(c, service, t, &a->held_peer, &inline_host, NULL, a->net);
}

noreturn void process_child_run(struct acceptor *a, struct child_entry *entry)
{
    struct conn c;
    net_thread_set(a->net, a->now_us);
    a->net->clock_us = clock_us;
    if (child_begin(a, &c) == 0)
        child_serve(a, entry, &c);
    _exit(0);
}
