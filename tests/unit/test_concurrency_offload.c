/* SPDX-License-Identifier: MIT */
/* Offloading: what would hold up a loop does not, and what becomes of a function whose caller has to
 * go. */
#include "test_concurrency_co.h"

#include "concurrency/offload.h"
#include "concurrency/sem.h"

/* --- lag -------------------------------------------------------------------------------------- */

static int number = 17;
static bool ticking;
static _Atomic int ticks;

static int tick(void *argument)
{
    (void)argument;
    while (ticking) {
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
        atomic_fetch_add(&ticks, 1);
    }
    return 0;
}

/* Ends only if others go on meanwhile. */
static int await_ticks(void *argument)
{
    int until = atomic_load(&ticks) + 20;

    AWAIT(atomic_load(&ticks) >= until);
    return *(int *)argument;
}

/* Nobody else goes on meanwhile. */
static int block(void *ms)
{
    int before = atomic_load(&ticks);

    usleep(*(useconds_t *)ms * 1000);
    CHECK_INT(atomic_load(&ticks), before);
    return 0;
}

static int compare(void *argument)
{
    char name[MODUS_CO_NAME];
    int result = -1;
    (void)argument;

    CHECK_INT(modus_co_lag(NULL), 0);
    ticking = true;
    struct modus_co *ticker = go(tick, NULL);
    CHECK_INT(modus_offload(await_ticks, &number, MODUS_FOREVER, &result), 0);
    CHECK_INT(result, 17);
    /* On a busy machine there may be some already. */
    useconds_t longer = (useconds_t)(modus_co_lag(NULL) / modus_ms(1)) + 50;
    CHECK_INT(joined(go(block, &longer)), 0);
    CHECK(modus_co_lag(name) >= modus_ms(longer));
    CHECK(strncmp(name, "coroutine-", 10) == 0);
    ticking = false;
    CHECK_INT(joined(ticker), 0);
    return 0;
}

static void test_lag(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(compare, NULL), 0);
}

/* --- many, errors, threads ---------------------------------------------------------------------- */

static _Atomic int at_once, most_at_once, runs;

static int count_runs(void *argument)
{
    int now = atomic_fetch_add(&at_once, 1) + 1, most = atomic_load(&most_at_once);

    while (now > most && !atomic_compare_exchange_weak(&most_at_once, &most, now))
        continue;
    CHECK(modus_co_self() == NULL);
    CHECK(argument == NULL);
    usleep(2000);
    atomic_fetch_sub(&at_once, 1);
    return atomic_fetch_add(&runs, 1);
}

static int offload_one(void *argument)
{
    return modus_offload(count_runs, argument, MODUS_FOREVER, NULL);
}

static int many(void *argument)
{
    struct modus_co *co[100];

    for (int i = 0; i < 100; i++)
        co[i] = go(offload_one, argument);
    for (int i = 0; i < 100; i++)
        CHECK_INT(joined(co[i]), 0);
    CHECK_INT(atomic_load(&runs), 100);
    CHECK(atomic_load(&most_at_once) > 1 && atomic_load(&most_at_once) <= 16);
    CHECK_INT(modus_offload(NULL, NULL, MODUS_FOREVER, NULL), -EINVAL);
    CHECK_INT(modus_offload(count_runs, NULL, -2, NULL), -EINVAL);
    CHECK_INT(modus_offload_or_leave(count_runs, NULL, NULL, MODUS_FOREVER, NULL), -EINVAL);
    CHECK_INT(modus_offload_helpers(0), -EINVAL);
    return 0;
}

static void test_many(void **state)
{
    int result = 0;
    (void)state;

    atomic_store(&runs, 0);
    assert_int_equal(modus_co_run(many, NULL), 0);
    assert_int_equal(modus_offload(count_runs, NULL, MODUS_FOREVER, &result),
                     0); /* a thread: here */
    assert_int_equal(result, 100);
}

/* --- callers that have to go -------------------------------------------------------------------- */

static struct modus_sem gate;
static _Atomic int begun, over, left;

static int wait_at_gate(void *argument)
{
    atomic_fetch_add(&begun, 1);
    CHECK_INT(modus_sem_acquire(&gate, MODUS_FOREVER), 0);
    *(int *)argument = 5;
    atomic_fetch_add(&over, 1);
    return 6;
}

