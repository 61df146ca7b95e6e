/* SPDX-License-Identifier: MIT */
/*
 * The parent's side: make, start, join, signal, and the end of a program. What must be kept apart
 * from forks, and the reaping, are in process_list.c; the child's side is in process_child.c.
 */
#include "concurrency/process_priv.h"
#include "concurrency/coroutine.h"
#include "concurrency/park.h"
#include "concurrency/self.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/single_threaded.h>
#include <sys/wait.h>
#include <unistd.h>

enum { END_SECONDS = 5 };

static _Atomic unsigned numbers;

/* --- making ---------------------------------------------------------------------------------- */

static struct modus_process *make(const char *name)
{
    struct modus_process *made = calloc(1, sizeof *made);

    if (!made)
        return NULL;
    made->stamp = modus_self_stamp();
    made->pidfd = made->line = -1;
    for (int i = 0; i < 3; i++)
        made->pipes[i] = -1;
    if (name)
        snprintf(made->name, sizeof made->name, "%s", name);
    else
        snprintf(made->name, sizeof made->name, "Process-%u", atomic_fetch_add(&numbers, 1) + 1);
    atomic_store(&made->references, 1);
    return made;
}

int modus_process_new(struct modus_process **process, const struct modus_process_attr *attr,
                      int (*run)(void *argument), void *argument)
{
    static const struct modus_process_attr usual;

    if (!attr)
        attr = &usual;
    if (!run || attr->fds_count > MODUS_PROCESS_FDS_MAX)
        return -EINVAL;
    if (attr->start == MODUS_START_SPAWN && !modus_process_function_name(run))
        return -EINVAL;
    struct modus_process *made = make(attr->name);
    if (!made)
        return -ENOMEM;
    made->run = run;
    made->argument = argument;
    made->attr = *attr;
    made->daemon = attr->daemon == MODUS_DAEMON_INHERIT ? modus_process_self()->daemon
                                                        : attr->daemon == MODUS_DAEMON_YES;
    if (attr->fds_count)
        memcpy(made->fds, attr->fds, attr->fds_count * sizeof *attr->fds);
    *process = made;
    return 0;
}

int modus_process_new_program(struct modus_process **process, const char *name,
                              int (*launch)(struct modus_process *process, void *argument,
                                            pid_t *pid))
{
    struct modus_process *made = make(name);

    if (!made)
        return -ENOMEM;
    made->launch = launch;
    *process = made;
    return 0;
}

/* --- starting -------------------------------------------------------------------------------- */

int modus_process_orphan_signal(const struct modus_process *process)
{
    switch (process->attr.orphan) {
    case MODUS_ORPHAN_USUAL:
        return process->daemon ? SIGTERM : 0;
    case MODUS_ORPHAN_LIVES:
        return 0;
    case MODUS_ORPHAN_TERMINATED:
        return SIGTERM;
    case MODUS_ORPHAN_KILLED:
        return SIGKILL;
    }
    return 0;
}

/* What a start has open: the ends of the life line, and a descriptor that is set aside, so that the
 * child is not there when it turns out that there is none for it. -1: not. */
struct opened {
    int childs_end, parents_end, aside;
};

static int fork_child(struct modus_process *process, struct opened *opened, pid_t *pid)
{
    sigset_t all, mask;

    sigfillset(&all); /* no handler of ours runs in the child */
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    *pid = fork();
    if (*pid == 0) {
        modus_process_close_fd(&opened->parents_end);
        modus_process_close_fd(&opened->aside);
        modus_process_begin(process, opened->childs_end, &mask);
    }
    int rc = *pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return rc;
}

static int make_child(struct modus_process *process, struct opened *opened, pid_t *pid)
{
    if (process->launch)
        return process->launch(process, process->argument, pid);
    process->by_main = gettid() == getpid();
    if (process->attr.start == MODUS_START_SPAWN)
        return modus_process_spawn(process, opened->childs_end, pid);
    return fork_child(process, opened, pid);
}

