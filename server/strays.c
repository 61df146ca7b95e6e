/* SPDX-License-Identifier: MIT */
/* Processes that another master has left behind. It was our child, we are a subreaper, so when it
 * dies its processes become our children; they hear of its end and go. We only reap them: an
 * acceptor among them may leave some in turn. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/supervisor_priv.h"

struct stray {
    struct master *master;
    struct stray *next;
    pid_t pid;
    int pidfd;
    uv_poll_t watch;
};

bool strays_have(const struct master *m, pid_t pid)
{
    for (const struct stray *s = m->strays; s; s = s->next)
        if (s->pid == pid)
            return true;
    return false;
}

static void on_closed(uv_handle_t *watch)
{
    free(watch->data);
}

static void on_end(uv_poll_t *watch, int status, int events)
{
    struct stray *s = watch->data;
    struct master *m = s->master;
    siginfo_t info = {0};
    (void)status, (void)events;
    if (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
        return;
    struct stray **at = &m->strays;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    close(s->pidfd);
    uv_close((uv_handle_t *)watch, on_closed);
    strays_look(m);
}

static void add(struct master *m, pid_t pid)
{
    struct stray *s = calloc(1, sizeof *s);
    int pidfd = s ? pidfd_open(pid, 0) : -1;
    if (pidfd < 0 || uv_poll_init(&m->loop, &s->watch, pidfd) != 0) {
        if (pidfd >= 0)
            close(pidfd);
        free(s);
        return;
    }
    s->master = m;
    s->pid = pid;
    s->pidfd = pidfd;
    s->watch.data = s;
    s->next = m->strays;
    m->strays = s;
    uv_poll_start(&s->watch, UV_READABLE, on_end);
}

void strays_look(struct master *m)
{
    FILE *children = fopen("/proc/thread-self/children", "re");
    int pid;
    while (children && fscanf(children, "%d", &pid) == 1)
        if (!workers_know(m, pid) && !upgrade_knows(m, pid))
            add(m, pid);
    if (children)
        fclose(children);
}

void strays_free(struct master *m)
{
    while (m->strays) {
        struct stray *s = m->strays;
        m->strays = s->next;
        close(s->pidfd);
        free(s);
    }
}
