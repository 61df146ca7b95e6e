/* SPDX-License-Identifier: MIT */
/* wrk, as the lab runs it: server/lab/wrk.h. A script stands for it, in a PATH of the test's own. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "concurrency/result.h"
#include "server/lab/wrk.h"

static char folder[] = "/tmp/modus-wrk-XXXXXX", wrk[64];
static volatile sig_atomic_t stop;

/* NULL: there is none. */
static void put_wrk(const char *lines, mode_t mode)
{
    remove(wrk);
    if (!lines)
        return;
    FILE *file = fopen(wrk, "we");
    assert_non_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", lines);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(wrk, mode), 0);
}

static struct lab_wrk_plan plan(double seconds)
{
    return (struct lab_wrk_plan){.url = "http://127.0.0.1:1/",
                                 .connections = 1,
                                 .seconds = seconds,
                                 .folder = folder,
                                 .stop = &stop};
}

static const char *version_of(const char *lines, mode_t mode)
{
    static char version[64];
    put_wrk(lines, mode);
    lab_wrk_version(version);
    return version;
}

static void its_version(void **state)
{
    (void)state;
    assert_string_equal(version_of("echo 'wrk 4.1.0 [epoll] Copyright'; exit 1", 0755), "4.1.0");
    assert_string_equal(version_of("echo 'wrk debian/4.1.0-3 [epoll]'", 0755), "debian/4.1.0-3");
    assert_string_equal(version_of(NULL, 0), "");
    assert_string_equal(version_of("echo nonsense", 0755), "unknown");
    assert_string_equal(version_of("echo 'wrk '", 0755), "unknown");
    assert_string_equal(version_of("exit 3", 0755), "unknown");
    assert_string_equal(version_of("", 0644), "unknown"); /* can't be executed */
}

static void what_it_has_counted(void **state)
{
    struct lab_wrk_plan p = plan(1);
    struct lab_load_result *result = calloc(1, sizeof *result);
    char why[300];
    (void)state;
    stop = 0;
    put_wrk("echo LAB 10 2000000 1234 1 2 3 4 5; echo AT 100 6", 0755);
    assert_int_equal(lab_wrk_run(&p, result, why, sizeof why), 0);
    assert_int_equal(result->answered, 6);
    assert_int_equal(result->refused, 4);
    assert_true(result->seconds == 2);
    assert_int_equal(result->latency.count, 6);
    put_wrk("echo 'not good' >&2; exit 7", 0755);
    assert_int_equal(lab_wrk_run(&p, result, why, sizeof why), -1);
    assert_string_equal(why, "wrk has ended with status 7: not good");
    put_wrk(NULL, 0);
    assert_int_equal(lab_wrk_run(&p, result, why, sizeof why), -1);
    assert_string_equal(why, "wrk is not in PATH: install the package wrk");
    free(result);
}

static void on_alarm(int signal)
{
    (void)signal;
    stop = 1;
}

/* How long a run of 60 s takes that is told to stop at once. */
static double stopped(const char *lines, int *rc, struct lab_load_result *result, char *why,
                      size_t why_size)
{
    struct lab_wrk_plan p = plan(60);
    int64_t begin = modus_now_ns();
    stop = 0;
    put_wrk(lines, 0755);
    signal(SIGALRM, on_alarm);
    alarm(1);
    *rc = lab_wrk_run(&p, result, why, why_size);
    return (double)(modus_now_ns() - begin) / 1e9;
}

static void told_to_stop_it_reports(void **state)
{
    struct lab_load_result *result = calloc(1, sizeof *result);
    char why[300];
    int rc;
    (void)state;
    double seconds = stopped("trap 'echo LAB 7 1000000 1 0 0 0 0 0; exit 0' INT\n"
                             "while :; do /bin/sleep 0.1; done",
                             &rc, result, why, sizeof why);
    assert_int_equal(rc, 0);
    assert_int_equal(result->answered, 7);
    assert_true(seconds < 30);
    free(result);
}

static void told_to_stop_in_vain_it_is_killed(void **state)
{
    struct lab_load_result *result = calloc(1, sizeof *result);
    char why[300];
    int rc;
    (void)state;
    double seconds = stopped("trap '' INT TERM\nexec /bin/sleep 60", &rc, result, why, sizeof why);
    assert_int_equal(rc, -1);
    assert_non_null(strstr(why, "wrk"));
    assert_true(seconds < 30);
    free(result);
}

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(wrk, sizeof wrk, "%s/wrk", folder);
    return setenv("PATH", folder, 1); /* no other wrk is found, and nothing else */
}

static int remove_folder(void **state)
{
    char script[80];
    (void)state;
    snprintf(script, sizeof script, "%s/wrk.lua", folder);
    remove(script);
    remove(wrk);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_version),
        cmocka_unit_test(what_it_has_counted),
        cmocka_unit_test(told_to_stop_it_reports),
        cmocka_unit_test(told_to_stop_in_vain_it_is_killed),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
