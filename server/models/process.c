/* SPDX-License-Identifier: MIT */
/* process: an acceptor, and a child process for each connection. The child waits for its peer and
 * runs handlers itself; a slow client holds its own child and nobody else.
 *
 * The acceptor is one thread and serves nothing: it takes a permit, accepts, forks, and reaps its
 * children when SIGCHLD comes, giving the permit back. When no permit is left, the child that has
 * been idle longest is asked to end (SIGTERM); a child that becomes idle while connections wait
 * rings the acceptor's doorbell so that it looks again. If the acceptor dies, its children finish
 * their request (SIGTERM by PR_SET_PDEATHSIG), and the master reaps them.
 *
 * What a connection costs here is mostly what a fork copies and what the two processes then touch.
 * So a child has no descriptor in the acceptor (until it is reaped, its pid is nobody else's), and
 * the acceptor writes to its stack and to the board alone.
 */
#include "server/models/process.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/intake.h"
#include "server/log.h"
#include "server/models/model.h"

enum {
    EVENTS = 64,
    PAUSE_MS = 100,
    ROOM_MS = 100,
    QUIET_MS = 150,
    DATE_MS = 20,
    GIVE_MS = 1,
    INTAKE_MS = 20
};
/* What an epoll event is about; above that, a struct parked. */
enum { ABOUT_BELL, ABOUT_LIFE, ABOUT_LISTENER, ABOUT_CHILDREN, ABOUT_INTAKE, ABOUTS };

static struct model_plan process_plan(const struct config_listener *conf)
{
    unsigned children = model_max_connections(conf, 256);
    return (struct model_plan){
        .workers = 1,
        .threads = 1,
        .children = children,
        .max_connections = children,
        .keepalive_timeout_ms = 5000,
        .defer_accept = true,
    };
}

static int watch(struct acceptor *a, int fd, uint32_t events, uint64_t about)
{
    struct epoll_event e = {.events = events, .data.u64 = about};
    return epoll_ctl(a->set, EPOLL_CTL_ADD, fd, &e);
}

/* Listening descriptors are looked at only while there is a permit for what they have. */
static void set_listening(struct acceptor *a, bool on)
{
    const struct listener *l = a->worker->listener;
    if (on == a->listening || a->drained)
        return;
    for (size_t i = 0; i < l->fd_count; i++) {
        struct epoll_event e = {.events = on ? EPOLLIN : 0u, .data.u64 = ABOUT_LISTENER};
        if (l->fds[i] >= 0)
            epoll_ctl(a->set, EPOLL_CTL_MOD, l->fds[i], &e);
    }
    a->listening = on;
}

/* What is short may come free; until then the listening descriptors are not looked at. */
static void pause_accepting(struct acceptor *a, int error)
{
    net_count(&worker_stats(a->worker, 0)->accept_paused, 1);
    if (a->pause_until_ms == 0)
        log_warn("%s: cannot %s: %s; connections wait",
                 a->worker->listener->conf->addresses[0].text,
                 a->held_fd >= 0 ? "make a process for a connection" : "accept", strerror(error));
    a->pause_until_ms = a->now_ms + PAUSE_MS;
    set_listening(a, false);
}

static struct child_entry *free_entry(struct acceptor *a)
{
    unsigned count = a->worker->board->child_count;
    for (unsigned i = 0; i < count; i++) {
        struct child_entry *entry = &a->worker->slot->children[a->next_entry];
        a->next_entry = a->next_entry + 1 < count ? a->next_entry + 1 : 0;
        if (atomic_load(&entry->pid) == 0)
            return entry;
    }
    return NULL;
}

/* Children by pid: the entries of one remainder are a chain. Places are numbers from 1 on. */
static struct child_entry *chain_of(const struct worker *w, pid_t pid)
{
    return &w->slot->children[(unsigned)pid % w->board->child_count];
}

static void remember_child(const struct worker *w, struct child_entry *entry, pid_t pid)
{
    struct child_entry *chain = chain_of(w, pid);
    entry->next = chain->first;
    chain->first = (unsigned)(entry - w->slot->children) + 1;
    atomic_store(&entry->pid, pid);
}

