/* SPDX-License-Identifier: MIT */
/* Conditional requests. Most requests carry none of these headers, so they are looked for in one
 * pass over the request's headers, and a name is only compared when its length fits. */
#include "handlers/conditions.h"

#include <time.h>

#include "net/http_etag.h"

/* A header that may stand once. Standing more often it is not valid. */
struct single {
    struct str value;
    unsigned count;
};

/* Lists of tags are judged line by line, since they may be spread over several. */
struct conditions {
    bool has_match, match;
    bool has_none_match, none_match;
    struct single modified_since, unmodified_since, if_range, range;
};

static void note(struct single *s, struct str value)
{
    s->value = value;
    s->count++;
}

static void note_header(struct conditions *c, struct str name, struct str value, struct str etag)
{
    switch (name.len) {
    case 5:
        if (str_is_nocase(name, STR("Range")))
            note(&c->range, value);
        break;
    case 8:
        if (str_is_nocase(name, STR("If-Range"))) {
            note(&c->if_range, value);
        } else if (str_is_nocase(name, STR("If-Match"))) {
            c->has_match = true;
            c->match |= http_etag_in(value, etag, HTTP_ETAG_STRONG);
        }
        break;
    case 13:
        if (str_is_nocase(name, STR("If-None-Match"))) {
            c->has_none_match = true;
            c->none_match |= http_etag_in(value, etag, HTTP_ETAG_WEAK);
        }
        break;
    case 17:
        if (str_is_nocase(name, STR("If-Modified-Since")))
            note(&c->modified_since, value);
        break;
    case 19:
        if (str_is_nocase(name, STR("If-Unmodified-Since")))
            note(&c->unmodified_since, value);
        break;
    default:
        break;
    }
}

/* Is the header there, once, and a date? */
static bool has_date(const struct single *s, int64_t *at_s)
{
    return s->count == 1 && http_date_parse(s->value, time(NULL), at_s);
}

static bool is_unmodified(const struct single *since, const struct file_info *info)
{
    int64_t at_s;
    return !has_date(since, &at_s) || info->modified_s <= at_s;
}

static bool is_modified(const struct single *since, const struct file_info *info)
{
    int64_t at_s;
    return !has_date(since, &at_s) || info->modified_s > at_s;
}

/* A date is as good as a strong tag only once its second is over: until then the file can change
 * and keep its date. */
static bool range_condition_holds(const struct single *s, const struct file_info *info)
{
    int64_t at_s;
    if (s->count == 0)
        return true;
    if (s->count > 1)
        return false;
    if (http_etag_is_valid(s->value))
        return http_etag_in(s->value, file_info_etag(info), HTTP_ETAG_STRONG);
    return has_date(s, &at_s) && at_s == info->modified_s && at_s < time(NULL);
}

enum conditions_verdict conditions_judge(const struct exchange *x, const struct file_info *info,
                                         struct str *range)
{
    struct conditions c = {0};
    struct str name, value, etag = file_info_etag(info);
    *range = (struct str){0};
    for (size_t i = 0; exchange_header_at(x, i, &name, &value); i++)
        note_header(&c, name, value, etag);

    if (c.has_match ? !c.match : !is_unmodified(&c.unmodified_since, info))
        return CONDITIONS_FAILED;
    if (c.has_none_match ? c.none_match : !is_modified(&c.modified_since, info))
        return CONDITIONS_NOT_MODIFIED;
    if (c.range.count == 1 && exchange_method(x) == EXCHANGE_GET &&
        range_condition_holds(&c.if_range, info))
        *range = c.range.value;
    return CONDITIONS_PROCEED;
}
