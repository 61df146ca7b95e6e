/* SPDX-License-Identifier: MIT */
/* The bytes of an answer.
 *
 * Several ranges of a file are sent step by step: the head of each part goes through the exchange's
 * bounded pipe and may have to wait for room, the part itself is handed over as a range of the
 * file. Several ranges of memory are put together first: they are small. */
#include "handlers/content.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

enum {
    BOUNDARY_LEN = 32,
    HEAD_MAX = 512, /* a boundary, a Content-Type and a Content-Range */
};

/* In the exchange's state: an answer of several parts, as far as it has got. */
struct parts {
    struct content content;
    struct http_range ranges[HTTP_RANGES_MAX];
    size_t count;
    char boundary[BOUNDARY_LEN + 1];
    size_t at;        /* the part whose head is being written; count: the closing boundary */
    size_t head_sent; /* of it */
};

static int64_t length_of(const struct http_range *r)
{
    return r->last - r->first + 1;
}

/* --- all, or one range ------------------------------------------------------------------------ */

static int send_slice(struct exchange *x, int status, const struct content *c, int64_t from,
                      int64_t length)
{
    if (c->bytes)
        return exchange_reply_static(x, status, c->type,
                                     (struct str){c->bytes + from, (size_t)length});
    int rc = exchange_begin(x, status, c->type, length);
    if (rc == 0 && length > 0)
        rc = exchange_send_file(x, c->fd, from, length);
    return rc < 0 ? rc : exchange_end(x);
}

int content_send(struct exchange *x, const struct content *c)
{
    return send_slice(x, 200, c, 0, c->size);
}

int content_send_range(struct exchange *x, const struct content *c, const struct http_range *range)
{
    char text[HTTP_CONTENT_RANGE_MAX];
    size_t len = http_content_range(text, range, c->size);
    int rc = exchange_add(x, "Content-Range", (struct str){text, len});
    return rc < 0 ? rc : send_slice(x, 206, c, range->first, length_of(range));
}

/* --- several ranges --------------------------------------------------------------------------- */

/* What stands before part i, or at the end. */
static size_t part_head(const struct parts *p, size_t i, char out[HEAD_MAX])
{
    char range[HTTP_CONTENT_RANGE_MAX];
    const char *lead = i ? "\r\n" : "";
    int len;
    if (i == p->count) {
        len = snprintf(out, HEAD_MAX, "\r\n--%s--\r\n", p->boundary);
    } else {
        http_content_range(range, &p->ranges[i], p->content.size);
        len = snprintf(out, HEAD_MAX, "%s--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n",
                       lead, p->boundary, p->content.type, range);
    }
    return len < HEAD_MAX ? (size_t)len : HEAD_MAX - 1;
}

static int64_t parts_length(const struct parts *p)
{
    char head[HEAD_MAX];
    int64_t length = 0;
    for (size_t i = 0; i <= p->count; i++)
        length += (int64_t)part_head(p, i, head) + (i < p->count ? length_of(&p->ranges[i]) : 0);
    return length;
}

/* A boundary must not occur in what it bounds; nobody can guess this one while writing a file. */
static int make_boundary(char out[BOUNDARY_LEN + 1])
{
    unsigned char bytes[BOUNDARY_LEN / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return -EIO;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + i * 2, 3, "%02x", bytes[i]);
    return 0;
}

static int send_from_memory(struct exchange *x, const struct parts *p, const char *type)
{
    size_t length = (size_t)parts_length(p), at = 0;
    char *body = exchange_alloc(x, length), head[HEAD_MAX];
    if (!body)
        return -ENOMEM;
    for (size_t i = 0; i <= p->count; i++) {
        size_t len = part_head(p, i, head);
        memcpy(body + at, head, len);
        at += len;
        if (i == p->count)
            break;
        len = (size_t)length_of(&p->ranges[i]);
        memcpy(body + at, p->content.bytes + p->ranges[i].first, len);
        at += len;
    }
    return exchange_reply_static(x, 206, type, (struct str){body, at});
}

/* Write the head of the present part. Returns 1 when all of it is out, 0 when ROOM follows. */
static int send_head(struct exchange *x, struct parts *p)
{
    char head[HEAD_MAX];
    size_t len = part_head(p, p->at, head) - p->head_sent;
    ssize_t taken = exchange_try_write(x, head + p->head_sent, len);
    if (taken < 0)
        return (int)taken;
    p->head_sent += (size_t)taken;
    return (size_t)taken == len;
}

static int send_from_file(struct exchange *x, struct parts *p)
{
    for (;;) {
        int rc = send_head(x, p);
        if (rc <= 0)
            return rc;
        if (p->at == p->count)
            return exchange_end(x);
        const struct http_range *r = &p->ranges[p->at];
        rc = exchange_send_file(x, p->content.fd, r->first, length_of(r));
        if (rc < 0)
            return rc;
        p->at++;
        p->head_sent = 0;
    }
}

int content_send_ranges(struct exchange *x, const struct content *c,
                        const struct http_range *ranges, size_t count)
{
    char type[64];
    struct parts *p = exchange_state(x, sizeof *p);
    if (!p)
        return -ENOMEM;
    int rc = make_boundary(p->boundary);
    if (rc < 0)
        return rc;
    p->content = *c;
    p->count = count;
    memcpy(p->ranges, ranges, count * sizeof *ranges);
    snprintf(type, sizeof type, "multipart/byteranges; boundary=%s", p->boundary);
    if (c->bytes)
        return send_from_memory(x, p, type);
    rc = exchange_begin(x, 206, type, parts_length(p));
    return rc < 0 ? rc : send_from_file(x, p);
}

int content_send_more(struct exchange *x)
{
    struct parts *p = exchange_state(x, sizeof *p);
    return p ? send_from_file(x, p) : -ENOMEM;
}
