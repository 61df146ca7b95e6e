/* SPDX-License-Identifier: MIT */
/* The directory: all listeners as others may see them, in shared memory. Whoever shows the status is
 * a worker of some listener, forked before others came; what it has inherited of the master's own
 * memory tells what was there then.
 *
 * A listing is one generation of a listener; what its earlier ones have counted is in their common
 * past. Listings come and go under the directory's lock, which a reader has for as long as it copies
 * what it shows: they and their boards stay as long.
 *
 *     if (directory_hold(d) == 0) {
 *         for (const struct listing *l = d->first; l; l = l->next)
 *             show(l);
 *         directory_let(d);
 *     }
 *
 * Safe from: hold and let any process; all else the master.
 */
#ifndef SERVER_DIRECTORY_H
#define SERVER_DIRECTORY_H

#include "concurrency/lock.h"
#include "server/board.h"
#include "server/listener.h"

enum { LISTING_NAME = 128, LISTING_NOTE = 160, LISTING_MODEL = 32, LISTING_WHY = 512 };

enum listing_state {
    LISTING_STARTING, /* its workers are not all ready yet */
    LISTING_SERVING,
    LISTING_RETIRING, /* another generation serves; this one finishes what it has */
};

/* What generations of a listener that are gone have counted. */
struct listing_past {
    struct net_stats stats;
    struct net_gil_counts gil;
    uint64_t deaths;
    uint64_t recycled[WEAR_REASONS];
    struct blocked blocked;
};

struct listing {
    struct listing *next;
    struct listing_past *past; /* the same for all generations of a listener */
    const struct model *model;
    struct model_plan plan;
    struct board *board;
    unsigned number; /* of the generation, from 1 */
    _Atomic int state;
    int64_t since_ms; /* Unix time */
    bool duplex, tls, gil;
    char name[LISTING_NAME], note[LISTING_NOTE]; /* note "": none */
    unsigned address_count;
    char (*addresses)[LISTING_NAME]; /* as bound */
};

/* How often something was asked for. */
struct directory_outcomes {
    uint64_t taken, refused;
};

enum directory_switch_state { SWITCH_NONE, SWITCH_UNDER_WAY, SWITCH_TAKEN, SWITCH_REFUSED };

/* The last time that a listener was to be switched by hand. */
struct directory_switch {
    uint64_t number; /* since the start; 0: never yet */
    enum directory_switch_state state;
    int64_t asked_ms, ended_ms; /* Unix time */
    char listener[LISTING_NAME], model[LISTING_MODEL], why[LISTING_WHY];
};

struct directory {
    struct modus_lock lock;
    struct listing *first; /* in the order of the file; a listener's newest before its older ones */
    uint64_t generation;   /* configurations taken so far: the first one, reloads and switches */
    uint64_t deaths;       /* of workers of listeners that are gone */
    struct directory_outcomes reloads, switches;
    struct directory_switch last_switch;
};

/* NULL when the arena is full. */
struct directory *directory_new(struct modus_arena *arena);
/* Make a listing of l, not in the directory yet. past: of its earlier generations, or NULL to begin
 * one. NULL when the arena is full. */
struct listing *listing_new(struct modus_arena *arena, const struct listener *l, unsigned number,
                            struct listing_past *past);
/* Have just these from now on, in that order; a listener's newest first, then its older ones. */
void directory_set(struct directory *d, struct listing *const *listings, size_t count);
/* Another configuration was taken. */
void directory_changed(struct directory *d);
/* A reload has ended: why it was refused, or NULL. */
void directory_reloaded(struct directory *d, const char *why);
/* A switch by hand begins, and ends: why it was refused, or NULL. */
void directory_switching(struct directory *d, const char *listener, const char *model);
void directory_switched(struct directory *d, const char *why);
/* Take it out, add what it has counted to its listener's past, and free it; if it is the last of its
 * listener, that goes, too. One that is not in the directory has counted nothing. */
void directory_remove(struct directory *d, struct modus_arena *arena, struct listing *l);
/* Read it. directory_hold waits for a moment at most. Returns 0 or a negative code. */
int directory_hold(struct directory *d);
void directory_let(struct directory *d);

#endif
