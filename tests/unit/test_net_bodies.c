/* SPDX-License-Identifier: MIT */
/* Request bodies on a connection: by length and chunked, collected, streamed and dropped, too
 * large, too late, wrong, announced with Expect, and not wanted any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/test_net_rig.h"

#define GET               "GET /text HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST(path, lines) "POST " path " HTTP/1.1\r\nHost: x\r\n" lines "\r\n"
#define CHUNKED           "Transfer-Encoding: chunked\r\n"
#define EXPECT            "Expect: 100-continue\r\n"
#define CONTINUE          "HTTP/1.1 100 Continue\r\n\r\n"
#define THREE             RIG_OK "Content-Length: 3\r\n\r\nabc"
#define ERROR(line, length, body)                                                                  \
    "HTTP/1.1 " line "\r\nContent-Type: text/plain\r\nContent-Length: " length                     \
    "\r\nConnection: close\r\n\r\n" body "\n"
#define BAD   ERROR("400 Bad Request", "16", "400 Bad Request")
#define LATE  ERROR("408 Request Timeout", "20", "408 Request Timeout")
#define LARGE ERROR("413 Content Too Large", "22", "413 Content Too Large")

/* --- whole bodies ----------------------------------------------------------------------------- */

static void collected(void **state)
{
    (void)state;
    rig_talk_text(POST("/collect", "Content-Length: 3\r\n") "abc" GET, THREE RIG_HELLO, false);
    rig_talk_text(POST("/collect", CHUNKED) "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n" GET, THREE RIG_HELLO,
                  false);
    rig_talk_text(POST("/collect", CHUNKED) "003;a=\"b\\\"c\";d=e;f\r\nabc\r\n0;x\r\nA: "
                                            "b\r\nContent-Length: 7\r\n\r\n" GET,
                  THREE RIG_HELLO, false);
    rig_talk_text(POST("/collect", "") GET, RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO, false);
    rig_talk_text(POST("/collect", "Content-Length: 0\r\n") GET,
                  RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO, false);
    rig_talk_text(POST("/collect", CHUNKED) "0\r\n\r\n" GET,
                  RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO, false);
    /* a GET may have one too */
    rig_talk_text("GET /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" GET,
                  THREE RIG_HELLO, false);
    /* trailers are no fields of the request, nor of the next one */
    rig_talk_text(
        POST("/collect",
             CHUNKED) "0\r\nContent-Length: 9\r\nConnection: close\r\nHost: y\r\n\r\n" GET,
        RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO, false);
}

static void dropped(void **state)
{
    (void)state;
    rig_talk_text("GET /text HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /" GET,
                  RIG_HELLO RIG_HELLO, false);
    rig_talk_text("GET /text HTTP/1.1\r\nHost: x\r\n" CHUNKED "\r\n5\r\nGET /\r\n0\r\n\r\n" GET,
                  RIG_HELLO RIG_HELLO, false);
    rig_talk_text(POST("/none", "Content-Length: 5\r\n") "GET /" GET,
                  "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: "
                  "14\r\n\r\n404 Not Found\n" RIG_HELLO,
                  false);
}

static void streamed(void **state)
{
    (void)state;
    rig_talk_text(POST("/echo", "Content-Length: 3\r\n") "abc" GET, THREE RIG_HELLO, false);
    rig_talk_text(POST("/echo", "Content-Length: 0\r\n") GET,
                  RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO, false);
    rig_talk_text(POST("/echo", "") GET, RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO, false);
    rig_talk_text(POST("/echo", CHUNKED) "0\r\n\r\n" GET, RIG_OK CHUNKED "\r\n0\r\n\r\n" RIG_HELLO,
                  false);
}

static char *pattern(size_t len)
{
    char *bytes = malloc(len + 1);
    for (size_t i = 0; i < len; i++)
        bytes[i] = rig_pattern(i);
    bytes[len] = '\0';
    return bytes;
}

