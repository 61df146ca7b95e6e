/* SPDX-License-Identifier: MIT */
/* The arena's layout, for arena.c and participant.c: header, participants, links, blocks. */
#ifndef CONCURRENCY_ARENA_PRIV_H
#define CONCURRENCY_ARENA_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/lock.h"
#include "concurrency/participant_priv.h"

enum {
    MODUS_ARENA_UNIT = 64,     /* smallest block, and what links are indexed by */
    MODUS_ARENA_CLASSES = 112, /* enough for the class of 64 GiB */
    MODUS_ARENAS_MAX = 16,
    MODUS_PARTICIPANTS_MAX = 32767,
};

/* A participant's slot, on cache lines of its own. */
struct modus_slot {
    _Alignas(128) _Atomic uint32_t state; /* participant.c; under registry */
    _Atomic uint32_t generation;          /* counts the participants that this slot has had */
    _Atomic int32_t pid;
    _Atomic int32_t tid;
    _Atomic(struct modus_doorbell *) bell;
    pthread_mutex_t live; /* robust; held for life, so that the kernel marks the death */
};

struct modus_arena {
    uint64_t serial; /* different for every arena of a machine's uptime */
    size_t bytes;
    unsigned index; /* in the table of open arenas */
    unsigned participants;
    struct modus_slot *slots;
    _Atomic uint32_t *links;                       /* one for each unit of the arena */
    struct modus_lock registry;                    /* slots' states and the list below */
    struct modus_registered *_Atomic objects;      /* changed under registry, by single stores */
    _Alignas(128) _Atomic uint32_t epoch;          /* deaths buried; watched by all sleepers */
    _Alignas(128) _Atomic uint64_t top;            /* first byte never allocated */
    _Atomic uint64_t classes[MODUS_ARENA_CLASSES]; /* free blocks: tag << 32 | unit */
};

/* Make the table of free slots in a zeroed arena. Returns 0 or a code of modus_lock_init. */
int modus_participants_init(struct modus_arena *arena, unsigned participants);

/* Call visit for every open arena of this process, which is kept from being closed meanwhile. */
void modus_arenas_visit(void (*visit)(struct modus_arena *arena, void *context), void *context);

/* Keep an arena, if it is open here, from being closed until it is let go: for a moment, as the close
 * waits for that. The pointer may be an old one. */
bool modus_arena_hold(const struct modus_arena *arena);
void modus_arena_let_go(const struct modus_arena *arena);

/* Has any thread of the calling process joined? */
bool modus_participants_here(struct modus_arena *arena);

#endif
