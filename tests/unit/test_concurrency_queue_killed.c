/* SPDX-License-Identifier: MIT */
/*
 * Queues between processes that are no ring, and whose users are killed: LIFO and PRIORITY, and FIFO with
 * a bound that is no power of two. At every point of their algorithms
 * (fault.h), under every policy, and at random.
 *
 * In all of it every item that was put comes out once, but for those that a dead one had in its
 * hands: lost, or given again, each to its old place. Then the whole capacity is there, join
 * returns, and nobody hangs.
 */
#include "test_concurrency.h"

#include "concurrency/fault.h"
#include "concurrency/queue.h"

enum { CAPACITY = 5, LIFE_ITEMS = 1 << 16, AFTERWARDS = 50 };

/* One life of a producer, and what has become of its items. */
struct life {
    _Atomic uint32_t puts; /* returned */
    _Atomic unsigned char seen[LIFE_ITEMS];
};

struct item {
    struct life *life;
    uint32_t number;
};

struct scene {
    struct modus_queue queue;
    bool joinable, redeliver;
    enum modus_fault_point point; /* of the victim */
    unsigned passing;
    _Atomic bool stop; /* producers */
    _Atomic bool over; /* consumers */
};

static struct modus_arena *arena;
static struct scene *scene;

static void start_scene(enum modus_queue_order order, bool joinable, bool redeliver)
{
    struct modus_queue_attr attr = {
        .scope = MODUS_PROCESS,
        .order = order,
        .arena = arena,
        .capacity = CAPACITY,
        .item_size = sizeof(struct item),
        .joinable = joinable,
        .on_death = redeliver ? MODUS_QUEUE_REDELIVER : MODUS_QUEUE_LOST,
    };

    alarm(WATCHDOG_SECONDS);
    scene = modus_arena_alloc(arena, sizeof *scene, 0);
    CHECK(scene);
    scene->joinable = joinable;
    scene->redeliver = redeliver;
    CHECK_INT(modus_queue_init(&scene->queue, &attr), 0);
}

static void check_whole(void)
{
    struct modus_queue *queue = &scene->queue;
    struct item item = {0};

    CHECK_INT(modus_queue_get(queue, &item, 0), MODUS_EMPTY);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CAPACITY; i++)
            CHECK_INT(modus_queue_put(queue, &item, 0), 0);
        CHECK_INT(modus_queue_put(queue, &item, 0), MODUS_FULL);
        for (int i = 0; i < CAPACITY; i++) {
            CHECK_INT(modus_queue_get(queue, &item, 0), 0);
            if (scene->joinable)
                CHECK_INT(modus_queue_task_done(queue), 0);
        }
    }
    if (scene->joinable) {
        CHECK_INT(modus_queue_task_done(queue), -EOVERFLOW);
        CHECK_INT(modus_queue_join(queue, 0), 0);
    }
}

static void end_scene(void)
{
    check_whole();
    modus_queue_fini(&scene->queue);
    modus_arena_free(arena, scene, sizeof *scene);
}

static int put_one(struct item *item)
{
    if (scene->queue.order == MODUS_QUEUE_PRIORITY)
        return modus_queue_put_key(&scene->queue, item, item->number % 7, MODUS_FOREVER);
    return modus_queue_put(&scene->queue, item, MODUS_FOREVER);
}

static int produce(void *argument)
{
    struct item item = {.life = argument};

    CHECK(modus_participant_join(arena) > 0);
    for (int left = AFTERWARDS; left > 0; left -= atomic_load(&scene->stop)) {
        CHECK(item.number < LIFE_ITEMS);
        CHECK_INT(put_one(&item), 0);
        atomic_store(&item.life->puts, ++item.number);
        if (item.number % 8 == 7)
            usleep(100); /* let consumers go to sleep */
    }
    return 0;
}

static int consume(void *argument)
{
    struct item item;

    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    while (!atomic_load(&scene->over)) {
        int rc = modus_queue_get(&scene->queue, &item, MODUS_FOREVER);

        if (rc == MODUS_CANCELED)
            continue;
        CHECK_INT(rc, 0);
        atomic_fetch_add(&item.life->seen[item.number], 1);
        if (scene->joinable)
            CHECK_INT(modus_queue_task_done(&scene->queue), 0);
    }
    return 0;
}

