/* SPDX-License-Identifier: MIT */
/* What an answer says about a file besides its bytes. */
#include "handlers/file_info.h"

#include <stdio.h>

/* The coarsest times of change that a file system keeps (FAT's). */
enum { GRAIN_S = 2 };

/* Beyond the year 2262 it wraps, which is as good for a mark. */
static int64_t nanoseconds(struct timespec t)
{
    return (int64_t)((uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec);
}

void file_info_init(struct file_info *info, const struct stat *st, const char *type,
                    const char *cache_control, int64_t now_s)
{
    info->modified_s = st->st_mtim.tv_sec < now_s ? st->st_mtim.tv_sec : now_s;
    info->size = st->st_size;
    info->type = type;
    info->etag_len =
        (uint8_t)snprintf(info->etag, sizeof info->etag, "\"%llx-%llx-%llx\"",
                          (unsigned long long)nanoseconds(st->st_mtim),
                          (unsigned long long)st->st_size, (unsigned long long)st->st_ino);
    http_date_format(info->modified, info->modified_s);
    info->headers.len = 0; /* there is room for these three, and their values are ours */
    exchange_headers_add(&info->headers, "ETag", file_info_etag(info));
    exchange_headers_add(&info->headers, "Last-Modified",
                         (struct str){info->modified, HTTP_DATE_LEN});
    if (*cache_control)
        exchange_headers_add(&info->headers, "Cache-Control", str_of(cache_control));
}

struct file_stamp file_stamp_of(const struct stat *st)
{
    return (struct file_stamp){
        .mtime_ns = nanoseconds(st->st_mtim),
        .ctime_ns = nanoseconds(st->st_ctim),
        .size = st->st_size,
        .inode = st->st_ino,
        .device = st->st_dev,
    };
}

bool file_stamp_is(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns && a->size == b->size &&
           a->inode == b->inode && a->device == b->device;
}

bool file_stamp_is_young(const struct file_stamp *s, int64_t now_s)
{
    int64_t newest = s->mtime_ns > s->ctime_ns ? s->mtime_ns : s->ctime_ns;
    return newest / 1000000000 + GRAIN_S >= now_s;
}
