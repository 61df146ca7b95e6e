/* SPDX-License-Identifier: MIT */
/*
 * Waiting for descriptors, through libuv's polling. A wait is a handle of its own, which libuv closes
 * in its own time: so it is no part of a stack.
 */
#include "concurrency/coroutine_priv.h"

#include <poll.h>
#include <stdlib.h>

struct fd_wait {
    uv_poll_t poll;
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
    modus_unpark(MODUS_THREAD, &wait->done, 1);
}

static void free_wait(uv_handle_t *handle)
{
    free(handle); /* the poll is the first member of its wait */
}

int modus_co_wait_fd(int fd, int events, int64_t ns, int *ready)
{
    struct modus_co *co = modus_co_self();
    int rc;

    if (ns < MODUS_FOREVER || !(events & (POLLIN | POLLOUT)))
        return -EINVAL;
    if (!co)
        return -EPERM;
    struct modus_co_loop *loop = co->loop;
    struct fd_wait *wait = calloc(1, sizeof *wait);
    if (!wait)
        return -ENOMEM;
    rc = uv_poll_init(&loop->uv, &wait->poll, fd);
    if (rc != 0) {
        free(wait);
        return rc == UV_ENOMEM ? -ENOMEM : -EPERM;
    }
    int wanted = (events & POLLIN ? UV_READABLE : 0) | (events & POLLOUT ? UV_WRITABLE : 0);
    loop->fds++;
    rc = uv_poll_start(&wait->poll, wanted, on_fd) == 0 ? 0 : -EPERM;
    int64_t deadline = modus_deadline(ns);
    while (rc == 0 && !atomic_load(&wait->done))
        rc = modus_co_park_as(MODUS_CO_FD, (const void *)(intptr_t)fd, &wait->done, 0, deadline);
    loop->fds--;
    if (atomic_load(&wait->done)) {
        rc = 0;
        if (ready)
            *ready = wait->ready & events;
    }
    uv_close((uv_handle_t *)&wait->poll, free_wait);
    return rc;
}
