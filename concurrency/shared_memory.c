/* SPDX-License-Identifier: MIT */
/*
 * Blocks of shared memory: memfds, and files in /dev/shm.
 *
 * shm_open and ftruncate make a block in three steps that everybody sees: a name, a size, and pages
 * on their first touch. A maker that is killed between leaves a name without memory behind it. Here
 * the file has no name (O_TMPFILE) until it has its pages, then it gets one (linkat, which does not
 * replace another's). Where /dev/shm is no tmpfs of today's kernels, that is an error.
 */
#include "concurrency/shared_memory.h"
#include "concurrency/fault.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FOLDER "/dev/shm"

enum { PATH_BYTES = sizeof FOLDER + 1 + NAME_MAX };

/* Some kernels undo an allocation when a signal comes: so it is made piece by piece. */
enum { PIECE = 2 << 20 };

static int result_of(int error)
{
    switch (error) {
    case EPERM:
    case EROFS:
    case ELOOP: /* a symbolic link */
    case EISDIR:
    case ENXIO: /* a socket */
        return -EACCES;
    default:
        return -error;
    }
}

/* Returns false when there can be no such name. */
static bool path_of(const char *name, char path[PATH_BYTES])
{
    if (!name)
        return false;
    name += name[0] == '/';
    if (name[0] == 0 || strlen(name) > NAME_MAX || strchr(name, '/') || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        return false;
    snprintf(path, PATH_BYTES, FOLDER "/%s", name);
    return true;
}

/* --- making ---------------------------------------------------------------------------------- */

/* What cannot be is not tried: it would take from others, until it fails, all that there is. */
static int look_for_room(int fd, size_t size)
{
    struct statfs place;
    struct sysinfo machine;

    if (fstatfs(fd, &place) == 0 && place.f_blocks > 0 &&
        (size - 1) / (size_t)place.f_bsize >= place.f_bavail)
        return -ENOSPC;
    if (sysinfo(&machine) == 0 &&
        size / machine.mem_unit > (size_t)machine.totalram + machine.totalswap)
        return -ENOMEM;
    return 0;
}

static int allocate(int fd, size_t size)
{
    int rc = look_for_room(fd, size);

    for (size_t done = 0; rc == 0 && done < size;) {
        size_t piece = size - done < PIECE ? size - done : PIECE;

        if (fallocate(fd, 0, (off_t)done, (off_t)piece) == 0)
            done += piece;
        else if (errno != EINTR)
            rc = -errno;
    }
    return rc;
}

static int map(struct modus_shm *shm, int fd, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (memory == MAP_FAILED)
        return -errno;
    *shm = (struct modus_shm){.memory = memory, .size = size, .fd = fd};
    return 0;
}

static int give_name(int fd, const char *path)
{
    char unnamed[32];

    snprintf(unnamed, sizeof unnamed, "/proc/self/fd/%d", fd);
    if (flock(fd, LOCK_SH | LOCK_NB) < 0)
        return -errno;
    MODUS_FAULT(MODUS_FAULT_SHM_WHOLE);
    if (linkat(AT_FDCWD, unnamed, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0)
        return result_of(errno);
    MODUS_FAULT(MODUS_FAULT_SHM_NAMED);
    return 0;
}

/* The last seal keeps others from adding those that would keep others from writing. */
static int seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 ? 0 : -errno;
}

int modus_shm_create(struct modus_shm *shm, const char *name, size_t size)
{
    struct modus_shm made = {0};
    char path[PATH_BYTES];
    struct stat there;

    if (size == 0 || (name && !path_of(name, path)))
        return -EINVAL;
    if (name && lstat(path, &there) == 0)
        return -EEXIST; /* linkat would say so, but late */
    int fd = name ? open(FOLDER, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)
                  : memfd_create("modus-shm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return result_of(errno);
    int rc = allocate(fd, size);
    if (rc == 0)
        rc = map(&made, fd, size);
    if (rc == 0)
        rc = name ? give_name(fd, path) : seal(fd);
    if (rc == 0) {
        *shm = made;
        return 0;
    }
    if (made.memory)
        munmap(made.memory, size);
    close(fd);
    return rc;
}

/* --- opening --------------------------------------------------------------------------------- */

static int open_file(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return result_of(errno);
    MODUS_FAULT(MODUS_FAULT_SHM_FOUND);
    return fd;
}

/* Returns 0 if nobody but this user can shorten it. */
static int check_owner(int fd)
{
    struct stat file;

    if (fstat(fd, &file) < 0)
        return -errno;
    if (!S_ISREG(file.st_mode) || file.st_uid != geteuid() || (file.st_mode & (S_IWGRP | S_IWOTH)))
        return -EACCES;
    return 0;
}

/* Hold the lock of those who have the block; it may have lost its name before. */
static int hold(int fd)
{
    struct stat file;

    if (flock(fd, LOCK_SH | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    if (fstat(fd, &file) < 0)
        return -errno;
    return file.st_nlink == 0 ? -ENOENT : 0;
}

static int map_whole(struct modus_shm *shm, int fd, size_t least)
{
    struct stat file;

    if (fstat(fd, &file) < 0)
        return -errno;
    if (file.st_size == 0)
        return -EAGAIN;
    if ((size_t)file.st_size < least)
        return -ERANGE;
    return map(shm, fd, (size_t)file.st_size);
}

int modus_shm_open(struct modus_shm *shm, const char *name, size_t least)
{
    char path[PATH_BYTES];

    if (!path_of(name, path))
        return -EINVAL;
    int fd = open_file(path);
    if (fd < 0)
        return fd;
    int rc = check_owner(fd);
    if (rc == 0)
        rc = hold(fd);
    if (rc == 0)
        rc = map_whole(shm, fd, least);
    if (rc < 0)
        close(fd);
    return rc;
}

/* Sealed first: what is mapped then is there. */
static int keep_from_shrinking(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals >= 0 && (seals & F_SEAL_SHRINK))
        return 0;
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0 ? 0 : -EPERM;
}

int modus_shm_attach(struct modus_shm *shm, int fd, size_t least)
{
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (own < 0)
        return -errno;
    int rc = keep_from_shrinking(own);
    if (rc == 0)
        rc = map_whole(shm, own, least);
    if (rc < 0)
        close(own);
    return rc;
}

void modus_shm_close(struct modus_shm *shm)
{
    if (!shm->memory)
        return;
    munmap(shm->memory, shm->size);
    close(shm->fd);
    *shm = (struct modus_shm){0};
}

void *modus_shm_memory(const struct modus_shm *shm)
{
    return shm->memory;
}

size_t modus_shm_size(const struct modus_shm *shm)
{
    return shm->size;
}

int modus_shm_fd(const struct modus_shm *shm)
{
    return shm->memory ? shm->fd : -1;
}

/* --- names ----------------------------------------------------------------------------------- */

int modus_shm_unlink(const char *name)
{
    char path[PATH_BYTES];

    if (!path_of(name, path))
        return -EINVAL;
    return unlink(path) == 0 ? 0 : result_of(errno);
}

/* While the lock is held nobody can come to have the block. */
static int unlink_locked(int fd, const char *path)
{
    struct stat file, there;

    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EBUSY : -errno;
    if (fstat(fd, &file) < 0 || lstat(path, &there) < 0)
        return result_of(errno);
    if (file.st_dev != there.st_dev || file.st_ino != there.st_ino)
        return -EAGAIN;
    MODUS_FAULT(MODUS_FAULT_SHM_UNUSED);
    return unlink(path) == 0 ? 0 : result_of(errno);
}

int modus_shm_unlink_unused(const char *name)
{
    char path[PATH_BYTES];

    if (!path_of(name, path))
        return -EINVAL;
    int fd = open_file(path);
    if (fd < 0)
        return fd;
    int rc = unlink_locked(fd, path);
    close(fd);
    return rc;
}