/* Ten times what the pipes hold, both ways; the rig's steps assert the bounds. */
static void large_stream(void **state)
{
    size_t len = 640 * 1024 + 7;
    char *bytes = pattern(len), head[200];
    (void)state;
    snprintf(head, sizeof head, POST("/echo", "Content-Length: %zu\r\n"), len);
    for (int way = 0; way < 3; way++) {
        rig_connect();
        if (way == 1)
            memory_pipe_limit(rig.pipe, 1000, 0);
        if (way == 2)
            memory_pipe_limit(rig.pipe, 0, 1000);
        rig_say(head);
        rig_feed(bytes, len);
        snprintf(head, sizeof head, RIG_OK "Content-Length: %zu\r\n\r\n", len);
        const char *got = rig_text();
        assert_memory_equal(got, head, strlen(head));
        assert_int_equal(strlen(got), strlen(head) + len);
        assert_memory_equal(got + strlen(head), bytes, len);
        assert_true(rig_is_idle());
        snprintf(head, sizeof head, POST("/echo", "Content-Length: %zu\r\n"), len);
        rig_disconnect();
    }
    free(bytes);
}

/* A peer that sends and does not read: what it sent waits with it, not in memory. */
static void back_pressure(void **state)
{
    size_t len = 1000 * 1000;
    char *bytes = pattern(len), head[200];
    (void)state;
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 1000);
    snprintf(head, sizeof head, POST("/echo", "Content-Length: %zu\r\n"), len);
    rig_say(head);
    rig_feed(bytes, len);
    assert_int_equal(rig.wants, CONN_WANT_WRITE);
    /* a pipe each way, what is gathered, and a window */
    size_t inside = len - memory_pipe_unread(rig.pipe);
    assert_in_range(inside, 1, 2 * EXCHANGE_PIPE_SIZE + NET_OUT_SIZE + rig.thread->in_size);
    for (size_t left = memory_pipe_unread(rig.pipe); left;) {
        rig_take(900);
        rig_run();
        assert_true(memory_pipe_unread(rig.pipe) <= left);
        left = memory_pipe_unread(rig.pipe);
    }
    rig.unread = false;
    memory_pipe_limit(rig.pipe, 0, 0);
    rig_take(SIZE_MAX);
    rig_run();
    assert_int_equal(
        rig.got_len,
        len + (size_t)snprintf(head, sizeof head, RIG_OK "Content-Length: %zu\r\n\r\n", len) + 52);
    assert_memory_equal(rig.got + rig.got_len - len, bytes, len);
    assert_true(rig_is_idle());
    free(bytes);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void too_large(void **state)
{
    (void)state;
    rig.service.max_body_size = 10;
    static const char *const paths[] = {"/collect", "/echo", "/text", "/none"};
    for (size_t i = 0; i < 4; i++) {
        char head[200];
        const char *method = i == 2 ? "GET" : "POST";
        snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n",
                 method, paths[i]);
        rig_talk_text(head, LARGE, true);
        snprintf(head, sizeof head,
                 "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
                 method, paths[i]);
        rig_talk_text(head, LARGE, true);
        if (i == 1)
            continue; /* it has begun to answer: below */
        snprintf(head, sizeof head,
                 "%s %s HTTP/1.1\r\nHost: x\r\n" CHUNKED
                 "\r\n6\r\n012345\r\n5\r\n01234\r\n0\r\n\r\n" GET,
                 method, paths[i]);
        rig_talk_text(head, LARGE, true);
    }
    rig_talk_text(POST("/collect", "Content-Length: 10\r\n") "0123456789",
                  RIG_OK "Content-Length: 10\r\n\r\n0123456789", false);
    rig_talk_text(POST("/collect", CHUNKED) "5\r\n01234\r\n5\r\n01234\r\n0\r\n\r\n",
                  RIG_OK "Content-Length: 10\r\n\r\n0123401234", false);
}

