/* SPDX-License-Identifier: MIT */
/* Shared memory whose makers, users and unlinkers are killed: at each point, and at any time. */
#include "test_concurrency_shared_memory.h"

#include "concurrency/fault.h"

static int create_one(void *unused)
{
    (void)unused;
    created(name, SIZE);
    return 0;
}

static int open_and_stay(void *unused)
{
    (void)unused;
    opened(SIZE);
    raise(SIGSTOP);
    return 0;
}

static int unlink_one(void *unused)
{
    (void)unused;
    return -modus_shm_unlink_unused(name);
}

static int open_one(void *unused)
{
    struct modus_shm shm;
    (void)unused;
    return -modus_shm_open(&shm, name, 0);
}

/* A child that does it and comes to the point, where it stops. */
static pid_t stopped_at(enum modus_fault_point point, int (*run)(void *))
{
    int status;

    modus_fault_plan(point, MODUS_FAULT_STOP, 1);
    pid_t child = start_child(run, NULL);
    modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DIE, 0);
    CHECK_INT(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
    return child;
}

static int let_go(pid_t child)
{
    kill(child, SIGCONT);
    return reap(child);
}

static void test_killed_maker(void **state)
{
    struct modus_shm shm;
    (void)state;

    pid_t maker = stopped_at(MODUS_FAULT_SHM_WHOLE, create_one);
    assert_int_equal(modus_shm_open(&shm, name, 0), -ENOENT);
    kill_child(maker);
    assert_int_equal(modus_shm_unlink(name), -ENOENT); /* nothing is left */
    maker = stopped_at(MODUS_FAULT_SHM_NAMED, create_one);
    assert_int_equal(modus_shm_unlink_unused(name), -EBUSY);
    kill_child(maker);
    shm = opened(SIZE); /* whole */
    memset(bytes_of(&shm), 1, SIZE);
    assert_int_equal(modus_shm_create(&shm, name, SIZE), -EEXIST);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink_unused(name), 0);
    /* the loser of two makers */
    maker = stopped_at(MODUS_FAULT_SHM_WHOLE, create_one);
    shm = created(name, SIZE + 1);
    kill_child(maker);
    modus_shm_close(&shm);
    shm = opened(SIZE + 1);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink(name), 0);
}

static void test_killed_user(void **state)
{
    struct modus_shm shm = created(name, SIZE);
    (void)state;

    pid_t user = stopped_at(MODUS_FAULT_NONE, open_and_stay);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink_unused(name), -EBUSY);
    kill_child(user);
    assert_int_equal(modus_shm_unlink_unused(name), 0);
    /* a forked copy of the handle counts as well */
    shm = created(name, SIZE);
    user = stopped_at(MODUS_FAULT_SHM_FOUND, open_one);
    modus_shm_close(&shm);
    assert_int_equal(modus_shm_unlink_unused(name), -EBUSY);
    kill_child(user);
    assert_int_equal(modus_shm_unlink_unused(name), 0);
}

/* Whoever removes a name is killed before, or meets others there. */
static void test_killed_unlinker(void **state)
{
    struct modus_shm shm = created(name, SIZE);
    (void)state;

    modus_shm_close(&shm);
    pid_t child = stopped_at(MODUS_FAULT_SHM_UNUSED, unlink_one);
    assert_int_equal(modus_shm_open(&shm, name, SIZE), -EAGAIN);
    assert_int_equal(modus_shm_unlink_unused(name), -EBUSY);
    kill_child(child);
    shm = opened(SIZE);
    modus_shm_close(&shm);
    child = stopped_at(MODUS_FAULT_SHM_FOUND, unlink_one); /* and the name is gone */
    assert_int_equal(modus_shm_unlink_unused(name), 0);
    assert_int_equal(let_go(child), ENOENT);
    shm = created(name, SIZE);
    modus_shm_close(&shm);
    child = stopped_at(MODUS_FAULT_SHM_FOUND, unlink_one); /* and another has it by now */
    assert_int_equal(modus_shm_unlink_unused(name), 0);
    shm = created(name, SIZE);
    modus_shm_close(&shm);
    assert_int_equal(let_go(child), EAGAIN);
    shm = opened(SIZE);
    modus_shm_close(&shm);
    child = stopped_at(MODUS_FAULT_SHM_FOUND, open_one); /* what it opens is thrown away */
    assert_int_equal(modus_shm_unlink_unused(name), 0);
    assert_int_equal(let_go(child), ENOENT);
}

/* Make it if nobody has, use it, remove it if nobody has it any more, for ever. What is found is
 * whole at any moment. */
static int come_and_go(void *argument)
{
    enum { MARK = 0x5eed };
    (void)argument;
    for (;;) {
        struct modus_shm shm = {0};
        int rc = modus_shm_open(&shm, name, SIZE);

        if (rc == -ENOENT || rc == -EAGAIN)
            rc = modus_shm_create(&shm, name, SIZE);
        CHECK(rc == 0 || rc == -EEXIST);
        if (rc == 0) {
            _Atomic int *words = modus_shm_memory(&shm);

            CHECK(modus_shm_size(&shm) == SIZE);
            CHECK(words[0] == 0 || words[0] == MARK);
            words[0] = MARK;
            words[SIZE / sizeof *words - 1] = MARK; /* no SIGBUS */
            modus_shm_close(&shm);
        }
        rc = modus_shm_unlink_unused(name);
        CHECK(rc == 0 || rc == -ENOENT || rc == -EBUSY || rc == -EAGAIN);
    }
}

static void test_chaos(void **state)
{
    enum { USERS = 4, KILLS = 150 };
    pid_t users[USERS];
    (void)state;

    for (int i = 0; i < USERS; i++)
        users[i] = start_child(come_and_go, NULL);
    for (int i = 0; i < KILLS; i++) {
        usleep(2000 + (unsigned)(i * 7919 % 1000));
        kill_child(users[i % USERS]);
        users[i % USERS] = start_child(come_and_go, NULL);
    }
    for (int i = 0; i < USERS; i++)
        kill_child(users[i]);
    int rc = modus_shm_unlink_unused(name);
    assert_true(rc == 0 || rc == -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_killed_maker),
        TEST(test_killed_user),
        TEST(test_killed_unlinker),
        TEST(test_chaos),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
