/* SPDX-License-Identifier: MIT */
/* The manager's server and its clients: every verb, and waiting for each other. */
#include "test_concurrency_manager.h"

#include "concurrency/manager_priv.h"

#include <poll.h>
#include <sys/file.h>

/* --- opening --------------------------------------------------------------------------------- */

static void test_open(void **state)
{
    struct modus_manager *second;
    struct modus_manager_attr attr = usual;
    char long_path[200], file[64];
    struct stat status;
    (void)state;

    memset(long_path, 'x', sizeof long_path);
    long_path[199] = 0;
    attr.path = NULL;
    assert_int_equal(modus_manager_open(&second, &attr), -EINVAL);
    attr.path = "";
    assert_int_equal(modus_manager_open(&second, &attr), -EINVAL);
    attr.path = long_path;
    assert_int_equal(modus_manager_open(&second, &attr), -EINVAL);
    attr.path = "/tmp/is-not-there/socket";
    assert_int_equal(modus_manager_open(&second, &attr), -ENOENT);
    attr = usual;
    attr.object_bytes = 1;
    assert_int_equal(modus_manager_open(&second, &attr), -EINVAL);
    /* What is no socket is not touched. */
    snprintf(file, sizeof file, "%s/file", directory);
    close(open(file, O_CREAT | O_WRONLY, 0600));
    attr = usual;
    attr.path = file;
    assert_int_equal(modus_manager_open(&second, &attr), -EBUSY);
    assert_int_equal(unlink(file), 0);
    start_server(false);
    assert_int_equal(lstat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(modus_manager_open(&second, &usual), -EBUSY);
    modus_client_close(connected());
    assert_int_equal(modus_manager_serve(manager), -EALREADY);
    stop_server(false);
    /* Stopped before it is served. */
    assert_int_equal(modus_manager_open(&manager, &usual), 0);
    modus_manager_stop(manager);
    assert_int_equal(modus_manager_serve(manager), 0);
    assert_int_equal(modus_manager_serve(manager), -EALREADY);
    modus_manager_close(manager);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(modus_manager_open(&manager, &usual), 0);
    modus_manager_stop(manager);
    modus_manager_close(manager);
    assert_int_not_equal(access(path, F_OK), 0);
    modus_manager_stop(NULL);
    modus_manager_close(NULL);
}

/* Anybody who may read a directory may lock it. */
/* A server that does not accept, and nobody more fits into the line before it. Returns who does. */
static int fill_line(int *listener)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(to.sun_path, path, sizeof path);
    *listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(*listener, (struct sockaddr *)&to, sizeof to), 0);
    CHECK_INT(listen(*listener, 0), 0);
    CHECK_INT(connect(client, (struct sockaddr *)&to, sizeof to), 0);
    return client;
}

static int open_in_storm(void *argument)
{
    const struct modus_client_attr attr = {.path = path, .patience = modus_ms(100)};
    struct modus_client *client;

    (void)argument;
    start_storm(10000);
    return modus_client_open(&client, &attr) == MODUS_CLOSED ? 0 : 1;
}

/* A client's patience ends before it is connected, too: whatever number it is, and though signals
 * come all the time. */
static void test_server_does_not_accept(void **state)
{
    const struct modus_client_attr attr = {.path = path, .patience = modus_seconds(1) - 1};
    struct modus_client *client;
    int listener, first = fill_line(&listener);
    (void)state;

    int64_t since = modus_now_ns();
    assert_int_equal(modus_client_open(&client, &attr), MODUS_CLOSED);
    assert_true(modus_now_ns() - since >= attr.patience);
    assert_int_equal(reap(start_child(open_in_storm, NULL)), 0);
    close(first);
    close(listener);
    unlink(path);
}

static int open_in_coroutine(void *argument)
{
    const struct modus_client_attr attr = {.path = path};
    struct modus_client *client;

    (void)argument;
    return modus_client_open(&client, &attr);
}

