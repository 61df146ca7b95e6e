/* SPDX-License-Identifier: MIT */
/* The processes of the master: forking them, hearing of their end by pidfd, starting others in
 * their place with a growing delay. Pids are signalled only through pidfds or while they are
 * unreaped. */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concurrency/participant.h"
#include "server/log.h"
#include "server/supervisor_priv.h"
#include "server/worker.h"

enum { BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 5000, STABLE_MS = 1000 };

static struct listener *listener_of(const struct supervised *s)
{
    return &s->generation->listener;
}

static struct board *board_of(const struct supervised *s)
{
    return s->generation->listener.board;
}

static struct worker_slot *slot_of(const struct supervised *s)
{
    return &board_of(s)->slots[s->slot];
}

/* Places for processes: as many as slots, once they are there. */
static unsigned places_of(const struct generation *g)
{
    return g->workers ? g->listener.board->slot_count : 0;
}

static const char *name_of(const struct supervised *s)
{
    return listener_of(s)->conf->addresses[0].text;
}

/* --- in the child ---------------------------------------------------------------------------- */

static int become_user(const struct master *m)
{
    if (!m->drop_user)
        return 0;
    if (setgroups(0, NULL) == 0 && setgid(m->gid) == 0 && setuid(m->uid) == 0)
        return 0;
    log_error("cannot become user %s: %s", m->config->user, strerror(errno));
    return -1;
}

static void close_foreign_of(const struct generation *g, const struct generation *own)
{
    for (size_t i = 0; g != own && i < g->listener.fd_count; i++)
        close(g->listener.fds[i]);
    for (int i = 0; i < 2 && g != own; i++)
        if (g->listener.intake[i] >= 0)
            close(g->listener.intake[i]);
    for (unsigned i = 0; i < places_of(g); i++)
        if (g->workers[i].pidfd >= 0)
            close(g->workers[i].pidfd);
}

/* What is the master's or another listener's is not ours. */
static void close_foreign(struct master *m, const struct generation *own)
{
    for (const struct generation *g = m->generations; g; g = g->next)
        close_foreign_of(g, own);
    for (const struct supervised *s = m->orphans; s; s = s->next)
        if (s->pidfd >= 0)
            close(s->pidfd);
    if (m->pid_fd >= 0)
        close(m->pid_fd);
    control_forget(m->control);
    switches_forget(m, own);
    upgrade_forget(m);
    predecessor_forget(m);
    close(m->signal_fd);
    close(m->life_line[1]);
    close(uv_backend_fd(&m->loop));
}

__attribute__((noreturn)) static void worker_main(struct master *m, struct supervised *s,
                                                  pid_t parent)
{
    struct listener *l = listener_of(s);
    struct worker w = {
        .listener = l,
        .board = l->board,
        .slot = slot_of(s),
        .index = s->slot,
        .life_line = m->life_line[0],
        .log_round = atomic_load(&slot_of(s)->logs_seen),
        .logs_seen = &slot_of(s)->logs_seen,
    };
    l->service.phase = w.slot->phase;
    worker_set_signals();
    if (s->generation->state == GENERATION_STARTING)
        log_take(); /* there is one to take in a reload */
    else
        log_forget();
    close_foreign(m, s->generation);
    if (become_user(m) != 0)
        _exit(1);
    if (!worker_bind_life(parent, SIGKILL))
        _exit(0);
    worker_make_gil(&w);
    int status = l->model->run(&w);
    exit(status);
}

/* --- ends ------------------------------------------------------------------------------------ */

static void plan_respawn(struct supervised *s);

static void on_respawn(uv_timer_t *timer)
{
    struct supervised *s = timer->data;
    enum generation_state state = s->generation->state;
    bool wanted = state == GENERATION_STARTING || state == GENERATION_SERVING;
    if (wanted && !s->generation->killing && worker_start(s) != 0)
        plan_respawn(s);
}

static void say_end(const struct supervised *s, const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED)
        log_warn("worker %d of %s ended with status %d", s->pid, name_of(s), info->si_status);
    else
        log_warn("worker %d of %s was ended by signal %d (%s)", s->pid, name_of(s), info->si_status,
                 strsignal(info->si_status));
}

