/* SPDX-License-Identifier: MIT */
/* The command `modus advise`: see server/lab/advise.h for its reasoning. */
#ifndef SERVER_LAB_ADVISE_COMMAND_H
#define SERVER_LAB_ADVISE_COMMAND_H

/* argv[0] is "advise". Watches a listener of the running server for some seconds, and prints advice and
 * the line to change. Returns the exit status: 0, 1 when the server cannot be asked or has changed
 * meanwhile (an upgrade, a reload that renews the listener), 2 when the words are wrong. Blocks. Safe from: the main thread. */
int advise_command(int argc, char **argv);

#endif
