/* SPDX-License-Identifier: MIT */
/* The manager when its clients, or its server, die, when they are late, and among strangers. */
#include "test_concurrency_manager.h"

#include <sys/resource.h>

/* --- the killed ------------------------------------------------------------------------------ */

struct end {
    enum modus_fault_point point;
    int verb; /* 0 put into a dict, 1 get from a queue, 2 own a lock */
};

static int die_calling(void *argument)
{
    const struct end *end = argument;
    struct modus_client *client = connected();
    struct modus_remote dict = opened(client, MODUS_REMOTE_DICT, "dict");
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "queue");
    struct modus_remote lock = opened(client, MODUS_REMOTE_LOCK, "lock");
    static char big[2000];

    memset(big, 'n', sizeof big);
    modus_fault_plan(end->point, MODUS_FAULT_DIE, 1);
    if (end->verb == 0)
        modus_remote_dict_put(&dict, modus_str("k"), modus_bytes(big, sizeof big));
    else if (end->verb == 1)
        modus_remote_queue_get(&queue, big, sizeof big, MODUS_FOREVER);
    else
        modus_remote_lock_acquire(&lock, MODUS_FOREVER);
    return 0;
}

static void check_after(struct modus_client *client, const struct end *end)
{
    struct modus_remote dict = opened(client, MODUS_REMOTE_DICT, "dict");
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "queue");
    struct modus_remote lock = opened(client, MODUS_REMOTE_LOCK, "lock");
    char got[2000];

    if (end->verb == 0) {
        long size = modus_remote_dict_get(&dict, modus_str("k"), got, sizeof got, NULL);
        CHECK((size == 3 && memcmp(got, "old", 3) == 0) || (size == 2000 && got[1999] == 'n'));
        if (end->point == MODUS_FAULT_CLIENT_SENT)
            CHECK_INT(size, 3);
    } else if (end->verb == 1) { /* whoever died had not got it, so we do */
        CHECK_INT(modus_remote_queue_get(&queue, got, sizeof got, MODUS_FOREVER), 4);
        CHECK(memcmp(got, "item", 4) == 0);
        CHECK_INT(modus_remote_queue_get(&queue, got, sizeof got, 0), MODUS_EMPTY);
    } else {
        int rc = modus_remote_lock_acquire(&lock, MODUS_FOREVER);
        CHECK(rc == 0 || rc == MODUS_OWNERDEAD);
        if (end->point == MODUS_FAULT_CLIENT_ANSWERED)
            CHECK_INT(rc, MODUS_OWNERDEAD);
        CHECK_INT(modus_remote_lock_release(&lock), 0);
    }
}

static void test_client_killed(void **state)
{
    (void)state;
    start_server(true);
    struct modus_client *client = connected();
    struct modus_remote dict = opened(client, MODUS_REMOTE_DICT, "dict");
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "queue");
    for (int point = MODUS_FAULT_CLIENT_CALLS; point <= MODUS_FAULT_CLIENT_ANSWERED; point++)
        for (int verb = 0; verb < 3; verb++) {
            struct end end = {(enum modus_fault_point)point, verb};

            if (verb != 0 && point == MODUS_FAULT_CLIENT_SENT)
                continue; /* these go in one piece */
            assert_int_equal(modus_remote_dict_put(&dict, modus_str("k"), modus_str("old")), 0);
            if (verb == 1)
                assert_int_equal(modus_remote_queue_put(&queue, modus_str("item"), 0), 0);
            assert_int_equal(reap(start_child(die_calling, &end)), -SIGKILL);
            check_after(client, &end);
        }
    /* Killed while it waits: the next one gets what comes. */
    pid_t waiter = start_child(get_one, NULL);
    await_sleepers(&waiter, 1, &queue);
    kill_child(waiter);
    assert_int_equal(modus_remote_queue_put(&queue, modus_str("item"), 0), 0);
    check_after(client, &(struct end){MODUS_FAULT_CLIENT_ASKED, 1});
    modus_client_close(client);
    stop_server(true);
}

