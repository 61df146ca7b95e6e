/* SPDX-License-Identifier: MIT */
/* Groups: members end before the block does, the first failure cancels the rest, deadlines, and
 * cleaning up under a shield. */
#include "test_concurrency_co.h"

#include "concurrency/channel.h"
#include "concurrency/event.h"
#include "concurrency/group.h"
#include "concurrency/lock.h"

static struct modus_event event = MODUS_EVENT_INIT; /* never set */
static int ended, cleaned;

static void run(int (*main)(void *))
{
    ended = cleaned = 0;
    assert_int_equal(modus_co_run(main, NULL), 0);
}

/* --- members ---------------------------------------------------------------------------------- */

static int sleep_and_say(void *ms)
{
    int rc = modus_co_sleep(modus_ms(*(int *)ms));

    ended++;
    return rc < 0 ? rc : *(int *)ms;
}

static int wait_for_ever(void *argument)
{
    int rc = modus_event_wait(&event, MODUS_FOREVER);

    (void)argument;
    ended++;
    return rc;
}

static int give_up(void *ms)
{
    modus_co_sleep(modus_ms(*(int *)ms));
    ended++;
    return -ENOMEM - *(int *)ms;
}

/* Cleaning up takes two waits, which nothing may break off. */
static int clean_up(void *argument)
{
    int rc = wait_for_ever(argument);
    {
        MODUS_CO_SHIELD(outer);
        MODUS_CO_SHIELD(inner);
        CHECK(modus_co_cancelled());
        CHECK_INT(modus_co_sleep(modus_ms(5)), 0);
        CHECK_INT(modus_co_yield(), 0);
        CHECK_INT(modus_event_wait(&event, modus_ms(2)), -ETIMEDOUT);
        modus_co_shield_end(&inner);
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0); /* there is the outer one */
        cleaned++;
    }
    CHECK_INT(modus_co_sleep(modus_ms(1)), MODUS_CANCELED);
    return rc;
}

/* --- ends ------------------------------------------------------------------------------------- */

static int three_ms[] = {3, 9, 6};

static int all_well(void *argument)
{
    int results[3] = {-1, -1, -1};
    (void)argument;

    MODUS_GROUP(group, NULL);
    CHECK_INT(modus_group_wait(&group), 0); /* of none */
    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_group_start(&group, NULL, sleep_and_say, &three_ms[i], &results[i]), 0);
    CHECK_INT(modus_group_live(&group), 3);
    CHECK_INT(modus_group_wait(&group), 0);
    CHECK_INT(modus_group_live(&group), 0);
    for (int i = 0; i < 3; i++)
        CHECK_INT(results[i], three_ms[i]);
    CHECK_INT(modus_group_start(&group, NULL, sleep_and_say, &three_ms[0], NULL), 0); /* again */
    CHECK_INT(modus_group_wait(&group), 0);
    CHECK_INT(ended, 4);
    return 0;
}

static void test_all_well(void **state)
{
    (void)state;
    run(all_well);
}

static int first_failure(void *argument)
{
    int late = 50, soon = 4, results[4] = {1, 1, 1, 1};
    (void)argument;

    MODUS_GROUP(group, NULL);
    CHECK_INT(modus_group_start(&group, NULL, wait_for_ever, NULL, &results[0]), 0);
    CHECK_INT(modus_group_start(&group, NULL, give_up, &late, &results[1]), 0);
    CHECK_INT(modus_group_start(&group, NULL, give_up, &soon, &results[2]), 0);
    CHECK_INT(modus_group_start(&group, NULL, clean_up, NULL, &results[3]), 0);
    CHECK_INT(modus_group_wait(&group), -ENOMEM - 4);
    CHECK_INT(ended, 4);
    CHECK_INT(cleaned, 1);
    CHECK_INT(results[0], MODUS_CANCELED);
    CHECK_INT(results[1], -ENOMEM - 50);
    CHECK_INT(results[3], MODUS_CANCELED);
    CHECK_INT(modus_group_start(&group, NULL, give_up, &soon, NULL), MODUS_CANCELED);
    CHECK_INT(modus_group_wait(&group), -ENOMEM - 4);
    return 0;
}

