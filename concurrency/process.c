/* SPDX-License-Identifier: MIT */
/*
 * The parent's side: start, wait, reap.
 *
 * Joiners wait for the pidfd, which wakes all of them. Whoever moves the state from RUNNING to
 * REAPING asks the kernel for the status; the others wait for the word, for a moment. So no thread
 * is needed to wait, and none costs the usual start and join a detour. The reaper is for those that
 * nobody has a handle on any more: the last putter hands it its reference.
 *
 * All handles with descriptors are in one list. It belongs to a process and not to its fork: a
 * child closes them first of all, because the parent's end of a life line, held by a sibling, would
 * hide the parent's death. For that a fork must find the list whole, and no end outside of it: so
 * its lock is held from the pipe to the fork, and in any fork of others.
 */
#include "concurrency/process_priv.h"
#include "concurrency/coroutine.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/ready.h"
#include "concurrency/self.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/single_threaded.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SWEEP = 8, REAPER_STACK = 128 * 1024, END_SECONDS = 5 };

/* Of this process; all under the lock. */
static struct modus_lock list_lock = MODUS_LOCK_INIT;
static struct modus_process *list;
static unsigned running; /* started and not reaped */
static unsigned starts;  /* since the last sweep */
static int watched = -1; /* the reaper's epoll set; -1: there is no reaper */
static unsigned watched_count;

static _Atomic unsigned numbers;
static _Thread_local bool starting; /* this thread holds the lock, and forks */

/* --- the list -------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void list_add(struct modus_process *process)
{
    process->previous = NULL;
    process->next = list;
    if (list)
        list->previous = process;
    list = process;
}

static void list_remove(struct modus_process *process)
{
    if (list != process && !process->previous)
        return;
    *(process->previous ? &process->previous->next : &list) = process->next;
    if (process->next)
        process->next->previous = process->previous;
    process->next = process->previous = NULL;
}

static void before_fork(void)
{
    if (!starting)
        modus_lock_acquire(&list_lock, MODUS_FOREVER);
}

static void after_fork(void)
{
    if (!starting)
        modus_lock_release(&list_lock);
}

/* The child has none of them. */
static void begin_child(void)
{
    for (struct modus_process *process = list; process; process = process->next) {
        close_fd(&process->pidfd);
        close_fd(&process->line);
        for (int i = 0; i < 3; i++)
            close_fd(&process->pipes[i]);
    }
    close_fd(&watched);
    list = NULL;
    running = starts = watched_count = 0;
    starting = false;
    modus_lock_free_in_child(&list_lock);
    modus_process_become(NULL, -1);
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, begin_child);
}

static bool is_mine(const struct modus_process *process)
{
    return process->is_static ? process == modus_process_self()
                              : process->stamp == modus_self_stamp();
}

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

/* --- reaping --------------------------------------------------------------------------------- */

/* Returns whether it has ended, and its code. */
static bool ask(const struct modus_process *process, int *code)
{
    siginfo_t info = {0};

    if (waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG) < 0)
        *code = MODUS_EXIT_UNKNOWN; /* ECHILD */
    else if (info.si_pid == 0)
        return false;
    else
        *code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    return true;
}

static void set_state(struct modus_process *process, uint32_t state)
{
    atomic_store(&process->state, state);
    modus_unpark(MODUS_THREAD, &process->state, INT_MAX);
}

/* Wait until nobody is about to change the state; returns it. */
static uint32_t settled(struct modus_process *process)
{
    uint32_t state;

    while ((state = atomic_load(&process->state)) == MODUS_PROCESS_STARTING ||
           state == MODUS_PROCESS_REAPING)
        modus_park_deaf(MODUS_THREAD, &process->state, state, MODUS_FOREVER, NULL);
    return state;
}

/* Reap it if it has ended; returns whether it has. The caller has a reference. */
static bool reap(struct modus_process *process)
{
    uint32_t state = MODUS_PROCESS_RUNNING;

    if (!atomic_compare_exchange_strong(&process->state, &state, MODUS_PROCESS_REAPING)) {
        if (settled(process) != MODUS_PROCESS_RUNNING)
            return atomic_load(&process->state) == MODUS_PROCESS_ENDED;
        return reap(process);
    }
    if (!ask(process, &process->code)) {
        set_state(process, MODUS_PROCESS_RUNNING);
        return false;
    }
    if (process->attr.arena)
        modus_participant_bury(process->attr.arena, process->pid);
    modus_lock_acquire(&list_lock, MODUS_FOREVER);
    running--;
    close_fd(&process->line);
    set_state(process, MODUS_PROCESS_ENDED);
    modus_lock_release(&list_lock);
    modus_process_put(process); /* its own reference */
    return true;
}

/* Reap what has ended, one start in so many: what it costs and what it leaves undone both stay
 * bounded. */
