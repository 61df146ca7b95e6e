/* SPDX-License-Identifier: MIT */
/* Deadlock detection: cycles of threads, coroutines and processes over locks of all kinds, the order
 * of locks, what is no deadlock, and the dump. */
#include "test_concurrency.h"

#include "concurrency/cond.h"
#include "concurrency/coroutine.h"
#include "concurrency/process.h"
#include "concurrency/deadlock.h"
#include "concurrency/fault.h"
#include "concurrency/lock.h"
#include "concurrency/rlock.h"
#include "concurrency/rwlock.h"
#include "concurrency/thread.h"

#include <sys/mman.h>

static struct modus_arena *arena;

enum { TEXT = 8192 };

#define PROGRAM "test_concurrency_deadlock"

/* What is told, by whatever process; and where threads wait for each other. */
static struct stage {
    char text[TEXT];
    _Atomic unsigned length;
    _Atomic int reports, tids[8], results[8], steps;
    _Atomic bool go;
} * stage;

static struct modus_lock a, b, c;
static struct modus_rlock ra;
static struct modus_rwlock rw;

static void note_report(const char *text, void *context)
{
    size_t length = strlen(text);
    unsigned at = atomic_fetch_add(&stage->length, (unsigned)length);

    CHECK(context == stage);
    if (at + length < TEXT)
        memcpy(stage->text + at, text, length);
    atomic_fetch_add(&stage->reports, 1);
}

static bool told(const char *words)
{
    return strstr(stage->text, words) != NULL;
}

static unsigned count_of(const char *words)
{
    unsigned count = 0;

    for (const char *at = stage->text; (at = strstr(at, words)) != NULL; at++)
        count++;
    return count;
}

static void forget_reports(void)
{
    memset(stage, 0, sizeof *stage);
}

static void read_dump(void)
{
    FILE *file = tmpfile();

    CHECK(file);
    forget_reports();
    modus_deadlock_dump(fileno(file));
    rewind(file);
    stage->text[fread(stage->text, 1, TEXT - 1, file)] = 0;
    fclose(file);
}

static void watch(enum modus_deadlock_mode mode, bool order, struct modus_arena *where)
{
    CHECK_INT(modus_deadlock_watch(&(struct modus_deadlock_attr){
                  mode, .order = order ? MODUS_ORDER_YES : MODUS_ORDER_NO, .arena = where,
                  .report = note_report, .context = stage}),
              0);
}

static int begin_test(void **state)
{
    forget_reports();
    modus_lock_init(&a, MODUS_THREAD);
    modus_lock_init(&b, MODUS_THREAD);
    modus_lock_init(&c, MODUS_THREAD);
    modus_rlock_init(&ra, MODUS_THREAD);
    modus_rwlock_init(&rw, MODUS_THREAD);
    CHECK_INT(modus_deadlock_name(&a, "A"), 0);
    CHECK_INT(modus_deadlock_name(&b, "B"), 0);
    CHECK_INT(modus_deadlock_name(&c, "C"), 0);
    return watchdog(state);
}

static int end_test(void **state)
{
    (void)state;
    return modus_deadlock_watch(NULL);
}

static struct modus_thread *start_named(const char *name, void *(*run)(void *), void *argument)
{
    struct modus_thread *thread;

    CHECK_INT(modus_thread_new(&thread, &(struct modus_thread_attr){.name = name}, run, argument),
              0);
    CHECK_INT(modus_thread_start(thread), 0);
    return thread;
}

static void finish_named(struct modus_thread *thread)
{
    CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    modus_thread_put(thread);
}

/* Own the first, and when all do, the second. */
struct pair {
    struct modus_lock *first, *second;
    int number, all;
};

static void *take_both(void *argument)
{
    struct pair *p = argument;

    CHECK_INT(modus_lock_acquire(p->first, MODUS_FOREVER), 0);
    atomic_fetch_add(&stage->steps, 1);
    AWAIT(atomic_load(&stage->steps) >= p->all);
    int rc = modus_lock_acquire(p->second, MODUS_FOREVER);
    atomic_store(&stage->results[p->number], rc);
    if (rc == 0)
        CHECK_INT(modus_lock_release(p->second), 0);
    CHECK_INT(modus_lock_release(p->first), 0);
    return NULL;
}

