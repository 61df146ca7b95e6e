/* SPDX-License-Identifier: MIT */
/* How answers go out. Heads and small bodies are gathered in the thread's buffer, so that all
 * answers of one step leave in one write; what the peer does not take is kept with the connection.
 * Large bytes and files go straight from where they lie.
 *
 * One rule for TLS: bytes once offered to the transport are offered again, from the same place in
 * the stream and at least as many, until they are taken. So kept bytes always go first and alone.
 */
#include "net/conn_priv.h"

#include <stdio.h>
#include <stdlib.h>

enum { COPY_MAX = 16 * 1024, HEAD_ROOM = 512, FILE_TURN = 1024 * 1024 };

/* Note why the transport took nothing. */
static void refused(struct conn *c, struct net_thread *t, ssize_t n)
{
    if (n == TRANSPORT_GONE) {
        conn_hang_up(c, false);
        return;
    }
    c->wants |= n == TRANSPORT_WANT_READ ? CONN_WANT_READ : CONN_WANT_WRITE;
    if (!c->blocked)
        c->since_ms = t->now_ms;
    c->blocked = true;
}

static void taken(struct conn *c, struct net_thread *t, size_t n)
{
    net_count(&t->stats->bytes_out, n);
    t->moved += n;
    if (c->exchange && !c->exchange->is_http)
        c->exchange->body_ms = t->now_ms; /* TCP: as long as bytes go one way, it does not idle */
    if (c->blocked)
        c->since_ms = t->now_ms;
    c->blocked = false;
}

static ssize_t put(struct conn *c, struct net_thread *t, const char *at, size_t len, bool more)
{
    struct iovec iov = {(void *)(uintptr_t)at, len};
    ssize_t n = c->transport.ops->write(&c->transport, &iov, 1, more);
    if (n > 0)
        taken(c, t, (size_t)n);
    else
        refused(c, t, n);
    return n;
}

/* Send what was kept. Returns true when nothing is left of it. */
static bool flush_kept(struct conn *c, struct net_thread *t, bool more)
{
    while (c->out.len) {
        ssize_t n = put(c, t, c->out.at + c->out.from, c->out.len, more);
        if (n <= 0)
            return false;
        c->out.from += (uint32_t)n;
        c->out.len -= (uint32_t)n;
    }
    free(c->out.at);
    c->out = (struct conn_bytes){0};
    return true;
}

/* Keep gathered bytes behind those kept already. */
static void keep(struct conn *c, struct net_thread *t, size_t from)
{
    size_t len = t->out_len - from;
    char *grown = malloc(c->out.len + len);
    if (!grown) {
        conn_hang_up(c, false);
    } else {
        if (c->out.len)
            memcpy(grown, c->out.at + c->out.from, c->out.len);
        memcpy(grown + c->out.len, t->out + from, len);
        free(c->out.at);
        c->out = (struct conn_bytes){grown, 0, c->out.len + (uint32_t)len};
    }
    t->out_len = 0;
}

bool conn_flush(struct conn *c, struct net_thread *t, bool more)
{
    if (c->out.len && !flush_kept(c, t, more || t->out_len)) {
        if (t->out_len)
            keep(c, t, 0);
        return false;
    }
    size_t sent = 0;
    while (sent < t->out_len) {
        ssize_t n = put(c, t, t->out + sent, t->out_len - sent, more);
        if (n <= 0) {
            keep(c, t, sent);
            return false;
        }
        sent += (size_t)n;
    }
    t->out_len = 0;
    return true;
}

static void gather(struct net_thread *t, const char *at, size_t len)
{
    memcpy(t->out + t->out_len, at, len);
    t->out_len += len;
}

/* Room for len more gathered bytes, sending what is there if need be. Bytes are never refused here:
 * what the peer does not take is kept, and the caller stops at the next piece. */
static void make_room(struct conn *c, struct net_thread *t, size_t len)
{
    if (NET_OUT_SIZE - t->out_len < len)
        conn_flush(c, t, true);
}

