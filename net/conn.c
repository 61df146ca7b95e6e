/* SPDX-License-Identifier: MIT */
/* The connection's state machine: what state it is in, which exchange is open, by when something
 * must happen. How bytes come in and go out are conn_input.c and conn_output.c. See net/conn.h for
 * the states; each has one function here, called until it has nothing more to do.
 */
#include "net/conn.h"

#include <stdlib.h>

#include "net/conn_priv.h"
#include "net/gil.h"
#include "net/target.h"
#include "net/tls.h"

enum {
    HANDSHAKE_MS = 10000,
    LINGER_MS = 2000,
    LINGER_BYTES = 1024 * 1024, /* a peer that goes on sending more than this is cut */
    FRESH_MS = 1000,
    TURN_REQUESTS = 64, /* pipelined requests answered in one step */
    EMPTY_LINES = 16,   /* before a request that are passed over */
};

/* What a state's function has to say. */
enum turn { TURN_ON, TURN_WAIT, TURN_AGAIN };

static void set_state(struct conn *c, struct net_thread *t, enum conn_state state)
{
    c->state = (uint8_t)state;
    c->since_ms = t->now_ms;
}

int conn_open(struct conn *c, const struct service *service, struct transport transport,
              const struct conn_peer *peer, const struct conn_host *host_ops, void *host,
              struct net_thread *t)
{
    *c = (struct conn){.service = service, .host_ops = host_ops, .host = host, .peer = *peer};
    if (service->tls && tls_accept_over(&c->transport, service->tls, transport) != 0) {
        transport.ops->close(&transport);
        return -1;
    }
    if (!service->tls)
        c->transport = transport;
    set_state(c, t, CONN_HANDSHAKE);
    c->deadline_ms = t->now_ms + HANDSHAKE_MS;
    net_count(&t->stats->accepted, 1);
    return 0;
}

/* For the access log; an answer that was cut before it began has status 0. */
static void note(struct net_thread *t, struct conn *c, const struct exchange *x)
{
    struct exchange_record record = {
        .peer = exchange_peer(x),
        .method = x->is_http ? x->request.method_text : STR("-"),
        .target = x->is_http ? x->target : STR("-"),
        .referer = exchange_header(x, "referer"),
        .user_agent = exchange_header(x, "user-agent"),
        .minor = c->service->duplex ? -1
                 : x->is_http       ? x->request.minor
                                    : 1,
        .status = x->head_sent ? x->status : 0,
        .body_bytes = x->body_bytes,
        .duration_us = t->clock_us() - x->begun_us,
    };
    c->service->note(c->service->note_arg, &record);
}

/* Release all. The exchange is not being served. */
static void end(struct conn *c, struct net_thread *t)
{
    if (c->exchange) {
        if (c->exchange->held)
            net_count(&t->stats->ended, 1);
        if (c->service->note && c->exchange->is_http)
            note(t, c, c->exchange);
        exchange_put(t, c->exchange);
        c->exchange = NULL;
        net_count(&t->stats->answers[0], 1);
    }
    if (c->in.at || c->out.at) {
        free(c->in.at);
        free(c->out.at);
    }
    c->in = c->out = (struct conn_bytes){0};
    t->window_len = 0;
    t->out_len = 0;
    c->transport.ops->close(&c->transport);
    if (c->roused)
        net_count(&t->stats->rested, 1);
    net_count(&t->stats->closed, 1);
    c->state = CONN_ENDED;
}

/* End so that the peer can't take what it got for the whole. */
static void cut(struct conn *c, struct net_thread *t)
{
    if (c->transport.fd >= 0) {
        struct linger hard = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->transport.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    end(c, t);
}

/* --- requests -------------------------------------------------------------------------------- */

static const struct route *find_route(const struct service *s, struct str path)
{
    for (size_t i = 0; i < s->route_count; i++) {
        struct str prefix = s->routes[i].prefix;
        if (prefix.len == 1)
            return &s->routes[i];
        if (path.len >= prefix.len && memcmp(path.at, prefix.at, prefix.len) == 0 &&
            (path.len == prefix.len || path.at[prefix.len] == '/'))
            return &s->routes[i];
    }
    return NULL;
}

static unsigned methods_of(const struct exchange_entry *entry)
{
    return entry->methods ? entry->methods & ~(unsigned)EXCHANGE_DUPLEX
                          : EXCHANGE_GET | EXCHANGE_HEAD;
}

/* "Allow: GET, HEAD, OPTIONS" */
static void add_allow(struct exchange *x, unsigned methods)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"};
    char text[64];
    size_t len = 0;
    for (unsigned i = 0; i < 7; i++) {
        if (!((methods | EXCHANGE_OPTIONS) & (1u << i)))
            continue;
        size_t n = strlen(names[i]);
        memcpy(text + len, ", ", len ? 2 : 0);
        len += len ? 2 : 0;
        memcpy(text + len, names[i], n);
        len += n;
    }
    exchange_add(x, "Allow", (struct str){text, len});
}

