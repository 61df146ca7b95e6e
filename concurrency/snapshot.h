/* SPDX-License-Identifier: MIT */
/*
 * Snapshot: what a dict or list held at one moment, in memory of the caller's own, to go through
 * while others change the original.
 *
 *     struct modus_snapshot all;
 *     struct modus_bytes key, value;
 *
 *     if (modus_dict_snapshot(&dict, &all) == 0) {
 *         for (size_t at = 0; modus_snapshot_next(&all, &at, &key, &value);)
 *             printf("%.*s\n", (int)key.size, (const char *)key.data);
 *         modus_snapshot_fini(&all);
 *     }
 *
 * It is packed: for each item the two sizes in 32 bits, then the bytes. So it may be sent to others
 * as it is.
 */
#ifndef CONCURRENCY_SNAPSHOT_H
#define CONCURRENCY_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/bytes.h"

enum { MODUS_SNAPSHOT_ITEM = 8 }; /* bytes of an item without those of its key and value */

struct modus_snapshot {
    unsigned char *memory; /* malloc'ed */
    size_t size;           /* bytes */
};

/* Take the item at *at, a place that begins with 0, and go on to the next. A list's items have an
 * empty key. key and value, unless NULL, point into the snapshot, and need not be aligned. Returns
 * false at the end. Does not block.
 * Safe from: any thread. */
bool modus_snapshot_next(const struct modus_snapshot *snapshot, size_t *at, struct modus_bytes *key,
                         struct modus_bytes *value);

/* Free its memory. Does nothing to one that is zeroed. Safe from: one thread. */
void modus_snapshot_fini(struct modus_snapshot *snapshot);

/* For those who make snapshots: call pack, which returns how many bytes it needs (or a negative
 * code) and writes them if there is room, until they fit. Returns 0, -ENOMEM or pack's code. */
int modus_snapshot_take(struct modus_snapshot *snapshot,
                        long (*pack)(void *context, void *memory, size_t room), void *context);

/* Write an item at to; returns where the next one goes. */
unsigned char *modus_snapshot_item(unsigned char *to, struct modus_bytes key,
                                   struct modus_bytes value);

#endif