/* Of one thread: a coroutine before a line that is full, and one that makes room in it. */
static int main_make_room(void *argument)
{
    int listener, first = fill_line(&listener), result = 0;
    struct modus_co *co;

    (void)argument;
    CHECK_INT(modus_co_start(&co, NULL, open_in_coroutine, NULL), 0);
    CHECK_INT(modus_co_sleep(modus_ms(5)), 0);
    for (int i = 0; i < 2; i++) { /* the second one is the coroutine's */
        CHECK_INT(modus_park_fd(listener, POLLIN, MODUS_FOREVER, NULL), 0);
        close(accept(listener, NULL, NULL));
    }
    CHECK_INT(modus_co_join(co, MODUS_FOREVER, &result), 0);
    CHECK_INT(result, MODUS_CLOSED);
    modus_co_put(co);
    close(first);
    close(listener);
    unlink(path);
    return 0;
}

static void test_room_before_server(void **state)
{
    (void)state;
    assert_int_equal(modus_co_run(main_make_room, NULL), 0);
}

static void test_directory_is_locked(void **state)
{
    struct modus_manager *second;
    int fd = open(directory, O_RDONLY | O_DIRECTORY);
    (void)state;

    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(modus_manager_open(&second, &usual), -EBUSY);
    assert_int_not_equal(access(path, F_OK), 0);
    close(fd);
    start_server(false);
    stop_server(false);
}

/* A server whose path has been removed, and is another's by now, leaves that alone. */
static void test_path_is_anothers(void **state)
{
    struct modus_manager *first;
    (void)state;

    assert_int_equal(modus_manager_open(&first, &usual), 0);
    pthread_t thread = start_thread(serve_thread, first);
    modus_client_close(connected());
    assert_int_equal(unlink(path), 0);
    start_server(false);
    modus_manager_stop(first);
    join_thread(thread);
    modus_manager_close(first);
    modus_client_close(connected());
    stop_server(false);
}

static void test_client_errors(void **state)
{
    struct modus_client *client;
    struct modus_remote remote, none = {0};
    struct modus_client_attr attr = {.path = path, .patience = -2};
    char name[300], got[8];
    (void)state;

    assert_int_equal(modus_client_open(&client, &attr), -EINVAL);
    attr.patience = 0;
    assert_int_equal(modus_client_open(&client, &attr), MODUS_CLOSED); /* nobody there */
    attr.path = NULL;
    assert_int_equal(modus_client_open(&client, &attr), -EINVAL);
    modus_client_close(NULL);
    assert_int_equal(modus_remote_len(&none), -EINVAL);
    start_server(false);
    client = connected();
    assert_true(modus_client_alive(client));
    none.client = client;
    assert_int_equal(modus_remote_len(&none), -ENOENT);
    none.id = 0xffffffff;
    assert_int_equal(modus_remote_len(&none), -ENOENT);
    memset(name, 'n', sizeof name);
    name[256] = 0;
    assert_int_equal(modus_remote_open(&remote, client, MODUS_REMOTE_DICT, name, 0), -EINVAL);
    assert_int_equal(modus_remote_open(&remote, client, MODUS_REMOTE_DICT, "", 0), -EINVAL);
    assert_int_equal(modus_remote_open(&remote, client, (enum modus_remote_kind)9, "a", 0),
                     -EINVAL);
    assert_int_equal(modus_remote_open(&remote, client, MODUS_REMOTE_QUEUE, "q", 0), -EINVAL);
    name[255] = 0;
    remote = opened(client, MODUS_REMOTE_DICT, name);
    assert_int_equal(modus_remote_open(&none, client, MODUS_REMOTE_LIST, name, 0), -EEXIST);
    assert_int_equal(opened(client, MODUS_REMOTE_DICT, name).id, remote.id);
    /* Verbs of other kinds. */
    assert_int_equal(modus_remote_list_append(&remote, modus_str("x")), -EINVAL);
    assert_int_equal(modus_remote_queue_put(&remote, modus_str("x"), 0), -EINVAL);
    assert_int_equal(modus_remote_lock_acquire(&remote, 0), -EINVAL);
    assert_int_equal(modus_remote_value_load(&remote, &(int64_t){0}), -EINVAL);
    assert_int_equal(modus_remote_queue_get(&remote, got, 8, -2), -EINVAL);
    assert_int_equal(modus_remote_dict_update(&remote, modus_str("x"), 1, NULL, NULL), -EINVAL);
    /* As many objects as there may be; dropping one makes room. */
    for (int i = 1; i < OBJECTS; i++) {
        snprintf(name, sizeof name, "%d", i);
        opened(client, MODUS_REMOTE_VALUE, name);
    }
    assert_int_equal(modus_remote_open(&none, client, MODUS_REMOTE_DICT, "more", 0), -ENOMEM);
    assert_int_equal(modus_remote_drop(&remote), 0);
    assert_int_equal(modus_remote_drop(&remote), -ENOENT);
    assert_int_equal(modus_remote_len(&remote), -ENOENT);
    struct modus_remote other = opened(client, MODUS_REMOTE_DICT, "more");
    assert_int_not_equal(other.id, remote.id);
    assert_int_equal(modus_remote_len(&remote), -ENOENT); /* the old handle is not the new one */
    stop_server(false);
    assert_int_equal(modus_remote_len(&other), MODUS_CLOSED);
    assert_false(modus_client_alive(client));
    assert_int_equal(modus_remote_len(&other), MODUS_CLOSED);
    modus_client_close(client);
}

