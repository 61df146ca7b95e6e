/* SPDX-License-Identifier: MIT */
/* Messages between masters, over real socket pairs: what comes is what was sent, however long it is
 * and however often it stops in between, and what is no message hurts nobody. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/parcel.h"

enum { MANY = 450 };

static int link_[2];

static int start(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link_);
}

static int end(void **state)
{
    (void)state;
    close(link_[0]);
    if (link_[1] >= 0)
        close(link_[1]);
    return 0;
}

static int open_count(void)
{
    int count = 0;
    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void expect_field(struct parcel *p, size_t *at, const char *key, const char *value)
{
    const char *got, *name = parcel_next(p, at, &got);
    assert_non_null(name);
    assert_string_equal(name, key);
    assert_string_equal(got, value);
}

static void fields_and_descriptors(void **state)
{
    struct parcel out = {0}, in = {0};
    int before = open_count();
    struct stat sent, got;
    size_t at = 0;
    (void)state;
    parcel_put(&out, "version", "%d", 1);
    parcel_put(&out, "empty", "%s", "");
    parcel_put(&out, "socket", "%d %s", parcel_add(&out, link_[0]), "a=b=c");
    parcel_add(&out, STDIN_FILENO);
    parcel_seal(&out);
    assert_int_equal(parcel_receive(&in, link_[1]), -EAGAIN);
    assert_int_equal(parcel_send(&out, link_[0]), 0);
    assert_int_equal(parcel_receive(&in, link_[1]), 0);
    for (int i = 0; i < 2; i++) { /* it can be read again */
        const char *value;
        at = 0;
        expect_field(&in, &at, "version", "1");
        expect_field(&in, &at, "empty", "");
        expect_field(&in, &at, "socket", "0 a=b=c");
        assert_null(parcel_next(&in, &at, &value));
    }
    int fd = parcel_take(&in, 0);
    assert_int_equal(parcel_take(&in, 0), -1);
    assert_int_equal(parcel_take(&in, 2), -1);
    assert_int_equal(parcel_take(&in, -1), -1);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    fstat(link_[0], &sent);
    fstat(fd, &got);
    assert_int_equal(sent.st_ino, got.st_ino);
    close(fd);
    parcel_fini(&in); /* the other one, which nobody has taken */
    parcel_fini(&out);
    assert_int_equal(open_count(), before);
}

/* Far more than the kernel takes at once, of text and of descriptors. */
static void long_ones(void **state)
{
    static char text[3000];
    struct parcel out = {0}, in = {0};
    int before = open_count(), waits = 0, r, s;
    (void)state;
    memset(text, 'x', sizeof text - 1);
    for (int i = 0; i < MANY; i++)
        parcel_put(&out, "key", "%d %s", parcel_add(&out, STDIN_FILENO), text);
    parcel_seal(&out);
    do {
        s = parcel_send(&out, link_[0]);
        assert_true(s == 0 || s == -EAGAIN);
        waits += s != 0;
        r = parcel_receive(&in, link_[1]);
        assert_true(r == 0 || r == -EAGAIN);
    } while (r != 0);
    assert_true(waits > 0);
    size_t at = 0, count = 0;
    const char *value;
    for (; parcel_next(&in, &at, &value); count++) {
        assert_int_equal(atoi(value), count);
        assert_int_equal(strlen(value), strlen(text) + 1 + (size_t)snprintf(NULL, 0, "%zu", count));
    }
    assert_int_equal(count, MANY);
    assert_int_equal(in.fd_count, MANY);
    parcel_fini(&in);
    parcel_fini(&out);
    assert_int_equal(open_count(), before);
}

/* The end of the other side is told after what it has said, also when it had not read all. */
static void last_words(void **state)
{
    struct parcel out = {0}, in = {0}, unread = {0};
    size_t at = 0;
    (void)state;
    parcel_put(&unread, "offer", "%s", "");
    parcel_seal(&unread);
    assert_int_equal(parcel_send(&unread, link_[1]), 0);
    parcel_put(&out, "refused", "%s", "no");
    parcel_seal(&out);
    assert_int_equal(parcel_send(&out, link_[0]), 0);
    close(link_[0]);
    link_[0] = -1;
    assert_int_equal(parcel_receive(&in, link_[1]), 0);
    expect_field(&in, &at, "refused", "no");
    parcel_fini(&in);
    assert_int_equal(parcel_receive(&in, link_[1]), -EPIPE);
    parcel_fini(&in);
    parcel_fini(&out);
    parcel_fini(&unread);
    link_[0] = dup(STDIN_FILENO);
}

static void no_messages(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } texts[] = {{"x", 1}, {"end", 3}, {"xend=\0", 6}, {"\0\0\0", 3}, {"=\0end", 5}};
    const char *value;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct parcel in = {0};
        size_t at = 0;
        assert_int_equal(send(link_[0], texts[i].bytes, texts[i].len, 0), texts[i].len);
        assert_int_equal(parcel_receive(&in, link_[1]), -EAGAIN);
        assert_int_equal(send(link_[0], "\0end=\0", 6, 0), 6);
        assert_int_equal(parcel_receive(&in, link_[1]), 0);
        while (parcel_next(&in, &at, &value))
            assert_true(at <= in.len);
        parcel_fini(&in);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(fields_and_descriptors, start, end),
        cmocka_unit_test_setup_teardown(long_ones, start, end),
        cmocka_unit_test_setup_teardown(last_words, start, end),
        cmocka_unit_test_setup_teardown(no_messages, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
