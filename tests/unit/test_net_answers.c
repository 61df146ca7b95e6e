/* SPDX-License-Identifier: MIT */
/* Answers on a connection: how each is framed, byte by byte; promises that are not kept; files;
 * fields that must not get through; handlers that fail; peers that read slowly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/test_net_rig.h"

#define GET        "GET /text HTTP/1.1\r\nHost: x\r\n\r\n"
#define ASK        "GET /step HTTP/1.1\r\nHost: x\r\n\r\n"
#define ASK_HEAD   "HEAD /step HTTP/1.1\r\nHost: x\r\n\r\n"
#define ASK_0      "GET /step HTTP/1.0\r\n\r\n"
#define ASK_0_KEEP "GET /step HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
#define CHUNKED    "Transfer-Encoding: chunked\r\n"
#define SERVER_ERROR                                                                               \
    "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 26\r\n"     \
    "\r\n500 Internal Server Error\n"

/* What the handler under test does; the same as step and as run. */
static int (*answer)(struct exchange *x);
static char events[100];

static int step(struct exchange *x, enum exchange_event event)
{
    size_t len = strlen(events);
    events[len] = "byrtc"[event];
    events[len + 1] = '\0';
    return event == EXCHANGE_BEGUN ? answer(x) : 0;
}

static int run(struct exchange *x)
{
    int r = answer(x);
    if (r == 0)
        exchange_flush(x); /* what is pushed too early shows */
    return r;
}

static const struct exchange_entry step_entry = {.step = step}, run_entry = {.run = run};

static int setup(void **state)
{
    memset(events, 0, sizeof events);
    rig_setup(state);
    rig_route(4, "/step", &step_entry);
    return 0;
}

/* The same from a step and a run handler: the request is answered so. */
static void expect(int (*how)(struct exchange *x), const char *request, const char *text,
                   bool closes)
{
    answer = how;
    for (int kind = 0; kind < 2; kind++) {
        rig.routes[4].entry = kind ? &run_entry : &step_entry;
        memset(events, 0, sizeof events);
        rig_talk_text(request, text, closes);
        assert_true(kind || strcmp(events, "bbbb") == 0);
    }
}

/* The answer is this and then the connection is cut: no more, no goodbye. */
static void expect_cut(int (*how)(struct exchange *x), const char *request, const char *text)
{
    answer = how;
    for (int kind = 0; kind < 2; kind++) {
        rig.routes[4].entry = kind ? &run_entry : &step_entry;
        rig_connect();
        rig_say(request);
        rig_expect(text);
        assert_true(rig_is_closed());
    }
}

/* --- framing ---------------------------------------------------------------------------------- */

static int reply(struct exchange *x)
{
    char bytes[] = "abc";
    int r = exchange_reply(x, 201, "a/b", (struct str){bytes, 3});
    memset(bytes, 'x', 3); /* copied */
    return r;
}

static int reply_nothing(struct exchange *x)
{
    return exchange_reply(x, 200, NULL, (struct str){0});
}

static int with_length(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, 6);
    return r ? r
           : exchange_try_write(x, "abc", 3) == 3 && exchange_try_write(x, "def", 3) == 3
               ? exchange_end(x)
               : -1;
}

static int without_length(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, -1);
    return r ? r
           : exchange_try_write(x, "abc", 3) == 3 && exchange_try_write(x, "def", 3) == 3
               ? exchange_end(x)
               : -1;
}

static int without_bytes(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, -1);
    return r ? r : exchange_end(x);
}

static void framing(void **state)
{
    (void)state;
    expect(reply, ASK GET,
           "HTTP/1.1 201 Created\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc" RIG_HELLO,
           false);
    expect(reply, ASK_HEAD GET,
           "HTTP/1.1 201 Created\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\n" RIG_HELLO,
           false);
    expect(reply, ASK_0,
           "HTTP/1.1 201 Created\r\nContent-Type: a/b\r\nContent-Length: 3\r\nConnection: "
           "close\r\n\r\nabc",
           true);
    expect(reply, ASK_0_KEEP GET,
           "HTTP/1.1 201 Created\r\nContent-Type: a/b\r\nContent-Length: 3\r\nConnection: "
           "keep-alive\r\n\r\nabc" RIG_HELLO,
           false);
    expect(reply_nothing, ASK GET, RIG_OK "Content-Length: 0\r\n\r\n" RIG_HELLO, false);
    expect(with_length, ASK GET, RIG_OK "Content-Length: 6\r\n\r\nabcdef" RIG_HELLO, false);
    expect(with_length, ASK_HEAD GET, RIG_OK "Content-Length: 6\r\n\r\n" RIG_HELLO, false);
    expect(with_length, ASK_0_KEEP GET,
           RIG_OK "Content-Length: 6\r\nConnection: keep-alive\r\n\r\nabcdef" RIG_HELLO, false);
    expect(without_length, ASK GET, RIG_OK CHUNKED "\r\n6\r\nabcdef\r\n0\r\n\r\n" RIG_HELLO, false);
    expect(without_length, ASK_HEAD GET, RIG_OK CHUNKED "\r\n" RIG_HELLO, false);
    expect(without_length, ASK_0, RIG_OK "Connection: close\r\n\r\nabcdef", true);
    expect(without_length, ASK_0_KEEP, RIG_OK "Connection: close\r\n\r\nabcdef", true);
    expect(without_length, "HEAD /step HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" GET,
           RIG_OK "Connection: keep-alive\r\n\r\n" RIG_HELLO, false);
    expect(without_bytes, ASK GET, RIG_OK CHUNKED "\r\n0\r\n\r\n" RIG_HELLO, false);
    expect(without_bytes, ASK_0, RIG_OK "Connection: close\r\n\r\n", true);
}

