/* SPDX-License-Identifier: MIT */
/*
 * What proxies know of words, and the proxies' sleep.
 *
 * A word's states, under the mutex:
 *
 *     free --begin--> waited for --(the proxy)--> armed: in the kernel's hands --woken--> lingers
 *                        |                          |
 *                        +--the last end--> free    +--the last end--> stale --(the proxy)--> free
 *
 * One that lingers stays in the kernel's hands without anybody waiting, until the proxy wakes up next:
 * who waits for a word often need not call the proxy each time. Its memory may be gone: it is not
 * read any more.
 *
 * futex_waitv names one word that has been woken, the last of those that were; so what can tell by
 * its value comes first: the control word (a call to look at the words again), the epochs, then the
 * words. For one before the named one, the value decides. If that is as expected, whoever waits need
 * not go on: a thread that was woken would look, see the same, and sleep again. A stale one of those
 * may have swallowed a wake-up, which is then given to the next sleeper.
 *
 * The mutex is a plain one: nothing under it waits, and one that parks can't stand under parking.
 */
#include "concurrency/proxy.h"
#include "concurrency/arena_priv.h"
#include "concurrency/lot.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

enum { WORDS = 100, PROXIES = 256, RECHECK_NS = 1000000000, STACK = 128 * 1024 };
enum { SHARED = 2 /* FUTEX_32 */, PRIVATE = SHARED | FUTEX_PRIVATE_FLAG };

/* The kernel's struct futex_waitv, absent from older headers. */
struct waited {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};

struct modus_proxy_word {
    _Atomic uint32_t *address; /* NULL: free */
    uint32_t expected;
    struct modus_watch watch;
    uint32_t waits; /* 0 with an address: stale */
    uint32_t turn;  /* counts its uses, so that a late end does not meet the next one */
    bool armed;
    bool woken;   /* robust: until all that were woken have come */
    bool lingers; /* nobody waits any more, but may again */
};

struct modus_proxy {
    bool robust; /* serves one such word at a time */
    bool running, asleep, called;
    _Atomic uint32_t control;
    struct modus_proxy_word words[WORDS];
};