static int make_watched_child(struct modus_process *process, struct opened *opened)
{
    pid_t pid;

    opened->aside = eventfd(0, EFD_CLOEXEC);
    if (opened->aside < 0)
        return -errno;
    int rc = make_child(process, opened, &pid);
    modus_process_close_fd(&opened->aside);
    if (rc < 0)
        return rc;
    int pidfd = pidfd_open(pid, 0);
    process->unseen = pidfd < 0 && errno == ESRCH;
    if (process->unseen) /* it has ended, and another has its status, or nobody */
        pidfd = eventfd(1, EFD_CLOEXEC);
    if (pidfd < 0 && process->unseen)
        return -errno;
    if (pidfd < 0) {
        rc = -errno; /* another thread was faster */
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        return rc;
    }
    process->pid = pid;
    process->pidfd = pidfd;
    return 0;
}

/* Before one that is closed becomes one of ours. */
static bool are_open(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (fcntl(fds[i], F_GETFD) < 0)
            return false;
    return true;
}

/* Under the lock. */
static int start_locked(struct modus_process *process)
{
    struct opened opened = {-1, -1, -1};
    int line[2];

    if (!are_open(process->fds, process->attr.fds_count))
        return -EBADF;
    if (modus_process_orphan_signal(process)) {
        if (pipe2(line, O_CLOEXEC) < 0)
            return -errno;
        opened = (struct opened){line[0], line[1], -1};
    }
    int rc = make_watched_child(process, &opened);
    modus_process_close_fd(&opened.childs_end);
    if (rc < 0) {
        modus_process_close_fd(&opened.parents_end);
        return rc;
    }
    process->line = opened.parents_end;
    modus_processes_add(process);
    return 0;
}

static void end_at_exit(void)
{
    modus_process_end_daemons();
}

static int start(struct modus_process *process)
{
    static atomic_flag registered = ATOMIC_FLAG_INIT;
    uint32_t state = MODUS_PROCESS_NEW;

    if (!atomic_compare_exchange_strong(&process->state, &state, MODUS_PROCESS_STARTING))
        return -EALREADY;
    if (!atomic_flag_test_and_set(&registered))
        atexit(end_at_exit);
    modus_processes_sweep();
    modus_process_get(process);
    modus_processes_lock();
    int rc = start_locked(process);
    modus_process_set_state(process, rc == 0 ? MODUS_PROCESS_RUNNING : MODUS_PROCESS_NEW);
    if (rc == 0)
        modus_processes_watch_new(process);
    modus_processes_unlock();
    if (rc < 0)
        modus_process_put(process);
    if (rc == 0 && process->unseen)
        modus_process_reap(process);
    return rc;
}

int modus_process_start(struct modus_process *process)
{
    if (process->is_static)
        return -EALREADY;
    if (!modus_process_is_mine(process))
        return -ECHILD;
    if (modus_process_self()->daemon)
        return -EPERM;
    modus_process_not_astray();
    process->flush_all = __libc_single_threaded;
    if (process->attr.start == MODUS_START_FORK)
        modus_process_flush(process->flush_all);
    return start(process);
}

int modus_process_start_program(struct modus_process *process, void *argument)
{
    process->argument = argument;
    return start(process);
}

/* --- joining --------------------------------------------------------------------------------- */

/* Returns 0 if there is something to wait for. */
static int check(struct modus_process *process)
{
    if (!modus_process_is_mine(process))
        return -ECHILD;
    if (process == modus_process_self())
        return -EDEADLK;
    return modus_process_settled(process) == MODUS_PROCESS_NEW ? -ESRCH : 0;
}

/* It has ended, but not to us yet: a debugger that traces it comes first. */
static int await_tracer(int64_t deadline)
{
    int rc = modus_co_sleep(modus_ms(1));

    return rc == 0 && deadline != MODUS_FOREVER && modus_now_ns() >= deadline ? -ETIMEDOUT : rc;
}

