/* SPDX-License-Identifier: MIT */
/* Advice on listeners of all kinds: server/lab/advise.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/lab/advise.h"

/* A listener that has nothing to complain of. */
static struct advise_facts fine(const char *model)
{
    return (struct advise_facts){.listener = "main",
                                 .model = model,
                                 .seconds = 10,
                                 .requests = 10000,
                                 .accepted = 10,
                                 .latency_us = 100,
                                 .cpu_us = 20,
                                 .busy = 1,
                                 .places = 8,
                                 .gil_share = -1,
                                 .open = 10,
                                 .cpus = 2};
}

static struct advice about(struct advise_facts facts)
{
    struct advice advice;
    advise(&facts, &advice);
    return advice;
}

static void assert_says(const struct advice *advice, const char *what)
{
    if (!strstr(advice->text, what))
        fail_msg("\"%s\" is not in: %s", what, advice->text);
}

static void test_it_suits(void **state)
{
    static const char *const models[] = {"process",    "prefork",   "thread-pool", "hybrid",
                                         "event-loop", "coroutine", NULL};
    (void)state;
    for (size_t i = 0; models[i]; i++) {
        struct advice a = about(fine(models[i]));
        assert_null(a.model);
        assert_false(a.gil_off);
        assert_says(&a, "suits");
        assert_says(&a, "answered 1000 requests a second");
    }
}

static void test_too_few_to_say(void **state)
{
    struct advise_facts f = fine("prefork");
    (void)state;
    f.requests = 3;
    f.busy = f.places;
    struct advice a = about(f);
    assert_null(a.model);
    assert_says(&a, "too few to say anything");
}

static void test_prefork_that_waits(void **state)
{
    struct advise_facts f = fine("prefork");
    (void)state;
    f.requests = 1600;
    f.latency_us = 50000;
    f.busy = 8;
    struct advice a = about(f);
    assert_string_equal(a.model, "coroutine");
    assert_says(&a, "8.0 were in progress on average, and 8.0 of 8 places at work");
    assert_says(&a, "100 % of their time no CPU works for them");
}

static void test_pool_whose_queue_waits(void **state)
{
    struct advise_facts f = fine("thread-pool");
    (void)state;
    f.latency_us = 100000;
    f.queued_us = 50000;
    f.busy = 60;
    f.places = 64;
    struct advice a = about(f);
    assert_string_equal(a.model, "coroutine");
    assert_says(&a, "they waited 50.00 ms for one");
}

/* There is room: nothing is gained. */
static void test_pool_that_waits_with_room(void **state)
{
    struct advise_facts f = fine("thread-pool");
    (void)state;
    f.latency_us = 50000;
    f.busy = 50;
    f.places = 64;
    struct advice a = about(f);
    assert_null(a.model);
    assert_says(&a, "there is room for them: thread-pool suits");
}

/* Threads that wait for a CPU do not wait for anything that a coroutine could wait for. */
static void test_too_few_cpus_is_no_waiting(void **state)
{
    struct advise_facts f = fine("thread-pool");
    (void)state;
    f.requests = 20000;
    f.latency_us = 30000;
    f.cpu_us = 990;
    f.delay_us = 28000;
    f.busy = f.places = 64;
    struct advice a = about(f);
    assert_null(a.model);
    assert_says(&a, "Its CPUs are busy");
}

static void test_lock(void **state)
{
    struct advise_facts f = fine("thread-pool");
    (void)state;
    f.latency_us = 30000;
    f.cpu_us = 1000;
    f.gil_share = 0.99;
    f.busy = f.places = 64;
    struct advice a = about(f);
    assert_null(a.model);
    assert_true(a.gil_off);
    assert_says(&a, "held 99 % of the time");
}

static void test_blocked_loop(void **state)
{
    struct advise_facts f = fine("event-loop");
    (void)state;
    f.blocked = 12;
    struct advice a = about(f);
    assert_string_equal(a.model, "thread-pool");
    assert_says(&a, "held its loop 12 times");
}

static void test_forks(void **state)
{
    struct advise_facts f = fine("process");
    (void)state;
    f.accepted = f.requests;
    f.cpu_us = 250;
    struct advice a = about(f);
    assert_string_equal(a.model, "prefork");
    assert_says(&a, "1.00 processes a request");
    f.cpu_us = -1;
    a = about(f);
    assert_null(strstr(a.text, "-1"));
    assert_null(strstr(a.text, "on a CPU"));
}

/* Whether they wait can't be known, so neither can that it suits. */
static void test_full_and_costs_unknown(void **state)
{
    struct advise_facts f = fine("prefork");
    (void)state;
    f.latency_us = 50000;
    f.cpu_us = -1;
    f.busy = f.places;
    struct advice a = about(f);
    assert_null(a.model);
    assert_null(strstr(a.text, "suits"));
    assert_says(&a, "watch again");
    f.busy = 1; /* there is room, whatever they cost */
    a = about(f);
    assert_says(&a, "Nothing waits for want of a place: prefork suits");
}

static void test_idle_processes(void **state)
{
    struct advise_facts f = fine("process");
    (void)state;
    f.requests = 0;
    f.latency_us = 0;
    f.cpu_us = -1;
    f.open = f.idle = 5000;
    struct advice a = about(f);
    assert_string_equal(a.model, "event-loop");
    assert_says(&a, "5000 connections are idle");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_suits),
        cmocka_unit_test(test_too_few_to_say),
        cmocka_unit_test(test_prefork_that_waits),
        cmocka_unit_test(test_pool_whose_queue_waits),
        cmocka_unit_test(test_pool_that_waits_with_room),
        cmocka_unit_test(test_too_few_cpus_is_no_waiting),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_blocked_loop),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_full_and_costs_unknown),
        cmocka_unit_test(test_idle_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
