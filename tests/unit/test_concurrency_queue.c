/* SPDX-License-Identifier: MIT */
/* The queue: order, bounds, times, batches, closing, joining, and the chain of wake-ups. */
#include "test_concurrency_queue.h"

#include "concurrency/event.h"
#include "concurrency/fault.h"

/* Every semantic test runs in both scopes; *state is the scope. */
static enum modus_scope thread_scope = MODUS_THREAD, process_scope = MODUS_PROCESS;

static struct modus_queue_attr attr_of(void **state, unsigned capacity)
{
    return (struct modus_queue_attr){.scope = *(enum modus_scope *)*state,
                                     .arena = arena,
                                     .capacity = capacity,
                                     .item_size = sizeof(long)};
}

static void test_attributes(void **state)
{
    struct modus_queue queue = {0};
    struct modus_queue_attr good = attr_of(state, 4), bad;
    long item = 0;

    modus_queue_fini(&queue);
    assert_int_equal(modus_queue_put(&queue, &item, 0), -EINVAL);
    assert_int_equal(modus_queue_get_until(&queue, &item, 0), -EINVAL);
    assert_int_equal(modus_queue_put_n(&queue, &item, 1, 0), -EINVAL);
    assert_int_equal(modus_queue_close(&queue, MODUS_CLOSE_NOW), -EINVAL);
    assert_int_equal(modus_queue_interrupt(&queue), -EINVAL);
    assert_int_equal(modus_queue_join(&queue, 0), -EINVAL);
    assert_int_equal(modus_queue_task_done(&queue), -EINVAL);
    assert_int_equal(modus_queue_len(&queue), 0);
    assert_false(modus_queue_is_closed(&queue));
    bad = good, bad.capacity = 0;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.item_size = 0;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.item_size = 65537;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.scope = 0;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.scope = MODUS_PROCESS, bad.arena = NULL;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.scope = MODUS_THREAD, bad.on_death = MODUS_QUEUE_REDELIVER;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.capacity = 1 << 24, bad.scope = MODUS_PROCESS;
    assert_int_equal(modus_queue_init(&queue, &bad), -ENOMEM);
}

/* Also where the capacity is no power of two, and there is no ring below. */
static void test_order_and_bounds(void **state)
{
    for (unsigned capacity = 1; capacity <= 8; capacity++) {
        struct modus_queue *queue = new_queue(attr_of(state, capacity));
        long in = 0, out = 0;

        for (int round = 0; round < 5; round++) {
            assert_int_equal(get(queue), MODUS_EMPTY);
            while (put(queue, in) == 0)
                in++;
            assert_int_equal(in - out, capacity);
            assert_int_equal(modus_queue_len(queue), capacity);
            assert_int_equal(put(queue, in), MODUS_FULL);
            for (unsigned i = 0; i <= capacity / 2; i++)
                assert_int_equal(get(queue), out++);
            while (put(queue, in) == 0)
                in++;
            while (out < in)
                assert_int_equal(get(queue), out++);
            assert_int_equal(modus_queue_len(queue), 0);
        }
        end_queue(queue);
    }
}

static void test_item_sizes(void **state)
{
    static const unsigned sizes[] = {1, 4, 8, 16, 48, 56, 57, 300, 65536};
    static unsigned char in[65536], out[65536];

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct modus_queue_attr attr = attr_of(state, 2);
        attr.item_size = sizes[i];
        struct modus_queue *queue = new_queue(attr);

        for (unsigned round = 0; round < 5; round++) {
            memset(in, (int)(round + 1), sizeof in);
            memset(out, 0, sizeof out);
            assert_int_equal(modus_queue_try_put(queue, in), 0);
            assert_int_equal(modus_queue_try_get(queue, out), 0);
            assert_memory_equal(in, out, sizes[i]);
            assert_true(sizes[i] == sizeof out || out[sizes[i]] == 0);
        }
        end_queue(queue);
    }
}