/* Find who serves the request. Returns 0, or the status to answer it with instead. */
static int route_request(struct conn *c, struct exchange *x)
{
    struct target target;
    char *scratch = exchange_alloc(x, x->target.len + 1);
    int status = scratch ? target_parse(x->target, scratch, &target) : 500;
    if (status)
        return status;
    if (target.asterisk && x->method != EXCHANGE_OPTIONS)
        return 400;
    x->path = target.path;
    x->query = target.query;
    const struct route *route = find_route(c->service, x->path);
    if (target.asterisk || !route)
        return target.asterisk ? 204 : 404;
    x->route = route;
    if (!(methods_of(route->entry) & x->method))
        return x->method == EXCHANGE_OPTIONS ? 204 : 405;
    x->entry = route->entry;
    return 0;
}

/* How the body will come, and whether it may. Returns 0 or a status. */
static int plan_body(struct conn *c, struct exchange *x)
{
    const struct http1_request *r = &x->request;
    x->body_left = r->content_length;
    if (!r->chunked && r->content_length <= 0)
        exchange_body_end(x, false);
    if (r->content_length > 0 && (uint64_t)r->content_length > c->service->max_body_size)
        return 413;
    if (!r->expect_continue)
        x->continued = true;
    else if (!str_is_nocase(exchange_header(x, "expect"), STR("100-continue")))
        return 417;
    return 0;
}

/* What a 405 must name, and an OPTIONS wants to know. */
static void add_allow_of(struct exchange *x)
{
    add_allow(x, x->route ? methods_of(x->route->entry) : 0x7f);
}

static void give_up(struct conn *c, struct exchange *x)
{
    c->close_after = true;
    x->entry = NULL;
    x->stage = EXCHANGE_RETURNED;
}

/* Answer with an error and close: the request can't be gone on with. */
static void refuse(struct conn *c, struct exchange *x, int status)
{
    give_up(c, x);
    exchange_fail(x, status);
}

/* What nginx says too. */
static void refuse_in_the_clear(struct conn *c, struct exchange *x)
{
    give_up(c, x);
    if (exchange_reply(x, 400, "text/plain",
                       STR("400 The plain HTTP request was sent to HTTPS port\n")) != 0)
        exchange_fail(x, 400);
}

static char *copy_head(struct exchange *x, const char *at, size_t len)
{
    char *to = x->inline_head;
    if (len > sizeof x->inline_head) {
        to = x->head_block = malloc(len);
        if (!to)
            return NULL;
    }
    memcpy(to, at, len);
    x->head = to;
    return to;
}

static struct exchange *open_exchange(struct conn *c, struct net_thread *t)
{
    struct exchange *x = exchange_get(t, c);
    if (!x) {
        conn_hang_up(c, false);
        return NULL;
    }
    c->exchange = x;
    c->offered = false;
    c->requests++;
    set_state(c, t, CONN_SERVING);
    return x;
}

/* A whole head stands at the window's front. */
static void begin_request(struct conn *c, struct net_thread *t, size_t head_len)
{
    struct exchange *x = open_exchange(c, t);
    if (!x)
        return;
    char *head = copy_head(x, t->window, head_len);
    int status = head ? http1_parse(&x->request, head, head_len) : 500;
    conn_window_take(t, head_len);
    if (status == 0) {
        x->is_http = true;
        x->method = x->request.method;
        x->target = (struct str){x->head + x->request.target, x->request.target_len};
    }
    if (c->in_the_clear) {
        refuse_in_the_clear(c, x);
        return;
    }
    if (status) {
        refuse(c, x, status);
        return;
    }
    x->body_ms = t->now_ms;
    int refusal = route_request(c, x);
    int body = plan_body(c, x);
    if (body) {
        refuse(c, x, body);
    } else if (refusal == 400 || refusal == 500 ||
               (refusal >= 400 && x->request.expect_continue && !x->body_complete)) {
        if (refusal == 405)
            add_allow_of(x);
        refuse(c, x, refusal);
    } else {
        x->refusal = 0;
        if (refusal)
            x->status = refusal; /* answered once the body is out of the way */
    }
}

