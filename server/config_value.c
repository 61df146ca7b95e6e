/* SPDX-License-Identifier: MIT */
/* Typed values and near words. Apart from the reader because every rule here can be tested with a
 * string and an answer, and because `explain` shows values with the same units it reads. */
#include "server/config_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- shown text --------------------------------------------------------------------------- */

struct value_shown value_shown(const char *text, size_t len)
{
    struct value_shown s;
    const size_t most = 48;
    size_t n = len < most ? len : most;
    while (n < len && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--; /* never half a UTF-8 character */
    for (size_t i = 0; i < n; i++)
        s.text[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    memcpy(s.text + n, n < len ? "..." : "", n < len ? 4 : 1);
    return s;
}

struct value_shown value_shown_text(const char *text)
{
    return value_shown(text, strlen(text));
}

/* --- numbers with units ------------------------------------------------------------------- */

struct unit {
    const char *name;
    int64_t factor;
};

struct scale {
    const char *what;         /* "a size" */
    const char *unit_list;    /* "k, m or g" */
    const struct unit *units; /* from the largest, ended by NULL */
    bool unit_needed;         /* for all but 0 */
    struct value_text (*show)(int64_t n);
};

static const struct unit units_none[] = {{NULL, 1}};
static const struct unit units_size[] = {{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}, {NULL, 1}};
static const struct unit units_duration[] = {
    {"h", 3600 * 1000}, {"m", 60 * 1000}, {"s", 1000}, {"ms", 1}, {NULL, 1}};

/* The last row of units is the bare number; durations never come to it. */
static struct value_text show_scaled(int64_t n, const struct unit *u)
{
    struct value_text t;
    while (u->name && (n == 0 || n % u->factor != 0))
        u++;
    snprintf(t.text, sizeof t.text, "%" PRId64 "%s", n / u->factor, u->name ? u->name : "");
    return t;
}

struct value_text value_show_number(int64_t n)
{
    return show_scaled(n, units_none);
}

struct value_text value_show_size(int64_t bytes)
{
    return show_scaled(bytes, units_size);
}

struct value_text value_show_duration(int64_t ms)
{
    return show_scaled(ms, units_duration);
}

static const struct scale scale_number = {"a number", "", units_none, false, value_show_number};
static const struct scale scale_auto = {"a number or auto", "", units_none, false,
                                        value_show_number};
static const struct scale scale_size = {"a size", "k, m or g", units_size, false, value_show_size};
static const struct scale scale_duration = {"a duration", "ms, s, m or h", units_duration, true,
                                            value_show_duration};

static int out_of_range(const char *text, const struct scale *s, int64_t min, int64_t max,
                        char *why)
{
    struct value_shown shown = value_shown_text(text);
    if (max == INT64_MAX)
        snprintf(why, VALUE_WHY, "%s is out of range: at least %s", shown.text, s->show(min).text);
    else
        snprintf(why, VALUE_WHY, "%s is out of range: %s to %s", shown.text, s->show(min).text,
                 s->show(max).text);
    return -1;
}

/* Read digits. Returns where they end; *too_large when they don't fit. */
static const char *digits(const char *at, int64_t *n, bool *too_large)
{
    *n = 0;
    *too_large = false;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(*n, 10, n) || __builtin_add_overflow(*n, *at - '0', n))
            *too_large = true, *n = 0;
    return at;
}

static const struct unit *unit_find(const struct unit *u, const char *name)
{
    while (u->name && strcmp(u->name, name) != 0)
        u++;
    return u->name || *name == '\0' ? u : NULL;
}

static int scaled(const char *text, const struct scale *s, int64_t min, int64_t max, int64_t *out,
                  char *why)
{
    struct value_shown shown = value_shown_text(text);
    bool negative = *text == '-', too_large;
    const char *begin = text + negative;
    int64_t n;
    const char *rest = digits(begin, &n, &too_large);
    const struct unit *unit = unit_find(s->units, rest);
    if (rest == begin) {
        snprintf(why, VALUE_WHY, "\"%s\" is not %s", shown.text, s->what);
        return -1;
    }
    if (!unit && *s->unit_list == '\0') {
        snprintf(why, VALUE_WHY, "\"%s\" is not %s", shown.text, s->what);
        return -1;
    }
    if (!unit) {
        snprintf(why, VALUE_WHY, "\"%s\" is not %s: the units are %s", shown.text, s->what,
                 s->unit_list);
        return -1;
    }
    if (s->unit_needed && !unit->name && (n != 0 || too_large)) {
        snprintf(why, VALUE_WHY, "\"%s\" needs a unit: %s", shown.text, s->unit_list);
        return -1;
    }
    if (too_large || __builtin_mul_overflow(n, unit->factor, &n))
        return out_of_range(text, s, min, max, why);
    n = negative ? -n : n;
    if (n < min || n > max)
        return out_of_range(text, s, min, max, why);
    *out = n;
    return 0;
}

int value_number(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY])
{
    return scaled(text, &scale_number, min, max, out, why);
}