static int no_content(struct exchange *x)
{
    return exchange_reply(x, 204, NULL, STR("must not be sent"));
}

static int not_modified(struct exchange *x)
{
    int r = exchange_begin(x, 304, NULL, 1000);
    return r ? r : exchange_end(x);
}

static int not_modified_chunks(struct exchange *x)
{
    int r = exchange_begin(x, 304, NULL, -1);
    return r ? r : exchange_try_write(x, "abc", 3) == 3 ? exchange_end(x) : -1;
}

static void bodyless(void **state)
{
    (void)state;
    expect(no_content, ASK GET, "HTTP/1.1 204 No Content\r\n\r\n" RIG_HELLO, false);
    expect(not_modified, ASK GET, "HTTP/1.1 304 Not Modified\r\n\r\n" RIG_HELLO, false);
    expect(not_modified, ASK_0_KEEP GET,
           "HTTP/1.1 304 Not Modified\r\nConnection: keep-alive\r\n\r\n" RIG_HELLO, false);
    expect(not_modified_chunks, ASK GET, "HTTP/1.1 304 Not Modified\r\n\r\n" RIG_HELLO, false);
}

/* Sent as they come: a chunk for what has gathered at each step. */
static int pushing_run(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, -1);
    for (int i = 0; r == 0 && i < 3; i++) {
        r = exchange_write(x, "ab", 2);
        r = r ? r : exchange_write(x, "c", 1);
        r = r ? r : exchange_flush(x);
    }
    return r ? r : exchange_write(x, "end", 3);
}

static void flushed(void **state)
{
    static const struct exchange_entry entry = {.run = pushing_run};
    (void)state;
    rig.routes[4].entry = &entry;
    rig_talk_text(ASK GET,
                  RIG_OK CHUNKED
                  "\r\n3\r\nabc\r\n3\r\nabc\r\n3\r\nabc\r\n3\r\nend\r\n0\r\n\r\n" RIG_HELLO,
                  false);
}

/* A body that is not sent makes room as well. */
static int large_run(struct exchange *x)
{
    char bytes[10000] = "";
    int r = exchange_begin(x, 200, NULL, 1000000);
    for (int i = 0; r == 0 && i < 100; i++)
        r = exchange_write(x, bytes, sizeof bytes);
    return r;
}

static void large_and_bodyless(void **state)
{
    static const struct exchange_entry entry = {.run = large_run};
    (void)state;
    rig.routes[4].entry = &entry;
    rig_talk_text(ASK_HEAD GET, RIG_OK "Content-Length: 1000000\r\n\r\n" RIG_HELLO, false);
    rig_talk_text("HEAD /pieces?n=1000000&piece=4096 HTTP/1.1\r\nHost: x\r\n\r\n" GET,
                  RIG_OK "Content-Type: text/plain\r\n" CHUNKED "\r\n" RIG_HELLO, false);
}

/* --- broken promises -------------------------------------------------------------------------- */

static int too_few(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, 5);
    return r ? r : exchange_try_write(x, "abc", 3) == 3 ? exchange_end(x) : -1;
}

static int too_many(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, 5);
    return r ? r : exchange_try_write(x, "abcdef", 6) == 6 ? exchange_end(x) : -1;
}

/* Enough at first, and more later, while the answer is open. */
static int too_many_open(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, 5);
    if (r == 0)
        r = exchange_try_write(x, "abcde", 5) == 5 ? 0 : -1;
    return r ? r : exchange_try_write(x, "f", 1) == 1 ? 0 : -1;
}

static int nothing_at_all(struct exchange *x)
{
    (void)x;
    return 0;
}

static int gives_up(struct exchange *x)
{
    (void)x;
    return -EINVAL;
}

static int gives_up_late(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, -1);
    return r ? r : exchange_try_write(x, "abc", 3) == 3 ? -EINVAL : 0;
}

static int answers_and_fails(struct exchange *x)
{
    int r = exchange_reply(x, 200, NULL, STR("abc"));
    return r ? r : -EINVAL;
}

