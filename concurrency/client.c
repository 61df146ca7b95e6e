/* SPDX-License-Identifier: MIT */
/*
 * The client's end of a connection: one request, one answer. Whatever breaks that order (a server
 * that is late, a coroutine that is cancelled) ends the connection, since nobody could tell any
 * more which answer belongs to which request; and the server puts right what was under way.
 */
#include "concurrency/client_priv.h"
#include "concurrency/fault.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/private_fd.h"
#include "concurrency/self.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE ((int64_t)30 * 1000000000)

enum { PAUSE_FIRST = 1000000, PAUSE_MAX = 50000000 }; /* ns */

struct modus_client {
    uint64_t stamp; /* of its process */
    int64_t patience;
    struct modus_lock lock; /* one call at a time */
    int fd;                 /* under lock */
    _Atomic bool alive;
    size_t message_bytes;
};

/* --- waiting --------------------------------------------------------------------------------- */

static int wait_until(int fd, int events, int64_t deadline)
{
    int rc = modus_park_fd(fd, events, deadline, NULL);

    return rc == -ETIMEDOUT ? MODUS_CLOSED : rc; /* late */
}

/* --- bytes ----------------------------------------------------------------------------------- */

static int send_all(struct modus_client *client, const void *data, size_t size, int64_t deadline)
{
    const unsigned char *at = data;

    while (size > 0) {
        ssize_t n = send(client->fd, at, size, MSG_NOSIGNAL);

        if (n > 0) {
            at += n;
            size -= (size_t)n;
        } else if (errno == EAGAIN) {
            int rc = wait_until(client->fd, POLLOUT, deadline);
            if (rc < 0)
                return rc;
        } else if (errno != EINTR) {
            return MODUS_CLOSED;
        }
    }
    return 0;
}

static int receive_all(struct modus_client *client, void *data, size_t size, int64_t deadline)
{
    unsigned char *at = data;

    while (size > 0) {
        ssize_t n = recv(client->fd, at, size, 0);

        if (n > 0) {
            at += n;
            size -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            int rc = wait_until(client->fd, POLLIN, deadline);
            if (rc < 0)
                return rc;
        } else if (n == 0 || errno != EINTR) {
            return MODUS_CLOSED;
        }
    }
    return 0;
}

/* --- a call ---------------------------------------------------------------------------------- */

/* Small requests go in one piece. */
static int ask(struct modus_client *client, struct modus_remote_call *call, int64_t deadline)
{
    unsigned char small[512];
    size_t head = sizeof call->request, size = call->key.size + call->value.size;

    call->request.version = MODUS_WIRE_VERSION;
    call->request.key_size = (uint32_t)call->key.size;
    call->request.size = (uint32_t)size;
    memcpy(small, &call->request, head);
    if (size <= sizeof small - head) {
        if (call->key.size)
            memcpy(small + head, call->key.data, call->key.size);
        if (call->value.size)
            memcpy(small + head + call->key.size, call->value.data, call->value.size);
        return send_all(client, small, head + size, deadline);
    }
    int rc = send_all(client, small, head, deadline);
    MODUS_FAULT(MODUS_FAULT_CLIENT_SENT);
    if (rc == 0)
        rc = send_all(client, call->key.data, call->key.size, deadline);
    if (rc == 0)
        rc = send_all(client, call->value.data, call->value.size, deadline);
    return rc;
}

static int receive_payload(struct modus_client *client, struct modus_remote_call *call,
                           int64_t deadline)
{
    size_t size = call->reply.size;
    void *memory = call->memory;

    if (call->snapshot) {
        call->snapshot->memory = memory = malloc(size ? size : 1);
        call->snapshot->size = size;
        if (!memory)
            return -ENOMEM;
    } else if (size > call->room) {
        return MODUS_CLOSED; /* it was told the room: this is no manager */
    }
    int rc = receive_all(client, memory, size, deadline);
    if (rc < 0 && call->snapshot)
        modus_snapshot_fini(call->snapshot);
    return rc;
}

static int acknowledge(struct modus_client *client, int64_t deadline)
{
    struct modus_wire_request ack = {.version = MODUS_WIRE_VERSION, .verb = MODUS_WIRE_ACK};

    return send_all(client, &ack, sizeof ack, deadline);
}

/* Returns a code when the connection is no good any more. */
static int exchange(struct modus_client *client, struct modus_remote_call *call, int64_t deadline)
{
    MODUS_FAULT(MODUS_FAULT_CLIENT_CALLS);
    int rc = ask(client, call, deadline);
    MODUS_FAULT(MODUS_FAULT_CLIENT_ASKED);
    if (rc == 0)
        rc = receive_all(client, &call->reply, sizeof call->reply, deadline);
    if (rc < 0)
        return rc;
    if (call->reply.version != MODUS_WIRE_VERSION)
        return -EPROTO;
    if (call->reply.result == 0 && (call->snapshot || call->reply.size > 0))
        rc = receive_payload(client, call, deadline);
    MODUS_FAULT(MODUS_FAULT_CLIENT_ANSWERED);
    if (rc == 0 && call->request.verb == MODUS_WIRE_PULL && call->reply.result == 0)
        acknowledge(client, deadline);
    return rc;
}

