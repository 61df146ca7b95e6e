/* SPDX-License-Identifier: MIT */
/* What the tests of the pipe share: messages that are checked byte by byte, and a count of the
 * descriptors around every test. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_PIPE_H
#define TESTS_UNIT_TEST_CONCURRENCY_PIPE_H

#include "test_concurrency_left.h"

#include "concurrency/coroutine.h"
#include "concurrency/pipe.h"

enum { LONG = 8 << 20 }; /* bytes */

static struct modus_arena *arena;

/* Every test begins and ends with the same descriptors. */
static unsigned fds_before;

static inline int begin(void **state)
{
    (void)state;
    alarm(WATCHDOG_SECONDS);
    fds_before = fds_here();
    return 0;
}

static inline int end(void **state)
{
    (void)state;
    if (fds_here() != fds_before)
        fprintf(stderr, "%u descriptors, not %u\n", fds_here(), fds_before);
    return fds_here() == fds_before ? 0 : -1;
}

static inline void open_pair(struct modus_pipe ends[2], enum modus_scope scope, bool one_way)
{
    struct modus_pipe_attr attr = {.one_way = one_way, .scope = scope, .arena = arena};

    CHECK_INT(modus_pipe_pair(ends, &attr), 0);
}

static inline void close_pair(struct modus_pipe ends[2])
{
    modus_pipe_fini(&ends[0]);
    modus_pipe_fini(&ends[1]);
}

static inline int send_text(struct modus_pipe *pipe, const char *text)
{
    return modus_pipe_send(pipe, text, strlen(text), 0);
}

static inline void expect_text(struct modus_pipe *pipe, const char *text)
{
    char got[64];
    size_t size = sizeof got;

    CHECK_INT(modus_pipe_recv(pipe, got, &size, modus_seconds(20)), 0);
    CHECK(size == strlen(text));
    CHECK(memcmp(got, text, size) == 0);
}

/* Long messages whose every byte tells where it is and whose it is. */
static inline unsigned char byte_at(unsigned seed, size_t i)
{
    return (unsigned char)(seed * 131 + i * 7 + (i >> 16));
}

static inline unsigned char *make_long(unsigned seed, size_t size)
{
    unsigned char *data = malloc(size ? size : 1);

    CHECK(data);
    for (size_t i = 0; i < size; i++)
        data[i] = byte_at(seed, i);
    return data;
}

static inline void check_long(const unsigned char *data, unsigned seed, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] != byte_at(seed, i))
            CHECK_INT(data[i], byte_at(seed, i));
}

static inline int send_long(struct modus_pipe *pipe, unsigned seed, size_t size, int64_t ns)
{
    unsigned char *data = make_long(seed, size);
    int rc = modus_pipe_send(pipe, data, size, ns);

    free(data);
    return rc;
}

static inline int co_nothing(void *argument)
{
    (void)argument;
    return 0;
}

static inline int open_arena(void **state)
{
    (void)state;
    modus_co_run(co_nothing, NULL); /* libuv keeps two descriptors from its first loop on */
    return modus_arena_open(&arena, (size_t)256 << 20, 32) < 0 ? -1 : 0;
}

static inline int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

#endif
