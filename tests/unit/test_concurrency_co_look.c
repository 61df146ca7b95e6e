/* SPDX-License-Identifier: MIT */
/* What somebody who debugs sees of coroutines: who waits for what, and whose stack was too small. */
#include "test_concurrency_co.h"

#include "concurrency/coroutine_priv.h"
#include "concurrency/event.h"
#include "concurrency/generator.h"
#include "concurrency/lock.h"

#include <poll.h>

/* --- looking ---------------------------------------------------------------------------------- */

static struct modus_event event = MODUS_EVENT_INIT;
static struct modus_lock lock = MODUS_LOCK_INIT;
static struct modus_co *sleeper;
static int ends[2];

static int on_event(void *argument)
{
    return modus_event_wait(&event, argument ? 0 : MODUS_FOREVER);
}

static int on_lock(void *argument)
{
    CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0);
    CHECK_INT(modus_lock_release(&lock), 0);
    return argument != NULL;
}

static int on_fd(void *argument)
{
    return modus_co_wait_fd(ends[0], POLLIN, MODUS_FOREVER, argument);
}

static int on_time(void *argument)
{
    return modus_co_sleep(argument ? 0 : modus_seconds(100));
}

static int on_join(void *argument)
{
    return modus_co_join(argument, MODUS_FOREVER, NULL);
}

static int not_yet(void *argument)
{
    volatile char much[20000];

    for (size_t i = 0; i < sizeof much; i++)
        much[i] = 1;
    return modus_co_yield() == 0 && argument == NULL ? much[77] : 0;
}

static int see(const struct modus_co_info *info, void *context)
{
    unsigned *seen = context;

    CHECK(info->stack >= 12288 && info->touched > 0 && info->touched <= info->stack);
    if (strcmp(info->name, "looker") == 0) {
        CHECK(info->state == MODUS_CO_RUNNING && !info->object);
        *seen |= 1;
    } else if (strcmp(info->name, "big") == 0) {
        CHECK(info->state == MODUS_CO_READY);
        CHECK(info->touched >= 20000);
        *seen |= 2;
    } else {
        CHECK(info->state == MODUS_CO_WAITING);
        CHECK(info->since > 0 && info->since <= modus_now_ns());
        *seen |= 4u << info->wait;
        switch (info->wait) {
        case MODUS_CO_WORD:
            CHECK((const char *)info->object >= (char *)&event &&
                  (const char *)info->object < (char *)(&event + 1));
            break;
        case MODUS_CO_LOCK:
            CHECK(info->object == (void *)(uintptr_t)&lock.word);
            break;
        case MODUS_CO_FD:
            CHECK((intptr_t)info->object == ends[0]);
            break;
        case MODUS_CO_JOIN:
            CHECK(info->object == sleeper);
            CHECK(info->cancelled);
            break;
        case MODUS_CO_SLEEP:
        case MODUS_CO_SHARED:
            break;
        }
    }
    return 0;
}

static int stop(const struct modus_co_info *info, void *context)
{
    return info && context ? 8 : 9;
}

static void check_dump(void)
{
    static const char *const words[] = {
        "looker: running;", "big: ready;",           "locked: waits for the lock at ",
        "since ",           "waits for descriptor ", "joins sleeper",
        "sleeper: sleeps",  ", cancelled",           " of 61440\n"};
    char text[4096] = {0};
    size_t n = 0;

    CHECK_INT(modus_co_dump(-1), -EINVAL);
    CHECK_INT(modus_co_dump(ends[1]), 0);
    while (n < sizeof text - 1 &&
           poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, 0) == 1)
        n += (size_t)read(ends[0], text + n, sizeof text - 1 - n);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(text, words[i])) {
            fprintf(stderr, "no \"%s\" in:\n%s", words[i], text);
            abort();
        }
}

static struct modus_co *named(const char *name, int (*run)(void *), void *argument)
{
    struct modus_co *co;

    CHECK_INT(modus_co_start(&co, &(struct modus_co_attr){.name = name}, run, argument), 0);
    return co;
}

