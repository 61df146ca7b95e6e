/* SPDX-License-Identifier: MIT */
/* The three parts of a connection, for each other: conn.c the state machine, conn_input.c how bytes
 * come in, conn_output.c how answers go out. */
#ifndef NET_CONN_PRIV_H
#define NET_CONN_PRIV_H

#include "net/exchange_priv.h"

enum {
    CONN_TURN_BYTES = 1024 * 1024,
    CONN_PIECE_BYTES = 4096, /* a read counts as that at least: a small record costs as much */
};

/* A connection that always has more to move must let others have their turn. */
static inline bool conn_had_share(const struct net_thread *t)
{
    return t->moved >= CONN_TURN_BYTES;
}

/* --- conn_input.c --- */

enum conn_read { CONN_READ_GOT, CONN_READ_NONE, CONN_READ_END, CONN_READ_GONE };

/* Put the bytes kept from earlier steps into the thread's window. */
void conn_window_open(struct conn *c, struct net_thread *t);
/* Keep what was not understood for later steps. */
void conn_window_close(struct conn *c, struct net_thread *t);
/* Drop n bytes from the window's front. */
void conn_window_take(struct net_thread *t, size_t n);
/* Read into the window. NONE has noted what to wait for in c->wants. */
enum conn_read conn_read(struct conn *c, struct net_thread *t);
/* Move body bytes from the peer to the exchange, as far as there are any and there is room.
 * Returns true if anything changed. A body that can't be right sets x->refusal. */
bool conn_take_body(struct conn *c, struct net_thread *t, struct exchange *x);

/* --- conn_output.c --- */

/* Hand over what is ready. Returns true when nothing is left; else c->wants says what to wait for
 * (or c->gone is set). more: further bytes follow at once. */
bool conn_flush(struct conn *c, struct net_thread *t, bool more);
/* Move the exchange's answer towards the peer. Returns true if anything changed. */
bool conn_pump(struct conn *c, struct net_thread *t, struct exchange *x);
/* Is everything that the answer consists of handed over or gathered? */
bool conn_answered(const struct exchange *x);
/* "100 Continue" goes out before the next bytes. */
void conn_say_continue(struct conn *c, struct net_thread *t);

#endif
