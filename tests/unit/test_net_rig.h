/* SPDX-License-Identifier: MIT */
/* A connection on a bench: over the memory transport, with a clock that is turned by hand, a few
 * handlers, and a driver that serves inline. Every step is checked against what net/conn.h
 * promises.
 *
 *     rig_start();                    // service, thread, clock; then change rig.service at will
 *     rig_connect();
 *     rig_say("GET /text HTTP/1.1\r\nHost: x\r\n\r\n");
 *     rig_expect(RIG_OK "Content-Type: text/plain\r\n...");   // without Server and Date
 *     rig_sleep(60000);
 *     rig_end();                      // ends the connection, balances the counters
 *
 * There is one rig a program. With RIG_FAIL defined it needs no cmocka (the fuzzers).
 */
#ifndef TEST_NET_RIG_H
#define TEST_NET_RIG_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concurrency/result.h"
#include "net/conn_priv.h"
#include "net/memory.h"
#include "net/tls.h"

#ifndef RIG_FAIL
#define RIG_FAIL(...) fail_msg(__VA_ARGS__)
#endif
#define RIG_CHECK(holds)                                                                           \
    do {                                                                                           \
        if (!(holds))                                                                              \
            RIG_FAIL("line %d: %s", __LINE__, #holds);                                             \
    } while (0)
#define RIG __attribute__((unused)) static
#ifndef RIG_MOST_PIECES
#define RIG_MOST_PIECES SIZE_MAX /* bytes that /pieces sends at most */
#endif

#define RIG_OK "HTTP/1.1 200 OK\r\n"

enum { RIG_ROUTES = 12, RIG_READ_ROOM = 64 * 1024 };

struct rig {
    struct net_stats stats;
    struct net_thread *thread;
    struct service service;
    struct route routes[RIG_ROUTES];
    atomic_int phase;
    struct conn conn;
    struct transport under; /* memory, or what a program puts there */
    struct memory_pipe *pipe;
    bool open;
    bool unread; /* the peer does not take what is sent */
    unsigned wants;
    _Atomic int64_t clock_us;
    uint64_t exchanges; /* of connections that have ended */
    uint64_t connections;
    uint64_t steps;
    void (*meanwhile)(
        void);         /* plays the peer while a run handler waits; NULL: what is left to say */
    const char *later; /* is said piece by piece, when a run handler waits or a driver asks */
    size_t later_len;
    int way; /* of cutting it */
    void (*record)(const struct exchange_record *r);
    char complaint[200]; /* the last */
    /* that step entries saw: b(egun) y(bytes) r(oom) t(imer) l(eaving) c(ancelled) */
    char events[1000];

    /* the transport in the present step */
    unsigned reads, writes;
    bool read_dry, write_refused;
    bool file_ended;
    bool said_end; /* the transport was shut down */

    char *got; /* what the peer has taken */
    size_t got_len, got_size;
    char *text;
};

static struct rig rig;

/* --- time ------------------------------------------------------------------------------------ */

RIG int64_t rig_clock(void)
{
    return rig.clock_us;
}

RIG int64_t rig_now(void)
{
    return rig.clock_us / 1000;
}

/* --- a transport that is watched -------------------------------------------------------------- */

RIG int rig_t_handshake(struct transport *t)
{
    (void)t;
    int r = rig.under.ops->handshake(&rig.under);
    rig.reads++;
    rig.read_dry = r == TRANSPORT_WANT_READ;
    rig.write_refused = r == TRANSPORT_WANT_WRITE;
    return r;
}

RIG ssize_t rig_t_read(struct transport *t, void *bytes, size_t len)
{
    (void)t;
    RIG_CHECK(len > 0);
    ssize_t n = rig.under.ops->read(&rig.under, bytes, len);
    rig.reads++;
    rig.read_dry = n <= 0 || ((size_t)n < len && !rig.under.ops->pending(&rig.under));
    if (n == TRANSPORT_WANT_WRITE)
        rig.write_refused = true;
    return n;
}

RIG ssize_t rig_t_write(struct transport *t, const struct iovec *iov, int count, bool more)
{
    (void)t;
    ssize_t n = rig.under.ops->write(&rig.under, iov, count, more);
    rig.writes++;
    rig.write_refused = n == TRANSPORT_WANT_WRITE;
    rig.read_dry |= n == TRANSPORT_WANT_READ;
    return n;
}

RIG ssize_t rig_t_send_file(struct transport *t, int fd, int64_t offset, size_t len)
{
    (void)t;
    ssize_t n = rig.under.ops->send_file(&rig.under, fd, offset, len);
    rig.writes++;
    rig.write_refused = n == TRANSPORT_WANT_WRITE;
    rig.file_ended |= n == 0;
    return n;
}

RIG bool rig_t_pending(const struct transport *t)
{
    (void)t;
    return rig.under.ops->pending(&rig.under);
}

RIG int rig_t_shutdown(struct transport *t, bool closing)
{
    (void)t;
    RIG_CHECK(!rig.said_end); /* each shutdown(2) is an event for an edge-triggered poller */
    int r = rig.under.ops->shutdown(&rig.under, closing);
    rig.said_end = r == 0;
    rig.write_refused |= r == TRANSPORT_WANT_WRITE;
    rig.read_dry |= r == TRANSPORT_WANT_READ;
    return r;
}

RIG void rig_t_idle(struct transport *t)
{
    (void)t;
    rig.under.ops->idle(&rig.under);
}

RIG void rig_t_close(struct transport *t)
{
    (void)t;
    rig.under.ops->close(&rig.under);
}

static const struct transport_ops rig_ops = {
    .name = "watched",
    .handshake = rig_t_handshake,
    .read = rig_t_read,
    .write = rig_t_write,
    .send_file = rig_t_send_file,
    .pending = rig_t_pending,
    .shutdown = rig_t_shutdown,
    .idle = rig_t_idle,
    .close = rig_t_close,
};

/* --- the peer --------------------------------------------------------------------------------- */

/* Take what was sent, up to max bytes. */
RIG void rig_take(size_t max)
{
    size_t len;
    const char *sent = memory_pipe_sent(rig.pipe, &len);
    len = len < max ? len : max;
    if (rig.got_len + len + 1 > rig.got_size) {
        rig.got_size = 2 * (rig.got_len + len + 1);
        rig.got = realloc(rig.got, rig.got_size);
    }
    if (len)
        memcpy(rig.got + rig.got_len, sent, len);
    rig.got_len += len;
    rig.got[rig.got_len] = '\0';
    memory_pipe_take(rig.pipe, len);
}

/* What the peer has taken since the last rig_forget(), without the lines that hold the date. */
RIG const char *rig_text(void)
{
    static const char head[] = "Server: Modus\r\nDate: ";
    free(rig.text);
    rig.text = malloc(rig.got_len + 1);
    size_t to = 0;
    for (size_t i = 0; i < rig.got_len;) {
        if (rig.got_len - i > sizeof head + 30 && memcmp(rig.got + i, head, sizeof head - 1) == 0) {
            RIG_CHECK(memcmp(rig.got + i + sizeof head - 1 + 25, " GMT\r\n", 6) == 0);
            i += sizeof head - 1 + 31;
        } else {
            rig.text[to++] = rig.got[i++];
        }
    }
    rig.text[to] = '\0';
    return rig.text;
}

RIG void rig_forget(void)
{
    rig.got_len = 0;
}

/* --- steps ------------------------------------------------------------------------------------ */

RIG bool rig_at_work(const struct exchange *x)
{
    return x && x->entry && x->entry->run &&
           (x->stage == EXCHANGE_OPEN || x->stage == EXCHANGE_SERVED);
}

/* What must hold between two steps. */
RIG void rig_check_waiting(unsigned wants)
{
    const struct conn *c = &rig.conn;
    const struct exchange *x = c->exchange;
    bool gone = atomic_load(&c->gone);
    if (wants & (CONN_WANT_AGAIN | CONN_WANT_SERVE))
        return;
    RIG_CHECK(!gone || rig_at_work(x)); /* else it ends now */
    if (gone)
        return;
    if (wants & CONN_WANT_READ)
        RIG_CHECK(rig.reads > 0 && rig.read_dry);
    if (wants & CONN_WANT_WRITE)
        RIG_CHECK(rig.write_refused);
    /* nobody would wake it up for bytes that are there already */
    if ((wants & CONN_WANT_READ) && !(wants & CONN_WANT_WRITE))
        RIG_CHECK(memory_pipe_unread(rig.pipe) == 0);
    /* who waits for the peer has a deadline */
    bool cancelled = x && atomic_load(&x->cancel) && rig_at_work(x);
    if (wants && !cancelled)
        RIG_CHECK(conn_deadline(c) != INT64_MAX);
    if (!wants)
        RIG_CHECK(x != NULL);
    RIG_CHECK(conn_deadline(c) > rig_now()); /* else the driver spins */
}

/* Memory that a connection may hold. */
RIG void rig_check_bounds(void)
{
    const struct conn *c = &rig.conn;
    struct exchange *x = c->exchange;
    RIG_CHECK(c->in.len <= rig.thread->in_size);
    RIG_CHECK(c->out.len <= 3 * NET_OUT_SIZE);
    RIG_CHECK(!conn_is_idle(c) || (!c->in.at && !c->out.at)); /* it holds no buffer */
    if (!x)
        return;
    exchange_hold(x);
    if (x->entry && x->entry->body == EXCHANGE_BODY_STREAM)
        RIG_CHECK(x->body.len <= EXCHANGE_PIPE_SIZE);
    RIG_CHECK(x->body.len <= rig.service.max_body_size || x->method == EXCHANGE_DUPLEX);
    RIG_CHECK(x->unsent <= EXCHANGE_PIPE_SIZE);
    exchange_let(x);
}

RIG unsigned rig_step(void)
{
    RIG_CHECK(rig.open);
    rig.reads = rig.writes = 0;
    rig.read_dry = rig.write_refused = false;
    net_thread_tick(rig.thread);
    unsigned wants = conn_step(&rig.conn, rig.thread);
    rig.wants = wants;
    RIG_CHECK(++rig.steps < 20000000);
    RIG_CHECK(rig.thread->out_len == 0); /* or another connection would send it */
    if (wants & CONN_CLOSED) {
        RIG_CHECK(wants == CONN_CLOSED);
        rig.open = false;
        rig.exchanges += rig.conn.requests;
    } else {
        rig_check_waiting(wants);
        rig_check_bounds();
    }
    if (!rig.unread)
        rig_take(SIZE_MAX);
    return wants;
}

/* Step until it waits for something, or has ended. Returns what for. */
RIG unsigned rig_run(void)
{
    while (rig.open) {
        unsigned wants = rig_step();
        if (wants & CONN_WANT_SERVE) {
            struct exchange *x = conn_exchange(&rig.conn);
            exchange_serve(x);
            exchange_finish(x);
        } else if (!(wants & CONN_WANT_AGAIN)) {
            bool more = !rig.unread && (wants & CONN_WANT_WRITE);
            if (!more)
                break;
        }
    }
    return rig.wants;
}

RIG uint32_t rig_dice(uint32_t below)
{
    static uint32_t seed = 1;
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

/* Ways to cut what the peer says. */
enum { RIG_WHOLE, RIG_BYTEWISE, RIG_RANDOM, RIG_SHORT_READS, RIG_WAYS };

/* The next piece of what is said later. */
RIG void rig_say_piece(void)
{
    size_t n = rig.way == RIG_BYTEWISE ? 1
               : rig.way == RIG_RANDOM ? 1 + rig_dice(40)
                                       : rig.later_len;
    n = n < rig.later_len ? n : rig.later_len;
    memory_pipe_feed(rig.pipe, rig.later, n);
    rig.later += n;
    rig.later_len -= n;
}

/* A run handler waits: the connection goes on, the peer acts, then time passes. */
RIG void rig_wait(void *host, struct exchange *x, int64_t deadline_ms)
{
    RIG_CHECK(host == &rig && exchange_conn(x) == &rig.conn);
    unsigned wants = rig_step();
    if (exchange_has_news(x) || (wants & CONN_WANT_AGAIN) || deadline_ms <= rig_now())
        return;
    if (rig.meanwhile || rig.later_len) {
        if (rig.meanwhile)
            rig.meanwhile();
        else
            rig_say_piece();
        rig_step();
        if (exchange_has_news(x) || deadline_ms == INT64_MAX)
            return; /* the peer is at it: no time passes */
    }
    int64_t until = conn_deadline(&rig.conn) < deadline_ms ? conn_deadline(&rig.conn) : deadline_ms;
    if (until == INT64_MAX)
        RIG_FAIL("a handler waits for ever");
    if (until > rig_now())
        rig.clock_us = until * 1000;
    rig_step();
}

RIG void rig_kick(void *host, struct exchange *x)
{
    RIG_CHECK(host == &rig && exchange_conn(x) == &rig.conn);
    rig_step();
}

RIG void rig_wake(void *host, struct exchange *x)
{
    RIG_CHECK(host == &rig && exchange_conn(x) == &rig.conn);
}

static const struct conn_host rig_host = {rig_wait, rig_kick, rig_wake};

RIG void rig_note(void *arg, const struct exchange_record *r)
{
    RIG_CHECK(arg == &rig);
    if (rig.record)
        rig.record(r);
}

RIG void rig_complain(void *arg, const struct route *route, const char *why)
{
    RIG_CHECK(arg == &rig && route && why);
    snprintf(rig.complaint, sizeof rig.complaint, "%.*s: %s", (int)route->prefix.len,
             route->prefix.at, why);
}

/* --- beginning and end ------------------------------------------------------------------------ */

RIG void rig_route(size_t index, const char *prefix, const struct exchange_entry *entry)
{
    RIG_CHECK(index < RIG_ROUTES);
    rig.routes[index] = (struct route){str_of(prefix), entry, prefix};
    if (rig.service.route_count <= index)
        rig.service.route_count = index + 1;
}

RIG void rig_start(void)
{
    memset(&rig, 0, sizeof rig);
    rig.clock_us = INT64_C(5000000000);
    rig.service = (struct service){
        .routes = rig.routes,
        .header_timeout_ms = 10000,
        .body_timeout_ms = 20000,
        .send_timeout_ms = 60000,
        .keepalive_timeout_ms = 30000,
        .max_header_size = 32 * 1024,
        .max_body_size = 1024 * 1024,
        .phase = &rig.phase,
        .note = rig_note,
        .note_arg = &rig,
        .complain = rig_complain,
        .complain_arg = &rig,
    };
    rig.thread = net_thread_new(rig.service.max_header_size + RIG_READ_ROOM, &rig.stats);
    RIG_CHECK(rig.thread != NULL);
    rig.thread->clock_us = rig_clock;
    net_thread_tick(rig.thread);
}

RIG void rig_connect(void)
{
    static const struct conn_peer peer = {
        .address = {192, 0, 2, 7}, .family = AF_INET, .port = 1234};
    RIG_CHECK(!rig.open);
    rig.later_len = 0;
    memory_pipe_free(rig.pipe);
    rig.pipe = memory_pipe_new(&rig.under);
    RIG_CHECK(rig.pipe != NULL);
    rig.unread = rig.said_end = false;
    rig.got_len = 0;
    struct transport t = {.ops = &rig_ops, .fd = -1, .priv = &rig};
    net_thread_tick(rig.thread);
    rig.open = conn_open(&rig.conn, &rig.service, t, &peer, &rig_host, &rig, rig.thread) == 0;
    RIG_CHECK(rig.open);
    rig.connections++;
    rig_run();
}

/* Let time pass, and nothing else. */
RIG void rig_sleep(int64_t ms)
{
    rig.clock_us += ms * 1000;
    if (rig.open)
        rig_run();
}

RIG void rig_feed(const void *bytes, size_t len)
{
    memory_pipe_feed(rig.pipe, bytes, len);
    if (rig.open)
        rig_run();
}

/* It is there, but nobody has looked yet. */
RIG void rig_put(const char *text)
{
    memory_pipe_feed(rig.pipe, text, strlen(text));
}

RIG void rig_say(const char *text)
{
    rig_feed(text, strlen(text));
}

/* The peer sends no more. */
RIG void rig_finish(void)
{
    memory_pipe_end(rig.pipe);
    if (rig.open) {
        conn_hang_up(&rig.conn, true); /* as a poller sees it */
        rig_run();
    }
}

RIG void rig_balance(void)
{
    struct net_stats *s = &rig.stats;
    uint64_t answers = 0;
    for (int i = 0; i < 6; i++)
        answers += s->answers[i];
    RIG_CHECK(s->accepted == rig.connections);
    RIG_CHECK(s->closed == rig.connections);
    RIG_CHECK(s->begun == s->ended);
    RIG_CHECK(answers == rig.exchanges);
    RIG_CHECK(s->latency.count <= answers);
}

/* End the connection as a peer does that has all it wants; time passes if it must. */
RIG void rig_disconnect(void)
{
    rig.unread = false;
    memory_pipe_limit(rig.pipe, 0, 0);
    rig_finish();
    for (int i = 0; rig.open && i < 100; i++) {
        RIG_CHECK(conn_deadline(&rig.conn) != INT64_MAX);
        rig.clock_us = conn_deadline(&rig.conn) * 1000;
        rig_run();
    }
    RIG_CHECK(!rig.open);
}

RIG void rig_end(void)
{
    if (rig.open)
        rig_disconnect();
    rig_balance();
    RIG_CHECK(rig.thread->spare_count <= EXCHANGE_SPARES);
    net_thread_free(rig.thread);
    memory_pipe_free(rig.pipe);
    free(rig.got);
    free(rig.text);
    rig.thread = NULL;
    rig.pipe = NULL;
    rig.got = rig.text = NULL;
}

/* --- expectations ----------------------------------------------------------------------------- */

/* All that the peer has got since the last look is this. */
RIG void rig_expect(const char *text)
{
    const char *got = rig_text();
    if (strcmp(got, text) != 0 || strlen(got) != strlen(text))
        RIG_FAIL("got:\n%s\ninstead of:\n%s", got, text);
    rig_forget();
}

/* It begins so; the rest does not matter. */
RIG void rig_expect_begin(const char *text)
{
    const char *got = rig_text();
    if (strncmp(got, text, strlen(text)) != 0)
        RIG_FAIL("got:\n%s\nwhich should begin with:\n%s", got, text);
    rig_forget();
}

RIG bool rig_is_closed(void)
{
    return !rig.open;
}

/* Our side has said that it sends no more, and waits for the peer's end. */
RIG bool rig_lingers(void)
{
    return rig.open && rig.conn.state == CONN_LINGER && memory_pipe_is_shut(rig.pipe);
}

RIG bool rig_is_idle(void)
{
    return rig.open && conn_is_idle(&rig.conn);
}

/* --- cuts ------------------------------------------------------------------------------------- */

/* Give the bytes to the connection in one of these ways. */
RIG void rig_feed_way(const void *bytes, size_t len, int way)
{
    rig.later = bytes;
    rig.later_len = len;
    rig.way = way;
    if (way == RIG_SHORT_READS)
        memory_pipe_limit(rig.pipe, 1 + rig_dice(9), 0);
    while (rig.later_len) {
        rig_say_piece();
        if (rig.open)
            rig_run();
    }
    rig.way = RIG_WHOLE;
}

/* What the peer says while a run handler waits. */
RIG void rig_later(const char *text)
{
    rig.later = text;
    rig.later_len = strlen(text);
}

/* Each way, on a connection of its own: the answers are these bytes. closes: the connection ends
 * with them. */
RIG void rig_talk(const char *said, size_t len, const char *answers, bool closes)
{
    for (int way = 0; way < RIG_WAYS; way++) {
        rig_connect();
        rig_feed_way(said, len, way);
        const char *got = rig_text();
        if (strcmp(got, answers) != 0)
            RIG_FAIL("way %d, to:\n%.*s\ngot:\n%s\ninstead of:\n%s", way, (int)len, said, got,
                     answers);
        if (closes ? rig.open && !rig_lingers() : !rig_is_idle())
            RIG_FAIL("way %d: %s after:\n%.*s", way, closes ? "goes on" : "is not idle", (int)len,
                     said);
        if (rig.open)
            rig_disconnect();
    }
}

RIG void rig_talk_text(const char *said, const char *answers, bool closes)
{
    rig_talk(said, strlen(said), answers, closes);
}

/* --- handlers --------------------------------------------------------------------------------- */

/* "hello\n", at once. */
RIG int rig_text_step(struct exchange *x, enum exchange_event event)
{
    return event == EXCHANGE_BEGUN ? exchange_reply_static(x, 200, "text/plain", STR("hello\n"))
                                   : 0;
}

static const struct exchange_entry rig_text_entry = {.step = rig_text_step};

#define RIG_HELLO RIG_OK "Content-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n"
#define RIG_HELLO_CLOSE                                                                            \
    RIG_OK "Content-Type: text/plain\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n"

/* The body back, as it comes; with its length if it has one. */
RIG int rig_echo_step(struct exchange *x, enum exchange_event event)
{
    const char *bytes;
    if (event == EXCHANGE_CANCELLED)
        return 0;
    if (event == EXCHANGE_BEGUN) {
        struct str length = exchange_header(x, "content-length");
        bool known = exchange_method(x) != EXCHANGE_DUPLEX && length.at;
        bool none = exchange_method(x) != EXCHANGE_DUPLEX && !length.at &&
                    !exchange_header(x, "transfer-encoding").at;
        int r = exchange_begin(x, 200, NULL, none ? 0 : known ? strtoll(length.at, NULL, 10) : -1);
        if (r)
            return r;
    }
    for (size_t n; (n = exchange_peek(x, &bytes)) > 0;) {
        ssize_t taken = exchange_try_write(x, bytes, n);
        if (taken < 0)
            return (int)taken;
        exchange_consume(x, (size_t)taken);
        if ((size_t)taken < n)
            return 0;
    }
    return exchange_body_ended(x) ? exchange_end(x) : 0;
}

static const struct exchange_entry rig_echo_entry = {.step = rig_echo_step,
                                                     .methods = EXCHANGE_POST | EXCHANGE_PUT |
                                                                EXCHANGE_DUPLEX,
                                                     .body = EXCHANGE_BODY_STREAM};

/* The body back, once it is whole, from a run handler. */
RIG int rig_collect_run(struct exchange *x)
{
    return exchange_reply(x, 200, NULL, exchange_body(x));
}

static const struct exchange_entry rig_collect_entry = {.run = rig_collect_run,
                                                        .methods = EXCHANGE_POST | EXCHANGE_GET |
                                                                   EXCHANGE_HEAD,
                                                        .body = EXCHANGE_BODY_COLLECT};

/* ?n= bytes in pieces of ?piece=, of a length not known. */
struct rig_pieces {
    size_t left, piece, at;
};

RIG size_t rig_number(const struct exchange *x, const char *name, size_t otherwise)
{
    struct str s = exchange_query_value(x, name);
    size_t n = 0;
    if (!s.len || s.len > 9)
        return otherwise;
    for (size_t i = 0; i < s.len; i++) {
        if (s.at[i] < '0' || s.at[i] > '9')
            return otherwise;
        n = n * 10 + (size_t)(s.at[i] - '0');
    }
    return n;
}

RIG char rig_pattern(size_t i)
{
    return (char)('a' + i % 23);
}

RIG int rig_pieces_step(struct exchange *x, enum exchange_event event)
{
    struct rig_pieces *s = exchange_state(x, sizeof *s);
    char bytes[4096];
    if (event == EXCHANGE_CANCELLED)
        return 0;
    if (!s)
        return -ENOMEM;
    if (event == EXCHANGE_BEGUN) {
        s->left = rig_number(x, "n", 10);
        if (s->left > RIG_MOST_PIECES)
            s->left = RIG_MOST_PIECES;
        s->piece = rig_number(x, "piece", 4);
        if (s->piece == 0 || s->piece > sizeof bytes)
            return exchange_reply_error(x, 400);
        int r = exchange_begin(x, 200, "text/plain", -1);
        if (r)
            return r;
    }
    while (s->left) {
        size_t n = s->left < s->piece ? s->left : s->piece;
        for (size_t i = 0; i < n; i++)
            bytes[i] = rig_pattern(s->at + i);
        ssize_t taken = exchange_try_write(x, bytes, n);
        if (taken < 0)
            return (int)taken;
        s->at += (size_t)taken;
        s->left -= (size_t)taken;
        if ((size_t)taken < n)
            return 0;
    }
    return exchange_end(x);
}

static const struct exchange_entry rig_pieces_entry = {.step = rig_pieces_step};

/* The usual routes. */
RIG void rig_routes(void)
{
    rig_route(0, "/collect", &rig_collect_entry);
    rig_route(1, "/pieces", &rig_pieces_entry);
    rig_route(2, "/echo", &rig_echo_entry);
    rig_route(3, "/text", &rig_text_entry);
}

/* For step entries: note the event. */
RIG void rig_saw(enum exchange_event event)
{
    size_t len = strlen(rig.events);
    if (len + 1 < sizeof rig.events) {
        rig.events[len] = "byrtlc"[event];
        rig.events[len + 1] = '\0';
    }
}

/* Around each test. */
RIG int rig_setup(void **state)
{
    (void)state;
    rig_start();
    rig_routes();
    return 0;
}

RIG int rig_teardown(void **state)
{
    (void)state;
    rig_end();
    return 0;
}

#endif