static int be_victim_producer(void *argument)
{
    modus_fault_plan(scene->point, MODUS_FAULT_DIE, scene->passing);
    return produce(argument);
}

static int be_victim_consumer(void *argument)
{
    modus_fault_plan(scene->point, MODUS_FAULT_DIE, scene->passing);
    return consume(argument);
}

static struct life *new_life(void)
{
    struct life *life = modus_arena_alloc(arena, sizeof *life, 0);

    CHECK(life);
    return life;
}

struct fate {
    long puts, lost, twice;
};

static struct fate fate_of(struct life *life)
{
    struct fate fate = {.puts = atomic_load(&life->puts)};

    for (long i = 0; i < LIFE_ITEMS; i++) {
        fate.lost += i < fate.puts && life->seen[i] == 0;
        fate.twice += life->seen[i] > 1;
        CHECK(i <= fate.puts || life->seen[i] == 0); /* the last words: said or not */
    }
    modus_arena_free(arena, life, sizeof *life);
    return fate;
}

/* Let the consumers go, once all is eaten. */
static void dismiss(const pid_t *eaters, int n)
{
    if (scene->joinable)
        CHECK_INT(modus_queue_join(&scene->queue, modus_seconds(20)), 0);
    AWAIT(modus_queue_len(&scene->queue) == 0);
    atomic_store(&scene->over, true);
    for (int i = 0; i < n; i++) {
        AWAIT(state_of(eaters[i]) == 'S' || state_of(eaters[i]) == 'Z');
        modus_queue_interrupt(&scene->queue);
        CHECK_INT(reap(eaters[i]), 0);
        modus_participant_bury(arena, eaters[i]);
    }
}

/* A producer and a consumer that survive, and a victim beside them. */
static void play(bool consumer)
{
    struct life *life = new_life(), *victims = new_life();
    pid_t producer = start_child(produce, life), eater = start_child(consume, NULL);
    pid_t victim = start_child(consumer ? be_victim_consumer : be_victim_producer, victims);

    CHECK_INT(reap(victim), -SIGKILL);
    modus_participant_bury(arena, victim);
    atomic_store(&scene->stop, true);
    CHECK_INT(reap(producer), 0);
    modus_participant_bury(arena, producer);
    dismiss(&eater, 1);
    struct fate fate = fate_of(life), his = fate_of(victims);
    /* Not joinable: got is got, from the moment when the slot is free. */
    bool again = scene->joinable && scene->redeliver;
    CHECK(fate.lost + his.lost <= (consumer && !again));
    CHECK(fate.twice + his.twice <= (consumer && again));
}

static void sweep(const enum modus_fault_point *points, size_t n, bool consumer)
{
    for (size_t i = 0; i < n; i++)
        for (unsigned variant = 0; variant < 24; variant++) {
            bool joinable = variant & 1;

            if (points[i] == MODUS_FAULT_DONE_NOTED && !joinable)
                continue;
            if (points[i] == MODUS_FAULT_GET_NOTED && joinable && variant & 2)
                continue; /* what is kept is noted in its slot */
            start_scene((enum modus_queue_order)(variant / 8), joinable, variant & 2);
            scene->point = points[i];
            scene->passing = variant & 4 ? 7 : 1;
            if (getenv("MODUS_FAULT_TELL"))
                fprintf(stderr, "%s, variant %u\n", modus_fault_name(points[i]), variant);
            play(consumer);
            end_scene();
        }
}

static void test_producer_dies(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_STOCK_LOCKED,  MODUS_FAULT_PUT_COPIED,   MODUS_FAULT_STOCK_CHANGED,
        MODUS_FAULT_PUT_PUBLISHED, MODUS_FAULT_WAKE_CLAIMED, MODUS_FAULT_WAKE_PASSED,
        MODUS_FAULT_PARK_MARKED};
    (void)state;
    sweep(points, sizeof points / sizeof *points, false);
}