/* A head that can't be taken: bad, too long, too late. */
static void refuse_head(struct conn *c, struct net_thread *t, int status)
{
    struct exchange *x = open_exchange(c, t);
    if (x)
        refuse(c, x, status);
}

/* RFC 9112, 2.2. More of them than anybody would send are no request. */
static void skip_empty_lines(struct conn *c, struct net_thread *t)
{
    while (t->window_len >= 2 && t->window[0] == '\r' && t->window[1] == '\n' &&
           c->empty_lines < EMPTY_LINES) {
        conn_window_take(t, 2);
        c->empty_lines++;
    }
}

/* Until when the first request of a new connection may be on its way: behind a TLS handshake, or on
 * a unix socket, it comes a little later than the connection. Who closes then has lost it. */
static int64_t fresh_until(const struct conn *c)
{
    int64_t limit = c->service->header_timeout_ms;
    return c->since_ms + (limit < FRESH_MS ? limit : FRESH_MS);
}

static bool is_leaving(const struct conn *c)
{
    return c->retire ||
           atomic_load_explicit(c->service->phase, memory_order_relaxed) == SERVICE_DRAINING;
}

/* Between two requests, in the clear, and to go on elsewhere. */
static bool is_moving(const struct conn *c)
{
    return c->state == CONN_IDLE && !c->stay && !c->retire && !c->eof &&
           !atomic_load_explicit(&c->gone, memory_order_relaxed) &&
           atomic_load_explicit(c->service->phase, memory_order_relaxed) == SERVICE_MOVING;
}

/* IDLE and HEAD: find the next request in what has come. */
static enum turn turn_request(struct conn *c, struct net_thread *t)
{
    if (c->out.len && !conn_flush(c, t, false))
        return TURN_WAIT;
    if (is_moving(c))
        return TURN_WAIT;
    conn_window_open(c, t);
    for (;;) {
        if (c->state == CONN_IDLE)
            skip_empty_lines(c, t);
        bool half_line = c->state == CONN_IDLE && t->window_len == 1 && t->window[0] == '\r';
        if (t->window_len && !half_line) {
            if (c->state == CONN_IDLE) {
                set_state(c, t, CONN_HEAD);
                c->scanned = 0;
                c->empty_lines = 0;
            }
            long n =
                http1_head_end(t->window, t->window_len, &c->scanned, c->service->max_header_size);
            if (n > 0)
                begin_request(c, t, (size_t)n);
            else if (n < 0)
                refuse_head(c, t, (int)-n);
            if (n)
                return TURN_ON;
        }
        if (conn_had_share(t))
            return TURN_AGAIN;
        switch (conn_read(c, t)) {
        case CONN_READ_GOT:
            continue;
        case CONN_READ_END:
            set_state(c, t, CONN_LINGER);
            c->peer_closes = true;
            return TURN_ON;
        case CONN_READ_NONE:
            break;
        case CONN_READ_GONE:
            return TURN_ON;
        }
        if (c->state == CONN_IDLE && is_leaving(c) &&
            (c->requests || t->now_ms >= fresh_until(c))) {
            set_state(c, t, CONN_LINGER);
            c->peer_closes = true; /* nothing is under way either way */
            return TURN_ON;
        }
        return TURN_WAIT;
    }
}

/* --- serving --------------------------------------------------------------------------------- */

static void end_call(struct net_thread *t, int64_t now_us)
{
    const struct route *route = t->called;
    t->called = NULL;
    t->mark_us = now_us;
    if (now_us - t->called_us >= t->held_us)
        t->held(t->held_arg, route, now_us - t->called_us);
}

/* An entry is called where the thread has others to serve too. The clock is read for this only where
 * no reading is at hand: the last step's answers are counted with one, and so are this one's. What
 * the connection itself does around the call is small beside a time that matters. */
static void begin_call(struct net_thread *t, const struct exchange *x, bool waited)
{
    if (t->called && (waited || t->called != x->route))
        end_call(t, t->clock_us());
    if (waited)
        t->mark_us = 0;
    if (t->called)
        return;
    t->called = x->route;
    t->called_us = t->mark_us ? t->mark_us : t->clock_us();
}

