/* SPDX-License-Identifier: MIT */
/* The event: flag, times, pulses, between threads and processes, with a setter that dies. */
#include "test_concurrency.h"

#include "concurrency/event.h"
#include "concurrency/fault.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"

static enum modus_scope both_scopes[] = {MODUS_THREAD, MODUS_PROCESS};
static struct modus_arena *arena;

static void test_not_started(void **state)
{
    struct modus_event event = {0};
    struct modus_doorbell bell = {0};
    (void)state;

    modus_event_set(&event);
    assert_false(modus_event_is_set(&event));
    modus_event_clear(&event);
    assert_int_equal(modus_event_wait(&event, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_event_wait_until(&event, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_event_arm(&event, &bell), -EINVAL);
    modus_event_disarm(&event, &bell);
    modus_event_fini(&event);
    assert_int_equal(modus_event_init(&event, (enum modus_scope)0), -EINVAL);
}

static void test_flag_and_times(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct modus_event *event = modus_arena_alloc(arena, sizeof *event, 0);

        assert_int_equal(modus_event_init(event, both_scopes[i]), 0);
        assert_int_equal(modus_event_wait(event, -7), -EINVAL);
        assert_int_equal(modus_event_wait_until(event, -7), -EINVAL);
        assert_int_equal(modus_event_wait(event, 0), -EAGAIN);
        int64_t start = modus_now_ns();
        assert_int_equal(modus_event_wait(event, modus_ms(20)), -ETIMEDOUT);
        assert_true(modus_now_ns() - start >= modus_ms(20));
        assert_int_equal(modus_event_wait_until(event, 1), -ETIMEDOUT);
        modus_event_set(event);
        modus_event_set(event);
        assert_true(modus_event_is_set(event));
        assert_int_equal(modus_event_wait(event, 0), 0);
        assert_int_equal(modus_event_wait_until(event, 1), 0);
        assert_int_equal(modus_event_wait(event, MODUS_FOREVER), 0);
        modus_event_clear(event);
        assert_false(modus_event_is_set(event));
        assert_int_equal(modus_event_wait(event, 0), -EAGAIN);
        modus_event_fini(event);
        assert_int_equal(modus_event_wait(event, 0), -EINVAL);
    }
}

struct waiting {
    struct modus_event *event;
    _Atomic int tid;
    _Atomic int result;
};

static void *wait_for_event(void *argument)
{
    struct waiting *waiting = argument;

    atomic_store(&waiting->tid, gettid());
    atomic_store(&waiting->result, modus_event_wait(waiting->event, modus_seconds(20)));
    return NULL;
}

/* Must hold: a set that is cleared before any sleeper has run still lets all of them go. */
static void test_pulse(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int round = 0; round < 20; round++) {
            struct modus_event *event = modus_arena_alloc(arena, sizeof *event, 0);
            struct waiting waiting[3];
            pthread_t threads[3];

            assert_int_equal(modus_event_init(event, both_scopes[i]), 0);
            for (int t = 0; t < 3; t++) {
                waiting[t] = (struct waiting){.event = event, .result = 1};
                threads[t] = start_thread(wait_for_event, &waiting[t]);
                AWAIT(atomic_load(&waiting[t].tid));
                AWAIT_ASLEEP(atomic_load(&waiting[t].tid));
            }
            modus_event_set(event);
            modus_event_clear(event);
            for (int t = 0; t < 3; t++) {
                join_thread(threads[t]);
                assert_int_equal(waiting[t].result, 0);
            }
            assert_false(modus_event_is_set(event));
            modus_event_fini(event);
        }
}

struct rally {
    struct modus_event there, back;
    long balls;
};

static int return_balls(void *argument)
{
    struct rally *rally = argument;

    for (long i = 0; i < rally->balls; i++) {
        CHECK_INT(modus_event_wait(&rally->there, MODUS_FOREVER), 0);
        modus_event_clear(&rally->there);
        modus_event_set(&rally->back);
    }
    return 0;
}

static void *return_balls_thread(void *argument)
{
    return_balls(argument);
    return NULL;
}

static void play(struct rally *rally)
{
    for (long i = 0; i < rally->balls; i++) {
        modus_event_set(&rally->there);
        CHECK_INT(modus_event_wait(&rally->back, MODUS_FOREVER), 0);
        modus_event_clear(&rally->back);
    }
}

/* Provokes: set against a waiter at every stage of going to sleep. A lost wake-up hangs. */
static void test_rally(void **state)
{
    struct rally *rally = modus_arena_alloc(arena, sizeof *rally, 0);
    (void)state;

    rally->balls = SLOW ? 2000 : 20000;
    modus_event_init(&rally->there, MODUS_PROCESS);
    modus_event_init(&rally->back, MODUS_PROCESS);
    pid_t pid = start_child(return_balls, rally);
    play(rally);
    assert_int_equal(reap(pid), 0);
    modus_event_init(&rally->there, MODUS_THREAD);
    modus_event_init(&rally->back, MODUS_THREAD);
    pthread_t thread = start_thread(return_balls_thread, rally);
    play(rally);
    join_thread(thread);
}

