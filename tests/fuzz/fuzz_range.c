/* SPDX-License-Identifier: MIT */
/* What clients write into Range, If-Range, If-None-Match and the date headers, against what the
 * parsers promise: ranges lie inside, do not overlap and never add up to more than the whole; a
 * date that was read is written back and read the same; a list of tags matches no more than a naive
 * search for the tag would find.
 *
 * The first byte chooses the parser, the next eight are the size or the present time.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/http_date.h"
#include "net/http_etag.h"
#include "net/http_range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

static void fuzz_range(struct str text, int64_t size)
{
    struct http_range r[HTTP_RANGES_MAX];
    size_t count;
    char out[HTTP_CONTENT_RANGE_MAX];
    size &= INT64_MAX;
    enum http_range_verdict verdict = http_range_parse(text, size, r, &count);
    check((verdict == HTTP_RANGE_SOME) == (count > 0) && count <= HTTP_RANGES_MAX);
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        check(0 <= r[i].first && r[i].first <= r[i].last && r[i].last < size);
        for (size_t j = 0; j < i; j++)
            check(r[j].last < r[i].first || r[i].last < r[j].first);
        sum += r[i].last - r[i].first + 1; /* can't overflow if the ranges are disjoint */
        check(http_content_range(out, &r[i], size) < sizeof out);
    }
    check(sum <= size);
}

static void fuzz_date(struct str text, int64_t now_s)
{
    int64_t at, again;
    char out[HTTP_DATE_LEN + 1];
    now_s = (now_s & INT64_MAX) % 253402300800; /* the year 10000 */
    if (http_date_parse(text, now_s, &at)) {
        http_date_format(out, at);
        check(strlen(out) == HTTP_DATE_LEN);
        /* Two-digit years may lead out of what four digits hold, when now is there. */
        if (at >= -62167219200 && at < 253402300800)
            check(http_date_parse(str_of(out), now_s, &again) && again == at);
    }
    http_date_format(out, now_s);
    check(http_date_parse(str_of(out), now_s, &again) && again == now_s);
}

static void fuzz_etag(struct str text, int64_t seed)
{
    struct str mine = seed & 1 ? STR("\"1\"") : STR("\"\"");
    bool weak = http_etag_in(text, mine, HTTP_ETAG_WEAK);
    bool strong = http_etag_in(text, mine, HTTP_ETAG_STRONG);
    check(weak || !strong);
    if (weak && !str_is(text, STR("*")))
        check(memmem(text.at, text.len, mine.at, mine.len) != NULL);
    if (http_etag_is_valid(text))
        check(http_etag_in(text, text, HTTP_ETAG_WEAK));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t number;
    if (size < 1 + sizeof number)
        return 0;
    memcpy(&number, data + 1, sizeof number);
    /* A copy of its own, so that a read past the end is seen. */
    struct str text = {NULL, size - 1 - sizeof number};
    char *copy = malloc(text.len);
    if (text.len)
        memcpy(copy, data + 1 + sizeof number, text.len);
    text.at = copy;
    switch (data[0] % 3) {
    case 0:
        fuzz_range(text, number);
        break;
    case 1:
        fuzz_date(text, number);
        break;
    default:
        fuzz_etag(text, number);
        break;
    }
    free(copy);
    return 0;
}