static void test_times(void **state)
{
    struct modus_queue *queue = new_queue(attr_of(state, 1));
    long item = 1;

    assert_int_equal(modus_queue_get(queue, &item, -2), -EINVAL);
    assert_int_equal(modus_queue_put(queue, &item, -2), -EINVAL);
    assert_int_equal(modus_queue_put_until(queue, &item, -2), -EINVAL);
    assert_int_equal(modus_queue_get_n(queue, &item, 0, 0), -EINVAL);
    assert_int_equal(modus_queue_put_n(queue, &item, 0, 0), -EINVAL);
    assert_int_equal(modus_queue_put_n(queue, &item, 1, -2), -EINVAL);
    int64_t start = modus_now_ns();
    assert_int_equal(modus_queue_get(queue, &item, modus_ms(15)), -ETIMEDOUT);
    assert_int_equal(modus_queue_get_n(queue, &item, 1, modus_ms(15)), -ETIMEDOUT);
    assert_true(modus_now_ns() - start >= modus_ms(30));
    assert_int_equal(modus_queue_get_until(queue, &item, 1), -ETIMEDOUT);
    assert_int_equal(modus_queue_put_until(queue, &item, 1), 0);
    start = modus_now_ns();
    assert_int_equal(modus_queue_put(queue, &item, modus_ms(15)), -ETIMEDOUT);
    assert_true(modus_now_ns() - start >= modus_ms(15));
    assert_int_equal(modus_queue_put_until(queue, &item, 1), -ETIMEDOUT);
    assert_int_equal(modus_queue_get_until(queue, &item, 1), 0);
    end_queue(queue);
}

static void test_batches(void **state)
{
    struct modus_queue *queue = new_queue(attr_of(state, 8));
    long in[12], out[12];

    for (int i = 0; i < 12; i++)
        in[i] = i;
    assert_int_equal(modus_queue_put_n(queue, in, 5, 0), 5);
    assert_int_equal(modus_queue_put_n(queue, in + 5, 7, 0), 3);
    assert_int_equal(modus_queue_put_n(queue, in + 8, 4, 0), MODUS_FULL);
    assert_int_equal(modus_queue_put_n(queue, in + 8, 4, modus_ms(10)), -ETIMEDOUT);
    assert_int_equal(modus_queue_get_n(queue, out, 3, 0), 3);
    assert_int_equal(modus_queue_put_n(queue, in + 8, 4, modus_ms(10)),
                     3); /* then the time is over */
    assert_int_equal(modus_queue_get_n(queue, out + 3, 9, MODUS_FOREVER), 8);
    assert_memory_equal(in, out, 11 * sizeof *in);
    assert_int_equal(modus_queue_get_n(queue, out, 9, 0), MODUS_EMPTY);
    end_queue(queue);
}

/* --- many at a time -------------------------------------------------------------------------- */

struct traffic {
    struct modus_queue *queue;
    long items; /* each producer's */
    unsigned producers, consumers;
    int batch;
    _Atomic unsigned next_producer;
    _Atomic long got, sum;
    _Atomic int ordered;
};

static void *produce(void *argument)
{
    struct traffic *traffic = argument;
    long me = (long)atomic_fetch_add(&traffic->next_producer, 1) << 32, items[16];

    for (long i = 0; i < traffic->items;) {
        long n = traffic->batch < traffic->items - i ? traffic->batch : traffic->items - i;

        for (long k = 0; k < n; k++)
            items[k] = me | (i + k);
        if (i % 7 == 0)
            n = modus_queue_put_n(traffic->queue, items, (size_t)n, modus_us(30));
        else
            n = modus_queue_put_n(traffic->queue, items, (size_t)n, MODUS_FOREVER);
        CHECK(n > 0 || n == -ETIMEDOUT);
        i += n > 0 ? n : 0;
    }
    return NULL;
}

/* Items of one producer come in its order, to each consumer. */
static void *consume(void *argument)
{
    struct traffic *traffic = argument;
    long items[16], last[8], n;

    for (int i = 0; i < 8; i++)
        last[i] = -1;
    for (;;) {
        n = modus_queue_get_n(traffic->queue, items, (size_t)traffic->batch, modus_us(700));
        if (n == -ETIMEDOUT)
            continue;
        if (n == MODUS_CLOSED)
            return NULL;
        CHECK(n > 0);
        for (long k = 0; k < n; k++) {
            long producer = items[k] >> 32, number = items[k] & 0xffffffff;

            if (number <= last[producer])
                atomic_store(&traffic->ordered, 0);
            last[producer] = number;
            atomic_fetch_add(&traffic->sum, number);
        }
        atomic_fetch_add(&traffic->got, n);
    }
}

static int produce_child(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    produce(argument);
    return 0;
}

static int consume_child(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    consume(argument);
    return 0;
}