/* Without server and client: make an object and drop it. Returns its id. */
static uint64_t make_and_drop(struct modus_manager_objects *objects)
{
    struct modus_turn turn = {
        .request = {.verb = MODUS_WIRE_OPEN, .a = MODUS_REMOTE_VALUE},
        .key = modus_str("other"),
    };

    CHECK_INT(modus_objects_do(objects, &turn), 0);
    uint64_t id = (uint64_t)turn.reply.number;
    CHECK(modus_objects_find(objects, id) != NULL);
    turn = (struct modus_turn){.request = {.verb = MODUS_WIRE_DROP, .object = id}};
    CHECK_INT(modus_objects_do(objects, &turn), 0);
    modus_object_free(objects, turn.changed);
    return id;
}

/* An old handle is never another object's, however many there have been. */
static void test_ids(void **state)
{
    struct modus_manager_objects objects = {.max = 4, .table = calloc(4, sizeof *objects.table)};
    (void)state;

    uint64_t old = make_and_drop(&objects);
    for (int i = 0; i < 1 << 17; i++) {
        assert_true(make_and_drop(&objects) != old);
        assert_null(modus_objects_find(&objects, old));
    }
    modus_objects_fini(&objects);
}

/* --- verbs ----------------------------------------------------------------------------------- */

static long refuse(void *context, void *value, long size, size_t room)
{
    (void)value, (void)size;
    return context ? (long)room + 1 : -77;
}

static void use_dict(struct modus_client *client)
{
    struct modus_remote dict = opened(client, MODUS_REMOTE_DICT, "dict");
    struct modus_bytes a = modus_str("a"), key, value;
    struct modus_snapshot all;
    uint64_t version = 0;
    char got[64] = "before";
    size_t at = 0;
    int n = 0;

    assert_int_equal(modus_remote_dict_get(&dict, a, got, 64, NULL), -ENOENT);
    assert_int_equal(modus_remote_dict_put(&dict, a, modus_str("one")), 0);
    assert_int_equal(modus_remote_dict_get(&dict, a, got, 2, NULL), 3);
    assert_int_equal(modus_remote_dict_take(&dict, a, got, 2), 3);
    assert_string_equal(got, "before");
    assert_int_equal(modus_remote_dict_get(&dict, a, got, 64, &version), 3);
    assert_memory_equal(got, "one", 3);
    assert_int_equal(modus_remote_dict_put_if(&dict, a, modus_str("two"), version + 9), -ESTALE);
    assert_int_equal(modus_remote_dict_put_if(&dict, a, modus_str("two"), 0), -EEXIST);
    assert_int_equal(modus_remote_dict_put_if(&dict, a, modus_str("two"), version), 0);
    assert_int_equal(modus_remote_dict_put(&dict, modus_str(""), modus_str("")), 0);
    assert_int_equal(modus_remote_len(&dict), 2);
    assert_int_equal(modus_remote_snapshot(&dict, &all), 0);
    assert_true(modus_snapshot_next(&all, &at, &key, &value));
    assert_memory_equal(value.data, "two", 3);
    assert_true(modus_snapshot_next(&all, &at, &key, &value));
    assert_int_equal(key.size + value.size, 0);
    assert_false(modus_snapshot_next(&all, &at, &key, &value));
    modus_snapshot_fini(&all);
    assert_int_equal(modus_remote_dict_take(&dict, a, got, 64), 3);
    assert_int_equal(modus_remote_dict_remove(&dict, a), -ENOENT);
    assert_int_equal(modus_remote_dict_remove(&dict, modus_str("")), 0);
    assert_int_equal(modus_remote_snapshot(&dict, &all), 0);
    assert_int_equal(all.size, 0);
    modus_snapshot_fini(&all);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_remote_dict_update(&dict, a, sizeof n, add_one, NULL), 0);
    assert_int_equal(modus_remote_dict_get(&dict, a, &n, sizeof n, NULL), sizeof n);
    assert_int_equal(n, 3);
    assert_int_equal(modus_remote_dict_update(&dict, a, 4, refuse, NULL), -77);
    assert_int_equal(modus_remote_dict_update(&dict, a, 4, refuse, &n), -ERANGE);
    /* The room is made larger when what is there needs it. */
    assert_int_equal(modus_remote_dict_update(&dict, a, 0, add_one, NULL), 0);
    assert_int_equal(modus_remote_clear(&dict), 0);
    assert_int_equal(modus_remote_len(&dict), 0);
}

