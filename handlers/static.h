/* SPDX-License-Identifier: MIT */
/* The options of the static handler, shown for its tests, which set the clock. */
#ifndef HANDLERS_STATIC_H
#define HANDLERS_STATIC_H

#include <stdbool.h>
#include <stdint.h>

#include "net/exchange.h"

struct file_cache;
struct mime;
struct root;

struct static_conf {
    const char *root, *index;
    bool listing;
    int64_t cache_size, max_age_ms;

    /* Made by open(). */
    struct root *folder;
    struct mime *types;
    struct file_cache *cache; /* NULL: none is wanted */
    char cache_control[40];   /* "": no such header */
    struct exchange_headers accept_ranges;
    int64_t (*now_ms)(void); /* monotonic and coarse */
};

#endif
