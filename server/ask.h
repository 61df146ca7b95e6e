/* SPDX-License-Identifier: MIT */
/* The command line's end of the control socket: find it through the configuration file, ask, print
 * the answer. See server/control.h for what is said there. */
#ifndef SERVER_ASK_H
#define SERVER_ASK_H

/* Ask the server of this configuration file; words, count of them, are the request. Prints the
 * body, or one line on standard error. Blocks until the answer is there, which for some requests
 * takes as long as what they ask for; limit_ms: not longer, 0 as long as it takes. Returns the exit
 * status, 0 or 1. Safe from: the main thread. */
int ask_server(const char *file, const char *const *words, int count, int limit_ms);

#endif
