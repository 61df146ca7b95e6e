/* SPDX-License-Identifier: MIT */
/* One interpreter lock for all handlers of a process, for who wants to see what it does: a handler's
 * code runs under it, each of its waits through the library gives it up.
 *
 * What it has come to is kept where other processes can read it.
 */
#ifndef NET_GIL_H
#define NET_GIL_H

#include <stdatomic.h>
#include <stdint.h>

#include "concurrency/gil.h"

/* Totals, to which a process adds under its lock. Safe from: any process. */
struct net_gil_counts {
    _Atomic uint64_t acquired;   /* times */
    _Atomic uint64_t waits;      /* of these, had to wait */
    _Atomic uint64_t hand_overs; /* of these, the holder was made to give it up */
    _Atomic uint64_t held_us, waited_us;
};

struct net_gil {
    struct modus_gil lock;
    struct net_gil_counts *counts;
    struct modus_gil_stats told; /* to counts, so far */
};

/* Hold it, for a handler's code, and give it up again. gil may be NULL: nothing happens. May block.
 * Safe from: threads and coroutines that run handlers. */
void net_gil_enter(struct net_gil *gil);
void net_gil_leave(struct net_gil *gil);
/* Between two instructions, so to say: hand it over if somebody has waited for long. */
void net_gil_checkpoint(struct net_gil *gil);

#endif
