/* SPDX-License-Identifier: MIT */
/* The life of a generation: built from a listener's part of a configuration, started, serving, then
 * retired by the next one or drained, and at last gone with all that it had.
 *
 *   STARTING -> SERVING -> RETIRING -> gone        another generation serves the same sockets
 *       |          +-----> STOPPING -> gone        the listener is no more, or the server stops
 *       +-> (killed) -> gone                       it could not begin: nothing has changed
 *
 * Sockets outlive generations: the next one has descriptors of its own of the same sockets, and what
 * an address is bound to is asked of the generation before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/tls.h"
#include "server/backlog.h"
#include "server/intake.h"
#include "server/log.h"
#include "server/supervisor_priv.h"

enum { PORT_LOOK_MS = 50, PORT_QUIET_MS = 250 };

/* --- making ---------------------------------------------------------------------------------- */

static int make_board(struct master *m, struct listener *l)
{
    unsigned spares = model_recycles(l->model, l->conf) ? 1 : 0;
    l->board = board_new(m->arena, l->plan.workers, spares, l->plan.threads,
                         l->plan.threads + l->plan.helpers, l->plan.children);
    l->faults = modus_arena_alloc(m->arena, l->conf->route_count * sizeof *l->faults, 64);
    if (!l->board || !l->faults || board_know_sockets(l->board, m->arena, l->fds, l->fd_count) != 0)
        return -1;
    return 0;
}

/* Sessions go on over a change of configuration. */
static void *tickets_of(struct master *m, const struct generation *before, bool tls)
{
    if (before && before->tickets)
        return before->tickets;
    return tls ? modus_arena_alloc(m->arena, tls_shared_size(), 64) : NULL;
}

/* And over an upgrade. */
static void take_keys(const struct generation *g, const struct inherited_listener *from)
{
    if (from && from->tickets && g->tickets && tls_shared_read(g->tickets, from->tickets) != 0)
        log_info("%s: sessions do not go on: the earlier build's keys are not understood",
                 from->title);
}

/* Is the socket at that place in a listener the one for an address? A port that the kernel has
 * chosen belongs to the place. */
static bool is_bound_for(const struct listener *l, size_t at, const struct config_address *a,
                         size_t place, bool same_listener)
{
    const struct config_address *bound = &l->conf->addresses[at];
    if (at >= l->fd_count || strcmp(bound->text, a->text) != 0)
        return false;
    return a->is_unix ? strcmp(bound->path, a->path) == 0
                      : a->port != 0 || (same_listener && at == place);
}

/* The descriptor of the socket that is bound to an address of a new generation; -1: none is. */
static int bound_for(const struct master *m, const struct generation *before,
                     const struct config_address *a, size_t place)
{
    for (const struct generation *g = m->generations; g; g = g->next)
        for (size_t i = 0; g->state == GENERATION_SERVING && i < g->listener.conf->address_count;
             i++)
            if (is_bound_for(&g->listener, i, a, place, g == before))
                return g->listener.fds[i];
    return -1;
}

bool generation_is_lent(const struct master *m, int fd)
{
    uint32_t inode = m->lent_count ? backlog_inode(fd) : 0;
    for (size_t i = 0; i < m->lent_count; i++)
        if (m->lent[i] == inode)
            return true;
    return false;
}

static void note_lent(struct master *m, int fd)
{
    uint32_t *more = reallocarray(m->lent, m->lent_count + 1, sizeof *more);
    if (!more)
        return;
    m->lent = more;
    m->lent[m->lent_count++] = backlog_inode(fd);
}

static int inherited_for(struct master *m, const struct inherited_listener *from,
                         const struct config_listener *conf, size_t place)
{
    const struct inherited_socket *s = inherit_socket(m->inheritance, from, conf, place);
    if (s && s->lent)
        note_lent(m, s->fd);
    return s ? s->fd : -1;
}

