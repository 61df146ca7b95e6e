/* SPDX-License-Identifier: MIT */
/* Values and arrays: numbers that add up, locks for several steps, and the deaths of who held them. */
#include "test_concurrency.h"

#include <fcntl.h>

#include "concurrency/array.h"
#include "concurrency/fault.h"
#include "concurrency/value.h"

#define EACH_SCOPE(scope) for (int scope = MODUS_THREAD; scope <= MODUS_PROCESS; scope++)

static struct modus_arena *arena;

struct bank {
    struct modus_value value, real;
    struct modus_array array;
    int plain;
    _Atomic int racy;
    _Atomic int go, results[10];
    int fd;
};

static struct bank *open_bank(int scope)
{
    struct bank *b = modus_arena_alloc(arena, sizeof *b, 0);
    struct modus_array_attr attr = {(enum modus_scope)scope, arena, 10, sizeof(int[4])};

    CHECK(b);
    CHECK_INT(modus_value_init(&b->value, (enum modus_scope)scope, 10), 0);
    CHECK_INT(modus_value_init_real(&b->real, (enum modus_scope)scope, 0.5), 0);
    CHECK_INT(modus_array_init(&b->array, &attr), 0);
    b->plain = 10;
    return b;
}

static void close_bank(struct bank *b)
{
    modus_value_fini(&b->value);
    modus_value_fini(&b->real);
    modus_array_fini(&b->array);
    CHECK_INT(modus_arena_free(arena, b, sizeof *b), 0);
}

struct crew {
    struct bank *bank;
    int (*run)(void *bank);
};

static void *run_thread(void *argument)
{
    struct crew *crew = argument;

    CHECK_INT(crew->run(crew->bank), 0);
    return NULL;
}

/* Let n users run, and wait for them. */
static void let_run(int scope, int n, int (*run)(void *bank), struct bank *b)
{
    struct crew crew = {b, run};
    pthread_t threads[20];
    pid_t children[20];

    for (int i = 0; i < n; i++)
        if (scope == MODUS_PROCESS)
            children[i] = start_child(run, b);
        else
            threads[i] = start_thread(run_thread, &crew);
    for (int i = 0; i < n; i++)
        if (scope == MODUS_PROCESS)
            CHECK_INT(reap(children[i]), 0);
        else
            join_thread(threads[i]);
}

/* --- numbers --------------------------------------------------------------------------------- */

static void test_numbers(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct bank *b = open_bank(scope);
        int64_t expected = 9;
        double real = 0.25;

        assert_int_equal(modus_value_load(&b->value), 10);
        assert_int_equal(modus_value_add(&b->value, -1), 9);
        assert_int_equal(modus_value_exchange(&b->value, 12), 9);
        assert_false(modus_value_compare_exchange(&b->value, &expected, 1));
        assert_int_equal(expected, 12);
        assert_true(modus_value_compare_exchange(&b->value, &expected, INT64_MAX));
        assert_int_equal(modus_value_add(&b->value, 1), INT64_MIN);
        modus_value_store(&b->value, -5);
        assert_int_equal(modus_value_load(&b->value), -5);
        assert_true(modus_value_load_real(&b->real) == 0.5);
        assert_true(modus_value_add_real(&b->real, 0.25) == 0.75);
        assert_false(modus_value_compare_exchange_real(&b->real, &real, 9));
        assert_true(real == 0.75);
        assert_true(modus_value_compare_exchange_real(&b->real, &real, -0.0));
        assert_true(modus_value_exchange_real(&b->real, 3) == 0);
        modus_value_store_real(&b->real, 1.5);
        assert_true(modus_value_load_real(&b->real) == 1.5);
        close_bank(b);
    }
    static struct modus_value zero = MODUS_VALUE_INIT;
    assert_int_equal(modus_value_load(&zero), 0);
    assert_int_equal(modus_value_acquire(&zero, 0), 0);
    assert_int_equal(modus_value_release(&zero), 0);
}

