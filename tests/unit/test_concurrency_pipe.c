/* SPDX-License-Identifier: MIT */
/* The pipe between two: every code, lengths, both ways, the end, parts of messages, descriptors.
 * Many users and their deaths are in test_concurrency_pipe_users.c. */
#include "test_concurrency_pipe.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* --- one message ----------------------------------------------------------------------------- */

static void test_arguments(void **state)
{
    struct modus_pipe ends[2] = {0};
    struct modus_pipe_message message = {0};
    char byte = 0;
    size_t size = 1;
    int fd = 0;
    (void)state;

    modus_pipe_close(&ends[0]);
    modus_pipe_fini(&ends[0]);
    assert_int_equal(modus_pipe_fd(&ends[0]), -1);
    assert_int_equal(modus_pipe_send(&ends[0], &byte, 1, 0), -EINVAL);
    assert_int_equal(modus_pipe_recv(&ends[0], &byte, &size, 0), -EINVAL);
    assert_int_equal(modus_pipe_poll(&ends[0], 0), -EINVAL);
    assert_int_equal(modus_pipe_pair(ends, &(struct modus_pipe_attr){.scope = MODUS_PROCESS}),
                     -EINVAL);
    assert_int_equal(modus_pipe_pair(ends, &(struct modus_pipe_attr){.scope = 7}), -EINVAL);
    assert_int_equal(modus_pipe_pair(ends, NULL), 0);
    assert_int_equal(modus_pipe_send(&ends[0], &byte, 1, -2), -EINVAL);
    assert_int_equal(modus_pipe_send(&ends[0], NULL, 1, 0), -EINVAL);
    assert_int_equal(modus_pipe_send_until(&ends[0], &byte, 1, -2), -EINVAL);
    assert_int_equal(modus_pipe_recv(&ends[0], &byte, &size, -2), -EINVAL);
    assert_int_equal(modus_pipe_poll(&ends[0], -2), -EINVAL);
    message.fd_count = 1;
    assert_int_equal(modus_pipe_send_message(&ends[0], &message, 0), -EINVAL);
    assert_int_equal(modus_pipe_recv_message(&ends[0], &message, 0), -EINVAL);
    message = (struct modus_pipe_message){.fds = &fd, .fd_count = MODUS_PIPE_FDS_MAX + 1};
    assert_int_equal(modus_pipe_send_message(&ends[0], &message, 0), -EINVAL);
    fd = -1;
    message.fd_count = 1;
    assert_int_equal(modus_pipe_send_message(&ends[0], &message, 0), -EINVAL);
    assert_int_equal(modus_pipe_recv(&ends[1], &byte, &size, 0), -EAGAIN); /* nothing came */
    assert_true(fcntl(modus_pipe_fd(&ends[0]), F_GETFD) & FD_CLOEXEC);
    close_pair(ends);
    assert_int_equal(modus_pipe_fd(&ends[0]), -1);
    assert_int_equal(modus_pipe_poll(&ends[0], 0), -EINVAL);
}

static void test_one_way(void **state)
{
    struct modus_pipe ends[2];
    char byte = 0;
    size_t size = 1;
    (void)state;

    open_pair(ends, 0, true);
    assert_int_equal(modus_pipe_send(&ends[0], &byte, 1, 0), -EPERM);
    assert_int_equal(modus_pipe_recv(&ends[1], &byte, &size, 0), -EPERM);
    assert_int_equal(modus_pipe_poll(&ends[1], 0), -EPERM);
    assert_int_equal(send_text(&ends[1], "there"), 0);
    expect_text(&ends[0], "there");
    close_pair(ends);
}

