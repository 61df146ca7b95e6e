/* SPDX-License-Identifier: MIT */
/*
 * Waiting for descriptors: through an epoll set of our own, which libuv watches as one descriptor.
 *
 * libuv could watch each of them, but ends the process where it finds no memory for that. And it would
 * enter and remove a descriptor for each wait; in our set one stays, as EPOLLONESHOT without effect
 * until the next wait arms it again. The kernel drops it with the file.
 *
 * What the set tells of names a descriptor and the number of its wait, never an address: if somebody
 * has closed a descriptor of a file that lives on under another one, it can't be removed any more, and
 * its event may come when the wait is long over.
 */
#include "concurrency/coroutine_priv.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FIRST_WAITS = 64, EVENTS = 128 };

struct modus_co_fd_wait {
    struct modus_co *co;
    uint32_t number;
    bool done;
    int ready;
};

/* --- the set --------------------------------------------------------------------------------- */

static void end_wait(const struct modus_co_fds *fds, const struct epoll_event *event)
{
    uint32_t fd = (uint32_t)event->data.u64, number = (uint32_t)(event->data.u64 >> 32);
    struct modus_co_fd_wait *wait = fd < fds->room ? fds->waits[fd] : NULL;

    if (!wait || wait->number != number)
        return;
    wait->ready =
        event->events & (EPOLLERR | EPOLLHUP)
            ? POLLIN | POLLOUT
            : (event->events & EPOLLIN ? POLLIN : 0) | (event->events & EPOLLOUT ? POLLOUT : 0);
    wait->done = true;
    modus_co_loop_end_wait(wait->co, 0);
}

static void on_set(uv_poll_t *poll, int status, int events)
{
    const struct modus_co_fds *fds = poll->data;
    struct epoll_event some[EVENTS];
    (void)status;
    (void)events;

    int n = epoll_wait(fds->set, some, EVENTS, 0); /* if there are more libuv comes again */
    for (int i = 0; i < n; i++)
        end_wait(fds, &some[i]);
}

int modus_co_fds_open(struct modus_co_fds *fds, uv_loop_t *uv)
{
    fds->set = epoll_create1(EPOLL_CLOEXEC);
    if (fds->set < 0)
        return -ENOMEM;
    if (uv_poll_init(uv, &fds->poll, fds->set) == 0) {
        fds->poll.data = fds;
        uv_poll_start(&fds->poll, UV_READABLE, on_set);
        return 0;
    }
    close(fds->set);
    return -ENOMEM;
}

void modus_co_fds_stop(struct modus_co_fds *fds)
{
    uv_close((uv_handle_t *)&fds->poll, NULL);
}

void modus_co_fds_close(struct modus_co_fds *fds)
{
    close(fds->set);
    free(fds->waits);
}

/* --- waits ----------------------------------------------------------------------------------- */

static int make_room(struct modus_co_fds *fds, unsigned fd)
{
    unsigned room = fds->room ? fds->room : FIRST_WAITS;

    if (fd < fds->room)
        return 0;
    while (room <= fd)
        room *= 2;
    struct modus_co_fd_wait **waits = realloc(fds->waits, room * sizeof *waits);
    if (!waits)
        return -ENOMEM;
    for (unsigned i = fds->room; i < room; i++)
        waits[i] = NULL;
    fds->waits = waits;
    fds->room = room;
    return 0;
}

static int arm(const struct modus_co_fds *fds, int fd, uint32_t number, int events)
{
    struct epoll_event event = {
        .events =
            EPOLLONESHOT | (events & POLLIN ? EPOLLIN : 0) | (events & POLLOUT ? EPOLLOUT : 0),
        .data.u64 = (uint64_t)number << 32 | (unsigned)fd,
    };

    if (epoll_ctl(fds->set, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    if (errno == ENOENT && epoll_ctl(fds->set, EPOLL_CTL_ADD, fd, &event) == 0) {
        ioctl(fd, FIONBIO, &(int){1});
        return 0;
    }
    return errno == ENOMEM || errno == ENOSPC ? -ENOMEM : errno == EBADF ? -EINVAL : -EPERM;
}

/* The set knows a descriptor once; who comes second waits for a copy, *copy. */
static int begin_wait(struct modus_co_fds *fds, struct modus_co_fd_wait *wait, int *fd, int *copy,
                      int events)
{
    *copy = -1;
    if (*fd < 0)
        return -EINVAL;
    if ((unsigned)*fd < fds->room && fds->waits[*fd]) {
        *copy = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
        if (*copy < 0)
            return errno == EBADF ? -EINVAL : -ENOMEM;
        *fd = *copy;
    }
    int rc = make_room(fds, (unsigned)*fd);
    wait->number = ++fds->number;
    if (rc == 0)
        rc = arm(fds, *fd, wait->number, events);
    if (rc == 0)
        fds->waits[*fd] = wait;
    else if (*copy >= 0)
        close(*copy);
    return rc;
}

static void finish_wait(struct modus_co_fds *fds, const struct modus_co_fd_wait *wait, int fd,
                        int copy)
{
    fds->waits[fd] = NULL;
    if (!wait->done || copy >= 0)
        epoll_ctl(fds->set, EPOLL_CTL_DEL, fd, NULL);
    if (copy >= 0)
        close(copy);
}

int modus_co_park_fd(int fd, int events, int64_t deadline, int *ready)
{
    struct modus_co_loop *loop = modus_co_here;
    struct modus_co_fd_wait wait = {.co = loop->running};
    const void *object = (const void *)(intptr_t)fd;
    int copy, rc = begin_wait(&loop->fds, &wait, &fd, &copy, events);

    if (rc < 0)
        return rc;
    loop->fds.waiting++;
    while (rc == 0 && !wait.done)
        rc = modus_co_park_as(MODUS_CO_FD, object, &wait.co->never, 0, deadline);
    loop->fds.waiting--;
    finish_wait(&loop->fds, &wait, fd, copy);
    if (!wait.done)
        return rc;
    if (ready)
        *ready = wait.ready & events;
    return 0;
}

int modus_co_wait_fd(int fd, int events, int64_t ns, int *ready)
{
    if (ns < MODUS_FOREVER || !(events & (POLLIN | POLLOUT)))
        return -EINVAL;
    return modus_co_self() ? modus_co_park_fd(fd, events, modus_deadline(ns), ready) : -EPERM;
}
