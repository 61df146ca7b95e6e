/* SPDX-License-Identifier: MIT */
/* List: what it says and does in both scopes, and what becomes of it when its users are killed. */
#include "test_concurrency_store.h"

#include <limits.h>

#include "concurrency/list.h"
#include "concurrency/lock.h"

enum { BYTES = 1 << 18 };

#define EACH_SCOPE(scope) for (int scope = MODUS_THREAD; scope <= MODUS_PROCESS; scope++)

static struct modus_arena *arena;

static struct modus_list *make(int scope, size_t bytes)
{
    struct modus_list *list = modus_arena_alloc(arena, sizeof *list, 0);
    struct modus_list_attr attr = {
        .scope = (enum modus_scope)scope, .arena = arena, .bytes = bytes};

    CHECK(list);
    CHECK_INT(modus_list_init(list, &attr), 0);
    return list;
}

static void unmake(struct modus_list *list)
{
    CHECK_INT(modus_list_check(list), 0);
    modus_list_fini(list);
    CHECK_INT(modus_arena_free(arena, list, sizeof *list), 0);
}

static int insert(struct modus_list *list, long index, int value)
{
    return modus_list_insert(list, index, modus_bytes(&value, sizeof value));
}

static int append(struct modus_list *list, int value)
{
    return modus_list_append(list, modus_bytes(&value, sizeof value));
}

static int get(struct modus_list *list, long index)
{
    int value = -1;
    long size = modus_list_get(list, index, &value, sizeof value, NULL);

    return size < 0 ? (int)size : value;
}

static int pop(struct modus_list *list, long index)
{
    int value = -1;
    long size = modus_list_pop(list, index, &value, sizeof value);

    return size < 0 ? (int)size : value;
}

/* --- calls ----------------------------------------------------------------------------------- */

static void test_calls(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct modus_list *list = make(scope, BYTES);
        char got[8] = "before";

        assert_int_equal(modus_list_len(list), 0);
        assert_int_equal(get(list, 0), -ENOENT);
        assert_int_equal(get(list, -1), -ENOENT);
        assert_int_equal(pop(list, 0), -ENOENT);
        assert_int_equal(insert(list, 1, 5), -ENOENT);
        assert_int_equal(insert(list, -2, 5), -ENOENT);
        assert_int_equal(append(list, 1), 0);
        assert_int_equal(insert(list, 0, 0), 0);
        assert_int_equal(insert(list, -1, 3), 0);
        assert_int_equal(insert(list, 2, 2), 0);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(get(list, i), i);
            assert_int_equal(get(list, i - 4), i);
        }
        assert_int_equal(get(list, 4), -ENOENT);
        assert_int_equal(get(list, -5), -ENOENT);
        assert_int_equal(get(list, LONG_MIN), -ENOENT);
        assert_int_equal(modus_list_set(list, 1, modus_str("a longer one")), 0);
        assert_int_equal(modus_list_set(list, 9, modus_str("a longer one")), -ENOENT);
        assert_int_equal(modus_list_get(list, 1, got, sizeof got, NULL), 12);
        assert_int_equal(modus_list_pop(list, 1, got, sizeof got), 12);
        assert_string_equal(got, "before");
        assert_int_equal(modus_list_len(list), 4);
        assert_int_equal(modus_list_remove(list, 4), -ENOENT);
        assert_int_equal(insert(list, 2, 9), 0);
        assert_int_equal(modus_list_remove(list, 2), 0);
        assert_int_equal(modus_list_set(list, 1, modus_str("")), 0);
        assert_int_equal(modus_list_pop(list, 1, NULL, 0), 0);
        assert_int_equal(pop(list, 0), 0);
        assert_int_equal(pop(list, -1), 3);
        assert_int_equal(pop(list, -1), 2);
        assert_int_equal(modus_list_len(list), 0);
        assert_int_equal(append(list, 7), 0);
        assert_int_equal(modus_list_clear(list), 0);
        assert_int_equal(modus_list_used(list), 0);
        assert_int_equal(modus_list_clear(list), 0);
        assert_int_equal(append(list, 7), 0);
        assert_int_equal(modus_list_remove(list, -1), 0);
        assert_int_equal(modus_list_remove(list, -1), -ENOENT);
        assert_int_equal(append(list, 7), 0);
        unmake(list);
    }
}

