/* SPDX-License-Identifier: MIT */
/* A timing wheel: deadlines of many connections at little cost and with little precision (a tick is
 * 64 ms). Hashed wheel, after Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987),
 * scheme 6: an item lies in the slot of its tick; a later round's items are passed over.
 *
 * Deadlines mostly move back, so they are moved lazily: leave an item where it is, and when it
 * comes up, add it again if its true deadline is later. Only an earlier deadline must be moved at
 * once.
 *
 * Safe from: one thread.
 */
#ifndef NET_WHEEL_H
#define NET_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WHEEL_SLOTS = 1024, WHEEL_TICK_MS = 64 };

/* Embedded by its owner; zeroed memory is an item in no wheel. */
struct wheel_item {
    struct wheel_item *prev, *next;
    int64_t at_ms; /* where it stands in the wheel; INT64_MAX while it is in none */
};

struct wheel {
    struct wheel_item slots[WHEEL_SLOTS]; /* heads of rings */
    uint64_t used[WHEEL_SLOTS / 64];      /* slots that may hold something */
    int64_t tick;                         /* all before it have been visited */
    size_t count;
};

void wheel_init(struct wheel *w, int64_t now_ms);
/* at_ms INT64_MAX: stays out. An item that is in the wheel is moved. */
void wheel_add(struct wheel *w, struct wheel_item *item, int64_t at_ms);
void wheel_remove(struct wheel *w, struct wheel_item *item);
bool wheel_holds(const struct wheel_item *item);
/* Take out the next item whose time has come, or NULL. Call until NULL; items may be added and
 * removed between calls. */
struct wheel_item *wheel_due(struct wheel *w, int64_t now_ms);
/* Milliseconds from now_ms until an item may be due; -1: the wheel is empty. May be early. */
int64_t wheel_wait(const struct wheel *w, int64_t now_ms);
/* The item that stands earliest of those that wanted(item, arg) accepts, looking at up to limit
 * items; NULL if none. */
struct wheel_item *wheel_earliest(struct wheel *w,
                                  bool (*wanted)(struct wheel_item *item, void *arg), void *arg,
                                  size_t limit);

#endif
