/* SPDX-License-Identifier: MIT */
/* What the status handler shows: a snapshot of the server as plain data, and where to get one; and
 * the one thing that may be asked for on its page, another model for a listener.
 *
 * The server fills a snapshot from its shared memory; the handler only prints it, as a page, as
 * JSON or for Prometheus. Nothing in here is live: a snapshot is taken, printed and released.
 *
 *     struct status_snapshot s = {0};
 *     if (source->snapshot(source->arg, &s) == 0) {
 *         print(&s);
 *         source->release(&s);
 *     }
 *
 * Zero is a good value for all that a model does not have (a model without a queue has
 * queue_capacity 0, and the queue is not shown). Totals never fall: they belong to the listener and
 * outlive its workers and its generations. Texts may hold any bytes; the handler escapes them.
 */
#ifndef HANDLERS_STATUS_H
#define HANDLERS_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum status_state {
    STATUS_STARTING, /* forked, not yet ready */
    STATUS_WAITING,  /* ready, has nothing to do */
    STATUS_BUSY,     /* serves */
    STATUS_DRAINING, /* of an old generation, or stopping: finishes what it has */
    STATUS_DEAD,     /* ended and not yet replaced */
};
enum { STATUS_STATES = STATUS_DEAD + 1 };

/* How many times were below STATUS_FIRST_US, how many from there to twice as much, and so on; in the
 * last bucket all others. */
enum { STATUS_BUCKETS = 24, STATUS_FIRST_US = 16 };

/* A distribution of times in microseconds. Quantiles may be estimates from a histogram. */
struct status_times {
    uint64_t count, sum_us;
    uint64_t p50_us, p90_us, p99_us, p999_us, max_us;
    uint64_t bucket[STATUS_BUCKETS]; /* their sum is count */
};

/* What a bucket but the last one is below. */
static inline uint64_t status_bucket_us(unsigned bucket)
{
    return (uint64_t)STATUS_FIRST_US << bucket;
}

struct status_worker {
    int64_t pid;
    enum status_state state;
    int64_t started_ms;   /* Unix time */
    uint64_t connections; /* open now */
    uint64_t requests;    /* served since it started */
};

/* What serves a listener since one configuration: the newest, or an older one that finishes what it
 * has. */
struct status_generation {
    uint64_t number; /* of the listener's, from 1 */
    const char *model;
    bool retiring;
    int64_t since_ms;                      /* Unix time */
    uint64_t connections, requests_active; /* now */
};

struct status_listener {
    const char *name;             /* its first address as the file has it */
    const char *const *addresses; /* all of them, as bound */
    size_t address_count;
    const char *protocol; /* "http" or "tcp" */
    const char *model;    /* "thread-pool" */
    bool tls;
    /* A line on what this set-up means, or NULL: "8 workers serve one request at a time each: 100
     * requests of 2 s need 13 rounds". */
    const char *note;

    const struct status_generation *generations; /* the newest first */
    size_t generation_count;

    const struct status_worker *workers; /* of all of them, in their order */
    size_t worker_count;
    uint64_t worker_deaths; /* total: ended without being told to */
    /* Totals: replaced because they had served so many requests, held so much memory, were so old. */
    uint64_t recycled_requests, recycled_memory, recycled_age;

    /* Times that a handler held a loop so long that its other connections had to wait, and the last of
     * them; blocked_at_ms 0: none. */
    uint64_t blocked, blocked_longest_ms, blocked_last_ms;
    int64_t blocked_at_ms; /* Unix time */
    char blocked_route[80], blocked_handler[24];

    uint64_t connections_open; /* now */
    uint64_t connections_idle; /* of them: between two requests, and nothing of the next has come */
    uint64_t connections_active;  /* the others */
    uint64_t connections_waiting; /* held by the kernel, not yet accepted; 0 also if not known */
    uint64_t connections_backlog; /* how many of those there can be; 0 also if not known */
    uint64_t connections_max;     /* the limit; 0: not known */
    uint64_t accepted;            /* totals from here on */
    uint64_t refused;             /* closed unserved: at the limit, or no memory */
    uint64_t evicted;             /* idle, closed to make room at the limit */
    uint64_t handshakes_failed;
    uint64_t accept_pauses; /* accepting was paused: out of descriptors or memory */