static long answer(void *context, void *value, long size, size_t room)
{
    (void)value, (void)size, (void)room;
    return *(long *)context;
}

static void test_errors(void **state)
{
    struct modus_list none = {0}, *list = make(MODUS_THREAD, BYTES);
    struct modus_bytes a = modus_str("a"), big = {"", MODUS_LIST_VALUE_MAX + 1};
    struct modus_snapshot snapshot;
    long result = -77;
    (void)state;

    assert_int_equal(modus_list_append(&none, a), -EINVAL);
    assert_int_equal(modus_list_insert(&none, 0, a), -EINVAL);
    assert_int_equal(modus_list_set(&none, 0, a), -EINVAL);
    assert_int_equal(modus_list_get(&none, 0, NULL, 0, NULL), -EINVAL);
    assert_int_equal(modus_list_pop(&none, 0, NULL, 0), -EINVAL);
    assert_int_equal(modus_list_remove(&none, 0), -EINVAL);
    assert_int_equal(modus_list_len(&none), -EINVAL);
    assert_int_equal(modus_list_clear(&none), -EINVAL);
    assert_int_equal(modus_list_snapshot(&none, &snapshot), -EINVAL);
    assert_int_equal(modus_list_check(&none), -EINVAL);
    modus_list_fini(&none);
    struct modus_list_attr attr = {.scope = MODUS_PROCESS, .bytes = BYTES};
    assert_int_equal(modus_list_init(&none, &attr), -EINVAL);
    assert_int_equal(modus_list_append(list, big), -EINVAL);
    assert_int_equal(modus_list_set(list, 0, big), -EINVAL);
    assert_int_equal(modus_list_append(list, a), 0);
    assert_int_equal(modus_list_update(list, 0, 8, NULL, NULL), -EINVAL);
    assert_int_equal(modus_list_update(list, 1, 8, answer, &result), -ENOENT);
    assert_int_equal(modus_list_update(list, 0, 8, answer, &result), -77);
    result = 9;
    assert_int_equal(modus_list_update(list, 0, 8, answer, &result), -ERANGE);
    result = 0;
    assert_int_equal(modus_list_update(list, 0, 8, answer, &result), 0);
    assert_int_equal(modus_list_get(list, 0, NULL, 0, NULL), 0);
    unmake(list);
}

static void test_versions(void **state)
{
    struct modus_list *list = make(MODUS_PROCESS, BYTES);
    struct modus_bytes v = modus_str("v");
    uint64_t first, second;
    (void)state;

    assert_int_equal(append(list, 1), 0);
    assert_int_equal(append(list, 2), 0);
    assert_int_equal(modus_list_get(list, 0, NULL, 0, &first), 4);
    assert_int_equal(modus_list_get(list, 1, NULL, 0, &second), 4);
    assert_int_not_equal(first, second);
    assert_int_equal(modus_list_set_if(list, 0, v, second), -ESTALE);
    assert_int_equal(modus_list_set_if(list, 0, v, 0), -ESTALE);
    assert_int_equal(modus_list_set_if(list, 0, v, first), 0);
    assert_int_equal(modus_list_set_if(list, 0, v, first), -ESTALE);
    /* It has moved: another value is at the index now. */
    assert_int_equal(insert(list, 0, 0), 0);
    assert_int_equal(modus_list_set_if(list, 1, v, second), -ESTALE);
    assert_int_equal(modus_list_set_if(list, 2, v, second), 0);
    unmake(list);
}

