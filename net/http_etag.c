/* SPDX-License-Identifier: MIT */
/* Entity tags. */
#include "net/http_etag.h"

static bool is_weak(struct str tag)
{
    return tag.len >= 2 && tag.at[0] == 'W' && tag.at[1] == '/';
}

static struct str opaque(struct str tag)
{
    return is_weak(tag) ? (struct str){tag.at + 2, tag.len - 2} : tag;
}

/* What may stand between the quotes: no blanks, no quote, no control; bytes above 127 may. */
static bool is_tag_byte(char c)
{
    unsigned char u = (unsigned char)c;
    return u == 0x21 || (u >= 0x23 && u != 0x7f);
}

/* The length of the tag that text begins with, or 0. */
static size_t tag_length(struct str text)
{
    size_t i = is_weak(text) ? 2 : 0;
    if (i == text.len || text.at[i] != '"')
        return 0;
    for (i++; i < text.len && is_tag_byte(text.at[i]); i++)
        ;
    return i < text.len && text.at[i] == '"' ? i + 1 : 0;
}

static struct str after(struct str text, size_t n)
{
    return (struct str){text.at + n, text.len - n};
}

static struct str skip_blanks(struct str text)
{
    while (text.len && (*text.at == ' ' || *text.at == '\t'))
        text = after(text, 1);
    return text;
}

static bool is_equal(struct str a, struct str b, enum http_etag_comparison how)
{
    if (how == HTTP_ETAG_STRONG && (is_weak(a) || is_weak(b)))
        return false;
    return str_is(opaque(a), opaque(b));
}

bool http_etag_is_valid(struct str value)
{
    return value.len && tag_length(value) == value.len;
}

bool http_etag_in(struct str list, struct str mine, enum http_etag_comparison how)
{
    if (str_is(list, STR("*")))
        return true;
    for (;;) {
        list = skip_blanks(list);
        size_t len = list.len ? tag_length(list) : 0;
        if (len && is_equal((struct str){list.at, len}, mine, how))
            return true;
        if (len)
            list = skip_blanks(after(list, len));
        /* Elements may be empty; what is neither a tag nor a comma ends the reading. */
        if (!list.len || *list.at != ',')
            return false;
        list = after(list, 1);
    }
}
