/* SPDX-License-Identifier: MIT */
/* Slow clients of the lab, on a server of the test's own: server/lab/slow.h. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "concurrency/result.h"
#include "server/lab/self_signed.h"
#include "server/lab/slow.h"

static const char head[] = "GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: ";

/* Returns the listening socket, and its URL. Nothing on it takes longer than 20 s. */
static int listen_on(const char *scheme, struct lab_url *url)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    socklen_t len = sizeof at;
    char text[64], why[256];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    snprintf(text, sizeof text, "%s://127.0.0.1:%u/", scheme, ntohs(at.sin_port));
    assert_int_equal(lab_url_parse(text, url, why, sizeof why), 0);
    return fd;
}

static int accept_one(int listener)
{
    struct timeval limit = {.tv_sec = 20};
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static void a_byte_at_a_time(void **state)
{
    struct lab_url url;
    int listener = listen_on("http", &url);
    struct modus_process *slow = lab_slow_start(&url, 2);
    (void)state;
    assert_non_null(slow);
    for (int i = 0; i < 2; i++) {
        char got[64];
        int fd = accept_one(listener);
        assert_int_equal(recv(fd, got, sizeof head - 1, MSG_WAITALL), sizeof head - 1);
        assert_memory_equal(got, head, sizeof head - 1);
        assert_int_equal(recv(fd, got, 2, MSG_WAITALL), 2);
        assert_memory_equal(got, "xx", 2);
        close(fd);
    }
    lab_slow_stop(slow);
    close(listener);
}

static void over_tls_when_the_url_says_so(void **state)
{
    char folder[] = "/tmp/modus-slow-XXXXXX", certificate[64], key[64], got[64], why[256];
    struct lab_url url;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    (void)state;
    assert_non_null(context);
    assert_non_null(mkdtemp(folder));
    snprintf(certificate, sizeof certificate, "%s/certificate", folder);
    snprintf(key, sizeof key, "%s/key", folder);
    assert_int_equal(self_signed(certificate, key, why, sizeof why), 0);
    assert_int_equal(SSL_CTX_use_certificate_file(context, certificate, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM), 1);
    int listener = listen_on("https", &url);
    struct modus_process *slow = lab_slow_start(&url, 1);
    assert_non_null(slow);
    int fd = accept_one(listener);
    SSL *ssl = SSL_new(context);
    assert_int_equal(SSL_set_fd(ssl, fd), 1);
    assert_int_equal(SSL_accept(ssl), 1);
    assert_int_equal(SSL_read(ssl, got, sizeof got), sizeof head - 1);
    assert_memory_equal(got, head, sizeof head - 1);
    assert_int_equal(SSL_read(ssl, got, sizeof got), 1);
    assert_int_equal(got[0], 'x');
    lab_slow_stop(slow);
    SSL_free(ssl);
    SSL_CTX_free(context);
    close(fd);
    close(listener);
    remove(certificate);
    remove(key);
    rmdir(folder);
}

static void cut_it_comes_again_a_second_later(void **state)
{
    struct lab_url url;
    int listener = listen_on("http", &url);
    struct modus_process *slow = lab_slow_start(&url, 1);
    (void)state;
    assert_non_null(slow);
    close(accept_one(listener));
    int64_t first = modus_now_ns();
    close(accept_one(listener));
    assert_true(modus_now_ns() - first > modus_ms(900));
    lab_slow_stop(slow);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_byte_at_a_time),
        cmocka_unit_test(over_tls_when_the_url_says_so),
        cmocka_unit_test(cut_it_comes_again_a_second_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
