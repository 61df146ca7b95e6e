/* SPDX-License-Identifier: MIT */
/* Typed values at their borders, and the nearest word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/config_value.h"

typedef int parser(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY]);

static void good(parser *p, const char *text, int64_t min, int64_t max, int64_t expected)
{
    char why[VALUE_WHY] = "";
    int64_t out = -77;
    if (p(text, min, max, &out, why) != 0)
        fail_msg("%s: %s", text, why);
    assert_int_equal(out, expected);
}

static void bad(parser *p, const char *text, int64_t min, int64_t max, const char *expected)
{
    char why[VALUE_WHY] = "";
    int64_t out = -77;
    assert_int_equal(p(text, min, max, &out, why), -1);
    assert_string_equal(why, expected);
    assert_int_equal(out, -77); /* untouched */
}

static void numbers(void **state)
{
    (void)state;
    good(value_number, "1", 1, 5, 1);
    good(value_number, "5", 1, 5, 5);
    good(value_number, "007", 1, 9, 7);
    good(value_number, "-3", -3, 5, -3);
    good(value_number, "9223372036854775807", 0, INT64_MAX, INT64_MAX);
    bad(value_number, "0", 1, 5, "0 is out of range: 1 to 5");
    bad(value_number, "6", 1, 5, "6 is out of range: 1 to 5");
    bad(value_number, "-1", 0, 5, "-1 is out of range: 0 to 5");
    bad(value_number, "-1", 0, INT64_MAX, "-1 is out of range: at least 0");
    bad(value_number, "9223372036854775808", 0, INT64_MAX,
        "9223372036854775808 is out of range: at least 0");
    bad(value_number, "99999999999999999999999999", 0, 5,
        "99999999999999999999999999 is out of range: 0 to 5");
    bad(value_number, "", 0, 5, "\"\" is not a number");
    bad(value_number, "-", 0, 5, "\"-\" is not a number");
    bad(value_number, "--1", 0, 5, "\"--1\" is not a number");
    bad(value_number, "+1", 0, 5, "\"+1\" is not a number");
    bad(value_number, " 1", 0, 5, "\" 1\" is not a number");
    bad(value_number, "1 ", 0, 5, "\"1 \" is not a number");
    bad(value_number, "0x10", 0, 50, "\"0x10\" is not a number");
    bad(value_number, "1e3", 0, 5000, "\"1e3\" is not a number");
    bad(value_number, "1.5", 0, 5, "\"1.5\" is not a number");
    bad(value_number, "4k", 0, 5000, "\"4k\" is not a number");
    bad(value_number, "auto", 0, 5, "\"auto\" is not a number");
}

static void autos(void **state)
{
    (void)state;
    good(value_auto, "auto", 1, 5, 0);
    good(value_auto, "2", 1, 5, 2);
    bad(value_auto, "0", 1, 5, "0 is out of range: 1 to 5");
    bad(value_auto, "Auto", 1, 5, "\"Auto\" is not a number or auto");
}

static void sizes(void **state)
{
    (void)state;
    good(value_size, "0", 0, 10, 0);
    good(value_size, "512", 0, 1024, 512);
    good(value_size, "1k", 0, 1024, 1024);
    good(value_size, "16m", 0, INT64_MAX, 16 << 20);
    good(value_size, "2g", 0, INT64_MAX, (int64_t)2 << 30);
    good(value_size, "0k", 0, 10, 0);
    bad(value_size, "2k", 0, 1024, "2k is out of range: 0 to 1k");
    bad(value_size, "1025", 512, 1024, "1025 is out of range: 512 to 1k");
    bad(value_size, "9999999999g", 0, 1 << 20, "9999999999g is out of range: 0 to 1m");
    bad(value_size, "1t", 0, 10, "\"1t\" is not a size: the units are k, m or g");
    bad(value_size, "1kb", 0, 10, "\"1kb\" is not a size: the units are k, m or g");
    bad(value_size, "1K", 0, 10, "\"1K\" is not a size: the units are k, m or g");
    bad(value_size, "k", 0, 10, "\"k\" is not a size");
    bad(value_size, "1 k", 0, 10, "\"1 k\" is not a size: the units are k, m or g");
}

static void durations(void **state)
{
    (void)state;
    good(value_duration, "0", 0, 10, 0);
    good(value_duration, "0s", 0, 10, 0);
    good(value_duration, "1ms", 1, 10, 1);
    good(value_duration, "500ms", 0, 1000, 500);
    good(value_duration, "10s", 0, INT64_MAX, 10000);
    good(value_duration, "5m", 0, INT64_MAX, 300000);
    good(value_duration, "24h", 0, 86400000, 86400000);
    bad(value_duration, "10", 0, 100000, "\"10\" needs a unit: ms, s, m or h");
    bad(value_duration, "99999999999999999999", 0, 1,
        "\"99999999999999999999\" needs a unit: ms, s, m or h");
    bad(value_duration, "-5", 0, 1, "\"-5\" needs a unit: ms, s, m or h");
    bad(value_duration, "-5s", 0, 1000, "-5s is out of range: 0 to 1s");
    bad(value_duration, "0", 1, 3600000, "0 is out of range: 1ms to 1h");
    bad(value_duration, "25h", 0, 86400000, "25h is out of range: 0 to 24h");
    bad(value_duration, "9223372036854775807h", 0, INT64_MAX,
        "9223372036854775807h is out of range: at least 0");
    bad(value_duration, "1d", 0, 1, "\"1d\" is not a duration: the units are ms, s, m or h");
    bad(value_duration, "1.5s", 0, 1, "\"1.5s\" is not a duration: the units are ms, s, m or h");
    bad(value_duration, "ms", 0, 1, "\"ms\" is not a duration");
    bad(value_duration, "5S", 0, 1, "\"5S\" is not a duration: the units are ms, s, m or h");
}