static void test_consumer_dies(void **state)
{
    static const enum modus_fault_point points[] = {
        MODUS_FAULT_STOCK_LOCKED,  MODUS_FAULT_GET_COPIED, MODUS_FAULT_GET_NOTED,
        MODUS_FAULT_STOCK_CHANGED, MODUS_FAULT_GET_FREED,  MODUS_FAULT_DONE_NOTED,
        MODUS_FAULT_WAKE_CLAIMED,  MODUS_FAULT_WAKE_PASSED};
    (void)state;
    sweep(points, sizeof points / sizeof *points, true);
}

/* --- what is given again --------------------------------------------------------------------- */

/* The number is the key, where there are keys. */
static void put_numbers(const uint32_t *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct item item = {.number = numbers[i]};

        if (scene->queue.order == MODUS_QUEUE_PRIORITY)
            CHECK_INT(modus_queue_put_key(&scene->queue, &item, item.number, 0), 0);
        else
            CHECK_INT(modus_queue_put(&scene->queue, &item, 0), 0);
    }
}

static uint32_t get_number(void)
{
    struct item item = {.number = 99};

    CHECK_INT(modus_queue_get(&scene->queue, &item, 0), 0);
    return item.number;
}

static int get_two_and_die(void *argument)
{
    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    get_number();
    get_number();
    kill(getpid(), SIGKILL);
    return 0;
}

static int die_locked(void *argument)
{
    struct item item;

    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(MODUS_FAULT_STOCK_LOCKED, MODUS_FAULT_DIE, 1);
    return modus_queue_get(&scene->queue, &item, 0);
}

static void die(int (*how)(void *))
{
    pid_t pid = start_child(how, NULL);

    CHECK_INT(reap(pid), -SIGKILL);
    modus_participant_bury(arena, pid);
}

/* Given again, an item takes its old place: before what came later (LIFO: after it), and among
 * equal keys. Also when everything had to be made anew in between. */
static void test_old_place(void **state)
{
    static const uint32_t numbers[] = {3, 1, 2, 1}, later = 4;
    static const uint32_t expected[][5] = {[MODUS_QUEUE_FIFO] = {3, 1, 2, 1, 4},
                                           [MODUS_QUEUE_LIFO] = {4, 1, 2, 1, 3},
                                           [MODUS_QUEUE_PRIORITY] = {1, 1, 2, 3, 4}};
    (void)state;

    for (int order = MODUS_QUEUE_FIFO; order <= MODUS_QUEUE_PRIORITY; order++)
        for (int anew = 0; anew < 3; anew++) {
            start_scene((enum modus_queue_order)order, true, true);
            put_numbers(numbers, 4);
            pid_t pid = start_child(get_two_and_die, NULL);
            assert_int_equal(reap(pid), -SIGKILL);
            put_numbers(&later, 1);
            if (anew == 1) /* before the burial */
                assert_int_equal(reap(start_child(die_locked, NULL)), -SIGKILL);
            modus_participant_bury(arena, 0);
            if (anew == 2) /* after it */
                die(die_locked);
            assert_int_equal(modus_queue_len(&scene->queue), 5);
            for (int i = 0; i < 5; i++) {
                assert_int_equal(get_number(), expected[order][i]);
                assert_int_equal(modus_queue_task_done(&scene->queue), 0);
            }
            end_scene();
        }
}

/* task_done is for what one has had longest, which is another order than that of the slots. */
static void test_done_in_order(void **state)
{
    static const uint32_t numbers[] = {2, 0, 4, 1, 3};
    uint32_t got[5];
    (void)state;

    for (int order = MODUS_QUEUE_FIFO; order <= MODUS_QUEUE_PRIORITY; order++)
        for (int anew = 0; anew < 2; anew++) {
            start_scene((enum modus_queue_order)order, true, true);
            put_numbers(numbers, 5);
            for (int i = 0; i < 5; i++)
                got[i] = get_number();
            if (anew)
                die(die_locked);
            for (int i = 0; i < 2; i++)
                assert_int_equal(modus_queue_task_done(&scene->queue), 0);
            assert_int_equal(modus_participant_leave(arena), 0); /* the other three go back */
            assert_true(modus_participant_join(arena) > 0);
            assert_int_equal(modus_queue_len(&scene->queue), 3);
            for (int i = 2; i < 5; i++) {
                assert_int_equal(get_number(), got[i]);
                assert_int_equal(modus_queue_task_done(&scene->queue), 0);
            }
            end_scene();
        }
}

