/* SPDX-License-Identifier: MIT */
/*
 * A variable has an index, and each thread or coroutine a table that is looked up by it. An index is
 * used again; a cell that carries the serial of an earlier variable counts as empty.
 *
 * A table is read and written by its owner without a lock. All are in a list, so that the end of a
 * variable finds the values of all; the lock of the list is held whenever a table comes, goes, grows
 * or has a value taken out for its destructor, so each value is destroyed once. Destructors run
 * without it.
 *
 * A POSIX key tells of a thread's end. One for all: there are 1024 of them in a process, and their
 * deletion forgets values of live threads.
 */
#include "concurrency/local.h"
#include "concurrency/local_priv.h"
#include "concurrency/lock_priv.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { VARIABLES = 4096, WORD = 64, FIRST_ROOM = 8, ROUNDS = 4, BATCH = 64 };

struct cell {
    uint64_t serial;
    void *value;
    void (*destroy)(void *value);
};

struct modus_locals {
    struct modus_locals *next, *previous;
    pthread_t thread;
    uint32_t room;
    struct cell *cells;
};

static struct modus_lock list_lock = MODUS_LOCK_INIT; /* of all that follows */
static struct modus_locals *list;
static uint64_t used[VARIABLES / WORD];
static uint64_t serials;

static pthread_key_t end_of_thread;
static _Thread_local struct modus_locals *of_thread __attribute__((tls_model("initial-exec")));
_Thread_local struct modus_locals **modus_locals_instead;

static struct modus_locals **place_of_self(void)
{
    return modus_locals_instead ? modus_locals_instead : &of_thread;
}

static void lock(void)
{
    modus_lock_acquire(&list_lock, MODUS_FOREVER);
}

static void unlock(void)
{
    modus_lock_release(&list_lock);
}

/* --- tables ---------------------------------------------------------------------------------- */

static void list_remove(struct modus_locals *locals)
{
    *(locals->previous ? &locals->previous->next : &list) = locals->next;
    if (locals->next)
        locals->next->previous = locals->previous;
}

static void locals_free(struct modus_locals *locals)
{
    free(locals->cells);
    free(locals);
}

static struct modus_locals *locals_new(void)
{
    struct modus_locals *locals = calloc(1, sizeof *locals);

    if (!locals)
        return NULL;
    if (!modus_locals_instead && pthread_setspecific(end_of_thread, locals) != 0) {
        free(locals);
        return NULL;
    }
    locals->thread = pthread_self();
    lock();
    locals->next = list;
    if (list)
        list->previous = locals;
    list = locals;
    unlock();
    return locals;
}

static int grow(struct modus_locals *locals, uint32_t index)
{
    uint32_t room = locals->room ? locals->room : FIRST_ROOM;

    while (room <= index)
        room *= 2;
    struct cell *cells = calloc(room, sizeof *cells), *old;
    if (!cells)
        return -ENOMEM;
    lock();
    if (locals->room)
        memcpy(cells, locals->cells, locals->room * sizeof *cells);
    old = locals->cells;
    locals->cells = cells;
    locals->room = room;
    unlock();
    free(old);
    return 0;
}

/* --- destructors ----------------------------------------------------------------------------- */

/* Destroy what is in the table. Returns whether there was anything. */
static bool destroy_all(struct modus_locals *locals)
{
    bool any = false;

    for (uint32_t i = 0; i < locals->room; i++) {
        lock();
        struct cell cell = locals->cells[i];
        locals->cells[i] = (struct cell){0};
        unlock();
        if (!cell.value || !cell.destroy)
            continue;
        cell.destroy(cell.value);
        any = true;
    }
    return any;
}

void modus_locals_end(struct modus_locals **place)
{
    struct modus_locals *locals = *place;

    if (!locals)
        return;
    for (int i = 0; i < ROUNDS && destroy_all(locals); i++)
        continue;
    lock();
    list_remove(locals);
    unlock();
    *place = NULL;
    locals_free(locals);
}

static void end_thread(void *locals)
{
    (void)locals; /* of_thread, too */
    modus_locals_end(&of_thread);
}

/* Take some values of a variable out of the tables, under the lock. */
static size_t take_some(uint64_t serial, uint32_t index, void **values)
{
    size_t count = 0;

    for (struct modus_locals *at = list; at && count < BATCH; at = at->next) {
        if (index >= at->room || at->cells[index].serial != serial)
            continue;
        if (at->cells[index].value)
            values[count++] = at->cells[index].value;
        at->cells[index] = (struct cell){0};
    }
    return count;
}

/* --- fork ------------------------------------------------------------------------------------ */

/* The other threads are not in the child. */
static void begin_child(void)
{
    modus_lock_renew(&list_lock);
    for (struct modus_locals *at = list, *next; at; at = next) {
        next = at->next;
        if (pthread_equal(at->thread, pthread_self()))
            continue;
        list_remove(at);
        locals_free(at);
    }
}

__attribute__((constructor)) static void begin_process(void)
{
    pthread_key_create(&end_of_thread, end_thread);
    pthread_atfork(lock, unlock, begin_child);
}

/* --- calls ----------------------------------------------------------------------------------- */

int modus_local_init(struct modus_local *local, void (*destroy)(void *value))
{
    int rc = -EOVERFLOW;

    memset(local, 0, sizeof *local);
    lock();
    for (uint32_t i = 0; i < VARIABLES / WORD && rc < 0; i++) {
        if (used[i] == UINT64_MAX)
            continue;
        uint32_t bit = (uint32_t)__builtin_ctzll(~used[i]);
        used[i] |= (uint64_t)1 << bit;
        *local = (struct modus_local){++serials, i * WORD + bit, destroy};
        rc = 0;
    }
    unlock();
    return rc;
}

void modus_local_fini(struct modus_local *local)
{
    void *values[BATCH];
    size_t count;

    if (local->serial == 0)
        return;
    do {
        lock();
        count = take_some(local->serial, local->index, values);
        unlock();
        for (size_t i = 0; i < count && local->destroy; i++)
            local->destroy(values[i]);
    } while (count == BATCH);
    lock();
    used[local->index / WORD] &= ~((uint64_t)1 << local->index % WORD);
    unlock();
    memset(local, 0, sizeof *local);
}

void *modus_local_get(const struct modus_local *local)
{
    const struct modus_locals *locals = *place_of_self();

    if (!locals || local->index >= locals->room)
        return NULL;
    const struct cell *cell = &locals->cells[local->index];
    return cell->serial == local->serial ? cell->value : NULL;
}

int modus_local_set(struct modus_local *local, void *value)
{
    struct modus_locals **place = place_of_self();

    if (local->serial == 0)
        return -EINVAL;
    if (!*place && (*place = locals_new()) == NULL)
        return -ENOMEM;
    if (local->index >= (*place)->room && grow(*place, local->index) < 0)
        return -ENOMEM;
    (*place)->cells[local->index] = (struct cell){local->serial, value, local->destroy};
    return 0;
}
