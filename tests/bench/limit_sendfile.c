/* SPDX-License-Identifier: MIT */
/* limit_sendfile PORT FILE: what one thread with one epoll set can do at best with a file. Whatever
 * the request, the answer is FILE: its head by send(MSG_MORE), so that it shares a segment with the
 * file's first bytes, then sendfile.
 *
 * Edge-triggered, unlike limit_epoll: a large answer waits for room several times, and this way
 * both interests are registered once and waiting costs no epoll_ctl. */
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EVENT_COUNT = 256, FD_COUNT = 65536 };

struct limit {
    int poller;
    int listener;
    int file;
    off_t file_size;
    char head[256];
    size_t head_length;
    off_t left[FD_COUNT]; /* bytes of the file that this connection is still owed */
};

/* Returns false when the connection is over; true also when the kernel has no more room now. */
static bool push(struct limit *l, int fd)
{
    while (l->left[fd] > 0) {
        off_t offset = l->file_size - l->left[fd];
        ssize_t sent = sendfile(fd, l->file, &offset, (size_t)l->left[fd]);
        if (sent <= 0)
            return sent < 0 && errno == EAGAIN;
        l->left[fd] -= sent;
    }
    return true;
}

static bool answer(struct limit *l, int fd)
{
    char request[4096];
    ssize_t got = recv(fd, request, sizeof request, 0);
    if (got < 0 && errno == EAGAIN)
        return true;
    if (got <= 0 ||
        send(fd, l->head, l->head_length, MSG_MORE | MSG_NOSIGNAL) != (ssize_t)l->head_length)
        return false;
    l->left[fd] = l->file_size;
    return push(l, fd);
}

static void accept_one(struct limit *l)
{
    int fd = accept4(l->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
    if (fd >= FD_COUNT || epoll_ctl(l->poller, EPOLL_CTL_ADD, fd, &event) < 0)
        close(fd);
    else
        l->left[fd] = 0;
}

static void turn(struct limit *l)
{
    struct epoll_event events[EVENT_COUNT];
    int count = epoll_wait(l->poller, events, EVENT_COUNT, -1);
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;
        if (fd == l->listener)
            accept_one(l);
        else if (!(l->left[fd] > 0 ? push(l, fd) : answer(l, fd)))
            close(fd);
    }
}

static void open_file(struct limit *l, const char *path)
{
    struct stat status;
    l->file = open(path, O_RDONLY | O_CLOEXEC);
    if (l->file < 0 || fstat(l->file, &status) < 0)
        limit_die(path);
    l->file_size = status.st_size;
    l->head_length = limit_head(l->head, sizeof l->head, (size_t)status.st_size, false);
}

int main(int argc, char **argv)
{
    static struct limit l;
    if (argc != 3) {
        fprintf(stderr, "usage: %s PORT FILE\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* sendfile has no MSG_NOSIGNAL */
    open_file(&l, argv[2]);
    l.listener = limit_listen(argv[1], SOCK_NONBLOCK);
    l.poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = l.listener};
    if (l.poller < 0 || epoll_ctl(l.poller, EPOLL_CTL_ADD, l.listener, &event) < 0)
        limit_die("epoll");
    for (;;)
        turn(&l);
}