/* A child's child stays when the child is killed; then it is ours. */
_Noreturn static void live_on(void)
{
    alarm(WATCHDOG_SECONDS);
    atomic_store(&board->grandchild, (int)getpid());
    for (;;)
        pause();
}

static void end_grandchild(void)
{
    kill_child(atomic_exchange(&board->grandchild, 0));
}

static int own_lock_with_child(void *argument)
{
    struct modus_remote lock = remote_of(MODUS_REMOTE_LOCK, "lock");

    CHECK_INT(modus_remote_lock_acquire(&lock, MODUS_FOREVER), 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK_INT(modus_remote_lock_release(&lock), -ECHILD);
        CHECK(!modus_client_alive(lock.client));
        modus_client_close(lock.client);
        struct modus_remote own = remote_of(MODUS_REMOTE_LOCK, "lock");
        CHECK_INT(modus_remote_lock_acquire(&own, 0), -EAGAIN);
        live_on();
    }
    pause();
    return argument != NULL;
}

/* A child that lives on does not keep its parent's connection alive. */
static void test_client_forks(void **state)
{
    (void)state;
    start_server(true);
    struct modus_remote lock = remote_of(MODUS_REMOTE_LOCK, "lock");
    pid_t parent = start_child(own_lock_with_child, NULL);
    AWAIT(atomic_load(&board->grandchild));
    assert_int_equal(modus_remote_lock_acquire(&lock, 0), -EAGAIN);
    kill_child(parent);
    assert_int_equal(modus_remote_lock_acquire(&lock, MODUS_FOREVER), MODUS_OWNERDEAD);
    end_grandchild();
    modus_client_close(lock.client);
    stop_server(true);
}

static int serve_and_fork(void *argument)
{
    pthread_t thread = start_thread(serve_thread, argument);
    struct modus_client *client = connected(); /* so it serves by now */
    pid_t child = fork();

    if (child == 0) {
        modus_manager_close(argument);
        live_on();
    }
    join_thread(thread);
    modus_client_close(client);
    return 0;
}

/* The server dies: clients are told, also if a child of it lives on; and the next one takes over. */
static void test_server_killed(void **state)
{
    (void)state;
    for (int with_child = 0; with_child < 2; with_child++) {
        if (with_child) {
            CHECK_INT(modus_manager_open(&manager, &usual), 0);
            server = start_child(serve_and_fork, manager);
            AWAIT(atomic_load(&board->grandchild));
        } else {
            start_server(true);
        }
        modus_manager_close(manager); /* our copy of its descriptors */
        pid_t waiters[2] = {start_child(get_until_closed, NULL), 0};
        struct modus_remote dict = remote_of(MODUS_REMOTE_DICT, "dict");
        await_sleepers(waiters, 1, &dict);
        kill_child(server);
        assert_int_equal(reap(waiters[0]), 0);
        assert_int_equal(modus_remote_len(&dict), MODUS_CLOSED);
        assert_int_equal(modus_remote_len(&dict), MODUS_CLOSED);
        assert_false(modus_client_alive(dict.client));
        modus_client_close(dict.client);
        struct modus_client *client;
        assert_int_equal(modus_client_open(&client, &(struct modus_client_attr){.path = path}),
                         MODUS_CLOSED);
        start_server(true); /* over the dead one's path */
        dict = remote_of(MODUS_REMOTE_DICT, "dict");
        assert_int_equal(modus_remote_len(&dict), 0);
        modus_client_close(dict.client);
        if (with_child)
            end_grandchild();
        stop_server(true);
    }
}