static void sweep(void)
{
    unsigned n = 0;

    modus_lock_acquire(&list_lock, MODUS_FOREVER);
    if (++starts <= SWEEP || starts <= running / 2) {
        modus_lock_release(&list_lock);
        return;
    }
    starts = 0;
    struct modus_process **all = calloc(running + 1, sizeof *all);
    for (struct modus_process *at = list; all && at; at = at->next)
        if (atomic_load(&at->state) == MODUS_PROCESS_RUNNING && n < running)
            all[n++] = modus_process_get(at);
    modus_lock_release(&list_lock);
    for (unsigned i = 0; i < n; i++) {
        reap(all[i]);
        modus_process_put(all[i]);
    }
    free(all);
}

/* --- the reaper ------------------------------------------------------------------------------ */

static void *reap_watched(void *argument)
{
    struct epoll_event event;
    bool last = false;
    (void)argument;

    while (!last) {
        if (epoll_wait(watched, &event, 1, -1) != 1)
            continue;
        struct modus_process *process = event.data.ptr;
        if (!reap(process)) { /* a tracer has not let go of it yet */
            modus_co_sleep(modus_ms(1));
            continue;
        }
        modus_lock_acquire(&list_lock, MODUS_FOREVER);
        epoll_ctl(watched, EPOLL_CTL_DEL, process->pidfd, NULL);
        last = --watched_count == 0;
        if (last)
            close_fd(&watched);
        modus_lock_release(&list_lock);
        modus_process_put(process);
    }
    return NULL;
}

/* Under the lock. */
static int start_reaper(void)
{
    const struct modus_thread_attr attr = {
        .name = "modus-reaper", .daemon = MODUS_DAEMON_YES, .stack = REAPER_STACK};
    struct modus_thread *thread;
    sigset_t all, mask;

    watched = epoll_create1(EPOLL_CLOEXEC);
    if (watched < 0)
        return -errno;
    int rc = modus_thread_new(&thread, &attr, reap_watched, NULL);
    if (rc == 0) {
        sigfillset(&all); /* signals are for the program's own threads */
        pthread_sigmask(SIG_SETMASK, &all, &mask);
        rc = modus_thread_start(thread);
        pthread_sigmask(SIG_SETMASK, &mask, NULL);
        modus_thread_put(thread);
    }
    if (rc < 0)
        close_fd(&watched);
    return rc;
}

/* Under the lock: give the reaper the caller's reference. On failure it is left to the sweeps. */
static bool give_to_reaper(struct modus_process *process)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = process};

    if (watched < 0 && start_reaper() < 0)
        return false;
    watched_count++;
    if (epoll_ctl(watched, EPOLL_CTL_ADD, process->pidfd, &event) == 0)
        return true;
    watched_count--;
    return false;
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

static int fork_child(struct modus_process *process, const int line[2], pid_t *pid)
{
    sigset_t all, mask;

    sigfillset(&all); /* no handler of ours runs in the child */
    pthread_sigmask(SIG_SETMASK, &all, &mask);
    *pid = fork();
    if (*pid == 0) {
        if (line[1] >= 0)
            close(line[1]);
        modus_process_begin(process, line[0], &mask);
    }
    int rc = *pid < 0 ? -errno : 0;
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return rc;
}

static int make_child(struct modus_process *process, const int line[2], pid_t *pid)
{
    if (process->launch)
        return process->launch(process, process->argument, pid);
    process->by_main = gettid() == getpid();
    if (process->attr.start == MODUS_START_SPAWN)
        return modus_process_spawn(process, line[0], pid);
    return fork_child(process, line, pid);
}

/* Under the lock. A descriptor is set aside before, so that the child is not there when it turns out
 * that there is none for it. */
