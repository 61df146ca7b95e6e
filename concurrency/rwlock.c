/* SPDX-License-Identifier: MIT */
/*
 * Both scopes of the readers-writer lock: a plain lock for who writes, and a note of who reads.
 *
 *     reader:  note oneself;  look at the mark WRITER       if set: take the note back, and queue
 *     writer:  own the lock;  set the mark WRITER;  wait until nobody is noted;  write
 *
 * The note is a number in thread scope, in the same word as the mark, and a slot for each
 * participant in process scope, so that the dead can be told from the living. Slot and mark are
 * Dekker's: each side writes its own, then looks at the other's.
 *
 * A reader that is kept out acquires the plain lock, notes itself, and gives it up. While one owns
 * the plain lock no mark is set but one's own, so that can't fail; the plain lock's fairness is the
 * readers' too, its verdict on a dead owner reaches them, and there is no second queue. The price:
 * readers that a writer has kept out come in one after the other.
 *
 * WRITING tells a writer that was killed at its work from one that was killed while waiting for
 * readers, or after it had done, which has left nothing to mend.
 *
 * A waiting writer sleeps on the slot of a reader, and that reader wakes it by the same exchange
 * that clears the slot. In thread scope the one that takes the number to 0 under the mark says so in
 * gone: there is exactly one, since nobody enters under the mark.
 */
#include "concurrency/rwlock.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/participant.h"
#include "concurrency/tsan.h"

#include <string.h>

#define WRITER  0x80000000u /* keeps readers out; also after a writer's death, and if poisoned */
#define WRITING 0x40000000u /* process scope: what the lock guards is being changed */
#define READERS 0x3fffffffu /* thread scope: how many */

#define READING 1u /* in a slot */
#define AWAITED 2u /* a writer sleeps on the slot */

enum { LOOK_AFTER_NS = 1000000000 };

struct slot {
    _Alignas(64) _Atomic uint32_t word;
};

/* In the arena. */
struct modus_rwlock_readers {
    struct modus_registered registered;
    struct modus_arena *arena;
    struct slot slots[]; /* by participant id - 1 */
};

static bool is_shared(const struct modus_rwlock *lock)
{
    return lock->lock.scope == MODUS_PROCESS;
}

/* To ThreadSanitizer, which knows nothing of other processes. flags is 0 or TSAN_READ. */
#ifdef TSAN
static void note_locked(struct modus_rwlock *lock, unsigned flags)
{
    if (!is_shared(lock))
        TSAN_LOCKED(&lock->word, flags);
}

static void note_unlocked(struct modus_rwlock *lock, unsigned flags)
{
    if (!is_shared(lock))
        TSAN_UNLOCKED(&lock->word, flags);
}
#else
#define note_locked(lock, flags)   ((void)(lock))
#define note_unlocked(lock, flags) ((void)(lock))
#endif

/* The caller's participant id; 0 in thread scope. */
static int self_id(const struct modus_rwlock *lock)
{
    return is_shared(lock) ? modus_participant_self(lock->readers->arena) : 0;
}

/* --- thread scope: the number of readers ----------------------------------------------------- */

static int thread_enter(struct modus_rwlock *lock)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

    do {
        if (word & WRITER)
            return -EAGAIN;
        if (word == READERS)
            return -EOVERFLOW;
    } while (!atomic_compare_exchange_weak(&lock->word, &word, word + 1));
    return 0;
}

static int thread_leave(struct modus_rwlock *lock)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

    if ((word & READERS) == 0)
        return -EPERM;
    note_unlocked(lock, TSAN_READ);
    while (!atomic_compare_exchange_weak(&lock->word, &word, word - 1))
        continue;
    if (word == (WRITER | 1)) {
        atomic_store(&lock->gone, 1);
        modus_unpark(MODUS_THREAD, &lock->gone, 1);
    }
    return 0;
}

/* Take the mark back while there are readers. Returns false if the last one has left meanwhile:
 * then it says so, and the lock is ours. */
static bool thread_let_in(struct modus_rwlock *lock)
{
    uint32_t word = atomic_load(&lock->word);

    while (word != WRITER)
        if (atomic_compare_exchange_weak(&lock->word, &word, word & ~WRITER))
            return true;
    return false;
}

static int thread_drain(struct modus_rwlock *lock, int64_t deadline)
{
    if (atomic_fetch_or(&lock->word, WRITER) == 0)
        return 0;
    while (atomic_load(&lock->gone) == 0) {
        if (modus_park_deaf(MODUS_THREAD, &lock->gone, 0, deadline, NULL) != -ETIMEDOUT)
            continue;
        MODUS_FAULT(MODUS_FAULT_RWLOCK_LATE);
        if (thread_let_in(lock))
            return -ETIMEDOUT;
        deadline = MODUS_FOREVER; /* a moment */
    }
    atomic_store(&lock->gone, 0);
    return 0;
}