static void use_list(struct modus_client *client)
{
    struct modus_remote list = opened(client, MODUS_REMOTE_LIST, "list");
    struct modus_snapshot all;
    struct modus_bytes value;
    uint64_t version = 0;
    int n = 5;
    size_t at = 0;

    assert_int_equal(modus_remote_list_get(&list, 0, &n, 4, NULL), -ENOENT);
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_remote_list_append(&list, modus_bytes(&i, sizeof i)), 0);
    assert_int_equal(modus_remote_list_insert(&list, 1, modus_bytes(&n, sizeof n)), 0);
    assert_int_equal(modus_remote_list_insert(&list, 9, modus_bytes(&n, sizeof n)), -ENOENT);
    assert_int_equal(modus_remote_list_get(&list, -1, &n, 4, &version), 4);
    assert_int_equal(n, 2);
    assert_int_equal(modus_remote_list_set_if(&list, -1, modus_str("x"), version + 1), -ESTALE);
    assert_int_equal(modus_remote_list_set_if(&list, -1, modus_str("x"), version), 0);
    assert_int_equal(modus_remote_list_set(&list, 7, modus_str("x")), -ENOENT);
    assert_int_equal(modus_remote_list_set(&list, 3, modus_str("y")), 0);
    assert_int_equal(modus_remote_list_update(&list, 1, 4, add_one, NULL), 0);
    assert_int_equal(modus_remote_list_update(&list, 4, 4, add_one, NULL), -ENOENT);
    assert_int_equal(modus_remote_list_pop(&list, 1, &n, 4), 4);
    assert_int_equal(n, 6);
    assert_int_equal(modus_remote_len(&list), 3);
    assert_int_equal(modus_remote_snapshot(&list, &all), 0);
    for (int i = 0; i < 3; i++)
        assert_true(modus_snapshot_next(&all, &at, NULL, &value));
    assert_memory_equal(value.data, "y", 1);
    modus_snapshot_fini(&all);
    assert_int_equal(modus_remote_clear(&list), 0);
    assert_int_equal(modus_remote_list_pop(&list, 0, &n, 4), -ENOENT);
}

