/* SPDX-License-Identifier: MIT */
/*
 * The process's own job is a count of one in an eventfd: so who waits can wait for that and for
 * make's pipe at once, by an epoll descriptor of both, which poll takes as any other.
 *
 * Which bytes are held is noted by their value, in counters and not in a list: whoever gives one
 * back, be it a signal handler or the end of the program, takes it out of its counter first.
 */
#include "concurrency/jobserver.h"
#include "concurrency/forks.h"
#include "concurrency/park.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BYTES = 256 };

struct modus_jobserver {
    pid_t pid;
    int pipe;  /* make's; both ends */
    int own;   /* 1 while the process's own job is free */
    int ready; /* when one of the two is */
    atomic_bool own_held;
    _Atomic unsigned held[BYTES]; /* how many of each */
    struct modus_jobserver *next; /* under lock */
};

/* --- the end of the program ------------------------------------------------------------------ */

/* A plain mutex, which fork holds: the child has none of them open. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct modus_jobserver *servers;
static bool at_exit;

static void give_all_back(struct modus_jobserver *server)
{
    while (modus_jobserver_release(server) == 0)
        continue;
}

static void end(void)
{
    pthread_mutex_lock(&lock);
    for (struct modus_jobserver *server = servers; server; server = server->next)
        give_all_back(server);
    pthread_mutex_unlock(&lock);
}

static int enter(struct modus_jobserver *server)
{
    pthread_mutex_lock(&lock);
    if (!at_exit)
        at_exit = atexit(end) == 0;
    if (at_exit) {
        server->next = servers;
        servers = server;
    }
    pthread_mutex_unlock(&lock);
    return at_exit ? 0 : -ENOMEM;
}

static void leave(struct modus_jobserver *server)
{
    pthread_mutex_lock(&lock);
    for (struct modus_jobserver **link = &servers; *link; link = &(*link)->next)
        if (*link == server) {
            *link = server->next;
            break;
        }
    pthread_mutex_unlock(&lock);
}

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
    servers = NULL;
    pthread_mutex_unlock(&lock);
}

MODUS_FORK_PLAIN static void watch_forks(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

/* --- what make says -------------------------------------------------------------------------- */

/* The value of the option if the word is it; its length goes to *length. */
static const char *value_of(const char *word, size_t *length)
{
    static const char *const options[] = {"--jobserver-auth=", "--jobserver-fds="}; /* since 4.2 */

    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        size_t skip = strlen(options[i]);

        if (*length >= skip && strncmp(word, options[i], skip) == 0) {
            *length -= skip;
            return word + skip;
        }
    }
    return NULL;
}

/* Copy what is said of the jobserver: the last word counts, and behind "--" come variables. */
static int find_words(const char *flags, char value[PATH_MAX])
{
    int rc = -ENOENT;

    for (const char *word = flags; *word;) {
        size_t length = strcspn(word, " \t"), value_length = length;
        const char *found = value_of(word, &value_length);

        if (length == 2 && strncmp(word, "--", 2) == 0)
            break;
        if (found && value_length >= PATH_MAX)
            return -EINVAL;
        if (found) {
            memcpy(value, found, value_length);
            value[value_length] = 0;
            rc = 0;
        }
        word += length + strspn(word + length, " \t");
    }
    return rc;
}

/* --- opening --------------------------------------------------------------------------------- */

static bool is_pipe(int fd, struct stat *status)
{
    return fd >= 0 && fstat(fd, status) == 0 && S_ISFIFO(status->st_mode);
}

/* Open it once more: O_NONBLOCK belongs to what has been opened, and others have opened theirs. */
static int open_again(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return errno == EPERM ? -EACCES : -errno;
    if (is_pipe(fd, &status))
        return fd;
    close(fd);
    return -EBADF;
}

static int open_pipe(int reads, int writes)
{
    struct stat one, other;
    char path[32];

    if (!is_pipe(reads, &one) || !is_pipe(writes, &other) || one.st_dev != other.st_dev ||
        one.st_ino != other.st_ino)
        return -EBADF;
    snprintf(path, sizeof path, "/proc/self/fd/%d", reads);
    return open_again(path);
}

/* Returns a descriptor. */
static int open_value(const char *value)
{
    int reads, writes, length = 0;

    if (strncmp(value, "fifo:", 5) == 0)
        return value[5] ? open_again(value + 5) : -EINVAL;
    if (sscanf(value, "%d,%d%n", &reads, &writes, &length) != 2 || value[length] != 0)
        return -EINVAL;
    if (reads < 0 || writes < 0)
        return -ENOENT; /* make says so: not for this program */
    return open_pipe(reads, writes);
}

