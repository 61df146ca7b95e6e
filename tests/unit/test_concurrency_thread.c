/* SPDX-License-Identifier: MIT */
/* The thread's handle: each error, joins of every kind, names, daemons and the end of a program. */
#include "test_concurrency_left.h"

#include "concurrency/coroutine.h"
#include "concurrency/event.h"
#include "concurrency/thread.h"

#include <sys/mman.h>

static struct modus_event gate;

static int open_gate(void **state)
{
    modus_event_init(&gate, MODUS_THREAD);
    return watchdog(state);
}

static void *pass_gate(void *argument)
{
    modus_event_wait(&gate, MODUS_FOREVER);
    return argument;
}

static struct modus_thread *make(const struct modus_thread_attr *attr, void *(*run)(void *),
                                 void *argument)
{
    struct modus_thread *thread;

    CHECK_INT(modus_thread_new(&thread, attr, run, argument), 0);
    return thread;
}

static struct modus_thread *started(void *(*run)(void *), void *argument)
{
    struct modus_thread *thread = make(NULL, run, argument);

    CHECK_INT(modus_thread_start(thread), 0);
    return thread;
}

static void test_errors(void **state)
{
    struct modus_thread *thread = NULL;
    cpu_set_t none;
    (void)state;

    assert_int_equal(modus_thread_new(&thread, NULL, NULL, NULL), -EINVAL);
    assert_null(thread);
    thread = make(NULL, pass_gate, &gate);
    assert_int_equal(modus_thread_join(thread, 0, NULL), -ESRCH);
    assert_int_equal(modus_thread_join(thread, -2, NULL), -EINVAL);
    assert_int_equal(modus_thread_join_until(thread, -2, NULL), -EINVAL);
    assert_false(modus_thread_alive(thread));
    assert_int_equal(modus_thread_tid(thread), 0);
    assert_int_equal(modus_thread_set_daemon(thread, true), 0);
    assert_true(modus_thread_is_daemon(thread));
    assert_int_equal(modus_thread_start(thread), 0);
    assert_int_equal(modus_thread_start(thread), -EALREADY);
    assert_int_equal(modus_thread_set_daemon(thread, false), -EBUSY);
    assert_true(modus_thread_alive(thread));
    assert_int_equal(modus_thread_join(thread, 0, NULL), -EAGAIN);
    int64_t start = modus_now_ns();
    assert_int_equal(modus_thread_join(thread, modus_ms(10), NULL), -ETIMEDOUT);
    assert_true(modus_now_ns() - start >= modus_ms(10));
    modus_event_set(&gate);
    assert_int_equal(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    assert_int_equal(modus_thread_start(thread), -EALREADY);
    assert_false(modus_thread_alive(thread));
    modus_thread_put(thread);
    modus_thread_put(NULL);

    thread = make(&(struct modus_thread_attr){.stack = 1}, pass_gate, NULL);
    assert_int_equal(modus_thread_start(thread), -EINVAL);
    modus_thread_put(thread);
    CPU_ZERO(&none);
    thread = make(&(struct modus_thread_attr){.affinity = &none}, pass_gate, NULL);
    assert_int_equal(modus_thread_start(thread), -EINVAL);
    assert_int_equal(modus_thread_join(thread, 0, NULL), -ESRCH); /* as new as it was */
    modus_thread_put(thread);
    modus_thread_join_all();
}

static void *join_self(void *argument)
{
    (void)argument;
    CHECK_INT(modus_thread_join(modus_thread_self(), 0, NULL), -EDEADLK);
    CHECK_INT(modus_thread_join(modus_thread_self(), MODUS_FOREVER, NULL), -EDEADLK);
    CHECK(modus_thread_alive(modus_thread_self()));
    return NULL;
}

static void test_self(void **state)
{
    struct modus_thread *main_thread = modus_thread_self();
    (void)state;

    assert_string_equal(modus_thread_name(main_thread), "MainThread");
    assert_int_equal(modus_thread_tid(main_thread), getpid());
    assert_int_equal(modus_thread_join(main_thread, 0, NULL), -EINVAL);
    assert_int_equal(modus_thread_start(main_thread), -EALREADY);
    assert_int_equal(modus_thread_set_daemon(main_thread, true), -EBUSY);
    modus_thread_put(modus_thread_get(main_thread));
    struct modus_thread *thread = started(join_self, NULL);
    assert_int_equal(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    modus_thread_put(thread);
}

static void *foreign_name(void *argument)
{
    CHECK_INT(strcmp(modus_thread_name(modus_thread_self()), "Foreign"), 0);
    CHECK_INT(modus_thread_join(modus_thread_self(), 0, NULL), -EINVAL);
    return argument;
}

static void *own_name(void *argument)
{
    char kernel_name[16];

    CHECK_INT(strcmp(modus_thread_name(modus_thread_self()), argument), 0);
    CHECK_INT(modus_thread_tid(modus_thread_self()), gettid());
    CHECK_INT(pthread_getname_np(pthread_self(), kernel_name, sizeof kernel_name), 0);
    CHECK_INT(strncmp(kernel_name, argument, 15), 0);
    return NULL;
}

static void test_names(void **state)
{
    static char long_name[] = "a name that is longer than fifteen characters";
    (void)state;

    join_thread(start_thread(foreign_name, NULL));
    struct modus_thread *thread =
        make(&(struct modus_thread_attr){.name = long_name}, own_name, long_name);
    CHECK_INT(modus_thread_start(thread), 0);
    CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    modus_thread_put(thread);
    struct modus_thread *one = make(NULL, own_name, NULL), *two = make(NULL, own_name, NULL);
    unsigned first = 0, second = 0;
    assert_int_equal(sscanf(modus_thread_name(one), "Thread-%u", &first), 1);
    assert_int_equal(sscanf(modus_thread_name(two), "Thread-%u", &second), 1);
    assert_int_equal(second, first + 1);
    modus_thread_put(one);
    modus_thread_put(two);
}

struct joiner {
    struct modus_thread *thread;
    void *result;
};

static void *join_it(void *argument)
{
    struct joiner *j = argument;

    CHECK_INT(modus_thread_join(j->thread, MODUS_FOREVER, &j->result), 0);
    return NULL;
}

static void test_many_joiners(void **state)
{
    struct modus_thread *thread = started(pass_gate, &gate);
    struct joiner joiners[8];
    pthread_t threads[8];
    void *result = NULL;
    (void)state;

    for (int i = 0; i < 8; i++) {
        joiners[i] = (struct joiner){thread, NULL};
        threads[i] = start_thread(join_it, &joiners[i]);
    }
    modus_event_set(&gate);
    for (int i = 0; i < 8; i++) {
        join_thread(threads[i]);
        assert_ptr_equal(joiners[i].result, &gate);
    }
    assert_int_equal(modus_thread_join(thread, 0, &result), 0);
    assert_ptr_equal(result, &gate);
    modus_thread_put(thread);
}

/* Whoever is let through finds nothing of the thread left. */
static pthread_key_t key;
static atomic_int destroyed;

static void destroy(void *value)
{
    (void)value;
    usleep(2000); /* so that a join that did not wait for it would be seen */
    atomic_fetch_add(&destroyed, 1);
}

static void *set_key(void *argument)
{
    pthread_setspecific(key, &destroyed);
    return argument;
}

static void test_join_waits_for_destructors(void **state)
{
    (void)state;
    assert_int_equal(pthread_key_create(&key, destroy), 0);
    for (int i = 0; i < 10; i++) {
        struct modus_thread *thread = started(set_key, NULL);

        assert_int_equal(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
        assert_int_equal(atomic_load(&destroyed), i + 1);
        modus_thread_put(thread);
    }
    pthread_key_delete(key);
}

static _Atomic bool may_end;
static _Atomic int joiner;

static void destroy_late(void *value)
{
    AWAIT(atomic_load(&may_end));
    destroy(value);
}

static void *join_first(void *thread)
{
    atomic_store(&joiner, gettid());
    CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    return NULL;
}

static int join_cancelled(void *thread)
{
    atomic_store(&joiner, gettid());
    modus_co_cancel(modus_co_self());
    CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
    CHECK_INT(atomic_load(&destroyed), 1);
    return 0;
}

static void *run_cancelled(void *thread)
{
    CHECK_INT(modus_co_run(join_cancelled, thread), 0);
    return NULL;
}

/* ... also for a coroutine that is cancelled, while another does the joining. */
static void test_cancelled_join_waits_too(void **state)
{
    void *(*const joins[2])(void *) = {join_first, run_cancelled};
    pthread_t joiners[2];
    (void)state;

    atomic_store(&destroyed, 0);
    assert_int_equal(pthread_key_create(&key, destroy_late), 0);
    struct modus_thread *thread = started(set_key, NULL);
    AWAIT(!modus_thread_alive(thread));
    for (int i = 0; i < 2; i++) {
        atomic_store(&joiner, 0);
        joiners[i] = start_thread(joins[i], thread);
        AWAIT(atomic_load(&joiner));
        await_idle(atomic_load(&joiner), 5);
    }
    atomic_store(&may_end, true);
    for (int i = 0; i < 2; i++)
        join_thread(joiners[i]);
    modus_thread_put(thread);
    pthread_key_delete(key);
}

static void *nothing(void *argument)
{
    return argument;
}

static void *leave_early(void *argument)
{
    modus_event_wait(&gate, MODUS_FOREVER);
    pthread_exit(argument);
}

static void test_exit(void **state)
{
    void *result = &gate;
    (void)state;

    unsigned before = threads_here();
    struct modus_thread *thread = started(leave_early, &gate);
    assert_int_equal(modus_thread_join(thread, 0, NULL), -EAGAIN);
    modus_event_set(&gate);
    assert_int_equal(modus_thread_join(thread, MODUS_FOREVER, &result), 0);
    assert_null(result);
    modus_thread_put(thread);
    modus_thread_put(started(leave_early, NULL));
    modus_thread_join_all();
    AWAIT(threads_here() <= before);
}

/* Handles that are put early, late or never joined: no thread and (leak checker) no handle stays. */
static void test_nothing_is_left(void **state)
{
    unsigned before = threads_here(); /* a sanitizer may have one of its own */
    (void)state;

    for (int i = 0; i < 300; i++) {
        struct modus_thread *thread = started(nothing, NULL);

        if (i % 3 == 0)
            CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
        if (i % 3 == 1)
            AWAIT(!modus_thread_alive(thread));
        modus_thread_put(thread);
    }
    modus_thread_join_all();
    AWAIT(threads_here() <= before);
}

static void *daemon_of_daemon(void *argument)
{
    struct modus_thread *inner = make(NULL, nothing, NULL);
    struct modus_thread *plain =
        make(&(struct modus_thread_attr){.daemon = MODUS_DAEMON_NO}, nothing, NULL);

    CHECK(modus_thread_is_daemon(inner) == (argument != NULL));
    CHECK(!modus_thread_is_daemon(plain));
    modus_thread_put(inner);
    modus_thread_put(plain);
    return NULL;
}

static void test_daemons_inherit(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        enum modus_daemon kind = i ? MODUS_DAEMON_YES : MODUS_DAEMON_NO;
        struct modus_thread *thread =
            make(&(struct modus_thread_attr){.daemon = kind}, daemon_of_daemon, i ? &gate : NULL);

        CHECK_INT(modus_thread_start(thread), 0);
        CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
        modus_thread_put(thread);
    }
}

static int join_parents(void *argument)
{
    struct modus_thread *thread = argument;

    CHECK_INT(modus_thread_join(thread, MODUS_FOREVER, NULL), -ECHILD);
    CHECK_INT(modus_thread_join(thread, 0, NULL), -ECHILD);
    CHECK_INT(modus_thread_start(thread), -ECHILD);
    CHECK_INT(strcmp(modus_thread_name(modus_thread_self()), "MainThread"), 0);
    modus_thread_join_all(); /* the child has none */
#ifndef __SANITIZE_THREAD__  /* which can't begin threads in a child of a program with threads */
    struct modus_thread *own = started(nothing, thread);
    void *result;
    CHECK_INT(modus_thread_join(own, MODUS_FOREVER, &result), 0);
    CHECK(result == thread);
    modus_thread_put(own);
#endif
    return 0;
}

static void *fork_inside(void *argument)
{
    CHECK_INT(reap(start_child(join_parents, argument)), 0);
    return NULL;
}

static void test_fork(void **state)
{
    struct modus_thread *thread = started(pass_gate, NULL);
    (void)state;

    assert_int_equal(reap(start_child(join_parents, thread)), 0);
    struct modus_thread *forker = started(fork_inside, thread);
    assert_int_equal(modus_thread_join(forker, MODUS_FOREVER, NULL), 0);
    modus_thread_put(forker);
    modus_event_set(&gate);
    modus_thread_join(thread, MODUS_FOREVER, NULL);
    modus_thread_put(thread);
}

/* A program whose main returns while others run. */
static atomic_int *seen; /* shared: what its threads have done */

static void *work_on(void *argument)
{
    struct modus_thread *more = argument ? NULL : make(NULL, work_on, &gate);

    usleep(5000); /* the main function returns meanwhile */
    if (more) {
        CHECK_INT(modus_thread_start(more), 0);
        modus_thread_put(more);
    }
    atomic_fetch_add(&seen[0], 1);
    return NULL;
}

static void *work_for_ever(void *argument)
{
    (void)argument;
    atomic_fetch_add(&seen[1], 1);
    modus_event_wait(&gate, MODUS_FOREVER);
    atomic_fetch_add(&seen[2], 1);
    return NULL;
}

static int program(int argc, char **argv)
{
    struct modus_thread *daemon =
        make(&(struct modus_thread_attr){.daemon = MODUS_DAEMON_YES}, work_for_ever, NULL);
    (void)argv;

    CHECK_INT(modus_thread_start(daemon), 0);
    AWAIT(atomic_load(&seen[1]) == 1);
    modus_thread_put(daemon);
    modus_thread_put(started(work_on, NULL));
    return argc;
}

static int run_program(void *argument)
{
    char *argv[] = {argument, NULL};

    modus_main(program, 7, argv);
}

static void test_main(void **state)
{
    (void)state;
    seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(reap(start_child(run_program, NULL)), 7);
    assert_int_equal(atomic_load(&seen[0]), 2); /* the one and the one that it made */
    assert_int_equal(atomic_load(&seen[1]), 1);
    assert_int_equal(atomic_load(&seen[2]), 0);
    munmap(seen, 4096);
}

static void *look_at_mask(void *argument)
{
    CHECK_INT(pthread_sigmask(SIG_SETMASK, NULL, argument), 0);
    return NULL;
}

/* Signals are for others; but a thread that crashes can be told of it. */
static void test_no_signals(void **state)
{
    sigset_t before, after, theirs;
    (void)state;

    look_at_mask(&before);
    for (int i = 0; i < 2; i++) {
        struct modus_thread *thread =
            make(&(struct modus_thread_attr){.no_signals = i}, look_at_mask, &theirs);

        assert_int_equal(modus_thread_start(thread), 0);
        assert_int_equal(modus_thread_join(thread, MODUS_FOREVER, NULL), 0);
        modus_thread_put(thread);
        assert_int_equal(sigismember(&theirs, SIGTERM), i);
        assert_int_equal(sigismember(&theirs, SIGCHLD), i);
        assert_int_equal(sigismember(&theirs, SIGSEGV), 0);
    }
    look_at_mask(&after);
    assert_int_equal(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
}

/* A start that fails while others join. It is held up in the middle by a fork, which has its lock: of
 * the handlers that a fork calls first, this program's own is the last (forks.h). */
struct failing {
    struct modus_thread *thread;
    _Atomic int starter, joiners[2];
    _Atomic int started, joined[2]; /* 1: not yet */
};

static struct failing *failing; /* NULL: forks are nothing special */

static void *start_failing(void *argument)
{
    struct failing *f = argument;

    atomic_store(&f->starter, gettid());
    f->started = modus_thread_start(f->thread);
    return NULL;
}

static void *join_failing(void *argument)
{
    static _Atomic int number;
    int i = atomic_fetch_add(&number, 1);
    struct failing *f = argument;

    atomic_store(&f->joiners[i], gettid());
    f->joined[i] = modus_thread_join(f->thread, i ? modus_seconds(60) : MODUS_FOREVER, NULL);
    return NULL;
}

static void hold_up(void)
{
    struct failing *f = failing;
    pthread_t thread;

    if (!f)
        return;
    for (int i = 0; i < 3; i++) {
        _Atomic int *tid = i == 0 ? &f->starter : &f->joiners[i - 1];

        thread = start_thread(i == 0 ? start_failing : join_failing, f);
        pthread_detach(thread);
        AWAIT(atomic_load(tid));
        AWAIT_ASLEEP(atomic_load(tid));
    }
}

__attribute__((constructor(999))) static void watch_forks(void)
{
    pthread_atfork(hold_up, NULL, NULL);
}

static void test_join_of_failed_start(void **state)
{
    struct modus_thread_attr too_large = {.stack = (size_t)1 << 46};
    struct failing f = {
        .thread = make(&too_large, pass_gate, &gate), .started = 1, .joined = {1, 1}};
    (void)state;

    failing = &f;
    pid_t pid = fork();
    if (pid == 0)
        _exit(7);
    failing = NULL;
    assert_int_equal(reap(pid), 7);
    AWAIT(atomic_load(&f.started) != 1);
    assert_int_equal(f.started, -EAGAIN);
    for (int i = 0; i < 2; i++) {
        AWAIT(atomic_load(&f.joined[i]) != 1);
        assert_int_equal(f.joined[i], -ESRCH);
    }
    modus_thread_put(f.thread);
}

#define TEST(name) cmocka_unit_test_setup(name, open_gate)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errors),
        TEST(test_self),
        TEST(test_names),
        TEST(test_many_joiners),
        TEST(test_join_waits_for_destructors),
        TEST(test_cancelled_join_waits_too),
        TEST(test_join_of_failed_start),
        TEST(test_exit),
        TEST(test_no_signals),
        TEST(test_nothing_is_left),
        TEST(test_daemons_inherit),
        TEST(test_fork),
        TEST(test_main),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
