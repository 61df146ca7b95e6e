/* SPDX-License-Identifier: MIT */
/* Memory that is out: over some exchanges of every kind, each allocation of net/ fails once, in
 * turn. Each time the connection answers with an error or just ends, the counters balance, and
 * under ASan nothing is left behind. The files are included, so that only their calls are replaced.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static int until_failure = -1; /* allocations that still work; -1: all do */
static bool one_failed;

static bool fails(void)
{
    if (until_failure < 0 || until_failure-- > 0)
        return false;
    until_failure = -1;
    one_failed = true;
    return true;
}

static void *malloc_or_not(size_t size)
{
    return fails() ? NULL : malloc(size);
}

static void *aligned_or_not(size_t alignment, size_t size)
{
    return fails() ? NULL : aligned_alloc(alignment, size);
}

static void *realloc_or_not(void *at, size_t size)
{
    return fails() ? NULL : realloc(at, size);
}

#define malloc        malloc_or_not
#define aligned_alloc aligned_or_not
#define realloc       realloc_or_not
#include "net/conn.c"
#include "net/conn_input.c"
#include "net/conn_output.c"
#include "net/exchange.c"
#include "net/thread.c"
#undef malloc
#undef aligned_alloc
#undef realloc

#include "tests/unit/test_net_rig.h"

#define HOST "Host: x\r\n"

static int alloc_run(struct exchange *x)
{
    char *a = exchange_alloc(x, 5000), *b = exchange_state(x, 5000);
    if (!a || !b || exchange_defer(x, free, malloc(10)) != 0)
        return -ENOMEM;
    int r = exchange_add(x, "X-Large", (struct str){memset(a, 'a', 1000), 1000});
    r = r ? r : exchange_begin(x, 200, "text/plain", -1);
    for (int i = 0; r == 0 && i < 30; i++)
        r = exchange_write(x, memset(a, 'w', 5000), 5000);
    return r;
}

static int stream_run(struct exchange *x)
{
    char bytes[3000];
    ssize_t n;
    int r = exchange_begin(x, 200, NULL, -1);
    while (r == 0 && (n = exchange_read(x, bytes, sizeof bytes)) != 0)
        r = n < 0 ? (int)n : exchange_write(x, bytes, (size_t)n);
    return r;
}

static int reply_step(struct exchange *x, enum exchange_event event)
{
    static char bytes[3000];
    return event == EXCHANGE_BEGUN
               ? exchange_reply(x, 200, NULL,
                                (struct str){memset(bytes, 'b', sizeof bytes), sizeof bytes})
               : 0;
}

static const struct exchange_entry alloc_entry = {.run = alloc_run};
static const struct exchange_entry stream_entry = {
    .run = stream_run, .methods = EXCHANGE_POST, .body = EXCHANGE_BODY_STREAM};
static const struct exchange_entry reply_entry = {.step = reply_step};

struct script {
    const char *head;
    size_t body;
    int way;
    size_t room; /* of a slow peer; 0 takes all */
};

static void take_a_little(void)
{
    if (rig.later_len)
        rig_say_piece();
    rig_take(3000);
}

static void play(const struct script *s)
{
    char *text = malloc(strlen(s->head) + s->body + 1);
    strcpy(text, s->head);
    memset(text + strlen(s->head), 'x', s->body);
    rig_connect();
    rig.unread = s->room != 0;
    memory_pipe_limit(rig.pipe, 0, s->room);
    rig_feed_way(text, strlen(s->head) + s->body, s->way);
    for (int i = 0; rig.open && !rig_is_idle() && i < 1000; i++) {
        rig_take(s->room ? s->room : SIZE_MAX);
        rig_run();
    }
    free(text);
}

/* With the n-th allocation failing, until the script needs fewer than n. */
static void each_fails(const struct script *s)
{
    for (int n = 0;; n++) {
        rig_start();
        rig_routes();
        rig_route(4, "/alloc", &alloc_entry);
        rig_route(5, "/stream", &stream_entry);
        rig_route(6, "/reply", &reply_entry);
        rig.meanwhile = take_a_little;
        one_failed = false;
        until_failure = n;
        play(s);
        until_failure = -1;
        bool was = one_failed;
        rig_end();
        if (!was)
            break;
        assert_true(n < 10000);
    }
    rig_start(); /* and once more, with nothing failing: all is well again */
    rig_routes();
    rig_connect();
    rig_say("GET /text HTTP/1.1\r\n" HOST "\r\n");
    rig_expect(RIG_HELLO);
    rig_end();
}

#define SCRIPT(name, ...)                                                                          \
    static void name(void **state)                                                                 \
    {                                                                                              \
        const struct script s = {__VA_ARGS__};                                                     \
        (void)state;                                                                               \
        each_fails(&s);                                                                            \
    }

SCRIPT(simple, "GET /text HTTP/1.1\r\n" HOST "\r\n", 0, RIG_WHOLE, 0)
SCRIPT(bytewise, "GET /text HTTP/1.1\r\n" HOST "\r\n", 0, RIG_BYTEWISE, 0)
SCRIPT(pipelined,
       "GET /text HTTP/1.1\r\n" HOST "\r\nGET /none HTTP/1.1\r\n" HOST
       "\r\nGET /pieces?n=10000&piece=4000 HTTP/1.1\r\n" HOST "\r\n",
       0, RIG_RANDOM, 100)
SCRIPT(bad, "nonsense\r\n\r\n", 0, RIG_WHOLE, 20)
SCRIPT(large_head, "GET /text HTTP/1.1\r\n" HOST "X: ", 4000, RIG_WHOLE, 0)
SCRIPT(collected, "POST /collect HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n", 100000,
       RIG_WHOLE, 0)
SCRIPT(echoed, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n", 100000, RIG_WHOLE,
       3000)
SCRIPT(expected,
       "POST /collect HTTP/1.1\r\n" HOST "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n", 100,
       RIG_BYTEWISE, 0)
SCRIPT(pieces, "GET /pieces?n=80000&piece=4000 HTTP/1.1\r\n" HOST "\r\n", 0, RIG_WHOLE, 3000)
SCRIPT(allocating, "GET /alloc HTTP/1.1\r\n" HOST "\r\n", 0, RIG_WHOLE, 10000)
SCRIPT(streaming, "POST /stream HTTP/1.1\r\n" HOST "Content-Length: 80000\r\n\r\n", 80000,
       RIG_WHOLE, 10000)
SCRIPT(replying, "GET /reply HTTP/1.1\r\n" HOST "\r\nGET /reply HTTP/1.1\r\n" HOST "\r\n", 0,
       RIG_WHOLE, 500)
SCRIPT(options,
       "OPTIONS * HTTP/1.1\r\n" HOST "\r\nPOST /text HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\n",
       3, RIG_WHOLE, 50)

static void threads(void **state)
{
    struct net_stats *stats = calloc(1, sizeof *stats);
    struct net_thread *t = NULL;
    (void)state;
    for (int n = 0; !t; n++) {
        until_failure = n;
        t = net_thread_new(10000, stats);
        assert_true(n < 10);
    }
    until_failure = -1;
    net_thread_free(t);
    net_thread_free(NULL);
    free(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simple),     cmocka_unit_test(bytewise),   cmocka_unit_test(pipelined),
        cmocka_unit_test(bad),        cmocka_unit_test(large_head), cmocka_unit_test(collected),
        cmocka_unit_test(echoed),     cmocka_unit_test(expected),   cmocka_unit_test(pieces),
        cmocka_unit_test(allocating), cmocka_unit_test(streaming),  cmocka_unit_test(replying),
        cmocka_unit_test(options),    cmocka_unit_test(threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
