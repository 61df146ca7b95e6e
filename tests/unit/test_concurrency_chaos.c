/* SPDX-License-Identifier: MIT */
/*
 * Chaos: workers that use every process-scope object are killed at random, about every 2 ms, buried
 * and replaced. Every few seconds the workers are let go: every item that was put must have come out
 * once, but for one for each kill of a consumer, which is counted, and every object must be whole:
 * capacity, permits, lock, barrier, arena. Then it goes on with the same objects.
 *
 * MODUS_CHAOS_SECONDS is how long it takes in all (half of it for each policy; 3 unless set; `make
 * chaos SECONDS=600`), MODUS_CHAOS_SEED repeats the choice of victims (not the scheduling).
 */
#include "test_concurrency.h"

#include "concurrency/barrier.h"
#include "concurrency/cond.h"
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
    ROUND_SECONDS = 5,    /* between two looks at everything */
    LIVES = 16384,        /* of a round */
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
    struct modus_cond changed; /* of lock */
    struct modus_barrier barrier;
    long guarded[2]; /* under lock; equal */
    _Atomic bool stop_producing, stop;
    _Atomic long rounds;
};

static struct modus_arena *arena;
static struct chaos *chaos;

/* After a wait for the lock that returned rc. */
static void mend(int rc)
{
    if (rc == MODUS_OWNERDEAD) {
        chaos->guarded[1] = chaos->guarded[0];
        CHECK_INT(modus_lock_consistent(&chaos->lock), 0);
    }
    CHECK(chaos->guarded[0] == chaos->guarded[1]);
}

static void use_lock(void)
{
    int rc = modus_lock_acquire(&chaos->lock, MODUS_FOREVER);

    CHECK(rc == 0 || rc == MODUS_OWNERDEAD);
    mend(rc);
    chaos->guarded[0]++;
    chaos->guarded[1]++;
    CHECK(modus_cond_notify(&chaos->changed, 1) >= 0);
    rc = modus_cond_wait(&chaos->changed, modus_us(10));
    CHECK(rc == 0 || rc == MODUS_OWNERDEAD || rc == -ETIMEDOUT);
    mend(rc);
    CHECK_INT(modus_lock_release(&chaos->lock), 0);
}

