/* SPDX-License-Identifier: MIT */
/*
 * Queues that are no ring: the last item first, the smallest key first, any number of items, or one
 * that is no power of two. Order,
 * bounds, every code, closing, joining, doorbells, and many users at a time. What deaths do to them
 * is in test_concurrency_queue_killed.c.
 */
#include "test_concurrency_queue.h"

#include "concurrency/coroutine.h"

#include <poll.h>

/* What a test runs with; *state. */
struct kind {
    enum modus_scope scope;
    enum modus_queue_order order;
    bool unbounded;
};

static struct kind thread_fifo = {MODUS_THREAD, MODUS_QUEUE_FIFO, false};
static struct kind process_fifo = {MODUS_PROCESS, MODUS_QUEUE_FIFO, false};
static struct kind thread_lifo = {MODUS_THREAD, MODUS_QUEUE_LIFO, false};
static struct kind thread_priority = {MODUS_THREAD, MODUS_QUEUE_PRIORITY, false};
static struct kind thread_endless_fifo = {MODUS_THREAD, MODUS_QUEUE_FIFO, true};
static struct kind thread_endless_lifo = {MODUS_THREAD, MODUS_QUEUE_LIFO, true};
static struct kind thread_endless_priority = {MODUS_THREAD, MODUS_QUEUE_PRIORITY, true};
static struct kind process_lifo = {MODUS_PROCESS, MODUS_QUEUE_LIFO, false};
static struct kind process_priority = {MODUS_PROCESS, MODUS_QUEUE_PRIORITY, false};

static const struct kind *kind_of(void **state)
{
    return *state;
}

static struct modus_queue_attr attr_of(void **state, unsigned capacity)
{
    const struct kind *kind = kind_of(state);

    return (struct modus_queue_attr){.scope = kind->scope,
                                     .order = kind->order,
                                     .arena = arena,
                                     .capacity = kind->unbounded ? MODUS_QUEUE_UNBOUNDED : capacity,
                                     .item_size = sizeof(long)};
}

static int put_key(struct modus_queue *queue, long item, int64_t key)
{
    return modus_queue_put_key(queue, &item, key, 0);
}

/* --- attributes and codes -------------------------------------------------------------------- */

static void test_attributes(void **state)
{
    struct modus_queue queue = {0};
    struct modus_queue_attr good = attr_of(state, 7), bad;
    long item = 0;

    assert_int_equal(modus_queue_put_key(&queue, &item, 1, 0), -EINVAL);
    assert_int_equal(modus_queue_put_key_until(&queue, &item, 1, 0), -EINVAL);
    assert_int_equal(modus_queue_put_n_until(&queue, &item, 1, 0), -EINVAL);
    assert_int_equal(modus_queue_get_n_until(&queue, &item, 1, 0), -EINVAL);
    bad = good, bad.order = (enum modus_queue_order)3;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.order = (enum modus_queue_order) - 1;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.capacity = 0;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.capacity = (1 << 24) + 1;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.item_size = 0;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.scope = MODUS_PROCESS, bad.capacity = MODUS_QUEUE_UNBOUNDED;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    bad = good, bad.scope = MODUS_PROCESS, bad.order = MODUS_QUEUE_LIFO, bad.capacity = 1 << 24;
    assert_int_equal(modus_queue_init(&queue, &bad), -ENOMEM);
    bad = good, bad.scope = MODUS_THREAD, bad.on_death = MODUS_QUEUE_REDELIVER;
    assert_int_equal(modus_queue_init(&queue, &bad), -EINVAL);
    assert_int_equal(modus_queue_put(&queue, &item, 0), -EINVAL); /* not started */
    assert_int_equal(modus_queue_init(&queue, &good), 0);
    assert_int_equal(put_key(&queue, 1, 1), good.order == MODUS_QUEUE_PRIORITY ? 0 : -EINVAL);
    modus_queue_fini(&queue);
    modus_queue_fini(&queue);
}

