/* SPDX-License-Identifier: MIT */
/* The interpreter lock around handlers: see net/gil.h. */
#include "net/gil.h"

static void add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static void publish(struct net_gil *gil)
{
    struct modus_gil_stats now = modus_gil_stats(&gil->lock), *told = &gil->told;
    struct net_gil_counts *c = gil->counts;
    add(&c->acquired, now.acquired - told->acquired);
    add(&c->waits, now.waits - told->waits);
    add(&c->hand_overs, now.forced - told->forced);
    add(&c->held_us, (uint64_t)(now.held_ns / 1000 - told->held_ns / 1000));
    add(&c->waited_us, (uint64_t)(now.waited_ns / 1000 - told->waited_ns / 1000));
    *told = now;
}

void net_gil_enter(struct net_gil *gil)
{
    if (gil)
        modus_gil_enter(&gil->lock);
}

void net_gil_leave(struct net_gil *gil)
{
    if (!gil)
        return;
    publish(gil);
    modus_gil_leave(&gil->lock);
}

void net_gil_checkpoint(struct net_gil *gil)
{
    if (gil && modus_gil_checkpoint(&gil->lock) == 1)
        publish(gil);
}
