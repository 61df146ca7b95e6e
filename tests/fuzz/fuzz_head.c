/* SPDX-License-Identifier: MIT */
/* Request heads and bodies without a connection: the guard and llhttp must agree on where
 * everything ends, places must lie inside, and cutting the bytes must not change what they mean.
 *
 * The first byte is the size of a cut; then a head and what follows it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/http1.h"
#include "net/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* A block of exactly its size, so that a read past its end is seen. */
static char *exact(const char *bytes, size_t len)
{
    char *copy = malloc(len ? len : 1);
    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

enum { MAX = 16384 };

static long head_end(const char *bytes, size_t len, size_t cut)
{
    uint32_t resume = 0;
    long n = 0;
    for (size_t have = 0; have < len && n == 0;) {
        have = cut && cut < len - have ? have + cut : len;
        char *copy = exact(bytes, have);
        n = http1_head_end(copy, have, &resume, MAX);
        free(copy);
        check(resume <= have && n <= (long)have);
    }
    return n;
}

static size_t sunk;

static int sink(void *arg, const char *at, size_t len)
{
    check(arg == &sunk && at != NULL);
    sunk += len;
    return 0;
}

/* Returns how long the body was, -1 for a bad one, -2 for one without an end. */
static long body_end(struct http1_request *r, const char *bytes, size_t len, size_t cut)
{
    struct http1_chunks guard = {0};
    size_t used = 0;
    sunk = 0;
    while (used < len) {
        size_t n = cut && cut < len - used ? cut : len - used, skip = 0;
        bool ended = false;
        char *copy = exact(bytes + used, n);
        long share = (long)n;
        if (r->chunked) {
            share = http1_chunks_take(&guard, copy, n, &skip, &ended);
        } else {
            if ((int64_t)(used + n) >= r->content_length)
                share = (long)(r->content_length - (int64_t)used);
            ended = (int64_t)used + share == r->content_length;
        }
        int status = share < 0 ? 400 : http1_body(r, copy, (size_t)share, sink, &sunk);
        free(copy);
        if (share < 0)
            return -1;
        check(status == 0 || r->chunked);
        if (status)
            return -1;
        check(ended == r->complete);
        used += (size_t)share + skip;
        if (ended)
            return (long)used;
    }
    return -2;
}

static void check_places(const struct http1_request *r, const char *head, size_t len)
{
    check(r->target + r->target_len <= len && r->header_count <= HTTP1_HEADERS_MAX);
    for (unsigned i = 0; i < r->header_count; i++) {
        const struct http1_header *h = &r->headers[i];
        check(h->name_len > 0 && h->name + h->name_len <= len && h->value + h->value_len <= len);
        check(http1_is_token((struct str){head + h->name, h->name_len}));
        for (uint32_t b = 0; b < h->value_len; b++)
            check(head[h->value + b] != '\r' && head[h->value + b] != '\n' &&
                  head[h->value + b] != '\0');
    }
    char *scratch = malloc(r->target_len + 1u);
    struct target t;
    if (target_parse((struct str){head + r->target, r->target_len}, scratch, &t) == 0)
        check(t.path.len > 0 && t.path.at[0] == '/');
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct http1_request r, again;
    if (size < 2)
        return 0;
    size_t cut = data[0], len = size - 1;
    const char *bytes = (const char *)data + 1;
    long n = head_end(bytes, len, 0), m = head_end(bytes, len, cut);
    check(m == n);
    if (n <= 0)
        return 0;
    char *head = exact(bytes, (size_t)n);
    int status = http1_parse(&r, head, (size_t)n);
    if (status == 0) {
        check_places(&r, head, (size_t)n);
        check(!(r.chunked && r.content_length >= 0));
        if (r.chunked || r.content_length > 0) {
            check(http1_parse(&again, head, (size_t)n) == 0);
            long whole = body_end(&r, bytes + n, len - (size_t)n, 0);
            size_t whole_sunk = sunk;
            long parts = body_end(&again, bytes + n, len - (size_t)n, cut ? cut : 1);
            check(whole == parts && (whole < 0 || whole_sunk == sunk));
        }
    }
    free(head);
    return 0;
}
