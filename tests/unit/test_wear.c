/* SPDX-License-Identifier: MIT */
/* When a worker is worn: limits, how they are spread, and memory as the kernel tells it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/wear.h"

enum { WORKERS = 1000 };

static int64_t requests_of(int64_t requests, unsigned nth)
{
    struct wear limits = {.requests = requests};
    return wear_limits(&limits, nth).requests;
}

static void limits_are_around_what_the_file_says(void **state)
{
    struct wear limits = {10000, 1 << 30, 3600000};
    double sum = 0;
    (void)state;
    for (unsigned nth = 0; nth < WORKERS; nth++) {
        struct wear own = wear_limits(&limits, nth);
        assert_in_range(own.requests, 8500, 11500);
        assert_in_range(own.age_ms, 3600000 * 0.85, 3600000 * 1.15);
        assert_in_range(own.memory_bytes, (1 << 30) * 0.9, 1 << 30);
        sum += (double)own.requests;
    }
    assert_in_range((int64_t)(sum / WORKERS), 9900, 10100);
}

/* Whichever eight begin together: a range of 30 % has room for gaps of 4 % between eight; those of
 * the golden ratio are at least 2.7 %. */
static void neighbours_are_far_apart(void **state)
{
    (void)state;
    for (unsigned first = 0; first < WORKERS; first++)
        for (unsigned a = first; a < first + 8; a++)
            for (unsigned b = a + 1; b < first + 8; b++)
                assert_true(llabs(requests_of(1000000, a) - requests_of(1000000, b)) >= 27000);
}

static void none_stays_none_and_the_smallest_a_limit(void **state)
{
    struct wear none = {0}, much = {INT32_MAX, INT64_C(1) << 50, INT64_C(1) << 40};
    (void)state;
    for (unsigned nth = 0; nth < WORKERS; nth++) {
        struct wear own = wear_limits(&none, nth);
        assert_true(own.requests == 0 && own.memory_bytes == 0 && own.age_ms == 0);
        assert_in_range(requests_of(1, nth), 1, 1);
        own = wear_limits(&much, nth);
        assert_true(own.memory_bytes <= much.memory_bytes);
        assert_true(own.memory_bytes >= much.memory_bytes / 10 * 9);
    }
    assert_in_range(requests_of(100, UINT32_MAX), 85, 115);
}

static void what_is_reached(void **state)
{
    struct wear limits = {100, 1000, 10000}, none = {0};
    (void)state;
    assert_int_equal(wear_reached(&(struct wear){99, 999, 9999}, &limits), WEAR_NONE);
    assert_int_equal(wear_reached(&(struct wear){100, 0, 0}, &limits), WEAR_REQUESTS);
    assert_int_equal(wear_reached(&(struct wear){0, 1000, 0}, &limits), WEAR_MEMORY);
    assert_int_equal(wear_reached(&(struct wear){0, 0, 10000}, &limits), WEAR_AGE);
    assert_int_equal(wear_reached(&(struct wear){0, -1, 0}, &limits), WEAR_NONE);
    assert_int_equal(wear_reached(&(struct wear){1 << 30, 1 << 30, 1 << 30}, &none), WEAR_NONE);
}

static void keys(void **state)
{
    (void)state;
    assert_string_equal(wear_key(WEAR_REQUESTS), "worker_requests");
    assert_string_equal(wear_key(WEAR_MEMORY), "worker_memory");
    assert_string_equal(wear_key(WEAR_AGE), "worker_age");
}

static void memory_is_what_was_written_to(void **state)
{
    enum { BYTES = 64 << 20 };
    (void)state;
    int64_t before = wear_memory(getpid());
    char *block = malloc(BYTES);
    assert_non_null(block);
    assert_true(wear_memory(getpid()) < before + BYTES / 2);
    memset(block, 1, BYTES);
    __asm__ volatile("" : : "r"(block) : "memory");
    assert_true(wear_memory(getpid()) >= before + BYTES / 4 * 3);
    free(block);
}

static void memory_of_nobody(void **state)
{
    (void)state;
    assert_int_equal(wear_memory(INT32_MAX), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_around_what_the_file_says),
        cmocka_unit_test(neighbours_are_far_apart),
        cmocka_unit_test(none_stays_none_and_the_smallest_a_limit),
        cmocka_unit_test(what_is_reached),
        cmocka_unit_test(keys),
        cmocka_unit_test(memory_is_what_was_written_to),
        cmocka_unit_test(memory_of_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
