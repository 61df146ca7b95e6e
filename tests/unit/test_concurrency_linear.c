/* SPDX-License-Identifier: MIT */
/*
 * Histories of real threads and processes on one queue are linearizable (linear.h).
 *
 * Many short runs, of two to six users with eight calls each that are chosen at random: trying,
 * waiting a moment, and in some runs a close. Timer signals whose handler yields interrupt the calls
 * anywhere; between processes the numbered windows dawdle, too. MODUS_LINEAR_SEED repeats the
 * choice of calls (not the scheduling).
 */
#include "test_concurrency.h"

#include "concurrency/fault.h"
#include "concurrency/queue.h"
#include "linear.h"

#include <sched.h>

enum { USERS = 6, CALLS = 8, RUNS = SLOW ? 100 : 500 };

/* --- the judge itself ------------------------------------------------------------------------ */

#define PUT(item, result, began, ended)                                                            \
    {                                                                                              \
        LINEAR_PUT, result, item, began, ended                                                     \
    }
#define GET(item, result, began, ended)                                                            \
    {                                                                                              \
        LINEAR_GET, result, item, began, ended                                                     \
    }
#define CLOSE(began, ended)                                                                        \
    {                                                                                              \
        LINEAR_CLOSE, 0, 0, began, ended                                                           \
    }
#define IS(capacity, ...)                                                                          \
    is_linearizable(                                                                               \
        (const struct linear_call[]){__VA_ARGS__},                                                 \
        (int)(sizeof((const struct linear_call[]){__VA_ARGS__}) / sizeof(struct linear_call)),     \
        capacity)

static void test_judge_accepts(void **state)
{
    (void)state;
    assert_true(IS(2, PUT(1, 0, 1, 2), PUT(2, 0, 3, 4), GET(1, 0, 5, 6), GET(2, 0, 7, 8)));
    assert_true(IS(2, PUT(1, 0, 1, 4), PUT(2, 0, 2, 3), GET(2, 0, 5, 6), GET(1, 0, 7, 8)));
    assert_true(IS(1, GET(1, 0, 1, 4), PUT(1, 0, 2, 3)));
    assert_true(IS(1, PUT(1, 0, 1, 2), PUT(2, MODUS_FULL, 3, 4), GET(1, 0, 5, 6)));
    assert_true(IS(1, GET(0, MODUS_EMPTY, 1, 4), PUT(1, 0, 2, 3)));
    assert_true(IS(2, PUT(1, 0, 1, 2), CLOSE(3, 4), GET(1, 0, 5, 6), GET(0, MODUS_CLOSED, 7, 8)));
    /* The first put is not over, so that the second's item may not be seen. */
    assert_true(IS(2, PUT(1, 0, 1, 8), PUT(2, 0, 2, 3), GET(0, MODUS_EMPTY, 4, 5), GET(1, 0, 9, 10),
                   GET(2, 0, 11, 12)));
}

static void test_judge_refuses(void **state)
{
    (void)state;
    /* Out of order, twice, out of nothing. */
    assert_false(IS(2, PUT(1, 0, 1, 2), PUT(2, 0, 3, 4), GET(2, 0, 5, 6), GET(1, 0, 7, 8)));
    assert_false(IS(2, PUT(1, 0, 1, 2), GET(1, 0, 3, 4), GET(1, 0, 5, 6)));
    assert_false(IS(2, GET(1, 0, 1, 2), PUT(1, 0, 3, 4)));
    /* Not seen, no room, too much room. */
    assert_false(IS(2, PUT(1, 0, 1, 2), GET(0, MODUS_EMPTY, 3, 4)));
    assert_false(IS(2, PUT(1, 0, 1, 2), PUT(2, MODUS_FULL, 3, 4)));
    assert_false(IS(1, PUT(1, 0, 1, 2), PUT(2, 0, 3, 4)));
    /* After the close, before it, and with an item left. */
    assert_false(IS(2, CLOSE(1, 2), PUT(1, 0, 3, 4)));
    assert_false(IS(2, PUT(1, MODUS_CLOSED, 1, 2), CLOSE(3, 4)));
    assert_false(IS(2, PUT(1, 0, 1, 2), CLOSE(3, 4), GET(0, MODUS_CLOSED, 5, 6)));
    assert_false(IS(2, PUT(1, 0, 1, 2), CLOSE(3, 4), GET(0, MODUS_CLOSED, 5, 6), GET(1, 0, 7, 8)));
}

/* --- histories ------------------------------------------------------------------------------- */

struct run {
    struct modus_queue queue;
    unsigned seed, users;
    bool closes;
    enum modus_fault_point dawdle;
    _Atomic uint64_t clock;
    _Atomic unsigned ready;
    int counts[USERS];
    struct linear_call calls[USERS][CALLS];
};

struct user {
    struct run *run;
    unsigned number;
};

static struct modus_arena *arena;

/* One call; a time that ran out has moved nothing and does not count. */
static bool make_call(struct run *run, struct linear_call *call, unsigned dice)
{
    struct modus_queue *queue = &run->queue;
    int64_t ns = dice % 4 ? 0 : modus_us(30);

    call->began = atomic_fetch_add(&run->clock, 1);
    switch (call->kind) {
    case LINEAR_PUT:
        call->result = modus_queue_put(queue, &call->item, ns);
        break;
    case LINEAR_GET:
        call->result = modus_queue_get(queue, &call->item, ns);
        break;
    case LINEAR_CLOSE:
        call->result = modus_queue_close(queue, MODUS_CLOSE_DRAIN);
        break;
    }
    call->ended = atomic_fetch_add(&run->clock, 1);
    return call->result != -ETIMEDOUT;
}

