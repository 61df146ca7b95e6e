/* SPDX-License-Identifier: MIT */
/*
 * The table of participants, and burying.
 *
 *     FREE --join--> LIVE --leave--> LEAVING --> FREE
 *                      |                |
 *                      +-- buried --> FREE
 *
 * Transitions happen under the registry lock, a robust lock of ours. A death under the lock needs no
 * repair: a slot is LIVE from a single store on, and before that a FREE one with a dead mutex is as
 * good as any; one whose participant is dead and half scrubbed is buried (again), scrubbing being
 * idempotent; the list of objects changes by single stores and is always whole.
 *
 * Order of a burial: scrub, move the epoch, wake, free the slot. A sleeper that looked before the
 * scrub sees the epoch move; an id that is free has no claims; a burier that dies leaves the slot to
 * the next one.
 *
 * Liveness is read off the word of the slot's robust mutex: as long as the participant lives, the word
 * has its tid, and when it ends in any way, the kernel takes the tid out. (There is no window in which
 * a number could have been reused, as there would be with kill(pid, 0) or pidfd_open.) It is read, not
 * tried: who tries the mutex of a dead one has it for a moment, and whoever else asks then takes the
 * dead for living. That may be the supervisor, who asks but once.
 */
#include "concurrency/participant.h"
#include "concurrency/arena_priv.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/self.h"

#include <limits.h>
#include <linux/futex.h>
#include <unistd.h>

enum { FREE, LIVE, LEAVING };
enum { LOOK_MS = 20 };

/* The calling thread's identity in each open arena. */
struct identity {
    uint64_t serial; /* the arena's */
    uint64_t stamp;  /* the process's */
    int id;
};

static _Thread_local struct identity identities[MODUS_ARENAS_MAX];

static struct modus_slot *slot_of(struct modus_arena *arena, int id)
{
    return id >= 1 && (unsigned)id <= arena->participants ? &arena->slots[id - 1] : NULL;
}

/* --- the registry ---------------------------------------------------------------------------- */

/* The holder of the registry died. All is well: see above. */
static int repair(void *context)
{
    (void)context;
    return 0;
}

/* A sleeper whose wake-up died with its carrier is woken by who buries the dead; but who buries may
 * sleep here itself, so it looks again now and then. */
static void lock_registry(struct modus_arena *arena)
{
    while (modus_lock_regain_until(&arena->registry, modus_deadline(modus_ms(LOOK_MS)),
                                   __builtin_return_address(0)) == -ETIMEDOUT)
        ;
}

static void unlock_registry(struct modus_arena *arena)
{
    modus_lock_release(&arena->registry);
}

void modus_registry_add(struct modus_arena *arena, struct modus_registered *object,
                        enum modus_registered_kind kind)
{
    object->kind = (uint32_t)kind;
    lock_registry(arena);
    atomic_store(&object->next, atomic_load(&arena->objects));
    atomic_store(&arena->objects, object);
    unlock_registry(arena);
}

void modus_registry_remove(struct modus_arena *arena, struct modus_registered *object)
{
    lock_registry(arena);
    struct modus_registered *_Atomic *at = &arena->objects;
    while (atomic_load(at) && atomic_load(at) != object)
        at = &atomic_load(at)->next;
    if (atomic_load(at) == object)
        atomic_store(at, atomic_load(&object->next));
    unlock_registry(arena);
}

static void scrub(struct modus_arena *arena, int id)
{
    struct modus_registered *object = atomic_load(&arena->objects);

    for (; object; object = atomic_load(&object->next)) {
        switch (object->kind) {
        case MODUS_REGISTERED_SEM:
            modus_sem_scrub(object, id);
            break;
        case MODUS_REGISTERED_QUEUE:
            modus_queue_scrub(object, id);
            break;
        case MODUS_REGISTERED_RWLOCK:
            modus_rwlock_scrub(object, id);
            break;
        }
    }
}

/* Wake every sleeper of the arena, and every loop. */
static void move_epoch(struct modus_arena *arena)
{
    struct modus_registered *object = atomic_load(&arena->objects);

    atomic_fetch_add(&arena->epoch, 1);
    modus_unpark(MODUS_PROCESS, &arena->epoch, INT_MAX);
    for (; object; object = atomic_load(&object->next))
        if (object->kind == MODUS_REGISTERED_ARMED)
            modus_armed_scrub(object);
}

