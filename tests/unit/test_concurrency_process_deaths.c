/* SPDX-License-Identifier: MIT */
/*
 * Whoever waits between processes hears of the deaths of its own children, though it is the one that
 * would have to reap them. Nothing here is joined, looked at or put while somebody waits.
 */
#include "test_concurrency_process.h"

#include "concurrency/barrier.h"
#include "concurrency/coroutine.h"
#include "concurrency/doorbell.h"
#include "concurrency/queue.h"
#include "concurrency/rwlock.h"
#include "concurrency/sem.h"

#include <poll.h>
#include <sys/resource.h>

/* What the dead had. */
struct estate {
    struct modus_sem sem; /* accounted, 1 */
    struct modus_barrier barrier;
    struct modus_rwlock rwlock;
    atomic_int taken; /* by how many */
    atomic_int waiter;
};

static struct estate *estate;
static struct modus_queue lost, redelivered;

static void init_queue(struct modus_queue *queue, enum modus_queue_death on_death)
{
    const struct modus_queue_attr attr = {.scope = MODUS_PROCESS,
                                          .arena = arena,
                                          .capacity = 4,
                                          .item_size = sizeof(int),
                                          .joinable = true,
                                          .on_death = on_death};

    CHECK_INT(modus_queue_init(queue, &attr), 0);
    CHECK_INT(modus_queue_put(queue, &(int){5}, 0), 0);
}

static int open_estate(void **state)
{
    int rc = open_board(state);

    CHECK(modus_participant_join(arena) > 0);
    if (!estate)
        estate = modus_arena_alloc(arena, sizeof *estate, 0);
    memset(estate, 0, sizeof *estate);
    init_queue(&lost, MODUS_QUEUE_LOST);
    init_queue(&redelivered, MODUS_QUEUE_REDELIVER);
    const struct modus_sem_attr one = {.scope = MODUS_PROCESS, .value = 1, .accounted = true};
    CHECK_INT(modus_sem_init(&estate->sem, &one), 0);
    const struct modus_barrier_attr three = {.scope = MODUS_PROCESS, .parties = 3, .arena = arena};
    CHECK_INT(modus_barrier_init(&estate->barrier, &three), 0);
    CHECK_INT(modus_rwlock_init(&estate->rwlock, MODUS_PROCESS), 0);
    return rc;
}

static int close_estate(void **state)
{
    (void)state;
    modus_rwlock_fini(&estate->rwlock);
    modus_barrier_fini(&estate->barrier);
    modus_sem_fini(&estate->sem);
    modus_queue_fini(&redelivered);
    modus_queue_fini(&lost);
    return 0;
}

/* --- who dies -------------------------------------------------------------------------------- */

static void take_all(void)
{
    int item;

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_sem_acquire(&estate->sem, 0), 0);
    CHECK_INT(modus_rwlock_read(&estate->rwlock, 0), 0);
    CHECK_INT(modus_queue_get(&lost, &item, 0), 0);
    CHECK_INT(modus_queue_get(&redelivered, &item, 0), 0);
}

/* Die once somebody waits for what we have. */
static int take_and_die(void *argument)
{
    (void)argument;
    alarm(WATCHDOG_SECONDS);
    take_all();
    atomic_fetch_add(&estate->taken, 1);
    AWAIT(atomic_load(&estate->waiter) != 0);
    AWAIT_ASLEEP(atomic_load(&estate->waiter));
    kill(getpid(), SIGKILL);
    return 0;
}

static void *be_a_party(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_barrier_wait(&estate->barrier, MODUS_FOREVER), MODUS_BROKEN);
    return argument;
}

/* Die if so many are to wait, once they do and the waiter sleeps. */
static int wait_at_barrier_and_die(void *argument)
{
    pthread_t party = start_thread(be_a_party, NULL);

    alarm(WATCHDOG_SECONDS);
    if (argument) {
        AWAIT(modus_barrier_waiting(&estate->barrier) >= *(unsigned *)argument);
        AWAIT(atomic_load(&estate->waiter) != 0);
        AWAIT_ASLEEP(atomic_load(&estate->waiter));
        kill(getpid(), SIGKILL);
    }
    join_thread(party);
    return 0;
}

static struct modus_process *start_taker(void)
{
    struct modus_process *taker = started(NULL, take_and_die, NULL);

    AWAIT(atomic_load(&estate->taken) == 1);
    return taker;
}

static void let_it_die(void)
{
    atomic_store(&estate->waiter, gettid());
}

/* --- every kind of wait ---------------------------------------------------------------------- */

static int acquire_sem(void *argument)
{
    (void)argument;
    return modus_sem_acquire(&estate->sem, MODUS_FOREVER);
}

static int join_queue(void *argument)
{
    (void)argument;
    return modus_queue_join(&lost, MODUS_FOREVER);
}

static int get_again(void *argument)
{
    int item = 0, rc = modus_queue_get(&redelivered, &item, MODUS_FOREVER);
    (void)argument;

    CHECK_INT(item, 5);
    return rc;
}

static int write_rwlock(void *argument)
{
    int rc = modus_rwlock_write(&estate->rwlock, MODUS_FOREVER);
    (void)argument;

    modus_rwlock_release(&estate->rwlock);
    return rc;
}

