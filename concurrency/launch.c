/* SPDX-License-Identifier: MIT */
/*
 * A descriptor that has to become number i, and whose own number is the place of another one, is
 * first moved above all places; then the order does not matter.
 */
#include "concurrency/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

enum { FDS_MAX = 80 };

extern char **environ;

/* Copies of the descriptors that stand in the way; -1: it does not. */
static int move_away(const struct modus_launch *launch, int *moved)
{
    for (unsigned i = 0; i < launch->count; i++)
        moved[i] = -1;
    for (unsigned i = 0; i < launch->count; i++) {
        int fd = launch->fds[i];

        if (fd < 0 || fd == (int)i || fd >= (int)launch->count)
            continue;
        moved[i] = fcntl(fd, F_DUPFD_CLOEXEC, (int)launch->count);
        if (moved[i] < 0)
            return -errno;
    }
    return 0;
}

static int add_actions(const struct modus_launch *launch, const int *moved,
                       posix_spawn_file_actions_t *actions)
{
    int rc = 0;

    if (launch->folder)
        rc = posix_spawn_file_actions_addchdir_np(actions, launch->folder);
    for (unsigned i = 0; i < launch->count && rc == 0; i++) {
        int fd = moved[i] >= 0 ? moved[i] : launch->fds[i];

        rc = fd < 0 ? posix_spawn_file_actions_addclose(actions, (int)i)
                    : posix_spawn_file_actions_adddup2(actions, fd, (int)i);
    }
    if (rc == 0)
        rc = posix_spawn_file_actions_addclosefrom_np(actions, (int)launch->count);
    return -rc;
}

static void set_attributes(const struct modus_launch *launch, posix_spawnattr_t *attr)
{
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attr, &none);
    posix_spawnattr_setsigdefault(attr, &all);
    if (launch->session)
        flags |= POSIX_SPAWN_SETSID;
    else if (launch->group)
        flags |= POSIX_SPAWN_SETPGROUP; /* 0, its own */
    posix_spawnattr_setflags(attr, flags);
}

static int spawn(const struct modus_launch *launch, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attr, pid_t *pid)
{
    /* The calls take char *const [] for reasons of age, and change nothing. */
    union {
        const char *const *in;
        char *const *out;
    } argv = {.in = launch->argv}, environment = {.in = launch->environment};

    if (!launch->environment)
        environment.out = environ;
    return -(launch->search ? posix_spawnp : posix_spawn)(pid, launch->path, actions, attr,
                                                          argv.out, environment.out);
}

int modus_launch(const struct modus_launch *launch, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int moved[FDS_MAX];

    if (launch->count > FDS_MAX)
        return -EINVAL;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return -ENOMEM;
    posix_spawnattr_init(&attr);
    set_attributes(launch, &attr);
    int rc = move_away(launch, moved);
    if (rc == 0)
        rc = add_actions(launch, moved, &actions);
    if (rc == 0)
        rc = spawn(launch, &actions, &attr, pid);
    for (unsigned i = 0; i < launch->count; i++)
        if (moved[i] >= 0)
            close(moved[i]);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

int modus_launch_inherited(int i)
{
    int flags = fcntl(i, F_GETFD);

    return flags < 0 || (flags & FD_CLOEXEC) ? -1 : i;
}
