/* SPDX-License-Identifier: MIT */
/* Coroutines and what they stand on: contexts, stacks, timers, the lot; and that the toolbox's
 * objects of thread scope let coroutines wait as they let threads. */
#include "test_concurrency_co.h"

#include "concurrency/barrier.h"
#include "concurrency/cond.h"
#include "concurrency/context.h"
#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "concurrency/lot.h"
#include "concurrency/park.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"
#include "concurrency/stack.h"
#include "concurrency/thread.h"
#include "concurrency/timers.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* --- contexts and stacks ---------------------------------------------------------------------- */

static struct modus_context outside, inside;
static int turns;

/* Locals of nested frames are there after each switch. */
static int down(int depth)
{
    volatile int local = depth * 3;

    turns++;
    modus_context_switch(&inside, &outside);
    int below = depth > 0 ? down(depth - 1) : 0;
    CHECK_INT(local, depth * 3);
    return below + local;
}

static void dive(void *argument)
{
    *(int *)argument = down(10);
    modus_context_leave(&inside, &outside);
}

static void test_context(void **state)
{
    struct modus_stack stack;
    (void)state;

    assert_int_equal(modus_stack_get(&stack, 0), 0);
    for (int round = 0; round < 3; round++) {
        int sum = 0;

        turns = 0;
        modus_context_make(&inside, stack.low, stack.size, dive, &sum);
        while (sum == 0) {
            modus_context_switch(&outside, &inside);
        }
        assert_int_equal(turns, 11);
        assert_int_equal(sum, 3 * 55);
        modus_context_drop(&inside);
    }
    modus_stack_put(&stack);
}

static void test_stacks(void **state)
{
    static const size_t sizes[] = {0, 1, 12288, 16384, 60 * 1024, 1 << 20};
    struct modus_stack stacks[400], none = {0};
    (void)state;

    assert_int_equal(modus_stack_get(&none, MODUS_STACK_MOST + 1), -EINVAL);
    modus_stack_put(&none);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct modus_stack stack;

        assert_int_equal(modus_stack_get(&stack, sizes[i]), 0);
        assert_true(stack.size >= sizes[i] && stack.size >= 12288);
        memset(stack.low, 1, stack.size);
        assert_int_equal(modus_stack_touched(&stack), stack.size);
        void *low = stack.low;
        modus_stack_put(&stack);
        assert_null(stack.low);
        assert_int_equal(modus_stack_get(&stack, sizes[i]), 0); /* the same one, still warm */
        assert_ptr_equal(stack.low, low);
        modus_stack_put(&stack);
    }
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 400; i++) {
            assert_int_equal(modus_stack_get(&stacks[i], 0), 0);
            *(char *)stacks[i].low = 1;
            ((char *)stacks[i].low)[stacks[i].size - 1] = 1;
        }
        for (int i = 0; i < 400; i++)
            modus_stack_put(&stacks[i]);
    }
}

static void *get_and_put(void *low)
{
    struct modus_stack stack;

    CHECK_INT(modus_stack_get(&stack, 1 << 20), 0);
    *(void **)low = stack.low;
    modus_stack_put(&stack);
    return NULL;
}

/* What a thread had when it ended is the next one's. */
static void test_stacks_outlive_threads(void **state)
{
    void *first = NULL, *second = NULL;
    (void)state;

    join_thread(start_thread(get_and_put, &first));
    join_thread(start_thread(get_and_put, &second));
    assert_non_null(first);
    assert_ptr_equal(first, second);
}

static int overflow(void *argument)
{
    struct modus_stack stack;

    CHECK_INT(modus_stack_get(&stack, 0), 0);
    signal(SIGSEGV, SIG_DFL);
    ((volatile char *)stack.low)[-1] = 1; /* below it lies the guard */
    return argument != NULL;
}

static void test_stack_guard(void **state)
{
    (void)state;
    int ended = reap(start_child(overflow, NULL));
    assert_true(ended == -SIGSEGV || ended == -SIGABRT ||
                ended > 0); /* a sanitizer's way to say so */
    assert_int_not_equal(ended, 0);
}

/* --- timers ----------------------------------------------------------------------------------- */

