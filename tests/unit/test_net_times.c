/* SPDX-License-Identifier: MIT */
/* Time and ends: every deadline at its exact millisecond, timers, cancelling, draining, retiring,
 * rejecting, lingering, and TCP connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/test_net_rig.h"

#define GET "GET /text HTTP/1.1\r\nHost: x\r\n\r\n"
#define ASK "GET /step HTTP/1.1\r\nHost: x\r\n\r\n"
#define ERROR(line, length, body)                                                                  \
    "HTTP/1.1 " line "\r\nContent-Type: text/plain\r\nContent-Length: " length                     \
    "\r\nConnection: close\r\n\r\n" body "\n"
#define LATE    ERROR("408 Request Timeout", "20", "408 Request Timeout")
#define TIMEOUT ERROR("504 Gateway Timeout", "20", "504 Gateway Timeout")
#define BUSY                                                                                       \
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: "                         \
    "text/plain\r\nContent-Length: 24\r\nConnection: close\r\n\r\n"                                \
    "503 Service Unavailable\n"

/* Nothing happens until a millisecond before, and then it does. */
static void expect_after(int64_t ms, const char *text)
{
    assert_int_equal(conn_deadline(&rig.conn), rig_now() + ms);
    rig_sleep(ms - 1);
    assert_true(rig.open);
    rig_expect("");
    rig_sleep(1);
    rig_expect(text);
}

/* --- waiting for requests --------------------------------------------------------------------- */

static void first_request(void **state)
{
    (void)state;
    rig_connect();
    expect_after(10000, "");
    assert_true(rig_is_closed());
}

static void heads(void **state)
{
    (void)state;
    rig_connect();
    rig_sleep(5000);
    rig_say("G");
    expect_after(10000, LATE);
    assert_true(rig_lingers());
    rig_disconnect();
    rig_connect(); /* in all, not between bytes */
    rig_say("GET /");
    for (int i = 0; i < 9; i++) {
        rig_sleep(1000);
        rig_say("a");
    }
    expect_after(1000, LATE);
    rig_disconnect();
    rig_connect(); /* between two requests as well */
    rig_say(GET "G");
    rig_expect(RIG_HELLO);
    expect_after(10000, LATE);
}

static void keepalive(void **state)
{
    (void)state;
    rig_connect();
    for (int i = 0; i < 3; i++) {
        rig_say(GET);
        rig_expect(RIG_HELLO);
        assert_int_equal(conn_deadline(&rig.conn), rig_now() + 30000);
        rig_sleep(29999);
    }
    rig_sleep(1);
    rig_expect("");
    assert_true(rig_is_closed());
    rig_connect(); /* empty lines do not count as a request */
    rig_say(GET);
    rig_expect(RIG_HELLO);
    rig_sleep(20000);
    rig_say("\r\n\r");
    expect_after(10000, "");
    assert_true(rig_is_closed() || rig_lingers());
}

/* What came while nobody looked is looked at before anybody is told that he is late. */
static void looked_late(void **state)
{
    (void)state;
    rig_connect();
    rig_put(GET);
    rig_sleep(100000);
    rig_expect(RIG_HELLO);
    assert_true(rig_is_idle());
    rig_put(GET);
    rig_sleep(100000);
    rig_expect(RIG_HELLO);
    assert_true(rig_is_idle());
    rig_say("GET /te");
    rig_put("xt HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_sleep(100000);
    rig_expect(RIG_HELLO);
    assert_true(rig_is_idle());
    rig.unread = true; /* and room that came */
    memory_pipe_limit(rig.pipe, 0, 50);
    rig_say(GET);
    rig_take(SIZE_MAX);
    rig_sleep(100000);
    rig_take(SIZE_MAX);
    assert_true(rig.open);
}

/* --- handlers --------------------------------------------------------------------------------- */

static int waiting_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    if (event == EXCHANGE_CANCELLED) {
        assert_true(exchange_cancelled(x));
        assert_true(exchange_try_write(x, "a", 1) < 0);
    }
    return 0;
}

static const struct exchange_entry waiting_step_entry = {.step = waiting_step};