/* Against an array that is moved about by hand. */
static void test_like_an_array(void **state)
{
    enum { MOST = 300, STEPS = 20000 };
    (void)state;
    EACH_SCOPE(scope)
    {
        struct modus_list *list = make(scope, BYTES);
        int model[MOST + 1], len = 0;
        unsigned seed = 3;

        for (int step = 0; step < STEPS; step++) {
            int i = rand_r(&seed) % (len + 1);
            bool shrink = len == MOST || (len > 0 && rand_r(&seed) % 100 < (step / 1000) % 2 * 80);

            if (shrink && i < len) {
                assert_int_equal(pop(list, i), model[i]);
                len--;
                memmove(&model[i], &model[i + 1], (size_t)(len - i) * sizeof *model);
            } else if (!shrink) {
                assert_int_equal(insert(list, i, step), 0);
                memmove(&model[i + 1], &model[i], (size_t)(len - i) * sizeof *model);
                model[i] = step;
                len++;
            }
            if (len > 0)
                assert_int_equal(get(list, i % len), model[i % len]);
        }
        assert_int_equal(modus_list_len(list), len);
        struct modus_snapshot all;
        struct modus_bytes key, value;
        assert_int_equal(modus_list_snapshot(list, &all), 0);
        assert_int_equal(modus_list_clear(list), 0);
        size_t at = 0;
        for (int i = 0; i < len; i++) {
            assert_true(modus_snapshot_next(&all, &at, &key, &value));
            assert_int_equal(key.size, 0);
            assert_memory_equal(value.data, &model[i], sizeof *model);
        }
        assert_false(modus_snapshot_next(&all, &at, &key, &value));
        modus_snapshot_fini(&all);
        assert_int_equal(modus_list_used(list), 0);
        unmake(list);
    }
}

static void test_full(void **state)
{
    struct modus_list *list = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
    int n = 0;
    (void)state;

    while (append(list, n) == 0)
        n++;
    assert_true(n > 60);
    assert_int_equal(append(list, n), -ENOMEM);
    assert_int_equal(insert(list, 3, n), -ENOMEM);
    char big[4000] = {0};
    assert_int_equal(modus_list_set(list, 0, modus_bytes(big, sizeof big)), -ENOMEM);
    assert_int_equal(modus_list_check(list), 0);
    assert_int_equal(modus_list_len(list), n);
    /* What is full can be emptied, in any order. */
    for (int i = n; i > 0; i--)
        assert_int_equal(pop(list, i / 2) >= 0, true);
    assert_int_equal(modus_list_clear(list), 0);
    assert_int_equal(modus_list_append(list, modus_bytes(big, sizeof big)), 0);
    unmake(list);
}

/* --- several users --------------------------------------------------------------------------- */

struct crew {
    struct modus_list list;
    _Atomic int numbers;
};

static int append_number(void *argument)
{
    struct crew *crew = argument;

    return append(&crew->list, atomic_fetch_add(&crew->numbers, 1));
}

static void *append_number_thread(void *argument)
{
    CHECK_INT(append_number(argument), 0);
    return NULL;
}

/* The same ten appends, by threads and by processes: on one list all see all of them; on lists of
 * their own (plain memory), each process its own only. */
static void test_ten_append(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct crew *crew = modus_arena_alloc(arena, sizeof *crew, 0);
        struct modus_list_attr attr = {(enum modus_scope)scope, arena, BYTES};
        bool seen[10] = {false};

        assert_int_equal(modus_list_init(&crew->list, &attr), 0);
        for (int i = 0; i < 10; i++)
            if (scope == MODUS_PROCESS)
                assert_int_equal(reap(start_child(append_number, crew)), 0);
            else
                join_thread(start_thread(append_number_thread, crew));
        assert_int_equal(modus_list_len(&crew->list), 10);
        for (int i = 0; i < 10; i++)
            seen[get(&crew->list, i)] = true;
        for (int i = 0; i < 10; i++)
            assert_true(seen[i]);
        modus_list_fini(&crew->list);
        /* A thread-scope list is a process's own: what a child appends stays there. */
        attr.scope = MODUS_THREAD;
        assert_int_equal(modus_list_init(&crew->list, &attr), 0);
        assert_int_equal(reap(start_child(append_number, crew)), 0);
        assert_int_equal(modus_list_len(&crew->list), 0);
        modus_list_fini(&crew->list);
        modus_arena_free(arena, crew, sizeof *crew);
    }
}

