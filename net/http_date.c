/* SPDX-License-Identifier: MIT */
/* Dates of HTTP. The calendar arithmetic counts years from March, so that the leap day is the last
 * of its year and months before it have fixed offsets; eras of 400 years repeat exactly. */
#include "net/http_date.h"

enum { DAY = 86400, ERA_DAYS = 146097, ERA_TO_1970 = 719468 /* days from 0000-03-01 */ };

static const char day_names[7][10] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                      "Thursday", "Friday", "Saturday"};
static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct date {
    int64_t year;
    int month, day; /* from 1 */
    int hour, minute, second;
};

/* --- the calendar ----------------------------------------------------------------------------- */

static int64_t days_from(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - ERA_TO_1970;
}

static void date_from_days(struct date *d, int64_t days)
{
    int64_t z = days + ERA_TO_1970;
    int64_t era = (z >= 0 ? z : z - (ERA_DAYS - 1)) / ERA_DAYS;
    int64_t of_era = z - era * ERA_DAYS;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / (ERA_DAYS - 1)) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153; /* from March */
    d->day = (int)(of_year - (153 * month + 2) / 5 + 1);
    d->month = (int)(month < 10 ? month + 3 : month - 9);
    d->year = year + era * 400 + (d->month <= 2 ? 1 : 0);
}

static int month_length(int64_t year, int month)
{
    static const char lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && leap ? 29 : lengths[month - 1];
}

static int64_t date_seconds(const struct date *d)
{
    return days_from(d->year, d->month, d->day) * DAY + d->hour * 3600 + d->minute * 60 + d->second;
}

/* A second 60 is allowed: it is how a leap second is written. */
static bool date_is_valid(const struct date *d)
{
    return d->month >= 1 && d->day >= 1 && d->day <= month_length(d->year, d->month) &&
           d->hour < 24 && d->minute < 60 && d->second <= 60;
}

/* --- writing ---------------------------------------------------------------------------------- */

static char *put_digits(char *out, int64_t value, int count)
{
    for (int i = count - 1; i >= 0; i--, value /= 10)
        out[i] = (char)('0' + value % 10);
    return out + count;
}

static char *put(char *out, const char *text, size_t len)
{
    memcpy(out, text, len);
    return out + len;
}

static int64_t between(int64_t low, int64_t value, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

void http_date_format(char out[HTTP_DATE_LEN + 1], int64_t at_s)
{
    int64_t at = between(days_from(0, 1, 1) * DAY, at_s, days_from(10000, 1, 1) * DAY - 1);
    int64_t days = (at >= 0 ? at : at - (DAY - 1)) / DAY;
    int64_t rest = at - days * DAY;
    int64_t weekday = ((days + 4) % 7 + 7) % 7; /* 1970-01-01 was a Thursday */
    struct date d;
    date_from_days(&d, days);

    char *p = put(out, day_names[weekday], 3);
    p = put_digits(put(p, ", ", 2), d.day, 2);
    p = put(put(p, " ", 1), month_names[d.month - 1], 3);
    p = put_digits(put(p, " ", 1), d.year, 4);
    p = put_digits(put(p, " ", 1), rest / 3600, 2);
    p = put_digits(put(p, ":", 1), rest / 60 % 60, 2);
    p = put_digits(put(p, ":", 1), rest % 60, 2);
    put(p, " GMT", 5);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* What is left of the text; a mismatch is remembered, so that callers need not ask at each step. */
struct reader {
    const char *at, *end;
    bool failed;
};

static void expect(struct reader *r, struct str text)
{
    if ((size_t)(r->end - r->at) < text.len || memcmp(r->at, text.at, text.len) != 0)
        r->failed = true;
    else
        r->at += text.len;
}

static int digits(struct reader *r, int count)
{
    int value = 0;
    for (int i = 0; i < count; i++) {
        if (r->at == r->end || *r->at < '0' || *r->at > '9') {
            r->failed = true;
            return 0;
        }
        value = value * 10 + (*r->at++ - '0');
    }
    return value;
}

static int month(struct reader *r)
{
    for (int i = 0; i < 12; i++)
        if (r->end - r->at >= 3 && memcmp(r->at, month_names[i], 3) == 0) {
            r->at += 3;
            return i + 1;
        }
    r->failed = true;
    return 0;
}

static void clock_time(struct reader *r, struct date *d)
{
    d->hour = digits(r, 2);
    expect(r, STR(":"));
    d->minute = digits(r, 2);
    expect(r, STR(":"));
    d->second = digits(r, 2);
}

/* ", 06 Nov 1994 08:49:37 GMT" */
static void read_fixdate(struct reader *r, struct date *d)
{
    expect(r, STR(", "));
    d->day = digits(r, 2);
    expect(r, STR(" "));
    d->month = month(r);
    expect(r, STR(" "));
    d->year = digits(r, 4);
    expect(r, STR(" "));
    clock_time(r, d);
    expect(r, STR(" GMT"));
}

/* ", 06-Nov-94 08:49:37 GMT"; the year is in the century of now_s until the caller moves it. */
static void read_rfc850(struct reader *r, struct date *d, int64_t now_s)
{
    struct date now;
    date_from_days(&now, now_s / DAY);
    expect(r, STR(", "));
    d->day = digits(r, 2);
    expect(r, STR("-"));
    d->month = month(r);
    expect(r, STR("-"));
    d->year = now.year - now.year % 100 + digits(r, 2);
    expect(r, STR(" "));
    clock_time(r, d);
    expect(r, STR(" GMT"));
    if (d->year > now.year + 50)
        d->year -= 100;
}

/* " Nov  6 08:49:37 1994" */
static void read_asctime(struct reader *r, struct date *d)
{
    expect(r, STR(" "));
    d->month = month(r);
    expect(r, STR(" "));
    if (r->at < r->end && *r->at == ' ') {
        r->at++;
        d->day = digits(r, 1);
    } else {
        d->day = digits(r, 2);
    }
    expect(r, STR(" "));
    clock_time(r, d);
    expect(r, STR(" "));
    d->year = digits(r, 4);
}

/* Step over the day's name: its whole form tells RFC 850's dates from the others. */
static bool day_name(struct reader *r, bool *is_whole)
{
    size_t left = (size_t)(r->end - r->at);
    for (size_t i = 0; i < 7; i++) {
        size_t len = strlen(day_names[i]);
        *is_whole = left >= len && memcmp(r->at, day_names[i], len) == 0;
        if (*is_whole || (left >= 3 && memcmp(r->at, day_names[i], 3) == 0)) {
            r->at += *is_whole ? len : 3;
            return true;
        }
    }
    return false;
}

bool http_date_parse(struct str text, int64_t now_s, int64_t *at_s)
{
    struct reader r = {.at = text.at};
    struct date d = {0};
    bool is_whole;
    if (!text.len)
        return false;
    r.end = r.at + text.len;
    if (!day_name(&r, &is_whole))
        return false;
    if (is_whole)
        read_rfc850(&r, &d, now_s);
    else if (r.at < r.end && *r.at == ',')
        read_fixdate(&r, &d);
    else
        read_asctime(&r, &d);
    if (r.failed || r.at != r.end || !date_is_valid(&d))
        return false;
    *at_s = date_seconds(&d);
    return true;
}
