/* SPDX-License-Identifier: MIT */
/*
 * Is a history of calls on a bounded queue linearizable: is there an order of the calls, one after
 * the other, that agrees with who ended before who began, in which each returned what a queue
 * returns?
 *
 * The search is J. Wing and C. Gong's ("Testing and Verifying Concurrent Objects"): take any call
 * that may be next, see whether the queue would have answered so, go on; with G. Lowe's memory of
 * what has been reached before (the set of calls done and the state), without which it would take
 * for ever.
 *
 * What a queue answers is strict for what moves an item and for CLOSED. EMPTY and FULL are looser,
 * as the rings say them: EMPTY is also right while the put of the oldest item is still under way,
 * and FULL while the get that frees the next slot is. (So what another thread's try_get finds after
 * a put has returned may be nothing, if an earlier put of a third one has not.)
 */
#ifndef TESTS_UNIT_LINEAR_H
#define TESTS_UNIT_LINEAR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "concurrency/result.h"

enum { LINEAR_CALLS = 64, LINEAR_CAPACITY = 8 };

#ifndef LINEAR_TABLE
#define LINEAR_TABLE (1 << 14)
#endif

enum linear_kind { LINEAR_PUT, LINEAR_GET, LINEAR_CLOSE };

struct linear_call {
    enum linear_kind kind;
    int result; /* 0 or a code */
    int item;
    uint64_t began, ended; /* by one clock for all */
};

/* The queue of the specification. Items are known by the number of the call that put them. */
struct linear_state {
    uint64_t done; /* a bit for each call */
    unsigned char put_by[LINEAR_CAPACITY];
    unsigned char got_by[LINEAR_CAPACITY]; /* + 1; by slot: who freed it last; 0: nobody yet */
    unsigned char head, length, closed;    /* head counts slots, modulo the capacity */
    unsigned char padding[5];
};

struct linear_search {
    const struct linear_call *calls;
    int n;
    unsigned capacity;
    unsigned stored;
    struct linear_state *table; /* what has been reached, open addressing; done 0: free */
};

static inline uint64_t linear_hash(const struct linear_state *state)
{
    const unsigned char *byte = (const void *)state;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */

    for (size_t i = 0; i < sizeof *state; i++)
        hash = (hash ^ byte[i]) * 1099511628211u;
    return hash ^ hash >> 29;
}

/* Returns true if it is there already; else it is put there. A full table forgets, and costs only
 * time. */
static inline bool linear_known(struct linear_search *search, const struct linear_state *state)
{
    uint64_t at = linear_hash(state);

    for (;; at++) {
        struct linear_state *entry = &search->table[at % LINEAR_TABLE];

        if (entry->done == 0) {
            if (search->stored < LINEAR_TABLE / 2) {
                *entry = *state;
                search->stored++;
            }
            return false;
        }
        if (memcmp(entry, state, sizeof *state) == 0)
            return true;
    }
}

/* Would the queue have answered so? Changes state if it did. */
static inline bool linear_apply(const struct linear_search *search, struct linear_state *state,
                                int number)
{
    const struct linear_call *call = &search->calls[number];
    unsigned tail = (state->head + state->length) % search->capacity;
    bool full = state->length == search->capacity, empty = state->length == 0;

    state->done |= (uint64_t)1 << number;
    switch (call->kind) {
    case LINEAR_CLOSE:
        state->closed = 1;
        return true;
    case LINEAR_PUT:
        if (call->result == MODUS_CLOSED || state->closed)
            return call->result == MODUS_CLOSED && state->closed;
        if (call->result == MODUS_FULL)
            return full || (state->got_by[tail] &&
                            search->calls[state->got_by[tail] - 1].ended > call->began);
        if (call->result != 0 || full)
            return false;
        state->put_by[tail] = (unsigned char)number;
        state->length++;
        return true;
    case LINEAR_GET:
        if (call->result == MODUS_CLOSED)
            return state->closed && empty;
        if (call->result == MODUS_EMPTY)
            return empty ? !state->closed
                         : search->calls[state->put_by[state->head]].ended > call->began;
        if (call->result != 0 || empty ||
            search->calls[state->put_by[state->head]].item != call->item)
            return false;
        state->put_by[state->head] = 0;
        state->got_by[state->head] = (unsigned char)(number + 1);
        state->head = (unsigned char)((state->head + 1) % search->capacity);
        state->length--;
        return true;
    }
    return false;
}

static inline bool linear_from(struct linear_search *search, const struct linear_state *state)
{
    uint64_t first_end = UINT64_MAX;
    bool all = true;

    for (int i = 0; i < search->n; i++)
        if (!(state->done >> i & 1)) {
            all = false;
            if (search->calls[i].ended < first_end)
                first_end = search->calls[i].ended;
        }
    if (all)
        return true;
    /* Next may be whatever began before the first end of those that are left. */
    for (int i = 0; i < search->n; i++) {
        struct linear_state next = *state;

        if ((state->done >> i & 1) || search->calls[i].began > first_end ||
            !linear_apply(search, &next, i) || linear_known(search, &next))
            continue;
        if (linear_from(search, &next))
            return true;
    }
    return false;
}

/* For one thread. calls in any order, up to LINEAR_CALLS; the queue was empty and open before them. */
static inline bool is_linearizable(const struct linear_call *calls, int n, unsigned capacity)
{
    static struct linear_state table[LINEAR_TABLE];
    struct linear_search search = {.calls = calls, .n = n, .capacity = capacity, .table = table};
    struct linear_state empty = {0};

    memset(table, 0, sizeof table);
    return linear_from(&search, &empty);
}

#endif