static void promises(void **state)
{
    (void)state;
    expect_cut(too_few, ASK GET, RIG_OK "Content-Length: 5\r\n\r\n");
    expect_cut(too_few, ASK_0, RIG_OK "Content-Length: 5\r\nConnection: close\r\n\r\n");
    expect_cut(too_many, ASK GET, RIG_OK "Content-Length: 5\r\n\r\n");
    expect_cut(too_many_open, ASK GET, RIG_OK "Content-Length: 5\r\n\r\n");
    expect(too_few, ASK_HEAD GET, RIG_OK "Content-Length: 5\r\n\r\n" RIG_HELLO,
           false); /* nothing to be seen of it */
    expect_cut(gives_up_late, ASK GET, "");
    expect_cut(answers_and_fails, ASK GET, "");
    expect(gives_up, ASK GET, SERVER_ERROR RIG_HELLO, false);
    expect(gives_up, ASK_HEAD GET,
           "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: "
           "26\r\n\r\n" RIG_HELLO,
           false);
    answer = nothing_at_all; /* a run handler that is done and said nothing */
    rig.routes[4].entry = &run_entry;
    rig_talk_text(ASK GET, SERVER_ERROR RIG_HELLO, false);
}

static void complained(int (*how)(struct exchange *x), const char *why)
{
    answer = how;
    for (int kind = 0; kind < 2; kind++) {
        rig.routes[4].entry = kind ? &run_entry : &step_entry;
        rig.complaint[0] = '\0';
        rig_connect();
        rig_say(ASK);
        rig_disconnect();
        assert_string_equal(rig.complaint, why);
    }
}

static int well(struct exchange *x)
{
    return exchange_reply(x, 200, NULL, STR("abc"));
}

static int no_such_status(struct exchange *x)
{
    return exchange_reply(x, 99, NULL, STR("abc"));
}

static int was_cancelled(struct exchange *x)
{
    (void)x;
    return MODUS_CANCELED;
}

/* What a handler does wrong is said, so that its author finds it. */
static void complaints(void **state)
{
    (void)state;
    complained(well, "");
    complained(too_few, "/step: the answer has 3 bytes, and 5 were promised");
    complained(too_many, "/step: the answer has 6 bytes, and 5 were promised");
    complained(gives_up, "/step: the handler returned -22 (Invalid argument)");
    complained(gives_up_late, "/step: the handler returned -22 (Invalid argument)");
    complained(no_such_status, "/step: the handler returned -22 (Invalid argument)");
    complained(was_cancelled, "/step: the handler returned -5005 (canceled, or interrupted)");
    answer = nothing_at_all;
    rig.routes[4].entry = &run_entry;
    rig_talk_text(ASK, SERVER_ERROR, false);
    assert_string_equal(rig.complaint, "/step: the handler gave no answer");
}

/* A step entry can't wait: it is told so, and may answer all the same. */
static int waits_in_step(struct exchange *x)
{
    char bytes[10];
    bool refused = exchange_sleep(x, 10) == -EINVAL && exchange_read(x, bytes, 10) == -EINVAL &&
                   exchange_begin(x, 200, NULL, 3) == 0 && exchange_write(x, "abc", 3) == -EINVAL &&
                   exchange_flush(x) == -EINVAL;
    if (!refused || exchange_try_write(x, "abc", 3) != 3)
        return -EIO;
    return exchange_end(x);
}

static void waiting_in_step(void **state)
{
    (void)state;
    answer = waits_in_step;
    rig_talk_text(ASK GET, RIG_OK "Content-Length: 3\r\n\r\nabc" RIG_HELLO, false);
}

/* Never more than the length is sent, also when the bytes come one event at a time. */
static int drip_step(struct exchange *x, enum exchange_event event)
{
    if (event == EXCHANGE_CANCELLED) {
        strcat(events, "c");
        return 0;
    }
    exchange_timer(x, 100);
    if (event == EXCHANGE_BEGUN)
        return exchange_begin(x, 200, NULL, 3);
    strcat(events, "t");
    return exchange_try_write(x, "a", 1) == 1 ? 0 : -1;
}

static void too_many_by_and_by(void **state)
{
    static const struct exchange_entry entry = {.step = drip_step};
    (void)state;
    rig.routes[4].entry = &entry;
    rig_connect();
    rig_say(ASK GET);
    for (int i = 0; i < 5 && rig.open; i++)
        rig_sleep(100);
    rig_expect(RIG_OK "Content-Length: 3\r\n\r\naaa");
    assert_true(rig_is_closed());
    assert_string_equal(events, "ttttc"); /* told that it is over */
}

/* No event after one that the handler failed, and none after its end. */
static int failing_step(struct exchange *x, enum exchange_event event)
{
    size_t len = strlen(events);
    events[len] = "byrtc"[event];
    exchange_timer(x, 0);
    if (event == EXCHANGE_BEGUN)
        return exchange_begin(x, 200, NULL, -1);
    return -EINVAL;
}

