/* SPDX-License-Identifier: MIT */
/* A borrowed run of bytes: a pointer and a length, not ended by NUL. Everything that HTTP hands to
 * handlers is one of these, because the bytes lie inside a buffer that somebody else owns. */
#ifndef NET_STR_H
#define NET_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct str {
    const char *at;
    size_t len;
};

/* A literal as a str, without counting at run time. */
#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})

static inline struct str str_of(const char *text)
{
    return (struct str){text, text ? strlen(text) : 0};
}

static inline bool str_is(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

/* ASCII case is ignored, whatever the locale; strings that protocols compare are short. */
static inline bool str_is_nocase(struct str a, struct str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        unsigned char x = (unsigned char)a.at[i], y = (unsigned char)b.at[i];
        if (x != y && ((x ^ y) != 0x20 || (unsigned)((x | 0x20) - 'a') > 'z' - 'a'))
            return false;
    }
    return true;
}

#endif
