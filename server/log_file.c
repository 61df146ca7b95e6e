/* SPDX-License-Identifier: MIT */
/* What the logs write to: see server/log_file.h. */
#include "server/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int stream_of(const char *path)
{
    if (strcmp(path, "stdout") == 0)
        return STDOUT_FILENO;
    return strcmp(path, "stderr") == 0 ? STDERR_FILENO : -1;
}

bool log_file_is_stream(const char *path)
{
    return stream_of(path) >= 0;
}

int log_file_open(const char *path, char *why, size_t why_size)
{
    if (log_file_is_stream(path))
        return stream_of(path);
    int fd = open(
        path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW, 0640);
    if (fd < 0)
        snprintf(why, why_size, "cannot open %s: %s", path,
                 errno == ENXIO ? "it is a FIFO that nobody reads, or a socket"
                 : errno == ELOOP
                     ? "it is a symbolic link; name the file itself (or stdout, stderr)"
                     : strerror(errno));
    return fd;
}

int log_file_reopen(int fd, const char *path, char *why, size_t why_size)
{
    if (log_file_is_stream(path))
        return 0;
    int now = log_file_open(path, why, why_size);
    if (now < 0)
        return -1;
    int r = dup3(now, fd, O_CLOEXEC); /* threads that write meanwhile see one or the other */
    if (r < 0)
        snprintf(why, why_size, "cannot open %s again: %s", path, strerror(errno));
    close(now);
    return r < 0 ? -1 : 0;
}

void log_file_close(int fd, const char *path)
{
    if (!log_file_is_stream(path))
        close(fd);
}
