/* SPDX-License-Identifier: MIT */
/* All listeners as others see them: see server/directory.h. */
#include "server/directory.h"

#include <stdio.h>
#include <time.h>

#include "server/models/model.h"

enum { HOLD_MS = 100 };

static int64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct directory *directory_new(struct modus_arena *arena)
{
    struct directory *d = modus_arena_alloc(arena, sizeof *d, 64);
    if (!d)
        return NULL;
    modus_lock_init(&d->lock, MODUS_PROCESS);
    d->generation = 1;
    return d;
}

static struct listing_past *new_past(struct modus_arena *arena)
{
    struct listing_past *past = modus_arena_alloc(arena, sizeof *past, 64);
    if (past)
        blocked_init(&past->blocked);
    return past;
}

static void free_past(struct modus_arena *arena, struct listing_past *past)
{
    blocked_fini(&past->blocked);
    modus_arena_free(arena, past, sizeof *past);
}

struct listing *listing_new(struct modus_arena *arena, const struct listener *l, unsigned number,
                            struct listing_past *past)
{
    struct listing *made = modus_arena_alloc(arena, sizeof *made, 64);
    size_t names = l->conf->address_count * sizeof *made->addresses;
    if (!made)
        return NULL;
    *made = (struct listing){
        .past = past ? past : new_past(arena),
        .addresses = modus_arena_alloc(arena, names, 1),
        .model = l->model,
        .plan = l->plan,
        .board = l->board,
        .number = number,
        .since_ms = unix_ms(),
        .duplex = l->service.duplex,
        .tls = l->tls != NULL,
        .gil = l->conf->gil && model_uses(l->model, "gil"),
    };
    if (!made->past || !made->addresses)
        return NULL;
    snprintf(made->name, sizeof made->name, "%s", listener_name(l));
    if (!l->model->note(l->conf, made->note, sizeof made->note))
        made->note[0] = '\0';
    for (; made->address_count < l->fd_count; made->address_count++)
        snprintf(made->addresses[made->address_count], LISTING_NAME, "%s",
                 l->names[made->address_count]);
    return made;
}

/* A holder that died has changed nothing that another reader would miss: only the master writes. */
static int hold(struct directory *d, int64_t ns)
{
    int rc = modus_lock_acquire(&d->lock, ns);
    if (rc == MODUS_OWNERDEAD)
        modus_lock_consistent(&d->lock);
    return rc < 0 ? rc : 0;
}

int directory_hold(struct directory *d)
{
    return hold(d, modus_ms(HOLD_MS));
}

void directory_let(struct directory *d)
{
    modus_lock_release(&d->lock);
}

void directory_set(struct directory *d, struct listing *const *listings, size_t count)
{
    hold(d, MODUS_FOREVER);
    d->first = NULL;
    for (size_t i = count; i-- > 0;) {
        listings[i]->next = d->first;
        d->first = listings[i];
    }
    directory_let(d);
}

void directory_changed(struct directory *d)
{
    hold(d, MODUS_FOREVER);
    d->generation++;
    directory_let(d);
}

static void count(struct directory_outcomes *o, bool refused)
{
    if (refused)
        o->refused++;
    else
        o->taken++;
}

void directory_reloaded(struct directory *d, const char *why)
{
    hold(d, MODUS_FOREVER);
    count(&d->reloads, why != NULL);
    directory_let(d);
}

void directory_switching(struct directory *d, const char *listener, const char *model)
{
    struct directory_switch *last = &d->last_switch;
    hold(d, MODUS_FOREVER);
    last->number++;
    last->state = SWITCH_UNDER_WAY;
    last->asked_ms = unix_ms();
    last->ended_ms = 0;
    snprintf(last->listener, sizeof last->listener, "%s", listener);
    snprintf(last->model, sizeof last->model, "%s", model);
    last->why[0] = '\0';
    directory_let(d);
}

void directory_switched(struct directory *d, const char *why)
{
    struct directory_switch *last = &d->last_switch;
    hold(d, MODUS_FOREVER);
    last->state = why ? SWITCH_REFUSED : SWITCH_TAKEN;
    last->ended_ms = unix_ms();
    snprintf(last->why, sizeof last->why, "%s", why ? why : "");
    count(&d->switches, why != NULL);
    directory_let(d);
}

static void add_gil(struct net_gil_counts *to, const struct net_gil_counts *from)
{
    net_count(&to->acquired, net_counted(&from->acquired));
    net_count(&to->waits, net_counted(&from->waits));
    net_count(&to->hand_overs, net_counted(&from->hand_overs));
    net_count(&to->held_us, net_counted(&from->held_us));
    net_count(&to->waited_us, net_counted(&from->waited_us));
}

static void remember(struct listing_past *past, const struct listing *l)
{
    struct board *b = l->board;
    for (unsigned i = 0; i < b->slot_count; i++) {
        board_slot_sum(b, &b->slots[i], &past->stats);
        add_gil(&past->gil, &b->slots[i].gil);
    }
    past->deaths += atomic_load(&b->deaths);
    blocked_add(&past->blocked, &b->blocked);
    for (unsigned i = 0; i < WEAR_REASONS; i++)
        past->recycled[i] += atomic_load(&b->recycled[i]);
}

/* Under the lock. Returns whether it was there. */
static bool take_out(struct directory *d, struct listing *l)
{
    struct listing **at = &d->first;
    while (*at && *at != l)
        at = &(*at)->next;
    if (!*at)
        return false;
    *at = l->next;
    return true;
}

static bool has_others(const struct directory *d, const struct listing_past *past)
{
    for (const struct listing *l = d->first; l; l = l->next)
        if (l->past == past)
            return true;
    return false;
}

void directory_remove(struct directory *d, struct modus_arena *arena, struct listing *l)
{
    struct listing_past *past = l->past;
    hold(d, MODUS_FOREVER);
    if (take_out(d, l))
        remember(past, l);
    bool last = !has_others(d, past);
    if (last)
        d->deaths += past->deaths;
    directory_let(d);
    modus_arena_free(arena, l->addresses, l->address_count * sizeof *l->addresses);
    modus_arena_free(arena, l, sizeof *l);
    if (last)
        free_past(arena, past);
}
