/* SPDX-License-Identifier: MIT */
/*
 * Pools in programs, and with tasks, that take what the pool stands on: descriptors that are closed
 * or scarce, children that nobody is told of, threads that a task ends.
 */
#include "test_concurrency_pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* Each test in a child, whose limits and signals are its own. */
static void in_child(int (*run)(void *argument))
{
    assert_int_equal(reap(start_child(run, NULL)), 0);
}

/* --- a task that closes all descriptors ------------------------------------------------------ */

/* Another file lies where the pool's descriptors were. */
static int put_a_file_in_their_place(struct modus_call *call)
{
    int file = (int)number_in(call), limit = 64;

    for (int fd = 3; fd < limit; fd++)
        if (fd != file)
            dup2(file, fd);
    return reply(call, getpid());
}

static int tell_pid(struct modus_call *call)
{
    return reply(call, getpid());
}

static int replace_who_has_no_descriptors(void *argument)
{
    int file = memfd_create("others", 0);
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1, .tasks_max = 1});
    (void)argument;

    CHECK(file >= 0);
    for (int i = 0; i < 3; i++) {
        long first = answer_of(ask(pool, put_a_file_in_their_place, file));
        CHECK(answer_of(ask(pool, tell_pid, 0)) != first);
    }
    AWAIT(stats_of(pool).replaced == 6);
    CHECK(stats_of(pool).deaths == 0);
    end_pool(pool);
    CHECK_INT(lseek(file, 0, SEEK_END), 0); /* nothing of ours in it */
    return 0;
}

static void test_task_closes_descriptors(void **state)
{
    (void)state;
    in_child(replace_who_has_no_descriptors);
}

/* One that is another user may not even tell that it goes. */
static int become_another(struct modus_call *call)
{
    return setuid(65534) < 0 ? -EPERM : reply(call, getpid());
}

static int replace_another_user(void *argument)
{
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1, .tasks_max = 1});
    (void)argument;

    long first = answer_of(ask(pool, become_another, 0));
    CHECK(answer_of(ask(pool, tell_pid, 0)) != first);
    CHECK(stats_of(pool).deaths == 0);
    end_pool(pool);
    return 0;
}

static void test_task_is_another_user(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    in_child(replace_another_user);
}

/* --- limits ---------------------------------------------------------------------------------- */

static void limit_descriptors(rlim_t most)
{
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &(struct rlimit){most, most}), 0);
}

static int tell_parent(struct modus_call *call)
{
    return reply(call, getppid());
}

/* There are descriptors enough, and more seats than descriptors. */
static int be_idle(void *argument)
{
    (void)argument;
    limit_descriptors(45 + fds_here() - 3);
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 16});
    int nursery = (int)answer_of(ask(pool, tell_parent, 0));
    for (int asleep = 0; asleep < 50; usleep(1000)) /* one that looks and looks is never for long */
        asleep = state_of(nursery) == 'S' ? asleep + 1 : 0;
    end_pool(pool);
    return 0;
}

static void test_idle_with_few_descriptors(void **state)
{
    (void)state;
    in_child(be_idle);
}

static int have_none(void *argument)
{
    struct modus_pool *pool = NULL;
    unsigned fds = fds_here(), threads = threads_here();
    (void)argument;

    limit_descriptors(fds + 12);
    CHECK_INT(modus_pool_new(&pool, &(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 16}),
              -EMFILE);
    CHECK(!pool);
    CHECK(fds_here() == fds);
    AWAIT(SLOW || threads_here() <= threads); /* a sanitizer has its own */
    CHECK_INT(waitpid(-1, NULL, WNOHANG), -1);
    return 0;
}

static void test_no_descriptors_for_workers(void **state)
{
    (void)state;
    in_child(have_none);
}

/* --- children that nobody is told of --------------------------------------------------------- */

static int die(struct modus_call *call)
{
    raise((int)number_in(call));
    return 0;
}

static int tell_sigchld(struct modus_call *call)
{
    struct sigaction now;

    sigaction(SIGCHLD, NULL, &now);
    return reply(call, now.sa_handler == SIG_IGN);
}

