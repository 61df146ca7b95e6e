/* SPDX-License-Identifier: MIT */
/* Once and local: exactly one run, failure and another try, forks and deaths in the middle; values of
 * threads and coroutines, and when they are destroyed. */
#include "test_concurrency.h"

#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/local.h"
#include "concurrency/once.h"

static struct modus_arena *arena;

#define EACH_SCOPE(scope)                                                                          \
    for (size_t scope##_at = 0, scope = MODUS_THREAD; scope##_at < 2;                              \
         scope = MODUS_PROCESS, scope##_at++)

/* --- once ------------------------------------------------------------------------------------ */

/* In shared memory. */
struct opening {
    struct modus_once once;
    _Atomic int runs, fails_left, open, done, failed, tid[4];
    _Atomic bool inside, go, dies;
    int made;
};

static struct opening *new_opening(enum modus_scope scope)
{
    struct opening *o = modus_arena_alloc(arena, sizeof *o, 0);

    CHECK(o);
    CHECK_INT(modus_once_init(&o->once, scope), 0);
    return o;
}

static void end_opening(struct opening *o)
{
    modus_once_fini(&o->once);
    CHECK_INT(modus_arena_free(arena, o, sizeof *o), 0);
}

static int make(void *context)
{
    struct opening *o = context;

    atomic_fetch_add(&o->runs, 1);
    usleep(1000);
    if (atomic_load(&o->fails_left) > 0) {
        atomic_fetch_sub(&o->fails_left, 1);
        return MODUS_BROKEN;
    }
    o->made = 42;
    return 7; /* as good as 0 */
}

static int make_and_fork(void *context)
{
    return fork_in_callback() ? 0 : make(context);
}

/* Process scope: it is done when the parent has done it, and not by the child that returns too. */
static void test_once_forks(void **state)
{
    struct opening *o = new_opening(MODUS_PROCESS);
    pid_t home = getpid();
    (void)state;

    int rc = modus_once_run(&o->once, make_and_fork, o, MODUS_FOREVER);
    end_forked(home, rc);
    assert_int_equal(rc, 0);
    assert_true(modus_once_done(&o->once));
    end_opening(o);
}

/* Inside until told to go on. */
static int make_slowly(void *context)
{
    struct opening *o = context;

    atomic_store(&o->inside, true);
    AWAIT(atomic_load(&o->go));
    if (atomic_load(&o->dies))
        raise(SIGKILL);
    return make(context);
}

static int never(void *context)
{
    (void)context;
    abort(); /* not to be called */
}

static int make_again(void *context)
{
    struct opening *o = context;

    CHECK_INT(modus_once_run(&o->once, never, o, MODUS_FOREVER), -EDEADLK);
    CHECK_INT(modus_once_run(&o->once, never, o, 0), -EDEADLK);
    CHECK(!modus_once_done(&o->once));
    return make(context);
}

static void test_once_errors(void **state)
{
    struct modus_once none = {0};
    (void)state;

    assert_int_equal(modus_once_run(&none, never, NULL, MODUS_FOREVER), -EINVAL);
    assert_int_equal(modus_once_init(&none, (enum modus_scope)9), -EINVAL);
    modus_once_fini(&none);
    EACH_SCOPE(scope)
    {
        struct opening *o = new_opening((enum modus_scope)scope);

        assert_int_equal(modus_once_run(&o->once, NULL, o, MODUS_FOREVER), -EINVAL);
        assert_int_equal(modus_once_run(&o->once, make, o, -2), -EINVAL);
        assert_int_equal(modus_once_run_until(&o->once, make, o, -2), -EINVAL);
        assert_false(modus_once_done(&o->once));
        atomic_store(&o->fails_left, 2);
        assert_int_equal(modus_once_run(&o->once, make, o, MODUS_FOREVER), MODUS_BROKEN);
        assert_int_equal(modus_once_run_until(&o->once, make, o, 0), MODUS_BROKEN);
        assert_false(modus_once_done(&o->once));
        assert_int_equal(modus_once_run(&o->once, make_again, o, 0), 0);
        assert_true(modus_once_done(&o->once));
        assert_int_equal(modus_once_run(&o->once, never, o, 0), 0);
        assert_int_equal(modus_once_run_until(&o->once, never, o, 0), 0);
        assert_int_equal(atomic_load(&o->runs), 3);
        end_opening(o);
    }
}

static int come(void *argument)
{
    struct opening *o = argument;
    int rc = modus_once_run(&o->once, make, o, MODUS_FOREVER);

    CHECK(rc == 0 ? o->made == 42 : rc == MODUS_BROKEN);
    atomic_fetch_add(rc == 0 ? &o->done : &o->failed, 1);
    return 0;
}

static void *come_thread(void *argument)
{
    come(argument);
    return NULL;
}

/* Six come at once; the first two runs fail. */
static void test_once_exactly(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct opening *o = new_opening((enum modus_scope)scope);
        pthread_t threads[6];
        pid_t children[6];

        atomic_store(&o->fails_left, 2);
        for (int i = 0; i < 6; i++)
            if (scope == MODUS_THREAD)
                threads[i] = start_thread(come_thread, o);
            else
                children[i] = start_child(come, o);
        for (int i = 0; i < 6; i++)
            if (scope == MODUS_THREAD)
                join_thread(threads[i]);
            else
                assert_int_equal(reap(children[i]), 0);
        assert_int_equal(atomic_load(&o->runs), 3);
        assert_int_equal(atomic_load(&o->failed), 2);
        assert_int_equal(atomic_load(&o->done), 4);
        end_opening(o);
    }
}

