/* SPDX-License-Identifier: MIT */
/* Who holds a thread that has others to serve too: told with the right route and time, and nobody else
 * is accused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/gil.h"
#include "tests/unit/test_net_rig.h"

#define ASK(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

static char told[200];
static unsigned reads;

static void on_held(void *arg, const struct route *route, int64_t us)
{
    size_t len = strlen(told);
    assert_ptr_equal(arg, &rig);
    snprintf(told + len, sizeof told - len, "%.*s %lld;", (int)route->prefix.len, route->prefix.at,
             (long long)us / 1000);
}

static int64_t counted_clock(void)
{
    reads++;
    return rig.clock_us;
}

/* Takes as long as its query says, and answers at once. */
static int slow_step(struct exchange *x, enum exchange_event event)
{
    rig.clock_us += (int64_t)rig_number(x, "ms", 0) * 1000;
    return event == EXCHANGE_BEGUN ? exchange_reply_static(x, 200, "text/plain", STR("hello\n"))
                                   : 0;
}

/* The same, and answers when its time has come. */
static int later_step(struct exchange *x, enum exchange_event event)
{
    rig.clock_us += (int64_t)rig_number(x, "ms", 0) * 1000;
    if (event != EXCHANGE_BEGUN)
        return exchange_reply_static(x, 200, "text/plain", STR("hello\n"));
    exchange_timer(x, 1000);
    return 0;
}

static const struct exchange_entry slow = {.step = slow_step}, later = {.step = later_step};

static int start(void **state)
{
    (void)state;
    rig_start();
    rig_route(0, "/slow", &slow);
    rig_route(1, "/other", &slow);
    rig_route(2, "/later", &later);
    rig_connect();
    rig.thread->held = on_held;
    rig.thread->held_arg = &rig;
    rig.thread->held_us = 50000;
    told[0] = '\0';
    return 0;
}

static int end(void **state)
{
    (void)state;
    rig_end();
    return 0;
}

static void at_the_limit(void **state)
{
    (void)state;
    rig_say(ASK("/slow?ms=49"));
    assert_string_equal(told, "");
    rig_say(ASK("/slow?ms=50"));
    assert_string_equal(told, "/slow 50;");
}

static void not_answered_at_once(void **state)
{
    (void)state;
    rig_say(ASK("/later?ms=70"));
    assert_string_equal(told, "/later 70;");
    rig_sleep(1000);
    assert_string_equal(told,
                        "/later 70;/later 70;"); /* the timer's call, and not the time between */
}

/* A connection that asks for several at once. */
static void several_in_a_step(void **state)
{
    (void)state;
    rig_say(ASK("/slow?ms=1") ASK("/other?ms=60") ASK("/slow?ms=2"));
    assert_string_equal(told, "/other 60;");
    told[0] = '\0';
    rig_say(ASK("/slow?ms=30") ASK("/slow?ms=30")); /* nobody was served in between */
    assert_string_equal(told, "/slow 60;");
}

/* What a driver does between two steps is not the next handler's. */
static void time_between(void **state)
{
    (void)state;
    rig_say(ASK("/slow"));
    rig.thread->mark_us = 0;
    rig.clock_us += 100000;
    rig_say(ASK("/other?ms=10"));
    assert_string_equal(told, "");
}

static void wait_for_the_interpreter_lock(void **state)
{
    static struct net_gil_counts counts;
    static struct net_gil gil = {.counts = &counts};
    (void)state;
    modus_gil_init(&gil.lock);
    rig.service.gil = &gil;
    rig_say(ASK("/slow?ms=70"));
    rig_say(ASK("/slow?ms=1") ASK("/slow?ms=2"));
    assert_string_equal(told, "/slow 70;");
}

/* The price: no reading of the clock that is not there without. */
static void clock_is_read_no_more_often(void **state)
{
    unsigned with, without;
    (void)state;
    rig.thread->clock_us = counted_clock;
    reads = 0;
    rig_say(ASK("/slow"));
    with = reads;
    rig.thread->held = NULL;
    reads = 0;
    rig_say(ASK("/slow"));
    without = reads;
    assert_int_equal(with, without);
}

static void nobody_wants_to_know(void **state)
{
    (void)state;
    rig.thread->held = NULL;
    rig_say(ASK("/slow?ms=500"));
    assert_string_equal(told, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(at_the_limit, start, end),
        cmocka_unit_test_setup_teardown(not_answered_at_once, start, end),
        cmocka_unit_test_setup_teardown(several_in_a_step, start, end),
        cmocka_unit_test_setup_teardown(time_between, start, end),
        cmocka_unit_test_setup_teardown(wait_for_the_interpreter_lock, start, end),
        cmocka_unit_test_setup_teardown(clock_is_read_no_more_often, start, end),
        cmocka_unit_test_setup_teardown(nobody_wants_to_know, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
