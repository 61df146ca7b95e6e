/* SPDX-License-Identifier: MIT */
/* Requests on a connection: what is answered, refused, kept alive and closed, in which order,
 * however the bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/test_net_rig.h"

/* --- answers as they must look ---------------------------------------------------------------- */

/* An error answer; more is further header lines. Lives until the fourth call after. */
static const char *error(int status, const char *more)
{
    static char texts[4][512];
    static int turn;
    char *text = texts[turn++ % 4], body[64];
    size_t len = (size_t)snprintf(body, sizeof body, "%d %s\n", status, http_phrase(status));
    snprintf(text, sizeof texts[0],
             "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: "
             "close\r\n\r\n%s",
             status, http_phrase(status), more, len, body);
    return text;
}

/* The same where the connection goes on. */
static const char *mild(int status, const char *more)
{
    static char text[512];
    snprintf(text, sizeof text, "%s", error(status, more));
    char *at = strstr(text, "Connection: close\r\n");
    memmove(at, at + 19, strlen(at + 19) + 1);
    return text;
}

static char *join(const char *a, const char *b)
{
    static char texts[4][1024];
    static int turn;
    char *text = texts[turn++ % 4];
    snprintf(text, sizeof texts[0], "%s%s", a, b);
    return text;
}

/* Says the whole head and expects the answer; closes as the answer says. */
static void ask(const char *head, const char *answer)
{
    rig_talk_text(head, answer, strstr(answer, "Connection: close") != NULL);
}

#define GET "GET /text HTTP/1.1\r\nHost: x\r\n\r\n"

/* --- heads ------------------------------------------------------------------------------------ */

static void simple(void **state)
{
    (void)state;
    ask(GET, RIG_HELLO);
    ask("GET /text HTTP/1.1\r\nhost:x\r\n\r\n", RIG_HELLO);
    ask("GET /text/below?a=b HTTP/1.1\r\nHost: x\r\n\r\n", RIG_HELLO);
    ask("GET /textual HTTP/1.1\r\nHost: x\r\n\r\n", mild(404, ""));
    ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n", mild(404, ""));
    ask("GET /a/../text HTTP/1.1\r\nHost: x\r\n\r\n", RIG_HELLO);
    ask("GET /%74ext HTTP/1.1\r\nHost: x\r\n\r\n", RIG_HELLO);
    ask("GET http://y/text?a HTTP/1.1\r\nHost: x\r\n\r\n", RIG_HELLO);
    ask("GET http://y/none HTTP/1.1\r\nHost: x\r\n\r\n", mild(404, ""));
}

static void empty_lines_before(void **state)
{
    (void)state;
    ask("\r\n" GET, RIG_HELLO);
    ask("\r\n\r\n\r\n" GET, RIG_HELLO);
    ask(GET "\r\n" GET, RIG_HELLO RIG_HELLO);
    ask("\r\r\n" GET, error(400, ""));
    ask("\n" GET, error(400, ""));
    ask("\r\n\n" GET, error(400, ""));
    ask("\rG", error(400, ""));
}

/* Empty lines are no way to hold a connection, or its thread, for ever. */
static void endless_empty_lines(void **state)
{
    static char lines[200000];
    (void)state;
    for (size_t i = 0; i < sizeof lines; i += 2)
        memcpy(lines + i, "\r\n", 2);
    rig_connect();
    rig_feed(lines, sizeof lines);
    rig_expect(error(400, ""));
}

static void refusals(void **state)
{
    static const char *const bad[] = {
        "GET  /text HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /text HTTP/1.1\nHost: x\n\n",
        "GET /text HTTP/1.1\r\n\r\n",
        "GET /text HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET /text HTTP/1.1\r\nHost: x\r\n A: b\r\n\r\n",
        "GET /text HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        "GET text HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /../text HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: "
         "chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "\x16\x03\x01 not for us",
        "hello there\r\n\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ask(bad[i], error(400, ""));
        ask(join(bad[i], GET), error(400, "")); /* nothing behind it is answered */
        ask(join(GET, bad[i]), join(RIG_HELLO, error(400, "")));
    }
    ask("TRACE /text HTTP/1.1\r\nHost: x\r\n\r\n", error(501, ""));
    ask("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", error(501, ""));
    ask("BREW /text HTTP/1.1\r\nHost: x\r\n\r\n", error(501, ""));
    ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        error(501, ""));
    ask("GET /text HTTP/2.0\r\nHost: x\r\n\r\n", error(505, ""));
    ask("GET /text HTTP/0.9\r\nHost: x\r\n\r\n", error(505, ""));
}