/* One that does not answer in time is as good as gone, for whoever has lost patience. */
static void test_patience(void **state)
{
    struct modus_client *client, *other;
    (void)state;

    start_server(true);
    struct modus_client_attr attr = {.path = path, .patience = modus_ms(20)};
    while (modus_client_open(&client, &attr) != 0)
        ; /* the machine may be slow, too */
    other = connected();
    struct modus_remote dict = opened(other, MODUS_REMOTE_DICT, "d");
    struct modus_remote same = {client, dict.id};
    kill(server, SIGSTOP);
    AWAIT(state_of(server) == 'T');
    assert_int_equal(modus_remote_len(&same), MODUS_CLOSED);
    assert_false(modus_client_alive(client));
    struct modus_client *third;
    assert_int_equal(modus_client_open(&third, &attr), MODUS_CLOSED);
    kill(server, SIGCONT);
    assert_int_equal(modus_remote_len(&dict), 0);
    modus_client_close(client);
    modus_client_close(other);
    stop_server(true);
}

/* A server that may have fewer descriptors than it has goes on, and sleeps when there is nothing to
 * do. */
static void test_fewer_descriptors(void **state)
{
    struct rlimit limit, low;
    struct modus_client *clients[6];
    (void)state;

    start_server(true);
    for (int i = 0; i < 6; i++)
        clients[i] = connected();
    struct modus_remote first = opened(clients[0], MODUS_REMOTE_VALUE, "v");
    assert_int_equal(prlimit(server, RLIMIT_NOFILE, NULL, &limit), 0);
    low = (struct rlimit){5, limit.rlim_max};
    assert_int_equal(prlimit(server, RLIMIT_NOFILE, &low, NULL), 0);
    for (int i = 1; i <= 6; i++) {
        struct modus_remote remote = {clients[i - 1], first.id};
        int64_t n = 1;

        assert_int_equal(modus_remote_value_add(&remote, &n), 0);
        assert_int_equal(n, i);
    }
    await_idle(server, 100);
    for (int i = 0; i < 6; i++)
        modus_client_close(clients[i]);
    stop_server(true);
}

/* --- strangers ------------------------------------------------------------------------------- */

