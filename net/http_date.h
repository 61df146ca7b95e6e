/* SPDX-License-Identifier: MIT */
/* Dates as HTTP writes them (RFC 9110 5.6.7), without the C library's locale and time zone.
 * Pure functions. Safe from: anywhere. */
#ifndef NET_HTTP_DATE_H
#define NET_HTTP_DATE_H

#include <stdbool.h>
#include <stdint.h>

#include "net/str.h"

enum { HTTP_DATE_LEN = 29 }; /* "Sun, 06 Nov 1994 08:49:37 GMT" */

/* The date of Unix time at_s with a NUL behind it. Years beyond 0 .. 9999 are cut to those. */
void http_date_format(char out[HTTP_DATE_LEN + 1], int64_t at_s);
/* Read any of the three forms: IMF-fixdate, RFC 850's (whose two-digit year lies at most 50 years
 * after now_s) and asctime's. Returns false, and leaves *at_s, for anything else. The day's name
 * must be one, but need not be the right one. */
bool http_date_parse(struct str text, int64_t now_s, int64_t *at_s);

#endif
