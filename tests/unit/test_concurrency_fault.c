/* SPDX-License-Identifier: MIT */
/*
 * A process-scope queue whose users are killed, or stopped and then killed, at every point of its
 * algorithms (fault.h), in every role, under every policy.
 *
 * Each case: a producer and a consumer that survive, and a victim beside them. The victim's end is
 * buried; then all the survivor's items must come out (but for what the victim had in its hands),
 * none twice (but for what is given again), join must return, the whole capacity must be there, and
 * nobody may hang.
 */
#include "test_concurrency.h"

#include "concurrency/fault.h"
#include "concurrency/participant_priv.h"
#include "concurrency/queue.h"

enum { AFTERWARDS = 100, CAPACITY = 4, ITEMS_MAX = 1 << 19 };

struct item {
    int victims;
    int number;
};

struct scene {
    struct modus_queue queue;
    bool joinable;
    enum modus_queue_death on_death;
    enum modus_fault_point point;
    enum modus_fault_action action;
    unsigned passing;
    int result, number;
    _Atomic bool over;
    _Atomic bool dead;              /* the victim is gone; survivors may finish */
    _Atomic int puts, victims_puts; /* returned */
    _Atomic unsigned char seen[ITEMS_MAX];
    _Atomic unsigned char seen_of_victim[ITEMS_MAX];
};

static struct modus_arena *arena;

/* Put while the victim lives, and then some. Now and then let the consumers go to sleep. */
static int produce(void *argument)
{
    struct scene *scene = argument;

    CHECK(modus_participant_join(arena) > 0);
    for (int left = AFTERWARDS, i = 0; left > 0; i++, left -= atomic_load(&scene->dead)) {
        struct item item = {0, i};

        CHECK(i < ITEMS_MAX);
        CHECK_INT(modus_queue_put(&scene->queue, &item, MODUS_FOREVER), 0);
        atomic_store(&scene->puts, i + 1);
        if (i % 8 == 7)
            usleep(100);
    }
    return 0;
}

static int consume(void *argument)
{
    struct scene *scene = argument;
    struct item item;

    CHECK(modus_participant_join(arena) > 0);
    while (!atomic_load(&scene->over)) {
        int rc = modus_queue_get(&scene->queue, &item, MODUS_FOREVER);

        if (rc == MODUS_CANCELED)
            continue;
        CHECK_INT(rc, 0);
        if (item.victims)
            atomic_fetch_add(&scene->seen_of_victim[item.number], 1);
        else
            atomic_fetch_add(&scene->seen[item.number], 1);
        if (scene->joinable)
            CHECK_INT(modus_queue_task_done(&scene->queue), 0);
    }
    return 0;
}

static int be_victim_producer(void *argument)
{
    struct scene *scene = argument;

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, scene->action, scene->passing);
    for (int i = 0; i < ITEMS_MAX; i++) {
        struct item item = {1, i};

        CHECK_INT(modus_queue_put(&scene->queue, &item, MODUS_FOREVER), 0);
        atomic_store(&scene->victims_puts, i + 1);
        if (i % 8 == 7)
            usleep(100); /* let the consumer go to sleep */
    }
    return 1;
}

static int be_victim_consumer(void *argument)
{
    struct scene *scene = argument;

    modus_fault_plan(scene->point, scene->action, scene->passing);
    return consume(argument);
}

static void start_scene(struct scene *scene)
{
    struct modus_queue_attr attr = {.scope = MODUS_PROCESS,
                                    .arena = arena,
                                    .capacity = CAPACITY,
                                    .item_size = sizeof(struct item),
                                    .joinable = scene->joinable,
                                    .on_death = scene->on_death};

    CHECK_INT(modus_queue_init(&scene->queue, &attr), 0);
}

/* A stopped one holds its claim and lives: whoever only tries must come back at once. */
static void look_at_stopped(struct scene *scene, pid_t victim)
{
    struct modus_queue *queue = &scene->queue;

    AWAIT(state_of(victim) == 'T');
    CHECK(modus_queue_join(queue, 0) == (scene->joinable ? -EAGAIN : -EINVAL) ||
          modus_queue_join(queue, 0) == 0);
    modus_queue_len(queue);
    kill(victim, SIGKILL);
}

