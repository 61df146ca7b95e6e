/* SPDX-License-Identifier: MIT */
/* Locks: what goes wrong without them, what they cost, and what else makes threads wait: L1 to L12. */
#include "tests/demo/demo.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concurrency/arena.h"
#include "concurrency/deadlock.h"
#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "concurrency/rlock.h"
#include "concurrency/sem.h"
#include "concurrency/scoped.h"
#include "concurrency/thread.h"
#include "concurrency/timer.h"

enum { MOST = 100 };

/* Run n threads of one function, and wait for them. */
static void run_threads(struct demo *d, int n, void *(*run)(void *argument), void *argument)
{
    struct modus_thread *threads[MOST];
    for (int i = 0; i < n; i++) {
        DEMO_CHECK(d, modus_thread_new(&threads[i], NULL, run, argument) == 0);
        DEMO_CHECK(d, modus_thread_start(threads[i]) == 0);
    }
    for (int i = 0; i < n; i++) {
        DEMO_CHECK(d, modus_thread_join(threads[i], MOST * modus_seconds(1), NULL) == 0);
        modus_thread_put(threads[i]);
    }
}

/* --- L1, L2: a balance --------------------------------------------------------------------------- */

/* The balance is an atomic that is read and written in two steps: what the notes' race is, without
 * being undefined in C. */
struct account {
    struct modus_lock lock;
    bool locked;
    int rounds;
    atomic_int amounts_given, balance;
};

static void change(atomic_int *balance, int by)
{
    int now = atomic_load_explicit(balance, memory_order_relaxed);
    atomic_store_explicit(balance, now + by, memory_order_relaxed);
}

static void *pay_in_and_out(void *argument)
{
    struct account *a = argument;
    int amount = atomic_fetch_add(&a->amounts_given, 1) % 2 ? 8 : 5;
    for (int i = 0; i < a->rounds; i++) {
        if (a->locked)
            modus_lock_acquire(&a->lock, MODUS_FOREVER);
        change(&a->balance, amount);
        change(&a->balance, -amount);
        if (a->locked)
            modus_lock_release(&a->lock);
    }
    return NULL;
}

static int balance_after(struct demo *d, int threads, int rounds, bool locked)
{
    struct account a = {.locked = locked, .rounds = rounds};
    modus_lock_init(&a.lock, MODUS_THREAD);
    run_threads(d, threads, pay_in_and_out, &a);
    return a.balance;
}

static void l1(struct demo *d)
{
    enum { RUNS = 5, ROUNDS = 100000 };
    int wrong = 0;
    demo_saw(d, "without a lock");
    for (int run = 0; run < RUNS; run++) {
        int balance = balance_after(d, 2, ROUNDS, false);
        wrong += balance != 0;
        demo_saw(d, " %d", balance);
    }
    for (int run = 0; run < RUNS; run++)
        DEMO_CHECK(d, balance_after(d, 2, ROUNDS, true) == 0);
    if (demo_cpus() >= 2)
        demo_expect_time(d, wrong > 0, "two that run at once get into each other's way");
    demo_saw(d, ", with it always 0");
}

static void l2(struct demo *d)
{
    int balance = balance_after(d, 20, 1000, true);
    DEMO_CHECK(d, balance == 0);
    demo_saw(d, "balance = %d", balance);
}

/* --- L3: read, pause, write ------------------------------------------------------------------------ */

struct hundred {
    struct modus_lock lock;
    bool locked;
    double pause;
    atomic_int n;
};

static void *take_one(void *argument)
{
    struct hundred *h = argument;
    if (h->locked)
        modus_lock_acquire(&h->lock, MODUS_FOREVER);
    int n = atomic_load(&h->n);
    demo_pause(h->pause);
    atomic_store(&h->n, n - 1);
    if (h->locked)
        modus_lock_release(&h->lock);
    return NULL;
}

static int hundred_after(struct demo *d, bool locked, double pause)
{
    struct hundred h = {.locked = locked, .pause = pause, .n = 100};
    modus_lock_init(&h.lock, MODUS_THREAD);
    run_threads(d, 100, take_one, &h);
    return h.n;
}

