/* SPDX-License-Identifier: MIT */
/* What `modus explain` prints: every value with its origin, what a model does not use, and the
 * worst case against the limit of open files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "server/config_keys.h"
#include "server/config_reader.h"
#include "tests/unit/test_config_fake.h"

#define R "route / { text {} } "

/* The output for a file, for free(). */
static char *explained(const char *text)
{
    char why[512], *out = NULL;
    size_t size;
    struct config *c = config_parse("t.conf", "/etc/modus", text, strlen(text), why, sizeof why);
    if (!c)
        fail_msg("%s", why);
    FILE *f = open_memstream(&out, &size);
    config_explain_to(c, f);
    fclose(f);
    config_free(c);
    return out;
}

/* The line that begins with name behind its indentation, runs of blanks made one. */
static const char *line_of(const char *out, const char *name)
{
    static char line[5000];
    for (; *out; out += strcspn(out, "\n"), out += *out == '\n') {
        const char *at = out + strspn(out, " ");
        size_t len = strlen(name), n = 0;
        if (strncmp(at, name, len) != 0 || (at[len] != ' ' && at[len] != '\n'))
            continue;
        for (; *at && *at != '\n' && n < sizeof line - 1; at++)
            if (*at != ' ' || line[n - 1] != ' ')
                line[n++] = *at;
        while (n > 0 && line[n - 1] == ' ')
            n--;
        line[n] = '\0';
        return line;
    }
    fail_msg("no line %s", name);
    return NULL;
}

static void has(const char *out, const char *name, const char *expected)
{
    assert_string_equal(line_of(out, name), expected);
}

static const char text[] = "user = www-data\n"
                           "listen 127.0.0.1:80 {\n"
                           "  also = {\n"
                           "    '[::1]:80' }\n"
                           "  threads = 5\n"
                           "  keepalive_timeout = 90s\n"
                           "  access_log = logs/a\n"
                           "  tls { certificate = c\n key = k min_version = 1.3 }\n"
                           "  route /a {\n"
                           "    static { root = www\n cache_size = 2m listing = on order = time }\n"
                           "  }\n"
                           "  route /b { text { body = \"x\\ny\\\"\\x01\" } }\n"
                           "}\n";

static void origins(void **state)
{
    (void)state;
    char *out = explained(text);
    has(out, "user", "user \"www-data\" t.conf:1");
    has(out, "pid_file", "pid_file \"/etc/modus/modus.pid\" default");
    has(out, "control", "control \"/etc/modus/modus.sock\" default");
    has(out, "error_log", "error_log stderr default");
    has(out, "log_level", "log_level info default");
    has(out, "drain_timeout", "drain_timeout 30s default");
    has(out, "listen", "listen \"127.0.0.1:80\" t.conf:2");
    has(out, "also", "also \"[::1]:80\" t.conf:4");
    has(out, "protocol", "protocol http default");
    has(out, "model", "model thread-pool default");
    has(out, "threads", "threads 5 t.conf:5");
    has(out, "gil", "gil false default");
    has(out, "handler_timeout", "handler_timeout 0 default");
    has(out, "keepalive_timeout", "keepalive_timeout 90s t.conf:6");
    has(out, "max_connections", "max_connections 10000 default");
    has(out, "max_header_size", "max_header_size 32k default");
    has(out, "access_log", "access_log \"/etc/modus/logs/a\" t.conf:7");
    has(out, "log_format", "log_format combined default");
    free(out);
    out = explained("listen unix:w { " R "}");
    has(out, "keepalive_timeout", "keepalive_timeout 5s default"); /* the model's own */
    has(out, "listen", "listen \"unix:w\" t.conf:1");
    has(out, "access_log", "access_log off default");
    free(out);
}

static void sections(void **state)
{
    (void)state;
    char *out = explained(text);
    has(out, "tls", "tls t.conf:8");
    has(out, "certificate", "certificate \"/etc/modus/c\" t.conf:8");
    has(out, "key", "key \"/etc/modus/k\" t.conf:9");
    has(out, "min_version", "min_version 1.3 t.conf:9");
    has(out, "route", "route \"/a\" t.conf:10");
    has(out, "static", "static t.conf:11");
    has(out, "root", "root \"/etc/modus/www\" t.conf:11");
    has(out, "cache_size", "cache_size 2m t.conf:12");
    has(out, "listing", "listing true t.conf:12");
    has(out, "order", "order time t.conf:12");
    has(out, "depth", "depth 3 default");
    has(out, "body", "body \"x\\ny\\\"\\x01\" t.conf:14");
    has(out, "status", "status 200 default");
    free(out);
    out = explained("listen 127.0.0.1:0 { protocol = tcp\n echo {} }");
    has(out, "protocol", "protocol tcp t.conf:1");
    has(out, "echo", "echo t.conf:2");
    has(out, "header_timeout", "header_timeout 10s default not used by tcp");
    has(out, "max_body_size", "max_body_size 1m default not used by tcp");
    has(out, "keepalive_timeout", "keepalive_timeout 5s default");
    assert_null(strstr(out, "route"));
    free(out);
}

