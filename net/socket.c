/* SPDX-License-Identifier: MIT */
/* Listening and accepting: see net/socket.h. */
#include "net/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Who may connect to a unix socket is for its folder to say, as to a port. */
enum { EVERYBODY = 0666 };

union any_address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

/* Fill to from the text. Returns its length, or 0 if it is no address. */
static socklen_t fill(const struct socket_address *a, union any_address *to)
{
    *to = (union any_address){0};
    if (a->unix_path) {
        if (strlen(a->unix_path) >= sizeof to->un.sun_path)
            return 0;
        to->un.sun_family = AF_UNIX;
        memcpy(to->un.sun_path, a->unix_path, strlen(a->unix_path) + 1);
        return sizeof to->un;
    }
    const char *host = strcmp(a->host, "*") == 0 ? "::" : a->host;
    if (inet_pton(AF_INET, host, &to->in.sin_addr) == 1) {
        to->in.sin_family = AF_INET;
        to->in.sin_port = htons(a->port);
        return sizeof to->in;
    }
    if (inet_pton(AF_INET6, host, &to->in6.sin6_addr) != 1)
        return 0;
    to->in6.sin6_family = AF_INET6;
    to->in6.sin6_port = htons(a->port);
    return sizeof to->in6;
}

/* A socket file left behind by a server that was killed is in the way; a living one is not ours. */
static void remove_stale(const union any_address *address, socklen_t len)
{
    struct stat st;
    if (lstat(address->un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
        return;
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0)
        return;
    if (connect(probe, &address->any, len) != 0 && errno == ECONNREFUSED)
        unlink(address->un.sun_path);
    close(probe);
}

static int open_socket(int family, int only_six)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_six, sizeof only_six);
    if (family != AF_UNIX) /* answers are written whole, so nothing is to be waited for */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static const char *remedy(int error, const struct socket_address *a)
{
    struct stat st;
    if (error == EADDRINUSE && a->unix_path && lstat(a->unix_path, &st) == 0 &&
        !S_ISSOCK(st.st_mode))
        return ": what stands there is no socket; remove it or choose another path";
    if (error == EADDRINUSE && a->unix_path)
        return ": another server listens there; stop it or choose another path";
    if (error == EADDRINUSE)
        return ": another server listens there; stop it or choose another port";
    if (error == EADDRNOTAVAIL)
        return ": this machine has no such address; \"*\" stands for all that it has";
    if (error == EACCES && !a->unix_path && a->port < 1024)
        return ": a port below 1024 is root's; start as root and name a user, or take a higher one";
    if (error == ENOENT && a->unix_path)
        return ": make its folder first";
    return "";
}

int socket_listen(const struct socket_address *a, int backlog, char *why, size_t why_size)
{
    union any_address address;
    socklen_t len = fill(a, &address);
    if (len == 0) {
        snprintf(why, why_size, "not an address");
        return -1;
    }
    bool both = !a->unix_path && strcmp(a->host, "*") == 0;
    int fd = open_socket(address.any.sa_family, !both);
    if (fd < 0 && both && errno == EAFNOSUPPORT) {
        struct socket_address four = {.host = "0.0.0.0", .port = a->port};
        return socket_listen(&four, backlog, why, why_size);
    }
    if (fd < 0) {
        snprintf(why, why_size, "no socket: %s", strerror(errno));
        return -1;
    }
    if (a->unix_path)
        remove_stale(&address, len);
    if (bind(fd, &address.any, len) == 0 &&
        (!a->unix_path || chmod(a->unix_path, a->mode ? a->mode : EVERYBODY) == 0) &&
        listen(fd, backlog) == 0)
        return fd;
    snprintf(why, why_size, "%s%s", strerror(errno), remedy(errno, a));
    close(fd);
    return -1;
}

/* Of two addresses of one family: the same? */
static bool is_same(const union any_address *a, const union any_address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_UNIX)
        return strcmp(a->un.sun_path, b->un.sun_path) == 0;
    if (a->any.sa_family == AF_INET)
        return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    return a->in6.sin6_port == b->in6.sin6_port &&
           memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr) == 0;
}

bool socket_is_bound_to(int fd, const struct socket_address *a)
{
    union any_address wanted, bound = {0};
    socklen_t len = sizeof bound - 1; /* a path fills its array without a zero byte */
    if (fill(a, &wanted) == 0 || getsockname(fd, &bound.any, &len) != 0)
        return false;
    if (is_same(&wanted, &bound))
        return true;
    struct socket_address four = {.host = "0.0.0.0", .port = a->port};
    return !a->unix_path && strcmp(a->host, "*") == 0 && fill(&four, &wanted) &&
           is_same(&wanted, &bound);
}

void socket_defer_accept(int fd, bool defer)
{
    int seconds = defer ? 1 : 0;
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds);
}

void socket_drop_new(int fd)
{
    enum { TCP_FLAGS = 13, SYN = 0x02 }; /* a filter on a TCP socket sees the TCP header first */
    struct sock_filter no_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    struct sock_fprog program = {.len = sizeof no_syn / sizeof no_syn[0], .filter = no_syn};
    int protocol = 0;
    socklen_t len = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 && protocol == IPPROTO_TCP)
        setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

bool socket_has_waiting(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void set_peer(struct conn_peer *peer, const union any_address *address)
{
    *peer = (struct conn_peer){.family = AF_UNIX};
    if (address->any.sa_family == AF_INET) {
        peer->family = AF_INET;
        peer->port = ntohs(address->in.sin_port);
        memcpy(peer->address, &address->in.sin_addr, 4);
    } else if (address->any.sa_family == AF_INET6) {
        peer->family = AF_INET6;
        peer->port = ntohs(address->in6.sin6_port);
        memcpy(peer->address, &address->in6.sin6_addr, 16);
        if (IN6_IS_ADDR_V4MAPPED(&address->in6.sin6_addr)) { /* a v4 peer on a socket for both */
            peer->family = AF_INET;
            memmove(peer->address, peer->address + 12, 4);
        }
    }
}

int socket_accept(int fd, struct conn_peer *peer)
{
    for (;;) {
        union any_address address;
        socklen_t len = sizeof address;
        address.any.sa_family = AF_UNIX;
        int got = accept4(fd, &address.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (got >= 0) {
            set_peer(peer, &address);
            return got;
        }
        switch (errno) {
        case EAGAIN:
        case EMFILE:
        case ENFILE:
        case ENOMEM:
        case ENOBUFS:
            return -errno;
        case EBADF:
        case EINVAL: /* it listens no more */
            return -EAGAIN;
        default: /* that connection died in the queue, or a signal came: take the next */
            continue;
        }
    }
}

void socket_name(int fd, char *text, size_t size)
{
    union any_address address = {0};
    socklen_t len = sizeof address;
    char host[INET6_ADDRSTRLEN];
    snprintf(text, size, "?");
    if (getsockname(fd, &address.any, &len) != 0)
        return;
    if (address.any.sa_family == AF_UNIX)
        snprintf(text, size, "unix:%s", address.un.sun_path);
    else if (address.any.sa_family == AF_INET)
        snprintf(text, size, "%s:%d", inet_ntop(AF_INET, &address.in.sin_addr, host, sizeof host),
                 ntohs(address.in.sin_port));
    else
        snprintf(text, size, "[%s]:%d",
                 inet_ntop(AF_INET6, &address.in6.sin6_addr, host, sizeof host),
                 ntohs(address.in6.sin6_port));
}
