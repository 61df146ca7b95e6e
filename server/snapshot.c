/* SPDX-License-Identifier: MIT */
/* What the status handler sees: the boards of all listeners, summed up into plain data. Runs in any
 * worker, and in the master: all that it reads is in the directory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "net/socket.h"
#include "server/backlog.h"
#include "server/supervisor_priv.h"

static void fill_times(struct status_times *to, const struct net_histogram *h)
{
    uint64_t below = 0;
    for (unsigned i = 0; i < STATUS_BUCKETS; i++) {
        uint64_t next = i + 1 < STATUS_BUCKETS ? net_histogram_below(h, status_bucket_us(i))
                                               : net_histogram_total(h);
        to->bucket[i] = next - below;
        below = next;
    }
    to->count = below; /* of what is in the buckets: the counter may be ahead */
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

/* Of all acceptors; at goes up to slot_count * child_count. */
static const struct child_entry *child_at(const struct board *b, unsigned at)
{
    return &b->slots[at / b->child_count].children[at % b->child_count];
}

/* A process for each connection: its children say more than sums, which a killed one leaves wrong.
 */
static void fill_children(struct status_listener *to, const struct board *b)
{
    uint64_t children = 0, idle = 0, parked = 0;
    for (unsigned i = 0; i < b->slot_count * b->child_count; i++) {
        const struct child_entry *child = child_at(b, i);
        if (atomic_load(&child->pid) == 0)
            continue;
        children++;
        idle += atomic_load(&child->idle_ms) != 0;
    }
    for (unsigned i = 0; i < b->slot_count; i++)
        parked += atomic_load(&b->slots[i].parked);
    to->connections_open += parked;
    to->connections_idle += parked;
    to->children += children;
    to->children_idle += idle;
    to->connections_open += children;
    to->connections_idle += idle;
    to->connections_active += children - idle;
}

/* Who took before who put: what is on its way meanwhile counts as waiting. Returns how many wait. */
static uint64_t fill_queue(struct status_listener *to, const struct listing *l)
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
    to->queue_depth += gauge(put, taken);
    return gauge(put, taken);
}

static void fill_connections(struct status_listener *to, const struct board *b,
                             const struct net_stats *sum, uint64_t queued)
{
    uint64_t active = gauge(net_counted(&sum->roused), net_counted(&sum->rested));
    if (atomic_load(&b->queue_of_unread)) /* their connections do not know yet */
        active += queued;
    uint64_t open = gauge(net_counted(&sum->accepted) + net_counted(&sum->came),
                          net_counted(&sum->closed) + net_counted(&sum->went));
    uint64_t idle = gauge(open, active);
    to->connections_open += open;
    to->connections_idle += idle;
    to->connections_active += open - idle;
}

/* What there is at this moment, of one generation. */
static void fill_now(struct status_listener *to, const struct listing *l,
                     const struct net_stats *sum)
{
    uint64_t requests = gauge(net_counted(&sum->begun), net_counted(&sum->ended));
    uint64_t queued = fill_queue(to, l), active = to->connections_active;
    if (l->board->child_count)
        fill_children(to, l->board);
    else
        fill_connections(to, l->board, sum, queued);
    active = to->connections_active - active;
    to->requests_active += l->board->child_count && requests > active ? active : requests;
}

/* Who can serve a request, and who does: threads or processes, where a model has these, or else its
 * workers. Of the newest generation, whose workers are the first: those before it take nothing on. */
static void fill_places(struct status_listener *to, const struct listing *newest, size_t workers)
{
    const struct board *b = newest->board;
    for (unsigned i = 0; i < b->slot_count * b->child_count; i++) {
        const struct child_entry *child = child_at(b, i);
        to->places_busy += atomic_load(&child->pid) != 0 && atomic_load(&child->idle_ms) == 0;
    }
    for (unsigned i = 0; newest->plan.pool && i < b->slot_count; i++)
        to->places_busy += busy_lanes(b, &b->slots[i]);
    for (size_t i = 0; !b->child_count && !newest->plan.pool && i < workers; i++)
        to->places_busy += to->workers[i].state == STATUS_BUSY;
    to->places = b->child_count      ? b->child_count
                 : newest->plan.pool ? (uint64_t)newest->plan.workers * newest->plan.pool
                                     : newest->plan.workers;
}

/* What has been counted since the beginning. */
static void fill_totals(struct status_listener *to, const struct net_stats *sum)
{
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
}

static void add_gil(struct status_listener *to, const struct net_gil_counts *counts)
{
    to->gil_acquired += net_counted(&counts->acquired);
    to->gil_waits += net_counted(&counts->waits);
    to->gil_hand_overs += net_counted(&counts->hand_overs);
    to->gil_waited_us += net_counted(&counts->waited_us);
    to->gil_held_us += net_counted(&counts->held_us);
}

