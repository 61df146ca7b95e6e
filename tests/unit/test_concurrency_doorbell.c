/* SPDX-License-Identifier: MIT */
/* Doorbells: coalescing, every object through epoll, 64 loops, and ringers that die. */
#include "test_concurrency.h"

#include "concurrency/doorbell.h"
#include "concurrency/event.h"
#include "concurrency/fault.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>

static struct modus_arena *arena;

static int loop_new(struct modus_doorbell *bell)
{
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = bell};

    CHECK(loop >= 0);
    CHECK_INT(epoll_ctl(loop, EPOLL_CTL_ADD, modus_doorbell_fd(bell), &wanted), 0);
    return loop;
}

/* Is the loop called within so many milliseconds? */
static bool called(int loop, int ms)
{
    struct epoll_event event;
    int n = epoll_wait(loop, &event, 1, ms);

    CHECK(n >= 0);
    return n == 1;
}

static void test_bell(void **state)
{
    struct modus_doorbell bell = {0};
    uint64_t count = 0;
    (void)state;

    assert_int_equal(modus_doorbell_fd(&bell), -1);
    modus_doorbell_ring(&bell);
    modus_doorbell_hear(&bell);
    modus_doorbell_fini(&bell);
    assert_int_equal(modus_doorbell_init(&bell), 0);
    int fd = modus_doorbell_fd(&bell), loop = loop_new(&bell);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_false(called(loop, 0));
    modus_doorbell_hear(&bell);
    for (int i = 0; i < 5; i++)
        modus_doorbell_ring(&bell);
    assert_true(called(loop, 0));
    /* Five rings, one write. */
    assert_int_equal(read(fd, &count, sizeof count), sizeof count);
    assert_int_equal(count, 1);
    modus_doorbell_hear(&bell);
    assert_false(called(loop, 0));
    modus_doorbell_ring(&bell);
    assert_true(called(loop, 0));
    modus_doorbell_hear(&bell);
    assert_false(called(loop, 0));
    modus_doorbell_fini(&bell);
    assert_int_equal(modus_doorbell_fd(&bell), -1);
    close(loop);
}

static void test_event(void **state)
{
    struct modus_event event = MODUS_EVENT_INIT;
    struct modus_doorbell bell;
    (void)state;

    assert_int_equal(modus_doorbell_init(&bell), 0);
    int loop = loop_new(&bell);
    assert_int_equal(modus_event_arm(&event, &bell), 0);
    assert_int_equal(modus_event_arm(&event, &bell), 0);
    modus_event_set(&event);
    assert_true(called(loop, 0));
    modus_doorbell_hear(&bell);
    assert_true(modus_event_is_set(&event));
    assert_false(called(loop, 0));
    modus_event_disarm(&event, &bell);
    modus_event_set(&event);
    assert_false(called(loop, 0));
    modus_event_fini(&event);
    modus_doorbell_fini(&bell);
    close(loop);
}

static void test_sem(void **state)
{
    struct modus_sem sem;
    struct modus_doorbell bell;
    (void)state;

    assert_int_equal(modus_sem_init(&sem, &(struct modus_sem_attr){.scope = MODUS_THREAD}), 0);
    assert_int_equal(modus_doorbell_init(&bell), 0);
    int loop = loop_new(&bell);
    assert_int_equal(modus_sem_arm(&sem, &bell), 0);
    assert_int_equal(modus_sem_try(&sem), -EAGAIN);
    assert_int_equal(modus_sem_release(&sem, 1), 0);
    assert_true(called(loop, 0));
    modus_doorbell_hear(&bell);
    assert_int_equal(modus_sem_try(&sem), 0);
    modus_sem_disarm(&sem, &bell);
    assert_int_equal(modus_sem_release(&sem, 1), 0);
    assert_false(called(loop, 0));
    modus_sem_fini(&sem);
    modus_doorbell_fini(&bell);
    close(loop);
}