/* A generation that no longer serves may have the address until it has finished. */
static void say_whose(const struct master *m, const struct generation *g, char *why,
                      size_t why_size)
{
    const struct config_listener *conf = g->listener.conf;
    size_t at = g->listener.fd_count; /* what comes after those that could be opened */
    for (const struct generation *old = m->generations; old; old = old->next)
        for (size_t i = 0; at < conf->address_count && i < old->listener.conf->address_count; i++)
            if (old->state != GENERATION_SERVING &&
                strcmp(old->listener.conf->addresses[i].text, conf->addresses[at].text) == 0)
                snprintf(why, why_size,
                         "%s:%d: cannot listen on %s yet: this server still finishes what it had "
                         "there; reload again when it has",
                         g->config->file, conf->addresses[at].line, conf->addresses[at].text);
}

static int open_sockets(struct master *m, struct generation *g, const struct generation *before,
                        const struct inherited_listener *from, char *why, size_t why_size)
{
    const struct config_listener *conf = g->listener.conf;
    int *have = calloc(conf->address_count, sizeof *have);
    if (!have)
        return -1;
    for (size_t i = 0; i < conf->address_count; i++) {
        have[i] = bound_for(m, before, &conf->addresses[i], i);
        if (have[i] < 0)
            have[i] = inherited_for(m, from, conf, i);
    }
    int r = listener_open(&g->listener, g->config, have, why, why_size);
    if (r != 0)
        say_whose(m, g, why, why_size);
    free(have);
    return r;
}

/* All generations of a listener have the same one, by descriptors of their own. TLS can't move: its
 * keys are in a process; nor what is one exchange from begin to end. */
static int open_intake(struct listener *l, const struct listener *before,
                       struct inherited_listener *from)
{
    const int *have = before ? before->intake : from ? from->intake : NULL;
    if (l->tls || l->service.duplex)
        return 0;
    if (!have || have[0] < 0 || have[1] < 0)
        return intake_open(l->intake);
    for (int i = 0; i < 2; i++)
        if ((l->intake[i] = fcntl(have[i], F_DUPFD_CLOEXEC, 0)) < 0)
            return -1;
    if (from)
        from->intake_taken = true;
    return 0;
}

static int build(struct master *m, struct generation *g, struct config_listener *conf,
                 const struct generation *before, char *why, size_t why_size)
{
    struct handler_env env = {.status = &m->status};
    struct inherited_listener *from = inherit_listener(m->inheritance, g->config, conf);
    g->tickets = tickets_of(m, before, conf->tls_count > 0);
    if (config_open_handlers(g->config, conf, &env, why, why_size) != 0 ||
        listener_build(&g->listener, g->config, conf, g->tickets, why, why_size) != 0 ||
        open_sockets(m, g, before, from, why, why_size) != 0)
        return -1;
    take_keys(g, from);
    snprintf(why, why_size, "%s:%d: no shared memory or descriptors for this listener",
             g->config->file, conf->line);
    if (open_intake(&g->listener, before ? &before->listener : NULL, from) != 0 ||
        make_board(m, &g->listener) != 0)
        return -1;
    g->listing = listing_new(m->arena, &g->listener, before ? before->listing->number + 1 : 1,
                             before ? before->listing->past : NULL);
    if (!g->listing)
        return -1;
    if (m->drop_user)
        log_give(conf->access_log, m->uid, m->gid);
    return 0;
}

struct generation *generation_new(struct master *m, struct config *config,
                                  struct config_listener *conf, struct generation *before,
                                  char *why, size_t why_size)
{
    struct generation *g = calloc(1, sizeof *g);
    snprintf(why, why_size, "%s:%d: no memory", config->file, conf->line);
    if (!g)
        return NULL;
    g->master = m;
    g->config = config;
    g->before = before;
    if (build(m, g, conf, before, why, why_size) == 0)
        return g;
    if (g->listener.conf)
        listener_close(&g->listener);
    free(g);
    return NULL;
}

/* --- serving, and then no more --------------------------------------------------------------- */

static void set_state(struct generation *g, enum generation_state state, enum listing_state shown)
{
    g->state = state;
    atomic_store(&g->listing->state, shown);
}