static int ignore_children(void *argument)
{
    (void)argument;
    signal(SIGCHLD, SIG_IGN);
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_PROCESS, .n = 1, .tasks_max = 2});
    for (long i = 0; i < 4; i++)
        CHECK_INT(answer_of(ask(pool, square, i)), i * i);
    CHECK_INT(answer_of(ask(pool, tell_sigchld, 0)), 1);
    AWAIT(stats_of(pool).replaced == 2);
    CHECK(stats_of(pool).deaths == 0);
    struct modus_future *future = ask(pool, die, SIGKILL);
    CHECK_INT(modus_future_wait(future, MODUS_FOREVER), 0);
    CHECK_INT(modus_future_signal(future), SIGKILL);
    CHECK_INT(failure_of(future), MODUS_WORKERDIED);
    CHECK_INT(modus_pool_close(pool), 0);
    CHECK_INT(modus_pool_join(pool, MODUS_FOREVER), 0);
    CHECK_INT(modus_pool_submit(pool, NULL, &(struct modus_task){.run = tell_pid}, 0),
              MODUS_CLOSED);
    modus_pool_free(pool);
    return 0;
}

static void test_children_ignored(void **state)
{
    (void)state;
    in_child(ignore_children);
}

/* --- tasks that end their thread -------------------------------------------------------------- */

static struct modus_pool *threads;

static int leave(struct modus_call *call)
{
    (void)call;
    pthread_exit(NULL);
}

static struct modus_future *inner;

/* It is run here, further down the same stack. */
static int wait_for_leave(struct modus_call *call)
{
    (void)call;
    inner = ask(threads, leave, 0);
    return modus_future_wait(inner, MODUS_FOREVER);
}

static int leave_initializer(void *left)
{
    if (atomic_fetch_sub((atomic_int *)left, 1) > 0)
        pthread_exit(NULL);
    return 0;
}

static void test_task_ends_its_thread(void **state)
{
    struct modus_future *queued[8];
    (void)state;

    threads = pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 1});
    struct modus_future *first = ask(threads, leave, 0), *outer = ask(threads, wait_for_leave, 0);
    for (long i = 0; i < 8; i++)
        queued[i] = ask(threads, i % 2 ? leave : square, i);
    assert_int_equal(failure_of(first), MODUS_WORKERDIED);
    assert_int_equal(failure_of(outer), MODUS_WORKERDIED);
    assert_int_equal(failure_of(inner), MODUS_WORKERDIED);
    for (long i = 0; i < 8; i++) {
        if (i % 2)
            assert_int_equal(failure_of(queued[i]), MODUS_WORKERDIED);
        else
            assert_int_equal(answer_of(queued[i]), i * i);
    }
    AWAIT(stats_of(threads).deaths == 6);
    assert_int_equal(stats_of(threads).running, 0);
    first = ask(threads, leave, 0);
    end_pool(threads);
    assert_int_equal(failure_of(first), MODUS_WORKERDIED);
}

static void test_initializer_ends_its_thread(void **state)
{
    atomic_int left = 2;
    struct modus_pool_attr attr = {
        .kind = MODUS_POOL_THREAD, .n = 1, .initializer = leave_initializer, .argument = &left};
    struct modus_pool *pool = NULL;
    (void)state;

    threads = pool_with(&attr);
    assert_int_equal(answer_of(ask(threads, square, 3)), 9);
    end_pool(threads);
    atomic_store(&left, 3);
    assert_int_equal(modus_pool_new(&pool, &attr), MODUS_WORKERDIED);
    assert_null(pool);
}

/* --- sizes ----------------------------------------------------------------------------------- */

static void test_sizes(void **state)
{
    static char in[8];
    struct modus_pool *pool =
        pool_with(&(struct modus_pool_attr){.kind = MODUS_POOL_THREAD, .n = 1});
    struct modus_map map = {.run = square, .in = in, .n = 1, .in_size = 8, .out_size = SIZE_MAX};
    struct modus_imap *imap = NULL;
    (void)state;

    assert_int_equal(modus_imap_new(&imap, pool, &map, true), -EINVAL);
    assert_int_equal(modus_pool_map(pool, &map), -EINVAL);
    map.out_size = 8;
    map.in_size = SIZE_MAX - 8;
    assert_int_equal(modus_imap_new(&imap, pool, &map, true), -EINVAL);
    assert_null(imap);
    end_pool(pool);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_task_closes_descriptors),
        TEST(test_task_is_another_user),
        TEST(test_idle_with_few_descriptors),
        TEST(test_no_descriptors_for_workers),
        TEST(test_children_ignored),
        TEST(test_task_ends_its_thread),
        TEST(test_initializer_ends_its_thread),
        TEST(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