static void test_queue(void **state)
{
    (void)state;
    for (int process = 0; process < 2; process++) {
        struct modus_queue_attr attr = {.scope = process ? MODUS_PROCESS : MODUS_THREAD,
                                        .arena = arena,
                                        .capacity = 2,
                                        .item_size = 4};
        struct modus_queue queue;
        struct modus_doorbell items, room;
        int item = 1;

        assert_int_equal(modus_queue_init(&queue, &attr), 0);
        assert_int_equal(modus_doorbell_init(&items), 0);
        assert_int_equal(modus_doorbell_init(&room), 0);
        int item_loop = loop_new(&items), room_loop = loop_new(&room);
        assert_int_equal(modus_queue_arm_get(&queue, &items), 0);
        assert_int_equal(modus_queue_arm_put(&queue, &room), 0);
        assert_int_equal(modus_queue_put(&queue, &item, 0), 0);
        assert_int_equal(modus_queue_put(&queue, &item, 0), 0);
        assert_int_equal(modus_queue_put(&queue, &item, 0), MODUS_FULL);
        assert_true(called(item_loop, 0));
        assert_false(called(room_loop, 0));
        modus_doorbell_hear(&items);
        assert_int_equal(modus_queue_get(&queue, &item, 0), 0);
        assert_true(called(room_loop, 0));
        modus_doorbell_hear(&room);
        assert_false(called(item_loop, 0));
        modus_queue_disarm_put(&queue, &room);
        assert_int_equal(modus_queue_get(&queue, &item, 0), 0);
        assert_false(called(room_loop, 0));
        assert_int_equal(modus_queue_interrupt(&queue), 0);
        assert_true(called(item_loop, 0));
        modus_doorbell_hear(&items);
        assert_int_equal(modus_queue_close(&queue, MODUS_CLOSE_DRAIN), 0);
        assert_true(called(item_loop, 0));
        modus_queue_fini(&queue);
        modus_doorbell_fini(&items);
        modus_doorbell_fini(&room);
        close(item_loop);
        close(room_loop);
    }
}

static void test_many_loops(void **state)
{
    static struct modus_doorbell bells[65];
    static int loops[65];
    struct modus_event event = MODUS_EVENT_INIT;
    (void)state;

    for (int i = 0; i < 65; i++) {
        assert_int_equal(modus_doorbell_init(&bells[i]), 0);
        loops[i] = loop_new(&bells[i]);
        assert_int_equal(modus_event_arm(&event, &bells[i]), i < 64 ? 0 : -EOVERFLOW);
    }
    modus_event_set(&event);
    for (int i = 0; i < 65; i++)
        assert_int_equal(called(loops[i], 0), i < 64);
    modus_event_disarm(&event, &bells[7]);
    assert_int_equal(modus_event_arm(&event, &bells[64]), 0);
    modus_event_set(&event);
    assert_true(called(loops[64], 0));
    modus_event_fini(&event);
    for (int i = 0; i < 65; i++) {
        modus_doorbell_fini(&bells[i]);
        close(loops[i]);
    }
}

static void test_arm_errors(void **state)
{
    struct modus_event event, *shared = modus_arena_alloc(arena, sizeof *shared, 0);
    struct modus_doorbell bell = {0};
    (void)state;

    modus_event_init(shared, MODUS_PROCESS);
    assert_int_equal(modus_event_arm(shared, &bell), -EINVAL);
    assert_int_equal(modus_doorbell_init(&bell), 0);
    assert_int_equal(modus_event_arm(shared, &bell), 0);
    modus_event_fini(shared);
    modus_event_init(&event, MODUS_PROCESS); /* outside of any arena */
    assert_int_equal(modus_event_arm(&event, &bell), -EINVAL);
    modus_event_fini(&event);
    modus_doorbell_fini(&bell);
}

struct feed {
    struct modus_queue queue;
    struct modus_doorbell bell;
    long items;
};

static void *feed_thread(void *argument)
{
    struct feed *feed = argument;

    for (long i = 0; i < feed->items; i++)
        CHECK_INT(modus_queue_put(&feed->queue, &i, MODUS_FOREVER), 0);
    return NULL;
}