static void plan_respawn(struct supervised *s)
{
    int64_t lived = (int64_t)(uv_hrtime() / 1000000) - s->started_ms;
    if (lived >= STABLE_MS)
        s->backoff_ms = 0;
    uv_timer_start(&s->respawn, on_respawn, (uint64_t)s->backoff_ms, 0);
    s->backoff_ms = s->backoff_ms ? s->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (s->backoff_ms > BACKOFF_MAX_MS)
        s->backoff_ms = BACKOFF_MAX_MS;
}

static void free_entry(struct child_entry *entry)
{
    atomic_store(&entry->idle_ms, 0);
    atomic_store(&entry->pid, 0); /* from here on the acceptor may use it */
}

/* The entry of a process among an acceptor's children; NULL: it has none there. */
static struct child_entry *entry_in(const struct board *b, const struct worker_slot *slot,
                                    pid_t pid)
{
    for (unsigned i = 0; i < b->child_count; i++)
        if (atomic_load(&slot->children[i].pid) == pid)
            return &slot->children[i];
    return NULL;
}

static struct child_entry *entry_of(const struct supervised *s, pid_t pid)
{
    return entry_in(board_of(s), slot_of(s), pid);
}

static void on_orphan_end(struct supervised *s)
{
    struct worker_slot *slot = slot_of(s);
    struct supervised **at = &s->generation->master->orphans;
    struct child_entry *entry = entry_of(s, s->pid);
    if (entry)
        free_entry(entry);
    modus_sem_release(&slot->permits, 1);
    slot->orphans--;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
}

/* Of this master's own, whatever else it has as a subreaper. */
static bool is_known(const struct master *m, pid_t pid)
{
    if (upgrade_knows(m, pid))
        return true;
    for (const struct generation *g = m->generations; g; g = g->next)
        for (unsigned i = 0; i < places_of(g); i++)
            if (g->workers[i].pid == pid)
                return true;
    for (const struct supervised *s = m->orphans; s; s = s->next)
        if (s->pid == pid)
            return true;
    return false;
}

static void adopt_orphan(struct supervised *dead, pid_t pid);

/* One that was forked a moment before the acceptor died is on no board yet. */
static bool is_on_some_board(const struct master *m, pid_t pid)
{
    for (const struct generation *g = m->generations; g; g = g->next)
        for (unsigned i = 0; i < g->listener.board->slot_count; i++)
            if (entry_in(g->listener.board, &g->listener.board->slots[i], pid))
                return true;
    return false;
}

static void look_at_child(struct supervised *dead, pid_t pid)
{
    struct child_entry *forking = entry_of(dead, -1);
    if (is_known(dead->generation->master, pid))
        return;
    if (!entry_of(dead, pid)) {
        if (!forking || is_on_some_board(dead->generation->master, pid))
            return; /* another acceptor's, which is dead too: its turn comes */
        atomic_store(&forking->pid, pid);
    }
    adopt_orphan(dead, pid);
}

/* The acceptor is dead; what it had forked is ours now, and finishes its requests. The kernel knows
 * it best. */
static void adopt_orphans(struct supervised *dead)
{
    struct board *b = board_of(dead);
    struct worker_slot *slot = slot_of(dead);
    FILE *children = b->child_count ? fopen("/proc/thread-self/children", "re") : NULL;
    int pid;
    while (children && fscanf(children, "%d", &pid) == 1)
        look_at_child(dead, pid);
    if (children)
        fclose(children);
    for (unsigned i = 0; i < b->child_count; i++) {
        pid = atomic_load(&slot->children[i].pid);
        if (!children && pid > 0) /* no /proc here */
            look_at_child(dead, pid);
        if (pid != 0 && !is_known(dead->generation->master, pid))
            free_entry(
                &slot->children[i]); /* reaped, or never forked, and then the acceptor died */
    }
    /* A permit may have died in the acceptor's hands. */
    unsigned left = b->child_count ? modus_sem_value(&slot->permits) : 0;
    if (b->child_count > left + slot->orphans)
        modus_sem_release(&slot->permits, b->child_count - left - slot->orphans);
}