/* Two meet, or do not, and then one makes it whole again. */
static void use_barrier(void)
{
    int rc = modus_barrier_wait(&chaos->barrier, modus_us(20));

    CHECK(rc == 0 || rc == 1 || rc == MODUS_BROKEN || rc == -ETIMEDOUT);
    if (rc < 0)
        modus_barrier_reset(&chaos->barrier);
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
    use_barrier();
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
static size_t lives_made;

static void start_worker(int i)
{
    if (i >= PRODUCERS) {
        workers[i] = start_child(consume, NULL);
        return;
    }
    CHECK(lives_made < LIVES);
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

static void make_objects(bool redeliver)
{
    struct modus_queue_attr attr = {
        .scope = MODUS_PROCESS,
        .arena = arena,
        .capacity = CAPACITY,
        .item_size = sizeof(struct item),
        .joinable = redeliver,
        .on_death = redeliver ? MODUS_QUEUE_REDELIVER : MODUS_QUEUE_LOST,
    };
    struct modus_sem_attr permits = {
        .scope = MODUS_PROCESS, .value = PERMITS, .max = PERMITS, .accounted = true};
    struct modus_barrier_attr parties = {.scope = MODUS_PROCESS, .parties = 2, .arena = arena};

    chaos = modus_arena_alloc(arena, sizeof *chaos, 0);
    CHECK(chaos);
    CHECK_INT(modus_queue_init(&chaos->queue, &attr), 0);
    CHECK_INT(modus_lock_init(&chaos->lock, MODUS_PROCESS), 0);
    CHECK_INT(modus_cond_init(&chaos->changed, &chaos->lock), 0);
    CHECK_INT(modus_event_init(&chaos->event, MODUS_PROCESS), 0);
    CHECK_INT(modus_sem_init(&chaos->permits, &permits), 0);
    CHECK_INT(modus_barrier_init(&chaos->barrier, &parties), 0);
}

static void end_objects(void)
{
    modus_barrier_fini(&chaos->barrier);
    modus_sem_fini(&chaos->permits);
    modus_event_fini(&chaos->event);
    modus_cond_fini(&chaos->changed);
    modus_lock_fini(&chaos->lock);
    modus_queue_fini(&chaos->queue);
    modus_arena_free(arena, chaos, sizeof *chaos);
}

/* Producers end, what is inside is drained, consumers end. */
static void dismiss_workers(void)
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

struct sums {
    long puts, kills, consumer_kills, lost, twice, phantoms;
};

static void count_items(struct sums *sums)
{
    for (size_t i = 0; i < lives_made; i++) {
        uint32_t n = atomic_load(&lives[i]->puts);

        for (uint32_t k = 0; k < LIFE_ITEMS; k++) {
            unsigned char seen = atomic_load_explicit(&lives[i]->seen[k], memory_order_relaxed);

            sums->lost += k < n && seen == 0;
            sums->twice += seen > 1;
            sums->phantoms += k > n && seen > 0;
            if (k > n && k % 4096 == 0 && seen == 0)
                break; /* far behind the last: pages that nobody has touched */
        }
        sums->puts += n;
    }
}

static void check_items(const struct sums *sums, bool redeliver)
{
    CHECK(sums->lost <= (redeliver ? 0 : sums->consumer_kills));
    CHECK(sums->twice <= (redeliver ? sums->consumer_kills : 0));
    CHECK_INT(sums->phantoms, 0);
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
    modus_barrier_reset(&chaos->barrier);
    CHECK(!modus_barrier_broken(&chaos->barrier));
    CHECK_INT(modus_barrier_waiting(&chaos->barrier), 0);
    for (int i = 0; i < WORKERS + 2; i++) /* all slots but ours are free */
        CHECK(modus_participant_alive(arena, i + 1) == (i + 1 == modus_participant_self(arena)));
}

/* Kill until then, let everybody go, and look. */
static void run_round(struct sums *sums, int64_t until, bool redeliver)
{
    lives_made = 0;
    atomic_store(&chaos->stop_producing, false);
    atomic_store(&chaos->stop, false);
    for (int i = 0; i < WORKERS; i++)
        start_worker(i);
    while (modus_now_ns() < until && lives_made < LIVES - 1) {
        int i = (int)(random() % WORKERS);

        usleep(500 + (useconds_t)random() % 2000);
        sums->consumer_kills += kill_one(i);
        sums->kills++;
        start_worker(i);
    }
    dismiss_workers();
    count_items(sums);
    check_items(sums, redeliver);
    check_objects();
    for (size_t i = 0; i < lives_made; i++)
        modus_arena_free(arena, lives[i], sizeof **lives);
}

static void run(bool redeliver)
{
    const char *seconds = getenv("MODUS_CHAOS_SECONDS"), *seed = getenv("MODUS_CHAOS_SEED");
    int64_t until = modus_deadline((int64_t)((seconds ? atof(seconds) : 3) / 2 * 1e9));
    struct sums sums = {0};

    srandom(seed ? (unsigned)atol(seed) : (unsigned)getpid());
    lives = calloc(LIVES, sizeof *lives);
    CHECK(lives);
    make_objects(redeliver);
    do {
        int64_t round = modus_deadline(modus_seconds(ROUND_SECONDS));

        alarm(WATCHDOG_SECONDS + ROUND_SECONDS);
        run_round(&sums, round < until ? round : until, redeliver);
    } while (modus_now_ns() < until);
    printf("chaos: %s: %ld items, %ld kills, %ld lost, %ld twice\n",
           redeliver ? "redeliver" : "lost", sums.puts, sums.kills, sums.lost, sums.twice);
    CHECK(sums.kills > 0 && sums.puts > 0);
    end_objects();
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
