/* SPDX-License-Identifier: MIT */
/* How a worker process begins and listens to its master: see server/worker.h. */
#include "server/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "server/log.h"
#include "server/models/model.h"
#include "server/title.h"

enum { THREAD_STACK = 256 * 1024, READ_ROOM = 64 * 1024 };

bool worker_bind_life(pid_t parent, int signal)
{
    prctl(PR_SET_PDEATHSIG, signal);
    return getppid() == parent;
}

void worker_set_signals(void)
{
    static const int ignored[] = {SIGPIPE, SIGXFSZ, SIGINT,  SIGQUIT, SIGHUP, SIGUSR1,
                                  SIGUSR2, SIGTERM, SIGTSTP, SIGTTOU, SIGTTIN};
    struct sigaction ignore = {.sa_handler = SIG_IGN}, standard = {.sa_handler = SIG_DFL};
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
        sigaction(ignored[i], &ignore, NULL);
    sigaction(SIGCHLD, &standard, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void worker_ready(struct worker *w)
{
    const struct model *m = w->listener->model;
    title_set("%s %s %s", m->name, m->role, listener_name(w->listener));
    modus_event_set(&w->slot->ready);
    modus_event_wait(&w->board->serve, MODUS_FOREVER);
    worker_set_state(w, WORKER_WAITING);
}

void worker_make_gil(struct worker *w)
{
    static struct net_gil gil;
    if (!w->listener->conf->gil || !model_uses(w->listener->model, "gil"))
        return;
    modus_gil_init(&gil.lock);
    gil.counts = &w->slot->gil;
    w->listener->service.gil = &gil;
}

void worker_set_state(struct worker *w, enum worker_state state)
{
    atomic_store_explicit(&w->slot->state, state, memory_order_relaxed);
}

static void look_at_logs(struct worker *w)
{
    unsigned round = atomic_load(&w->board->log_round);
    if (round == w->log_round)
        return;
    w->log_round = round;
    int failed = log_reopen();
    failed |= access_log_reopen(w->listener->access_log);
    if (failed)
        atomic_fetch_add(&w->board->log_failures, 1);
    atomic_store(w->logs_seen, round);
}

enum worker_wish worker_look(struct worker *w)
{
    look_at_logs(w);
    if (modus_event_is_set(&w->board->drain))
        return WORKER_DRAIN;
    return atomic_load(&w->slot->retire) ? WORKER_RETIRE : WORKER_STAY;
}

void worker_rest(struct worker *w)
{
    atomic_store(w->logs_seen, 0);
}

void worker_wake(struct worker *w)
{
    atomic_store(w->logs_seen, w->log_round);
    look_at_logs(w);
}

struct net_stats *worker_stats(const struct worker *w, unsigned thread)
{
    return &w->slot->stats[thread < w->board->stats_count ? thread : 0];
}

struct worker_lane *worker_lane(const struct worker *w, unsigned thread)
{
    return &w->slot->lanes[thread < w->board->lane_count ? thread : 0];
}

size_t worker_read_size(const struct worker *w)
{
    return w->listener->service.max_header_size + READ_ROOM;
}

int worker_thread(pthread_t *thread, const char *name, unsigned index, void *(*main)(void *),
                  void *arg)
{
    pthread_attr_t attr;
    sigset_t all, old;
    char text[16];
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(thread, &attr, main, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (r == 0) {
        snprintf(text, sizeof text, "%.10s-%u", name, index % 10000);
        pthread_setname_np(*thread, text);
    }
    return r;
}
