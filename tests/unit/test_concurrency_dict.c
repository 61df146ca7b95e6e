/* SPDX-License-Identifier: MIT */
/* Dict: what it says and does in both scopes, and what becomes of it when its users are killed. */
#include "test_concurrency_store.h"

#include "concurrency/coroutine.h"
#include "concurrency/dict.h"
#include "concurrency/lock.h"

enum { BYTES = 1 << 18 };

#define EACH_SCOPE(scope) for (int scope = MODUS_THREAD; scope <= MODUS_PROCESS; scope++)

static struct modus_arena *arena;

static struct modus_dict *make(int scope, size_t bytes)
{
    struct modus_dict *dict = modus_arena_alloc(arena, sizeof *dict, 0);
    struct modus_dict_attr attr = {
        .scope = (enum modus_scope)scope, .arena = arena, .bytes = bytes};

    CHECK(dict);
    CHECK_INT(modus_dict_init(dict, &attr), 0);
    return dict;
}

static void unmake(struct modus_dict *dict)
{
    CHECK_INT(modus_dict_check(dict), 0);
    modus_dict_fini(dict);
    CHECK_INT(modus_arena_free(arena, dict, sizeof *dict), 0);
}

static int put_str(struct modus_dict *dict, const char *key, const char *value)
{
    return modus_dict_put(dict, modus_str(key), modus_str(value));
}

static int put_int(struct modus_dict *dict, int key, int value)
{
    return modus_dict_put(dict, modus_bytes(&key, sizeof key), modus_bytes(&value, sizeof value));
}

static int get_int(struct modus_dict *dict, int key)
{
    int value = 0;

    CHECK_INT(modus_dict_get(dict, modus_bytes(&key, sizeof key), &value, sizeof value, NULL),
              sizeof value);
    return value;
}

static bool is_value(struct modus_dict *dict, const char *key, const char *value)
{
    char got[64];
    long size = modus_dict_get(dict, modus_str(key), got, sizeof got, NULL);

    return size == (long)strlen(value) && memcmp(got, value, (size_t)size) == 0;
}

/* --- calls ----------------------------------------------------------------------------------- */

static void test_calls(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct modus_dict *dict = make(scope, BYTES);
        char got[8] = "before";

        assert_int_equal(modus_dict_len(dict), 0);
        assert_int_equal(modus_dict_get(dict, modus_str("a"), got, 8, NULL), -ENOENT);
        assert_int_equal(modus_dict_remove(dict, modus_str("a")), -ENOENT);
        assert_int_equal(modus_dict_take(dict, modus_str("a"), got, 8), -ENOENT);
        assert_int_equal(put_str(dict, "a", "one"), 0);
        assert_int_equal(put_str(dict, "b", "two"), 0);
        assert_int_equal(put_str(dict, "", "empty key"), 0);
        assert_int_equal(put_str(dict, "empty value", ""), 0);
        assert_true(is_value(dict, "a", "one") && is_value(dict, "b", "two"));
        assert_true(is_value(dict, "", "empty key") && is_value(dict, "empty value", ""));
        assert_int_equal(put_str(dict, "a", "a longer value than before, in another size"), 0);
        assert_int_equal(modus_dict_len(dict), 4);
        /* Too little room: it tells how much, copies nothing, takes nothing. */
        assert_int_equal(modus_dict_get(dict, modus_str("a"), got, 8, NULL), 43);
        assert_int_equal(modus_dict_take(dict, modus_str("a"), got, 8), 43);
        assert_string_equal(got, "before");
        assert_int_equal(modus_dict_get(dict, modus_str("a"), NULL, 0, NULL), 43);
        assert_int_equal(modus_dict_take(dict, modus_str("b"), got, 8), 3);
        assert_memory_equal(got, "two", 3);
        assert_int_equal(modus_dict_get(dict, modus_str("b"), NULL, 0, NULL), -ENOENT);
        assert_int_equal(modus_dict_remove(dict, modus_str("a")), 0);
        assert_int_equal(modus_dict_len(dict), 2);
        assert_int_equal(modus_dict_clear(dict), 0);
        assert_int_equal(modus_dict_len(dict), 0);
        assert_int_equal(modus_dict_used(dict), 0);
        assert_int_equal(modus_dict_clear(dict), 0);
        assert_int_equal(put_str(dict, "a", "again"), 0);
        unmake(dict);
    }
}

