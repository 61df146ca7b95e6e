/* SPDX-License-Identifier: MIT */
/* What the tests of the manager share: a server in a thread or a process of its own, clients, and
 * children that wait in them. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_MANAGER_H
#define TESTS_UNIT_TEST_CONCURRENCY_MANAGER_H

#include "test_concurrency_left.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "concurrency/coroutine.h"
#include "concurrency/fault.h"
#include "concurrency/manager.h"
#include "concurrency/manager_wire.h"
#include "concurrency/remote.h"

enum { CLIENTS = 32, OBJECTS = 16, MESSAGE = 1 << 20 };

static char directory[32], path[64];

/* What children tell their parent. */
struct board {
    _Atomic int ready, go, grandchild;
    _Atomic long done, tries;
};

static struct board *board;

/* --- the server ------------------------------------------------------------------------------ */

static struct modus_manager *manager;
static pthread_t server_thread;
static pid_t server;

static inline void *serve_thread(void *argument)
{
    CHECK_INT(modus_manager_serve(argument), 0);
    return NULL;
}

static inline int serve(void *argument)
{
    CHECK_INT(modus_manager_serve(argument), 0);
    modus_manager_close(argument);
    return 0;
}

static const struct modus_manager_attr usual = {.path = path,
                                                .clients = CLIENTS,
                                                .objects = OBJECTS,
                                                .object_bytes = 1 << 20,
                                                .message_bytes = MESSAGE};

static inline void start_server(bool process)
{
    atomic_store(&board->go, 0);
    atomic_store(&board->ready, 0);
    CHECK_INT(modus_manager_open(&manager, &usual), 0);
    if (process)
        server = start_child(serve, manager);
    else
        server_thread = start_thread(serve_thread, manager);
}

static inline void stop_server(bool process)
{
    modus_manager_stop(manager);
    if (process)
        CHECK_INT(reap(server), 0);
    else
        join_thread(server_thread);
    modus_manager_close(manager);
    CHECK(access(path, F_OK) < 0);
}

static inline struct modus_client *connected(void)
{
    struct modus_client *client;

    CHECK_INT(modus_client_open(&client, &(struct modus_client_attr){.path = path}), 0);
    return client;
}

static inline struct modus_remote opened(struct modus_client *client, enum modus_remote_kind kind,
                                         const char *name)
{
    struct modus_remote remote;

    CHECK_INT(modus_remote_open(&remote, client, kind, name, kind == MODUS_REMOTE_QUEUE ? 3 : 0),
              0);
    return remote;
}

/* A client with one object, for a child. */
static inline struct modus_remote remote_of(enum modus_remote_kind kind, const char *name)
{
    return opened(connected(), kind, name);
}

/* --- children -------------------------------------------------------------------------------- */

static inline long add_one(void *context, void *value, long size, size_t room)
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

static inline int get_one(void *argument)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");
    int n = 0;

    (void)argument;
    atomic_fetch_add(&board->ready, 1);
    if (modus_remote_queue_get(&queue, &n, sizeof n, MODUS_FOREVER) != sizeof n)
        return 100;
    modus_client_close(queue.client);
    return n;
}

static inline int get_until_closed(void *argument)
{
    struct modus_remote queue = remote_of(MODUS_REMOTE_QUEUE, "queue");
    int n;

    (void)argument;
    atomic_fetch_add(&board->ready, 1);
    return modus_remote_queue_get(&queue, &n, sizeof n, MODUS_FOREVER) == MODUS_CLOSED ? 0 : 1;
}

/* Wait until n children say that they are about to wait, and sleep, and until the server has seen
 * what they want: it has when it has answered one that asked after them. */
static inline void await_sleepers(const pid_t *children, int n, struct modus_remote *remote)
{
    AWAIT(atomic_load(&board->ready) == n);
    for (int i = 0; i < n; i++)
        AWAIT_ASLEEP(children[i]);
    modus_remote_len(remote);
    atomic_store(&board->ready, 0);
}

/* --- set-up ---------------------------------------------------------------------------------- */

static unsigned fds_before;

static inline int do_nothing(void *argument)
{
    (void)argument;
    return 0;
}

static inline int set_up(void **state)
{
    (void)state;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    strcpy(directory, "/tmp/modus-test-XXXXXX");
    if (board == MAP_FAILED || !mkdtemp(directory))
        return -1;
    snprintf(path, sizeof path, "%s/socket", directory);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    modus_co_run(do_nothing, NULL); /* libuv keeps a pipe from then on */
    fds_before = fds_here();
    return 0;
}

/* Nothing is left: no path, no descriptor. */
static inline int tear_down(void **state)
{
    (void)state;
    CHECK_INT(fds_here(), fds_before);
    return rmdir(directory);
}

#define TEST(name) cmocka_unit_test_setup(name, watchdog)

#endif
