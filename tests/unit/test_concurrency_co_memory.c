/* SPDX-License-Identifier: MIT */
/*
 * Coroutines when memory is out: over some that start, sleep and wait for descriptors, each
 * allocation fails once, in turn. Who cannot be started is told so; who runs waits as long as it said.
 * The files are included, so that only their calls are replaced.
 */
#include "test_concurrency_co.h"

#include <fcntl.h>
#include <sys/resource.h>

static int until_failure = -1; /* allocations that still work; -1: all do */
static bool one_failed, all_fail;

static bool fails(void)
{
    if (all_fail)
        return true;
    if (until_failure < 0 || until_failure-- > 0)
        return false;
    one_failed = true;
    return true;
}

static void *malloc_or_not(size_t size)
{
    return fails() ? NULL : malloc(size);
}

static void *calloc_or_not(size_t count, size_t size)
{
    return fails() ? NULL : calloc(count, size);
}

static void *realloc_or_not(void *at, size_t size)
{
    return fails() ? NULL : realloc(at, size);
}

#define malloc  malloc_or_not
#define calloc  calloc_or_not
#define realloc realloc_or_not
#include "concurrency/coroutine.c"
#include "concurrency/coroutine_fd.c"
#include "concurrency/coroutine_id.c"
#include "concurrency/timers.c"
#undef malloc
#undef calloc
#undef realloc

enum { SLEEPERS = 40 };

static int ends[2];
static unsigned refused;

static int sleep_long(void *argument)
{
    int64_t until = modus_now_ns() + modus_ms(20);

    CHECK_INT(modus_co_sleep_until(until), 0);
    CHECK(modus_now_ns() >= until);
    return argument != NULL;
}

static int await_byte(void *argument)
{
    int64_t begin_at = modus_now_ns();
    int rc = modus_co_wait_fd(ends[0], POLLIN, modus_ms(20), NULL);

    if (rc == -ENOMEM)
        refused++;
    else
        CHECK(rc == -ETIMEDOUT && modus_now_ns() >= begin_at + modus_ms(20));
    return argument != NULL;
}

static int start_some(void *argument)
{
    for (int i = 0; i < SLEEPERS; i++) {
        int rc = modus_co_start(NULL, NULL, i % 8 ? sleep_long : await_byte, argument);

        CHECK(rc == 0 || rc == -ENOMEM);
        refused += rc != 0;
    }
    return 0;
}

static void test_each(void **state)
{
    unsigned n = 0;
    (void)state;

    assert_int_equal(pipe(ends), 0);
    do {
        until_failure = (int)n++;
        one_failed = false;
        refused = 0;
        int rc = modus_co_run(start_some, NULL);
        until_failure = -1;
        assert_true(rc == 0 || rc == -ENOMEM);
        assert_int_equal(refused + (rc == -ENOMEM), one_failed);
    } while (one_failed);
    assert_true(n > SLEEPERS);
    close(ends[0]);
    close(ends[1]);
}

/* They have been started; from then on there is none. */
static int starve(void *argument)
{
    for (int i = 0; i < SLEEPERS; i++)
        CHECK_INT(modus_co_start(NULL, NULL, sleep_long, argument), 0);
    all_fail = true;
    return 0;
}

static void test_from_then_on(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(starve, NULL), 0);
    all_fail = false;
}

/* libuv, too, has none: it would end the process. */
static int starve_all(void *argument)
{
    struct rlimit most;
    unsigned long pages;
    int fd = fcntl(ends[0], F_DUPFD, 3000); /* a number that no table has room for yet */
    (void)argument;

    CHECK(fd >= 3000);
    CHECK_INT(modus_co_sleep(modus_ms(1)), 0); /* so that the loop has all that it needs */
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    CHECK_INT(getrlimit(RLIMIT_AS, &most), 0);
    rlim_t before = most.rlim_cur;
    most.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE);
    CHECK_INT(setrlimit(RLIMIT_AS, &most), 0);
    for (size_t size = 1 << 20; size >= 2048; size /= 2)
        while (malloc(size))
            continue;
    int rc = modus_co_wait_fd(fd, POLLIN, modus_ms(1), NULL);
    most.rlim_cur = before;
    CHECK_INT(setrlimit(RLIMIT_AS, &most), 0);
    CHECK_INT(rc, -ENOMEM);
    return 0;
}

static int run_starved(void *argument)
{
    struct rlimit fds;

    CHECK_INT(getrlimit(RLIMIT_NOFILE, &fds), 0);
    fds.rlim_cur = fds.rlim_max < 4000 ? fds.rlim_max : 4000;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &fds), 0);
    return modus_co_run(starve_all, argument);
}

static void test_descriptor(void **state)
{
    (void)state;
#if SLOW /* a sanitizer's own memory is limited, too */
    skip();
#endif
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(reap(start_child(run_starved, NULL)), 0);
    close(ends[0]);
    close(ends[1]);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_each),
        TEST(test_from_then_on),
        TEST(test_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
