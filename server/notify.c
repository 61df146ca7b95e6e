/* SPDX-License-Identifier: MIT */
/* Datagrams to the service manager: see server/notify.h. */
#include "server/notify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_SIZE = 1024, PATIENCE_S = 1 };

static struct {
    struct sockaddr_un address;
    socklen_t len; /* 0: nobody is to be told */
    bool silent;
    uint64_t watchdog_us;
} manager;

static void learn_address(const char *path)
{
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof manager.address.sun_path || (*path != '/' && *path != '@'))
        return;
    manager.address.sun_family = AF_UNIX;
    memcpy(manager.address.sun_path, path, len + 1);
    if (*path == '@')
        manager.address.sun_path[0] = '\0'; /* a name of the kernel's, which is no file */
    manager.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*path != '@'));
}

/* The kernel's process of a number, as decimal digits say it. */
static bool is_pid(const char *text, pid_t pid)
{
    char *end;
    return *text && strtol(text, &end, 10) == (long)pid && *end == '\0';
}

void notify_init(void)
{
    const char *limit = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    learn_address(getenv("NOTIFY_SOCKET"));
    if (manager.len && limit && (!pid || is_pid(pid, getpid())))
        manager.watchdog_us = strtoull(limit, NULL, 10);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_pass_on(pid_t pid)
{
    char text[sizeof manager.address.sun_path + 1];
    if (!manager.len)
        return;
    size_t len = manager.len - offsetof(struct sockaddr_un, sun_path);
    memcpy(text, manager.address.sun_path, len);
    text[len] = '\0';
    if (text[0] == '\0')
        text[0] = '@';
    setenv("NOTIFY_SOCKET", text, 1);
    if (!manager.watchdog_us)
        return;
    snprintf(text, sizeof text, "%" PRIu64, manager.watchdog_us);
    setenv("WATCHDOG_USEC", text, 1);
    snprintf(text, sizeof text, "%d", pid);
    setenv("WATCHDOG_PID", text, 1);
}

static void send_to_manager(const char *text, size_t len, int flags)
{
    struct timeval limit = {.tv_sec = PATIENCE_S};
    if (!manager.len || manager.silent)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    sendto(fd, text, len, MSG_NOSIGNAL | flags, (struct sockaddr *)&manager.address, manager.len);
    close(fd);
}

void notify(const char *format, ...)
{
    char text[TEXT_SIZE];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0)
        send_to_manager(text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, 0);
}

void notify_alive(void)
{
    static const char text[] = "WATCHDOG=1";
    send_to_manager(text, sizeof text - 1, MSG_DONTWAIT);
}

void notify_hush(bool silent)
{
    manager.silent = silent;
}

uint64_t notify_watchdog_us(void)
{
    return manager.watchdog_us;
}

uint64_t notify_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}