static void test_timers(void **state)
{
    enum { COUNT = 500 };
    static struct modus_timers_entry timer[COUNT];
    struct modus_timers timers = {0};
    unsigned seed = 7;
    (void)state;

    assert_int_equal(modus_timers_next(&timers), MODUS_FOREVER);
    assert_null(modus_timers_due(&timers, INT64_MAX));
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(modus_timers_add(&timers, &timer[i], rand_r(&seed) % 1000), 0);
    for (int i = 0; i < COUNT; i += 3)
        modus_timers_remove(&timers, &timer[i]);
    for (int i = 0; i < COUNT; i += 3)
        modus_timers_remove(&timers, &timer[i]); /* again: nothing */
    for (int i = 1; i < COUNT; i += 3)
        assert_int_equal(modus_timers_add(&timers, &timer[i], rand_r(&seed) % 1000), 0);
    int64_t last = -1;
    int count = 0;
    for (struct modus_timers_entry *due; (due = modus_timers_due(&timers, 999)) != NULL; count++) {
        assert_true(due->at >= last);
        last = due->at;
        assert_int_equal(due->place, 0);
    }
    assert_int_equal(count, COUNT - (COUNT + 2) / 3);
    assert_int_equal(modus_timers_add(&timers, &timer[0], 50), 0);
    assert_null(modus_timers_due(&timers, 49));
    assert_int_equal(modus_timers_next(&timers), 50);
    assert_ptr_equal(modus_timers_due(&timers, 50), &timer[0]);
    modus_timers_fini(&timers);
}

/* --- coroutines ------------------------------------------------------------------------------- */

static int nothing(void *argument)
{
    (void)argument;
    return 5;
}

/* The number of a descriptor that was open. */
static int no_descriptor(void)
{
    int fd = dup(STDERR_FILENO);

    CHECK_INT(close(fd), 0);
    return fd;
}

static int errors(void *argument)
{
    struct modus_co *co = NULL;
    (void)argument;

    CHECK_INT(modus_co_run(nothing, NULL), -EDEADLK);
    CHECK_INT(modus_co_start(&co, NULL, NULL, NULL), -EINVAL);
    CHECK_INT(modus_co_start(&co, &(struct modus_co_attr){.stack = 1 << 30}, nothing, NULL),
              -EINVAL);
    CHECK(!co);
    CHECK_INT(modus_co_join(modus_co_self(), 0, NULL), -EDEADLK);
    CHECK_INT(modus_co_join(modus_co_self(), -2, NULL), -EINVAL);
    CHECK_INT(modus_co_sleep(-2), -EINVAL);
    CHECK_INT(modus_co_sleep_until(-2), -EINVAL);
    CHECK_INT(modus_co_wait_fd(0, 0, 0, NULL), -EINVAL);
    CHECK_INT(modus_co_wait_fd(-1, POLLIN, 0, NULL), -EINVAL);
    CHECK_INT(modus_park_fd(-1, POLLIN, MODUS_FOREVER, NULL), -EINVAL);
    CHECK_INT(modus_park_fd(no_descriptor(), POLLIN, MODUS_FOREVER, NULL), -EINVAL);
    CHECK_INT(strcmp(modus_co_name(modus_co_self()), "main"), 0);
    co = go(nothing, NULL);
    CHECK_INT(modus_co_join(co, 0, NULL), -EAGAIN);
    CHECK_INT(joined(co), 5);
    CHECK(!modus_co_cancelled());
    CHECK_INT(modus_co_start(NULL, NULL, nothing, NULL), 0);
    modus_co_put(NULL);
    return 6;
}

static void test_errors(void **state)
{
    struct modus_co *co;
    (void)state;

    assert_int_equal(modus_co_run(NULL, NULL), -EINVAL);
    assert_int_equal(modus_co_start(&co, NULL, nothing, NULL), -EPERM);
    assert_int_equal(modus_co_yield(), -EPERM);
    assert_int_equal(modus_co_wait_fd(0, POLLIN, 0, NULL), -EPERM);
    assert_int_equal(modus_park_fd(no_descriptor(), POLLIN, MODUS_FOREVER, NULL), -EINVAL);
    assert_int_equal(modus_park_fd(-1, POLLIN, modus_seconds(20), NULL), -EINVAL);
    assert_null(modus_co_self());
    assert_int_equal(modus_co_sleep(0), 0);
    assert_int_equal(modus_co_lag(NULL), 0);
    assert_int_equal(modus_co_run(errors, NULL), 6);
    assert_null(modus_co_self());
}

/* The order is that of starting, turn by turn. */
static char trace[64];

static int say_three_times(void *argument)
{
    for (int i = 0; i < 3; i++) {
        strcat(trace, argument);
        modus_co_yield();
    }
    return 0;
}

