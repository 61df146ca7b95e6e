/* SPDX-License-Identifier: MIT */
/* What one thread that steps connections owns: the buffers that all its connections borrow while
 * they are stepped (so that an idle one holds none), the time, and its counters.
 *
 * What a small request touches lies close together: on pages of its own, which are few. A child of
 * the `process` model pays for each page it touches by a fault and a copy, the others by a cache
 * line.
 *
 * Nothing here is shared: one struct net_thread a thread, and a forked child makes its own or goes
 * on with the copy. Time is an argument to connections: it is read from clock_us, once a
 * net_thread_tick(), so tests can turn it by hand.
 */
#ifndef NET_THREAD_H
#define NET_THREAD_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "net/stats.h"
#include "net/str.h"

struct exchange;
struct route;

enum { NET_OUT_SIZE = 64 * 1024 };

struct net_thread {
    int64_t now_ms; /* monotonic, of the last tick */
    int64_t now_us; /* durations of what is read begin here; a driver that let it wait sets an
                       earlier time */
    int64_t (*clock_us)(void);
    struct net_stats *stats; /* where counts go; shared or not */
    /* Told when step entries of a route have held the thread for held_us or more, in one step of a
     * connection (not: EXCHANGE_CANCELLED, the wait for the interpreter lock). NULL, as at the beginning:
     * nobody wants to know. */
    void (*held)(void *arg, const struct route *route, int64_t us);
    void *held_arg;
    int64_t held_us;
    int64_t
        mark_us; /* the clock, read a moment ago; 0: who has the thread has let time pass since */

    /* private to net/ */
    char *in; /* bytes just read; in_size of them at most */
    size_t in_size;
    char *window; /* the part of in that is not yet understood, while a connection is stepped */
    size_t window_len;
    bool window_open; /* the connection's kept bytes have been put there */
    unsigned drained; /* what the transport waits for before it has more to read; 0: it may have */
    char *out;        /* answers gathered for one write; NET_OUT_SIZE */
    size_t out_len;
    size_t moved;               /* bytes read and written in this step */
    unsigned gathered[6];       /* answers of this step by class, not yet counted */
    unsigned gathered_now;      /* those of them that began in this step */
    const struct route *called; /* held: whose entry was called in this step; NULL: none, or told */
    int64_t called_us;          /* since when */
    time_t date_s;
    char date[48]; /* "Server: ...\r\nDate: ...\r\n" as it stands in answers */
    char ok_head[96];
    size_t date_len, ok_head_len;
    struct exchange *spare; /* ended exchanges to be used again */
    unsigned spare_count;
};

/* in_size: at least the largest request head that a connection of this thread may send, and some
 * room for what follows it. Returns NULL when memory is out. stats is borrowed. */
struct net_thread *net_thread_new(size_t in_size, struct net_stats *stats);
void net_thread_free(struct net_thread *t);
/* Read the clock. Call before stepping connections, once a turn. */
void net_thread_tick(struct net_thread *t);
/* Go on at this time, which was read a moment ago; the date stays. For a child that has just been
 * forked and would read the same. Safe from: the thread, or the child after fork. */
void net_thread_set(struct net_thread *t, int64_t now_us);
/* The monotonic clock in microseconds. Safe from: anywhere. */
int64_t net_clock_us(void);

#endif