static void test_codes(void **state)
{
    struct modus_queue *queue = new_queue(attr_of(state, 3));
    bool bounded = !kind_of(state)->unbounded;
    long item = 1, items[8] = {0};

    assert_int_equal(modus_queue_get(queue, &item, -2), -EINVAL);
    assert_int_equal(modus_queue_put(queue, &item, -2), -EINVAL);
    assert_int_equal(modus_queue_put_n_until(queue, items, 0, 1), -EINVAL);
    assert_int_equal(modus_queue_put_n_until(queue, items, 1, -2), -EINVAL);
    assert_int_equal(modus_queue_get_n_until(queue, items, 0, 1), -EINVAL);
    assert_int_equal(get(queue), MODUS_EMPTY);
    int64_t start = modus_now_ns();
    assert_int_equal(modus_queue_get(queue, &item, modus_ms(10)), -ETIMEDOUT);
    assert_true(modus_now_ns() - start >= modus_ms(10));
    assert_int_equal(modus_queue_get_until(queue, &item, 1), -ETIMEDOUT);
    assert_int_equal(modus_queue_get_n_until(queue, items, 2, modus_now_ns()), -ETIMEDOUT);
    for (int i = 0; i < 3; i++)
        assert_int_equal(put(queue, i), 0);
    assert_int_equal(modus_queue_len(queue), 3);
    assert_int_equal(put(queue, 3), bounded ? MODUS_FULL : 0);
    assert_int_equal(modus_queue_put(queue, &item, modus_ms(5)), bounded ? -ETIMEDOUT : 0);
    assert_int_equal(modus_queue_put_until(queue, &item, 1), bounded ? -ETIMEDOUT : 0);
    assert_int_equal(modus_queue_put_n_until(queue, items, 2, 1), bounded ? -ETIMEDOUT : 2);
    if (kind_of(state)->order == MODUS_QUEUE_PRIORITY)
        assert_int_equal(modus_queue_put_key_until(queue, &item, 1, 1), bounded ? -ETIMEDOUT : 0);
    long got = modus_queue_get_n_until(queue, items, 2, MODUS_FOREVER);
    assert_int_equal(got, 2);
    assert_int_equal(modus_queue_put_n(queue, items, 5, 0), bounded ? 2 : 5);
    if (bounded)
        assert_int_equal(modus_queue_get_n(queue, items, 8, 0), 3);
    assert_int_equal(modus_queue_task_done(queue), -EINVAL); /* not joinable */
    assert_int_equal(modus_queue_join(queue, 0), -EINVAL);
    end_queue(queue);
}

static int use_unjoined(void *argument)
{
    struct modus_queue *queue = argument;

    CHECK_INT(put(queue, 1), -ECHILD);
    CHECK_INT(get(queue), -ECHILD);
    CHECK_INT(modus_queue_task_done(queue), -ECHILD);
    CHECK(modus_participant_join(arena) > 0);
    CHECK_INT(modus_queue_task_done(queue), -EOVERFLOW); /* the item is the parent's */
    CHECK_INT(modus_participant_leave(arena), 0);
    CHECK_INT(put(queue, 1), -EPERM);
    CHECK_INT(get(queue), -EPERM);
    CHECK_INT(modus_queue_close(queue, MODUS_CLOSE_DRAIN), 0); /* that needs no joining */
    CHECK_INT(modus_queue_join(queue, 0), -EAGAIN);
    return 0;
}

static void test_identity(void **state)
{
    for (int redeliver = 0; redeliver < 2; redeliver++) {
        struct modus_queue *queue = new_joinable(state, 4, redeliver);

        assert_int_equal(put(queue, 1), 0);
        assert_int_equal(get(queue), 1);
        assert_int_equal(reap(start_child(use_unjoined, queue)), 0);
        assert_int_equal(modus_queue_task_done(queue), 0);
        assert_int_equal(modus_queue_join(queue, 0), 0);
        end_queue(queue);
    }
}

/* --- order ----------------------------------------------------------------------------------- */

/* The notes' list: appended 0 to 9, popped 9 to 0. */
static void test_last_first(void **state)
{
    struct modus_queue *queue = new_queue(attr_of(state, 10));

    for (int i = 0; i < 10; i++)
        assert_int_equal(put(queue, i), 0);
    for (int i = 9; i >= 0; i--)
        assert_int_equal(get(queue), i);
    end_queue(queue);
}

