/* SPDX-License-Identifier: MIT */
/* What the status handler sees: the boards of all listeners, summed up into plain data. Runs in any
 * worker, since boards are shared and made before the first fork. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/backlog.h"
#include "server/supervisor_priv.h"

enum { NAME_SIZE = 128, NOTE_SIZE = 160 };

static void fill_times(struct status_times *to, const struct net_histogram *h)
{
    to->count = net_counted(&h->count);
    to->sum_us = net_counted(&h->sum_us);
    to->p50_us = net_histogram_at(h, 0.5);
    to->p90_us = net_histogram_at(h, 0.9);
    to->p99_us = net_histogram_at(h, 0.99);
    to->p999_us = net_histogram_at(h, 0.999);
    to->max_us = net_counted(&h->max_us);
}

static uint64_t gauge(uint64_t up, uint64_t down)
{
    return up > down ? up - down : 0;
}

static uint64_t busy_lanes(const struct board *b, const struct worker_slot *slot)
{
    uint64_t busy = 0;
    for (unsigned i = 0; i < b->lane_count; i++)
        busy += atomic_load_explicit(&slot->lanes[i].busy, memory_order_relaxed);
    return busy;
}

/* Only prefork's workers need to say that they are busy; of the others it can be seen. */
static bool is_busy(const struct board *b, const struct worker_slot *slot,
                    const struct net_stats *sum)
{
    return gauge(net_counted(&sum->begun), net_counted(&sum->ended)) > 0 || busy_lanes(b, slot) > 0;
}

static enum status_state state_of(const struct board *b, const struct worker_slot *slot,
                                  const struct net_stats *sum)
{
    switch ((enum worker_state)atomic_load(&slot->state)) {
    case WORKER_STARTING:
        return STATUS_STARTING;
    case WORKER_WAITING:
        return is_busy(b, slot, sum) ? STATUS_BUSY : STATUS_WAITING;
    case WORKER_BUSY:
        return STATUS_BUSY;
    case WORKER_DRAINING:
        return STATUS_DRAINING;
    case WORKER_DEAD:
        break;
    }
    return STATUS_DEAD;
}

static void fill_worker(struct status_worker *to, const struct board *b,
                        const struct worker_slot *slot)
{
    struct net_stats *sum = calloc(1, sizeof *sum);
    uint64_t answers = 0;
    if (!sum)
        return;
    board_slot_sum(b, slot, sum);
    for (unsigned i = 0; i < 6; i++)
        answers += net_counted(&sum->answers[i]);
    *to = (struct status_worker){
        .pid = atomic_load(&slot->pid),
        .state = state_of(b, slot, sum),
        .started_ms = atomic_load(&slot->started_ms),
        .connections = atomic_load(&slot->connections),
        .requests = answers - atomic_load(&slot->requests_before),
    };
    free(sum);
}

/* A process for each connection: its children say more than sums, which a killed one leaves wrong.
 */
static void fill_children(struct status_listener *to, const struct board *b)
{
    for (unsigned i = 0; i < b->child_count; i++) {
        if (atomic_load(&b->children[i].pid) == 0)
            continue;
        to->children++;
        to->children_idle += atomic_load(&b->children[i].idle_ms) != 0;
    }
    to->children_max = b->child_count;
    to->connections_open = to->children;
    to->connections_idle = to->children_idle;
    to->connections_active = to->children - to->children_idle;
    if (to->requests_active > to->connections_active)
        to->requests_active = to->connections_active;
}

/* Who took before who put: what is on its way meanwhile counts as waiting. */
static void fill_queue(struct status_listener *to, const struct listener *l)
{
    const struct board *b = l->board;
    uint64_t put = 0, taken = 0;
    for (unsigned i = 0; i < b->slot_count; i++) {
        to->threads_busy += busy_lanes(b, &b->slots[i]);
        for (unsigned j = 0; j < b->lane_count; j++)
            taken += net_counted(&b->slots[i].lanes[j].taken);
    }
    for (unsigned i = 0; i < b->slot_count; i++)
        for (unsigned j = 0; j < b->lane_count; j++)
            put += net_counted(&b->slots[i].lanes[j].put);
    to->threads = (uint64_t)l->plan.workers * l->plan.pool;
    to->queue_depth = gauge(put, taken);
    to->queue_capacity = atomic_load(&b->queue_capacity) * b->slot_count;
}

static void fill_connections(struct status_listener *to, const struct board *b,
                             const struct net_stats *sum)
{
    uint64_t active = gauge(net_counted(&sum->roused), net_counted(&sum->rested));
    if (atomic_load(&b->queue_of_unread)) /* their connections do not know yet */
        active += to->queue_depth;
    to->connections_open = gauge(net_counted(&sum->accepted), net_counted(&sum->closed));
    to->connections_idle = gauge(to->connections_open, active);
    to->connections_active = to->connections_open - to->connections_idle;
}

static void fill_counters(struct status_listener *to, const struct listener *l,
                          const struct net_stats *sum)
{
    to->requests_active = gauge(net_counted(&sum->begun), net_counted(&sum->ended));
    fill_queue(to, l);
    if (l->board->child_count)
        fill_children(to, l->board);
    else
        fill_connections(to, l->board, sum);
    to->connections_max = l->plan.max_connections;
    to->accepted = net_counted(&sum->accepted);
    to->evicted = net_counted(&sum->evicted);
    to->handshakes_failed = net_counted(&sum->handshakes_failed);
    to->accept_pauses = net_counted(&sum->accept_paused);
    for (unsigned i = 0; i < 6; i++) {
        to->answers[i] = net_counted(&sum->answers[i]);
        to->requests += to->answers[i];
    }
    to->bytes_in = net_counted(&sum->bytes_in);
    to->bytes_out = net_counted(&sum->bytes_out);
    fill_times(&to->latency, &sum->latency);
    to->queue_rejected = net_counted(&sum->rejected);
    fill_times(&to->queued, &sum->queued);
    to->worker_deaths = atomic_load(&l->board->deaths);
}