static int die_burying(void *argument)
{
    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(scene->point, MODUS_FAULT_DIE, scene->passing);
    return modus_participant_bury(arena, 0);
}

/* Whoever buries dies burying, between one item and the next. */
static void test_burier_dies(void **state)
{
    static const uint32_t numbers[] = {2, 0, 4, 1, 3};
    (void)state;

    for (unsigned passing = 1; passing <= 2; passing++) {
        start_scene(MODUS_QUEUE_PRIORITY, true, true);
        scene->point = MODUS_FAULT_STOCK_CHANGED;
        scene->passing = passing;
        put_numbers(numbers, 5);
        assert_int_equal(reap(start_child(get_two_and_die, NULL)), -SIGKILL);
        assert_int_equal(reap(start_child(die_burying, NULL)), -SIGKILL);
        assert_int_equal(modus_participant_bury(arena, 0), 2);
        for (uint32_t i = 0; i < 5; i++) {
            assert_int_equal(get_number(), i);
            assert_int_equal(modus_queue_task_done(&scene->queue), 0);
        }
        end_scene();
    }
}

static int close_and_die(void *argument)
{
    (void)argument;
    modus_fault_plan(MODUS_FAULT_CLOSE_MARKED, MODUS_FAULT_DIE, 1);
    return modus_queue_close(&scene->queue, MODUS_CLOSE_DRAIN);
}

static int get_until_closed(void *argument)
{
    struct item item;
    int rc;

    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    while ((rc = modus_queue_get(&scene->queue, &item, MODUS_FOREVER)) == 0)
        continue;
    CHECK_INT(rc, MODUS_CLOSED);
    return 0;
}

/* Closed now, what a dead one had in work counts no more; and a closer that dies has closed. */
static void test_closing(void **state)
{
    static const uint32_t numbers[] = {1, 2, 3};
    (void)state;

    start_scene(MODUS_QUEUE_LIFO, true, true);
    put_numbers(numbers, 3);
    pid_t pid = start_child(get_two_and_die, NULL);
    assert_int_equal(reap(pid), -SIGKILL);
    assert_int_equal(modus_queue_close(&scene->queue, MODUS_CLOSE_NOW), 0);
    assert_int_equal(modus_queue_join(&scene->queue, 0), -EAGAIN);
    modus_participant_bury(arena, pid);
    assert_int_equal(modus_queue_join(&scene->queue, 0), 0);
    modus_queue_fini(&scene->queue);
    start_scene(MODUS_QUEUE_LIFO, false, false);
    pid = start_child(get_until_closed, NULL);
    AWAIT_ASLEEP(pid);
    die(close_and_die);
    assert_int_equal(reap(pid), 0);
    modus_participant_bury(arena, pid);
    modus_queue_fini(&scene->queue);
}

/* --- at random ------------------------------------------------------------------------------- */

enum { WORKERS = 4, LIVES_MAX = 2000 };

static pid_t workers[WORKERS];
static struct life *lives[LIVES_MAX];
static int lives_made;

static void start_worker(int i)
{
    if (i >= WORKERS / 2)
        workers[i] = start_child(consume, NULL);
    else
        workers[i] = start_child(produce, lives[lives_made++] = new_life());
}