struct generation *generation_named(const struct master *m, const char *name, char *why,
                                    size_t why_size)
{
    struct generation *found = NULL;
    unsigned count = 0;
    for (struct generation *g = m->generations; g; g = g->next) {
        const struct listener *l = &g->listener;
        bool named = strcmp(l->conf->addresses[0].text, name) == 0;
        if (g->state != GENERATION_SERVING || (!named && strcmp(listener_name(l), name) != 0))
            continue;
        found = g;
        count++;
    }
    if (count == 1)
        return found;
    snprintf(
        why, why_size,
        count
            ? "several listeners are called \"%s\": name one by the address that modus status shows"
            : "no listener is called \"%s\": modus status shows them",
        name);
    return NULL;
}

void generation_announce(const struct generation *g)
{
    const struct listener *l = &g->listener;
    const char *protocol = l->service.duplex ? "tcp" : l->tls ? "https" : "http";
    for (size_t i = 0; i < l->fd_count; i++)
        log_announce("serving %s on %s with %s", protocol, l->names[i], l->conf->model);
}

void generation_serve(struct generation *g)
{
    for (size_t i = 0; i < g->listener.fd_count; i++)
        g->listener.borrowed[i] = generation_is_lent(g->master, g->listener.fds[i]);
    set_state(g, GENERATION_SERVING, LISTING_SERVING);
    modus_event_set(&g->listener.board->serve);
}

static void on_limit(uv_timer_t *timer)
{
    struct generation *g = timer->data;
    log_warn("%s: drain_timeout is over for generation %u: what is left is cut",
             listener_name(&g->listener), g->listing->number);
    workers_kill(g);
}

static void limit(struct generation *g)
{
    uv_timer_init(&g->master->loop, &g->limit);
    g->limit.data = g;
    uv_timer_start(&g->limit, on_limit, (uint64_t)g->master->config->drain_timeout_ms, 0);
}

/* Nobody takes in any more what earlier generations of its listener would give. */
static void stay(const struct generation *g)
{
    for (struct generation *other = g->master->generations; other; other = other->next) {
        bool same = other->listing->past == g->listing->past;
        if (same && board_stay(other->listener.board))
            workers_ring(other);
    }
}

static bool is_moving(const struct generation *g)
{
    const struct board *b = g->listener.board;
    for (unsigned i = 0; i < b->slot_count; i++)
        if (atomic_load(b->slots[i].phase) == SERVICE_MOVING)
            return true;
    return false;
}

void generations_stay(struct master *m)
{
    for (const struct generation *g = m->generations; g; g = g->next) {
        if (!is_moving(g))
            continue;
        stay(g); /* first, so that nobody gives any more */
        intake_shut(g->listener.intake[0]);
    }
}

bool generation_holds_addresses(const struct generation *g)
{
    bool going = g->state == GENERATION_STOPPING || g->state == GENERATION_RETIRING;
    return going && g->listener.fd_count > 0;
}

/* What the kernel had accepted is taken by now, and requests may take long to finish: the addresses
 * come free, whatever copy of a descriptor a busy worker still has. */
static bool free_ports(struct generation *g, int64_t now_ms)
{
    struct listener *l = &g->listener;
    if (l->waited_ms == 0 || listener_has_waiting(l))
        l->waited_ms = now_ms;
    if (now_ms - l->waited_ms < PORT_QUIET_MS)
        return false;
    listener_stop(l);
    return true;
}

static void on_port_timer(uv_timer_t *timer)
{
    struct master *m = timer->data;
    int64_t now_ms = (int64_t)(uv_hrtime() / 1000000);
    bool all = true;
    for (struct generation *g = m->generations; g; g = g->next)
        if (generation_holds_addresses(g))
            all &= free_ports(g, now_ms);
    if (all)
        uv_timer_stop(timer);
}

static void watch_ports(struct master *m)
{
    uv_timer_start(&m->port_timer, on_port_timer, PORT_LOOK_MS, PORT_LOOK_MS);
}

void generation_leave(struct generation *g, size_t socket)
{
    g->listener.borrowed[socket] = true;
    atomic_store(&g->listener.board->taken[socket], true);
}

/* Sockets that are systemd's outlive us: what waits there is for the next server. */
static void leave_lent(struct generation *g)
{
    for (size_t i = 0; i < g->listener.fd_count; i++)
        if (generation_is_lent(g->master, g->listener.fds[i]))
            generation_leave(g, i);
}