static long answer(void *context, void *value, long size, size_t room)
{
    (void)value, (void)size, (void)room;
    return *(long *)context;
}

static void test_errors(void **state)
{
    struct modus_dict none = {0}, *dict = make(MODUS_THREAD, BYTES);
    struct modus_bytes a = modus_str("a"), big = {"", MODUS_DICT_VALUE_MAX + 1};
    struct modus_snapshot snapshot;
    (void)state;

    assert_int_equal(modus_dict_put(&none, a, a), -EINVAL);
    assert_int_equal(modus_dict_get(&none, a, NULL, 0, NULL), -EINVAL);
    assert_int_equal(modus_dict_take(&none, a, NULL, 0), -EINVAL);
    assert_int_equal(modus_dict_remove(&none, a), -EINVAL);
    assert_int_equal(modus_dict_len(&none), -EINVAL);
    assert_int_equal(modus_dict_clear(&none), -EINVAL);
    assert_int_equal(modus_dict_snapshot(&none, &snapshot), -EINVAL);
    assert_int_equal(modus_dict_check(&none), -EINVAL);
    assert_int_equal(modus_dict_used(&none), 0);
    modus_dict_fini(&none);
    struct modus_dict_attr attr = {.scope = MODUS_PROCESS, .bytes = BYTES};
    assert_int_equal(modus_dict_init(&none, &attr), -EINVAL); /* no arena */
    attr = (struct modus_dict_attr){.scope = MODUS_THREAD, .bytes = 100};
    assert_int_equal(modus_dict_init(&none, &attr), -EINVAL);
    attr = (struct modus_dict_attr){.bytes = BYTES};
    assert_int_equal(modus_dict_init(&none, &attr), -EINVAL);
    attr = (struct modus_dict_attr){
        .scope = MODUS_PROCESS, .arena = arena, .bytes = MODUS_STORE_BYTES_MAX};
    assert_int_equal(modus_dict_init(&none, &attr), -ENOMEM);
    assert_int_equal(modus_dict_put(&none, a, a), -EINVAL);
    assert_int_equal(modus_dict_put(dict, a, big), -EINVAL);
    assert_int_equal(modus_dict_put_if(dict, a, big, 0), -EINVAL);
    big.size = MODUS_DICT_KEY_MAX + 1;
    assert_int_equal(modus_dict_put(dict, big, a), -EINVAL);
    assert_int_equal(modus_dict_remove(dict, big), -EINVAL);
    assert_int_equal(modus_dict_update(dict, a, 1, NULL, NULL), -EINVAL);
    long result = -77;
    assert_int_equal(modus_dict_update(dict, a, MODUS_DICT_VALUE_MAX + 1, answer, &result),
                     -EINVAL);
    assert_int_equal(modus_dict_update(dict, a, 8, answer, &result), -77);
    result = 9;
    assert_int_equal(modus_dict_update(dict, a, 8, answer, &result), -ERANGE);
    assert_int_equal(modus_dict_len(dict), 0);
    unmake(dict);
}

static void test_versions(void **state)
{
    struct modus_dict *dict = make(MODUS_PROCESS, BYTES);
    struct modus_bytes k = modus_str("k"), v = modus_str("v");
    uint64_t first, second;
    (void)state;

    assert_int_equal(modus_dict_put_if(dict, k, v, 5), -ESTALE);
    assert_int_equal(modus_dict_put_if(dict, k, v, 0), 0);
    assert_int_equal(modus_dict_put_if(dict, k, v, 0), -EEXIST);
    assert_int_equal(modus_dict_get(dict, k, NULL, 0, &first), 1);
    assert_int_equal(modus_dict_put_if(dict, k, modus_str("w"), first), 0);
    assert_int_equal(modus_dict_put_if(dict, k, v, first), -ESTALE);
    assert_true(is_value(dict, "k", "w"));
    /* Removed and put again is not the same, even if the value is. */
    assert_int_equal(modus_dict_get(dict, k, NULL, 0, &second), 1);
    assert_int_equal(modus_dict_remove(dict, k), 0);
    assert_int_equal(put_str(dict, "k", "w"), 0);
    assert_int_equal(modus_dict_put_if(dict, k, v, second), -ESTALE);
    unmake(dict);
}

