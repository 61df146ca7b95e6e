/* SPDX-License-Identifier: MIT */
/* Generators: locals of nested frames survive, values come one by one, ends and early ends; with and
 * without coroutines around. */
#include "test_concurrency.h"

#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/generator.h"

static int cleaned;

/* The frames of a walk down a tree, each with its locals, are there after each yield. */
static int walk(struct modus_generator *self, int depth, int number)
{
    volatile int mark = depth * 1000 + number;
    int rc = 0;

    if (depth > 0)
        rc = walk(self, depth - 1, number * 2);
    if (rc == 0)
        rc = modus_generator_yield(self, &number);
    CHECK_INT(mark, depth * 1000 + number);
    if (rc == 0 && depth > 0)
        rc = walk(self, depth - 1, number * 2 + 1);
    CHECK_INT(mark, depth * 1000 + number);
    cleaned++;
    return rc;
}

static int walk_all(struct modus_generator *self, void *depth)
{
    return walk(self, *(int *)depth, 1);
}

static void walk_a_tree(void)
{
    static const int expected[] = {4, 2, 5, 1, 6, 3, 7};
    struct modus_generator *generator;
    int depth = 2, *number = NULL;

    cleaned = 0;
    CHECK_INT(modus_generator_new(&generator, 0, walk_all, &depth), 0);
    for (int i = 0; i < 7; i++) {
        CHECK_INT(modus_generator_next(generator, (void **)&number), 0);
        CHECK_INT(*number, expected[i]);
    }
    CHECK_INT(modus_generator_next(generator, (void **)&number), MODUS_CLOSED);
    CHECK_INT(modus_generator_next(generator, NULL), MODUS_CLOSED);
    CHECK_INT(cleaned, 7);
    modus_generator_free(generator);
}

static void test_frames(void **state)
{
    (void)state;
    walk_a_tree();
}

static int give_up(struct modus_generator *self, void *argument)
{
    CHECK_INT(modus_generator_next(self, NULL), -EDEADLK);
    CHECK_INT(modus_generator_yield(self, argument), 0);
    return -ENOMEM;
}

static void test_errors(void **state)
{
    struct modus_generator *generator = NULL;
    void *value = NULL;
    (void)state;

    assert_int_equal(modus_generator_new(&generator, 0, NULL, NULL), -EINVAL);
    assert_int_equal(modus_generator_new(&generator, 1 << 30, give_up, NULL), -EINVAL);
    assert_int_equal(modus_generator_new(&generator, SIZE_MAX - 64, give_up, NULL), -EINVAL);
    assert_null(generator);
    modus_generator_free(NULL);
    assert_int_equal(modus_generator_new(&generator, 100000, give_up, &value), 0);
    assert_int_equal(modus_generator_next(generator, &value), 0);
    assert_ptr_equal(value, &value);
    assert_int_equal(modus_generator_next(generator, &value), -ENOMEM);
    assert_int_equal(modus_generator_next(generator, &value), -ENOMEM);
    modus_generator_free(generator);
}

/* Ended early: its yields say so, and it cleans up; one that has not begun is just gone. */
static void test_early_end(void **state)
{
    struct modus_generator *generator;
    int depth = 3, *number;
    (void)state;

    cleaned = 0;
    assert_int_equal(modus_generator_new(&generator, 0, walk_all, &depth), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_generator_next(generator, (void **)&number), 0);
    assert_int_equal(cleaned, 1);
    modus_generator_free(generator);
    assert_int_equal(cleaned, 4 + 1); /* the frames that were open */
    assert_int_equal(modus_generator_new(&generator, 0, walk_all, &depth), 0);
    modus_generator_free(generator);
    assert_int_equal(cleaned, 5);
}

/* One draws from another. */
static int count(struct modus_generator *self, void *limit)
{
    for (int i = 0; i < *(int *)limit; i++)
        if (modus_generator_yield(self, &i) < 0)
            return 0;
    return 0;
}