static void test_errors(void **state)
{
    struct modus_value none = {0};
    struct modus_array array = {0};
    struct modus_array_attr attr = {MODUS_PROCESS, NULL, 1, 1};
    int element[4];
    (void)state;

    assert_int_equal(modus_value_init(&none, (enum modus_scope)7, 0), -EINVAL);
    assert_int_equal(modus_value_acquire(&none, 0), -EINVAL);
    assert_int_equal(modus_value_release(&none), -EINVAL);
    modus_value_fini(&none);
    assert_int_equal(modus_array_init(&array, &attr), -EINVAL);
    attr = (struct modus_array_attr){MODUS_THREAD, NULL, 0, 1};
    assert_int_equal(modus_array_init(&array, &attr), -EINVAL);
    attr = (struct modus_array_attr){MODUS_THREAD, NULL, 1, 0};
    assert_int_equal(modus_array_init(&array, &attr), -EINVAL);
    attr = (struct modus_array_attr){MODUS_THREAD, NULL, SIZE_MAX / 2, 4};
    assert_int_equal(modus_array_init(&array, &attr), -EINVAL);
    attr = (struct modus_array_attr){(enum modus_scope)7, NULL, 2, 4};
    assert_int_equal(modus_array_init(&array, &attr), -EINVAL);
    attr = (struct modus_array_attr){MODUS_PROCESS, arena, 1 << 30, 4};
    assert_int_equal(modus_array_init(&array, &attr), -ENOMEM);
    assert_int_equal(modus_array_get(&array, 0, element), -EINVAL);
    assert_int_equal(modus_array_set(&array, 0, element), -EINVAL);
    assert_int_equal(modus_array_acquire(&array, 0), -EINVAL);
    assert_int_equal(modus_array_acquire_until(&array, 0), -EINVAL);
    assert_int_equal(modus_array_release(&array), -EINVAL);
    modus_array_fini(&array);
    struct bank *b = open_bank(MODUS_PROCESS);
    assert_int_equal(modus_array_get(&b->array, 10, element), -ENOENT);
    assert_int_equal(modus_array_set(&b->array, SIZE_MAX, element), -ENOENT);
    assert_null(modus_array_at(&b->array, 10));
    assert_int_equal(modus_array_release(&b->array), -EPERM);
    assert_int_equal(modus_value_release(&b->value), -EPERM);
    assert_int_equal(modus_value_acquire(&b->value, -2), -EINVAL);
    close_bank(b);
}

static int hold_until_told(void *argument)
{
    struct bank *b = argument;

    CHECK_INT(modus_value_acquire(&b->value, MODUS_FOREVER), 0);
    CHECK_INT(modus_value_acquire(&b->value, 0), 0); /* again: it is a recursive one */
    CHECK_INT(modus_array_acquire(&b->array, MODUS_FOREVER), 0);
    atomic_store(&b->go, 1);
    AWAIT(atomic_load(&b->go) == 2);
    CHECK_INT(modus_value_release(&b->value), 0);
    CHECK_INT(modus_value_release(&b->value), 0);
    CHECK_INT(modus_array_release(&b->array), 0);
    return 0;
}

static void test_held(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct bank *b = open_bank(scope);
        struct crew crew = {b, hold_until_told};
        pthread_t thread;
        pid_t child;

        if (scope == MODUS_PROCESS)
            child = start_child(hold_until_told, b);
        else
            thread = start_thread(run_thread, &crew);
        AWAIT(atomic_load(&b->go) == 1);
        assert_int_equal(modus_value_acquire(&b->value, 0), -EAGAIN);
        assert_int_equal(modus_value_acquire(&b->value, modus_ms(1)), -ETIMEDOUT);
        assert_int_equal(modus_value_acquire_until(&b->value, modus_now_ns()), -ETIMEDOUT);
        assert_int_equal(modus_array_acquire(&b->array, 0), -EAGAIN);
        assert_int_equal(modus_array_acquire_until(&b->array, modus_now_ns()), -ETIMEDOUT);
        assert_int_equal(modus_value_add(&b->value, 1), 11); /* not kept from single steps */
        atomic_store(&b->go, 2);
        if (scope == MODUS_PROCESS)
            assert_int_equal(reap(child), 0);
        else
            join_thread(thread);
        assert_int_equal(modus_value_acquire(&b->value, 0), 0);
        assert_int_equal(modus_value_release(&b->value), 0);
        assert_int_equal(modus_array_acquire(&b->array, 0), 0);
        assert_int_equal(modus_array_release(&b->array), 0);
        close_bank(b);
    }
}

/* --- what the notes show --------------------------------------------------------------------- */

static int take_one(void *argument)
{
    struct bank *b = argument;

    b->plain = b->plain - 1; /* of the bank that is in the process's own memory, see below */
    modus_value_add(&b->value, -1);
    return 0;
}

static int take_one_privately(void *argument)
{
    int *n = argument;

    *n -= 1;
    return *n;
}

