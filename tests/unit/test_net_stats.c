/* SPDX-License-Identifier: MIT */
/* Counters add up, and a histogram's percentiles are right within an eighth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/stats.h"

static struct net_histogram *new_histogram(void)
{
    return calloc(1, sizeof(struct net_histogram));
}

static void empty(void **state)
{
    struct net_histogram *h = new_histogram();
    (void)state;
    assert_int_equal(net_histogram_at(h, 0), 0);
    assert_int_equal(net_histogram_at(h, 0.5), 0);
    assert_int_equal(net_histogram_at(h, 1), 0);
    free(h);
}

/* Each time alone: any percentile is it, as max says so. */
static void each_time(void **state)
{
    (void)state;
    for (uint64_t us = 0; us < UINT64_C(1) << 40; us = us < 100 ? us + 1 : us + us / 7) {
        struct net_histogram *h = new_histogram();
        net_histogram_add(h, (int64_t)us, 3);
        assert_int_equal(net_histogram_at(h, 0),
                         us < (UINT64_C(1) << 34) ? us : (UINT64_C(1) << 34) - 1);
        assert_int_equal(h->count, 3);
        assert_int_equal(h->sum_us, 3 * us);
        assert_int_equal(h->max_us, us);
        free(h);
    }
}

/* Two of them: the lower is found within an eighth above it. */
static void precision(void **state)
{
    (void)state;
    for (uint64_t us = 0; us < UINT64_C(1) << 33; us = us < 100 ? us + 1 : us + us / 7) {
        struct net_histogram *h = new_histogram();
        net_histogram_add(h, (int64_t)us, 1);
        net_histogram_add(h, INT64_MAX, 1);
        uint64_t got = net_histogram_at(h, 0.4);
        assert_in_range(got, us, us + us / 8);
        free(h);
    }
}

static void extremes(void **state)
{
    struct net_histogram *h = new_histogram();
    (void)state;
    net_histogram_add(h, -5, 1);
    net_histogram_add(h, INT64_MIN, 1);
    assert_int_equal(h->max_us, 0);
    assert_int_equal(net_histogram_at(h, 1), 0);
    net_histogram_add(h, 7, 0);
    net_histogram_add(h, INT64_MAX, 1);
    assert_int_equal(h->count, 3);
    assert_int_equal(h->max_us, INT64_MAX);
    assert_int_equal(net_histogram_at(h, 0.5), 0);
    assert_true(net_histogram_at(h, 1) > UINT64_C(1) << 33);
    assert_true(net_histogram_at(h, 2) > UINT64_C(1) << 33);
    free(h);
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void percentiles(void **state)
{
    enum { COUNT = 10000 };
    static uint64_t times[COUNT];
    static const double shares[] = {0, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999};
    struct net_histogram *h = new_histogram();
    uint32_t seed = 3;
    (void)state;
    for (int i = 0; i < COUNT; i++) {
        seed = seed * 1664525 + 1013904223;
        times[i] = (uint64_t)(seed >> 8) >> ((seed >> 3) % 20);
        net_histogram_add(h, (int64_t)times[i], 1);
    }
    qsort(times, COUNT, sizeof *times, compare);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        uint64_t right = times[(size_t)(shares[i] * COUNT)];
        assert_in_range(net_histogram_at(h, shares[i]), right, right + right / 8);
    }
    assert_int_equal(net_histogram_at(h, 1), times[COUNT - 1]);
    free(h);
}

/* Every word of the block is added: no counter was forgotten. */
static void sums(void **state)
{
    struct net_stats *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b),
                     *sum = calloc(1, sizeof *sum);
    (void)state;
    uint64_t *words = (uint64_t *)a, *others = (uint64_t *)b, *sums = (uint64_t *)sum;
    size_t used = offsetof(struct net_stats, queued) + sizeof(struct net_histogram);
    for (size_t i = 0; i < used / 8; i++) {
        words[i] = 10 + i;
        others[i] = 100000 - i;
    }
    net_stats_add(sum, a);
    assert_memory_equal(sum, a, used);
    net_stats_add(sum, b);
    for (size_t i = 0; i < used / 8; i++)
        if (i * 8 == offsetof(struct net_stats, latency.max_us) ||
            i * 8 == offsetof(struct net_stats, queued.max_us))
            assert_int_equal(sums[i], 100000 - i);
        else
            assert_int_equal(sums[i], 100010);
    free(a), free(b), free(sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty),    cmocka_unit_test(each_time),   cmocka_unit_test(precision),
        cmocka_unit_test(extremes), cmocka_unit_test(percentiles), cmocka_unit_test(sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
