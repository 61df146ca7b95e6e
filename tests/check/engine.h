/* SPDX-License-Identifier: MIT */
/* What the search (search.c) and the models of kernel and libc (models.c) know of each other. */
#ifndef TESTS_CHECK_ENGINE_H
#define TESTS_CHECK_ENGINE_H

#include "concurrency/context.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/self.h"
#include "tests/check/check.h"
#include "tests/check/hooks.h"

/* Of an atomic object, which is read as a plain one: all run on one thread. */
#define CHECK_ADDRESS(p) ((const void *)(uintptr_t)(p))

enum check_state { READY, PARKED, WAITING, GONE, KILLED };

enum { CHECK_BUFFER = 8 };

struct check_store_buffered {
    void *object;
    uint64_t value;
    size_t size;
};

struct check_actor {
    /* Of an atomic object, which is read as a plain one: all run on one thread. */
#define CHECK_ADDRESS(p) ((const void *)(uintptr_t)(p))

    enum check_state state;
    struct modus_context context;
    /* PARKED: */
    enum modus_scope scope;
    const void *word, *epoch;
    bool timed;   /* PARKED and WAITING: may find its time over */
    bool patient; /* ... but only once nobody else can go on */
    bool woken, timed_out;
    unsigned order; /* of falling asleep */
    /* WAITING: */
    bool (*ready)(void *argument);
    void *argument;
    /* tso: */
    struct check_store_buffered buffer[CHECK_BUFFER];
    unsigned buffered;
    unsigned priority; /* random runs */
    unsigned changes;  /* its own, and what it has seen of the others': check_let_others */
    unsigned others_seen;
};

extern struct check_actor check_actors[CHECK_ACTORS];
extern bool check_tso;
extern int64_t check_now;

/* The running actor; NULL in setup and verify. */
struct check_actor *check_current(void);

/* Leave the processor because of state, which is not READY; returns when chosen again. */
void check_block(/* Of an atomic object, which is read as a plain one: all run on one thread. */
#define CHECK_ADDRESS(p) ((const void *)(uintptr_t)(p))

                 enum check_state state);

/* How many changes all but the actor have made. */
unsigned check_changes_but(const struct check_actor *actor);

void check_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_flush(struct check_actor *actor);

/* models.c: forget the last run; be whoever runs (from 1). */
void check_models_reset(int64_t tick);
void check_models_be(int actor);
/* An actor has ended or been killed: what it owned passes on. */
void check_models_end(int actor);

#endif
