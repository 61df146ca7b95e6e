/* SPDX-License-Identifier: MIT */
/*
 * Waiting for descriptors, through libuv's polling. A wait is a handle of its own, which libuv closes
 * in its own time: so it is no part of a stack.
 */
#include "concurrency/coroutine_priv.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

struct fd_wait {
    uv_poll_t poll;
    struct modus_co *co;
    _Atomic uint32_t done;
    int ready;
};

static void on_fd(uv_poll_t *poll, int status, int events)
{
    struct fd_wait *wait = (struct fd_wait *)poll;

    wait->ready = status < 0
                      ? POLLIN | POLLOUT
                      : (events & UV_READABLE ? POLLIN : 0) | (events & UV_WRITABLE ? POLLOUT : 0);
    atomic_store(&wait->done, 1);
    modus_co_loop_end_wait(wait->co, 0);
}

static void free_wait(uv_handle_t *handle)
{
    free(handle); /* the poll is the first member of its wait */
}

/* libuv knows a descriptor once; who comes second waits for a copy, *copy. */
static int open_wait(struct modus_co_loop *loop, struct fd_wait **wait, int fd, int *copy)
{
    struct fd_wait *made = calloc(1, sizeof *made);

    if (!made)
        return -ENOMEM;
    *copy = -1;
    int rc = uv_poll_init(&loop->uv, &made->poll, fd);
    if (rc == UV_EEXIST) {
        *copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        rc = *copy < 0 ? UV_ENOMEM : uv_poll_init(&loop->uv, &made->poll, *copy);
    }
    if (rc == 0) {
        *wait = made;
        return 0;
    }
    if (*copy >= 0)
        close(*copy);
    free(made);
    return rc == UV_ENOMEM ? -ENOMEM : rc == UV_EBADF ? -EINVAL : -EPERM;
}

int modus_co_park_fd(int fd, int events, int64_t deadline, int *ready)
{
    struct modus_co_loop *loop = modus_co_here;
    struct fd_wait *wait;
    int copy, rc = open_wait(loop, &wait, fd, &copy);

    if (rc < 0)
        return rc;
    int wanted = (events & POLLIN ? UV_READABLE : 0) | (events & POLLOUT ? UV_WRITABLE : 0);
    wait->co = loop->running;
    loop->fds++;
    rc = uv_poll_start(&wait->poll, wanted, on_fd) == 0 ? 0 : -EPERM;
    while (rc == 0 && !atomic_load(&wait->done))
        rc = modus_co_park_as(MODUS_CO_FD, (const void *)(intptr_t)fd, &wait->done, 0, deadline);
    loop->fds--;
    if (atomic_load(&wait->done)) {
        rc = 0;
        if (ready)
            *ready = wait->ready & events;
    }
    uv_close((uv_handle_t *)&wait->poll, free_wait);
    if (copy >= 0)
        close(copy);
    return rc;
}

int modus_co_wait_fd(int fd, int events, int64_t ns, int *ready)
{
    if (ns < MODUS_FOREVER || !(events & (POLLIN | POLLOUT)))
        return -EINVAL;
    return modus_co_self() ? modus_co_park_fd(fd, events, modus_deadline(ns), ready) : -EPERM;
}