static void check_wait(int (*wait)(void *), bool in_coroutine)
{
    unsigned fds = fds_here();
    struct modus_process *taker = start_taker();

    let_it_die();
    CHECK_INT(in_coroutine ? modus_co_run(wait, NULL) : wait(NULL), 0);
    assert_int_equal(code_of(taker), -SIGKILL); /* it is there still */
    if (!in_coroutine)
        AWAIT(fds_here() == fds && threads_here() <= threads);
}

static void test_sem(void **state)
{
    (void)state;
    check_wait(acquire_sem, false);
}

static void test_join(void **state)
{
    (void)state;
    check_wait(join_queue, false);
}

static void test_get(void **state)
{
    (void)state;
    check_wait(get_again, false);
}

static void test_rwlock(void **state)
{
    (void)state;
    check_wait(write_rwlock, false);
}

static void test_barrier(void **state)
{
    (void)state;
    struct modus_process *party = started(NULL, wait_at_barrier_and_die, &(unsigned){1});

    AWAIT(modus_barrier_waiting(&estate->barrier) == 1);
    let_it_die();
    assert_int_equal(modus_barrier_wait(&estate->barrier, MODUS_FOREVER), MODUS_BROKEN);
    assert_int_equal(code_of(party), -SIGKILL);
}

/* Nobody has died: it broke by us. */
static void test_barrier_timeout(void **state)
{
    (void)state;
    struct modus_process *party = started(NULL, wait_at_barrier_and_die, NULL);

    AWAIT(modus_barrier_waiting(&estate->barrier) == 1);
    assert_int_equal(modus_barrier_wait(&estate->barrier, modus_ms(1)), -ETIMEDOUT);
    assert_int_equal(code_of(party), 0);
}

/* A loop hears it by its doorbell. */
static void test_armed(void **state)
{
    struct modus_doorbell *bell = modus_arena_alloc(arena, sizeof *bell, 0);
    (void)state;

    assert_int_equal(modus_doorbell_init(bell), 0);
    struct modus_process *taker = start_taker();
    int item;
    assert_int_equal(modus_queue_arm_get(&redelivered, bell), 0);
    struct pollfd look = {.fd = modus_doorbell_fd(bell), .events = POLLIN};
    let_it_die();
    while (modus_queue_get(&redelivered, &item, 0) < 0) {
        assert_int_equal(poll(&look, 1, -1), 1);
        modus_doorbell_hear(bell);
    }
    assert_int_equal(item, 5);
    assert_int_equal(code_of(taker), -SIGKILL);
    modus_queue_disarm_get(&redelivered, bell);
    modus_doorbell_fini(bell);
    modus_arena_free(arena, bell, sizeof *bell);
}

/* --- who waits, and since when --------------------------------------------------------------- */

static int wait_for_own_child(void *in_coroutine)
{
    CHECK(modus_participant_join(arena) > 0);
    check_wait(acquire_sem, in_coroutine != NULL);
    return 0;
}

/* In a child: the thread that sleeps for coroutines stays. */
static void test_coroutine(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(wait_for_own_child, estate)), 0);
}

/* A forked child has children of its own to hear of. */
static void test_forked_child(void **state)
{
    (void)state;
    modus_event_wait(&board->gate, modus_ms(1)); /* its parent has been here */
    assert_int_equal(reap(start_child(wait_for_own_child, NULL)), 0);
}

static void test_grandchild(void **state)
{
    (void)state;
    assert_int_equal(code_of(started(NULL, wait_for_own_child, NULL)), 0);
}

/* Started by another thread while we wait already. */
static void *start_one_more(void *argument)
{
    struct modus_process **party = argument;

    AWAIT_ASLEEP(getpid());
    *party = started(NULL, wait_at_barrier_and_die, &(unsigned){2});
    return NULL;
}

static void test_started_later(void **state)
{
    struct modus_process *party;
    (void)state;

    pthread_t thread = start_thread(start_one_more, &party);
    let_it_die();
    assert_int_equal(modus_barrier_wait(&estate->barrier, MODUS_FOREVER), MODUS_BROKEN);
    join_thread(thread);
    assert_int_equal(code_of(party), -SIGKILL);
}

/* --- when there is no thread for it ----------------------------------------------------------- */

static struct modus_process *doomed;

static void *give_descriptors_back(void *argument)
{
    siginfo_t info;

    CHECK_INT(waitid(P_PID, (id_t)modus_process_pid(doomed), &info, WEXITED | WNOWAIT), 0);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, argument), 0);
    return NULL;
}

static int wait_without_descriptors(void *argument)
{
    struct rlimit limit, none;
    (void)argument;

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    doomed = start_taker();
    pthread_t thread = start_thread(give_descriptors_back, &limit);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), 0);
    let_it_die();
    CHECK_INT(acquire_sem(NULL), 0);
    join_thread(thread);
    CHECK_INT(code_of(doomed), -SIGKILL);
    return 0;
}

/* Nothing fails, and it is tried again. In a child, which has not waited so before. */
static void test_no_descriptors(void **state)
{
    (void)state;
    assert_int_equal(reap(start_child(wait_without_descriptors, NULL)), 0);
}

#define DEATH(name) cmocka_unit_test_setup_teardown(name, open_estate, close_estate)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DEATH(test_sem),        DEATH(test_join),          DEATH(test_get),
        DEATH(test_rwlock),     DEATH(test_barrier),       DEATH(test_barrier_timeout),
        DEATH(test_armed),      DEATH(test_coroutine),     DEATH(test_forked_child),
        DEATH(test_grandchild), DEATH(test_started_later), DEATH(test_no_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
