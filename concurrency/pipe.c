/* SPDX-License-Identifier: MIT */
/*
 * The ends of a pipe, and sending. Receiving, which is the harder part, is in pipe_receive.c.
 *
 * A sender that gives up, or is killed, in the middle of a message leaves parts that nobody will
 * complete. It need not mend that, and neither need who inherits its lock: the next message's first
 * part tells the receiver.
 */
#include "concurrency/pipe.h"
#include "concurrency/fault.h"
#include "concurrency/pipe_priv.h"
#include "concurrency/self.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PACKET_MAX = 64 << 10, BUFFER_BYTES = 256 << 10 };

/* --- life ------------------------------------------------------------------------------------ */

/* The owner of a lock died: nothing to mend, see above. */
static int repair(void *context)
{
    (void)context;
    return 0;
}

void *modus_pipe_alloc(struct modus_pipe_shared *shared, size_t size)
{
    return shared->scope == MODUS_PROCESS ? modus_arena_alloc(shared->arena, size, 0)
                                          : malloc(size);
}

void modus_pipe_free(struct modus_pipe_shared *shared, void *memory, size_t size)
{
    if (shared->scope == MODUS_PROCESS)
        modus_arena_free(shared->arena, memory, size);
    else
        free(memory);
}

static void shared_free(struct modus_pipe_shared *shared)
{
    if (!shared)
        return;
    if (atomic_load(&shared->has_put_by))
        modus_pipe_free(shared, shared->put_by.data, shared->put_by.total);
    modus_lock_fini(&shared->sending);
    modus_lock_fini(&shared->receiving);
    modus_pipe_free(shared, shared, sizeof *shared);
}

static struct modus_pipe_shared *shared_new(const struct modus_pipe_attr *attr)
{
    struct modus_pipe_shared *shared = attr->scope == MODUS_PROCESS
                                           ? modus_arena_alloc(attr->arena, sizeof *shared, 0)
                                           : calloc(1, sizeof *shared);

    if (!shared)
        return NULL;
    shared->scope = attr->scope;
    shared->arena = attr->arena;
    if (attr->scope == 0)
        return shared;
    if (modus_lock_init(&shared->sending, attr->scope) < 0 ||
        modus_lock_init(&shared->receiving, attr->scope) < 0) {
        shared_free(shared);
        return NULL;
    }
    modus_lock_set_repair(&shared->sending, repair, NULL);
    modus_lock_set_repair(&shared->receiving, repair, NULL);
    return shared;
}

/* Returns how much of a message goes into one packet. */
static uint32_t packet_size(int fd)
{
    int bytes = BUFFER_BYTES;
    socklen_t length = sizeof bytes;

    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, &length) < 0 || bytes / 4 > PACKET_MAX)
        return PACKET_MAX;
    return (uint32_t)bytes / 4;
}

int modus_pipe_pair(struct modus_pipe ends[2], const struct modus_pipe_attr *attr)
{
    static const struct modus_pipe_attr usual;
    int fds[2], saved = errno;

    if (!attr)
        attr = &usual;
    if ((unsigned)attr->scope > MODUS_PROCESS || (attr->scope == MODUS_PROCESS && !attr->arena))
        return -EINVAL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
        errno = saved;
        return -ENOMEM;
    }
    for (int i = 0; i < 2; i++)
        ends[i] = (struct modus_pipe){
            .ways = !attr->one_way ? PIPE_SENDS | PIPE_RECEIVES
                    : i == 0       ? PIPE_RECEIVES
                                   : PIPE_SENDS,
            .fd = fds[i],
            .packet = packet_size(fds[i]),
            .shared = shared_new(attr),
        };
    if (ends[0].shared && ends[1].shared)
        return 0;
    modus_pipe_fini(&ends[0]);
    modus_pipe_fini(&ends[1]);
    return -ENOMEM;
}

static void end_handle(struct modus_pipe *end, bool last)
{
    if (end->ways == 0)
        return;
    close(end->fd);
    if (last || end->shared->scope != MODUS_PROCESS)
        shared_free(end->shared);
    *end = (struct modus_pipe){.fd = -1};
}

void modus_pipe_close(struct modus_pipe *end)
{
    end_handle(end, false);
}

void modus_pipe_fini(struct modus_pipe *end)
{
    end_handle(end, true);
}

int modus_pipe_fd(const struct modus_pipe *end)
{
    return end->ways == 0 ? -1 : end->fd;
}

/* --- both ways ------------------------------------------------------------------------------- */

int modus_pipe_check(const struct modus_pipe *end, uint32_t way, int64_t deadline)
{
    if (end->ways == 0 || deadline < MODUS_FOREVER)
        return -EINVAL;
    return end->ways & way ? 0 : -EPERM;
}

int modus_pipe_wait(const struct modus_pipe *end, int events, int64_t deadline)
{
    return deadline == 0 ? -ETIMEDOUT : modus_park_fd(end->fd, events, deadline, NULL);
}

