/* SPDX-License-Identifier: MIT */
/*
 * The nursery: the process that forks the workers of a pool and waits for their ends.
 *
 * A replacement has to be forked when a worker dies, which is any time, and by then the program may
 * have threads. What they hold at that moment would be held for ever in the worker. The nursery has
 * one thread and nothing in its hands, and is as small as the program was when the pool was made.
 *
 * It sleeps in poll, for its doorbell and the workers' pidfds, without a limit. What it does is a
 * function of the seats: reap what has ended, then have as many workers as there should be. It goes
 * when it is told to, and none is left; it dies with the program (process.h, orphans), and its
 * workers with it.
 */
#include "concurrency/park.h"
#include "concurrency/participant.h"
#include "concurrency/pool_process_priv.h"
#include "concurrency/process.h"
#include "concurrency/process_priv.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RETRY_MS = 100, NEWS_MS = 1000 };

struct nursery {
    struct modus_pool_shared *shared;
    struct modus_process **workers; /* by seat; NULL: none */
    struct pollfd *polls;           /* the workers that there are, and the bell */
    unsigned live;                  /* workers that have not been reaped */
    unsigned numbers;               /* for names */
    bool short_of;                  /* of processes: a fork has failed */
    bool broken;                    /* and told so */
    int64_t kill_at;                /* terminating: the end of the grace; 0: not yet, or over */
    bool terminating;
};

static struct modus_seat *seat_at(struct nursery *nursery, uint32_t i)
{
    return &nursery->shared->seats[i];
}

static void tell_change(struct modus_pool_shared *shared)
{
    atomic_fetch_add(&shared->change, 1);
    modus_unpark(MODUS_PROCESS, &shared->change, INT_MAX);
}

/* The program reads news as long as it lives. */
static void put_news(struct nursery *nursery, const struct modus_news *news)
{
    while (modus_queue_put(&nursery->shared->results, news, modus_ms(NEWS_MS)) == -ETIMEDOUT)
        ;
}

/* --- forking --------------------------------------------------------------------------------- */

static bool workers_ignore_children; /* as the program did */

static int begin_worker(void *place)
{
    if (workers_ignore_children)
        signal(SIGCHLD, SIG_IGN);
    return modus_pool_worker(place);
}

static int fork_worker(struct nursery *nursery, uint32_t i)
{
    struct modus_pool_shared *shared = nursery->shared;
    struct modus_worker_place place = {shared, i}; /* the child has its own copy of this stack */
    char name[MODUS_POOL_NAME + 12];
    struct modus_process *process;

    snprintf(name, sizeof name, "%s-%u", shared->name, ++nursery->numbers);
    int rc = modus_process_new(&process,
                               &(struct modus_process_attr){
                                   .name = name,
                                   .daemon = MODUS_DAEMON_NO,
                                   .orphan = MODUS_ORPHAN_KILLED,
                               },
                               begin_worker, &place);
    if (rc < 0)
        return rc;
    process->attended = true; /* no thread here */
    atomic_store(&seat_at(nursery, i)->done, 0);
    atomic_store(&seat_at(nursery, i)->state, SEAT_STARTING);
    rc = modus_process_start(process);
    if (rc < 0) {
        atomic_store(&seat_at(nursery, i)->state, SEAT_FREE);
        modus_process_put(process);
        return rc;
    }
    atomic_store(&seat_at(nursery, i)->pid, modus_process_pid(process));
    nursery->workers[i] = process;
    nursery->live++;
    return 0;
}

/* Whoever makes the pool still waits for its workers: it is told why there are none. */
static void fail_new(struct modus_pool_shared *shared, int code)
{
    int32_t none = 0;

    if (atomic_load(&shared->ready) < shared->attr.n &&
        atomic_compare_exchange_strong(&shared->failed, &none, code))
        tell_change(shared);
}