static void *run_slowly(void *argument)
{
    struct opening *o = argument;

    CHECK_INT(modus_once_run(&o->once, make_slowly, o, MODUS_FOREVER), 0);
    return NULL;
}

static int run_slowly_child(void *argument)
{
    run_slowly(argument);
    return 0;
}

static void test_once_time(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct opening *o = new_opening((enum modus_scope)scope);
        pthread_t thread = start_thread(run_slowly, o);

        AWAIT(atomic_load(&o->inside));
        int64_t begun = modus_now_ns();
        assert_int_equal(modus_once_run(&o->once, never, o, 0), -EAGAIN);
        assert_int_equal(modus_once_run(&o->once, never, o, modus_ms(5)), -ETIMEDOUT);
        assert_true(modus_now_ns() - begun >= modus_ms(5));
        assert_int_equal(modus_once_run_until(&o->once, never, o, 1), -ETIMEDOUT);
        atomic_store(&o->go, true);
        assert_int_equal(modus_once_run(&o->once, never, o, MODUS_FOREVER), 0);
        join_thread(thread);
        assert_int_equal(atomic_load(&o->runs), 1);
        end_opening(o);
    }
}

static struct opening local_opening = {.once = MODUS_ONCE_INIT};

static int run_in_child(void *argument)
{
    (void)argument;
    CHECK(!modus_once_done(&local_opening.once));
    CHECK_INT(modus_once_run(&local_opening.once, make, &local_opening, MODUS_FOREVER), 0);
    CHECK_INT(local_opening.made, 42);
    CHECK_INT(modus_once_run(&local_opening.once, never, NULL, MODUS_FOREVER), 0);
    return 0;
}

static int find_done(void *argument)
{
    (void)argument;
    CHECK_INT(modus_once_run(&local_opening.once, never, NULL, 0), 0);
    return 0;
}

/* Another thread is in the initializer: it is not in the child. */
static void test_once_fork(void **state)
{
    (void)state;
    pthread_t thread = start_thread(run_slowly, &local_opening);
    AWAIT(atomic_load(&local_opening.inside));
    assert_int_equal(reap(start_child(run_in_child, NULL)), 0);
    atomic_store(&local_opening.go, true);
    join_thread(thread);
    assert_int_equal(reap(start_child(find_done, NULL)), 0);
}