static void use_value(struct modus_client *client)
{
    struct modus_remote value = opened(client, MODUS_REMOTE_VALUE, "value");
    struct modus_remote real = opened(client, MODUS_REMOTE_VALUE, "real");
    int64_t n = 5;
    double x = 0.5;

    assert_int_equal(modus_remote_value_add(&value, &n), 0);
    assert_int_equal(n, 5);
    assert_int_equal(modus_remote_value_store(&value, 7), 0);
    n = 8;
    assert_int_equal(modus_remote_value_exchange(&value, &n), 0);
    assert_int_equal(n, 7);
    assert_int_equal(modus_remote_value_compare_exchange(&value, &n, 1), -ESTALE);
    assert_int_equal(n, 8);
    assert_int_equal(modus_remote_value_compare_exchange(&value, &n, 1), 0);
    assert_int_equal(modus_remote_value_load(&value, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(modus_remote_value_add_real(&real, &x), 0);
    assert_int_equal(modus_remote_value_add_real(&real, &x), 0);
    assert_true(x == 1);
    assert_int_equal(modus_remote_value_store_real(&real, -2.5), 0);
    assert_int_equal(modus_remote_value_load_real(&real, &x), 0);
    assert_true(x == -2.5);
}

static void use_queue(struct modus_client *client)
{
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "queue"); /* of 3 */
    char got[16] = "before";

    assert_int_equal(modus_remote_queue_get(&queue, got, 16, 0), MODUS_EMPTY);
    assert_int_equal(modus_remote_queue_get(&queue, got, 16, modus_ms(2)), -ETIMEDOUT);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("one"), 0), 0);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str(""), MODUS_FOREVER), 0);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("three"), modus_ms(2)), 0);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("four"), 0), MODUS_FULL);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("four"), modus_ms(2)), -ETIMEDOUT);
    assert_int_equal(modus_remote_len(&queue), 3);
    assert_int_equal(modus_remote_queue_get(&queue, got, 2, MODUS_FOREVER), 3); /* stays */
    assert_string_equal(got, "before");
    assert_int_equal(modus_remote_queue_get(&queue, got, 16, MODUS_FOREVER), 3);
    assert_memory_equal(got, "one", 3);
    assert_int_equal(modus_remote_queue_get(&queue, got, 16, 0), 0);
    assert_int_equal(modus_remote_queue_close(&queue), 0);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("x"), 0), MODUS_CLOSED);
    assert_int_equal(modus_remote_queue_get(&queue, got, 16, 0), 5);
    assert_int_equal(modus_remote_queue_get(&queue, got, 16, MODUS_FOREVER), MODUS_CLOSED);
    assert_true(modus_client_alive(client));
    assert_int_equal(modus_remote_drop(&queue), 0);
}

static void use_lock(struct modus_client *client)
{
    struct modus_client *other = connected();
    struct modus_remote mine = opened(client, MODUS_REMOTE_LOCK, "lock");
    struct modus_remote yours = opened(other, MODUS_REMOTE_LOCK, "lock");

    assert_int_equal(modus_remote_lock_release(&mine), -EPERM);
    assert_int_equal(modus_remote_lock_acquire(&mine, 0), 0);
    assert_int_equal(modus_remote_lock_acquire(&mine, MODUS_FOREVER), -EDEADLK);
    assert_int_equal(modus_remote_lock_acquire(&yours, 0), -EAGAIN);
    assert_int_equal(modus_remote_lock_acquire(&yours, modus_ms(2)), -ETIMEDOUT);
    assert_int_equal(modus_remote_lock_release(&yours), -EPERM);
    assert_int_equal(modus_remote_lock_release(&mine), 0);
    assert_int_equal(modus_remote_lock_acquire(&yours, MODUS_FOREVER), 0);
    modus_client_close(other); /* with the lock: that is a death, too */
    assert_int_equal(modus_remote_lock_acquire(&mine, MODUS_FOREVER), MODUS_OWNERDEAD);
    assert_int_equal(modus_remote_lock_release(&mine), 0);
    assert_int_equal(modus_remote_lock_acquire(&mine, 0), 0);
    assert_int_equal(modus_remote_lock_release(&mine), 0);
}

static void test_verbs(void **state)
{
    (void)state;
    for (int process = 0; process < 2; process++) {
        start_server(process);
        struct modus_client *client = connected();
        use_dict(client);
        use_list(client);
        use_value(client);
        use_queue(client);
        use_lock(client);
        modus_client_close(client);
        stop_server(process);
    }
}

