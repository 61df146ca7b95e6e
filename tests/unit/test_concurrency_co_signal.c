/* SPDX-License-Identifier: MIT */
/*
 * Signal handlers that wake coroutines of the thread that they interrupt, at the worst moments.
 *
 * Such a moment is an instruction long, so the thread is single-stepped where the processor can do
 * that (x86-64): a trap before each instruction, and its handler is the one that wakes.
 */
#include "test_concurrency_co.h"

#include "concurrency/coroutine_priv.h"
#include "concurrency/event.h"
#include "concurrency/park.h"

#include <poll.h>
#include <sys/syscall.h>
#include <ucontext.h>

static struct modus_event event, other;
static _Atomic unsigned woken;
static bool over;

static void set_event(int signal)
{
    (void)signal;
    modus_event_set(&event);
}

static void handle(int signal, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

    CHECK_INT(sigaction(signal, &action, NULL), 0);
}

static int begin(void **state)
{
    modus_event_init(&event, MODUS_THREAD);
    modus_event_init(&other, MODUS_THREAD);
    over = false;
    atomic_store(&woken, 0);
    return watchdog(state);
}

/* Count each time that the event is set, and tell of it. */
static int wait_often(void *argument)
{
    (void)argument;
    for (;;) {
        CHECK_INT(modus_event_wait(&event, MODUS_FOREVER), 0);
        if (over)
            return 0;
        modus_event_clear(&event);
        atomic_fetch_add(&woken, 1);
        modus_event_set(&other);
    }
}

/* --- a loop that sleeps ------------------------------------------------------------------------ */

struct sleeper {
    _Atomic int tid;
    pthread_t thread;
};

static int wait_once(void *argument)
{
    struct sleeper *me = argument;

    me->thread = pthread_self();
    atomic_store(&me->tid, gettid());
    return modus_event_wait(&event, MODUS_FOREVER);
}

static void *run_sleeper(void *argument)
{
    CHECK_INT(modus_co_run(wait_once, argument), 0);
    return NULL;
}

/* One signal, which finds all asleep. */
static void test_idle(void **state)
{
    struct sleeper sleeper = {0};
    (void)state;

    handle(SIGUSR1, set_event);
    pthread_t thread = start_thread(run_sleeper, &sleeper);
    AWAIT(atomic_load(&sleeper.tid));
    AWAIT_ASLEEP(atomic_load(&sleeper.tid));
    pthread_kill(sleeper.thread, SIGUSR1);
    join_thread(thread);
}

/* Between two turns it is the host that sleeps: it must hear of it. */
static void test_guest(void **state)
{
    struct modus_co *co;
    (void)state;

    handle(SIGUSR1, set_event);
    assert_int_equal(modus_co_guest_open(), 0);
    struct pollfd fd = {.fd = modus_co_guest_fd(), .events = POLLIN};
    assert_int_equal(modus_co_start(&co, NULL, wait_often, NULL), 0);
    assert_int_equal(modus_co_guest_turn(false), MODUS_FOREVER);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(poll(&fd, 1, 0), 0);
        raise(SIGUSR1);
        assert_int_equal(poll(&fd, 1, 0), 1);
        assert_int_equal(modus_co_guest_turn(true), MODUS_FOREVER);
        assert_int_equal(atomic_load(&woken), i);
    }
    over = true;
    modus_event_set(&event);
    assert_int_equal(modus_co_guest_turn(false), MODUS_FOREVER);
    assert_int_equal(modus_co_join(co, 0, NULL), 0);
    modus_co_put(co);
    assert_int_equal(modus_co_guest_close(), 0);
}

/* --- wakes for no reason ----------------------------------------------------------------------- */

static int sleep_on(void *end)
{
    int64_t time = *(int64_t *)end;

    CHECK_INT(modus_co_sleep_until(time), 0);
    CHECK(modus_now_ns() >= time);
    return 0;
}

/* As a handler does to all that wait for anything, when it meets the lot at work (lot.h). */
static int wake_a_sleeper(void *argument)
{
    int64_t end = modus_now_ns() + modus_ms(50);
    struct modus_co *co = go(sleep_on, &end);
    (void)argument;

    for (int i = 0; i < 3; i++) {
        modus_co_yield();
        CHECK(modus_now_ns() > end || modus_lot_wake(&co->never, 1) == 1);
    }
    return joined(co);
}

static void test_sleeper(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(wake_a_sleeper, NULL), 0);
}

/* --- at each instruction ----------------------------------------------------------------------- */

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__) /* which delays signals */

enum { TRAP_FLAG = 0x100, EACH_UP_TO = 100000, TURNS = 1000 };

static unsigned steps, wake_at; /* at which step; 0: before the loop sleeps in the kernel */
static bool stepping;