static int in_turns(void *argument)
{
    struct modus_co *co[3];
    (void)argument;

    trace[0] = 0;
    for (int i = 0; i < 3; i++)
        co[i] = go(say_three_times, (void *)(uintptr_t)(i == 0 ? "a" : i == 1 ? "b" : "c"));
    for (int i = 0; i < 3; i++)
        CHECK_INT(joined(co[i]), 0);
    CHECK_INT(strcmp(trace, "abcabcabc"), 0);
    return 0;
}

static void test_turns(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(in_turns, NULL), 0);
}

static int64_t begun;

static int sleep_until_then_say(void *argument)
{
    int64_t ms = (intptr_t)argument, now = modus_now_ns();

    CHECK_INT(modus_co_sleep_until(begun + modus_ms(ms)), 0);
    CHECK(modus_now_ns() >= begun + modus_ms(ms));
    CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    CHECK(modus_now_ns() - now >= modus_ms(1));
    snprintf(trace + strlen(trace), 8, "%d ", (int)ms);
    return 0;
}

/* By the time, not by when they came; also when all are due at once. */
static int sleepers(void *argument)
{
    static const int ms[] = {30, 10, 20, 0, 40};
    struct modus_co *co[5];
    (void)argument;

    trace[0] = 0;
    begun = modus_now_ns();
    for (int i = 0; i < 5; i++)
        co[i] = go(sleep_until_then_say, (void *)(intptr_t)ms[i]);
    for (int i = 0; i < 5; i++)
        CHECK_INT(joined(co[i]), 0);
    return 0;
}

static void test_sleep(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(sleepers, NULL), 0);
    assert_int_equal(strlen(trace), strlen("0 10 20 30 40 "));
}

/* --- the toolbox in coroutines ----------------------------------------------------------------- */

static struct modus_lock lock = MODUS_LOCK_INIT;
static struct modus_event event = MODUS_EVENT_INIT;
static struct modus_queue queue;
static struct modus_sem sem;
static int balance;

static int add(void *argument)
{
    for (int i = 0; i < 200; i++) {
        CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0);
        CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), -EDEADLK);
        int before = balance;
        if (argument)
            modus_co_yield();
        balance = before + 1;
        CHECK_INT(modus_lock_release(&lock), 0);
        CHECK_INT(modus_lock_release(&lock), -EPERM);
    }
    return 0;
}

static void *add_thread(void *argument)
{
    add(argument);
    return NULL;
}

/* Coroutines hold the lock while others run; and threads want the same lock. */
static int with_lock(void *argument)
{
    struct modus_co *co[10];
    pthread_t threads[2];
    (void)argument;

    balance = 0;
    for (int i = 0; i < 2; i++)
        threads[i] = start_thread(add_thread, NULL);
    for (int i = 0; i < 10; i++)
        co[i] = go(add, &balance);
    for (int i = 0; i < 10; i++)
        CHECK_INT(joined(co[i]), 0);
    for (int i = 0; i < 2; i++)
        join_thread(threads[i]);
    CHECK_INT(balance, 12 * 200);
    return 0;
}

static void test_lock(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(with_lock, NULL), 0);
}

static int wait_for_event(void *argument)
{
    return modus_event_wait(&event, argument ? *(int64_t *)argument : MODUS_FOREVER);
}

static void *set_event(void *argument)
{
    usleep(5000);
    modus_event_set(&event);
    return argument;
}

static int with_event(void *argument)
{
    int64_t short_time = modus_ms(5);
    struct modus_co *co[4];
    (void)argument;

    modus_event_clear(&event);
    CHECK_INT(joined(go(wait_for_event, &short_time)), -ETIMEDOUT);
    for (int i = 0; i < 4; i++)
        co[i] = go(wait_for_event, NULL);
    pthread_t thread = start_thread(set_event, NULL);
    for (int i = 0; i < 4; i++)
        CHECK_INT(joined(co[i]), 0);
    join_thread(thread);
    return 0;
}

static void test_event(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(with_event, NULL), 0);
}

enum { ITEMS = SLOW ? 3000 : 30000 };

static int produce(void *argument)
{
    uint64_t first = (uintptr_t)argument;

    for (uint64_t i = 0; i < ITEMS; i++) {
        uint64_t item = first + i;
        CHECK_INT(modus_queue_put(&queue, &item, MODUS_FOREVER), 0);
    }
    return 0;
}

static void *produce_thread(void *argument)
{
    produce(argument);
    return NULL;
}

static _Atomic uint64_t sum;

