/* SPDX-License-Identifier: MIT */
/* The master: it owns every listening socket, forks every worker, reaps known pids, and serves
 * nothing. One thread, a libuv loop. */
#ifndef SERVER_SUPERVISOR_H
#define SERVER_SUPERVISOR_H

#include "server/config.h"
#include "server/inherit.h"

/* Serve the configuration until told to stop, with what is open already: inheritance, or NULL. Takes
 * both, and the process. Blocks. Returns the exit status: 0, or 1 when it cannot start (said in the
 * log, on standard error, or to the master before this one). */
int supervise(struct config *config, struct inheritance *inheritance);
/* Check what `modus -t` can check without binding: handlers, certificates. Returns 0, or -1 with
 * "FILE:LINE: ..." in why. */
int supervise_check(struct config *config, char *why, size_t why_size);

#endif