static int ending_step(struct exchange *x, enum exchange_event event)
{
    size_t len = strlen(events);
    events[len] = "byrtc"[event];
    exchange_timer(x, 0);
    if (event != EXCHANGE_BEGUN)
        return 0;
    char *bytes = exchange_alloc(x, 200000);
    memset(bytes, 'z', 200000);
    return exchange_reply_static(x, 200, NULL, (struct str){bytes, 200000});
}

static void no_event_after_the_end(void **state)
{
    static const struct exchange_entry failing = {
        .step = failing_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    static const struct exchange_entry ending = {
        .step = ending_step, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    rig.routes[4].entry = &failing;
    rig_connect();
    rig_say("POST /step HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    rig_sleep(10);
    assert_string_equal(events, "by");
    assert_true(rig_is_closed());
    memset(events, 0, sizeof events);
    rig.routes[4].entry = &ending;
    rig.service.handler_timeout_ms = 1000;
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 10000);
    rig_say("POST /step HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc");
    for (int i = 0; i < 30 && rig.open; i++) {
        rig_take(10000);
        rig_sleep(500); /* past handler_timeout: it is the sending that takes so long */
        if (i == 5)
            rig_say("def");
    }
    rig_take(SIZE_MAX);
    assert_string_equal(events, "b");
    assert_int_equal(strlen(strstr(rig_text(), "\r\n\r\n")), 200004);
    rig_disconnect();
    rig_connect(); /* nor is it told that the peer is gone */
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 10000);
    rig_say("POST /step HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc");
    conn_hang_up(&rig.conn, false);
    rig_run();
    assert_true(rig_is_closed());
    assert_string_equal(events, "bb");
}

/* --- files ------------------------------------------------------------------------------------ */

static int file, file_tail;
static int64_t file_promise, file_length;

static int send_a_file(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, file_promise);
    if (r == 0 && file_tail)
        r = exchange_try_write(x, "head", 4) == 4 ? 0 : -1;
    r = r ? r : exchange_send_file(x, file, 10, file_length);
    if (r == 0 && file_tail)
        r = exchange_try_write(x, "tail", 4) == 4 ? 0 : -1;
    return r ? r : exchange_end(x);
}

static int a_file(size_t size)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = rig_pattern(i);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    free(bytes);
    return fd;
}

static void files(void **state)
{
    enum { SIZE = 300000 };
    (void)state;
    file = a_file(SIZE + 10);
    file_length = SIZE;
    answer = send_a_file;
    for (int kind = 0; kind < 8; kind++) {
        char head[100];
        bool chunked = kind & 1, tail = kind & 2, slow = kind & 4;
        file_tail = tail;
        file_promise = chunked ? -1 : SIZE + (tail ? 8 : 0);
        rig_connect();
        memory_pipe_limit(rig.pipe, slow ? 7000 : 0, slow ? 9000 : 0);
        rig_say(ASK);
        const char *got = rig_text();
        if (chunked)
            snprintf(head, sizeof head, RIG_OK CHUNKED "\r\n%s493e0\r\n",
                     tail ? "4\r\nhead\r\n" : "");
        else
            snprintf(head, sizeof head, RIG_OK "Content-Length: %lld\r\n\r\n%s",
                     (long long)file_promise, tail ? "head" : "");
        assert_memory_equal(got, head, strlen(head));
        got += strlen(head);
        for (size_t i = 0; i < SIZE; i++)
            assert_int_equal(got[i], rig_pattern(i + 10));
        got += SIZE;
        assert_string_equal(got, chunked ? tail ? "\r\n4\r\ntail\r\n0\r\n\r\n" : "\r\n0\r\n\r\n"
                                 : tail  ? "tail"
                                         : "");
        assert_true(rig_is_idle());
        rig_disconnect();
    }
    rig_connect(); /* HEAD reads no file */
    file_tail = 0;
    file_promise = SIZE;
    file = -1;
    rig_say(ASK_HEAD);
    rig_expect(RIG_OK "Content-Length: 300000\r\n\r\n");
}

static void shrinking_file(void **state)
{
    (void)state;
    answer = send_a_file;
    for (int kind = 0; kind < 4; kind++) {
        rig.routes[4].entry = kind & 2 ? &run_entry : &step_entry;
        file = a_file(50000);
        file_tail = 1;
        file_length = 60000;
        file_promise = kind & 1 ? -1 : 60008;
        rig_connect();
        rig_say(ASK GET);
        assert_true(rig_is_closed());
        assert_true(rig.file_ended);
        const char *got = rig_text();
        assert_null(strstr(got, "tail"));
        assert_null(strstr(got, "0\r\n\r\n"));
        assert_null(strstr(got, "hello"));
        close(file);
    }
}