/* A streaming handler that has begun: its answer is cut, and never looks whole. */
static void too_large_streamed(void **state)
{
    (void)state;
    rig.service.max_body_size = 10;
    for (int way = 0; way < RIG_WAYS; way++) {
        rig_connect();
        const char *text = POST("/echo", CHUNKED) "6\r\n012345\r\n5\r\n01234\r\n0\r\n\r\n" GET;
        rig_feed_way(text, strlen(text), way);
        const char *got = rig_text();
        if (strstr(got, "HTTP/1.1 413")) { /* found before it had begun */
            assert_string_equal(got, LARGE);
            rig_disconnect();
        } else {
            assert_true(rig_is_closed());
            assert_null(strstr(got, "0\r\n\r\n"));
            assert_null(strstr(got, "hello"));
        }
    }
}

/* Waits for the whole body before it answers: step and run. */
static int whole_step(struct exchange *x, enum exchange_event event)
{
    const char *bytes;
    rig_saw(event);
    if (event == EXCHANGE_CANCELLED)
        return 0;
    exchange_consume(x, exchange_peek(x, &bytes));
    return exchange_body_ended(x) ? exchange_reply(x, 200, NULL, STR("all")) : 0;
}

static int whole_run(struct exchange *x)
{
    char bytes[7];
    ssize_t n;
    while ((n = exchange_read(x, bytes, sizeof bytes)) > 0)
        ;
    return n < 0 ? (int)n : exchange_reply(x, 200, NULL, STR("all"));
}

static const struct exchange_entry whole_step_entry = {
    .step = whole_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
static const struct exchange_entry whole_run_entry = {
    .run = whole_run, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};

static void spoilt_while_read(void **state)
{
    (void)state;
    rig.service.max_body_size = 10;
    rig_route(4, "/step", &whole_step_entry);
    rig_route(5, "/run", &whole_run_entry);
    rig_talk_text(POST("/step", CHUNKED) "6\r\n012345\r\n5\r\n01234\r\n0\r\n\r\n" GET, LARGE, true);
    rig_talk_text(POST("/run", CHUNKED) "6\r\n012345\r\n5\r\n01234\r\n0\r\n\r\n" GET, LARGE, true);
    rig_talk_text(POST("/step", CHUNKED) "2\r\n01\r\nx" GET, BAD, true);
    rig_talk_text(POST("/run", CHUNKED) "2\r\n01\r\nx" GET, BAD, true);
    rig_talk_text(POST("/step", CHUNKED) "2\r\n01\r\n0\r\n\r\n" GET,
                  RIG_OK "Content-Length: 3\r\n\r\nall" RIG_HELLO, false);
    rig_talk_text(POST("/run", CHUNKED) "2\r\n01\r\n0\r\n\r\n" GET,
                  RIG_OK "Content-Length: 3\r\n\r\nall" RIG_HELLO, false);
}

static void bad_framing(void **state)
{
    static const char *const bad[] = {"x",
                                      "1\r\naX",
                                      "1\r\nab",
                                      "0\r\n x\r\n\r\n",
                                      "1;\x01\r\n",
                                      "-1\r\n",
                                      "fffffffffffffffff\r\n"};
    char text[300];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, POST("/collect", CHUNKED) "%s" GET, bad[i]);
        rig_talk_text(text, BAD, true);
        snprintf(text, sizeof text, POST("/none", CHUNKED) "%s" GET, bad[i]);
        rig_talk_text(text, BAD, true);
    }
}

static void huge_chunk(void **state)
{
    (void)state;
    rig_connect();
    rig_say(POST("/collect", CHUNKED) "fffffffffffffff\r\nabc");
    assert_int_equal(rig.got_len, 0);
    rig_sleep(20000);
    rig_expect(LATE);
}

/* --- the peer's end in a body ----------------------------------------------------------------- */

