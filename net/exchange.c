/* SPDX-License-Identifier: MIT */
/* The handler's side of an exchange: what net/exchange.h promises. It puts answers into pieces and
 * takes body bytes out of a pipe; how these get to and from the peer is conn.c's. */
#include "net/exchange_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concurrency/result.h"
#include "net/gil.h"

enum { LOOK_EVERY_MS = 10, PIECE_SIZE = 16 * 1024 };

/* --- life ------------------------------------------------------------------------------------ */

int exchange_add_spare(struct net_thread *t, size_t alignment)
{
    struct exchange *x = aligned_alloc(alignment, sizeof *x);
    if (!x)
        return -ENOMEM;
    modus_lock_init(&x->lock, MODUS_THREAD);
    modus_event_init(&x->event, MODUS_THREAD);
    x->next_spare = t->spare;
    t->spare = x;
    t->spare_count++;
    return 0;
}

struct exchange *exchange_get(struct net_thread *t, struct conn *c)
{
    if (!t->spare && exchange_add_spare(t, 64) != 0)
        return NULL;
    struct exchange *x = t->spare;
    t->spare = x->next_spare;
    t->spare_count--;
    memset(x, 0, offsetof(struct exchange, request));
    x->conn = c;
    x->service = c->service;
    x->deadline_ms = INT64_MAX;
    x->length = -1;
    x->pieces_end = &x->pieces;
    x->fields = x->inline_fields;
    x->fields_size = sizeof x->inline_fields;
    x->clock_us = t->clock_us;
    x->begun_us = t->now_us;
    x->peer[0] = '\0';
    return x;
}

static void drop_pieces(struct exchange *x)
{
    while (x->pieces) {
        struct exchange_piece *p = x->pieces;
        x->pieces = p->next;
        if (p != &x->own_piece)
            free(p);
    }
}

void exchange_put(struct net_thread *t, struct exchange *x)
{
    for (struct exchange_deferred *d = x->deferred; d; d = d->next)
        d->release(d->arg);
    drop_pieces(x);
    while (x->blocks) {
        struct exchange_block *b = x->blocks;
        x->blocks = b->next;
        free(b);
    }
    if (x->body.at || x->head_block) {
        free(x->body.at);
        free(x->head_block);
    }
    if (t->spare_count >= EXCHANGE_SPARES) {
        free(x);
        return;
    }
    x->next_spare = t->spare;
    t->spare = x;
    t->spare_count++;
}

void exchange_free_spares(struct net_thread *t)
{
    while (t->spare) {
        struct exchange *x = t->spare;
        t->spare = x->next_spare;
        free(x);
    }
    t->spare_count = 0;
}

/* Only a run handler can be on another thread. */
void exchange_hold(struct exchange *x)
{
    if (x->entry && x->entry->run)
        modus_lock_acquire(&x->lock, MODUS_FOREVER);
}

void exchange_let(struct exchange *x)
{
    if (x->entry && x->entry->run)
        modus_lock_release(&x->lock);
}

struct conn *exchange_conn(const struct exchange *x)
{
    return x->conn;
}

struct modus_event *exchange_event(struct exchange *x)
{
    return &x->event;
}

const struct route *exchange_route(const struct exchange *x)
{
    return x->route;
}

int64_t exchange_waited_us(const struct exchange *x)
{
    return x->served_us - x->offered_us;
}

/* --- memory ---------------------------------------------------------------------------------- */

void *exchange_alloc(struct exchange *x, size_t size)
{
    size_t rounded = (size + 15) & ~(size_t)15;
    if (rounded >= size && rounded <= sizeof x->inline_memory - x->inline_used) {
        void *at = x->inline_memory + x->inline_used;
        x->inline_used += rounded;
        return at;
    }
    struct exchange_block *b = size < SIZE_MAX - 32 ? malloc(16 + size) : NULL;
    if (!b)
        return NULL;
    b->next = x->blocks;
    x->blocks = b;
    return (char *)b + 16;
}

