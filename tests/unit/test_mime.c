/* SPDX-License-Identifier: MIT */
/* Media types: a table of our own making, the built-in one, and the system's if there is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "handlers/mime.h"

static struct mime *open_text(const char *text, size_t len)
{
    char path[] = "/tmp/modus-mime-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    close(fd);
    struct mime *m = mime_open(path);
    unlink(path);
    assert_non_null(m);
    return m;
}

static void file_names(void **state)
{
    (void)state;
    struct mime *m = mime_open(NULL);
    assert_string_equal(mime_type(m, "index.html"), "text/html; charset=utf-8");
    assert_string_equal(mime_type(m, "a/b/INDEX.HTML"), "text/html; charset=utf-8");
    assert_string_equal(mime_type(m, "x.css"), "text/css; charset=utf-8");
    assert_string_equal(mime_type(m, "x.min.js"), "text/javascript; charset=utf-8");
    assert_string_equal(mime_type(m, "x.png"), "image/png");
    assert_string_equal(mime_type(m, "x.json"), "application/json");
    assert_string_equal(mime_type(m, "x.tar.gz"), "application/gzip");
    static const char *const unknown[] = {"",         "x",    "x.",     "x.unheard-of",
                                          "a.html/x", "html", "a.png/", "."};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_string_equal(mime_type(m, unknown[i]), "application/octet-stream");
    mime_close(m);
}

static void tables(void **state)
{
    (void)state;
    static const char text[] = "# comment\n"
                               "text/x-one\tone ONE two # three\n"
                               "application/none\n"
                               "\n"
                               "   image/x-four   four\r\n"
                               "image/x-five one five\n"
                               "noslash six\n"
                               "text/x\"y seven\n"
                               "text/x-html html\n"
                               "text/zero ze\0ro\n"
                               "image/x-last last";
    struct mime *m = open_text(text, sizeof text - 1);
    assert_string_equal(mime_type(m, "x.one"), "text/x-one; charset=utf-8");
    assert_string_equal(mime_type(m, "x.two"), "text/x-one; charset=utf-8");
    assert_string_equal(mime_type(m, "x.three"), "application/octet-stream");
    assert_string_equal(mime_type(m, "x.four"), "image/x-four");
    assert_string_equal(mime_type(m, "x.five"), "image/x-five");
    assert_string_equal(mime_type(m, "x.six"), "application/octet-stream");
    assert_string_equal(mime_type(m, "x.seven"), "application/octet-stream");
    assert_string_equal(mime_type(m, "x.ze"), "application/octet-stream");
    assert_string_equal(mime_type(m, "x.last"), "image/x-last");
    /* The file's word stands, the built-in table fills in. */
    assert_string_equal(mime_type(m, "x.html"), "text/x-html; charset=utf-8");
    assert_string_equal(mime_type(m, "x.png"), "image/png");
    mime_close(m);
}

static void many_endings(void **state)
{
    (void)state;
    char *text = malloc(200000), name[32], type[64];
    size_t len = 0;
    for (int i = 0; i < 4000; i++)
        len += (size_t)sprintf(text + len, "application/x-%d e%d E%dx\n", i, i, i);
    struct mime *m = open_text(text, len);
    for (int i = 0; i < 4000; i++) {
        snprintf(type, sizeof type, "application/x-%d", i);
        snprintf(name, sizeof name, "file.e%d", i);
        assert_string_equal(mime_type(m, name), type);
        snprintf(name, sizeof name, "file.e%dX", i);
        assert_string_equal(mime_type(m, name), type);
    }
    mime_close(m);
    free(text);
}

/* Whatever lies there, there is a table. */
static void odd_files(void **state)
{
    (void)state;
    static const char *const paths[] = {"/no/such/file", "/tmp", "/dev/null", "/dev/zero"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct mime *m = mime_open(paths[i]);
        assert_non_null(m);
        assert_string_equal(mime_type(m, "a.html"), "text/html; charset=utf-8");
        mime_close(m);
    }
    char fifo[] = "/tmp/modus-mime-fifo-XXXXXX";
    assert_non_null(mkdtemp(fifo));
    rmdir(fifo);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    struct mime *m = mime_open(fifo);
    assert_string_equal(mime_type(m, "a.html"), "text/html; charset=utf-8");
    mime_close(m);
    unlink(fifo);
    mime_close(NULL);
}

/* One for all who open the same, until the file is another. */
static void the_same_again(void **state)
{
    (void)state;
    char path[] = "/tmp/modus-mime-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "text/x-one one\n", 15), 15);
    struct mime *first = mime_open(path), *again = mime_open(path), *none = mime_open(NULL);
    assert_ptr_equal(first, again);
    assert_ptr_not_equal(first, none);
    mime_close(first);
    assert_string_equal(mime_type(again, "x.one"), "text/x-one; charset=utf-8");
    assert_int_equal(write(fd, "text/x-two two\n", 15), 15);
    close(fd);
    struct mime *changed = mime_open(path);
    assert_ptr_not_equal(changed, again);
    assert_string_equal(mime_type(changed, "x.two"), "text/x-two; charset=utf-8");
    assert_string_equal(mime_type(again, "x.two"), "application/octet-stream");
    mime_close(changed);
    mime_close(again);
    mime_close(none);
    unlink(path);
}

static void system_table(void **state)
{
    (void)state;
    struct mime *m = mime_open("/etc/mime.types");
    assert_string_equal(mime_type(m, "a.html"), "text/html; charset=utf-8");
    assert_string_equal(mime_type(m, "a.svg"), "image/svg+xml");
    assert_string_equal(mime_type(m, "a.pdf"), "application/pdf");
    assert_string_equal(mime_type(m, "a.wasm"), "application/wasm");
    mime_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_names),     cmocka_unit_test(tables),
        cmocka_unit_test(many_endings),   cmocka_unit_test(odd_files),
        cmocka_unit_test(the_same_again), cmocka_unit_test(system_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