static void test_errors(void **state)
{
    static int locks[80];
    int named = 0;
    (void)state;

    assert_int_equal(modus_deadlock_watch(&(struct modus_deadlock_attr){.mode = 7}), -EINVAL);
    assert_int_equal(modus_deadlock_watch(&(struct modus_deadlock_attr){.mode = 1, .order = 7}),
                     -EINVAL);
    assert_int_equal(modus_deadlock_watch(&(struct modus_deadlock_attr){.mode = 0}), 0);
    assert_int_equal(modus_deadlock_name(NULL, "x"), -EINVAL);
    while (modus_deadlock_name(&locks[named], "x") == 0)
        named++;
    assert_int_equal(named, 64 - 3);
    assert_int_equal(modus_deadlock_name(&locks[named], "x"), -EOVERFLOW);
    assert_int_equal(modus_deadlock_name(&locks[0], "y"), 0);
    for (int i = 0; i <= named; i++)
        assert_int_equal(modus_deadlock_name(&locks[i], NULL), 0);
    /* Off: nothing is seen. */
    assert_int_equal(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    watch(MODUS_DEADLOCK_REPORT, false, NULL);
    assert_int_equal(modus_lock_acquire(&a, MODUS_FOREVER), -EDEADLK); /* as ever */
    assert_int_equal(modus_lock_release(&a), 0);
    assert_int_equal(modus_lock_release(&a), -EPERM);
    assert_int_equal(modus_lock_acquire(&a, -2), -EINVAL);
    assert_int_equal(modus_lock_try(&a), 0);
    assert_int_equal(modus_deadlock_watch(NULL), 0);
    assert_int_equal(modus_lock_release(&a), 0);
    assert_int_equal(atomic_load(&stage->reports), 0);
    struct modus_deadlock_stats stats = modus_deadlock_stats();
    assert_int_equal(stats.cycles + stats.orders + stats.untracked, 0);
}

/* Two threads, two locks, the other way round: one is refused and the program ends. The report names
 * both threads, both locks, and the four places. */
static void test_two_threads(void **state)
{
    struct pair pairs[2] = {{&a, &b, 0, 2}, {&b, &a, 1, 2}};
    (void)state;

    for (int i = 0; i < 20; i++) {
        forget_reports();
        watch(MODUS_DEADLOCK_REFUSE, false, NULL);
        struct modus_thread *one = start_named("one", take_both, &pairs[0]);
        struct modus_thread *two = start_named("two", take_both, &pairs[1]);
        finish_named(one);
        finish_named(two);
        int refused = (stage->results[0] == -EDEADLK) + (stage->results[1] == -EDEADLK);
        assert_int_equal(refused, 1);
        assert_int_equal(stage->results[0] + stage->results[1], -EDEADLK);
        assert_int_equal(atomic_load(&stage->reports), 1);
        assert_true(told("2 threads wait for each other; the first is refused"));
        assert_true(told("\"one\"") && told("\"two\""));
        assert_int_equal(count_of("waits for lock"), 2);
        assert_int_equal(count_of("holds lock"), 2);
        assert_int_equal(count_of("\"A\""), 2);
        assert_int_equal(count_of("\"B\""), 2);
        assert_int_equal(count_of(" at "), 4);
        assert_int_equal(count_of("+0x"), 4);
        assert_int_equal(modus_deadlock_stats().cycles, 1);
        assert_true(modus_lock_try(&a) == 0 && modus_lock_try(&b) == 0);
        assert_true(modus_lock_release(&a) == 0 && modus_lock_release(&b) == 0);
        modus_deadlock_watch(NULL);
    }
}

static void test_three_threads(void **state)
{
    struct pair pairs[3] = {{&a, &b, 0, 3}, {&b, &c, 1, 3}, {&c, &a, 2, 3}};
    struct modus_thread *threads[3];
    (void)state;

    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    for (int i = 0; i < 3; i++)
        threads[i] = start_named("worker", take_both, &pairs[i]);
    for (int i = 0; i < 3; i++)
        finish_named(threads[i]);
    assert_int_equal(stage->results[0] + stage->results[1] + stage->results[2], -EDEADLK);
    assert_true(told("3 threads wait for each other"));
    assert_int_equal(count_of("holds lock"), 3);
}

static int deadlock_for_ever(void *argument)
{
    struct pair pairs[2] = {{&a, &b, 0, 2}, {&b, &a, 1, 2}};

    (void)argument;
    watch(MODUS_DEADLOCK_REPORT, false, NULL);
    struct modus_thread *one = start_named("one", take_both, &pairs[0]);
    take_both(&pairs[1]);
    finish_named(one);
    return 1;
}

/* Only reported: they wait on. */
static void test_report_only(void **state)
{
    (void)state;
    pid_t child = start_child(deadlock_for_ever, NULL);
    AWAIT(atomic_load(&stage->reports) == 1);
    usleep(20000);
    kill_child(child);
    assert_true(told("deadlock: 2 threads wait for each other\n"));
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_int_equal(count_of("waits for lock"), 2);
}

static void *take_a_then_b(void *argument)
{
    (void)argument;
    CHECK_INT(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    atomic_store(&stage->tids[0], gettid());
    CHECK_INT(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(&b), 0);
    CHECK_INT(modus_lock_release(&a), 0);
    return NULL;
}

/* Waits that end, and tries, are none. */
static void test_time_is_no_deadlock(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    assert_int_equal(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    struct modus_thread *other = start_named("other", take_a_then_b, NULL);
    AWAIT(atomic_load(&stage->tids[0]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[0]));
    assert_int_equal(modus_lock_try(&a), -EAGAIN);
    assert_int_equal(modus_lock_acquire(&a, modus_ms(5)), -ETIMEDOUT);
    assert_int_equal(modus_lock_acquire_until(&a, 1), -ETIMEDOUT);
    assert_int_equal(atomic_load(&stage->reports), 0);
    assert_int_equal(modus_lock_acquire(&a, MODUS_FOREVER), -EDEADLK);
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_int_equal(modus_lock_acquire_until(&a, MODUS_FOREVER), -EDEADLK); /* each time */
    assert_int_equal(modus_lock_release(&b), 0);
    finish_named(other);
}

static void *take_a_then_b_for_a_while(void *argument)
{
    (void)argument;
    CHECK_INT(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    atomic_store(&stage->tids[0], gettid());
    CHECK_INT(modus_lock_acquire(&b, modus_ms(50)), -ETIMEDOUT);
    CHECK_INT(modus_lock_release(&a), 0);
    return NULL;
}

/* Nor is a wait for one whose own wait ends. */
static void test_others_time_is_no_deadlock(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    assert_int_equal(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    struct modus_thread *other = start_named("other", take_a_then_b_for_a_while, NULL);
    AWAIT(atomic_load(&stage->tids[0]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[0]));
    assert_int_equal(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_release(&a), 0);
    assert_int_equal(modus_lock_release(&b), 0);
    finish_named(other);
    assert_int_equal(atomic_load(&stage->reports), 0);
}

/* A recursive lock is one of them: its recursion goes on, a refusal is not taken for it. */
static void *take_b_then_ra(void *argument)
{
    (void)argument;
    CHECK_INT(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    atomic_store(&stage->tids[0], gettid());
    int rc = modus_rlock_acquire(&ra, MODUS_FOREVER);
    CHECK_INT(rc, 0);
    CHECK_INT(modus_rlock_release(&ra), 0);
    CHECK_INT(modus_lock_release(&b), 0);
    return NULL;
}

static void *take_b_then_ra_refused(void *argument)
{
    (void)argument;
    CHECK_INT(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    AWAIT(atomic_load(&stage->tids[1]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[1]));
    CHECK_INT(modus_rlock_acquire(&ra, MODUS_FOREVER), -EDEADLK);
    CHECK_INT(modus_rlock_depth(&ra), 0);
    CHECK_INT(modus_rlock_release(&ra), -EPERM);
    CHECK_INT(modus_lock_release(&b), 0);
    return NULL;
}

static void test_rlock(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REFUSE, true, NULL);
    assert_int_equal(modus_rlock_acquire(&ra, MODUS_FOREVER), 0);
    assert_int_equal(modus_rlock_acquire(&ra, MODUS_FOREVER), 0);
    struct modus_thread *other = start_named("other", take_b_then_ra, NULL);
    AWAIT(atomic_load(&stage->tids[0]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[0]));
    assert_int_equal(modus_lock_acquire(&b, MODUS_FOREVER), -EDEADLK);
    assert_int_equal(modus_rlock_try(&ra), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_rlock_release(&ra), 0);
    finish_named(other);
    assert_int_equal(modus_deadlock_stats().cycles, 1);

    other = start_named("other", take_b_then_ra_refused, NULL);
    assert_int_equal(modus_rlock_acquire(&ra, MODUS_FOREVER), 0);
    AWAIT(modus_lock_try(&b) == -EAGAIN || (modus_lock_release(&b), false));
    atomic_store(&stage->tids[1], gettid());
    assert_int_equal(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_release(&b), 0);
    assert_int_equal(modus_rlock_release(&ra), 0);
    finish_named(other);
}

static void *write_once(void *argument)
{
    (void)argument;
    atomic_store(&stage->tids[0], gettid());
    CHECK_INT(modus_rwlock_write(&rw, MODUS_FOREVER), 0);
    CHECK_INT(modus_rwlock_release(&rw), 0);
    return NULL;
}

static void *read_then_a(void *argument)
{
    (void)argument;
    CHECK_INT(modus_rwlock_read(&rw, MODUS_FOREVER), 0);
    atomic_store(&stage->tids[1], gettid());
    CHECK_INT(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(&a), 0);
    CHECK_INT(modus_rwlock_release(&rw), 0);
    return NULL;
}

/* A reader that reads once more behind a waiting writer, one that wants to write, and a writer that
 * waits for a reader that waits for it. */
static void test_rwlock(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    CHECK_INT(modus_deadlock_name(&rw, "table"), 0);
    assert_int_equal(modus_rwlock_read(&rw, MODUS_FOREVER), 0);
    assert_int_equal(modus_rwlock_write(&rw, MODUS_FOREVER), -EDEADLK);
    assert_true(told("1 thread waits for itself"));
    assert_true(told("waits for the readers of lock"));
    assert_true(told("\"table\" for reading"));
    assert_int_equal(modus_rwlock_readers(&rw), 1);
    forget_reports();
    struct modus_thread *writer = start_named("writer", write_once, NULL);
    AWAIT(atomic_load(&stage->tids[0]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[0]));
    assert_int_equal(modus_rwlock_try_read(&rw), -EAGAIN);
    assert_int_equal(modus_rwlock_read(&rw, MODUS_FOREVER), -EDEADLK);
    assert_true(told("2 threads wait for each other") && told("\"writer\""));
    assert_int_equal(modus_rwlock_release(&rw), 0);
    finish_named(writer);

    forget_reports();
    assert_int_equal(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    struct modus_thread *reader = start_named("reader", read_then_a, NULL);
    AWAIT(atomic_load(&stage->tids[1]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[1]));
    assert_int_equal(modus_rwlock_write(&rw, MODUS_FOREVER), -EDEADLK);
    assert_true(told("\"reader\""));
    assert_int_equal(modus_lock_release(&a), 0);
    finish_named(reader);
    assert_int_equal(modus_rwlock_write(&rw, 0), 0);
    assert_int_equal(modus_rwlock_downgrade(&rw), 0);
    assert_int_equal(modus_rwlock_release(&rw), 0);
    read_dump(); /* nothing is held: all has been given up */
    assert_string_equal(stage->text, "locks held and waited for:\n");
}

/* --- what can't be refused ------------------------------------------------------------------- */

static struct modus_cond cond;

static void *wait_with_a(void *argument)
{
    (void)argument;
    CHECK_INT(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    atomic_store(&stage->tids[0], gettid());
    modus_cond_wait(&cond, MODUS_FOREVER);
    atomic_store(&stage->results[0], 1);
    return NULL;
}

static int deadlock_through_condition(void *argument)
{
    (void)argument;
    modus_cond_init(&cond, &b);
    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    start_named("waiter", wait_with_a, NULL);
    AWAIT(atomic_load(&stage->tids[0]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[0]));
    CHECK_INT(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    modus_cond_notify_all(&cond);
    modus_lock_acquire(&a, MODUS_FOREVER); /* refused, or the waiter is told of it */
    if (atomic_load(&stage->reports) > 0)
        return 0;
    return 1;
}

/* A wait at a condition owns its lock when it returns: it says what is wrong, but waits on. */
static void test_condition(void **state)
{
    (void)state;
    pid_t child = start_child(deadlock_through_condition, NULL);
    AWAIT(atomic_load(&stage->reports) == 1);
    if (told("refused")) {
        assert_int_equal(reap(child), 0);
    } else {
        usleep(10000);
        kill_child(child);
    }
    assert_int_equal(atomic_load(&stage->results[0]), 0);
    assert_true(told("\"waiter\""));
}

static void lock_in_report(const char *text, void *context)
{
    CHECK_INT(modus_lock_acquire(&c, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(&c), 0);
    note_report(text, context);
}

static void test_report_uses_locks(void **state)
{
    (void)state;
    assert_int_equal(
        modus_deadlock_watch(&(struct modus_deadlock_attr){
            MODUS_DEADLOCK_REFUSE, MODUS_ORDER_NO, .report = lock_in_report, .context = stage}),
        0);
    assert_int_equal(modus_rwlock_read(&rw, MODUS_FOREVER), 0);
    assert_int_equal(modus_rwlock_write(&rw, MODUS_FOREVER), -EDEADLK);
    assert_int_equal(modus_rwlock_release(&rw), 0);
    assert_int_equal(atomic_load(&stage->reports), 1);
}

/* --- processes ------------------------------------------------------------------------------- */

/* In shared memory. */
struct shared {
    struct modus_lock a, b;
    struct modus_rwlock rw;
};

static struct shared *new_shared(void)
{
    struct shared *s = modus_arena_alloc(arena, sizeof *s, 0);

    CHECK(s);
    CHECK_INT(modus_lock_init(&s->a, MODUS_PROCESS), 0);
    CHECK_INT(modus_lock_init(&s->b, MODUS_PROCESS), 0);
    CHECK_INT(modus_rwlock_init(&s->rw, MODUS_PROCESS), 0);
    return s;
}

static void end_shared(struct shared *s)
{
    modus_deadlock_watch(NULL);
    modus_lock_fini(&s->a);
    modus_lock_fini(&s->b);
    modus_rwlock_fini(&s->rw);
    modus_arena_free(arena, s, sizeof *s);
}

static int take_both_child(void *argument)
{
    take_both(argument);
    return 0;
}

static void test_processes(void **state)
{
    struct shared *s = new_shared();
    struct pair pairs[2] = {{&s->a, &s->b, 0, 2}, {&s->b, &s->a, 1, 2}};
    pid_t children[2];
    char words[2][64];
    (void)state;

    watch(MODUS_DEADLOCK_REFUSE, false, arena);
    for (int i = 0; i < 2; i++) {
        children[i] = start_child(take_both_child, &pairs[i]);
        snprintf(words[i], sizeof words[i], "(pid %d, tid %d)", children[i], children[i]);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(reap(children[i]), 0);
    assert_int_equal(stage->results[0] + stage->results[1], -EDEADLK);
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_true(told(words[0]) && told(words[1]));
    assert_int_equal(modus_deadlock_stats().cycles, 1);
    end_shared(s);
}

#define LONG_NAME "clerk of the third of the four counters on the right"

/* All of them are "MainThread": it is the process that tells them apart. */
static void test_names_of_processes(void **state)
{
    struct shared *s = new_shared();
    struct pair pairs[2] = {{&s->a, &s->b, 0, 2}, {&s->b, &s->a, 1, 2}};
    struct modus_process *child;
    (void)state;

    watch(MODUS_DEADLOCK_REFUSE, false, arena);
    assert_int_equal(modus_process_new(&child, &(struct modus_process_attr){.name = LONG_NAME},
                                       take_both_child, &pairs[0]),
                     0);
    assert_int_equal(modus_process_start(child), 0);
    take_both(&pairs[1]);
    assert_int_equal(modus_process_join(child, MODUS_FOREVER, NULL), 0);
    modus_process_put(child);
    assert_true(told("thread \"MainThread\" of \"clerk of the third of the four co\" (pid "));
    assert_true(told("thread \"MainThread\" (pid "));
    end_shared(s);
}

static int hold_and_wait(void *argument)
{
    struct shared *s = argument;

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_rwlock_read(&s->rw, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_acquire(&s->b, MODUS_FOREVER), 0);
    atomic_store(&stage->tids[0], gettid());
    modus_lock_acquire(&s->a, MODUS_FOREVER);
    return 1;
}

static int inherit_and_hold(void *argument)
{
    struct shared *s = argument;

    CHECK_INT(modus_lock_acquire(&s->b, MODUS_FOREVER), MODUS_OWNERDEAD);
    CHECK_INT(modus_lock_consistent(&s->b), 0);
    atomic_store(&stage->tids[1], gettid());
    AWAIT(atomic_load(&stage->go));
    CHECK_INT(modus_lock_release(&s->b), 0);
    return 0;
}

/* A dead one that waits for us, as its record says, and holds what we wait for: no cycle. */
static void test_killed(void **state)
{
    struct shared *s = new_shared();
    (void)state;

    watch(MODUS_DEADLOCK_REFUSE, false, arena);
    assert_int_equal(modus_lock_acquire(&s->a, MODUS_FOREVER), 0);
    pid_t victim = start_child(hold_and_wait, s);
    AWAIT(atomic_load(&stage->tids[0]));
    AWAIT_ASLEEP(victim);
    assert_int_equal(modus_rwlock_write(&s->rw, MODUS_FOREVER), -EDEADLK); /* as long as it lives */
    kill(victim, SIGKILL);
    AWAIT(state_of(victim) == 'Z'); /* not yet reaped */
    assert_int_equal(modus_rwlock_write(&s->rw, MODUS_FOREVER), 0);
    assert_int_equal(modus_rwlock_release(&s->rw), 0);
    assert_int_equal(reap(victim), -SIGKILL);
    modus_participant_bury(arena, victim);
    pid_t heir = start_child(inherit_and_hold, s);
    AWAIT(atomic_load(&stage->tids[1]));
    assert_int_equal(modus_lock_acquire(&s->b, modus_ms(2)), -ETIMEDOUT);
    atomic_store(&stage->go, true);
    assert_int_equal(modus_lock_acquire(&s->b, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_release(&s->b), 0);
    assert_int_equal(modus_lock_release(&s->a), 0);
    assert_int_equal(reap(heir), 0);
    assert_int_equal(atomic_load(&stage->reports), 1);
    end_shared(s);
}

/* Once it is switched off nothing is left of it in the arena, which may be closed, and another one be
 * opened at the same address. */
static void test_arena_is_closed(void **state)
{
    enum { BYTES = 1 << 20, BLOCK = 200000 };
    struct modus_arena *one, *two;
    (void)state;

    assert_int_equal(modus_arena_open(&one, BYTES, 4), 0);
    watch(MODUS_DEADLOCK_REFUSE, false, one);
    assert_int_equal(modus_deadlock_watch(NULL), 0);
    assert_int_equal(modus_arena_close(one), 0);
    assert_int_equal(modus_deadlock_stats().cycles, 0);
    modus_deadlock_dump(-1);
    assert_int_equal(modus_arena_open(&two, BYTES, 4), 0);
    unsigned char *block = modus_arena_alloc(two, BLOCK, 0);
    memset(block, 0x5a, BLOCK);
    watch(MODUS_DEADLOCK_REFUSE, false, two);
    for (int i = 0; i < BLOCK; i++)
        assert_int_equal(block[i], 0x5a);
    size_t left = modus_arena_untouched(two);
    assert_int_equal(modus_deadlock_watch(NULL), 0);
    watch(MODUS_DEADLOCK_REFUSE, false, two); /* its table is used again */
    assert_int_equal(modus_arena_untouched(two), left);
    assert_int_equal(modus_deadlock_watch(NULL), 0);
    assert_int_equal(modus_arena_close(two), 0);
}

static int die_holding(void *argument)
{
    CHECK_INT(modus_lock_acquire(argument, MODUS_FOREVER), 0);
    raise(SIGKILL);
    return 0;
}

static int die_claiming(void *argument)
{
    modus_fault_plan(MODUS_FAULT_ACTOR_CLAIMED, MODUS_FAULT_DIE, 1);
    CHECK_INT(modus_lock_acquire(argument, MODUS_FOREVER), 0);
    return 0;
}

/* The records of the dead make room for the living, also those that they had only begun to make. */
static void test_many_killed(void **state)
{
    enum { MANY = 300 };
    struct modus_lock *locks = modus_arena_alloc(arena, MANY * sizeof *locks, 0);
    (void)state;

    for (int claiming = 0; claiming < 2; claiming++) {
        watch(MODUS_DEADLOCK_REFUSE, false, arena);
        for (int i = 0; i < MANY; i++) {
            assert_int_equal(modus_lock_init(&locks[i], MODUS_PROCESS), 0);
            assert_int_equal(reap(start_child(claiming ? die_claiming : die_holding, &locks[i])),
                             -SIGKILL);
        }
        assert_int_equal(modus_deadlock_stats().untracked, 0);
        modus_deadlock_watch(NULL);
    }
    modus_arena_free(arena, locks, MANY * sizeof *locks);
}

static void *end_holding(void *argument)
{
    CHECK_INT(modus_lock_acquire(argument, MODUS_FOREVER), 0);
    return NULL;
}

/* What a thread held when it ended is its heir's. */
static void test_inherited(void **state)
{
    struct shared *s = new_shared();
    (void)state;

    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    join_thread(start_thread(end_holding, &s->a));
    read_dump();
    assert_int_equal(count_of("holds lock"), 1);
    assert_int_equal(modus_lock_acquire(&s->a, MODUS_FOREVER), MODUS_OWNERDEAD);
    read_dump();
    assert_int_equal(count_of("holds lock"), 1);
    assert_true(told("\"MainThread\""));
    assert_int_equal(modus_lock_consistent(&s->a), 0);
    assert_int_equal(modus_lock_release(&s->a), 0);
    read_dump();
    assert_string_equal(stage->text, "locks held and waited for:\n");
    end_shared(s);
}

static int deadlock_in_child(void *argument)
{
    struct pair pairs[2] = {{&a, &b, 0, 2}, {&b, &a, 1, 2}};

    (void)argument;
    atomic_store(&stage->steps, 0);
    struct modus_thread *one = start_named("child", take_both, &pairs[0]);
    take_both(&pairs[1]);
    finish_named(one);
    CHECK_INT(stage->results[0] + stage->results[1], -EDEADLK);
    CHECK(modus_deadlock_stats().cycles == 1);
    return 0;
}

/* Without an arena the child has a graph of its own, in which its parent does not occur. */
static void test_fork(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    assert_int_equal(modus_lock_acquire(&c, MODUS_FOREVER), 0);
    assert_int_equal(reap(start_child(deadlock_in_child, NULL)), 0);
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_int_equal(modus_deadlock_stats().cycles, 0);
    assert_int_equal(modus_lock_release(&c), 0);
}

/* --- coroutines ------------------------------------------------------------------------------ */

static int co_take_both(void *argument)
{
    struct pair *p = argument;

    CHECK_INT(modus_lock_acquire(p->first, MODUS_FOREVER), 0);
    CHECK_INT(modus_co_yield(), 0);
    int rc = modus_lock_acquire(p->second, MODUS_FOREVER);
    atomic_store(&stage->results[p->number], rc);
    if (rc == 0)
        CHECK_INT(modus_lock_release(p->second), 0);
    CHECK_INT(modus_lock_release(p->first), 0);
    return 0;
}

static int co_main(void *argument)
{
    struct pair *pairs = argument;
    struct modus_co_attr left = {.name = "left"}, right = {.name = "right"};

    CHECK_INT(modus_co_start(NULL, &left, co_take_both, &pairs[0]), 0);
    CHECK_INT(modus_co_start(NULL, &right, co_take_both, &pairs[1]), 0);
    return 0;
}

static void test_coroutines(void **state)
{
    struct pair pairs[2] = {{&a, &b, 0, 2}, {&b, &a, 1, 2}};
    (void)state;

    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    assert_int_equal(modus_co_run(co_main, pairs), 0);
    assert_int_equal(stage->results[0] + stage->results[1], -EDEADLK);
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_true(told("2 coroutines and threads wait for each other"));
    assert_true(told("coroutine \"left\" (pid") && told("coroutine \"right\" (pid"));
}

/* --- order ----------------------------------------------------------------------------------- */

static void nest(struct modus_lock *outer, struct modus_lock *inner)
{
    assert_int_equal(modus_lock_acquire(outer, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_acquire(inner, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_release(inner), 0);
    assert_int_equal(modus_lock_release(outer), 0);
}

static void *nest_a_b(void *argument)
{
    (void)argument;
    nest(&a, &b);
    return NULL;
}

/* Nothing hangs, at no time do two threads run. */
static void test_order(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REFUSE, true, NULL);
    finish_named(start_named("earlier", nest_a_b, NULL));
    assert_int_equal(atomic_load(&stage->reports), 0);
    assert_int_equal(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_try(&a), 0); /* a try waits for nobody */
    assert_int_equal(modus_lock_release(&a), 0);
    assert_int_equal(atomic_load(&stage->reports), 0);
    assert_int_equal(modus_lock_release(&b), 0);
    nest(&b, &a);
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_true(told("wrong order of locks"));
    assert_true(told("\"earlier\"") && told("\"MainThread\""));
    assert_int_equal(count_of("\"A\""), 2);
    assert_int_equal(count_of("\"B\""), 2);
    assert_int_equal(count_of(" at "), 4);
    nest(&b, &a); /* once is enough */
    nest(&a, &b);
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_int_equal(modus_deadlock_stats().orders, 1);
    assert_int_equal(modus_deadlock_stats().cycles, 0);
}

/* A longer way round; the recursive and the readers-writer lock are on it. */
static void test_order_of_three(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REPORT, true, NULL);
    nest(&a, &b);
    assert_int_equal(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    assert_int_equal(modus_rlock_acquire(&ra, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_acquire(&c, MODUS_FOREVER), 0);
    assert_int_equal(modus_rlock_acquire(&ra, MODUS_FOREVER), 0); /* recursion is no order */
    assert_int_equal(modus_rlock_release(&ra), 0);
    assert_int_equal(modus_lock_release(&c), 0);
    assert_int_equal(modus_rlock_release(&ra), 0);
    assert_int_equal(modus_lock_release(&b), 0);
    assert_int_equal(modus_rlock_acquire(&ra, MODUS_FOREVER), 0);
    assert_int_equal(modus_rwlock_read(&rw, MODUS_FOREVER), 0);
    assert_int_equal(modus_rwlock_release(&rw), 0);
    assert_int_equal(modus_rlock_release(&ra), 0);
    assert_int_equal(atomic_load(&stage->reports), 0);
    assert_int_equal(modus_rwlock_write(&rw, MODUS_FOREVER), 0);
    assert_int_equal(modus_lock_acquire(&a, MODUS_FOREVER), 0);
    assert_int_equal(atomic_load(&stage->reports), 1);
    assert_int_equal(count_of("before:"), 3);
    assert_int_equal(modus_lock_release(&a), 0);
    assert_int_equal(modus_rwlock_release(&rw), 0);
}

/* Locks of one name are a class; two of a class have an order of their own. */
static void test_order_of_classes(void **state)
{
    struct modus_lock accounts[3] = {MODUS_LOCK_INIT, MODUS_LOCK_INIT, MODUS_LOCK_INIT};
    static const char name[] = "account";
    (void)state;

    watch(MODUS_DEADLOCK_REPORT, true, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_deadlock_name(&accounts[i], name), 0);
    nest(&a, &accounts[0]);
    assert_int_equal(atomic_load(&stage->reports), 0);
    nest(&accounts[1], &a); /* another account, but an account */
    assert_int_equal(atomic_load(&stage->reports), 1);
    nest(&accounts[0], &accounts[1]);
    nest(&accounts[1], &accounts[2]);
    assert_int_equal(atomic_load(&stage->reports), 1);
    nest(&accounts[2], &accounts[0]);
    assert_int_equal(atomic_load(&stage->reports), 2);
    for (int i = 0; i < 3; i++)
        modus_lock_fini(&accounts[i]);
}

/* What was known of a lock ends with it. */
static void test_order_is_forgotten(void **state)
{
    (void)state;
    watch(MODUS_DEADLOCK_REPORT, true, NULL);
    assert_int_equal(modus_deadlock_name(&a, NULL), 0);
    nest(&a, &b);
    modus_lock_fini(&a);
    assert_int_equal(modus_lock_init(&a, MODUS_THREAD), 0);
    nest(&b, &a);
    assert_int_equal(atomic_load(&stage->reports), 0);
}

/* More than there is room for is counted, and works. */
static void test_untracked(void **state)
{
    static struct modus_lock many[20];
    (void)state;

    for (int i = 0; i < 20; i++)
        modus_lock_init(&many[i], MODUS_THREAD);
    watch(MODUS_DEADLOCK_REFUSE, false, NULL);
    for (int i = 0; i < 20; i++)
        assert_int_equal(modus_lock_acquire(&many[i], MODUS_FOREVER), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(modus_lock_release(&many[i]), 0);
    assert_int_equal(modus_deadlock_stats().untracked, 4);
    assert_int_equal(atomic_load(&stage->reports), 0);
}

/* --- dump ------------------------------------------------------------------------------------ */

static int dump_fd;

static void on_quit(int signal)
{
    (void)signal;
    modus_deadlock_dump(dump_fd);
}

/* From a signal handler, in a thread that holds a lock, with another that waits for it. */
static void test_dump(void **state)
{
    FILE *file = tmpfile();
    struct sigaction old, act = {.sa_handler = on_quit};
    (void)state;

    dump_fd = fileno(file);
    watch(MODUS_DEADLOCK_REPORT, false, NULL);
    assert_int_equal(modus_lock_acquire(&b, MODUS_FOREVER), 0);
    assert_int_equal(modus_rwlock_read(&rw, MODUS_FOREVER), 0);
    struct modus_thread *other = start_named("other", take_a_then_b, NULL);
    AWAIT(atomic_load(&stage->tids[0]));
    AWAIT_ASLEEP(atomic_load(&stage->tids[0]));
    sigaction(SIGQUIT, &act, &old);
    raise(SIGQUIT);
    sigaction(SIGQUIT, &old, NULL);
    assert_int_equal(modus_rwlock_release(&rw), 0);
    assert_int_equal(modus_lock_release(&b), 0);
    finish_named(other);
    assert_int_equal(modus_deadlock_watch(NULL), 0);
    modus_deadlock_dump(dump_fd);
    rewind(file);
    stage->text[fread(stage->text, 1, TEXT - 1, file)] = 0;
    fclose(file);
    assert_true(told("thread \"MainThread\"") && told("thread \"other\""));
    assert_int_equal(count_of("holds lock"), 3);
    assert_int_equal(count_of("for reading since 0."), 1);
    assert_int_equal(count_of("waits for lock"), 1);
    assert_int_equal(count_of("\"B\" since 0."), 2);
    assert_true(told("the detector is off"));
    assert_true(told(" at " PROGRAM "+0x")); /* of which addr2line knows */
}

static int open_arena(void **state)
{
    (void)state;
    stage = mmap(NULL, sizeof *stage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (stage == MAP_FAILED || modus_arena_open(&arena, 1 << 24, 16) < 0)
        return -1;
    return modus_participant_join(arena) > 0 ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_test, end_test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),
        TEST(test_two_threads),
        TEST(test_three_threads),
        TEST(test_report_only),
        TEST(test_time_is_no_deadlock),
        TEST(test_others_time_is_no_deadlock),
        TEST(test_rlock),
        TEST(test_rwlock),
        TEST(test_condition),
        TEST(test_report_uses_locks),
        TEST(test_processes),
        TEST(test_names_of_processes),
        TEST(test_killed),
        TEST(test_arena_is_closed),
        TEST(test_many_killed),
        TEST(test_inherited),
        TEST(test_fork),
        TEST(test_coroutines),
        TEST(test_order),
        TEST(test_order_of_three),
        TEST(test_order_of_classes),
        TEST(test_order_is_forgotten),
        TEST(test_untracked),
        TEST(test_dump),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