void *exchange_state(struct exchange *x, size_t size)
{
    if (!x->state) {
        x->state = exchange_alloc(x, size);
        if (x->state)
            memset(x->state, 0, size);
    }
    return x->state;
}

int exchange_defer(struct exchange *x, void (*release)(void *arg), void *arg)
{
    struct exchange_deferred *d = exchange_alloc(x, sizeof *d);
    if (!d)
        return -ENOMEM;
    *d = (struct exchange_deferred){x->deferred, release, arg};
    x->deferred = d;
    return 0;
}

/* --- the request ----------------------------------------------------------------------------- */

enum exchange_method exchange_method(const struct exchange *x)
{
    return (enum exchange_method)x->method;
}

struct str exchange_path(const struct exchange *x)
{
    return x->path;
}

struct str exchange_rest(const struct exchange *x)
{
    size_t len = x->route->prefix.len;
    if (len == 1) /* "/" is the one prefix that ends with '/' */
        return x->path;
    return (struct str){x->path.at + len, x->path.len - len};
}

struct str exchange_query(const struct exchange *x)
{
    return x->query;
}

struct str exchange_target(const struct exchange *x)
{
    return x->target;
}

struct str exchange_query_value(const struct exchange *x, const char *name)
{
    struct str wanted = str_of(name), rest = x->query;
    while (rest.len) {
        const char *amp = memchr(rest.at, '&', rest.len);
        struct str pair = {rest.at, amp ? (size_t)(amp - rest.at) : rest.len};
        if (pair.len > wanted.len && pair.at[wanted.len] == '=' &&
            memcmp(pair.at, name, wanted.len) == 0)
            return (struct str){pair.at + wanted.len + 1, pair.len - wanted.len - 1};
        size_t used = pair.len + (amp ? 1 : 0);
        rest = (struct str){rest.at + used, rest.len - used};
    }
    return (struct str){0};
}

bool exchange_header_at(const struct exchange *x, size_t index, struct str *name, struct str *value)
{
    if (!x->is_http || index >= x->request.header_count)
        return false;
    const struct http1_header *h = &x->request.headers[index];
    *name = (struct str){x->head + h->name, h->name_len};
    *value = (struct str){x->head + h->value, h->value_len};
    return true;
}

struct str exchange_header(const struct exchange *x, const char *name)
{
    struct str wanted = str_of(name), found, value;
    for (size_t i = 0; exchange_header_at(x, i, &found, &value); i++)
        if (str_is_nocase(found, wanted))
            return value;
    return (struct str){0};
}

struct str exchange_body(const struct exchange *x)
{
    if (!x->entry || x->entry->body != EXCHANGE_BODY_COLLECT || !x->body.len)
        return (struct str){0};
    return (struct str){x->body.at + x->body.from, x->body.len};
}

struct str exchange_peer(const struct exchange *x)
{
    char *text = ((struct exchange *)(uintptr_t)x)->peer; /* filled at the first question */
    const struct conn_peer *peer = &x->conn->peer;
    if (peer->family == AF_UNIX)
        return STR("unix:");
    if (text[0] == '\0' && !inet_ntop(peer->family, peer->address, text, sizeof x->peer))
        return STR("-");
    return str_of(text);
}

const void *exchange_conf(const struct exchange *x)
{
    return x->route->conf;
}

/* --- cancelling and waiting ------------------------------------------------------------------ */

void exchange_wake(struct exchange *x)
{
    atomic_fetch_add_explicit(&x->news, 1, memory_order_release);
    if (x->stage == EXCHANGE_SERVED)
        x->conn->host_ops->wake(x->conn->host, x);
}

void exchange_cancel(struct exchange *x)
{
    atomic_store_explicit(&x->cancel, true, memory_order_release);
    exchange_wake(x);
}

bool exchange_is_blocking(const struct exchange *x)
{
    return x->entry->blocking;
}

bool exchange_is_cancelled(const struct exchange *x)
{
    return atomic_load_explicit(&x->cancel, memory_order_acquire);
}