static void size_limits(void **state)
{
    static char head[40000];
    (void)state;
    memset(head, 'a', sizeof head);
    memcpy(head, "GET /", 5);
    rig_talk(head, sizeof head, error(414, ""), true); /* without an end */
    rig_connect();
    rig_feed(head, 8192);
    assert_int_equal(rig.got_len, 0);
    rig_feed(head, 1);
    rig_expect(error(414, ""));
    rig_disconnect();
    memset(head, 'a', sizeof head);
    memcpy(head, "GET /text HTTP/1.1\r\nHost: x\r\nA: ", 32);
    rig_connect();
    rig_feed(head, 32768);
    assert_int_equal(rig.got_len, 0);
    rig_feed(head, 1);
    rig_expect(error(431, ""));
    rig_disconnect();
    memcpy(head + 32764, "\r\n\r\n", 5);
    rig_talk(head, 32768, RIG_HELLO, false);
    size_t len = (size_t)snprintf(head, sizeof head, "GET /text HTTP/1.1\r\n");
    for (int i = 0; i < 100; i++)
        len += (size_t)snprintf(head + len, 100, "A%d: b\r\n", i);
    snprintf(head + len, 100, "Host: x\r\n\r\n");
    ask(head, error(431, ""));
}

static void methods(void **state)
{
    (void)state;
    ask("HEAD /text HTTP/1.1\r\nHost: x\r\n\r\n",
        RIG_OK "Content-Type: text/plain\r\nContent-Length: 6\r\n\r\n");
    ask("HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\n");
    ask("POST /text HTTP/1.1\r\nHost: x\r\n\r\n", mild(405, "Allow: GET, HEAD, OPTIONS\r\n"));
    ask("DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n", mild(405, "Allow: POST, PUT, OPTIONS\r\n"));
    ask("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", mild(405, "Allow: POST, PUT, OPTIONS\r\n"));
    ask("HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 405 Method Not Allowed\r\nAllow: POST, PUT, OPTIONS\r\nContent-Type: "
        "text/plain\r\nContent-Length: 23\r\n\r\n");
    ask("OPTIONS /text HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n\r\n");
    ask("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n\r\n");
    ask("OPTIONS /none HTTP/1.1\r\nHost: x\r\n\r\n", mild(404, ""));
    ask("POST * HTTP/1.1\r\nHost: x\r\n\r\n", error(400, ""));
    /* with a body: it is passed over first */
    ask("POST /text HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" GET,
        join(mild(405, "Allow: GET, HEAD, OPTIONS\r\n"), RIG_HELLO));
    ask("OPTIONS /text HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
        "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" GET,
        join("HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n\r\n", RIG_HELLO));
    ask("POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" GET,
        join(mild(404, ""), RIG_HELLO));
}

static int options_step(struct exchange *x, enum exchange_event event)
{
    (void)event;
    return exchange_reply(x, 200, NULL, STR("mine"));
}

static void options_of_its_own(void **state)
{
    static const struct exchange_entry entry = {.step = options_step, .methods = EXCHANGE_OPTIONS};
    (void)state;
    rig_route(4, "/own", &entry);
    ask("OPTIONS /own HTTP/1.1\r\nHost: x\r\n\r\n", RIG_OK "Content-Length: 4\r\n\r\nmine");
    ask("GET /own HTTP/1.1\r\nHost: x\r\n\r\n", mild(405, "Allow: OPTIONS\r\n"));
}

/* --- keeping alive ---------------------------------------------------------------------------- */

#define HELLO_KEEP                                                                                 \
    RIG_OK "Content-Type: text/plain\r\nContent-Length: 6\r\nConnection: "                         \
           "keep-alive\r\n\r\nhello\n"

