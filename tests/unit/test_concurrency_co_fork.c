/* SPDX-License-Identifier: MIT */
/*
 * A coroutine forks while other threads hold the locks that a fork takes. It waits for them as it
 * waits for any lock, so others of its thread go on, half a fork under way: they need the mutexes of
 * stacks and descriptors, which must not be taken by then.
 */
#include "test_concurrency.h"

#include "concurrency/coroutine.h"
#include "concurrency/local.h"
#include "concurrency/private_fd.h"

enum { FORKS = SLOW ? 5 : 60, HOLDERS = SLOW ? 300 : 1500, MANY = 600, CHURNERS = 2 };

static struct modus_local value;
static atomic_bool over;

/* The end of a variable looks through the tables of all coroutines, under a lock. */
static void *make_and_end_locals(void *argument)
{
    struct modus_local local;
    (void)argument;

    while (!atomic_load(&over)) {
        CHECK_INT(modus_local_init(&local, NULL), 0);
        modus_local_fini(&local);
    }
    return NULL;
}

static int hold_a_value(void *argument)
{
    CHECK_INT(modus_local_set(&value, &value), 0);
    while (!atomic_load(&over))
        modus_co_sleep(modus_ms(100));
    return argument != NULL;
}

static int yield_once(void *argument)
{
    modus_co_yield();
    return argument != NULL;
}

/* More than a thread keeps stacks of its own, so that the common ones are needed. */
static int start_many(void *argument)
{
    struct modus_co *cos[MANY];

    while (!atomic_load(&over)) {
        for (int i = 0; i < MANY; i++)
            CHECK_INT(modus_co_start(&cos[i], NULL, yield_once, NULL), 0);
        for (int i = 0; i < MANY; i++) {
            CHECK_INT(modus_co_join(cos[i], MODUS_FOREVER, NULL), 0);
            modus_co_put(cos[i]);
        }
        modus_private_fd_begin();
        modus_private_fd_end(-1);
    }
    return argument != NULL;
}

static int fork_often(void *argument)
{
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid == 0)
            _exit(7);
        CHECK_INT(reap(pid), 7);
        modus_co_yield();
    }
    atomic_store(&over, true);
    return argument != NULL;
}

static int program(void *argument)
{
    for (int i = 0; i < HOLDERS; i++)
        CHECK_INT(modus_co_start(NULL, NULL, hold_a_value, NULL), 0);
    CHECK_INT(modus_co_start(NULL, NULL, start_many, NULL), 0);
    CHECK_INT(modus_co_start(NULL, NULL, start_many, NULL), 0);
    return fork_often(argument);
}

static void test_fork_waits(void **state)
{
    pthread_t churners[CHURNERS];
    (void)state;

    assert_int_equal(modus_local_init(&value, NULL), 0);
    for (int i = 0; i < CHURNERS; i++)
        churners[i] = start_thread(make_and_end_locals, NULL);
    assert_int_equal(modus_co_run(program, NULL), 0);
    for (int i = 0; i < CHURNERS; i++)
        join_thread(churners[i]);
    modus_local_fini(&value);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_fork_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