static void check_seen(struct scene *scene, bool consumer)
{
    int lost = 0, twice = 0, puts = atomic_load(&scene->victims_puts);
    /* Not joinable: got is got, from the moment when the slot is free. */
    bool freed = scene->point == MODUS_FAULT_GET_FREED || scene->point == MODUS_FAULT_WAKE_CLAIMED;
    bool kept = scene->on_death == MODUS_QUEUE_REDELIVER && (scene->joinable || !freed);

    for (int i = 0; i < atomic_load(&scene->puts); i++) {
        lost += scene->seen[i] == 0;
        twice += scene->seen[i] > 1;
    }
    for (int i = 0; i < puts; i++) {
        lost += scene->seen_of_victim[i] == 0;
        twice += scene->seen_of_victim[i] > 1;
    }
    CHECK(scene->seen_of_victim[puts] <= 1); /* its last words: said or not */
    CHECK(scene->seen_of_victim[puts + 1] == 0);
    CHECK(lost <= (consumer && !kept));
    CHECK(twice <= (consumer && scene->joinable && kept));
}

static void check_capacity(struct modus_queue *queue, bool joinable)
{
    struct item item = {0};

    for (int round = 0; round < 3; round++) {
        CHECK_INT(modus_queue_get(queue, &item, 0), MODUS_EMPTY);
        for (int i = 0; i < CAPACITY; i++)
            CHECK_INT(modus_queue_put(queue, &item, 0), 0);
        CHECK_INT(modus_queue_put(queue, &item, 0), MODUS_FULL);
        for (int i = 0; i < CAPACITY; i++) {
            CHECK_INT(modus_queue_get(queue, &item, 0), 0);
            if (joinable)
                CHECK_INT(modus_queue_task_done(queue), 0);
        }
    }
}

/* Let the surviving consumer end; it may have done so already. */
static void dismiss(struct scene *scene, pid_t eater)
{
    atomic_store(&scene->over, true);
    AWAIT(state_of(eater) == 'S' || state_of(eater) == 'Z');
    modus_queue_interrupt(&scene->queue);
    CHECK_INT(reap(eater), 0);
}

static void play(struct scene *scene, bool consumer)
{
    start_scene(scene);
    pid_t producer = start_child(produce, scene), eater = start_child(consume, scene);
    pid_t victim = start_child(consumer ? be_victim_consumer : be_victim_producer, scene);
    if (scene->action == MODUS_FAULT_STOP)
        look_at_stopped(scene, victim);
    CHECK_INT(reap(victim), -SIGKILL);
    modus_participant_bury(arena, victim);
    atomic_store(&scene->dead, true);
    CHECK_INT(reap(producer), 0);
    modus_participant_bury(arena, producer);
    if (scene->joinable)
        CHECK_INT(modus_queue_join(&scene->queue, modus_seconds(20)), 0);
    AWAIT(modus_queue_len(&scene->queue) == 0);
    dismiss(scene, eater);
    modus_participant_bury(arena, eater);
    check_seen(scene, consumer);
    check_capacity(&scene->queue, scene->joinable);
    if (scene->joinable)
        CHECK_INT(modus_queue_join(&scene->queue, 0), 0);
    modus_queue_fini(&scene->queue);
}

static void sweep(const enum modus_fault_point *points, size_t n, bool consumer)
{
    for (size_t i = 0; i < n; i++)
        for (unsigned policy = 0; policy < 4; policy++)
            for (unsigned way = 0; way < 3; way++) {
                struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);

                alarm(WATCHDOG_SECONDS);
                scene->joinable = policy & 1;
                scene->on_death = policy & 2 ? MODUS_QUEUE_REDELIVER : MODUS_QUEUE_LOST;
                scene->point = points[i];
                scene->action = way == 2 ? MODUS_FAULT_STOP : MODUS_FAULT_DIE;
                scene->passing = way == 1 ? 7 : 1;
                if (points[i] == MODUS_FAULT_DONE_NOTED && !scene->joinable)
                    continue;
                if (getenv("MODUS_FAULT_TELL"))
                    fprintf(stderr, "%s, policy %u, way %u\n", modus_fault_name(points[i]), policy,
                            way);
                play(scene, consumer);
                modus_arena_free(arena, scene, sizeof *scene);
            }
}

