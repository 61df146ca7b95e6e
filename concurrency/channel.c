/* SPDX-License-Identifier: MIT */
/*
 * Channels, and choosing between them. A single send or receive is a choice of one.
 *
 * Who waits stands in the line of each channel of its choice. Whoever serves it, under the lock of
 * one of them, first takes the choice by its word (WAITING -> TAKEN), since somebody may be about to
 * serve it at another channel, then copies. Who has waited takes all locks before it goes on: then
 * nobody is in the middle of serving it, and it can leave the other lines.
 *
 * Invariant, under a channel's lock: of an open channel, when somebody waits to receive there are no
 * items inside and nobody waits to send (except, in one choice, for oneself).
 */
#include "concurrency/channel.h"

#include <stdlib.h>
#include <string.h>

enum { CAPACITY_MAX = 1 << 24, ITEM_MAX = 65536 };
enum { WAITING, TAKEN };

struct modus_choice_group {
    _Atomic uint32_t word;
    struct modus_choice *first;  /* in the order of locking, each channel once */
    struct modus_choice *chosen; /* when taken */
};

/* --- life ------------------------------------------------------------------------------------ */

int modus_channel_init(struct modus_channel *channel, unsigned capacity, unsigned item_size)
{
    memset(channel, 0, sizeof *channel);
    if (capacity > CAPACITY_MAX || item_size > ITEM_MAX)
        return -EINVAL;
    size_t bytes = (size_t)capacity * item_size;
    if (bytes > 0 && !(channel->items = malloc(bytes)))
        return -ENOMEM;
    channel->capacity = capacity;
    channel->item_size = item_size;
    return modus_lock_init(&channel->lock, MODUS_THREAD);
}

void modus_channel_fini(struct modus_channel *channel)
{
    modus_lock_fini(&channel->lock);
    free(channel->items);
    memset(channel, 0, sizeof *channel);
}

static void lock(struct modus_channel *channel)
{
    modus_lock_acquire(&channel->lock, MODUS_FOREVER);
}

static void unlock(struct modus_channel *channel)
{
    modus_lock_release(&channel->lock);
}

/* --- lines ----------------------------------------------------------------------------------- */

static struct modus_channel_line *line_of(const struct modus_choice *choice)
{
    return choice->what == MODUS_SEND ? &choice->channel->senders : &choice->channel->receivers;
}

static void list(struct modus_choice *choice)
{
    struct modus_channel_line *line = line_of(choice);

    choice->next = NULL;
    choice->previous = line->last;
    *(line->last ? &line->last->next : &line->first) = choice;
    line->last = choice;
    choice->listed = true;
}

static void unlist(struct modus_choice *choice)
{
    struct modus_channel_line *line = line_of(choice);

    *(choice->previous ? &choice->previous->next : &line->first) = choice->next;
    *(choice->next ? &choice->next->previous : &line->last) = choice->previous;
    choice->listed = false;
}

/* Take the first of a line whose choice nobody else is serving; NULL: there is none. */
static struct modus_choice *take_first(struct modus_channel_line *line)
{
    while (line->first) {
        struct modus_choice *choice = line->first;
        uint32_t waiting = WAITING;

        unlist(choice);
        if (atomic_compare_exchange_strong(&choice->group->word, &waiting, TAKEN)) {
            choice->group->chosen = choice;
            return choice;
        }
    }
    return NULL;
}

/* It may be gone as soon as the channel is unlocked; its word is not looked at. */
static void serve(struct modus_choice *choice, int result)
{
    choice->result = result;
    modus_unpark(MODUS_THREAD, &choice->group->word, 1);
}

/* --- items, under the lock --------------------------------------------------------------------- */

static void copy(const struct modus_channel *channel, void *to, const void *from)
{
    if (channel->item_size > 0)
        memcpy(to, from, channel->item_size);
}

static void *place(const struct modus_channel *channel, unsigned i)
{
    unsigned at = channel->head + i;

    at -= at >= channel->capacity ? channel->capacity : 0;
    return channel->items ? channel->items + (size_t)at * channel->item_size : NULL;
}

