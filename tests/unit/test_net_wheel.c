/* SPDX-License-Identifier: MIT */
/* The timing wheel against a plain list: an item comes up never before its time, at most a tick
 * after it, and each only once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/wheel.h"

enum { ITEMS = 400, ROUND_MS = WHEEL_SLOTS * WHEEL_TICK_MS };

static struct wheel w;
static struct wheel_item items[ITEMS];
static uint32_t seed;

static uint32_t dice(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

static void begin(int64_t now_ms)
{
    memset(items, 0, sizeof items);
    wheel_init(&w, now_ms);
}

static void one_item(void **state)
{
    (void)state;
    for (int64_t begun = 1000; begun < 1200; begun += 13)
        for (int64_t later = 0; later < 300; later += 7) {
            int64_t due = begun + later, now = begun;
            begin(begun);
            assert_int_equal(wheel_wait(&w, now), -1);
            wheel_add(&w, &items[0], due);
            assert_true(wheel_holds(&items[0]));
            while (!wheel_due(&w, now)) {
                int64_t wait = wheel_wait(&w, now);
                assert_true(wait >= 0 && wait <= ROUND_MS);
                now += wait ? wait : 1;
            }
            assert_in_range(now, due, due + 2 * WHEEL_TICK_MS);
            assert_false(wheel_holds(&items[0]));
            assert_int_equal(items[0].at_ms, INT64_MAX);
            assert_null(wheel_due(&w, now + 10 * ROUND_MS));
            assert_int_equal(wheel_wait(&w, now), -1);
        }
}

static void far_items(void **state)
{
    (void)state;
    begin(5);
    int64_t due[] = {
        3, 100, ROUND_MS - 1, ROUND_MS, ROUND_MS + 1, 3 * ROUND_MS, 50 * ROUND_MS + 77};
    for (size_t i = 0; i < sizeof due / sizeof *due; i++)
        wheel_add(&w, &items[i], due[i]);
    int64_t now = 5;
    for (size_t i = 0; i < sizeof due / sizeof *due; i++) {
        struct wheel_item *item;
        while (!(item = wheel_due(&w, now))) {
            int64_t wait = wheel_wait(&w, now);
            now += wait ? wait : 1;
        }
        assert_ptr_equal(item, &items[i]);
        assert_true(now >= due[i] && now <= due[i] + 3 * WHEEL_TICK_MS);
    }
    /* and one that is never due stays out */
    wheel_add(&w, &items[0], INT64_MAX);
    assert_false(wheel_holds(&items[0]));
    wheel_add(&w, &items[0], 100 * ROUND_MS);
    wheel_add(&w, &items[0], INT64_MAX);
    assert_false(wheel_holds(&items[0]));
    assert_int_equal(w.count, 0);
}

/* A clock that stood still and then jumps: all that is due comes at once. */
static void jump(void **state)
{
    (void)state;
    begin(0);
    for (int i = 0; i < ITEMS; i++)
        wheel_add(&w, &items[i], (int64_t)i * 1000);
    int seen = 0;
    while (wheel_due(&w, 300000))
        seen++;
    assert_int_equal(seen, 300);
    while (wheel_due(&w, INT64_C(1) << 40))
        seen++;
    assert_int_equal(seen, ITEMS);
}

/* Random adds, moves and removals; the list knows what must happen. */
static void against_a_list(void **state)
{
    (void)state;
    for (uint32_t run = 1; run <= 20; run++) {
        static int64_t due[ITEMS];
        int64_t now = (int64_t)dice(1000000);
        seed = run;
        begin(now);
        for (int i = 0; i < ITEMS; i++)
            due[i] = INT64_MAX;
        for (int turn = 0; turn < 3000; turn++) {
            int i = (int)dice(ITEMS);
            switch (dice(4)) {
            case 0:
            case 1:
                due[i] = now + (int64_t)dice(dice(3) ? 5000 : 4 * ROUND_MS) - 100;
                wheel_add(&w, &items[i], due[i]);
                break;
            case 2:
                due[i] = INT64_MAX;
                wheel_remove(&w, &items[i]);
                break;
            default:
                now += (int64_t)dice(dice(20) ? 300 : 3 * ROUND_MS);
                for (struct wheel_item *item; (item = wheel_due(&w, now)) != NULL;) {
                    size_t n = (size_t)(item - items);
                    assert_true(due[n] <= now);
                    due[n] = INT64_MAX;
                    if (dice(3) == 0) { /* added again while the rest comes out */
                        due[n] = now + (int64_t)dice(1000);
                        wheel_add(&w, item, due[n]);
                    }
                }
            }
            size_t held = 0;
            int64_t next = INT64_MAX;
            for (int n = 0; n < ITEMS; n++) {
                assert_int_equal(wheel_holds(&items[n]), due[n] != INT64_MAX);
                held += due[n] != INT64_MAX;
                next = due[n] < next ? due[n] : next;
            }
            assert_int_equal(w.count, held);
            int64_t wait = wheel_wait(&w, now);
            assert_int_equal(wait < 0, held == 0);
            if (held)
                assert_true(now + wait <= (next > now ? next : now) + 2 * WHEEL_TICK_MS);
        }
    }
}

