/* SPDX-License-Identifier: MIT */
/* What the status handler sees: the boards of all listeners, summed up into plain data. Runs in any
 * worker, and in the master: all that it reads is in the directory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/backlog.h"
#include "server/supervisor_priv.h"

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
static void fill_queue(struct status_listener *to, const struct listing *l)
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

static void fill_counters(struct status_listener *to, const struct listing *l,
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

static void fill_gil(struct status_listener *to, const struct listing *l)
{
    struct timespec now;
    int64_t ran_us = 0;
    uint64_t held_us = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    to->gil = l->gil;
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

/* What a snapshot of so many listeners, workers and addresses is made of: one piece of memory. */
struct room {
    size_t listeners, workers, addresses;
};

struct pieces {
    struct status_listener *listeners;
    struct status_worker *workers;
    const char **addresses;
    char (*texts)[LISTING_NAME];
    char (*notes)[LISTING_NOTE];
    struct backlog *sockets; /* of all listeners, in their order */
};

static struct room room_for(const struct directory *d)
{
    struct room room = {0};
    for (const struct listing *l = d->first; l; l = l->next) {
        room.listeners++;
        room.workers += l->board->slot_count;
        room.addresses += l->address_count;
    }
    return room;
}

static void *cut(struct room room, struct pieces *at)
{
    char *memory =
        calloc(1, room.listeners * (sizeof *at->listeners + LISTING_NAME + LISTING_NOTE) +
                      room.workers * sizeof *at->workers +
                      room.addresses * (sizeof(char *) + LISTING_NAME + sizeof *at->sockets));
    if (!memory)
        return NULL;
    at->listeners = (struct status_listener *)(void *)memory;
    at->workers = (struct status_worker *)(at->listeners + room.listeners);
    at->addresses = (const char **)(at->workers + room.workers);
    at->sockets = (struct backlog *)(at->addresses + room.addresses);
    at->texts = (char(*)[LISTING_NAME])(at->sockets + room.addresses);
    at->notes = (char(*)[LISTING_NOTE])(at->texts + room.addresses + room.listeners);
    return memory;
}

static const char *keep_name(struct pieces *at, const char *name)
{
    memcpy(*at->texts, name, LISTING_NAME);
    return *at->texts++;
}

static void fill_listener(const struct listing *l, struct status_listener *to, struct pieces *at)
{
    struct net_stats *sum = calloc(1, sizeof *sum);
    *to = (struct status_listener){
        .name = keep_name(at, l->name),
        .addresses = at->addresses,
        .address_count = l->address_count,
        .protocol = l->duplex ? "tcp" : "http",
        .model = model_name(l->model),
        .tls = l->tls,
        .workers = at->workers,
        .worker_count = l->board->slot_count,
    };
    if (l->note[0])
        to->note = memcpy(*at->notes++, l->note, LISTING_NOTE);
    for (unsigned i = 0; i < l->address_count; i++)
        *at->addresses++ = keep_name(at, l->addresses[i]);
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

static void ask_backlogs(const struct directory *d, struct backlog *sockets)
{
    size_t n = 0;
    for (const struct listing *l = d->first; l; l = l->next)
        for (unsigned i = 0; i < l->board->inode_count; i++)
            sockets[n++].inode = l->board->inodes[i];
    backlog_ask(sockets, n);
}

static int fill(const struct master *m, struct status_snapshot *out)
{
    const struct directory *d = m->directory;
    struct room room = room_for(d);
    struct pieces at;
    void *memory = cut(room, &at);
    if (!memory)
        return -ENOMEM;
    *out = (struct status_snapshot){
        .version = MODUS_VERSION,
        .pid = m->pid,
        .config_file = m->config->file,
        .started_ms = m->started_unix_ms,
        .uptime_ms = net_clock_us() / 1000 - m->started_ms,
        .generation = d->reloads,
        .worker_deaths = d->deaths,
        .listeners = at.listeners,
        .listener_count = room.listeners,
        .owner = memory,
    };
    ask_backlogs(d, at.sockets);
    struct status_listener *to = at.listeners;
    for (const struct listing *l = d->first; l; l = l->next) {
        fill_listener(l, to, &at);
        out->worker_deaths += to++->worker_deaths;
    }
    return 0;
}

static int take(void *arg, struct status_snapshot *out)
{
    struct master *m = arg;
    int rc = directory_hold(m->directory);
    if (rc < 0)
        return rc;
    rc = fill(m, out);
    directory_let(m->directory);
    return rc;
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