static int consume(void *argument)
{
    uint64_t item;
    int rc;
    (void)argument;

    while ((rc = modus_queue_get(&queue, &item, MODUS_FOREVER)) == 0)
        atomic_fetch_add(&sum, item);
    return rc;
}

static void *consume_thread(void *argument)
{
    CHECK_INT(consume(argument), MODUS_CLOSED);
    return NULL;
}

/* Coroutines and threads at both ends of one queue. */
static int with_queue(void *argument)
{
    struct modus_co *producers[2], *consumers[2];
    (void)argument;

    atomic_store(&sum, 0);
    CHECK_INT(modus_queue_init(&queue, &(struct modus_queue_attr){.scope = MODUS_THREAD,
                                                                  .capacity = 64,
                                                                  .item_size = 8}),
              0);
    struct modus_thread *in, *out; /* whose join lets other coroutines go on */
    CHECK_INT(modus_thread_new(&in, NULL, produce_thread, NULL), 0);
    CHECK_INT(modus_thread_new(&out, NULL, consume_thread, NULL), 0);
    CHECK_INT(modus_thread_start(in), 0);
    CHECK_INT(modus_thread_start(out), 0);
    for (int i = 0; i < 2; i++) {
        producers[i] = go(produce, NULL);
        consumers[i] = go(consume, NULL);
    }
    for (int i = 0; i < 2; i++)
        CHECK_INT(joined(producers[i]), 0);
    CHECK_INT(modus_thread_join(in, MODUS_FOREVER, NULL), 0);
    modus_thread_put(in);
    modus_queue_close(&queue, MODUS_CLOSE_DRAIN);
    for (int i = 0; i < 2; i++)
        CHECK_INT(joined(consumers[i]), MODUS_CLOSED);
    CHECK_INT(modus_thread_join(out, MODUS_FOREVER, NULL), 0);
    modus_thread_put(out);
    CHECK(atomic_load(&sum) == 3ull * ITEMS * (ITEMS - 1) / 2);
    modus_queue_fini(&queue);
    return 0;
}

static void test_queue(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(with_queue, NULL), 0);
}

static int most_inside, now_inside;

static int enter(void *argument)
{
    (void)argument;
    CHECK_INT(modus_sem_acquire(&sem, MODUS_FOREVER), 0);
    now_inside++;
    most_inside = now_inside > most_inside ? now_inside : most_inside;
    CHECK_INT(modus_co_sleep(modus_ms(2)), 0);
    now_inside--;
    CHECK_INT(modus_sem_release(&sem, 1), 0);
    return 0;
}

static int with_sem(void *argument)
{
    struct modus_co *co[20];
    (void)argument;

    most_inside = 0;
    CHECK_INT(modus_sem_init(&sem, &(struct modus_sem_attr){.scope = MODUS_THREAD, .value = 3}), 0);
    for (int i = 0; i < 20; i++)
        co[i] = go(enter, NULL);
    for (int i = 0; i < 20; i++)
        CHECK_INT(joined(co[i]), 0);
    CHECK_INT(most_inside, 3);
    modus_sem_fini(&sem);
    return 0;
}

static void test_sem(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(with_sem, NULL), 0);
}

/* --- cancelling and deadlines ------------------------------------------------------------------ */

static int wait_for_ever(void *argument)
{
    int rc = modus_event_wait(&event, MODUS_FOREVER);

    CHECK(modus_co_cancelled() == (rc == MODUS_CANCELED));
    if (rc == MODUS_CANCELED) { /* and all further waits */
        CHECK_INT(modus_co_sleep(modus_seconds(10)), MODUS_CANCELED);
        CHECK_INT(modus_co_yield(), MODUS_CANCELED);
        CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0); /* but not a lock */
        CHECK_INT(modus_lock_release(&lock), 0);
    }
    return argument ? 0 : rc;
}

static int hold_lock(void *argument)
{
    CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0);
    modus_co_sleep(modus_ms(20));
    CHECK_INT(modus_lock_release(&lock), 0);
    return argument != NULL;
}

static int want_lock(void *argument)
{
    (void)argument;
    CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0);
    CHECK(modus_co_cancelled());
    CHECK_INT(modus_lock_release(&lock), 0);
    return 3;
}

static int sleep_for_ever(void *argument)
{
    return argument ? modus_co_sleep_until(MODUS_FOREVER) : modus_co_sleep(MODUS_FOREVER);
}

static void *cancel_thread(void *argument)
{
    usleep(3000);
    modus_co_cancel(argument);
    return NULL;
}