static void ends_early(void **state)
{
    static const char *const heads[] = {POST("/collect", "Content-Length: 5\r\n") "ab",
                                        POST("/collect", CHUNKED) "5\r\nab",
                                        POST("/collect", "Content-Length: 5\r\n"),
                                        POST("/step", "Content-Length: 5\r\n") "ab",
                                        POST("/run", "Content-Length: 5\r\n") "ab",
                                        POST("/none", "Content-Length: 5\r\n") "ab"};
    (void)state;
    rig_route(4, "/step", &whole_step_entry);
    rig_route(5, "/run", &whole_run_entry);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        rig_connect();
        memory_pipe_feed(rig.pipe, heads[i], strlen(heads[i]));
        rig_finish();
        rig_expect(BAD);
        assert_true(rig_is_closed());
    }
    /* with the answer begun: cut */
    rig_connect();
    rig_say(POST("/echo", "Content-Length: 5\r\n") "ab");
    rig_expect(RIG_OK "Content-Length: 5\r\n\r\nab");
    rig_finish();
    rig_expect("");
    assert_true(rig_is_closed());
}

/* --- Expect ----------------------------------------------------------------------------------- */

static void expecting(void **state)
{
    static const char *const paths[] = {"/collect", "/echo", "/step", "/run"};
    (void)state;
    rig_route(4, "/step", &whole_step_entry);
    rig_route(5, "/run", &whole_run_entry);
    for (size_t i = 0; i < 4; i++) {
        char head[200];
        rig_connect();
        snprintf(head, sizeof head,
                 "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" EXPECT "\r\n", paths[i]);
        if (i == 3)
            rig_later("abc");
        rig_say(head);
        rig_expect_begin(CONTINUE);
        if (i != 3) {
            rig_say("a");
            rig_say("bc");
        }
        assert_null(strstr(rig_text(), "100"));
        assert_true(rig_is_idle());
        rig_disconnect();
        rig_connect(); /* said when the body comes anyway: too late */
        memory_pipe_feed(rig.pipe, head, strlen(head));
        rig_say("abc");
        assert_null(strstr(rig_text(), "100 Continue"));
        assert_true(rig_is_idle());
        rig_disconnect();
        rig_connect(); /* no body, no need */
        snprintf(head, sizeof head,
                 "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" EXPECT "\r\n", paths[i]);
        rig_say(head);
        assert_null(strstr(rig_text(), "100 Continue"));
        assert_true(rig_is_idle());
        rig_disconnect();
        rig_connect();
        snprintf(head, sizeof head,
                 "POST %s HTTP/1.1\r\nHost: x\r\n" CHUNKED "Expect:100-Continue\r\n\r\n", paths[i]);
        if (i == 3)
            rig_later("3\r\nabc\r\n0\r\n\r\n");
        rig_say(head);
        rig_expect_begin(CONTINUE);
        if (i != 3)
            rig_say("3\r\nabc\r\n0\r\n\r\n");
        assert_null(strstr(rig_text(), "100 Continue"));
        assert_true(rig_is_idle());
        rig_disconnect();
    }
    /* a body that nobody wants is asked for as well, so that the connection can go on */
    rig_connect();
    rig_say("GET /text HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" EXPECT "\r\n");
    rig_expect(CONTINUE);
    rig_say("abc");
    rig_expect(RIG_HELLO);
}

static void unexpected(void **state)
{
    (void)state;
    rig_talk_text(POST("/collect", "Content-Length: 3\r\nExpect: more\r\n") "abc",
                  ERROR("417 Expectation Failed", "23", "417 Expectation Failed"), true);
    rig_talk_text(POST("/collect", "Content-Length: 3\r\nExpect: 100-continue, more\r\n") "abc",
                  ERROR("417 Expectation Failed", "23", "417 Expectation Failed"), true);
    rig_talk_text("POST /collect HTTP/1.0\r\nContent-Length: 3\r\n" EXPECT "\r\nabc",
                  RIG_OK "Content-Length: 3\r\nConnection: close\r\n\r\nabc", true);
}