/* The share is of the newest generation's workers. */
static void fill_gil(struct status_listener *to, const struct listing *newest)
{
    struct timespec now;
    int64_t ran_us = 0;
    uint64_t held_us = 0;
    const struct board *b = newest->board;
    clock_gettime(CLOCK_REALTIME, &now);
    to->gil = newest->gil;
    for (unsigned i = 0; to->gil && i < b->slot_count; i++) {
        const struct worker_slot *slot = &b->slots[i];
        if (atomic_load(&slot->spare))
            continue;
        held_us += net_counted(&slot->gil.held_us) - atomic_load(&slot->gil_before_us);
        ran_us += now.tv_sec * 1000000 + now.tv_nsec / 1000 - atomic_load(&slot->started_ms) * 1000;
    }
    to->gil_held_percent = ran_us > 0 ? held_us * 100 / (uint64_t)ran_us : 0;
}

/* What a snapshot of so many listeners, workers and addresses is made of: one piece of memory. */
struct room {
    size_t listeners, generations, workers, addresses;
};

/* The texts of the last switch by hand: they are copied, as all that others may change. */
struct switch_texts {
    char listener[LISTING_NAME], model[LISTING_MODEL], why[LISTING_WHY];
};

struct pieces {
    struct status_listener *listeners;
    struct status_generation *generations;
    struct status_worker *workers;
    const char **addresses;
    char (*texts)[LISTING_NAME];
    char (*notes)[LISTING_NOTE];
    struct backlog *sockets; /* of all listeners, in their order */
    struct switch_texts *last_switch;
};

/* Generations of a listener follow one another, the newest first. */
static bool is_newest(const struct directory *d, const struct listing *l)
{
    const struct listing *before = d->first;
    if (before == l)
        return true;
    while (before->next != l)
        before = before->next;
    return before->past != l->past;
}

static struct room room_for(const struct directory *d)
{
    struct room room = {0};
    for (const struct listing *l = d->first; l; l = l->next) {
        room.listeners += is_newest(d, l);
        room.generations++;
        room.workers += l->board->slot_count;
        room.addresses += l->address_count;
    }
    return room;
}

static void *cut(struct room room, struct pieces *at)
{
    char *memory = calloc(
        1, sizeof *at->last_switch +
               room.listeners * (sizeof *at->listeners + LISTING_NAME + LISTING_NOTE) +
               room.generations * sizeof *at->generations + room.workers * sizeof *at->workers +
               room.addresses * (sizeof(char *) + LISTING_NAME + sizeof *at->sockets));
    if (!memory)
        return NULL;
    at->listeners = (struct status_listener *)(void *)memory;
    at->generations = (struct status_generation *)(at->listeners + room.listeners);
    at->workers = (struct status_worker *)(at->generations + room.generations);
    at->addresses = (const char **)(at->workers + room.workers);
    at->sockets = (struct backlog *)(at->addresses + room.addresses);
    at->texts = (char(*)[LISTING_NAME])(at->sockets + room.addresses);
    at->notes = (char(*)[LISTING_NOTE])(at->texts + room.addresses + room.listeners);
    at->last_switch = (struct switch_texts *)(at->notes + room.listeners);
    return memory;
}

static const char *keep_name(struct pieces *at, const char *name)
{
    memcpy(*at->texts, name, LISTING_NAME);
    return *at->texts++;
}

static struct status_generation generation_of(const struct listing *l,
                                              const struct status_listener *before,
                                              const struct status_listener *now)
{
    return (struct status_generation){
        .number = l->number,
        .model = model_name(l->model),
        .retiring = atomic_load(&l->state) == LISTING_RETIRING,
        .since_ms = l->since_ms,
        .connections = now->connections_open - before->connections_open,
        .requests_active = now->requests_active - before->requests_active,
    };
}

/* Add a generation to its listener's numbers. */
static void fill_generation(struct status_listener *to, const struct listing *l,
                            struct net_stats *sum, struct pieces *at)
{
    struct status_listener before = *to;
    struct net_stats *own = calloc(1, sizeof *own);
    if (!own)
        return;
    board_sum(l->board, own);
    fill_now(to, l, own);
    net_stats_add(sum, own);
    free(own);
    to->worker_deaths += atomic_load(&l->board->deaths);
    to->recycled_requests += atomic_load(&l->board->recycled[WEAR_REQUESTS]);
    to->recycled_memory += atomic_load(&l->board->recycled[WEAR_MEMORY]);
    to->recycled_age += atomic_load(&l->board->recycled[WEAR_AGE]);
    for (unsigned i = 0; i < l->board->slot_count; i++) {
        const struct worker_slot *slot = &l->board->slots[i];
        add_gil(to, &slot->gil);
        if (atomic_load(&slot->spare))
            continue;
        fill_worker(at->workers++, l->board, slot);
        to->worker_count++;
    }
    *at->generations++ = generation_of(l, &before, to);
    to->generation_count++;
}