static int connect_raw(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, path, strlen(path));
    CHECK_INT(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Send it and read until the server hangs up or has answered. */
static ssize_t send_raw(const void *data, size_t size, struct modus_wire_reply *reply)
{
    int fd = connect_raw();

    CHECK_INT(send(fd, data, size, MSG_NOSIGNAL), (long)size);
    shutdown(fd, SHUT_WR);
    ssize_t n = recv(fd, reply, sizeof *reply, MSG_WAITALL);
    close(fd);
    return n;
}

static void test_garbage(void **state)
{
    struct modus_wire_request bad = {.version = MODUS_WIRE_VERSION, .verb = MODUS_WIRE_OPEN};
    struct modus_wire_reply reply;
    unsigned char noise[600];
    unsigned seed = 5;
    (void)state;

    start_server(false); /* in this process, so that the sanitizers look on */
    struct modus_remote dict = remote_of(MODUS_REMOTE_DICT, "dict");
    assert_int_equal(modus_remote_dict_put(&dict, modus_str("k"), modus_str("v")), 0);
    struct modus_wire_request wrong = bad;
    wrong.key_size = 1; /* more key than bytes */
    assert_true(send_raw(&wrong, sizeof wrong, &reply) <= 0);
    wrong = bad;
    wrong.size = UINT32_MAX;
    assert_true(send_raw(&wrong, sizeof wrong, &reply) <= 0);
    wrong = bad;
    wrong.verb = MODUS_WIRE_VERB_COUNT;
    assert_true(send_raw(&wrong, sizeof wrong, &reply) <= 0);
    wrong = bad;
    wrong.ns = INT64_MIN;
    assert_true(send_raw(&wrong, sizeof wrong, &reply) <= 0);
    wrong = bad;
    wrong.size = MESSAGE; /* announced, never sent */
    assert_true(send_raw(&wrong, sizeof wrong, &reply) <= 0);
    wrong = bad;
    wrong.version = 77;
    assert_int_equal(send_raw(&wrong, sizeof wrong, &reply), sizeof reply);
    assert_int_equal(reply.result, -EPROTO);
    wrong.version = 1; /* whose header is shorter */
    assert_int_equal(send_raw(&wrong, 40, &reply), sizeof reply);
    assert_int_equal(reply.result, -EPROTO);
    assert_int_equal(send_raw(&bad, sizeof bad, &reply), sizeof reply); /* no name */
    assert_int_equal(reply.result, -EINVAL);
    for (int round = 0; round < 2000; round++) {
        size_t size = (size_t)rand_r(&seed) % sizeof noise;

        for (size_t i = 0; i < size; i++)
            noise[i] = (unsigned char)rand_r(&seed);
        if (round % 4) { /* looks right, but for its numbers */
            struct modus_wire_request *request = (void *)noise;
            struct modus_wire_request made = {
                .size = (uint32_t)(size > sizeof made ? size - sizeof made : 0),
                .version = MODUS_WIRE_VERSION,
                .verb = (uint16_t)(rand_r(&seed) % MODUS_WIRE_VERB_COUNT),
                .object = rand_r(&seed) % 8 ? dict.id : (uint64_t)rand_r(&seed),
                .a = rand_r(&seed) % 6 - 2,
                .b = rand_r(&seed) % 4 ? rand_r(&seed) % 9 : (int64_t)rand_r(&seed) << 32,
            };
            made.key_size = made.size ? (uint32_t)rand_r(&seed) % (made.size + 1) : 0;
            if (made.verb == MODUS_WIRE_DROP)
                made.object = 0;
            memcpy(request, &made, sizeof made);
            size = sizeof made + made.size;
        }
        send_raw(noise, size, &reply);
        assert_true(modus_remote_len(&dict) >= 0);
    }
    modus_client_close(dict.client);
    stop_server(false);
}

/* Too large an announcement is the end, before anything of it comes. */
static void test_announces_too_much(void **state)
{
    struct modus_wire_request request = {.version = MODUS_WIRE_VERSION, .verb = MODUS_WIRE_OPEN};
    char got;
    (void)state;

    start_server(false);
    int fd = connect_raw();
    request.size = MESSAGE + 1;
    assert_int_equal(send(fd, &request, sizeof request, MSG_NOSIGNAL), sizeof request);
    assert_true(recv(fd, &got, 1, 0) <= 0);
    close(fd);
    stop_server(false);
}

/* More requests than answers are read: the server keeps one answer, and others do not notice. */
static void test_does_not_read(void **state)
{
    struct modus_wire_request request = {.version = MODUS_WIRE_VERSION, .b = 600000};
    (void)state;

    start_server(true);
    struct modus_remote list = remote_of(MODUS_REMOTE_LIST, "list");
    unsigned char *big = calloc(1, 400000);
    assert_int_equal(modus_remote_list_append(&list, modus_bytes(big, 400000)), 0);
    request.verb = MODUS_WIRE_GET;
    request.object = list.id;
    int fd = connect_raw();
    for (int sent = 0; sent < 100000; sent++) /* until no more goes in */
        if (send(fd, &request, sizeof request, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
    for (int i = 0; i < 100; i++)
        assert_int_equal(modus_remote_len(&list), 1);
    close(fd);
    assert_int_equal(modus_remote_len(&list), 1);
    free(big);
    modus_client_close(list.client);
    stop_server(true);
}

/* One waits, and has sent ahead what it wants afterwards: the server sleeps all the same, and does
 * all of it when it is time. */
static void test_sends_ahead(void **state)
{
    struct modus_wire_request request = {
        .version = MODUS_WIRE_VERSION, .verb = MODUS_WIRE_PULL, .b = 8, .ns = MODUS_FOREVER};
    struct modus_wire_reply reply;
    (void)state;

    start_server(true);
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");
    request.object = queue.id;
    struct modus_wire_request requests[500] = {request};
    request.verb = MODUS_WIRE_LEN;
    for (int i = 1; i < 500; i++)
        requests[i] = request;
    int fd = connect_raw();
    assert_int_equal(send(fd, requests, sizeof requests, MSG_NOSIGNAL), sizeof requests);
    for (int i = 0; i < 5; i++) {
        modus_remote_len(&queue);
        usleep(2000);
        AWAIT_ASLEEP(server);
    }
    assert_int_equal(modus_remote_queue_put(&queue, modus_str(""), 0), 0);
    for (int i = 0; i < 500; i++) {
        assert_int_equal(recv(fd, &reply, sizeof reply, MSG_WAITALL), sizeof reply);
        assert_int_equal(reply.result, 0);
    }
    close(fd);
    modus_client_close(queue.client);
    stop_server(true);
}

/* Take the item of a queue, and do not say that it has come. Returns the connection. */
static int pull_raw(const struct modus_remote *queue)
{
    struct modus_wire_request request = {
        .version = MODUS_WIRE_VERSION, .verb = MODUS_WIRE_PULL, .object = queue->id, .b = 8};
    struct modus_wire_reply reply;
    int fd = connect_raw(), n;

    CHECK_INT(send(fd, &request, sizeof request, MSG_NOSIGNAL), sizeof request);
    CHECK_INT(recv(fd, &reply, sizeof reply, MSG_WAITALL), sizeof reply);
    CHECK_INT(reply.size, sizeof n);
    CHECK_INT(recv(fd, &n, sizeof n, MSG_WAITALL), sizeof n);
    return fd;
}

/* The queue is closed, and its last item in the hands of one that may die: the others are not told
 * that there is nothing left before it has said that it has it. */
static void test_in_hands_at_the_end(void **state)
{
    struct modus_wire_request ack = {.version = MODUS_WIRE_VERSION, .verb = MODUS_WIRE_ACK};
    int n = 7;
    (void)state;

    start_server(true);
    struct modus_client *client = connected();
    for (int dies = 0; dies < 2; dies++) {
        struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "queue");

        assert_int_equal(modus_remote_queue_put(&queue, modus_bytes(&n, sizeof n), 0), 0);
        int fd = pull_raw(&queue);
        assert_int_equal(modus_remote_queue_close(&queue), 0);
        assert_int_equal(modus_remote_queue_get(&queue, &n, sizeof n, 0), MODUS_EMPTY);
        pid_t child = start_child(dies ? get_one : get_until_closed, NULL);
        await_sleepers(&child, 1, &queue);
        if (!dies)
            assert_int_equal(send(fd, &ack, sizeof ack, MSG_NOSIGNAL), sizeof ack);
        else
            shutdown(fd, SHUT_RDWR); /* the child has the descriptor, too */
        assert_int_equal(reap(child), dies ? 7 : 0);
        close(fd);
        long rc; /* empty until the server knows that the child has what it got */
        AWAIT((rc = modus_remote_queue_get(&queue, &n, sizeof n, 0)) != MODUS_EMPTY);
        assert_int_equal(rc, MODUS_CLOSED);
        assert_int_equal(modus_remote_drop(&queue), 0);
    }
    modus_client_close(client);
    stop_server(true);
}

/* As many as there may be; one more waits until one goes. */
static void test_too_many(void **state)
{
    struct modus_client *clients[CLIENTS], *more;
    struct modus_client_attr attr = {.path = path, .patience = modus_ms(30)};
    (void)state;

    start_server(true);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = connected();
    assert_int_equal(modus_client_open(&more, &attr), MODUS_CLOSED);
    modus_client_close(clients[0]);
    clients[0] = connected();
    for (int i = 0; i < CLIENTS; i++)
        modus_client_close(clients[i]);
    stop_server(true);
}

static int be_somebody_else(void *argument)
{
    struct modus_client *client;

    (void)argument;
    if (setgid(65534) < 0 || setuid(65534) < 0)
        return 99;
    return modus_client_open(&client, &(struct modus_client_attr){.path = path}) == -EACCES ? 1
           : modus_client_open(&client, &(struct modus_client_attr){.path = path}) == MODUS_CLOSED
               ? 2
               : 3;
}

static void test_other_user(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    start_server(true);
    assert_int_equal(chmod(directory, 0755), 0);
    assert_int_equal(reap(start_child(be_somebody_else, NULL)), 1);
    assert_int_equal(chmod(path, 0666), 0); /* even if the file lets it in */
    assert_int_equal(reap(start_child(be_somebody_else, NULL)), 2);
    modus_client_close(connected());
    stop_server(true);
}

/* --- chaos ----------------------------------------------------------------------------------- */

enum { WORKERS = 4, TOKENS = 3 };

static int work(void *argument)
{
    struct modus_client *client = connected();
    struct modus_remote dict = opened(client, MODUS_REMOTE_DICT, "dict");
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "tokens");
    struct modus_remote lock = opened(client, MODUS_REMOTE_LOCK, "lock");
    struct modus_remote list = opened(client, MODUS_REMOTE_LIST, "list");
    int token;

    (void)argument;
    for (;;) {
        atomic_fetch_add(&board->tries, 1);
        CHECK_INT(modus_remote_dict_update(&dict, modus_str("n"), sizeof(int), add_one, NULL), 0);
        atomic_fetch_add(&board->done, 1);
        long size = modus_remote_queue_get(&queue, &token, sizeof token, modus_ms(5));
        CHECK(size == sizeof token || size == -ETIMEDOUT);
        if (size > 0)
            CHECK_INT(
                modus_remote_queue_put(&queue, modus_bytes(&token, sizeof token), MODUS_FOREVER),
                0);
        int rc = modus_remote_lock_acquire(&lock, MODUS_FOREVER);
        CHECK(rc == 0 || rc == MODUS_OWNERDEAD);
        CHECK_INT(modus_remote_list_append(&list, modus_str("x")), 0);
        CHECK_INT(modus_remote_list_pop(&list, 0, &token, sizeof token), 1);
        CHECK_INT(modus_remote_lock_release(&lock), 0);
    }
}

static void test_chaos(void **state)
{
    const char *seconds = getenv("MODUS_CHAOS_SECONDS");
    int64_t until = modus_now_ns() + (int64_t)((seconds ? atof(seconds) : 1.5) * 1e9);
    pid_t workers[WORKERS];
    int kills = 0, n = 0;
    (void)state;

    start_server(true);
    struct modus_client *client = connected();
    struct modus_remote dict = opened(client, MODUS_REMOTE_DICT, "dict");
    struct modus_remote queue = opened(client, MODUS_REMOTE_QUEUE, "tokens");
    struct modus_remote lock = opened(client, MODUS_REMOTE_LOCK, "lock");
    atomic_store(&board->done, 0);
    atomic_store(&board->tries, 0);
    for (int i = 0; i < TOKENS; i++)
        CHECK_INT(modus_remote_queue_put(&queue, modus_bytes(&i, sizeof i), 0), 0);
    for (int i = 0; i < WORKERS; i++)
        workers[i] = start_child(work, NULL);
    for (; modus_now_ns() < until; kills++) {
        int i = (int)(random() % WORKERS);

        usleep(500 + (useconds_t)random() % 3000);
        kill_child(workers[i]);
        workers[i] = start_child(work, NULL);
    }
    for (int i = 0; i < WORKERS; i++)
        kill_child(workers[i]);
    int rc = modus_remote_lock_acquire(&lock, MODUS_FOREVER);
    assert_true(rc == 0 || rc == MODUS_OWNERDEAD);
    assert_int_equal(modus_remote_dict_get(&dict, modus_str("n"), &n, sizeof n, NULL), sizeof n);
    printf("chaos: manager, %d kills, %d added, %ld returned\n", kills, n,
           atomic_load(&board->done));
    assert_true(n >= atomic_load(&board->done) && n <= atomic_load(&board->tries));
    assert_true(modus_remote_len(&queue) <= TOKENS);
    modus_client_close(client);
    stop_server(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_client_killed),
        TEST(test_client_forks),
        TEST(test_server_killed),
        TEST(test_patience),
        TEST(test_fewer_descriptors),
        TEST(test_garbage),
        TEST(test_announces_too_much),
        TEST(test_does_not_read),
        TEST(test_sends_ahead),
        TEST(test_in_hands_at_the_end),
        TEST(test_too_many),
        TEST(test_other_user),
        TEST(test_chaos),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