/* Is the next instruction a call of epoll_wait that waits? */
static bool about_to_sleep(const ucontext_t *context)
{
    const greg_t *regs = context->uc_mcontext.gregs;
    const unsigned char *next = (const unsigned char *)regs[REG_RIP];

    return next[0] == 0x0f && next[1] == 0x05 &&
           (regs[REG_RAX] == SYS_epoll_wait || regs[REG_RAX] == SYS_epoll_pwait) &&
           (int)regs[REG_R10] != 0;
}

static void on_step(int signal, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    (void)signal;
    (void)info;

    steps++;
    if (wake_at ? steps == wake_at : about_to_sleep(interrupted)) {
        modus_event_set(&event);
        stepping = false;
    }
    if (!stepping)
        interrupted->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

/* From now on; not into the red zone of who calls. */
static inline __attribute__((always_inline)) void begin_steps(unsigned at)
{
    steps = 0;
    wake_at = at;
    stepping = true;
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq %0, (%%rsp)\n\tpopfq\n\t"
                     "lea 128(%%rsp), %%rsp"
                     :
                     : "i"(TRAP_FLAG)
                     : "memory", "cc");
}

static void handle_steps(void)
{
    struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};

    CHECK_INT(sigaction(SIGTRAP, &action, NULL), 0);
}

static int wake_before_sleep(void *argument)
{
    struct modus_co *co = go(wait_often, NULL);
    (void)argument;

    modus_co_yield(); /* so it waits */
    begin_steps(0);
    CHECK_INT(modus_event_wait(&other, MODUS_FOREVER), 0);
    CHECK(!stepping);
    over = true;
    modus_event_set(&event);
    return joined(co);
}

/* The loop has seen that nobody is ready, and is about to sleep. */
static void test_before_sleep(void **state)
{
    (void)state;
    handle_steps();
    assert_int_equal(modus_co_run(wake_before_sleep, NULL), 0);
}

static int wake_at_each(void *argument)
{
    struct modus_co *co = go(wait_often, NULL);
    unsigned at;
    (void)argument;

    for (at = 1; at < EACH_UP_TO; at++) {
        unsigned before = atomic_load(&woken);

        modus_co_yield(); /* so it waits */
        begin_steps(at);
        modus_co_yield();
        if (stepping) {
            stepping = false; /* that was the last one */
            break;
        }
        for (int i = 0; i < TURNS && atomic_load(&woken) == before; i++)
            modus_co_yield();
        CHECK_INT(atomic_load(&woken), before + 1);
    }
    CHECK(at > 20 && at < EACH_UP_TO);
    over = true;
    modus_event_set(&event);
    return joined(co);
}

/* While the loop goes from one coroutine to the next: none is lost. */
static void test_between_coroutines(void **state)
{
    (void)state;
    handle_steps();
    assert_int_equal(modus_co_run(wake_at_each, NULL), 0);
}

static unsigned runs;

static int run_five_times(void *argument)
{
    (void)argument;
    for (;;) {
        CHECK_INT(modus_event_wait(&event, MODUS_FOREVER), 0);
        if (over)
            return 0;
        modus_event_clear(&event);
        for (int i = 0; i < 5; i++) {
            runs++;
            modus_co_yield();
        }
    }
}

static int be_another(void *argument)
{
    (void)argument;
    while (!over) {
        CHECK_INT(modus_event_wait(&other, MODUS_FOREVER), 0);
        modus_event_clear(&other);
    }
    return 0;
}

/* In a guest's turn each runs once, whenever it became ready; and none is lost. */
static void test_in_a_turn(void **state)
{
    unsigned at;
    (void)state;

    handle_steps();
    assert_int_equal(modus_co_guest_open(), 0);
    assert_int_equal(modus_co_start(NULL, NULL, run_five_times, NULL), 0);
    assert_int_equal(modus_co_start(NULL, NULL, be_another, NULL), 0);
    assert_int_equal(modus_co_guest_turn(false), MODUS_FOREVER);
    for (at = 1; at < EACH_UP_TO; at++) {
        modus_event_set(&other); /* so that the last in the list was another one */
        modus_co_guest_turn(true);
        runs = 0;
        begin_steps(at);
        modus_co_guest_turn(false);
        if (stepping)
            break;
        assert_true(runs <= 1);
        for (int i = 0; i < 20; i++)
            modus_co_guest_turn(true);
        assert_int_equal(runs, 5);
    }
    stepping = false;
    assert_true(at > 20 && at < EACH_UP_TO);
    over = true;
    modus_event_set(&event);
    modus_event_set(&other);
    modus_co_guest_turn(false);
    assert_int_equal(modus_co_guest_close(), 0);
}

#else

static void test_in_a_turn(void **state)
{
    (void)state;
    skip();
}

static void test_before_sleep(void **state)
{
    (void)state;
    skip();
}

static void test_between_coroutines(void **state)
{
    (void)state;
    skip();
}

#endif

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_idle),
        TEST(test_guest),
        TEST(test_sleeper),
        TEST(test_before_sleep),
        TEST(test_between_coroutines),
        TEST(test_in_a_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