static void test_sizes(void **state)
{
    unsigned char *big = malloc(MESSAGE + 1), *got = calloc(1, MESSAGE);
    struct modus_snapshot all;
    (void)state;

    for (int i = 0; i <= MESSAGE; i++)
        big[i] = (unsigned char)(i * 7);
    start_server(true);
    struct modus_client *client = connected();
    struct modus_remote dict = opened(client, MODUS_REMOTE_DICT, "d");
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "q");
    struct modus_bytes key = modus_str("key");
    assert_int_equal(modus_remote_dict_put(&dict, key, modus_bytes(big, MESSAGE)), -ERANGE);
    assert_int_equal(modus_remote_dict_put(&dict, key, modus_bytes(big, MESSAGE - 3)), -ENOMEM);
    assert_int_equal(modus_remote_dict_put(&dict, key, modus_bytes(big, 400000)), 0);
    assert_int_equal(modus_remote_dict_get(&dict, key, got, MESSAGE, NULL), 400000);
    assert_memory_equal(got, big, 400000);
    assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(big, MESSAGE + 1), 0), -ERANGE);
    assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(big, MESSAGE - 24), 0), 0);
    assert_int_equal(modus_remote_queue_put(&queue, key, 0), MODUS_FULL); /* of bytes */
    assert_int_equal(modus_remote_queue_get(&queue, got, MESSAGE, 0), MESSAGE - 24);
    assert_memory_equal(got, big, MESSAGE - 24);
    assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(big, MESSAGE), 0), -ENOMEM);
    assert_int_equal(modus_remote_snapshot(&dict, &all), 0);
    assert_int_equal(all.size, 8 + 3 + 400000);
    modus_snapshot_fini(&all);
    modus_client_close(client);
    stop_server(true);
    free(big);
    free(got);
}

/* --- waiting --------------------------------------------------------------------------------- */

static int put_large(void *large)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");

    atomic_fetch_add(&board->ready, 1);
    return modus_remote_queue_put(&queue, modus_bytes(large, MESSAGE / 2), MODUS_FOREVER);
}

static int give_up_large(void *large)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");

    atomic_fetch_add(&board->ready, 1);
    return modus_remote_queue_put(&queue, modus_bytes(large, MESSAGE / 2), modus_ms(100)) ==
                   -ETIMEDOUT
               ? 0
               : 1;
}

static int put_small(void *argument)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");

    (void)argument;
    atomic_fetch_add(&board->ready, 1);
    return modus_remote_queue_put(&queue, modus_str("small"), MODUS_FOREVER);
}

/* The putter waits: it sleeps as soon as its message is more than the socket takes, so that is not
 * all, but when the server has nothing more to do it has all of it. */
static void await_putter(pid_t putter)
{
    AWAIT(atomic_load(&board->ready) == 1);
    AWAIT_ASLEEP(putter);
    await_idle(server, 20);
    atomic_store(&board->ready, 0);
}

/* A large item waits for its turn, and small ones that would still fit do not get in before it. */
static void test_turn_of_the_large(void **state)
{
    unsigned char *large = calloc(1, MESSAGE);
    (void)state;

    start_server(true);
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue"); /* for 3 items */
    assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(large, MESSAGE / 2), 0), 0);
    pid_t putter = start_child(put_large, large);
    await_putter(putter);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("small"), 0), MODUS_FULL);
    assert_int_equal(modus_remote_queue_get(&queue, large, MESSAGE, 0), MESSAGE / 2);
    assert_int_equal(reap(putter), 0);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("small"), 0), 0);
    assert_int_equal(modus_remote_queue_get(&queue, large, MESSAGE, 0), MESSAGE / 2);
    assert_int_equal(modus_remote_queue_get(&queue, large, MESSAGE, 0), 5);
    /* Those behind it get in when it does not wait any more: killed, or its time is over. */
    assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(large, MESSAGE / 2), 0), 0);
    for (int gives_up = 0; gives_up < 2; gives_up++) {
        putter = start_child(gives_up ? give_up_large : put_large, large);
        AWAIT(atomic_load(&board->ready) == 1);
        if (!gives_up)
            await_putter(putter);
        pid_t behind = start_child(put_small, NULL);
        if (gives_up) { /* perhaps before the other one has come */
            assert_int_equal(reap(putter), 0);
        } else {
            await_putter(behind);
            assert_int_equal(modus_remote_len(&queue), 1);
            kill_child(putter);
        }
        assert_int_equal(reap(behind), 0);
        atomic_store(&board->ready, 0);
        assert_int_equal(modus_remote_len(&queue), 2 + gives_up);
    }
    modus_client_close(queue.client);
    stop_server(true);
    free(large);
}

static int put_one(void *argument)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");

    (void)argument;
    atomic_fetch_add(&board->ready, 1);
    return modus_remote_queue_put(&queue, modus_str("four"), MODUS_FOREVER) == 0 ? 0 : 100;
}

