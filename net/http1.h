/* SPDX-License-Identifier: MIT */
/* HTTP/1 requests out of bytes: where a head ends, what it says, and the body's framing.
 *
 * There is one parser, llhttp; what a request means comes from it alone. Before it stands a guard
 * (http1_guard.c) that only ever rejects: what RFC 9110 and 9112 forbid and some llhttp builds
 * pass. So the two can't disagree on a request that gets through: what llhttp says holds, and it is
 * only asked about requests that are strict.
 *
 * Nothing here knows of sockets, time or routes. Safe from: the owner of the struct.
 */
#ifndef NET_HTTP1_H
#define NET_HTTP1_H

#include <llhttp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/str.h"

enum {
    HTTP1_HEADERS_MAX = 100,
    HTTP1_LINE_MAX = 8192, /* the request line; beyond: 414 */
};

/* A header by its place in the head. */
struct http1_header {
    uint32_t name, value, value_len;
    uint16_t name_len;
};

struct http1_request {
    llhttp_t parser;
    const char *base; /* set while the head is parsed */
    unsigned method;  /* enum exchange_method */
    struct str method_text;
    uint32_t target, target_len;
    uint8_t minor;
    bool keep_alive, chunked, expect_continue, complete;
    int64_t content_length; /* -1: none given */
    unsigned header_count;
    struct http1_header headers[HTTP1_HEADERS_MAX];
    /* where decoded body bytes go while http1_body runs */
    int (*sink)(void *arg, const char *at, size_t len);
    void *sink_arg;
};

/* Find the end of a head that begins at bytes. *resume must be 0 for a new head; it lets the next
 * call, with more bytes behind the same ones, go on where this one stopped.
 * Returns the head's length with its empty line, 0 when more is needed, or a negative HTTP status
 * (-400, -414, -431). max is the limit for the whole head. */
long http1_head_end(const char *bytes, size_t len, uint32_t *resume, size_t max);

/* Parse a whole head of exactly len bytes. Returns 0, or the HTTP status to refuse it with. The
 * places in r are relative to head, in which tabs behind a value may become blanks. */
int http1_parse(struct http1_request *r, char *head, size_t len);

/* The chunked framing as the guard sees it; zeroed to begin with. */
struct http1_chunks {
    uint64_t left;
    uint32_t line; /* bytes of the present line, or of all trailers */
    uint8_t state, digits;
};

/* How many of these bytes belong to the chunked body (it may end within them). *skip bytes behind
 * those are chunk extensions, to be dropped: llhttp knows only some of their forms, and RFC 9112
 * wants all to be ignored. Returns a count, or -1 when the framing is not strictly right. *ended is
 * set once the body is complete. */
long http1_chunks_take(struct http1_chunks *g, const char *bytes, size_t len, size_t *skip,
                       bool *ended);

/* Feed len bytes of the message's body (framing included), never bytes beyond it. Decoded bytes go
 * to sink, whose non-zero return stops. r->complete is set at the end.
 * Returns 0, an HTTP status for a bad body, or the sink's return. */
int http1_body(struct http1_request *r, const char *bytes, size_t len,
               int (*sink)(void *arg, const char *at, size_t len), void *arg);

/* Is it "host" or "host:port", with IPv6 in brackets and nobody's name before it? Also the empty
 * one. RFC 9110 section 4.2 and 7.2. */
bool http1_is_authority(struct str s);
/* May it stand as a header's name? */
bool http1_is_token(struct str s);
/* The guard, for http1_parse. Returns 0 or an HTTP status. */
int http1_guard(const char *head, size_t len);

#endif