/* --- process scope: a slot for each ---------------------------------------------------------- */

static void clear(_Atomic uint32_t *slot)
{
    if (atomic_exchange(slot, 0) & AWAITED)
        modus_unpark(MODUS_PROCESS, slot, 1);
}

static int process_enter(struct modus_rwlock *lock, int id)
{
    _Atomic uint32_t *slot = &lock->readers->slots[id - 1].word;

    if (atomic_load_explicit(slot, memory_order_relaxed) != 0)
        return -EDEADLK;
    atomic_store(slot, READING);
    MODUS_FAULT(MODUS_FAULT_RWLOCK_NOTED);
    if (!(atomic_load(&lock->word) & WRITER))
        return 0;
    clear(slot);
    return -EAGAIN;
}

static int process_leave(struct modus_rwlock *lock, int id)
{
    _Atomic uint32_t *slot = &lock->readers->slots[id - 1].word;

    if (atomic_load_explicit(slot, memory_order_relaxed) == 0)
        return -EPERM;
    clear(slot);
    return 0;
}

void modus_rwlock_scrub(struct modus_registered *registered, int id)
{
    /* registered is the first member. */
    struct modus_rwlock_readers *readers = (struct modus_rwlock_readers *)(void *)registered;

    clear(&readers->slots[id - 1].word);
}

/* Wait until one participant does not read. If it is killed while we sleep and nobody buries it, we
 * do so ourselves within a second. */
static int await_reader(struct modus_rwlock *lock, int id, int64_t deadline)
{
    _Atomic uint32_t *slot = &lock->readers->slots[id - 1].word;
    struct modus_watch watch;
    uint32_t word;

    for (;;) {
        modus_watch_look(&watch, lock);
        word = atomic_load(slot);
        if (word == 0)
            return 0;
        if (modus_participant_mourn(lock->readers->arena, id))
            continue;
        int64_t now = modus_now_ns(), look = now + LOOK_AFTER_NS;
        if (deadline != MODUS_FOREVER && now >= deadline)
            return -ETIMEDOUT;
        if (word == READING && !atomic_compare_exchange_strong(slot, &word, READING | AWAITED))
            continue;
        if (deadline != MODUS_FOREVER && deadline < look)
            look = deadline;
        MODUS_FAULT(MODUS_FAULT_PARK_MARKED);
        modus_park_deaf(MODUS_PROCESS, slot, READING | AWAITED, look, &watch);
    }
}

static int process_drain(struct modus_rwlock *lock, int64_t deadline)
{
    int rc = 0;

    atomic_fetch_or(&lock->word, WRITER);
    MODUS_FAULT(MODUS_FAULT_RWLOCK_MARKED);
    for (unsigned i = 0; i < lock->readers->arena->participants && rc == 0; i++)
        rc = await_reader(lock, (int)i + 1, deadline);
    if (rc < 0)
        atomic_fetch_and(&lock->word, ~WRITER);
    else
        atomic_fetch_or(&lock->word, WRITING);
    return rc;
}

static size_t readers_bytes(const struct modus_arena *arena)
{
    return sizeof(struct modus_rwlock_readers) + arena->participants * sizeof(struct slot);
}

static int readers_new(struct modus_rwlock *lock)
{
    struct modus_arena *arena = modus_arena_of(lock);

    if (!arena)
        return -EINVAL;
    lock->readers = modus_arena_alloc(arena, readers_bytes(arena), 0);
    if (!lock->readers)
        return -ENOMEM;
    lock->readers->arena = arena;
    modus_registry_add(arena, &lock->readers->registered, MODUS_REGISTERED_RWLOCK);
    return 0;
}

static void readers_free(struct modus_rwlock_readers *readers)
{
    struct modus_arena *arena = readers->arena;

    modus_registry_remove(arena, &readers->registered);
    modus_arena_free(arena, readers, readers_bytes(arena));
}

/* --- both ------------------------------------------------------------------------------------ */

int modus_rwlock_init(struct modus_rwlock *lock, enum modus_scope scope)
{
    memset(lock, 0, sizeof *lock);
    int rc = modus_lock_init(&lock->lock, scope);
    if (rc == 0 && scope == MODUS_PROCESS && (rc = readers_new(lock)) < 0)
        modus_lock_fini(&lock->lock);
    return rc;
}

void modus_rwlock_fini(struct modus_rwlock *lock)
{
    if (lock->readers)
        readers_free(lock->readers);
    if (lock->lock.scope == MODUS_THREAD)
        TSAN_DESTROY(&lock->word);
    modus_lock_fini(&lock->lock);
    memset(lock, 0, sizeof *lock);
}