static void *consume_joined(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    consume(argument);
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

static void *produce_joined(void *argument)
{
    CHECK(modus_participant_join(arena) > 0);
    produce(argument);
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

static void check_traffic(struct traffic *traffic)
{
    long all = traffic->items * (long)traffic->producers;

    assert_int_equal(traffic->got, all);
    assert_int_equal(traffic->sum,
                     (long)traffic->producers * (traffic->items - 1) * traffic->items / 2);
    assert_int_equal(traffic->ordered, 1);
}

/* Provokes: full and empty queues, sleepers on both sides, timeouts of both, single and batch. Must
 * hold: every item comes exactly once and in its producer's order; nobody sleeps for ever. */
static void run_traffic(void **state, unsigned producers, unsigned consumers, int batch,
                        unsigned capacity, bool processes)
{
    struct traffic *traffic = modus_arena_alloc(arena, sizeof *traffic, 0);
    pthread_t threads[16];
    pid_t pids[16];
    unsigned n = 0;

    traffic->queue = new_queue(attr_of(state, capacity));
    traffic->items = SLOW || processes || capacity == 1 ? 2000 : 10000;
    traffic->producers = producers;
    traffic->consumers = consumers;
    traffic->batch = batch;
    traffic->ordered = 1;
    for (; n < producers + consumers; n++) {
        bool producer = n < producers;

        if (processes)
            pids[n] = start_child(producer ? produce_child : consume_child, traffic);
        else
            threads[n] = start_thread(producer ? produce_joined : consume_joined, traffic);
    }
    for (unsigned i = 0; i < n; i++) {
        if (i == producers)
            modus_queue_close(traffic->queue, MODUS_CLOSE_DRAIN);
        if (processes)
            assert_int_equal(reap(pids[i]), 0);
        else
            join_thread(threads[i]);
    }
    modus_participant_bury(arena, 0);
    check_traffic(traffic);
    end_queue(traffic->queue);
    modus_arena_free(arena, traffic, sizeof *traffic);
}

static void test_traffic(void **state)
{
    for (int batch = 1; batch <= 16; batch += 15)
        for (unsigned capacity = 1; capacity <= 64; capacity *= 8) {
            run_traffic(state, 1, 1, batch, capacity, false);
            run_traffic(state, 3, 3, batch, capacity, false);
            run_traffic(state, 4, 1, batch, capacity, false);
        }
}

static void test_traffic_of_processes(void **state)
{
    for (int batch = 1; batch <= 16; batch += 15) {
        run_traffic(state, 1, 1, batch, 64, true);
        run_traffic(state, 3, 3, batch, 4, true);
        run_traffic(state, 1, 4, batch, 1, true);
    }
}

struct rally {
    struct modus_queue *there, *back;
    long balls;
};

static void *return_balls(void *argument)
{
    struct rally *rally = argument;
    long ball;

    CHECK(modus_participant_join(arena) > 0);
    for (long i = 0; i < rally->balls; i++) {
        CHECK_INT(modus_queue_get(rally->there, &ball, MODUS_FOREVER), 0);
        CHECK_INT(modus_queue_put(rally->back, &ball, MODUS_FOREVER), 0);
    }
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

/* Provokes: a put against a consumer at every stage of going to sleep, with nobody else to come by.
 * One lost wake-up hangs. */
static void test_rally(void **state)
{
    struct rally rally = {new_queue(attr_of(state, 1)), new_queue(attr_of(state, 1)),
                          SLOW ? 2000 : 20000};
    pthread_t thread = start_thread(return_balls, &rally);
    long ball;

    for (long i = 0; i < rally.balls; i++) {
        assert_int_equal(modus_queue_put(rally.there, &i, MODUS_FOREVER), 0);
        for (volatile long wait = 0; wait < i % 200; wait++)
            ;
        assert_int_equal(modus_queue_get(rally.back, &ball, MODUS_FOREVER), 0);
        assert_int_equal(ball, i);
    }
    join_thread(thread);
    end_queue(rally.there);
    end_queue(rally.back);
}

/* --- sleepers -------------------------------------------------------------------------------- */

static void test_close_wakes(void **state)
{
    for (int how = MODUS_CLOSE_DRAIN; how <= MODUS_CLOSE_NOW; how++)
        for (int putting = 0; putting < 2; putting++) {
            struct modus_queue *queue = new_queue(attr_of(state, 1));
            struct sleeper sleepers[2] = {{.queue = queue, .putting = putting},
                                          {.queue = queue, .putting = putting}};

            if (putting)
                assert_int_equal(put(queue, 5), 0);
            start_sleeper(&sleepers[0]);
            start_sleeper(&sleepers[1]);
            assert_int_equal(modus_queue_close(queue, (enum modus_close)how), 0);
            assert_int_equal(end_sleeper(&sleepers[0]), MODUS_CLOSED);
            assert_int_equal(end_sleeper(&sleepers[1]), MODUS_CLOSED);
            assert_int_equal(get(queue), putting && how == MODUS_CLOSE_DRAIN ? 5 : MODUS_CLOSED);
            end_queue(queue);
        }
}

/* Who leaves the arena, or is buried, wakes all: so these do neither. */
struct late {
    struct modus_queue *queue;
    atomic_int begun, results[2]; /* of gets, plus 1 */
};

static int put_and_stop(void *argument)
{
    struct late *late = argument;

    CHECK(modus_participant_join(arena) > 0);
    modus_fault_plan(MODUS_FAULT_PUT_HELPED, MODUS_FAULT_STOP, 1);
    CHECK_INT(put(late->queue, 5), 0);
    pause();
    return 0;
}

static int get_and_stay(void *argument)
{
    struct late *late = argument;
    long item;

    CHECK(modus_participant_join(arena) > 0);
    int number = atomic_fetch_add(&late->begun, 1);
    int rc = modus_queue_get(late->queue, &item, MODUS_FOREVER);
    atomic_store(&late->results[number], rc + 1);
    pause();
    return 0;
}

/* Two get from a closed queue, in which the last put is still under way: they sleep. One gets the
 * item, and the other is told that there will be no more. */
static void test_close_with_a_put_under_way(void **state)
{
    struct late *late = modus_arena_alloc(arena, sizeof *late, 0);
    pid_t pids[3];

    late->queue = new_queue(attr_of(state, 4));
    pids[0] = start_child(put_and_stop, late);
    AWAIT(state_of(pids[0]) == 'T');
    assert_int_equal(modus_queue_close(late->queue, MODUS_CLOSE_DRAIN), 0);
    for (int i = 1; i < 3; i++) {
        pids[i] = start_child(get_and_stay, late);
        AWAIT(atomic_load(&late->begun) == i);
        AWAIT_ASLEEP(pids[i]);
    }
    kill(pids[0], SIGCONT);
    AWAIT(atomic_load(&late->results[0]) && atomic_load(&late->results[1]));
    assert_int_equal(atomic_load(&late->results[0]) + atomic_load(&late->results[1]),
                     2 + MODUS_CLOSED); /* 0 and that, either way */
    for (int i = 0; i < 3; i++)
        kill_child(pids[i]);
    modus_participant_bury(arena, 0);
    end_queue(late->queue);
    modus_arena_free(arena, late, sizeof *late);
}

static void test_interrupt(void **state)
{
    struct modus_queue_attr attr = attr_of(state, 1);
    attr.joinable = true;
    struct modus_queue *queue = new_queue(attr), *empty = new_queue(attr);
    struct sleeper putter = {.queue = queue, .putting = true}, getter = {.queue = empty},
                   joiner = {.queue = queue, .joining = true};

    assert_int_equal(put(queue, 5), 0);
    start_sleeper(&putter);
    start_sleeper(&joiner);
    start_sleeper(&getter);
    assert_int_equal(modus_queue_interrupt(queue), 0);
    assert_int_equal(modus_queue_interrupt(empty), 0);
    assert_int_equal(end_sleeper(&putter), MODUS_CANCELED);
    assert_int_equal(end_sleeper(&joiner), MODUS_CANCELED);
    assert_int_equal(end_sleeper(&getter), MODUS_CANCELED);
    assert_int_equal(get(queue), 5); /* the queue goes on */
    assert_int_equal(put(queue, 6), 0);
    end_queue(queue);
    end_queue(empty);
}

static void test_close(void **state)
{
    struct modus_queue *queue = new_queue(attr_of(state, 4));

    assert_int_equal(modus_queue_close(queue, (enum modus_close)9), -EINVAL);
    assert_int_equal(put(queue, 1), 0);
    assert_int_equal(put(queue, 2), 0);
    assert_int_equal(put(queue, 3), 0);
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_DRAIN), 0);
    assert_true(modus_queue_is_closed(queue));
    assert_int_equal(put(queue, 4), MODUS_CLOSED);
    assert_int_equal(get(queue), 1);
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_DRAIN), 0);
    assert_int_equal(get(queue), 2);
    assert_int_equal(modus_queue_len(queue), 1);
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_NOW), 0);
    assert_int_equal(modus_queue_len(queue), 0);
    assert_int_equal(get(queue), MODUS_CLOSED);
    assert_int_equal(put(queue, 4), MODUS_CLOSED);
    end_queue(queue);
    queue = new_queue(attr_of(state, 4));
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_DRAIN), 0);
    assert_int_equal(get(queue), MODUS_CLOSED);
    end_queue(queue);
}

