/* SPDX-License-Identifier: MIT */
/*
 * The hunter of lost wake-ups: users that wait for each other without any limit of time, so that a
 * single wake-up that is lost leaves all of them asleep, and the watchdog ends the program.
 *
 * Each primitive between threads and between processes, on all CPUs and on one, while signals
 * interrupt the waits and give the CPU away anywhere. MODUS_HUNT_SECONDS is how long in all (4
 * unless set).
 */
#include "test_concurrency.h"

#include "concurrency/barrier.h"
#include "concurrency/cond.h"
#include "concurrency/event.h"
#include "concurrency/queue.h"
#include "concurrency/rlock.h"
#include "concurrency/sem.h"

enum { USERS = 4, STEPS = SLOW ? 50 : 200, CASES = 7 };

struct hunt {
    struct modus_lock lock;
    struct modus_rlock rlock;
    struct modus_sem sem;
    struct modus_cond cond; /* of lock */
    struct modus_event events[USERS];
    struct modus_queue queue;
    struct modus_barrier barrier;
    _Atomic int inside;
    int turn; /* under lock */
    void (*step)(int user);
};

static struct modus_arena *arena;
static struct hunt *hunt;

/* --- what a user does ------------------------------------------------------------------------ */

static void lock_step(int user)
{
    CHECK_INT(modus_lock_acquire(&hunt->lock, MODUS_FOREVER), 0);
    CHECK_INT(atomic_fetch_add(&hunt->inside, 1), 0);
    if (user == 0)
        sched_yield();
    atomic_fetch_sub(&hunt->inside, 1);
    CHECK_INT(modus_lock_release(&hunt->lock), 0);
}

static void rlock_step(int user)
{
    CHECK_INT(modus_rlock_acquire(&hunt->rlock, MODUS_FOREVER), 0);
    CHECK_INT(modus_rlock_acquire(&hunt->rlock, MODUS_FOREVER), 0);
    if (user == 0)
        sched_yield();
    CHECK_INT(modus_rlock_release(&hunt->rlock), 0);
    CHECK_INT(modus_rlock_release(&hunt->rlock), 0);
}

static void sem_step(int user)
{
    CHECK_INT(modus_sem_acquire(&hunt->sem, MODUS_FOREVER), 0);
    CHECK(atomic_fetch_add(&hunt->inside, 1) < USERS / 2);
    if (user == 0)
        sched_yield();
    atomic_fetch_sub(&hunt->inside, 1);
    CHECK_INT(modus_sem_release(&hunt->sem, 1), 0);
}

/* One after the other. */
static void cond_step(int user)
{
    CHECK_INT(modus_lock_acquire(&hunt->lock, MODUS_FOREVER), 0);
    while (hunt->turn != user)
        CHECK_INT(modus_cond_wait(&hunt->cond, MODUS_FOREVER), 0);
    hunt->turn = (user + 1) % USERS;
    CHECK(modus_cond_notify_all(&hunt->cond) >= 0);
    CHECK_INT(modus_lock_release(&hunt->lock), 0);
}

/* The same with an event each; the first one's is set at the start. */
static void event_step(int user)
{
    CHECK_INT(modus_event_wait(&hunt->events[user], MODUS_FOREVER), 0);
    modus_event_clear(&hunt->events[user]);
    modus_event_set(&hunt->events[(user + 1) % USERS]);
}

static void queue_step(int user)
{
    int item = user;

    if (user % 2)
        CHECK_INT(modus_queue_put(&hunt->queue, &item, MODUS_FOREVER), 0);
    else
        CHECK_INT(modus_queue_get(&hunt->queue, &item, MODUS_FOREVER), 0);
}

static void barrier_step(int user)
{
    (void)user;
    int place = modus_barrier_wait(&hunt->barrier, MODUS_FOREVER);

    CHECK(place >= 0 && place < USERS);
}

/* --- a run ----------------------------------------------------------------------------------- */

static void use(int user)
{
    unsigned dice = (unsigned)user + (unsigned)modus_now_ns();

    for (int i = 0; i < STEPS; i++) {
        hunt->step(user);
        if (rand_r(&dice) % 64 == 0)
            usleep(1 + (useconds_t)rand_r(&dice) % 100);
    }
}

static void *use_as_thread(void *argument)
{
    use((int)(intptr_t)argument);
    return NULL;
}