static int cancelling(void *argument)
{
    struct modus_co *co = go(wait_for_ever, NULL);
    (void)argument;

    modus_event_clear(&event);
    modus_co_cancel(co); /* before it has begun */
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    co = go(wait_for_ever, NULL);
    modus_co_yield(); /* it waits now */
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    for (int i = 0; i < 2; i++) {
        co = go(sleep_for_ever, i ? &event : NULL);
        modus_co_yield();
        CHECK_INT(modus_co_join(co, 0, NULL), -EAGAIN);
        modus_co_cancel(co);
        CHECK_INT(joined(co), MODUS_CANCELED);
    }
    co = go(wait_for_ever, NULL);
    pthread_t thread = start_thread(cancel_thread, co);
    CHECK_INT(modus_co_join(co, MODUS_FOREVER, NULL), 0);
    join_thread(thread);
    modus_co_cancel(co); /* too late */
    modus_co_put(co);
    struct modus_co *holder = go(hold_lock, NULL), *waiter = go(want_lock, NULL);
    modus_co_yield();
    modus_co_cancel(waiter);
    CHECK_INT(joined(waiter), 3);
    CHECK_INT(joined(holder), 0);
    return 0;
}

static void test_cancel(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(cancelling, NULL), 0);
}

/* A wait at a condition says so too, with the lock owned again. */
static struct modus_cond cond;

static int wait_for_cond(void *argument)
{
    CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0);
    int rc = modus_cond_wait(&cond, argument ? modus_ms(1) : MODUS_FOREVER);
    CHECK_INT(modus_lock_release(&lock), 0);
    return rc;
}

static int cancel_at_cond(void *argument)
{
    struct modus_co *co = go(wait_for_cond, argument);

    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(co);
    CHECK_INT(joined(co), MODUS_CANCELED);
    CHECK_INT(joined(go(wait_for_cond, &cond)), -ETIMEDOUT);
    return 0;
}

static void test_cancel_at_cond(void **state)
{
    (void)state;
    assert_int_equal(modus_cond_init(&cond, &lock), 0);
    assert_int_equal(modus_co_run(cancel_at_cond, NULL), 0);
    modus_cond_fini(&cond);
}

/* Who first asks for its thread in a coroutine gets the thread, not the coroutine. */
static int thread_of(void *argument)
{
    (void)argument;
    CHECK_INT(modus_thread_tid(modus_thread_self()), gettid());
    return 0;
}

static void *ask_in_coroutine(void *argument)
{
    CHECK_INT(modus_co_run(thread_of, argument), 0);
    return NULL;
}

static void test_thread_of(void **state)
{
    (void)state;
    join_thread(start_thread(ask_in_coroutine, NULL));
}

static int child_of_deadline(void *argument)
{
    (void)argument;
    return modus_event_wait(&event, MODUS_FOREVER);
}

static struct modus_co *child;

static int with_deadline(void *argument)
{
    int64_t start = modus_now_ns();

    CHECK_INT(modus_event_wait(&event, modus_ms(1)), -ETIMEDOUT);
    child = go(child_of_deadline, NULL); /* which inherits it */
    CHECK_INT(modus_co_join(child, MODUS_FOREVER, NULL), -ETIMEDOUT);
    CHECK(modus_now_ns() - start >= modus_ms(10));
    CHECK_INT(modus_co_sleep(modus_seconds(10)), -ETIMEDOUT);
    CHECK_INT(modus_co_sleep(MODUS_FOREVER), -ETIMEDOUT);
    CHECK_INT(modus_co_yield(), -ETIMEDOUT);
    CHECK_INT(modus_co_sleep(0), -ETIMEDOUT);
    CHECK(modus_now_ns() - start < modus_seconds(5));
    return argument != NULL;
}

static int deadlines(void *argument)
{
    struct modus_co *co;
    (void)argument;

    modus_event_clear(&event);
    CHECK_INT(modus_co_start(&co,
                             &(struct modus_co_attr){.name = "late",
                                                     .deadline = modus_now_ns() + modus_ms(15)},
                             with_deadline, NULL),
              0);
    CHECK_INT(strcmp(modus_co_name(co), "late"), 0);
    CHECK_INT(joined(co), 0);
    CHECK_INT(joined(child), -ETIMEDOUT);
    return 0;
}

static void test_deadline(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(deadlines, NULL), 0);
}

/* --- descriptors, threads, numbers ------------------------------------------------------------- */

static int pipe_ends[2];