/* Provokes: a close against puts at every stage. Must hold: what put reported as put comes out, and
 * nothing else. */
struct closing {
    struct modus_queue *queue;
    _Atomic long put;
    _Atomic bool go;
};

static void *put_until_closed(void *argument)
{
    struct closing *closing = argument;
    long item = 7;
    int rc;

    CHECK(modus_participant_join(arena) > 0);
    AWAIT(atomic_load(&closing->go));
    while ((rc = modus_queue_put(closing->queue, &item, 0)) != MODUS_CLOSED)
        if (rc == 0)
            atomic_fetch_add(&closing->put, 1);
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

static void test_close_is_exact(void **state)
{
    for (int round = 0; round < (SLOW ? 20 : 100); round++) {
        struct closing closing = {.queue = new_queue(attr_of(state, 256))};
        pthread_t threads[2] = {start_thread(put_until_closed, &closing),
                                start_thread(put_until_closed, &closing)};
        long got = 0;

        atomic_store(&closing.go, true);
        while (modus_queue_len(closing.queue) < (size_t)round)
            sched_yield();
        assert_int_equal(modus_queue_close(closing.queue, MODUS_CLOSE_DRAIN), 0);
        for (long item; (item = get(closing.queue)) != MODUS_CLOSED;)
            got += item == 7;
        join_thread(threads[0]);
        join_thread(threads[1]);
        assert_int_equal(got, atomic_load(&closing.put));
        assert_int_equal(get(closing.queue), MODUS_CLOSED);
        end_queue(closing.queue);
    }
}

static _Atomic int interrupted;

static void dawdle(int signo)
{
    int saved = errno;

    (void)signo;
    atomic_store(&interrupted, 1);
    while (atomic_load(&interrupted) == 1)
        sched_yield();
    errno = saved;
}

/* Provokes: a close now while a put is stopped by a signal, often between claim and publish. Must
 * hold: what comes late is dropped too, and counts as done. */
static void test_close_now_is_exact(void **state)
{
    signal(SIGUSR1, dawdle);
    for (int round = 0; round < (SLOW ? 20 : 100); round++) {
        struct modus_queue_attr attr = attr_of(state, 4096);
        attr.joinable = true;
        struct closing closing = {.queue = new_queue(attr)};
        pthread_t threads[2] = {start_thread(put_until_closed, &closing),
                                start_thread(put_until_closed, &closing)};

        atomic_store(&closing.go, true);
        while (modus_queue_len(closing.queue) < (size_t)round)
            sched_yield();
        CHECK_INT(pthread_kill(threads[0], SIGUSR1), 0);
        AWAIT(atomic_load(&interrupted) == 1);
        assert_int_equal(modus_queue_close(closing.queue, MODUS_CLOSE_NOW), 0);
        atomic_store(&interrupted, 0);
        join_thread(threads[0]);
        join_thread(threads[1]);
        assert_int_equal(modus_queue_join(closing.queue, 0), 0);
        assert_int_equal(modus_queue_len(closing.queue), 0);
        assert_int_equal(get(closing.queue), MODUS_CLOSED);
        end_queue(closing.queue);
    }
}

/* --- joining --------------------------------------------------------------------------------- */

static void test_join(void **state)
{
    bool process = *(enum modus_scope *)*state == MODUS_PROCESS;

    for (int redeliver = 0; redeliver <= process; redeliver++) {
        struct modus_queue *queue = new_joinable(state, 16, redeliver);
        struct sleeper joiner = {.queue = queue, .joining = true};

        assert_int_equal(modus_queue_join(queue, -5), -EINVAL);
        assert_int_equal(modus_queue_join(queue, MODUS_FOREVER), 0);
        assert_int_equal(modus_queue_task_done(queue), -EOVERFLOW);
        for (int i = 0; i < 10; i++)
            assert_int_equal(put(queue, i), 0);
        assert_int_equal(modus_queue_join(queue, 0), -EAGAIN);
        start_sleeper(&joiner);
        for (int i = 0; i < 10; i++) {
            assert_int_equal(modus_queue_join(queue, i == 4 ? modus_ms(5) : 0),
                             i == 4 ? -ETIMEDOUT : -EAGAIN);
            assert_int_equal(get(queue), i);
            assert_int_equal(modus_queue_join_until(queue, 1), -ETIMEDOUT);
            if (i == 5) /* one consumer may have several in work */
                assert_int_equal(get(queue), ++i);
            if (i == 6)
                assert_int_equal(modus_queue_task_done(queue), 0);
            assert_int_equal(modus_queue_task_done(queue), 0);
        }
        assert_int_equal(end_sleeper(&joiner), 0);
        assert_int_equal(modus_queue_join(queue, MODUS_FOREVER), 0);
        assert_int_equal(modus_queue_task_done(queue), -EOVERFLOW);
        end_queue(queue);
    }
    struct modus_queue *plain = new_queue(attr_of(state, 1));
    assert_int_equal(modus_queue_join(plain, 0), -EINVAL);
    assert_int_equal(modus_queue_task_done(plain), -EINVAL);
    end_queue(plain);
}

static void test_close_now_counts_as_done(void **state)
{
    struct modus_queue *queue = new_joinable(state, 8, false);
    struct sleeper joiner = {.queue = queue, .joining = true};

    for (int i = 0; i < 5; i++)
        assert_int_equal(put(queue, i), 0);
    assert_int_equal(get(queue), 0);
    start_sleeper(&joiner);
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_NOW), 0);
    assert_int_equal(modus_queue_join(queue, 0), -EAGAIN); /* one is still in work */
    assert_int_equal(modus_queue_task_done(queue), 0);
    assert_int_equal(end_sleeper(&joiner), 0);
    end_queue(queue);
}

