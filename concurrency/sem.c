/* SPDX-License-Identifier: MIT */
/*
 * Plain semaphores are one word: the value, and a mark in the lowest bit, "somebody may sleep".
 * Sleepers park on the word while it says value 0 and mark. A release clears the mark and wakes as
 * many as it gave. A sleeper that takes a permit sets the mark again, since others may still sleep,
 * and wakes one more if permits are left: the release that left them may have found the mark clear.
 * A sleeper sets the mark before every sleep, also before the one that times out.
 *
 * The mark must be in the word that is slept on. With the value alone there (and the mark beside
 * it, in a wider word) a permit that comes and goes between a sleeper's mark and its sleep takes
 * the mark away, and the sleep begins all the same. And it is a mark, not the number of sleepers as
 * in glibc, because a number drifts when one who is counted is killed.
 *
 * Accounted semaphores change the same word under a robust lock, together with the number of
 * permits that the participant holds. What is held is the truth: the value is recomputed from it,
 * total minus all held, after every death, so there is no order of stores that a kill could make
 * wrong.
 */
#include "concurrency/sem.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/participant.h"
#include "concurrency/participant_priv.h"

#include <limits.h>
#include <string.h>

#define MARK   ((uint32_t)1)
#define PERMIT ((uint32_t)2)

/* The accounts of a semaphore, in the arena. */
struct modus_sem_account {
    struct modus_registered registered;
    struct modus_arena *arena;
    struct modus_sem *sem;
    struct modus_lock lock;
    uint32_t total;          /* value + all held; never changes */
    _Atomic uint32_t held[]; /* by participant id - 1; under lock */
};

static uint32_t value_of(uint32_t word)
{
    return word / PERMIT;
}

/* Wake n who sleep, and every armed loop. */
static void wake(struct modus_sem *sem, uint32_t word, unsigned n)
{
    MODUS_FAULT(MODUS_FAULT_SEM_RELEASED);
    if (word & MARK)
        modus_unpark(sem->scope, &sem->word, n > INT_MAX ? INT_MAX : (int)n);
    modus_armed_ring(&sem->armed);
}

/* --- plain ----------------------------------------------------------------------------------- */

/* Take a permit; mark: leave the mark behind. Returns false if there is none. */
static bool take(struct modus_sem *sem, uint32_t mark)
{
    uint32_t word = atomic_load_explicit(&sem->word, memory_order_relaxed);

    while (value_of(word) > 0)
        if (atomic_compare_exchange_weak(&sem->word, &word, (word - PERMIT) | mark)) {
            MODUS_FAULT(MODUS_FAULT_SEM_TAKEN);
            if (mark && value_of(word) > 1)
                modus_unpark(sem->scope, &sem->word, 1);
            return true;
        }
    return false;
}

static int plain_release(struct modus_sem *sem, unsigned n)
{
    uint32_t word = atomic_load_explicit(&sem->word, memory_order_relaxed);

    do
        if (n > sem->max - value_of(word))
            return -EOVERFLOW;
    while (!atomic_compare_exchange_weak(&sem->word, &word, (word & ~MARK) + n * PERMIT));
    wake(sem, word, n);
    return 0;
}

/* --- accounted ------------------------------------------------------------------------------- */

static void recompute(struct modus_sem_account *account)
{
    uint32_t held = 0;
    uint32_t word = atomic_load(&account->sem->word);

    for (unsigned i = 0; i < account->arena->participants; i++)
        held += atomic_load(&account->held[i]);
    while (!atomic_compare_exchange_weak(&account->sem->word, &word,
                                         (word & MARK) | (account->total - held) * PERMIT))
        ;
}

/* A holder of the account's lock died. Nobody may have been woken by it, so wake all. */
static int repair(void *context)
{
    struct modus_sem_account *account = context;

    recompute(account);
    modus_unpark(MODUS_PROCESS, &account->sem->word, INT_MAX);
    return 0;
}

static int accounted_take(struct modus_sem *sem, uint32_t mark)
{
    struct modus_sem_account *account = sem->account;
    int id = modus_participant_self(account->arena);

    if (id < 0)
        return id;
    modus_lock_regain(&account->lock, __builtin_return_address(0));
    MODUS_FAULT(MODUS_FAULT_SEM_LOCKED);
    bool any = value_of(atomic_load(&sem->word)) > 0;
    if (any) {
        atomic_fetch_add(&account->held[id - 1], 1);
        MODUS_FAULT(MODUS_FAULT_SEM_NOTED);
        any = take(sem, mark);
    }
    modus_lock_release(&account->lock);
    return any ? 0 : -EAGAIN;
}

static int accounted_release(struct modus_sem *sem, unsigned n)
{
    struct modus_sem_account *account = sem->account;
    int id = modus_participant_self(account->arena), rc = -EPERM;

    if (id < 0)
        return id;
    modus_lock_regain(&account->lock, __builtin_return_address(0));
    uint32_t word = atomic_load(&sem->word);
    if (atomic_load(&account->held[id - 1]) >= n) {
        atomic_fetch_sub(&account->held[id - 1], n);
        MODUS_FAULT(MODUS_FAULT_SEM_NOTED);
        while (!atomic_compare_exchange_weak(&sem->word, &word, (word & ~MARK) + n * PERMIT))
            ;
        rc = 0;
    }
    modus_lock_release(&account->lock);
    if (rc == 0)
        wake(sem, word, n);
    return rc;
}