static void connection_header(void **state)
{
    static const struct {
        const char *line;
        bool keeps_0, keeps_1;
    } cases[] = {
        {"", false, true},
        {"Connection: close\r\n", false, false},
        {"Connection: keep-alive\r\n", true, true},
        {"Connection: Keep-Alive, foo\r\n", true, true},
        {"Connection: foo, close\r\n", false, false},
        {"Connection: foo\r\nConnection: CLOSE\r\n", false, false},
        {"Connection: keep-alive, close\r\n", false, false},
        {"Connection: closed\r\n", false, true},
        {"Connection: Upgrade\r\nUpgrade: websocket\r\n", false, true},
    };
    char head[256];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(head, sizeof head, "GET /text HTTP/1.1\r\nHost: x\r\n%s\r\n", cases[i].line);
        ask(head, cases[i].keeps_1 ? RIG_HELLO : RIG_HELLO_CLOSE);
        snprintf(head, sizeof head, "GET /text HTTP/1.0\r\n%s\r\n", cases[i].line);
        ask(head, cases[i].keeps_0 ? HELLO_KEEP : RIG_HELLO_CLOSE);
    }
    ask("GET /text HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /text HTTP/1.0\r\n\r\n",
        HELLO_KEEP RIG_HELLO_CLOSE);
}

/* A peer that asked for the close sends no more: there is nothing to linger for. */
static void close_is_prompt(void **state)
{
    (void)state;
    rig_connect();
    rig_say("GET /text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_true(rig_is_closed());
    /* unless it did send more: then its bytes must not reset the answer */
    rig_connect();
    rig_say("GET /text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" GET);
    rig_expect(RIG_HELLO_CLOSE);
    assert_true(rig_lingers());
    /* or has not sent its body yet */
    rig_disconnect();
    rig_connect();
    rig_say("POST /none HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
            "10\r\nConnection: close\r\n\r\n");
    rig_expect(error(404, ""));
    assert_true(rig_lingers());
    rig_say("0123456789");
    rig_finish();
    assert_true(rig_is_closed());
}

static void requests_a_connection(void **state)
{
    (void)state;
    rig.service.keepalive_requests = 3;
    ask(GET GET GET GET, RIG_HELLO RIG_HELLO RIG_HELLO_CLOSE);
    rig.service.keepalive_requests = 1;
    ask(GET, RIG_HELLO_CLOSE);
}

static void upgrades(void **state)
{
#define UPGRADE "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
    (void)state;
    ask("GET /text HTTP/1.1\r\nHost: x\r\n" UPGRADE "\r\n" GET, RIG_HELLO RIG_HELLO);
    ask("POST /echo HTTP/1.1\r\nHost: x\r\n" UPGRADE "Content-Length: 3\r\n\r\nabc" GET,
        RIG_OK "Content-Length: 3\r\n\r\nabc" RIG_HELLO);
    ask("POST /collect HTTP/1.1\r\nHost: x\r\n" UPGRADE
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" GET,
        RIG_OK "Content-Length: 3\r\n\r\nabc" RIG_HELLO);
    ask("POST /echo HTTP/1.1\r\nHost: x\r\n" UPGRADE "\r\n" GET,
        RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO);
    ask("POST /echo HTTP/1.1\r\nHost: x\r\n" UPGRADE "Content-Length: 0\r\n\r\n" GET,
        RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO);
}

/* --- pipelining ------------------------------------------------------------------------------- */

static void in_order(void **state)
{
    (void)state;
    ask(GET "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
            "POST /collect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
            "chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
            "HEAD /text HTTP/1.1\r\nHost: x\r\n\r\n"
            "GET /pieces?n=6&piece=4 HTTP/1.1\r\nHost: x\r\n\r\n" GET,
        RIG_HELLO "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: "
                  "14\r\n\r\n404 Not Found\n" RIG_OK "Content-Length: 3\r\n\r\nabc" RIG_OK
                  "Content-Length: 3\r\n\r\nabc" RIG_OK
                  "Content-Type: text/plain\r\nContent-Length: 6\r\n\r\n" RIG_OK
                  "Content-Type: text/plain\r\nTransfer-Encoding: "
                  "chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n" RIG_HELLO);
}

/* All answers of one step leave in one write. */
static void one_write(void **state)
{
    char many[16 * sizeof GET] = "", answers[16 * sizeof RIG_HELLO] = "";
    (void)state;
    for (int i = 0; i < 16; i++) {
        strcat(many, GET);
        strcat(answers, RIG_HELLO);
    }
    rig_connect();
    memory_pipe_feed(rig.pipe, many, strlen(many));
    unsigned wants = rig_step();
    assert_int_equal(rig.writes, 1);
    assert_int_equal(rig.reads, 1); /* a short read says that nothing more is there */
    assert_int_equal(wants, CONN_WANT_READ);
    rig_expect(answers);
    assert_int_equal(rig.stats.answers[2], 16);
    assert_int_equal(rig.stats.begun, 0); /* none outlived its step */
    assert_int_equal(rig.stats.latency.count, 16);
}

/* A connection that always has more has only its share of a turn. */
static void fairness(void **state)
{
    static char many[1000 * sizeof GET];
    size_t len = 0, all = 1000 * (sizeof GET - 1);
    (void)state;
    for (; len < all; len += sizeof GET - 1)
        memcpy(many + len, GET, sizeof GET - 1);
    rig_connect();
    memory_pipe_feed(rig.pipe, many, len);
    unsigned steps = 0, wants;
    do {
        uint64_t before = rig.stats.answers[2];
        wants = rig_step();
        assert_in_range(rig.stats.answers[2] - before, 1, 64);
        steps++;
    } while (wants & CONN_WANT_AGAIN);
    assert_int_equal(rig.stats.answers[2], 1000);
    assert_in_range(steps, 15, 20);
    const char *at = rig_text();
    for (int i = 0; i < 1000; i++, at += sizeof RIG_HELLO - 1)
        assert_memory_equal(at, RIG_HELLO, sizeof RIG_HELLO - 1);
    assert_int_equal(*at, '\0');
    assert_true(rig_is_idle());
}

/* Many requests to a peer that reads a little at a time: in order, whole, and not kept in heaps. */
static void slow_reader(void **state)
{
    static char many[2000 * sizeof GET];
    size_t len = 0, all = 2000 * (sizeof GET - 1);
    (void)state;
    for (; len < all; len += sizeof GET - 1)
        memcpy(many + len, GET, sizeof GET - 1);
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 3000);
    rig_feed(many, len);
    size_t most = 0;
    for (int i = 0; i < 100000 && (memory_pipe_unread(rig.pipe) || conn_has_input(&rig.conn));
         i++) {
        rig_take(777);
        rig_run();
        most = rig.conn.out.len > most ? rig.conn.out.len : most;
    }
    assert_in_range(most, 1, 2 * NET_OUT_SIZE);
    while (rig.conn.out.len) {
        rig_take(777);
        rig_run();
    }
    rig_take(SIZE_MAX);
    assert_int_equal(strlen(rig_text()), 2000 * (sizeof RIG_HELLO - 1));
    assert_true(rig_is_idle());
}