static void test_producer_dies(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_PUT_CLAIMED,   MODUS_FAULT_PUT_HELPED,   MODUS_FAULT_PUT_COPIED,
        MODUS_FAULT_PUT_PUBLISHED, MODUS_FAULT_WAKE_CLAIMED, MODUS_FAULT_WAKE_PASSED,
        MODUS_FAULT_PARK_MARKED};
    (void)state;
    sweep(points, sizeof points / sizeof *points, false);
}

static void test_consumer_dies(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_GET_CLAIMED,  MODUS_FAULT_GET_HELPED,  MODUS_FAULT_GET_COPIED,
        MODUS_FAULT_GET_NOTED,    MODUS_FAULT_GET_FREED,   MODUS_FAULT_DONE_NOTED,
        MODUS_FAULT_WAKE_CLAIMED, MODUS_FAULT_WAKE_PASSED, MODUS_FAULT_PARK_MARKED};
    (void)state;
    sweep(points, sizeof points / sizeof *points, true);
}

/* --- without a burial ------------------------------------------------------------------------ */

static int die_putting(void *argument)
{
    struct scene *scene = argument;
    struct item item = {1, 0};

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, MODUS_FAULT_DIE, 1);
    return modus_queue_put(&scene->queue, &item, 0);
}

static int die_getting(void *argument)
{
    struct scene *scene = argument;
    struct item item;

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, MODUS_FAULT_DIE, 1);
    return modus_queue_get(&scene->queue, &item, 0);
}

/* Nobody buries: whoever is stopped by the dead one's claim finds out by itself. */
static void test_found_by_looking(void **state)
{
    static const enum modus_fault_point puts[] = {MODUS_FAULT_PUT_CLAIMED, MODUS_FAULT_PUT_HELPED,
                                                  MODUS_FAULT_PUT_COPIED};
    static const enum modus_fault_point gets[] = {MODUS_FAULT_GET_CLAIMED, MODUS_FAULT_GET_HELPED,
                                                  MODUS_FAULT_GET_COPIED, MODUS_FAULT_GET_NOTED};
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct item item = {0, 5};
    (void)state;

    for (size_t i = 0; i < 3; i++) {
        start_scene(scene);
        scene->point = puts[i];
        assert_int_equal(reap(start_child(die_putting, scene)), -SIGKILL);
        assert_int_equal(modus_queue_put(&scene->queue, &item, 0), 0);
        assert_int_equal(modus_queue_get(&scene->queue, &item, 0), 0);
        assert_int_equal(item.number, 5);
        check_capacity(&scene->queue, false);
        modus_queue_fini(&scene->queue);
    }
    for (size_t i = 0; i < 4; i++) {
        start_scene(scene);
        scene->point = gets[i];
        for (int k = 0; k < CAPACITY; k++)
            assert_int_equal(modus_queue_put(&scene->queue, &item, 0), 0);
        assert_int_equal(reap(start_child(die_getting, scene)), -SIGKILL);
        if (i == 0) {
            assert_int_equal(modus_participant_bury(arena, 0), 1);
            assert_int_equal(modus_queue_len(&scene->queue), CAPACITY - 1);
        }
        assert_int_equal(modus_queue_put(&scene->queue, &item, 0), 0); /* in the dead one's place */
        for (int k = 0; k < CAPACITY; k++)
            assert_int_equal(modus_queue_get(&scene->queue, &item, 0), 0);
        check_capacity(&scene->queue, false);
        modus_queue_fini(&scene->queue);
    }
    assert_int_equal(modus_participant_bury(arena, 0), 0); /* all found and buried */
}