/* No key can be forgotten: each of the tables stands in the output. */
static void completeness(void **state)
{
    (void)state;
    static const struct key *const tables[] = {config_keys_top, config_keys_listen,
                                               config_keys_tls};
    char *out = explained(text);
    for (size_t i = 0; i < 3; i++)
        for (const struct key *k = tables[i]; k->name; k++)
            line_of(out, k->name);
    free(out);
}

static void unused(void **state)
{
    (void)state;
    char *out = explained("listen 127.0.0.1:0 { processes = 3 " R "}");
    has(out, "processes", "processes 3 t.conf:1 not used by thread-pool");
    has(out, "loops", "loops auto default not used by thread-pool");
    has(out, "threads", "threads 64 default");
    has(out, "queue_timeout", "queue_timeout 10s default");
    has(out, "backlog", "backlog 1024 default");
    free(out);
    out = explained("listen 127.0.0.1:0 { model = process " R "}");
    has(out, "queue_timeout", "queue_timeout 10s default not used by process");
    has(out, "max_connections", "max_connections 10000 default");
    free(out);
    out = explained("listen 127.0.0.1:0 { model = prefork " R "}");
    has(out, "processes", "processes auto default");
    has(out, "threads", "threads 64 default not used by prefork");
    free(out);
}

static void alignment(void **state)
{
    (void)state;
    char *out = explained(text);
    const char *a = strstr(out, "\n  protocol"), *b = strstr(out, "\n    static");
    assert_int_equal(strstr(a, "default") - a, strstr(b, "t.conf:11") - b);
    free(out);
}

static void long_values(void **state)
{
    (void)state;
    char file[9000], body[5001], path[4001];
    memset(body, '\n', sizeof body - 1); /* two characters each when shown */
    body[sizeof body - 1] = '\0';
    for (size_t i = 0; body[i]; i++)
        body[i] = i % 2 ? 'n' : '\\';
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    snprintf(file, sizeof file,
             "error_log = '%.4000s' listen 127.0.0.1:0 { route / { text { body = \"%.4000s\" } } }",
             path, body);
    char *out = explained(file);
    assert_non_null(strstr(out, path)); /* a path is shown whole, a string cut */
    assert_true(strlen(line_of(out, "body")) < 200);
    assert_non_null(strstr(line_of(out, "body"), "\\n...\" t.conf:1"));
    free(out);
}

static void costs(void **state)
{
    (void)state;
    char *out = explained("listen 127.0.0.1:1 { model = process " R
                          "} listen 127.0.0.1:2 { model = prefork " R "}");
    has(out, "127.0.0.1:1", "127.0.0.1:1 process 2 8 2048 5 MiB");
    has(out, "127.0.0.1:2", "127.0.0.1:2 prefork 2 8 2048 5 MiB");
    has(out, "total", "total 4 16 4096 10 MiB");
    free(out);
}

static void open_files(void **state)
{
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    if (before.rlim_max < 1024)
        skip();
    struct rlimit less = {1024, 1024};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
    char *out = explained("listen 127.0.0.1:1 { " R "}");
    has(out, "Open",
        "Open files: a process of 127.0.0.1:1 may need 1024; it gets 1024 (ulimit -Hn): enough.");
    free(out);
    less.rlim_max = less.rlim_cur = 1023; /* the last of this program to need more */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
    out = explained("listen 127.0.0.1:1 { " R "}");
    has(out, "Open",
        "Open files: a process of 127.0.0.1:1 may need 1024; it gets 1023 (ulimit -Hn): NOT "
        "ENOUGH.");
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(origins), cmocka_unit_test(sections),   cmocka_unit_test(completeness),
        cmocka_unit_test(unused),  cmocka_unit_test(alignment),  cmocka_unit_test(long_values),
        cmocka_unit_test(costs),   cmocka_unit_test(open_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