static void disconnect(struct modus_client *client)
{
    atomic_store(&client->alive, false);
    modus_private_fd_close(client->fd);
    client->fd = -1;
}

int modus_client_call(struct modus_client *client, struct modus_remote_call *call)
{
    if (!client || call->request.ns < MODUS_FOREVER)
        return -EINVAL;
    if (client->stamp != modus_self_stamp())
        return -ECHILD;
    if (call->key.size > client->message_bytes ||
        call->value.size > client->message_bytes - call->key.size)
        return -ERANGE;
    int64_t deadline = MODUS_FOREVER, ns = call->request.ns;
    if (ns != MODUS_FOREVER && client->patience != MODUS_FOREVER)
        deadline =
            modus_deadline(ns > INT64_MAX - client->patience ? INT64_MAX : ns + client->patience);
    int rc = modus_lock_acquire(&client->lock, MODUS_FOREVER);
    if (rc < 0)
        return rc;
    rc = client->fd < 0 ? MODUS_CLOSED : exchange(client, call, deadline);
    if (rc < 0)
        disconnect(client);
    modus_lock_release(&client->lock);
    return rc < 0 ? rc : call->reply.result;
}

/* --- opening --------------------------------------------------------------------------------- */

static int64_t patience_of(const struct modus_client *client)
{
    return client->patience == MODUS_FOREVER ? PATIENCE : client->patience;
}

/* Sleep for a while. Returns 0, or why the caller can't go on. */
static int pause_for(int64_t ns, int64_t deadline)
{
    _Atomic uint32_t nobody_changes_it = 0;
    int64_t end = modus_deadline(ns);

    if (modus_now_ns() >= deadline)
        return MODUS_CLOSED;
    end = end < deadline ? end : deadline;
    int rc = modus_park(MODUS_THREAD, &nobody_changes_it, 0, end, NULL);
    if (rc == -ETIMEDOUT) /* a coroutine's own deadline may have been earlier */
        rc = modus_now_ns() < end ? MODUS_CLOSED : 0;
    return rc;
}

/* A server that does not accept leaves no room in the line before it. Nothing tells when there is some
 * again, so look, ever less often. To let connect wait would be to wait for as long as the kernel likes:
 * its send timeout begins anew with every signal, and holds up a coroutine's thread. */
static int connect_to(struct modus_client *client, const struct sockaddr_un *path, int64_t deadline)
{
    struct ucred server;
    socklen_t size = sizeof server;

    for (int64_t ns = PAUSE_FIRST;
         connect(client->fd, (const struct sockaddr *)path, sizeof *path) < 0;
         ns = 2 * ns < PAUSE_MAX ? 2 * ns : PAUSE_MAX) {
        if (errno == EACCES || errno == EPERM)
            return -EACCES;
        int rc = errno == EAGAIN ? pause_for(ns, deadline) : errno == EINTR ? 0 : MODUS_CLOSED;
        if (rc < 0)
            return rc;
    }
    if (getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &server, &size) < 0 ||
        (server.uid != geteuid() && server.uid != 0))
        return -EACCES;
    return 0;
}

static int greet(struct modus_client *client, int64_t deadline)
{
    struct modus_remote_call call = {.request = {.verb = MODUS_WIRE_HELLO}};
    int rc = exchange(client, &call, deadline);

    if (rc == 0)
        rc = call.reply.result;
    client->message_bytes = (size_t)call.reply.number;
    return rc;
}

int modus_client_open(struct modus_client **out, const struct modus_client_attr *attr)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};

    if (!attr->path || strlen(attr->path) >= sizeof path.sun_path || attr->patience < MODUS_FOREVER)
        return -EINVAL;
    memcpy(path.sun_path, attr->path, strlen(attr->path));
    struct modus_client *client = calloc(1, sizeof *client);
    if (!client)
        return -ENOMEM;
    client->stamp = modus_self_stamp();
    client->patience = attr->patience ? attr->patience : PATIENCE;
    modus_lock_init(&client->lock, MODUS_THREAD);
    modus_private_fd_begin();
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = client->fd < 0 ? -ENOMEM : 0;
    if (modus_private_fd_end(client->fd) < 0) {
        client->fd = -1;
        rc = -ENOMEM;
    }
    int64_t deadline = modus_deadline(patience_of(client));
    if (rc == 0)
        rc = connect_to(client, &path, deadline);
    if (rc == 0)
        rc = greet(client, deadline);
    if (rc < 0) {
        modus_client_close(client);
        return rc;
    }
    atomic_store(&client->alive, true);
    *out = client;
    return 0;
}

void modus_client_close(struct modus_client *client)
{
    if (!client)
        return;
    if (client->stamp == modus_self_stamp())
        disconnect(client);
    free(client);
}

bool modus_client_alive(const struct modus_client *client)
{
    return client->stamp == modus_self_stamp() && atomic_load(&client->alive);
}
