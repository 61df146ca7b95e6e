/* SPDX-License-Identifier: MIT */
/*
 * The watcher of all locks: who holds and who waits, and the search for cycles.
 *
 * Everything is read from the records, never from a lock, since another process's lock may not be at
 * that address here. A record is a little late: a holder is entered after its acquire and taken out
 * before its release. That hides no cycle, since whoever closes one has entered all that it holds.
 *
 * Entering a wait and searching is one step under the mutex, so of two that close a cycle at the same
 * moment the second one sees it, and only that one. A cycle through an actor that was killed is none:
 * what it held is inherited. So before the search goes on through another process, it asks the system
 * whether that is alive.
 *
 * The search goes breadth first, so what is reported is a shortest cycle.
 */
#include "concurrency/deadlock_priv.h"
#include "concurrency/arena_priv.h"
#include "concurrency/coroutine.h"
#include "concurrency/fault.h"
#include "concurrency/self.h"
#include "concurrency/thread.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NAMES = 64, COLLECT_NS = 1000000000 };
enum { SHARED = 0, CLEARING = 1 }; /* private_stamp */

#ifdef MODUS_DEBUG
enum { IS_DEBUG = 1 };
#else
enum { IS_DEBUG = 0 };
#endif

/* A program without coroutines, or processes, is not made to contain them. */
extern struct modus_co *modus_co_self(void) __attribute__((weak));
extern const char *modus_co_name(const struct modus_co *co) __attribute__((weak));
extern struct modus_process *modus_process_self(void) __attribute__((weak));
extern const char *modus_process_name(const struct modus_process *process) __attribute__((weak));

_Atomic(struct modus_deadlock_table *) modus_deadlock_table;
static _Atomic uint64_t private_stamp; /* of the process whose own the table is; or as above */
static _Atomic uint32_t mode;
static atomic_bool ordered;
static void (*report)(const char *text, void *context);
static void *report_context;

/* The record of the calling thread's last look; and it is in a report of its own. */
static _Thread_local struct modus_actor *own;
static _Thread_local uint64_t own_key;
static _Thread_local bool busy;

static struct {
    _Atomic uintptr_t lock;
    _Atomic uintptr_t name;
} names[NAMES];

/* --- the table ------------------------------------------------------------------------------- */

void modus_deadlock_enter(struct modus_deadlock_table *table)
{
    if (pthread_mutex_lock(&table->mutex) == EOWNERDEAD)
        pthread_mutex_consistent(&table->mutex); /* nothing under it is ever half */
}

void modus_deadlock_leave(struct modus_deadlock_table *table)
{
    pthread_mutex_unlock(&table->mutex);
}

static void clear_table(struct modus_deadlock_table *table)
{
    pthread_mutexattr_t attr;

    memset(table, 0, sizeof *table);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&table->mutex, &attr);
    pthread_mutexattr_destroy(&attr);
}

/* The table, for the watcher. A private one that is still the parent's is cleared first: none of the
 * threads in it is here, and one of them may have been at it at the fork. Not by a handler of
 * pthread_atfork, since those of others use locks. */
static struct modus_deadlock_table *current(void)
{
    struct modus_deadlock_table *table = atomic_load(&modus_deadlock_table);
    uint64_t stamp = atomic_load(&private_stamp);

    if (!table || stamp == SHARED || stamp == modus_self_stamp())
        return table;
    if (stamp == CLEARING || !atomic_compare_exchange_strong(&private_stamp, &stamp, CLEARING))
        return NULL;
    clear_table(table);
    atomic_store(&private_stamp, modus_self_stamp());
    return table;
}

/* --- who is alive ---------------------------------------------------------------------------- */

static char *decimal(char *at, uint32_t number)
{
    char digits[10];
    int count = 0;

    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

/* The kernel's start time of a process; 0: there is none, or it is dead and not yet reaped. Fit for
 * a signal handler. */
static uint64_t birth_of(int32_t pid)
{
    char path[32] = "/proc/", line[512];

    strcpy(decimal(path + 6, (uint32_t)pid), "/stat");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, line, sizeof line - 1);
    close(fd);
    line[length > 0 ? length : 0] = 0;
    char *at = strrchr(line, ')'); /* the name may hold anything */
    if (!at || !at[1] || at[2] == 'Z' || at[2] == 'X')
        return 0;
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    uint64_t born = 0;
    for (; at && at[1] >= '0' && at[1] <= '9'; at++)
        born = born * 10 + (uint64_t)(at[1] - '0');
    return born;
}

