/* SPDX-License-Identifier: MIT */
/*
 * The list of a process's children, and what is done to each of them in any case: reaping.
 *
 * Joiners wait for the pidfd, which wakes all of them. Whoever moves the state from RUNNING to
 * REAPING asks the kernel for the status; the others wait for the word, for a moment. So no thread
 * is needed to wait, and none costs the usual start and join a detour. The reaper is for those that
 * nobody has a handle on any more: the last putter hands it its reference.
 *
 * All handles with descriptors are in the list. It belongs to a process and not to its fork: a
 * child closes them first of all, because the parent's end of a life line, held by a sibling, would
 * hide the parent's death. For that a fork must find the list whole, and no end outside of it: so
 * its lock is held from the opening of pipes to the fork, and in any fork of others.
 */
#include "concurrency/coroutine.h"
#include "concurrency/forks.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/process_priv.h"
#include "concurrency/self.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SWEEP = 8, REAPER_STACK = 128 * 1024 };

/* Of this process; all under the lock. */
static struct modus_lock list_lock = MODUS_LOCK_INIT;
static struct modus_process *list;
static unsigned running; /* started and not reaped */
static unsigned starts;  /* since the last sweep */
static int watched = -1; /* the reaper's epoll set; -1: there is no reaper */
static unsigned watched_count;
static bool listening; /* all children are to be watched: see below */
static bool held_for_fork;

/* --- the list -------------------------------------------------------------------------------- */

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

void modus_processes_lock(void)
{
    modus_lock_acquire(&list_lock, MODUS_FOREVER);
}

void modus_processes_unlock(void)
{
    modus_lock_release(&list_lock);
}

void modus_processes_add(struct modus_process *process)
{
    list_add(process);
    running++;
}

/* --- forks ----------------------------------------------------------------------------------- */

/* A start holds the lock already. */
static void before_fork(void)
{
    if (!modus_lock_mine(&list_lock)) {
        modus_processes_lock();
        held_for_fork = true;
    }
}

static void after_fork(void)
{
    if (held_for_fork) {
        held_for_fork = false;
        modus_processes_unlock();
    }
}

static bool listen_to_all(void);

/* The child has none of them. */
static void begin_child(void)
{
    for (struct modus_process *process = list; process; process = process->next) {
        modus_process_close_fd(&process->pidfd);
        modus_process_close_fd(&process->line);
        for (int i = 0; i < 3; i++)
            modus_process_close_fd(&process->pipes[i]);
    }
    modus_process_close_fd(&watched);
    list = NULL;
    running = starts = watched_count = 0;
    held_for_fork = listening = false;
    atomic_store(&modus_park_listen, listen_to_all);
    modus_lock_free_in_child(&list_lock);
    modus_process_become(NULL, -1);
}

MODUS_FORK_PROCESS static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, begin_child);
    atomic_store(&modus_park_listen, listen_to_all);
}

bool modus_process_is_mine(const struct modus_process *process)
{
    return process->is_static ? process == modus_process_self()
                              : process->stamp == modus_self_stamp();
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

void modus_process_set_state(struct modus_process *process, uint32_t state)
{
    atomic_store(&process->state, state);
    modus_unpark(MODUS_THREAD, &process->state, INT_MAX);
}

uint32_t modus_process_settled(struct modus_process *process)
{
    uint32_t state;

    while ((state = atomic_load(&process->state)) == MODUS_PROCESS_STARTING ||
           state == MODUS_PROCESS_REAPING)
        modus_park_deaf(MODUS_THREAD, &process->state, state, MODUS_FOREVER, NULL);
    return state;
}

bool modus_process_reap(struct modus_process *process)
{
    uint32_t state = MODUS_PROCESS_RUNNING;

    while (!atomic_compare_exchange_strong(&process->state, &state, MODUS_PROCESS_REAPING)) {
        state = modus_process_settled(process);
        if (state != MODUS_PROCESS_RUNNING)
            return state == MODUS_PROCESS_ENDED;
    }
    if (!ask(process, &process->code)) {
        modus_process_set_state(process, MODUS_PROCESS_RUNNING);
        return false;
    }
    if (!process->launch)
        modus_participant_bury_everywhere(process->pid, process->code < 0);
    modus_processes_lock();
    running--;
    modus_process_close_fd(&process->line);
    modus_process_set_state(process, MODUS_PROCESS_ENDED);
    modus_processes_unlock();
    modus_process_put(process); /* its own reference */
    return true;
}

/* Reap what has ended, one start in so many: what it costs and what it leaves undone both stay
 * bounded. Not those that lead a group: it may live on, and is signalled by the number that its leader
 * keeps as long as it is not reaped. */
void modus_processes_sweep(void)
{
    unsigned n = 0;

    modus_processes_lock();
    if (++starts <= SWEEP || starts <= running / 2) {
        modus_processes_unlock();
        return;
    }
    starts = 0;
    struct modus_process **all = calloc(running + 1, sizeof *all);
    for (struct modus_process *at = list; all && at; at = at->next)
        if (atomic_load(&at->state) == MODUS_PROCESS_RUNNING && !at->leads_group && n < running)
            all[n++] = modus_process_get(at);
    modus_processes_unlock();
    for (unsigned i = 0; i < n; i++) {
        modus_process_reap(all[i]);
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
        if (!modus_process_reap(process)) { /* a tracer has not let go of it yet */
            modus_co_sleep(modus_ms(1));
            continue;
        }
        modus_processes_lock();
        epoll_ctl(watched, EPOLL_CTL_DEL, process->pidfd, NULL);
        last = --watched_count == 0;
        if (last)
            modus_process_close_fd(&watched);
        modus_processes_unlock();
        modus_process_put(process);
    }
    return NULL;
}

/* Under the lock. */
static int start_reaper(void)
{
    const struct modus_thread_attr attr = {.name = "modus-reaper",
                                           .daemon = MODUS_DAEMON_YES,
                                           .stack = REAPER_STACK,
                                           .no_signals = true};
    struct modus_thread *thread;

    watched = epoll_create1(EPOLL_CLOEXEC);
    if (watched < 0)
        return -errno;
    int rc = modus_thread_new(&thread, &attr, reap_watched, NULL);
    if (rc == 0) {
        rc = modus_thread_start(thread);
        modus_thread_put(thread);
    }
    if (rc < 0)
        modus_process_close_fd(&watched);
    return rc;
}

bool modus_processes_watch(struct modus_process *process)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = process};

    if (watched < 0 && start_reaper() < 0)
        return false;
    watched_count++;
    process->watched = epoll_ctl(watched, EPOLL_CTL_ADD, process->pidfd, &event) == 0;
    if (!process->watched)
        watched_count--;
    return process->watched;
}