static void words(void **state)
{
    (void)state;
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    char why[VALUE_WHY];
    int i = -77;
    assert_int_equal(value_choice("error", levels, &i, why), 0);
    assert_int_equal(i, 3);
    assert_int_equal(value_choice("inof", levels, &i, why), -1);
    assert_string_equal(
        why, "unknown word \"inof\"; did you mean \"info\"? (debug, info, warn or error)");
    assert_int_equal(value_choice("", levels, &i, why), -1);
    assert_int_equal(i, 3);
}

static void bools(void **state)
{
    (void)state;
    static const char *const yes[] = {"true", "yes", "on"}, *const no[] = {"false", "no", "off"};
    char why[VALUE_WHY];
    bool b;
    for (int i = 0; i < 3; i++) {
        b = false;
        assert_int_equal(value_bool(yes[i], &b, why), 0);
        assert_true(b);
        assert_int_equal(value_bool(no[i], &b, why), 0);
        assert_false(b);
    }
    assert_int_equal(value_bool("1", &b, why), -1);
    assert_int_equal(value_bool("True", &b, why), -1);
    assert_string_equal(
        why, "unknown word \"True\"; did you mean \"true\"? (false, true, no, yes, off or on)");
}

static void shows(void **state)
{
    (void)state;
    assert_string_equal(value_show_duration(0).text, "0");
    assert_string_equal(value_show_duration(1500).text, "1500ms");
    assert_string_equal(value_show_duration(60000).text, "1m");
    assert_string_equal(value_show_duration(90000).text, "90s");
    assert_string_equal(value_show_duration(INT64_MAX).text, "9223372036854775807ms");
    assert_string_equal(value_show_size(32768).text, "32k");
    assert_string_equal(value_show_size(1025).text, "1025");
    assert_string_equal(value_show_size((int64_t)1 << 40).text, "1024g");
}

/* A user's text in a message: one line, short, and no half of a character. */
static void shown_text(void **state)
{
    (void)state;
    char text[100], expected[100];
    assert_string_equal(value_shown_text("a\nb\x01\x7f").text, "a?b??");
    memset(text, 'a', sizeof text);
    memcpy(text + 47, "\xc3\xa9", 2);
    memset(expected, 'a', 47);
    strcpy(expected + 47, "...");
    assert_string_equal(value_shown(text, sizeof text).text, expected);
    assert_string_equal(value_shown("abcdef", 3).text, "abc");
    memset(text, 0x80, sizeof text); /* no character begins here at all */
    assert_string_equal(value_shown(text, sizeof text).text, "...");
}

static const char *nearest(const char *word, const char *const *candidates)
{
    struct value_nearest n = {.word = word, .len = strlen(word)};
    while (*candidates)
        value_nearest_offer(&n, *candidates++);
    return n.best;
}

static void near_words(void **state)
{
    (void)state;
    static const char *const keys[] = {"model", "threads", "queue", "queue_timeout", "loops", NULL};
    assert_string_equal(nearest("modle", keys), "model"); /* two letters swapped */
    assert_string_equal(nearest("thread", keys), "threads");
    assert_string_equal(nearest("que", keys), "queue");
    assert_string_equal(nearest("queuetimeout", keys), "queue_timeout");
    assert_string_equal(nearest("queue-timeout", keys), "queue_timeout");
    assert_string_equal(nearest("", keys), "model"); /* the first of the shortest */
    char huge[5000];
    memset(huge, 'q', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    assert_non_null(nearest(huge, keys));
}

static void hints(void **state)
{
    (void)state;
    struct value_nearest n = {.word = "modle", .len = 5};
    assert_string_equal(value_nearest_hint(&n).text, "");
    value_nearest_offer(&n, "model");
    assert_string_equal(value_nearest_hint(&n).text, "; did you mean \"model\"?");
    n = (struct value_nearest){.word = "xyzzy", .len = 5};
    value_nearest_offer(&n, "model");
    assert_string_equal(value_nearest_hint(&n).text, "");
}

/* A third of the letters may be wrong, one in short words; the beginning of a word is near it too.
 */
static void near_enough(void **state)
{
    (void)state;
    static const struct {
        const char *word, *candidate;
        bool near;
    } cases[] = {
        {"usr", "user", true},
        {"us", "user", true},
        {"u", "user", false},
        {"server", "user", false},
        {"cert", "certificate", true},
        {"USER", "user", true},
        {"Model", "model", true},
        {"modle", "model", true},
        {"mdoel", "model", true},
        {"mdole", "model", false},
        {"thrads", "threads", true},
        {"trads", "threads", false},
        {"keep_alive_timeout", "keepalive_timeout", true},
        {"", "user", false},
        {"body_timeouts", "send_timeout", false},
        {"log", "threads", false},
        {"loud", "debug", false},
        {"listen|user", "listen", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct value_nearest n = {.word = cases[i].word, .len = strlen(cases[i].word)};
        value_nearest_offer(&n, cases[i].candidate);
        if ((*value_nearest_hint(&n).text != '\0') != cases[i].near)
            fail_msg("%s for %s", cases[i].candidate, cases[i].word);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),   cmocka_unit_test(autos),       cmocka_unit_test(sizes),
        cmocka_unit_test(durations), cmocka_unit_test(words),       cmocka_unit_test(bools),
        cmocka_unit_test(shows),     cmocka_unit_test(shown_text),  cmocka_unit_test(near_words),
        cmocka_unit_test(hints),     cmocka_unit_test(near_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