/* Nobody waits: setting costs no system call. */
static void test_quiet_set(void **state)
{
    struct modus_event event = MODUS_EVENT_INIT;
    (void)state;

    uint64_t before = modus_park_stats().unparks;
    for (int i = 0; i < 100; i++) {
        modus_event_set(&event);
        modus_event_clear(&event);
    }
    assert_int_equal(modus_park_stats().unparks, before);
}

static int wait_in_child(void *event)
{
    return -modus_event_wait(event, modus_seconds(20));
}

static int die_setting(void *event)
{
    modus_fault_plan(MODUS_FAULT_EVENT_SET, MODUS_FAULT_DIE, 1);
    modus_event_set(event);
    return 0;
}

/* The setter is killed between the flag and the wake-up; burying wakes those who sleep. Without the
 * watch on the death epoch they would sleep 20 s. */
static void test_setter_dies(void **state)
{
    struct modus_event *event = modus_arena_alloc(arena, sizeof *event, 0);
    (void)state;

    assert_int_equal(modus_event_init(event, MODUS_PROCESS), 0);
    pid_t sleeper = start_child(wait_in_child, event);
    AWAIT_ASLEEP(sleeper);
    pid_t setter = start_child(die_setting, event);
    assert_int_equal(reap(setter), -SIGKILL);
    int64_t start = modus_now_ns();
    assert_int_equal(modus_participant_bury(arena, setter), 0);
    assert_int_equal(reap(sleeper), 0);
    assert_true(modus_now_ns() - start < modus_seconds(5));
}

/* A killed sleeper changes nothing for the others. */
static void test_sleeper_dies(void **state)
{
    struct modus_event *event = modus_arena_alloc(arena, sizeof *event, 0);
    pid_t pids[3];
    (void)state;

    assert_int_equal(modus_event_init(event, MODUS_PROCESS), 0);
    for (int i = 0; i < 3; i++) {
        pids[i] = start_child(wait_in_child, event);
        AWAIT_ASLEEP(pids[i]);
    }
    kill_child(pids[1]);
    modus_event_set(event);
    assert_int_equal(reap(pids[0]), 0);
    assert_int_equal(reap(pids[2]), 0);
}

static void ignore(int signo)
{
    (void)signo;
}

struct patient {
    enum modus_scope scope;
    _Atomic int done;
};

/* Every wait of the toolbox, 20 ms each. */
static void *be_patient(void *argument)
{
    struct patient *patient = argument;
    enum modus_scope scope = patient->scope;
    struct modus_event *event = modus_arena_alloc(arena, sizeof *event, 0);
    struct modus_sem *sem = modus_arena_alloc(arena, sizeof *sem, 0);
    struct modus_queue queue;
    struct modus_queue_attr attr = {
        .scope = scope, .arena = arena, .capacity = 1, .item_size = 1, .joinable = true};
    char item = 0;

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_event_init(event, scope), 0);
    CHECK_INT(modus_sem_init(sem, &(struct modus_sem_attr){.scope = scope}), 0);
    CHECK_INT(modus_queue_init(&queue, &attr), 0);
    int64_t start = modus_now_ns();
    CHECK_INT(modus_event_wait(event, modus_ms(20)), -ETIMEDOUT);
    CHECK_INT(modus_sem_acquire(sem, modus_ms(20)), -ETIMEDOUT);
    CHECK_INT(modus_queue_get(&queue, &item, modus_ms(20)), -ETIMEDOUT);
    CHECK_INT(modus_queue_put(&queue, &item, 0), 0);
    CHECK_INT(modus_queue_put(&queue, &item, modus_ms(20)), -ETIMEDOUT);
    CHECK_INT(modus_queue_join(&queue, modus_ms(20)), -ETIMEDOUT);
    CHECK(modus_now_ns() - start >= modus_ms(100));
    atomic_store(&patient->done, 1);
    modus_queue_fini(&queue);
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

/* A storm of signals neither ends a wait early nor shows in its result. */
static void test_signals_do_not_surface(void **state)
{
    struct sigaction action = {.sa_handler = ignore}; /* no SA_RESTART */
    (void)state;

    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 2; i++) {
        struct patient patient = {.scope = both_scopes[i]};
        pthread_t thread = start_thread(be_patient, &patient);

        while (!atomic_load(&patient.done)) {
            pthread_kill(thread, SIGUSR1);
            usleep(300);
        }
        join_thread(thread);
    }
    signal(SIGUSR1, SIG_DFL);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, (size_t)16 << 20, 8);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_not_started, watchdog),
        cmocka_unit_test_setup(test_flag_and_times, watchdog),
        cmocka_unit_test_setup(test_setter_dies, watchdog),
        cmocka_unit_test_setup(test_sleeper_dies, watchdog),
        cmocka_unit_test_setup(test_quiet_set, watchdog),
        cmocka_unit_test_setup(test_signals_do_not_surface, watchdog),
        cmocka_unit_test_setup(test_rally, watchdog),
        cmocka_unit_test_setup(test_pulse, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