static void test_times(void **state)
{
    static const enum modus_scope scopes[] = {0, MODUS_THREAD, MODUS_PROCESS};
    struct modus_pipe ends[2];
    char bytes[64];
    size_t size = sizeof bytes;
    (void)state;

    for (int i = 0; i < 3; i++) {
        open_pair(ends, scopes[i], false);
        assert_int_equal(modus_pipe_recv(&ends[0], bytes, &size, 0), -EAGAIN);
        assert_int_equal(modus_pipe_poll(&ends[0], 0), -EAGAIN);
        int64_t start = modus_now_ns();
        assert_int_equal(modus_pipe_recv(&ends[0], bytes, &size, modus_ms(10)), -ETIMEDOUT);
        assert_int_equal(modus_pipe_poll(&ends[0], modus_ms(10)), -ETIMEDOUT);
        assert_true(modus_now_ns() - start >= modus_ms(20));
        assert_int_equal(modus_pipe_recv_until(&ends[0], bytes, &size, 1), -ETIMEDOUT);
        assert_int_equal(modus_pipe_poll_until(&ends[0], 1), -ETIMEDOUT);
        assert_int_equal(modus_pipe_send_until(&ends[1], "once", 4, 1), 0);
        assert_int_equal(modus_pipe_poll_until(&ends[0], 1), 0);
        assert_int_equal(modus_pipe_poll(&ends[0], MODUS_FOREVER), 0);
        assert_int_equal(modus_pipe_recv_until(&ends[0], bytes, &size, 1), 0);
        assert_int_equal(size, 4);
        size = sizeof bytes;
        assert_int_equal(send_long(&ends[1], 1, LONG, 0), -EAGAIN);
        start = modus_now_ns();
        assert_int_equal(send_long(&ends[1], 1, LONG, modus_ms(10)), -ETIMEDOUT);
        assert_true(modus_now_ns() - start >= modus_ms(10));
        close_pair(ends);
    }
}

/* Too long for the buffer: the need is told, and nothing lost. Lengths around the packets'. */
static void test_lengths(void **state)
{
    static const size_t lengths[] = {0, 1, 4096, 65535, 65536, 65537, 131072, 150001};
    struct modus_pipe ends[2];
    (void)state;

    open_pair(ends, 0, false);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t length = lengths[i], size = 0;
        unsigned char *data = malloc(length + 1);

        data[length] = 99;
        assert_int_equal(send_long(&ends[0], 5, length, 0), 0);
        assert_int_equal(send_text(&ends[0], "next"), 0);
        if (length > 0) {
            assert_int_equal(modus_pipe_recv(&ends[1], NULL, &size, 0), -EMSGSIZE);
            assert_int_equal(size, length);
            size = length - 1;
            assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), -EMSGSIZE);
            assert_int_equal(size, length);
        }
        assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), 0);
        assert_int_equal(size, length);
        check_long(data, 5, length);
        assert_int_equal(data[length], 99);
        expect_text(&ends[1], "next");
        free(data);
        struct modus_pipe_message message = {0};
        assert_int_equal(send_long(&ends[1], 6, length, 0), 0);
        assert_int_equal(modus_pipe_recv_message(&ends[0], &message, 0), 0);
        assert_non_null(message.data);
        assert_int_equal(message.size, length);
        check_long(message.data, 6, length);
        free(message.data);
    }
    close_pair(ends);
}

/* --- both ways, and the end ------------------------------------------------------------------ */

struct exchange {
    struct modus_pipe *pipe;
    unsigned sent, expected;
    int rounds;
};

static void *send_rounds(void *argument)
{
    struct exchange *exchange = argument;

    for (int i = 0; i < exchange->rounds; i++)
        CHECK_INT(send_long(exchange->pipe, exchange->sent, LONG, MODUS_FOREVER), 0);
    return NULL;
}

static int exchange_long(void *argument)
{
    struct exchange *exchange = argument;
    pthread_t sender = start_thread(send_rounds, exchange);

    for (int i = 0; i < exchange->rounds; i++) {
        struct modus_pipe_message message = {0};

        CHECK_INT(modus_pipe_recv_message(exchange->pipe, &message, MODUS_FOREVER), 0);
        CHECK(message.size == LONG);
        check_long(message.data, exchange->expected, LONG);
        free(message.data);
    }
    join_thread(sender);
    return 0;
}