/* One event. A handler that has given its whole answer, or gives up, gets no further ones. */
static void call_step(struct net_thread *t, struct exchange *x, enum exchange_event event)
{
    struct net_gil *gil = x->conn->service->gil;
    net_gil_enter(gil);
    if (t->held)
        begin_call(t, x, gil != NULL);
    int r = x->entry->step(x, event);
    net_gil_leave(gil);
    if (r == 0 && !x->ended)
        return;
    x->stage = EXCHANGE_RETURNED;
    if (r == 0)
        return;
    exchange_complain_of(x, r);
    exchange_fail(x, 500);
}

static void call_cancelled(struct exchange *x)
{
    struct net_gil *gil = x->conn->service->gil;
    net_gil_enter(gil);
    x->entry->step(x, EXCHANGE_CANCELLED);
    net_gil_leave(gil);
}

/* The handler will not go on: tell it, and answer with that status if it has not begun to. */
static void cancel(struct exchange *x, int status)
{
    if (atomic_load_explicit(&x->cancel, memory_order_relaxed))
        return;
    bool stepped = x->stage == EXCHANGE_OPEN && x->entry->step;
    x->cancel_status = status;
    exchange_cancel(x);
    if (stepped)
        call_cancelled(x);
    if (stepped || x->stage == EXCHANGE_READING) {
        x->stage = EXCHANGE_RETURNED;
        exchange_fail(x, status);
    }
}

/* A run handler has the exchange, or is about to: nothing can be ended before it has returned. One
 * look at the stage, which another thread may move from OPEN to SERVED. */
static bool is_at_work(const struct exchange *x)
{
    enum exchange_stage stage = x ? x->stage : EXCHANGE_RETURNED;
    return stage == EXCHANGE_SERVED || (stage == EXCHANGE_OPEN && x->entry->run);
}

/* The body is as far as the handler needs it: begin. */
static void begin_serving(struct conn *c, struct net_thread *t, struct exchange *x)
{
    int64_t limit = c->service->handler_timeout_ms;
    if (c->reject) {
        net_count(&t->stats->rejected, 1);
        exchange_add(x, "Retry-After", STR("1"));
        refuse(c, x, 503);
        return;
    }
    if (!x->entry) {
        x->stage = EXCHANGE_RETURNED;
        if (x->status == 405 || x->status == 204)
            add_allow_of(x);
        if (x->status == 204)
            exchange_reply_static(x, 204, NULL, (struct str){0});
        else
            exchange_fail(x, x->status);
        return;
    }
    x->stage = EXCHANGE_OPEN;
    if (limit)
        x->deadline_ms = t->now_ms + limit;
    x->offered_us = t->now_us;
    if (x->entry->step)
        call_step(t, x, EXCHANGE_BEGUN);
}

static bool must_leave(const struct conn *c)
{
    return c->retire ||
           atomic_load_explicit(c->service->phase, memory_order_relaxed) != SERVICE_OPEN;
}

/* What a step entry should know. Returns true if it was called. */
static bool step_events(struct conn *c, struct net_thread *t, struct exchange *x)
{
    bool called = false;
    if (x->endless && !x->told_leaving && must_leave(c)) {
        x->told_leaving = c->close_after = true;
        call_step(t, x, EXCHANGE_LEAVING);
        called = true;
    }
    if (x->stage == EXCHANGE_OPEN && x->timer_ms && t->now_ms >= x->timer_ms) {
        x->timer_ms = 0;
        call_step(t, x, EXCHANGE_TIMER);
        called = true;
    }
    if (x->stage == EXCHANGE_OPEN && exchange_is_streamed(x) && !x->body_seen &&
        (x->body.len || x->body_complete)) {
        x->body_seen = true;
        call_step(t, x, EXCHANGE_BYTES);
        called = true;
    }
    if (x->stage == EXCHANGE_OPEN && x->write_short && x->unsent <= EXCHANGE_PIPE_SIZE / 2) {
        x->write_short = false;
        call_step(t, x, EXCHANGE_ROOM);
        called = true;
    }
    return called;
}

/* A body that can't be right, or never comes whole. */
static void spoil(struct conn *c, struct exchange *x, int status)
{
    c->close_after = true;
    exchange_hold(x);
    exchange_body_end(x, true);
    exchange_let(x);
    cancel(x, status);
}

