/* SPDX-License-Identifier: MIT */
/*
 * The server: one thread, one epoll, all connections. (A poll of more descriptors than the process may
 * have by now, because its limit was lowered, is refused; an epoll is not.) A turn reads what has come, does at most one
 * request of each connection after the other until none is left, answers those whose time is over,
 * and buries the dead. It never waits for a client: what a client does not read stays in its
 * buffer, and no other request of it is looked at before that is empty. So a client costs at most
 * one request and one reply.
 *
 * A request that waits stays where it is in its connection's buffer, and is tried again from there.
 */
#include "concurrency/manager.h"
#include "concurrency/manager_priv.h"
#include "concurrency/private_fd.h"
#include "concurrency/self.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { CLIENTS = 256, OBJECTS = 1024, BUFFER = 4096, BUFFER_KEPT = 65536, PAUSE_NS = 100000000 };

#define OBJECT_BYTES  ((size_t)64 << 20)
#define MESSAGE_BYTES ((size_t)16 << 20)
#define MESSAGE_MAX   ((size_t)1 << 30)

enum { OPENED, SERVING, SERVED };

/* What all processes have in common that have the manager. */
struct shared {
    _Atomic uint32_t state;
    _Atomic bool stopped;
};

struct modus_manager {
    struct shared *shared;
    struct sockaddr_un path;
    dev_t device; /* the path, as it was bound */
    ino_t inode;
    int listener, wake;
    uint64_t server; /* stamp of the process that serves, as far as this one knows */
    struct modus_manager_objects objects;
    struct modus_conn **conns;
    unsigned count, max;
    int epoll;
    bool accepts;              /* the epoll looks at the listener */
    struct epoll_event *found; /* wake, listener, conns */
    int64_t pause_until;       /* no accept before that: there were no descriptors */
};

/* --- connections ----------------------------------------------------------------------------- */

static bool make_room(unsigned char **buffer, size_t *size, size_t wanted)
{
    if (wanted <= *size)
        return true;
    unsigned char *larger = realloc(*buffer, wanted);
    if (!larger)
        return false;
    *buffer = larger;
    *size = wanted;
    return true;
}

/* Do not keep for ever what one large message took. */
static void shrink(unsigned char **buffer, size_t *size)
{
    if (*size <= BUFFER_KEPT)
        return;
    free(*buffer);
    *buffer = NULL;
    *size = 0;
}

unsigned char *modus_conn_payload(struct modus_conn *conn, size_t size)
{
    size_t header = sizeof(struct modus_wire_reply);

    return make_room(&conn->out, &conn->out_size, header + size) ? conn->out + header : NULL;
}

static void flush(struct modus_conn *conn)
{
    while (conn->out_sent < conn->out_used) {
        ssize_t n = send(conn->fd, conn->out + conn->out_sent, conn->out_used - conn->out_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            conn->dead = true;
            return;
        }
        conn->out_sent += (size_t)n;
    }
    conn->out_used = conn->out_sent = 0;
    shrink(&conn->out, &conn->out_size);
    if (conn->leaving)
        conn->dead = true;
}

/* Look at the request that begins in's bytes. Returns 1 when it is complete, 0 when not yet, -1
 * when it is none. */
static int parse(const struct modus_manager *manager, struct modus_conn *conn,
                 struct modus_wire_request *request)
{
    size_t known = offsetof(struct modus_wire_request, verb); /* of whatever version */

    if (conn->in_used < known)
        return 0;
    memcpy(request, conn->in, known);
    if (request->version != MODUS_WIRE_VERSION)
        return 1;
    if (conn->in_used < sizeof *request)
        return 0;
    memcpy(request, conn->in, sizeof *request);
    if (request->size > manager->objects.limits.message_bytes ||
        request->key_size > request->size || request->verb >= MODUS_WIRE_VERB_COUNT ||
        request->ns < MODUS_FOREVER)
        return -1;
    if (conn->in_used - sizeof *request >= request->size)
        return 1;
    return make_room(&conn->in, &conn->in_size, sizeof *request + request->size) ? 0 : -1;
}