static void free_slot(struct modus_slot *slot)
{
    atomic_store(&slot->bell, NULL);
    atomic_fetch_add(&slot->generation, 1);
    atomic_store(&slot->state, FREE);
}

/* The tid in the word of the liveness mutex; 0: nobody's. That the word is the tid is the kernel's
 * interface (robust futexes), not glibc's choice. */
static int32_t holder_of(struct modus_slot *slot)
{
    _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)&slot->live.__data.__lock;

    return (int32_t)(atomic_load(word) & FUTEX_TID_MASK);
}

/* --- joining and leaving --------------------------------------------------------------------- */

int modus_participants_init(struct modus_arena *arena, unsigned participants)
{
    pthread_mutexattr_t attr;
    int rc = modus_lock_init(&arena->registry, MODUS_PROCESS);

    if (rc < 0 || (rc = -pthread_mutexattr_init(&attr)) < 0)
        return rc;
    modus_lock_set_repair(&arena->registry, repair, NULL);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (unsigned i = 0; i < participants && rc == 0; i++)
        rc = -pthread_mutex_init(&arena->slots[i].live, &attr);
    pthread_mutexattr_destroy(&attr);
    arena->participants = participants;
    return rc;
}

int modus_participant_self(struct modus_arena *arena)
{
    struct identity *mine = &identities[arena->index];

    if (mine->serial != arena->serial)
        return -EPERM;
    return mine->stamp == modus_self_stamp() ? mine->id : -ECHILD;
}

static bool bury(struct modus_arena *arena, int id);

/* Under the registry lock. Returns a free slot's id, its liveness mutex held, or 0. */
static int hold_free(struct modus_arena *arena)
{
    for (unsigned i = 0; i < arena->participants; i++) {
        struct modus_slot *slot = &arena->slots[i];

        if (atomic_load(&slot->state) != FREE)
            continue;
        int tried = pthread_mutex_trylock(&slot->live);
        if (tried == EOWNERDEAD)
            pthread_mutex_consistent(&slot->live);
        if (tried == 0 || tried == EOWNERDEAD)
            return (int)i + 1;
    }
    return 0;
}

/* Bury all that are dead, of one process or (pid 0) of any; returns how many. */
static int bury_all(struct modus_arena *arena, pid_t pid)
{
    int buried = 0;

    for (unsigned i = 0; i < arena->participants; i++)
        if (pid == 0 || atomic_load(&arena->slots[i].pid) == pid)
            buried += bury(arena, (int)i + 1);
    return buried;
}

static int join(struct modus_arena *arena)
{
    if (modus_self_robust > MODUS_LOCKS_MAX) /* the registry's is one of them */
        return -EOVERFLOW;
    int id = hold_free(arena);
    if (id == 0 && bury_all(arena, 0) > 0)
        id = hold_free(arena);
    if (id == 0)
        return -EUSERS;
    struct modus_slot *slot = slot_of(arena, id);
    modus_self_robust++;
    MODUS_FAULT(MODUS_FAULT_JOIN_HELD);
    atomic_store(&slot->pid, getpid());
    atomic_store(&slot->tid, holder_of(slot));
    atomic_store(&slot->state, LIVE);
    MODUS_FAULT(MODUS_FAULT_JOIN_LIVE);
    identities[arena->index] =
        (struct identity){.serial = arena->serial, .stamp = modus_self_stamp(), .id = id};
    return id;
}

void modus_participant_act_as(struct modus_arena *arena, int id)
{
    struct identity other = {.serial = arena->serial, .stamp = modus_self_stamp(), .id = id};

    identities[arena->index] = id > 0 ? other : (struct identity){0};
}

int modus_participant_join(struct modus_arena *arena)
{
    int id = modus_participant_self(arena);

    if (id > 0)
        return id;
    lock_registry(arena);
    id = modus_participant_self(arena); /* another coroutine of the thread may have been quicker */
    if (id <= 0)
        id = join(arena);
    unlock_registry(arena);
    return id;
}