static void run_chaos(enum modus_queue_order order, bool redeliver)
{
    static const char *const names[] = {"fifo", "lifo", "priority"};
    const char *seconds = getenv("MODUS_CHAOS_SECONDS");
    int64_t until = modus_now_ns() + (int64_t)((seconds ? atof(seconds) : 2) * 1e9 / 6);
    long kills = 0, consumer_kills = 0;
    struct fate all = {0};

    start_scene(order, true, redeliver);
    lives_made = 0;
    for (int i = 0; i < WORKERS; i++)
        start_worker(i);
    while (modus_now_ns() < until && lives_made < LIVES_MAX) {
        int i = (int)(random() % WORKERS);

        usleep(500 + (useconds_t)random() % 2000);
        kill_child(workers[i]);
        modus_participant_bury(arena, workers[i]);
        consumer_kills += i >= WORKERS / 2;
        kills++;
        start_worker(i);
    }
    atomic_store(&scene->stop, true);
    for (int i = 0; i < WORKERS / 2; i++) {
        CHECK_INT(reap(workers[i]), 0);
        modus_participant_bury(arena, workers[i]);
    }
    dismiss(workers + WORKERS / 2, WORKERS / 2);
    for (int i = 0; i < lives_made; i++) {
        struct fate fate = fate_of(lives[i]);

        all.puts += fate.puts;
        all.lost += fate.lost;
        all.twice += fate.twice;
    }
    printf("killed: %s, %s: %ld items, %ld kills, %ld lost, %ld twice\n", names[order],
           redeliver ? "redeliver" : "lost", all.puts, kills, all.lost, all.twice);
    CHECK(kills > 0 && all.puts > 0);
    CHECK(all.lost <= (redeliver ? 0 : consumer_kills));
    CHECK(all.twice <= (redeliver ? consumer_kills : 0));
    end_scene();
}

static void test_chaos(void **state)
{
    const char *seed = getenv("MODUS_CHAOS_SEED");
    (void)state;

    srandom(seed ? (unsigned)atol(seed) : (unsigned)getpid());
    for (int i = 0; i < 6; i++)
        run_chaos((enum modus_queue_order)(i / 2), i & 1);
}

/* --- very many ------------------------------------------------------------------------------- */

/* Of these, what takes each item to all others is seen by the watchdog. */
enum { VERY_MANY = 1 << 19 };

static struct modus_arena *large;
static struct modus_queue large_queue;
static unsigned *large_items;

static void open_large_of(enum modus_queue_order order, unsigned capacity)
{
    CHECK_INT(modus_arena_open(&large, (size_t)256 << 20, 4), 0);
    CHECK(modus_participant_join(large) > 0);
    CHECK_INT(modus_queue_init(&large_queue,
                               &(struct modus_queue_attr){.scope = MODUS_PROCESS,
                                                          .arena = large,
                                                          .order = order,
                                                          .capacity = capacity,
                                                          .item_size = sizeof *large_items,
                                                          .joinable = true,
                                                          .on_death = MODUS_QUEUE_REDELIVER}),
              0);
    CHECK((large_items = calloc(VERY_MANY, sizeof *large_items)) != NULL);
}

static void open_large(enum modus_queue_order order)
{
    open_large_of(order, 2 * VERY_MANY);
}

static void close_large(void)
{
    free(large_items);
    modus_queue_fini(&large_queue);
    CHECK_INT(modus_arena_close(large), 0);
}

static int die_with_half(void *argument)
{
    (void)argument;
    CHECK(modus_participant_join(large) > 0);
    CHECK_INT(modus_queue_get_n(&large_queue, large_items, VERY_MANY / 2, 0), VERY_MANY / 2);
    return 0;
}

/* They go back to their places, below those that have come in the meantime. */
static void test_buried_with_very_many(void **state)
{
    (void)state;
    open_large(MODUS_QUEUE_LIFO);
    for (unsigned i = 0; i < VERY_MANY; i++)
        large_items[i] = i;
    assert_int_equal(modus_queue_put_n(&large_queue, large_items, VERY_MANY, 0), VERY_MANY);
    pid_t pid = start_child(die_with_half, NULL);
    assert_int_equal(reap(pid), 0);
    for (unsigned i = 0; i < VERY_MANY / 2; i++)
        large_items[i] = VERY_MANY + i;
    assert_int_equal(modus_queue_put_n(&large_queue, large_items, VERY_MANY / 2, 0), VERY_MANY / 2);
    assert_int_equal(modus_participant_bury(large, pid), 1);
    for (unsigned left = VERY_MANY + VERY_MANY / 2; left > 0;) {
        unsigned item;

        assert_int_equal(modus_queue_get(&large_queue, &item, 0), 0);
        assert_int_equal(item, --left);
    }
    close_large();
}

