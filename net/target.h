/* SPDX-License-Identifier: MIT */
/* The request target: split, decoded and normalised, so that routes and handlers see one spelling
 * of each path. RFC 9112 section 3.2, RFC 3986 sections 5.2.4 and 6.2.2. */
#ifndef NET_TARGET_H
#define NET_TARGET_H

#include "net/str.h"

struct target {
    struct str path;  /* decoded, without "." and ".." segments and doubled '/'; begins with '/' */
    struct str query; /* raw, without '?' */
    bool asterisk;    /* "*": path is "/" */
};

/* Split raw. The path lies in raw when it is normal already, else in scratch, which holds at least
 * raw.len + 1 bytes. Returns 0 or the HTTP status to refuse it with: a path that leads above '/',
 * holds a NUL or a bad %-escape, or a target that is neither a path nor an http URL. */
int target_parse(struct str raw, char *scratch, struct target *out);

#endif