/* Returns false if it would have to wait. */
static bool send_now(struct modus_choice *choice)
{
    struct modus_channel *channel = choice->channel;
    struct modus_choice *receiver;

    choice->result = channel->closed ? MODUS_CLOSED : 0;
    if (channel->closed)
        return true;
    if ((receiver = take_first(&channel->receivers)) != NULL) {
        copy(channel, receiver->item, choice->item);
        serve(receiver, 0);
        return true;
    }
    if (channel->count == channel->capacity)
        return false;
    copy(channel, place(channel, channel->count++), choice->item);
    return true;
}

/* The oldest item leaves; the sender that has waited longest puts its own in. */
static void take_item(struct modus_channel *channel, void *item)
{
    copy(channel, item, place(channel, 0));
    channel->head = channel->head + 1 == channel->capacity ? 0 : channel->head + 1;
    channel->count--;
    struct modus_choice *sender = take_first(&channel->senders);
    if (sender) {
        copy(channel, place(channel, channel->count++), sender->item);
        serve(sender, 0);
    }
}

static bool recv_now(struct modus_choice *choice)
{
    struct modus_channel *channel = choice->channel;
    struct modus_choice *sender;

    choice->result = 0;
    if (channel->count > 0) {
        take_item(channel, choice->item);
        return true;
    }
    if ((sender = take_first(&channel->senders)) != NULL) {
        copy(channel, choice->item, sender->item);
        serve(sender, 0);
        return true;
    }
    choice->result = MODUS_CLOSED;
    return channel->closed;
}

static bool do_now(struct modus_choice *choice)
{
    return choice->what == MODUS_SEND ? send_now(choice) : recv_now(choice);
}

/* --- choosing -------------------------------------------------------------------------------- */

/* Into the order of locking, unless another choice of the same channel is there. */
static void order(struct modus_choice_group *group, struct modus_choice *choice)
{
    struct modus_choice **at = &group->first;

    while (*at && (uintptr_t)(*at)->channel < (uintptr_t)choice->channel)
        at = &(*at)->next_channel;
    if (*at && (*at)->channel == choice->channel)
        return;
    choice->next_channel = *at;
    *at = choice;
}

static void lock_all(struct modus_choice_group *group)
{
    for (struct modus_choice *choice = group->first; choice; choice = choice->next_channel)
        lock(choice->channel);
}

static void unlock_all(struct modus_choice_group *group)
{
    for (struct modus_choice *choice = group->first; choice; choice = choice->next_channel)
        unlock(choice->channel);
}

static bool valid(const struct modus_choice *choice)
{
    return choice->channel->lock.scope != 0 &&
           (choice->what == MODUS_SEND || choice->what == MODUS_RECV) &&
           (choice->item || choice->channel->item_size == 0);
}

static int prepare(struct modus_choice_group *group, struct modus_choice *choices, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!choices[i].channel)
            continue;
        if (!valid(&choices[i]))
            return -EINVAL;
        choices[i].group = group;
        choices[i].listed = false;
        order(group, &choices[i]);
    }
    return 0;
}

/* Which is looked at first: another one each time. */
static unsigned first_of(unsigned n)
{
    static _Thread_local unsigned turn;

    return n > 1 ? turn++ % n : 0;
}

/* All are locked. Returns the index of what was done, or n. */
static unsigned try_all(struct modus_choice *choices, unsigned n)
{
    unsigned first = first_of(n);

    for (unsigned i = 0; i < n; i++) {
        unsigned at = first + i < n ? first + i : first + i - n;

        if (choices[at].channel && do_now(&choices[at]))
            return at;
    }
    return n;
}

static void list_all(struct modus_choice *choices, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (choices[i].channel)
            list(&choices[i]);
}

