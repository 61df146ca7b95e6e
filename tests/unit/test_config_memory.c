/* SPDX-License-Identifier: MIT */
/* Every allocation of the configuration reader fails once, in turn: each reading ends in a message,
 * and under ASan nothing is left behind. libconfuse's own allocations don't fail here: it asserts
 * on some of them. The reader's files are included, so that only their calls are replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <confuse.h>

#include <cmocka.h>

#include "tests/unit/test_config_fake.h"

static int until_failure; /* allocations that still work; -1: all do */

static int fails(void)
{
    return until_failure >= 0 && until_failure-- == 0;
}

static void *test_calloc_or_not(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

static void *test_realloc_or_not(void *p, size_t size)
{
    return fails() ? NULL : realloc(p, size);
}

static char *test_strdup_or_not(const char *text)
{
    return fails() ? NULL : strdup(text);
}

static char *test_strndup_or_not(const char *text, size_t len)
{
    return fails() ? NULL : strndup(text, len);
}

static char *test_realpath_or_not(const char *path, char *out)
{
    return fails() ? NULL : realpath(path, out);
}

#undef strdup
#undef strndup
#define calloc       test_calloc_or_not
#define malloc(size) test_realloc_or_not(NULL, size)
#define realloc      test_realloc_or_not
#define strdup       test_strdup_or_not
#define strndup      test_strndup_or_not
#define realpath     test_realpath_or_not
#include "server/config.c"
#include "server/config_build.c"
#include "server/config_text.c"
#include "server/config_words.c"

static const char text[] =
    "user = a listen '127.0.0.1:80' { also = {'[::1]:80', unix:a} access_log = x model = process\n"
    "tls { certificate = a key = b } route / { static { root = www } } route /a { text {} } }\n"
    "listen '127.0.0.1:81' { protocol = tcp echo {} }";

static struct config *from_memory(char *why, size_t size)
{
    return config_parse("t.conf", "/etc", text, sizeof text - 1, why, size);
}

static char path[] = "/tmp/modus-test-config-XXXXXX";

static struct config *from_file(char *why, size_t size)
{
    return config_read(path, why, size);
}

/* Read with the n-th allocation failing, until one reading needs fewer than n. */
static void each_fails(struct config *(*reading_of)(char *why, size_t size))
{
    struct config *c = NULL;
    int n = 0;
    for (; !c; n++) {
        char why[200] = "";
        until_failure = n;
        c = reading_of(why, sizeof why);
        assert_true(c != NULL || until_failure == -1);
        assert_true(c != NULL || strstr(why, ":1: ") != NULL ||
                    strstr(why, "memory is out") != NULL);
        assert_true(n < 1000);
    }
    until_failure = -1;
    assert_true(n > 50);
    config_free(c);
}

static void parsing(void **state)
{
    (void)state;
    each_fails(from_memory);
}

static void reading_a_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    each_fails(from_file);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parsing), cmocka_unit_test(reading_a_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
