/* SPDX-License-Identifier: MIT */
/*
 * Receiving messages that come in packets.
 *
 * The receiver looks at a header before it takes the packet (MSG_PEEK), so what does not fit stays
 * where it is, and decides:
 *
 *     the part that comes next of the message in hand     take it
 *     a first part                                        the one in hand was given up by its
 *                                                         sender: drop it, begin this one
 *     any other part                                      of a message that was begun by somebody
 *                                                         else: throw it away
 *
 * The last case is a loss. With a lock only the death of a receiver leads there; without one it is
 * told, once a message, since two senders at a time are the likelier reason.
 *
 * What a receiver has of a message when its time is over is put by, in memory that whoever goes on
 * can see. While it receives, a message is built where it will be in the end. A packet that is taken
 * without asking for its descriptors has them closed by the kernel.
 */
#include "concurrency/fault.h"
#include "concurrency/pipe.h"
#include "concurrency/pipe_priv.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool valid(const struct pipe_header *header, size_t length)
{
    return length >= sizeof *header && header->size == length - sizeof *header &&
           header->offset <= header->total && header->size <= header->total - header->offset &&
           (header->size > 0 || header->total == 0) && header->fds <= MODUS_PIPE_FDS_MAX;
}

/* Throw the next packet away. */
static void discard(struct modus_pipe *end)
{
    char byte;

    while (recv(end->fd, &byte, 1, MSG_DONTWAIT) < 0 && (errno == EINTR || errno == ECONNRESET))
        continue;
}

/* Wait for a packet and read its header, without taking it. */
static int look(struct modus_pipe *end, struct pipe_header *header, int64_t deadline)
{
    for (int rc = 0; rc == 0;) {
        ssize_t length = recv(end->fd, header, sizeof *header, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);

        if (length == 0)
            return MODUS_CLOSED;
        if (length > 0 && valid(header, (size_t)length))
            return 0;
        if (length > 0) {
            discard(end);
            return MODUS_BROKEN; /* somebody wrote to the descriptor */
        }
        if (errno == EAGAIN)
            rc = modus_pipe_wait(end, POLLIN, deadline);
        else if (errno != EINTR && errno != ECONNRESET) /* that is told once, before what is left */
            return -ENOMEM;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Hand over what has come, close what is too much, mark what could not come. */
static void detach(struct msghdr *msg, const struct pipe_header *header,
                   struct modus_pipe_message *message)
{
    unsigned came = 0;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
            if (came < message->fd_count)
                message->fds[came++] = fd;
            else
                close(fd);
        }
    }
    while (came < header->fds && came < message->fd_count)
        message->fds[came++] = -1;
}

/* Take the packet that was looked at. */
static int take(struct modus_pipe *end, const struct pipe_header *header, unsigned char *to,
                struct modus_pipe_message *message)
{
    union pipe_control control;
    struct pipe_header again = {0};
    struct iovec parts[2] = {
        {.iov_base = &again, .iov_len = sizeof again},
        {.iov_base = to, .iov_len = header->size},
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = header->size ? 2 : 1};
    ssize_t length;

    if (pipe_is_last(header) && header->fds > 0 && message->fd_count > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
    }
    do
        length = recvmsg(end->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (length < 0 && (errno == EINTR || errno == ECONNRESET));
    if (length > 0 && pipe_is_last(header))
        detach(&msg, header, message);
    /* Another one has taken it: two receivers without a lock. */
    return length > 0 && pipe_same(&again.id, &header->id) && again.offset == header->offset
               ? 0
               : MODUS_BROKEN;
}

/* Have memory for a message of that size. */
static int provide(struct modus_pipe_message *message, size_t total, unsigned char **data)
{
    if (message->data && total > message->size) {
        message->size = total;
        return -EMSGSIZE;
    }
    *data = message->data ? message->data : malloc(total ? total : 1);
    return *data ? 0 : -ENOMEM;
}

static void drop(struct pipe_assembly *assembly, const struct modus_pipe_message *message)
{
    if (assembly->begun && !message->data)
        free(assembly->data);
    assembly->begun = false;
}

/* Begin the message whose first part has come. Out of a failure it stays there. */
static int begin(struct pipe_assembly *assembly, struct modus_pipe_message *message,
                 const struct pipe_header *header)
{
    drop(assembly, message);
    *assembly = (struct pipe_assembly){.id = header->id, .total = header->total};
    int rc = provide(message, header->total, &assembly->data);
    assembly->begun = rc == 0;
    return rc;
}

/* Is that the part that comes next of this one? */
static bool continues(const struct pipe_assembly *assembly, const struct pipe_header *header)
{
    return pipe_same(&assembly->id, &header->id) && assembly->got == header->offset;
}

static void forget(struct modus_pipe_shared *shared)
{
    if (atomic_exchange(&shared->has_put_by, false))
        modus_pipe_free(shared, shared->put_by.data, shared->put_by.total);
}

/* Go on with what was put by. Out of a failure it stays so. */
static int take_up(struct modus_pipe_shared *shared, struct pipe_assembly *assembly,
                   struct modus_pipe_message *message)
{
    struct pipe_assembly taken = shared->put_by;
    int rc = provide(message, taken.total, &taken.data);

