/* SPDX-License-Identifier: MIT */
/*
 * The barrier's state changes under its lock, and everybody waits for it to change at one word, which
 * counts the changes too. Whoever changes it wakes the others when it has given the lock up; and who
 * is woken need not take it: what has become of the round that it waited for stays to be read until
 * it has left, since the next one can't begin before. Only the last to leave takes the lock again.
 *
 * In process scope a table says who is a party and how many of it are inside, signed with the slot's
 * generation, so that a participant's successor in the same slot is not taken for it. The death
 * epoch wakes all who wait; each then looks through the table. Whoever changed the state and is
 * killed before it wakes the others leaves them asleep until the death epoch moves.
 */
#include "concurrency/barrier.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/park.h"
#include "concurrency/participant.h"

#include <limits.h>
#include <string.h>

enum { FILLING, DRAINING, RESETTING, BROKEN, STATE = 3, CHANGE = 4 }; /* of the word */

struct modus_barrier_party {
    uint32_t known;          /* generation of its slot + 1; 0: no party */
    _Atomic uint32_t inside; /* waits: of a thread, or one of each of its coroutines */
};

static size_t table_bytes(const struct modus_barrier *barrier)
{
    return barrier->arena->participants * sizeof *barrier->table;
}

/* Returns whether it is the caller's from now on: it is not in the action, whose caller has it. */
static inline bool lock(struct modus_barrier *barrier)
{
    return modus_lock_regain(&barrier->lock, __builtin_return_address(0)) >= 0;
}

static void unlock(struct modus_barrier *barrier)
{
    enum modus_scope scope = (enum modus_scope)barrier->scope;
    bool tell = barrier->tell;

    barrier->tell = false;
    modus_lock_release(&barrier->lock);
    if (!tell)
        return;
    MODUS_FAULT(MODUS_FAULT_WAKE_CLAIMED);
    modus_unpark(scope, &barrier->word, INT_MAX);
}

static uint32_t state_of(const struct modus_barrier *barrier)
{
    return atomic_load(&barrier->word) & STATE;
}

static uint32_t count_inside(const struct modus_barrier *barrier)
{
    uint32_t n = atomic_load(&barrier->inside);

    for (uint32_t i = 0; barrier->table && i < atomic_load(&barrier->top); i++)
        n += atomic_load(&barrier->table[i].inside);
    return n;
}

/* --- under the lock -------------------------------------------------------------------------- */

static void set_state(struct modus_barrier *barrier, uint32_t state)
{
    uint32_t changes = atomic_load(&barrier->word) & ~(uint32_t)STATE;

    atomic_store(&barrier->word, (changes + CHANGE) | state);
    barrier->tell |= barrier->sleepers;
    barrier->sleepers = false;
}

/* The last to leave opens it for the next round. */
static void settle(struct modus_barrier *barrier)
{
    uint32_t state = state_of(barrier);

    if ((state == DRAINING || state == RESETTING) && count_inside(barrier) == 0)
        set_state(barrier, barrier->doomed ? BROKEN : FILLING);
}

/* A round that is complete, or was ended by a reset, stays so; what breaks then is the next one. */
static void break_it(struct modus_barrier *barrier)
{
    uint32_t state = state_of(barrier);

    if (state == DRAINING || state == RESETTING)
        barrier->doomed = true;
    else
        set_state(barrier, BROKEN);
}

static bool is_dead(const struct modus_barrier *barrier, uint32_t i)
{
    struct modus_participant now = {0};

    return modus_participant_look(barrier->arena, (int)i + 1, &now) != 0 ||
           now.generation + 1 != barrier->table[i].known ||
           !modus_participant_alive(barrier->arena, (int)i + 1);
}

/* Process scope: forget the parties that are dead. Returns whether there were any. */
static bool bury(struct modus_barrier *barrier)
{
    bool any = false;

    for (uint32_t i = 0; barrier->table && i < atomic_load(&barrier->top); i++)
        if (barrier->table[i].known != 0 && is_dead(barrier, i)) {
            atomic_store(&barrier->table[i].inside, 0);
            barrier->table[i].known = 0;
            any = true;
        }
    return any;
}