static int die_burying(void *argument)
{
    struct scene *scene = argument;

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, MODUS_FAULT_DIE, 1);
    return modus_participant_bury(arena, 0);
}

/* Whoever buries dies burying. */
static void test_burier_dies(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_BURY_FOUND, MODUS_FAULT_BURY_SCRUBBED, MODUS_FAULT_BURY_MOVED};
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    (void)state;

    for (size_t i = 0; i < 3; i++) {
        start_scene(scene);
        scene->point = MODUS_FAULT_PUT_HELPED;
        assert_int_equal(reap(start_child(die_putting, scene)), -SIGKILL);
        scene->point = points[i];
        assert_int_equal(reap(start_child(die_burying, scene)), -SIGKILL);
        assert_in_range(modus_participant_bury(arena, 0), 1, 2);
        check_capacity(&scene->queue, false);
        modus_queue_fini(&scene->queue);
    }
}

/* --- taken for dead -------------------------------------------------------------------------- */

static int put_stopped(void *argument)
{
    struct scene *scene = argument;
    struct item item = {1, 1};

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, MODUS_FAULT_STOP, 1);
    scene->result = modus_queue_put(&scene->queue, &item, 0);
    return 0;
}

static int get_stopped(void *argument)
{
    struct scene *scene = argument;
    struct item item = {-1, -1};

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, MODUS_FAULT_STOP, 1);
    scene->result = modus_queue_get(&scene->queue, &item, 0);
    scene->number = item.number;
    if (scene->result == 0 && scene->queue.joinable)
        CHECK_INT(modus_queue_task_done(&scene->queue), 0);
    return 0;
}

static pid_t start_stopped(struct scene *scene, int (*run)(void *), enum modus_fault_point point)
{
    scene->point = point;
    pid_t pid = start_child(run, scene);
    AWAIT(state_of(pid) == 'T');
    return pid;
}

static void let_go_on(pid_t pid)
{
    kill(pid, SIGCONT);
    CHECK_INT(reap(pid), 0);
    modus_participant_bury(arena, pid);
}

static int put_counting_sleeps(void *argument)
{
    struct scene *scene = argument;
    struct item item = {0, 2};

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_queue_put(&scene->queue, &item, MODUS_FOREVER), 0);
    atomic_store(&scene->puts, (int)modus_park_stats().parks);
    return 0;
}

static int get_counting_sleeps(void *argument)
{
    struct scene *scene = argument;
    struct item item;

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_queue_get(&scene->queue, &item, MODUS_FOREVER), 0);
    CHECK_INT(item.number, 2);
    atomic_store(&scene->victims_puts, (int)modus_park_stats().parks);
    return 0;
}

/* A reader is stopped with the only slot in its hands: a producer and another consumer that wait
 * for it sleep, and do not wake each other in turns. */
static void test_stopped_lets_others_sleep(void **state)
{
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct modus_queue_attr attr = {
        .scope = MODUS_PROCESS, .arena = arena, .capacity = 1, .item_size = sizeof(struct item)};
    struct item item = {0, 1};
    (void)state;

    assert_int_equal(modus_queue_init(&scene->queue, &attr), 0);
    assert_int_equal(modus_queue_put(&scene->queue, &item, 0), 0);
    pid_t stopped = start_stopped(scene, get_stopped, MODUS_FAULT_GET_CLAIMED);
    pid_t consumer = start_child(get_counting_sleeps, scene);
    pid_t producer = start_child(put_counting_sleeps, scene);
    AWAIT_ASLEEP(consumer);
    AWAIT_ASLEEP(producer);
    usleep(100000); /* for what should not happen: ten thousand sleeps */
    let_go_on(stopped);
    assert_int_equal(scene->result, 0);
    assert_int_equal(reap(producer), 0);
    assert_int_equal(reap(consumer), 0);
    assert_in_range(scene->puts, 1, 50);
    assert_in_range(scene->victims_puts, 1, 50);
    modus_participant_bury(arena, 0);
    modus_queue_fini(&scene->queue);
}

