/* SPDX-License-Identifier: MIT */
/* Splitting and normalising the request target: see net/target.h. */
#include "net/target.h"

#include "net/http1.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "http://host/path" to "/path"; RFC 9112 3.2.2 wants servers to take it. */
static bool strip_authority(struct str *raw)
{
    size_t scheme = raw->len >= 7 && str_is_nocase((struct str){raw->at, 7}, STR("http://"))    ? 7
                    : raw->len >= 8 && str_is_nocase((struct str){raw->at, 8}, STR("https://")) ? 8
                                                                                                : 0;
    if (!scheme)
        return false;
    size_t i = scheme;
    while (i < raw->len && raw->at[i] != '/' && raw->at[i] != '?')
        i++;
    if (i == scheme || !http1_is_authority((struct str){raw->at + scheme, i - scheme}))
        return false;
    raw->at += i;
    raw->len -= i;
    return true;
}

static bool is_normal(struct str path)
{
    for (size_t i = 0; i < path.len; i++) {
        if (path.at[i] == '%')
            return false;
        if (path.at[i] == '/' && i + 1 < path.len &&
            (path.at[i + 1] == '/' || path.at[i + 1] == '.'))
            return false;
    }
    return true;
}

/* Undo %-escapes. Returns the length, or -1 for a bad escape or a NUL. */
static long decode(struct str path, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < path.len; i++) {
        char c = path.at[i];
        if (c == '%') {
            if (path.len - i < 3)
                return -1;
            int high = hex(path.at[i + 1]), low = hex(path.at[i + 2]);
            if (high < 0 || low < 0)
                return -1;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0')
            return -1;
        out[n++] = c;
    }
    return (long)n;
}

/* Drop empty, "." and ".." segments in place. Returns the new length, or -1 above the root. */
static long normalise(char *path, size_t len)
{
    size_t to = 0;
    for (size_t i = 0; i < len;) {
        while (i < len && path[i] == '/')
            i++;
        size_t start = i;
        while (i < len && path[i] != '/')
            i++;
        struct str segment = {path + start, i - start};
        bool last = i == len;
        if (segment.len == 0 || str_is(segment, STR("."))) {
            if (last)
                path[to++] = '/';
        } else if (str_is(segment, STR(".."))) {
            if (to == 0)
                return -1;
            while (path[--to] != '/')
                ;
            if (last)
                path[to++] = '/';
        } else {
            path[to++] = '/';
            memmove(path + to, segment.at, segment.len);
            to += segment.len;
        }
    }
    return (long)to;
}

int target_parse(struct str raw, char *scratch, struct target *out)
{
    *out = (struct target){0};
    if (str_is(raw, STR("*"))) {
        *out = (struct target){.path = STR("/"), .asterisk = true};
        return 0;
    }
    bool absolute = strip_authority(&raw);
    const char *mark = raw.len ? memchr(raw.at, '?', raw.len) : NULL;
    struct str path = {raw.at, mark ? (size_t)(mark - raw.at) : raw.len};
    if (mark)
        out->query = (struct str){mark + 1, raw.len - path.len - 1};
    if (path.len == 0 && absolute) {
        out->path = STR("/");
        return 0;
    }
    if (path.len == 0 || path.at[0] != '/')
        return 400;
    if (is_normal(path)) {
        out->path = path;
        return 0;
    }
    long len = decode(path, scratch);
    if (len >= 0)
        len = normalise(scratch, (size_t)len);
    if (len < 0)
        return 400;
    out->path = (struct str){scratch, (size_t)len};
    return 0;
}
