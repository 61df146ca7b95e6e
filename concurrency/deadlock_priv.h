/* SPDX-License-Identifier: MIT */
/*
 * The deadlock detector's table, for its three files: deadlock.c (who holds and waits, and cycles),
 * deadlock_order.c (in which order) and deadlock_report.c (in words).
 *
 * An actor is a thread or coroutine that holds or waits for something; when it does neither its
 * record is free. It alone writes its record, without a lock; others read it. What is said to be
 * under the mutex is written and read only there. All numbers, no pointers: it may lie in an arena.
 */
#ifndef CONCURRENCY_DEADLOCK_PRIV_H
#define CONCURRENCY_DEADLOCK_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concurrency/deadlock.h"
#include "concurrency/lock_priv.h"

enum {
    MODUS_ACTORS = 256,
    MODUS_HOLDS = 16,
    MODUS_ORDERS = 1024,
    MODUS_ACTOR_NAME = 96,
};

/* A lock: its address, and whose address that is. */
struct modus_node {
    uintptr_t address; /* or of the text that is the name of its class */
    uint32_t space;    /* SHARED, CLASS, or the stamp of a process */
};

enum { MODUS_SPACE_SHARED = 0, MODUS_SPACE_CLASS = 1 };

/* Something held or waited for. */
struct modus_spot {
    _Atomic uintptr_t address; /* of the node; 0: nothing; written last */
    _Atomic uint32_t space;
    _Atomic uint32_t kind; /* enum modus_hold_kind */
    _Atomic uint32_t forever;
    _Atomic uintptr_t site;
    _Atomic int64_t since;
};

struct modus_actor {
    _Alignas(64) _Atomic uint64_t key; /* id << 32 | stamp of its process; or see below */
    _Atomic int32_t pid, tid;
    _Atomic uint64_t born;                       /* when its process was, in the kernel's ticks */
    _Atomic uint64_t name[MODUS_ACTOR_NAME / 8]; /* in words: thread "T" of "P" */
    struct modus_spot wait;
    struct modus_spot holds[MODUS_HOLDS];
};

/* Other keys: FREE; or tid << 32 | MAKING, which the thread with that kernel's id has begun to fill in.
 * The second bit of every stamp is set (self.c). */
enum { MODUS_ACTOR_FREE = 0, MODUS_ACTOR_MAKING = 1 };

static inline bool modus_actor_is_made(uint64_t key)
{
    return (uint32_t)key != MODUS_ACTOR_FREE && (uint32_t)key != MODUS_ACTOR_MAKING;
}

/* "to" has been acquired while "from" was held. */
struct modus_order {
    struct modus_node from, to;
    uintptr_t from_site, to_site;
    struct modus_node locks[2]; /* if the nodes are classes */
    char who[MODUS_ACTOR_NAME]; /* in words, too */
    int pid, tid;
};

struct modus_deadlock_table {
    pthread_mutex_t mutex; /* robust */
    _Atomic uint32_t top;  /* actors beyond it have never been used */
    _Atomic uint64_t cycles, wrong_orders, untracked;
    int64_t collected; /* when records of the dead were last looked for; under mutex */
    struct modus_actor actors[MODUS_ACTORS];
    /* Under mutex: the search, and the orders. */
    bool seen[MODUS_ORDERS];
    uint16_t queue[MODUS_ORDERS], parent[MODUS_ORDERS];
    uint32_t order_count;
    struct modus_order orders[MODUS_ORDERS];
};

_Static_assert((int)MODUS_ORDERS >= (int)MODUS_ACTORS, "the search serves both");

/* The table in use; NULL: none yet. */
extern _Atomic(struct modus_deadlock_table *) modus_deadlock_table;

void modus_deadlock_enter(struct modus_deadlock_table *table);
void modus_deadlock_leave(struct modus_deadlock_table *table);

/* Is the process of the actor still there, and no zombie? Safe from: signal handlers too. */
bool modus_actor_alive(const struct modus_actor *actor);

/* The name that was given to a lock of this process, or NULL. */
const char *modus_deadlock_name_of(struct modus_node node);

struct modus_node modus_claim_node(const struct modus_claim *claim);

/* --- text ------------------------------------------------------------------------------------ */

/* Text that grows in a buffer; what has no room is left out. */
struct modus_text {
    char *at, *end;
    bool safe; /* only what a signal handler may do */
};

enum { MODUS_TEXT_SIZE = 6144 };

void modus_text_put(struct modus_text *text, const char *words);
void modus_text_number(struct modus_text *text, uint64_t number);
void modus_text_node(struct modus_text *text, struct modus_node node);
void modus_text_site(struct modus_text *text, uintptr_t site);
void modus_text_actor(struct modus_text *text, const struct modus_actor *actor);
void modus_text_who(struct modus_text *text, const char *who, int pid, int tid);

/* Who that is, in words that modus_text_who takes; process NULL: the program itself. */
void modus_text_introduce(char words[MODUS_ACTOR_NAME], bool coroutine, const char *name,
                          const char *process);

/* The cycle of count actors whose numbers are in path, each waiting for the next, the last for the
 * first. */
void modus_text_cycle(struct modus_text *text, const struct modus_deadlock_table *table,
                      const uint16_t *path, unsigned count, bool refused);

/* Give a report to whoever wants it. Not under the mutex. */
void modus_deadlock_tell(const char *words);

/* --- order ----------------------------------------------------------------------------------- */

/* The actor acquires claim, holding what it does: remember, and tell of an order that is wrong. */
void modus_order_note(struct modus_deadlock_table *table, const struct modus_actor *actor,
                      const struct modus_claim *claim);

/* Forget all orders of a lock. */
void modus_order_forget(struct modus_deadlock_table *table, struct modus_node node);

#endif
