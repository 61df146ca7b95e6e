/* SPDX-License-Identifier: MIT */
/*
 * Chaos: workers that use every process-scope object are killed at random, about every 2 ms, buried
 * and replaced. At the end every item that was put must have come out once, but for one for each
 * kill, and every object must be whole: capacity, permits, lock, arena.
 *
 * MODUS_CHAOS_SECONDS is how long each policy runs (half of it each; 3 in all unless set),
 * MODUS_CHAOS_SEED repeats the choice of victims (not the scheduling).
 */
#include "test_concurrency.h"

#include "concurrency/event.h"
#include "concurrency/lock.h"
#include "concurrency/queue.h"
#include "concurrency/sem.h"

enum {
    PRODUCERS = 2,
    CONSUMERS = 2,
    WORKERS = PRODUCERS + CONSUMERS,
    CAPACITY = 16,
    PERMITS = 3,
    LIFE_ITEMS = 1 << 16, /* items that one producer's life may put */
};

/* One life of a producer, and what has become of its items. */
struct life {
    _Atomic uint32_t puts; /* returned */
    _Atomic unsigned char seen[LIFE_ITEMS];
};

struct item {
    struct life *life;
    uint32_t number;
};

struct chaos {
    struct modus_queue queue;
    struct modus_lock lock;
    struct modus_sem permits;
    struct modus_event event;
    long guarded[2]; /* under lock; equal */
    _Atomic bool stop_producing, stop;
    _Atomic long rounds;
};

static struct modus_arena *arena;
static struct chaos *chaos;

static void use_lock(void)
{
    int rc = modus_lock_acquire(&chaos->lock, MODUS_FOREVER);

    if (rc == MODUS_OWNERDEAD) {
        chaos->guarded[1] = chaos->guarded[0];
        CHECK_INT(modus_lock_consistent(&chaos->lock), 0);
    } else {
        CHECK_INT(rc, 0);
    }
    CHECK(chaos->guarded[0] == chaos->guarded[1]);
    chaos->guarded[0]++;
    chaos->guarded[1]++;
    CHECK_INT(modus_lock_release(&chaos->lock), 0);
}

/* A bit of everything besides the queue. */
static void use_others(uint32_t round)
{
    size_t size = (size_t)64 << round % 5;

    if (round % 16)
        return;
    CHECK_INT(modus_sem_acquire(&chaos->permits, MODUS_FOREVER), 0);
    use_lock();
    unsigned char *memory = modus_arena_alloc(arena, size, 0);
    CHECK(memory && memory[0] == 0 && memory[size - 1] == 0);
    memory[0] = memory[size - 1] = 1;
    CHECK_INT(modus_arena_free(arena, memory, size), 0);
    modus_event_set(&chaos->event);
    CHECK(modus_event_wait(&chaos->event, modus_us(10)) != -EINVAL);
    modus_event_clear(&chaos->event);
    CHECK_INT(modus_sem_release(&chaos->permits, 1), 0);
}

static int produce(void *argument)
{
    struct item item = {.life = argument};

    CHECK(modus_participant_join(arena) > 0);
    while (item.number < LIFE_ITEMS && !atomic_load(&chaos->stop_producing)) {
        CHECK_INT(modus_queue_put(&chaos->queue, &item, MODUS_FOREVER), 0);
        atomic_store(&item.life->puts, ++item.number);
        use_others(item.number);
    }
    return 0;
}

static int consume(void *argument)
{
    struct item item;

    (void)argument;
    CHECK(modus_participant_join(arena) > 0);
    for (uint32_t round = 0; !atomic_load(&chaos->stop); round++) {
        int rc = modus_queue_get(&chaos->queue, &item, MODUS_FOREVER);

        if (rc == MODUS_CANCELED)
            continue;
        CHECK_INT(rc, 0);
        atomic_fetch_add(&item.life->seen[item.number], 1);
        if (chaos->queue.joinable)
            CHECK_INT(modus_queue_task_done(&chaos->queue), 0);
        use_others(round);
        atomic_fetch_add(&chaos->rounds, 1);
    }
    return 0;
}

/* --- the supervisor -------------------------------------------------------------------------- */

static pid_t workers[WORKERS];
static struct life **lives;
static size_t lives_made, lives_max;

static void start_worker(int i)
{
    if (i >= PRODUCERS) {
        workers[i] = start_child(consume, NULL);
        return;
    }
    CHECK(lives_made < lives_max);
    lives[lives_made] = modus_arena_alloc(arena, sizeof **lives, 0);
    CHECK(lives[lives_made]);
    workers[i] = start_child(produce, lives[lives_made++]);
}

/* Returns 1 for a consumer that was killed. A producer may have ended by itself. */
static int kill_one(int i)
{
    kill(workers[i], SIGKILL);
    int end = reap(workers[i]);
    CHECK(end == -SIGKILL || (end == 0 && i < PRODUCERS));
    modus_participant_bury(arena, workers[i]);
    return i >= PRODUCERS;
}