static long add_one(void *context, void *value, long size, size_t room)
{
    int n = 0;

    (void)context;
    CHECK(room >= sizeof n && (size == -1 || size == sizeof n));
    if (size > 0)
        memcpy(&n, value, sizeof n);
    n++;
    memcpy(value, &n, sizeof n);
    return sizeof n;
}

static long use_dict(void *context, void *value, long size, size_t room)
{
    (void)value, (void)size, (void)room;
    CHECK_INT(put_str(context, "other", "x"), -EDEADLK);
    CHECK_INT(modus_dict_len(context), -EDEADLK);
    return -1;
}

static long shorten(void *context, void *value, long size, size_t room)
{
    (void)context, (void)value, (void)size, (void)room;
    return 3;
}

static void test_update(void **state)
{
    (void)state;
    EACH_SCOPE(scope)
    {
        struct modus_dict *dict = make(scope, BYTES);
        char *big = malloc(1000);

        for (int i = 1; i <= 3; i++) {
            assert_int_equal(modus_dict_update(dict, modus_str("n"), 4, add_one, NULL), 0);
            int n = 0;
            assert_int_equal(modus_dict_get(dict, modus_str("n"), &n, 4, NULL), 4);
            assert_int_equal(n, i);
        }
        assert_int_equal(modus_dict_update(dict, modus_str("n"), 4, use_dict, dict), -1);
        assert_int_equal(modus_dict_len(dict), 1);
        memset(big, 'x', 1000);
        size_t used = modus_dict_used(dict);
        assert_int_equal(modus_dict_put(dict, modus_str("big"), modus_bytes(big, 1000)), 0);
        assert_int_equal(modus_dict_update(dict, modus_str("big"), 0, shorten, NULL), 0);
        assert_true(is_value(dict, "big", "xxx"));
        assert_int_equal(modus_dict_used(dict), used + 64);
        free(big);
        unmake(dict);
    }
}

/* It grows, in order, and shrinks to nothing. */
static void test_many(void **state)
{
    enum { MANY = 3000 };
    (void)state;
    EACH_SCOPE(scope)
    {
        struct modus_dict *dict = make(scope, BYTES * 4);
        struct modus_snapshot all;
        struct modus_bytes key, value;
        int i = 0;

        for (int round = 0; round < 2; round++) {
            for (int n = 0; n < MANY; n++)
                assert_int_equal(put_int(dict, n, n * round), 0);
            assert_int_equal(modus_dict_len(dict), MANY);
        }
        for (int n = 0; n < MANY; n++)
            assert_int_equal(get_int(dict, n), n);
        assert_int_equal(modus_dict_check(dict), 0);
        assert_int_equal(modus_dict_snapshot(dict, &all), 0);
        /* The snapshot stays as it was. */
        for (int n = 0; n < MANY; n += 2)
            assert_int_equal(modus_dict_remove(dict, modus_bytes(&n, sizeof n)), 0);
        for (size_t at = 0; modus_snapshot_next(&all, &at, &key, &value); i++) {
            assert_int_equal(key.size, sizeof i);
            assert_memory_equal(key.data, &i, sizeof i);
            assert_memory_equal(value.data, &i, sizeof i);
        }
        assert_int_equal(i, MANY);
        modus_snapshot_fini(&all);
        assert_int_equal(modus_dict_len(dict), MANY / 2);
        assert_int_equal(modus_dict_check(dict), 0);
        assert_int_equal(modus_dict_snapshot(dict, &all), 0);
        i = 1;
        for (size_t at = 0; modus_snapshot_next(&all, &at, &key, NULL); i += 2)
            assert_memory_equal(key.data, &i, sizeof i);
        assert_int_equal(i, MANY + 1);
        modus_snapshot_fini(&all);
        assert_int_equal(modus_dict_clear(dict), 0);
        assert_int_equal(modus_dict_used(dict), 0);
        unmake(dict);
    }
}

