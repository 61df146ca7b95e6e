/* SPDX-License-Identifier: MIT */
/* Numbers as they stand in a query or a header: digits, nothing else. */
#ifndef HANDLERS_NUMBER_H
#define HANDLERS_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "net/str.h"

/* Returns false, and leaves *out, unless text is one or more digits that fit. */
static inline bool number_parse(struct str text, int64_t *out)
{
    int64_t value = 0;
    if (text.len == 0)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, text.at[i] - '0', &value))
            return false;
    }
    *out = value;
    return true;
}

#endif