int modus_pipe_lock(struct modus_lock *lock, int64_t deadline)
{
    if (lock->scope == 0)
        return 0;
    int rc = modus_lock_acquire_until(lock, deadline);
    return rc < 0 ? rc : 0;
}

void modus_pipe_unlock(struct modus_lock *lock)
{
    if (lock->scope != 0)
        modus_lock_release(lock);
}

/* --- sending --------------------------------------------------------------------------------- */

static int send_error(int error)
{
    switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
    case ECONNREFUSED:
        return MODUS_CLOSED;
    case ETOOMANYREFS:
        return -EOVERFLOW;
    case EBADF: /* one of the descriptors */
    case EINVAL:
        return -EINVAL;
    default:
        return -ENOMEM;
    }
}

static void attach(struct msghdr *msg, union pipe_control *control, const int *fds, unsigned count)
{
    msg->msg_control = control->bytes;
    msg->msg_controllen = CMSG_SPACE(count * sizeof(int));
    memset(control->bytes, 0, msg->msg_controllen);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
}

static int send_packet(struct modus_pipe *end, struct pipe_header *header,
                       const struct modus_pipe_message *message, int64_t deadline)
{
    union pipe_control control;
    struct iovec parts[2] = {
        {.iov_base = header, .iov_len = sizeof *header},
        {.iov_len = header->size},
    };
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = header->size ? 2 : 1};
    int rc = 0;

    if (header->size > 0) /* the kernel only reads */
        parts[1].iov_base = (unsigned char *)message->data + header->offset;
    if (pipe_is_last(header) && message->fd_count > 0)
        attach(&msg, &control, message->fds, message->fd_count);
    while (rc == 0 && sendmsg(end->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno == EAGAIN)
            rc = modus_pipe_wait(end, POLLOUT, deadline);
        else if (errno != EINTR)
            rc = send_error(errno);
    }
    return rc;
}

static int send_all(struct modus_pipe *end, const struct modus_pipe_message *message,
                    int64_t deadline)
{
    struct pipe_header header = {
        .id = {.process = modus_self_stamp(),
               .thread = modus_self_tid(),
               .number = atomic_fetch_add(&end->shared->number, 1)},
        .total = message->size,
        .fds = message->fd_count,
    };
    int rc;

    do {
        size_t left = message->size - header.offset;

        header.size = (uint32_t)(left < end->packet ? left : end->packet);
        rc = send_packet(end, &header, message, deadline);
        MODUS_FAULT(MODUS_FAULT_PIPE_SENT);
        header.offset += header.size;
    } while (rc == 0 && header.offset < header.total);
    return rc;
}

int modus_pipe_send_message_until(struct modus_pipe *end, const struct modus_pipe_message *message,
                                  int64_t deadline)
{
    int rc = modus_pipe_check(end, PIPE_SENDS, deadline), saved = errno;

    if (rc < 0)
        return rc;
    if ((message->size > 0 && !message->data) || (message->fd_count > 0 && !message->fds) ||
        message->fd_count > MODUS_PIPE_FDS_MAX)
        return -EINVAL;
    rc = modus_pipe_lock(&end->shared->sending, deadline);
    if (rc < 0)
        return rc;
    rc = send_all(end, message, deadline);
    modus_pipe_unlock(&end->shared->sending);
    errno = saved;
    return rc;
}

int modus_pipe_send_message(struct modus_pipe *end, const struct modus_pipe_message *message,
                            int64_t ns)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    return pipe_result(modus_pipe_send_message_until(end, message, pipe_deadline(ns)), ns);
}

static struct modus_pipe_message message_of(const void *data, size_t size)
{
    union {
        const void *from;
        void *to;
    } borrowed = {.from = data}; /* it is only read */

    return (struct modus_pipe_message){.data = borrowed.to, .size = size};
}

int modus_pipe_send(struct modus_pipe *end, const void *data, size_t size, int64_t ns)
{
    struct modus_pipe_message message = message_of(data, size);

    return modus_pipe_send_message(end, &message, ns);
}

int modus_pipe_send_until(struct modus_pipe *end, const void *data, size_t size, int64_t deadline)
{
    struct modus_pipe_message message = message_of(data, size);

    return modus_pipe_send_message_until(end, &message, deadline);
}

/* --- polling ---------------------------------------------------------------------------------- */

int modus_pipe_poll_until(struct modus_pipe *end, int64_t deadline)
{
    struct pollfd look = {.fd = end->fd, .events = POLLIN};
    int rc = modus_pipe_check(end, PIPE_RECEIVES, deadline), saved = errno;

    if (rc == 0 && poll(&look, 1, 0) <= 0)
        rc = modus_pipe_wait(end, POLLIN, deadline);
    errno = saved;
    return rc;
}

int modus_pipe_poll(struct modus_pipe *end, int64_t ns)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    return pipe_result(modus_pipe_poll_until(end, pipe_deadline(ns)), ns);
}
