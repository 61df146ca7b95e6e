/* SPDX-License-Identifier: MIT */
/* A server of the lab's own: this program, on ports of its own, with one model, in a folder of its own.
 * All of them have the same configuration but for one word, and `gil`. It ends with the lab, whatever
 * becomes of that. */
#ifndef SERVER_LAB_RIG_H
#define SERVER_LAB_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct modus_process;

/* What a server tells of itself: sums since its start, of the listener that is loaded. */
struct lab_told {
    double requests, accepted;
    double queued_count,
        queued_us;                /* requests that a thread had to be found for, and their waits */
    bool has_queue, has_children; /* children: a process for each that is accepted */
    double blocked, gil_held_us, rejected; /* by a full queue */
    bool has_gil;
    double workers;      /* processes that serve */
    double deaths;       /* of workers so far */
    double busy, places; /* now: at work, of those that run handlers */
    char note[256];      /* its own sentence on this set-up */
};

struct lab_rig {
    char name[48]; /* "thread-pool", "thread-pool, gil" */
    const char *model;
    bool gil;
    char folder[512], config[560];
    char http[64], https[64]; /* "http://127.0.0.1:40123" */
    pid_t pid;                /* of its master */
    struct modus_process *server;
};

/* The configuration with MODEL for the word, as the report shows it. */
extern const char lab_rig_config[];

/* Make what the servers share below folder: files, a certificate. Returns 0, or -1 with why. */
int lab_rig_prepare(const char *folder, char *why, size_t why_size);
/* Start it, and wait until it serves. Returns 0, or -1 with why. Blocks. */
int lab_rig_start(struct lab_rig *rig, const char *model, bool gil, const char *folder, char *why,
                  size_t why_size);
/* Ask it over its control socket. Returns 0 or -1. Blocks for some milliseconds. */
int lab_rig_ask(const struct lab_rig *rig, struct lab_told *told);
/* Whether it runs still. */
bool lab_rig_lives(const struct lab_rig *rig);
/* Stop it, and wait for its end. */
void lab_rig_stop(struct lab_rig *rig);

#endif