static int read_byte(void *argument)
{
    int ready = 0;
    char byte = 0;
    (void)argument;

    CHECK_INT(modus_co_wait_fd(pipe_ends[0], POLLIN, modus_ms(5), &ready), -ETIMEDOUT);
    CHECK_INT(modus_co_wait_fd(pipe_ends[0], POLLIN, MODUS_FOREVER, &ready), 0);
    CHECK_INT(ready, POLLIN);
    CHECK_INT(read(pipe_ends[0], &byte, 1), 1);
    return byte;
}

static int descriptors(void *argument)
{
    int ready = 0;
    (void)argument;

    CHECK_INT(pipe(pipe_ends), 0);
    CHECK_INT(modus_co_wait_fd(pipe_ends[1], POLLOUT, MODUS_FOREVER, &ready), 0);
    CHECK_INT(ready, POLLOUT);
    struct modus_co *reader = go(read_byte, NULL);
    CHECK_INT(modus_co_sleep(modus_ms(15)), 0);
    CHECK_INT(write(pipe_ends[1], "x", 1), 1);
    CHECK_INT(joined(reader), 'x');
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

/* One for reading, one for writing, one through the parking layer; all on the same descriptor. */
static int wait_on_same(void *events)
{
    int wanted = *(int *)events, ready = 0;

    CHECK_INT(modus_co_wait_fd(pipe_ends[0], wanted, modus_ms(1), &ready), -ETIMEDOUT);
    CHECK_INT(modus_co_wait_fd(pipe_ends[0], wanted, MODUS_FOREVER, &ready), 0);
    return ready;
}

static int park_on_same(void *argument)
{
    int ready = 0;
    (void)argument;

    CHECK_INT(modus_park_fd(pipe_ends[0], POLLIN, 1, &ready), -ETIMEDOUT);
    CHECK_INT(modus_park_fd(pipe_ends[0], POLLIN, MODUS_FOREVER, &ready), 0);
    return ready;
}

static int same_descriptor(void *argument)
{
    char bytes[16384] = {0};
    int in = POLLIN, out = POLLOUT;
    (void)argument;

    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pipe_ends), 0);
    while (write(pipe_ends[0], bytes, sizeof bytes) > 0)
        continue;
    struct modus_co *reader = go(wait_on_same, &in), *writer = go(wait_on_same, &out),
                    *parked = go(park_on_same, NULL);
    CHECK_INT(modus_co_sleep(modus_ms(10)), 0);
    CHECK_INT(write(pipe_ends[1], "x", 1), 1);
    CHECK_INT(joined(reader), POLLIN);
    CHECK_INT(joined(parked), POLLIN);
    while (read(pipe_ends[1], bytes, sizeof bytes) > 0)
        continue;
    CHECK_INT(joined(writer), POLLOUT);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    return 0;
}

static void test_same_descriptor(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(same_descriptor, NULL), 0);
}

static int wait_a_little(void *fd)
{
    return modus_co_wait_fd(*(int *)fd, POLLIN, modus_ms(5), NULL);
}

/* A descriptor is closed while one waits for it, and its file lives on under another number: what
 * happens to that is nothing to who waits for the next file with the old number. */
static int closed_descriptor(void *argument)
{
    int first[2], second[2];
    (void)argument;

    CHECK_INT(pipe(first), 0);
    CHECK_INT(pipe(second), 0);
    int number = first[0], other = dup(number);
    struct modus_co *waiter = go(wait_a_little, &number);
    CHECK_INT(modus_co_yield(), 0);
    close(number);
    CHECK_INT(joined(waiter), -ETIMEDOUT);

    CHECK_INT(dup2(second[0], number), number);
    CHECK_INT(write(first[1], "x", 1), 1);
    CHECK_INT(joined(go(wait_a_little, &number)), -ETIMEDOUT);
    CHECK_INT(dup2(other, number), number); /* the first file again */
    CHECK_INT(joined(go(wait_a_little, &number)), 0);
    CHECK_INT(joined(go(wait_a_little, &other)), 0);
    CHECK_INT(joined(go(wait_a_little, &second[0])), -ETIMEDOUT);
    int fds[] = {number, other, first[1], second[0], second[1]};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        close(fds[i]);
    CHECK_INT(joined(go(wait_a_little, &number)), -EINVAL);
    return 0;
}

static void test_closed_descriptor(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(closed_descriptor, NULL), 0);
}