static void test_smallest_first(void **state)
{
    static const int64_t keys[] = {5, INT64_MAX, -1, 5, INT64_MIN, 0, 5, -1};
    static const long sorted[] = {4, 2, 7, 5, 8, 0, 3, 6, 1};
    struct modus_queue *queue = new_queue(attr_of(state, 16));

    for (long i = 0; i < 8; i++)
        assert_int_equal(put_key(queue, i, keys[i]), 0);
    assert_int_equal(put(queue, 8), 0); /* its key is 0 */
    for (int i = 0; i < 9; i++)
        assert_int_equal(get(queue), sorted[i]);
    assert_int_equal(get(queue), MODUS_EMPTY);
    end_queue(queue);
}

enum { MODEL = 300 };

/* What is inside, in the order of arrival. */
struct model {
    struct {
        long item;
        int64_t key;
    } inside[MODEL];
    int n;
};

static long model_get(struct model *model, enum modus_queue_order order)
{
    int at = order == MODUS_QUEUE_LIFO ? model->n - 1 : 0;

    for (int i = 0; order == MODUS_QUEUE_PRIORITY && i < model->n; i++)
        if (model->inside[i].key < model->inside[at].key)
            at = i;
    long item = model->inside[at].item;
    memmove(&model->inside[at], &model->inside[at + 1],
            (size_t)(--model->n - at) * sizeof model->inside[0]);
    return item;
}

/* Random puts and gets, more of the ones, then more of the others, against a list that is searched.
 * An unbounded one outgrows its first room and is given back several times. */
static void test_against_model(void **state)
{
    enum modus_queue_order order = kind_of(state)->order;
    struct modus_queue *queue = new_queue(attr_of(state, MODEL));
    struct model *model = calloc(1, sizeof *model);
    unsigned random = 12345;

    for (long i = 0; i < 20000; i++) {
        random = random * 1103515245 + 12345;
        bool putting = random >> 16 & 3 ? i / 1000 % 2 == 0 : i / 1000 % 2;
        int64_t key = random >> 20 & 15;

        if (putting && model->n < MODEL) {
            assert_int_equal(order == MODUS_QUEUE_PRIORITY ? put_key(queue, i, key) : put(queue, i),
                             0);
            model->inside[model->n].item = i;
            model->inside[model->n++].key = key;
        } else if (model->n == 0) {
            assert_int_equal(get(queue), MODUS_EMPTY);
        } else {
            assert_int_equal(get(queue), model_get(model, order));
        }
        assert_int_equal(modus_queue_len(queue), model->n);
    }
    free(model);
    end_queue(queue);
}

/* Far more than the first room, all there, and nothing left behind. */
static void test_unbounded(void **state)
{
    enum modus_queue_order order = kind_of(state)->order;
    struct modus_queue *queue = new_queue(attr_of(state, 0));
    enum { MANY = 100000 };
    long items[1000];

    for (int round = 0; round < 2; round++) {
        for (long i = 0; i < MANY; i++)
            assert_int_equal(put(queue, i), 0);
        assert_int_equal(modus_queue_len(queue), MANY);
        for (long i = 0; i < MANY; i += 1000) {
            assert_int_equal(modus_queue_get_n(queue, items, 1000, 0), 1000);
            for (long k = 0; k < 1000; k++)
                assert_int_equal(items[k], order == MODUS_QUEUE_LIFO ? MANY - 1 - (i + k) : i + k);
        }
        assert_int_equal(get(queue), MODUS_EMPTY);
    }
    end_queue(queue);
}

/* --- closing, interrupting, joining ---------------------------------------------------------- */