static int own_lock(void *argument)
{
    struct modus_remote lock = remote_of(MODUS_REMOTE_LOCK, "lock");

    atomic_fetch_add(&board->ready, 1);
    int rc = modus_remote_lock_acquire(&lock, MODUS_FOREVER);
    atomic_fetch_add(&board->go, 1);
    if (argument)
        pause(); /* to be killed */
    return rc == 0 ? modus_remote_lock_release(&lock) == 0 ? 0 : 99 : rc;
}

static void test_waiting(void **state)
{
    pid_t children[3];
    (void)state;

    start_server(true);
    struct modus_client *client = connected();
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "queue");
    struct modus_remote lock = opened(client, MODUS_REMOTE_LOCK, "lock");
    /* Getters are served in the order in which they came. */
    for (int i = 0; i < 3; i++) {
        children[i] = start_child(get_one, NULL);
        await_sleepers(&children[i], 1, &queue);
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(&i, sizeof i), 0), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(reap(children[i]), i);
    /* A putter waits for room. */
    for (int i = 0; i < 3; i++)
        assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(&i, sizeof i), 0), 0);
    children[0] = start_child(put_one, NULL);
    await_sleepers(children, 1, &queue);
    assert_int_equal(modus_remote_queue_get(&queue, &(int){0}, sizeof(int), 0), sizeof(int));
    assert_int_equal(reap(children[0]), 0);
    assert_int_equal(modus_remote_len(&queue), 3);
    /* Close and drop wake who waits. */
    for (int drop = 0; drop < 2; drop++) {
        assert_int_equal(modus_remote_clear(&queue), 0);
        for (int i = 0; i < 3; i++)
            children[i] = start_child(get_until_closed, NULL);
        await_sleepers(children, 3, &queue);
        assert_int_equal(drop ? modus_remote_drop(&queue) : modus_remote_queue_close(&queue), 0);
        for (int i = 0; i < 3; i++)
            assert_int_equal(reap(children[i]), 0);
        if (!drop) { /* a new one of the same name */
            assert_int_equal(modus_remote_drop(&queue), 0);
            queue = opened(client, MODUS_REMOTE_QUEUE, "queue");
        }
    }
    /* A lock goes from one to the next, and past one that is killed while it waits. */
    assert_int_equal(modus_remote_lock_acquire(&lock, 0), 0);
    for (int i = 0; i < 3; i++)
        children[i] = start_child(own_lock, NULL);
    await_sleepers(children, 3, &queue);
    kill_child(children[1]);
    assert_int_equal(modus_remote_lock_release(&lock), 0);
    assert_int_equal(reap(children[0]), 0);
    assert_int_equal(reap(children[2]), 0);
    /* The holder is killed, with one waiting. */
    atomic_store(&board->go, 0);
    children[0] = start_child(own_lock, board);
    AWAIT(atomic_load(&board->go) == 1);
    atomic_store(&board->ready, 0);
    children[1] = start_child(own_lock, NULL);
    await_sleepers(&children[1], 1, &lock);
    kill_child(children[0]);
    assert_int_equal(reap(children[1]), MODUS_OWNERDEAD);
    modus_client_close(client);
    stop_server(true);
}

/* --- adding ---------------------------------------------------------------------------------- */

enum { ADDERS = 10, ADDS = SLOW ? 100 : 1000 };

static int add_often(void *argument)
{
    struct modus_remote dict = remote_of(MODUS_REMOTE_DICT, "dict");

    (void)argument;
    for (int i = 0; i < ADDS; i++)
        CHECK_INT(modus_remote_dict_update(&dict, modus_str("n"), sizeof(int), add_one, NULL), 0);
    return 0;
}

static int add_in_two_steps(void *argument)
{
    struct modus_remote dict = remote_of(MODUS_REMOTE_DICT, "dict");

    (void)argument;
    for (int i = 0; i < ADDS; i++) {
        int n = 0;

        modus_remote_dict_get(&dict, modus_str("n"), &n, sizeof n, NULL);
        n++;
        CHECK_INT(modus_remote_dict_put(&dict, modus_str("n"), modus_bytes(&n, sizeof n)), 0);
    }
    return 0;
}

