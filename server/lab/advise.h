/* SPDX-License-Identifier: MIT */
/* What a listener has done for a while, and whether another model would suit that. Apart from where
 * the figures come from (server/lab/advise_command.c), so that it can be asked about any.
 *
 * Its reasoning, in this order:
 *   - a handler that holds its loop holds all others: it belongs on a thread
 *   - one interpreter lock bounds what computes to one CPU
 *   - who waits, for something else than a CPU, in more places than there are, needs places that cost
 *     nothing
 *   - a process for each request, or for each idle connection, costs more than it serves
 *   - more connections than places, idle, belong to who holds them for some hundred bytes
 * Else it suits. Nothing is said of less than ADVISE_LEAST requests.
 *
 * Safe from: any thread.
 */
#ifndef SERVER_LAB_ADVISE_H
#define SERVER_LAB_ADVISE_H

#include <stdbool.h>
#include <stddef.h>

enum { ADVISE_LEAST = 50 };

/* Sums over the time, unless said. */
struct advise_facts {
    const char *listener, *model;
    double seconds;
    double requests, accepted; /* answered; connections */
    double latency_us;         /* a request, mean, from its first byte to its answer */
    double cpu_us;             /* a request, user and system, kernel's included; -1: unknown */
    double delay_us;     /* a request, ready and waiting for a CPU that others had; 0: unknown */
    double queued_us;    /* of the latency, waiting for a thread; 0: it has no queue */
    double busy, places; /* mean of those at work, of those that run handlers */
    double blocked;      /* times that a handler has held its loop for over 50 ms */
    double gil_share;    /* of the time that the interpreter lock was held; -1: there is none */
    double open, idle;   /* connections, at the end */
    unsigned cpus;
};

struct advice {
    const char *model; /* that would suit better; NULL: it suits, or nothing can be said */
    bool gil_off;      /* the same model, without its interpreter lock */
    char text[1024];   /* some sentences, with the figures */
};

void advise(const struct advise_facts *facts, struct advice *advice);

#endif
