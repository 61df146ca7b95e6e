/* SPDX-License-Identifier: MIT */
/* Conditional requests for a file: If-Match and its kin, and whether a Range is to be honoured, in
 * the order of RFC 9110 13.2.2. */
#ifndef HANDLERS_CONDITIONS_H
#define HANDLERS_CONDITIONS_H

#include "handlers/file_info.h"
#include "net/exchange.h"

enum conditions_verdict {
    CONDITIONS_PROCEED,      /* answer with the file, or with range of it */
    CONDITIONS_NOT_MODIFIED, /* 304 */
    CONDITIONS_FAILED,       /* 412 */
};

/* Judge a GET or HEAD for the file that info describes. *range is the Range header's value if the
 * answer should look at it (a GET, and If-Range agrees), else its at is NULL. */
enum conditions_verdict conditions_judge(const struct exchange *x, const struct file_info *info,
                                         struct str *range);

#endif
