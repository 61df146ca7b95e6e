/* SPDX-License-Identifier: MIT */
/* Workers that are worn (server/wear.h) are replaced, one of a listener at a time:
 *
 *   nothing under way
 *     | a worker has reached a limit: another is started in the spare place
 *   old and fresh: the fresh one is not ready, the old one serves on
 *     | ready: the old one retires as at a reload       | ended, or not ready in 30 s: it is given
 *   old alone: it finishes what it has                  | up, and tried again after a while
 *     | gone, or cut when drain_timeout is over: its place is the spare one now
 *   nothing under way
 *
 * The next one begins only when the old one is gone, not already when it has been replaced: so a
 * listener never has more than one process above its number, the spare place is enough, and `modus
 * explain` can say what it costs. When connections hold the old ones for long, limits are passed by
 * meanwhile; drain_timeout bounds that.
 *
 * A generation that retires or stops takes all of its workers along, whatever they are here.
 */
#include <stdio.h>

#include "server/log.h"
#include "server/supervisor_priv.h"

enum {
    LOOK_MS = 100,         /* at the requests */
    MEMORY_LOOK_MS = 1000, /* at the memory, which costs a file of /proc a worker */
    START_MS = 30000,
    BACKOFF_MIN_MS = 1000,
    BACKOFF_MAX_MS = 60000,
};

static int64_t now_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000);
}

static struct worker_slot *slot_of(const struct supervised *s)
{
    return &s->generation->listener.board->slots[s->slot];
}

/* What the file says. In a listener that has a process for each connection it is the acceptor that
 * is replaced; requests are its children's. */
static struct wear limits_in(const struct listener *l)
{
    return (struct wear){
        .requests = model_uses(l->model, "worker_requests") ? l->conf->worker_requests : 0,
        .memory_bytes = l->conf->worker_memory,
        .age_ms = l->conf->worker_age_ms,
    };
}

static struct wear limits_of(const struct supervised *s)
{
    struct wear limits = limits_in(&s->generation->listener);
    return wear_limits(&limits, s->nth);
}

static struct wear wear_of(const struct supervised *s, bool memory, int64_t now)
{
    return (struct wear){
        .requests = (int64_t)board_slot_requests(s->generation->listener.board, slot_of(s)),
        .memory_bytes = memory ? wear_memory(s->pid) : 0,
        .age_ms = now - s->started_ms,
    };
}

static bool is_serving(const struct supervised *s)
{
    return s->pid && !atomic_load(&slot_of(s)->spare) && modus_event_is_set(&slot_of(s)->ready);
}

/* --- steps ----------------------------------------------------------------------------------- */

static void vacate(struct supervised *s)
{
    atomic_store(&slot_of(s)->spare, true);
    uv_timer_stop(&s->respawn);
}

/* Nothing has changed but that it was tried. */
static void give_up(struct generation *g, const char *how)
{
    struct recycling *r = &g->recycling;
    r->backoff_ms = r->backoff_ms ? r->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (r->backoff_ms > BACKOFF_MAX_MS)
        r->backoff_ms = BACKOFF_MAX_MS;
    r->again_ms = now_ms() + r->backoff_ms;
    vacate(r->fresh);
    if (g->state == GENERATION_SERVING && r->old->pid)
        log_warn("%s: worker %d was to be replaced (%s), but the other %s: it goes on, and another "
                 "is tried in %lld s",
                 listener_name(&g->listener), r->old->pid, wear_key(r->reason), how,
                 (long long)r->backoff_ms / 1000);
    r->old = r->fresh = NULL;
}

static struct supervised *spare_of(const struct generation *g)
{
    for (unsigned i = 0; i < g->listener.board->slot_count; i++)
        if (atomic_load(&slot_of(&g->workers[i])->spare))
            return &g->workers[i];
    return NULL;
}

/* Of those that have reached a limit, the one that has served longest. */
static struct supervised *find_worn(struct generation *g, int64_t now, enum wear_reason *reason)
{
    struct recycling *r = &g->recycling;
    struct supervised *found = NULL;
    bool memory = g->listener.conf->worker_memory && now >= r->memory_ms;
    if (memory)
        r->memory_ms = now + MEMORY_LOOK_MS;
    for (unsigned i = 0; i < g->listener.board->slot_count; i++) {
        struct supervised *s = &g->workers[i];
        if (!is_serving(s) || (found && found->started_ms <= s->started_ms))
            continue;
        struct wear limits = limits_of(s), is = wear_of(s, memory, now);
        enum wear_reason why = wear_reached(&is, &limits);
        if (why == WEAR_NONE)
            continue;
        found = s;
        *reason = why;
    }
    return found;
}