bool modus_actor_alive(const struct modus_actor *actor)
{
    int32_t pid = atomic_load(&actor->pid);

    return pid == getpid() || birth_of(pid) == atomic_load(&actor->born);
}

/* --- actors ---------------------------------------------------------------------------------- */

static uint64_t self_key(void)
{
    return (uint64_t)modus_self_tid() << 32 | (modus_self_stamp() & UINT32_MAX);
}

static uint64_t own_birth(void)
{
    static _Atomic uint64_t stamp, born; /* of the process; done twice does no harm */

    if (atomic_load(&stamp) != modus_self_stamp()) {
        atomic_store(&born, birth_of(getpid()));
        atomic_store(&stamp, modus_self_stamp());
    }
    return atomic_load(&born);
}

static void introduce(struct modus_actor *actor)
{
    struct modus_co *co = modus_co_self ? modus_co_self() : NULL;
    uint64_t words[MODUS_ACTOR_NAME / 8] = {0};
    const char *name = co ? modus_co_name(co) : modus_thread_name(modus_thread_self());
    const char *process = modus_process_self ? modus_process_name(modus_process_self()) : NULL;

    if (process && strcmp(process, "MainProcess") == 0)
        process = NULL;
    modus_text_introduce((char *)words, co != NULL, name, process);
    for (size_t i = 0; i < MODUS_ACTOR_NAME / 8; i++)
        atomic_store_explicit(&actor->name[i], words[i], memory_order_relaxed);
    atomic_store(&actor->pid, getpid());
    atomic_store(&actor->tid, (int32_t)syscall(SYS_gettid));
    atomic_store(&actor->born, own_birth());
}

/* The caller's record; NULL: it has none. */
static struct modus_actor *find(struct modus_deadlock_table *table)
{
    uint64_t key = self_key();
    uint32_t top = table ? atomic_load(&table->top) : 0;

    if (table && own && own_key == key && own >= table->actors &&
        own < table->actors + MODUS_ACTORS && atomic_load(&own->key) == key)
        return own;
    for (uint32_t i = 0; i < top; i++)
        if (atomic_load(&table->actors[i].key) == key) {
            own_key = key;
            return own = &table->actors[i];
        }
    return NULL;
}

static void forget_actor(struct modus_actor *actor)
{
    atomic_store(&actor->wait.address, 0);
    for (unsigned i = 0; i < MODUS_HOLDS; i++)
        atomic_store(&actor->holds[i].address, 0);
    atomic_store(&actor->key, MODUS_ACTOR_FREE);
}

/* Free the record of one that was killed. */
static void collect_one(struct modus_actor *actor)
{
    uint64_t key = atomic_load(&actor->key);

    if (modus_actor_is_made(key) && !modus_actor_alive(actor))
        forget_actor(actor);
    else if ((uint32_t)key == MODUS_ACTOR_MAKING && birth_of((int32_t)(key >> 32)) == 0)
        atomic_compare_exchange_strong(&actor->key, &key, MODUS_ACTOR_FREE);
}

/* Free the records of those who were killed; now and then only. */
static void collect(struct modus_deadlock_table *table)
{
    modus_deadlock_enter(table);
    int64_t now = modus_now_ns();
    bool due = table->collected == 0 || now - table->collected > COLLECT_NS;
    if (due)
        table->collected = now;
    for (unsigned i = 0; due && i < MODUS_ACTORS; i++)
        collect_one(&table->actors[i]);
    modus_deadlock_leave(table);
}

static struct modus_actor *claim_free(struct modus_deadlock_table *table)
{
    uint64_t making = (uint64_t)gettid() << 32 | MODUS_ACTOR_MAKING;

