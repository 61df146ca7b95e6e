/* SPDX-License-Identifier: MIT */
/* The Range header, and the Content-Range that answers it (RFC 9110 14). Pure functions.
 * Safe from: anywhere. */
#ifndef NET_HTTP_RANGE_H
#define NET_HTTP_RANGE_H

#include <stdint.h>

#include "net/str.h"

enum {
    HTTP_RANGES_MAX = 16,       /* a header that asks for more is ignored */
    HTTP_CONTENT_RANGE_MAX = 72 /* "bytes first-last/size" and its NUL */
};

/* Both ends are inside: first 0, last 0 is one byte. */
struct http_range {
    int64_t first, last;
};

enum http_range_verdict {
    HTTP_RANGE_IGNORE,        /* not ours, not well-formed or too much: answer 200 with all of it */
    HTTP_RANGE_SOME,          /* answer 206 with the ranges */
    HTTP_RANGE_UNSATISFIABLE, /* answer 416 */
};

/* Read a Range header's value for a representation of size bytes. For HTTP_RANGE_SOME, ranges[0 ..
 * *count-1] are inside the representation, in the order they were asked for, and no two overlap:
 * those that did are one, in the place of the earlier. Otherwise *count is 0. */
enum http_range_verdict http_range_parse(struct str value, int64_t size,
                                         struct http_range ranges[HTTP_RANGES_MAX], size_t *count);
/* "bytes 0-9/100" with a NUL behind it; for range NULL a star takes the place of both ends,
 * as 416 wants it. Returns its length. */
size_t http_content_range(char out[HTTP_CONTENT_RANGE_MAX], const struct http_range *range,
                          int64_t size);

#endif
