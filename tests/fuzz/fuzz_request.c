/* SPDX-License-Identifier: MIT */
/* A stream of bytes into a connection with some routes: a text, a streaming echo, a collecting run
 * handler, a chunked stream. Each input is played twice, whole and in cuts, with short reads,
 * little room and passing time as its first bytes say; the rig checks every step, and how the bytes
 * were cut must not change what was answered.
 *
 *   byte 0  1: time passes; 2: reset at the end; 4: the peer ends early what it sends;
 *           8: a TCP listener; 16: draining begins in the middle; 32: small body limit
 *   byte 1  bytes a call at most, 0 any      byte 2  room towards the peer in 64 bytes, 0 any
 *   byte 3  seed of the cuts                 then the stream
 */
#include <stdint.h>
#include <stdlib.h>

#define RIG_FAIL(...)   (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), abort())
#define RIG_MOST_PIECES 20000
#include "tests/unit/test_net_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TIME = 1, RESET = 2, EARLY_END = 4, TCP = 8, DRAIN = 16, SMALL = 32 };
enum { RECORDS = 4096 };

/* What was answered, in order. */
struct told {
    char method[8];
    int status;
    int64_t bytes;
};

static struct told told[2][RECORDS];
static size_t told_count[2];
static int run_index;

static void tell(const struct exchange_record *r)
{
    if (told_count[run_index] == RECORDS)
        return;
    struct told *t = &told[run_index][told_count[run_index]++];
    memset(t, 0, sizeof *t);
    snprintf(t->method, sizeof t->method, "%.*s", (int)r->method.len, r->method.at);
    t->status = r->status;
    t->bytes = r->body_bytes;
}

static void play(const uint8_t *data, size_t size, bool cut)
{
    unsigned flags = data[0];
    uint32_t seed = data[3];
    const char *at = (const char *)data + 4;
    size_t left = size - 4;
    rig_start();
    rig_routes();
    rig.record = tell;
    rig.service.handler_timeout_ms = 5000;
    rig.service.keepalive_requests = 500;
    if (flags & SMALL)
        rig.service.max_body_size = 100;
    if (flags & TCP) {
        rig.service.route_count = 0;
        rig_route(0, "", &rig_echo_entry);
        rig.service.duplex = true;
    }
    rig_connect();
    if (cut) {
        rig.unread = data[2] != 0;
        memory_pipe_limit(rig.pipe, data[1], data[2] * 64u);
    }
    while (left) {
        seed = seed * 1664525 + 1013904223;
        size_t n = cut ? 1 + (seed >> 10) % (seed >> 30 ? 20 : 2000) : left;
        n = n < left ? n : left;
        /* Each piece is a block of its own, so that a read past its end is seen. */
        char *piece = malloc(n);
        memcpy(piece, at, n);
        memory_pipe_feed(rig.pipe, piece, n);
        free(piece);
        at += n;
        left -= n;
        if ((flags & DRAIN) && left < size / 2)
            rig.phase = SERVICE_DRAINING;
        if (rig.open)
            rig_run();
        if (rig.unread && (seed >> 8) % 3)
            rig_take((seed >> 12) % 3000);
        if (cut && (flags & TIME) && (seed >> 9) % 4 == 0)
            rig_sleep((seed >> 12) % 12000);
        if (cut && (flags & EARLY_END) && (seed >> 9) % 16 == 0)
            break;
    }
    if ((flags & RESET) && rig.open) {
        memory_pipe_reset(rig.pipe);
        conn_hang_up(&rig.conn, false);
        rig_run();
        RIG_CHECK(!rig.open);
    }
    for (int i = 0; rig.open && rig.unread && i < 2000; i++) {
        rig_take(1 + data[2] * 64u);
        rig_run();
    }
    rig_end();
}

static bool refused(const struct told *t)
{
    return t->method[0] == '-' || t->status == 400 || t->status == 413;
}

/* How the bytes came must not change what was answered. Where there are several reasons to refuse a
 * head or a body, another may be found first. */
static void compare(void)
{
    RIG_CHECK(told_count[0] == told_count[1]);
    for (size_t i = 0; i < told_count[0]; i++) {
        const struct told *a = &told[0][i], *b = &told[1][i];
        RIG_CHECK(strcmp(a->method, b->method) == 0);
        if (!refused(a) || !refused(b) || (a->status == b->status && a->method[0] != '-'))
            RIG_CHECK(a->status == b->status && a->bytes == b->bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > 300000)
        return 0;
    for (run_index = 0; run_index < 2; run_index++) {
        told_count[run_index] = 0;
        play(data, size, run_index == 1);
    }
    /* A streaming echo has begun, or not, when its body turns out to be wrong. */
    bool same = !(data[0] & (TIME | RESET | EARLY_END | TCP | DRAIN)) &&
                !memmem(data, size, "echo", 4) && !memchr(data, '%', size);
    if (same)
        compare();
    return 0;
}
