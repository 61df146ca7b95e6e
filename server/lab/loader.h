/* SPDX-License-Identifier: MIT */
/* The loader: sends requests to a server for some seconds and measures how long answers take.
 *
 * In an open loop requests are due at times that are fixed beforehand, at even distances or as
 * customers come that know nothing of each other (Poisson), and an answer's latency counts from when
 * its request was due: if the server stalls for a second, a hundred requests a second make a
 * hundred late answers, whether they could be sent meanwhile or not. A closed loop (rate 0) asks again
 * when it is answered, as wrk does; a server that stalls is asked less then, and few answers tell of
 * it. (Schroeder, Wierman, Harchol-Balter: Open versus closed, NSDI 2006; Tene: How not to measure
 * latency, on "coordinated omission".)
 *
 * Answers are counted when they come, and those a second are what came in the time that is measured:
 * the rate from a server that keeps up, its capacity from one that doesn't, even while it still answers
 * what was due in the warm-up. Latencies and failures are of the requests that were due in that time,
 * whenever they end, so the backlog shows in them; in a closed loop, of all that were under way in it.
 *
 * One thread, one epoll set. Each connection has one question at a time (pipeline requests in it); that
 * which has had none for longest is next.
 * How late the loader itself was, while it had a connection to spare, is measured too: when that is no
 * longer small beside the latencies, the figures are the loader's.
 *
 * Safe from: one thread at a time in a process.
 */
#ifndef SERVER_LAB_LOADER_H
#define SERVER_LAB_LOADER_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/lab/histogram.h"
#include "server/lab/url.h"

struct lab_plan {
    struct lab_url url;
    double rate;          /* requests a second; 0: a closed loop */
    bool poisson;         /* else at even distances */
    unsigned connections; /* at most, and in a closed loop always */
    unsigned pipeline;    /* requests a question, closed loop only; 0 and 1: one */
    unsigned requests;    /* not 0: it ends when so many have been asked and answered */
    bool close;           /* a connection a request */
    bool hold;            /* connect all, and have each answered once, before the time begins */
    unsigned sources;     /* see struct lab_target */
    const char *dear;     /* another path, for one request in dear_every; NULL: none */
    unsigned dear_every;
    double warm_seconds, seconds;
    double timeout_seconds; /* for an answer, from when it was asked for */
    uint64_t seed;
    volatile sig_atomic_t *stop; /* not NULL: set to end before its time */
    atomic_bool *begun; /* not NULL: is set when the time begins, held connections being there */
};

struct lab_load_result {
    double seconds;          /* of measurement, as it was */
    uint64_t due;            /* open loop: requests that were due in it */
    uint64_t answered;       /* rightly, and the answer came in it */
    uint64_t answered_after; /* rightly, but after its end: of those counted in latency */
    uint64_t connect_failed, read_failed, write_failed, timed_out, refused; /* refused: 4xx, 5xx */
    uint64_t unsent; /* due, and never sent, for want of a connection, or of what it takes here */
    int shortage;    /* an errno: of what the loader was short at any time, as EMFILE; else 0 */
    uint64_t bytes;
    /* Of all that were due in it, answered or given up for want of an answer, from then; not of what was
     * refused or lost, which may end at once. What is unsent at the end counts with what it has waited: it
     * would have taken longer. */
    struct lab_histogram latency;
    struct lab_histogram cheap; /* the same without dear ones; empty if none are */
    struct lab_histogram lag;   /* how late the loader was by itself */
};

/* Returns 0, or -1 with a sentence in why. Blocks for as long as it takes, and up to the timeout for
 * the last answers. */
int lab_load_run(const struct lab_plan *plan, struct lab_load_result *result, char *why,
                 size_t why_size);

#endif