static int sleeping_run(struct exchange *x)
{
    size_t ms = rig_number(x, "ms", 100000);
    int64_t before = rig_now();
    int r = exchange_sleep(x, (int64_t)ms);
    if (r) {
        assert_int_equal(r, MODUS_CANCELED);
        strcat(rig.events, "c");
        assert_true(exchange_cancelled(x));
        return r;
    }
    assert_true(rig_now() >= before + (int64_t)ms);
    return exchange_reply(x, 200, NULL, STR("slept"));
}

static const struct exchange_entry sleeping_run_entry = {.run = sleeping_run};

#define SLOW "/step: the handler took longer than handler_timeout"

static void handler_timeout(void **state)
{
    (void)state;
    rig.service.handler_timeout_ms = 7000;
    rig_route(4, "/step", &waiting_step_entry);
    rig_connect();
    rig_say(ASK GET);
    assert_string_equal(rig.events, "b");
    expect_after(7000, TIMEOUT);
    assert_string_equal(rig.events, "bc");
    assert_string_equal(rig.complaint, SLOW);
    rig.complaint[0] = '\0';
    assert_true(rig_lingers());
    rig_disconnect();
    rig_route(4, "/step", &sleeping_run_entry);
    rig_connect();
    int64_t before = rig_now();
    rig_say(ASK GET);
    rig_expect(TIMEOUT);
    assert_int_equal(rig_now(), before + 7000);
    assert_string_equal(rig.events, "bcc");
    assert_string_equal(rig.complaint, SLOW);
    rig.complaint[0] = '\0';
    rig_disconnect();
    rig_connect();
    rig_say("GET /step?ms=6999 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(RIG_OK "Content-Length: 5\r\n\r\nslept");
    assert_string_equal(rig.complaint, "");
    assert_true(rig_is_idle());
}

/* With the answer begun, it can only be cut. */
static int begun_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    if (event != EXCHANGE_BEGUN)
        return 0;
    int r = exchange_begin(x, 200, NULL, -1);
    return r ? r : exchange_try_write(x, "abc", 3) == 3 ? 0 : -1;
}

static int begun_run(struct exchange *x)
{
    int r = exchange_begin(x, 200, NULL, 100);
    r = r ? r : exchange_write(x, "abc", 3);
    r = r ? r : exchange_flush(x);
    r = r ? r : exchange_sleep(x, 100000);
    assert_int_equal(r, MODUS_CANCELED);
    return r;
}

static void handler_timeout_begun(void **state)
{
    static const struct exchange_entry by_step = {.step = begun_step}, by_run = {.run = begun_run};
    (void)state;
    rig.service.handler_timeout_ms = 7000;
    rig_route(4, "/step", &by_step);
    rig_connect();
    rig_say(ASK);
    rig_expect(RIG_OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    expect_after(7000, "");
    assert_true(rig_is_closed());
    assert_string_equal(rig.events, "bc");
    rig_route(4, "/step", &by_run);
    rig_connect();
    rig_say(ASK);
    rig_expect(RIG_OK "Content-Length: 100\r\n\r\nabc");
    assert_true(rig_is_closed());
}

/* A handler that looks now and then, and does not wait. */
static int computing_run(struct exchange *x)
{
    for (int i = 0; i < 1000; i++) {
        rig.clock_us += 11000;
        if (exchange_cancelled(x)) {
            strcat(rig.events, "c");
            return MODUS_CANCELED;
        }
    }
    return exchange_reply(x, 200, NULL, STR("computed"));
}

static void reset_now(void)
{
    memory_pipe_reset(rig.pipe);
    conn_hang_up(&rig.conn, false);
}

static void computing(void **state)
{
    static const struct exchange_entry entry = {.run = computing_run, .blocking = true};
    (void)state;
    rig_route(4, "/step", &entry);
    rig_connect();
    rig_say(ASK);
    rig_expect(RIG_OK "Content-Length: 8\r\n\r\ncomputed");
    rig.service.handler_timeout_ms = 1000;
    rig_say(ASK);
    rig_expect(TIMEOUT);
    assert_string_equal(rig.events, "c");
    rig_disconnect();
}

static int timer_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    if (event == EXCHANGE_BEGUN) {
        exchange_timer(x, 50000);
        exchange_timer(x, 500); /* replaces it */
    }
    if (event == EXCHANGE_TIMER && strlen(rig.events) < 4) {
        exchange_timer(x, (int64_t)(strlen(rig.events) - 2)); /* also 0, and still later */
        return 0;
    }
    return event == EXCHANGE_TIMER ? exchange_reply(x, 200, NULL, STR("ok")) : 0;
}