int modus_process_join_until(struct modus_process *process, int64_t deadline, int *code)
{
    int rc = deadline < MODUS_FOREVER ? -EINVAL : check(process);
    bool told = false;

    while (rc == 0 && !modus_process_reap(process)) {
        rc = told ? await_tracer(deadline) : modus_park_fd(process->pidfd, POLLIN, deadline, NULL);
        told = rc == 0;
    }
    if (rc == 0 && code)
        *code = process->code;
    return rc;
}

int modus_process_join(struct modus_process *process, int64_t ns, int *code)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (ns == 0 && check(process) == 0 && !modus_process_reap(process))
        return -EAGAIN;
    return modus_process_join_until(process, modus_deadline(ns), code);
}

/* --- signals --------------------------------------------------------------------------------- */

/* As long as it is not reaped, its pid is the number of its group, and nobody else's. */
static int signal_group(struct modus_process *process, int signal)
{
    uint32_t state = MODUS_PROCESS_RUNNING;

    while (!atomic_compare_exchange_strong(&process->state, &state, MODUS_PROCESS_REAPING)) {
        if (modus_process_settled(process) == MODUS_PROCESS_ENDED)
            return 0;
        state = MODUS_PROCESS_RUNNING;
    }
    int rc = kill(-process->pid, signal) == 0 || errno == ESRCH ? 0 : -errno;
    modus_process_set_state(process, MODUS_PROCESS_RUNNING);
    return rc;
}

int modus_process_signal(struct modus_process *process, int signal)
{
    if (!modus_process_is_mine(process))
        return -ECHILD;
    if (process == modus_process_self())
        return kill(getpid(), signal) == 0 ? 0 : -errno;
    uint32_t state = modus_process_settled(process);
    if (state == MODUS_PROCESS_NEW)
        return -ESRCH;
    if (process->leads_group)
        return signal_group(process, signal);
    if (state == MODUS_PROCESS_ENDED || pidfd_send_signal(process->pidfd, signal, NULL, 0) == 0)
        return 0;
    return errno == ESRCH ? 0 : -errno;
}

int modus_process_terminate(struct modus_process *process)
{
    return modus_process_signal(process, SIGTERM);
}

int modus_process_kill(struct modus_process *process)
{
    return modus_process_signal(process, SIGKILL);
}

/* --- questions ------------------------------------------------------------------------------- */

int modus_process_set_daemon(struct modus_process *process, bool daemon)
{
    if (process->is_static || atomic_load(&process->state) != MODUS_PROCESS_NEW)
        return -EBUSY;
    process->daemon = daemon;
    return 0;
}

bool modus_process_alive(struct modus_process *process)
{
    if (!modus_process_is_mine(process))
        return false;
    if (process == modus_process_self())
        return true;
    return modus_process_settled(process) == MODUS_PROCESS_RUNNING && !modus_process_reap(process);
}

bool modus_process_is_daemon(const struct modus_process *process)
{
    return process->daemon;
}

const char *modus_process_name(const struct modus_process *process)
{
    return process->name;
}

pid_t modus_process_pid(const struct modus_process *process)
{
    return process == modus_process_self() ? getpid() : process->pid;
}

int modus_process_fd(const struct modus_process *process)
{
    if (!modus_process_is_mine(process))
        return -ECHILD;
    return process->pidfd >= 0 ? process->pidfd : -ESRCH;
}

/* --- the end of a program -------------------------------------------------------------------- */

void modus_process_end_daemons(void)
{
    int64_t deadline = modus_deadline(modus_seconds(END_SECONDS));
    struct modus_process *process;

    modus_processes_terminate_daemons();
    while ((process = modus_processes_any(true)) != NULL) {
        if (modus_process_join_until(process, deadline, NULL) < 0) {
            modus_process_kill(process);
            modus_process_join(process, MODUS_FOREVER, NULL);
        }
        modus_process_put(process);
    }
}

void modus_process_join_all(void)
{
    struct modus_process *process;
    int rc = 0;

    modus_process_end_daemons();
    while (rc == 0 && (process = modus_processes_any(false)) != NULL) {
        rc = modus_process_join(process, MODUS_FOREVER, NULL);
        modus_process_put(process);
    }
    modus_process_end_daemons();
}
