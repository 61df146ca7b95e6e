/* SPDX-License-Identifier: MIT */
/* Whether files may be written: see server/may_write.h. */
#include "server/may_write.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int may_write_folder_of(const char *path, char *why, size_t why_size)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash > path ? (size_t)(slash - path) : 1;
    if (len >= sizeof folder) {
        snprintf(why, why_size, "cannot write %s: %s", path, strerror(ENAMETOOLONG));
        return -1;
    }
    memcpy(folder, path, len);
    folder[len] = '\0';
    if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) == 0)
        return 0;
    snprintf(why, why_size, "cannot write %s: its folder: %s%s", path, strerror(errno),
             errno == ENOENT ? "; make it first" : "");
    return -1;
}

int may_write_file(const char *path, char *why, size_t why_size)
{
    struct stat st = {0};
    if (stat(path, &st) != 0 && errno == ENOENT)
        return may_write_folder_of(path, why, why_size);
    if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0) {
        if (!S_ISDIR(st.st_mode))
            return 0;
        errno = EISDIR;
    }
    snprintf(why, why_size, "cannot write %s: %s", path, strerror(errno));
    return -1;
}
