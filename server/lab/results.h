/* SPDX-License-Identifier: MIT */
/* What the lab has measured, as plain data: the runner fills it, the table, the JSON, the statements
 * and the page read it. Nothing in it is live.
 *
 *     results -> series (a load, a server, so many connections, gil or not) -> rounds, one a repeat
 *
 * A round that was not made has no entry; one that failed has `error`. Numbers that could not be
 * measured (a foreign server's memory) are LAB_UNKNOWN.
 *
 * Safe from: one thread.
 */
#ifndef SERVER_LAB_RESULTS_H
#define SERVER_LAB_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "server/lab/histogram.h"

#define LAB_UNKNOWN (-1.0)

/* Who sends: the closed loop waits for an answer before it asks again, so a server that stalls is
 * asked less; the open loop asks when it is time to, and counts from then. */
enum lab_loop { LAB_CLOSED, LAB_OPEN, LAB_BATCH };
/* LAB_BATCH: so many requests at once, and how long until the last is answered (the notes' way). */

/* What a load is bound by: the page groups by it. LAB_IDLE: many connections that ask for little,
 * so what counts is what each of them takes. LAB_STALL: it is about the loops, and nobody is chosen by
 * it; see server/lab/stall.h. */
enum lab_kind { LAB_OVERHEAD, LAB_IO, LAB_CPU, LAB_MIXED, LAB_IDLE, LAB_STALL };

/* What is asked of a server. The runner's table has them all; see server/lab/loads.h. */
struct lab_load {
    const char *name;  /* "hello", on the command line and in files */
    const char *title; /* "13-byte answers, kept alive" */
    const char *why;   /* one sentence: whom it stands for */
    enum lab_kind kind;
    enum lab_loop loop;
    const char *note_says;  /* what the study notes found with this load, or NULL */
    double note_seconds[2]; /* their processes and threads, for a batch; 0: they say nothing */
};

/* Who answers: one of the models, or a foreign server. */
struct lab_server {
    const char *name; /* "thread-pool", or the URL of --against */
    bool foreign;
    const char *sizes;         /* "threads = 64", what was not the default; "" */
    unsigned workers, threads; /* processes, and threads a process, that run handlers; 0: unknown */
};

struct lab_errors {
    uint64_t connect, read, write, timeout, status; /* status: answers other than 2xx and 3xx */
};

/* One measurement of some seconds. Times in microseconds, shares in 0 .. 1. */
struct lab_round {
    unsigned repeat;   /* from 0 */
    const char *error; /* NULL: it was made */
    bool trusted;
    const char *doubt; /* why it is not to be trusted: "steal 7 %", or NULL */

    double seconds;    /* how long it took; of a batch: until the last was answered */
    double offered;    /* requests a second that were to be sent; LAB_UNKNOWN in a closed loop */
    uint64_t requests; /* answered rightly */
    double rps;
    struct lab_errors errors;
    double p50_us, p90_us, p99_us, p999_us, max_us;
    struct lab_histogram *latency; /* whole; NULL: only the above is known (wrk) */
    double cheap_p99_us;           /* mixed load: of the cheap requests alone; else LAB_UNKNOWN */

    /* The server's tree of processes, over the round. */
    double cpu_us;             /* a request, user and system */
    double cpu_share;          /* of one CPU: 1.0 is one CPU busy */
    double pss_kib;            /* at its highest */
    double pss_idle_kib;       /* before the round, without connections */
    double threads, processes; /* at their highest */
    double switches;           /* context switches a request */
    double queued_us; /* time in the model's queue a request, mean; LAB_UNKNOWN: it has none */
    double busy; /* share of the time that a worker or thread was busy, mean over all; or unknown */
    double rejected; /* requests that a full queue answered with 503; or unknown */
    double forks;    /* processes made a request */
    double gil_held; /* share of time that the interpreter lock was held; or unknown */
    double blocked;  /* times a loop was blocked for over 50 ms */

    /* The machine, over the round. */
    double load1, steal, loader_cpu; /* load average; share; share of the loader's CPU */
};

struct lab_series {
    const struct lab_load *load;
    const struct lab_server *server;
    unsigned connections;
    bool gil;
    double rate; /* open loop: requests a second offered; else 0 */
    struct lab_round *rounds;
    size_t round_count;
};

struct lab_machine {
    char cpu[128], kernel[128], wrk[64], modus[64], when[32]; /* when: local time, ISO 8601 */
    unsigned cpus, server_cpu, loader_cpu; /* the last two: which they were pinned to */
    bool pinned;
    double memory_gib;
};

struct lab_results {
    struct lab_machine machine;
    const char *command; /* as it was called */
    const char *config;  /* the text of the configuration, with MODEL for the word */
    bool whole;          /* false: ended before its time */
    double seconds;      /* all of it */
    const struct lab_load *const *loads;
    size_t load_count;
    const struct lab_server *servers;
    size_t server_count;
    struct lab_series *series;
    size_t series_count;
};

/* Is this round one that counts? Those that failed do not; those that are not trusted only when the
 * series has no other. */
bool lab_counts(const struct lab_series *s, const struct lab_round *round);
/* The median of a number over the rounds that count and know it; LAB_UNKNOWN: there is none. field
 * is the offset of a double in struct lab_round. *low and *high, unless NULL: the extremes. */
double lab_median(const struct lab_series *s, size_t field, double *low, double *high);
/* NULL: not measured. connections 0: any (the first). */
const struct lab_series *lab_find(const struct lab_results *r, const char *load, const char *server,
                                  unsigned connections, bool gil);
/* "io", "closed": as in JSON. */
const char *lab_kind_name(enum lab_kind kind);
const char *lab_loop_name(enum lab_loop loop);

/* --- results_write.c, results_read.c */

/* Write all of it as JSON. Blocks. Returns 0 or a negative errno; then what was there before is left. */
int lab_write_json(const struct lab_results *r, const char *path);
/* Read what lab_write_json wrote, for tests and for a page made anew. Blocks. NULL with why. Free
 * with lab_free_results. */
struct lab_results *lab_read_json(const char *path, char *why, size_t why_size);
enum { LAB_PATH = 4096 };
/* A file that takes the place of another only when it is whole: open it under another name, which goes
 * into part. NULL with errno. */
FILE *lab_open_part(const char *path, char part[LAB_PATH]);
/* failed: it is not whole, for errno or for want of memory. Returns 0 or a negative errno. */
int lab_close_part(FILE *to, const char *path, const char *part, bool failed);
/* What lab_read_json returned, or NULL. */
void lab_free_results(struct lab_results *r);

#endif