static void use(struct run *run, unsigned user)
{
    unsigned dice = run->seed * 31 + user, *count = (unsigned *)&run->counts[user];

    atomic_fetch_add(&run->ready, 1);
    while (atomic_load(&run->ready) < run->users)
        sched_yield();
    for (int i = 0; i < CALLS; i++) {
        struct linear_call *call = &run->calls[user][*count];
        unsigned throw = (unsigned)rand_r(&dice);

        *call = (struct linear_call){.kind = throw &1 ? LINEAR_PUT : LINEAR_GET,
                                     .item = (int)user * CALLS + i + 1};
        if (run->closes && user == 0 && i == CALLS / 2)
            call->kind = LINEAR_CLOSE;
        *count += make_call(run, call, throw >> 8);
    }
}

static void *use_as_thread(void *argument)
{
    struct user *user = argument;

    use(user->run, user->number);
    return NULL;
}

static int use_as_process(void *argument)
{
    struct user *user = argument;
    struct run *run = user->run;

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(run->dawdle, MODUS_FAULT_DELAY, 1 + run->seed % 3);
    start_storm(50);
    use(run, user->number);
    return 0;
}

static void tell(const struct linear_call *calls, int n, const struct run *run)
{
    static const char *const kinds[] = {"put", "get", "close"};

    fprintf(stderr, "not linearizable (seed %u, capacity %u):\n", run->seed, run->queue.mask + 1);
    for (int i = 0; i < n; i++)
        fprintf(stderr, "  %3llu to %3llu  %s %d: %s\n", (unsigned long long)calls[i].began,
                (unsigned long long)calls[i].ended, kinds[calls[i].kind], calls[i].item,
                modus_result_name(calls[i].result));
}

/* Returns how many pairs of calls overlapped: a run without any says nothing. */
static long judge(struct run *run)
{
    struct linear_call calls[USERS * CALLS];
    int n = 0;
    long overlaps = 0;

    for (unsigned user = 0; user < run->users; user++)
        for (int i = 0; i < run->counts[user]; i++)
            calls[n++] = run->calls[user][i];
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++)
            overlaps += calls[i].began < calls[j].ended && calls[j].began < calls[i].ended;
    if (!is_linearizable(calls, n, run->queue.mask + 1)) {
        tell(calls, n, run);
        abort();
    }
    return overlaps;
}

static void start_run(struct run *run, enum modus_scope scope, unsigned seed)
{
    struct modus_queue_attr attr = {
        .scope = scope,
        .arena = scope == MODUS_PROCESS ? arena : NULL,
        .capacity = 1u << seed % 4,
        .item_size = sizeof(int),
    };

    memset(run, 0, sizeof *run);
    run->seed = seed;
    run->users = 2 + seed % (USERS - 1);
    run->closes = seed % 3 == 0;
    if (seed % 2)
        run->dawdle =
            MODUS_FAULT_PUT_AIMED + seed / 2 % (MODUS_FAULT_GET_FREED - MODUS_FAULT_PUT_AIMED + 1);
    CHECK_INT(modus_queue_init(&run->queue, &attr), 0);
}

static unsigned first_seed(void)
{
    const char *seed = getenv("MODUS_LINEAR_SEED");

    return seed ? (unsigned)strtoul(seed, NULL, 0) : (unsigned)getpid() * 1000;
}

/* In a process of its own, where the signals end with it. */
static int run_threads(void *argument)
{
    struct run *run = calloc(1, sizeof *run);
    long overlaps = 0;

    (void)argument;
    start_storm(50);
    for (unsigned i = 0; i < RUNS; i++) {
        struct user users[USERS];
        pthread_t threads[USERS];

        start_run(run, MODUS_THREAD, first_seed() + i);
        for (unsigned k = 0; k < run->users; k++) {
            users[k] = (struct user){run, k};
            threads[k] = start_thread(use_as_thread, &users[k]);
        }
        for (unsigned k = 0; k < run->users; k++)
            join_thread(threads[k]);
        overlaps += judge(run);
        modus_queue_fini(&run->queue);
    }
    free(run);
    CHECK(overlaps > 0);
    return 0;
}

static void test_threads(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(run_threads, NULL)), 0);
}

static void test_processes(void **state)
{
    struct run *run = modus_arena_alloc(arena, sizeof *run, 0);
    long overlaps = 0;
    (void)state;

    for (unsigned i = 0; i < RUNS; i++) {
        struct user users[USERS];
        pid_t pids[USERS];

        alarm(WATCHDOG_SECONDS);
        start_run(run, MODUS_PROCESS, first_seed() + i);
        for (unsigned k = 0; k < run->users; k++) {
            users[k] = (struct user){run, k};
            pids[k] = start_child(use_as_process, &users[k]);
        }
        for (unsigned k = 0; k < run->users; k++) {
            assert_int_equal(reap(pids[k]), 0);
            modus_participant_bury(arena, pids[k]);
        }
        overlaps += judge(run);
        modus_queue_fini(&run->queue);
    }
    assert_true(overlaps > 0);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, (size_t)64 << 20, USERS + 2);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_judge_accepts, watchdog),
        cmocka_unit_test_setup(test_judge_refuses, watchdog),
        cmocka_unit_test_setup(test_threads, watchdog),
        cmocka_unit_test_setup(test_processes, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