static void leave(void *argument)
{
    atomic_fetch_add(&left, 1);
    free(argument);
}

static int caller_stays(void *argument)
{
    int on_stack = 0, result = -1, rc;
    (void)argument;

    while ((rc = modus_offload(wait_at_gate, &on_stack, modus_ms(10), &result)) == -ETIMEDOUT)
        CHECK_INT(result, -1); /* no helper has begun in that time */
    CHECK_INT(rc, 0);
    CHECK_INT(on_stack, 5);
    CHECK_INT(result, 6);
    return modus_co_cancelled() ? modus_co_sleep(1) : 0;
}

static int caller_leaves(void *argument)
{
    int *own = calloc(1, sizeof *own);
    int result = -1;

    int rc = modus_offload_or_leave(wait_at_gate, own, leave,
                                    argument ? modus_ms(2) : MODUS_FOREVER, &result);
    CHECK(rc < 0 || (*own == 5 && result == 6));
    if (rc == 0)
        free(own);
    return rc;
}

/* What has begun is waited for, or left; what has not is not begun any more. */
static int going(void *argument)
{
    struct modus_co *co, *queued;
    (void)argument;

    co = go(caller_stays, NULL);
    while (atomic_load(&begun) < 1)
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    modus_co_cancel(co);
    CHECK_INT(modus_co_join(co, modus_ms(25), NULL), -ETIMEDOUT); /* also its time is over */
    CHECK_INT(modus_sem_release(&gate, 1), 0);
    CHECK_INT(joined(co), MODUS_CANCELED);

    co = go(caller_leaves, NULL);
    while (atomic_load(&begun) < 2)
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    CHECK_INT(atomic_load(&left), 0); /* it runs on */
    CHECK_INT(modus_sem_release(&gate, 1), 0);
    while (atomic_load(&left) < 1)
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);

    struct modus_co *busy[16];
    int before = atomic_load(&begun);
    for (int i = 0; i < 16; i++)
        busy[i] = go(caller_stays, NULL);
    while (atomic_load(&begun) < before + 16)
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    queued = go(caller_leaves, NULL); /* no helper is free */
    CHECK_INT(joined(go(caller_leaves, &number)), -ETIMEDOUT);
    CHECK_INT(atomic_load(&left), 2);
    modus_co_cancel(queued);
    CHECK_INT(joined(queued), MODUS_CANCELED);
    CHECK_INT(atomic_load(&left), 3);
    CHECK_INT(modus_sem_release(&gate, 16), 0);
    for (int i = 0; i < 16; i++)
        CHECK_INT(joined(busy[i]), 0);
    CHECK_INT(atomic_load(&begun), before + 16);
    CHECK_INT(atomic_load(&over), before + 16);
    return 0;
}

static void test_going(void **state)
{
    (void)state;
    assert_int_equal(modus_sem_init(&gate, &(struct modus_sem_attr){.scope = MODUS_THREAD}), 0);
    assert_int_equal(modus_co_run(going, NULL), 0);
    modus_sem_fini(&gate);
}

static int give(void *argument)
{
    return *(int *)argument;
}

static int call_offloaded(void *argument)
{
    int result = -1;

    CHECK_INT(modus_offload(give, argument, MODUS_FOREVER, &result), 0);
    return result;
}

static int after_fork(void *argument)
{
    return modus_co_run(call_offloaded, argument);
}

static int fork_with_helpers(void *argument)
{
    CHECK_INT(call_offloaded(&number), 17);
#ifndef __SANITIZE_THREAD__ /* which can't have threads in such a child */
    CHECK_INT(reap(start_child(after_fork, &number)), 17);
#else
    (void)after_fork;
#endif
    return argument != NULL;
}

static void test_fork(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(fork_with_helpers, NULL), 0);
}

/* The child returns from the function, and the parent's helper sees it end. */
static int fork_and_return(void *argument)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* it has no watchdog: helpers have no signals */
        return *(int *)argument;
    }
    return reap(pid);
}

static int offload_fork(void *argument)
{
    int result = -1;

    CHECK_INT(modus_offload(fork_and_return, argument, MODUS_FOREVER, &result), 0);
    return result;
}

static void test_fork_inside(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(offload_fork, &number), 17);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lag), TEST(test_many), TEST(test_going), TEST(test_fork), TEST(test_fork_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