/* A FIFO that is no ring: before those that it has kept, in their order. */
static void test_buried_in_fifo_with_very_many(void **state)
{
    (void)state;
    open_large_of(MODUS_QUEUE_FIFO, 2 * VERY_MANY - 1);
    for (unsigned i = 0; i < VERY_MANY; i++)
        large_items[i] = i;
    assert_int_equal(modus_queue_put_n(&large_queue, large_items, VERY_MANY, 0), VERY_MANY);
    pid_t pid = start_child(die_with_half, NULL);
    assert_int_equal(reap(pid), 0);
    assert_int_equal(modus_participant_bury(large, pid), 1);
    for (unsigned i = 0; i < VERY_MANY; i++) {
        unsigned item;

        assert_int_equal(modus_queue_get(&large_queue, &item, 0), 0);
        assert_int_equal(item, i);
    }
    close_large();
}

static int die_with_lock(void *argument)
{
    (void)argument;
    CHECK(modus_participant_join(large) > 0);
    modus_fault_plan(MODUS_FAULT_STOCK_LOCKED, MODUS_FAULT_DIE, 1);
    modus_queue_put_key(&large_queue, &(unsigned){0}, 0, 0);
    return 1;
}

/* Who repairs the queue finds out again who has what, and for how long. */
static void test_repaired_with_very_many(void **state)
{
    unsigned seed = 1;
    (void)state;

    open_large(MODUS_QUEUE_PRIORITY);
    for (unsigned i = 0; i < VERY_MANY; i++)
        assert_int_equal(modus_queue_put_key(&large_queue, &i, rand_r(&seed), 0), 0);
    assert_int_equal(modus_queue_get_n(&large_queue, large_items, VERY_MANY, 0), VERY_MANY);
    assert_int_equal(reap(start_child(die_with_lock, NULL)), -SIGKILL);
    for (unsigned i = 0; i < VERY_MANY; i++)
        assert_int_equal(modus_queue_task_done(&large_queue), 0);
    assert_int_equal(modus_queue_task_done(&large_queue), -EOVERFLOW);
    close_large();
}

/* One consumer has as many items in its hands as a ring can hold, a million of them. */
static void test_keeps_very_many(void **state)
{
    (void)state;
    open_large(MODUS_QUEUE_FIFO);
    for (int half = 0; half < 2; half++)
        assert_int_equal(modus_queue_put_n(&large_queue, large_items, VERY_MANY, 0), VERY_MANY);
    for (int half = 0; half < 2; half++)
        assert_int_equal(modus_queue_get_n(&large_queue, large_items, VERY_MANY, 0), VERY_MANY);
    assert_int_equal(modus_queue_join(&large_queue, 0), -EAGAIN);
    for (unsigned i = 0; i < 2 * VERY_MANY; i++)
        assert_int_equal(modus_queue_task_done(&large_queue), 0);
    assert_int_equal(modus_queue_task_done(&large_queue), -EOVERFLOW);
    assert_int_equal(modus_queue_join(&large_queue, 0), 0);
    close_large();
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)1 << 30, WORKERS + 4) < 0)
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
        cmocka_unit_test_setup(test_old_place, watchdog),
        cmocka_unit_test_setup(test_done_in_order, watchdog),
        cmocka_unit_test_setup(test_burier_dies, watchdog),
        cmocka_unit_test_setup(test_closing, watchdog),
        cmocka_unit_test_setup(test_producer_dies, watchdog),
        cmocka_unit_test_setup(test_consumer_dies, watchdog),
        cmocka_unit_test_setup(test_keeps_very_many, watchdog),
        cmocka_unit_test_setup(test_buried_with_very_many, watchdog),
        cmocka_unit_test_setup(test_buried_in_fifo_with_very_many, watchdog),
        cmocka_unit_test_setup(test_repaired_with_very_many, watchdog),
        cmocka_unit_test_setup(test_chaos, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
