/* SPDX-License-Identifier: MIT */
/*
 * The barrier's state changes under its lock, and everybody waits for it at one condition.
 *
 * In process scope a table says who is a party and who of them is inside, signed with the slot's
 * generation, so that a participant's successor in the same slot is not taken for it. The death
 * epoch wakes all who wait at the condition; each then looks through the table.
 */
#include "concurrency/barrier.h"
#include "concurrency/arena_priv.h"
#include "concurrency/lock_priv.h"
#include "concurrency/participant.h"

#include <string.h>

enum { FILLING, DRAINING, RESETTING, BROKEN };

struct modus_barrier_party {
    uint32_t known;  /* generation of its slot + 1; 0: no party */
    uint32_t inside; /* waits: of a thread, or one of each of its coroutines */
};

static size_t table_bytes(const struct modus_barrier *barrier)
{
    return barrier->arena->participants * sizeof *barrier->table;
}

/* --- under the lock -------------------------------------------------------------------------- */

static void set_state(struct modus_barrier *barrier, uint32_t state)
{
    barrier->state = state;
    modus_cond_notify_all(&barrier->changed);
}

/* The last to leave opens it for the next round. */
static void settle(struct modus_barrier *barrier)
{
    if (barrier->inside == 0 && (barrier->state == DRAINING || barrier->state == RESETTING))
        set_state(barrier, barrier->doomed ? BROKEN : FILLING);
}

/* A round that is complete, or was ended by a reset, stays so; what breaks then is the next one. */
static void break_it(struct modus_barrier *barrier)
{
    if (barrier->state == DRAINING || barrier->state == RESETTING)
        barrier->doomed = true;
    else
        set_state(barrier, BROKEN);
}

/* Process scope: forget the parties that are dead. Returns whether there were any. */
static bool bury(struct modus_barrier *barrier)
{
    bool any = false;

    if (!barrier->table)
        return false;
    barrier->inside = 0;
    for (unsigned i = 0; i < barrier->arena->participants; i++) {
        struct modus_barrier_party *party = &barrier->table[i];
        struct modus_participant now = {0};

        if (party->known == 0)
            continue;
        if (modus_participant_look(barrier->arena, (int)i + 1, &now) != 0 ||
            now.generation + 1 != party->known ||
            !modus_participant_alive(barrier->arena, (int)i + 1)) {
            *party = (struct modus_barrier_party){0};
            any = true;
        }
        barrier->inside += party->inside;
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

static int wait_until_state_is_not(struct modus_barrier *barrier, uint32_t state, int64_t deadline)
{
    int rc = 0;

    while (barrier->state == state && rc == 0) {
        rc = modus_cond_wait_until(&barrier->changed, deadline);
        if (rc >= 0)
            rc = 0, look_for_deaths(barrier);
    }
    return barrier->state == state ? rc : 0;
}

/* Returns 0, or a negative code: the caller is not inside. */
static int enter(struct modus_barrier *barrier, int id, int64_t deadline)
{
    int rc = 0;

    look_for_deaths(barrier);
    while (rc == 0 && (barrier->state == DRAINING || barrier->state == RESETTING))
        rc = wait_until_state_is_not(barrier, barrier->state, deadline);
    if (rc < 0)
        break_it(barrier); /* the next round, where others would wait for the caller */
    else if (barrier->state == BROKEN)
        rc = MODUS_BROKEN;
    if (rc < 0)
        return rc;
    if (barrier->table) {
        struct modus_barrier_party *party = &barrier->table[id - 1];
        struct modus_participant now = {0};

        modus_participant_look(barrier->arena, id, &now);
        party->known = now.generation + 1;
        party->inside++;
    }
    barrier->inside++;
    return 0;
}

static void leave(struct modus_barrier *barrier, int id)
{
    uint32_t *own = barrier->table ? &barrier->table[id - 1].inside : &barrier->inside;

    if (*own == 0)
        return; /* another coroutine has left the arena, and so this wait is forgotten */
    if (barrier->table)
        --*own;
    barrier->inside--;
    settle(barrier);
}

/* The last party has come. */
static int release(struct modus_barrier *barrier)
{
    int rc = barrier->action ? barrier->action(barrier->context) : 0;

    set_state(barrier, rc < 0 ? BROKEN : DRAINING);
    return rc < 0 ? rc : 0;
}

static int await_others(struct modus_barrier *barrier, int64_t deadline)
{
    int rc = wait_until_state_is_not(barrier, FILLING, deadline);

    if (rc < 0) {
        set_state(barrier, BROKEN);
        return rc;
    }
    return barrier->state == DRAINING ? 0 : MODUS_BROKEN;
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
    modus_cond_init(&barrier->changed, &barrier->lock);
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
    modus_cond_fini(&barrier->changed);
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
    int64_t deadline = modus_deadline(ns);
    modus_lock_regain(&barrier->lock, __builtin_return_address(0));
    int rc = enter(barrier, id, deadline);
    if (rc == 0) {
        int place = (int)barrier->inside - 1;

        rc = barrier->inside == barrier->parties ? release(barrier)
                                                 : await_others(barrier, deadline);
        rc = rc == 0 ? place : rc;
        leave(barrier, id);
    }
    modus_lock_release(&barrier->lock);
    return rc;
}

void modus_barrier_abort(struct modus_barrier *barrier)
{
    if (barrier->scope == 0)
        return;
    modus_lock_regain(&barrier->lock, __builtin_return_address(0));
    break_it(barrier);
    modus_lock_release(&barrier->lock);
}

void modus_barrier_reset(struct modus_barrier *barrier)
{
    if (barrier->scope == 0)
        return;
    modus_lock_regain(&barrier->lock, __builtin_return_address(0));
    bury(barrier);
    barrier->doomed = false;
    if (barrier->state == FILLING || barrier->state == BROKEN)
        set_state(barrier, RESETTING);
    settle(barrier);
    modus_lock_release(&barrier->lock);
}

bool modus_barrier_broken(struct modus_barrier *barrier)
{
    if (barrier->scope == 0)
        return false;
    modus_lock_regain(&barrier->lock, __builtin_return_address(0));
    look_for_deaths(barrier);
    bool broken = barrier->state == BROKEN || barrier->doomed;
    modus_lock_release(&barrier->lock);
    return broken;
}

unsigned modus_barrier_waiting(struct modus_barrier *barrier)
{
    if (barrier->scope == 0)
        return 0;
    modus_lock_regain(&barrier->lock, __builtin_return_address(0));
    look_for_deaths(barrier);
    unsigned waiting = barrier->state == FILLING ? barrier->inside : 0;
    modus_lock_release(&barrier->lock);
    return waiting;
}