static void timers(void **state)
{
    static const struct exchange_entry entry = {.step = timer_step};
    (void)state;
    rig_route(4, "/step", &entry);
    rig_connect();
    rig_say(ASK);
    assert_string_equal(rig.events, "b");
    expect_after(500, "");
    assert_string_equal(rig.events, "bt");
    expect_after(1, "");
    assert_string_equal(rig.events, "btt");
    expect_after(1, RIG_OK "Content-Length: 2\r\n\r\nok");
    assert_string_equal(rig.events, "bttt");
    assert_true(rig_is_idle());
}

static int endless_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    if (event == EXCHANGE_BEGUN) {
        exchange_endless(x);
        exchange_timer(x, 1000);
        return exchange_begin(x, 200, NULL, -1);
    }
    if (event == EXCHANGE_LEAVING)
        return exchange_end(x);
    exchange_timer(x, 1000);
    return exchange_try_write(x, "a", 1) == 1 ? 0 : -1;
}

#define ENDLESS RIG_OK "Transfer-Encoding: chunked\r\n\r\n"

/* It is told when it is to go, however that comes, and is no latency. */
static void endless(void **state)
{
    static const struct exchange_entry entry = {.step = endless_step};
    static const int phases[] = {SERVICE_LEAVING, SERVICE_DRAINING};
    (void)state;
    rig.service.handler_timeout_ms = 1500;
    rig_route(4, "/step", &entry);
    for (size_t i = 0; i < 2; i++) {
        rig.events[0] = '\0';
        rig_connect();
        rig_say(ASK);
        rig_expect(ENDLESS);
        rig_sleep(1000);
        rig_sleep(1000);
        rig_expect("1\r\na\r\n1\r\na\r\n");
        rig.phase = phases[i];
        rig_run();
        rig_expect("0\r\n\r\n");
        assert_string_equal(rig.events, "bttl");
        assert_true(rig_lingers());
        rig.phase = SERVICE_OPEN;
        rig_disconnect();
    }
    rig_connect();
    rig_say(ASK);
    conn_retire(&rig.conn);
    rig_run();
    rig_expect(ENDLESS "0\r\n\r\n");
    assert_true(rig_lingers());
    assert_int_equal(net_counted(&rig.stats.latency.count), 0);
}

/* A timer that comes at the same time as the handler's limit does not put the limit off. */
static int ticking_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    exchange_timer(x, 1000);
    return 0;
}

static void timer_and_limit(void **state)
{
    static const struct exchange_entry entry = {.step = ticking_step};
    (void)state;
    rig.service.handler_timeout_ms = 3000;
    rig_route(4, "/step", &entry);
    rig_connect();
    rig_say(ASK);
    rig_sleep(1000);
    rig_sleep(1000);
    rig_sleep(999);
    rig_expect("");
    rig_sleep(1);
    rig_expect(TIMEOUT);
    assert_true(strcmp(rig.events, "bttc") == 0 || strcmp(rig.events, "btttc") == 0);
}

/* --- hang-ups --------------------------------------------------------------------------------- */