/* Returns its entry, which is free from now on, or NULL if no child has this pid. */
static struct child_entry *forget_child(const struct worker *w, pid_t pid)
{
    struct child_entry *children = w->slot->children;
    for (unsigned *at = &chain_of(w, pid)->first; *at; at = &children[*at - 1].next) {
        struct child_entry *entry = &children[*at - 1];
        if (atomic_load(&entry->pid) != pid)
            continue;
        *at = entry->next;
        atomic_store(&entry->idle_ms, 0);
        atomic_store(&entry->pid, 0);
        return entry;
    }
    return NULL;
}

/* Fork a child for the held connection. Returns 0, or a negative errno: it is held on. */
static int start_child(struct acceptor *a)
{
    struct child_entry *entry = free_entry(a);
    /* _Fork: nobody's fork handlers need to run, since the acceptor has one thread and keeps no
     * loop; libuv's would open a pipe in every child. */
    if (!entry)
        return -ENOMEM;
    atomic_store(&entry->logs_seen, a->worker->log_round);
    atomic_store(&entry->pid,
                 -1); /* so that the master knows where it belongs, should we be killed now */
    pid_t pid = _Fork();
    if (pid == 0)
        process_child_run(a, entry);
    if (pid < 0) {
        atomic_store(&entry->pid, 0);
        return -errno;
    }
    close(a->held_fd);
    a->held_fd = -1;
    if (a->held_parked)
        parked_free(a->held_parked);
    a->held_parked = NULL;
    a->live++;
    remember_child(a->worker, entry, pid);
    return 0;
}

/* Ends come as one signal, however many there are. */
static void reap(struct acceptor *a)
{
    struct board *b = a->worker->board;
    struct worker_slot *slot = a->worker->slot;
    struct signalfd_siginfo told;
    (void)!read(a->ended, &told, sizeof told);
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
            break;
        if (!forget_child(a->worker, info.si_pid))
            continue;
        modus_sem_release(&slot->permits, 1);
        a->live--;
        if (info.si_code == CLD_EXITED)
            continue;
        atomic_fetch_add(&b->deaths, 1);
        log_warn("%s: process %d of a connection was ended by signal %d",
                 a->worker->listener->conf->addresses[0].text, info.si_pid, info.si_status);
    }
    if (modus_sem_value(&slot->permits) ==
        b->child_count) /* killed children did not count their ends */
        board_settle(worker_stats(a->worker, 0));
}

/* Until it is reaped its pid is nobody else's. */
static void ask_to_end(const struct child_entry *entry)
{
    pid_t pid = atomic_load(&entry->pid);
    if (pid > 0)
        kill(pid, SIGTERM);
}

/* No permit is left: the longest idle child makes room. */
static void make_room(struct acceptor *a)
{
    struct child_entry *oldest = NULL;
    int64_t since = a->now_ms + 1;
    for (unsigned i = 0; i < a->worker->board->child_count; i++) {
        struct child_entry *entry = &a->worker->slot->children[i];
        int64_t idle = atomic_load(&entry->idle_ms);
        if (idle && idle < since) {
            oldest = entry;
            since = idle;
        }
    }
    if (oldest)
        ask_to_end(oldest);
}

/* Returns 0 when one was taken and has its child, else a negative errno; -EBUSY when there is no
 * permit. */
static int accept_one(struct acceptor *a, int fd)
{
    struct modus_sem *permits = &a->worker->slot->permits;
    if (a->held_fd < 0) {
        if (modus_sem_try(permits) != 0)
            return socket_has_waiting(fd) ? -EBUSY : -EAGAIN;
        int got = socket_accept(fd, &a->held_peer);
        if (got < 0) {
            modus_sem_release(permits, 1);
            return got;
        }
        a->held_fd = got;
        a->quiet_ms = a->now_ms;
    }
    int r = start_child(a);
    return r == -EAGAIN ? -ENOMEM : r;
}

/* There is no permit, and somebody waits. */
static void wait_for_permit(struct acceptor *a)
{
    atomic_store(&a->worker->board->backlog, true);
    set_listening(a, false);
    a->maybe = true;
    a->full = true;
    make_room(a);
}