static void look_for_deaths(struct modus_barrier *barrier)
{
    if (bury(barrier))
        break_it(barrier);
    settle(barrier);
}

/* A holder of the lock died; the table is the truth. */
static int repair(void *context)
{
    struct modus_barrier *barrier = context;

    bury(barrier);
    break_it(barrier);
    settle(barrier);
    return 0;
}

/* --- waiting --------------------------------------------------------------------------------- */

/* See who is dead, and from now on be woken by any death: in the parties' arena, which need not be the
 * one that the barrier lies in. */
static void look(struct modus_barrier *barrier, struct modus_watch *watch)
{
    if (barrier->table)
        modus_watch_look(watch, barrier->arena);
    look_for_deaths(barrier);
}

/* Give the lock up, and sleep until the word changes, or somebody dies. Returns as modus_park. */
static int sleep_without(struct modus_barrier *barrier, const struct modus_watch *watch,
                         int64_t deadline)
{
    uint32_t seen = atomic_load(&barrier->word);

    barrier->sleepers = true;
    unlock(barrier);
    MODUS_FAULT(MODUS_FAULT_PARK_MARKED);
    int rc = modus_park((enum modus_scope)barrier->scope, &barrier->word, seen, deadline, watch);
    MODUS_FAULT(MODUS_FAULT_WAKE_PASSED);
    return rc;
}

/* Returns 0, or a negative code: the caller is not inside. */
static int enter(struct modus_barrier *barrier, int id, int64_t deadline, struct modus_watch *watch)
{
    uint32_t state;
    int rc = 0;

    look(barrier, watch);
    while ((state = state_of(barrier)) == DRAINING || state == RESETTING) {
        if (rc < 0) {
            break_it(barrier); /* the next round, where others would wait for the caller */
            return rc;
        }
        rc = sleep_without(barrier, watch, deadline);
        lock(barrier);
        look(barrier, watch);
    }
    if (state == BROKEN)
        return MODUS_BROKEN;
    if (barrier->table) {
        struct modus_barrier_party *party = &barrier->table[id - 1];
        struct modus_participant now = {0};

        modus_participant_look(barrier->arena, id, &now);
        party->known = now.generation + 1;
        if ((uint32_t)id > atomic_load(&barrier->top))
            atomic_store(&barrier->top, (uint32_t)id);
        atomic_fetch_add(&party->inside, 1);
    } else {
        atomic_fetch_add(&barrier->inside, 1);
    }
    return 0;
}

/* With the lock or without. Returns whether nobody is inside any more. */
static bool go_out(struct modus_barrier *barrier, int id)
{
    _Atomic uint32_t *own = barrier->table ? &barrier->table[id - 1].inside : &barrier->inside;

    /* Else another coroutine has left the arena, and this wait went too. */
    if (atomic_load(own) > 0)
        atomic_fetch_sub(own, 1);
    return count_inside(barrier) == 0;
}

static void leave(struct modus_barrier *barrier, int id)
{
    go_out(barrier, id);
    settle(barrier);
    unlock(barrier);
}

static void leave_without(struct modus_barrier *barrier, int id)
{
    if (!go_out(barrier, id))
        return;
    lock(barrier);
    settle(barrier);
    unlock(barrier);
}

/* The last party has come. */
static int release(struct modus_barrier *barrier, int id)
{
    int rc = barrier->action ? barrier->action(barrier->context) : 0;

    if (!modus_lock_mine(&barrier->lock))
        return -ECHILD; /* forked by the action */
    set_state(barrier, rc < 0 ? BROKEN : DRAINING);
    leave(barrier, id);
    return rc < 0 ? rc : 0;
}

static int await_others(struct modus_barrier *barrier, int id, int64_t deadline,
                        struct modus_watch *watch)
{
    uint32_t state;
    int rc = 0;