static void error_instead(void **state)
{
    (void)state;
    rig.service.max_body_size = 10;
    rig_talk_text(POST("/none", "Content-Length: 3\r\n" EXPECT),
                  ERROR("404 Not Found", "14", "404 Not Found"), true);
    rig_talk_text(POST("/collect", "Content-Length: 11\r\n" EXPECT), LARGE, true);
    rig_talk_text(POST("/text", "Content-Length: 3\r\n" EXPECT),
                  "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD, OPTIONS\r\nContent-Type: "
                  "text/plain\r\nContent-Length: 23\r\n"
                  "Connection: close\r\n\r\n405 Method Not Allowed\n",
                  true);
    /* OPTIONS is answered for the handler, no error */
    rig_talk_text("OPTIONS /text HTTP/1.1\r\nHost: x\r\n" EXPECT "\r\n" GET,
                  "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\n\r\n" RIG_HELLO, false);
    /* without a body there is nothing to refuse: the connection goes on */
    rig_talk_text("GET /none HTTP/1.1\r\nHost: x\r\n" EXPECT "\r\n" GET,
                  "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: "
                  "14\r\n\r\n404 Not Found\n" RIG_HELLO,
                  false);
}

/* --- early answers ---------------------------------------------------------------------------- */

static int early_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    return event == EXCHANGE_BEGUN ? exchange_reply(x, 403, NULL, STR("no\n")) : 0;
}

static int early_run(struct exchange *x)
{
    return exchange_reply(x, 403, NULL, STR("no\n"));
}

static const struct exchange_entry early_step_entry = {
    .step = early_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
static const struct exchange_entry early_run_entry = {
    .run = early_run, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};

/* Answered before the body was read: the rest of it is no request, and does not reset the answer.
 */
static void early_answer(void **state)
{
    static const char *const paths[] = {"/step", "/run"};
    (void)state;
    rig_route(4, "/step", &early_step_entry);
    rig_route(5, "/run", &early_run_entry);
    for (size_t i = 0; i < 2; i++)
        for (int how = 0; how < 2; how++) {
            char text[200];
            rig_connect();
            snprintf(text, sizeof text,
                     "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n%s\r\n", paths[i],
                     how ? "Connection: close\r\n" : "");
            rig_say(text);
            rig_say(GET GET);
            const char *got = rig_text();
            assert_non_null(
                strstr(got, "403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n"));
            assert_non_null(strstr(got, "\r\n\r\nno\n"));
            assert_null(strstr(got, "hello"));
            assert_true(rig_lingers());
            rig_say(GET);
            assert_null(strstr(rig_text(), "hello"));
            rig_finish();
            assert_true(rig_is_closed());
        }
    assert_string_equal(rig.events, "bb");
    /* whole in time: it goes on */
    rig_talk_text(POST("/collect", "Content-Length: 3\r\n") "abc" GET, THREE RIG_HELLO, false);
    for (size_t i = 0; i < 2; i++) {
        char text[200];
        rig_connect();
        snprintf(text, sizeof text,
                 "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" GET, paths[i]);
        rig_say(text);
        rig_expect("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n" RIG_HELLO);
        rig_disconnect();
    }
}

static int late_end_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    if (event != EXCHANGE_BEGUN)
        return 0;
    char *bytes = exchange_alloc(x, 100000);
    memset(bytes, 'z', 100000);
    return exchange_reply_static(x, 200, NULL, (struct str){bytes, 100000});
}

/* A large early answer to a peer that reads slowly and sends its body no further: it gets all. */
static void early_and_large(void **state)
{
    static const struct exchange_entry entry = {
        .step = late_end_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    rig_route(4, "/large", &entry);
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 1000);
    rig_say(POST("/large", "Content-Length: 100\r\n") "abc");
    for (int i = 0; i < 200 && rig.open; i++) {
        rig_take(1000);
        rig_sleep(15000);
    }
    rig_take(SIZE_MAX);
    const char *got = rig_text();
    assert_non_null(strstr(got, "Content-Length: 100000\r\n"));
    assert_int_equal(strlen(strstr(got, "\r\n\r\n") + 4), 100000);
    assert_string_equal(rig.events, "b");
    assert_true(rig_is_closed());
}

/* --- time ------------------------------------------------------------------------------------- */