/* Items kept until task_done take room: 4 in work fill a queue of 4. */
static void test_redeliver_keeps_room(void **state)
{
    struct modus_queue *queue = new_joinable(state, 4, true);

    for (int i = 0; i < 4; i++) {
        assert_int_equal(put(queue, i), 0);
        assert_int_equal(get(queue), i);
    }
    assert_int_equal(put(queue, 4), MODUS_FULL);
    assert_int_equal(get(queue), MODUS_EMPTY);
    assert_int_equal(modus_queue_task_done(queue), 0);
    assert_int_equal(put(queue, 4), 0);
    assert_int_equal(put(queue, 5), MODUS_FULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_queue_task_done(queue), 0);
    assert_int_equal(get(queue), 4);
    assert_int_equal(modus_queue_task_done(queue), 0);
    assert_int_equal(modus_queue_task_done(queue), -EOVERFLOW);
    assert_int_equal(modus_queue_join(queue, 0), 0);
    end_queue(queue);
}

static void test_join_sees_followers(void **state)
{
    see_followers(state, SLOW ? 5 : 30);
}

/* --- the chain of wake-ups ------------------------------------------------------------------- */

enum { CREW = 8 };

struct crew {
    struct modus_queue *queue;
    struct modus_event *finish;
    _Atomic int working;
    _Atomic int order[64];
    struct worker {
        struct crew *crew;
        _Atomic int tid;
        int number;
        long got;
        uint64_t unparks;
        pthread_t thread;
    } workers[CREW];
};

