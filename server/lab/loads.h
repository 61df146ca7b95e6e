/* SPDX-License-Identifier: MIT */
/* What the lab asks of each server: one table, from which the configuration, the rounds and the page's
 * headings are made. A new load is a new entry. */
#ifndef SERVER_LAB_LOADS_H
#define SERVER_LAB_LOADS_H

#include "server/lab/results.h"

enum { LAB_CONNECTIONS = 4 };

/* How a load is made; struct lab_load is what is said of it. */
struct lab_work {
    struct lab_load load;
    const char *path; /* %d in it stands for so many additions as take spin_ms */
    double spin_ms;   /* 0: no %d */
    const char *dear; /* once in dear_every requests, with spin_ms; NULL: none */
    unsigned dear_every;
    unsigned connections[LAB_CONNECTIONS]; /* 0: no more */
    unsigned quick_connections;            /* 0: not in a quick run, unless it is asked for */
    unsigned pipeline;                     /* 0 and 1: none */
    bool close, tls, slow_clients;
    bool hold;         /* all connections are there before it begins */
    double rate;       /* open loop */
    unsigned batch;    /* requests at once */
    bool gil;          /* also with gil = true, for models that have it */
    bool all_cpus;     /* the server is not pinned: what it computes is the load */
    bool own;          /* not wrk, though it is a closed loop */
    unsigned stall_ms; /* so long the server is stopped in the middle; with one model is enough */
};

/* Is it made by wrk? */
bool lab_work_is_wrks(const struct lab_work *work);
/* From 0; NULL: there are no more. */
const struct lab_work *lab_work_at(size_t place);
/* NULL: there is none of this name. */
const struct lab_work *lab_work_named(const char *name);

#endif