static bool take_body(struct conn *c, struct net_thread *t, struct exchange *x)
{
    bool wanted =
        x->stage == EXCHANGE_READING || (x->stage != EXCHANGE_RETURNED && exchange_is_streamed(x));
    if (x->body_complete || !wanted || x->failed)
        return false;
    bool progress = conn_take_body(c, t, x);
    if (!x->refusal && !(x->body_complete && x->body_cut))
        return progress;
    int status = x->refusal ? x->refusal : 400;
    x->refusal = 0;
    if (x->stage == EXCHANGE_READING)
        refuse(c, x, status);
    else
        spoil(c, x, status);
    return true;
}

/* The answer is out (or gathered): what comes after it? */
static void finish(struct conn *c, struct net_thread *t, struct exchange *x)
{
    if (x->held) {
        net_count(&t->stats->ended, 1);
        net_histogram_add(&t->stats->latency, t->clock_us() - x->begun_us, 1);
    } else if (!x->endless) {
        t->gathered_now++;
    }
    t->gathered[x->head_sent ? x->status / 100 : 0]++;
    if (c->service->note)
        note(t, c, x);
    c->exchange = NULL;
    bool failed = x->failed;
    c->close_after |= !x->body_complete; /* what is left of it is no request */
    exchange_put(t, x);
    if (failed) {
        conn_flush(c, t, false);
        cut(c, t);
        return;
    }
    set_state(c, t, c->close_after ? CONN_LINGER : CONN_IDLE);
}

static enum turn turn_serving(struct conn *c, struct net_thread *t)
{
    struct exchange *x = c->exchange;
    atomic_store_explicit(&x->kicked, false, memory_order_release);
    bool progress = true;
    while (progress && !atomic_load_explicit(&c->gone, memory_order_relaxed)) {
        progress = take_body(c, t, x);
        if (x->stage == EXCHANGE_READING && (x->body_complete || exchange_is_streamed(x))) {
            begin_serving(c, t, x);
            progress = true;
        }
        if (x->stage == EXCHANGE_OPEN && x->entry->step)
            progress |= step_events(c, t, x);
        progress |= conn_pump(c, t, x);
        if (x->failed)
            cancel(x, 500); /* it may wait for room that never comes */
        if (conn_answered(x) && !is_at_work(x)) {
            finish(c, t, x);
            return TURN_ON;
        }
        if (conn_had_share(t))
            return TURN_AGAIN;
    }
    return atomic_load_explicit(&c->gone, memory_order_relaxed) ? TURN_ON : TURN_WAIT;
}

/* --- beginnings and ends --------------------------------------------------------------------- */

/* The client took the port for another one: what it says is understood, once. */
static void begin_in_the_clear(struct conn *c, struct net_thread *t)
{
    struct tls_rest rest = tls_unwrap(&c->transport);
    net_count(&t->stats->handshakes_failed, 1);
    c->in = (struct conn_bytes){.at = rest.at, .len = (uint32_t)rest.len};
    c->in_the_clear = true;
    set_state(c, t, CONN_IDLE);
}

static enum turn turn_handshake(struct conn *c, struct net_thread *t)
{
    int r = c->transport.ops->handshake(&c->transport);
    if (r == TRANSPORT_PLAIN_HTTP) {
        begin_in_the_clear(c, t);
        return TURN_ON;
    }
    if (r == TRANSPORT_GONE) {
        net_count(&t->stats->handshakes_failed, 1);
        end(c, t);
        return TURN_ON;
    }
    if (r != 0) {
        c->wants |= r == TRANSPORT_WANT_WRITE ? CONN_WANT_WRITE : CONN_WANT_READ;
        return TURN_WAIT;
    }
    set_state(c, t, CONN_IDLE);
    if (!c->service->duplex)
        return TURN_ON;
    struct exchange *x = open_exchange(c, t);
    if (!x)
        return TURN_ON;
    x->method = EXCHANGE_DUPLEX;
    x->route = &c->service->routes[0];
    x->entry = x->route->entry;
    x->continued = true;
    x->body_ms = t->now_ms;
    c->close_after = true;
    return TURN_ON;
}

/* Shut the transport down, once: Linux tells a poller of every shutdown(2), be it the second.
 * Returns false when the connection is over. */