/* --- who relies on being told of deaths --------------------------------------------------------- */

/* A killed child's death is told to who waits for what it had by whoever reaps it. That must not be
 * left to one who waits itself: so from the first time on that somebody in this process is about to
 * wait so (park.h), all children are watched. Programs are not: they have no arena, and the number
 * of a group that lives on is kept for its signals. */
static bool listen_to(struct modus_process *process)
{
    uint32_t state = atomic_load(&process->state);

    if (process->watched || process->attended || process->launch || state == MODUS_PROCESS_ENDED)
        return true;
    if (modus_processes_watch(modus_process_get(process)))
        return true;
    atomic_fetch_sub(&process->references, 1); /* not the last: it has its own */
    return false;
}

/* The caller may have any lock but a plain one, and a fork that has the list's may wait for that: so
 * the list's is only tried. If it is in vain, or there is no thread to be had, the next sleep tries
 * again. */
static bool listen_to_all(void)
{
    int saved = errno;
    bool all = true;

    if (modus_lock_try(&list_lock) < 0)
        return false;
    listening = true;
    for (struct modus_process *at = list; at && all; at = at->next)
        all = listen_to(at);
    if (all)
        atomic_store(&modus_park_listen, NULL);
    modus_processes_unlock();
    errno = saved;
    return all;
}

void modus_processes_watch_new(struct modus_process *process)
{
    if ((process->attr.reap_at_once || listening) && !listen_to(process) && listening)
        atomic_store(&modus_park_listen, listen_to_all);
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
    if (modus_process_is_mine(process)) {
        modus_processes_lock();
        list_remove(process);
        modus_process_close_fd(&process->pidfd);
        modus_process_close_fd(&process->line);
        for (int i = 0; i < 3; i++)
            modus_process_close_fd(&process->pipes[i]);
        modus_processes_unlock();
    }
    free(process);
}

void modus_process_close_pipe(struct modus_process *process, int i)
{
    if (process->pipes[i] < 0)
        return;
    modus_processes_lock(); /* no fork sees a number that is another's */
    modus_process_close_fd(&process->pipes[i]);
    modus_processes_unlock();
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
    if (atomic_load(&process->references) != 2 || !modus_processes_watch(process))
        atomic_fetch_sub(&process->references, 1);
    return true;
}

void modus_process_put(struct modus_process *process)
{
    if (!process || process->is_static || (modus_process_is_mine(process) && put_running(process)))
        return;
    if (atomic_fetch_sub(&process->references, 1) == 1)
        destroy(process);
}

/* --- all of them ----------------------------------------------------------------------------- */

struct modus_process *modus_processes_any(bool daemon)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    for (struct modus_process *at = list; at; at = at->next)
        if (!at->launch && at->daemon == daemon && atomic_load(&at->state) != MODUS_PROCESS_ENDED)
            return modus_process_get(at);
    return NULL;
}

void modus_processes_terminate_daemons(void)
{
    MODUS_HOLD(held, &list_lock, MODUS_FOREVER);
    (void)held;
    for (struct modus_process *at = list; at; at = at->next)
        if (at->daemon && atomic_load(&at->state) != MODUS_PROCESS_ENDED)
            pidfd_send_signal(at->pidfd, SIGTERM, NULL, 0);
}