/* Ten processes take one from ten: each has its own ten, but for the shared one. */
static void test_ten_take_one(void **state)
{
    struct bank *b = open_bank(MODUS_PROCESS);
    int n = 10;
    (void)state;

    for (int i = 0; i < 10; i++)
        assert_int_equal(reap(start_child(take_one_privately, &n)), 9);
    assert_int_equal(n, 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(reap(start_child(take_one, b)), 0);
    assert_int_equal(modus_value_load(&b->value), 0);
    close_bank(b);
    b = open_bank(MODUS_THREAD); /* threads share everything */
    struct crew crew = {b, take_one};
    for (int i = 0; i < 10; i++)
        join_thread(start_thread(run_thread, &crew));
    assert_int_equal(b->plain, 0);
    assert_int_equal(modus_value_load(&b->value), 0);
    close_bank(b);
}

enum { ROUNDS = 20000 };

static int pay_in_and_out(void *argument)
{
    struct bank *b = argument;

    for (int i = 0; i < ROUNDS; i++) {
        modus_value_add(&b->value, 5);
        modus_value_add(&b->value, -5);
        modus_value_add_real(&b->real, 8);
        modus_value_add_real(&b->real, -8);
    }
    return 0;
}

static int pay_in_two_steps(void *argument)
{
    struct bank *b = argument;

    for (int i = 0; i < ROUNDS / 4; i++) {
        CHECK(modus_value_acquire(&b->value, MODUS_FOREVER) == 0);
        modus_value_store(&b->value, modus_value_load(&b->value) + 5);
        modus_value_store(&b->value, modus_value_load(&b->value) - 5);
        modus_value_release(&b->value);
    }
    return 0;
}

static int read_sleep_write(void *argument)
{
    struct bank *b = argument;
    int64_t n = modus_value_load(&b->value);

    atomic_fetch_add(&b->racy, 1);
    AWAIT(atomic_load(&b->racy) == 20); /* all have read */
    modus_value_store(&b->value, n - 1);
    return 0;
}

/* The balance is right with single steps, and with several under the lock; and wrong with several
 * without it: twenty that read before any of them writes take one, not twenty. */
static void test_balance(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct bank *b = open_bank(scope);

        let_run(scope, 4, pay_in_and_out, b);
        assert_int_equal(modus_value_load(&b->value), 10);
        assert_true(modus_value_load_real(&b->real) == 0.5);
        let_run(scope, 4, pay_in_two_steps, b);
        assert_int_equal(modus_value_load(&b->value), 10);
        let_run(scope, 20, read_sleep_write, b);
        assert_int_equal(modus_value_load(&b->value), 9);
        close_bank(b);
    }
}

enum { LINES = 300 };

static int read_file(int fd)
{
    char text[16] = {0};

    CHECK(pread(fd, text, sizeof text - 1, 0) >= 0);
    return atoi(text);
}

static void write_file(int fd, int number)
{
    char text[16];

    snprintf(text, sizeof text, "%08d", number);
    CHECK_INT(pwrite(fd, text, 8, 0), 8);
}

/* A file has no lock: whoever reads before another has written undoes the other's work. */
static int add_in_file_without(void *argument)
{
    struct bank *b = argument;
    int n = read_file(b->fd);

    atomic_fetch_add(&b->racy, 1);
    AWAIT(atomic_load(&b->racy) == 4); /* all have read */
    write_file(b->fd, n + 1);
    return 0;
}

static int add_in_file_with(void *argument)
{
    struct bank *b = argument;

    for (int i = 0; i < LINES; i++) {
        CHECK_INT(modus_value_acquire(&b->value, MODUS_FOREVER), 0);
        write_file(b->fd, read_file(b->fd) + 1);
        modus_value_release(&b->value);
    }
    return 0;
}

static int sum_in_file(struct bank *b, int (*add)(void *))
{
    CHECK_INT(ftruncate(b->fd, 0), 0);
    let_run(MODUS_PROCESS, 4, add, b);
    return read_file(b->fd);
}

static void test_file(void **state)
{
    struct bank *b = open_bank(MODUS_PROCESS);
    char path[] = "/tmp/modus-test-XXXXXX";
    (void)state;

    b->fd = mkstemp(path);
    assert_true(b->fd >= 0);
    unlink(path);
    assert_int_equal(sum_in_file(b, add_in_file_with), 4 * LINES);
    assert_int_equal(sum_in_file(b, add_in_file_without), 1);
    close(b->fd);
    close_bank(b);
}

