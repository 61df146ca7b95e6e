/* SPDX-License-Identifier: MIT */
/* Ranges. A list of many small or overlapping ranges is how a client makes a server send a file
 * many times over, so the list is bounded and overlaps are merged: an answer's parts never hold
 * more bytes than the file. Ranges that merely touch are kept apart, as they were asked for. */
#include "net/http_range.h"

#include <stdio.h>

/* One range as it was asked for. -1 stands for a number that is not there. */
struct spec {
    int64_t first, last;
};

struct reader {
    const char *at, *end;
};

static bool take(struct reader *r, char c)
{
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static void skip_blanks(struct reader *r)
{
    while (take(r, ' ') || take(r, '\t'))
        ;
}

/* A number, or -1 when there is none. One too large for us is beyond any file: the largest. */
static int64_t number(struct reader *r)
{
    int64_t value = -1;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        if (value < 0)
            value = 0;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *r->at - '0', &value))
            value = INT64_MAX;
    }
    return value;
}

/* "0-9", "9-" or "-9". */
static bool read_spec(struct reader *r, struct spec *s)
{
    s->first = number(r);
    if (!take(r, '-'))
        return false;
    s->last = number(r);
    if (s->first < 0)
        return s->last >= 0;
    return s->last < 0 || s->first <= s->last;
}

/* Cut to the representation. Returns false if nothing of it is left. */
static bool satisfy(const struct spec *s, int64_t size, struct http_range *out)
{
    if (s->first < 0) { /* the last s->last bytes */
        out->first = s->last < size ? size - s->last : 0;
        out->last = size - 1;
        return s->last > 0;
    }
    out->first = s->first;
    out->last = s->last < 0 || s->last >= size ? size - 1 : s->last;
    return s->first < size;
}

static bool overlap(const struct http_range *a, const struct http_range *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static void widen(struct http_range *a, const struct http_range *b)
{
    if (b->first < a->first)
        a->first = b->first;
    if (b->last > a->last)
        a->last = b->last;
}

/* Add one to ranges that do not overlap, and keep it so: what it touches moves into the earliest of
 * them, which may touch others by then. */
static void add(struct http_range *ranges, size_t *count, struct http_range one)
{
    size_t place = *count;
    for (size_t i = 0; i < *count; i++) {
        if (!overlap(&ranges[i], &one))
            continue;
        widen(&one, &ranges[i]);
        place = i < place ? i : place;
        memmove(&ranges[i], &ranges[i + 1], (--*count - i) * sizeof *ranges);
        i = (size_t)-1; /* look again from the start */
    }
    memmove(&ranges[place + 1], &ranges[place], ((*count)++ - place) * sizeof *ranges);
    ranges[place] = one;
}

/* Read the list behind "bytes=". Returns how many ranges it asks for, 0 if it is not well-formed or
 * too long. Satisfiable ones go to ranges; *has_suffix: one of them wants the last n > 0 bytes. */
static size_t read_list(struct reader *r, int64_t size, struct http_range *ranges, size_t *count,
                        bool *has_suffix)
{
    size_t asked = 0;
    do {
        struct spec s;
        struct http_range one;
        skip_blanks(r);
        if (r->at == r->end || *r->at == ',')
            continue; /* elements may be empty */
        if (!read_spec(r, &s) || ++asked > HTTP_RANGES_MAX)
            return 0;
        *has_suffix |= s.first < 0 && s.last > 0;
        if (size > 0 && satisfy(&s, size, &one))
            add(ranges, count, one);
        skip_blanks(r);
    } while (take(r, ','));
    return r->at == r->end ? asked : 0;
}

enum http_range_verdict http_range_parse(struct str value, int64_t size,
                                         struct http_range ranges[HTTP_RANGES_MAX], size_t *count)
{
    const struct str unit = STR("bytes=");
    bool has_suffix = false;
    *count = 0;
    if (value.len < unit.len || !str_is_nocase((struct str){value.at, unit.len}, unit))
        return HTTP_RANGE_IGNORE;
    struct reader r = {value.at + unit.len, value.at + value.len};
    if (read_list(&r, size, ranges, count, &has_suffix) == 0) {
        *count = 0;
        return HTTP_RANGE_IGNORE;
    }
    if (*count)
        return HTTP_RANGE_SOME;
    /* The last n bytes of nothing are nothing: satisfiable, but no Content-Range can say so. */
    return size == 0 && has_suffix ? HTTP_RANGE_IGNORE : HTTP_RANGE_UNSATISFIABLE;
}

size_t http_content_range(char out[HTTP_CONTENT_RANGE_MAX], const struct http_range *range,
                          int64_t size)
{
    int len = range ? snprintf(out, HTTP_CONTENT_RANGE_MAX, "bytes %lld-%lld/%lld",
                               (long long)range->first, (long long)range->last, (long long)size)
                    : snprintf(out, HTTP_CONTENT_RANGE_MAX, "bytes */%lld", (long long)size);
    return (size_t)len;
}