static void hung_up(void **state)
{
    static const struct exchange_entry by_step = {.step = begun_step};
    (void)state;
    rig_route(4, "/step", &waiting_step_entry);
    rig_connect();
    rig_say(ASK);
    reset_now();
    rig_run();
    assert_true(rig_is_closed());
    assert_string_equal(rig.events, "bc");
    assert_int_equal(rig.stats.answers[0], 1);
    rig_route(4, "/step", &by_step);
    rig_connect();
    rig_say(ASK);
    reset_now();
    rig_run();
    assert_true(rig_is_closed());
    assert_string_equal(rig.events, "bcbc");
    rig_route(4, "/step", &sleeping_run_entry);
    rig.meanwhile = reset_now;
    rig_connect();
    int64_t before = rig_now();
    rig_say(ASK);
    assert_true(rig_is_closed());
    assert_int_equal(rig_now(), before);
    assert_string_equal(rig.events, "bcbcc");
    assert_int_equal(rig.stats.begun, 3);
    rig_connect(); /* and in a write that waits for room, and a read that waits for bytes */
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 1000);
    rig_say("GET /pieces?n=1000000&piece=1000 HTTP/1.1\r\nHost: x\r\n\r\n");
    reset_now();
    rig_run();
    assert_true(rig_is_closed());
}

/* A half-close is no hang-up. */
static void half_close(void **state)
{
    (void)state;
    rig_route(4, "/step", &sleeping_run_entry);
    rig_connect();
    rig_put("GET /step?ms=100 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_finish();
    rig_expect(RIG_OK "Content-Length: 5\r\n\r\nslept");
    assert_true(rig_is_closed());
}

/* Between the offer and the serving: the handler never runs. */
static void gone_before_served(void **state)
{
    (void)state;
    rig_route(4, "/step", &sleeping_run_entry);
    rig_connect();
    rig_put(ASK);
    assert_true(rig_step() & CONN_WANT_SERVE);
    assert_false(conn_is_served(&rig.conn));
    reset_now();
    for (int i = 0; i < 3; i++)
        assert_int_equal(rig_step(), 0); /* awaited, and not spun for */
    exchange_serve(conn_exchange(&rig.conn));
    assert_true(conn_is_served(&rig.conn));
    exchange_finish(conn_exchange(&rig.conn));
    rig_run();
    assert_true(rig_is_closed());
    assert_string_equal(rig.events, "");
}

/* With bytes of its answer kept, a served exchange whose peer is gone is waited for quietly. */
static void gone_with_kept_bytes(void **state)
{
    static const struct exchange_entry entry = {.run = begun_run};
    (void)state;
    rig_route(4, "/step", &entry);
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 20);
    rig_put(ASK);
    assert_true(rig_step() & CONN_WANT_SERVE);
    struct exchange *x = conn_exchange(&rig.conn);
    x->stage = EXCHANGE_SERVED; /* as if on another thread */
    assert_int_equal(exchange_begin(x, 200, NULL, 100), 0);
    assert_int_equal(exchange_write(x, "abc", 3), 0);
    assert_int_equal(rig_step(), CONN_WANT_WRITE);
    assert_true(rig.conn.out.len > 0);
    reset_now();
    for (int i = 0; i < 3; i++)
        assert_int_equal(rig_step(), 0);
    assert_true(exchange_cancelled(x));
    exchange_finish(x);
    rig_run();
    assert_true(rig_is_closed());
}

static int send_timeout_run(struct exchange *x)
{
    char bytes[1000] = "";
    int r = exchange_begin(x, 200, NULL, -1);
    while (r == 0)
        r = exchange_write(x, bytes, sizeof bytes);
    assert_int_equal(r, MODUS_CANCELED);
    strcat(rig.events, "c");
    return r;
}

static void send_timeout(void **state)
{
    static const struct exchange_entry entry = {.run = send_timeout_run};
    (void)state;
    rig_route(4, "/step", &entry);
    rig_connect();
    rig.unread = true;
    memory_pipe_limit(rig.pipe, 0, 1000);
    int64_t before = rig_now();
    rig_say(ASK);
    assert_true(rig_is_closed());
    assert_int_equal(rig_now(), before + 60000);
    assert_string_equal(rig.events, "c");
}

/* --- draining, retiring ----------------------------------------------------------------------- */

#define ENDED(text) (rig_expect(text), rig_disconnect())

