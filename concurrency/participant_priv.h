/* SPDX-License-Identifier: MIT */
/*
 * What the process-scope objects and the table of participants know of each other.
 *
 * Every object that can hold a claim of a participant (and every table of armed doorbells) is in
 * its arena's registry, an intrusive list. Burying walks it and calls the kind's scrub function.
 * The kind is a number, not a function pointer: shared memory holds no code addresses.
 */
#ifndef CONCURRENCY_PARTICIPANT_PRIV_H
#define CONCURRENCY_PARTICIPANT_PRIV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct modus_arena;

enum modus_registered_kind {
    MODUS_REGISTERED_ARMED = 1,
    MODUS_REGISTERED_SEM = 2,
    MODUS_REGISTERED_QUEUE = 3,
    MODUS_REGISTERED_RWLOCK = 4,
};

/* First member of whatever registers. */
struct modus_registered {
    struct modus_registered *_Atomic next; /* under the arena's registry lock */
    uint32_t kind;
};

/* Enter or remove an object. Briefly takes the arena's registry lock. */
void modus_registry_add(struct modus_arena *arena, struct modus_registered *object,
                        enum modus_registered_kind kind);
void modus_registry_remove(struct modus_arena *arena, struct modus_registered *object);

/* The claim of participant id stands in the caller's way. If id is dead it is buried (by us or by
 * another) when this returns true: look again. */
bool modus_participant_mourn(struct modus_arena *arena, int id);

/* Take every claim signed id out of the object; under the registry lock, idempotent, and safe
 * against being killed anywhere inside. modus_armed_scrub rings instead, for any death. */
void modus_armed_scrub(struct modus_registered *registered);
void modus_sem_scrub(struct modus_registered *registered, int id);
void modus_queue_scrub(struct modus_registered *registered, int id);
void modus_rwlock_scrub(struct modus_registered *registered, int id);

#endif