/* --- arrays ---------------------------------------------------------------------------------- */

static int count_on(void *context, void *element)
{
    int *numbers = element;

    for (int i = 0; i < 4; i++)
        numbers[i] += *(int *)context;
    return *(int *)context < 0 ? -77 : numbers[0];
}

static int count_often(void *argument)
{
    struct bank *b = argument;
    int one = 1, got[4];

    for (int i = 0; i < 2000; i++) {
        CHECK(modus_array_update(&b->array, (size_t)i % 10, count_on, &one) > 0);
        CHECK_INT(modus_array_get(&b->array, 3, got), 0);
        CHECK(got[0] == got[3]);
    }
    return 0;
}

static int update_inside(void *context, void *element)
{
    struct bank *b = context;
    int got[4] = {0};

    (void)element;
    CHECK_INT(modus_array_set(&b->array, 1, got), -EBUSY);
    return modus_array_get(&b->array, 1, got);
}

static int fork_updating(void *context, void *element)
{
    return fork_in_callback() ? 0 : count_on(context, element);
}

/* The child that returns from the function too leaves its parent's array alone. */
static void test_array_forks(void **state)
{
    struct bank *b = open_bank(MODUS_PROCESS);
    pid_t home = getpid();
    int n = 10;
    (void)state;

    int rc = modus_array_update(&b->array, 9, fork_updating, &n);
    end_forked(home, rc);
    assert_int_equal(rc, 10);
    close_bank(b);
}

static void test_array(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct bank *b = open_bank(scope);
        int set[4] = {1, 2, 3, 4}, got[4], n = 10;

        assert_int_equal(modus_array_get(&b->array, 9, got), 0);
        assert_int_equal(got[0] | got[1] | got[2] | got[3], 0);
        assert_int_equal(modus_array_set(&b->array, 9, set), 0);
        assert_int_equal(modus_array_get(&b->array, 9, got), 0);
        assert_memory_equal(set, got, sizeof set);
        assert_int_equal(modus_array_update(&b->array, 9, count_on, &n), 11);
        n = -1;
        assert_int_equal(modus_array_update(&b->array, 9, count_on, &n), -77);
        assert_int_equal(modus_array_get(&b->array, 9, got), 0);
        assert_int_equal(got[3], 14);
        assert_int_equal(modus_array_update(&b->array, 9, update_inside, b), 0);
        assert_int_equal(modus_array_get(&b->array, 8, got), 0);
        assert_int_equal(got[3], 0);
        memset(modus_array_at(&b->array, 0), 0, 10 * sizeof(int[4]));
        let_run(scope, 4, count_often, b);
        for (size_t i = 0; i < 10; i++) {
            assert_int_equal(modus_array_get(&b->array, i, got), 0);
            assert_int_equal(got[0], 4 * 200);
        }
        close_bank(b);
    }
}

/* Once more, and twice given up: the second time it is the update's own hold. */
static int hold_inside(void *context, void *element)
{
    struct bank *b = context;

    (void)element;
    CHECK_INT(modus_array_acquire(&b->array, 0), 0);
    CHECK_INT(modus_array_release(&b->array), 0);
    CHECK_INT(modus_array_release(&b->array), -EPERM);
    return 0;
}

static int die_setting(void *argument)
{
    struct bank *b = argument;
    int set[4] = {9, 9, 9, 9};

    modus_fault_plan((enum modus_fault_point)b->go, MODUS_FAULT_DIE, 1);
    modus_array_set(&b->array, 5, set);
    return 0;
}

static int die_halfway(void *context, void *element)
{
    (void)context;
    ((int *)element)[0] = 9;
    raise(SIGKILL);
    return 0;
}

static int die_updating(void *argument)
{
    struct bank *b = argument;
    return modus_array_update(&b->array, 5, die_halfway, NULL);
}

static int die_holding(void *argument)
{
    struct bank *b = argument;
    int *elements = modus_array_at(&b->array, 0);

    CHECK_INT(modus_array_acquire(&b->array, MODUS_FOREVER), 0);
    CHECK_INT(modus_value_acquire(&b->value, MODUS_FOREVER), 0);
    elements[0] = 7;
    modus_value_store(&b->value, 7);
    if (b->go) {
        int set[4] = {9, 9, 9, 9};
        modus_fault_plan(MODUS_FAULT_ARRAY_CHANGED, MODUS_FAULT_DIE, 1);
        modus_array_set(&b->array, 5, set);
    }
    raise(SIGKILL);
    return 0;
}