/* Removing and putting other keys for ever needs no more memory than what lives. */
static void test_churn(void **state)
{
    struct modus_dict *dict = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
    (void)state;

    for (int n = 0; n < 20000; n++) {
        assert_int_equal(put_int(dict, n, n), 0);
        if (n >= 20) {
            int old = n - 20;
            assert_int_equal(modus_dict_remove(dict, modus_bytes(&old, sizeof old)), 0);
        }
    }
    assert_int_equal(modus_dict_len(dict), 20);
    unmake(dict);
}

/* Full: nothing changes, what is removed makes room, for anything. */
static void test_full(void **state)
{
    struct modus_dict *dict = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
    struct modus_snapshot before, after;
    int n = 0;
    (void)state;

    while (put_int(dict, n, n) == 0)
        n++;
    assert_true(n > 40);
    assert_int_equal(modus_dict_snapshot(dict, &before), 0);
    assert_int_equal(put_int(dict, n, n), -ENOMEM);
    assert_int_equal(modus_dict_put_if(dict, modus_str("x"), modus_str("y"), 0), -ENOMEM);
    assert_int_equal(modus_dict_update(dict, modus_str("x"), 4, add_one, NULL), -ENOMEM);
    assert_int_equal(modus_dict_snapshot(dict, &after), 0);
    assert_true(same(&before, &after));
    assert_int_equal(modus_dict_check(dict), 0);
    modus_snapshot_fini(&before);
    modus_snapshot_fini(&after);
    for (int i = 0; i < n; i++)
        assert_int_equal(modus_dict_remove(dict, modus_bytes(&i, sizeof i)), 0);
    assert_int_equal(modus_dict_clear(dict), 0);
    char big[2048] = {0};
    assert_int_equal(modus_dict_put(dict, modus_str("big"), modus_bytes(big, sizeof big)), 0);
    unmake(dict);
}

/* --- several users --------------------------------------------------------------------------- */

enum { ADDERS = 10, ADDS = 1000 };

static int add_often(void *argument)
{
    for (int i = 0; i < ADDS; i++)
        CHECK_INT(modus_dict_update(argument, modus_str("n"), 4, add_one, NULL), 0);
    return 0;
}

static void *add_often_thread(void *argument)
{
    add_often(argument);
    return NULL;
}

static int add_in_two_steps(void *argument)
{
    for (int i = 0; i < ADDS; i++) {
        int n = 0;

        modus_dict_get(argument, modus_str("n"), &n, sizeof n, NULL);
        n++;
        if (i % 100 == 0)
            usleep(100);
        CHECK_INT(modus_dict_put(argument, modus_str("n"), modus_bytes(&n, sizeof n)), 0);
    }
    return 0;
}

static int add_by_version(void *argument)
{
    for (int i = 0; i < ADDS;) {
        uint64_t version = 0;
        int n = 0;

        modus_dict_get(argument, modus_str("n"), &n, sizeof n, &version);
        n++;
        int rc = modus_dict_put_if(argument, modus_str("n"), modus_bytes(&n, sizeof n), version);
        CHECK(rc == 0 || rc == (version ? -ESTALE : -EEXIST));
        i += rc == 0;
    }
    return 0;
}

static int sum_of(int scope, int (*add)(void *))
{
    struct modus_dict *dict = make(scope, BYTES);
    pid_t children[ADDERS];
    pthread_t threads[ADDERS];
    int n = 0;

    for (int i = 0; i < ADDERS; i++)
        if (scope == MODUS_PROCESS)
            children[i] = start_child(add, dict);
        else
            threads[i] = start_thread(add_often_thread, dict);
    for (int i = 0; i < ADDERS; i++)
        if (scope == MODUS_PROCESS)
            CHECK_INT(reap(children[i]), 0);
        else
            join_thread(threads[i]);
    CHECK_INT(modus_dict_get(dict, modus_str("n"), &n, sizeof n, NULL), sizeof n);
    unmake(dict);
    return n;
}