/* --- ends of input ---------------------------------------------------------------------------- */

static void half_closed(void **state)
{
    (void)state;
    rig_connect();
    rig_put(GET GET);
    rig_finish();
    rig_expect(RIG_HELLO RIG_HELLO);
    assert_true(rig_is_closed());
    rig_connect(); /* with a body */
    rig_put("POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    rig_finish();
    rig_expect(RIG_OK "Content-Length: 3\r\n\r\nabc");
    assert_true(rig_is_closed());
    rig_connect(); /* before any byte */
    rig_finish();
    rig_expect("");
    assert_true(rig_is_closed());
    rig_connect(); /* in a head */
    rig_say("GET /text HT");
    rig_finish();
    rig_expect("");
    assert_true(rig_is_closed());
    rig_connect(); /* behind an empty line, or half of one */
    rig_say("\r\n\r");
    rig_finish();
    rig_expect("");
    assert_true(rig_is_closed());
}

static void reset(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "",
        "GET /te",
        GET,
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
        "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab",
        "GET / HTTP/9.9\r\n\r\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (int told = 0; told < 2; told++) {
            rig_connect();
            rig_say(parts[i]);
            memory_pipe_reset(rig.pipe);
            if (told)
                conn_hang_up(&rig.conn, false);
            else
                rig_put("c");
            rig_run();
            assert_true(rig_is_closed());
        }
}