bool exchange_has_news(const struct exchange *x)
{
    return atomic_load_explicit(&x->news, memory_order_acquire) != x->news_read;
}

/* Whoever runs the handler waits, without the interpreter's lock if there is one. */
static void wait_by_host(struct exchange *x, int64_t deadline_ms)
{
    struct net_gil *gil = x->conn->service->gil;
    net_gil_leave(gil);
    x->conn->host_ops->wait(x->conn->host, x, deadline_ms);
    net_gil_enter(gil);
}

/* One wait; the caller looks again at what it waits for. */
static void wait_for_news(struct exchange *x, int64_t deadline_ms)
{
    if (!exchange_has_news(x))
        wait_by_host(x, deadline_ms);
    x->news_read = atomic_load_explicit(&x->news, memory_order_acquire);
}

bool exchange_cancelled(struct exchange *x)
{
    if (atomic_load_explicit(&x->cancel, memory_order_acquire) ||
        atomic_load_explicit(&x->conn->gone, memory_order_acquire))
        return true;
    net_gil_checkpoint(x->conn->service->gil);
    /* Where the handler runs on the connection's own thread, nobody else looks at the peer or the
     * clock meanwhile. */
    int64_t now_ms = x->clock_us() / 1000;
    if (now_ms - x->looked_ms >= LOOK_EVERY_MS && x->stage == EXCHANGE_SERVED) {
        x->looked_ms = now_ms;
        wait_by_host(x, now_ms);
    }
    return atomic_load_explicit(&x->cancel, memory_order_acquire);
}

/* A step entry is called where nobody can wait. */
static bool may_wait(const struct exchange *x)
{
    return x->stage == EXCHANGE_SERVED;
}

int exchange_sleep(struct exchange *x, int64_t ms)
{
    if (!may_wait(x))
        return -EINVAL;
    int64_t end_us = x->clock_us() + ms * 1000;
    for (;;) {
        if (atomic_load_explicit(&x->cancel, memory_order_acquire))
            return MODUS_CANCELED;
        if (x->clock_us() >= end_us)
            return 0;
        wait_for_news(x, (end_us + 999) / 1000);
    }
}

/* --- the request's body ---------------------------------------------------------------------- */

size_t exchange_body_space(const struct exchange *x)
{
    if (!exchange_is_streamed(x))
        return SIZE_MAX; /* collected under max_body_size, or dropped */
    return EXCHANGE_PIPE_SIZE - x->body.len;
}

bool exchange_is_streamed(const struct exchange *x)
{
    return x->entry && (x->entry->body == EXCHANGE_BODY_STREAM || x->method == EXCHANGE_DUPLEX);
}

int exchange_body_append(struct exchange *x, const char *at, size_t len)
{
    struct conn_bytes *b = &x->body;
    if (b->len + len > UINT32_MAX)
        return -ENOMEM;
    if (b->from && b->from + b->len + len > x->body_room) {
        memmove(b->at, b->at + b->from, b->len);
        b->from = 0;
    }
    if (b->len + len > x->body_room) {
        size_t room = x->body_room ? x->body_room : 4096;
        while (room < b->len + len)
            room *= 2;
        char *grown = realloc(b->at, room);
        if (!grown)
            return -ENOMEM;
        b->at = grown;
        x->body_room = room;
    }
    memcpy(b->at + b->from + b->len, at, len);
    b->len += (uint32_t)len;
    x->body_seen = false;
    return 0;
}

void exchange_body_end(struct exchange *x, bool cut)
{
    x->body_complete = true;
    x->body_cut = cut;
    x->body_seen = false;
}

size_t exchange_peek(struct exchange *x, const char **bytes)
{
    *bytes = x->body.len ? x->body.at + x->body.from : "";
    return x->body.len;
}

void exchange_consume(struct exchange *x, size_t n)
{
    x->body.from += (uint32_t)n;
    x->body.len -= (uint32_t)n;
    if (x->body.len == 0)
        x->body.from = 0;
}

bool exchange_body_ended(const struct exchange *x)
{
    return x->body_complete && x->body.len == 0;
}

