/* SPDX-License-Identifier: MIT */
/*
 * What lies below the primitives, as the checker plays it: futexes, robust mutexes, the clock,
 * memory, descriptors and the arena. Each call is one step, and a decision comes before it.
 */
#define CHECK_ENGINE 1
#include "tests/check/engine.h"

#include <linux/futex.h>

#include "concurrency/arena_priv.h"
#include "concurrency/proxy.h"
#include "concurrency/self.h"

enum {
    MEMORY = 1 << 17,
    SLOTS = CHECK_ACTORS + 1,
    BELLS = 4,
    MUTEXES = 16,
    FIRST_PID = 1000,
    PATIENT_NS = 10000000
};

int64_t check_now;
struct modus_arena *check_arena;

static _Alignas(4096) unsigned char memory[MEMORY];
static size_t used;
static uint64_t bells[BELLS];
static int bells_open;
static int64_t tick;
static uint64_t serial;
static unsigned naps;
static unsigned mutexes_made;
static int self; /* from 1; 0: setup or verify */

#define AT(operation, object)                                                                      \
    do {                                                                                           \
        static const struct check_place place = {__FILE__, __LINE__, operation, #object};          \
        check_fence(&place, object);                                                               \
    } while (0)

/* --- who and when ---------------------------------------------------------------------------- */

void check_models_be(int actor)
{
    self = actor;
    modus_self_cache = (struct modus_self){modus_self_stamp(), (uint32_t)(FIRST_PID + actor)};
    /* The table of identities is the thread's, by arena; actors share a thread, so here it is by
     * actor. */
    check_arena->index = (unsigned)actor;
}

int check_self(void)
{
    return self;
}

int check_pid_of(int actor)
{
    return FIRST_PID + actor;
}

pid_t check_getpid(void)
{
    return check_pid_of(self);
}

int check_clock_gettime(clockid_t clock, struct timespec *now)
{
    (void)clock;
    check_now += tick;
    *now = (struct timespec){.tv_sec = check_now / 1000000000, .tv_nsec = check_now % 1000000000};
    return 0;
}

/* --- memory ---------------------------------------------------------------------------------- */

void *check_aligned_alloc(size_t align, size_t size)
{
    used = (used + align - 1) / align * align;
    if (used + size > MEMORY)
        check_fail(__FILE__, __LINE__, "the scenario needs more memory than there is");
    used += size;
    return memory + used - size;
}

void *check_calloc(size_t n, size_t size)
{
    return check_aligned_alloc(64, n * size);
}

void check_free(void *freed)
{
    (void)freed; /* used again only in the next run */
}

void *check_memcpy(void *to, const void *from, size_t size)
{
    static const struct check_place place = {__FILE__, __LINE__, "copy", ""};

    check_point(&place, to);
    return memcpy(to, from, size);
}

void *check_memory(size_t size)
{
    return check_calloc(1, size);
}

void *modus_arena_alloc(struct modus_arena *arena, size_t size, size_t align)
{
    (void)arena;
    return check_aligned_alloc(align ? align : 64, size);
}

int modus_arena_free(struct modus_arena *arena, void *freed, size_t size)
{
    (void)arena, (void)freed, (void)size;
    return 0;
}

struct modus_arena *modus_arena_of(const void *address)
{
    const unsigned char *at = address;

    return at >= memory && at < memory + MEMORY ? check_arena : NULL;
}

bool modus_scope_fits(enum modus_scope scope, const void *object)
{
    return scope == MODUS_THREAD || modus_arena_of(object);
}

void check_models_reset(int64_t new_tick)
{
    memset(memory, 0, used);
    memset(bells, 0, sizeof bells);
    used = 0;
    mutexes_made = 0;
    bells_open = 0;
    tick = new_tick;
    check_now = 1000000000;
    naps = 0;
    modus_self_robust = 0; /* an actor that died has not counted down */
    check_arena = check_aligned_alloc(4096, sizeof *check_arena);
    check_arena->serial = ++serial;
    check_arena->bytes = MEMORY;
    check_arena->slots = check_aligned_alloc(128, SLOTS * sizeof(struct modus_slot));
    check_models_be(0);
    if (modus_participants_init(check_arena, SLOTS) != 0)
        abort();
}

/* --- futexes --------------------------------------------------------------------------------- */

void modus_watch_look(struct modus_watch *watch, const void *object)
{
    static const struct check_place place = {__FILE__, __LINE__, "load", "epoch"};

    *watch = (struct modus_watch){0};
    if (!modus_arena_of(object))
        return;
    watch->epoch = &check_arena->epoch;
    check_load(&place, CHECK_ADDRESS(watch->epoch), &watch->seen, sizeof watch->seen);
}

static uint32_t value_of(const void *word)
{
    uint32_t value;

    memcpy(&value, word, sizeof value);
    return value;
}

int modus_park(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected, int64_t deadline,
               const struct modus_watch *watch)
{
    struct check_actor *me = check_current();
    bool watching = watch && watch->epoch && scope == MODUS_PROCESS;

    AT("park", CHECK_ADDRESS(word));
    if (!me)
        check_fail(__FILE__, __LINE__, "sleeps in setup or verify");
    if (value_of(CHECK_ADDRESS(word)) != expected ||
        (watching && value_of(CHECK_ADDRESS(watch->epoch)) != watch->seen))
        return 0;
    me->scope = scope;
    me->word = CHECK_ADDRESS(word);
    me->epoch = watching ? CHECK_ADDRESS(watch->epoch) : NULL;
    me->timed = deadline != MODUS_FOREVER;
    me->patient = me->timed && deadline - check_now >= PATIENT_NS;
    me->woken = me->timed_out = false;
    me->order = ++naps;
    check_block(PARKED);
    return me->timed_out ? -ETIMEDOUT : 0;
}

int modus_park_deaf(enum modus_scope scope, _Atomic uint32_t *word, uint32_t expected,
                    int64_t deadline, const struct modus_watch *watch)
{
    return modus_park(scope, word, expected, deadline, watch);
}

/* A wake-up of the other scope finds nobody, as in the kernel. */
static struct check_actor *longest_asleep(enum modus_scope scope, const void *word)
{
    struct check_actor *first = NULL;

    for (int i = 0; i < CHECK_ACTORS; i++) {
        struct check_actor *actor = &check_actors[i];

        if (actor->state == PARKED && !actor->woken && actor->scope == scope &&
            (actor->word == word || actor->epoch == word) &&
            (!first || actor->order < first->order))
            first = actor;
    }
    return first;
}

int modus_unpark(enum modus_scope scope, _Atomic uint32_t *word, int n)
{
    struct check_actor *sleeper;
    int woken = 0;

    AT("unpark", CHECK_ADDRESS(word));
    for (; woken < n && (sleeper = longest_asleep(scope, CHECK_ADDRESS(word))) != NULL; woken++)
        sleeper->woken = true;
    check_trace("          wakes %d", woken);
    return woken;
}

/* --- robust mutexes -------------------------------------------------------------------------- */

/* In the memory of a pthread_mutex_t. The word is the kernel's: whose it is, whether somebody sleeps
 * on it, whether the last owner has died. */
struct mutex {
    uint32_t word;
    bool inherited, lost;
};

static struct mutex *mutexes[MUTEXES];
static struct mutex *pending[CHECK_ACTORS + 1]; /* the kernel's: about to be tried, by whom */

static struct mutex *model_of(pthread_mutex_t *mutex)
{
    return (struct mutex *)(void *)mutex;
}

static bool is_free(void *argument)
{
    const struct mutex *mutex = argument;

    return (mutex->word & FUTEX_TID_MASK) == 0;
}

static uint32_t owner_id(int actor)
{
    return (uint32_t)actor + 1;
}

static int take(struct mutex *mutex)
{
    bool died = mutex->word & FUTEX_OWNER_DIED;

    if (mutex->lost)
        return ENOTRECOVERABLE;
    mutex->word = owner_id(self) | (mutex->word & FUTEX_WAITERS);
    mutex->inherited |= died;
    return died ? EOWNERDEAD : 0;
}

static void wake_one(struct mutex *mutex)
{
    struct check_actor *sleeper = longest_asleep(MODUS_PROCESS, &mutex->word);

    if (sleeper)
        sleeper->woken = true;
}

void check_models_end(int actor)
{
    if (pending[actor] && pending[actor]->word == 0)
        wake_one(pending[actor]);
    pending[actor] = NULL;
    for (unsigned i = 0; i < mutexes_made; i++) {
        struct mutex *mutex = mutexes[i];
        uint32_t word = mutex->word;

        if ((word & FUTEX_TID_MASK) != owner_id(actor))
            continue;
        mutex->word = (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        if (word & FUTEX_WAITERS)
            wake_one(mutex);
    }
}

int check_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
    (void)attr;
    if (mutexes_made == MUTEXES)
        check_fail(__FILE__, __LINE__, "the scenario needs more mutexes than there are");
    *model_of(mutex) = (struct mutex){0};
    mutexes[mutexes_made++] = model_of(mutex);
    return 0;
}

int check_mutex_destroy(pthread_mutex_t *mutex)
{
    for (unsigned i = 0; i < mutexes_made; i++)
        if (mutexes[i] == model_of(mutex))
            mutexes[i--] = mutexes[--mutexes_made];
    return 0;
}

static int lock(struct mutex *mutex, bool timed)
{
    struct check_actor *me = check_current();

    AT("mutex lock", mutex);
    if ((mutex->word & FUTEX_TID_MASK) == owner_id(self))
        return EDEADLK;
    while (!is_free(mutex)) {
        if (!me)
            check_fail(__FILE__, __LINE__, "waits for a mutex in setup or verify");
        me->timed = timed;
        me->patient = false;
        me->timed_out = false;
        me->ready = is_free;
        me->argument = mutex;
        check_block(WAITING);
        if (me->timed_out)
            return ETIMEDOUT;
    }
    return take(mutex);
}

int check_mutex_lock(pthread_mutex_t *mutex)
{
    return lock(model_of(mutex), false);
}

int check_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *until)
{
    (void)clock, (void)until;
    return lock(model_of(mutex), true);
}

