/* SPDX-License-Identifier: MIT */
/* The transport of a bare socket: each call is one system call, and errno ends here.
 *
 * It stands alone because it is the floor that everything else is measured against: TLS goes over
 * it, and nothing may be added to it that a plaintext request would pay for.
 *
 * The descriptor is non-blocking already; MSG_DONTWAIT says it again where that is free, so that a
 * descriptor inherited from a careless parent can't stop a loop. No send raises SIGPIPE, but for
 * sendfile(2), which has no flag for it: the server ignores the signal process-wide.
 *
 * Threading: none of its own; the owner of the connection calls. Invariant: a call that returned
 * TRANSPORT_GONE left the descriptor open, so that its number can't be given to somebody else
 * before the owner has closed it.
 */
#include "net/transport.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

/* What errno means after a call that returned -1; want is the answer to "not now". */
static int plain_code(int want)
{
    return errno == EAGAIN || errno == EWOULDBLOCK ? want : TRANSPORT_GONE;
}

static int plain_handshake(struct transport *t)
{
    (void)t;
    return 0;
}

static ssize_t plain_read(struct transport *t, void *bytes, size_t len)
{
    assert(len > 0); /* else 0 would look like the end */
    ssize_t n;
    do {
        n = recv(t->fd, bytes, len, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : plain_code(TRANSPORT_WANT_READ);
}

static ssize_t plain_write(struct transport *t, const struct iovec *iov, int count, bool more)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0);
    /* sendmsg doesn't write through msg_iov; its type is only older than const. */
    struct msghdr message = {
        .msg_iov = (struct iovec *)(uintptr_t)iov,
        .msg_iovlen = count < IOV_MAX ? (size_t)count : IOV_MAX,
    };
    ssize_t n;
    do {
        n = count == 1 ? send(t->fd, iov->iov_base, iov->iov_len, flags)
                       : sendmsg(t->fd, &message, flags);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : plain_code(TRANSPORT_WANT_WRITE);
}

/* An error of the file itself (EIO) is GONE as well: the length was promised to the peer already,
 * so nothing can be sent any more that it would understand. */
static ssize_t plain_send_file(struct transport *t, int fd, int64_t offset, size_t len)
{
    off_t at = offset;
    ssize_t n;
    do {
        n = sendfile(t->fd, fd, &at, len);
    } while (n < 0 && errno == EINTR);
    return n >= 0 ? n : plain_code(TRANSPORT_WANT_WRITE);
}

static bool plain_pending(const struct transport *t)
{
    (void)t;
    return false;
}

static int plain_shutdown(struct transport *t, bool closing)
{
    return closing || shutdown(t->fd, SHUT_WR) == 0 ? 0 : TRANSPORT_GONE;
}

static void plain_idle(struct transport *t)
{
    (void)t;
}

static void plain_close(struct transport *t)
{
    if (t->fd >= 0)
        close(t->fd); /* EINTR too has closed it on Linux */
    t->fd = -1;
}

static const struct transport_ops plain_ops = {
    .name = "plain",
    .handshake = plain_handshake,
    .read = plain_read,
    .write = plain_write,
    .send_file = plain_send_file,
    .pending = plain_pending,
    .shutdown = plain_shutdown,
    .idle = plain_idle,
    .close = plain_close,
};

void transport_plain(struct transport *t, int fd)
{
    *t = (struct transport){.ops = &plain_ops, .fd = fd};
}