/* Tell the connection, from a run handler, that it has something to do. */
static void kick(struct exchange *x)
{
    if (!atomic_exchange_explicit(&x->kicked, true, memory_order_acq_rel))
        x->conn->host_ops->kick(x->conn->host, x);
}

ssize_t exchange_read(struct exchange *x, void *bytes, size_t len)
{
    if (!may_wait(x))
        return -EINVAL;
    for (;;) {
        exchange_hold(x);
        size_t had = x->body.len, n = had < len ? had : len;
        bool complete = x->body_complete, cut = x->body_cut;
        if (n) {
            memcpy(bytes, x->body.at + x->body.from, n);
            exchange_consume(x, n);
        }
        exchange_let(x);
        if (n) {
            if (!complete && had >= EXCHANGE_PIPE_SIZE / 2)
                kick(x);
            return (ssize_t)n;
        }
        if (cut || atomic_load_explicit(&x->cancel, memory_order_acquire))
            return MODUS_CANCELED;
        if (complete || len == 0)
            return 0;
        wait_for_news(x, INT64_MAX);
    }
}

void exchange_timer(struct exchange *x, int64_t ms)
{
    x->timer_ms = (x->clock_us() + 999) / 1000 + (ms > 0 ? ms : 1); /* never in the same step */
}

void exchange_endless(struct exchange *x)
{
    x->endless = true;
    x->deadline_ms = INT64_MAX;
}

/* --- the answer ------------------------------------------------------------------------------ */

static bool is_value(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (((unsigned char)s.at[i] < 0x20 && s.at[i] != '\t') || s.at[i] == 0x7f)
            return false;
    return true;
}

/* Room for len more bytes of fields, or NULL when memory is out. */
static char *add_room(struct exchange *x, size_t len)
{
    size_t needed = x->fields_len + len;
    if (needed > x->fields_size) {
        char *grown = exchange_alloc(x, needed * 2);
        if (!grown)
            return NULL;
        memcpy(grown, x->fields, x->fields_len);
        x->fields = grown;
        x->fields_size = needed * 2;
    }
    char *to = x->fields + x->fields_len;
    x->fields_len = needed;
    return to;
}

static size_t field_len(struct str name, struct str value)
{
    return name.len + 2 + value.len + 2;
}

static void put_field(char *to, struct str name, struct str value)
{
    memcpy(to, name.at, name.len);
    memcpy(to + name.len, ": ", 2);
    if (value.len)
        memcpy(to + name.len + 2, value.at, value.len);
    memcpy(to + name.len + 2 + value.len, "\r\n", 2);
}

static int append_field(struct exchange *x, struct str name, struct str value)
{
    char *to = add_room(x, field_len(name, value));
    if (!to)
        return -ENOMEM;
    put_field(to, name, value);
    return 0;
}

/* The connection writes these: a second one of them could make an answer mean two things. */
static bool is_reserved(struct str name)
{
    return str_is_nocase(name, STR("Connection")) || str_is_nocase(name, STR("Content-Length")) ||
           str_is_nocase(name, STR("Transfer-Encoding")) || str_is_nocase(name, STR("Date")) ||
           str_is_nocase(name, STR("Server"));
}

static bool is_allowed(struct str name, struct str value)
{
    return http1_is_token(name) && is_value(value) && !is_reserved(name);
}

int exchange_add(struct exchange *x, const char *name, struct str value)
{
    if (x->begun)
        return -EALREADY;
    return is_allowed(str_of(name), value) ? append_field(x, str_of(name), value) : -EINVAL;
}

int exchange_headers_add(struct exchange_headers *h, const char *name, struct str value)
{
    struct str n = str_of(name);
    if (!is_allowed(n, value))
        return -EINVAL;
    if (field_len(n, value) > sizeof h->text - h->len)
        return -ENOBUFS;
    put_field(h->text + h->len, n, value);
    h->len += field_len(n, value);
    return 0;
}