    for (uint32_t i = 0; i < MODUS_ACTORS; i++) {
        uint64_t none = MODUS_ACTOR_FREE;
        uint32_t top = atomic_load(&table->top);

        if (atomic_load_explicit(&table->actors[i].key, memory_order_relaxed) != MODUS_ACTOR_FREE ||
            !atomic_compare_exchange_strong(&table->actors[i].key, &none, making))
            continue;
        while (top <= i && !atomic_compare_exchange_weak(&table->top, &top, i + 1))
            continue;
        return &table->actors[i];
    }
    return NULL;
}

/* The caller's record, made if there is none; NULL: there is no room. */
static struct modus_actor *find_or_make(struct modus_deadlock_table *table)
{
    struct modus_actor *actor = find(table);

    if (actor || !table)
        return actor;
    actor = claim_free(table);
    if (!actor) {
        collect(table);
        actor = claim_free(table);
    }
    if (!actor) {
        atomic_fetch_add(&table->untracked, 1);
        return NULL;
    }
    MODUS_FAULT(MODUS_FAULT_ACTOR_CLAIMED);
    introduce(actor);
    own_key = self_key();
    atomic_store(&actor->key, own_key);
    return own = actor;
}

/* It holds nothing and waits for nothing: the record is free. */
static void leave_if_idle(struct modus_actor *actor)
{
    if (atomic_load_explicit(&actor->wait.address, memory_order_relaxed))
        return;
    for (unsigned i = 0; i < MODUS_HOLDS; i++)
        if (atomic_load_explicit(&actor->holds[i].address, memory_order_relaxed))
            return;
    atomic_store(&actor->key, MODUS_ACTOR_FREE);
}

/* --- spots ----------------------------------------------------------------------------------- */

static uint32_t space_of(uint32_t scope)
{
    return scope == MODUS_PROCESS ? MODUS_SPACE_SHARED
                                  : (uint32_t)(modus_self_stamp() & UINT32_MAX);
}

struct modus_node modus_claim_node(const struct modus_claim *claim)
{
    return (struct modus_node){(uintptr_t)claim->object, space_of(claim->scope)};
}

static void fill(struct modus_spot *spot, const struct modus_claim *claim)
{
    atomic_store_explicit(&spot->space, space_of(claim->scope), memory_order_relaxed);
    atomic_store_explicit(&spot->kind, (uint32_t)claim->kind, memory_order_relaxed);
    atomic_store_explicit(&spot->forever, claim->forever, memory_order_relaxed);
    atomic_store_explicit(&spot->site, (uintptr_t)claim->site, memory_order_relaxed);
    atomic_store_explicit(&spot->since, modus_now_ns(), memory_order_relaxed);
    atomic_store(&spot->address, (uintptr_t)claim->object);
}

static bool is_of(const struct modus_spot *spot, uintptr_t address, uint32_t space, uint32_t kind)
{
    return atomic_load(&spot->address) == address && atomic_load(&spot->space) == space &&
           atomic_load(&spot->kind) == kind;
}

static struct modus_spot *find_hold(struct modus_actor *actor, uintptr_t address, uint32_t space,
                                    uint32_t kind)
{
    for (unsigned i = 0; i < MODUS_HOLDS; i++)
        if (is_of(&actor->holds[i], address, space, kind))
            return &actor->holds[i];
    return NULL;
}

/* --- cycles ---------------------------------------------------------------------------------- */

/* Does one wait for the other to let go? */
static bool is_blocked_by(struct modus_actor *waiter, struct modus_actor *holder)
{
    struct modus_spot *wait = &waiter->wait;
    uintptr_t address = atomic_load(&wait->address);

    return address != 0 && modus_actor_is_made(atomic_load(&holder->key)) &&
           find_hold(holder, address, atomic_load(&wait->space), atomic_load(&wait->kind));
}

static bool waits_forever(struct modus_actor *actor)
{
    return atomic_load(&actor->wait.address) != 0 && atomic_load(&actor->wait.forever);
}

/* Write down the way from first to last; returns how many. */
static unsigned trace(struct modus_deadlock_table *table, uint16_t first, uint16_t last,
                      uint16_t *path)
{
    unsigned count = 1;

    for (uint16_t at = last; at != first; at = table->parent[at])
        count++;
    for (unsigned i = count; i-- > 0; last = table->parent[last])
        path[i] = last;
    return count;
}