    uint64_t requests_active; /* now: begun and not ended */
    uint64_t requests;        /* totals from here on: ended, however that was */
    uint64_t answers[6];      /* by class: [1] 1xx .. [5] 5xx; [0] cut before an answer */
    uint64_t bytes_in, bytes_out;
    struct status_times latency; /* from a request's first byte to its answer handed over */

    uint64_t places;      /* requests that can be served at once: threads, workers or children */
    uint64_t places_busy; /* of them: now; of the newest generation, as places */

    uint64_t threads;      /* that take work from the queue; 0: this model has none */
    uint64_t threads_busy; /* of them: at work now */

    uint64_t children_max;  /* processes that serve one connection each; 0: this model has none */
    uint64_t children;      /* now */
    uint64_t children_idle; /* of them: between two requests */

    uint64_t queue_capacity; /* 0: this model has no queue */
    uint64_t queue_depth;    /* now */
    uint64_t queue_rejected; /* total: answered 503 after queue_timeout, or because it was full */
    struct status_times queued; /* time spent waiting for a thread */

    bool gil; /* handlers run under an interpreter lock, one a worker; totals of all workers: */
    uint64_t gil_acquired, gil_waits, gil_hand_overs, gil_waited_us, gil_held_us;
    uint64_t gil_held_percent; /* of the time that the workers of now have run */
};

/* A listener switched to another model by hand: the last time that this was asked for. */
enum status_outcome { STATUS_NONE, STATUS_UNDER_WAY, STATUS_TAKEN, STATUS_REFUSED };
struct status_switch {
    uint64_t number; /* since the start; 0: never yet */
    enum status_outcome outcome;
    int64_t asked_ms, ended_ms; /* Unix time */
    const char *listener, *model;
    const char *why; /* refused: the reason */
};

struct status_snapshot {
    const char *version;
    int64_t pid; /* of the master */
    const char *config_file;
    int64_t started_ms; /* Unix time */
    int64_t uptime_ms;
    int64_t now_ms;      /* Unix time */
    uint64_t generation; /* 1 at the start, one more each reload or switch that was taken */
    uint64_t reloads_taken, reloads_refused, switches_taken, switches_refused;
    struct status_switch last_switch;
    uint64_t worker_deaths; /* all listeners, also those that are gone */
    const struct status_listener *listeners;
    size_t listener_count;
    void *owner; /* for the server: what release() needs */
};

/* Who may switch models on the page: where `control = true` allows it. */
struct status_control {
    /* Of this start of the server, and not to be guessed: who knows it has read the page. */
    const char *token;
    const char *const *models; /* that there are, ended by NULL */
    /* Ask for a listener to be served with another model, by their names. Does not wait: what comes
     * of it is the last_switch of later snapshots. Returns 0, -EBUSY when too much has been asked
     * for already, or another negative code. Safe from: any thread of a worker. */
    int (*ask)(void *arg, const char *listener, const char *model);
};

/* Where snapshots come from. Both calls are made by the status handler's step entry, so they must
 * not wait; from several threads at once in models with threads. */
struct status_source {
    /* Fill *out, which comes zeroed. Returns 0, or a negative code: the handler answers 503. */
    int (*snapshot)(void *arg, struct status_snapshot *out);
    /* Free what a successful snapshot() filled. */
    void (*release)(struct status_snapshot *s);
    void *arg; /* for ask, too */
    struct status_control control;
};

struct handler;
struct page;

/* May models be switched on the page of this handler with these options? */
bool status_controls(const struct handler *handler, const void *conf);
/* The snapshot as ?format=json has it. Safe from: any thread. */
void status_json(struct page *p, const struct status_snapshot *s);

#endif