static int watch(struct modus_jobserver *server, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    return epoll_ctl(server->ready, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

static void close_all(struct modus_jobserver *server)
{
    if (server->ready >= 0)
        close(server->ready);
    if (server->own >= 0)
        close(server->own);
    close(server->pipe);
    free(server);
}

static int open_rest(struct modus_jobserver *server)
{
    server->own = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->own < 0)
        return -errno;
    server->ready = epoll_create1(EPOLL_CLOEXEC);
    if (server->ready < 0)
        return -errno;
    int rc = watch(server, server->pipe);
    return rc < 0 ? rc : watch(server, server->own);
}

int modus_jobserver_open(struct modus_jobserver **out, const char *flags)
{
    char value[PATH_MAX];

    if (!flags)
        flags = getenv("MAKEFLAGS");
    int rc = flags ? find_words(flags, value) : -ENOENT;
    if (rc < 0)
        return rc;
    int fd = open_value(value);
    if (fd < 0)
        return fd;
    struct modus_jobserver *server = calloc(1, sizeof *server);
    if (!server) {
        close(fd);
        return -ENOMEM;
    }
    server->pid = getpid();
    server->pipe = fd;
    server->own = server->ready = -1;
    rc = open_rest(server);
    if (rc == 0)
        rc = enter(server);
    if (rc < 0) {
        close_all(server);
        return rc;
    }
    *out = server;
    return 0;
}

void modus_jobserver_close(struct modus_jobserver *server)
{
    if (!server)
        return;
    leave(server);
    give_all_back(server);
    close_all(server);
}

/* --- jobs ------------------------------------------------------------------------------------ */

static bool take(struct modus_jobserver *server)
{
    uint64_t one;
    unsigned char byte;

    if (read(server->own, &one, sizeof one) == sizeof one) {
        atomic_store(&server->own_held, true);
        return true;
    }
    if (read(server->pipe, &byte, 1) != 1)
        return false;
    atomic_fetch_add(&server->held[byte], 1);
    return true;
}

static int acquire(struct modus_jobserver *server, bool waits, int64_t deadline)
{
    int rc = 0;

    if (server->pid != getpid())
        return -ECHILD;
    while (!take(server)) {
        if (!waits)
            return -EAGAIN;
        if (rc < 0)
            return rc;
        rc = modus_park_fd(server->ready, POLLIN, deadline, NULL);
    }
    return 0;
}

int modus_jobserver_acquire(struct modus_jobserver *server, int64_t ns)
{
    return ns < MODUS_FOREVER ? -EINVAL : acquire(server, ns != 0, modus_deadline(ns));
}

int modus_jobserver_acquire_until(struct modus_jobserver *server, int64_t deadline)
{
    return deadline < MODUS_FOREVER ? -EINVAL : acquire(server, true, deadline);
}

/* Returns 0 if such a byte was held. */
static int give_back(struct modus_jobserver *server, unsigned char byte)
{
    unsigned count = atomic_load(&server->held[byte]);

    do
        if (count == 0)
            return -EPERM;
    while (!atomic_compare_exchange_weak(&server->held[byte], &count, count - 1));
    if (write(server->pipe, &byte, 1) == 1)
        return 0;
    atomic_fetch_add(&server->held[byte], 1);
    return -EAGAIN;
}

/* The process's own one is the last: the others may be waited for elsewhere. */
static int give_any_back(struct modus_jobserver *server)
{
    uint64_t one = 1;
    bool held = true;

    for (unsigned byte = 0; byte < BYTES; byte++) {
        int rc = give_back(server, (unsigned char)byte);

        if (rc != -EPERM)
            return rc;
    }
    if (!atomic_compare_exchange_strong(&server->own_held, &held, false))
        return -EPERM;
    return write(server->own, &one, sizeof one) == sizeof one ? 0 : -EAGAIN;
}

int modus_jobserver_release(struct modus_jobserver *server)
{
    int saved = errno;
    int rc = server->pid == getpid() ? give_any_back(server) : -ECHILD;

    errno = saved;
    return rc;
}

unsigned modus_jobserver_held(const struct modus_jobserver *server)
{
    unsigned count = 0;

    if (server->pid != getpid())
        return 0;
    for (unsigned byte = 0; byte < BYTES; byte++)
        count += atomic_load(&server->held[byte]);
    return count + atomic_load(&server->own_held);
}