static void fill_blocked(struct status_listener *to, const struct listing *newest)
{
    struct listing_past *past = newest->past;
    struct blocked sum = {0};
    blocked_add(&sum, &past->blocked);
    for (const struct listing *l = newest; l && l->past == past; l = l->next)
        blocked_add(&sum, &l->board->blocked);
    to->blocked = atomic_load(&sum.count);
    to->blocked_longest_ms = sum.longest_ms;
    to->blocked_last_ms = sum.last_ms;
    to->blocked_at_ms = sum.at_ms;
    snprintf(to->blocked_route, sizeof to->blocked_route, "%s", sum.route);
    snprintf(to->blocked_handler, sizeof to->blocked_handler, "%s", sum.handler);
}

static void fill_listener(const struct listing *newest, struct status_listener *to,
                          struct pieces *at)
{
    const struct listing_past *past = newest->past;
    struct net_stats *sum = calloc(1, sizeof *sum);
    *to = (struct status_listener){
        .name = keep_name(at, newest->name),
        .addresses = at->addresses,
        .address_count = newest->address_count,
        .protocol = newest->duplex ? "tcp" : "http",
        .model = model_name(newest->model),
        .tls = newest->tls,
        .generations = at->generations,
        .workers = at->workers,
        .worker_deaths = past->deaths,
        .recycled_requests = past->recycled[WEAR_REQUESTS],
        .recycled_memory = past->recycled[WEAR_MEMORY],
        .recycled_age = past->recycled[WEAR_AGE],
        .connections_max = newest->plan.max_connections,
        .threads = (uint64_t)newest->plan.workers * newest->plan.pool,
        .children_max = newest->board->child_count,
        .queue_capacity = atomic_load(&newest->board->queue_capacity) * newest->board->worker_count,
    };
    if (newest->note[0])
        to->note = memcpy(*at->notes++, newest->note, LISTING_NOTE);
    for (unsigned i = 0; i < newest->address_count; i++)
        *at->addresses++ = keep_name(at, newest->addresses[i]);
    for (unsigned i = 0; i < newest->board->inode_count; i++) {
        to->connections_backlog += at->sockets->most;
        to->connections_waiting += at->sockets++->waiting;
    }
    if (!sum)
        return;
    net_stats_add(sum, &past->stats);
    add_gil(to, &past->gil);
    fill_generation(to, newest, sum, at);
    fill_places(to, newest, to->worker_count);
    for (const struct listing *l = newest->next; l && l->past == past; l = l->next)
        fill_generation(to, l, sum, at);
    fill_totals(to, sum);
    fill_blocked(to, newest);
    fill_gil(to, newest);
    free(sum);
}

static void ask_backlogs(const struct directory *d, struct backlog *sockets)
{
    size_t n = 0;
    for (const struct listing *l = d->first; l; l = l->next)
        for (unsigned i = 0; is_newest(d, l) && i < l->board->inode_count; i++)
            sockets[n++].inode = l->board->inodes[i];
    backlog_ask(sockets, n);
}

static enum status_outcome outcome_of(enum directory_switch_state state)
{
    switch (state) {
    case SWITCH_UNDER_WAY:
        return STATUS_UNDER_WAY;
    case SWITCH_TAKEN:
        return STATUS_TAKEN;
    case SWITCH_REFUSED:
        return STATUS_REFUSED;
    case SWITCH_NONE:
        break;
    }
    return STATUS_NONE;
}

static struct status_switch last_switch(const struct directory_switch *last,
                                        struct switch_texts *texts)
{
    memcpy(texts->listener, last->listener, sizeof texts->listener);
    memcpy(texts->model, last->model, sizeof texts->model);
    memcpy(texts->why, last->why, sizeof texts->why);
    return (struct status_switch){
        .number = last->number,
        .outcome = outcome_of(last->state),
        .asked_ms = last->asked_ms,
        .ended_ms = last->ended_ms,
        .listener = texts->listener,
        .model = texts->model,
        .why = texts->why[0] ? texts->why : NULL,
    };
}

static int64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
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
        .now_ms = unix_ms(),
        .generation = d->generation,
        .reloads_taken = d->reloads.taken,
        .reloads_refused = d->reloads.refused,
        .switches_taken = d->switches.taken,
        .switches_refused = d->switches.refused,
        .last_switch = last_switch(&d->last_switch, at.last_switch),
        .worker_deaths = d->deaths,
        .listeners = at.listeners,
        .listener_count = room.listeners,
        .owner = memory,
    };
    ask_backlogs(d, at.sockets);
    struct status_listener *to = at.listeners;
    for (const struct listing *l = d->first; l; l = l->next) {
        if (!is_newest(d, l))
            continue;
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
    m->pid = getpid();
    m->started_unix_ms = unix_ms();
    m->started_ms = net_clock_us() / 1000;
    m->status = (struct status_source){.snapshot = take, .release = release, .arg = m};
    m->status.control = (struct status_control){switches_token(), switches_models(), switches_ask};
}
