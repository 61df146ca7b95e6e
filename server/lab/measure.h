/* SPDX-License-Identifier: MIT */
/* What servers are compared by: a figure of a series, how it spreads over the repeats, and whether
 * two of them differ.
 *
 * When is a difference clear? A round is one draw, of a machine that does other things too. What
 * disturbs it often lasts longer than a round, and so meets all servers of a repeat alike: hence two
 * are compared within each repeat. Clear is what is seen in every one of them, by what matters: 5 %
 * each time, of a tail, which few requests make, twice as much. In three full runs on a virtual
 * machine the ratio of event-loop and coroutine, which are nearly the same code, had a standard
 * deviation from repeat to repeat of 1 % in requests a second, 4 % in CPU and 18 % in p99, in half of
 * the loads, and in one of ten loads of 11, 14 and 80 %. Of five pairs one may be odd. With two repeats
 * three times as much is asked for, with one five times, and ten times where no pair is to be trusted.
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
bool lab_is_clear(enum lab_measure m, const struct lab_series *a, const struct lab_series *b);
/* Requests that failed, as a share of all that were made in the rounds that count. */
double lab_error_share(const struct lab_series *s);
struct lab_errors lab_errors_of(const struct lab_series *s);

#endif