/* Ten add a thousand each: none is lost, unless they read and write in two steps. */
static void test_adding(void **state)
{
    (void)state;
    assert_int_equal(sum_of(MODUS_THREAD, add_often), ADDERS * ADDS);
    assert_int_equal(sum_of(MODUS_PROCESS, add_often), ADDERS * ADDS);
    assert_int_equal(sum_of(MODUS_PROCESS, add_by_version), ADDERS * ADDS);
    assert_true(sum_of(MODUS_PROCESS, add_in_two_steps) < ADDERS * ADDS);
}

static int add_in_coroutines(void *argument)
{
    struct modus_co *co[4];

    for (int i = 0; i < 4; i++)
        CHECK_INT(modus_co_start(&co[i], NULL, add_often, argument), 0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(modus_co_join(co[i], MODUS_FOREVER, NULL), 0);
        modus_co_put(co[i]);
    }
    return 0;
}

static void test_coroutines(void **state)
{
    struct modus_dict *dict = make(MODUS_THREAD, BYTES);
    pthread_t thread = start_thread(add_often_thread, dict);
    int n = 0;
    (void)state;

    assert_int_equal(modus_co_run(add_in_coroutines, dict), 0);
    join_thread(thread);
    assert_int_equal(modus_dict_get(dict, modus_str("n"), &n, sizeof n, NULL), 4);
    assert_int_equal(n, 5 * ADDS);
    unmake(dict);
}

/* --- the killed ------------------------------------------------------------------------------ */

static int filled;
static size_t subject_bytes = BYTES;

static void begin_dict(void *object)
{
    struct modus_dict_attr attr = {.scope = MODUS_PROCESS, .arena = arena, .bytes = subject_bytes};

    CHECK_INT(modus_dict_init(object, &attr), 0);
    for (int n = 0; n < filled; n++)
        if (put_int(object, n, n) == -ENOMEM)
            break;
}

static void end_dict(void *object)
{
    modus_dict_fini(object);
}

static int check_dict(void *object)
{
    return modus_dict_check(object);
}

static int snapshot_dict(void *object, struct modus_snapshot *snapshot)
{
    return modus_dict_snapshot(object, snapshot);
}

static int change_put(void *object)
{
    return put_int(object, 1000, 1);
}

static int change_value(void *object)
{
    int n = 2;
    return modus_dict_put(object, modus_bytes(&n, sizeof n),
                          modus_str("a value that is much longer than the one that was there"));
}

static int change_remove(void *object)
{
    int n = 3;
    return modus_dict_remove(object, modus_bytes(&n, sizeof n));
}

static int change_take(void *object)
{
    int n = 0, value;
    long size = modus_dict_take(object, modus_bytes(&n, sizeof n), &value, sizeof value);

    return size == sizeof value ? 0 : (int)size;
}

static int change_update(void *object)
{
    int n = 1;
    return modus_dict_update(object, modus_bytes(&n, sizeof n), 300, add_one, NULL);
}

static int change_clear(void *object)
{
    return modus_dict_clear(object);
}

static int change_in_vain(void *object)
{
    int n = 2;
    return modus_dict_update(object, modus_bytes(&n, sizeof n), 100, answer, &(long){-5});
}