int value_auto(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY])
{
    if (strcmp(text, "auto") != 0)
        return scaled(text, &scale_auto, min, max, out, why);
    *out = 0;
    return 0;
}

int value_size(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY])
{
    return scaled(text, &scale_size, min, max, out, why);
}

int value_duration(const char *text, int64_t min, int64_t max, int64_t *out, char why[VALUE_WHY])
{
    return scaled(text, &scale_duration, min, max, out, why);
}

/* --- words -------------------------------------------------------------------------------- */

static const char *const bool_words[] = {"false", "true", "no", "yes", "off", "on", NULL};

int value_bool(const char *text, bool *out, char why[VALUE_WHY])
{
    int i;
    if (value_choice(text, bool_words, &i, why) != 0)
        return -1;
    *out = i % 2 == 1;
    return 0;
}

int value_choice(const char *text, const char *const *words, int *out, char why[VALUE_WHY])
{
    struct value_nearest near = {.word = text, .len = strlen(text)};
    for (int i = 0; words[i]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i;
            return 0;
        }
        value_nearest_offer(&near, words[i]);
    }
    int n = snprintf(why, VALUE_WHY, "unknown word \"%s\"%s (", value_shown_text(text).text,
                     value_nearest_hint(&near).text);
    for (int i = 0; words[i] && n < VALUE_WHY; i++)
        n += snprintf(why + n, (size_t)(VALUE_WHY - n), "%s%s", words[i],
                      !words[i + 1]   ? ")"
                      : !words[i + 2] ? " or "
                                      : ", ");
    return -1;
}

/* --- near words --------------------------------------------------------------------------- */

enum { NEAR_MOST = 40 }; /* longer words are compared by their beginning */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Letters to insert, drop, change or swap to make b of a, capitals or not. Three rows: a swap looks
 * two back. */
static unsigned edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned row[3][NEAR_MOST + 1];
    for (unsigned j = 0; j <= b_len; j++)
        row[0][j] = j;
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned *now = row[i % 3], *last = row[(i - 1) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            unsigned change = lower(a[i - 1]) != lower(b[j - 1]);
            now[j] = least(last[j - 1] + change, least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
    }
    return row[a_len % 3][b_len];
}

void value_nearest_offer(struct value_nearest *n, const char *candidate)
{
    size_t len = strlen(candidate);
    unsigned distance = edit_distance(n->word, n->len < NEAR_MOST ? n->len : NEAR_MOST, candidate,
                                      len < NEAR_MOST ? len : NEAR_MOST);
    if (n->len > 1 && strncmp(candidate, n->word, n->len) == 0)
        distance = 1; /* half typed */
    if (n->best && distance >= n->distance)
        return;
    n->best = candidate;
    n->distance = distance;
}

/* A third of the letters may be wrong, and one in a short word. */
static bool is_near(const struct value_nearest *n)
{
    size_t len = n->len < NEAR_MOST ? n->len : NEAR_MOST;
    return len > 1 && n->distance <= (len > 3 ? len / 3 : 1);
}

struct value_hint value_nearest_hint(const struct value_nearest *n)
{
    struct value_hint h = {""};
    if (n->best && is_near(n))
        snprintf(h.text, sizeof h.text, "; did you mean \"%.40s\"?", n->best);
    return h;
}
