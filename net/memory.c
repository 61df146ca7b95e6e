/* SPDX-License-Identifier: MIT */
/* A transport whose two directions are byte queues in memory.
 *
 * It stands alone because tests and fuzzers want to play the awkward peer exactly: bytes in cuts of
 * their choice, a window that is full, an end, a reset, all without a socket or a second thread.
 *
 * Threading: none; one thread plays both ends. Invariants: a queue's bytes are at[from ..
 * from+len), and once gone is set nothing moves any more. When memory is out the pipe acts as if
 * the peer had reset it, so that no test needs a second path for that.
 */
#include "net/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct queue {
    char *at;
    size_t from, len, size;
};

struct memory_pipe {
    struct queue in;  /* fed, not read yet */
    struct queue out; /* written, not taken yet */
    size_t per_call, room;
    bool ended, gone, shut;
};

/* --- a queue of bytes ---------------------------------------------------------------------- */

/* Room for len more bytes behind the last; NULL when memory is out. */
static char *queue_room(struct queue *q, size_t len)
{
    if (q->from > 0 && q->from + q->len + len > q->size) {
        memmove(q->at, q->at + q->from, q->len);
        q->from = 0;
    }
    if (q->at == NULL || q->len + len > q->size) {
        size_t size = 2 * (q->len + len) + 64;
        char *at = realloc(q->at, size);
        if (at == NULL)
            return NULL;
        q->at = at;
        q->size = size;
    }
    return q->at + q->from + q->len;
}

static bool queue_add(struct queue *q, const void *bytes, size_t len)
{
    if (len == 0)
        return true;
    char *at = queue_room(q, len);
    if (at == NULL)
        return false;
    memcpy(at, bytes, len);
    q->len += len;
    return true;
}

static void queue_drop(struct queue *q, size_t n)
{
    q->len -= n;
    q->from = q->len > 0 ? q->from + n : 0;
}

/* --- the transport's end ------------------------------------------------------------------- */

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many of len bytes may go towards the peer now. */
static size_t write_room(const struct memory_pipe *p, size_t len)
{
    if (p->per_call > 0)
        len = min_size(len, p->per_call);
    if (p->room > 0)
        len = min_size(len, p->room > p->out.len ? p->room - p->out.len : 0);
    return len;
}

static int memory_handshake(struct transport *t)
{
    const struct memory_pipe *p = t->priv;
    return p->gone ? TRANSPORT_GONE : 0;
}

static ssize_t memory_read(struct transport *t, void *bytes, size_t len)
{
    struct memory_pipe *p = t->priv;
    if (p->gone)
        return TRANSPORT_GONE;
    if (p->in.len == 0)
        return p->ended ? 0 : TRANSPORT_WANT_READ;
    size_t n = min_size(len, p->in.len);
    if (p->per_call > 0)
        n = min_size(n, p->per_call);
    memcpy(bytes, p->in.at + p->in.from, n);
    queue_drop(&p->in, n);
    return (ssize_t)n;
}

static size_t iov_total(const struct iovec *iov, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total;
}

static ssize_t memory_write(struct transport *t, const struct iovec *iov, int count, bool more)
{
    struct memory_pipe *p = t->priv;
    size_t total = iov_total(iov, count);
    size_t room = write_room(p, total), left = room;
    (void)more;
    if (p->gone || p->shut)
        return TRANSPORT_GONE;
    if (room == 0)
        return total > 0 ? TRANSPORT_WANT_WRITE : 0;
    for (int i = 0; left > 0; i++) {
        size_t n = min_size(iov[i].iov_len, left);
        if (!queue_add(&p->out, iov[i].iov_base, n)) {
            p->gone = true;
            return TRANSPORT_GONE;
        }
        left -= n;
    }
    return (ssize_t)room;
}

static ssize_t memory_send_file(struct transport *t, int fd, int64_t offset, size_t len)
{
    struct memory_pipe *p = t->priv;
    size_t room = write_room(p, min_size(len, 64 * 1024));
    if (p->gone || p->shut)
        return TRANSPORT_GONE;
    if (room == 0)
        return len > 0 ? TRANSPORT_WANT_WRITE : 0;
    char *at = queue_room(&p->out, room);
    ssize_t n = -1;
    if (at != NULL) {
        do {
            n = pread(fd, at, room, offset);
        } while (n < 0 && errno == EINTR);
    }
    if (n < 0) {
        p->gone = true;
        return TRANSPORT_GONE;
    }
    p->out.len += (size_t)n;
    return n;
}

/* Only the limit a call can make a read short while more is there. */
static bool memory_pending(const struct transport *t)
{
    const struct memory_pipe *p = t->priv;
    return p->per_call > 0 && p->in.len > 0 && !p->gone;
}

static int memory_shutdown(struct transport *t, bool closing)
{
    (void)closing;
    struct memory_pipe *p = t->priv;
    p->shut = true;
    return p->gone ? TRANSPORT_GONE : 0;
}

static void memory_idle(struct transport *t)
{
    (void)t;
}

/* The pipe stays for the test to look at. */
static void memory_close(struct transport *t)
{
    struct memory_pipe *p = t->priv;
    p->shut = true;
}

static const struct transport_ops memory_ops = {
    .name = "memory",
    .handshake = memory_handshake,
    .read = memory_read,
    .write = memory_write,
    .send_file = memory_send_file,
    .pending = memory_pending,
    .shutdown = memory_shutdown,
    .idle = memory_idle,
    .close = memory_close,
};

/* --- the peer's end ------------------------------------------------------------------------ */

struct memory_pipe *memory_pipe_new(struct transport *t)
{
    struct memory_pipe *p = calloc(1, sizeof(*p));
    if (p != NULL)
        *t = (struct transport){.ops = &memory_ops, .fd = -1, .priv = p};
    return p;
}

void memory_pipe_free(struct memory_pipe *p)
{
    if (p == NULL)
        return;
    free(p->in.at);
    free(p->out.at);
    free(p);
}

void memory_pipe_feed(struct memory_pipe *p, const void *bytes, size_t len)
{
    if (!queue_add(&p->in, bytes, len))
        p->gone = true;
}

void memory_pipe_end(struct memory_pipe *p)
{
    p->ended = true;
}

void memory_pipe_reset(struct memory_pipe *p)
{
    p->gone = true;
}

void memory_pipe_limit(struct memory_pipe *p, size_t per_call, size_t room)
{
    p->per_call = per_call;
    p->room = room;
}

const char *memory_pipe_sent(const struct memory_pipe *p, size_t *len)
{
    *len = p->out.len;
    return p->out.len > 0 ? p->out.at + p->out.from : "";
}

void memory_pipe_take(struct memory_pipe *p, size_t n)
{
    queue_drop(&p->out, min_size(n, p->out.len));
}

size_t memory_pipe_unread(const struct memory_pipe *p)
{
    return p->in.len;
}

bool memory_pipe_is_shut(const struct memory_pipe *p)
{
    return p->shut;
}