static void test_kill_at_every_point(void **state)
{
    static const struct {
        int (*change)(void *object);
        int filled;
        int expected;
    } changes[] = {{change_put, 0, 0},  /* makes the first table */
                   {change_put, 4, 0},  /* has room in it */
                   {change_put, 6, 0},  /* replaces it */
                   {change_put, 48, 0}, /* replaces a larger one */
                   {change_value, 5, 0},  {change_remove, 5, 0},   {change_take, 1, 0},
                   {change_update, 5, 0}, {change_in_vain, 5, -5}, {change_clear, 5, 0}};
    struct modus_dict *dict = modus_arena_alloc(arena, sizeof *dict, 0);
    struct subject subject = {dict, begin_dict, end_dict, NULL, check_dict, snapshot_dict};
    int kills = 0;
    (void)state;

    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        subject.change = changes[i].change;
        filled = changes[i].filled;
        kills += sweep_kills(&subject, changes[i].expected, true);
    }
    assert_true(kills > (SLOW ? 60 : 200));
    subject_bytes = MODUS_STORE_BYTES_MIN; /* and when it is full */
    filled = INT32_MAX;
    subject.change = change_put;
    assert_true(sweep_kills(&subject, -ENOMEM, true) > 0);
    subject_bytes = BYTES;
    filled = 5;
    kill_stopped(&subject);
    modus_arena_free(arena, dict, sizeof *dict);
}

static long die(void *context, void *value, long size, size_t room)
{
    (void)context, (void)size;
    memset(value, 0xff, room);
    raise(SIGKILL);
    return 0;
}

static int die_updating(void *argument)
{
    return modus_dict_update(argument, modus_str("n"), 100, die, NULL);
}

static void test_killed_in_function(void **state)
{
    struct modus_dict *dict = make(MODUS_PROCESS, BYTES);
    (void)state;

    for (int round = 0; round < 2; round++) {
        size_t used = modus_dict_used(dict);
        assert_int_equal(reap(start_child(die_updating, dict)), -SIGKILL);
        assert_int_equal(modus_dict_check(dict), 0);
        assert_int_equal(modus_dict_used(dict), used);
        if (round)
            assert_true(is_value(dict, "n", "value"));
        else
            assert_int_equal(put_str(dict, "n", "value"), 0);
    }
    unmake(dict);
}

static long fork_updating(void *context, void *value, long size, size_t room)
{
    (void)context, (void)size, (void)room;
    fork_in_callback();
    memcpy(value, "new", 4);
    return 4;
}

/* The child that returns from the function too leaves its parent's dict alone. */
static void test_forks_in_function(void **state)
{
    struct modus_dict *dict = make(MODUS_PROCESS, BYTES);
    pid_t home = getpid();
    (void)state;

    for (int round = 0; round < 3; round++) {
        int rc = modus_dict_update(dict, modus_str("n"), 100, fork_updating, NULL);
        end_forked(home, rc);
        assert_int_equal(rc, 0);
        assert_int_equal(modus_dict_check(dict), 0);
    }
    assert_int_equal(modus_dict_len(dict), 1);
    unmake(dict);
}

/* What others have written into the memory is not believed. */
static int read_damaged(void *argument)
{
    struct modus_dict *dict = argument;
    char got[64];
    struct modus_snapshot all;

    for (int n = 0; n < 40; n++) {
        long rc = modus_dict_get(dict, modus_bytes(&n, sizeof n), got, sizeof got, NULL);
        CHECK(rc >= 0 || rc == -ENOENT || rc == MODUS_NOTRECOVERABLE);
        int put = put_int(dict, n + 20, n);
        if (put != 0 && put != -ENOMEM)
            CHECK_INT(put, MODUS_NOTRECOVERABLE);
        modus_dict_remove(dict, modus_bytes(&n, sizeof n));
    }
    if (modus_dict_snapshot(dict, &all) == 0)
        modus_snapshot_fini(&all);
    modus_dict_check(dict);
    modus_dict_clear(dict);
    return 0;
}

static void test_damaged(void **state)
{
    unsigned seed = 1;
    int broken = 0;
    (void)state;

    for (int round = 0; round < (SLOW ? 60 : 400); round++) {
        struct modus_dict *dict = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
        size_t lock = sizeof(struct modus_lock), units = dict->store.units;

        for (int n = 0; n < 20; n++)
            CHECK_INT(put_int(dict, n, n), 0);
        /* Anywhere but in the lock, which POSIX does not let us look through. */
        for (int i = 0; i < 1 + round % 8; i++) {
            size_t at = lock + (size_t)rand_r(&seed) % (units * MODUS_STORE_UNIT - lock);
            if (round % 2) /* the head's and the first entries' words are the interesting ones */
                at = lock + (size_t)rand_r(&seed) % 512;
            ((unsigned char *)dict->store.head)[at] = (unsigned char)rand_r(&seed);
        }
        assert_int_equal(reap(start_child(read_damaged, dict)), 0);
        broken += modus_dict_check(dict) == MODUS_NOTRECOVERABLE;
        modus_dict_fini(dict);
        modus_arena_free(arena, dict, sizeof *dict);
    }
    assert_true(broken > 0);
}