enum { MOVES = 1500, TOKENS = 20 };

/* Take from anywhere, put back anywhere. */
static int move_tokens(void *argument)
{
    struct crew *crew = argument;
    unsigned seed = (unsigned)getpid();

    for (int i = 0; i < MOVES; i++) {
        int token = pop(&crew->list, rand_r(&seed) % TOKENS);

        if (token == -ENOENT)
            continue;
        CHECK(token >= 0);
        int rc;
        while ((rc = insert(&crew->list, rand_r(&seed) % TOKENS, token)) != 0)
            CHECK_INT(rc, -ENOENT);
    }
    return 0;
}

static void *move_tokens_thread(void *argument)
{
    move_tokens(argument);
    return NULL;
}

static void test_tokens(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct crew *crew = modus_arena_alloc(arena, sizeof *crew, 0);
        struct modus_list_attr attr = {(enum modus_scope)scope, arena, BYTES};
        pid_t children[4];
        pthread_t threads[4];
        int seen[TOKENS] = {0};

        assert_int_equal(modus_list_init(&crew->list, &attr), 0);
        for (int i = 0; i < TOKENS; i++)
            assert_int_equal(append(&crew->list, i), 0);
        for (int i = 0; i < 4; i++)
            if (scope == MODUS_PROCESS)
                children[i] = start_child(move_tokens, crew);
            else
                threads[i] = start_thread(move_tokens_thread, crew);
        for (int i = 0; i < 4; i++)
            if (scope == MODUS_PROCESS)
                assert_int_equal(reap(children[i]), 0);
            else
                join_thread(threads[i]);
        assert_int_equal(modus_list_len(&crew->list), TOKENS);
        for (int i = 0; i < TOKENS; i++)
            seen[get(&crew->list, i)]++;
        for (int i = 0; i < TOKENS; i++)
            assert_int_equal(seen[i], 1);
        assert_int_equal(modus_list_check(&crew->list), 0);
        modus_list_fini(&crew->list);
        modus_arena_free(arena, crew, sizeof *crew);
    }
}

/* --- the killed ------------------------------------------------------------------------------ */

static int filled;
static size_t subject_bytes = BYTES;

static void begin_list(void *object)
{
    struct modus_list_attr attr = {.scope = MODUS_PROCESS, .arena = arena, .bytes = subject_bytes};

    CHECK_INT(modus_list_init(object, &attr), 0);
    /* Fill it so that the ring goes around its end. */
    for (int n = 0; n < filled; n++)
        if ((n % 2 ? insert(object, 0, n) : append(object, n)) == -ENOMEM)
            break;
}

static void end_list(void *object)
{
    modus_list_fini(object);
}

static int check_list(void *object)
{
    return modus_list_check(object);
}

static int snapshot_list(void *object, struct modus_snapshot *snapshot)
{
    return modus_list_snapshot(object, snapshot);
}

static int change_append(void *object)
{
    return append(object, 100);
}

static int change_insert_front(void *object)
{
    return insert(object, 2, 100);
}

static int change_insert_back(void *object)
{
    return insert(object, -4, 100);
}

static int change_pop_front(void *object)
{
    return pop(object, 3) < 0;
}

static int change_pop_back(void *object)
{
    return pop(object, -3) < 0;
}