void conn_say_continue(struct conn *c, struct net_thread *t)
{
    make_room(c, t, HEAD_ROOM);
    gather(t, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    conn_flush(c, t, false);
}

/* --- the head -------------------------------------------------------------------------------- */

static void gather_number(struct net_thread *t, uint64_t n)
{
    char digits[20];
    size_t i = sizeof digits;
    do
        digits[--i] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    gather(t, digits + i, sizeof digits - i);
}

/* Whether this is the connection's last answer. Only the head can say so. */
static void decide_close(struct conn *c, struct exchange *x)
{
    const struct service *s = c->service;
    if (x->is_http && !x->request.keep_alive) {
        c->close_after = true;
        c->peer_closes = x->body_complete;
    }
    if (!x->is_http || c->retire || (x->ended && !x->body_complete) || c->stay ||
        atomic_load_explicit(s->phase, memory_order_relaxed) >= SERVICE_LEAVING ||
        (s->keepalive_requests && c->requests >= s->keepalive_requests))
        c->close_after = true;
    /* Nobody could tell such an answer's end otherwise. */
    if (x->length < 0 && !x->chunked_out && !x->bodyless)
        c->close_after = true;
}

static void gather_status(struct net_thread *t, int status)
{
    if (status == 200) {
        gather(t, t->ok_head, t->ok_head_len);
        return;
    }
    t->out_len +=
        (size_t)snprintf(t->out + t->out_len, HEAD_ROOM, "HTTP/1.1 %d %s\r\nServer: Modus\r\n",
                         status, http_phrase(status));
    gather(t, t->date, t->date_len);
}

static void gather_head(struct conn *c, struct net_thread *t, struct exchange *x)
{
    make_room(c, t, HEAD_ROOM + x->fields_len);
    gather_status(t, x->status);
    gather(t, x->fields, x->fields_len);
    if (x->chunked_out) {
        gather(t, "Transfer-Encoding: chunked\r\n", 28);
    } else if (x->length >= 0 && x->status != 204 && x->status != 304) {
        gather(t, "Content-Length: ", 16);
        gather_number(t, (uint64_t)x->length);
        gather(t, "\r\n", 2);
    }
    if (c->close_after)
        gather(t, "Connection: close\r\n", 19);
    else if (x->request.minor == 0)
        gather(t, "Connection: keep-alive\r\n", 24);
    gather(t, "\r\n", 2);
}

/* Answers on a TCP listener have no head. Returns false when it does not fit anywhere. */
static bool send_head(struct conn *c, struct net_thread *t, struct exchange *x)
{
    x->head_sent = true;
    if (x->method == EXCHANGE_DUPLEX)
        return true;
    if (x->fields_len > NET_OUT_SIZE / 2)
        return false;
    x->bodyless = x->method == EXCHANGE_HEAD || x->status == 204 || x->status == 304;
    x->chunked_out = x->length < 0 && x->is_http && x->request.minor == 1 && x->status != 204 &&
                     x->status != 304;
    decide_close(c, x);
    gather_head(c, t, x);
    return true;
}

/* --- the body -------------------------------------------------------------------------------- */

static void advance(struct exchange *x, struct exchange_piece *p, size_t n)
{
    p->len -= n;
    if (p->fd < 0)
        p->at += n;
    else
        p->offset += (int64_t)n;
    x->body_bytes += (int64_t)n;
    if (p->counted)
        x->unsent -= n;
}

static void remove_piece(struct exchange *x, struct exchange_piece *p)
{
    x->pieces = p->next;
    if (!x->pieces)
        x->pieces_end = &x->pieces;
    if (p != &x->own_piece)
        free(p);
}

/* Send some of a piece. Returns false when it must wait. */
static bool send_piece(struct conn *c, struct net_thread *t, struct exchange *x,
                       struct exchange_piece *p)
{
    bool more = x->chunked_out || p->next || !x->ended;
    if (p->fd < 0 && p->len <= COPY_MAX) {
        make_room(c, t, p->len);
        size_t n = p->len;
        gather(t, p->at, n);
        advance(x, p, n);
        return c->out.len == 0;
    }
    if (!conn_flush(c, t, true))
        return false;
    ssize_t n;
    if (p->fd < 0) {
        n = put(c, t, p->at, p->len, more);
    } else {
        size_t len = p->len < FILE_TURN ? p->len : FILE_TURN;
        n = c->transport.ops->send_file(&c->transport, p->fd, p->offset, len);
        if (n == 0) { /* the file is shorter than promised */
            x->failed = true;
            return false;
        }
        if (n < 0)
            refused(c, t, n);
        else
            taken(c, t, (size_t)n);
    }
    if (n < 0)
        return false;
    advance(x, p, (size_t)n);
    return true;
}

/* A chunk a piece; its size is fixed from now on. */
static void open_chunk(struct conn *c, struct net_thread *t, struct exchange_piece *p)
{
    make_room(c, t, 32);
    t->out_len += (size_t)snprintf(t->out + t->out_len, 32, "%zx\r\n", p->len);
    p->framed = true;
    p->room = 0;
}

/* Returns false when the peer takes no more for now. */
static bool pump_piece(struct conn *c, struct net_thread *t, struct exchange *x,
                       struct exchange_piece *p)
{
    if (x->bodyless) {
        int64_t sent = x->body_bytes;
        advance(x, p, p->len);
        x->body_bytes = sent;
    } else if (p->len) {
        if (x->chunked_out && !p->framed)
            open_chunk(c, t, p);
        if (!send_piece(c, t, x, p))
            return false;
    }
    if (p->len)
        return true;
    if (p->framed) {
        make_room(c, t, 2);
        gather(t, "\r\n", 2);
    }
    remove_piece(x, p);
    return true;
}

/* The handler gave another number of bytes than it promised. Too many are found before any of them
 * is sent: the peer would take them for the next answer. */
static bool is_wrong(const struct exchange *x)
{
    return x->length >= 0 && !x->bodyless &&
           (x->promised > x->length || (x->ended && x->promised != x->length));
}

static bool pump_locked(struct conn *c, struct net_thread *t, struct exchange *x)
{
    bool progress = false;
    if (!x->head_sent) {
        progress = true;
        if (!send_head(c, t, x))
            x->failed = true;
    }
    if (is_wrong(x)) {
        exchange_complain(x, "the answer has %lld bytes, and %lld were promised",
                          (long long)x->promised, (long long)x->length);
        x->failed = true;
    }
    while (x->pieces && !x->failed && c->out.len == 0 && !conn_had_share(t)) {
        if (!pump_piece(c, t, x, x->pieces))
            break;
        progress = true;
    }
    if (x->ended && !x->pieces && !x->tail_sent && !x->failed) {
        if (x->chunked_out && !x->bodyless) {
            make_room(c, t, 5);
            gather(t, "0\r\n\r\n", 5);
        }
        x->tail_sent = true;
        progress = true;
    }
    return progress;
}

bool conn_pump(struct conn *c, struct net_thread *t, struct exchange *x)
{
    if (c->out.len && !conn_flush(c, t, false))
        return false;
    exchange_hold(x);
    bool progress = x->begun && !x->failed && pump_locked(c, t, x);
    bool room = x->write_short && x->unsent <= EXCHANGE_PIPE_SIZE / 2;
    exchange_let(x);
    if (progress && room)
        exchange_wake(x);
    return progress;
}

bool conn_answered(const struct exchange *x)
{
    return x->failed || x->tail_sent;
}