/* It was told to go, and went. */
static bool is_wanted(const struct supervised *s, const siginfo_t *info)
{
    const struct generation *g = s->generation;
    bool told = g->state == GENERATION_RETIRING || g->state == GENERATION_STOPPING ||
                atomic_load(&slot_of(s)->retire);
    return g->killing || s->cut || (told && info->si_code == CLD_EXITED);
}

/* What is done about the end of one that serves, or is to serve, or has not finished. */
static void replace(struct supervised *s, const siginfo_t *info, bool was_ready)
{
    struct generation *g = s->generation;
    bool exited = info->si_code == CLD_EXITED;
    char how[128];
    if (g->state == GENERATION_STARTING && (g->master->ready || (exited && !was_ready))) {
        snprintf(how, sizeof how, "its worker %d %s %d", info->si_pid,
                 exited ? "ended with status" : "was ended by signal", info->si_status);
        supervisor_cannot_start(g, how);
    } else if (g->state == GENERATION_STARTING || g->state == GENERATION_SERVING) {
        plan_respawn(s);
        workers_ring(g); /* what it was to look at, others look at now */
    } else if (g->state == GENERATION_STOPPING && was_ready && listener_has_waiting(&g->listener)) {
        worker_start(s); /* it finds that it is to drain */
    }
}

static void on_worker_end(struct supervised *s, const siginfo_t *info)
{
    struct board *b = board_of(s);
    bool was_ready = modus_event_is_set(&slot_of(s)->ready), wanted = is_wanted(s, info);
    if (!wanted) {
        say_end(s, info);
        atomic_fetch_add(&b->deaths, 1);
    }
    modus_participant_bury(s->generation->master->arena, s->pid);
    board_bury(b, slot_of(s));
    adopt_orphans(s);
    s->pid = 0;
    if (!recycle_ended(s) && !wanted)
        replace(s, info, was_ready);
}

static void free_watch(uv_handle_t *watch)
{
    free(watch);
}

static void forget_pid(struct supervised *s)
{
    uv_close((uv_handle_t *)s->watch, free_watch);
    close(s->pidfd);
    s->watch = NULL;
    s->pidfd = -1;
    s->generation->master->running--;
    s->generation->running--;
}