static int run_threads(void *argument)
{
    pthread_t threads[USERS];

    (void)argument;
    start_storm(100);
    for (intptr_t i = 0; i < USERS; i++)
        threads[i] = start_thread(use_as_thread, (void *)i);
    for (int i = 0; i < USERS; i++)
        join_thread(threads[i]);
    return 0;
}

static int use_as_process(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    start_storm(200);
    use((int)(intptr_t)argument);
    /* Who ends without leaving is dead to a barrier; and who leaves is no party any more, so the
     * others must be through. */
    CHECK(modus_barrier_wait(&hunt->barrier, MODUS_FOREVER) >= 0);
    return modus_participant_leave(arena);
}

static void make_hunt(enum modus_scope scope)
{
    struct modus_queue_attr queue = {.scope = scope,
                                     .arena = scope == MODUS_PROCESS ? arena : NULL,
                                     .capacity = 1,
                                     .item_size = sizeof(int)};
    struct modus_sem_attr sem = {.scope = scope, .value = USERS / 2};
    struct modus_barrier_attr barrier = {.scope = scope, .parties = USERS, .arena = arena};

    memset(hunt, 0, sizeof *hunt);
    CHECK_INT(modus_lock_init(&hunt->lock, scope), 0);
    CHECK_INT(modus_rlock_init(&hunt->rlock, scope), 0);
    CHECK_INT(modus_cond_init(&hunt->cond, &hunt->lock), 0);
    CHECK_INT(modus_sem_init(&hunt->sem, &sem), 0);
    CHECK_INT(modus_queue_init(&hunt->queue, &queue), 0);
    CHECK_INT(modus_barrier_init(&hunt->barrier, &barrier), 0);
    for (int i = 0; i < USERS; i++)
        CHECK_INT(modus_event_init(&hunt->events[i], scope), 0);
    modus_event_set(&hunt->events[0]);
}

static void end_hunt(void)
{
    for (int i = 0; i < USERS; i++)
        modus_event_fini(&hunt->events[i]);
    modus_barrier_fini(&hunt->barrier);
    modus_queue_fini(&hunt->queue);
    modus_sem_fini(&hunt->sem);
    modus_cond_fini(&hunt->cond);
    modus_rlock_fini(&hunt->rlock);
    modus_lock_fini(&hunt->lock);
}

static void run_once(enum modus_scope scope, void (*step)(int user))
{
    pid_t pids[USERS];

    make_hunt(scope);
    hunt->step = step;
    if (scope == MODUS_THREAD) {
        assert_int_equal(reap(start_child(run_threads, NULL)), 0);
        return; /* its copies of what lies in private memory have gone with it */
    }
    for (intptr_t i = 0; i < USERS; i++)
        pids[i] = start_child(use_as_process, (void *)i);
    for (int i = 0; i < USERS; i++)
        assert_int_equal(reap(pids[i]), 0);
}

static void stay_on(const cpu_set_t *cpus)
{
    CHECK_INT(sched_setaffinity(0, sizeof *cpus, cpus), 0);
}

static void go_hunting(enum modus_scope scope)
{
    static void (*const steps[CASES])(int user) = {lock_step,  rlock_step, sem_step,    cond_step,
                                                   event_step, queue_step, barrier_step};
    const char *seconds = getenv("MODUS_HUNT_SECONDS");
    int64_t slice = (int64_t)((seconds ? atof(seconds) : 4) * 1e9) / (2 * 2 * CASES);
    cpu_set_t all, one;

    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    for (int i = 0; i < 2 * CASES; i++) {
        int64_t until = modus_deadline(slice);

        stay_on(i % 2 ? &one : &all);
        do {
            alarm(WATCHDOG_SECONDS);
            run_once(scope, steps[i / 2]);
            end_hunt();
        } while (modus_now_ns() < until);
    }
    stay_on(&all);
}

static void test_threads(void **state)
{
    (void)state;
    go_hunting(MODUS_THREAD);
}

static void test_processes(void **state)
{
    (void)state;
    go_hunting(MODUS_PROCESS);
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)16 << 20, USERS + 1) < 0)
        return -1;
    hunt = modus_arena_alloc(arena, sizeof *hunt, 0);
    return hunt ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_threads, watchdog),
        cmocka_unit_test_setup(test_processes, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