static void l3(struct demo *d)
{
    int without = hundred_after(d, false, 0.5), with = hundred_after(d, true, 0.005);
    DEMO_CHECK(d, without == 99);
    DEMO_CHECK(d, with == 0);
    demo_saw(d, "%d without a lock (notes 99), %d with one (notes 0; there its pause is at 1/100)",
             without, with);
}

/* --- L4: lock a part, or wait for the whole ----------------------------------------------------------- */

struct partly {
    struct modus_lock *lock;
};

static void *partly_guarded(void *argument)
{
    struct partly *p = argument;
    demo_pause(0.1); /* needs no lock */
    if (p->lock)
        modus_lock_acquire(p->lock, MODUS_FOREVER);
    demo_pause(0.05); /* what is to be guarded */
    if (p->lock)
        modus_lock_release(p->lock);
    return NULL;
}

static void l4(struct demo *d)
{
    struct modus_lock lock = MODUS_LOCK_INIT;
    double begun = demo_now();
    run_threads(d, 10, partly_guarded, &(struct partly){&lock});
    double locked = demo_now() - begun;
    begun = demo_now();
    for (int i = 0; i < 10; i++)
        run_threads(d, 1, partly_guarded, &(struct partly){NULL});
    double joined = demo_now() - begun;
    demo_expect_seconds(d, locked, 0.6);
    demo_expect_seconds(d, joined, 1.5);
    demo_saw(d, "the part locked %.2f s (notes 6.01), each thread joined %.2f s (notes 15.03)",
             locked, joined);
}

/* --- L5: a deadlock --------------------------------------------------------------------------- */

struct embrace {
    struct demo *row;
    struct modus_lock a, b;
    struct modus_event first_is_on; /* the first is at g, and holds B */
    atomic_int names_given, refused;
    char report[2048];
};

static void take(struct embrace *e, const char *name, struct modus_lock *lock, char letter)
{
    int rc = modus_lock_acquire(lock, MODUS_FOREVER);
    if (rc == -EDEADLK) {
        atomic_fetch_add(&e->refused, 1);
        demo_print(e->row, "%s may not wait for the lock  %c: -EDEADLK", name, letter);
    } else {
        demo_print(e->row, "%s acquire the lock  %c", name, letter);
    }
}

static void give(struct embrace *e, const char *name, struct modus_lock *lock, char letter)
{
    if (modus_lock_release(lock) == 0)
        demo_print(e->row, "%s release the lock  %c", name, letter);
}

/* A, then B; and then B, then A, while the other one does A, then B. */
static void *embrace(void *argument)
{
    struct embrace *e = argument;
    char name[8];
    int number = atomic_fetch_add(&e->names_given, 1) + 1;
    snprintf(name, sizeof name, "t%d", number);
    if (number == 2)
        modus_event_wait(&e->first_is_on, MODUS_FOREVER);
    take(e, name, &e->a, 'A');
    take(e, name, &e->b, 'B');
    give(e, name, &e->b, 'B');
    give(e, name, &e->a, 'A');
    take(e, name, &e->b, 'B');
    if (number == 1)
        modus_event_set(&e->first_is_on);
    demo_pause(0.1);
    take(e, name, &e->a, 'A');
    give(e, name, &e->a, 'A');
    give(e, name, &e->b, 'B');
    return NULL;
}