static bool say_end(struct conn *c, struct net_thread *t)
{
    int r = c->transport.ops->shutdown(&c->transport, c->peer_closes);
    if (r == TRANSPORT_GONE || (r == 0 && c->peer_closes)) {
        end(c, t);
        return false;
    }
    c->said_end = r == 0;
    if (r == TRANSPORT_WANT_WRITE)
        c->wants |= CONN_WANT_WRITE;
    return true;
}

/* Everything is said: say so, then wait for the peer's end so that what it still sends does not
 * reset what it has not read yet (RFC 9112, 9.6). A peer that asked for the close sends no more. */
static enum turn turn_linger(struct conn *c, struct net_thread *t)
{
    if (!conn_flush(c, t, false))
        return atomic_load_explicit(&c->gone, memory_order_relaxed) ? TURN_ON : TURN_WAIT;
    conn_window_open(c, t);
    if (t->window_len)
        c->peer_closes = false; /* it sent more than it should have: wait for its end after all */
    t->window_len = 0;
    if (!c->said_end && !say_end(c, t))
        return TURN_ON;
    for (;;) {
        enum conn_read got = conn_read(c, t);
        c->scanned += (uint32_t)t->window_len;
        t->window_len = 0;
        if (got == CONN_READ_NONE)
            return TURN_WAIT;
        if (got == CONN_READ_GOT && c->scanned < LINGER_BYTES)
            continue;
        end(c, t);
        return TURN_ON;
    }
}

/* The peer is gone. A run handler that is at work is told, and awaited. */
static enum turn turn_gone(struct conn *c, struct net_thread *t)
{
    struct exchange *x = c->exchange;
    if (x && x->entry) {
        cancel(x, 503);
        if (is_at_work(x))
            return TURN_WAIT;
    }
    if (x || c->out.len)
        cut(c, t);
    else
        end(c, t);
    return TURN_ON;
}

/* --- time ------------------------------------------------------------------------------------ */

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool awaits_body(const struct conn *c, const struct exchange *x)
{
    return !x->body_complete && c->reading;
}

static int64_t body_deadline(const struct conn *c, const struct exchange *x)
{
    int64_t limit = x->is_http ? c->service->body_timeout_ms : c->service->keepalive_timeout_ms;
    return x->body_ms + limit;
}

static bool is_handled(const struct exchange *x)
{
    enum exchange_stage stage = x->stage;
    return stage == EXCHANGE_SERVED || stage == EXCHANGE_OPEN;
}

static int64_t serving_deadline(const struct conn *c, const struct exchange *x)
{
    int64_t deadline = INT64_MAX;
    if (atomic_load_explicit(&x->cancel, memory_order_relaxed))
        return deadline;
    if (awaits_body(c, x))
        deadline = body_deadline(c, x);
    if (is_handled(x))
        deadline = earlier(deadline, x->deadline_ms);
    if (x->timer_ms && x->stage == EXCHANGE_OPEN && x->entry->step)
        deadline = earlier(deadline, x->timer_ms);
    return deadline;
}

static int64_t deadline_of(const struct conn *c)
{
    const struct service *s = c->service;
    if (c->state == CONN_SERVING && atomic_load_explicit(&c->gone, memory_order_relaxed))
        return INT64_MAX; /* only the handler's return is waited for */
    int64_t blocked = c->blocked ? c->since_ms + s->send_timeout_ms : INT64_MAX;
    if (c->out.len && c->state != CONN_SERVING)
        return blocked; /* its bytes are looked at only when it has taken ours */
    switch ((enum conn_state)c->state) {
    case CONN_HANDSHAKE:
        return c->since_ms + HANDSHAKE_MS;
    case CONN_IDLE:
        if (c->requests)
            return c->since_ms + s->keepalive_timeout_ms;
        return is_leaving(c) ? fresh_until(c) : c->since_ms + s->header_timeout_ms;
    case CONN_HEAD:
        return c->since_ms + s->header_timeout_ms;
    case CONN_SERVING:
        return earlier(blocked, serving_deadline(c, c->exchange));
    case CONN_LINGER:
        return c->since_ms + LINGER_MS;
    case CONN_NONE:
    case CONN_ENDED:
        break;
    }
    return INT64_MAX;
}

static void serving_expired(struct conn *c, struct net_thread *t, struct exchange *x)
{
    bool timed_out = is_handled(x) && t->now_ms >= x->deadline_ms;
    if (!timed_out && !(awaits_body(c, x) && t->now_ms >= body_deadline(c, x)))
        return;
    c->close_after = true;
    if (timed_out)
        exchange_complain(x, "the handler took longer than handler_timeout");
    if (!x->is_http)
        conn_hang_up(c, false);
    else
        cancel(x, timed_out ? 504 : 408);
}