int exchange_add_headers(struct exchange *x, const struct exchange_headers *h)
{
    if (x->begun)
        return -EALREADY;
    char *to = add_room(x, h->len);
    if (!to)
        return -ENOMEM;
    memcpy(to, h->text, h->len);
    return 0;
}

/* Everything that begins an answer comes through here. */
static int begin(struct exchange *x, int status, const char *type, int64_t length)
{
    if (x->begun)
        return -EALREADY;
    if (status < 200 || status > 599 || (type && !is_value(str_of(type))))
        return -EINVAL;
    if (type) {
        int r = append_field(x, STR("Content-Type"), str_of(type));
        if (r)
            return r;
    }
    x->status = status;
    x->length = length;
    x->begun = true;
    return 0;
}

static struct exchange_piece *add_piece(struct exchange *x, size_t room)
{
    struct exchange_piece *p = &x->own_piece;
    if (room || x->own_piece_used)
        p = malloc(sizeof *p + room);
    else
        x->own_piece_used = true;
    if (!p)
        return NULL;
    *p = (struct exchange_piece){.room = room, .fd = -1, .counted = room != 0};
    *x->pieces_end = p;
    x->pieces_end = &p->next;
    return p;
}

int exchange_reply_static(struct exchange *x, int status, const char *type, struct str body)
{
    exchange_hold(x);
    int r = begin(x, status, type, (int64_t)body.len);
    if (r == 0 && body.len) {
        struct exchange_piece *p = add_piece(x, 0);
        if (p) {
            p->at = body.at;
            p->len = body.len;
            x->promised = (int64_t)body.len;
        } else {
            r = -ENOMEM;
            x->failed = true;
        }
    }
    if (r == 0)
        x->ended = true;
    exchange_let(x);
    return r;
}

int exchange_reply(struct exchange *x, int status, const char *type, struct str body)
{
    char *copy = exchange_alloc(x, body.len);
    if (!copy)
        return -ENOMEM;
    if (body.len)
        memcpy(copy, body.at, body.len);
    return exchange_reply_static(x, status, type, (struct str){copy, body.len});
}

int exchange_reply_error(struct exchange *x, int status)
{
    char text[80];
    int n = snprintf(text, sizeof text, "%d %s\n", status, http_phrase(status));
    return exchange_reply(x, status, "text/plain", (struct str){text, (size_t)n});
}

void exchange_complain(const struct exchange *x, const char *format, ...)
{
    const struct service *s = x->conn->service;
    char why[200];
    va_list args;
    bool over = atomic_load_explicit(&x->cancel, memory_order_acquire) ||
                atomic_load_explicit(&x->conn->gone, memory_order_acquire);
    if (!s->complain || over)
        return;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    s->complain(s->complain_arg, x->route, why);
}

void exchange_complain_of(const struct exchange *x, int code)
{
    const char *text = strerrordesc_np(-code);
    exchange_complain(x, "the handler returned %d (%s)", code, text ? text : modus_strresult(code));
}

void exchange_fail(struct exchange *x, int status)
{
    if (x->begun || x->method == EXCHANGE_DUPLEX || exchange_reply_error(x, status) != 0)
        x->failed = true;
}

int exchange_begin(struct exchange *x, int status, const char *type, int64_t length)
{
    exchange_hold(x);
    int r = begin(x, status, type, length);
    exchange_let(x);
    return r;
}

bool exchange_begun(const struct exchange *x)
{
    return x->begun;
}

/* Copy what there is room for into the last piece and new ones. Returns bytes taken or -ENOMEM. */
static ssize_t take_bytes(struct exchange *x, const char *bytes, size_t len)
{
    size_t taken = 0;
    while (taken < len && x->unsent < EXCHANGE_PIPE_SIZE) {
        struct exchange_piece *last = NULL;
        if (x->pieces)
            last = (struct exchange_piece *)((char *)x->pieces_end -
                                             offsetof(struct exchange_piece, next));
        if (!last || last->room == 0) {
            last = add_piece(x, PIECE_SIZE);
            if (!last)
                return -ENOMEM;
            last->at = (char *)(last + 1);
        }
        size_t n = len - taken < last->room ? len - taken : last->room;
        if (n > EXCHANGE_PIPE_SIZE - x->unsent)
            n = EXCHANGE_PIPE_SIZE - x->unsent;
        memcpy((char *)(uintptr_t)last->at + last->len, bytes + taken, n);
        last->len += n;
        last->room -= n;
        x->unsent += n;
        taken += n;
    }
    return (ssize_t)taken;
}

