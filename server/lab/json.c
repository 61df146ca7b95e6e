/* SPDX-License-Identifier: MIT */
/* A reader of JSON: see server/lab/json.h. The text is copied once, and strings are decoded in it,
 * where they can only become shorter. */
#include "server/lab/json.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64, CHUNK = 256 };

struct chunk {
    struct chunk *next;
    size_t used;
    struct json nodes[CHUNK];
};

/* What the root is part of. */
struct document {
    struct json root;
    struct chunk *chunks;
    char *text;
};

struct reader {
    struct document *document;
    char *at, *end;
    unsigned deep;
    bool failed;
};

static struct json *new_node(struct reader *r)
{
    struct chunk *c = r->document->chunks;
    if (!c || c->used == CHUNK) {
        c = calloc(1, sizeof *c);
        if (!c)
            return NULL;
        c->next = r->document->chunks;
        r->document->chunks = c;
    }
    return &c->nodes[c->used++];
}

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && strchr(" \t\r\n", *r->at) && *r->at)
        r->at++;
}

static bool take(struct reader *r, char c)
{
    if (r->at >= r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool take_word(struct reader *r, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return false;
    r->at += len;
    return true;
}

/* --- strings --------------------------------------------------------------------------------- */

static int hex_of(const char *at)
{
    int code = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        code = code * 16 + digit;
    }
    return code;
}

static int take_hex(struct reader *r)
{
    int code = r->end - r->at < 4 ? -1 : hex_of(r->at);
    r->at += code < 0 ? 0 : 4;
    return code;
}

/* One half of a pair alone is no character: U+FFFD stands for it. */
static uint32_t take_code(struct reader *r)
{
    int high = take_hex(r);
    if (high < 0) {
        r->failed = true;
        return 0;
    }
    if (high < 0xd800 || high > 0xdfff)
        return (uint32_t)high;
    char *behind = r->at;
    int low = high <= 0xdbff && take_word(r, "\\u") ? take_hex(r) : -1;
    if (low < 0xdc00 || low > 0xdfff) {
        r->at = behind; /* what follows stands for itself, or is refused by itself */
        return 0xfffd;
    }
    return 0x10000 + (((uint32_t)high & 0x3ff) << 10) + ((uint32_t)low & 0x3ff);
}

static char *put_code(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

static char *take_escape(struct reader *r, char *to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    char c = r->at < r->end ? *r->at++ : '\0';
    const char *found = c ? strchr(from, c) : NULL;
    if (c == 'u')
        return put_code(to, take_code(r));
    if (!found)
        r->failed = true;
    *to = found ? into[found - from] : '?';
    return to + 1;
}

/* Behind its first quote. NULL: it is none. */
static const char *read_string(struct reader *r)
{
    char *text = r->at, *to = r->at;
    while (r->at < r->end && *r->at != '"' && !r->failed) {
        if ((unsigned char)*r->at < ' ')
            return NULL;
        if (take(r, '\\'))
            to = take_escape(r, to);
        else
            *to++ = *r->at++;
    }
    if (r->failed || !take(r, '"'))
        return NULL;
    *to = '\0'; /* over the quote, or before it */
    return text;
}

/* --- values ---------------------------------------------------------------------------------- */

static bool skip_digits(struct reader *r)
{
    char *from = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return r->at > from;
}

static bool skip_number(struct reader *r)
{
    take(r, '-');
    if (!take(r, '0') && !skip_digits(r))
        return false;
    if (take(r, '.') && !skip_digits(r))
        return false;
    if (take(r, 'e') || take(r, 'E')) {
        if (!take(r, '+'))
            take(r, '-');
        return skip_digits(r);
    }
    return true;
}

static bool read_number(struct reader *r, struct json *node)
{
    char *from = r->at;
    if (!skip_number(r))
        return false;
    node->kind = JSON_NUMBER;
    node->number = strtod(from, NULL); /* the text ends with a zero byte */
    return isfinite(node->number);
}

static bool read_value(struct reader *r, struct json *node);

/* Behind its bracket. */
static bool read_members(struct reader *r, struct json *node, char end)
{
    struct json **last = &node->first;
    skip_blanks(r);
    if (take(r, end))
        return true;
    do {
        struct json *member = new_node(r);
        if (!member)
            return false;
        skip_blanks(r);
        if (node->kind == JSON_OBJECT) {
            member->key = take(r, '"') ? read_string(r) : NULL;
            skip_blanks(r);
            if (!member->key || !take(r, ':'))
                return false;
        }
        if (!read_value(r, member))
            return false;
        *last = member;
        last = &member->next;
        skip_blanks(r);
    } while (take(r, ','));
    return take(r, end);
}

static bool read_value(struct reader *r, struct json *node)
{
    bool good = false;
    if (++r->deep > DEEPEST)
        return false;
    skip_blanks(r);
    if (take(r, '{')) {
        node->kind = JSON_OBJECT;
        good = read_members(r, node, '}');
    } else if (take(r, '[')) {
        node->kind = JSON_LIST;
        good = read_members(r, node, ']');
    } else if (take(r, '"')) {
        node->kind = JSON_TEXT;
        good = (node->text = read_string(r)) != NULL;
    } else if (take_word(r, "null")) {
        good = true;
    } else if (take_word(r, "true")) {
        node->kind = JSON_TRUE;
        good = true;
    } else if (take_word(r, "false")) {
        node->kind = JSON_FALSE;
        good = true;
    } else {
        good = read_number(r, node);
    }
    r->deep--;
    return good;
}

struct json *json_parse(const char *text, size_t len)
{
    struct document *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->text = malloc(len + 1);
    struct reader r = {.document = d, .at = d->text, .end = d->text ? d->text + len : NULL};
    if (d->text) {
        if (len)
            memcpy(d->text, text, len);
        d->text[len] = '\0';
    }
    bool good = d->text && read_value(&r, &d->root);
    skip_blanks(&r);
    if (good && r.at == r.end)
        return &d->root;
    json_free(&d->root);
    return NULL;
}

void json_free(struct json *root)
{
    struct document *d = (struct document *)root; /* its first member */
    while (d && d->chunks) {
        struct chunk *c = d->chunks;
        d->chunks = c->next;
        free(c);
    }
    if (d)
        free(d->text);
    free(d);
}

/* --- looking --------------------------------------------------------------------------------- */

const struct json *json_first(const struct json *at)
{
    return at ? at->first : NULL;
}

/* A place that is no number, or has signs or blanks, is none. */
static const struct json *item_at(const struct json *list, const char *name, size_t len)
{
    size_t place = 0;
    const struct json *m = list->first;
    if (len == 0 || len > 9 || strspn(name, "0123456789") < len)
        return NULL;
    for (size_t i = 0; i < len; i++)
        place = 10 * place + (size_t)(name[i] - '0');
    while (m && place-- > 0)
        m = m->next;
    return m;
}

static const struct json *member_at(const struct json *at, const char *name, size_t len)
{
    if (at->kind == JSON_LIST)
        return item_at(at, name, len);
    for (const struct json *m = at->first; m; m = m->next)
        if (strlen(m->key) == len && memcmp(m->key, name, len) == 0)
            return m;
    return NULL;
}

const struct json *json_get(const struct json *at, const char *path)
{
    while (at && *path) {
        size_t len = strcspn(path, ".");
        at = member_at(at, path, len);
        path += len + (path[len] == '.');
    }
    return at;
}

double json_number(const struct json *at, double otherwise)
{
    return at && at->kind == JSON_NUMBER ? at->number : otherwise;
}

const char *json_text(const struct json *at, const char *otherwise)
{
    return at && at->kind == JSON_TEXT ? at->text : otherwise;
}

bool json_is_true(const struct json *at)
{
    return at && at->kind == JSON_TRUE;
}
