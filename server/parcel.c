/* SPDX-License-Identifier: MIT */
/* Messages between masters: see server/parcel.h. A message goes as several packets when it is long:
 * a packet has a piece of the text, and descriptors, of which the kernel takes 253 at once at most.
 * The last field says that it is the last. */
#include "server/parcel.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PACKET_TEXT = 16384,
    PACKET_FDS = 100,
    MOST_TEXT = 16 << 20, /* of one that is received */
    MOST_FDS = 65536,
};

static const char last_field[] = "end="; /* with its zero byte */

struct room {
    _Alignas(struct cmsghdr) char bytes[CMSG_SPACE(PACKET_FDS * sizeof(int))];
};

/* --- making ---------------------------------------------------------------------------------- */

static bool make_room(struct parcel *p, size_t more)
{
    if (p->room - p->len >= more)
        return true;
    size_t room = 2 * p->room + more + 1024;
    char *text = realloc(p->text, room);
    if (!text)
        return false;
    p->text = text;
    p->room = room;
    return true;
}

static bool make_fd_room(struct parcel *p, size_t more)
{
    if (p->fd_room - p->fd_count >= more)
        return true;
    size_t room = 2 * p->fd_room + more;
    int *fds = realloc(p->fds, room * sizeof *fds);
    if (!fds)
        return false;
    p->fds = fds;
    p->fd_room = room;
    return true;
}

void parcel_put(struct parcel *p, const char *key, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    size_t size = strlen(key) + 1 + (size_t)len + 1;
    if (len < 0 || !make_room(p, size)) {
        p->failed = true;
    } else {
        int n = snprintf(p->text + p->len, size, "%s=", key);
        vsnprintf(p->text + p->len + n, size - (size_t)n, format, again);
        p->len += size;
    }
    va_end(again);
    va_end(args);
}

int parcel_add(struct parcel *p, int fd)
{
    if (!make_fd_room(p, 1)) {
        p->failed = true;
        return -1;
    }
    p->fds[p->fd_count] = fd;
    return (int)p->fd_count++;
}

void parcel_seal(struct parcel *p)
{
    parcel_put(p, "end", "%s", "");
}

/* --- sending --------------------------------------------------------------------------------- */

static int send_packet(struct parcel *p, int link)
{
    size_t left = p->len - p->sent, fds = p->fd_count - p->fds_sent;
    size_t most = fds > PACKET_FDS ? 1 : PACKET_TEXT; /* the text ends with or after the last fd */
    struct iovec part = {p->text + p->sent, left < most ? left : most};
    struct room room = {{0}};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    fds = fds < PACKET_FDS ? fds : PACKET_FDS;
    if (fds) {
        message.msg_control = room.bytes;
        message.msg_controllen = CMSG_SPACE(fds * sizeof(int));
        struct cmsghdr *control = CMSG_FIRSTHDR(&message);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(fds * sizeof(int));
        memcpy(CMSG_DATA(control), p->fds + p->fds_sent, fds * sizeof(int));
    }
    ssize_t n = sendmsg(link, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == ENOBUFS || errno == ETOOMANYREFS ? -EAGAIN : -errno;
    p->sent += (size_t)n;
    p->fds_sent += fds;
    return 0;
}

int parcel_send(struct parcel *p, int link)
{
    if (p->failed)
        return -ENOMEM;
    while (p->sent < p->len) {
        int rc = send_packet(p, link);
        if (rc < 0 && rc != -EINTR)
            return rc;
    }
    return 0;
}

/* --- receiving ------------------------------------------------------------------------------- */

static int keep_fds(struct parcel *p, struct msghdr *message)
{
    int rc = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (p->fd_count < MOST_FDS && make_fd_room(p, 1)) {
                p->fds[p->fd_count++] = fd;
                continue;
            }
            close(fd);
            rc = -ENOMEM;
        }
    }
    return message->msg_flags & MSG_CTRUNC ? -EMFILE : rc;
}

static bool is_whole(const struct parcel *p)
{
    size_t end = sizeof last_field;
    return p->len >= end && memcmp(p->text + p->len - end, last_field, end) == 0 &&
           (p->len == end || p->text[p->len - end - 1] == '\0');
}

static int receive_packet(struct parcel *p, int link)
{
    struct room room;
    if (p->len > MOST_TEXT)
        return -EPROTO;
    if (!make_room(p, PACKET_TEXT))
        return -ENOMEM;
    struct iovec part = {p->text + p->len, PACKET_TEXT};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = room.bytes,
                             .msg_controllen = sizeof room.bytes};
    ssize_t n = recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) /* a reset is told once, and before what was sent: the other end had not read all */
        return errno == ECONNRESET ? -EINTR : -errno;
    p->len += (size_t)n;
    int rc = keep_fds(p, &message);
    if (rc == 0 && n == 0)
        return -EPIPE;
    return rc == 0 && message.msg_flags & MSG_TRUNC ? -EPROTO : rc;
}

int parcel_receive(struct parcel *p, int link)
{
    p->received = true;
    while (!is_whole(p)) {
        int rc = receive_packet(p, link);
        if (rc < 0 && rc != -EINTR)
            return rc;
    }
    return 0;
}

const char *parcel_next(struct parcel *p, size_t *at, const char **value)
{
    while (*at < p->len) {
        char *field = p->text + *at, *equal = strchr(field, '=');
        size_t key = strlen(field);
        *at += key + 1;
        if (!equal) { /* read before, and cut after its key */
            *value = field + key + 1;
            *at += strlen(*value) + 1;
        } else {
            *equal = '\0';
            *value = equal + 1;
        }
        return strcmp(field, "end") == 0 ? NULL : field;
    }
    return NULL;
}

int parcel_take(struct parcel *p, long place)
{
    if (place < 0 || (size_t)place >= p->fd_count)
        return -1;
    int fd = p->fds[place];
    p->fds[place] = -1;
    return fd;
}

void parcel_fini(struct parcel *p)
{
    for (size_t i = 0; p->received && i < p->fd_count; i++)
        if (p->fds[i] >= 0)
            close(p->fds[i]);
    if (p->text)
        explicit_bzero(p->text, p->len); /* there may be keys in it */
    free(p->text);
    free(p->fds);
    *p = (struct parcel){0};
}