static void receive(struct modus_conn *conn)
{
    if (!make_room(&conn->in, &conn->in_size, BUFFER)) {
        conn->dead = true;
        return;
    }
    if (conn->in_used == conn->in_size)
        return;
    ssize_t n =
        recv(conn->fd, conn->in + conn->in_used, conn->in_size - conn->in_used, MSG_DONTWAIT);
    if (n > 0)
        conn->in_used += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        conn->dead = true;
}

/* The request is through. */
static void consume(struct modus_conn *conn, const struct modus_wire_request *request)
{
    size_t size = sizeof *request + request->size;

    if (size > conn->in_used)
        size = conn->in_used; /* another version's is shorter */
    conn->in_used -= size;
    memmove(conn->in, conn->in + size, conn->in_used);
    if (conn->in_used == 0)
        shrink(&conn->in, &conn->in_size);
}

static void answer(struct modus_conn *conn, struct modus_turn *turn, int result)
{
    if (result < 0)
        turn->reply.size = 0;
    turn->reply.version = MODUS_WIRE_VERSION;
    turn->reply.result = result;
    if (!modus_conn_payload(conn, 0)) {
        conn->dead = true;
        return;
    }
    memcpy(conn->out, &turn->reply, sizeof turn->reply);
    conn->out_used = sizeof turn->reply + turn->reply.size;
    conn->out_sent = 0;
    consume(conn, &turn->request);
    flush(conn);
}

/* --- waiting --------------------------------------------------------------------------------- */

static void start_waiting(struct modus_conn *conn, struct modus_object *object, int64_t ns)
{
    conn->waits_for = object;
    conn->deadline = modus_deadline(ns);
    conn->next = NULL;
    *object->last = conn;
    object->last = &conn->next;
}

/* Returns for what it waited: whoever is behind it may go on. */
static struct modus_object *stop_waiting(struct modus_conn *conn)
{
    struct modus_object *object = conn->waits_for;

    if (!object)
        return NULL;
    struct modus_conn **at = &object->first;
    while (*at != conn)
        at = &(*at)->next;
    *at = conn->next;
    if (!*at)
        object->last = at;
    conn->waits_for = NULL;
    return object;
}

static void begin_turn(const struct modus_manager *manager, struct modus_conn *conn,
                       struct modus_turn *turn)
{
    *turn = (struct modus_turn){.conn = conn};
    parse(manager, conn, &turn->request);
    turn->key = modus_bytes(conn->in + sizeof turn->request, turn->request.key_size);
    turn->value = modus_bytes((const unsigned char *)turn->key.data + turn->key.size,
                              turn->request.size - turn->request.key_size);
}

/* Try those again who wait for the object, the longest waiting first, while it helps. */
static void changed(void *context, struct modus_object *object)
{
    struct modus_manager *manager = context;
    struct modus_conn *conn;

    while ((conn = object->first) != NULL) {
        struct modus_turn turn;

        if (conn->dead) { /* seen in this turn, not yet buried: nothing for it */
            stop_waiting(conn);
            continue;
        }
        begin_turn(manager, conn, &turn);
        int rc = modus_objects_do(&manager->objects, &turn);
        if (rc == MODUS_TURN_WAIT)
            return;
        stop_waiting(conn);
        answer(conn, &turn, rc);
    }
}

/* --- a turn ---------------------------------------------------------------------------------- */