static void test_first_failure(void **state)
{
    (void)state;
    run(first_failure);
}

static int keeping_going(void *argument)
{
    int soon = 1, later = 8, result = -1;
    (void)argument;

    MODUS_GROUP(group, (&(struct modus_group_attr){.keep_going = true}));
    CHECK_INT(modus_group_start(&group, NULL, give_up, &soon, NULL), 0);
    CHECK_INT(modus_group_start(&group, NULL, sleep_and_say, &later, &result), 0);
    CHECK_INT(modus_group_wait(&group), -ENOMEM - 1);
    CHECK_INT(result, 8);
    return 0;
}

static void test_keeping_going(void **state)
{
    (void)state;
    run(keeping_going);
}

/* The block is left without a wait: nobody is left behind. */
static int leave_early(void)
{
    MODUS_GROUP(group, NULL);
    CHECK_INT(modus_group_start(&group, NULL, wait_for_ever, NULL, NULL), 0);
    CHECK_INT(modus_group_start(&group, NULL, clean_up, NULL, NULL), 0);
    CHECK_INT(modus_co_yield(), 0);
    return 5;
}

static int leaving_early(void *argument)
{
    CHECK_INT(leave_early(), 5);
    CHECK_INT(ended, 2);
    CHECK_INT(cleaned, 1);
    return argument != NULL;
}

static void test_leaving_early(void **state)
{
    (void)state;
    run(leaving_early);
}

/* --- cancelling ------------------------------------------------------------------------------- */

static int own_group(void *argument)
{
    MODUS_GROUP(group, NULL);
    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_group_start(&group, NULL, clean_up, NULL, NULL), 0);
    int rc = modus_group_wait(&group);
    CHECK_INT(cleaned, 3);
    return argument ? 0 : rc;
}

/* Cancelling goes down through the groups. */
static int outer_group(void *argument)
{
    MODUS_GROUP(group, NULL);
    CHECK_INT(modus_group_start(&group, NULL, own_group, NULL, NULL), 0);
    int rc = modus_group_wait(&group);
    return argument ? 0 : rc;
}

static int cancelled_from_above(void *argument)
{
    struct modus_co *co = go(outer_group, NULL);
    (void)argument;

    CHECK_INT(modus_co_sleep(modus_ms(3)), 0);
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    CHECK_INT(ended, 3);
    return 0;
}

static void test_cancelled_from_above(void **state)
{
    (void)state;
    run(cancelled_from_above);
}

static struct modus_group *shared_group;

static int cancel_group(void *argument)
{
    (void)argument;
    CHECK_INT(modus_group_wait(shared_group), -EPERM); /* not its own */
    CHECK_INT(modus_group_start(shared_group, NULL, wait_for_ever, NULL, NULL), 0); /* a sister */
    CHECK_INT(modus_co_yield(), 0);
    modus_group_cancel(shared_group);
    return modus_co_yield() == MODUS_CANCELED ? 3 : 4;
}

static int cancelled_from_within(void *argument)
{
    int result = -1;
    (void)argument;

    MODUS_GROUP(group, NULL);
    shared_group = &group;
    CHECK_INT(modus_group_start(&group, NULL, cancel_group, NULL, &result), 0);
    CHECK_INT(modus_group_start(&group, NULL, wait_for_ever, NULL, NULL), 0);
    CHECK_INT(modus_group_wait(&group), MODUS_CANCELED);
    CHECK_INT(result, 3);
    CHECK_INT(ended, 2);
    return 0;
}

static void test_cancelled_from_within(void **state)
{
    (void)state;
    run(cancelled_from_within);
}

/* --- deadlines -------------------------------------------------------------------------------- */

static int lock_and_wait(void *argument)
{
    CHECK_INT(modus_lock_acquire(argument, MODUS_FOREVER), 0);
    int rc = modus_event_wait(&event, MODUS_FOREVER);
    CHECK_INT(modus_lock_release(argument), 0);
    ended++;
    return rc;
}