static void fill_gil(struct status_listener *to, const struct listener *l)
{
    struct timespec now;
    int64_t ran_us = 0;
    uint64_t held_us = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    to->gil = l->conf->gil && model_uses(l->model, "gil");
    for (unsigned i = 0; to->gil && i < l->board->slot_count; i++) {
        const struct worker_slot *slot = &l->board->slots[i];
        to->gil_acquired += net_counted(&slot->gil.acquired);
        to->gil_waits += net_counted(&slot->gil.waits);
        to->gil_hand_overs += net_counted(&slot->gil.hand_overs);
        to->gil_waited_us += net_counted(&slot->gil.waited_us);
        to->gil_held_us += net_counted(&slot->gil.held_us);
        held_us += net_counted(&slot->gil.held_us) - atomic_load(&slot->gil_before_us);
        ran_us += now.tv_sec * 1000000 + now.tv_nsec / 1000 - atomic_load(&slot->started_ms) * 1000;
    }
    to->gil_held_percent = ran_us > 0 ? held_us * 100 / (uint64_t)ran_us : 0;
}

/* One block of memory a snapshot: the listeners, then their workers, addresses and texts. */
struct block {
    struct status_listener *listeners;
    struct status_worker *workers;
    const char **addresses;
    char (*texts)[NAME_SIZE];
    char (*notes)[NOTE_SIZE];
    struct backlog *sockets; /* of all listeners, in their order */
};

static void fill_listener(const struct listener *l, struct status_listener *to, struct block *at)
{
    struct net_stats *sum = calloc(1, sizeof *sum);
    *to = (struct status_listener){
        .name = listener_name(l),
        .addresses = at->addresses,
        .address_count = l->conf->address_count,
        .protocol = l->service.duplex ? "tcp" : "http",
        .model = l->conf->model,
        .tls = l->tls != NULL,
        .workers = at->workers,
        .worker_count = l->board->slot_count,
    };
    if (l->model->note(l->conf, *at->notes, NOTE_SIZE))
        to->note = *at->notes;
    at->notes++;
    for (size_t i = 0; i < l->conf->address_count; i++) {
        snprintf(*at->texts, NAME_SIZE, "%s", l->names[i]);
        *at->addresses++ = *at->texts++;
    }
    for (unsigned i = 0; i < l->board->inode_count; i++)
        to->connections_waiting += at->sockets++->waiting;
    for (unsigned i = 0; i < l->board->slot_count; i++)
        fill_worker(at->workers++, l->board, &l->board->slots[i]);
    if (!sum)
        return;
    board_sum(l->board, sum);
    fill_counters(to, l, sum);
    fill_gil(to, l);
    free(sum);
}

static void ask_backlogs(const struct master *m, struct backlog *sockets)
{
    size_t n = 0;
    for (size_t i = 0; i < m->listener_count; i++)
        for (unsigned j = 0; j < m->listeners[i].board->inode_count; j++)
            sockets[n++].inode = m->listeners[i].board->inodes[j];
    backlog_ask(sockets, n);
}

static int take(void *arg, struct status_snapshot *out)
{
    struct master *m = arg;
    size_t addresses = 0, count = m->listener_count;
    for (size_t i = 0; i < count; i++)
        addresses += m->listeners[i].conf->address_count;
    char *memory = calloc(1, count * sizeof(struct status_listener) +
                                 m->worker_count * sizeof(struct status_worker) +
                                 addresses * (sizeof(char *) + NAME_SIZE + sizeof(struct backlog)) +
                                 count * NOTE_SIZE);
    if (!memory)
        return -1;
    struct block at = {.listeners = (struct status_listener *)(void *)memory};
    at.workers = (struct status_worker *)(at.listeners + count);
    at.addresses = (const char **)(at.workers + m->worker_count);
    at.sockets = (struct backlog *)(at.addresses + addresses);
    at.texts = (char(*)[NAME_SIZE])(at.sockets + addresses);
    at.notes = (char(*)[NOTE_SIZE])(at.texts + addresses);
    struct status_listener *listeners = at.listeners;
    uint64_t deaths = 0;
    ask_backlogs(m, at.sockets);
    for (size_t i = 0; i < count; i++) {
        fill_listener(&m->listeners[i], &listeners[i], &at);
        deaths += listeners[i].worker_deaths;
    }
    *out = (struct status_snapshot){
        .version = MODUS_VERSION,
        .pid = m->pid,
        .config_file = m->config->file,
        .started_ms = m->started_unix_ms,
        .uptime_ms = net_clock_us() / 1000 - m->started_ms,
        .generation = 1,
        .worker_deaths = deaths,
        .listeners = listeners,
        .listener_count = count,
        .owner = memory,
    };
    return 0;
}

static void release(struct status_snapshot *s)
{
    free(s->owner);
    s->owner = NULL;
}

void snapshot_init(struct master *m)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    m->pid = getpid();
    m->started_unix_ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    m->started_ms = net_clock_us() / 1000;
    m->status = (struct status_source){take, release, m};
}