/* Returns whether a request was done, or begun. */
static bool do_one(struct modus_manager *manager, struct modus_conn *conn)
{
    struct modus_turn turn;

    if (conn->dead || conn->leaving || conn->waits_for || conn->out_used > 0)
        return false;
    int complete = parse(manager, conn, &turn.request);
    if (complete < 0)
        conn->dead = true;
    if (complete <= 0)
        return false;
    if (turn.request.version != MODUS_WIRE_VERSION) {
        turn = (struct modus_turn){.conn = conn, .request = {.size = 0}};
        conn->leaving = true;
        answer(conn, &turn, -EPROTO);
        return true;
    }
    /* ACK or not: who goes on has got it. */
    struct modus_object *from = modus_objects_acknowledge(&manager->objects, conn);
    if (from)
        changed(manager, from);
    begin_turn(manager, conn, &turn);
    if (turn.request.verb == MODUS_WIRE_ACK) {
        consume(conn, &turn.request);
        return true;
    }
    int rc = modus_objects_do(&manager->objects, &turn);
    if (rc == MODUS_TURN_WAIT) {
        start_waiting(conn, turn.changed, turn.request.ns);
        return true;
    }
    if (rc == 0 && turn.request.verb == MODUS_WIRE_HELLO)
        turn.reply.number = (int64_t)manager->objects.limits.message_bytes;
    answer(conn, &turn, rc);
    if (rc == 0 && turn.changed)
        changed(manager, turn.changed);
    if (rc == 0 && turn.request.verb == MODUS_WIRE_DROP)
        modus_object_free(&manager->objects, turn.changed);
    return true;
}

static void expire(struct modus_manager *manager)
{
    int64_t now = 0;

    for (unsigned i = 0; i < manager->count; i++) {
        struct modus_conn *conn = manager->conns[i];
        struct modus_turn turn;

        if (!conn->waits_for || conn->deadline == MODUS_FOREVER)
            continue;
        now = now ? now : modus_now_ns();
        if (conn->deadline > now)
            continue;
        struct modus_object *object = stop_waiting(conn);
        begin_turn(manager, conn, &turn);
        answer(conn, &turn, -ETIMEDOUT);
        changed(manager, object);
    }
}

/* Ask the epoll about a descriptor, from now on (EPOLL_CTL_ADD), in another way (_MOD) or no more
 * (_DEL). An event carries mark. */
static int ask(struct modus_manager *manager, int how, int fd, uint32_t events, void *mark)
{
    struct epoll_event event = {.events = events, .data.ptr = mark};

    return epoll_ctl(manager->epoll, how, fd, &event) < 0 ? -ENOMEM : 0;
}

static void free_conn(struct modus_manager *manager, struct modus_conn *conn)
{
    ask(manager, EPOLL_CTL_DEL, conn->fd, 0,
        NULL); /* a child without our fork handlers may have it */
    modus_private_fd_close(conn->fd);
    free(conn->in);
    free(conn->out);
    free(conn->item);
    free(conn);
}

/* Let go of the dead; their death may be good news for others, who may turn out to be dead too.
 * Returns whether there were any. */
static bool bury(struct modus_manager *manager)
{
    bool any = false;

    for (unsigned i = 0; i < manager->count;) {
        struct modus_conn *conn = manager->conns[i];

        if (!conn->dead) {
            i++;
            continue;
        }
        struct modus_object *object = stop_waiting(conn);
        manager->conns[i] = manager->conns[--manager->count];
        if (object)
            changed(manager, object);
        modus_objects_forget(&manager->objects, conn, changed, manager);
        free_conn(manager, conn);
        manager->pause_until = 0;
        i = 0;
        any = true;
    }
    return any;
}

