/* SPDX-License-Identifier: MIT */
/* The plain and the memory transport against the contract of net/transport.h.
 *
 * SIGPIPE keeps its default here, so a send that forgot MSG_NOSIGNAL ends the program.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cmocka.h>

#include "net/memory.h"
#include "net/transport.h"

static ssize_t t_read(struct transport *t, void *bytes, size_t len)
{
    return t->ops->read(t, bytes, len);
}

static ssize_t t_write(struct transport *t, const char *text)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    return t->ops->write(t, &iov, 1, false);
}

static void t_close(struct transport *t)
{
    t->ops->close(t);
}

/* A plain transport and the peer's descriptor. */
static int plain_pair(struct transport *t)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    transport_plain(t, fds[0]);
    return fds[1];
}

/* The same over TCP, where a reset can be had. */
static int plain_tcp_pair(struct transport *t)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    assert_int_equal(connect(peer, (struct sockaddr *)&at, sizeof(at)), 0);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(fd >= 0);
    close(listener);
    transport_plain(t, fd);
    return peer;
}

static char pattern_byte(size_t i)
{
    return (char)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

/* An unlinked file of size bytes of the pattern. */
static int pattern_file(size_t size)
{
    int fd = memfd_create("pattern", MFD_CLOEXEC);
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = pattern_byte(i);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    free(bytes);
    return fd;
}

static void assert_pattern(const char *bytes, size_t at, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != pattern_byte(at + i))
            fail_msg("byte %zu is wrong", at + i);
    }
}

/* --- plain --------------------------------------------------------------------------------- */

static void plain_reads(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    char bytes[16];
    (void)state;
    assert_string_equal(t.ops->name, "plain");
    assert_int_equal(t.ops->handshake(&t), 0);
    assert_int_equal(t_read(&t, bytes, sizeof(bytes)), TRANSPORT_WANT_READ);
    assert_int_equal(send(peer, "hello", 5, 0), 5);
    assert_int_equal(t_read(&t, bytes, 2), 2);
    assert_int_equal(t_read(&t, bytes, sizeof(bytes)), 3);
    assert_memory_equal(bytes, "llo", 3);
    assert_false(t.ops->pending(&t));
    t.ops->idle(&t);
    close(peer);
    assert_int_equal(t_read(&t, bytes, sizeof(bytes)), 0);
    t_close(&t);
}

static void plain_writes(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    char bytes[16];
    struct iovec parts[3] = {{(char[]){"ab"}, 2}, {NULL, 0}, {(char[]){"cde"}, 3}};
    (void)state;
    assert_int_equal(t.ops->write(&t, parts, 3, true), 5);
    assert_int_equal(t_write(&t, "f"), 1);
    assert_int_equal(recv(peer, bytes, sizeof(bytes), 0), 6);
    assert_memory_equal(bytes, "abcdef", 6);
    assert_int_equal(t.ops->write(&t, parts, 0, false), 0);
    close(peer);
    t_close(&t);
}

/* More parts than one sendmsg takes: a short write, not an error. */
static void plain_many_parts(void **state)
{
    enum { COUNT = 5000 };
    struct transport t;
    int peer = plain_pair(&t);
    struct iovec *parts = calloc(COUNT, sizeof(*parts));
    char byte = 'x';
    (void)state;
    for (int i = 0; i < COUNT; i++)
        parts[i] = (struct iovec){&byte, 1};
    ssize_t n = t.ops->write(&t, parts, COUNT, false);
    assert_in_range(n, 1, COUNT);
    free(parts);
    close(peer);
    t_close(&t);
}

static void plain_full(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    static char block[65536];
    struct iovec iov = {block, sizeof(block)};
    size_t sent = 0, got = 0;
    ssize_t n;
    (void)state;
    while ((n = t.ops->write(&t, &iov, 1, false)) > 0)
        sent += (size_t)n;
    assert_int_equal(n, TRANSPORT_WANT_WRITE);
    while ((n = recv(peer, block, sizeof(block), 0)) > 0)
        got += (size_t)n;
    assert_int_equal(sent, got);
    assert_int_equal(t_write(&t, "again"), 5);
    close(peer);
    t_close(&t);
}