/* An item of 1 is long work: until finish is set. */
static void *work(void *argument)
{
    struct worker *worker = argument;
    struct crew *crew = worker->crew;
    long item;

    CHECK(modus_participant_join(arena) > 0);
    atomic_store(&worker->tid, gettid());
    while (modus_queue_get(crew->queue, &item, MODUS_FOREVER) == 0) {
        worker->got++;
        atomic_store(&crew->order[atomic_fetch_add(&crew->working, 1) % 64], worker->number);
        if (item == 1)
            CHECK_INT(modus_event_wait(crew->finish, MODUS_FOREVER), 0);
    }
    worker->unparks = modus_park_stats().unparks;
    CHECK_INT(modus_participant_leave(arena), 0);
    return NULL;
}

static struct crew *start_crew(void **state)
{
    struct crew *crew = modus_arena_alloc(arena, sizeof *crew, 0);

    crew->queue = new_queue(attr_of(state, 128));
    crew->finish = modus_arena_alloc(arena, sizeof *crew->finish, 0);
    CHECK_INT(modus_event_init(crew->finish, MODUS_PROCESS), 0);
    for (int i = 0; i < CREW; i++) {
        struct worker *worker = &crew->workers[i];

        worker->crew = crew;
        worker->number = i;
        worker->thread = start_thread(work, worker);
        AWAIT(atomic_load(&worker->tid));
        await_idle(atomic_load(&worker->tid), 5); /* in line, and not on its way there */
    }
    return crew;
}

