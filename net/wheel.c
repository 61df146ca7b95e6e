/* SPDX-License-Identifier: MIT */
/* The timing wheel: see net/wheel.h. */
#include "net/wheel.h"

static struct wheel_item *slot_of(struct wheel *w, int64_t tick)
{
    return &w->slots[(uint64_t)tick % WHEEL_SLOTS];
}

/* A deadline is due at the tick after it, never before. */
static int64_t tick_of(int64_t ms)
{
    return ms / WHEEL_TICK_MS + 1;
}

void wheel_init(struct wheel *w, int64_t now_ms)
{
    *w = (struct wheel){.tick = now_ms / WHEEL_TICK_MS};
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        w->slots[i].prev = w->slots[i].next = &w->slots[i];
}

bool wheel_holds(const struct wheel_item *item)
{
    return item->next != NULL;
}

void wheel_remove(struct wheel *w, struct wheel_item *item)
{
    if (!wheel_holds(item))
        return;
    item->prev->next = item->next;
    item->next->prev = item->prev;
    item->prev = item->next = NULL;
    item->at_ms = INT64_MAX;
    w->count--;
}

void wheel_add(struct wheel *w, struct wheel_item *item, int64_t at_ms)
{
    wheel_remove(w, item);
    item->at_ms = at_ms;
    if (at_ms == INT64_MAX)
        return;
    int64_t tick = tick_of(at_ms);
    if (tick <= w->tick)
        tick = w->tick + 1;
    struct wheel_item *head = slot_of(w, tick);
    item->prev = head->prev;
    item->next = head;
    head->prev->next = item;
    head->prev = item;
    size_t index = (size_t)(head - w->slots);
    w->used[index / 64] |= 1ULL << (index % 64);
    w->count++;
}

/* The next tick after from, up to last, whose slot may hold something; last + 1 if none. */
static int64_t next_used(const struct wheel *w, int64_t from, int64_t last)
{
    if (last - from > WHEEL_SLOTS)
        last = from + WHEEL_SLOTS;
    for (int64_t tick = from + 1; tick <= last;) {
        size_t index = (uint64_t)tick % WHEEL_SLOTS;
        uint64_t bits = w->used[index / 64] >> (index % 64);
        if (bits) {
            tick += __builtin_ctzll(bits);
            return tick <= last ? tick : last + 1;
        }
        tick += 64 - (int64_t)(index % 64);
    }
    return last + 1;
}

/* The first item of a slot that is due in this round; marks the slot unused when it is empty. */
static struct wheel_item *due_in(struct wheel *w, struct wheel_item *head, int64_t tick)
{
    for (struct wheel_item *i = head->next; i != head; i = i->next)
        if (tick_of(i->at_ms) <= tick)
            return i;
    size_t index = (size_t)(head - w->slots);
    if (head->next == head)
        w->used[index / 64] &= ~(1ULL << (index % 64));
    return NULL;
}

struct wheel_item *wheel_due(struct wheel *w, int64_t now_ms)
{
    int64_t now = now_ms / WHEEL_TICK_MS;
    while (w->count && w->tick < now) {
        int64_t tick = next_used(w, w->tick, now);
        if (tick > now)
            break;
        struct wheel_item *item = due_in(w, slot_of(w, tick), tick);
        if (item) {
            wheel_remove(w, item);
            return item;
        }
        w->tick = tick;
    }
    if (w->tick < now)
        w->tick = now;
    return NULL;
}

int64_t wheel_wait(const struct wheel *w, int64_t now_ms)
{
    if (w->count == 0)
        return -1;
    int64_t tick = next_used(w, w->tick, w->tick + WHEEL_SLOTS);
    int64_t wait = tick * WHEEL_TICK_MS - now_ms;
    return wait > 0 ? wait : 0;
}

struct wheel_item *wheel_earliest(struct wheel *w,
                                  bool (*wanted)(struct wheel_item *item, void *arg), void *arg,
                                  size_t limit)
{
    int64_t last = w->tick + WHEEL_SLOTS;
    struct wheel_item *best = NULL;
    for (int64_t tick = next_used(w, w->tick, last); tick <= last;
         tick = next_used(w, tick, last)) {
        struct wheel_item *head = slot_of(w, tick);
        for (struct wheel_item *i = head->next, *next; i != head; i = next) {
            next = i->next; /* wanted() may move the item to where it belongs now */
            if (limit-- == 0)
                return best;
            if (wanted(i, arg) && (!best || i->at_ms < best->at_ms))
                best = i;
        }
        if (best && tick_of(best->at_ms) <= tick) /* else it is of a later round: look on */
            return best;
    }
    return best;
}
