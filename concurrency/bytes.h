/* SPDX-License-Identifier: MIT */
/*
 * Bytes: a piece of memory with its length, borrowed for the time of a call. Keys and values of
 * dicts, lists and queues are bytes; what they mean is the caller's business.
 *
 *     modus_dict_put(&dict, modus_str("hits"), modus_bytes(&hits, sizeof hits));
 */
#ifndef CONCURRENCY_BYTES_H
#define CONCURRENCY_BYTES_H

#include <stddef.h>
#include <string.h>

struct modus_bytes {
    const void *data; /* may be NULL when size is 0 */
    size_t size;
};

static inline struct modus_bytes modus_bytes(const void *data, size_t size)
{
    return (struct modus_bytes){.data = data, .size = size};
}

/* The characters of a string, without the zero at its end. */
static inline struct modus_bytes modus_str(const char *string)
{
    return modus_bytes(string, strlen(string));
}

#endif
