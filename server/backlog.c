/* SPDX-License-Identifier: MIT */
/* The kernel's socket monitor: see server/backlog.h. One request a family, only for sockets that
 * listen: that is a walk over the few listening ones of this machine, not over its connections. */
#include "server/backlog.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ANSWER_BYTES = 32 * 1024 };

/* The answers on their way: a part at a time, aligned as they must be. */
union answer {
    struct nlmsghdr first;
    char bytes[ANSWER_BYTES];
};

uint32_t backlog_inode(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (uint32_t)st.st_ino : 0;
}

static void note(struct backlog *sockets, size_t count, const struct backlog *answer)
{
    for (size_t i = 0; i < count; i++)
        if (sockets[i].inode == answer->inode)
            sockets[i] = *answer;
}

static void read_inet(struct backlog *sockets, size_t count, struct nlmsghdr *h)
{
    struct inet_diag_msg *m = NLMSG_DATA(h);
    if (h->nlmsg_len >= NLMSG_LENGTH(sizeof *m))
        note(sockets, count, &(struct backlog){m->idiag_inode, m->idiag_rqueue, m->idiag_wqueue});
}

static void read_unix(struct backlog *sockets, size_t count, struct nlmsghdr *h)
{
    struct unix_diag_msg *m = NLMSG_DATA(h);
    if (h->nlmsg_len < NLMSG_LENGTH(sizeof *m))
        return;
    unsigned left = (unsigned)(h->nlmsg_len - NLMSG_LENGTH(sizeof *m));
    struct rtattr *a = (struct rtattr *)(void *)((char *)m + NLMSG_ALIGN(sizeof *m));
    for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == UNIX_DIAG_RQLEN) {
            const struct unix_diag_rqlen *len = RTA_DATA(a);
            note(sockets, count,
                 &(struct backlog){m->udiag_ino, len->udiag_rqueue, len->udiag_wqueue});
        }
}

/* Returns false at the end of the answers, or when they can't be had. */
static bool read_some(int fd, union answer *answer, struct backlog *sockets, size_t count,
                      int family)
{
    ssize_t n = recv(fd, answer, sizeof *answer, MSG_DONTWAIT);
    if (n <= 0)
        return false;
    unsigned left = (unsigned)n;
    for (struct nlmsghdr *h = &answer->first; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
        if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
            return false;
        if (family == AF_UNIX)
            read_unix(sockets, count, h);
        else
            read_inet(sockets, count, h);
    }
    return true;
}

static void ask_family(int fd, struct backlog *sockets, size_t count, int family)
{
    struct {
        struct nlmsghdr head;
        union {
            struct inet_diag_req_v2 inet;
            struct unix_diag_req path;
        };
    } request = {
        .head = {.nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
    union answer answer;
    if (family == AF_UNIX) {
        request.head.nlmsg_len = NLMSG_LENGTH(sizeof request.path);
        request.path = (struct unix_diag_req){.sdiag_family = AF_UNIX,
                                              .udiag_states = 1u << TCP_LISTEN,
                                              .udiag_show = UDIAG_SHOW_RQLEN};
    } else {
        request.head.nlmsg_len = NLMSG_LENGTH(sizeof request.inet);
        request.inet = (struct inet_diag_req_v2){.sdiag_family = (uint8_t)family,
                                                 .sdiag_protocol = IPPROTO_TCP,
                                                 .idiag_states = 1u << TCP_LISTEN};
    }
    if (send(fd, &request, request.head.nlmsg_len, MSG_DONTWAIT) < 0)
        return;
    while (read_some(fd, &answer, sockets, count, family))
        ;
}

void backlog_ask(struct backlog *sockets, size_t count)
{
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    int fd = count ? socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG) : -1;
    if (fd < 0)
        return;
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        ask_family(fd, sockets, count, families[i]);
    close(fd);
}
