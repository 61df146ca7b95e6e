/* SPDX-License-Identifier: MIT */
/* Ranges and entity tags as headers carry them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "net/http_etag.h"
#include "net/http_range.h"

/* --- ranges ----------------------------------------------------------------------------------- */

/* What a header asks for of size bytes: "0-9 20-29", "ignore" or "unsatisfiable". */
static const char *asks(const char *header, int64_t size)
{
    static char text[1024];
    struct http_range ranges[HTTP_RANGES_MAX];
    size_t count = 99, at = 0;
    enum http_range_verdict verdict = http_range_parse(str_of(header), size, ranges, &count);
    if (verdict != HTTP_RANGE_SOME) {
        assert_int_equal(count, 0);
        return verdict == HTTP_RANGE_IGNORE ? "ignore" : "unsatisfiable";
    }
    assert_in_range(count, 1, HTTP_RANGES_MAX);
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%lld-%lld", i ? " " : "",
                               (long long)ranges[i].first, (long long)ranges[i].last);
    return text;
}

static void single_ranges(void **state)
{
    (void)state;
    assert_string_equal(asks("bytes=0-9", 100), "0-9");
    assert_string_equal(asks("bytes=0-0", 100), "0-0");
    assert_string_equal(asks("bytes=99-99", 100), "99-99");
    assert_string_equal(asks("bytes=50-", 100), "50-99");
    assert_string_equal(asks("bytes=50-1000", 100), "50-99");
    assert_string_equal(asks("bytes=-1", 100), "99-99");
    assert_string_equal(asks("bytes=-100", 100), "0-99");
    assert_string_equal(asks("bytes=-1000", 100), "0-99");
    assert_string_equal(asks("Bytes=0-9", 100), "0-9");
    assert_string_equal(asks("bytes=0-99999999999999999999999999", 100), "0-99");
    assert_string_equal(asks("bytes=-99999999999999999999999999", 100), "0-99");
}

static void unsatisfiable_ranges(void **state)
{
    (void)state;
    assert_string_equal(asks("bytes=100-", 100), "unsatisfiable");
    assert_string_equal(asks("bytes=100-200", 100), "unsatisfiable");
    assert_string_equal(asks("bytes=-0", 100), "unsatisfiable");
    assert_string_equal(asks("bytes=100-,200-300,-0", 100), "unsatisfiable");
    assert_string_equal(asks("bytes=99999999999999999999999999-", 100), "unsatisfiable");
    assert_string_equal(asks("bytes=100-,5-6", 100), "5-6");
    assert_string_equal(asks("bytes=0-", 0), "unsatisfiable");
    assert_string_equal(asks("bytes=-0", 0), "unsatisfiable");
    assert_string_equal(asks("bytes=-5", 0), "ignore");
}

static void malformed_ranges(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "",           "bytes",       "bytes=",      "bytes=,",     "bytes=-",       "bytes=a-b",
        "bytes=9-0",  "bytes=0",     "bytes=0-9,",  "bytes 0-9",   "bytes =0-9",    "bytes=0 -9",
        "bytes=0- 9", "bytes=--1",   "bytes=+1-2",  "bytes=1-2x",  "bytes=1-2;3-4", "bytes=1-2 3-4",
        "lines=0-9",  "bytes=0x1-2", "bytes=0-9-9", "bytes=1.0-2", "bytes=0-9,x",   "byte=0-1",
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        const char *got = asks(headers[i], 100);
        bool may_be_empty = strcmp(headers[i], "bytes=0-9,") == 0;
        if (strcmp(got, may_be_empty ? "0-9" : "ignore") != 0)
            fail_msg("%s gave %s", headers[i], got);
    }
    assert_string_equal(asks("bytes= 0-1 , ,\t2-3 ,", 100), "0-1 2-3");
}

static void many_ranges(void **state)
{
    (void)state;
    assert_string_equal(asks("bytes=0-1,4-5", 100), "0-1 4-5");
    assert_string_equal(asks("bytes=4-5,0-1", 100), "4-5 0-1");
    /* Touching ranges stay apart, overlapping ones become one in the earlier's place. */
    assert_string_equal(asks("bytes=0-4,5-9", 100), "0-4 5-9");
    assert_string_equal(asks("bytes=0-5,5-9", 100), "0-9");
    assert_string_equal(asks("bytes=50-59,0-9,55-69", 100), "50-69 0-9");
    assert_string_equal(asks("bytes=0-9,20-29,5-24", 100), "0-29");
    assert_string_equal(asks("bytes=0-9,90-99,40-49,8-91", 100), "0-99");
    assert_string_equal(asks("bytes=40-49,0-9,90-99,45-95", 100), "40-99 0-9");
    assert_string_equal(asks("bytes=0-0,0-0,0-0", 100), "0-0");
    assert_string_equal(asks("bytes=0-,-50,10-20", 100), "0-99");
    assert_string_equal(asks("bytes=0-0,-1", 100), "0-0 99-99");
}

