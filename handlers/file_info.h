/* SPDX-License-Identifier: MIT */
/* What an answer says about a file besides its bytes, made once from what stat() told. */
#ifndef HANDLERS_FILE_INFO_H
#define HANDLERS_FILE_INFO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "net/exchange.h"
#include "net/http_date.h"
#include "net/str.h"

enum { FILE_ETAG_MAX = 56 };

struct file_info {
    char etag[FILE_ETAG_MAX]; /* strong: time of change in ns, size and inode */
    char modified[HTTP_DATE_LEN + 1];
    uint8_t etag_len;
    int64_t modified_s; /* what modified says */
    int64_t size;
    const char *type;                /* borrowed */
    struct exchange_headers headers; /* ETag, Last-Modified, Cache-Control */
};

/* A time of change that lies in the future is shown as now_s (RFC 9110 8.8.2.1). cache_control: ""
 * for none. */
void file_info_init(struct file_info *info, const struct stat *st, const char *type,
                    const char *cache_control, int64_t now_s);

static inline struct str file_info_etag(const struct file_info *info)
{
    return (struct str){info->etag, info->etag_len};
}

/* Enough of stat() to see that a file is not what it was: ctime also tells of a changed mode and of
 * an mtime that was set back. */
struct file_stamp {
    int64_t mtime_ns, ctime_ns, size;
    uint64_t inode, device;
};

struct file_stamp file_stamp_of(const struct stat *st);
bool file_stamp_is(const struct file_stamp *a, const struct file_stamp *b);
/* Was it changed so shortly before now_s that a second change could carry the same times? */
bool file_stamp_is_young(const struct file_stamp *s, int64_t now_s);

#endif
