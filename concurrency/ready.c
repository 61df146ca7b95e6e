/* SPDX-License-Identifier: MIT */
/*
 * A coroutine waits for one descriptor at a time: so it gets an epoll set of its own for each wait,
 * which is ready when one of its members is.
 */
#include "concurrency/ready.h"
#include "concurrency/park.h"

#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static int64_t left(int64_t deadline)
{
    int64_t now = modus_now_ns();

    return deadline > now ? deadline - now : 0;
}

/* Sleep in the kernel, for as long as a signal does not come. Returns how many are ready. */
static int look(struct pollfd *fds, unsigned n, int64_t deadline)
{
    for (;;) {
        int64_t ns = deadline == MODUS_FOREVER ? 0 : left(deadline);
        struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
        int count = ppoll(fds, n, deadline == MODUS_FOREVER ? NULL : &time, NULL);

        if (count >= 0 || errno != EINTR)
            return count >= 0 ? count : -errno;
    }
}

/* Returns the set, or a negative code. */
static int make_set(const struct pollfd *fds, unsigned n)
{
    int set = epoll_create1(EPOLL_CLOEXEC), rc = 0;

    if (set < 0)
        return -errno;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        struct epoll_event event = {.events = (uint32_t)fds[i].events};

        if (fds[i].fd >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fds[i].fd, &event) < 0)
            rc = -errno;
    }
    if (rc == 0)
        return set;
    close(set);
    return rc;
}

static int wait_in_coroutine(const struct pollfd *fds, unsigned n, int64_t deadline)
{
    int set = make_set(fds, n);

    if (set < 0)
        return set;
    int rc = modus_park_fd(set, POLLIN, deadline, NULL);
    close(set);
    return rc;
}

int modus_ready(struct pollfd *fds, unsigned n, int64_t deadline)
{
    int saved = errno, count;

    if (modus_park_fd_instead) {
        while ((count = look(fds, n, 0)) == 0) {
            int rc = wait_in_coroutine(fds, n, deadline);

            if (rc < 0 && look(fds, n, 0) <= 0) {
                errno = saved;
                return rc;
            }
        }
    } else {
        count = look(fds, n, deadline);
    }
    errno = saved;
    return count > 0 ? 0 : count == 0 ? -ETIMEDOUT : count;
}
