/* SPDX-License-Identifier: MIT */
/* Counts of what must not be left behind: descriptors, threads, children. */
#ifndef TESTS_UNIT_TEST_CONCURRENCY_LEFT_H
#define TESTS_UNIT_TEST_CONCURRENCY_LEFT_H

#include "test_concurrency.h"

#include <dirent.h>
#include <fcntl.h>

static inline unsigned entries(const char *folder)
{
    unsigned count = 0;
    DIR *dir = opendir(folder);

    CHECK(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static inline unsigned fds_here(void)
{
    return entries("/proc/self/fd") - 1; /* its own */
}

/* One that has been joined may be listed for a moment longer: wait until there are as few again. */
static inline unsigned threads_here(void)
{
    return entries("/proc/self/task");
}

static inline void *note_own_tid(void *argument)
{
    atomic_store((atomic_int *)argument, gettid());
    return NULL;
}

/* The main thread, and a sanitizer's own, which begins with the first that the program starts. */
static inline unsigned threads_at_rest(void)
{
    atomic_int tid = 0;

    join_thread(start_thread(note_own_tid, &tid));
    AWAIT(state_of(atomic_load(&tid)) == 0);
    return threads_here();
}

/* Children of this process, zombies too. */
static inline unsigned children_here(void)
{
    char path[64], buffer[4096];
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/task");

    CHECK(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        snprintf(path, sizeof path, "/proc/self/task/%.16s/children", entry->d_name);
        int fd = open(path, O_RDONLY);
        ssize_t size;

        while (fd >= 0 && (size = read(fd, buffer, sizeof buffer)) > 0)
            for (ssize_t i = 0; i < size; i++)
                count += buffer[i] == ' ';
        if (fd >= 0)
            close(fd);
    }
    closedir(dir);
    return count;
}

#endif