static void start_chaos(bool redeliver)
{
    struct modus_queue_attr attr = {
        .scope = MODUS_PROCESS,
        .arena = arena,
        .capacity = CAPACITY,
        .item_size = sizeof(struct item),
        .joinable = redeliver,
        .on_death = redeliver ? MODUS_QUEUE_REDELIVER : MODUS_QUEUE_LOST,
    };

    chaos = modus_arena_alloc(arena, sizeof *chaos, 0);
    CHECK(chaos);
    CHECK_INT(modus_queue_init(&chaos->queue, &attr), 0);
    CHECK_INT(modus_lock_init(&chaos->lock, MODUS_PROCESS), 0);
    CHECK_INT(modus_event_init(&chaos->event, MODUS_PROCESS), 0);
    CHECK_INT(modus_sem_init(&chaos->permits, &(struct modus_sem_attr){.scope = MODUS_PROCESS,
                                                                       .value = PERMITS,
                                                                       .max = PERMITS,
                                                                       .accounted = true}),
              0);
    for (int i = 0; i < WORKERS; i++)
        start_worker(i);
}

/* Producers end, what is inside is drained, consumers end. */
static void end_chaos(void)
{
    atomic_store(&chaos->stop_producing, true);
    for (int i = 0; i < PRODUCERS; i++) {
        CHECK_INT(reap(workers[i]), 0);
        modus_participant_bury(arena, workers[i]);
    }
    if (chaos->queue.joinable)
        CHECK_INT(modus_queue_join(&chaos->queue, modus_seconds(10)), 0);
    AWAIT(modus_queue_len(&chaos->queue) == 0);
    atomic_store(&chaos->stop, true);
    for (int i = PRODUCERS; i < WORKERS; i++) {
        AWAIT(state_of(workers[i]) == 'S' || state_of(workers[i]) == 'Z');
        modus_queue_interrupt(&chaos->queue);
        CHECK_INT(reap(workers[i]), 0);
        modus_participant_bury(arena, workers[i]);
    }
}

static void check_items(long kills, long consumer_kills, bool redeliver)
{
    long lost = 0, twice = 0, puts = 0, phantoms = 0;

    for (size_t i = 0; i < lives_made; i++) {
        uint32_t n = atomic_load(&lives[i]->puts);

        for (uint32_t k = 0; k < LIFE_ITEMS; k++) {
            lost += k < n && lives[i]->seen[k] == 0;
            twice += lives[i]->seen[k] > 1;
            phantoms += k > n && lives[i]->seen[k] > 0;
        }
        puts += n;
    }
    printf("chaos: %s: %ld items, %ld kills, %ld lost, %ld twice\n",
           redeliver ? "redeliver" : "lost", puts, kills, lost, twice);
    CHECK(kills > 0 && puts > 0);
    CHECK(lost <= (redeliver ? 0 : consumer_kills));
    CHECK(twice <= (redeliver ? consumer_kills : 0));
    CHECK_INT(phantoms, 0);
}

static void check_objects(void)
{
    struct item item = {0};

    for (int i = 0; i < CAPACITY; i++)
        CHECK_INT(modus_queue_put(&chaos->queue, &item, 0), 0);
    CHECK_INT(modus_queue_put(&chaos->queue, &item, 0), MODUS_FULL);
    for (int i = 0; i < CAPACITY; i++) {
        CHECK_INT(modus_queue_get(&chaos->queue, &item, 0), 0);
        if (chaos->queue.joinable)
            CHECK_INT(modus_queue_task_done(&chaos->queue), 0);
    }
    CHECK_INT(modus_queue_get(&chaos->queue, &item, 0), MODUS_EMPTY);
    CHECK_INT(modus_sem_value(&chaos->permits), PERMITS);
    use_lock();
    for (int i = 0; i < WORKERS + 2; i++) /* all slots but ours are free */
        CHECK(modus_participant_alive(arena, i + 1) == (i + 1 == modus_participant_self(arena)));
}

static void run(bool redeliver)
{
    const char *seconds = getenv("MODUS_CHAOS_SECONDS"), *seed = getenv("MODUS_CHAOS_SEED");
    double length = (seconds ? atof(seconds) : 3) / 2;
    int64_t until = modus_now_ns() + (int64_t)(length * 1e9);
    long kills = 0, consumer_kills = 0;

    alarm(WATCHDOG_SECONDS + (unsigned)length);
    srandom(seed ? (unsigned)atol(seed) : (unsigned)getpid());
    lives_max = 64 + (size_t)(length * 2000);
    lives = calloc(lives_max, sizeof *lives);
    CHECK(lives);
    lives_made = 0;
    start_chaos(redeliver);
    while (modus_now_ns() < until && lives_made < lives_max - 1) {
        int i = (int)(random() % WORKERS);

        usleep(500 + (useconds_t)random() % 2000);
        consumer_kills += kill_one(i);
        kills++;
        start_worker(i);
    }
    end_chaos();
    check_items(kills, consumer_kills, redeliver);
    check_objects();
    for (size_t i = 0; i < lives_made; i++)
        modus_arena_free(arena, lives[i], sizeof **lives);
    modus_sem_fini(&chaos->permits);
    modus_queue_fini(&chaos->queue);
    free(lives);
}

static void test_lost(void **state)
{
    (void)state;
    run(false);
}

static void test_redeliver(void **state)
{
    (void)state;
    run(true);
}

static int open_arena(void **state)
{
    (void)state;
    if (modus_arena_open(&arena, (size_t)8 << 30, WORKERS + 2) < 0)
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
        cmocka_unit_test_setup(test_lost, watchdog),
        cmocka_unit_test_setup(test_redeliver, watchdog),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
