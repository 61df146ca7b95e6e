/* SPDX-License-Identifier: MIT */
/* The program's own file: see server/program.h. What argv[0] says is believed only if it is the file
 * that runs; else the kernel's word is taken, which knows no symbolic links. */
#include "server/program.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[PATH_MAX];

static bool is_us(const char *file)
{
    struct stat there, ours;
    return stat(file, &there) == 0 && stat("/proc/self/exe", &ours) == 0 &&
           there.st_dev == ours.st_dev && there.st_ino == ours.st_ino;
}

static bool take(const char *folder, size_t folder_len, const char *name)
{
    char file[2 * PATH_MAX];
    snprintf(file, sizeof file, "%.*s%s%s", (int)folder_len, folder, folder_len ? "/" : "", name);
    if (*file != '/' || strlen(file) >= sizeof path || !is_us(file))
        return false;
    memcpy(path, file, strlen(file) + 1);
    return true;
}

static bool look_in_path(const char *name)
{
    const char *at = getenv("PATH");
    for (size_t len; at && *at; at += len + (at[len] == ':')) {
        len = strcspn(at, ":");
        if (len < PATH_MAX && take(at, len, name))
            return true;
    }
    return false;
}

void program_init(const char *argv0)
{
    char here[PATH_MAX];
    bool is_word = argv0 && *argv0 && !strchr(argv0, '/'); /* a shell has looked for it */
    if (is_word && look_in_path(argv0))
        return;
    if (argv0 && *argv0 == '/' && take("", 0, argv0))
        return;
    while (argv0 && strncmp(argv0, "./", 2) == 0)
        argv0 += 2;
    if (argv0 && !is_word && getcwd(here, sizeof here) && take(here, strlen(here), argv0))
        return;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
}

const char *program_path(void)
{
    return path[0] ? path : NULL;
}