static void test_close_wakes(void **state)
{
    for (int how = MODUS_CLOSE_DRAIN; how <= MODUS_CLOSE_NOW; how++)
        for (int putting = 0; putting < (kind_of(state)->unbounded ? 1 : 2); putting++) {
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

static void test_close(void **state)
{
    struct modus_queue *queue = new_joinable(state, 4, false);
    struct sleeper joiner = {.queue = queue, .joining = true};

    for (int i = 0; i < 4; i++)
        assert_int_equal(put(queue, 7), 0);
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_DRAIN), 0);
    assert_true(modus_queue_is_closed(queue));
    assert_int_equal(put(queue, 7), MODUS_CLOSED);
    assert_int_equal(get(queue), 7);
    assert_int_equal(modus_queue_len(queue), 3);
    start_sleeper(&joiner);
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_NOW), 0);
    assert_int_equal(modus_queue_len(queue), 0);
    assert_int_equal(get(queue), MODUS_CLOSED);
    assert_int_equal(put(queue, 7), MODUS_CLOSED);
    assert_int_equal(modus_queue_join(queue, 0), -EAGAIN); /* one is still in work */
    assert_int_equal(modus_queue_task_done(queue), 0);
    assert_int_equal(end_sleeper(&joiner), 0);
    end_queue(queue);
}

static void test_interrupt(void **state)
{
    struct modus_queue *queue = new_joinable(state, 1, false);
    bool bounded = !kind_of(state)->unbounded;
    struct sleeper getter = {.queue = queue}, putter = {.queue = queue, .putting = true},
                   joiner = {.queue = queue, .joining = true};

    start_sleeper(&getter);
    assert_int_equal(modus_queue_interrupt(queue), 0);
    assert_int_equal(end_sleeper(&getter), MODUS_CANCELED);
    assert_int_equal(put(queue, 5), 0);
    start_sleeper(&joiner);
    if (bounded)
        start_sleeper(&putter);
    assert_int_equal(modus_queue_interrupt(queue), 0);
    assert_int_equal(end_sleeper(&joiner), MODUS_CANCELED);
    if (bounded)
        assert_int_equal(end_sleeper(&putter), MODUS_CANCELED);
    assert_int_equal(get(queue), 5); /* the queue goes on */
    assert_int_equal(put(queue, 6), 0);
    end_queue(queue);
}

static void test_join(void **state)
{
    bool process = kind_of(state)->scope == MODUS_PROCESS;

    for (int redeliver = 0; redeliver <= process; redeliver++) {
        struct modus_queue *queue = new_joinable(state, 10, redeliver);
        struct sleeper joiner = {.queue = queue, .joining = true};

        assert_int_equal(modus_queue_join(queue, -5), -EINVAL);
        assert_int_equal(modus_queue_join(queue, MODUS_FOREVER), 0);
        assert_int_equal(modus_queue_task_done(queue), -EOVERFLOW);
        for (int i = 0; i < 10; i++)
            assert_int_equal(put(queue, i), 0);
        start_sleeper(&joiner);
        for (int i = 0; i < 10; i++) {
            assert_int_equal(modus_queue_join(queue, i == 4 ? modus_ms(5) : 0),
                             i == 4 ? -ETIMEDOUT : -EAGAIN);
            assert_in_range(get(queue), 0, 9);
            if (i == 5) { /* one consumer may have several in work */
                assert_in_range(get(queue), 0, 9);
                assert_int_equal(modus_queue_task_done(queue), 0);
                i++;
            }
            assert_int_equal(modus_queue_join_until(queue, 1), -ETIMEDOUT);
            assert_int_equal(modus_queue_task_done(queue), 0);
        }
        assert_int_equal(end_sleeper(&joiner), 0);
        assert_int_equal(modus_queue_task_done(queue), -EOVERFLOW); /* the eleventh */
        end_queue(queue);
    }
}

/* Items in work count against the capacity. */
static void test_redeliver_keeps_room(void **state)
{
    struct modus_queue *queue = new_joinable(state, 3, true);
    struct sleeper putter = {.queue = queue, .putting = true};

    for (int i = 0; i < 3; i++) {
        assert_int_equal(put(queue, i), 0);
        assert_int_equal(get(queue), i);
    }
    assert_int_equal(put(queue, 4), MODUS_FULL);
    start_sleeper(&putter);
    assert_int_equal(modus_queue_task_done(queue), 0);
    assert_int_equal(end_sleeper(&putter), 0);
    assert_int_equal(get(queue), 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_queue_task_done(queue), 0);
    assert_int_equal(modus_queue_task_done(queue), -EOVERFLOW);
    end_queue(queue);
}

static void test_join_sees_followers(void **state)
{
    see_followers(state, SLOW ? 4 : 10);
}