/* Is there one that needs a child now? */
static bool has_next(const struct acceptor *a)
{
    return a->held_fd >= 0 || (a->parking.ready && !a->gives);
}

/* A child for one that is held, or for one of an earlier generation that has something to say.
 * Returns as accept_one. */
static int serve_parked(struct acceptor *a)
{
    if (a->held_fd < 0) {
        if (!a->parking.ready)
            return -EAGAIN;
        if (modus_sem_try(&a->worker->slot->permits) != 0)
            return -EBUSY;
        a->held_parked = parked_take(&a->parking);
        a->held_fd = a->held_parked->carried.fd;
    }
    int r = start_child(a);
    return r == -EAGAIN ? -ENOMEM : r;
}

/* They came first. Returns false when nobody else can be served now. */
static bool serve_all_parked(struct acceptor *a)
{
    int r;
    while ((r = has_next(a) ? serve_parked(a) : -EAGAIN) == 0)
        continue;
    if (r == -EAGAIN)
        return true;
    a->maybe = true;
    if (r == -EBUSY)
        wait_for_permit(a);
    else
        pause_accepting(a, -r);
    return false;
}

static void accept_some(struct acceptor *a)
{
    const struct listener *l = a->worker->listener;
    a->maybe = false;
    a->full = false;
    if (!serve_all_parked(a))
        return;
    for (size_t i = 0; i < l->fd_count; i++) {
        int r = l->fds[i] < 0 ? -EAGAIN : accept_one(a, l->fds[i]);
        if (r == -EBUSY) {
            wait_for_permit(a);
            return;
        }
        if (r == -EAGAIN)
            continue;
        a->maybe = true;
        if (r == -EMFILE && parked_make_room(&a->parking))
            continue; /* the next turn has its descriptor */
        if (r != 0)
            pause_accepting(a, -r);
        else if (a->pause_until_ms <= a->now_ms)
            a->pause_until_ms = 0;
    }
    if (!a->maybe)
        atomic_store(&a->worker->board->backlog, false);
    set_listening(a, a->pause_until_ms <= a->now_ms);
}

/* A descriptor that others have too stays in the set when it is closed. */
static void close_listener(struct acceptor *a, int *fd)
{
    if (*fd < 0)
        return;
    epoll_ctl(a->set, EPOLL_CTL_DEL, *fd, NULL);
    close(*fd);
    *fd = -1;
}

static void close_listeners(struct acceptor *a)
{
    struct listener *l = a->worker->listener;
    for (size_t i = 0; i < l->fd_count; i++)
        close_listener(a, &l->fds[i]);
    a->drained = true;
}

/* Where others accept now, what comes is theirs. */
static void close_left(struct acceptor *a)
{
    struct listener *l = a->worker->listener;
    for (size_t i = 0; i < l->fd_count; i++)
        if (board_leaves(a->worker->board, i))
            close_listener(a, &l->fds[i]);
}

static bool has_listeners(const struct acceptor *a)
{
    const struct listener *l = a->worker->listener;
    for (size_t i = 0; i < l->fd_count; i++)
        if (l->fds[i] >= 0)
            return true;
    return false;
}

static void close_intake(struct acceptor *a)
{
    epoll_ctl(a->set, EPOLL_CTL_DEL, a->worker->listener->intake[0], NULL);
    a->takes_in = false;
}

/* Others accept from now on, but where nobody has taken the address; children go on until their
 * connections end. */
static void retire(struct acceptor *a)
{
    a->draining = a->retired = true;
    a->full = false;
    a->quiet_ms = a->now_ms;
    close_left(a);
    a->drained = !has_listeners(a);
    a->maybe = !a->drained || a->held_fd >= 0;
    worker_set_state(a->worker, WORKER_DRAINING);
    if (acceptor_phase(a) != SERVICE_MOVING)
        return;
    close_intake(a);
    a->gives = true;
    for (unsigned i = 0; i < a->worker->board->child_count; i++)
        ask_to_end(&a->worker->slot->children[i]); /* so that the idle ones look */
}