static void begin(struct generation *g, int64_t now)
{
    struct recycling *r = &g->recycling;
    struct supervised *fresh = spare_of(g), *old = fresh ? find_worn(g, now, &r->reason) : NULL;
    if (!old)
        return;
    r->old = old;
    r->fresh = fresh;
    r->until_ms = now + START_MS;
    atomic_store(&slot_of(fresh)->spare, false);
    if (worker_start(fresh) != 0)
        give_up(g, "could not be made");
}

/* The fresh one accepts: let the old one's connections go. */
static void hand_over(struct generation *g, int64_t now)
{
    struct recycling *r = &g->recycling;
    struct wear was = wear_of(r->old, true, now);
    log_info("%s: worker %d is recycled (%s) after %lld requests and %.1f s, with %.1f MiB; worker "
             "%d has taken its place",
             listener_name(&g->listener), r->old->pid, wear_key(r->reason), (long long)was.requests,
             (double)was.age_ms / 1000,
             was.memory_bytes > 0 ? (double)was.memory_bytes / 1048576 : 0, r->fresh->pid);
    atomic_fetch_add(&g->listener.board->recycled[r->reason], 1);
    board_retire(slot_of(r->old), g->listener.intake[1] >= 0);
    modus_doorbell_ring(&slot_of(r->old)->bell);
    r->fresh = NULL;
    r->backoff_ms = 0;
    r->until_ms = now + g->master->config->drain_timeout_ms;
}

static void cut_late(struct generation *g)
{
    struct recycling *r = &g->recycling;
    r->until_ms = INT64_MAX;
    if (!r->fresh)
        log_warn(
            "%s: drain_timeout is over for the recycled worker in place %u: what is left is cut",
            listener_name(&g->listener), r->old->slot);
    worker_cut(r->fresh ? r->fresh : r->old);
}

bool recycle_ended(struct supervised *s)
{
    struct generation *g = s->generation;
    struct recycling *r = &g->recycling;
    if (!r->old || (s != r->old && s != r->fresh))
        return false;
    if (s == r->fresh) {
        give_up(g, s->cut ? "was not ready after 30 s" : "has ended before it was ready");
        return true;
    }
    vacate(s);
    if (r->fresh) { /* it takes the place of the dead one, as others would */
        r->fresh = NULL;
        r->until_ms = now_ms() + g->master->config->drain_timeout_ms;
    }
    workers_ring(g); /* what it was to look at, others look at now */
    return true;
}

/* --- looking --------------------------------------------------------------------------------- */

static bool is_in_service(const struct generation *g)
{
    return g->state == GENERATION_SERVING && !g->killing;
}

static void look_at(struct generation *g, int64_t now)
{
    struct recycling *r = &g->recycling;
    bool serves = is_in_service(g);
    if (r->fresh && serves && modus_event_is_set(&slot_of(r->fresh)->ready))
        hand_over(g, now);
    if (r->old && now >= r->until_ms && (serves || !r->fresh))
        cut_late(g);
    if (r->old && !r->fresh && !r->old->pid && !slot_of(r->old)->orphans)
        r->old = NULL;
    if (!r->old && serves && now >= r->again_ms)
        begin(g, now);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When is something to be done that no event tells of? */
static int64_t next_look_ms(const struct generation *g, int64_t now)
{
    const struct recycling *r = &g->recycling;
    int64_t next = INT64_MAX;
    if (r->old && !r->fresh)
        return r->until_ms;
    if (!is_in_service(g))
        return INT64_MAX; /* it minds all of its workers itself */
    if (r->old)
        return r->until_ms;
    struct wear limits = limits_in(&g->listener);
    if (limits.requests)
        next = now + LOOK_MS;
    if (limits.memory_bytes)
        next = earlier(next, r->memory_ms);
    for (unsigned i = 0; limits.age_ms && i < g->listener.board->slot_count; i++)
        if (is_serving(&g->workers[i]))
            next = earlier(next, g->workers[i].started_ms + limits_of(&g->workers[i]).age_ms);
    return next < r->again_ms ? r->again_ms : next;
}

static void on_timer(uv_timer_t *timer)
{
    recycle_look(timer->data);
}

void recycle_look(struct master *m)
{
    int64_t now = now_ms(), next = INT64_MAX;
    for (struct generation *g = m->generations; m->ready && !m->stopping && g; g = g->next) {
        if (!g->workers || !model_recycles(g->listener.model, g->listener.conf))
            continue;
        look_at(g, now);
        next = earlier(next, next_look_ms(g, now));
    }
    if (next == INT64_MAX)
        uv_timer_stop(&m->recycle_timer);
    else
        uv_timer_start(&m->recycle_timer, on_timer, next > now ? (uint64_t)(next - now) : 1, 0);
}