static int looker(void *argument)
{
    unsigned seen = 0;
    (void)argument;

    CHECK_INT(pipe(ends), 0);
    CHECK_INT(modus_lock_acquire(&lock, MODUS_FOREVER), 0);
    sleeper = named("sleeper", on_time, NULL);
    struct modus_co *co[] = {named("waiter", on_event, NULL), named("locked", on_lock, NULL),
                             named("reader", on_fd, NULL), named("joiner", on_join, sleeper)};
    CHECK_INT(modus_co_yield(), 0);
    modus_co_cancel(co[3]); /* it will see that when the loop comes round */
    struct modus_co *big = named("big", not_yet, NULL);
    CHECK_INT(modus_co_yield(), 0);
    CHECK_INT(modus_co_walk(see, &seen), 0);
    CHECK(seen == (3 | 4u << MODUS_CO_WORD | 4u << MODUS_CO_LOCK | 4u << MODUS_CO_SLEEP |
                   4u << MODUS_CO_FD | 4u << MODUS_CO_JOIN));
    CHECK_INT(modus_co_walk(stop, &seen), 8);
    check_dump();
    CHECK_INT(modus_lock_release(&lock), 0);
    modus_co_cancel(sleeper);
    for (int i = 0; i < 4; i++) {
        modus_co_cancel(co[i]);
        joined(co[i]);
    }
    CHECK_INT(joined(sleeper), MODUS_CANCELED);
    CHECK_INT(joined(big), 1);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static int run_looker(void *argument)
{
    struct modus_co *co;
    (void)argument;

    CHECK_INT(modus_co_start(&co, &(struct modus_co_attr){.name = "looker"}, looker, NULL), 0);
    /* nobody but those that the looker made */
    modus_co_put(co);
    return 0;
}

static void test_looking(void **state)
{
    (void)state;
    assert_int_equal(modus_co_walk(see, NULL), -EPERM);
    assert_int_equal(modus_co_dump(1), -EPERM);
    assert_int_equal(modus_co_run(run_looker, NULL), 0);
}

/* --- overflows -------------------------------------------------------------------------------- */

static int fall(int depth)
{
    volatile char frame[512];

    frame[0] = (char)depth;
    int below = depth < 1000000 ? fall(depth + 1) : 0;
    return below + frame[0];
}

static int fall_down(void *argument)
{
    return fall(argument != NULL);
}

static int generate_and_fall(struct modus_generator *self, void *argument)
{
    CHECK_INT(modus_generator_yield(self, argument), 0);
    return fall(1);
}

static int draw_and_fall(void *argument)
{
    struct modus_generator *generator;

    CHECK_INT(modus_generator_new(&generator, 20000, generate_and_fall, argument), 0);
    CHECK_INT(modus_generator_next(generator, NULL), 0);
    return modus_generator_next(generator, NULL);
}

static volatile uintptr_t nowhere = 4096;

static int write_nowhere(void *argument)
{
    *(volatile int *)nowhere = 1;
    return argument != NULL;
}

static int overflowing(void *run)
{
    struct modus_co *co;
    int (*function)(void *) = *(int (**)(void *))run;

    CHECK_INT(modus_co_start(&co, &(struct modus_co_attr){.name = "climber", .stack = 28 * 1024},
                             function, NULL),
              0);
    modus_co_join(co, MODUS_FOREVER, NULL);
    return 0;
}

/* Returns how the child ended; text becomes what it said. */
static int end_of(int (*run)(void *), char *text, size_t size)
{
    int says[2];

    CHECK_INT(pipe(says), 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(says[1], STDERR_FILENO);
        signal(SIGSEGV, SIG_DFL);
        if (modus_co_name_overflows() != 0 || modus_co_name_overflows() != 0)
            _exit(1);
        modus_co_run(overflowing, &run);
        _exit(0);
    }
    close(says[1]);
    size_t n = 0;
    for (ssize_t got; n < size - 1 && (got = read(says[0], text + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    close(says[0]);
    return reap(child);
}

static void test_overflows(void **state)
{
    char text[8192];
    (void)state;

    assert_int_equal(end_of(fall_down, text, sizeof text), -SIGSEGV);
    assert_string_equal(text, "modus: coroutine climber has run over its stack of 28672 bytes\n");
    assert_int_equal(end_of(draw_and_fall, text, sizeof text), -SIGSEGV);
    assert_string_equal(text, "modus: a generator of coroutine climber has run over its stack of "
                              "28672 bytes\n");
    assert_int_equal(end_of(write_nowhere, text, sizeof text), -SIGSEGV);
    assert_string_equal(text, ""); /* another fault is not explained */
}

/* --- stacks, with other threads about ----------------------------------------------------------- */

static int end_at_once(void *argument)
{
    return argument != NULL;
}

static int start_hundreds(void *argument)
{
    for (int i = 0; i < 600; i++)
        CHECK_INT(modus_co_start(NULL, NULL, end_at_once, argument), 0);
    return 0;
}

static void *start_thousands(void *argument)
{
    for (int i = 0; i < (SLOW ? 5 : 60); i++)
        CHECK_INT(modus_co_run(start_hundreds, argument), 0);
    return NULL;
}

/* More stacks than a thread keeps: those of several loops meet at the common list, where the loops
 * wait as threads do. */
static void test_stacks_of_several(void **state)
{
    pthread_t threads[3];
    (void)state;

    for (int i = 0; i < 3; i++)
        threads[i] = start_thread(start_thousands, NULL);
    for (int i = 0; i < 3; i++)
        join_thread(threads[i]);
}

/* --- ids -------------------------------------------------------------------------------------- */

enum { EACH = 700, TURNS = 3, LOOPS = 2, ALL = LOOPS * TURNS * EACH };

static uint32_t ids[ALL];
static _Atomic unsigned known;
static _Atomic int loops_here;

static int note_id(void *argument)
{
    struct modus_co *co = modus_co_self();

    ids[atomic_fetch_add(&known, 1)] = co->id;
    return modus_event_wait(argument, MODUS_FOREVER);
}

/* Each turn begins with ids that are taken: as after a thousand million starts. */
static int come_round(void *argument)
{
    struct modus_event end;
    (void)argument;

    CHECK_INT(modus_event_init(&end, MODUS_THREAD), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        atomic_store(&modus_co_next_block, 0);
        for (int i = 0; i < EACH; i++)
            CHECK_INT(modus_co_start(NULL, NULL, note_id, &end), 0);
        CHECK_INT(modus_co_yield(), 0);
    }
    atomic_fetch_add(&loops_here, 1);
    while (atomic_load(&loops_here) < LOOPS)
        CHECK_INT(modus_co_sleep(modus_ms(1)), 0);
    modus_event_set(&end);
    return 0;
}

static void *run_round(void *argument)
{
    CHECK_INT(modus_co_run(come_round, argument), 0);
    return NULL;
}

static int by_value(const void *one, const void *other)
{
    uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;

    return (a > b) - (a < b);
}

static int own_id(void *argument)
{
    (void)argument;
    return (int)modus_co_self()->id;
}

/* No two that live have the same id, although ids are used again. */
static void test_ids(void **state)
{
    (void)state;
    pthread_t thread = start_thread(run_round, NULL);
    run_round(NULL);
    join_thread(thread);
    assert_int_equal(atomic_load(&known), ALL);
    qsort(ids, ALL, sizeof *ids, by_value);
    for (int i = 1; i < ALL; i++)
        assert_true(ids[i - 1] < ids[i]);
    for (int i = 0; i < 2; i++) { /* of those that were, none is lost */
        atomic_store(&modus_co_next_block, 0);
        assert_int_equal(modus_co_run(own_id, NULL), ids[0] & ~255u);
    }
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_looking),
        TEST(test_overflows),
        TEST(test_stacks_of_several),
        TEST(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