/* Under the mutex: the cycle that me closes. Returns how many are in it; 0: there is none. */
static unsigned find_cycle(struct modus_deadlock_table *table, uint16_t me, uint16_t *path)
{
    unsigned head = 0, tail = 1, top = atomic_load(&table->top);

    memset(table->seen, 0, MODUS_ACTORS);
    table->queue[0] = me;
    table->parent[me] = me;
    while (head < tail) {
        uint16_t at = table->queue[head++];

        for (uint16_t i = 0; i < top; i++) {
            struct modus_actor *holder = &table->actors[i];

            if (table->seen[i] || !is_blocked_by(&table->actors[at], holder))
                continue;
            if (i == me)
                return trace(table, me, at, path);
            table->seen[i] = true;
            if (!waits_forever(holder) || !modus_actor_alive(holder))
                continue;
            table->parent[i] = at;
            table->queue[tail++] = i;
        }
    }
    return 0;
}

/* --- the watcher ----------------------------------------------------------------------------- */

void modus_deadlock_tell(const char *words)
{
    busy = true;
    if (report)
        report(words, report_context);
    else if (write(STDERR_FILENO, words, strlen(words)) < 0)
        errno = 0; /* nobody is left to tell */
    busy = false;
}

static void on_wants(const struct modus_claim *claim)
{
    struct modus_deadlock_table *table = current();

    if (busy || !atomic_load_explicit(&ordered, memory_order_relaxed))
        return;
    struct modus_actor *actor = find(table);
    if (actor)
        modus_order_note(table, actor, claim);
}

static int on_waits(const struct modus_claim *claim)
{
    struct modus_deadlock_table *table = current();
    struct modus_actor *actor = busy ? NULL : find_or_make(table);
    uint16_t path[MODUS_ACTORS];
    char words[MODUS_TEXT_SIZE];
    unsigned count = 0;

    if (!actor)
        return 0;
    bool refused = claim->refusable && atomic_load(&mode) == MODUS_DEADLOCK_REFUSE;
    modus_deadlock_enter(table);
    fill(&actor->wait, claim);
    if (claim->forever)
        count = find_cycle(table, (uint16_t)(actor - table->actors), path);
    if (count > 0) {
        struct modus_text text = {words, words + sizeof words, false};

        atomic_fetch_add(&table->cycles, 1);
        modus_text_cycle(&text, table, path, count, refused);
        if (refused)
            atomic_store(&actor->wait.address, 0);
    }
    modus_deadlock_leave(table);
    if (count == 0)
        return 0;
    modus_deadlock_tell(words);
    if (!refused)
        return 0;
    leave_if_idle(actor);
    return -EDEADLK;
}

static void on_waited(void)
{
    struct modus_actor *actor = busy ? NULL : find(current());

    if (!actor)
        return;
    atomic_store(&actor->wait.address, 0);
    leave_if_idle(actor);
}

/* The dead owner's record says that it holds this still. */
static void disinherit(struct modus_deadlock_table *table, const struct modus_claim *claim)
{
    uint32_t top = atomic_load(&table->top);

    for (uint32_t i = 0; i < top; i++) {
        struct modus_spot *spot = find_hold(&table->actors[i], (uintptr_t)claim->object,
                                            space_of(claim->scope), MODUS_HELD_ALONE);

        if (!spot)
            continue;
        atomic_store(&spot->address, 0);
        leave_if_idle(&table->actors[i]);
    }
}

static void on_holds(const struct modus_claim *claim, bool inherited)
{
    struct modus_deadlock_table *table = current();

    if (busy)
        return;
    if (inherited && table)
        disinherit(table, claim);
    struct modus_actor *actor = find_or_make(table);
    if (!actor)
        return;
    for (unsigned i = 0; i < MODUS_HOLDS; i++)
        if (atomic_load_explicit(&actor->holds[i].address, memory_order_relaxed) == 0) {
            fill(&actor->holds[i], claim);
            return;
        }
    atomic_fetch_add(&table->untracked, 1);
}

static void on_lets(const void *object, uint32_t scope, enum modus_hold_kind kind)
{
    struct modus_actor *actor = busy ? NULL : find(current());
    struct modus_spot *spot =
        actor ? find_hold(actor, (uintptr_t)object, space_of(scope), kind) : NULL;

    if (!spot)
        return;
    atomic_store(&spot->address, 0);
    leave_if_idle(actor);
}