static void late_bodies(void **state)
{
    static const char *const paths[] = {"/collect", "/step", "/run", "/none"};
    (void)state;
    rig_route(4, "/step", &whole_step_entry);
    rig_route(5, "/run", &whole_run_entry);
    for (size_t i = 0; i < 4; i++)
        for (int some = 0; some < 3; some++) {
            char text[200];
            if (i == 2 && some == 2)
                continue; /* the run handler's wait turns the clock itself */
            rig_connect();
            snprintf(text, sizeof text,
                     "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n%s", paths[i],
                     some ? "a" : "");
            rig_say(text);
            if (i != 2) {
                rig_sleep(19999);
                rig_expect("");
                if (some == 2) { /* any byte begins the time anew */
                    rig_say("b");
                    rig_sleep(19999);
                    rig_expect("");
                }
                rig_sleep(1);
            }
            rig_expect(LATE);
            assert_true(rig_lingers());
            rig_disconnect();
        }
    assert_int_equal(rig.stats.answers[4], 3 * 4 - 1);
    assert_null(strchr(rig.events, 'r'));
}

/* The body came in time, but nobody looked: it is not late. */
static void looked_late(void **state)
{
    (void)state;
    rig_connect();
    rig_say(POST("/collect", "Content-Length: 3\r\n"));
    rig_put("abc");
    rig_sleep(25000);
    rig_expect(THREE);
}

/* --- a handler's view ------------------------------------------------------------------------- */

static int counting_step(struct exchange *x, enum exchange_event event)
{
    const char *bytes;
    rig_saw(event);
    if (event == EXCHANGE_BYTES)
        exchange_consume(x, exchange_peek(x, &bytes));
    return event != EXCHANGE_CANCELLED && exchange_body_ended(x) && !exchange_begun(x)
               ? exchange_reply(x, 200, NULL, STR(""))
               : 0;
}