static void on_pidfd(uv_poll_t *watch, int status, int events)
{
    struct supervised *s = watch->data;
    struct generation *g = s->generation;
    siginfo_t info = {0};
    (void)status, (void)events;
    if (waitid(P_PIDFD, (id_t)s->pidfd, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
        return;
    forget_pid(s);
    if (s->orphan)
        on_orphan_end(s);
    else
        on_worker_end(s, &info);
    generation_look(g);
    supervisor_after_end(g->master);
    recycle_look(g->master);
}

static int watch_pid(struct supervised *s)
{
    s->watch = malloc(sizeof *s->watch);
    s->pidfd = pidfd_open(s->pid, 0);
    if (!s->watch || s->pidfd < 0 ||
        uv_poll_init(&s->generation->master->loop, s->watch, s->pidfd) != 0) {
        if (s->pidfd >= 0)
            close(s->pidfd);
        s->pidfd = -1;
        free(s->watch);
        s->watch = NULL;
        return -1;
    }
    s->watch->data = s;
    s->generation->master->running++;
    s->generation->running++;
    if (uv_poll_start(s->watch, UV_READABLE, on_pidfd) == 0)
        return 0;
    forget_pid(s);
    return -1;
}

static void adopt_orphan(struct supervised *dead, pid_t pid)
{
    struct master *m = dead->generation->master;
    struct supervised *s = calloc(1, sizeof *s);
    if (!s)
        return;
    *s = (struct supervised){.generation = dead->generation,
                             .slot = dead->slot,
                             .pid = pid,
                             .orphan = true,
                             .next = m->orphans};
    if (watch_pid(s) != 0) {
        log_warn("process %d of a connection has lost its acceptor and cannot be watched: %s", pid,
                 strerror(errno));
        free(s);
        return;
    }
    m->orphans = s;
    slot_of(s)->orphans++;
    if (s->generation->killing || dead->cut)
        pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
}

/* --- starting and stopping ------------------------------------------------------------------- */

int worker_start(struct supervised *s)
{
    struct master *m = s->generation->master;
    struct worker_slot *slot = slot_of(s);
    enum generation_state state = s->generation->state;
    s->nth = m->starts++;
    s->cut = false;
    if (state == GENERATION_STARTING || state == GENERATION_SERVING) {
        atomic_store(slot->phase, SERVICE_OPEN);
        atomic_store(&slot->retire, false); /* an earlier one's */
    }
    atomic_store(&slot->logs_seen, atomic_load(&board_of(s)->log_round));
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        worker_main(m, s, parent);
    if (pid < 0) {
        log_error("cannot make a worker for %s: %s", name_of(s), strerror(errno));
        return -1;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    s->pid = pid;
    s->started_ms = (int64_t)(uv_hrtime() / 1000000);
    atomic_store(&slot->pid, pid);
    atomic_store(&slot->started_ms, now.tv_sec * 1000 + now.tv_nsec / 1000000);
    int dead = WORKER_DEAD; /* the worker may have said more already */
    atomic_compare_exchange_strong(&slot->state, &dead, WORKER_STARTING);
    if (watch_pid(s) == 0)
        return 0;
    log_error("cannot watch a worker of %s: %s", name_of(s), strerror(errno));
    kill(pid, SIGKILL); /* nobody would hear of its end */
    waitpid(pid, NULL, 0);
    s->pid = 0;
    board_bury(board_of(s), slot);
    return -1;
}

int workers_start(struct generation *g)
{
    g->workers = calloc(g->listener.board->slot_count, sizeof *g->workers);
    if (!g->workers || switches_start(g->master, g) != 0)
        return -1;
    for (unsigned slot = 0; slot < places_of(g); slot++) {
        struct supervised *s = &g->workers[slot];
        *s = (struct supervised){.generation = g, .slot = slot, .pidfd = -1};
        uv_timer_init(&g->master->loop, &s->respawn);
        s->respawn.data = s;
        modus_event_arm(&g->listener.board->slots[slot].ready, g->master->bell);
    }
    for (unsigned slot = 0; slot < places_of(g); slot++)
        if (!atomic_load(&slot_of(&g->workers[slot])->spare) &&
            worker_start(&g->workers[slot]) != 0)
            return -1;
    return 0;
}

bool workers_know(const struct master *m, pid_t pid)
{
    return is_known(m, pid) || is_on_some_board(m, pid);
}

bool workers_accept(const struct generation *g)
{
    const struct board *b = g->listener.board;
    if (g->state != GENERATION_RETIRING || g->killing)
        return false;
    for (unsigned i = 0; i < b->slot_count; i++)
        if (atomic_load(&b->slots[i].state) == WORKER_WAITING)
            return true;
    return false;
}

bool workers_ready(const struct generation *g)
{
    const struct board *b = g->listener.board;
    for (unsigned i = 0; i < b->slot_count; i++)
        if (!atomic_load(&b->slots[i].spare) && !modus_event_is_set(&b->slots[i].ready))
            return false;
    return true;
}

void workers_ring(struct generation *g)
{
    for (unsigned i = 0; i < g->listener.board->slot_count; i++)
        modus_doorbell_ring(&g->listener.board->slots[i].bell);
}

void workers_kill(struct generation *g)
{
    g->killing = true;
    for (unsigned i = 0; i < places_of(g); i++)
        worker_cut(&g->workers[i]);
}

void worker_cut(struct supervised *s)
{
    s->cut = true;
    if (s->pid && s->pidfd >= 0)
        pidfd_send_signal(s->pidfd, SIGKILL, NULL, 0);
    for (const struct supervised *o = s->generation->master->orphans; o; o = o->next)
        if (o->generation == s->generation && o->slot == s->slot)
            pidfd_send_signal(o->pidfd, SIGKILL, NULL, 0);
}
