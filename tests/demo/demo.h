/* SPDX-License-Identifier: MIT */
/* The demo: each claim and figure of the study notes as one small part that runs it and checks it.
 *
 * A row runs in a process of its own. What it prints is kept, so that the row can compare it with
 * what the notes show; threads and processes of a row may all print. A check that fails fails the
 * row, and the row goes on.
 *
 * A claim about time that does not hold is tried again, twice at most, and is not judged while
 * others use more than a tenth of the CPUs; the row says so then. Nothing else is excused.
 */
#ifndef TESTS_DEMO_DEMO_H
#define TESTS_DEMO_DEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct demo;

struct demo_row {
    const char *id;    /* as in the table of the notes' claims: P1 to O1 */
    const char *claim; /* in a few words */
    void (*run)(struct demo *d);
};

/* Each ends with a row without an id. */
extern const struct demo_row demo_processes[], demo_programs[], demo_pools[], demo_threads[],
    demo_locks[], demo_queues[], demo_interpreter[], demo_coroutines[];

/* Print a line. Does not block. Safe from: any thread and process of the row. */
void demo_print(struct demo *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What has been printed so far, in memory of the row. Safe from: as demo_print. */
const char *demo_printed(const struct demo *d);
/* How many printed lines are exactly this. */
unsigned demo_count(const struct demo *d, const char *line);

/* Add to what the row says that it saw. Safe from: the row's main thread. */
void demo_saw(struct demo *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The row fails unless `holds`; words say what should have been. Returns holds.
 * Safe from: as demo_print. */
bool demo_expect(struct demo *d, bool holds, const char *words);
#define DEMO_CHECK(d, condition) demo_expect(d, condition, #condition)

/* Seconds must be what was wanted: not a bit less, and at most a tenth and 50 ms more. */
void demo_expect_seconds(struct demo *d, double seconds, double wanted);
/* A claim about time of any other form. */
void demo_expect_time(struct demo *d, bool holds, const char *words);

/* Seconds since some fixed moment. */
double demo_now(void);
/* Let time pass: what the row shows is work or a pause of this length. */
void demo_pause(double seconds);
/* How many CPUs this row may use. */
unsigned demo_cpus(void);
/* n additions, as the notes' CPU-bound tasks do. Returns their sum. */
uint64_t demo_add(uint64_t n);

#endif