static void keep_report(const char *text, void *context)
{
    struct embrace *e = context;
    snprintf(e->report + strlen(e->report), sizeof e->report - strlen(e->report), "%s", text);
    char copy[2048];
    snprintf(copy, sizeof copy, "%s", text);
    for (char *save, *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        demo_print(e->row, "  %s", line);
}

static void l5(struct demo *d)
{
    static struct embrace e;
    e.row = d;
    modus_lock_init(&e.a, MODUS_THREAD);
    modus_lock_init(&e.b, MODUS_THREAD);
    modus_event_init(&e.first_is_on, MODUS_THREAD);
    DEMO_CHECK(d, modus_deadlock_watch(&(struct modus_deadlock_attr){.mode = MODUS_DEADLOCK_REFUSE,
                                                                     .order = MODUS_ORDER_YES,
                                                                     .report = keep_report,
                                                                     .context = &e}) == 0);
    modus_deadlock_name(&e.a, "A");
    modus_deadlock_name(&e.b, "B");
    run_threads(d, 2, embrace, &e);
    struct modus_deadlock_stats stats = modus_deadlock_stats();
    modus_deadlock_watch(NULL);
    DEMO_CHECK(d, stats.cycles >= 1 && stats.orders >= 1);
    DEMO_CHECK(d, atomic_load(&e.refused) >= 1);
    DEMO_CHECK(d, strstr(e.report, "\"A\"") && strstr(e.report, "\"B\""));
    demo_saw(d, "t1 holds B and wants A, t2 holds A and wants B: reported with both threads, both "
                "locks and where; one is refused (-EDEADLK), both finish; and the wrong order is "
                "told even where nothing hangs (the notes' threads wait for ever)");
}

/* --- L6: a recursive lock ------------------------------------------------------------------------------- */

struct recursive {
    struct demo *row;
    struct modus_rlock lock; /* the notes call it mutexA and mutexB */
    atomic_int names_given;
};

static void say(struct recursive *r, const char *name, const char *what, char lock)
{
    demo_print(r->row, "%s %s the lock  %c", name, what, lock);
}

static void *f_and_g(void *argument)
{
    struct recursive *r = argument;
    char name[8];
    snprintf(name, sizeof name, "t%d", atomic_fetch_add(&r->names_given, 1) + 1);
    for (int part = 0; part < 2; part++) {
        modus_rlock_acquire(&r->lock, MODUS_FOREVER);
        say(r, name, "acquire", part ? 'B' : 'A');
        demo_pause(part ? 0.1 : 0);
        modus_rlock_acquire(&r->lock, MODUS_FOREVER);
        say(r, name, "acquire", part ? 'A' : 'B');
        modus_rlock_release(&r->lock);
        say(r, name, "release", part ? 'A' : 'B');
        modus_rlock_release(&r->lock);
        say(r, name, "release", part ? 'B' : 'A');
    }
    return NULL;
}

static void l6(struct demo *d)
{
    struct recursive r = {.row = d};
    modus_rlock_init(&r.lock, MODUS_THREAD);
    run_threads(d, 3, f_and_g, &r);
    for (int t = 1; t <= 3; t++)
        for (int lock = 'A'; lock <= 'B'; lock++) {
            char line[40];
            snprintf(line, sizeof line, "t%d acquire the lock  %c", t, lock);
            DEMO_CHECK(d, demo_count(d, line) == 2);
            snprintf(line, sizeof line, "t%d release the lock  %c", t, lock);
            DEMO_CHECK(d, demo_count(d, line) == 2);
        }
    DEMO_CHECK(d, modus_rlock_release(&r.lock) == -EPERM);
    demo_saw(d, "24 lines, all three threads finish; who does not own it may not release it (the "
                "notes print \"release B\" after A's release: ours names A)");
}

/* --- L7: a semaphore ---------------------------------------------------------------------------------------- */

struct few {
    struct modus_sem sem;
    atomic_int in, most;
};

static void *be_one_of_few(void *argument)
{
    struct few *f = argument;
    modus_sem_acquire(&f->sem, MODUS_FOREVER);
    int in = atomic_fetch_add(&f->in, 1) + 1, most = atomic_load(&f->most);
    while (in > most && !atomic_compare_exchange_weak(&f->most, &most, in))
        ;
    demo_pause(0.02);
    atomic_fetch_sub(&f->in, 1);
    modus_sem_release(&f->sem, 1);
    return NULL;
}

static void l7(struct demo *d)
{
    struct few f = {.in = 0};
    modus_sem_init(&f.sem, &(struct modus_sem_attr){MODUS_THREAD, .value = 3, .max = 3});
    double begun = demo_now();
    run_threads(d, 20, be_one_of_few, &f);
    double took = demo_now() - begun;
    DEMO_CHECK(d, f.most == 3);
    DEMO_CHECK(d, modus_sem_release(&f.sem, 1) == -EOVERFLOW);
    demo_expect_time(d, took >= 7 * 0.02, "20 tasks of 20 ms, three at a time, are seven rounds");
    demo_saw(d, "at most %d of 20 tasks at once; one release too many is refused", f.most);
}

/* --- L8: an event --------------------------------------------------------------------------------------------- */

struct database {
    struct demo *row;
    struct modus_event up;
    atomic_int connected;
};

static void *connect_to_it(void *argument)
{
    struct database *db = argument;
    DEMO_CHECK(db->row, modus_event_wait(&db->up, MODUS_FOREVER) == 0);
    atomic_fetch_add(&db->connected, 1);
    return NULL;
}

static void *check_it(void *argument)
{
    struct database *db = argument;
    demo_pause(0.1);
    DEMO_CHECK(db->row, atomic_load(&db->connected) == 0);
    modus_event_set(&db->up);
    return NULL;
}

static void l8(struct demo *d)
{
    struct database db = {.row = d};
    struct modus_thread *checker;
    modus_event_init(&db.up, MODUS_THREAD);
    DEMO_CHECK(d, modus_event_wait(&db.up, modus_ms(10)) == -ETIMEDOUT);
    modus_thread_new(&checker, NULL, check_it, &db);
    modus_thread_start(checker);
    run_threads(d, 3, connect_to_it, &db);
    modus_thread_join(checker, MODUS_FOREVER, NULL);
    modus_thread_put(checker);
    DEMO_CHECK(d, db.connected == 3 && modus_event_is_set(&db.up));
    modus_event_clear(&db.up);
    DEMO_CHECK(d, modus_event_wait(&db.up, 0) == -EAGAIN);
    demo_saw(d, "three that want to connect wait until the checker sets it; clear arms it again");
}

/* --- L9: a timer -------------------------------------------------------------------------------------------------- */

struct alarm {
    struct modus_event rung;
    atomic_int times;
    double at;
};

static void ring(void *argument)
{
    struct alarm *a = argument;
    a->at = demo_now();
    atomic_fetch_add(&a->times, 1);
    modus_event_set(&a->rung);
}

static void l9(struct demo *d)
{
    struct alarm once = {.at = 0}, never = {.at = 0};
    struct modus_timer timer = {0}, other = {0};
    modus_event_init(&once.rung, MODUS_THREAD);
    modus_event_init(&never.rung, MODUS_THREAD);
    double begun = demo_now();
    DEMO_CHECK(d, modus_timer_once(&timer, modus_ms(100), ring, &once) == 0);
    DEMO_CHECK(d, modus_timer_once(&other, modus_ms(100), ring, &never) == 0);
    DEMO_CHECK(d, modus_timer_cancel(&other) == 0);
    DEMO_CHECK(d, modus_event_wait(&once.rung, modus_seconds(20)) == 0);
    double late_ms = (once.at - begun - 0.1) * 1e3;
    DEMO_CHECK(d, modus_event_wait(&never.rung, modus_ms(50)) == -ETIMEDOUT);
    DEMO_CHECK(d, modus_timer_cancel_sync(&timer) == MODUS_TOO_LATE);
    DEMO_CHECK(d, atomic_load(&once.times) == 1 && atomic_load(&never.times) == 0);
    demo_expect(d, late_ms >= 0, "not too early");
    demo_expect_time(d, late_ms < 10, "on time");
    demo_saw(d,
             "once, %.2f ms after its time; one that was cancelled never; cancelling it afterwards "
             "is too late",
             late_ms);
}

/* --- L11: always released ------------------------------------------------------------------------------------------- */

static int leave_early(struct modus_lock *lock, int way)
{
    MODUS_HOLD(held, lock, MODUS_FOREVER);
    if (held.result < 0)
        return held.result;
    if (way == 0)
        return -EIO; /* an error in the middle */
    for (;;)
        if (way-- == 1)
            break;
    return way;
}

static void l11(struct demo *d)
{
    struct modus_lock plain = MODUS_LOCK_INIT, *lock;
    struct modus_arena *arena;
    int status;
    DEMO_CHECK(d, leave_early(&plain, 0) == -EIO && leave_early(&plain, 1) == 0);
    DEMO_CHECK(d, modus_lock_try(&plain) == 0); /* free again, whatever the way out */
    if (!DEMO_CHECK(d, modus_arena_open(&arena, 1 << 20, 1) == 0))
        return;
    lock = modus_arena_alloc(arena, sizeof *lock, 0);
    modus_lock_init(lock, MODUS_PROCESS);
    pid_t pid = fork();
    if (pid == 0) {
        modus_lock_acquire(lock, MODUS_FOREVER);
        raise(SIGKILL); /* no finally helps here */
    }
    waitpid(pid, &status, 0);
    DEMO_CHECK(d, WIFSIGNALED(status));
    DEMO_CHECK(d, modus_lock_acquire(lock, modus_seconds(20)) == MODUS_OWNERDEAD);
    DEMO_CHECK(d, modus_lock_consistent(lock) == 0 && modus_lock_release(lock) == 0);
    DEMO_CHECK(d, modus_lock_acquire(lock, 0) == 0);
    modus_lock_release(lock);
    modus_arena_close(arena);
    demo_saw(d, "released on every way out of the block; and when the owner is killed, the next is "
                "told so (OWNERDEAD), which try/finally can't do");
}

/* --- L12: what a lock costs -------------------------------------------------------------------------------------- */

struct counting {
    struct modus_lock *lock;
    atomic_long n;
    int rounds;
};

static void *count_up(void *argument)
{
    struct counting *c = argument;
    for (int i = 0; i < c->rounds; i++) {
        if (c->lock)
            modus_lock_acquire(c->lock, MODUS_FOREVER);
        long n = atomic_load_explicit(&c->n, memory_order_relaxed);
        atomic_store_explicit(&c->n, n + 1, memory_order_relaxed);
        if (c->lock)
            modus_lock_release(c->lock);
    }
    return NULL;
}

static void l12(struct demo *d)
{
    enum { ROUNDS = 1000000 };
    struct modus_lock lock = MODUS_LOCK_INIT;
    for (int threads = 1; threads <= 4; threads *= 2) {
        struct counting free = {.rounds = ROUNDS / threads},
                        locked = {&lock, .rounds = ROUNDS / threads};
        double begun = demo_now();
        run_threads(d, threads, count_up, &free);
        double without = demo_now() - begun;
        begun = demo_now();
        run_threads(d, threads, count_up, &locked);
        double with = demo_now() - begun;
        DEMO_CHECK(d, locked.n == ROUNDS / threads * threads);
        demo_expect_time(d, with > without, "a lock is safer and slower");
        demo_saw(
            d, "%s%d thread%s: %.0f million a second without a lock (%ld of %d counted), %.1f with",
            threads > 1 ? "; " : "", threads, threads > 1 ? "s" : "", ROUNDS / without / 1e6,
            (long)free.n, ROUNDS, ROUNDS / with / 1e6);
    }
}

const struct demo_row demo_locks[] = {
    {"L1", "a balance, +5 -5 and +8 -8, 100,000 times in two threads", l1},
    {"L2", "a balance of 20 threads", l2},
    {"L3", "100 threads read n, pause and write n - 1", l3},
    {"L4", "10 threads, 1 s free and 0.5 s guarded, at 1/10", l4},
    {"L5", "a deadlock, A then B and B then A", l5},
    {"L6", "a recursive lock", l6},
    {"L7", "a semaphore of 3", l7},
    {"L8", "an event: is the database up?", l8},
    {"L9", "a timer", l9},
    {"L11", "try, finally: always release", l11},
    {"L12", "a lock is safer and slower", l12},
    {0},
};