static void draining(void **state)
{
    (void)state;
    rig_connect();
    rig_say(GET);
    rig_expect(RIG_HELLO);
    rig.phase = SERVICE_DRAINING;
    rig_run();
    rig_expect("");
    assert_true(rig_is_closed() || rig_lingers());
    rig_disconnect();
    rig.phase = SERVICE_OPEN;
    rig_connect(); /* a request that is there already is answered, the last one */
    rig_put(GET GET);
    rig.phase = SERVICE_DRAINING;
    rig_run();
    ENDED(RIG_HELLO_CLOSE);
    rig.phase = SERVICE_OPEN;
    rig_connect(); /* one that is half there too */
    rig_say("GET /te");
    rig.phase = SERVICE_DRAINING;
    rig_run();
    assert_true(rig.open);
    rig_say("xt HTTP/1.1\r\nHost: x\r\n\r\n");
    ENDED(RIG_HELLO_CLOSE);
}

/* Who is between two requests, with nothing on its way, is to go on elsewhere. */
static void moving(void **state)
{
    struct conn_carried carried;
    (void)state;
    rig_connect();
    rig_put(GET GET "GET /te");
    rig.phase = SERVICE_MOVING;
    assert_int_equal(conn_step(&rig.conn, rig.thread), CONN_WANT_MOVE); /* before it is begun */
    rig.phase = SERVICE_OPEN;
    rig_run();
    rig_expect(RIG_HELLO RIG_HELLO);
    rig.phase = SERVICE_MOVING; /* a request that has begun ends here */
    rig_run();
    rig_say("xt HTTP/1.1\r\nHost: x\r\n\r\nGET /t");
    rig_expect(RIG_HELLO);
    assert_int_equal(conn_step(&rig.conn, rig.thread), CONN_WANT_MOVE);
    conn_carry(&rig.conn, rig.thread, &carried);
    assert_int_equal(carried.requests, 3);
    assert_int_equal(carried.unread_len, 6);
    assert_memory_equal(carried.unread, "GET /t", 6);
    conn_stay(&rig.conn); /* it can't */
    rig_say("ext HTTP/1.1\r\nHost: x\r\n\r\n");
    ENDED(RIG_HELLO_CLOSE);
    rig.phase = SERVICE_OPEN;
}

/* What was read of the next request comes with it; what it has asked so far counts. */
static void resumed(void **state)
{
    struct conn_carried carried = {
        .requests = 7, .idle_ms = 400, .unread = "GET /te", .unread_len = 7};
    struct net_stats before = rig.stats;
    char answer[512];
    int ends[2];
    struct conn c;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    carried.fd = ends[0];
    assert_int_equal(conn_resume(&c, &rig.service, &carried, &rig_host, NULL, rig.thread), 0);
    assert_int_equal(conn_requests(&c), 7);
    assert_int_equal(conn_deadline(&c), rig_now() - 400 + rig.service.keepalive_timeout_ms);
    static const char rest[] = "xt HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_int_equal(write(ends[1], rest, sizeof rest - 1), sizeof rest - 1);
    conn_step(&c, rig.thread);
    ssize_t n = read(ends[1], answer, sizeof answer - 1);
    assert_true(n > 15);
    assert_memory_equal(answer, "HTTP/1.1 200 OK", 15);
    assert_int_equal(conn_requests(&c), 8);
    assert_int_equal(rig.stats.accepted, before.accepted);
    assert_int_equal(rig.stats.came, before.came + 1);
    conn_gone_elsewhere(&c, rig.thread);
    assert_int_equal(rig.stats.went, before.went + 1);
    assert_int_equal(rig.stats.closed, before.closed);
    assert_int_equal(read(ends[1], answer, 1), 0);
    close(ends[1]);
    rig.exchanges++; /* which it counts of its own connection */
}

/* Others will serve: who is idle is not cut off, but hears with the next answer that it is over. */
static void leaving(void **state)
{
    (void)state;
    rig_connect();
    rig_say(GET);
    rig_expect(RIG_HELLO);
    rig.phase = SERVICE_LEAVING;
    rig_run();
    rig_sleep(1000);
    assert_true(rig.open);
    rig_say(GET);
    ENDED(RIG_HELLO_CLOSE);
    rig_connect(); /* a new one that has said nothing yet as well */
    rig_sleep(500);
    assert_true(rig.open);
    rig.phase = SERVICE_DRAINING; /* and at last it ends */
    rig_sleep(1000);
    assert_true(rig_is_closed() || rig_lingers());
    rig_disconnect();
    rig.phase = SERVICE_OPEN;
}