    while ((state = state_of(barrier)) == FILLING && rc == 0) {
        rc = sleep_without(barrier, watch, deadline);
        if ((state = state_of(barrier)) != FILLING) {
            leave_without(barrier, id);
            return state == DRAINING ? 0 : MODUS_BROKEN;
        }
        lock(barrier);
        look(barrier, watch);
    }
    if (state == FILLING)
        set_state(barrier, BROKEN);
    leave(barrier, id);
    return state == FILLING ? rc : state == DRAINING ? 0 : MODUS_BROKEN;
}

/* --- calls ----------------------------------------------------------------------------------- */

int modus_barrier_init(struct modus_barrier *barrier, const struct modus_barrier_attr *attr)
{
    memset(barrier, 0, sizeof *barrier);
    if (attr->parties == 0 || attr->parties > INT32_MAX ||
        (attr->scope == MODUS_PROCESS && !attr->arena))
        return -EINVAL;
    int rc = modus_lock_init(&barrier->lock, attr->scope);
    if (rc < 0)
        return rc;
    barrier->parties = attr->parties;
    barrier->action = attr->action;
    barrier->context = attr->context;
    if (attr->scope == MODUS_PROCESS) {
        modus_lock_set_repair(&barrier->lock, repair, barrier);
        barrier->arena = attr->arena;
        barrier->table = modus_arena_alloc(attr->arena, table_bytes(barrier), 0);
        if (!barrier->table) {
            modus_lock_fini(&barrier->lock);
            return -ENOMEM;
        }
    }
    barrier->scope = (uint32_t)attr->scope;
    return 0;
}

void modus_barrier_fini(struct modus_barrier *barrier)
{
    if (barrier->scope == 0)
        return;
    if (barrier->table)
        modus_arena_free(barrier->arena, barrier->table, table_bytes(barrier));
    modus_lock_fini(&barrier->lock);
    memset(barrier, 0, sizeof *barrier);
}

int modus_barrier_wait(struct modus_barrier *barrier, int64_t ns)
{
    int id = 0;

    if (barrier->scope == 0 || ns < MODUS_FOREVER)
        return -EINVAL;
    if (barrier->table && (id = modus_participant_self(barrier->arena)) < 0)
        return id;
    struct modus_watch watch = {0};
    int64_t deadline = modus_deadline(ns);
    if (!lock(barrier))
        return -EDEADLK;
    int rc = enter(barrier, id, deadline, &watch);
    if (rc < 0) {
        unlock(barrier);
        return rc;
    }
    uint32_t inside = count_inside(barrier);
    rc = inside == barrier->parties ? release(barrier, id)
                                    : await_others(barrier, id, deadline, &watch);
    return rc == 0 ? (int)inside - 1 : rc;
}

void modus_barrier_abort(struct modus_barrier *barrier)
{
    if (barrier->scope == 0 || !lock(barrier))
        return;
    break_it(barrier);
    unlock(barrier);
}

void modus_barrier_reset(struct modus_barrier *barrier)
{
    if (barrier->scope == 0 || !lock(barrier))
        return;
    bury(barrier);
    barrier->doomed = false;
    if (state_of(barrier) == FILLING || state_of(barrier) == BROKEN)
        set_state(barrier, RESETTING);
    settle(barrier);
    unlock(barrier);
}

bool modus_barrier_broken(struct modus_barrier *barrier)
{
    if (barrier->scope == 0 || !lock(barrier))
        return false;
    look_for_deaths(barrier);
    bool broken = state_of(barrier) == BROKEN || barrier->doomed;
    unlock(barrier);
    return broken;
}

unsigned modus_barrier_waiting(struct modus_barrier *barrier)
{
    if (barrier->scope == 0 || !lock(barrier))
        return 0;
    look_for_deaths(barrier);
    unsigned waiting = state_of(barrier) == FILLING ? count_inside(barrier) : 0;
    unlock(barrier);
    return waiting;
}