/* A run handler that goes on writing behind a file that turns out too short is set free. */
static int writes_on(struct exchange *x)
{
    char bytes[1000] = "";
    int r = exchange_begin(x, 200, NULL, -1);
    r = r ? r : exchange_send_file(x, file, 0, 60000);
    for (int i = 0; r == 0 && i < 500; i++)
        r = exchange_write(x, bytes, sizeof bytes);
    assert_int_equal(r, MODUS_CANCELED);
    return r;
}

static void writing_behind_a_short_file(void **state)
{
    static const struct exchange_entry entry = {.run = writes_on};
    (void)state;
    file = a_file(50000);
    rig.routes[4].entry = &entry;
    rig_connect();
    rig_say(ASK);
    assert_true(rig_is_closed());
    close(file);
}

static int bad_file(struct exchange *x)
{
    assert_int_equal(exchange_send_file(x, 0, 0, 5), -EINVAL); /* not begun */
    assert_int_equal(exchange_begin(x, 200, NULL, 3), 0);
    assert_int_equal(exchange_send_file(x, 0, 0, -5), -EINVAL);
    assert_int_equal(exchange_send_file(x, 0, 0, 0), 0);
    assert_int_equal(exchange_try_write(x, "abc", 3), 3);
    return exchange_end(x);
}

static void odd_files(void **state)
{
    (void)state;
    expect(bad_file, ASK GET, RIG_OK "Content-Length: 3\r\n\r\nabc" RIG_HELLO, false);
}

/* --- fields ----------------------------------------------------------------------------------- */

static int adds_fields(struct exchange *x)
{
    static const char *const bad_names[] = {"",    " ",    "a b", "a:", "a\r\nb",
                                            "a\n", "\x80", "(",   "a\t"};
    static const char *const bad_values[] = {"a\r\nb: c", "\n", "\r", "a\x01", "\x7f", "a\r\n"};
    static const char *const ours[] = {"Content-Length", "content-length", "Transfer-Encoding",
                                       "Connection",     "Date",           "SERVER"};
    for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++)
        assert_int_equal(exchange_add(x, bad_names[i], STR("a")), -EINVAL);
    for (size_t i = 0; i < sizeof bad_values / sizeof *bad_values; i++)
        assert_int_equal(exchange_add(x, "A", str_of(bad_values[i])), -EINVAL);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        assert_int_equal(exchange_add(x, ours[i], STR("1")), -EINVAL);
    assert_int_equal(exchange_add(x, "A", (struct str){"a\0b", 3}), -EINVAL);
    assert_int_equal(exchange_add(x, "X-One", STR("1")), 0);
    assert_int_equal(exchange_add(x, "X-Two", STR("a\tb \xc3\xa9")), 0);
    assert_int_equal(exchange_add(x, "X-None", (struct str){0}), 0);
    assert_int_equal(exchange_begin(x, 200, "a\r\nb", 0), -EINVAL);
    assert_int_equal(exchange_begin(x, 199, NULL, 0), -EINVAL);
    assert_int_equal(exchange_begin(x, 600, NULL, 0), -EINVAL);
    assert_int_equal(exchange_begin(x, 100, NULL, 0), -EINVAL);
    assert_int_equal(exchange_end(x), -EINVAL);
    assert_int_equal(exchange_try_write(x, "a", 1), -EINVAL);
    assert_false(exchange_begun(x));
    int r = exchange_reply(x, 599, "t", STR("ok"));
    assert_true(exchange_begun(x));
    assert_int_equal(exchange_add(x, "A", STR("a")), -EALREADY);
    assert_int_equal(exchange_begin(x, 200, NULL, 0), -EALREADY);
    assert_int_equal(exchange_reply(x, 200, NULL, STR("a")), -EALREADY);
    assert_int_equal(exchange_try_write(x, "a", 1), -EINVAL);
    assert_int_equal(exchange_send_file(x, 0, 0, 1), -EINVAL);
    return r;
}

static void fields(void **state)
{
    (void)state;
    expect(adds_fields, ASK GET,
           "HTTP/1.1 599 Unknown\r\nX-One: 1\r\nX-Two: a\tb \xc3\xa9\r\nX-None: \r\nContent-Type: "
           "t\r\nContent-Length: 2\r\n\r\nok" RIG_HELLO,
           false);
}

static size_t field_bytes;

static int many_fields(struct exchange *x)
{
    static char value[1000];
    memset(value, 'v', sizeof value);
    for (size_t sum = 0; sum < field_bytes; sum += sizeof value)
        if (exchange_add(x, "X", (struct str){value, sizeof value}) != 0)
            return -ENOMEM;
    return exchange_reply(x, 200, NULL, STR("ok"));
}

/* As many as fit are sent whole, also where they have to wait; more are an error, not a cut head.
 */