static void test_long_both_ways(void **state)
{
    struct modus_pipe ends[2];
    (void)state;

    open_pair(ends, 0, false);
    struct exchange ours = {&ends[0], 1, 2, 2}, theirs = {&ends[1], 2, 1, 2};
    pid_t pid = start_child(exchange_long, &theirs);
    assert_int_equal(exchange_long(&ours), 0);
    assert_int_equal(reap(pid), 0);
    close_pair(ends);
}

/* The kernel says "reset" once, to whatever is called first, when the peer has left something
 * unread. */
static void test_closed_peer(void **state)
{
    struct modus_pipe ends[2];
    char byte;
    size_t size = 1;
    (void)state;

    for (int i = 0; i < 4; i++) {
        open_pair(ends, i & 1 ? MODUS_PROCESS : 0, false);
        assert_int_equal(send_text(&ends[0], "one"), 0);
        assert_int_equal(send_text(&ends[0], "two"), 0);
        assert_int_equal(send_text(&ends[1], "unread"), 0);
        modus_pipe_fini(&ends[0]);
        assert_int_equal(modus_pipe_poll(&ends[1], 0), 0);
        for (int k = 0; k < (i & 2); k++)
            assert_int_equal(send_text(&ends[1], "late"), MODUS_CLOSED);
        expect_text(&ends[1], "one");
        expect_text(&ends[1], "two");
        assert_int_equal(modus_pipe_recv(&ends[1], &byte, &size, MODUS_FOREVER), MODUS_CLOSED);
        assert_int_equal(modus_pipe_recv(&ends[1], &byte, &size, 0), MODUS_CLOSED);
        assert_int_equal(modus_pipe_poll(&ends[1], 0), 0);
        assert_int_equal(send_text(&ends[1], "late"), MODUS_CLOSED);
        modus_pipe_fini(&ends[1]);
    }
}

static void *receive_nothing(void *argument)
{
    char byte;
    size_t size = 1;

    CHECK_INT(modus_pipe_recv(argument, &byte, &size, modus_seconds(20)), MODUS_CLOSED);
    return NULL;
}

static void *send_for_nobody(void *argument)
{
    CHECK_INT(send_long(argument, 1, LONG, modus_seconds(20)), MODUS_CLOSED);
    return NULL;
}

static int hold_end(void *argument)
{
    modus_pipe_close(argument);
    pause();
    return 0;
}

/* The peer is another process, and killed while we wait; no signal comes. */
static void test_killed_peer(void **state)
{
    void *(*const waits[])(void *) = {receive_nothing, send_for_nobody};
    struct modus_pipe ends[2];
    (void)state;

    for (int i = 0; i < 2; i++) {
        open_pair(ends, 0, false);
        pid_t pid = start_child(hold_end, &ends[0]);
        modus_pipe_close(&ends[1]);
        pthread_t thread = start_thread(waits[i], &ends[0]);
        AWAIT_ASLEEP(pid);
        kill_child(pid);
        join_thread(thread);
        modus_pipe_close(&ends[0]);
    }
}

/* --- parts of messages ----------------------------------------------------------------------- */

/* The time is over in the middle, in the buffer of one or in memory of its own: the next recv goes
 * on, with more or less room. */
