/* SPDX-License-Identifier: MIT */
/* Access log lines: each format as log readers know it, and whatever the peer sends, a line is one
 * line, JSON is JSON, and the end is there even when fields had to be cut. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/access_log.h"

enum { AT = 1795200001 }; /* 20 Nov 2026, 18:40:01 */

static const struct exchange_record plain = {
    .peer = {"127.0.0.1", 9},
    .method = {"GET", 3},
    .target = {"/a?b=c", 6},
    .referer = {"http://x/", 9},
    .user_agent = {"curl/8", 6},
    .minor = 1,
    .status = 200,
    .body_bytes = 13,
    .duration_us = 250,
};

static const char *line_of(enum config_log_format format, const struct exchange_record *r)
{
    static char line[16384 + 1];
    size_t n = access_log_line(format, r, AT, line, sizeof line - 1);
    assert_in_range(n, 1, sizeof line - 1);
    assert_int_equal(line[n - 1], '\n');
    line[n] = '\0';
    assert_int_equal(strlen(line), n);
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
    return line;
}

static void formats(void **state)
{
    struct exchange_record r = plain;
    (void)state;
    assert_string_equal(
        line_of(FORMAT_COMMON, &r),
        "127.0.0.1 - - [20/Nov/2026:18:40:01 +0000] \"GET /a?b=c HTTP/1.1\" 200 13\n");
    assert_string_equal(line_of(FORMAT_COMBINED, &r),
                        "127.0.0.1 - - [20/Nov/2026:18:40:01 +0000] \"GET /a?b=c HTTP/1.1\" 200 13 "
                        "\"http://x/\" \"curl/8\"\n");
    assert_string_equal(
        line_of(FORMAT_JSON, &r),
        "{\"time\":1795200001,\"peer\":\"127.0.0.1\",\"method\":\"GET\",\"target\":\"/"
        "a?b=c\",\"protocol\":\"HTTP/1.1\",\"status\":200,"
        "\"bytes\":13,\"duration_us\":250,\"referer\":\"http://x/\",\"user_agent\":\"curl/8\"}\n");
    r.minor = 0;
    r.referer = r.user_agent = (struct str){0};
    r.status = 0;
    r.body_bytes = INT64_MAX;
    assert_string_equal(line_of(FORMAT_COMBINED, &r),
                        "127.0.0.1 - - [20/Nov/2026:18:40:01 +0000] \"GET /a?b=c HTTP/1.0\" 0 "
                        "9223372036854775807 \"-\" \"-\"\n");
    assert_non_null(strstr(line_of(FORMAT_JSON, &r), ",\"referer\":\"\",\"user_agent\":\"\"}\n"));
}

static void escapes(void **state)
{
    struct exchange_record r = plain;
    (void)state;
    r.target = (struct str){"/\"\\\r\n\t\x01\x7f\x80\xff\0z", 12};
    r.user_agent = STR("a\"b\\c\nd");
    const char *line = line_of(FORMAT_COMBINED, &r);
    assert_non_null(
        strstr(line, "\"GET /\\\"\\\\\\x0d\\x0a\\x09\\x01\\x7f\\x80\\xff\\x00z HTTP/1.1\""));
    assert_non_null(strstr(line, "\"a\\\"b\\\\c\\x0ad\"\n"));
    line = line_of(FORMAT_JSON, &r);
    assert_non_null(strstr(
        line, "\"target\":\"/\\\"\\\\\\u000d\\u000a\\u0009\\u0001\\u007f\\u0080\\u00ff\\u0000z\""));
}

/* Reads a JSON string; returns what follows it. */
static const char *json_string(const char *at)
{
    assert_int_equal(*at++, '"');
    while (*at != '"') {
        assert_in_range((unsigned char)*at, 0x20, 0x7e);
        if (*at++ != '\\')
            continue;
        if (*at == 'u') {
            for (int i = 1; i <= 4; i++)
                assert_non_null(strchr("0123456789abcdef", at[i]));
            at += 5;
        } else {
            assert_non_null(strchr("\"\\", *at++));
        }
    }
    return at + 1;
}

static void check_json(const char *at)
{
    int keys = 0;
    do {
        assert_int_equal(*at++, keys ? ',' : '{');
        at = json_string(at);
        assert_int_equal(*at++, ':');
        at = *at == '"' ? json_string(at) : at + strspn(at, "-0123456789");
        keys++;
    } while (*at != '}');
    assert_string_equal(at, "}\n");
    assert_int_equal(keys, 10);
}

/* Long fields of every kind of byte, in small buffers and large. */
static void long_fields(void **state)
{
    static char bytes[40000], line[20000];
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = kind == 0 ? 'a' : kind == 1 ? '\x01' : kind == 2 ? '"' : (char)(i * 7);
        for (size_t size = 1024; size <= 16384; size += size / 3)
            for (size_t len = 0; len <= sizeof bytes; len = len * 3 / 2 + 1) {
                struct exchange_record r = plain;
                r.target = r.referer = r.user_agent = (struct str){bytes, len};
                for (enum config_log_format f = FORMAT_COMMON; f <= FORMAT_JSON; f++) {
                    memset(line, '#', sizeof line);
                    size_t n = access_log_line(f, &r, AT, line, size);
                    assert_in_range(n, 2, size);
                    assert_int_equal(line[n], '#');
                    assert_int_equal(line[n - 1], '\n');
                    line[n] = '\0';
                    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
                    if (f == FORMAT_JSON)
                        check_json(line);
                    else
                        assert_non_null(strstr(line, " HTTP/1.1\" 200 13"));
                    if (f == FORMAT_COMBINED)
                        assert_int_equal(line[n - 2], '"');
                }
            }
    }
}

/* Appended to a file, and to another of that name after it was moved away. */
static void files(void **state)
{
    char folder[] = "/tmp/modus-test-log-XXXXXX", path[64], moved[64], why[200], text[1000];
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/log", folder);
    snprintf(moved, sizeof moved, "%s/log.1", folder);
    assert_null(access_log_open("/nonexistent/log", FORMAT_COMMON, why, sizeof why));
    assert_non_null(strstr(why, "/nonexistent/log"));
    struct access_log *log = access_log_open(path, FORMAT_COMMON, why, sizeof why);
    assert_non_null(log);
    access_log_write(log, &plain);
    access_log_write(log, &plain);
    assert_int_equal(rename(path, moved), 0);
    access_log_write(log, &plain);
    access_log_reopen(log);
    access_log_reopen(NULL);
    access_log_write(log, &plain);
    access_log_close(log);
    access_log_close(NULL);
    const char *names[] = {moved, path};
    for (int i = 0; i < 2; i++) {
        int fd = open(names[i], O_RDONLY);
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = '\0';
        int lines = 0;
        for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
            lines++;
        assert_int_equal(lines, i ? 1 : 3);
        assert_int_equal(unlink(names[i]), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats),
        cmocka_unit_test(escapes),
        cmocka_unit_test(long_fields),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