/* --- the earliest ----------------------------------------------------------------------------- */

static bool any(struct wheel_item *item, void *arg)
{
    (void)item, (void)arg;
    return true;
}

static bool but(struct wheel_item *item, void *arg)
{
    return item != arg;
}

static void earliest(void **state)
{
    (void)state;
    begin(0);
    assert_null(wheel_earliest(&w, any, NULL, 100));
    wheel_add(&w, &items[0], 5000);
    wheel_add(&w, &items[1], 3000);
    wheel_add(&w, &items[2], 9000);
    assert_ptr_equal(wheel_earliest(&w, any, NULL, 100), &items[1]);
    assert_ptr_equal(wheel_earliest(&w, but, &items[1], 100), &items[0]);
    assert_null(wheel_earliest(&w, any, NULL, 0));
    /* a slot that holds an item of a later round as well, before and behind */
    wheel_add(&w, &items[3], 500 + ROUND_MS);
    wheel_add(&w, &items[4], 3000 + 2 * ROUND_MS);
    assert_ptr_equal(wheel_earliest(&w, any, NULL, 100), &items[1]);
    wheel_remove(&w, &items[0]);
    wheel_remove(&w, &items[1]);
    wheel_remove(&w, &items[2]);
    assert_ptr_equal(wheel_earliest(&w, any, NULL, 100), &items[3]);
    assert_ptr_equal(wheel_earliest(&w, but, &items[3], 100), &items[4]);
}

/* wanted() may put an item where it belongs: lazily moved deadlines. */
static bool move_back(struct wheel_item *item, void *arg)
{
    int *looks = arg;
    if (++*looks > 1000)
        fail_msg("looks at the same items again and again");
    int64_t true_ms = item == &items[0] ? 100 + ROUND_MS : item == &items[1] ? 60000 : item->at_ms;
    if (true_ms > item->at_ms) {
        wheel_add(&w, item, true_ms);
        return false;
    }
    return true;
}

static void earliest_moves(void **state)
{
    int looks = 0;
    (void)state;
    begin(0);
    wheel_add(&w, &items[0], 100);
    wheel_add(&w, &items[1], 100);
    wheel_add(&w, &items[2], 30000);
    assert_ptr_equal(wheel_earliest(&w, move_back, &looks, 100), &items[2]);
    wheel_remove(&w, &items[2]);
    assert_ptr_equal(wheel_earliest(&w, move_back, &looks, 100), &items[1]);
}

static void earliest_of_many(void **state)
{
    (void)state;
    for (uint32_t run = 1; run <= 300; run++) {
        seed = run;
        int64_t now = (int64_t)dice(100000);
        begin(now);
        struct wheel_item *best = NULL;
        uint32_t range = dice(2) ? 10000 : 3 * ROUND_MS;
        for (uint32_t n = 1 + dice(30); n; n--) {
            struct wheel_item *i = &items[dice(ITEMS)];
            if (wheel_holds(i))
                continue;
            wheel_add(&w, i, now + (int64_t)dice(range));
            if (!best || i->at_ms < best->at_ms)
                best = i;
        }
        struct wheel_item *got = wheel_earliest(&w, any, NULL, 1000);
        assert_true(got->at_ms == best->at_ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_item),
        cmocka_unit_test(far_items),
        cmocka_unit_test(jump),
        cmocka_unit_test(against_a_list),
        cmocka_unit_test(earliest),
        cmocka_unit_test(earliest_moves),
        cmocka_unit_test(earliest_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
