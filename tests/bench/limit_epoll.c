/* SPDX-License-Identifier: MIT */
/* limit_epoll [PORT [close]]: what one thread with one epoll set can do at best. Level-triggered,
 * two system calls a request: recv, and one send of a constant answer for all the requests that the
 * recv brought. With `close` every answer ends its connection. */
#include "limit.h"

#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const char body[] = "Hello, World!";

enum { EVENT_COUNT = 256, FD_COUNT = 65536, BATCH_COUNT = 128, ANSWER_BYTES = 256 };

struct limit {
    int poller;
    int listener;
    bool close_after;
    size_t answer_length;
    char answers[BATCH_COUNT * ANSWER_BYTES]; /* BATCH_COUNT equal answers, one after the other */
    size_t line_length[FD_COUNT];             /* bytes of the line that a recv left unfinished */
};

static void prepare_answers(struct limit *l)
{
    char one[ANSWER_BYTES];
    size_t head = limit_head(one, sizeof one - sizeof body, sizeof body - 1, l->close_after);
    memcpy(one + head, body, sizeof body - 1);
    l->answer_length = head + sizeof body - 1;
    for (size_t i = 0; i < BATCH_COUNT; i++)
        memcpy(l->answers + i * l->answer_length, one, l->answer_length);
}

/* The heads that end in these bytes: a head ends at an empty line. */
static size_t count_heads(const char *bytes, size_t length, size_t *line_length)
{
    const char *end = bytes + length, *newline;
    size_t heads = 0;
    while ((newline = memchr(bytes, '\n', (size_t)(end - bytes))) != NULL) {
        *line_length += (size_t)(newline - bytes);
        heads += *line_length <= 1; /* nothing, or the CR */
        *line_length = 0;
        bytes = newline + 1;
    }
    *line_length += (size_t)(end - bytes);
    return heads;
}

/* Returns false when the connection is over. A send that the kernel takes only in part ends it too:
 * no loader that reads its answers lets it come to that. */
static bool answer(struct limit *l, int fd)
{
    char bytes[16384];
    ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got <= 0)
        return false;
    size_t heads = count_heads(bytes, (size_t)got, &l->line_length[fd]);
    while (heads > 0) {
        size_t batch = heads < BATCH_COUNT ? heads : BATCH_COUNT;
        size_t length = batch * l->answer_length;
        if (send(fd, l->answers, length, MSG_NOSIGNAL) != (ssize_t)length || l->close_after)
            return false;
        heads -= batch;
    }
    return true;
}

static void accept_one(struct limit *l)
{
    int fd = accept4(l->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= FD_COUNT || epoll_ctl(l->poller, EPOLL_CTL_ADD, fd, &event) < 0)
        close(fd);
    else
        l->line_length[fd] = 0;
}

static void turn(struct limit *l)
{
    struct epoll_event events[EVENT_COUNT];
    int count = epoll_wait(l->poller, events, EVENT_COUNT, -1);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == l->listener)
            accept_one(l);
        else if (!answer(l, events[i].data.fd))
            close(events[i].data.fd);
    }
}

int main(int argc, char **argv)
{
    static struct limit l;
    l.close_after = argc > 2 && strcmp(argv[2], "close") == 0;
    prepare_answers(&l);
    l.listener = limit_listen(argc > 1 ? argv[1] : "0", SOCK_NONBLOCK);
    l.poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = l.listener};
    if (l.poller < 0 || epoll_ctl(l.poller, EPOLL_CTL_ADD, l.listener, &event) < 0)
        limit_die("epoll");
    for (;;)
        turn(&l);
}