/* The scrub is called on one that lives, which the kernel's verdict makes impossible: what it then
 * wanted to publish or to deliver is refused, and nothing is delivered twice. */
static void test_taken_for_dead(void **state)
{
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct item first = {0, 1}, second = {0, 2};
    (void)state;

    scene->joinable = true;
    start_scene(scene);
    struct modus_registered *registered = (struct modus_registered *)(void *)scene->queue.ring;
    pid_t pid = start_stopped(scene, put_stopped, MODUS_FAULT_PUT_COPIED);
    for (int id = 1; id <= 8; id++)
        if (id != modus_participant_self(arena))
            modus_queue_scrub(registered, id);
    assert_int_equal(modus_queue_put(&scene->queue, &first, 0), 0);
    assert_int_equal(modus_queue_put(&scene->queue, &second, 0), 0);
    let_go_on(pid);
    assert_int_equal(scene->result, -ECHILD);
    pid = start_stopped(scene, get_stopped, MODUS_FAULT_GET_COPIED);
    for (int id = 1; id <= 8; id++)
        if (id != modus_participant_self(arena))
            modus_queue_scrub(registered, id);
    let_go_on(pid);
    assert_int_equal(scene->result, 0);
    assert_int_equal(scene->number, 2); /* the first was lost, and its copy thrown away */
    assert_int_equal(modus_queue_get(&scene->queue, &first, 0), MODUS_EMPTY);
    assert_int_equal(modus_queue_join(&scene->queue, 0), 0);
    modus_queue_fini(&scene->queue);
}

/* --- closing and identity -------------------------------------------------------------------- */

static int die_closing(void *argument)
{
    struct scene *scene = argument;

    modus_fault_plan(MODUS_FAULT_CLOSE_MARKED, MODUS_FAULT_DIE, 1);
    return modus_queue_close(&scene->queue, MODUS_CLOSE_DRAIN);
}

static int get_until_closed(void *argument)
{
    struct scene *scene = argument;
    struct item item;

    CHECK(modus_participant_join(arena) > 0);
    while (modus_queue_get(&scene->queue, &item, modus_seconds(20)) == 0)
        ;
    return modus_queue_get(&scene->queue, &item, 0) == MODUS_CLOSED ? 0 : 1;
}

static void test_closer_dies(void **state)
{
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct item item = {0};
    (void)state;

    start_scene(scene);
    pid_t sleeper = start_child(get_until_closed, scene);
    AWAIT_ASLEEP(sleeper);
    pid_t closer = start_child(die_closing, scene);
    assert_int_equal(reap(closer), -SIGKILL);
    modus_participant_bury(arena, closer);
    assert_int_equal(reap(sleeper), 0);
    assert_int_equal(modus_queue_put(&scene->queue, &item, 0), MODUS_CLOSED);
    modus_queue_fini(&scene->queue);
}

/* A put that has looked at its slot before the close, and one that has aimed at it: once somebody
 * has been told that the queue is closed and empty, neither succeeds. */
