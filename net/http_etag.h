/* SPDX-License-Identifier: MIT */
/* Entity tags in If-Match, If-None-Match and If-Range (RFC 9110 8.8.3 and 13.1). A tag is written
 * with its quotes, "abc" or W/"abc". Pure functions. Safe from: anywhere. */
#ifndef NET_HTTP_ETAG_H
#define NET_HTTP_ETAG_H

#include "net/str.h"

enum http_etag_comparison {
    HTTP_ETAG_STRONG, /* both must be strong: If-Match, If-Range */
    HTTP_ETAG_WEAK,   /* W/ makes no difference: If-None-Match */
};

/* Is value a whole entity tag? */
bool http_etag_is_valid(struct str value);
/* Is one of the list's tags equal to mine, or is the list "*"? A list is read up to its first
 * mistake, so a broken one matches less, never more. */
bool http_etag_in(struct str list, struct str mine, enum http_etag_comparison how);

#endif