static void huge_heads(void **state)
{
    (void)state;
    answer = many_fields;
    for (int slow = 0; slow < 2; slow++)
        for (field_bytes = 1000; field_bytes < 100000; field_bytes += 7000) {
            rig_connect();
            if (slow)
                memory_pipe_limit(rig.pipe, 100, 500);
            rig_say(ASK ASK);
            const char *got = rig_text();
            size_t expected =
                strlen(RIG_OK "Content-Length: 2\r\n\r\nok") + (field_bytes + 999) / 1000 * 1005;
            if (rig.open) {
                assert_int_equal(strlen(got), 2 * expected);
                assert_string_equal(got + strlen(got) - 6, "\r\n\r\nok");
                rig_disconnect();
            } else {
                assert_true(field_bytes > NET_OUT_SIZE / 2 - 2000);
                assert_string_equal(got, "");
            }
        }
}

/* --- slow readers ----------------------------------------------------------------------------- */

/* A source that never ends, and a peer that stops reading: bounded, and cut in time. */
static void stalled_reader(void **state)
{
    (void)state;
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 5000);
    rig_say("GET /pieces?n=100000000&piece=4096 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(rig.wants, CONN_WANT_WRITE);
    for (int i = 0; i < 50; i++) {
        rig_take(3000);
        rig_sleep(59999); /* progress each time */
        assert_true(rig.open);
    }
    rig_sleep(60000);
    assert_true(rig_is_closed());
    assert_int_equal(rig.stats.ended, 1);
}

/* The last bytes of an answer wait for the peer as long as the others: a close must not lose them.
 */
static void slow_last_bytes(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        rig_connect();
        rig.unread = true;
        memory_pipe_limit(rig.pipe, 0, 1000);
        rig_say(kind ? "GET /pieces?n=30000&piece=4096 HTTP/1.0\r\n\r\n"
                     : "GET /pieces?n=30000&piece=4096 HTTP/1.1\r\nHost: x\r\nConnection: "
                       "close\r\n\r\n");
        for (int i = 0; i < 100 && rig.open; i++) {
            rig_take(1000);
            rig_sleep(50000);
        }
        rig_take(SIZE_MAX);
        const char *got = rig_text();
        assert_non_null(strstr(got, kind ? "Connection: close\r\n\r\nabc" : "\r\n4000\r\nabc"));
        if (!kind)
            assert_string_equal(got + strlen(got) - 7, "\r\n0\r\n\r\n");
        assert_true(strlen(got) > 30000);
        assert_true(rig_is_closed());
    }
}

/* Between two requests: what is kept is sent before anything else is read, and its own time counts.
 */
static void slow_between_requests(void **state)
{
    (void)state;
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 100);
    rig_say(GET GET "GET /te");
    assert_int_equal(rig.wants & CONN_WANT_WRITE, CONN_WANT_WRITE);
    for (int i = 0; i < 2; i++) {
        rig_take(50);
        rig_sleep(40000); /* longer than keepalive_timeout and header_timeout */
        assert_true(rig.open);
    }
    rig.unread = false;
    memory_pipe_limit(rig.pipe, 0, 0);
    rig_take(SIZE_MAX);
    rig_run();
    rig_say("xt HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(RIG_HELLO RIG_HELLO RIG_HELLO);
    assert_true(rig_is_idle());
    rig.unread = true; /* and one that reads no more is cut */
    memory_pipe_limit(rig.pipe, 0, 100);
    rig_say(GET GET);
    rig_sleep(59999);
    assert_true(rig.open);
    rig_sleep(1);
    assert_true(rig_is_closed());
}

/* One connection's file is not all that a thread does: it has its share of a turn. */
static void fairness(void **state)
{
    enum { SIZE = 20 * 1024 * 1024 };
    (void)state;
    file = a_file(SIZE + 10);
    file_tail = 0;
    file_length = file_promise = SIZE;
    answer = send_a_file;
    rig_connect();
    memory_pipe_feed(rig.pipe, ASK, sizeof ASK - 1);
    unsigned steps = 0, wants;
    do {
        uint64_t before = rig.stats.bytes_out;
        wants = rig_step();
        assert_true(rig.stats.bytes_out - before <= 3 * 1024 * 1024);
        steps++;
    } while (wants & CONN_WANT_AGAIN);
    assert_in_range(steps, 8, 40);
    assert_true(rig.stats.bytes_out > SIZE);
    assert_true(rig_is_idle());
    close(file);
}

/* So has one that echoes as fast as it sends, and one that uploads. */
static void fairness_of_bodies(void **state)
{
    enum { SIZE = 16 * 1024 * 1024 };
    static const char *const paths[] = {"/echo", "/none", "/collect"};
    char *bytes = malloc(SIZE), head[100];
    (void)state;
    memset(bytes, 'b', SIZE);
    rig.service.max_body_size = SIZE;
    for (int i = 0; i < 3; i++) {
        rig_connect();
        snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
                 paths[i], SIZE);
        memory_pipe_feed(rig.pipe, head, strlen(head));
        memory_pipe_feed(rig.pipe, bytes, SIZE);
        unsigned steps = 0, wants;
        do {
            uint64_t before = rig.stats.bytes_in;
            wants = rig_step();
            assert_true(rig.stats.bytes_in - before <= 3 * 1024 * 1024);
            steps++;
        } while (wants & CONN_WANT_AGAIN);
        assert_in_range(steps, 8, 60);
        rig_run();
        if (wants & CONN_WANT_SERVE) {
            exchange_serve(conn_exchange(&rig.conn));
            exchange_finish(conn_exchange(&rig.conn));
            rig_run();
        }
        assert_true(rig_is_idle());
        rig_disconnect();
    }
    free(bytes);
}

