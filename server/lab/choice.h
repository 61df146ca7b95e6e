/* SPDX-License-Identifier: MIT */
/* The answer that the page begins with: what somebody runs, and the model for it on this machine.
 *
 * Several loads may stand for one such need. Chosen is who is at the front, alone or within the
 * noise, in most of them; then who is nearest to the best of each. The sentences are those of the
 * first load that it leads, and loads that another leads are named.
 *
 * Safe from: any thread.
 */
#ifndef SERVER_LAB_CHOICE_H
#define SERVER_LAB_CHOICE_H

#include "server/lab/verdict.h"

/* Every load judged, but those that are about the loops. */
struct lab_judged {
    const struct lab_load *load;
    struct lab_verdict *points; /* see lab_judge_load */
    size_t count;
    const struct lab_verdict *headline; /* NULL: nothing was measured */
};

struct lab_findings {
    const struct lab_results *results;
    struct lab_judged *loads; /* as in the results */
    size_t count;
};

/* NULL: no memory. Free with lab_findings_free. */
struct lab_findings *lab_judge_all(const struct lab_results *r);
void lab_findings_free(struct lab_findings *f);

enum { LAB_CHOICES = 6 };

struct lab_choice {
    const char *anchor;              /* the section of the page: "io", "idle" */
    const char *what;                /* "Handlers that wait" */
    const char *example;             /* "an API in front of a database" */
    const struct lab_server *server; /* NULL: nobody can be chosen */
    bool disturbed;                  /* as of the verdict that it is from */
    char pick[96];                   /* its name, or "any but prefork" */
    char also[256]; /* who is as good within the noise: "hybrid, coroutine"; or "" */
    char margin[640];
    char why[1280];
    char from[256]; /* what it was measured with; "": it is no measurement */
    char but[512];  /* loads that others lead, or "" */
    char lock[256]; /* what an interpreter lock costs, or "" */
};

/* Only needs that something was measured for. Returns how many. */
size_t lab_choose(const struct lab_findings *f, struct lab_choice choices[LAB_CHOICES]);
/* What a crash in a handler takes with it under this model; NULL: not known. A property of the model,
 * not measured. */
const char *lab_crash_takes(const char *server);
/* And what ends a leak. */
const char *lab_leak_ends(const char *server);

#endif