static void plain_peer_left(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    struct iovec parts[2] = {{(char[]){"ab"}, 2}, {(char[]){"cde"}, 3}};
    (void)state;
    close(peer);
    assert_int_equal(t_write(&t, "x"), TRANSPORT_GONE);
    assert_int_equal(t.ops->write(&t, parts, 2, false), TRANSPORT_GONE);
    t_close(&t);
}

static void plain_reset(void **state)
{
    struct transport t;
    int peer = plain_tcp_pair(&t);
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    char bytes[4];
    (void)state;
    setsockopt(peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(peer);
    assert_int_equal(t_read(&t, bytes, sizeof(bytes)), TRANSPORT_GONE);
    assert_int_equal(t_write(&t, "x"), TRANSPORT_GONE);
    assert_int_equal(t.ops->shutdown(&t, false), TRANSPORT_GONE);
    t_close(&t);
    assert_int_equal(t.fd, -1);
}

/* A peer that has said all may still be answered. */
static void plain_half_close(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    char bytes[8];
    (void)state;
    shutdown(peer, SHUT_WR);
    assert_int_equal(t_read(&t, bytes, sizeof(bytes)), 0);
    assert_int_equal(t_write(&t, "answer"), 6);
    assert_int_equal(t.ops->shutdown(&t, false), 0);
    assert_int_equal(t.ops->shutdown(&t, false), 0);
    assert_int_equal(recv(peer, bytes, sizeof(bytes), 0), 6);
    assert_int_equal(recv(peer, bytes, sizeof(bytes), 0), 0);
    assert_int_equal(t_write(&t, "x"), TRANSPORT_GONE);
    close(peer);
    t_close(&t);
}

/* close() of one holder leaves the connection to the other, as after fork. */
static void plain_close_is_not_shutdown(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    int other = dup(t.fd);
    char byte;
    (void)state;
    t_close(&t);
    assert_int_equal(recv(peer, &byte, 1, 0), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(send(other, "x", 1, 0), 1);
    assert_int_equal(recv(peer, &byte, 1, 0), 1);
    close(other);
    close(peer);
}

static void count_alarm(int signal)
{
    (void)signal;
}

/* A descriptor that somebody left in blocking mode doesn't stop a loop. */
static void plain_never_waits(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    struct sigaction act = {.sa_handler = count_alarm};
    static char block[65536];
    struct iovec iov = {block, sizeof(block)};
    ssize_t n;
    (void)state;
    sigaction(SIGALRM, &act, NULL);
    alarm(
        20); /* a call that waits would be interrupted and wait again; the runner's limit ends it */
    fcntl(t.fd, F_SETFL, fcntl(t.fd, F_GETFL) & ~O_NONBLOCK);
    assert_int_equal(t_read(&t, block, 1), TRANSPORT_WANT_READ);
    while ((n = t.ops->write(&t, &iov, 1, false)) > 0)
        continue;
    assert_int_equal(n, TRANSPORT_WANT_WRITE);
    alarm(0);
    close(peer);
    t_close(&t);
}

/* Send a file through t, draining the other end with take whenever t is full. */
static void send_whole_file(struct transport *t, size_t size, size_t part,
                            size_t (*take)(void *from, char *to, size_t room), void *from)
{
    int fd = pattern_file(size);
    char *got = malloc(size + 1);
    size_t sent = 0, have = 0;
    while (sent < size) {
        ssize_t n = t->ops->send_file(t, fd, (int64_t)sent, part);
        if (n == TRANSPORT_WANT_WRITE) {
            size_t k = take(from, got + have, size + 1 - have);
            assert_true(k > 0);
            have += k;
            continue;
        }
        assert_in_range(n, 1, part);
        sent += (size_t)n;
    }
    for (size_t k; have < size && (k = take(from, got + have, size + 1 - have)) > 0;)
        have += k;
    assert_int_equal(t->ops->send_file(t, fd, (int64_t)size, 10), 0);
    assert_int_equal(have, size);
    assert_pattern(got, 0, size);
    free(got);
    close(fd);
}

static size_t take_socket(void *from, char *to, size_t room)
{
    ssize_t n = recv(*(int *)from, to, room, MSG_DONTWAIT);
    return n > 0 ? (size_t)n : 0;
}

static void plain_sends_file(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    (void)state;
    send_whole_file(&t, 3000000, 1000000, take_socket, &peer);
    close(peer);
    t_close(&t);
}

static void plain_file_fails(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    int folder = open("/", O_RDONLY | O_DIRECTORY);
    (void)state;
    assert_int_equal(t.ops->send_file(&t, folder, 0, 10), TRANSPORT_GONE);
    close(folder);
    close(peer);
    t_close(&t);
}

/* sendfile(2) has no MSG_NOSIGNAL; the server ignores the signal, and so does this test. */
static void plain_file_to_nobody(void **state)
{
    struct transport t;
    int peer = plain_pair(&t);
    int fd = pattern_file(1000);
    (void)state;
    close(peer);
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(t.ops->send_file(&t, fd, 0, 1000), TRANSPORT_GONE);
    signal(SIGPIPE, SIG_DFL);
    close(fd);
    t_close(&t);
}

/* --- memory -------------------------------------------------------------------------------- */

static void memory_reads(void **state)
{
    struct transport t;
    struct memory_pipe *p = memory_pipe_new(&t);
    char bytes[16];
    (void)state;
    assert_string_equal(t.ops->name, "memory");
    assert_int_equal(t.fd, -1);
    assert_int_equal(t.ops->handshake(&t), 0);
    assert_int_equal(t_read(&t, bytes, 16), TRANSPORT_WANT_READ);
    memory_pipe_feed(p, "hello", 5);
    memory_pipe_feed(p, "", 0);
    memory_pipe_end(p);
    assert_false(t.ops->pending(&t));
    assert_int_equal(t_read(&t, bytes, 1), 1);
    memory_pipe_limit(p, 2, 0);
    assert_true(t.ops->pending(&t));
    assert_int_equal(t_read(&t, bytes, 16), 2);
    assert_memory_equal(bytes, "el", 2);
    assert_int_equal(memory_pipe_unread(p), 2);
    assert_int_equal(t_read(&t, bytes, 16), 2);
    assert_false(t.ops->pending(&t));
    assert_int_equal(t_read(&t, bytes, 16), 0);
    assert_int_equal(t_read(&t, bytes, 16), 0);
    t_close(&t);
    memory_pipe_free(p);
}

static void memory_writes(void **state)
{
    struct transport t;
    struct memory_pipe *p = memory_pipe_new(&t);
    struct iovec parts[3] = {{(char[]){"ab"}, 2}, {NULL, 0}, {(char[]){"cde"}, 3}};
    size_t len;
    (void)state;
    memory_pipe_sent(p, &len);
    assert_int_equal(len, 0);
    memory_pipe_limit(p, 4, 6);
    assert_int_equal(t.ops->write(&t, parts, 3, false), 4);
    assert_int_equal(t.ops->write(&t, parts, 3, false), 2);
    assert_int_equal(t.ops->write(&t, parts, 3, false), TRANSPORT_WANT_WRITE);
    assert_int_equal(t.ops->write(&t, parts, 0, false), 0);
    assert_memory_equal(memory_pipe_sent(p, &len), "abcdab", 6);
    memory_pipe_take(p, 5);
    assert_int_equal(t.ops->write(&t, parts, 3, false), 4);
    assert_memory_equal(memory_pipe_sent(p, &len), "babcd", 5);
    assert_int_equal(len, 5);
    memory_pipe_take(p, 100);
    memory_pipe_sent(p, &len);
    assert_int_equal(len, 0);
    assert_false(memory_pipe_is_shut(p));
    assert_int_equal(t.ops->shutdown(&t, false), 0);
    assert_true(memory_pipe_is_shut(p));
    assert_int_equal(t_write(&t, "x"), TRANSPORT_GONE);
    t_close(&t);
    memory_pipe_free(p);
}

static void memory_reset(void **state)
{
    struct transport t;
    struct memory_pipe *p = memory_pipe_new(&t);
    int fd = pattern_file(10);
    char bytes[4];
    (void)state;
    memory_pipe_feed(p, "hello", 5);
    memory_pipe_reset(p);
    assert_int_equal(t.ops->handshake(&t), TRANSPORT_GONE);
    assert_int_equal(t_read(&t, bytes, 4), TRANSPORT_GONE);
    assert_int_equal(t_write(&t, "x"), TRANSPORT_GONE);
    assert_int_equal(t.ops->send_file(&t, fd, 0, 10), TRANSPORT_GONE);
    assert_int_equal(t.ops->shutdown(&t, false), TRANSPORT_GONE);
    assert_false(t.ops->pending(&t));
    close(fd);
    t_close(&t);
    memory_pipe_free(p);
}

static void memory_closed(void **state)
{
    struct transport t;
    struct memory_pipe *p = memory_pipe_new(&t);
    (void)state;
    t_close(&t);
    assert_true(memory_pipe_is_shut(p));
    memory_pipe_free(p);
    memory_pipe_free(NULL);
}

/* Bytes come out as they went in, whatever the order of feeding and reading. */
static void memory_keeps_order(void **state)
{
    struct transport t;
    struct memory_pipe *p = memory_pipe_new(&t);
    size_t fed = 0, got = 0;
    char bytes[700];
    (void)state;
    srand(7);
    while (got < 200000) {
        size_t n = (size_t)rand() % sizeof(bytes);
        for (size_t i = 0; i < n; i++)
            bytes[i] = pattern_byte(fed + i);
        memory_pipe_feed(p, bytes, n);
        fed += n;
        ssize_t k = t_read(&t, bytes, 1 + (size_t)rand() % sizeof(bytes));
        if (k == TRANSPORT_WANT_READ)
            continue;
        assert_true(k > 0);
        assert_pattern(bytes, got, (size_t)k);
        got += (size_t)k;
    }
    assert_int_equal(memory_pipe_unread(p), fed - got);
    t_close(&t);
    memory_pipe_free(p);
}

static size_t take_memory(void *from, char *to, size_t room)
{
    size_t len;
    const char *sent = memory_pipe_sent(from, &len);
    len = len < room ? len : room;
    memcpy(to, sent, len);
    memory_pipe_take(from, len);
    return len;
}

static void memory_sends_file(void **state)
{
    struct transport t;
    struct memory_pipe *p = memory_pipe_new(&t);
    int folder = open("/", O_RDONLY | O_DIRECTORY);
    (void)state;
    memory_pipe_limit(p, 7000, 20000);
    send_whole_file(&t, 300000, 9000, take_memory, p);
    assert_int_equal(t.ops->send_file(&t, folder, 0, 10), TRANSPORT_GONE);
    close(folder);
    t_close(&t);
    memory_pipe_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_reads),        cmocka_unit_test(plain_writes),
        cmocka_unit_test(plain_many_parts),   cmocka_unit_test(plain_full),
        cmocka_unit_test(plain_peer_left),    cmocka_unit_test(plain_reset),
        cmocka_unit_test(plain_half_close),   cmocka_unit_test(plain_close_is_not_shutdown),
        cmocka_unit_test(plain_never_waits),  cmocka_unit_test(plain_sends_file),
        cmocka_unit_test(plain_file_fails),   cmocka_unit_test(plain_file_to_nobody),
        cmocka_unit_test(memory_reads),       cmocka_unit_test(memory_writes),
        cmocka_unit_test(memory_reset),       cmocka_unit_test(memory_closed),
        cmocka_unit_test(memory_keeps_order), cmocka_unit_test(memory_sends_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
