/* SPDX-License-Identifier: MIT */
/* The pid file: see server/pid_file.h. */
#include "server/pid_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/log.h"
#include "server/may_write.h"

#define IS_NONE "pid_file %s is there already, and is no pid file"

static bool is_still(const char *path, int fd)
{
    struct stat there, ours;
    return stat(path, &there) == 0 && fstat(fd, &ours) == 0 && there.st_dev == ours.st_dev &&
           there.st_ino == ours.st_ino;
}

/* A number and nothing else, or nothing: what else it holds is not ours to overwrite. */
static bool is_pid_file(int fd)
{
    char text[32];
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    ssize_t n = pread(fd, text, sizeof text, 0);
    for (ssize_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)text[i]) && text[i] != '\n')
            return false;
    return n >= 0 && n < (ssize_t)sizeof text;
}

static bool is_free(int fd, const char *path, char *why, size_t why_size)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char pid[32] = "";
    if (!is_pid_file(fd)) {
        snprintf(why, why_size, IS_NONE, path);
        return false;
    }
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
        return true;
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0); /* the lock knows no process */
    pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
    snprintf(why, why_size,
             "pid_file %s is that of a running server%s%s; stop it or name another file", path,
             *pid ? ", process " : "", pid);
    return false;
}

int pid_file_check(const char *path, char *why, size_t why_size)
{
    if (may_write_file(path, why, why_size) != 0)
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0; /* to be made */
    bool fits = is_pid_file(fd);
    close(fd);
    if (!fits)
        snprintf(why, why_size, IS_NONE, path);
    return fits ? 0 : -1;
}

/* Who reads it meanwhile finds the old number or the new one, and nothing else. */
static bool write_pid(int fd)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%d\n", getpid());
    memset(text + n, '\n', sizeof text - (size_t)n);
    struct stat st;
    size_t len = fstat(fd, &st) == 0 && st.st_size > n ? (size_t)st.st_size : (size_t)n;
    len = len < sizeof text ? len : sizeof text;
    return pwrite(fd, text, len, 0) == (ssize_t)len && ftruncate(fd, n) == 0;
}

static int lock_and_write(int fd, const char *path, char *why, size_t why_size)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (!is_free(fd, path, why, why_size))
        return -1;
    bool ours = fcntl(fd, F_OFD_SETLK, &lock) == 0;
    if (ours && write_pid(fd))
        return 0;
    snprintf(why, why_size, "cannot write pid_file %s: %s", path, strerror(errno));
    if (ours && is_still(path, fd))
        unlink(path); /* nobody's number stands in it */
    return -1;
}

int pid_file_take(const char *path, char *why, size_t why_size)
{
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
        if (fd < 0) {
            snprintf(why, why_size, "cannot write pid_file %s: %s", path, strerror(errno));
            return -1;
        }
        int r = lock_and_write(fd, path, why, why_size);
        if (r == 0 && is_still(path, fd))
            return fd;
        close(fd);
        if (r != 0)
            return -1;
        /* One that was just stopping removed it under our hands. */
    }
}

void pid_file_write(int fd)
{
    if (!write_pid(fd))
        log_warn("cannot write the pid file: %s", strerror(errno));
}

void pid_file_give_back(const char *path, int fd)
{
    if (is_still(path, fd))
        unlink(path);
    close(fd);
}