/* A peer's end that the poller saw: what came before it is still read, past short reads. */
static void end_was_seen(void **state)
{
    (void)state;
    rig_connect();
    rig_put(GET);
    memory_pipe_end(rig.pipe);
    conn_hang_up(&rig.conn, true);
    rig_run();
    rig_expect(RIG_HELLO);
    assert_true(rig_is_closed());
    rig_connect(); /* told too early: it waits for the end */
    conn_hang_up(&rig.conn, true);
    rig_run();
    assert_true(rig.open);
    assert_int_equal(rig.wants, CONN_WANT_READ);
    rig_finish();
    assert_true(rig_is_closed());
}

/* --- the edge --------------------------------------------------------------------------------- */

/* Each event is told once, and only when the transport had refused before: with such a driver all
 * requests are answered too. The rig's step asserts that nobody waits for bytes that are there. */
static void edge_triggered(void **state)
{
    static char many[400 * sizeof GET];
    size_t len = 0;
    (void)state;
    for (int i = 0; i < 400; i++) {
        memcpy(many + len, GET, sizeof GET - 1);
        len += sizeof GET - 1;
    }
    for (int run = 0; run < 20; run++) {
        rig_connect();
        rig.unread = true;
        memory_pipe_limit(rig.pipe, run % 3 ? 1 + rig_dice(4000) : 0, 1 + rig_dice(2000));
        size_t fed = 0, got = 0, sent;
        unsigned wants = rig_run();
        while (got < 400 * 129) {
            bool changed = false;
            if (fed < len && (wants & CONN_WANT_READ)) {
                size_t n = 1 + rig_dice(3000);
                n = n < len - fed ? n : len - fed;
                memory_pipe_feed(rig.pipe, many + fed, n);
                fed += n;
                changed = true;
            }
            memory_pipe_sent(rig.pipe, &sent);
            if (sent) {
                memory_pipe_take(rig.pipe, sent);
                got += sent;
                changed |= (wants & CONN_WANT_WRITE) != 0;
            }
            if (!changed)
                break;
            wants = rig_run();
        }
        assert_int_equal(rig.stats.answers[2], 400u * (unsigned)(run + 1));
        assert_int_equal(got, 400u * (sizeof RIG_HELLO - 1 + 21 + 31));
        rig_disconnect();
    }
}

/* --- the log ---------------------------------------------------------------------------------- */

static char logged[2000];

static void log_it(const struct exchange_record *r)
{
    snprintf(logged + strlen(logged), sizeof logged - strlen(logged),
             "%.*s %.*s %.*s 1.%d %d %lld %.*s %.*s\n", (int)r->peer.len, r->peer.at,
             (int)r->method.len, r->method.at, (int)r->target.len, r->target.at, r->minor,
             r->status, (long long)r->body_bytes, (int)r->referer.len, r->referer.at,
             (int)r->user_agent.len, r->user_agent.at);
}

static void records(void **state)
{
    (void)state;
    logged[0] = '\0';
    rig.record = log_it;
    rig_connect();
    rig_say("GET /text?a HTTP/1.0\r\nConnection: keep-alive\r\nReferer: r\r\nUser-Agent: u\r\n\r\n"
            "HEAD /text HTTP/1.1\r\nHost: x\r\n\r\n"
            "GET /pieces?n=100&piece=7 HTTP/1.1\r\nHost: x\r\n\r\n"
            "PUT /none HTTP/1.1\r\nHost: x\r\n\r\n"
            "nonsense\r\n\r\n");
    assert_string_equal(logged, "192.0.2.7 GET /text?a 1.0 200 6 r u\n"
                                "192.0.2.7 HEAD /text 1.1 200 0  \n"
                                "192.0.2.7 GET /pieces?n=100&piece=7 1.1 200 100  \n"
                                "192.0.2.7 PUT /none 1.1 404 14  \n"
                                "192.0.2.7 - - 1.1 400 16  \n");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(simple),
        TEST(empty_lines_before),
        TEST(endless_empty_lines),
        TEST(refusals),
        TEST(size_limits),
        TEST(methods),
        TEST(options_of_its_own),
        TEST(connection_header),
        TEST(close_is_prompt),
        TEST(requests_a_connection),
        TEST(upgrades),
        TEST(in_order),
        TEST(one_write),
        TEST(fairness),
        TEST(slow_reader),
        TEST(half_closed),
        TEST(reset),
        TEST(end_was_seen),
        TEST(edge_triggered),
        TEST(records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