/* All stand in their lines. Returns what select does. */
static int await_one(struct modus_choice_group *group, struct modus_choice *choices, unsigned n,
                     int64_t deadline)
{
    int rc = 0;

    while (rc == 0 && atomic_load(&group->word) == WAITING)
        rc = modus_park(MODUS_THREAD, &group->word, WAITING, deadline, NULL);
    lock_all(group);
    for (unsigned i = 0; i < n; i++)
        if (choices[i].listed)
            unlist(&choices[i]);
    unlock_all(group);
    return group->chosen ? (int)(group->chosen - choices) : rc;
}

int modus_channel_select_until(struct modus_choice *choices, unsigned n, int64_t deadline)
{
    struct modus_choice_group group = {0};

    if (n > INT32_MAX || deadline < MODUS_FOREVER || prepare(&group, choices, n) < 0)
        return -EINVAL;
    lock_all(&group);
    unsigned done = try_all(choices, n);
    if (done == n && deadline != 0)
        list_all(choices, n);
    unlock_all(&group);
    if (done < n)
        return (int)done;
    return deadline == 0 ? -EAGAIN : await_one(&group, choices, n, deadline);
}

int modus_channel_select(struct modus_choice *choices, unsigned n, int64_t ns)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    return modus_channel_select_until(choices, n, ns == 0 ? 0 : modus_deadline(ns));
}

/* --- single operations ------------------------------------------------------------------------ */

static int operate(struct modus_channel *channel, enum modus_channel_op what, void *item,
                   int64_t deadline)
{
    struct modus_choice choice = {.channel = channel, .what = what, .item = item};

    if (!valid(&choice))
        return -EINVAL;
    lock(channel);
    bool done = do_now(&choice);
    if (done || deadline == 0) {
        unlock(channel);
        return done ? choice.result : -EAGAIN;
    }
    struct modus_choice_group group = {.first = &choice};
    choice.group = &group;
    list(&choice);
    unlock(channel);
    int rc = await_one(&group, &choice, 1, deadline);
    return rc == 0 ? choice.result : rc;
}

/* A sender's item is only read. */
static void *unchanged(const void *item)
{
    return (void *)(uintptr_t)item;
}

static int operate_for(struct modus_channel *channel, enum modus_channel_op what, void *item,
                       int64_t ns)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (ns <= 0)
        return operate(channel, what, item, ns);
    int rc = operate(channel, what, item, 0); /* usually no clock is needed */
    return rc == -EAGAIN ? operate(channel, what, item, modus_deadline(ns)) : rc;
}

int modus_channel_send(struct modus_channel *channel, const void *item, int64_t ns)
{
    return operate_for(channel, MODUS_SEND, unchanged(item), ns);
}

int modus_channel_recv(struct modus_channel *channel, void *item, int64_t ns)
{
    return operate_for(channel, MODUS_RECV, item, ns);
}

/* 0, "do not wait", is a time that is past. */
int modus_channel_send_until(struct modus_channel *channel, const void *item, int64_t deadline)
{
    if (deadline < MODUS_FOREVER)
        return -EINVAL;
    return operate(channel, MODUS_SEND, unchanged(item), deadline == 0 ? 1 : deadline);
}

int modus_channel_recv_until(struct modus_channel *channel, void *item, int64_t deadline)
{
    if (deadline < MODUS_FOREVER)
        return -EINVAL;
    return operate(channel, MODUS_RECV, item, deadline == 0 ? 1 : deadline);
}

/* --- closing --------------------------------------------------------------------------------- */

static void refuse_all(struct modus_channel_line *line)
{
    for (struct modus_choice *choice; (choice = take_first(line)) != NULL;)
        serve(choice, MODUS_CLOSED);
}

int modus_channel_close(struct modus_channel *channel)
{
    if (channel->lock.scope == 0)
        return -EINVAL;
    lock(channel);
    int rc = channel->closed ? MODUS_CLOSED : 0;
    channel->closed = true;
    refuse_all(&channel->senders);
    refuse_all(&channel->receivers); /* there is nothing inside if somebody waits */
    unlock(channel);
    return rc;
}

unsigned modus_channel_len(struct modus_channel *channel)
{
    if (channel->lock.scope == 0)
        return 0;
    lock(channel);
    unsigned count = channel->count;
    unlock(channel);
    return count;
}