static int odd_ones(struct modus_generator *self, void *limit)
{
    struct modus_generator *all;
    int *number, rc;

    CHECK_INT(modus_generator_new(&all, 0, count, limit), 0);
    while ((rc = modus_generator_next(all, (void **)&number)) == 0)
        if (*number % 2 && (rc = modus_generator_yield(self, number)) < 0)
            break;
    modus_generator_free(all);
    return rc == MODUS_CLOSED ? 0 : rc;
}

static void test_nested(void **state)
{
    struct modus_generator *generator;
    int limit = 10000, *number, sum = 0;
    (void)state;

    assert_int_equal(modus_generator_new(&generator, 0, odd_ones, &limit), 0);
    while (modus_generator_next(generator, (void **)&number) == 0)
        sum += *number;
    assert_int_equal(sum, 5000 * 5000);
    modus_generator_free(generator);
    assert_int_equal(modus_generator_new(&generator, 0, odd_ones, &limit), 0);
    assert_int_equal(modus_generator_next(generator, (void **)&number), 0);
    modus_generator_free(generator); /* and the inner one with it */
}

/* A generator waits in the name of the coroutine that asks; others go on, with generators of their
 * own, and what ends first is not what began last. */
static struct modus_event event = MODUS_EVENT_INIT;

static int slow_numbers(struct modus_generator *self, void *ms)
{
    for (int i = 0; i < 5; i++) {
        int rc =
            ms ? modus_co_sleep(modus_ms(*(int *)ms)) : modus_event_wait(&event, MODUS_FOREVER);

        if (rc < 0)
            return rc;
        if ((rc = modus_generator_yield(self, &i)) < 0)
            return rc;
    }
    return 0;
}

static int draw(void *ms)
{
    struct modus_generator *generator;
    int *number, rc, sum = 0;

    CHECK_INT(modus_generator_new(&generator, 0, slow_numbers, ms), 0);
    while ((rc = modus_generator_next(generator, (void **)&number)) == 0)
        sum += *number;
    modus_generator_free(generator);
    return rc == MODUS_CLOSED ? sum : rc;
}

static int in_coroutines(void *argument)
{
    static int times[] = {3, 1, 2};
    struct modus_co *co[3], *cancelled;
    int result;
    (void)argument;

    walk_a_tree();
    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_co_start(&co[i], NULL, draw, &times[i]), 0);
    CHECK_INT(modus_co_start(&cancelled, NULL, draw, NULL), 0);
    CHECK_INT(modus_co_sleep(modus_ms(5)), 0);
    modus_co_cancel(cancelled); /* within the generator */
    CHECK_INT(modus_co_join(cancelled, MODUS_FOREVER, &result), 0);
    CHECK_INT(result, MODUS_CANCELED);
    modus_co_put(cancelled);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(modus_co_join(co[i], MODUS_FOREVER, &result), 0);
        CHECK_INT(result, 0 + 1 + 2 + 3 + 4);
        modus_co_put(co[i]);
    }
    return 0;
}

static void test_in_coroutines(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(in_coroutines, NULL), 0);
}

/* Thousands at the same time, each at another place. */
static void test_many(void **state)
{
    enum { MANY = SLOW ? 300 : 5000 };
    static struct modus_generator *generators[MANY];
    int limit = 3, *number;
    (void)state;

    for (int i = 0; i < MANY; i++)
        assert_int_equal(modus_generator_new(&generators[i], 0, count, &limit), 0);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < MANY; i += i % 3 == round ? 2 : 1) {
            assert_int_equal(modus_generator_next(generators[i], (void **)&number), 0);
            assert_in_range(*number, 0, round);
        }
    for (int i = 0; i < MANY; i++)
        modus_generator_free(generators[i]);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_frames), TEST(test_errors),        TEST(test_early_end),
        TEST(test_nested), TEST(test_in_coroutines), TEST(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