static void test_time_over_in_the_middle(void **state)
{
    static const enum modus_scope scopes[] = {0, MODUS_THREAD, MODUS_PROCESS};
    (void)state;

    for (int i = 0; i < 3; i++)
        for (int own = 0; own < 2; own++) {
            struct modus_pipe ends[2];
            unsigned char *data = malloc(LONG);
            size_t size = LONG;

            open_pair(ends, scopes[i], false);
            pthread_t sender = start_thread(send_rounds, &(struct exchange){&ends[0], 3, 0, 1});
            struct modus_pipe_message message = {.data = own ? NULL : data, .size = LONG};
            int rc;
            while ((rc = modus_pipe_recv_message(&ends[1], &message, 0)) == -EAGAIN)
                if (own) {
                    char little[16];
                    size_t room = sizeof little;

                    rc = modus_pipe_recv(&ends[1], little, &room, 0);
                    assert_true(rc == -EAGAIN || (rc == -EMSGSIZE && room == LONG));
                } else {
                    memset(data, 0, LONG / 64);
                }
            assert_int_equal(rc, 0);
            assert_int_equal(message.size, LONG);
            check_long(message.data, 3, LONG);
            if (own)
                free(message.data);
            join_thread(sender);
            assert_int_equal(send_text(&ends[0], "next"), 0);
            size = LONG;
            assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), 0);
            assert_int_equal(size, 4);
            close_pair(ends);
            free(data);
        }
}

/* A sender that gives up leaves parts behind; what follows is whole. So is what was put by when the
 * end closes. */
static void test_given_up(void **state)
{
    static const enum modus_scope scopes[] = {0, MODUS_THREAD, MODUS_PROCESS};
    (void)state;

    for (int i = 0; i < 3; i++) {
        struct modus_pipe ends[2];
        unsigned char *data = malloc(LONG);
        size_t size = LONG;

        open_pair(ends, scopes[i], false);
        assert_int_equal(send_long(&ends[0], 1, LONG, 0), -EAGAIN);
        assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), -EAGAIN); /* is put by */
        assert_int_equal(send_text(&ends[0], "whole"), 0);
        assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), 0);
        assert_int_equal(size, 5);
        assert_int_equal(send_long(&ends[0], 1, LONG, 0), -EAGAIN);
        size = LONG;
        assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), -EAGAIN);
        modus_pipe_fini(&ends[0]);
        assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), MODUS_CLOSED);
        modus_pipe_fini(&ends[1]);
        free(data);
    }
}

/* Somebody writes to the descriptor: told, thrown away. */
static void test_foreign_bytes(void **state)
{
    struct modus_pipe ends[2];
    char bytes[100] = {1};
    size_t size = sizeof bytes;
    (void)state;

    open_pair(ends, 0, false);
    assert_int_equal(send(modus_pipe_fd(&ends[0]), "?", 1, 0), 1);
    assert_int_equal(send(modus_pipe_fd(&ends[0]), bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(send_text(&ends[0], "good"), 0);
    assert_int_equal(modus_pipe_recv(&ends[1], bytes, &size, 0), MODUS_BROKEN);
    assert_int_equal(modus_pipe_recv(&ends[1], bytes, &size, 0), MODUS_BROKEN);
    expect_text(&ends[1], "good");
    close_pair(ends);
}

/* There is no memory to put it by: told, and what follows is whole. */
static void test_no_room_to_put_by(void **state)
{
    struct modus_arena *small;
    struct modus_pipe ends[2];
    unsigned char *data = malloc(LONG);
    size_t size = LONG;
    (void)state;

    assert_int_equal(modus_arena_open(&small, 1 << 20, 1), 0);
    struct modus_pipe_attr attr = {.scope = MODUS_PROCESS, .arena = small};
    assert_int_equal(modus_pipe_pair(ends, &attr), 0);
    assert_int_equal(send_long(&ends[0], 1, LONG, 0), -EAGAIN);
    assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), MODUS_BROKEN);
    assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), -EAGAIN);
    assert_int_equal(send_text(&ends[0], "whole"), 0);
    expect_text(&ends[1], "whole");
    close_pair(ends);
    assert_int_equal(modus_arena_close(small), 0);
    free(data);
}

/* --- descriptors ----------------------------------------------------------------------------- */