/* Returns false if that is not possible now. */
static bool add_worker(struct nursery *nursery)
{
    struct modus_pool_shared *shared = nursery->shared;

    for (int looked = 0; looked < 2; looked++) {
        for (uint32_t i = 0; i < shared->seat_count; i++) {
            if (nursery->workers[i] || atomic_load(&seat_at(nursery, i)->state) != SEAT_FREE)
                continue;
            int rc = fork_worker(nursery, i);
            nursery->short_of = rc < 0;
            if (rc < 0)
                fail_new(shared, rc);
            return rc == 0;
        }
        atomic_store(&shared->starving, 1); /* then look once more */
    }
    return false;
}

/* --- ends ------------------------------------------------------------------------------------ */

static bool expected(enum modus_seat_state state, int code)
{
    return code == 0 && (state == SEAT_REPLACED || state == SEAT_LEAVING);
}

/* One more that could not begin. Those before it and after the last death of one that could count:
 * so there are only so many attempts for each that is to be replaced. */
static void count_failure(struct modus_pool_shared *shared, int code)
{
    if (atomic_fetch_add(&shared->failures, 1) + 1 < MODUS_POOL_FAILURES)
        return;
    atomic_store(&shared->failed, code < 0 ? code : MODUS_WORKERDIED);
    tell_change(shared);
}

/* A worker has ended, and is buried. */
static void settle(struct nursery *nursery, uint32_t i, int code)
{
    struct modus_pool_shared *shared = nursery->shared;
    struct modus_seat *seat = seat_at(nursery, i);
    enum modus_seat_state state = atomic_load(&seat->state);
    bool asked = expected(state, code) || nursery->terminating;

    if (!asked && (state == SEAT_INITIALIZING || seat->code < 0))
        count_failure(shared, seat->code);
    else if (!asked && state != SEAT_STARTING)
        atomic_store(&shared->failures, 0);
    if (!asked)
        atomic_fetch_add(&shared->deaths, 1);
    if (state == SEAT_REPLACED)
        atomic_fetch_add(&shared->replaced, 1);
    seat->code = 0;
    atomic_store(&seat->pid, 0);
    atomic_store(&seat->busy, 0);
    atomic_store(&seat->state, SEAT_EMPTY);
    put_news(nursery, &(struct modus_news){.kind = MODUS_NEWS_END,
                                           .number = i,
                                           .status = asked  ? 0
                                                     : code ? code
                                                            : INT_MAX});
}

static void reap(struct nursery *nursery)
{
    for (uint32_t i = 0; i < nursery->shared->seat_count; i++) {
        struct modus_process *process = nursery->workers[i];
        int code;

        if (!process || modus_process_join(process, 0, &code) != 0)
            continue;
        modus_process_put(process);
        nursery->workers[i] = NULL;
        nursery->live--;
        settle(nursery, i, code);
    }
}

/* --- how many -------------------------------------------------------------------------------- */

/* Workers that do, or soon will do, tasks. */
static unsigned active(struct nursery *nursery)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < nursery->shared->seat_count; i++) {
        uint32_t state = atomic_load(&seat_at(nursery, i)->state);

        n += nursery->workers[i] && state >= SEAT_STARTING && state <= SEAT_STAYS &&
             state != SEAT_REPLACED;
    }
    return n;
}

static void answer_retiring(struct nursery *nursery)
{
    for (uint32_t i = 0; i < nursery->shared->seat_count; i++) {
        struct modus_seat *seat = seat_at(nursery, i);

        if (!nursery->workers[i] || atomic_load(&seat->state) != SEAT_RETIRING)
            continue;
        bool replaced = add_worker(nursery);
        if (!replaced && !nursery->short_of)
            return; /* until a seat is free */
        atomic_store(&seat->state, replaced ? SEAT_REPLACED : SEAT_STAYS);
        modus_unpark(MODUS_PROCESS, &seat->state, 1);
    }
}