static void drain(struct acceptor *a)
{
    if (a->draining && !a->retired)
        return;
    a->draining = true;
    a->maybe = !a->drained;
    a->retired = a->gives = false;
    a->quiet_ms = a->now_ms;
    close_left(a);
    worker_set_state(a->worker, WORKER_DRAINING);
    for (unsigned i = 0; i < a->worker->board->child_count; i++)
        ask_to_end(&a->worker->slot->children[i]);
}

/* All that the kernel had begun to accept has a child; the last may take a moment to arrive. */
static void finish_drain(struct acceptor *a)
{
    if (a->drained || a->maybe || a->now_ms < a->quiet_ms + QUIET_MS)
        return;
    close_listeners(a);
}

/* net is copied at a fork, page by page, by who first writes to it: here mostly nobody does. */
static void read_clock(struct acceptor *a)
{
    a->now_us = net_clock_us();
    a->now_ms = a->now_us / 1000;
    if (a->now_ms - a->net->now_ms >= DATE_MS)
        net_thread_tick(a->net); /* the date that children answer with */
}

/* No descriptor for the next one, and nobody idle whose it could have: it waits there, and is not told
 * of again and again. */
static void pause_intake(struct acceptor *a)
{
    if (!a->intake_at_ms)
        epoll_ctl(a->set, EPOLL_CTL_DEL, a->worker->listener->intake[0], NULL);
    a->intake_at_ms = a->now_ms + INTAKE_MS;
}

static void take_in(struct acceptor *a)
{
    const struct listener *l = a->worker->listener;
    struct conn_carried carried;
    void *memory;
    for (unsigned i = 0; i < EVENTS; i++) {
        int r = intake_take(l->intake[0], &carried, &memory);
        if (r == 0) {
            parked_add(&a->parking, &carried, memory, a->now_ms,
                       a->now_ms + l->service.keepalive_timeout_ms - carried.idle_ms);
            a->maybe = true;
        } else if (r != -EMFILE || !parked_make_room(&a->parking)) {
            if (r == -EMFILE)
                pause_intake(a);
            else if (r == -EPIPE)
                close_intake(a);
            return;
        }
    }
}

/* After a pause. */
static void resume_intake(struct acceptor *a)
{
    if (!a->intake_at_ms || a->now_ms < a->intake_at_ms)
        return;
    a->intake_at_ms = 0;
    if (a->takes_in)
        watch(a, a->worker->listener->intake[0], EPOLLIN, ABOUT_INTAKE);
}

/* Those that need no child yet: they go on to the next generation, or to an end, in their time. */
static void look_at_parked(struct acceptor *a)
{
    a->expire_ms = parked_expire(&a->parking, a->now_ms);
    resume_intake(a);
    if (acceptor_phase(a) != SERVICE_MOVING)
        a->gives = false; /* nobody takes them: they have children when they ask */
    if (a->draining && a->takes_in)
        take_in(a);
    if (a->draining && !a->retired)
        parked_close(&a->parking);
    if (a->gives && !parked_give_on(&a->parking, a->worker->listener->intake[1], a->now_ms))
        a->expire_ms = a->now_ms + GIVE_MS;
    if (a->intake_at_ms && a->intake_at_ms < a->expire_ms)
        a->expire_ms = a->intake_at_ms;
}

static void serve_event(struct acceptor *a, uint64_t about)
{
    if (about == ABOUT_BELL) {
        modus_doorbell_hear(&a->worker->slot->bell);
        enum worker_wish wish = worker_look(a->worker);
        a->maybe = true;
        if (wish == WORKER_DRAIN)
            drain(a);
        else if (wish == WORKER_RETIRE && !a->draining)
            retire(a);
    } else if (about == ABOUT_LIFE) {
        _exit(0);
    } else if (about == ABOUT_LISTENER) {
        a->maybe = true;
    } else if (about == ABOUT_INTAKE) {
        take_in(a);
    } else if (about == ABOUT_CHILDREN) {
        reap(a);
    } else {
        parked_rouse(&a->parking, (struct parked *)(uintptr_t)about);
        a->maybe = true;
    }
}