/* Random writes of random sizes to a peer with a random window: all bytes, in order. */
static size_t random_total;

static int random_run(struct exchange *x)
{
    char bytes[20000];
    int r = exchange_begin(x, 200, NULL, random_total & 1 ? -1 : (int64_t)random_total);
    for (size_t at = 0; r == 0 && at < random_total;) {
        size_t n = 1 + rig_dice(rig_dice(3) ? 100 : sizeof bytes);
        n = n < random_total - at ? n : random_total - at;
        for (size_t i = 0; i < n; i++)
            bytes[i] = rig_pattern(at + i);
        r = exchange_write(x, bytes, n);
        at += n;
        if (r == 0 && rig_dice(20) == 0)
            r = exchange_flush(x);
        if (r == 0 && rig_dice(50) == 0)
            r = exchange_sleep(x, rig_dice(100));
    }
    return r;
}

static void take_some(void)
{
    rig_take(1 + rig_dice(30000));
}

static size_t unchunk(char *bytes)
{
    char *from = bytes, *to = bytes;
    for (;;) {
        size_t n = strtoul(from, &from, 16);
        assert_memory_equal(from, "\r\n", 2);
        memmove(to, from + 2, n);
        to += n;
        from += 2 + n;
        assert_memory_equal(from, "\r\n", 2);
        from += 2;
        if (n == 0) {
            *to = '\0';
            return (size_t)(to - bytes);
        }
    }
}

static void random_writes(void **state)
{
    static const struct exchange_entry entry = {.run = random_run};
    (void)state;
    rig.routes[4].entry = &entry;
    rig.meanwhile = take_some;
    for (int turn = 0; turn < 40; turn++) {
        random_total = rig_dice(turn % 4 ? 20000 : 600000);
        rig_connect();
        rig.unread = true;
        memory_pipe_limit(rig.pipe, rig_dice(2) ? 1 + rig_dice(5000) : 0, 1 + rig_dice(20000));
        rig_say(ASK);
        while (rig.open && !rig_is_idle()) {
            rig_take(1 + rig_dice(20000));
            rig_run();
        }
        rig_take(SIZE_MAX);
        char *body = rig.got;
        body = strstr(body, "\r\n\r\n") + 4;
        size_t len = random_total & 1 ? unchunk(body) : strlen(body);
        assert_int_equal(len, random_total);
        for (size_t i = 0; i < len; i++)
            assert_int_equal(body[i], rig_pattern(i));
        rig_disconnect();
    }
}

/* --- memory of an exchange -------------------------------------------------------------------- */

static char order[100];

static void release(void *arg)
{
    strcat(order, arg);
}

static int deferring(struct exchange *x)
{
    char *first = exchange_state(x, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(first[i], 0);
    memset(first, 1, 100);
    assert_ptr_equal(exchange_state(x, 100), first);
    assert_null(exchange_alloc(x, SIZE_MAX));
    assert_null(exchange_alloc(x, SIZE_MAX - 16));
    char *blocks[50];
    for (size_t i = 0; i < 50; i++) {
        blocks[i] = exchange_alloc(x, i * 10);
        assert_int_equal((uintptr_t)blocks[i] % 16, 0);
        memset(blocks[i], (int)i, i * 10);
    }
    for (size_t i = 0; i < 50; i++)
        for (size_t b = 0; b < i * 10; b++)
            assert_int_equal(blocks[i][b], i);
    static char a[] = "a", b[] = "b", c[] = "c";
    assert_int_equal(exchange_defer(x, release, a), 0);
    assert_int_equal(exchange_defer(x, release, b), 0);
    assert_int_equal(exchange_defer(x, release, c), 0);
    return exchange_reply(x, 200, NULL, STR("ok"));
}

static void defer_order(void **state)
{
    (void)state;
    order[0] = '\0';
    answer = deferring;
    rig_connect();
    rig_say(ASK);
    assert_string_equal(order, "cba");
    order[0] = '\0';
    rig_say(ASK);
    assert_string_equal(order, "cba");
    rig_disconnect();
    order[0] = '\0';
    rig_connect(); /* released only when the last byte is out */
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 1);
    rig_say(ASK);
    order[0] = '\0';
    conn_hang_up(&rig.conn, false);
    rig_run();
    assert_true(rig_is_closed());
}