static void leave(struct modus_arena *arena, int id)
{
    struct modus_slot *slot = slot_of(arena, id);

    atomic_store(&slot->state, LEAVING);
    MODUS_FAULT(MODUS_FAULT_LEAVE_MARKED);
    scrub(arena, id);
    move_epoch(arena);
    free_slot(slot);
    pthread_mutex_unlock(&slot->live);
    modus_self_robust--;
    identities[arena->index] = (struct identity){0};
}

int modus_participant_leave(struct modus_arena *arena)
{
    int id = modus_participant_self(arena);

    if (id < 0)
        return id;
    lock_registry(arena);
    id = modus_participant_self(arena); /* as in join */
    if (id > 0)
        leave(arena, id);
    unlock_registry(arena);
    return id < 0 ? id : 0;
}

/* --- death ----------------------------------------------------------------------------------- */

/* Under the registry lock: bury id if it is dead. */
static bool bury(struct modus_arena *arena, int id)
{
    struct modus_slot *slot = slot_of(arena, id);

    if (atomic_load(&slot->state) == FREE || holder_of(slot) == atomic_load(&slot->tid))
        return false;
    MODUS_FAULT(MODUS_FAULT_BURY_FOUND);
    scrub(arena, id);
    MODUS_FAULT(MODUS_FAULT_BURY_SCRUBBED);
    move_epoch(arena);
    MODUS_FAULT(MODUS_FAULT_BURY_MOVED);
    free_slot(slot);
    return true;
}

/* killed: who had not joined may have died with a wake-up in its hands, too. */
static int bury_process(struct modus_arena *arena, pid_t pid, bool killed)
{
    lock_registry(arena);
    int buried = bury_all(arena, pid);
    if (buried == 0 && killed)
        move_epoch(arena);
    unlock_registry(arena);
    return buried;
}

int modus_participant_bury(struct modus_arena *arena, pid_t pid)
{
    return bury_process(arena, pid, true);
}

struct death {
    pid_t pid;
    bool killed;
};

static void bury_here(struct modus_arena *arena, void *context)
{
    const struct death *death = context;

    bury_process(arena, death->pid, death->killed);
}

void modus_participant_bury_everywhere(pid_t pid, bool killed)
{
    struct death death = {.pid = pid, .killed = killed};

    modus_arenas_visit(bury_here, &death);
}

bool modus_participant_mourn(struct modus_arena *arena, int id)
{
    struct modus_slot *slot = slot_of(arena, id);

    if (!slot || modus_participant_alive(arena, id))
        return false;
    lock_registry(arena);
    /* FREE: another has buried it meanwhile. Else nobody ever would, and the caller look for ever. */
    if (!bury(arena, id) && atomic_load(&slot->state) == FREE)
        scrub(arena, id);
    unlock_registry(arena);
    return true;
}

/* --- looking --------------------------------------------------------------------------------- */

bool modus_participant_alive(struct modus_arena *arena, int id)
{
    struct modus_slot *slot = slot_of(arena, id);
    uint32_t generation;
    bool alive;

    if (!slot)
        return false;
    do {
        generation = atomic_load(&slot->generation);
        alive = atomic_load(&slot->state) != FREE && holder_of(slot) == atomic_load(&slot->tid);
    } while (atomic_load(&slot->generation) != generation);
    return alive;
}

int modus_participant_look(struct modus_arena *arena, int id, struct modus_participant *out)
{
    struct modus_slot *slot = slot_of(arena, id);

    if (!slot)
        return -EINVAL;
    if (atomic_load(&slot->state) == FREE)
        return -EAGAIN;
    *out = (struct modus_participant){
        .id = id,
        .pid = atomic_load(&slot->pid),
        .tid = atomic_load(&slot->tid),
        .generation = atomic_load(&slot->generation),
        .bell = atomic_load(&slot->bell),
    };
    return 0;
}

int modus_participant_set_bell(struct modus_arena *arena, struct modus_doorbell *bell)
{
    int id = modus_participant_self(arena);

    if (id < 0)
        return id;
    atomic_store(&slot_of(arena, id)->bell, bell);
    return 0;
}

bool modus_participants_here(struct modus_arena *arena)
{
    for (unsigned i = 0; i < arena->participants; i++)
        if (atomic_load(&arena->slots[i].state) != FREE &&
            atomic_load(&arena->slots[i].pid) == getpid())
            return true;
    return false;
}