/* *unsent is how much waits to be sent after it. */
static ssize_t write_some(struct exchange *x, const void *bytes, size_t len, size_t *unsent)
{
    exchange_hold(x);
    ssize_t n = !x->begun || x->ended ? -EINVAL
                : atomic_load_explicit(&x->cancel, memory_order_acquire)
                    ? MODUS_CANCELED
                    : take_bytes(x, bytes, len);
    if (n > 0)
        x->promised += n;
    if (n >= 0 && (size_t)n < len)
        x->write_short = true;
    *unsent = x->unsent;
    exchange_let(x);
    return n;
}

ssize_t exchange_try_write(struct exchange *x, const void *bytes, size_t len)
{
    size_t unsent;
    return write_some(x, bytes, len, &unsent);
}

int exchange_write(struct exchange *x, const void *bytes, size_t len)
{
    const char *at = bytes;
    if (!may_wait(x))
        return -EINVAL;
    while (len) {
        size_t unsent;
        ssize_t n = write_some(x, at, len, &unsent);
        if (n < 0)
            return (int)n;
        at += n;
        len -= (size_t)n;
        if (len || unsent >= EXCHANGE_PIPE_SIZE / 2)
            kick(x);
        if (len)
            wait_for_news(x, INT64_MAX);
    }
    return 0;
}

int exchange_flush(struct exchange *x)
{
    if (!may_wait(x))
        return -EINVAL;
    kick(x);
    return atomic_load_explicit(&x->cancel, memory_order_acquire) ? MODUS_CANCELED : 0;
}

int exchange_send_file(struct exchange *x, int fd, int64_t offset, int64_t length)
{
    if (length == 0)
        return 0;
    exchange_hold(x);
    int r = x->begun && !x->ended && length > 0 ? 0 : -EINVAL;
    struct exchange_piece *p = r == 0 ? add_piece(x, 0) : NULL;
    if (p) {
        p->fd = fd;
        p->offset = offset;
        p->len = (size_t)length;
        x->promised += length;
    } else if (r == 0) {
        r = -ENOMEM;
    }
    exchange_let(x);
    return r;
}

int exchange_end(struct exchange *x)
{
    exchange_hold(x);
    int r = x->begun ? 0 : -EINVAL;
    if (r == 0)
        x->ended = true;
    exchange_let(x);
    return r;
}

/* --- serving --------------------------------------------------------------------------------- */

void exchange_serve(struct exchange *x)
{
    x->stage = EXCHANGE_SERVED;
    x->served_us = x->clock_us();
    x->looked_ms = x->served_us / 1000;
    net_gil_enter(x->conn->service->gil);
    int r =
        atomic_load_explicit(&x->cancel, memory_order_acquire) ? MODUS_CANCELED : x->entry->run(x);
    net_gil_leave(x->conn->service->gil);
    exchange_hold(x);
    bool begun = x->begun, cut = x->body_cut;
    if (r == 0 && begun)
        x->ended = true;
    exchange_let(x);
    if (r == 0 && begun)
        return;
    bool cancelled = atomic_load_explicit(&x->cancel, memory_order_acquire);
    if (r == 0)
        exchange_complain(x, "the handler gave no answer");
    else if (!cut) /* else it may know before the connection has cancelled it */
        exchange_complain_of(x, r);
    exchange_fail(x, cancelled ? x->cancel_status : cut ? 400 : 500);
}

void exchange_finish(struct exchange *x)
{
    x->stage = EXCHANGE_RETURNED;
}
