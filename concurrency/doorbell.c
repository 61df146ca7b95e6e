/* SPDX-License-Identifier: MIT */
/*
 * The doorbell and the list of doorbells that an object keeps.
 *
 *     QUIET --ring--> RINGING --write--> RUNG --hear--> QUIET
 *
 * A ring that finds RUNG has nothing to do; one that finds RINGING writes too, since whoever wrote
 * RINGING may be dead. hear reads first and resets after: the other order would swallow the write
 * of a ring that came between and leave the bell RUNG with nothing to poll.
 */
#include "concurrency/doorbell.h"
#include "concurrency/arena.h"
#include "concurrency/fault.h"
#include "concurrency/participant_priv.h"

#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { QUIET, RINGING, RUNG };

int modus_doorbell_init(struct modus_doorbell *bell)
{
    struct stat made;

    memset(bell, 0, sizeof *bell);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -ENOMEM;
    if (fstat(fd, &made) == 0) {
        bell->device = made.st_dev;
        bell->inode = made.st_ino;
    }
    bell->fd = fd;
    bell->started = 1;
    return 0;
}

void modus_doorbell_fini(struct modus_doorbell *bell)
{
    if (bell->started)
        close(bell->fd);
    memset(bell, 0, sizeof *bell);
}

/* Is it still the bell's descriptor in this process, and not a file's that has got the number? */
static bool is_open(const struct modus_doorbell *bell)
{
    struct stat now;

    return fstat(bell->fd, &now) == 0 && now.st_dev == bell->device && now.st_ino == bell->inode;
}

/* state is RINGING. */
static void write_bell(struct modus_doorbell *bell)
{
    uint32_t ringing = RINGING;
    int saved = errno;

    MODUS_FAULT(MODUS_FAULT_BELL_CLAIMED);
    /* A counter at its limit (EAGAIN) is readable already. In a process that has closed the
     * descriptor it is not: others must be able to ring after it. */
    bool rung = is_open(bell) && (eventfd_write(bell->fd, 1) == 0 || errno == EAGAIN);
    errno = saved;
    atomic_compare_exchange_strong(&bell->state, &ringing, rung ? RUNG : QUIET);
}

void modus_doorbell_ring(struct modus_doorbell *bell)
{
    uint32_t state = atomic_load(&bell->state);

    if (state == RUNG || !bell->started)
        return;
    atomic_compare_exchange_strong(&bell->state, &state, RINGING);
    if (state != RUNG)
        write_bell(bell);
}

/* Ring whatever the state says: a ringer that died may have left RUNG without having written. */
static void ring_anyway(struct modus_doorbell *bell)
{
    if (!bell->started)
        return;
    atomic_store(&bell->state, RINGING);
    write_bell(bell);
}

void modus_doorbell_hear(struct modus_doorbell *bell)
{
    eventfd_t count;
    int saved = errno;

    if (!bell->started)
        return;
    if (eventfd_read(bell->fd, &count) < 0)
        errno = saved; /* EAGAIN: it has not been rung */
    MODUS_FAULT(MODUS_FAULT_BELL_READ);
    atomic_store(&bell->state, QUIET);
}

int modus_doorbell_fd(const struct modus_doorbell *bell)
{
    return bell->started ? bell->fd : -1;
}

/* --- armed doorbells of an object ------------------------------------------------------------ */

/* Made at the first arm and kept until the object ends. An entry is taken by the exchange of its
 * pointer; its bit says that ringers should look. */
struct modus_armed_table {
    struct modus_registered registered; /* process scope: found when a death is buried */
    struct modus_armed *armed;
    _Atomic(struct modus_doorbell *) bells[MODUS_ARMED_MAX];
};

static struct modus_armed_table *table_new(struct modus_armed *armed, enum modus_scope scope)
{
    struct modus_armed_table *table;

    if (scope == MODUS_THREAD)
        return calloc(1, sizeof *table);
    table = modus_arena_alloc(modus_arena_of(armed), sizeof *table, 0);
    if (!table)
        return NULL;
    table->armed = armed;
    modus_registry_add(modus_arena_of(armed), &table->registered, MODUS_REGISTERED_ARMED);
    return table;
}