/* Who runs it is killed; somebody who waits runs it. */
static void test_once_runner_killed(void **state)
{
    struct opening *o = new_opening(MODUS_PROCESS);
    (void)state;

    atomic_store(&o->dies, true);
    pid_t victim = start_child(run_slowly_child, o);
    AWAIT(atomic_load(&o->inside));
    pid_t heir = start_child(come, o);
    AWAIT_ASLEEP(heir);
    atomic_store(&o->fails_left, 1);
    atomic_store(&o->go, true);
    assert_int_equal(reap(victim), -SIGKILL);
    assert_int_equal(reap(heir), 0);
    assert_int_equal(atomic_load(&o->failed), 1); /* but it may be tried again */
    assert_int_equal(modus_once_run(&o->once, make, o, MODUS_FOREVER), 0);
    assert_int_equal(modus_once_run(&o->once, never, o, 0), 0);
    end_opening(o);
}

static int co_make(void *context)
{
    struct opening *o = context;

    CHECK_INT(modus_co_sleep(modus_ms(10)), 0);
    return make(o);
}

static int co_come(void *argument)
{
    struct opening *o = argument;
    int rc = modus_once_run(&o->once, co_make, o, MODUS_FOREVER);

    if (rc == MODUS_CANCELED)
        atomic_fetch_add(&o->failed, 1);
    else
        CHECK_INT(rc, 0);
    return 0;
}

static int co_main(void *argument)
{
    struct modus_co *co;

    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_co_start(NULL, NULL, co_come, argument), 0);
    CHECK_INT(modus_co_start(&co, NULL, co_come, argument), 0);
    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(co);
    modus_co_put(co);
    return 0;
}

static void test_once_coroutines(void **state)
{
    struct opening *o = new_opening(MODUS_THREAD);
    (void)state;

    assert_int_equal(modus_co_run(co_main, o), 0);
    assert_int_equal(atomic_load(&o->runs), 1);
    assert_int_equal(atomic_load(&o->failed), 1);
    assert_true(modus_once_done(&o->once));
    end_opening(o);
}

/* What a coroutine gets that waits for a run in another thread or process. */
struct await_opening {
    struct opening *opening;
    int expected;
};

static int co_await (void *argument)
{
    struct await_opening *a = argument;

    CHECK_INT(modus_once_run(&a->opening->once, never, NULL, MODUS_FOREVER), a->expected);
    return 0;
}

static int co_wait_in_vain(void *argument)
{
    struct await_opening canceled = {argument, MODUS_CANCELED}, late = {argument, -ETIMEDOUT};
    struct modus_co_attr attr = {.deadline = modus_now_ns() + modus_ms(20)};
    struct modus_co *cos[2];

    CHECK_INT(modus_co_start(&cos[0], NULL, co_await, &canceled), 0);
    CHECK_INT(modus_co_start(&cos[1], &attr, co_await, &late), 0);
    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(cos[0]);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(modus_co_join(cos[i], MODUS_FOREVER, NULL), 0);
        modus_co_put(cos[i]);
    }
    return 0;
}

static void test_once_coroutines_need_not_wait(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct opening *o = new_opening((enum modus_scope)scope);
        pthread_t thread = 0;
        pid_t child = 0;

        if (scope == MODUS_PROCESS)
            child = start_child(run_slowly_child, o);
        else
            thread = start_thread(run_slowly, o);
        AWAIT(atomic_load(&o->inside));
        assert_int_equal(modus_co_run(co_wait_in_vain, o), 0);
        atomic_store(&o->go, true);
        if (scope == MODUS_PROCESS)
            assert_int_equal(reap(child), 0);
        else
            join_thread(thread);
        assert_int_equal(modus_once_run(&o->once, never, o, 0), 0);
        end_opening(o);
    }
}

/* --- local ----------------------------------------------------------------------------------- */

static struct modus_local name, second;
static _Atomic int destroyed, destroyed_by_self;
static struct modus_event proceed;
static _Atomic int ready;
static _Thread_local pthread_t begun_by;

static void destroy(void *value)
{
    atomic_fetch_add(&destroyed, 1);
    atomic_fetch_add(&destroyed_by_self, pthread_equal(begun_by, pthread_self()) != 0);
    free(value);
}