static uint64_t end_crew(struct crew *crew)
{
    uint64_t unparks = 0;

    modus_event_set(crew->finish);
    modus_queue_close(crew->queue, MODUS_CLOSE_DRAIN);
    for (int i = 0; i < CREW; i++) {
        join_thread(crew->workers[i].thread);
        unparks += crew->workers[i].unparks;
    }
    end_queue(crew->queue);
    modus_event_fini(crew->finish);
    modus_arena_free(arena, crew->finish, sizeof *crew->finish);
    modus_arena_free(arena, crew, sizeof *crew);
    return unparks;
}

/* A batch of short work costs the putter one wake-up, and the crew fewer than items. */
static void test_batch_wakes_one(void **state)
{
    struct crew *crew = start_crew(state);
    long items[64] = {0};

    uint64_t before = modus_park_stats().unparks;
    assert_int_equal(modus_queue_put_n(crew->queue, items, 64, 0), 64);
    assert_int_equal(modus_park_stats().unparks, before + 1);
    AWAIT(atomic_load(&crew->working) == 64);
    assert_in_range(end_crew(crew), 0, 24);
}

/* Every item blocks whoever got it: the chain must reach all 8, from one batch of 8 or from 8
 * single puts. */
static void test_chain_reaches_all(void **state)
{
    for (int single = 0; single < 2; single++) {
        struct crew *crew = start_crew(state);
        long items[CREW] = {1, 1, 1, 1, 1, 1, 1, 1};

        uint64_t before = modus_park_stats().unparks;
        if (single)
            for (int i = 0; i < CREW; i++)
                assert_int_equal(put(crew->queue, 1), 0);
        else
            assert_int_equal(modus_queue_put_n(crew->queue, items, CREW, 0), CREW);
        assert_true(modus_park_stats().unparks - before <= (single ? CREW : 1));
        AWAIT(atomic_load(&crew->working) == CREW);
        end_crew(crew);
    }
}

/* One after the other, each put wakes one; between threads it is the one that went to sleep last.
 */
static void test_wakes_last_come_first(void **state)
{
    struct crew *crew = start_crew(state);

    for (int i = 0; i < CREW; i++) {
        assert_int_equal(put(crew->queue, 1), 0);
        AWAIT(atomic_load(&crew->working) == i + 1);
        assert_int_equal(atomic_load(&crew->order[i]), CREW - 1 - i);
    }
    end_crew(crew);
}

/* Idle consumers do not wake up. */
static void test_idle_is_quiet(void **state)
{
    struct crew *crew = start_crew(state);

    await_idle(crew->workers[3].tid, 1200); /* longer than any periodic look would take */
    end_crew(crew);
}

#define IN(scope, test)                                                                            \
    {                                                                                              \
#test " (" #scope ")", test, watchdog, NULL, &scope                                        \
    }
#define IN_BOTH(test) IN(thread_scope, test), IN(process_scope, test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN(process_scope, test_traffic_of_processes),
        IN(process_scope, test_redeliver_keeps_room),
        IN_BOTH(test_attributes),
        IN_BOTH(test_order_and_bounds),
        IN_BOTH(test_item_sizes),
        IN_BOTH(test_times),
        IN_BOTH(test_batches),
        IN_BOTH(test_close_wakes),
        IN_BOTH(test_interrupt),
        IN_BOTH(test_close),
        IN_BOTH(test_join),
        IN_BOTH(test_close_now_counts_as_done),
        IN_BOTH(test_join_sees_followers),
        IN_BOTH(test_batch_wakes_one),
        IN_BOTH(test_chain_reaches_all),
        IN(thread_scope, test_wakes_last_come_first),
        IN_BOTH(test_idle_is_quiet),
        IN(process_scope, test_close_with_a_put_under_way),
        IN_BOTH(test_close_is_exact),
        IN_BOTH(test_close_now_is_exact),
        IN_BOTH(test_rally),
        IN_BOTH(test_traffic),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