static void balance(struct nursery *nursery)
{
    struct modus_pool_shared *shared = nursery->shared;

    nursery->short_of = false;
    answer_retiring(nursery);
    while (atomic_load(&shared->command) == MODUS_NURSERY_WORKS &&
           atomic_load(&shared->failures) < MODUS_POOL_FAILURES &&
           active(nursery) < shared->attr.n && add_worker(nursery))
        ;
    if (nursery->live == 0 && atomic_load(&shared->failures) >= MODUS_POOL_FAILURES &&
        !nursery->broken) {
        nursery->broken = true;
        put_news(nursery, &(struct modus_news){.kind = MODUS_NEWS_BROKEN,
                                               .status = atomic_load(&shared->failed)});
    }
}

/* --- the loop -------------------------------------------------------------------------------- */

static void signal_all(struct nursery *nursery, int signal)
{
    for (uint32_t i = 0; i < nursery->shared->seat_count; i++)
        if (nursery->workers[i])
            modus_process_signal(nursery->workers[i], signal);
}

static void obey(struct nursery *nursery)
{
    if (atomic_load(&nursery->shared->command) != MODUS_NURSERY_TERMINATES)
        return;
    if (!nursery->terminating) {
        nursery->terminating = true;
        nursery->kill_at = modus_deadline(nursery->shared->attr.grace_ns);
        signal_all(nursery, SIGTERM);
    } else if (nursery->kill_at && modus_now_ns() >= nursery->kill_at) {
        nursery->kill_at = 0;
        signal_all(nursery, SIGKILL);
    }
}

static int timeout_ms(struct nursery *nursery)
{
    if (nursery->kill_at) {
        int64_t left = nursery->kill_at - modus_now_ns();

        return left <= 0 ? 0 : left > modus_seconds(1000) ? 1000000 : (int)(left / 1000000) + 1;
    }
    return nursery->short_of && !nursery->terminating ? RETRY_MS : -1;
}

static void sleep_until_news(struct nursery *nursery)
{
    unsigned n = 0;

    /* No entries without a descriptor: poll takes no more than there may be descriptors. */
    for (uint32_t i = 0; i < nursery->shared->seat_count; i++)
        if (nursery->workers[i])
            nursery->polls[n++] =
                (struct pollfd){.fd = modus_process_fd(nursery->workers[i]), .events = POLLIN};
    nursery->polls[n++] =
        (struct pollfd){.fd = modus_doorbell_fd(&nursery->shared->bell), .events = POLLIN};
    poll(nursery->polls, n, timeout_ms(nursery));
    modus_doorbell_hear(&nursery->shared->bell);
}

/* The end of the program, which ends its daemons so, or of its whole process group. */
static struct modus_pool_shared *own;

static void on_sigterm(int signal)
{
    (void)signal;
    atomic_store(&own->command, MODUS_NURSERY_TERMINATES);
    modus_doorbell_ring(&own->bell);
}

static void on_news(int signal)
{
    (void)signal;
    modus_doorbell_ring(&own->bell);
}

static void settle_signals(struct modus_pool_shared *shared)
{
    own = shared;
    own->nursery = getpid();
    signal(SIGTERM, on_sigterm);
    signal(MODUS_NURSERY_SIGNAL, on_news);
    /* How workers end must be known here, also in a program that does not want to know. */
    workers_ignore_children = signal(SIGCHLD, SIG_DFL) == SIG_IGN;
    /* From a terminal: for the program to decide. */
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

int modus_pool_nursery(void *argument)
{
    struct modus_pool_shared *shared = argument;
    uint32_t n = shared->seat_count;
    struct nursery nursery = {
        .shared = shared,
        .workers = calloc(n, sizeof *nursery.workers),
        .polls = calloc(n + 1, sizeof *nursery.polls),
    };

    /* For its parent it is a daemon, which ends with the program; but it may have children. */
    modus_process_self()->daemon = false;
    settle_signals(shared);
    if (!nursery.workers || !nursery.polls || modus_participant_join(shared->arena) < 0)
        return 1;
    for (;;) {
        obey(&nursery);
        reap(&nursery);
        balance(&nursery);
        if (nursery.live == 0 && atomic_load(&shared->command) != MODUS_NURSERY_WORKS)
            break;
        sleep_until_news(&nursery);
    }
    modus_participant_leave(shared->arena);
    free(nursery.workers);
    free(nursery.polls);
    return 0;
}
