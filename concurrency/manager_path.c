/* SPDX-License-Identifier: MIT */
/*
 * A manager's path: mode 0600 from its first moment, taken over from a server that is dead, and
 * never from one that lives. Whether it lives is asked by connecting.
 */
#include "concurrency/manager_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int result_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return -ENOENT;
    case EACCES:
    case EPERM:
    case EROFS:
        return -EACCES;
    case EADDRINUSE:
        return -EBUSY;
    default:
        return -ENOMEM;
    }
}

enum { LOOK_MS = 5, LOOKS = 400 };

/* Whoever may read the directory may lock it, another user too, and keep it so: give up then. */
static int lock_for_a_moment(int fd)
{
    for (int looks = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; looks++) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return result_of(errno);
        if (looks == LOOKS)
            return -EBUSY;
        usleep(LOOK_MS * 1000);
    }
    return 0;
}

/* The path's directory, locked, so that of two that find a dead server's path only one removes it.
 * Nothing of the lock stays behind. */
static int lock_directory(const char *path)
{
    char directory[sizeof((struct sockaddr_un *)0)->sun_path];
    const char *slash = strrchr(path, '/');
    int length = slash ? (int)(slash - path) : 0;

    snprintf(directory, sizeof directory, "%.*s%s", length, path, slash == path ? "/" : "");
    int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return result_of(errno);
    int rc = lock_for_a_moment(fd);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

/* Is it the path of a server that is gone? */
static bool is_stale(const struct sockaddr_un *path)
{
    struct stat status;

    if (lstat(path->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    int rc = connect(fd, (const struct sockaddr *)path, sizeof *path);
    bool stale = rc < 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

static int bind_to(int fd, const struct sockaddr_un *path)
{
    const struct sockaddr *address = (const struct sockaddr *)path;

    /* Before the bind, so that the path never has another mode. */
    if (fchmod(fd, 0600) < 0)
        return result_of(errno);
    int rc = bind(fd, address, sizeof *path);
    if (rc < 0 && errno == EADDRINUSE && is_stale(path)) {
        unlink(path->sun_path);
        rc = bind(fd, address, sizeof *path);
    }
    return rc < 0 || listen(fd, SOMAXCONN) < 0 ? result_of(errno) : 0;
}

int modus_manager_listen(const struct sockaddr_un *path)
{
    int directory = lock_directory(path->sun_path);

    if (directory < 0)
        return directory;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? -ENOMEM : bind_to(fd, path);
    close(directory);
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return rc;
}