/* Those of its addresses that nobody has taken come to an end, as at a stop. */
static void let_addresses_go(struct generation *g)
{
    struct listener *l = &g->listener;
    if (listener_is_handed_over(l)) {
        listener_hand_over(l);
        return;
    }
    listener_refuse_new(l);
    watch_ports(g->master);
}

void generation_retire(struct generation *g, bool taken_in)
{
    bool moves = g->listener.intake[1] >= 0 && taken_in;
    set_state(g, GENERATION_RETIRING, LISTING_RETIRING);
    leave_lent(g);
    let_addresses_go(g);
    if (!moves)
        stay(g);
    board_retire_all(g->listener.board, moves);
    limit(g);
    workers_ring(g);
    generation_look(g);
}

void generation_stop(struct generation *g)
{
    bool alone = g->state == GENERATION_SERVING;
    set_state(g, GENERATION_STOPPING, LISTING_RETIRING);
    leave_lent(g);
    if (alone)
        listener_refuse_new(&g->listener);
    if (alone && !g->master->stopping)
        limit(g);
    stay(g);
    board_drain(g->listener.board);
    modus_event_set(&g->listener.board->serve); /* if only to find that there is nobody any more */
    workers_ring(g);
    watch_ports(g->master);
    generation_look(g);
}

/* --- its end --------------------------------------------------------------------------------- */

static bool any_of(const struct generation *list, const struct config *config)
{
    for (; list; list = list->next)
        if (list->config == config)
            return true;
    return false;
}

/* A configuration stays as long as something of it does. */
void generations_free_config(struct master *m, struct config *config)
{
    if (config != m->config && !any_of(m->generations, config) && !any_of(m->going, config) &&
        !reload_has(m, config))
        config_free(config);
}

void generation_free(struct generation *g)
{
    struct master *m = g->master;
    struct config *config = g->config;
    struct board *board = g->listener.board;
    control_answer_all(&g->drains, NULL);
    modus_arena_free(m->arena, g->listener.faults,
                     g->listener.conf->route_count * sizeof *g->listener.faults);
    listener_close(&g->listener);
    board_free(board, m->arena);
    free(g->workers);
    free(g);
    generations_free_config(m, config);
}

static void unlink_from(struct generation **list, struct generation *g)
{
    while (*list != g)
        list = &(*list)->next;
    *list = g->next;
}

static void on_closed(uv_handle_t *handle)
{
    struct generation *g = handle->data;
    if (--g->open_handles)
        return;
    unlink_from(&g->master->going, g);
    generation_free(g);
}

static void on_respawn_closed(uv_handle_t *handle)
{
    struct supervised *s = handle->data;
    handle->data = s->generation;
    on_closed(handle);
}

/* It has no process any more. What it has counted stays with its listener; memory that libuv knows
 * is freed when libuv has let go of it. */
static void go(struct generation *g)
{
    struct master *m = g->master;
    g->gone = true;
    m->gone_log_failures += atomic_load(&g->listener.board->log_failures);
    control_answer_all(&g->drains, NULL);
    unlink_from(&m->generations, g);
    g->next = m->going;
    m->going = g;
    directory_remove(m->directory, m->arena, g->listing);
    g->listing = NULL;
    g->open_handles = 1 + g->listener.board->slot_count;
    for (unsigned i = 0; i < g->listener.board->slot_count; i++)
        uv_close((uv_handle_t *)&g->workers[i].respawn, on_respawn_closed);
    if (!g->limit.data)
        uv_timer_init(&m->loop, &g->limit);
    g->limit.data = g;
    uv_close((uv_handle_t *)&g->limit, on_closed);
}

static bool may_go(const struct generation *g)
{
    if (g->gone || g->running || !g->workers || g->master->stopping)
        return false;
    return g->state == GENERATION_RETIRING || g->state == GENERATION_STOPPING || g->killing;
}

void generation_abandon(struct generation *g)
{
    if (g->workers) {
        workers_kill(g);
        generation_look(g);
        return;
    }
    unlink_from(&g->master->generations, g);
    directory_remove(g->master->directory, g->master->arena, g->listing);
    generation_free(g);
}

void generation_look(struct generation *g)
{
    if (may_go(g))
        go(g);
}