static int begin_locals(void **state)
{
    atomic_store(&destroyed, 0);
    atomic_store(&destroyed_by_self, 0);
    atomic_store(&ready, 0);
    modus_event_init(&proceed, MODUS_THREAD);
    CHECK_INT(modus_local_init(&name, destroy), 0);
    return watchdog(state);
}

static int end_locals(void **state)
{
    (void)state;
    modus_local_fini(&name);
    return 0;
}

/* Have a value, and wait to be let go. */
static void *have_value(void *argument)
{
    begun_by = pthread_self();
    CHECK(modus_local_get(&name) == NULL);
    CHECK_INT(modus_local_set(&name, strdup(argument)), 0);
    atomic_fetch_add(&ready, 1);
    CHECK_INT(modus_event_wait(&proceed, MODUS_FOREVER), 0);
    if (modus_local_get(&name))
        CHECK_INT(strcmp(modus_local_get(&name), argument), 0);
    return NULL;
}

static void test_local_errors(void **state)
{
    static struct modus_local many[4097];
    struct modus_local none = {0};
    int made = 0;
    (void)state;

    assert_int_equal(modus_local_set(&name, strdup("x")), 0);
    assert_null(modus_local_get(&none));
    assert_int_equal(modus_local_set(&none, &made), -EINVAL);
    modus_local_fini(&none);
    while (modus_local_init(&many[made], NULL) == 0) {
        assert_int_equal(modus_local_set(&many[made], &many[made]), 0);
        made++;
    }
    assert_int_equal(made, 4095); /* name is one more */
    assert_int_equal(modus_local_init(&none, NULL), -EOVERFLOW);
    assert_int_equal(modus_local_set(&none, &made), -EINVAL);
    for (int i = 0; i < made; i++) {
        assert_ptr_equal(modus_local_get(&many[i]), &many[i]);
        modus_local_fini(&many[i]);
    }
    assert_int_equal(modus_local_init(&none, NULL), 0); /* and knows nothing of the last one */
    assert_null(modus_local_get(&none));
    modus_local_fini(&none);
}

/* Each thread has its own; with the thread it goes, in that thread. */
static void test_local_ends_with_thread(void **state)
{
    static char names[2][8] = {"Alice", "Bob"};
    pthread_t threads[2];
    (void)state;

    for (int i = 0; i < 2; i++)
        threads[i] = start_thread(have_value, names[i]);
    AWAIT(atomic_load(&ready) == 2);
    assert_null(modus_local_get(&name));
    assert_int_equal(atomic_load(&destroyed), 0);
    modus_event_set(&proceed);
    for (int i = 0; i < 2; i++)
        join_thread(threads[i]);
    assert_int_equal(atomic_load(&destroyed), 2);
    assert_int_equal(atomic_load(&destroyed_by_self), 2);
}

/* The variable goes first: its values go with it, and no other's. */
static void test_local_ends_with_variable(void **state)
{
    pthread_t threads[100];
    static char alice[] = "Alice";
    (void)state;

    assert_int_equal(modus_local_init(&second, destroy), 0);
    assert_int_equal(modus_local_set(&second, strdup("stays")), 0);
    for (int i = 0; i < 100; i++)
        threads[i] = start_thread(have_value, alice);
    AWAIT(atomic_load(&ready) == 100);
    modus_local_fini(&name);
    assert_int_equal(atomic_load(&destroyed), 100);
    assert_int_equal(atomic_load(&destroyed_by_self), 0);
    assert_int_equal(modus_local_init(&name, destroy), 0); /* at the same index */
    modus_event_set(&proceed);
    for (int i = 0; i < 100; i++)
        join_thread(threads[i]);
    assert_int_equal(atomic_load(&destroyed), 100);
    assert_string_equal(modus_local_get(&second), "stays");
    modus_local_fini(&second);
    assert_int_equal(atomic_load(&destroyed), 101);
}

static void destroy_and_set(void *value)
{
    atomic_fetch_add(&destroyed, 1);
    CHECK(modus_local_get(&second) == NULL);
    CHECK_INT(modus_local_set(&second, value), 0);
}

static void *set_second(void *argument)
{
    CHECK_INT(modus_local_set(&second, argument), 0);
    return NULL;
}

