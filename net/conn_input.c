/* SPDX-License-Identifier: MIT */
/* How bytes come in: one window into the thread's buffer while a connection is stepped, kept bytes
 * in between, and the request body on its way to the exchange. An idle connection keeps nothing.
 */
#include "net/conn_priv.h"

#include <stdlib.h>

void conn_window_open(struct conn *c, struct net_thread *t)
{
    if (t->window_open)
        return;
    t->window_open = true;
    t->window = t->in;
    t->window_len = c->in.len;
    if (!c->in.at)
        return;
    memcpy(t->in, c->in.at + c->in.from, c->in.len);
    free(c->in.at);
    c->in = (struct conn_bytes){0};
}

void conn_window_close(struct conn *c, struct net_thread *t)
{
    if (!t->window_open || t->window_len == 0)
        return;
    c->in.at = malloc(t->window_len);
    if (!c->in.at) {
        conn_hang_up(c, false);
        return;
    }
    memcpy(c->in.at, t->window, t->window_len);
    c->in.len = (uint32_t)t->window_len;
    t->window_len = 0;
}

void conn_window_take(struct net_thread *t, size_t n)
{
    t->window += n;
    t->window_len -= n;
}

enum conn_read conn_read(struct conn *c, struct net_thread *t)
{
    if (c->eof)
        return CONN_READ_END;
    c->reading = true;
    if (t->drained) {
        c->wants |= (uint8_t)t->drained;
        return CONN_READ_NONE;
    }
    if (t->window != t->in) {
        memmove(t->in, t->window, t->window_len);
        t->window = t->in;
    }
    size_t room = t->in_size - t->window_len;
    if (room == 0)
        return CONN_READ_NONE; /* more than one head's worth is there: understand it first */
    ssize_t n = c->transport.ops->read(&c->transport, t->in + t->window_len, room);
    if (n > 0) {
        t->window_len += (size_t)n;
        if ((size_t)n < room && !c->read_on && !c->transport.ops->pending(&c->transport))
            t->drained = CONN_WANT_READ;
        t->moved += (size_t)n < CONN_PIECE_BYTES ? CONN_PIECE_BYTES : (size_t)n;
        net_count(&t->stats->bytes_in, (uint64_t)n);
        return CONN_READ_GOT;
    }
    if (n == 0) {
        c->eof = true;
        return CONN_READ_END;
    }
    if (n == TRANSPORT_GONE) {
        conn_hang_up(c, false);
        return CONN_READ_GONE;
    }
    t->drained = n == TRANSPORT_WANT_WRITE ? CONN_WANT_WRITE : CONN_WANT_READ;
    c->read_on = false;
    c->wants |= (uint8_t)t->drained;
    return CONN_READ_NONE;
}

/* Decoded body bytes from the parser. */
static int sink(void *arg, const char *at, size_t len)
{
    struct exchange *x = arg;
    x->body_got += (int64_t)len;
    if ((uint64_t)x->body_got > x->service->max_body_size)
        return x->refusal = 413;
    if (!x->entry || x->entry->body == EXCHANGE_BODY_NONE)
        return 0;
    return exchange_body_append(x, at, len) == 0 ? 0 : (x->refusal = 500);
}

/* How many of the window's first n bytes are this body's, and how many behind them to drop; -1 for
 * bad framing. */
static long body_share(struct exchange *x, const char *at, size_t n, size_t *skip, bool *last)
{
    if (x->request.chunked)
        return http1_chunks_take(&x->chunks, at, n, skip, last);
    if ((int64_t)n > x->body_left)
        n = (size_t)x->body_left;
    x->body_left -= (int64_t)n;
    *last = x->body_left == 0;
    return (long)n;
}

static void feed(struct net_thread *t, struct exchange *x, size_t n)
{
    bool last = false;
    if (!x->is_http) {
        if (exchange_body_append(x, t->window, n) != 0)
            x->refusal = 500;
        conn_window_take(t, n);
        return;
    }
    size_t skip = 0;
    long share = body_share(x, t->window, n, &skip, &last);
    if (share < 0) {
        x->refusal = 400;
        return;
    }
    int status = http1_body(&x->request, t->window, (size_t)share, sink, x);
    conn_window_take(t, (size_t)share + skip);
    if (status && !x->refusal)
        x->refusal = status;
    /* Guard and parser must agree on where the body ends. */
    if (!x->refusal && last != x->request.complete)
        x->refusal = 400;
    if (last)
        exchange_body_end(x, false);
}

bool conn_take_body(struct conn *c, struct net_thread *t, struct exchange *x)
{
    bool progress = false;
    while (!x->body_complete && !x->refusal && !conn_had_share(t)) {
        exchange_hold(x);
        size_t space = x->entry ? exchange_body_space(x) : SIZE_MAX;
        exchange_let(x);
        if (space == 0)
            break;
        conn_window_open(c, t);
        if (t->window_len == 0) {
            if (!x->continued)
                conn_say_continue(c, t);
            x->continued = true;
            enum conn_read got = conn_read(c, t);
            if (got == CONN_READ_END) {
                exchange_hold(x);
                exchange_body_end(x, x->is_http);
                exchange_let(x);
                progress = true;
                break;
            }
            if (got != CONN_READ_GOT)
                break;
        }
        exchange_hold(x);
        feed(t, x, t->window_len < space ? t->window_len : space);
        exchange_let(x);
        x->continued = true;
        x->body_ms = t->now_ms;
        progress = true;
    }
    if (progress)
        exchange_wake(x);
    return progress;
}
