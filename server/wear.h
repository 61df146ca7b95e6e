/* SPDX-License-Identifier: MIT */
/* How worn a worker is, and how worn it may become before another takes its place.
 *
 * Workers that started together and serve the same load would wear out together. So each has limits
 * of its own: requests and age up to 15 % around what the file says, memory up to 10 % below, since
 * it is there to keep a bound. Where in that range is told by the number of the worker's start, such
 * that those that start one after another lie far apart from each other (multiples of the golden
 * ratio): chance alone would put some of eight side by side.
 *
 * Memory is what the worker has for itself and has written to, in RAM or swapped out (RssAnon and
 * VmSwap of /proc/PID/status). Not the resident set, since the program and the shared memory are all
 * workers', and a leak that is swapped out is one; not the proportional set, which changes when a
 * sibling ends and is summed up page by page, while these two the kernel has at hand.
 */
#ifndef SERVER_WEAR_H
#define SERVER_WEAR_H

#include <stdint.h>
#include <sys/types.h>

/* How worn one is, or may be at most (0: no limit). */
struct wear {
    int64_t requests, memory_bytes, age_ms;
};

enum wear_reason { WEAR_NONE, WEAR_REQUESTS, WEAR_MEMORY, WEAR_AGE };
enum { WEAR_REASONS = WEAR_AGE + 1 };

/* The limits of the nth worker. Safe from: anywhere, as the rest. */
struct wear wear_limits(const struct wear *limits, unsigned nth);
/* Which limit has it reached? */
enum wear_reason wear_reached(const struct wear *is, const struct wear *limits);
/* The key of the file that sets this limit. */
const char *wear_key(enum wear_reason reason);
/* Memory of a process in bytes; -1: not known. Blocks on /proc for a moment. */
int64_t wear_memory(pid_t pid);

#endif