/* --- doorbells and coroutines ---------------------------------------------------------------- */

static bool rings(struct modus_doorbell *bell)
{
    struct pollfd look = {.fd = modus_doorbell_fd(bell), .events = POLLIN};
    bool rung = poll(&look, 1, 0) == 1;

    modus_doorbell_hear(bell);
    return rung;
}

static void test_doorbells(void **state)
{
    struct modus_queue *queue = new_queue(attr_of(state, 1));
    struct modus_doorbell *bells = modus_arena_alloc(arena, 2 * sizeof *bells, 0);

    for (int i = 0; i < 2; i++)
        assert_int_equal(modus_doorbell_init(&bells[i]), 0);
    assert_int_equal(modus_queue_arm_get(queue, &bells[0]), 0);
    assert_int_equal(modus_queue_arm_put(queue, &bells[1]), 0);
    assert_int_equal(put(queue, 1), 0);
    assert_true(rings(&bells[0]) && !rings(&bells[1]));
    assert_int_equal(get(queue), 1);
    assert_true(!rings(&bells[0]) && rings(&bells[1]));
    modus_queue_disarm_get(queue, &bells[0]);
    assert_int_equal(put(queue, 1), 0);
    assert_false(rings(&bells[0]));
    assert_int_equal(modus_queue_close(queue, MODUS_CLOSE_DRAIN), 0);
    assert_true(rings(&bells[1]));
    modus_queue_disarm_put(queue, &bells[1]);
    for (int i = 0; i < 2; i++)
        modus_doorbell_fini(&bells[i]);
    modus_arena_free(arena, bells, 2 * sizeof *bells);
    end_queue(queue);
}

static int put_ten(void *argument)
{
    struct modus_queue *queue = argument;

    for (long i = 0; i < 10; i++)
        CHECK_INT(modus_queue_put(queue, &i, MODUS_FOREVER), 0);
    return modus_queue_close(queue, MODUS_CLOSE_DRAIN);
}

static int get_all(void *argument)
{
    struct modus_queue *queue = argument;
    struct modus_co *co;
    long item, sum = 0;
    int rc;

    CHECK_INT(modus_queue_get(queue, &item, modus_ms(5)), -ETIMEDOUT);
    CHECK_INT(modus_co_start(&co, NULL, put_ten, queue), 0);
    while ((rc = modus_queue_get(queue, &item, MODUS_FOREVER)) == 0)
        sum += item;
    CHECK_INT(rc, MODUS_CLOSED);
    CHECK_INT(modus_co_join(co, MODUS_FOREVER, &rc), 0);
    modus_co_put(co);
    return rc == 0 ? (int)sum : rc;
}

/* Two coroutines of one thread: neither wait may hold up the other. */
static void test_coroutines(void **state)
{
    struct modus_queue *queue = new_queue(attr_of(state, 2));

    assert_int_equal(modus_co_run(get_all, queue), 45);
    end_queue(queue);
}

/* --- many at a time -------------------------------------------------------------------------- */

struct traffic {
    struct modus_queue *queue;
    long items; /* each producer's */
    bool in_order;
    _Atomic unsigned next_producer;
    _Atomic long got, sum;
};

static int produce(void *argument)
{
    struct traffic *traffic = argument;
    long me = (long)atomic_fetch_add(&traffic->next_producer, 1) << 32;

    CHECK(modus_participant_join(arena) > 0);
    for (long i = 0; i < traffic->items;) {
        long items[3] = {me | i, me | (i + 1), me | (i + 2)}, n = traffic->items - i;

        n = modus_queue_put_n(traffic->queue, items, (size_t)(n < 3 ? n : 3),
                              i % 7 ? MODUS_FOREVER : modus_us(30));
        CHECK(n > 0 || n == -ETIMEDOUT);
        i += n > 0 ? n : 0;
    }
    CHECK_INT(modus_participant_leave(arena), 0);
    return 0;
}