/* As it was, from the beginning. */
static void fill_again(void *argument)
{
    struct modus_dict *dict = argument;
    struct modus_dict_attr attr = {
        .scope = MODUS_PROCESS, .arena = arena, .bytes = MODUS_STORE_BYTES_MIN};

    modus_dict_fini(dict);
    CHECK_INT(modus_dict_init(dict, &attr), 0);
    for (int n = 0; n < 10; n++)
        CHECK_INT(put_int(dict, n, n), 0);
}

/* The dict's own words, those of an entry, of the table, and where free memory begins. */
static void test_spoilt(void **state)
{
    struct modus_dict *dict = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
    (void)state;

    fill_again(dict);
    uint64_t units = dict->store.units, *root = modus_store_root(&dict->store);
    uint64_t *head = root - 34; /* counts and free lists */
    uint64_t first = root[4], table = root[0];
    spoil_words(head, 34 + 8, first, units, read_damaged, fill_again, dict);
    spoil_words(modus_store_at(&dict->store, first, 32), 5, first, units, read_damaged, fill_again,
                dict);
    spoil_words(modus_store_at(&dict->store, table, 64), 8, first, units, read_damaged, fill_again,
                dict);
    unmake(dict);
}

/* --- chaos ----------------------------------------------------------------------------------- */

enum { KEYS = 64 };

/* Each key's value is its bytes, repeated: whatever is read must be so. */
static size_t make_value(int key, unsigned round, char *value)
{
    size_t size = round % 300;

    memset(value, key + 1, size);
    return size;
}

static int work(void *argument)
{
    struct modus_dict *dict = argument;
    unsigned seed = (unsigned)getpid();
    char value[300], got[300];

    for (unsigned round = 0;; round++) {
        int key = rand_r(&seed) % KEYS;
        struct modus_bytes k = modus_bytes(&key, sizeof key);
        size_t size = make_value(key, (unsigned)rand_r(&seed), value);
        int rc = 0;

        switch (rand_r(&seed) % 8) {
        case 0:
            rc = modus_dict_remove(dict, k);
            break;
        case 1:
            rc = rand_r(&seed) % 50 ? 0 : modus_dict_clear(dict);
            break;
        case 2:
        case 3:
            rc = (int)modus_dict_get(dict, k, got, sizeof got, NULL);
            for (int i = 0; i < rc; i++)
                CHECK_INT(got[i], key + 1);
            break;
        default:
            rc = modus_dict_put(dict, k, modus_bytes(value, size));
        }
        if (rc < 0 && rc != -ENOENT)
            CHECK_INT(rc, -ENOMEM);
    }
}

static void test_chaos(void **state)
{
    struct modus_dict *dict = make(MODUS_PROCESS, MODUS_STORE_BYTES_MIN);
    (void)state;

    printf("chaos: dict, %ld kills\n", kill_workers(work, check_dict, dict));
    assert_int_equal(modus_dict_clear(dict), 0);
    assert_int_equal(modus_dict_used(dict), 0); /* nothing has leaked */
    unmake(dict);
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
        TEST(test_update),
        TEST(test_many),
        TEST(test_churn),
        TEST(test_full),
        TEST(test_adding),
        TEST(test_coroutines),
        TEST(test_damaged),
        TEST(test_spoilt),
        TEST(test_chaos),
        TEST(test_killed_in_function),
        TEST(test_forks_in_function),
        TEST(test_kill_at_every_point),
    };
    return cmocka_run_group_tests(tests, open_arena, close_arena);
}
