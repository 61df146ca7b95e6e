/* SPDX-License-Identifier: MIT */
/* Packing and unpacking. A snapshot that came over a socket is as little trusted as any bytes. */
#include "concurrency/snapshot.h"
#include "concurrency/result.h"

#include <stdlib.h>

bool modus_snapshot_next(const struct modus_snapshot *snapshot, size_t *at, struct modus_bytes *key,
                         struct modus_bytes *value)
{
    uint32_t sizes[2];

    if (*at > snapshot->size || snapshot->size - *at < sizeof sizes)
        return false;
    memcpy(sizes, snapshot->memory + *at, sizeof sizes);
    const unsigned char *bytes = snapshot->memory + *at + sizeof sizes;
    size_t left = snapshot->size - *at - sizeof sizes;
    if (sizes[0] > left || sizes[1] > left - sizes[0])
        return false;
    if (key)
        *key = modus_bytes(bytes, sizes[0]);
    if (value)
        *value = modus_bytes(bytes + sizes[0], sizes[1]);
    *at += sizeof sizes + sizes[0] + sizes[1];
    return true;
}

void modus_snapshot_fini(struct modus_snapshot *snapshot)
{
    free(snapshot->memory);
    *snapshot = (struct modus_snapshot){0};
}

int modus_snapshot_take(struct modus_snapshot *snapshot,
                        long (*pack)(void *context, void *memory, size_t room), void *context)
{
    unsigned char *memory = NULL;
    size_t room = 0;
    long size;

    while ((size = pack(context, memory, room)) > (long)room) {
        free(memory);
        room = (size_t)size + (size_t)size / 8; /* it may have grown by then */
        memory = malloc(room);
        if (!memory)
            return -ENOMEM;
    }
    if (size < 0) {
        free(memory);
        return (int)size;
    }
    *snapshot = (struct modus_snapshot){.memory = memory, .size = (size_t)size};
    return 0;
}

unsigned char *modus_snapshot_item(unsigned char *to, struct modus_bytes key,
                                   struct modus_bytes value)
{
    uint32_t sizes[2] = {(uint32_t)key.size, (uint32_t)value.size};

    memcpy(to, sizes, sizeof sizes);
    to += sizeof sizes;
    if (key.size)
        memcpy(to, key.data, key.size);
    to += key.size;
    if (value.size)
        memcpy(to, value.data, value.size);
    return to + value.size;
}