static void test_deaths(void **state)
{
    struct bank *b = open_bank(MODUS_PROCESS);
    int set[4] = {1, 2, 3, 4}, got[4];
    (void)state;

    /* In one step: it is undone, and there is nothing to tell. */
    assert_int_equal(modus_array_update(&b->array, 5, hold_inside, b), 0);
    assert_int_equal(modus_array_set(&b->array, 5, set), 0);
    for (int way = 0; way < 3; way++) {
        b->go = way ? MODUS_FAULT_ARRAY_CHANGED : MODUS_FAULT_ARRAY_NOTED;
        pid_t pid = start_child(way == 2 ? die_updating : die_setting, b);
        assert_int_equal(reap(pid), -SIGKILL);
        if (way)
            assert_int_equal(modus_array_get(&b->array, 5, got), 0);
        else
            assert_int_equal(modus_array_acquire(&b->array, 0), 0);
        assert_memory_equal(modus_array_at(&b->array, 5), set, sizeof set);
        if (!way)
            assert_int_equal(modus_array_release(&b->array), 0);
        assert_int_equal(modus_array_acquire(&b->array, 0), 0);
        assert_int_equal(modus_array_release(&b->array), 0);
    }
    /* Between several: the next who has several to do is told, whoever came between. */
    for (int way = 0; way < 4; way++) {
        b->go = way & 1;
        assert_int_equal(reap(start_child(die_holding, b)), -SIGKILL);
        if (way & 2)
            assert_int_equal(modus_array_get(&b->array, 0, got), 0);
        assert_int_equal(modus_array_acquire(&b->array, 0), MODUS_OWNERDEAD);
        assert_memory_equal(modus_array_at(&b->array, 5), set, sizeof set);
        assert_int_equal(*(int *)modus_array_at(&b->array, 0), 7);
        assert_int_equal(modus_array_release(&b->array), 0);
        assert_int_equal(modus_array_acquire(&b->array, 0), 0);
        assert_int_equal(modus_array_release(&b->array), 0);
        assert_int_equal(modus_value_acquire(&b->value, 0), MODUS_OWNERDEAD);
        assert_int_equal(modus_value_load(&b->value), 7);
        assert_int_equal(modus_value_release(&b->value), 0);
        assert_int_equal(modus_value_acquire(&b->value, 0), 0);
        assert_int_equal(modus_value_release(&b->value), 0);
    }
    close_bank(b);
}

/* --- chaos ----------------------------------------------------------------------------------- */

static int count_for_ever(void *argument)
{
    struct bank *b = argument;
    int one = 1, got[4];

    for (size_t i = (size_t)getpid();; i++) {
        CHECK(modus_array_update(&b->array, i % 10, count_on, &one) > 0);
        CHECK_INT(modus_array_get(&b->array, (i + 5) % 10, got), 0);
        CHECK(got[0] == got[1] && got[0] == got[2] && got[0] == got[3]);
        int rc = modus_value_acquire(&b->value, MODUS_FOREVER);
        CHECK(rc == 0 || rc == MODUS_OWNERDEAD);
        modus_value_store(&b->value, modus_value_load(&b->value) + 1);
        CHECK_INT(modus_value_release(&b->value), 0);
    }
}

static void test_chaos(void **state)
{
    struct bank *b = open_bank(MODUS_PROCESS);
    pid_t workers[4];
    int got[4];
    (void)state;

    for (int i = 0; i < 4; i++)
        workers[i] = start_child(count_for_ever, b);
    for (int kills = 0; kills < 300; kills++) {
        int i = kills % 4;

        usleep((useconds_t)random() % 2000);
        kill_child(workers[i]);
        workers[i] = start_child(count_for_ever, b);
    }
    for (int i = 0; i < 4; i++)
        kill_child(workers[i]);
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(modus_array_get(&b->array, i, got), 0);
        assert_true(got[0] == got[1] && got[0] == got[2] && got[0] == got[3]);
    }
    close_bank(b);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, 1 << 22, 32);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_numbers), TEST(test_errors), TEST(test_held),  TEST(test_ten_take_one),
        TEST(test_balance), TEST(test_file),   TEST(test_array), TEST(test_array_forks),
        TEST(test_deaths),  TEST(test_chaos),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
