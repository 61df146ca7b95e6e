/* SPDX-License-Identifier: MIT */
/* Connections from generation to generation: see server/intake.h. */
#include "server/intake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/socket.h"

enum { VERSION = 1, UNREAD_MOST = 128 * 1024, BUFFER = 4 << 20 };

struct header {
    uint32_t version, unread;
    uint64_t requests;
    int64_t idle_ms;
    struct conn_peer peer;
};

struct room {
    _Alignas(struct cmsghdr) char bytes[CMSG_SPACE(sizeof(int))];
};

int intake_open(int ends[2])
{
    int size = BUFFER;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return -errno;
    if (setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0)
        setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return 0;
}

int intake_give(int give, const struct conn_carried *carried)
{
    struct header header = {.version = VERSION,
                            .unread = (uint32_t)carried->unread_len,
                            .requests = carried->requests,
                            .idle_ms = carried->idle_ms,
                            .peer = carried->peer};
    struct iovec parts[] = {{&header, sizeof header},
                            {(void *)(uintptr_t)carried->unread, carried->unread_len}};
    struct room room = {{0}};
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = 2,
                             .msg_control = room.bytes,
                             .msg_controllen = sizeof room.bytes};
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    if (carried->unread_len > UNREAD_MOST)
        return -EMSGSIZE;
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(control), &carried->fd, sizeof carried->fd);
    ssize_t n;
    do {
        n = sendmsg(give, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return 0;
    return errno == ENOBUFS || errno == ETOOMANYREFS ? -EAGAIN : -errno;
}

static int descriptor_of(struct msghdr *message)
{
    int fd = -1;
    const struct cmsghdr *control = CMSG_FIRSTHDR(message);
    if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(control), sizeof fd);
    return fd;
}

/* A message that is read while descriptors are out comes without its own, and that connection is lost.
 * Asked by opening one: an eventfd, which tsan knows for new, where a duplicate had the past of its
 * number. */
static bool has_descriptor(void)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int intake_take(int take, struct conn_carried *carried, void **memory)
{
    if (!socket_has_waiting(take))
        return -EAGAIN;
    if (!has_descriptor())
        return -EMFILE;
    struct header header;
    char *unread = malloc(UNREAD_MOST);
    struct iovec parts[] = {{&header, sizeof header}, {unread, unread ? UNREAD_MOST : 0}};
    struct room room;
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = 2,
                             .msg_control = room.bytes,
                             .msg_controllen = sizeof room.bytes};
    ssize_t n;
    do {
        n = recvmsg(take, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    int error = n < 0 ? -errno : n == 0 ? -EPIPE : 0, fd = n > 0 ? descriptor_of(&message) : -1;
    bool whole = n >= (ssize_t)sizeof header && header.version == VERSION && fd >= 0 &&
                 (size_t)n == sizeof header + header.unread;
    if (!whole) {
        free(unread);
        if (fd >= 0)
            close(fd);
        return error ? error : -EPROTO;
    }
    char *kept = realloc(unread, header.unread ? header.unread : 1);
    *memory = kept ? kept : unread;
    *carried = (struct conn_carried){.fd = fd,
                                     .peer = header.peer,
                                     .requests = header.requests,
                                     .idle_ms = header.idle_ms,
                                     .unread = *memory,
                                     .unread_len = header.unread};
    return 0;
}

void intake_shut(int take)
{
    struct conn_carried carried;
    void *memory;
    shutdown(take, SHUT_RD);
    while (intake_take(take, &carried, &memory) == 0) {
        close(carried.fd);
        free(memory);
    }
}
