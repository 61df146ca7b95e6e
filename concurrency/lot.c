/* SPDX-License-Identifier: MIT */
/*
 * A hash table of lists. Each bucket has a spin lock, because what is under it takes some ten
 * instructions, and because a lock that parks can't stand under parking. A holder that loses its
 * CPU is waited for by giving up one's own.
 */
#include "concurrency/lot.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stddef.h>

enum { BUCKETS = 256, SPINS = 64 };

struct bucket {
    alignas(64) atomic_flag held;
    struct modus_lot_entry *first, *last;
};

static struct bucket buckets[BUCKETS];
_Atomic uint32_t modus_lot_count;

/* A signal handler may unpark while its thread holds a bucket: it must not wait for itself. */
static _Thread_local volatile sig_atomic_t busy, disturbed;

static struct bucket *bucket_of(uintptr_t word)
{
    uint64_t hash = (uint64_t)word * 0x9e3779b97f4a7c15u;

    return &buckets[hash >> 56];
}

static void hold(struct bucket *b)
{
    busy = 1;
    for (unsigned i = 1; atomic_flag_test_and_set_explicit(&b->held, memory_order_acquire); i++)
        if (i % SPINS == 0)
            sched_yield();
}

static void wake_everybody(void);

static void let(struct bucket *b)
{
    atomic_flag_clear_explicit(&b->held, memory_order_release);
    busy = 0;
    if (__builtin_expect(disturbed, 0))
        wake_everybody();
}

static void unlist(struct bucket *b, struct modus_lot_entry *entry)
{
    *(entry->previous ? &entry->previous->next : &b->first) = entry->next;
    *(entry->next ? &entry->next->previous : &b->last) = entry->previous;
    entry->listed = false;
    atomic_fetch_sub(&modus_lot_count, 1);
}

bool modus_lot_enter(struct modus_lot_entry *entry, _Atomic uint32_t *word, uint32_t expected)
{
    struct bucket *b = bucket_of((uintptr_t)word);

    hold(b);
    atomic_fetch_add(&modus_lot_count, 1);
    if (atomic_load(word) != expected) {
        atomic_fetch_sub(&modus_lot_count, 1);
        let(b);
        return false;
    }
    entry->word = (uintptr_t)word;
    entry->next = NULL;
    entry->previous = b->last;
    *(b->last ? &b->last->next : &b->first) = entry;
    b->last = entry;
    entry->listed = true;
    let(b);
    return true;
}

bool modus_lot_leave(struct modus_lot_entry *entry)
{
    struct bucket *b = bucket_of(entry->word);

    hold(b);
    bool listed = entry->listed;
    if (listed)
        unlist(b, entry);
    let(b);
    return listed;
}

/* Take up to n entries out of a bucket, of one word or (0) of any, and wake them. */
static int wake_from(struct bucket *b, uintptr_t word, int n)
{
    struct modus_lot_entry *woken = NULL, **end = &woken;
    int count = 0;

    hold(b);
    for (struct modus_lot_entry *entry = b->first, *next; entry && count < n; entry = next) {
        next = entry->next;
        if (word && entry->word != word)
            continue;
        unlist(b, entry);
        entry->next = NULL;
        *end = entry;
        end = &entry->next;
        count++;
    }
    let(b);
    while (woken) { /* one that is woken may be gone at once */
        struct modus_lot_entry *entry = woken;

        woken = entry->next;
        entry->wake(entry);
    }
    return count;
}

static void wake_everybody(void)
{
    disturbed = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        wake_from(&buckets[i], 0, INT_MAX);
}

int modus_lot_wake(_Atomic uint32_t *word, int n)
{
    if (busy) {
        disturbed = 1;
        return 0;
    }
    return wake_from(bucket_of((uintptr_t)word), (uintptr_t)word, n);
}

void modus_lot_forget(void)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        buckets[i].first = buckets[i].last = NULL;
        atomic_flag_clear(&buckets[i].held);
    }
    atomic_store(&modus_lot_count, 0);
    busy = disturbed = 0;
}