static void send_files(struct modus_pipe *pipe, unsigned n, size_t size)
{
    unsigned char *data = make_long(4, size);
    int *fds = calloc(n, sizeof *fds);

    for (unsigned i = 0; i < n; i++) {
        fds[i] = memfd_create("test", MFD_CLOEXEC);
        CHECK(fds[i] >= 0);
        CHECK_INT(write(fds[i], &i, sizeof i), sizeof i);
    }
    struct modus_pipe_message message = {.data = data, .size = size, .fds = fds, .fd_count = n};
    CHECK_INT(modus_pipe_send_message(pipe, &message, 0), 0);
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
    free(fds);
    free(data);
}

/* To its own process or another, with short and long messages, few and many, room for all or some. */
static int receive_files(void *argument)
{
    struct modus_pipe *pipe = argument;
    static const unsigned rooms[] = {3, MODUS_PIPE_FDS_MAX, 2, 0, 3};
    static const unsigned came[] = {3, MODUS_PIPE_FDS_MAX, 3, 3, 3};
    unsigned before = fds_here();

    for (int i = 0; i < 5; i++) {
        int fds[MODUS_PIPE_FDS_MAX];
        struct modus_pipe_message message = {.fds = fds, .fd_count = rooms[i]};

        CHECK_INT(modus_pipe_recv_message(pipe, &message, MODUS_FOREVER), 0);
        CHECK(message.size == (size_t)(i == 4 ? 150000 : 1));
        check_long(message.data, 4, message.size);
        free(message.data);
        CHECK_INT(message.fd_count, rooms[i]);
        CHECK_INT(message.fds_closed, came[i] - rooms[i]);
        CHECK_INT(fds_here(), before + rooms[i]);
        for (unsigned k = 0; k < rooms[i]; k++) {
            unsigned number = 0;

            CHECK(fcntl(fds[k], F_GETFD) & FD_CLOEXEC);
            CHECK_INT(pread(fds[k], &number, sizeof number, 0), sizeof number);
            CHECK_INT(number, k);
            close(fds[k]);
        }
    }
    unsigned char data[8];
    size_t size = sizeof data;
    CHECK_INT(modus_pipe_recv(pipe, data, &size, MODUS_FOREVER), 0); /* wants none */
    CHECK_INT(fds_here(), before);
    return 0;
}

static void send_all_files(struct modus_pipe *pipe)
{
    send_files(pipe, 3, 1);
    send_files(pipe, MODUS_PIPE_FDS_MAX, 1);
    send_files(pipe, 3, 1);
    send_files(pipe, 3, 1);
    send_files(pipe, 3, 150000);
    send_files(pipe, 3, 1);
}

static void test_descriptors(void **state)
{
    struct modus_pipe ends[2];
    (void)state;

    open_pair(ends, MODUS_THREAD, true);
    send_all_files(&ends[1]);
    assert_int_equal(receive_files(&ends[0]), 0);
    pid_t pid = start_child(receive_files, &ends[0]);
    send_all_files(&ends[1]);
    assert_int_equal(reap(pid), 0);
    close_pair(ends);
}

/* A message that is too long keeps its descriptors; one that is dropped, or never received, closes
 * them. */
static void test_descriptors_do_not_leak(void **state)
{
    struct modus_pipe ends[2];
    unsigned char *data = malloc(LONG);
    int fd = -1, other[2];
    size_t size = 10;
    char byte;
    (void)state;

    open_pair(ends, 0, false);
    send_files(&ends[0], 1, 150000);
    assert_int_equal(modus_pipe_recv(&ends[1], data, &size, 0), -EMSGSIZE);
    struct modus_pipe_message message = {.data = data, .size = LONG, .fds = &fd, .fd_count = 1};
    assert_int_equal(modus_pipe_recv_message(&ends[1], &message, 0), 0);
    assert_int_equal(message.fd_count, 1);
    close(fd);
    /* the writing end of a pipe, on its way when the ends are closed */
    assert_int_equal(pipe2(other, O_CLOEXEC), 0);
    message = (struct modus_pipe_message){.fds = &other[1], .fd_count = 1};
    assert_int_equal(modus_pipe_send_message(&ends[0], &message, 0), 0);
    close(other[1]);
    close_pair(ends);
    assert_int_equal(read(other[0], &byte, 1), 0); /* nobody has it any more */
    close(other[0]);
    free(data);
}

