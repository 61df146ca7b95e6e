/* SPDX-License-Identifier: MIT */
/* Loops that a handler has blocked: see server/blocked.h. */
#include "server/blocked.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concurrency/result.h"
#include "net/thread.h"
#include "server/log.h"
#include "server/worker.h"

enum { SAY_MS = 60000, HOLD_MS = 100 };

void blocked_init(struct blocked *b)
{
    modus_lock_init(&b->lock, MODUS_PROCESS);
}

void blocked_fini(struct blocked *b)
{
    modus_lock_fini(&b->lock);
}

/* One who died with it has left numbers that are a little wrong at worst. */
static bool hold(struct blocked *b)
{
    int rc = modus_lock_acquire(&b->lock, modus_ms(HOLD_MS));
    if (rc == MODUS_OWNERDEAD)
        modus_lock_consistent(&b->lock);
    return rc >= 0;
}

static void take_last(struct blocked *to, const struct blocked *from)
{
    to->at_ms = from->at_ms;
    to->last_ms = from->last_ms;
    memcpy(to->route, from->route, sizeof to->route);
    memcpy(to->handler, from->handler, sizeof to->handler);
    to->route[sizeof to->route - 1] = to->handler[sizeof to->handler - 1] = '\0';
}

void blocked_add(struct blocked *to, struct blocked *from)
{
    uint64_t count = atomic_load(&from->count);
    if (!count || !hold(from))
        return;
    atomic_fetch_add(&to->count, count);
    if (from->longest_ms > to->longest_ms)
        to->longest_ms = from->longest_ms;
    if (from->at_ms >= to->at_ms)
        take_last(to, from);
    modus_lock_release(&from->lock);
}

/* --- a loop -------------------------------------------------------------------------------------- */

static void on_held(void *arg, const struct route *route, int64_t us)
{
    blocked_by(arg, route, us / 1000);
}

void blocked_start(struct blocked_watch *w, const struct worker *worker, struct net_thread *t)
{
    *w = (struct blocked_watch){.worker = worker,
                                .fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC)};
    t->held = on_held;
    t->held_arg = w;
    t->held_us = BLOCKED_MS * 1000;
    blocked_read(w, t->now_ms);
}

void blocked_stop(struct blocked_watch *w, struct net_thread *t)
{
    t->held = NULL;
    if (w->fd >= 0)
        close(w->fd);
}

/* "ran waited times", in ns and since it began. */
static int64_t waited_us(const struct blocked_watch *w)
{
    char text[80];
    ssize_t n = w->fd < 0 ? 0 : pread(w->fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    const char *second = strchr(text, ' ');
    return second ? strtoll(second, NULL, 10) / 1000 : w->waited_us;
}

void blocked_read(struct blocked_watch *w, int64_t now_ms)
{
    w->read_ms = now_ms;
    w->waited_us = waited_us(w);
}

/* Under the lock. Returns how many were not said before this one, or -1: it is too early for a line. */
static int64_t may_say(struct blocked *b)
{
    int64_t now_ms = net_clock_us() / 1000, unsaid = (int64_t)b->unsaid;
    if (b->said_ms && now_ms - b->said_ms < SAY_MS) {
        b->unsaid++;
        return -1;
    }
    b->said_ms = now_ms;
    b->unsaid = 0;
    return unsaid;
}

static void say(const struct listener *l, const struct blocked *last, int64_t unsaid)
{
    char more[80] = "";
    if (unsaid)
        snprintf(more, sizeof more, "; %" PRId64 " more since the last such line", unsaid);
    log_warn("%s: route \"%s\": the handler %s has held its loop for %" PRIu64
             " ms, and all its other connections with it%s",
             listener_name(l), last->route, last->handler, last->last_ms, more);
}

void blocked_by(struct blocked_watch *w, const struct route *route, int64_t ms)
{
    const struct listener *l = w->worker->listener;
    struct blocked *b = &w->worker->board->blocked, last = {0};
    struct timespec now;
    int64_t before_us = w->waited_us, now_ms = net_clock_us() / 1000;
    blocked_read(w, now_ms);
    ms -= (w->waited_us - before_us) / 1000;
    if (ms < BLOCKED_MS)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    last.at_ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    last.last_ms = (uint64_t)ms;
    snprintf(last.route, sizeof last.route, "%.*s", (int)route->prefix.len, route->prefix.at);
    snprintf(last.handler, sizeof last.handler, "%s", listener_handler(l, route));
    atomic_fetch_add(&b->count, 1);
    if (!hold(b))
        return;
    take_last(b, &last);
    if (last.last_ms > b->longest_ms)
        b->longest_ms = last.last_ms;
    int64_t unsaid = may_say(b);
    modus_lock_release(&b->lock);
    if (unsaid >= 0)
        say(l, &last, unsaid);
}
