/* SPDX-License-Identifier: MIT */
/* Request targets: one spelling for each path, and nothing leads above the root. Both the target
 * and the scratch space end where memory ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "net/target.h"

enum { PAGE = 65536 };

/* len bytes before the first of two protected pages, or before the second. */
static char *at_end_of_memory(int which, size_t len)
{
    static char *areas[2];
    if (!areas[which]) {
        areas[which] =
            mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(areas[which] != MAP_FAILED);
        assert_int_equal(mprotect(areas[which] + PAGE, PAGE, PROT_NONE), 0);
    }
    return areas[which] + PAGE - len;
}

static int parse(const char *text, struct target *out)
{
    size_t len = strlen(text);
    char *raw = at_end_of_memory(0, len), *scratch = at_end_of_memory(1, len + 1);
    memcpy(raw, text, len);
    return target_parse((struct str){raw, len}, scratch, out);
}

static void expect(const char *raw, const char *path, const char *query)
{
    struct target t;
    int status = parse(raw, &t);
    if (status != 0 || !str_is(t.path, str_of(path)) || !str_is(t.query, str_of(query)))
        fail_msg("%s: %d, %.*s ? %.*s", raw, status, (int)t.path.len, t.path.at, (int)t.query.len,
                 t.query.at);
    assert_false(t.asterisk);
}

static void expect_refused(const char *raw)
{
    struct target t;
    if (parse(raw, &t) != 400)
        fail_msg("%s is taken as %.*s", raw, (int)t.path.len, t.path.at);
}

static void plain_paths(void **state)
{
    (void)state;
    expect("/", "/", "");
    expect("/a", "/a", "");
    expect("/a/", "/a/", "");
    expect("/a/b.c", "/a/b.c", "");
    expect("/a?", "/a", "");
    expect("/a?b=c", "/a", "b=c");
    expect("/?b", "/", "b");
    expect("/a?b?c/../d", "/a", "b?c/../d");
    expect("/a?%2e%zz", "/a", "%2e%zz");
    expect("/a;b=c,d", "/a;b=c,d", "");
    expect("/.well-known/x", "/.well-known/x", "");
    expect("/...", "/...", "");
    expect("/..a/.b./c..", "/..a/.b./c..", "");
}

static void normal_forms(void **state)
{
    (void)state;
    expect("/a%20b", "/a b", "");
    expect("/%41%62%7e", "/Ab~", "");
    expect("/%c3%a9", "/\xc3\xa9", "");
    expect("/a%2Fb", "/a/b", "");
    expect("/a%2fb%2F", "/a/b/", "");
    expect("/a%3Fb", "/a?b", "");
    expect("/%25", "/%", "");
    expect("/%2541", "/%41", ""); /* decoded once */
    expect("//", "/", "");
    expect("//a", "/a", "");
    expect("/a//b", "/a/b", "");
    expect("/a///", "/a/", "");
    expect("/.", "/", "");
    expect("/./", "/", "");
    expect("/a/.", "/a/", "");
    expect("/a/./b", "/a/b", "");
    expect("/a/..", "/", "");
    expect("/a/../", "/", "");
    expect("/a/b/..", "/a/", "");
    expect("/a/b/../", "/a/", "");
    expect("/a/b/../c", "/a/c", "");
    expect("/a/b/../../c", "/c", "");
    expect("/a/./../b/.//c/..", "/b/", "");
    expect("/a/%2e%2E/b", "/b", "");
    expect("/a/.%2e/b", "/b", "");
    expect("/%2e/a", "/a", "");
    expect("/a%2f..%2fb", "/b", "");
    expect("/a%2f%2e%2e", "/", "");
    expect("/%2f%2f", "/", "");
    expect("/a?../..", "/a", "../..");
}

static void above_the_root(void **state)
{
    static const char *const bad[] = {
        "/..",     "/../",         "/../a",     "/a/../..", "/a/../../b",       "/./..",
        "//..",    "/%2e%2e",      "/%2e%2e/a", "/.%2e",    "/a/%2e%2e/%2e%2e", "/%2f..",
        "/..%2fa", "/a%2f..%2f..", "/..?a"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i]);
}

static void escapes(void **state)
{
    static const char *const bad[] = {"/%",   "/%4",  "/%g1",   "/%1g", "/a%",     "/a%2",  "/%%41",
                                      "/% 1", "/%00", "/a%00b", "/%-1", "/%u0041", "/a%4?1"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i]);
}

static void other_forms(void **state)
{
    struct target t;
    (void)state;
    assert_int_equal(parse("*", &t), 0);
    assert_true(t.asterisk);
    assert_true(str_is(t.path, STR("/")));
    expect("http://x", "/", "");
    expect("http://x/", "/", "");
    expect("HTTP://x:80/a?b", "/a", "b");
    expect("https://x/a/../b", "/b", "");
    expect("http://x?a", "/", "a");
    expect("http://[::1]:8080/a", "/a", "");
    static const char *const bad[] = {"",
                                      "?",
                                      "?a",
                                      "a",
                                      "a/b",
                                      "**",
                                      "*/",
                                      "http://u:p@x/",
                                      "http://u@x/",
                                      "http://x:y/",
                                      "http://[::1/",
                                      "http://::1/",
                                      "http://",
                                      "http:///a",
                                      "http:/a",
                                      "http:a",
                                      "http//x/",
                                      "ftp://x/",
                                      "x:80",
                                      "://x/",
                                      "http://?a",
                                      ".",
                                      "..",
                                      "\\a",
                                      "%2f",
                                      "https:///"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_refused(bad[i]);
}

/* Whatever the bytes: what comes out is a path of one spelling, and normalising it again changes
 * nothing. */
static void random_targets(void **state)
{
    static const char *const parts[] = {"/", "//",  ".",       "..", "a", "%2e", "%2F", "%25", "%",
                                        "?", "%41", "http://", "x",  "*", "%00", "%2",  "b"};
    uint32_t seed = 7;
    (void)state;
    for (int turn = 0; turn < 100000; turn++) {
        char text[256] = "";
        struct target t, again;
        seed = seed * 1664525 + 1013904223;
        if (seed >> 30)
            strcat(text, "/");
        for (uint32_t n = (seed >> 16) % 12; n; n--) {
            seed = seed * 1664525 + 1013904223;
            strcat(text, parts[(seed >> 8) % (sizeof parts / sizeof *parts)]);
        }
        int status = parse(text, &t);
        if (status) {
            assert_int_equal(status, 400);
            continue;
        }
        assert_true(t.path.len >= 1 && t.path.at[0] == '/');
        char path[300];
        snprintf(path, sizeof path, "%.*s/", (int)t.path.len, t.path.at);
        assert_null(memmem(path, t.path.len, "//", 2));
        assert_null(strstr(path, "/./"));
        assert_null(strstr(path, "/../"));
        path[t.path.len] = '\0';
        if (strpbrk(path, "%?") == NULL) {
            assert_int_equal(parse(path, &again), 0);
            assert_true(str_is(again.path, str_of(path)));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_paths),    cmocka_unit_test(normal_forms),
        cmocka_unit_test(above_the_root), cmocka_unit_test(escapes),
        cmocka_unit_test(other_forms),    cmocka_unit_test(random_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