static int feed_child(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    feed_thread(argument);
    return 0;
}

/* A loop as it should be written: arm, look; called: hear, look. */
static void serve(struct feed *feed, int loop)
{
    long item, expected = 0;

    for (;;) {
        while (modus_queue_try_get(&feed->queue, &item) == 0)
            CHECK_INT(item, expected++);
        if (expected == feed->items)
            return;
        CHECK(called(loop, -1));
        modus_doorbell_hear(&feed->bell);
    }
}

/* Provokes: ring against hear at every stage. A lost ring hangs. */
static void test_loop_misses_nothing(void **state)
{
    (void)state;
    for (int process = 0; process < 2; process++) {
        struct modus_queue_attr attr = {.scope = process ? MODUS_PROCESS : MODUS_THREAD,
                                        .arena = arena,
                                        .capacity = 64,
                                        .item_size = sizeof(long)};
        struct feed *feed = modus_arena_alloc(arena, sizeof *feed, 0);

        feed->items = SLOW ? 5000 : 100000;
        assert_int_equal(modus_queue_init(&feed->queue, &attr), 0);
        assert_int_equal(modus_doorbell_init(&feed->bell), 0);
        int loop = loop_new(&feed->bell);
        assert_int_equal(modus_queue_arm_get(&feed->queue, &feed->bell), 0);
        if (process) {
            pid_t pid = start_child(feed_child, feed);

            serve(feed, loop);
            assert_int_equal(reap(pid), 0);
            modus_participant_bury(arena, pid);
        } else {
            pthread_t thread = start_thread(feed_thread, feed);

            serve(feed, loop);
            join_thread(thread);
        }
        modus_queue_fini(&feed->queue);
        modus_doorbell_fini(&feed->bell);
        close(loop);
    }
}

static int die_ringing(void *argument)
{
    struct modus_event *event = argument;

    modus_fault_plan(MODUS_FAULT_BELL_CLAIMED, MODUS_FAULT_DIE, 1);
    modus_event_set(event);
    return 0;
}

static int set_event(void *event)
{
    modus_event_set(event);
    return 0;
}

/* Killed between the claim to ring and the write: the next ring is not swallowed, and burying calls
 * the loop even without one. */
static void test_ringer_dies(void **state)
{
    struct modus_event *event = modus_arena_alloc(arena, sizeof *event, 0);
    struct modus_doorbell *bell = modus_arena_alloc(arena, sizeof *bell, 0);
    (void)state;

    assert_int_equal(modus_event_init(event, MODUS_PROCESS), 0);
    assert_int_equal(modus_doorbell_init(bell), 0);
    int loop = loop_new(bell);
    assert_int_equal(modus_event_arm(event, bell), 0);
    assert_int_equal(reap(start_child(die_ringing, event)), -SIGKILL);
    assert_false(called(loop, 0));
    assert_int_equal(reap(start_child(set_event, event)), 0);
    assert_true(called(loop, 0));
    modus_doorbell_hear(bell);
    assert_int_equal(reap(start_child(die_ringing, event)), -SIGKILL);
    assert_false(called(loop, 0));
    modus_participant_bury(arena, 0);
    assert_true(called(loop, 0));
    modus_doorbell_hear(bell);
    modus_event_fini(event);
    modus_doorbell_fini(bell);
    close(loop);
}

struct hearing {
    struct modus_doorbell bell;
    struct modus_event event;
    _Atomic int heard;
};

/* A loop that is stopped inside its first hear. */
static int hear_twice(void *argument)
{
    struct hearing *hearing = argument;
    int loop = loop_new(&hearing->bell);

    modus_fault_plan(MODUS_FAULT_BELL_READ, MODUS_FAULT_STOP, 1);
    for (int i = 0; i < 2; i++) {
        CHECK(called(loop, -1));
        modus_doorbell_hear(&hearing->bell);
        CHECK(modus_event_is_set(&hearing->event));
        modus_event_clear(&hearing->event);
        atomic_store(&hearing->heard, i + 1);
    }
    return 0;
}