/* What a proxy sleeps on. */
struct sleep {
    unsigned count, first; /* of all, and the place of the first word */
    struct waited set[1 + MODUS_ARENAS_MAX + WORDS];
    struct modus_proxy_word *words[1 + MODUS_ARENAS_MAX + WORDS];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct modus_proxy *proxies[PROXIES];
static int words_each; /* 0: not known yet */

static void wake_next(_Atomic uint32_t *address)
{
    syscall(SYS_futex, address, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* --- words, under the mutex ------------------------------------------------------------------- */

static unsigned room_of(const struct modus_proxy *proxy)
{
    return proxy->robust ? 1 : (unsigned)words_each;
}

static void clear(struct modus_proxy_word *word)
{
    *word = (struct modus_proxy_word){.turn = word->turn + 1};
}

static bool changed(const struct modus_proxy_word *word)
{
    return atomic_load(word->address) != word->expected ||
           (word->watch.epoch && atomic_load(word->watch.epoch) != word->watch.seen);
}

/* Let all who wait for it look. The kernel's pending operation of a robust proxy stays until they
 * have. */
static void wake(struct modus_proxy *proxy, struct modus_proxy_word *word)
{
    _Atomic uint32_t *address = word->address;

    if (modus_lot_wake(address, INT_MAX) == 0)
        wake_next(address); /* all are leaving: their time is over */
    if (proxy->robust) {
        word->woken = true;
    } else if (words_each == 1) {
        clear(word);
    } else {
        word->expected = atomic_load(address); /* still there: who waits needs the mutex to go */
        word->lingers = true;
        word->waits = 0;
        word->turn++;
    }
}

static void call(struct modus_proxy *proxy)
{
    if (!proxy->asleep || proxy->called)
        return;
    proxy->called = true;
    atomic_fetch_add(&proxy->control, 1);
    syscall(SYS_futex, &proxy->control, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* --- the proxy's sleep ------------------------------------------------------------------------ */

static void add(struct sleep *sleep, _Atomic uint32_t *address, uint32_t value, uint32_t flags)
{
    sleep->set[sleep->count++] =
        (struct waited){.value = value, .address = (uintptr_t)address, .flags = flags};
}

static void add_epoch(struct sleep *sleep, const struct modus_watch *watch)
{
    for (unsigned i = 1; i < sleep->count; i++)
        if (sleep->set[i].address == (uintptr_t)watch->epoch)
            return;
    if (watch->epoch)
        add(sleep, watch->epoch, watch->seen, SHARED);
}

static bool waited_for(const struct modus_proxy_word *word)
{
    return word->address && word->waits > 0 && !word->woken;
}

static bool to_be_watched(const struct modus_proxy_word *word)
{
    return waited_for(word) || word->lingers;
}

/* Under the mutex: wake for what has changed, and prepare to sleep on the rest. */
static void arm(struct modus_proxy *proxy, struct sleep *sleep)
{
    sleep->count = 0;
    add(sleep, &proxy->control, atomic_load(&proxy->control), PRIVATE);
    for (unsigned i = 0; i < WORDS; i++) {
        struct modus_proxy_word *word = &proxy->words[i];

        if (waited_for(word) && changed(word))
            wake(proxy, word);
        if (to_be_watched(word))
            add_epoch(sleep, &word->watch);
    }
    sleep->first = sleep->count;
    for (unsigned i = 0; i < WORDS; i++) {
        struct modus_proxy_word *word = &proxy->words[i];

        if (!to_be_watched(word))
            continue;
        word->armed = true;
        sleep->words[sleep->count] = word;
        add(sleep, word->address, word->expected, SHARED);
        if (proxy->robust)
            modus_proxy_cover(word->address);
    }
    proxy->asleep = true;
    proxy->called = false;
}

/* Under the mutex: woken is the place of the last that was; 0: of none. */
static void disarm(struct modus_proxy *proxy, struct sleep *sleep, unsigned woken)
{
    proxy->asleep = false;
    for (unsigned i = sleep->first; i < sleep->count; i++) {
        struct modus_proxy_word *word = sleep->words[i];

        word->armed = false;
        if (word->waits == 0) {
            if (i <= woken)
                wake_next(word->address);
            clear(word);
        } else if (i == woken) {
            wake(proxy, word);
        }
    }
}

/* Returns the place of what was woken, or 0. */
static unsigned sleep_on_all(struct sleep *sleep)
{
    long rc = syscall(SYS_futex_waitv, sleep->set, sleep->count, 0, NULL, CLOCK_MONOTONIC);

    return rc < 0 ? 0 : (unsigned)rc;
}

/* Without futex_waitv: there is one word, or none. */
static unsigned sleep_on_one(struct sleep *sleep)
{
    int64_t look = modus_now_ns() + RECHECK_NS;
    struct timespec until = {.tv_sec = look / 1000000000, .tv_nsec = look % 1000000000};
    bool any = sleep->count > sleep->first;
    struct waited *one = &sleep->set[any ? sleep->first : 0];
    long rc = syscall(SYS_futex, one->address, FUTEX_WAIT_BITSET | (any ? 0 : FUTEX_PRIVATE_FLAG),
                      (uint32_t)one->value, any ? &until : NULL, NULL, FUTEX_BITSET_MATCH_ANY);

    return rc == 0 && any ? sleep->first : 0;
}

static void *sleep_for_others(void *argument)
{
    struct modus_proxy *proxy = argument;
    struct sleep sleep;
    bool one = words_each == 1; /* it was made under the mutex */

    for (;;) {
        pthread_mutex_lock(&mutex);
        arm(proxy, &sleep);
        pthread_mutex_unlock(&mutex);
        unsigned woken = one ? sleep_on_one(&sleep) : sleep_on_all(&sleep);
        pthread_mutex_lock(&mutex);
        disarm(proxy, &sleep, woken);
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

/* --- finding a place, under the mutex ---------------------------------------------------------- */

static bool start(struct modus_proxy *proxy)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread, &attr, sleep_for_others, proxy);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0)
        pthread_setname_np(thread, "modus-proxy");
    return proxy->running = rc == 0;
}

static void learn_words_each(void)
{
    if (words_each == 0)
        words_each =
            syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno == EINVAL ? WORDS : 1;
}

static struct modus_proxy *make(bool robust)
{
    struct modus_proxy *proxy = calloc(1, sizeof *proxy);

    if (proxy)
        proxy->robust = robust;
    return proxy;
}

static struct modus_proxy_word *place_in(struct modus_proxy *proxy)
{
    for (unsigned i = 0; i < room_of(proxy); i++)
        if (!proxy->words[i].address)
            return &proxy->words[i];
    return NULL;
}

/* The place of that word, if somebody waits for it or has just done so. */
static bool find(struct modus_proxy_wait *wait, const _Atomic uint32_t *address)
{
    for (unsigned i = 0; i < PROXIES && proxies[i]; i++)
        for (unsigned j = 0; j < room_of(proxies[i]); j++)
            if (proxies[i]->words[j].address == address) {
                wait->proxy = proxies[i];
                wait->word = &proxies[i]->words[j];
                return true;
            }
    return false;
}

static bool find_room(struct modus_proxy_wait *wait, bool robust)
{
    learn_words_each();
    for (unsigned i = 0; i < PROXIES; i++) {
        if (!proxies[i] && !(proxies[i] = make(robust)))
            return false;
        struct modus_proxy *proxy = proxies[i];
        if (proxy->robust != robust || !(wait->word = place_in(proxy)))
            continue;
        wait->proxy = proxy;
        return proxy->running || start(proxy);
    }
    return false;
}

/* --- calls ----------------------------------------------------------------------------------- */

static bool enter(struct modus_proxy_wait *wait, _Atomic uint32_t *address, uint32_t expected,
                  const struct modus_watch *watch, bool robust)
{
    struct modus_watch none = {0};
    bool found = find(wait, address);

    if (!found && !find_room(wait, robust))
        return false;
    struct modus_proxy_word *word = wait->word;
    if (!watch)
        watch = &none;
    if (word->waits > 0 && !word->woken &&
        (word->expected != expected || word->watch.seen != watch->seen))
        modus_lot_wake(address, INT_MAX); /* they and the caller have seen different things */
    bool slept_on = word->armed && word->watch.epoch == watch->epoch;
    word->address = address;
    word->expected = expected;
    word->watch = *watch;
    word->woken = word->lingers = false;
    word->waits++;
    wait->turn = word->turn;
    if (!slept_on)
        call(wait->proxy);
    return true;
}

bool modus_proxy_begin(struct modus_proxy_wait *wait, _Atomic uint32_t *word, uint32_t expected,
                       const struct modus_watch *watch, bool robust)
{
    int saved = errno;

    pthread_mutex_lock(&mutex);
    bool entered = enter(wait, word, expected, watch, robust);
    pthread_mutex_unlock(&mutex);
    errno = saved;
    return entered;
}

void modus_proxy_end(struct modus_proxy_wait *wait)
{
    struct modus_proxy_word *word = wait->word;

    pthread_mutex_lock(&mutex);
    if (word->turn == wait->turn && --word->waits == 0) {
        if (word->armed)
            call(wait->proxy); /* the kernel has it */
        else
            clear(word);
    }
    pthread_mutex_unlock(&mutex);
}

void modus_proxy_cover(_Atomic uint32_t *word)
{
    static _Thread_local struct robust_list_head *head;
    size_t size;

    if (!head && syscall(SYS_get_robust_list, 0, &head, &size) < 0)
        return;
    if (head)
        head->list_op_pending =
            (struct robust_list *)((uintptr_t)word - (uintptr_t)head->futex_offset);
}

/* Their memory is kept: malloc may not be usable here. */
void modus_proxy_forget(void)
{
    pthread_mutex_init(&mutex, NULL);
    words_each = 0; /* its system calls may be others */
    for (unsigned i = 0; i < PROXIES && proxies[i]; i++)
        *proxies[i] = (struct modus_proxy){.robust = proxies[i]->robust};
}
