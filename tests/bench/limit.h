/* SPDX-License-Identifier: MIT */
/* What the limit programs share: the command line, the listening socket and the answer's bytes.
 *
 * A limit program does what any server must do for a load, and nothing else: no parser, no
 * timeouts, no error answers. What a server takes above it is what its manners cost. Never serve
 * with one. */
#ifndef TESTS_BENCH_LIMIT_H
#define TESTS_BENCH_LIMIT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { LIMIT_BACKLOG = 1024 };

static inline _Noreturn void limit_die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

/* A socket that listens on 127.0.0.1:port (0: the kernel chooses), `flags` as for socket(2). Prints
 * `listening PORT` and returns the descriptor; ends the program when it cannot. */
static inline int limit_listen(const char *port, int flags)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, LIMIT_BACKLOG) < 0 || getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        limit_die("listen");
    printf("listening %u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

/* Write the head of a 200 answer, with the header lines that a real server sends, and return its
 * length. The date is the start's: keeping it is no part of a limit. */
static inline size_t limit_head(char *at, size_t size, size_t body_length, bool close_after)
{
    char date[64];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now));
    int length = snprintf(at, size,
                          "HTTP/1.1 200 OK\r\nServer: limit\r\nDate: %s\r\n"
                          "Content-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n",
                          date, body_length, close_after ? "Connection: close\r\n" : "");
    if (length < 0 || (size_t)length >= size)
        limit_die("snprintf");
    return (size_t)length;
}

#endif