static void test_put_against_close(void **state)
{
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct item item = {0, 0};
    (void)state;

    start_scene(scene);
    pid_t pid = start_stopped(scene, put_stopped, MODUS_FAULT_PUT_LOOKED);
    assert_int_equal(modus_queue_close(&scene->queue, MODUS_CLOSE_DRAIN), 0);
    assert_int_equal(modus_queue_get(&scene->queue, &item, 0), MODUS_CLOSED);
    let_go_on(pid);
    assert_int_equal(scene->result, MODUS_CLOSED);
    assert_int_equal(modus_queue_get(&scene->queue, &item, 0), MODUS_CLOSED);
    modus_queue_fini(&scene->queue);
    /* The slot aimed at is still being read in the round before, so it cannot be sealed. */
    start_scene(scene);
    for (int i = 0; i < CAPACITY; i++)
        assert_int_equal(modus_queue_put(&scene->queue, &item, 0), 0);
    struct scene *reader = modus_arena_alloc(arena, sizeof *reader, 0);
    reader->queue = scene->queue;
    pid_t getting = start_stopped(reader, get_stopped, MODUS_FAULT_GET_NOTED);
    for (int i = 1; i < CAPACITY; i++)
        assert_int_equal(modus_queue_get(&scene->queue, &item, 0), 0);
    pid = start_stopped(scene, put_stopped, MODUS_FAULT_PUT_AIMED);
    assert_int_equal(modus_queue_close(&scene->queue, MODUS_CLOSE_DRAIN), 0);
    assert_int_equal(modus_queue_get(&scene->queue, &item, 0), MODUS_CLOSED);
    let_go_on(getting);
    let_go_on(pid);
    assert_int_equal(scene->result, MODUS_CLOSED);
    modus_queue_fini(&scene->queue);
}

static int follow_up(void *argument)
{
    struct scene *scene = argument;
    struct item item;

    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_queue_get(&scene->queue, &item, 0), 0);
    atomic_store(&scene->puts, 1);
    AWAIT(atomic_load(&scene->over));
    CHECK_INT(modus_queue_put(&scene->queue, &item, 0), 0);
    modus_fault_plan(MODUS_FAULT_DONE_NOTED, MODUS_FAULT_STOP, 1);
    CHECK_INT(modus_queue_task_done(&scene->queue), 0);
    return 0;
}

static int join_stopped(void *argument)
{
    struct scene *scene = argument;

    modus_fault_plan(MODUS_FAULT_JOIN_SCANNED, MODUS_FAULT_STOP, 1);
    scene->result = modus_queue_join(&scene->queue, 0);
    return 0;
}

/* A joiner that has looked at the slots is overtaken by a consumer that puts a new item and then is
 * done with its own: the new one must not be missed. */
static void test_join_is_overtaken(void **state)
{
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct item item = {0};
    (void)state;

    scene->joinable = true;
    start_scene(scene);
    assert_int_equal(modus_queue_put(&scene->queue, &item, 0), 0);
    pid_t consumer = start_child(follow_up, scene);
    AWAIT(atomic_load(&scene->puts));
    pid_t joiner = start_child(join_stopped, scene);
    AWAIT(state_of(joiner) == 'T');
    atomic_store(&scene->over, true);
    AWAIT(state_of(consumer) == 'T');
    kill(joiner, SIGCONT);
    assert_int_equal(reap(joiner), 0);
    assert_int_equal(scene->result, -EAGAIN);
    let_go_on(consumer);
    modus_queue_fini(&scene->queue);
}

/* A put that dies before tail has moved, and then a close: drained is drained, and done. */
static void test_close_after_death(void **state)
{
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct item item;
    (void)state;

    scene->joinable = true;
    start_scene(scene);
    scene->point = MODUS_FAULT_PUT_CLAIMED;
    pid_t pid = start_child(die_putting, scene);
    assert_int_equal(reap(pid), -SIGKILL);
    assert_int_equal(modus_participant_bury(arena, pid), 1);
    assert_int_equal(modus_queue_get(&scene->queue, &item, 0), MODUS_EMPTY);
    assert_int_equal(modus_queue_close(&scene->queue, MODUS_CLOSE_DRAIN), 0);
    assert_int_equal(modus_queue_get(&scene->queue, &item, 0), MODUS_CLOSED);
    assert_int_equal(modus_queue_join(&scene->queue, 0), 0);
    assert_int_equal(modus_queue_len(&scene->queue), 0);
    modus_queue_fini(&scene->queue);
}