static void test_descriptors(void **state)
{
    int ends[2];
    (void)state;

    assert_int_equal(pipe(ends), 0); /* in a thread a time that is long past is no long one */
    assert_int_equal(modus_park_fd(ends[0], POLLIN, INT64_MIN, NULL), -ETIMEDOUT);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(modus_co_run(descriptors, NULL), 0);
}

/* Two loops that pass a turn to each other, and a thread that joins a coroutine. */
static struct modus_sem ping, pong;

static int play(void *argument)
{
    bool first = argument != NULL;

    for (int i = 0; i < (SLOW ? 200 : 2000); i++) {
        CHECK_INT(modus_sem_acquire(first ? &ping : &pong, MODUS_FOREVER), 0);
        CHECK_INT(modus_sem_release(first ? &pong : &ping, 1), 0);
    }
    return 0;
}

static void *other_loop(void *argument)
{
    CHECK_INT(modus_co_run(play, argument), 0);
    return NULL;
}

static void *join_coroutine(void *argument)
{
    int result;

    CHECK_INT(modus_co_join(argument, MODUS_FOREVER, &result), 0);
    CHECK_INT(result, 0);
    modus_co_put(argument);
    return NULL;
}

static int two_loops(void *argument)
{
    struct modus_sem_attr attr = {.scope = MODUS_THREAD};
    (void)argument;

    CHECK_INT(modus_sem_init(&ping, &attr), 0);
    CHECK_INT(modus_sem_init(&pong, &attr), 0);
    pthread_t thread = start_thread(other_loop, &ping);
    struct modus_co *here = go(play, NULL);
    pthread_t joiner = start_thread(join_coroutine, modus_co_get(here));
    CHECK_INT(modus_sem_release(&ping, 1), 0);
    CHECK_INT(joined(here), 0);
    join_thread(joiner);
    join_thread(thread);
    modus_sem_fini(&ping);
    modus_sem_fini(&pong);
    return 0;
}

static void test_two_loops(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(two_loops, NULL), 0);
}

static int sleep_a_little(void *argument)
{
    return modus_co_sleep(modus_ms((intptr_t)argument));
}

static int ten_thousand(void *argument)
{
    (void)argument;
    for (intptr_t i = 0; i < (SLOW ? 1000 : 10000); i++)
        CHECK_INT(modus_co_start(NULL, NULL, sleep_a_little, (void *)(i % 20)), 0);
    return 0;
}

/* They outlive main, and run ends with the last of them. */
static void test_ten_thousand(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(ten_thousand, NULL), 0);
}

/* A signal handler sets what coroutines wait for, at any moment. */
static struct modus_event rung = MODUS_EVENT_INIT;
static _Atomic int rings;

static void on_signal(int signal)
{
    (void)signal;
    atomic_fetch_add(&rings, 1);
    modus_event_set(&rung);
}

static void *send_signals(void *argument)
{
    pthread_t thread = *(pthread_t *)argument;

    for (int i = 0; i < (SLOW ? 300 : 3000); i++) {
        int before = atomic_load(&rings);
        pthread_kill(thread, SIGUSR1);
        while (atomic_load(&rings) == before)
            sched_yield();
    }
    return NULL;
}

static bool enough;

static int hear_signals(void *argument)
{
    (void)argument;
    while (!enough) {
        int rc = modus_event_wait(&rung, modus_seconds(5));
        CHECK_INT(rc, 0);
        modus_event_clear(&rung);
        modus_co_yield();
    }
    return 0;
}

static int signalled(void *argument)
{
    pthread_t me = pthread_self();
    struct modus_thread *sender;
    struct modus_co *co[3];
    (void)argument;

    for (int i = 0; i < 3; i++)
        co[i] = go(hear_signals, NULL);
    CHECK_INT(modus_thread_new(&sender, NULL, send_signals, &me), 0);
    CHECK_INT(modus_thread_start(sender), 0);
    CHECK_INT(modus_thread_join(sender, MODUS_FOREVER, NULL), 0);
    modus_thread_put(sender);
    enough = true;
    for (int i = 0; i < 3; i++) {
        while (modus_co_join(co[i], 0, NULL) == -EAGAIN) {
            modus_event_set(&rung);
            modus_co_yield();
        }
        CHECK_INT(joined(co[i]), 0);
    }
    return 0;
}

static void test_signals(void **state)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before;
    (void)state;

#ifdef __SANITIZE_THREAD__ /* it delays signals, perhaps past the beginning of a wait */
    skip();
#endif
    sigaction(SIGUSR1, &action, &before);
    assert_int_equal(modus_co_run(signalled, NULL), 0);
    sigaction(SIGUSR1, &before, NULL);
}