/* A destructor that always sets a value again does not go on for ever. */
static void test_local_rounds(void **state)
{
    int value;
    (void)state;

    assert_int_equal(modus_local_init(&second, destroy_and_set), 0);
    join_thread(start_thread(set_second, &value));
    assert_int_equal(atomic_load(&destroyed), 4);
    modus_local_fini(&second);
    assert_int_equal(atomic_load(&destroyed), 4);
}

static void test_local_set_again(void **state)
{
    char *first = strdup("first"), *other = strdup("other");
    (void)state;

    assert_int_equal(modus_local_set(&name, first), 0);
    assert_int_equal(modus_local_set(&name, other), 0);
    assert_ptr_equal(modus_local_get(&name), other);
    assert_int_equal(atomic_load(&destroyed), 0);
    free(first);
    assert_int_equal(modus_local_set(&name, NULL), 0);
    assert_null(modus_local_get(&name));
    free(other);
}

static int look_as_child(void *argument)
{
    (void)argument;
    CHECK_INT(strcmp(modus_local_get(&name), "main"), 0);
    modus_local_fini(&name);
    CHECK_INT(atomic_load(&destroyed), 1); /* ours, not Alice's */
    CHECK_INT(modus_local_init(&name, NULL), 0);
    CHECK_INT(modus_local_set(&name, argument), 0);
    return 0;
}

static void test_local_fork(void **state)
{
    static char alice[] = "Alice";
    (void)state;

    assert_int_equal(modus_local_set(&name, strdup("main")), 0);
    pthread_t thread = start_thread(have_value, alice);
    AWAIT(atomic_load(&ready) == 1);
    assert_int_equal(reap(start_child(look_as_child, NULL)), 0);
    modus_event_set(&proceed);
    join_thread(thread);
    assert_string_equal(modus_local_get(&name), "main");
}

static int co_have_value(void *argument)
{
    char *mine = strdup(argument);

    CHECK(modus_local_get(&name) == NULL);
    CHECK_INT(modus_local_set(&name, mine), 0);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(modus_co_yield(), 0);
        CHECK(modus_local_get(&name) == mine);
    }
    return 0;
}

static int co_locals(void *argument)
{
    struct modus_co *co[3];
    static char names[3][8] = {"one", "two", "three"};
    (void)argument;

    CHECK(modus_local_get(&name) == NULL);
    for (int i = 0; i < 3; i++)
        CHECK_INT(modus_co_start(&co[i], NULL, co_have_value, names[i]), 0);
    CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(atomic_load(&destroyed), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(modus_co_join(co[i], MODUS_FOREVER, NULL), 0);
        modus_co_put(co[i]);
    }
    CHECK_INT(atomic_load(&destroyed), 3);
    CHECK_INT(modus_local_set(&name, strdup("main's")), 0);
    return 0;
}

/* A coroutine's value is not its thread's. */
static void test_local_coroutines(void **state)
{
    (void)state;
    assert_int_equal(modus_local_set(&name, strdup("thread's")), 0);
    assert_int_equal(modus_co_run(co_locals, NULL), 0);
    assert_int_equal(atomic_load(&destroyed), 4);
    assert_string_equal(modus_local_get(&name), "thread's");
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, 1 << 20, 8);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

#define TEST(name)       cmocka_unit_test_setup(name, watchdog)
#define LOCAL_TEST(name) cmocka_unit_test_setup_teardown(name, begin_locals, end_locals)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_once_errors),
        TEST(test_once_exactly),
        TEST(test_once_time),
        TEST(test_once_fork),
        TEST(test_once_forks),
        TEST(test_once_runner_killed),
        TEST(test_once_coroutines),
        TEST(test_once_coroutines_need_not_wait),
        LOCAL_TEST(test_local_errors),
        LOCAL_TEST(test_local_ends_with_thread),
        LOCAL_TEST(test_local_ends_with_variable),
        LOCAL_TEST(test_local_rounds),
        LOCAL_TEST(test_local_set_again),
        LOCAL_TEST(test_local_fork),
        LOCAL_TEST(test_local_coroutines),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
