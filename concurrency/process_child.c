/* SPDX-License-Identifier: MIT */
/*
 * The child's side: who it is, what it takes over, how it ends.
 *
 * The life line is a pipe. The child has the reading end and has told the kernel to send the signal
 * to it when there is news (F_SETOWN, F_SETSIG, O_ASYNC); the only news there will ever be is that
 * the last writer is gone, and the parent is the only writer. So nobody has to watch it, it works
 * for SIGKILL too, and it does not matter which thread of the parent was the one that forked.
 */
#include "concurrency/coroutine.h"
#include "concurrency/process_priv.h"
#include "concurrency/self.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct modus_process unmade = {.state = MODUS_PROCESS_RUNNING,
                                      .pidfd = -1,
                                      .line = -1,
                                      .is_static = true,
                                      .name = "MainProcess"};
static struct modus_process *_Atomic self = &unmade;
static int own_line = -1;

/* --- identity -------------------------------------------------------------------------------- */

void modus_process_become(struct modus_process *process, int line)
{
    if (own_line >= 0)
        close(own_line); /* it was the parent's own */
    own_line = line;
    if (process) {
        process->stamp = modus_self_stamp();
        process->pid = getpid();
        process->pidfd = process->line = -1;
        atomic_store(&process->state, MODUS_PROCESS_RUNNING);
    } else {
        snprintf(unmade.name, sizeof unmade.name, "Foreign");
    }
    atomic_store(&self, process ? process : &unmade);
}

struct modus_process *modus_process_self(void)
{
    return atomic_load(&self);
}

size_t modus_process_argument_size(void)
{
    return modus_process_self()->attr.size;
}

int modus_process_passed(unsigned i)
{
    const struct modus_process *process = modus_process_self();

    return i < process->attr.fds_count ? process->fds[i] : -EINVAL;
}

/* --- beginning ------------------------------------------------------------------------------- */

void modus_process_settle(const struct modus_process *process, int line)
{
    int signal = modus_process_orphan_signal(process);
    struct pollfd parent = {.fd = line};
    char name[16];

    snprintf(name, sizeof name, "%.15s", process->name);
    prctl(PR_SET_NAME, name);
    if (signal == 0)
        return;
    if (process->by_main)
        prctl(PR_SET_PDEATHSIG, signal);
    fcntl(line, F_SETFD, FD_CLOEXEC);
    fcntl(line, F_SETOWN, getpid());
    fcntl(line, F_SETSIG, signal);
    fcntl(line, F_SETFL, O_ASYNC);
    if (poll(&parent, 1, 0) == 1) /* it has died already */
        kill(getpid(), signal);
}

/* What exec does. Handlers of crashes too: one that jumps back would go on as the parent. */
static void reset_handlers(void)
{
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    struct sigaction now;

    for (int signal = 1; signal <= SIGRTMAX; signal++)
        if (sigaction(signal, NULL, &now) == 0 && now.sa_handler != SIG_DFL &&
            now.sa_handler != SIG_IGN)
            sigaction(signal, &standard, NULL);
}

_Noreturn void modus_process_begin(struct modus_process *process, int line, const sigset_t *mask)
{
    sigset_t none;

    modus_process_become(process, line);
    modus_co_forget();
    if (!process->attr.keep_signals)
        reset_handlers();
    modus_process_settle(process, line);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, process->attr.keep_signals ? mask : &none, NULL);
    int code = process->run(process->argument);
    modus_process_finish();
    modus_process_flush(process->flush_all);
    _exit(code);
}

/* --- the end --------------------------------------------------------------------------------- */

/* Flushing all locks each stream; where a thread sits in a read of one, that may take for ever. */
void modus_process_flush(bool all)
{
    if (all) {
        fflush(NULL);
    } else {
        fflush(stdout);
        fflush(stderr);
    }
}

void modus_process_finish(void)
{
    modus_thread_join_all();
    modus_process_join_all();
}