/* No number is left in the receiver: the message comes, and the descriptor is -1. */
static void test_no_number_left(void **state)
{
    struct modus_pipe ends[2], more[2];
    struct rlimit limit, low;
    int fds[3];
    struct modus_pipe_message message = {.fds = fds, .fd_count = 3};
    (void)state;

    open_pair(ends, 0, false);
    send_files(&ends[0], 3, 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    int next = dup(0);
    close(next);
    low = (struct rlimit){(rlim_t)next + 1, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int rc = modus_pipe_recv_message(&ends[1], &message, 0);
    int made = modus_pipe_pair(more, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(rc, 0);
    assert_int_equal(made, -ENOMEM);
    assert_int_equal(message.fd_count, 3);
    assert_int_equal(fds[0], next);
    assert_int_equal(fds[1], -1);
    assert_int_equal(fds[2], -1);
    close(fds[0]);
    free(message.data);
    close_pair(ends);
}

static int wait_with_no_limit_left(void *argument)
{
    struct modus_pipe ends[2];
    struct rlimit limit;
    char byte = 0;
    size_t size = 1;
    (void)argument;

    CHECK_INT(modus_pipe_pair(ends, NULL), 0);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 0;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int64_t since = modus_now_ns();
    CHECK_INT(modus_pipe_recv(&ends[1], &byte, &size, modus_ms(10)), -ETIMEDOUT);
    CHECK(modus_now_ns() - since >= modus_ms(10));
    CHECK_INT(modus_pipe_send(&ends[0], "x", 1, MODUS_FOREVER), 0);
    CHECK_INT(modus_park_fd(modus_pipe_fd(&ends[1]), POLLIN | POLLOUT, MODUS_FOREVER, NULL), 0);
    CHECK_INT(modus_pipe_recv(&ends[1], &byte, &size, MODUS_FOREVER), 0);
    CHECK_INT(modus_park_fd(1000, POLLIN, MODUS_FOREVER, NULL), -EINVAL);
    modus_pipe_close(&ends[0]);
    CHECK_INT(modus_pipe_recv(&ends[1], &byte, &size, MODUS_FOREVER), MODUS_CLOSED);
    return 0;
}

/* A process that may not have any more, not even those that it has. */
static void test_no_limit_left(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(wait_with_no_limit_left, NULL)), 0);
}

static void test_pollable(void **state)
{
    struct modus_pipe ends[2];
    struct pollfd look;
    (void)state;

    open_pair(ends, 0, false);
    look = (struct pollfd){.fd = modus_pipe_fd(&ends[1]), .events = POLLIN | POLLOUT};
    assert_int_equal(poll(&look, 1, 0), 1);
    assert_int_equal(look.revents, POLLOUT);
    assert_int_equal(send_text(&ends[0], "x"), 0);
    assert_int_equal(poll(&look, 1, 0), 1);
    assert_int_equal(look.revents, POLLIN | POLLOUT);
    expect_text(&ends[1], "x");
    assert_int_equal(send_long(&ends[1], 1, LONG, 0), -EAGAIN);
    assert_int_equal(poll(&look, 1, 0), 0);
    close_pair(ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_arguments),
        TEST(test_one_way),
        TEST(test_times),
        TEST(test_lengths),
        TEST(test_long_both_ways),
        TEST(test_closed_peer),
        TEST(test_killed_peer),
        TEST(test_time_over_in_the_middle),
        TEST(test_given_up),
        TEST(test_foreign_bytes),
        TEST(test_no_room_to_put_by),
        TEST(test_descriptors),
        TEST(test_descriptors_do_not_leak),
        TEST(test_no_number_left),
        TEST(test_no_limit_left),
        TEST(test_pollable),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