static void table_free(struct modus_armed *armed, struct modus_armed_table *table,
                       enum modus_scope scope)
{
    if (scope == MODUS_THREAD) {
        free(table);
        return;
    }
    modus_registry_remove(modus_arena_of(armed), &table->registered);
    modus_arena_free(modus_arena_of(armed), table, sizeof *table);
}

/* Returns NULL when there is no memory. */
static struct modus_armed_table *table_get(struct modus_armed *armed, enum modus_scope scope)
{
    struct modus_armed_table *table = atomic_load(&armed->table), *none = NULL;

    if (table)
        return table;
    table = table_new(armed, scope);
    if (!table || atomic_compare_exchange_strong(&armed->table, &none, table))
        return table;
    table_free(armed, table, scope);
    return none;
}

/* Find the bell's entry, or take a free one; -1 when there is none. */
static int entry_of(struct modus_armed_table *table, struct modus_doorbell *bell)
{
    for (int i = 0; i < MODUS_ARMED_MAX; i++)
        if (atomic_load(&table->bells[i]) == bell)
            return i;
    for (int i = 0; i < MODUS_ARMED_MAX; i++) {
        struct modus_doorbell *none = NULL;

        if (atomic_compare_exchange_strong(&table->bells[i], &none, bell))
            return i;
    }
    return -1;
}

int modus_armed_add(struct modus_armed *armed, struct modus_doorbell *bell, enum modus_scope scope)
{
    if (!bell->started || (scope == MODUS_PROCESS && !modus_arena_of(armed)))
        return -EINVAL;
    struct modus_armed_table *table = table_get(armed, scope);
    if (!table)
        return -ENOMEM;
    if (scope == MODUS_PROCESS)
        modus_park_hears();
    int entry = entry_of(table, bell);
    if (entry < 0)
        return -EOVERFLOW;
    atomic_fetch_or(&armed->bits, (uint64_t)1 << entry);
    return 0;
}

void modus_armed_remove(struct modus_armed *armed, struct modus_doorbell *bell,
                        enum modus_scope scope)
{
    struct modus_armed_table *table = atomic_load(&armed->table);

    for (int i = 0; table && i < MODUS_ARMED_MAX; i++) {
        if (atomic_load(&table->bells[i]) != bell)
            continue;
        atomic_fetch_and(&armed->bits, ~((uint64_t)1 << i));
        atomic_store(&table->bells[i], NULL);
    }
    /* In process scope a dead ringer would keep us here for ever; there the bell's memory is
     * type-stable and a late ring is only a needless one. */
    while (scope == MODUS_THREAD && atomic_load(&armed->ringing) != 0)
        sched_yield();
}

void modus_armed_ring_all(struct modus_armed *armed)
{
    atomic_fetch_add(&armed->ringing, 1);
    uint64_t bits = atomic_load(&armed->bits);
    struct modus_armed_table *table = atomic_load(&armed->table);
    for (; bits && table; bits &= bits - 1) {
        struct modus_doorbell *bell = atomic_load(&table->bells[__builtin_ctzll(bits)]);

        if (bell)
            modus_doorbell_ring(bell);
    }
    atomic_fetch_sub(&armed->ringing, 1);
}

void modus_armed_fini(struct modus_armed *armed, enum modus_scope scope)
{
    struct modus_armed_table *table = atomic_load(&armed->table);

    if (table)
        table_free(armed, table, scope);
    memset(armed, 0, sizeof *armed);
}

void modus_armed_scrub(struct modus_registered *registered)
{
    /* registered is the first member. */
    struct modus_armed_table *table = (struct modus_armed_table *)(void *)registered;

    if (atomic_load(&table->armed->table) != table)
        return; /* its maker died before it was in use */
    for (int i = 0; i < MODUS_ARMED_MAX; i++) {
        struct modus_doorbell *bell = atomic_load(&table->bells[i]);

        if (bell)
            ring_anyway(bell);
    }
}