void modus_sem_scrub(struct modus_registered *registered, int id)
{
    /* registered is the first member. */
    struct modus_sem_account *account = (struct modus_sem_account *)(void *)registered;

    modus_lock_regain(&account->lock, __builtin_return_address(0));
    if (atomic_exchange(&account->held[id - 1], 0) > 0) {
        repair(account);
        modus_armed_ring(&account->sem->armed);
    }
    modus_lock_release(&account->lock);
}

static size_t account_bytes(const struct modus_arena *arena)
{
    return sizeof(struct modus_sem_account) + arena->participants * sizeof(_Atomic uint32_t);
}

static int account_new(struct modus_sem *sem, struct modus_arena *arena, uint32_t total)
{
    if (!arena)
        return -EINVAL;
    struct modus_sem_account *account = modus_arena_alloc(arena, account_bytes(arena), 0);
    if (!account)
        return -ENOMEM;
    int rc = modus_lock_init(&account->lock, MODUS_PROCESS);
    if (rc < 0) {
        modus_arena_free(arena, account, account_bytes(arena));
        return rc;
    }
    modus_lock_set_repair(&account->lock, repair, account);
    account->arena = arena;
    account->sem = sem;
    account->total = total;
    sem->account = account;
    modus_registry_add(arena, &account->registered, MODUS_REGISTERED_SEM);
    return 0;
}

static void account_free(struct modus_sem_account *account)
{
    struct modus_arena *arena = account->arena;

    modus_registry_remove(arena, &account->registered);
    modus_lock_fini(&account->lock);
    modus_arena_free(arena, account, account_bytes(arena));
}

/* --- both ------------------------------------------------------------------------------------ */

int modus_sem_init(struct modus_sem *sem, const struct modus_sem_attr *attr)
{
    uint32_t max = attr->max ? attr->max : INT_MAX;
    int rc = 0;

    memset(sem, 0, sizeof *sem);
    if (!modus_scope_fits(attr->scope, sem) || max > INT_MAX || attr->value > max ||
        (attr->accounted && attr->scope == MODUS_THREAD))
        return -EINVAL;
    sem->max = max;
    atomic_init(&sem->word, attr->value * PERMIT);
    if (attr->accounted)
        rc = account_new(sem, attr->arena ? attr->arena : modus_arena_of(sem), attr->value);
    if (rc == 0)
        sem->scope = (uint32_t)attr->scope;
    return rc;
}

void modus_sem_fini(struct modus_sem *sem)
{
    if (sem->scope == 0)
        return;
    modus_armed_fini(&sem->armed, sem->scope);
    if (sem->account)
        account_free(sem->account);
    memset(sem, 0, sizeof *sem);
}

static int try_take(struct modus_sem *sem, uint32_t mark)
{
    if (sem->account)
        return accounted_take(sem, mark);
    return take(sem, mark) ? 0 : -EAGAIN;
}

/* Set the mark if there is no permit. Returns false if there is one. */
static bool mark_empty(struct modus_sem *sem)
{
    uint32_t word = 0;

    return atomic_compare_exchange_strong(&sem->word, &word, MARK) || word == MARK;
}

static int wait_until(struct modus_sem *sem, int64_t deadline)
{
    struct modus_watch watch = {0};
    int rc, parked = 0;

    for (;;) {
        if (sem->scope == MODUS_PROCESS)
            modus_watch_look(&watch, sem->account ? (void *)sem->account : sem);
        rc = try_take(sem, MARK);
        if (rc != -EAGAIN)
            return rc;
        if (parked < 0)
            return parked;
        if (!mark_empty(sem))
            continue;
        MODUS_FAULT(MODUS_FAULT_PARK_MARKED);
        parked = modus_park(sem->scope, &sem->word, MARK, deadline, &watch);
    }
}

int modus_sem_acquire(struct modus_sem *sem, int64_t ns)
{
    if (sem->scope == 0 || ns < MODUS_FOREVER)
        return -EINVAL;
    int rc = try_take(sem, 0);
    return rc != -EAGAIN || ns == 0 ? rc : wait_until(sem, modus_deadline(ns));
}

int modus_sem_acquire_until(struct modus_sem *sem, int64_t deadline)
{
    if (sem->scope == 0 || deadline < MODUS_FOREVER)
        return -EINVAL;
    int rc = try_take(sem, 0);
    return rc == -EAGAIN ? wait_until(sem, deadline) : rc;
}

int modus_sem_try(struct modus_sem *sem)
{
    return modus_sem_acquire(sem, 0);
}

int modus_sem_release(struct modus_sem *sem, unsigned n)
{
    if (sem->scope == 0 || n == 0)
        return -EINVAL;
    return sem->account ? accounted_release(sem, n) : plain_release(sem, n);
}

unsigned modus_sem_value(const struct modus_sem *sem)
{
    return value_of(atomic_load(&sem->word));
}

unsigned modus_sem_held(const struct modus_sem *sem, int id)
{
    if (!sem->account || id < 1 || (unsigned)id > sem->account->arena->participants)
        return 0;
    return atomic_load(&sem->account->held[id - 1]);
}

int modus_sem_arm(struct modus_sem *sem, struct modus_doorbell *bell)
{
    return sem->scope == 0 ? -EINVAL : modus_armed_add(&sem->armed, bell, sem->scope);
}

void modus_sem_disarm(struct modus_sem *sem, struct modus_doorbell *bell)
{
    if (sem->scope != 0)
        modus_armed_remove(&sem->armed, bell, sem->scope);
}