static bool is_ours(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

/* Returns false when there is nobody more. */
static bool accept_one(struct modus_manager *manager)
{
    modus_private_fd_begin();
    int fd = accept4(manager->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int error = errno;
    if (modus_private_fd_end(fd) < 0)
        return false;
    if (fd < 0) {
        if (error != EAGAIN && error != EINTR && error != ECONNABORTED)
            manager->pause_until = modus_now_ns() + PAUSE_NS;
        return error == EINTR || error == ECONNABORTED;
    }
    struct modus_conn *conn = is_ours(fd) ? calloc(1, sizeof *conn) : NULL;
    if (!conn || ask(manager, EPOLL_CTL_ADD, fd, EPOLLIN, conn) < 0) {
        free(conn);
        modus_private_fd_close(fd);
        return true;
    }
    conn->fd = fd;
    conn->asked = EPOLLIN;
    manager->conns[manager->count++] = conn;
    return true;
}

/* What the epoll is asked about a connection: who waits, or has not read its answer, is not read. */
static uint32_t events_of(const struct modus_conn *conn)
{
    if (conn->out_used > 0)
        return EPOLLOUT | EPOLLRDHUP;
    return conn->waits_for ? EPOLLRDHUP : EPOLLIN;
}

static int timeout_of(const struct modus_manager *manager)
{
    int64_t first = manager->pause_until ? manager->pause_until : INT64_MAX;

    for (unsigned i = 0; i < manager->count; i++) {
        const struct modus_conn *conn = manager->conns[i];

        if (conn->waits_for && conn->deadline != MODUS_FOREVER && conn->deadline < first)
            first = conn->deadline;
    }
    if (first == INT64_MAX)
        return -1;
    int64_t ms = (first - modus_now_ns() + 999999) / 1000000;
    return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : (int)ms;
}

/* Wait until somebody wants something. Returns how many entries of found are valid. */
static int wait_for_events(struct modus_manager *manager)
{
    if (manager->pause_until && manager->pause_until <= modus_now_ns())
        manager->pause_until = 0;
    bool accepts = manager->count < manager->max && !manager->pause_until;
    if (accepts != manager->accepts && ask(manager, EPOLL_CTL_MOD, manager->listener,
                                           accepts ? EPOLLIN : 0, &manager->listener) == 0)
        manager->accepts = accepts;
    for (unsigned i = 0; i < manager->count; i++) {
        struct modus_conn *conn = manager->conns[i];
        uint32_t events = events_of(conn);

        if (events != conn->asked && ask(manager, EPOLL_CTL_MOD, conn->fd, events, conn) == 0)
            conn->asked = events;
    }
    int n = epoll_wait(manager->epoll, manager->found, (int)manager->max + 2, timeout_of(manager));
    return n < 0 ? 0 : n;
}

static void take_events(struct modus_conn *conn, uint32_t events)
{
    if (conn->out_used > 0 && (events & EPOLLOUT))
        flush(conn);
    else if (!conn->waits_for && conn->out_used == 0)
        receive(conn);
    else if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        conn->dead = true;
}

/* Returns false when it is to stop. */
static bool take_turn(struct modus_manager *manager)
{
    int n = wait_for_events(manager);
    bool knocks = false;

    for (int i = 0; i < n; i++) {
        void *mark = manager->found[i].data.ptr;

        if (mark == &manager->wake)
            return false;
        if (mark == &manager->listener)
            knocks = true;
        else
            take_events(mark, manager->found[i].events);
    }
    while (knocks && manager->count < manager->max)
        knocks = accept_one(manager);
    expire(manager);
    for (bool more = true; more;) {
        more = false;
        for (unsigned i = 0; i < manager->count; i++)
            more |= do_one(manager, manager->conns[i]);
        more |= bury(manager);
    }
    return true;
}

static int begin_service(struct modus_manager *manager)
{
    manager->conns = calloc(manager->max, sizeof *manager->conns);
    manager->found = calloc(manager->max + 2, sizeof *manager->found);
    manager->objects.table = calloc(manager->objects.max, sizeof *manager->objects.table);
    modus_private_fd_begin();
    int rc = modus_private_fd_end(manager->listener);
    if (rc < 0)
        manager->listener = -1;
    modus_private_fd_begin();
    manager->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (modus_private_fd_end(manager->epoll) < 0)
        manager->epoll = -1;
    if (rc < 0 || !manager->conns || !manager->found || !manager->objects.table ||
        manager->epoll < 0 ||
        ask(manager, EPOLL_CTL_ADD, manager->wake, EPOLLIN, &manager->wake) < 0 ||
        ask(manager, EPOLL_CTL_ADD, manager->listener, EPOLLIN, &manager->listener) < 0)
        return -ENOMEM;
    manager->accepts = true;
    return 0;
}

/* Unless it is another server's by now. */
static void remove_path(const struct modus_manager *manager)
{
    struct stat now;

    if (lstat(manager->path.sun_path, &now) == 0 && now.st_dev == manager->device &&
        now.st_ino == manager->inode)
        unlink(manager->path.sun_path);
}

static void end_service(struct modus_manager *manager)
{
    while (manager->count > 0)
        free_conn(manager, manager->conns[--manager->count]);
    modus_objects_fini(&manager->objects);
    remove_path(manager);
    modus_private_fd_close(manager->listener);
    manager->listener = -1;
    modus_private_fd_close(manager->epoll);
    manager->epoll = -1;
    free(manager->conns);
    free(manager->found);
    manager->conns = NULL;
    manager->found = NULL;
    atomic_store(&manager->shared->state, SERVED);
}

int modus_manager_serve(struct modus_manager *manager)
{
    uint32_t state = OPENED;

    if (!atomic_compare_exchange_strong(&manager->shared->state, &state, SERVING))
        return -EALREADY;
    manager->server = modus_self_stamp();
    int rc = begin_service(manager);
    while (rc == 0 && take_turn(manager))
        ;
    end_service(manager);
    return rc;
}

void modus_manager_stop(struct modus_manager *manager)
{
    int saved = errno;

    if (!manager)
        return;
    atomic_store(&manager->shared->stopped, true);
    if (write(manager->wake, &(uint64_t){1}, sizeof(uint64_t)) < 0)
        errno = saved; /* full: it has been told more often than it can count */
    errno = saved;
}

/* --- opening --------------------------------------------------------------------------------- */

static bool valid(const struct modus_manager_attr *attr)
{
    return attr->path && attr->path[0] &&
           strlen(attr->path) < sizeof((struct sockaddr_un *)0)->sun_path &&
           attr->clients <= 65535 && attr->objects <= 65535 && attr->message_bytes <= MESSAGE_MAX &&
           (attr->object_bytes == 0 || (attr->object_bytes >= MODUS_STORE_BYTES_MIN &&
                                        attr->object_bytes <= MODUS_STORE_BYTES_MAX));
}

static void set_limits(struct modus_manager *manager, const struct modus_manager_attr *attr)
{
    manager->max = attr->clients ? attr->clients : CLIENTS;
    manager->objects.max = attr->objects ? attr->objects : OBJECTS;
    manager->objects.limits.object_bytes = attr->object_bytes ? attr->object_bytes : OBJECT_BYTES;
    manager->objects.limits.message_bytes =
        attr->message_bytes ? attr->message_bytes : MESSAGE_BYTES;
}

int modus_manager_open(struct modus_manager **out, const struct modus_manager_attr *attr)
{
    if (!valid(attr))
        return -EINVAL;
    struct modus_manager *manager = calloc(1, sizeof *manager);
    if (!manager)
        return -ENOMEM;
    set_limits(manager, attr);
    manager->path.sun_family = AF_UNIX;
    memcpy(manager->path.sun_path, attr->path, strlen(attr->path));
    manager->listener = -1;
    manager->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    void *page = mmap(NULL, sizeof *manager->shared, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    manager->shared = page == MAP_FAILED ? NULL : page;
    int rc = -ENOMEM;
    if (manager->wake >= 0 && manager->shared)
        rc = manager->listener = modus_manager_listen(&manager->path);
    if (rc < 0) {
        if (manager->shared)
            atomic_store(&manager->shared->state, SERVED); /* the path is not ours */
        modus_manager_close(manager);
        return rc;
    }
    struct stat bound;
    if (lstat(manager->path.sun_path, &bound) == 0) {
        manager->device = bound.st_dev;
        manager->inode = bound.st_ino;
    }
    *out = manager;
    return 0;
}

void modus_manager_close(struct modus_manager *manager)
{
    uint32_t state = OPENED;

    if (!manager)
        return;
    if (manager->shared && atomic_load(&manager->shared->stopped) &&
        atomic_compare_exchange_strong(&manager->shared->state, &state, SERVED))
        remove_path(manager);
    /* In a child of the process that serves, it is closed already. */
    if (manager->listener >= 0 && manager->server == 0)
        close(manager->listener);
    if (manager->wake >= 0)
        close(manager->wake);
    if (manager->shared)
        munmap(manager->shared, sizeof *manager->shared);
    free(manager);
}
