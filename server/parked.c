/* SPDX-License-Identifier: MIT */
/* Connections without a process: see server/parked.h. */
#include "server/parked.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/intake.h"

static void make_ready(struct parking *p, struct parked *one)
{
    one->next = NULL;
    *(p->ready ? &p->ready_last->next : &p->ready) = one;
    p->ready_last = one;
}

static void unlink_waiting(struct parking *p, struct parked *one)
{
    *(one->before ? &one->before->next : &p->first) = one->next;
    *(one->next ? &one->next->before : &p->last) = one->before;
}

void parked_free(struct parked *one)
{
    free(one->memory);
    free(one);
}

static void drop(struct parking *p, struct parked *one)
{
    close(one->carried.fd);
    parked_free(one);
    atomic_fetch_sub(p->count, 1);
}

/* It came, and its end is here. */
static void end(struct parking *p, struct parked *one)
{
    net_count(&p->stats->came, 1);
    net_count(&p->stats->closed, 1);
    drop(p, one);
}

void parked_add(struct parking *p, const struct conn_carried *carried, void *memory, int64_t now_ms,
                int64_t until_ms)
{
    struct parked *one = calloc(1, sizeof *one);
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = one};
    if (!one) {
        close(carried->fd);
        free(memory);
        return;
    }
    *one = (struct parked){
        .carried = *carried, .memory = memory, .came_ms = now_ms, .until_ms = until_ms};
    atomic_fetch_add(p->count, 1);
    if (carried->unread_len || epoll_ctl(p->set, EPOLL_CTL_ADD, carried->fd, &e) != 0) {
        make_ready(p, one);
        return;
    }
    one->before = p->last;
    *(p->last ? &p->last->next : &p->first) = one;
    p->last = one;
}

/* It needs no process to find that nothing comes any more. */
static bool has_gone(const struct parked *one)
{
    char c;
    ssize_t n = recv(one->carried.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

void parked_rouse(struct parking *p, struct parked *one)
{
    epoll_ctl(p->set, EPOLL_CTL_DEL, one->carried.fd, NULL);
    unlink_waiting(p, one);
    if (has_gone(one))
        end(p, one);
    else
        make_ready(p, one);
}

struct parked *parked_take(struct parking *p)
{
    struct parked *one = p->ready;
    if (one) {
        p->ready = one->next;
        atomic_fetch_sub(p->count, 1);
    }
    return one;
}

/* Out of the set, and out of the list. */
static struct parked *take_waiting(struct parking *p)
{
    struct parked *one = p->first;
    epoll_ctl(p->set, EPOLL_CTL_DEL, one->carried.fd, NULL);
    unlink_waiting(p, one);
    return one;
}

int64_t parked_expire(struct parking *p, int64_t now_ms)
{
    while (p->first && p->first->until_ms <= now_ms)
        end(p, take_waiting(p));
    return p->first ? p->first->until_ms : INT64_MAX;
}

bool parked_make_room(struct parking *p)
{
    char c;
    while (p->first) {
        struct parked *one = take_waiting(p);
        if (recv(one->carried.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
            make_ready(p, one); /* it has, and the set had not told yet */
            continue;
        }
        net_count(&p->stats->evicted, 1);
        end(p, one);
        return true;
    }
    return false;
}

bool parked_give_on(struct parking *p, int give, int64_t now_ms)
{
    while (p->first)
        make_ready(p, take_waiting(p)); /* out of the set before it goes */
    while (p->ready) {
        struct parked *one = p->ready;
        struct conn_carried carried = one->carried;
        carried.idle_ms += now_ms - one->came_ms;
        if (intake_give(give, &carried) == -EAGAIN)
            return false;
        p->ready = one->next;
        drop(p, one);
    }
    return true;
}

void parked_close(struct parking *p)
{
    while (p->first)
        end(p, take_waiting(p));
}

void parked_forget(const struct parking *p)
{
    for (const struct parked *one = p->first; one; one = one->next)
        close(one->carried.fd);
    for (const struct parked *one = p->ready; one; one = one->next)
        close(one->carried.fd);
}