int check_mutex_trylock(pthread_mutex_t *mutex)
{
    AT("mutex trylock", mutex);
    pending[self] = NULL;
    return is_free(mutex) ? take(model_of(mutex)) : EBUSY;
}

int check_mutex_unlock(pthread_mutex_t *mutex)
{
    struct mutex *model = model_of(mutex);

    AT("mutex unlock", mutex);
    if ((model->word & FUTEX_TID_MASK) != owner_id(self))
        return EPERM;
    uint32_t word = model->word;
    pending[self] = NULL;
    model->lost |= model->inherited;
    model->inherited = false;
    model->word = 0;
    if (word & FUTEX_WAITERS)
        wake_one(model);
    return 0;
}

int check_mutex_consistent(pthread_mutex_t *mutex)
{
    struct mutex *model = model_of(mutex);

    if (!model->inherited)
        return EINVAL;
    model->inherited = false;
    return 0;
}

void modus_proxy_cover(_Atomic uint32_t *word)
{
    pending[self] = (struct mutex *)(uintptr_t)word;
}

_Atomic(bool (*)(void)) modus_park_listen; /* nobody here has children */

/* --- what coroutines need, and nobody here is one --------------------------------------------- */

_Thread_local int (*modus_park_instead)(enum modus_scope scope, _Atomic uint32_t *word,
                                        uint32_t expected, int64_t deadline,
                                        const struct modus_watch *watch, unsigned how);
/* --- descriptors ----------------------------------------------------------------------------- */

int check_eventfd(unsigned count, int flags)
{
    (void)count, (void)flags;
    if (bells_open == BELLS)
        return -1;
    return bells_open++;
}

int check_eventfd_write(int fd, eventfd_t value)
{
    AT("eventfd write", &bells[fd]);
    bells[fd] += value;
    return 0;
}

int check_eventfd_read(int fd, eventfd_t *value)
{
    AT("eventfd read", &bells[fd]);
    *value = bells[fd];
    bells[fd] = 0;
    if (*value == 0)
        errno = EAGAIN;
    return *value ? 0 : -1;
}

static bool is_readable(void *argument)
{
    return *(uint64_t *)argument != 0;
}

void check_await_readable(int fd)
{
    check_wait(is_readable, &bells[fd]);
}

int check_close(int fd)
{
    (void)fd;
    return 0;
}

/* It would go round for ever if it were not for the others. */
int check_sched_yield(void)
{
    check_let_others();
    return 0;
}
