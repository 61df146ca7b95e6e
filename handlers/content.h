/* SPDX-License-Identifier: MIT */
/* The bytes of an answer: where they are, and sending all of them, one range, or several as
 * multipart/byteranges (RFC 9110 14.6). */
#ifndef HANDLERS_CONTENT_H
#define HANDLERS_CONTENT_H

#include "net/exchange.h"
#include "net/http_range.h"

/* Either memory or a file, both borrowed until the exchange ends. */
struct content {
    const char *type;
    int64_t size;
    const char *bytes; /* NULL: in the file */
    int fd;
};

/* Answer 200 with all of it. Returns 0 or a code. */
int content_send(struct exchange *x, const struct content *c);
/* Answer 206 with one part of it. */
int content_send_range(struct exchange *x, const struct content *c, const struct http_range *range);
/* Answer 206 with several parts. When there is no room for all now, content_send_more() goes on. */
int content_send_ranges(struct exchange *x, const struct content *c,
                        const struct http_range *ranges, size_t count);
/* For EXCHANGE_ROOM: go on with what content_send_ranges() began. */
int content_send_more(struct exchange *x);

#endif
