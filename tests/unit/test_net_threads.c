/* SPDX-License-Identifier: MIT */
/* A run handler on a thread of its own while its connection goes on being stepped, as in
 * event-loop: bytes both ways under back-pressure, cancelling, ends and resets at any moment. What
 * must hold: no wake-up is lost (a test that hangs is ended by its alarm), bytes stay in order, and
 * the thread sanitizer sees no race. ROUNDS in the environment makes it longer. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/test_net_rig.h"

/* --- the helper thread ------------------------------------------------------------------------ */

static struct modus_event jobs, bell;
static struct exchange *_Atomic job;
static atomic_bool kicked, done, stop;
static atomic_bool waiting; /* the handler is about to wait, or does */
static bool wake_to_end;    /* whoever wakes the handler goes on only when it has returned */
static pthread_t helper_thread;

static void *helper(void *arg)
{
    (void)arg;
    for (;;) {
        modus_event_wait(&jobs, MODUS_FOREVER);
        modus_event_clear(&jobs);
        if (atomic_load(&stop))
            return NULL;
        struct exchange *x = atomic_exchange(&job, NULL);
        if (!x)
            continue;
        exchange_serve(x);
        atomic_store(&done, true);
        modus_event_set(&bell);
    }
}

static void nothing_to_do(void)
{
    modus_event_wait(&bell, 1000000);
    modus_event_clear(&bell);
}

static void host_wait(void *host, struct exchange *x, int64_t deadline_ms)
{
    (void)host;
    struct modus_event *event = exchange_event(x);
    modus_event_clear(event);
    if (exchange_has_news(x))
        return;
    atomic_store(&waiting, true);
    modus_event_set(&bell);
    if (deadline_ms == INT64_MAX)
        modus_event_wait(event, MODUS_FOREVER);
    else
        modus_event_wait(event, 1000000); /* the test's clock is turned by hand: look again */
}

static void host_wake(void *host, struct exchange *x)
{
    (void)host;
    modus_event_set(exchange_event(x));
    while (wake_to_end && !atomic_load(&done))
        nothing_to_do();
}

static void host_kick(void *host, struct exchange *x)
{
    (void)host, (void)x;
    atomic_store(&kicked, true);
    modus_event_set(&bell);
}

static const struct conn_host host = {host_wait, host_kick, host_wake};

/* --- the loop --------------------------------------------------------------------------------- */

static void connect_threaded(void)
{
    static const struct conn_peer peer = {.address = {192, 0, 2, 7}, .family = AF_INET};
    struct transport t = {.ops = &rig_ops, .fd = -1};
    memory_pipe_free(rig.pipe);
    rig.pipe = memory_pipe_new(&rig.under);
    rig.got_len = 0;
    rig.unread = true;
    rig.said_end = false;
    assert_int_equal(conn_open(&rig.conn, &rig.service, t, &peer, &host, &rig, rig.thread), 0);
    rig.open = true;
    rig.connections++;
}

/* One turn of the loop: step if there is a reason to. Returns whether there was one. */
static bool turn(bool changed)
{
    bool was_done = atomic_exchange(&done, false), was_kicked = atomic_exchange(&kicked, false);
    bool due = rig_now() >= conn_deadline(&rig.conn);
    if (was_done)
        exchange_finish(conn_exchange(&rig.conn));
    if (!changed && !was_done && !was_kicked && !due && !(rig.wants & CONN_WANT_AGAIN))
        return false;
    if (rig_step() & CONN_WANT_SERVE) {
        atomic_store(&job, conn_exchange(&rig.conn));
        modus_event_set(&jobs);
    }
    return true;
}

/* --- handlers: no assert of cmocka's on this thread ------------------------------------------- */

static void must(bool holds)
{
    if (!holds)
        abort();
}

static int echo_run(struct exchange *x)
{
    char bytes[5000];
    ssize_t n = 0;
    int r = exchange_begin(x, 200, NULL, -1);
    for (unsigned i = 1; r == 0 && (n = exchange_read(x, bytes, 1 + i * 37 % sizeof bytes)) > 0;
         i++) {
        r = exchange_write(x, bytes, (size_t)n);
        if (r == 0 && i % 50 == 0)
            r = exchange_sleep(x, 1);
        if (r == 0 && i % 20 == 0)
            r = exchange_flush(x);
    }
    must(r == 0 ? n <= 0 : r == MODUS_CANCELED);
    must(n >= 0 || n == MODUS_CANCELED);
    return n < 0 ? (int)n : r;
}

static int file = -1;

static int short_file_run(struct exchange *x)
{
    char bytes[3000] = "";
    int r = exchange_begin(x, 200, NULL, -1);
    r = r ? r : exchange_send_file(x, file, 0, 100000);
    for (int i = 0; r == 0 && i < 200; i++)
        r = exchange_write(x, bytes, sizeof bytes);
    must(r == MODUS_CANCELED);
    return r;
}

static int looking_run(struct exchange *x)
{
    while (!exchange_cancelled(x))
        exchange_sleep(x, 1);
    return MODUS_CANCELED;
}

static int reads_run(struct exchange *x)
{
    char bytes[100];
    ssize_t n;
    while ((n = exchange_read(x, bytes, sizeof bytes)) > 0)
        continue;
    return n < 0 ? (int)n : exchange_reply(x, 200, NULL, STR("read"));
}

