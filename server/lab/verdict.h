/* SPDX-License-Identifier: MIT */
/* What the figures say: for a load, so many connections and a rate, which server to choose, by how
 * much, and why.
 *
 * What is compared depends on what the load is bound by; when the first figure does not decide, the
 * second does:
 *
 *     waiting (io)       requests a second; open loop: p99; batch: seconds     memory a connection
 *     computing (cpu)    the same                                               p99
 *     mixed              p99 of the cheap requests                              requests a second
 *     overhead           CPU a request                                          p99
 *     idle               memory a connection                                    CPU a request
 *
 * Who had errors above one in a thousand, or in the open loop did not keep up with what was asked
 * while others did, is not chosen. Foreign servers are compared with, not chosen. Every sentence is
 * made from what was measured: see why.c.
 *
 * Safe from: any thread; results must not change meanwhile, and outlive a verdict.
 */
#ifndef SERVER_LAB_VERDICT_H
#define SERVER_LAB_VERDICT_H

#include "server/lab/measure.h"
#include "server/lab/results.h"

enum { LAB_RANKS = 24, LAB_POINTS = 48 /* more are left out */ };

/* Where a server stands. */
struct lab_rank {
    const struct lab_series *series;
    struct lab_spread first, second;
    bool out;      /* it can't be chosen */
    char why[160]; /* if so: "12 % of its requests failed (timeout)" */
};

enum lab_certainty {
    LAB_NOBODY, /* none was measured without errors */
    LAB_ALONE,  /* one: nothing to compare with */
    LAB_NOISE,  /* several, and neither figure decides */
    LAB_SECOND, /* the second figure decides */
    LAB_CLEAR,
};

struct lab_verdict {
    const struct lab_load *load;
    unsigned connections;
    double rate;
    bool gil;
    enum lab_measure first, second;
    struct lab_rank rank[LAB_RANKS]; /* the chosen, who else could be, who is out, the foreign */
    unsigned count;
    unsigned able;         /* so many of them can be chosen */
    unsigned equals_first; /* so many at the front can't be told apart by the first figure */
    unsigned equals;       /* and so many of those by the second either */
    enum lab_certainty certainty;
    bool disturbed;   /* of one that could be chosen no round is to be trusted */
    char margin[512]; /* by how much; without a full stop, as the others */
    char brief[512];  /* the same without those who are as good */
    char why[1024];
    char notes[1024]; /* who and what was left out; "" */
};

/* All that was measured of a load: by connections and rate, those with the interpreter lock last.
 * Returns how many, at most max. */
size_t lab_judge_load(const struct lab_results *r, const struct lab_load *load,
                      struct lab_verdict *verdicts, size_t max);
/* One of them by another figure, for who asks another question. */
void lab_judge_by(const struct lab_results *r, struct lab_verdict *v, enum lab_measure first,
                  enum lab_measure second);
/* Put this one first, if it can't be told from the first, so that the sentences are about it. */
void lab_prefer(const struct lab_results *r, struct lab_verdict *v,
                const struct lab_server *server);
/* The one that speaks for the load: without the lock, with the most connections and the highest rate
 * that somebody kept up with. NULL when count is 0. */
const struct lab_verdict *lab_headline(const struct lab_verdict *verdicts, size_t count);
/* Who is chosen; NULL: nobody. */
const struct lab_server *lab_chosen(const struct lab_verdict *v);
/* Can nearly all be chosen as well as the first? Then they are named by who can't. */
bool lab_most_are_equal(const struct lab_verdict *v);
/* Who is at the front: "event-loop", "event-loop or coroutine", "any but prefork", "any". */
void lab_say_front(char *text, size_t size, const struct lab_verdict *v);
/* "64 connections", "64 connections, 500 requests a second", "100 at once". */
void lab_say_point(char *text, size_t size, const struct lab_verdict *v);

/* --- why.c, margin.c: of a verdict that is ranked */

void lab_say_why(struct lab_verdict *v);
void lab_say_margin(struct lab_verdict *v);
void lab_say_notes(const struct lab_results *r, struct lab_verdict *v);

#endif