static int change_set(void *object)
{
    return modus_list_set(object, 1, modus_str("a value that is longer than the one before it"));
}

static long count_on(void *context, void *value, long size, size_t room)
{
    int n;

    (void)context, (void)room;
    memcpy(&n, value, sizeof n);
    n += 1000;
    memcpy(value, &n, sizeof n);
    return size;
}

static int change_update(void *object)
{
    return modus_list_update(object, 2, 500, count_on, NULL);
}

static long fork_updating(void *context, void *value, long size, size_t room)
{
    return fork_in_callback() ? size : count_on(context, value, size, room);
}

/* The child that returns from the function too leaves its parent's list alone. */
static void test_forks_in_function(void **state)
{
    struct modus_list *list = make(MODUS_PROCESS, BYTES);
    pid_t home = getpid();
    int n = 0;
    (void)state;

    assert_int_equal(modus_list_append(list, modus_bytes(&n, sizeof n)), 0);
    int rc = modus_list_update(list, 0, 100, fork_updating, NULL);
    end_forked(home, rc);
    assert_int_equal(rc, 0);
    assert_int_equal(modus_list_get(list, 0, &n, sizeof n, NULL), sizeof n);
    assert_int_equal(n, 1000);
    unmake(list);
}

static int change_clear(void *object)
{
    return modus_list_clear(object);
}

static void test_kill_at_every_point(void **state)
{
    static const struct {
        int (*change)(void *object);
        int filled;
    } changes[] = {{change_append, 0},       {change_append, 5},       {change_append, 8},
                   {change_insert_front, 6}, {change_insert_front, 7}, {change_insert_front, 8},
                   {change_insert_back, 6},  {change_insert_back, 7},  {change_insert_front, 16},
                   {change_pop_front, 8},    {change_pop_back, 8},     {change_pop_front, 4},
                   {change_pop_back, 15},    {change_set, 3},          {change_update, 4},
                   {change_clear, 5}};
    struct modus_list *list = modus_arena_alloc(arena, sizeof *list, 0);
    struct subject subject = {list, begin_list, end_list, NULL, check_list, snapshot_list};
    int kills = 0;
    (void)state;

    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        subject.change = changes[i].change;
        filled = changes[i].filled;
        kills += sweep_kills(&subject, 0, true);
    }
    assert_true(kills > (SLOW ? 100 : 300));
    subject_bytes = MODUS_STORE_BYTES_MIN;
    filled = INT32_MAX;
    subject.change = change_append;
    assert_true(sweep_kills(&subject, -ENOMEM, true) > 0);
    subject_bytes = BYTES;
    filled = 5;
    kill_stopped(&subject);
    modus_arena_free(arena, list, sizeof *list);
}

/* What others have written into the memory is not believed. */
static int read_damaged(void *argument)
{
    struct modus_list *list = argument;
    struct modus_snapshot all;

    for (int n = 0; n < 30; n++) {
        insert(list, n / 2, n);
        get(list, n);
        pop(list, n / 3);
    }
    if (modus_list_snapshot(list, &all) == 0)
        modus_snapshot_fini(&all);
    modus_list_check(list);
    modus_list_clear(list);
    return 0;
}

static void test_damaged(void **state)
{
    unsigned seed = 1;
    int broken = 0;
    (void)state;

    for (int round = 0; round < (SLOW ? 60 : 400); round++) {
        struct modus_list *list = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
        size_t lock = sizeof(struct modus_lock), units = list->store.units;

        for (int n = 0; n < 20; n++)
            CHECK_INT(append(list, n), 0);
        for (int i = 0; i < 1 + round % 8; i++) {
            size_t at = lock + (size_t)rand_r(&seed) % (units * MODUS_STORE_UNIT - lock);
            if (round % 2) /* behind the notes: heap, root and the first tags */
                at = lock + 48 + 8192 + (size_t)rand_r(&seed) % 512;
            ((unsigned char *)list->store.head)[at] = (unsigned char)rand_r(&seed);
        }
        assert_int_equal(reap(start_child(read_damaged, list)), 0);
        broken += modus_list_check(list) == MODUS_NOTRECOVERABLE;
        modus_list_fini(list);
        modus_arena_free(arena, list, sizeof *list);
    }
    assert_true(broken > 0);
}