/* --- questions about the request -------------------------------------------------------------- */

static int asks(struct exchange *x)
{
    struct str name, value;
    assert_int_equal(exchange_method(x), EXCHANGE_GET);
    assert_true(str_is(exchange_path(x), STR("/step/a b")));
    assert_true(str_is(exchange_rest(x), STR("/a b")));
    assert_true(str_is(exchange_query(x), STR("n=1&nn=2&n=3&&=4&e=&f")));
    assert_true(str_is(exchange_target(x), STR("/step//a%20b?n=1&nn=2&n=3&&=4&e=&f")));
    assert_true(str_is(exchange_query_value(x, "n"), STR("1")));
    assert_true(str_is(exchange_query_value(x, "nn"), STR("2")));
    assert_true(str_is(exchange_query_value(x, "e"), STR("")));
    assert_non_null(exchange_query_value(x, "e").at);
    assert_true(str_is(exchange_query_value(x, ""), STR("4")));
    assert_null(exchange_query_value(x, "f").at);
    assert_null(exchange_query_value(x, "nnn").at);
    assert_true(str_is(exchange_header(x, "a"), STR("b c")));
    assert_true(str_is(exchange_header(x, "EMPTY"), STR("")));
    assert_non_null(exchange_header(x, "empty").at);
    assert_null(exchange_header(x, "none").at);
    assert_true(exchange_header_at(x, 1, &name, &value));
    assert_true(str_is(name, STR("A")) && str_is(value, STR("b c")));
    assert_true(exchange_header_at(x, 3, &name, &value));
    assert_true(str_is(name, STR("a")) && str_is(value, STR("second")));
    assert_false(exchange_header_at(x, 4, &name, &value));
    assert_int_equal(exchange_body(x).len, 0);
    assert_true(str_is(exchange_peer(x), STR("192.0.2.7")));
    assert_string_equal(exchange_conf(x), "/step");
    assert_false(exchange_cancelled(x));
    return exchange_reply(x, 200, NULL, STR("ok"));
}

static void questions(void **state)
{
    (void)state;
    expect(asks,
           "GET /step//a%20b?n=1&nn=2&n=3&&=4&e=&f HTTP/1.1\r\nHost: x\r\nA:  b c \r\nEmpty:\r\na: "
           "second\r\n\r\n" GET,
           RIG_OK "Content-Length: 2\r\n\r\nok" RIG_HELLO, false);
}

static int asks_rest(struct exchange *x)
{
    return exchange_reply(x, 200, NULL, exchange_rest(x));
}

static void rests(void **state)
{
    (void)state;
    expect(asks_rest, ASK, RIG_OK "Content-Length: 0\r\n\r\n", false);
    expect(asks_rest, "GET /step/ HTTP/1.1\r\nHost: x\r\n\r\n", RIG_OK "Content-Length: 1\r\n\r\n/",
           false);
    rig_route(5, "/", &run_entry);
    rig_talk_text("GET /a/b HTTP/1.1\r\nHost: x\r\n\r\n", RIG_OK "Content-Length: 4\r\n\r\n/a/b",
                  false);
}

/* What can stand in no header can stand in none that is made once, and what does not fit is left
 * out whole. */
static void headers_made_once(void **state)
{
    struct exchange_headers h = {0};
    char large[sizeof h.text];
    (void)state;
    memset(large, 'v', sizeof large);
    assert_int_equal(exchange_headers_add(&h, "ETag", STR("\"a\"")), 0);
    assert_int_equal(exchange_headers_add(&h, "A b", STR("x")), -EINVAL);
    assert_int_equal(exchange_headers_add(&h, "A", STR("x\r\nB: y")), -EINVAL);
    assert_int_equal(exchange_headers_add(&h, "date", STR("x")), -EINVAL);
    assert_int_equal(exchange_headers_add(&h, "Large", (struct str){large, sizeof large - 16}),
                     -ENOBUFS);
    assert_int_equal(exchange_headers_add(&h, "B", STR("")), 0);
    assert_int_equal(h.len, strlen("ETag: \"a\"\r\nB: \r\n"));
    assert_memory_equal(h.text, "ETag: \"a\"\r\nB: \r\n", h.len);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(headers_made_once),
        TEST(framing),
        TEST(bodyless),
        TEST(large_and_bodyless),
        TEST(flushed),
        TEST(promises),
        TEST(complaints),
        TEST(waiting_in_step),
        TEST(too_many_by_and_by),
        TEST(no_event_after_the_end),
        TEST(files),
        TEST(shrinking_file),
        TEST(writing_behind_a_short_file),
        TEST(odd_files),
        TEST(fields),
        TEST(huge_heads),
        TEST(stalled_reader),
        TEST(slow_last_bytes),
        TEST(slow_between_requests),
        TEST(fairness),
        TEST(fairness_of_bodies),
        TEST(random_writes),
        TEST(defer_order),
        TEST(questions),
        TEST(rests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