static void serve_turn(struct acceptor *a, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    /* A child is cheapest at once: its pages are warm, few others are alive,
     * and what it has not written to yet the acceptor need not copy either. */
    if (a->live)
        give_way(&a->give_way, a->worker->board);
    int n = epoll_wait(a->set, events, EVENTS, timeout_ms);
    read_clock(a);
    bool told[ABOUTS] = {
        false}; /* by what may free what the other events are about: it comes last */
    for (int i = 0; i < n; i++)
        if (events[i].data.u64 == ABOUT_BELL || events[i].data.u64 == ABOUT_INTAKE)
            told[events[i].data.u64] = true;
        else
            serve_event(a, events[i].data.u64);
    if (told[ABOUT_INTAKE])
        serve_event(a, ABOUT_INTAKE);
    if (told[ABOUT_BELL])
        serve_event(a, ABOUT_BELL);
    look_at_parked(a);
    if (a->maybe && (!a->drained || has_next(a)) && a->now_ms >= a->pause_until_ms)
        accept_some(a);
    if (a->draining)
        finish_drain(a);
    atomic_store_explicit(&a->worker->slot->connections, a->live, memory_order_relaxed);
}

/* Its children inherit that SIGCHLD is blocked: what they start for themselves they wait for. */
static int hear_of_children(void)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    return signalfd(-1, &ends, SFD_NONBLOCK | SFD_CLOEXEC);
}

static int open_acceptor(struct acceptor *a)
{
    struct worker *w = a->worker;
    a->net = net_thread_new(worker_read_size(w), worker_stats(w, 0));
    a->pid = getpid();
    a->set = epoll_create1(EPOLL_CLOEXEC);
    a->ended = hear_of_children();
    if (!a->net || a->set < 0 || a->ended < 0)
        return -1;
    read_clock(a);
    for (unsigned i = 0; i < w->board->child_count; i++)
        w->slot->children[i].first = w->slot->children[i].next = 0;
    if (watch(a, modus_doorbell_fd(&w->slot->bell), EPOLLIN, ABOUT_BELL) != 0 ||
        watch(a, w->life_line, EPOLLIN, ABOUT_LIFE) != 0 ||
        watch(a, a->ended, EPOLLIN, ABOUT_CHILDREN) != 0)
        return -1;
    a->parking =
        (struct parking){.set = a->set, .count = &w->slot->parked, .stats = worker_stats(w, 0)};
    a->takes_in = w->listener->intake[0] >= 0;
    if (a->takes_in && watch(a, w->listener->intake[0], EPOLLIN, ABOUT_INTAKE) != 0)
        return -1;
    for (size_t i = 0; i < w->listener->fd_count; i++)
        if (watch(a, w->listener->fds[i], EPOLLIN, ABOUT_LISTENER) != 0)
            return -1;
    return 0;
}

static int wait_ms(const struct acceptor *a)
{
    if (a->pause_until_ms > a->now_ms)
        return PAUSE_MS;
    if (a->maybe && (a->drained ? has_next(a) : a->listening))
        return 0;
    if (a->full)
        return ROOM_MS;
    if (a->draining && !a->drained)
        return PAUSE_MS;
    return a->expire_ms == INT64_MAX ? -1 : (int)(a->expire_ms - a->now_ms);
}

static int process_run(struct worker *w)
{
    struct acceptor a = {
        .worker = w, .held_fd = -1, .listening = true, .maybe = true, .expire_ms = INT64_MAX};
    /* What was freed since the configuration was read need not be copied for each child; nor used again
     * first, for buffers that children fill. */
    malloc_trim(0);
    if (open_acceptor(&a) != 0) {
        log_error("the acceptor cannot start: no descriptors or memory");
        return 1;
    }
    process_child_prepare(&a);
    worker_ready(w);
    serve_event(&a, ABOUT_BELL);
    while (!a.drained || a.live || a.held_fd >= 0 || a.parking.first || a.parking.ready)
        serve_turn(&a, wait_ms(&a));
    close(a.set);
    close(a.ended);
    net_thread_free(a.net);
    return 0;
}

static const char *const uses[] = {NULL};

const struct model model_process = {
    .name = "process",
    .summary = "a process for each connection, made when it comes",
    .role = "acceptor",
    .options = "max_connections = 256, keepalive_timeout = 5s",
    .uses = uses,
    .plan = process_plan,
    .note = model_no_note,
    .run = process_run,
};
