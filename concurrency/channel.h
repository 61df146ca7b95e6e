/* SPDX-License-Identifier: MIT */
/*
 * Channel: hands items from coroutine to coroutine, of one thread or of several, and to threads.
 *
 * States: not started (zeroed) -> open -> closed (what is inside can still be received). With a
 * capacity of 0 a send waits until a receiver has the item: the two meet. With a capacity of n the
 * channel keeps up to n items. Items are copied; senders and receivers are served in the order in
 * which they came.
 *
 *     struct modus_channel jobs;
 *     modus_channel_init(&jobs, 0, sizeof(struct job));
 *     modus_channel_send(&jobs, &job, MODUS_FOREVER);              // here
 *     while (modus_channel_recv(&jobs, &job, MODUS_FOREVER) == 0)  // there, until MODUS_CLOSED
 *         run(&job);
 *
 * What a queue (queue.h) has not: meeting, any capacity, items without bytes, and the choice
 * between several:
 *
 *     struct modus_choice choices[] = {
 *         {.channel = &jobs, .what = MODUS_RECV, .item = &job},
 *         {.channel = &results, .what = MODUS_SEND, .item = &result},
 *     };
 *     int which = modus_channel_select(choices, 2, modus_ms(100));   // 0, 1 or -ETIMEDOUT
 *
 * Exactly one of the choices happens, or none. If several can, the first to be looked at goes round,
 * so that none is starved. What a queue has and this has not: process scope, doorbells, joining, and
 * operations of two threads at the same time.
 *
 * Why a channel of capacity n is no queue with a choice on top: choosing between queues could only
 * say "look again", and of two that chose, both would have to look at all; here whoever serves a
 * waiting choice settles it, under the lock of the channel that serves it. The price is that lock:
 * little in one thread (32 ns an item against 26), much where two use it at the same time.
 *
 * A forked child must not use its parent's channels.
 *
 * Algorithm: as in Go's runtime, after C. A. R. Hoare's Communicating Sequential Processes: the
 * channels of a choice are locked in the order of their addresses.
 */
#ifndef CONCURRENCY_CHANNEL_H
#define CONCURRENCY_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

struct modus_choice;

/* Those who wait, the longest first. */
struct modus_channel_line {
    struct modus_choice *first, *last;
};

/* All fields are private. */
struct modus_channel {
    struct modus_lock lock; /* of all that follows */
    unsigned capacity, item_size;
    unsigned count, head; /* items inside, and where the oldest is */
    bool closed;
    struct modus_channel_line senders, receivers;
    unsigned char *items;
};

/* Make an open, empty channel for up to capacity (0 to 2^24) items of item_size (0 to 65536) bytes.
 * Returns 0, -EINVAL or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_channel_init(struct modus_channel *channel, unsigned capacity, unsigned item_size);

/* End a channel that nobody uses any more; items inside are dropped. Does nothing to one that is not
 * started. Safe from: the one thread that still knows the object. */
void modus_channel_fini(struct modus_channel *channel);

/* Send a copy of *item (NULL if it has no bytes), waiting up to ns nanoseconds (MODUS_FOREVER:
 * without end, 0: do not wait). With 0 a receiver, or the channel, has it. Returns 0; -EAGAIN (ns 0),
 * -ETIMEDOUT, MODUS_CLOSED (before, or while it waited) or MODUS_CANCELED: nobody has it; -EINVAL.
 * Blocks. Safe from: any coroutine, any thread. */
int modus_channel_send(struct modus_channel *channel, const void *item, int64_t ns);

/* Receive the oldest item into *item. Returns 0; -EAGAIN (ns 0), -ETIMEDOUT, MODUS_CLOSED (and
 * nothing is left), MODUS_CANCELED or -EINVAL: *item is as it was. Blocks.
 * Safe from: any coroutine, any thread. */
int modus_channel_recv(struct modus_channel *channel, void *item, int64_t ns);

/* The same with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_channel_send_until(struct modus_channel *channel, const void *item, int64_t deadline);
int modus_channel_recv_until(struct modus_channel *channel, void *item, int64_t deadline);

enum modus_channel_op { MODUS_SEND = 1, MODUS_RECV };

struct modus_choice_group;

struct modus_choice {
    struct modus_channel *channel; /* NULL: this one is never chosen */
    enum modus_channel_op what;
    void *item; /* to be copied from (and not changed), or to */
    int result; /* of the one that was chosen: 0 or MODUS_CLOSED */

    /* private */
    struct modus_choice_group *group;
    struct modus_choice *next, *previous; /* in the channel's line */
    struct modus_choice *next_channel;    /* in the order of locking */
    bool listed;
};

/* Wait until one of n operations can be done, and do it. Returns its index, with its result filled
 * in; -EAGAIN (ns 0), -ETIMEDOUT or MODUS_CANCELED when none was done; or -EINVAL. A closed channel
 * can be chosen. Several may be of the same channel. Blocks.
 * Safe from: any coroutine, any thread. */
int modus_channel_select(struct modus_choice *choices, unsigned n, int64_t ns);
int modus_channel_select_until(struct modus_choice *choices, unsigned n, int64_t deadline);

/* Close: whoever waits to send gets MODUS_CLOSED, and so do receivers when nothing is left. Returns
 * 0, MODUS_CLOSED (it was) or -EINVAL. Does not block.
 * Safe from: any coroutine, any thread. */
int modus_channel_close(struct modus_channel *channel);

/* How many items are inside; already old when it returns. Safe from: any coroutine, any thread. */
unsigned modus_channel_len(struct modus_channel *channel);

#endif
