/* SPDX-License-Identifier: MIT */
/*
 * A table under a lock that fork holds. It is a plain mutex, held for a few instructions: the child
 * must release what its parent acquired, and a lock of ours knows better than to let it.
 */
#include "concurrency/private_fd.h"
#include "concurrency/forks.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int *table; /* under lock, as are these */
static size_t count, room;

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

static void in_child(void)
{
    while (count > 0)
        close(table[--count]);
    pthread_mutex_unlock(&lock);
}

MODUS_FORK_PLAIN static void watch_forks(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

void modus_private_fd_begin(void)
{
    pthread_mutex_lock(&lock);
}

static int add(int fd)
{
    if (count == room) {
        size_t more = room ? room * 2 : 16;
        int *larger = realloc(table, more * sizeof *larger);

        if (!larger)
            return -ENOMEM;
        table = larger;
        room = more;
    }
    table[count++] = fd;
    return 0;
}

int modus_private_fd_end(int fd)
{
    int rc = fd >= 0 ? add(fd) : 0;

    if (rc < 0)
        close(fd);
    pthread_mutex_unlock(&lock);
    return rc;
}

void modus_private_fd_close(int fd)
{
    if (fd < 0)
        return;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++)
        if (table[i] == fd) {
            table[i] = table[--count];
            break;
        }
    close(fd);
    pthread_mutex_unlock(&lock);
}