static int group_deadline(void *argument)
{
    int64_t start = modus_now_ns();
    struct modus_lock lock = MODUS_LOCK_INIT;
    int results[3] = {1, 1, 1};
    struct modus_co_attr late = {.deadline = start + modus_seconds(20)};
    (void)argument;

    MODUS_GROUP(group,
                &(struct modus_group_attr){.keep_going = true, .deadline = start + modus_ms(10)});
    CHECK_INT(modus_group_start(&group, NULL, wait_for_ever, NULL, &results[0]), 0);
    CHECK_INT(modus_group_start(&group, &late, lock_and_wait, &lock, &results[1]), 0);
    CHECK_INT(modus_group_start(&group, NULL, lock_and_wait, &lock, &results[2]), 0);
    CHECK_INT(modus_group_wait(&group), -ETIMEDOUT);
    CHECK(modus_now_ns() - start >= modus_ms(10));
    CHECK_INT(ended, 3);
    for (int i = 0; i < 3; i++)
        CHECK(results[i] == -ETIMEDOUT || results[i] == MODUS_CANCELED);
    CHECK_INT(results[0], -ETIMEDOUT);
    return 0;
}

static void test_group_deadline(void **state)
{
    (void)state;
    run(group_deadline);
}

/* What does not look at the clock: it waits under a shield, and sees that it is cancelled. */
static int stubborn(void *argument)
{
    (void)argument;
    MODUS_CO_SHIELD(shield);
    while (!modus_co_cancelled())
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    ended++;
    return 0;
}

/* The deadline cancels the group: whoever waits for it, and who comes too late. */
static int after_deadline(void *argument)
{
    int64_t start = modus_now_ns();
    struct modus_group_attr attr = {.keep_going = true, .deadline = start + modus_ms(5)};
    (void)argument;

    MODUS_GROUP(waited, &attr);
    CHECK_INT(modus_group_start(&waited, NULL, stubborn, NULL, NULL), 0);
    CHECK_INT(modus_group_wait(&waited), -ETIMEDOUT);
    CHECK_INT(ended, 1);

    attr.deadline = modus_now_ns() + modus_ms(5);
    MODUS_GROUP(late, &attr);
    CHECK_INT(modus_group_start(&late, NULL, stubborn, NULL, NULL), 0);
    CHECK_INT(modus_co_sleep(modus_ms(6)), 0);
    CHECK_INT(modus_group_start(&late, NULL, stubborn, NULL, NULL), MODUS_CANCELED);
    CHECK_INT(modus_group_live(&late), 1);
    while (modus_group_live(&late) > 0)
        CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(modus_group_wait(&late), -ETIMEDOUT);
    CHECK_INT(ended, 2);
    return 0;
}

static void test_after_deadline(void **state)
{
    (void)state;
    run(after_deadline);
}

/* A coroutine bounds what it does, and takes the bound back. */
static int own_deadline(void *argument)
{
    int64_t start = modus_now_ns();
    (void)argument;

    CHECK_INT(modus_co_deadline(start + modus_ms(8)), MODUS_FOREVER);
    CHECK_INT(modus_event_wait(&event, MODUS_FOREVER), -ETIMEDOUT);
    {
        MODUS_GROUP(group, NULL); /* its members inherit it */
        CHECK_INT(modus_group_start(&group, NULL, wait_for_ever, NULL, NULL), 0);
        CHECK_INT(modus_group_wait(&group), -ETIMEDOUT);
    }
    {
        MODUS_CO_SHIELD(shield);
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    }
    CHECK_INT(modus_co_sleep(modus_ms(1)), -ETIMEDOUT);
    CHECK_INT(modus_co_deadline(MODUS_FOREVER), start + modus_ms(8));
    CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    CHECK_INT(ended, 1);
    return 0;
}

static void test_own_deadline(void **state)
{
    (void)state;
    run(own_deadline);
}

/* --- errors ----------------------------------------------------------------------------------- */

static void *another_thread(void *argument)
{
    CHECK_INT(modus_group_start(argument, NULL, wait_for_ever, NULL, NULL), -EPERM);
    CHECK_INT(modus_group_wait(argument), -EPERM);
    return NULL;
}

