/* SPDX-License-Identifier: MIT */
/* The plain numbers of a listener and the words of the status: see handlers/status_priv.h. */
#include <string.h>

#include "handlers/status_priv.h"

#define AT(field) offsetof(struct status_listener, field)

const struct status_number status_numbers[] = {
    {CONNECTIONS, AT(connections_open), "open", "open", "modus_connections_open",
     "Connections open now."},
    {CONNECTIONS, AT(connections_idle), "idle", "idle", "modus_connections_idle",
     "Connections between two requests now."},
    {CONNECTIONS, AT(connections_active), "active", "active", "modus_connections_active",
     "Connections with something to do now."},
    {CONNECTIONS, AT(connections_waiting), "waiting", "waiting in the kernel",
     "modus_connections_waiting", "Connections that the kernel holds, not yet accepted."},
    {CONNECTIONS, AT(connections_backlog), "backlog", "room in the kernel",
     "modus_connections_backlog", "How many connections the kernel holds at most; 0 if not known."},
    {CONNECTIONS, AT(connections_max), "max", "limit", "modus_connections_max",
     "The most connections that may be open; 0 if not known."},
    {CONNECTIONS, AT(accepted), "accepted", "accepted", "modus_connections_accepted_total",
     "Connections accepted."},
    {CONNECTIONS, AT(refused), "refused", "refused", "modus_connections_refused_total",
     "Connections closed unserved."},
    {CONNECTIONS, AT(evicted), "evicted", "evicted", "modus_connections_evicted_total",
     "Idle connections closed to make room."},
    {CONNECTIONS, AT(handshakes_failed), "handshakes_failed", "failed handshakes",
     "modus_handshakes_failed_total", "TLS handshakes that failed."},
    {CONNECTIONS, AT(accept_pauses), "accept_pauses", "accept pauses", "modus_accept_pauses_total",
     "Times that accepting was paused for want of descriptors or memory."},
    {LISTENER, AT(worker_deaths), "worker_deaths", "worker deaths", "modus_worker_deaths_total",
     "Workers that ended without being told to."},
    {REQUESTS, AT(requests_active), "active", "in progress", "modus_requests_active",
     "Requests in progress now."},
    {REQUESTS, AT(requests), "total", "requests", "modus_requests_total", "Requests ended."},
    {REQUESTS, AT(bytes_in), "bytes_in", "bytes in", "modus_received_bytes_total",
     "Bytes received."},
    {REQUESTS, AT(bytes_out), "bytes_out", "bytes out", "modus_sent_bytes_total", "Bytes sent."},
    {SATURATION, AT(places_busy), "busy", "busy", "modus_places_busy",
     "Of the places where a request is served, those that are taken now."},
    {SATURATION, AT(places), "places", "places", "modus_places",
     "How many requests can be served at once: threads, workers or processes."},
    {THREADS, AT(threads_busy), "busy", "threads busy", "modus_threads_busy",
     "Threads of the pool that are at work now."},
    {THREADS, AT(threads), "total", "threads", "modus_threads", "Threads of the pool; 0: no pool."},
    {CHILDREN, AT(children), "now", "processes", "modus_children",
     "Processes that serve a connection now."},
    {CHILDREN, AT(children_idle), "idle", "idle", "modus_children_idle",
     "Those of them that are between two requests."},
    {CHILDREN, AT(children_max), "limit", "limit", "modus_children_max",
     "The most processes of connections at once; 0: none are made."},
    {QUEUE, AT(queue_depth), "depth", "queued", "modus_queue_depth",
     "Work waiting for a thread now."},
    {QUEUE, AT(queue_capacity), "capacity", "queue size", "modus_queue_capacity",
     "The most work that may wait for a thread; 0: no queue."},
    {QUEUE, AT(queue_rejected), "rejected", "answered 503", "modus_queue_rejected_total",
     "Requests answered 503 because no thread came free."},
    {GIL, AT(gil_acquired), "acquired", "interpreter lock acquired", "modus_gil_acquired_total",
     "Times that a handler took the interpreter lock."},
    {GIL, AT(gil_waits), "waits", "waits", "modus_gil_waits_total",
     "Times that it had to wait for it."},
    {GIL, AT(gil_hand_overs), "hand_overs", "forced hand-overs", "modus_gil_hand_overs_total",
     "Times that a handler was made to hand it over."},
    {GIL, AT(gil_waited_us), "waited_us", "waited (µs)", "modus_gil_waited_microseconds_total",
     "Microseconds spent waiting for it."},
    {GIL, AT(gil_held_us), "held_us", "held (µs)", "modus_gil_held_microseconds_total",
     "Microseconds that it was held."},
    {GIL, AT(gil_held_percent), "held_percent", "held (% of the time)", "modus_gil_held_percent",
     "Share of the time that it was held, since the workers began."},
    {RECYCLED, AT(recycled_requests), "requests", "for their requests",
     "modus_workers_recycled_requests_total", "Workers replaced because of worker_requests."},
    {RECYCLED, AT(recycled_memory), "memory", "for their memory",
     "modus_workers_recycled_memory_total", "Workers replaced because of worker_memory."},
    {RECYCLED, AT(recycled_age), "age", "for their age", "modus_workers_recycled_age_total",
     "Workers replaced because of worker_age."},
    {BLOCKED, AT(blocked), "count", "times", "modus_loop_blocked_total",
     "Times that a handler held a loop for 50 ms or more."},
    {BLOCKED, AT(blocked_longest_ms), "longest_ms", "longest (ms)",
     "modus_loop_blocked_longest_milliseconds", "The longest of them."},
    {0},
};

const char *const status_state_names[STATUS_STATES] = {"starting", "waiting", "busy", "draining",
                                                       "dead"};
const char *const status_class_names[STATUS_CLASSES] = {"cut", "1xx", "2xx", "3xx", "4xx", "5xx"};

uint64_t status_number_of(const struct status_listener *l, const struct status_number *n)
{
    uint64_t value;
    memcpy(&value, (const char *)l + n->offset, sizeof value);
    return value;
}

bool status_has(const struct status_listener *l, enum status_group group)
{
    switch (group) {
    case THREADS:
        return l->threads > 0;
    case CHILDREN:
        return l->children_max > 0;
    case QUEUE:
        return l->queue_capacity > 0;
    case GIL:
        return l->gil;
    case LISTENER:
    case CONNECTIONS:
    case REQUESTS:
    case SATURATION:
    case RECYCLED:
    case BLOCKED:
        break;
    }
    return true;
}

const char *status_group_key(enum status_group group)
{
    static const char *const keys[] = {[CONNECTIONS] = "connections",
                                       [REQUESTS] = "requests",
                                       [SATURATION] = "saturation",
                                       [THREADS] = "threads",
                                       [CHILDREN] = "children",
                                       [QUEUE] = "queue",
                                       [GIL] = "gil",
                                       [RECYCLED] = "recycled",
                                       [BLOCKED] = "blocked"};
    return keys[group];
}

const char *status_state_name(enum status_state state)
{
    return (unsigned)state < STATUS_STATES ? status_state_names[state] : "unknown";
}

const char *status_outcome_name(enum status_outcome outcome)
{
    static const char *const names[] = {"none", "under way", "taken", "refused"};
    return (unsigned)outcome < sizeof names / sizeof names[0] ? names[outcome] : "unknown";
}

const char *status_generation_state(const struct status_generation *g)
{
    return g->retiring ? "retiring" : "serving";
}
