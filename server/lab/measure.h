/* SPDX-License-Identifier: MIT */
/* What servers are compared by: a figure of a series, how it spreads over the repeats, and whether
 * two of them differ.
 *
 * When is a difference clear? A round is one draw: of a machine that does other things too. With
 * three repeats of each of two servers that are the same, one is above the other in all of them once
 * in ten (2 of the 20 ways to order six); with five, once in 126. So ranges that do not overlap are
 * needed, but with few repeats not enough: the medians must also be apart by what matters (5 %; 10 %
 * for a tail, which few requests make). One round that the machine spoilt unseen would hide any
 * difference so: where the medians are three times as far apart as that, each server's farthest round
 * does not count. Two repeats are above two others once in three, and of one
 * we know no range: then 15 % and 25 % are asked for, and 50 % where no round was to be trusted.
 * And less than 256 bytes a connection is nothing to choose by: 20,000 clients are 5 MiB. That is a
 * rule for choosing, no proof: the page says so.
 *
 * Safe from: any thread.
 */
#ifndef SERVER_LAB_MEASURE_H
#define SERVER_LAB_MEASURE_H

#include <stdbool.h>

#include "server/lab/figures.h"
#include "server/lab/results.h"

enum lab_measure {
    LAB_BY_RPS,
    LAB_BY_KEPT_UP, /* answered, as a share of what was asked: the open loop */
    LAB_BY_P50,
    LAB_BY_P99,
    LAB_BY_CHEAP_P99,
    LAB_BY_CPU,    /* µs a request */
    LAB_BY_MEMORY, /* KiB a connection, above what the server took without */
    LAB_BY_WHOLE, /* KiB of the whole server: threads and processes that stand by are a price, too */
    LAB_BY_SECONDS,
};

/* count: trusted rounds; median LAB_UNKNOWN: not measured. */
struct lab_spread {
    double median, low, high;
    double inner_low, inner_high; /* without the round that is farthest from the median */
    unsigned count;
};

struct lab_spread lab_measured(const struct lab_series *s, enum lab_measure m);
bool lab_more_is_better(enum lab_measure m);
/* "requests a second". */
const char *lab_measure_name(enum lab_measure m);
/* Its value with its unit. */
char *lab_say(char text[LAB_FIGURE], enum lab_measure m, double value);
/* How many times better a is than b; below 1: worse. LAB_UNKNOWN if one is not known. */
double lab_times_better(enum lab_measure m, double a, double b);
/* Below this a figure can't be told from nothing at all. */
double lab_least(enum lab_measure m);
/* Are both large enough for a ratio that one can say? */
bool lab_has_ratio(enum lab_measure m, double a, double b);
/* Do these differ beyond the noise? */
bool lab_is_clear(enum lab_measure m, const struct lab_spread *a, const struct lab_spread *b);
/* Requests that failed, as a share of all that were made in the rounds that count. */
double lab_error_share(const struct lab_series *s);
struct lab_errors lab_errors_of(const struct lab_series *s);

#endif