/* As it was, from the beginning. */
static void fill_again(void *argument)
{
    struct modus_list *list = argument;
    struct modus_list_attr attr = {
        .scope = MODUS_PROCESS, .arena = arena, .bytes = MODUS_STORE_BYTES_MIN};

    modus_list_fini(list);
    CHECK_INT(modus_list_init(list, &attr), 0);
    for (int n = 0; n < 10; n++)
        CHECK_INT(append(list, n), 0);
}

/* The list's own words, those of a value and of the ring, and where free memory begins. */
static void test_spoilt(void **state)
{
    struct modus_list *list = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
    (void)state;

    fill_again(list);
    uint64_t units = list->store.units, *root = modus_store_root(&list->store);
    uint64_t *head = root - 34; /* counts and free lists */
    uint64_t ring = root[0], *words = modus_store_at(&list->store, ring, 64), first = words[0];
    spoil_words(head, 34 + 6, first, units, read_damaged, fill_again, list);
    spoil_words(words, 8, first, units, read_damaged, fill_again, list);
    spoil_words(modus_store_at(&list->store, first, 32), 3, first, units, read_damaged, fill_again,
                list);
    unmake(list);
}

/* --- chaos ----------------------------------------------------------------------------------- */

enum { MOST = 100 };

/* A value is its size, as often as fits: whatever is read must be so. */
static int work(void *argument)
{
    struct modus_list *list = argument;
    unsigned seed = (unsigned)getpid();
    unsigned char value[200], got[200];

    for (;;) {
        size_t size = 1 + (size_t)rand_r(&seed) % (sizeof value - 1);
        long i = rand_r(&seed) % MOST, rc = 0;

        memset(value, (int)size, size);
        switch (rand_r(&seed) % 8) {
        case 0:
        case 1:
        case 2:
            rc = modus_list_insert(list, i, modus_bytes(value, size));
            break;
        case 3:
        case 4:
            rc = modus_list_pop(list, i, got, sizeof got);
            for (long at = 0; at < rc; at++)
                CHECK_INT(got[at], rc);
            break;
        case 5:
            rc = modus_list_set(list, i, modus_bytes(value, size));
            break;
        case 6:
            rc = rand_r(&seed) % 50 ? modus_list_append(list, modus_bytes(value, size))
                                    : modus_list_clear(list);
            break;
        default:
            rc = modus_list_get(list, -i, got, sizeof got, NULL);
            for (long at = 0; at < rc; at++)
                CHECK_INT(got[at], rc);
        }
        CHECK(rc >= 0 || rc == -ENOENT || rc == -ENOMEM);
    }
}

static void test_chaos(void **state)
{
    struct modus_list *list = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
    (void)state;

    printf("chaos: list, %ld kills\n", kill_workers(work, check_list, list));
    assert_int_equal(modus_list_clear(list), 0);
    assert_int_equal(modus_list_used(list), 0); /* nothing has leaked */
    unmake(list);
}

static int open_arena(void **state)
{
    (void)state;
    return modus_arena_open(&arena, (size_t)64 << 20, 8);
}

static int close_arena(void **state)
{
    (void)state;
    return modus_arena_close(arena);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_calls),
        TEST(test_errors),
        TEST(test_versions),
        TEST(test_like_an_array),
        TEST(test_full),
        TEST(test_tokens),
        TEST(test_ten_append),
        TEST(test_damaged),
        TEST(test_spoilt),
        TEST(test_chaos),
        TEST(test_forks_in_function),
        TEST(test_kill_at_every_point),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
