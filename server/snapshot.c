/* SPDX-License-Identifier: MIT */
/* What the status handler sees: the boards of all listeners, summed up into plain data. Runs in any
 * worker, since boards are shared and made before the first fork. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "net/socket.h"
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

static enum status_state state_of(const struct worker_slot *slot)
{
    switch ((enum worker_state)atomic_load(&slot->state)) {
    case WORKER_STARTING:
        return STATUS_STARTING;
    case WORKER_WAITING:
        return STATUS_WAITING;
    case WORKER_BUSY:
        return STATUS_BUSY;
    case WORKER_DRAINING:
        return STATUS_DRAINING;
    case WORKER_DEAD:
        break;
    }
    return STATUS_DEAD;
}

static void fill_worker(struct status_worker *to, const struct board *b, const struct worker_slot *slot)
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
        .state = state_of(slot),
        .started_ms = atomic_load(&slot->started_ms),
        .connections = atomic_load(&slot->connections),
        .requests = answers - atomic_load(&slot->requests_before),
    };
    free(sum);
}

static uint64_t gauge(uint64_t up, uint64_t down)
{
    return up > down ? up - down : 0;
}

static void fill_counters(struct status_listener *to, const struct listener *l, const struct net_stats *sum)
{
    to->connections_open = gauge(net_counted(&sum->accepted), net_counted(&sum->closed));
    to->requests_active = gauge(net_counted(&sum->begun), net_counted(&sum->ended));
    to->connections_idle = gauge(to->connections_open, to->requests_active);
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
    to->queue_capacity = atomic_load(&l->board->queue_capacity);
    to->queue_depth = atomic_load(&l->board->queue_depth);
    to->queue_rejected = net_counted(&sum->rejected);
    fill_times(&to->queued, &sum->queued);
    to->worker_deaths = atomic_load(&l->board->deaths);
}

/* One block of memory a snapshot: the listeners, then their workers, addresses and texts. */
struct block {
    struct status_listener *listeners;
    struct status_worker *workers;
    const char **addresses;
    char (*texts)[NAME_SIZE];
    char (*notes)[NOTE_SIZE];
};

/* As the file has it; where the kernel chose the port, as it is bound. */
static const char *name_of(const struct listener *l)
{
    const struct config_address *a = &l->conf->addresses[0];
    return !a->is_unix && a->port == 0 ? l->names[0] : a->text;
}

static void fill_listener(const struct listener *l, struct status_listener *to, struct block *at)
{
    struct net_stats *sum = calloc(1, sizeof *sum);
    *to = (struct status_listener){
        .name = name_of(l),
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
    for (unsigned i = 0; i < l->board->slot_count; i++)
        fill_worker(at->workers++, l->board, &l->board->slots[i]);
    if (!sum)
        return;
    board_sum(l->board, sum);
    fill_counters(to, l, sum);
    free(sum);
}

static int take(void *arg, struct status_snapshot *out)
{
    struct master *m = arg;
    size_t addresses = 0, count = m->listener_count;
    for (size_t i = 0; i < count; i++)
        addresses += m->listeners[i].conf->address_count;
    char *memory = calloc(1, count * sizeof(struct status_listener) + m->worker_count * sizeof(struct status_worker) +
                                 addresses * (sizeof(char *) + NAME_SIZE) + count * NOTE_SIZE);
    if (!memory)
        return -1;
    struct block at = {.listeners = (struct status_listener *)(void *)memory};
    at.workers = (struct status_worker *)(at.listeners + count);
    at.addresses = (const char **)(at.workers + m->worker_count);
    at.texts = (char (*)[NAME_SIZE])(at.addresses + addresses);
    at.notes = (char (*)[NOTE_SIZE])(at.texts + addresses);
    struct status_listener *listeners = at.listeners;
    uint64_t deaths = 0;
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