int modus_rwlock_set_repair(struct modus_rwlock *lock, int (*repair)(void *context), void *context)
{
    if (!is_shared(lock))
        return -EINVAL;
    lock->repair = repair;
    lock->context = context;
    return 0;
}

/* Note oneself as a reader. Returns -EAGAIN if the mark is set. */
static int enter(struct modus_rwlock *lock, int id)
{
    int rc = is_shared(lock) ? process_enter(lock, id) : thread_enter(lock);

    if (rc == 0)
        note_locked(lock, TSAN_READ);
    return rc;
}

/* The plain lock's last owner died, and it is ours. Returns 0 if the lock is as if free;
 * MODUS_OWNERDEAD: it is held for writing; MODUS_NOTRECOVERABLE: it is lost. */
static int inherit(struct modus_rwlock *lock)
{
    if (!(atomic_load(&lock->word) & WRITING)) {
        atomic_fetch_and(&lock->word, ~WRITER);
        modus_lock_consistent(&lock->lock);
        return 0;
    }
    lock->unmended = true;
    note_locked(lock, 0);
    if (!lock->repair)
        return MODUS_OWNERDEAD;
    int rc = lock->repair(lock->context);
    if (!modus_lock_mine(&lock->lock))
        return -ECHILD;
    if (rc == 0) {
        modus_rwlock_consistent(lock);
        return MODUS_OWNERDEAD;
    }
    modus_rwlock_release(lock);
    return MODUS_NOTRECOVERABLE;
}

/* How an acquire was called: ns decides between trying, waiting without end and waiting until
 * deadline. */
struct how {
    int64_t ns, deadline;
    const void *site;
};

/* Own the plain lock. */
static int own(struct modus_rwlock *lock, const struct how *how)
{
    int rc = how->ns <= 0 ? modus_lock_acquire_from(&lock->lock, how->ns, how->site)
                          : modus_lock_acquire_until_from(&lock->lock, how->deadline, how->site);

    return rc == MODUS_OWNERDEAD ? inherit(lock) : rc;
}

/* As readers are to the watcher, and as writers wait for them. */
static struct modus_claim claim_of(struct modus_rwlock *lock, const struct how *how)
{
    return (struct modus_claim){lock,      lock->lock.scope,         MODUS_HELD_SHARED,
                                how->site, how->ns == MODUS_FOREVER, true};
}

static int enter_or_queue(struct modus_rwlock *lock, int id, const struct how *how)
{
    int rc = enter(lock, id);

    if (rc != -EAGAIN)
        return rc;
    rc = own(lock, how);
    if (rc != 0)
        return rc;
    rc = enter(lock, id);
    modus_lock_release(&lock->lock);
    return rc;
}

static int begin_reading(struct modus_rwlock *lock, const struct how *how)
{
    const struct modus_lock_watcher *watcher = modus_lock_watched();
    int id = self_id(lock);

    if (id < 0)
        return id;
    int rc = enter_or_queue(lock, id, how);
    if (__builtin_expect(watcher != NULL, 0) && rc == 0) {
        struct modus_claim claim = claim_of(lock, how);

        if (how->ns != 0)
            watcher->wants(&claim);
        watcher->holds(&claim, false);
    }
    return rc;
}

static int drain(struct modus_rwlock *lock, const struct how *how)
{
    const struct modus_lock_watcher *watcher = how->ns != 0 ? modus_lock_watched() : NULL;
    struct modus_claim claim = claim_of(lock, how);
    int64_t deadline = how->ns == MODUS_FOREVER ? MODUS_FOREVER : how->deadline;
    int rc = watcher ? watcher->waits(&claim) : 0;

    if (rc < 0)
        return rc;
    rc = is_shared(lock) ? process_drain(lock, deadline) : thread_drain(lock, deadline);
    if (watcher)
        watcher->waited();
    return rc < 0 && how->ns == 0 ? -EAGAIN : rc;
}

static int begin_writing(struct modus_rwlock *lock, const struct how *how)
{
    int id = self_id(lock);

    if (id > 0 && atomic_load(&lock->readers->slots[id - 1].word) != 0)
        return -EDEADLK;
    int rc = own(lock, how);
    if (rc != 0)
        return rc;
    rc = drain(lock, how);
    if (rc < 0) {
        modus_lock_release(&lock->lock);
        return rc;
    }
    note_locked(lock, 0);
    return 0;
}

/* --- calls ----------------------------------------------------------------------------------- */

