/* SPDX-License-Identifier: MIT */
/* Resolving paths below a folder. */
#include "handlers/root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    CHECK_MS = 990, /* a second, less the grain of the caller's clock */
    TRIES = 8,      /* openat2 gives EAGAIN when something was renamed while it looked */
};

struct root {
    const char *path;
    int fd; /* O_PATH; the number never changes, what it names may */
    bool walk;
    _Atomic int64_t checked_ms;
};

/* --- with openat2 ----------------------------------------------------------------------------- */

static int beneath(int folder, const char *path, int flags)
{
    struct open_how how = {
        .flags = (unsigned)flags,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;
    for (int i = 0; i < TRIES; i++) {
        fd = syscall(SYS_openat2, folder, path, &how, sizeof how);
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return fd < 0 ? -errno : (int)fd;
}

/* Some sandboxes answer system calls that they do not know with EPERM. */
static bool has_openat2(int folder)
{
    int fd = beneath(folder, ".", O_PATH | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd != -ENOSYS && fd != -EPERM;
}

/* --- without ---------------------------------------------------------------------------------- */

/* Cut the next component off path. Returns its length, 0 at the end. */
static size_t next_component(const char **path, const char **component)
{
    *component = *path + strspn(*path, "/");
    size_t len = strcspn(*component, "/");
    *path = *component + len;
    return len;
}

/* One step down. The last component is opened as asked, others only as a place to go on from. */
static int step_down(int folder, const char *component, size_t len, bool is_last, int flags)
{
    char name[NAME_MAX + 1];
    if (len > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, component, len);
    name[len] = '\0';
    if (strcmp(name, "..") == 0)
        return -EXDEV;
    int fd = openat(folder, name,
                    is_last ? flags | O_NOFOLLOW : O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* O_PATH with O_NOFOLLOW opens a link itself, which must not be taken for what it points to. */
static int refuse_link(int fd)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISLNK(st.st_mode))
        return fd;
    close(fd);
    return -ELOOP;
}

static int walk(int root, const char *path, int flags)
{
    const char *component;
    int fd = root;
    if (*path == '/')
        return -EXDEV;
    size_t len = next_component(&path, &component);
    if (len == 0)
        return -ENOENT;
    while (len > 0) {
        const char *next;
        bool ends_in_slash = *path == '/';
        size_t next_len = next_component(&path, &next);
        int extra = next_len == 0 && ends_in_slash ? O_DIRECTORY : 0;
        int down = step_down(fd, component, len, next_len == 0, flags | extra);
        if (fd != root)
            close(fd);
        if (down < 0)
            return down;
        fd = down;
        component = next;
        len = next_len;
    }
    return flags & O_PATH ? refuse_link(fd) : fd;
}

/* --- for callers ------------------------------------------------------------------------------ */

static int open_folder(const char *path)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int root_open(struct root **out, const char *path)
{
    int fd = open_folder(path);
    if (fd < 0)
        return fd;
    struct root *r = calloc(1, sizeof *r);
    if (!r) {
        close(fd);
        return -ENOMEM;
    }
    r->path = path;
    r->fd = fd;
    r->walk = !has_openat2(fd);
    *out = r;
    return 0;
}

void root_close(struct root *r)
{
    if (!r)
        return;
    close(r->fd);
    free(r);
}

int root_file(const struct root *r, const char *path, int flags)
{
    flags |= O_CLOEXEC;
    if (!(flags & O_PATH))
        flags |= O_RDONLY | O_NONBLOCK | O_NOCTTY;
    return r->walk ? walk(r->fd, path, flags) : beneath(r->fd, path, flags);
}

int root_stat(const struct root *r, const char *path, struct stat *st)
{
    struct stat now;
    if (fstatat(r->fd, path, &now, r->walk ? AT_SYMLINK_NOFOLLOW : 0) < 0)
        return -errno;
    *st = now;
    return 0;
}

static bool names_another(const struct root *r)
{
    struct stat held, named;
    return stat(r->path, &named) == 0 && S_ISDIR(named.st_mode) && fstat(r->fd, &held) == 0 &&
           (held.st_ino != named.st_ino || held.st_dev != named.st_dev);
}

void root_refresh(struct root *r, int64_t now_ms)
{
    int64_t checked = atomic_load_explicit(&r->checked_ms, memory_order_relaxed);
    if (now_ms - checked < CHECK_MS ||
        !atomic_compare_exchange_strong(&r->checked_ms, &checked, now_ms) || !names_another(r))
        return;
    int fd = open_folder(r->path);
    if (fd < 0)
        return; /* gone again, or not for our user: stay with what we have */
    /* One call moves the number that other threads may be using to the new folder. */
    dup3(fd, r->fd, O_CLOEXEC);
    close(fd);
}

void root_force_walk(struct root *r)
{
    r->walk = true;
}