static const struct exchange_entry reads_entry = {
    .run = reads_run, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
static const struct exchange_entry echo_entry = {
    .run = echo_run, .methods = EXCHANGE_POST | EXCHANGE_DUPLEX, .body = EXCHANGE_BODY_STREAM};
static const struct exchange_entry short_file_entry = {.run = short_file_run};
static const struct exchange_entry looking_entry = {.run = looking_run};

/* --- tests ------------------------------------------------------------------------------------ */

static unsigned rounds(unsigned usual)
{
    const char *text = getenv("ROUNDS");
    return text ? (unsigned)atoi(text) : usual;
}

static int begin(void **state)
{
    (void)state;
    alarm(60);
    rig_start();
    rig_route(0, "/looking", &looking_entry);
    rig_route(1, "/file", &short_file_entry);
    rig_route(2, "/echo", &echo_entry);
    rig_route(3, "/reads", &reads_entry);
    modus_event_init(&jobs, MODUS_THREAD);
    modus_event_init(&bell, MODUS_THREAD);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&helper_thread, NULL, helper, NULL), 0);
    return 0;
}

static int end(void **state)
{
    (void)state;
    atomic_store(&stop, true);
    modus_event_set(&jobs);
    pthread_join(helper_thread, NULL);
    modus_event_fini(&jobs);
    modus_event_fini(&bell);
    rig_end();
    alarm(0);
    return 0;
}

/* Until the connection has ended; every so often the peer takes some, and time passes. */
static void drive_to_end(void)
{
    while (rig.open) {
        size_t before = rig.got_len;
        rig_take(10000);
        if (!turn(rig.got_len != before)) {
            nothing_to_do();
            rig.clock_us += 1000;
        }
    }
}

/* What is sent comes back, whatever the cuts and the windows. */
static void echoes(void **state)
{
    enum { SIZE = 300000 };
    char *bytes = malloc(SIZE);
    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = rig_pattern(i);
    rig.service.routes = &rig.routes[2];
    rig.service.route_count = 1;
    rig.service.duplex = true;
    for (unsigned round = 0; round < rounds(10); round++) {
        size_t fed = 0;
        bool ended = false;
        connect_threaded();
        memory_pipe_limit(rig.pipe, rig_dice(2) ? 1 + rig_dice(9000) : 0, 1 + rig_dice(20000));
        turn(true);
        while (rig.open) {
            size_t before = rig.got_len;
            bool changed = false;
            if (rig_dice(3) == 0)
                rig_take(1 + rig_dice(30000));
            changed |= rig.got_len != before;
            if (fed < SIZE && memory_pipe_unread(rig.pipe) < 100000 && rig_dice(3) == 0) {
                size_t n = 1 + rig_dice(20000);
                n = n < SIZE - fed ? n : SIZE - fed;
                memory_pipe_feed(rig.pipe, bytes + fed, n);
                fed += n;
                changed = true;
            } else if (fed == SIZE && !ended) {
                memory_pipe_end(rig.pipe);
                conn_hang_up(&rig.conn, true);
                changed = ended = true;
            }
            if (!turn(changed) && rig_dice(10) == 0)
                nothing_to_do();
            rig.clock_us += rig_dice(300);
        }
        rig_take(SIZE_MAX);
        assert_int_equal(rig.got_len, SIZE);
        assert_memory_equal(rig.got, bytes, SIZE);
    }
    free(bytes);
}

/* The peer is gone at a random moment: the handler hears of it and the connection ends. */
static void resets(void **state)
{
    static char bytes[20000];
    (void)state;
    rig.service.max_body_size = 1 << 30;
    for (unsigned round = 0; round < rounds(200); round++) {
        connect_threaded();
        memory_pipe_limit(rig.pipe, 0, 1 + rig_dice(20000));
        rig_put("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
        turn(true);
        for (uint32_t i = rig_dice(20); i && rig.open; i--) {
            memory_pipe_feed(rig.pipe, bytes, rig_dice(sizeof bytes));
            rig_take(rig_dice(20000));
            turn(true);
            rig.clock_us += 1000;
        }
        memory_pipe_reset(rig.pipe);
        conn_hang_up(&rig.conn, false);
        if (rig.open)
            turn(true);
        drive_to_end();
    }
}

/* Its time is up, its body is wrong, its file is short: it is told in whatever call it waits. */
static void cancels(void **state)
{
    static const char *const says[] = {
        "GET /looking HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /file HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    };
    (void)state;
    rig.service.handler_timeout_ms = 50;
    file = memfd_create("short", MFD_CLOEXEC);
    assert_int_equal(write(file, says, 32), 32);
    for (unsigned round = 0; round < rounds(40); round++) {
        connect_threaded();
        rig_put(says[round % 4]);
        turn(true);
        if (round % 8 == 3)
            memory_pipe_end(rig.pipe), conn_hang_up(&rig.conn, true), turn(true);
        while (rig.open && !rig_lingers()) {
            size_t before = rig.got_len;
            rig_take(10000);
            if (!turn(rig.got_len != before)) {
                nothing_to_do();
                rig.clock_us += 1000;
            }
        }
        if (rig.open) {
            memory_pipe_end(rig.pipe);
            conn_hang_up(&rig.conn, true);
            turn(true);
        }
        assert_false(rig.open);
    }
    close(file);
}

/* The handler hears that its body was cut before the connection has cancelled it: the answer is the
 * same, and nobody complains of a handler that does as it should. */
static void hears_first(void **state)
{
    (void)state;
    atomic_store(&waiting, false);
    connect_threaded();
    rig_put("POST /reads HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    turn(true);
    while (!atomic_load(&waiting))
        nothing_to_do();
    memory_pipe_end(rig.pipe);
    conn_hang_up(&rig.conn, true);
    wake_to_end = true;
    turn(true);
    wake_to_end = false;
    drive_to_end();
    assert_memory_equal(rig.got, "HTTP/1.1 400 ", 13);
    assert_string_equal(rig.complaint, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(echoes), TEST(resets), TEST(cancels),
                                       TEST(hears_first)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