static void on_forgets(const void *object, uint32_t scope)
{
    struct modus_deadlock_table *table = scope ? current() : NULL;

    if (table)
        modus_order_forget(table, (struct modus_node){(uintptr_t)object, space_of(scope)});
    modus_deadlock_name(object, NULL);
}

/* --- calls ----------------------------------------------------------------------------------- */

/* The tables that were made: one of the process's own, which stays, and the last one in an arena. An
 * arena that was closed may have another in its place. */
static struct modus_deadlock_table *private_table, *shared_table;
static uint64_t shared_serial; /* of the arena */

static struct modus_deadlock_table *make_private(void)
{
    if (!private_table)
        private_table = aligned_alloc(64, sizeof *private_table);
    return private_table;
}

static struct modus_deadlock_table *make_shared(struct modus_arena *arena)
{
    if (shared_table && shared_serial == arena->serial)
        return shared_table;
    shared_table = modus_arena_alloc(arena, sizeof *shared_table, 0);
    shared_serial = arena->serial;
    return shared_table;
}

static int make_table(struct modus_arena *arena)
{
    struct modus_deadlock_table *table = arena ? make_shared(arena) : make_private();

    if (!table)
        return -ENOMEM;
    clear_table(table);
    atomic_store(&private_stamp, arena ? SHARED : modus_self_stamp());
    atomic_store(&modus_deadlock_table, table);
    return 0;
}

static void switch_off(void)
{
    modus_lock_watch(NULL);
    if (atomic_load(&private_stamp) == SHARED)
        atomic_store(&modus_deadlock_table, NULL); /* its arena may be closed */
}

int modus_deadlock_watch(const struct modus_deadlock_attr *attr)
{
    static const struct modus_lock_watcher watcher = {on_wants, on_waits, on_waited,
                                                      on_holds, on_lets,  on_forgets};

    if (attr &&
        ((unsigned)attr->mode > MODUS_DEADLOCK_REFUSE || (unsigned)attr->order > MODUS_ORDER_YES))
        return -EINVAL;
    switch_off();
    atomic_store(&mode, attr ? (uint32_t)attr->mode : MODUS_DEADLOCK_OFF);
    if (!attr || attr->mode == MODUS_DEADLOCK_OFF)
        return 0;
    int rc = make_table(attr->arena);
    if (rc < 0)
        return rc;
    atomic_store(&ordered, attr->order == MODUS_ORDER_YES ||
                               (attr->order == MODUS_ORDER_IN_DEBUG && IS_DEBUG));
    report = attr->report;
    report_context = attr->context;
    modus_lock_watch(&watcher);
    return 0;
}

int modus_deadlock_name(const void *lock, const char *name)
{
    uintptr_t address = (uintptr_t)lock;

    if (!lock)
        return -EINVAL;
    for (unsigned i = 0; i < NAMES; i++)
        if (atomic_load(&names[i].lock) == address) {
            atomic_store(&names[i].name, (uintptr_t)name);
            if (!name)
                atomic_store(&names[i].lock, 0);
            return 0;
        }
    for (unsigned i = 0; name && i < NAMES; i++) {
        uintptr_t none = 0;

        if (atomic_compare_exchange_strong(&names[i].lock, &none, address)) {
            atomic_store(&names[i].name, (uintptr_t)name);
            return 0;
        }
    }
    return name ? -EOVERFLOW : 0;
}

const char *modus_deadlock_name_of(struct modus_node node)
{
    if (node.space != MODUS_SPACE_SHARED && node.space != space_of(MODUS_THREAD))
        return NULL;
    for (unsigned i = 0; i < NAMES; i++)
        if (atomic_load(&names[i].lock) == node.address)
            return (const char *)atomic_load(&names[i].name);
    return NULL;
}

struct modus_deadlock_stats modus_deadlock_stats(void)
{
    struct modus_deadlock_table *table = atomic_load(&modus_deadlock_table);

    if (!table)
        return (struct modus_deadlock_stats){0};
    return (struct modus_deadlock_stats){atomic_load(&table->cycles),
                                         atomic_load(&table->wrong_orders),
                                         atomic_load(&table->untracked)};
}