/* Time is up, and what has come until now did not help. */
static void expired(struct conn *c, struct net_thread *t)
{
    if (c->blocked && t->now_ms >= c->since_ms + c->service->send_timeout_ms) {
        conn_hang_up(c, false);
        return;
    }
    switch ((enum conn_state)c->state) {
    case CONN_HEAD:
        refuse_head(c, t, 408);
        break;
    case CONN_SERVING:
        serving_expired(c, t, c->exchange);
        break;
    case CONN_HANDSHAKE:
        net_count(&t->stats->handshakes_failed, 1);
        end(c, t);
        break;
    case CONN_IDLE:
        c->retire = true; /* a request that is there already is still answered */
        break;
    case CONN_LINGER:
        end(c, t);
        break;
    case CONN_NONE:
    case CONN_ENDED:
        break;
    }
}

/* --- the step -------------------------------------------------------------------------------- */

static enum turn turn(struct conn *c, struct net_thread *t)
{
    if (atomic_load_explicit(&c->gone, memory_order_acquire))
        return turn_gone(c, t);
    switch ((enum conn_state)c->state) {
    case CONN_HANDSHAKE:
        return turn_handshake(c, t);
    case CONN_IDLE:
    case CONN_HEAD:
        return turn_request(c, t);
    case CONN_SERVING:
        return turn_serving(c, t);
    case CONN_LINGER:
        return turn_linger(c, t);
    case CONN_NONE:
    case CONN_ENDED:
        break;
    }
    return TURN_WAIT;
}

/* Count what was answered in this step, and how long handlers took, with one look at the clock. */
static void count_answers(struct net_thread *t)
{
    int64_t now_us = t->gathered_now || t->called ? t->clock_us() : 0;
    for (unsigned i = 0; i < 6; i++)
        if (t->gathered[i])
            net_count(&t->stats->answers[i], t->gathered[i]);
    if (t->gathered_now)
        net_histogram_add(&t->stats->latency, now_us - t->now_us, t->gathered_now);
    if (t->called)
        end_call(t, now_us);
    t->mark_us = now_us;
    memset(t->gathered, 0, sizeof t->gathered);
    t->gathered_now = 0;
}

/* An exchange that outlives its first step is in progress, for the counters; but for one without an
 * end, whose worker has nothing to do. */
static void hold_exchange(struct conn *c, struct net_thread *t)
{
    if (!c->exchange || c->exchange->held || c->exchange->endless)
        return;
    c->exchange->held = true;
    net_count(&t->stats->begun, 1);
}

/* A request that is answered in the step it came in leaves no trace here. */
static void count_activity(struct conn *c, struct net_thread *t)
{
    bool active = !conn_is_idle(c);
    if (active == c->roused)
        return;
    c->roused = active;
    net_count(active ? &t->stats->roused : &t->stats->rested, 1);
}

/* Offer a run handler's exchange to the driver, once. */
static bool offer(struct conn *c)
{
    struct exchange *x = c->exchange;
    if (c->state != CONN_SERVING || c->offered || x->stage != EXCHANGE_OPEN || !x->entry->run)
        return false;
    return c->offered = true;
}

/* Turn after turn until it waits, has ended, or had its share: then true is returned. */
static bool work(struct conn *c, struct net_thread *t, uint64_t first)
{
    enum turn r = TURN_ON;
    while (c->state != CONN_ENDED && r == TURN_ON) {
        c->wants = 0;
        c->reading = false;
        r = turn(c, t);
        if (r == TURN_ON && c->state == CONN_IDLE &&
            (c->requests - first >= TURN_REQUESTS || conn_had_share(t)))
            r = TURN_AGAIN;
    }
    if (c->state == CONN_ENDED)
        return false;
    if (atomic_load_explicit(&c->gone, memory_order_relaxed))
        t->out_len = 0;
    else if (t->out_len || c->out.len)
        conn_flush(c, t, false);
    return r == TURN_AGAIN;
}