static void retiring(void **state)
{
    (void)state;
    rig_connect();
    rig_say(GET);
    rig_expect(RIG_HELLO);
    conn_retire(&rig.conn);
    rig_run();
    rig_expect("");
    assert_true(rig_is_closed() || rig_lingers());
    rig_disconnect();
    rig_connect(); /* a last look finds a request: its answer says that it is the last */
    rig_put(GET);
    conn_retire(&rig.conn);
    rig_run();
    ENDED(RIG_HELLO_CLOSE);
    rig_route(4, "/step", &sleeping_run_entry);
    rig_connect(); /* in a request: after it */
    rig_put("GET /step?ms=10 HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_step();
    conn_retire(&rig.conn);
    exchange_serve(conn_exchange(&rig.conn));
    exchange_finish(conn_exchange(&rig.conn));
    rig_run();
    ENDED(RIG_OK "Content-Length: 5\r\nConnection: close\r\n\r\nslept");
}

/* --- rejecting -------------------------------------------------------------------------------- */

static void rejecting(void **state)
{
    (void)state;
    rig_route(4, "/step", &sleeping_run_entry);
    rig_connect(); /* offered, but nobody came */
    rig_put(ASK GET);
    assert_true(rig_step() & CONN_WANT_SERVE);
    conn_reject(&rig.conn);
    rig_run();
    rig_expect(BUSY);
    assert_true(rig_lingers());
    rig_disconnect();
    rig_connect(); /* not read yet */
    rig_put(GET GET);
    conn_reject(&rig.conn);
    rig_run();
    ENDED(BUSY);
    rig_connect(); /* with a body on its way */
    rig_put("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    conn_reject(&rig.conn);
    rig_run();
    ENDED(BUSY);
    rig_connect(); /* no request that waits: a later one is not meant */
    rig_say("GET /te");
    conn_reject(&rig.conn);
    rig_run();
    rig_say("xt HTTP/1.1\r\nHost: x\r\n\r\n");
    rig_expect(RIG_HELLO);
    rig_disconnect();
    assert_string_equal(rig.events, "");
}

/* --- lingering -------------------------------------------------------------------------------- */

#define LAST        "nonsense\r\n\r\n"
#define LAST_ANSWER ERROR("400 Bad Request", "16", "400 Bad Request")

static void lingering(void **state)
{
    static char junk[100000];
    (void)state;
    rig_connect();
    rig_say(LAST);
    rig_expect(LAST_ANSWER);
    assert_true(rig_lingers());
    assert_int_equal(rig.wants, CONN_WANT_READ);
    for (int i = 0; i < 5; i++) {
        rig_feed(junk, sizeof junk);
        assert_int_equal(memory_pipe_unread(rig.pipe), 0);
        rig_sleep(300);
    }
    assert_true(rig_lingers());
    rig_sleep(499);
    assert_true(rig_lingers());
    rig_sleep(1); /* two seconds in all */
    assert_true(rig_is_closed());
    rig_connect(); /* or until the peer ends */
    rig_say(LAST);
    rig_finish();
    assert_true(rig_is_closed());
    rig_connect(); /* or is gone */
    rig_say(LAST);
    reset_now();
    rig_run();
    assert_true(rig_is_closed());
    rig_connect(); /* or has sent too much */
    rig_say(LAST);
    for (int i = 0; i < 12 && rig.open; i++)
        rig_feed(junk, sizeof junk);
    assert_true(rig_is_closed());
    rig_connect();
    rig_say(LAST GET GET GET); /* nothing of it is answered */
    rig_expect(LAST_ANSWER);
}

/* --- aborting --------------------------------------------------------------------------------- */

static void aborting(void **state)
{
    static const char *const parts[] = {
        "",
        "GET /te",
        GET,
        ASK,
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        "POST /collect HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        LAST};
    (void)state;
    rig_route(4, "/step", &waiting_step_entry);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        rig_connect();
        rig_say(parts[i]);
        conn_abort(&rig.conn, rig.thread);
        assert_true(memory_pipe_is_shut(rig.pipe));
        rig.open = false;
        rig.exchanges += rig.conn.requests;
        conn_abort(&rig.conn, rig.thread); /* once is enough */
    }
    assert_string_equal(rig.events, "bc");
    struct conn none = {0};
    conn_abort(&none, rig.thread);
}

/* --- TCP -------------------------------------------------------------------------------------- */

static void tcp(const struct exchange_entry *entry)
{
    rig.service.route_count = 0;
    rig_route(0, "", entry);
    rig.service.duplex = true;
    rig_connect();
}

static void tcp_echo(void **state)
{
    char *bytes = malloc(300000);
    (void)state;
    tcp(&rig_echo_entry);
    rig_say("GET / HTTP/1.1\r\n\r\n"); /* bytes like others */
    rig_expect("GET / HTTP/1.1\r\n\r\n");
    rig_sleep(20000);
    for (size_t i = 0; i < 300000; i++)
        bytes[i] = rig_pattern(i);
    rig_feed(bytes, 300000);
    assert_int_equal(rig.got_len, 300000);
    assert_memory_equal(rig.got, bytes, 300000);
    rig_forget();
    rig_put("last");
    rig_finish();
    rig_expect("last");
    assert_true(rig_is_closed());
    free(bytes);
}

static void tcp_idle(void **state)
{
    (void)state;
    tcp(&rig_echo_entry);
    rig_say("a");
    rig_expect("a");
    expect_after(30000, "");
    assert_true(rig_is_closed());
    rig_connect(); /* from the first */
    expect_after(30000, "");
    assert_true(rig_is_closed());
}

/* Talks and never listens: it does not idle as long as its bytes go out. */
static int talking_step(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    if (event == EXCHANGE_CANCELLED)
        return 0;
    exchange_timer(x, 20000);
    if (event == EXCHANGE_BEGUN)
        return exchange_begin(x, 200, NULL, -1);
    if (exchange_body_ended(x))
        return exchange_end(x);
    return exchange_try_write(x, "tick", 4) == 4 ? 0 : -1;
}

static void tcp_one_way(void **state)
{
    static const struct exchange_entry entry = {
        .step = talking_step, .methods = EXCHANGE_DUPLEX, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    tcp(&entry);
    for (int i = 0; i < 10; i++) {
        rig_sleep(20000);
        rig_expect("tick");
    }
    rig_finish();
    rig_expect("");
    assert_true(rig_is_closed());
}

/* Ends while the peer does not: what comes after is not taken for HTTP. */
static int short_talk(struct exchange *x, enum exchange_event event)
{
    rig_saw(event);
    return event == EXCHANGE_BEGUN ? exchange_reply(x, 200, NULL, STR("bye")) : 0;
}

static int short_talk_run(struct exchange *x)
{
    return exchange_reply(x, 200, NULL, STR("bye"));
}

static void tcp_short(void **state)
{
    static const struct exchange_entry by_step = {.step = short_talk,
                                                  .methods = EXCHANGE_DUPLEX | EXCHANGE_GET};
    static const struct exchange_entry by_run = {.run = short_talk_run,
                                                 .methods = EXCHANGE_DUPLEX | EXCHANGE_GET};
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        tcp(kind ? &by_run : &by_step);
        rig_say("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        rig_expect("bye");
        assert_true(rig_lingers());
        rig_finish();
        assert_true(rig_is_closed());
    }
    assert_string_equal(rig.events, "b");
}

/* Whatever goes wrong, no line of HTTP is ever said on it. */
static int failing(struct exchange *x, enum exchange_event event)
{
    (void)x, (void)event;
    return -EINVAL;
}

static int failing_run(struct exchange *x)
{
    (void)x;
    return -EINVAL;
}

static void tcp_failures(void **state)
{
    static const struct exchange_entry by_step = {
        .step = failing, .methods = EXCHANGE_DUPLEX, .body = EXCHANGE_BODY_STREAM};
    static const struct exchange_entry by_run = {
        .run = failing_run, .methods = EXCHANGE_DUPLEX, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    rig.service.handler_timeout_ms = 1000;
    for (int kind = 0; kind < 5; kind++) {
        rig.service.route_count = 0;
        rig_route(0, "",
                  kind == 0   ? &by_step
                  : kind == 1 ? &by_run
                  : kind == 2 ? &waiting_step_entry
                  : kind == 3 ? &sleeping_run_entry
                              : &rig_echo_entry);
        rig.service.duplex = true;
        rig_connect();
        if (rig.open && kind == 4)
            conn_reject(&rig.conn);
        rig_sleep(1000);
        rig_expect("");
        assert_true(rig_is_closed());
    }
}

/* A run handler hears the peer's end. */
static int tcp_run(struct exchange *x)
{
    char bytes[100];
    ssize_t n;
    int r = exchange_begin(x, 200, NULL, -1);
    while (r == 0 && (n = exchange_read(x, bytes, sizeof bytes)) > 0) {
        r = exchange_write(x, bytes, (size_t)n);
        r = r ? r : exchange_flush(x);
    }
    return r ? r : exchange_write(x, "end", 3);
}

static int tcp_turn;

static void tcp_peer(void)
{
    if (tcp_turn++ < 3) {
        rig_put("ab");
    } else {
        memory_pipe_end(rig.pipe);
        conn_hang_up(&rig.conn, true);
    }
}

static void tcp_run_handler(void **state)
{
    static const struct exchange_entry entry = {
        .run = tcp_run, .methods = EXCHANGE_DUPLEX, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    tcp_turn = 0;
    rig.meanwhile = tcp_peer;
    tcp(&entry);
    rig_expect("abababend");
    assert_true(rig_is_closed());
}

/* The end is news: a handler on another thread would not look without it. */
static void tcp_end_is_told(void **state)
{
    static const struct exchange_entry entry = {
        .run = tcp_run, .methods = EXCHANGE_DUPLEX, .body = EXCHANGE_BODY_STREAM};
    (void)state;
    rig.service.route_count = 0;
    rig_route(0, "", &entry);
    rig.service.duplex = true;
    rig.connections++;
    rig.pipe = memory_pipe_new(&rig.under);
    struct transport t = {.ops = &rig_ops, .fd = -1};
    struct conn_peer peer = {.family = AF_UNIX};
    assert_int_equal(conn_open(&rig.conn, &rig.service, t, &peer, &rig_host, &rig, rig.thread), 0);
    rig.open = true;
    assert_true(rig_step() & CONN_WANT_SERVE);
    struct exchange *x = conn_exchange(&rig.conn);
    assert_true(str_is(exchange_peer(x), STR("unix:")));
    x->stage = EXCHANGE_SERVED;
    x->news_read = x->news;
    memory_pipe_end(rig.pipe);
    conn_hang_up(&rig.conn, true);
    rig_step();
    assert_true(exchange_has_news(x));
    assert_int_equal(exchange_begin(x, 200, NULL, -1), 0);
    x->ended = true;
    exchange_finish(x);
    rig_run();
    assert_true(rig_is_closed());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(first_request),
        TEST(heads),
        TEST(keepalive),
        TEST(looked_late),
        TEST(handler_timeout),
        TEST(handler_timeout_begun),
        TEST(computing),
        TEST(timers),
        TEST(endless),
        TEST(timer_and_limit),
        TEST(hung_up),
        TEST(half_close),
        TEST(gone_before_served),
        TEST(gone_with_kept_bytes),
        TEST(send_timeout),
        TEST(draining),
        TEST(leaving),
        TEST(moving),
        TEST(resumed),
        TEST(retiring),
        TEST(rejecting),
        TEST(lingering),
        TEST(aborting),
        TEST(tcp_echo),
        TEST(tcp_idle),
        TEST(tcp_one_way),
        TEST(tcp_short),
        TEST(tcp_failures),
        TEST(tcp_run_handler),
        TEST(tcp_end_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