/* The calls with a duration, and those with a time. */
static int acquire_for(struct modus_rwlock *lock, int64_t ns, const void *site,
                       int (*begin)(struct modus_rwlock *lock, const struct how *how))
{
    struct how how = {ns, 0, site};

    if (lock->lock.scope == 0 || ns < MODUS_FOREVER)
        return -EINVAL;
    if (ns > 0)
        how.deadline = modus_deadline(ns);
    return begin(lock, &how);
}

static int acquire_until(struct modus_rwlock *lock, int64_t deadline, const void *site,
                         int (*begin)(struct modus_rwlock *lock, const struct how *how))
{
    struct how how = {deadline == MODUS_FOREVER ? MODUS_FOREVER : 1, deadline, site};

    if (lock->lock.scope == 0 || deadline < MODUS_FOREVER)
        return -EINVAL;
    return begin(lock, &how);
}

int modus_rwlock_read(struct modus_rwlock *lock, int64_t ns)
{
    return acquire_for(lock, ns, __builtin_return_address(0), begin_reading);
}

int modus_rwlock_read_until(struct modus_rwlock *lock, int64_t deadline)
{
    return acquire_until(lock, deadline, __builtin_return_address(0), begin_reading);
}

int modus_rwlock_try_read(struct modus_rwlock *lock)
{
    return acquire_for(lock, 0, __builtin_return_address(0), begin_reading);
}

int modus_rwlock_write(struct modus_rwlock *lock, int64_t ns)
{
    return acquire_for(lock, ns, __builtin_return_address(0), begin_writing);
}

int modus_rwlock_write_until(struct modus_rwlock *lock, int64_t deadline)
{
    return acquire_until(lock, deadline, __builtin_return_address(0), begin_writing);
}

int modus_rwlock_try_write(struct modus_rwlock *lock)
{
    return acquire_for(lock, 0, __builtin_return_address(0), begin_writing);
}

/* The mark stays on a lock that is released unmended: so the plain lock tells everybody. */
static int stop_writing(struct modus_rwlock *lock)
{
    note_unlocked(lock, 0);
    if (!lock->unmended)
        atomic_fetch_and(&lock->word, ~(WRITER | WRITING));
    MODUS_FAULT(MODUS_FAULT_RWLOCK_CLEARED);
    return modus_lock_release(&lock->lock);
}

int modus_rwlock_release(struct modus_rwlock *lock)
{
    int id;

    if (lock->lock.scope == 0)
        return -EINVAL;
    if (modus_lock_mine(&lock->lock))
        return stop_writing(lock);
    if ((id = self_id(lock)) < 0)
        return id;
    const struct modus_lock_watcher *watcher = modus_lock_watched();
    if (__builtin_expect(watcher != NULL, 0))
        watcher->lets(lock, lock->lock.scope, MODUS_HELD_SHARED);
    return is_shared(lock) ? process_leave(lock, id) : thread_leave(lock);
}

int modus_rwlock_downgrade(struct modus_rwlock *lock)
{
    int id;

    if (lock->lock.scope == 0)
        return -EINVAL;
    if (!modus_lock_mine(&lock->lock))
        return -EPERM;
    if (lock->unmended) {
        stop_writing(lock);
        return MODUS_NOTRECOVERABLE;
    }
    if ((id = self_id(lock)) < 0)
        return id;
    note_unlocked(lock, 0);
    if (is_shared(lock)) {
        atomic_store(&lock->readers->slots[id - 1].word, READING);
        atomic_store(&lock->word, 0);
    } else {
        atomic_store(&lock->word, 1);
    }
    note_locked(lock, TSAN_READ);
    const struct modus_lock_watcher *watcher = modus_lock_watched();
    if (__builtin_expect(watcher != NULL, 0)) {
        struct how how = {0, 0, __builtin_return_address(0)};
        struct modus_claim claim = claim_of(lock, &how);

        watcher->holds(&claim, false);
    }
    return modus_lock_release(&lock->lock);
}

bool modus_rwlock_mine(const struct modus_rwlock *lock)
{
    return modus_lock_mine(&lock->lock);
}

unsigned modus_rwlock_readers(const struct modus_rwlock *lock)
{
    unsigned count = 0;

    if (!is_shared(lock))
        return atomic_load(&lock->word) & READERS;
    for (unsigned i = 0; i < lock->readers->arena->participants; i++)
        count += atomic_load(&lock->readers->slots[i].word) != 0;
    return count;
}

int modus_rwlock_consistent(struct modus_rwlock *lock)
{
    int rc = modus_lock_consistent(&lock->lock);

    if (rc == 0)
        lock->unmended = false;
    return rc;
}

bool modus_rwlock_poisoned(const struct modus_rwlock *lock)
{
    return modus_lock_poisoned(&lock->lock);
}
