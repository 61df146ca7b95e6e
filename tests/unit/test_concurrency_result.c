/* SPDX-License-Identifier: MIT */
/* Codes and words, deadlines, and the identity of threads across fork. */
#include "test_concurrency.h"

#include <limits.h>
#include <sys/syscall.h>

static void test_words(void **state)
{
    (void)state;
    assert_string_equal(modus_result_name(0), "OK");
    assert_string_equal(modus_result_name(-ETIMEDOUT), "ETIMEDOUT");
    assert_string_equal(modus_result_name(MODUS_CLOSED), "CLOSED");
    assert_string_equal(modus_result_name(12345), "UNKNOWN");
    assert_string_equal(modus_strresult(MODUS_OWNERDEAD),
                        "acquired, but the previous owner died holding it");
    assert_string_equal(modus_result_name(-EUSERS), "EUSERS");
    assert_non_null(strstr(modus_strresult(-ECHILD), "join")); /* what the user has to do */
    assert_string_equal(modus_strresult(-12345), "unknown result");
    assert_string_equal(modus_strresult(INT_MIN), "unknown result");
    assert_string_equal(modus_strresult(-ECONNREFUSED), "Connection refused"); /* a task's own */
    assert_string_equal(modus_result_name(-ECONNREFUSED), "ECONNREFUSED");
    assert_true(MODUS_OWNERDEAD > 0);
#define X(code, name, sentence) assert_true((code) <= 0 || (code) == MODUS_OWNERDEAD);
    MODUS_RESULTS(X)
#undef X
}

static void test_deadline(void **state)
{
    (void)state;
    int64_t before = modus_now_ns(), deadline = modus_deadline(modus_ms(5));
    assert_in_range(deadline - before, modus_ms(5), modus_seconds(5));
    assert_int_equal(modus_deadline(MODUS_FOREVER), MODUS_FOREVER);
    assert_int_equal(modus_deadline(INT64_MAX), INT64_MAX);
    assert_int_equal(modus_us(3), 3000);
}

static int child_identity(void *parent_stamp)
{
    CHECK_INT(modus_self_tid(), getpid());
    CHECK(modus_self_stamp() > *(uint64_t *)parent_stamp);
    return 0;
}

/* The cached thread id is right in a child, also in one made behind the C library's back. */
static void test_identity_after_fork(void **state)
{
    uint64_t stamp = modus_self_stamp();
    (void)state;

    assert_int_equal(modus_self_tid(), gettid());
    assert_int_equal(reap(start_child(child_identity, &stamp)), 0);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
    if (pid == 0)
        _exit(modus_self_tid() == (uint32_t)syscall(SYS_gettid) ? 0 : 1);
    assert_int_equal(reap(pid), 0);
    assert_int_equal(modus_self_tid(), gettid());
    assert_int_equal(modus_self_stamp(), stamp);
}

static void *store_tid(void *tid)
{
    *(uint32_t *)tid = modus_self_tid();
    return NULL;
}

static void test_identity_of_threads(void **state)
{
    uint32_t tid = 0;
    (void)state;

    join_thread(start_thread(store_tid, &tid));
    assert_int_not_equal(tid, 0);
    assert_int_not_equal(tid, modus_self_tid());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_words, watchdog),
        cmocka_unit_test_setup(test_deadline, watchdog),
        cmocka_unit_test_setup(test_identity_after_fork, watchdog),
        cmocka_unit_test_setup(test_identity_of_threads, watchdog),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