static int consume(void *argument)
{
    struct traffic *traffic = argument;
    long items[4], last[8], n;

    memset(last, -1, sizeof last);
    CHECK(modus_participant_join(arena) > 0);
    while ((n = modus_queue_get_n(traffic->queue, items, 4, modus_us(700))) != MODUS_CLOSED) {
        CHECK(n > 0 || n == -ETIMEDOUT);
        for (long k = 0; k < n; k++) {
            long producer = items[k] >> 32, number = items[k] & 0xffffffff;

            CHECK(!traffic->in_order || number > last[producer]);
            last[producer] = number;
            atomic_fetch_add(&traffic->sum, number);
        }
        atomic_fetch_add(&traffic->got, n > 0 ? n : 0);
    }
    CHECK_INT(modus_participant_leave(arena), 0);
    return 0;
}

static void *produce_thread(void *argument)
{
    produce(argument);
    return NULL;
}

static void *consume_thread(void *argument)
{
    consume(argument);
    return NULL;
}

/* Must hold: every item comes exactly once, FIFO and equal keys in their producer's order; nobody
 * sleeps for ever. */
static void run_traffic(void **state, int producers, int consumers, unsigned capacity,
                        bool processes)
{
    struct traffic *traffic = modus_arena_alloc(arena, sizeof *traffic, 0);
    pthread_t threads[16];
    pid_t pids[16];

    traffic->queue = new_queue(attr_of(state, capacity));
    traffic->items = SLOW || processes ? 1000 : 4000;
    traffic->in_order = kind_of(state)->order != MODUS_QUEUE_LIFO;
    for (int i = 0; i < producers + consumers; i++) {
        if (processes)
            pids[i] = start_child(i < producers ? produce : consume, traffic);
        else
            threads[i] = start_thread(i < producers ? produce_thread : consume_thread, traffic);
    }
    for (int i = 0; i < producers + consumers; i++) {
        if (i == producers)
            modus_queue_close(traffic->queue, MODUS_CLOSE_DRAIN);
        if (processes)
            assert_int_equal(reap(pids[i]), 0);
        else
            join_thread(threads[i]);
    }
    assert_int_equal(traffic->got, producers * traffic->items);
    assert_int_equal(traffic->sum, producers * (traffic->items - 1) * traffic->items / 2);
    end_queue(traffic->queue);
    modus_arena_free(arena, traffic, sizeof *traffic);
}

static void test_traffic(void **state)
{
    run_traffic(state, 1, 1, 1, false);
    run_traffic(state, 3, 3, 5, false);
    run_traffic(state, 4, 1, 64, false);
}

static void test_traffic_of_processes(void **state)
{
    run_traffic(state, 1, 1, 1, true);
    run_traffic(state, 3, 3, 5, true);
    run_traffic(state, 1, 4, 64, true);
}

#define IN(kind, test)                                                                             \
    {                                                                                              \
#test " (" #kind ")", test, watchdog, NULL, &kind                                          \
    }
#define IN_PROCESSES(test)                                                                         \
    IN(process_fifo, test), IN(process_lifo, test), IN(process_priority, test)
#define IN_THREADS(test)                                                                           \
    IN(thread_fifo, test), IN(thread_lifo, test), IN(thread_priority, test),                       \
        IN(thread_endless_fifo, test), IN(thread_endless_priority, test)
#define IN_ALL(test) IN_THREADS(test), IN_PROCESSES(test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_PROCESSES(test_traffic_of_processes),
        IN_ALL(test_attributes),
        IN_ALL(test_codes),
        IN_PROCESSES(test_identity),
        IN(thread_lifo, test_last_first),
        IN(process_lifo, test_last_first),
        IN(thread_priority, test_smallest_first),
        IN(process_priority, test_smallest_first),
        IN_ALL(test_against_model),
        IN(thread_endless_lifo, test_against_model),
        IN(thread_endless_fifo, test_unbounded),
        IN(thread_endless_lifo, test_unbounded),
        IN(thread_endless_priority, test_unbounded),
        IN_ALL(test_close_wakes),
        IN_ALL(test_close),
        IN_ALL(test_interrupt),
        IN_ALL(test_join),
        IN_PROCESSES(test_redeliver_keeps_room),
        IN_ALL(test_join_sees_followers),
        IN_ALL(test_doorbells),
        IN_THREADS(test_coroutines),
        IN_ALL(test_traffic),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
