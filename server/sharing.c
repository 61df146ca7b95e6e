/* SPDX-License-Identifier: MIT */
/* Workers take turns in accepting: see server/sharing.h. */
#include "server/sharing.h"

#include <errno.h>

#include "net/socket.h"
#include "server/log.h"

enum { PASS_MS = 10, LEFT_MOST = 64, COME_MS = 1000, ROOM_AGAIN_MS = 10000 };

unsigned sharing_places(const struct worker *w)
{
    return (w->listener->plan.max_connections + w->board->worker_count - 1) /
           w->board->worker_count;
}

static uint32_t held(const struct worker_slot *slot)
{
    return atomic_load_explicit(&slot->connections, memory_order_relaxed);
}

/* Another worker that waits and holds fewer than limit connections, the one with the fewest. */
static struct worker_slot *idler(struct poller *p, uint32_t limit)
{
    struct board *b = p->worker->board;
    struct worker_slot *best = NULL;
    for (unsigned i = 0; i < b->slot_count; i++) {
        struct worker_slot *slot = &b->slots[i];
        if (slot == p->worker->slot || held(slot) >= limit ||
            atomic_load_explicit(&slot->state, memory_order_relaxed) != WORKER_WAITING)
            continue;
        if (!best || held(slot) < held(best))
            best = slot;
    }
    return best;
}

/* Ours is more than a fair share while a waiting worker is below it: let that one accept. */
static bool pass_on(struct poller *p)
{
    struct board *b = p->worker->board;
    uint32_t total = 1, mine = held(p->worker->slot);
    for (unsigned i = 0; i < b->slot_count; i++)
        total += held(&b->slots[i]);
    uint32_t share = (total + b->worker_count - 1) / b->worker_count;
    struct worker_slot *other = mine >= share ? idler(p, share) : NULL;
    if (!other)
        return false;
    atomic_store(&b->backlog, true);
    modus_doorbell_ring(&other->bell);
    return true;
}

int sharing_accept(struct poller *p, struct sharing *s, int fd)
{
    struct board *b = p->worker->board;
    bool waited = s->take_ms && p->net->now_ms >= s->take_ms;
    if (!p->draining && !waited && pass_on(p)) {
        s->passed = true;
        if (!s->take_ms) {
            s->take_ms = p->net->now_ms + PASS_MS;
            p->look_at_us = s->take_ms * 1000;
        }
        return -EAGAIN;
    }
    s->take_ms = p->look_at_us = 0;
    int r = modus_lock_acquire(&b->accept_lock, MODUS_FOREVER);
    if (r < 0)
        log_error("accept lock: %s", modus_strresult(r));
    atomic_store(&b->backlog, false);
    struct conn_peer peer;
    int got = socket_accept(fd, &peer);
    if (got >= 0)
        atomic_store(&b->backlog, true);
    if (r >= 0)
        modus_lock_release(&b->accept_lock);
    if (got < 0)
        return got;
    poller_expect(p);
    poller_adopt(p, got, &peer);
    return 0;
}

/* What waits there is seen again at once; so who holds more than others leaves it to them, but not
 * for long, since they may be held up. */
bool sharing_takes(struct poller *p, struct sharing *s)
{
    if (s->left < LEFT_MOST && pass_on(p)) {
        s->left++;
        return false;
    }
    s->left = 0;
    return true;
}

static uint32_t held_by_others(const struct poller *p)
{
    const struct board *b = p->worker->board;
    uint32_t total = 0;
    for (unsigned i = 0; i < b->slot_count; i++)
        if (&b->slots[i] != p->worker->slot)
            total += held(&b->slots[i]);
    return total;
}

/* Many come at once after a switch over TLS, while others have some handlers to run before they look
 * for more. Their time begins anew when one of them was seen to take somebody; once it is over, it is
 * not spent for each connection. */
bool sharing_room(struct poller *p, struct sharing *s)
{
    int64_t now_ms = p->net->now_ms;
    uint32_t mine = held(p->worker->slot), others = held_by_others(p);
    if (mine < p->max_connections || mine + others >= p->worker->listener->plan.max_connections)
        return poller_make_room(p);
    if (others > s->others || now_ms >= s->room_ms + ROOM_AGAIN_MS)
        s->room_ms = now_ms + COME_MS;
    s->others = others;
    if (now_ms >= s->room_ms)
        return poller_make_room(p);
    atomic_store(&p->worker->board->backlog, true);
    sharing_hand_on(p);
    return false;
}

void sharing_hand_on(struct poller *p)
{
    if (!atomic_load(&p->worker->board->backlog))
        return;
    struct worker_slot *other = idler(p, UINT32_MAX);
    if (other)
        modus_doorbell_ring(&other->bell);
}

void sharing_turn(struct poller *p, struct sharing *s)
{
    bool backlog = atomic_load_explicit(&p->worker->board->backlog, memory_order_relaxed);
    if (!p->drained && !s->passed && backlog)
        poller_look_for_more(p);
    if (p->net->now_ms >= s->take_ms)
        p->look_at_us = 0;
    if (!backlog) /* it was taken */
        s->take_ms = p->look_at_us = 0;
    s->passed = false;
}
