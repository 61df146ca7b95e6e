/* SPDX-License-Identifier: MIT */
/* Slow clients for the background of a round, over TLS when the URL says so: each sends the head of a
 * request a byte at a time and never comes to its end; cut, or not let in, it comes again a second
 * later. They are a process of their own, so that what they cost is not the loader's. */
#ifndef SERVER_LAB_SLOW_H
#define SERVER_LAB_SLOW_H

#include "server/lab/url.h"

struct modus_process;

/* Start count of them. Returns the process, or NULL. Blocks while they connect, up to a second; those
 * that have not by then go on with it. Safe from: the main thread. */
struct modus_process *lab_slow_start(const struct lab_url *url, unsigned count);
void lab_slow_stop(struct modus_process *slow);

#endif