static int add_with_lock(void *argument)
{
    struct modus_remote dict = remote_of(MODUS_REMOTE_DICT, "dict");
    struct modus_remote lock = opened(dict.client, MODUS_REMOTE_LOCK, "lock");

    (void)argument;
    for (int i = 0; i < ADDS / 10; i++) {
        int n = 0;

        CHECK_INT(modus_remote_lock_acquire(&lock, MODUS_FOREVER), 0);
        modus_remote_dict_get(&dict, modus_str("n"), &n, sizeof n, NULL);
        n++;
        CHECK_INT(modus_remote_dict_put(&dict, modus_str("n"), modus_bytes(&n, sizeof n)), 0);
        CHECK_INT(modus_remote_lock_release(&lock), 0);
    }
    return 0;
}

static int sum_of(int (*add)(void *))
{
    pid_t children[ADDERS];
    int n = 0;

    start_server(true);
    for (int i = 0; i < ADDERS; i++)
        children[i] = start_child(add, NULL);
    for (int i = 0; i < ADDERS; i++)
        CHECK_INT(reap(children[i]), 0);
    struct modus_remote dict = remote_of(MODUS_REMOTE_DICT, "dict");
    CHECK_INT(modus_remote_dict_get(&dict, modus_str("n"), &n, sizeof n, NULL), sizeof n);
    modus_client_close(dict.client);
    stop_server(true);
    return n;
}

/* Ten add a thousand each: none is lost, unless they read and write in two steps without a lock. */
static void test_adding(void **state)
{
    (void)state;
    assert_int_equal(sum_of(add_often), ADDERS * ADDS);
    assert_int_equal(sum_of(add_with_lock), ADDERS * (ADDS / 10));
    assert_true(sum_of(add_in_two_steps) < ADDERS * ADDS);
}

/* --- coroutines ------------------------------------------------------------------------------ */

static int co_get(void *argument)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");
    int n = 0;

    (void)argument;
    CHECK_INT(modus_remote_queue_get(&queue, &n, sizeof n, MODUS_FOREVER), sizeof n);
    modus_client_close(queue.client);
    return n;
}

static int co_cancelled(void *argument)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "empty");
    int n = 0;

    (void)argument;
    atomic_store(&board->go, 1);
    CHECK_INT(modus_remote_queue_get(&queue, &n, sizeof n, MODUS_FOREVER), MODUS_CANCELED);
    CHECK(!modus_client_alive(queue.client));
    modus_client_close(queue.client);
    return 0;
}

static int co_main(void *argument)
{
    struct modus_co *getter, *cancelled;
    int n = 42;

    (void)argument;
    CHECK_INT(modus_co_start(&getter, NULL, co_get, NULL), 0);
    CHECK_INT(modus_co_start(&cancelled, NULL, co_cancelled, NULL), 0);
    while (atomic_load(&board->go) == 0)
        modus_co_sleep(modus_ms(1));
    modus_co_cancel(cancelled);
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");
    CHECK_INT(modus_remote_queue_put(&queue, modus_bytes(&n, sizeof n), MODUS_FOREVER), 0);
    CHECK_INT(modus_co_join(getter, MODUS_FOREVER, &n), 0);
    CHECK_INT(n, 42);
    CHECK_INT(modus_co_join(cancelled, MODUS_FOREVER, &n), 0);
    modus_co_put(getter);
    modus_co_put(cancelled);
    modus_client_close(queue.client);
    return 0;
}

static void test_coroutines(void **state)
{
    (void)state;
    start_server(true);
    assert_int_equal(modus_co_run(co_main, NULL), 0);
    stop_server(true);
}

/* Without work there is no wake-up. */
static void test_idle(void **state)
{
    (void)state;
    start_server(true);
    struct modus_remote value = remote_of(MODUS_REMOTE_VALUE, "v");
    assert_int_equal(modus_remote_value_store(&value, 1), 0);
    await_idle(server, 100);
    modus_client_close(value.client);
    stop_server(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_open),
        TEST(test_server_does_not_accept),
        TEST(test_room_before_server),
        TEST(test_directory_is_locked),
        TEST(test_path_is_anothers),
        TEST(test_client_errors),
        TEST(test_ids),
        TEST(test_verbs),
        TEST(test_sizes),
        TEST(test_turn_of_the_large),
        TEST(test_waiting),
        TEST(test_adding),
        TEST(test_coroutines),
        TEST(test_idle),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