static int make_watched_child(struct modus_process *process, const int line[2])
{
    int aside = eventfd(0, EFD_CLOEXEC), rc;
    pid_t pid;

    if (aside < 0)
        return -errno;
    rc = make_child(process, line, &pid);
    close(aside);
    if (rc < 0)
        return rc;
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        rc = -errno; /* another thread was faster */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
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

static int start_locked(struct modus_process *process)
{
    int line[2] = {-1, -1};

    if (!are_open(process->fds, process->attr.fds_count))
        return -EBADF;
    if (modus_process_orphan_signal(process) && pipe2(line, O_CLOEXEC) < 0)
        return -errno;
    int rc = make_watched_child(process, line);
    close_fd(&line[0]);
    if (rc < 0) {
        close_fd(&line[1]);
        return rc;
    }
    process->line = line[1];
    list_add(process);
    running++;
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
    sweep();
    modus_process_get(process);
    modus_lock_acquire(&list_lock, MODUS_FOREVER);
    starting = true;
    int rc = start_locked(process);
    starting = false;
    set_state(process, rc == 0 ? MODUS_PROCESS_RUNNING : MODUS_PROCESS_NEW);
    modus_lock_release(&list_lock);
    if (rc < 0)
        modus_process_put(process);
    return rc;
}

int modus_process_start(struct modus_process *process)
{
    if (process->is_static)
        return -EALREADY;
    if (!is_mine(process))
        return -ECHILD;
    if (modus_process_self()->daemon)
        return -EPERM;
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
    if (!is_mine(process))
        return -ECHILD;
    if (process == modus_process_self())
        return -EDEADLK;
    return settled(process) == MODUS_PROCESS_NEW ? -ESRCH : 0;
}

/* It has ended, but not to us yet: a debugger that traces it comes first. */
static int await_tracer(int64_t deadline)
{
    int rc = modus_co_sleep(modus_ms(1));

    return rc == 0 && deadline != MODUS_FOREVER && modus_now_ns() >= deadline ? -ETIMEDOUT : rc;
}

int modus_process_join_until(struct modus_process *process, int64_t deadline, int *code)
{
    struct pollfd end = {.events = POLLIN};
    int rc = deadline < MODUS_FOREVER ? -EINVAL : check(process);
    bool told = false;

    while (rc == 0 && !reap(process)) {
        end.fd = process->pidfd;
        rc = told ? await_tracer(deadline) : modus_ready(&end, 1, deadline);
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
    if (ns == 0 && check(process) == 0 && !reap(process))
        return -EAGAIN;
    return modus_process_join_until(process, modus_deadline(ns), code);
}

/* --- signals --------------------------------------------------------------------------------- */

/* As long as it is not reaped, its pid is the number of its group, and nobody else's. */
static int signal_group(struct modus_process *process, int signal)
{
    uint32_t state = MODUS_PROCESS_RUNNING;

    while (!atomic_compare_exchange_strong(&process->state, &state, MODUS_PROCESS_REAPING)) {
        if (settled(process) == MODUS_PROCESS_ENDED)
            return 0;
        state = MODUS_PROCESS_RUNNING;
    }
    int rc = kill(-process->pid, signal) == 0 || errno == ESRCH ? 0 : -errno;
    set_state(process, MODUS_PROCESS_RUNNING);
    return rc;
}

int modus_process_signal(struct modus_process *process, int signal)
{
    if (!is_mine(process))
        return -ECHILD;
    if (process == modus_process_self())
        return kill(getpid(), signal) == 0 ? 0 : -errno;
    uint32_t state = settled(process);
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

/* --- references ------------------------------------------------------------------------------ */

struct modus_process *modus_process_get(struct modus_process *process)
{
    if (process && !process->is_static)
        atomic_fetch_add(&process->references, 1);
    return process;
}

static void destroy(struct modus_process *process)
{
    if (is_mine(process)) {
        modus_lock_acquire(&list_lock, MODUS_FOREVER);
        list_remove(process);
        close_fd(&process->pidfd);
        close_fd(&process->line);
        for (int i = 0; i < 3; i++)
            close_fd(&process->pipes[i]);
        modus_lock_release(&list_lock);
    }
    free(process);
}

void modus_process_close_pipe(struct modus_process *process, int i)
{
    if (process->pipes[i] < 0)
        return;
    modus_lock_acquire(&list_lock, MODUS_FOREVER); /* no fork sees a number that is another's */
    close_fd(&process->pipes[i]);
    modus_lock_release(&list_lock);
}

/* As long as it is not reaped, its own reference keeps it; if the caller's is the only other one,
 * the reaper has it now. Returns whether the reference is gone. */
static bool put_running(struct modus_process *process)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    uint32_t state = atomic_load(&process->state);
    if (process->pidfd < 0 || (state != MODUS_PROCESS_RUNNING && state != MODUS_PROCESS_REAPING))
        return false;
    if (atomic_load(&process->references) != 2 || !give_to_reaper(process))
        atomic_fetch_sub(&process->references, 1);
    return true;
}

void modus_process_put(struct modus_process *process)
{
    if (!process || process->is_static || (is_mine(process) && put_running(process)))
        return;
    if (atomic_fetch_sub(&process->references, 1) == 1)
        destroy(process);
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
    if (!is_mine(process))
        return false;
    if (process == modus_process_self())
        return true;
    return settled(process) == MODUS_PROCESS_RUNNING && !reap(process);
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
    return process->pid;
}

int modus_process_fd(const struct modus_process *process)
{
    if (!is_mine(process))
        return -ECHILD;
    return process->pidfd >= 0 ? process->pidfd : -ESRCH;
}

/* --- the end of a program -------------------------------------------------------------------- */

/* One that was not waited for, with a reference; NULL: none is left. */
static struct modus_process *any_running(bool daemon)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    for (struct modus_process *at = list; at; at = at->next)
        if (!at->launch && at->daemon == daemon && atomic_load(&at->state) != MODUS_PROCESS_ENDED)
            return modus_process_get(at);
    return NULL;
}

static void terminate_daemons(void)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    for (struct modus_process *at = list; at; at = at->next)
        if (at->daemon && atomic_load(&at->state) != MODUS_PROCESS_ENDED)
            pidfd_send_signal(at->pidfd, SIGTERM, NULL, 0);
}

void modus_process_end_daemons(void)
{
    int64_t deadline = modus_deadline(modus_seconds(END_SECONDS));
    struct modus_process *process;

    terminate_daemons();
    while ((process = any_running(true)) != NULL) {
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
    while (rc == 0 && (process = any_running(false)) != NULL) {
        rc = modus_process_join(process, MODUS_FOREVER, NULL);
        modus_process_put(process);
    }
    modus_process_end_daemons();
}
