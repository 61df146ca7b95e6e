/* SPDX-License-Identifier: MIT */
/* Text under construction. */
#include "handlers/page.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static bool grow(struct page *p, size_t need)
{
    if (p->failed || need > PAGE_MAX - p->len) {
        p->failed = true;
        return false;
    }
    if (need <= p->room - p->len)
        return true;
    size_t room = p->room ? p->room : 4096;
    while (room - p->len < need)
        room *= 2;
    char *bytes = realloc(p->bytes, room);
    if (!bytes) {
        p->failed = true;
        return false;
    }
    p->bytes = bytes;
    p->room = room;
    return true;
}

void page_put(struct page *p, struct str text)
{
    if (!text.len || !grow(p, text.len))
        return;
    memcpy(p->bytes + p->len, text.at, text.len);
    p->len += text.len;
}

void page_puts(struct page *p, const char *text)
{
    page_put(p, str_of(text));
}

void page_format(struct page *p, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof text)
        p->failed = true;
    else
        page_put(p, (struct str){text, (size_t)len});
}

/* The bytes of the UTF-8 character at the start of text, or 0 if there is none: over-long forms,
 * surrogates and what lies beyond U+10FFFF are none. */
static size_t utf8_length(struct str text)
{
    const unsigned char *u = (const unsigned char *)text.at;
    size_t len = u[0] < 0x80   ? 1
                 : u[0] < 0xc2 ? 0
                 : u[0] < 0xe0 ? 2
                 : u[0] < 0xf0 ? 3
                 : u[0] < 0xf5 ? 4
                               : 0;
    if (len > text.len)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((u[i] & 0xc0) != 0x80)
            return 0;
    if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
        (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
        return 0;
    return len;
}

/* Put text with each ASCII character that escape() knows replaced. escape writes into its buffer,
 * or returns NULL for a character that may stay. */
static void put_escaped(struct page *p, struct str text,
                        const char *(*escape)(unsigned char c, char buffer[8]))
{
    size_t plain = 0; /* where the run that needs no escape began */
    for (size_t i = 0; i < text.len;) {
        char buffer[8];
        size_t len = utf8_length((struct str){text.at + i, text.len - i});
        const char *instead = len == 0   ? "\xef\xbf\xbd"
                              : len == 1 ? escape((unsigned char)text.at[i], buffer)
                                         : NULL;
        size_t next = i + (len ? len : 1);
        if (instead) {
            page_put(p, (struct str){text.at + plain, i - plain});
            page_puts(p, instead);
            plain = next;
        }
        i = next;
    }
    page_put(p, (struct str){text.at + plain, text.len - plain});
}

static const char *escape_html(unsigned char c, char buffer[8])
{
    (void)buffer;
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return c < 0x20 || c == 0x7f ? "\xef\xbf\xbd" : NULL;
    }
}

static const char *escape_json(unsigned char c, char buffer[8])
{
    if (c == '"')
        return "\\\"";
    if (c == '\\')
        return "\\\\";
    if (c >= 0x20 && c != 0x7f)
        return NULL;
    snprintf(buffer, 8, "\\u%04x", c);
    return buffer;
}

static const char *escape_label(unsigned char c, char buffer[8])
{
    (void)buffer;
    return c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : NULL;
}

void page_html(struct page *p, struct str text)
{
    put_escaped(p, text, escape_html);
}

void page_json(struct page *p, struct str text)
{
    page_puts(p, "\"");
    put_escaped(p, text, escape_json);
    page_puts(p, "\"");
}

void page_label(struct page *p, struct str text)
{
    put_escaped(p, text, escape_label);
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

static bool may_stand_in_query(char c)
{
    return is_unreserved(c) || (c != '\0' && strchr("%!$&'()*+,;=:@/?[]", c));
}

static void put_encoded(struct page *p, struct str text, bool (*may_stand)(char c))
{
    size_t plain = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (may_stand(text.at[i]))
            continue;
        page_put(p, (struct str){text.at + plain, i - plain});
        page_format(p, "%%%02X", (unsigned char)text.at[i]);
        plain = i + 1;
    }
    page_put(p, (struct str){text.at + plain, text.len - plain});
}

static bool may_stand_in_path(char c)
{
    return is_unreserved(c) || c == '/';
}

void page_url(struct page *p, struct str text)
{
    put_encoded(p, text, may_stand_in_path);
}

void page_query(struct page *p, struct str text)
{
    put_encoded(p, text, may_stand_in_query);
}

void page_time(struct page *p, int64_t at_s)
{
    struct tm tm;
    time_t at = at_s;
    if (gmtime_r(&at, &tm))
        page_format(p, "%04d-%02d-%02d %02d:%02d:%02d", tm.tm_year + 1900, tm.tm_mon + 1,
                    tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

int page_reply(struct page *p, struct exchange *x, int status, const char *type)
{
    int rc = p->failed ? exchange_reply_error(x, 500) : exchange_defer(x, free, p->bytes);
    if (p->failed || rc < 0) {
        page_fini(p);
        return rc;
    }
    rc = exchange_reply_static(x, status, type, (struct str){p->bytes, p->len});
    *p = (struct page){0}; /* the exchange frees the bytes */
    return rc;
}

void page_fini(struct page *p)
{
    free(p->bytes);
    *p = (struct page){0};
}