static int errors(void *argument)
{
    struct modus_co_attr huge = {.stack = 1 << 30};
    (void)argument;

    MODUS_GROUP(group, NULL);
    CHECK_INT(modus_group_start(&group, NULL, NULL, NULL, NULL), -EINVAL);
    CHECK_INT(modus_group_start(&group, &huge, wait_for_ever, NULL, NULL), -EINVAL);
    CHECK_INT(modus_group_live(&group), 0);
    join_thread(start_thread(another_thread, &group));
    return 0;
}

static void test_errors(void **state)
{
    struct modus_group group = {0};
    (void)state;

    assert_int_equal(modus_group_wait(&group), -EPERM);
    assert_int_equal(modus_group_start(&group, NULL, wait_for_ever, NULL, NULL), -EPERM);
    modus_group_cancel(&group);
    modus_group_end(&group);
    assert_int_equal(modus_group_open(&group, NULL), -EPERM);
    modus_group_end(&group);
    assert_int_equal(modus_co_deadline(5), MODUS_FOREVER);
    MODUS_CO_SHIELD(of_a_thread);
    run(errors);
}

/* A child that a coroutine forks leaves the block without its sisters. */
static int child_leaves(void *argument)
{
    MODUS_GROUP(group, NULL);
    CHECK_INT(modus_group_start(&group, NULL, wait_for_ever, NULL, NULL), 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0)
        CHECK_INT(reap(child), 9);
    return modus_co_self() ? argument != NULL : 9;
}

static void test_fork(void **state)
{
    (void)state;
    run(child_leaves);
}

/* --- all together ------------------------------------------------------------------------------ */

/* A tree of groups whose leaves send through one channel; a random leaf fails. Whatever happens,
 * all have ended, and the error has come up. */
static struct modus_channel channel;
static int leaves, fails_at;

static int grow(void *argument)
{
    intptr_t depth = (intptr_t)argument;

    if (depth == 0) {
        int number = leaves++;

        if (number == fails_at)
            return -EOVERFLOW;
        int rc = modus_channel_send(&channel, &number, MODUS_FOREVER);
        ended++;
        return rc;
    }
    MODUS_GROUP(group, NULL);
    for (int i = 0; i < 4; i++) {
        int rc = modus_group_start(&group, NULL, grow, (void *)(depth - 1), NULL);
        CHECK(rc == 0 || rc == MODUS_CANCELED);
    }
    return modus_group_wait(&group);
}

static int drain(void *argument)
{
    int number, count = 0;

    while (modus_channel_recv(&channel, &number, MODUS_FOREVER) == 0)
        count++;
    *(int *)argument = count;
    return 0;
}

static int forest(void *argument)
{
    (void)argument;
    for (fails_at = -1; fails_at < 64; fails_at += 5) {
        int count = 0;

        leaves = ended = 0;
        CHECK_INT(modus_channel_init(&channel, 3, sizeof(int)), 0);
        struct modus_co *drainer = go(drain, &count);
        CHECK_INT(joined(go(grow, (void *)(intptr_t)3)), fails_at < 0 ? 0 : -EOVERFLOW);
        CHECK_INT(modus_channel_close(&channel), 0);
        CHECK_INT(joined(drainer), 0);
        CHECK_INT(leaves, 64);
        CHECK_INT(ended, fails_at < 0 ? 64 : 63);
        CHECK(count <= 64 && (fails_at >= 0 || count == 64));
        modus_channel_fini(&channel);
    }
    return 0;
}

static void test_forest(void **state)
{
    (void)state;
    run(forest);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_well),
        TEST(test_first_failure),
        TEST(test_keeping_going),
        TEST(test_leaving_early),
        TEST(test_cancelled_from_above),
        TEST(test_cancelled_from_within),
        TEST(test_group_deadline),
        TEST(test_after_deadline),
        TEST(test_own_deadline),
        TEST(test_errors),
        TEST(test_fork),
        TEST(test_forest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