/* The one that is woken, or cancelled, is the last of its loop: the loop may be gone before the call
 * that did it returns. What must hold then an address sanitizer sees. */
struct last_one {
    struct modus_sem sem;
    struct modus_co *_Atomic co;
    bool cancel, over;
};

/* So that the loop is awake, and sees at once what is done to the other. */
static int keep_awake(void *argument)
{
    while (!((struct last_one *)argument)->over)
        modus_co_yield();
    return 0;
}

static int be_last(void *argument)
{
    struct last_one *l = argument;

    CHECK_INT(modus_co_start(NULL, NULL, keep_awake, l), 0);
    atomic_store(&l->co, modus_co_get(modus_co_self()));
    int rc = modus_sem_acquire(&l->sem, MODUS_FOREVER);
    l->over = true;
    return rc == (l->cancel ? MODUS_CANCELED : 0) ? 0 : 1;
}

static void *end_it(void *argument)
{
    struct last_one *l = argument;
    struct modus_co *co;

    while (!(co = atomic_load(&l->co)))
        sched_yield();
    if (l->cancel)
        modus_co_cancel(co);
    else
        modus_sem_release(&l->sem, 1);
    modus_co_put(co);
    return NULL;
}

static void test_loop_ends_under_the_waker(void **state)
{
    (void)state;
    for (int i = 0; i < (SLOW ? 600 : 3000); i++) {
        struct last_one l = {.cancel = i % 2};

        CHECK_INT(modus_sem_init(&l.sem, &(struct modus_sem_attr){.scope = MODUS_THREAD}), 0);
        pthread_t thread = start_thread(end_it, &l);
        assert_int_equal(modus_co_run(be_last, &l), 0);
        join_thread(thread);
        modus_sem_fini(&l.sem);
    }
}

static int hog(void *argument)
{
    int64_t end = modus_now_ns() + modus_ms(20);

    while (modus_now_ns() < end)
        continue;
    return argument != NULL;
}

static int lag(void *argument)
{
    struct modus_co *co;
    char name[32];
    (void)argument;

    CHECK_INT(modus_co_lag(NULL), 0);
    CHECK_INT(modus_co_start(&co, &(struct modus_co_attr){.name = "hog"}, hog, NULL), 0);
    CHECK_INT(joined(co), 0);
    CHECK(modus_co_lag(name) >= modus_ms(20));
    CHECK_INT(strcmp(name, "hog"), 0);
    return 0;
}

static void test_lag(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(lag, NULL), 0);
}

static int say_seven(void *argument)
{
    return argument == NULL ? 7 : 0;
}

static unsigned open_below(int most)
{
    unsigned count = 0;

    for (int fd = 0; fd < most; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Its first loop, with room for so many descriptors. */
static int run_with_few(void *argument)
{
    int room = *(int *)argument, most = room;

    for (int fd = 0; fd < most; fd++) /* those below, too */
        most += fcntl(fd, F_GETFD) >= 0;
    unsigned before = open_below(most);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)most, (rlim_t)most}), 0);
    for (int i = 0; i < 3; i++) {
        int rc = modus_co_run(say_seven, NULL);

        CHECK(rc == 7 || rc == -ENOMEM);
        CHECK(room < 12 || rc == 7);
        CHECK(rc == 7 || open_below(most) == before);
        before = open_below(most); /* libuv keeps two */
    }
    return 0;
}

static void test_few_descriptors(void **state)
{
    (void)state;
    for (int room = 0; room <= 12; room++)
        assert_int_equal(reap(start_child(run_with_few, &room)), 0);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_few_descriptors), /* the first loop of all is in its children */
        TEST(test_context),
        TEST(test_stacks),
        TEST(test_stack_guard),
        TEST(test_timers),
        TEST(test_errors),
        TEST(test_turns),
        TEST(test_sleep),
        TEST(test_lock),
        TEST(test_event),
        TEST(test_queue),
        TEST(test_sem),
        TEST(test_cancel),
        TEST(test_cancel_at_cond),
        TEST(test_thread_of),
        TEST(test_deadline),
        TEST(test_descriptors),
        TEST(test_same_descriptor),
        TEST(test_closed_descriptor),
        TEST(test_two_loops),
        TEST(test_ten_thousand),
        TEST(test_lag),
        TEST(test_signals),
        TEST(test_loop_ends_under_the_waker),
        TEST(test_stacks_outlive_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