    if (rc < 0)
        return rc;
    memcpy(taken.data, shared->put_by.data, taken.got);
    *assembly = taken;
    forget(shared);
    return 0;
}

/* The wait for the rest is over: let the next call go on. Returns rc, or MODUS_BROKEN: there is no
 * memory, it is lost. */
static int put_by(struct modus_pipe_shared *shared, struct pipe_assembly *assembly, int rc)
{
    unsigned char *copy = modus_pipe_alloc(shared, assembly->total);

    if (!copy) {
        shared->told = assembly->id;
        return MODUS_BROKEN;
    }
    memcpy(copy, assembly->data, assembly->got);
    shared->put_by = *assembly;
    shared->put_by.data = copy;
    atomic_store(&shared->has_put_by, true);
    return rc;
}

/* A part of a message that nobody has the beginning of. */
static int pass_over(struct modus_pipe *end, const struct pipe_header *header)
{
    struct modus_pipe_shared *shared = end->shared;
    bool tell = shared->scope == 0 && !pipe_same(&shared->told, &header->id);

    discard(end);
    shared->told = header->id;
    return tell ? MODUS_BROKEN : 1;
}

/* A packet has come: have the message in hand that it is of. Returns 0, a failure, or 1: there is
 * none, it was thrown away. */
static int choose(struct modus_pipe *end, struct pipe_assembly *assembly,
                  struct modus_pipe_message *message, const struct pipe_header *header)
{
    struct modus_pipe_shared *shared = end->shared;

    if (assembly->begun && continues(assembly, header))
        return 0;
    if (!assembly->begun && atomic_load(&shared->has_put_by) && continues(&shared->put_by, header))
        return take_up(shared, assembly, message);
    if (header->offset > 0)
        return pass_over(end, header);
    forget(shared);
    return begin(assembly, message, header);
}

/* Go on until the message is whole. */
static int assemble(struct modus_pipe *end, struct pipe_assembly *assembly,
                    struct modus_pipe_message *message, int64_t deadline)
{
    struct pipe_header header;
    int rc;

    do {
        rc = look(end, &header, deadline);
        if (rc == 0)
            rc = choose(end, assembly, message, &header);
        if (rc == 1)
            continue;
        if (rc == 0)
            rc = take(end, &header, assembly->data + assembly->got, message);
        MODUS_FAULT(MODUS_FAULT_PIPE_TAKEN);
        if (rc < 0)
            return rc;
        assembly->got += header.size;
    } while (!assembly->begun || assembly->got < assembly->total);
    message->data = assembly->data;
    message->size = assembly->total;
    message->fds_closed = header.fds > message->fd_count ? header.fds - message->fd_count : 0;
    message->fd_count = header.fds - message->fds_closed;
    return 0;
}

static int receive(struct modus_pipe *end, struct modus_pipe_message *message, int64_t deadline)
{
    struct pipe_assembly assembly = {0};
    int rc = assemble(end, &assembly, message, deadline);

    if (rc == 0)
        return 0;
    if (assembly.begun && assembly.got > 0 && rc != MODUS_CLOSED)
        rc = put_by(end->shared, &assembly, rc);
    drop(&assembly, message);
    return rc;
}

int modus_pipe_recv_message_until(struct modus_pipe *end, struct modus_pipe_message *message,
                                  int64_t deadline)
{
    int rc = modus_pipe_check(end, PIPE_RECEIVES, deadline), saved = errno;

    if (rc < 0)
        return rc;
    if (message->fd_count > 0 && !message->fds)
        return -EINVAL;
    rc = modus_pipe_lock(&end->shared->receiving, deadline);
    if (rc < 0)
        return rc;
    rc = receive(end, message, deadline);
    modus_pipe_unlock(&end->shared->receiving);
    errno = saved;
    return rc;
}

int modus_pipe_recv_message(struct modus_pipe *end, struct modus_pipe_message *message, int64_t ns)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    return pipe_result(modus_pipe_recv_message_until(end, message, pipe_deadline(ns)), ns);
}

int modus_pipe_recv_until(struct modus_pipe *end, void *data, size_t *size, int64_t deadline)
{
    char nothing;
    struct modus_pipe_message message = {.data = data ? data : &nothing, .size = data ? *size : 0};
    int rc = modus_pipe_recv_message_until(end, &message, deadline);

    if (rc == 0 || rc == -EMSGSIZE)
        *size = message.size;
    return rc;
}

int modus_pipe_recv(struct modus_pipe *end, void *data, size_t *size, int64_t ns)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    return pipe_result(modus_pipe_recv_until(end, data, size, pipe_deadline(ns)), ns);
}