unsigned conn_step(struct conn *c, struct net_thread *t)
{
    uint64_t first = c->requests;
    t->window_open = false;
    t->drained = 0;
    t->window_len = t->moved = 0;
    bool again = work(c, t, first);
    c->deadline_ms = deadline_of(c);
    if (t->now_ms >= c->deadline_ms) {
        expired(c, t);
        again = work(c, t, first);
        c->deadline_ms = deadline_of(c);
    }
    count_answers(t);
    if (c->state == CONN_ENDED)
        return CONN_CLOSED;
    hold_exchange(c, t);
    conn_window_close(c, t);
    count_activity(c, t);
    c->reject = false; /* it was for the request that waited */
    /* That it is gone may have been found out only now. */
    again |= atomic_load_explicit(&c->gone, memory_order_relaxed) && !is_at_work(c->exchange);
    if (is_moving(c) && c->out.len == 0)
        return CONN_WANT_MOVE;
    return c->wants | (offer(c) ? CONN_WANT_SERVE : 0u) | (again ? CONN_WANT_AGAIN : 0u);
}

/* --- moving ---------------------------------------------------------------------------------- */

void conn_carry(const struct conn *c, const struct net_thread *t, struct conn_carried *carried)
{
    *carried = (struct conn_carried){
        .fd = c->transport.fd,
        .peer = c->peer,
        .requests = c->requests,
        .idle_ms = t->now_ms - c->since_ms,
        .unread = c->in.len ? c->in.at + c->in.from : NULL,
        .unread_len = c->in.len,
    };
}

void conn_gone_elsewhere(struct conn *c, struct net_thread *t)
{
    free(c->in.at);
    c->in = (struct conn_bytes){0};
    c->transport.ops->close(&c->transport);
    if (c->roused)
        net_count(&t->stats->rested, 1);
    net_count(&t->stats->went, 1);
    c->state = CONN_ENDED;
}

void conn_stay(struct conn *c)
{
    c->stay = true;
}

int conn_resume(struct conn *c, const struct service *service, const struct conn_carried *carried,
                const struct conn_host *host_ops, void *host, struct net_thread *t)
{
    *c = (struct conn){.service = service,
                       .host_ops = host_ops,
                       .host = host,
                       .peer = carried->peer,
                       .requests = carried->requests};
    transport_plain(&c->transport, carried->fd);
    if (carried->unread_len) {
        c->in.at = malloc(carried->unread_len);
        if (!c->in.at) {
            c->transport.ops->close(&c->transport);
            return -1;
        }
        memcpy(c->in.at, carried->unread, carried->unread_len);
        c->in.len = (uint32_t)carried->unread_len;
    }
    set_state(c, t, CONN_IDLE);
    c->since_ms -= carried->idle_ms;
    c->deadline_ms = deadline_of(c);
    net_count(&t->stats->came, 1);
    return 0;
}

/* --- questions ------------------------------------------------------------------------------- */

struct exchange *conn_exchange(const struct conn *c)
{
    return c->exchange;
}

int64_t conn_deadline(const struct conn *c)
{
    return c->deadline_ms;
}

bool conn_is_idle(const struct conn *c)
{
    return c->state == CONN_IDLE && c->in.len == 0 && c->out.len == 0;
}

int64_t conn_spare_ms(const struct conn *c)
{
    if (!conn_is_idle(c))
        return INT64_MAX;
    return c->requests ? c->since_ms : fresh_until(c);
}

uint64_t conn_requests(const struct conn *c)
{
    return c->requests;
}

bool conn_has_input(const struct conn *c)
{
    return c->in.len != 0;
}

int conn_fd(const struct conn *c)
{
    return c->transport.fd;
}

bool conn_is_served(const struct conn *c)
{
    return c->exchange && c->exchange->stage == EXCHANGE_SERVED;
}

void conn_retire(struct conn *c)
{
    c->retire = true;
}

void conn_reject(struct conn *c)
{
    c->reject = true;
    struct exchange *x = c->exchange;
    if (x && x->stage == EXCHANGE_OPEN && x->entry->run && !x->begun) {
        exchange_add(x, "Retry-After", STR("1"));
        refuse(c, x, 503);
    }
}

void conn_hang_up(struct conn *c, bool only_end)
{
    if (only_end)
        c->read_on = true;
    else
        atomic_store_explicit(&c->gone, 1, memory_order_release);
}

void conn_abort(struct conn *c, struct net_thread *t)
{
    if (c->state == CONN_NONE || c->state == CONN_ENDED)
        return;
    if (c->exchange && c->exchange->entry)
        cancel(c->exchange, 503);
    cut(c, t);
}
