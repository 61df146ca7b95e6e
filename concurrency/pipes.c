/* SPDX-License-Identifier: MIT */
/*
 * SIGPIPE: a write to a pipe that nobody reads raises it in the thread that writes, and pipes have
 * no MSG_NOSIGNAL. So it is blocked there for the write, and taken back if it was raised; one that
 * was pending before stays.
 */
#include "concurrency/pipes.h"
#include "concurrency/ready.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { FIRST = 16 * 1024, MOST = 1 << 20 /* of a write or read */ };

void modus_pipes_unblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

ssize_t modus_pipes_read(int fd, void *buffer, size_t size)
{
    ssize_t n;

    do
        n = read(fd, buffer, size);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t modus_pipes_write(int fd, const void *data, size_t size)
{
    const struct timespec now = {0};
    sigset_t sigpipe, mask, pending;

    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe, &mask);
    sigpending(&pending);
    ssize_t n = write(fd, data, size < MOST ? size : MOST);
    int rc = errno;
    if (n < 0 && rc == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&sigpipe, NULL, &now) < 0 && errno == EINTR)
            continue;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return n < 0 ? -rc : n;
}

/* --- moving ---------------------------------------------------------------------------------- */

static int fd_of(const struct modus_process *process, int i)
{
    return process ? process->pipes[i] : -1;
}

static void feed(struct modus_pipes *pipes)
{
    ssize_t n = modus_pipes_write(pipes->in->pipes[0], pipes->input, pipes->left);

    if (n > 0) {
        pipes->input += n;
        pipes->left -= (size_t)n;
    } else if (n != -EAGAIN && n != -EINTR) {
        pipes->left = 0; /* nobody reads it; as a shell does, that is left to the program */
    }
    if (pipes->left == 0)
        modus_process_close_pipe(pipes->in, 0);
}

/* Returns 0, or -ENOMEM. */
static int grow(struct modus_collected *to, size_t limit)
{
    size_t wanted = to->capacity ? to->capacity * 2 : FIRST;
    char *data = realloc(to->bytes.data, (wanted < limit ? wanted : limit) + 1);

    if (!data)
        return -ENOMEM;
    to->bytes.data = data;
    to->capacity = wanted < limit ? wanted : limit;
    return 0;
}

/* Returns 0, also at the end, when the pipe is closed; -EAGAIN, -ENOMEM, or -EOVERFLOW. */
static int collect(struct modus_pipes *pipes, int i)
{
    struct modus_collected *to = &pipes->collected[i];
    int fd = pipes->from[i]->pipes[i + 1];
    ssize_t n = 0;

    if (to->bytes.size == to->capacity && to->capacity < pipes->limit) {
        int rc = grow(to, pipes->limit);

        if (rc < 0)
            return rc;
    }
    size_t room = to->capacity - to->bytes.size;
    if (room == 0) { /* only its end would still be all right */
        struct pollfd end = {.fd = fd, .events = POLLIN};

        if (poll(&end, 1, 0) != 1)
            return -EAGAIN;
        if (end.revents & POLLIN)
            return -EOVERFLOW;
    } else {
        n = modus_pipes_read(fd, to->bytes.data + to->bytes.size, room < MOST ? room : MOST);
    }
    if (n == -EAGAIN)
        return -EAGAIN;
    if (n > 0) {
        to->bytes.size += (size_t)n;
        to->bytes.data[to->bytes.size] = 0;
    } else {
        modus_process_close_pipe(pipes->from[i], i + 1);
    }
    return 0;
}

static int begin(struct modus_pipes *pipes)
{
    int rc = 0;

    if (pipes->limit == 0)
        pipes->limit = MODUS_PIPES_LIMIT;
    if (fd_of(pipes->in, 0) >= 0) {
        modus_pipes_unblock(pipes->in->pipes[0]);
        if (pipes->left == 0)
            modus_process_close_pipe(pipes->in, 0);
    }
    for (int i = 0; i < 2 && rc == 0; i++) {
        struct modus_collected *to = &pipes->collected[i];

        if (fd_of(pipes->from[i], i + 1) < 0)
            continue;
        modus_pipes_unblock(pipes->from[i]->pipes[i + 1]);
        rc = to->capacity ? 0 : grow(to, pipes->limit);
        if (rc == 0)
            to->bytes.data[0] = 0;
    }
    pipes->begun = rc == 0;
    return rc;
}

static bool is_past(int64_t deadline)
{
    return deadline != MODUS_FOREVER && modus_now_ns() >= deadline;
}

int modus_pipes_move(struct modus_pipes *pipes, int64_t deadline)
{
    int rc = pipes->begun ? 0 : begin(pipes);

    for (bool moved = false; rc == 0; moved = true) {
        struct pollfd fds[3] = {
            {.fd = fd_of(pipes->in, 0), .events = POLLOUT},
            {.fd = fd_of(pipes->from[0], 1), .events = POLLIN},
            {.fd = fd_of(pipes->from[1], 2), .events = POLLIN},
        };

        if (fds[0].fd < 0 && fds[1].fd < 0 && fds[2].fd < 0)
            return 0;
        if (moved && is_past(deadline)) /* there is always something to move */
            return -ETIMEDOUT;
        rc = modus_ready(fds, 3, deadline);
        if (rc == 0 && fds[0].revents)
            feed(pipes);
        for (int i = 0; i < 2 && rc == 0; i++)
            if (fds[i + 1].revents) {
                rc = collect(pipes, i);
                rc = rc == -EAGAIN ? 0 : rc;
            }
    }
    return rc;
}

void modus_pipes_take_rest(struct modus_pipes *pipes)
{
    if (!pipes->begun)
        return;
    for (int i = 0; i < 2; i++) {
        const size_t *size = &pipes->collected[i].bytes.size;
        int fd = fd_of(pipes->from[i], i + 1), there = 0;

        if (fd < 0 || ioctl(fd, FIONREAD, &there) < 0)
            continue;
        for (size_t end = *size + (size_t)there; *size < end;)
            if (collect(pipes, i) < 0 || fd_of(pipes->from[i], i + 1) < 0)
                break;
    }
}

void modus_pipes_give(struct modus_pipes *pipes, struct modus_ran *ran)
{
    ran->output = pipes->collected[0].bytes;
    ran->errors = pipes->collected[1].bytes;
    memset(pipes->collected, 0, sizeof pipes->collected);
}

void modus_pipes_fini(struct modus_pipes *pipes)
{
    for (int i = 0; i < 2; i++)
        free(pipes->collected[i].bytes.data);
}