static int use_parents_identity(void *argument)
{
    struct scene *scene = argument;
    struct item item = {0};

    CHECK_INT(modus_queue_put(&scene->queue, &item, MODUS_FOREVER), -ECHILD);
    CHECK_INT(modus_queue_get(&scene->queue, &item, MODUS_FOREVER), -ECHILD);
    CHECK_INT(modus_queue_task_done(&scene->queue), -ECHILD);
    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_queue_task_done(&scene->queue), -EOVERFLOW); /* the parent got it, not we */
    CHECK_INT(modus_queue_put(&scene->queue, &item, 0), 0);
    CHECK_INT(modus_participant_leave(arena), 0);
    CHECK_INT(modus_queue_put(&scene->queue, &item, 0), -EPERM);
    CHECK_INT(modus_queue_get(&scene->queue, &item, 0), -EPERM);
    return 0;
}

static void test_child_is_not_parent(void **state)
{
    struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);
    struct item item = {0};
    (void)state;

    scene->joinable = true;
    start_scene(scene);
    assert_int_equal(modus_queue_put(&scene->queue, &item, 0), 0);
    assert_int_equal(modus_queue_get(&scene->queue, &item, 0), 0);
    assert_int_equal(reap(start_child(use_parents_identity, scene)), 0);
    assert_int_equal(modus_queue_task_done(&scene->queue), 0);
    assert_int_equal(modus_queue_get(&scene->queue, &item, 0), 0);
    assert_int_equal(modus_queue_task_done(&scene->queue), 0);
    assert_int_equal(modus_queue_join(&scene->queue, 0), 0);
    modus_queue_fini(&scene->queue);
}

/* --- delays ---------------------------------------------------------------------------------- */

/* Dawdling at a point hurts nobody: no item is lost or comes twice. */
static int put_slowly(void *argument)
{
    struct scene *scene = argument;

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, MODUS_FAULT_DELAY, scene->passing);
    for (int i = 0; i < 50; i++) {
        struct item item = {1, i};

        CHECK_INT(modus_queue_put(&scene->queue, &item, MODUS_FOREVER), 0);
        atomic_store(&scene->victims_puts, i + 1);
    }
    return 0;
}

static void test_delays(void **state)
{
    (void)state;
    for (int point = MODUS_FAULT_PUT_CLAIMED; point <= MODUS_FAULT_PARK_MARKED; point++) {
        struct scene *scene = modus_arena_alloc(arena, sizeof *scene, 0);

        scene->joinable = true;
        scene->dead = true;
        scene->point = (enum modus_fault_point)point;
        scene->passing = 2;
        start_scene(scene);
        modus_fault_plan(scene->point, MODUS_FAULT_DELAY, 2); /* the consumer's too */
        pid_t eater = start_child(consume, scene);
        modus_fault_plan(MODUS_FAULT_NONE, MODUS_FAULT_DELAY, 0);
        pid_t slow = start_child(put_slowly, scene), producer = start_child(produce, scene);
        assert_int_equal(reap(slow), 0);
        assert_int_equal(reap(producer), 0);
        assert_int_equal(modus_queue_join(&scene->queue, modus_seconds(20)), 0);
        dismiss(scene, eater);
        modus_participant_bury(arena, 0);
        check_seen(scene, false);
        check_capacity(&scene->queue, true);
        modus_queue_fini(&scene->queue);
        modus_arena_free(arena, scene, sizeof *scene);
    }
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)1 << 30, 8) < 0)
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
        cmocka_unit_test_setup(test_found_by_looking, watchdog),
        cmocka_unit_test_setup(test_burier_dies, watchdog),
        cmocka_unit_test_setup(test_stopped_lets_others_sleep, watchdog),
        cmocka_unit_test_setup(test_taken_for_dead, watchdog),
        cmocka_unit_test_setup(test_closer_dies, watchdog),
        cmocka_unit_test_setup(test_put_against_close, watchdog),
        cmocka_unit_test_setup(test_join_is_overtaken, watchdog),
        cmocka_unit_test_setup(test_close_after_death, watchdog),
        cmocka_unit_test_setup(test_child_is_not_parent, watchdog),
        cmocka_unit_test_setup(test_producer_dies, watchdog),
        cmocka_unit_test_setup(test_consumer_dies, watchdog),
        cmocka_unit_test_setup(test_delays, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