/* A ring in the middle of hear is either seen by the look after it, or rings again; and the ring
 * after that is not swallowed. */
static void test_ring_while_hearing(void **state)
{
    struct hearing *hearing = modus_arena_alloc(arena, sizeof *hearing, 0);
    (void)state;

    assert_int_equal(modus_doorbell_init(&hearing->bell), 0);
    assert_int_equal(modus_event_init(&hearing->event, MODUS_PROCESS), 0);
    assert_int_equal(modus_event_arm(&hearing->event, &hearing->bell), 0);
    pid_t pid = start_child(hear_twice, hearing);
    modus_event_set(&hearing->event);
    AWAIT(state_of(pid) == 'T');
    modus_event_clear(&hearing->event);
    modus_event_set(&hearing->event);
    kill(pid, SIGCONT);
    AWAIT(atomic_load(&hearing->heard) == 1);
    AWAIT_ASLEEP(pid);
    modus_event_set(&hearing->event);
    assert_int_equal(reap(pid), 0);
    modus_event_fini(&hearing->event);
    modus_doorbell_fini(&hearing->bell);
}

static struct modus_doorbell *signalled;

static void ring_from_handler(int signo)
{
    (void)signo;
    modus_doorbell_ring(signalled);
}

static void test_from_signal_handler(void **state)
{
    struct modus_doorbell bell;
    (void)state;

    assert_int_equal(modus_doorbell_init(&bell), 0);
    int loop = loop_new(&bell);
    signalled = &bell;
    signal(SIGUSR1, ring_from_handler);
    raise(SIGUSR1);
    assert_true(called(loop, 0));
    signal(SIGUSR1, SIG_DFL);
    modus_doorbell_fini(&bell);
    close(loop);
}

static int ring_without_descriptor(void *bell)
{
    close(modus_doorbell_fd(bell));
    modus_doorbell_ring(bell);
    return 0;
}

/* The number is a file's by now. */
static int ring_into_file(void *bell)
{
    int fd = modus_doorbell_fd(bell), file = memfd_create("other", 0);

    CHECK_INT(dup2(file, fd), fd);
    modus_doorbell_ring(bell);
    CHECK_INT(lseek(file, 0, SEEK_END), 0);
    return 0;
}

static int ring(void *bell)
{
    modus_doorbell_ring(bell);
    return 0;
}

/* One that has closed the descriptor is not heard, and keeps nobody from being heard. */
static void test_ringer_has_no_descriptor(void **state)
{
    struct modus_doorbell *bell = modus_arena_alloc(arena, sizeof *bell, 0);
    (void)state;

    assert_int_equal(modus_doorbell_init(bell), 0);
    int loop = loop_new(bell);
    assert_int_equal(reap(start_child(ring_without_descriptor, bell)), 0);
    assert_false(called(loop, 0));
    assert_int_equal(reap(start_child(ring_into_file, bell)), 0);
    assert_false(called(loop, 0));
    assert_int_equal(reap(start_child(ring, bell)), 0);
    assert_true(called(loop, 0));
    modus_doorbell_fini(bell);
    close(loop);
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)16 << 20, 8) < 0)
        return -1;
    return modus_participant_join(arena) > 0 ? 0 : -1;
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_bell, watchdog),
        cmocka_unit_test_setup(test_event, watchdog),
        cmocka_unit_test_setup(test_sem, watchdog),
        cmocka_unit_test_setup(test_queue, watchdog),
        cmocka_unit_test_setup(test_many_loops, watchdog),
        cmocka_unit_test_setup(test_arm_errors, watchdog),
        cmocka_unit_test_setup(test_ringer_dies, watchdog),
        cmocka_unit_test_setup(test_ringer_has_no_descriptor, watchdog),
        cmocka_unit_test_setup(test_ring_while_hearing, watchdog),
        cmocka_unit_test_setup(test_from_signal_handler, watchdog),
        cmocka_unit_test_setup(test_loop_misses_nothing, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