static void events_of_a_body(void **state)
{
    static const struct exchange_entry entry = {
        .step = counting_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    rig_route(4, "/step", &entry);
    rig_connect();
    rig_say(POST("/step", "Content-Length: 3\r\n"));
    assert_string_equal(rig.events, "b");
    rig_run();
    assert_string_equal(rig.events, "b");
    rig_say("a");
    assert_string_equal(rig.events, "by");
    rig_run();
    assert_string_equal(rig.events, "by");
    rig_say("bc");
    assert_string_equal(rig.events, "byy");
    rig_expect(RIG_OK "Content-Length: 0\r\n\r\n");
    rig.events[0] = '\0';
    rig_say(POST("/step", CHUNKED) "1\r\na\r\n");
    assert_string_equal(rig.events, "by");
    rig_say("0\r\n\r\n"); /* the end alone is news too */
    assert_string_equal(rig.events, "byy");
    rig_expect(RIG_OK "Content-Length: 0\r\n\r\n");
}

/* One that leaves bytes where they are is told of new ones only. */
static int lazy_step(struct exchange *x, enum exchange_event event)
{
    const char *bytes;
    rig_saw(event);
    if (event == EXCHANGE_TIMER)
        exchange_consume(x, exchange_peek(x, &bytes));
    if (event == EXCHANGE_CANCELLED)
        return 0;
    exchange_timer(x, 1000);
    return exchange_body_ended(x) ? exchange_reply(x, 200, NULL, STR("")) : 0;
}

static void unread_bytes(void **state)
{
    static const struct exchange_entry entry = {
        .step = lazy_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    char *bytes = pattern(200000);
    (void)state;
    rig_route(4, "/lazy", &entry);
    rig_connect();
    rig_say(POST("/lazy", "Content-Length: 200000\r\n"));
    rig_feed(bytes, 200000);
    rig_run();
    assert_string_equal(rig.events, "by");
    assert_int_equal(rig.wants & CONN_WANT_READ, 0); /* the pipe is full */
    assert_int_equal(rig.conn.exchange->body.len, EXCHANGE_PIPE_SIZE);
    rig_sleep(1000);
    assert_string_equal(rig.events, "byty");
    for (int i = 0; i < 4; i++)
        rig_sleep(1000);
    assert_null(strchr(rig.events, 'c'));
    rig_expect(RIG_OK "Content-Length: 0\r\n\r\n");
    free(bytes);
}

/* A body that is paused by its handler for long is not late. */
static void paused(void **state)
{
    static const struct exchange_entry entry = {
        .step = lazy_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    char *bytes = pattern(EXCHANGE_PIPE_SIZE);
    (void)state;
    rig_route(4, "/lazy", &entry);
    rig_connect();
    rig_say(POST("/lazy", "Content-Length: 65540\r\n"));
    rig_feed(bytes, EXCHANGE_PIPE_SIZE);
    rig_put("abcd"); /* comes while we don't read */
    rig.conn.exchange->timer_ms += 60000;
    rig_run();
    rig_sleep(61000);
    rig_sleep(1000);
    rig_expect(RIG_OK "Content-Length: 0\r\n\r\n");
    free(bytes);
}

/* Run handlers that read: all bytes, in their order, whatever the cuts. */
static size_t run_sum, run_reads;

static int reading_run(struct exchange *x)
{
    char bytes[5000];
    ssize_t n;
    run_sum = run_reads = 0;
    assert_int_equal(exchange_read(x, bytes, 0), 0);
    while ((n = exchange_read(x, bytes, 1 + rig_dice(sizeof bytes))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal(bytes[i], rig_pattern(run_sum++));
        run_reads++;
    }
    assert_int_equal(n, 0);
    assert_int_equal(exchange_read(x, bytes, 5), 0);
    return exchange_reply(x, 200, NULL, STR("ok"));
}

static char *more_bytes;
static size_t more_at, more_len;

static void send_more(void)
{
    size_t n = 1 + rig_dice(30000);
    n = n < more_len - more_at ? n : more_len - more_at;
    memory_pipe_feed(rig.pipe, more_bytes + more_at, n);
    more_at += n;
}

static void read_by_run(void **state)
{
    static const struct exchange_entry entry = {
        .run = reading_run, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    rig_route(4, "/run", &entry);
    more_len = 500000;
    more_bytes = pattern(more_len);
    rig.meanwhile = send_more;
    for (int run = 0; run < 5; run++) {
        more_at = 0;
        rig_connect();
        rig_say(POST("/run", "Content-Length: 500000\r\n"));
        assert_int_equal(run_sum, more_len);
        rig_expect(RIG_OK "Content-Length: 2\r\n\r\nok");
        assert_true(rig_is_idle());
        rig_disconnect();
    }
    free(more_bytes);
}

/* A run handler may answer first and read the rest of the body then. */
static int answering_first_run(struct exchange *x)
{
    char bytes[1000];
    int r = exchange_reply(x, 200, NULL, STR("ok"));
    while (r == 0 && (r = (int)exchange_read(x, bytes, sizeof bytes)) > 0)
        r = 0;
    return r;
}

static void answer_then_read(void **state)
{
    static const struct exchange_entry entry = {
        .run = answering_first_run, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    rig_route(4, "/run", &entry);
    more_len = 200000;
    more_bytes = pattern(more_len);
    more_at = 0;
    rig.meanwhile = send_more;
    rig_connect();
    rig_say(POST("/run", "Content-Length: 200000\r\n"));
    assert_int_equal(more_at, more_len);
    assert_int_equal(memory_pipe_unread(rig.pipe), 0);
    assert_string_equal(strstr(rig_text(), "\r\n\r\n"), "\r\n\r\nok");
    free(more_bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(collected),     TEST(dropped),       TEST(streamed),           TEST(large_stream),
        TEST(back_pressure), TEST(too_large),     TEST(too_large_streamed), TEST(spoilt_while_read),
        TEST(bad_framing),   TEST(huge_chunk),    TEST(ends_early),         TEST(expecting),
        TEST(unexpected),    TEST(error_instead), TEST(early_answer),       TEST(early_and_large),
        TEST(late_bodies),   TEST(looked_late),   TEST(events_of_a_body),   TEST(unread_bytes),
        TEST(paused),        TEST(read_by_run),   TEST(answer_then_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