static void sixteen_and_seventeen(void **state)
{
    (void)state;
    char header[400] = "bytes=", wanted[400] = "";
    for (int i = 0; i < 16; i++) {
        snprintf(header + strlen(header), sizeof header - strlen(header), "%s%d-%d", i ? "," : "",
                 i * 3, i * 3 + 1);
        snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), "%s%d-%d", i ? " " : "",
                 i * 3, i * 3 + 1);
    }
    assert_string_equal(asks(header, 100), wanted);
    strcat(header, ",60-61");
    assert_string_equal(asks(header, 100), "ignore");
}

static void content_range(void **state)
{
    (void)state;
    char text[HTTP_CONTENT_RANGE_MAX];
    assert_int_equal(http_content_range(text, &(struct http_range){0, 9}, 100), 13);
    assert_string_equal(text, "bytes 0-9/100");
    http_content_range(text, NULL, 100);
    assert_string_equal(text, "bytes */100");
    http_content_range(text, &(struct http_range){INT64_MAX - 1, INT64_MAX - 1}, INT64_MAX);
    assert_string_equal(text, "bytes 9223372036854775806-9223372036854775806/9223372036854775807");
}

/* --- entity tags ------------------------------------------------------------------------------ */

static bool strong(const char *list, const char *mine)
{
    return http_etag_in(str_of(list), str_of(mine), HTTP_ETAG_STRONG);
}

static bool weak(const char *list, const char *mine)
{
    return http_etag_in(str_of(list), str_of(mine), HTTP_ETAG_WEAK);
}

/* The table of RFC 9110 8.8.3.2. */
static void comparison(void **state)
{
    (void)state;
    assert_false(strong("W/\"1\"", "W/\"1\""));
    assert_true(weak("W/\"1\"", "W/\"1\""));
    assert_false(strong("W/\"1\"", "W/\"2\""));
    assert_false(weak("W/\"1\"", "W/\"2\""));
    assert_false(strong("W/\"1\"", "\"1\""));
    assert_true(weak("W/\"1\"", "\"1\""));
    assert_true(strong("\"1\"", "\"1\""));
    assert_true(weak("\"1\"", "\"1\""));
}

static void lists(void **state)
{
    (void)state;
    assert_true(strong("*", "\"1\""));
    assert_true(strong("\"a\", \"1\"", "\"1\""));
    assert_true(strong(" ,, \"a\"\t,\"1\" ,", "\"1\""));
    assert_true(strong("\"a,\\b\",\"1\"", "\"1\""));
    assert_true(strong("\"\"", "\"\""));
    assert_true(weak("\"x\", W/\"1\"", "\"1\""));
    assert_true(strong("\"\xc3\xa9\"", "\"\xc3\xa9\""));
    assert_false(strong("", "\"1\""));
    assert_false(strong("1", "\"1\""));
    assert_false(strong("\"1", "\"1\""));
    assert_false(strong("w/\"1\"", "\"1\""));
    assert_false(weak("w/\"1\"", "\"1\""));
    assert_false(weak("W/", "\"1\""));
    assert_false(weak("W", "\"1\""));
    assert_false(weak("\"a\" \"1\"", "\"1\""));
    assert_false(weak("x, \"1\"", "\"1\""));
    assert_false(weak("\"a b\", \"1\"", "\"1\""));
    assert_false(weak("*, \"2\"", "\"1\""));
    assert_false(http_etag_in((struct str){0}, STR("\"1\""), HTTP_ETAG_WEAK));
}

static void validity(void **state)
{
    (void)state;
    assert_true(http_etag_is_valid(STR("\"1\"")));
    assert_true(http_etag_is_valid(STR("W/\"1\"")));
    assert_false(http_etag_is_valid(STR("\"1\" ")));
    assert_false(http_etag_is_valid(STR("*")));
    assert_false(http_etag_is_valid(STR("")));
    assert_false(http_etag_is_valid(STR("Sun, 06 Nov 1994 08:49:37 GMT")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_ranges),
        cmocka_unit_test(unsatisfiable_ranges),
        cmocka_unit_test(malformed_ranges),
        cmocka_unit_test(many_ranges),
        cmocka_unit_test(sixteen_and_seventeen),
        cmocka_unit_test(content_range),
        cmocka_unit_test(comparison),
        cmocka_unit_test(lists),
        cmocka_unit_test(validity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
