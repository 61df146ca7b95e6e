/* SPDX-License-Identifier: MIT */
/* HTTP dates: the three forms, their limits, and that writing and reading agree with the C library
 * over the whole range. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "net/http_date.h"

enum { EXAMPLE = 784111777 };          /* Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110's own */
static const int64_t NOW = 1785500000; /* in July 2026 */

static bool reads(const char *text, int64_t *at_s)
{
    return http_date_parse(str_of(text), NOW, at_s);
}

static void assert_reads(const char *text, int64_t wanted)
{
    int64_t at = -1;
    if (!reads(text, &at))
        fail_msg("not read: %s", text);
    assert_int_equal(at, wanted);
}

static void the_three_forms(void **state)
{
    (void)state;
    assert_reads("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE);
    assert_reads("Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE);
    assert_reads("Sun Nov  6 08:49:37 1994", EXAMPLE);
    assert_reads("Wed Nov 16 08:49:37 1994", EXAMPLE + 10 * 86400);
    assert_reads("Thu, 01 Jan 1970 00:00:00 GMT", 0);
    assert_reads("Wed, 31 Dec 1969 23:59:59 GMT", -1);
    assert_reads("Tue, 29 Feb 2000 00:00:00 GMT", 951782400);
    assert_reads("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800);
}

/* The two-digit year is the nearest that lies at most 50 years ahead. */
static void century_of_rfc850(void **state)
{
    (void)state;
    int64_t at;
    assert_true(reads("Friday, 31-Jul-76 00:00:00 GMT", &at));
    assert_int_equal(at, 3363379200); /* 2076 */
    assert_true(reads("Sunday, 31-Jul-77 00:00:00 GMT", &at));
    assert_int_equal(at, 239155200); /* 1977 */
    assert_true(http_date_parse(STR("Friday, 01-Jan-10 00:00:00 GMT"), 4000000000 /* 2096 */, &at));
    assert_int_equal(at, 1262304000);
}

static void refuses_the_rest(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "Sun",
        "Sun,",
        "0",
        "784111777",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:00:61 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06 Nov 01994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sunday Nov  6 08:49:37 1994",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov 06 08:49:37 1994 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov -994 08:49:37 GMT",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int64_t at = 42;
        if (reads(texts[i], &at))
            fail_msg("was read: %s", texts[i]);
        assert_int_equal(at, 42);
    }
    int64_t at = 42;
    assert_false(http_date_parse((struct str){0}, NOW, &at));
    /* No prefix of a date is one. */
    const char *whole = "Sunday, 06-Nov-94 08:49:37 GMT";
    for (size_t len = 0; len < strlen(whole); len++)
        assert_false(http_date_parse((struct str){whole, len}, NOW, &at));
}

static void agrees_with_the_c_library(void **state)
{
    (void)state;
    for (int64_t at = -62135596800; at < 253402300800; at += 86400 * 11 + 12345) {
        char ours[HTTP_DATE_LEN + 1], theirs[64];
        struct tm tm;
        time_t t = at;
        int64_t back = 0;
        http_date_format(ours, at);
        gmtime_r(&t, &tm);
        strftime(theirs, sizeof theirs, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        if (tm.tm_year + 1900 >= 1000) /* glibc does not pad years */
            assert_string_equal(ours, theirs);
        assert_true(http_date_parse(str_of(ours), NOW, &back));
        assert_int_equal(back, at);
    }
}

static void years_are_cut(void **state)
{
    (void)state;
    char text[HTTP_DATE_LEN + 1];
    http_date_format(text, INT64_MAX);
    assert_string_equal(text, "Fri, 31 Dec 9999 23:59:59 GMT");
    http_date_format(text, INT64_MIN);
    assert_string_equal(text, "Sat, 01 Jan 0000 00:00:00 GMT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_three_forms),           cmocka_unit_test(century_of_rfc850),
        cmocka_unit_test(refuses_the_rest),          cmocka_unit_test(years_are_cut),
        cmocka_unit_test(agrees_with_the_c_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
