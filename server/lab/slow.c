/* SPDX-License-Identifier: MIT */
/* Slow clients: see server/lab/slow.h. */
#include "server/lab/slow.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "concurrency/process.h"
#include "server/lab/client.h"

enum { BEAT_MS = 250, READY_MS = 1000, MOST = 4096 };

static const char head[] = "GET / HTTP/1.1\r\nHost: slow\r\nX-Slow: ";

struct wanted {
    struct lab_target target;
    unsigned count;
    int ready; /* written to when all have connected */
};

static int connect_one(const struct lab_target *t)
{
    int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)&t->address, t->len) == 0 &&
        send(fd, head, sizeof head - 1, MSG_NOSIGNAL) > 0)
        return fd;
    close(fd);
    return -1;
}

/* Returns its descriptor, another when it was cut, or -1. */
static int beat(const struct lab_target *t, int fd)
{
    if (fd >= 0 && send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
        return fd;
    if (fd >= 0)
        close(fd);
    return connect_one(t);
}

/* In the child, until it is killed. */
static int be_slow(void *argument)
{
    const struct wanted *w = argument;
    static int fds[MOST];
    for (unsigned i = 0; i < w->count; i++)
        fds[i] = connect_one(&w->target);
    if (write(w->ready, "", 1) != 1)
        return 1;
    for (;;) {
        poll(NULL, 0, BEAT_MS);
        for (unsigned i = 0; i < w->count; i++)
            fds[i] = beat(&w->target, fds[i]);
    }
}

struct modus_process *lab_slow_start(const struct lab_url *url, unsigned count)
{
    struct modus_process_attr attr = {.name = "slow clients", .orphan = MODUS_ORPHAN_KILLED};
    struct modus_process *slow = NULL;
    struct wanted w = {.count = count < MOST ? count : MOST};
    char why[256];
    int line[2];
    if (lab_target_open(&w.target, url, 0, why, sizeof why) != 0 || pipe(line) != 0)
        return NULL;
    w.ready = line[1];
    int rc = modus_process_new(&slow, &attr, be_slow, &w);
    if (rc == 0)
        rc = modus_process_start(slow);
    close(line[1]);
    struct pollfd ready = {.fd = line[0], .events = POLLIN};
    if (rc == 0)
        poll(&ready, 1, READY_MS);
    close(line[0]);
    lab_target_close(&w.target);
    if (rc < 0) {
        modus_process_put(slow);
        return NULL;
    }
    return slow;
}

void lab_slow_stop(struct modus_process *slow)
{
    if (!slow)
        return;
    modus_process_kill(slow);
    modus_process_join(slow, MODUS_FOREVER, NULL);
    modus_process_put(slow);
}
