/* SPDX-License-Identifier: MIT */
/*
 * Harness: what all peers of make bench-toolbox have in common, so that each does the same work.
 *
 * A peer is one program, peer_NAME.c: the operations of one library, and a list of jobs. One call of
 * the program is one round of one job, and prints one line of JSON:
 *
 *     peer_pthread lock robust scope=process workers=4 ms=200
 *
 * The loops around the operations are in loops.h; here are the workers (threads or forked
 * processes), the clock, the counts and the command line. Everything the workers share lies in one
 * mapping MAP_SHARED, in thread scope too: then the two scopes differ in nothing else.
 *
 * One more thread always lives, in each process, and does nothing: glibc's locks are cheaper while
 * there is only one, and no program that needs locks has only one.
 */
#ifndef TESTS_BENCH_TOOLBOX_HARNESS_H
#define TESTS_BENCH_TOOLBOX_HARNESS_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORKERS_MAX = 64, EXIT_NOT_HERE = 3 };

/* How many waits of which length: eight steps to a doubling. */
struct histogram {
    uint32_t counts[64 * 8];
};

struct run;

struct worker {
    alignas(128) struct run *run;
    unsigned index;
    uint64_t ops; /* what the figures are of; set by the loop at its end */
    uint64_t put_sum, got_sum;
    int64_t began, ended;
    double cpu_s;
    uint64_t switches, preemptions;
    struct histogram waits; /* in ns */
};

/* One round of one job. */
struct run {
    /* What the command line asks for. */
    const char *load, *what;
    bool processes;
    unsigned workers, ms;
    unsigned work;                 /* turns of a loop in the critical section */
    unsigned cpus;                 /* pin the workers to so many, in turn; 0: not at all */
    unsigned producers, consumers; /* queues */
    unsigned capacity, item;
    unsigned count; /* sleepers, deaths */

    void *objects[2]; /* made by the job before the workers start */
    double bytes_each, kernel_bytes_each;
    alignas(128) _Atomic uint32_t ready;
    _Atomic uint32_t go;
    alignas(128) _Atomic uint32_t stop;
    _Atomic uint32_t over; /* relay, barrier: nobody waits any more */
    alignas(128) _Atomic uint32_t producing;
    alignas(128) uint64_t guarded; /* changed under the lock that is measured */
    struct worker all[WORKERS_MAX];
};

struct job {
    const char *load, *what;
    void (*run)(struct run *run);
};

/* The peer's; the last one has no load. */
extern const struct job peer_jobs[];

/* End the program if it is not so. */
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            harness_die(__FILE__, __LINE__, #condition);                                           \
    } while (0)

_Noreturn void harness_die(const char *file, int line, const char *what);

/* Start the workers, let them work for the round's time, stop them, wait for their end. */
void harness_workers(struct run *run, void (*work)(struct worker *worker));

/* As a worker: wait for the others, then begin and end the counting of time. */
void harness_begin(struct worker *worker);
void harness_end(struct worker *worker);

/* Zeroed memory that children share. */
void *harness_shared(size_t bytes);

/* Fork a child that dies with us; returns its pid, and 0 in the child. */
int harness_fork(void);
void harness_reap(int pid); /* wait for its end, which must be a good one */
void harness_kill(int pid); /* SIGKILL */
void harness_bury(int pid); /* wait for a killed one */

/* Keep one more thread alive in the calling process. */
void harness_idler(void);

int64_t harness_now(void);
void harness_waited(struct histogram *waits, int64_t ns);

static inline bool stopped(struct run *run)
{
    return atomic_load_explicit(&run->stop, memory_order_relaxed) != 0;
}

/* The critical section's work. */
static inline void spend(unsigned turns)
{
    for (unsigned i = 0; i < turns; i++)
        __asm__ volatile("" : "+r"(i));
}

#endif
